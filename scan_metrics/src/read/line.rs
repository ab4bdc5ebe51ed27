//! Lines `NAME VALUE DESCRIPTION`, and an account of every line that is none.

use serde::Serialize;

/// One counter's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The counter.
    pub name: &'a str,
    /// Its value.
    pub value: u64,
    /// What it means; may be empty.
    pub text: &'a str,
}

/// Why a line is no counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BadLine {
    /// No number follows the name.
    NoValue,
    /// The number does not fit in 64 bits.
    TooLarge,
    /// The counter stands before the first `core` line, where only the clock may.
    NoCore,
    /// The same core has the counter already; the first value stays.
    Twice,
}

impl BadLine {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::NoValue, Self::TooLarge, Self::NoCore, Self::Twice];

    /// The reason in words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoValue => "no number after the name",
            Self::TooLarge => "a number over 64 bits",
            Self::NoCore => "a counter before the first core",
            Self::Twice => "a counter that stands twice",
        }
    }
}

/// How many lines of a file are no counters, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    counts: [u64; BadLine::ALL.len()],
    /// Number (from 1) and text of the first such line.
    pub first: Option<(usize, String)>,
}

impl Problems {
    /// Counts line `number`.
    pub(crate) fn add(&mut self, reason: BadLine, number: usize, line: &str) {
        self.counts[reason as usize] += 1;
        if self.first.is_none() {
            self.first = Some((number, line.chars().take(60).collect()));
        }
    }

    /// Adds those of another look at the same file.
    pub(crate) fn merge(&mut self, other: Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.first = self.first.take().or(other.first);
    }

    /// Lines with this reason.
    pub fn count(&self, reason: BadLine) -> u64 {
        self.counts[reason as usize]
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Splits a line. In the older layout a long name can touch its value, which then begins at the name's first digit.
pub(crate) fn parse(line: &str) -> Result<Line<'_>, BadLine> {
    let line = line.trim_ascii();
    let end = line.find(|c: char| c.is_ascii_whitespace()).unwrap_or(line.len());
    let (name, rest) = (&line[..end], line[end..].trim_ascii_start());
    if let Some((value, text)) = number(rest)? {
        return Ok(Line { name, value, text });
    }
    let digits = name.find(|c: char| c.is_ascii_digit()).filter(|&at| at > 0).ok_or(BadLine::NoValue)?;
    match number(&name[digits..])? {
        Some((value, "")) => Ok(Line { name: &name[..digits], value, text: rest }),
        _ => Err(BadLine::NoValue),
    }
}

/// A number up to a blank or the end, and what follows; `None` if there is none.
fn number(text: &str) -> Result<Option<(u64, &str)>, BadLine> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() || !(rest.is_empty() || rest.starts_with([' ', '\t'])) {
        return Ok(None);
    }
    let value = digits.parse().map_err(|_| BadLine::TooLarge)?;
    Ok(Some((value, rest.trim_ascii_start())))
}

/// Calls `take` for each counter with the core that it belongs to, `None` before the first `core` line; blank lines are
/// passed over, others that are no counters are added to `problems`.
pub fn walk<'a>(text: &'a str, problems: &mut Problems, mut take: impl FnMut(Option<u64>, Line<'a>)) {
    let mut core = None;
    for (number, raw) in text.lines().enumerate() {
        match parse(raw) {
            Ok(line) => {
                if line.name == "core" {
                    core = Some(line.value);
                }
                take(core, line);
            }
            Err(_) if raw.trim_ascii().is_empty() => {}
            Err(reason) => problems.add(reason, number + 1, raw),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_layouts_are_split() {
        let cases = [
            ("packets_sent_DATA                            5222 DATA packets sent", "packets_sent_DATA", 5222),
            ("packets_sent_DATA           5222  DATA packets sent", "packets_sent_DATA", 5222),
            ("grantable_lock_miss_cycles123456789012345  Time lost", "grantable_lock_miss_cycles", 123_456_789_012_345),
            ("msg_bytes_64\t17\tbytes", "msg_bytes_64", 17),
            ("  temp0 0", "temp0", 0),
            ("rpc_timeouts      0  RPCs aborted\r", "rpc_timeouts", 0),
        ];
        for (text, name, value) in cases {
            let line = parse(text).unwrap_or_else(|err| panic!("{text}: {err:?}"));
            assert_eq!((line.name, line.value), (name, value), "{text}");
        }
        assert_eq!(parse("grantable_lock_miss_cycles12  Time lost").unwrap().text, "Time lost");
        assert_eq!(parse("a 1 two  words").unwrap().text, "two  words");
    }

    #[test]
    fn what_is_no_counter_has_a_reason() {
        for (text, reason) in [
            ("name", BadLine::NoValue),
            ("name -5 negative", BadLine::NoValue),
            ("name 5x not a number", BadLine::NoValue),
            ("name 1.5 nor this", BadLine::NoValue),
            ("12345", BadLine::NoValue),
            ("msg_bytes_64x", BadLine::NoValue),
            ("name 18446744073709551616 one too many", BadLine::TooLarge),
        ] {
            assert_eq!(parse(text), Err(reason), "{text}");
        }
    }

    #[test]
    fn bad_lines_are_counted_and_blank_ones_are_not() {
        let (mut problems, mut seen) = (Problems::default(), Vec::new());
        walk("time_cycles 5\n\ncore 3 x\na 1\nbroken\nb -1\n", &mut problems, |core, line| {
            seen.push((core, line.name))
        });
        assert_eq!(seen, [(None, "time_cycles"), (Some(3), "core"), (Some(3), "a")]);
        assert_eq!((problems.count(BadLine::NoValue), problems.total()), (2, 2));
        assert_eq!(problems.first, Some((5, "broken".to_owned())));
    }
}
