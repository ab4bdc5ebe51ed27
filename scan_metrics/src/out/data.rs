//! The simple form that the originals' runs end with: three numbers of each node, and which stand out. Columns for scripts, as
//! in `reports/*.data`.
//!
//! A number stands out from its threshold on if it is also more than 1.5 times the upper median of all nodes. It knows
//! nothing of load, cores and chance: [`crate::scan`] does. Source: cperf.md 4.4.

use std::fmt::Write as _;

use crate::read::Snapshot;
use crate::tool::Grown;

/// Names of the numbers, and from where on each may stand out: cores, packets a second.
const NUMBERS: [(&str, f64); 3] = [("cores", 2.0), ("resends_sent", 5.0), ("resends_rcvd", 5.0)];
/// How much more than the median.
const MORE: f64 = 1.5;

/// Three numbers of each node of an experiment: cores that Homa used without waiting, RESEND packets sent a second, and
/// received. `nodes`: number of the node and the text of its metrics over the interval. Nodes whose metrics have no
/// clock are left out.
pub fn data<'a>(experiment: &str, nodes: impl IntoIterator<Item = (u64, &'a str)>) -> String {
    let numbers = |(node, text)| {
        let grown = Grown::of_interval(Snapshot::parse(text));
        let seconds = grown.seconds()?;
        let rate = |name: &str| grown.or_zero(name) / seconds;
        Some((node, [grown.total_cores(), rate("packets_sent_RESEND"), rate("packets_rcvd_RESEND")]))
    };
    let all: Vec<(u64, [f64; 3])> = nodes.into_iter().filter_map(numbers).collect();
    let medians: [f64; 3] = std::array::from_fn(|at| upper_median(all.iter().map(|(_, numbers)| numbers[at])));
    let mut out = format!("# {experiment}: cores that Homa used without waiting, RESEND packets a second\n");
    for (at, (name, threshold)) in NUMBERS.iter().enumerate() {
        let median = medians[at];
        writeln!(out, "# {name}: median {median:.3}").expect("a String takes all");
        for (node, numbers) in all.iter().filter(|(_, of)| of[at] >= *threshold && of[at] > MORE * median) {
            let value = numbers[at];
            writeln!(out, "# outlier: node{node} {name} {value:.3} (median {median:.3})").expect("a String takes all");
        }
    }
    writeln!(out, "# node {:>9} {:>13} {:>13}", NUMBERS[0].0, NUMBERS[1].0, NUMBERS[2].0).expect("a String takes all");
    for (node, [cores, sent, received]) in &all {
        writeln!(out, "{node:>6} {cores:>9.3} {sent:>13.3} {received:>13.3}").expect("a String takes all");
    }
    out
}

/// Of an even number of values the larger of the middle two, as the originals take it; 0 of none.
fn upper_median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten seconds of two cores.
    fn node(softirq: u64, sent: u64, received: u64) -> String {
        format!(
            "time_cycles 10000 clock\ncpu_khz 1 rate\ncore 0 core\nsoftirq_cycles {softirq} x\npackets_sent_RESEND {sent} x\n\
             packets_rcvd_RESEND 0 x\ncore 1 core\nsoftirq_cycles 0 x\npackets_sent_RESEND 0 x\npackets_rcvd_RESEND {received} x\n"
        )
    }

    #[test]
    fn what_is_beyond_threshold_and_median_stands_out() {
        let texts = [node(10_000, 100, 49), node(11_000, 100, 0), node(26_000, 160, 49), node(12_000, 90, 10)];
        let text = data("homa_w4", (1..).zip(texts.iter().map(String::as_str)));
        let outliers: Vec<_> = text.lines().filter(|line| line.starts_with("# outlier")).collect();
        // 4.9 RESENDs a second are below the threshold; 16 are more than 1.5 times 10.
        assert_eq!(
            outliers,
            ["# outlier: node3 cores 2.600 (median 1.200)", "# outlier: node3 resends_sent 16.000 (median 10.000)"]
        );
        let rows: Vec<Vec<f64>> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
            .collect();
        assert_eq!(rows[0], [1.0, 1.0, 10.0, 4.9]);
        assert_eq!(rows.len(), 4);
    }

    #[test]
    fn texts_without_a_clock_are_left_out() {
        let text = data("x", [(0, "packets_sent_RESEND 3 x\n"), (1, "")]);
        assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
    }
}
