//! `softirq-delay`: how long packets wait from GRO until SoftIRQ processes them, and for what.
//!
//! For each packet the time is divided into Hold (GRO collects a batch), Queue (the target core is busy with earlier
//! invocations), Wake (interrupt, idle state, IP layer) and Process (other packets of the invocation); they add up to Total
//! exactly. `Handoff` is what `delay` of the original tried to measure: from the hand-off of a batch to the invocation that
//! processes its first packet. Batches and invocations are matched by packets, not by their order ([`Queues`]).
//!
//! In recordings of stock kernels, Total is from the backlog or GRO to the stack, and `Raise` from a SoftIRQ being raised
//! to its begin.
//!
//! Patched kernels' `enqueue_to_backlog` and `Starting net_rx_action` do not divide Wake any further here.

use rustc_hash::FxHashMap;

use super::{About, Analyzer, Cell, Needs, Options, Report, Table, Unit};
use crate::event::Kind;
use crate::model::Model;
use crate::model::SHORT_BYTES;
use crate::model::softirq::{Class, Ending, NO_CORE, Queues, Wait};
use crate::packets::UNSEEN;
use crate::stats::{average, micros};

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct SoftirqDelay;

impl Analyzer for SoftirqDelay {
    fn about(&self) -> &'static About {
        &About {
            name: "softirq-delay",
            question: "How long do packets wait from GRO to SoftIRQ, and for what?",
            source: "timetrace.md 10.2",
            needs: Needs::Any(&[
                Kind::GroData,
                Kind::GroGrant,
                Kind::KernelBacklog,
                Kind::KernelGro,
                Kind::KernelBegin,
            ]),
            uses: &[
                Kind::SoftirqData,
                Kind::SoftirqGrant,
                Kind::GroControl,
                Kind::GroHandoff,
                Kind::SoftirqStart,
                Kind::RingWait,
                Kind::DiscardUnknown,
                Kind::KernelReceive,
                Kind::KernelRaise,
                Kind::KernelEnd,
                Kind::KernelGroDone,
            ],
            options: &["node"],
            requires: &[],
        }
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let wanted = |node: &usize| options.node.as_ref().is_none_or(|n| *n == model.hosts.nodes[*node]);
        let nodes: Vec<usize> = (0..model.traces.len()).filter(wanted).collect();
        let queues = model.queues();
        let mut report = Report::default();
        report.tables.push(phases(model, &nodes));
        report.tables.push(batches(model, &nodes));
        if nodes.iter().any(|n| !queues[*n].kernel_runs.is_empty()) {
            report.tables.push(kernel(model, &nodes));
        }
        report.tables.push(left_out(model, &nodes));
        if options.verbose {
            report.tables.push(pairs(model, &nodes));
        }
        for node in &nodes {
            let (name, lost) = (&model.hosts.nodes[*node], queues[*node].lost);
            if lost > 0 {
                report.warnings.push(format!("{name}: the recording lost {lost} events: waits near them are left out"));
            }
        }
        report
    }
}

/// Columns of a distribution with P99.9.
fn times(table: Table) -> Table {
    let table = table.column("Count", Unit::None, "");
    let titles = ["Min", "P10", "P50", "P90", "P99", "P99.9", "Max", "Avg"];
    titles.into_iter().fold(table, |table, title| table.column(title, Unit::Us, ""))
}

/// Fields for [`times`]; only the count if there are no samples.
fn cells(mut samples: Vec<i64>) -> Vec<Cell> {
    samples.sort_unstable();
    // In thousandths, for P99.9.
    let at = |permille: usize| samples.get(permille * samples.len() / 1000).copied().map(micros);
    let mut cells: Vec<Cell> = vec![samples.len().into(), samples.first().copied().map(micros).into()];
    cells.extend([100, 500, 900, 990, 999].map(|permille| at(permille).into()));
    cells.extend([samples.last().copied().map(micros).into(), average(&samples).into()]);
    cells
}

/// Packets that are reported together.
fn group(wait: &Wait) -> Option<&'static str> {
    Some(match wait.class {
        Class::Data if wait.message_length == 0 => return None,
        Class::Data if wait.message_length <= SHORT_BYTES => "short",
        Class::Data => "long",
        Class::Grant => "grants",
        Class::Control => "control",
        Class::Kernel => "kernel",
    })
}

const GROUPS: [&str; 5] = ["short", "long", "grants", "control", "kernel"];

/// One row a node, kind of packets and phase.
fn phases(model: &Model, nodes: &[usize]) -> Table {
    let table = Table::new("phases", "From GRO to SoftIRQ, packets:")
        .column("Node", Unit::None, "")
        .column(
            "Packets",
            Unit::None,
            "data of short messages (1000 bytes) and long ones, grants, others; any (kernel)",
        )
        .column("Phase", Unit::None, "Ring: in the receive ring before GRO; Hold + Queue + Wake + Process = Total");
    let mut table = times(table);
    for node in nodes {
        let queues = &model.queues()[*node];
        for name in GROUPS {
            let waits: Vec<&Wait> = queues.waits.iter().filter(|w| group(w) == Some(name)).collect();
            if waits.is_empty() {
                continue;
            }
            let phases: Vec<_> = waits.iter().filter_map(|w| w.phases()).collect();
            let processed = |w: &&&Wait| w.ending == Ending::Processed && w.gro != UNSEEN && w.softirq != UNSEEN;
            let rows = [
                ("Ring", waits.iter().filter(|w| w.ring != UNSEEN).map(|w| w.gro - w.ring).collect()),
                ("Hold", phases.iter().map(|p| p.hold).collect()),
                ("Queue", phases.iter().map(|p| p.queue).collect()),
                ("Wake", phases.iter().map(|p| p.wake).collect()),
                ("Process", phases.iter().map(|p| p.process).collect()),
                ("Total", waits.iter().filter(processed).map(|w| w.softirq - w.gro).collect::<Vec<i64>>()),
                ("Bypass", bypasses(&waits)),
            ];
            for (phase, samples) in rows {
                if samples.is_empty() && matches!(phase, "Ring" | "Bypass") {
                    continue;
                }
                let empty = samples.is_empty();
                let start = [(&model.hosts.nodes[*node]).into(), name.into(), phase.into()];
                let row = table.row(start.into_iter().chain(cells(samples)));
                if empty {
                    row.note("no packet was seen at both ends");
                }
            }
        }
    }
    table
}

fn bypasses(waits: &[&Wait]) -> Vec<i64> {
    waits.iter().filter(|w| w.ending == Ending::Bypassed).map(|w| w.softirq - w.gro).collect()
}

/// One row a node: batches from hand-off to invocation.
fn batches(model: &Model, nodes: &[usize]) -> Table {
    let table =
        Table::new("handoffs", "From the hand-off of a batch to the invocation that processes its first packet:")
            .column("Node", Unit::None, "")
            .column(
                "Handoff",
                Unit::None,
                "other: to another core; self: to the core of GRO; legacy: as the original matches them, in order",
            );
    let mut table = times(table);
    for node in nodes {
        let queues = &model.queues()[*node];
        if !queues.hands_off {
            continue;
        }
        let delays = |own: bool| {
            let done = queues.batches.iter().filter(|b| b.started != UNSEEN && (b.core == b.gro_core) == own);
            done.map(|b| b.started - b.handoff).collect::<Vec<i64>>()
        };
        for (name, samples) in [("other", delays(false)), ("self", delays(true)), ("legacy", queues.legacy.clone())] {
            if !samples.is_empty() {
                let start = [(&model.hosts.nodes[*node]).into(), name.into()];
                table.row(start.into_iter().chain(cells(samples)));
            }
        }
    }
    table
}

/// One row a node and SoftIRQ of a stock kernel.
fn kernel(model: &Model, nodes: &[usize]) -> Table {
    let table = Table::new("kernel", "SoftIRQs of stock kernels:")
        .column("Node", Unit::None, "")
        .column("Softirq", Unit::None, "")
        .column(
            "Time",
            Unit::None,
            "Raise: from being raised to the begin; Again: begun without, work was left; Run: from begin to end",
        );
    let mut table = times(table);
    for node in nodes {
        let runs = &model.queues()[*node].kernel_runs;
        for (vector, name) in [(3, "NET_RX"), (2, "NET_TX")] {
            let runs: Vec<_> = runs.iter().filter(|r| r.vector == vector).collect();
            let raised = runs.iter().filter(|r| r.raised != UNSEEN).map(|r| r.start - r.raised).collect::<Vec<i64>>();
            let again = runs.len() - raised.len();
            let run = runs.iter().filter(|r| r.end != UNSEEN).map(|r| r.end - r.start).collect();
            if runs.is_empty() {
                continue;
            }
            let start = |time: &'static str| [(&model.hosts.nodes[*node]).into(), name.into(), time.into()];
            table.row(start("Raise").into_iter().chain(cells(raised)));
            table.row(start("Again").into_iter().chain([again.into()]));
            table.row(start("Run").into_iter().chain(cells(run)));
        }
    }
    table
}

/// One row a node: what is in no row above.
fn left_out(model: &Model, nodes: &[usize]) -> Table {
    let mut table = Table::new("left_out", "Not in these figures:")
        .column("Node", Unit::None, "")
        .column("LeftOpen", Unit::None, "packets in SoftIRQ whose GRO is before the trace")
        .column("Open", Unit::None, "packets that still waited at the end of the trace")
        .column("MaxOpen", Unit::Us, "and at least this long")
        .column("OpenBatches", Unit::None, "batches whose invocation is not in the trace")
        .column("Oldest", Unit::Us, "the oldest of them waited at least this long")
        .key("oldest_batch")
        .column("Drop?", Unit::None, "packets presumed dropped, as later ones were processed")
        .key("dropped")
        .column(
            "NoStart",
            Unit::None,
            "packets processed by an invocation whose begin is not in the trace: only in Total",
        )
        .column("NoLength", Unit::None, "data of messages of unknown length")
        .column(
            "Unknown",
            Unit::None,
            "control packets that leave no trace in SoftIRQ, packets that GRO merged or that are near lost events",
        );
    for node in nodes {
        let queues = &model.queues()[*node];
        let Some((_, last)) = model.traces[*node].span else { continue };
        let waits = &queues.waits;
        let count = |what: &dyn Fn(&Wait) -> bool| waits.iter().filter(|w| what(w)).count();
        let open = |w: &&Wait| w.ending == Ending::Open;
        let max_open = waits.iter().filter(open).map(|w| last - w.gro).max();
        let batches = || queues.batches.iter().filter(|b| b.started == UNSEEN);
        table.row([
            (&model.hosts.nodes[*node]).into(),
            count(&|w| w.gro == UNSEEN).into(),
            count(&|w| w.ending == Ending::Open).into(),
            max_open.map(micros).into(),
            batches().count().into(),
            batches().map(|b| micros(last - b.handoff)).reduce(f64::max).into(),
            count(&|w| matches!(w.ending, Ending::Dropped(_))).into(),
            count(&|w| w.ending == Ending::Processed && w.gro != UNSEEN && w.started == UNSEEN).into(),
            count(&|w| w.class == Class::Data && w.message_length == 0).into(),
            count(&|w| w.ending == Ending::Unknown).into(),
        ]);
    }
    table
}

/// One row a pair of cores.
fn pairs(model: &Model, nodes: &[usize]) -> Table {
    let mut table = Table::new("pairs", "From core to core:")
        .column("Node", Unit::None, "")
        .column("GroCore", Unit::None, "")
        .column("Core", Unit::None, "core of SoftIRQ")
        .column("Packets", Unit::None, "")
        .column("Batches", Unit::None, "")
        .column("AvgBatch", Unit::None, "packets a batch")
        .column("P50Wake", Unit::Us, "")
        .column("P99Wake", Unit::Us, "");
    for node in nodes {
        let queues: &Queues = &model.queues()[*node];
        let mut all: FxHashMap<(u16, u16), (Vec<i64>, u64)> = FxHashMap::default();
        for wait in queues.waits.iter().filter(|w| w.core != NO_CORE && w.gro_core != NO_CORE) {
            let Some(phases) = wait.phases() else { continue };
            all.entry((wait.gro_core, wait.core)).or_default().0.push(phases.wake);
        }
        for batch in &queues.batches {
            all.entry((batch.gro_core, batch.core)).or_default().1 += 1;
        }
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_unstable_by_key(|(cores, _)| *cores);
        for ((gro, core), (mut wakes, batches)) in all {
            wakes.sort_unstable();
            let at = |q| crate::stats::percentile(&wakes, q).map(micros);
            let average = (batches > 0).then(|| wakes.len() as f64 / batches as f64);
            let name = (&model.hosts.nodes[*node]).into();
            table.row([
                name,
                gro.into(),
                core.into(),
                wakes.len().into(),
                batches.into(),
                average.into(),
                at(50).into(),
                at(99).into(),
            ]);
        }
    }
    table
}

#[cfg(test)]
#[path = "softirq_delay_tests.rs"]
pub(super) mod tests;
