//! What is modelled and what is not: for the simulator, and for whoever reads a manifest.

use homa_sim::host::HostModel;
use serde_json::{Value, json};

use super::spec::{HostKind, SimSpec, TopologyKind};

/// The simulator's parameters of hosts.
pub fn host(kind: HostKind) -> HostModel {
    match kind {
        HostKind::Ideal => HostModel::default(),
        HostKind::Xl170 => HostModel::xl170(),
    }
}

/// What a reader of the results needs to know about a simulated testbed.
pub fn facts(spec: &SimSpec) -> Value {
    let hosts = match spec.host_model {
        HostKind::Ideal => "ideal: no delays, endless cores; the NIC's queue is bounded in time",
        HostKind::Xl170 => {
            "xl170: send, interrupt, SoftIRQ and wake-up delays by percentiles measured on CloudLab xl170 machines, \
             receiving cores by flow with a cost a packet and a batch, gaps by system management interrupts"
        }
    };
    let topology = match spec.topology {
        TopologyKind::Tor => "all hosts on one switch".to_owned(),
        TopologyKind::LeafSpine => format!(
            "{} racks of {} hosts, {} spine switches, {} Gbps between",
            spec.racks,
            spec.nodes / spec.racks,
            spec.spines,
            spec.spine_gbps
        ),
    };
    json!({
        "kind": "sim",
        "simulator": crate::experiment::SIMULATOR,
        "topology": topology,
        "link_gbps": spec.link_gbps,
        "link_delay_ns": spec.link_delay_ns,
        "switch_buffer_bytes": spec.switch_buffer_bytes,
        "host_model": spec.host_model,
        "modelled": [
            "links: rate, delay, preamble, frame header, checksum and gap of each packet; store and forward",
            "switches: memory shared by all ports with dynamic thresholds, eight strict priorities a port, marks by queue length, drops",
            hosts,
            "homa: homa-stack's own protocol core, unmodified, through its device interface",
            "tcp: cubic with selective acknowledgements, retransmission timeouts, delayed acknowledgements; dctcp on top",
        ],
        "not_modelled": [
            "bit errors and links that go down",
            "time of applications between a message and its response",
            "memory bandwidth, caches and NUMA of hosts; power management",
            "packet headers beyond their length; routing protocols",
        ],
    })
}
