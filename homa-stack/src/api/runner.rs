//! The thread that runs an endpoint for others.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::error::{CallError, Stopped};
use super::handle::Handle;
use super::server::Arrival;
use super::shared::{CallResult, Counters, Op, Port, Shared, Target};
use super::stream::{Cut, Opened, Stream};
use crate::device::memory::MemoryHost;
use crate::proto::{Arriving, Endpoint, Event, Payload, Progress, RpcError, SendError};
use crate::units::{Instant, Nanos, RpcId};

/// Most operations of handles done before packets are looked for again.
const OPS_BATCH: usize = 64;

/// Ends a wait of an [`Engine`] from another thread.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// An endpoint with what it takes to run it: [`driver::Host`](crate::driver::Host) on a network interface,
/// [`MemoryHost`] for tests, or one of your own.
pub trait Engine: Send + 'static {
    /// Now.
    fn now(&self) -> Instant;

    /// The protocol.
    fn core(&mut self) -> &mut Endpoint;

    /// Receives, does what is due, and sends; never blocks.
    ///
    /// # Errors
    ///
    /// If it can't go on: this ends the thread.
    fn turn(&mut self) -> io::Result<()>;

    /// Sends what there is to send. If that is nothing, waits until a packet comes, a timer of the protocol is due,
    /// `until` has come or [`Self::waker`] is called. A call before the wait must end it too.
    ///
    /// # Errors
    ///
    /// If it can't go on: this ends the thread.
    fn wait(&mut self, until: Option<Instant>) -> io::Result<()>;

    /// Ends the current or the next wait.
    fn waker(&self) -> Wake;
}

impl Engine for MemoryHost {
    fn now(&self) -> Instant {
        Self::now(self)
    }

    fn core(&mut self) -> &mut Endpoint {
        Self::core(self)
    }

    fn turn(&mut self) -> io::Result<()> {
        Self::turn(self);
        Ok(())
    }

    fn wait(&mut self, until: Option<Instant>) -> io::Result<()> {
        Self::wait(self, until);
        Ok(())
    }

    fn waker(&self) -> Wake {
        let waker = Self::waker(self);
        Box::new(move || waker.wake())
    }
}

#[cfg(feature = "driver")]
impl Engine for crate::driver::Host {
    fn now(&self) -> Instant {
        Self::now(self)
    }

    fn core(&mut self) -> &mut Endpoint {
        Self::core(self)
    }

    fn turn(&mut self) -> io::Result<()> {
        Self::turn(self).map(drop)
    }

    fn wait(&mut self, until: Option<Instant>) -> io::Result<()> {
        Self::wait(self, until)
    }

    fn waker(&self) -> Wake {
        let waker = Self::waker(self);
        Box::new(move || waker.wake())
    }
}

/// How a [`Runner`] serves its handles.
#[derive(Clone, Debug)]
pub struct RunnerConfig {
    /// Most calls under way, over all clients; more are refused ([`CallError::Full`]).
    pub max_calls: usize,
    /// Operations that handles can have handed over without the thread having taken them. Handles wait for room.
    pub max_ops: usize,
    /// How long a call may take; `None`: as long as the server says that it is alive.
    pub timeout: Option<Duration>,
    /// How long threads that wait for a response or a request spin before they sleep. Spinning saves the 12 to 50 us
    /// that waking takes, and costs a core meanwhile: zero is better where threads outnumber cores.
    pub poll: Duration,
    /// Most time for responses that are still on their way when the thread is to end.
    pub linger: Duration,
}

impl Default for RunnerConfig {
    fn default() -> Self {
        Self {
            max_calls: 10_000,
            max_ops: 4096,
            timeout: Some(Duration::from_secs(10)),
            poll: Duration::from_micros(50),
            linger: Duration::from_secs(1),
        }
    }
}

/// A call under way.
struct Pending {
    /// Nothing while it waits for room among what is being sent.
    id: Option<RpcId>,
    peer: SocketAddr,
    /// When it is given up, and the time that it was given.
    deadline: Option<(Instant, Duration)>,
    target: Target,
}

/// A call that waits for room: its number, our port, its message.
type Unsent = (u64, u16, Payload);

impl Pending {
    /// Ends its RPC, or has it wait no longer.
    fn abort(&self, serial: u64, core: &mut Endpoint, waiting: &mut VecDeque<Unsent>) {
        match self.id {
            Some(id) => core.abort(id),
            None => waiting.retain(|(other, ..)| *other != serial),
        }
    }
}

/// Runs an endpoint in a thread of its own, for any number of [`Handle`]s.
///
/// The thread does what the protocol needs and carries out what handles ask for; it never waits for them. See
/// [`api`](super) for the whole.
pub struct Runner<E> {
    engine: E,
    shared: Arc<Shared>,
    /// By number.
    calls: FxHashMap<u64, Pending>,
    ports: FxHashMap<u16, Port>,
    /// Requests that are read while they arrive.
    streams: FxHashMap<Arriving, Arc<Stream>>,
    /// Calls that had no room among what is being sent.
    waiting: VecDeque<Unsent>,
    /// No deadline is earlier.
    earliest: Option<Instant>,
}

impl<E: Engine> Runner<E> {
    /// Starts a thread that runs `engine`.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn spawn(engine: E, config: RunnerConfig) -> io::Result<Handle> {
        let (runner, handle) = Self::new(engine, config);
        let thread = thread::Builder::new().name("homa".to_owned()).spawn(move || runner.run())?;
        *handle.shared.thread() = Some(thread);
        Ok(handle)
    }

    /// A runner for `engine`, to be [`run`](Self::run) by a thread of the caller's, and its first handle.
    pub fn new(mut engine: E, config: RunnerConfig) -> (Self, Handle) {
        let worker = engine.core().config().shard.index() as usize;
        let shared = Arc::new(Shared::new(config, worker, engine.waker()));
        let handle = Handle::new(Arc::clone(&shared));
        let (calls, ports, streams) = (FxHashMap::default(), FxHashMap::default(), FxHashMap::default());
        (Self { engine, shared, calls, ports, streams, waiting: VecDeque::new(), earliest: None }, handle)
    }

    /// Runs the endpoint until all handles are gone or one of them [shuts it down](Handle::shutdown).
    ///
    /// # Errors
    ///
    /// Those of the engine.
    pub fn run(mut self) -> io::Result<()> {
        while !self.shared.stopping.load(Ordering::SeqCst) {
            self.engine.turn()?;
            self.take_events();
            let now = self.engine.now();
            if self.earliest.is_some_and(|at| at <= now) {
                self.end_late_calls(now);
            }
            self.do_ops(now);
            if !self.shared.has_ops() {
                self.engine.wait(self.earliest)?;
            }
        }
        self.finish()
    }

    /// Takes the last operations and sends what is left to send.
    fn finish(&mut self) -> io::Result<()> {
        let now = self.engine.now();
        while self.shared.has_ops() {
            self.do_ops(now);
        }
        self.refuse_all();
        let end = now + Nanos::from_nanos(u64::try_from(self.shared.config.linger.as_nanos()).unwrap_or(u64::MAX));
        while self.engine.core().is_sending() && self.engine.now() < end {
            self.engine.turn()?;
            self.take_events();
            self.engine.wait(Some(end))?;
        }
        Ok(())
    }

    /// Nothing more is begun: calls fail, ports are closed.
    fn refuse_all(&mut self) {
        self.shared.stop();
        for (_, port) in self.ports.drain() {
            port.close();
        }
        for (_, stream) in self.streams.drain() {
            stream.finish(Err(Cut));
        }
        for (serial, call) in self.calls.drain() {
            call.abort(serial, self.engine.core(), &mut self.waiting);
            self.shared.end_call();
            call.target.finish(call.peer, Err(Stopped.into()));
        }
    }

    fn take_events(&mut self) {
        let worker = self.shared.worker;
        while let Some(progress) = self.engine.core().poll_progress() {
            self.progress(progress);
        }
        while let Some(event) = self.engine.core().poll_event() {
            match event {
                Event::Request { rpc, port, peer, msg } => {
                    let core = self.engine.core();
                    let message = rpc.arriving();
                    let stream = self.streams.remove(&message);
                    let Some(to) = self.ports.get(&port).filter(|_| stream.is_none()) else {
                        if let Some(stream) = stream {
                            let body = core.detach(msg);
                            if let Some(unwanted) = stream.finish(Ok(Arrival { peer, port, worker, body, rpc })) {
                                core.discard(unwanted.rpc);
                                Counters::count(&self.shared.counters.replies_dropped);
                            }
                        } else {
                            core.release(msg);
                            core.discard(rpc);
                            Counters::count(&self.shared.counters.requests_unserved);
                        }
                        continue;
                    };
                    let (len, body) = (msg.len(), core.detach(msg));
                    let arrival = Arrival { peer, port, worker, body, rpc };
                    match to {
                        Port::Whole(queue) => queue.push(arrival),
                        Port::Early(queue) => {
                            let stream = Arc::new(Stream::new(message));
                            stream.finish(Ok(arrival));
                            queue.push(Opened { stream, peer, port, worker, len });
                        }
                    }
                }
                Event::Response { cookie, msg, .. } => {
                    let body = self.engine.core().detach(msg);
                    self.end_call(cookie, Ok(body));
                }
                Event::Failed { cookie, peer, error, .. } => {
                    self.end_call(cookie, Err(CallError::Failed { peer, error }));
                }
                Event::Room { .. } => self.retry(),
            }
        }
    }

    /// A request that is read while it arrives has grown, begun or been cut off.
    fn progress(&mut self, progress: Progress) {
        match progress {
            Progress::More { message, port, peer, len, .. } => {
                if !self.streams.contains_key(&message) {
                    // A port that was given up meanwhile: it is turned away when it is whole.
                    let Some(Port::Early(queue)) = self.ports.get(&port) else { return };
                    let stream = Arc::new(Stream::new(message));
                    queue.push(Opened { stream: Arc::clone(&stream), peer, port, worker: self.shared.worker, len });
                    self.streams.insert(message, stream);
                }
                self.pump(message);
            }
            Progress::Cut(message) => {
                if let Some(stream) = self.streams.remove(&message) {
                    stream.finish(Err(Cut));
                }
            }
        }
    }

    /// Copies what has come of a message to who reads it, as far as there is room.
    fn pump(&mut self, message: Arriving) {
        if let Some(stream) = self.streams.get(&message) {
            let core = self.engine.core();
            stream.fill(core.arrived(message), |offset, out| core.copy_arrived(message, offset, out));
        }
    }

    fn end_call(&mut self, serial: u64, result: CallResult) {
        // A call that is not there was given up while its end was on its way.
        if let Some(call) = self.calls.remove(&serial) {
            self.shared.end_call();
            call.target.finish(call.peer, result);
        }
    }

    fn do_ops(&mut self, now: Instant) {
        let worker = self.shared.worker;
        for _ in 0..OPS_BATCH {
            let Some(op) = self.shared.pop() else { return };
            let core = self.engine.core();
            match op {
                Op::Call { serial, from, to, payload, timeout, target } => {
                    self.call(now, serial, from, to, payload, timeout, target);
                }
                Op::Cancel(serial) => self.cancel(serial),
                Op::Abandon(ring) => {
                    let its = |call: &Pending| matches!(&call.target, Target::Ring(of, _) if Arc::ptr_eq(of, &ring));
                    for (serial, call) in self.calls.extract_if(|_, call| its(call)) {
                        call.abort(serial, core, &mut self.waiting);
                        self.shared.end_call();
                        Counters::count(&self.shared.counters.calls_cancelled);
                    }
                }
                // Its length was looked at when it was accepted.
                Op::Reply(rpc, payload) => drop(core.reply(now, rpc, payload)),
                Op::Discard(rpc) => core.discard(rpc),
                Op::Bind(port, to, answer) => {
                    let bound = core.bind(port);
                    if bound.is_ok() {
                        core.read_early(port, matches!(to, Port::Early(_)));
                        self.ports.insert(port, to);
                    }
                    answer.give(Some(bound));
                }
                Op::Unbind(port) => core.unbind(port),
                Op::Close(port) => {
                    core.stop_serving(port);
                    core.read_early(port, false);
                    // Opened ones that were not taken are turned away when they are whole.
                    let untaken = match self.ports.remove(&port) {
                        Some(Port::Whole(queue)) => queue.take_all(|arrival| arrival.worker == worker),
                        Some(Port::Early(queue)) => queue
                            .take_all(|opened| opened.worker == worker)
                            .into_iter()
                            .filter_map(|opened| opened.stream.abandon())
                            .collect(),
                        None => VecDeque::new(),
                    };
                    for arrival in untaken {
                        core.discard(arrival.rpc);
                        Counters::count(&self.shared.counters.requests_unserved);
                    }
                }
                Op::Pump(message) => self.pump(message),
                Op::Do(ask) => ask(core),
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of an operation")]
    fn call(
        &mut self,
        now: Instant,
        serial: u64,
        from: u16,
        to: SocketAddr,
        payload: Payload,
        timeout: Option<Duration>,
        target: Target,
    ) {
        let deadline = timeout.and_then(|timeout| {
            let nanos = u64::try_from(timeout.as_nanos()).ok()?;
            Some((now + Nanos::from_nanos(nanos), timeout))
        });
        if let Some((at, _)) = deadline {
            self.earliest = Some(self.earliest.map_or(at, |earliest| earliest.min(at)));
        }
        self.calls.insert(serial, Pending { id: None, peer: to, deadline, target });
        self.send(now, serial, from, payload);
    }

    /// Sends the request of a call that has none, or has it wait for room.
    fn send(&mut self, now: Instant, serial: u64, from: u16, payload: Payload) {
        let Some(call) = self.calls.get_mut(&serial) else { return };
        let peer = call.peer;
        match self.engine.core().call(now, from, peer, payload.clone(), serial) {
            Ok(id) => call.id = Some(id),
            Err(SendError::WouldBlock(_)) => self.waiting.push_back((serial, from, payload)),
            Err(error) => self.end_call(serial, Err(CallError::NotSent { peer, error })),
        }
    }

    /// There is room again: each call that waits for some gets a try, in order.
    fn retry(&mut self) {
        let now = self.engine.now();
        for _ in 0..self.waiting.len() {
            let Some((serial, from, payload)) = self.waiting.pop_front() else { return };
            self.send(now, serial, from, payload);
        }
    }

    fn cancel(&mut self, serial: u64) {
        let Some(call) = self.calls.remove(&serial) else { return };
        call.abort(serial, self.engine.core(), &mut self.waiting);
        self.shared.end_call();
        Counters::count(&self.shared.counters.calls_cancelled);
        call.target.finish(call.peer, Err(CallError::Failed { peer: call.peer, error: RpcError::Aborted }));
    }

    /// Gives up calls whose time is over, and finds the next deadline. All calls are looked at, but only when the
    /// oldest deadline comes: with one time-out for all that is once in that time.
    fn end_late_calls(&mut self, now: Instant) {
        let is_late = |call: &Pending| call.deadline.is_some_and(|(at, _)| at <= now);
        for (serial, call) in self.calls.extract_if(|_, call| is_late(call)) {
            let (_, timeout) = call.deadline.expect("it is over");
            call.abort(serial, self.engine.core(), &mut self.waiting);
            self.shared.end_call();
            Counters::count(&self.shared.counters.calls_late);
            call.target.finish(call.peer, Err(CallError::Deadline { peer: call.peer, timeout }));
        }
        self.earliest = self.calls.values().filter_map(|call| Some(call.deadline?.0)).min();
    }
}

impl<E> Drop for Runner<E> {
    /// However the thread ends, nobody waits for it in vain.
    fn drop(&mut self) {
        self.shared.stop();
        for (_, port) in self.ports.drain() {
            port.close();
        }
        for (_, stream) in self.streams.drain() {
            stream.finish(Err(Cut));
        }
        for (_, call) in self.calls.drain() {
            self.shared.end_call();
            call.target.finish(call.peer, Err(Stopped.into()));
        }
    }
}
