//! An endpoint that hears anything from anyone, with an application that calls, answers and keeps messages at will.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

use super::Input;
use crate::proto::{Announce, Config, Endpoint, Event, Message, Payload, SendError, ServerRpc};
use crate::units::{Instant, Nanos, RpcId};
use crate::wire::icmp::{Cause, MAX_REFUSAL, write_error};
use crate::wire::{
    Ack, AckRecord, Cutoffs, Data, Ends, Grant, Kind, MAX_MESSAGE_LEN, OffsetForm, Resend, advance_sequence, write_bare,
};

static ZEROS: [u8; MAX_MESSAGE_LEN] = [0; MAX_MESSAGE_LEN];

/// Time in which all is forgotten, with ticks of a millisecond: more of them than any RPC lives through.
const LAST_TIME: Nanos = Nanos::from_secs(5);

struct Fuzzed {
    core: Endpoint,
    now: Instant,
    port: u16,
    calls: Vec<RpcId>,
    tokens: VecDeque<ServerRpc>,
    held: Vec<Message>,
}

/// Packets from three hosts, calls, answers, time: invariants hold after each, and nothing is left in the end.
pub fn endpoint(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut fuzzed = Fuzzed::new(&mut input);
    while !input.is_empty() {
        fuzzed.step(&mut input);
        fuzzed.core.check_invariants(fuzzed.held.iter()).unwrap();
    }
    fuzzed.settle();
}

impl Fuzzed {
    fn new(input: &mut Input<'_>) -> Self {
        let mut core = Endpoint::new(Config {
            unsched_bytes: input.length(40_000),
            announce: [Announce::Never, Announce::Early, Announce::Scheduled][input.below(3)],
            max_incoming: 1 + input.length(100_000),
            max_overcommit: input.below(10),
            window: input.length(20_000),
            num_priorities: input.u8() % 9,
            max_sched_priority: input.u8() % 9,
            grant_fifo_fraction: 50 * u32::from(input.u8() % 2),
            resend_ticks: u32::from(input.u8() % 4),
            resend_interval: u32::from(input.u8() % 4),
            timeout_ticks: 1 + u32::from(input.u8() % 16),
            request_ack_ticks: u32::from(input.u8() % 4),
            pool_pages: 1 + input.below(20),
            tombstone_time: Nanos::from_millis(20),
            tombstone_chunks: input.below(4),
            incast_bytes: input.length(100_000),
            max_peers: 1 + input.below(4),
            max_control: 1 + input.below(100),
            max_unread: 1 + input.below(20),
            unread_ticks: u32::from(input.u8() % 8),
            service_ticks: u32::from(input.u8() % 8),
            evict_ticks: u32::from(input.u8() % 8),
            max_peer_rpcs: 1 + input.below(20),
            max_server_rpcs: 1 + input.below(20),
            pacing: input.u8() % 2 == 1,
            tx_budget: [1 << 20, 100_000_000][input.below(2)],
            max_outstanding: 1 + input.below(40),
            mtu: 500 + input.below(1_100),
            ..Config::default()
        });
        core.bind(1).expect("a free port");
        let port = core.client_port().expect("a free port");
        let now = Instant::from_nanos(1);
        Self { core, now, port, calls: Vec::new(), tokens: VecDeque::new(), held: Vec::new() }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 16 {
            0..=6 => self.packet(input),
            7 => {
                let (from, n) = (host(input.u8()), input.below(100));
                self.core.handle_packet(self.now, from, input.bytes(n));
            }
            8 => {
                let (to, len) = (SocketAddr::new(host(input.u8()), 1), input.length(MAX_MESSAGE_LEN));
                let call = self.core.call(self.now, self.port, to, zeros(len), 0);
                let refused = matches!(call, Err(SendError::WouldBlock(_)));
                assert_eq!(call.is_ok(), len > 0 && !refused);
                self.calls.extend(call);
            }
            9 => {
                let len = input.length(MAX_MESSAGE_LEN);
                if let Some(token) = self.tokens.pop_front() {
                    // Of length 0: the request is given up.
                    _ = self.core.reply(self.now, token, zeros(len));
                }
            }
            10 => {
                self.now = self.now + Nanos::from_micros(u64::from(input.u16()));
                self.core.handle_timeout(self.now);
            }
            11 | 12 => _ = self.transmit(1 + input.below(64)),
            13 => self.take_events(),
            14 => {
                if !self.held.is_empty() {
                    let msg = self.held.swap_remove(input.below(self.held.len()));
                    self.core.release(msg);
                }
            }
            _ => self.rare(input),
        }
    }

    fn rare(&mut self, input: &mut Input<'_>) {
        match input.u8() % 6 {
            3..=5 => self.icmp(input),
            0 => {
                if let Some(token) = self.tokens.pop_back() {
                    self.core.discard(token);
                }
            }
            1 => {
                if !self.calls.is_empty() {
                    self.core.abort(self.calls[input.below(self.calls.len())]);
                }
            }
            _ => {
                self.core.unbind(1);
                self.core.bind(1).expect("a port that was given up");
            }
        }
    }

    /// An ICMP error about a packet that may have been sent, or noise.
    fn icmp(&mut self, input: &mut Input<'_>) {
        let peer = host(input.u8()).to_canonical();
        let us = if peer.is_ipv4() { Ipv4Addr::new(10, 0, 0, 1).into() } else { Ipv6Addr::LOCALHOST.into() };
        let id = self.calls.last().map_or(2, |id| id.get()) ^ u64::from(input.u8() & 1);
        let sport = if id & 1 == 0 { self.port } else { 1 };
        let mut packet = [0; 28];
        write_bare(Kind::ALL[input.below(9)], Ends { sport, dport: 1, sender_id: id }, &mut packet);
        advance_sequence(&mut packet, input.length(MAX_MESSAGE_LEN) as u32);
        let cause = match input.u8() % 4 {
            0 => Cause::PortUnreachable,
            1 => Cause::ProtocolUnreachable,
            2 => Cause::HostUnreachable,
            _ => Cause::TooBig { mtu: input.u16().into() },
        };
        let mut out = [0; MAX_REFUSAL];
        let len = write_error(cause, peer, peer, us, &packet, packet.len(), &mut out);
        if input.u8().is_multiple_of(4) {
            out[input.below(len)] ^= input.u8();
        }
        self.core.handle_icmp(self.now, peer, us, &out[..input.below(256).max(8).min(len)]);
        while self.core.poll_refusal().is_some() {}
    }

    /// A packet that can be read, more often than not about an RPC that there is or was.
    fn packet(&mut self, input: &mut Input<'_>) {
        let from = host(input.u8());
        let id = match (input.u8() % 8, self.calls.last()) {
            (0..=3, Some(id)) => id.get() ^ 1,
            (7, _) => u64::from(input.u32()),
            _ => 2 * (1 + input.below(8) as u64),
        };
        let dport = if id & 1 == 1 { self.port } else { 1 };
        let ends = Ends { sport: 1, dport, sender_id: id };
        let mut out = [0; 2_100];
        let len = match Kind::ALL[input.below(16).min(8)] {
            Kind::Grant => {
                let grant = Grant { offset: input.length(MAX_MESSAGE_LEN + 9) as u32, priority: input.u8() };
                grant.write(ends, &mut out)
            }
            Kind::Resend => {
                let (offset, length) = (input.length(MAX_MESSAGE_LEN) as u32, input.length(MAX_MESSAGE_LEN + 9) as u32);
                let length = if length > MAX_MESSAGE_LEN as u32 { u32::MAX } else { length };
                Resend { offset, length, priority: input.u8() }.write(ends, &mut out)
            }
            Kind::Cutoffs => {
                let table = std::array::from_fn(|_| input.u32());
                Cutoffs { table, version: input.u16() }.write(ends, &mut out)
            }
            Kind::Ack => Ack::new(&[record(input), record(input)]).write(ends, &mut out),
            kind @ (Kind::RpcUnknown | Kind::Busy | Kind::Freeze | Kind::NeedAck) => write_bare(kind, ends, &mut out),
            Kind::Data => {
                let message_len = input.length(MAX_MESSAGE_LEN) as u32;
                let offset = input.length(message_len as usize) as u32;
                let n = input.length(2_000).min((message_len - offset) as usize);
                let data = Data {
                    message_len,
                    incoming: input.length(MAX_MESSAGE_LEN + 9) as u32,
                    ack: input.u8().is_multiple_of(4).then(|| record(input)),
                    cutoff_version: u16::from(input.u8() % 3),
                    retransmit: input.u8() % 2 == 1,
                    offset,
                    form: OffsetForm::Both,
                    bytes: &[],
                };
                data.write_header(ends, &mut out) + n
            }
        };
        self.core.handle_packet(self.now, from, &out[..len]);
    }

    fn transmit(&mut self, most: usize) -> usize {
        let mut out = [0; 1_700];
        (0..most).take_while(|_| self.core.poll_transmit(self.now, &mut out).is_some()).count()
    }

    fn take_events(&mut self) {
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::Request { rpc, msg, .. } => {
                    self.tokens.push_back(rpc);
                    self.held.push(msg);
                }
                Event::Response { msg, .. } => self.held.push(msg),
                Event::Failed { .. } | Event::Room(_) => {}
            }
        }
    }

    /// The application gives up all it has; after some silence nothing is left.
    fn settle(&mut self) {
        let end = self.now + LAST_TIME;
        while self.now < end {
            self.take_events();
            self.tokens.drain(..).for_each(|token| self.core.discard(token));
            self.held.drain(..).for_each(|msg| self.core.release(msg));
            while self.transmit(64) > 0 {}
            self.core.check_invariants(self.held.iter()).unwrap();
            let Some(next) = self.core.next_deadline() else { break };
            self.now = self.now.max(next);
            self.core.handle_timeout(self.now);
        }
        let sizes = self.core.sizes();
        assert!(
            self.core.is_quiet() && sizes.tombstones == 0,
            "not quiet: {sizes:?}\n{:?}\n{:?}",
            self.core.rpcs,
            self.core.config
        );
    }
}

fn record(input: &mut Input<'_>) -> AckRecord {
    AckRecord { client_id: 2 * (1 + input.below(8) as u64), server_port: 1 }
}

/// One of three hosts.
fn host(n: u8) -> IpAddr {
    match n % 3 {
        0 => Ipv4Addr::new(10, 0, 0, 2).into(),
        1 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3).into(),
        _ => Ipv4Addr::new(10, 0, 0, 4).to_ipv6_mapped().into(),
    }
}

fn zeros(len: usize) -> Payload {
    Payload::from(Bytes::from_static(&ZEROS[..len]))
}
