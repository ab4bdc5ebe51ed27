//! Calling servers: blocking, as futures, in batches.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::batch::Batch;
use super::call::Call;
use super::error::{BindError, CallError};
use super::handle::Handle;
use super::runner::RunnerConfig;
use super::shared::{CallResult, Op, Target};
use crate::proto::{Payload, check_length};

/// Calls servers, from a port of its own, or, for a [`Group`](super::Group), one of each worker. Clones share the port
/// and can be used by any threads; when the last one, its calls and its batches are dropped, the port is given up.
///
/// ```
/// # use homa_stack::{device::memory, api::{CallError, Runner, RunnerConfig}};
/// # use std::time::Duration;
/// # let (a, b) = memory::pair();
/// # let (here, there) = (Runner::spawn(a, RunnerConfig::default())?, Runner::spawn(b, RunnerConfig::default())?);
/// # let port = there.bind(7)?;
/// # std::thread::spawn(move || while let Ok(r) = port.recv() { let _ = r.reply.send(r.body); });
/// # let to = (memory::ADDRS[1], 7).into();
/// let client = here.client()?;
/// // Blocking:
/// assert_eq!(client.call(to, "one")?, "one");
/// assert_eq!(client.call_timeout(to, "two", Duration::from_secs(5))?, "two");
/// // Started, and waited for later:
/// let (three, four) = (client.start(to, "three")?, client.start(to, "four")?);
/// assert_eq!(four.wait()?, "four");
/// assert_eq!(three.wait()?, "three");
/// // As a future, on any executor:
/// let five = pollster::block_on(async { client.start(to, "five")?.await })?;
/// assert_eq!(five, "five");
/// # there.shutdown()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Ports>,
}

#[derive(Debug)]
struct Ports {
    /// At each worker, in order; one at least.
    ways: Vec<Port>,
    /// Calls that were spread over several.
    turns: AtomicUsize,
}

/// A port at one worker.
#[derive(Debug)]
struct Port {
    port: u16,
    handle: Handle,
}

impl Ports {
    /// Which worker is to carry the next call: of the next in turn and the one after it that with fewer calls under
    /// way. Lengths are not looked at, so that each worker gets a mix like that of all, and its own order of sending,
    /// shortest first, is close to what one worker would do; one that is behind gets less until it has caught up.
    fn choose(&self) -> usize {
        let count = self.ways.len();
        if count == 1 {
            return 0;
        }
        let first = self.turns.fetch_add(1, Ordering::Relaxed) % count;
        let calls = |worker: usize| self.ways[worker].handle.shared.calls();
        let second = (first + 1) % count;
        let chosen = if calls(second) < calls(first) { second } else { first };
        // All others are looked at only where that one is full.
        let may_call = |worker: &usize| self.ways[*worker].handle.shared.may_call();
        (0..count).map(|i| (chosen + i) % count).find(may_call).unwrap_or(chosen)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // Calls under way hold a clone of the client; none is left.
        let _ = self.handle.shared.push(Op::Unbind(self.port));
    }
}

impl Client {
    /// A client with a port at each of `workers`, of which there is one at least.
    pub(super) fn open(workers: &[Handle]) -> Result<Self, BindError> {
        let port = |handle: &Handle| -> Result<Port, BindError> {
            Ok(Port { port: handle.with(|core| core.client_port())??, handle: handle.clone() })
        };
        let ways = workers.iter().map(port).collect::<Result<_, _>>()?;
        Ok(Self { inner: Arc::new(Ports { ways, turns: AtomicUsize::new(0) }) })
    }

    /// The port that calls come from: of a group, the first worker's.
    pub fn port(&self) -> u16 {
        self.inner.ways[0].port
    }

    /// Calls `to` with `payload` and waits for the response, for at most
    /// [`RunnerConfig::timeout`](super::RunnerConfig::timeout).
    ///
    /// # Errors
    ///
    /// Why there is no response. Once it returns nothing is left of the call.
    pub fn call(&self, to: SocketAddr, payload: impl Into<Payload>) -> CallResult {
        self.start(to, payload)?.wait()
    }

    /// As [`Self::call`], waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn call_timeout(&self, to: SocketAddr, payload: impl Into<Payload>, timeout: Duration) -> CallResult {
        self.start_timeout(to, payload, Some(timeout))?.wait()
    }

    /// Starts a call of `to` with `payload`: the message is the stack's when this returns.
    ///
    /// # Errors
    ///
    /// If the message can't be sent, or as many calls are under way as may be ([`CallError::is_full`]).
    pub fn start(&self, to: SocketAddr, payload: impl Into<Payload>) -> Result<Call, CallError> {
        self.start_timeout(to, payload, self.config().timeout)
    }

    /// As [`Self::start`], to be answered within `timeout`; `None`: no limit while the server says that it is alive.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_timeout(
        &self,
        to: SocketAddr,
        payload: impl Into<Payload>,
        timeout: Option<Duration>,
    ) -> Result<Call, CallError> {
        let worker = self.inner.choose();
        let slot = self.handle(worker).shared.slot();
        let target = Target::Slot(Arc::clone(&slot));
        let serial = self.submit_timeout(worker, to, payload.into(), timeout, target)?;
        self.handle(worker).shared.wake();
        Ok(Call::new(slot, self.clone(), worker, serial, to))
    }

    /// A batch for up to `capacity` calls at a time.
    pub fn batch(&self, capacity: usize) -> Batch {
        Batch::new(self.clone(), capacity)
    }

    /// The workers' handles.
    pub(super) fn handles(&self) -> impl Iterator<Item = &Handle> {
        self.inner.ways.iter().map(|way| &way.handle)
    }

    pub(super) fn handle(&self, worker: usize) -> &Handle {
        &self.inner.ways[worker].handle
    }

    pub(super) fn config(&self) -> &RunnerConfig {
        &self.inner.ways[0].handle.shared.config
    }

    /// Hands a call over without waking the thread; returns the worker and the number that it has there.
    pub(super) fn submit(&self, to: SocketAddr, payload: Payload, target: Target) -> Result<(usize, u64), CallError> {
        let worker = self.inner.choose();
        Ok((worker, self.submit_timeout(worker, to, payload, self.config().timeout, target)?))
    }

    fn submit_timeout(
        &self,
        worker: usize,
        to: SocketAddr,
        payload: Payload,
        timeout: Option<Duration>,
        target: Target,
    ) -> Result<u64, CallError> {
        check_length(&payload).map_err(|error| CallError::NotSent { peer: to, error })?;
        let Port { port: from, handle } = &self.inner.ways[worker];
        let shared = &handle.shared;
        let serial = shared.begin_call()?;
        let pushed = shared.push_quietly(Op::Call { serial, from: *from, to, payload, timeout, target });
        if let Err(stopped) = pushed {
            shared.end_call();
            return Err(stopped.into());
        }
        Ok(serial)
    }
}
