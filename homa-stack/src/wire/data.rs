//! DATA: bytes of a message.

use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ack::AckHdr;
use super::common::{CommonHdr, prefix, put};
use super::{AckRecord, Ends, MAX_MESSAGE_LEN, WireError};

/// DATA as it lies on the wire before its data: 56 bytes. Source: homa-protocol.md 1.4.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DataHdr {
    pub(crate) common: CommonHdr,
    message_length: U32,
    incoming: U32,
    ack: AckHdr,
    cutoff_version: U16,
    retransmit: u8,
    pad: [u8; 3],
    seg_offset: U32,
}
const _: () = assert!(size_of::<DataHdr>() == DATA_HEADER_LEN);

impl DataHdr {
    /// The offset of the data of a DATA packet, unless its header is cut off.
    #[inline]
    pub(crate) fn glance(packet: &[u8]) -> Option<u32> {
        let (hdr, _) = prefix::<Self>("DATA", packet).ok()?;
        let segment = hdr.seg_offset.get();
        Some(if segment == USE_SEQUENCE { hdr.common.sequence.get() } else { segment })
    }
}

/// Bytes of a DATA packet before its data.
pub const DATA_HEADER_LEN: usize = 56;

/// Value of the segment offset that means "use the sequence number".
const USE_SEQUENCE: u32 = u32::MAX;

/// Where a DATA packet carries the offset of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetForm {
    /// In the sequence number and in the segment offset: what we send, right for all receivers.
    Both,
    /// In the sequence number alone: what the kernel module sends for single segments.
    SequenceOnly,
    /// In the segment offset alone; the sequence number holds something else (segments cut by a NIC).
    SegmentOnly {
        /// The sequence number found.
        sequence: u32,
    },
}

/// A DATA packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// Bytes in the whole message, 1 to 1,000,000.
    pub message_len: u32,
    /// The receiver may expect all bytes below this offset without further grants.
    pub incoming: u32,
    /// An RPC that the sender is done with.
    pub ack: Option<AckRecord>,
    /// Version of the receiver's cutoffs that the sender knows; 0 if none.
    pub cutoff_version: u16,
    /// True if sent in answer to a RESEND.
    pub retransmit: bool,
    /// Offset of the first data byte in the message.
    pub offset: u32,
    /// Where the offset stood.
    pub form: OffsetForm,
    /// The data; may be empty.
    pub bytes: &'a [u8],
}

impl<'a> Data<'a> {
    /// Reads a DATA packet; all bytes after its header are data.
    ///
    /// # Errors
    ///
    /// If it is cut off, or its lengths and offsets contradict each other.
    pub fn parse(packet: &'a [u8]) -> Result<Self, WireError> {
        Self::parse_up_to(packet, MAX_MESSAGE_LEN)
    }

    /// As [`Self::parse`], with another limit for the length of messages.
    pub(crate) fn parse_up_to(packet: &'a [u8], longest: usize) -> Result<Self, WireError> {
        let (hdr, bytes) = prefix::<DataHdr>("DATA", packet)?;
        let message_len = hdr.message_length.get();
        if message_len == 0 || message_len as usize > longest {
            return Err(WireError::MessageLength(message_len));
        }
        let (sequence, segment) = (hdr.common.sequence.get(), hdr.seg_offset.get());
        let (offset, form) = match segment {
            USE_SEQUENCE => (sequence, OffsetForm::SequenceOnly),
            _ if segment == sequence => (segment, OffsetForm::Both),
            _ => (segment, OffsetForm::SegmentOnly { sequence }),
        };
        let end = u64::from(offset) + bytes.len() as u64;
        if offset >= message_len || end > u64::from(message_len) {
            return Err(WireError::BeyondEnd { start: offset, end, length: message_len });
        }
        Ok(Self {
            message_len,
            incoming: hdr.incoming.get(),
            ack: hdr.ack.record(),
            cutoff_version: hdr.cutoff_version.get(),
            retransmit: hdr.retransmit != 0,
            offset,
            form,
            bytes,
        })
    }

    /// Writes the header, not the data, to the start of `out`; returns its length, 56.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than 56 bytes.
    pub fn write_header(&self, ends: Ends, out: &mut [u8]) -> usize {
        let (sequence, segment) = match self.form {
            OffsetForm::Both => (self.offset, self.offset),
            OffsetForm::SequenceOnly => (self.offset, USE_SEQUENCE),
            OffsetForm::SegmentOnly { sequence } => (sequence, self.offset),
        };
        let hdr = DataHdr {
            common: CommonHdr::data(ends, sequence),
            message_length: self.message_len.into(),
            incoming: self.incoming.into(),
            ack: AckHdr::from(self.ack),
            cutoff_version: self.cutoff_version.into(),
            retransmit: self.retransmit.into(),
            pad: [0; 3],
            seg_offset: segment.into(),
        };
        put(&hdr, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_true_offset_comes_from_the_segment_unless_it_is_minus_one() {
        let ends = Ends { sport: 1, dport: 2, sender_id: 4 };
        for (form, offset) in [
            (OffsetForm::Both, 1424),
            (OffsetForm::SequenceOnly, 1424),
            (OffsetForm::SegmentOnly { sequence: 0 }, 1424),
            (OffsetForm::SegmentOnly { sequence: 999 }, 0),
        ] {
            let data = Data {
                message_len: 5000,
                incoming: 5000,
                ack: None,
                cutoff_version: 0,
                retransmit: true,
                offset,
                form,
                bytes: &[],
            };
            let mut out = [0; DATA_HEADER_LEN];
            data.write_header(ends, &mut out);
            assert_eq!(Data::parse(&out), Ok(data), "{form:?}");
        }
    }
}
