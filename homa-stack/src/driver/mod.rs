//! Homa on a real interface of Linux, by AF_PACKET: no kernel module, CAP_NET_RAW only.

mod af_packet;
mod clock;
mod frame;
mod host;
mod neighbours;
mod netlink;
mod ping;
mod sys;

use std::io;

pub use clock::counter;
pub use host::{Host, HostConfig, Waker};
pub use neighbours::ResolveError;
pub use ping::RawPing;

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
    /// The interface is down.
    #[error("interface `{0}` is down: bring it up first")]
    Down(String),
    /// The interface has no IP address.
    #[error("interface `{0}` has no IP address: give it one first")]
    NoAddress(String),
    /// The interface has no Ethernet address.
    #[error("interface `{0}` is no Ethernet interface")]
    NotEthernet(String),
    /// The system refused something else.
    #[error("can't get {what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes the error for `what`, which fails without `name`.
fn capability(what: &'static str, name: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => OpenError::Capability { what, capability: name },
        _ => OpenError::System { what, source },
    }
}
