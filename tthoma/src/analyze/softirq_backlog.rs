//! `softirq-backlog`: the queues of packets that wait for SoftIRQ, core by core, over time.
//!
//! A packet is in the queue of the core that processes it from GRO (`--from gro`), from the hand-off of its batch (`--from
//! handoff`), or from its arrival in the receive ring where the stack logs that (`--from ring`), until it is processed.
//! Packets that GRO processes itself never queue. A packet that was already waiting when the trace began is in the queue
//! from then on. One that was never processed leaves when it is presumed dropped ([`Ending::Dropped`]).
//!
//! An episode begins when the oldest packet has waited `--backlog-age` (or `--backlog-pkts`, `--backlog-kb` wait) and ends at
//! half of that. Its cause is judged by the events of the core: `preempted`, none for more than half of the age that makes
//! an episode; `overload`, SoftIRQ ran 70 % of the time; `napi` and `app`, half of the events were GRO's or applications'.

use rustc_hash::{FxHashMap, FxHashSet};

use super::softirq_sweep::{Episode, Limits, State, Stay, Summary, series, sweep, when};
use super::steps::Steps;
use super::{About, Analyzer, Cell, From, Needs, Options, Report, Table, Unit};
use crate::event::Kind;
use crate::model::Model;
use crate::model::softirq::{Ending, Invocation, NO_CORE, Queues, Wait};
use crate::packets::UNSEEN;
use crate::stats::micros;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct SoftirqBacklog;

impl Analyzer for SoftirqBacklog {
    fn about(&self) -> &'static About {
        &About {
            name: "softirq-backlog",
            question: "How long are the SoftIRQ queues of each core, for how long, and who feeds them?",
            source: "timetrace.md 10.1",
            needs: Needs::Any(&[Kind::GroData, Kind::GroGrant, Kind::KernelBacklog, Kind::KernelGro]),
            uses: &[
                Kind::SoftirqData,
                Kind::SoftirqGrant,
                Kind::GroControl,
                Kind::GroHandoff,
                Kind::SoftirqStart,
                Kind::RingWait,
                Kind::KernelReceive,
                Kind::KernelBegin,
                Kind::KernelGroDone,
            ],
            options: &["node", "core", "from", "backlog_age", "backlog_pkts", "backlog_kb", "interval", "top"],
            requires: &[],
        }
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut report = Report::default();
        let (mut cores, mut episodes) = (cores_table(), Vec::new());
        for (place, name) in model.hosts.nodes.iter().enumerate() {
            let Some(span) = model.traces[place].span.filter(|_| options.node.as_ref().is_none_or(|n| n == name))
            else {
                continue;
            };
            let node = Node::new(model, place, span, options);
            node.add_to(&mut cores, &mut episodes, options);
            if !node.cores.is_empty() && options.wants_series() {
                report.tables.push(node.series(options));
            }
            if options.from != From::Ring && node.queues.waits.iter().any(|w| w.ring != UNSEEN) {
                report.notes.push(format!("{name} logs waits in its receive ring; --from ring counts them, too"));
            }
            if node.queues.lost > 0 {
                report.warnings.push(format!("{name}: the recording lost events: packets near them are in no queue"));
            }
        }
        episodes.sort_by_key(|e: &Found| std::cmp::Reverse(e.episode.end - e.episode.start));
        let all = episodes.len();
        episodes.truncate(if options.verbose { all } else { options.top });
        report.tables.insert(0, cores);
        report.tables.insert(1, episodes_table(model, &episodes, all));
        report
    }
}

/// One node's queues.
struct Node<'a> {
    model: &'a Model,
    node: usize,
    span: (i64, i64),
    limits: Limits,
    queues: &'a Queues,
    /// Stays by core; the tag is the wait.
    cores: Vec<(u16, Vec<Stay>)>,
}

/// An episode, and where it was.
struct Found {
    node: usize,
    core: u16,
    episode: Episode,
    cause: &'static str,
    gro_cores: String,
    messages: usize,
}

impl<'a> Node<'a> {
    fn new(model: &'a Model, node: usize, span: (i64, i64), options: &Options) -> Self {
        let queues = &model.queues()[node];
        let mut cores: FxHashMap<u16, Vec<Stay>> = FxHashMap::default();
        for (place, wait) in queues.waits.iter().enumerate() {
            if let Some((core, stay)) = stay(wait, place as u32, span, options.from) {
                cores.entry(core).or_default().push(stay);
            }
        }
        let mut cores: Vec<_> = cores.into_iter().filter(|(c, _)| options.core.is_none_or(|only| only == *c)).collect();
        cores.sort_unstable_by_key(|(core, _)| *core);
        let limits = Limits {
            age: (options.backlog_age * 1000.0).max(1.0) as i64,
            packets: options.backlog_pkts,
            bytes: options.backlog_kb.map(|kb| (kb * 1000.0) as u64),
        };
        Self { model, node, span, limits, queues, cores }
    }

    fn add_to(&self, table: &mut Table, found: &mut Vec<Found>, options: &Options) {
        for (core, stays) in &self.cores {
            let summary = sweep(stays, self.span, self.limits);
            self.row(table, core_name(*core), stays, &summary);
            found.extend(summary.episodes.into_iter().map(|episode| self.found(*core, episode)));
        }
        if self.cores.len() > 1 && options.core.is_none() {
            let all: Vec<Stay> = self.cores.iter().flat_map(|(_, stays)| stays).copied().collect();
            self.row(table, "all".into(), &all, &sweep(&all, self.span, self.limits));
        }
    }

    fn row(&self, table: &mut Table, core: Cell, stays: &[Stay], s: &Summary) {
        let mean = |sum: i128| (s.window > 0).then(|| sum as f64 / s.window as f64);
        let time = |at: Option<f64>| at.map(|us| us + self.offset());
        let longest = s.episodes.iter().map(|e| micros(e.end - e.start)).reduce(f64::max);
        let ended = |what: fn(&Ending) -> bool| {
            stays.iter().filter(|stay| what(&self.queues.waits[stay.tag as usize].ending)).count()
        };
        let cells: [Cell; 22] = [
            (&self.model.hosts.nodes[self.node]).into(),
            core,
            stays.len().into(),
            mean(s.packet_ns).into(),
            s.max_packets.value.into(),
            time(when(&s.max_packets)).into(),
            s.packets_at(0.5).into(),
            s.packets_at(0.9).into(),
            s.packets_at(0.99).into(),
            mean(s.byte_ns).map(|b| b / 1000.0).into(),
            (s.max_bytes.value as f64 / 1000.0).into(),
            time(when(&s.max_bytes)).into(),
            micros(s.age_at(0.99)).into(),
            micros(s.max_age.value).into(),
            time(when(&s.max_age)).into(),
            s.busy().into(),
            s.over().into(),
            s.episodes.len().into(),
            longest.into(),
            ended(|e| *e == Ending::Open).into(),
            ended(|e| matches!(e, Ending::Dropped(_))).into(),
            stays.iter().filter(|stay| self.queues.waits[stay.tag as usize].gro == UNSEEN).count().into(),
        ];
        table.row(cells);
    }

    /// From this node's clock to the common one, us.
    fn offset(&self) -> f64 {
        self.model.common(self.node as u16, 0)
    }

    fn found(&self, core: u16, episode: Episode) -> Found {
        let waits = || episode.came.iter().map(|tag| &self.queues.waits[*tag as usize]);
        let mut shares: FxHashMap<u16, usize> = FxHashMap::default();
        waits().filter(|w| w.gro_core != NO_CORE).for_each(|w| *shares.entry(w.gro_core).or_default() += 1);
        let total: usize = shares.values().sum();
        let mut shares: Vec<(u16, usize)> = shares.into_iter().filter(|(_, n)| n * 10 >= total).collect();
        shares.sort_unstable_by_key(|(core, n)| (std::cmp::Reverse(*n), *core));
        let share = |(core, n): &(u16, usize)| format!("{core}:{}%", (100 * n + total / 2) / total);
        let gro_cores = shares.iter().map(share).collect::<Vec<_>>().join(" ");
        let messages = waits().map(|w| (w.class, w.client, w.id)).collect::<FxHashSet<_>>().len();
        Found { node: self.node, core, cause: self.cause(core, &episode), gro_cores, messages, episode }
    }

    /// Why the queue grew, judged by the events of its core.
    fn cause(&self, core: u16, episode: &Episode) -> &'static str {
        let records = &self.model.traces[self.node].records;
        let from = records.partition_point(|r| r.time < episode.start);
        let during: Vec<_> =
            records[from..].iter().take_while(|r| r.time <= episode.end).filter(|r| r.core == core).collect();
        let window = self.limits.age.min(episode.end - episode.start);
        let mut silent = 0;
        let mut before = episode.start;
        for at in during.iter().map(|r| r.time).chain([episode.end]) {
            let at = at.min(episode.start + window);
            silent = silent.max(at - before);
            before = at;
        }
        let busy: i64 = running(&self.queues.invocations, core, (episode.start, episode.end));
        let share =
            |kinds: &[Kind]| during.iter().filter(|r| kinds.contains(&r.kind)).count() * 2 >= during.len().max(1);
        match () {
            () if silent * 2 > window => "preempted",
            () if busy * 10 >= (episode.end - episode.start) * 7 => "overload",
            () if share(&[Kind::GroData, Kind::GroGrant, Kind::GroControl, Kind::GroHandoff, Kind::KernelGro]) => {
                "napi"
            }
            () if share(APPLICATION) => "app",
            () => "other",
        }
    }

    /// The node's queues at each step of time.
    fn series(&self, options: &Options) -> Table {
        let name = &self.model.hosts.nodes[self.node];
        let most = Steps::most(self.model, self.node as u16, 3 * (self.cores.len() + 1));
        let step = Steps::of(self.span, options.interval, most).length;
        let mut table = Table::series("softirq_backlog", name, format!("Packets that wait for SoftIRQ on {name}"))
            .column("Time", Unit::Us, "")
            .column("TotPk", Unit::None, "")
            .column("TotKB", Unit::None, "")
            .column("MaxAge", Unit::Us, "oldest packet since the line before");
        let mut all: Vec<Vec<State>> = Vec::new();
        for (core, stays) in &self.cores {
            let core = if *core == NO_CORE { "?".to_string() } else { core.to_string() };
            table = table
                .column(format!("Pk{core}"), Unit::None, "")
                .column(format!("KB{core}"), Unit::None, "")
                .column(format!("Age{core}"), Unit::Us, "");
            all.push(series(stays, self.span, step));
        }
        let kb = |bytes: u64| bytes as f64 / 1000.0;
        for i in 0..all.first().map_or(0, Vec::len) {
            let states = || all.iter().map(|core| core[i]);
            let (packets, bytes) = states().fold((0, 0), |(p, b), s| (p + s.packets, b + s.bytes));
            let age = states().map(|s| s.age).max().unwrap_or(0);
            let time = micros(self.span.0 + step * (i as i64 + 1)) + self.offset();
            let head: [Cell; 4] = [time.into(), packets.into(), kb(bytes).into(), micros(age).into()];
            let cores = states().flat_map(|s| [s.packets.into(), kb(s.bytes).into(), micros(s.age).into()]);
            table.row(head.into_iter().chain(cores));
        }
        table
    }
}

const APPLICATION: &[Kind] = &[
    Kind::SendmsgRequest,
    Kind::SendmsgResponse,
    Kind::SendmsgDone,
    Kind::CopyInStart,
    Kind::CopyInDone,
    Kind::CopyOutStart,
    Kind::CopyOutDone,
    Kind::FreeSkbs,
    Kind::RecvmsgStart,
    Kind::RecvmsgDone,
];

/// A packet's stay in its core's queue; `None` if it never queued, or nobody knows.
fn stay(wait: &Wait, tag: u32, (first, last): (i64, i64), from: From) -> Option<(u16, Stay)> {
    if matches!(wait.ending, Ending::Bypassed | Ending::Unknown) {
        return None;
    }
    let from = match from {
        _ if wait.gro == UNSEEN => first,
        From::Ring if wait.ring != UNSEEN => wait.ring.max(first),
        From::Handoff if wait.handoff != UNSEEN => wait.handoff,
        // It was never handed off.
        From::Handoff => return None,
        _ => wait.gro,
    };
    // A packet that is processed before it comes is the clock's fault, and no stay.
    let to = wait.over(last).clamp(from, last.max(from));
    Some((wait.core, Stay { from, to, bytes: wait.bytes, tag }))
}

/// Time that invocations ran on a core inside of a range.
fn running(invocations: &[Invocation], core: u16, (from, to): (i64, i64)) -> i64 {
    let start = invocations.partition_point(|i| (i.core, i.end) < (core, from));
    let inside = invocations[start..].iter().take_while(|i| i.core == core && i.start <= to);
    inside.map(|i| (i.end.min(to) - i.start.max(from)).max(0)).sum()
}

fn core_name(core: u16) -> Cell {
    if core == NO_CORE { "?".into() } else { core.into() }
}

fn cores_table() -> Table {
    Table::new("cores", "Packets that wait for SoftIRQ:")
        .column("Node", Unit::None, "")
        .column("Core", Unit::None, "core of SoftIRQ; ?: not known, as the packet was never handed off or processed")
        .column("Pkts", Unit::None, "packets that entered")
        .column("AvgPk", Unit::None, "packets that wait, mean over time")
        .decimals(2)
        .column("MaxPk", Unit::None, "most, and when")
        .column("PkTime", Unit::Us, "")
        .column("P50Pk", Unit::None, "for half of the time there are at most so many")
        .column("P90Pk", Unit::None, "")
        .column("P99Pk", Unit::None, "")
        .column("AvgKB", Unit::None, "")
        .decimals(1)
        .column("MaxKB", Unit::None, "")
        .decimals(1)
        .column("KBTime", Unit::Us, "")
        .column("P99Age", Unit::Us, "the oldest packet is younger for 99 % of the time")
        .column("MaxAge", Unit::Us, "")
        .column("AgeTime", Unit::Us, "")
        .column("Busy", Unit::Share, "of the time with packets")
        .column("Over", Unit::Share, "of the time in episodes")
        .column("Eps", Unit::None, "episodes")
        .column("LongEp", Unit::Us, "longest episode")
        .column("Open", Unit::None, "packets that wait at the trace's end")
        .column("Drop?", Unit::None, "packets presumed dropped, as later ones were processed")
        .key("dropped")
        .column("LeftOpen", Unit::None, "packets that waited at the trace's begin")
}

fn episodes_table(model: &Model, found: &[Found], all: usize) -> Table {
    let title = format!("Longest episodes of backlog, {} of {all}:", found.len());
    let mut table = Table::new("episodes", title)
        .column("Start", Unit::Us, "")
        .column("End", Unit::Us, "")
        .column("Dur", Unit::Us, "")
        .column("Cut", Unit::None, "<: had begun before the trace; >: goes on after it")
        .column("Node", Unit::None, "")
        .column("Core", Unit::None, "")
        .column("MaxPk", Unit::None, "")
        .column("MaxKB", Unit::None, "")
        .decimals(1)
        .column("MaxAge", Unit::Us, "")
        .column("In/ms", Unit::None, "packets that came")
        .key("in_per_ms")
        .decimals(0)
        .column("Out/ms", Unit::None, "packets that left")
        .key("out_per_ms")
        .decimals(0)
        .column("Gbps", Unit::Gbps, "bytes that left")
        .key("out")
        .column("Cause", Unit::None, "")
        .column("Msgs", Unit::None, "messages that the packets belonged to")
        .column("GroCores", Unit::None, "cores that fed a tenth of the packets or more");
    for f in found {
        let e = &f.episode;
        let ms = (e.end - e.start) as f64 / 1e6;
        let rate = |n: f64| (ms > 0.0).then(|| n / ms);
        let cut = format!("{}{}", if e.cut.0 { "<" } else { "" }, if e.cut.1 { ">" } else { "" });
        let common = |at| model.common(f.node as u16, at);
        table.row([
            common(e.start).into(),
            common(e.end).into(),
            micros(e.end - e.start).into(),
            cut.into(),
            (&model.hosts.nodes[f.node]).into(),
            core_name(f.core),
            e.max_packets.into(),
            (e.max_bytes as f64 / 1000.0).into(),
            micros(e.max_age).into(),
            rate(e.came.len() as f64).into(),
            rate(e.left as f64).into(),
            rate(e.left_bytes as f64 * 8.0 / 1e6).into(),
            f.cause.into(),
            f.messages.into(),
            (&f.gro_cores).into(),
        ]);
    }
    table
}

#[cfg(test)]
#[path = "softirq_backlog_tests.rs"]
mod tests;
