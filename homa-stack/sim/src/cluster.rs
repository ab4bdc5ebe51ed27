//! A whole measurement: what it is, what comes of it.

use std::ops::ControlFlow;
use std::sync::Arc;

use cp_node::samples::Sample;
use cp_node::workload::{Distribution, Reduction, Workload};

use crate::alone;
use crate::app::App;
use crate::engine::Sim;
use crate::fabric::{SwitchConfig, SwitchStats, Topology};
use crate::homa::{Homa, fit_cutoffs};
use crate::host::HostModel;
use crate::load::{Load, LoadSpec, NodeLoad, Roles};
use crate::packet::HostId;
use crate::tcp::{Congestion, Tcp, TcpConfig};
use crate::time::Time;
use crate::transport::Transport;

/// What the nodes speak.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// The protocol core with these parameters.
    Homa(Box<homa_stack::Config>),
    /// TCP, cubic by default; its [`TcpConfig::mtu`] is that of the measurement.
    Tcp(TcpConfig),
    /// The same with DCTCP as congestion control; the switches mark at [`SwitchConfig::ecn_threshold`].
    Dctcp(TcpConfig),
}

/// When the measured interval ends.
#[derive(Clone, Debug, PartialEq)]
pub enum StopRule {
    /// After this time.
    After(Time),
    /// When mean and P99 of slowdown over all messages since the warm-up differ by less than `within` (relative) from
    /// those over the first half of that time, looked at each `every`, and four looks at least; after `most` in any
    /// case. Time traces then begin at the last look.
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
    /// Hosts, links and switches; each host is a node.
    pub topology: Topology,
    /// Who of them asks and who answers; without it each node is client and server at once.
    pub roles: Option<Roles>,
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

impl ClusterSpec {
    /// `nodes` nodes on one switch of 25 Gbit/s, loaded to 80 % with the echoed messages of w4: the published clusters'
    /// standard, with Homa's unscheduled levels worked out from the workload.
    pub fn rack(nodes: u32) -> Self {
        let config = homa_stack::Config { auto_cutoffs: true, ..homa_stack::Config::default() };
        Self {
            topology: Topology::rack(nodes),
            roles: None,
            protocol: Protocol::Homa(Box::new(config)),
            workload: Workload::Named("w4"),
            reduction: Reduction::default(),
            gbps: 10.0,
            client_ports: 3,
            server_ports: 3,
            client_max: 200,
            one_way: false,
            seed: 1,
            warmup: Time::from_millis(10),
            stop: StopRule::After(Time::from_millis(100)),
            mtu: 1500,
            switch: SwitchConfig::default(),
            host: HostModel::default(),
            trace: None,
        }
    }
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
    /// The transport's metrics text over just the trace's time, unless the trace has lost events.
    pub trace_metrics: Option<String>,
    /// Messages begun in the measured interval, requests and responses, and their bytes.
    pub sent: (u64, u64),
    /// Whole messages received in the measured interval, and their bytes.
    pub received: (u64, u64),
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
    check(spec)?;
    let lengths = Arc::new(Distribution::new(spec.workload, spec.reduction));
    match &spec.protocol {
        Protocol::Homa(config) => {
            let config = fitted(config, spec, &lengths);
            let make =
                |host| Homa::new(host, &config, spec.client_ports, spec.server_ports).acquainted(spec.topology.hosts());
            measure(spec, lengths, make, progress)
        }
        Protocol::Tcp(config) => {
            let config = TcpConfig { mtu: spec.mtu, ..config.clone() };
            measure(spec, lengths, Tcp::maker(&config), progress)
        }
        Protocol::Dctcp(config) => {
            let config = TcpConfig { mtu: spec.mtu, congestion: Congestion::Dctcp, ..config.clone() };
            measure(spec, lengths, Tcp::maker(&config), progress)
        }
    }
}

/// The times of messages of `lengths` bytes in `spec`'s network without any load, from the first node to the last: the
/// median of `repeats` each (hosts' delays may be random). With their responses, unless messages are one-way.
///
/// # Errors
///
/// If `spec` makes no sense.
pub fn unloaded(spec: &ClusterSpec, lengths: &[u32], repeats: usize) -> Result<Vec<(u32, Time)>, SpecError> {
    check(spec)?;
    let hosts = || (0..spec.topology.hosts()).map(HostId);
    let network = (spec.switch.clone(), spec.host.clone());
    let how = (repeats, spec.one_way, spec.seed);
    let tcp = |config: &TcpConfig, network| {
        let transports = hosts().map(Tcp::maker(config)).collect();
        alone::run(&spec.topology, network, transports, lengths, how)
    };
    Ok(match &spec.protocol {
        Protocol::Homa(config) => {
            let config = fitted(config, spec, &Distribution::new(spec.workload, spec.reduction));
            let transports = hosts().map(|host| Homa::new(host, &config, 1, 1)).collect();
            alone::run(&spec.topology, network, transports, lengths, how)
        }
        Protocol::Tcp(config) => tcp(&TcpConfig { mtu: spec.mtu, ..config.clone() }, network),
        Protocol::Dctcp(config) => {
            tcp(&TcpConfig { mtu: spec.mtu, congestion: Congestion::Dctcp, ..config.clone() }, network)
        }
    })
}

/// The parameters as they are used: those that the network decides are made to fit it, and with
/// [`auto_cutoffs`](homa_stack::Config::auto_cutoffs) the levels of unscheduled packets are worked out from the lengths
/// that will come, where real nodes would find them out by and by.
fn fitted(config: &homa_stack::Config, spec: &ClusterSpec, lengths: &Distribution) -> homa_stack::Config {
    let mut config = homa_stack::Config {
        mtu: spec.mtu as usize,
        link_mbps: (spec.topology.host_gbps() * 1e3).round().max(1.0) as u64,
        ..config.clone()
    };
    if std::mem::take(&mut config.auto_cutoffs) {
        fit_cutoffs(&mut config, lengths);
    }
    config
}

pub(crate) fn check(spec: &ClusterSpec) -> Result<(), SpecError> {
    let hosts = spec.topology.hosts();
    if !(2..=65535).contains(&hosts) {
        return Err(SpecError::Nodes(hosts));
    }
    let wrong = |what, found: String, expected| Err(SpecError::Value { what, found, expected });
    let ports = [("client_ports", spec.client_ports), ("server_ports", spec.server_ports)];
    if let Some((what, ports)) = ports.into_iter().find(|(_, ports)| !(1..=1000).contains(ports)) {
        return wrong(what, ports.to_string(), "1 to 1000");
    }
    if !(spec.gbps >= 0.0 && spec.gbps.is_finite()) {
        return wrong("gbps", spec.gbps.to_string(), "0 or more");
    }
    if !(spec.topology.host_gbps() > 0.0 && spec.topology.host_gbps().is_finite()) {
        return wrong("the rate of a link", spec.topology.host_gbps().to_string(), "more than 0 Gbit/s");
    }
    if !(100..=65_535).contains(&spec.mtu) {
        return wrong("mtu", spec.mtu.to_string(), "100 to 65535");
    }
    if let Some(Roles { clients, servers }) = spec.roles {
        let possible = 1..=hosts;
        if !possible.contains(&clients) || !possible.contains(&servers) {
            return wrong("roles", format!("{clients} clients, {servers} servers"), "1 to all nodes of each");
        }
    }
    if spec.client_max == 0 {
        return wrong("client_max", "0".into(), "1 or more");
    }
    if let StopRule::Converged { every: Time::ZERO, .. } = spec.stop {
        return wrong("the time between looks at convergence", "0".into(), "more than 0");
    }
    Ok(())
}

/// The load of `spec`.
pub(crate) fn load(spec: &ClusterSpec, lengths: Arc<Distribution>) -> Load {
    let nodes = spec.topology.hosts();
    Load::new(LoadSpec {
        nodes,
        roles: spec.roles.unwrap_or(Roles::all(nodes)),
        lengths,
        gbps: spec.gbps,
        client_ports: spec.client_ports,
        server_ports: spec.server_ports,
        client_max: spec.client_max,
        one_way: spec.one_way,
        seed: spec.seed,
    })
}

/// Homa's parameters as they are used; those by default if `spec` is about another protocol.
pub(crate) fn homa_config(spec: &ClusterSpec, lengths: &Distribution) -> homa_stack::Config {
    match &spec.protocol {
        Protocol::Homa(config) => fitted(config, spec, lengths),
        Protocol::Tcp(_) | Protocol::Dctcp(_) => fitted(&homa_stack::Config::default(), spec, lengths),
    }
}

/// TCP's parameters as they are used, if `spec` is about TCP.
pub(crate) fn tcp_config(spec: &ClusterSpec) -> Option<TcpConfig> {
    match &spec.protocol {
        Protocol::Homa(_) => None,
        Protocol::Tcp(config) => Some(TcpConfig { mtu: spec.mtu, ..config.clone() }),
        Protocol::Dctcp(config) => Some(TcpConfig { mtu: spec.mtu, congestion: Congestion::Dctcp, ..config.clone() }),
    }
}

/// Virtual time between two calls of `progress`.
const STEP: Time = Time::from_millis(1);

fn measure<T: Transport>(
    spec: &ClusterSpec,
    lengths: Arc<Distribution>,
    make: impl Fn(HostId) -> T,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<ClusterRun, SpecError> {
    let nodes = spec.topology.hosts();
    let load = load(spec, lengths);
    let transports = (0..nodes).map(|host| make(HostId(host))).collect();
    let mut sim = Sim::new(&spec.topology, spec.switch.clone(), spec.host.clone(), transports, load, spec.seed);
    let longest = match spec.stop {
        StopRule::After(time) => time,
        StopRule::Converged { most, .. } => most,
    };
    let end = spec.warmup + longest;
    advance(&mut sim, spec.warmup, end, progress)?;
    sim.app_mut().measure();
    sim.reset_switch_stats();
    let before: Vec<Snapshot> = sim.transports().iter().map(|t| (t.metrics(), t.metrics_text(spec.warmup))).collect();
    let converged = match spec.stop {
        StopRule::After(_) => {
            if let Some(trace) = spec.trace {
                advance(&mut sim, end - trace.window.min(longest), end, progress)?;
                begin_traces(&mut sim, trace);
            }
            advance(&mut sim, end, end, progress)?;
            true
        }
        StopRule::Converged { every, within, .. } => until_converged(spec, &mut sim, (every, within), end, progress)?,
    };
    Ok(collect(spec, sim, before, converged))
}

/// Measures on until nothing changes any more, or `end`; true if it was the former.
fn until_converged<T: Transport>(
    spec: &ClusterSpec,
    sim: &mut Sim<T, Load>,
    (every, within): (Time, f64),
    end: Time,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<bool, SpecError> {
    let mut looks: Vec<(f64, f64)> = Vec::new();
    while sim.now() < end {
        if let Some(trace) = spec.trace {
            // What comes before the last look is not kept.
            begin_traces(sim, trace);
        }
        advance(sim, end.min(sim.now() + every), end, progress)?;
        let samples = sim.app().nodes().iter().flat_map(|node| &node.samples);
        looks.push(mean_and_p99(samples.map(|sample| slowdown(spec, sample)).collect()));
        let (now, half) = (looks[looks.len() - 1], looks[(looks.len() - 1) / 2]);
        let close = |now: f64, half: f64| (now - half).abs() <= within * now;
        if looks.len() >= 4 && looks.len().is_multiple_of(2) && close(now.0, half.0) && close(now.1, half.1) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn begin_traces<T: Transport>(sim: &mut Sim<T, Load>, trace: TraceSpec) {
    let now = sim.now();
    sim.transports_mut().iter_mut().for_each(|transport| transport.begin_trace(now, trace.events));
}

/// How long a message took, in units of what its bytes and four links need: a yardstick for convergence alone.
fn slowdown(spec: &ClusterSpec, sample: &Sample) -> f64 {
    let bytes = f64::from(sample.len) * if spec.one_way { 1.0 } else { 2.0 };
    let base_ns = 4.0 * spec.topology.link_delay().as_picos() as f64 / 1e3 + 1000.0;
    sample.service_ns as f64 / (base_ns + bytes * 8.0 / spec.topology.host_gbps())
}

fn mean_and_p99(mut values: Vec<f64>) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let place = values.len() * 99 / 100;
    let (_, p99, _) = values.select_nth_unstable_by(place, f64::total_cmp);
    (mean, *p99)
}

/// Runs until `until`, step by step.
pub(crate) fn advance<T: Transport, A: App>(
    sim: &mut Sim<T, A>,
    until: Time,
    end: Time,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(), SpecError> {
    while sim.now() < until {
        sim.run_until(until.min(sim.now() + STEP));
        let now = Progress { now: sim.now(), end, packets: sim.delivered() };
        if progress(now).is_break() {
            return Err(SpecError::Ended(sim.now()));
        }
    }
    Ok(())
}

/// A transport's counters and metrics text.
type Snapshot = (Vec<(&'static str, u64)>, Option<String>);

fn collect<T: Transport>(
    spec: &ClusterSpec,
    mut sim: Sim<T, Load>,
    before: Vec<Snapshot>,
    converged: bool,
) -> ClusterRun {
    let (now, measured) = (sim.now(), sim.now() - spec.warmup);
    let loads = sim.app_mut().take_nodes();
    let gbps = |sum: &dyn Fn(&NodeLoad) -> u64| {
        loads.iter().map(sum).sum::<u64>() as f64 * 8.0 / (measured.as_picos() as f64 / 1e3) / loads.len() as f64
    };
    let (in_gbps, out_gbps) = (gbps(&|load| load.received.1), gbps(&|load| load.sent.1));
    let mut nodes = Vec::new();
    for (index, (load, (counters, text))) in loads.into_iter().zip(before).enumerate() {
        let transport = &mut sim.transports_mut()[index];
        let grown = transport
            .metrics()
            .into_iter()
            .zip(counters)
            .map(|((name, now), (_, then))| (name, now.saturating_sub(then)));
        let counters = grown.collect();
        let metrics = text.zip(transport.metrics_text(now)).map(<[String; 2]>::from);
        let trace_metrics = spec.trace.and_then(|_| transport.trace_metrics(now));
        let trace = spec.trace.and_then(|_| transport.end_trace(now));
        let outstanding = sim.app().outstanding(HostId(index as u32));
        nodes.push(NodeRun {
            samples: load.samples,
            counters,
            metrics,
            trace,
            trace_metrics,
            sent: load.sent,
            received: load.received,
            failed: load.failed,
            outstanding,
        });
    }
    ClusterRun {
        nodes,
        switches: sim.switch_stats(),
        packets: sim.delivered(),
        events: sim.events(),
        measured,
        end: now,
        in_gbps,
        out_gbps,
        converged,
    }
}
