//! Kernel TCP: one connection for each pair of client port and server port, non-blocking.

mod client;
mod outbox;
mod sender;
mod server;
mod socket;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

pub(crate) use client::open_client;
pub(crate) use server::open_server;

/// Bytes that one read takes at most.
const READ_SIZE: usize = 100_000;
/// A spinning thread that found nothing for so long sleeps until there is something: an idle node costs no core.
const SPIN_IDLE: Duration = Duration::from_millis(10);
/// Reads without success after which a spinning thread lets others run.
const SPIN_YIELD: u32 = 32;

/// True if the peer is on a private network or this machine; test hosts can often be reached from everywhere.
fn is_private(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback(),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_private(v4.into()),
            None => v6 == Ipv6Addr::LOCALHOST || v6.is_unique_local() || v6.is_unicast_link_local(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_peers_are_let_in() {
        for addr in [
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.1",
            "192.168.9.9",
            "127.0.0.1",
            "fd00::1",
            "fc00::1",
            "fe80::1",
            "::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_private(addr.parse().unwrap()), "{addr}");
        }
        for addr in [
            "8.8.8.8",
            "172.32.0.1",
            "172.15.0.1",
            "192.169.0.1",
            "11.0.0.1",
            "2001:db8::1",
            "::ffff:8.8.8.8",
            "0.0.0.0",
        ] {
            assert!(!is_private(addr.parse().unwrap()), "{addr}");
        }
    }
}
