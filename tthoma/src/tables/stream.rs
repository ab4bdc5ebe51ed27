//! Converts runs that are larger than memory: the same tables as [`store::write`](super::store::write) makes of a model in
//! memory, except that of intervals, which is of the whole run.
//!
//! Each file is read once, piece by piece, and its records are put on disk in buckets by RPC: all that is known of a packet or
//! an RPC, on any node, is in one bucket. Of as many buckets as fit the memory at a time clients are found, then clocks, then
//! tables are made; what is of a node rather than of an RPC (events, hand-offs, invocations) is made node by node, in the
//! order of its file. What is in memory at a time depends on the limit alone, but for some hundred bytes of accounts for each
//! pair of nodes, for each RPC that waits for a thread, and for each group of rows in a file that is written.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use super::Frame;
use super::frames::{self, Numbers};
use super::invocations::Open;
use super::spill::{self, Placed, Spill};
use super::store::{Manifest, StoreError};
use super::write::{self, Files};
use crate::analyze::Options;
use crate::clock::{Clock, Witnesses};
use crate::hosts::{self, Hosts, Votes};
use crate::incarnations::{self, Reused};
use crate::model::{Cores, Counts, Following, Handoffs, Model};
use crate::packets::Packets;
use crate::read::{self, NodeTrace, ReadError, UserEvents};

/// Bytes of memory that a record takes, with all that is made of it while its tables are written (`tests/memory.rs`).
const RECORD: u64 = 256;
/// Bytes of text that a record takes at least.
const LINE: u64 = 60;
/// How much shorter text is compressed, at most.
const COMPRESSION: u64 = 20;
/// Rows that are written at a time where they come one by one.
const ROWS: usize = 1 << 17;

/// The memory that converting these files at once takes, at most, in bytes.
pub fn needs(files: &[PathBuf]) -> u64 {
    let text = |path: &PathBuf| {
        let bytes = std::fs::metadata(path).map_or(0, |m| m.len());
        let compressed = path.extension().is_some_and(|e| e == "gz" || e == "zst");
        if compressed { bytes * COMPRESSION } else { bytes }
    };
    files.iter().map(text).sum::<u64>() / LINE * RECORD
}

/// Converts the traces in `paths` to tables in `dir`, with about `memory` bytes.
///
/// # Errors
///
/// As [`read::read`] and [`store::write`](super::store::write).
pub fn write(paths: &[PathBuf], options: &Options, dir: &Path, run: &str, memory: u64) -> Result<Manifest, ReadError> {
    write::is_new(dir, run)?;
    let user = match &options.events {
        Some(path) => Arc::new(UserEvents::read(path).map_err(ReadError::from)?),
        None => Arc::default(),
    };
    let files = read::files(paths)?;
    // Buckets half as large as what fits, so that what fits is used well.
    let buckets = (2 * needs(&files)).div_ceil(memory.max(1)).clamp(1, 256) as usize;
    let spill = Spill::create(spill::place(dir, run), buckets)?;
    let (traces, counts) = fill(&spill, &files, &user)?;
    if traces.iter().all(|t| t.span.is_none()) {
        let problems = traces.iter().flat_map(|t| t.stats.problems()).map(|p| format!("\n  {p}")).collect();
        return Err(ReadError::NoRecords { problems });
    }
    let work = Work { spill, traces, groups: groups(&counts, memory), options };
    Ok(work.write(user, dir, run)?)
}

/// Reads all files, some at a time; returns traces without records, and the records in each bucket of all nodes.
fn fill(spill: &Spill, files: &[PathBuf], user: &Arc<UserEvents>) -> Result<(Vec<NodeTrace>, Vec<u64>), ReadError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut traces = Vec::new();
    let mut counts = vec![0; spill.buckets + 1];
    for (round, some) in files.chunks(threads).enumerate() {
        let one = |place: usize, path: &PathBuf| {
            let mut node = spill.node(round * threads + place)?;
            let each = |records: &[_]| node.add(records).map_err(ReadError::from);
            let trace = read::in_pieces(path, &read::node_name(path), user, each)?;
            Ok::<_, ReadError>((trace, node.finish()?))
        };
        let done: Vec<_> = thread::scope(|scope| {
            let all: Vec<_> =
                some.iter().enumerate().map(|(place, path)| scope.spawn(move || one(place, path))).collect();
            all.into_iter().map(|t| t.join().expect("reading does not panic")).collect()
        });
        for result in done {
            let (trace, of_node) = result?;
            traces.push(trace);
            counts.iter_mut().zip(of_node).for_each(|(count, more)| *count += more);
        }
    }
    Ok((traces, counts))
}

/// Buckets of RPCs, as many together as fit `memory`.
fn groups(counts: &[u64], memory: u64) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut bytes = u64::MAX;
    for (bucket, count) in counts[..counts.len() - 1].iter().enumerate() {
        let more = count * RECORD;
        if bytes.saturating_add(more) > memory {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += more;
        groups.last_mut().expect("was just pushed").push(bucket);
    }
    groups
}

/// What is known of all packets together.
struct Known {
    witnesses: Witnesses,
    lone_ring_waits: u64,
    counts: Vec<Counts>,
}

impl Known {
    fn new(nodes: usize) -> Self {
        Self { witnesses: Witnesses::new(nodes), lone_ring_waits: 0, counts: vec![Counts::default(); nodes] }
    }

    fn add(&mut self, packets: &Packets) {
        self.witnesses.add(packets);
        self.lone_ring_waits += packets.lone_ring_waits;
        let again = packets.sent_again(self.counts.len());
        self.counts.iter_mut().zip(again).for_each(|(counts, again)| counts.sent_again += again);
    }
}

struct Work<'a> {
    spill: Spill,
    /// Without records.
    traces: Vec<NodeTrace>,
    groups: Vec<Vec<usize>>,
    options: &'a Options,
}

impl Work<'_> {
    fn write(self, user: Arc<UserEvents>, dir: &Path, run: &str) -> Result<Manifest, StoreError> {
        let names = self.traces.iter().map(|t| t.node.clone()).collect();
        let mut votes = Votes::default();
        for group in &self.groups {
            votes.add(&hosts::told(&self.load(group)?.0));
        }
        let mut hosts = Hosts::elected(names, votes);
        let mut known = Known::new(self.traces.len());
        let mut reused = Vec::new();
        for group in &self.groups {
            let (mut traces, placed) = self.load(group)?;
            let told = hosts::told(&traces);
            hosts.assign(&told, &mut traces);
            self.replace(group, &traces, placed)?;
            let again = Reused::of(&traces, &told, &hosts);
            known.add(&Packets::collect_where(&traces, |record| !again.has(record)));
            reused.push(again);
        }
        if reused.iter().any(|again| !again.is_empty()) {
            let clock = Clock::of(known.witnesses);
            known = Known::new(self.traces.len());
            for (group, again) in self.groups.iter().zip(&reused) {
                let (mut traces, placed) = self.load(group)?;
                if !again.is_empty() {
                    incarnations::separate(&mut traces, again, &clock, &mut hosts);
                    self.replace(group, &traces, placed)?;
                }
                known.add(&Packets::collect(&traces));
            }
        }
        let Known { witnesses, lone_ring_waits, mut counts } = known;
        let clock = Clock::of(witnesses);
        let clock = clock.used(self.options, self.traces.iter().map(|trace| &trace.stats.counter));
        let model = |traces, packets| {
            let handoffs = Handoffs::default();
            Model::of_parts(traces, hosts.clone(), packets, clock.clone(), handoffs, user.clone())
        };
        let mut files = Files::new(dir, run);
        let mut numbers = Numbers::default();
        for group in &self.groups {
            let traces = self.load(group)?.0;
            let packets = Packets::collect(&traces);
            let model = model(traces, packets);
            for mut frame in Frame::of_rpcs(&model) {
                frame.renumber(&numbers);
                files.add(&frame)?;
            }
            numbers.messages += model.packets.messages.len() as u32;
            numbers.data += model.packets.data.packets.len() as u32;
            numbers.grants += model.packets.grants.packets.len() as u32;
        }
        files.close_all()?;
        let packets = Packets { lone_ring_waits, ..Packets::default() };
        let mut whole = model(self.traces.clone(), packets);
        files.add(&frames::nodes_frame(&whole))?;
        let mut left = Handoffs::default();
        for (node, counts) in counts.iter_mut().enumerate() {
            counts.cores = self.node(&whole, node, &mut left, &mut files)?;
            files.close_all()?;
        }
        whole.set_handoffs(left);
        whole.set_counts(counts);
        write::finish(&whole, dir, run, files)
    }

    /// Stores the clients of the records of some buckets.
    fn replace(&self, group: &[usize], traces: &[NodeTrace], mut placed: Vec<Vec<Placed>>) -> Result<(), StoreError> {
        for (node, (trace, placed)) in traces.iter().zip(&mut placed).enumerate() {
            placed.iter_mut().zip(&trace.records).for_each(|((_, to), from)| *to = *from);
            self.spill.replace(node, group.iter().copied(), placed)?;
        }
        Ok(())
    }

    /// The records of some buckets: as traces, and with their places.
    fn load(&self, group: &[usize]) -> Result<(Vec<NodeTrace>, Vec<Vec<Placed>>), StoreError> {
        let placed = (0..self.traces.len())
            .map(|node| self.spill.read(node, group.iter().copied()))
            .collect::<Result<Vec<_>, _>>()?;
        let trace = |(trace, placed): (&NodeTrace, &Vec<Placed>)| NodeTrace {
            records: placed.iter().map(|(_, record)| *record).collect(),
            ..trace.clone()
        };
        Ok((self.traces.iter().zip(&placed).map(trace).collect(), placed))
    }

    /// Writes what is of a node; counts in `left` what is in no table. Returns the number of its cores.
    fn node(&self, model: &Model, node: usize, left: &mut Handoffs, files: &mut Files) -> Result<u64, StoreError> {
        let place = node as u16;
        let mut following = Following::new(place, &self.traces[node].stats);
        let mut open = Open::default();
        let mut cores = Cores::default();
        let mut records = Vec::with_capacity(ROWS);
        let mut all = self.spill.all(node)?;
        loop {
            let more = all.next(&mut records, ROWS)?;
            records.iter().for_each(|record| {
                following.add(left, record);
                cores.add(record.core);
            });
            let mut invocations: Vec<_> = records.iter().filter_map(|record| open.add(record)).collect();
            if !more {
                invocations.extend(std::mem::take(&mut open).rest());
                invocations.sort_by_key(|i| (i.end, i.core));
            }
            files.add(&frames::events(model, place, &records))?;
            files.add(&frames::handoffs(model, place, left))?;
            files.add(&frames::invocations(model, place, &invocations))?;
            left.clear();
            if !more {
                break;
            }
        }
        following.finish(left);
        Ok(cores.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_fit_the_memory_and_hold_every_bucket_of_rpcs() {
        let counts = [3, 4, 100, 1, 1, 1, 9];
        assert_eq!(groups(&counts, 8 * RECORD), [vec![0, 1], vec![2], vec![3, 4, 5]]);
        assert_eq!(groups(&counts, u64::MAX - 1), [vec![0, 1, 2, 3, 4, 5]]);
        assert_eq!(groups(&[7], 1), [[0usize; 0]; 0]);
    }
}
