//! Virtual time.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

use homa_stack::Instant;

/// A point of virtual time since the start of the run, or a span of it, in picoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The start of the run; no time.
    pub const ZERO: Self = Self(0);
    /// Later than anything.
    pub const NEVER: Self = Self(u64::MAX);

    /// `n` picoseconds.
    pub const fn from_picos(n: u64) -> Self {
        Self(n)
    }

    /// `n` nanoseconds; saturates.
    pub const fn from_nanos(n: u64) -> Self {
        Self(n.saturating_mul(1_000))
    }

    /// `n` microseconds; saturates.
    pub const fn from_micros(n: u64) -> Self {
        Self(n.saturating_mul(1_000_000))
    }

    /// `n` milliseconds; saturates.
    pub const fn from_millis(n: u64) -> Self {
        Self(n.saturating_mul(1_000_000_000))
    }

    /// `n` seconds; saturates.
    pub const fn from_secs(n: u64) -> Self {
        Self(n.saturating_mul(1_000_000_000_000))
    }

    /// Microseconds with a fraction, rounded to picoseconds; nothing for what is negative or no number.
    pub fn from_micros_f64(micros: f64) -> Self {
        Self((micros * 1e6).round() as u64)
    }

    /// In picoseconds.
    pub const fn as_picos(self) -> u64 {
        self.0
    }

    /// In whole nanoseconds, rounded down.
    pub const fn as_nanos(self) -> u64 {
        self.0 / 1_000
    }

    /// In microseconds.
    pub fn as_micros_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// In seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e12
    }

    /// Time since `earlier`; none if that is later.
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// For the protocol core, which counts nanoseconds: rounded down, so that nothing is done before its time only if
    /// deadlines are turned back with [`Self::at`].
    pub const fn instant(self) -> Instant {
        Instant::from_nanos(self.as_nanos())
    }

    /// The first point at which [`Self::instant`] is `instant`.
    pub const fn at(instant: Instant) -> Self {
        Self::from_nanos(instant.as_nanos())
    }
}

impl Add for Time {
    type Output = Self;

    /// Saturates, so that what is after [`Time::NEVER`] never is either.
    fn add(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl AddAssign for Time {
    fn add_assign(&mut self, span: Self) {
        *self = *self + span;
    }
}

impl Sub for Time {
    type Output = Self;

    /// As [`Time::since`].
    fn sub(self, earlier: Self) -> Self {
        self.since(earlier)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} us", self.as_micros_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_sees_whole_nanoseconds_and_its_deadlines_come_back_exactly() {
        let now = Time::from_picos(1_234_999);
        assert_eq!(now.instant(), Instant::from_nanos(1_234));
        assert_eq!(Time::at(Instant::from_nanos(1_235)).instant(), Instant::from_nanos(1_235));
        assert_eq!(Time::at(Instant::from_nanos(u64::MAX)), Time::NEVER, "a deadline that is none saturates");
    }

    #[test]
    fn units_agree() {
        assert_eq!(Time::from_secs(1), Time::from_millis(1000));
        assert_eq!(Time::from_micros(3), Time::from_nanos(3000));
        assert_eq!(Time::from_micros_f64(2.5), Time::from_nanos(2500));
        assert_eq!(Time::from_micros_f64(-1.0), Time::ZERO);
        assert_eq!(Time::from_nanos(1500).to_string(), "1.500 us");
        assert_eq!(Time::from_nanos(1) - Time::from_nanos(2), Time::ZERO);
    }
}
