//! What a time trace shows of a packet on arrival, read without judging the rest.

use super::common::CommonHdr;
use super::{DataHdr, Grant, Kind};

/// Type, id and offset of a packet that may yet turn out to be of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Type.
    pub kind: Kind,
    /// The RPC's id on the sending host.
    pub sender_id: u64,
    /// DATA: offset of its data; GRANT: the new limit; else 0.
    pub offset: u32,
}

impl Glance {
    /// Looks at IP payload `bytes`; nothing if the header is cut off or the type unknown.
    #[inline]
    pub fn at(bytes: &[u8]) -> Option<Self> {
        let (common, kind) = CommonHdr::parse(bytes).ok()?;
        let offset = match kind {
            Kind::Data => DataHdr::glance(bytes)?,
            Kind::Grant => Grant::parse(bytes).ok()?.offset,
            _ => 0,
        };
        Some(Self { kind, sender_id: common.sender_id.get(), offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Data, Ends, OffsetForm, Packet, write_bare};

    const ENDS: Ends = Ends { sport: 1, dport: 2, sender_id: 12 };

    #[test]
    fn a_glance_sees_what_parsing_does() {
        let mut out = [0; 64];
        for form in [OffsetForm::Both, OffsetForm::SequenceOnly, OffsetForm::SegmentOnly { sequence: 7 }] {
            let (message_len, offset) = (5000, 1424);
            let data = Data {
                message_len,
                incoming: 5000,
                ack: None,
                cutoff_version: 0,
                retransmit: false,
                offset,
                form,
                bytes: &[],
            };
            let len = data.write_header(ENDS, &mut out);
            assert!(matches!(Packet::parse(&out[..len]), Ok((ENDS, Packet::Data(d))) if d.offset == 1424));
            let seen = Glance { kind: Kind::Data, sender_id: 12, offset: 1424 };
            assert_eq!(Glance::at(&out[..len]), Some(seen), "{form:?}");
            assert_eq!(Glance::at(&out[..len - 1]), None, "cut off");
        }
        let len = Grant { offset: 99, priority: 1 }.write(ENDS, &mut out);
        assert_eq!(Glance::at(&out[..len]), Some(Glance { kind: Kind::Grant, sender_id: 12, offset: 99 }));
        let len = write_bare(Kind::Busy, ENDS, &mut out);
        assert_eq!(Glance::at(&out[..len]), Some(Glance { kind: Kind::Busy, sender_id: 12, offset: 0 }));
        assert_eq!(Glance::at(&out[..len - 1]), None);
    }
}
