//! The selection of messages without any order kept: all that wait are looked at each time. What [`Grants`] must equal.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
struct Candidate {
    rpc: RpcKey,
    peer: PeerKey,
}

#[derive(Debug, Default)]
struct Naive {
    active: Vec<Candidate>,
    waiting: Vec<Candidate>,
}

impl Naive {
    fn remove(&mut self, rpc: RpcKey) {
        self.active.retain(|e| e.rpc != rpc);
        self.waiting.retain(|e| e.rpc != rpc);
    }

    fn fill(&mut self, slots: usize, view: impl Fn(RpcKey) -> View) {
        while self.active.len() > slots {
            let longest = self.longest_of(|_| true, &view);
            let entry = self.active.swap_remove(longest);
            self.waiting.push(entry);
        }
        loop {
            // A peer's slots are its shortest messages'.
            let order = |c: &Candidate| view(c.rpc).srpt();
            let of = |peer| move |c: &&mut Candidate| c.peer == peer;
            while let Some(slot) =
                self.active.iter().position(|a| self.waiting.iter().any(|w| w.peer == a.peer && order(w) < order(a)))
            {
                let peer = self.active[slot].peer;
                let longest = self.active.iter_mut().filter(of(peer)).max_by_key(|c| order(c)).unwrap();
                let shortest = self.waiting.iter_mut().filter(of(peer)).min_by_key(|c| order(c)).unwrap();
                std::mem::swap(longest, shortest);
            }
            let waiting = 0..self.waiting.len();
            let Some(best) = waiting.min_by_key(|&i| (self.held(self.waiting[i].peer), order(&self.waiting[i]))) else {
                return;
            };
            let candidate = self.waiting[best];
            if self.active.len() < slots {
                self.active.push(self.waiting.swap_remove(best));
                continue;
            }
            let held = |peer| self.held(peer) + usize::from(peer == candidate.peer);
            let most = self.active.iter().map(|e| held(e.peer)).max().unwrap();
            let victim = self.longest_of(|e| held(e.peer) == most, &view);
            let loser = self.active[victim];
            let unfair = self.held(loser.peer) > self.held(candidate.peer) + 1;
            if !unfair && view(loser.rpc).srpt() <= view(candidate.rpc).srpt() {
                return;
            }
            self.active[victim] = self.waiting.swap_remove(best);
            self.waiting.push(loser);
        }
    }

    fn oldest(&self, view: impl Fn(RpcKey) -> View) -> Option<RpcKey> {
        let all = self.active.iter().chain(&self.waiting).map(|e| (e.rpc, view(e.rpc)));
        let may = all.filter(|(_, v)| v.granted < v.len && v.received >= v.by_age);
        may.min_by_key(|(_, v)| v.birth).map(|(rpc, _)| rpc)
    }

    fn held(&self, peer: PeerKey) -> usize {
        self.active.iter().filter(|e| e.peer == peer).count()
    }

    fn longest_of(&self, among: impl Fn(&Candidate) -> bool, view: &impl Fn(RpcKey) -> View) -> usize {
        let found = (0..self.active.len()).filter(|&i| among(&self.active[i]));
        found.max_by_key(|&i| view(self.active[i].rpc).srpt()).unwrap()
    }
}

fn keys(active: impl Iterator<Item = RpcKey>) -> Vec<RpcKey> {
    let mut keys: Vec<_> = active.collect();
    keys.sort_unstable();
    keys
}

#[derive(Clone, Copy, Debug)]
enum Op {
    /// A message of so many thousand bytes from a peer.
    Begin(PeerKey, usize),
    /// The `n`th message has received, was granted, was granted by age so many thousand bytes more.
    Come(usize, usize),
    Grant(usize, usize),
    GrantByAge(usize, usize),
    End(usize),
    Fill(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0_u32..6, 1_usize..100).prop_map(|(peer, len)| Op::Begin(peer, len)),
        4 => (0_usize..64, 1_usize..30).prop_map(|(n, more)| Op::Come(n, more)),
        2 => (0_usize..64, 1_usize..30).prop_map(|(n, more)| Op::Grant(n, more)),
        1 => (0_usize..64, 1_usize..30).prop_map(|(n, more)| Op::GrantByAge(n, more)),
        1 => (0_usize..64).prop_map(Op::End),
        3 => (1_usize..9).prop_map(Op::Fill),
    ]
}

proptest! {
    /// Whatever begins, arrives, is granted and ends: the same messages are active, and the same is favoured by age.
    #[test]
    fn the_messages_chosen_are_those_of_a_search_of_all(ops in proptest::collection::vec(op(), 1..200)) {
        let (mut grants, mut naive) = (Grants::default(), Naive::default());
        let at = Moment { now: Instant::default(), heard: 0 };
        let mut views: Vec<View> = Vec::new();
        let mut alive: Vec<RpcKey> = Vec::new();
        let mut config = Config::default();
        for op in ops {
            let nth = |n: usize| alive.get(n % alive.len().max(1)).copied();
            match op {
                Op::Begin(peer, len) => {
                    let (rpc, len) = (views.len(), len * 1000);
                    // In some order that is neither that of keys nor of arrival.
                    let birth = Instant::from_nanos(rpc as u64 ^ 5);
                    views.push(View { remaining: len, birth, received: 0, granted: 0, len, by_age: 0 });
                    alive.push(rpc);
                    grants.insert(at, rpc, peer, views[rpc]);
                    naive.waiting.push(Candidate { rpc, peer });
                }
                Op::Come(n, more) => if let Some(rpc) = nth(n) {
                    let v = &mut views[rpc];
                    v.received = (v.received + more * 1000).min(v.len);
                    v.remaining = v.len - v.received;
                    grants.update(at, rpc, *v);
                },
                Op::Grant(n, more) | Op::GrantByAge(n, more) => if let Some(rpc) = nth(n) {
                    let v = &mut views[rpc];
                    v.granted = (v.granted.max(v.received) + more * 1000).min(v.len);
                    v.by_age = if matches!(op, Op::GrantByAge(..)) { v.granted } else { v.by_age };
                    grants.update(at, rpc, *v);
                },
                Op::End(n) => if let Some(rpc) = nth(n) {
                    alive.retain(|key| *key != rpc);
                    grants.remove(at, rpc);
                    naive.remove(rpc);
                },
                Op::Fill(slots) => {
                    config.max_overcommit = slots;
                    grants.fill(&config, |rpc| views[rpc]);
                    naive.fill(slots, |rpc| views[rpc]);
                }
            }
            let view = |rpc: RpcKey| views[rpc];
            let chosen = (keys(grants.active.iter().map(|e| e.rpc)), grants.oldest(&config, view).map(|(rpc, _)| rpc));
            prop_assert_eq!(chosen, (keys(naive.active.iter().map(|e| e.rpc)), naive.oldest(view)));
            config.max_overcommit = 8;
            grants.check(&config, view).map_err(TestCaseError::fail)?;
        }
    }
}
