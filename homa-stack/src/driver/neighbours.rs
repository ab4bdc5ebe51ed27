//! Where frames for an address go: answers of the kernel's tables, kept for a while.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::RawFd;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::changes::{Change, Changes};
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
    /// An address of this host.
    #[error("{addr} is an address of this host: frames to it leave by no interface; use another host's")]
    SameHost {
        /// The address.
        addr: IpAddr,
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
    /// The peer itself or a gateway, as far as is known.
    next_hop: IpAddr,
    until: Instant,
}

/// MAC addresses by destination.
#[derive(Debug)]
pub(super) struct Neighbours {
    netlink: Netlink,
    changes: Changes,
    interface: i32,
    name: String,
    answers: FxHashMap<IpAddr, Answer>,
    /// Times that the kernel was asked about an address again.
    pub(super) refreshes: u64,
}

impl Neighbours {
    pub(super) fn new(interface: i32, name: &str) -> io::Result<Self> {
        Ok(Self {
            // First, so that no change between is missed.
            changes: Changes::open(interface)?,
            netlink: Netlink::open()?,
            interface,
            name: name.to_owned(),
            answers: FxHashMap::default(),
            refreshes: 0,
        })
    }

    /// Readable when something has changed: [`Self::follow`] then.
    pub(super) fn changes_fd(&self) -> RawFd {
        self.changes.raw_fd()
    }

    /// Learns what has changed; true if that is the interface itself: its state, MTU or addresses.
    pub(super) fn follow(&mut self) -> bool {
        let (answers, refreshes) = (&mut self.answers, &mut self.refreshes);
        let mut is_changed = false;
        self.changes.read(|change| match change {
            Change::Neighbour(addr, mac) => {
                for answer in answers.values_mut().filter(|answer| answer.next_hop == addr && answer.mac != mac) {
                    match mac {
                        Some(_) => {
                            answer.mac = mac;
                            *refreshes += 1;
                        }
                        None => answer.until = Instant::default(),
                    }
                }
            }
            Change::Routes => answers.values_mut().for_each(|answer| answer.until = Instant::default()),
            Change::Interface => is_changed = true,
        });
        is_changed
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
        let (mac, next_hop) = self.ask(addr).unwrap_or((None, addr));
        let until = now + if mac.is_some() { KEEP } else { RETRY };
        self.answers.insert(addr, Answer { mac, next_hop, until });
        mac
    }

    /// Has the MAC address of `addr` known, waiting up to `wait` for the network's answer.
    pub(super) fn resolve(&mut self, now: Instant, addr: IpAddr, wait: Duration) -> Result<Mac, ResolveError> {
        let start = std::time::Instant::now();
        loop {
            let (mac, next_hop) = self.ask(addr)?;
            if let Some(mac) = mac {
                self.answers.insert(addr, Answer { mac: Some(mac), next_hop, until: now + KEEP });
                return Ok(mac);
            }
            if start.elapsed() >= wait {
                return Err(ResolveError::NoNeighbour { next_hop, interface: self.name.clone() });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Asks the kernel once; has it ask the network if it does not know, or not for certain. Frames by a packet socket
    /// do not count as use of a neighbour, so that the kernel itself would not see that it is gone.
    fn ask(&mut self, addr: IpAddr) -> Result<(Option<Mac>, IpAddr), ResolveError> {
        let no_route = |why: String| ResolveError::NoRoute { addr, interface: self.name.clone(), why };
        let route = self.netlink.route(addr).map_err(|e| no_route(format!(" ({e})")))?;
        if route.is_local {
            return Err(ResolveError::SameHost { addr });
        }
        if !route.is_unicast || route.interface != self.interface {
            return Err(no_route(String::new()));
        }
        let known = self.netlink.neighbour(route.interface, route.next_hop)?;
        if let Some((mac, false)) = known {
            return Ok((Some(mac), route.next_hop));
        }
        if self.netlink.solicit(route.interface, route.next_hop).is_err() {
            // Without CAP_NET_ADMIN: any packet makes the kernel ask.
            let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(any)?.send_to(&[0], (addr, DISCARD_PORT)).ok();
        }
        Ok((known.map(|(mac, _)| mac), route.next_hop))
    }
}
