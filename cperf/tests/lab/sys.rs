//! System calls of the lab: the only place with `unsafe`.

#![expect(unsafe_code, reason = "mounts and ambient capabilities have no safe interface in std")]

use std::ffi::CString;
use std::io;
use std::path::Path;

use cperf::sys;

/// Capabilities that programs keep over exec: CAP_NET_ADMIN and CAP_NET_RAW.
const KEPT: [u32; 2] = [12, 13];

/// Makes this process the user `user` (not root: an sshd that is root wants users of its own) of a new user namespace,
/// with all capabilities, of which children keep those for networks. Must be called while the process has one thread.
pub(crate) fn become_user(user: u32) -> io::Result<()> {
    let (own, group) = sys::user_and_group();
    sys::unshare_user()?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{user} {own} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{user} {group} 1"))?;
    let all = sys::effective_capabilities().ok_or_else(|| io::Error::other("/proc shows no capabilities"))?;
    let header: [u32; 2] = [0x2008_0522, 0];
    let (low, high) = (all as u32, (all >> 32) as u32);
    // Effective, permitted and inheritable, twice 32 bits.
    let sets = [low, low, low, high, high, high];
    // SAFETY: both arrays have the layout of linux/capability.h and outlive the call; 0 means this thread.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) } as libc::c_int)?;
    for capability in KEPT {
        // SAFETY: integers only.
        check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) })?;
    }
    Ok(())
}

/// Gives this process, and its children, the file `users` in place of /etc/passwd.
pub(crate) fn use_passwd(users: &Path) -> io::Result<()> {
    let users = CString::new(users.as_os_str().as_encoded_bytes())?;
    let none = std::ptr::null();
    // SAFETY: flags only; then strings that end with a zero byte, or null where the call takes none.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        check(libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()))?;
        check(libc::mount(users.as_ptr(), c"/etc/passwd".as_ptr(), none, libc::MS_BIND, none.cast()))
    }
}

/// Gives this process and its children a small file system of their own at `dir`.
pub(crate) fn mount_small(dir: &Path, bytes: u64) -> io::Result<()> {
    let dir = CString::new(dir.as_os_str().as_encoded_bytes())?;
    let options = CString::new(format!("size={bytes}"))?;
    // SAFETY: strings that end with a zero byte and outlive the call.
    check(unsafe { libc::mount(c"tmpfs".as_ptr(), dir.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast()) })
}

/// Takes it away again, also if something in it is open.
pub(crate) fn unmount(dir: &Path) -> io::Result<()> {
    let dir = CString::new(dir.as_os_str().as_encoded_bytes())?;
    // SAFETY: a string that ends with a zero byte and outlives the call.
    check(unsafe { libc::umount2(dir.as_ptr(), libc::MNT_DETACH) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
