//! `delay`: where do packets and hand-offs spend time?
//!
//! Phases of a packet, from the sender's IP layer to the receiver's protocol code; the breakdown of the phases of slow
//! packets; hand-offs between cores and threads; time in homa_qdisc. What differs from the original program of the same
//! name, and why its figures on the same traces may be others:
//!
//! * Delays of 0 or less are samples. The original leaves them out, which hides bad clocks and moves every distribution
//!   up. Here they are listed by pair of nodes, with what the clocks' error allows.
//! * Each reception of a packet is a sample. The original keeps only the last one of equal (id, offset), and so most
//!   grants of a message that is fully granted already, which repeat one offset, have no sample or a wrong one there.
//! * `GRO to SoftIRQ` matches a batch with the invocation that processes the batch's first packet. The original takes
//!   hand-offs of a core first in, first out, which is wrong for good after one hand-off or invocation without a partner.
//! * A thread that found an RPC in its socket's queue counts also if it had slept before.
//! * `Pkts` of the breakdown is the number of packets in it, not of those with a NIC event.
//! * Equal ids of two clients are two RPCs.
//! * Of packets that were sent several times, Net and Total have only those receptions that can belong to one transmission
//!   only; the others are counted.

use std::path::PathBuf;

use serde::Serialize;
use serde::ser::SerializeMap;

use super::handoffs::{Handoff, Handoffs};
pub use super::journeys::{Excluded, Negative};
use super::journeys::{Group, Journey, Journeys, NOWHERE, Phase, SHORT_BYTES, journeys, negatives};
use super::stats::{average, micros, percentile};
use super::{Analysis, ClockReport, Distribution, ImportReport, Input, NodeReport, Options};
use crate::event::Kind;
use crate::packets::{Flow, UNSEEN};
use crate::read::ReadError;

pub(crate) const ANALYSIS: Analysis = Analysis {
    name: "delay",
    question: "Where do packets and hand-offs between cores and threads spend time?",
    needs: &[Kind::IpXmit, Kind::GroData, Kind::SoftirqData],
    uses: &[
        Kind::NicData,
        Kind::FreeTxSkb,
        Kind::RingWait,
        Kind::SendGrant,
        Kind::GroGrant,
        Kind::SoftirqGrant,
        Kind::NicGrant,
        Kind::FreeGrant,
        Kind::GroHandoff,
        Kind::SoftirqStart,
        Kind::RpcHandoff,
        Kind::RpcQueued,
        Kind::WaitFoundRpc,
        Kind::QdiscDefer,
        Kind::QdiscXmit,
    ],
};

/// What `delay` found. [`Report::to_table`] and [`Report::to_csv`] print it; it serializes to the JSON form.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this form.
    pub version: u32,
    /// `delay`.
    pub command: &'static str,
    /// Files and directories given.
    pub paths: Vec<PathBuf>,
    /// Options in effect.
    pub options: Options,
    /// Messages up to this length are short.
    pub short_bytes: u32,
    /// Nodes.
    pub nodes: Vec<NodeReport>,
    /// Clocks.
    pub clock: ClockReport,
    /// Phases of data packets of short messages, of other messages, and of grants.
    pub groups: Named<Named<Row>>,
    /// Phases of those packets whose total is between the 98th and the 99th percentile of the group.
    pub breakdown: Named<Breakdown>,
    /// Delays in handing off from one core or thread to another.
    pub handoffs: Named<Row>,
    /// Delays in homa_qdisc.
    pub qdisc: Named<Row>,
    /// Negative delays.
    pub negatives: Vec<Negative>,
    /// What could not be used.
    pub excluded: Excluded,
    /// Hand-offs that could not be used.
    pub handoffs_excluded: HandoffsExcluded,
    /// Slowest packets and hand-offs; only if verbose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slowest: Vec<Slow>,
    /// What reading found.
    pub import: ImportReport,
}

/// Items in an order, each with a name; a JSON object.
#[derive(Clone, Debug)]
pub struct Named<T>(pub Vec<(&'static str, T)>);

impl<T> Named<T> {
    /// The item of that name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, item)| item)
    }
}

impl<T: Serialize> Serialize for Named<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, item) in &self.0 {
            map.serialize_entry(name, item)?;
        }
        map.end()
    }
}

/// A row of a table: the distribution of one delay.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Samples.
    pub count: u64,
    /// Their distribution; all fields are absent if there are none.
    #[serde(flatten)]
    pub distribution: Option<Distribution>,
    /// Events that the delay is made of and that do not occur in any trace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_events: Vec<&'static str>,
}

impl Row {
    fn new(mut samples: Vec<i64>, needs: &[Kind], input: &Input) -> Self {
        samples.sort_unstable();
        let missing_events = if samples.is_empty() { input.missing(needs) } else { Vec::new() };
        Self { count: samples.len() as u64, distribution: Distribution::of(&samples), missing_events }
    }
}

/// Phases of the packets of a group whose total is about its 98th to 99th percentile.
#[derive(Clone, Debug, Serialize)]
pub struct Breakdown {
    /// Packets.
    pub packets: u64,
    /// Median and mean of each phase that has samples.
    pub phases: Named<Center>,
}

/// Middle of a distribution.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Center {
    /// Median.
    pub p50_us: f64,
    /// Mean.
    pub avg_us: f64,
}

/// Hand-offs without a delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HandoffsExcluded {
    /// GRO batches whose first packet or its invocation is not in the trace.
    pub batches_open: u64,
    /// Hand-offs to threads that were replaced by another of the same RPC before a thread took it.
    pub replaced: u64,
    /// Hand-offs to threads that are not over at the end of the trace.
    pub open: u64,
}

/// A slow packet or hand-off.
#[derive(Clone, Debug, Serialize)]
pub struct Slow {
    /// Group of packets, or kind of hand-off.
    pub group: &'static str,
    /// Phase, for packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<&'static str>,
    /// How long it took.
    pub delay_us: f64,
    /// `client id:offset`, with the id of the packet's sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packet: Option<String>,
    /// Where it ended.
    pub node: String,
    /// Core, for packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core: Option<u16>,
    /// When it ended, on the common clock (the node's own if it has no offset).
    pub end_us: f64,
    /// Share of samples that are not slower.
    pub percentile: f64,
}

/// Analyses the traces that `paths` name.
///
/// # Errors
///
/// As [`crate::read::read`].
pub fn delay(paths: &[PathBuf], options: &Options) -> Result<Report, ReadError> {
    let input = Input::read(paths, options)?;
    Ok(Report { paths: paths.to_vec(), ..of_input(&input, options) })
}

fn of_input(input: &Input, options: &Options) -> Report {
    let mut excluded = Excluded {
        ambiguous_records: input.hosts.ambiguous_records,
        unresolved_records: input.hosts.unresolved_records,
        lone_ring_waits: input.packets.lone_ring_waits,
        ..Excluded::default()
    };
    let groups = journeys(input, &mut excluded);
    let mut handoffs = Handoffs::default();
    for (node, trace) in input.traces.iter().enumerate() {
        handoffs.add(node as u16, trace);
    }
    let mut slowest = Vec::new();
    if options.verbose {
        slow_packets(input, &groups, &mut slowest);
        slow_handoffs(input, &handoffs, &mut slowest);
    }
    Report {
        version: 1,
        command: "delay",
        paths: Vec::new(),
        options: options.clone(),
        short_bytes: SHORT_BYTES,
        nodes: NodeReport::all(input),
        clock: ClockReport::new(input),
        groups: Named(Group::ALL.map(|group| (group.key(), phases(input, group, &groups[group as usize]))).to_vec()),
        breakdown: Named(Group::ALL.map(|group| (group.key(), breakdown(&groups[group as usize]))).to_vec()),
        negatives: negatives(input, &groups),
        handoffs_excluded: HandoffsExcluded {
            batches_open: handoffs.batches_open,
            replaced: handoffs.replaced,
            open: handoffs.open,
        },
        handoffs: handoff_rows(input, &handoffs),
        qdisc: qdisc(input),
        excluded,
        slowest,
        import: ImportReport::new(input),
    }
}

/// Events that a phase is made of.
fn needs(group: Group, phase: Phase) -> [Kind; 2] {
    use Kind::*;
    let [xmit, nic, gro, softirq, free] = match group {
        Group::Grants => [SendGrant, NicGrant, GroGrant, SoftirqGrant, FreeGrant],
        _ => [IpXmit, NicData, GroData, SoftirqData, FreeTxSkb],
    };
    match phase {
        Phase::Xmit => [xmit, nic],
        Phase::Net => [nic, gro],
        Phase::Ring => [RingWait, gro],
        Phase::SoftIrq => [gro, softirq],
        Phase::Free => [nic, free],
        Phase::Total => [xmit, softirq],
    }
}

fn phases(input: &Input, group: Group, journeys: &Journeys) -> Named<Row> {
    let has_ring = input.count(Kind::RingWait) > 0;
    let shown = Phase::ALL.into_iter().filter(|phase| *phase != Phase::Ring || has_ring);
    let row = |phase: Phase| {
        let samples = journeys.all.iter().filter_map(|j| j.sample(phase)).collect();
        (phase.key(), Row::new(samples, &needs(group, phase), input))
    };
    Named(shown.map(row).collect())
}

fn breakdown(journeys: &Journeys) -> Breakdown {
    let total = |j: &Journey| j.sample(Phase::Total);
    let mut totals: Vec<i64> = journeys.all.iter().filter_map(total).collect();
    totals.sort_unstable();
    let (Some(low), Some(high)) = (percentile(&totals, 98), percentile(&totals, 99)) else {
        return Breakdown { packets: 0, phases: Named(Vec::new()) };
    };
    let slow: Vec<&Journey> =
        journeys.all.iter().filter(|j| total(j).is_some_and(|t| (low..=high).contains(&t))).collect();
    let center = |phase: Phase| {
        // Here the times of a frame count for each packet of it.
        let mut samples: Vec<i64> = slow.iter().map(|j| j.phases[phase as usize]).filter(|v| *v != UNSEEN).collect();
        samples.sort_unstable();
        Some((phase.key(), Center { p50_us: micros(percentile(&samples, 50)?), avg_us: average(&samples)? }))
    };
    let phases = Phase::ALL.into_iter().filter(|p| *p != Phase::Total).filter_map(center).collect();
    Breakdown { packets: slow.len() as u64, phases: Named(phases) }
}

fn handoff_lists(handoffs: &Handoffs) -> [(&'static str, &Vec<Handoff>, &'static [Kind]); 5] {
    [
        ("gro_to_softirq", &handoffs.to_softirq, &[Kind::GroHandoff, Kind::SoftirqStart]),
        ("softirq_to_polling", &handoffs.to_polling, &[Kind::RpcHandoff, Kind::WaitFoundRpc]),
        ("softirq_to_sleeping", &handoffs.to_sleeping, &[Kind::RpcHandoff, Kind::WaitFoundRpc]),
        ("softirq_to_server_queue", &handoffs.to_server, &[Kind::RpcQueued, Kind::WaitFoundRpc]),
        ("softirq_to_client_queue", &handoffs.to_client, &[Kind::RpcQueued, Kind::WaitFoundRpc]),
    ]
}

fn handoff_rows(input: &Input, handoffs: &Handoffs) -> Named<Row> {
    let row = |(name, list, needs): (_, &Vec<Handoff>, &[Kind])| {
        (name, Row::new(list.iter().map(|h| h.delay).collect(), needs, input))
    };
    Named(handoff_lists(handoffs).map(row).to_vec())
}

fn qdisc(input: &Input) -> Named<Row> {
    let flow: &Flow = &input.packets.data;
    let sent = || flow.packets.iter().flat_map(|p| flow.sent_of(p));
    let samples = |from: fn(&crate::packets::Sent) -> i64, to: fn(&crate::packets::Sent) -> i64| {
        let seen = sent().map(|s| (from(s), to(s))).filter(|(from, to)| *from != UNSEEN && *to != UNSEEN);
        seen.map(|(from, to)| to - from).collect::<Vec<i64>>()
    };
    let deferred = samples(|s| s.deferred, |s| s.undeferred);
    let to_nic = samples(|s| s.undeferred, |s| s.nic);
    Named(vec![
        ("deferred", Row::new(deferred, &[Kind::QdiscDefer, Kind::QdiscXmit], input)),
        ("pacer_to_nic", Row::new(to_nic, &[Kind::QdiscXmit, Kind::NicData], input)),
    ])
}

/// Places of up to `most` of the `n` slowest samples, spread over the slowest 2 %.
fn spread(n: usize, most: usize, step: usize) -> impl Iterator<Item = usize> {
    (0..most).map(move |k| k * step.max(1)).take_while(move |k| *k < n).map(move |k| n - 1 - k)
}

fn slow_packets(input: &Input, groups: &[Journeys; 3], out: &mut Vec<Slow>) {
    for group in Group::ALL {
        let flow = if group == Group::Grants { &input.packets.grants } else { &input.packets.data };
        for phase in Phase::ALL {
            let with_sample = |j: &&Journey| j.sample(phase).is_some();
            let mut sorted: Vec<&Journey> = groups[group as usize].all.iter().filter(with_sample).collect();
            sorted.sort_by_key(|j| j.sample(phase));
            for place in spread(sorted.len(), 20, sorted.len() / 1000) {
                let journey = sorted[place];
                let packet = &flow.packets[journey.packet as usize];
                let message = &input.packets.messages[packet.message as usize];
                let node = if journey.to == NOWHERE { journey.from } else { journey.to };
                out.push(Slow {
                    group: group.key(),
                    phase: Some(phase.key()),
                    delay_us: micros(journey.phases[phase as usize]),
                    packet: Some(format!("{} {}:{}", input.hosts.name(message.client), message.id, packet.offset)),
                    node: input.hosts.name(node),
                    core: Some(journey.core),
                    end_us: common(input, node, journey.end),
                    percentile: 100.0 * (place + 1) as f64 / sorted.len() as f64,
                });
            }
        }
    }
}

fn slow_handoffs(input: &Input, handoffs: &Handoffs, out: &mut Vec<Slow>) {
    for (name, list, _) in handoff_lists(handoffs) {
        let mut sorted: Vec<&Handoff> = list.iter().collect();
        sorted.sort_by_key(|h| h.delay);
        for place in spread(sorted.len(), 10, sorted.len() / 500) {
            let handoff = sorted[place];
            out.push(Slow {
                group: name,
                phase: None,
                delay_us: micros(handoff.delay),
                packet: None,
                node: input.hosts.name(handoff.node),
                core: None,
                end_us: common(input, handoff.node, handoff.end),
                percentile: 100.0 * (place + 1) as f64 / sorted.len() as f64,
            });
        }
    }
}

/// A node's time on the common clock, in us.
fn common(input: &Input, node: u16, time: i64) -> f64 {
    micros(time + input.clock.offset(usize::from(node)).unwrap_or(0))
}

#[cfg(test)]
#[path = "delay_tests.rs"]
mod tests;
