//! A star around a switch with one queue a host: the least that TCP can be held against its formulas on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use cp_node::rng::Rng;
use homa_sim::tcp::{Counters, Segment, Tcp, TcpConfig};
use homa_sim::{Call, Ecn, Event, HostId, Packet, Port, Request, Time, Transport};

/// What the network does to packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    /// Rate toward each host, in bits a nanosecond. The hosts themselves send at any rate.
    pub(crate) gbps: f64,
    /// From each host to any other, without queues and transmission.
    pub(crate) delay: Time,
    /// Bytes that a queue holds.
    pub(crate) buffer: u64,
    /// Bytes in a queue from which on packets are marked.
    pub(crate) mark: u64,
    /// Share of data segments that are lost.
    pub(crate) loss: f64,
}

impl Default for Path {
    fn default() -> Self {
        Self { gbps: 10.0, delay: Time::from_micros(10), buffer: u64::MAX, mark: u64::MAX, loss: 0.0 }
    }
}

/// A message that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) cookie: u64,
    pub(crate) len: u32,
    pub(crate) at: Time,
}

/// What the queue toward the first host was like, sampled by arrivals and weighted by time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Queue {
    pub(crate) mean: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// Chooses data segments.
type Choice = Box<dyn FnMut(Time, &Packet<Segment>) -> bool>;

/// Hosts and the network between them.
pub(crate) struct Net {
    pub(crate) now: Time,
    pub(crate) hosts: Vec<Tcp>,
    ports: Vec<Port<Segment>>,
    path: Path,
    /// When the queue toward each host will be empty.
    busy_until: Vec<Time>,
    events: BinaryHeap<Reverse<(Time, u64)>>,
    /// What the events are, by their numbers: a packet, or a turn of a host.
    what: Vec<Option<Result<Packet<Segment>, usize>>>,
    rng: Rng,
    /// Decides the fate of data segments instead of chance.
    pub(crate) lose: Option<Choice>,
    /// Decides which data segments are marked, beside the queue.
    pub(crate) mark: Option<Choice>,
    /// Requests that have come, by host; they wait until somebody answers.
    pub(crate) requests: Vec<(usize, Request, u32)>,
    pub(crate) echo: bool,
    /// Requests that came, and responses.
    pub(crate) received: Vec<Done>,
    pub(crate) done: Vec<Done>,
    pub(crate) dropped: u64,
    /// Time integral of the queue toward host 0, since when, and its extremes.
    queue: (f64, Time, Time, f64, f64),
}

impl Net {
    pub(crate) fn new(hosts: u32, config: &TcpConfig, path: Path, seed: u64) -> Self {
        let n = hosts as usize;
        Self {
            now: Time::ZERO,
            hosts: Tcp::hosts(hosts, config),
            ports: (0..hosts).map(|h| Port::new(HostId(h))).collect(),
            path,
            busy_until: vec![Time::ZERO; n],
            events: BinaryHeap::new(),
            what: Vec::new(),
            rng: Rng::streams(seed, None, 1).remove(0),
            lose: None,
            mark: None,
            requests: Vec::new(),
            echo: false,
            received: Vec::new(),
            done: Vec::new(),
            dropped: 0,
            queue: (0.0, Time::ZERO, Time::ZERO, f64::INFINITY, 0.0),
        }
    }

    /// A call from one host to another, on ports of their own.
    pub(crate) fn call(&mut self, from: usize, to: usize, cookie: u64, len: u32) {
        let (to, client_port, server_port) = (HostId(to as u32), 0, 0);
        self.hosts[from].call(self.now, Call { cookie, to, client_port, server_port, len });
        self.turn(from);
    }

    /// Has everything happen until `end`.
    pub(crate) fn run(&mut self, end: Time) {
        while let Some(&Reverse((at, number))) = self.events.peek()
            && at <= end
        {
            self.events.pop();
            self.now = at;
            match self.what[number as usize].take().expect("an event happens once") {
                Ok(packet) => {
                    let host = packet.to.index();
                    self.ports[host].deliver(packet);
                    self.turn(host);
                }
                Err(host) => {
                    if self.hosts[host].next_deadline().is_some_and(|at| at <= self.now) {
                        self.turn(host);
                    }
                }
            }
        }
        self.now = end;
    }

    /// Begins to look at the queue toward host 0.
    pub(crate) fn watch(&mut self) {
        self.queue = (0.0, self.now, self.now, f64::INFINITY, 0.0);
    }

    /// The queue toward host 0 since [`Self::watch`], in bytes.
    pub(crate) fn queue(&self) -> Queue {
        let (sum, start, last, least, most) = self.queue;
        Queue { mean: sum / (last - start).as_secs_f64(), least, most }
    }

    pub(crate) fn total(&self) -> Counters {
        let mut total = Counters::default();
        for c in self.hosts.iter().map(Tcp::counters) {
            total.data_segments += c.data_segments;
            total.data_bytes += c.data_bytes;
            total.resent += c.resent;
            total.resent_bytes += c.resent_bytes;
            total.pure_acks += c.pure_acks;
            total.duplicates += c.duplicates;
            total.recoveries += c.recoveries;
            total.timeouts += c.timeouts;
            total.probes += c.probes;
            total.reductions_by_mark += c.reductions_by_mark;
            total.marked += c.marked;
        }
        total
    }

    fn turn(&mut self, host: usize) {
        loop {
            self.hosts[host].turn(self.now, &mut self.ports[host]);
            let sent: Vec<_> = self.ports[host].sent().collect();
            sent.into_iter().for_each(|packet| self.send(packet));
            let mut again = false;
            while let Some(event) = self.hosts[host].poll_event() {
                match event {
                    Event::Request { request, len, call, .. } => {
                        self.received.push(Done { cookie: call, len, at: self.now });
                        if self.echo {
                            self.hosts[host].reply(self.now, request, len);
                            again = true;
                        } else {
                            self.requests.push((host, request, len));
                        }
                    }
                    Event::Response { cookie, len } => self.done.push(Done { cookie, len, at: self.now }),
                    Event::Failed { why, .. } => panic!("{why}"),
                }
            }
            if !again {
                break;
            }
        }
        if let Some(at) = self.hosts[host].next_deadline() {
            self.push(at.max(self.now), Err(host));
        }
    }

    fn send(&mut self, mut packet: Packet<Segment>) {
        let to = packet.to.index();
        if packet.segment.len > 0 {
            let lost = match &mut self.lose {
                Some(lose) => lose(self.now, &packet),
                None => self.path.loss > 0.0 && self.rng.fraction() < self.path.loss,
            };
            if lost {
                self.dropped += 1;
                return;
            }
        }
        let picos_per_byte = 8000.0 / self.path.gbps;
        let queued = (self.busy_until[to] - self.now).as_picos() as f64 / picos_per_byte;
        if queued + f64::from(packet.frame) > self.path.buffer as f64 {
            self.dropped += 1;
            return;
        }
        let full = queued >= self.path.mark as f64;
        let chosen = packet.segment.len > 0 && self.mark.as_mut().is_some_and(|mark| mark(self.now, &packet));
        if (full || chosen) && packet.ecn == Ecn::Capable {
            packet.ecn = Ecn::Experienced;
        }
        if to == 0 {
            let (sum, _, last, least, most) = &mut self.queue;
            // Between arrivals the queue runs down at the link's rate: integrate the triangle or trapezium.
            let span = (self.now - *last).as_secs_f64();
            let rate = self.path.gbps * 1e9 / 8.0;
            let before = queued + rate * span;
            *sum += if queued > 0.0 { (before + queued) / 2.0 * span } else { 0.0 };
            (*last, *least, *most) = (self.now, least.min(queued), most.max(queued));
        }
        let time = Time::from_picos((f64::from(packet.frame + 20) * picos_per_byte) as u64);
        self.busy_until[to] = self.busy_until[to].max(self.now) + time;
        let at = self.busy_until[to] + self.path.delay;
        self.push(at, Ok(packet));
    }

    fn push(&mut self, at: Time, what: Result<Packet<Segment>, usize>) {
        self.events.push(Reverse((at, self.what.len() as u64)));
        self.what.push(Some(what));
    }
}
