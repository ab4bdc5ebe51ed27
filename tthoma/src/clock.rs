//! One time base for all nodes: offsets from the smallest one-way delays, and how wrong they can be.
//!
//! Each trace has a clock of its own. If the smallest delay from A to B, measured with these clocks, is `m`, then adding
//! `o` to each clock must leave it at 0 or more: `o[A] - o[B] <= m`. The shortest paths through all such constraints
//! bound the offset of each node from both sides, also of nodes that never exchanged a packet with the reference
//! (timetrace.md 2.2). The middle of the bounds is taken; it satisfies every constraint between any two nodes, and no
//! true offset can be farther away than half their distance. Drift of clocks within a trace is not estimated.
//!
//! Two things make the bounds tight and safe beyond that. Where a stack logs how long a packet lay in its receive ring, the
//! time of arrival is used instead of that of GRO: on busy nodes the wait is most of the delay. And packets of messages
//! whose start the sender's trace shows are preferred, as others may have been sent before the trace began, too.

use serde::Serialize;

use crate::analyze::Options;
use crate::packets::{Flow, Packets, UNSEEN, is_retransmitted};
use crate::read::Counter;

/// Offsets of all nodes' clocks. All times in ns.
#[derive(Clone, Debug)]
pub struct Clock {
    offsets: Vec<Option<i64>>,
    /// `bound[i][j]`: no pair of offsets with `o[i] - o[j]` above this is possible.
    bound: Vec<Vec<Option<i64>>>,
    /// Node whose clock all others are set by.
    pub reference: usize,
    /// Smallest delay of each ordered pair of nodes that exchanged packets, on their own clocks.
    pub pairs: Vec<Pair>,
    /// Pairs of nodes whose delays there and back add up to 0 or less, which is impossible.
    pub contradictions: Vec<(usize, usize)>,
    /// What the offsets are taken from.
    pub basis: Basis,
}

/// What offsets of clocks are taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Delays of packets there and back.
    #[default]
    Packets,
    /// One counter that all nodes have.
    Counters,
    /// Nothing: times are used as they are in the traces.
    None,
}

/// Packets from one node to another.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Sender.
    pub from: usize,
    /// Receiver.
    pub to: usize,
    /// Packets used: those that were sent once and received once.
    pub packets: u64,
    /// Smallest difference of reception (at GRO, or in the receive ring if its wait there is logged) and transmission,
    /// each on its own clock.
    pub min: i64,
}

/// A node's clock, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct NodeClock {
    /// The node.
    pub node: String,
    /// Added to its times; null if it can't be placed.
    pub offset_us: Option<f64>,
    /// Smallest possible offset.
    pub min_us: Option<f64>,
    /// Largest possible offset.
    pub max_us: Option<f64>,
    /// No true offset is farther away from `offset_us` than this.
    pub error_us: Option<f64>,
}

impl Clock {
    /// Estimates the offsets of `nodes` nodes.
    pub fn estimate(nodes: usize, packets: &Packets) -> Self {
        let mut witnesses = Witnesses::new(nodes);
        witnesses.add(packets);
        Self::of(witnesses)
    }

    /// Offsets as witnesses have it.
    pub(crate) fn of(witnesses: Witnesses) -> Self {
        Self::from_pairs(witnesses.nodes, witnesses.into_pairs())
    }

    /// Offsets from the smallest delays of pairs of nodes.
    pub(crate) fn from_pairs(nodes: usize, pairs: Vec<Pair>) -> Self {
        let min = |from, to| pairs.iter().find(|p: &&Pair| (p.from, p.to) == (from, to)).map(|p| p.min);
        let mut direct = vec![vec![None; nodes]; nodes];
        let mut contradictions = Vec::new();
        (0..nodes).for_each(|i| direct[i][i] = Some(0));
        for pair in &pairs {
            let (i, j) = (pair.from, pair.to);
            match min(j, i) {
                Some(back) if pair.min + back <= 0 && i < j => contradictions.push((i, j)),
                Some(back) if pair.min + back <= 0 => {}
                _ => direct[i][j] = Some(pair.min),
            }
        }
        let both_ways = |i: usize| (0..nodes).any(|j| i != j && direct[i][j].is_some() && direct[j][i].is_some());
        let reference = (0..nodes).find(|i| both_ways(*i)).unwrap_or(0);
        let mut removed: Vec<bool> = vec![false; nodes];
        let bound = loop {
            let bound = shortest_paths(&direct, &removed);
            // A negative cycle: constraints that no offsets satisfy. Give up the node that is worst off.
            let worst = (0..nodes).filter(|i| *i != reference && bound[*i][*i] < Some(0)).min_by_key(|i| bound[*i][*i]);
            let Some(worst) = worst else { break bound };
            removed[worst] = true;
        };
        let offset = |i: usize| Some((bound[i][reference]? - bound[reference][i]?).div_euclid(2));
        Self {
            offsets: (0..nodes).map(offset).collect(),
            bound,
            reference,
            pairs,
            contradictions,
            basis: Basis::Packets,
        }
    }

    /// The same knowledge, but with the traces' times as they are.
    pub fn unapplied(mut self) -> Self {
        self.offsets.fill(Some(0));
        self.basis = Basis::None;
        self
    }

    /// The same knowledge, but with offsets as the counters at the traces' times 0 have them, which must be one for all
    /// nodes. A node whose trace does not tell its counter can't be placed.
    pub fn set_by(mut self, counters: &[Option<Counter>]) -> Self {
        self.reference = counters.iter().position(Option::is_some).unwrap_or(0);
        let reference = counters.get(self.reference).copied().flatten();
        self.offsets = counters.iter().map(|counter| Some((*counter)?.since(reference?))).collect();
        let apart = |i: &Option<i64>, j: &Option<i64>| Some((*i)? - (*j)?);
        self.bound = self.offsets.iter().map(|i| self.offsets.iter().map(|j| apart(i, j)).collect()).collect();
        self.contradictions.clear();
        self.basis = Basis::Counters;
        self
    }

    /// The same knowledge, used as the options say; `counters` of the nodes' traces.
    pub(crate) fn used<'a>(self, options: &Options, counters: impl Iterator<Item = &'a Option<Counter>>) -> Self {
        if options.one_clock {
            self.set_by(&counters.copied().collect::<Vec<_>>())
        } else if options.no_sync {
            self.unapplied()
        } else {
            self
        }
    }

    /// What to add to the times of `node`; `None` if it can't be placed.
    pub fn offset(&self, node: usize) -> Option<i64> {
        self.offsets[node]
    }

    /// Time from `sent` on node `from` to `received` on node `to`; `None` if one of them can't be placed.
    #[inline]
    pub fn between(&self, from: u16, sent: i64, to: u16, received: i64) -> Option<i64> {
        Some(received + self.offsets[usize::from(to)]? - sent - self.offsets[usize::from(from)]?)
    }

    /// How wrong a time between two nodes can be; 0 for a node and itself, `None` if nothing bounds it.
    pub fn error(&self, from: u16, to: u16) -> Option<i64> {
        let (from, to) = (usize::from(from), usize::from(to));
        if from == to {
            return Some(0);
        }
        let difference = self.offsets[from]? - self.offsets[to]?;
        let (above, below) = (self.bound[from][to]? - difference, self.bound[to][from]? + difference);
        Some(above.abs().max(below.abs()))
    }

    /// Nodes that can't be placed.
    pub fn unplaced(&self) -> Vec<usize> {
        (0..self.offsets.len()).filter(|i| self.offsets[*i].is_none()).collect()
    }

    /// Each node's clock.
    pub fn nodes(&self, names: &[String]) -> Vec<NodeClock> {
        let micros = |ns: Option<i64>| ns.map(|ns| ns as f64 / 1000.0);
        let node = |(i, name): (usize, &String)| NodeClock {
            node: name.clone(),
            offset_us: micros(self.offsets[i]),
            min_us: micros(self.bound[self.reference][i].map(|b| -b)),
            max_us: micros(self.bound[i][self.reference]),
            error_us: micros(self.error(self.reference as u16, i as u16)),
        };
        names.iter().enumerate().map(node).collect()
    }
}

/// How wrong the kernel's receive time stamps can be on a trace's clock: it takes readings of both clocks to compare them.
const STAMP_ERROR: i64 = 1000;

/// Smallest delays of packets that were sent once and received once. A packet that may have been sent again is no witness:
/// its reception may belong to either transmission.
pub(crate) struct Witnesses {
    nodes: usize,
    /// Of messages that the trace shows from their start.
    certain: Vec<Pair>,
    /// Of other messages: an earlier transmission may be before the trace. Used where there are no better ones.
    others: Vec<Pair>,
}

impl Witnesses {
    pub(crate) fn new(nodes: usize) -> Self {
        let pair = |i| Pair { from: i / nodes, to: i % nodes, packets: 0, min: i64::MAX };
        let none: Vec<Pair> = (0..nodes * nodes).map(pair).collect();
        Self { nodes, certain: none.clone(), others: none }
    }

    /// Adds these packets.
    pub(crate) fn add(&mut self, packets: &Packets) {
        self.measure(&packets.data, packets);
        self.measure(&packets.grants, packets);
    }

    fn measure(&mut self, flow: &Flow, packets: &Packets) {
        for packet in &flow.packets {
            if (packet.sent_count(), packet.received_count()) != (1, 1) {
                continue;
            }
            let (Some(sent), Some(received)) = (flow.sent_of(packet).next(), flow.received_of(packet).next()) else {
                continue;
            };
            let message = &packets.messages[packet.message as usize];
            let again = sent.again || is_retransmitted(message, packet.offset);
            if again || sent.xmit == UNSEEN || received.gro == UNSEEN || sent.node == received.node {
                continue;
            }
            let place = usize::from(sent.node) * self.nodes + usize::from(received.node);
            let pair = if message.started { &mut self.certain[place] } else { &mut self.others[place] };
            pair.packets += 1;
            let stamp_error = if received.ring().is_some() { STAMP_ERROR } else { 0 };
            pair.min = pair.min.min(received.time() + stamp_error - sent.xmit);
        }
    }

    fn into_pairs(self) -> Vec<Pair> {
        let best = self.certain.into_iter().zip(self.others).map(|(c, o)| if c.packets > 0 { c } else { o });
        best.filter(|p| p.packets > 0).collect()
    }
}

/// Shortest paths between all nodes that are not `removed` (Floyd and Warshall).
fn shortest_paths(direct: &[Vec<Option<i64>>], removed: &[bool]) -> Vec<Vec<Option<i64>>> {
    let nodes = direct.len();
    let mut bound = direct.to_vec();
    for (i, row) in bound.iter_mut().enumerate() {
        for (j, cell) in row.iter_mut().enumerate() {
            if (removed[i] || removed[j]) && i != j {
                *cell = None;
            }
        }
    }
    for via in 0..nodes {
        for i in 0..nodes {
            for j in 0..nodes {
                if let (Some(a), Some(b)) = (bound[i][via], bound[via][j]) {
                    // Negative cycles would grow beyond all bounds; that they are negative is all that matters.
                    let path = a.saturating_add(b).max(i64::MIN / 4);
                    bound[i][j] = Some(bound[i][j].map_or(path, |known| known.min(path)));
                }
            }
        }
    }
    bound
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::Model;
    use crate::read::{Format, parse_text};

    fn pair(from: usize, to: usize, min: i64) -> Pair {
        Pair { from, to, packets: 1, min }
    }

    /// Pairs as clocks that are `ahead` would measure them, with the true smallest `delays`.
    fn pairs(ahead: &[i64], delays: &[(usize, usize, i64)]) -> Vec<Pair> {
        delays.iter().map(|(from, to, delay)| pair(*from, *to, delay + ahead[*to] - ahead[*from])).collect()
    }

    #[test]
    fn a_planted_offset_is_found_within_its_bound() {
        for ahead in [0, 7_279_257, -1_744_768, 30_104_500_000] {
            let clock = Clock::from_pairs(2, pairs(&[0, ahead], &[(0, 1, 4000), (1, 0, 9000)]));
            let error = clock.error(0, 1).unwrap();
            assert_eq!(error, 6500);
            assert!((clock.offset(1).unwrap() + ahead).abs() <= error, "{ahead}");
            assert_eq!(clock.offset(1), Some(-ahead + (9000 - 4000) / 2));
        }
    }

    #[test]
    fn a_node_is_placed_through_another() {
        let ahead = [0, 5_000_000, -3_000_000];
        let delays = [(0, 1, 1000), (1, 0, 2000), (1, 2, 3000), (2, 1, 1000)];
        let clock = Clock::from_pairs(3, pairs(&ahead, &delays));
        for (node, ahead) in ahead.iter().enumerate() {
            let error = clock.error(0, node as u16).unwrap();
            assert!((clock.offset(node).unwrap() + ahead).abs() <= error, "{node}");
        }
        assert_eq!((clock.error(0, 1), clock.error(0, 2), clock.error(1, 2)), (Some(1500), Some(3500), Some(2000)));
    }

    #[test]
    fn no_delay_becomes_negative() {
        let ahead = [0, 5_000_000, -3_000_000, 77];
        let mut delays = Vec::new();
        for (i, j) in (0..4).flat_map(|i| (0..4).map(move |j| (i, j))).filter(|(i, j)| i != j) {
            delays.push((i, j, ((i * 7 + j * 13) % 5 * 1000 + 500) as i64));
        }
        let clock = Clock::from_pairs(4, pairs(&ahead, &delays));
        for Pair { from, to, min, .. } in &clock.pairs {
            let delay = clock.between(*from as u16, 0, *to as u16, *min).unwrap();
            assert!(delay >= -1, "{from} to {to}: {delay}");
        }
    }

    #[test]
    fn a_node_without_traffic_both_ways_is_not_placed() {
        let clock = Clock::from_pairs(3, vec![pair(0, 1, 1000), pair(1, 0, 1000), pair(0, 2, 1000)]);
        assert_eq!(clock.unplaced(), [2]);
        assert_eq!(clock.between(0, 0, 2, 0), None);
        assert_eq!(clock.error(0, 2), None);
        let clock = Clock::from_pairs(3, vec![pair(2, 1, 1000), pair(1, 2, 1000)]);
        assert_eq!((clock.reference, clock.unplaced()), (1, vec![0]));
    }

    #[test]
    fn impossible_delays_place_nothing() {
        let clock = Clock::from_pairs(2, vec![pair(0, 1, 1000), pair(1, 0, -1001)]);
        assert_eq!(clock.contradictions, [(0, 1)]);
        assert_eq!(clock.unplaced(), [1]);
        // Each pair is possible, the triangle is not: one node goes, the others stay.
        let triangle =
            vec![pair(0, 1, -10), pair(1, 0, 50), pair(1, 2, -10), pair(2, 1, 50), pair(2, 0, -10), pair(0, 2, 50)];
        let clock = Clock::from_pairs(3, triangle);
        assert_eq!(clock.unplaced().len(), 1);
        assert_eq!(clock.offset(0), Some(0));
    }

    #[test]
    fn nodes_with_one_counter_are_set_by_it_without_error() {
        let counter = |cycles| Some(Counter { cycles, ghz: 2.0 });
        let clock = Clock::from_pairs(4, pairs(&[0, 2000, 0], &[(0, 1, 4000), (1, 0, 4000)]));
        let clock = clock.set_by(&[None, counter(5000), counter(9000), counter(1000)]);
        assert_eq!((clock.reference, clock.basis), (1, Basis::Counters));
        assert_eq!((0..4).map(|node| clock.offset(node)).collect::<Vec<_>>(), [None, Some(0), Some(2000), Some(-2000)]);
        assert_eq!((clock.between(3, 100, 2, 50), clock.error(3, 2), clock.error(0, 1)), (Some(3950), Some(0), None));
    }

    #[test]
    fn raw_traces_are_placed_by_their_counters_too() {
        let trace =
            |node: &str, text: &str| parse_text(Path::new("timetrace"), node, Format::Plain, &mut text.as_bytes());
        let raw =
            trace("raw", "cpu_khz: 2000000\n9000 [C01] homa_softirq starting\n9400 [C01] homa_softirq starting\n");
        let log = trace("log", "x cpu_khz: 2000000, start: 5000\nx 5200 [C01] homa_softirq starting\n");
        let tt =
            trace("tt", "0.000 us (+ 0.000 us) [C00] First event has timestamp 7000 (cpu_ghz 2.000000000000000)\n");
        let options = Options { one_clock: true, ..Options::default() };
        let model = Model::new(vec![raw, log, tt], &options);
        let offsets: Vec<_> = (0..3).map(|node| model.clock.offset(node)).collect();
        assert_eq!(offsets, [Some(0), Some(-2000), Some(-1000)]);
        assert_eq!((model.span(0), model.span(1)), (Some((0, 200)), Some((-1900, -1900))));
    }

    #[test]
    fn unapplied_offsets_are_zero_and_their_error_is_known() {
        let clock = Clock::from_pairs(2, pairs(&[0, 2000], &[(0, 1, 4000), (1, 0, 4000)])).unapplied();
        assert_eq!((clock.offset(1), clock.error(0, 1), clock.basis), (Some(0), Some(6000), Basis::None));
    }
}
