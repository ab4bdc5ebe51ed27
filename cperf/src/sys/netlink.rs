//! The route-netlink socket of the calling thread's network namespace.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::check;

/// Opens a socket to the kernel's routing tables. It stays with the namespace in which it was opened, wherever the
/// thread goes later. `write` sends to the kernel, `read` takes one datagram of answers.
///
/// # Errors
/// As socket(2).
pub fn netlink_socket() -> io::Result<File> {
    // SAFETY: socket takes integers only; the result is checked before use.
    let fd =
        check(unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) })?;
    // SAFETY: `fd` was just opened, is valid, and nothing else owns it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}
