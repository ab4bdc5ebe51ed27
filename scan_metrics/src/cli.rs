//! Commands: the scan of many nodes, `metrics` and `diff` about one.

mod many;
mod node;
pub mod shell;

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
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
    /// Print completions for a shell
    #[command(
        after_help = "Example: scan_metrics completions bash > ~/.local/share/bash-completion/completions/scan_metrics"
    )]
    Completions(shell::CompletionsArgs),
    /// Write manual pages
    #[command(after_help = "Example: scan_metrics man ~/.local/share/man/man1; man scan_metrics-diff")]
    Man(shell::ManArgs),
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
        (Some(Command::Completions(args)), _) => {
            shell::completions(args.shell, Cli::command()).map(|()| ExitCode::SUCCESS)
        }
        (Some(Command::Man(args)), _) => shell::man(&args.dir, Cli::command()).map(|()| ExitCode::SUCCESS),
        (None, Some(args)) => match args.dirs.iter().find_map(|dir| meant(dir)) {
            Some(hint) => bail!(hint),
            None => scan_metrics(args),
        },
        (None, None) => {
            Cli::command().print_help()?;
            Ok(ExitCode::from(2))
        }
    }
}

/// What to say of a directory that is none, but nearly the name of a command.
fn meant(dir: &Path) -> Option<String> {
    let word = dir.to_str().filter(|_| !dir.exists())?;
    let mut command = Cli::command();
    command.build();
    let names =
        command.get_subcommands().map(|one| (strsim::damerau_levenshtein(word, one.get_name()), one.get_name()));
    let (_, name) = names.filter(|(distance, _)| *distance <= 2).min()?;
    Some(format!("{word}: no such file or directory; did you mean the command `{name}`?"))
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
    fn a_command_that_is_misspelt_is_no_directory() {
        for (word, name) in [("metrcs", "metrics"), ("dif", "diff"), ("completion", "completions")] {
            let told = meant(Path::new(word)).unwrap();
            assert!(told.contains(&format!("did you mean the command `{name}`?")), "{told}");
        }
        assert_eq!((meant(Path::new("out/w4")), meant(Path::new("."))), (None, None));
    }

    #[test]
    fn help_names_levels_and_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        for part in ["Exit codes: 0 done", "--fail-on", "--save-baseline", "Levels: fatal"] {
            assert!(help.contains(part), "no `{part}` in:\n{help}");
        }
    }
}
