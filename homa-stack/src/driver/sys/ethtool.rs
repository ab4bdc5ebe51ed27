//! What a network interface's driver says of itself (`SIOCETHTOOL`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::{check, interface_request};

// linux/sockios.h, linux/ethtool.h
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const GET_DRIVER: u32 = 0x03;
const GET_CHANNELS: u32 = 0x3c;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    /// Versions, bus address, counts.
    rest: [u8; 160],
}
const _: () = assert!(size_of::<DriverInfo>() == 196);

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    /// Most of each kind: receive, transmit, other, combined.
    most: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// Asks the driver of interface `name`; `fd` is any socket.
///
/// # Safety
///
/// `request` must be the structure that its first word, the command, stands for.
unsafe fn ask<T>(fd: &OwnedFd, name: &str, request: &mut T) -> io::Result<()> {
    let mut ifreq = interface_request(name)?;
    ifreq.ifr_ifru.ifru_data = std::ptr::from_mut(request).cast();
    // SAFETY: the name ends with a zero, and the data is the command's structure (the caller's promise), writable and
    // alive until the call returns.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), SIOCETHTOOL as _, &raw mut ifreq) }).map(drop)
}

/// The name of the driver of interface `name`.
pub(in crate::driver) fn driver_name(fd: &OwnedFd, name: &str) -> io::Result<String> {
    let mut info = DriverInfo { command: GET_DRIVER, driver: [0; 32], rest: [0; 160] };
    // SAFETY: the structure is that of the command.
    unsafe { ask(fd, name, &mut info) }?;
    let end = info.driver.iter().position(|b| *b == 0).unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..end]).into_owned())
}

/// How many receive queues interface `name` uses; 1 if its driver does not say.
pub(in crate::driver) fn rx_queues(fd: &OwnedFd, name: &str) -> u32 {
    let mut channels = Channels { command: GET_CHANNELS, ..Channels::default() };
    // SAFETY: the structure is that of the command.
    match unsafe { ask(fd, name, &mut channels) } {
        Ok(()) => (channels.rx + channels.combined).max(1),
        Err(_) => 1,
    }
}
