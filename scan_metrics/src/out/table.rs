//! The ranked table for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::scan::Scan;
use crate::scan::control::RATE;
use crate::scan::finding::{Finding, Level};

/// Findings of one node that are shown, if not all are asked for.
const LINES: usize = 10;
/// Width of texts under a finding.
const WIDTH: usize = 112;

/// Findings of `level` and above, worst first; at most ten a node unless `all`.
pub fn table(scan: &Scan, level: Level, all: bool) -> String {
    let mut out = String::new();
    let mut add = |text: String| out += &text;
    let runs = if scan.runs.len() == 1 { String::new() } else { format!(" of {} runs", scan.runs.len()) };
    add(format!("{} nodes' metrics{runs}, {} comparisons\n", scan.nodes, scan.comparisons));
    for (reason, (count, first)) in &scan.unused {
        add(format!("not used: {count} {} ({reason}): {first}\n", if *count == 1 { "file" } else { "files" }));
    }
    for (reason, count) in &scan.bad_lines {
        add(format!("lines left out: {count} ({reason})\n"));
    }
    let (mut shown, mut hidden, mut per_node) = (Vec::new(), 0, BTreeMap::new());
    for finding in scan.findings.iter().filter(|finding| finding.level >= level) {
        let lines = per_node.entry((&finding.run, finding.node)).or_insert(0);
        *lines += 1;
        if all || *lines <= LINES { shown.push(finding) } else { hidden += 1 }
    }
    if shown.is_empty() {
        add(format!("nothing odd at level {} or above\n", level.name()));
    } else {
        add(format!(
            "\n{:>4}  {:<5}  {:<5}  {:<14}  {:>7}  {:>8}  {}\n",
            "rank", "level", "tests", "where", "z", "x usual", "what"
        ));
    }
    for (rank, finding) in (1..).zip(&shown) {
        add(entry(rank, finding, scan.runs.len() > 1));
    }
    if hidden > 0 {
        add(format!("\n{hidden} more findings of the same nodes: --all shows them\n"));
    }
    let info = scan.findings.iter().filter(|finding| finding.level < level).count();
    if info > 0 {
        add(format!("\n{info} findings below level {}: --level info shows them\n", level.name()));
    }
    if !scan.suspects.is_empty() {
        add("\nSuspects (a fatal finding, or two tests in different classes):\n".to_owned());
        for (run, node, count) in &scan.suspects {
            let run = if scan.runs.len() > 1 { format!(" of {run}") } else { String::new() };
            add(format!("  node{node}{run}: {count} {}\n", if *count == 1 { "finding" } else { "findings" }));
        }
    }
    if !scan.not_run.is_empty() {
        add("\nTests not run:\n".to_owned());
    }
    for (test, why) in &scan.not_run {
        add(format!("  {} ({}): {why}\n", test.text().0, test.text().1));
    }
    add(format!(
        "\nz: robust standard deviations. Findings with one remain when false alarms are held at {:.0} % over all comparisons.\n",
        100.0 * RATE
    ));
    out
}

/// A finding: a line, and under it why and what next.
fn entry(rank: usize, finding: &Finding, runs: bool) -> String {
    let z = finding.z.map(|z| format!("{z:+.1}")).unwrap_or_default();
    let ratio = finding.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    let mut out = format!(
        "{rank:>4}  {:<5}  {:<5}  {:<14}  {z:>7}  {ratio:>8}  {}\n",
        finding.level.name(),
        finding.letters(),
        finding.who(),
        finding.what
    );
    let place = match (runs, finding.run.is_empty(), finding.experiment.is_empty()) {
        (true, false, false) => format!("{}, {}", finding.run, finding.experiment),
        (true, false, true) => finding.run.clone(),
        (_, _, false) => finding.experiment.clone(),
        _ => String::new(),
    };
    let alarms = finding.false_alarms.map(|rate| format!("; false alarm: {rate:.0e}")).unwrap_or_default();
    let whom = if finding.whom.is_empty() { String::new() } else { format!("against {}{alarms}", finding.whom) };
    for (label, text) in [("in", place.as_str()), ("", &whom), ("cause", &finding.cause), ("next", &finding.next)] {
        if !text.is_empty() {
            writeln!(out, "{}", wrapped(label, text)).expect("a String takes all");
        }
    }
    out
}

/// A text under a finding, indented, with its label, in lines of up to [`WIDTH`].
fn wrapped(label: &str, text: &str) -> String {
    let indent = " ".repeat(13);
    let mut out = format!("{indent}{}", if label.is_empty() { String::new() } else { format!("{label}: ") });
    let mut used = out.len();
    for (at, word) in text.split(' ').enumerate() {
        if at > 0 && used + 1 + word.len() > WIDTH {
            write!(out, "\n{indent}  {word}").expect("a String takes all");
            used = indent.len() + 2 + word.len();
        } else {
            let gap = if at > 0 { " " } else { "" };
            write!(out, "{gap}{word}").expect("a String takes all");
            used += gap.len() + word.len();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_broken_between_words() {
        let text = wrapped("cause", &"word ".repeat(60));
        assert!(text.lines().count() > 2);
        assert!(text.lines().all(|line| line.len() <= WIDTH && line.starts_with("             ")), "{text}");
        assert_eq!(wrapped("", "short"), "             short");
    }
}
