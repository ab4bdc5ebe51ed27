//! Events by time: a wheel of short lists for those of the next microseconds, a heap for later ones.
//!
//! A packet's events are at most some microseconds ahead, and there are a few for each host. They take their
//! place in the wheel in constant time, and the few of one slot (1 to 4 ns) are sorted when their time comes. Events at the
//! same time come in the order in which they were added, so that runs repeat.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::time::Time;

/// Slots of the wheel.
const SLOTS: usize = 8192;
/// No node.
const NONE: u32 = u32::MAX;

/// An event with its time and its place among those of the same time.
#[derive(Clone, Copy, Debug)]
struct Entry<E> {
    at: Time,
    serial: u64,
    event: E,
}

impl<E> Entry<E> {
    fn key(&self) -> (Time, u64) {
        (self.at, self.serial)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

#[derive(Debug)]
struct Node<E> {
    entry: Entry<E>,
    next: u32,
}

/// Events in the order of time.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    /// Bits of a picosecond time that name a place within a slot.
    shift: u32,
    /// The slot that is being emptied, counted from time 0; `current` has its events, the next one last.
    base: u64,
    current: Vec<Entry<E>>,
    /// First nodes of the lists of the slots after `base`, and which slots have some.
    heads: Box<[u32]>,
    full: [u64; SLOTS / 64],
    nodes: Vec<Node<E>>,
    free: u32,
    in_wheel: usize,
    /// Events beyond the wheel.
    far: BinaryHeap<Reverse<Entry<E>>>,
    serial: u64,
}

impl<E: Copy> Queue<E> {
    /// For the events of `hosts` hosts: more of them make slots shorter, so that each has one event or two.
    pub(crate) fn new(hosts: usize) -> Self {
        Self {
            shift: if hosts < 80 { 12 } else { 10 },
            base: 0,
            current: Vec::new(),
            heads: vec![NONE; SLOTS].into_boxed_slice(),
            full: [0; SLOTS / 64],
            nodes: Vec::new(),
            free: NONE,
            in_wheel: 0,
            far: BinaryHeap::new(),
            serial: 0,
        }
    }

    /// Adds `event`, due at `at`, which is not before the last event popped.
    #[inline]
    pub(crate) fn push(&mut self, at: Time, event: E) {
        self.serial += 1;
        let entry = Entry { at, serial: self.serial, event };
        let slot = self.slot_of(at);
        if slot <= self.base {
            let place = self.current.partition_point(|other| other.key() > entry.key());
            self.current.insert(place, entry);
        } else if slot - self.base < SLOTS as u64 {
            self.put(slot, entry);
        } else {
            self.far.push(Reverse(entry));
        }
    }

    /// Takes the next event if it is due at `until` or before.
    #[inline]
    pub(crate) fn pop(&mut self, until: Time) -> Option<(Time, E)> {
        while self.current.is_empty() {
            if !self.advance() {
                return None;
            }
        }
        let due = self.current.last().is_some_and(|entry| entry.at <= until);
        let entry = if due { self.current.pop()? } else { return None };
        Some((entry.at, entry.event))
    }

    /// Events added until now.
    pub(crate) fn added(&self) -> u64 {
        self.serial
    }

    /// True if there are no events.
    pub(crate) fn is_empty(&self) -> bool {
        self.current.is_empty() && self.in_wheel == 0 && self.far.is_empty()
    }

    fn slot_of(&self, at: Time) -> u64 {
        at.as_picos() >> self.shift
    }

    /// Goes on to the next slot with events; false if there is none.
    fn advance(&mut self) -> bool {
        if self.in_wheel > 0 {
            self.base = self.next_full();
        } else if let Some(Reverse(entry)) = self.far.peek() {
            self.base = self.slot_of(entry.at);
        } else {
            return false;
        }
        self.empty_base();
        while let Some(Reverse(entry)) = self.far.peek() {
            let slot = self.slot_of(entry.at);
            if slot >= self.base + SLOTS as u64 {
                break;
            }
            let entry = *entry;
            self.far.pop();
            if slot == self.base { self.current.push(entry) } else { self.put(slot, entry) }
        }
        if self.current.len() > 1 {
            self.current.sort_unstable_by_key(|entry| Reverse(entry.key()));
        }
        true
    }

    /// Moves the events of the slot `base` out of the wheel.
    fn empty_base(&mut self) {
        let index = self.base as usize % SLOTS;
        let mut node = std::mem::replace(&mut self.heads[index], NONE);
        self.full[index / 64] &= !(1 << (index % 64));
        while node != NONE {
            let found = &mut self.nodes[node as usize];
            self.current.push(found.entry);
            let next = std::mem::replace(&mut found.next, self.free);
            self.free = node;
            self.in_wheel -= 1;
            node = next;
        }
    }

    /// The next slot after `base` with events in the wheel, which has some.
    fn next_full(&self) -> u64 {
        let first = (self.base + 1) as usize % SLOTS;
        let (word, bit) = (first / 64, first % 64);
        let here = self.full[word] & (!0 << bit);
        let found = if here != 0 {
            word * 64 + here.trailing_zeros() as usize
        } else {
            let words = (1..=SLOTS / 64).map(|step| (word + step) % (SLOTS / 64));
            let full = words.into_iter().find(|w| self.full[*w] != 0).expect("the wheel has events");
            full * 64 + self.full[full].trailing_zeros() as usize
        };
        self.base + 1 + ((found + SLOTS - first) % SLOTS) as u64
    }

    fn put(&mut self, slot: u64, entry: Entry<E>) {
        let index = slot as usize % SLOTS;
        let next = std::mem::replace(&mut self.heads[index], NONE);
        let node = self.free;
        if node == NONE {
            self.heads[index] = self.nodes.len() as u32;
            self.nodes.push(Node { entry, next });
        } else {
            self.heads[index] = node;
            let found = &mut self.nodes[node as usize];
            self.free = found.next;
            *found = Node { entry, next };
        }
        self.full[index / 64] |= 1 << (index % 64);
        self.in_wheel += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cp_node::rng::Rng;

    /// Against a sorted list: events at all distances, many at the same time, added while others are taken.
    #[test]
    fn events_come_in_the_order_of_time_and_of_adding() {
        let mut rng = Rng::streams(5, None, 1).remove(0);
        for round in 0..50 {
            let (mut queue, mut model, mut now) =
                (Queue::new(if round % 2 == 0 { 10 } else { 100 }), Vec::<(Time, u32)>::new(), Time::ZERO);
            let mut made = 0;
            for step in 0..3_000 {
                if rng.below(100) < 55 && step < 2_000 {
                    let span = [0, 1, 50, 5_000, 3_000_000, 16_777_216, 20_000_000, 5_000_000_000][rng.below(8)];
                    let at = now + Time::from_picos(rng.below(span + 1) as u64);
                    queue.push(at, made);
                    model.push((at, made));
                    made += 1;
                } else {
                    model.sort_by_key(|(at, _)| *at);
                    let until = if rng.below(4) == 0 { now + Time::from_nanos(10) } else { Time::NEVER };
                    let expected = model.first().copied().filter(|(at, _)| *at <= until);
                    assert_eq!(queue.pop(until), expected, "round {round}, step {step}");
                    if let Some((at, _)) = expected {
                        now = at;
                        model.remove(0);
                    }
                }
            }
            assert_eq!(queue.added(), u64::from(made));
        }
    }

    #[test]
    fn nodes_are_used_again() {
        let mut queue = Queue::new(1);
        for n in 0..10_000_u64 {
            queue.push(Time::from_nanos(10 * n + 300), n);
            if n >= 20 {
                queue.pop(Time::NEVER).unwrap();
            }
        }
        assert!(queue.nodes.len() < 40, "{}", queue.nodes.len());
    }
}
