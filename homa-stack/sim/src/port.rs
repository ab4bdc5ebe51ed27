//! The host's side of the network as its transport sees it.

use std::collections::VecDeque;

use crate::fabric::Link;
use crate::packet::{HostId, Packet};
use crate::packets::Packets;
use crate::time::Time;

/// Packets in and the NIC's queue out.
///
/// The simulator fills and empties it around each [`Transport::turn`](crate::Transport::turn); tests of a transport may
/// do so by hand.
#[derive(Debug)]
pub struct Port<S> {
    host: HostId,
    now: Time,
    /// All packets of the network, wherever they are.
    packets: Packets<S>,
    /// Packets that came, with the times when receiving cores saw them, and which.
    inbox: VecDeque<(u32, Time, u16)>,
    /// Of the packet received last.
    seen: (Time, u16),
    /// Packets sent, with the times at which their last bits leave.
    outbox: VecDeque<(Time, u32)>,
    /// When the NIC will have sent what it was given, but for the delay on the way to it.
    busy_until: Time,
    /// When it really will.
    out_until: Time,
    /// Most backlog with which the NIC takes more.
    limit: Time,
    /// What packets take; nothing: no time.
    link: Option<Link>,
    /// What packets take on their way to the NIC now.
    delay: Time,
    refused: bool,
}

/// What a [`Port`] that serves many hosts must know of each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Nic {
    /// When it will have sent what it was given.
    pub(crate) busy_until: Time,
    /// The same with the delay on the way to it.
    pub(crate) out_until: Time,
    /// True if a packet was refused in the last turn.
    pub(crate) refused: bool,
}

impl<S> Port<S> {
    /// The port of `host`, with a NIC that is infinitely fast.
    pub fn new(host: HostId) -> Self {
        Self {
            host,
            now: Time::ZERO,
            packets: Packets::new(),
            inbox: VecDeque::new(),
            seen: (Time::ZERO, 0),
            outbox: VecDeque::new(),
            busy_until: Time::ZERO,
            out_until: Time::ZERO,
            limit: Time::ZERO,
            link: None,
            delay: Time::ZERO,
            refused: false,
        }
    }

    /// Whose port it is.
    pub fn host(&self) -> HostId {
        self.host
    }

    /// The next packet that the host hands to the protocol.
    #[inline]
    pub fn receive(&mut self) -> Option<Packet<S>> {
        let (packet, seen, core) = self.inbox.pop_front()?;
        self.seen = (seen, core);
        Some(self.packets.take(packet))
    }

    /// When a receiving core of the host saw the packet that [`Self::receive`] gave last, and which core: for traces.
    pub fn seen(&self) -> (Time, u16) {
        self.seen
    }

    /// Packets that [`Self::receive`] will give.
    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// True if the NIC takes a packet. A refusal is remembered: the host gets a turn when there is room again.
    #[inline]
    pub fn room(&mut self) -> bool {
        let room = self.nic_backlog() <= self.limit;
        self.refused |= !room;
        room
    }

    /// Gives a packet to the NIC, which sends in the order of these calls, with room or without.
    #[inline]
    pub fn send(&mut self, packet: Packet<S>) {
        let time = self.link.map_or(Time::ZERO, |link| link.frame_time(packet.frame));
        self.busy_until = self.busy_until.max(self.now) + time;
        self.out_until = self.out_until.max(self.now + self.delay) + time;
        let index = self.packets.put(packet);
        self.outbox.push_back((self.out_until, index));
    }

    /// How long the NIC needs for what it has, and for what is on the way to it.
    pub fn nic_backlog(&self) -> Time {
        self.busy_until.since(self.now)
    }

    /// Hands a packet to the protocol: [`Self::receive`] gives it.
    pub fn deliver(&mut self, packet: Packet<S>) {
        let index = self.packets.put(packet);
        self.inbox.push_back((index, self.now, 0));
    }

    /// Takes what was sent.
    pub fn sent(&mut self) -> impl Iterator<Item = Packet<S>> + '_ {
        self.outbox.drain(..).map(|(_, index)| self.packets.take(index))
    }

    /// A port for hosts on links like `link`, whose NICs take packets with at most `limit` of backlog.
    pub(crate) fn on(link: Link, limit: Time) -> Self {
        Self { link: Some(link), limit, ..Self::new(HostId(0)) }
    }

    /// Becomes the port of `host` at `now`, whose packets need `delay` to the NIC.
    #[inline]
    pub(crate) fn enter(&mut self, host: HostId, now: Time, nic: Nic, delay: Time) {
        (self.host, self.now, self.delay) = (host, now, delay);
        (self.busy_until, self.out_until, self.refused) = (nic.busy_until, nic.out_until, false);
    }

    /// What is to be known when it becomes another's.
    #[inline]
    pub(crate) fn leave(&self) -> Nic {
        Nic { busy_until: self.busy_until, out_until: self.out_until, refused: self.refused }
    }

    /// The next packet sent, and when its last bit leaves.
    #[inline]
    pub(crate) fn take_sent(&mut self) -> Option<(Time, u32)> {
        self.outbox.pop_front()
    }

    /// Hands a packet to the protocol, which `core` saw at `seen`.
    #[inline]
    pub(crate) fn hand(&mut self, packet: u32, seen: Time, core: u16) {
        self.inbox.push_back((packet, seen, core));
    }

    /// Hands on a packet that another port of the host has received.
    pub(crate) fn pass(&mut self, packet: Packet<S>, seen: Time, core: u16) {
        let index = self.packets.put(packet);
        self.inbox.push_back((index, seen, core));
    }

    /// Becomes what `other`, the port of the same host for other packets, is now.
    pub(crate) fn follow<T>(&mut self, other: &Port<T>) {
        (self.host, self.now, self.delay) = (other.host, other.now, other.delay);
        (self.link, self.limit, self.refused) = (other.link, other.limit, false);
        (self.busy_until, self.out_until) = (other.busy_until, other.out_until);
    }

    /// Remembers that a packet was refused, if one was.
    pub(crate) fn refuse(&mut self, refused: bool) {
        self.refused |= refused;
    }

    /// All packets of the network.
    #[inline]
    pub(crate) fn packets(&mut self) -> &mut Packets<S> {
        &mut self.packets
    }

    /// The number of them.
    pub(crate) fn under_way(&self) -> usize {
        self.packets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Ecn, frame_bytes};

    fn packet() -> Packet<()> {
        let frame = frame_bytes(1500);
        let (from, to) = (HostId(0), HostId(1));
        Packet { from, to, frame, priority: 0, ecn: Ecn::NotCapable, flow: 0, arrived: Time::ZERO, segment: () }
    }

    #[test]
    fn the_nic_sends_one_after_the_other_and_refuses_beyond_its_limit() {
        let one = Time::from_picos(1538 * 320);
        let mut port = Port::on(Link::new(25.0, Time::ZERO), Time::from_micros(1));
        let now = Time::from_micros(7);
        port.enter(HostId(0), now, Nic::default(), Time::ZERO);
        for n in 1..=3 {
            assert!(port.room(), "{n} packets before take less than 1 us");
            port.send(packet());
            assert_eq!(port.nic_backlog(), Time::from_picos(one.as_picos() * n));
        }
        assert!(!port.leave().refused && !port.room() && port.leave().refused);
        let times: Vec<_> = std::iter::from_fn(|| port.take_sent()).map(|(at, _)| (at - now).as_picos()).collect();
        assert_eq!(times, [1, 2, 3].map(|n| n * one.as_picos()));
        port.enter(HostId(0), now + one, port.leave(), Time::ZERO);
        assert!(port.room() && !port.leave().refused, "984 ns are left");
    }
}
