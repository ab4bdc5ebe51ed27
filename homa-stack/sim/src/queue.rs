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

/// An event in the wheel, and the one that was added to its slot before it.
#[derive(Debug)]
struct Node<E> {
    at: Time,
    event: E,
    next: u32,
}

/// An event beyond the wheel, with its place among those of the same time.
#[derive(Clone, Copy, Debug)]
struct Far<E> {
    at: Time,
    serial: u64,
    event: E,
}

impl<E> PartialEq for Far<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<E> Eq for Far<E> {}

impl<E> PartialOrd for Far<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Far<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

/// Events in the order of time.
///
/// A slot's list has the event added last first. So has `current`, whose events are taken from its end: events at the
/// same time keep their order if the sort is stable. Those from beyond the wheel were added before all others of their
/// slot, as they come into it when the wheel first reaches so far.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    /// Bits of a picosecond time that name a place within a slot.
    shift: u32,
    /// The slot that is being emptied, counted from time 0; `current` has its events, the next one last.
    base: u64,
    current: Vec<(Time, E)>,
    /// First nodes of the lists of the slots after `base`, and which slots have some.
    heads: Box<[u32]>,
    full: [u64; SLOTS / 64],
    nodes: Vec<Node<E>>,
    free: u32,
    in_wheel: usize,
    far: BinaryHeap<Reverse<Far<E>>>,
    added: u64,
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
            added: 0,
        }
    }

    /// Adds `event`, due at `at`, which is not before the last event popped.
    #[inline]
    pub(crate) fn push(&mut self, at: Time, event: E) {
        self.added += 1;
        let slot = self.slot_of(at);
        if slot <= self.base {
            let place = self.current.partition_point(|other| other.0 > at);
            self.current.insert(place, (at, event));
        } else if slot - self.base < SLOTS as u64 {
            self.put(slot, at, event);
        } else {
            self.far.push(Reverse(Far { at, serial: self.added, event }));
        }
    }

    /// Takes the next event if it is due at `until` or before.
    #[inline]
    pub(crate) fn pop(&mut self, until: Time) -> Option<(Time, E)> {
        loop {
            if let Some(next) = self.current.last() {
                return if next.0 <= until { self.current.pop() } else { None };
            }
            if !self.advance() {
                return None;
            }
        }
    }

    /// Events added until now.
    pub(crate) fn added(&self) -> u64 {
        self.added
    }

    /// True if there are no events.
    pub(crate) fn is_empty(&self) -> bool {
        self.current.is_empty() && self.in_wheel == 0 && self.far.is_empty()
    }

    #[inline]
    fn slot_of(&self, at: Time) -> u64 {
        at.as_picos() >> self.shift
    }

    /// Goes on to the next slot with events; false if there is none.
    #[inline]
    fn advance(&mut self) -> bool {
        if self.in_wheel > 0 {
            self.base = self.next_full();
        } else if let Some(Reverse(first)) = self.far.peek() {
            self.base = self.slot_of(first.at);
        } else {
            return false;
        }
        let end = Time::from_picos((self.base + SLOTS as u64).saturating_mul(1 << self.shift));
        while self.far.peek().is_some_and(|first| first.0.at < end) {
            self.draw_near();
        }
        self.empty_base();
        true
    }

    /// Moves the first of the far events into the wheel, which has come near it.
    #[cold]
    fn draw_near(&mut self) {
        if let Some(Reverse(Far { at, event, .. })) = self.far.pop() {
            self.put(self.slot_of(at), at, event);
        }
    }

    /// Moves the events of the slot `base` out of the wheel, in the order of time.
    #[inline]
    fn empty_base(&mut self) {
        let index = self.base as usize % SLOTS;
        let mut node = std::mem::replace(&mut self.heads[index], NONE);
        self.full[index / 64] &= !(1 << (index % 64));
        while node != NONE {
            let found = &mut self.nodes[node as usize];
            let (at, event) = (found.at, found.event);
            let next = std::mem::replace(&mut found.next, self.free);
            self.free = node;
            self.in_wheel -= 1;
            node = next;
            // An insertion sort: there is one event or two.
            let mut place = self.current.len();
            while place > 0 && self.current[place - 1].0 < at {
                place -= 1;
            }
            if place == self.current.len() {
                self.current.push((at, event));
            } else {
                self.current.insert(place, (at, event));
            }
        }
    }

    /// The next slot after `base` with events in the wheel, which has some.
    #[inline]
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

    #[inline]
    fn put(&mut self, slot: u64, at: Time, event: E) {
        let index = slot as usize % SLOTS;
        let next = self.heads[index];
        let mut node = self.free;
        if node == NONE {
            node = self.nodes.len() as u32;
            self.nodes.push(Node { at, event, next });
        } else {
            let found = &mut self.nodes[node as usize];
            self.free = found.next;
            *found = Node { at, event, next };
        }
        self.heads[index] = node;
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
