//! An incoming message: what has come, what is missing, what was granted.

use super::boxes::Recycle;
#[cfg(feature = "check")]
use super::check::hold;
use super::grants::View;
use super::pool::Lease;
use super::ranges::{Gap, Gaps};
use crate::units::{Instant, Nanos};

/// An incoming message. Source: homa-protocol.md 2.2.
#[derive(Debug)]
pub(crate) struct RxMessage {
    pub(crate) len: usize,
    /// Distinct bytes received.
    pub(crate) received: usize,
    /// One past the highest byte received.
    pub(crate) recv_end: usize,
    /// Missing ranges below `recv_end`, in order.
    pub(crate) gaps: Gaps,
    /// The sender may send all bytes below this; never above `len`.
    pub(crate) granted: usize,
    /// Bytes that the sender sends unasked.
    pub(crate) unscheduled: usize,
    /// What this message counts for in the sum of granted bytes that have not come.
    pub(crate) incoming: usize,
    /// When its first packet came.
    pub(crate) birth: Instant,
    /// When its latest packet came, and how many bytes had come on this host's link.
    pub(crate) last: Instant,
    pub(crate) last_heard: u64,
    /// When the rest of what was granted was asked for by its age, and how often since the latest packet.
    pub(crate) tail_asked: Option<Instant>,
    pub(crate) tail_tries: u8,
    /// True if gaps were asked for by their age.
    pub(crate) asked: bool,
    /// True while its RPC's fine timer is set.
    pub(crate) timed: bool,
    /// The limit before a GRANT, and when that was made: the first packet beyond shows how long grants take.
    pub(crate) probe: Option<(usize, Instant)>,
    /// End of the latest grant by age; 0 before the first.
    pub(crate) by_age: usize,
    /// Data bytes in its longest packet so far.
    pub(crate) frame: usize,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Added {
    /// Bytes that had not come before.
    pub(crate) fresh: usize,
    /// The range that the packet skipped, if it opened a gap.
    pub(crate) gap: Option<(usize, usize)>,
    /// Since when the oldest of its bytes had been missing, if it filled gaps.
    pub(crate) since: Option<Instant>,
}

/// An empty one, to be begun.
impl Default for RxMessage {
    fn default() -> Self {
        Self::new(0, 0, Instant::default(), Gaps::new())
    }
}

impl Recycle for RxMessage {
    fn clear(&mut self) {
        self.lease = None;
    }
}

impl RxMessage {
    /// A message of `len` bytes whose sender sends `unscheduled` bytes unasked. `gaps` is memory for its gaps.
    pub(crate) fn new(len: usize, unscheduled: usize, birth: Instant, gaps: Gaps) -> Self {
        debug_assert!(gaps.is_empty(), "ranges that were put back have no content");
        let granted = unscheduled.min(len);
        Self {
            len,
            received: 0,
            recv_end: 0,
            gaps,
            granted,
            unscheduled: granted,
            incoming: 0,
            birth,
            last: birth,
            last_heard: 0,
            tail_asked: None,
            tail_tries: 0,
            asked: false,
            timed: false,
            probe: None,
            by_age: 0,
            frame: 0,
            managed: false,
            lease: None,
            watched: false,
            noted: false,
            #[cfg(feature = "check")]
            unasked: granted,
        }
    }

    /// Notes that bytes `start..end` (within the message) have come. An empty range brings nothing. A gap that this
    /// opens is due to be asked for `window` later; `heard` bytes have come on this host's link.
    #[inline]
    pub(crate) fn add(
        &mut self,
        now: Instant,
        heard: u64,
        start: usize,
        end: usize,
        window: impl FnOnce() -> Nanos,
    ) -> Added {
        debug_assert!(start <= end && end <= self.len, "ranges are checked when packets are parsed");
        if start == end {
            return Added::default();
        }
        self.frame = self.frame.max(end - start);
        let mut added = Added::default();
        if start < self.recv_end && !self.gaps.is_empty() {
            (added.fresh, added.since) = self.fill_gaps(start, end);
        }
        if end > self.recv_end {
            if start > self.recv_end {
                let (from, to, due) = (self.recv_end as u32, start as u32, now + window());
                self.gaps.push(Gap { start: from, end: to, since: now, due, heard, tries: 0 });
                added.gap = Some((self.recv_end, start));
            }
            added.fresh += end - start.max(self.recv_end);
            self.recv_end = end;
        }
        self.received += added.fresh;
        added
    }

    /// Takes `start..end` out of the gaps; returns how many bytes that were, and since when the first were missing.
    fn fill_gaps(&mut self, start: usize, end: usize) -> (usize, Option<Instant>) {
        let (start, end) = (start as u32, end as u32);
        let (mut filled, mut since) = (0, None);
        // Not from the first: a sender may make as many gaps as it likes.
        let mut i = self.gaps.partition_point(|gap| gap.end <= start);
        while let Some(&gap) = self.gaps.get(i).filter(|gap| gap.start < end) {
            let (from, to) = (gap.start.max(start), gap.end.min(end));
            filled += (to - from) as usize;
            since = since.or(Some(gap.since));
            match (gap.start < from, to < gap.end) {
                (false, false) => {
                    self.gaps.remove(i);
                }
                (true, false) => {
                    self.gaps[i].end = from;
                    i += 1;
                }
                (false, true) => {
                    self.gaps[i].start = to;
                    i += 1;
                }
                (true, true) => {
                    self.gaps[i].end = from;
                    self.gaps.insert(i + 1, Gap { start: to, ..gap });
                    i += 2;
                }
            }
        }
        (filled, since)
    }

    /// Checks the ranges against the sums.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut last = 0;
        let mut missing = 0;
        let mut since = Instant::default();
        for gap in &self.gaps {
            let (start, end) = (gap.start as usize, gap.end as usize);
            hold!(since <= gap.since, "gap {start}..{end} is older than one before it");
            since = gap.since;
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
    pub(crate) fn take_gaps(&mut self) -> Gaps {
        std::mem::take(&mut self.gaps)
    }

    /// Bytes that have come without a gap, from the first on.
    pub(crate) fn prefix(&self) -> usize {
        self.gaps.first().map_or(self.recv_end, |gap| gap.start as usize)
    }

    /// Bytes still to come.
    pub(crate) fn remaining(&self) -> usize {
        self.len - self.received
    }

    /// What the grant policy needs to know.
    pub(crate) fn view(&self) -> View {
        let Self { birth, received, granted, len, by_age, .. } = *self;
        View { remaining: self.remaining(), birth, received, granted, len, by_age }
    }

    /// True if all bytes have come.
    pub(crate) fn is_complete(&self) -> bool {
        self.received == self.len
    }

    /// Ranges that were granted and have not come: the gaps, then the tail.
    pub(crate) fn missing(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let tail = (self.recv_end < self.granted).then_some((self.recv_end, self.granted));
        self.gaps.iter().map(|gap| (gap.start as usize, gap.end as usize)).chain(tail)
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
        RxMessage::new(len, len, Instant::default(), Gaps::new())
    }

    fn add(m: &mut RxMessage, start: usize, end: usize) -> Added {
        m.add(Instant::default(), 0, start, end, || Nanos::ZERO)
    }

    #[test]
    fn packets_open_shrink_split_and_close_gaps() {
        let mut m = message(100);
        assert_eq!(add(&mut m, 0, 10), Added { fresh: 10, ..Added::default() });
        assert_eq!(add(&mut m, 50, 60), Added { fresh: 10, gap: Some((10, 50)), since: None });
        assert_eq!(add(&mut m, 20, 30), Added { fresh: 10, gap: None, since: Some(Instant::default()) });
        assert_eq!(m.missing().collect::<Vec<_>>(), [(10, 20), (30, 50), (60, 100)]);
        assert_eq!(add(&mut m, 5, 45).fresh, 25);
        assert_eq!(m.missing().collect::<Vec<_>>(), [(45, 50), (60, 100)]);
        assert_eq!(add(&mut m, 0, 10).fresh, 0, "a duplicate brings nothing");
        assert_eq!(add(&mut m, 40, 100).fresh, 45);
        assert!(m.is_complete() && m.missing().next().is_none());
    }

    #[test]
    fn a_gap_keeps_its_age_when_it_is_split() {
        let (mut m, at) = (message(100), |n| Instant::from_nanos(n));
        m.add(at(5), 0, 50, 60, || Nanos::from_nanos(7));
        m.add(at(8), 0, 90, 95, || Nanos::from_nanos(70));
        assert_eq!(m.add(at(9), 0, 20, 30, || Nanos::ZERO).since, Some(at(5)));
        assert_eq!(m.add(at(9), 0, 40, 70, || Nanos::ZERO).since, Some(at(5)), "the oldest of two");
        let gaps: Vec<_> = m.gaps.iter().map(|gap| (gap.start, gap.end, gap.since, gap.due)).collect();
        assert_eq!(gaps, [(0, 20, at(5), at(12)), (30, 40, at(5), at(12)), (70, 90, at(8), at(78))]);
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
                prop_assert_eq!(add(&mut m, start, end).fresh, fresh);
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
