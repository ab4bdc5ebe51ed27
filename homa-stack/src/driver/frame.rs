//! Ethernet and IP headers around Homa packets.

use std::net::{IpAddr, Ipv4Addr};

use super::sys::Mac;
use crate::metrics::DropReason;
use crate::units::Priority;
use crate::wire::IPPROTO_HOMA;

pub(super) const ETHERNET_LEN: usize = 14;
pub(super) const IPV4_LEN: usize = 20;
pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;

/// Where a Homa packet begins in an IPv4 frame.
pub(super) const HOMA_AT: usize = ETHERNET_LEN + IPV4_LEN;

const DONT_FRAGMENT: u16 = 0x4000;
const FRAGMENT_BITS: u16 = 0x3fff;
const TTL: u8 = 64;

/// Writes the Ethernet header to the start of `frame`.
pub(super) fn write_ethernet(frame: &mut [u8], to: Mac, from: Mac, ethertype: u16) {
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
}

/// Writes the IPv4 header for `len` bytes of Homa packet behind the Ethernet header. The priority goes into the
/// precedence bits (homa-protocol.md 1.1).
pub(super) fn write_ipv4(frame: &mut [u8], from: Ipv4Addr, to: Ipv4Addr, priority: Priority, len: usize) {
    let total = (IPV4_LEN + len) as u16;
    let ip = &mut frame[ETHERNET_LEN..HOMA_AT];
    ip[0] = 0x45;
    ip[1] = priority.get() << 5;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[4..6].fill(0);
    ip[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
    ip[8] = TTL;
    ip[9] = IPPROTO_HOMA;
    ip[10..12].fill(0);
    ip[12..16].copy_from_slice(&from.octets());
    ip[16..20].copy_from_slice(&to.octets());
    let sum = !sum_words(ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A Homa packet in a frame: source, priority, IP payload with Ethernet padding trimmed.
///
/// # Errors
///
/// [`DropReason::BadIp`] for what the kernel's own IP input would not take; [`DropReason::Truncated`] if `bytes` is
/// shorter than the packet.
pub(super) fn parse(bytes: &[u8], us: Ipv4Addr) -> Result<(IpAddr, u8, &[u8]), DropReason> {
    let ip = bytes.get(ETHERNET_LEN..).ok_or(DropReason::BadIp)?;
    let header = ip.first_chunk::<IPV4_LEN>().ok_or(DropReason::BadIp)?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let header_len = usize::from(header[0] & 0xf) * 4;
    let total = usize::from(word(2));
    let ours = header[16..20] == us.octets();
    let is_plain = header[0] >> 4 == 4 && header_len >= IPV4_LEN && total >= header_len;
    if !is_plain || !ours || header[9] != IPPROTO_HOMA || word(6) & FRAGMENT_BITS != 0 {
        return Err(DropReason::BadIp);
    }
    let options = ip.get(..header_len).ok_or(DropReason::Truncated)?;
    if sum_words(options) != 0xffff {
        return Err(DropReason::BadIp);
    }
    let payload = ip.get(header_len..total).ok_or(DropReason::Truncated)?;
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    Ok((source.into(), header[1] >> 5, payload))
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

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn frame(len: usize) -> Vec<u8> {
        let mut frame = vec![0xee; HOMA_AT + len];
        write_ethernet(&mut frame, [1; 6], [2; 6], ETHERTYPE_IPV4);
        write_ipv4(&mut frame, A, B, Priority::clamped(6), len);
        frame
    }

    #[test]
    fn the_ip_header_is_that_of_the_specification() {
        // homa-protocol.md 1.11, the header before the first DATA packet.
        let expected =
            [0x45, 0xc0, 0x00, 0x5c, 0x00, 0x00, 0x40, 0x00, 0x40, 0x92, 0x25, 0x4e, 10, 0, 0, 1, 10, 0, 0, 2];
        assert_eq!(frame(72)[ETHERNET_LEN..HOMA_AT], expected);
    }

    #[test]
    fn padding_is_trimmed_and_cut_frames_are_told_apart_from_bad_ones() {
        let mut padded = frame(28);
        padded.extend([0; 18]);
        assert_eq!(parse(&padded, B), Ok((A.into(), 6, &padded[HOMA_AT..HOMA_AT + 28])));
        assert_eq!(parse(&frame(28)[..50], B), Err(DropReason::Truncated));
        for len in 0..HOMA_AT {
            assert!(parse(&frame(28)[..len], B).is_err());
        }
        assert_eq!(parse(&frame(28), A), Err(DropReason::BadIp), "not for us");
        for (at, bit) in [(14, 0x10), (20, 0x20), (21, 1), (23, 1), (22, 1), (24, 1)] {
            let mut bad = frame(28);
            bad[at] ^= bit;
            assert_eq!(parse(&bad, B), Err(DropReason::BadIp), "byte {at}");
        }
    }
}
