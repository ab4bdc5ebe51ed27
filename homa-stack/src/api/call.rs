//! One call: a future, and what a thread can wait for.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use super::client::Client;
use super::shared::{CallResult, Op};
use super::wait::{self, Waiter};

/// Where the end of a call is put; used again for others.
#[derive(Debug, Default)]
pub(super) struct Slot {
    state: Mutex<State>,
    /// True if the result is there: seen without the lock.
    done: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    result: Option<CallResult>,
    waiter: Option<Waiter>,
}

impl Slot {
    pub(super) fn finish(&self, result: CallResult) {
        let mut state = self.lock();
        state.result = Some(result);
        let waiter = state.waiter.take();
        self.done.store(true, Ordering::Release);
        drop(state);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// The result, if it is there; else `waiter` is told when it is.
    fn take_or_wait(&self, waiter: impl FnOnce() -> Waiter) -> Option<CallResult> {
        let mut state = self.lock();
        let result = state.result.take();
        if result.is_none() {
            state.waiter = Some(waiter());
        } else {
            self.done.store(false, Ordering::Relaxed);
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way, from [`Client::start`](super::Client::start): a future of its response, for any executor, or
/// something to [`wait`](Self::wait) for. Dropping it gives the call up: its RPC is aborted, and no state of it stays.
#[derive(Debug)]
#[must_use = "a call is given up when this is dropped"]
pub struct Call {
    /// Nothing once the result was taken.
    slot: Option<Arc<Slot>>,
    client: Client,
    worker: usize,
    serial: u64,
    peer: SocketAddr,
}

impl Call {
    pub(super) fn new(slot: Arc<Slot>, client: Client, worker: usize, serial: u64, peer: SocketAddr) -> Self {
        Self { slot: Some(slot), client, worker, serial, peer }
    }

    /// The server.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// True if [`Self::wait`] would return at once.
    pub fn is_done(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| slot.is_done())
    }

    /// Waits for the response: spins for [`RunnerConfig::poll`](super::RunnerConfig::poll), then sleeps.
    ///
    /// # Errors
    ///
    /// Why there is none.
    ///
    /// # Panics
    ///
    /// If it was polled as a future until it was ready.
    pub fn wait(mut self) -> CallResult {
        let slot = self.slot.as_deref().expect("a call ends once");
        wait::spin(self.client.config().poll, || slot.is_done());
        loop {
            if let Some(result) = slot.take_or_wait(Waiter::this_thread) {
                self.recycle();
                return result;
            }
            wait::sleep(None);
        }
    }

    fn recycle(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.client.handle(self.worker).shared.recycle(slot);
        }
    }
}

impl Future for Call {
    type Output = CallResult;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CallResult> {
        let slot = self.slot.as_deref().expect("a future is not polled again once it was ready");
        match slot.take_or_wait(|| Waiter::of(context)) {
            Some(result) => {
                self.recycle();
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        if slot.is_done() {
            // The response came, and is not wanted: its pages go back.
            drop(slot.take_or_wait(Waiter::this_thread));
            self.client.handle(self.worker).shared.recycle(slot);
        } else {
            // The slot is not used again: its end may be on its way. A thread that has ended has no calls to cancel.
            let _ = self.client.handle(self.worker).shared.push(Op::Cancel(self.serial));
        }
    }
}
