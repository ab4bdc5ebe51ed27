//! TCP as Linux has it: cubic, Reno and DCTCP, with selective acknowledgements.
//!
//! | module | holds | after |
//! | --- | --- | --- |
//! | `sender` | windows, recovery, probes, time-outs | RFC 5681, 6298, 6675, 8985, 9937 |
//! | `scoreboard` | what has arrived, what is lost | RFC 2018, 8985 |
//! | `window`, `cubic`, `dctcp` | congestion control | RFC 5681, 9438, 8257 |
//! | `reassembly`, `acks` | the receiver: ranges, delayed acknowledgements, echo of marks | RFC 1122, 2018, 2883, 3168, 8257 |
//! | `offload` | segments that leave or come as one | Linux |
//! | `queue` | the host's queue in front of the card, TCP small queues | RFC 8290, Linux |
//! | `connection`, `streams` | both directions, messages of cp-node in them | |
//!
//! There is a connection for each client port, server host and server port, as in cp-node; it exists from the first
//! call on, without a handshake. Messages follow each other in its two streams, each with its 12-byte header, so a
//! short one waits behind a long one. Nagle's algorithm is off. Data are cut into segments of [`TcpConfig::mss`] when
//! they are sent; offloading shows as bursts of senders, as turns of [`TcpConfig::quantum`] bytes at the host's queue,
//! and as one acknowledgement for segments that a host hands over at once.
//!
//! What Linux does and this does not: undoing reductions that were needless, pacing, CoDel's drops in the host, tuning
//! of buffers (the windows of the receivers are what tuning arrives at), compression of acknowledgements, corking of
//! small writes while others wait for the card.

mod acks;
mod config;
mod connection;
mod counters;
mod cubic;
mod dctcp;
mod offload;
mod queue;
mod reassembly;
mod rtt;
mod scoreboard;
mod segment;
mod sender;
mod streams;
mod window;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rustc_hash::FxHashMap;
use slab::Slab;

pub use config::{Congestion, TcpConfig};
use connection::{Connection, HEADER};
pub use counters::Counters;
use queue::{CAPABLE, SELECTIVE, TransmitQueue, Waiting};
pub use segment::{SackBlock, Segment};
use streams::{Message, Streams};

use crate::packet::{Ecn, HostId, Packet};
use crate::port::Port;
use crate::time::Time;
use crate::transport::{Call, Event, Request, Transport};

/// A host's TCP.
#[derive(Debug)]
pub struct Tcp {
    host: HostId,
    config: TcpConfig,
    streams: Streams,
    connections: Vec<Connection>,
    /// Connections whose client is here, by server, client port and server port.
    by_ports: FxHashMap<(u32, u16, u16), u32>,
    /// Requests without an answer: connection and cookie.
    requests: Slab<(u32, u64)>,
    /// Connections that may have something to send.
    ready: VecDeque<u32>,
    queue: TransmitQueue,
    /// Times at which connections are to be looked at; those that are not [`Connection::armed`] any more are void.
    timers: BinaryHeap<Reverse<(Time, u32)>>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Tcp {
    /// The transports of `count` hosts that talk to each other.
    pub fn hosts(count: u32, config: &TcpConfig) -> Vec<Self> {
        (0..count).map(HostId).map(Self::maker(config)).collect()
    }

    /// Makes the transports of hosts that talk to each other.
    pub fn maker(config: &TcpConfig) -> impl Fn(HostId) -> Self + use<> {
        let (config, streams) = (config.clone(), Streams::default());
        move |host| Self::new(host, config.clone(), streams.clone())
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Congestion windows of the connections with data under way or not, in segments, in the order in which the
    /// connections were opened.
    pub fn windows(&self) -> impl Iterator<Item = f64> {
        self.connections.iter().map(|c| c.sender.window.exact())
    }

    /// Connections with data under way: the host they go to, and how many segments.
    pub fn under_way(&self) -> impl Iterator<Item = (HostId, u32)> + '_ {
        self.connections.iter().map(|c| (c.end.peer, c.sender.in_flight())).filter(|(_, segments)| *segments > 0)
    }

    /// DCTCP's share of marked bytes on each connection, in the same order; nothing with other congestion control.
    pub fn alphas(&self) -> impl Iterator<Item = f64> {
        self.connections.iter().filter_map(|c| c.sender.window.alpha())
    }

    fn new(host: HostId, config: TcpConfig, streams: Streams) -> Self {
        let queue = TransmitQueue::new(config.quantum, config.fair_queue);
        Self {
            host,
            config,
            streams,
            connections: Vec::new(),
            by_ports: FxHashMap::default(),
            requests: Slab::new(),
            ready: VecDeque::new(),
            queue,
            timers: BinaryHeap::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Connections up to the `number`th, those included that others have opened; false if there is none.
    fn knows(&mut self, number: u32) -> bool {
        while self.connections.len() <= number as usize {
            let Some(end) = self.streams.end(self.host, self.connections.len() as u32) else { return false };
            self.connections.push(Connection::new(self.host, end, &self.config));
            self.counters.connections += 1;
        }
        true
    }

    /// Writes a message to a connection.
    fn write(&mut self, number: u32, message: Message) {
        let c = &mut self.connections[number as usize];
        self.streams.write(c.end.writes, message);
        c.sender.write(message.len.max(HEADER));
        self.list(number);
    }

    /// Has a connection looked at for something to send.
    fn list(&mut self, number: u32) {
        let c = &mut self.connections[number as usize];
        if !std::mem::replace(&mut c.listed, true) {
            self.ready.push_back(number);
        }
    }

    fn receive(&mut self, now: Time, packet: &Packet<Segment>, port: &mut Port<Segment>) {
        let segment = &packet.segment;
        let number = segment.connection;
        if !self.knows(number) {
            return;
        }
        let c = &mut self.connections[number as usize];
        c.sender.acknowledge(now, segment, &self.config, &mut self.counters);
        if segment.len > 0 {
            let more = c.merged.take(segment, packet.ecn, self.config.merge);
            if c.owes_ack && !more {
                self.acknowledge(number, now, port);
            }
            let c = &mut self.connections[number as usize];
            let (due, previous) = c.take_data(now, segment, packet.ecn, &self.config, &mut self.counters);
            if due.previous {
                self.send_ack(number, previous, now, port);
            }
            self.read(number);
            let c = &mut self.connections[number as usize];
            c.owes_ack |= due.now;
            if c.owes_ack && self.config.merge == 0 {
                self.acknowledge(number, now, port);
            }
        } else {
            c.merged.close();
        }
        self.list(number);
    }

    /// Tells the application of the messages that are whole.
    fn read(&mut self, number: u32) {
        let c = &mut self.connections[number as usize];
        while let Some(Message { len, cookie }) = c.read(&self.streams) {
            self.events.push_back(if c.end.is_client {
                Event::Response { cookie, len }
            } else {
                let request = Request::new(self.requests.insert((number, cookie)) as u64);
                Event::Request { request, from: c.end.peer, call: cookie, server_port: c.end.server_port, len }
            });
        }
    }

    /// Sends what a connection may send, and an acknowledgement if it owes one.
    fn push(&mut self, number: u32, now: Time, port: &mut Port<Segment>) {
        let mut count = 0;
        loop {
            let c = &mut self.connections[number as usize];
            if c.queued >= self.config.small_queue {
                c.throttled = true;
                self.counters.throttled += 1;
                break;
            }
            let Some((segment, resent)) = c.poll(now, &self.config, &mut self.counters) else { break };
            count += 1;
            self.send(number, segment, resent, port);
        }
        let c = &mut self.connections[number as usize];
        c.listed = false;
        c.merged.close();
        c.sender.sent(now, count, &self.config);
        if c.owes_ack {
            self.acknowledge(number, now, port);
        }
        self.arm(number);
    }

    /// Sends an acknowledgement without data.
    fn acknowledge(&mut self, number: u32, now: Time, port: &mut Port<Segment>) {
        let segment = self.connections[number as usize].ack_fields();
        self.send_ack(number, segment, now, port);
    }

    fn send_ack(&mut self, number: u32, segment: Segment, now: Time, port: &mut Port<Segment>) {
        let c = &mut self.connections[number as usize];
        c.ack_sent(now, &self.config);
        self.counters.pure_acks += 1;
        self.send(number, segment, false, port);
    }

    /// Gives a segment to the card, or to the queue in front of it.
    fn send(&mut self, number: u32, segment: Segment, resent: bool, port: &mut Port<Segment>) {
        let c = &mut self.connections[number as usize];
        let capable = match self.config.congestion {
            Congestion::Dctcp => true,
            _ => self.config.ecn && segment.len > 0 && !resent,
        };
        let frame = segment.frame();
        if self.queue.is_empty() && port.room() {
            let packet = packet(self.host, &self.config, c, segment, frame, capable);
            port.send(packet);
        } else {
            let Segment { seq, ack, len, flags, blocks, .. } = segment;
            c.queued += frame;
            self.counters.queued += 1;
            let bits = if blocks > 0 { SELECTIVE } else { 0 } | if capable { CAPABLE } else { 0 };
            self.queue.push(number, Waiting { seq, ack, frame, len, flags, bits });
        }
    }

    /// Moves packets from the queue to the card while that has room.
    fn drain(&mut self, port: &mut Port<Segment>) {
        while !self.queue.is_empty() && port.room() {
            let (number, waiting) = self.queue.pop().expect("it is not empty");
            let c = &mut self.connections[number as usize];
            c.queued -= waiting.frame;
            let segment = c.leaving(&waiting);
            port.send(packet(self.host, &self.config, c, segment, segment.frame(), waiting.bits & CAPABLE != 0));
            if c.throttled && c.queued < self.config.small_queue {
                c.throttled = false;
                self.list(number);
            }
        }
    }

    fn run_timers(&mut self, now: Time) {
        while let Some(&Reverse((at, number))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            let c = &mut self.connections[number as usize];
            if c.armed != at {
                continue;
            }
            c.armed = Time::NEVER;
            c.sender.handle_timer(now, &self.config, &mut self.counters);
            c.owes_ack |= c.must_ack(now);
            self.list(number);
        }
    }

    /// Sees to it that a connection is looked at in time. Timers that move back are found too early, and then armed
    /// anew: most move with each acknowledgement and never fire.
    fn arm(&mut self, number: u32) {
        let c = &mut self.connections[number as usize];
        let at = c.deadline();
        if at < c.armed {
            c.armed = at;
            self.timers.push(Reverse((at, number)));
        }
    }
}

/// The packet of a segment that a connection sends.
fn packet(
    host: HostId,
    config: &TcpConfig,
    c: &Connection,
    segment: Segment,
    frame: u32,
    capable: bool,
) -> Packet<Segment> {
    Packet {
        from: host,
        to: c.end.peer,
        frame,
        priority: config.priority,
        ecn: if capable { Ecn::Capable } else { Ecn::NotCapable },
        flow: c.flow,
        arrived: Time::ZERO,
        segment,
    }
}

impl Transport for Tcp {
    type Segment = Segment;

    fn call(&mut self, _: Time, call: Call) {
        let key = (call.to.0, call.client_port, call.server_port);
        let number = match self.by_ports.get(&key) {
            Some(number) => *number,
            None => {
                let number = self.streams.open(self.host, call.to, call.client_port, call.server_port);
                self.by_ports.insert(key, number);
                number
            }
        };
        if self.knows(number) {
            self.write(number, Message { len: call.len, cookie: call.cookie });
        }
    }

    fn reply(&mut self, _: Time, request: Request, len: u32) {
        if let Some((number, cookie)) = self.requests.try_remove(request.key() as usize) {
            self.write(number, Message { len, cookie });
        }
    }

    fn discard(&mut self, _: Time, request: Request) {
        self.requests.try_remove(request.key() as usize);
    }

    fn forget(&mut self, _: Time, call: u64) {
        self.events.push_back(Event::Response { cookie: call, len: 0 });
    }

    fn turn(&mut self, now: Time, port: &mut Port<Segment>) {
        while let Some(packet) = port.receive() {
            self.receive(now, &packet, port);
        }
        self.run_timers(now);
        loop {
            while let Some(number) = self.ready.pop_front() {
                self.push(number, now, port);
            }
            self.drain(port);
            if self.ready.is_empty() {
                break;
            }
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn metrics(&self) -> Vec<(&'static str, u64)> {
        self.counters.named()
    }
}
