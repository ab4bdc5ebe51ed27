//! What shells and readers of manuals get from the definition of the command line: completions and man pages.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

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

/// Options of `cperf completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// Whose completions
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Options of `cperf man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Directory for the pages, one a command; it is made if it is missing
    pub dir: PathBuf,
}

/// Prints completions.
///
/// # Errors
/// As writing to standard output.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cperf", &mut text);
    Ok(std::io::Write::write_all(&mut std::io::stdout().lock(), &text)?)
}

/// Writes man pages.
///
/// # Errors
/// As making a directory and files, with the path.
pub fn man(args: &ManArgs) -> anyhow::Result<()> {
    pages(&args.dir).with_context(|| format!("writing man pages to {}", args.dir.display()))
}

fn pages(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut command = Cli::command();
    command.build();
    clap_mangen::generate_to(command, dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options() {
        let dir = std::env::temp_dir().join(format!("cperf-man-{}", std::process::id()));
        pages(&dir).unwrap();
        for command in Cli::command().get_subcommands() {
            let page = std::fs::read_to_string(dir.join(format!("cperf-{}.1", command.get_name()))).unwrap();
            assert!(page.contains(".TH"), "{}", command.get_name());
        }
        assert!(std::fs::read_to_string(dir.join("cperf-run.1")).unwrap().contains("client\\-max"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn completions_know_commands_and_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "cperf", &mut text);
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("experiments") && text.contains("client-max"), "{shell}");
        }
    }
}
