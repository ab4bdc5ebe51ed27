//! Tests Z, R and L: nodes against their peers, and B: nodes against what earlier runs had.
//!
//! Loads themselves (RPCs, packets, bytes) are compared by time, all else by the load that it grows with, so that a node
//! that was given more to do is not odd for that. z-scores are those of the logarithm.

use super::catalogue::{Kind, Load, cause, next};
use super::comparisons::Comparisons;
use super::control::{LEAST_RATIO, LEAST_Z, Peers};
use super::finding::{Finding, Level, Place, Test};
use super::group::{Column, Group, PerSecond, Vocabulary, class_spreads, clusters, least_effect};
use super::heat::Heat;
use super::record::Record;
use super::stats::{median, spread, theil_sen};

/// Groups from this many nodes on have z-scores.
const Z_NODES: usize = 5;
/// And from this many on ratios.
const R_NODES: usize = 3;
/// And a line of rate over load.
const LINE_NODES: usize = 6;
/// Quotients must differ by this much.
const LEAST_QUOTIENT: f64 = 0.1;

/// Groups up to this size leave each node out of its peers' median and spread; in larger ones it makes no difference.
const LEAVE_OUT: usize = 64;

/// Compares each node of a group with the others; their z-scores as a picture.
pub(super) fn compare(
    run: &str,
    group: &Group,
    records: &[Record],
    words: &Vocabulary,
    all: &mut Comparisons,
) -> Option<Heat> {
    let nodes = group.members.len();
    if nodes < R_NODES {
        return None;
    }
    let mut heat = Heat::new(run, group, records);
    let columns = group.columns(records, words);
    let (classes, clusters) = (class_spreads(&columns), clusters(&columns));
    let per_second = PerSecond::of(group, records, words);
    for column in &columns {
        let class = classes.get(column.about.class.name()).copied();
        let clusters = clusters.get(column.about.class.name()).filter(|_| column.about.kind == Kind::Count);
        let whole = (nodes > LEAVE_OUT).then(|| Side::of(column, None));
        let mut scores = Vec::with_capacity(nodes);
        for at in 0..nodes {
            let side = whole.unwrap_or_else(|| Side::of(column, Some(at)));
            let events = side.events_by_load * column.loads[at];
            let judged = match clusters {
                Some(clusters) => side.peers.judge_clustered(column.logs[at], events, *clusters, class),
                None => side.peers.judge(column.logs[at], events, class),
            };
            scores.push((judged.z, column.rates[at]));
            let number = all.count(judged.p);
            let usual = (judged.median.exp() * column.loads[at] - 0.5).max(0.0) / column.events[at].max(1e-9)
                * column.rates[at];
            let usual = if column.events[at] > 0.0 { usual } else { side.rate };
            let (rate, ratio) = (column.rates[at], (column.logs[at] - judged.median).exp());
            let effect = least_effect(column.about, &per_second);
            let enough = match column.about.kind {
                Kind::Quotient => (ratio - 1.0).abs() > LEAST_QUOTIENT,
                _ => (rate - usual).abs() > effect,
            };
            if !enough {
                continue;
            }
            let z = nodes >= Z_NODES && judged.z.abs() > LEAST_Z;
            let r = !(1.0 / LEAST_RATIO..=LEAST_RATIO).contains(&ratio);
            if !(z || r) {
                continue;
            }
            let by_load = column.about.per != Load::Seconds;
            let mut tests = Vec::new();
            tests.extend(z.then_some(Test::Z));
            tests.extend(r.then_some(Test::R));
            if by_load && off_the_line(column, at, nodes) {
                tests.push(Test::L);
            }
            let record = &records[group.members[at]];
            let name = &words.names[column.number as usize];
            let place = Place { run, experiment: &group.experiment, node: Some(record.node), core: None };
            let what = words_for(name, rate, usual, column, ratio, by_load);
            let whom = format!("the other {} {}", nodes - 1, group.role.name());
            let mut finding = Finding::plain(Level::Warn, Test::Z, name, column.about.class, &place, what)
                .because(cause(name, ratio > 1.0), next(name, Some(record.node)))
                .against(rate, usual, unit(column.about.kind), whom);
            (finding.tests, finding.z, finding.ratio, finding.by_load) = (tests, Some(judged.z), Some(ratio), by_load);
            all.suspect(number, finding);
        }
        heat.add(&words.names[column.number as usize], column.about.kind, scores);
    }
    Some(heat.finish())
}

/// What a node is compared with.
#[derive(Clone, Copy, Debug)]
struct Side {
    peers: Peers,
    /// Median of the peers' events by their load.
    events_by_load: f64,
    /// Median of their rates.
    rate: f64,
}

impl Side {
    /// All nodes but `without`.
    fn of(column: &Column, without: Option<usize>) -> Self {
        let others = |values: &[f64]| {
            let kept = values.iter().enumerate().filter(|(other, _)| Some(*other) != without);
            kept.map(|(_, value)| *value).collect::<Vec<_>>()
        };
        let events_by_load = median(&others(&column.events)) / median(&others(&column.loads));
        Self { peers: Peers::of(&others(&column.logs)), events_by_load, rate: median(&others(&column.rates)) }
    }
}

/// Whether a node is off the line of rate over load through all nodes (Theil-Sen), by its residual.
fn off_the_line(column: &Column, at: usize, nodes: usize) -> bool {
    if nodes < LINE_NODES {
        return true;
    }
    let points: Vec<_> = column.loads.iter().copied().zip(column.events.iter().copied()).collect();
    let Some((slope, intercept)) = theil_sen(&points) else { return true };
    let residuals: Vec<_> = points.iter().map(|(x, y)| y - slope * x - intercept).collect();
    let scatter = spread(&residuals, 0.0).max(0.01 * median(&column.events).abs());
    residuals[at].abs() > LEAST_Z * scatter
}

/// Unit of a rate.
pub(super) fn unit(kind: Kind) -> &'static str {
    match kind {
        Kind::Count => "/s",
        Kind::Bytes => "B/s",
        Kind::Ticks => "cores",
        Kind::Quotient => "",
    }
}

/// A rate in words.
pub(super) fn shown(value: f64, kind: Kind) -> String {
    match kind {
        Kind::Ticks => format!("{value:.3} cores"),
        Kind::Quotient if value >= 100.0 => format!("{value:.0}"),
        Kind::Quotient => format!("{value:.3}"),
        Kind::Count | Kind::Bytes => {
            format!("{}{}", crate::tool::scaled(value).split_whitespace().collect::<Vec<_>>().join(" "), unit(kind))
        }
    }
}

fn words_for(name: &str, rate: f64, usual: f64, column: &Column, ratio: f64, by_load: bool) -> String {
    let kind = column.about.kind;
    let load = match column.about.per {
        _ if !by_load => "",
        Load::Seconds => "",
        Load::Rpcs => " for its RPCs",
        Load::Packets => " for its packets",
        Load::Bytes => " for its bytes",
    };
    format!("{name} is {} where {} are usual{load} (x {ratio:.2})", shown(rate, kind), shown(usual, kind))
}
