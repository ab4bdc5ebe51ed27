//! An incoming message: what has come, what is missing, what was granted.

#[cfg(feature = "check")]
use super::check::hold;
use super::pool::Lease;
use super::ranges::Ranges;
use crate::units::Instant;

/// An incoming message. Source: homa-protocol.md 2.2.
#[derive(Debug)]
pub(crate) struct RxMessage {
    pub(crate) len: usize,
    /// Distinct bytes received.
    pub(crate) received: usize,
    /// One past the highest byte received.
    pub(crate) recv_end: usize,
    /// Missing ranges below `recv_end`, in order.
    gaps: Ranges,
    /// The sender may send all bytes below this; never above `len`.
    pub(crate) granted: usize,
    /// Bytes that the sender sends unasked.
    pub(crate) unscheduled: usize,
    /// What this message counts for in the sum of granted bytes that have not come.
    pub(crate) incoming: usize,
    /// When its first packet came.
    pub(crate) birth: Instant,
    /// True while it stands in the table of messages in need of grants.
    pub(crate) managed: bool,
    /// Room in the pool, once there is some.
    pub(crate) lease: Option<Lease>,
    /// True if it is read while it arrives.
    pub(crate) watched: bool,
    /// True while there are news of it to be told.
    pub(crate) noted: bool,
    /// Bytes granted without regard to the sum: by the sender to itself, and by age.
    #[cfg(feature = "check")]
    pub(crate) unasked: usize,
}

/// What a packet brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    /// Bytes that had not come before.
    pub(crate) fresh: usize,
    /// The range that the packet skipped, if it opened a gap.
    pub(crate) gap: Option<(usize, usize)>,
}

impl RxMessage {
    /// A message of `len` bytes whose sender sends `unscheduled` bytes unasked.
    /// `ranges` is memory for the gaps.
    pub(crate) fn new(len: usize, unscheduled: usize, birth: Instant, ranges: Ranges) -> Self {
        debug_assert!(ranges.is_empty(), "ranges that were put back have no content");
        let granted = unscheduled.min(len);
        Self {
            len,
            received: 0,
            recv_end: 0,
            gaps: ranges,
            granted,
            unscheduled: granted,
            incoming: 0,
            birth,
            managed: false,
            lease: None,
            watched: false,
            noted: false,
            #[cfg(feature = "check")]
            unasked: granted,
        }
    }

    /// Notes that bytes `start..end` (within the message) have come. An empty range brings nothing.
    pub(crate) fn add(&mut self, start: usize, end: usize) -> Added {
        debug_assert!(start <= end && end <= self.len, "ranges are checked when packets are parsed");
        if start == end {
            return Added { fresh: 0, gap: None };
        }
        let mut added = Added { fresh: 0, gap: None };
        if start < self.recv_end && !self.gaps.is_empty() {
            added.fresh = self.fill_gaps(start, end);
        }
        if end > self.recv_end {
            if start > self.recv_end {
                self.gaps.push((self.recv_end, start));
                added.gap = Some((self.recv_end, start));
            }
            added.fresh += end - start.max(self.recv_end);
            self.recv_end = end;
        }
        self.received += added.fresh;
        added
    }

    /// Takes `start..end` out of the gaps; returns how many bytes that were.
    fn fill_gaps(&mut self, start: usize, end: usize) -> usize {
        let mut filled = 0;
        // Not from the first: a sender may make as many gaps as it likes.
        let mut i = self.gaps.partition_point(|&(_, b)| b <= start);
        while let Some(&(a, b)) = self.gaps.get(i).filter(|&&(a, _)| a < end) {
            let (from, to) = (a.max(start), b.min(end));
            filled += to - from;
            match (a < from, to < b) {
                (false, false) => {
                    self.gaps.remove(i);
                }
                (true, false) => {
                    self.gaps[i].1 = from;
                    i += 1;
                }
                (false, true) => {
                    self.gaps[i].0 = to;
                    i += 1;
                }
                (true, true) => {
                    self.gaps[i].1 = from;
                    self.gaps.insert(i + 1, (to, b));
                    i += 2;
                }
            }
        }
        filled
    }

    /// Checks the ranges against the sums.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut last = 0;
        let mut missing = 0;
        for &(start, end) in &self.gaps {
            hold!(start < end && (start > last || last == 0), "gap {start}..{end} after one that ends at {last}");
            missing += end - start;
            last = end;
        }
        hold!(last <= self.recv_end && self.recv_end <= self.len, "gap to {last}, end {}", self.recv_end);
        let received = self.recv_end - missing;
        hold!(self.received == received, "received {received} bytes, counted {}", self.received);
        hold!(self.granted <= self.len, "granted {} of {}", self.granted, self.len);
        Ok(())
    }

    /// The memory of the gaps, which are no longer of interest.
    pub(crate) fn into_ranges(self) -> Ranges {
        self.gaps
    }

    /// Bytes that have come without a gap, from the first on.
    pub(crate) fn prefix(&self) -> usize {
        self.gaps.first().map_or(self.recv_end, |gap| gap.0)
    }

    /// Bytes still to come.
    pub(crate) fn remaining(&self) -> usize {
        self.len - self.received
    }

    /// True if all bytes have come.
    pub(crate) fn is_complete(&self) -> bool {
        self.received == self.len
    }

    /// Ranges that were granted and have not come: the gaps, then the tail.
    pub(crate) fn missing(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let tail = (self.recv_end < self.granted).then_some((self.recv_end, self.granted));
        self.gaps.iter().copied().chain(tail)
    }

    /// True if the sender owes nothing: all that was granted has come.
    pub(crate) fn all_granted_came(&self) -> bool {
        self.gaps.is_empty() && self.recv_end >= self.granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(len: usize) -> RxMessage {
        RxMessage::new(len, len, Instant::default(), Ranges::new())
    }

    #[test]
    fn packets_open_shrink_split_and_close_gaps() {
        let mut m = message(100);
        assert_eq!(m.add(0, 10), Added { fresh: 10, gap: None });
        assert_eq!(m.add(50, 60), Added { fresh: 10, gap: Some((10, 50)) });
        assert_eq!(m.add(20, 30), Added { fresh: 10, gap: None });
        assert_eq!(m.missing().collect::<Vec<_>>(), [(10, 20), (30, 50), (60, 100)]);
        assert_eq!(m.add(5, 45).fresh, 25);
        assert_eq!(m.missing().collect::<Vec<_>>(), [(45, 50), (60, 100)]);
        assert_eq!(m.add(0, 10).fresh, 0, "a duplicate brings nothing");
        assert_eq!(m.add(40, 100).fresh, 45);
        assert!(m.is_complete() && m.missing().next().is_none());
    }

    proptest! {
        /// Against a model of one flag a byte: any ranges in any order.
        #[test]
        fn ranges_in_any_order_equal_the_byte_model(ranges in proptest::collection::vec((0_usize..200, 0_usize..60), 1..40)) {
            let mut m = message(200);
            let mut model = [false; 200];
            for (start, n) in ranges {
                let end = (start + n).min(200);
                let fresh = model[start..end].iter().filter(|come| !**come).count();
                model[start..end].fill(true);
                prop_assert_eq!(m.add(start, end).fresh, fresh);
                prop_assert_eq!(m.received, model.iter().filter(|come| **come).count());
                let mut missing = [false; 200];
                for (a, b) in m.missing() {
                    prop_assert!(a < b);
                    missing[a..b].fill(true);
                }
                for (come, miss) in model.iter().zip(missing) {
                    prop_assert_eq!(*come, !miss);
                }
            }
        }
    }
}
