//! Which specifications make sense, and what is filled in where nothing is said.

use cp_node::parameters::Parameter;
use cp_node::workload::{Distribution, Reduction, Workload};
use serde_json::Value;

use super::spec::{SimSpec, TopologyKind};
use crate::cli::Protocol;

/// Most nodes: the message format of the benchmark has one byte for a node's number.
pub const MOST_NODES: u32 = 256;
/// Longest measured interval, seconds of virtual time.
const LONGEST_S: f64 = 3600.0;
/// Payload per node and direction at which the published cluster ran each workload, 10^9 bit/s on links of 25: a share
/// of 80 % where cores could keep up.
const STANDARD: [(&str, f64); 6] =
    [("w1", 1.4), ("w2", 3.2), ("w3", 14.0), ("w4", 20.0), ("w5", 20.0), ("starve", 20.0)];
/// The rule, for `--help` and logs.
pub const RULE: &str = "w1 1.4, w2 3.2, w3 14, w4, w5 and starve 20 Gbps on links of 25, in proportion on others: the \
                        loads of the published measurements; other lengths 80 % of the link, framing included";

/// Whether `name` is a parameter of Homa and takes `value`.
///
/// # Errors
/// What there is and what it takes.
pub fn homa(name: &str, value: &Value) -> Result<Parameter, String> {
    if !Parameter::names().any(|known| known == name) {
        let near = crate::error::nearest(name, Parameter::names());
        let all: Vec<_> = Parameter::names().collect();
        return Err(format!("Homa has no parameter `{name}`; did you mean `{near}`? there are {}", all.join(", ")));
    }
    format!("{name}={value}").parse()
}

/// Options of real nodes, as parameters `node.NAME`, and what each says. Simulated nodes have none of them.
pub const NODE: [(&str, &str); 8] = [
    ("poll_usecs", "longest time that a node spins before it sleeps, us"),
    ("homa_workers", "threads with a Homa stack of their own"),
    ("device", "what carries Homa's packets: af-packet, af-xdp"),
    ("tcp_port_receivers", "receiving threads of a TCP client port"),
    ("tcp_port_threads", "threads of a TCP server port"),
    ("tcp_wait", "how TCP threads wait: epoll, spin"),
    ("tcp_cc", "TCP congestion control"),
    ("cpu_latency_us", "cores may not sleep deeper than what ends within so long, us"),
];

/// Whether `name` is an option of real nodes.
///
/// # Errors
/// What there is.
pub fn node(name: &str) -> Result<(), String> {
    let names = || NODE.iter().map(|(name, _)| *name);
    if names().any(|known| known == name) {
        return Ok(());
    }
    let (near, all) = (crate::error::nearest(name, names()), names().collect::<Vec<_>>().join(", "));
    Err(format!("nodes have no option `{name}`; did you mean `{near}`? there are {all}"))
}

impl SimSpec {
    /// The lengths that it draws.
    ///
    /// # Errors
    /// The workload does not exist.
    pub fn lengths(&self) -> Result<Distribution, String> {
        Ok(Distribution::new(self.workload()?, self.reduction()))
    }

    /// What it draws lengths from.
    pub(super) fn workload(&self) -> Result<Workload, String> {
        self.workload.parse().map_err(|err| format!("workload: {err}"))
    }

    /// How it thins and cuts the workload's points.
    pub(super) fn reduction(&self) -> Reduction {
        Reduction { min_fraction: self.min_fraction, max_len: self.max_message_bytes, ..Reduction::default() }
    }

    /// The same with everything filled in that nothing was said about, and checked.
    ///
    /// # Errors
    /// Names the parameter, what it is and what it may be.
    pub fn resolved(&self) -> Result<Self, String> {
        let mut spec = self.clone();
        self.check()?;
        let (client, server) = match self.protocol {
            Protocol::Homa | Protocol::HomaKernel => (3, 3),
            Protocol::Tcp | Protocol::Dctcp => (4, 8),
        };
        spec.client_ports.get_or_insert(client);
        spec.server_ports.get_or_insert(server);
        if spec.gbps.is_none() {
            spec.gbps = Some(match self.load {
                Some(load) => self.of_link(load)?,
                None => self.standard()?,
            });
            spec.load = None;
        }
        if self.beside.is_none() {
            spec.beside_gbps = 0.0;
        }
        let speaks = |protocol| self.protocol == protocol || self.beside == Some(protocol);
        if !speaks(Protocol::Homa) {
            spec.homa.clear(); // they have no part in it: the same measurement whatever they are
        }
        if !speaks(Protocol::Dctcp) {
            spec.dctcp_threshold_bytes = 0;
        }
        // All of them are the same as nothing said.
        let all_to_none = |some: u32| if some == self.nodes { 0 } else { some };
        spec.client_nodes = all_to_none(self.client_nodes);
        spec.server_nodes = all_to_none(self.server_nodes);
        if self.topology == TopologyKind::Tor {
            let Self { racks, spines, spine_gbps, routing, .. } = Self::default();
            spec = Self { racks, spines, spine_gbps, routing, ..spec };
        }
        Ok(spec)
    }

    /// Payload that makes the share `load` of a host's link, with headers and framing: 10^9 bit/s.
    fn of_link(&self, load: f64) -> Result<f64, String> {
        Ok(load * self.link_gbps / (1.0 + self.lengths()?.overhead(self.mtu_bytes)))
    }

    /// The load by [`RULE`].
    fn standard(&self) -> Result<f64, String> {
        match STANDARD.iter().find(|(name, _)| *name == self.workload) {
            Some((_, gbps)) => Ok(gbps * self.link_gbps / 25.0),
            None => self.of_link(0.8),
        }
    }

    /// Refuses what cannot be run.
    fn check(&self) -> Result<(), String> {
        self.lengths()?;
        let within = |name: &str, value: f64, least: f64, most: f64| {
            let good = (least..=most).contains(&value);
            if good { Ok(()) } else { Err(format!("{name} is {value}: from {least} to {most} is possible")) }
        };
        within("nodes", self.nodes.into(), 2.0, MOST_NODES.into())?;
        within("client_nodes", self.client_nodes.into(), 0.0, self.nodes.into())?;
        within("server_nodes", self.server_nodes.into(), 0.0, self.nodes.into())?;
        within("max_message_bytes", self.max_message_bytes.into(), 12.0, f64::from(1 << 28))?;
        within("min_fraction", self.min_fraction, 0.0, 0.5)?;
        within("client_max", self.client_max.into(), 1.0, 65_000.0)?;
        within("client_ports", self.client_ports.unwrap_or(1).into(), 1.0, 255.0)?;
        within("server_ports", self.server_ports.unwrap_or(1).into(), 1.0, 255.0)?;
        within("gbps", self.gbps.unwrap_or(0.0), 0.0, 10_000.0)?;
        if let Some(load) = self.load {
            within("load", load, 1e-6, 1.0)?;
        }
        within("beside_gbps", self.beside_gbps, 0.0, 10_000.0)?;
        if let Some(other) = self.beside {
            if (self.protocol == Protocol::Homa) == (other == Protocol::Homa) {
                let (one, other) = (self.protocol.name(), other.name());
                return Err(format!(
                    "beside is {other}: beside {one} one of homa on the one hand, tcp and dctcp on the other"
                ));
            }
            if self.one_way || self.converge_within > 0.0 {
                return Err("beside: with it messages have responses, and there is no test of convergence".to_owned());
            }
        }
        within("warmup_s", self.warmup_s, 0.0, LONGEST_S)?;
        within("measure_s", self.measure_s, 1e-6, LONGEST_S)?;
        within("converge_within", self.converge_within, 0.0, 1.0)?;
        within("link_gbps", self.link_gbps, 0.001, 1000.0)?;
        within("link_delay_ns", self.link_delay_ns as f64, 0.0, 1e9)?;
        within("mtu_bytes", self.mtu_bytes.into(), 256.0, 9000.0)?;
        within("switch_buffer_bytes", self.switch_buffer_bytes as f64, f64::from(self.mtu_bytes) + 18.0, 1e12)?;
        within("loss", self.loss, 0.0, 0.99)?;
        within("switch_alpha", self.switch_alpha, 0.0, 1e6)?;
        for (name, value) in &self.homa {
            homa(name, &(*value).into())?;
        }
        self.node.keys().try_for_each(|name| node(name))?;
        if self.topology == TopologyKind::LeafSpine {
            within("racks", self.racks.into(), 1.0, self.nodes.into())?;
            within("spines", self.spines.into(), 1.0, 1024.0)?;
            within("spine_gbps", self.spine_gbps, 0.001, 10_000.0)?;
            if !self.nodes.is_multiple_of(self.racks) {
                let Self { nodes, racks, .. } = self;
                return Err(format!("nodes is {nodes}: it must be a multiple of racks, which is {racks}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_filled_in_by_protocol_and_link() {
        let homa = SimSpec::default().resolved().unwrap();
        assert_eq!((homa.client_ports, homa.server_ports, homa.gbps), (Some(3), Some(3), Some(20.0)));
        let tcp = SimSpec { protocol: Protocol::Tcp, link_gbps: 100.0, ..SimSpec::default() }.resolved().unwrap();
        assert_eq!((tcp.client_ports, tcp.server_ports, tcp.gbps), (Some(4), Some(8), Some(80.0)));
        let fixed = SimSpec { workload: "1000000".into(), ..SimSpec::default() }.resolved().unwrap();
        assert!((19.0..20.0).contains(&fixed.gbps.unwrap()), "{:?}", fixed.gbps);
        assert_eq!(homa.resolved().unwrap(), homa, "nothing more to fill in");
    }

    #[test]
    fn what_has_no_part_in_a_measurement_does_not_tell_it_apart() {
        let with = |protocol, threshold, racks| {
            let spec = SimSpec { protocol, dctcp_threshold_bytes: threshold, racks, ..SimSpec::default() };
            spec.with("homa.window", &7.into()).unwrap().resolved().unwrap().canonical()
        };
        let plain = |protocol| SimSpec { protocol, ..SimSpec::default() }.resolved().unwrap().canonical();
        assert_eq!(with(Protocol::Tcp, 50_000, 3), plain(Protocol::Tcp));
        assert_ne!(with(Protocol::Dctcp, 50_000, 3), plain(Protocol::Dctcp));
        assert_ne!(with(Protocol::Homa, 50_000, 3), plain(Protocol::Homa));
    }

    #[test]
    fn impossible_ones_name_the_parameter_and_its_range() {
        let default = SimSpec::default;
        for (spec, part) in [
            (SimSpec { nodes: 1, ..default() }, "nodes is 1: from 2 to 256"),
            (SimSpec { workload: "w9".into(), ..default() }, "unknown workload `w9`"),
            (SimSpec { load: Some(1.5), ..default() }, "load is 1.5"),
            (SimSpec { measure_s: f64::NAN, ..default() }, "measure_s is NaN"),
            (SimSpec { mtu_bytes: 100, ..default() }, "mtu_bytes is 100"),
            (SimSpec { switch_buffer_bytes: 3000, ..default() }, "switch_buffer_bytes is 3000"),
            (SimSpec { topology: TopologyKind::LeafSpine, nodes: 10, ..default() }, "multiple of racks, which is 9"),
            (SimSpec { homa: [("windw".to_owned(), 1)].into(), ..default() }, "did you mean `window`"),
            (SimSpec { client_max: 0, ..default() }, "client_max is 0"),
            (SimSpec { beside: Some(Protocol::Homa), ..default() }, "beside is homa"),
            (SimSpec { client_nodes: 11, ..default() }, "client_nodes is 11: from 0 to 10"),
        ] {
            let error = spec.resolved().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
