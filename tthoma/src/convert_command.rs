//! `tthoma convert`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use tthoma::analyze::Options;
use tthoma::model::Model;
use tthoma::read::{self, ReadError};
use tthoma::tables::{cache, store, stream};

use crate::cli::Convert;

pub(crate) fn convert(args: &Convert) -> anyhow::Result<ExitCode> {
    let options =
        Options { events: args.events.clone(), interval: args.interval, no_sync: args.no_sync, ..Options::default() };
    let run = match &args.run {
        Some(run) => run.clone(),
        None => run_name(&read::files(&args.paths)?),
    };
    let dir = match &args.output {
        Some(dir) => dir.clone(),
        None => {
            if let Some((dir, manifest)) = cache::find(&args.paths, args.events.as_deref())? {
                return said(&dir, &manifest, "unchanged since they were converted");
            }
            let place = cache::place(&args.paths, args.events.as_deref())?;
            let dir = place.context("no cache folder (HOME is not set), or a trace is a pipe: give --output")?;
            // What is there is of other contents of these files.
            let _ = fs::remove_dir_all(&dir);
            dir
        }
    };
    let memory = args.memory.saturating_mul(1_000_000);
    let manifest = if stream::needs(&read::files(&args.paths)?) > memory {
        stream::write(&args.paths, &options, &dir, &run, memory)?
    } else {
        let model = Model::read(&args.paths, &options)?;
        store::write(&model, &options, &dir, &run).map_err(ReadError::from)?
    };
    for problem in manifest.nodes.iter().flat_map(|node| node.stats.problems()) {
        eprintln!("tthoma: warning: {problem}");
    }
    said(&dir, &manifest, "converted")
}

fn said(dir: &Path, manifest: &store::Manifest, what: &str) -> anyhow::Result<ExitCode> {
    let rows = |table: &str| manifest.files.iter().filter(|f| f.table == table).map(|f| f.rows).sum::<usize>();
    let bytes: u64 = manifest.files.iter().map(|f| f.bytes).sum();
    let (nodes, events) = (manifest.nodes.len(), rows("events"));
    let text = format!(
        "{}\n{what}: run `{}`, {nodes} nodes, {events} events, {} packets; {} files, {:.1} MB\n",
        dir.display(),
        manifest.run,
        rows("packets"),
        manifest.files.len(),
        bytes as f64 / 1e6
    );
    crate::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Name of the folder that the traces are in; of a folder `traces`, that of the one above.
fn run_name(files: &[PathBuf]) -> String {
    let first = files.first().and_then(|f| fs::canonicalize(f).ok()).unwrap_or_default();
    let names: Vec<String> =
        first.ancestors().skip(1).filter_map(|a| a.file_name()).map(|n| n.to_string_lossy().into_owned()).collect();
    let name = names.iter().find(|n| *n != "traces").cloned().unwrap_or_else(|| "run".into());
    // In paths of partitions.
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}
