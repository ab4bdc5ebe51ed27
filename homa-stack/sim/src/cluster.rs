//! A whole measurement: what it is, what comes of it.

use std::ops::ControlFlow;

use cp_node::samples::Sample;
use cp_node::workload::{Reduction, Workload};

use crate::fabric::{SwitchConfig, SwitchStats, Topology};
use crate::host::HostModel;
use crate::tcp::TcpConfig;
use crate::time::Time;

/// What the nodes speak.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// The protocol core with these parameters.
    Homa(Box<homa_stack::Config>),
    /// TCP cubic.
    Tcp(TcpConfig),
    /// DCTCP; the switches mark at [`SwitchConfig::ecn_threshold`].
    Dctcp(TcpConfig),
}

/// When the measured interval ends.
#[derive(Clone, Debug, PartialEq)]
pub enum StopRule {
    /// After this time.
    After(Time),
    /// When the P99 of slowdown over all messages has changed by less than `within` (relative) between halves of what
    /// was measured, looked at each `every`; after `most` in any case.
    Converged {
        /// Time between two looks.
        every: Time,
        /// Relative change that counts as none.
        within: f64,
        /// The longest interval.
        most: Time,
    },
}

/// A measurement.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// Hosts, links and switches; each host is a node, client and server at once.
    pub topology: Topology,
    /// What the nodes speak.
    pub protocol: Protocol,
    /// Lengths of requests; responses are as long, unless messages are one-way.
    pub workload: Workload,
    /// How the workload's points are thinned and cut.
    pub reduction: Reduction,
    /// Bytes of requests that each node sends, in Gbit/s; an echoed load has as much again in responses. 0: as fast as
    /// `client_max` allows.
    pub gbps: f64,
    /// Client ports of a node.
    pub client_ports: u16,
    /// Server ports of a node.
    pub server_ports: u16,
    /// Most requests that a node has outstanding, over all its client ports.
    pub client_max: u32,
    /// True if messages have no responses: a message ends when the server has it.
    pub one_way: bool,
    /// All random numbers come from it.
    pub seed: u64,
    /// Time before anything is measured.
    pub warmup: Time,
    /// How long is measured.
    pub stop: StopRule,
    /// Bytes of an IP packet, header included.
    pub mtu: u32,
    /// Of all switches.
    pub switch: SwitchConfig,
    /// Of all hosts.
    pub host: HostModel,
    /// Time traces: the last so long of the measured interval.
    pub trace: Option<TraceSpec>,
}

/// Time traces of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceSpec {
    /// How long before the end of the measured interval they begin.
    pub window: Time,
    /// Most events of a node.
    pub events: usize,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Virtual time since the start.
    pub now: Time,
    /// When it ends at the latest.
    pub end: Time,
    /// Packets delivered until now.
    pub packets: u64,
}

/// What came of one node.
#[derive(Clone, Debug, Default)]
pub struct NodeRun {
    /// Messages that ended in the measured interval, in the order of their ends.
    pub samples: Vec<Sample>,
    /// The transport's counters over the measured interval.
    pub counters: Vec<(&'static str, u64)>,
    /// The transport's metrics text at the begin and the end of the measured interval.
    pub metrics: Option<[String; 2]>,
    /// The time trace as `.tt` text.
    pub trace: Option<Vec<u8>>,
    /// Requests begun in the measured interval, and their bytes.
    pub sent: (u64, u64),
    /// Calls that failed in the measured interval.
    pub failed: u64,
    /// Calls without an end when the run ended.
    pub outstanding: u64,
}

/// What came of a measurement.
#[derive(Clone, Debug, Default)]
pub struct ClusterRun {
    /// Of each node.
    pub nodes: Vec<NodeRun>,
    /// Of each switch over the measured interval: racks first, then spines.
    pub switches: Vec<SwitchStats>,
    /// Packets delivered to hosts in the whole run.
    pub packets: u64,
    /// Events of the simulator in the whole run.
    pub events: u64,
    /// Length of the measured interval.
    pub measured: Time,
    /// Virtual time when the run ended.
    pub end: Time,
    /// Bytes of whole messages that nodes received in the measured interval, in Gbit/s, the mean over nodes.
    pub in_gbps: f64,
    /// Bytes of the messages that nodes began to send in the measured interval, in Gbit/s, the mean over nodes.
    pub out_gbps: f64,
    /// True if the stop rule was met before its longest time.
    pub converged: bool,
}

/// A measurement that can't be.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Too few or too many hosts.
    #[error("{0} nodes: expected 2 to 65535")]
    Nodes(u32),
    /// Something must be positive.
    #[error("{what} is {found}: expected {expected}")]
    Value {
        /// The field.
        what: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// `progress` ended the run.
    #[error("the run was ended from outside after {0} of virtual time")]
    Ended(Time),
}

/// Runs the measurement `spec`, which takes a while: `progress` is told now and then, and may end it.
///
/// # Errors
///
/// If `spec` makes no sense, or `progress` ended the run.
pub fn run(spec: &ClusterSpec, progress: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<ClusterRun, SpecError> {
    let hosts = spec.topology.hosts();
    if !(2..=65535).contains(&hosts) {
        return Err(SpecError::Nodes(hosts));
    }
    let now = Progress { now: Time::ZERO, end: spec.warmup, packets: 0 };
    if progress(now).is_break() {
        return Err(SpecError::Ended(Time::ZERO));
    }
    Err(SpecError::Value { what: "protocol", found: "one without an engine".into(), expected: "an engine" })
}
