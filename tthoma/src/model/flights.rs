//! Packets on their way, flat and on one clock: what most analyses of packets read.
//!
//! A row is a transmission and the reception that belongs to it, or one of them alone if the other was not seen or is
//! uncertain (see [`Journey`](super::Journey)). A packet that was sent twice has two rows. Source: timetrace.md 4.3-4.5.

use std::thread;

use rustc_hash::FxHashMap;

use super::{Model, NOWHERE, Rpcs};
use crate::packets::{Flow, Message, NO_PRIORITY, NO_QUEUE, Packets, UNSEEN};

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// Bytes of a message.
    Data,
    /// A grant.
    Grant,
    /// TCP data or an acknowledgement.
    Tcp,
}

/// A packet's way. Times are ns on the common clock (that of the node, if it can't be placed), [`UNSEEN`] if unknown.
#[derive(Clone, Copy, Debug)]
pub struct Flight {
    /// What it carries.
    pub carries: Carries,
    /// It heads the frame that was passed to IP: the frame's times and bytes count here, once.
    pub head: bool,
    /// Its bytes were sent before.
    pub again: bool,
    /// The pacer sent it.
    pub paced: bool,
    /// SoftIRQ threw it away.
    pub discarded: bool,
    /// Level of the packet; of grants, of the data that they allow. [`NO_PRIORITY`] if unknown.
    pub priority: u8,
    /// Sender, [`NOWHERE`] if unknown.
    pub from: u16,
    /// Receiver, also of a packet that never arrived; [`NOWHERE`] if unknown.
    pub to: u16,
    /// Core that sent it.
    pub tx_core: u16,
    /// Core of GRO.
    pub gro_core: u16,
    /// Core of SoftIRQ.
    pub softirq_core: u16,
    /// Its message, as an index of [`Packets::messages`]; of grants, the one that goes in the grant's own direction;
    /// `u32::MAX` for TCP.
    pub message: u32,
    /// Id of the RPC on the sender; of TCP packets, the sequence number.
    pub id: u32,
    /// First byte in the message; of grants, the limit; of TCP packets, the source's endpoint.
    pub offset: u32,
    /// Bytes of the message in the packet as it is received; of grants, bytes newly granted; 0 if unknown.
    pub length: u32,
    /// Bytes of the message in the frame that it heads; 0 if it heads none, or unknown.
    pub frame: u32,
    /// Bytes of the message; 0 if unknown, and for grants; of TCP packets, the destination's endpoint.
    pub message_length: u32,
    /// Transmit queue, [`NO_QUEUE`] if unknown.
    pub queue: u32,
    /// The driver's name of the queue, 0 if unknown.
    pub queue_address: u32,
    /// Passed to IP; grants: decided.
    pub xmit: i64,
    /// Held back by homa_qdisc.
    pub deferred: i64,
    /// Let go by homa_qdisc.
    pub undeferred: i64,
    /// Given to the NIC.
    pub nic: i64,
    /// Given back by the NIC.
    pub free: i64,
    /// At GRO.
    pub gro: i64,
    /// In SoftIRQ.
    pub softirq: i64,
}

/// Time from one event to another; `None` if one of them was not seen.
pub fn since(from: i64, to: i64) -> Option<i64> {
    (from != UNSEEN && to != UNSEEN).then(|| to - from)
}

/// A time, unless unseen.
pub fn seen(time: i64) -> Option<i64> {
    (time != UNSEEN).then_some(time)
}

/// The first of some times that was seen.
pub fn first_seen(times: &[i64]) -> i64 {
    times.iter().copied().find(|t| *t != UNSEEN).unwrap_or(UNSEEN)
}

impl Flight {
    /// Nothing known but what it carries.
    pub(crate) const fn empty(carries: Carries) -> Self {
        Self {
            carries,
            head: false,
            again: false,
            paced: false,
            discarded: false,
            priority: NO_PRIORITY,
            from: NOWHERE,
            to: NOWHERE,
            tx_core: 0,
            gro_core: 0,
            softirq_core: 0,
            message: u32::MAX,
            id: 0,
            offset: 0,
            length: 0,
            frame: 0,
            message_length: 0,
            queue: NO_QUEUE,
            queue_address: 0,
            xmit: UNSEEN,
            deferred: UNSEEN,
            undeferred: UNSEEN,
            nic: UNSEEN,
            free: UNSEEN,
            gro: UNSEEN,
            softirq: UNSEEN,
        }
    }

    /// When it left for the NIC: let go by homa_qdisc, else passed to IP; unseen while it is held back.
    pub fn left(&self) -> i64 {
        if self.undeferred != UNSEEN {
            self.undeferred
        } else if self.deferred != UNSEEN {
            UNSEEN
        } else {
            self.xmit
        }
    }

    /// Given to the NIC; passed to IP, if the former was not seen.
    pub fn nic_or_xmit(&self) -> i64 {
        first_seen(&[self.nic, self.xmit])
    }

    /// Level, if known.
    pub fn level(&self) -> Option<u8> {
        (self.priority != NO_PRIORITY).then_some(self.priority)
    }

    /// Transmit queue, if known.
    pub fn queue(&self) -> Option<u32> {
        (self.queue != NO_QUEUE).then_some(self.queue)
    }

    /// Bytes of the frame if it heads one, else of the packet.
    pub fn bytes(&self) -> u32 {
        if self.frame > 0 { self.frame } else { self.length }
    }

    /// True if its transmission was seen.
    pub fn sent(&self) -> bool {
        first_seen(&[self.xmit, self.nic, self.free]) != UNSEEN
    }

    /// Where its data end in the message, bytes; a damaged trace may say more than there can be.
    pub fn data_end(&self) -> u32 {
        self.offset.saturating_add(self.length)
    }

    /// True if it was received.
    pub fn arrived(&self) -> bool {
        self.gro != UNSEEN || self.softirq != UNSEEN
    }
}

/// All flights, sorted by message.
#[derive(Debug, Default)]
pub struct Flights {
    /// Data.
    pub data: Vec<Flight>,
    /// Grants.
    pub grants: Vec<Flight>,
    /// TCP packets.
    pub tcp: Vec<Flight>,
    /// Bytes of a full packet, 0 if unknown.
    pub mtu: u32,
    data_of: Vec<u32>,
    grants_of: Vec<u32>,
}

impl Flights {
    pub(crate) fn collect(model: &Model) -> Self {
        let (lengths, mtu) = lengths(&model.packets);
        let messages = model.packets.messages.len();
        let (data, data_of) = sorted(homa(model, Carries::Data, &lengths), messages);
        let (grants, grants_of) = sorted(homa(model, Carries::Grant, &[]), messages);
        Self { data, grants, tcp: super::tcp::collect(model), mtu, data_of, grants_of }
    }

    /// Data of a message, in the order of their first event.
    pub fn data_of(&self, message: u32) -> &[Flight] {
        range(&self.data, &self.data_of, message)
    }

    /// Grants for the data of a message, in the order of their first event.
    pub fn grants_for(&self, rpcs: &Rpcs, message: u32) -> &[Flight] {
        rpcs.opposite(message).map_or(&[], |opposite| range(&self.grants, &self.grants_of, opposite))
    }

    /// All flights.
    pub fn all(&self) -> impl Iterator<Item = &Flight> {
        self.data.iter().chain(&self.grants).chain(&self.tcp)
    }
}

fn range<'a>(all: &'a [Flight], starts: &[u32], message: u32) -> &'a [Flight] {
    let message = message as usize;
    match (starts.get(message), starts.get(message + 1)) {
        (Some(start), Some(end)) => &all[*start as usize..*end as usize],
        _ => &[],
    }
}

/// `flights` by message, and where each message begins.
fn sorted(mut flights: Vec<Flight>, messages: usize) -> (Vec<Flight>, Vec<u32>) {
    if !flights.is_sorted_by_key(|f| f.message) {
        flights.sort_by_key(|f| f.message);
    }
    let mut starts = vec![0u32; messages + 1];
    flights.iter().for_each(|f| starts[f.message as usize + 1] += 1);
    (1..starts.len()).for_each(|i| starts[i] += starts[i - 1]);
    (flights, starts)
}

/// Data or grants.
fn homa(model: &Model, carries: Carries, lengths: &[u32]) -> Vec<Flight> {
    let offsets: Vec<i64> = (0..model.traces.len()).map(|n| model.clock.offset(n).unwrap_or(0)).collect();
    let place = |node: u16, time: i64| if time == UNSEEN { UNSEEN } else { time + offsets[usize::from(node)] };
    let rpcs = model.rpcs();
    let flight = |journey: super::Journey<'_>, ends: &mut (u32, u16, u16)| {
        let (message, packet) = (journey.message, journey.packet);
        if ends.0 != packet.message {
            let (from, to) = message_ends(model, rpcs, packet.message, message);
            *ends = (packet.message, from, to);
        }
        let mut flight = Flight {
            message: packet.message,
            id: message.id,
            offset: packet.offset,
            message_length: message.length.filter(|_| carries == Carries::Data).unwrap_or(0),
            from: ends.1,
            to: ends.2,
            ..Flight::empty(carries)
        };
        if let Some(sent) = journey.sent {
            flight.head = journey.first_of_frame;
            (flight.again, flight.paced, flight.from, flight.tx_core) =
                (sent.again, journey.held.paced, sent.node, sent.core);
            (flight.queue, flight.queue_address) = (sent.queue().unwrap_or(NO_QUEUE), sent.queue_address);
            flight.frame = if flight.head && carries == Carries::Data { sent.length } else { 0 };
            flight.length = if carries == Carries::Grant { sent.length } else { 0 };
            flight.priority = sent.priority;
            flight.xmit = place(sent.node, sent.xmit);
            flight.deferred = place(sent.node, journey.held.deferred);
            flight.undeferred = place(sent.node, journey.held.undeferred);
            flight.nic = place(sent.node, sent.nic);
            flight.free = place(sent.node, sent.free);
        }
        if let Some(received) = journey.received {
            (flight.to, flight.discarded) = (received.node, received.discarded);
            (flight.gro_core, flight.softirq_core) = (received.gro_core, received.softirq_core);
            if carries == Carries::Data {
                flight.priority = received.priority;
            }
            flight.gro = place(received.node, received.gro);
            flight.softirq = place(received.node, received.softirq);
        }
        if carries == Carries::Data {
            flight.length = lengths[journey.place as usize];
        }
        flight
    };
    // Parts are made side by side where they belong.
    let count = if carries == Carries::Grant { model.journeys().grants.len() } else { model.journeys().data.len() };
    let mut out = vec![Flight::empty(carries); count];
    in_chunks(&mut out, |first, flights| {
        let mut ends = (u32::MAX, NOWHERE, NOWHERE);
        let mut fill = |journeys: &mut dyn Iterator<Item = super::Journey<'_>>| {
            flights.iter_mut().zip(journeys).for_each(|(to, journey)| *to = flight(journey, &mut ends));
        };
        match carries {
            Carries::Grant => fill(&mut model.grants().skip(first)),
            _ => fill(&mut model.data().skip(first)),
        }
    });
    out
}

/// Lets `work` have the parts of a list, each with the place of its first item; a thread for each.
fn in_chunks<T: Send>(list: &mut [T], work: impl Fn(usize, &mut [T]) + Sync) {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let length = list.len().div_ceil(threads).max(10_000);
    thread::scope(|scope| {
        for (part, items) in list.chunks_mut(length).enumerate() {
            let work = &work;
            scope.spawn(move || work(part * length, items));
        }
    });
}

/// Sender and receiver of a message's data.
fn message_ends(model: &Model, rpcs: &Rpcs, place: u32, message: &Message) -> (u16, u16) {
    let (from, to) = (rpcs.sender(place), rpcs.receiver(place));
    let is_node = |host: u16| if usize::from(host) < model.traces.len() { host } else { NOWHERE };
    let by_address = |side: Option<&super::Side>| {
        let peer = side.and_then(|s| s.peer).and_then(|peer| model.hosts.by_address.get(&peer));
        peer.map_or(NOWHERE, |host| is_node(*host))
    };
    let client = is_node(model.hosts.base(message.client));
    let request = message.id.is_multiple_of(2);
    let known = |side: Option<&super::Side>, other: Option<&super::Side>, is_client: bool| match side {
        Some(side) => side.node,
        None if is_client => client,
        None => by_address(other),
    };
    (known(from, to, request), known(to, from, !request))
}

/// Message bytes of each data packet as it is received, and of a full packet: up to the next packet, the end of its frame
/// or of the message, whichever comes first; where packets between were never seen, a full packet.
fn lengths(packets: &Packets) -> (Vec<u32>, u32) {
    let flow = &packets.data;
    let mut steps: FxHashMap<u32, u32> = FxHashMap::default();
    let mut lengths = vec![0; flow.packets.len()];
    for (message, about) in packets.messages.iter().enumerate() {
        let mut entries = flow.of_message(message as u32).peekable();
        while let Some((offset, place)) = entries.next() {
            let next = entries.peek().map(|(next, _)| *next);
            let ends = [next, frame_end(flow, place), about.length];
            let Some(end) = ends.into_iter().flatten().filter(|end| *end > offset).min() else { continue };
            lengths[place as usize] = end - offset;
            if next == Some(end) && flow.packets[place as usize].received_count() > 0 {
                *steps.entry(end - offset).or_default() += 1;
            }
        }
    }
    let mtu = steps.into_iter().max_by_key(|(length, count)| (*count, *length)).map_or(0, |(length, _)| length);
    if mtu > 0 {
        for length in &mut lengths {
            *length = match *length {
                0 => mtu,
                long if long > mtu && long.is_multiple_of(mtu) => mtu,
                known => known,
            };
        }
    }
    (lengths, mtu)
}

/// End of the frame that a packet was sent in.
fn frame_end(flow: &Flow, place: u32) -> Option<u32> {
    let packet = &flow.packets[place as usize];
    let frame = if packet.sent_count() > 0 { packet } else { &flow.packets[packet.frame()? as usize] };
    let length = flow.sent_of(frame).map(|s| s.length).max().filter(|l| *l > 0)?;
    Some(frame.offset.saturating_add(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Options;
    use crate::testing::traces;

    /// One frame of 2800 bytes, received as two packets; a second of 200 bytes that is lost.
    fn model() -> Model {
        let client = "1 homa_sendmsg request, target 0xb:4000, id 10, length 3000\n\
            2 calling ip_queue_xmit: wire_bytes 2918, peer 0xb, id 10, offset 0\n\
            3 Finished queueing packet: rpc id 10, offset 0, len 2800, qid 7\n\
            3.5 sent homa data packet via mlx to 0xb, id 10, offset 0, queue 0xff\n\
            4 calling ip_queue_xmit: wire_bytes 318, peer 0xb, id 10, offset 2800\n";
        let server = "5 homa_gro_receive got packet from 0xa id 11, offset 0, priority 6\n\
            6 homa_gro_receive got packet from 0xa id 11, offset 1400, priority 6\n\
            7 incoming data packet, id 11, peer 0xa, offset 0/3000\n\
            8 sending grant for id 11, offset 3000, priority 2, increment 200\n";
        let options = Options { no_sync: true, ..Options::default() };
        Model::new(traces(&[("node1", client), ("node2", server)]), &options)
    }

    #[test]
    fn segments_inherit_the_times_of_their_frame() {
        let model = model();
        let data = &model.flights().data;
        let shown: Vec<_> = data.iter().map(|f| (f.offset, f.length, f.frame, f.head, f.nic, f.gro)).collect();
        assert_eq!(
            shown,
            [
                (0, 1400, 2800, true, 3500, 5000),
                (2800, 200, 200, true, UNSEEN, UNSEEN),
                (1400, 1400, 0, false, 3500, 6000)
            ]
        );
        assert!(data.iter().all(|f| (f.from, f.to) == (0, 1)), "the receiver of a lost packet is known, too");
        assert_eq!((data[0].queue(), data[0].queue_address, data[0].level()), (Some(7), 0xff, Some(6)));
        assert_eq!(data[0].softirq, 7000);
    }

    #[test]
    fn grants_fly_the_other_way() {
        let model = model();
        let grant = model.flights().grants[0];
        assert_eq!((grant.from, grant.to, grant.length, grant.priority), (1, 0, 200, 2));
        assert_eq!(model.flights().grants_for(model.rpcs(), model.flights().data[0].message).len(), 1);
        assert_eq!(model.flights().data_of(model.flights().data[0].message).len(), 3);
    }
}
