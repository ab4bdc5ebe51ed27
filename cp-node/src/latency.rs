//! How deep the cores of this machine may sleep while a benchmark lasts: /dev/cpu_dma_latency, the kernel's "PM quality of
//! service". What was asked for is forgotten when the file is closed, so with the process at the latest.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Result, bail};

/// Where the kernel takes it.
pub(crate) const DEVICE: &str = "/dev/cpu_dma_latency";

/// Cores do not sleep deeper than what ends within the time asked for while this lives.
#[derive(Debug)]
pub(crate) struct Held {
    _file: File,
}

/// Asks `device` for at most `us` microseconds.
///
/// # Errors
/// It cannot be opened or written: says what to do.
pub(crate) fn hold(device: &Path, us: u32) -> Result<Held> {
    let asked = i32::try_from(us).unwrap_or(i32::MAX);
    let open = OpenOptions::new().write(true).open(device);
    let write = |mut file: File| file.write_all(&asked.to_ne_bytes()).map(|()| file);
    match open.and_then(write) {
        Ok(file) => Ok(Held { _file: file }),
        Err(err) => {
            let hint = match err.kind() {
                io::ErrorKind::PermissionDenied => {
                    "; it takes root on this machine (in a user namespace nobody has it)"
                }
                io::ErrorKind::NotFound => "; this kernel has no CPU_IDLE, or this container not the device",
                _ => "",
            };
            bail!("{}: {err}{hint}; leave out --cpu-latency-us", device.display())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel takes four bytes in the order of the machine.
    #[test]
    fn four_bytes_are_written() {
        let path = std::env::temp_dir().join(format!("cp-node-latency-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        let held = hold(&path, 7).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), 7i32.to_ne_bytes());
        drop(held);
        std::fs::remove_file(&path).unwrap();
        let error = hold(&path, 7).unwrap_err().to_string();
        assert!(error.contains("cp-node-latency") && error.contains("leave out --cpu-latency-us"), "{error}");
    }
}
