//! Route netlink, as much as a testbed needs: interfaces, addresses, answers. Spoken directly, so that no external
//! program has to be installed. Layouts: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys;

pub mod traffic;

/// `NLMSG_ERROR`, the type of an answer that carries a status.
const ANSWER: u16 = 2;
/// `NLM_F_ACK`: answer with a status in any case.
const ACK: u16 = 0x4;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST: u16 = 0x1 | ACK;
/// `NLM_F_CREATE | NLM_F_EXCL`: make a new object; an existing one is an error.
const CREATE: u16 = 0x400 | 0x200;

/// An interface to create. The index of the result is not known; ask [`Netlink::index`].
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Name, at most 15 bytes.
    pub name: &'a str,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Namespace in which it is to appear; `None`: the one of the socket.
    pub namespace: Option<BorrowedFd<'a>>,
    /// Index of the bridge that it becomes a port of.
    pub bridge: Option<u32>,
    /// Most frames that a packet of the kernel's own protocols may stand for; `None`: as many as it likes (TSO).
    pub gso_max_frames: Option<u32>,
}

/// A socket to the kernel's tables of one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: File,
    sequence: u32,
}

impl Netlink {
    /// For the namespace in which the calling thread is now; it may leave afterwards.
    ///
    /// # Errors
    /// As socket(2).
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: sys::netlink_socket()?, sequence: 0 })
    }

    /// Creates a bridge that is up, forwards at once (no spanning tree) and floods multicast instead of learning who
    /// listens (snooping sends queries of its own, which would appear in measurements).
    ///
    /// # Errors
    /// The kernel's answer: no permission, no bridge support, name taken.
    pub fn add_bridge(&mut self, name: &str, mtu: u32) -> io::Result<()> {
        let mut message = Message::link(0, true);
        message.text(IFLA_IFNAME, name).u32(IFLA_MTU, mtu);
        message.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge");
            info.nest(IFLA_INFO_DATA, |data| {
                data.bytes(IFLA_BR_MCAST_SNOOPING, &[0]).u32(IFLA_BR_FORWARD_DELAY, 0);
            });
        });
        self.request(RTM_NEWLINK, CREATE, message).map(drop)
    }

    /// Creates a pair of connected interfaces; `near` is up at once, `far` when its owner says so.
    ///
    /// # Errors
    /// As [`Netlink::add_bridge`].
    pub fn add_veth(&mut self, near: &End<'_>, far: &End<'_>, mtu: u32) -> io::Result<()> {
        let mut message = Message::link(0, true);
        message.end(near, mtu);
        message.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth");
            info.nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.0.extend_from_slice(&Message::link(0, false).0);
                    peer.end(far, mtu);
                });
            });
        });
        self.request(RTM_NEWLINK, CREATE, message).map(drop)
    }

    /// Switches the interface on.
    ///
    /// # Errors
    /// No such index, no permission.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.request(RTM_NEWLINK, 0, Message::link(index, true)).map(drop)
    }

    /// Switches the interface off.
    ///
    /// # Errors
    /// No such index, no permission.
    pub fn set_down(&mut self, index: u32) -> io::Result<()> {
        let mut message = Message::link(index, false);
        // struct ifinfomsg ends with the flags that change.
        message.0[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
        self.request(RTM_NEWLINK, 0, message).map(drop)
    }

    /// Gives the interface an address; the kernel adds the route to the network it lies in. One of IPv6 is usable at
    /// once, without a search for others that have it.
    ///
    /// # Errors
    /// No such index, address taken, no permission, IPv6 disabled on the interface.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        // struct ifaddrmsg: family, prefix length, flags, scope (universe), index.
        let begin = |family, flags| {
            let mut message = Message(vec![family, prefix, flags, 0]);
            message.0.extend_from_slice(&index.to_ne_bytes());
            message
        };
        let message = match address {
            IpAddr::V4(address) => {
                let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
                let broadcast = Ipv4Addr::from_bits(address.to_bits() | host_bits);
                let mut message = begin(AF_INET, 0);
                message.bytes(IFA_ADDRESS, &address.octets()).bytes(IFA_LOCAL, &address.octets());
                message.bytes(IFA_BROADCAST, &broadcast.octets());
                message
            }
            IpAddr::V6(address) => {
                let mut message = begin(AF_INET6, IFA_F_NODAD);
                message.bytes(IFA_ADDRESS, &address.octets()).bytes(IFA_LOCAL, &address.octets());
                message
            }
        };
        self.request(RTM_NEWADDR, CREATE, message).map(drop)
    }

    /// Index of the interface called `name`.
    ///
    /// # Errors
    /// `ENODEV` if there is none.
    pub fn index(&mut self, name: &str) -> io::Result<u32> {
        self.link_word(name, 4)
    }

    /// Whether the interface called `name` is up and its other end too, and its queues are in place: before that, the
    /// kernel drops what is sent.
    ///
    /// # Errors
    /// `ENODEV` if there is none.
    pub fn is_running(&mut self, name: &str) -> io::Result<bool> {
        Ok(self.link_word(name, 8)? & IFF_RUNNING != 0)
    }

    /// A word of struct ifinfomsg, in which the index and the flags follow family, padding and device type.
    fn link_word(&mut self, name: &str, at: usize) -> io::Result<u32> {
        let mut message = Message::link(0, false);
        message.text(IFLA_IFNAME, name);
        let answer = self.request(RTM_GETLINK, 0, message)?;
        let word = answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
        word.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "netlink: answer about a link is too short"))
    }

    /// Sends one request and waits for its status; returns the body of the last answer that was not a status.
    fn request(&mut self, kind: u16, flags: u16, message: Message) -> io::Result<Vec<u8>> {
        self.send(kind, REQUEST | flags, &message)?;
        let mut body = Vec::new();
        let mut datagram = vec![0; 32 * 1024];
        loop {
            let len = self.receive(&mut datagram)?;
            for part in parts(&datagram[..len]) {
                match (part.kind, part.sequence == self.sequence) {
                    (_, false) => {} // the answer to a request that was given up
                    (ANSWER, true) => return part.status().map(|()| body),
                    (_, true) => body = part.body.to_vec(),
                }
            }
        }
    }

    /// Sends one request, with a number of its own.
    fn send(&mut self, kind: u16, flags: u16, message: &Message) -> io::Result<()> {
        self.sequence += 1;
        self.socket.write_all(&envelope(kind, flags, self.sequence, &message.0))
    }

    /// One datagram of answers; its length.
    fn receive(&mut self, datagram: &mut [u8]) -> io::Result<usize> {
        match self.socket.read(datagram)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            len => Ok(len),
        }
    }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
// linux/if_addr.h
const IFA_F_NODAD: u8 = 0x02;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_GSO_MAX_SEGS: u16 = 40;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 0x40;

/// A message body under construction: a fixed struct, then attributes, each padded to four bytes.
#[derive(Debug)]
struct Message(Vec<u8>);

impl Message {
    /// Starts with struct ifinfomsg: family and padding, type, index, flags, mask of the flags to change.
    fn link(index: u32, up: bool) -> Self {
        let flags = if up { IFF_UP } else { 0 };
        let mut bytes = vec![0; 4];
        for word in [index, flags, flags] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        Self(bytes)
    }

    fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.nest(kind, |message| message.0.extend_from_slice(value))
    }

    fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.nest(kind, |message| {
            message.0.extend_from_slice(value.as_bytes());
            message.0.push(0);
        })
    }

    fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// An attribute whose value `fill` appends: other attributes, as a rule.
    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        fill(self);
        let len = u16::try_from(self.0.len() - start).expect("attributes here are a few hundred bytes");
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.0[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// The attributes of one new interface.
    fn end(&mut self, end: &End<'_>, mtu: u32) {
        self.text(IFLA_IFNAME, end.name).u32(IFLA_MTU, mtu).bytes(IFLA_ADDRESS, &end.mac);
        if let Some(bridge) = end.bridge {
            self.u32(IFLA_MASTER, bridge);
        }
        if let Some(namespace) = end.namespace {
            self.u32(IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned());
        }
        if let Some(frames) = end.gso_max_frames {
            self.u32(IFLA_GSO_MAX_SEGS, frames);
        }
    }
}

/// struct nlmsghdr and the body.
fn envelope(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + body.len()).expect("messages here are a few hundred bytes");
    let mut bytes = Vec::with_capacity(16 + body.len());
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// One message of a datagram.
struct Part<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Part<'_> {
    /// What a status says: zero, or a negated errno.
    fn status(&self) -> io::Result<()> {
        match self.body.get(..4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "netlink: status without a code")),
        }
    }
}

/// Splits a datagram; stops at the first message whose length cannot be right.
fn parts(datagram: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let word = |at: usize| rest.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let len = usize::try_from(word(0)?).ok().filter(|len| (16..=rest.len()).contains(len))?;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let part = Part { kind, sequence: word(8)?, body: &rest[16..len] };
        rest = &rest[len.next_multiple_of(4).min(rest.len())..];
        Some(part)
    })
}

/// Walks attributes: type and value; stops at the first whose length cannot be right.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let half = |at: usize| rest.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
        let len = usize::from(half(0)?);
        let value = rest.get(4..len)?;
        let kind = half(2)? & 0x3fff; // without the flags for nesting and byte order
        rest = &rest[len.next_multiple_of(4).min(rest.len())..];
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_but_their_length_is_not() {
        let mut message = Message(Vec::new());
        message.text(IFLA_IFNAME, "br0").bytes(IFLA_BR_MCAST_SNOOPING, &[7]);
        let mut want = Vec::new();
        want.extend_from_slice(&8u16.to_ne_bytes());
        want.extend_from_slice(&3u16.to_ne_bytes());
        want.extend_from_slice(b"br0\0");
        want.extend_from_slice(&5u16.to_ne_bytes());
        want.extend_from_slice(&23u16.to_ne_bytes());
        want.extend_from_slice(&[7, 0, 0, 0]);
        assert_eq!(message.0, want);
    }

    #[test]
    fn a_nested_attribute_covers_its_children_with_padding() {
        let mut message = Message(Vec::new());
        message.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth");
        });
        // 4 bytes of header, then the child: 4 + 5 bytes, padded to 12.
        assert_eq!(message.0.len(), 16);
        assert_eq!(message.0[..2], 16u16.to_ne_bytes());
    }

    #[test]
    fn a_link_message_is_sixteen_bytes_with_flag_and_mask() {
        let up = Message::link(5, true).0;
        assert_eq!(up.len(), 16);
        assert_eq!(up[4..8], 5u32.to_ne_bytes());
        assert_eq!((&up[8..12], &up[12..16]), (&1u32.to_ne_bytes()[..], &1u32.to_ne_bytes()[..]));
    }

    #[test]
    fn answers_are_split_and_their_status_is_read() {
        let mut datagram = envelope(RTM_NEWLINK, 0, 3, &[1, 2, 3]);
        datagram.resize(datagram.len().next_multiple_of(4), 0);
        datagram.extend(envelope(ANSWER, 0, 3, &(-1i32).to_ne_bytes()));
        let found: Vec<_> = parts(&datagram).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].kind, found[0].body), (RTM_NEWLINK, &[1u8, 2, 3][..]));
        assert_eq!(found[1].status().unwrap_err().raw_os_error(), Some(1));
    }

    #[test]
    fn cut_and_lying_datagrams_end_the_walk() {
        let whole = envelope(ANSWER, 0, 1, &0i32.to_ne_bytes());
        for cut in 0..whole.len() {
            assert_eq!(parts(&whole[..cut]).count(), 0, "cut at {cut}");
        }
        let mut lying = whole;
        lying[0] = 3; // shorter than its own header
        assert_eq!(parts(&lying).count(), 0);
    }
}
