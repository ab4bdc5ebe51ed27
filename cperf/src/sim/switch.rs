//! What happened at the switches of a simulated cluster.

use std::collections::BTreeMap;

use homa_sim::cluster::ClusterRun;
use homa_sim::fabric::{DropReason, PortStats};
use serde::{Deserialize, Serialize};

use super::spec::SimSpec;

/// What happened at the switches over the measured interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Switch {
    /// Most bytes that waited at all ports of a switch at once.
    pub buffer_max_bytes: u64,
    /// The same as time on all its ports to hosts together.
    pub buffer_max_us: f64,
    /// When in virtual time that was.
    pub buffer_max_at_s: f64,
    /// Most bytes that waited at one port.
    pub port_max_bytes: u64,
    /// Most that waited at one port as time on its link.
    pub port_max_us: f64,
    /// Packets sent by all ports.
    pub packets: u64,
    /// Packets dropped, by reason.
    pub dropped_packets: BTreeMap<String, u64>,
    /// Packets marked.
    pub marked_packets: u64,
    /// Most bytes that waited at each port to a host, in order of the hosts.
    pub host_port_max_bytes: Vec<u64>,
}

impl Switch {
    /// Figures of all switches of a run.
    pub fn new(run: &ClusterRun, spec: &SimSpec) -> Self {
        let switches = &run.switches;
        let fullest = switches.iter().max_by_key(|switch| switch.high_water_bytes);
        let buffer_max_bytes = fullest.map_or(0, |switch| switch.high_water_bytes);
        let ports = || switches.iter().flat_map(|switch| &switch.ports);
        let racks = if switches.len() > 1 { spec.racks as usize } else { 1 };
        let in_rack = spec.nodes as usize / racks;
        let dropped = |at: usize| switches.iter().map(|switch| switch.drops[at]).sum();
        let hosts = switches.iter().take(racks).flat_map(|switch| switch.ports.iter().take(in_rack));
        // All links of a rack's hosts together.
        let bytes_per_us = spec.link_gbps * 1e3 / 8.0 * in_rack as f64;
        Self {
            buffer_max_bytes,
            buffer_max_us: buffer_max_bytes as f64 / bytes_per_us,
            buffer_max_at_s: fullest.map_or(0.0, |switch| switch.high_water_at.as_secs_f64()),
            port_max_bytes: ports().map(|port| port.high_water_bytes).max().unwrap_or(0),
            port_max_us: ports().map(|port| port.high_water.as_micros_f64()).fold(0.0, f64::max),
            packets: ports().map(|port| port.packets).sum(),
            dropped_packets: (0..)
                .zip(DropReason::ALL)
                .map(|(at, reason)| (reason.name().to_owned(), dropped(at)))
                .collect(),
            marked_packets: switches.iter().map(|switch| switch.marks).sum(),
            host_port_max_bytes: hosts.map(|port: &PortStats| port.high_water_bytes).collect(),
        }
    }

    /// All drops.
    pub fn drops(&self) -> u64 {
        self.dropped_packets.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use homa_sim::fabric::SwitchStats;
    use homa_sim::time::Time;

    #[test]
    fn a_switchs_figures_are_those_of_its_fullest_moment() {
        let port = |high_water_bytes, us| PortStats {
            packets: 10,
            high_water_bytes,
            high_water: Time::from_micros(us),
            ..PortStats::default()
        };
        let tor = SwitchStats {
            high_water_bytes: 62_500,
            high_water_at: Time::from_millis(3),
            drops: [1, 2, 0],
            marks: 5,
            ports: vec![port(40_000, 13), port(30_000, 10)],
        };
        let run = ClusterRun { switches: vec![tor], ..ClusterRun::default() };
        let spec = SimSpec { nodes: 2, ..SimSpec::default() };
        let switch = Switch::new(&run, &spec);
        // Two links of 25 Gbps carry 6250 bytes a microsecond.
        assert_eq!((switch.buffer_max_bytes, switch.buffer_max_us, switch.buffer_max_at_s), (62_500, 10.0, 0.003));
        assert_eq!((switch.port_max_bytes, switch.port_max_us, switch.packets), (40_000, 13.0, 20));
        assert_eq!((switch.drops(), switch.marked_packets), (3, 5));
        assert_eq!(switch.host_port_max_bytes, [40_000, 30_000]);
    }
}
