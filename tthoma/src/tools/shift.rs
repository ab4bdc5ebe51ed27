//! Times moved, and a range of them cut out.

use std::io::{self, BufRead, Write};

use super::{Micros, split};
use crate::read::line_time;

/// Adds `by` ns to every time; all else, and lines that are no records, stay as they are.
///
/// # Errors
///
/// If reading or writing fails.
pub fn offset(by: i64, input: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<()> {
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        match line_time(&line) {
            Some((time, rest)) => {
                write!(out, "{:>9}", Micros(time + by))?;
                out.write_all(rest)?;
            }
            None => out.write_all(&line)?,
        }
        line.clear();
    }
    Ok(())
}

/// Prints the records whose time (ns) is in `start..=end` as they are; returns how many.
///
/// # Errors
///
/// If reading or writing fails.
pub fn range(start: i64, end: i64, input: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<u64> {
    let (mut line, mut printed) = (Vec::new(), 0);
    while input.read_until(b'\n', &mut line)? > 0 {
        if split(&line).is_some_and(|(time, _)| (start..=end).contains(&time)) {
            out.write_all(&line)?;
            printed += 1;
        }
        line.clear();
    }
    Ok(printed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "# note\n   -1.000 us (+   0.000 us) [C00] a\n    0.500 us (+   1.500 us) [C00] b\r\n    9.000 us (+   8.500 us) [C00] c\n";

    #[test]
    fn only_times_change() {
        let mut out = Vec::new();
        offset(-1500, &mut TRACE.as_bytes(), &mut out).unwrap();
        let expected = "# note\n   -2.500 us (+   0.000 us) [C00] a\n   -1.000 us (+   1.500 us) [C00] b\r\n    7.500 us (+   8.500 us) [C00] c\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn both_ends_of_a_range_are_in_it() {
        let mut out = Vec::new();
        assert_eq!(range(-1000, 500, &mut TRACE.as_bytes(), &mut out).unwrap(), 2);
        assert_eq!(out, &TRACE.as_bytes()[7..TRACE.find("    9.000").unwrap()]);
    }
}
