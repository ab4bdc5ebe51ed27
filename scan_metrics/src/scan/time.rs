//! Test T: a node's throughput, second by second, from its log.

use super::catalogue::Class;
use super::comparisons::Comparisons;
use super::control::{LEAST_Z, Peers};
use super::facts::Facts;
use super::finding::{Finding, Level, Place, Test};
use super::stats::{median, spread};

/// Seconds below this share of the node's own median are slow.
const SLOW: f64 = 0.5;
/// So many of all seconds may be.
const SLOW_SECONDS: f64 = 0.02;
/// Slow seconds in a row that are a stall.
const STALL: usize = 2;
/// Last third against first third.
const DRIFT: f64 = 0.1;
/// Seconds that a series needs.
const SECONDS: usize = 4;

/// All nodes of a run.
pub(super) fn compare(run: &str, facts: &Facts, all: &mut Comparisons) {
    for ((experiment, node), series) in facts.series.iter().filter(|(_, series)| series.len() >= SECONDS) {
        let place = Place { run, experiment, node: Some(*node), core: None };
        let fellows: Vec<_> = facts
            .series
            .iter()
            .filter(|((other, n), _)| other == experiment && n != node)
            .map(|(_, s)| s.as_slice())
            .collect();
        slow_seconds(&place, series, &fellows, all);
        drift(&place, series, all);
    }
}

fn slow_seconds(place: &Place<'_>, series: &[f64], fellows: &[&[f64]], all: &mut Comparisons) {
    let usual = median(series);
    let slow: Vec<usize> = (0..series.len()).filter(|&at| series[at] < SLOW * usual).collect();
    // One comparison a node: the slowest second with all others.
    let (worst, least) = series.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).expect("it has some");
    let others: Vec<_> = (0..series.len()).filter(|&at| at != worst).map(|at| (series[at] + 0.5).ln()).collect();
    let judged = Peers::of(&others).judge((least + 0.5).ln(), usual, None);
    // It was chosen among all seconds.
    let number = all.count((judged.p * series.len() as f64).min(1.0));
    if slow.is_empty() || slow.len() as f64 <= SLOW_SECONDS * series.len() as f64 || judged.z > -LEAST_Z {
        return;
    }
    let longest = slow.iter().scan((0, usize::MAX), |(run, last), &at| {
        *run = if last.wrapping_add(1) == at { *run + 1 } else { 1 };
        *last = at;
        Some(*run)
    });
    let stall = longest.max().unwrap_or(0);
    let also = fellows.iter().filter(|other| other.get(worst).is_some_and(|&rate| rate < SLOW * median(other))).count();
    let level = if stall >= STALL { Level::Fatal } else { Level::Warn };
    let what = format!(
        "{} of {} seconds below half of its own median; second {}: {least:.0} RPCs/s where {usual:.0} are usual{}{}",
        slow.len(),
        series.len(),
        worst + 1,
        if stall >= STALL { format!("; {stall} in a row") } else { String::new() },
        if also > 0 { format!("; {also} of {} other nodes were slow then too", fellows.len()) } else { String::new() }
    );
    let cause = if 2 * also > fellows.len() && also > 0 {
        "all stopped together: the switch, the machine that holds the nodes, or a peer that all wait for"
    } else {
        "the node was not scheduled, its link was down, or its process was stopped; peers that wait for it slow down less"
    };
    let next = format!("tthoma analyze coregaps traces/node{0}.tt; dmesg of node{0}", place.node.unwrap_or(0));
    let mut finding = Finding::plain(level, Test::T, "rpcs_per_second", Class::Traffic, place, what)
        .because(cause, next)
        .against(least, usual, "RPCs/s", "its own other seconds");
    finding.z = Some(judged.z);
    all.suspect(number, finding);
}

fn drift(place: &Place<'_>, series: &[f64], all: &mut Comparisons) {
    let third = series.len() / 3;
    if third < 2 {
        return;
    }
    let (first, last) = (median(&series[..third]), median(&series[series.len() - third..]));
    if first <= 0.0 || last <= 0.0 {
        return;
    }
    // Scatter from second to second, of which a slow change is no part.
    let steps: Vec<_> = series.windows(2).map(|pair| ((pair[1] + 0.5) / (pair[0] + 0.5)).ln()).collect();
    let second = (spread(&steps, 0.0) / 2f64.sqrt()).max((4.0 / (first + 1.0)).sqrt()).max(0.01);
    let change = (last / first).ln();
    let z = change / (second * (std::f64::consts::PI / third as f64).sqrt());
    let number = all.count(super::stats::t_tail(z, 4.0 + 0.37 * steps.len() as f64));
    if z.abs() > LEAST_Z && (last / first - 1.0).abs() > DRIFT {
        let what = format!("{last:.0} RPCs/s in the last third of the time, {first:.0} in the first");
        let mut finding = Finding::plain(Level::Warn, Test::T, "drift", Class::Traffic, place, what)
            .because(
                "a queue that grows (overload), memory that runs out, a processor that gets hot",
                "the lines of its log: lag, outstanding RPCs",
            )
            .against(last, first, "RPCs/s", "its own first third");
        finding.z = Some(z);
        all.suspect(number, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(series: &[(u64, &[f64])]) -> Vec<Finding> {
        let mut facts = Facts::default();
        for (node, series) in series {
            facts.series.insert(("homa_w4".to_owned(), *node), series.to_vec());
        }
        let mut all = Comparisons::default();
        compare("run", &facts, &mut all);
        all.findings()
    }

    const CALM: [f64; 8] = [200.0, 210.0, 190.0, 205.0, 195.0, 202.0, 199.0, 204.0];

    #[test]
    fn a_silent_second_is_found_and_calm_nodes_are_not() {
        assert!(found(&[(0, &CALM), (1, &CALM)]).is_empty());
        let mut silent = CALM;
        silent[4] = 0.0;
        let got = found(&[(0, &CALM), (1, &silent)]);
        assert_eq!(got.len(), 1, "{got:?}");
        assert_eq!((got[0].node, got[0].level, got[0].letters().as_str()), (Some(1), Level::Warn, "T"));
        assert!(got[0].what.contains("second 5: 0 RPCs/s where 201"), "{}", got[0].what);
        assert!(got[0].cause.contains("not scheduled"));
        silent[5] = 1.0;
        assert_eq!(found(&[(1, &silent)])[0].level, Level::Fatal, "two in a row are a stall");
    }

    #[test]
    fn when_all_stop_the_cause_is_another() {
        let mut silent = CALM;
        silent[4] = 0.0;
        let got = found(&[(0, &silent), (1, &silent), (2, &silent)]);
        assert_eq!(got.len(), 3);
        assert!(got.iter().all(|finding| finding.cause.contains("together")), "{got:?}");
    }

    #[test]
    fn a_slow_change_is_drift() {
        let falling: Vec<f64> = (0..12).map(|second| 2000.0 - 60.0 * f64::from(second)).collect();
        let got = found(&[(3, &falling)]);
        assert_eq!(got.iter().map(|finding| finding.metric.as_str()).collect::<Vec<_>>(), ["drift"]);
    }
}
