//! Errors that choose the exit code of a one-shot command.

/// Something that this process may not do, or that is not there: a privilege, an interface, a core. Exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Missing(pub(crate) String);

/// Options that make no sense together. Exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Exit code of a command that failed: 1, unless one of the causes is of a kind with a code of its own.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|e| e.is::<Missing>()) {
        3
    } else if error.chain().any(|e| e.is::<Usage>()) {
        2
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn the_cause_chooses_the_code() {
        assert_eq!(exit_code(&anyhow!("x")), 1);
        assert_eq!(exit_code(&Err::<(), _>(Usage("x".into())).context("y").unwrap_err()), 2);
        assert_eq!(exit_code(&Err::<(), _>(Missing("x".into())).context("y").context("z").unwrap_err()), 3);
    }
}
