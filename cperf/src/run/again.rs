//! Reports of a run that ended some time ago, from its files.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use super::{Part, conclude, phase};
use crate::cli::{Protocol, RunArgs};
use crate::error::Stop;
use crate::journal::Journal;
use crate::manifest::Manifest;
use crate::outdir::OutDir;
use crate::report::results::Status;
use crate::testbed::links::PortCounts;

/// What results.json knows that no other file does.
#[derive(Debug, Default, Deserialize)]
struct Before {
    command: String,
    reason: Option<String>,
    results: Vec<PartBefore>,
}

#[derive(Debug, Deserialize)]
struct PartBefore {
    protocol: Protocol,
    status: Status,
    ports: Vec<PortCounts>,
}

/// Makes the reports of the run in `dir` again.
///
/// # Errors
/// [`Stop::Usage`] if there is no run; others if its files cannot be read or reports not be written.
pub(super) fn report(dir: &Path) -> anyhow::Result<()> {
    let out = OutDir::open(dir)?;
    let Ok(text) = fs::read(out.path().join("manifest.json")) else {
        let text = format!(
            "{}: neither a run (manifest.json) nor an experiment (experiment.toml); name a directory that `cperf run` made",
            dir.display()
        );
        return Err(Stop::Usage(text).into());
    };
    let mut manifest: Manifest = serde_json::from_slice(&text).context("reading manifest.json")?;
    let options: RunArgs =
        serde_json::from_value(manifest.options.clone()).context("reading the options in manifest.json")?;
    let before: Before = match fs::read(out.path().join("results.json")) {
        Ok(text) => serde_json::from_slice(&text).context("reading results.json")?,
        Err(_) => Before::default(), // the run was killed
    };
    let status = match manifest.status.as_str() {
        "complete" => Status::Complete,
        "interrupted" => Status::Interrupted,
        _ => Status::Failed,
    };
    let mut parts = Vec::new();
    for &protocol in &options.protocols {
        let stem = phase::experiment(protocol, &options.workload);
        let known = before.results.iter().find(|part| part.protocol == protocol);
        let measured = (0..options.nodes).any(|node| out.path().join(format!("{stem}-{node}.rtts")).exists());
        if known.is_none() && !measured {
            continue;
        }
        let switch = match fs::read(out.path().join(format!("{stem}.switch"))) {
            Ok(text) => Some(serde_json::from_slice(&text).with_context(|| format!("reading {stem}.switch"))?),
            Err(_) => None,
        };
        let (status, ports) = known.map_or((Status::Failed, Vec::new()), |part| (part.status, part.ports.clone()));
        parts.push(Part { protocol, status, ports, switch });
    }
    let mut journal = Journal::append(&out.path().join("cperf.log"))?;
    journal.note("reports are made again");
    let end = conclude::End { command: before.command, status, reason: before.reason };
    conclude::write(&options, &mut manifest, &out, &mut journal, &parts, &end)
}
