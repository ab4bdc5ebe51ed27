//! A switch: shared memory with dynamic thresholds, strict priorities at each port, marks.

//!
//! A packet that finds its port idle goes on at once; others wait in the shared memory until their first bit leaves.
//! Store and forward: a packet is there when its last bit is.

use cp_node::rng::Rng;

use super::{Link, Routing, Topology};
use crate::packet::{Ecn, HostId};
use crate::packets::{Label, NONE, Packets};
use crate::time::Time;

/// Parameters of each switch.
#[derive(Clone, Debug, PartialEq)]
pub struct SwitchConfig {
    /// Memory that all ports share, in bytes.
    pub pool: u64,
    /// A queue may grow to this times the memory that is free (dynamic threshold); infinite: to the pool's end.
    pub alpha: f64,
    /// Packets that can be marked are marked if their queue has this many bytes or more when they come; `None`: never.
    pub ecn_threshold: Option<u64>,
    /// Time from the last bit of a packet in to its place in the queue.
    pub latency: Time,
    /// Share of packets that are lost at random, 0 to 1.
    pub loss: f64,
}

impl Default for SwitchConfig {
    /// The rack switch of the published buffer study: 13.2 MB for all ports, as much of it as there is for each.
    fn default() -> Self {
        Self { pool: 13_200_000, alpha: f64::INFINITY, ecn_threshold: None, latency: Time::ZERO, loss: 0.0 }
    }
}

/// Why a switch dropped a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The shared memory had no room.
    PoolFull,
    /// Its queue was longer than the dynamic threshold.
    Threshold,
    /// It was lost at random, as [`SwitchConfig::loss`] wants.
    Random,
}

impl DropReason {
    /// All reasons, in the order of [`SwitchStats::drops`].
    pub const ALL: [Self; 3] = [Self::PoolFull, Self::Threshold, Self::Random];

    /// In words of a result file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PoolFull => "pool_full",
            Self::Threshold => "threshold",
            Self::Random => "random",
        }
    }
}

/// What happened at a port of a switch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PortStats {
    /// Packets sent.
    pub packets: u64,
    /// Bytes of frames sent.
    pub bytes: u64,
    /// Packets dropped.
    pub drops: u64,
    /// Packets marked.
    pub marks: u64,
    /// Most bytes that waited.
    pub high_water_bytes: u64,
    /// The same as time on the port's link.
    pub high_water: Time,
}

/// What happened at a switch since counting began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SwitchStats {
    /// Most bytes that waited at all ports together.
    pub high_water_bytes: u64,
    /// When that was first so.
    pub high_water_at: Time,
    /// Packets dropped, by reason in the order of [`DropReason::ALL`].
    pub drops: [u64; DropReason::ALL.len()],
    /// Packets marked.
    pub marks: u64,
    /// Of each port; those to hosts first, then those to other switches.
    pub ports: Vec<PortStats>,
}

/// What the fabric has happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// The packet comes to a switch.
    Switch { switch: u32, packet: u32 },
    /// The packet comes to its host.
    Host { packet: u32 },
    /// A port of a switch has sent a packet and has others.
    Port { port: u32 },
}

/// Where a link leads.
#[derive(Clone, Copy, Debug)]
enum End {
    Host,
    Switch(u32),
}

/// Packets of one level at one port, in a list through [`Packets`].
#[derive(Clone, Copy, Debug)]
struct Level {
    first: u32,
    last: u32,
    bytes: u64,
}

#[derive(Debug)]
struct Egress {
    link: Link,
    end: End,
    switch: u32,
    /// Levels with packets, as bits.
    full: u8,
    busy_until: Time,
    bytes: u64,
    levels: [Level; 8],
    stats: PortStats,
}

#[derive(Debug)]
struct Switch {
    /// Bytes that wait.
    used: u64,
    /// Hosts below it: the first, and how many.
    hosts: (u32, u32),
    /// Its first port of all ports, and those that lead up to spines.
    first_port: u32,
    uplinks: u32,
    stats: SwitchStats,
}

/// All switches.
#[derive(Debug)]
pub(crate) struct Fabric {
    config: SwitchConfig,
    routing: Routing,
    hosts_per_leaf: u32,
    switches: Vec<Switch>,
    ports: Vec<Egress>,
    rng: Rng,
}

impl Fabric {
    /// The switches of `topology`, each as `config` says; `rng` chooses ways.
    pub(crate) fn new(topology: &Topology, config: SwitchConfig, rng: Rng) -> Self {
        let mut fabric = Self {
            config,
            routing: Routing::Spray,
            hosts_per_leaf: topology.hosts(),
            switches: Vec::new(),
            ports: Vec::new(),
            rng,
        };
        match *topology {
            Topology::SingleTor { hosts, host_gbps, link_delay } => {
                fabric.add((0, hosts), Link::new(host_gbps, link_delay), &[], Link::new(host_gbps, link_delay));
            }
            Topology::LeafSpine {
                racks,
                hosts_per_rack,
                spines,
                host_gbps,
                spine_gbps,
                link_delay,
                spine_delay,
                routing,
            } => {
                (fabric.routing, fabric.hosts_per_leaf) = (routing, hosts_per_rack);
                let (down, across) = (Link::new(host_gbps, link_delay), Link::new(spine_gbps, spine_delay));
                let up: Vec<_> = (racks..racks + spines).collect();
                for rack in 0..racks {
                    fabric.add((rack * hosts_per_rack, hosts_per_rack), down, &up, across);
                }
                let leaves: Vec<_> = (0..racks).collect();
                for _ in 0..spines {
                    fabric.add((0, 0), down, &leaves, across);
                }
            }
        }
        fabric
    }

    fn add(&mut self, hosts: (u32, u32), down: Link, others: &[u32], across: Link) {
        let switch = self.switches.len() as u32;
        let first_port = self.ports.len() as u32;
        let latency = self.config.latency;
        let egress = |mut link: Link, end: End| {
            // The time within the next switch comes with the link to it.
            if let End::Switch(_) = end {
                link.delay += latency;
            }
            let levels = [Level { first: NONE, last: NONE, bytes: 0 }; 8];
            let stats = PortStats::default();
            Egress { link, end, switch, full: 0, busy_until: Time::ZERO, bytes: 0, levels, stats }
        };
        self.ports.extend((0..hosts.1).map(|_| egress(down, End::Host)));
        self.ports.extend(others.iter().map(|other| egress(across, End::Switch(*other))));
        let uplinks = if hosts.1 > 0 { others.len() as u32 } else { 0 };
        self.switches.push(Switch { used: 0, hosts, first_port, uplinks, stats: SwitchStats::default() });
    }

    /// The switch that `host` is on.
    pub(crate) fn leaf_of(&self, host: HostId) -> u32 {
        host.0 / self.hosts_per_leaf
    }

    /// A packet has come to a switch: goes on, waits, or is dropped. `then` is told what follows when.
    #[inline]
    pub(crate) fn arrive<S>(
        &mut self,
        now: Time,
        switch: u32,
        index: u32,
        packets: &mut Packets<S>,
        then: impl FnOnce(Time, Hop),
    ) {
        let Label { to, frame, priority, ecn, .. } = *packets.label(index);
        let port_index = self.route(switch, to, || packets.flow(index));
        let lost = self.config.loss > 0.0 && self.rng.fraction() < self.config.loss;
        let port = &mut self.ports[port_index as usize];
        if port.full == 0 && !lost && port.busy_until <= now {
            let (at, hop) = port.transmit(now, index, frame);
            packets.expect(index);
            return then(at, hop);
        }
        let bytes = u64::from(frame);
        let at = &mut self.switches[switch as usize];
        let level = &mut port.levels[usize::from(priority)];
        let free = self.config.pool.saturating_sub(at.used);
        let reason = if lost {
            Some(DropReason::Random)
        } else if bytes > free {
            Some(DropReason::PoolFull)
        } else if self.config.alpha.is_finite() && level.bytes as f64 >= self.config.alpha * free as f64 {
            Some(DropReason::Threshold)
        } else {
            None
        };
        if let Some(reason) = reason {
            at.stats.drops[reason as usize] += 1;
            port.stats.drops += 1;
            packets.take(index);
            return;
        }
        if ecn == Ecn::Capable && self.config.ecn_threshold.is_some_and(|most| level.bytes >= most) {
            packets.label(index).ecn = Ecn::Experienced;
            at.stats.marks += 1;
            port.stats.marks += 1;
        }
        level.bytes += bytes;
        at.used += bytes;
        port.bytes += bytes;
        if at.used > at.stats.high_water_bytes {
            (at.stats.high_water_bytes, at.stats.high_water_at) = (at.used, now);
        }
        port.stats.high_water_bytes = port.stats.high_water_bytes.max(port.bytes);
        let last = std::mem::replace(&mut level.last, index);
        if last == NONE {
            level.first = index
        } else {
            packets.label(last).next = index
        }
        let was_idle = port.full == 0;
        port.full |= 1 << priority;
        if was_idle {
            then(port.busy_until, Hop::Port { port: port_index });
        }
    }

    /// A port with packets is free: the first of the highest level goes.
    #[inline]
    pub(crate) fn port_free<S>(
        &mut self,
        now: Time,
        port_index: u32,
        packets: &mut Packets<S>,
        mut then: impl FnMut(Time, Hop),
    ) {
        let port = &mut self.ports[port_index as usize];
        let priority = 7 - port.full.leading_zeros() as usize;
        let level = &mut port.levels[priority];
        let index = level.first;
        let label = packets.label(index);
        let frame = label.frame;
        level.first = std::mem::replace(&mut label.next, NONE);
        level.bytes -= u64::from(frame);
        if level.first == NONE {
            level.last = NONE;
            port.full &= !(1 << priority);
        }
        port.bytes -= u64::from(frame);
        self.switches[port.switch as usize].used -= u64::from(frame);
        let (at, hop) = port.transmit(now, index, frame);
        packets.expect(index);
        then(at, hop);
        if port.full != 0 {
            then(port.busy_until, Hop::Port { port: port_index });
        }
    }

    /// Forgets all counts; high-water marks begin with what waits now.
    pub(crate) fn reset_stats(&mut self, now: Time) {
        for switch in &mut self.switches {
            switch.stats = SwitchStats { high_water_bytes: switch.used, high_water_at: now, ..SwitchStats::default() };
        }
        for port in &mut self.ports {
            port.stats = PortStats { high_water_bytes: port.bytes, ..PortStats::default() };
        }
    }

    /// Bytes that wait at each port, switch after switch.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = u64> + '_ {
        self.ports.iter().map(|port| port.bytes)
    }

    /// Counts of each switch since the last [`Self::reset_stats`].
    pub(crate) fn stats(&self) -> Vec<SwitchStats> {
        let with_ports = |(index, switch): (usize, &Switch)| {
            let own = self.ports.iter().filter(|port| port.switch as usize == index);
            let ports = own.map(|port| {
                let high_water = port.link.time(port.stats.high_water_bytes);
                PortStats { high_water, ..port.stats.clone() }
            });
            SwitchStats { ports: ports.collect(), ..switch.stats.clone() }
        };
        self.switches.iter().enumerate().map(with_ports).collect()
    }

    /// The port by which a packet to `to` leaves `switch`; `flow` is looked at only where there is a choice by it.
    #[inline]
    fn route(&mut self, switch: u32, to: HostId, flow: impl Fn() -> u64) -> u32 {
        let Switch { hosts, first_port, uplinks, .. } = self.switches[switch as usize];
        let below = to.0.wrapping_sub(hosts.0);
        if below < hosts.1 {
            return first_port + below;
        }
        if uplinks == 0 {
            return first_port + self.leaf_of(to);
        }
        let choice = match self.routing {
            Routing::Spray => self.rng.below(uplinks as usize) as u32,
            Routing::Ecmp => mix(flow()) % uplinks,
        };
        first_port + hosts.1 + choice
    }
}

impl Egress {
    /// Sends a packet, which is there when the link has brought it.
    #[inline]
    fn transmit(&mut self, now: Time, packet: u32, frame: u32) -> (Time, Hop) {
        self.busy_until = now + self.link.frame_time(frame);
        self.stats.packets += 1;
        self.stats.bytes += u64::from(frame);
        let hop = match self.end {
            End::Host => Hop::Host { packet },
            End::Switch(switch) => Hop::Switch { switch, packet },
        };
        (self.busy_until + self.link.delay, hop)
    }
}

/// A number that differs in half of its bits for flows that differ in one (the end of SplitMix64).
pub(crate) fn mix(flow: u64) -> u32 {
    let flow = (flow ^ (flow >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let flow = (flow ^ (flow >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (flow >> 32) as u32
}
