//! A network in virtual time for tests of the core: hosts with echo servers, and a fate for each packet.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use homa_stack::wire::{Ends, Kind, Packet};
use homa_stack::{Config, Endpoint, Event, Instant, Limit, Nanos, Payload, RpcError, SendError, ServerRpc};

pub const PORT: u16 = 99;
/// One way from host to host.
pub const DELAY: Nanos = Nanos::from_micros(10);

/// A packet on its way, as its fate sees it.
pub struct Sent<'a> {
    /// How many were sent before, in the whole run.
    pub serial: usize,
    pub from: usize,
    pub to: usize,
    pub kind: Kind,
    pub packet: &'a Packet<'a>,
    pub ends: Ends,
    pub priority: u8,
    pub at: Instant,
}

/// Extra delays of the copies that arrive: none for a lost packet.
pub type Fate = Box<dyn FnMut(&Sent<'_>) -> Vec<Nanos>>;

/// When, serial number, from, to, bytes.
type Arrival = (Instant, usize, usize, usize, Vec<u8>);

pub struct Net {
    pub hosts: Vec<Endpoint>,
    pub now: Instant,
    pub fate: Fate,
    /// Time that each server takes.
    pub service: Nanos,
    /// Length of a response, or as the request.
    pub response_len: Option<usize>,
    /// False for hosts that neither receive nor send.
    pub alive: Vec<bool>,
    /// How often each request ran: by (client's request number).
    pub runs: BTreeMap<u64, usize>,
    /// How often each call was answered, by request number.
    pub done: BTreeMap<u64, usize>,
    pub failed: BTreeMap<u64, RpcError>,
    /// When each call was made, and when it was answered first.
    pub called_at: BTreeMap<u64, Instant>,
    pub done_at: BTreeMap<u64, Instant>,
    pub packets: BTreeMap<&'static str, usize>,
    /// (kind, from, time, offset of RESENDs) of all packets sent.
    pub log: Vec<(Kind, usize, Instant, u8)>,
    in_flight: BinaryHeap<Reverse<Arrival>>,
    in_service: BinaryHeap<Reverse<(Instant, usize)>>,
    tokens: BTreeMap<usize, (usize, ServerRpc, Vec<u8>)>,
    ports: Vec<u16>,
    next_request: u64,
    serial: usize,
    /// Messages are kept, not released, while true.
    pub hold_messages: bool,
    held: Vec<(usize, homa_stack::Message)>,
    /// Hosts that were told that there is room again, and for what.
    pub room: Vec<(usize, Limit)>,
}

pub fn addr(host: usize) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0001 + host as u32).into()
}

/// A message that names its request and can be checked.
pub fn message(request: u64, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|i| (i as u64 * 131 + request * 17 + (i as u64 >> 9)) as u8).collect();
    let n = len.min(8);
    bytes[..n].copy_from_slice(&request.to_le_bytes()[..n]);
    bytes
}

impl Net {
    pub fn new(hosts: usize, config: &Config) -> Self {
        Self::with(vec![config.clone(); hosts])
    }

    pub fn with(configs: Vec<Config>) -> Self {
        let mut hosts: Vec<_> = configs.into_iter().map(Endpoint::new).collect();
        for host in &mut hosts {
            host.bind(PORT).unwrap();
        }
        let ports = hosts.iter_mut().map(|host| host.client_port().unwrap()).collect();
        Self {
            alive: vec![true; hosts.len()],
            hosts,
            now: Instant::from_nanos(1_000_000),
            fate: Box::new(|_| vec![Nanos::ZERO]),
            service: Nanos::ZERO,
            response_len: None,
            runs: BTreeMap::new(),
            done: BTreeMap::new(),
            failed: BTreeMap::new(),
            called_at: BTreeMap::new(),
            done_at: BTreeMap::new(),
            packets: BTreeMap::new(),
            log: Vec::new(),
            in_flight: BinaryHeap::new(),
            in_service: BinaryHeap::new(),
            tokens: BTreeMap::new(),
            ports,
            next_request: 0,
            serial: 0,
            hold_messages: false,
            held: Vec::new(),
            room: Vec::new(),
        }
    }

    /// Sends a request; returns its number.
    pub fn call(&mut self, from: usize, to: usize, len: usize) -> u64 {
        self.try_call(from, to, len).unwrap()
    }

    /// Sends a request, if it is not refused; returns its number.
    pub fn try_call(&mut self, from: usize, to: usize, len: usize) -> Result<u64, SendError> {
        self.next_request += 1;
        self.called_at.insert(self.next_request, self.now);
        let payload = Payload::from(message(self.next_request, len));
        let to = SocketAddr::new(addr(to), PORT);
        self.hosts[from].call(self.now, self.ports[from], to, payload, self.next_request)?;
        Ok(self.next_request)
    }

    /// Runs until nothing is due any more, or `end`.
    pub fn run_until(&mut self, end: Instant) {
        loop {
            for host in 0..self.hosts.len() {
                self.work(host);
            }
            let arrival = self.in_flight.peek().map(|Reverse(p)| p.0);
            let service = self.in_service.peek().map(|Reverse(s)| s.0);
            let timers = (0..self.hosts.len()).filter(|h| self.alive[*h]).filter_map(|h| self.hosts[h].next_deadline());
            let Some(next) = timers.chain(arrival).chain(service).min() else { return };
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            while self.in_flight.peek().is_some_and(|Reverse(p)| p.0 <= self.now) {
                let Reverse((_, _, from, to, bytes)) = self.in_flight.pop().unwrap();
                if self.alive[to] {
                    self.hosts[to].handle_packet(self.now, addr(from), &bytes);
                }
            }
            while self.in_service.peek().is_some_and(|Reverse(s)| s.0 <= self.now) {
                let Reverse((_, serial)) = self.in_service.pop().unwrap();
                let (host, rpc, response) = self.tokens.remove(&serial).unwrap();
                self.hosts[host].reply(self.now, rpc, Payload::from(response)).unwrap();
            }
        }
    }

    pub fn run_for(&mut self, span: Nanos) {
        self.run_until(self.now + span);
    }

    fn work(&mut self, host: usize) {
        if !self.alive[host] {
            return;
        }
        if self.hosts[host].next_deadline().is_some_and(|at| at <= self.now) {
            self.hosts[host].handle_timeout(self.now);
        }
        while let Some(event) = self.hosts[host].poll_event() {
            self.event(host, event);
        }
        let mut out = vec![0; 10_000];
        while let Some(sent) = self.hosts[host].poll_transmit(self.now, &mut out) {
            let IpAddr::V4(to) = sent.to else { panic!("IPv4 only") };
            let to_host = (to.to_bits() - 0x0a00_0001) as usize;
            let (ends, packet) = Packet::parse(&out[..sent.len]).expect("what we send can be read");
            *self.packets.entry(sent.kind.name()).or_default() += 1;
            let priority = match &packet {
                Packet::Resend(resend) => resend.priority,
                Packet::Grant(grant) => grant.priority,
                _ => sent.priority.get(),
            };
            self.log.push((sent.kind, host, self.now, priority));
            let info = Sent {
                serial: self.serial,
                from: host,
                to: to_host,
                kind: sent.kind,
                packet: &packet,
                ends,
                priority: sent.priority.get(),
                at: self.now,
            };
            for extra in (self.fate)(&info) {
                let at = self.now + DELAY + extra;
                self.in_flight.push(Reverse((at, self.serial, host, to_host, out[..sent.len].to_vec())));
            }
            self.serial += 1;
        }
    }

    fn event(&mut self, host: usize, event: Event) {
        match event {
            Event::Request { rpc, msg, .. } => {
                let bytes = self.hosts[host].pieces(&msg).collect::<Vec<_>>().concat();
                let request = request_number(&bytes);
                assert!(bytes == message(request, bytes.len()), "request {request} is damaged");
                *self.runs.entry(request).or_default() += 1;
                let response = message(request, self.response_len.unwrap_or(bytes.len()));
                self.keep_or_release(host, msg);
                self.serial += 1;
                self.tokens.insert(self.serial, (host, rpc, response));
                self.in_service.push(Reverse((self.now + self.service, self.serial)));
            }
            Event::Response { cookie, msg, .. } => {
                let bytes = self.hosts[host].pieces(&msg).collect::<Vec<_>>().concat();
                assert!(bytes == message(cookie, bytes.len()), "response {cookie} is damaged");
                *self.done.entry(cookie).or_default() += 1;
                self.done_at.entry(cookie).or_insert(self.now);
                self.keep_or_release(host, msg);
            }
            Event::Failed { cookie, error, .. } => {
                assert!(self.failed.insert(cookie, error).is_none(), "request {cookie} failed twice");
            }
            Event::Room(limit) => self.room.push((host, limit)),
        }
    }

    fn keep_or_release(&mut self, host: usize, msg: homa_stack::Message) {
        if self.hold_messages {
            self.held.push((host, msg));
        } else {
            self.hosts[host].release(msg);
        }
    }

    pub fn release_held(&mut self) {
        for (host, msg) in std::mem::take(&mut self.held) {
            self.hosts[host].release(msg);
        }
    }

    /// How long a call took that was answered.
    pub fn took(&self, request: u64) -> Nanos {
        let done = self.done_at.get(&request).unwrap_or_else(|| panic!("request {request} was not answered"));
        done.since(self.called_at[&request])
    }

    pub fn count(&self, kind: Kind) -> usize {
        self.packets.get(kind.name()).copied().unwrap_or(0)
    }

    /// What must hold at the end of any run whose calls have all ended.
    pub fn assert_settled(&mut self, context: &str) {
        for (request, runs) in &self.runs {
            assert_eq!(*runs, 1, "request {request} ran {runs} times: {context}");
        }
        for (request, times) in &self.done {
            assert_eq!(*times, 1, "request {request} was answered {times} times: {context}");
            assert!(!self.failed.contains_key(request), "request {request} was answered and failed: {context}");
        }
        for (i, host) in self.hosts.iter().enumerate().filter(|(i, _)| self.alive[*i]) {
            assert!(host.is_quiet(), "host {i} is not quiet: {context}, {} RPCs left", host.active_rpcs());
        }
    }
}

/// The number in a request's first bytes; short requests hold its low bytes only.
fn request_number(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    let n = bytes.len().min(8);
    number[..n].copy_from_slice(&bytes[..n]);
    u64::from_le_bytes(number)
}

/// Links to the hosts, each with a queue in front of it, first come, first served.
pub struct Links {
    free_at: Vec<Instant>,
    /// Bytes in a nanosecond.
    rate: f64,
    /// Bytes that a queue holds.
    buffer: f64,
    pub dropped: usize,
    /// Longest queue met, bytes.
    pub longest: usize,
}

impl Links {
    pub fn new(hosts: usize, gbps: f64, buffer: usize) -> Self {
        let free_at = vec![Instant::default(); hosts];
        Self { free_at, rate: gbps / 8.0, buffer: buffer as f64, dropped: 0, longest: 0 }
    }

    /// How long a packet waits and takes for its receiver's link; nothing if the queue is full.
    pub fn pass(&mut self, sent: &Sent<'_>) -> Option<Nanos> {
        let bytes = match sent.packet {
            Packet::Data(data) => data.bytes.len() as f64 + 118.0,
            _ => 100.0,
        };
        let link = &mut self.free_at[sent.to];
        let waiting = link.since(sent.at).as_nanos() as f64 * self.rate;
        if waiting + bytes > self.buffer {
            self.dropped += 1;
            return None;
        }
        self.longest = self.longest.max((waiting + bytes) as usize);
        *link = (*link).max(sent.at) + Nanos::from_nanos((bytes / self.rate) as u64);
        Some(link.since(sent.at))
    }
}

/// A small generator for fates (xorshift64*).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn chance(&mut self, p: f64) -> bool {
        ((self.next() >> 11) as f64) < p * (1_u64 << 53) as f64
    }
}
