//! Traces of one machine's clock, such as the kernel's and a user-level program's, as one.

use std::io::{self, BufRead, Write};

use super::{split, write_line};
use crate::read::Counter;

/// Merges traces by the counter of their first lines, in the time base of the one that begins first. Traces without such
/// a line are left out; returns the places of these.
///
/// # Errors
///
/// If reading or writing fails.
pub fn merge(inputs: &mut [Box<dyn BufRead>], out: &mut dyn Write) -> io::Result<Vec<usize>> {
    let mut skipped = Vec::new();
    let mut traces = Vec::new();
    for (place, input) in inputs.iter_mut().enumerate() {
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line)?;
        match split(line.trim_ascii_end()).and_then(|(_, message)| Counter::of(message)) {
            Some(start) => traces.push(Trace { input, start, next: None }),
            None => skipped.push(place),
        }
    }
    let Some(base) = traces.iter().map(|t| t.start).min_by_key(|s| s.cycles) else { return Ok(skipped) };
    for trace in &mut traces {
        trace.advance(base)?;
    }
    let mut last = None;
    while let Some(first) = traces.iter_mut().filter(|t| t.next.is_some()).min_by_key(|t| t.next.as_ref().map(|n| n.0))
    {
        if let Some((time, rest)) = first.next.take() {
            write_line(out, time, time - last.replace(time).unwrap_or(time), &rest)?;
        }
        first.advance(base)?;
    }
    Ok(skipped)
}

struct Trace<'a> {
    input: &'a mut Box<dyn BufRead>,
    start: Counter,
    /// Next record: time on the common base, and the text from its bracket on.
    next: Option<(i64, Vec<u8>)>,
}

impl Trace<'_> {
    fn advance(&mut self, base: Counter) -> io::Result<()> {
        let mut line = Vec::new();
        while self.input.read_until(b'\n', &mut line)? > 0 {
            if let Some((time, rest)) = split(line.strip_suffix(b"\n").unwrap_or(&line)) {
                let offset = (self.start.cycles - base.cycles) as f64 / base.ghz;
                let time = time as f64 * self.start.ghz / base.ghz + offset;
                self.next = Some((time.round() as i64, rest.to_vec()));
                break;
            }
            line.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_merged_by_their_counters() {
        let first = |cycles| {
            format!(
                "    0.000 us (+   0.000 us) [C00] First event has timestamp {cycles} (cpu_ghz 2.000000000000000)\n"
            )
        };
        let kernel = first(4000) + "    1.000 us (+   1.000 us) [C01] k1\n    3.000 us (+   2.000 us) [C01] k2\n";
        let user = first(6000) + "    0.500 us (+   0.500 us) [R1.1] u1\n    9.000 us (+   8.500 us) [R1.1] u2";
        let mut inputs: Vec<Box<dyn BufRead>> = vec![
            Box::new(io::Cursor::new(user)),
            Box::new(io::Cursor::new("1.000 us (+ 1.000 us) [C00] no clock\n")),
            Box::new(io::Cursor::new(kernel)),
        ];
        let mut out = Vec::new();
        assert_eq!(merge(&mut inputs, &mut out).unwrap(), [1]);
        let expected = "    1.000 us (+   0.000 us) [C01] k1\n    1.500 us (+   0.500 us) [R1.1] u1\n    3.000 us (+   1.500 us) [C01] k2\n   10.000 us (+   7.000 us) [R1.1] u2\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
