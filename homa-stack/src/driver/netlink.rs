//! Questions to the kernel's routing and neighbour tables (rtnetlink).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use super::sys::{self, Mac};

pub(super) const HEADER_LEN: usize = 16;
/// `rtmsg` and `ndmsg` have the same length.
const BODY_LEN: usize = 12;

// linux/neighbour.h
const NTF_USE: u8 = 0x01;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_STALE: u16 = 0x04;
const NUD_USABLE: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;
// linux/rtnetlink.h
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;

/// How the kernel would send to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Index of the interface.
    pub(super) interface: i32,
    /// Whose MAC address frames go to: the address itself, or a gateway.
    pub(super) next_hop: IpAddr,
    /// The source address that the kernel would use.
    pub(super) source: Option<IpAddr>,
    /// True unless the route is to this host, or to nowhere.
    pub(super) is_unicast: bool,
    /// True if it is to this host.
    pub(super) is_local: bool,
}

/// A connection to the kernel's tables.
#[derive(Debug)]
pub(super) struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let fd = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
        Ok(Self { fd, sequence: 0 })
    }

    /// The route to `addr`.
    ///
    /// # Errors
    ///
    /// `NetworkUnreachable` and the like if there is none.
    pub(super) fn route(&mut self, addr: IpAddr) -> io::Result<Route> {
        let mut body = [0; BODY_LEN];
        body[0] = family(addr);
        body[1] = if addr.is_ipv4() { 32 } else { 128 };
        let reply = self.ask(libc::RTM_GETROUTE, 0, body, &[(RTA_DST, octets(addr))])?;
        let mut route = Route {
            interface: 0,
            next_hop: addr,
            source: None,
            is_unicast: reply.get(HEADER_LEN + 7) == Some(&RTN_UNICAST),
            is_local: reply.get(HEADER_LEN + 7) == Some(&RTN_LOCAL),
        };
        for (kind, value) in attributes(&reply) {
            match kind {
                RTA_OIF => route.interface = value.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b)),
                RTA_GATEWAY => route.next_hop = address(value).unwrap_or(addr),
                RTA_PREFSRC => route.source = address(value),
                _ => {}
            }
        }
        Ok(route)
    }

    /// The MAC address of a neighbour, if the kernel knows it; true if it has not been heard of for some time.
    pub(super) fn neighbour(&mut self, interface: i32, addr: IpAddr) -> io::Result<Option<(Mac, bool)>> {
        let reply =
            match self.ask(libc::RTM_GETNEIGH, 0, neighbour_body(interface, addr, 0), &[(NDA_DST, octets(addr))]) {
                Ok(reply) => reply,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e),
            };
        let mac = neighbour_of(&reply).and_then(|(_, mac)| mac);
        Ok(mac.map(|mac| (mac, neighbour_state(&reply) & NUD_STALE != 0)))
    }

    /// Has the kernel ask for a neighbour's MAC address. Needs CAP_NET_ADMIN.
    pub(super) fn solicit(&mut self, interface: i32, addr: IpAddr) -> io::Result<()> {
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_ACK) as u16;
        let body = neighbour_body(interface, addr, NTF_USE);
        self.ask(libc::RTM_NEWNEIGH, flags, body, &[(NDA_DST, octets(addr))]).map(drop)
    }

    /// Sends a request and returns the first message of the answer, header included.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: [u8; BODY_LEN],
        attributes: &[(u16, Vec<u8>)],
    ) -> io::Result<Vec<u8>> {
        self.sequence += 1;
        let mut message = vec![0; HEADER_LEN];
        message.extend(body);
        for (kind, value) in attributes {
            message.extend(((4 + value.len()) as u16).to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend(value);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        let len = message.len() as u32;
        message[..4].copy_from_slice(&len.to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[6..8].copy_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        message[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        sys::send(&self.fd, &message)?;
        let mut reply = vec![0; 8192];
        loop {
            let len = sys::recv(&self.fd, &mut reply)?;
            let word = |at: usize| reply[at..at + 4].try_into().map(u32::from_ne_bytes).unwrap_or(0);
            if len < HEADER_LEN + 4 || word(8) != self.sequence {
                continue; // an answer to an earlier question that was given up
            }
            let size = (word(0) as usize).clamp(HEADER_LEN, len);
            if u16::from_ne_bytes([reply[4], reply[5]]) == libc::NLMSG_ERROR as u16 {
                let code = word(HEADER_LEN) as i32;
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
            }
            reply.truncate(size);
            return Ok(reply);
        }
    }
}

/// The address that a message about a neighbour names, and its MAC address if that is of use.
pub(super) fn neighbour_of(message: &[u8]) -> Option<(IpAddr, Option<Mac>)> {
    let find = |wanted| attributes(message).find_map(|(kind, value)| (kind == wanted).then_some(value));
    let mac = find(NDA_LLADDR).and_then(|value| value.try_into().ok());
    Some((address(find(NDA_DST)?)?, mac.filter(|_| neighbour_state(message) & NUD_USABLE != 0)))
}

fn neighbour_state(message: &[u8]) -> u16 {
    message.get(HEADER_LEN + 8..HEADER_LEN + 10).map_or(0, |b| u16::from_ne_bytes([b[0], b[1]]))
}

fn neighbour_body(interface: i32, addr: IpAddr, flags: u8) -> [u8; BODY_LEN] {
    let mut body = [0; BODY_LEN];
    body[0] = family(addr);
    body[4..8].copy_from_slice(&interface.to_ne_bytes());
    body[10] = flags;
    body
}

/// The attributes after the header and body of `message`; ends at the first that is malformed.
fn attributes(message: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = message.get(HEADER_LEN + BODY_LEN..).unwrap_or_default();
    std::iter::from_fn(move || {
        let head = rest.first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = rest.get(4..len)?;
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn family(addr: IpAddr) -> u8 {
    (if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|b| Ipv4Addr::from(b).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|b| Ipv6Addr::from(b).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_a_route_to_this_host() {
        let route = Netlink::open().unwrap().route(Ipv4Addr::LOCALHOST.into()).unwrap();
        assert!(!route.is_unicast && route.is_local);
    }

    #[test]
    fn malformed_attributes_end_the_list() {
        let mut message = vec![0; HEADER_LEN + BODY_LEN];
        message.extend([5, 0, 7, 0, 9, 0, 0, 0, 200, 0, 1, 0, 1]);
        assert_eq!(attributes(&message).collect::<Vec<_>>(), [(7, &[9_u8][..])]);
        assert_eq!(attributes(&message[..10]).count(), 0);
    }
}
