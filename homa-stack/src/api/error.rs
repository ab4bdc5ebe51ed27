//! What can go wrong with a call, a reply, or the thread that carries them out.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::proto::{RpcError, SendError};

/// Why a call has no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The RPC failed on the network or at the peer.
    #[error("call to {peer} failed: {error}")]
    Failed {
        /// The server.
        peer: SocketAddr,
        /// Why.
        error: RpcError,
    },
    /// The message can't be sent.
    #[error("call to {peer} not sent: {error}")]
    NotSent {
        /// The server.
        peer: SocketAddr,
        /// Why.
        error: SendError,
    },
    /// No response within the time set; the call was given up.
    #[error("call to {peer} was not answered within {timeout:?}: the server is slow, or the time too short")]
    Deadline {
        /// The server.
        peer: SocketAddr,
        /// The time set.
        timeout: Duration,
    },
    /// As many calls are under way as may be. This is back-pressure: nothing is wrong.
    #[error("{limit} calls are under way, as many as may be: take results first, or raise the limit (`{option}`)")]
    Full {
        /// The limit.
        limit: usize,
        /// What to raise.
        option: &'static str,
    },
    /// The thread that runs the protocol has ended.
    #[error("the protocol's thread has ended: {0}")]
    Stopped(#[from] Stopped),
}

/// The thread that runs the protocol has ended, or is about to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("it was shut down, or failed: `Handle::shutdown` tells which")]
pub struct Stopped;

/// Why a server or client can't have a port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The port is taken or no server port, or none is left.
    #[error("no port: {0}")]
    Port(#[from] SendError),
    /// The thread that runs the protocol has ended.
    #[error("no port, the protocol's thread has ended: {0}")]
    Stopped(#[from] Stopped),
}

/// Why a reply was not accepted. The request is given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Empty or too long.
    #[error("reply to {peer} not sent: {error}")]
    NotSent {
        /// The client.
        peer: SocketAddr,
        /// Why.
        error: SendError,
    },
    /// The thread that runs the protocol has ended.
    #[error("reply not sent, the protocol's thread has ended: {0}")]
    Stopped(#[from] Stopped),
}

impl CallError {
    /// True for back-pressure: the same call may succeed once results were taken or messages have left.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

impl From<CallError> for io::Error {
    fn from(error: CallError) -> Self {
        let kind = match &error {
            CallError::Full { .. } => io::ErrorKind::WouldBlock,
            CallError::Deadline { .. } | CallError::Failed { error: RpcError::TimedOut, .. } => io::ErrorKind::TimedOut,
            CallError::Failed { error: RpcError::PeerUnreachable, .. } => io::ErrorKind::HostUnreachable,
            CallError::Failed { error: RpcError::PortUnreachable, .. } => io::ErrorKind::ConnectionRefused,
            CallError::NotSent { .. } => io::ErrorKind::InvalidInput,
            CallError::Failed { .. } | CallError::Stopped(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_peer_and_say_what_to_do_and_keep_their_kind() {
        let peer = SocketAddr::from(([10, 0, 0, 2], 7));
        let timed_out = CallError::Failed { peer, error: RpcError::TimedOut };
        assert!(timed_out.to_string().contains("10.0.0.2:7"));
        assert_eq!(io::Error::from(timed_out).kind(), io::ErrorKind::TimedOut);
        let full = CallError::Full { limit: 3, option: "RunnerConfig::max_calls" };
        assert!(full.is_full() && full.to_string().contains("take results first"));
        assert_eq!(io::Error::from(full).kind(), io::ErrorKind::WouldBlock);
    }
}
