//! The header that all packets begin with, and the checksum in it.

use std::net::IpAddr;

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{IPPROTO_TCP, WireError};

/// Packet types with their codes (homa-protocol.md 1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Message bytes.
    Data = 0x10,
    /// Permission to send, with a priority.
    Grant = 0x11,
    /// Request for retransmission.
    Resend = 0x12,
    /// Answer to a RESEND about an RPC that does not exist.
    RpcUnknown = 0x13,
    /// Answer to a RESEND: alive, but nothing to send.
    Busy = 0x14,
    /// Unscheduled priorities of the sending host.
    Cutoffs = 0x15,
    /// Debugging: freeze the peer's time trace.
    Freeze = 0x16,
    /// A server asks for an ACK.
    NeedAck = 0x17,
    /// A client is done with RPCs.
    Ack = 0x18,
}

impl Kind {
    /// All types in order of their codes.
    pub const ALL: [Self; 9] = [
        Self::Data,
        Self::Grant,
        Self::Resend,
        Self::RpcUnknown,
        Self::Busy,
        Self::Cutoffs,
        Self::Freeze,
        Self::NeedAck,
        Self::Ack,
    ];

    /// The type with code `code`.
    pub const fn from_code(code: u8) -> Option<Self> {
        if code >= 0x10 && code <= 0x18 { Some(Self::ALL[(code - 0x10) as usize]) } else { None }
    }

    /// The code on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Position in [`Kind::ALL`].
    pub const fn index(self) -> usize {
        (self as u8 - 0x10) as usize
    }

    /// The name as metrics and messages spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Data => "DATA",
            Self::Grant => "GRANT",
            Self::Resend => "RESEND",
            Self::RpcUnknown => "RPC_UNKNOWN",
            Self::Busy => "BUSY",
            Self::Cutoffs => "CUTOFFS",
            Self::Freeze => "FREEZE",
            Self::NeedAck => "NEED_ACK",
            Self::Ack => "ACK",
        }
    }
}

/// Who a packet is from and for: ports, and the RPC id as its sender knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Sender's Homa port.
    pub sport: u16,
    /// Receiver's Homa port.
    pub dport: u16,
    /// The RPC's id on the sending host.
    pub sender_id: u64,
}

/// The first 28 bytes of each packet: 20 that look like a TCP header, then the id. Source: homa-protocol.md 1.2.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CommonHdr {
    pub(crate) sport: U16,
    pub(crate) dport: U16,
    /// DATA: offset of the packet's first byte in its message; control: 0.
    pub(crate) sequence: U32,
    pub(crate) ack: [u8; 3],
    pub(crate) kind: u8,
    /// Header length in 32-bit words, in the high nibble.
    pub(crate) doff: u8,
    pub(crate) flags: u8,
    pub(crate) window: U16,
    pub(crate) checksum: U16,
    pub(crate) urgent: U16,
    pub(crate) sender_id: U64,
}
const _: () = assert!(size_of::<CommonHdr>() == 28);

/// TCP SYN+RST, which no TCP sends together: with [`HIJACK_URGENT`] the mark of a hijacked packet, written on all.
/// A kernel's TCP answers nothing that has RST set (homa-protocol.md 1.6, 9).
pub const HIJACK_FLAGS: u8 = 6;

/// The urgent pointer of a hijacked packet, written on all.
pub const HIJACK_URGENT: u16 = 0xb97d;

const DOFF_CONTROL: u8 = 5 << 4;
const DOFF_DATA: u8 = 14 << 4;
/// Where the checksum stands.
pub const CHECKSUM_AT: usize = 16;

impl CommonHdr {
    /// The header of a control packet.
    pub(crate) fn control(kind: Kind, ends: Ends) -> Self {
        Self::new(kind, ends, DOFF_CONTROL, 0)
    }

    /// The header of a DATA packet whose data begin at `offset`.
    pub(crate) fn data(ends: Ends, offset: u32) -> Self {
        Self::new(Kind::Data, ends, DOFF_DATA, offset)
    }

    fn new(kind: Kind, ends: Ends, doff: u8, sequence: u32) -> Self {
        Self {
            sport: ends.sport.into(),
            dport: ends.dport.into(),
            sequence: sequence.into(),
            ack: [0; 3],
            kind: kind.code(),
            doff,
            flags: HIJACK_FLAGS,
            window: 0.into(),
            checksum: 0.into(),
            urgent: HIJACK_URGENT.into(),
            sender_id: ends.sender_id.into(),
        }
    }

    /// The common header at the start of `bytes`, and the type it names.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(&Self, Kind), WireError> {
        let (hdr, _) = prefix::<Self>("Homa", bytes)?;
        let kind = Kind::from_code(hdr.kind).ok_or(WireError::UnknownType(hdr.kind))?;
        Ok((hdr, kind))
    }

    pub(crate) fn ends(&self) -> Ends {
        Ends { sport: self.sport.get(), dport: self.dport.get(), sender_id: self.sender_id.get() }
    }

    pub(crate) fn put(&self, out: &mut [u8]) -> usize {
        put(self, out)
    }
}

/// True if `payload` of an IP packet of protocol 6 is a Homa packet in the guise of TCP.
pub fn is_hijacked(payload: &[u8]) -> bool {
    CommonHdr::ref_from_prefix(payload)
        .is_ok_and(|(hdr, _)| hdr.flags == HIJACK_FLAGS && hdr.urgent.get() == HIJACK_URGENT)
}

/// Views the start of `bytes` as a `T`; the rest comes second.
pub(super) fn prefix<'a, T>(kind: &'static str, bytes: &'a [u8]) -> Result<(&'a T, &'a [u8]), WireError>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned,
{
    T::ref_from_prefix(bytes).map_err(|_| WireError::Short { kind, need: size_of::<T>(), got: bytes.len() })
}

/// Copies `hdr` to the start of `out`; returns its length.
pub(super) fn put<T: IntoBytes + Immutable>(hdr: &T, out: &mut [u8]) -> usize {
    let bytes = hdr.as_bytes();
    out[..bytes.len()].copy_from_slice(bytes);
    bytes.len()
}

/// Internet checksum of `packet` (Homa header and data, checksum field included) with the TCP pseudo-header that
/// Homa uses for every IP protocol number. Source: homa-protocol.md 1.5.
pub fn checksum(packet: &[u8], src: IpAddr, dst: IpAddr) -> u16 {
    !folded_sum(packet, IPPROTO_TCP.into(), &[src, dst])
}

/// One's-complement sum of the 16-bit words of `bytes` and, unless `protocol` is 0, of a pseudo-header with
/// `protocol`, `addrs` and the length.
pub(super) fn folded_sum(bytes: &[u8], protocol: u64, addrs: &[IpAddr]) -> u16 {
    let pseudo = if protocol > 0 { pseudo_sum(protocol, addrs, bytes.len()) } else { 0 };
    fold(pseudo + add_words(bytes))
}

/// Sum of the words of a pseudo-header.
fn pseudo_sum(protocol: u64, addrs: &[IpAddr], len: usize) -> u64 {
    let addrs = addrs.iter().map(|addr| match addr {
        IpAddr::V4(a) => add_words(&a.octets()),
        IpAddr::V6(a) => add_words(&a.octets()),
    });
    protocol + len as u64 + addrs.sum::<u64>()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Stores in a packet of `len` bytes that begins with `header` what a network card, or the kernel in its place, needs to
/// find there to complete the checksum: the sum of the pseudo-header.
///
/// # Panics
///
/// If `header` is shorter than the common header.
pub fn prepare_checksum(header: &mut [u8], len: usize, src: IpAddr, dst: IpAddr) {
    let sum = fold(pseudo_sum(IPPROTO_TCP.into(), &[src, dst], len));
    header[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Sum of the big-endian 16-bit words of `bytes`, an odd last byte padded with zero, folded to 16 bits.
fn add_words(bytes: &[u8]) -> u64 {
    // One's-complement sums care neither about the width of the words nor, but for the order of the result's bytes,
    // about that of theirs: words of the machine's own order are added, halves apart, which vector instructions do
    // 16 bytes at a time. Cannot overflow below 2^32 words.
    let (chunks, rest) = bytes.as_chunks::<8>();
    let halves = |word: u64| (word & 0xffff_ffff, word >> 32);
    let (mut low, mut high) = (0, 0);
    for chunk in chunks {
        let (l, h) = halves(u64::from_ne_bytes(*chunk));
        low += l;
        high += h;
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let (l, h) = halves(u64::from_ne_bytes(last));
    let mut sum = low + high + l + h;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u64::from((sum as u16).to_be())
}

/// Computes the checksum of `packet` and stores it.
///
/// # Panics
///
/// If `packet` is shorter than the common header.
pub fn fill_checksum(packet: &mut [u8], src: IpAddr, dst: IpAddr) {
    packet[CHECKSUM_AT..CHECKSUM_AT + 2].fill(0);
    let sum = checksum(packet, src, dst);
    packet[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Counts the sequence number of a packet that begins with `header` on by `bytes`, as a network card does with the
/// segments that it cuts.
///
/// # Panics
///
/// If `header` is shorter than the sequence number's end.
pub fn advance_sequence(header: &mut [u8], bytes: u32) {
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    header[4..8].copy_from_slice(&sequence.wrapping_add(bytes).to_be_bytes());
}

/// True if the checksum that `packet` carries is right.
pub fn verify_checksum(packet: &[u8], src: IpAddr, dst: IpAddr) -> bool {
    checksum(packet, src, dst) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_equal_the_sum_of_16_bit_words() {
        let naive = |bytes: &[u8]| {
            let mut sum: u64 =
                bytes.chunks(2).map(|c| u64::from(c[0]) << 8 | c.get(1).map_or(0, |b| u64::from(*b))).sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            sum
        };
        let bytes: Vec<u8> = (0..1500_u32).map(|i| ((i * 7919) >> 3) as u8).collect();
        for len in 0..1500 {
            let mut sum = add_words(&bytes[..len]);
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            assert_eq!(sum, naive(&bytes[..len]), "{len} bytes");
        }
    }

    #[test]
    fn codes_and_names_cover_all_types() {
        for (i, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), i);
            assert_eq!(Kind::from_code(kind.code()), Some(kind));
        }
        assert_eq!(Kind::from_code(0x0f), None);
        assert_eq!(Kind::from_code(0x19), None);
    }
}
