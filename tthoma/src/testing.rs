//! Small traces for tests, written as `TIME MESSAGE` or `TIME C<core> MESSAGE` lines, times in microseconds.

use std::fmt::Write as _;
use std::path::Path;

use crate::read::{Format, NodeTrace, parse_text};

/// The text of a `.tt` file with the events of `short`.
pub(crate) fn tt(short: &str) -> String {
    let mut out = String::new();
    for line in short.lines().filter(|l| !l.trim().is_empty()) {
        let (time, mut message) = line.trim().split_once(' ').expect("TIME MESSAGE");
        let mut core = "0";
        if let Some((word, rest)) = message.split_once(' ')
            && let Some(digits) =
                word.strip_prefix('C').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
        {
            (core, message) = (digits, rest);
        }
        let time: f64 = time.parse().expect("a time");
        writeln!(out, "{time:9.3} us (+{:8.3} us) [C{core:0>2}] {message}", 0.0).expect("strings grow");
    }
    out
}

/// A trace for each (node, events).
pub(crate) fn traces(nodes: &[(&str, &str)]) -> Vec<NodeTrace> {
    let parse = |(node, short): &(&str, &str)| {
        let trace = parse_text(Path::new(&format!("{node}.tt")), node, Format::Plain, &mut tt(short).as_bytes());
        assert_eq!(trace.stats.problems(), [""; 0]);
        assert_eq!(trace.stats.unrecognised, 0, "{:?}", trace.stats.shapes);
        trace
    };
    nodes.iter().map(parse).collect()
}
