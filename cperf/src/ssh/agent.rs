//! The orchestrator's end of a node's agent: orders and answers, files, heartbeats, and the node's own pipes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use cp_node::agent::wire::{self, Frame, Kind, News, Order};
use sha2::{Digest as _, Sha256};

use super::pump::{Ending, Pump};

/// An agent and the connection to it.
pub(crate) struct Agent {
    shared: Arc<Shared>,
    to: Mutex<UnixStream>,
    next: AtomicU32,
    /// Has the session.
    _pump: Pump,
}

/// What the thread that listens shares with those that ask.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ending: Arc<Mutex<Ending>>,
}

struct State {
    /// To orders, by their ids.
    answers: HashMap<u32, News>,
    /// Files that are coming, by the ids of their orders.
    files: HashMap<u32, Incoming>,
    /// The node's standard output; `None` before it runs and after its end.
    stdout: Option<Sender<Vec<u8>>>,
    stderr: Option<File>,
    heard: Instant,
    beat: Option<Beat>,
    /// Id of the order that starts the node.
    starting: u32,
    /// How the node ended.
    ended: Option<String>,
    /// Why the agent is not there any more.
    lost: Option<String>,
}

/// The last heartbeat.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Beat {
    /// Of the agent's clock, how far it is ahead of ours, seconds; too little by what the heartbeat took to come.
    pub(crate) clock_offset_s: f64,
    /// Free space where the node works.
    pub(crate) free_bytes: Option<u64>,
    /// Whether the data-plane interface has a link.
    pub(crate) carrier: Option<bool>,
}

/// A file that is coming.
struct Incoming {
    to: File,
    hash: Sha256,
    size_bytes: u64,
    failed: Option<io::Error>,
}

/// An order that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u32);

impl Agent {
    /// Talks to the agent at the other end of `stream`, whose greeting has been read.
    ///
    /// # Errors
    /// As making sockets and threads.
    pub(super) fn new(stream: UnixStream, pump: Pump, ending: Arc<Mutex<Ending>>) -> io::Result<Self> {
        let state = State {
            answers: HashMap::new(),
            files: HashMap::new(),
            stdout: None,
            stderr: None,
            heard: Instant::now(),
            beat: None,
            starting: 0,
            ended: None,
            lost: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), ending });
        let from = stream.try_clone()?;
        // A connection that hangs must not hang us; what is sent is small.
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        let listening = Arc::clone(&shared);
        std::thread::Builder::new().name("agent".into()).spawn(move || listening.listen(from))?;
        Ok(Self { shared, to: Mutex::new(stream), next: AtomicU32::new(1), _pump: pump })
    }

    /// Sends an order; its answer is had by [`Agent::answer`].
    pub(crate) fn send(&self, order: &Order) -> Ticket {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.write(Kind::Message, id, &serde_json::to_vec(order).expect("strings and numbers only"));
        Ticket(id)
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// The order failed, the agent is lost, or there is no answer within `limit`.
    pub(crate) fn answer(&self, ticket: Ticket, limit: Duration) -> anyhow::Result<News> {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.lock();
        loop {
            match state.answers.remove(&ticket.0) {
                Some(News::Failed { text }) => bail!("{text}"),
                Some(news) => return Ok(news),
                None => {}
            }
            if let Some(why) = &state.lost {
                bail!("{why}");
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                bail!("its agent has not answered within {:.0} s", limit.as_secs_f64());
            };
            state = self.shared.wait(state, left);
        }
    }

    /// Sends an order and waits.
    ///
    /// # Errors
    /// As [`Agent::answer`].
    pub(crate) fn ask(&self, order: &Order, limit: Duration) -> anyhow::Result<News> {
        self.answer(self.send(order), limit)
    }

    /// Has the file `path` of the node written to `to`, which must not exist; [`Agent::fetched`] waits for it.
    ///
    /// # Errors
    /// The local file can't be created.
    pub(crate) fn fetch(&self, path: &str, to: &Path) -> anyhow::Result<Ticket> {
        let file = File::create(to).with_context(|| format!("creating {}", to.display()))?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let incoming = Incoming { to: file, hash: Sha256::new(), size_bytes: 0, failed: None };
        self.shared.lock().files.insert(id, incoming);
        let order = Order::Get { path: path.to_owned() };
        self.write(Kind::Message, id, &serde_json::to_vec(&order).expect("strings and numbers only"));
        Ok(Ticket(id))
    }

    /// Waits for a file for as long as it keeps coming, at most `pause` between two pieces, and compares checksums.
    ///
    /// # Errors
    /// The node can't read it, the agent is lost, it can't be written here, or other bytes have come than were sent.
    pub(crate) fn fetched(&self, ticket: Ticket, pause: Duration) -> anyhow::Result<()> {
        let mut before = 0;
        let answer = loop {
            match self.answer(ticket, pause) {
                Err(err) => {
                    let now = self.shared.lock().files.get(&ticket.0).map_or(0, |file| file.size_bytes);
                    if self.lost().is_some() || now == before {
                        break Err(err);
                    }
                    before = now;
                }
                other => break other,
            }
        };
        let Some(file) = self.shared.lock().files.remove(&ticket.0) else { bail!("a file that was not asked for") };
        if let Some(err) = file.failed {
            return Err(err).context("writing it here");
        }
        let News::Sent { size_bytes, sha256 } = answer? else { bail!("an answer to something else has come") };
        let here = hex(&file.hash.finalize());
        if (size_bytes, &sha256) != (file.size_bytes, &here) {
            bail!("{size_bytes} bytes with SHA-256 {sha256} were sent, {} with {here} have come", file.size_bytes);
        }
        Ok(())
    }

    /// Starts the node; its standard error goes to the file `stderr`. What it says can be read from what is returned;
    /// that ends with the node, however that happens.
    ///
    /// # Errors
    /// The local file can't be opened.
    pub(crate) fn start(&self, order: &Order, stderr: &Path) -> anyhow::Result<Output> {
        let file = File::options().append(true).create(true).open(stderr);
        let file = file.with_context(|| format!("opening {}", stderr.display()))?;
        let (send, receive) = mpsc::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut state = self.shared.lock();
        (state.stdout, state.stderr, state.ended, state.starting) = (Some(send), Some(file), None, id);
        drop(state);
        self.write(Kind::Message, id, &serde_json::to_vec(order).expect("strings and numbers only"));
        Ok(Output { receive, bytes: Vec::new(), done: 0 })
    }

    /// To the node's standard input.
    pub(crate) fn input(&self, bytes: &[u8]) -> io::Result<()> {
        if self.lost().is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.write(Kind::Stdio, 0, bytes);
        Ok(())
    }

    /// Says that we are there.
    pub(crate) fn ping(&self) {
        self.write(Kind::Message, 0, &serde_json::to_vec(&Order::Ping).expect("strings and numbers only"));
    }

    /// How the node ended; `None` while it runs.
    pub(crate) fn ended(&self) -> Option<String> {
        let state = self.shared.lock();
        state.ended.clone().or_else(|| state.lost.clone())
    }

    /// Why the agent is not there any more; `None` while it is.
    pub(crate) fn lost(&self) -> Option<String> {
        self.shared.lock().lost.clone()
    }

    /// How long nothing has been heard.
    pub(crate) fn silence(&self) -> Duration {
        self.shared.lock().heard.elapsed()
    }

    /// The last heartbeat.
    pub(crate) fn beat(&self) -> Option<Beat> {
        self.shared.lock().beat
    }

    /// Gives the agent up.
    pub(crate) fn give_up(&self, why: String) {
        self.shared.lose(why);
        let _ = self.to.lock().unwrap_or_else(PoisonError::into_inner).shutdown(Shutdown::Both);
    }

    fn write(&self, kind: Kind, id: u32, body: &[u8]) {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(err) = wire::write(&mut *to, kind, id, body) {
            drop(to);
            self.shared.lose(format!("the connection to its agent takes no more orders ({err})"));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = wire::say(&mut *self.to.lock().unwrap_or_else(PoisonError::into_inner), 0, &Order::End);
        let _ = self.to.lock().unwrap_or_else(PoisonError::into_inner).shutdown(Shutdown::Write);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Notes why the agent is not there any more; the first reason is the one.
    fn lose(&self, why: String) {
        let mut state = self.lock();
        state.lost.get_or_insert(why);
        (state.stdout, state.stderr) = (None, None);
        self.changed.notify_all();
    }

    /// Until the connection ends.
    fn listen(&self, mut from: UnixStream) {
        let why = loop {
            match wire::read(&mut from) {
                Ok(Some(frame)) => {
                    if let Err(err) = self.take(frame) {
                        break format!("its agent is not understood: {err}");
                    }
                }
                Ok(None) => break self.why(),
                Err(err) => break format!("{} ({err})", self.why()),
            }
        };
        self.lose(why);
    }

    /// Why a connection has ended, as far as it told.
    fn why(&self) -> String {
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let errors = String::from_utf8_lossy(&ending.errors).trim().to_owned();
        let status = ending.status.map(|status| format!(", exit status {status}")).unwrap_or_default();
        let colon = if errors.is_empty() { "" } else { ": " };
        format!("lost: the SSH connection to its agent has ended{status}{colon}{errors}")
    }

    fn take(&self, frame: Frame) -> io::Result<()> {
        let mut state = self.lock();
        state.heard = Instant::now();
        match frame.kind {
            // Who reads them has gone when the node is given up.
            Kind::Stdio => drop(state.stdout.as_ref().map(|to| to.send(frame.body))),
            // A log that can't be written must not end a run whose samples may still fit.
            Kind::Stderr => drop(state.stderr.as_mut().map(|to| to.write_all(&frame.body))),
            Kind::File => {
                if let Some(file) = state.files.get_mut(&frame.id) {
                    file.take(&frame.body);
                }
            }
            Kind::Message => {
                match frame.message()? {
                    News::Beat { clock_s, free_bytes, carrier } => {
                        state.beat = Some(Beat { clock_offset_s: clock_s - now_s(), free_bytes, carrier });
                    }
                    News::Ended { how } => {
                        state.ended = Some(how);
                        (state.stdout, state.stderr) = (None, None);
                    }
                    News::Started { .. } => {}
                    // Nobody waits for the answer to "start": what is seen is that the node has ended.
                    News::Failed { text } if frame.id == state.starting => {
                        state.ended = Some(format!("it could not be started: {text}"));
                        (state.stdout, state.stderr) = (None, None);
                    }
                    news => drop(state.answers.insert(frame.id, news)),
                }
                self.changed.notify_all();
            }
        }
        Ok(())
    }
}

impl Incoming {
    fn take(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size_bytes += bytes.len() as u64;
        if self.failed.is_none() {
            self.failed = self.to.write_all(bytes).err();
        }
    }
}

/// What a node says.
pub(crate) struct Output {
    receive: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
    done: usize,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.done == self.bytes.len() {
            let Ok(bytes) = self.receive.recv() else { return Ok(0) };
            (self.bytes, self.done) = (bytes, 0);
        }
        let len = buffer.len().min(self.bytes.len() - self.done);
        buffer[..len].copy_from_slice(&self.bytes[self.done..self.done + len]);
        self.done += len;
        Ok(len)
    }
}

/// Our wall clock, seconds since 1970.
pub(crate) fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
