//! Which parts of a page are in use, in units of a cache line: so that a page which few short messages have left can be
//! used again before all have.

use super::{FRAGMENT_ALIGN, PAGE_LEN};

/// Units of a page.
const UNITS: usize = PAGE_LEN / FRAGMENT_ALIGN;

/// A bit for each unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cuts {
    words: [u64; UNITS / 64],
    /// Bits that are set.
    count: u16,
}

impl Default for Cuts {
    fn default() -> Self {
        Self { words: [0; UNITS / 64], count: 0 }
    }
}

impl Cuts {
    /// Marks `units` units from `start` on, which were free.
    #[inline]
    pub(super) fn take(&mut self, start: usize, units: usize) {
        self.each_word(start, units, |word, mask| *word |= mask);
        self.count += units as u16;
    }

    /// Marks them as free again.
    #[inline]
    pub(super) fn give(&mut self, start: usize, units: usize) {
        self.each_word(start, units, |word, mask| *word &= !mask);
        self.count -= units as u16;
    }

    #[inline]
    fn each_word(&mut self, start: usize, units: usize, mut change: impl FnMut(&mut u64, u64)) {
        let (mut at, end) = (start, start + units);
        while at < end {
            let (word, bit) = (at / 64, at % 64);
            let n = (64 - bit).min(end - at);
            change(&mut self.words[word], (u64::MAX >> (64 - n)) << bit);
            at += n;
        }
    }

    /// True if nothing is taken.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first `units` free units in a row.
    pub(super) fn hole(&self, units: usize) -> Option<usize> {
        if usize::from(self.count) + units > UNITS {
            return None;
        }
        let mut start = 0;
        loop {
            start = self.next(start, false)?;
            let end = self.next(start, true).unwrap_or(UNITS);
            if end - start >= units {
                return Some(start);
            }
            start = end;
        }
    }

    /// The first unit from `from` on that is taken, or free.
    fn next(&self, from: usize, taken: bool) -> Option<usize> {
        let flip = if taken { 0 } else { u64::MAX };
        let mut word = from / 64;
        let mut bits = (self.words.get(word)? ^ flip) & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = self.words.get(word)? ^ flip;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hole_that_is_long_enough_is_found() {
        let mut cuts = Cuts::default();
        assert_eq!(cuts.hole(UNITS), Some(0));
        cuts.take(0, UNITS);
        assert_eq!(cuts.hole(1), None);
        for (start, units) in [(3, 1), (62, 4), (200, 130), (1020, 4)] {
            cuts.give(start, units);
        }
        for (units, found) in
            [(1, Some(3)), (2, Some(62)), (4, Some(62)), (5, Some(200)), (130, Some(200)), (131, None)]
        {
            assert_eq!(cuts.hole(units), found, "{units} units");
        }
        cuts.take(200, 130);
        assert_eq!(cuts.hole(5), None);
        cuts.take(62, 4);
        assert_eq!(cuts.hole(2), Some(1020));
    }
}
