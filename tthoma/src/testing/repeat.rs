//! Large traces for measurements: given ones, repeated one after the other in time, and side by side as other nodes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use memchr::memmem;

use crate::read::{line_time, open_text};

/// What to make of given traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Lines of all files together, at least; as many whole repetitions as that takes.
    pub lines: u64,
    /// Copies of the given nodes side by side, with names and addresses of their own.
    pub copies: u32,
}

/// A line as pieces of text with numbers between them.
struct Line {
    time: i64,
    /// Text, and what follows it.
    pieces: Vec<(Vec<u8>, Number)>,
}

/// A number that differs between repetitions.
#[derive(Clone, Copy)]
enum Number {
    None,
    /// Id of an RPC: of its own in each repetition and copy.
    Id(u32),
    /// Address: of its own in each copy.
    Address(u32),
}

/// Nothing happens for this long between two repetitions, ns.
const PAUSE: i64 = 50_000;

impl Repeat {
    /// Writes `dir/nodeN.tt`, the traces of `files` again and again: later by the length of all of them each time, ids of RPCs
    /// never used twice. Returns the files.
    ///
    /// An id is a number after `id `, an address a hexadecimal one after `from`, `peer`, `target`, `to`, `client` or `server`.
    ///
    /// # Errors
    ///
    /// If a file can't be read or written.
    pub fn write(&self, files: &[PathBuf], dir: &Path) -> io::Result<Vec<PathBuf>> {
        let nodes = files.iter().map(|file| parse(file)).collect::<io::Result<Vec<_>>>()?;
        let all = || nodes.iter().flatten();
        let ids = || {
            all()
                .flat_map(|line| &line.pieces)
                .filter_map(|(_, n)| if let Number::Id(id) = n { Some(*id) } else { None })
        };
        let (least, most) = (ids().min().unwrap_or(0) & !1, ids().max().unwrap_or(0));
        let stride = (most - least) / 2 * 2 + 2;
        let times = || all().map(|line| line.time);
        let step = times().max().unwrap_or(0) - times().min().unwrap_or(0) + PAUSE;
        let copies = self.copies.max(1);
        let lines = all().count() as u64 * u64::from(copies);
        let rounds = self.lines.div_ceil(lines.max(1)).max(1) as u32;
        fs::create_dir_all(dir)?;
        let mut written = Vec::new();
        for copy in 0..copies {
            for (place, lines) in nodes.iter().enumerate() {
                let path = dir.join(format!("node{}.tt", copy as usize * nodes.len() + place));
                let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
                for round in 0..rounds {
                    let shift = Shift {
                        time: step * i64::from(round),
                        id: (round * copies + copy).wrapping_mul(stride),
                        // Networks of nodes that are apart.
                        address: copy << 8,
                    };
                    // What tells the rate of the clock is there once.
                    let again = |line: &&Line| round == 0 || !line.is_header();
                    lines.iter().filter(again).try_for_each(|line| line.write(&shift, &mut out))?;
                }
                out.flush()?;
                written.push(path);
            }
        }
        Ok(written)
    }
}

/// What is added in one repetition of one copy.
struct Shift {
    time: i64,
    id: u32,
    address: u32,
}

impl Line {
    fn is_header(&self) -> bool {
        self.pieces.iter().any(|(text, _)| memmem::find(text, b"First event has timestamp").is_some())
    }

    fn write(&self, shift: &Shift, out: &mut impl Write) -> io::Result<()> {
        let time = self.time + shift.time;
        let sign = if time < 0 { "-" } else { "" };
        let whole = format!("{sign}{}", time.abs() / 1000);
        write!(out, "{whole:>5}.{:03}", time.abs() % 1000)?;
        for (text, number) in &self.pieces {
            out.write_all(text)?;
            match number {
                Number::None => {}
                Number::Id(id) => write!(out, "{}", id.wrapping_add(shift.id))?,
                Number::Address(address) => write!(out, "{:x}", address.wrapping_add(shift.address))?,
            }
        }
        out.write_all(b"\n")
    }
}

/// The lines of a trace that have a time.
fn parse(path: &Path) -> io::Result<Vec<Line>> {
    let mut text = Vec::new();
    open_text(path)?.read_to_end(&mut text)?;
    let lines = text.split(|b| *b == b'\n').filter_map(|line| {
        let (time, rest) = line_time(line)?;
        Some(Line { time, pieces: pieces(rest) })
    });
    Ok(lines.collect())
}

/// Words before ids and addresses.
const WORDS: [(&[u8], bool); 7] = [
    (b"id ", true),
    (b"from 0x", false),
    (b"peer 0x", false),
    (b"target 0x", false),
    (b"to 0x", false),
    (b"client 0x", false),
    (b"server 0x", false),
];

fn pieces(mut rest: &[u8]) -> Vec<(Vec<u8>, Number)> {
    let mut all = Vec::new();
    let mut text = Vec::new();
    let next = |rest: &[u8]| {
        let found = WORDS.iter().filter_map(|(word, id)| memmem::find(rest, word).map(|at| (at + word.len(), *id)));
        found.min()
    };
    while let Some((end, id)) = next(rest) {
        let digits =
            rest[end..].iter().take_while(|b| if id { b.is_ascii_digit() } else { b.is_ascii_hexdigit() }).count();
        let digits_text = std::str::from_utf8(&rest[end..end + digits]).unwrap_or_default();
        let number = u32::from_str_radix(digits_text, if id { 10 } else { 16 });
        text.extend_from_slice(&rest[..end]);
        match number {
            Ok(number) => {
                all.push((std::mem::take(&mut text), if id { Number::Id(number) } else { Number::Address(number) }));
            }
            Err(_) => text.extend_from_slice(&rest[end..end + digits]),
        }
        rest = &rest[end + digits..];
    }
    text.extend_from_slice(rest);
    all.push((text, Number::None));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Options;
    use crate::model::Model;
    use crate::testing::{Scenario, Steps};

    #[test]
    fn repetitions_are_as_the_original_and_apart() {
        let dir = std::env::temp_dir().join(format!("tthoma-repeat-{}", std::process::id()));
        fs::create_dir_all(dir.join("one")).unwrap();
        let mut scenario = Scenario::new(2);
        scenario.rpc(5.0, (0, 1), 10, (30_000, 100), &Steps::default());
        scenario.rpc(100.0, (1, 0), 100, (100, 100), &Steps::default());
        let files = scenario.write(&dir.join("one")).unwrap();
        let options = Options { no_cache: true, ..Options::default() };
        let one = Model::read(&files, &options).unwrap();
        let lines: u64 = one.stats().map(|s| s.lines).sum();
        let many = Repeat { lines: 3 * lines * 2 - 5, copies: 2 }.write(&files, &dir.join("many")).unwrap();
        assert_eq!(many.len(), 4);
        let many = Model::read(&many, &options).unwrap();
        assert_eq!(many.packets.messages.len(), 6 * one.packets.messages.len());
        assert_eq!(many.packets.data.received.len(), 6 * one.packets.data.received.len());
        assert_eq!(many.journeys().excluded.ambiguous_records, 0);
        assert!(many.hosts.outside.is_empty() && many.stats().all(|s| s.problems().is_empty()));
        // Node 1's times are those of the original, on the clock of node 0's.
        let clock = |model: &Model| (model.clock.offset(1), model.clock.error(0, 1));
        assert_eq!(clock(&many), clock(&one));
        fs::remove_dir_all(dir).unwrap();
    }
}
