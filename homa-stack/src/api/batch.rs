//! Many calls, whose ends are collected as they come.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use super::client::Client;
use super::error::CallError;
use super::shared::{CallResult, Op, Target};
use super::wait::{self, Waiter};
#[cfg(feature = "driver")]
use crate::driver::Readiness;
use crate::proto::Payload;

/// The end of one call of a [`Batch`].
#[derive(Debug)]
pub struct Completion {
    /// As given with the call.
    pub cookie: u64,
    /// The server.
    pub peer: SocketAddr,
    /// The response, or why there is none.
    pub result: CallResult,
}

/// Names a call of a [`Batch`], to cancel it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId {
    worker: usize,
    serial: u64,
}

/// The ends of calls, in memory that the protocol's threads fill and another thread reads: neither locks nor makes a
/// system call unless the reader sleeps.
#[derive(Debug)]
pub(super) struct Ring {
    ends: ArrayQueue<Completion>,
    /// True if `waiter` is there: then, and only then, the lock is taken.
    waits: AtomicBool,
    waiter: Mutex<Option<Waiter>>,
    #[cfg(feature = "driver")]
    readiness: std::sync::OnceLock<Readiness>,
}

impl Ring {
    fn new(capacity: usize) -> Self {
        Self {
            ends: ArrayQueue::new(capacity),
            waits: AtomicBool::new(false),
            waiter: Mutex::new(None),
            #[cfg(feature = "driver")]
            readiness: std::sync::OnceLock::new(),
        }
    }

    pub(super) fn finish(&self, cookie: u64, peer: SocketAddr, result: CallResult) {
        let full = self.ends.push(Completion { cookie, peer, result });
        debug_assert!(full.is_ok(), "a batch has no more calls under way than its ring holds");
        // Either this sees that the reader waits, or the reader, which looks once more, sees the end.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.waits.load(Ordering::Relaxed) {
            self.waits.store(false, Ordering::Relaxed);
            if let Some(waiter) = self.waiter().take() {
                waiter.wake();
            }
        }
        #[cfg(feature = "driver")]
        if let Some(readiness) = self.readiness.get() {
            readiness.set();
        }
    }

    /// The next end; none if there is none now.
    fn pop(&self) -> Option<Completion> {
        let end = self.ends.pop();
        #[cfg(feature = "driver")]
        if let Some(readiness) = self.readiness.get() {
            readiness.clear_unless(|| !self.ends.is_empty());
        }
        end
    }

    fn pop_or_wait(&self, waiter: impl FnOnce() -> Waiter) -> Option<Completion> {
        if let Some(end) = self.pop() {
            return Some(end);
        }
        *self.waiter() = Some(waiter());
        self.waits.store(true, Ordering::Relaxed);
        std::sync::atomic::fence(Ordering::SeqCst);
        self.pop()
    }

    fn waiter(&self) -> MutexGuard<'_, Option<Waiter>> {
        self.waiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Many calls under way at once, whose ends are taken as they come, in whatever order that is.
///
/// One thread or task has it. Ends are put into memory that [`try_next`](Self::try_next) reads without a system call
/// and without a lock; [`next`](Self::next) sleeps when there is none for a while, [`poll_next`](Self::poll_next) is
/// for tasks, and [`readiness`](Self::readiness) for event loops. Dropping it gives up the calls under way.
///
/// ```
/// # use homa_stack::{device::memory, api::{Runner, RunnerConfig}};
/// # let (a, b) = memory::pair();
/// # let (client, server) = (Runner::spawn(a, RunnerConfig::default())?, Runner::spawn(b, RunnerConfig::default())?);
/// # let port = server.bind(7)?;
/// # let echo = std::thread::spawn(move || while let Ok(r) = port.recv() { r.reply.send(r.body).unwrap() });
/// # let to = (memory::ADDRS[1], 7).into();
/// let mut batch = client.client()?.batch(16);
/// batch.submit_all((0..10).map(|i| (to, vec![i; 1000].into(), u64::from(i))))?;
/// let mut sum = 0;
/// while let Some(end) = batch.next() {
///     assert_eq!(end.result?, vec![end.cookie as u8; 1000]);
///     sum += end.cookie;
/// }
/// assert_eq!(sum, 45);
/// # drop(batch);
/// # server.shutdown()?;
/// # echo.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Batch {
    ring: Arc<Ring>,
    client: Client,
    /// Calls whose ends were not taken.
    open: usize,
    capacity: usize,
}

impl Batch {
    pub(super) fn new(client: Client, capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self { ring: Arc::new(Ring::new(capacity)), client, open: 0, capacity }
    }

    /// Starts a call of `to` with `payload`; its end comes with `cookie`.
    ///
    /// # Errors
    ///
    /// If the message can't be sent, or as many calls are under way as may be ([`CallError::is_full`]).
    pub fn submit(&mut self, to: SocketAddr, payload: impl Into<Payload>, cookie: u64) -> Result<CallId, CallError> {
        let id = self.submit_quietly(to, payload.into(), cookie)?;
        self.client.handle(id.worker).shared.wake();
        Ok(id)
    }

    /// Starts many calls, waking the protocol's thread once; returns how many. Fewer than there are if the batch is
    /// full: `calls` then is where it was.
    ///
    /// # Errors
    ///
    /// If a message can't be sent; the calls before it are under way.
    pub fn submit_all(
        &mut self,
        calls: impl IntoIterator<Item = (SocketAddr, Payload, u64)>,
    ) -> Result<usize, CallError> {
        let mut started = 0;
        let mut calls = calls.into_iter();
        let result = loop {
            if self.open >= self.capacity {
                break Ok(started);
            }
            let Some((to, payload, cookie)) = calls.next() else { break Ok(started) };
            match self.submit_quietly(to, payload, cookie) {
                Ok(_) => started += 1,
                Err(error) => break Err(error),
            }
        };
        self.client.handles().for_each(|handle| handle.shared.wake());
        result
    }

    fn submit_quietly(&mut self, to: SocketAddr, payload: Payload, cookie: u64) -> Result<CallId, CallError> {
        if self.open >= self.capacity {
            return Err(CallError::Full { limit: self.capacity, option: "the capacity of the batch" });
        }
        let target = Target::Ring(Arc::clone(&self.ring), cookie);
        let (worker, serial) = self.client.submit(to, payload, target)?;
        self.open += 1;
        Ok(CallId { worker, serial })
    }

    /// Calls whose ends were not taken.
    pub fn open(&self) -> usize {
        self.open
    }

    /// The next end that is there: a look into memory.
    pub fn try_next(&mut self) -> Option<Completion> {
        let end = self.ring.pop()?;
        self.open -= 1;
        Some(end)
    }

    /// Moves up to `most` ends to `ends`; returns how many.
    pub fn take(&mut self, ends: &mut Vec<Completion>, most: usize) -> usize {
        let before = ends.len();
        ends.extend(std::iter::from_fn(|| self.try_next()).take(most));
        ends.len() - before
    }

    /// The next end, waited for; none if no call is under way.
    #[expect(clippy::should_implement_trait, reason = "an iterator would hold the batch while calls are to be added")]
    pub fn next(&mut self) -> Option<Completion> {
        self.next_until(None)
    }

    /// The next end, waited for at most for `timeout`; none then, or if no call is under way.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Completion> {
        self.next_until(Some(wait::end_of(timeout)?))
    }

    fn next_until(&mut self, end: Option<Instant>) -> Option<Completion> {
        if self.open == 0 {
            return None;
        }
        let poll = self.client.config().poll;
        let poll = end.map_or(poll, |end| poll.min(end.saturating_duration_since(Instant::now())));
        wait::spin(poll, || !self.ring.ends.is_empty());
        loop {
            if let Some(completion) = self.ring.pop_or_wait(Waiter::this_thread) {
                self.open -= 1;
                return Some(completion);
            }
            if !wait::sleep(end) {
                return self.try_next();
            }
        }
    }

    /// The next end, for a task that polls; ready with none if no call is under way. The shape is that of a stream.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Completion>> {
        if self.open == 0 {
            return Poll::Ready(None);
        }
        match self.ring.pop_or_wait(|| Waiter::of(context)) {
            Some(end) => {
                self.open -= 1;
                Poll::Ready(Some(end))
            }
            None => Poll::Pending,
        }
    }

    /// The next end, for a task; none if no call is under way. Dropping the future loses no end.
    pub async fn next_async(&mut self) -> Option<Completion> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Gives a call up. Its end still comes: the response if that was faster, else
    /// [`RpcError::Aborted`](crate::RpcError::Aborted).
    pub fn cancel(&mut self, id: CallId) {
        // A thread that has ended has told the end of all calls.
        let _ = self.client.handle(id.worker).shared.push(Op::Cancel(id.serial));
    }

    /// A file descriptor that is readable while there are ends to take, for `poll`, `epoll` and event loops.
    ///
    /// # Errors
    ///
    /// If the process can't have another file descriptor.
    #[cfg(feature = "driver")]
    pub fn readiness(&self) -> std::io::Result<std::os::fd::BorrowedFd<'_>> {
        Readiness::get_or_open(&self.ring.readiness, || !self.ring.ends.is_empty())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.open > 0 {
            for handle in self.client.handles() {
                // A thread that has ended has no calls to cancel.
                let _ = handle.shared.push(Op::Abandon(Arc::clone(&self.ring)));
            }
        }
    }
}
