//! The devices that a host can run on, behind one type: each turn is made for its device, so that the choice costs one
//! branch a turn and none a packet.

use std::fmt;
use std::os::fd::{OwnedFd, RawFd};
use std::str::FromStr;

use super::OpenError;
use super::af_packet::PacketDevice;
use super::af_xdp::XdpDevice;
use super::clock::Clock;
use super::frame::{Addrs, Framing};
use super::host::HostConfig;
use super::neighbours::Neighbours;
use super::sockets::Sockets;
use super::sys::{Interface, Mac};
use crate::device;
use crate::metrics::Metrics;
use crate::proto::Endpoint;
use crate::units::Instant;

/// How packets get from and to the interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceKind {
    /// An AF_PACKET socket: needs CAP_NET_RAW only, and leaves the interface as it is.
    #[default]
    AfPacket,
    /// AF_XDP sockets, and an XDP program on the interface while the host is open: more packets a second. Needs CAP_BPF
    /// and CAP_NET_ADMIN, too, outside of any user namespace.
    AfXdp,
}

impl DeviceKind {
    const ALL: [Self; 2] = [Self::AfPacket, Self::AfXdp];

    /// The name on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AfPacket => "af-packet",
            Self::AfXdp => "af-xdp",
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no device `{0}`: expected `af-packet` or `af-xdp`")]
pub struct UnknownDevice(String);

impl FromStr for DeviceKind {
    type Err = UnknownDevice;

    fn from_str(word: &str) -> Result<Self, UnknownDevice> {
        Self::ALL.into_iter().find(|kind| kind.name() == word).ok_or_else(|| UnknownDevice(word.to_owned()))
    }
}

#[derive(Debug)]
pub(super) enum Nic {
    Packet(PacketDevice),
    Xdp(XdpDevice),
}

/// Does `$body` with the device of either kind.
macro_rules! with {
    ($nic:expr, $device:ident => $body:expr) => {
        match $nic {
            Nic::Packet($device) => $body,
            Nic::Xdp($device) => $body,
        }
    };
}

impl Nic {
    pub(super) fn open(
        config: &HostConfig,
        sockets: Option<Sockets>,
        interface: &Interface,
        addrs: Addrs,
        mtu: usize,
    ) -> Result<Self, OpenError> {
        let packets = config.ring_packets;
        Ok(match config.device {
            DeviceKind::AfPacket => {
                let sockets = sockets.map_or_else(Sockets::open, Ok)?;
                Self::Packet(PacketDevice::open(sockets, interface, addrs, mtu, packets, config.framing)?)
            }
            DeviceKind::AfXdp if sockets.is_some() => {
                return Err(OpenError::Unsupported("sockets opened before by AF_XDP: choose AF_PACKET"));
            }
            DeviceKind::AfXdp if config.framing == Framing::Hijack => {
                return Err(OpenError::Unsupported("hijacked packets by AF_XDP: choose native framing or AF_PACKET"));
            }
            DeviceKind::AfXdp => Self::Xdp(XdpDevice::open(interface, addrs, mtu, packets, config.xdp)?),
        })
    }

    /// The packet socket, unless the device is another.
    pub(super) fn packet_socket(&self) -> Option<&OwnedFd> {
        match self {
            Self::Packet(device) => Some(device.socket()),
            Self::Xdp(_) => None,
        }
    }

    /// What the device is, in words.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Packet(device) => device.describe().to_owned(),
            Self::Xdp(device) => device.describe(),
        }
    }

    /// The word that stands for the device in time traces.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Packet(_) => "afp",
            Self::Xdp(_) => "afx",
        }
    }

    /// [`device::turn`].
    #[inline]
    pub(super) fn turn(&mut self, core: &mut Endpoint, now: Instant) -> bool {
        with!(self, device => device::turn(core, device, now))
    }

    /// [`device::transmit`].
    #[inline]
    pub(super) fn transmit(&mut self, core: &mut Endpoint, now: Instant) -> bool {
        with!(self, device => device::transmit(core, device, now))
    }

    #[inline]
    pub(super) fn clock(&self) -> &Clock {
        with!(self, device => &device.clock)
    }

    /// Tells the device the time.
    #[inline]
    pub(super) fn set_now(&mut self, now: Instant) {
        with!(self, device => device.set_now(now));
    }

    /// True if a packet has come.
    #[inline]
    pub(super) fn has_packet(&mut self) -> bool {
        with!(self, device => device.has_packet())
    }

    /// Largest IP packet that may be sent for the kernel to cut; 0: none.
    pub(super) fn gso_bytes(&self) -> usize {
        match self {
            Self::Packet(device) => device.gso_bytes(),
            Self::Xdp(_) => 0,
        }
    }

    /// True if packets wait for room to be sent.
    pub(super) fn is_blocked(&self) -> bool {
        match self {
            Self::Packet(_) => false,
            Self::Xdp(device) => device.is_blocked(),
        }
    }

    pub(super) fn neighbours(&mut self) -> &mut Neighbours {
        with!(self, device => &mut device.neighbours)
    }

    /// Follows a change of the interface's addresses; returns those in use then.
    pub(super) fn set_local(&mut self, addrs: Addrs, mac: Mac, before: Addrs) -> Addrs {
        match self {
            Self::Packet(device) => device.set_local(addrs, mac).map_or(before, |()| addrs),
            Self::Xdp(device) => {
                device.set_mac(mac);
                before
            }
        }
    }

    /// Readable when a packet has come.
    pub(super) fn raw_fd(&self) -> RawFd {
        with!(self, device => device.raw_fd())
    }

    /// Packets that the kernel dropped since the last call because there was no room.
    pub(super) fn take_ring_drops(&mut self) -> u64 {
        with!(self, device => device.take_ring_drops())
    }

    /// Brings up to date what the metrics say of the receive ring.
    pub(super) fn put_ring_use(&self, metrics: &mut Metrics) {
        match self {
            Self::Packet(device) => device.usage.put(metrics),
            // Its rings are drained at once, and its frames given back as they are.
            Self::Xdp(_) => {}
        }
    }

    /// Looks at the real-time clock anew; it may have been set.
    pub(super) fn refresh_real_time(&mut self) {
        match self {
            Self::Packet(device) => device.refresh_real_time(),
            // Its packets carry no real time.
            Self::Xdp(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_by_their_names() {
        for kind in DeviceKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let error = "xdp".parse::<DeviceKind>().unwrap_err().to_string();
        assert!(DeviceKind::ALL.iter().all(|kind| error.contains(kind.name())), "{error}");
    }
}
