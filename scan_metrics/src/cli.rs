//! Commands: `metrics` and `diff` about one node, and the scan of many.

mod node;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use node::{DiffArgs, MetricsArgs, diff, metrics};

/// Finds what is odd in metrics of Homa, and prints what changed on a node.
#[derive(Debug, Parser)]
#[command(name = "scan_metrics", version, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What changed on a node: counters, rates, where the time went
    Metrics(MetricsArgs),
    /// Counters that differ between two files
    Diff(DiffArgs),
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 --fail-on was met; 2 wrong usage or input.
Results go to standard output, everything else to standard error.";

/// Does what the command line says.
///
/// # Errors
///
/// Input that can't be used, results that can't be written.
pub fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Metrics(args) => metrics(args),
        Command::Diff(args) => diff(args),
    }?;
    Ok(ExitCode::SUCCESS)
}
