//! Commands: the scan of many nodes, `metrics` and `diff` about one.

mod many;
mod node;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

pub use many::{Format, ScanArgs, scan_metrics};
pub use node::{DiffArgs, MetricsArgs, diff, metrics};

/// Finds what is odd in metrics of Homa, and prints what changed on a node.
#[derive(Debug, Parser)]
#[command(name = "scan_metrics", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    /// What to do; without a command, the scan.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The scan.
    #[command(flatten)]
    pub scan: Option<ScanArgs>,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What changed on a node: counters, rates, where the time went
    Metrics(MetricsArgs),
    /// Counters that differ between two files
    Diff(DiffArgs),
}

/// Does what the command line says.
///
/// # Errors
///
/// Input that can't be used, results that can't be written.
pub fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    match (&cli.command, &cli.scan) {
        (Some(Command::Metrics(args)), _) => metrics(args).map(|()| ExitCode::SUCCESS),
        (Some(Command::Diff(args)), _) => diff(args).map(|()| ExitCode::SUCCESS),
        (None, Some(args)) => scan_metrics(args),
        (None, None) => {
            Cli::command().print_help()?;
            Ok(ExitCode::from(2))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_scanned_and_words_are_commands() {
        Cli::command().debug_assert();
        let scan = |words: &str| Cli::try_parse_from(words.split(' '));
        let cli = scan("scan_metrics out/w4 out/w5 --fail-on warn").unwrap();
        assert_eq!(cli.scan.unwrap().dirs.len(), 2);
        assert!(matches!(scan("scan_metrics metrics a b").unwrap().command, Some(Command::Metrics(_))));
        assert!(matches!(scan("scan_metrics diff a b --per-core").unwrap().command, Some(Command::Diff(_))));
        assert!(scan("scan_metrics diff a").is_err() && scan("scan_metrics").is_err());
    }

    #[test]
    fn help_names_levels_and_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        for part in ["Exit codes: 0 done", "--fail-on", "--save-baseline", "Levels: fatal"] {
            assert!(help.contains(part), "no `{part}` in:\n{help}");
        }
    }
}
