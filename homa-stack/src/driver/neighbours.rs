//! Where frames for an address go: answers of the kernel's tables, kept for a while.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::netlink::Netlink;
use super::sys::Mac;
use crate::units::{Instant, Nanos};

/// How long an answer is used before the kernel is asked again.
const KEEP: Nanos = Nanos::from_secs(10);
/// How long an address without an answer is left alone.
const RETRY: Nanos = Nanos::from_millis(1);
/// The discard port: a datagram there makes the kernel resolve its neighbour, and harms nobody.
const DISCARD_PORT: u16 = 9;

/// Why frames can't be sent to an address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No route, or one that leaves by another interface or stays on this host.
    #[error("no route to {addr} by interface {interface}: expected a peer on its network or behind its gateway{why}")]
    NoRoute {
        /// The address.
        addr: IpAddr,
        /// The interface that the stack runs on.
        interface: String,
        /// What the kernel said.
        why: String,
    },
    /// The neighbour does not answer.
    #[error("no MAC address for {next_hop} on {interface}: is the host up and on the same network?")]
    NoNeighbour {
        /// The peer or its gateway.
        next_hop: IpAddr,
        /// The interface that was asked on.
        interface: String,
    },
    /// The kernel's tables can't be read.
    #[error("can't read the kernel's routing tables: {0}")]
    Tables(#[from] io::Error),
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    mac: Option<Mac>,
    until: Instant,
}

/// MAC addresses by destination.
#[derive(Debug)]
pub(super) struct Neighbours {
    netlink: Netlink,
    interface: i32,
    name: String,
    answers: FxHashMap<IpAddr, Answer>,
    /// Times that the kernel was asked about an address again.
    pub(super) refreshes: u64,
}

impl Neighbours {
    pub(super) fn new(interface: i32, name: &str) -> io::Result<Self> {
        Ok(Self {
            netlink: Netlink::open()?,
            interface,
            name: name.to_owned(),
            answers: FxHashMap::default(),
            refreshes: 0,
        })
    }

    /// Where frames for `addr` go, as far as is known; asks the kernel now and then, which takes microseconds, but
    /// never waits for the network.
    pub(super) fn lookup(&mut self, now: Instant, addr: IpAddr) -> Option<Mac> {
        if let Some(answer) = self.answers.get(&addr) {
            if now < answer.until {
                return answer.mac;
            }
            self.refreshes += 1;
        }
        let mac = self.ask(addr).ok().flatten();
        let until = now + if mac.is_some() { KEEP } else { RETRY };
        self.answers.insert(addr, Answer { mac, until });
        mac
    }

    /// Has the MAC address of `addr` known, waiting up to `wait` for the network's answer.
    pub(super) fn resolve(&mut self, now: Instant, addr: IpAddr, wait: Duration) -> Result<Mac, ResolveError> {
        let start = std::time::Instant::now();
        loop {
            if let Some(mac) = self.ask(addr)? {
                self.answers.insert(addr, Answer { mac: Some(mac), until: now + KEEP });
                return Ok(mac);
            }
            if start.elapsed() >= wait {
                let next_hop = self.netlink.route(addr).map_or(addr, |route| route.next_hop);
                return Err(ResolveError::NoNeighbour { next_hop, interface: self.name.clone() });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Asks the kernel once; has it ask the network if it does not know.
    fn ask(&mut self, addr: IpAddr) -> Result<Option<Mac>, ResolveError> {
        let no_route = |why: String| ResolveError::NoRoute { addr, interface: self.name.clone(), why };
        let route = self.netlink.route(addr).map_err(|e| no_route(format!(" ({e})")))?;
        if !route.is_unicast || route.interface != self.interface {
            return Err(no_route(String::new()));
        }
        if let Some(mac) = self.netlink.neighbour(route.interface, route.next_hop)? {
            return Ok(Some(mac));
        }
        if self.netlink.solicit(route.interface, route.next_hop).is_err() {
            // Without CAP_NET_ADMIN: any packet makes the kernel ask.
            let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(any)?.send_to(&[0], (addr, DISCARD_PORT)).ok();
        }
        Ok(None)
    }
}
