//! How hosts and switches are joined.

use crate::time::Time;

/// How a packet chooses among ways of equal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// Each packet by a random number.
    Spray,
    /// Packets of a flow all the same way, by a hash of `Packet::flow`.
    Ecmp,
}

/// Hosts, switches and links.
#[derive(Clone, Debug, PartialEq)]
pub enum Topology {
    /// All hosts on one switch.
    SingleTor {
        /// Hosts.
        hosts: u32,
        /// Rate of each host's link, in Gbit/s.
        host_gbps: f64,
        /// Delay of a link, in one direction.
        link_delay: Time,
    },
    /// Racks with a switch each, joined by spines.
    LeafSpine {
        /// Racks.
        racks: u32,
        /// Hosts in a rack.
        hosts_per_rack: u32,
        /// Spine switches, each with a link to each rack.
        spines: u32,
        /// Rate of each host's link, in Gbit/s.
        host_gbps: f64,
        /// Rate of each link between rack and spine, in Gbit/s.
        spine_gbps: f64,
        /// Delay of a link between host and rack switch, in one direction.
        link_delay: Time,
        /// Delay of a link between rack and spine, in one direction.
        spine_delay: Time,
        /// Choice of the spine.
        routing: Routing,
    },
}

impl Topology {
    /// One switch, 25 Gbit/s to each host, 250 ns a link: a rack of the published clusters.
    pub fn rack(hosts: u32) -> Self {
        Self::SingleTor { hosts, host_gbps: 25.0, link_delay: Time::from_nanos(250) }
    }

    /// The 144 hosts of the SIGCOMM 2018 study: 9 racks of 16, 4 spines, 10 and 40 Gbit/s, 250 ns a link.
    pub fn sigcomm18() -> Self {
        Self::LeafSpine {
            racks: 9,
            hosts_per_rack: 16,
            spines: 4,
            host_gbps: 10.0,
            spine_gbps: 40.0,
            link_delay: Time::from_nanos(250),
            spine_delay: Time::from_nanos(250),
            routing: Routing::Spray,
        }
    }

    /// Hosts in all.
    pub fn hosts(&self) -> u32 {
        match *self {
            Self::SingleTor { hosts, .. } => hosts,
            Self::LeafSpine { racks, hosts_per_rack, .. } => racks.saturating_mul(hosts_per_rack),
        }
    }

    /// Rate of each host's link, in Gbit/s.
    pub fn host_gbps(&self) -> f64 {
        match *self {
            Self::SingleTor { host_gbps, .. } | Self::LeafSpine { host_gbps, .. } => host_gbps,
        }
    }

    /// Delay of a host's link, in one direction.
    pub fn link_delay(&self) -> Time {
        match *self {
            Self::SingleTor { link_delay, .. } | Self::LeafSpine { link_delay, .. } => link_delay,
        }
    }
}
