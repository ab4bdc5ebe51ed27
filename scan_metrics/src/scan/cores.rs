//! Test C: the cores of a node against each other, and each against the core of the same number on other nodes.

use super::catalogue::{cause, next};
use super::comparisons::Comparisons;
use super::control::{LEAST_Z, judge};
use super::finding::{Finding, Level, Place, Test};
use super::group::{Group, Vocabulary};
use super::record::{CoreRecord, Record};
use super::stats::{gini, median};

/// Shares of a core's time that are worth a word: nearly busy, busy.
const BUSY: [f64; 2] = [0.8, 0.95];
/// Least difference of a core's time that is of interest, of a whole core.
const LEAST_SHARE: f64 = 0.02;
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
    let mut keys: Vec<(u64, u32)> = members
        .iter()
        .flat_map(|record| &record.cores)
        .flat_map(|core| core.values.iter().map(|(number, _)| (core.core, *number)))
        .filter(|(_, number)| {
            // Waiting fills what work leaves.
            !matches!(words.names[*number as usize].as_str(), "poll_cycles" | "blocked_cycles" | "timer_cycles")
        })
        .collect();
    keys.sort_unstable();
    keys.dedup();
    for (core, number) in keys {
        same_core(run, &members, core, number, words, all);
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

/// One counter of one core number over all nodes.
fn same_core(run: &str, members: &[&Record], core: u64, number: u32, words: &Vocabulary, all: &mut Comparisons) {
    let name = &words.names[number as usize];
    let ticks = name.ends_with("_cycles");
    let of = |record: &Record, core: &CoreRecord| {
        let value = core.values.iter().find(|(other, _)| *other == number).map_or(0.0, |(_, value)| *value);
        if ticks { value / record.ticks } else { value / record.seconds }
    };
    let here = |record: &Record| record.cores.iter().find(|other| other.core == core).map(|core| of(record, core));
    let Some(values) = members.iter().map(|record| here(record)).collect::<Option<Vec<f64>>>() else { return };
    let scale = if ticks { 1e4 } else { 1.0 };
    let logs: Vec<_> = values.iter().map(|value| (value * scale + 0.5).ln()).collect();
    for (at, record) in members.iter().enumerate() {
        let peers = without(&logs, at);
        let events = median(&without(&values, at)) * scale;
        let Some(judged) = judge(logs[at], &peers, events, None) else { continue };
        let index = all.count(judged.p);
        let (value, usual) = (values[at], ((judged.median.exp() - 0.5) / scale).max(0.0));
        // Packets and locks: only what the core itself has too much of, not what the load brings to all its fellows.
        let least = if ticks { LEAST_SHARE } else { 0.5 * usual + 1000.0 };
        if judged.z.abs() <= LEAST_Z || (value - usual).abs() <= least {
            continue;
        }
        let place = Place { run, experiment: &record.experiment, node: Some(record.node), core: Some(core) };
        let fellows: Vec<_> =
            record.cores.iter().filter(|other| other.core != core).map(|core| of(record, core)).collect();
        let unit = if ticks { "cores" } else { "/s" };
        let what = format!(
            "{name} of core {core} is {value:.3} {unit} where core {core} of other nodes has {usual:.3}; its fellows on this node \
             have {:.3}",
            median(&fellows)
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
