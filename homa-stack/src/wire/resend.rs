//! RESEND: a request for bytes that did not come.

use zerocopy::byteorder::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::common::{CommonHdr, prefix, put};
use super::{Ends, Kind, WireError};

/// RESEND as it lies on the wire: 37 bytes. Source: homa-protocol.md 1.3.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ResendHdr {
    common: CommonHdr,
    offset: U32,
    length: U32,
    priority: u8,
}
const _: () = assert!(size_of::<ResendHdr>() == 37);

/// A RESEND length that means "nothing has come: send again all that was sent".
pub const RESEND_ALL: u32 = u32::MAX;

/// A RESEND packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resend {
    /// First byte wanted.
    pub offset: u32,
    /// Bytes wanted, or [`RESEND_ALL`].
    pub length: u32,
    /// Level for the retransmitted packets.
    pub priority: u8,
}

impl Resend {
    /// Reads a RESEND; bytes after it are ignored.
    ///
    /// # Errors
    ///
    /// If it is cut off.
    pub fn parse(packet: &[u8]) -> Result<Self, WireError> {
        let (hdr, _padding) = prefix::<ResendHdr>("RESEND", packet)?;
        Ok(Self { offset: hdr.offset.get(), length: hdr.length.get(), priority: hdr.priority })
    }

    /// Writes the packet to the start of `out`; returns its length.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than 37 bytes.
    pub fn write(self, ends: Ends, out: &mut [u8]) -> usize {
        let hdr = ResendHdr {
            common: CommonHdr::control(Kind::Resend, ends),
            offset: self.offset.into(),
            length: self.length.into(),
            priority: self.priority,
        };
        put(&hdr, out)
    }

    /// One past the last byte wanted; no limit if all is wanted.
    pub fn end(self) -> u64 {
        if self.length == RESEND_ALL { u64::MAX } else { u64::from(self.offset) + u64::from(self.length) }
    }
}
