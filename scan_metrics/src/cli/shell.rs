//! What shells and readers of manuals get from the definition of a command line: completions and man pages.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Command};
pub use clap_complete::Shell;

/// Options of `completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// Whose completions
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Options of `man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Directory for the pages, one a command; it is made if it is missing
    pub dir: PathBuf,
}

/// Prints completions of `command`.
///
/// # Errors
/// As writing to standard output.
pub fn completions(shell: Shell, mut command: Command) -> anyhow::Result<()> {
    let (mut text, name) = (Vec::new(), command.get_name().to_owned());
    clap_complete::generate(shell, &mut command, name, &mut text);
    Ok(std::io::Write::write_all(&mut std::io::stdout().lock(), &text)?)
}

/// Writes man pages of `command`, one for each of its commands.
///
/// # Errors
/// As making a directory and files, with the path.
pub fn man(dir: &Path, mut command: Command) -> anyhow::Result<()> {
    let write = || {
        std::fs::create_dir_all(dir)?;
        command.build();
        clap_mangen::generate_to(command, dir)
    };
    write().with_context(|| format!("writing man pages to {}", dir.display()))
}
