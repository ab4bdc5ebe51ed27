//! Transports: how the ports of a node send requests and answer them.

use std::sync::atomic::AtomicU64;

use anyhow::Result;
use rustix::thread::CpuSet;

use crate::errors::Missing;

pub(crate) mod homa;
pub(crate) mod kernel;
pub(crate) mod tcp;
mod unloaded;

/// The running client ports of one `client` command.
pub(crate) trait ClientHandle: Send {
    /// Sends no new requests; waits at most 0.5 s for each sender. Responses are still received.
    fn stop_senders(&mut self);
    /// Closes the ports and ends their threads; RPCs outstanding have no end then. Idempotent.
    fn close(&mut self);
}

/// The running server ports of one `server` command.
pub(crate) trait ServerHandle: Send {
    /// Closes the ports and ends their threads. Idempotent.
    fn close(&mut self);
}

/// Counters of one server port; they only grow.
#[derive(Debug, Default)]
pub(crate) struct ServerCounters {
    /// Requests answered.
    pub(crate) requests: AtomicU64,
    /// Bytes of those requests.
    pub(crate) request_bytes: AtomicU64,
    /// Bytes of the responses.
    pub(crate) response_bytes: AtomicU64,
    /// Looks of a thread at the network that found requests: a return of the wait for readiness, a round over
    /// connections without sleeping, a turn of the stack. Each counts at the port of the first request that it found.
    pub(crate) looks: AtomicU64,
}

/// Restricts the calling thread to one core.
pub(crate) fn pin_to(core: u16) -> Result<()> {
    let mut set = CpuSet::new();
    let fits = usize::from(core) < CpuSet::MAX_CPU;
    if fits {
        set.set(core.into());
        if rustix::thread::sched_setaffinity(None, &set).is_ok() {
            return Ok(());
        }
    }
    Err(Missing(format!("can't run on core {core}: --pin needs a core that this process may use")).into())
}
