//! The text of one trace to records, in blocks of whatever size the file delivers.

use std::io::{self, Read};
use std::path::Path;

use memchr::{memchr, memchr_iter, memrchr};

use super::classify::{Classifier, classifier};
use super::line::{self, BadLine};
use super::source::Format;
use super::stats::{Backwards, FileStats, KindCount, Shapes};
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
    /// Account of the file.
    pub stats: FileStats,
}

/// Bytes that are read at once: they and the records made of them stay in a core's cache.
const BLOCK: usize = 256 * 1024;
/// Records that room is made for at once: 2.6 GB of them, address space only until they are written.
const MAX_RESERVE: u64 = 1 << 26;
/// Lines of a trace are at most 4 KB (the kernel's buffer).
const LONGEST_LINE: usize = 16 * 1024;

/// Reads a trace to its end, or as far as it can be read.
pub(crate) fn read(path: &Path, node: &str, format: Format, length: Option<u64>, input: &mut dyn Read) -> NodeTrace {
    let mut parser = Parser::new(path, node, format);
    if let Err(error) = parser.read(length, input) {
        let what = match format {
            Format::Plain => "cannot be read to its end",
            Format::Gzip => "its gzip data are cut off or damaged",
            Format::Zstd => "its zstd data are cut off or damaged",
        };
        let so_far = parser.trace.stats.lines;
        parser
            .trace
            .stats
            .notes
            .push(format!("{what} after {so_far} lines ({error}); the analysis uses what is before"));
    }
    parser.finish()
}

struct Parser {
    trace: NodeTrace,
    classifier: &'static Classifier,
    counts: [u64; Kind::COUNT],
    shapes: Shapes,
    /// In the rest of a line that is too long.
    skipping: bool,
}

impl Parser {
    fn new(path: &Path, node: &str, format: Format) -> Self {
        let stats = FileStats::new(path, node, format);
        Self {
            trace: NodeTrace { node: node.to_string(), records: Vec::new(), span: None, stats },
            classifier: classifier(),
            counts: [0; Kind::COUNT],
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
            self.trace.stats.bytes += read as u64;
            let filled = kept + read;
            let end = memrchr(b'\n', &buffer[kept..filled]).map_or(0, |at| kept + at + 1);
            self.lines(&buffer[..end]);
            self.reserve(length);
            buffer.copy_within(end..filled, 0);
            kept = filled - end;
            if kept > LONGEST_LINE {
                if !self.skipping {
                    self.trace.stats.lines += 1;
                    self.trace.stats.bad(BadLine::TooLong, &buffer[..kept]);
                    self.skipping = true;
                }
                kept = 0;
            }
        };
        let last = &buffer[..kept];
        if kept > 0 && !self.skipping {
            self.trace.stats.lines += 1;
            self.trace.stats.bad(BadLine::CutLastLine, last);
        }
        result
    }

    /// Room for the records of a file of `length` bytes, judged by its first block: growing step by step would copy
    /// them several times.
    fn reserve(&mut self, length: Option<u64>) {
        let (bytes, records) = (self.trace.stats.bytes, self.trace.records.len() as u64);
        if let Some(length) = length.filter(|length| bytes <= BLOCK as u64 && *length > bytes && records > 0) {
            let expected = records.saturating_mul(length) / bytes;
            let more = (expected - expected.min(records) + expected / 32).min(MAX_RESERVE);
            // If there is no room now, growing will tell.
            let _ = self.trace.records.try_reserve(more as usize);
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
            self.line(&block[start..end]);
            start = end + 1;
        }
    }

    #[inline]
    fn line(&mut self, line: &[u8]) {
        self.trace.stats.lines += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line::parse(line) {
            Ok((time, core, message)) => self.message(time, core, message),
            Err(why) => self.not_a_record(why, line),
        }
    }

    #[inline]
    fn message(&mut self, time: i64, core: u16, message: &[u8]) {
        match &mut self.trace.span {
            Some((_, last)) if time >= *last => *last = time,
            Some((first, last)) => {
                let back = &mut self.trace.stats.backwards;
                if back.count == 0 {
                    back.first_line = self.trace.stats.lines;
                }
                *back = Backwards {
                    count: back.count + 1,
                    largest_us: back.largest_us.max((*last - time) as f64 / 1000.0),
                    ..*back
                };
                *last = time;
                *first = (*first).min(time);
            }
            span @ None => *span = Some((time, time)),
        }
        let Some(fields) = self.classifier.classify(message) else {
            self.trace.stats.unrecognised += 1;
            self.shapes.add(message);
            return;
        };
        self.counts[fields.kind as usize] += 1;
        self.trace.records.push(Record {
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

    #[cold]
    fn not_a_record(&mut self, why: BadLine, line: &[u8]) {
        if line.first() == Some(&b'#') || line.iter().all(u8::is_ascii_whitespace) {
            self.trace.stats.comments += 1;
            return;
        }
        if self.trace.stats.lines == 1 && line.starts_with(b"cpu_khz: ") {
            let note = "this is the raw form of /proc/timetrace; convert it to .tt with ttprint";
            self.trace.stats.notes.push(note.into());
        }
        self.trace.stats.bad(why, line);
    }

    fn finish(mut self) -> NodeTrace {
        let trace = &mut self.trace;
        trace.stats.records = trace.records.len() as u64;
        trace.stats.headers = self.counts[Kind::Header as usize];
        trace.stats.shapes = self.shapes.into_sorted();
        let kinds = Kind::ALL.iter().map(|kind| KindCount { event: kind.name(), count: self.counts[*kind as usize] });
        trace.stats.kinds = kinds.filter(|k| k.count > 0).collect();
        if trace.stats.lines == 0 && trace.stats.notes.is_empty() {
            trace.stats.notes.push("is empty".into());
        }
        self.trace
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
