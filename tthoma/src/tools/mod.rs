//! Small tools: text of traces in, text out, line by line.
//!
//! Lines that are no records are passed on where a trace is only shifted, and left out elsewhere. Times may be negative.
//! Source: timetrace.md 7.

mod grep;
mod merge;
mod print;
mod shift;
mod sum;

use std::io::{self, Write};

use memchr::memmem;

use crate::read::line_time;

pub use grep::{Grep, grep};
pub use merge::merge;
pub use print::{Printed, print};
pub use shift::{offset, range};
pub use sum::{Sum, sum};

/// Time (ns) and the rest of a line from its core's bracket on.
fn split(line: &[u8]) -> Option<(i64, &[u8])> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (time, rest) = line_time(line)?;
    let bracket = memmem::find(rest, b"[")?;
    Some((time, &rest[bracket..]))
}

/// The message after the core's bracket, and the bracket's text.
fn parts(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b']', rest)?;
    let message = rest[end + 1..].strip_prefix(b" ").unwrap_or(&rest[end + 1..]);
    Some((&rest[1..end], message))
}

/// Writes a line of a `.tt` file; times in ns, `rest` from the bracket on.
fn write_line(out: &mut dyn Write, time: i64, delta: i64, rest: &[u8]) -> io::Result<()> {
    write!(out, "{:>9} us (+{:>8} us) ", Micros(time), Micros(delta))?;
    out.write_all(rest)?;
    out.write_all(b"\n")
}

/// Nanoseconds as microseconds with three decimals, exactly.
struct Micros(i64);

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (us, ns) = (self.0.unsigned_abs() / 1000, self.0.unsigned_abs() % 1000);
        let sign = if self.0 < 0 { "-" } else { "" };
        f.pad(&format!("{sign}{us}.{ns:03}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart_and_written_again() {
        let line = b"   -0.954 us (+   0.954 us) [C05] a [C07] b\r";
        let (time, rest) = split(line).unwrap();
        assert_eq!((time, rest), (-954, &b"[C05] a [C07] b"[..]));
        assert_eq!(parts(rest), Some((&b"C05"[..], &b"a [C07] b"[..])));
        let mut out = Vec::new();
        write_line(&mut out, time, 954, rest).unwrap();
        assert_eq!(out, b"   -0.954 us (+   0.954 us) [C05] a [C07] b\n");
        assert_eq!(split(b"hello"), None);
    }
}
