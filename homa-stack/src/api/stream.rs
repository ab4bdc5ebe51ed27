//! Requests that are read while they arrive: the header first, the body later.

use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::{BindError, Stopped};
use super::handle::Handle;
use super::server::{Arrival, PortQueue, Request, Served, WakePolicy};
use super::shared::{Op, Port};
use super::wait::{self, Waiter};
use crate::proto::Arriving;

/// Most bytes that lie ready for a reader of a message that is not whole. The rest of what has come stays in the pool.
const WINDOW: usize = 128 * 1024;

/// The rest of a request will not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rest of the request will not come: its sender is gone or gave it up, or this host was shut down")]
pub struct Cut;

/// A message between the protocol's thread and its reader.
#[derive(Debug)]
pub(super) struct Stream {
    message: Arriving,
    flow: Mutex<Flow>,
}

#[derive(Debug, Default)]
struct Flow {
    /// Bytes from `base` on that lie ready.
    ready: Vec<u8>,
    /// Offset in the message of the first byte of `ready`.
    base: usize,
    /// True if `ready` was filled up, and more has come or may come without the reader's hearing of it.
    full: bool,
    end: Option<Result<Arrival, Cut>>,
    /// True if nobody reads it any more.
    gone: bool,
    waiter: Option<Waiter>,
}

impl Stream {
    pub(super) fn new(message: Arriving) -> Self {
        Self { message, flow: Mutex::default() }
    }

    /// Fills up what lies ready of the `arrived` first bytes: `copy` gives bytes of the message from an offset on.
    pub(super) fn fill(&self, arrived: usize, copy: impl FnOnce(usize, &mut [u8]) -> usize) {
        let mut flow = self.lock();
        if flow.gone {
            return;
        }
        let old = flow.ready.len();
        let offset = flow.base + old;
        flow.ready.resize(WINDOW.min(old + arrived.saturating_sub(offset)), 0);
        let n = copy(offset, &mut flow.ready[old..]);
        flow.ready.truncate(old + n);
        flow.full = flow.ready.len() == WINDOW;
        self.wake(flow);
    }

    /// The message is whole, or will never be; gives it back if nobody wants it.
    pub(super) fn finish(&self, end: Result<Arrival, Cut>) -> Option<Arrival> {
        let mut flow = self.lock();
        if flow.gone {
            return end.ok();
        }
        flow.end = Some(end);
        self.wake(flow);
        None
    }

    /// Nobody reads it any more; gives the message, if it is whole and was not taken.
    pub(super) fn abandon(&self) -> Option<Arrival> {
        let mut flow = self.lock();
        flow.gone = true;
        flow.end.take()?.ok()
    }

    fn wake(&self, mut flow: MutexGuard<'_, Flow>) {
        let waiter = flow.waiter.take();
        drop(flow);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that has begun to arrive, as it lies in the port's queue.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) stream: Arc<Stream>,
    pub(super) peer: SocketAddr,
    pub(super) port: u16,
    /// Which worker has the RPC.
    pub(super) worker: usize,
    pub(super) len: usize,
}

/// Receives the requests to a port as they begin to arrive, from [`Handle::bind_early`] or
/// [`Group::bind_early`](super::Group::bind_early). When it is dropped the port is
/// given up; requests that were taken can still be read and answered.
///
/// ```
/// # use homa_stack::{device::memory, api::{Runner, RunnerConfig}};
/// # use std::io::Read;
/// # let (a, b) = memory::pair();
/// # let (here, there) = (Runner::spawn(a, RunnerConfig::default())?, Runner::spawn(b, RunnerConfig::default())?);
/// let server = there.bind_early(7)?;
/// # let call = here.client()?.start((memory::ADDRS[1], 7).into(), vec![1; 500_000])?;
/// let mut incoming = server.recv()?;
/// let mut header = [0; 16];
/// incoming.read_exact(&mut header)?; // while the rest is on its way
/// assert_eq!((header, incoming.len()), ([1; 16], 500_000));
/// let request = incoming.finish()?; // waits for all of it; the body has the header too
/// assert_eq!(request.body.len(), 500_000);
/// request.reply.send("thanks")?;
/// # assert_eq!(call.wait()?, "thanks");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EarlyServer {
    queue: Arc<PortQueue<Opened>>,
    port: Served,
}

impl EarlyServer {
    /// Serves `port` at all of `workers`.
    pub(super) fn bind(port: u16, workers: &[Handle]) -> Result<Self, BindError> {
        let queue = Arc::new(PortQueue::new(WakePolicy::default()));
        let port = Served::at(port, workers, || Port::Early(Arc::clone(&queue)))?;
        Ok(Self { queue, port })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// The next request, waited for.
    ///
    /// # Errors
    ///
    /// If the protocol's thread has ended.
    pub fn recv(&self) -> Result<Incoming, Stopped> {
        let opened = self.queue.take_until(self.port.poll(), None)?;
        Ok(self.incoming(opened.expect("without a time-out there is a request, or an end")))
    }

    /// The next request, waited for at most for `timeout`; none then.
    ///
    /// # Errors
    ///
    /// If the protocol's thread has ended.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Incoming>, Stopped> {
        let opened = self.queue.take_until(self.port.poll(), wait::end_of(timeout))?;
        Ok(opened.map(|opened| self.incoming(opened)))
    }

    fn incoming(&self, opened: Opened) -> Incoming {
        let Opened { stream, peer, port, worker, len } = opened;
        Incoming { stream, peer, port, len, at: 0, handle: self.port.handle(worker).clone() }
    }
}

impl fmt::Debug for EarlyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyServer").field("port", &self.port.number).finish_non_exhaustive()
    }
}

/// A request that is read while it arrives, in order, by [`Read`]: an end of the bytes is the end of the message, and a
/// message whose rest will not come is an error ([`Cut`], as [`io::ErrorKind::UnexpectedEof`]).
///
/// At most 128 KiB lie ready beside the receive pool; all that has come stays in the pool until the request is dropped,
/// so that a slow reader holds its senders back like one that keeps bodies. Dropped before its reply is sent, the
/// request is given up.
#[derive(Debug)]
pub struct Incoming {
    stream: Arc<Stream>,
    peer: SocketAddr,
    port: u16,
    len: usize,
    /// Bytes read.
    at: usize,
    handle: Handle,
}

impl Incoming {
    /// The client.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The port that it came to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Length of the whole message in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: messages have at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Waits for the whole message, whatever was read of it, and for the means to answer it.
    ///
    /// # Errors
    ///
    /// If the rest will not come.
    pub fn finish(self) -> Result<Request, Cut> {
        loop {
            let mut flow = self.stream.lock();
            match flow.end.take() {
                Some(Ok(arrival)) => return Ok(arrival.into_request(&self.handle)),
                Some(Err(cut)) => return Err(cut),
                None => flow.waiter = Some(Waiter::this_thread()),
            }
            drop(flow);
            wait::sleep(None);
        }
    }

    /// Bytes that can be read now; nothing if none have come.
    fn try_read(&mut self, out: &mut [u8]) -> Option<io::Result<usize>> {
        let mut flow = self.stream.lock();
        if let Some(Ok(arrival)) = &flow.end {
            let n = arrival.body.copy_to(self.at, out);
            self.at += n;
            return Some(Ok(n));
        }
        let skip = self.at - flow.base;
        let n = (flow.ready.len() - skip).min(out.len());
        if n > 0 {
            out[..n].copy_from_slice(&flow.ready[skip..skip + n]);
            self.at += n;
            // In halves, so that bytes are not moved for each read.
            if self.at - flow.base >= WINDOW / 2 {
                let read = self.at - flow.base;
                flow.ready.drain(..read);
                flow.base = self.at;
                if std::mem::take(&mut flow.full) {
                    drop(flow);
                    // A thread that has ended has said that the message is cut.
                    let _ = self.handle.shared.push(Op::Pump(self.stream.message));
                }
            }
            return Some(Ok(n));
        }
        if let Some(Err(cut)) = &flow.end {
            return Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, *cut)));
        }
        flow.waiter = Some(Waiter::this_thread());
        None
    }
}

impl Read for Incoming {
    /// Waits for at least one byte.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(read) = self.try_read(out) {
                return read;
            }
            wait::sleep(None);
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(arrival) = self.stream.abandon() {
            drop(arrival.into_request(&self.handle));
        }
    }
}
