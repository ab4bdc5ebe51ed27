//! Differences of two raw files, in the order of the second: of each core, or of all cores together.

use std::fmt::Write as _;

use crate::read::Snapshot;

/// Lines `NAME DIFFERENCE DESCRIPTION` of what changed; negative if a counter is smaller in the second file. With
/// `per_core` each core's counters stand under its number; a core that only one file has is named.
pub fn print(one: &Snapshot, two: &Snapshot, per_core: bool) -> String {
    let mut out = String::new();
    let mut line = |name: &str, from: Option<u64>, to: Option<u64>, text: &str| {
        let change = i128::from(to.unwrap_or(0)) - i128::from(from.unwrap_or(0));
        let only = match (from, to) {
            (None, Some(_)) => " (only in the second file)",
            (Some(_), None) => " (only in the first file)",
            _ => "",
        };
        if change != 0 || !only.is_empty() {
            writeln!(out, "{name:<30} {change:>20} {text}{only}").expect("a String takes all");
        }
    };
    line("time_cycles", one.ticks, two.ticks, &two.clock_text);
    line("cpu_khz", one.khz, two.khz, "Clock rate in kHz");
    if !per_core {
        let (first, second) = (one.names(), two.names());
        let gone = first.iter().filter(|(name, _)| second.iter().all(|(other, _)| other != name));
        for (name, text) in second.iter().chain(gone) {
            line(name, one.total(name), two.total(name), text);
        }
        return out;
    }
    let gone = one.cores.iter().filter(|core| two.core(core.number).is_none());
    for core in two.cores.iter().chain(gone) {
        let (first, second) = (one.core(core.number), two.core(core.number));
        let value = |of: Option<&crate::read::Core>, name: &str| of.and_then(|core| core.value(name));
        let mut lines = String::new();
        let names = core.counters.iter();
        let lost = first.into_iter().flat_map(|first| &first.counters).filter(|c| core.value(&c.name).is_none());
        for counter in names.chain(lost) {
            let (from, to) = (value(first, &counter.name), value(second, &counter.name));
            let change = i128::from(to.unwrap_or(0)) - i128::from(from.unwrap_or(0));
            if change != 0 || (first.is_some() && second.is_some() && from.is_some() != to.is_some()) {
                writeln!(lines, "{:<30} {change:>20} {}", counter.name, counter.text).expect("a String takes all");
            }
        }
        let only = match (first, second) {
            (None, _) => " (only in the second file)",
            (_, None) => " (only in the first file)",
            _ => "",
        };
        if !lines.is_empty() || !only.is_empty() {
            write!(out, "core {}{only}\n{lines}", core.number).expect("a String takes all");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "time_cycles 100 now\ncpu_khz 7 r\ncore 0 c\na 5 first\nb 2 second\ncore 1 c\na 1 first\nb 9 second\n\
                       core 2 c\na 4 first\n";
    const TWO: &str = "time_cycles 150 now\ncpu_khz 7 r\ncore 0 c\na 9 first\nb 2 second\ncore 1 c\na 1 first\nb 3 second\n\
                       core 3 c\na 1 first\nnew 0 third\n";

    fn words(text: &str) -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn totals_are_over_all_cores_and_not_of_the_last() {
        let got = print(&Snapshot::parse(ONE), &Snapshot::parse(TWO), false);
        let want = ["time_cycles 50 now", "a 1 first", "b -6 second", "new 0 third (only in the second file)"];
        assert_eq!(words(&got), want);
    }

    #[test]
    fn cores_are_compared_by_number() {
        let got = print(&Snapshot::parse(ONE), &Snapshot::parse(TWO), true);
        let want = [
            "time_cycles 50 now",
            "core 0",
            "a 4 first",
            "core 1",
            "b -6 second",
            "core 3 (only in the second file)",
            "a 1 first",
            "core 2 (only in the first file)",
            "a -4 first",
        ];
        assert_eq!(words(&got), want);
        assert_eq!(print(&Snapshot::parse(ONE), &Snapshot::parse(ONE), true), "");
    }
}
