//! Test C: the cores of a node against each other, and each against the core of the same number on other nodes.

use super::catalogue::{cause, next};
use super::comparisons::Comparisons;
use super::control::{Alike, LEAST_Z, Peers, judge};
use super::finding::{Finding, Level, Place, Test};
use super::group::{Group, Vocabulary};
use super::record::{CoreRecord, Record};
use super::stats::{gini, median};

/// Shares of a core's time that are worth a word: nearly busy, busy.
const BUSY: [f64; 2] = [0.8, 0.95];
/// Least difference of a core's time that is of interest, of a whole core.
const LEAST_SHARE: f64 = 0.02;
/// Least difference of a core's packets or locks from those of its fellows: share, and a second.
const LEAST_DIFFERENCE: f64 = 0.25;
const LEAST_RATE: f64 = 100.0;
/// Cores that do less are left out of means.
const IDLE: f64 = 0.01;
/// Nodes needed for a comparison of the same core.
const NODES: usize = 5;

/// Time of a core, without what it only waits: what the metrics tool adds up, Homa's own SoftIRQ and GRO where the kernel
/// does not measure its own.
fn busy(core: &CoreRecord, ticks: f64, words: &Vocabulary) -> f64 {
    let of = |name: &str| {
        let number = words.number(name);
        let value = number.and_then(|number| core.values.iter().find(|(other, _)| *other == number));
        value.map_or(0.0, |(_, value)| value / ticks)
    };
    let first = |one: f64, other: f64| if one > 0.0 { one } else { other };
    first(of("napi_cycles"), of("bypass_softirq_cycles"))
        + first(of("linux_softirq_cycles"), of("softirq_cycles"))
        + of("send_cycles")
        + (of("recv_cycles") - of("poll_cycles")).max(0.0)
        + of("reply_cycles")
        + of("timer_cycles")
}

/// All of test C for a group.
pub(super) fn compare(run: &str, group: &Group, records: &[Record], words: &Vocabulary, all: &mut Comparisons) {
    let members: Vec<_> =
        group.members.iter().map(|&member| &records[member]).filter(|r| !r.cores.is_empty()).collect();
    for record in &members {
        busy_cores(run, record, words, all);
    }
    if members.len() < NODES {
        return;
    }
    imbalance(run, &members, words, all);
    let mut cores: Vec<u64> = members.iter().flat_map(|record| &record.cores).map(|core| core.core).collect();
    let mut numbers: Vec<u32> = members
        .iter()
        .flat_map(|record| &record.cores)
        .flat_map(|core| core.values.iter().map(|(number, _)| *number))
        .filter(|number| {
            // Waiting fills what work leaves.
            !matches!(words.names[*number as usize].as_str(), "poll_cycles" | "blocked_cycles" | "timer_cycles")
        })
        .collect();
    cores.sort_unstable();
    cores.dedup();
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers {
        same_cores(run, &members, &cores, number, words, all);
    }
}

fn busy_cores(run: &str, record: &Record, words: &Vocabulary, all: &mut Comparisons) {
    for core in &record.cores {
        let share = busy(core, record.ticks, words);
        if share < BUSY[0] {
            continue;
        }
        let level = if share >= BUSY[1] { Level::Fatal } else { Level::Warn };
        let place = Place { run, experiment: &record.experiment, node: Some(record.node), core: Some(core.core) };
        let what = format!("core {} works {:.0} % of its time on Homa: it limits the node", core.core, 100.0 * share);
        let finding = Finding::plain(level, Test::C, "core_busy", super::catalogue::Class::Cpu, &place, what)
            .because(cause("softirq_cycles", true), next("softirq_cycles", Some(record.node)))
            .against(share, BUSY[0], "cores", "the limit");
        all.certain(finding.strong(50.0 * share));
    }
}

/// Peak to mean, and Gini coefficient, of each node's cores against those of other nodes.
fn imbalance(run: &str, members: &[&Record], words: &Vocabulary, all: &mut Comparisons) {
    let shares = |record: &Record| -> Vec<f64> {
        let all = record.cores.iter().map(|core| busy(core, record.ticks, words));
        all.filter(|&share| share > IDLE).collect()
    };
    let each: Vec<_> = members.iter().map(|record| shares(record)).collect();
    if each.iter().any(|shares| shares.len() < 2) {
        return;
    }
    let peak =
        |shares: &[f64]| shares.iter().copied().fold(0.0, f64::max) * shares.len() as f64 / shares.iter().sum::<f64>();
    for (metric, values) in [
        ("cores_peak_to_mean", each.iter().map(|shares| peak(shares)).collect::<Vec<_>>()),
        ("cores_gini", each.iter().map(|shares| gini(shares).max(0.01)).collect()),
    ] {
        let logs: Vec<_> = values.iter().map(|value| value.ln()).collect();
        for (at, record) in members.iter().enumerate() {
            let peers = without(&logs, at);
            // At least as uncertain as a tenth: these are quotients of few cores.
            let Some(judged) = judge(logs[at], &peers, 400.0, None) else { continue };
            let number = all.count(judged.p);
            let usual = judged.median.exp();
            if judged.z > LEAST_Z && values[at] > 1.5 * usual {
                let place = Place { run, experiment: &record.experiment, node: Some(record.node), core: None };
                let what = format!(
                    "its cores are less alike than those of other nodes: {metric} {:.2} where {usual:.2} is usual",
                    values[at]
                );
                let mut finding =
                    Finding::plain(Level::Warn, Test::C, metric, super::catalogue::Class::Cpu, &place, what)
                        .because(cause("softirq_cycles", true), next("softirq_cycles", Some(record.node)))
                        .against(values[at], usual, "", format!("the other {} nodes", members.len() - 1));
                finding.z = Some(judged.z);
                all.suspect(number, finding);
            }
        }
    }
}

fn without(values: &[f64], at: usize) -> Vec<f64> {
    values.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, value)| *value).collect()
}

/// A counter of one core number on all nodes.
struct Column {
    core: u64,
    /// By node: cores' worth, or a second.
    values: Vec<f64>,
    logs: Vec<f64>,
}

/// One counter: each core against the core of the same number on other nodes.
fn same_cores(run: &str, members: &[&Record], cores: &[u64], number: u32, words: &Vocabulary, all: &mut Comparisons) {
    let name = &words.names[number as usize];
    let ticks = name.ends_with("_cycles");
    let of = |record: &Record, core: &CoreRecord| {
        let value = core.values.iter().find(|(other, _)| *other == number).map_or(0.0, |(_, value)| *value);
        if ticks { value / record.ticks } else { value / record.seconds }
    };
    let scale = if ticks { 1e4 } else { 1.0 };
    let column = |core: u64| {
        let here = |record: &&Record| record.cores.iter().find(|of| of.core == core).map(|core| of(record, core));
        let values = members.iter().map(here).collect::<Option<Vec<f64>>>()?;
        let logs = values.iter().map(|value| (value * scale + 0.5).ln()).collect();
        Some(Column { core, values, logs })
    };
    let columns: Vec<Column> = cores.iter().filter_map(|&core| column(core)).collect();
    if columns.is_empty() {
        return;
    }
    let alike = Alike::of(&columns.iter().map(|column| Peers::of(&column.logs)).collect::<Vec<_>>());
    for column in &columns {
        for (at, record) in members.iter().enumerate() {
            let events = median(&without(&column.values, at)) * scale;
            let judged = Peers::of(&without(&column.logs, at)).judge_alike(column.logs[at], events, alike);
            let index = all.count(judged.p);
            let (value, usual) = (column.values[at], ((judged.median.exp() - 0.5) / scale).max(0.0));
            let fellows = fellows(&columns, column.core, at);
            if judged.z.abs() <= LEAST_Z || !of_interest(ticks, value, usual, fellows) {
                continue;
            }
            let place = Place { run, experiment: &record.experiment, node: Some(record.node), core: Some(column.core) };
            let (core, unit) = (column.core, if ticks { "cores" } else { "/s" });
            let others = columns.iter().filter(|other| other.core != core).map(|other| other.values[at]);
            let what = format!(
                "{name} of core {core} is {value:.3} {unit} where core {core} of other nodes has {usual:.3}; its fellows on this \
                 node have {:.3}",
                median(&others.collect::<Vec<_>>())
            );
            let class = super::catalogue::about(name).map_or(super::catalogue::Class::Cpu, |about| about.class);
            let next = format!("tthoma analyze cores traces/node{0}.tt; /proc/interrupts of node{0}", record.node);
            let mut finding = Finding::plain(Level::Warn, Test::C, name, class, &place, what)
                .because(cause("softirq_cycles", true), next)
                .against(value, usual, unit, format!("core {core} of the other {} nodes", members.len() - 1));
            finding.z = Some(judged.z);
            all.suspect(index, finding);
        }
    }
}

/// How many times what is usual the other cores of a node have; 1 if it has none.
fn fellows(columns: &[Column], core: u64, at: usize) -> f64 {
    let ratio = |column: &Column| {
        let usual = median(&column.values);
        (usual > 0.0).then(|| column.values[at] / usual)
    };
    let ratios: Vec<f64> = columns.iter().filter(|column| column.core != core).filter_map(ratio).collect();
    if ratios.is_empty() { 1.0 } else { median(&ratios) }
}

/// Whether a core's own difference is worth a word. Of packets and locks only what it has more or less of than its fellows: what
/// they have, too, is the node's load.
fn of_interest(ticks: bool, value: f64, usual: f64, fellows: f64) -> bool {
    if ticks {
        return (value - usual).abs() > LEAST_SHARE;
    }
    let expected = usual * fellows;
    (value - expected).abs() > LEAST_DIFFERENCE * expected + LEAST_RATE
}
