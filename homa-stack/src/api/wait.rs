//! Waiting for another thread: spinning, then sleeping, in a thread or a task.

use std::task::{Context, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Who is told when there is something.
#[derive(Clone, Debug)]
pub(super) enum Waiter {
    Thread(Thread),
    Task(Waker),
}

impl Waiter {
    /// The thread that calls.
    pub(super) fn this_thread() -> Self {
        Self::Thread(thread::current())
    }

    /// The task that is polled.
    pub(super) fn of(context: &Context<'_>) -> Self {
        Self::Task(context.waker().clone())
    }

    /// A system call only if the thread sleeps.
    pub(super) fn wake(self) {
        match self {
            Self::Thread(thread) => thread.unpark(),
            Self::Task(waker) => waker.wake(),
        }
    }
}

/// Spins until `ready`, for at most `most`; false if that was in vain.
pub(super) fn spin(most: Duration, ready: impl Fn() -> bool) -> bool {
    if ready() {
        return true;
    }
    if most.is_zero() {
        return false;
    }
    let end = Instant::now() + most;
    loop {
        for _ in 0..32 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if Instant::now() >= end {
            return false;
        }
    }
}

/// Sleeps until woken or `end`; false if `end` has come. May return early.
pub(super) fn sleep(end: Option<Instant>) -> bool {
    match end {
        None => thread::park(),
        Some(end) => {
            let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return false;
            };
            thread::park_timeout(left);
        }
    }
    true
}

/// The time `timeout` from now; `None`, for ever, if there is no such time.
pub(super) fn end_of(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}
