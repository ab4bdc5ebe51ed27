//! A policy of SIRD's kind: little credit, and less of it for senders that are busy with others.
//!
//! Source of the idea: "SIRD: a sender-informed, receiver-driven datacenter transport protocol" (NSDI 2025). There each
//! receiver bounds the credit that it has given out in total, by little more than the bytes of a round trip, and that of
//! each sender by a share that follows what the sender says: a bit in its packets that it holds more credit than it can use.
//!
//! Homa's packets have no such bit, so that what senders say is inferred from what they do. A byte that was granted comes
//! after a round trip if its sender is free. It comes later if the sender has other bytes to send first (that is what
//! the bit says), if packets waited in the network, or if they waited for this host's own link, behind bytes to it. The last
//! part is known: what has come in the meantime took its time on the link. The rest of the wait beyond the shortest
//! one seen of the sender is taken for the sender's. Shares follow it as DCTCP's windows follow marks.
//!
//! All packets go at one level, the lowest; messages with the fewest bytes left to grant first.

use std::collections::VecDeque;

use super::config::Config;
use super::policy::{Choice, GrantPolicy, Incoming, Moment, Policy};
use crate::units::Nanos;

/// Parameters of [`Informed`], in bytes unless said.
#[derive(Clone, Debug, PartialEq)]
pub struct InformedConfig {
    /// Most that is granted and has not come, over all messages, without what comes unasked; at least `step`.
    pub total: usize,
    /// Most of it for one sender: the bytes of a round trip.
    pub most: usize,
    /// Least that a sender's share shrinks to; at least `step`.
    pub least: usize,
    /// Granted at a time.
    pub step: usize,
    /// A sender is congested if bytes come as much later as it needs to send so many.
    pub backlog: usize,
    /// Weight of the latest round in what is remembered of a sender's congestion, 0 to 1.
    pub gain: f64,
}

impl InformedConfig {
    /// The paper's proportions for a round trip of `rtt_bytes`: half as much again in total, half of it held by a sender
    /// is congestion.
    pub fn for_round_trip(rtt_bytes: usize) -> Self {
        Self {
            total: rtt_bytes * 3 / 2,
            most: rtt_bytes,
            least: rtt_bytes / 16,
            step: rtt_bytes / 16,
            backlog: rtt_bytes / 2,
            gain: 1.0 / 16.0,
        }
    }

    /// The policy with these parameters.
    pub fn policy(self) -> Policy {
        Policy::new("informed", move |config| Box::new(Informed::new(&self, config)))
    }
}

/// Grants by informed overcommitment, in the way of SIRD ([`InformedConfig`]) without its bit: a sender whose bytes come later
/// than after its shortest delay, and not because this host's link was busy, gets a smaller share.
#[derive(Debug)]
pub struct Informed {
    config: InformedConfig,
    /// Time of a byte on a link, in ns.
    byte_ns: f64,
    /// Messages that need grants.
    messages: Vec<Message>,
    /// By number of the sender.
    senders: Vec<Sender>,
    /// Credit that is out.
    out: usize,
}

/// A message with the grants that have not been used.
#[derive(Debug)]
struct Message {
    last: Incoming,
    /// What it may send unasked, which is no credit.
    unasked: usize,
    /// End of what has used a grant.
    used: usize,
    /// Where grants end and when they were made, the oldest first.
    grants: VecDeque<(usize, Moment)>,
}

impl Message {
    fn credit(&self) -> usize {
        credit(&self.last, self.unasked)
    }
}

/// Bytes granted that have not come; `unasked` come first.
fn credit(message: &Incoming, unasked: usize) -> usize {
    message.granted.saturating_sub(message.received.max(unasked))
}

/// What is known of a sender.
#[derive(Clone, Debug)]
struct Sender {
    /// Most credit that it may have.
    share: f64,
    /// Credit that it has.
    out: usize,
    /// Shortest time from a grant to its bytes.
    shortest: Nanos,
    /// Bytes that have come in this round, and those of them that came late. A round is a share.
    came: usize,
    late: usize,
    /// Share of late bytes, as a moving average.
    congestion: f64,
}

impl Informed {
    /// For an endpoint with `config`.
    pub fn new(informed: &InformedConfig, config: &Config) -> Self {
        let step = informed.step.clamp(1, config.max_incoming.max(1));
        let least = informed.least.max(step);
        let most = informed.most.max(least);
        let informed = InformedConfig { step, least, most, total: informed.total.max(step), ..informed.clone() };
        let byte_ns = 8_000.0 / config.link_mbps.max(1) as f64;
        Self { config: informed, byte_ns, messages: Vec::new(), senders: Vec::new(), out: 0 }
    }

    fn sender(&mut self, number: u32) -> &mut Sender {
        let at = number as usize;
        if self.senders.len() <= at {
            let new = Sender {
                share: self.config.most as f64,
                out: 0,
                shortest: Nanos::from_nanos(u64::MAX),
                came: 0,
                late: 0,
                congestion: 0.0,
            };
            self.senders.resize(at + 1, new);
        }
        &mut self.senders[at]
    }

    /// Takes note that `bytes` of credit were used, of a grant of `granted`.
    fn used(&mut self, at: Moment, sender: u32, bytes: usize, granted: Moment) {
        let (byte_ns, config) = (self.byte_ns, self.config.clone());
        let known = self.sender(sender);
        let took = at.now.since(granted.now);
        // What came meanwhile had the link; it can't have been longer than all of the time.
        let own = (at.heard.saturating_sub(granted.heard)) as f64 * byte_ns;
        known.shortest = known.shortest.min(took);
        let waited = took.as_nanos().saturating_sub(known.shortest.as_nanos()) as f64;
        let pipe = known.shortest.as_nanos() as f64;
        // The link is busy during a round trip as well, which is no wait.
        let beyond = (own - pipe).max(0.0);
        known.came += bytes;
        if waited - beyond > config.backlog as f64 * byte_ns {
            known.late += bytes;
        }
        if known.came as f64 >= known.share {
            let late = known.late as f64 / known.came as f64;
            known.congestion += config.gain * (late - known.congestion);
            let share = if known.late > 0 {
                known.share * (1.0 - known.congestion / 2.0)
            } else {
                known.share + config.step as f64
            };
            known.share = share.clamp(config.least as f64, config.most as f64);
            (known.came, known.late) = (0, 0);
        }
    }

    /// Brings accounts up to date with what is known of the message in place `index`.
    fn note(&mut self, index: usize, message: Incoming) {
        let known = &mut self.messages[index];
        let before = known.credit();
        known.last = message;
        let after = known.credit();
        self.out = self.out + after - before;
        let sender = self.sender(message.sender);
        sender.out = sender.out + after - before;
    }
}

impl GrantPolicy for Informed {
    fn begin(&mut self, _: Moment, message: Incoming) {
        let unasked = message.granted;
        self.messages.push(Message { last: message, unasked, used: unasked, grants: VecDeque::new() });
    }

    fn progress(&mut self, at: Moment, message: Incoming) {
        let Some(index) = self.messages.iter().position(|known| known.last.key == message.key) else { return };
        if message.granted > self.messages[index].last.granted {
            self.messages[index].grants.push_back((message.granted, at));
        }
        self.note(index, message);
        while let Some((end, granted)) = self.messages[index].grants.pop_front_if(|(end, _)| *end <= message.received) {
            let bytes = end - std::mem::replace(&mut self.messages[index].used, end);
            self.used(at, message.sender, bytes, granted);
        }
    }

    fn end(&mut self, _: Moment, key: usize) {
        let Some(index) = self.messages.iter().position(|known| known.last.key == key) else { return };
        let last = self.messages[index].last;
        // All has come, or nothing will.
        self.note(index, Incoming { received: last.granted.max(last.received), ..last });
        self.messages.swap_remove(index);
    }

    fn choose(&mut self, _: Moment, room: usize) -> Option<Choice> {
        let (step, total) = (self.config.step, self.config.total);
        let fits = |known: &&Message| {
            let (left, sender) = (known.last.ungranted().min(step), self.senders.get(known.last.sender as usize));
            let (share, out) = sender.map_or((self.config.most, 0), |sender| (sender.share as usize, sender.out));
            left > 0 && left <= room && self.out + left <= total && out + left <= share
        };
        let next = self.messages.iter().filter(fits).min_by_key(|known| (known.last.ungranted(), known.last.birth))?;
        let offset = next.last.granted + next.last.ungranted().min(step);
        Some(Choice { key: next.last.key, offset, priority: 0 })
    }

    fn check(&self, messages: &mut dyn Iterator<Item = Incoming>) -> Result<(), String> {
        let mut count = 0;
        for message in messages {
            count += 1;
            if !self.messages.iter().any(|known| known.last == message) {
                return Err(format!("the policy does not know of {message:?}"));
            }
        }
        if self.messages.len() != count {
            return Err(format!("the policy knows of {} messages instead of {count}", self.messages.len()));
        }
        let sum = |of: &dyn Fn(&Message) -> bool| self.messages.iter().filter(|m| of(m)).map(Message::credit).sum();
        let out: usize = sum(&|_| true);
        if self.out != out || out > self.config.total {
            return Err(format!("{out} bytes of credit are out, counted {}, of {}", self.out, self.config.total));
        }
        for (number, sender) in self.senders.iter().enumerate() {
            let out: usize = sum(&|m| m.last.sender as usize == number);
            if sender.out != out || out > self.config.most {
                let most = self.config.most;
                return Err(format!("sender {number} has {out} bytes of credit, counted {}, of {most}", sender.out));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Instant;

    const KB: usize = 1_000;

    /// 1 ns a byte.
    fn informed() -> Informed {
        let informed =
            InformedConfig { total: 60 * KB, most: 40 * KB, least: 4 * KB, step: 4 * KB, backlog: 20 * KB, gain: 0.5 };
        Informed::new(&informed, &Config { link_mbps: 8_000, ..Config::default() })
    }

    fn message(key: usize, sender: u32) -> Incoming {
        Incoming { key, sender, birth: Instant::default(), len: 1_000 * KB, received: 10 * KB, granted: 10 * KB }
    }

    fn at(ns: u64, heard: u64) -> Moment {
        Moment { now: Instant::from_nanos(ns), heard }
    }

    /// Has the policy grant as much as it will.
    fn grant_all(policy: &mut Informed, now: Moment) {
        while let Some(choice) = policy.choose(now, usize::MAX) {
            let last = policy.messages.iter().find(|m| m.last.key == choice.key).unwrap().last;
            policy.progress(now, Incoming { granted: choice.offset, ..last });
        }
    }

    fn granted(policy: &Informed) -> Vec<usize> {
        let mut all: Vec<_> = policy.messages.iter().map(|m| (m.last.key, m.last.granted)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, granted)| granted).collect()
    }

    #[test]
    fn credit_is_bounded_for_each_sender_and_in_total() {
        let mut policy = informed();
        (0..3).for_each(|key| policy.begin(at(0, 0), message(key, key as u32)));
        grant_all(&mut policy, at(0, 0));
        assert_eq!(granted(&policy), [50 * KB, 30 * KB, 10 * KB]);
        assert_eq!(policy.choose(at(0, 0), usize::MAX), None);
        policy.end(at(1, 0), 0);
        assert_eq!(policy.out, 20 * KB);
        assert_eq!(policy.choose(at(1, 0), 3 * KB), None, "there is no room for a step");
    }

    /// Lets a sender use its credit, `wait` ns after it was granted, `rounds` times; `others` bytes of others came meanwhile.
    fn rounds(policy: &mut Informed, begin: u64, rounds: u64, wait: u64, others: u64) -> usize {
        for round in 0..rounds {
            let (granted, heard) = (begin + round * 1_000_000, round * 1_000_000);
            grant_all(policy, at(granted, heard));
            let last = policy.messages[0].last;
            policy.progress(at(granted + wait, heard + others), Incoming { received: last.granted, ..last });
        }
        policy.senders[0].share as usize
    }

    #[test]
    fn the_share_of_a_sender_shrinks_while_its_bytes_come_late_and_grows_again() {
        let mut policy = informed();
        policy.begin(at(0, 0), message(0, 0));
        assert_eq!(rounds(&mut policy, 0, 1, 10_000, 0), 40 * KB);
        assert_eq!(rounds(&mut policy, 1 << 30, 3, 29_000, 0), 40 * KB, "19 us later are no sign");
        let less = rounds(&mut policy, 2 << 30, 3, 31_000, 0);
        assert!(less < 20 * KB, "{less}");
        let more = rounds(&mut policy, 3 << 30, 4, 10_000, 0);
        assert!(more > less && more <= less + 16 * KB, "{more} after {less}");
    }

    #[test]
    fn what_waits_for_the_receivers_own_link_is_not_its_senders_fault() {
        let mut policy = informed();
        policy.begin(at(0, 0), message(0, 0));
        rounds(&mut policy, 0, 1, 10_000, 0);
        assert_eq!(rounds(&mut policy, 1 << 30, 5, 60_000, 60_000), 40 * KB, "the link was busy all the time");
        assert!(rounds(&mut policy, 2 << 30, 5, 60_000, 10_000) < 20 * KB, "it was not");
    }
}
