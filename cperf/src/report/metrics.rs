//! Differences of metrics files, in the same text format. Source: cperf.md 4.1.

/// One line `NAME VALUE DESCRIPTION`.
struct Counter<'a> {
    name: &'a str,
    value: u64,
    description: &'a str,
}

/// Splits a line; `None` if it is not a counter.
fn counter(line: &str) -> Option<Counter<'_>> {
    let (name, rest) = line.trim_start().split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    Some(Counter { name, value: rest[..end].parse().ok()?, description: rest[end..].trim() })
}

/// Names that describe the machine or the place in the file: the same before and after, not something that grew.
fn is_label(name: &str) -> bool {
    matches!(name, "core" | "cpu_khz")
}

/// What grew between two snapshots: the lines of `after`, each with the value of the same counter of the same core in
/// `before` taken off. Counters that `before` lacks count from zero; one that shrank (its owner was restarted) is
/// shown as it is after. Lines that are no counters are dropped.
pub fn difference(before: &str, after: &str) -> String {
    let mut earlier = rustc_hash::FxHashMap::default();
    for_each(before, |core, counter| {
        earlier.insert((core, counter.name.to_owned()), counter.value);
    });
    let mut text = String::with_capacity(after.len());
    for_each(after, |core, Counter { name, value, description }| {
        let base = if is_label(name) { 0 } else { earlier.get(&(core, name.to_owned())).copied().unwrap_or(0) };
        let grown = value.checked_sub(base).unwrap_or(value);
        text += &format!("{name:<30} {grown:>20} {description}\n");
    });
    text
}

/// Calls `take` for each counter with the core that it belongs to; `None` before the first `core` line.
fn for_each<'a>(text: &'a str, mut take: impl FnMut(Option<u64>, Counter<'a>)) {
    let mut core = None;
    for counter in text.lines().filter_map(counter) {
        if counter.name == "core" {
            core = Some(counter.value);
        }
        take(core, counter);
    }
}

/// Sum of a counter over all cores; `None` if the file does not have it.
pub fn total(text: &str, name: &str) -> Option<u64> {
    let mut sum = None;
    for_each(text, |_, counter| {
        if counter.name == name {
            sum = Some(sum.unwrap_or(0u64).saturating_add(counter.value));
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
