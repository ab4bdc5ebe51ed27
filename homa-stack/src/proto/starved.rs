//! Messages that wait for room in the receive pool.
//!
//! The shortest goes first, since short messages make room again soonest; but not for ever: a message that has waited
//! for `starve_age` goes before all that came later, and nothing new gets room before it. Such a message needs the
//! pool to drain until it fits, as room is given all at once.

use std::cmp::Reverse;

use super::endpoint::Endpoint;
use super::grants::RpcKey;
use super::rpc::{Rpc, State};
use crate::units::{Instant, RpcId};

impl Endpoint {
    /// A message that waited for room needs none any more.
    pub(super) fn forget_starved(&mut self, key: RpcKey, id: RpcId) {
        if !self.starved.is_empty() {
            self.starved.retain(|entry| *entry != (key, id));
            self.starved_long &= !self.starved.is_empty();
        }
    }

    /// Gives room in the pool, as far as there is any, to messages that wait for it.
    pub(super) fn feed_starved(&mut self) {
        self.starved_long = false;
        let (rpcs, now, age) = (&self.rpcs, self.latest, self.config.starve_age);
        let order = |key: RpcKey| {
            let rx = rpcs[key].rx.as_ref().expect("only messages being received stay in the list");
            let long = now.since(rx.birth) >= age;
            (Reverse(long), if long { rx.birth } else { Instant::default() }, rx.len)
        };
        self.starved.sort_by_key(|&(key, _)| order(key));
        while let Some(&(key, _)) = self.starved.first() {
            let rx = self.rpcs[key].rx.as_ref().expect("only messages being received stay in the list");
            if rx.lease.is_none() {
                let (len, birth) = (rx.len, rx.birth);
                let Some(lease) = self.take_pages(len) else {
                    self.starved_long = self.latest.since(birth) >= age;
                    return;
                };
                self.rpcs[key].rx.as_mut().expect("it was there above").lease = Some(lease);
            }
            self.count_incoming(key);
            self.manage(key);
            self.starved.remove(0);
            self.metrics.room_resends += self.ask_for_missing(key, self.config.second_priority());
        }
    }

    /// Takes the room of the request that has been silent for longest, if that is long enough, and gives it to those
    /// that wait. Its client may send it again, as it never ran.
    pub(super) fn evict_inactive(&mut self) {
        let least = self.config.evict_ticks;
        let inactive = |rpc: &Rpc| {
            let has_room = rpc.rx.as_ref().is_some_and(|rx| rx.lease.is_some());
            least > 0 && !rpc.is_client() && rpc.state == State::Incoming && has_room && rpc.silent >= least
        };
        let victim = self.rpcs.iter().filter(|(_, rpc)| inactive(rpc)).max_by_key(|(_, rpc)| rpc.silent);
        let Some((key, &Rpc { peer, id, .. })) = victim else { return };
        self.metrics.requests_evicted += 1;
        self.end(key);
        self.tombstones.remove(peer, id);
        self.feed_starved();
    }
}
