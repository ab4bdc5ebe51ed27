//! Lists of byte ranges, whose memory is used again.

/// Ranges of bytes of a message, in order and apart.
pub(crate) type Ranges = Vec<(usize, usize)>;

/// Longer lists are not kept: they come from a sender that is up to no good.
const MOST_RANGES: usize = 64;

/// Most lists kept.
const MOST_LISTS: usize = 1024;

/// Lists that messages have left: gaps and retransmissions cost no allocation once as many were met at a time.
#[derive(Debug, Default)]
pub(crate) struct SpareRanges(Vec<Ranges>);

impl SpareRanges {
    /// An empty list, with memory if there is any.
    pub(crate) fn take(&mut self) -> Ranges {
        self.0.pop().unwrap_or_default()
    }

    /// Keeps the memory of a list.
    pub(crate) fn put(&mut self, mut ranges: Ranges) {
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
        let mut spare = SpareRanges::default();
        spare.put(Ranges::new());
        spare.put(Ranges::with_capacity(MOST_RANGES + 1));
        assert!(spare.0.is_empty());
        spare.put(vec![(1, 2)]);
        let again = spare.take();
        assert!(again.is_empty() && again.capacity() > 0);
    }
}
