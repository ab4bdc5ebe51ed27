//! What the kernel says about a network interface, by rtnetlink: /sys shows those of the namespace that it was mounted in.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// A request and its number, linux/rtnetlink.h and linux/netlink.h.
const REQUEST: u16 = 1;
const GET_LINK: u16 = 18;
const NEW_LINK: u16 = 16;
const ERROR: u16 = 2;
/// Attributes, linux/if_link.h.
const NAME: u16 = 3;
const MTU: u16 = 4;
const CARRIER: u16 = 33;
/// Lengths of `nlmsghdr` and `ifinfomsg`, bytes.
const HEADER: usize = 16;
const ABOUT: usize = 16;

/// An interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// Bytes.
    pub(super) mtu: Option<u32>,
    /// Whether it has a link; one that is not up has none.
    pub(super) carrier: bool,
}

/// Asks about an interface.
///
/// # Errors
/// As netlink(7): `ENODEV` if there is none of this name.
pub(super) fn ask(name: &str) -> io::Result<Link> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &request(name), SendFlags::empty())?;
    let mut buffer = vec![0; 32 * 1024];
    let (_, len) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
    parse(&buffer[..len])
}

/// Names of all interfaces.
pub(super) fn names() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

fn request(name: &str) -> Vec<u8> {
    let attribute = 4 + name.len() + 1;
    let whole = HEADER + ABOUT + attribute.next_multiple_of(4);
    let mut bytes = Vec::with_capacity(whole);
    bytes.extend_from_slice(&(whole as u32).to_ne_bytes());
    bytes.extend_from_slice(&GET_LINK.to_ne_bytes());
    bytes.extend_from_slice(&REQUEST.to_ne_bytes());
    bytes.resize(HEADER + ABOUT, 0); // any number, any family, no flags
    bytes.extend_from_slice(&(attribute as u16).to_ne_bytes());
    bytes.extend_from_slice(&NAME.to_ne_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes.resize(whole, 0);
    bytes
}

fn parse(bytes: &[u8]) -> io::Result<Link> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "an answer of netlink that is too short");
    let two = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let four = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    match two(4).ok_or_else(short)? {
        NEW_LINK => {}
        ERROR => {
            let code = four(HEADER).ok_or_else(short)?.cast_signed();
            return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
        }
        other => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("netlink answers with type {other}"))),
    }
    let (mut link, mut at) = (Link::default(), HEADER + ABOUT);
    while let (Some(len), Some(kind)) = (two(at), two(at + 2)) {
        match kind {
            MTU => link.mtu = four(at + 4),
            CARRIER => link.carrier = bytes.get(at + 4) == Some(&1),
            _ => {}
        }
        at += usize::from(len.max(4)).next_multiple_of(4);
    }
    Ok(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_and_others_are_not() {
        assert!(ask("lo").unwrap().mtu.unwrap() >= 1500);
        assert_eq!(ask("no-such-if").unwrap_err().kind(), io::Error::from_raw_os_error(19).kind());
        assert!(names().contains(&"lo".to_owned()));
    }

    #[test]
    fn answers_of_any_length_are_no_harm() {
        let mut whole = vec![0; HEADER + ABOUT];
        whole[4..6].copy_from_slice(&NEW_LINK.to_ne_bytes());
        whole.extend([8, 0, 4, 0, 0xdc, 5, 0, 0, 5, 0, 33, 0, 1, 0, 0, 0]);
        assert_eq!(parse(&whole).unwrap(), Link { mtu: Some(1500), carrier: true });
        for len in 0..whole.len() {
            let _ = parse(&whole[..len]);
        }
    }
}
