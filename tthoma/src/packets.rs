//! Puts the events of all nodes together to packets: each transmission and each reception of every packet.
//!
//! A packet is named by the client of its RPC, the id of the RPC on the packet's sender, and the offset in the message.
//! Nothing is overwritten: a packet that is sent twice or arrives twice has two entries. Where events of one packet on
//! one node have to be put in pairs (GRO and SoftIRQ, NIC and completion), the k-th belongs to the k-th, in time order.
//! Source: timetrace.md 4.3, 4.4, 4.9, 10.

use rustc_hash::FxHashMap;

use crate::event::{AMBIGUOUS, Have, Kind, Record};
use crate::read::NodeTrace;

/// An event that was not seen, among times.
pub const UNSEEN: i64 = i64::MIN;
/// End of a list.
const END: u32 = u32::MAX;
/// Homa, IP and Ethernet headers, checksum, preamble and gap that the kernel counts to a frame's bytes on the wire:
/// 60 + 20 + 18 + 20 bytes.
const WIRE_OVERHEAD: u32 = 118;

/// One direction of an RPC.
#[derive(Clone, Debug)]
pub struct Message {
    /// Client of the RPC, as an index of hosts.
    pub client: u16,
    /// Id of the RPC on the sender of this message: even for requests.
    pub id: u32,
    /// Bytes of the message, if any event tells.
    pub length: Option<u32>,
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
    /// Message bytes in the frame; 0 if unknown.
    pub length: u32,
    /// Sender.
    pub node: u16,
    /// Core of the first event.
    pub core: u16,
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
    /// Wait in the receive ring before GRO, ns, if logged.
    pub ring: Option<u32>,
    /// Receiver.
    pub node: u16,
    /// Core of GRO.
    pub gro_core: u16,
    /// Core of SoftIRQ.
    pub softirq_core: u16,
    next: u32,
}

impl Received {
    /// Time of the first event.
    pub fn time(&self) -> i64 {
        if self.gro == UNSEEN { self.softirq } else { self.gro }
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
    sent: Vec<Sent>,
    received: Vec<Received>,
    by_key: FxHashMap<u64, u32>,
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
        let mut builder = Builder::default();
        for (node, trace) in traces.iter().enumerate() {
            builder.last_gro.clear();
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
    /// Transmissions that began at the packet's offset, in time order.
    pub fn sent_of(&self, packet: &Packet) -> impl Iterator<Item = &Sent> {
        follow(packet.sent.first, |i| &self.sent[i as usize], |s| s.next)
    }

    /// Receptions of the packet, in time order.
    pub fn received_of(&self, packet: &Packet) -> impl Iterator<Item = &Received> {
        follow(packet.received.first, |i| &self.received[i as usize], |r| r.next)
    }

    fn packet(&mut self, message: u32, offset: u32) -> &mut Packet {
        let place = *self.by_key.entry(u64::from(message) << 32 | u64::from(offset)).or_insert_with(|| {
            let (sent, received) = (List::EMPTY, List::EMPTY);
            self.packets.push(Packet {
                message,
                offset,
                frame: None,
                sent,
                received,
                next_nic: END,
                next_free: END,
                next_softirq: END,
            });
            (self.packets.len() - 1) as u32
        });
        &mut self.packets[place as usize]
    }

    /// A new transmission of a packet.
    fn send(&mut self, message: u32, offset: u32, node: u16, core: u16) -> &mut Sent {
        let place = self.sent.len() as u32;
        let packet = self.packet(message, offset);
        let last = packet.sent.last;
        packet.sent = List {
            first: if packet.sent.count == 0 { place } else { packet.sent.first },
            last: place,
            count: packet.sent.count + 1,
        };
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
            node,
            core,
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

    /// The earliest transmission that `cursor` has not passed; the cursor moves on. If a packet has events left over,
    /// as its beginning was before the trace's, it gets a transmission for them.
    fn step_sent(
        &mut self,
        message: u32,
        offset: u32,
        node: u16,
        core: u16,
        cursor: fn(&mut Packet) -> &mut u32,
    ) -> &mut Sent {
        if *cursor(self.packet(message, offset)) == END {
            self.send(message, offset, node, core);
        }
        let place = *cursor(self.packet(message, offset));
        let next = self.sent[place as usize].next;
        *cursor(self.packet(message, offset)) = next;
        &mut self.sent[place as usize]
    }

    /// A new reception of a packet; returns its index.
    fn receive(&mut self, message: u32, offset: u32, node: u16) -> u32 {
        let place = self.received.len() as u32;
        let packet = self.packet(message, offset);
        let last = packet.received.last;
        packet.received = List {
            first: if packet.received.count == 0 { place } else { packet.received.first },
            last: place,
            count: packet.received.count + 1,
        };
        if packet.next_softirq == END {
            packet.next_softirq = place;
        }
        if last != END {
            self.received[last as usize].next = place;
        }
        self.received.push(Received {
            gro: UNSEEN,
            softirq: UNSEEN,
            ring: None,
            node,
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
        place
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

fn follow<'a, T: 'a>(first: u32, at: impl Fn(u32) -> &'a T, next: impl Fn(&T) -> u32) -> impl Iterator<Item = &'a T> {
    let mut place = first;
    std::iter::from_fn(move || {
        let item = (place != END).then(|| at(place))?;
        place = next(item);
        Some(item)
    })
}

/// Packet that a core's GRO saw last.
#[derive(Clone, Copy)]
struct LastGro {
    grant: bool,
    place: u32,
    id: u32,
    offset: u32,
}

#[derive(Default)]
struct Builder {
    packets: Packets,
    by_id: FxHashMap<u64, u32>,
    /// Messages looked up last, one for requests and one for responses.
    recent: [Option<(u64, u32)>; 2],
    last_gro: FxHashMap<u16, LastGro>,
}

impl Builder {
    /// Message that `client` and the sender's `id` name.
    #[inline]
    fn message(&mut self, client: u16, id: u32) -> u32 {
        let key = u64::from(client) << 32 | u64::from(id);
        let recent = &mut self.recent[(id & 1) as usize];
        match recent {
            Some((known, place)) if *known == key => *place,
            _ => {
                let messages = &mut self.packets.messages;
                let place = *self.by_id.entry(key).or_insert_with(|| {
                    messages.push(Message { client, id, length: None, retransmitted: Vec::new() });
                    (messages.len() - 1) as u32
                });
                *recent = Some((key, place));
                place
            }
        }
    }

    fn length(&mut self, message: u32, length: u32) {
        if length > 0 {
            self.packets.messages[message as usize].length.get_or_insert(length);
        }
    }

    #[inline]
    fn add(&mut self, node: u16, record: &Record) {
        if record.client == AMBIGUOUS {
            return;
        }
        let Record { time, id, offset, core, client, .. } = *record;
        match record.kind {
            Kind::SendmsgRequest | Kind::SendmsgResponse => {
                let message = self.message(client, id);
                self.length(message, record.a);
            }
            Kind::Retransmit => {
                let message = self.message(client, id);
                self.packets.messages[message as usize].retransmitted.push((offset, offset.saturating_add(record.a)));
            }
            Kind::IpXmit => {
                let message = self.message(client, id);
                let again = is_retransmitted(&self.packets.messages[message as usize], offset);
                let sent = self.packets.data.send(message, offset, node, core);
                sent.xmit = time;
                sent.again |= again;
                sent.length = if record.have.has(Have::A) { record.a.saturating_sub(WIRE_OVERHEAD) } else { 0 };
            }
            Kind::SendData => {
                let message = self.message(client, id);
                // Kernels of 2024 sometimes say 0.
                if record.a > 0 {
                    self.packets.data.last_sent(message, offset, node, core).length = record.a;
                }
            }
            Kind::QdiscDefer | Kind::QdiscXmit => {
                let message = self.message(client, id);
                let sent = self.packets.data.last_sent(message, offset, node, core);
                *(if record.kind == Kind::QdiscDefer { &mut sent.deferred } else { &mut sent.undeferred }) = time;
            }
            Kind::NicData => {
                let message = self.message(client, id);
                self.packets.data.step_sent(message, offset, node, core, |p| &mut p.next_nic).nic = time;
            }
            Kind::FreeTxSkb => {
                let message = self.message(client, id);
                self.packets.data.step_sent(message, offset, node, core, |p| &mut p.next_free).free = time;
                self.length(message, record.b);
            }
            Kind::SendGrant => {
                let message = self.message(client, id);
                let sent = self.packets.grants.send(message, offset, node, core);
                sent.xmit = time;
                // A grant that grants nothing is a repetition even if the first is not in the trace.
                sent.again |= record.have.has(Have::B) && record.b as i32 <= 0;
            }
            Kind::NicGrant => {
                let message = self.message(client, id);
                self.packets.grants.step_sent(message, offset, node, core, |p| &mut p.next_nic).nic = time;
            }
            Kind::FreeGrant => {
                let message = self.message(client, id);
                self.packets.grants.step_sent(message, offset, node, core, |p| &mut p.next_free).free = time;
            }
            Kind::GroData | Kind::GroGrant => {
                let message = self.message(client, id ^ 1);
                let grant = record.kind == Kind::GroGrant;
                let flow = if grant { &mut self.packets.grants } else { &mut self.packets.data };
                let place = flow.gro(message, node, record);
                self.last_gro.insert(core, LastGro { grant, place, id, offset });
            }
            Kind::RingWait => match self.last_gro.get(&core) {
                Some(last) if (last.id, last.offset) == (id, offset) => {
                    let flow = if last.grant { &mut self.packets.grants } else { &mut self.packets.data };
                    flow.received[last.place as usize].ring = Some(record.a);
                }
                _ => self.packets.lone_ring_waits += 1,
            },
            Kind::SoftirqData => {
                let message = self.message(client, id ^ 1);
                self.packets.data.softirq(message, node, record);
                self.length(message, record.a);
            }
            Kind::SoftirqGrant => {
                let message = self.message(client, id ^ 1);
                self.packets.grants.softirq(message, node, record);
            }
            _ => {}
        }
    }
}

/// True if the sender said that it sends the byte at `offset` again.
pub fn is_retransmitted(message: &Message, offset: u32) -> bool {
    message.retransmitted.iter().any(|(start, end)| (*start..*end).contains(&offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hosts, testing::traces};

    fn collect(nodes: &[(&str, &str)]) -> Packets {
        let mut traces = traces(nodes);
        hosts::resolve(&mut traces);
        Packets::collect(&traces)
    }

    const A: &str = "1 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 10, offset 0
        1.5 Finished queueing packet: rpc id 10, offset 0, len 100, qid 0
        2 sent homa data packet via afp to 0xb, id 10, offset 0, queue 0x0
        9 freeing tx skb for homa data, id 10, offset 0, qid 0, msg_length 100";
    const B: &str = "5 homa_gro_receive got packet from 0xa id 11, offset 0, priority 5
        5.1 afp ring wait 700 ns for id 11, offset 0
        6 incoming data packet, id 11, peer 0xa, offset 0/100";

    #[test]
    fn a_packet_has_all_its_events() {
        let packets = collect(&[("a", A), ("b", B)]);
        assert_eq!(packets.data.packets.len(), 1);
        let packet = &packets.data.packets[0];
        let sent = packets.data.sent_of(packet).next().unwrap();
        assert_eq!((sent.xmit, sent.nic, sent.free, sent.length, sent.again), (1000, 2000, 9000, 100, false));
        let received = packets.data.received_of(packet).next().unwrap();
        assert_eq!((received.gro, received.softirq, received.ring), (5000, 6000, Some(700)));
        assert_eq!(packets.messages[packet.message as usize].length, Some(100));
        assert_eq!(packets.lone_ring_waits, 0);
    }

    #[test]
    fn repeated_events_are_kept_in_order() {
        let a = "1 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 10, offset 0
            2 sent homa data packet via afp to 0xb, id 10, offset 0, queue 0x0
            3 retransmitting offset 0, length 100, id 10
            4 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 10, offset 0
            5 sent homa data packet via afp to 0xb, id 10, offset 0, queue 0x0";
        let b = "6 homa_gro_receive got packet from 0xa id 11, offset 0, priority 5
            7 homa_gro_receive got packet from 0xa id 11, offset 0, priority 5
            8 incoming data packet, id 11, peer 0xa, offset 0/100
            9 incoming data packet, id 11, peer 0xa, offset 0/100";
        let packets = collect(&[("a", a), ("b", b)]);
        let packet = &packets.data.packets[0];
        let sent: Vec<_> = packets.data.sent_of(packet).map(|s| (s.xmit, s.nic, s.again)).collect();
        assert_eq!(sent, [(1000, 2000, false), (4000, 5000, true)]);
        let received: Vec<_> = packets.data.received_of(packet).map(|r| (r.gro, r.softirq)).collect();
        assert_eq!(received, [(6000, 8000), (7000, 9000)]);
        assert!(is_retransmitted(&packets.messages[0], 99) && !is_retransmitted(&packets.messages[0], 100));
    }

    #[test]
    fn events_without_a_beginning_are_kept() {
        let packets = collect(&[
            ("a", "9 freeing tx skb for homa data, id 10, offset 0, qid 0, msg_length 100"),
            ("b", "6 incoming data packet, id 11, peer 0xa, offset 0/100\n7 afp ring wait 1 ns for id 11, offset 0"),
        ]);
        let data = &packets.data;
        let frees: Vec<_> = data.packets.iter().flat_map(|p| data.sent_of(p)).map(|s| (s.xmit, s.free)).collect();
        assert_eq!(frees, [(UNSEEN, 9000)]);
        let arrivals: Vec<_> =
            data.packets.iter().flat_map(|p| data.received_of(p)).map(|r| (r.gro, r.time())).collect();
        assert_eq!(arrivals, [(UNSEEN, 6000)]);
        assert_eq!(packets.lone_ring_waits, 1);
    }

    #[test]
    fn segments_find_their_frame() {
        let a = "1 calling ip_queue_xmit: wire_bytes 4626, peer 0xb, id 10, offset 0
            2 Finished queueing packet: rpc id 10, offset 0, len 4272, qid 0
            3 calling ip_queue_xmit: wire_bytes 1542, peer 0xb, id 10, offset 4272";
        let b = "6 homa_gro_receive got packet from 0xa id 11, offset 0, priority 5
            6 homa_gro_receive got packet from 0xa id 11, offset 2848, priority 5
            6 homa_gro_receive got packet from 0xa id 11, offset 4272, priority 5
            6 homa_gro_receive got packet from 0xa id 11, offset 9000, priority 5";
        let packets = collect(&[("a", a), ("b", b)]);
        let mut frames: Vec<_> = packets.data.packets.iter().map(|p| (p.offset, p.frame)).collect();
        frames.sort_unstable();
        assert_eq!(frames, [(0, None), (2848, Some(0)), (4272, None), (9000, None)]);
    }
}
