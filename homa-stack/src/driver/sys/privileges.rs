//! Capabilities of the calling thread.

use std::io;

use super::check;

// linux/securebits.h: root gets no capabilities for being root, a change of user keeps none, none are ambient; locked.
const SECUREBITS: libc::c_ulong = 0b1110_1111;

/// `_LINUX_CAPABILITY_VERSION_3`, of two words a set.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    /// 0: the calling thread.
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up all capabilities of the calling thread for good: no program that it starts gets any either.
pub(in crate::driver) fn drop_all() -> io::Result<()> {
    // These two take CAP_SETPCAP. Without it the next step still keeps programs from gaining any.
    let mut capability = 0;
    while prctl(libc::PR_CAPBSET_READ, capability).is_ok() {
        let _ = prctl(libc::PR_CAPBSET_DROP, capability);
        capability += 1;
    }
    let _ = prctl(libc::PR_SET_SECUREBITS, SECUREBITS);
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong)?;
    let (header, none) = (Header { version: VERSION_3, pid: 0 }, [Word::default(); 2]);
    // SAFETY: the kernel reads a header and two words, which is what they are.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<()> {
    const NONE: libc::c_ulong = 0;
    // SAFETY: none of the options used here takes a pointer.
    check(unsafe { libc::prctl(option, argument, NONE, NONE, NONE) }).map(drop)
}
