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

use super::{About, Analyzer, Distribution, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::{Excluded, Group, Handoff, Handoffs, Journey, Model, Phase};
use crate::packets::{Held, Sent, UNSEEN};
use crate::stats::{average, micros, percentile};

use super::delay_negatives::{Negative, negatives};

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Delay;

impl Analyzer for Delay {
    fn about(&self) -> &'static About {
        &About {
            name: "delay",
            question: "Where do packets and hand-offs between cores and threads spend time?",
            source: "timetrace.md 5.6",
            needs: Needs::Any(&[
                Kind::IpXmit,
                Kind::GroData,
                Kind::SoftirqData,
                Kind::SendGrant,
                Kind::GroGrant,
                Kind::WaitFoundRpc,
            ]),
            uses: &[
                Kind::NicData,
                Kind::FreeTxSkb,
                Kind::RingWait,
                Kind::SoftirqGrant,
                Kind::NicGrant,
                Kind::FreeGrant,
                Kind::GroHandoff,
                Kind::SoftirqStart,
                Kind::RpcHandoff,
                Kind::RpcQueued,
                Kind::QdiscDefer,
                Kind::QdiscXmit,
            ],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        Delays::find(model, options).report(options)
    }
}

/// What was found, before it becomes tables.
#[derive(Clone, Debug)]
pub(super) struct Delays {
    /// Phases of data packets of short messages, of other messages, and of grants.
    pub(super) groups: Named<Named<Row>>,
    /// Phases of those packets whose total is between the 98th and the 99th percentile of the group.
    pub(super) breakdown: Named<Breakdown>,
    /// Delays in handing off from one core or thread to another.
    pub(super) handoffs: Named<Row>,
    /// Delays in homa_qdisc.
    pub(super) qdisc: Named<Row>,
    /// Negative delays.
    pub(super) negatives: Vec<Negative>,
    /// What could not be used.
    pub(super) excluded: Excluded,
    /// Hand-offs that could not be used.
    pub(super) handoffs_excluded: HandoffsExcluded,
    /// Slowest packets and hand-offs; only if verbose.
    pub(super) slowest: Vec<Slow>,
}

/// Items in an order, each with a name.
#[derive(Clone, Debug)]
pub(super) struct Named<T>(pub(super) Vec<(&'static str, T)>);

impl<T> Named<T> {
    /// The item of that name.
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, item)| item)
    }
}

/// A row of a table: the distribution of one delay.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Samples.
    pub(super) count: u64,
    /// Their distribution; all fields are absent if there are none.
    pub(super) distribution: Option<Distribution>,
    /// Events that the delay is made of and that do not occur in any trace.
    pub(super) missing_events: Vec<&'static str>,
}

impl Row {
    fn new(mut samples: Vec<i64>, needs: &[Kind], model: &Model) -> Self {
        samples.sort_unstable();
        let missing_events = if samples.is_empty() { model.missing(needs) } else { Vec::new() };
        Self { count: samples.len() as u64, distribution: Distribution::of(&samples), missing_events }
    }
}

/// Phases of the packets of a group whose total is about its 98th to 99th percentile.
#[derive(Clone, Debug)]
pub(super) struct Breakdown {
    /// Packets.
    pub(super) packets: u64,
    /// Median and mean of each phase that has samples.
    pub(super) phases: Named<Center>,
}

/// Middle of a distribution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Center {
    /// Median.
    pub(super) p50_us: f64,
    /// Mean.
    pub(super) avg_us: f64,
}

/// Hand-offs without a delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HandoffsExcluded {
    /// GRO batches whose first packet or its invocation is not in the trace.
    pub(super) batches_open: u64,
    /// Hand-offs to threads that were replaced by another of the same RPC before a thread took it.
    pub(super) replaced: u64,
    /// Hand-offs to threads that are not over at the end of the trace.
    pub(super) open: u64,
}

/// A slow packet or hand-off.
#[derive(Clone, Debug)]
pub(super) struct Slow {
    /// Group of packets, or kind of hand-off.
    pub(super) group: &'static str,
    /// Phase, for packets.
    pub(super) phase: Option<&'static str>,
    /// How long it took.
    pub(super) delay_us: f64,
    /// `client id:offset`, with the id of the packet's sender.
    pub(super) packet: Option<String>,
    /// Where it ended.
    pub(super) node: String,
    /// Core, for packets.
    pub(super) core: Option<u16>,
    /// When it ended, on the common clock (the node's own if it has no offset).
    pub(super) end_us: f64,
    /// Share of samples that are not slower.
    pub(super) percentile: f64,
}

impl Delays {
    pub(super) fn find(model: &Model, options: &Options) -> Self {
        let groups = samples(model);
        let handoffs = model.handoffs();
        let mut slowest = Vec::new();
        if options.verbose {
            slow_packets(model, &mut slowest);
            slow_handoffs(model, handoffs, &mut slowest);
        }
        Self {
            breakdown: Named(breakdown(model, &groups)),
            negatives: negatives(model),
            handoffs_excluded: HandoffsExcluded {
                batches_open: handoffs.batches_open,
                replaced: handoffs.replaced,
                open: handoffs.open,
            },
            handoffs: handoff_rows(model, handoffs),
            qdisc: qdisc(model),
            excluded: model.journeys().excluded,
            slowest,
            groups: Named(
                groups.into_iter().zip(Group::ALL).map(|(s, group)| (group.key(), s.rows(model, group))).collect(),
            ),
        }
    }
}

/// Sorted samples of the phases of one group.
struct Samples([Vec<i64>; 6]);

/// Those of each group that reports have.
fn samples(model: &Model) -> [Samples; 3] {
    let parts = model.in_parts(|journeys| {
        let mut samples: [[Vec<i64>; 6]; 3] = Default::default();
        for journey in journeys.filter(|j| j.group() != Group::Unknown) {
            for phase in Phase::ALL {
                samples[journey.group() as usize][phase as usize].extend(journey.sample(&model.clock, phase));
            }
        }
        samples.iter_mut().flatten().for_each(|s| s.sort_unstable());
        samples
    });
    let mut all: [Samples; 3] = std::array::from_fn(|_| Samples(Default::default()));
    for part in parts {
        let pairs = all.iter_mut().flat_map(|s| &mut s.0).zip(part.into_iter().flatten());
        pairs.for_each(|(all, part)| if all.is_empty() { *all = part } else { all.extend(part) });
    }
    // Where parts are in order, this sort merges them.
    all.iter_mut().flat_map(|s| &mut s.0).for_each(|s| s.sort());
    all
}

impl Samples {
    fn rows(self, model: &Model, group: Group) -> Named<Row> {
        let has_ring = model.count(Kind::RingWait) > 0;
        let rows = self.0.into_iter().zip(Phase::ALL).filter(|(_, phase)| *phase != Phase::Ring || has_ring);
        Named(rows.map(|(samples, phase)| (phase.key(), Row::new(samples, &needs(group, phase), model))).collect())
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

/// Of each group.
fn breakdown(model: &Model, samples: &[Samples; 3]) -> Vec<(&'static str, Breakdown)> {
    let ranges = Group::ALL.map(|group| {
        let totals = &samples[group as usize].0[Phase::Total as usize];
        percentile(totals, 98).zip(percentile(totals, 99))
    });
    let is_slow = |j: &Journey<'_>| {
        let range = ranges.get(j.group() as usize).copied().flatten();
        range.is_some_and(|(low, high)| j.phase(&model.clock, Phase::Total).is_some_and(|t| (low..=high).contains(&t)))
    };
    // Here the times of a frame count for each packet of it.
    let phases = |j: Journey<'_>| (j.group(), Phase::ALL.map(|phase| j.phase(&model.clock, phase)));
    let slow: Vec<Vec<(Group, [Option<i64>; 6])>> =
        model.in_parts(|journeys| journeys.filter(is_slow).map(phases).collect());
    let one = |group: Group| {
        let slow: Vec<_> = slow.iter().flatten().filter(|(of, _)| *of == group).map(|(_, phases)| phases).collect();
        let center = |phase: Phase| {
            let mut samples: Vec<i64> = slow.iter().filter_map(|phases| phases[phase as usize]).collect();
            samples.sort_unstable();
            Some((phase.key(), Center { p50_us: micros(percentile(&samples, 50)?), avg_us: average(&samples)? }))
        };
        let phases = Phase::ALL.into_iter().filter(|p| *p != Phase::Total).filter_map(center).collect();
        (group.key(), Breakdown { packets: slow.len() as u64, phases: Named(phases) })
    };
    Group::ALL.map(one).to_vec()
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

fn handoff_rows(model: &Model, handoffs: &Handoffs) -> Named<Row> {
    let row = |(name, list, needs): (_, &Vec<Handoff>, &[Kind])| {
        (name, Row::new(list.iter().map(|h| h.delay).collect(), needs, model))
    };
    Named(handoff_lists(handoffs).map(row).to_vec())
}

fn qdisc(model: &Model) -> Named<Row> {
    let flow = &model.packets.data;
    let sent = || flow.packets.iter().flat_map(|p| flow.sent_of(p));
    let samples = |from: fn(&Held, &Sent) -> i64, to: fn(&Held, &Sent) -> i64| {
        let held = |s| flow.held_of(s);
        let seen =
            sent().map(|s| (from(&held(s), s), to(&held(s), s))).filter(|(from, to)| *from != UNSEEN && *to != UNSEEN);
        seen.map(|(from, to)| to - from).collect::<Vec<i64>>()
    };
    let deferred = samples(|held, _| held.deferred, |held, _| held.undeferred);
    let to_nic = samples(|held, _| held.undeferred, |_, sent| sent.nic);
    Named(vec![
        ("deferred", Row::new(deferred, &[Kind::QdiscDefer, Kind::QdiscXmit], model)),
        ("pacer_to_nic", Row::new(to_nic, &[Kind::QdiscXmit, Kind::NicData], model)),
    ])
}

/// Places of up to `most` of the `n` slowest samples, spread over the slowest 2 %.
fn spread(n: usize, most: usize, step: usize) -> impl Iterator<Item = usize> {
    (0..most).map(move |k| k * step.max(1)).take_while(move |k| *k < n).map(move |k| n - 1 - k)
}

fn slow_packets(model: &Model, out: &mut Vec<Slow>) {
    for group in Group::ALL {
        for phase in Phase::ALL {
            let mut sorted = Vec::new();
            for journey in model.data().chain(model.grants()).filter(|j| j.group() == group) {
                sorted.extend(journey.sample(&model.clock, phase).map(|delay| (delay, journey)));
            }
            sorted.sort_by_key(|(delay, _)| *delay);
            for place in spread(sorted.len(), 20, sorted.len() / 1000) {
                let (delay, journey) = &sorted[place];
                let (message, offset) = (journey.message, journey.packet.offset);
                out.push(Slow {
                    group: group.key(),
                    phase: Some(phase.key()),
                    delay_us: micros(*delay),
                    packet: Some(format!("{} {}:{offset}", model.hosts.name(message.client), message.id)),
                    node: model.hosts.name(journey.node()),
                    core: Some(journey.core()),
                    end_us: model.common(journey.node(), journey.end()),
                    percentile: 100.0 * (place + 1) as f64 / sorted.len() as f64,
                });
            }
        }
    }
}

fn slow_handoffs(model: &Model, handoffs: &Handoffs, out: &mut Vec<Slow>) {
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
                node: model.hosts.name(handoff.node),
                core: None,
                end_us: model.common(handoff.node, handoff.end),
                percentile: 100.0 * (place + 1) as f64 / sorted.len() as f64,
            });
        }
    }
}

#[cfg(test)]
#[path = "delay_tests.rs"]
mod tests;
