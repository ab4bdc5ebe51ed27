//! TCP client ports: a sender thread that keeps the schedule, and receiver threads that end the RPCs.

use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::sender::Sender;
use super::socket::{self, EventSet, Signal};
use super::{READ_SIZE, SPIN_IDLE, SPIN_YIELD};
use crate::arrivals::Arrivals;
use crate::cli::{ClientOptions, TcpWait};
use crate::client::ClientPort;
use crate::clock::now_ns;
use crate::errors::Usage;
use crate::log::Log;
use crate::message::{Header, MessageReader};
use crate::transport::ClientHandle;

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
        let run = move || {
            let load = load.starting_at(now_ns());
            Sender::new(&port, load, poll).run();
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
pub(super) struct Port {
    pub(super) client: Arc<ClientPort>,
    /// In the order of the port's targets.
    pub(super) conns: Vec<Conn>,
    pub(super) events: EventSet,
    /// Ends the receivers' sleep.
    pub(super) stop: Signal,
    pub(super) closing: AtomicBool,
    /// Ends the sender's sleep.
    pub(super) wake: Signal,
    /// The sender waits for a slot.
    pub(super) wants_slot: AtomicBool,
    pub(super) log: Log,
}

pub(super) struct Conn {
    pub(super) stream: TcpStream,
    pub(super) reader: Mutex<MessageReader>,
    /// Request bytes issued and not yet answered.
    pub(super) unanswered: AtomicU64,
    pub(super) dead: AtomicBool,
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

    /// What comes from a server is a response, marked or not: the original of 2024 marks none.
    fn complete(&self, index: usize, header: &Header, now: u64) {
        if let Some(ended) = self.client.complete(header, now) {
            self.conns[index].unanswered.fetch_sub(ended.request_len.into(), Ordering::Relaxed);
            // Only the first response wakes; the sender takes all slots that there are.
            if self.wants_slot.load(Ordering::SeqCst) && self.wants_slot.swap(false, Ordering::SeqCst) {
                self.wake.set();
            }
        }
    }

    /// Gives up a broken connection and fails its RPCs.
    pub(super) fn lose(&self, index: usize, why: &str) {
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
