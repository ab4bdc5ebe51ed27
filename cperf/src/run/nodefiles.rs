//! Files of simulated nodes: as `cp-node` writes them on real ones. No time of the machine is in them, so equal runs
//! leave equal bytes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use cp_node::rtts::{self, Facts};
use cp_node::samples::Sample;
use homa_sim::cluster::{ClusterRun, NodeRun};
use serde_json::{Map, Value, json};

use super::phase::experiment;
use crate::cli::{Protocol, RunArgs};
use crate::outdir::OutDir;
use crate::sim::cluster::Unloaded;
use crate::sim::spec::SimSpec;
use crate::sim::switch::Switch;

/// All files of one protocol's nodes.
pub(super) fn write(
    out: &OutDir,
    options: &RunArgs,
    protocol: Protocol,
    spec: &SimSpec,
    run: &ClusterRun,
) -> anyhow::Result<()> {
    let stem = experiment(protocol, &options.workload);
    let facts = facts(&stem, protocol.name(), spec);
    out.write(&format!("{stem}.switch"), &serde_json::to_vec_pretty(&Switch::new(run, spec))?)?;
    for (number, node) in run.nodes.iter().enumerate() {
        let name = format!("{stem}-{number}");
        samples(out, &format!("{name}.rtts"), run.end.as_nanos(), &facts, &node.samples)?;
        let stats = stats(&stem, protocol, spec, node, run.measured.as_secs_f64());
        out.write(&format!("{name}.stats"), (stats.to_string() + "\n").as_bytes())?;
        if let Some([before, after]) = &node.metrics {
            out.write(&format!("{name}.metrics.before"), before.as_bytes())?;
            out.write(&format!("{name}.metrics.after"), after.as_bytes())?;
        }
        if let Some(trace) = &node.trace {
            out.write(&format!("traces/node{number}.tt"), trace)?;
            if let Some(metrics) = &node.trace_metrics {
                out.write(&format!("traces/node{number}.tt.metrics"), metrics.as_bytes())?;
            }
        }
    }
    Ok(())
}

/// `unloaded.rtts`.
pub(super) fn unloaded(out: &OutDir, options: &RunArgs, times: &Unloaded) -> anyhow::Result<()> {
    let spec = SimSpec { workload: options.workload.clone(), ..SimSpec::default() };
    let sample = |length: u32, rtt: u64| Sample { len: length, service_ns: rtt, due_ns: rtt };
    let all: Vec<_> = times.iter().flat_map(|(length, rtts)| rtts.iter().map(|rtt| sample(*length, *rtt))).collect();
    let facts = Facts {
        gbps: 0.0,
        ports: 1,
        server_nodes: 1,
        server_ports: 1,
        client_max: 1,
        ..facts("unloaded", "homa", &spec)
    };
    samples(out, "unloaded.rtts", 0, &facts, &all)?;
    // Nothing was due: there was no schedule.
    let due = out.path().join("unloaded.rtts.due");
    fs::remove_file(&due).with_context(|| format!("removing {}", due.display()))
}

/// A pair of .rtts files; `at_ns` in virtual time, whose zero is shown as the year 1970.
fn samples(out: &OutDir, name: &str, at_ns: u64, facts: &Facts, all: &[Sample]) -> anyhow::Result<()> {
    let path = out.path().join(Path::new(name));
    rtts::write_samples(&path, Duration::from_nanos(at_ns), facts, 0, || all.iter().copied())
}

fn facts(experiment: &str, protocol: &str, spec: &SimSpec) -> Facts {
    Facts {
        experiment: Some(experiment.to_owned()),
        protocol: protocol.to_owned(),
        workload: spec.workload.clone(),
        gbps: spec.gbps.unwrap_or(0.0) / 2.0,
        ports: spec.client_ports.unwrap_or(1).into(),
        server_nodes: spec.nodes as usize - 1,
        server_ports: spec.server_ports.unwrap_or(1).into(),
        client_max: spec.client_max as usize,
    }
}

/// Counters of one node, as `stats` of cp-node writes them, and those of its transport.
fn stats(stem: &str, protocol: Protocol, spec: &SimSpec, node: &NodeRun, elapsed_s: f64) -> Value {
    let bytes: u64 = node.samples.iter().map(|sample| u64::from(sample.len)).sum();
    let (issued, _) = node.sent;
    let counters: Map<_, _> = node.counters.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({
        "version": 1,
        "experiments": [{
            "name": stem,
            "role": "client",
            "protocol": protocol.name(),
            "issued": issued,
            "completed": node.samples.len(),
            "errors": node.failed,
            "timeouts": 0,
            "outstanding": node.outstanding,
            "request_bytes": bytes,
            "response_bytes": if spec.one_way { 0 } else { bytes },
            "elapsed_s": elapsed_s,
            "lost_samples": 0,
            "lag_s": 0.0,
            "backed_up": 0,
        }],
        "transport": counters,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_those_that_reports_read() {
        let sample = Sample { len: 1000, service_ns: 1, due_ns: 1 };
        let node = NodeRun { samples: vec![sample; 3], sent: (4, 4000), outstanding: 1, ..NodeRun::default() };
        let text = stats("homa_w4", Protocol::Homa, &SimSpec::default(), &node, 0.5).to_string();
        let read: crate::report::results::NodeStats = serde_json::from_str(&text).unwrap();
        let client = &read.experiments[0];
        assert_eq!((client.issued, client.completed, client.outstanding), (4, 3, 1));
        assert_eq!((client.request_bytes, client.response_bytes, client.elapsed_s), (3000, 3000, 0.5));
    }
}
