//! What a child does between fork and exec: join its network namespace, take its core, die with its parent.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::{Namespace, check};

/// How a node's process is to start.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Network namespace to join.
    pub namespace: &'a Namespace,
    /// Core to stay on; `None`: wherever the scheduler likes.
    pub core: Option<usize>,
}

/// Arranges that `command` starts as `launch` says, in a process group of its own (Ctrl-C at the terminal reaches
/// only the parent, which then ends its children in order), and is killed by the kernel when the thread that spawns
/// it ends, however that happens.
///
/// The namespace must stay open until the command was spawned.
pub fn prepare(command: &mut Command, launch: Launch<'_>) {
    let namespace = launch.namespace.fd().as_raw_fd();
    let core = launch.core;
    let parent = std::process::id();
    command.process_group(0);
    // SAFETY: the closure runs in the child after fork and makes system calls only (setns, sched_setaffinity, prctl,
    // getppid), all of which are async-signal-safe; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || in_child(namespace, core, parent));
    }
}

/// Runs between fork and exec: system calls only.
fn in_child(namespace: i32, core: Option<usize>, parent: u32) -> io::Result<()> {
    // SAFETY: prctl with PR_SET_PDEATHSIG takes integers only.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    // The parent may have died before the line above: then nobody would ever end this process.
    // SAFETY: no arguments, no memory.
    if unsafe { libc::getppid() }.cast_unsigned() != parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: integers only; the parent keeps the descriptor open.
    check(unsafe { libc::setns(namespace, libc::CLONE_NEWNET) })?;
    short_slice();
    let Some(core) = core else { return Ok(()) };
    // SAFETY: an all-zero cpu_set_t is the empty set, its documented initial state.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: `core` is below CPU_SETSIZE, so the bit lies inside `set`.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is a valid set of the size given; 0 means the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) }).map(drop)
}

/// How long a node may keep a core while another one waits for it, where the kernel lets a process choose (Linux 6.12).
/// Nodes share the cores of one machine: with the usual slice of some milliseconds a packet's round trip would mostly
/// be other nodes' slices.
pub const SLICE_NS: u64 = 100_000;

/// `struct sched_attr`, its first version.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks for [`SLICE_NS`]. A kernel that does not know the request runs the process with its usual slice, which changes
/// times but nothing else; the manifest has the kernel's version.
fn short_slice() {
    let size = size_of::<SchedAttr>();
    let attr = SchedAttr {
        size: size as u32,
        policy: libc::SCHED_OTHER.cast_unsigned(),
        flags: 0,
        nice: 0,
        priority: 0,
        runtime: SLICE_NS,
        deadline: 0,
        period: 0,
    };
    // SAFETY: `attr` has the layout and size that the kernel expects and outlives the call; 0 means this thread.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
}
