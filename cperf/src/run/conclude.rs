//! The end of a run, good or bad: reports, results.json, manifest, and what is printed.

use std::io::Write as _;

use serde_json::json;

use super::{Part, collect, status};
use crate::cli::{Format, RunArgs};
use crate::journal::Journal;
use crate::manifest::{self, Manifest};
use crate::outdir::OutDir;
use crate::report::results::{Measured, ProtocolResult};
use crate::report::slowdown::Optimal;
use crate::report::{data, digest, plot, table};

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
    let optimal = collect::optimal(options, out, journal)?;
    let mut all = Vec::new();
    for part in parts {
        all.push((part, collect::measured(options, part.protocol, out, journal)?));
    }
    let digests: Vec<_> = all.iter().map(|(_, measured)| &measured.service).collect();
    let (cuts, offered) = (digest::cuts(&digests), options.gbps.unwrap_or(0.0));
    let result = |(part, measured): &(&Part, Measured)| {
        ProtocolResult::new(part.protocol.name(), part.status, offered, measured, &optimal, &cuts)
    };
    let results: Vec<_> = all.iter().map(result).collect();
    let measured: Vec<_> = all.iter().map(|(part, measured)| (part.protocol.name(), measured)).collect();
    write_reports(options, out, &measured, &optimal)?;
    let status = status(&outcome);
    let reason = outcome.as_ref().err().map(|err| format!("{err:#}"));
    journal.note(&format!("run ended: {status:?}"));
    manifest.close(status.word(), out)?;
    let json = json!({
        "version": manifest::VERSION,
        "command": manifest.command.join(" "),
        "workload": options.workload,
        "status": status,
        "reason": reason,
        "options": manifest.options,
        "slowdown": optimal.text(),
        "results": results,
        "manifest": &*manifest,
    });
    let mut text = serde_json::to_vec_pretty(&json)?;
    text.push(b'\n');
    out.write("results.json", &text)?;
    manifest.close(status.word(), out)?; // now with results.json
    out.write("manifest.json", &manifest.text())?;
    let printed = print(options, &results, &optimal, &text, out);
    outcome?; // why the run ended matters more than who reads this
    printed
}

/// Results on standard output.
fn print(
    options: &RunArgs,
    results: &[ProtocolResult],
    optimal: &Optimal,
    json: &[u8],
    out: &OutDir,
) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match options.format {
        Format::Json => stdout.write_all(json)?,
        Format::Table if results.is_empty() => {}
        Format::Table => {
            stdout.write_all(table::run(&options.workload, results, &optimal.text()).as_bytes())?;
            writeln!(stdout, "plots and column files: {}", out.path().join("reports").display())?;
        }
    }
    Ok(stdout.flush()?)
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
