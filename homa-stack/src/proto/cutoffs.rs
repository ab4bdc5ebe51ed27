//! Which message lengths use which unscheduled priority, chosen from the lengths of the messages that come.
//!
//! The receiver chooses: its table goes to its peers in CUTOFFS packets. Levels are shared out by bytes. As many are for
//! unscheduled packets as their share of the bytes is, at least one; at least one is left for scheduled ones. The
//! cutoffs between unscheduled levels are such that each level carries as many unscheduled bytes as the others, shorter
//! messages the more urgent. Source: homa-protocol.md 3.1; "Homa: a receiver-driven low-latency transport protocol using
//! network priorities" (SIGCOMM 2018), 3.4.
//!
//! A new table costs a CUTOFFS packet to each peer and, for a moment, messages on two tables; so it must be better by
//! a margin to be taken.

use super::config::Config;
use super::endpoint::Endpoint;
use super::shard::{Forward, News, Target};
use crate::units::{Instant, Priority};
use crate::wire::{Cutoffs, MAX_MESSAGE_LEN};

/// Length classes per doubling: cutoffs are exact to 2 %.
const PER_OCTAVE: usize = 64;

/// Classes of lengths up to 1,000,000.
const CLASSES: usize = class(MAX_MESSAGE_LEN) + 1;

/// How much more the fullest level must carry than it would by a new table.
const MARGIN: f64 = 1.25;

/// How far the exact number of unscheduled levels must be from the present one. Half a level is what rounding needs.
const LEVEL_MARGIN: f64 = 0.75;

/// The lengths of the messages that came in a span of time.
#[derive(Debug)]
pub(crate) struct Lengths {
    /// Unscheduled bytes by length class.
    unscheduled: Box<[u64; CLASSES]>,
    bytes: u64,
    messages: u64,
    since: Instant,
}

/// A table and what comes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Choice {
    cutoffs: [u32; Priority::LEVELS],
    max_sched_priority: u8,
}

impl Lengths {
    /// Lengths to be observed, if `config` wants so and there are levels to choose from. Of several endpoints behind one
    /// address the first observes and chooses for all: each gets its part of the RPCs without regard to their lengths.
    pub(crate) fn new(config: &Config) -> Option<Self> {
        let is_first = config.shard.index() == 0;
        (config.auto_cutoffs && is_first && config.control_priority() > 0).then(|| Self {
            unscheduled: Box::new([0; CLASSES]),
            bytes: 0,
            messages: 0,
            since: Instant::default(),
        })
    }

    /// A message of `len` bytes has come, `unscheduled` of them without grants.
    pub(crate) fn add(&mut self, len: usize, unscheduled: usize) {
        self.unscheduled[class(len)] += unscheduled as u64;
        self.bytes += len as u64;
        self.messages += 1;
    }

    /// A table for `num_priorities` levels, if it is better than that of `config` by a margin.
    fn better(&self, config: &Config) -> Option<Choice> {
        let levels = usize::from(config.control_priority()) + 1;
        let share = self.total() as f64 / self.bytes.max(1) as f64;
        let exact = share * levels as f64;
        let present = levels - 1 - usize::from(config.max_sched_priority.min(config.control_priority()));
        let keeps = present >= 1 && (exact.clamp(1.0, levels as f64 - 1.0) - present as f64).abs() <= LEVEL_MARGIN;
        let number = if keeps { present } else { (exact.round() as usize).clamp(1, levels - 1) };
        let choice = self.choose(levels, number);
        let better =
            self.fullest(&config.cutoffs, levels) as f64 > MARGIN * self.fullest(&choice.cutoffs, levels) as f64;
        (!keeps || better).then_some(choice)
    }

    /// The table by which the uppermost `number` of `levels` levels carry as many unscheduled bytes each, as far as
    /// lengths can be told apart.
    fn choose(&self, levels: usize, number: usize) -> Choice {
        let mut cutoffs = [0; Priority::LEVELS];
        let lowest = levels - number;
        let (mut level, mut below, mut sum) = (levels - 1, 0, 0);
        for (index, bytes) in self.unscheduled.iter().enumerate().filter(|(_, bytes)| **bytes > 0) {
            sum += bytes;
            while level > lowest {
                // What is left is shared anew after each cutoff: a length that fills several levels takes up only one.
                let share = (self.total() - below) / (level - lowest + 1) as u64;
                let (without, with) = (sum - bytes - below, sum - below);
                if with < share {
                    break;
                }
                // The cutoff is before this class or after it, whichever is nearer to the share.
                let before = without > 0 && share - without.min(share) < with - share;
                cutoffs[level] = class_limit(index - usize::from(before)) as u32;
                below += if before { without } else { with };
                level -= 1;
                if !before {
                    break;
                }
            }
        }
        cutoffs[lowest..=level].fill(MAX_MESSAGE_LEN as u32);
        cutoffs[0] = u32::MAX;
        Choice { cutoffs, max_sched_priority: lowest.saturating_sub(1) as u8 }
    }

    /// Unscheduled bytes of the level that carries most.
    fn fullest(&self, cutoffs: &[u32; Priority::LEVELS], levels: usize) -> u64 {
        let mut carried = [0; Priority::LEVELS];
        for (index, bytes) in self.unscheduled.iter().enumerate() {
            let fits = |level: &usize| cutoffs[*level] as usize >= class_limit(index).min(MAX_MESSAGE_LEN);
            carried[(0..levels).rev().find(fits).unwrap_or(0)] += bytes;
        }
        carried.into_iter().max().unwrap_or(0)
    }

    fn total(&self) -> u64 {
        self.unscheduled.iter().sum()
    }

    fn clear(&mut self, now: Instant) {
        self.unscheduled.fill(0);
        (self.bytes, self.messages, self.since) = (0, 0, now);
    }
}

impl Endpoint {
    /// Looks, from time to time, whether another table suits the messages that come better. Peers learn it by the
    /// version, which their next packets lack.
    pub(super) fn review_cutoffs(&mut self, now: Instant) {
        let Some(lengths) = &mut self.lengths else { return };
        let config = &mut self.config;
        if now.since(lengths.since) < config.cutoff_interval || lengths.messages < config.cutoff_min_messages.max(1) {
            return;
        }
        if let Some(choice) = lengths.better(config) {
            // 0 means "none yet".
            let version = config.cutoff_version.wrapping_add(1).max(1);
            config.set_cutoffs(Cutoffs { table: choice.cutoffs, version }, choice.max_sched_priority);
            self.metrics.cutoff_changes += 1;
        }
        lengths.clear(now);
        if config.shard.is_part() && self.metrics.cutoff_changes > 0 {
            // Each time: what is handed on can be lost.
            let cutoffs = Cutoffs { table: config.cutoffs, version: config.cutoff_version };
            let news = News::Cutoffs { cutoffs, max_sched_priority: config.max_sched_priority };
            self.hand_on(Forward { to: Target::All, news });
        }
    }
}

impl Config {
    /// Takes a table that was chosen.
    pub(crate) fn set_cutoffs(&mut self, cutoffs: Cutoffs, max_sched_priority: u8) {
        (self.cutoffs, self.cutoff_version) = (cutoffs.table, cutoffs.version);
        self.max_sched_priority = max_sched_priority;
    }

    /// Brings the table into the form that the protocol asks for: all lengths have a level, and levels that are not in
    /// use none.
    pub(crate) fn normalise_cutoffs(&mut self) {
        let levels = usize::from(self.control_priority()) + 1;
        self.cutoffs[0] = u32::MAX;
        self.cutoffs[levels..].fill(0);
        self.cutoff_version = self.cutoff_version.max(1);
    }
}

/// The class of a length of at least 1.
const fn class(len: usize) -> usize {
    if len < PER_OCTAVE {
        return len;
    }
    let shift = (len / PER_OCTAVE).ilog2() as usize;
    shift * PER_OCTAVE + (len >> shift)
}

/// The longest length of a class.
const fn class_limit(class: usize) -> usize {
    if class < PER_OCTAVE {
        return class;
    }
    let shift = class / PER_OCTAVE - 1;
    ((class % PER_OCTAVE + PER_OCTAVE + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Shard;

    fn config() -> Config {
        Config { auto_cutoffs: true, ..Config::default() }
    }

    /// Lengths of `counts` (length, how many), with 40,000 bytes unscheduled.
    fn lengths(counts: &[(usize, usize)]) -> Lengths {
        let mut lengths = Lengths::new(&config()).unwrap();
        for &(len, count) in counts {
            (0..count).for_each(|_| lengths.add(len, len.min(40_000)));
        }
        lengths
    }

    #[test]
    fn classes_follow_each_other_and_are_narrow() {
        let mut last = 0;
        for len in 1..=MAX_MESSAGE_LEN {
            let c = class(len);
            assert!(c == last || c == last + 1, "{len}");
            let limit = class_limit(c);
            assert!(limit >= len && limit < len + len.div_ceil(PER_OCTAVE), "{len} in a class up to {limit}");
            assert_eq!(class(limit), c);
            last = c;
        }
        assert_eq!(last, CLASSES - 1);
    }

    #[test]
    fn each_unscheduled_level_carries_as_many_bytes() {
        let uniform: Vec<_> = (1..=10_000).map(|len| (len, 1)).collect();
        let lengths = lengths(&uniform);
        for number in 1..=7 {
            let choice = lengths.choose(8, number);
            assert_eq!(choice.max_sched_priority as usize, (8 - number).saturating_sub(1));
            let share = lengths.total() as f64 / number as f64;
            let fullest = lengths.fullest(&choice.cutoffs, 8) as f64;
            assert!(fullest < share * 1.1, "{number} levels: one carries {fullest}, the share is {share}");
            assert_eq!(choice.cutoffs[8 - number], if number == 8 { u32::MAX } else { MAX_MESSAGE_LEN as u32 });
            assert!(choice.cutoffs[1..8 - number].iter().all(|cutoff| *cutoff == 0));
        }
    }

    #[test]
    fn a_length_that_fills_several_levels_takes_up_one() {
        let choice = lengths(&[(100, 100_000), (1_000, 100), (5_000, 20), (20_000, 5)]).choose(8, 4);
        let levels = |len: u32| (0..8).rev().find(|i| choice.cutoffs[*i] >= len).unwrap();
        assert_eq!([100, 1_000, 5_000, 20_000].map(levels), [7, 6, 5, 4], "{:?}", choice.cutoffs);
    }

    #[test]
    fn levels_are_shared_out_by_bytes() {
        for (counts, number) in [
            (&[(100, 10_000)][..], 7),
            (&[(1_000_000, 10)], 1),
            (&[(1_000, 1_000), (1_000_000, 1), (500_000, 1)], 4),
            (&[(10_000, 10), (100_000, 1)], 6),
        ] {
            let lengths = lengths(counts);
            let choice = lengths.better(&config());
            let max_sched = choice.map_or(config().max_sched_priority, |choice| choice.max_sched_priority);
            assert_eq!(max_sched as usize, (8_usize - number).saturating_sub(1), "{counts:?}");
        }
    }

    #[test]
    fn a_table_stays_until_another_is_better_by_a_margin() {
        let mut config = config();
        let mix = |more: usize| lengths(&[(20, 200_000 + more), (100, 40_000), (400, 10_000), (800_000, 14)]);
        let first = mix(0).better(&config).expect("the default table is for other lengths");
        (config.cutoffs, config.max_sched_priority) = (first.cutoffs, first.max_sched_priority);
        for more in [0, 5_000, 20_000, 0] {
            assert_eq!(mix(more).better(&config), None, "{more} more short messages change nothing");
        }
        assert!(mix(800_000).better(&config).is_some());
    }

    /// Else peers would be told one table and the other in turn.
    #[test]
    fn of_several_endpoints_of_a_host_the_first_chooses_for_all() {
        let part = |index| Config { shard: Shard::new(index, 3).unwrap(), cutoff_min_messages: 1, ..config() };
        assert!(Lengths::new(&part(1)).is_none() && Lengths::new(&part(2)).is_none());
        let mut first = Endpoint::new(part(0));
        first.lengths.as_mut().unwrap().add(100, 100);
        let now = Instant::from_nanos(2_000_000_000);
        first.review_cutoffs(now);
        let forward = first.poll_forward().expect("the choice is handed on");
        assert_eq!(forward.to, Target::All);
        let mut second = Endpoint::new(part(1));
        second.handle_forward(now, &forward);
        let table = |core: &Endpoint| {
            let config = core.config();
            (config.cutoffs, config.cutoff_version, config.max_sched_priority)
        };
        assert_eq!(table(&second), table(&first));
        assert_eq!(table(&second).1, 2);
    }

    #[test]
    fn any_number_of_levels_has_a_table() {
        let lengths = lengths(&[(100, 10), (10_000, 10), (1_000_000, 1)]);
        for num_priorities in 2..=8 {
            let mut config = Config { num_priorities, ..config() };
            config.normalise_cutoffs();
            let levels = usize::from(num_priorities);
            assert!(config.cutoffs[levels..].iter().all(|cutoff| *cutoff == 0));
            for number in 1..levels {
                let choice = lengths.choose(levels, number);
                assert!(choice.cutoffs[levels..].iter().all(|cutoff| *cutoff == 0));
                assert_eq!(choice.cutoffs[0], u32::MAX);
                assert!(choice.max_sched_priority < num_priorities - 1);
            }
            _ = lengths.better(&config);
        }
        assert!(Lengths::new(&Config { num_priorities: 1, ..self::config() }).is_none());
    }
}
