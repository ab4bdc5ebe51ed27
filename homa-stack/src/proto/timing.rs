//! How long things take with a peer: answers, data after grants, packets that others overtake.
//!
//! From this follow the times after which something counts as lost. All are bounded by the configuration, and what is
//! asked for without proof of a loss is bounded by what the peer has delivered.

use super::config::Config;
use crate::units::{Instant, Nanos};

/// Samples before an estimate is used.
const FEWEST_SAMPLES: u32 = 4;

/// Part of a second that observed reordering is remembered for at least; twice that at most.
const EPOCH: Nanos = Nanos::from_millis(500);

/// Messages that a peer must deliver for each early RESEND to it.
const MESSAGES_PER_ASK: u32 = 8;

/// Most early RESENDs that can be saved up.
const MOST_ASKS: u32 = 32;

/// Mean and mean deviation of a time, by exponential smoothing (as TCP's retransmission timer, RFC 6298).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Estimate {
    mean: u64,
    deviation: u64,
    samples: u32,
}

impl Estimate {
    /// Takes a sample.
    pub(crate) fn add(&mut self, sample: Nanos) {
        let sample = sample.as_nanos();
        if self.samples == 0 {
            (self.mean, self.deviation) = (sample, sample / 2);
        } else {
            self.deviation = (3 * self.deviation + self.mean.abs_diff(sample)) / 4;
            self.mean = (7 * self.mean + sample) / 8;
        }
        self.samples = self.samples.saturating_add(1);
    }

    /// A time that is seldom exceeded; nothing while too little is known.
    pub(crate) fn upper(&self) -> Option<Nanos> {
        (self.samples >= FEWEST_SAMPLES).then(|| Nanos::from_nanos(self.mean + 4 * self.deviation))
    }
}

/// The times of a peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timing {
    /// From the last packet of a request to the first of its response: of requests of one packet, and of longer ones,
    /// which wait at lower levels and whose servers may have more to do.
    answer: [Estimate; 2],
    /// From a GRANT to the first packet that it allowed.
    grant: Estimate,
    /// Shortest of those.
    rtt_min: Option<Nanos>,
    /// How late the packets were that others had overtaken: the most in this epoch and in the one before.
    late: [Nanos; 2],
    /// How long the peer paused within what was granted and was asked in vain: likewise.
    paused: [Nanos; 2],
    epoch: Option<Instant>,
    /// What may be asked for without proof of a loss: `MESSAGES_PER_ASK` for each RESEND.
    credit: u32,
}

impl Timing {
    /// The first packet of a response came `span` after its request, which was `long`er than a packet, was sent.
    pub(crate) fn answered(&mut self, config: &Config, span: Nanos, long: bool) {
        // Longer ones are the ticks' business; they count as just that long.
        self.answer[usize::from(long)].add(span.min(config.first_resend()));
    }

    /// The first packet that a grant allowed came `span` after it.
    pub(crate) fn granted_data(&mut self, config: &Config, span: Nanos) {
        self.grant.add(span.min(config.first_resend()));
        self.rtt_min = Some(self.rtt_min.map_or(span, |least| least.min(span)));
    }

    /// A packet came `span` after one that was sent later.
    pub(crate) fn overtaken(&mut self, now: Instant, config: &Config, span: Nanos) {
        // What no window covers need not widen it: a pause of this host, or a packet that went astray.
        if span <= config.reorder_window_max {
            self.begin_epoch(now);
            self.late[0] = self.late[0].max(span);
        }
    }

    /// Data came by themselves `span` after those before them, although they had been asked for.
    pub(crate) fn paused(&mut self, now: Instant, config: &Config, span: Nanos) {
        self.begin_epoch(now);
        self.paused[0] = self.paused[0].max(span.min(config.first_resend()));
    }

    /// Something came that had been asked for in vain.
    pub(crate) fn asked_too_early(&mut self, now: Instant, config: &Config) {
        let window = self.reorder_window(now, config);
        self.overtaken(now, config, window.min(config.reorder_window_max));
    }

    /// The peer has delivered a message.
    pub(crate) fn delivered(&mut self) {
        self.credit = (self.credit + 1).min(MOST_ASKS * MESSAGES_PER_ASK);
    }

    /// Uses up the credit for asking once; false if there is not enough.
    pub(crate) fn take_credit(&mut self) -> bool {
        let enough = self.credit >= MESSAGES_PER_ASK;
        self.credit -= if enough { MESSAGES_PER_ASK } else { 0 };
        enough
    }

    /// How old a gap is when its packets count as lost: a quarter more than packets were late of late.
    pub(crate) fn reorder_window(&mut self, now: Instant, config: &Config) -> Nanos {
        self.begin_epoch(now);
        let late = self.late[0].max(self.late[1]).as_nanos();
        let most = config.reorder_window_max.max(config.reorder_window);
        Nanos::from_nanos(late + late / 4).clamp(config.reorder_window, most)
    }

    /// How long to wait for the rest of what was granted, after the latest packet, before it counts as lost; `asked`
    /// if a GRANT was needed for it, which takes its time.
    pub(crate) fn tail_wait(&mut self, now: Instant, config: &Config, asked: bool) -> Nanos {
        let window = self.reorder_window(now, config).as_nanos();
        let paused = self.paused[0].max(self.paused[1]).as_nanos();
        let grant = if asked { self.grant.upper().unwrap_or(config.reorder_window_max) } else { Nanos::ZERO };
        Nanos::from_nanos(grant.as_nanos() + window.max(paused + paused / 4))
    }

    /// How long to wait for what was asked for `tries` times, at least one, before asking again.
    pub(crate) fn retry_wait(&mut self, now: Instant, config: &Config, tries: u8) -> Nanos {
        let window = self.reorder_window(now, config).as_nanos();
        let rtt =
            self.grant.upper().or(self.answer[1].upper()).or(self.answer[0].upper()).unwrap_or_default().as_nanos();
        let most = config.first_resend().as_nanos() * 2;
        Nanos::from_nanos(((rtt + 2 * window) << (tries.max(1) - 1).min(16)).min(most))
    }

    /// How long to wait for the first packet of the response to a request, which was `long`er than a packet, before its
    /// server is asked; nothing if the first tick that would ask comes no later, or too little is known.
    pub(crate) fn answer_wait(&mut self, now: Instant, config: &Config, tries: u8, long: bool) -> Option<Nanos> {
        let window = self.reorder_window(now, config);
        let (floor, usual) = match self.answer[usize::from(long)].upper() {
            // Of what fits a packet nothing can be overtaken by what belongs to it: that others' packets are late is no
            // reason to wait.
            Some(usual) => (if long { window } else { config.reorder_window }, usual),
            None => (window, self.answer[usize::from(!long)].upper()?),
        };
        let wait = Nanos::from_nanos(usual.max(floor).as_nanos() << tries.min(16));
        (wait < config.first_resend()).then_some(wait)
    }

    /// For how long what was sent is not sent again: no loss can be known earlier.
    pub(crate) fn hold_off(&self, config: &Config) -> Nanos {
        match config.resend_hold_off {
            Nanos::ZERO => Nanos::ZERO,
            // A peer that grants late must not keep us from repairing losses.
            least => self.rtt_min.map_or(least, |rtt| rtt.clamp(least, config.first_resend().max(least))),
        }
    }

    fn begin_epoch(&mut self, now: Instant) {
        let begun = *self.epoch.get_or_insert(now);
        let age = now.since(begun);
        if age >= EPOCH {
            let before_counts = age < Nanos::from_nanos(2 * EPOCH.as_nanos());
            let before = if before_counts { self.late[0] } else { Nanos::ZERO };
            let paused = if before_counts { self.paused[0] } else { Nanos::ZERO };
            self.late = [Nanos::ZERO, before];
            self.paused = [Nanos::ZERO, paused];
            self.epoch = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + millis * 1_000_000)
    }

    #[test]
    fn the_window_follows_observed_reordering_within_its_limits_and_forgets_it() {
        let config = Config::default();
        let (mut t, micros) = (Timing::default(), Nanos::from_micros);
        assert_eq!(t.reorder_window(at(0), &config), config.reorder_window);
        t.overtaken(at(1), &config, micros(500));
        assert_eq!(t.reorder_window(at(1), &config), micros(625));
        t.overtaken(at(2), &config, micros(100));
        assert_eq!(t.reorder_window(at(2), &config), micros(625), "the most counts");
        t.overtaken(at(3), &config, Nanos::from_millis(50));
        assert_eq!(t.reorder_window(at(3), &config), micros(625), "nobody waits that long anyway");
        t.overtaken(at(4), &config, config.reorder_window_max);
        assert_eq!(t.reorder_window(at(4), &config), config.reorder_window_max);
        assert_eq!(t.reorder_window(at(600), &config), config.reorder_window_max, "the epoch before counts too");
        assert_eq!(t.reorder_window(at(1200), &config), config.reorder_window);
    }

    #[test]
    fn asking_too_early_widens_the_window_step_by_step() {
        let (config, mut t) = (Config::default(), Timing::default());
        let mut before = t.reorder_window(at(0), &config);
        for _ in 0..20 {
            t.asked_too_early(at(1), &config);
            let after = t.reorder_window(at(1), &config);
            assert!(after > before || after == config.reorder_window_max);
            before = after;
        }
        assert_eq!(before, config.reorder_window_max);
    }

    #[test]
    fn an_answer_is_waited_for_longer_than_answers_usually_take() {
        let (config, mut t) = (Config::default(), Timing::default());
        assert_eq!(t.answer_wait(at(0), &config, 0, true), None, "nothing is known");
        for i in 0..100 {
            t.answered(&config, Nanos::from_micros(300 + 20 * (i % 5)), true);
        }
        let wait = t.answer_wait(at(0), &config, 0, true).unwrap();
        assert!((Nanos::from_micros(380)..Nanos::from_micros(550)).contains(&wait), "{wait:?}");
        assert_eq!(t.answer_wait(at(0), &config, 1, true).unwrap().as_nanos(), 2 * wait.as_nanos());
        assert_eq!(t.answer_wait(at(0), &config, 5, true), None, "ticks do that");
        for _ in 0..10 {
            t.answered(&config, Nanos::from_secs(1), true);
        }
        assert_eq!(t.answer_wait(at(0), &config, 0, true), None, "a slow server is left to the ticks");
    }

    #[test]
    fn answers_to_short_requests_are_waited_for_as_long_as_those_take() {
        let (config, mut t) = (Config::default(), Timing::default());
        for i in 0..100 {
            t.answered(&config, Nanos::from_micros(20 + i % 3), false);
            t.answered(&config, Nanos::from_micros(300 + 100 * (i % 5)), true);
        }
        t.overtaken(at(0), &config, Nanos::from_millis(1));
        assert_eq!(t.answer_wait(at(0), &config, 0, false), Some(config.reorder_window));
        assert_eq!(t.answer_wait(at(0), &config, 1, false), Some(Nanos::from_micros(400)));
        assert!(t.answer_wait(at(0), &config, 0, true).unwrap() >= Nanos::from_micros(1250));

        let mut t = Timing::default();
        (0..10).for_each(|_| t.answered(&config, Nanos::from_micros(300), true));
        let (short, long) = (t.answer_wait(at(0), &config, 0, false), t.answer_wait(at(0), &config, 0, true));
        assert!(short.is_some() && short == long, "what is known of others is better than nothing");
    }

    #[test]
    fn a_peer_that_pauses_is_given_more_time() {
        let (config, mut t, micros) = (Config::default(), Timing::default(), Nanos::from_micros);
        assert_eq!(t.tail_wait(at(0), &config, false), config.reorder_window);
        assert_eq!(t.tail_wait(at(0), &config, true), micros(2_200), "nothing is known of its grants");
        (0..100).for_each(|_| t.granted_data(&config, micros(40)));
        assert!(t.tail_wait(at(0), &config, true) < micros(245));
        t.paused(at(1), &config, micros(400));
        assert_eq!(t.tail_wait(at(1), &config, false), micros(500));
        assert_eq!(t.tail_wait(at(1200), &config, false), config.reorder_window);
    }

    #[test]
    fn early_asks_are_a_share_of_what_was_delivered() {
        let mut t = Timing::default();
        assert!(!t.take_credit(), "a peer that has delivered nothing");
        (0..1000).for_each(|_| t.delivered());
        assert_eq!((0..1000).filter(|_| t.take_credit()).count(), 32, "no more can be saved up");
        let asks = (0..1000).filter(|_| {
            t.delivered();
            t.take_credit()
        });
        assert_eq!(asks.count(), 125);
    }
}
