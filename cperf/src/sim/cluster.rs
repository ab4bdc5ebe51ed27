//! A specification in the simulator's terms, and running it.

use std::ops::ControlFlow;

use cp_node::workload::Workload;
use homa_sim::cluster::{ClusterRun, ClusterSpec, SpecError, StopRule, TraceSpec};
use homa_sim::cluster::{Progress, Protocol as Transport};
use homa_sim::fabric::{Routing, SwitchConfig, Topology};
use homa_sim::load::Roles;
use homa_sim::tcp::TcpConfig;
use homa_sim::time::Time;

use super::model;
use super::spec::{RoutingKind, SimSpec, TopologyKind};
use crate::cli::Protocol;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The specification makes no sense.
    #[error("{0}")]
    Spec(String),
    /// Whoever was told of the progress ended it.
    #[error("stopped")]
    Stopped,
}

/// Told how far a measurement is, 0 to 1, now and then; may end it.
pub type Watch<'a> = dyn FnMut(f64) -> ControlFlow<()> + 'a;

/// Why one protocol is none of theirs.
pub const NO_KERNEL: &str = "protocol is homa-kernel: nodes on --testbed sim have no kernel whose module could be measured; \
                             those on --testbed netns and ssh have, where it is loaded";

/// A message length and its round-trip times without load, ns.
pub type Unloaded = Vec<(u32, Vec<u64>)>;

/// Runs the measurement. `trace`: each node records so much of its end.
///
/// # Errors
/// See [`SimError`].
pub fn measure(spec: &SimSpec, trace: Option<TraceSpec>, watch: &mut Watch<'_>) -> Result<ClusterRun, SimError> {
    let spec = spec.resolved().map_err(SimError::Spec)?;
    let cluster = cluster(&spec, trace).map_err(SimError::Spec)?;
    match spec.beside {
        Some(other) => beside(&spec, other, &cluster, watch),
        None => run(&cluster, watch),
    }
}

/// Runs both protocols, and returns what came of the one that the results are about. Whichever that is, it is the same run.
fn beside(spec: &SimSpec, other: Protocol, one: &ClusterSpec, watch: &mut Watch<'_>) -> Result<ClusterRun, SimError> {
    let ports = |homa, tcp| Some(if other == Protocol::Homa { homa } else { tcp });
    let second = SimSpec {
        protocol: other,
        gbps: Some(spec.beside_gbps),
        client_ports: ports(3, 4),
        server_ports: ports(3, 8),
        ..spec.clone()
    };
    let two = cluster(&second, None).map_err(SimError::Spec)?;
    let is_homa = spec.protocol == Protocol::Homa;
    let (homa, tcp) = if is_homa { (one, &two) } else { (&two, one) };
    let mut progress = progress(watch);
    match homa_sim::both::run(homa, tcp, &mut progress) {
        Ok([of_homa, of_tcp]) => Ok(if is_homa { of_homa } else { of_tcp }),
        Err(err) => Err(ended(err)),
    }
}

/// Homa's round-trip times without load, of each length that `spec` draws: `samples` or so of each.
///
/// Two hosts, as far apart as hosts are, with one request under way at a time; the seed is always the same, so that
/// measurements that differ in their seeds have the same baseline.
///
/// # Errors
/// See [`SimError`].
pub fn unloaded(spec: &SimSpec, samples: u32, watch: &mut Watch<'_>) -> Result<Unloaded, SimError> {
    let spec = baseline(&spec.resolved().map_err(SimError::Spec)?);
    let lengths = spec.lengths().map_err(SimError::Spec)?;
    let points = lengths.points();
    let mut all = Vec::with_capacity(points.len());
    for (index, point) in points.iter().enumerate() {
        let length = point.len.max(cp_node::message::HEADER_LEN as u32);
        let mut cluster = cluster(&spec, None).map_err(SimError::Spec)?;
        cluster.workload = Workload::Fixed(length);
        // Requests are far apart: a hundred times what one takes.
        let alone_s = 2e-5 + 3.0 * f64::from(length) * 8e-9 / spec.link_gbps;
        let gap_s = 100.0 * alone_s;
        cluster.gbps = f64::from(length) * 8e-9 / gap_s / 2.0;
        cluster.stop = StopRule::After(time(gap_s * f64::from(samples)));
        let mut part = |share: f64| watch((index as f64 + share) / points.len() as f64);
        let run = run(&cluster, &mut part)?;
        let times: Vec<_> = run.nodes.iter().flat_map(|node| &node.samples).map(|sample| sample.service_ns).collect();
        if !times.is_empty() {
            all.push((length, times));
        }
    }
    Ok(all)
}

/// What [`unloaded`] measures for `spec`: the same for all that have the same baseline.
pub fn baseline(spec: &SimSpec) -> SimSpec {
    let leaf_spine = spec.topology == TopologyKind::LeafSpine;
    SimSpec {
        protocol: Protocol::Homa,
        nodes: 2,
        client_nodes: 0,
        server_nodes: 0,
        node: Default::default(),
        beside: None,
        beside_gbps: 0.0,
        gbps: Some(1.0),
        load: None,
        client_max: 1,
        client_ports: Some(1),
        server_ports: Some(1),
        seed: 0,
        warmup_s: 0.0,
        measure_s: 0.0,
        converge_within: 0.0,
        racks: if leaf_spine { 2 } else { spec.racks },
        switch_buffer_bytes: super::spec::DEFAULT_BUFFER,
        switch_alpha: 0.0,
        loss: 0.0,
        dctcp_threshold_bytes: 0,
        ..spec.clone()
    }
}

fn run(cluster: &ClusterSpec, watch: &mut Watch<'_>) -> Result<ClusterRun, SimError> {
    homa_sim::cluster::run(cluster, &mut progress(watch)).map_err(ended)
}

fn progress<'a>(watch: &'a mut Watch<'_>) -> impl FnMut(Progress) -> ControlFlow<()> + 'a {
    |at| watch(at.now.as_secs_f64() / at.end.as_secs_f64().max(1e-12))
}

fn ended(err: SpecError) -> SimError {
    match err {
        SpecError::Ended(_) => SimError::Stopped,
        other => SimError::Spec(other.to_string()),
    }
}

/// A resolved specification in the simulator's terms.
fn cluster(spec: &SimSpec, trace: Option<TraceSpec>) -> Result<ClusterSpec, String> {
    let tcp = || TcpConfig { mtu: spec.mtu_bytes, ..TcpConfig::default() };
    let protocol = match spec.protocol {
        Protocol::Homa => Transport::Homa(Box::new(homa(spec)?)),
        Protocol::HomaKernel => return Err(NO_KERNEL.to_owned()),
        Protocol::Tcp => Transport::Tcp(tcp()),
        Protocol::Dctcp => Transport::Dctcp(tcp()),
    };
    let measure = time(spec.measure_s);
    let stop = if spec.converge_within > 0.0 {
        StopRule::Converged { every: time(spec.measure_s / 10.0), within: spec.converge_within, most: measure }
    } else {
        StopRule::After(measure)
    };
    Ok(ClusterSpec {
        topology: topology(spec),
        roles: spec.has_roles().then(|| {
            let (clients, servers) = spec.roles();
            Roles { clients, servers }
        }),
        protocol,
        workload: spec.workload()?,
        reduction: spec.reduction(),
        gbps: spec.client_gbps(),
        client_ports: spec.client_ports.unwrap_or(1),
        server_ports: spec.server_ports.unwrap_or(1),
        client_max: spec.client_max,
        one_way: spec.one_way,
        seed: spec.seed,
        warmup: time(spec.warmup_s),
        stop,
        mtu: spec.mtu_bytes,
        switch: switch(spec),
        host: model::host(spec.host_model),
        trace,
    })
}

/// Homa's parameters: those of the stack, with the levels of unscheduled packets that fit the workload, and what the
/// specification says.
fn homa(spec: &SimSpec) -> Result<homa_stack::Config, String> {
    let mut config = homa_stack::Config { auto_cutoffs: true, ..homa_stack::Config::default() };
    for (name, value) in &spec.homa {
        super::check::homa(name, &(*value).into())?.apply(&mut config);
    }
    Ok(config)
}

fn topology(spec: &SimSpec) -> Topology {
    let link_delay = Time::from_nanos(spec.link_delay_ns);
    match spec.topology {
        TopologyKind::Tor => Topology::SingleTor { hosts: spec.nodes, host_gbps: spec.link_gbps, link_delay },
        TopologyKind::LeafSpine => Topology::LeafSpine {
            racks: spec.racks,
            hosts_per_rack: spec.nodes / spec.racks,
            spines: spec.spines,
            host_gbps: spec.link_gbps,
            spine_gbps: spec.spine_gbps,
            link_delay,
            spine_delay: link_delay,
            routing: match spec.routing {
                RoutingKind::Spray => Routing::Spray,
                RoutingKind::Ecmp => Routing::Ecmp,
            },
        },
    }
}

fn switch(spec: &SimSpec) -> SwitchConfig {
    SwitchConfig {
        pool: spec.switch_buffer_bytes,
        alpha: if spec.switch_alpha > 0.0 { spec.switch_alpha } else { f64::INFINITY },
        ecn_threshold: [Some(spec.protocol), spec.beside]
            .contains(&Some(Protocol::Dctcp))
            .then_some(spec.dctcp_threshold_bytes),
        loss: spec.loss,
        ..SwitchConfig::default()
    }
}

/// Seconds as virtual time.
pub fn time(seconds: f64) -> Time {
    Time::from_micros_f64(seconds * 1e6)
}
