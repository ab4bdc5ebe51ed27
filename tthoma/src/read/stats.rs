//! What reading a file found, good and bad: every line is accounted for.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::dialect::{Counter, Dialect};
use super::line::BadLine;
use super::source::Format;
use crate::event::Kind;

/// Account of one file. `records + unrecognised + comments + bad` lines make `lines`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileStats {
    /// The file.
    pub path: PathBuf,
    /// Node that it is a trace of.
    pub node: String,
    /// How it was stored.
    pub format: Format,
    /// How its lines are written.
    pub dialect: Dialect,
    /// The machine's counter at time 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<Counter>,
    /// Bytes of text, after decompression.
    pub bytes: u64,
    /// Lines of text.
    pub lines: u64,
    /// Lines whose event is known.
    pub records: u64,
    /// Lines that have a time and a core, and a message that no analysis knows.
    pub unrecognised: u64,
    /// Empty lines and lines that begin with `#`; in kernel logs, all that is not of the trace.
    pub comments: u64,
    /// Lines that are no records, by reason.
    pub bad: Vec<BadLines>,
    /// Places where time runs backwards.
    pub backwards: Backwards,
    /// Lines by which a trace begins; more than one: files were appended to each other.
    pub headers: u64,
    /// Most frequent unrecognised messages, digits replaced by `N`.
    pub shapes: Vec<Shape>,
    /// Recognised lines of each kind that occurs.
    pub kinds: Vec<KindCount>,
    /// Lines of each event that the user defined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_events: Vec<KindCount>,
    /// Anything else that a reader should know, one sentence each.
    pub notes: Vec<String>,
}

/// Lines that are no records, for one reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BadLines {
    /// Why.
    pub reason: BadLine,
    /// How many.
    pub count: u64,
    /// The first few of them.
    pub first: Vec<Located>,
}

/// A line of a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Located {
    /// Number of the line, from 1.
    pub line: u64,
    /// Its beginning.
    pub text: String,
}

/// Places where a time is less than the one before.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Backwards {
    /// How many.
    pub count: u64,
    /// Number of the first such line, 0 if there is none.
    pub first_line: u64,
    /// Largest step back.
    pub largest_us: f64,
}

impl Backwards {
    /// Counts a step back of `ns` at a line.
    #[cold]
    pub(crate) fn add(&mut self, line: u64, ns: i64) {
        if self.count == 0 {
            self.first_line = line;
        }
        self.count += 1;
        self.largest_us = self.largest_us.max(ns as f64 / 1000.0);
    }
}

/// A kind of message that no analysis knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shape {
    /// Lines of it.
    pub count: u64,
    /// The message with its numbers replaced by `N`.
    pub text: String,
}

/// Lines of one kind of event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KindCount {
    /// Name of the kind.
    pub event: Cow<'static, str>,
    /// Lines.
    pub count: u64,
}

/// How many bad lines of one reason are kept with their text.
const KEPT: usize = 3;
/// How many shapes are kept; binary garbage must not fill the memory.
const MAX_SHAPES: usize = 1000;
/// How much of a line is shown.
const SHOWN: usize = 100;

impl FileStats {
    pub(crate) fn new(path: &Path, node: &str, format: Format, dialect: Dialect) -> Self {
        Self {
            path: path.to_path_buf(),
            node: node.to_string(),
            format,
            dialect,
            counter: None,
            bytes: 0,
            lines: 0,
            records: 0,
            unrecognised: 0,
            comments: 0,
            bad: Vec::new(),
            backwards: Backwards::default(),
            headers: 0,
            shapes: Vec::new(),
            kinds: Vec::new(),
            user_events: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[cold]
    pub(crate) fn bad(&mut self, reason: BadLine, text: &[u8]) {
        let place = match self.bad.iter().position(|b| b.reason == reason) {
            Some(place) => place,
            None => {
                self.bad.push(BadLines { reason, count: 0, first: Vec::new() });
                self.bad.len() - 1
            }
        };
        let bad = &mut self.bad[place];
        bad.count += 1;
        if bad.first.len() < KEPT {
            bad.first.push(Located { line: self.lines, text: shown(text) });
        }
    }

    /// Adds the account of the next part of the same file.
    pub(crate) fn append(&mut self, next: Self) {
        for mut bad in next.bad {
            bad.first.iter_mut().for_each(|l| l.line += self.lines);
            match self.bad.iter_mut().find(|b| b.reason == bad.reason) {
                Some(known) => {
                    known.count += bad.count;
                    known.first.extend(bad.first);
                    known.first.truncate(KEPT);
                }
                None => self.bad.push(bad),
            }
        }
        if next.backwards.count > 0 {
            let (ours, theirs) = (self.backwards, next.backwards);
            let first_line = if ours.count > 0 { ours.first_line } else { theirs.first_line + self.lines };
            let largest_us = ours.largest_us.max(theirs.largest_us);
            self.backwards = Backwards { count: ours.count + theirs.count, first_line, largest_us };
        }
        self.bytes += next.bytes;
        self.lines += next.lines;
        self.unrecognised += next.unrecognised;
        self.comments += next.comments;
        self.notes.extend(next.notes);
    }

    /// Lines of `kind`.
    pub fn count(&self, kind: Kind) -> u64 {
        self.kinds.iter().find(|k| k.event == kind.name()).map_or(0, |k| k.count)
    }

    /// All bad lines.
    pub fn bad_lines(&self) -> u64 {
        self.bad.iter().map(|b| b.count).sum()
    }

    /// What is wrong with the file, one line each; empty if nothing is.
    pub fn problems(&self) -> Vec<String> {
        let path = self.path.display();
        let mut all: Vec<String> = self.notes.iter().map(|note| format!("{path}: {note}")).collect();
        for bad in &self.bad {
            let at = bad.first.first().map_or(0, |l| l.line);
            let mut text = format!("{path}:{at}: {}", bad.reason.text());
            let _ = match bad.first.first() {
                Some(first) if !first.text.is_empty() => write!(text, ", found `{}`", first.text),
                _ => Ok(()),
            };
            if bad.count > 1 {
                let others: Vec<String> = bad.first.iter().skip(1).map(|l| l.line.to_string()).collect();
                let dots = if bad.count as usize > bad.first.len() { ", ..." } else { "" };
                let _ = write!(text, " ({} such lines, also {}{dots})", bad.count, others.join(", "));
            }
            all.push(text);
        }
        if self.backwards.count > 0 {
            all.push(format!(
                "{path}:{}: time goes backwards ({} times, by {:.3} us at most): a glitch of the clock if rare and small, \
                 else several traces in one file",
                self.backwards.first_line, self.backwards.count, self.backwards.largest_us
            ));
        }
        if self.headers > 1 {
            all.push(format!(
                "{path}: {} lines `First event has timestamp`: traces appended to each other; give one file for each",
                self.headers
            ));
        }
        all
    }
}

/// The beginning of a line, control characters replaced.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(SHOWN)]);
    text.trim().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Counts unrecognised messages by shape.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    by_hash: FxHashMap<u64, (u64, String)>,
    other: u64,
}

impl Shapes {
    pub(crate) fn add(&mut self, message: &[u8]) {
        let hash = shape_hash(message);
        if let Some((count, _)) = self.by_hash.get_mut(&hash) {
            *count += 1;
        } else if self.by_hash.len() < MAX_SHAPES {
            self.by_hash.insert(hash, (1, shape(message)));
        } else {
            self.other += 1;
        }
    }

    /// Adds those of another part.
    pub(crate) fn append(&mut self, next: Self) {
        self.other += next.other;
        for (hash, (count, text)) in next.by_hash {
            if self.by_hash.len() < MAX_SHAPES || self.by_hash.contains_key(&hash) {
                self.by_hash.entry(hash).or_insert((0, text)).0 += count;
            } else {
                self.other += count;
            }
        }
    }

    /// All shapes, the most frequent first.
    pub(crate) fn into_sorted(self) -> Vec<Shape> {
        let mut all: Vec<Shape> = self.by_hash.into_values().map(|(count, text)| Shape { count, text }).collect();
        all.sort_by(|x, y| y.count.cmp(&x.count).then_with(|| x.text.cmp(&y.text)));
        if self.other > 0 {
            all.push(Shape { count: self.other, text: format!("(more than {MAX_SHAPES} shapes; the rest)") });
        }
        all
    }
}

/// Calls `each` with every byte of the shape of `message`: each number, hexadecimal ones too, is one `N`.
#[inline]
fn shape_bytes(message: &[u8], mut each: impl FnMut(u8)) {
    let mut rest = message;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if !byte.is_ascii_digit() {
            each(*byte);
            continue;
        }
        each(b'N');
        let hex = *byte == b'0' && rest.first() == Some(&b'x');
        if hex {
            rest = &rest[1..];
        }
        while let [digit, tail @ ..] = rest
            && (digit.is_ascii_digit() || hex && digit.is_ascii_hexdigit())
        {
            rest = tail;
        }
    }
}

fn shape_hash(message: &[u8]) -> u64 {
    let mut hash = 0u64;
    shape_bytes(message, |byte| hash = (hash.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x51_7c_c1_b7_27_22_0a_95));
    hash
}

fn shape(message: &[u8]) -> String {
    let mut bytes = Vec::new();
    shape_bytes(&message[..message.len().min(2 * SHOWN)], |byte| bytes.push(byte));
    shown(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_no_numbers() {
        let mut shapes = Shapes::default();
        for message in ["reaped 9 skbs for port 4000", "odd 0xa4d0001:40 x", "reaped 10 skbs for port 1"] {
            shapes.add(message.as_bytes());
        }
        let all: Vec<(u64, String)> = shapes.into_sorted().into_iter().map(|s| (s.count, s.text)).collect();
        assert_eq!(all, [(2, "reaped N skbs for port N".to_string()), (1, "odd N:N x".to_string())]);
    }

    #[test]
    fn the_number_of_shapes_is_bounded() {
        let mut shapes = Shapes::default();
        for i in 0..2000u32 {
            let text: String = (0..11).map(|bit| if i >> bit & 1 == 1 { 'x' } else { 'y' }).collect();
            shapes.add(text.as_bytes());
        }
        let all = shapes.into_sorted();
        assert_eq!(all.len(), MAX_SHAPES + 1);
        assert_eq!(all.iter().map(|s| s.count).sum::<u64>(), 2000);
    }

    #[test]
    fn problems_are_located() {
        let mut stats = FileStats::new(Path::new("n1.tt"), "n1", Format::Plain, Dialect::Tt);
        assert!(stats.problems().is_empty());
        for line in [3, 5, 8, 9] {
            stats.lines = line;
            stats.bad(BadLine::NoCore, b"1.0 us oh\x01");
        }
        assert_eq!(
            stats.problems(),
            [
                "n1.tt:3: no core: expected `[Cnn]` after the time, found `1.0 us oh\u{fffd}` (4 such lines, also 5, 8, ...)"
            ]
        );
    }
}
