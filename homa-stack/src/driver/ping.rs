//! Frames without a protocol: what the rings and `send` cost by themselves, as the floor for latency figures.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::af_xdp::{Sockets, XdpConfig};
use super::frame::{ETHERNET_LEN, write_ethernet};
use super::host::choose;
use super::neighbours::Neighbours;
use super::nic::DeviceKind;
use super::sys::{self, Mac, RxRing};
use super::xdp_program::ethertype_program;
use super::{OpenError, ResolveError, packet_socket};
use crate::units::Instant;

/// An EtherType for local experiments (IEEE 802, 88B5).
const ETHERTYPE_LOCAL: u16 = 0x88b5;
/// Packets that the receive ring of a [`RawPing`] holds.
pub const RING_PACKETS: usize = 256;

/// Sends and receives plain Ethernet frames the way the Homa driver does by the same kind of device.
#[derive(Debug)]
pub struct RawPing {
    device: Raw,
    neighbours: Neighbours,
    mac: Mac,
}

#[derive(Debug)]
enum Raw {
    Packet {
        fd: OwnedFd,
        ring: RxRing,
        frame: Vec<u8>,
    },
    /// The interface's first queue, since frames of hosts that this is for come there.
    Xdp(Sockets),
}

impl RawPing {
    /// Opens `interface`; `None`: the only one that will do.
    ///
    /// # Errors
    ///
    /// As [`Host::open`](super::Host::open).
    pub fn open(interface: Option<&str>, device: DeviceKind) -> Result<Self, OpenError> {
        Self::open_with_ring(interface, device, RING_PACKETS)
    }

    /// As [`Self::open`]; `packets` (a power of two) may wait in the receive ring.
    ///
    /// # Errors
    ///
    /// As [`Host::open`](super::Host::open).
    pub fn open_with_ring(interface: Option<&str>, device: DeviceKind, packets: usize) -> Result<Self, OpenError> {
        let (interface, _) = choose(interface)?;
        let system = |what: &'static str| move |source: io::Error| OpenError::System { what, source };
        let mac = interface.mac.ok_or_else(|| OpenError::NotEthernet(interface.name.clone()))?;
        let probe = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).map_err(system("a socket"))?;
        let mtu = sys::mtu(&probe, &interface.name).map_err(system("the interface's MTU"))?;
        let device = match device {
            DeviceKind::AfPacket => {
                let (fd, ring) = packet_socket(super::Sockets::raw()?, packets, ETHERNET_LEN + mtu)?;
                sys::bind_packet(&fd, interface.index, ETHERTYPE_LOCAL).map_err(system("binding to the interface"))?;
                Raw::Packet { fd, ring, frame: vec![0; ETHERNET_LEN + mtu] }
            }
            DeviceKind::AfXdp => {
                let program = |map: &OwnedFd| ethertype_program(ETHERTYPE_LOCAL, map);
                Raw::Xdp(Sockets::open(&interface, mtu, packets, XdpConfig::default(), program)?)
            }
        };
        let neighbours = Neighbours::new(interface.index, &interface.name).map_err(system("a netlink socket"))?;
        Ok(Self { device, neighbours, mac })
    }

    /// The MAC address of `addr`, waiting up to `wait` for the network's answer.
    ///
    /// # Errors
    ///
    /// If there is no route, or nobody answers.
    pub fn mac_of(&mut self, addr: IpAddr, wait: Duration) -> Result<[u8; 6], ResolveError> {
        self.neighbours.resolve(Instant::default(), addr, wait)
    }

    /// Sends `payload` in one frame, at once or with the next [`Self::flush`].
    ///
    /// # Errors
    ///
    /// Those of `send`; `InvalidInput` for more bytes than the interface's MTU; `WouldBlock` if there is no room.
    pub fn send(&mut self, to: [u8; 6], payload: &[u8]) -> io::Result<()> {
        let end = ETHERNET_LEN + payload.len();
        let slot = match &mut self.device {
            Raw::Packet { frame, .. } => frame,
            Raw::Xdp(Sockets { queues, .. }) => queues[0].slot().ok_or(io::ErrorKind::WouldBlock)?,
        };
        let frame = slot.get_mut(..end).ok_or(io::ErrorKind::InvalidInput)?;
        write_ethernet(frame, to, self.mac, ETHERTYPE_LOCAL);
        frame[ETHERNET_LEN..].copy_from_slice(payload);
        match &mut self.device {
            Raw::Packet { fd, frame, .. } => sys::send(fd, &frame[..end])?,
            Raw::Xdp(Sockets { queues, .. }) => queues[0].submit(0, end),
        }
        Ok(())
    }

    /// Has everything sent.
    pub fn flush(&mut self) {
        if let Raw::Xdp(Sockets { queues, .. }) = &mut self.device {
            queues[0].kick();
        }
    }

    /// Copies the payload of the next frame to `out`, as far as it fits; returns the sender and the length copied,
    /// or nothing if no frame has come.
    #[inline]
    pub fn recv(&mut self, out: &mut [u8]) -> Option<([u8; 6], usize)> {
        match &mut self.device {
            Raw::Packet { ring, .. } => {
                let received = (ring.fetch(1) > 0).then(|| copy(ring.frame(0).bytes, out));
                ring.release();
                received?
            }
            Raw::Xdp(Sockets { queues, .. }) => {
                let received = (queues[0].fetch(1) > 0).then(|| copy(queues[0].frame(0), out))?;
                queues[0].release();
                received
            }
        }
    }
}

/// The sender of a frame, and how much of its payload was copied to `out`.
fn copy(frame: &[u8], out: &mut [u8]) -> Option<([u8; 6], usize)> {
    let (header, payload) = frame.split_at_checked(ETHERNET_LEN)?;
    let n = payload.len().min(out.len());
    out[..n].copy_from_slice(&payload[..n]);
    Some(([header[6], header[7], header[8], header[9], header[10], header[11]], n))
}
