//! The text of one trace to records: in blocks of whatever size the file delivers, or in chunks that several threads read.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use memchr::{memchr, memchr_iter, memrchr};

use super::classify::{Classifier, classifier};
use super::dialect::{Core, Dialect, Head};
use super::line::{self, BadLine, MAX_CORES};
use super::source::Format;
use super::stats::{Backwards, FileStats, KindCount, Shapes};
use super::user::UserEvents;
use crate::event::{Kind, NO_HOST, Record};

/// All that is known of one node.
#[derive(Clone, Debug)]
pub struct NodeTrace {
    /// Its name.
    pub node: String,
    /// Recognised events in the order of the file.
    pub records: Vec<Record>,
    /// Time of the first and the last line, recognised or not; `None` if there is no line. In ns.
    pub span: Option<(i64, i64)>,
    /// Names of threads, in traces of user-level programs: thread `i` has core [`FIRST_THREAD`]` + i` in records.
    pub threads: Vec<String>,
    /// Account of the file.
    pub stats: FileStats,
}

/// The first core that is a thread, in [`Record::core`].
pub const FIRST_THREAD: u16 = MAX_CORES;

impl NodeTrace {
    /// Name of a core: its number, or the thread's name.
    pub fn core_name(&self, core: u16) -> String {
        let thread = core.checked_sub(FIRST_THREAD).and_then(|i| self.threads.get(usize::from(i)));
        thread.cloned().unwrap_or_else(|| core.to_string())
    }
}

/// Bytes that are read at once: they and the records made of them stay in a core's cache.
const BLOCK: usize = 256 * 1024;
/// Records that room is made for at once: 2.6 GB of them, address space only until they are written.
const MAX_RESERVE: u64 = 1 << 26;
/// Lines of a trace are at most 4 KB (the kernel's buffer).
const LONGEST_LINE: usize = 16 * 1024;

/// What is the same for all chunks of a file.
#[derive(Clone, Debug)]
pub(crate) struct About<'a> {
    pub(crate) path: &'a Path,
    pub(crate) node: &'a str,
    pub(crate) format: Format,
    pub(crate) head: Head,
    pub(crate) user: Arc<UserEvents>,
}

/// Reads a trace to its end, or as far as it can be read.
pub(crate) fn read(about: &About<'_>, length: Option<u64>, input: &mut dyn Read) -> NodeTrace {
    finish(about, vec![chunk(about, length, input)])
}

/// Reads a part of a trace that begins at the begin of a line.
pub(crate) fn chunk(about: &About<'_>, length: Option<u64>, input: &mut dyn Read) -> Chunk {
    let mut parser = Chunk::new(about);
    if let Err(error) = parser.read(length, input) {
        let what = match about.format {
            Format::Plain => "cannot be read to its end",
            Format::Gzip => "its gzip data are cut off or damaged",
            Format::Zstd => "its zstd data are cut off or damaged",
        };
        let so_far = parser.stats.lines;
        parser.stats.notes.push(format!("{what} after {so_far} lines ({error}); the analysis uses what is before"));
    }
    parser
}

/// A part of a trace. Numbers of lines count from its begin.
pub(crate) struct Chunk {
    head: Head,
    records: Vec<Record>,
    times: Option<Times>,
    threads: Vec<Vec<u8>>,
    stats: FileStats,
    classifier: &'static Classifier,
    user: Arc<UserEvents>,
    counts: [u64; Kind::COUNT],
    user_counts: Vec<u64>,
    shapes: Shapes,
    /// In the rest of a line that is too long.
    skipping: bool,
}

/// Times of a chunk's lines, ns.
#[derive(Clone, Copy)]
struct Times {
    /// Of the first line, and its number.
    first: (i64, u64),
    /// The smallest.
    least: i64,
    /// Of the last line.
    last: i64,
}

impl Chunk {
    pub(crate) fn new(about: &About<'_>) -> Self {
        Self {
            head: about.head,
            records: Vec::new(),
            times: None,
            threads: Vec::new(),
            stats: FileStats {
                counter: about.head.counter,
                ..FileStats::new(about.path, about.node, about.format, about.head.dialect)
            },
            classifier: classifier(),
            user: about.user.clone(),
            counts: [0; Kind::COUNT],
            user_counts: vec![0; about.user.len()],
            shapes: Shapes::default(),
            skipping: false,
        }
    }

    fn read(&mut self, length: Option<u64>, input: &mut dyn Read) -> io::Result<()> {
        let mut buffer = vec![0; BLOCK];
        let mut kept = 0;
        let result = loop {
            let read = match input.read(&mut buffer[kept..]) {
                Ok(0) => break Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => break Err(error),
            };
            self.stats.bytes += read as u64;
            let filled = kept + read;
            let end = memrchr(b'\n', &buffer[kept..filled]).map_or(0, |at| kept + at + 1);
            self.lines(&buffer[..end]);
            self.reserve(length);
            buffer.copy_within(end..filled, 0);
            kept = filled - end;
            if kept > LONGEST_LINE {
                if !self.skipping {
                    self.stats.lines += 1;
                    self.stats.bad(BadLine::TooLong, &buffer[..kept]);
                    self.skipping = true;
                }
                kept = 0;
            }
        };
        let last = &buffer[..kept];
        if kept > 0 && !self.skipping {
            self.stats.lines += 1;
            self.stats.bad(BadLine::CutLastLine, last);
        }
        result
    }

    /// Room for the records of `length` bytes, judged by the first block: growing step by step would copy them several
    /// times.
    fn reserve(&mut self, length: Option<u64>) {
        let (bytes, records) = (self.stats.bytes, self.records.len() as u64);
        if let Some(length) = length.filter(|length| bytes <= BLOCK as u64 && *length > bytes && records > 0) {
            let expected = records.saturating_mul(length) / bytes;
            let more = (expected - expected.min(records) + expected / 32).min(MAX_RESERVE);
            // If there is no room now, growing will tell.
            let _ = self.records.try_reserve(more as usize);
        }
    }

    /// Takes whole lines.
    fn lines(&mut self, mut block: &[u8]) {
        if self.skipping {
            let Some(end) = memchr(b'\n', block) else { return };
            block = &block[end + 1..];
            self.skipping = false;
        }
        let mut start = 0;
        for end in memchr_iter(b'\n', block) {
            self.line(&block[start..], end - start);
            start = end + 1;
        }
    }

    /// Takes the line of `length` bytes that `text` begins with.
    #[inline]
    fn line(&mut self, text: &[u8], length: usize) {
        self.stats.lines += 1;
        let line = &text[..length];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.head.dialect == Dialect::Tt
            && let Some((time, core, begin)) = line::exact(text)
        {
            return self.message(time, core, &line[begin..], &text[begin..]);
        }
        match self.head.parse(line) {
            Ok((time, Core::Number(core), message)) => self.message(time, core, message, message),
            Ok((time, Core::Thread(name), message)) => {
                let core = self.thread(name);
                self.message(time, core, message, message);
            }
            Err(why) => self.not_a_record(why, line),
        }
    }

    /// Core that stands for a thread.
    #[cold]
    fn thread(&mut self, name: &[u8]) -> u16 {
        let known = self.threads.iter().position(|n| n == name).unwrap_or_else(|| {
            self.threads.push(name.to_vec());
            self.threads.len() - 1
        });
        FIRST_THREAD.saturating_add(u16::try_from(known).unwrap_or(u16::MAX))
    }

    /// Takes a message; other lines may follow it in `text`.
    #[inline]
    fn message(&mut self, time: i64, core: u16, message: &[u8], text: &[u8]) {
        match &mut self.times {
            Some(times) if time >= times.last => times.last = time,
            Some(times) => {
                self.stats.backwards.add(self.stats.lines, times.last - time);
                times.last = time;
                times.least = times.least.min(time);
            }
            times @ None => *times = Some(Times { first: (time, self.stats.lines), least: time, last: time }),
        }
        let fields = match self.classifier.classify(text) {
            Some(fields) if fields.kind != Kind::Note => fields,
            // What the user defines comes before what nobody reads.
            rest => {
                if self.users(time, core, message) {
                    return;
                }
                let Some(note) = rest else {
                    self.stats.unrecognised += 1;
                    self.shapes.add(message);
                    return;
                };
                note
            }
        };
        self.counts[fields.kind as usize] += 1;
        self.records.push(Record {
            time,
            id: fields.id(),
            offset: fields.offset(),
            a: fields.a(),
            b: fields.b(),
            c: fields.c(),
            peer: fields.peer(),
            core,
            client: NO_HOST,
            kind: fields.kind,
            have: fields.have,
        });
    }

    /// Takes a message that is one of the user's events; false if it is none.
    #[cold]
    fn users(&mut self, time: i64, core: u16, message: &[u8]) -> bool {
        let Some((event, record)) = self.user.classify(message) else { return false };
        self.user_counts[event] += 1;
        self.counts[record.kind as usize] += 1;
        self.records.push(Record { time, core, ..record });
        true
    }

    #[cold]
    fn not_a_record(&mut self, why: BadLine, line: &[u8]) {
        let comment = line.first() == Some(&b'#') || line.iter().all(u8::is_ascii_whitespace);
        // What else is in a kernel's log, and the line that tells the counter's rate.
        let foreign = match self.head.dialect {
            Dialect::Tt => false,
            Dialect::Raw => line.starts_with(b"cpu_khz: "),
            Dialect::Syslog => true,
        };
        if comment || foreign {
            self.stats.comments += 1;
        } else {
            self.stats.bad(why, line);
        }
    }
}

/// Puts the chunks of a file together, in order.
pub(crate) fn finish(about: &About<'_>, chunks: Vec<Chunk>) -> NodeTrace {
    let mut chunks = chunks.into_iter();
    let mut all = chunks.next().unwrap_or_else(|| Chunk::new(about));
    for chunk in chunks {
        all.append(chunk);
    }
    let Chunk { mut records, times, threads, mut stats, counts, user_counts, shapes, head, user, .. } = all;
    let mut span = times.map(|times| (times.least, times.last));
    // A kernel's log has the newest entry first.
    if head.dialect == Dialect::Syslog
        && let Some(Times { first, least, last }) = times
        && last < first.0
    {
        records.reverse();
        records.sort_by_key(|r| r.time);
        span = Some((least, first.0));
        stats.backwards = Backwards::default();
    }
    // What was reserved beyond need, or grown into.
    records.shrink_to_fit();
    stats.records = records.len() as u64;
    stats.headers = counts[Kind::Header as usize];
    stats.shapes = shapes.into_sorted();
    let count = |kind: &Kind| KindCount { event: kind.name().into(), count: counts[*kind as usize] };
    stats.kinds = Kind::ALL.iter().map(count).filter(|k| k.count > 0).collect();
    stats.user_events = (user.names().zip(user_counts))
        .map(|(name, count)| KindCount { event: name.to_string().into(), count })
        .collect();
    if stats.lines == 0 && stats.notes.is_empty() {
        stats.notes.push("is empty".into());
    }
    let threads = threads.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    NodeTrace { node: about.node.to_string(), records, span, threads, stats }
}

impl Chunk {
    /// The records so far, which it gives up.
    #[cfg(feature = "tables")]
    pub(crate) fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// Adds the chunk that comes next in the file.
    pub(crate) fn append(&mut self, mut next: Self) {
        let cores: Vec<u16> = std::mem::take(&mut next.threads).iter().map(|name| self.thread(name)).collect();
        if !cores.is_empty() {
            let threads = next.records.iter_mut().filter(|r| r.core >= FIRST_THREAD);
            threads.for_each(|r| r.core = cores.get(usize::from(r.core - FIRST_THREAD)).copied().unwrap_or(r.core));
        }
        if let (Some(ours), Some(theirs)) = (self.times, next.times) {
            if theirs.first.0 < ours.last {
                self.stats.backwards.add(self.stats.lines + theirs.first.1, ours.last - theirs.first.0);
            }
            self.times = Some(Times { first: ours.first, least: ours.least.min(theirs.least), last: theirs.last });
        }
        self.times = self.times.or(next.times);
        self.records.append(&mut next.records);
        self.stats.append(next.stats);
        self.counts.iter_mut().zip(next.counts).for_each(|(count, more)| *count += more);
        self.user_counts.iter_mut().zip(next.user_counts).for_each(|(count, more)| *count += more);
        self.shapes.append(next.shapes);
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
