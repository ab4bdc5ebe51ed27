//! `tthoma export`: arguments, and what is said of the result.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use tthoma::analyze;
use tthoma::export::{self, DEFAULT_MB, ExportError, Options, Summary};
use tthoma::model::Model;

/// Forms of viewers.
#[derive(Debug, Subcommand)]
pub(crate) enum Export {
    /// For ui.perfetto.dev: a track for each core, flows of packets and RPCs, counters of backlogs
    #[command(after_help = "Example: tthoma export perfetto out/w4/traces --output w4.perfetto --from 1000 --to 3000")]
    Perfetto(Perfetto),
}

#[derive(Debug, Args)]
pub(crate) struct Perfetto {
    /// Traces: .tt files, also .gz and .zst, or directories of them; a node is named after its file
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// File for the export, `-` for standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Only from this time on, in us on the common clock
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    from: Option<f64>,

    /// Only up to this time
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    to: Option<f64>,

    /// Only this node; can be given several times
    #[arg(long, value_name = "NODE")]
    node: Vec<String>,

    /// Only the packets of this RPC (its id on either side, or CLIENT:ID), and what cores did meanwhile
    #[arg(long, value_name = "RPC")]
    rpc: Option<String>,

    /// Stop at this size; what is cut is said
    #[arg(long, value_name = "MB", default_value_t = DEFAULT_MB)]
    max_mb: f64,

    /// Use the times in the traces as they are, without synchronising the nodes' clocks
    #[arg(long)]
    no_sync: bool,
}

pub(crate) fn run(command: &Export) -> anyhow::Result<ExitCode> {
    let Export::Perfetto(args) = command;
    let options =
        Options { from: args.from, to: args.to, nodes: args.node.clone(), rpc: args.rpc.clone(), max_mb: args.max_mb };
    let model = Model::read(&args.paths, &analyze::Options { no_sync: args.no_sync, ..Default::default() })?;
    for problem in model.stats().flat_map(|s| s.problems()) {
        eprintln!("tthoma: warning: {problem}");
    }
    let summary = match write(&model, &options, &args.output) {
        Err(error) => match error.downcast_ref::<ExportError>() {
            Some(ExportError::Write(_)) | None => return Err(error),
            Some(wrong) => {
                eprintln!("tthoma: export: {wrong}");
                return Ok(ExitCode::from(2));
            }
        },
        Ok(summary) => summary,
    };
    let mb = summary.bytes as f64 / 1e6;
    eprintln!(
        "{} events on {} tracks, {mb:.1} MB, from {:.3} to {:.3} us; {:.3} us is 0 in the viewer",
        summary.events, summary.tracks, summary.from_us, summary.to_us, summary.zero_us
    );
    if summary.cut > 0 {
        eprintln!(
            "tthoma: warning: {} events after {:.3} us did not fit into {} MB: give --max-mb more, or less with --from, --to, \
             --node, --rpc",
            summary.cut, summary.to_us, args.max_mb
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the export; a file appears whole or not at all.
fn write(model: &Model, options: &Options, path: &Path) -> anyhow::Result<Summary> {
    if path == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        let summary = export::perfetto(model, options, &mut out)?;
        out.flush().context("cannot write to standard output")?;
        return Ok(summary);
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}.part", std::process::id()));
    let file = || {
        let mut out = BufWriter::new(File::create(&aside).with_context(|| format!("cannot write {}", path.display()))?);
        let summary = export::perfetto(model, options, &mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?;
        std::fs::rename(&aside, path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(summary)
    };
    file().inspect_err(|_: &anyhow::Error| drop(std::fs::remove_file(&aside)))
}
