//! TCP client ports: a sender thread that keeps the schedule, and receiver threads that end the RPCs.

use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags};

use super::outbox::Outbox;
use super::socket::{self, EventSet, Signal, sleep_precisely, wait_for};
use super::{READ_SIZE, SPIN_IDLE, SPIN_YIELD};
use crate::arrivals::Arrivals;
use crate::cli::{ClientOptions, TcpWait};
use crate::client::ClientPort;
use crate::clock::now_ns;
use crate::errors::Usage;
use crate::log::Log;
use crate::message::{Header, MessageReader};
use crate::transport::ClientHandle;

/// A send is backed up if more request bytes than this wait for their responses at the same server port.
const BACKED_UP: u64 = 100_000;
/// Longest wait for a sender to stop.
const SENDER_STOP: Duration = Duration::from_millis(500);
const STOP: u64 = u64::MAX;

/// Connects each port to all its targets and starts its threads; `loads` in the order of `ports`.
///
/// # Errors
/// If a server can't be reached; nothing runs then.
pub(crate) fn open_client(
    options: &ClientOptions,
    ports: &[Arc<ClientPort>],
    loads: Vec<Arrivals>,
    log: &Log,
) -> Result<Box<dyn ClientHandle>> {
    if options.port_receivers == 0 {
        bail!(Usage("TCP needs a receiver: give --port-receivers 1 or more".into()));
    }
    let edge = options.port_receivers > 1 || options.common.tcp_wait == TcpWait::Spin;
    let shared = ports
        .iter()
        .map(|p| Port::connect(Arc::clone(p), options.common.tcp_cc.as_deref(), edge, log.clone()).map(Arc::new))
        .collect::<Result<Vec<_>>>()?;
    let mut client = TcpClient { ports: Vec::new() };
    for (port, load) in shared.into_iter().zip(loads) {
        let mut running = Running { port, sender: None, receivers: Vec::new() };
        let started = (0..options.port_receivers)
            .try_for_each(|receiver| running.spawn_receiver(receiver, options.common.tcp_wait))
            .and_then(|()| running.spawn_sender(load, options.common.poll()));
        // Also a port that is only half started is closed when `client` is dropped.
        client.ports.push(running);
        started?;
    }
    Ok(Box::new(client))
}

/// All ports of one `client` command.
struct TcpClient {
    ports: Vec<Running>,
}

struct Running {
    port: Arc<Port>,
    sender: Option<JoinHandle<()>>,
    receivers: Vec<JoinHandle<()>>,
}

impl Running {
    fn spawn_receiver(&mut self, number: u16, wait: TcpWait) -> Result<()> {
        let port = Arc::clone(&self.port);
        let thread = thread::Builder::new().name(format!("R{}.{number}", port.client.index));
        let run = move || port.receive(wait);
        self.receivers.push(thread.spawn(run).context("can't start a receiver thread")?);
        Ok(())
    }

    fn spawn_sender(&mut self, load: Arrivals, poll: Duration) -> Result<()> {
        let port = Arc::clone(&self.port);
        let thread = thread::Builder::new().name(format!("C{}", port.client.index));
        let outboxes = port.conns.iter().map(|_| Outbox::default()).collect();
        let poll_ns = poll.as_nanos() as u64;
        let run = move || {
            let load = load.starting_at(now_ns());
            Sender { port: &port, load, outboxes, blocked: 0, poll_ns }.run();
        };
        self.sender = Some(thread.spawn(run).context("can't start a sender thread")?);
        Ok(())
    }
}

impl ClientHandle for TcpClient {
    fn stop_senders(&mut self) {
        for running in &self.ports {
            running.port.client.sending.store(false, Ordering::Release);
            running.port.wake.set();
        }
        for running in &mut self.ports {
            let limit = Instant::now() + SENDER_STOP;
            while running.sender.as_ref().is_some_and(|s| !s.is_finished()) && Instant::now() < limit {
                thread::sleep(Duration::from_millis(1));
            }
            if let Some(sender) = running.sender.take_if(|s| s.is_finished()) {
                // A panicked thread has told stderr.
                let _ = sender.join();
            }
        }
    }

    fn close(&mut self) {
        for running in &self.ports {
            running.port.client.sending.store(false, Ordering::Release);
            running.port.closing.store(true, Ordering::Release);
            running.port.wake.set();
            running.port.stop.set();
            for conn in &running.port.conns {
                // A connection that is already gone needs no end.
                let _ = conn.stream.shutdown(Shutdown::Both);
            }
        }
        for mut running in self.ports.drain(..) {
            for thread in running.receivers.drain(..).chain(running.sender.take()) {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for TcpClient {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the threads of a port share.
struct Port {
    client: Arc<ClientPort>,
    /// In the order of the port's targets.
    conns: Vec<Conn>,
    events: EventSet,
    /// Ends the receivers' sleep.
    stop: Signal,
    closing: AtomicBool,
    /// Ends the sender's sleep.
    wake: Signal,
    /// The sender waits for a slot.
    wants_slot: AtomicBool,
    log: Log,
}

struct Conn {
    stream: TcpStream,
    reader: Mutex<MessageReader>,
    /// Request bytes issued and not yet answered.
    unanswered: AtomicU64,
    dead: AtomicBool,
}

impl Port {
    fn connect(client: Arc<ClientPort>, cc: Option<&str>, edge: bool, log: Log) -> Result<Self> {
        let events = EventSet::new()?;
        let stop = Signal::new()?;
        events.add(&stop, STOP, false)?;
        let mut conns = Vec::new();
        for (token, target) in (0..).zip(&client.targets) {
            let stream = socket::connect(target.addr, cc)
                .with_context(|| format!("can't connect to node {} at {} (TCP)", target.node, target.addr))?;
            events.add(&stream, token, edge)?;
            let (reader, unanswered, dead) = Default::default();
            conns.push(Conn { stream, reader, unanswered, dead });
        }
        let (closing, wants_slot) = Default::default();
        Ok(Self { client, conns, events, stop, closing, wake: Signal::new()?, wants_slot, log })
    }

    /// The loop of a receiver thread, until the port is closed.
    fn receive(&self, wait: TcpWait) {
        let mut buffer = vec![0; READ_SIZE];
        let mut ready = Vec::new();
        while !self.closing.load(Ordering::Acquire) {
            if let Err(error) = self.events.wait(&mut ready) {
                self.log.line(format_args!("ERROR: receiving from TCP sockets failed: {error}"));
                return;
            }
            for event in ready.drain(..).filter(|e| e.token != STOP) {
                let index = event.token as usize;
                let reader = self.conns[index].reader.lock().unwrap_or_else(PoisonError::into_inner);
                self.drain(index, reader, event.ends, &mut buffer);
            }
            if wait == TcpWait::Spin {
                self.spin(&mut buffer);
            }
        }
    }

    /// Reads all connections in turn, without sleeping, until none had anything for [`SPIN_IDLE`].
    fn spin(&self, buffer: &mut [u8]) {
        let mut idle_since = Instant::now();
        let mut empty = 0;
        while !self.closing.load(Ordering::Acquire) && idle_since.elapsed() < SPIN_IDLE {
            let mut any = false;
            for (index, conn) in self.conns.iter().enumerate().filter(|(_, c)| !c.dead.load(Ordering::Relaxed)) {
                any |= match conn.reader.try_lock() {
                    Ok(reader) => self.drain(index, reader, false, buffer),
                    Err(TryLockError::Poisoned(reader)) => self.drain(index, reader.into_inner(), false, buffer),
                    // Another receiver has it in hand.
                    Err(TryLockError::WouldBlock) => false,
                };
            }
            empty = if any { 0 } else { empty + 1 };
            if any {
                idle_since = Instant::now();
            } else if empty % SPIN_YIELD == 0 {
                thread::yield_now();
            }
        }
    }

    /// Reads what there is on a connection, and the end of the stream if it `ends`, and ends the RPCs whose responses are
    /// whole; true if there was anything.
    fn drain(&self, index: usize, mut reader: MutexGuard<'_, MessageReader>, ends: bool, buffer: &mut [u8]) -> bool {
        let conn = &self.conns[index];
        if conn.dead.load(Ordering::Acquire) {
            return false;
        }
        let mut any = false;
        loop {
            match (&conn.stream).read(buffer) {
                Ok(0) => self.lose(index, "closed by peer"),
                Ok(got) => {
                    any = true;
                    let now = now_ns();
                    if let Err(error) = reader.feed(&buffer[..got], |h| self.complete(index, &h, now)) {
                        self.lose(index, &error.to_string());
                    } else if got == buffer.len() || ends {
                        continue;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => self.lose(index, &e.to_string()),
            }
            return any;
        }
    }

    fn complete(&self, index: usize, header: &Header, now: u64) {
        if !header.is_response {
            return;
        }
        if let Some(ended) = self.client.complete(header, now) {
            self.conns[index].unanswered.fetch_sub(ended.request_len.into(), Ordering::Relaxed);
            // Only the first response wakes; the sender takes all slots that there are.
            if self.wants_slot.load(Ordering::SeqCst) && self.wants_slot.swap(false, Ordering::SeqCst) {
                self.wake.set();
            }
        }
    }

    /// Gives up a broken connection and fails its RPCs.
    fn lose(&self, index: usize, why: &str) {
        let conn = &self.conns[index];
        if conn.dead.swap(true, Ordering::SeqCst) || self.closing.load(Ordering::Acquire) {
            return;
        }
        self.events.remove(&conn.stream);
        // A connection that the peer has reset is already shut down.
        let _ = conn.stream.shutdown(Shutdown::Both);
        let failed = self.client.fail_target(index, now_ns());
        let target = &self.client.targets[index];
        self.log.line(format_args!(
            "ERROR: TCP connection to node{} at {}: {why}; {failed} RPCs failed, no more are sent there",
            target.node, target.addr
        ));
        self.wake.set();
    }
}

/// The sending side of a port: its thread owns what is not yet in the sockets.
struct Sender<'a> {
    port: &'a Port,
    load: Arrivals,
    /// In the order of the connections.
    outboxes: Vec<Outbox>,
    /// Outboxes that are not empty.
    blocked: usize,
    /// Longest time to spin before an event, in ns.
    poll_ns: u64,
}

impl Sender<'_> {
    /// Sends what is due until told to stop, then finishes messages that are partly sent.
    fn run(mut self) {
        sleep_precisely();
        while self.port.client.sending.load(Ordering::Acquire) {
            self.flush_blocked();
            let now = now_ns();
            if self.load.is_due(now)
                && let Some(slot) = self.port.client.take_slot()
            {
                if !self.send(slot) {
                    self.port.log.line("ERROR: no TCP connection is left: the sender stops");
                    return;
                }
            } else {
                self.wait(now);
            }
        }
        while self.blocked > 0 && !self.port.closing.load(Ordering::Acquire) {
            self.sleep(Some(Duration::from_millis(100)));
            self.flush_blocked();
        }
    }

    /// Sends the next request; false if no connection is left.
    fn send(&mut self, slot: u16) -> bool {
        let plan = self.load.take();
        let count = self.port.conns.len();
        // Requests to a node that is gone go to the next one: the load stays as offered.
        let alive = |i: &usize| !self.port.conns[*i].dead.load(Ordering::SeqCst);
        let Some(index) = (plan.server..count).chain(0..plan.server).find(alive) else { return false };
        let conn = &self.port.conns[index];
        let unanswered = conn.unanswered.fetch_add(plan.len.into(), Ordering::Relaxed);
        if unanswered > BACKED_UP {
            self.port.client.counters.backed_up.fetch_add(1, Ordering::Relaxed);
        }
        let header = self.port.client.start(slot, index, plan.len, plan.due_ns, now_ns());
        if conn.dead.load(Ordering::SeqCst) {
            // It broke after it was chosen, maybe after its RPCs were failed.
            self.port.client.fail(slot, false, now_ns());
            return true;
        }
        let was_blocked = !self.outboxes[index].is_empty();
        self.outboxes[index].push(header);
        if !was_blocked {
            self.blocked += 1;
            self.flush(index);
        }
        true
    }

    fn flush_blocked(&mut self) {
        if self.blocked > 0 {
            for index in 0..self.outboxes.len() {
                if !self.outboxes[index].is_empty() {
                    self.flush(index);
                }
            }
        }
    }

    /// Writes what the socket takes of a non-empty outbox.
    fn flush(&mut self, index: usize) {
        let conn = &self.port.conns[index];
        let result = self.outboxes[index].flush(&conn.stream);
        if let Err(error) = &result {
            self.port.lose(index, &error.to_string());
        }
        if result.is_err() || conn.dead.load(Ordering::Relaxed) {
            self.outboxes[index].clear();
        }
        if self.outboxes[index].is_empty() {
            self.blocked -= 1;
        }
    }

    /// Waits for the next due time, or for a slot if a request is already due. Sleeps, and spins only at the end.
    fn wait(&mut self, now: u64) {
        match self.load.due_ns().filter(|due| *due > now) {
            Some(due) if due - now > self.poll_ns || self.poll_ns == 0 => {
                self.sleep(Some(Duration::from_nanos(due - now - self.poll_ns)));
            }
            Some(due) => while now_ns() < due && self.spin_once() {},
            None => {
                while now_ns() < now + self.poll_ns {
                    if self.port.client.has_slot() || !self.spin_once() {
                        return;
                    }
                }
                self.port.wants_slot.store(true, Ordering::SeqCst);
                // A slot that came free before the flag was set does not wake.
                if !self.port.client.has_slot() {
                    self.sleep(None);
                }
                self.port.wants_slot.store(false, Ordering::SeqCst);
            }
        }
    }

    /// One round of spinning: lets other threads run; false if there is something else to do.
    fn spin_once(&self) -> bool {
        thread::yield_now();
        self.blocked == 0 && self.port.client.sending.load(Ordering::Relaxed)
    }

    /// Sleeps until the limit is over, the port wants something, or a blocked socket takes data.
    fn sleep(&self, limit: Option<Duration>) {
        let mut fds = vec![PollFd::new(&self.port.wake, PollFlags::IN)];
        for (conn, outbox) in self.port.conns.iter().zip(&self.outboxes) {
            if !outbox.is_empty() {
                fds.push(PollFd::new(&conn.stream, PollFlags::OUT));
            }
        }
        match wait_for(&mut fds, limit) {
            Ok(_) if fds[0].revents().contains(PollFlags::IN) => self.port.wake.clear(),
            Ok(_) => {}
            Err(error) => {
                self.port.log.line(format_args!("ERROR: a TCP sender can't sleep: {error}"));
                // Without this the loop would spin on the error.
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
