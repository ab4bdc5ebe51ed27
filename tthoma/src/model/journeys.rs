//! The way of each packet from sender to receiver: which transmission arrived as which reception.

use std::ops::Range;
use std::thread;

use super::Model;
use super::pairing::{First, pair};
use crate::clock::Clock;
use crate::packets::{Flow, Held, Message, Packet, Packets, Received, Sent, UNSEEN};

/// Phases of a packet's way, in the order of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Phase {
    /// From IP to the NIC; grants: from the decision to grant.
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
    /// All phases.
    pub const ALL: [Self; 6] = [Self::Xmit, Self::Net, Self::Ring, Self::SoftIrq, Self::Free, Self::Total];

    /// Name in tables.
    pub fn title(self) -> &'static str {
        ["Xmit", "Net", "Ring", "SoftIRQ", "Free", "Total"][self as usize]
    }

    /// Name in JSON and CSV.
    pub fn key(self) -> &'static str {
        ["xmit", "net", "ring", "softirq", "free", "total"][self as usize]
    }
}

/// Packets that are reported together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Data of messages of at most [`SHORT_BYTES`].
    Short,
    /// Data of other messages.
    Long,
    /// Grants.
    Grants,
    /// Data of messages of unknown length.
    Unknown,
}

impl Group {
    /// The groups that reports have.
    pub const ALL: [Self; 3] = [Self::Short, Self::Long, Self::Grants];

    /// Name in JSON and CSV.
    pub fn key(self) -> &'static str {
        ["short", "long", "grants", "unknown"][self as usize]
    }
}

/// Messages up to this length are short.
pub const SHORT_BYTES: u32 = 1000;

/// No node, among indexes of nodes.
pub const NOWHERE: u16 = u16::MAX;
/// No entry.
const NONE: u32 = u32::MAX;

/// One transmission, one reception, or one of each that belong together: a row of [`Journeys`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matched {
    /// Index of the packet.
    pub packet: u32,
    sent: u32,
    received: u32,
    /// The transmission is that of the packet's frame, which began at another offset.
    segment: bool,
}

/// A packet's way with everything that is known of it. Times are on the clocks of the nodes.
#[derive(Clone, Copy, Debug)]
pub struct Journey<'a> {
    /// Direction of its RPC.
    pub message: &'a Message,
    /// All that happened to these bytes.
    pub packet: &'a Packet,
    /// Index of the packet.
    pub place: u32,
    /// The transmission (of the frame that holds the packet), unless unseen or uncertain.
    pub sent: Option<&'a Sent>,
    /// What happened to that before the NIC had it.
    pub held: Held,
    /// The reception, unless unseen or uncertain.
    pub received: Option<&'a Received>,
    /// The transmission is this packet's own: times of a frame count once, for its first packet.
    pub first_of_frame: bool,
    group: Group,
}

impl<'a> Journey<'a> {
    /// The group of reports that it is in.
    pub fn group(&self) -> Group {
        self.group
    }

    /// Sender, [`NOWHERE`] if unseen.
    pub fn from(&self) -> u16 {
        self.sent.map_or(NOWHERE, |s| s.node)
    }

    /// Receiver, [`NOWHERE`] if unseen.
    pub fn to(&self) -> u16 {
        self.received.map_or(NOWHERE, |r| r.node)
    }

    /// Node where it ended, as far as it was seen.
    pub fn node(&self) -> u16 {
        if self.received.is_some() { self.to() } else { self.from() }
    }

    /// Core of the receiver (SoftIRQ, else GRO), else of the sender.
    pub fn core(&self) -> u16 {
        match (self.received, self.sent) {
            (Some(received), _) if received.softirq != UNSEEN => received.softirq_core,
            (Some(received), _) => received.gro_core,
            (None, sent) => sent.map_or(0, |s| s.core),
        }
    }

    /// Last known time, on the clock of [`Journey::node`].
    pub fn end(&self) -> i64 {
        let last = |times: &[i64]| times.iter().copied().find(|t| *t != UNSEEN).unwrap_or(UNSEEN);
        match (self.received, self.sent) {
            (Some(received), _) => last(&[received.softirq, received.gro]),
            (None, Some(sent)) => last(&[sent.free, sent.nic, sent.xmit]),
            (None, None) => UNSEEN,
        }
    }

    /// How long `phase` took, in ns; `None` if it is not known, or the clocks can't be compared.
    pub fn phase(&self, clock: &Clock, phase: Phase) -> Option<i64> {
        match phase {
            Phase::Xmit => {
                let sent = self.sent?;
                // Time in homa_qdisc has a table of its own; of short messages the originals count it here.
                let deferred = self.group == Group::Long && self.held.undeferred != UNSEEN;
                since(if deferred { self.held.undeferred } else { sent.xmit }, sent.nic)
            }
            Phase::Free => self.sent.and_then(|s| since(s.nic, s.free)),
            Phase::Ring => self.received.and_then(|r| r.ring()).map(i64::from),
            Phase::SoftIrq => self.received.and_then(|r| since(r.gro, r.softirq)),
            Phase::Net => self.between(clock, |s| s.nic, |r| r.gro),
            Phase::Total => self.between(clock, |s| s.xmit, |r| r.softirq),
        }
    }

    /// As [`Journey::phase`], but `None` where the time is that of the whole frame and counts for its first packet only.
    pub fn sample(&self, clock: &Clock, phase: Phase) -> Option<i64> {
        let of_frame = matches!(phase, Phase::Xmit | Phase::Free);
        if of_frame && !self.first_of_frame { None } else { self.phase(clock, phase) }
    }

    /// Time from an event of the transmission to one of the reception, in ns.
    pub fn between(&self, clock: &Clock, from: fn(&Sent) -> i64, to: fn(&Received) -> i64) -> Option<i64> {
        let (sent, received) = (self.sent?, self.received?);
        let (from, to) = (from(sent), to(received));
        if from == UNSEEN || to == UNSEEN {
            return None;
        }
        clock.between(sent.node, from, received.node, to)
    }
}

/// Time from one event to another on one node.
fn since(from: i64, to: i64) -> Option<i64> {
    (from != UNSEEN && to != UNSEEN).then(|| to - from)
}

/// What could not be used, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

impl Excluded {
    fn add(&mut self, other: &Self) {
        let Self {
            ambiguous_retransmissions,
            unsynchronised,
            unknown_length,
            softirq_without_gro,
            gro_without_softirq,
            discarded,
            ambiguous_records,
            unresolved_records,
            lone_ring_waits,
        } = other;
        self.ambiguous_retransmissions += ambiguous_retransmissions;
        self.unsynchronised += unsynchronised;
        self.unknown_length += unknown_length;
        self.softirq_without_gro += softirq_without_gro;
        self.gro_without_softirq += gro_without_softirq;
        self.discarded += discarded;
        self.ambiguous_records += ambiguous_records;
        self.unresolved_records += unresolved_records;
        self.lone_ring_waits += lone_ring_waits;
    }
}

/// All journeys.
#[derive(Clone, Debug, Default)]
pub struct Journeys {
    /// Of data packets, by packet.
    pub data: Vec<Matched>,
    /// Of grants, by packet.
    pub grants: Vec<Matched>,
    /// What could not be used.
    pub excluded: Excluded,
}

impl Journeys {
    /// Finds them in a model.
    pub(crate) fn collect(packets: &Packets, clock: &Clock, unused: Excluded) -> Self {
        let mut excluded = unused;
        let mut all = |flow: &Flow, grant: bool| -> Vec<Matched> {
            let parts = in_parts(flow.packets.len(), |range| {
                let mut work = Work::new(packets, clock);
                (work.all(flow, grant, range), work.excluded)
            });
            parts.iter().for_each(|(_, more)| excluded.add(more));
            match <[_; 1]>::try_from(parts) {
                Ok([(all, _)]) => all,
                Err(parts) => parts.into_iter().flat_map(|(part, _)| part).collect(),
            }
        };
        let (data, grants) = (all(&packets.data, false), all(&packets.grants, true));
        Self { data, grants, excluded }
    }
}

impl Model {
    /// The way of each data packet.
    pub fn data(&self) -> impl Iterator<Item = Journey<'_>> {
        let show = |matched: &Matched| view(&self.packets, &self.packets.data, matched, false);
        self.journeys().data.iter().map(show)
    }

    /// What `find` makes of the ways of some data packets and grants, for each of several parts of them, which are looked at
    /// side by side.
    pub(crate) fn in_parts<T: Send>(&self, find: impl Fn(&mut dyn Iterator<Item = Journey<'_>>) -> T + Sync) -> Vec<T> {
        let Journeys { data, grants, .. } = self.journeys();
        in_parts(data.len() + grants.len(), |range| {
            let cut = |place: usize| (place.min(data.len()), place.saturating_sub(data.len()));
            let (from, to) = (cut(range.start), cut(range.end));
            let show = |matched, flow, grant| view(&self.packets, flow, matched, grant);
            let data = data[from.0..to.0].iter().map(|m| show(m, &self.packets.data, false));
            find(&mut data.chain(grants[from.1..to.1].iter().map(|m| show(m, &self.packets.grants, true))))
        })
    }

    /// The way of each grant.
    pub fn grants(&self) -> impl Iterator<Item = Journey<'_>> {
        let show = |matched: &Matched| view(&self.packets, &self.packets.grants, matched, true);
        self.journeys().grants.iter().map(show)
    }
}

/// Items of a part at least: fewer are not worth a thread.
const PART: usize = 10_000;

/// What `work` makes of each of some ranges of `count` items, in order; a thread for each.
fn in_parts<T: Send>(count: usize, work: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(count / PART).max(1);
    let range = |part: usize| count * part / threads..count * (part + 1) / threads;
    thread::scope(|scope| {
        let work = &work;
        let others: Vec<_> = (1..threads).map(|part| scope.spawn(move || work(range(part)))).collect();
        let first = work(range(0));
        std::iter::once(first).chain(others.into_iter().map(|t| t.join().expect("no part panics"))).collect()
    })
}

fn view<'a>(packets: &'a Packets, flow: &'a Flow, matched: &Matched, grant: bool) -> Journey<'a> {
    let packet = &flow.packets[matched.packet as usize];
    let message = &packets.messages[packet.message as usize];
    let sent = flow.sent.get(matched.sent as usize);
    Journey {
        message,
        packet,
        place: matched.packet,
        sent,
        held: sent.map_or(Held::NONE, |sent| flow.held_of(sent)),
        received: flow.received.get(matched.received as usize),
        first_of_frame: matched.sent != NONE && !matched.segment,
        group: group(message, grant),
    }
}

fn group(message: &Message, grant: bool) -> Group {
    match message.length {
        _ if grant => Group::Grants,
        Some(length) if length <= SHORT_BYTES => Group::Short,
        Some(_) => Group::Long,
        None => Group::Unknown,
    }
}

/// State that is reused from packet to packet.
struct Work<'a> {
    packets: &'a Packets,
    clock: &'a Clock,
    excluded: Excluded,
    /// Transmissions that the packet may have come with, as indexes of the flow; true for those of its frame.
    sent: Vec<(u32, bool)>,
    received: Vec<u32>,
    /// (transmission, reception), as indexes of `sent` and `received`.
    pairs: Vec<(usize, usize)>,
    sent_at: Vec<i64>,
    received_at: Vec<i64>,
}

impl<'a> Work<'a> {
    fn new(packets: &'a Packets, clock: &'a Clock) -> Self {
        Self {
            packets,
            clock,
            excluded: Excluded::default(),
            sent: Vec::new(),
            received: Vec::new(),
            pairs: Vec::new(),
            sent_at: Vec::new(),
            received_at: Vec::new(),
        }
    }

    fn all(&mut self, flow: &Flow, grant: bool, range: Range<usize>) -> Vec<Matched> {
        let mut out = Vec::with_capacity(range.len());
        for (place, packet) in range.clone().zip(&flow.packets[range]) {
            if !grant && self.packets.messages[packet.message as usize].length.is_none() {
                // What is in no group of a report is not counted a second time.
                let before = self.excluded;
                self.add(flow, place as u32, packet, grant, &mut out);
                let unknown_length = u64::from(packet.sent_count() + packet.received_count());
                self.excluded = Excluded { unknown_length: before.unknown_length + unknown_length, ..before };
                continue;
            }
            self.add(flow, place as u32, packet, grant, &mut out);
        }
        out
    }

    fn add(&mut self, flow: &Flow, place: u32, packet: &Packet, grant: bool, out: &mut Vec<Matched>) {
        self.gather(flow, packet);
        self.match_up(flow, grant, packet.message);
        for (s, (sent, segment)) in self.sent.iter().enumerate() {
            let partner = self.pairs.iter().find(|pair| pair.0 == s).map(|pair| self.received[pair.1]);
            // A frame's transmission without a reception of this very segment says nothing about the segment.
            if !*segment || partner.is_some() {
                let received = partner.unwrap_or(NONE);
                out.push(Matched { packet: place, sent: *sent, received, segment: *segment });
            }
        }
        for (r, received) in self.received.iter().enumerate() {
            if !self.pairs.iter().any(|pair| pair.1 == r) {
                out.push(Matched { packet: place, sent: NONE, received: *received, segment: false });
            }
        }
    }

    /// Collects what happened to the packet, and counts what the trace's edges cut off.
    fn gather(&mut self, flow: &Flow, packet: &Packet) {
        self.sent.clear();
        self.sent.extend(flow.sent_places(packet).map(|s| (s, false)));
        if let Some(frame) = packet.frame() {
            let frame = &flow.packets[frame as usize];
            let covers = |s: &u32| flow.sent[*s as usize].length > packet.offset - frame.offset;
            self.sent.extend(flow.sent_places(frame).filter(covers).map(|s| (s, true)));
            self.sent.sort_by_key(|(s, _)| flow.sent[*s as usize].start());
        }
        self.received.clear();
        for place in flow.received_places(packet) {
            let received = &flow.received[place as usize];
            self.excluded.softirq_without_gro += u64::from(received.gro == UNSEEN);
            self.excluded.discarded += u64::from(received.discarded);
            self.excluded.gro_without_softirq += u64::from(received.softirq == UNSEEN && !received.discarded);
            self.received.push(place);
        }
    }

    /// Finds which transmission arrived as which reception.
    fn match_up(&mut self, flow: &Flow, grant: bool, message: u32) {
        self.pairs.clear();
        let (Some((sent, _)), Some(received)) = (self.sent.first(), self.received.first()) else { return };
        let (sent, received) = (&flow.sent[*sent as usize], &flow.received[*received as usize]);
        let clock = self.clock;
        let Some(error) =
            clock.between(sent.node, 0, received.node, 0).and(clock.error(sent.node, received.node).or(Some(0)))
        else {
            self.excluded.unsynchronised += self.received.len() as u64;
            return;
        };
        let offset = |node: u16| clock.offset(usize::from(node)).unwrap_or(0);
        let sent_at = |s: &Sent| s.start() + offset(s.node);
        let received_at = |r: &Received| r.time() + offset(r.node);
        // Grants that repeat a limit are all alike; which was the first does not matter.
        let first = match sent.again {
            true if !grant => First::Repetition,
            _ if self.packets.messages[message as usize].started => First::Certain,
            _ => First::Probable,
        };
        self.sent_at.clear();
        self.sent_at.extend(self.sent.iter().map(|(s, _)| sent_at(&flow.sent[*s as usize])));
        self.received_at.clear();
        self.received_at.extend(self.received.iter().map(|r| received_at(&flow.received[*r as usize])));
        pair(&self.sent_at, &self.received_at, first, error, &mut self.pairs);
        self.excluded.ambiguous_retransmissions += (self.received.len() - self.pairs.len()) as u64;
    }
}

impl Sent {
    /// Time of the first event.
    fn start(&self) -> i64 {
        [self.xmit, self.nic, self.free].into_iter().find(|t| *t != UNSEEN).unwrap_or(UNSEEN)
    }
}
