//! The node's log: lines of wall-clock time and text, to a file or to stdout.

use std::fmt;
use std::fs::File;
use std::io::{LineWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock;

/// A handle to the log of this node; clones write to the same log.
#[derive(Clone)]
pub(crate) struct Log(Arc<Shared>);

struct Shared {
    /// `None` is stdout.
    file: Mutex<Option<LineWriter<File>>>,
    verbose: AtomicBool,
}

impl Log {
    /// A log to stdout, at normal level.
    pub(crate) fn stdout() -> Self {
        Self(Arc::new(Shared { file: Mutex::new(None), verbose: AtomicBool::new(false) }))
    }

    /// Sends later lines to `name`, which is truncated; `-` is stdout.
    ///
    /// # Errors
    /// If the file can't be created; the log goes on where it was.
    pub(crate) fn redirect(&self, name: &str) -> Result<()> {
        let file = match name {
            "-" => None,
            _ => {
                let file = File::create(name).with_context(|| format!("can't write the log file {name}"))?;
                Some(LineWriter::new(file))
            }
        };
        *self.0.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    /// Chooses whether lines of [`Log::detail`] are written.
    pub(crate) fn set_verbose(&self, verbose: bool) {
        self.0.verbose.store(verbose, Ordering::Relaxed);
    }

    /// True if the log goes to a file, not to stdout.
    pub(crate) fn is_file(&self) -> bool {
        self.0.file.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Writes one line. A log that can't be written must not end a measurement: errors are ignored.
    pub(crate) fn line(&self, text: impl fmt::Display) {
        let line = format_line(clock::wall(), &text);
        let mut file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = match file.as_mut() {
            Some(file) => file.write_all(line.as_bytes()),
            None => {
                let mut out = std::io::stdout().lock();
                out.write_all(line.as_bytes()).and_then(|()| out.flush())
            }
        };
    }

    /// Writes one line at verbose level only.
    pub(crate) fn detail(&self, text: impl fmt::Display) {
        if self.0.verbose.load(Ordering::Relaxed) {
            self.line(text);
        }
    }
}

fn format_line(at: Duration, text: &impl fmt::Display) -> String {
    format!("{:010}.{:09} {text}\n", at.as_secs(), at.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_begins_with_padded_seconds_and_nanoseconds() {
        assert_eq!(format_line(Duration::new(12, 345), &"words"), "0000000012.000000345 words\n");
        assert_eq!(format_line(Duration::new(1_795_363_113, 813_600_697), &"x"), "1795363113.813600697 x\n");
    }

    #[test]
    fn a_file_that_cant_be_created_is_named() {
        let error = Log::stdout().redirect("/no/such/dir/log").unwrap_err();
        assert!(format!("{error:#}").contains("/no/such/dir/log"));
    }
}
