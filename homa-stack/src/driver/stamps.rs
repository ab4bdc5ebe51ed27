//! The kernel's time stamps of packets, on the stack's clock.

use super::clock::Clock;
use super::sys;
use crate::trace::Recorder;
use crate::units::{Instant, Nanos};

/// A wait longer than this means that the kernel's clock was set meanwhile, or that there is no stamp.
const LONGEST_WAIT: u64 = 10_000_000_000;

/// How long the difference of the clocks is believed. The counter's rate is measured in 10 ms, so that it runs some
/// microseconds a second fast or slow.
const BELIEVED: Nanos = Nanos::from_millis(10);

/// One of the kernel's clocks, by which it stamps packets, and how far the stack's is behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamps {
    kernel: libc::clockid_t,
    /// The kernel's clock less the stack's, ns, wrapping.
    offset: u64,
    /// When it is looked at anew.
    due: Instant,
}

impl Stamps {
    /// Stamps by the system's clock of that number.
    pub(super) fn of(kernel: libc::clockid_t, clock: &Clock) -> Self {
        Self { kernel, offset: offset(kernel, clock), due: clock.now() + BELIEVED }
    }

    /// When the last of a batch of packets, stamped `stamp`, had come: `now`, or if it was stamped since, the time that it is,
    /// which the trace is told. Looks at the clocks anew if that is due; half a microsecond every 10 ms.
    #[inline]
    pub(super) fn arrived_by(&mut self, now: Instant, stamp: u64, clock: &Clock, trace: &mut Recorder) -> Instant {
        if now >= self.due {
            self.refresh(clock);
        }
        if !self.is_after(now, stamp) {
            return now;
        }
        let ticks = clock.ticks();
        trace.set_now(ticks);
        clock.at(ticks)
    }

    /// Looks at the clocks anew.
    #[cold]
    pub(super) fn refresh(&mut self, clock: &Clock) {
        *self = Self::of(self.kernel, clock);
    }

    /// How long before `now` a packet was stamped; `None` if the stamp can't be right.
    #[inline]
    pub(super) fn wait(&self, now: Instant, stamp: u64) -> Option<Nanos> {
        let wait = now.as_nanos().wrapping_add(self.offset).saturating_sub(stamp);
        (wait < LONGEST_WAIT).then_some(Nanos::from_nanos(wait))
    }

    /// True if a packet was stamped after `now`.
    #[inline]
    fn is_after(&self, now: Instant, stamp: u64) -> bool {
        stamp > now.as_nanos().wrapping_add(self.offset)
    }
}

/// From the closest of some pairs of readings, since a thread may lose its core between two.
fn offset(kernel: libc::clockid_t, clock: &Clock) -> u64 {
    let pair = || {
        let before = clock.now().as_nanos();
        let theirs = sys::clock_nanos(kernel);
        let after = clock.now().as_nanos();
        (after - before, theirs.wrapping_sub(before + (after - before) / 2))
    };
    (0..8).map(|_| pair()).min().expect("eight pairs have a closest").1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_of_now_has_waited_no_time() {
        let clock = Clock::start();
        for kernel in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC] {
            let stamps = Stamps::of(kernel, &clock);
            let (before, stamp, after) = (clock.now(), sys::clock_nanos(kernel), clock.now());
            // Readings of the clocks may be 10 us wrong where the thread lost its core in each of the pairs.
            let (least, most) = (stamps.wait(before, stamp).unwrap(), stamps.wait(after, stamp).unwrap());
            assert!(least < Nanos::from_micros(10), "{least:?}");
            assert!(most <= Nanos::from_nanos(after.since(before).as_nanos() + 10_000), "{most:?}");
            assert!(stamps.is_after(before, stamp + 10_000) && !stamps.is_after(after, stamp - 10_000));
        }
        assert_eq!(Stamps::of(libc::CLOCK_REALTIME, &clock).wait(clock.now(), 0), None, "no stamp");
    }
}
