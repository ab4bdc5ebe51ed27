//! Puts the events of all nodes together to packets: each transmission and each reception of every packet.
//!
//! A packet is named by the client of its RPC, the id of the RPC on the packet's sender, and the offset in the message.
//! Nothing is overwritten: a packet that is sent twice or arrives twice has two entries. Where events of one packet on
//! one node have to be put in pairs (GRO and SoftIRQ, NIC and completion), the k-th belongs to the k-th, in time order.
//! Source: timetrace.md 4.3, 4.4, 4.9, 10.

mod build;
#[cfg(feature = "tables")]
mod rebuild;

use crate::event::{Have, Kind, Record};
use crate::read::NodeTrace;
#[cfg(feature = "tables")]
pub(crate) use rebuild::{PacketRow, ReceivedRow, SentRow};

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
    /// Held back by homa_qdisc.
    pub deferred: i64,
    /// Let go by homa_qdisc.
    pub undeferred: i64,
    /// Given to the NIC.
    pub nic: i64,
    /// Given back by the NIC.
    pub free: i64,
    /// Message bytes in the frame; 0 if unknown. For grants: bytes newly granted.
    pub length: u32,
    /// Transmit queue; [`NO_QUEUE`] if not logged.
    pub queue: u32,
    /// What the driver calls its queue: low 32 bits of an address; 0 if not logged.
    pub queue_address: u32,
    /// Sender.
    pub node: u16,
    /// Core of the first event.
    pub core: u16,
    /// Grants: level for the data that are granted; [`NO_PRIORITY`] if not logged, and for data.
    pub priority: u8,
    /// The pacer sent it.
    pub paced: bool,
    /// It is not the first transmission of these bytes. For grants: it repeats a limit.
    pub again: bool,
    next: u32,
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
    /// Frame that these bytes were sent in, if that began at another offset.
    pub frame: Option<u32>,
    sent: List,
    received: List,
    next_nic: u32,
    next_free: u32,
    next_softirq: u32,
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
    /// Packets of each message.
    by_message: Vec<Index>,
}

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
    /// Collects the packets of `traces`, whose clients must be known ([`crate::hosts::resolve`]).
    pub fn collect(traces: &[NodeTrace]) -> Self {
        let mut builder = build::Builder::default();
        for (node, trace) in traces.iter().enumerate() {
            builder.next_node();
            let count = |kind| trace.stats.count(kind);
            builder.packets.data.reserve(count(Kind::IpXmit), count(Kind::GroData));
            builder.packets.grants.reserve(count(Kind::SendGrant), count(Kind::GroGrant));
            trace.records.iter().for_each(|record| builder.add(node as u16, record));
        }
        let mut packets = builder.packets;
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
            packet.frame = near.into_iter().find(covers).map(|f| f.3);
        }
    }
}

/// Most packets that a frame is cut into: 64 KB by the smallest MTU of Ethernet, 576 bytes.
const MAX_SEGMENTS: usize = 120;

impl Flow {
    /// Offset and place of each packet of a message, by offset.
    pub fn of_message(&self, message: u32) -> impl Iterator<Item = (u32, u32)> {
        self.by_message.get(message as usize).into_iter().flat_map(|index| index.entries.iter().copied())
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

    /// Makes room for the packets of a trace.
    fn reserve(&mut self, sent: u64, received: u64) {
        self.packets.reserve(sent.saturating_sub(self.packets.len() as u64) as usize);
        self.sent.reserve(sent as usize);
        self.received.reserve(received as usize);
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
                index.entries.insert(free, (offset, self.packets.len() as u32));
                let (sent, received) = (List::EMPTY, List::EMPTY);
                let (next_nic, next_free, next_softirq) = (END, END, END);
                self.packets.push(Packet {
                    message,
                    offset,
                    frame: None,
                    sent,
                    received,
                    next_nic,
                    next_free,
                    next_softirq,
                });
                free
            }
        };
        index.entries[index.hint].1
    }

    fn packet(&mut self, message: u32, offset: u32) -> &mut Packet {
        let place = self.place(message, offset);
        &mut self.packets[place as usize]
    }

    /// A new transmission of a packet.
    fn send(&mut self, message: u32, offset: u32, node: u16, core: u16) -> &mut Sent {
        let place = self.sent.len() as u32;
        let packet = self.packet(message, offset);
        let last = packet.sent.push(place);
        for cursor in [&mut packet.next_nic, &mut packet.next_free] {
            if *cursor == END {
                *cursor = place;
            }
        }
        if last != END {
            self.sent[last as usize].next = place;
        }
        let (xmit, deferred, undeferred, nic, free) = (UNSEEN, UNSEEN, UNSEEN, UNSEEN, UNSEEN);
        self.sent.push(Sent {
            xmit,
            deferred,
            undeferred,
            nic,
            free,
            length: 0,
            queue: NO_QUEUE,
            queue_address: 0,
            node,
            core,
            priority: NO_PRIORITY,
            paced: false,
            again: last != END,
            next: END,
        });
        self.sent.last_mut().expect("was just pushed")
    }

    /// The latest transmission of a packet; a new one if its beginning was not seen.
    fn last_sent(&mut self, message: u32, offset: u32, node: u16, core: u16) -> &mut Sent {
        let last = self.packet(message, offset).sent.last;
        if last == END { self.send(message, offset, node, core) } else { &mut self.sent[last as usize] }
    }

    /// The earliest transmission that the NIC has not yet had; a new one if the beginning was before the trace's.
    fn nic_takes(&mut self, message: u32, offset: u32, node: u16, core: u16) -> &mut Sent {
        let mut place = self.packet(message, offset).next_nic;
        // What the NIC has given back it got before the trace began.
        while place != END && self.sent[place as usize].free != UNSEEN {
            place = self.sent[place as usize].next;
        }
        if place == END {
            self.send(message, offset, node, core);
            place = self.packet(message, offset).sent.last;
        }
        self.packet(message, offset).next_nic = self.sent[place as usize].next;
        &mut self.sent[place as usize]
    }

    /// The earliest transmission that the NIC has not yet given back; a new one if it began before the trace.
    fn nic_returns(&mut self, message: u32, offset: u32, node: u16, core: u16) -> &mut Sent {
        if self.packet(message, offset).next_free == END {
            self.send(message, offset, node, core);
        }
        let place = self.packet(message, offset).next_free;
        self.packet(message, offset).next_free = self.sent[place as usize].next;
        &mut self.sent[place as usize]
    }

    /// A new reception of a packet; returns its index.
    fn receive(&mut self, message: u32, offset: u32, node: u16) -> u32 {
        let place = self.received.len() as u32;
        let packet = self.packet(message, offset);
        let last = packet.received.push(place);
        if packet.next_softirq == END {
            packet.next_softirq = place;
        }
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
        let Some(index) = self.by_message.get(message as usize) else { return };
        let waiting = index.entries.iter().filter_map(|(_, place)| {
            let next = self.packets[*place as usize].next_softirq;
            (next != END).then(|| (self.received[next as usize].gro, *place, next))
        });
        if let Some((_, place, next)) = waiting.min() {
            let received = &mut self.received[next as usize];
            received.discarded = true;
            self.packets[place as usize].next_softirq = received.next;
        }
    }

    fn softirq(&mut self, message: u32, node: u16, record: &Record) {
        let mut place = self.packet(message, record.offset).next_softirq;
        if place == END {
            place = self.receive(message, record.offset, node);
        }
        let received = &mut self.received[place as usize];
        received.softirq = record.time;
        received.softirq_core = record.core;
        let next = received.next;
        self.packet(message, record.offset).next_softirq = next;
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
