//! Network and user namespaces of the calling thread.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::check;

/// A network namespace, kept alive by an open descriptor; it has no name anywhere in the file system, so it ends with
/// the last process or descriptor that uses it.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        File::open("/proc/thread-self/ns/net").map(Self)
    }

    /// The descriptor, for `setns` and for netlink attributes; valid while `self` lives.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Real user and group id of this process.
pub fn user_and_group() -> (u32, u32) {
    // SAFETY: both calls have no arguments, touch no memory and always succeed.
    unsafe { (libc::getuid(), libc::getgid()) }
}

/// Moves the calling thread into a new user namespace, in which it has every capability.
///
/// # Errors
/// As unshare(2): `EINVAL` if the process has more than one thread, `EPERM` or `ENOSPC` if the system forbids it.
pub fn unshare_user() -> io::Result<()> {
    // SAFETY: unshare takes flags only and touches no memory of ours.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) }).map(drop)
}

/// Moves the calling thread into a new, empty network namespace.
///
/// # Errors
/// As unshare(2): `EPERM` without `CAP_SYS_ADMIN`, `ENOSPC` over the limit of namespaces.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: as above.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Moves the calling thread into `namespace`.
///
/// # Errors
/// As setns(2): `EPERM` without `CAP_SYS_ADMIN` over both namespaces.
pub fn enter(namespace: &Namespace) -> io::Result<()> {
    // SAFETY: the descriptor is open as `namespace` is borrowed; setns touches no memory of ours.
    check(unsafe { libc::setns(namespace.0.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Gives up all effective and permitted capabilities of the calling thread.
///
/// # Errors
/// As capset(2), which refuses no reduction.
pub fn drop_capabilities() -> io::Result<()> {
    keep_capabilities(0)
}

/// Gives up all effective and permitted capabilities of the calling thread but those with a bit in `kept`, bit n for
/// capability number n.
///
/// # Errors
/// As capset(2): none unless `kept` names some that the thread does not have.
pub fn keep_capabilities(kept: u64) -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`: two sets of 32 bits.
    const VERSION: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION, 0];
    let (low, high) = (kept as u32, (kept >> 32) as u32);
    let sets = [low, low, 0, high, high, 0];
    // SAFETY: both structures are readable with the layout of linux/capability.h: {version, pid 0: this thread} and
    // two of {effective, permitted, inheritable}.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Effective capabilities of the calling thread, bit n for capability number n; `None` if `/proc` does not tell.
pub fn effective_capabilities() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}
