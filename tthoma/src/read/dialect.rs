//! The forms in which traces come: as `.tt` text, raw from the kernel, or scattered in a kernel log.

use memchr::memmem;
use serde::{Deserialize, Serialize};

use super::line::{self, BadLine};
use super::scan::Scan;

/// How times and cores are written in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// `TIME us (+ DELTA us) [Cnn] MESSAGE`; `[NAME]` instead of a core in traces of user-level threads.
    #[default]
    Tt,
    /// `/proc/timetrace` as the kernel prints it: `cpu_khz: N`, then `CYCLES [Cnn] MESSAGE`.
    Raw,
    /// A kernel log with the lines of the raw form in it, in either order.
    Syslog,
}

/// What a machine's counter read at time 0 of a trace, and its rate: what the first line of a `.tt` file says, and the raw
/// form by its entries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counter {
    /// The reading.
    pub cycles: u64,
    /// Rate, 10^9 a second.
    pub ghz: f64,
}

impl Counter {
    const FIRST: &str = "First event has timestamp ";

    /// Of the message of a first line.
    pub(crate) fn of(message: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok()?;
        let (cycles, ghz) = text[text.find(Self::FIRST)? + Self::FIRST.len()..].split_once(" (cpu_ghz ")?;
        let counter = Self { cycles: cycles.parse().ok()?, ghz: ghz.split(')').next()?.parse().ok()? };
        (counter.ghz > 0.0).then_some(counter)
    }

    /// Time in ns of a reading.
    #[inline]
    fn time(self, cycles: u64) -> f64 {
        (cycles.wrapping_sub(self.cycles) as i64 as f64 / self.ghz).round()
    }

    /// The reading at a time in ns.
    pub(crate) fn at(self, time: i64) -> u64 {
        self.cycles.wrapping_add_signed((time as f64 * self.ghz).round() as i64)
    }

    /// Its time 0 on the clock of which another's is time 0, in ns.
    pub(crate) fn since(self, other: Self) -> i64 {
        let cycles = i128::from(self.cycles) - i128::from(other.cycles);
        (cycles as f64 / self.ghz).round() as i64
    }
}

/// What the beginning of a file tells about all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Head {
    pub(crate) dialect: Dialect,
    /// Of [`Dialect::Tt`] only if told, of others always.
    pub(crate) counter: Option<Counter>,
}

impl Head {
    /// Looks at the beginning of a trace, or at all of it.
    pub(crate) fn of(text: &[u8]) -> Self {
        let none = Self::default();
        let first = text.split(|b| *b == b'\n').next().unwrap_or_default();
        let dialect = match first.strip_prefix(b"cpu_khz: ") {
            Some(_) => Dialect::Raw,
            None if memmem::find(text, b" us (+").is_some() => return Self { counter: Counter::of(first), ..none },
            None => Dialect::Syslog,
        };
        let Some(at) = memmem::find(text, b"cpu_khz: ") else { return none };
        let mut scan = Scan(&text[at + b"cpu_khz: ".len()..]);
        let Some(khz) = number(&mut scan).filter(|khz| *khz > 0.0) else { return none };
        let told = scan.lit(b", start: ").and_then(|()| cycles(&mut scan));
        // The first entry in time: the order of a log is seen only at the end, but a smaller time 0 does no harm.
        let rest = &text[at..];
        let entries = rest.split(|b| *b == b'\n').skip(1).filter_map(entry).map(|(cycles, _, _)| cycles);
        let start = told.or_else(|| if dialect == Dialect::Raw { entries.take(1).next() } else { entries.min() });
        Self { dialect, counter: Some(Counter { cycles: start.unwrap_or(0), ghz: khz / 1e6 }) }
    }

    /// Time in ns, core and message of a line.
    #[inline]
    pub(crate) fn parse<'a>(&self, text: &'a [u8]) -> Result<(i64, Core<'a>, &'a [u8]), BadLine> {
        let counter = match (self.dialect, self.counter) {
            (Dialect::Tt, _) | (_, None) => return line::parse(text),
            (_, Some(counter)) => counter,
        };
        let (cycles, core, message) = entry(text).ok_or(BadLine::NoTime)?;
        // Counters are below 2^53 for weeks; a difference is exact to the ns.
        let time = counter.time(cycles);
        if time.abs() >= line::MAX_TIME { Err(BadLine::NoTime) } else { Ok((time as i64, Core::Number(core), message)) }
    }
}

/// Where an event was logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core<'a> {
    /// A core.
    Number(u16),
    /// A thread, in traces of user-level programs.
    Thread(&'a [u8]),
}

/// `CYCLES [Cnn] MESSAGE`, after anything.
fn entry(text: &[u8]) -> Option<(u64, u16, &[u8])> {
    let mut from = 0;
    while let Some(found) = memmem::find(&text[from..], b" [C") {
        let at = from + found;
        let mut scan = Scan(&text[at + 3..]);
        let digits = text[..at].iter().rev().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
        if let Some(core) = line::core(&mut scan)
            && let Some(cycles) = cycles(&mut Scan(&text[at - digits..at]))
        {
            return Some((cycles, core, scan.0));
        }
        from = at + 3;
    }
    None
}

fn cycles(scan: &mut Scan<'_>) -> Option<u64> {
    let digits = scan.0.iter().take_while(|b| b.is_ascii_digit()).count();
    let text = std::str::from_utf8(&scan.0[..digits]).ok()?;
    scan.0 = &scan.0[digits..];
    text.parse().ok()
}

fn number(scan: &mut Scan<'_>) -> Option<f64> {
    let digits = scan.0.iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
    let text = std::str::from_utf8(&scan.0[..digits]).ok()?;
    scan.0 = &scan.0[digits..];
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_tells_the_raw_form() {
        let text = b"cpu_khz: 2400000\n8213442210111 [C05] a\n8213442212400 [C120] b [C07] c\n";
        let head = Head::of(text);
        assert_eq!(
            head,
            Head { dialect: Dialect::Raw, counter: Some(Counter { cycles: 8_213_442_210_111, ghz: 2.4 }) }
        );
        assert_eq!(head.counter.map(|counter| counter.at(954)), Some(8_213_442_212_401));
        let line = |text: &'static str| head.parse(text.as_bytes());
        assert_eq!(line("8213442210111 [C05] a"), Ok((0, Core::Number(5), &b"a"[..])));
        assert_eq!(line("8213442212400 [C120] b [C07] c"), Ok((954, Core::Number(120), &b"b [C07] c"[..])));
        assert_eq!(line("8213442210087 [C05] a").unwrap().0, -10);
        assert_eq!(line("[C05] a"), Err(BadLine::NoTime));
        assert_eq!(line("821344221042210111 [C05] a"), Err(BadLine::NoTime), "years later");
    }

    #[test]
    fn a_log_holds_entries_after_anything() {
        let text = b"[    5.1] usb 1-1: new\n[    6.2] cpu_khz: 1000000, start: 500\n\
                     kernel: [    6.3] 2500 [C05] b\nkernel: [    6.3] 500 [C12] a\n";
        let head = Head::of(text);
        assert_eq!(head, Head { dialect: Dialect::Syslog, counter: Some(Counter { cycles: 500, ghz: 1.0 }) });
        assert_eq!(head.parse(b"kernel: [    6.3] 2500 [C05] b"), Ok((2000, Core::Number(5), &b"b"[..])));
        // Without a start the smallest entry is time 0.
        let text = String::from_utf8_lossy(text).replace(", start: 500", "");
        assert_eq!(Head::of(text.as_bytes()).counter.map(|counter| counter.cycles), Some(500));
    }

    #[test]
    fn everything_else_is_tt() {
        for text in ["", "hello\n", "1.0 us (+ 0.0 us) [C00] cpu_khz: 5\n", "cpu_khz: x\n", "cpu_khz: 0\n"] {
            assert_eq!(Head::of(text.as_bytes()), Head::default(), "{text}");
        }
    }
}
