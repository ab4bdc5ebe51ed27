//! Giving calls up, one or many, with an error that is told. Source: homa-protocol.md 2.8.
//!
//! No packet tells the server: its response finds nobody, and is dropped when it asks for its ACK.

use std::net::{IpAddr, SocketAddr};

use super::endpoint::Endpoint;
use super::event::RpcError;
use super::rpc::Rpc;
use crate::units::RpcId;

/// Which calls are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// All to a host.
    Peer(IpAddr),
    /// All to a port of a host.
    Server(SocketAddr),
    /// All from a port of ours.
    Port(u16),
}

impl Endpoint {
    /// Gives up a call without a word: no event about it follows. Without effect if it is over; the end of a private
    /// call that nobody took is dropped.
    pub fn abort(&mut self, id: RpcId) {
        self.settle();
        if let Some(&key) = self.clients.get(&id.get()) {
            self.metrics.abort_calls += 1;
            self.end(key);
        }
        self.forget_private(id);
    }

    /// Gives up a call: [`Event::Failed`](super::Event::Failed) with `error` follows. False if it is over.
    pub fn cancel(&mut self, id: RpcId, error: RpcError) -> bool {
        self.settle();
        let known = self.clients.get(&id.get()).copied();
        if let Some(key) = known {
            self.metrics.abort_calls += 1;
            self.fail(key, error);
        }
        known.is_some()
    }

    /// Gives up many calls, each as [`Self::cancel`] does, the oldest first; returns how many. Requests that others
    /// have sent to us go on.
    pub fn cancel_all(&mut self, calls: Calls, error: RpcError) -> usize {
        self.settle();
        let is_meant = |rpc: &Rpc| {
            let addr = || self.peers[rpc.peer].addr;
            rpc.is_client()
                && match calls {
                    Calls::Peer(peer) => addr() == peer.to_canonical(),
                    Calls::Server(server) => rpc.peer_port == server.port() && addr() == server.ip().to_canonical(),
                    Calls::Port(port) => rpc.port == port,
                }
        };
        let mut found: Vec<_> =
            self.rpcs.iter().filter(|(_, rpc)| is_meant(rpc)).map(|(_, rpc)| (rpc.serial, rpc.id)).collect();
        found.sort_unstable_by_key(|(serial, _)| *serial);
        found.iter().for_each(|(_, id)| _ = self.cancel(*id, error));
        found.len()
    }
}
