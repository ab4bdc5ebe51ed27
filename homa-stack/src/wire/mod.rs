//! Bytes of packets to values and back, profile H26 (homa-protocol.md 1).
//!
//! [`Packet::parse`] takes the payload of an IP packet (the Homa header and what follows it, Ethernet padding
//! already trimmed) and yields only what the protocol allows. Each type writes itself with `write`.

mod ack;
mod common;
mod cutoffs;
mod data;
mod glance;
mod grant;
pub mod icmp;
mod resend;

pub use ack::{Ack, AckRecord, MAX_ACKS};
pub use common::{
    CHECKSUM_AT, CommonHdr, Ends, HIJACK_FLAGS, HIJACK_URGENT, Kind, advance_sequence, checksum, fill_checksum,
    is_hijacked, prepare_checksum, verify_checksum,
};
pub use cutoffs::Cutoffs;
pub use data::{DATA_HEADER_LEN, Data, DataHdr, OffsetForm};
pub use glance::Glance;
pub use grant::Grant;
pub use resend::{RESEND_ALL, Resend};

use crate::units::RpcId;

/// IP protocol number of native Homa packets.
pub const IPPROTO_HOMA: u8 = 146;

/// IP protocol number of TCP, and of Homa packets in its guise.
pub const IPPROTO_TCP: u8 = 6;

/// Longest message in bytes (homa-protocol.md 1.4).
pub const MAX_MESSAGE_LEN: usize = 1_000_000;

/// Why bytes are not a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than the header of the packet's type.
    #[error("{kind} packet too short: expected {need} bytes or more, found {got}")]
    Short {
        /// Name of the type, or "Homa" if even the common header is cut.
        kind: &'static str,
        /// Bytes expected at least.
        need: usize,
        /// Bytes found.
        got: usize,
    },
    /// A type code outside 0x10..=0x18.
    #[error("unknown packet type {0:#04x}: expected 0x10 to 0x18")]
    UnknownType(u8),
    /// A message length of zero or above the limit.
    #[error("message length {0} out of range: expected 1 to {MAX_MESSAGE_LEN}")]
    MessageLength(u32),
    /// Data that lie beyond the end of their message.
    #[error("data {start}..{end} beyond the end of a message of {length} bytes")]
    BeyondEnd {
        /// Offset of the first data byte.
        start: u32,
        /// Offset after the last data byte.
        end: u64,
        /// The message's length.
        length: u32,
    },
    /// A checksum that does not fit the bytes.
    #[error("checksum does not fit: the packet was damaged or made up")]
    Checksum,
    /// An ICMP message about something else.
    #[error("ICMP message that is no error about a Homa packet of this host")]
    NotAboutHoma,
}

/// A packet's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Message bytes.
    Data(Data<'a>),
    /// Permission to send.
    Grant(Grant),
    /// Request for retransmission.
    Resend(Resend),
    /// "I have no such RPC", in answer to a RESEND.
    RpcUnknown,
    /// "Alive, nothing for you yet".
    Busy,
    /// Table of unscheduled priorities.
    Cutoffs(Cutoffs),
    /// Freeze the time trace.
    Freeze,
    /// Asks for an ACK.
    NeedAck,
    /// RPC state may be discarded.
    Ack(Ack),
}

impl<'a> Packet<'a> {
    /// Splits IP payload `bytes` into ports and ids ([`Ends`]) and the packet's meaning.
    ///
    /// # Errors
    ///
    /// [`WireError`] if the bytes are cut off, of an unknown type, or say what no sender may say.
    pub fn parse(bytes: &'a [u8]) -> Result<(Ends, Self), WireError> {
        Self::parse_up_to(bytes, MAX_MESSAGE_LEN)
    }

    /// As [`Self::parse`], with another limit for the length of messages.
    pub(crate) fn parse_up_to(bytes: &'a [u8], longest: usize) -> Result<(Ends, Self), WireError> {
        let (common, kind) = CommonHdr::parse(bytes)?;
        let packet = match kind {
            Kind::Data => Self::Data(Data::parse_up_to(bytes, longest)?),
            Kind::Grant => Self::Grant(Grant::parse(bytes)?),
            Kind::Resend => Self::Resend(Resend::parse(bytes)?),
            Kind::RpcUnknown => Self::RpcUnknown,
            Kind::Busy => Self::Busy,
            Kind::Cutoffs => Self::Cutoffs(Cutoffs::parse(bytes)?),
            Kind::Freeze => Self::Freeze,
            Kind::NeedAck => Self::NeedAck,
            Kind::Ack => Self::Ack(Ack::parse(bytes)?),
        };
        Ok((common.ends(), packet))
    }

    /// The packet's type.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Data(_) => Kind::Data,
            Self::Grant(_) => Kind::Grant,
            Self::Resend(_) => Kind::Resend,
            Self::RpcUnknown => Kind::RpcUnknown,
            Self::Busy => Kind::Busy,
            Self::Cutoffs(_) => Kind::Cutoffs,
            Self::Freeze => Kind::Freeze,
            Self::NeedAck => Kind::NeedAck,
            Self::Ack(_) => Kind::Ack,
        }
    }
}

/// Writes a packet that is a common header alone (RPC_UNKNOWN, BUSY, FREEZE, NEED_ACK); returns its length, 28.
/// The checksum is left zero: see [`fill_checksum`].
///
/// # Panics
///
/// If `out` is shorter than 28 bytes.
pub fn write_bare(kind: Kind, ends: Ends, out: &mut [u8]) -> usize {
    CommonHdr::control(kind, ends).put(out)
}

/// The ends of a packet from us about our RPC `id`.
pub const fn ends(sport: u16, dport: u16, id: RpcId) -> Ends {
    Ends { sport, dport, sender_id: id.get() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRS: ([u8; 4], [u8; 4]) = ([10, 0, 0, 1], [10, 0, 0, 2]);

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    const TO_SERVER: Ends = Ends { sport: 32768, dport: 99, sender_id: 0x1234 };
    const TO_CLIENT: Ends = Ends { sport: 99, dport: 32768, sender_id: 0x1235 };

    /// The example packets of homa-protocol.md 1.11: bytes, ends, meaning, true if from 10.0.0.1.
    fn vectors() -> Vec<(Vec<u8>, Ends, Packet<'static>, bool)> {
        let data = Data {
            message_len: 16,
            incoming: 16,
            ack: Some(AckRecord { client_id: 0x1230, server_port: 99 }),
            cutoff_version: 1,
            retransmit: false,
            offset: 0,
            form: OffsetForm::Both,
            bytes: b"golden-homa-data",
        };
        let mut kernel = data.clone();
        kernel.form = OffsetForm::SequenceOnly;
        vec![
            (
                hex("80000063 00000000 00000010 e0060000 9cc6b97d 00000000 00001234 00000010
                     00000010 00000000 00001230 00630001 00000000 00000000 676f6c64 656e2d68 6f6d612d 64617461"),
                TO_SERVER,
                Packet::Data(data),
                true,
            ),
            (
                hex("80000063 00000000 00000010 e0060000 9cc6b97d 00000000 00001234 00000010
                     00000010 00000000 00001230 00630001 00000000 ffffffff 676f6c64 656e2d68 6f6d612d 64617461"),
                TO_SERVER,
                Packet::Data(kernel),
                true,
            ),
            (
                hex("00638000 00000000 00000011 50060000 3f65b97d 00000000 00001235 00030d40 03"),
                TO_CLIENT,
                Packet::Grant(Grant { offset: 200_000, priority: 3 }),
                false,
            ),
            (
                hex("80000063 00000000 00000012 50060000 48a4b97d 00000000 00001234 00000000 ffffffff 07"),
                TO_SERVER,
                Packet::Resend(Resend { offset: 0, length: RESEND_ALL, priority: 7 }),
                true,
            ),
            (
                hex("00638000 00000000 00000013 50060000 4fabb97d 00000000 00001235"),
                TO_CLIENT,
                Packet::RpcUnknown,
                false,
            ),
            (
                hex("00638000 00000000 00000015 50060000 c6e6b97d 00000000 00001235 00000000
                     00000000 00000000 00000000 000f4240 00003a98 00000af0 000000c8 0001"),
                TO_CLIENT,
                Packet::Cutoffs(Cutoffs { table: [0, 0, 0, 0, 1_000_000, 15_000, 2_800, 200], version: 1 }),
                false,
            ),
            (
                hex("80000063 00000000 00000018 50060000 3cdfb97d 00000000 00001234 00010000
                     00000000 12300063 00000000 00000000 00000000 00000000 00000000 00000000
                     00000000 00000000 00000000 00000000"),
                TO_SERVER,
                Packet::Ack(Ack::new(&[AckRecord { client_id: 0x1230, server_port: 99 }])),
                true,
            ),
        ]
    }

    /// Header length of a packet type, as the table of homa-protocol.md 1.3 has it.
    fn header_len(kind: Kind) -> usize {
        match kind {
            Kind::Data => 56,
            Kind::Grant => 33,
            Kind::Resend => 37,
            Kind::Cutoffs => 62,
            Kind::Ack => 80,
            Kind::RpcUnknown | Kind::Busy | Kind::Freeze | Kind::NeedAck => 28,
        }
    }

    fn write(packet: &Packet<'_>, ends: Ends, out: &mut [u8]) -> usize {
        match packet {
            Packet::Data(d) => {
                let n = d.write_header(ends, out);
                out[n..n + d.bytes.len()].copy_from_slice(d.bytes);
                n + d.bytes.len()
            }
            Packet::Grant(g) => g.write(ends, out),
            Packet::Resend(r) => r.write(ends, out),
            Packet::Cutoffs(c) => c.write(ends, out),
            Packet::Ack(a) => a.write(ends, out),
            other => write_bare(other.kind(), ends, out),
        }
    }

    #[test]
    fn golden_packets_decode_and_encode_byte_for_byte() {
        for (bytes, ends, packet, from_client) in vectors() {
            assert_eq!(Packet::parse(&bytes), Ok((ends, packet.clone())));
            let mut out = [0xaa; 128];
            let n = write(&packet, ends, &mut out);
            let (src, dst) = if from_client { ADDRS } else { (ADDRS.1, ADDRS.0) };
            let kernel_form = matches!(&packet, Packet::Data(d) if d.form == OffsetForm::SequenceOnly);
            assert!(verify_checksum(&bytes, src.into(), dst.into()) || kernel_form, "{packet:?}");
            // The kernel-form vector keeps the checksum of its sibling: compare all bytes but those two.
            fill_checksum(&mut out[..n], src.into(), dst.into());
            if kernel_form {
                out[16..18].copy_from_slice(&bytes[16..18]);
            }
            assert_eq!(out[..n], bytes, "{packet:?}");
        }
    }

    #[test]
    fn every_truncation_of_every_type_is_rejected() {
        let mut all: Vec<(Vec<u8>, Kind)> = vectors().into_iter().map(|(b, _, p, _)| (b, p.kind())).collect();
        for kind in [Kind::RpcUnknown, Kind::Busy, Kind::Freeze, Kind::NeedAck] {
            let mut out = [0; 28];
            write_bare(kind, TO_SERVER, &mut out);
            all.push((out.to_vec(), kind));
        }
        for (bytes, kind) in all {
            for len in 0..header_len(kind) {
                assert!(
                    matches!(Packet::parse(&bytes[..len]), Err(WireError::Short { .. })),
                    "{kind:?} cut to {len} bytes"
                );
            }
            assert!(Packet::parse(&bytes[..header_len(kind)]).is_ok(), "{kind:?} with its header only");
        }
    }

    #[test]
    fn bytes_after_a_control_header_are_ignored() {
        for (mut bytes, ends, packet, _) in vectors() {
            if packet.kind() != Kind::Data {
                bytes.extend([0xee; 20]);
                assert_eq!(Packet::parse(&bytes), Ok((ends, packet)));
            }
        }
    }

    #[test]
    fn unknown_types_and_impossible_lengths_are_rejected() {
        let (bytes, ..) = vectors().swap_remove(0);
        for code in (0..=0xff).filter(|c| !(0x10..=0x18).contains(c)) {
            let mut bad = bytes.clone();
            bad[11] = code;
            assert_eq!(Packet::parse(&bad), Err(WireError::UnknownType(code)));
        }
        for (length, error) in [
            (0_u32, WireError::MessageLength(0)),
            (1_000_001, WireError::MessageLength(1_000_001)),
            (15, WireError::BeyondEnd { start: 0, end: 16, length: 15 }),
        ] {
            let mut bad = bytes.clone();
            bad[28..32].copy_from_slice(&length.to_be_bytes());
            assert_eq!(Packet::parse(&bad), Err(error));
        }
        let mut far = bytes;
        far[52..56].copy_from_slice(&0xffff_fff0_u32.to_be_bytes());
        assert!(matches!(Packet::parse(&far), Err(WireError::BeyondEnd { .. })));
    }

    #[test]
    fn an_ack_with_more_than_five_records_is_read_as_five() {
        let (mut bytes, ..) = vectors().pop().unwrap();
        bytes[28..30].copy_from_slice(&600_u16.to_be_bytes());
        // Records 1 to 4 have client id 0, which means "empty".
        let Ok((_, Packet::Ack(ack))) = Packet::parse(&bytes) else { panic!("not an ACK") };
        assert_eq!(ack.records().collect::<Vec<_>>(), [AckRecord { client_id: 0x1230, server_port: 99 }]);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), code in 0x0f_u8..0x1a) {
            let mut bytes = bytes;
            let _ = Packet::parse(&bytes);
            if bytes.len() > 11 {
                bytes[11] = code;
                let _ = Packet::parse(&bytes);
            }
        }
    }
}
