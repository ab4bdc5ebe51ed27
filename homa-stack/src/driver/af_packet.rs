//! The AF_PACKET device: a receive ring shared with the kernel, frames out by `send`.
//!
//! `send` because it was the cheapest way out for the frames that a latency depends on: measured over veth on a
//! 2.6 GHz EPYC, 100-byte ping-pong took 2.5-2.9 us with `send` and 3.9 with a transmit ring, and `sendmmsg` saved
//! nothing per frame since the receiver's work is done inside the call.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::clock::Clock;
use super::filter::homa_filter;
use super::frame::{self, Addrs, ETHERNET_LEN, Framing, HOMA_AT};
use super::gather::{Gatherer, Headers, MOST_COPIED, SUPER_FRAME};
use super::ingress::keep_from_kernel;
use super::neighbours::Neighbours;
use super::ring_use::RingUse;
use super::sockets::Sockets;
use super::stamps::Stamps;
use super::sys::{self, Interface, Mac, RxRing};
use super::{OpenError, capability, packet_socket};
use crate::device::{Device, Rx};
use crate::metrics::{DropReason, Metrics};
use crate::proto::{Refusal, Transmit};
use crate::trace::{Event, Recorder};
use crate::units::Instant;
use crate::wire::icmp::write_port_unreachable;
use crate::wire::{IPPROTO_HOMA, Kind, fill_checksum, prepare_checksum};

/// All EtherTypes. The kernel delivers a packet to sockets for all of them before its own IP code sees it, and to those
/// for one of them only after: with the EtherType of IPv4 here each packet would come some 0.6 us later.
const ETHERTYPE_ALL: u16 = libc::ETH_P_ALL as u16;

/// IP packets that the ring holds where super-frames are to be expected: those of links with the usual MTU.
const SMALL_PACKET: usize = 1500;

/// Bytes of super-frames that may wait in the socket.
const RECEIVE_BUFFER: i32 = 1 << 22;

/// Homa packets by way of an AF_PACKET socket.
#[derive(Debug)]
pub(super) struct PacketDevice {
    fd: OwnedFd,
    ring: RxRing,
    /// Hold IP protocol 146, so that the kernel answers no packet with "protocol unreachable".
    _holders: [Option<OwnedFd>; 2],
    interface: i32,
    /// Drops packets that this socket has got before the kernel's network code looks at them, where that is allowed.
    own: Option<OwnedFd>,
    pub(super) neighbours: Neighbours,
    pub(super) clock: Clock,
    /// The kernel's stamps, of the real-time clock.
    stamps: Stamps,
    /// The time that the host has told.
    now: Instant,
    addrs: Addrs,
    mac: Mac,
    framing: Framing,
    /// For packets with many data.
    gatherer: Option<Gatherer>,
    /// The last super-frame received.
    large: Box<[u8]>,
    /// Which of the frames held it is, and its length.
    large_at: Option<(usize, usize)>,
    slot: Vec<u8>,
    pub(super) usage: RingUse,
}

impl PacketDevice {
    pub(super) fn open(
        sockets: Sockets,
        interface: &Interface,
        addrs: Addrs,
        mtu: usize,
        frames: usize,
        framing: Framing,
    ) -> Result<Self, OpenError> {
        let mac = interface.mac.ok_or_else(|| OpenError::NotEthernet(interface.name.clone()))?;
        let system = |what: &'static str| move |source: io::Error| OpenError::System { what, source };
        let Sockets { packets, pieces, holders: [v4, v6] } = sockets;
        let gatherer = Gatherer::open(pieces, interface)?;
        let (fd, ring) = packet_socket(packets, frames, ETHERNET_LEN + ring_holds(mtu, framing, gatherer.is_some()))?;
        // Frames that do not fit the ring, which senders or network cards made of several packets, come by `recv`.
        sys::set_option(&fd, libc::SOL_PACKET, libc::PACKET_COPY_THRESH, &1_i32)
            .map_err(system("PACKET_COPY_THRESH"))?;
        sys::set_buffer(&fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER);
        sys::attach_filter(&fd, &homa_filter(&addrs)).map_err(system("a packet filter"))?;
        let holders = [
            v4.filter(|_| addrs.v4.is_some()).map(hold_protocol).transpose()?,
            v6.filter(|_| addrs.v6.is_some()).map(hold_protocol).transpose()?,
        ];
        sys::bind_packet(&fd, interface.index, ETHERTYPE_ALL).map_err(system("binding to the interface"))?;
        let neighbours = Neighbours::new(interface.index, &interface.name).map_err(system("a netlink socket"))?;
        let clock = Clock::start();
        Ok(Self {
            fd,
            ring,
            _holders: holders,
            interface: interface.index,
            own: keep_from_kernel(interface.index, &addrs).ok(),
            neighbours,
            stamps: Stamps::of(libc::CLOCK_REALTIME, &clock),
            clock,
            now: Instant::default(),
            addrs,
            mac,
            framing,
            gatherer,
            large: vec![0; ETHERNET_LEN + SUPER_FRAME].into_boxed_slice(),
            large_at: None,
            slot: vec![0; HOMA_AT + mtu],
            usage: RingUse::default(),
        })
    }

    /// What this device is, in words.
    pub(super) fn describe(&self) -> &'static str {
        if self.own.is_some() { "AF_PACKET, packets kept from the kernel" } else { "AF_PACKET" }
    }

    /// The socket that packets come by.
    pub(super) fn socket(&self) -> &OwnedFd {
        &self.fd
    }

    /// Tells the device the time: for waits of packets and ages of answers.
    #[inline]
    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Follows a change of the interface.
    pub(super) fn set_local(&mut self, addrs: Addrs, mac: Mac) -> io::Result<()> {
        // A link that goes down leaves an error, for which the socket would be readable until it is taken.
        sys::int_option(&self.fd, libc::SOL_SOCKET, libc::SO_ERROR)?;
        if addrs != self.addrs {
            sys::attach_filter(&self.fd, &homa_filter(&addrs))?;
            self.addrs = addrs;
            // Without the privileges for it the new address's packets go on to the kernel's code, which is slower.
            self.own = keep_from_kernel(self.interface, &addrs).ok();
        }
        self.mac = mac;
        Ok(())
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

    /// Largest IP packet that may be sent for the kernel to cut; 0: none.
    pub(super) fn gso_bytes(&self) -> usize {
        if self.framing == Framing::Hijack && self.gatherer.is_some() { SUPER_FRAME } else { 0 }
    }

    /// Packets that the kernel dropped since the last call because the ring was full.
    pub(super) fn take_ring_drops(&self) -> u64 {
        sys::packet_statistics(&self.fd).map_or(0, |(_, drops)| drops.into())
    }

    /// Looks at the real-time clock anew; it may have been set.
    pub(super) fn refresh_real_time(&mut self) {
        self.stamps.refresh(&self.clock);
    }
}

impl Device for PacketDevice {
    fn fetch(&mut self, most: usize) -> usize {
        let mut held = self.ring.fetch(most);
        if let Some(i) = (0..held).find(|i| self.ring.frame(*i).has_copy) {
            let len = sys::recv_now(&self.fd, &mut self.large).unwrap_or(0);
            self.large_at = Some((i, len));
            held = i + 1;
            self.ring.hold(held);
        }
        if held > 0 {
            self.usage.fetched(held, most, || self.ring.occupied());
        }
        held
    }

    fn arrived_by(&mut self, held: usize, now: Instant, trace: &mut Recorder) -> Instant {
        self.now = self.stamps.arrived_by(now, self.ring.frame(held - 1).stamp, &self.clock, trace);
        self.now
    }

    fn packet(&self, i: usize) -> Result<Rx<'_>, DropReason> {
        let frame = self.ring.frame(i);
        let wait = self.stamps.wait(self.now, frame.stamp);
        let bytes = match self.large_at {
            Some((at, len)) if at == i => &self.large[..len],
            _ => frame.bytes,
        };
        Ok(Rx { wait, ..frame::parse(bytes, &self.addrs)? })
    }

    fn release(&mut self) {
        self.large_at = None;
        self.ring.release();
        self.usage.released(|| self.clock.now().since(self.now));
    }

    fn tx_slot(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.slot[HOMA_AT..])
    }

    fn commit(&mut self, transmit: &Transmit, trace: &mut Recorder, metrics: &mut Metrics) {
        let Some((begin, from)) = self.write_headers(transmit, metrics) else { return };
        let frame = &mut self.slot[begin..HOMA_AT + transmit.len];
        fill_checksum(&mut frame[HOMA_AT - begin..], from, transmit.to);
        note_sending(transmit, trace);
        note_sent(transmit, sys::send(&self.fd, frame), trace, metrics);
    }

    fn most_copied(&self) -> usize {
        if self.gatherer.is_some() { MOST_COPIED } else { usize::MAX }
    }

    fn commit_gathered(&mut self, transmit: &Transmit, parts: [&[u8]; 2], trace: &mut Recorder, metrics: &mut Metrics) {
        let Some((begin, from)) = self.write_headers(transmit, metrics) else { return };
        let Some(gatherer) = &mut self.gatherer else { return metrics.data_xmit_errors += 1 };
        let (to, len) = (transmit.to, transmit.len);
        prepare_checksum(&mut self.slot[HOMA_AT..], len, from, to);
        note_sending(transmit, trace);
        let frame = Headers { buffer: &mut self.slot, begin, to };
        let sent = gatherer.send(frame, parts, transmit.segment, |buffer, len| {
            frame::set_length(buffer, to, len);
            prepare_checksum(&mut buffer[HOMA_AT..], len, from, to);
        });
        note_sent(transmit, sent, trace, metrics);
    }

    fn refuse(&mut self, refusal: &Refusal, metrics: &mut Metrics) {
        let mac = self.neighbours.lookup(self.now, refusal.to);
        let (Some(mac), Some(from)) = (mac, self.addrs.source_for(refusal.to)) else {
            metrics.peer_route_errors += 1;
            return;
        };
        let len = write_port_unreachable(from, refusal.to, refusal.quote(), refusal.len, &mut self.slot[HOMA_AT..]);
        let begin = frame::write_icmp_headers(&mut self.slot, (mac, self.mac), from, refusal.to, len);
        if sys::send(&self.fd, &self.slot[begin..HOMA_AT + len]).is_err() {
            metrics.control_xmit_errors += 1;
        }
    }
}

impl PacketDevice {
    /// Writes what goes before the Homa header in the slot; returns where the frame begins, and the source address.
    fn write_headers(&mut self, transmit: &Transmit, metrics: &mut Metrics) -> Option<(usize, IpAddr)> {
        let &Transmit { to, priority, len, .. } = transmit;
        let mac = self.neighbours.lookup(self.now, to);
        let (Some(mac), Some(from)) = (mac, self.addrs.source_for(to)) else {
            metrics.peer_route_errors += 1;
            return None;
        };
        let macs = (mac, self.mac);
        Some((frame::write_headers(&mut self.slot, macs, self.framing, from, to, priority, len), from))
    }
}

/// The longest IP packet that frames of the receive ring hold.
///
/// The kernel copies the begin of a super-frame to the ring too, as much of it as a frame holds, and does so on the core
/// that sends, where super-frames are made: with frames for an MTU of 9000 that is a quarter of all that is sent, for
/// nothing, since all of it comes by `recv`.
fn ring_holds(mtu: usize, framing: Framing, gathers: bool) -> usize {
    if framing == Framing::Hijack && gathers { mtu.min(SMALL_PACKET) } else { mtu }
}

/// Notes that a packet is about to be handed to the system.
pub(super) fn note_sending(transmit: &Transmit, trace: &mut Recorder) {
    let &Transmit { kind, offset, peer_tag: peer, .. } = transmit;
    let (id, queue) = (transmit.id.low(), 0);
    match kind {
        Kind::Data => trace.record(Event::NicData { peer, id, offset, queue }),
        Kind::Grant => trace.record(Event::NicGrant { peer, id, offset, queue }),
        _ => {}
    }
}

/// Notes that the system has taken a packet.
pub(super) fn note_taken(transmit: &Transmit, trace: &mut Recorder) {
    let &Transmit { kind, offset, message_len: length, .. } = transmit;
    let (id, queue) = (transmit.id.low(), 0);
    match kind {
        Kind::Data => trace.record(Event::FreeData { id, offset, queue, length }),
        Kind::Grant => trace.record(Event::FreeGrant { id, offset, queue }),
        _ => {}
    }
}

/// Notes what the system made of a packet.
fn note_sent(transmit: &Transmit, sent: io::Result<()>, trace: &mut Recorder, metrics: &mut Metrics) {
    match (sent, transmit.kind) {
        (Err(_), Kind::Data) => metrics.data_xmit_errors += 1,
        (Err(_), _) => metrics.control_xmit_errors += 1,
        (Ok(()), _) => note_taken(transmit, trace),
    }
}

/// A raw socket for Homa's protocol of IP version `family`, to hold the protocol with.
pub(super) fn raw_socket_of(family: libc::c_int) -> Result<OwnedFd, OpenError> {
    let raw = capability("a raw socket for IP protocol 146", "CAP_NET_RAW");
    sys::socket(family, libc::SOCK_RAW, IPPROTO_HOMA.into()).map_err(raw)
}

/// A raw socket for protocol 146 that takes no packet. While any such socket is open the kernel holds the protocol
/// for known and sends no ICMP "protocol unreachable", which would end all RPCs of a peer that runs the kernel
/// module (homa-protocol.md 9).
pub(super) fn hold_protocol(fd: OwnedFd) -> Result<OwnedFd, OpenError> {
    const DROP_ALL: [libc::sock_filter; 1] =
        [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }];
    sys::attach_filter(&fd, &DROP_ALL).map_err(|source| OpenError::System { what: "a packet filter", source })?;
    Ok(fd)
}
