//! What a protocol thread and its handles share.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use super::batch::Ring;
use super::call::Slot;
use super::error::{CallError, Stopped};
use super::runner::{RunnerConfig, Wake};
use super::server::{Arrival, PortQueue};
use super::stream::Opened;
use crate::proto::{Arriving, Body, Endpoint, Payload, SendError, ServerRpc};

/// The end of a call.
pub(super) type CallResult = Result<Body, CallError>;

/// What handles ask the protocol's thread to do.
pub(super) enum Op {
    /// Sends a request from port `from`.
    Call { serial: u64, from: u16, to: SocketAddr, payload: Payload, timeout: Option<Duration>, target: Target },
    /// Gives a call up, if it is still under way.
    Cancel(u64),
    /// Gives up all calls whose ends were to go to a ring.
    Abandon(Arc<Ring>),
    /// Answers a request.
    Reply(ServerRpc, Payload),
    /// Gives a request up.
    Discard(ServerRpc),
    /// Gives requests to `port` to the queue from now on.
    Bind(u16, Port, Arc<Answer<Result<(), SendError>>>),
    /// Copies more of a message that arrives to who reads it, or gives it up if nobody does.
    Pump(Arriving),
    /// Gives a client's port up.
    Unbind(u16),
    /// Ends the service of a port. Requests that are in service go on.
    Close(u16),
    /// Anything else, on the endpoint.
    Do(Box<dyn FnOnce(&mut Endpoint) + Send>),
}

/// Where requests to a port go.
pub(super) enum Port {
    /// Each when it is whole.
    Whole(Arc<PortQueue<Arrival>>),
    /// Each when it begins.
    Early(Arc<PortQueue<Opened>>),
}

impl Port {
    /// No requests will come any more.
    pub(super) fn close(&self) {
        match self {
            Self::Whole(queue) => queue.close(),
            Self::Early(queue) => queue.close(),
        }
    }
}

/// Who is told of the end of a call.
pub(super) enum Target {
    /// A future or a thread, of this one.
    Slot(Arc<Slot>),
    /// A ring of ends, and what names this one.
    Ring(Arc<Ring>, u64),
}

impl Target {
    pub(super) fn finish(self, peer: SocketAddr, result: CallResult) {
        match self {
            Self::Slot(slot) => slot.finish(result),
            Self::Ring(ring, cookie) => ring.finish(cookie, peer, result),
        }
    }
}

/// Counters of the application interface, each since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) calls_full: AtomicU64,
    pub(super) calls_cancelled: AtomicU64,
    pub(super) calls_late: AtomicU64,
    pub(super) replies_dropped: AtomicU64,
    pub(super) requests_unserved: AtomicU64,
}

impl Counters {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a protocol thread and its handles share.
pub(super) struct Shared {
    ops: ArrayQueue<Op>,
    wake: Wake,
    /// True once the thread takes no operations any more.
    stopped: AtomicBool,
    /// True once it is to end.
    pub(super) stopping: AtomicBool,
    /// Calls under way.
    calls: AtomicUsize,
    next_serial: AtomicU64,
    pub(super) config: RunnerConfig,
    /// Which of its host's workers the thread is.
    pub(super) worker: usize,
    pub(super) counters: Counters,
    /// Slots that are not in use.
    slots: ArrayQueue<Arc<Slot>>,
    thread: Mutex<Option<JoinHandle<io::Result<()>>>>,
}

impl Shared {
    pub(super) fn new(config: RunnerConfig, worker: usize, wake: Wake) -> Self {
        let most = config.max_calls.max(1);
        Self {
            ops: ArrayQueue::new(config.max_ops.max(1)),
            wake,
            stopped: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            next_serial: AtomicU64::new(1),
            config,
            worker,
            counters: Counters::default(),
            slots: ArrayQueue::new(most.min(1024)),
            thread: Mutex::new(None),
        }
    }

    /// Hands `op` to the thread, which never waits for handles: if its queue is full there is room soon.
    ///
    /// # Errors
    ///
    /// If the thread has ended. `op` is then dropped, or its end told as that of a call.
    pub(super) fn push(&self, op: Op) -> Result<(), Stopped> {
        self.push_quietly(op)?;
        (self.wake)();
        Ok(())
    }

    /// As [`Self::push`], for a caller that calls [`Self::wake`] when it has pushed all it has.
    pub(super) fn push_quietly(&self, mut op: Op) -> Result<(), Stopped> {
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                refuse(op);
                return Err(Stopped);
            }
            match self.ops.push(op) {
                Ok(()) => break,
                Err(back) => op = back,
            }
            (self.wake)();
            thread::yield_now();
        }
        // The thread may have taken its last look between our look and our push.
        if self.stopped.load(Ordering::SeqCst) {
            self.refuse_all();
            return Err(Stopped);
        }
        Ok(())
    }

    pub(super) fn wake(&self) {
        (self.wake)();
    }

    pub(super) fn pop(&self) -> Option<Op> {
        self.ops.pop()
    }

    pub(super) fn has_ops(&self) -> bool {
        !self.ops.is_empty()
    }

    /// Takes no operations from now on.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.refuse_all();
    }

    fn refuse_all(&self) {
        while let Some(op) = self.ops.pop() {
            refuse(op);
        }
    }

    /// Counts a call as under way, if there is room for it; [`Self::end_call`] undoes it.
    pub(super) fn begin_call(&self) -> Result<u64, CallError> {
        let limit = self.config.max_calls;
        if self.calls.fetch_add(1, Ordering::Relaxed) >= limit {
            self.end_call();
            Counters::count(&self.counters.calls_full);
            return Err(CallError::Full { limit, option: "RunnerConfig::max_calls" });
        }
        Ok(self.next_serial.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn end_call(&self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// True if one more call may be under way.
    pub(super) fn may_call(&self) -> bool {
        self.calls() < self.config.max_calls
    }

    pub(super) fn slot(&self) -> Arc<Slot> {
        self.slots.pop().unwrap_or_default()
    }

    /// Takes back a slot that nobody will finish any more.
    pub(super) fn recycle(&self, slot: Arc<Slot>) {
        // Enough of them are kept; this one may go.
        drop(self.slots.push(slot));
    }

    pub(super) fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<io::Result<()>>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells those who wait for `op` that it will not happen.
fn refuse(op: Op) {
    match op {
        Op::Call { to, target, .. } => target.finish(to, Err(Stopped.into())),
        Op::Bind(_, port, answer) => {
            port.close();
            answer.give(None);
        }
        Op::Cancel(_)
        | Op::Abandon(_)
        | Op::Reply(..)
        | Op::Discard(_)
        | Op::Unbind(_)
        | Op::Close(_)
        | Op::Pump(_)
        | Op::Do(_) => {}
    }
}

/// A value from the protocol's thread, waited for by one other; dropping the giver's last use of it gives nothing.
pub(super) struct Answer<T>(Mutex<Option<Option<T>>>, std::sync::Condvar);

impl<T> Answer<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(None), std::sync::Condvar::new()))
    }

    pub(super) fn give(&self, value: Option<T>) {
        let mut answer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The first word counts.
        answer.get_or_insert(value);
        self.1.notify_all();
    }

    /// Waits for the value; nothing if the thread has ended.
    pub(super) fn take(&self) -> Result<T, Stopped> {
        let mut answer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = answer.take() {
                return value.ok_or(Stopped);
            }
            answer = self.1.wait(answer).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
