//! The system calls of the kernel's Homa sockets, and the memory that messages come to: the only place in this crate with
//! `unsafe`.

#![expect(
    unsafe_code,
    reason = "Homa's arguments are no control messages that a safe interface knows, and the kernel \
                                 writes to memory of this process between calls"
)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use super::Socket;
use super::abi::{AbortArgs, HOMA_ABORT, PROTOCOL, RcvbufArgs, RecvArgs, SO_HOMA_RCVBUF, SendArgs, region_bytes};
use crate::message::HEADER_LEN;

/// A socket of the kernel's module, and its pages.
#[derive(Debug)]
pub(super) struct KernelSocket {
    // Closed before the pages go: fields are dropped in this order.
    fd: OwnedFd,
    region: Region,
}

/// Memory that the kernel writes messages to.
#[derive(Debug)]
struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory belongs to nobody's thread; all reading of it is by `Region::read`, which copies bytes that may change
// meanwhile (volatile), and the kernel writes only to pages that were given to it.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Fresh memory, which begins a page of memory.
    fn new(bytes: usize) -> io::Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { start, bytes })
    }

    /// Copies from `offset` on; bytes beyond the end stay as they are.
    fn read(&self, offset: u32, out: &mut [u8]) {
        let from = offset as usize;
        for (index, byte) in out.iter_mut().enumerate().take_while(|(index, _)| from + index < self.bytes) {
            // SAFETY: the address is inside the mapping, which lives as long as `self` and is readable; a byte has any
            // value, and volatile since the kernel may write there.
            *byte = unsafe { self.start.as_ptr().add(from + index).read_volatile() };
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`, of which no reference is left; the socket is closed.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

impl KernelSocket {
    /// A socket with `pages` pages for messages; a server's, at `port`, if there is one.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` without the module; others as the module has them.
    pub(super) fn open(ipv6: bool, port: Option<u16>, pages: u32) -> io::Result<Self> {
        let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
        // SAFETY: integers only.
        let fd = check(unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, PROTOCOL) })?;
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let region = Region::new(region_bytes(pages))?;
        let args = RcvbufArgs { start: region.start.as_ptr() as u64, length: region.bytes as u64 };
        let length = size_of::<RcvbufArgs>() as libc::socklen_t;
        // SAFETY: `args` is readable for `length` bytes. The kernel writes to the region from now on, which outlives the
        // socket and of which no reference exists.
        check(unsafe { libc::setsockopt(fd.as_raw_fd(), PROTOCOL, SO_HOMA_RCVBUF, (&raw const args).cast(), length) })?;
        if let Some(port) = port {
            let any = if ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
            let (address, length) = Address::new(SocketAddr::new(any, port));
            // SAFETY: `address` is readable for `length` bytes.
            check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
        }
        Ok(Self { fd, region })
    }

    /// Ends an RPC of this socket's clients without a message; it is forgotten. 0: all of them.
    pub(super) fn abort(&self, id: u64) -> io::Result<()> {
        let mut args = AbortArgs { id, ..AbortArgs::default() };
        // SAFETY: `args` is readable and writable with the size that the request's number says.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), HOMA_ABORT as _, &raw mut args) }).map(drop)
    }

    fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Socket for KernelSocket {
    fn send(&self, to: SocketAddr, pieces: [&[u8]; 2], mut args: SendArgs) -> io::Result<u64> {
        let (mut address, length) = Address::new(to);
        let mut pieces =
            pieces.map(|piece| libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() });
        // SAFETY: all-zero bytes are an empty `msghdr`.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_name, message.msg_namelen) = ((&raw mut address).cast(), length);
        (message.msg_iov, message.msg_iovlen) = (pieces.as_mut_ptr(), pieces.len() as _);
        // Its length is 0, so that the kernel does not take it for control messages.
        message.msg_control = (&raw mut args).cast();
        // SAFETY: everything that `message` points to is alive and as long as it says; the kernel only reads the pieces, and
        // writes `args`, whose address and 24 bytes the module expects.
        check(unsafe { libc::sendmsg(self.fd(), &raw const message, 0) } as libc::c_int)?;
        Ok(args.id)
    }

    fn receive(&self, args: &mut RecvArgs) -> io::Result<(usize, SocketAddr)> {
        let mut address = Address::empty();
        // SAFETY: all-zero bytes are an empty `msghdr`.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = (&raw mut address).cast();
        message.msg_namelen = size_of::<Address>() as libc::socklen_t;
        message.msg_control = std::ptr::from_mut(args).cast();
        message.msg_controllen = size_of::<RecvArgs>() as _;
        // SAFETY: everything that `message` points to is alive and as long as it says.
        let length = unsafe { libc::recvmsg(self.fd(), &raw mut message, 0) };
        if length < 0 {
            let err = io::Error::last_os_error();
            // They were given back, or were none of this socket's: in no case again.
            args.num_bpages = 0;
            return Err(err);
        }
        let from = address.get().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok((length as usize, from))
    }

    fn head(&self, args: &RecvArgs) -> [u8; HEADER_LEN] {
        let mut head = [0; HEADER_LEN];
        self.region.read(args.bpage_offsets[0], &mut head);
        head
    }

    fn shutdown(&self) {
        // Outstanding RPCs of clients go first, so that peers need not send what nobody reads. A module that knows no such
        // request forgets them with the socket.
        let _ = self.abort(0);
        // SAFETY: integers only. A socket that is already shut down needs no second end.
        unsafe { libc::shutdown(self.fd(), libc::SHUT_RDWR) };
    }
}

/// An address of either family as the kernel has it.
#[derive(Clone, Copy)]
#[repr(C)]
union Address {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Address {
    fn empty() -> Self {
        // SAFETY: all-zero bytes are valid addresses of family 0.
        unsafe { std::mem::zeroed() }
    }

    /// With its length in bytes.
    fn new(address: SocketAddr) -> (Self, libc::socklen_t) {
        let mut made = Self::empty();
        match address {
            SocketAddr::V4(v4) => {
                made.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as u16,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                (made, size_of::<libc::sockaddr_in>() as libc::socklen_t)
            }
            SocketAddr::V6(v6) => {
                made.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as u16,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                (made, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
            }
        }
    }

    /// `None` for another family.
    fn get(&self) -> Option<SocketAddr> {
        // SAFETY: all bytes of the union are initialised (`empty`), the family lies at the same place in both, and integers
        // have any value.
        let (family, v4, v6) = unsafe { (libc::c_int::from(self.v4.sin_family), self.v4, self.v6) };
        match family {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                let (ip, port) = (Ipv6Addr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port));
                Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The bytes of a structure without padding, as the kernel reads them.
#[cfg(test)]
pub(super) fn bytes_of<T: Copy>(value: &T) -> Vec<u8> {
    // SAFETY: the structures of `abi` consist of integers without gaps (their sizes and offsets are asserted there), so all
    // their bytes are initialised; the slice is as long as the value and does not outlive it.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_kernels_and_come_back() {
        for text in ["10.1.2.3:4000", "[fd00::7]:65535", "0.0.0.0:0", "[::]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let (made, length) = Address::new(address);
            assert_eq!(made.get(), Some(address));
            assert_eq!(length, if address.is_ipv4() { 16 } else { 28 });
        }
        let (made, _) = Address::new("10.1.2.3:4000".parse().unwrap());
        let bytes = bytes_of(&made);
        assert_eq!(&bytes[2..8], [0x0f, 0xa0, 10, 1, 2, 3], "in the network's order");
        assert_eq!(Address::empty().get(), None);
    }

    #[test]
    fn reading_ends_with_the_region() {
        let region = Region::new(65_536).unwrap();
        let mut out = [9; 4];
        region.read(65_534, &mut out);
        assert_eq!(out, [0, 0, 9, 9]);
        region.read(u32::MAX, &mut out);
        assert_eq!(out, [0, 0, 9, 9]);
    }
}
