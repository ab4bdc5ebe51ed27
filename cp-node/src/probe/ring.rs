//! Probe without a protocol: Ethernet frames through the packet rings that the Homa driver uses. The floor.

use std::net::IpAddr;

use anyhow::{Context, Result};
use homa_stack::driver::{DeviceKind, RawPing};

use super::sockets::spin;
use super::{RESOLVE_LIMIT, RoundTrip, missing, unreachable_peer};

/// Longest payload of a frame.
const BUFFER: usize = 1500;

/// Echoes frames, spinning, for ever.
pub(super) fn serve(interface: Option<&str>, device: DeviceKind, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut ring = RawPing::open(interface, device).map_err(missing)?;
    ready()?;
    let mut buffer = [0; BUFFER];
    loop {
        match ring.recv(&mut buffer) {
            // A response that can't be sent shows as an error at the client.
            Some((from, len)) => {
                drop(ring.send(from, &buffer[..len]));
                ring.flush();
            }
            None => std::hint::spin_loop(),
        }
    }
}

/// The client's end.
pub(super) struct Client {
    ring: RawPing,
    to: [u8; 6],
}

impl Client {
    pub(super) fn open(interface: Option<&str>, device: DeviceKind, peer: IpAddr) -> Result<Self> {
        let mut ring = RawPing::open(interface, device).map_err(missing)?;
        let to = ring.mac_of(peer, RESOLVE_LIMIT).with_context(|| unreachable_peer(peer))?;
        Ok(Self { ring, to })
    }
}

impl RoundTrip for Client {
    fn round_trip(&mut self, request: &[u8]) -> Result<bool> {
        self.ring.send(self.to, request).context("sending a frame failed")?;
        self.ring.flush();
        let mut buffer = [0; BUFFER];
        // Short frames come padded, and an earlier response may come late.
        spin(|| Ok(self.ring.recv(&mut buffer).is_some_and(|(_, len)| buffer[..len].starts_with(request))))
    }
}
