//! Limits on what others can make us keep, and on what an application can leave undone.

use std::net::IpAddr;

use super::endpoint::Endpoint;
use super::event::Event;
use super::grants::RpcKey;
use super::peers::PeerKey;
use super::rpc::Rpc;
use crate::metrics::DropReason;

/// RPCs that the tables have room for as soon as there is one.
const FEWEST_RPCS: usize = 16;

impl Endpoint {
    /// The peer at `from`, from which a request has come; `known` if it was met before.
    pub(super) fn admit_client(&mut self, from: IpAddr, known: Option<PeerKey>) -> Result<PeerKey, DropReason> {
        match known {
            Some(peer) if self.peers[peer].served >= self.config.max_peer_rpcs => Err(DropReason::TooManyRpcs),
            Some(peer) => Ok(peer),
            None if self.make_room_for_peer() => Ok(self.intern(from)),
            None => Err(DropReason::TooManyPeers),
        }
    }

    /// True if the tables can take another RPC of another peer. They grow by doubling, and here, since what others ask
    /// for is no reason to end the process if the system has no memory: it is a reason not to hear them. The groups of
    /// 512 bytes of [`Tombstones`](super::tombstones) and lists of ranges are taken to be there always.
    #[inline]
    pub(super) fn has_tables(&mut self) -> bool {
        (self.rpcs.len() < self.rpcs.capacity() || self.grow_tables()) && self.peers.can_grow()
    }

    #[cold]
    fn grow_tables(&mut self) -> bool {
        let more = self.rpcs.capacity().max(FEWEST_RPCS);
        // A slab can't be asked whether it can grow: whether there is memory for that shows when it is taken otherwise.
        let mut probe: Vec<Rpc> = Vec::new();
        let there_is = probe.try_reserve_exact(2 * more).is_ok();
        drop(probe);
        let all = there_is
            && self.servers.try_reserve(more).is_ok()
            && self.clients.try_reserve(more).is_ok()
            && self.events.try_reserve(2 * more).is_ok()
            && self.starved.try_reserve(2 * more).is_ok()
            && self.ready.try_reserve(2 * more)
            && self.resending.try_reserve(2 * more).is_ok()
            && self.control.try_reserve(2 * more).is_ok()
            && self.due.try_reserve(2 * more).is_ok()
            && self.wheel.try_reserve(2 * more);
        if all {
            self.rpcs.reserve(more);
        }
        all
    }

    /// True if another peer can be remembered within the limit. One may be forgotten for it: it had no RPC for so long
    /// that its requests need not be remembered.
    pub(super) fn make_room_for_peer(&mut self) -> bool {
        let (room, gone) = self.peers.make_room(self.latest, self.config.max_peers, self.config.tombstone_time);
        if let Some(peer) = gone {
            self.metrics.peers_forgotten += 1;
            self.tombstones.forget_peer(peer);
            self.control.retain(|control| !control.is_for(peer));
        }
        room
    }

    /// Anyone can ask, and more often than answers can be sent.
    pub(super) fn has_room_to_answer(&self) -> Result<(), DropReason> {
        if self.control.len() < self.config.max_control { Ok(()) } else { Err(DropReason::Flood) }
    }

    /// Drops a request that the application has not taken, or not answered, in time. Its client is not told, so that
    /// it does not send it again; it times out.
    pub(super) fn drop_request(&mut self, key: RpcKey) {
        self.metrics.requests_overdue += 1;
        if self.rpcs[key].unread {
            let id = self.rpcs[key].id;
            let is_it = |event: &Event| matches!(event, Event::Request { rpc, .. } if rpc.key == key && rpc.id == id);
            let at = self.events.iter().position(is_it).expect("what was not taken is still there");
            if let Some(Event::Request { msg, .. }) = self.events.remove(at) {
                self.pool.free(&msg.lease);
            }
        }
        self.end(key);
    }
}
