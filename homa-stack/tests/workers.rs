//! A host split over several endpoints: what comes to one and is for another, or for all.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use homa_stack::metrics::DropReason;
use homa_stack::proto::{Shard, Target};
use homa_stack::trace::{Clock, Recorder};
use homa_stack::wire::icmp::write_port_unreachable;
use homa_stack::wire::{Cutoffs, Ends, Kind, Packet, RESEND_ALL, Resend};
use homa_stack::{Config, Endpoint, Event, Instant, Nanos, Payload, RpcError};

const PORT: u16 = 99;
const US: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// A host of three endpoints, and one of a single one.
struct Pair {
    workers: Vec<Endpoint>,
    peer: Endpoint,
    now: Instant,
    /// What the host and its peer have sent.
    sent: Vec<(Kind, u64)>,
    peer_sent: Vec<(Kind, u64)>,
    /// The endpoint that all packets come to, if they are not steered.
    astray: Option<usize>,
    lose: fn(Kind) -> bool,
}

impl Pair {
    fn new() -> Self {
        let workers = (0..3).map(|i| {
            let mut core = Endpoint::new(Config { shard: Shard::new(i, 3).unwrap(), ..Config::default() });
            core.set_trace(Recorder::new(64, Clock::Manual, i as u16));
            core.trace.unfreeze();
            core.bind(PORT).unwrap();
            core
        });
        let mut peer = Endpoint::new(Config { first_id: 500, ..Config::default() });
        peer.bind(PORT).unwrap();
        let now = Instant::from_nanos(1_000_000);
        Self {
            workers: workers.collect(),
            peer,
            now,
            sent: Vec::new(),
            peer_sent: Vec::new(),
            astray: None,
            lose: |_| false,
        }
    }

    /// A packet comes to the host, as the kernel steers it.
    fn receive(&mut self, bytes: &[u8]) {
        let steered = match Shard::new(0, 3).unwrap().of_packet(bytes) {
            Target::One(worker) => worker as usize,
            Target::All => 1,
        };
        self.workers[self.astray.unwrap_or(steered)].handle_packet(self.now, PEER, bytes);
        self.hand_on();
    }

    fn hand_on(&mut self) {
        while let Some((from, forward)) =
            self.workers.iter_mut().enumerate().find_map(|(i, w)| Some((i, w.poll_forward()?)))
        {
            for (to, worker) in self.workers.iter_mut().enumerate() {
                if to != from && forward.to.includes(to as u32) {
                    worker.handle_forward(self.now, &forward);
                }
            }
        }
    }

    /// Exchanges packets until there are none; requests are answered with their own bytes. Returns how many calls were
    /// answered.
    fn exchange(&mut self) -> usize {
        let (mut out, mut answered, mut busy) = ([0; 1500], 0, true);
        while busy {
            busy = false;
            for i in 0..3 {
                answered += serve(&mut self.workers[i], self.now);
                while let Some(sent) = self.workers[i].poll_transmit(self.now, &mut out) {
                    busy = true;
                    self.sent.push((sent.kind, sent.id.get()));
                    self.peer.handle_packet(self.now, US, &out[..sent.len]);
                }
            }
            answered += serve(&mut self.peer, self.now);
            while let Some(sent) = self.peer.poll_transmit(self.now, &mut out) {
                busy = true;
                self.peer_sent.push((sent.kind, sent.id.get()));
                if !(self.lose)(sent.kind) {
                    self.receive(&out[..sent.len]);
                }
            }
        }
        answered
    }

    /// Lets time pass.
    fn run(&mut self, span: Nanos) -> usize {
        let (end, mut answered) = (self.now + span, 0);
        while self.now < end {
            self.now = self.now + Nanos::from_millis(1);
            self.workers.iter_mut().for_each(|worker| worker.handle_timeout(self.now));
            self.peer.handle_timeout(self.now);
            answered += self.exchange();
        }
        answered
    }

    fn call_from(&mut self, worker: usize, len: usize) -> u64 {
        let (now, core) = (self.now, &mut self.workers[worker]);
        let port = core.client_port().unwrap();
        core.call(now, port, SocketAddr::new(PEER, PORT), Payload::from(vec![7; len]), 0).unwrap().get()
    }

    fn calls_of_peer(&mut self, count: usize) {
        let port = self.peer.client_port().unwrap();
        for _ in 0..count {
            self.peer.call(self.now, port, SocketAddr::new(US, PORT), Payload::from(vec![7; 100]), 0).unwrap();
        }
    }

    /// A control packet of the peer's.
    fn packet(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        let mut bytes = [0; 100];
        let len = write(&mut bytes);
        self.receive(&bytes[..len]);
    }

    fn forwarded(&self) -> u64 {
        self.workers.iter().map(|w| w.metrics.shard_packets_forwarded).sum()
    }

    fn assert_quiet(&self) {
        for (i, worker) in self.workers.iter().enumerate() {
            assert!(worker.is_quiet(), "worker {i}: {:?}", worker.sizes());
            worker.check_invariants(std::iter::empty()).unwrap();
        }
    }
}

/// Answers what has come; returns how many calls were answered.
fn serve(core: &mut Endpoint, now: Instant) -> usize {
    let mut answered = 0;
    while let Some(event) = core.poll_event() {
        match event {
            Event::Request { rpc, msg, .. } => {
                let bytes = core.pieces(&msg).collect::<Vec<_>>().concat();
                core.release(msg);
                core.reply(now, rpc, Payload::from(bytes)).unwrap();
            }
            Event::Response { msg, .. } => {
                core.release(msg);
                answered += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    answered
}

fn ends(sender_id: u64) -> Ends {
    Ends { sport: 40_000, dport: PORT, sender_id }
}

#[test]
fn a_client_that_is_not_split_is_served_by_all_and_forgotten_without_questions() {
    let mut pair = Pair::new();
    let mut answered = 0;
    for _ in 0..10 {
        pair.calls_of_peer(6);
        answered += pair.exchange();
    }
    assert_eq!(answered, 60);
    let served: Vec<_> = pair.workers.iter().map(|w| w.metrics.requests_received).collect();
    assert_eq!(served, [20, 20, 20]);
    assert_eq!(pair.forwarded(), 1, "nothing but the CUTOFFS");
    // All but the last records have come along with other requests.
    let left: usize = pair.workers.iter().map(Endpoint::active_rpcs).sum();
    assert!(left <= 6, "{left} RPCs wait for their acknowledgement");
    pair.run(Nanos::from_millis(100));
    let questions = pair.sent.iter().filter(|(kind, _)| *kind == Kind::NeedAck).count();
    assert!(questions <= 6, "{questions} questions");
    pair.assert_quiet();
}

#[test]
fn a_host_works_while_all_its_packets_go_astray() {
    for worker in 0..3 {
        let mut pair = Pair::new();
        pair.astray = Some(worker);
        for from in 0..3 {
            pair.call_from(from, 100_000);
        }
        pair.calls_of_peer(9);
        assert_eq!(pair.exchange() + pair.run(Nanos::from_millis(300)), 12);
        assert!(pair.forwarded() > 20);
        let served: Vec<_> = pair.workers.iter().map(|w| w.metrics.requests_received).collect();
        assert_eq!(served, [3, 3, 3]);
        pair.assert_quiet();
    }
}

#[test]
fn questions_for_acknowledgements_come_to_the_worker_that_called() {
    let mut pair = Pair::new();
    for from in 0..3 {
        pair.call_from(from, 100);
    }
    pair.exchange();
    assert_eq!(pair.peer.active_rpcs(), 3, "no request has taken the acknowledgements along");
    pair.run(Nanos::from_millis(10));
    let asked: Vec<_> =
        pair.peer_sent.iter().filter(|(kind, _)| *kind == Kind::NeedAck).map(|(_, id)| id / 2 % 3).collect();
    assert_eq!(asked, [0, 1, 2], "one for each worker, and each answered");
    assert_eq!(pair.peer.active_rpcs(), 0);
    pair.assert_quiet();
}

#[test]
fn cutoffs_and_freeze_reach_all_workers() {
    let mut pair = Pair::new();
    (0..3).for_each(|from| _ = pair.call_from(from, 100));
    pair.exchange();
    let cutoffs =
        |pair: &Pair| -> u64 { pair.workers.iter().map(|w| w.metrics.packets_rcvd[Kind::Cutoffs.index()]).sum() };
    let before = cutoffs(&pair);
    // All messages at level 2.
    let table = [u32::MAX, 0, u32::MAX, 0, 0, 0, 0, 0];
    pair.packet(|out| Cutoffs { table, version: 77 }.write(ends(5), out));
    assert_eq!(cutoffs(&pair), before + 1, "counted where it came");
    let mut out = [0; 1500];
    for from in 0..3 {
        pair.call_from(from, 100);
        let sent = pair.workers[from].poll_transmit(pair.now, &mut out).unwrap();
        let (_, Packet::Data(data)) = Packet::parse(&out[..sent.len]).unwrap() else { panic!("{sent:?}") };
        assert_eq!((sent.priority.get(), data.cutoff_version), (2, 77), "worker {from}");
    }
    pair.packet(|out| {
        let len = Resend { offset: 0, length: 0, priority: 0 }.write(ends(5), out);
        out[11] = Kind::Freeze.code();
        len
    });
    assert!(pair.workers.iter().all(|w| w.trace.is_frozen()));
}

#[test]
fn only_the_worker_that_would_have_run_a_request_says_that_it_is_unknown() {
    let mut pair = Pair::new();
    pair.calls_of_peer(3);
    pair.exchange();
    pair.sent.clear();
    for client_id in [500, 502, 504, 700, 702, 704] {
        for astray in 0..3 {
            pair.astray = Some(astray);
            pair.packet(|out| Resend { offset: 0, length: RESEND_ALL, priority: 7 }.write(ends(client_id), out));
        }
    }
    let executed: u64 = pair.workers.iter().map(|w| w.metrics.drops(DropReason::Executed)).sum();
    let (mut out, mut unknown) = ([0; 1500], Vec::new());
    for (i, worker) in pair.workers.iter_mut().enumerate() {
        while let Some(sent) = worker.poll_transmit(pair.now, &mut out) {
            if sent.kind == Kind::RpcUnknown {
                unknown.push((i as u64, sent.id.get() ^ 1));
            }
        }
    }
    // The three that ran are answered by their data or not at all; of the others each copy is.
    assert!(unknown.iter().all(|(worker, id)| *id >= 700 && id / 2 % 3 == *worker), "{unknown:?}, {executed}");
    assert_eq!(unknown.len(), 9);
}

#[test]
fn an_icmp_error_is_believed_by_the_packets_owner_and_ends_the_calls_of_all() {
    for worker in 0..3 {
        let mut pair = Pair::new();
        pair.lose = |_| true;
        let ids: Vec<_> = (0..3).map(|from| pair.call_from(from, 100)).collect();
        let (mut quotes, mut out) = (Vec::new(), [0; 1500]);
        for core in &mut pair.workers {
            let sent = core.poll_transmit(pair.now, &mut out).unwrap();
            quotes.push(out[..sent.len].to_vec());
        }
        let icmp = |packet: &[u8]| {
            let mut message = [0; 1500];
            let quote = &packet[..packet.len().min(homa_stack::wire::icmp::MAX_QUOTE)];
            let len = write_port_unreachable(PEER, US, quote, packet.len(), &mut message);
            message[..len].to_vec()
        };
        // One about a call that nobody made has no effect, whoever gets it.
        let mut forged = quotes[0].clone();
        forged[24..28].copy_from_slice(&(ids[0] as u32 + 600).to_be_bytes());
        let message = icmp(&forged);
        pair.workers[worker].handle_icmp(pair.now, PEER, US, &message);
        pair.hand_on();
        assert!(pair.workers.iter_mut().all(|w| w.poll_event().is_none()));
        let message = icmp(&quotes[1]);
        pair.workers[worker].handle_icmp(pair.now, PEER, US, &message);
        pair.hand_on();
        for (core, id) in pair.workers.iter_mut().zip(&ids) {
            let Some(Event::Failed { id: failed, error: RpcError::PortUnreachable, .. }) = core.poll_event() else {
                panic!("call {id} has not failed")
            };
            assert_eq!(failed.get(), *id);
        }
        let counted: u64 = pair.workers.iter().map(|w| w.metrics.icmp_errors).sum();
        assert_eq!(counted, 1);
        pair.assert_quiet();
    }
}
