//! When the receiver acknowledges, and how it echoes marks of congestion.
//!
//! Acknowledgements wait for a second full segment or 40 ms (RFC 1122, 5681), with Linux's exceptions: the first
//! segments of a connection, those after a long silence and those around gaps are acknowledged at once, unless the
//! connection answers what it gets (then the answer carries the acknowledgement). A full segment is the longest that was seen, at least 536 bytes.

use super::reassembly::Arrival;
use crate::time::Time;

/// The longest segment that a receiver assumes at first (Linux's `TCP_MSS_DEFAULT`).
const FIRST_MSS: u32 = 536;
/// Answers within the delay after which a connection counts as one that answers (Linux's `TCP_PINGPONG_THRESH`).
const ANSWERS: u8 = 3;

/// After so long without data the sender may have begun anew, with a small window. Linux takes the time-out of its
/// own data, which is a little more.
const SILENCE: Time = Time::from_millis(200);

/// How marks are echoed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Echo {
    /// Not at all.
    #[default]
    Off,
    /// From a mark until the sender says that it reduced its window (RFC 3168, 6.1.3).
    Latched,
    /// Whether the latest data were marked; each change is told at once (RFC 8257, 3.2).
    Exact,
}

/// What to do after a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// An acknowledgement of what had come before this segment, with the previous state of the echo, goes first.
    pub(crate) previous: bool,
    /// An acknowledgement goes out now.
    pub(crate) now: bool,
}

/// The receiver's state of acknowledging.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Acks {
    /// Bytes that came in order and are not acknowledged.
    pending: u32,
    /// Acknowledgements that still go without delay, and as how many a connection begins with.
    quick: u32,
    first_quick: u32,
    /// Length of a full segment.
    full: u32,
    /// When a delayed acknowledgement goes out at last.
    deadline: Option<Time>,
    answers: u8,
    /// When the latest data came, and whether none were sent since.
    last_data: Time,
    unanswered: bool,
    /// State of the echo.
    marked: bool,
    /// Data came that had been there, and the sender was not told.
    duplicate: bool,
}

impl Acks {
    pub(crate) fn new(quick: u32) -> Self {
        Self { quick, first_quick: quick, full: FIRST_MSS, ..Self::default() }
    }

    /// Data came: `len` bytes, with or without a mark, `cwr` if the sender says that it reduced its window.
    pub(crate) fn data(
        &mut self,
        now: Time,
        (arrival, len): (Arrival, u32),
        (marked, cwr): (bool, bool),
        echo: Echo,
        delay: Time,
    ) -> Due {
        let mut due = Due::default();
        match echo {
            Echo::Off => {}
            Echo::Latched => self.marked = (self.marked && !cwr) || marked,
            Echo::Exact if marked != self.marked => {
                due = Due { previous: self.pending > 0, now: true };
                self.marked = marked;
            }
            Echo::Exact => {}
        }
        self.full = self.full.max(len);
        if now > self.last_data + SILENCE {
            self.quick = self.first_quick;
        }
        (self.last_data, self.unanswered) = (now, true);
        match arrival {
            Arrival::InOrder { filled } => {
                self.pending += len;
                due.now |= filled || self.pending > self.full || (self.quick > 0 && self.answers < ANSWERS);
            }
            Arrival::Beyond => due.now = true,
            Arrival::Duplicate => {
                due.now = true;
                self.duplicate = true;
            }
        }
        if !due.now && self.deadline.is_none() {
            self.deadline = Some(now + delay);
        }
        due
    }

    /// An acknowledgement goes out, with data of our own or without.
    pub(crate) fn sent(&mut self, now: Time, with_data: bool, delay: Time) {
        if with_data && std::mem::take(&mut self.unanswered) && now < self.last_data + delay {
            self.answers = (self.answers + 1).min(ANSWERS);
        }
        self.quick = self.quick.saturating_sub(u32::from(self.pending > 0));
        self.pending = 0;
        self.deadline = None;
        self.duplicate = false;
    }

    /// When a delayed acknowledgement goes out.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// An acknowledgement tells of data that had been there already.
    pub(crate) fn duplicate(&self) -> bool {
        self.duplicate
    }

    /// The echo of marks that an acknowledgement carries now.
    pub(crate) fn echo(&self) -> bool {
        self.marked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Time = Time::from_millis(40);
    const IN_ORDER: (Arrival, u32) = (Arrival::InOrder { filled: false }, 1448);

    /// Acknowledgements of `n` segments in order, each sent when it is due.
    fn count(acks: &mut Acks, n: usize) -> usize {
        (0..n)
            .filter(|_| {
                let due = acks.data(Time::from_micros(5), IN_ORDER, (false, false), Echo::Off, DELAY);
                if due.now {
                    acks.sent(Time::from_micros(5), false, DELAY);
                }
                due.now
            })
            .count()
    }

    #[test]
    fn every_second_full_segment_is_acknowledged_after_the_quick_ones() {
        let mut acks = Acks::new(16);
        assert_eq!(count(&mut acks, 16), 16);
        assert_eq!(count(&mut acks, 100), 50);
        assert_eq!(acks.deadline(), None);
        assert_eq!(count(&mut acks, 1), 0);
        assert_eq!(acks.deadline(), Some(Time::from_micros(40_005)));
        let due = acks.data(Time::from_millis(300), IN_ORDER, (false, false), Echo::Off, DELAY);
        acks.sent(Time::from_millis(300), false, DELAY);
        assert!(due.now);
        assert_eq!(acks.quick, 15, "anew after a silence");
    }

    #[test]
    fn gaps_and_duplicates_are_acknowledged_at_once() {
        let mut acks = Acks::new(0);
        for arrival in [Arrival::Beyond, Arrival::Duplicate, Arrival::InOrder { filled: true }] {
            let due = acks.data(Time::ZERO, (arrival, 100), (false, false), Echo::Off, DELAY);
            assert!(due.now, "{arrival:?}");
        }
    }

    #[test]
    fn a_connection_that_answers_lets_its_answers_acknowledge() {
        let mut acks = Acks::new(16);
        let quick: Vec<_> = (1..6)
            .map(|i| {
                let now = Time::from_micros(i);
                let due = acks.data(now, (IN_ORDER.0, 100), (false, false), Echo::Off, DELAY);
                acks.sent(now, true, DELAY);
                due.now
            })
            .collect();
        assert_eq!(quick, [true, true, true, false, false]);
    }

    /// RFC 3168: once marked, always echoed until the sender answers.
    #[test]
    fn a_mark_is_echoed_until_the_window_was_reduced() {
        let mut acks = Acks::new(0);
        let mut echo = |marked, cwr| {
            acks.data(Time::ZERO, IN_ORDER, (marked, cwr), Echo::Latched, DELAY);
            acks.echo()
        };
        assert_eq!(
            [echo(false, false), echo(true, false), echo(false, false), echo(false, true), echo(true, true)],
            [false, true, true, false, true]
        );
    }

    /// RFC 8257, figure 1: a change of marks is told at once, after what had been held back.
    #[test]
    fn dctcp_tells_changes_of_marks_at_once() {
        let mut acks = Acks::new(0);
        let mut step = |marked| {
            let due = acks.data(Time::ZERO, (IN_ORDER.0, 1000), (marked, false), Echo::Exact, DELAY);
            if due.now {
                acks.sent(Time::ZERO, false, DELAY);
            }
            (due.previous, due.now)
        };
        assert_eq!(step(false), (false, false));
        assert_eq!(step(true), (true, true), "one was held back");
        assert_eq!(step(true), (false, false));
        assert_eq!(step(true), (false, true), "two segments of the same state share one");
        assert_eq!(step(false), (false, true), "nothing was held back");
    }
}
