//! What travels through the fabric.

use crate::time::Time;

/// Bytes that Ethernet puts around an IP packet and that are part of the frame: header and checksum.
pub const FRAME_OVERHEAD: u32 = 18;

/// Bytes of time on a link around each frame: preamble and gap.
pub const LINK_OVERHEAD: u32 = 20;

/// Smallest Ethernet frame in bytes, checksum included.
pub const MIN_FRAME: u32 = 64;

/// A host, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

impl HostId {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Explicit congestion notification, the two bits of an IP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// The transport does not understand marks; a queue does not mark the packet.
    #[default]
    NotCapable,
    /// A queue may mark it.
    Capable,
    /// A queue marked it.
    Experienced,
}

/// A packet. What the fabric looks at is in its fields; what the transport says is the `segment`, whose bytes need not
/// exist: `frame` alone decides how long it takes.
#[derive(Clone, Debug)]
pub struct Packet<S> {
    /// Who sent it.
    pub from: HostId,
    /// Whom it is for.
    pub to: HostId,
    /// Bytes of the Ethernet frame, header and checksum included: see [`frame_bytes`].
    pub frame: u32,
    /// Network priority, 0 to 7; 7 goes first.
    pub priority: u8,
    /// Congestion notification.
    pub ecn: Ecn,
    /// What a switch or NIC would hash of the headers: equal for packets that shall take the same way and, on the
    /// receiver, go to the same core.
    pub flow: u64,
    /// When it came to the host's receive ring; set by the simulator.
    pub arrived: Time,
    /// What the transport sends.
    pub segment: S,
}

/// Bytes of the frame for an IP packet of `ip` bytes, its IP header included.
pub const fn frame_bytes(ip: u32) -> u32 {
    let frame = ip + FRAME_OVERHEAD;
    if frame < MIN_FRAME { MIN_FRAME } else { frame }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_their_overhead_and_least_length() {
        assert_eq!(frame_bytes(1500), 1518);
        assert_eq!(frame_bytes(20), 64);
        assert_eq!(frame_bytes(46), 64);
        assert_eq!(frame_bytes(47), 65);
    }
}
