//! What shells and readers of manuals get from the definition of the command line: completions and man pages.

use clap::CommandFactory as _;
use scan_metrics::cli::shell;
pub use scan_metrics::cli::shell::{CompletionsArgs, ManArgs};

use super::Cli;

/// Text below the options of `completions`.
pub(super) const COMPLETIONS_HELP: &str = "\
Examples:
  cperf completions bash > ~/.local/share/bash-completion/completions/cperf
  cperf completions zsh > ~/.zfunc/_cperf
  cperf completions fish > ~/.config/fish/completions/cperf.fish";

/// Text below the options of `man`.
pub(super) const MAN_HELP: &str = "\
Example: cperf man ~/.local/share/man/man1; man cperf-run";

/// Prints completions.
///
/// # Errors
/// As writing to standard output.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    shell::completions(args.shell, Cli::command())
}

/// Writes man pages.
///
/// # Errors
/// As making a directory and files, with the path.
pub fn man(args: &ManArgs) -> anyhow::Result<()> {
    shell::man(&args.dir, Cli::command())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options() {
        let dir = std::env::temp_dir().join(format!("cperf-man-{}", std::process::id()));
        man(&ManArgs { dir: dir.clone() }).unwrap();
        for command in Cli::command().get_subcommands() {
            let page = std::fs::read_to_string(dir.join(format!("cperf-{}.1", command.get_name()))).unwrap();
            assert!(page.contains(".TH"), "{}", command.get_name());
        }
        assert!(std::fs::read_to_string(dir.join("cperf-run.1")).unwrap().contains("client\\-max"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
