//! Packets on their way, each in a place of its own, so that events and queues hold four bytes instead of a packet.

use crate::packet::Packet;

/// No packet.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Packets<S> {
    all: Vec<Option<Packet<S>>>,
    /// Of a packet in a queue: the one behind it. Of a free place: the next free one.
    next: Vec<u32>,
    free: u32,
    count: usize,
}

impl<S> Packets<S> {
    pub(crate) fn new() -> Self {
        Self { all: Vec::new(), next: Vec::new(), free: NONE, count: 0 }
    }

    #[inline]
    pub(crate) fn put(&mut self, packet: Packet<S>) -> u32 {
        self.count += 1;
        let index = self.free;
        if index == NONE {
            self.all.push(Some(packet));
            self.next.push(NONE);
            return self.all.len() as u32 - 1;
        }
        self.free = self.next[index as usize];
        self.next[index as usize] = NONE;
        self.all[index as usize] = Some(packet);
        index
    }

    #[inline]
    pub(crate) fn take(&mut self, index: u32) -> Packet<S> {
        self.next[index as usize] = std::mem::replace(&mut self.free, index);
        self.count -= 1;
        self.all[index as usize].take().expect("an index is taken once")
    }

    #[inline]
    pub(crate) fn get(&mut self, index: u32) -> &mut Packet<S> {
        self.all[index as usize].as_mut().expect("the packet was not taken")
    }

    #[inline]
    pub(crate) fn next(&self, index: u32) -> u32 {
        self.next[index as usize]
    }

    #[inline]
    pub(crate) fn set_next(&mut self, index: u32, next: u32) {
        self.next[index as usize] = next;
    }

    /// Packets that are there.
    pub(crate) fn len(&self) -> usize {
        self.count
    }
}
