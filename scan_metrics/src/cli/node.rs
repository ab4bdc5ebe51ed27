//! The commands about one node.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::read::{BadLine, Printed, Snapshot, load};
use crate::tool::live::{KERNEL, Source, keep};
use crate::tool::{self, Grown};

const METRICS_HELP: &str = "\
Examples:
  metrics out/w4/homa_w4-0.metrics                   a file of a run: it holds what grew over the run's interval
  metrics before.txt after.txt                       two raw files
  metrics --save last.txt                            the kernel module's counters since the last call; the first prints
                                                     what they are in all
  metrics --watch 1                                  the same every second, until Ctrl-C
  metrics --watch 1 --live 127.0.0.1:9400            a node of cp-node that was started with --prometheus
Files may be compressed (.gz).";

/// Options of `metrics`.
#[derive(Clone, Debug, Args)]
#[command(after_help = METRICS_HELP)]
pub struct MetricsArgs {
    /// One file of a run (NAME.metrics), or two raw files, the earlier one first; none: live counters
    #[arg(num_args = 0..=2, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Live counters: a file, or HOST:PORT of a node's --prometheus
    #[arg(long, default_value = KERNEL, value_name = "WHERE", conflicts_with = "files")]
    pub live: String,
    /// Live: print what changed since the counters that FILE keeps, then keep the present ones there
    #[arg(long, value_name = "FILE", conflicts_with_all = ["files", "watch"])]
    pub save: Option<PathBuf>,
    /// Live: print what changed in each S seconds, again and again [default: all counters, once]
    #[arg(long, value_name = "S", conflicts_with = "files", value_parser = seconds)]
    pub watch: Option<f64>,
    /// With --watch: end after N intervals [default: with Ctrl-C]
    #[arg(long, value_name = "N", requires = "watch")]
    pub times: Option<u64>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "expected seconds, for example 1 or 0.5".to_owned())?;
    if (0.01..=86_400.0).contains(&value) { Ok(value) } else { Err("expected 0.01 to 86400 seconds".to_owned()) }
}

const DIFF_HELP: &str = "\
Example: diff node0.homa_metrics.before.gz node0.homa_metrics.after.gz --per-core";

/// Options of `diff`.
#[derive(Clone, Debug, Args)]
#[command(after_help = DIFF_HELP)]
pub struct DiffArgs {
    /// The earlier raw file
    pub one: PathBuf,
    /// The later one
    pub two: PathBuf,
    /// Each core's counters instead of all cores together
    #[arg(long)]
    pub per_core: bool,
}

/// Prints what changed on a node.
///
/// # Errors
///
/// Input that can't be used.
pub fn metrics(args: &MetricsArgs) -> anyhow::Result<()> {
    match args.files.as_slice() {
        [] => live(args),
        [file] => print(&tool::print(&Grown::of_interval(interval(file)?))),
        [before, after, ..] => print(&tool::print(&Grown::between(&raw(before)?, &raw(after)?))),
    }
}

fn live(args: &MetricsArgs) -> anyhow::Result<()> {
    let source = Source::new(&args.live);
    let Some(every) = args.watch else {
        let (text, now) = source.read()?;
        let then = match &args.save {
            Some(path) if path.exists() => Some(raw(path)?),
            _ => None,
        };
        let grown = then.map_or_else(|| Grown::of_interval(now.clone()), |then| Grown::between(&then, &now));
        print(&tool::print(&grown))?;
        return args.save.as_deref().map_or(Ok(()), |path| keep(path, &text));
    };
    let (_, mut last) = source.read()?;
    let clear = std::io::stdout().is_terminal();
    for _ in 0..args.times.unwrap_or(u64::MAX) {
        std::thread::sleep(Duration::from_secs_f64(every));
        let (_, now) = source.read()?;
        let text = tool::print(&Grown::between(&last, &now));
        print(&if clear { format!("\x1b[2J\x1b[H{text}") } else { format!("{text}\n") })?;
        last = now;
    }
    Ok(())
}

/// Prints what differs between two files.
///
/// # Errors
///
/// Input that can't be used.
pub fn diff(args: &DiffArgs) -> anyhow::Result<()> {
    print(&tool::diff::print(&raw(&args.one)?, &raw(&args.two)?, args.per_core))
}

/// A raw file; lines that are no counters are told of.
fn raw(path: &Path) -> anyhow::Result<Snapshot> {
    let mut buffer = Vec::new();
    let text = load(path, &mut buffer)?;
    if Printed::is(text) {
        bail!(
            "{}: is printed by metrics.py; expected raw counters, as the kernel module or cp-node write them",
            path.display()
        );
    }
    let snapshot = Snapshot::parse(text);
    if snapshot.cores.is_empty() {
        bail!("{}: no counter in it; expected lines `NAME VALUE DESCRIPTION` after a line `core 0`", path.display());
    }
    if snapshot.problems.total() > 0 {
        let reasons = BadLine::ALL.into_iter().filter(|&reason| snapshot.problems.count(reason) > 0);
        let reasons: Vec<_> =
            reasons.map(|reason| format!("{} {}", snapshot.problems.count(reason), reason.text())).collect();
        let first = snapshot.problems.first.as_ref();
        let first = first.map(|(line, text)| format!("; the first, line {line}: {text}")).unwrap_or_default();
        eprintln!("{}: lines that are no counters: {}{first}", path.display(), reasons.join(", "));
    }
    Ok(snapshot)
}

/// A file of growth: raw layout, one file.
fn interval(path: &Path) -> anyhow::Result<Snapshot> {
    raw(path).with_context(|| format!("reading {}", path.display()))
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
