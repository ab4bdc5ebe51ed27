//! What a host's TCP counts.

/// Counters of all connections of a host; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Segments with data, retransmissions included.
    pub data_segments: u64,
    /// Data bytes in them.
    pub data_bytes: u64,
    /// Segments without data.
    pub pure_acks: u64,
    /// Retransmissions.
    pub resent: u64,
    /// Data bytes in them.
    pub resent_bytes: u64,
    /// Segments received whose data had all been there.
    pub duplicates: u64,
    /// Recoveries from losses that were found without a time-out.
    pub recoveries: u64,
    /// Retransmission time-outs.
    pub timeouts: u64,
    /// Tail loss probes.
    pub probes: u64,
    /// Reductions of a window because of marks.
    pub reductions_by_mark: u64,
    /// Data segments received with a mark.
    pub marked: u64,
    /// Segments that waited for the network card.
    pub queued: u64,
    /// Times that a connection had to wait because of its bytes in the host's queue.
    pub throttled: u64,
    /// Connections.
    pub connections: u64,
}

impl Counters {
    /// By name, always in the same order.
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("tcp_data_segments", self.data_segments),
            ("tcp_data_bytes", self.data_bytes),
            ("tcp_pure_acks", self.pure_acks),
            ("tcp_resent_segments", self.resent),
            ("tcp_resent_bytes", self.resent_bytes),
            ("tcp_duplicate_segments", self.duplicates),
            ("tcp_recoveries", self.recoveries),
            ("tcp_timeouts", self.timeouts),
            ("tcp_tail_loss_probes", self.probes),
            ("tcp_reductions_by_mark", self.reductions_by_mark),
            ("tcp_marked_segments", self.marked),
            ("tcp_queued_segments", self.queued),
            ("tcp_throttled", self.throttled),
            ("tcp_connections", self.connections),
        ]
    }
}
