//! Lists of byte ranges, whose memory is used again.

use crate::units::Instant;

/// Ranges of bytes of a message, in order and apart.
pub(crate) type Ranges = Vec<(usize, usize)>;

/// Missing bytes of a message, between others that have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) start: u32,
    /// Exclusive.
    pub(crate) end: u32,
    /// When a later packet had overtaken these bytes.
    pub(crate) since: Instant,
    /// When they are to be asked for again.
    pub(crate) due: Instant,
    /// Bytes that had come on this host's link then, or when it was last found to have been busy since.
    pub(crate) heard: u64,
    /// How often they were asked for.
    pub(crate) tries: u8,
}

/// Gaps of a message, in order and apart; in order of age, too, as they open at the end only.
pub(crate) type Gaps = Vec<Gap>;

/// Longer lists are not kept: they come from a sender that is up to no good.
const MOST_RANGES: usize = 64;

/// Most lists kept.
const MOST_LISTS: usize = 1024;

/// Lists that messages have left: gaps and retransmissions cost no allocation once as many were met at a time.
#[derive(Debug)]
pub(crate) struct Spare<T>(Vec<Vec<T>>);

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Spare<T> {
    /// An empty list, with memory if there is any.
    pub(crate) fn take(&mut self) -> Vec<T> {
        self.0.pop().unwrap_or_default()
    }

    /// Keeps the memory of a list.
    pub(crate) fn put(&mut self, mut ranges: Vec<T>) {
        let worth_it = 1..=MOST_RANGES;
        if worth_it.contains(&ranges.capacity()) && self.0.len() < MOST_LISTS {
            ranges.clear();
            self.0.push(ranges);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_kept_unless_there_is_none_or_too_much() {
        let mut spare = Spare::default();
        spare.put(Ranges::new());
        spare.put(Ranges::with_capacity(MOST_RANGES + 1));
        assert!(spare.0.is_empty());
        spare.put(vec![(1, 2)]);
        let again = spare.take();
        assert!(again.is_empty() && again.capacity() > 0);
    }
}
