//! Puts the events of all nodes together to packets: each transmission and each reception of every packet.
//!
//! A packet is named by the client of its RPC, the id of the RPC on the packet's sender, and the offset in the message.
//! Nothing is overwritten: a packet that is sent twice or arrives twice has two entries. Where events of one packet on
//! one node have to be put in pairs (GRO and SoftIRQ, NIC and completion), the k-th belongs to the k-th, in time order.
//! Source: timetrace.md 4.3, 4.4, 4.9, 10.

mod build;
mod rebuild;

use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use crate::event::{Have, Kind, Record};
use crate::read::NodeTrace;
pub(crate) use rebuild::{Column, PacketRows, ReceivedRows, SentRows};

/// An event that was not seen, among times.
pub const UNSEEN: i64 = i64::MIN;
/// End of a list.
const END: u32 = u32::MAX;

/// One direction of an RPC.
#[derive(Clone, Debug)]
pub struct Message {
    /// Client of the RPC, as an index of hosts.
    pub client: u16,
    /// Id of the RPC on the sender of this message: even for requests.
    pub id: u32,
    /// Bytes of the message, if any event tells.
    pub length: Option<u32>,
    /// The application's call that starts the message is in the trace, and so are all transmissions. Of other messages some
    /// may be before it.
    pub started: bool,
    /// Byte ranges that the sender said it sends again.
    pub retransmitted: Vec<(u32, u32)>,
}

/// A packet as it was passed to IP: one frame, which the NIC may cut into several packets.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Passed to IP (grants: `send_grant`), ns on the sender's clock, as all times here.
    pub xmit: i64,
    /// Given to the NIC.
    pub nic: i64,
    /// Given back by the NIC.
    pub free: i64,
    /// Message bytes in the frame; 0 if unknown. For grants: bytes newly granted.
    pub length: u32,
    /// What the driver calls its queue: low 32 bits of an address; 0 if not logged.
    pub queue_address: u32,
    /// Place in [`Flow::held`], or [`END`].
    held: u32,
    next: u32,
    /// Transmit queue, or [`UNKNOWN_QUEUE`].
    queue: u16,
    /// Sender.
    pub node: u16,
    /// Core of the first event.
    pub core: u16,
    /// Grants: level for the data that are granted; [`NO_PRIORITY`] if not logged, and for data.
    pub priority: u8,
    /// It is not the first transmission of these bytes. For grants: it repeats a limit.
    pub again: bool,
}

/// What happens to few transmissions before the NIC has them. Times as in [`Sent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Held back by homa_qdisc.
    pub deferred: i64,
    /// Let go by homa_qdisc.
    pub undeferred: i64,
    /// The pacer sent it.
    pub paced: bool,
}

impl Held {
    /// Nothing of the kind was seen.
    pub const NONE: Self = Self { deferred: UNSEEN, undeferred: UNSEEN, paced: false };
}

// Lines have 60 to 110 bytes; they may cost 64 in memory (timetrace.md 11), of which events take 40.
const _: () = assert!(size_of::<Sent>() == 48 && size_of::<Received>() == 32 && size_of::<Packet>() == 36);

impl Sent {
    /// Transmit queue, if logged.
    pub fn queue(&self) -> Option<u32> {
        (self.queue != UNKNOWN_QUEUE).then_some(u32::from(self.queue))
    }

    /// Stores the transmit queue. No NIC has as many as do not fit.
    fn set_queue(&mut self, queue: Option<u32>) {
        self.queue = queue.map_or(UNKNOWN_QUEUE, |q| q.min(u32::from(UNKNOWN_QUEUE - 1)) as u16);
    }
}

/// A packet as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// At GRO.
    pub gro: i64,
    /// In SoftIRQ.
    pub softirq: i64,
    /// SoftIRQ threw it away, as its RPC did not exist (any more).
    pub discarded: bool,
    /// Wait in the receive ring before GRO, ns; [`NO_RING`] if not logged.
    ring: u32,
    /// Receiver.
    pub node: u16,
    /// Level at which it was sent; [`NO_PRIORITY`] if not logged.
    pub priority: u8,
    /// Core of GRO.
    pub gro_core: u16,
    /// Core of SoftIRQ.
    pub softirq_core: u16,
    next: u32,
}

/// No transmit queue was logged.
pub const NO_QUEUE: u32 = u32::MAX;
/// The same in 16 bits.
const UNKNOWN_QUEUE: u16 = u16::MAX;
/// No level was logged.
pub const NO_PRIORITY: u8 = u8::MAX;
/// No wait in the receive ring was logged.
const NO_RING: u32 = u32::MAX;

impl Received {
    /// Wait in the receive ring before GRO, ns, if logged.
    pub fn ring(&self) -> Option<u32> {
        (self.ring != NO_RING).then_some(self.ring)
    }

    /// Time of the first event: in the receive ring, if the wait there is logged, at GRO, or in SoftIRQ.
    pub fn time(&self) -> i64 {
        if self.gro == UNSEEN { self.softirq } else { self.gro - i64::from(self.ring().unwrap_or(0)) }
    }
}

/// All that happened to the bytes of a message from `offset` on.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Index of the message.
    pub message: u32,
    /// First byte; for grants the limit.
    pub offset: u32,
    /// See [`Packet::frame`], or [`END`].
    frame: u32,
    sent: List,
    received: List,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
    count: u32,
}

impl List {
    const EMPTY: Self = Self { first: END, last: END, count: 0 };

    /// Appends the entry at `place`; returns what was the last before, or [`END`].
    fn push(&mut self, place: u32) -> u32 {
        let last = std::mem::replace(&mut self.last, place);
        if self.count == 0 {
            self.first = place;
        }
        self.count += 1;
        last
    }
}

impl Packet {
    /// The packet at `offset` of a message, of which nothing is known yet.
    fn new(message: u32, offset: u32) -> Self {
        Self { message, offset, frame: END, sent: List::EMPTY, received: List::EMPTY }
    }

    /// Packet that heads the frame that these bytes were sent in, if that began at another offset.
    pub fn frame(&self) -> Option<u32> {
        (self.frame != END).then_some(self.frame)
    }

    /// Number of transmissions that began at this offset.
    pub fn sent_count(&self) -> u32 {
        self.sent.count
    }

    /// Number of receptions.
    pub fn received_count(&self) -> u32 {
        self.received.count
    }
}

/// Packets of one type with their transmissions and receptions.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// Packets in the order of their first event.
    pub packets: Vec<Packet>,
    /// Transmissions of all packets, in the order of their first event on each node.
    pub sent: Vec<Sent>,
    /// Receptions of all packets, in the order of their first event on each node.
    pub received: Vec<Received>,
    /// What happened to few transmissions.
    held: Vec<Held>,
    /// Packets of each message, if they were collected.
    by_message: Vec<Index>,
    /// The same, if they were not: made when first asked for.
    index: OnceLock<Vec<Index>>,
    /// While packets are collected: where to go on in long lists.
    cursors: Cursors,
}

/// Entries of a packet's lists that are still to be matched come after these: transmissions for the NIC, transmissions that
/// it gives back, receptions for SoftIRQ. Only lists that are longer than [`WALK`] need one.
type Cursors = FxHashMap<(Cursor, u32), u32>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cursor {
    Nic,
    Free,
    Softirq,
}

/// Entries of a list that are looked at from its begin.
const WALK: u32 = 8;

/// Packets of a message by offset. Packets of a message come mostly in order, and in long runs from one node, so that the
/// next one is found where the last one was.
#[derive(Clone, Debug, Default)]
struct Index {
    /// Offset and place of the packet, by offset.
    entries: Vec<(u32, u32)>,
    /// Entry that was used last.
    hint: usize,
}

impl Index {
    /// Entry of `offset`, or where it belongs.
    #[inline]
    fn find(&self, offset: u32) -> Result<usize, usize> {
        let is = |at: usize| self.entries.get(at).is_some_and(|e| e.0 == offset);
        match self.entries.last() {
            _ if is(self.hint) => Ok(self.hint),
            _ if is(self.hint + 1) => Ok(self.hint + 1),
            Some(last) if last.0 >= offset => self.entries.binary_search_by_key(&offset, |e| e.0),
            _ => Err(self.entries.len()),
        }
    }
}

/// Everything that is known of packets, over all nodes.
#[derive(Clone, Debug, Default)]
pub struct Packets {
    /// Messages that have packets, and some that have none.
    pub messages: Vec<Message>,
    /// Data packets.
    pub data: Flow,
    /// Grants.
    pub grants: Flow,
    /// `ring_wait` events that follow no packet they could belong to.
    pub lone_ring_waits: u64,
}

impl Packets {
    /// Frames of data that had been sent before, as far as the traces tell, on each of `nodes` nodes.
    pub(crate) fn sent_again(&self, nodes: usize) -> Vec<u64> {
        let mut again = vec![0; nodes];
        for packet in &self.data.packets {
            for sent in self.data.sent_of(packet).filter(|sent| sent.again) {
                again[usize::from(sent.node)] += 1;
            }
        }
        again
    }

    /// Collects the packets of `traces`, whose clients must be known ([`crate::hosts::resolve`]).
    pub fn collect(traces: &[NodeTrace]) -> Self {
        Self::collect_where(traces, |_| true)
    }

    /// Those that the records which `wanted` picks tell of.
    pub(crate) fn collect_where(traces: &[NodeTrace], wanted: impl Fn(&Record) -> bool) -> Self {
        let mut builder = build::Builder::default();
        // Room for exactly what will come, as far as counts tell: packets have both a transmission and a reception mostly.
        let records: usize = traces.iter().map(|t| t.records.len()).sum();
        let count = |kind| records.min(traces.iter().map(|t| t.stats.count(kind)).sum::<u64>() as usize);
        let Packets { data, grants, .. } = &mut builder.packets;
        data.reserve(count(Kind::IpXmit), count(Kind::GroData));
        grants.reserve(count(Kind::SendGrant), count(Kind::GroGrant));
        for (node, trace) in traces.iter().enumerate() {
            builder.next_node();
            trace.records.iter().filter(|record| wanted(record)).for_each(|record| builder.add(node as u16, record));
        }
        let mut packets = builder.packets;
        for flow in [&mut packets.data, &mut packets.grants] {
            flow.cursors = Cursors::default();
            flow.packets.shrink_to_fit();
        }
        packets.find_frames();
        packets
    }

    /// Finds the frame of each received packet that was not itself passed to IP, or only when it was sent again.
    fn find_frames(&mut self) {
        let (data, messages) = (&mut self.data, &self.messages);
        let needs = |p: &Packet| {
            p.received.count > 0
                && (p.sent.count == 0 || !messages[p.message as usize].retransmitted.is_empty() && p.offset > 0)
        };
        if !data.packets.iter().any(needs) {
            return;
        }
        let mut frames: Vec<(u32, u32, u32, u32)> = Vec::new();
        for (place, packet) in data.packets.iter().enumerate() {
            let length = data.sent_of(packet).map(|s| s.length).max().unwrap_or(0);
            if length > 0 {
                frames.push((packet.message, packet.offset, length, place as u32));
            }
        }
        frames.sort_unstable();
        for packet in data.packets.iter_mut().filter(|p| needs(p)) {
            let end =
                frames.partition_point(|(message, offset, ..)| (*message, *offset) < (packet.message, packet.offset));
            let covers = |frame: &&(u32, u32, u32, u32)| frame.1.saturating_add(frame.2) > packet.offset;
            let near = frames[..end].iter().rev().take(MAX_SEGMENTS).take_while(|f| f.0 == packet.message);
            packet.frame = near.into_iter().find(covers).map_or(END, |f| f.3);
        }
    }
}

/// Most packets that a frame is cut into: 64 KB by the smallest MTU of Ethernet, 576 bytes.
const MAX_SEGMENTS: usize = 120;

impl Flow {
    /// Offset and place of each packet of a message, by offset.
    pub fn of_message(&self, message: u32) -> impl Iterator<Item = (u32, u32)> {
        let known = !self.by_message.is_empty();
        let all = if known { &self.by_message } else { self.index.get_or_init(|| self.index()) };
        all.get(message as usize).into_iter().flat_map(|index| index.entries.iter().copied())
    }

    /// Transmissions that began at the packet's offset, in time order.
    pub fn sent_of(&self, packet: &Packet) -> impl Iterator<Item = &Sent> {
        self.sent_places(packet).map(|place| &self.sent[place as usize])
    }

    /// Receptions of the packet, in time order.
    pub fn received_of(&self, packet: &Packet) -> impl Iterator<Item = &Received> {
        self.received_places(packet).map(|place| &self.received[place as usize])
    }

    /// Places in [`Flow::sent`] of the transmissions that began at the packet's offset, in time order.
    pub fn sent_places(&self, packet: &Packet) -> impl Iterator<Item = u32> {
        follow(packet.sent.first, |place| self.sent[place as usize].next)
    }

    /// Places in [`Flow::received`] of the receptions of the packet, in time order.
    pub fn received_places(&self, packet: &Packet) -> impl Iterator<Item = u32> {
        follow(packet.received.first, |place| self.received[place as usize].next)
    }

    /// What happened to a transmission before the NIC had it.
    pub fn held_of(&self, sent: &Sent) -> Held {
        self.held.get(sent.held as usize).copied().unwrap_or(Held::NONE)
    }

    /// The same, to be changed.
    fn hold(&mut self, place: u32) -> &mut Held {
        let sent = &mut self.sent[place as usize];
        if sent.held == END {
            sent.held = self.held.len() as u32;
            self.held.push(Held::NONE);
        }
        &mut self.held[sent.held as usize]
    }

    /// Makes room for so many transmissions and receptions.
    fn reserve(&mut self, sent: usize, received: usize) {
        self.packets.reserve(sent.max(received));
        self.sent.reserve(sent);
        self.received.reserve(received);
    }

    /// Place of the packet that begins at `offset`.
    #[inline]
    fn place(&mut self, message: u32, offset: u32) -> u32 {
        let message_place = message as usize;
        if message_place >= self.by_message.len() {
            self.by_message.resize_with(message_place + 1, Index::default);
        }
        let index = &mut self.by_message[message_place];
        index.hint = match index.find(offset) {
            Ok(found) => found,
            Err(free) => {
                // Doubling, as lists do, would leave much of it unused.
                if index.entries.len() == index.entries.capacity() {
                    index.entries.reserve_exact(index.entries.len() / 4 + 4);
                }
                index.entries.insert(free, (offset, self.packets.len() as u32));
                self.packets.push(Packet::new(message, offset));
                free
            }
        };
        index.entries[index.hint].1
    }

    fn packet(&mut self, message: u32, offset: u32) -> &mut Packet {
        let place = self.place(message, offset);
        &mut self.packets[place as usize]
    }

    /// A new transmission of a packet; returns its place.
    fn send(&mut self, message: u32, offset: u32, node: u16, core: u16) -> u32 {
        let place = self.sent.len() as u32;
        let last = self.packet(message, offset).sent.push(place);
        if last != END {
            self.sent[last as usize].next = place;
        }
        self.sent.push(Sent {
            xmit: UNSEEN,
            nic: UNSEEN,
            free: UNSEEN,
            length: 0,
            queue_address: 0,
            held: END,
            next: END,
            queue: UNKNOWN_QUEUE,
            node,
            core,
            priority: NO_PRIORITY,
            again: last != END,
        });
        place
    }

    /// The latest transmission of a packet; a new one if its beginning was not seen.
    fn last_sent(&mut self, message: u32, offset: u32, node: u16, core: u16) -> u32 {
        let last = self.packet(message, offset).sent.last;
        if last == END { self.send(message, offset, node, core) } else { last }
    }

    /// The earliest transmission that the NIC has not yet had; a new one if the beginning was before the trace's.
    fn nic_takes(&mut self, message: u32, offset: u32, node: u16, core: u16) -> &mut Sent {
        let packet = self.place(message, offset);
        // What the NIC has given back it got before the trace began.
        let waits = |flow: &Self, place: u32| {
            let sent = &flow.sent[place as usize];
            (sent.nic == UNSEEN && sent.free == UNSEEN, sent.next)
        };
        let list = self.packets[packet as usize].sent;
        let place = match self.next(Cursor::Nic, packet, list, waits) {
            END => self.send(message, offset, node, core),
            place => place,
        };
        &mut self.sent[place as usize]
    }

    /// The earliest transmission that the NIC has not yet given back; a new one if it began before the trace.
    fn nic_returns(&mut self, message: u32, offset: u32, node: u16, core: u16) -> &mut Sent {
        let packet = self.place(message, offset);
        let waits = |flow: &Self, place: u32| {
            let sent = &flow.sent[place as usize];
            (sent.free == UNSEEN, sent.next)
        };
        let list = self.packets[packet as usize].sent;
        let place = match self.next(Cursor::Free, packet, list, waits) {
            END => self.send(message, offset, node, core),
            place => place,
        };
        &mut self.sent[place as usize]
    }

    /// The first entry of a packet's list that `waits`, which says so and which entry comes next; [`END`] if none does. Entries
    /// that do not wait will not do so later.
    fn next(&mut self, cursor: Cursor, packet: u32, list: List, waits: impl Fn(&Self, u32) -> (bool, u32)) -> u32 {
        let long = list.count > WALK;
        let known = if long { self.cursors.get(&(cursor, packet)).copied() } else { None };
        let mut place = known.unwrap_or(list.first);
        // Of an entry at the list's end more may come after it: it is looked at again.
        let mut reached = place;
        while place != END {
            reached = place;
            match waits(self, place) {
                (true, _) => break,
                (false, next) => place = next,
            }
        }
        if long {
            self.cursors.insert((cursor, packet), reached);
        }
        place
    }

    /// A new reception of a packet; returns its index.
    fn receive(&mut self, message: u32, offset: u32, node: u16) -> u32 {
        let place = self.received.len() as u32;
        let last = self.packet(message, offset).received.push(place);
        if last != END {
            self.received[last as usize].next = place;
        }
        self.received.push(Received {
            gro: UNSEEN,
            softirq: UNSEEN,
            discarded: false,
            ring: NO_RING,
            node,
            priority: NO_PRIORITY,
            gro_core: 0,
            softirq_core: 0,
            next: END,
        });
        place
    }

    /// The reception of a packet that waits for SoftIRQ longest, or [`END`].
    fn waiting(&mut self, packet: u32) -> u32 {
        let waits = |flow: &Self, place: u32| {
            let received = &flow.received[place as usize];
            (received.softirq == UNSEEN && !received.discarded, received.next)
        };
        let list = self.packets[packet as usize].received;
        self.next(Cursor::Softirq, packet, list, waits)
    }

    fn gro(&mut self, message: u32, node: u16, record: &Record) -> u32 {
        let place = self.receive(message, record.offset, node);
        let received = &mut self.received[place as usize];
        received.gro = record.time;
        received.gro_core = record.core;
        if record.have.has(Have::A) {
            received.priority = record.a as u8;
        }
        place
    }

    /// SoftIRQ threw away a packet of the message and did not say which: it was the one that waited longest.
    fn discard(&mut self, message: u32) {
        let entries = self.by_message.get(message as usize).map_or(0, |index| index.entries.len());
        let waiting = (0..entries).filter_map(|entry| {
            let next = self.waiting(self.by_message[message as usize].entries[entry].1);
            (next != END).then(|| (self.received[next as usize].gro, next))
        });
        if let Some((_, next)) = waiting.min() {
            self.received[next as usize].discarded = true;
        }
    }

    fn softirq(&mut self, message: u32, node: u16, record: &Record) {
        let packet = self.place(message, record.offset);
        let place = match self.waiting(packet) {
            END => self.receive(message, record.offset, node),
            place => place,
        };
        let received = &mut self.received[place as usize];
        received.softirq = record.time;
        received.softirq_core = record.core;
    }
}

fn follow(first: u32, next: impl Fn(u32) -> u32) -> impl Iterator<Item = u32> {
    let mut place = first;
    std::iter::from_fn(move || {
        let this = (place != END).then_some(place)?;
        place = next(this);
        Some(this)
    })
}

/// True if the sender said that it sends the byte at `offset` again.
pub fn is_retransmitted(message: &Message, offset: u32) -> bool {
    message.retransmitted.iter().any(|(start, end)| (*start..*end).contains(&offset))
}

#[cfg(test)]
mod tests;
