//! How much of the receive ring is in use, and for how long: samples, so that they cost nothing.

use crate::metrics::Metrics;
use crate::units::Nanos;

/// Of so many batches the time that their frames are held is measured.
const HELD_EVERY: u32 = 64;
/// Of so many full batches the frames that wait behind them are counted.
const WAITING_EVERY: u32 = 16;

/// What was seen of a ring.
#[derive(Debug, Default)]
pub(super) struct RingUse {
    batches: u32,
    full: u32,
    held: Nanos,
    measured: u64,
    most: u64,
}

impl RingUse {
    /// A batch of `held` frames was fetched of at most `most`; `occupied` counts the frames that wait, these included.
    #[inline]
    pub(super) fn fetched(&mut self, held: usize, most: usize, occupied: impl FnOnce() -> usize) {
        if held < most {
            self.most = self.most.max(held as u64);
            return;
        }
        if self.full.is_multiple_of(WAITING_EVERY) {
            self.most = self.most.max(occupied() as u64);
        }
        self.full = self.full.wrapping_add(1);
    }

    /// A batch is given back; `span` tells how long it was held.
    #[inline]
    pub(super) fn released(&mut self, span: impl FnOnce() -> Nanos) {
        if self.batches.is_multiple_of(HELD_EVERY) {
            self.held = Nanos::from_nanos(self.held.as_nanos() + span().as_nanos());
            self.measured += 1;
        }
        self.batches = self.batches.wrapping_add(1);
    }

    /// Brings the metrics up to date.
    pub(super) fn put(&self, metrics: &mut Metrics) {
        metrics.ring_held_nanos = self.held.as_nanos();
        metrics.ring_held_batches = self.measured;
        // What was measured stands for all; the metrics' clock ticks in nanoseconds.
        metrics.softirq_cycles = self.held.as_nanos() * u64::from(HELD_EVERY);
        metrics.ring_most_waiting = self.most;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_batch_in_64_is_measured_and_the_highest_mark_kept() {
        let mut usage = RingUse::default();
        for i in 0..128 {
            usage.fetched(5, 16, || unreachable!("not all that may be held is"));
            usage.released(|| Nanos::from_nanos(i));
        }
        let mut counted = 0;
        for waiting in [40, 1000, 0] {
            for _ in 0..WAITING_EVERY {
                usage.fetched(16, 16, || {
                    counted += 1;
                    waiting
                });
            }
        }
        let mut metrics = Metrics::default();
        usage.put(&mut metrics);
        assert_eq!((metrics.ring_held_nanos, metrics.ring_held_batches), (64, 2));
        assert_eq!(metrics.softirq_cycles, 64 * 64, "batches 0 and 64, 64 times");
        assert_eq!((metrics.ring_most_waiting, counted), (1000, 3));
    }
}
