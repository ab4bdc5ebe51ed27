//! Differences of raw metrics as text in the same format: what a run keeps of each node.

use std::fmt::Write as _;

use rustc_hash::FxHashMap;

use super::is_label;
use super::line::{Line, Problems, walk};

/// What grew between two snapshots: the lines of `after`, each with the value of the same counter of the same core in
/// `before` taken off. Counters that `before` lacks count from zero; one that shrank (its owner was restarted) is
/// shown as it is after. Lines that are no counters are dropped.
pub fn difference(before: &str, after: &str) -> String {
    let (mut earlier, mut ignored) = (FxHashMap::default(), Problems::default());
    walk(before, &mut ignored, |core, line| {
        earlier.insert((core, line.name), line.value);
    });
    let mut out = String::with_capacity(after.len());
    walk(after, &mut ignored, |core, Line { name, value, text }| {
        let base = if is_label(name) { 0 } else { earlier.get(&(core, name)).copied().unwrap_or(0) };
        let grown = value.checked_sub(base).unwrap_or(value);
        writeln!(out, "{name:<30} {grown:>20} {text}").expect("a String takes all");
    });
    out
}

/// Sum of a counter over all cores; `None` if the text does not have it.
pub fn total(text: &str, name: &str) -> Option<u64> {
    let mut sum = None;
    walk(text, &mut Problems::default(), |_, line| {
        if line.name == name {
            sum = Some(sum.unwrap_or(0u64).saturating_add(line.value));
        }
    });
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "time_cycles 1000 clock\ncpu_khz 2000000 rate\ncore 0 Core\npackets_sent_DATA 5 sent\n\
                          core 1 Core\npackets_sent_DATA 7 sent\n";
    const AFTER: &str = "time_cycles 1500 clock\ncpu_khz 2000000 rate\ncore 0 Core\npackets_sent_DATA 9 sent data\n\
                         core 1 Core\npackets_sent_DATA 8 sent\nresent_packets 3 new\nnonsense line\n";

    #[test]
    fn counters_are_compared_core_by_core() {
        let text = difference(BEFORE, AFTER);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>()).collect();
        let want = [
            ["time_cycles", "500"],
            ["cpu_khz", "2000000"],
            ["core", "0"],
            ["packets_sent_DATA", "4"],
            ["core", "1"],
            ["packets_sent_DATA", "1"],
            ["resent_packets", "3"],
        ];
        assert_eq!(lines, want);
        assert!(text.contains("sent data"), "descriptions stay");
    }

    #[test]
    fn totals_are_over_cores() {
        assert_eq!(total(AFTER, "packets_sent_DATA"), Some(17));
        assert_eq!(total(AFTER, "no_such"), None);
        assert_eq!(total(&difference(AFTER, AFTER), "packets_sent_DATA"), Some(0));
    }

    #[test]
    fn a_counter_that_shrank_is_shown_as_it_is() {
        assert_eq!(total(&difference("core 0 x\na 9 y\n", "core 0 x\na 4 y\n"), "a"), Some(4));
    }
}
