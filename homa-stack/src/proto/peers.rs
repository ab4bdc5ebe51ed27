//! What is known of each peer host.

use std::net::IpAddr;

use rustc_hash::FxHashMap;

#[cfg(feature = "check")]
use super::check::hold;
use super::recent::Recent;
use super::room::Held;
use super::timing::Timing;
use crate::units::{Instant, Nanos, Priority};
use crate::wire::{Ack, AckRecord, Cutoffs, MAX_ACKS};

/// Index of a peer in [`Peers`].
pub(crate) type PeerKey = u32;

/// What is known of a peer host.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) addr: IpAddr,
    /// The address as time traces show it.
    pub(crate) tag: u32,
    /// Entry `i` is the longest message to the peer that uses level `i`.
    cutoffs: [u32; Priority::LEVELS],
    /// Version of `cutoffs`, 0 before any came.
    pub(crate) cutoff_version: u16,
    /// When CUTOFFS went to the peer last.
    pub(crate) cutoffs_sent: Option<Instant>,
    /// RPCs that we, as client, are done with and the peer does not know yet.
    acks: Vec<AckRecord>,
    /// Tick of the latest packet from the peer.
    pub(crate) heard: u64,
    /// Bytes of messages to the peer that are kept until it has them.
    pub(crate) held: Held,
    /// Largest IP packet on the way to the peer, and how long to believe so.
    pub(crate) path_mtu: Option<(usize, Instant)>,
    /// How long things take with the peer.
    pub(crate) timing: Timing,
    /// Unscheduled bytes of its responses: the most of late, if any came.
    pub(crate) answer_bytes: Option<usize>,
    /// Data bytes in a full packet of its, as far as its last long message showed; 0 before one came.
    pub(crate) frame: usize,
    /// RPCs with the peer, and those of them that are its requests.
    pub(crate) rpcs: usize,
    pub(crate) served: usize,
    /// When an RPC began or ended last.
    pub(crate) used: Instant,
}

/// Peers looked at for one to forget.
const LOOKS: usize = 16;

/// All peers that are remembered.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    by_addr: FxHashMap<IpAddr, PeerKey>,
    all: Vec<Peer>,
    /// Those asked for of late, by address.
    recent: Recent,
    /// Which is looked at next when one is to be forgotten.
    hand: usize,
    /// One that was forgotten: its place is free.
    free: Option<PeerKey>,
}

impl Peers {
    /// True if there is memory for another.
    #[inline]
    pub(crate) fn can_grow(&mut self) -> bool {
        let in_table = self.by_addr.len() < self.by_addr.capacity() || self.by_addr.try_reserve(1).is_ok();
        in_table && (self.all.len() < self.all.capacity() || self.all.try_reserve(1).is_ok())
    }

    /// The peer at `addr`; `true` if it was not known.
    pub(crate) fn intern(&mut self, addr: IpAddr) -> (PeerKey, bool) {
        if let Some(key) = self.find(addr) {
            return (key, false);
        }
        let addr = addr.to_canonical();
        let key = self.free.take().unwrap_or(self.all.len() as PeerKey);
        self.by_addr.insert(addr, key);
        match self.all.get_mut(key as usize) {
            Some(place) => *place = Peer::new(addr),
            None => self.all.push(Peer::new(addr)),
        }
        (key, true)
    }

    /// All peers.
    pub(crate) fn keys(&self) -> std::ops::Range<PeerKey> {
        0..self.all.len() as PeerKey
    }

    /// True if another can be remembered without more than `most`, since `most` were not met or one is forgotten: one
    /// without RPCs for `keep`, if there is one among the next few. Returns it if so.
    pub(crate) fn make_room(&mut self, now: Instant, most: usize, keep: Nanos) -> (bool, Option<PeerKey>) {
        if self.all.len() < most || self.free.is_some() {
            return (true, None);
        }
        for _ in 0..LOOKS.min(self.all.len()) {
            let at = self.hand % self.all.len();
            self.hand = at + 1;
            let peer = &self.all[at];
            if peer.rpcs == 0 && now.since(peer.used) >= keep {
                self.by_addr.remove(&peer.addr);
                self.free = Some(at as PeerKey);
                return (true, self.free);
            }
        }
        (false, None)
    }

    /// Peers met and remembered.
    #[cfg(feature = "check")]
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Checks that no peer has more acks than fit a packet.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self) -> Result<(), String> {
        for peer in &self.all {
            hold!(peer.acks.len() <= MAX_ACKS, "{} acks wait for {}", peer.acks.len(), peer.addr);
        }
        Ok(())
    }

    /// Checks the counts of RPCs against all there are: with whom, and whether it is the peer's request.
    #[cfg(feature = "check")]
    pub(crate) fn check_counts(&self, rpcs: impl Iterator<Item = (PeerKey, bool)>) -> Result<(), String> {
        let mut right = vec![(0, 0); self.all.len()];
        for (peer, served) in rpcs {
            right[peer as usize].0 += 1;
            right[peer as usize].1 += usize::from(served);
        }
        for (peer, right) in self.all.iter().zip(right) {
            let counted = (peer.rpcs, peer.served);
            hold!(counted == right, "(RPCs, requests) of {}: {right:?}, counted {counted:?}", peer.addr);
        }
        Ok(())
    }

    /// The peer at `addr`, if it is known.
    #[inline]
    pub(crate) fn find(&self, addr: IpAddr) -> Option<PeerKey> {
        let addr = addr.to_canonical();
        let hash = match addr {
            IpAddr::V4(addr) => addr.to_bits().into(),
            IpAddr::V6(addr) => addr.to_bits() as u64,
        };
        let hint = self.recent.at(hash);
        if self.all.get(hint).is_some_and(|peer| peer.addr == addr) && self.free != Some(hint as PeerKey) {
            return Some(hint as PeerKey);
        }
        let key = *self.by_addr.get(&addr)?;
        self.recent.set(hash, key as usize);
        Some(key)
    }
}

impl std::ops::Index<PeerKey> for Peers {
    type Output = Peer;

    fn index(&self, key: PeerKey) -> &Peer {
        &self.all[key as usize]
    }
}

impl std::ops::IndexMut<PeerKey> for Peers {
    fn index_mut(&mut self, key: PeerKey) -> &mut Peer {
        &mut self.all[key as usize]
    }
}

impl Peer {
    fn new(addr: IpAddr) -> Self {
        // Until the peer says otherwise all unscheduled packets use level 6 (homa-protocol.md 3.1).
        let mut cutoffs = [0; Priority::LEVELS];
        cutoffs[6] = u32::MAX;
        Self {
            addr,
            tag: address_tag(addr),
            cutoffs,
            cutoff_version: 0,
            cutoffs_sent: None,
            acks: Vec::with_capacity(MAX_ACKS),
            heard: 0,
            held: Held::default(),
            path_mtu: None,
            timing: Timing::default(),
            answer_bytes: None,
            frame: 0,
            rpcs: 0,
            served: 0,
            used: Instant::default(),
        }
    }

    /// Largest IP packet on the way to the peer, if the network has told.
    pub(crate) fn mtu(&self, now: Instant) -> Option<usize> {
        self.path_mtu.filter(|(_, until)| now < *until).map(|(mtu, _)| mtu)
    }

    /// Bytes of an IP header to the peer.
    pub(crate) fn addr_header(&self) -> usize {
        if self.addr.is_ipv4() { 20 } else { 40 }
    }

    /// The level of unscheduled packets of a message of `len` bytes, with `levels` levels in use.
    pub(crate) fn unscheduled_priority(&self, len: usize, levels: u8) -> u8 {
        let levels = usize::from(levels).clamp(1, Priority::LEVELS);
        (0..levels).rev().find(|&i| self.cutoffs[i] as usize >= len).unwrap_or(0) as u8
    }

    /// Takes the peer's table.
    pub(crate) fn set_cutoffs(&mut self, cutoffs: &Cutoffs) {
        self.cutoffs = cutoffs.table;
        self.cutoffs[0] = u32::MAX;
        self.cutoff_version = cutoffs.version;
    }

    /// Notes that we are done with an RPC; returns the five records that waited before it if there is no room.
    pub(crate) fn push_ack(&mut self, record: AckRecord) -> Option<Ack> {
        if self.acks.len() < MAX_ACKS {
            self.acks.push(record);
            return None;
        }
        Some(self.take_acks())
    }

    /// A record to send along, the latest first.
    pub(crate) fn pop_ack(&mut self) -> Option<AckRecord> {
        self.acks.pop()
    }

    /// All records that wait.
    pub(crate) fn take_acks(&mut self) -> Ack {
        let all = Ack::new(&self.acks);
        self.acks.clear();
        all
    }
}

/// The 32 bits that stand for `addr` in time traces (homa-protocol.md 8).
pub(crate) fn address_tag(addr: IpAddr) -> u32 {
    match addr.to_canonical() {
        IpAddr::V4(a) => a.to_bits(),
        IpAddr::V6(a) => {
            let bits = a.to_bits();
            if bits as u32 != 0 { bits as u32 } else { (bits >> 32) as u32 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let mut peers = Peers::default();
        let v4 = Ipv4Addr::new(10, 0, 1, 3);
        let (key, new) = peers.intern(v4.into());
        assert!(new);
        assert_eq!(peers.intern(v4.to_ipv6_mapped().into()), (key, false));
        assert_eq!(peers[key].tag, 0x0a00_0103);
        assert_eq!(address_tag(Ipv6Addr::LOCALHOST.into()), 1);
    }

    #[test]
    fn a_peer_makes_room_for_another_once_it_has_been_idle_for_long() {
        let (mut peers, addr, second) = (Peers::default(), |n| Ipv4Addr::from_bits(n).into(), Nanos::from_secs(1));
        let at = |n| Instant::from_nanos(n * 1_000_000_000);
        (1..=40).for_each(|n| {
            let (key, _) = peers.intern(addr(n));
            peers[key].used = at(u64::from(n));
        });
        peers[0].rpcs = 1;
        assert_eq!(peers.make_room(at(2), 41, second), (true, None), "fewer than may be");
        assert_eq!(peers.make_room(at(2), 40, second), (false, None), "the first has an RPC");
        let (_, gone) = (0..3).map(|_| peers.make_room(at(3), 40, second)).find(|(room, _)| *room).unwrap();
        assert_eq!((gone, peers.find(addr(2))), (Some(1), None));
        assert_eq!(peers.intern(addr(99)), (1, true));
        assert_eq!((peers.len(), peers.find(addr(99)), peers[1].rpcs), (40, Some(1), 0));
    }

    #[test]
    fn unscheduled_levels_follow_the_peers_table() {
        let mut peer = Peer::new(Ipv4Addr::LOCALHOST.into());
        assert_eq!(peer.unscheduled_priority(100, 8), 6, "before any CUTOFFS");
        assert_eq!(peer.unscheduled_priority(100, 4), 0, "levels that do not exist are not used");
        peer.set_cutoffs(&Cutoffs { table: [0, 0, 0, 0, 1_000_000, 15_000, 2_800, 200], version: 1 });
        for (len, level) in [(1, 7), (200, 7), (201, 6), (2_800, 6), (15_000, 5), (15_001, 4), (1_000_000, 4)] {
            assert_eq!(peer.unscheduled_priority(len, 8), level, "{len} bytes");
        }
    }

    #[test]
    fn a_sixth_ack_flushes_the_five_before_it() {
        let mut peer = Peer::new(Ipv4Addr::LOCALHOST.into());
        let record = |n: u64| AckRecord { client_id: n * 2, server_port: 1 };
        for n in 1..=5 {
            assert_eq!(peer.push_ack(record(n)), None);
        }
        assert_eq!(peer.push_ack(record(6)).unwrap().records().count(), 5);
        peer.push_ack(record(7));
        assert_eq!(peer.pop_ack(), Some(record(7)));
        assert_eq!(peer.pop_ack(), None);
    }
}
