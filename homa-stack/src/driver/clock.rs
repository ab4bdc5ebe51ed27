//! Time for the stack: the time-stamp counter where it can be trusted, else the kernel's clock.

use super::sys;
use crate::units::Instant;

/// How long the counter's rate is measured at the start.
const CALIBRATION_NANOS: u64 = 10_000_000;

/// A monotonic clock whose ticks are also those of time traces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    read: fn() -> u64,
    base_ticks: u64,
    base_nanos: u64,
    /// Nanoseconds per tick, times 2^32.
    scale: u64,
}

impl Clock {
    /// Measures the counter's rate, which takes 10 ms.
    pub(super) fn start() -> Self {
        let read = counter();
        let (base_ticks, base_nanos) = both(read);
        loop {
            let (ticks, nanos) = both(read);
            if nanos - base_nanos >= CALIBRATION_NANOS {
                let scale = ((u128::from(nanos - base_nanos) << 32) / u128::from((ticks - base_ticks).max(1))) as u64;
                return Self { read, base_ticks, base_nanos, scale };
            }
        }
    }

    /// The function that reads the counter.
    pub(super) fn counter(&self) -> fn() -> u64 {
        self.read
    }

    /// Now, on the scale of the system's monotonic clock.
    #[inline]
    pub(super) fn now(&self) -> Instant {
        self.at(self.ticks())
    }

    /// The counter's reading.
    #[inline]
    pub(super) fn ticks(&self) -> u64 {
        (self.read)()
    }

    /// When the counter read `ticks`.
    #[inline]
    pub(super) fn at(&self, ticks: u64) -> Instant {
        let ticks = ticks.saturating_sub(self.base_ticks);
        Instant::from_nanos(self.base_nanos + ((u128::from(ticks) * u128::from(self.scale)) >> 32) as u64)
    }

    /// The counter's rate in ticks per nanosecond, measured since the start.
    pub(super) fn ticks_per_nano(&self) -> f64 {
        let (ticks, nanos) = both(self.read);
        (ticks - self.base_ticks) as f64 / (nanos - self.base_nanos).max(1) as f64
    }
}

/// The counter and the monotonic clock at the same time: the closest pair of some, since a thread that loses its core
/// between the two readings would be off by milliseconds.
fn both(read: fn() -> u64) -> (u64, u64) {
    let pair = || {
        let before = monotonic();
        let ticks = read();
        let after = monotonic();
        (after - before, ticks, before + (after - before) / 2)
    };
    let (_, ticks, nanos) = (0..8).map(|_| pair()).min().expect("eight pairs have a closest");
    (ticks, nanos)
}

fn monotonic() -> u64 {
    sys::clock_nanos(libc::CLOCK_MONOTONIC)
}

/// The clock of time traces: the time-stamp counter if the processor says that it neither stops nor changes its rate,
/// else the system's monotonic clock in nanoseconds.
#[cfg(target_arch = "x86_64")]
pub fn counter() -> fn() -> u64 {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let steady = ["constant_tsc", "nonstop_tsc"].iter().all(|flag| flags.split_whitespace().any(|f| f == *flag));
    if steady { sys::rdtsc } else { monotonic }
}

/// The clock of time traces: the counter-timer, whose rate is constant by the architecture.
#[cfg(target_arch = "aarch64")]
pub fn counter() -> fn() -> u64 {
    sys::cntvct
}

/// The clock of time traces: the system's monotonic clock in nanoseconds.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn counter() -> fn() -> u64 {
    monotonic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_keeps_to_the_systems() {
        let clock = Clock::start();
        // Bracketed, so that a thread that loses its core between two readings widens the bounds and no more.
        let reading = || (monotonic(), clock.now().as_nanos(), monotonic());
        let (before, start, after) = reading();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let (before_end, end, after_end) = reading();
        let (least, ours, most) = (before_end - after, end - start, after_end - before);
        // 10 ms of calibration with an error of a microsecond or so on either side.
        assert!(ours >= least - least / 100 && ours <= most + most / 100, "{ours}, not {least} to {most} ns");
    }
}
