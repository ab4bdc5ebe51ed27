//! The command about many nodes.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use crate::out;
use crate::scan::finding::Level;
use crate::scan::{Options, save_baseline, scan};

const HELP: &str = "\
Examples:
  scan-metrics out/w4                                  one run
  scan-metrics out/                                    many: runs of one experiment are also compared with each other
  scan-metrics out/w4 --html odd.html --csv odd.csv
  scan-metrics out/w4 --fail-on warn                   in scripts: exit code 1 if something is odd
  scan-metrics out/good --save-baseline usual.json; scan-metrics out/new --baseline usual.json

Files: EXPERIMENT-NODE.metrics (with .before and .after, if they are there), node<K>.homa_metrics.before and .after, and
what metrics.py printed, plain or .gz; manifest.json (or the originals' cperf.log) and node logs beside them.

Levels: fatal: something is broken, or its figures can't be compared; warn: odd; info: worth knowing. A finding by
comparison stands out from peers under equal load by more than chance explains in as many comparisons as were made, and by
enough to be of interest. Tests are named in the last lines and under --format json.

Exit codes: 0 done; 1 --fail-on was met; 2 no input that can be used, or wrong usage.";

/// Forms of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// Everything.
    Json,
    /// A line a finding.
    Csv,
}

/// Options of the scan.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct ScanArgs {
    /// Runs: directories, looked through with all below them, or single files
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Only this experiment, for example homa_w4
    #[arg(long, value_name = "NAME")]
    pub experiment: Option<String>,
    /// Findings of this level and above
    #[arg(long, value_enum, default_value_t = Level::Warn)]
    pub level: Level,
    /// All findings of a node, not only ten
    #[arg(long)]
    pub all: bool,
    /// Exit code 1 if there is a finding of this level or above
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub fail_on: Option<Level>,
    /// Results on standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Also write a page with heat maps of nodes and counters
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Also write the findings as CSV
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Also write everything as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Compare with what --save-baseline wrote about earlier runs
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Write what these runs have, for --baseline of later ones
    #[arg(long, value_name = "FILE")]
    pub save_baseline: Option<PathBuf>,
    /// Threads that read files [default: as many as cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
}

/// Scans, and writes what was asked for; code 1 if `--fail-on` was met.
///
/// # Errors
///
/// Input that can't be used, results that can't be written.
pub fn scan_metrics(args: &ScanArgs) -> anyhow::Result<ExitCode> {
    let found = scan(&Options {
        roots: args.dirs.clone(),
        experiment: args.experiment.clone(),
        baseline: args.baseline.clone(),
        threads: args.threads,
    })?;
    let write =
        |path: &Option<PathBuf>, text: &dyn Fn() -> String| path.as_deref().map_or(Ok(()), |path| put(path, &text()));
    write(&args.html, &|| out::html(&found))?;
    write(&args.csv, &|| out::csv(&found))?;
    write(&args.json, &|| out::json(&found))?;
    if let Some(path) = &args.save_baseline {
        save_baseline(&found, path)?;
    }
    let text = match args.format {
        Format::Table => out::table(&found, args.level, args.all),
        Format::Json => out::json(&found),
        Format::Csv => out::csv(&found),
    };
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    let met = args.fail_on.is_some_and(|level| found.findings.iter().any(|finding| finding.level >= level));
    Ok(if met { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
