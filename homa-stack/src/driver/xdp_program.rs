//! The XDP program that picks Homa's packets out of all that an interface receives, as eBPF instructions.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use super::frame::{Addrs, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use super::sys::Insn;
use crate::wire::IPPROTO_HOMA;

// linux/bpf_common.h, linux/bpf.h
const LOAD: u8 = 0x61; // LDX | MEM, with a size:
const WORD: u8 = 0x00;
const HALF: u8 = 0x08;
const BYTE: u8 = 0x10;
const LOAD_IMMEDIATE_64: u8 = 0x18;
const PSEUDO_MAP_FD: u8 = 1;
const ADD: u8 = 0x07;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const JUMP: u8 = 0x05;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_GREATER_REGISTER: u8 = 0x2d;
/// Compares the low 32 bits.
const JUMP_NOT_EQUAL_32: u8 = 0x56;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const STORE_DOUBLE_REGISTER: u8 = 0x7b;
const KTIME_GET_NS: i32 = 5;
const REDIRECT_MAP: i32 = 51;
const ADJUST_META: i32 = 54;
/// `XDP_PASS`: to the kernel's own network code.
const PASS: i32 = 2;

// struct xdp_md
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const DATA_META: i16 = 8;
const RX_QUEUE: i16 = 16;

// Offsets in the frame; the lengths up to which a program may read are compared with the frame's end first.
const ETHERTYPE_AT: i16 = 12;
const ETHERNET_END: i32 = 14;
const V4_PROTOCOL_AT: i16 = 23;
const V4_TO_AT: i16 = 30;
const V4_END: i32 = 34;
const V6_NEXT_HEADER_AT: i16 = 20;
const V6_TO_AT: i16 = 38;
const V6_END: i32 = 54;

/// Where a jump goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    V6,
    Ours,
    Redirect,
    Pass,
}

/// Instructions in the making: jumps are filled in when their labels are known.
#[derive(Default)]
struct Assembly {
    code: Vec<Insn>,
    jumps: Vec<(usize, Label)>,
    labels: Vec<(Label, usize)>,
}

impl Assembly {
    fn put(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.code.push(Insn { code, registers: from << 4 | to, offset, immediate });
    }

    fn load(&mut self, size: u8, to: u8, from: u8, offset: i16) {
        self.put(LOAD | size, to, from, offset, 0);
    }

    fn jump(&mut self, code: u8, a: u8, b: u8, immediate: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.put(code, a, b, 0, immediate);
    }

    fn label(&mut self, label: Label) {
        self.labels.push((label, self.code.len()));
    }

    /// To `Pass` unless the frame has `len` bytes: r2 is its begin, r3 its end.
    fn need(&mut self, len: i32) {
        self.put(MOVE_REGISTER, 4, 2, 0, 0);
        self.put(ADD, 4, 0, 0, len);
        self.jump(JUMP_GREATER_REGISTER, 4, 3, 0, Label::Pass);
    }

    /// To `Pass` unless the field at `offset` of the frame is `value`, as a load would give it.
    fn expect(&mut self, size: u8, offset: i16, value: u32) {
        self.load(size, 5, 2, offset);
        self.jump(JUMP_NOT_EQUAL_32, 5, 0, value.cast_signed(), Label::Pass);
    }

    /// Leaves the monotonic time before the packet: 8 bytes of metadata, if the driver has room for them.
    fn stamp(&mut self) {
        self.put(MOVE_REGISTER, 1, 6, 0, 0);
        self.put(MOVE, 2, 0, 0, -8);
        self.put(CALL, 0, 0, 0, ADJUST_META);
        self.jump(JUMP_NOT_EQUAL_32, 0, 0, 0, Label::Redirect);
        self.put(CALL, 0, 0, 0, KTIME_GET_NS);
        self.load(WORD, 2, 6, DATA_META);
        self.load(WORD, 3, 6, DATA);
        self.put(MOVE_REGISTER, 4, 2, 0, 0);
        self.put(ADD, 4, 0, 0, 8);
        self.jump(JUMP_GREATER_REGISTER, 4, 3, 0, Label::Redirect);
        self.put(STORE_DOUBLE_REGISTER, 2, 0, 0, 0);
    }

    /// The context stays in r6; the frame's begin and end are in r2 and r3.
    fn begin(&mut self) {
        self.put(MOVE_REGISTER, 6, 1, 0, 0);
        self.load(WORD, 2, 6, DATA);
        self.load(WORD, 3, 6, DATA_END);
    }

    /// Ends with the redirection to a socket of `map`, and with what goes to `Pass`.
    fn finish(mut self, map: &OwnedFd) -> Vec<Insn> {
        self.label(Label::Redirect);
        self.load(WORD, 2, 6, RX_QUEUE);
        self.put(LOAD_IMMEDIATE_64, 1, PSEUDO_MAP_FD, 0, map.as_raw_fd());
        self.put(0, 0, 0, 0, 0);
        self.put(MOVE, 3, 0, 0, PASS);
        self.put(CALL, 0, 0, 0, REDIRECT_MAP);
        self.put(EXIT, 0, 0, 0, 0);
        self.label(Label::Pass);
        self.put(MOVE, 0, 0, 0, PASS);
        self.put(EXIT, 0, 0, 0, 0);
        for (at, label) in self.jumps {
            let (_, target) = self.labels.iter().find(|(l, _)| *l == label).expect("each label has a place");
            self.code[at].offset = (target - at - 1) as i16;
        }
        self.code
    }
}

/// Packets of IP protocol 146 for one of `addrs` go to the socket that `map` has for their receive queue; where it has
/// none, and all other packets, to the kernel. If `is_stamped`, the time in ns of the monotonic clock lies in the eight
/// bytes before each packet.
pub(super) fn homa_program(addrs: &Addrs, map: &OwnedFd, is_stamped: bool) -> Vec<Insn> {
    // An address that the host does not have is the unspecified one, which no packet is for.
    let v4 = addrs.v4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
    let v6 = addrs.v6.unwrap_or(Ipv6Addr::UNSPECIFIED).octets();
    let homa = u32::from(IPPROTO_HOMA);
    // Fields lie in network order, loads and comparisons are in the host's.
    let half = |value: u16| i32::from(value.to_be());
    let mut asm = Assembly::default();
    asm.begin();
    asm.need(V4_END);
    asm.load(HALF, 5, 2, ETHERTYPE_AT);
    asm.jump(JUMP_EQUAL, 5, 0, half(ETHERTYPE_IPV6), Label::V6);
    asm.jump(JUMP_NOT_EQUAL_32, 5, 0, half(ETHERTYPE_IPV4), Label::Pass);
    asm.expect(BYTE, V4_PROTOCOL_AT, homa);
    asm.expect(WORD, V4_TO_AT, u32::from_ne_bytes(v4));
    asm.jump(JUMP, 0, 0, 0, Label::Ours);
    asm.label(Label::V6);
    asm.need(V6_END);
    asm.expect(BYTE, V6_NEXT_HEADER_AT, homa);
    for (i, word) in v6.as_chunks::<4>().0.iter().enumerate() {
        asm.expect(WORD, V6_TO_AT + 4 * i as i16, u32::from_ne_bytes(*word));
    }
    asm.label(Label::Ours);
    if is_stamped {
        asm.stamp();
    }
    asm.finish(map)
}

/// Frames of `ethertype` go to the socket that `map` has for their receive queue; all others to the kernel.
pub(super) fn ethertype_program(ethertype: u16, map: &OwnedFd) -> Vec<Insn> {
    let mut asm = Assembly::default();
    asm.begin();
    asm.need(ETHERNET_END);
    asm.expect(HALF, ETHERTYPE_AT, ethertype.to_be().into());
    asm.finish(map)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::driver::frame::write_headers;
    use crate::driver::frame::{Framing, HOMA_AT, parse};
    use crate::driver::sys;
    use crate::units::Priority;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const A6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
    const B6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x1234, 0, 0, 0x5678, 0, 0x9abc, 2);
    const AT_B: Addrs = Addrs { v4: Some(B), v6: Some(B6) };

    const CONTEXT: u64 = 1 << 40;
    const FRAME: u64 = 1 << 20;
    const REDIRECTED: u64 = 1000;
    const QUEUE: u64 = 3;
    const NOW: u64 = 0x0102_0304_0506_0708;

    /// What the program returns for `frame`, and what it left before it. Knows just the instructions used here.
    fn run(program: &[Insn], frame: &[u8]) -> (u64, Option<u64>) {
        let (mut r, mut pc, mut metadata, mut meta_begin) = ([0_u64; 11], 0, None, FRAME);
        r[1] = CONTEXT;
        loop {
            let Insn { code, registers, offset, immediate } = program[pc];
            let (to, from) = (usize::from(registers & 15), usize::from(registers >> 4));
            let value = i64::from(immediate).cast_unsigned();
            pc += 1;
            let is_taken = match code {
                MOVE => {
                    r[to] = value;
                    false
                }
                MOVE_REGISTER => {
                    r[to] = r[from];
                    false
                }
                ADD => {
                    r[to] = r[to].wrapping_add(value);
                    false
                }
                LOAD_IMMEDIATE_64 => {
                    pc += 1;
                    false
                }
                0x61 | 0x69 | 0x71 if r[from] == CONTEXT => {
                    r[to] = match offset {
                        DATA => FRAME,
                        DATA_END => FRAME + frame.len() as u64,
                        DATA_META => meta_begin,
                        RX_QUEUE => QUEUE,
                        _ => panic!("offset {offset} of the context"),
                    };
                    false
                }
                0x61 | 0x69 | 0x71 => {
                    let at = (r[from] - FRAME) as usize + offset as usize;
                    let len = if code == LOAD | WORD {
                        4
                    } else if code == LOAD | HALF {
                        2
                    } else {
                        1
                    };
                    // Out of the frame's bounds this panics, as the verifier would refuse it.
                    let mut bytes = [0; 8];
                    bytes[..len].copy_from_slice(&frame[at..at + len]);
                    r[to] = u64::from_le_bytes(bytes);
                    false
                }
                STORE_DOUBLE_REGISTER => {
                    assert_eq!((r[to], offset), (FRAME - 8, 0));
                    metadata = Some(r[from]);
                    false
                }
                CALL => {
                    r[0] = match immediate {
                        ADJUST_META => {
                            meta_begin = FRAME.wrapping_add(r[2]);
                            0
                        }
                        KTIME_GET_NS => NOW,
                        REDIRECT_MAP => {
                            assert_eq!((r[2], r[3]), (QUEUE, PASS as u64));
                            REDIRECTED
                        }
                        _ => panic!("function {immediate}"),
                    };
                    false
                }
                JUMP => true,
                JUMP_EQUAL => r[to] == value,
                JUMP_NOT_EQUAL_32 => r[to] as u32 != value as u32,
                JUMP_GREATER_REGISTER => r[to] > r[from],
                EXIT => return (r[0], metadata),
                _ => panic!("instruction {code:#x}"),
            };
            if is_taken {
                pc = (pc as i64 + i64::from(offset)) as usize;
            }
        }
    }

    fn programs(addrs: &Addrs) -> [Vec<Insn>; 2] {
        let map = sys::eventfd().unwrap();
        [false, true].map(|is_stamped| homa_program(addrs, &map, is_stamped))
    }

    fn frame(from: IpAddr, to: IpAddr) -> Vec<u8> {
        let mut buffer = vec![0; HOMA_AT + 28];
        let begin = write_headers(&mut buffer, ([1; 6], [2; 6]), Framing::Native, from, to, Priority::clamped(6), 28);
        buffer.split_off(begin)
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn homa_packets_for_us_are_redirected_and_stamped() {
        let [plain, stamped] = programs(&AT_B);
        for packet in [frame(A, B.into()), frame(A6, B6.into())] {
            assert!(parse(&packet, &AT_B).is_ok());
            assert_eq!(run(&plain, &packet), (REDIRECTED, None));
            assert_eq!(run(&stamped, &packet), (REDIRECTED, Some(NOW)));
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn all_else_goes_to_the_kernel() {
        let pass = (PASS as u64, None);
        for program in programs(&AT_B) {
            for packet in [frame(A, B.into()), frame(A6, B6.into())] {
                // No length reads out of bounds, and short frames are the kernel's.
                let header = packet.len() - 28;
                (0..header).for_each(|len| assert_eq!(run(&program, &packet[..len]), pass, "{len} bytes"));
                // EtherType, protocol, and each byte of the destination.
                let protocol = if header == 34 { 23 } else { 20 };
                let destination = if header == 34 { 30..34 } else { 38..54 };
                for at in [12, 13, protocol].into_iter().chain(destination) {
                    let mut other = packet.clone();
                    other[at] ^= 1;
                    assert_eq!(run(&program, &other), pass, "byte {at}");
                }
            }
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn frames_of_one_ethertype_are_redirected() {
        let program = ethertype_program(ETHERTYPE_IPV6, &sys::eventfd().unwrap());
        assert_eq!(run(&program, &frame(A6, B6.into())), (REDIRECTED, None));
        assert_eq!(run(&program, &frame(A6, B6.into())[..14]), (REDIRECTED, None));
        assert_eq!(run(&program, &frame(A6, B6.into())[..13]), (PASS as u64, None));
        assert_eq!(run(&program, &frame(A, B.into())), (PASS as u64, None));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_host_without_an_address_of_a_version_gets_none_of_its_packets() {
        for program in programs(&Addrs { v4: None, v6: Some(B6) }) {
            assert_eq!(run(&program, &frame(A, B.into())).0, PASS as u64);
        }
        for program in programs(&Addrs { v4: Some(B), v6: None }) {
            assert_eq!(run(&program, &frame(A6, B6.into())).0, PASS as u64);
        }
    }
}
