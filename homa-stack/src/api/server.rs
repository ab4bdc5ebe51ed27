//! Serving a port: requests in, replies by a token that is used up.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::error::{BindError, ReplyError, Stopped};
use super::handle::Handle;
use super::shared::{Counters, Op, Port};
use super::wait::{self, Waiter};
#[cfg(feature = "driver")]
use crate::driver::Readiness;
use crate::proto::{Body, Payload, ServerRpc, check_length};

/// Which of the threads or tasks that wait for a port's requests gets the next one. Always the one that began to wait
/// last, whose caches are the warmest; the question is when it gets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WakePolicy {
    /// The request lies in the queue, a waiter is woken, and takes it when it runs: any thread that comes for it
    /// earlier has it at once.
    #[default]
    Wake,
    /// The request is the woken waiter's from then on, and waits for it to run.
    HandOff,
}

/// A request, and the means to answer it.
#[derive(Debug)]
pub struct Request {
    /// The client.
    pub peer: SocketAddr,
    /// The port that it came to.
    pub port: u16,
    /// The message.
    pub body: Body,
    /// To answer with.
    pub reply: Reply,
}

/// Answers one request, once: [`send`](Self::send) uses it up. Dropped instead, the request is given up, which is
/// counted ([`Stats::replies_dropped`](super::Stats::replies_dropped)); the client then times out.
///
/// ```compile_fail
/// # fn serve(request: homa_stack::api::Request) {
/// request.reply.send("yes");
/// request.reply.send("no"); // does not compile: the token is gone
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a request is answered with `send`; dropping this gives it up"]
pub struct Reply {
    /// Nothing once it was used.
    rpc: Option<ServerRpc>,
    peer: SocketAddr,
    handle: Handle,
}

impl Reply {
    /// Answers with `payload`. The buffer is the caller's again, or the stack's, when this returns; sending goes on
    /// behind it. If the client has given up meanwhile the answer goes nowhere.
    ///
    /// # Errors
    ///
    /// If the message is empty or too long, or the protocol's thread has ended.
    pub fn send(mut self, payload: impl Into<Payload>) -> Result<(), ReplyError> {
        let payload = payload.into();
        check_length(&payload).map_err(|error| ReplyError::NotSent { peer: self.peer, error })?;
        let rpc = self.rpc.take().expect("a reply is used once");
        Ok(self.handle.shared.push(Op::Reply(rpc, payload))?)
    }

    /// The client.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(rpc) = self.rpc.take() {
            Counters::count(&self.handle.shared.counters.replies_dropped);
            // A thread that has ended has no requests.
            let _ = self.handle.shared.push(Op::Discard(rpc));
        }
    }
}

/// What a queue holds of a request: the token for the reply is made when it is taken, as it keeps the thread alive.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) peer: SocketAddr,
    pub(super) port: u16,
    /// Which worker has the RPC.
    pub(super) worker: usize,
    pub(super) body: Body,
    pub(super) rpc: ServerRpc,
}

impl Arrival {
    /// `handle` is that of the worker that has the RPC.
    pub(super) fn into_request(self, handle: &Handle) -> Request {
        let Self { peer, port, body, rpc, .. } = self;
        Request { peer, port, body, reply: Reply { rpc: Some(rpc), peer, handle: handle.clone() } }
    }
}

/// The requests to a port that were not taken, and who waits for them.
#[derive(Debug)]
pub(super) struct PortQueue<T> {
    state: Mutex<State<T>>,
    /// Requests in the queue: seen without the lock.
    len: AtomicUsize,
    policy: WakePolicy,
    #[cfg(feature = "driver")]
    readiness: std::sync::OnceLock<Readiness>,
}

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<T>,
    /// Who waits, the last at the end; each with a number of its own.
    waiters: Vec<(u64, Waiter)>,
    /// Requests that were handed to waiters which have not run yet.
    handed: Vec<(u64, T)>,
    next_waiter: u64,
    closed: bool,
}

impl<T> PortQueue<T> {
    pub(super) fn new(policy: WakePolicy) -> Self {
        Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                waiters: Vec::new(),
                handed: Vec::new(),
                next_waiter: 0,
                closed: false,
            }),
            len: AtomicUsize::new(0),
            policy,
            #[cfg(feature = "driver")]
            readiness: std::sync::OnceLock::new(),
        }
    }

    pub(super) fn push(&self, arrival: T) {
        let mut state = self.lock();
        let waiter = match (self.policy, state.waiters.pop()) {
            (WakePolicy::HandOff, Some((number, waiter))) => {
                state.handed.push((number, arrival));
                drop(state);
                return waiter.wake();
            }
            (_, waiter) => waiter,
        };
        state.queue.push_back(arrival);
        self.publish(&state);
        drop(state);
        if let Some((_, waiter)) = waiter {
            waiter.wake();
        }
    }

    /// No requests will come any more: those who wait are told. What lies in the queue can still be taken.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for (_, waiter) in std::mem::take(&mut state.waiters) {
            waiter.wake();
        }
        self.publish(&state);
    }

    /// Takes those that are `own` out of the queue.
    pub(super) fn take_all(&self, own: impl Fn(&T) -> bool) -> VecDeque<T> {
        let mut state = self.lock();
        let (all, others) = std::mem::take(&mut state.queue).into_iter().partition(own);
        state.queue = others;
        self.publish(&state);
        all
    }

    /// Takes the next request, or the one handed to waiter `number`; else `Err(true)` if none will come, or
    /// `Err(false)` if `waiter` is told when one does.
    fn take(&self, number: &mut Option<u64>, waiter: Option<Waiter>) -> Result<T, bool> {
        let mut state = self.lock();
        if let Some(number) = number.take() {
            state.waiters.retain(|(other, _)| *other != number);
            if let Some(at) = state.handed.iter().position(|(other, _)| *other == number) {
                return Ok(state.handed.swap_remove(at).1);
            }
        }
        if let Some(arrival) = state.queue.pop_front() {
            self.publish(&state);
            return Ok(arrival);
        }
        if state.closed {
            return Err(true);
        }
        if let Some(waiter) = waiter {
            state.next_waiter += 1;
            let own = state.next_waiter;
            state.waiters.push((own, waiter));
            *number = Some(own);
        }
        Err(false)
    }

    /// The next request, waited for until `end`: spins for `poll`, then sleeps.
    pub(super) fn take_until(&self, poll: Duration, end: Option<Instant>) -> Result<Option<T>, Stopped> {
        let poll = end.map_or(poll, |end| poll.min(end.saturating_duration_since(Instant::now())));
        wait::spin(poll, || !self.is_empty());
        let mut number = None;
        let mut waits = true;
        loop {
            match self.take(&mut number, waits.then(Waiter::this_thread)) {
                Ok(arrival) => return Ok(Some(arrival)),
                Err(true) => return Err(Stopped),
                Err(false) if !waits => return Ok(None),
                // What was handed over as the time ended is taken, not lost: a last look without waiting.
                Err(false) => waits = wait::sleep(end),
            }
        }
    }

    /// Waiter `number` goes without having taken anything: what it was handed or woken for is for others.
    fn leave(&self, number: u64) {
        let mut state = self.lock();
        let before = state.waiters.len();
        state.waiters.retain(|(other, _)| *other != number);
        if state.waiters.len() < before {
            return; // neither handed anything nor woken
        }
        if let Some(at) = state.handed.iter().position(|(other, _)| *other == number) {
            let (_, arrival) = state.handed.swap_remove(at);
            match (self.policy, state.waiters.pop()) {
                (WakePolicy::HandOff, Some((next, waiter))) => {
                    state.handed.push((next, arrival));
                    drop(state);
                    return waiter.wake();
                }
                _ => state.queue.push_front(arrival),
            }
            self.publish(&state);
        } else if !state.queue.is_empty()
            && let Some((_, waiter)) = state.waiters.pop()
        {
            drop(state);
            waiter.wake();
        }
    }

    /// Tells those who look without the lock how much there is.
    fn publish(&self, state: &State<T>) {
        // A closed queue is looked at, by all.
        let len = if state.closed { state.queue.len().max(1) } else { state.queue.len() };
        self.len.store(len, Ordering::Release);
        #[cfg(feature = "driver")]
        if let Some(readiness) = self.readiness.get() {
            if len > 0 { readiness.set() } else { readiness.clear_unless(|| false) }
        }
    }

    fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Receives the requests to a port, from [`Handle::bind`] or [`Group::bind`](super::Group::bind). Clones share the port; any number of threads and tasks may
/// take requests at the same time. When the last clone is dropped the port is given up, with the requests that were not
/// taken; those that were can still be answered.
#[derive(Clone, Debug)]
pub struct Server {
    inner: Arc<Bound>,
}

#[derive(Debug)]
struct Bound {
    queue: Arc<PortQueue<Arrival>>,
    port: Served,
}

/// A port at one or more workers of a host; given up when it is dropped.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) number: u16,
    /// By the workers' numbers.
    handles: Vec<Handle>,
}

impl Served {
    /// Takes the port at each of `workers`, which are in order; `to` gives where its requests go.
    ///
    /// # Errors
    ///
    /// If one of them refuses it: none has it then.
    pub(super) fn at(number: u16, workers: &[Handle], to: impl Fn() -> Port) -> Result<Self, BindError> {
        let mut served = Self { number, handles: Vec::with_capacity(workers.len()) };
        for handle in workers {
            handle.take_port(number, to())?;
            served.handles.push(handle.clone());
        }
        Ok(served)
    }

    /// The handle of a worker.
    pub(super) fn handle(&self, worker: usize) -> &Handle {
        // A worker that is served alone is the only one here.
        self.handles.get(worker).unwrap_or(&self.handles[0])
    }

    /// How long to spin for requests.
    pub(super) fn poll(&self) -> Duration {
        self.handles[0].shared.config.poll
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        for handle in &self.handles {
            // A thread that has ended has neither port nor requests.
            let _ = handle.shared.push(Op::Close(self.number));
        }
    }
}

impl Server {
    /// Serves `port` at all of `workers`.
    pub(super) fn bind(port: u16, workers: &[Handle], policy: WakePolicy) -> Result<Self, BindError> {
        let queue = Arc::new(PortQueue::new(policy));
        let port = Served::at(port, workers, || Port::Whole(Arc::clone(&queue)))?;
        Ok(Self { inner: Arc::new(Bound { queue, port }) })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.inner.port.number
    }

    /// The next request that is there: a look into memory if there is none.
    pub fn try_recv(&self) -> Option<Request> {
        let queue = &self.inner.queue;
        if queue.is_empty() {
            return None;
        }
        queue.take(&mut None, None).ok().map(|arrival| self.request(arrival))
    }

    /// The next request, waited for: spins for [`RunnerConfig::poll`](super::RunnerConfig::poll), then sleeps.
    ///
    /// # Errors
    ///
    /// If the protocol's thread has ended.
    pub fn recv(&self) -> Result<Request, Stopped> {
        let poll = self.inner.port.poll();
        let arrival = self.inner.queue.take_until(poll, None)?;
        Ok(self.request(arrival.expect("without a time-out there is a request, or an end")))
    }

    /// The next request, waited for at most for `timeout`; none then.
    ///
    /// # Errors
    ///
    /// If the protocol's thread has ended.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Request>, Stopped> {
        let poll = self.inner.port.poll();
        let arrival = self.inner.queue.take_until(poll, wait::end_of(timeout))?;
        Ok(arrival.map(|arrival| self.request(arrival)))
    }

    /// Moves up to `most` requests that are there to `requests`; returns how many.
    pub fn recv_batch(&self, requests: &mut Vec<Request>, most: usize) -> usize {
        let before = requests.len();
        requests.extend(std::iter::from_fn(|| self.try_recv()).take(most));
        requests.len() - before
    }

    /// The next request, for a task. Dropping the future loses no request, whenever that is.
    pub fn recv_async(&self) -> Recv<'_> {
        Recv { server: self, number: None }
    }

    /// A file descriptor that is readable while there are requests to take, for `poll`, `epoll` and event loops.
    ///
    /// # Errors
    ///
    /// If the process can't have another file descriptor.
    #[cfg(feature = "driver")]
    pub fn readiness(&self) -> std::io::Result<std::os::fd::BorrowedFd<'_>> {
        let queue = &self.inner.queue;
        // Under the lock, so that no request comes between the look and the descriptor.
        let state = queue.lock();
        Readiness::get_or_open(&queue.readiness, || !state.queue.is_empty())
    }

    fn request(&self, arrival: Arrival) -> Request {
        let handle = self.inner.port.handle(arrival.worker);
        arrival.into_request(handle)
    }
}

/// The future of [`Server::recv_async`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct Recv<'a> {
    server: &'a Server,
    number: Option<u64>,
}

impl Future for Recv<'_> {
    type Output = Result<Request, Stopped>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let server = self.server;
        match server.inner.queue.take(&mut self.number, Some(Waiter::of(context))) {
            Ok(arrival) => Poll::Ready(Ok(server.request(arrival))),
            Err(true) => Poll::Ready(Err(Stopped)),
            Err(false) => Poll::Pending,
        }
    }
}

impl Drop for Recv<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.server.inner.queue.leave(number);
        }
    }
}
