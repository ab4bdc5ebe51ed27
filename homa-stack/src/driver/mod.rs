//! Homa on a real interface of Linux, without a kernel module: by AF_PACKET, with CAP_NET_RAW only, or by AF_XDP.

mod af_packet;
mod af_xdp;
mod changes;
mod clock;
mod filter;
mod frame;
mod gather;
mod group;
mod host;
mod ingress;
mod neighbours;
mod netlink;
mod nic;
mod ping;
mod privileges;
mod readiness;
mod ring_use;
mod sockets;
mod stamps;
mod steering;
mod sys;
mod xdp_program;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

pub use af_xdp::{XdpConfig, XdpMode};
pub use clock::counter;
pub use frame::Framing;
pub use group::{MOST_WORKERS, open_group};
pub use host::{Host, HostConfig, Waker};
pub use neighbours::ResolveError;
pub use nic::{DeviceKind, UnknownDevice};
pub use ping::{RING_PACKETS, RawPing};
pub use privileges::drop_privileges;
pub(crate) use readiness::Readiness;
pub use sockets::{Sockets, WrongDescriptors};

use sys::RxRing;

/// Why a [`Host`] can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A privilege is missing.
    #[error(
        "{what} needs {capability} in this network namespace: run as root, give the program the capability, or run in a user namespace of your own"
    )]
    Capability {
        /// What was tried.
        what: &'static str,
        /// The capability's name.
        capability: &'static str,
    },
    /// The interface asked for does not exist.
    #[error("no interface `{name}` in this network namespace: there are {present}")]
    NoSuchInterface {
        /// Name asked for.
        name: String,
        /// Names of those that exist.
        present: String,
    },
    /// No interface was named, and there is not exactly one to choose.
    #[error(
        "can't choose an interface: expected exactly one that is up, not loopback and has an address, found {usable}; name one"
    )]
    ChooseInterface {
        /// Names of those that would do.
        usable: String,
    },
    /// Options that don't go together.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// The interface is down.
    #[error("interface `{0}` is down: bring it up first")]
    Down(String),
    /// The address asked for is not the interface's.
    #[error("interface `{interface}` does not have the address {addr}: it has {present}")]
    NoSuchAddress {
        /// The interface.
        interface: String,
        /// Address asked for.
        addr: IpAddr,
        /// Those that it has.
        present: String,
    },
    /// The interface has no IP address.
    #[error("interface `{0}` has no IP address: give it one first")]
    NoAddress(String),
    /// The interface has no Ethernet address.
    #[error("interface `{0}` is no Ethernet interface")]
    NotEthernet(String),
    /// AF_XDP can't be had.
    #[error(
        "can't get {what} (MTU {mtu}): {source}; {advice}, or use the AF_PACKET device, which needs CAP_NET_RAW alone"
    )]
    Xdp {
        /// What was asked for.
        what: &'static str,
        /// MTU of the interface, bytes.
        mtu: usize,
        /// What the system said.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// A group of no workers, or of too many.
    #[error("can't open {count} workers: expected 1 to {most}")]
    Workers {
        /// Workers asked for.
        count: usize,
        /// Workers possible.
        most: usize,
    },
    /// Several workers by AF_XDP, which gives packets to sockets by the interface's queues.
    #[error("AF_XDP does not steer packets by RPC: expected one worker, or the AF_PACKET device")]
    WorkersByXdp,
    /// The system refused something else.
    #[error("can't get {what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Gives the packet socket `fd` a receive ring of `frames` frames of `len` bytes; it neither sees what this host sends nor
/// queues it. It receives nothing before it is bound, so that a filter can be set first.
fn packet_socket(fd: OwnedFd, frames: usize, len: usize) -> Result<(OwnedFd, RxRing), OpenError> {
    let system = |what: &'static str| move |source: io::Error| OpenError::System { what, source };
    let ring = RxRing::new(&fd, frames, len).map_err(system("a receive ring"))?;
    for (option, what) in
        [(libc::PACKET_IGNORE_OUTGOING, "PACKET_IGNORE_OUTGOING"), (libc::PACKET_QDISC_BYPASS, "PACKET_QDISC_BYPASS")]
    {
        sys::set_option(&fd, libc::SOL_PACKET, option, &1_i32).map_err(system(what))?;
    }
    Ok((fd, ring))
}

/// Makes the error for `what`, which fails without `name`.
fn capability(what: &'static str, name: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => OpenError::Capability { what, capability: name },
        _ => OpenError::System { what, source },
    }
}
