//! The AF_XDP device: packets that an XDP program picks out before the kernel's network code sees them, in memory
//! shared with the kernel or, where the device can do that, with the device itself.
//!
//! One socket a receive queue takes packets in, that of the first queue sends. What a turn sends goes out with one
//! system call at its end: over veth, on a 2.6 GHz EPYC, that doubled the rate of 100-byte RPCs.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::OpenError;
use super::af_packet::{hold_protocol, note_sending, note_taken, raw_socket_of};
use super::clock::Clock;
use super::frame::{self, Addrs, Framing, HOMA_AT};
use super::neighbours::Neighbours;
use super::stamps::Stamps;
use super::sys::{self, Insn, Interface, Mac, Xsk, XskShape};
use super::xdp_program::homa_program;
use crate::device::{BATCH, Device, Rx};
use crate::metrics::{DropReason, Metrics};
use crate::proto::{Refusal, Transmit};
use crate::trace::Recorder;
use crate::units::{Instant, Nanos};
use crate::wire::fill_checksum;
use crate::wire::icmp::write_port_unreachable;

/// Packets that can be on their way out.
const TX_PACKETS: usize = 256;
/// Packets that a queue's socket holds at least, where many queues share what a host is to hold.
const LEAST_RX_PACKETS: usize = 256;

// linux/if_link.h
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// How the AF_XDP device works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpConfig {
    /// Where the XDP program runs.
    pub mode: XdpMode,
    /// Has the kernel look for packets whenever this thread does, for at most so long each time, instead of when the
    /// device interrupts: for devices whose `napi_defer_hard_irqs` and `gro_flush_timeout` are set. Not for veth: Linux
    /// 6.18 does not poll it this way, and packets then wait for the time-out.
    pub busy_poll: Option<Nanos>,
    /// Has time traces show how long packets have waited, from a clock reading by the XDP program: 100-byte RPCs at the
    /// highest rate took a fifth longer with it.
    pub stamps: bool,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver if it can do that, else after it. After it on veth: its packets are the kernel's already, and the
    /// driver would copy each once more (100-byte RPCs took 5.4 us instead of 4.7 on a 2.6 GHz EPYC).
    #[default]
    Auto,
    /// In the driver, before the kernel makes a packet of its own: without copies where the device can do that.
    Native,
    /// After the driver, with any of them.
    Generic,
}

impl XdpMode {
    /// The flags to try, in order.
    fn flags(self, driver: &str) -> &'static [u32] {
        match self {
            Self::Auto if driver == "veth" => &[XDP_FLAGS_SKB_MODE],
            Self::Auto => &[XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE],
            Self::Native => &[XDP_FLAGS_DRV_MODE],
            Self::Generic => &[XDP_FLAGS_SKB_MODE],
        }
    }
}

/// Homa packets by way of AF_XDP sockets.
#[derive(Debug)]
pub(super) struct XdpDevice {
    /// One a receive queue, at least one.
    queues: Vec<Xsk>,
    /// The queue that packets were last fetched from first: each has its turn.
    first: usize,
    /// Readable when one of several queues is.
    any_queue: Option<OwnedFd>,
    /// The program runs as long as this is open.
    _link: OwnedFd,
    /// Hold IP protocol 146, so that the kernel answers no packet with "protocol unreachable".
    _holders: [Option<OwnedFd>; 2],
    pub(super) neighbours: Neighbours,
    pub(super) clock: Clock,
    addrs: Addrs,
    mac: Mac,
    /// If the program leaves the time of reception, of the monotonic clock, before each packet.
    stamps: Option<Stamps>,
    is_busy_polling: bool,
    /// True if the program runs in the interface's driver.
    is_native: bool,
    /// The time that the host has told.
    now: Instant,
    /// Packets in the transmit ring that the kernel has not been told of.
    burst: Vec<Transmit>,
    drops: u64,
}

impl XdpDevice {
    /// A device for packets of up to `mtu` bytes, `packets` of which can wait.
    pub(super) fn open(
        interface: &Interface,
        addrs: Addrs,
        mtu: usize,
        packets: usize,
        config: XdpConfig,
    ) -> Result<Self, OpenError> {
        let mac = interface.mac.ok_or_else(|| OpenError::NotEthernet(interface.name.clone()))?;
        let system = |what: &'static str| move |source: io::Error| OpenError::System { what, source };
        let program = |map: &OwnedFd| homa_program(&addrs, map, config.stamps);
        let Sockets { queues, link, is_native } = Sockets::open(interface, mtu, packets, config, program)?;
        let any_queue = (queues.len() > 1).then(|| sys::any_of(queues.iter().map(Xsk::fd))).transpose();
        let neighbours = Neighbours::new(interface.index, &interface.name).map_err(system("a netlink socket"))?;
        let clock = Clock::start();
        Ok(Self {
            queues,
            first: 0,
            any_queue: any_queue.map_err(system("a descriptor for all queues"))?,
            _link: link,
            _holders: [
                addrs.v4.map(|_| raw_socket_of(libc::AF_INET).and_then(hold_protocol)).transpose()?,
                addrs.v6.map(|_| raw_socket_of(libc::AF_INET6).and_then(hold_protocol)).transpose()?,
            ],
            neighbours,
            stamps: config.stamps.then(|| Stamps::of(libc::CLOCK_MONOTONIC, &clock)),
            clock,
            addrs,
            mac,
            is_native,
            is_busy_polling: config.busy_poll.is_some(),
            now: Instant::default(),
            burst: Vec::with_capacity(TX_PACKETS),
            drops: 0,
        })
    }

    /// Tells the device the time: for waits of packets and ages of answers.
    #[inline]
    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Follows a change of the interface's MAC address. The program takes packets for the addresses of the start only.
    pub(super) fn set_mac(&mut self, mac: Mac) {
        self.mac = mac;
    }

    /// Readable when a packet has come.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.any_queue.as_ref().unwrap_or(self.queues[0].fd()).as_raw_fd()
    }

    /// True if a packet has come.
    #[inline]
    pub(super) fn has_packet(&mut self) -> bool {
        self.queues.iter().any(|queue| {
            if self.is_busy_polling && !queue.has_packet() {
                queue.poll_device();
            }
            queue.has_packet()
        })
    }

    /// What this device is, in words.
    pub(super) fn describe(&self) -> String {
        let copies = if self.queues[0].is_zero_copy() { "without copies" } else { "with copies" };
        let mode = if self.is_native { "native" } else { "generic" };
        format!("AF_XDP, {mode} mode {copies}, {} receive queue(s)", self.queues.len())
    }

    /// True if packets wait for room to be sent.
    pub(super) fn is_blocked(&self) -> bool {
        self.queues[0].is_blocked()
    }

    /// Packets that the kernel dropped since the last call because there was no room.
    pub(super) fn take_ring_drops(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.drops, self.queues.iter().map(Xsk::drops).sum());
        self.drops.saturating_sub(before)
    }

    /// The queue that holds the `i`th packet, and its number there.
    #[inline]
    fn place(&self, mut i: usize) -> (&Xsk, usize) {
        if let [only] = &self.queues[..] {
            return (only, i);
        }
        let (before, from) = self.queues.split_at(self.first);
        for queue in from.iter().chain(before) {
            match i.checked_sub(queue.held()) {
                Some(rest) => i = rest,
                None => return (queue, i),
            }
        }
        (&self.queues[0], i)
    }
}

/// Sockets for all receive queues of an interface, and the program that has them get its packets.
#[derive(Debug)]
pub(super) struct Sockets {
    /// One a receive queue, at least one.
    pub(super) queues: Vec<Xsk>,
    /// The program runs as long as this is open.
    pub(super) link: OwnedFd,
    /// True if it runs in the interface's driver.
    is_native: bool,
}

impl Sockets {
    /// Attaches the program that `program` makes for a map of sockets, and opens these for packets of up to `mtu`
    /// bytes, `packets` of which can wait.
    pub(super) fn open(
        interface: &Interface,
        mtu: usize,
        packets: usize,
        config: XdpConfig,
        program: impl FnOnce(&OwnedFd) -> Vec<Insn>,
    ) -> Result<Self, OpenError> {
        let probe = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        let probe = probe.map_err(|source| OpenError::System { what: "a socket", source })?;
        let count = sys::rx_queues(&probe, &interface.name);
        let driver = sys::driver_name(&probe, &interface.name).unwrap_or_default();
        let mut shape = XskShape {
            rx_packets: (packets / count as usize).max(LEAST_RX_PACKETS).next_power_of_two(),
            tx_packets: TX_PACKETS,
            frame_len: HOMA_AT + mtu,
            batch: BATCH,
            may_zero_copy: true,
            busy_poll_usecs: config.busy_poll.map(|t| (t.as_nanos() / 1000) as u32),
        };
        let refused = |what| move |source| refusal(what, mtu, source);
        let map = sys::xsk_map(count).map_err(refused("a map of AF_XDP sockets"))?;
        let program = sys::load_xdp(&program(&map), shape.needs_frags()).map_err(refused("an XDP program"))?;
        let (link, flags) = attach(&program, interface, config.mode.flags(&driver))
            .map_err(refused("an XDP program on the interface"))?;
        let is_native = flags == XDP_FLAGS_DRV_MODE;
        shape.may_zero_copy = is_native;
        let mut queues = Vec::new();
        for queue in 0..count {
            let xsk = Xsk::open(interface.index, queue, shape).map_err(|(what, e)| refusal(what, mtu, e))?;
            sys::set_xsk(&map, queue, xsk.fd()).map_err(refused("a place in the map of AF_XDP sockets"))?;
            queues.push(xsk);
        }
        Ok(Self { queues, link, is_native })
    }
}

/// Attaches the program with the first of `modes` that the driver takes; returns that, too.
fn attach(program: &OwnedFd, interface: &Interface, modes: &[u32]) -> io::Result<(OwnedFd, u32)> {
    let mut result = Err(io::ErrorKind::InvalidInput.into());
    for flags in modes {
        result = sys::attach_xdp(program, interface.index, *flags).map(|link| (link, *flags));
        if result.is_ok() {
            break;
        }
    }
    result
}

/// The error for something that AF_XDP was refused, with what to do.
fn refusal(what: &'static str, mtu: usize, source: io::Error) -> OpenError {
    let advice = match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "expected CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW, the first two not just in a user namespace: run as root"
        }
        Some(libc::EBUSY | libc::EEXIST) => "another program has the interface or its queue: end that one first",
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            "expected room for the packets' memory: raise the limit of locked memory (`ulimit -l`), or have the ring \
             hold fewer packets"
        }
        Some(libc::EAFNOSUPPORT) => "expected a kernel with CONFIG_XDP_SOCKETS",
        Some(libc::ERANGE | libc::EINVAL | libc::EOPNOTSUPP) => {
            "expected an MTU and offloads with which the driver takes XDP programs: lower the MTU (to 3498 where \
             packets of several buffers are not supported) or try generic mode"
        }
        _ => "see the kernel's log",
    };
    OpenError::Xdp { what, mtu, source, advice }
}

impl Device for XdpDevice {
    fn fetch(&mut self, most: usize) -> usize {
        if self.is_busy_polling {
            self.has_packet();
        }
        let mut held = 0;
        if let [only] = &mut self.queues[..] {
            held = only.fetch(most);
        } else {
            self.first = (self.first + 1) % self.queues.len();
            let (before, from) = self.queues.split_at_mut(self.first);
            for queue in from.iter_mut().chain(before) {
                held += queue.fetch(most.saturating_sub(held));
            }
        }
        held
    }

    fn arrived_by(&mut self, held: usize, now: Instant, trace: &mut Recorder) -> Instant {
        let Some(mut stamps) = self.stamps else { return now };
        let (queue, last) = self.place(held - 1);
        self.now = stamps.arrived_by(now, queue.metadata(last), &self.clock, trace);
        self.stamps = Some(stamps);
        self.now
    }

    fn packet(&self, i: usize) -> Result<Rx<'_>, DropReason> {
        let (queue, i) = self.place(i);
        let packet = frame::parse(queue.frame(i), &self.addrs)?;
        let wait = self.stamps.and_then(|stamps| stamps.wait(self.now, queue.metadata(i)));
        Ok(Rx { wait, ..packet })
    }

    fn release(&mut self) {
        self.queues.iter_mut().for_each(Xsk::release);
    }

    fn tx_slot(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.queues[0].slot()?[HOMA_AT..])
    }

    fn commit(&mut self, transmit: &Transmit, _: &mut Recorder, metrics: &mut Metrics) {
        let Transmit { to, priority, len, .. } = *transmit;
        let mac = self.neighbours.lookup(self.now, to);
        let queue = &mut self.queues[0];
        let (Some(mac), Some(from), Some(slot)) = (mac, self.addrs.source_for(to), queue.slot()) else {
            metrics.peer_route_errors += 1;
            return;
        };
        let begin = frame::write_headers(slot, (mac, self.mac), Framing::Native, from, to, priority, len);
        fill_checksum(&mut slot[HOMA_AT..HOMA_AT + len], from, to);
        queue.submit(begin, HOMA_AT + len);
        self.burst.push(*transmit);
    }

    fn refuse(&mut self, refusal: &Refusal, metrics: &mut Metrics) {
        let to = refusal.to;
        let mac = self.neighbours.lookup(self.now, to);
        let queue = &mut self.queues[0];
        let (Some(mac), Some(from), Some(slot)) = (mac, self.addrs.source_for(to), queue.slot()) else {
            metrics.peer_route_errors += 1;
            return;
        };
        let len = write_port_unreachable(from, to, refusal.quote(), refusal.len, &mut slot[HOMA_AT..]);
        let begin = frame::write_icmp_headers(slot, (mac, self.mac), from, to, len);
        queue.submit(begin, HOMA_AT + len);
    }

    fn flush(&mut self, trace: &mut Recorder) {
        if !self.queues[0].must_kick() {
            return;
        }
        self.burst.iter().for_each(|transmit| note_sending(transmit, trace));
        self.queues[0].kick();
        self.burst.iter().for_each(|transmit| note_taken(transmit, trace));
        self.burst.clear();
    }
}
