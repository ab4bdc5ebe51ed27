//! The host's queue in front of the network card: connections take turns, those that just began first.
//!
//! This is fq_codel (RFC 8290) with a queue for each connection, its two lists and deficits, but without CoDel's drops
//! and marks. The quantum is the length of a segment of offloading, since those leave such a queue as a whole.

use std::collections::VecDeque;

use crate::packet::Packet;

/// No packet.
const NONE: u32 = u32::MAX;

/// Packets of one connection.
#[derive(Clone, Copy, Debug)]
struct Flow {
    first: u32,
    last: u32,
    /// Bytes that it may send before the others have their turn.
    credit: i64,
    /// It is in one of the lists.
    listed: bool,
}

/// A packet and the one behind it in its flow, or a free place.
#[derive(Debug)]
struct Place<S> {
    packet: Option<Packet<S>>,
    next: u32,
}

/// Packets that wait for the card.
#[derive(Debug)]
pub(crate) struct TransmitQueue<S> {
    places: Vec<Place<S>>,
    free: u32,
    flows: Vec<Flow>,
    /// Flows that were empty, then those that have had their first turn.
    new: VecDeque<u32>,
    old: VecDeque<u32>,
    quantum: i64,
    /// All packets are in one flow, with the owners beside.
    owners: Option<VecDeque<u32>>,
    len: usize,
}

impl<S> TransmitQueue<S> {
    /// A queue whose flows send `quantum` bytes in turn, or, unless `fair`, in the order of arrival.
    pub(crate) fn new(quantum: u32, fair: bool) -> Self {
        Self {
            places: Vec::new(),
            free: NONE,
            flows: Vec::new(),
            new: VecDeque::new(),
            old: VecDeque::new(),
            quantum: i64::from(quantum.max(1)),
            owners: (!fair).then(VecDeque::new),
            len: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a packet of a connection.
    pub(crate) fn push(&mut self, connection: u32, packet: Packet<S>) {
        let flow = match &mut self.owners {
            Some(owners) => {
                owners.push_back(connection);
                0
            }
            None => connection,
        };
        let place = self.place(packet);
        if self.flows.len() <= flow as usize {
            let empty = Flow { first: NONE, last: NONE, credit: 0, listed: false };
            self.flows.resize(flow as usize + 1, empty);
        }
        self.len += 1;
        let f = &mut self.flows[flow as usize];
        if f.first == NONE {
            f.first = place;
        } else {
            self.places[f.last as usize].next = place;
        }
        f.last = place;
        if !f.listed {
            (f.listed, f.credit) = (true, self.quantum);
            self.new.push_back(flow);
        }
    }

    /// Takes the packet whose turn it is, and says whose it is.
    pub(crate) fn pop(&mut self) -> Option<(u32, Packet<S>)> {
        loop {
            let from_new = !self.new.is_empty();
            let list = if from_new { &mut self.new } else { &mut self.old };
            let flow = *list.front()?;
            let f = &mut self.flows[flow as usize];
            if f.credit <= 0 {
                f.credit += self.quantum;
                list.pop_front();
                self.old.push_back(flow);
                continue;
            }
            if f.first == NONE {
                list.pop_front();
                if from_new && !self.old.is_empty() {
                    // A flow that comes and goes does not overtake the others each time.
                    self.old.push_back(flow);
                } else {
                    f.listed = false;
                }
                continue;
            }
            let index = f.first;
            let place = &mut self.places[index as usize];
            let packet = place.packet.take().expect("a place in a flow holds a packet");
            f.first = std::mem::replace(&mut place.next, self.free);
            self.free = index;
            f.credit -= i64::from(packet.frame);
            self.len -= 1;
            let owner = self.owners.as_mut().map_or(flow, |owners| owners.pop_front().expect("one for each packet"));
            return Some((owner, packet));
        }
    }

    fn place(&mut self, packet: Packet<S>) -> u32 {
        let index = self.free;
        if index == NONE {
            self.places.push(Place { packet: Some(packet), next: NONE });
            return self.places.len() as u32 - 1;
        }
        let place = &mut self.places[index as usize];
        self.free = std::mem::replace(&mut place.next, NONE);
        place.packet = Some(packet);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Ecn, HostId};
    use crate::time::Time;

    fn packet(frame: u32, segment: u32) -> Packet<u32> {
        let (from, to) = (HostId(0), HostId(1));
        Packet { from, to, frame, priority: 0, ecn: Ecn::NotCapable, flow: 0, arrived: Time::ZERO, segment }
    }

    fn order(queue: &mut TransmitQueue<u32>) -> Vec<(u32, u32)> {
        std::iter::from_fn(|| queue.pop()).map(|(owner, packet)| (owner, packet.segment)).collect()
    }

    #[test]
    fn flows_take_turns_of_a_quantum_and_keep_their_order() {
        let mut queue = TransmitQueue::new(2000, true);
        for n in 0..4 {
            queue.push(5, packet(1000, n));
        }
        for n in 0..4 {
            queue.push(2, packet(1000, 10 + n));
        }
        let order = order(&mut queue);
        assert_eq!(order, [(5, 0), (5, 1), (2, 10), (2, 11), (5, 2), (5, 3), (2, 12), (2, 13)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_flow_that_begins_goes_first() {
        let mut queue = TransmitQueue::new(2000, true);
        for n in 0..6 {
            queue.push(1, packet(1000, n));
        }
        assert_eq!([queue.pop().unwrap().1.segment, queue.pop().unwrap().1.segment], [0, 1]);
        queue.push(2, packet(70, 10));
        assert_eq!(order(&mut queue), [(2, 10), (1, 2), (1, 3), (1, 4), (1, 5)]);
    }

    #[test]
    fn without_fairness_the_first_come_is_the_first_served() {
        let mut queue = TransmitQueue::new(1000, false);
        for n in 0..6 {
            queue.push(n % 3, packet(1500, n));
        }
        assert_eq!(order(&mut queue), [(0, 0), (1, 1), (2, 2), (0, 3), (1, 4), (2, 5)]);
    }
}
