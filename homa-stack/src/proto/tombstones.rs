//! Memory of requests that have arrived, so that each runs at most once.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

#[cfg(feature = "check")]
use super::check::hold;
use crate::units::{Instant, Nanos, RpcId};

/// Ids in one group: 4096 RPCs of one client.
const IDS: u64 = 4096;
const WORDS: usize = IDS as usize / 64;

/// Which peer's ids, and which 4096 of them.
type Key = (u32, u64);

#[derive(Debug)]
struct Chunk {
    bits: [u64; WORDS],
    touched: Instant,
}

/// The ids of requests seen in the last while, by client. Source: homa-protocol.md 2.5.
///
/// A client's ids rise by 2, so 4096 of them share 512 bytes; a group is forgotten when none of its ids was used for
/// the time given, or, counted, when there are too many groups.
#[derive(Debug)]
pub(crate) struct Tombstones {
    chunks: FxHashMap<Key, Box<Chunk>>,
    /// Groups in the order in which they come up for a check of their age.
    order: VecDeque<Key>,
    keep: Nanos,
    max_chunks: usize,
    /// Memory of groups that were forgotten.
    #[expect(clippy::vec_box, reason = "they move between here and the map, which should be small")]
    spare: Vec<Box<Chunk>>,
    /// Groups forgotten before their time.
    pub(crate) evicted: u64,
}

impl Tombstones {
    pub(crate) fn new(keep: Nanos, max_chunks: usize) -> Self {
        Self {
            chunks: FxHashMap::default(),
            order: VecDeque::new(),
            keep,
            max_chunks: max_chunks.max(1),
            spare: Vec::new(),
            evicted: 0,
        }
    }

    /// Notes the request `id` of `peer`; false if it was noted before.
    pub(crate) fn insert(&mut self, now: Instant, peer: u32, id: RpcId) -> bool {
        let (key, word, bit) = place(peer, id);
        if !self.chunks.contains_key(&key) {
            self.make_room(now);
            let mut chunk = self.spare.pop().unwrap_or_else(|| Box::new(Chunk { bits: [0; WORDS], touched: now }));
            chunk.bits.fill(0);
            self.chunks.insert(key, chunk);
            self.order.push_back(key);
        }
        let chunk = self.chunks.get_mut(&key).expect("it is there or was just made");
        chunk.touched = now;
        let new = chunk.bits[word] & bit == 0;
        chunk.bits[word] |= bit;
        new
    }

    /// True if the request `id` of `peer` was noted.
    pub(crate) fn contains(&self, peer: u32, id: RpcId) -> bool {
        let (key, word, bit) = place(peer, id);
        self.chunks.get(&key).is_some_and(|chunk| chunk.bits[word] & bit != 0)
    }

    /// Forgets a request that never ran, so that its client may send it again.
    pub(crate) fn remove(&mut self, peer: u32, id: RpcId) {
        let (key, word, bit) = place(peer, id);
        if let Some(chunk) = self.chunks.get_mut(&key) {
            chunk.bits[word] &= !bit;
        }
    }

    /// Forgets all requests of a peer whose key is to be another's.
    pub(crate) fn forget_peer(&mut self, peer: u32) {
        self.chunks.retain(|key, _| key.0 != peer);
        self.order.retain(|key| key.0 != peer);
    }

    /// Forgets groups that are old enough, a few at a time: to be called often.
    pub(crate) fn expire(&mut self, now: Instant) {
        const LOOKS: usize = 16;
        for _ in 0..self.order.len().min(LOOKS) {
            let key = self.order.pop_front().expect("no more looks than groups");
            if now.since(self.chunks[&key].touched) >= self.keep {
                self.spare.extend(self.chunks.remove(&key));
            } else {
                self.order.push_back(key);
            }
        }
    }

    /// Groups remembered.
    #[cfg(feature = "check")]
    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Checks that each group comes up for a check of its age, and that there are not too many.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self) -> Result<(), String> {
        let (groups, turns, most) = (self.chunks.len(), self.order.len(), self.max_chunks);
        hold!(groups == turns && groups <= most, "{groups} groups of ids, {turns} turns, {most} allowed");
        Ok(())
    }

    /// True if nothing is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    fn make_room(&mut self, now: Instant) {
        self.expire(now);
        if self.chunks.len() >= self.max_chunks
            && let Some(key) = self.order.pop_front()
        {
            self.spare.extend(self.chunks.remove(&key));
            self.evicted += 1;
        }
    }
}

fn place(peer: u32, id: RpcId) -> (Key, usize, u64) {
    let serial = id.get() >> 1;
    let within = serial % IDS;
    ((peer, serial / IDS), within as usize / 64, 1 << (within % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tombstones() -> Tombstones {
        Tombstones::new(Nanos::from_secs(5), 4)
    }

    fn at(secs: u64) -> Instant {
        Instant::from_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn a_request_is_new_once_for_each_client() {
        let mut t = tombstones();
        let id = RpcId::local(0x1235);
        assert!(t.insert(at(0), 0, id));
        assert!(!t.insert(at(1), 0, id));
        assert!(t.insert(at(1), 1, id), "another client's id");
        assert!(t.contains(0, id) && !t.contains(0, RpcId::local(0x1237)));
        t.remove(0, id);
        assert!(t.insert(at(2), 0, id));
    }

    #[test]
    fn groups_are_kept_for_the_time_since_their_last_use() {
        let mut t = tombstones();
        t.insert(at(0), 0, RpcId::local(1));
        t.insert(at(4), 0, RpcId::local(3));
        t.expire(at(8));
        assert!(t.contains(0, RpcId::local(1)), "its group was used 4 s ago");
        t.expire(at(9));
        assert!(t.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_early_is_counted() {
        let mut t = tombstones();
        for group in 0..10 {
            t.insert(at(0), 0, RpcId::local(group * 2 * IDS + 1));
        }
        assert_eq!((t.chunks.len(), t.order.len(), t.evicted), (4, 4, 6));
    }
}
