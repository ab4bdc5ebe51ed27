//! One measurement of a simulated cluster as data. Names of fields are those of parameters in experiment files.

use std::collections::BTreeMap;

use clap::ValueEnum;
use cp_node::workload::MAX_MESSAGE;
use serde::{Deserialize, Serialize};

use crate::cli::Protocol;

/// Everything that the result of a measurement depends on, besides the simulator itself.
///
/// What is `None` is filled in by [`SimSpec::resolved`](crate::sim::check).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimSpec {
    /// `homa`, `tcp` or `dctcp`.
    pub protocol: Protocol,
    /// Lengths of requests: a named workload, or a length in bytes.
    pub workload: String,
    /// Longer messages are cut to this.
    pub max_message_bytes: u32,
    /// Points of the workload's distribution are kept if they add this share of the messages; 0 keeps all.
    pub min_fraction: f64,
    /// Hosts.
    pub nodes: u32,
    /// How many of them are clients: the last; 0: all.
    pub client_nodes: u32,
    /// How many are servers: the first; 0: all.
    pub server_nodes: u32,
    /// Message payload per node and direction, 10^9 bit/s: requests and responses, or one-way messages; 0: as much as
    /// `client_max` allows.
    pub gbps: Option<f64>,
    /// Instead of `gbps`: share of the host's link, with headers and framing.
    pub load: Option<f64>,
    /// Another protocol that loads the same nodes at the same time with the same workload: `tcp` or `dctcp` beside `homa`,
    /// or `homa` beside one of these. Results are those of `protocol`.
    pub beside: Option<Protocol>,
    /// Payload per node and direction of the other one, 10^9 bit/s.
    pub beside_gbps: f64,
    /// Messages have no responses: their time ends when the server has them.
    pub one_way: bool,
    /// Most requests outstanding from a node.
    pub client_max: u32,
    /// Client ports of a node.
    pub client_ports: Option<u16>,
    /// Server ports of a node.
    pub server_ports: Option<u16>,
    /// All random numbers come from it.
    pub seed: u64,
    /// Time under load before measuring starts.
    pub warmup_s: f64,
    /// Measured interval, in virtual time; with `converge_within` the longest one.
    pub measure_s: f64,
    /// Stop earlier, once mean and P99 of slowdown differ by less than this share between the first half and all of what
    /// was measured, looked at every tenth of `measure_s` and four times at least; 0: never.
    pub converge_within: f64,
    /// How hosts and switches are joined.
    pub topology: TopologyKind,
    /// leaf-spine: racks; `nodes` are spread over them evenly.
    pub racks: u32,
    /// leaf-spine: spine switches.
    pub spines: u32,
    /// leaf-spine: rate of each link between rack and spine, 10^9 bit/s.
    pub spine_gbps: f64,
    /// leaf-spine: how packets choose a spine.
    pub routing: RoutingKind,
    /// False: links are as fast as the machine that they are on; simulated ones cannot be.
    pub shaped: bool,
    /// Rate of each host's link, 10^9 bit/s.
    pub link_gbps: f64,
    /// Delay of each link in one direction, ns.
    pub link_delay_ns: u64,
    /// Longest IP packet, header included.
    pub mtu_bytes: u32,
    /// Memory of each switch, shared by all its ports.
    pub switch_buffer_bytes: u64,
    /// A queue may grow to this times the free memory of its switch; 0: to its end.
    pub switch_alpha: f64,
    /// Share of the packets that switches lose at random.
    pub loss: f64,
    /// DCTCP: switches mark packets whose queue has this many bytes or more.
    pub dctcp_threshold_bytes: u64,
    /// What hosts add to the network.
    pub host_model: HostKind,
    /// Parameters of Homa by name, over the simulator's defaults.
    pub homa: BTreeMap<String, u64>,
    /// Options of nodes that are real, by name: see [`NODE`](crate::sim::check::NODE).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node: BTreeMap<String, serde_json::Value>,
}

impl Default for SimSpec {
    /// A rack of the published clusters: 25 Gbps, MTU 3000, 13.2 MB of switch memory, hosts with the delays measured there.
    fn default() -> Self {
        Self {
            protocol: Protocol::Homa,
            workload: "w4".to_owned(),
            max_message_bytes: MAX_MESSAGE,
            min_fraction: 0.0025,
            nodes: DEFAULT_NODES,
            client_nodes: 0,
            server_nodes: 0,
            gbps: None,
            load: None,
            beside: None,
            beside_gbps: 0.0,
            one_way: false,
            client_max: 200,
            client_ports: None,
            server_ports: None,
            seed: 1,
            warmup_s: DEFAULT_WARMUP_S,
            measure_s: DEFAULT_MEASURE_S,
            converge_within: 0.0,
            topology: TopologyKind::Tor,
            racks: 9,
            spines: 4,
            spine_gbps: 40.0,
            routing: RoutingKind::Spray,
            shaped: true,
            link_gbps: DEFAULT_LINK_GBPS,
            link_delay_ns: 250,
            mtu_bytes: DEFAULT_MTU,
            switch_buffer_bytes: DEFAULT_BUFFER,
            switch_alpha: 0.0,
            loss: 0.0,
            dctcp_threshold_bytes: DEFAULT_THRESHOLD,
            host_model: HostKind::Xl170,
            homa: BTreeMap::new(),
            node: BTreeMap::new(),
        }
    }
}

/// Nodes if nothing is said.
pub const DEFAULT_NODES: u32 = 10;
/// Warm-up if nothing is said.
pub const DEFAULT_WARMUP_S: f64 = 0.02;
/// Measured interval if nothing is said.
pub const DEFAULT_MEASURE_S: f64 = 0.1;
/// Link rate if nothing is said.
pub const DEFAULT_LINK_GBPS: f64 = 25.0;
/// Longest packet if nothing is said: that of the published cluster.
pub const DEFAULT_MTU: u32 = 3000;
/// Memory of the published cluster's switch.
pub const DEFAULT_BUFFER: u64 = 13_200_000;
/// Threshold of the published cluster's switch.
pub const DEFAULT_THRESHOLD: u64 = 78_000;

/// How hosts and switches are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TopologyKind {
    /// All hosts on one switch
    Tor,
    /// Racks with a switch each, joined by spine switches
    LeafSpine,
}

/// How packets choose a spine switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoutingKind {
    /// Each packet at random
    Spray,
    /// All packets of a flow the same way
    Ecmp,
}

/// What hosts add to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKind {
    /// Nothing: no delays, endless cores
    Ideal,
    /// Delays, cores and noise as measured on CloudLab's xl170 machines
    Xl170,
}

impl SimSpec {
    /// Names of all parameters, without those of Homa.
    pub fn names() -> Vec<String> {
        let all = serde_json::to_value(Self::default()).expect("strings, numbers and lists only");
        all.as_object().expect("a struct is an object").keys().cloned().collect()
    }

    /// The same with parameter `name` set to `value`; `homa.NAME` sets a parameter of Homa.
    ///
    /// # Errors
    /// What is wrong with the name (and which is near) or the value.
    pub fn with(&self, name: &str, value: &serde_json::Value) -> Result<Self, String> {
        let mut all = serde_json::to_value(self).expect("strings, numbers and lists only");
        let fields = all.as_object_mut().expect("a struct is an object");
        if let Some(parameter) = name.strip_prefix("homa.") {
            fields["homa"][parameter] = value.clone();
            super::check::homa(parameter, value)?;
        } else if let Some(option) = name.strip_prefix("node.") {
            super::check::node(option)?;
            let options = fields.entry("node").or_insert_with(|| serde_json::json!({}));
            options[option] = value.clone();
        } else if fields.contains_key(name) {
            // A length is a workload too.
            let text = value.as_u64().filter(|_| name == "workload").map(|length| length.to_string().into());
            fields[name] = text.unwrap_or_else(|| value.clone());
        } else {
            let names = Self::names();
            let near = crate::error::nearest(name, names.iter().map(String::as_str));
            return Err(format!("no parameter `{name}`; did you mean `{near}`? there are {}", names.join(", ")));
        }
        // A load replaces the other kind of load.
        match name {
            "gbps" => fields["load"] = serde_json::Value::Null,
            "load" => fields["gbps"] = serde_json::Value::Null,
            _ => {}
        }
        serde_json::from_value(all).map_err(|err| format!("{name} = {value}: {err}"))
    }

    /// How many nodes are clients, and how many servers.
    pub fn roles(&self) -> (u32, u32) {
        let of = |some: u32| if some == 0 { self.nodes } else { some };
        (of(self.client_nodes), of(self.server_nodes))
    }

    /// True if not every node is client and server.
    pub fn has_roles(&self) -> bool {
        self.roles() != (self.nodes, self.nodes)
    }

    /// Payload per node and direction, 10^9 bit/s, if all nodes' requests together make `requests_gbps`: on links to
    /// nodes that are client and server there are as many bytes of responses, if there are any; otherwise the fewer of
    /// clients and servers have most to carry. Source: cperf.md 2.6.
    pub fn payload_gbps(&self, requests_gbps: f64) -> f64 {
        requests_gbps * self.payload_share()
    }

    /// Requests of each client, 10^9 bit/s, that make the load which is asked for.
    pub fn client_gbps(&self) -> f64 {
        let (clients, _) = self.roles();
        self.gbps.unwrap_or(0.0) / self.payload_share() / f64::from(clients)
    }

    fn payload_share(&self) -> f64 {
        let (clients, servers) = self.roles();
        match (self.has_roles(), self.one_way) {
            (true, _) => 1.0 / f64::from(clients.min(servers)),
            (false, true) => 1.0 / f64::from(self.nodes),
            (false, false) => 2.0 / f64::from(self.nodes),
        }
    }

    /// As JSON without spaces, always the same for the same measurement: what its identity is computed from.
    pub fn canonical(&self) -> String {
        serde_json::to_string(self).expect("strings, numbers and lists only")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_are_set_by_name() {
        let spec = SimSpec::default();
        let other = spec.with("nodes", &json!(40)).unwrap().with("homa.window", &json!(0)).unwrap();
        assert_eq!((other.nodes, other.homa["window"]), (40, 0));
        assert_eq!(spec.with("protocol", &json!("dctcp")).unwrap().protocol, Protocol::Dctcp);
        assert_eq!(spec.with("workload", &json!(500)).unwrap().workload, "500");
        let loaded = spec.with("gbps", &json!(20)).unwrap().with("load", &json!(0.8)).unwrap();
        assert_eq!((loaded.gbps, loaded.load), (None, Some(0.8)), "the later kind of load counts");
        let polling = spec.with("node.poll_usecs", &json!(50)).unwrap();
        assert_eq!(polling.node["poll_usecs"], 50);
        assert!(spec.with("node.pol_usecs", &json!(50)).unwrap_err().contains("did you mean `poll_usecs`"));
    }

    #[test]
    fn a_load_is_what_the_busiest_links_carry() {
        let of = |client_nodes, server_nodes, one_way| {
            let spec =
                SimSpec { nodes: 10, gbps: Some(20.0), client_nodes, server_nodes, one_way, ..SimSpec::default() };
            let requests = spec.client_gbps() * f64::from(spec.roles().0);
            assert!((spec.payload_gbps(requests) - 20.0).abs() < 1e-9);
            spec.client_gbps()
        };
        assert_eq!((of(0, 0, false), of(0, 0, true)), (10.0, 20.0), "half of it is responses, if there are any");
        assert_eq!((of(1, 9, false), of(8, 2, false), of(5, 5, false)), (20.0, 5.0, 20.0));
    }

    #[test]
    fn wrong_names_and_values_are_told_with_what_is_expected() {
        let spec = SimSpec::default();
        for (name, value, part) in [
            ("node", json!(4), "did you mean `nodes`"),
            ("link_gbp", json!(4), "did you mean `link_gbps`"),
            ("nodes", json!("many"), "nodes = \"many\": invalid type"),
            ("nodes", json!(-1), "nodes = -1"),
            ("protocol", json!("tpc"), "unknown variant `tpc`"),
            ("homa.windw", json!(1), "no parameter `windw`"),
            ("homa.max_overcommit", json!(9), "from 1 to 8"),
        ] {
            let error = spec.with(name, &value).unwrap_err();
            assert!(error.contains(part), "{name} = {value}: {error}");
        }
    }

    #[test]
    fn the_canonical_form_tells_every_difference() {
        let spec = SimSpec::default();
        assert_eq!(spec.canonical(), spec.clone().canonical());
        let seeded = SimSpec { seed: 2, ..spec.clone() };
        assert_ne!(spec.canonical(), seeded.canonical());
        let back: SimSpec = serde_json::from_str(&seeded.canonical()).unwrap();
        assert_eq!(back, seeded);
    }
}
