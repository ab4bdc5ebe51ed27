//! `tthoma report`: one HTML file about traces.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use tthoma::analyze::{ALL, Analyzer, Options, Run, find};
use tthoma::document;
use tthoma::model::Model;

use crate::cli::Report;

/// RPCs that are walked through step by step.
const SLOWEST: usize = 3;

pub(crate) fn run(args: &Report) -> anyhow::Result<ExitCode> {
    // What is drawn is in the report, whichever directory is named.
    let plot = Some(args.options.plot.clone().unwrap_or_else(|| PathBuf::from(".")));
    let options = Options { plot, ..args.options.clone() };
    let model = Model::read(&args.paths, &options)?;
    let given = options.given();
    let ready = |a: &&&'static dyn Analyzer| a.about().requires.iter().all(|r| given.iter().any(|g| g == r));
    let all: Vec<&'static dyn Analyzer> =
        ALL.iter().filter(ready).filter(|a| a.about().name != "explain").copied().collect();
    let mut run = Run::new(&model, &args.paths, &all, &options);
    let rpc = Some(options.rpc.clone().unwrap_or_else(|| "slow".into()));
    let slowest = Options { rpc, top: SLOWEST, ..options.clone() };
    let explain = find("explain").context("explain is an analysis")?;
    run.findings.extend(Run::new(&model, &args.paths, &[explain], &slowest).findings);
    for warning in run.warnings_of_traces() {
        eprintln!("tthoma: warning: {warning}");
    }
    let names: Vec<String> = run.nodes.iter().map(|n| n.node.clone()).collect();
    let html = document::html(&run, &format!("Time traces of {}", names.join(", ")));
    let mut aside = args.output.clone().into_os_string();
    aside.push(format!(".{}.part", std::process::id()));
    let written = fs::write(&aside, html).and_then(|()| fs::rename(&aside, &args.output));
    written
        .inspect_err(|_| drop(fs::remove_file(&aside)))
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    let answers = run.findings.iter().filter(|f| f.report.as_ref().is_some_and(|r| r.has_results())).count();
    eprintln!("{}: {answers} of {} analyses have an answer", args.output.display(), run.findings.len());
    Ok(if answers > 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
