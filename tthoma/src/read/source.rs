//! From paths to files to bytes: which files are traces, which node each belongs to, how it is compressed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;
use serde::{Deserialize, Serialize};

/// Why traces can't be read at all. Anything less is in [`super::FileStats`].
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing to read was named.
    #[error("no traces given: expected .tt files (also .gz, .zst) or directories of them")]
    NoPaths,
    /// A file or directory can't be opened.
    #[error("{path}: cannot read: {source}")]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory has no traces in it.
    #[error("{path}: no traces in this directory: expected *.tt, *.tt.gz or *.tt.zst")]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// Two files would be the same node.
    #[error("{first} and {second} are both traces of `{node}`: give only one of them{hint}")]
    Duplicate {
        /// Name of the node.
        node: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// How to do that.
        hint: String,
    },
    /// Tables can't be read.
    #[error(transparent)]
    Tables(#[from] crate::tables::store::StoreError),
    /// A folder holds the tables of several runs.
    #[error("{path}: tables of several runs: name the manifest of one, manifest-RUN.json")]
    Runs {
        /// The folder.
        path: PathBuf,
    },
    /// The user's definitions of events can't be used.
    #[error(transparent)]
    UserEvents(#[from] super::UserEventsError),
    /// The files hold not a single line of a trace.
    #[error("no trace records found{problems}")]
    NoRecords {
        /// What was found instead, a line for each file.
        problems: String,
    },
}

/// How a trace is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text.
    #[default]
    Plain,
    /// gzip, any number of members.
    Gzip,
    /// Zstandard, any number of frames.
    Zstd,
}

/// A file to read and the node that it is a trace of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) node: String,
}

/// Name of the node that the trace in `path` belongs to: the file's name without `.gz` or `.zst`, `.tt` and `.synced`.
pub fn node_name(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut name = name.as_str();
    for end in [".gz", ".zst"] {
        name = name.strip_suffix(end).unwrap_or(name);
    }
    match name.strip_suffix(".tt") {
        Some(stem) => stem.strip_suffix(".synced").unwrap_or(stem).to_string(),
        // Another extension: without it, unless nothing remains.
        None => Path::new(name).file_stem().map_or_else(|| name.to_string(), |s| s.to_string_lossy().into_owned()),
    }
}

/// The traces that `paths` name, one a node, in the order of nodes.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Vec<Source>, ReadError> {
    let mut sources: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in paths {
        let files = if path.is_dir() { in_directory(path)? } else { vec![path.clone()] };
        for file in files {
            let node = node_name(&file);
            if let Some(first) = sources.insert(node.clone(), file.clone()) {
                return Err(duplicate(node, first, file, path));
            }
        }
    }
    if sources.is_empty() {
        return Err(ReadError::NoPaths);
    }
    let mut sources: Vec<Source> = sources.into_iter().map(|(node, path)| Source { path, node }).collect();
    sort_nodes(&mut sources, |s| &s.node);
    Ok(sources)
}

fn in_directory(path: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let failed = |source| ReadError::Open { path: path.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if [".tt", ".tt.gz", ".tt.zst"].iter().any(|end| name.ends_with(end)) && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(ReadError::Empty { path: path.to_path_buf() }) } else { Ok(files) }
}

#[cold]
fn duplicate(node: String, first: PathBuf, second: PathBuf, given: &Path) -> ReadError {
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let synced = [&first, &second].into_iter().find(|p| name(p).contains(".synced."));
    let hint = match synced {
        Some(synced) if given.is_dir() => format!(
            ", by naming files instead of the directory; {} has its times shifted to the other nodes' already, \
             and both will do, as clocks are synchronised anyway",
            name(synced)
        ),
        _ if given.is_dir() => ", by naming files instead of the directory".to_string(),
        _ => "; traces of several runs are analysed one run at a time".to_string(),
    };
    ReadError::Duplicate { node, first, second, hint }
}

/// Sorts numerically by the first number in each name if all names have one, else by name.
pub(crate) fn sort_nodes<T>(items: &mut [T], name: impl Fn(&T) -> &String) {
    let number = |name: &str| -> Option<u64> {
        let start = name.find(|c: char| c.is_ascii_digit())?;
        let digits = &name[start..];
        digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
    };
    let numeric = items.iter().all(|item| number(name(item)).is_some());
    items.sort_by(|x, y| {
        let (x, y) = (name(x), name(y));
        let by_number = if numeric { number(x).cmp(&number(y)) } else { std::cmp::Ordering::Equal };
        by_number.then_with(|| x.cmp(y))
    });
}

/// A trace to be read.
pub(crate) enum Input {
    /// A file of plain text of this many bytes, which can be read from anywhere.
    File(File, u64),
    /// Anything else, decompressed if it is compressed, whatever its name says.
    Stream(Box<dyn Read>, Format),
}

/// Opens a trace.
pub(crate) fn open(path: &Path) -> io::Result<Input> {
    let file = File::open(path)?;
    // A FIFO or /proc file says 0.
    let length = file.metadata().ok().filter(|m| m.is_file()).map(|m| m.len()).filter(|l| *l > 0);
    let mut file = BufReader::with_capacity(INPUT_BUFFER, file);
    // A short first read is enough for the magic numbers on files, and pipes deliver them whole.
    let format = match file.fill_buf()? {
        [0x1f, 0x8b, ..] => Format::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::Zstd,
        _ => Format::Plain,
    };
    Ok(match (format, length) {
        (Format::Plain, Some(length)) => Input::File(file.into_inner(), length),
        (Format::Plain, None) => Input::Stream(Box::new(file), format),
        (Format::Gzip, _) => Input::Stream(Box::new(MultiGzDecoder::new(file)), format),
        (Format::Zstd, _) => Input::Stream(Box::new(Zstd::Between(file)), format),
    })
}

const INPUT_BUFFER: usize = 64 * 1024;

/// Zstandard frames one after the other.
enum Zstd<R: BufRead> {
    Between(R),
    Frame(Box<StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>),
    Done,
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(self, Self::Done) {
                Self::Done => return Ok(0),
                Self::Between(mut source) => {
                    if source.fill_buf()?.is_empty() {
                        return Ok(0);
                    }
                    *self = Self::Frame(Box::new(StreamingDecoder::new(source).map_err(io::Error::other)?));
                }
                Self::Frame(mut frame) => match frame.read(buf)? {
                    0 if !buf.is_empty() => *self = Self::Between(frame.into_inner()),
                    read => {
                        *self = Self::Frame(frame);
                        return Ok(read);
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_named_after_their_files() {
        for (path, node) in [
            ("/x/y/node3.tt", "node3"),
            ("node1.synced.tt.gz", "node1"),
            ("node1.tt.zst", "node1"),
            ("a.b.tt", "a.b"),
            ("timetrace", "timetrace"),
            ("node7.txt", "node7"),
        ] {
            assert_eq!(node_name(Path::new(path)), node, "{path}");
        }
    }

    #[test]
    fn nodes_are_sorted_by_number_if_all_have_one() {
        let sorted = |names: &[&str]| {
            let mut names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
            sort_nodes(&mut names, |n| n);
            names
        };
        assert_eq!(sorted(&["node10", "node2", "node1"]), ["node1", "node2", "node10"]);
        assert_eq!(sorted(&["node10", "node2", "client"]), ["client", "node10", "node2"]);
    }

    #[test]
    fn one_node_has_one_trace() {
        let paths = [PathBuf::from("a/node1.tt"), PathBuf::from("b/node1.tt.gz")];
        let error = find(&paths).unwrap_err().to_string();
        assert!(error.starts_with("a/node1.tt and b/node1.tt.gz are both traces of `node1`"), "{error}");
        assert!(matches!(find(&[]), Err(ReadError::NoPaths)));
    }
}
