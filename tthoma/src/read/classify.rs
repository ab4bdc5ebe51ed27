//! From a message to its event: a decision tree on single bytes, then the few templates left.
//!
//! The tree is built once from [`TEMPLATES`]. Each inner node looks at one byte of the message, chosen so that it
//! tells most templates apart; a leaf holds the templates that may still match, in their order. Kernel traces need
//! two to four nodes and one or two templates a line.

use std::sync::LazyLock;

use memchr::{memchr, memmem};

use super::scan::Scan;
use crate::event::{Have, Kind};
use crate::vocabulary::{LOCKS, TEMPLATES, VIA};

/// What a message says; see [`crate::event::Record`] for the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub kind: Kind,
    pub have: Have,
    values: [u32; 6],
}

impl Fields {
    pub(crate) fn id(&self) -> u32 {
        self.values[0]
    }
    pub(crate) fn offset(&self) -> u32 {
        self.values[1]
    }
    pub(crate) fn a(&self) -> u32 {
        self.values[2]
    }
    pub(crate) fn b(&self) -> u32 {
        self.values[3]
    }
    pub(crate) fn c(&self) -> u32 {
        self.values[4]
    }
    pub(crate) fn peer(&self) -> u32 {
        self.values[5]
    }
}

/// The classifier, to be fetched once a file instead of once a line.
pub(crate) fn classifier() -> &'static Classifier {
    &CLASSIFIER
}

static CLASSIFIER: LazyLock<Classifier> = LazyLock::new(Classifier::new);

#[derive(Debug)]
enum Piece {
    Lit(&'static [u8]),
    Decimal(usize),
    Hex(usize),
    Skip,
    Word,
    Until(&'static [u8]),
    Comma,
    /// From here on the template may fail.
    Optional,
    Set(usize, u32),
    Key(usize, &'static [&'static str]),
}

/// A text, then what follows it: most of a message is such steps.
#[derive(Debug)]
struct Step {
    /// Bytes of the text, up to the first eight, and which bits of these count.
    head: (u64, u64),
    /// The text after its first eight bytes.
    tail: &'static [u8],
    length: usize,
    /// `None` at the end of a template, and where a text follows a text.
    then: Option<Piece>,
    /// If it fails the template fits all the same, and the fields from here on are absent.
    optional: bool,
}

#[derive(Debug)]
struct Pattern {
    kind: Kind,
    /// Text that it begins with.
    prefix: &'static [u8],
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Node {
    /// Byte position to look at; node for each byte below 128; node for all else and for messages that end before.
    Split {
        at: usize,
        next: Box<[u16; 128]>,
        other: u16,
    },
    Leaf(Vec<u16>),
}

/// All templates, compiled.
#[derive(Debug)]
pub(crate) struct Classifier {
    patterns: Vec<Pattern>,
    nodes: Vec<Node>,
    /// Where to go on in the tree by the first [`KEY`] bytes of a message, at a place that [`slot_of`] tells.
    starts: Box<[(u128, u16); SLOTS]>,
}

/// Bytes of a message that are looked up at once.
const KEY: usize = 16;
/// Places of the table that they are looked up in.
const SLOTS: usize = 1 << 10;

/// Place of a message's first bytes.
#[inline]
fn slot_of(key: u128) -> usize {
    let mixed = (key as u64 ^ (key >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (64 - SLOTS.trailing_zeros())) as usize
}

impl Classifier {
    fn new() -> Self {
        let patterns = TEMPLATES.iter().map(|(kind, text)| Pattern::of(*kind, compile(text))).collect();
        let mut this = Self { patterns, nodes: Vec::new(), starts: Box::new([(0, 0); SLOTS]) };
        let all: Vec<u16> = (0..TEMPLATES.len() as u16).collect();
        this.grow(all.clone(), &mut Vec::new());
        for pattern in 0..this.patterns.len() {
            let Some(first) = this.patterns[pattern].prefix.first_chunk::<KEY>() else { continue };
            let key = u128::from_le_bytes(*first);
            let place = slot_of(key);
            // Of two that would have the same place, the second goes through the whole tree.
            if this.starts[place] == (0, 0) {
                let fits = |p: &&u16| {
                    let prefix = this.patterns[usize::from(**p)].prefix;
                    prefix.starts_with(first) || first.starts_with(prefix)
                };
                let some = all.iter().filter(fits).copied().collect();
                this.starts[place] = (key, this.grow(some, &mut (0..KEY).collect()));
            }
        }
        this
    }

    /// Adds the subtree for `set`; `looked` are the positions that lie on the way to it. Returns its root.
    fn grow(&mut self, set: Vec<u16>, looked: &mut Vec<usize>) -> u16 {
        let this = self.nodes.len() as u16;
        self.nodes.push(Node::Leaf(set.clone()));
        let prefixes: Vec<&[u8]> = set.iter().map(|p| self.patterns[usize::from(*p)].prefix).collect();
        let longest = prefixes.iter().map(|p| p.len()).max().unwrap_or(0);
        // A template that is shorter than the position goes into every branch, which is right and costs little.
        let largest_branch = |at: usize| {
            let mut sizes = [0usize; 128];
            let open = prefixes.iter().filter(|p| p.len() <= at).count();
            prefixes.iter().filter_map(|p| p.get(at)).for_each(|b| sizes[usize::from(*b)] += 1);
            open + sizes.into_iter().max().unwrap_or(0)
        };
        let best = (0..longest).filter(|at| !looked.contains(at)).min_by_key(|at| largest_branch(*at));
        let Some(at) = best.filter(|at| set.len() > 1 && largest_branch(*at) < set.len()) else { return this };

        looked.push(at);
        let open: Vec<u16> = (set.iter().zip(&prefixes)).filter(|(_, p)| p.len() <= at).map(|(i, _)| *i).collect();
        let mut bytes: Vec<u8> = prefixes.iter().filter_map(|p| p.get(at).copied()).collect();
        bytes.sort_unstable();
        bytes.dedup();
        let branches: Vec<(u8, Vec<u16>)> = bytes
            .into_iter()
            .map(|byte| {
                let fits = |p: &&[u8]| p.get(at).is_none_or(|b| *b == byte);
                (byte, set.iter().zip(&prefixes).filter(|(_, p)| fits(p)).map(|(i, _)| *i).collect())
            })
            .collect();
        let other = self.grow(open, looked);
        let mut next = Box::new([other; 128]);
        for (byte, branch) in branches {
            next[usize::from(byte)] = self.grow(branch, looked);
        }
        looked.pop();
        self.nodes[usize::from(this)] = Node::Split { at, next, other };
        this
    }

    /// The event that `message` tells, or `None` if no template matches. Other lines may follow it.
    #[inline]
    pub(crate) fn classify(&self, message: &[u8]) -> Option<Fields> {
        let key = message.first_chunk::<KEY>().map_or(0, |first| u128::from_le_bytes(*first));
        let (known, start) = self.starts[slot_of(key)];
        let mut node = if known == key { start } else { 0 };
        loop {
            match &self.nodes[usize::from(node)] {
                Node::Split { at, next, other } => {
                    node = message.get(*at).and_then(|b| next.get(usize::from(*b))).copied().unwrap_or(*other);
                }
                Node::Leaf(set) => return set.iter().find_map(|p| self.patterns[usize::from(*p)].run(message)),
            }
        }
    }
}

impl Pattern {
    fn of(kind: Kind, pieces: Vec<Piece>) -> Self {
        let prefix = match pieces.first() {
            Some(Piece::Lit(text)) => *text,
            _ => b"",
        };
        let mut steps: Vec<Step> = Vec::new();
        let mut optional = false;
        for piece in pieces {
            match (piece, steps.last_mut()) {
                (Piece::Optional, _) => optional = true,
                (Piece::Lit(text), _) => steps.push(Step::of(text, None, optional)),
                (piece, Some(last)) if last.then.is_none() && last.optional == optional => last.then = Some(piece),
                (piece, _) => steps.push(Step::of(b"", Some(piece), optional)),
            }
        }
        Self { kind, prefix, steps }
    }

    #[inline]
    fn run(&self, message: &[u8]) -> Option<Fields> {
        let mut scan = Scan(message);
        let mut fields = Fields { kind: self.kind, have: Have::default(), values: [0; 6] };
        for step in &self.steps {
            if step.run(&mut scan, &mut fields).is_none() {
                if !step.optional {
                    return None;
                }
                break;
            }
        }
        Some(fields)
    }
}

impl Step {
    fn of(text: &'static [u8], then: Option<Piece>, optional: bool) -> Self {
        let mut eight = [0; 8];
        let head = text.len().min(8);
        eight[..head].copy_from_slice(&text[..head]);
        let counts = if head == 8 { u64::MAX } else { (1 << (8 * head)) - 1 };
        Self { head: (u64::from_le_bytes(eight), counts), tail: &text[head..], length: text.len(), then, optional }
    }

    /// Eats the text.
    #[inline]
    fn text(&self, scan: &mut Scan<'_>) -> Option<()> {
        let Some(eight) = scan.0.first_chunk() else {
            // At the end of all lines.
            scan.lit(&self.head.0.to_le_bytes()[..self.length.min(8)])?;
            return scan.lit(self.tail);
        };
        let differs = (u64::from_le_bytes(*eight) ^ self.head.0) & self.head.1;
        let fits = differs == 0 && (self.tail.is_empty() || scan.0[8..].starts_with(self.tail));
        scan.0 = scan.0.get(self.length..).filter(|_| fits)?;
        Some(())
    }

    #[inline]
    fn run(&self, scan: &mut Scan<'_>, fields: &mut Fields) -> Option<()> {
        self.text(scan)?;
        let Some(piece) = &self.then else { return Some(()) };
        let mut put = |slot: usize, value: u32| {
            fields.values[slot] = value;
            fields.have.0 |= 1 << slot;
        };
        match piece {
            Piece::Lit(text) => scan.lit(text)?,
            Piece::Decimal(slot) => put(*slot, scan.decimal()?),
            Piece::Hex(slot) => put(*slot, scan.hex()?),
            Piece::Skip => drop(scan.decimal()?),
            Piece::Word => drop(scan.word()?),
            Piece::Until(text) => {
                let line = &scan.0[..memchr(b'\n', scan.0).unwrap_or(scan.0.len())];
                scan.0 = &scan.0[memmem::find(line, text)? + text.len()..];
            }
            Piece::Comma => drop(scan.lit(b",")),
            // Said of the steps.
            Piece::Optional => {}
            Piece::Set(slot, value) => put(*slot, *value),
            Piece::Key(slot, words) => {
                let end = scan.0.iter().position(|b| matches!(b, b' ' | b',' | b'\n')).unwrap_or(scan.0.len());
                let word = &scan.0[..end];
                let place = words.iter().position(|w| w.as_bytes() == word).map_or(0, |i| i + 1);
                put(*slot, place as u32);
                scan.0 = &scan.0[end..];
            }
        }
        Some(())
    }
}

/// Slot of a field's name, also its bit in [`Have`].
fn slot(name: &str) -> Option<usize> {
    ["id", "offset", "a", "b", "c", "peer"].iter().position(|n| *n == name)
}

/// Compiles a template of [`TEMPLATES`].
///
/// # Panics
///
/// If the template is malformed; a test compiles them all.
fn compile(template: &'static str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let Some(open) = rest.find('{') else {
            pieces.push(Piece::Lit(rest.as_bytes()));
            break;
        };
        if open > 0 {
            pieces.push(Piece::Lit(&rest.as_bytes()[..open]));
        }
        let close = open + rest[open..].find('}').expect("templates have a } for each {");
        let name = &rest[open + 1..close];
        rest = &rest[close + 1..];
        pieces.push(match name {
            "_" => Piece::Skip,
            "word" => Piece::Word,
            "," => Piece::Comma,
            "?" => Piece::Optional,
            ".." => {
                let end = rest.find('{').unwrap_or(rest.len());
                let until = &rest.as_bytes()[..end];
                rest = &rest[end..];
                Piece::Until(until)
            }
            "peer" => Piece::Hex(slot("peer").expect("peer is a field")),
            _ => field(name),
        });
    }
    pieces
}

fn field(name: &'static str) -> Piece {
    let of = |field: &str| slot(field).unwrap_or_else(|| panic!("no field `{field}`"));
    if let Some((field, value)) = name.split_once('=') {
        return Piece::Set(of(field), value.parse().expect("a number is set"));
    }
    match name.split_once(':') {
        Some((field, "x")) => Piece::Hex(of(field)),
        Some((field, "via")) => Piece::Key(of(field), VIA),
        Some((field, "lock")) => Piece::Key(of(field), LOCKS),
        Some((_, format)) => panic!("no format `{format}`"),
        None => Piece::Decimal(of(name)),
    }
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
