//! The parts that every report has: which nodes, how well their clocks agree, what was wrong with the files.

use std::fmt::Write as _;

use serde::Serialize;

use crate::clock::{Basis, NodeClock};
use crate::event::Kind;
use crate::model::Model;
use crate::read::FileStats;
use crate::stats::micros;

/// A node: its trace and the packets in it, counted one event a packet. The trace holds only the time that its buffers
/// reach back; within that, the counts are those of the node's metrics.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReport {
    /// Name of the node.
    pub node: String,
    /// Its file.
    pub path: String,
    /// Time from the first to the last line.
    pub span_ms: f64,
    /// Its clock.
    #[serde(flatten)]
    pub clock: NodeClockFields,
    /// Data frames passed to IP (`ip_xmit`), retransmissions included; the NIC may make several packets of one.
    pub data_sent: u64,
    /// Of these, frames of bytes that had been sent before, as far as the trace tells (`retransmit`).
    pub data_sent_again: u64,
    /// Grants sent (`send_grant`).
    pub grants_sent: u64,
    /// RESENDs sent (`resend_tx`).
    pub resends_sent: u64,
    /// Data packets at GRO.
    pub data_gro: u64,
    /// Grants at GRO.
    pub grants_gro: u64,
    /// Packets of other types at GRO.
    pub control_gro: u64,
    /// All packets at GRO.
    pub packets_gro: u64,
    /// Data packets in SoftIRQ.
    pub data_softirq: u64,
    /// Grants in SoftIRQ.
    pub grants_softirq: u64,
    /// Data packets and grants in SoftIRQ; other types are logged there by what they cause.
    pub packets_softirq: u64,
}

/// [`NodeClock`] without the name.
#[derive(Clone, Debug, Serialize)]
pub struct NodeClockFields {
    /// Added to the node's times; null if it can't be placed.
    pub offset_us: Option<f64>,
    /// No true offset is farther away than this.
    pub clock_error_us: Option<f64>,
}

impl NodeReport {
    pub(crate) fn all(model: &Model) -> Vec<Self> {
        let clocks = model.clock.nodes(&model.hosts.nodes);
        let again = model.sent_again();
        let one = |((trace, clock), again): ((&crate::read::NodeTrace, NodeClock), u64)| {
            let count = |kind| trace.stats.count(kind);
            let (data_gro, grants_gro, control_gro) =
                (count(Kind::GroData), count(Kind::GroGrant), count(Kind::GroControl));
            let (data_softirq, grants_softirq) = (count(Kind::SoftirqData), count(Kind::SoftirqGrant));
            Self {
                node: trace.node.clone(),
                path: trace.stats.path.display().to_string(),
                span_ms: trace.span.map_or(0.0, |(first, last)| micros(last - first) / 1000.0),
                clock: NodeClockFields { offset_us: clock.offset_us, clock_error_us: clock.error_us },
                data_sent: count(Kind::IpXmit),
                data_sent_again: again,
                grants_sent: count(Kind::SendGrant),
                resends_sent: count(Kind::ResendTx),
                data_gro,
                grants_gro,
                control_gro,
                packets_gro: data_gro + grants_gro + control_gro,
                data_softirq,
                grants_softirq,
                packets_softirq: data_softirq + grants_softirq,
            }
        };
        model.traces.iter().zip(clocks).zip(again).map(one).collect()
    }
}

/// Clocks of all nodes.
#[derive(Clone, Debug, Serialize)]
pub struct ClockReport {
    /// What the offsets are taken from.
    pub basis: Basis,
    /// Node whose clock all others are set by.
    pub reference: String,
    /// Each node.
    pub nodes: Vec<NodeClock>,
    /// Each ordered pair of nodes that exchanged packets.
    pub pairs: Vec<PairReport>,
    /// Pairs of nodes with an impossible round trip, as `A, B`.
    pub contradictions: Vec<String>,
    /// Nodes that can't be placed: samples between them and others are left out.
    pub unplaced: Vec<String>,
}

/// Packets from one node to another, and how close to impossible they are.
#[derive(Clone, Debug, Serialize)]
pub struct PairReport {
    /// Sender.
    pub from: String,
    /// Receiver.
    pub to: String,
    /// Packets that were sent once and received once.
    pub packets: u64,
    /// Smallest one-way delay (from IP to GRO, or to the receive ring if the wait there is logged) with the offsets
    /// applied: room left before it would be negative.
    pub min_delay_us: Option<f64>,
    /// How wrong times between the two nodes can be.
    pub clock_error_us: Option<f64>,
}

impl ClockReport {
    pub(crate) fn new(model: &Model) -> Self {
        let (clock, names) = (&model.clock, &model.hosts.nodes);
        let pair = |p: &crate::clock::Pair| PairReport {
            from: names[p.from].clone(),
            to: names[p.to].clone(),
            packets: p.packets,
            min_delay_us: clock.between(p.from as u16, 0, p.to as u16, p.min).map(micros),
            clock_error_us: clock.error(p.from as u16, p.to as u16).map(micros),
        };
        Self {
            basis: clock.basis,
            reference: names.get(clock.reference).cloned().unwrap_or_default(),
            nodes: clock.nodes(names),
            pairs: clock.pairs.iter().map(pair).collect(),
            contradictions: clock.contradictions.iter().map(|(a, b)| format!("{}, {}", names[*a], names[*b])).collect(),
            unplaced: clock.unplaced().into_iter().map(|i| names[i].clone()).collect(),
        }
    }

    /// A line for each node, and what is wrong.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let how = match self.basis {
            Basis::Packets => "added to its times",
            Basis::Counters => "by its counter, which is that of all",
            Basis::None => "not applied: times are as in the traces",
        };
        let _ = writeln!(out, "Clocks, set by {} (offset of each node, {how}):", self.reference);
        let _ = writeln!(out, "{:<16} {:>14} {:>10}", "Node", "Offset us", "Error us");
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_string(), |v| format!("{v:.3}"));
        for node in &self.nodes {
            let error = node.error_us.map_or_else(|| "-".to_string(), |e| format!("+-{e:.3}"));
            let _ = writeln!(out, "{:<16} {:>14} {:>10}", node.node, number(node.offset_us), error);
        }
        out
    }

    /// What could not be synchronised, one line each.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut all = Vec::new();
        for pair in &self.contradictions {
            all.push(format!(
                "clocks of {pair}: delays there and back add up to less than 0, which is impossible; \
                 a clock was set, or the traces are of different runs"
            ));
        }
        if self.nodes.len() > 1 && !self.unplaced.is_empty() {
            all.push(format!(
                "no clock offset for {}: no usable packets in both directions; times between these nodes and others are \
                 left out",
                self.unplaced.join(", ")
            ));
        }
        all
    }
}

/// What reading found.
#[derive(Clone, Debug, Serialize)]
pub struct ImportReport {
    /// Bytes of text.
    pub bytes: u64,
    /// Lines.
    pub lines: u64,
    /// Lines whose event is known.
    pub records: u64,
    /// Lines with messages that no analysis knows.
    pub unrecognised: u64,
    /// Lines that are no records.
    pub bad_lines: u64,
    /// Everything wrong, located, one sentence each.
    pub problems: Vec<String>,
    /// Each file.
    pub files: Vec<FileStats>,
}

/// Shapes of unrecognised messages that are reported for each file.
const SHAPES: usize = 20;

impl ImportReport {
    pub(crate) fn new(model: &Model) -> Self {
        let sum = |field: fn(&FileStats) -> u64| model.stats().map(field).sum();
        let mut files: Vec<FileStats> = model.stats().cloned().collect();
        files.iter_mut().for_each(|f| f.shapes.truncate(SHAPES));
        let mut problems: Vec<String> = files.iter().flat_map(FileStats::problems).collect();
        problems.extend(model.hosts.notes.iter().cloned());
        Self {
            bytes: sum(|s| s.bytes),
            lines: sum(|s| s.lines),
            records: sum(|s| s.records),
            unrecognised: sum(|s| s.unrecognised),
            bad_lines: sum(FileStats::bad_lines),
            problems,
            files,
        }
    }

    /// Totals in a line.
    pub(crate) fn line(&self) -> String {
        format!(
            "{} files, {} lines: {} events, {} with other messages, {} bad",
            self.files.len(),
            self.lines,
            self.records,
            self.unrecognised,
            self.bad_lines
        )
    }

    /// The most frequent unrecognised messages.
    pub(crate) fn shapes(&self) -> String {
        let mut out = String::new();
        for file in self.files.iter().filter(|f| !f.shapes.is_empty()) {
            let _ = writeln!(out, "Messages in {} that no analysis uses:", file.path.display());
            for shape in &file.shapes {
                let _ = writeln!(out, "{:>9}  {}", shape.count, shape.text);
            }
        }
        out
    }
}
