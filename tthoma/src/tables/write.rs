//! Writes a run's tables and their manifest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::schema::TABLES;
use super::store::{FORMAT, FileManifest, Manifest, NodeManifest, Stamp, StoreError, VERSION, failed};
use super::{Frame, polars};
use crate::analyze::Options;
use crate::event::Kind;
use crate::model::{Counts, Model};

/// Writes the tables of a model to `dir`; its manifest comes last, and marks the run as complete.
///
/// # Errors
///
/// If the run is there already, or a file can't be written.
pub fn write(model: &Model, options: &Options, dir: &Path, run: &str) -> Result<Manifest, StoreError> {
    is_new(dir, run)?;
    let mut files = Files::new(dir, run);
    for frame in Frame::all(model, options) {
        files.add(&frame)?;
        files.close(frame.table)?;
    }
    finish(model, dir, run, files)
}

/// An error if the run is in `dir` already.
pub(super) fn is_new(dir: &Path, run: &str) -> Result<(), StoreError> {
    let path = dir.join(format!("manifest-{run}.json"));
    if path.exists() { Err(StoreError::Exists { path }) } else { Ok(()) }
}

/// Writes the manifest of a run whose tables are written.
pub(super) fn finish(model: &Model, dir: &Path, run: &str, files: Files) -> Result<Manifest, StoreError> {
    let place = dir.join(format!("manifest-{run}.json"));
    let manifest = manifest(model, run, files.done);
    let mut text = serde_json::to_string_pretty(&manifest).map_err(|e| failed(&place)(io::Error::other(e)))?;
    text.push('\n');
    let aside = place.with_extension("part");
    fs::write(&aside, text).and_then(|()| fs::rename(&aside, &place)).map_err(failed(&place))?;
    Ok(manifest)
}

/// Files that are being written, and those that are.
pub(super) struct Files {
    dir: PathBuf,
    run: String,
    open: Vec<(FileManifest, polars::Writer)>,
    done: Vec<FileManifest>,
}

impl Files {
    pub(super) fn new(dir: &Path, run: &str) -> Self {
        Self { dir: dir.to_path_buf(), run: run.into(), open: Vec::new(), done: Vec::new() }
    }

    /// Adds rows to the file of the frame's table and node.
    pub(super) fn add(&mut self, frame: &Frame) -> Result<(), StoreError> {
        let is = |(about, _): &(FileManifest, _)| about.table == frame.table && about.node == frame.node;
        let place = match self.open.iter().position(is) {
            Some(place) => place,
            None => {
                let path =
                    PathBuf::from(frame.table).join(format!("run={}", self.run)).join(format!("node={}", frame.node));
                let folder = self.dir.join(&path);
                fs::create_dir_all(&folder).map_err(failed(&folder))?;
                let path = path.join("part.parquet");
                let file = self.dir.join(&path);
                let writer = polars::Writer::create(frame, &file).map_err(failed(&file))?;
                let (table, node) = (frame.table.to_string(), frame.node.clone());
                self.open.push((FileManifest { table, node, path, rows: 0, bytes: 0 }, writer));
                self.open.len() - 1
            }
        };
        let (about, writer) = &mut self.open[place];
        about.rows += frame.rows();
        writer.add(frame).map_err(failed(&self.dir.join(&about.path)))
    }

    /// Completes the files of a table.
    pub(super) fn close(&mut self, table: &str) -> Result<(), StoreError> {
        let (done, open) = std::mem::take(&mut self.open).into_iter().partition(|(about, _)| about.table == table);
        self.open = open;
        for (mut about, writer) in done {
            about.bytes = writer.finish().map_err(failed(&self.dir.join(&about.path)))?;
            self.done.push(about);
        }
        Ok(())
    }

    /// Completes all files.
    pub(super) fn close_all(&mut self) -> Result<(), StoreError> {
        while let Some((about, _)) = self.open.first() {
            let table = about.table.clone();
            self.close(&table)?;
        }
        Ok(())
    }
}

fn manifest(model: &Model, run: &str, files: Vec<FileManifest>) -> Manifest {
    let sent_again = model.sent_again();
    let node = |(node, trace): (usize, &crate::read::NodeTrace)| NodeManifest {
        node: trace.node.clone(),
        span: trace.span,
        shift: model.clock.offset(node).unwrap_or(0),
        threads: trace.threads.clone(),
        stats: trace.stats.clone(),
        counts: Counts { cores: model.cores(node), sent_again: sent_again[node] },
    };
    let mut addresses: Vec<(u32, u16)> = model.hosts.by_address.iter().map(|(a, h)| (*a, *h)).collect();
    addresses.sort_unstable();
    let handoffs = model.handoffs();
    Manifest {
        format: FORMAT.into(),
        version: VERSION,
        program: format!("tthoma {}", env!("CARGO_PKG_VERSION")),
        run: run.into(),
        sources: model.stats().filter_map(|s| Stamp::of(&s.path).ok()).collect(),
        kinds: Kind::ALL.iter().map(|k| k.name().to_string()).collect(),
        user_events: model.user.names().map(str::to_string).collect(),
        hosts: (0..model.hosts.count()).map(|host| model.hosts.name(host)).collect(),
        nodes: model.traces.iter().enumerate().map(node).collect(),
        pairs: model.clock.pairs.iter().map(|p| (p.from, p.to, p.packets, p.min)).collect(),
        outside: model.hosts.outside.clone(),
        again: model.hosts.again.clone(),
        addresses,
        ambiguous_records: model.hosts.ambiguous_records,
        unresolved_records: model.hosts.unresolved_records,
        notes: model.hosts.notes.clone(),
        lone_ring_waits: model.packets.lone_ring_waits,
        handoffs_left_out: (handoffs.batches_open, handoffs.replaced, handoffs.open),
        files,
        tables: TABLES.to_vec(),
    }
}
