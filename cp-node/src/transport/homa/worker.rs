//! The thread that runs the stack: sends what is due, answers requests, ends RPCs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use homa_stack::driver::{Host, ResolveError};
use homa_stack::{Event, Instant, Message, Nanos, Payload, RpcError, ServerRpc};

use super::{Job, RESOLVE_LIMIT};
use crate::arrivals::Arrivals;
use crate::client::{ClientPort, Ended, Target};
use crate::log::Log;
use crate::message::{HEADER_LEN, Header, MessageError};
use crate::transport::ServerCounters;
use crate::transport::unloaded::{MAX_FAILURES, Plan, Step};
use crate::workload::MAX_MESSAGE;

/// Requests that a port sends before packets are received again.
const BURST: usize = 16;
/// Time between two looks for a hardware address.
const LOOK_AGAIN: Nanos = Nanos::from_millis(1);
/// A response shorter than this can freeze the trace.
const FREEZE_BELOW: u32 = 1500;

/// What a client port sends.
pub(super) enum Load {
    /// Open or closed loop.
    Arrivals(Arrivals),
    /// One RPC at a time to the first server.
    Unloaded {
        plan: Plan,
        /// Told once when all is measured.
        finished: SyncSender<Result<()>>,
    },
}

/// A client port as the worker sees it.
struct Port {
    /// Upper bits of the cookies of its RPCs.
    key: u64,
    shared: Arc<ClientPort>,
    /// Homa port number.
    number: u16,
    load: Load,
    /// Of each target: later requests carry the freeze bit.
    freeze: Vec<bool>,
}

/// The stack and everything that uses it.
pub(super) struct Worker {
    pub(super) host: Host,
    /// Exclusive bounds of an RTT that freezes the trace, in units of 1024 ns.
    pub(super) freeze_between: (i64, i64),
    clients: Vec<Port>,
    servers: Vec<(u16, Arc<ServerCounters>)>,
    next_key: u64,
    filler: Bytes,
    log: Log,
}

impl Worker {
    pub(super) fn new(host: Host, log: Log) -> Self {
        let filler = Bytes::from(vec![0x63; MAX_MESSAGE as usize]);
        Self { host, freeze_between: (0, 0), clients: Vec::new(), servers: Vec::new(), next_key: 0, filler, log }
    }

    /// Runs jobs and the stack until nobody can send jobs any more.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) -> Result<()> {
        loop {
            loop {
                match jobs.try_recv() {
                    Ok(job) => job(&mut self),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.step(None)?;
        }
    }

    /// One turn of the stack and of all that uses it; waits, at most until `end`, if there is nothing to do.
    fn step(&mut self, end: Option<Instant>) -> Result<()> {
        let sent = self.send_due();
        let turned = self.host.turn().context("sending and receiving packets failed")?;
        let heard = self.handle_events();
        if !(sent || turned || heard) {
            let until = self.next_due().into_iter().chain(end).min();
            self.host.wait(until).context("waiting for packets failed")?;
        }
        Ok(())
    }

    /// Opens ports for clients whose servers all have a known hardware address.
    pub(super) fn open_clients(&mut self, ports: Vec<(Arc<ClientPort>, Load)>) -> Result<()> {
        self.find_ways(ports.iter().flat_map(|(port, _)| &port.targets))?;
        let now = self.host.now().as_nanos();
        for (shared, load) in ports {
            let load = match load {
                Load::Arrivals(arrivals) => Load::Arrivals(arrivals.starting_at(now)),
                unloaded => unloaded,
            };
            self.next_key += 1;
            let number = self.host.core().client_port().context("no port to call from")?;
            let freeze = vec![false; shared.targets.len()];
            self.clients.push(Port { key: self.next_key, shared, number, load, freeze });
        }
        Ok(())
    }

    /// Has the hardware addresses of all `targets` known. Meanwhile the stack runs and requests are answered: nodes that
    /// have begun earlier call this one already, and would ask again and again, and then give up, where their packets
    /// only fill the ring.
    fn find_ways<'a>(&mut self, targets: impl Iterator<Item = &'a Target>) -> Result<()> {
        let mut unknown: Vec<_> = targets.map(|target| (target.addr.ip(), target.node)).collect();
        unknown.sort_unstable();
        unknown.dedup_by_key(|(ip, _)| *ip);
        let begin = std::time::Instant::now();
        loop {
            // One look for each: an address that the network is asked for is there at the next one.
            let mut missing = None;
            unknown.retain(|&(ip, node)| match self.host.resolve(ip, Duration::ZERO) {
                Ok(()) => false,
                Err(error) => {
                    missing.get_or_insert((ip, node, error));
                    true
                }
            });
            let Some((ip, node, error)) = missing else { return Ok(()) };
            if !matches!(error, ResolveError::NoNeighbour { .. }) || begin.elapsed() >= RESOLVE_LIMIT {
                let interface = self.host.interface();
                return Err(error)
                    .with_context(|| format!("can't reach node {node} at {ip} from interface {interface}"));
            }
            let end = self.host.now() + LOOK_AGAIN;
            while self.host.now() < end {
                self.step(Some(end))?;
            }
        }
    }

    /// Closes the ports of these clients; their outstanding RPCs have no end.
    pub(super) fn close_clients(&mut self, ports: &[Arc<ClientPort>]) {
        let (gone, stay) = self.clients.drain(..).partition(|c| ports.iter().any(|p| Arc::ptr_eq(p, &c.shared)));
        self.clients = stay;
        let gone: Vec<Port> = gone;
        for port in gone {
            self.host.core().unbind(port.number);
        }
    }

    /// Opens these server ports, or none of them.
    pub(super) fn open_servers(&mut self, ports: Vec<(u16, Arc<ServerCounters>)>) -> Result<()> {
        for (index, (number, _)) in ports.iter().enumerate() {
            if let Err(error) = self.host.core().bind(*number) {
                ports[..index].iter().for_each(|(open, _)| self.host.core().unbind(*open));
                bail!("can't open Homa port {number}: {error}; choose another with --first-port");
            }
        }
        for (number, _) in &ports {
            self.log.line(format_args!("Successfully bound to Homa port {number}"));
        }
        self.servers.extend(ports);
        Ok(())
    }

    /// Closes these server ports.
    pub(super) fn close_servers(&mut self, ports: &[u16]) {
        self.servers.retain(|(number, _)| !ports.contains(number));
        for number in ports {
            self.host.core().unbind(*number);
            self.log.line(format_args!("Homa server on port {number} shutting down"));
        }
    }

    /// Sends the requests that are due, as far as the windows allow; true if there was any.
    fn send_due(&mut self) -> bool {
        let mut any = false;
        for index in 0..self.clients.len() {
            for _ in 0..BURST {
                if !self.send_next(index) {
                    break;
                }
                any = true;
            }
        }
        any
    }

    /// Sends the next request of a port if it is due and may be outstanding.
    fn send_next(&mut self, index: usize) -> bool {
        let now = self.host.now();
        let port = &mut self.clients[index];
        if !port.shared.sending.load(Ordering::Relaxed) {
            return false;
        }
        let Some((target, len, due_ns, slot)) = port.next_request(now.as_nanos()) else { return false };
        let mut header = port.shared.start(slot, target, len, due_ns, now.as_nanos());
        header.freeze = port.freeze[target];
        let to = port.shared.targets[target].addr;
        let payload = message(&header, &self.filler);
        let cookie = port.key << 16 | u64::from(slot);
        if let Err(error) = self.host.core().call(now, port.number, to, payload, cookie) {
            self.log.line(format_args!("ERROR: can't send a Homa request of {len} bytes to {to}: {error}"));
            self.clients[index].fail(slot, false, now.as_nanos());
        }
        true
    }

    /// When the next request may be sent; `None` if that takes an event.
    fn next_due(&self) -> Option<Instant> {
        let may_send = |p: &&Port| p.shared.sending.load(Ordering::Relaxed) && p.shared.has_slot();
        self.clients.iter().filter(may_send).filter_map(Port::due_ns).min().map(Instant::from_nanos)
    }

    /// Handles what the stack has to tell; true if there was anything.
    fn handle_events(&mut self) -> bool {
        let (mut any, mut first) = (false, true);
        while let Some(event) = self.host.core().poll_event() {
            any = true;
            match event {
                Event::Request { rpc, port, peer, msg } => {
                    self.answer(rpc, port, peer, msg, std::mem::take(&mut first));
                }
                Event::Response { cookie, peer, msg, .. } => self.complete(cookie, peer, msg),
                Event::Failed { id, cookie, peer, error, .. } => {
                    if let Some(ended) = self.fail(cookie, error == RpcError::TimedOut) {
                        let what =
                            if error == RpcError::TimedOut { "timed out".into() } else { format!("failed ({error})") };
                        let len = ended.request_len;
                        self.log.line(format_args!("ERROR: Homa RPC {what}, id {id}, length {len}, server {peer}"));
                    }
                }
                // Requests that are refused count as failed; the next ones come when they are due.
                Event::Room(_) => {}
            }
        }
        any
    }

    /// Answers a request, the `first` that was found in this turn or not.
    fn answer(&mut self, rpc: ServerRpc, port: u16, peer: SocketAddr, msg: Message, first: bool) {
        let header = self.take_header(msg);
        let counters = self.servers.iter().find(|(number, _)| *number == port).map(|(_, c)| c);
        let (request, counters) = match (header, counters) {
            (Ok(request), Some(counters)) => (request, counters),
            (header, _) => {
                let why = header.err().map_or("the port is closed".into(), |e| e.to_string());
                self.log.line(format_args!("ERROR: discarding a Homa request from {peer} to port {port}: {why}"));
                self.host.core().discard(rpc);
                return;
            }
        };
        let response = request.response();
        counters.request_bytes.fetch_add(request.len.into(), Ordering::Relaxed);
        counters.response_bytes.fetch_add(response.len.into(), Ordering::Relaxed);
        counters.looks.fetch_add(first.into(), Ordering::Relaxed);
        counters.requests.fetch_add(1, Ordering::Relaxed);
        if request.freeze {
            self.host.freeze_traces();
        }
        let now = self.host.now();
        if let Err(error) = self.host.core().reply(now, rpc, message(&response, &self.filler)) {
            self.log.line(format_args!("ERROR: can't answer a Homa request from {peer}: {error}"));
        }
    }

    fn complete(&mut self, cookie: u64, peer: SocketAddr, msg: Message) {
        let now = self.host.now().as_nanos();
        let header = match self.take_header(msg) {
            Ok(header) => header,
            Err(error) => {
                self.log.line(format_args!("ERROR: a Homa response from {peer} is not ours: {error}"));
                self.fail(cookie, false);
                return;
            }
        };
        let Some(port) = port_of(&mut self.clients, cookie) else { return };
        // The stack says which RPC this is; the slot in the message is for transports that can't.
        let Some(ended) = port.shared.complete(&Header { slot: cookie as u16, ..header }, now) else { return };
        let rtt = (ended.service_ns / 1024) as i64;
        if header.len < FREEZE_BELOW && self.freeze_between.0 < rtt && rtt < self.freeze_between.1 {
            port.freeze[ended.target] = true;
            self.host.freeze_traces();
        }
    }

    fn fail(&mut self, cookie: u64, timed_out: bool) -> Option<Ended> {
        let now = self.host.now().as_nanos();
        port_of(&mut self.clients, cookie)?.fail(cookie as u16, timed_out, now)
    }

    /// Reads the header of a message and gives its pages back.
    fn take_header(&mut self, msg: Message) -> Result<Header, MessageError> {
        let mut bytes = [0; HEADER_LEN];
        let len = msg.len();
        self.host.core().copy_out(&msg, 0, &mut bytes);
        self.host.core().release(msg);
        Header::decode_whole(&bytes, len)
    }
}

fn port_of(clients: &mut [Port], cookie: u64) -> Option<&mut Port> {
    clients.iter_mut().find(|p| p.key == cookie >> 16)
}

impl Port {
    /// Target, length, due time and slot of the request to send now, if there is one.
    fn next_request(&mut self, now_ns: u64) -> Option<(usize, u32, Option<u64>, u16)> {
        match &mut self.load {
            Load::Arrivals(arrivals) => {
                let slot = arrivals.is_due(now_ns).then(|| self.shared.take_slot())??;
                let plan = arrivals.take();
                Some((plan.server, plan.len, plan.due_ns, slot))
            }
            Load::Unloaded { plan, finished } => {
                if self.shared.outstanding() > 0 {
                    return None;
                }
                let slot = self.shared.take_slot()?;
                loop {
                    match plan.next(now_ns) {
                        Step::Send(len) => return Some((0, len, None, slot)),
                        Step::WarmedUp => drop(self.shared.samples.take()),
                        Step::Finished => {
                            self.shared.sending.store(false, Ordering::Release);
                            // Whoever started the measurement waits for it.
                            let _ = finished.send(Ok(()));
                            return None;
                        }
                    }
                }
            }
        }
    }

    /// When the next request is due, in ns; 0 in a closed loop; `None` if the outstanding RPC must end first.
    fn due_ns(&self) -> Option<u64> {
        match &self.load {
            Load::Arrivals(arrivals) => Some(arrivals.due_ns().unwrap_or(0)),
            Load::Unloaded { .. } => (self.shared.outstanding() == 0).then_some(0),
        }
    }

    fn fail(&mut self, slot: u16, timed_out: bool, now_ns: u64) -> Option<Ended> {
        if let Load::Unloaded { plan, finished } = &mut self.load {
            plan.failures += 1;
            if plan.failures == MAX_FAILURES {
                self.shared.sending.store(false, Ordering::Release);
                let _ =
                    finished.send(Err(anyhow!("{MAX_FAILURES} RPCs failed: the server does not answer, see the log")));
            }
        }
        self.shared.fail(slot, timed_out, now_ns)
    }
}

fn message(header: &Header, filler: &Bytes) -> Payload {
    Payload::with_head(&header.encode(), filler.slice(..header.len as usize - HEADER_LEN))
}
