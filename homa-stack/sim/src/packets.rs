//! Packets on their way, each in a place of its own, so that events and queues hold four bytes instead of a packet; and
//! beside it what switches look at, so that they touch 16 bytes of it.

use crate::packet::{Ecn, HostId, Packet};
use crate::sys;

/// No packet.
pub(crate) const NONE: u32 = u32::MAX;

/// What a switch needs to know of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label {
    pub(crate) to: HostId,
    pub(crate) frame: u32,
    /// Of a packet in a queue: the one behind it. Of a free place: the next free one.
    pub(crate) next: u32,
    /// 0 to 7.
    pub(crate) priority: u8,
    pub(crate) ecn: Ecn,
}

#[derive(Debug)]
pub(crate) struct Packets<S> {
    bodies: Vec<Option<Packet<S>>>,
    labels: Vec<Label>,
    free: u32,
    count: usize,
}

impl<S> Packets<S> {
    pub(crate) fn new() -> Self {
        Self { bodies: Vec::new(), labels: Vec::new(), free: NONE, count: 0 }
    }

    #[inline]
    pub(crate) fn put(&mut self, packet: Packet<S>) -> u32 {
        self.count += 1;
        let Packet { to, frame, priority, ecn, .. } = packet;
        let label = Label { to, frame, next: NONE, priority: priority & 7, ecn };
        let index = self.free;
        if index == NONE {
            self.bodies.push(Some(packet));
            self.labels.push(label);
            return self.bodies.len() as u32 - 1;
        }
        self.free = std::mem::replace(&mut self.labels[index as usize], label).next;
        self.bodies[index as usize] = Some(packet);
        index
    }

    /// Takes a packet out, with the marks that it got.
    #[inline]
    pub(crate) fn take(&mut self, index: u32) -> Packet<S> {
        let label = &mut self.labels[index as usize];
        label.next = std::mem::replace(&mut self.free, index);
        self.count -= 1;
        let mut packet = self.bodies[index as usize].take().expect("an index is taken once");
        packet.ecn = label.ecn;
        packet
    }

    #[inline]
    pub(crate) fn label(&mut self, index: u32) -> &mut Label {
        &mut self.labels[index as usize]
    }

    #[inline]
    pub(crate) fn get(&mut self, index: u32) -> &mut Packet<S> {
        self.bodies[index as usize].as_mut().expect("the packet was not taken")
    }

    /// A packet will be looked at soon.
    #[inline]
    pub(crate) fn expect(&self, index: u32) {
        sys::prefetch(&self.bodies[index as usize]);
    }

    /// The packet's [`Packet::flow`].
    pub(crate) fn flow(&self, index: u32) -> u64 {
        self.bodies[index as usize].as_ref().map_or(0, |packet| packet.flow)
    }

    /// Packets that are there.
    pub(crate) fn len(&self) -> usize {
        self.count
    }
}
