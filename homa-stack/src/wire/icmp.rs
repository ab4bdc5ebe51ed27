//! ICMP errors about Homa packets, of both versions: what became of a packet of ours, and the refusal of a peer's.
//!
//! Sources: RFC 792, RFC 1191, RFC 4443; homa-protocol.md 1.10, 2.8.

use std::net::IpAddr;

use super::common::{CommonHdr, Ends, Kind, folded_sum, is_hijacked};
use super::{IPPROTO_HOMA, IPPROTO_TCP, WireError};

/// Type, code, checksum and a word that depends on the type.
const HEADER_LEN: usize = 8;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const IPPROTO_ICMPV6: u64 = 58;
const HOP_LIMIT: u8 = 64;

/// Most bytes of a Homa packet that a refusal quotes: the longest header.
pub const MAX_QUOTE: usize = 56;

/// Room that [`write_port_unreachable`] needs at most.
pub const MAX_REFUSAL: usize = HEADER_LEN + IPV6_LEN + MAX_QUOTE;

/// Why a packet was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody serves the port.
    PortUnreachable,
    /// The host does not know the IP protocol.
    ProtocolUnreachable,
    /// The host can't be reached, or packets to it are not let through.
    HostUnreachable,
    /// The packet did not fit a link on its way: "fragmentation needed", "packet too big".
    TooBig {
        /// Largest IP packet that the link takes, bytes; 0 if the router did not say.
        mtu: u32,
    },
}

/// An ICMP error about a packet that claims to be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// What happened.
    pub cause: Cause,
    /// Where the packet was going.
    pub to: IpAddr,
    /// Its ports and RPC id, as we sent them.
    pub ends: Ends,
    /// Its type.
    pub kind: Kind,
    /// DATA: the offset of its first byte.
    pub sequence: u32,
}

impl IcmpError {
    /// Reads ICMP message `bytes`, which came from `from` to our address `to`.
    ///
    /// # Errors
    ///
    /// If it is cut off or damaged, or no error about a Homa packet from `to` that it quotes down to the RPC id.
    pub fn parse(from: IpAddr, to: IpAddr, bytes: &[u8]) -> Result<Self, WireError> {
        let short = || WireError::Short { kind: "ICMP", need: HEADER_LEN, got: bytes.len() };
        let (header, quote) = bytes.split_first_chunk::<HEADER_LEN>().ok_or_else(short)?;
        let pseudo = if to.is_ipv4() { 0 } else { IPPROTO_ICMPV6 };
        if folded_sum(bytes, pseudo, &[from, to]) != 0xffff {
            return Err(WireError::Checksum);
        }
        let cause = match to {
            IpAddr::V4(_) => cause_v4(header),
            IpAddr::V6(_) => cause_v6(header),
        };
        let cause = cause.ok_or(WireError::NotAboutHoma)?;
        let (source, destination, protocol, payload) = match to {
            IpAddr::V4(_) => quoted_v4(quote),
            IpAddr::V6(_) => quoted_v6(quote),
        }
        .ok_or(WireError::NotAboutHoma)?;
        let homa = protocol == IPPROTO_HOMA || protocol == IPPROTO_TCP && is_hijacked(payload);
        if !homa || source != to {
            return Err(WireError::NotAboutHoma);
        }
        let (common, kind) = CommonHdr::parse(payload)?;
        Ok(Self { cause, to: destination, ends: common.ends(), kind, sequence: common.sequence.get() })
    }
}

fn cause_v4(header: &[u8; HEADER_LEN]) -> Option<Cause> {
    match header[..2] {
        [3, 3] => Some(Cause::PortUnreachable),
        [3, 2] => Some(Cause::ProtocolUnreachable),
        [3, 4] => Some(Cause::TooBig { mtu: u16::from_be_bytes([header[6], header[7]]).into() }),
        [3, _] => Some(Cause::HostUnreachable),
        _ => None,
    }
}

fn cause_v6(header: &[u8; HEADER_LEN]) -> Option<Cause> {
    match header[..2] {
        [1, 4] => Some(Cause::PortUnreachable),
        [1, _] => Some(Cause::HostUnreachable),
        [2, _] => Some(Cause::TooBig { mtu: u32::from_be_bytes([header[4], header[5], header[6], header[7]]) }),
        [4, 1] => Some(Cause::ProtocolUnreachable),
        _ => None,
    }
}

/// Source, destination, protocol and payload of a quoted packet, which may be cut off.
type Quoted<'a> = (IpAddr, IpAddr, u8, &'a [u8]);

fn quoted_v4(quote: &[u8]) -> Option<Quoted<'_>> {
    let header = quote.first_chunk::<IPV4_LEN>()?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
    if header[0] >> 4 != 4 || header_len < IPV4_LEN || !first {
        return None;
    }
    let addr = |at: usize| IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    Some((addr(12), addr(16), header[9], quote.get(header_len..)?))
}

/// Extension headers, which somebody on the way may have put in, are stepped over.
fn quoted_v6(quote: &[u8]) -> Option<Quoted<'_>> {
    const OPTIONS: [u8; 3] = [0, 43, 60];
    let (header, mut rest) = quote.split_first_chunk::<IPV6_LEN>()?;
    let mut next = header[6];
    while OPTIONS.contains(&next) {
        let &[following, words, ..] = rest else { return None };
        (next, rest) = (following, rest.get((usize::from(words) + 1) * 8..)?);
    }
    let addr = |at: usize| IpAddr::from(std::array::from_fn::<u8, 16, _>(|i| header[at + i]));
    (header[0] >> 4 == 6).then_some((addr(8), addr(24), next, rest))
}

/// Writes the ICMP message by which `us` tells `peer` that nobody serves the port of a Homa packet: one of `len`
/// bytes that begins with `start`. Returns the message's length, at most [`MAX_REFUSAL`].
///
/// # Panics
///
/// If `us` and `peer` are of different IP versions, or `out` is too short.
pub fn write_port_unreachable(us: IpAddr, peer: IpAddr, start: &[u8], len: usize, out: &mut [u8]) -> usize {
    write_error(Cause::PortUnreachable, us, us, peer, start, len, out)
}

/// As [`write_port_unreachable`], for any cause, said by host or router `by` of a packet from `peer` to `us`. The
/// packet is quoted as one of protocol 146 whichever way it came, since that is how a kernel that runs Homa finds whose
/// it was.
///
/// # Panics
///
/// As [`write_port_unreachable`].
pub fn write_error(
    cause: Cause,
    by: IpAddr,
    us: IpAddr,
    peer: IpAddr,
    start: &[u8],
    len: usize,
    out: &mut [u8],
) -> usize {
    let start = &start[..start.len().min(MAX_QUOTE)];
    let ([kind, code], word) = codes(cause, us);
    out[..4].copy_from_slice(&[kind, code, 0, 0]);
    out[4..HEADER_LEN].copy_from_slice(&word.to_be_bytes());
    let quoted = match (us, peer) {
        (IpAddr::V4(us), IpAddr::V4(peer)) => {
            let ip = &mut out[HEADER_LEN..HEADER_LEN + IPV4_LEN];
            ip.fill(0);
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&((IPV4_LEN + len) as u16).to_be_bytes());
            (ip[8], ip[9]) = (HOP_LIMIT, IPPROTO_HOMA);
            ip[12..16].copy_from_slice(&peer.octets());
            ip[16..20].copy_from_slice(&us.octets());
            let sum = !folded_sum(ip, 0, &[]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            HEADER_LEN + IPV4_LEN
        }
        (IpAddr::V6(us), IpAddr::V6(peer)) => {
            let ip = &mut out[HEADER_LEN..HEADER_LEN + IPV6_LEN];
            ip[..4].copy_from_slice(&(6_u32 << 28).to_be_bytes());
            ip[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            (ip[6], ip[7]) = (IPPROTO_HOMA, HOP_LIMIT);
            ip[8..24].copy_from_slice(&peer.octets());
            ip[24..40].copy_from_slice(&us.octets());
            HEADER_LEN + IPV6_LEN
        }
        _ => panic!("{us} does not speak the IP version of {peer}"),
    };
    let end = quoted + start.len();
    out[quoted..end].copy_from_slice(start);
    set_checksum(by, peer, &mut out[..end]);
    end
}

/// Sets the checksum of an ICMP message from `from` to `to`; without effect if it is too short to have one.
pub fn set_checksum(from: IpAddr, to: IpAddr, message: &mut [u8]) {
    if message.len() >= 4 {
        message[2..4].fill(0);
        let pseudo = if to.is_ipv4() { 0 } else { IPPROTO_ICMPV6 };
        let sum = !folded_sum(message, pseudo, &[from, to]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Type and code of an error to a host of the IP version of `addr`, and the last word of its header.
fn codes(cause: Cause, addr: IpAddr) -> ([u8; 2], u32) {
    match (cause, addr.is_ipv4()) {
        (Cause::PortUnreachable, true) => ([3, 3], 0),
        (Cause::ProtocolUnreachable, true) => ([3, 2], 0),
        (Cause::HostUnreachable, true) => ([3, 1], 0),
        (Cause::TooBig { mtu }, true) => ([3, 4], mtu & 0xffff),
        (Cause::PortUnreachable, false) => ([1, 4], 0),
        (Cause::ProtocolUnreachable, false) => ([4, 1], 0),
        (Cause::HostUnreachable, false) => ([1, 3], 0),
        (Cause::TooBig { mtu }, false) => ([2, 0], mtu),
    }
}

#[cfg(test)]
mod tests {
    use super::super::write_bare;
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const ENDS: Ends = Ends { sport: 32_768, dport: 99, sender_id: 0x1234 };

    /// Our address and the peer's.
    fn hosts() -> [(IpAddr, IpAddr); 2] {
        let v6 = |n| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n));
        [(Ipv4Addr::new(10, 0, 0, 1).into(), Ipv4Addr::new(10, 0, 0, 2).into()), (v6(1), v6(2))]
    }

    /// What `peer` says of a BUSY packet that `us` sent.
    fn refusal(us: IpAddr, peer: IpAddr) -> Vec<u8> {
        let mut packet = [0; 28];
        write_bare(Kind::Busy, ENDS, &mut packet);
        let mut out = vec![0xee; MAX_REFUSAL];
        let len = write_port_unreachable(peer, us, &packet, packet.len(), &mut out);
        out.truncate(len);
        out
    }

    /// The message with other type, code and last four bytes of the header, and the checksum made right.
    fn changed(mut bytes: Vec<u8>, (us, peer): (IpAddr, IpAddr), kind: [u8; 2], word: u32) -> Vec<u8> {
        bytes[..2].copy_from_slice(&kind);
        bytes[4..8].copy_from_slice(&word.to_be_bytes());
        bytes[2..4].fill(0);
        let sum = !folded_sum(&bytes, if us.is_ipv4() { 0 } else { 58 }, &[peer, us]);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    #[test]
    fn a_refusal_names_the_packet_that_it_refuses() {
        for (us, peer) in hosts() {
            let bytes = refusal(us, peer);
            let read = IcmpError { cause: Cause::PortUnreachable, to: peer, ends: ENDS, kind: Kind::Busy, sequence: 0 };
            assert_eq!(IcmpError::parse(peer, us, &bytes), Ok(read));
            for len in 0..bytes.len() {
                assert!(IcmpError::parse(peer, us, &bytes[..len]).is_err(), "cut to {len} bytes");
            }
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 1;
                assert!(IcmpError::parse(peer, us, &bad).is_err(), "byte {at} damaged");
            }
            assert_eq!(IcmpError::parse(us, peer, &bytes), Err(WireError::NotAboutHoma), "not sent from there");
        }
    }

    #[test]
    fn codes_of_both_versions_are_told_apart() {
        let v4 = [
            ([3, 0], Some(Cause::HostUnreachable)),
            ([3, 1], Some(Cause::HostUnreachable)),
            ([3, 2], Some(Cause::ProtocolUnreachable)),
            ([3, 3], Some(Cause::PortUnreachable)),
            ([3, 4], Some(Cause::TooBig { mtu: 1400 })),
            ([3, 13], Some(Cause::HostUnreachable)),
            ([11, 0], None),
            ([8, 0], None),
        ];
        let v6 = [
            ([1, 0], Some(Cause::HostUnreachable)),
            ([1, 3], Some(Cause::HostUnreachable)),
            ([1, 4], Some(Cause::PortUnreachable)),
            ([2, 0], Some(Cause::TooBig { mtu: 1400 })),
            ([4, 1], Some(Cause::ProtocolUnreachable)),
            ([4, 0], None),
            ([3, 0], None),
            ([128, 0], None),
        ];
        for (hosts, codes) in hosts().into_iter().zip([v4, v6]) {
            for (code, cause) in codes {
                let bytes = changed(refusal(hosts.0, hosts.1), hosts, code, 1400);
                let read = IcmpError::parse(hosts.1, hosts.0, &bytes).map(|error| error.cause);
                assert_eq!(read, cause.ok_or(WireError::NotAboutHoma), "{code:?}");
            }
        }
    }

    #[test]
    fn extension_headers_in_a_quote_are_stepped_over() {
        let [_, hosts] = hosts();
        let mut bytes = refusal(hosts.0, hosts.1);
        bytes[HEADER_LEN + 6] = 60;
        bytes.splice(
            HEADER_LEN + IPV6_LEN..HEADER_LEN + IPV6_LEN,
            [IPPROTO_HOMA, 1, 0, 0, 0, 0, 0, 0].into_iter().chain([0; 8]),
        );
        let bytes = changed(bytes, hosts, [1, 4], 0);
        assert_eq!(IcmpError::parse(hosts.1, hosts.0, &bytes).map(|error| error.ends), Ok(ENDS));
    }

    #[test]
    fn a_quote_of_tcp_needs_the_mark_of_hijacked_packets() {
        for hosts in hosts() {
            let mut bytes = refusal(hosts.0, hosts.1);
            let (protocol_at, homa_at) = if hosts.0.is_ipv4() { (17, 28) } else { (14, 48) };
            bytes[protocol_at] = IPPROTO_TCP;
            let code = [bytes[0], bytes[1]];
            let hijacked = changed(bytes.clone(), hosts, code, 0);
            assert_eq!(IcmpError::parse(hosts.1, hosts.0, &hijacked).map(|error| error.ends), Ok(ENDS));
            bytes[homa_at + 13] = 0x10;
            let tcp = changed(bytes, hosts, code, 0);
            assert_eq!(IcmpError::parse(hosts.1, hosts.0, &tcp), Err(WireError::NotAboutHoma));
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let causes =
            [Cause::PortUnreachable, Cause::ProtocolUnreachable, Cause::HostUnreachable, Cause::TooBig { mtu: 1_400 }];
        for ((us, peer), cause) in hosts().into_iter().flat_map(|hosts| causes.map(|cause| (hosts, cause))) {
            let (mut packet, mut out) = ([0; 28], [0; MAX_REFUSAL]);
            write_bare(Kind::Busy, ENDS, &mut packet);
            let router = hosts().into_iter().find(|(a, _)| a.is_ipv4() == us.is_ipv4()).unwrap().0;
            let len = write_error(cause, router, peer, us, &packet, 28, &mut out);
            assert_eq!(
                IcmpError::parse(router, us, &out[..len]).map(|error| (error.cause, error.to)),
                Ok((cause, peer))
            );
        }
    }
}
