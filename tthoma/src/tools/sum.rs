//! How long before each kind of event the one before it was, and how long each kind comes after the start of a sequence.

use std::fmt::Write as _;
use std::io::{self, BufRead};

use memchr::memmem;
use rustc_hash::FxHashMap;

use super::{parts, split};

/// What [`sum`] can be told.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// Times are between events of one core.
    pub cores: bool,
    /// Events whose text contains this begin sequences.
    pub from: Option<String>,
    /// Numbers stay in the names of events.
    pub numbers: bool,
    /// With `from`: the whole distribution of the time since the start, instead of that since the event before.
    pub all: bool,
}

/// Times (ns) of one kind of event.
#[derive(Default)]
struct Times {
    delta: Vec<i64>,
    since: Vec<i64>,
}

/// A sequence under way.
struct Sequence {
    start: i64,
    /// How often each kind has occurred in it.
    seen: FxHashMap<String, u32>,
}

/// A table of all inputs' events: by default times before each event in ns, the longest median first.
///
/// # Errors
///
/// If reading fails.
pub fn sum(options: &Sum, inputs: &mut [Box<dyn BufRead>]) -> io::Result<(String, Vec<String>)> {
    let mut events: FxHashMap<String, Times> = FxHashMap::default();
    let mut warnings = Vec::new();
    for (place, input) in inputs.iter_mut().enumerate() {
        let mut last: FxHashMap<Vec<u8>, i64> = FxHashMap::default();
        let mut sequences: FxHashMap<Vec<u8>, Sequence> = FxHashMap::default();
        let (mut backwards, mut number) = (0u64, 0u64);
        for line in input.split(b'\n') {
            let line = line?;
            number += 1;
            let Some((time, rest)) = split(&line) else { continue };
            let Some((core, message)) = parts(rest) else { continue };
            let track = if options.cores { core.to_vec() } else { Vec::new() };
            let before = last.insert(track.clone(), time);
            let delta = time - before.unwrap_or(time);
            if delta < 0 {
                backwards += 1;
                if backwards == 1 {
                    warnings.push(format!("input {}, line {number}: time goes backwards", place + 1));
                }
            }
            let text = String::from_utf8_lossy(message).into_owned();
            let name = if options.numbers { text } else { without_numbers(&text) };
            let Some(from) = &options.from else {
                if delta != 0 {
                    events.entry(name).or_default().delta.push(delta);
                }
                continue;
            };
            let begins = memmem::find(rest, from.as_bytes()).is_some();
            if begins {
                sequences.insert(track.clone(), Sequence { start: time, seen: FxHashMap::default() });
            }
            let Some(sequence) = sequences.get_mut(&track) else { continue };
            let seen = sequence.seen.entry(name.clone()).or_default();
            *seen += 1;
            let name = if *seen > 1 { format!("{name} (#{seen})") } else { name };
            let times = events.entry(name).or_default();
            times.since.push(time - sequence.start);
            times.delta.push(delta);
        }
    }
    Ok((table(options, events), warnings))
}

/// `0x12` and `12.5` as `?`, where they are words.
fn without_numbers(text: &str) -> String {
    let bytes = text.as_bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let starts = bytes[at].is_ascii_digit() && (at == 0 || !word(bytes[at - 1]));
        let hex = text[at..].starts_with("0x");
        let digit = |b: &u8| if hex { b.is_ascii_hexdigit() } else { b.is_ascii_digit() || *b == b'.' };
        let from = at + if hex { 2 } else { 0 };
        let mut end = from + bytes[from.min(bytes.len())..].iter().take_while(|b| digit(b)).count();
        // A point at the end is none of a number.
        while end > from && bytes[end - 1] == b'.' {
            end -= 1;
        }
        if starts && end > at && bytes.get(end).is_none_or(|b| !word(*b)) {
            out.push('?');
            at = end;
        } else {
            let c = text[at..].chars().next().unwrap_or(' ');
            out.push(c);
            at += c.len_utf8();
        }
    }
    out
}

/// Median, smallest, largest, mean.
fn figures(sorted: &[i64]) -> [i64; 4] {
    let sum: i128 = sorted.iter().map(|v| i128::from(*v)).sum();
    match sorted {
        [] => [0; 4],
        [first, .., last] => [sorted[sorted.len() / 2], *first, *last, (sum / sorted.len() as i128) as i64],
        [one] => [*one; 4],
    }
}

fn table(options: &Sum, events: FxHashMap<String, Times>) -> String {
    let mut rows: Vec<(String, usize, [i64; 4], [i64; 4])> = events
        .into_iter()
        .map(|(name, mut times)| {
            times.delta.sort_unstable();
            times.since.sort_unstable();
            (name, times.delta.len(), figures(&times.delta), figures(&times.since))
        })
        .collect();
    let width = rows.iter().map(|r| r.0.chars().count()).max().unwrap_or(0).max(5);
    let mut out = String::new();
    if options.from.is_none() {
        rows.sort_by(|x, y| y.2[0].cmp(&x.2[0]).then_with(|| x.0.cmp(&y.0)));
        let _ = writeln!(out, "Times in ns, since the event before:");
        let _ =
            writeln!(out, "{:<width$} {:>8} {:>8} {:>8} {:>8} {:>8}", "Event", "Median", "Min", "Max", "Avg", "Count");
        for (name, count, [median, min, max, avg], _) in rows {
            let _ = writeln!(out, "{name:<width$} {median:>8} {min:>8} {max:>8} {avg:>8} {count:>8}");
        }
        return out;
    }
    rows.sort_by(|x, y| x.3[0].cmp(&y.3[0]).then_with(|| x.0.cmp(&y.0)));
    let title = if options.all { "----------Since the start----------" } else { "---------Since the event before----" };
    let single = if options.all { "Delta" } else { "Cum." };
    let _ = writeln!(out, "Times in ns:\n{:<width$} {single:>8} {title}", "");
    let _ = writeln!(
        out,
        "{:<width$} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "Event", "Median", "Median", "Min", "Max", "Avg", "Count"
    );
    for (name, count, delta, since) in rows {
        let ([median, min, max, avg], one) = if options.all { (since, delta[0]) } else { (delta, since[0]) };
        let _ = writeln!(out, "{name:<width$} {one:>8} {median:>8} {min:>8} {max:>8} {avg:>8} {count:>8}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "    0.000 us (+   0.000 us) [C00] start 1\n    0.400 us (+   0.400 us) [C01] step 5, size 0x1f\n\
                         0.500 us (+   0.100 us) [C00] step 6, size 0x2f\n    1.000 us (+   0.500 us) [C00] start 2\n    \
                         1.100 us (+   0.100 us) [C00] step 7, size 0xab\n    1.100 us (+   0.000 us) [C00] same\n";

    fn run(options: &Sum) -> Vec<String> {
        let (text, warnings) = sum(options, &mut [Box::new(TRACE.as_bytes())]).unwrap();
        assert!(warnings.is_empty());
        text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn numbers_are_left_out_where_they_are_words() {
        for (text, expected) in [
            ("id 5, peer 0xa4d0001:40", "id ?, peer ?:?"),
            ("mlx5e_poll gen3 C05", "mlx5e_poll gen3 C05"),
            ("took 1.5 us. In 3.", "took ? us. In ?."),
            ("ärger 7", "ärger ?"),
        ] {
            assert_eq!(without_numbers(text), expected);
        }
    }

    #[test]
    fn times_before_each_kind_are_summed_up() {
        let lines = run(&Sum::default());
        assert_eq!(lines[2..], ["start ? 500 500 500 500 1", "step ?, size ? 100 100 400 200 3"]);
        let by_core = run(&Sum { cores: true, ..Sum::default() });
        assert_eq!(by_core[3], "step ?, size ? 500 100 500 300 2");
    }

    #[test]
    fn sequences_have_times_since_their_start() {
        let lines = run(&Sum { from: Some("start".into()), ..Sum::default() });
        assert_eq!(
            lines[3..],
            [
                "start ? 0 500 0 500 250 2",
                "same 100 0 0 0 0 1",
                "step ?, size ? 400 400 100 400 250 2",
                "step ?, size ? (#2) 500 100 100 100 100 1"
            ]
        );
        let all = run(&Sum { from: Some("start".into()), all: true, cores: true, ..Sum::default() });
        assert_eq!(all[5], "step ?, size ? 500 500 100 500 300 2");
    }
}
