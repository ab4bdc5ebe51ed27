//! CUTOFFS: which message lengths use which unscheduled priority.

use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::common::{CommonHdr, prefix, put};
use super::{Ends, Kind, WireError};
use crate::units::Priority;

/// CUTOFFS as it lies on the wire: 62 bytes. Source: homa-protocol.md 1.3.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct CutoffsHdr {
    common: CommonHdr,
    table: [U32; Priority::LEVELS],
    version: U16,
}
const _: () = assert!(size_of::<CutoffsHdr>() == 62);

/// A CUTOFFS packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cutoffs {
    /// Entry `i` is the longest message in bytes that uses level `i`.
    pub table: [u32; Priority::LEVELS],
    /// To be echoed in DATA packets to the sender of this packet.
    pub version: u16,
}

impl Cutoffs {
    /// Reads a CUTOFFS packet; bytes after it are ignored.
    ///
    /// # Errors
    ///
    /// If it is cut off.
    pub fn parse(packet: &[u8]) -> Result<Self, WireError> {
        let (hdr, _padding) = prefix::<CutoffsHdr>("CUTOFFS", packet)?;
        Ok(Self { table: hdr.table.map(U32::get), version: hdr.version.get() })
    }

    /// Writes the packet to the start of `out`; returns its length.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than 62 bytes.
    pub fn write(self, ends: Ends, out: &mut [u8]) -> usize {
        let hdr = CutoffsHdr {
            common: CommonHdr::control(Kind::Cutoffs, ends),
            table: self.table.map(U32::new),
            version: self.version.into(),
        };
        put(&hdr, out)
    }
}
