//! How much may be under way: bytes of outgoing messages, in all and to each peer, and calls of a port.
//!
//! A message is kept until its peer has it, so that a receiver that grants nothing makes its senders hold what they
//! send it. A call that would exceed a limit is refused; once enough is over, [`Event::Room`] says so. "Enough" is a
//! quarter below the limit, so that a busy application is not woken for each message.

use std::net::IpAddr;

#[cfg(feature = "check")]
use super::check::hold;
use super::endpoint::Endpoint;
use super::event::{Event, SendError, ServerRpc};
use super::memory::{FOOTPRINT, Memory};
use super::payload::Payload;
use super::peers::PeerKey;
use crate::units::Instant;

/// What has no room for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// All outgoing messages together: [`Config::tx_budget`](super::Config::tx_budget).
    #[error("outgoing messages hold all of `tx_budget`")]
    Endpoint,
    /// Those to one peer: [`Config::tx_peer_share`](super::Config::tx_peer_share).
    #[error("outgoing messages to {0} hold all of a peer's share, `tx_peer_share`")]
    Peer(IpAddr),
    /// What they may hold while all endpoints together have little memory:
    /// [`Config::memory`](super::Config::memory).
    #[error("memory is scarce, and outgoing messages hold all of `tx_pressed` or `tx_least`")]
    Memory,
    /// All responses together, as for requests.
    #[error("responses under way hold all of `tx_budget`")]
    Responses,
    /// The calls of one port: [`Config::max_outstanding`](super::Config::max_outstanding).
    #[error("port {0} has `max_outstanding` calls under way")]
    Port(u16),
}

/// Why an answer can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// No room now: what is to be tried again after [`Event::Room`].
    #[error("responses under way hold all of `tx_budget`: try again after `Event::Room`")]
    WouldBlock(ServerRpc, Payload),
    /// The message can't be sent at all; the request is given up.
    #[error(transparent)]
    Never(#[from] SendError),
}

/// Bytes that outgoing messages hold. Requests and responses have the same limits but do not share them: hosts that call each
/// other, each full of its own requests, would hear no request of the other's and wait for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    requests: usize,
    responses: usize,
}

impl Held {
    fn of(&mut self, request: bool) -> &mut usize {
        if request { &mut self.requests } else { &mut self.responses }
    }
}

/// What is held, and who was refused.
#[derive(Debug, Default)]
pub(crate) struct Room {
    held: Held,
    /// Limits that calls were refused for, each once, with the least that a call lacked.
    refused: Vec<(Limit, usize)>,
}

impl Endpoint {
    /// Looks whether a call from the port `from` of `len` bytes to `peer` has room.
    pub(super) fn admit(&mut self, from: u16, peer: PeerKey, len: usize) -> Result<(), SendError> {
        let addr = self.peers[peer].addr;
        let bytes = len + FOOTPRINT;
        let limits =
            [(Limit::Port(from), 1), (Limit::Endpoint, bytes), (Limit::Peer(addr), bytes), (Limit::Memory, bytes)];
        for (limit, need) in limits {
            if self.lacks_room(limit, need) {
                self.note_refusal(limit, need);
                return Err(SendError::WouldBlock(limit));
            }
        }
        Ok(())
    }

    /// Like [`reply`](Self::reply), but refuses an answer for which there is no room among the responses under way,
    /// unless it is the only one. [`Event::Room`] follows when it may be tried again.
    ///
    /// # Errors
    ///
    /// Those of `reply`, which use the request up. [`ReplyError::WouldBlock`], which gives it back.
    pub fn try_reply(&mut self, now: Instant, rpc: ServerRpc, payload: Payload) -> Result<(), ReplyError> {
        let need = payload.len() + FOOTPRINT;
        let limit = Limit::Responses;
        if self.lacks_room(limit, need) {
            self.note_refusal(limit, need);
            return Err(ReplyError::WouldBlock(rpc, payload));
        }
        Ok(self.reply(now, rpc, payload)?)
    }

    /// True if there is no room for `need`. The only message may be longer than the limit: it would have no room ever.
    fn lacks_room(&mut self, limit: Limit, need: usize) -> bool {
        self.holds_settled(|endpoint| {
            let (used, most) = endpoint.used(limit);
            used > 0 && used.saturating_add(need) > most
        })
    }

    /// True if no request is heard, of `peer` or at all, since too many are under way.
    pub(super) fn serves_too_many(&mut self, peer: Option<PeerKey>) -> bool {
        self.holds_settled(|endpoint| {
            endpoint.servers.len() >= endpoint.config.max_server_rpcs || !endpoint.has_room_for_responses(peer)
        })
    }

    /// True if `full` holds, and still does without what is over.
    fn holds_settled(&mut self, full: impl Fn(&Self) -> bool) -> bool {
        full(self) && {
            self.settle();
            full(self)
        }
    }

    /// False while `peer`, or all peers together, hold so much that their requests are not heard: their responses
    /// would have no room.
    pub(super) fn has_room_for_responses(&self, peer: Option<PeerKey>) -> bool {
        let config = &self.config;
        self.room.held.responses < config.tx_limit(self.memory())
            && peer.is_none_or(|peer| self.peers[peer].held.responses < config.tx_peer_limit())
    }

    /// Remembers who is to be told of room for `need`.
    fn note_refusal(&mut self, limit: Limit, need: usize) {
        match self.room.refused.iter_mut().find(|(known, _)| *known == limit) {
            Some((_, least)) => *least = need.min(*least),
            None => self.room.refused.push((limit, need)),
        }
        self.metrics.calls_refused += 1;
    }

    /// A message of `len` bytes to `peer`, a request or a response, begins.
    pub(super) fn take_room(&mut self, peer: PeerKey, request: bool, len: usize) {
        *self.room.held.of(request) += len + FOOTPRINT;
        *self.peers[peer].held.of(request) += len + FOOTPRINT;
        self.memory.begin(len);
    }

    /// It is over.
    pub(super) fn give_room(&mut self, peer: PeerKey, request: bool, len: usize) {
        *self.room.held.of(request) -= len + FOOTPRINT;
        *self.peers[peer].held.of(request) -= len + FOOTPRINT;
        self.memory.end(len);
        self.metrics.tx_released_bytes += len as u64;
    }

    /// Tells those who were refused that there is room again, if so. To be called whenever an RPC has ended.
    #[inline]
    pub(super) fn tell_of_room(&mut self) {
        if self.room.refused.is_empty() {
            return;
        }
        let mut refused = std::mem::take(&mut self.room.refused);
        refused.retain(|&(limit, need)| {
            let (used, most) = self.used(limit);
            let full = used > most - most / 4 || used > 0 && used.saturating_add(need) > most;
            if !full {
                self.events.push_back(Event::Room(limit));
            }
            full
        });
        self.room.refused = refused;
    }

    /// Nobody waits for the port's room any more.
    pub(super) fn forget_refused(&mut self, port: u16) {
        self.room.refused.retain(|(limit, _)| *limit != Limit::Port(port));
    }

    /// How much of a limit is used, and the limit.
    fn used(&self, limit: Limit) -> (usize, usize) {
        let config = &self.config;
        match limit {
            Limit::Endpoint => (self.room.held.requests, config.tx_budget),
            Limit::Responses => (self.room.held.responses, config.tx_limit(self.memory())),
            Limit::Memory if self.memory() == Memory::Plenty => (self.room.held.requests, usize::MAX),
            Limit::Memory => (self.room.held.requests, config.tx_limit(self.memory())),
            Limit::Peer(addr) => {
                let held = self.peers.find(addr).map(|peer| self.peers[peer].held);
                (held.map_or(0, |held| held.requests), config.tx_peer_limit())
            }
            Limit::Port(port) => (self.ports.calls(port).unwrap_or(0), config.max_outstanding),
        }
    }

    /// Checks the sums against the RPCs, and that whoever was refused will be told.
    #[cfg(feature = "check")]
    pub(super) fn check_room(&self) -> Result<(), String> {
        let mut all = Held::default();
        let mut of_peer = vec![Held::default(); self.peers.len()];
        for (_, rpc) in &self.rpcs {
            let len = rpc.tx.as_ref().map_or(0, |tx| tx.len + FOOTPRINT);
            *all.of(rpc.is_client()) += len;
            *of_peer[rpc.peer as usize].of(rpc.is_client()) += len;
        }
        hold!(self.room.held == all, "held: {all:?}, counted: {:?}", self.room.held);
        for (peer, right) in of_peer.into_iter().enumerate() {
            let counted = self.peers[peer as PeerKey].held;
            hold!(counted == right, "held for peer {peer}: {right:?}, counted: {counted:?}");
        }
        for (port, counted) in self.ports.iter() {
            let calls = self.rpcs.iter().filter(|(_, rpc)| rpc.is_client() && rpc.port == port).count();
            hold!(calls == counted, "{calls} calls from port {port}, {counted} counted");
        }
        for (limit, need) in &self.room.refused {
            let (used, most) = self.used(*limit);
            hold!(used > 0, "calls refused for {limit:?}, {need} of {most}, wait for nothing");
        }
        Ok(())
    }
}
