//! Writes a run as Parquet files: `DIR/TABLE/run=RUN/node=NODE/part.parquet`, and `DIR/manifest-RUN.json`.
//!
//! The folders are named as polars, DuckDB, pandas and Spark expect partitions to be, so that
//! `SELECT * FROM 'DIR/events/**/*.parquet'` has columns `run` and `node`. Several runs can be in one folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

#[cfg(feature = "tables")]
pub use super::write::write;
use crate::model::Counts;
use crate::read::FileStats;

/// Why tables can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file can't be written or read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system or polars said.
        source: io::Error,
    },
    /// The run is there already.
    #[error("{path}: this run is there already: give another --run, or remove it")]
    Exists {
        /// Its manifest.
        path: PathBuf,
    },
    /// The manifest is none of ours, or of another version.
    #[error("{path}: {what}: convert the traces again")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

pub(super) fn failed(path: &Path) -> impl Fn(io::Error) -> StoreError + '_ {
    |source| StoreError::File { path: path.to_path_buf(), source }
}

/// What `format` says in a manifest.
pub const FORMAT: &str = "tthoma tables";
/// Version of the tables' form.
pub const VERSION: u32 = 4;

/// All that a run's tables do not say themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Program that wrote it.
    pub program: String,
    /// Name of the run.
    pub run: String,
    /// Files that the tables were made of, as they were then.
    pub sources: Vec<Stamp>,
    /// Names of events by their number in `events.kind`.
    pub kinds: Vec<String>,
    /// Names of events that the user defined.
    pub user_events: Vec<String>,
    /// Names of clients by their number.
    pub hosts: Vec<String>,
    /// Each node.
    pub nodes: Vec<NodeManifest>,
    /// Smallest delays: sender, receiver, packets, ns on their own clocks.
    pub pairs: Vec<(usize, usize, u64, i64)>,
    /// Addresses that belong to no node.
    pub outside: Vec<u32>,
    /// Clients of the hosts that are later incarnations of one, in the order of `hosts`, which ends with these.
    #[serde(default)]
    pub again: Vec<u16>,
    /// Address and its host.
    pub addresses: Vec<(u32, u16)>,
    /// Records with ids that several clients used.
    pub ambiguous_records: u64,
    /// Records of unknown clients.
    pub unresolved_records: u64,
    /// What was assumed about addresses.
    pub notes: Vec<String>,
    /// `ring_wait` events that follow no packet.
    pub lone_ring_waits: u64,
    /// Hand-offs that are not in the table: batches open, replaced, open.
    pub handoffs_left_out: (u64, u64, u64),
    /// The files.
    pub files: Vec<FileManifest>,
    /// What each table and column is.
    #[serde(skip_deserializing)]
    pub tables: Vec<super::TableAbout>,
}

/// A file as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Its path without links.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// When it was last changed, ns since 1970.
    pub changed_ns: u64,
}

impl Stamp {
    /// The file as it is now.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub fn of(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let about = fs::metadata(&path)?;
        let changed = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { path, bytes: about.len(), changed_ns: changed.as_nanos() as u64 })
    }
}

/// A node's part of a manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeManifest {
    /// Its name.
    pub node: String,
    /// First and last time on its own clock, ns.
    pub span: Option<(i64, i64)>,
    /// What was added to its times, ns.
    pub shift: i64,
    /// Names of threads.
    pub threads: Vec<String>,
    /// Account of its file.
    pub stats: FileStats,
    /// What is counted of its events and packets.
    pub counts: Counts,
}

/// A file of tables.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileManifest {
    /// Its table.
    pub table: String,
    /// Node that its rows are filed under.
    pub node: String,
    /// Path below the folder of the manifest.
    pub path: PathBuf,
    /// Rows in it.
    pub rows: usize,
    /// Its size.
    pub bytes: u64,
}

/// Manifests of the runs in a folder, by name; none if there are no tables.
pub fn manifests(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let is_manifest = |path: &PathBuf| {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("manifest-") && name.ends_with(".json")
    };
    let mut all: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(is_manifest).collect();
    all.sort();
    all
}

/// Reads a manifest.
///
/// # Errors
///
/// If it can't be read, is none of ours, or of another version.
pub fn manifest_of(path: &Path) -> Result<Manifest, StoreError> {
    let text = fs::read(path).map_err(failed(path))?;
    let bad = |what: String| StoreError::Manifest { path: path.to_path_buf(), what };
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    if manifest.format != FORMAT || manifest.version != VERSION {
        let found = format!("expected `{FORMAT}` version {VERSION}, found `{}` {}", manifest.format, manifest.version);
        return Err(bad(found));
    }
    Ok(manifest)
}
