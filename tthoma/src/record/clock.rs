//! The clock of a recording: the one that `homa-stack` uses for its traces on the same machine.
//!
//! That is the time-stamp counter where it neither stops nor changes its rate, else the monotonic clock in nanoseconds.
//! The kernel's tracing has both (`x86-tsc`, `mono`), so that times of both traces are readings of one counter, which
//! differ by no error but that of printing. Only the rate, by which ticks become microseconds, is measured, by both.

use std::fmt;

use rustix::time::{ClockId, clock_gettime};

use super::sys;

/// A clock of the kernel's tracing that can be read here, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceClock {
    /// The time-stamp counter.
    Tsc,
    /// The monotonic clock, in nanoseconds.
    Mono,
}

impl TraceClock {
    /// The clock of `homa-stack`, if the kernel's tracing has it: `offered` is the text of `trace_clock`.
    pub(crate) fn choose(offered: &str, cpuinfo: &str) -> Self {
        let has = |name: &str| offered.split_whitespace().any(|w| w.trim_matches(['[', ']']) == name);
        let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
        let steady = ["constant_tsc", "nonstop_tsc"].iter().all(|flag| flags.split_whitespace().any(|f| f == *flag));
        if cfg!(target_arch = "x86_64") && steady && has("x86-tsc") { Self::Tsc } else { Self::Mono }
    }

    /// Its name in `trace_clock`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tsc => "x86-tsc",
            Self::Mono => "mono",
        }
    }

    /// Its reading now.
    pub(crate) fn ticks(self) -> u64 {
        match self {
            Self::Tsc => sys::counter(),
            Self::Mono => monotonic(),
        }
    }

    /// Its reading and the monotonic clock's at the same time.
    pub(crate) fn pair(self) -> Pair {
        let pair = || {
            let before = monotonic();
            let ticks = self.ticks();
            let after = monotonic();
            (after - before, Pair { ticks, nanos: before + (after - before) / 2, error: (after - before).div_ceil(2) })
        };
        let closest = (0..16).map(|_| pair()).min_by_key(|(width, _)| *width);
        closest.expect("sixteen pairs have a closest").1
    }
}

impl fmt::Display for TraceClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// Two clocks read at the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    ticks: u64,
    nanos: u64,
    /// How far apart the readings can be, ns.
    error: u64,
}

/// Ticks a nanosecond, and by how many millionths that can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Rate {
    /// Ticks a nanosecond.
    pub ticks_per_ns: f64,
    /// How wrong it can be, parts in a million.
    pub error_ppm: f64,
}

impl Rate {
    /// Of `clock`, between two readings.
    pub(crate) fn between(clock: TraceClock, start: Pair, end: Pair) -> Self {
        if clock == TraceClock::Mono {
            return Self { ticks_per_ns: 1.0, error_ppm: 0.0 };
        }
        let nanos = end.nanos.saturating_sub(start.nanos).max(1) as f64;
        let ticks_per_ns = end.ticks.saturating_sub(start.ticks) as f64 / nanos;
        Self { ticks_per_ns, error_ppm: (start.error + end.error) as f64 / nanos * 1e6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_chosen_where_the_stack_chooses_it() {
        let all = "[local] global counter uptime perf mono mono_raw boot tai x86-tsc\n";
        let steady = "processor : 0\nflags\t\t: fpu tsc constant_tsc nonstop_tsc\n";
        let tsc = if cfg!(target_arch = "x86_64") { TraceClock::Tsc } else { TraceClock::Mono };
        assert_eq!(TraceClock::choose(all, steady), tsc);
        assert_eq!(TraceClock::choose("local [x86-tsc]", steady), tsc, "the present one is in brackets");
        assert_eq!(TraceClock::choose("local mono", steady), TraceClock::Mono);
        assert_eq!(TraceClock::choose(all, "flags : tsc constant_tsc"), TraceClock::Mono);
        assert_eq!(TraceClock::choose("", ""), TraceClock::Mono);
    }

    #[test]
    fn the_rate_is_that_between_two_readings() {
        let pair = |ticks, nanos| Pair { ticks, nanos, error: 50 };
        let rate = Rate::between(TraceClock::Tsc, pair(1_000, 0), pair(2_001_000, 1_000_000));
        assert_eq!(rate, Rate { ticks_per_ns: 2.0, error_ppm: 100.0 });
        assert_eq!(Rate::between(TraceClock::Mono, pair(0, 0), pair(5, 9)).ticks_per_ns, 1.0);
    }
}
