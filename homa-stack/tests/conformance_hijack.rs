//! Super-frames, which a network card cuts into packets or a virtual link carries whole, among packets of the usual
//! kind: whatever way the parts of a message come, it is the same message (homa-protocol.md 1.4, 1.6, 11 #13).
//!
//! The two framings of a packet differ in the IP header alone, which the driver takes off: its own tests, and those on
//! real packets, mix them.

mod net;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use homa_stack::wire::{DATA_HEADER_LEN, Kind, Packet, advance_sequence, is_hijacked};
use homa_stack::{Config, Endpoint, Event, Instant, Payload, Transmit};
use net::{Rng, message};

const PORT: u16 = 99;

fn hosts() -> [[IpAddr; 2]; 2] {
    let v6 = |n| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n));
    [[1, 2].map(|n| Ipv4Addr::new(10, 0, 0, n).into()), [1, 2].map(v6)]
}

/// The packets that a network card makes of a super-frame.
fn cut(bytes: &[u8], segment: usize) -> Vec<Vec<u8>> {
    let (header, data) = bytes.split_at(DATA_HEADER_LEN);
    let packets = data.chunks(segment).enumerate().map(|(k, part)| {
        let mut packet = [header, part].concat();
        advance_sequence(&mut packet, (k * segment) as u32);
        packet
    });
    packets.collect()
}

/// Two hosts, each with its own largest super-frame, and a network between them.
struct Pair {
    cores: [Endpoint; 2],
    addrs: [IpAddr; 2],
    now: Instant,
    rng: Rng,
    /// Share of the super-frames that come whole.
    whole: f64,
    loss: f64,
    super_frames: usize,
}

impl Pair {
    fn new(addrs: [IpAddr; 2], gso_bytes: [usize; 2], mtu: usize, seed: u64) -> Self {
        let cores = gso_bytes.map(|gso_bytes| Endpoint::new(Config { gso_bytes, mtu, ..Config::default() }));
        let now = Instant::from_nanos(1);
        Self { cores, addrs, now, rng: Rng::new(seed), whole: 1.0, loss: 0.0, super_frames: 0 }
    }

    /// Packets on their way from host `from`, as the network hands them over.
    fn packets(&mut self, from: usize) -> Vec<Vec<u8>> {
        let mut out = vec![0; 65_535];
        let mut all = Vec::new();
        while let Some(sent) = self.cores[from].poll_transmit(self.now, &mut out) {
            let Transmit { len, segment, kind, .. } = sent;
            let bytes = &out[..len];
            assert!(is_hijacked(bytes), "all packets bear the mark");
            if segment == 0 {
                all.push(bytes.to_vec());
                continue;
            }
            assert_eq!(kind, Kind::Data);
            self.super_frames += 1;
            match self.rng.chance(self.whole) {
                true => all.push(bytes.to_vec()),
                false => all.extend(cut(bytes, segment)),
            }
        }
        for i in (1..all.len()).rev() {
            all.swap(i, self.rng.below(i as u64 + 1) as usize);
        }
        let (rng, loss) = (&mut self.rng, self.loss);
        all.retain(|_| !rng.chance(loss));
        all
    }

    /// Calls with a request of `len` bytes, which comes back; true if it does within a second.
    fn echo(&mut self, len: usize) -> bool {
        let request = message(1, len);
        let port = self.cores[0].client_port().unwrap();
        self.cores[1].bind(PORT).unwrap();
        let to = SocketAddr::new(self.addrs[1], PORT);
        self.cores[0].call(self.now, port, to, Payload::from(request.clone()), 1).unwrap();
        for _ in 0..1_000 {
            for from in [0, 1] {
                for packet in self.packets(from) {
                    self.cores[1 - from].handle_packet(self.now, self.addrs[from], &packet);
                }
            }
            while let Some(Event::Request { rpc, msg, .. }) = self.cores[1].poll_event() {
                let bytes = self.cores[1].pieces(&msg).collect::<Vec<_>>().concat();
                assert!(bytes == request, "the request is damaged");
                self.cores[1].release(msg);
                self.cores[1].reply(self.now, rpc, Payload::from(bytes)).unwrap();
            }
            if let Some(Event::Response { msg, .. }) = self.cores[0].poll_event() {
                let bytes = self.cores[0].pieces(&msg).collect::<Vec<_>>().concat();
                assert!(bytes == request, "the response is damaged");
                self.cores[0].release(msg);
                return true;
            }
            self.now = self.now + homa_stack::Nanos::from_millis(1);
            self.cores.iter_mut().for_each(|core| core.handle_timeout(self.now));
            self.cores.iter().for_each(|core| core.check_invariants(std::iter::empty()).unwrap());
        }
        false
    }
}

#[test]
fn messages_of_all_lengths_come_in_super_frames_whole_or_cut_in_any_order() {
    for addrs in hosts() {
        for mtu in [1_500, 9_000] {
            for (seed, len) in [1, 1_424, 1_425, 40_000, 40_001, 65_536, 1_000_000].into_iter().enumerate() {
                for whole in [0.0, 0.5, 1.0] {
                    let mut pair = Pair::new(addrs, [65_535, 0], mtu, seed as u64);
                    pair.whole = whole;
                    assert!(pair.echo(len), "{len} bytes at MTU {mtu}, {whole} whole");
                    let segment = mtu - DATA_HEADER_LEN - if addrs[0].is_ipv4() { 20 } else { 40 };
                    assert_eq!(pair.super_frames > 0, len > segment, "{len} bytes at MTU {mtu}");
                }
            }
        }
    }
}

#[test]
fn what_is_lost_of_super_frames_comes_again() {
    for addrs in hosts() {
        for seed in 0..20 {
            let mut pair = Pair::new(addrs, [65_535, 20_000], 1_500, seed);
            (pair.whole, pair.loss) = (0.5, 0.1);
            assert!(pair.echo(300_000), "seed {seed}");
        }
    }
}

#[test]
fn a_super_frame_says_how_it_is_to_be_cut_and_fits_an_ip_packet() {
    for addrs in hosts() {
        let header = if addrs[0].is_ipv4() { 20 } else { 40 };
        let mut pair = Pair::new(addrs, [65_535, 0], 1_500, 7);
        let port = pair.cores[0].client_port().unwrap();
        let to = SocketAddr::new(addrs[1], PORT);
        pair.cores[0].call(pair.now, port, to, Payload::from(message(1, 200_000)), 1).unwrap();
        let mut out = vec![0; 65_535];
        let sent = pair.cores[0].poll_transmit(pair.now, &mut out).unwrap();
        assert_eq!((sent.len, sent.segment), (40_000 + DATA_HEADER_LEN, 1_444 - header), "all that is unscheduled");
        let Packet::Data(data) = Packet::parse(&out[..sent.len]).unwrap().1 else { panic!("{sent:?}") };
        assert_eq!((data.offset, data.form), (0, homa_stack::wire::OffsetForm::SequenceOnly));
        // Of which only the header is written if the device wants the data where they lie.
        pair.cores[0].call(pair.now, port, to, Payload::with_head(&[9; 12], vec![8; 30_000].into()), 2).unwrap();
        out.fill(0);
        let sent = pair.cores[0].poll_gather(pair.now, &mut out, 600).unwrap();
        assert_eq!((sent.len, sent.gathered), (30_012 + DATA_HEADER_LEN, 30_012));
        assert!(out[DATA_HEADER_LEN..].iter().all(|byte| *byte == 0));
        let (parts, ..) = pair.cores[0].gathered(&sent);
        assert_eq!(parts.concat(), [&[9; 12][..], &[8; 30_000]].concat());
        // Even if these are few: the device's slot need not be longer than a packet.
        pair.cores[0].call(pair.now, port, to, Payload::from(message(3, 1_700)), 3).unwrap();
        let sent = pair.cores[0].poll_gather(pair.now, &mut out[..1_500], 2_000).unwrap();
        assert_eq!((sent.gathered, sent.segment), (1_700, 1_444 - header));
    }
}
