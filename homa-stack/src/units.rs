//! Units as types: time, RPC ids, priorities.

use std::fmt;
use std::ops::Add;

/// A point of a monotonic clock, in nanoseconds since an origin that the driver or simulator chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

/// A span of time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(u64);

impl Instant {
    /// The point `nanos` nanoseconds after the clock's origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero if `earlier` is later, as two cores' clocks may disagree.
    pub const fn since(self, earlier: Self) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Nanos> for Instant {
    type Output = Self;

    fn add(self, span: Nanos) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Nanos {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// A span of `n` nanoseconds.
    pub const fn from_nanos(n: u64) -> Self {
        Self(n)
    }

    /// A span of `n` microseconds; saturates.
    pub const fn from_micros(n: u64) -> Self {
        Self(n.saturating_mul(1_000))
    }

    /// A span of `n` milliseconds; saturates.
    pub const fn from_millis(n: u64) -> Self {
        Self(n.saturating_mul(1_000_000))
    }

    /// A span of `n` seconds; saturates.
    pub const fn from_secs(n: u64) -> Self {
        Self(n.saturating_mul(1_000_000_000))
    }

    /// The span in nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The span in microseconds, with its fraction.
    pub fn as_micros_f64(self) -> f64 {
        self.0 as f64 / 1e3
    }
}

/// Names an RPC. Even on the client, odd on the server: the two differ in the lowest bit only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RpcId(u64);

impl RpcId {
    /// The id as this host knows it.
    pub const fn local(id: u64) -> Self {
        Self(id)
    }

    /// The local id of the RPC that a peer calls `sender_id` (homa-protocol.md 1.2).
    pub const fn from_peer(sender_id: u64) -> Self {
        Self(sender_id ^ 1)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// True if this host is the client of the RPC.
    pub const fn is_client(self) -> bool {
        self.0 & 1 == 0
    }

    /// The low half, which is all that a time trace shows.
    pub(crate) const fn low(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Debug for RpcId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rpc {}", self.0)
    }
}

impl fmt::Display for RpcId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Network priority, 0 (lowest) to 7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// Levels that the three precedence bits of an IP header can tell apart.
    pub const LEVELS: usize = 8;

    /// The level `level`, or the highest if there is no such level.
    pub const fn clamped(level: u8) -> Self {
        Self(if level < Self::LEVELS as u8 { level } else { Self::LEVELS as u8 - 1 })
    }

    /// The level as a number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The level as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_saturates_and_never_runs_backwards() {
        let (a, b) = (Instant::from_nanos(5), Instant::from_nanos(9));
        assert_eq!(b.since(a), Nanos::from_nanos(4));
        assert_eq!(a.since(b), Nanos::ZERO);
        assert_eq!(Instant::from_nanos(u64::MAX) + Nanos::from_secs(1), Instant::from_nanos(u64::MAX));
        assert_eq!(Nanos::from_micros(1).as_micros_f64(), 1.0);
    }

    #[test]
    fn the_two_sides_of_an_rpc_differ_in_the_lowest_bit() {
        let client = RpcId::local(0x1234);
        let server = RpcId::from_peer(client.get());
        assert_eq!(server.get(), 0x1235);
        assert!(client.is_client() && !server.is_client());
        assert_eq!(RpcId::from_peer(server.get()), client);
    }

    #[test]
    fn priorities_clamp_to_the_highest_level() {
        assert_eq!(Priority::clamped(3).get(), 3);
        assert_eq!(Priority::clamped(200).get(), 7);
    }
}
