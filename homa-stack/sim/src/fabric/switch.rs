//! A switch: shared memory with dynamic thresholds, strict priorities at each port, marks.

use crate::time::Time;

/// Parameters of each switch.
#[derive(Clone, Debug, PartialEq)]
pub struct SwitchConfig {
    /// Memory that all ports share, in bytes.
    pub pool: u64,
    /// A queue may grow to this times the memory that is free (dynamic threshold); infinite: to the pool's end.
    pub alpha: f64,
    /// Packets that can be marked are marked if their queue has this many bytes or more when they come; `None`: never.
    pub ecn_threshold: Option<u64>,
    /// Time from the last bit of a packet in to its place in the queue.
    pub latency: Time,
}

impl Default for SwitchConfig {
    /// The rack switch of the published buffer study: 13.2 MB for all ports, as much of it as there is for each.
    fn default() -> Self {
        Self { pool: 13_200_000, alpha: f64::INFINITY, ecn_threshold: None, latency: Time::ZERO }
    }
}

/// Why a switch dropped a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The shared memory had no room.
    PoolFull,
    /// Its queue was longer than the dynamic threshold.
    Threshold,
}

impl DropReason {
    /// All reasons, in the order of [`SwitchStats::drops`].
    pub const ALL: [Self; 2] = [Self::PoolFull, Self::Threshold];

    /// In words of a result file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PoolFull => "pool_full",
            Self::Threshold => "threshold",
        }
    }
}

/// What happened at a port of a switch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PortStats {
    /// Packets sent.
    pub packets: u64,
    /// Bytes of frames sent.
    pub bytes: u64,
    /// Packets dropped.
    pub drops: u64,
    /// Packets marked.
    pub marks: u64,
    /// Most bytes that waited.
    pub high_water_bytes: u64,
    /// The same as time on the port's link.
    pub high_water: Time,
}

/// What happened at a switch since counting began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SwitchStats {
    /// Most bytes that waited at all ports together.
    pub high_water_bytes: u64,
    /// When that was first so.
    pub high_water_at: Time,
    /// Packets dropped, by reason in the order of [`DropReason::ALL`].
    pub drops: [u64; DropReason::ALL.len()],
    /// Packets marked.
    pub marks: u64,
    /// Of each port; those to hosts first, then those to other switches.
    pub ports: Vec<PortStats>,
}
