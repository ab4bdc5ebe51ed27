//! Records that match a regular expression, with the time since the one before.

use std::io::{self, BufRead, Write};

use memchr::memmem;
use regex::bytes::Regex;

use super::{split, write_line};

/// What [`grep`] can be told.
#[derive(Clone, Debug)]
pub struct Grep {
    /// Matched anywhere in the text from the core's bracket on.
    pub pattern: Regex,
    /// The first record printed has time 0.
    pub rebase: bool,
}

/// Prints the records that match, and those that tell of a freeze; returns how many.
///
/// # Errors
///
/// If reading or writing fails.
pub fn grep(options: &Grep, input: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<u64> {
    let (mut base, mut last, mut printed) = (0, None, 0);
    for line in input.split(b'\n') {
        let line = line?;
        let Some((time, rest)) = split(&line) else { continue };
        if !options.pattern.is_match(rest) && memmem::find(rest, b"Freez").is_none() {
            continue;
        }
        if last.is_none() && options.rebase {
            base = time;
        }
        write_line(out, time - base, time - last.unwrap_or(time), rest)?;
        last = Some(time);
        printed += 1;
    }
    Ok(printed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "    0.000 us (+   0.000 us) [C00] homa_sendmsg a\n    1.000 us (+   1.000 us) [C05] other\n\
                         no record\n   49.001 us (+  48.001 us) [C01] homa_sendmsg b\n   50.000 us (+   1.000 us) [C01] Freezing x\n";

    fn run(pattern: &str, rebase: bool) -> String {
        let options = Grep { pattern: Regex::new(pattern).unwrap(), rebase };
        let mut out = Vec::new();
        grep(&options, &mut TRACE.as_bytes(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn deltas_are_those_between_printed_lines() {
        let expected = "    0.000 us (+   0.000 us) [C00] homa_sendmsg a\n   49.001 us (+  49.001 us) [C01] homa_sendmsg b\n   \
                        50.000 us (+   0.999 us) [C01] Freezing x\n";
        assert_eq!(run("homa_send.*", false), expected);
        // A first match at time 0 stays the base.
        assert_eq!(run("homa_send.*", true), expected);
    }

    #[test]
    fn the_first_match_can_be_time_zero() {
        assert_eq!(
            run(r"\[C01\] homa", true),
            "    0.000 us (+   0.000 us) [C01] homa_sendmsg b\n    0.999 us (+   0.999 us) [C01] Freezing x\n"
        );
    }
}
