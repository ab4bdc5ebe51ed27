//! Client ports over the kernel's sockets: a sender thread that keeps the schedule, receiver threads that end the RPCs; or,
//! unloaded, one thread that does both.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::abi::{RecvArgs, SendArgs};
use super::{AFTER_ERROR, FILLER, Socket, receive_until};
use crate::arrivals::Arrivals;
use crate::cli::ClientOptions;
use crate::client::ClientPort;
use crate::clock::now_ns;
use crate::errors::Usage;
use crate::log::Log;
use crate::message::{HEADER_LEN, Header};
use crate::transport::ClientHandle;
use crate::transport::unloaded::{MAX_FAILURES, Plan, Step};
use crate::workload::Distribution;

/// Longest wait for a sender to stop.
const SENDER_STOP: Duration = Duration::from_millis(500);
/// Longest sleep of a sender: it looks for the end meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// What the threads of a port share.
pub(super) struct Port<S> {
    client: Arc<ClientPort>,
    socket: Arc<S>,
    closing: AtomicBool,
    /// The sender, while it waits for a slot.
    waiting: Mutex<Option<Thread>>,
    log: Log,
}

/// Starts the threads of all ports, or measures without load.
pub(super) fn start<S: Socket + 'static>(
    options: &ClientOptions,
    ports: &[Arc<ClientPort>],
    sockets: Vec<Arc<S>>,
    loads: Vec<Arrivals>,
    lengths: &Distribution,
    log: &Log,
) -> Result<Box<dyn ClientHandle>> {
    if options.port_receivers == 0 && options.unloaded == 0 {
        bail!(Usage("the kernel's Homa needs a receiver: give --port-receivers 1 or more".into()));
    }
    let port = |(client, socket): (&Arc<ClientPort>, Arc<S>)| {
        let (client, log) = (Arc::clone(client), log.clone());
        let (closing, waiting) = Default::default();
        Arc::new(Port { client, socket, closing, waiting, log })
    };
    let shared: Vec<_> = ports.iter().zip(sockets).map(port).collect();
    let mut client = KernelClient { ports: Vec::new() };
    if options.unloaded > 0 {
        shared[0].unloaded(Plan::new(lengths, options.unloaded))?;
        return Ok(Box::new(client));
    }
    for (port, load) in shared.into_iter().zip(loads) {
        let mut running = Running { port: Arc::clone(&port), sender: None, receivers: Vec::new() };
        let index = port.client.index;
        let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name).spawn(run).context("can't start a thread")
        };
        let started = (0..options.port_receivers).try_for_each(|receiver| {
            let port = Arc::clone(&port);
            running.receivers.push(spawn(format!("R{index}.{receiver}"), Box::new(move || port.receive()))?);
            anyhow::Ok(())
        });
        let poll = options.common.poll();
        let sender = started.and_then(|()| spawn(format!("C{index}"), Box::new(move || port.send_all(load, poll))));
        let failed = sender.map(|thread| running.sender = Some(thread)).err();
        // Also a port that is only half started is closed when `client` is dropped.
        client.ports.push(running);
        failed.map_or(Ok(()), Err)?;
    }
    Ok(Box::new(client))
}

/// All ports of one `client` command.
struct KernelClient<S: Socket> {
    ports: Vec<Running<S>>,
}

struct Running<S> {
    port: Arc<Port<S>>,
    sender: Option<JoinHandle<()>>,
    receivers: Vec<JoinHandle<()>>,
}

impl<S: Socket> ClientHandle for KernelClient<S> {
    fn stop_senders(&mut self) {
        for running in &self.ports {
            running.port.client.sending.store(false, Ordering::Release);
            running.port.wake();
        }
        for running in &mut self.ports {
            let limit = Instant::now() + SENDER_STOP;
            while running.sender.as_ref().is_some_and(|sender| !sender.is_finished()) && Instant::now() < limit {
                thread::sleep(Duration::from_millis(1));
            }
            if let Some(sender) = running.sender.take_if(|sender| sender.is_finished()) {
                // A panicked thread has told stderr.
                let _ = sender.join();
            }
        }
    }

    fn close(&mut self) {
        for running in &self.ports {
            running.port.client.sending.store(false, Ordering::Release);
            running.port.closing.store(true, Ordering::Release);
            running.port.wake();
            running.port.socket.shutdown();
        }
        for mut running in self.ports.drain(..) {
            for thread in running.receivers.drain(..).chain(running.sender.take()) {
                let _ = thread.join();
            }
        }
    }
}

impl<S: Socket> Drop for KernelClient<S> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<S: Socket> Port<S> {
    /// The loop of the sender, until it is told to stop.
    fn send_all(&self, load: Arrivals, poll: Duration) {
        let (mut load, poll_ns) = (load.starting_at(now_ns()), poll.as_nanos() as u64);
        while self.client.sending.load(Ordering::Acquire) {
            let now = now_ns();
            if !load.is_due(now) {
                let left = load.due_ns().map_or(0, |due| due.saturating_sub(now));
                if left > poll_ns {
                    thread::sleep(Duration::from_nanos(left - poll_ns).min(LONGEST_SLEEP));
                }
            } else if let Some(slot) = self.client.take_slot() {
                let plan = load.take();
                if !self.send(slot, plan.server, plan.len, plan.due_ns) {
                    // So would the next one, and the log would be full of it.
                    thread::sleep(AFTER_ERROR);
                }
            } else {
                self.wait_for_slot(now + poll_ns);
            }
        }
    }

    /// Sends a request; one that cannot be sent has failed.
    fn send(&self, slot: u16, target: usize, len: u32, due_ns: Option<u64>) -> bool {
        let len = len.max(HEADER_LEN as u32);
        let header = self.client.start(slot, target, len, due_ns, now_ns());
        let to = self.client.targets[target].addr;
        let args = SendArgs { cookie: u64::from(slot) + 1, ..SendArgs::default() };
        match self.socket.send(to, [&header.encode(), &FILLER[..len as usize - HEADER_LEN]], args) {
            Ok(_) => true,
            Err(err) => {
                self.client.fail(slot, false, now_ns());
                if !self.closing.load(Ordering::Acquire) {
                    self.log.line(format_args!("ERROR: sending a Homa request to {to} failed: {err}"));
                }
                false
            }
        }
    }

    /// Waits until there may be a slot: spins until `spin_until`, then sleeps.
    fn wait_for_slot(&self, spin_until: u64) {
        while now_ns() < spin_until {
            if self.client.has_slot() || !self.client.sending.load(Ordering::Relaxed) {
                return;
            }
            thread::yield_now();
        }
        *self.waiting() = Some(thread::current());
        // A slot that came free before wakes nobody.
        if !self.client.has_slot() && self.client.sending.load(Ordering::Acquire) {
            thread::park_timeout(LONGEST_SLEEP);
        }
        *self.waiting() = None;
    }

    /// Ends the sender's wait for a slot.
    fn wake(&self) {
        if let Some(sender) = self.waiting().take() {
            sender.unpark();
        }
    }

    /// The loop of a receiver, until the port is closed.
    fn receive(&self) {
        receive_until(&self.closing, &self.log, |args| self.next(args).map(drop));
    }

    /// Takes one message, or the failure of an RPC; whether an RPC was completed.
    ///
    /// # Errors
    /// Of the socket itself.
    fn next(&self, args: &mut RecvArgs) -> io::Result<bool> {
        args.again();
        match self.socket.receive(args) {
            Ok((length, from)) => {
                let now = now_ns();
                let done = match Header::decode_whole(&self.socket.head(args), length) {
                    Ok(header) => self.client.complete(&header, now).is_some(),
                    Err(error) => {
                        self.log.line(format_args!(
                            "ERROR: a Homa response from {from} is none of this benchmark: {error}"
                        ));
                        self.fail(args, false)
                    }
                };
                self.wake();
                Ok(done)
            }
            Err(err) if args.id != 0 => {
                let (id, timed_out) = (args.id, err.kind() == io::ErrorKind::TimedOut);
                self.log.line(format_args!("ERROR: Homa RPC {id} failed: {err}"));
                self.fail(args, timed_out);
                self.wake();
                Ok(false)
            }
            Err(err) => Err(err),
        }
    }

    /// Fails the RPC that `args` are about, whose cookie is its slot plus 1; false, since it is not completed.
    fn fail(&self, args: &RecvArgs, timed_out: bool) -> bool {
        if let Some(slot) = args.cookie.checked_sub(1).and_then(|slot| u16::try_from(slot).ok()) {
            self.client.fail(slot, timed_out, now_ns());
        }
        false
    }

    /// Some round trips of each length, one at a time.
    fn unloaded(&self, mut plan: Plan) -> Result<()> {
        let mut args = RecvArgs::default();
        loop {
            match plan.next(now_ns()) {
                Step::Send(len) => {
                    let slot = self.client.take_slot().context("an RPC without load has no end")?;
                    let done = self.send(slot, 0, len, None)
                        && self.next(&mut args).context("receiving from a Homa socket of the kernel")?;
                    plan.failures += u32::from(!done);
                    if plan.failures > MAX_FAILURES {
                        bail!("{} RPCs without load have failed: is there a server?", plan.failures);
                    }
                }
                Step::WarmedUp => drop(self.client.samples.take()),
                Step::Finished => return Ok(()),
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Thread>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
