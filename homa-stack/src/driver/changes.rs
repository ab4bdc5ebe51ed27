//! News of the kernel's tables: neighbours, routes, links and addresses that change (rtnetlink multicast groups).

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::netlink::{self, HEADER_LEN};
use super::sys::{self, Mac};

// linux/rtnetlink.h: groups as bits.
const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400;

/// More than the kernel puts into one datagram of such news.
const BUFFER: usize = 32 << 10;

/// Something has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// What is known of a neighbour on our interface; no MAC address: it is to be looked for.
    Neighbour(IpAddr, Option<Mac>),
    /// Routes.
    Routes,
    /// Our interface: its state, MTU or addresses.
    Interface,
}

/// A connection that tells of changes.
#[derive(Debug)]
pub(super) struct Changes {
    fd: OwnedFd,
    interface: i32,
    buffer: Vec<u8>,
}

impl Changes {
    /// Changes from now on, as far as they concern the interface of index `interface`.
    pub(super) fn open(interface: i32) -> io::Result<Self> {
        let fd = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
        sys::bind_netlink(&fd, GROUPS)?;
        Ok(Self { fd, interface, buffer: vec![0; BUFFER] })
    }

    /// Readable when something has changed.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Tells `each` what has changed since the last call; never blocks.
    pub(super) fn read(&mut self, mut each: impl FnMut(Change)) {
        loop {
            match sys::recv_now(&self.fd, &mut self.buffer) {
                Ok(len) => parse(&self.buffer[..len], self.interface, &mut each),
                // Some news were lost for want of room: anything may have changed.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    each(Change::Routes);
                    each(Change::Interface);
                }
                Err(_) => return,
            }
        }
    }
}

/// The changes that a datagram tells of; ends at the first message that is malformed.
fn parse(mut datagram: &[u8], interface: i32, each: &mut impl FnMut(Change)) {
    while let Some(header) = datagram.first_chunk::<HEADER_LEN>() {
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let len = word(0) as usize;
        let Some(message) = datagram.get(..len).filter(|m| m.len() >= HEADER_LEN) else { return };
        // The index stands at the same place of `ifinfomsg`, `ifaddrmsg` and `ndmsg`.
        let index = message.get(HEADER_LEN + 4..HEADER_LEN + 8).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
        let is_ours = index == Some(interface);
        match u16::from_ne_bytes([header[4], header[5]]) {
            libc::RTM_NEWNEIGH if is_ours => {
                if let Some((addr, mac)) = netlink::neighbour_of(message) {
                    each(Change::Neighbour(addr, mac));
                }
            }
            libc::RTM_DELNEIGH if is_ours => {
                if let Some((addr, _)) = netlink::neighbour_of(message) {
                    each(Change::Neighbour(addr, None));
                }
            }
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => each(Change::Routes),
            libc::RTM_NEWLINK | libc::RTM_DELLINK if is_ours => each(Change::Interface),
            libc::RTM_NEWADDR | libc::RTM_DELADDR if is_ours => each(Change::Interface),
            _ => {}
        }
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    /// A message about interface 7: of a neighbour in `state`, with its address and MAC address.
    fn message(kind: u16, state: u16) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN + 12];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[HEADER_LEN + 4] = 7;
        bytes[HEADER_LEN + 8..HEADER_LEN + 10].copy_from_slice(&state.to_ne_bytes());
        bytes.extend([8, 0, 1, 0, 10, 0, 0, 2]);
        bytes.extend([10, 0, 2, 0, 2, 1, 1, 1, 1, 1, 0, 0]);
        let len = bytes.len() as u32;
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        bytes
    }

    fn changes(datagram: &[u8], interface: i32) -> Vec<Change> {
        let mut all = Vec::new();
        parse(datagram, interface, &mut |change| all.push(change));
        all
    }

    #[test]
    fn each_message_of_a_datagram_is_read() {
        let addr = Ipv4Addr::new(10, 0, 0, 2).into();
        let (reachable, failed) = (0x02, 0x20);
        let datagram = [
            message(libc::RTM_NEWNEIGH, reachable),
            message(libc::RTM_NEWNEIGH, failed),
            message(libc::RTM_DELNEIGH, reachable),
            message(libc::RTM_DELROUTE, 0),
            message(libc::RTM_NEWLINK, 0),
            message(libc::RTM_DELADDR, 0),
        ]
        .concat();
        let expected = [
            Change::Neighbour(addr, Some([2, 1, 1, 1, 1, 1])),
            Change::Neighbour(addr, None),
            Change::Neighbour(addr, None),
            Change::Routes,
            Change::Interface,
            Change::Interface,
        ];
        assert_eq!(changes(&datagram, 7), expected);
        assert_eq!(changes(&datagram, 8), [Change::Routes], "other interfaces are not ours");
    }

    #[test]
    fn malformed_messages_end_the_datagram() {
        let good = message(libc::RTM_DELROUTE, 0);
        for len in [0_u32, 5, 1000] {
            let mut bad = good.clone();
            bad[..4].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(changes(&[good.clone(), bad, good.clone()].concat(), 7), [Change::Routes], "length {len}");
        }
        for len in 0..good.len() {
            changes(&message(libc::RTM_NEWNEIGH, 2)[..len], 7);
        }
    }
}
