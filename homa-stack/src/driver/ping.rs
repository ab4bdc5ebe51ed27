//! Frames without a protocol: what the rings and `send` cost by themselves, as the floor for latency figures.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::frame::{ETHERNET_LEN, write_ethernet};
use super::host::choose;
use super::neighbours::Neighbours;
use super::sys::{self, Mac, RxRing};
use super::{OpenError, ResolveError, packet_socket};
use crate::units::Instant;

/// An EtherType for local experiments (IEEE 802, 88B5).
const ETHERTYPE_LOCAL: u16 = 0x88b5;
const PACKET_LEN: usize = 1514;

/// Sends and receives plain Ethernet frames the way the Homa driver does: TPACKET_V2 ring in, `send` out.
#[derive(Debug)]
pub struct RawPing {
    fd: OwnedFd,
    ring: RxRing,
    neighbours: Neighbours,
    mac: Mac,
    frame: Vec<u8>,
}

impl RawPing {
    /// Opens `interface`; `None`: the only one that will do.
    ///
    /// # Errors
    ///
    /// As [`Host::open`](super::Host::open).
    pub fn open(interface: Option<&str>) -> Result<Self, OpenError> {
        let (interface, _) = choose(interface)?;
        let system = |what: &'static str| move |source: io::Error| OpenError::System { what, source };
        let mac = interface.mac.ok_or_else(|| OpenError::NotEthernet(interface.name.clone()))?;
        let (fd, ring) = packet_socket(256, PACKET_LEN)?;
        sys::bind_packet(&fd, interface.index, ETHERTYPE_LOCAL).map_err(system("binding to the interface"))?;
        let neighbours = Neighbours::new(interface.index, &interface.name).map_err(system("a netlink socket"))?;
        Ok(Self { fd, ring, neighbours, mac, frame: vec![0; PACKET_LEN] })
    }

    /// The MAC address of `addr`, waiting up to `wait` for the network's answer.
    ///
    /// # Errors
    ///
    /// If there is no route, or nobody answers.
    pub fn mac_of(&mut self, addr: IpAddr, wait: Duration) -> Result<[u8; 6], ResolveError> {
        self.neighbours.resolve(Instant::default(), addr, wait)
    }

    /// Sends `payload` in one frame.
    ///
    /// # Errors
    ///
    /// Those of `send`; `InvalidInput` for more than 1500 bytes.
    pub fn send(&mut self, to: [u8; 6], payload: &[u8]) -> io::Result<()> {
        let end = ETHERNET_LEN + payload.len();
        let frame = self.frame.get_mut(..end).ok_or(io::ErrorKind::InvalidInput)?;
        write_ethernet(frame, to, self.mac, ETHERTYPE_LOCAL);
        frame[ETHERNET_LEN..].copy_from_slice(payload);
        sys::send(&self.fd, frame)
    }

    /// Copies the payload of the next frame to `out`, as far as it fits; returns the sender and the length copied,
    /// or nothing if no frame has come.
    #[inline]
    pub fn recv(&mut self, out: &mut [u8]) -> Option<([u8; 6], usize)> {
        if self.ring.fetch(1) == 0 {
            return None;
        }
        let bytes = self.ring.frame(0).bytes;
        let received = bytes.split_at_checked(ETHERNET_LEN).map(|(header, payload)| {
            let n = payload.len().min(out.len());
            out[..n].copy_from_slice(&payload[..n]);
            ([header[6], header[7], header[8], header[9], header[10], header[11]], n)
        });
        self.ring.release();
        received
    }
}
