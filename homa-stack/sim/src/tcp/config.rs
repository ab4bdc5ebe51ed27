//! What can be set of TCP; the defaults are Linux's, at its state of 2020 (5.4).

use crate::time::Time;

/// Bytes of the headers of IPv4 and TCP without options.
pub(crate) const IP_TCP: u32 = 40;
/// Bytes of the time-stamp option with its padding, in each segment as on Linux.
pub(crate) const TIMESTAMPS: u32 = 12;

/// How the congestion window grows and shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// RFC 5681: a segment a round trip, half on loss.
    Reno,
    /// RFC 9438.
    Cubic,
    /// RFC 8257: grows as Reno, shrinks by the share of marked bytes.
    Dctcp,
}

/// Settings of TCP, the same for all connections of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpConfig {
    /// Longest IP packet, in bytes.
    pub mtu: u32,
    /// Congestion control.
    pub congestion: Congestion,
    /// Data are sent as ECN-capable, marks are echoed and obeyed (RFC 3168). DCTCP always does.
    pub ecn: bool,
    /// Slow start of cubic ends by HyStart (trains of acknowledgements and delays), as well as by a loss.
    pub hystart: bool,
    /// Congestion window of a new or long idle connection, in segments.
    pub initial_window: u32,
    /// A connection that was idle for longer than its retransmission time-out starts with a small window again.
    pub restart_after_idle: bool,
    /// Bytes that the receiver has room for: how far the sender may go beyond what is acknowledged. Applications of
    /// the simulator read at once, so this is what Linux's automatic tuning (up to 6 MB of buffer) arrives at.
    pub receive_window: u32,
    /// The least that the retransmission time-out is above the smoothed round-trip time.
    pub min_rto: Time,
    /// The longest retransmission time-out.
    pub max_rto: Time,
    /// Round-trip time-out before anything was measured.
    pub initial_rto: Time,
    /// A step of the kernel's timers: loss probes and the wait for reordered segments take two of them in addition.
    pub tick: Time,
    /// Tail loss probes (RFC 8985, section 7).
    pub tail_loss_probe: bool,
    /// How long an acknowledgement may wait for company.
    pub delayed_ack: Time,
    /// Segments that a new connection acknowledges without delay.
    pub quick_acks: u32,
    /// Segments of a connection that the host hands over at once are merged up to so many bytes of data, and then
    /// acknowledged as one (GRO); 0: each on its own. Hosts that do not batch hand over one at a time.
    pub merge: u32,
    /// Longest segment of offloading, in bytes of data (TSO): so much goes to the host's queue at once, less if it is
    /// more than a connection sends in a millisecond. 0: no offloading.
    pub offload: u32,
    /// A sender with more than a segment to send waits until a third of its window is free, or an offloaded segment
    /// (Linux's `tcp_tso_should_defer`), unless its acknowledgements come late. Without offloading it never does.
    pub defer: bool,
    /// Weight of the newest share of marks in DCTCP's alpha.
    pub dctcp_gain: f64,
    /// Bytes of one connection in the host's transmit queue at most (TCP small queues).
    pub small_queue: u32,
    /// Bytes that a connection sends in a row when several wait for the network card: a segment of offloading.
    pub quantum: u32,
    /// Connections take turns at the host's transmit queue (fq_codel without its drops); else first come, first served.
    pub fair_queue: bool,
    /// Level of all packets in the switches.
    pub priority: u8,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            mtu: 1500,
            congestion: Congestion::Cubic,
            ecn: false,
            hystart: true,
            initial_window: 10,
            restart_after_idle: true,
            receive_window: 3 << 20,
            min_rto: Time::from_millis(200),
            max_rto: Time::from_secs(120),
            initial_rto: Time::from_secs(1),
            tick: Time::from_millis(4),
            tail_loss_probe: true,
            delayed_ack: Time::from_millis(40),
            quick_acks: 16,
            merge: 65_535 - IP_TCP - TIMESTAMPS,
            offload: 65_535 - 320,
            defer: true,
            dctcp_gain: 1.0 / 16.0,
            small_queue: 1 << 20,
            quantum: 64 << 10,
            fair_queue: true,
            priority: 0,
        }
    }
}

impl TcpConfig {
    /// DCTCP, everything else as by default.
    pub fn dctcp() -> Self {
        Self { congestion: Congestion::Dctcp, ..Self::default() }
    }

    /// Data bytes of a full segment.
    pub fn mss(&self) -> u32 {
        self.mtu.saturating_sub(IP_TCP + TIMESTAMPS).max(1)
    }

    /// Segments carry marks of congestion to and fro.
    pub(crate) fn uses_ecn(&self) -> bool {
        self.ecn || self.congestion == Congestion::Dctcp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_segment_fills_the_mtu() {
        assert_eq!(TcpConfig::default().mss(), 1448);
        assert_eq!(TcpConfig { mtu: 3000, ..TcpConfig::default() }.mss(), 2948);
        assert!(TcpConfig::dctcp().uses_ecn() && !TcpConfig::default().uses_ecn());
    }
}
