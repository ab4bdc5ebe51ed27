//! System calls that std does not wrap: the only place in this crate with `unsafe`.
//!
//! Everything here is safe to call: file descriptors are owned types, buffers are slices, results are `io::Result`.

#![expect(unsafe_code, reason = "namespaces, netlink sockets and pre-exec steps have no safe interface in std")]

mod children;
mod clock;
mod launch;
mod namespace;
mod netlink;
mod offloads;

pub use children::{ends_with_parent, interrupt};
pub use clock::{LocalTime, local_time};
pub use launch::{Launch, SLICE_NS, prepare};
pub use namespace::{
    Namespace, drop_capabilities, effective_capabilities, enter, keep_capabilities, unshare_network, unshare_user,
    user_and_group,
};
pub use netlink::netlink_socket;
pub use offloads::{Offload, offloads};

/// Turns the C convention "negative means look at errno" into a result.
fn check(result: libc::c_int) -> std::io::Result<libc::c_int> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}
