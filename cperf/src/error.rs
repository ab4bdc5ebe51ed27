//! Why a command stops, and the exit code that tells it.

use std::process::ExitCode;

/// Reasons with an exit code of their own; every other error means that a run failed (code 1).
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// Wrong usage or input: code 2.
    #[error("{0}")]
    Usage(String),
    /// A node, an interface or a privilege is missing: code 3.
    #[error("{0}")]
    Missing(String),
    /// All was tried, and something was left out by policy: code 4.
    #[error("{0}")]
    Incomplete(String),
    /// Ctrl-C or a termination signal: code 130.
    #[error("interrupted by a signal")]
    Interrupted,
}

impl Stop {
    /// The code for the shell.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Missing(_) => 3,
            Self::Incomplete(_) => 4,
            Self::Interrupted => 130,
        }
    }
}

/// That `what` needs a feature that this program was built without.
pub fn without_ssh(what: &str) -> Stop {
    Stop::Usage(format!(
        "{what}: this cperf was built without SSH: `cargo build --release -p cperf --features ssh` (needs perl and make)"
    ))
}

/// The exit code for `err`: that of the first [`Stop`] in its chain of causes, else 1.
pub fn exit_code(err: &anyhow::Error) -> ExitCode {
    ExitCode::from(code(err))
}

/// As [`exit_code`], as a number.
pub fn code(err: &anyhow::Error) -> u8 {
    // `downcast_ref` also finds a `Stop` that was attached as context; the chain finds one used as a source.
    let stop = err.downcast_ref::<Stop>().or_else(|| err.chain().find_map(|cause| cause.downcast_ref::<Stop>()));
    stop.map_or(1, Stop::code)
}

/// The name that `text` is most likely a misspelling of; empty if there are none.
pub fn nearest<'a>(text: &str, names: impl IntoIterator<Item = &'a str>) -> &'a str {
    names.into_iter().min_by_key(|name| strsim::damerau_levenshtein(name, text)).unwrap_or_default()
}

/// Whether the reader of our standard output has gone: `head` has seen enough, which is no error.
pub fn is_broken_pipe(err: &anyhow::Error) -> bool {
    err.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|err| err.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context as _, anyhow};

    #[test]
    fn the_code_survives_context_and_the_rest_is_one() {
        let usage = Err::<(), _>(Stop::Usage("bad".into())).context("reading options").unwrap_err();
        assert_eq!(code(&usage), 2);
        assert_eq!(code(&anyhow!(Stop::Missing("none".into()))), 3);
        assert_eq!(code(&anyhow!(Stop::Incomplete("a point".into()))), 4);
        assert_eq!(code(&anyhow!(Stop::Interrupted)), 130);
        assert_eq!(code(&anyhow!("a node died")), 1);
    }

    #[test]
    fn the_nearest_name_is_the_one_with_the_fewest_changes() {
        assert_eq!(nearest("bufers", ["nodes", "buffers", "fifo"]), "buffers");
        assert_eq!(nearest("x", []), "");
    }

    #[test]
    fn only_a_broken_pipe_is_a_broken_pipe() {
        let pipe = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&anyhow!(pipe).context("printing")));
        assert!(!is_broken_pipe(&anyhow!(std::io::Error::from(std::io::ErrorKind::NotFound))));
    }
}
