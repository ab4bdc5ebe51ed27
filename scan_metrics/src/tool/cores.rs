//! Where each core's time went: eight cores a block.

use std::fmt::Write as _;

use super::grown::Grown;
use crate::read::Core;

const ROWS: [(&str, &str); 6] = [
    ("napi", "napi_cycles"),
    ("softirq", "linux_softirq_cycles"),
    ("send", "send_cycles"),
    ("recv", "recv_cycles"),
    ("reply", "reply_cycles"),
    ("timer", "timer_cycles"),
];

/// Cores from this share of their time on are named as busy.
const BUSY: f64 = 0.8;

/// A core's share of the interval, row by row, and in all.
fn shares(grown: &Grown, core: &Core) -> Option<(Vec<(&'static str, f64)>, f64)> {
    let ticks = grown.ticks()?;
    let mut rows: Vec<_> =
        ROWS.iter().map(|(label, name)| (*label, core.value(name).unwrap_or(0) as f64 / ticks)).collect();
    if grown.is_v24() {
        rows.push(("pacer", core.value("pacer_cycles").unwrap_or(0) as f64 / ticks));
    }
    let total = rows.iter().map(|(_, share)| share).sum();
    Some((rows, total))
}

/// The table; nothing without a clock or cores.
pub(super) fn print(grown: &Grown) -> String {
    let all: Option<Vec<_>> = grown
        .cores
        .cores
        .iter()
        .map(|core| shares(grown, core).map(|(rows, total)| (core.number, rows, total)))
        .collect();
    let Some(mut all) = all.filter(|all| !all.is_empty()) else { return String::new() };
    all.sort_by_key(|(number, ..)| *number);
    let mut out = String::from("\nPer-Core CPU Usage:\n-------------------\n");
    let mut add = |text: String| out += &text;
    for block in all.chunks(8) {
        let heads: String = block.iter().map(|(number, ..)| format!("  Core{number:<2}")).collect();
        add(format!("{:13}{heads}\n", ""));
        for (row, (label, _)) in block[0].1.iter().enumerate() {
            add(cells(label, block.iter().map(|(_, rows, _)| rows[row].1)));
        }
        add(cells("Total", block.iter().map(|(.., total)| *total)) + "\n");
    }
    let (busiest, _, most) = all.iter().max_by(|a, b| a.2.total_cmp(&b.2)).expect("there is one");
    writeln!(out, "Busiest core: {busiest} ({most:.2})").expect("a String takes all");
    let others = all.iter().filter(|(number, _, total)| number != busiest && *total >= BUSY);
    let others: Vec<_> = others.map(|(number, _, total)| format!("{number} ({total:.2})")).collect();
    if !others.is_empty() {
        writeln!(out, "Other busy cores: {}", others.join(", ")).expect("a String takes all");
    }
    out
}

fn cells(label: &str, values: impl Iterator<Item = f64>) -> String {
    let cells: Vec<_> = values.map(|value| format!("{value:7.2}")).collect();
    format!("{label:<13}{}\n", cells.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Snapshot;

    #[test]
    fn cores_stand_eight_a_block_and_the_busy_ones_are_named() {
        let cores: String = (0..10)
            .map(|core| {
                format!("core {core} c\nsend_cycles {} x\nrecv_cycles 100 x\n", if core >= 8 { 800 } else { core * 10 })
            })
            .collect();
        let text = format!("time_cycles 1000 c\ncpu_khz 1000 r\n{cores}");
        let got = print(&Grown::of_interval(Snapshot::parse(&text)));
        let lines: Vec<_> = got.lines().collect();
        assert_eq!(lines[3], "               Core0   Core1   Core2   Core3   Core4   Core5   Core6   Core7 ");
        assert_eq!(lines[6], "send            0.00    0.01    0.02    0.03    0.04    0.05    0.06    0.07");
        assert_eq!(lines[10], "Total           0.10    0.11    0.12    0.13    0.14    0.15    0.16    0.17");
        assert_eq!(lines[12], "               Core8   Core9 ");
        assert!(got.ends_with("Busiest core: 9 (0.90)\nOther busy cores: 8 (0.90)\n"), "{got}");
        assert!(!got.contains("pacer"));
        let old = text.replace("time_cycles", "rdtsc_cycles").replace("recv_cycles", "pacer_cycles");
        assert!(
            print(&Grown::of_interval(Snapshot::parse(&old))).contains("pacer           0.10"),
            "the older layout has a row more"
        );
        assert_eq!(print(&Grown::of_interval(Snapshot::parse("core 0 c\na 1 x\n"))), "");
    }
}
