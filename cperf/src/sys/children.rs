//! Programs that this process runs beside nodes: they end with it, and can be interrupted.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::check;

/// Arranges that `command` starts in a process group of its own (Ctrl-C at the terminal reaches only the parent) and gets
/// SIGTERM when the thread that spawns it ends, however that happens.
pub fn ends_with_parent(command: &mut Command) {
    let parent = std::process::id();
    command.process_group(0);
    // SAFETY: the closure runs in the child after fork and makes system calls only (prctl, getppid), which are
    // async-signal-safe; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            // SAFETY: prctl with PR_SET_PDEATHSIG takes integers only.
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM))?;
            // The parent may have died before the line above.
            // SAFETY: no arguments, no memory.
            if libc::getppid().cast_unsigned() == parent {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ESRCH))
            }
        });
    }
}

/// Sends SIGINT to a child that has not been waited for, so that its number is nobody else's.
///
/// # Errors
/// As kill(2).
pub fn interrupt(child: u32) -> io::Result<()> {
    let pid = i32::try_from(child).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: integers only.
    check(unsafe { libc::kill(pid, libc::SIGINT) }).map(drop)
}
