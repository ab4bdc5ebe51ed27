//! System calls for tests: the only place with `unsafe`.

#![expect(unsafe_code, reason = "steps between fork and exec have no safe interface in std")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes `command` run as an ordinary process that may not create user namespaces: in a user namespace of its own
/// whose limit of further ones is zero, and without the capabilities that a testbed needs.
pub(crate) fn forbid_namespaces(command: &mut Command) {
    // SAFETY: getuid and getgid have no arguments and always succeed.
    let (user, group) = unsafe { (libc::getuid(), libc::getgid()) };
    let text = |id: u32| CString::new(format!("0 {id} 1")).expect("no zero byte");
    let (users, groups) = (text(user), text(group));
    // SAFETY: the closure runs in the child after fork and makes system calls only, on memory allocated before.
    unsafe {
        command.pre_exec(move || {
            check(libc::unshare(libc::CLONE_NEWUSER))?;
            write(c"/proc/self/setgroups", c"deny")?;
            write(c"/proc/self/uid_map", &users)?;
            write(c"/proc/self/gid_map", &groups)?;
            write(c"/proc/sys/user/max_user_namespaces", c"0")?;
            for capability in [12, 13, 21] {
                check(libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0))?;
            }
            Ok(())
        });
    }
}

/// Async-signal-safe form of `fs::write` to an existing file.
fn write(path: &CStr, text: &CStr) -> io::Result<()> {
    // SAFETY: `path` ends with a zero byte; the descriptor is checked before use and closed once.
    unsafe {
        let file = check(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
        let len = text.to_bytes().len();
        let written = libc::write(file, text.as_ptr().cast(), len);
        libc::close(file);
        if written == len.cast_signed() { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
