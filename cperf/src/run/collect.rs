//! Reads the files that nodes left for one protocol.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use anyhow::Context;
use scan_metrics::read::{difference as grown_between, total};

use super::phase::{self, experiment};
use crate::cli::{Protocol, RunArgs, TestbedKind};
use crate::journal::Journal;
use crate::outdir::OutDir;
use crate::report::digest::{Collector, Digest};
use crate::report::results::{Counters, Measured, NodeStats};
use crate::report::rtts::{self, ImportStats, Sample};
use crate::report::slowdown::Optimal;

/// What slowdowns are relative to; without the unloaded run that the definition needs, the fixed formula, and a note.
pub(super) fn optimal(options: &RunArgs, out: &OutDir, journal: &mut Journal) -> anyhow::Result<Optimal> {
    let fixed = Optimal::fixed(options.base_usecs, options.link_mbps);
    if !options.slowdown.needs_unloaded() {
        return Ok(fixed);
    }
    let path = out.path().join("unloaded.rtts");
    let mut collector = Collector::default();
    if path.exists() {
        read(&path, |sample| collector.add(sample))?;
    }
    let found = Optimal::unloaded(options.slowdown, &collector.finish(), options.link_mbps);
    Ok(found.unwrap_or_else(|| {
        journal.note("there are no samples without load; slowdowns are by the fixed formula");
        fixed
    }))
}

/// Everything about one protocol. Files that a failed node did not write are noted as missing.
pub(super) fn measured(
    options: &RunArgs,
    protocol: Protocol,
    out: &OutDir,
    journal: &mut Journal,
) -> anyhow::Result<Measured> {
    let stem = experiment(protocol, &options.workload);
    let (mut service, mut due) = (Collector::default(), Collector::default());
    let mut measured = Measured::default();
    let mut file: Vec<Sample> = Vec::new();
    // Simulated nodes write all ports' samples in order of time.
    let ports = match (options.testbed, protocol) {
        (TestbedKind::Sim, _) => 1,
        (_, Protocol::Homa | Protocol::HomaKernel) => options.client_ports,
        _ => options.tcp_client_ports,
    };
    for node in 0..options.nodes {
        let path = out.path().join(format!("{stem}-{node}.rtts"));
        let [client, server] = counters(&path.with_extension("stats"), &stem)?;
        measured.stats.push(client);
        let served = server.filter(|server| server.looks > 0).unwrap_or_default();
        measured.served = (measured.served.0 + served.completed, measured.served.1 + served.looks);
        let asked = phase::asks(options, node);
        if !path.exists() && asked {
            measured.missing_nodes.push(node);
            continue;
        }
        if asked {
            file.clear();
            let stats = read(&path, |sample| {
                service.add(sample);
                file.push(sample);
            })?;
            measured.service_order.add(&file, ports.into());
            note_bad_lines(&path, &stats, journal);
            let import = &mut measured.import;
            import.samples += stats.samples;
            import.bad_lines += stats.bad_lines;
        }
        let path = path.with_extension("rtts.due");
        if path.exists() {
            file.clear();
            let stats = read(&path, |sample| {
                due.add(sample);
                file.push(sample);
            })?;
            measured.due_order.add(&file, ports.into());
            note_bad_lines(&path, &stats, journal);
        }
        if protocol == Protocol::Homa {
            let grown = difference(out, &format!("{stem}-{node}.metrics"))?;
            let count = |name| grown.as_deref().and_then(|text| total(text, name));
            if let (Some(sent), Some(resent)) = (count("packets_sent_DATA"), count("resent_packets")) {
                let (all, again) = measured.data_packets.unwrap_or_default();
                measured.data_packets = Some((all + sent, again + resent));
            }
            if let Some(grown) = count("tx_messages_integral") {
                *measured.outgoing_us.get_or_insert(0) += grown;
            }
        }
    }
    (measured.service, measured.due) = (service.finish(), due.finish());
    Ok(measured)
}

fn read(path: &Path, take: impl FnMut(Sample)) -> anyhow::Result<ImportStats> {
    let file = File::open(path).and_then(|file| rtts::read(BufReader::new(file), take));
    file.with_context(|| format!("reading {}", path.display()))
}

fn note_bad_lines(path: &Path, stats: &ImportStats, journal: &mut Journal) {
    if stats.bad_lines > 0 {
        let (bad, first) = (stats.bad_lines, stats.first_bad.join("; "));
        journal.say(&format!("{}: {bad} lines are no samples and were left out: {first}", path.display()));
    }
}

/// A node's counters of the experiment `name` as client and as server; `None` if it did not write them.
fn counters(path: &Path, name: &str) -> anyhow::Result<[Option<Counters>; 2]> {
    let Ok(text) = fs::read_to_string(path) else { return Ok([None, None]) };
    // What a node on a full disk leaves.
    if text.is_empty() {
        return Ok([None, None]);
    }
    let reading = || format!("reading {}", path.display());
    let mut stats: serde_json::Value = serde_json::from_str(&text).with_context(reading)?;
    // Of several protocols at once each has counters of its own in it.
    if let Some(experiments) = stats["experiments"].as_array_mut() {
        experiments.retain(|experiment| experiment["name"].as_str().is_none_or(|known| known == name));
    }
    let stats: NodeStats = serde_json::from_value(stats).with_context(reading)?;
    Ok(["client", "server"].map(|role| stats.experiments.iter().find(|experiment| experiment.role == role).cloned()))
}

/// `NAME.after` minus `NAME.before` into `NAME`, and that text; `None` if one is missing.
fn difference(out: &OutDir, name: &str) -> anyhow::Result<Option<String>> {
    let part = |when: &str| fs::read_to_string(out.path().join(format!("{name}.{when}")));
    let (Ok(before), Ok(after)) = (part("before"), part("after")) else { return Ok(None) };
    let text = grown_between(&before, &after);
    out.write(name, text.as_bytes())?;
    Ok(Some(text))
}

/// Samples of the unloaded run, if there was one: for the reports.
pub(super) fn unloaded(out: &OutDir) -> Option<Digest> {
    let mut collector = Collector::default();
    read(&out.path().join("unloaded.rtts"), |sample| collector.add(sample)).ok()?;
    let digest = collector.finish();
    (digest.samples > 0).then_some(digest)
}
