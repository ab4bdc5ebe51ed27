//! System calls and memory shared with the kernel: the only place with `unsafe` code, all behind safe functions.
#![expect(unsafe_code, reason = "system calls and memory that the kernel writes to")]

mod bpf;
mod ethtool;
mod privileges;
mod ring;
mod xsk;
mod xsk_ring;

use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

pub(super) use bpf::{Insn, attach_ingress, attach_xdp, load_ingress, load_xdp, set_xsk, xsk_map};
pub(super) use ethtool::{driver_name, rx_queues};
pub(super) use privileges::drop_all as drop_all_privileges;
pub(super) use ring::RxRing;
pub(super) use xsk::{Xsk, XskShape};

/// A MAC address.
pub(super) type Mac = [u8; 6];

/// A network interface of this network namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: i32,
    pub(super) is_up: bool,
    pub(super) is_loopback: bool,
    pub(super) mac: Option<Mac>,
    pub(super) addrs: Vec<IpAddr>,
}

/// Turns -1 into the error of the call that returned it.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A socket; closed on exec.
pub(super) fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; the descriptor is new and ours alone.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol))?)) }
}

/// Sets a socket option to the bytes of `value`, a plain C value.
pub(super) fn set_option<T: Copy>(fd: &OwnedFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is readable for `len` bytes, and the kernel only reads it.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) }).map(drop)
}

/// A socket option that is an `int`.
pub(super) fn int_option(fd: &OwnedFd, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` is writable for `len` bytes.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) })?;
    Ok(value)
}

/// Packets received and dropped by a packet socket since the last call.
pub(super) fn packet_statistics(fd: &OwnedFd) -> io::Result<(u32, u32)> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    let (level, name) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
    // SAFETY: `stats` is writable for `len` bytes and valid whatever the kernel writes.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut stats).cast(), &raw mut len) })?;
    Ok((stats.tp_packets, stats.tp_drops))
}

/// Has the kernel run `program`, classic BPF, on each packet before `fd` gets it.
pub(super) fn attach_filter(fd: &OwnedFd, program: &[libc::sock_filter]) -> io::Result<()> {
    set_program(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program)
}

/// Sets a socket option to a classic BPF program.
pub(super) fn set_program(fd: &OwnedFd, level: i32, name: i32, program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    set_option(fd, level, name, &fprog)
}

/// Binds a packet socket to an interface and an EtherType.
pub(super) fn bind_packet(fd: &OwnedFd, index: i32, ethertype: u16) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sockaddr_ll`.
    let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    addr.sll_family = libc::AF_PACKET as u16;
    addr.sll_protocol = ethertype.to_be();
    addr.sll_ifindex = index;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `addr` is readable for `len` bytes.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len) }).map(drop)
}

/// Has a netlink socket hear of the multicast groups whose bits are set in `groups`.
pub(super) fn bind_netlink(fd: &OwnedFd, groups: u32) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sockaddr_nl`.
    let mut addr: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    addr.nl_family = libc::AF_NETLINK as u16;
    addr.nl_groups = groups;
    let len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // SAFETY: `addr` is readable for `len` bytes.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len) }).map(drop)
}

/// Sends `bytes` without blocking.
pub(super) fn send(fd: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `bytes` is readable for its length.
    let sent = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Asks for all of `value`'s own bytes, which a system call may have driven out of the nearest cache.
#[inline]
pub(super) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of::<T>()).step_by(64) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let at = (&raw const *value).cast::<i8>().wrapping_add(line);
        // SAFETY: a prefetch reads nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Sends the bytes of `parts`, one after the other, without blocking.
pub(super) fn send_parts(fd: &OwnedFd, parts: [&[u8]; 4]) -> io::Result<()> {
    let mut pieces = parts.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    // SAFETY: all-zero bytes are a valid `msghdr`: no name, no pieces, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = pieces.len() as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the message names the pieces, which are readable for their lengths; the kernel only reads them.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has a socket's buffer hold `bytes` by option `force`, for the privileged, or as far as option `plain` goes.
pub(super) fn set_buffer(fd: &OwnedFd, force: libc::c_int, plain: libc::c_int, bytes: i32) {
    if set_option(fd, libc::SOL_SOCKET, force, &bytes).is_err() {
        set_option(fd, libc::SOL_SOCKET, plain, &bytes).ok();
    }
}

/// Receives into `buf`, without blocking; returns the length.
pub(super) fn recv_now(fd: &OwnedFd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buf` is writable for its length.
    let got = unsafe { libc::recv(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Receives into `buf`, blocking; returns the length.
pub(super) fn recv(fd: &OwnedFd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buf` is writable for its length.
    let got = unsafe { libc::recv(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), 0) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Sleeps until one of `fds` is readable or `timeout` is over; true if one is. Interruptions count as the time-out.
pub(super) fn wait_readable<const N: usize>(fds: &[RawFd; N], timeout: Option<Duration>) -> io::Result<bool> {
    let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    let spec = timeout.map(|t| libc::timespec {
        tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    let spec = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `polled` is writable for its entries; `spec` is null or lives until the call returns.
    let ready = unsafe { libc::ppoll(polled.as_mut_ptr(), N as libc::nfds_t, spec, std::ptr::null()) };
    match check(ready) {
        Ok(n) => Ok(n > 0),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(e) => Err(e),
    }
}

/// A descriptor that is readable while its counter is not zero.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; the descriptor is new and ours alone.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?)) }
}

/// Adds to an eventfd's counter.
pub(super) fn eventfd_signal(fd: &OwnedFd) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: eight bytes are readable. The only failure is a full counter, which is readable all the same.
    unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// Sets an eventfd's counter to zero; true if it was not.
pub(super) fn eventfd_clear(fd: &OwnedFd) -> bool {
    let mut count = [0; 8];
    // SAFETY: eight bytes are writable.
    unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) == 8 }
}

/// A kernel clock in nanoseconds.
pub(super) fn clock_nanos(clock: libc::clockid_t) -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is writable; the clocks used here exist on all systems, so the call can't fail.
    unsafe { libc::clock_gettime(clock, &raw mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// The processor's time-stamp counter.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn rdtsc() -> u64 {
    // SAFETY: the instruction exists on all x86-64 processors and touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The counter-timer, which counts at a constant rate on all cores alike (Arm ARM, D12 "the Generic Timer").
#[cfg(target_arch = "aarch64")]
#[inline]
pub(super) fn cntvct() -> u64 {
    let ticks: u64;
    // SAFETY: Linux lets processes read the register, which touches no memory. The barrier keeps the reading from being
    // done ahead of time.
    unsafe { core::arch::asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags)) };
    ticks
}

/// Random bytes from the system.
pub(super) fn random_u64() -> io::Result<u64> {
    let mut bytes = [0; 8];
    // SAFETY: eight bytes are writable.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == 8 { Ok(u64::from_ne_bytes(bytes)) } else { Err(io::Error::last_os_error()) }
}

/// A request about interface `name`.
fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = CString::new(name)?;
    let bytes = name.as_bytes_with_nul();
    if bytes.len() > request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok(request)
}

/// The largest IP packet that interface `name` takes.
pub(super) fn mtu(fd: &OwnedFd, name: &str) -> io::Result<usize> {
    let mut request = interface_request(name)?;
    // SAFETY: the request is writable and its name ends with a zero; the kernel fills the `mtu` member.
    unsafe {
        check(libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFMTU as _, &raw mut request))?;
        Ok(request.ifr_ifru.ifru_mtu.max(0) as usize)
    }
}

/// A descriptor that is readable when one of `fds` is.
pub(super) fn any_of<'a>(fds: impl Iterator<Item = &'a OwnedFd>) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; the descriptor is new and ours alone.
    let epoll = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
    for fd in fds {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: both descriptors are open, and the event is readable.
        check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event) })?;
    }
    Ok(epoll)
}

/// All interfaces of this network namespace with their addresses.
pub(super) fn interfaces() -> io::Result<Vec<Interface>> {
    let mut head = std::ptr::null_mut();
    // SAFETY: `head` is writable; on success it points to a list that is ours to free.
    check(unsafe { libc::getifaddrs(&raw mut head) })?;
    let mut all: Vec<Interface> = Vec::new();
    let mut at = head;
    while !at.is_null() {
        // SAFETY: `at` is a node of the list, which lives until `freeifaddrs` below.
        let node = unsafe { &*at };
        // SAFETY: each node's name is a C string.
        let name = unsafe { CStr::from_ptr(node.ifa_name) }.to_string_lossy();
        let entry = match all.iter().position(|i| i.name == name) {
            Some(found) => &mut all[found],
            None => {
                all.push(Interface { name: name.into_owned(), ..Interface::default() });
                all.last_mut().expect("it was just pushed")
            }
        };
        let flags = node.ifa_flags as libc::c_int;
        entry.is_up = flags & libc::IFF_UP != 0;
        entry.is_loopback = flags & libc::IFF_LOOPBACK != 0;
        if !node.ifa_addr.is_null() {
            // SAFETY: the address is not null, and its family says which type it has.
            unsafe { add_address(entry, node.ifa_addr) };
        }
        at = node.ifa_next;
    }
    // SAFETY: the list came from `getifaddrs`, and nothing borrows from it any more.
    unsafe { libc::freeifaddrs(head) };
    Ok(all)
}

/// # Safety
///
/// `addr` must point to a socket address of the type that its family names.
unsafe fn add_address(entry: &mut Interface, addr: *const libc::sockaddr) {
    // SAFETY: the caller's promise; addresses in the list may lie unaligned.
    unsafe {
        match libc::c_int::from((*addr).sa_family) {
            libc::AF_INET => {
                let v4 = addr.cast::<libc::sockaddr_in>().read_unaligned();
                entry.addrs.push(Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr)).into());
            }
            libc::AF_INET6 => {
                let v6 = addr.cast::<libc::sockaddr_in6>().read_unaligned();
                entry.addrs.push(Ipv6Addr::from(v6.sin6_addr.s6_addr).into());
            }
            libc::AF_PACKET => {
                let link = addr.cast::<libc::sockaddr_ll>().read_unaligned();
                entry.index = link.sll_ifindex;
                if link.sll_halen == 6 {
                    entry.mac = link.sll_addr[..6].try_into().ok();
                }
            }
            _ => {}
        }
    }
}
