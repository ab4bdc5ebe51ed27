//! A userspace Homa transport: wire-compatible with the Linux kernel module (its July 2026 version, "H26"), without
//! it, and without privileges beyond CAP_NET_RAW.
//!
//! Homa is a datacenter transport of remote procedure calls: no connections; short messages are sent at once,
//! unscheduled; longer ones by grants of the receiver, which decides by SRPT and uses network priorities.
//!
//! | layer | module | what it does |
//! | --- | --- | --- |
//! | application | [`api`] | calls, servers and message bodies, for any threads and tasks |
//! | application, inline | | [`Endpoint::call`], [`Endpoint::reply`], [`Endpoint::poll_event`] |
//! | protocol | [`proto`] | the state machine, sans-IO: no clock, socket or thread in it |
//! | bytes | [`wire`] | packets to values and back |
//! | loop | [`device`] | one turn: packets in, timers, packets out, on anything that is a [`device::Device`] |
//! | network | [`driver`] | AF_PACKET or AF_XDP on an interface, run by the thread that uses it |
//! | observation | [`trace`], [`metrics`] | time traces and counters in the kernel module's formats |
//!
//! A packet that comes in: kernel -> receive ring (`driver`) -> [`device::turn`] -> [`Endpoint::handle_packet`] -> its
//! bytes into the receive pool -> [`Event`]. A message that goes out: [`Endpoint::call`] -> transmit queue, SRPT ->
//! [`Endpoint::poll_transmit`] -> `send`. Both in one thread, the caller's.
//!
//! [`Endpoint`] has a runnable example without a network; `examples/` has an echo server and client
//! and a file transfer on a real one.

pub mod api;
pub mod device;
#[cfg(feature = "driver")]
pub mod driver;
pub mod metrics;
pub mod proto;
pub mod trace;
pub mod units;
pub mod wire;

pub use proto::policy;
pub use proto::{
    Arriving, Body, BodyReader, Config, Endpoint, Event, Limit, Message, Payload, Progress, RpcError, SendError,
    ServerRpc, Transmit,
};
pub use units::{Instant, Nanos, Priority, RpcId};
