//! Reads `.rtts` files: one RPC a line, its message length and its round-trip time. Source: cperf.md 1.8.

use std::io::{self, BufRead};

/// What was found besides samples. Bad lines are counted and the first few located; they are never fatal, as a file
/// cut off while it was written is still worth reading.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ImportStats {
    /// Lines that are samples.
    pub samples: u64,
    /// Lines that are neither sample, comment nor blank.
    pub bad_lines: u64,
    /// `line N: what is there`, for the first [`LOCATED`] of them.
    pub first_bad: Vec<String>,
}

/// How many bad lines are located.
pub const LOCATED: usize = 5;

/// One sample: message length in bytes, time in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Length of the response.
    pub length: u32,
    /// Round-trip time, in the file's resolution of 10 ns.
    pub rtt_ns: u64,
}

/// Reads all of `from`, giving each sample to `take` in file order.
///
/// # Errors
/// Only those of `from` itself.
pub fn read(mut from: impl BufRead, mut take: impl FnMut(Sample)) -> io::Result<ImportStats> {
    let mut stats = ImportStats::default();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let text = line.trim_ascii();
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        // A last line without an end may be a number cut short: 1234.56 read as 12 would look like a fast RPC.
        match parse(text).filter(|_| line.ends_with(b"\n")) {
            Some(sample) => {
                stats.samples += 1;
                take(sample);
            }
            None => {
                stats.bad_lines += 1;
                if stats.first_bad.len() < LOCATED {
                    let shown = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
                    stats.first_bad.push(format!("line {number}: `{shown}`"));
                }
            }
        }
    }
    Ok(stats)
}

/// `LENGTH RTT_US`, exactly two columns. Times are read as decimals, without rounding through floating point.
fn parse(text: &[u8]) -> Option<Sample> {
    let text = std::str::from_utf8(text).ok()?;
    let mut columns = text.split_ascii_whitespace();
    let (length, time, None) = (columns.next()?, columns.next()?, columns.next()) else { return None };
    let (whole, part) = time.split_once('.').unwrap_or((time, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(length) || !digits(whole) || !digits(part) || part.len() > 3 {
        return None; // a sign would pass `parse`
    }
    let nanos = format!("{part:0<3}").parse::<u64>().ok()?;
    let rtt_ns = whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(nanos)?;
    Some(Sample { length: length.parse().ok()?, rtt_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(text: &str) -> (Vec<(u32, u64)>, ImportStats) {
        let mut found = Vec::new();
        let stats = read(text.as_bytes(), |sample| found.push((sample.length, sample.rtt_ns))).unwrap();
        (found, stats)
    }

    #[test]
    fn samples_are_read_to_the_nanosecond() {
        let text = "# Round-trip times\n# Length   RTT (usec)\n     100        12.34\n 1000000   1234567.89\n 5 7\n";
        let (found, stats) = samples(text);
        assert_eq!(found, [(100, 12_340), (1_000_000, 1_234_567_890), (5, 7_000)]);
        assert_eq!(stats, ImportStats { samples: 3, ..ImportStats::default() });
    }

    #[test]
    fn bad_lines_are_counted_and_located() {
        let text = "100 12.34\nhello\n100\n100 1.2 3\n-5 1.00\n100 nan\n100 -1.0\n\n100 1.00\n";
        let (found, stats) = samples(text);
        assert_eq!(found.len(), 2);
        assert_eq!((stats.samples, stats.bad_lines), (2, 6));
        assert_eq!(stats.first_bad.len(), LOCATED);
        assert_eq!(stats.first_bad[0], "line 2: `hello`");
        assert_eq!(stats.first_bad[3], "line 5: `-5 1.00`");
    }

    #[test]
    fn a_cut_last_line_is_not_believed() {
        let (found, stats) = samples("100 12.34\n100 1234");
        assert_eq!((found.len(), stats.bad_lines), (1, 1));
    }

    #[test]
    fn any_bytes_are_survived() {
        let bytes: Vec<u8> = (0..=255).cycle().take(4096).collect();
        let stats = read(&bytes[..], |_| {}).unwrap();
        assert!(stats.bad_lines > 0);
    }
}
