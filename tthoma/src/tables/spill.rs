//! Records of a run that is larger than memory, on disk for as long as it is converted: a file for each node and bucket, where
//! all records of an RPC, whoever logged them, are in the same bucket.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::store::{StoreError, failed};
use crate::event::{Have, Kind, Record};

/// Bytes of a record: its place among the node's records, then its fields.
const SIZE: usize = 42;
/// Bytes that each open file buffers.
const BUFFER: usize = 32 * 1024;

/// Where records are kept; removed when it goes.
#[derive(Debug)]
pub(super) struct Spill {
    dir: PathBuf,
    /// Buckets of RPCs; the one after them has the records of none.
    pub(super) buckets: usize,
}

/// A record and its place among those of its node.
pub(super) type Placed = (u32, Record);

impl Spill {
    /// An empty one at `dir`, which is made.
    pub(super) fn create(dir: PathBuf, buckets: usize) -> Result<Self, StoreError> {
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        Ok(Self { dir, buckets })
    }

    /// Bucket of a record.
    fn bucket(&self, record: &Record) -> usize {
        let Some(id) = record.rpc() else { return self.buckets };
        // Ids count up: neighbours in turn are as good as any other way.
        (id >> 1) as usize % self.buckets
    }

    fn path(&self, node: usize, bucket: usize) -> PathBuf {
        self.dir.join(format!("{node}-{bucket}"))
    }

    /// Files for the records of `node`.
    pub(super) fn node(&self, node: usize) -> Result<Node<'_>, StoreError> {
        let paths: Vec<PathBuf> = (0..=self.buckets).map(|bucket| self.path(node, bucket)).collect();
        let create = |path: &PathBuf| Ok(BufWriter::with_capacity(BUFFER, File::create(path).map_err(failed(path))?));
        let files = paths.iter().map(create).collect::<Result<_, StoreError>>()?;
        Ok(Node { spill: self, paths, files, counts: vec![0; self.buckets + 1], next: 0 })
    }

    /// Records of some buckets of a node, by their places.
    pub(super) fn read(&self, node: usize, buckets: impl Iterator<Item = usize>) -> Result<Vec<Placed>, StoreError> {
        let mut all = Vec::new();
        for bucket in buckets {
            let path = self.path(node, bucket);
            let file = File::open(&path).map_err(failed(&path))?;
            let length = file.metadata().map_err(failed(&path))?.len();
            all.reserve_exact(length as usize / SIZE);
            let mut file = BufReader::with_capacity(BUFFER, file);
            while let Some(placed) = next(&mut file).map_err(failed(&path))? {
                all.push(placed);
            }
        }
        // Each bucket is in order.
        all.sort_by_key(|(place, _)| *place);
        Ok(all)
    }

    /// Replaces the records of some buckets of a node.
    pub(super) fn replace(
        &self,
        node: usize,
        buckets: impl Iterator<Item = usize>,
        all: &[Placed],
    ) -> Result<(), StoreError> {
        for bucket in buckets {
            let path = self.path(node, bucket);
            let mut file = BufWriter::with_capacity(BUFFER, File::create(&path).map_err(failed(&path))?);
            let mut of_bucket = all.iter().filter(|(_, record)| self.bucket(record) == bucket);
            of_bucket.try_for_each(|placed| file.write_all(&encode(placed))).map_err(failed(&path))?;
            file.flush().map_err(failed(&path))?;
        }
        Ok(())
    }

    /// All records of a node, in order.
    pub(super) fn all(&self, node: usize) -> Result<All, StoreError> {
        let open = |bucket| {
            let path = self.path(node, bucket);
            let file = File::open(&path).map_err(failed(&path))?;
            Ok((BufReader::with_capacity(BUFFER, file), path))
        };
        let files = (0..=self.buckets).map(open).collect::<Result<_, StoreError>>()?;
        let mut all = All { files, heap: BinaryHeap::new() };
        for file in 0..=self.buckets {
            let next = all.read(file)?;
            all.heap.extend(next);
        }
        Ok(all)
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        // What can't be removed stays where the user sees it.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A node's files while they are written.
pub(super) struct Node<'a> {
    spill: &'a Spill,
    paths: Vec<PathBuf>,
    files: Vec<BufWriter<File>>,
    counts: Vec<u64>,
    next: u32,
}

impl Node<'_> {
    /// Adds the records that come next.
    pub(super) fn add(&mut self, records: &[Record]) -> Result<(), StoreError> {
        for record in records {
            let bucket = self.spill.bucket(record);
            self.counts[bucket] += 1;
            let text = encode(&(self.next, *record));
            self.files[bucket].write_all(&text).map_err(failed(&self.paths[bucket]))?;
            self.next += 1;
        }
        Ok(())
    }

    /// Completes the files; returns the number of records in each bucket.
    pub(super) fn finish(mut self) -> Result<Vec<u64>, StoreError> {
        for (file, path) in self.files.iter_mut().zip(&self.paths) {
            file.flush().map_err(failed(path))?;
        }
        Ok(self.counts)
    }
}

/// The records of a node: the least place of all buckets is next.
pub(super) struct All {
    files: Vec<(BufReader<File>, PathBuf)>,
    /// The next record of each file, the least place on top.
    heap: BinaryHeap<Next>,
}

struct Next {
    place: u32,
    file: usize,
    record: Record,
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Next {}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        other.place.cmp(&self.place)
    }
}

impl All {
    fn read(&mut self, file: usize) -> Result<Option<Next>, StoreError> {
        let (from, path) = &mut self.files[file];
        let read = next(from).map_err(failed(path))?;
        Ok(read.map(|(place, record)| Next { place, file, record }))
    }

    /// Fills `records` with up to `most` that come next; false if there are none.
    pub(super) fn next(&mut self, records: &mut Vec<Record>, most: usize) -> Result<bool, StoreError> {
        records.clear();
        while records.len() < most {
            let Some(Next { file, record, .. }) = self.heap.pop() else { break };
            records.push(record);
            let next = self.read(file)?;
            self.heap.extend(next);
        }
        Ok(!records.is_empty())
    }
}

fn encode((place, r): &Placed) -> [u8; SIZE] {
    let mut out = [0; SIZE];
    let numbers = [*place, r.id, r.offset, r.a, r.b, r.c, r.peer];
    out[..8].copy_from_slice(&r.time.to_le_bytes());
    for (to, number) in out[8..36].chunks_exact_mut(4).zip(numbers) {
        to.copy_from_slice(&number.to_le_bytes());
    }
    out[36..38].copy_from_slice(&r.core.to_le_bytes());
    out[38..40].copy_from_slice(&r.client.to_le_bytes());
    (out[40], out[41]) = (r.kind as u8, r.have.0);
    out
}

fn next(file: &mut impl Read) -> io::Result<Option<Placed>> {
    let mut text = [0; SIZE];
    match file.read_exact(&mut text) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let number = |slot: usize| u32::from_le_bytes(std::array::from_fn(|i| text[8 + 4 * slot + i]));
    let short = |at: usize| u16::from_le_bytes([text[at], text[at + 1]]);
    let kind = *Kind::ALL.get(usize::from(text[40])).ok_or_else(|| io::Error::other("damaged while it was used"))?;
    let record = Record {
        time: i64::from_le_bytes(std::array::from_fn(|i| text[i])),
        id: number(1),
        offset: number(2),
        a: number(3),
        b: number(4),
        c: number(5),
        peer: number(6),
        core: short(36),
        client: short(38),
        kind,
        have: Have(text[41]),
    };
    Ok(Some((number(0), record)))
}

/// A place for a spill beside the tables of a run.
pub(super) fn place(dir: &Path, run: &str) -> PathBuf {
    dir.join(format!(".converting-{run}-{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scenario, Steps};

    #[test]
    fn records_come_back_in_order_and_by_rpc() {
        let mut scenario = Scenario::new(2);
        for i in 0..20 {
            scenario.rpc(f64::from(i) * 50.0, (0, 1), 10 + 2 * i, (20_000, 100), &Steps::default());
        }
        let traces = scenario.traces();
        let dir = std::env::temp_dir().join(format!("tthoma-spill-{}", std::process::id()));
        let spill = Spill::create(dir.clone(), 3).unwrap();
        for (node, trace) in traces.iter().enumerate() {
            let mut files = spill.node(node).unwrap();
            trace.records.chunks(7).for_each(|some| files.add(some).unwrap());
            let counts = files.finish().unwrap();
            assert_eq!(counts.iter().sum::<u64>(), trace.records.len() as u64);
            assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        }
        for (node, trace) in traces.iter().enumerate() {
            let mut some = spill.read(node, 1..2).unwrap();
            assert!(some.iter().all(|(place, r)| trace.records[*place as usize] == *r && (r.id >> 1) % 3 == 1));
            some.iter_mut().for_each(|(_, r)| r.client = 7);
            spill.replace(node, 1..2, &some).unwrap();
            let (mut all, mut part, mut stream) = (Vec::new(), Vec::new(), spill.all(node).unwrap());
            while stream.next(&mut part, 10).unwrap() {
                all.extend_from_slice(&part);
            }
            let changed = |r: &Record| Record {
                client: if some.iter().any(|s| s.1.id == r.id && r.rpc().is_some()) { 7 } else { r.client },
                ..*r
            };
            let expected: Vec<Record> = trace.records.iter().map(changed).collect();
            assert_eq!(all, expected);
        }
        drop(spill);
        assert!(!dir.exists());
    }
}
