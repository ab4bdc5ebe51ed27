//! What cperf does, as it does it: on standard error for whoever waits, and with times in cperf.log.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

/// The log of a run.
#[derive(Debug)]
pub struct Journal {
    file: File,
}

impl Journal {
    /// Creates the log file.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { file })
    }

    /// Goes on with the log file, or creates it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn append(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().append(true).create(true).open(path);
        Ok(Self { file: file.with_context(|| format!("opening {}", path.display()))? })
    }

    /// Notes something in the file only.
    pub fn note(&mut self, text: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // A log that cannot be written (disk full) must not end a run whose samples may still fit.
        let _ = writeln!(self.file, "{:010}.{:09} {text}", now.as_secs(), now.subsec_nanos());
    }

    /// Notes something and tells it.
    pub fn say(&mut self, text: &str) {
        eprintln!("cperf: {text}");
        self.note(text);
    }
}
