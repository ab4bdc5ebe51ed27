//! Calling servers: blocking, as futures, in batches.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::batch::Batch;
use super::call::Call;
use super::error::CallError;
use super::handle::Handle;
use super::shared::{CallResult, Op, Target};
use crate::proto::{Payload, check_length};

/// Calls servers, from a port of its own. Clones share the port and can be used by any threads; when the last one, its
/// calls and its batches are dropped, the port is given up.
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
    inner: Arc<Port>,
}

#[derive(Debug)]
struct Port {
    port: u16,
    handle: Handle,
}

impl Drop for Port {
    fn drop(&mut self) {
        // Calls under way hold a clone of the client; none is left.
        let _ = self.handle.shared.push(Op::Unbind(self.port));
    }
}

impl Client {
    pub(super) fn new(port: u16, handle: Handle) -> Self {
        Self { inner: Arc::new(Port { port, handle }) }
    }

    /// The port that calls come from.
    pub fn port(&self) -> u16 {
        self.inner.port
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
        self.start_timeout(to, payload, self.inner.handle.shared.config.timeout)
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
        let slot = self.inner.handle.shared.slot();
        let target = Target::Slot(Arc::clone(&slot));
        let serial = self.submit_timeout(to, payload.into(), timeout, target)?;
        self.inner.handle.shared.wake();
        Ok(Call::new(slot, self.clone(), serial, to))
    }

    /// A batch for up to `capacity` calls at a time.
    pub fn batch(&self, capacity: usize) -> Batch {
        Batch::new(self.clone(), capacity)
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.inner.handle
    }

    /// Hands a call over without waking the thread; returns its number.
    pub(super) fn submit(&self, to: SocketAddr, payload: Payload, target: Target) -> Result<u64, CallError> {
        self.submit_timeout(to, payload, self.inner.handle.shared.config.timeout, target)
    }

    fn submit_timeout(
        &self,
        to: SocketAddr,
        payload: Payload,
        timeout: Option<Duration>,
        target: Target,
    ) -> Result<u64, CallError> {
        check_length(&payload).map_err(|error| CallError::NotSent { peer: to, error })?;
        let shared = &self.inner.handle.shared;
        let serial = shared.begin_call()?;
        let pushed = shared.push_quietly(Op::Call { serial, from: self.inner.port, to, payload, timeout, target });
        if let Err(stopped) = pushed {
            shared.end_call();
            return Err(stopped.into());
        }
        Ok(serial)
    }
}
