//! What could be otherwise in the study's model than it is taken to be here, to see what a figure depends on.

use homa_stack::policy::{Choice, GrantPolicy, Incoming, Moment, Policy};
use homa_stack::{Config, Instant, Nanos};

use super::DATA;

/// Time of a full packet on a host's link, with framing.
const PACKET_TIME: Nanos = Nanos::from_nanos(1_231);

/// Differences to [`Study`](super::Study); none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variant {
    /// Whom receivers grant to first, a packet a grant, instead of the core's own choice.
    pub order: Option<Order>,
    /// Grants leave a receiver no faster than the packets that they ask for would come.
    pub paced: bool,
    /// Each host sends to all others once before it sends to any again, in random order.
    pub balanced: bool,
    /// The run ends with the measured time: messages that have not arrived then do not count.
    pub cut: bool,
    /// Bytes granted ahead, instead of a round trip's 10,000.
    pub window: Option<usize>,
}

/// The order of messages at a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Fewest bytes missing first, as the core has it.
    Missing,
    /// Fewest bytes without a grant first.
    Ungranted,
    /// Shortest first.
    Whole,
    /// The core's, but one message of a sender at a time.
    OnePerSender,
}

impl Variant {
    pub(super) fn apply(self, config: &mut Config) {
        config.window = self.window.unwrap_or(config.window);
        config.max_incoming = config.max_incoming.max(8 * config.window);
        if self.order.is_some() || self.paced {
            config.grant_policy = Some(Policy::new("ordered", move |config| Box::new(Ordered::new(self, config))));
        }
    }
}

/// Grants to the first `slots` messages in an order, a packet at a time.
#[derive(Debug)]
struct Ordered {
    order: Order,
    paced: bool,
    slots: usize,
    /// Highest level.
    levels: u8,
    window: usize,
    /// When the next grant may leave.
    next: Instant,
    messages: Vec<Incoming>,
}

impl Ordered {
    fn new(variant: Variant, config: &Config) -> Self {
        Self {
            order: variant.order.unwrap_or(Order::Missing),
            paced: variant.paced,
            slots: config.max_overcommit,
            levels: config.max_sched_priority,
            window: config.window,
            next: Instant::default(),
            messages: Vec::new(),
        }
    }

    fn key(&self, message: &Incoming) -> (usize, Instant) {
        let first = match self.order {
            Order::Missing | Order::OnePerSender => message.len - message.received,
            Order::Ungranted => message.ungranted(),
            Order::Whole => message.len,
        };
        (first, message.birth)
    }

    /// The messages that have a turn, in order.
    fn chosen(&self) -> Vec<Incoming> {
        let mut all = self.messages.clone();
        all.sort_unstable_by_key(|message| self.key(message));
        if self.order == Order::OnePerSender {
            let mut seen = Vec::new();
            all.retain(|message| {
                let new = !seen.contains(&message.sender);
                seen.push(message.sender);
                new
            });
        }
        all.truncate(self.slots);
        all
    }

    fn wants(&self, message: &Incoming) -> bool {
        message.ungranted() > 0 && message.to_come() + DATA as usize <= self.window
    }
}

impl GrantPolicy for Ordered {
    fn begin(&mut self, _: Moment, message: Incoming) {
        self.messages.push(message);
    }

    fn progress(&mut self, _: Moment, message: Incoming) {
        if let Some(known) = self.messages.iter_mut().find(|known| known.key == message.key) {
            *known = message;
        }
    }

    fn end(&mut self, _: Moment, key: usize) {
        self.messages.retain(|known| known.key != key);
    }

    fn choose(&mut self, at: Moment, room: usize) -> Option<Choice> {
        if self.paced && at.now < self.next || room < DATA as usize {
            return None;
        }
        let chosen = self.chosen();
        let rank = chosen.iter().position(|message| self.wants(message))?;
        self.next = self.next.max(at.now) + PACKET_TIME;
        let spare = (usize::from(self.levels) + 1).saturating_sub(chosen.len());
        let priority = usize::from(self.levels).saturating_sub(rank + spare) as u8;
        Some(Choice { key: chosen[rank].key, offset: chosen[rank].granted + DATA as usize, priority })
    }

    fn wake(&self) -> Option<Instant> {
        let wanted = self.paced && self.messages.iter().any(|message| self.wants(message));
        wanted.then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: usize, sender: u32, len: usize, received: usize, granted: usize) -> Incoming {
        Incoming { key, sender, birth: Instant::default(), len, received, granted }
    }

    fn policy(variant: Variant) -> Ordered {
        let config = Config { window: 10_000, max_overcommit: 2, max_sched_priority: 3, ..Config::default() };
        Ordered::new(variant, &config)
    }

    #[test]
    fn orders_differ_in_what_they_take_for_short() {
        let now = Moment { now: Instant::from_nanos(1), heard: 0 };
        let first = |order| {
            let mut policy = policy(Variant { order: Some(order), ..Variant::default() });
            policy.begin(now, message(0, 0, 100_000, 60_000, 60_000));
            policy.begin(now, message(1, 1, 50_000, 3_000, 5_000));
            policy.begin(now, message(2, 0, 90_000, 48_000, 56_000));
            policy.choose(now, 1 << 20).map(|choice| (choice.key, choice.priority))
        };
        assert_eq!(first(Order::Missing), Some((0, 1)));
        assert_eq!(first(Order::Whole), Some((1, 1)));
        assert_eq!(first(Order::Ungranted), Some((2, 1)));
        assert_eq!(first(Order::OnePerSender), Some((0, 1)), "of the two of sender 0 the one with less");
    }

    #[test]
    fn a_paced_receiver_grants_a_packet_in_the_time_of_one() {
        let mut policy = policy(Variant { paced: true, ..Variant::default() });
        let at = |ns| Moment { now: Instant::from_nanos(ns), heard: 0 };
        policy.begin(at(5), message(0, 0, 100_000, 9_000, 9_000));
        assert!(policy.choose(at(5), 1 << 20).is_some());
        assert_eq!(policy.choose(at(6), 1 << 20), None);
        assert_eq!(policy.wake(), Some(Instant::from_nanos(5) + PACKET_TIME));
        assert!(policy.choose(at(5 + 1_231), 1 << 20).is_some());
    }
}
