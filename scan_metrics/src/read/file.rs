//! Files, plain or compressed by gzip.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system did not give its bytes.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its gzip data end early or are damaged.
    #[error("{path}: damaged gzip data: {source}; copy it again")]
    Gzip {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
    /// Not text.
    #[error("{path}: not a text, byte {at}")]
    Text {
        /// The file.
        path: PathBuf,
        /// Where it stops being text.
        at: usize,
    },
    /// No line of it is a counter of a core.
    #[error("{path}: no counter in it; expected lines `NAME VALUE DESCRIPTION` after a line `core 0`")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The clock is missing, so there are no rates.
    #[error("{path}: no clock in it; expected lines `time_cycles N` (or `rdtsc_cycles N`) and `cpu_khz N`")]
    NoClock {
        /// The file.
        path: PathBuf,
    },
    /// Some cores have fewer counters than others.
    #[error("{path}: cut off: core {core} has {has} counters, core {first} has {full}; collect it again")]
    CutOff {
        /// The file.
        path: PathBuf,
        /// The core with too few.
        core: u64,
        /// How many it has.
        has: usize,
        /// The first core.
        first: u64,
        /// How many that has.
        full: usize,
    },
    /// The snapshot at one end of its interval is missing.
    #[error("{path}: its other half, the snapshot {missing} the interval, is missing")]
    Half {
        /// The file that is there.
        path: PathBuf,
        /// `before` or `after`.
        missing: &'static str,
    },
}

impl FileError {
    /// The reason in a few words, without the file: what such files are counted under.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "cannot be read",
            Self::Gzip { .. } => "damaged gzip data",
            Self::Text { .. } => "not a text",
            Self::Empty { .. } => "no counter in it",
            Self::NoClock { .. } => "no clock in it",
            Self::CutOff { .. } => "cut off",
            Self::Half { .. } => "one of two snapshots",
        }
    }
}

/// The text of a file; `.gz` is decompressed. `buffer` is used again between calls.
///
/// # Errors
///
/// If it can't be read or is no text.
pub fn load<'a>(path: &Path, buffer: &'a mut Vec<u8>) -> Result<&'a str, FileError> {
    let owned = || path.to_owned();
    buffer.clear();
    let mut file = File::open(path).map_err(|source| FileError::Read { path: owned(), source })?;
    if path.extension().is_some_and(|ext| ext == "gz") {
        let read = flate2::read::MultiGzDecoder::new(file).read_to_end(buffer);
        read.map_err(|source| FileError::Gzip { path: owned(), source })?;
    } else {
        // /proc says 0; others are read in one go.
        let length = file.metadata().map_or(0, |meta| meta.len() as usize);
        buffer.reserve(length + 1);
        file.read_to_end(buffer).map_err(|source| FileError::Read { path: owned(), source })?;
    }
    std::str::from_utf8(buffer).map_err(|err| FileError::Text { path: owned(), at: err.valid_up_to() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn plain_and_compressed_files_give_the_same_text_and_damage_is_told() {
        let dir = std::env::temp_dir().join(format!("scan-metrics-load-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = |name: &str| dir.join(name);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(b"core 0 x\n").unwrap();
        let packed = gzip.finish().unwrap();
        std::fs::write(path("a.metrics"), "core 0 x\n").unwrap();
        std::fs::write(path("a.metrics.gz"), &packed).unwrap();
        std::fs::write(path("cut.metrics.gz"), &packed[..packed.len() - 5]).unwrap();
        std::fs::write(path("binary.metrics"), b"core\xff").unwrap();
        let mut buffer = Vec::new();
        for name in ["a.metrics", "a.metrics.gz"] {
            assert_eq!(load(&path(name), &mut buffer).unwrap(), "core 0 x\n", "{name}");
        }
        for (name, reason) in [
            ("cut.metrics.gz", "damaged gzip data"),
            ("binary.metrics", "not a text"),
            ("none.metrics", "cannot be read"),
        ] {
            let err = load(&path(name), &mut buffer).unwrap_err();
            assert_eq!(err.reason(), reason);
            assert!(err.to_string().contains(name), "{err}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
