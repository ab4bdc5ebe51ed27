//! Has the kernel give each packet to the worker that it belongs to: PACKET_FANOUT with a classic BPF program that
//! follows the rule of [`Shard`](crate::proto::Shard).
//!
//! The program does not look at the protocol or the type of a packet: what is no Homa packet each socket's own filter
//! drops, and what is for all workers is handed on by the one that gets it.

use std::io;
use std::os::fd::OwnedFd;

use libc::{
    BPF_ABS, BPF_ALU, BPF_B, BPF_IMM, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MOD, BPF_MSH, BPF_RET,
    BPF_RSH, BPF_W, sock_filter,
};

use super::sys;

// linux/if_packet.h
const PACKET_FANOUT: i32 = 18;
const PACKET_FANOUT_DATA: i32 = 22;
const FANOUT_CBPF: i32 = 6;
const FLAG_UNIQUEID: i32 = 0x2000;
const FLAG_IGNORE_OUTGOING: i32 = 0x4000;

/// BPF_A, which the `libc` crate does not have: the accumulator is what is returned.
const BPF_A: u32 = 0x10;

/// Joins packet sockets, which must be bound alike, so that each packet goes to one of them; the first is that of
/// worker 0, and so on.
///
/// # Errors
///
/// Those of the system: `EINVAL` from kernels before 5.10.
pub(super) fn join(sockets: &[&OwnedFd]) -> io::Result<()> {
    let Some((first, others)) = sockets.split_first() else { return Ok(()) };
    let kind = (FANOUT_CBPF | FLAG_IGNORE_OUTGOING) << 16;
    sys::set_option(first, libc::SOL_PACKET, PACKET_FANOUT, &(kind | FLAG_UNIQUEID << 16))?;
    let group = sys::int_option(first, libc::SOL_PACKET, PACKET_FANOUT)? & 0xffff;
    let count = u32::try_from(sockets.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    sys::set_program(first, libc::SOL_PACKET, PACKET_FANOUT_DATA, &program(count))?;
    others.iter().try_for_each(|fd| sys::set_option(fd, libc::SOL_PACKET, PACKET_FANOUT, &(kind | group)))
}

/// The program for `count` workers. It sees packets from their IP header on.
fn program(count: u32) -> [sock_filter; 9] {
    const LOW_ID_AT: u32 = 24;
    let shift = |bits| op(BPF_ALU | BPF_RSH | BPF_K, bits);
    [
        op(BPF_LD | BPF_B | BPF_ABS, 0),
        shift(4),
        // The length of the IP header to X: of IPv4 as it says, of IPv6 always the same.
        op(BPF_LDX | BPF_B | BPF_MSH, 0),
        sock_filter { code: (BPF_JMP | BPF_JEQ | BPF_K) as u16, jt: 1, jf: 0, k: 4 },
        op(BPF_LDX | BPF_W | BPF_IMM, 40),
        op(BPF_LD | BPF_W | BPF_IND, LOW_ID_AT),
        shift(1),
        op(BPF_ALU | BPF_MOD | BPF_K, count),
        op(BPF_RET | BPF_A, 0),
    ]
}

const fn op(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::frame::{ETHERNET_LEN, Framing, HOMA_AT, write_headers};
    use crate::proto::{Shard, Target};
    use crate::units::{Priority, RpcId};
    use crate::wire::{Ack, ends};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    /// What classic BPF does with `packet`, as far as the program uses it. A load from beyond the end ends it with 0.
    fn run(program: &[sock_filter], packet: &[u8]) -> u32 {
        let (mut a, mut x, mut at) = (0_u32, 0_u32, 0);
        let byte = |at: u32| packet.get(at as usize).copied();
        let word = |at: u32| packet.get(at as usize..)?.first_chunk().map(|b| u32::from_be_bytes(*b));
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let loaded = match u32::from(code) {
                c if c == BPF_LD | BPF_B | BPF_ABS => byte(k).map(u32::from),
                c if c == BPF_LD | BPF_W | BPF_ABS => word(k),
                c if c == BPF_LD | BPF_W | BPF_IND => word(k.wrapping_add(x)),
                _ => Some(a),
            };
            let Some(value) = loaded else { return 0 };
            a = value;
            match u32::from(code) {
                c if c & 7 == BPF_LD => {}
                c if c == BPF_LDX | BPF_B | BPF_MSH => {
                    let Some(first) = byte(k) else { return 0 };
                    x = u32::from(first & 15) * 4;
                }
                c if c == BPF_LDX | BPF_W | BPF_IMM => x = k,
                c if c == BPF_ALU | BPF_RSH | BPF_K => a >>= k,
                c if c == BPF_ALU | BPF_MOD | BPF_K => a %= k,
                c if c == BPF_JMP | BPF_JEQ | BPF_K => at += usize::from(if a == k { jt } else { jf }),
                c if c == BPF_RET | BPF_A => return a,
                c => panic!("no such instruction: {c:#x}"),
            }
        }
    }

    /// A packet from its IP header on; of IPv4 with `options` words of them.
    fn packet(from: IpAddr, sender_id: u64, options: u8) -> Vec<u8> {
        let to: IpAddr = if from.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let mut buffer = vec![0; HOMA_AT + 80];
        let len = Ack::new(&[]).write(ends(1, 2, RpcId::local(sender_id)), &mut buffer[HOMA_AT..]);
        let begin =
            write_headers(&mut buffer, ([1; 6], [2; 6]), Framing::default(), from, to, Priority::default(), len);
        let mut ip = buffer.split_off(begin + ETHERNET_LEN);
        if from.is_ipv4() {
            ip[0] += options;
            ip.splice(20..20, vec![0; usize::from(options) * 4]);
        }
        ip
    }

    #[test]
    fn the_kernels_steering_and_the_endpoints_agree() {
        let v6 = |n: u16| IpAddr::from(Ipv6Addr::new(0xfd00, 7, n, 1, 2, n.wrapping_mul(77), 3, n));
        let addrs = (0..40).flat_map(|n| [Ipv4Addr::new(10, n, 77, n * 6).into(), v6(u16::from(n) * 991)]);
        let mut counts = [0; 5];
        for (n, from) in addrs.enumerate() {
            for count in 1..=5 {
                for sender_id in (0..40).map(|i| 0xffff_fff0 + (n as u64) * 0x1_0000_0001 + i) {
                    let ip = packet(from, sender_id, (n % 3) as u8);
                    let homa = &ip[ip.len() - 80..];
                    let chosen = run(&program(count), &ip);
                    let shard = Shard::new(0, count).unwrap();
                    assert_eq!(shard.of_packet(homa), Target::One(chosen), "{from}, {sender_id}, {count}");
                    counts[chosen as usize] += 1;
                }
            }
        }
        assert!(counts.iter().all(|c| *c > 500), "each worker gets its share: {counts:?}");
    }

    #[test]
    fn packets_that_are_cut_off_go_to_the_first() {
        for from in [IpAddr::from(Ipv4Addr::new(10, 0, 0, 9)), Ipv6Addr::LOCALHOST.into()] {
            let ip = packet(from, 5, 0);
            for len in 0..ip.len() - 80 + 28 {
                assert_eq!(run(&program(4), &ip[..len]), 0, "{len} bytes");
            }
            assert_eq!(run(&program(4), &ip[..ip.len() - 80 + 28]), 2);
        }
    }
}
