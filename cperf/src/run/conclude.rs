//! The end of a run, good or bad: reports, results.json, manifest, and what is printed.

use std::fs;
use std::io::Write as _;

use scan_metrics::scan::Scan;
use serde_json::json;
use tthoma::analyze::{self, Finding, NodeReport, Options, Run};

use super::{Part, collect, phase, status};
use crate::cli::{Format, Protocol, RunArgs, TestbedKind};
use crate::journal::Journal;
use crate::manifest::{self, Manifest};
use crate::outdir::OutDir;
use crate::report::agreement::NodeAgreement;
use crate::report::drops::HostDrops;
use crate::report::results::{Measured, ProtocolResult, Status};
use crate::report::slowdown::Optimal;
use crate::report::statistics::{self, Statistics};
use crate::report::{agreement, data, digest, page, plot, table};

/// Writes and prints everything, then returns `outcome`, which decides the exit code.
pub(super) fn conclude(
    options: &RunArgs,
    manifest: &mut Manifest,
    out: &OutDir,
    journal: &mut Journal,
    parts: &[Part],
    outcome: anyhow::Result<()>,
) -> anyhow::Result<()> {
    if let Err(err) = &outcome {
        journal.note(&format!("stopped: {err:#}"));
    }
    let status = status(&outcome);
    let reason = outcome.as_ref().err().map(|err| format!("{err:#}"));
    let end = End { command: command(manifest), status, reason };
    let printed = write(options, manifest, out, journal, parts, &end);
    outcome?; // why the run ended matters more than who reads this
    printed
}

/// How a run was called, and how it ended.
pub(super) struct End {
    /// Words of the command line.
    pub(super) command: String,
    /// Whether it is whole.
    pub(super) status: Status,
    /// Why not.
    pub(super) reason: Option<String>,
}

/// Reports, results.json and manifest, and what is printed.
pub(super) fn write(
    options: &RunArgs,
    manifest: &mut Manifest,
    out: &OutDir,
    journal: &mut Journal,
    parts: &[Part],
    end: &End,
) -> anyhow::Result<()> {
    let optimal = collect::optimal(options, out, journal)?;
    let mut all = Vec::new();
    for part in parts {
        all.push((part, collect::measured(options, part.protocol, out, journal)?));
    }
    let digests: Vec<_> = all.iter().map(|(_, measured)| &measured.service).collect();
    let (cuts, offered) = (digest::cuts(&digests, 10), options.gbps.unwrap_or(0.0));
    let result = |(part, measured): &(&Part, Measured)| {
        let name = part.protocol.name();
        let result = ProtocolResult::new(name, part.status, offered, measured, &optimal, &cuts);
        ProtocolResult { ports: part.ports.clone(), switch: part.switch.clone(), ..result }
    };
    let results: Vec<_> = all.iter().map(result).collect();
    let measured: Vec<_> = all.iter().map(|(part, measured)| (part.protocol.name(), measured)).collect();
    write_reports(options, out, &measured, &optimal)?;
    let statistics = write_statistics(options, out, &measured, &optimal)?;
    write_outliers(options, out, parts)?;
    let simulated = options.testbed == TestbedKind::Sim;
    let traces = traces(simulated, out, journal)?;
    let scan = scanned(out);
    journal.note(&format!("run ended: {:?}", end.status));
    manifest.close(end.status.word(), out)?;
    // Neither can hold its own checksum, and the page has that of results.json.
    manifest.files.retain(|file| !["results.json", PAGE].contains(&file.name.as_str()));
    let json = json!({
        "version": manifest::VERSION,
        "command": end.command,
        "workload": options.workload,
        "status": end.status,
        "reason": end.reason,
        "options": manifest.options,
        "slowdown": optimal.text(),
        "short_rtt_p99_homa_to_tcp": table::short_p99_ratio(&results),
        "results": results,
        "statistics": { "method": statistics::method(), "protocols": statistics },
        "manifest": &*manifest,
    });
    let mut text = serde_json::to_vec_pretty(&json)?;
    text.push(b'\n');
    out.write("results.json", &text)?;
    manifest.add("results.json", out)?;
    let (run, agreement) = traces.as_ref().map(|traces| (&traces.run, traces.agreement.as_slice())).unzip();
    let page = page::html(&page::Source {
        manifest,
        options,
        command: &end.command,
        status: end.status,
        reason: end.reason.as_deref(),
        optimal: &optimal,
        measured: &measured,
        results: &results,
        statistics: &statistics,
        traces: run,
        drops: host_drops(options, out).as_ref(),
        agreement: agreement.unwrap_or_default(),
        scan: scan.as_ref(),
    });
    out.write(PAGE, within(&page, out).as_bytes())?;
    manifest.add(PAGE, out)?;
    out.write("manifest.json", &manifest.text())?;
    let table = table::run(&options.workload, &results, &optimal.text());
    match options.format {
        Format::Json => print(&text),
        Format::Table if results.is_empty() => print(failures(manifest).as_bytes()),
        Format::Table => {
            let delays = traces.map(|traces| traces.text(simulated)).unwrap_or_default();
            print(format!("{table}{}{delays}{}", failures(manifest), closing(out)).as_bytes())
        }
    }
}

/// The command: as it was given, or for who repeats a simulation.
fn command(manifest: &Manifest) -> String {
    match &manifest.about {
        Some(about) => about.command.join(" "),
        None => page::again(&std::env::args().collect::<Vec<_>>()),
    }
}

/// Results on standard output.
fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text)?;
    Ok(stdout.flush()?)
}

/// What failed, and what was done about it.
fn failures(manifest: &Manifest) -> String {
    let failures = manifest.failures();
    let Some(policy) = manifest.policy.filter(|_| !failures.is_empty()) else { return String::new() };
    let lines: String = failures.iter().map(|line| format!("{line}\n")).collect();
    format!("\nFailures:\n{lines}Policy: {}.\n", policy.text())
}

/// Where to read on.
fn closing(out: &OutDir) -> String {
    let shown = out.path().display();
    format!("\npage: {shown}/{PAGE}; plots and column files: {shown}/reports; time traces: {shown}/traces\n")
}

/// The name of the report as a page.
const PAGE: &str = "report.html";

/// What the time traces tell.
struct Traces {
    /// Analyses for the page.
    run: Run,
    /// Against the metrics.
    agreement: Vec<NodeAgreement>,
    /// Delays, for people.
    delays: String,
}

impl Traces {
    /// For standard output.
    fn text(&self, simulated: bool) -> String {
        let part = if simulated { "the last part" } else { "the begin" };
        let option = if simulated { " --one-clock" } else { "" };
        let heading =
            format!("Time traces from {part} of the measured interval on (again with `tthoma analyze delay{option}`)");
        format!("\n{heading}\n{}", self.delays)
    }
}

/// Where packets and hand-offs spent their time and what else the page shows, from the traces that the nodes left, after
/// writing delays to the reports. `None` without traces. Traces that cannot be analysed are no reason to lose the other
/// results.
fn traces(simulated: bool, out: &OutDir, journal: &mut Journal) -> anyhow::Result<Option<Traces>> {
    let traces = out.path().join("traces");
    if fs::read_dir(&traces)?.next().is_none() {
        return Ok(None);
    }
    // Simulated nodes have one clock. Plots are drawn on the page; no file is written.
    let common = Options { one_clock: simulated, ..Options::default() };
    let options = Options { plot: Some(traces.clone()), ..common.clone() };
    let run = match analyze::run(&page::ANALYSES, &[traces], &options) {
        Ok(run) => run,
        Err(err) => {
            journal.say(&format!("the time traces cannot be analysed: {err}"));
            return Ok(None);
        }
    };
    let delay = |finding: &&Finding| finding.about.name == "delay";
    let findings = run.findings.iter().filter(delay).cloned().collect();
    let report = Run { options: common, findings, ..run.clone() };
    let agreement: Vec<_> =
        report.nodes.iter().map(|node| agreement::compare(node, span_metrics(node).as_deref())).collect();
    for node in agreement.iter().filter(|node| !node.counts.is_empty() && !node.agrees) {
        journal.say(&format!("{}: its trace and its metrics differ: {:?}", node.node, node.counts));
    }
    let mut table = report.to_text();
    // Where nothing was counted over just the traces' time, there is nothing to compare.
    if agreement.iter().any(|node| !node.counts.is_empty()) {
        table += &format!("\n{}", agreement::table(&agreement));
    }
    let json = within(&serde_json::to_string_pretty(&report)?, out);
    let delays = within(&table, out);
    out.write("reports/delay.txt", delays.as_bytes())?;
    out.write("reports/delay.json", json.as_bytes())?;
    let counts = json!({ "version": manifest::VERSION, "nodes": agreement });
    out.write("reports/trace_metrics.json", &serde_json::to_vec_pretty(&counts)?)?;
    Ok(Some(Traces { run, agreement, delays }))
}

/// A text whose files are named from the run's directory, which may be moved, and is not part of what was found.
fn within(text: &str, out: &OutDir) -> String {
    text.replace(&format!("{}/", out.path().display()), "")
}

/// What Homa's hosts counted of packets that they did not use.
fn host_drops(options: &RunArgs, out: &OutDir) -> Option<HostDrops> {
    let stem = phase::experiment(Protocol::Homa, &options.workload);
    let text = |node| fs::read_to_string(out.path().join(format!("{stem}-{node}.metrics"))).ok();
    HostDrops::sum((0..options.nodes).filter_map(text))
}

/// What is odd among the metrics; `None` if there are none.
fn scanned(out: &OutDir) -> Option<Scan> {
    let options = scan_metrics::scan::Options { roots: vec![out.path().to_owned()], ..Default::default() };
    let mut scan = scan_metrics::scan::scan(&options).ok()?;
    scan.findings.iter_mut().for_each(|finding| finding.run.clear());
    scan.heat.iter_mut().for_each(|heat| heat.run.clear());
    Some(scan)
}

/// The metrics of the time that a node's trace covers, if it wrote them.
fn span_metrics(node: &NodeReport) -> Option<String> {
    fs::read_to_string(format!("{}.metrics", node.path)).ok()
}

/// Summary statistics with intervals, as CSV and Markdown.
fn write_statistics(
    options: &RunArgs,
    out: &OutDir,
    measured: &[(&str, &Measured)],
    optimal: &Optimal,
) -> anyhow::Result<Vec<Statistics>> {
    let of = |(name, measured): &(&str, &Measured)| {
        Statistics::new(name, &measured.service_order, &measured.due_order, optimal)
    };
    let all: Vec<_> = measured.iter().map(of).collect();
    out.write("reports/statistics.csv", statistics::tables::csv(&all).as_bytes())?;
    let title = format!("Summary statistics: {}, {} nodes", options.workload, options.nodes);
    out.write("reports/statistics.md", statistics::tables::markdown(&title, &optimal.text(), &all).as_bytes())?;
    Ok(all)
}

/// Three numbers of each node from its metrics, and which stand out: the simple form of `cperf scan-metrics`.
fn write_outliers(options: &RunArgs, out: &OutDir, parts: &[Part]) -> anyhow::Result<()> {
    let mut text = String::new();
    for part in parts {
        let stem = phase::experiment(part.protocol, &options.workload);
        let file = |node: usize| fs::read_to_string(out.path().join(format!("{stem}-{node}.metrics"))).ok();
        let files: Vec<_> = (0..options.nodes).filter_map(|node| Some((node as u64, file(node)?))).collect();
        if !files.is_empty() {
            text += &scan_metrics::out::data(&stem, files.iter().map(|(node, text)| (*node, text.as_str())));
        }
    }
    if !text.is_empty() {
        out.write("reports/scan_metrics.data", text.as_bytes())?;
    }
    Ok(())
}

/// Column files and plots of everything that has samples.
fn write_reports(
    options: &RunArgs,
    out: &OutDir,
    measured: &[(&str, &Measured)],
    optimal: &Optimal,
) -> anyhow::Result<()> {
    let workload = &options.workload;
    let reports = out.path().join("reports");
    let heading = |name: &str| format!("{name}_{workload}, cperf {}", env!("CARGO_PKG_VERSION"));
    if let Some(unloaded) = collect::unloaded(out) {
        let text = data::by_length("unloaded Homa", &unloaded, optimal);
        out.write("reports/unloaded.data", text.as_bytes())?;
    }
    let (mut curves, mut shorts) = (Vec::new(), Vec::new());
    for (protocol, measured) in measured {
        let Some(short) = measured.service.short() else { continue };
        let text = data::by_length(&heading(protocol), &measured.service, optimal);
        out.write(&format!("reports/{protocol}_{workload}.data"), text.as_bytes())?;
        let text = data::short_cdf(&heading(protocol), &short);
        out.write(&format!("reports/{protocol}_{workload}_cdf.data"), text.as_bytes())?;
        curves.push(plot::Curve { protocol, digest: &measured.service, optimal });
        shorts.push((*protocol, short));
    }
    if curves.is_empty() {
        return Ok(());
    }
    let load = options.gbps.filter(|gbps| *gbps > 0.0);
    let load = load.map_or_else(|| "no load limit".to_owned(), |gbps| format!("{gbps} Gbps per node"));
    let about = format!("{workload}, {} nodes, {load}", options.nodes);
    let stem = reports.join(format!("slowdown_{workload}"));
    plot::slowdown(&stem, &format!("Slowdown by message length: {about}"), &optimal.text(), &curves)?;
    let shorts: Vec<_> = shorts.iter().map(|(protocol, short)| plot::ShortCurve { protocol, short }).collect();
    let stem = reports.join(format!("short_cdf_{workload}"));
    plot::short_cdf(&stem, &format!("Round-trip time of short messages: {about}"), &shorts)
}
