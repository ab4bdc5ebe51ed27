//! Moves bytes between SSH channels and local sockets, so that the rest reads and writes blocking, from any thread.
//!
//! libssh2 lets one thread at a time use a session, and a blocking read would keep all others waiting: here one thread
//! has the session, never blocks in it, and sleeps in poll(2) on all sockets.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use ssh2::{BlockDirections, Channel, Session};

/// Most bytes under way in one direction of a channel, before the other side is made to wait.
const MOST: usize = 512 * 1024;
/// Longest sleep: keep-alives are due after it.
const NAP: Duration = Duration::from_secs(2);
/// Most of a command's standard error that is kept.
const MOST_ERRORS: usize = 8 * 1024;
/// libssh2's "call again".
const AGAIN: ssh2::ErrorCode = ssh2::ErrorCode::Session(-37);

/// How a channel ended, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending {
    /// Start of its standard error.
    pub(super) errors: Vec<u8>,
    /// Exit status of its command.
    pub(super) status: Option<i32>,
}

/// A thread with a session.
pub(super) struct Pump {
    requests: Sender<Request>,
    /// Ends the thread's sleep.
    wake: UnixStream,
}

enum Request {
    /// A connection from the session's host to another one.
    Dial { host: String, port: u16, answer: Sender<Result<UnixStream, String>> },
}

struct Pipe {
    channel: Channel,
    local: UnixStream,
    to_remote: Buffer,
    to_local: Buffer,
    local_ended: bool,
    remote_ended: bool,
    eof_sent: bool,
    ending: Arc<Mutex<Ending>>,
}

/// Bytes on their way.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    done: usize,
}

impl Buffer {
    fn is_empty(&self) -> bool {
        self.done == self.bytes.len()
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.done
    }

    /// Takes what `from` has now; `Ok(None)` if that is nothing.
    fn fill(&mut self, from: &mut impl Read, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        let len = match from.read(scratch) {
            Ok(len) => len,
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(err) => return Err(err),
        };
        if self.is_empty() {
            self.bytes.clear();
            self.done = 0;
        }
        self.bytes.extend_from_slice(&scratch[..len]);
        Ok(Some(len))
    }

    /// Gives `to` what it takes now; whether that was anything.
    fn drain(&mut self, to: &mut impl Write) -> io::Result<bool> {
        let mut some = false;
        while !self.is_empty() {
            match to.write(&self.bytes[self.done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => {
                    self.done += len;
                    some = true;
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(some)
    }
}

impl Pump {
    /// Gives `session`, whose socket is `socket` too, a thread. With `channel`, its bytes come out of the socket that is
    /// returned; its end is noted in `ending`.
    ///
    /// # Errors
    /// As starting a thread and making sockets.
    pub(super) fn start(
        session: Session,
        socket: OwnedFd,
        channel: Option<(Channel, Arc<Mutex<Ending>>)>,
    ) -> io::Result<(Self, Option<UnixStream>)> {
        let (wake, woken) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let (requests, requested) = mpsc::channel();
        session.set_blocking(false);
        session.set_keepalive(true, 10);
        let mut works = Works { session, socket, woken, requested, dialing: VecDeque::new(), pipes: Vec::new() };
        let near = channel.map(|(channel, ending)| works.add(channel, ending)).transpose()?;
        std::thread::Builder::new().name("ssh".into()).spawn(move || works.run())?;
        Ok((Self { requests, wake }, near))
    }

    /// Opens a connection from the session's host to another one.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn dial(&self, host: &str, port: u16, limit: Duration) -> Result<UnixStream, String> {
        let (answer, answered) = mpsc::channel();
        let request = Request::Dial { host: host.to_owned(), port, answer };
        let gone = || "the connection to the jump host is lost".to_owned();
        self.requests.send(request).map_err(|_| gone())?;
        let _ = (&self.wake).write_all(&[1]); // full: it is awake
        match answered.recv_timeout(limit) {
            Ok(result) => result,
            Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("no answer within {} s", limit.as_secs())),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
}

/// What the thread has.
struct Works {
    session: Session,
    socket: OwnedFd,
    woken: UnixStream,
    requested: Receiver<Request>,
    dialing: VecDeque<Request>,
    pipes: Vec<Pipe>,
}

impl Works {
    fn add(&mut self, channel: Channel, ending: Arc<Mutex<Ending>>) -> io::Result<UnixStream> {
        let (near, local) = UnixStream::pair()?;
        local.set_nonblocking(true)?;
        let (to_remote, to_local) = Default::default();
        let (local_ended, remote_ended, eof_sent) = (false, false, false);
        self.pipes.push(Pipe { channel, local, to_remote, to_local, local_ended, remote_ended, eof_sent, ending });
        Ok(near)
    }

    /// Until nobody can ask for more and all channels have ended, or the connection has.
    fn run(mut self) {
        let mut scratch = vec![0; 64 * 1024];
        let mut alive = Instant::now();
        loop {
            loop {
                match self.requested.try_recv() {
                    Ok(request) => self.dialing.push_back(request),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) if self.pipes.is_empty() => return self.close(),
                    Err(TryRecvError::Disconnected) => break,
                }
            }
            let Ok(mut progress) = self.dial_next() else { break };
            let before = self.pipes.len();
            self.pipes.retain_mut(|pipe| match pipe.turn(&mut scratch) {
                Ok(some) => {
                    progress |= some;
                    !pipe.is_done()
                }
                Err(_) => false,
            });
            progress |= before != self.pipes.len();
            if alive.elapsed() >= NAP {
                alive = Instant::now();
                if self.session.keepalive_send().is_err_and(|err| err.code() != AGAIN) {
                    break;
                }
            }
            if !progress && self.sleep().is_err() {
                break;
            }
        }
        // Whoever reads a pipe's other end sees it end.
        self.pipes.clear();
    }

    /// Says goodbye.
    fn close(self) {
        let _ = self.session.disconnect(None, "done", None); // the other side may have gone
    }

    /// Goes on with the first connection that is asked for. An error is the session's end.
    fn dial_next(&mut self) -> io::Result<bool> {
        let Some(Request::Dial { host, port, answer }) = self.dialing.front() else { return Ok(false) };
        let result = match self.session.channel_direct_tcpip(host, *port, None) {
            Err(err) if err.code() == AGAIN => return Ok(false),
            result => result,
        };
        let answer = answer.clone();
        self.dialing.pop_front();
        let result = result.map_err(|err| err.message().to_owned());
        let near = result.and_then(|channel| self.add(channel, Arc::default()).map_err(|err| err.to_string()));
        let _ = answer.send(near); // who asked may have given up
        Ok(true)
    }

    /// Until something can be done.
    fn sleep(&mut self) -> io::Result<()> {
        let out = matches!(self.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both);
        let write = |wanted: bool| if wanted { PollFlags::OUT } else { PollFlags::empty() };
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN | write(out)),
            PollFd::from_borrowed_fd(self.woken.as_fd(), PollFlags::IN),
        ];
        for pipe in &self.pipes {
            let read = if pipe.takes_more() { PollFlags::IN } else { PollFlags::empty() };
            fds.push(PollFd::from_borrowed_fd(pipe.local.as_fd(), read | write(!pipe.to_local.is_empty())));
        }
        let timeout = rustix::event::Timespec { tv_sec: NAP.as_secs() as i64, tv_nsec: 0 };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
        let mut bytes = [0; 64];
        match self.woken.read(&mut bytes) {
            // Who could wake us has gone; channels that are open go on.
            Ok(0) if self.pipes.is_empty() => Err(io::ErrorKind::BrokenPipe.into()),
            Ok(0) => {
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Pipe {
    /// Moves what can be moved; whether that was anything. An error is the end of the channel or of the connection.
    fn turn(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        let mut progress = false;
        if self.takes_more() {
            match self.to_remote.fill(&mut self.local, scratch) {
                Ok(None) => {}
                Ok(Some(0)) | Err(_) => self.local_ended = true,
                Ok(Some(_)) => progress = true,
            }
        }
        if !self.remote_ended {
            progress |= self.to_remote.drain(&mut self.channel)?;
        }
        if self.local_ended && self.to_remote.is_empty() && !self.eof_sent {
            match self.channel.send_eof() {
                Err(err) if err.code() == AGAIN => {}
                _ => self.eof_sent = true,
            }
        }
        let mut errors = Buffer::default();
        if errors.fill(&mut self.channel.stderr(), scratch)?.is_some_and(|len| len > 0) {
            let kept = &mut self.ending.lock().unwrap_or_else(PoisonError::into_inner).errors;
            kept.extend_from_slice(&errors.bytes);
            kept.truncate(MOST_ERRORS);
            progress = true;
        }
        if !self.remote_ended && self.to_local.len() < MOST {
            match self.to_local.fill(&mut self.channel, scratch)? {
                Some(0) if self.channel.eof() => {
                    self.remote_ended = true;
                    progress = true;
                    let status = self.channel.exit_status().ok();
                    self.ending.lock().unwrap_or_else(PoisonError::into_inner).status = status;
                }
                Some(len) if len > 0 => progress = true,
                _ => {}
            }
        }
        match self.to_local.drain(&mut self.local) {
            Ok(some) => progress |= some,
            // Nobody reads any more.
            Err(_) => self.to_local = Buffer::default(),
        }
        Ok(progress)
    }

    fn takes_more(&self) -> bool {
        !self.local_ended && self.to_remote.len() < MOST
    }

    fn is_done(&self) -> bool {
        if self.remote_ended && self.to_local.is_empty() {
            let _ = self.local.shutdown(Shutdown::Both);
            return true;
        }
        // Both directions are at their end; what the far end still says interests nobody.
        false
    }
}
