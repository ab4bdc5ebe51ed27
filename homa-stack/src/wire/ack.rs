//! ACK, and the ack records that DATA packets carry too.

use zerocopy::byteorder::big_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::common::{CommonHdr, prefix, put};
use super::{Ends, Kind, WireError};

/// Most records in an ACK packet.
pub const MAX_ACKS: usize = 5;

/// An ack record as it lies on the wire: 10 bytes. Source: homa-protocol.md 1.3.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct AckHdr {
    client_id: U64,
    server_port: U16,
}

/// ACK as it lies on the wire: always 80 bytes, however many records are valid.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AckPacketHdr {
    common: CommonHdr,
    num_acks: U16,
    acks: [AckHdr; MAX_ACKS],
}
const _: () = assert!(size_of::<AckPacketHdr>() == 80);

/// "The client is done with this RPC": the server may forget it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckRecord {
    /// The RPC's id on the client: even and not 0.
    pub client_id: u64,
    /// The port on the server that the request went to.
    pub server_port: u16,
}

impl AckHdr {
    const EMPTY: Self = Self { client_id: U64::ZERO, server_port: U16::ZERO };

    /// The record, unless it is empty or names no client's id.
    pub(super) fn record(self) -> Option<AckRecord> {
        let client_id = self.client_id.get();
        let valid = client_id != 0 && client_id & 1 == 0;
        valid.then(|| AckRecord { client_id, server_port: self.server_port.get() })
    }
}

impl From<Option<AckRecord>> for AckHdr {
    fn from(record: Option<AckRecord>) -> Self {
        record.map_or(Self::EMPTY, |r| Self { client_id: r.client_id.into(), server_port: r.server_port.into() })
    }
}

/// An ACK packet; the RPC in its common header is acknowledged too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    records: [Option<AckRecord>; MAX_ACKS],
}

impl Ack {
    /// An ACK with the first five of `records`.
    pub fn new(records: &[AckRecord]) -> Self {
        let mut all = [None; MAX_ACKS];
        for (slot, record) in all.iter_mut().zip(records) {
            *slot = Some(*record);
        }
        Self { records: all }
    }

    /// The records.
    pub fn records(&self) -> impl Iterator<Item = AckRecord> + use<> {
        self.records.into_iter().flatten()
    }

    /// Reads an ACK; counts above five are read as five, records that name no client RPC are left out.
    ///
    /// # Errors
    ///
    /// If it is shorter than 80 bytes.
    pub fn parse(packet: &[u8]) -> Result<Self, WireError> {
        let (hdr, _padding) = prefix::<AckPacketHdr>("ACK", packet)?;
        let mut records = [None; MAX_ACKS];
        for (slot, record) in records.iter_mut().zip(&hdr.acks[..MAX_ACKS.min(hdr.num_acks.get().into())]) {
            *slot = record.record();
        }
        Ok(Self { records })
    }

    /// Writes the packet to the start of `out`; returns its length, 80.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than 80 bytes.
    pub fn write(&self, ends: Ends, out: &mut [u8]) -> usize {
        let mut acks = [AckHdr::EMPTY; MAX_ACKS];
        let mut count = 0_u16;
        for (slot, record) in acks.iter_mut().zip(self.records()) {
            *slot = AckHdr::from(Some(record));
            count += 1;
        }
        let hdr = AckPacketHdr { common: CommonHdr::control(Kind::Ack, ends), num_acks: count.into(), acks };
        put(&hdr, out)
    }
}
