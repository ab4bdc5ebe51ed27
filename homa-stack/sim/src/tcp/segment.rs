//! What travels: the fields of a segment that matter, without its bytes.

use super::config::{IP_TCP, TIMESTAMPS};
use crate::packet::frame_bytes;

/// Most blocks of selective acknowledgements in a segment, as there is room for beside time stamps.
pub(crate) const SACK_BLOCKS: usize = 3;

/// Bits of [`Segment::flags`].
pub(crate) mod flag {
    /// The receiver has seen marks of congestion.
    pub(crate) const ECE: u8 = 1;
    /// The sender has reduced its window.
    pub(crate) const CWR: u8 = 2;
    /// Data came that had been there already (a block below the acknowledged bytes, RFC 2883).
    pub(crate) const DSACK: u8 = 4;
}

/// A range of bytes that arrived beyond what is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlock {
    /// Bytes from the acknowledged ones to the start of the range.
    pub from: u32,
    /// Bytes from the acknowledged ones to its end; exclusive.
    pub to: u32,
}

/// A TCP segment: offsets instead of sequence numbers that wrap, and the length of the data instead of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Offset of the first data byte in its direction's stream.
    pub seq: u64,
    /// Bytes of the other direction that have arrived in order.
    pub ack: u64,
    /// The receiver's number of the connection (what the four addresses and ports stand for).
    pub connection: u32,
    /// Data bytes.
    pub len: u16,
    /// Marks and their answers.
    pub(crate) flags: u8,
    /// How many of `sacks` count.
    pub(crate) blocks: u8,
    /// Most recent first.
    pub(crate) sacks: [SackBlock; SACK_BLOCKS],
}

const _: () = assert!(size_of::<Segment>() <= 48);

impl Segment {
    /// Length of the Ethernet frame with all headers, in bytes.
    pub fn frame(&self) -> u32 {
        let blocks = u32::from(self.blocks) + u32::from(self.flags & flag::DSACK != 0);
        let sack = if blocks == 0 { 0 } else { 4 + 8 * blocks.min(SACK_BLOCKS as u32) };
        frame_bytes(IP_TCP + TIMESTAMPS + sack + u32::from(self.len))
    }

    /// Blocks of selective acknowledgements, most recent first.
    pub fn sacks(&self) -> &[SackBlock] {
        &self.sacks[..usize::from(self.blocks)]
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_lengths_they_have_on_the_wire() {
        // (data bytes, blocks, flags, frame): 14 + 20 + 32 + data + 4, and the option of selective acknowledgements.
        for (len, blocks, flags, frame) in [
            (0, 0, 0, 70),
            (1448, 0, 0, 1518),
            (0, 1, 0, 82),
            (0, 3, 0, 98),
            (0, 3, flag::DSACK, 98),
            (0, 0, flag::DSACK, 82),
        ] {
            let segment = Segment { len, blocks, flags, ..Segment::default() };
            assert_eq!(segment.frame(), frame, "{segment:?}");
        }
    }
}
