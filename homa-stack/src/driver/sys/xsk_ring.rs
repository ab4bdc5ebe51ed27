//! Rings of AF_XDP: one side puts entries in, the other takes them out, each with its own running position.
//!
//! Positions are 32-bit counts that wrap; an entry lies at its position modulo the ring's length, a power of two.
//! One writer and one reader a ring, one of them the kernel.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the parts of a ring lie in memory.
#[derive(Debug)]
pub(super) struct Parts<T> {
    pub(super) producer: NonNull<AtomicU32>,
    pub(super) consumer: NonNull<AtomicU32>,
    pub(super) flags: NonNull<AtomicU32>,
    pub(super) entries: NonNull<T>,
    /// Entries that the ring holds, a power of two.
    pub(super) len: u32,
}

impl<T: Copy> Parts<T> {
    fn at(&self, position: u32) -> NonNull<T> {
        // SAFETY: the index is reduced to one of the `len` entries.
        unsafe { self.entries.add((position & (self.len - 1)) as usize) }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: valid while the ring lives (promise of `new`), and accessed atomically by both sides.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for the producer.
        unsafe { self.consumer.as_ref() }
    }
}

/// The writing end.
#[derive(Debug)]
pub(super) struct Producer<T> {
    parts: Parts<T>,
    /// Position of the next entry; those before it but not published yet are unseen by the other side.
    head: u32,
    /// The reader's position when it was last looked at.
    seen: u32,
}

impl<T: Copy> Producer<T> {
    /// # Safety
    ///
    /// The parts must stay valid while the ring lives, and nobody else may write entries or the producer's position.
    pub(super) unsafe fn new(parts: Parts<T>) -> Self {
        assert!(parts.len.is_power_of_two(), "{} entries", parts.len);
        let (head, seen) = (parts.producer().load(Ordering::Relaxed), parts.consumer().load(Ordering::Acquire));
        Self { parts, head, seen }
    }

    /// Puts an entry in, not yet to be seen by the other side; false if the ring is full.
    #[inline]
    pub(super) fn push(&mut self, value: T) -> bool {
        if self.head.wrapping_sub(self.seen) == self.parts.len {
            self.seen = self.parts.consumer().load(Ordering::Acquire);
            if self.head.wrapping_sub(self.seen) == self.parts.len {
                return false;
            }
        }
        // SAFETY: the entry is within the ring, and free: the reader is less than a ring's length behind.
        unsafe { self.parts.at(self.head).write(value) };
        self.head = self.head.wrapping_add(1);
        true
    }

    /// Shows the other side all entries put in.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.parts.producer().store(self.head, Ordering::Release);
    }

    /// Entries put in that the other side has not taken.
    #[inline]
    pub(super) fn pending(&self) -> u32 {
        self.head.wrapping_sub(self.parts.consumer().load(Ordering::Acquire))
    }

    /// The flags that the kernel sets.
    #[inline]
    pub(super) fn flags(&self) -> u32 {
        // SAFETY: as for the producer's position.
        unsafe { self.parts.flags.as_ref() }.load(Ordering::Relaxed)
    }
}

/// The reading end.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    parts: Parts<T>,
    /// Position of the oldest entry that has not been taken.
    tail: u32,
}

impl<T: Copy> Consumer<T> {
    /// # Safety
    ///
    /// The parts must stay valid while the ring lives, and nobody else may write the consumer's position.
    pub(super) unsafe fn new(parts: Parts<T>) -> Self {
        assert!(parts.len.is_power_of_two(), "{} entries", parts.len);
        let tail = parts.consumer().load(Ordering::Relaxed);
        Self { parts, tail }
    }

    /// Entries that wait to be taken.
    #[inline]
    pub(super) fn available(&self) -> u32 {
        // Never more than the ring holds, whatever the other side writes.
        self.parts.producer().load(Ordering::Acquire).wrapping_sub(self.tail).min(self.parts.len)
    }

    /// The `i`th entry that waits; the caller has seen that so many are available.
    #[inline]
    pub(super) fn peek(&self, i: u32) -> T {
        // SAFETY: within the ring; the writer leaves the entry alone until it is taken.
        unsafe { self.parts.at(self.tail.wrapping_add(i)).read() }
    }

    /// Takes `n` entries out, which gives their places back.
    #[inline]
    pub(super) fn take(&mut self, n: u32) {
        self.tail = self.tail.wrapping_add(n);
        self.parts.consumer().store(self.tail, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u32 = 8;

    /// Memory for a ring, whose positions both begin at `start`.
    struct Memory {
        words: Box<[AtomicU32; 3]>,
        entries: Box<[u64; LEN as usize]>,
    }

    impl Memory {
        fn starting_at(start: u32) -> Self {
            Self { words: Box::new([start, start, 0].map(AtomicU32::new)), entries: Box::new([0; LEN as usize]) }
        }

        fn ends(&mut self) -> (Producer<u64>, Consumer<u64>) {
            let parts = |entries: NonNull<u64>, words: &[AtomicU32; 3]| Parts {
                producer: NonNull::from(&words[0]),
                consumer: NonNull::from(&words[1]),
                flags: NonNull::from(&words[2]),
                entries,
                len: LEN,
            };
            let entries = NonNull::from(&mut *self.entries).cast();
            // SAFETY: the memory outlives both ends in each test, and there is one of each.
            unsafe { (Producer::new(parts(entries, &self.words)), Consumer::new(parts(entries, &self.words))) }
        }
    }

    fn all(consumer: &Consumer<u64>) -> Vec<u64> {
        (0..consumer.available()).map(|i| consumer.peek(i)).collect()
    }

    #[test]
    fn entries_are_seen_in_order_once_they_are_published() {
        let mut memory = Memory::starting_at(0);
        let (mut producer, mut consumer) = memory.ends();
        assert!(producer.push(7) && producer.push(8));
        assert_eq!(all(&consumer), []);
        producer.publish();
        assert_eq!(all(&consumer), [7, 8]);
        consumer.take(1);
        assert_eq!((all(&consumer), producer.pending()), (vec![8], 1));
    }

    #[test]
    fn a_full_ring_takes_no_more_until_one_is_taken_out() {
        let mut memory = Memory::starting_at(0);
        let (mut producer, mut consumer) = memory.ends();
        assert!((0..u64::from(LEN)).all(|i| producer.push(i)));
        assert!(!producer.push(99));
        producer.publish();
        consumer.take(1);
        assert!(producer.push(8) && !producer.push(9));
        producer.publish();
        assert_eq!(all(&consumer), (1..=8).collect::<Vec<_>>());
    }

    #[test]
    fn positions_wrap() {
        let start = u32::MAX - 2;
        let mut memory = Memory::starting_at(start);
        let (mut producer, mut consumer) = memory.ends();
        let (mut next, mut expected) = (0, 0);
        for round in 0..10_u32 {
            while producer.push(next) {
                next += 1;
            }
            producer.publish();
            assert_eq!(consumer.available(), LEN, "round {round}");
            assert_eq!(producer.pending(), LEN, "round {round}");
            let n = 1 + round % LEN;
            for i in 0..n {
                assert_eq!(consumer.peek(i), expected + u64::from(i), "round {round}");
            }
            consumer.take(n);
            expected += u64::from(n);
        }
    }

    #[test]
    fn an_absurd_position_of_the_other_side_stays_within_the_ring() {
        let mut memory = Memory::starting_at(0);
        let (_, consumer) = memory.ends();
        memory.words[0].store(1_000_000, Ordering::Release);
        assert_eq!(consumer.available(), LEN);
    }
}
