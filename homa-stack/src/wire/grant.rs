//! GRANT: permission to send.

use zerocopy::byteorder::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::common::{CommonHdr, prefix, put};
use super::{Ends, Kind, WireError};

/// GRANT as it lies on the wire: 33 bytes. Source: homa-protocol.md 1.3.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct GrantHdr {
    common: CommonHdr,
    offset: U32,
    priority: u8,
}
const _: () = assert!(size_of::<GrantHdr>() == 33);

/// A GRANT packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The sender may transmit all bytes below this offset; may lie beyond the message's end.
    pub offset: u32,
    /// Level for all later packets of the message; may exceed the highest level in use.
    pub priority: u8,
}

impl Grant {
    /// Reads a GRANT; bytes after it are ignored.
    ///
    /// # Errors
    ///
    /// If it is cut off.
    pub fn parse(packet: &[u8]) -> Result<Self, WireError> {
        let (hdr, _padding) = prefix::<GrantHdr>("GRANT", packet)?;
        Ok(Self { offset: hdr.offset.get(), priority: hdr.priority })
    }

    /// Writes the packet to the start of `out`; returns its length.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than 33 bytes.
    pub fn write(self, ends: Ends, out: &mut [u8]) -> usize {
        let hdr = GrantHdr {
            common: CommonHdr::control(Kind::Grant, ends),
            offset: self.offset.into(),
            priority: self.priority,
        };
        put(&hdr, out)
    }
}
