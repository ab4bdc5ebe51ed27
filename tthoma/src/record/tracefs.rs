//! An instance of the kernel's tracing: rings, clock and events of our own, removed again whatever happens.
//!
//! Its name holds the process and the time when that was started, so that instances of processes that were killed are
//! known and removed by the next recording, and those of others are not. The kernel itself refuses to remove an instance
//! that is read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Why the kernel can't be recorded.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The tracing file system is nowhere to be found.
    #[error(
        "the kernel's tracing file system is not mounted, and can't be opened by us ({source}): \
         run as root (CAP_SYS_ADMIN), or mount it: mount -t tracefs nodev /sys/kernel/tracing"
    )]
    NotMounted {
        /// What the system said to our own attempt.
        source: io::Error,
    },
    /// The tracing file system belongs to root.
    #[error(
        "{path}: {source}: tracing needs root or CAP_DAC_OVERRIDE, or an instance that root prepared for you: \
         mkdir {root}/instances/NAME && chown -R USER {root}/instances/NAME, then --instance NAME{lockdown}"
    )]
    Denied {
        /// The file.
        path: PathBuf,
        /// Where tracing is.
        root: PathBuf,
        /// What the system said.
        source: io::Error,
        /// Said if the kernel is locked down.
        lockdown: &'static str,
    },
    /// Something else went wrong with a file of the kernel's.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused a setting.
    #[error("{path}: the kernel does not take `{value}`: {source}")]
    Setting {
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The tracing file system.
#[derive(Debug)]
pub(crate) struct Tracefs {
    root: PathBuf,
    /// Of a mount that only we see, gone when this is closed.
    _mount: Option<OwnedFd>,
}

impl Tracefs {
    /// Finds the tracing file system, or mounts it for this process only, which changes nothing for others.
    pub(crate) fn find() -> Result<Self, TraceError> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        match mounted(&mounts) {
            Some(root) => Ok(Self { root, _mount: None }),
            None => Self::mount().map_err(|source| TraceError::NotMounted { source }),
        }
    }

    fn mount() -> io::Result<Self> {
        let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let flags =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
        let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        Ok(Self { root, _mount: Some(mount) })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Removes instances of recordings that were killed; returns their names.
    pub(crate) fn remove_stale(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join("instances")) else { return Vec::new() };
        let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
        let stale = names.filter(|name| owner(name).is_some_and(|(pid, start)| started(pid) != Some(start)));
        stale.filter(|name| fs::remove_dir(self.root.join("instances").join(name)).is_ok()).collect()
    }

    /// A new instance, or that which root prepared under the name `prepared`.
    pub(crate) fn instance(&self, prepared: Option<&str>) -> Result<Instance<'_>, TraceError> {
        let name = match prepared {
            Some(name) => name.to_string(),
            None => format!("{PREFIX}{}-{}", std::process::id(), started(std::process::id()).unwrap_or(0)),
        };
        let path = self.root.join("instances").join(name);
        if prepared.is_none() {
            fs::create_dir(&path).map_err(|e| self.error(path.clone(), e))?;
        }
        let instance = Instance { fs: self, path, own: prepared.is_none() };
        instance.reset()?;
        Ok(instance)
    }

    fn error(&self, path: PathBuf, source: io::Error) -> TraceError {
        if source.kind() != io::ErrorKind::PermissionDenied {
            return TraceError::File { path, source };
        }
        let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
        let lockdown = if lockdown.contains("[confidentiality]") {
            "; but this kernel is locked down for confidentiality, which forbids tracing to everybody"
        } else {
            ""
        };
        TraceError::Denied { path, root: self.root.clone(), source, lockdown }
    }
}

/// Instances of ours are named so, and then after their process.
const PREFIX: &str = "tthoma-";

/// Where the tracing file system is mounted, by the text of `/proc/self/mounts`. That below debugfs is used only if there
/// is no other.
fn mounted(mounts: &str) -> Option<PathBuf> {
    let places = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (place, kind) = (words.nth(1)?, words.next()?);
        (kind == "tracefs").then(|| PathBuf::from(place))
    });
    places.min_by_key(|place| place.starts_with("/sys/kernel/debug"))
}

/// Process and its start that an instance is named after.
fn owner(name: &str) -> Option<(u32, u64)> {
    let (pid, start) = name.strip_prefix(PREFIX)?.split_once('-')?;
    Some((pid.parse().ok()?, start.parse().ok()?))
}

/// When a process was started, in the kernel's ticks since boot; `None` if there is no such process.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_whitespace().nth(19)?.parse().ok()
}

/// An instance of tracing. Dropping it removes it; one that was prepared is left as it was found: empty, nothing enabled.
#[derive(Debug)]
pub(crate) struct Instance<'a> {
    fs: &'a Tracefs,
    path: PathBuf,
    own: bool,
}

impl Instance<'_> {
    /// Stops everything and empties the rings.
    fn reset(&self) -> Result<(), TraceError> {
        self.set("tracing_on", "0")?;
        self.set("events/enable", "0")?;
        self.set("trace", "")
    }

    /// Writes to a file of the instance.
    pub(crate) fn set(&self, file: &str, value: &str) -> Result<(), TraceError> {
        let path = self.path.join(file);
        let written =
            OpenOptions::new().write(true).truncate(true).open(&path).and_then(|mut f| f.write_all(value.as_bytes()));
        written.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => self.fs.error(path, source),
            _ => TraceError::Setting { path, value: value.to_string(), source },
        })
    }

    /// Reads a file of the instance.
    pub(crate) fn get(&self, file: &str) -> Result<String, TraceError> {
        let path = self.path.join(file);
        read_whole(&path).map_err(|source| self.fs.error(path, source))
    }

    /// True if the instance has such a file or folder.
    pub(crate) fn has(&self, file: &str) -> bool {
        self.path.join(file).exists()
    }

    /// The cores that have rings, in order.
    pub(crate) fn cores(&self) -> Result<Vec<u16>, TraceError> {
        let path = self.path.join("per_cpu");
        let entries = fs::read_dir(&path).map_err(|source| self.fs.error(path, source))?;
        let number = |e: fs::DirEntry| e.file_name().to_str()?.strip_prefix("cpu")?.parse().ok();
        let mut cores: Vec<u16> = entries.flatten().filter_map(number).collect();
        cores.sort_unstable();
        Ok(cores)
    }

    /// Opens a core's ring for reading.
    pub(crate) fn ring(&self, core: u16, page_bytes: usize) -> Result<Ring, TraceError> {
        let path = self.path.join(format!("per_cpu/cpu{core}/trace_pipe_raw"));
        let file = OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(&path);
        let file = file.map_err(|source| self.fs.error(path.clone(), source))?;
        Ok(Ring { core, file, path, page: vec![0; page_bytes] })
    }

    /// Entries of a core that were overwritten before they were read, or not taken.
    pub(crate) fn lost(&self, core: u16) -> Result<u64, TraceError> {
        let stats = self.get(&format!("per_cpu/cpu{core}/stats"))?;
        Ok(lost(&stats))
    }
}

/// Reads a file of the kernel's in as few steps as it takes: some of them give everything to the first or nothing.
pub(crate) fn read_whole(path: &Path) -> io::Result<String> {
    let (mut file, mut text) = (File::open(path)?, Vec::new());
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            bytes => text.extend_from_slice(&buffer[..bytes]),
        }
    }
}

/// Entries lost, by the text of a core's `stats`.
fn lost(stats: &str) -> u64 {
    let of = |key: &str| stats.lines().find_map(|l| l.strip_prefix(key)?.trim().parse::<u64>().ok()).unwrap_or(0);
    of("overrun:").saturating_add(of("commit overrun:")).saturating_add(of("dropped events:"))
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        // Whatever fails here: there is nothing left to be done, and the next recording removes what remains.
        let _ = self.reset();
        if self.own {
            let _ = fs::remove_dir(&self.path);
            return;
        }
        for file in ["events/irq/filter", "events/napi/filter", "events/net/filter", "events/sched/filter"] {
            let _ = self.set(file, "0");
        }
        let _ = self.set("trace_clock", "local");
    }
}

/// The ring of a core.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) core: u16,
    file: File,
    path: PathBuf,
    page: Vec<u8>,
}

impl Ring {
    /// Takes the oldest page out of the ring; `None` if the ring is empty.
    pub(crate) fn take(&mut self) -> Result<Option<&[u8]>, TraceError> {
        match self.file.read(&mut self.page) {
            Ok(0) => Ok(None),
            Ok(bytes) => Ok(Some(&self.page[..bytes])),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(source) => Err(TraceError::File { path: self.path.clone(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_below_debugfs_is_the_second_choice() {
        let mounts = "tracefs /sys/kernel/debug/tracing tracefs rw 0 0\nnodev /sys/kernel/tracing tracefs rw 0 0\n\
                      proc /proc proc rw 0 0\n";
        assert_eq!(mounted(mounts), Some("/sys/kernel/tracing".into()));
        assert_eq!(mounted(&mounts[..mounts.find("nodev").unwrap()]), Some("/sys/kernel/debug/tracing".into()));
        assert_eq!(mounted("tracefs"), None);
    }

    #[test]
    fn instances_of_processes_that_are_gone_are_known() {
        let own = started(std::process::id()).expect("this process runs");
        assert_eq!(owner(&format!("tthoma-{}-{own}", std::process::id())), Some((std::process::id(), own)));
        assert_eq!([owner("tthoma-12"), owner("perf-12-3"), owner("tthoma-a-3")], [None; 3]);
        assert_eq!(started(u32::MAX), None);
    }

    #[test]
    fn all_ways_to_lose_an_entry_count() {
        let stats = "entries: 5\noverrun: 3\ncommit overrun: 2\nbytes: 9\ndropped events: 1\nread events: 8\n";
        assert_eq!(lost(stats), 6);
        assert_eq!(lost(""), 0);
    }
}
