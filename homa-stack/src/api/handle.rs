//! What threads hold to use a protocol thread.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::client::Client;
use super::error::{BindError, Stopped};
use super::server::{Server, WakePolicy};
use super::shared::{Answer, Op, Port, Shared};
use super::stream::EarlyServer;
use crate::proto::Endpoint;

/// Uses a Homa endpoint that another thread runs: from [`Runner::spawn`](super::Runner::spawn). Cheap to clone, and
/// free for any thread to use. When all handles, clients, servers and what came from them are gone, the thread sends
/// what is left to send and ends; [`shutdown`](Self::shutdown) waits for that.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    /// Ends the thread when the last handle goes.
    _guard: Arc<Guard>,
}

struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.stopping.store(true, Ordering::SeqCst);
        self.0.wake();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Counters of the application interface, each since the start, but for `calls`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls under way now.
    pub calls: usize,
    /// Calls refused because as many were under way as may be.
    pub calls_full: u64,
    /// Calls given up by the application.
    pub calls_cancelled: u64,
    /// Calls given up because their time was over.
    pub calls_late: u64,
    /// Requests given up because their reply token was dropped.
    pub replies_dropped: u64,
    /// Requests that came to a port which nobody serves any more.
    pub requests_unserved: u64,
}

impl Stats {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            calls_full: self.calls_full + other.calls_full,
            calls_cancelled: self.calls_cancelled + other.calls_cancelled,
            calls_late: self.calls_late + other.calls_late,
            replies_dropped: self.replies_dropped + other.replies_dropped,
            requests_unserved: self.requests_unserved + other.requests_unserved,
        }
    }
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { _guard: Arc::new(Guard(Arc::clone(&shared))), shared }
    }

    /// A client with a port of its own.
    ///
    /// # Errors
    ///
    /// If all client ports are in use, or the protocol's thread has ended.
    pub fn client(&self) -> Result<Client, BindError> {
        Client::open(std::slice::from_ref(self))
    }

    /// Serves `port`, 1 to 32767.
    ///
    /// # Errors
    ///
    /// If it is taken or no server port, or the protocol's thread has ended.
    pub fn bind(&self, port: u16) -> Result<Server, BindError> {
        self.bind_with(port, WakePolicy::default())
    }

    /// Serves `port`, 1 to 32767, waking those who wait for requests by `policy`.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`].
    pub fn bind_with(&self, port: u16, policy: WakePolicy) -> Result<Server, BindError> {
        Server::bind(port, std::slice::from_ref(self), policy)
    }

    /// Serves `port`, 1 to 32767, taking each request as it begins to arrive.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`].
    pub fn bind_early(&self, port: u16) -> Result<EarlyServer, BindError> {
        EarlyServer::bind(port, std::slice::from_ref(self))
    }

    pub(super) fn take_port(&self, number: u16, port: Port) -> Result<(), BindError> {
        let answer = Answer::new();
        self.shared.push(Op::Bind(number, port, Arc::clone(&answer)))?;
        Ok(answer.take()??)
    }

    /// Runs `ask` on the endpoint, in its thread, and returns what it returns: for metrics, traces and parameters.
    /// Events belong to the thread: `ask` must take none.
    ///
    /// # Errors
    ///
    /// If the protocol's thread has ended.
    pub fn with<T: Send + 'static>(&self, ask: impl FnOnce(&mut Endpoint) -> T + Send + 'static) -> Result<T, Stopped> {
        let answer = Answer::new();
        let giver = Giver(Arc::clone(&answer));
        self.shared.push(Op::Do(Box::new(move |core| giver.0.give(Some(ask(core))))))?;
        answer.take()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            calls: self.shared.calls(),
            calls_full: read(&counters.calls_full),
            calls_cancelled: read(&counters.calls_cancelled),
            calls_late: read(&counters.calls_late),
            replies_dropped: read(&counters.replies_dropped),
            requests_unserved: read(&counters.requests_unserved),
        }
    }

    /// Ends the thread, whatever other handles there are, and waits for it: calls under way fail, replies that were
    /// accepted are sent, as far as that takes no longer than
    /// [`RunnerConfig::linger`](super::RunnerConfig::linger).
    ///
    /// # Errors
    ///
    /// What the network interface said, if the thread ended because of that.
    pub fn shutdown(&self) -> io::Result<()> {
        self.tell_to_end();
        let Some(thread) = self.shared.thread().take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the protocol's thread panicked")))
    }

    pub(super) fn tell_to_end(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.wake();
    }
}

/// Gives an answer; dropped without one, that there is none.
struct Giver<T>(Arc<Answer<T>>);

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        // An answer that was given stays.
        self.0.give(None);
    }
}
