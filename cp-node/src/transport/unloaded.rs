//! Unloaded mode: some round trips of each length, one at a time.

use crate::message::HEADER_LEN;
use crate::workload::Distribution;

/// A length is given up after this time, in ns, if there are enough samples.
const LENGTH_LIMIT_NS: u64 = 100_000_000;
/// Samples that are enough.
const ENOUGH: u32 = 10;
/// Failed RPCs after which the measurement is given up.
pub(crate) const MAX_FAILURES: u32 = 20;

/// What comes after an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A request of this length.
    Send(u32),
    /// The warm-up is over: forget its samples.
    WarmedUp,
    /// All is measured.
    Finished,
}

/// The order of an unloaded measurement: one RPC of each length to warm up, then some of each length that count.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    lengths: Vec<u32>,
    per_length: u32,
    measuring: bool,
    index: usize,
    /// RPCs of the current length.
    done: u32,
    /// When the current length was begun.
    since_ns: u64,
    pub(crate) failures: u32,
}

impl Plan {
    /// `per_length` samples of each length of the distribution.
    pub(crate) fn new(lengths: &Distribution, per_length: u32) -> Self {
        let lengths = lengths.points().iter().map(|p| p.len.max(HEADER_LEN as u32)).collect();
        Self { lengths, per_length, measuring: false, index: 0, done: 0, since_ns: 0, failures: 0 }
    }

    /// What to do now that no RPC is outstanding.
    pub(crate) fn next(&mut self, now_ns: u64) -> Step {
        let spent = now_ns.saturating_sub(self.since_ns) >= LENGTH_LIMIT_NS && self.done >= ENOUGH;
        let wanted = if self.measuring { self.per_length } else { 1 };
        if self.done >= wanted || (self.measuring && spent) {
            self.index += 1;
            self.done = 0;
        }
        if self.index == self.lengths.len() {
            if self.measuring {
                return Step::Finished;
            }
            self.measuring = true;
            self.index = 0;
            return Step::WarmedUp;
        }
        if self.done == 0 {
            self.since_ns = now_ns;
        }
        self.done += 1;
        Step::Send(self.lengths[self.index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Reduction, Workload};

    fn plan(per_length: u32) -> Plan {
        Plan::new(&Distribution::new(Workload::Named("starve"), Reduction::default()), per_length)
    }

    /// Lengths of the warm-up and of the measurement when each RPC takes `rtt_ns`.
    fn run(mut plan: Plan, rtt_ns: u64) -> (Vec<u32>, Vec<u32>) {
        let (mut warmup, mut measured) = (Vec::new(), Vec::new());
        let mut now = 0;
        loop {
            match plan.next(now) {
                Step::Send(len) => {
                    measured.push(len);
                    now += rtt_ns;
                }
                Step::WarmedUp => warmup = std::mem::take(&mut measured),
                Step::Finished => return (warmup, measured),
            }
        }
    }

    #[test]
    fn each_length_is_warmed_up_once_and_measured_as_often_as_asked() {
        let (warmup, measured) = run(plan(3), 1_000);
        assert_eq!(warmup, (1..=10).map(|n| n * 100_000).collect::<Vec<_>>());
        assert_eq!(measured.len(), 30);
        assert_eq!(measured[..4], [100_000, 100_000, 100_000, 200_000]);
    }

    #[test]
    fn slow_lengths_end_early_but_not_before_ten_samples() {
        assert_eq!(run(plan(500), 1_000_000).1.len(), 10 * 100, "100 in 0.1 s");
        assert_eq!(run(plan(500), 50_000_000).1.len(), 10 * 10, "10 at least");
    }
}
