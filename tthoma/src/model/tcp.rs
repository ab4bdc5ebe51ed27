//! TCP packets, as patched kernels log them. Source: timetrace.md 4.5.
//!
//! A packet is named by source, destination, sequence number (of packets without data: the acknowledgement) and whether
//! it has data. The k-th transmission of a name belongs to its k-th reception. A packet that was received and not itself
//! sent is part of the frame of the same stream that covers its first byte.

use rustc_hash::FxHashMap;

use super::flights::{Carries, Flight};
use super::{Model, NOWHERE};
use crate::event::{Kind, Record};
use crate::packets::UNSEEN;

/// Frames of each stream: first byte, length, flight.
type Frames = FxHashMap<(u32, u32), Vec<(u32, u32, u32)>>;
/// Source, destination, sequence number, whether there are data.
type Name = (u32, u32, u32, bool);

#[derive(Default)]
struct Tcp {
    flights: Vec<Flight>,
    /// Flights of each name, in the order of their first event on the sender.
    sent: FxHashMap<Name, Vec<u32>>,
    received: FxHashMap<Name, Vec<u32>>,
    /// Node of each endpoint's host: upper 16 bits of the endpoint.
    hosts: FxHashMap<u16, u16>,
}

/// All TCP packets of a model.
pub(super) fn collect(model: &Model) -> Vec<Flight> {
    let mut tcp = Tcp::default();
    if model.count(Kind::TcpXmit) + model.count(Kind::TcpGro) == 0 {
        return Vec::new();
    }
    for (node, trace) in model.traces.iter().enumerate() {
        let offset = model.clock.offset(node).unwrap_or(0);
        let mut queues: FxHashMap<u16, u32> = FxHashMap::default();
        for record in &trace.records {
            tcp.add(node as u16, record, record.time + offset, &mut queues);
        }
    }
    tcp.join()
}

impl Tcp {
    fn add(&mut self, node: u16, record: &Record, time: i64, queues: &mut FxHashMap<u16, u32>) {
        match record.kind {
            Kind::TcpFree2 => drop(queues.insert(record.core, record.a)),
            Kind::TcpXmit => {
                let flight = self.new_flight(record, true);
                (flight.xmit, flight.tx_core, flight.from) = (time, record.core, node);
            }
            Kind::TcpQdisc => self.sent(record, |f| f.undeferred == UNSEEN).undeferred = time,
            Kind::TcpNic => self.sent(record, |f| f.nic == UNSEEN).nic = time,
            Kind::TcpFree => {
                // The line before on the same core names the queue, once.
                let queue = queues.remove(&record.core);
                let flight = self.sent(record, |f| f.free == UNSEEN);
                flight.free = time;
                flight.queue = queue.unwrap_or(flight.queue);
            }
            Kind::TcpGro => {
                let flight = self.new_flight(record, false);
                (flight.gro, flight.gro_core, flight.to) = (time, record.core, node);
            }
            Kind::TcpSoftirq => {
                let name = name(record);
                let open = self
                    .received
                    .get(&name)
                    .and_then(|all| all.iter().copied().find(|place| self.flights[*place as usize].softirq == UNSEEN));
                if let Some(place) = open {
                    let flight = &mut self.flights[place as usize];
                    (flight.softirq, flight.softirq_core) = (time, record.core);
                }
            }
            _ => return,
        }
        let is_sender = matches!(record.kind, Kind::TcpXmit | Kind::TcpQdisc | Kind::TcpNic | Kind::TcpFree);
        if is_sender || matches!(record.kind, Kind::TcpGro | Kind::TcpSoftirq) {
            let endpoint = if is_sender { record.a } else { record.b };
            self.hosts.insert((endpoint >> 16) as u16, node);
        }
    }

    fn new_flight(&mut self, record: &Record, sent: bool) -> &mut Flight {
        let place = self.flights.len() as u32;
        let list = if sent { &mut self.sent } else { &mut self.received };
        list.entry(name(record)).or_default().push(place);
        let (frame, length) = if sent { (record.offset, 0) } else { (0, record.offset) };
        let (offset, message_length) = (record.a, record.b);
        let stream = Flight { offset, message_length, ..Flight::empty(Carries::Tcp) };
        self.flights.push(Flight { id: record.c, head: sent, frame, length, ..stream });
        self.flights.last_mut().expect("was just pushed")
    }

    /// The earliest transmission of the record's name that is `open`; a new one if it began before the trace.
    fn sent(&mut self, record: &Record, open: impl Fn(&Flight) -> bool) -> &mut Flight {
        let known = self.sent.get(&name(record));
        let place = known.and_then(|all| all.iter().copied().find(|place| open(&self.flights[*place as usize])));
        match place {
            Some(place) => &mut self.flights[place as usize],
            None => self.new_flight(record, true),
        }
    }

    /// Puts transmissions and receptions together.
    fn join(mut self) -> Vec<Flight> {
        let frames = self.frames();
        let mut gone = vec![false; self.flights.len()];
        let received = std::mem::take(&mut self.received);
        for (name, places) in &received {
            let sent = self.sent.get(name).map_or(&[][..], Vec::as_slice);
            for (k, place) in places.iter().enumerate() {
                let reception = self.flights[*place as usize];
                if let Some(sent) = sent.get(k) {
                    let flight = &mut self.flights[*sent as usize];
                    (flight.gro, flight.softirq, flight.to) = (reception.gro, reception.softirq, reception.to);
                    (flight.gro_core, flight.softirq_core) = (reception.gro_core, reception.softirq_core);
                    flight.length = reception.length;
                    gone[*place as usize] = true;
                } else if let Some(frame) = cover(&frames, *name).map(|place| self.flights[place as usize]) {
                    let flight = &mut self.flights[*place as usize];
                    (flight.xmit, flight.deferred, flight.undeferred) = (frame.xmit, frame.deferred, frame.undeferred);
                    (flight.nic, flight.free, flight.queue) = (frame.nic, frame.free, frame.queue);
                    (flight.from, flight.tx_core) = (frame.from, frame.tx_core);
                }
            }
        }
        let ends: Vec<(Name, u32)> = (self.sent.iter().chain(&received))
            .flat_map(|(name, places)| places.iter().map(|place| (*name, *place)))
            .collect();
        for (name, place) in ends {
            let host = |endpoint: u32| self.hosts.get(&((endpoint >> 16) as u16)).copied().unwrap_or(NOWHERE);
            let flight = &mut self.flights[place as usize];
            if flight.from == NOWHERE {
                flight.from = host(name.0);
            }
            if flight.to == NOWHERE {
                flight.to = host(name.1);
            }
            if flight.length == 0 {
                flight.length = flight.frame;
            }
        }
        let mut gone = gone.into_iter();
        self.flights.retain(|_| gone.next() == Some(false));
        self.flights
    }

    /// Frames with data of each stream, by first byte.
    fn frames(&self) -> Frames {
        let mut frames = Frames::default();
        for ((source, dest, seq, data), places) in &self.sent {
            if *data {
                let length = |place: &u32| self.flights[*place as usize].frame;
                frames.entry((*source, *dest)).or_default().extend(places.iter().map(|p| (*seq, length(p), *p)));
            }
        }
        frames.values_mut().for_each(|f| f.sort_unstable());
        frames
    }
}

/// The frame that covers the first byte of a packet.
fn cover(frames: &Frames, (source, dest, seq, data): Name) -> Option<u32> {
    let frames = frames.get(&(source, dest)).filter(|_| data)?;
    let before = frames.partition_point(|f| f.0 <= seq);
    let (start, length, place) = frames.get(before.checked_sub(1)?)?;
    (seq - start < *length).then_some(*place)
}

fn name(record: &Record) -> Name {
    (record.a, record.b, record.c, record.offset > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Options;
    use crate::testing::traces;

    #[test]
    fn segments_acks_and_queues_of_tcp() {
        let sender = "1 Transmitting TCP packet from 0x1000a to 0x20014, data bytes 2000, seq/ack 500\n\
            2 sent TCP packet via mlx from 0x1000a to 0x20014, data bytes 2000, seq/ack 500\n\
            8 freeing TCP skb for qid 3\n\
            8 freeing TCP skb from 0x1000a to 0x20014, data bytes 2000, seq/ack 500\n\
            9 tcp_gro_receive got packet from 0x20014 to 0x1000a, data bytes 0, seq/ack 2500\n";
        let receiver = "4 tcp_gro_receive got packet from 0x1000a to 0x20014, data bytes 1000, seq/ack 500\n\
            5 tcp_gro_receive got packet from 0x1000a to 0x20014, data bytes 1000, seq/ack 1500\n\
            6 softirq got TCP packet from 0x1000a to 0x20014, data bytes 1000, seq/ack 500\n\
            7 Transmitting TCP packet from 0x20014 to 0x1000a, data bytes 0, seq/ack 2500\n";
        let options = Options { no_sync: true, ..Options::default() };
        let model = Model::new(traces(&[("node1", sender), ("node2", receiver)]), &options);
        let mut all = model.flights().tcp.clone();
        all.sort_by_key(|f| f.gro);
        let shown: Vec<_> = all.iter().map(|f| (f.id, f.from, f.to, f.nic, f.gro, f.frame, f.length)).collect();
        assert_eq!(
            shown,
            [(500, 0, 1, 2000, 4000, 2000, 1000), (1500, 0, 1, 2000, 5000, 0, 1000), (2500, 1, 0, UNSEEN, 9000, 0, 0)]
        );
        assert_eq!((all[0].softirq, all[0].free, all[0].queue(), all[1].queue()), (6000, 8000, Some(3), Some(3)));
    }
}
