//! What the endpoint tells its application.

use std::net::SocketAddr;

use super::pool::Lease;
use super::room::Limit;
use crate::units::RpcId;

/// A received message. It holds pages of the receive pool until it is given back with
/// [`Endpoint::release`](super::Endpoint::release).
#[derive(Debug)]
#[must_use = "a message holds pages of the receive pool until it is released"]
pub struct Message {
    pub(crate) lease: Lease,
    pub(crate) len: usize,
}

impl Message {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: messages have at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A request to be answered, or discarded, exactly once: the token is used up by either.
#[derive(Debug)]
#[must_use = "a request is answered with `Endpoint::reply` or given up with `Endpoint::discard`"]
pub struct ServerRpc {
    pub(crate) key: usize,
    pub(crate) id: RpcId,
}

impl ServerRpc {
    /// The RPC's id on this host.
    pub fn id(&self) -> RpcId {
        self.id
    }
}

/// News for the application. Addresses always name the peer.
#[derive(Debug)]
pub enum Event {
    /// A complete request has come to `port`.
    Request {
        /// To answer with.
        rpc: ServerRpc,
        /// Our port.
        port: u16,
        /// The client.
        peer: SocketAddr,
        /// The request.
        msg: Message,
    },
    /// A complete response has come.
    Response {
        /// As [`Endpoint::call`](super::Endpoint::call) returned it.
        id: RpcId,
        /// As given to `call`.
        cookie: u64,
        /// Our port.
        port: u16,
        /// The server.
        peer: SocketAddr,
        /// The response.
        msg: Message,
    },
    /// A call has failed; no response will come.
    Failed {
        /// As `call` returned it.
        id: RpcId,
        /// As given to `call`.
        cookie: u64,
        /// Our port.
        port: u16,
        /// The server.
        peer: SocketAddr,
        /// Why.
        error: RpcError,
    },
    /// There is room again for calls that were refused with [`SendError::WouldBlock`] for this limit.
    Room(Limit),
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The server was silent for too long.
    #[error("timed out: the server was silent for longer than `timeout_ticks`")]
    TimedOut,
    /// The network says that the server's host can't be reached.
    #[error("the server's host is unreachable")]
    PeerUnreachable,
    /// Nobody serves the port.
    #[error("no server at that port")]
    PortUnreachable,
    /// The server's host does not speak Homa.
    #[error("the server's host does not speak Homa")]
    ProtocolUnreachable,
    /// The application gave it up.
    #[error("aborted by the application")]
    Aborted,
}

/// Why a message can't be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Longer than the protocol allows.
    #[error("message of {len} bytes is too long: the limit is {max}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A message must have a byte at least.
    #[error("message is empty: expected at least one byte")]
    Empty,
    /// The port is not ours.
    #[error("port {0} is not bound here: get one from `bind` or `client_port`")]
    NotBound(u16),
    /// The port is taken.
    #[error("port {0} is bound already")]
    PortInUse(u16),
    /// No client port is left.
    #[error("all 32768 client ports are in use: give some up with `unbind`")]
    NoFreePort,
    /// Too much is under way; [`Event::Room`] says when to try again.
    #[error("{0}: try again after `Event::Room`")]
    WouldBlock(Limit),
    /// Not a server port.
    #[error("port {0} is no server port: expected 1 to 32767")]
    BadPort(u16),
}
