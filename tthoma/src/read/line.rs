//! The grammar of one line: `TIME us (+ DELTA us) [Cnn] MESSAGE`.

use memchr::memmem;

use super::dialect::Core;
use super::scan::{Scan, eight_times, equal, first_digits, first_equal, no_digits, number};

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

/// As [`parse`], of a line in exactly the form that all tools write: time, core, and where the message begins; `None` for all
/// others. Other lines may follow it in `text`.
///
/// What varies is the number of the time's digits. The point tells it; all else is then at a known place, and is looked at
/// eight bytes at a time.
#[inline]
pub(crate) fn exact(text: &[u8]) -> Option<(i64, u16, usize)> {
    let fixed: &[u8; 48] = text.first_chunk()?;
    let eight = |at: usize| fixed.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let point = 5 + first_equal(eight(5), b'.')?;
    // Eight digits before the point, or fewer with spaces before them; and up to four more.
    let (mut whole, mut more) = (eight(point.saturating_sub(8)), 0);
    if point < 8 {
        let cut = 8 * (8 - point);
        whole = whole << cut | eight_times(b' ') & !(u64::MAX << cut);
    } else if point > 8 {
        more = i64::from(first_digits(eight(0), point - 8)?) * 100_000_000;
    }
    let others = (no_digits(whole ^ eight_times(b'0')) >> 7) * 0xff;
    let good = others & others.wrapping_add(1) == 0
        && whole & others == eight_times(b' ') & others
        && others != u64::MAX
        && (point <= 8 || others == 0);
    let decimals = first_digits(eight(point + 1), 3)?;
    let written = eight(point + 1) >> 24 == u64::from_le_bytes(*b" us (\0\0\0")
        && fixed[point + 9] == b'+'
        && is_number(eight(point + 10))
        && eight(point + 18) << 8 == u64::from_le_bytes(*b"\0 us) [C")
        && fixed[point + 27..point + 29] == *b"] ";
    let core = [fixed[point + 25], fixed[point + 26]].map(|b| b.wrapping_sub(b'0'));
    if !good || !written || core[0] > 9 || core[1] > 9 {
        return None;
    }
    let time = (more + i64::from(number(whole & eight_times(0x0f)))) * 1000 + i64::from(decimals);
    let begin = point + 29;
    let padding = text[begin..].iter().take_while(|b| **b == b' ').count();
    Some((time, u16::from(10 * core[0] + core[1]), begin + padding))
}

/// True if eight bytes are what a padded number is made of.
#[inline]
fn is_number(eight: u64) -> bool {
    let others = [b' ', b'.', b'-'].into_iter().map(|byte| equal(eight, byte)).fold(0, |all, one| all | one);
    no_digits(eight ^ eight_times(b'0')) & !others == 0
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

    /// All widths of times, and lines that are not quite as all tools write them.
    #[test]
    fn lines_in_the_exact_form_are_what_they_are_step_by_step() {
        let times =
            ["0.000", "1.5", "99999.999", "-1.000", "100000.001", "12345678.901", "123456789.012", "123456789012.345"];
        let mut exactly = 0;
        for time in times {
            for delta in ["   0.000", "9999.999", "-  1.000", "10000.000", "   0.0x0", "  [C01] "] {
                for rest in ["[C05] a b", "[C05]  a", "[C5] a", "[C105] a", "[R1.1] a", "[C05]", "[C05] "] {
                    let line = format!("{time:>9} us (+{delta} us) {rest}");
                    // What follows must not matter.
                    let text = format!("{line}\n{line}\n");
                    let step = parse(line.as_bytes());
                    let Some((time, core, begin)) = exact(text.as_bytes()) else { continue };
                    exactly += 1;
                    assert_eq!(step, Ok((time, Core::Number(core), &line.as_bytes()[begin..])), "{line}");
                }
            }
        }
        assert_eq!(exactly, 6 * 3 * 3);
    }

    proptest::proptest! {
        #[test]
        fn changed_lines_are_what_they_are_step_by_step(
            whole in 0..2_000_000_000u64,
            changes in proptest::collection::vec((0..50usize, proptest::num::u8::ANY), 0..4),
        ) {
            let line = format!("{:9.3} us (+{:8.3} us) [C07] incoming data", whole as f64 / 1000.0, 0.25);
            let mut text = line.into_bytes();
            for (at, byte) in changes {
                let length = text.len();
                text[at % length] = byte;
            }
            text.push(b'\n');
            let length = memchr::memchr(b'\n', &text).unwrap_or(0);
            text.extend([b'7'; 60]);
            if let Some((time, core, begin)) = exact(&text) {
                proptest::prop_assert_eq!(parse(&text[..length]), Ok((time, Core::Number(core), &text[begin..length])));
            }
        }
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
