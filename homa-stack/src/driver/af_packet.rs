//! The AF_PACKET device: a receive ring shared with the kernel, frames out by `send`.
//!
//! `send` because it was the cheapest way out for the frames that a latency depends on: measured over veth on a
//! 2.6 GHz EPYC, 100-byte ping-pong took 2.5-2.9 us with `send` and 3.9 with a transmit ring, and `sendmmsg` saved
//! nothing per frame since the receiver's work is done inside the call.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::clock::Clock;
use super::frame::{self, Addrs, ETHERTYPE_IPV4, ETHERTYPE_IPV6, HOMA_AT};
use super::neighbours::Neighbours;
use super::sys::{self, Interface, Mac, RxRing};
use super::{OpenError, capability, packet_socket};
use crate::device::{Device, Rx};
use crate::metrics::{DropReason, Metrics};
use crate::proto::Transmit;
use crate::trace::{Event, Recorder};
use crate::units::Nanos;
use crate::wire::{IPPROTO_HOMA, Kind, fill_checksum};

/// All EtherTypes. The kernel delivers a packet to sockets for all of them before its own IP code sees it, and to those
/// for one of them only after: with the EtherType of IPv4 here each packet would come some 0.6 us later.
const ETHERTYPE_ALL: u16 = libc::ETH_P_ALL as u16;

/// A wait longer than this means that the real-time clock was set meanwhile.
const LONGEST_WAIT: u64 = 10_000_000_000;

/// Homa packets by way of an AF_PACKET socket.
#[derive(Debug)]
pub(super) struct PacketDevice {
    fd: OwnedFd,
    ring: RxRing,
    /// Hold IP protocol 146, so that the kernel answers no packet with "protocol unreachable".
    _holders: [Option<OwnedFd>; 2],
    pub(super) neighbours: Neighbours,
    pub(super) clock: Clock,
    /// Real-time clock less monotonic clock, ns.
    real_offset: u64,
    /// Real time at the last fetch, ns.
    fetched_at: u64,
    addrs: Addrs,
    mac: Mac,
    slot: Vec<u8>,
}

impl PacketDevice {
    pub(super) fn open(interface: &Interface, addrs: Addrs, mtu: usize, frames: usize) -> Result<Self, OpenError> {
        let mac = interface.mac.ok_or_else(|| OpenError::NotEthernet(interface.name.clone()))?;
        let system = |what: &'static str| move |source: io::Error| OpenError::System { what, source };
        let (fd, ring) = packet_socket(frames, frame::ETHERNET_LEN + mtu)?;
        sys::attach_filter(&fd, &homa_filter(&addrs)).map_err(system("a packet filter"))?;
        let holders = [
            addrs.v4.map(|_| hold_protocol(libc::AF_INET)).transpose()?,
            addrs.v6.map(|_| hold_protocol(libc::AF_INET6)).transpose()?,
        ];
        sys::bind_packet(&fd, interface.index, ETHERTYPE_ALL).map_err(system("binding to the interface"))?;
        let neighbours = Neighbours::new(interface.index, &interface.name).map_err(system("a netlink socket"))?;
        Ok(Self {
            fd,
            ring,
            _holders: holders,
            neighbours,
            clock: Clock::start(),
            real_offset: real_offset(),
            fetched_at: 0,
            addrs,
            mac,
            slot: vec![0; HOMA_AT + mtu],
        })
    }

    /// Readable when a packet has come.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// True if a packet has come.
    #[inline]
    pub(super) fn has_packet(&mut self) -> bool {
        self.ring.fetch(1) > 0
    }

    /// Packets that the kernel dropped since the last call because the ring was full.
    pub(super) fn take_ring_drops(&self) -> u64 {
        sys::packet_statistics(&self.fd).map_or(0, |(_, drops)| drops.into())
    }

    /// Looks at the real-time clock anew; it may have been set.
    pub(super) fn refresh_real_time(&mut self) {
        self.real_offset = real_offset();
    }
}

impl Device for PacketDevice {
    fn fetch(&mut self, most: usize) -> usize {
        let held = self.ring.fetch(most);
        if held > 0 {
            self.fetched_at = self.clock.now().as_nanos().wrapping_add(self.real_offset);
        }
        held
    }

    fn packet(&self, i: usize) -> Result<Rx<'_>, DropReason> {
        let frame = self.ring.frame(i);
        let (from, priority, bytes) = frame::parse(frame.bytes, &self.addrs)?;
        let wait = self.fetched_at.saturating_sub(frame.stamp);
        Ok(Rx { from, priority, bytes, wait: (wait < LONGEST_WAIT).then_some(Nanos::from_nanos(wait)) })
    }

    fn release(&mut self) {
        self.ring.release();
    }

    fn tx_slot(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.slot[HOMA_AT..])
    }

    fn commit(&mut self, transmit: &Transmit, trace: &mut Recorder, metrics: &mut Metrics) {
        let Transmit { to, priority, len, kind, id, offset, message_len, peer_tag: peer } = *transmit;
        let (id, queue) = (id.low(), 0);
        let mac = self.neighbours.lookup(self.clock.now(), to);
        let (Some(mac), Some(from)) = (mac, self.addrs.source_for(to)) else {
            metrics.peer_route_errors += 1;
            return;
        };
        let begin = frame::write_headers(&mut self.slot, (mac, self.mac), from, to, priority, len);
        let frame = &mut self.slot[begin..HOMA_AT + len];
        fill_checksum(&mut frame[HOMA_AT - begin..], from, to);
        match kind {
            Kind::Data => trace.record(Event::NicData { peer, id, offset, queue }),
            Kind::Grant => trace.record(Event::NicGrant { peer, id, offset, queue }),
            _ => {}
        }
        if sys::send(&self.fd, frame).is_err() {
            match kind {
                Kind::Data => metrics.data_xmit_errors += 1,
                _ => metrics.control_xmit_errors += 1,
            }
            return;
        }
        match kind {
            Kind::Data => trace.record(Event::FreeData { id, offset, queue, length: message_len }),
            Kind::Grant => trace.record(Event::FreeGrant { id, offset, queue }),
            _ => {}
        }
    }
}

/// Real time less monotonic time: from the closest pair of some readings.
fn real_offset() -> u64 {
    let pair = || {
        let before = sys::clock_nanos(libc::CLOCK_MONOTONIC);
        let real = sys::clock_nanos(libc::CLOCK_REALTIME);
        let after = sys::clock_nanos(libc::CLOCK_MONOTONIC);
        (after - before, real.wrapping_sub(before + (after - before) / 2))
    };
    (0..8).map(|_| pair()).min().expect("eight pairs have a closest").1
}

/// A raw socket for protocol 146 that takes no packet. While any such socket is open the kernel holds the protocol
/// for known and sends no ICMP "protocol unreachable", which would end all RPCs of a peer that runs the kernel
/// module (homa-protocol.md 9).
pub(super) fn hold_protocol(family: libc::c_int) -> Result<OwnedFd, OpenError> {
    const DROP_ALL: [libc::sock_filter; 1] = [op(libc::BPF_RET | libc::BPF_K, 0, 0, 0)];
    let raw = capability("a raw socket for IP protocol 146", "CAP_NET_RAW");
    let fd = sys::socket(family, libc::SOCK_RAW, IPPROTO_HOMA.into()).map_err(raw)?;
    sys::attach_filter(&fd, &DROP_ALL).map_err(|source| OpenError::System { what: "a packet filter", source })?;
    Ok(fd)
}

/// Classic BPF: frames with an IP packet of protocol 146 for one of `addrs`; no other frame.
fn homa_filter(addrs: &Addrs) -> [libc::sock_filter; 19] {
    const ACCEPT: usize = 17;
    const DROP: usize = 18;
    let load = |size, at| op(libc::BPF_LD | size | libc::BPF_ABS, 0, 0, at);
    // Goes on with the next instruction or jumps; `here` is the instruction's own index.
    let equal = |here: usize, value: u32, then: usize, otherwise: usize| {
        let (then, otherwise) = ((then - here - 1) as u8, (otherwise - here - 1) as u8);
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, then, otherwise, value)
    };
    // An address that the host does not have is the unspecified one, which no packet is for.
    let v4 = addrs.v4.unwrap_or(Ipv4Addr::UNSPECIFIED).to_bits();
    let v6 = addrs.v6.unwrap_or(Ipv6Addr::UNSPECIFIED).to_bits();
    let word = |i: u32| (v6 >> (96 - 32 * i)) as u32;
    let homa = u32::from(IPPROTO_HOMA);
    [
        load(libc::BPF_H, 12),
        equal(1, ETHERTYPE_IPV4.into(), 2, 6),
        load(libc::BPF_B, 23),
        equal(3, homa, 4, DROP),
        load(libc::BPF_W, 30),
        equal(5, v4, ACCEPT, DROP),
        equal(6, ETHERTYPE_IPV6.into(), 7, DROP),
        load(libc::BPF_B, 20),
        equal(8, homa, 9, DROP),
        load(libc::BPF_W, 38),
        equal(10, word(0), 11, DROP),
        load(libc::BPF_W, 42),
        equal(12, word(1), 13, DROP),
        load(libc::BPF_W, 46),
        equal(14, word(2), 15, DROP),
        load(libc::BPF_W, 50),
        equal(16, word(3), ACCEPT, DROP),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ]
}

const fn op(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}
