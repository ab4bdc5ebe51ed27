//! Sockets, event sets and the descriptor that ends a sleep.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::errors::Missing;

/// Longest wait for a server to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Events taken in one wait.
const EVENTS: usize = 20;

/// Connects to `addr`, without delayed sending and non-blocking; `cc` is the congestion control.
///
/// # Errors
/// If nothing listens there, it does not answer in 5 s, or the congestion control is not to be had.
pub(super) fn connect(addr: SocketAddr, cc: Option<&str>) -> Result<TcpStream> {
    let socket = open(addr, cc)?;
    match rustix::net::connect(&socket, &addr) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            if !wait_for(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(CONNECT_LIMIT))? {
                bail!("no answer within {} s", CONNECT_LIMIT.as_secs());
            }
            sockopt::socket_error(&socket)?.map_err(refused)?;
        }
        Err(errno) => return Err(refused(errno)),
    }
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(TcpStream::from(socket))
}

fn refused(errno: Errno) -> anyhow::Error {
    match errno {
        Errno::CONNREFUSED => anyhow!("nothing listens there: start `server --protocol tcp` on that node first"),
        other => io::Error::from(other).into(),
    }
}

/// Listens on `port` of all addresses, non-blocking.
///
/// # Errors
/// If the port is taken, or the congestion control is not to be had.
pub(super) fn listen(port: u16, ipv6: bool, cc: Option<&str>) -> Result<TcpListener> {
    let addr: SocketAddr =
        if ipv6 { (Ipv6Addr::UNSPECIFIED, port).into() } else { (Ipv4Addr::UNSPECIFIED, port).into() };
    let socket = open(addr, cc)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    let bound = rustix::net::bind(&socket, &addr).and_then(|()| rustix::net::listen(&socket, 1024));
    bound.with_context(|| format!("can't listen on TCP port {port}; choose another with --first-port"))?;
    Ok(TcpListener::from(socket))
}

/// A non-blocking socket. The congestion control is set before the handshake, as some need ECN negotiated there.
fn open(addr: SocketAddr, cc: Option<&str>) -> Result<OwnedFd> {
    let family = if addr.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(family, SocketType::STREAM, flags, None).context("can't make a TCP socket")?;
    if let Some(name) = cc {
        sockopt::set_tcp_congestion(&socket, name).map_err(|errno| {
            let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
            Missing(format!(
                "can't use TCP congestion control `{name}` ({}); this kernel has loaded: {}",
                io::Error::from(errno),
                known.as_deref().unwrap_or("unknown").trim()
            ))
        })?;
    }
    Ok(socket)
}

/// Sleeps until one of `fds` is ready or `limit` is over; true if one is ready.
pub(super) fn wait_for(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> io::Result<bool> {
    let limit = limit.map(|l| Timespec { tv_sec: l.as_secs() as i64, tv_nsec: l.subsec_nanos().into() });
    match poll(fds, limit.as_ref()) {
        Ok(n) => Ok(n > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Lets this thread's sleeps end on time instead of up to 50 us late.
pub(super) fn sleep_precisely() {
    // A kernel that refuses only makes sleeps less exact.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// A descriptor that becomes readable when another thread says so.
pub(super) struct Signal(OwnedFd);

impl Signal {
    /// A signal that is not set.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes it readable.
    pub(super) fn set(&self) {
        // Fails only if it has been set 2^64 times and never cleared: it is set then.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes it unreadable.
    pub(super) fn clear(&self) {
        // Fails only if it is not set.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An event of an [`EventSet`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    /// As given when the descriptor was added.
    pub(super) token: u64,
    /// After the data that is there the stream ends. The end comes with no event of its own if it was there already.
    pub(super) ends: bool,
}

fn has_ended(flags: epoll::EventFlags) -> bool {
    flags.intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
}

/// A set of descriptors to wait for, shared by threads.
pub(super) struct EventSet(OwnedFd);

impl EventSet {
    /// An empty set.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Adds `source`; its events carry `token`. With `edge`, each change wakes one thread once, also when the source
    /// becomes writable; without, all threads are woken as long as it is readable.
    pub(super) fn add(&self, source: impl AsFd, token: u64, edge: bool) -> io::Result<()> {
        let flags = if edge {
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET
        } else {
            epoll::EventFlags::IN
        };
        Ok(epoll::add(&self.0, source, epoll::EventData::new_u64(token), flags)?)
    }

    /// Removes `source`.
    pub(super) fn remove(&self, source: impl AsFd) {
        // Fails only if it is not in the set.
        let _ = epoll::delete(&self.0, source);
    }

    /// Sleeps until there are events, which replace the content of `ready`. May return without any.
    pub(super) fn wait(&self, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.0, spare_capacity(&mut events), None) {
            Ok(_) => ready.extend(events.iter().map(|e| Ready { token: e.data.u64(), ends: has_ended(e.flags) })),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_wakes_until_it_is_cleared() {
        let signal = Signal::new().unwrap();
        let ready = || wait_for(&mut [PollFd::new(&signal, PollFlags::IN)], Some(Duration::ZERO)).unwrap();
        assert!(!ready());
        signal.set();
        signal.set();
        assert!(ready());
        signal.clear();
        assert!(!ready());
    }

    #[test]
    fn an_unknown_congestion_control_is_named_with_those_there_are() {
        let error = listen(0, false, Some("no-such")).unwrap_err();
        assert!(error.is::<Missing>());
        assert!(format!("{error:#}").contains("no-such"), "{error:#}");
    }

    #[test]
    fn a_refused_connection_says_what_to_do() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = connect(free, None).unwrap_err();
        assert!(format!("{error:#}").contains("server"), "{error:#}");
    }
}
