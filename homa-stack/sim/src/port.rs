//! The host's side of the network as its transport sees it.

use std::collections::VecDeque;

use crate::packet::{HostId, LINK_OVERHEAD, Packet};
use crate::time::Time;

/// Packets in and the NIC's queue out.
///
/// The simulator fills and empties it around each [`Transport::turn`](crate::Transport::turn); tests of a transport may
/// do so by hand.
#[derive(Debug)]
pub struct Port<S> {
    host: HostId,
    now: Time,
    inbox: VecDeque<Packet<S>>,
    outbox: VecDeque<Packet<S>>,
    /// When the NIC will have sent what it was given.
    busy_until: Time,
    /// Most backlog with which the NIC takes more.
    limit: Time,
    /// What a byte takes on the link, in picoseconds.
    picos_per_byte: u64,
    refused: bool,
}

impl<S> Port<S> {
    /// The port of `host`, with a NIC that is infinitely fast.
    pub fn new(host: HostId) -> Self {
        Self {
            host,
            now: Time::ZERO,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            busy_until: Time::ZERO,
            limit: Time::ZERO,
            picos_per_byte: 0,
            refused: false,
        }
    }

    /// Whose port it is.
    pub fn host(&self) -> HostId {
        self.host
    }

    /// The next packet that the host hands to the protocol.
    pub fn receive(&mut self) -> Option<Packet<S>> {
        self.inbox.pop_front()
    }

    /// Packets that [`Self::receive`] will give.
    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// True if the NIC takes a packet. A refusal is remembered: the host gets a turn when there is room again.
    pub fn room(&mut self) -> bool {
        let room = self.nic_backlog() <= self.limit;
        self.refused |= !room;
        room
    }

    /// Gives a packet to the NIC, which sends in the order of these calls, with room or without.
    pub fn send(&mut self, packet: Packet<S>) {
        let wire = u64::from(packet.frame + LINK_OVERHEAD);
        self.busy_until = self.busy_until.max(self.now) + Time::from_picos(wire * self.picos_per_byte);
        self.outbox.push_back(packet);
    }

    /// How long the NIC needs for what it has.
    pub fn nic_backlog(&self) -> Time {
        self.busy_until.since(self.now)
    }

    /// Hands a packet to the protocol: [`Self::receive`] gives it.
    pub fn deliver(&mut self, packet: Packet<S>) {
        self.inbox.push_back(packet);
    }

    /// Takes what was sent.
    pub fn sent(&mut self) -> impl Iterator<Item = Packet<S>> + '_ {
        self.outbox.drain(..)
    }
}
