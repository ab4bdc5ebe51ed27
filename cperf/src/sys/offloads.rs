//! Which offloads an interface has switched on; they decide what a capture and a trace show.

use std::io;
use std::os::fd::AsRawFd;

use super::check;

/// An offload that ethtool(8) calls by this name, with the request number of linux/ethtool.h that reads it.
#[derive(Clone, Copy, Debug)]
pub struct Offload {
    /// As in `ethtool -k`.
    pub name: &'static str,
    request: u32,
}

/// The offloads that change packet sizes or checksums.
const OFFLOADS: [Offload; 5] = [
    Offload { name: "rx-checksumming", request: 0x14 },
    Offload { name: "tx-checksumming", request: 0x16 },
    Offload { name: "tcp-segmentation-offload", request: 0x1e },
    Offload { name: "generic-segmentation-offload", request: 0x23 },
    Offload { name: "generic-receive-offload", request: 0x2b },
];

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    request: u32,
    data: u32,
}

/// State of each offload of `interface` in the calling thread's network namespace.
///
/// # Errors
/// No such interface, or a driver that does not answer.
pub fn offloads(interface: &str) -> io::Result<Vec<(&'static str, bool)>> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    OFFLOADS.iter().map(|offload| Ok((offload.name, state(&socket, interface, offload.request)?))).collect()
}

/// One ethtool request.
fn state(socket: &std::net::UdpSocket, interface: &str, request: u32) -> io::Result<bool> {
    let mut value = Value { request, data: 0 };
    // SAFETY: ifreq is plain data, for which all-zero is valid.
    let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= ifreq.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in ifreq.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    ifreq.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the socket is open; `ifreq` names its interface with a final zero and points to `value`, which is as
    // large as these requests write and outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut ifreq) })?;
    Ok(value.data != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert_eq!(offloads("no-such-if").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(offloads("a-name-longer-than-fifteen").is_err());
    }
}
