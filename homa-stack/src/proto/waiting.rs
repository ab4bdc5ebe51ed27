//! Messages that wait to be granted to, in order: those of the peers that hold fewest slots first, then the shortest.
//!
//! A packet to a message, and a slot that changes hands, each move it, or its peer, in a heap: a few comparisons,
//! however many wait.

#[cfg(feature = "check")]
use super::check::hold;
use super::grants::{RpcKey, Srpt};
use super::heap::{Heap, Places, Queue};
use super::peers::PeerKey;

/// The messages that wait.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// Those of each peer, the shortest first.
    of_peer: Vec<Heap<Srpt>>,
    /// Where each message stands among its peer's.
    places: Places,
    /// The peers of which messages wait: slots held, and the shortest message.
    peers: Queue<(usize, Srpt)>,
    len: usize,
}

impl Waiting {
    /// Messages that wait.
    #[cfg(feature = "check")]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Enters the message `rpc` from `peer`, which holds `held` slots.
    pub(crate) fn insert(&mut self, rpc: RpcKey, peer: PeerKey, order: Srpt, held: usize) {
        let at = peer as usize;
        if self.of_peer.len() <= at {
            self.of_peer.resize_with(at + 1, Heap::default);
        }
        self.of_peer[at].set(&mut self.places, rpc, order);
        self.len += 1;
        self.peer_holds(peer, held);
    }

    /// Takes the message `rpc` of `peer` out; false if it does not wait.
    pub(crate) fn remove(&mut self, rpc: RpcKey, peer: PeerKey, held: usize) -> bool {
        let Some(of_peer) = self.of_peer.get_mut(peer as usize) else { return false };
        let waited = of_peer.remove(&mut self.places, rpc);
        if waited {
            self.len -= 1;
            self.peer_holds(peer, held);
        }
        waited
    }

    /// Takes note that more of `rpc` has come, if it waits.
    #[inline]
    pub(crate) fn update(&mut self, rpc: RpcKey, peer: PeerKey, order: Srpt) {
        let Some(of_peer) = self.of_peer.get_mut(peer as usize) else { return };
        if of_peer.key(&self.places, rpc).is_none_or(|known| known == order) {
            return;
        }
        of_peer.set(&mut self.places, rpc, order);
        if let Some((held, _)) = self.peers.key(peer as usize) {
            self.peer_holds(peer, held);
        }
    }

    /// Takes note that `peer` holds `held` slots.
    pub(crate) fn peer_holds(&mut self, peer: PeerKey, held: usize) {
        match self.of_peer.get(peer as usize).and_then(Heap::first) {
            Some((order, _)) => self.peers.set(peer as usize, (held, order)),
            None => _ = self.peers.remove(peer as usize),
        }
    }

    /// The message whose turn it is, its peer, and its length.
    #[inline]
    pub(crate) fn first(&self) -> Option<(RpcKey, PeerKey, Srpt)> {
        let (_, peer) = self.peers.first()?;
        let (order, rpc) = self.of_peer[peer].first()?;
        Some((rpc, peer as PeerKey, order))
    }

    /// The shortest message of `peer` that waits.
    #[inline]
    pub(crate) fn first_of(&self, peer: PeerKey) -> Option<(RpcKey, Srpt)> {
        let (order, rpc) = self.of_peer.get(peer as usize)?.first()?;
        Some((rpc, order))
    }

    /// The place in the order of `rpc` of `peer`, if it waits.
    #[cfg(feature = "check")]
    pub(crate) fn order(&self, rpc: RpcKey, peer: PeerKey) -> Option<Srpt> {
        self.of_peer.get(peer as usize)?.key(&self.places, rpc)
    }

    /// Checks the heaps against each other and against the slots `held` by each peer.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self, held: impl Fn(PeerKey) -> usize) -> Result<(), String> {
        self.peers.check()?;
        let mut peers = 0;
        for (peer, heap) in self.of_peer.iter().enumerate() {
            heap.check(&self.places)?;
            let right = heap.first().map(|(order, _)| (held(peer as PeerKey), order));
            let known = self.peers.key(peer);
            hold!(known == right, "messages of peer {peer} wait in place {known:?}, not {right:?}");
            peers += usize::from(right.is_some());
        }
        hold!(self.peers.len() == peers, "{peers} peers wait, counted {}", self.peers.len());
        Ok(())
    }
}
