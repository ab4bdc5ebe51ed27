//! The receiver's record of what has come, and the blocks it tells the sender (RFC 2018).

use super::segment::{SACK_BLOCKS, SackBlock};

/// What a segment's data were to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The next bytes; `filled` if a gap became shorter or closed.
    InOrder { filled: bool },
    /// Bytes beyond a gap.
    Beyond,
    /// All had been there already.
    Duplicate,
}

/// Bytes of a stream that have arrived: a prefix, and ranges beyond gaps.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    next: u64,
    /// Ranges beyond `next`, sorted and apart from each other.
    beyond: Vec<(u64, u64)>,
    /// Ranges that are told to the sender, most recent first.
    recent: [(u64, u64); SACK_BLOCKS],
}

impl Reassembly {
    /// Takes a segment's data.
    pub(crate) fn insert(&mut self, seq: u64, len: u32) -> Arrival {
        let end = seq + u64::from(len);
        if end <= self.next {
            return Arrival::Duplicate;
        }
        if seq <= self.next {
            let filled = !self.beyond.is_empty();
            self.next = end;
            if filled {
                self.join();
            }
            return Arrival::InOrder { filled };
        }
        let first = self.beyond.partition_point(|r| r.1 < seq);
        let last = first + self.beyond[first..].iter().take_while(|r| r.0 <= end).count();
        let touched = &self.beyond[first..last];
        if touched.iter().any(|r| r.0 <= seq && end <= r.1) {
            return Arrival::Duplicate;
        }
        let range = (touched.first().map_or(seq, |r| r.0.min(seq)), touched.last().map_or(end, |r| r.1.max(end)));
        if first == last {
            self.beyond.insert(first, range);
        } else {
            self.beyond[first] = range;
            self.beyond.drain(first + 1..last);
        }
        self.tell(range);
        Arrival::Beyond
    }

    /// The first byte that has not come.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Nothing has come beyond a gap.
    #[cfg(test)]
    pub(crate) fn is_whole(&self) -> bool {
        self.beyond.is_empty()
    }

    /// The blocks to tell, relative to the first missing byte, and how many they are.
    pub(crate) fn blocks(&self) -> ([SackBlock; SACK_BLOCKS], u8) {
        let mut blocks = [SackBlock::default(); SACK_BLOCKS];
        let mut count = 0;
        if !self.beyond.is_empty() {
            for (from, to) in self.recent.iter().filter(|(from, to)| from < to) {
                blocks[count] = SackBlock { from: (from - self.next) as u32, to: (to - self.next) as u32 };
                count += 1;
            }
        }
        (blocks, count as u8)
    }

    /// Moves the prefix over ranges that it reached.
    fn join(&mut self) {
        let reached = self.beyond.iter().take_while(|r| r.0 <= self.next).count();
        if let Some(last) = reached.checked_sub(1) {
            self.next = self.next.max(self.beyond[last].1);
            self.beyond.drain(..reached);
        }
        let next = self.next;
        self.keep(|range| range.0 > next);
        if let (Some(first), (0, 0)) = (self.beyond.first(), self.recent[0]) {
            // All that were told have been joined, and more ranges are left than can be told at a time.
            self.recent[0] = *first;
        }
    }

    /// Puts a range in front of those told; it takes the place of those that it contains.
    fn tell(&mut self, range: (u64, u64)) {
        self.keep(|told| told.1 <= range.0 || range.1 <= told.0);
        self.recent.rotate_right(1);
        self.recent[0] = range;
    }

    /// Keeps the told ranges that fulfil a condition, in their order, at the front.
    fn keep(&mut self, condition: impl Fn((u64, u64)) -> bool) {
        let mut kept = [(0, 0); SACK_BLOCKS];
        for (to, range) in kept.iter_mut().zip(self.recent.into_iter().filter(|r| r.0 < r.1 && condition(*r))) {
            *to = range;
        }
        self.recent = kept;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(r: &Reassembly) -> Vec<(u64, u64)> {
        let (blocks, count) = r.blocks();
        blocks[..usize::from(count)].iter().map(|b| (r.next + u64::from(b.from), r.next + u64::from(b.to))).collect()
    }

    /// The example of RFC 2018, section 4, third case: segments of 500 bytes, 2nd, 4th, 6th and 8th are lost.
    #[test]
    fn blocks_are_told_most_recent_first() {
        let mut r = Reassembly::default();
        assert_eq!(r.insert(0, 5500), Arrival::InOrder { filled: false });
        for (seq, arrival, expected) in [
            (6000, Arrival::Beyond, vec![(6000, 6500)]),
            (7000, Arrival::Beyond, vec![(7000, 7500), (6000, 6500)]),
            (8000, Arrival::Beyond, vec![(8000, 8500), (7000, 7500), (6000, 6500)]),
            // The 4th comes late and joins two.
            (6500, Arrival::Beyond, vec![(6000, 7500), (8000, 8500)]),
            (7000, Arrival::Duplicate, vec![(6000, 7500), (8000, 8500)]),
            // The 2nd comes late.
            (5500, Arrival::InOrder { filled: true }, vec![(8000, 8500)]),
            (7500, Arrival::InOrder { filled: true }, vec![]),
        ] {
            assert_eq!(r.insert(seq, 500), arrival, "{seq}");
            assert_eq!(told(&r), expected, "after {seq}");
        }
        assert_eq!((r.next(), r.is_whole()), (8500, true));
        assert_eq!(r.insert(0, 500), Arrival::Duplicate);
    }

    proptest! {
        /// In any order, with duplicates: the prefix is that of a table of bytes, and what is told has arrived.
        #[test]
        fn any_order_gives_the_same_bytes(order in proptest::collection::vec(0u64..40, 1..200)) {
            let (mut r, mut table) = (Reassembly::default(), [false; 40]);
            for i in order {
                let duplicate = table[i as usize];
                table[i as usize] = true;
                prop_assert_eq!(r.insert(i * 10, 10) == Arrival::Duplicate, duplicate);
                let prefix = table.iter().take_while(|b| **b).count() as u64;
                prop_assert_eq!(r.next(), prefix * 10);
                prop_assert_eq!(r.is_whole(), table.iter().skip(prefix as usize).all(|b| !b));
                let told = told(&r);
                prop_assert!(r.is_whole() == told.is_empty());
                for (n, (from, to)) in told.iter().enumerate() {
                    prop_assert!(table[(from / 10) as usize..(to / 10) as usize].iter().all(|b| *b));
                    prop_assert!(!table[(from / 10) as usize - 1] && !table.get((to / 10) as usize).unwrap_or(&false));
                    if n == 0 && !duplicate && i >= prefix {
                        prop_assert!((*from..*to).contains(&(i * 10)), "the newest is told first");
                    }
                }
            }
        }
    }
}
