//! Which incoming messages get grants, how far, and at which priority. Source: homa-protocol.md 3.2.
//!
//! The policy is the receiver's own choice: this one is SRPT with overcommitment. Up to `max_overcommit` messages are
//! *active*, at most one a peer while others wait; each may have a window of granted bytes that have not come, and
//! all together `max_incoming`. Ranks come from the bytes that are missing now: what comes of a message moves it in the
//! order of those that wait ([`Grants::update`]), and the few active ones are compared when grants are made.

#[cfg(feature = "check")]
use super::check::hold;
use super::config::Config;
use super::heap::Queue;
use super::peers::PeerKey;
use super::planted::Planted;
use super::policy::{Choice, GrantPolicy, Incoming, Moment};
use super::waiting::Waiting;
use crate::units::Instant;

/// Index of an RPC in the endpoint's table.
pub(crate) type RpcKey = usize;

/// Most active messages.
const MOST_ACTIVE: usize = 8;

/// Order of messages: fewest bytes missing first, then the oldest.
pub(crate) type Srpt = (usize, Instant);

/// What the policy needs to know of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) remaining: usize,
    pub(crate) birth: Instant,
    pub(crate) received: usize,
    pub(crate) granted: usize,
    pub(crate) len: usize,
    /// End of the latest grant by age; 0 before the first.
    pub(crate) by_age: usize,
}

impl View {
    fn srpt(&self) -> Srpt {
        (self.remaining, self.birth)
    }

    /// Place in the order by age. Last come those that need no grants, or have one by age that they did not use.
    fn age(&self, peer: PeerKey) -> Age {
        (self.granted >= self.len || self.received < self.by_age, self.birth, peer)
    }
}

/// If a message can't be favoured by age, when it began, and whose it is.
type Age = (bool, Instant, PeerKey);

/// An active message, with what is known of it: packets come to these above all.
#[derive(Clone, Copy, Debug)]
struct Entry {
    rpc: RpcKey,
    peer: PeerKey,
    view: View,
}

/// A decision to grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) rpc: RpcKey,
    /// New limit in bytes of the message.
    pub(crate) offset: usize,
    pub(crate) priority: u8,
    /// True if the message had waited for room.
    pub(crate) was_needy: bool,
}

/// Messages in need of grants.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    active: Vec<Entry>,
    waiting: Waiting,
    /// All of them, the oldest first.
    ages: Queue<Age>,
    /// By RPC: true if it lacks grants because the others' use up `max_incoming`.
    needy: Vec<bool>,
    /// The first that waits, and the slots there were, when it was found not to displace any: it does not as long as it
    /// is the same and so are the active ones, which only become shorter.
    settled: Option<(RpcKey, Srpt, usize)>,
    /// True if no message that waits is shorter than an active one of its peer, for all that is known.
    sorted: bool,
    /// Granted bytes that have not come, over all incoming messages, unscheduled ones included.
    pub(crate) total_incoming: usize,
    /// What decides instead, if anything: then `ages` alone is kept.
    policy: Option<Box<dyn GrantPolicy>>,
}

impl Grants {
    pub(crate) fn new(config: &Config) -> Self {
        Self { policy: config.grant_policy.as_ref().map(|policy| policy.make(config)), ..Self::default() }
    }

    /// Messages in need of grants.
    pub(crate) fn len(&self) -> usize {
        self.ages.len()
    }

    /// Those of them that may have grants now.
    pub(crate) fn active_len(&self) -> usize {
        self.active.len()
    }

    /// True if no message needs grants.
    pub(crate) fn is_empty(&self) -> bool {
        self.ages.is_empty()
    }

    /// Adds a message, which waits until [`Self::fill`].
    pub(crate) fn insert(&mut self, at: Moment, rpc: RpcKey, peer: PeerKey, view: View) {
        if let Some(policy) = &mut self.policy {
            policy.begin(at, Incoming::new(rpc, peer, view));
            return self.ages.set(rpc, view.age(peer));
        }
        if self.needy.len() <= rpc {
            self.needy.resize(rpc + 1, false);
        }
        self.needy[rpc] = true;
        self.ages.set(rpc, view.age(peer));
        self.sorted = false;
        self.waiting.insert(rpc, peer, view.srpt(), self.held(peer));
    }

    /// Takes note that more of a message has come or was granted, if it is in.
    #[inline]
    pub(crate) fn update(&mut self, at: Moment, rpc: RpcKey, view: View) {
        if self.policy.is_some() {
            return self.tell_policy(at, rpc, view);
        }
        if let Some(entry) = self.active.iter_mut().find(|entry| entry.rpc == rpc) {
            let peer = entry.peer;
            let known = std::mem::replace(&mut entry.view, view);
            if known.age(peer) != view.age(peer) {
                self.ages.set(rpc, view.age(peer));
            }
            return;
        }
        let Some(known) = self.ages.key(rpc) else { return };
        let peer = known.2;
        if known != view.age(peer) {
            self.ages.set(rpc, view.age(peer));
        }
        self.sorted = false;
        self.waiting.update(rpc, peer, view.srpt());
    }

    /// Takes a message out, if it is in.
    pub(crate) fn remove(&mut self, at: Moment, rpc: RpcKey) {
        let Some((.., peer)) = self.ages.key(rpc) else { return };
        self.ages.remove(rpc);
        if let Some(policy) = &mut self.policy {
            return policy.end(at, rpc);
        }
        if !self.waiting.remove(rpc, peer, self.held(peer)) {
            self.active.retain(|e| e.rpc != rpc);
            self.settled = None;
            self.waiting.peer_holds(peer, self.held(peer));
        }
    }

    /// Chooses the active messages: free slots go to the peers with fewest of them, then to the shortest; a shorter
    /// message displaces the longest of the peer that has most. The slots of a peer are its shortest messages'.
    pub(crate) fn fill(&mut self, config: &Config, view: impl Fn(RpcKey) -> View) {
        let slots = config.max_overcommit.clamp(1, MOST_ACTIVE);
        while self.active.len() > slots {
            let longest = self.longest_of(|_| true);
            let entry = self.active.swap_remove(longest);
            self.settled = None;
            self.wait(entry);
        }
        loop {
            if !std::mem::replace(&mut self.sorted, true) {
                self.sort_peers(&view);
            }
            let Some((rpc, peer, order)) = self.waiting.first() else { return };
            if self.settled == Some((rpc, order, slots)) {
                return;
            }
            let candidate = Entry { rpc, peer, view: view(rpc) };
            if self.active.len() < slots {
                (self.settled, self.sorted) = (None, false);
                self.active.push(candidate);
                self.waiting.remove(rpc, peer, self.held(peer));
                continue;
            }
            // The peer that has most slots, the candidate counted for its own.
            let held = |e: &Entry| self.held(e.peer) + usize::from(e.peer == peer);
            let most = self.active.iter().map(held).max().expect("all slots are taken");
            let victim = self.longest_of(|e| most == 1 || held(e) == most);
            let loser = self.active[victim];
            let unfair = self.held(loser.peer) > self.held(candidate.peer) + 1;
            let longer = loser.view.srpt() > order;
            if unfair || longer {
                (self.settled, self.sorted) = (None, false);
                self.active[victim] = candidate;
                self.waiting.remove(rpc, peer, self.held(peer));
                self.wait(loser);
            } else {
                self.settled = Some((rpc, order, slots));
                return;
            }
        }
    }

    /// The next grant to make, if any: the shortest active message whose window is open, as far as
    /// `max_incoming` allows. To be called until it returns nothing, the caller applying each decision.
    pub(crate) fn decide(&mut self, config: &Config) -> Option<Decision> {
        let active = self.active.len();
        self.active.sort_unstable_by_key(|e| e.view.srpt());
        let window = config.grant_window(active);
        let headroom = match config.lacks(Planted::GrantClamp) {
            true => usize::MAX,
            false => config.max_incoming.saturating_sub(self.total_incoming),
        };
        for (rank, entry) in self.active.iter().enumerate() {
            let v = entry.view;
            let end = if config.lacks(Planted::LengthClamp) { usize::MAX } else { v.len };
            let want = (v.received + window).min(end).saturating_sub(v.granted);
            // Small steps would cost a packet each; the rest of a message is worth one whatever its size.
            let worthwhile = want >= window / 8 || v.granted + want == v.len;
            if want == 0 || !worthwhile {
                continue;
            }
            let step = want.min(headroom);
            if step == 0 || (step < want && step < window / 8) {
                self.needy[entry.rpc] = true;
                continue;
            }
            let was_needy = std::mem::replace(&mut self.needy[entry.rpc], step < want);
            return Some(Decision {
                rpc: entry.rpc,
                offset: v.granted + step,
                priority: priority(config.max_sched_priority, rank, active),
                was_needy,
            });
        }
        None
    }

    /// True if [`Self::choose`] decides, not [`Self::fill`] and [`Self::decide`].
    pub(crate) fn has_policy(&self) -> bool {
        self.policy.is_some()
    }

    /// The next grant of the policy, which may be one that can't be.
    pub(crate) fn choose(&mut self, at: Moment, room: usize) -> Option<Choice> {
        self.policy.as_mut()?.choose(at, room)
    }

    /// When the policy wants to be asked even if nothing comes.
    pub(crate) fn wake(&self) -> Option<Instant> {
        self.policy.as_ref()?.wake()
    }

    #[cold]
    fn tell_policy(&mut self, at: Moment, rpc: RpcKey, view: View) {
        let Some(known) = self.ages.key(rpc) else { return };
        let peer = known.2;
        if known != view.age(peer) {
            self.ages.set(rpc, view.age(peer));
        }
        if let Some(policy) = &mut self.policy {
            policy.progress(at, Incoming::new(rpc, peer, view));
        }
    }

    /// The message to favour by age: the oldest that needs grants and has used up the grant by age that it had, if any.
    pub(crate) fn oldest(&self, config: &Config, view: impl Fn(RpcKey) -> View) -> Option<(RpcKey, usize)> {
        let ((blocked, ..), rpc) = self.ages.first()?;
        let v = view(rpc);
        (!blocked).then(|| (rpc, (v.granted + config.fifo_grant_increment).min(v.len)))
    }

    /// True if a message is in.
    #[cfg(feature = "check")]
    pub(crate) fn holds(&self, rpc: RpcKey) -> bool {
        self.ages.key(rpc).is_some()
    }

    /// Checks that all stand where what has come of them puts them.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self, config: &Config, view: impl Fn(RpcKey) -> View) -> Result<(), String> {
        let (active, slots) = (self.active.len(), config.max_overcommit.clamp(1, MOST_ACTIVE));
        hold!(active <= slots, "{active} active messages, {slots} allowed");
        self.ages.check()?;
        self.waiting.check(|peer| self.held(peer))?;
        if let Some(policy) = &self.policy {
            for (age, rpc) in self.ages.iter() {
                let right = view(rpc).age(age.2);
                hold!(age == right, "message {rpc} stands by age at {age:?}, not {right:?}");
            }
            return policy.check(&mut self.ages.iter().map(|(age, rpc)| Incoming::new(rpc, age.2, view(rpc))));
        }
        for entry in self.active.iter().filter(|_| self.sorted) {
            let shortest = self.waiting.first_of(entry.peer);
            let before = shortest.is_none_or(|(_, order)| entry.view.srpt() <= order);
            hold!(before, "message {} holds a slot, {shortest:?} of its peer waits", entry.rpc);
        }
        for (age, rpc) in self.ages.iter() {
            let right = view(rpc).age(age.2);
            hold!(age == right, "message {rpc} stands by age at {age:?}, not {right:?}");
            let active = self.active.iter().find(|e| e.rpc == rpc);
            if let Some(entry) = active {
                hold!(entry.view == view(rpc), "message {rpc} is known as {:?}, is {:?}", entry.view, view(rpc));
            }
            let (order, right) = (self.waiting.order(rpc, age.2), active.is_none().then(|| view(rpc).srpt()));
            hold!(order == right, "message {rpc} waits in place {order:?}, not {right:?}");
        }
        let (all, waiting) = (self.ages.len(), self.waiting.len());
        hold!(all == active + waiting, "{all} messages, {active} of them active and {waiting} waiting");
        Ok(())
    }

    fn held(&self, peer: PeerKey) -> usize {
        self.active.iter().filter(|e| e.peer == peer).count()
    }

    /// Gives the slots of each peer to its shortest messages.
    fn sort_peers(&mut self, view: impl Fn(RpcKey) -> View) {
        for slot in 0..self.active.len() {
            let peer = self.active[slot].peer;
            while let Some((rpc, order)) = self.waiting.first_of(peer) {
                let longest = self.longest_of(|e| e.peer == peer);
                let loser = self.active[longest];
                if loser.view.srpt() <= order {
                    break;
                }
                self.active[longest] = Entry { rpc, peer, view: view(rpc) };
                self.waiting.remove(rpc, peer, self.held(peer));
                self.wait(loser);
            }
        }
    }

    /// Has a message wait that was active.
    fn wait(&mut self, entry: Entry) {
        let held = self.held(entry.peer);
        self.waiting.insert(entry.rpc, entry.peer, entry.view.srpt(), held);
    }

    fn longest_of(&self, mut among: impl FnMut(&Entry) -> bool) -> usize {
        (0..self.active.len())
            .filter(|&i| among(&self.active[i]))
            .max_by_key(|&i| self.active[i].view.srpt())
            .expect("some active message is among them")
    }
}

/// The level for scheduled packets of the active message with `rank` shorter ones: with few active messages the
/// lowest levels, so that a newcomer can overtake at once.
fn priority(max_sched: u8, rank: usize, active: usize) -> u8 {
    let spare = (usize::from(max_sched) + 1).saturating_sub(active);
    usize::from(max_sched).saturating_sub(rank).saturating_sub(spare) as u8
}

#[cfg(test)]
mod naive;

#[cfg(test)]
mod tests {
    use super::*;

    /// Of no interest without a policy.
    const AT: Moment = Moment { now: Instant::from_nanos(0), heard: 0 };

    /// Messages by key: (remaining, birth).
    fn view(remaining: &[usize]) -> impl Fn(RpcKey) -> View + '_ {
        |rpc| View {
            remaining: remaining[rpc],
            birth: Instant::from_nanos(rpc as u64),
            received: 1_000_000 - remaining[rpc],
            granted: 1_000_000 - remaining[rpc],
            len: 1_000_000,
            by_age: 0,
        }
    }

    fn active(g: &Grants) -> Vec<RpcKey> {
        let mut keys: Vec<_> = g.active.iter().map(|e| e.rpc).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn each_peer_gets_a_slot_before_any_gets_two() {
        let config = Config { max_overcommit: 2, ..Config::default() };
        let lens = [500_000, 400_000, 900_000];
        let mut g = Grants::default();
        g.insert(AT, 0, 10, view(&lens)(0));
        g.insert(AT, 1, 10, view(&lens)(1));
        g.fill(&config, view(&lens));
        assert_eq!(active(&g), [0, 1]);
        g.insert(AT, 2, 20, view(&lens)(2));
        g.fill(&config, view(&lens));
        assert_eq!(active(&g), [1, 2], "the longer of peer 10's two made room for peer 20's only one");
    }

    #[test]
    fn a_shorter_message_displaces_a_longer_one() {
        let config = Config { max_overcommit: 2, ..Config::default() };
        let lens = [500_000, 400_000, 300_000, 450_000];
        let mut g = Grants::default();
        for (rpc, peer) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
            g.insert(AT, rpc, peer, view(&lens)(rpc));
            g.fill(&config, view(&lens));
        }
        assert_eq!(active(&g), [1, 2]);
        g.remove(AT, 2);
        g.fill(&config, view(&lens));
        assert_eq!(active(&g), [1, 3]);
        let fewer = Config { max_overcommit: 1, ..Config::default() };
        g.fill(&fewer, view(&lens));
        assert_eq!(active(&g), [1], "lowering the limit at run time shrinks the active set");
    }

    #[test]
    fn a_shorter_message_takes_the_slot_of_a_longer_one_of_its_peer_however_many_peers_wait() {
        let config = Config { max_overcommit: 2, ..Config::default() };
        let lens = [900_000, 100_000, 800_000, 50_000, 120_000];
        let mut g = Grants::default();
        for (rpc, peer) in [(1, 1), (4, 2), (0, 3), (2, 4)] {
            g.insert(AT, rpc, peer, view(&lens)(rpc));
            g.fill(&config, view(&lens));
        }
        assert_eq!(active(&g), [1, 4], "peers 3 and 4 wait");
        g.insert(AT, 3, 2, view(&lens)(3));
        g.fill(&config, view(&lens));
        assert_eq!(active(&g), [1, 3]);
    }

    #[test]
    fn grants_stop_at_the_window_and_at_max_incoming() {
        let config = Config::default();
        let lens = [900_000, 800_000, 700_000];
        let mut g = Grants::default();
        for rpc in 0..3 {
            g.insert(AT, rpc, rpc as PeerKey, view(&lens)(rpc));
        }
        g.fill(&config, view(&lens));
        let first = g.decide(&config).unwrap();
        assert_eq!((first.rpc, first.offset), (2, 300_000 + 100_000), "shortest first, window max_incoming / 4");
        g.total_incoming = config.max_incoming - 50_000;
        assert_eq!(g.decide(&config).unwrap().offset, 350_000);
        g.total_incoming = config.max_incoming;
        assert_eq!(g.decide(&config), None);
    }

    #[test]
    fn few_active_messages_use_the_lowest_levels() {
        assert_eq!(priority(3, 0, 1), 0);
        assert_eq!([priority(3, 0, 2), priority(3, 1, 2)], [1, 0]);
        assert_eq!((0..6).map(|rank| priority(3, rank, 6)).collect::<Vec<_>>(), [3, 2, 1, 0, 0, 0]);
    }

    #[test]
    fn the_oldest_is_favoured_unless_it_has_a_grant_by_age_that_it_did_not_use() {
        let config = Config::default();
        let mut g = Grants::default();
        let v = |granted0, by_age0| {
            move |rpc: RpcKey| View {
                remaining: 900_000,
                birth: Instant::from_nanos(rpc as u64),
                received: 100_000,
                granted: if rpc == 0 { granted0 } else { 100_000 },
                len: 1_000_000,
                by_age: if rpc == 0 { by_age0 } else { 0 },
            }
        };
        g.insert(AT, 0, 0, v(100_000, 0)(0));
        g.insert(AT, 1, 1, v(100_000, 0)(1));
        let mut oldest = |granted0, by_age0| {
            let view = v(granted0, by_age0);
            g.update(AT, 0, view(0));
            g.oldest(&config, view)
        };
        assert_eq!(oldest(100_000, 0), Some((0, 150_000)));
        assert_eq!(oldest(800_000, 0), Some((0, 850_000)), "other grants do not count");
        assert_eq!(oldest(150_000, 100_001), Some((1, 150_000)), "a byte of it has not come");
        assert_eq!(oldest(150_000, 100_000), Some((0, 200_000)));
        assert_eq!(oldest(1_000_000, 0), Some((1, 150_000)), "it needs none");
    }
}
