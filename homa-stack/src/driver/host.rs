//! A Homa host: an endpoint on a network interface, run by the thread that uses it.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::af_xdp::XdpConfig;
use super::frame::{Addrs, Framing};
use super::group::Links;
use super::nic::{DeviceKind, Nic};
use super::sockets::Sockets;
use super::sys::{self, Interface};
use super::{OpenError, ResolveError};
use crate::metrics::Metrics;
use crate::proto::{Config, Endpoint};
use crate::trace::{Clock, Recorder};
use crate::units::{Instant, Nanos};

/// How a [`Host`] runs.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Interface to run on; `None`: the only one that is up, not loopback, and has an address.
    pub interface: Option<String>,
    /// Which of the interface's addresses to use, for its IP version; `None`: the first that is valid beyond the link. The
    /// host keeps to its address, so that RPCs do, for as long as the interface has it.
    pub address: Option<IpAddr>,
    /// How packets get from and to the interface.
    pub device: DeviceKind,
    /// How the AF_XDP device works, if it is that.
    pub xdp: XdpConfig,
    /// How packets are sent; those that come are taken in any form.
    pub framing: Framing,
    /// True to hand up to 64 KB at a time to the kernel, for it or the network card to cut into packets: with
    /// [`Framing::Hijack`] only, as kernels do so for TCP alone.
    pub super_frames: bool,
    /// How long [`Host::wait`] spins before it sleeps. A sleeping thread takes some 50 us to wake.
    pub poll: Nanos,
    /// Packets that the receive ring holds, a power of two. A larger ring rides out longer pauses of this thread;
    /// a smaller one stays in the caches of the cores at both ends: 100-byte round trips over veth take 0.25 us less
    /// with 256 than with 2048 (`cperf run basic`).
    pub ring_packets: usize,
    /// Events that the time trace holds; 0 turns it off.
    pub trace_entries: usize,
    /// Number of the core that this host plays in its time trace.
    pub trace_core: u16,
    /// Decides the first RPC id and client port, for repeatable runs; `None`: random, so that a restarted client's
    /// ids are new to its servers.
    pub seed: Option<u64>,
    /// Parameters of the protocol; `mtu`, `pid`, `first_id` and `first_port` are filled in by [`Host::open`].
    pub homa: Config,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            interface: None,
            address: None,
            device: DeviceKind::default(),
            xdp: XdpConfig::default(),
            framing: Framing::Native,
            super_frames: true,
            poll: Nanos::from_micros(50),
            ring_packets: 2048,
            trace_entries: 1 << 16,
            trace_core: 0,
            seed: None,
            homa: Config::default(),
        }
    }
}

/// A Homa endpoint on a network interface.
///
/// One thread owns it and runs the protocol inline, without hand-overs between threads: call [`Self::turn`], take
/// events from [`Self::core`], and [`Self::wait`] when there is nothing to do.
#[derive(Debug)]
pub struct Host {
    core: Endpoint,
    device: Nic,
    interface: Interface,
    addrs: Addrs,
    mtu: usize,
    /// The MTU that buffers were made for.
    most_mtu: usize,
    poll: Nanos,
    wake: Arc<Wake>,
    /// True if the thread slept since the last turn.
    slept: bool,
    window: Window,
    /// When to look next whether routes, neighbours or the interface have changed.
    next_look: Instant,
    /// To the other workers of this host, if there are any.
    links: Option<Links>,
}

/// The span of the time trace, and the metrics at its ends.
#[derive(Debug, Default)]
struct Window {
    /// Begin, and metrics then.
    begin: Option<(Instant, Metrics)>,
    /// End, and metrics then; nothing while the trace goes on.
    end: Option<(Instant, Metrics)>,
    /// True if the trace is to end before it overwrites its first events.
    until_full: bool,
}

impl Window {
    /// True if there is a trace to end.
    #[inline]
    fn is_open(&self) -> bool {
        self.begin.is_some() && self.end.is_none()
    }
}

/// Rate of a clock of nanoseconds.
const NANOSECOND_KHZ: u64 = 1_000_000;

/// Longest wait while packets wait for room to be sent, which nothing announces.
const BLOCKED: Nanos = Nanos::from_micros(20);

/// Time between two looks at changes while there is something to do; an idle host hears of them at once.
const LOOK_INTERVAL: Nanos = Nanos::from_millis(1);

/// Events that one turn and what the application does after it may record.
const TURN_EVENTS: usize = 4096;

/// Ends a [`Host::wait`] from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Wake>);

/// What a [`Waker`] and its host share.
#[derive(Debug)]
struct Wake {
    /// [`AWAKE`], [`ASLEEP`] or [`WOKEN`].
    state: AtomicU8,
    /// Readable to end a sleep.
    fd: OwnedFd,
}

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const WOKEN: u8 = 2;

impl Waker {
    /// Has the current or next [`Host::wait`] return at once. A system call only if the host sleeps.
    pub fn wake(&self) {
        if self.0.state.swap(WOKEN, Ordering::SeqCst) == ASLEEP {
            sys::eventfd_signal(&self.0.fd);
        }
    }
}

impl Wake {
    #[inline]
    fn was_called(&self) -> bool {
        self.state.load(Ordering::Relaxed) == WOKEN
    }

    /// Forgets calls: the thread is about to do whatever it was woken for.
    fn reset(&self) {
        self.state.swap(AWAKE, Ordering::SeqCst);
    }

    /// False if there was a call, which is then forgotten; else the next one signals.
    fn may_sleep(&self) -> bool {
        let slept = self.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if !slept {
            self.reset();
        }
        slept
    }
}

impl Host {
    /// Opens the interface: needs CAP_NET_RAW in its network namespace, and more for AF_XDP ([`DeviceKind`]).
    ///
    /// # Errors
    ///
    /// If the interface is missing, down, ambiguous or without an address, or a privilege is missing.
    pub fn open(config: HostConfig) -> Result<Self, OpenError> {
        Self::open_by(config, None)
    }

    /// As [`Self::open`], by AF_PACKET, with sockets that were opened by whoever had the privileges: needs none.
    ///
    /// # Errors
    ///
    /// Those of `open`.
    pub fn open_with(config: HostConfig, sockets: Sockets) -> Result<Self, OpenError> {
        Self::open_by(config, Some(sockets))
    }

    fn open_by(config: HostConfig, sockets: Option<Sockets>) -> Result<Self, OpenError> {
        let (interface, addrs) = choose(config.interface.as_deref())?;
        let addrs = config.address.map_or(Ok(addrs), |addr| with_address(&interface, addrs, addr))?;
        let system = |what: &'static str| move |source: io::Error| OpenError::System { what, source };
        let probe = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).map_err(system("a socket"))?;
        let mtu = sys::mtu(&probe, &interface.name).map_err(system("the interface's MTU"))?;
        let device = Nic::open(&config, sockets, &interface, addrs, mtu)?;
        let seed = config.seed.map_or_else(sys::random_u64, Ok).map_err(system("a random number"))?;
        let (first_id, first_port) = beginnings(seed);
        let gso_bytes = if config.super_frames { device.gso_bytes() } else { 0 };
        let homa = Config { mtu, gso_bytes, pid: std::process::id(), first_id, first_port, ..config.homa };
        let mut core = Endpoint::new(homa);
        core.put_off();
        let counter = Clock::Counter(device.clock().counter());
        let mut trace = Recorder::new(config.trace_entries, counter, config.trace_core);
        trace.set_device(device.word());
        core.set_trace(trace);
        let fd = sys::eventfd().map_err(system("an eventfd"))?;
        let wake = Arc::new(Wake { state: AtomicU8::new(AWAKE), fd });
        Ok(Self {
            core,
            device,
            interface,
            addrs,
            mtu,
            most_mtu: mtu,
            poll: config.poll,
            wake,
            slept: false,
            window: Window::default(),
            next_look: Instant::default(),
            links: None,
        })
    }

    /// The address of this host: that of IPv4 if it has one. Packets to a peer come from the address of the peer's IP
    /// version: see [`Self::addrs`].
    pub fn addr(&self) -> IpAddr {
        self.addrs.main().expect("an interface without an address is not opened")
    }

    /// The addresses that this host sends from and receives at: at most one of each IP version.
    pub fn addrs(&self) -> impl Iterator<Item = IpAddr> {
        let Addrs { v4, v6 } = self.addrs;
        v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6))
    }

    /// The largest IP packet of the interface, bytes.
    pub fn mtu(&self) -> usize {
        self.mtu
    }

    /// The name of the interface.
    pub fn interface(&self) -> &str {
        &self.interface.name
    }

    /// What carries the packets, in words: for logs.
    pub fn device(&self) -> String {
        self.device.describe()
    }

    /// Now.
    pub fn now(&self) -> Instant {
        self.device.clock().now()
    }

    /// The protocol: calls, replies, events.
    pub fn core(&mut self) -> &mut Endpoint {
        &mut self.core
    }

    /// Has the way to `addr` known before the first packet, waiting up to `wait` for the network's answer.
    ///
    /// # Errors
    ///
    /// If there is no route by this interface, or nobody answers.
    pub fn resolve(&mut self, addr: IpAddr, wait: Duration) -> Result<(), ResolveError> {
        let now = self.now();
        self.device.neighbours().resolve(now, addr, wait).map(drop)
    }

    /// Receives, does what is due, and sends; never blocks. True if there was anything to do.
    ///
    /// # Errors
    ///
    /// None today; what fails to be sent is counted in the metrics.
    #[inline]
    pub fn turn(&mut self) -> io::Result<bool> {
        let now = self.tell_time();
        if self.window.is_open() {
            self.look_at_trace();
        }
        if now >= self.next_look {
            self.follow_changes(now);
        }
        self.core.set_slept(std::mem::take(&mut self.slept));
        let Some(links) = &self.links else { return Ok(self.device.turn(&mut self.core, now)) };
        let handed = links.receive(now, &mut self.core);
        let busy = self.device.turn(&mut self.core, now);
        links.send(&mut self.core);
        Ok(handed || busy)
    }

    /// Changes [`HostConfig::poll`].
    pub fn set_poll(&mut self, poll: Nanos) {
        self.poll = poll;
    }

    /// Sends what calls and replies since the last turn have left to send. If that is nothing, waits until a packet
    /// comes, a timer of the protocol is due, `until` has come or a [`Waker`] calls, if there are no events: spins for at most the time given
    /// as [`HostConfig::poll`], then sleeps.
    ///
    /// # Errors
    ///
    /// Those of `ppoll`.
    pub fn wait(&mut self, until: Option<Instant>) -> io::Result<()> {
        let start = self.tell_time();
        let sent = self.device.transmit(&mut self.core, start);
        // Room that has become free is news.
        if self.core.settle() || sent {
            return Ok(());
        }
        let until = match (until, self.core.next_deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let until = if self.device.is_blocked() {
            Some(until.map_or(start + BLOCKED, |at| at.min(start + BLOCKED)))
        } else {
            until
        };
        let spin_end = start + self.poll;
        if !self.device.has_packet() {
            sys::prefetch(self);
        }
        let mut now = start;
        while now < spin_end {
            let called = self.wake.was_called();
            if called || self.look_for_packet() || until.is_some_and(|at| at <= now) {
                if called {
                    self.wake.reset();
                }
                self.core.metrics.poll_cycles += now.since(start).as_nanos();
                return Ok(());
            }
            if self.links.as_ref().is_some_and(|links| links.receive(now, &mut self.core)) {
                return Ok(());
            }
            now = self.now();
        }
        self.core.metrics.poll_cycles += now.since(start).as_nanos();
        if until.is_some_and(|at| at <= now) || !self.wake.may_sleep() {
            return Ok(());
        }
        let timeout = until.map(|at| Duration::from_nanos(at.since(now).as_nanos()));
        let woken = {
            let changes = self.device.neighbours().changes_fd();
            sys::wait_readable(&[self.device.raw_fd(), self.wake.fd.as_raw_fd(), changes], timeout)
        };
        self.next_look = Instant::default();
        self.wake.reset();
        sys::eventfd_clear(&self.wake.fd);
        woken?;
        self.core.metrics.blocked_cycles += self.now().since(now).as_nanos();
        self.slept = true;
        Ok(())
    }

    /// Learns what has changed in the kernel's tables and on the interface.
    #[cold]
    fn follow_changes(&mut self, now: Instant) {
        self.next_look = now + LOOK_INTERVAL;
        if !self.device.neighbours().follow() {
            return;
        }
        let Ok(all) = sys::interfaces() else { return };
        let Some(interface) = all.into_iter().find(|i| i.index == self.interface.index) else { return };
        let addrs = self.addrs.followed_by(&interface.addrs, addrs(&interface));
        let mac = interface.mac.or(self.interface.mac).unwrap_or_default();
        self.addrs = self.device.set_local(addrs, mac, self.addrs);
        let probe = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        if let Ok(mtu) = probe.and_then(|probe| sys::mtu(&probe, &interface.name)) {
            // The buffers are made for what it was at the start.
            let mtu = mtu.min(self.most_mtu);
            if mtu != self.mtu {
                self.mtu = mtu;
                self.core.set_mtu(now, mtu);
            }
        }
        self.interface = interface;
    }

    /// The packet socket, unless the device is another.
    pub(super) fn packet_socket(&self) -> Option<&OwnedFd> {
        self.device.packet_socket()
    }

    pub(super) fn set_links(&mut self, links: Links) {
        self.links = Some(links);
    }

    /// Reads the clock once for device and time trace.
    #[inline]
    fn tell_time(&mut self) -> Instant {
        let ticks = self.device.clock().ticks();
        let now = self.device.clock().at(ticks);
        self.device.set_now(now);
        self.core.trace.set_now(ticks);
        now
    }

    /// Looks at the ring some times, which together take little longer than one reading of the clock.
    #[inline]
    fn look_for_packet(&mut self) -> bool {
        const LOOKS: usize = 4;
        (0..LOOKS).any(|_| {
            let found = self.device.has_packet();
            if !found {
                std::hint::spin_loop();
            }
            found
        })
    }

    /// For other threads to end a [`Self::wait`].
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wake))
    }

    /// The metrics as text (cperf.md 4.1): times in nanoseconds, so `cpu_khz` is 1,000,000.
    pub fn metrics_text(&mut self) -> String {
        self.core.metrics.ring_drops += self.device.take_ring_drops();
        self.device.put_ring_use(&mut self.core.metrics);
        self.core.metrics.peer_dst_refreshes = self.device.neighbours().refreshes;
        self.device.refresh_real_time();
        let worker = self.worker();
        self.core.metrics.to_text(self.now().as_nanos(), NANOSECOND_KHZ, worker)
    }

    /// Begins a new time trace. It shows the last events before it is frozen, or, if `until_full`, the first from
    /// now on: it then ends by itself, between two turns, before it would overwrite any.
    pub fn unfreeze_trace(&mut self, until_full: bool) {
        self.core.trace.freeze();
        self.core.trace.unfreeze();
        self.window = Window { begin: Some((self.now(), self.core.metrics.clone())), end: None, until_full };
    }

    /// Ends the time traces of all workers of the group, those of others some microseconds later.
    pub fn freeze_traces(&mut self) {
        self.freeze_trace();
        self.core.freeze_others();
    }

    /// Ends the time trace; without effect on one that has ended.
    pub fn freeze_trace(&mut self) {
        if !self.core.trace.is_frozen() {
            self.core.trace.freeze();
        }
        if self.window.is_open() {
            self.window.end = Some((self.now(), self.core.metrics.clone()));
            self.window.until_full = false;
        }
    }

    /// Ends the time trace before it overwrites events, if it should, and notes the end of one that a packet or another
    /// worker has ended.
    fn look_at_trace(&mut self) {
        let full = self.window.until_full && self.core.trace.room() < TURN_EVENTS;
        if full || self.core.trace.is_frozen() {
            self.freeze_trace();
        }
    }

    /// What the metrics have grown by while the time trace was recorded, as text; `time_cycles` is the span in ns.
    /// Nothing if the trace has not been begun with [`Self::unfreeze_trace`] and ended, or has overwritten events:
    /// its events then are not all that happened between the two.
    pub fn trace_metrics_text(&self) -> Option<String> {
        let (Some((begin, before)), Some((end, after))) = (&self.window.begin, &self.window.end) else { return None };
        let whole = self.core.trace.overwritten() == 0;
        whole.then(|| after.since(before).to_text(end.since(*begin).as_nanos(), NANOSECOND_KHZ, self.worker()))
    }

    /// The time trace.
    pub fn trace(&mut self) -> &mut Recorder {
        &mut self.core.trace
    }

    /// A copy of the time trace, and its clock's rate in ticks per nanosecond: for
    /// [`write_merged`](crate::trace::write_merged).
    pub fn copy_trace(&self) -> (Recorder, f64) {
        (self.core.trace.clone(), self.device.clock().ticks_per_nano())
    }

    /// Which worker of its group this is: the core that metrics name.
    fn worker(&self) -> u16 {
        self.core.config().shard.index() as u16
    }

    /// Writes the time trace as `.tt` text.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_trace(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.core.trace.write_tt(out, self.device.clock().ticks_per_nano())
    }
}

/// The first RPC id and client port of a host with this seed. The id's top bits stay clear, so that ids never wrap.
fn beginnings(seed: u64) -> (u64, u16) {
    let first = spread(seed);
    (first >> 2 << 1, spread(first) as u16)
}

/// A number far from those of the seeds next to `seed` (SplitMix64).
fn spread(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The interface named, or the only one that will do, and its addresses.
pub(super) fn choose(name: Option<&str>) -> Result<(Interface, Addrs), OpenError> {
    let all = sys::interfaces().map_err(|source| OpenError::System { what: "the list of interfaces", source })?;
    let usable = |i: &Interface| i.is_up && !i.is_loopback && addrs(i).main().is_some();
    let names = |list: &[&Interface]| match list {
        [] => "none".to_owned(),
        some => some.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", "),
    };
    let chosen = if let Some(name) = name {
        let every: Vec<_> = all.iter().collect();
        let missing = || OpenError::NoSuchInterface { name: name.to_owned(), present: names(&every) };
        all.iter().find(|i| i.name == name).ok_or_else(missing)?
    } else {
        match all.iter().filter(|i| usable(i)).collect::<Vec<_>>()[..] {
            [only] => only,
            ref several => return Err(OpenError::ChooseInterface { usable: names(several) }),
        }
    };
    if !chosen.is_up {
        return Err(OpenError::Down(chosen.name.clone()));
    }
    let addrs = addrs(chosen);
    if addrs.main().is_none() {
        return Err(OpenError::NoAddress(chosen.name.clone()));
    }
    Ok((chosen.clone(), addrs))
}

/// `addrs`, with `addr` for its IP version.
fn with_address(interface: &Interface, addrs: Addrs, addr: IpAddr) -> Result<Addrs, OpenError> {
    if !interface.addrs.contains(&addr) {
        let present = interface.addrs.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
        return Err(OpenError::NoSuchAddress { interface: interface.name.clone(), addr, present });
    }
    Ok(match addr {
        IpAddr::V4(v4) => Addrs { v4: Some(v4), ..addrs },
        IpAddr::V6(v6) => Addrs { v6: Some(v6), ..addrs },
    })
}

/// The first address of each IP version; of IPv6 one that is valid beyond the link, if there is one.
fn addrs(interface: &Interface) -> Addrs {
    let v4 = interface.addrs.iter().find_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None });
    let v6 = |wanted: fn(&Ipv6Addr) -> bool| {
        let mut all = interface.addrs.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None });
        all.find(wanted)
    };
    Addrs { v4, v6: v6(|a| !a.is_unicast_link_local()).or_else(|| v6(|_| true)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_different_seeds_begin_with_other_ids_and_ports() {
        let all: Vec<_> = (0..1_000).map(beginnings).collect();
        let apart = |a: u64, b: u64| a.abs_diff(b) > 1 << 32;
        assert!(all.iter().all(|(id, _)| id % 2 == 0 && *id < 1 << 63));
        assert!(all.windows(2).all(|pair| apart(pair[0].0, pair[1].0)), "no two lives of a host meet");
        let ports: std::collections::HashSet<_> = all.iter().map(|(_, port)| port | 0x8000).collect();
        assert!(ports.len() > 950, "{} ports of 1000 hosts", ports.len());
        assert_eq!(beginnings(7), beginnings(7));
    }
}
