//! The grammar of one line: `TIME us (+ DELTA us) [Cnn] MESSAGE`.

use memchr::memmem;

use super::dialect::Core;
use super::scan::Scan;

/// Why a line is not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadLine {
    /// It does not begin with a time in microseconds.
    NoTime,
    /// No core `[Cnn]` follows the time.
    NoCore,
    /// The core is neither a number below 32,768 nor the name of a thread.
    CoreNotANumber,
    /// It holds bytes that no trace holds.
    Binary,
    /// It is longer than any line of a trace.
    TooLong,
    /// It is the last line and has no line end: the file was cut while it was copied, and numbers in it may be cut too.
    CutLastLine,
}

impl BadLine {
    /// What was wrong, for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoTime => "no time: expected `TIME us (+ DELTA us) [Cnn] MESSAGE`",
            Self::NoCore => "no core: expected `[Cnn]` after the time",
            Self::CoreNotANumber => "core is neither a number nor the name of a thread",
            Self::Binary => "binary data",
            Self::TooLong => "line too long",
            Self::CutLastLine => "last line without an end: the file was cut while it was copied",
        }
    }
}

/// Time in ns, core and message of a line without its line end.
///
/// The core is the first `[Cnn] ` after the time: a message may hold another.
#[inline]
pub(crate) fn parse(line: &[u8]) -> Result<(i64, Core<'_>, &[u8]), BadLine> {
    let mut scan = Scan(line);
    scan.spaces();
    let Some(time) = micros(&mut scan).filter(|_| scan.0.starts_with(b" us ")) else {
        return Err(if is_binary(line) { BadLine::Binary } else { BadLine::NoTime });
    };
    let mut exact = scan;
    match delta_and_core(&mut exact) {
        Some(core) => {
            // User-level programs pad the bracket with spaces.
            exact.spaces();
            Ok((time, Core::Number(core), exact.0))
        }
        None => anywhere(scan.0).map(|(core, message)| (time, core, message)),
    }
}

/// Time in ns, and the rest from ` us ` on.
pub(crate) fn time(line: &[u8]) -> Option<(i64, &[u8])> {
    let mut scan = Scan(line);
    scan.spaces();
    micros(&mut scan).filter(|_| scan.0.starts_with(b" us ")).map(|time| (time, scan.0))
}

/// ` us (+ DELTA us) [Cnn] ` as all tools write it.
#[inline]
fn delta_and_core(scan: &mut Scan<'_>) -> Option<u16> {
    scan.lit(b" us (+")?;
    let end = scan.0.iter().position(|b| !matches!(b, b' ' | b'0'..=b'9' | b'.' | b'-'))?;
    // The number and the space before `us`.
    scan.0 = &scan.0[end..];
    scan.lit(b"us) [C")?;
    core(scan)
}

/// Digits and `] `, after `[C`.
#[inline]
pub(crate) fn core(scan: &mut Scan<'_>) -> Option<u16> {
    let mut value = 0u32;
    let mut digits = 0;
    while let [digit @ b'0'..=b'9', rest @ ..] = scan.0 {
        value = value * 10 + u32::from(digit - b'0');
        digits += 1;
        if digits > 5 {
            return None;
        }
        scan.0 = rest;
    }
    scan.lit(b"]")?;
    // A message may be empty, and then the space may be missing.
    if scan.lit(b" ").is_none() && !scan.0.is_empty() {
        return None;
    }
    u16::try_from(value).ok().filter(|core| digits > 0 && *core < MAX_CORES)
}

/// Cores have numbers below this; those from here on stand for threads.
pub(crate) const MAX_CORES: u16 = 1 << 15;
/// Names of threads are at most this long.
const LONGEST_NAME: usize = 16;

/// The first core wherever it is, for lines written by other tools; or the name of a thread where the core should be.
#[cold]
fn anywhere(rest: &[u8]) -> Result<(Core<'_>, &[u8]), BadLine> {
    let mut why = if is_binary(rest) { BadLine::Binary } else { BadLine::NoCore };
    let mut from = 0;
    while let Some(at) = memmem::find(&rest[from..], b"[C") {
        let mut scan = Scan(&rest[from + at + 2..]);
        if let Some(core) = core(&mut scan) {
            return Ok((Core::Number(core), scan.0));
        }
        why = if why == BadLine::NoCore { BadLine::CoreNotANumber } else { why };
        from += at + 2;
    }
    thread(rest).ok_or(why)
}

/// `(+ DELTA us) [NAME] `, the name padded outside the bracket.
fn thread(rest: &[u8]) -> Option<(Core<'_>, &[u8])> {
    let rest = &rest[memmem::find(rest, b"us) [")? + b"us) [".len()..];
    let end = rest.iter().take(LONGEST_NAME + 1).position(|b| *b == b']')?;
    let (name, message) = (&rest[..end], &rest[end + 1..]);
    let core = name.first() == Some(&b'C') && name[1..].iter().all(u8::is_ascii_digit);
    let good = !name.is_empty() && !core && name.iter().all(|b| b.is_ascii_graphic());
    let spaces = message.iter().take_while(|b| **b == b' ').count();
    good.then(|| (Core::Thread(name), &message[spaces..]))
}

/// A decimal number of microseconds, as ns. Digits beyond the third decimal are cut off.
#[inline]
fn micros(scan: &mut Scan<'_>) -> Option<i64> {
    let negative = scan.lit(b"-").is_some();
    let (mut value, mut digits) = (0i64, 0);
    while let [digit @ b'0'..=b'9', rest @ ..] = scan.0 {
        value = value * 10 + i64::from(digit - b'0');
        digits += 1;
        if digits > MAX_TIME_DIGITS {
            return None;
        }
        scan.0 = rest;
    }
    let mut decimals = 0;
    if let [b'.', rest @ ..] = scan.0 {
        scan.0 = rest;
        while let [digit @ b'0'..=b'9', rest @ ..] = scan.0 {
            if decimals < 3 {
                value = value * 10 + i64::from(digit - b'0');
                decimals += 1;
            }
            digits += 1;
            scan.0 = rest;
        }
    }
    if digits == 0 {
        return None;
    }
    for _ in decimals..3 {
        value *= 10;
    }
    Some(if negative { -value } else { value })
}

/// 115 days of microseconds. More is garbage, and sums of many such times in ns still fit an `i64`.
const MAX_TIME_DIGITS: u32 = 13;
/// The same in ns.
pub(super) const MAX_TIME: f64 = 1e16;

/// True if `line` holds control characters other than tabs, or bytes that are not ASCII.
fn is_binary(line: &[u8]) -> bool {
    line.iter().any(|b| !matches!(b, b'\t' | b' '..=b'~' | b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(line: &str) -> (i64, u16, &str) {
        let (time, core, message) = parse(line.as_bytes()).unwrap_or_else(|e| panic!("{line}: {e:?}"));
        let Core::Number(core) = core else { panic!("{line}: {core:?}") };
        (time, core, std::str::from_utf8(message).unwrap())
    }

    #[test]
    fn lines_of_all_tools_are_understood() {
        assert_eq!(ok("    0.954 us (+   0.954 us) [C05] homa_softirq starting"), (954, 5, "homa_softirq starting"));
        assert_eq!(ok("-1744.768 us (+   0.000 us) [C00] x"), (-1_744_768, 0, "x"));
        assert_eq!(ok("   -0.001 us (+   0.000 us) [C00] x").0, -1);
        assert_eq!(ok("1003331.566 us (+-  84.076 us) [C127] x"), (1_003_331_566, 127, "x"));
        assert_eq!(ok("12 us (+ 1 us) [C1] x").0, 12_000);
        assert_eq!(ok("12.5 us (+ 1 us) [C1] x").0, 12_500);
        assert_eq!(ok("12.5678 us (+ 1 us) [C1] x").0, 12_567);
        assert_eq!(ok("1.000 us whatever [C03] text"), (1000, 3, "text"));
        assert_eq!(ok("1.000 us (+   1.000 us) [C03] a [C04] b"), (1000, 3, "a [C04] b"));
        assert_eq!(ok("1.000 us (+   1.000 us) [C03]"), (1000, 3, ""));
    }

    #[test]
    fn threads_have_names() {
        let line = |text: &'static str| parse(text.as_bytes()).unwrap();
        assert_eq!(line("1.000 us (+   1.000 us) [R3.1] a b"), (1000, Core::Thread(b"R3.1"), &b"a b"[..]));
        assert_eq!(line("1.000 us (+   1.000 us) [main]  a"), (1000, Core::Thread(b"main"), &b"a"[..]));
        assert_eq!(line("1.000 us (+   1.000 us) [C0]  a"), (1000, Core::Number(0), &b"a"[..]));
    }

    #[test]
    fn bad_lines_say_why() {
        for (line, why) in [
            ("", BadLine::NoTime),
            ("cpu_khz: 2400000", BadLine::NoTime),
            ("8213442210111 [C05] homa_softirq starting", BadLine::NoTime),
            ("1.0 ms (+ 1 us) [C01] x", BadLine::NoTime),
            ("12345678901234 us (+ 1 us) [C01] x", BadLine::NoTime),
            (". us (+ 1 us) [C01] x", BadLine::NoTime),
            ("1.000 us (+   1.000 us) no core", BadLine::NoCore),
            ("1.000 us (+   1.000 us) [C70000] x", BadLine::CoreNotANumber),
            ("1.000 us (+   1.000 us) [C] x", BadLine::CoreNotANumber),
            ("1.000 us (+   1.000 us) [a name with blanks] x", BadLine::NoCore),
            ("1.000 us (+   1.000 us) [anEndlessNameOfAThread] x", BadLine::NoCore),
            ("\u{0}\u{1}\u{2}", BadLine::Binary),
        ] {
            assert_eq!(parse(line.as_bytes()), Err(why), "{line}");
        }
    }
}
