//! The bpf(2) system call, as far as an XDP program with a map of sockets, or a program for what an interface
//! receives, needs it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::check;

// linux/bpf.h, enum bpf_cmd
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
// enum bpf_map_type, bpf_prog_type, bpf_attach_type
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const ATTACH_TCX_INGRESS: u32 = 46;
/// The program takes packets of several buffers.
const PROG_HAS_FRAGS: u32 = 1 << 5;

/// What the verifier says is kept up to this length.
const LOG_LEN: usize = 1 << 14;

/// One instruction of eBPF: 8 bytes, `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(in crate::driver) struct Insn {
    pub(in crate::driver) code: u8,
    /// Destination in the low half, source in the high.
    pub(in crate::driver) registers: u8,
    pub(in crate::driver) offset: i16,
    pub(in crate::driver) immediate: i32,
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_len: u32,
    value_len: u32,
    entries: u32,
    flags: u32,
}

#[repr(C)]
struct MapUpdate {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_len: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// # Safety
///
/// `attr` must be the structure of `command`, and the pointers in it must be valid for what the command does.
unsafe fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<libc::c_int> {
    // SAFETY: `attr` is readable for its length, the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    check(result as libc::c_int)
}

/// # Safety
///
/// As [`bpf`]; the command must return a new descriptor.
unsafe fn bpf_fd<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; the descriptor is new and ours alone.
    unsafe { Ok(OwnedFd::from_raw_fd(bpf(command, attr)?)) }
}

fn number(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// A map of AF_XDP sockets by receive queue.
pub(in crate::driver) fn xsk_map(queues: u32) -> io::Result<OwnedFd> {
    let attr = MapCreate { map_type: MAP_TYPE_XSKMAP, key_len: 4, value_len: 4, entries: queues, flags: 0 };
    // SAFETY: the structure has no pointers, and the command makes a descriptor.
    unsafe { bpf_fd(MAP_CREATE, &attr) }
}

/// Has packets of `queue` go to `socket`, until that is closed.
pub(in crate::driver) fn set_xsk(map: &OwnedFd, queue: u32, socket: &OwnedFd) -> io::Result<()> {
    let value = number(socket);
    let (key, value) = (std::ptr::from_ref(&queue), std::ptr::from_ref(&value));
    let attr = MapUpdate { map: number(map), padding: 0, key: key as u64, value: value as u64, flags: 0 };
    // SAFETY: key and value are readable for four bytes, which is what this map has, and live until the call returns.
    unsafe { bpf(MAP_UPDATE_ELEM, &attr) }.map(drop)
}

/// Has the kernel verify and keep an XDP program.
///
/// # Errors
///
/// If a privilege is missing, or the verifier refuses: its last words are then part of the error.
pub(in crate::driver) fn load_xdp(program: &[Insn], has_frags: bool) -> io::Result<OwnedFd> {
    let flags = if has_frags { PROG_HAS_FRAGS } else { 0 };
    load(program, (PROG_TYPE_XDP, ATTACH_XDP), flags, *b"homa_xsk")
}

/// Has the kernel verify and keep a program for packets that an interface has received.
///
/// # Errors
///
/// As [`load_xdp`].
pub(in crate::driver) fn load_ingress(program: &[Insn]) -> io::Result<OwnedFd> {
    load(program, (PROG_TYPE_SCHED_CLS, ATTACH_TCX_INGRESS), 0, *b"homa_own")
}

fn load(program: &[Insn], (prog_type, attach_type): (u32, u32), flags: u32, short: [u8; 8]) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..8].copy_from_slice(&short);
    let mut attr = ProgLoad {
        prog_type,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_len: 0,
        log: 0,
        kernel_version: 0,
        flags,
        name,
        interface: 0,
        attach_type,
    };
    // SAFETY: the instructions are readable for their count and the licence ends with a zero; no log is asked for.
    let quiet = unsafe { bpf_fd(PROG_LOAD, &attr) };
    let Err(error) = quiet else { return quiet };
    if error.raw_os_error() != Some(libc::EACCES) && error.raw_os_error() != Some(libc::EINVAL) {
        return Err(error);
    }
    let mut log = vec![0_u8; LOG_LEN];
    (attr.log_level, attr.log_len, attr.log) = (1, LOG_LEN as u32, log.as_mut_ptr() as u64);
    // SAFETY: as above, and the log is writable for its length.
    unsafe { bpf_fd(PROG_LOAD, &attr) }.map_err(|error| {
        let end = log.iter().position(|b| *b == 0).unwrap_or(LOG_LEN);
        let text = String::from_utf8_lossy(&log[..end]);
        let last: Vec<_> = text.lines().rev().take(3).collect();
        io::Error::new(error.kind(), format!("{error}: {}", last.into_iter().rev().collect::<Vec<_>>().join("; ")))
    })
}

/// Runs `program` on the packets of an interface until the descriptor is closed, however this process ends.
/// `flags` are those of linux/if_link.h, `XDP_FLAGS_*`.
pub(in crate::driver) fn attach_xdp(program: &OwnedFd, interface: i32, flags: u32) -> io::Result<OwnedFd> {
    let interface = interface.cast_unsigned();
    let attr = LinkCreate { program: number(program), interface, attach_type: ATTACH_XDP, flags };
    // SAFETY: the structure has no pointers, and the command makes a descriptor.
    unsafe { bpf_fd(LINK_CREATE, &attr) }
}

/// Runs `program` on the packets of an interface, after packet sockets have seen them and before the kernel's network
/// code does, until the descriptor is closed, however this process ends.
pub(in crate::driver) fn attach_ingress(program: &OwnedFd, interface: i32) -> io::Result<OwnedFd> {
    let interface = interface.cast_unsigned();
    let attr = LinkCreate { program: number(program), interface, attach_type: ATTACH_TCX_INGRESS, flags: 0 };
    // SAFETY: the structure has no pointers, and the command makes a descriptor.
    unsafe { bpf_fd(LINK_CREATE, &attr) }
}
