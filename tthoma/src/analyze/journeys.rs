//! The way of each packet from sender to receiver, as the times that each phase took.

use rustc_hash::FxHashMap;

use super::Input;
use super::pairing::{First, pair};
use crate::packets::{Flow, Packet, Received, Sent, UNSEEN};

/// Phases of a packet's way, in the order of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub(crate) enum Phase {
    /// From IP to the NIC.
    Xmit,
    /// From the NIC to GRO on the other node.
    Net,
    /// The part of Net that the packet lay in the receive ring.
    Ring,
    /// From GRO to SoftIRQ.
    SoftIrq,
    /// From the NIC back to the driver.
    Free,
    /// From IP to SoftIRQ on the other node.
    Total,
}

impl Phase {
    pub(crate) const ALL: [Self; 6] = [Self::Xmit, Self::Net, Self::Ring, Self::SoftIrq, Self::Free, Self::Total];

    /// Name in tables.
    pub(crate) fn title(self) -> &'static str {
        ["Xmit", "Net", "Ring", "SoftIRQ", "Free", "Total"][self as usize]
    }

    /// Name in JSON and CSV.
    pub(crate) fn key(self) -> &'static str {
        ["xmit", "net", "ring", "softirq", "free", "total"][self as usize]
    }
}

/// Packets that are reported together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Data of short messages.
    Short,
    /// Data of other messages.
    Long,
    /// Grants.
    Grants,
}

impl Group {
    pub(crate) const ALL: [Self; 3] = [Self::Short, Self::Long, Self::Grants];

    pub(crate) fn key(self) -> &'static str {
        ["short", "long", "grants"][self as usize]
    }
}

/// Messages up to this length are short.
pub(crate) const SHORT_BYTES: u32 = 1000;

/// One transmission, one reception, or one of each that belong together. Times in ns, [`UNSEEN`] if unknown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Journey {
    pub(crate) phases: [i64; 6],
    /// The packet is the first of its frame: times of the frame count once.
    pub(crate) first_of_frame: bool,
    /// Index in the flow.
    pub(crate) packet: u32,
    /// Sending and receiving node, [`NOWHERE`] if unknown.
    pub(crate) from: u16,
    pub(crate) to: u16,
    /// Core of the receiver (SoftIRQ, else GRO).
    pub(crate) core: u16,
    /// Last known time, on the clock of the node where it was seen.
    pub(crate) end: i64,
}

/// No node.
pub(crate) const NOWHERE: u16 = u16::MAX;

impl Journey {
    /// The time of `phase`, if it counts for this packet.
    pub(crate) fn sample(&self, phase: Phase) -> Option<i64> {
        let of_frame = matches!(phase, Phase::Xmit | Phase::Free);
        let value = self.phases[phase as usize];
        (value != UNSEEN && (!of_frame || self.first_of_frame)).then_some(value)
    }
}

/// What could not be used, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Excluded {
    /// Receptions of packets that were sent or received several times, where either transmission may be the one that
    /// arrived: not in Net and Total.
    pub ambiguous_retransmissions: u64,
    /// Packets between nodes whose clocks can't be compared: not in Net and Total.
    pub unsynchronised: u64,
    /// Transmissions and receptions of messages of unknown length: in no group.
    pub unknown_length: u64,
    /// Packets in SoftIRQ that GRO saw before the trace's start: not in SoftIRQ.
    pub softirq_without_gro: u64,
    /// Packets at GRO that did not reach SoftIRQ before the trace's end: not in SoftIRQ and Total.
    pub gro_without_softirq: u64,
    /// Data packets that SoftIRQ threw away, as their RPC did not exist: not in SoftIRQ and Total.
    pub discarded: u64,
    /// Records whose RPC id several clients used with one server, and that do not say which.
    pub ambiguous_records: u64,
    /// Records of RPCs whose client no record tells: only in what happens on one node.
    pub unresolved_records: u64,
    /// `ring_wait` events that follow no packet.
    pub lone_ring_waits: u64,
}

/// Journeys of one group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journeys {
    pub(crate) all: Vec<Journey>,
}

/// All journeys by group.
pub(crate) fn journeys(input: &Input, excluded: &mut Excluded) -> [Journeys; 3] {
    let mut groups = [Journeys::default(), Journeys::default(), Journeys::default()];
    let mut work = Work {
        input,
        excluded,
        sent: Vec::new(),
        received: Vec::new(),
        pairs: Vec::new(),
        sent_at: Vec::new(),
        received_at: Vec::new(),
    };
    for (place, packet) in input.packets.data.packets.iter().enumerate() {
        let group = match input.packets.messages[packet.message as usize].length {
            Some(length) if length <= SHORT_BYTES => Group::Short,
            Some(_) => Group::Long,
            None => {
                work.excluded.unknown_length += u64::from(packet.sent_count() + packet.received_count());
                continue;
            }
        };
        work.add(&input.packets.data, place as u32, packet, group, &mut groups[group as usize].all);
    }
    for (place, packet) in input.packets.grants.packets.iter().enumerate() {
        work.add(&input.packets.grants, place as u32, packet, Group::Grants, &mut groups[Group::Grants as usize].all);
    }
    groups
}

/// State that is reused from packet to packet.
struct Work<'a> {
    input: &'a Input,
    excluded: &'a mut Excluded,
    /// Transmissions that the packet may have come with; true for those that began at its offset.
    sent: Vec<(Sent, bool)>,
    received: Vec<Received>,
    /// (transmission, reception)
    pairs: Vec<(usize, usize)>,
    sent_at: Vec<i64>,
    received_at: Vec<i64>,
}

impl Work<'_> {
    fn add(&mut self, flow: &Flow, place: u32, packet: &Packet, group: Group, out: &mut Vec<Journey>) {
        self.gather(flow, packet);
        self.match_up(group, packet.message);
        for (s, (sent, own)) in self.sent.iter().enumerate() {
            let partner = self.pairs.iter().find(|pair| pair.0 == s).map(|pair| &self.received[pair.1]);
            // A frame's transmission without a reception of this very segment says nothing about the segment.
            if *own || partner.is_some() {
                out.push(self.journey(group, place, Some((sent, *own)), partner));
            }
        }
        for (r, received) in self.received.iter().enumerate() {
            if !self.pairs.iter().any(|pair| pair.1 == r) {
                out.push(self.journey(group, place, None, Some(received)));
            }
        }
    }

    /// Collects what happened to the packet, and counts what the trace's edges cut off.
    fn gather(&mut self, flow: &Flow, packet: &Packet) {
        self.sent.clear();
        self.sent.extend(flow.sent_of(packet).map(|s| (*s, true)));
        if let Some(frame) = packet.frame {
            let frame = &flow.packets[frame as usize];
            let covers = |s: &&Sent| s.length > packet.offset - frame.offset;
            self.sent.extend(flow.sent_of(frame).filter(covers).map(|s| (*s, false)));
            self.sent.sort_by_key(|(s, _)| s.start());
        }
        self.received.clear();
        for received in flow.received_of(packet) {
            self.excluded.softirq_without_gro += u64::from(received.gro == UNSEEN);
            self.excluded.discarded += u64::from(received.discarded);
            self.excluded.gro_without_softirq += u64::from(received.softirq == UNSEEN && !received.discarded);
            self.received.push(*received);
        }
    }

    /// Finds which transmission arrived as which reception.
    fn match_up(&mut self, group: Group, message: u32) {
        self.pairs.clear();
        let (Some((sent, _)), Some(received)) = (self.sent.first(), self.received.first()) else { return };
        let clock = &self.input.clock;
        let Some(error) =
            clock.between(sent.node, 0, received.node, 0).and(clock.error(sent.node, received.node).or(Some(0)))
        else {
            self.excluded.unsynchronised += self.received.len() as u64;
            return;
        };
        let offset = |node: u16| clock.offset(usize::from(node)).unwrap_or(0);
        self.sent_at.clear();
        self.sent_at.extend(self.sent.iter().map(|(s, _)| s.start() + offset(s.node)));
        self.received_at.clear();
        self.received_at.extend(self.received.iter().map(|r| r.time() + offset(r.node)));
        // Grants that repeat a limit are all alike; which was the first does not matter.
        let first = match sent.again {
            true if group != Group::Grants => First::Repetition,
            _ if self.input.packets.messages[message as usize].started => First::Certain,
            _ => First::Probable,
        };
        pair(&self.sent_at, &self.received_at, first, error, &mut self.pairs);
        self.excluded.ambiguous_retransmissions += (self.received.len() - self.pairs.len()) as u64;
    }

    fn journey(&self, group: Group, packet: u32, sent: Option<(&Sent, bool)>, received: Option<&Received>) -> Journey {
        let mut journey = Journey {
            phases: [UNSEEN; 6],
            first_of_frame: false,
            packet,
            from: NOWHERE,
            to: NOWHERE,
            core: 0,
            end: UNSEEN,
        };
        let mut set = |phase: Phase, value: i64| journey.phases[phase as usize] = value;
        if let Some((sent, _)) = sent {
            // Time in homa_qdisc has a table of its own; of short messages the originals count it here.
            let begin = if group == Group::Long && sent.undeferred != UNSEEN { sent.undeferred } else { sent.xmit };
            set(Phase::Xmit, since(begin, sent.nic));
            set(Phase::Free, since(sent.nic, sent.free));
        }
        if let Some(received) = received {
            set(Phase::Ring, received.ring.map_or(UNSEEN, i64::from));
            set(Phase::SoftIrq, since(received.gro, received.softirq));
        }
        if let (Some((sent, _)), Some(received)) = (sent, received) {
            let between = |from: i64, to: i64| match (from, to) {
                (UNSEEN, _) | (_, UNSEEN) => UNSEEN,
                _ => self.input.clock.between(sent.node, from, received.node, to).unwrap_or(UNSEEN),
            };
            set(Phase::Net, between(sent.nic, received.gro));
            set(Phase::Total, between(sent.xmit, received.softirq));
        }
        if let Some((sent, own)) = sent {
            (journey.from, journey.first_of_frame, journey.core) = (sent.node, own, sent.core);
            journey.end = [sent.free, sent.nic, sent.xmit].into_iter().find(|t| *t != UNSEEN).unwrap_or(UNSEEN);
        }
        if let Some(received) = received {
            journey.to = received.node;
            (journey.core, journey.end) = match received.softirq {
                UNSEEN => (received.gro_core, received.gro),
                softirq => (received.softirq_core, softirq),
            };
        }
        journey
    }
}

impl Sent {
    /// Time of the first event.
    fn start(&self) -> i64 {
        [self.xmit, self.nic, self.free].into_iter().find(|t| *t != UNSEEN).unwrap_or(UNSEEN)
    }
}

/// Time from one event to another on one node.
fn since(from: i64, to: i64) -> i64 {
    if from == UNSEEN || to == UNSEEN { UNSEEN } else { to - from }
}

/// Negative delays of one phase between two nodes.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Negative {
    /// The phase.
    pub phase: &'static str,
    /// Sender, or the node where the phase begins and ends.
    pub from: String,
    /// Receiver.
    pub to: String,
    /// Samples below 0.
    pub count: u64,
    /// Smallest of them.
    pub min_us: f64,
    /// What the clocks' error allows; null if nothing bounds it.
    pub clock_error_us: Option<f64>,
    /// True if the clocks' error explains it.
    pub within_error: bool,
}

/// All negative samples, once for each phase and pair of nodes.
pub(crate) fn negatives(input: &Input, groups: &[Journeys; 3]) -> Vec<Negative> {
    let mut found: FxHashMap<(usize, u16, u16), (u64, i64)> = FxHashMap::default();
    for journey in groups.iter().flat_map(|g| &g.all) {
        for phase in Phase::ALL {
            let Some(value) = journey.sample(phase).filter(|v| *v < 0) else { continue };
            let nodes = match phase {
                Phase::Xmit | Phase::Free => (journey.from, journey.from),
                Phase::Ring | Phase::SoftIrq => (journey.to, journey.to),
                Phase::Net | Phase::Total => (journey.from, journey.to),
            };
            let entry = found.entry((phase as usize, nodes.0, nodes.1)).or_insert((0, 0));
            *entry = (entry.0 + 1, entry.1.min(value));
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_unstable();
    let negative = |((phase, from, to), (count, min)): ((usize, u16, u16), (u64, i64))| {
        let error = input.clock.error(from, to);
        Negative {
            phase: Phase::ALL[phase].key(),
            from: input.hosts.name(from),
            to: input.hosts.name(to),
            count,
            min_us: super::stats::micros(min),
            clock_error_us: error.map(super::stats::micros),
            within_error: error.is_some_and(|e| -min <= e),
        }
    };
    found.into_iter().map(negative).collect()
}
