//! Ethernet and IP headers around Homa packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::sys::Mac;
use crate::device::{Content, Rx};
use crate::metrics::DropReason;
use crate::units::Priority;
use crate::wire::{IPPROTO_HOMA, IPPROTO_TCP, is_hijacked};

pub(super) const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
pub(super) const IPV6_LEN: usize = 40;
pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Where a Homa packet is written in a buffer, so that the headers of either IP version fit before it.
pub(super) const HOMA_AT: usize = ETHERNET_LEN + IPV6_LEN;

pub(super) const IPPROTO_ICMP: u8 = 1;
pub(super) const IPPROTO_ICMPV6: u8 = 58;

/// How Homa packets go over the network. Packets that come in are taken in either form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// By IP protocol 146, Homa's own.
    #[default]
    Native,
    /// In the guise of TCP segments that no TCP would take: network cards then spread them over receive queues and
    /// cut them from larger ones, as they do with TCP. Stateful firewalls may drop them (homa-protocol.md 1.6).
    Hijack,
}

impl Framing {
    /// The protocol number in the IP header.
    const fn protocol(self) -> u8 {
        match self {
            Self::Native => IPPROTO_HOMA,
            Self::Hijack => IPPROTO_TCP,
        }
    }
}

const DONT_FRAGMENT: u16 = 0x4000;
const FRAGMENT_BITS: u16 = 0x3fff;
const TTL: u8 = 64;

/// The addresses that this host has on its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addrs {
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
}

impl Addrs {
    /// The source address for packets to `to`.
    pub(super) fn source_for(&self, to: IpAddr) -> Option<IpAddr> {
        match to {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }

    /// The addresses to go on with when the interface has `all`, of which `preferred` would be chosen anew: those in
    /// use as long as they are there, and while there is no other.
    pub(super) fn followed_by(&self, all: &[IpAddr], preferred: Self) -> Self {
        let v4 = self.v4.filter(|a| all.contains(&IpAddr::V4(*a))).or(preferred.v4).or(self.v4);
        let v6 = self.v6.filter(|a| all.contains(&IpAddr::V6(*a))).or(preferred.v6).or(self.v6);
        Self { v4, v6 }
    }

    /// The address that stands for the host: that of IPv4 if it has one.
    pub(super) fn main(&self) -> Option<IpAddr> {
        self.v4.map(IpAddr::V4).or(self.v6.map(IpAddr::V6))
    }
}

/// Writes the Ethernet header to the start of `frame`.
pub(super) fn write_ethernet(frame: &mut [u8], to: Mac, from: Mac, ethertype: u16) {
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
}

/// Writes Ethernet and IP header before the `len` bytes of Homa packet at [`HOMA_AT`]; returns where the frame begins.
/// The priority goes into the precedence bits or the top of the traffic class (homa-protocol.md 1.1).
///
/// # Panics
///
/// If `from` and `to` are of different IP versions: the caller chose `from` for `to`.
pub(super) fn write_headers(
    buffer: &mut [u8],
    macs: (Mac, Mac),
    framing: Framing,
    from: IpAddr,
    to: IpAddr,
    priority: Priority,
    len: usize,
) -> usize {
    write_for(buffer, macs, framing.protocol(), from, to, priority, len)
}

/// As [`write_headers`], for `len` bytes of ICMP message at [`HOMA_AT`].
pub(super) fn write_icmp_headers(buffer: &mut [u8], macs: (Mac, Mac), from: IpAddr, to: IpAddr, len: usize) -> usize {
    let protocol = if to.is_ipv4() { IPPROTO_ICMP } else { IPPROTO_ICMPV6 };
    write_for(buffer, macs, protocol, from, to, Priority::clamped(0), len)
}

fn write_for(
    buffer: &mut [u8],
    macs: (Mac, Mac),
    protocol: u8,
    from: IpAddr,
    to: IpAddr,
    priority: Priority,
    len: usize,
) -> usize {
    let (begin, ethertype) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let at = HOMA_AT - IPV4_LEN;
            write_ipv4(&mut buffer[at..HOMA_AT], from, to, protocol, priority, len);
            (at - ETHERNET_LEN, ETHERTYPE_IPV4)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            write_ipv6(&mut buffer[ETHERNET_LEN..HOMA_AT], from, to, protocol, priority, len);
            (0, ETHERTYPE_IPV6)
        }
        _ => unreachable!("the source address is chosen for its destination"),
    };
    write_ethernet(&mut buffer[begin..], macs.0, macs.1, ethertype);
    begin
}

/// Changes the length of the packet to `to` whose headers are in `buffer` to `len` bytes after the IP header.
pub(super) fn set_length(buffer: &mut [u8], to: IpAddr, len: usize) {
    if to.is_ipv4() {
        let ip = &mut buffer[HOMA_AT - IPV4_LEN..HOMA_AT];
        ip[2..4].copy_from_slice(&((IPV4_LEN + len) as u16).to_be_bytes());
        ip[10..12].fill(0);
        let sum = !sum_words(ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        buffer[ETHERNET_LEN + 4..ETHERNET_LEN + 6].copy_from_slice(&(len as u16).to_be_bytes());
    }
}

fn write_ipv4(ip: &mut [u8], from: Ipv4Addr, to: Ipv4Addr, protocol: u8, priority: Priority, len: usize) {
    let total = (IPV4_LEN + len) as u16;
    ip[0] = 0x45;
    ip[1] = priority.get() << 5;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[4..6].fill(0);
    ip[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
    ip[8] = TTL;
    ip[9] = protocol;
    ip[10..12].fill(0);
    ip[12..16].copy_from_slice(&from.octets());
    ip[16..20].copy_from_slice(&to.octets());
    let sum = !sum_words(ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn write_ipv6(ip: &mut [u8], from: Ipv6Addr, to: Ipv6Addr, protocol: u8, priority: Priority, len: usize) {
    let class = u32::from(priority.get() << 5);
    ip[..4].copy_from_slice(&(6 << 28 | class << 20).to_be_bytes());
    ip[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    ip[6] = protocol;
    ip[7] = TTL;
    ip[8..24].copy_from_slice(&from.octets());
    ip[24..40].copy_from_slice(&to.octets());
}

/// A packet for the stack in a frame: source, priority, IP payload with Ethernet padding trimmed.
///
/// # Errors
///
/// [`DropReason::BadIp`] for what the kernel's own IP input would not take; [`DropReason::Truncated`] if `bytes` is
/// shorter than the packet.
pub(super) fn parse<'a>(bytes: &'a [u8], us: &Addrs) -> Result<Rx<'a>, DropReason> {
    let ip = bytes.get(ETHERNET_LEN..).ok_or(DropReason::BadIp)?;
    match u16::from_be_bytes([bytes[12], bytes[13]]) {
        ETHERTYPE_IPV4 => parse_ipv4(ip, us.v4.ok_or(DropReason::BadIp)?),
        ETHERTYPE_IPV6 => parse_ipv6(ip, us.v6.ok_or(DropReason::BadIp)?),
        _ => Err(DropReason::BadIp),
    }
}

fn parse_ipv4(ip: &[u8], us: Ipv4Addr) -> Result<Rx<'_>, DropReason> {
    let header = ip.first_chunk::<IPV4_LEN>().ok_or(DropReason::BadIp)?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let header_len = usize::from(header[0] & 0xf) * 4;
    let total = usize::from(word(2));
    let ours = header[16..20] == us.octets();
    let is_plain = header[0] >> 4 == 4 && header_len >= IPV4_LEN && total >= header_len;
    if !is_plain || !ours || word(6) & FRAGMENT_BITS != 0 {
        return Err(DropReason::BadIp);
    }
    let options = ip.get(..header_len).ok_or(DropReason::Truncated)?;
    if sum_words(options) != 0xffff {
        return Err(DropReason::BadIp);
    }
    let bytes = ip.get(header_len..total).ok_or(DropReason::Truncated)?;
    let from = IpAddr::from([header[12], header[13], header[14], header[15]]);
    let content = content(header[9], IPPROTO_ICMP, us.into(), bytes)?;
    Ok(Rx { from, priority: header[1] >> 5, content, bytes, wait: None })
}

/// Extension headers are not followed: Homa senders generate none.
fn parse_ipv6(ip: &[u8], us: Ipv6Addr) -> Result<Rx<'_>, DropReason> {
    let header = ip.first_chunk::<IPV6_LEN>().ok_or(DropReason::BadIp)?;
    let first = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    if first >> 28 != 6 || header[24..40] != us.octets() {
        return Err(DropReason::BadIp);
    }
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let bytes = ip.get(IPV6_LEN..IPV6_LEN + len).ok_or(DropReason::Truncated)?;
    let from = IpAddr::from(std::array::from_fn::<u8, 16, _>(|i| header[8 + i]));
    let content = content(header[6], IPPROTO_ICMPV6, us.into(), bytes)?;
    Ok(Rx { from, priority: (first >> 25 & 7) as u8, content, bytes, wait: None })
}

/// What a packet to `us` with IP protocol `protocol` and payload `bytes` is; `icmp` is ICMP's number.
fn content(protocol: u8, icmp: u8, us: IpAddr, bytes: &[u8]) -> Result<Content, DropReason> {
    match protocol {
        IPPROTO_HOMA => Ok(Content::Homa),
        IPPROTO_TCP if is_hijacked(bytes) => Ok(Content::Homa),
        _ if protocol == icmp => Ok(Content::Icmp { to: us }),
        _ => Err(DropReason::BadIp),
    }
}

/// One's-complement sum of an IP header, whose length is even.
fn sum_words(header: &[u8]) -> u16 {
    let (words, _) = header.as_chunks::<2>();
    let sum: u32 = words.iter().map(|w| u32::from(u16::from_be_bytes(*w))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Ends, Kind, write_bare};

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const A6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const B6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
    const AT_B: Addrs = Addrs { v4: Some(B), v6: Some(B6) };

    fn frame(framing: Framing, from: IpAddr, to: IpAddr, len: usize) -> Vec<u8> {
        let mut buffer = vec![0xee; HOMA_AT + len.max(28)];
        write_bare(Kind::Busy, Ends { sport: 1, dport: 2, sender_id: 4 }, &mut buffer[HOMA_AT..]);
        buffer.truncate(HOMA_AT + len);
        let begin = write_headers(&mut buffer, ([1; 6], [2; 6]), framing, from, to, Priority::clamped(6), len);
        buffer.split_off(begin)
    }

    fn v4(len: usize) -> Vec<u8> {
        frame(Framing::Native, A.into(), B.into(), len)
    }

    fn v6(len: usize) -> Vec<u8> {
        frame(Framing::Native, A6.into(), B6.into(), len)
    }

    fn homa(from: IpAddr, bytes: &[u8]) -> Rx<'_> {
        Rx { from, priority: 6, content: Content::Homa, bytes, wait: None }
    }

    #[test]
    fn the_ip_header_is_that_of_the_specification() {
        // homa-protocol.md 1.11, the header before the first DATA packet.
        let expected =
            [0x45, 0xc0, 0x00, 0x5c, 0x00, 0x00, 0x40, 0x00, 0x40, 0x92, 0x25, 0x4e, 10, 0, 0, 1, 10, 0, 0, 2];
        assert_eq!(v4(72)[ETHERNET_LEN..ETHERNET_LEN + IPV4_LEN], expected);
        // Version 6, class priority << 5, no flow label; length; next header and hop limit.
        assert_eq!(v6(72)[ETHERNET_LEN..ETHERNET_LEN + 8], [0x6c, 0, 0, 0, 0, 72, 146, 64]);
    }

    #[test]
    fn both_ip_versions_are_read_back_and_padding_is_trimmed() {
        for (mut padded, from, header) in [(v4(28), IpAddr::from(A), IPV4_LEN), (v6(28), A6.into(), IPV6_LEN)] {
            padded.extend([0; 18]);
            let at = ETHERNET_LEN + header;
            assert_eq!(parse(&padded, &AT_B), Ok(homa(from, &padded[at..at + 28])));
            assert_eq!(parse(&padded[..at + 20], &AT_B), Err(DropReason::Truncated));
            for len in 0..at {
                assert!(parse(&padded[..len], &AT_B).is_err());
            }
        }
    }

    #[test]
    fn packets_that_are_not_for_us_or_not_whole_are_refused() {
        let at_a = Addrs { v4: Some(A), v6: Some(A6) };
        let nowhere = Addrs { v4: None, v6: None };
        for packet in [v4(28), v6(28)] {
            assert_eq!(parse(&packet, &at_a), Err(DropReason::BadIp));
            assert_eq!(parse(&packet, &nowhere), Err(DropReason::BadIp));
        }
        for (at, bit) in [(14, 0x10), (20, 0x20), (21, 1), (23, 1), (22, 1), (24, 1), (13, 1)] {
            let mut bad = v4(28);
            bad[at] ^= bit;
            assert_eq!(parse(&bad, &AT_B), Err(DropReason::BadIp), "byte {at}");
        }
        for (at, bit) in [(14, 0x10), (20, 1)] {
            let mut bad = v6(28);
            bad[at] ^= bit;
            assert_eq!(parse(&bad, &AT_B), Err(DropReason::BadIp), "byte {at}");
        }
    }

    #[test]
    fn a_hijacked_packet_differs_in_the_protocol_number_and_tcp_is_not_taken_for_one() {
        for (native, (hijacked, protocol_at)) in [
            (v4(28), (frame(Framing::Hijack, A.into(), B.into(), 28), 23)),
            (v6(28), (frame(Framing::Hijack, A6.into(), B6.into(), 28), 20)),
        ] {
            let (a, b) = (parse(&native, &AT_B).unwrap(), parse(&hijacked, &AT_B).unwrap());
            assert_eq!(a, b);
            assert_eq!((native[protocol_at], hijacked[protocol_at]), (146, 6));
            for (at, bit) in [(13, 2), (13, 4), (13, 16), (18, 1), (19, 1)] {
                let mut tcp = hijacked.clone();
                let homa_at = tcp.len() - 28;
                tcp[homa_at + at] ^= bit;
                assert_eq!(parse(&tcp, &AT_B), Err(DropReason::BadIp), "byte {at}");
            }
        }
    }

    #[test]
    fn icmp_is_told_apart_by_its_number_in_either_ip_version() {
        let (mut packet, mut packet6) = (v4(28), v6(28));
        packet6[20] = IPPROTO_ICMPV6;
        assert_eq!(parse(&packet6, &AT_B).unwrap().content, Content::Icmp { to: B6.into() });
        packet6[20] = IPPROTO_ICMP;
        assert_eq!(parse(&packet6, &AT_B), Err(DropReason::BadIp));
        packet[23] = IPPROTO_ICMP;
        packet[24..26].fill(0);
        let sum = !sum_words(&packet[14..34]);
        packet[24..26].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(parse(&packet, &AT_B).unwrap().content, Content::Icmp { to: B.into() });
    }

    #[test]
    fn a_changed_length_leaves_a_right_header() {
        for (from, to, us) in [(IpAddr::from(A), IpAddr::from(B), IPV4_LEN), (A6.into(), B6.into(), IPV6_LEN)] {
            let mut buffer = vec![0; HOMA_AT + 100];
            let begin =
                write_headers(&mut buffer, ([1; 6], [2; 6]), Framing::Native, from, to, Priority::clamped(6), 100);
            set_length(&mut buffer, to, 60);
            let frame = &buffer[begin..];
            assert_eq!(parse(frame, &AT_B), Ok(homa(from, &frame[ETHERNET_LEN + us..][..60])));
        }
    }

    #[test]
    fn icmp_goes_out_with_its_own_protocol_number() {
        for (from, to) in [(IpAddr::from(A), IpAddr::from(B)), (A6.into(), B6.into())] {
            let mut buffer = vec![0; HOMA_AT + 36];
            let begin = write_icmp_headers(&mut buffer, ([1; 6], [2; 6]), from, to, 36);
            assert_eq!(parse(&buffer[begin..], &AT_B).unwrap().content, Content::Icmp { to });
        }
    }
}
