//! Homa: the protocol core as shipped, through its own [`Device`] and [`turn`].
//!
//! Headers are real, data are not: a packet carries the bytes of its header and the number of its data bytes, which are
//! all zero.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::LazyLock;

use bytes::Bytes;
use cp_node::workload::Distribution;
use homa_stack::device::{BATCH, Content, Device, Rx, turn};
use homa_stack::metrics::{DropReason, Metrics};
use homa_stack::trace::{self, Recorder, write_merged};
use homa_stack::wire::{Cutoffs, Kind};
use homa_stack::{Config, Endpoint, Nanos, Payload, RpcError, RpcId, SendError, ServerRpc, Transmit};
use slab::Slab;

use crate::packet::{Ecn, HostId, Packet, frame_bytes};
use crate::port::Port;
use crate::time::Time;
use crate::transport::{Call, Event, Request, Transport};

/// Longest header of any packet: that of ACK, 80 bytes.
const HEADER: usize = 80;

/// Bytes of an IPv4 header.
const IP_HEADER: usize = 20;

/// Number of the first server port.
const FIRST_PORT: u16 = 4000;

/// Longest message that can be simulated, in bytes. The protocol itself has a limit of 1,000,000, but published
/// workloads have longer ones.
pub const LONGEST: usize = 1 << 28;

/// The bytes of all messages: memory that the system gives when it is looked at, which it never is.
static ZEROS: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0; LONGEST]));

/// A Homa packet: its header, and how many bytes of data follow.
#[derive(Clone, Debug)]
pub struct Segment {
    header: [u8; HEADER],
    header_len: u16,
    data_len: u16,
}

/// The address of a host: 10.0.0.1 and those after it.
pub fn address(host: HostId) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0001 + host.0).into()
}

/// The host at an address of [`address`].
fn host_at(addr: IpAddr) -> HostId {
    match addr {
        IpAddr::V4(v4) => HostId(v4.to_bits().wrapping_sub(0x0a00_0001)),
        IpAddr::V6(_) => HostId(u32::MAX),
    }
}

/// Homa on one host.
#[derive(Debug)]
pub struct Homa {
    core: Endpoint,
    /// When the time trace began, and the metrics then.
    traced: Option<(Time, Metrics)>,
    arrivals: Arrivals,
    /// Bytes of headers that packets count with, if not those that they have.
    headers: Option<u32>,
    /// The last so many bytes of a message go at least at the level of a message as long as what is left: the bytes, and
    /// the longest message of each level.
    tails: Option<(u32, [u32; 8])>,
    /// Numbers of the client ports.
    clients: Vec<u16>,
    requests: Slab<ServerRpc>,
    failed: Vec<Event>,
}

/// What a time trace needs to know of packets that have come and the core does not.
#[derive(Debug, Default)]
struct Arrivals {
    /// When a receiving core saw each, how long it had been in the ring, and which core it was; the last `most`.
    seen: VecDeque<(Time, Time, u16)>,
    most: usize,
}

impl Homa {
    /// The core of `host` with `config` and so many client and server ports. Its RPC ids are those of no other host,
    /// unless it has 50 million RPCs.
    ///
    /// # Panics
    ///
    /// If there are more ports than the protocol has.
    pub fn new(host: HostId, config: &Config, client_ports: u16, server_ports: u16) -> Self {
        let first_id = 100_000_000 * (u64::from(host.0) + 1);
        // The application limits what is outstanding.
        let config = Config {
            tx_budget: usize::MAX,
            tx_peer_share: 1000,
            first_id,
            keep_bodies: false,
            longest_message: LONGEST,
            ..config.clone()
        };
        let mut core = Endpoint::new(config);
        for port in 0..server_ports {
            core.bind(FIRST_PORT + port).expect("the port is free");
        }
        let clients = (0..client_ports).map(|_| core.client_port().expect("a client port is free")).collect();
        let (requests, failed, arrivals) = (Slab::new(), Vec::new(), Arrivals::default());
        Self { core, traced: None, arrivals, headers: None, tails: None, clients, requests, failed }
    }

    /// Tells the core the levels that messages to each of the first `hosts` hosts use, which real nodes learn with their
    /// first messages: a run of milliseconds would show little else. All hosts are taken to have the same parameters.
    #[must_use]
    pub fn acquainted(mut self, hosts: u32) -> Self {
        let cutoffs = Cutoffs { table: self.core.config().cutoffs, version: self.core.config().cutoff_version };
        (0..hosts).for_each(|host| self.core.acquaint(address(HostId(host)), &cutoffs));
        self
    }

    /// Has packets take the time of `bytes` of IP and transport headers in front of their data, instead of those that
    /// they have: for comparison with simulations of other formats.
    #[must_use]
    pub fn with_headers(mut self, bytes: u32) -> Self {
        self.headers = Some(bytes);
        self
    }

    /// The last `bytes` of long messages go first, as in the simulations of the SIGCOMM 2018 paper: each packet at least at
    /// the level of a whole message as long as what is left, by `cutoffs`.
    #[must_use]
    pub fn with_urgent_tails(mut self, bytes: u32, cutoffs: [u32; 8]) -> Self {
        self.tails = Some((bytes, cutoffs));
        self
    }

    /// The core's counters.
    pub fn counters(&self) -> &Metrics {
        &self.core.metrics
    }

    /// The core.
    pub fn core(&self) -> &Endpoint {
        &self.core
    }
}

impl Transport for Homa {
    type Segment = Segment;

    fn call(&mut self, now: Time, call: Call) {
        let (len, from) = (call.len as usize, self.clients[usize::from(call.client_port)]);
        let to = SocketAddr::new(address(call.to), FIRST_PORT + call.server_port);
        self.core.trace.set_now(now.as_nanos());
        let payload = Payload::from(ZEROS.slice(..len.min(LONGEST)));
        let begun = self.core.call(now.instant(), from, to, payload, call.cookie);
        if let Err(error) = begun {
            let why = match error {
                SendError::Empty => "the message is empty",
                SendError::WouldBlock(_) => "too much is under way",
                _ => "there is no such port",
            };
            self.failed.push(Event::Failed { cookie: call.cookie, why });
        }
    }

    fn reply(&mut self, now: Time, request: Request, len: u32) {
        let rpc = self.requests.remove(request.key() as usize);
        self.core.trace.set_now(now.as_nanos());
        let payload = Payload::from(ZEROS.slice(..(len as usize).clamp(1, LONGEST)));
        self.core.reply(now.instant(), rpc, payload).expect("the length is allowed");
    }

    fn discard(&mut self, now: Time, request: Request) {
        let rpc = self.requests.remove(request.key() as usize);
        self.core.trace.set_now(now.as_nanos());
        self.core.discard(rpc);
    }

    fn forget(&mut self, now: Time, call: u64) {
        self.core.trace.set_now(now.as_nanos());
        self.core.cancel(RpcId::local(call), RpcError::Aborted);
    }

    fn turn(&mut self, now: Time, port: &mut Port<Segment>) {
        self.core.trace.set_now(now.as_nanos());
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.grow(self.core.config().mtu);
            let (arrivals, headers, tails) = (&mut self.arrivals, self.headers, self.tails.as_ref());
            let mut nic = Nic { scratch, arrivals, headers, tails, port, now, sent: 0 };
            loop {
                nic.sent = 0;
                turn(&mut self.core, &mut nic, now.instant());
                // A burst that is full may not be all.
                if nic.port.waiting() == 0 && nic.sent < BATCH {
                    return;
                }
            }
        });
    }

    fn next_deadline(&self) -> Option<Time> {
        self.core.next_deadline().map(Time::at)
    }

    fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.failed.pop() {
            return Some(event);
        }
        loop {
            match self.core.poll_event()? {
                homa_stack::Event::Request { rpc, port, peer, msg } => {
                    let (from, call) = (host_at(peer.ip()), rpc.id().get() ^ 1);
                    let len = msg.len() as u32;
                    self.core.release(msg);
                    let request = Request::new(self.requests.insert(rpc) as u64);
                    return Some(Event::Request { request, from, call, server_port: port - FIRST_PORT, len });
                }
                homa_stack::Event::Response { cookie, msg, .. } => {
                    let len = msg.len() as u32;
                    self.core.release(msg);
                    return Some(Event::Response { cookie, len });
                }
                homa_stack::Event::Failed { cookie, error, .. } => {
                    return Some(match error {
                        RpcError::Aborted => Event::Response { cookie, len: 0 },
                        RpcError::TimedOut => Event::Failed { cookie, why: "the server was silent for too long" },
                        RpcError::PortUnreachable => Event::Failed { cookie, why: "no server at that port" },
                        _ => Event::Failed { cookie, why: "the server's host is unreachable" },
                    });
                }
                homa_stack::Event::Room(_) => {}
            }
        }
    }

    fn metrics(&self) -> Vec<(&'static str, u64)> {
        self.core.metrics.values()
    }

    fn metrics_text(&self, now: Time) -> Option<String> {
        // A clock of 1 GHz that counts virtual nanoseconds.
        Some(self.core.metrics.to_text(now.as_nanos(), 1_000_000, 0))
    }

    fn begin_trace(&mut self, now: Time, events: usize) {
        let mut recorder = Recorder::new(events, trace::Clock::Manual, 0);
        recorder.set_now(now.as_nanos());
        self.core.set_trace(recorder);
        self.traced = Some((now, self.core.metrics.clone()));
        self.arrivals = Arrivals { seen: VecDeque::new(), most: events };
    }

    fn trace_metrics(&self, now: Time) -> Option<String> {
        let (begin, before) = self.traced.as_ref()?;
        let whole = self.core.trace.overwritten() == 0;
        whole.then(|| self.core.metrics.since(before).to_text((now - *begin).as_nanos(), 1_000_000, 0))
    }

    fn end_trace(&mut self, now: Time) -> Option<Vec<u8>> {
        self.traced = None;
        let mut recorder = std::mem::replace(&mut self.core.trace, Recorder::new(0, trace::Clock::Manual, 0));
        recorder.set_now(now.as_nanos());
        recorder.freeze();
        let arrivals = std::mem::take(&mut self.arrivals);
        let cores = with_receivers(&recorder, &arrivals);
        let mut text = Vec::new();
        write_merged(&cores.iter().collect::<Vec<_>>(), &mut text, 1.0).expect("a vector takes all bytes");
        Some(text)
    }
}

/// The trace as cores would have made it: what `recorder` notes when the protocol gets packets, receiving cores have
/// noted when they saw them. The protocol is core 0, the receiving cores come after it.
fn with_receivers(recorder: &Recorder, arrivals: &Arrivals) -> Vec<Recorder> {
    use trace::Event::{GroControl, GroData, GroGrant, RingWait};
    let records: Vec<_> = recorder.records().copied().collect();
    let is_arrival = |event: &trace::Event| matches!(event, GroData { .. } | GroGrant { .. } | GroControl { .. });
    let count = records.iter().filter(|record| is_arrival(&record.event)).count();
    let mut seen = arrivals.seen.iter().skip(arrivals.seen.len().saturating_sub(count));
    let receivers = arrivals.seen.iter().map(|(_, _, core)| core + 1).max().unwrap_or(0);
    let new = |core| Recorder::new(records.len().max(1), trace::Clock::Manual, core);
    let mut cores: Vec<_> = (0..=receivers).map(new).collect();
    let (mut core, mut waited) = (0, Time::ZERO);
    for record in &records {
        let mut event = record.event;
        if is_arrival(&event)
            && let Some((at, wait, index)) = seen.next()
        {
            (core, waited) = (usize::from(*index) + 1, *wait);
            cores[core].set_now(at.as_nanos());
        } else if let RingWait { nanos, .. } = &mut event {
            *nanos = waited.as_nanos().min(u32::MAX.into()) as u32;
        } else {
            core = 0;
            cores[0].set_now(record.ticks);
        }
        cores[core].record(event);
    }
    cores
}

/// Sets the levels of unscheduled packets for messages with these `lengths`: as many of `num_priorities` as their share
/// of the bytes is, at least one, and one less than all; each with as many unscheduled bytes as the others, shorter
/// messages the more urgent. Source: "Homa: a receiver-driven low-latency transport protocol using network priorities"
/// (SIGCOMM 2018), 3.4.
pub fn fit_cutoffs(config: &mut Config, lengths: &Distribution) {
    let levels = usize::from(config.num_priorities.clamp(1, 8));
    if levels == 1 {
        return;
    }
    let mut below = 0.0;
    let weights = lengths.points().iter().map(|point| {
        let weight = point.fraction - std::mem::replace(&mut below, point.fraction);
        (point.len, weight * f64::from(point.len.min(config.unsched_bytes as u32)))
    });
    let weights: Vec<(u32, f64)> = weights.collect();
    let total: f64 = weights.iter().map(|(_, bytes)| bytes).sum();
    let number = ((total / lengths.mean() * levels as f64).round() as usize).clamp(1, levels - 1);
    let (lowest, mut level, mut sum) = (levels - number, levels - 1, 0.0);
    config.cutoffs = [0; 8];
    for pair in weights.windows(2) {
        sum += pair[0].1;
        // The next length would take this level further beyond its share than this one leaves it short.
        let share = total * (levels - level) as f64 / number as f64;
        if level > lowest && sum + pair[1].1 / 2.0 > share {
            config.cutoffs[level] = pair[0].0;
            level -= 1;
        }
    }
    config.cutoffs[lowest..=level].fill(u32::MAX);
    config.cutoffs[0] = u32::MAX;
    config.max_sched_priority = lowest.saturating_sub(1) as u8;
}

/// Memory that a host uses during a turn. Those of a thread share it, so that it stays in the cache.
#[derive(Debug, Default)]
struct Scratch {
    /// Packets as the core reads them: headers in front of any bytes.
    received: Vec<Box<[u8]>>,
    /// Of each: sender, priority, length in bytes, how long it waited.
    held: Vec<(HostId, u8, usize, Nanos)>,
    /// Where the core writes headers.
    slot: Box<[u8]>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Scratch {
    /// Sees to it that packets of `mtu` bytes fit.
    #[inline]
    fn grow(&mut self, mtu: usize) {
        let len = mtu.max(HEADER);
        if self.slot.len() < len {
            self.slot = vec![0; len].into_boxed_slice();
            self.received = (0..BATCH).map(|_| self.slot.clone()).collect();
        }
    }
}

/// The host's network as a device of the core.
struct Nic<'a> {
    scratch: &'a mut Scratch,
    arrivals: &'a mut Arrivals,
    headers: Option<u32>,
    tails: Option<&'a (u32, [u32; 8])>,
    port: &'a mut Port<Segment>,
    now: Time,
    /// Packets sent in this turn.
    sent: usize,
}

impl Nic<'_> {
    fn send(&mut self, transmit: &Transmit, trace: &mut Recorder) {
        let header_len = transmit.len - transmit.gathered;
        let mut segment =
            Segment { header: [0; HEADER], header_len: header_len as u16, data_len: transmit.gathered as u16 };
        // All that a header may be: copies of a fixed length are some instructions.
        segment.header.copy_from_slice(&self.scratch.slot[..HEADER]);
        let (from, to) = (self.port.host(), host_at(transmit.to));
        let ports = u32::from_be_bytes([segment.header[0], segment.header[1], segment.header[2], segment.header[3]]);
        let priority = match (self.tails, transmit.kind) {
            (Some(tails), Kind::Data) => urgent(tails, transmit.message_len - transmit.offset, transmit.priority.get()),
            _ => transmit.priority.get(),
        };
        self.port.send(Packet {
            from,
            to,
            frame: frame_bytes(self.headers.unwrap_or((header_len + IP_HEADER) as u32) + transmit.gathered as u32),
            priority,
            ecn: Ecn::NotCapable,
            flow: u64::from(from.0) << 48 ^ u64::from(to.0) << 32 ^ u64::from(ports),
            arrived: Time::ZERO,
            segment,
        });
        self.sent += 1;
        note_sent(transmit, trace);
    }
}

/// The level of a data packet that was to go at `level`, with `left` bytes of its message from it on.
fn urgent((bytes, cutoffs): &(u32, [u32; 8]), left: u32, level: u8) -> u8 {
    let whole = cutoffs.iter().rposition(|longest| *longest >= left).unwrap_or(0) as u8;
    if left <= *bytes { level.max(whole) } else { level }
}

/// The events that a device's `send` makes.
fn note_sent(transmit: &Transmit, trace: &mut Recorder) {
    let (peer, id, offset) = (transmit.peer_tag, transmit.id.get() as u32, transmit.offset);
    match transmit.kind {
        Kind::Data => trace.record(trace::Event::NicData { peer, id, offset, queue: 0 }),
        Kind::Grant => trace.record(trace::Event::NicGrant { peer, id, offset, queue: 0 }),
        _ => {}
    }
}

impl Device for Nic<'_> {
    fn fetch(&mut self, most: usize) -> usize {
        let (Scratch { received, held, .. }, arrivals) = (&mut *self.scratch, &mut *self.arrivals);
        while held.len() < most.min(BATCH) {
            let Some(packet) = self.port.receive() else { break };
            let Segment { header, header_len, data_len } = &packet.segment;
            let header_len = usize::from(*header_len);
            received[held.len()][..HEADER].copy_from_slice(header);
            let wait = Nanos::from_nanos((self.now - packet.arrived).as_nanos());
            if arrivals.most > 0 {
                let (seen, core) = self.port.seen();
                if arrivals.seen.len() == arrivals.most {
                    arrivals.seen.pop_front();
                }
                arrivals.seen.push_back((seen, seen - packet.arrived, core));
            }
            held.push((packet.from, packet.priority, header_len + usize::from(*data_len), wait));
        }
        held.len()
    }

    fn packet(&self, i: usize) -> Result<Rx<'_>, DropReason> {
        let (from, priority, len, wait) = self.scratch.held[i];
        let bytes = &self.scratch.received[i][..len];
        Ok(Rx { from: address(from), priority, content: Content::Homa, bytes, wait: Some(wait) })
    }

    fn release(&mut self) {
        self.scratch.held.clear();
    }

    fn tx_slot(&mut self) -> Option<&mut [u8]> {
        self.port.room().then_some(&mut self.scratch.slot[..])
    }

    fn commit(&mut self, transmit: &Transmit, trace: &mut Recorder, _: &mut Metrics) {
        self.send(transmit, trace);
    }

    fn most_copied(&self) -> usize {
        0
    }

    fn commit_gathered(&mut self, transmit: &Transmit, _: [&[u8]; 2], trace: &mut Recorder, _: &mut Metrics) {
        self.send(transmit, trace);
    }
}

#[cfg(test)]
mod tests {
    use super::urgent;

    #[test]
    fn tails_go_at_the_level_of_messages_as_short_as_they_are() {
        let tails = (5_000, [u32::MAX, 0, 0, 0, u32::MAX, 9_000, 2_000, 300]);
        for (left, level, expected) in
            [(300, 0, 7), (301, 0, 6), (2_001, 0, 5), (5_000, 3, 5), (5_001, 3, 3), (100_000, 4, 4), (2_001, 6, 6)]
        {
            assert_eq!(urgent(&tails, left, level), expected, "{left} bytes left, level {level}");
        }
    }
}
