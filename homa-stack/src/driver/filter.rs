//! Which frames the kernel gives to the stack's socket: a program of classic BPF, assembled here.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::frame::{Addrs, ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPPROTO_ICMP, IPPROTO_ICMPV6, IPV6_LEN};
use crate::wire::{HIJACK_FLAGS, HIJACK_URGENT, IPPROTO_HOMA, IPPROTO_TCP};

/// Places in frames.
const ETHERTYPE_AT: u32 = 12;
const IPV4_AT: u32 = ETHERNET_LEN as u32;
const IPV4_FRAGMENT_AT: u32 = IPV4_AT + 6;
const IPV4_PROTOCOL_AT: u32 = IPV4_AT + 9;
const IPV4_TO_AT: u32 = IPV4_AT + 16;
const IPV6_PROTOCOL_AT: u32 = IPV4_AT + 6;
const IPV6_TO_AT: u32 = IPV4_AT + 24;
const IPV6_PAYLOAD_AT: u32 = (ETHERNET_LEN + IPV6_LEN) as u32;

/// Places in what looks like a TCP header.
const FLAGS_AT: u32 = 13;
const URGENT_AT: u32 = 18;

/// Bits of an IPv4 fragment's place; zero for the first or only one.
const FRAGMENT_OFFSET: u32 = 0x1fff;

/// Types of ICMP and ICMPv6 messages about packets of ours that could not be delivered.
const ICMP_UNREACHABLE: u32 = 3;
const ICMPV6_ERRORS: [u32; 3] = [1, 2, 4];

/// Where a test goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// With the next instruction.
    Next,
    /// At a label.
    Label(&'static str),
}
use To::{Label, Next};

/// A program under construction: instructions, and where their jumps are to go.
#[derive(Default)]
struct Program {
    code: Vec<libc::sock_filter>,
    jumps: Vec<(usize, To, To)>,
    labels: Vec<(&'static str, usize)>,
}

impl Program {
    fn op(&mut self, code: u32, k: u32) -> &mut Self {
        self.code.push(libc::sock_filter { code: code as u16, jt: 0, jf: 0, k });
        self
    }

    fn label(&mut self, name: &'static str) -> &mut Self {
        self.labels.push((name, self.code.len()));
        self
    }

    /// Loads the bytes of `size` at `at`.
    fn load(&mut self, size: u32, at: u32) -> &mut Self {
        self.op(libc::BPF_LD | size | libc::BPF_ABS, at)
    }

    /// Loads the bytes of `size` at `at` after an IPv4 header whose length was noted.
    fn load_after_header(&mut self, size: u32, at: u32) -> &mut Self {
        self.op(libc::BPF_LD | size | libc::BPF_IND, IPV4_AT + at)
    }

    fn note_header_length(&mut self) -> &mut Self {
        self.op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, IPV4_AT)
    }

    fn test(&mut self, test: u32, value: u32, then: To, otherwise: To) -> &mut Self {
        self.jumps.push((self.code.len(), then, otherwise));
        self.op(libc::BPF_JMP | test | libc::BPF_K, value)
    }

    fn equal(&mut self, value: u32, then: To, otherwise: To) -> &mut Self {
        self.test(libc::BPF_JEQ, value, then, otherwise)
    }

    fn any_bit(&mut self, bits: u32, then: To, otherwise: To) -> &mut Self {
        self.test(libc::BPF_JSET, bits, then, otherwise)
    }

    fn finish(mut self) -> Vec<libc::sock_filter> {
        let place = |here: usize, to: To| match to {
            Next => 0,
            Label(name) => {
                let (_, at) = self.labels.iter().find(|(label, _)| *label == name).expect("all labels are placed");
                u8::try_from(at - here - 1).expect("jumps lead forward, not far")
            }
        };
        for &(here, then, otherwise) in &self.jumps {
            (self.code[here].jt, self.code[here].jf) = (place(here, then), place(here, otherwise));
        }
        self.code
    }
}

/// Accepts frames for one of `addrs` with a Homa packet, native (IP protocol 146) or marked as such in the guise of
/// TCP, and ICMP errors, which may be about packets of ours. Nothing else: genuine TCP is left to the kernel.
pub(super) fn homa_filter(addrs: &Addrs) -> Vec<libc::sock_filter> {
    filter(addrs, true)
}

/// As [`homa_filter`], without ICMP: the packets that are of no use to the kernel.
pub(super) fn own_filter(addrs: &Addrs) -> Vec<libc::sock_filter> {
    filter(addrs, false)
}

fn filter(addrs: &Addrs, with_icmp: bool) -> Vec<libc::sock_filter> {
    // An address that the host does not have is the unspecified one, which no packet is for.
    let v4 = addrs.v4.unwrap_or(Ipv4Addr::UNSPECIFIED).to_bits();
    let v6 = addrs.v6.unwrap_or(Ipv6Addr::UNSPECIFIED).to_bits();
    let (byte, half, word) = (libc::BPF_B, libc::BPF_H, libc::BPF_W);
    let (flags, urgent) = (u32::from(HIJACK_FLAGS), u32::from(HIJACK_URGENT));
    let drop = Label("drop");
    let mut p = Program::default();
    p.load(half, ETHERTYPE_AT).equal(ETHERTYPE_IPV4.into(), Next, Label("not ipv4"));
    p.load(byte, IPV4_PROTOCOL_AT).equal(IPPROTO_HOMA.into(), Label("ipv4 to"), Next);
    if with_icmp {
        p.equal(IPPROTO_TCP.into(), Label("ipv4 tcp"), Next).equal(IPPROTO_ICMP.into(), Next, drop);
        p.load(half, IPV4_FRAGMENT_AT).any_bit(FRAGMENT_OFFSET, drop, Next).note_header_length();
        p.load_after_header(byte, 0).equal(ICMP_UNREACHABLE, Label("ipv4 to"), drop);
    } else {
        p.equal(IPPROTO_TCP.into(), Next, drop);
    }
    p.label("ipv4 tcp").load(half, IPV4_FRAGMENT_AT).any_bit(FRAGMENT_OFFSET, drop, Next).note_header_length();
    p.load_after_header(byte, FLAGS_AT).equal(flags, Next, drop);
    p.load_after_header(half, URGENT_AT).equal(urgent, Next, drop);
    p.label("ipv4 to").load(word, IPV4_TO_AT).equal(v4, Label("accept"), drop);
    p.label("not ipv4").equal(ETHERTYPE_IPV6.into(), Next, drop);
    p.load(byte, IPV6_PROTOCOL_AT).equal(IPPROTO_HOMA.into(), Label("ipv6 to"), Next);
    if with_icmp {
        p.equal(IPPROTO_TCP.into(), Label("ipv6 tcp"), Next).equal(IPPROTO_ICMPV6.into(), Next, drop);
        p.load(byte, IPV6_PAYLOAD_AT)
            .equal(ICMPV6_ERRORS[0], Label("ipv6 to"), Next)
            .equal(ICMPV6_ERRORS[1], Label("ipv6 to"), Next)
            .equal(ICMPV6_ERRORS[2], Label("ipv6 to"), drop);
    } else {
        p.equal(IPPROTO_TCP.into(), Next, drop);
    }
    p.label("ipv6 tcp").load(byte, IPV6_PAYLOAD_AT + FLAGS_AT).equal(flags, Next, drop);
    p.load(half, IPV6_PAYLOAD_AT + URGENT_AT).equal(urgent, Next, drop);
    p.label("ipv6 to");
    for i in 0..4 {
        p.load(word, IPV6_TO_AT + 4 * i).equal((v6 >> (96 - 32 * i)) as u32, Next, drop);
    }
    p.label("accept").op(libc::BPF_RET | libc::BPF_K, u32::MAX);
    p.label("drop").op(libc::BPF_RET | libc::BPF_K, 0);
    p.finish()
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Framing, HOMA_AT, write_headers};
    use super::*;
    use crate::units::Priority;
    use crate::wire::{Ends, Kind, write_bare};
    use std::net::IpAddr;

    const US: Addrs =
        Addrs { v4: Some(Ipv4Addr::new(10, 0, 0, 2)), v6: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)) };

    /// What the kernel would make of a frame.
    fn accepts(program: &[libc::sock_filter], frame: &[u8]) -> bool {
        let (mut a, mut x, mut at) = (0_u32, 0_u32, 0);
        loop {
            let libc::sock_filter { code, jt, jf, k } = program[at];
            let code = u32::from(code);
            at += 1;
            let read = |from: u32, size: u32| {
                let n = match size {
                    libc::BPF_W => 4,
                    libc::BPF_H => 2,
                    _ => 1,
                };
                let bytes = frame.get(from as usize..from as usize + n)?;
                Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
            };
            // A load beyond the end drops the frame.
            let size = code & 0x18;
            match code & 0x07 {
                libc::BPF_RET => return k > 0,
                libc::BPF_LDX => match read(k, libc::BPF_B) {
                    Some(byte) => x = (byte & 0xf) * 4,
                    None => return false,
                },
                libc::BPF_LD => match read(if code & 0xe0 == libc::BPF_IND { x + k } else { k }, size) {
                    Some(value) => a = value,
                    None => return false,
                },
                _ => {
                    let holds = if code & 0xf0 == libc::BPF_JEQ { a == k } else { a & k != 0 };
                    at += usize::from(if holds { jt } else { jf });
                }
            }
        }
    }

    fn homa(framing: Framing, from: IpAddr, to: IpAddr) -> Vec<u8> {
        let mut buffer = vec![0; HOMA_AT + 28];
        write_bare(Kind::Busy, Ends { sport: 1, dport: 2, sender_id: 4 }, &mut buffer[HOMA_AT..]);
        let begin = write_headers(&mut buffer, ([1; 6], [2; 6]), framing, from, to, Priority::clamped(6), 28);
        buffer.split_off(begin)
    }

    /// Frames of either IP version to us.
    fn both(framing: Framing) -> [(Vec<u8>, usize); 2] {
        let v4 = homa(framing, Ipv4Addr::new(10, 0, 0, 1).into(), US.v4.unwrap().into());
        let v6 = homa(framing, Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(), US.v6.unwrap().into());
        [(v4, 34), (v6, 54)]
    }

    #[test]
    fn homa_packets_of_both_framings_are_accepted_and_nothing_else() {
        for program in [homa_filter(&US), own_filter(&US)] {
            homa_and_nothing_else(&program);
        }
    }

    fn homa_and_nothing_else(program: &[libc::sock_filter]) {
        for framing in [Framing::Native, Framing::Hijack] {
            for (frame, homa_at) in both(framing) {
                assert!(accepts(program, &frame), "{framing:?}");
                assert!(!accepts(&homa_filter(&Addrs { v4: None, v6: None }), &frame), "{framing:?}, not for us");
                for len in 0..homa_at {
                    assert!(!accepts(program, &frame[..len]), "{framing:?} cut to {len}");
                }
                // EtherType; the last byte of the address.
                for at in [13, homa_at - 1] {
                    let mut other = frame.clone();
                    other[at] ^= 1;
                    assert!(!accepts(program, &other), "{framing:?}, byte {at}");
                }
                // Each bit of the marks tells Homa from TCP, and only there do they count.
                for (at, bit) in [(13, 2), (13, 4), (13, 16), (13, 1), (13, 32), (18, 1), (19, 0x80)] {
                    let mut tcp = frame.clone();
                    tcp[homa_at + at] ^= bit;
                    assert_eq!(accepts(program, &tcp), framing == Framing::Native, "byte {at}, bit {bit}");
                }
                let mut udp = frame;
                udp[if homa_at == 34 { 23 } else { 20 }] = 17;
                assert!(!accepts(program, &udp));
            }
        }
    }

    #[test]
    fn options_of_ipv4_move_the_marks_and_fragments_have_none() {
        let program = homa_filter(&US);
        let [(mut frame, _), _] = both(Framing::Hijack);
        frame[14] = 0x46;
        frame.splice(34..34, [1, 1, 1, 0]);
        assert!(accepts(&program, &frame));
        frame[21] = 1;
        assert!(!accepts(&program, &frame), "a later fragment");
    }

    #[test]
    fn icmp_errors_are_accepted_and_other_icmp_is_not() {
        let program = homa_filter(&US);
        let [(v4, _), (v6, _)] = both(Framing::Native);
        for kind in 0..=255 {
            let (mut frame, mut frame6) = (v4.clone(), v6.clone());
            (frame[23], frame[34]) = (IPPROTO_ICMP, kind);
            assert_eq!(accepts(&program, &frame), kind == 3, "ICMP type {kind}");
            (frame6[20], frame6[54]) = (IPPROTO_ICMPV6, kind);
            assert_eq!(accepts(&program, &frame6), matches!(kind, 1 | 2 | 4), "ICMPv6 type {kind}");
            assert!(!accepts(&own_filter(&US), &frame) && !accepts(&own_filter(&US), &frame6), "the kernel's too");
        }
    }
}
