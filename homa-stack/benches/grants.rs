//! What grants cost while many messages wait for them: `cargo bench -p homa-stack --bench grants`.
//!
//! A receiver has messages of 80,000 bytes from 100 peers at a time, of which 40,000 come unasked, and is made to
//! look at its grants after each packet. First what comes unasked comes to 64 of the messages in turn, most of which
//! wait; when all have theirs, each grant is answered with what it allows until all messages are whole. The copy into
//! the pool (100 bytes, then 1400) is in.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant as Clock;

use homa_stack::wire::{DATA_HEADER_LEN, Data, Ends, Kind, OffsetForm};
use homa_stack::{Config, Endpoint, Event, Instant};

const LEN: u32 = 80_000;
const UNASKED: u32 = 40_000;
const SHORT: u32 = 100;
const FULL: u32 = 1400;
const PEERS: usize = 100;
/// Messages that get packets in turn while the others wait for theirs.
const SOME: usize = 64;
const PORT: u16 = 99;

struct Receiver {
    core: Endpoint,
    now: u64,
    packet: Vec<u8>,
    out: Vec<u8>,
    /// Messages that may be sent further, and how far.
    granted: VecDeque<(usize, u32)>,
    /// Messages that came before these.
    before: usize,
}

impl Receiver {
    /// Gives `n` bytes from `offset` on of the `i`th message, and takes what is to be sent then.
    fn take(&mut self, i: usize, offset: u32, n: u32) {
        self.now += 100;
        let now = Instant::from_nanos(self.now);
        let data = Data {
            message_len: LEN,
            incoming: UNASKED,
            ack: None,
            cutoff_version: 1,
            retransmit: false,
            offset,
            form: OffsetForm::Both,
            bytes: &[],
        };
        let ends = Ends { sport: 40_000, dport: PORT, sender_id: 2 * (self.before + i) as u64 + 2 };
        let header = data.write_header(ends, &mut self.packet);
        self.core.handle_packet(now, peer(i), &self.packet[..header + n as usize]);
        while let Some(sent) = self.core.poll_transmit(now, &mut self.out) {
            if sent.kind == Kind::Grant {
                self.granted.push_back((sent.id.get() as usize / 2 - 1 - self.before, sent.offset));
            }
        }
        while let Some(event) = self.core.poll_event() {
            let Event::Request { rpc, msg, .. } = event else { panic!("{event:?}") };
            self.core.release(msg);
            self.core.discard(rpc);
        }
    }
}

fn peer(i: usize) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0001 + (i % PEERS) as u32).into()
}

fn main() {
    println!("ns a packet                    to messages that wait       answers to grants");
    for messages in [1, 10, 100, 1_000, 10_000] {
        let config = Config { pool_pages: 2 * messages + 1, link_mbps: 1, ..Config::default() };
        let mut core = Endpoint::new(config);
        core.bind(PORT).expect("the port is free");
        let (packet, out) = (vec![0; DATA_HEADER_LEN + FULL as usize], vec![0; 1500]);
        let mut to = Receiver { core, now: 0, packet, out, granted: VecDeque::new(), before: 0 };
        // The first round pays for the memory.
        run(&mut to, messages);
        let mut samples: Vec<_> = (0..if messages > 1000 { 3 } else { 9 }).map(|_| run(&mut to, messages)).collect();
        let mut median = |of: fn(&(f64, f64)) -> f64| {
            samples.sort_by(|a, b| of(a).total_cmp(&of(b)));
            of(&samples[samples.len() / 2])
        };
        let (waiting, granted) = (median(|s| s.0), median(|s| s.1));
        println!("{messages:6} messages                {waiting:24.1} {granted:24.1}");
    }
}

/// Nanoseconds a packet: of those that come unasked, and of those granted.
fn run(to: &mut Receiver, messages: usize) -> (f64, f64) {
    (0..messages).for_each(|i| to.take(i, 0, SHORT));
    // In an order that is not that of arrival.
    let order: Vec<_> = (0..messages).map(|i| i * 7919 % messages).collect();
    let (some, rest) = order.split_at(messages.min(SOME));
    let start = Clock::now();
    for step in 1..UNASKED / SHORT {
        some.iter().for_each(|i| to.take(*i, step * SHORT, SHORT));
    }
    let waiting = start.elapsed().as_nanos() as f64 / (f64::from(UNASKED / SHORT - 1) * some.len() as f64);
    rest.iter().for_each(|i| (1..UNASKED / SHORT).for_each(|step| to.take(*i, step * SHORT, SHORT)));
    let (start, mut packets) = (Clock::now(), 0);
    let mut sent = vec![UNASKED; messages];
    while let Some((i, limit)) = to.granted.pop_front() {
        while sent[i] < limit {
            let n = FULL.min(LEN - sent[i]);
            to.take(i, sent[i], n);
            sent[i] += n;
            packets += 1;
        }
    }
    assert!(sent.iter().all(|n| *n == LEN), "all messages are whole");
    to.before += messages;
    (waiting, start.elapsed().as_nanos() as f64 / f64::from(packets))
}
