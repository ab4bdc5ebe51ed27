//! Several workers of one host as one: its clients call from all of them, its servers are served by all.

use std::io;
use std::sync::Arc;

use super::client::Client;
use super::error::BindError;
use super::handle::{Handle, Stats};
use super::runner::{Engine, Runner, RunnerConfig};
use super::server::{Server, WakePolicy};
use super::stream::EarlyServer;

/// The workers of a host, each run by a thread of its own: [`driver::open_group`](crate::driver::open_group) on a real
/// network. Cheap to clone, and free for any thread to use; the threads end as that of a [`Handle`] does.
///
/// [`Client`]s and [`Server`]s are those of a single thread, for whose users nothing changes. A call goes to one worker
/// and stays there, on the server's host too: calls are spread without a look at their lengths, to those with fewer
/// under way, so that each worker sends the same mix of messages in the order of SRPT. Requests to a port come to one
/// queue, whichever worker has received them, and each reply goes back to the worker that has its RPC. Limits of
/// [`RunnerConfig`] are those of each worker.
///
/// ```
/// use homa_stack::api::{Group, RunnerConfig};
/// use homa_stack::{Config, device::memory}; // `driver::open_group` on a real network
///
/// let [here, there] = memory::groups(&Config::default(), [2, 3]);
/// let (here, there) = (Group::spawn(here, &RunnerConfig::default())?, Group::spawn(there, &RunnerConfig::default())?);
/// let (client, server) = (here.client()?, there.bind(7)?);
/// let serving = std::thread::spawn(move || {
///     while let Ok(request) = server.recv() {
///         request.reply.send(request.body).unwrap();
///     }
/// });
/// let to = (memory::ADDRS[1], 7).into();
/// assert_eq!(client.call(to, "one")?, "one");
/// let (two, three) = (client.start(to, "two")?, client.start(to, "three")?); // by different workers
/// assert_eq!(three.wait()?, "three");
/// assert_eq!(two.wait()?, "two");
/// there.shutdown()?;
/// serving.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Group {
    workers: Arc<[Handle]>,
}

impl Group {
    /// Starts a thread for each of `engines`, all workers of one host in their order.
    ///
    /// # Errors
    ///
    /// If there are none, if they are not all the workers of a host in order, or if the system gives no thread.
    pub fn spawn<E: Engine>(engines: impl IntoIterator<Item = E>, config: &RunnerConfig) -> io::Result<Self> {
        let mut engines: Vec<E> = engines.into_iter().collect();
        let count = engines.len();
        for (at, engine) in engines.iter_mut().enumerate() {
            let shard = engine.core().config().shard;
            if (shard.index() as usize, shard.count() as usize) != (at, count) {
                return Err(not_a_group(format!(
                    "expected all workers of a host in order, found worker {} of {} at place {at} of {count}: \
                     give what `open_group` returned, whole",
                    shard.index(),
                    shard.count()
                )));
            }
        }
        if engines.is_empty() {
            return Err(not_a_group("expected the workers of a host, found none".to_owned()));
        }
        let workers = engines.into_iter().map(|engine| Runner::spawn(engine, config.clone()));
        Ok(Self { workers: workers.collect::<io::Result<_>>()? })
    }

    /// A client that calls from all workers.
    ///
    /// # Errors
    ///
    /// If all client ports of a worker are in use, or its thread has ended.
    pub fn client(&self) -> Result<Client, BindError> {
        Client::open(&self.workers)
    }

    /// Serves `port`, 1 to 32767, by all workers. If one of their threads fails the server has stopped, once the
    /// requests that have come are taken.
    ///
    /// # Errors
    ///
    /// If it is taken at one of them or no server port, or a thread has ended.
    pub fn bind(&self, port: u16) -> Result<Server, BindError> {
        self.bind_with(port, WakePolicy::default())
    }

    /// As [`Self::bind`], waking those who wait for requests by `policy`.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`].
    pub fn bind_with(&self, port: u16, policy: WakePolicy) -> Result<Server, BindError> {
        Server::bind(port, &self.workers, policy)
    }

    /// As [`Self::bind`], taking each request as it begins to arrive.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`].
    pub fn bind_early(&self, port: u16) -> Result<EarlyServer, BindError> {
        EarlyServer::bind(port, &self.workers)
    }

    /// The workers, in order: for what is of one of them, such as its metrics or its trace.
    pub fn workers(&self) -> &[Handle] {
        &self.workers
    }

    /// Counters, of all workers together.
    pub fn stats(&self) -> Stats {
        self.workers.iter().map(Handle::stats).fold(Stats::default(), Stats::plus)
    }

    /// Ends all threads, as [`Handle::shutdown`] ends one.
    ///
    /// # Errors
    ///
    /// The first of what those say; all are ended.
    pub fn shutdown(&self) -> io::Result<()> {
        // All are told before the first is waited for.
        self.workers.iter().for_each(Handle::tell_to_end);
        self.workers.iter().map(Handle::shutdown).fold(Ok(()), Result::and)
    }
}

fn not_a_group(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::device::memory;

    #[test]
    fn workers_that_are_no_whole_host_in_order_are_refused() {
        let error = |engines: Vec<memory::MemoryHost>| {
            Group::spawn(engines, &RunnerConfig::default()).expect_err("no group").to_string()
        };
        let [mut workers, _] = memory::groups(&Config::default(), [2, 1]);
        assert!(error(Vec::new()).contains("found none"));
        workers.swap(0, 1);
        assert!(error(workers).contains("found worker 1 of 2 at place 0 of 2"));
        let [mut workers, _] = memory::groups(&Config::default(), [2, 1]);
        workers.pop();
        assert!(error(workers).contains("found worker 0 of 2 at place 0 of 1"));
        let (single, other) = memory::pair();
        assert!(error(vec![single, other]).contains("found worker 0 of 1 at place 0 of 2"));
    }
}
