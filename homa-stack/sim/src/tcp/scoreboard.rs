//! The sender's record of what is under way: which segments have arrived, which are lost.
//!
//! Arrivals are told by acknowledgements with selective blocks (RFC 2018), losses are judged by time as in RACK
//! (RFC 8985, section 6): a segment is lost if one that was sent later has arrived, and a reordering window ago. The
//! window is 0 once three segments have arrived out of order or a recovery is under way and none were ever reordered,
//! else a quarter of the least round-trip time. Reordering by duplicates (DSACK) does not widen it.
//!
//! First transmissions are in order of their offsets and of their times, so one index, `judged`, parts those that have
//! been judged; retransmissions are queued by time. Each segment is looked at a few times in its life, however large
//! the window is, and nothing is allocated once the queues have grown.

use std::collections::VecDeque;

use super::segment::SackBlock;
use crate::time::Time;

/// Segments that must have arrived beyond a gap for it to be a loss at once (RFC 5681).
const DUP_THRESH: u32 = 3;

const SACKED: u8 = 1;
const LOST: u8 = 2;
/// A retransmission of it is under way.
const RESENT: u8 = 4;
/// It was retransmitted at some time: no sample of the round-trip time.
const EVER_RESENT: u8 = 8;

#[derive(Clone, Copy, Debug)]
struct Sent {
    seq: u64,
    /// When it was sent last.
    at: Time,
    len: u32,
    flags: u8,
}

impl Sent {
    fn end(&self) -> u64 {
        self.seq + u64::from(self.len)
    }

    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Lost, and no retransmission is under way.
    fn waits(&self) -> bool {
        self.flags & (LOST | RESENT) == LOST
    }
}

/// What an acknowledgement told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Segments that are known for the first time to have arrived.
    pub(crate) segments: u32,
    /// Those among them that were told by selective blocks.
    pub(crate) sacked: u32,
    /// Since the first and the last of them were sent, if they were sent once.
    pub(crate) rtt: Option<(Time, Time)>,
}

/// The segment that was sent last among those that have arrived.
#[derive(Clone, Copy, Debug, Default)]
struct Newest {
    at: Time,
    end: u64,
    rtt: Time,
}

impl Newest {
    fn was_sent_after(&self, at: Time, end: u64) -> bool {
        (self.at, self.end) > (at, end)
    }
}

/// Segments from the first unacknowledged one to the last one sent.
#[derive(Debug, Default)]
pub(crate) struct Scoreboard {
    sent: VecDeque<Sent>,
    /// Retransmissions under way by time: offset and time.
    resent: VecDeque<(u64, Time)>,
    sacked: u32,
    lost: u32,
    resent_count: u32,
    /// Lost segments of which no retransmission is under way.
    waiting: u32,
    /// First transmissions below this offset are judged.
    judged: u64,
    /// No segment below this offset waits for its retransmission.
    next_lost: u64,
    /// The blocks of the previous acknowledgement, as offsets.
    blocks: [(u64, u64); 3],
    /// There are some.
    has_blocks: bool,
    newest: Newest,
    /// The end of the highest segment that has arrived.
    highest: u64,
    reordered: bool,
}

impl Scoreboard {
    /// Notes a first transmission.
    pub(crate) fn push(&mut self, seq: u64, len: u32, now: Time) {
        self.sent.push_back(Sent { seq, at: now, len, flags: 0 });
    }

    /// Takes an acknowledgement of everything below `ack` and of the blocks beyond.
    pub(crate) fn acknowledge(&mut self, now: Time, ack: u64, blocks: &[SackBlock], least: Time) -> Delivered {
        let mut told = Delivered::default();
        let before = self.highest;
        while let Some(front) = self.sent.front().copied().filter(|s| s.end() <= ack) {
            self.sent.pop_front();
            self.sacked -= u32::from(front.is(SACKED));
            self.lost -= u32::from(front.is(LOST));
            self.resent_count -= u32::from(front.is(RESENT));
            self.waiting -= u32::from(front.waits());
            if !front.is(SACKED) {
                self.arrived(now, &front, before, least, &mut told);
            }
        }
        self.highest = self.highest.max(ack);
        if blocks.is_empty() {
            if std::mem::take(&mut self.has_blocks) {
                self.blocks = [(0, 0); 3];
            }
            return told;
        }
        self.has_blocks = true;
        let old = self.blocks;
        for (i, block) in blocks.iter().enumerate() {
            let (from, to) = (ack + u64::from(block.from), ack + u64::from(block.to));
            self.sack(now, (from, to), &old, before, least, &mut told);
            self.blocks[i] = (from, to);
        }
        self.blocks[blocks.len()..].fill((0, 0));
        told
    }

    /// Marks lost what must be; `recovering` says that a recovery is under way.
    ///
    /// Returns how many segments became lost, and when to ask again although no acknowledgement has come.
    pub(crate) fn judge(&mut self, now: Time, recovering: bool, least: Time) -> (u32, Option<Time>) {
        if self.sacked == 0 && self.resent.is_empty() {
            return (0, None);
        }
        let patient = self.reordered || !(recovering || self.sacked >= DUP_THRESH);
        let window = if patient { Time::from_picos(least.as_picos() / 4) } else { Time::ZERO };
        let (mut count, mut again) = (0, None);
        let mut i = self.position(self.judged);
        while let Some(s) = self.sent.get_mut(i) {
            if !s.is(SACKED | LOST | RESENT) {
                if !self.newest.was_sent_after(s.at, s.end()) {
                    break;
                }
                let due = s.at + self.newest.rtt + window;
                if due > now {
                    again = Some(due);
                    break;
                }
                s.flags |= LOST;
                self.lost += 1;
                self.waiting += 1;
                count += 1;
                self.next_lost = self.next_lost.min(s.seq);
            }
            self.judged = s.end();
            i += 1;
        }
        let (lost_again, due) = self.judge_resent(now, window);
        (count + lost_again, again.into_iter().chain(due).min())
    }

    /// A time-out: all that has not arrived is lost.
    pub(crate) fn lose_all(&mut self) {
        self.resent.clear();
        self.resent_count = 0;
        self.lost = 0;
        for s in &mut self.sent {
            s.flags &= !(RESENT | LOST);
            if !s.is(SACKED) {
                s.flags |= LOST;
                self.lost += 1;
            }
        }
        self.waiting = self.lost;
        if let (Some(front), Some(back)) = (self.sent.front(), self.sent.back()) {
            self.next_lost = front.seq;
            self.judged = back.end();
        }
    }

    /// Takes the lowest lost segment for retransmission: offset and length.
    pub(crate) fn resend(&mut self, now: Time) -> Option<(u64, u32)> {
        if self.waiting == 0 {
            return None;
        }
        let mut i = self.position(self.next_lost);
        while let Some(s) = self.sent.get_mut(i) {
            if s.waits() {
                self.next_lost = s.end();
                let found = (s.seq, s.len);
                self.resend_at(i, now);
                return Some(found);
            }
            self.next_lost = s.end();
            i += 1;
        }
        None
    }

    /// Takes the last segment for retransmission, as a probe.
    pub(crate) fn resend_last(&mut self, now: Time) -> Option<(u64, u32)> {
        let last = *self.sent.back()?;
        if last.is(SACKED | RESENT) {
            return None;
        }
        self.resend_at(self.sent.len() - 1, now);
        Some((last.seq, last.len))
    }

    /// Segments in the network as far as the sender can tell.
    pub(crate) fn in_flight(&self) -> u32 {
        (self.sent.len() as u32 + self.resent_count) - self.sacked - self.lost
    }

    /// When the first of the segments was sent last that have not arrived cumulatively.
    pub(crate) fn first_sent(&self) -> Option<Time> {
        self.sent.front().map(|s| s.at)
    }

    /// Segments that are not acknowledged cumulatively.
    pub(crate) fn outstanding(&self) -> u32 {
        self.sent.len() as u32
    }

    /// Segments beyond the acknowledged ones that have arrived.
    pub(crate) fn sacked(&self) -> u32 {
        self.sacked
    }

    fn resend_at(&mut self, i: usize, now: Time) {
        let s = &mut self.sent[i];
        self.waiting -= u32::from(s.waits());
        s.flags |= RESENT | EVER_RESENT;
        s.at = now;
        self.resent_count += 1;
        self.resent.push_back((s.seq, now));
    }

    /// Index of the first segment at or beyond an offset.
    fn position(&self, seq: u64) -> usize {
        match self.sent.front() {
            Some(front) if front.seq < seq => self.sent.partition_point(|s| s.seq < seq),
            _ => 0,
        }
    }

    /// Marks the segments of a block, without those that the previous blocks told of.
    fn sack(
        &mut self,
        now: Time,
        (mut from, to): (u64, u64),
        old: &[(u64, u64); 3],
        highest: u64,
        least: Time,
        told: &mut Delivered,
    ) {
        while from < to {
            if let Some((_, end)) = old.iter().find(|(start, end)| (*start..*end).contains(&from)) {
                from = *end;
                continue;
            }
            let until = old.iter().filter(|(start, end)| start < end && *start > from).map(|o| o.0).min();
            let until = until.map_or(to, |start| start.min(to));
            let mut i = self.position(from);
            while let Some(s) = self.sent.get_mut(i).filter(|s| s.end() <= until) {
                if !s.is(SACKED) {
                    let before = *s;
                    self.waiting -= u32::from(s.waits());
                    s.flags = (s.flags | SACKED) & !(LOST | RESENT);
                    self.sacked += 1;
                    self.lost -= u32::from(before.is(LOST));
                    self.resent_count -= u32::from(before.is(RESENT));
                    told.sacked += 1;
                    self.arrived(now, &before, highest, least, told);
                }
                i += 1;
            }
            from = until;
        }
    }

    /// A segment has arrived, told for the first time; up to `highest` others had arrived before.
    fn arrived(&mut self, now: Time, s: &Sent, highest: u64, least: Time, told: &mut Delivered) {
        told.segments += 1;
        let rtt = now - s.at;
        if s.is(EVER_RESENT) {
            // Sooner than any round trip: this is the answer to an earlier transmission.
            if rtt < least {
                return;
            }
        } else {
            told.rtt = Some((told.rtt.map_or(rtt, |(first, _)| first), rtt));
            self.reordered |= s.end() <= highest;
        }
        self.highest = self.highest.max(s.end());
        if !self.newest.was_sent_after(s.at, s.end()) {
            self.newest = Newest { at: s.at, end: s.end(), rtt };
        }
    }

    /// Retransmissions that are lost in their turn.
    fn judge_resent(&mut self, now: Time, window: Time) -> (u32, Option<Time>) {
        let mut count = 0;
        while let Some(&(seq, at)) = self.resent.front() {
            let i = self.position(seq);
            let current = self.sent.get_mut(i).filter(|s| s.seq == seq && s.at == at && s.is(RESENT));
            if let Some(s) = current {
                if !self.newest.was_sent_after(at, s.end()) {
                    break;
                }
                let due = at + self.newest.rtt + window;
                if due > now {
                    return (count, Some(due));
                }
                s.flags &= !RESENT;
                self.resent_count -= 1;
                if !s.is(LOST) {
                    s.flags |= LOST;
                    self.lost += 1;
                }
                self.waiting += 1;
                count += 1;
                self.next_lost = self.next_lost.min(seq);
            }
            self.resent.pop_front();
        }
        (count, None)
    }

    /// The counters counted anew.
    #[cfg(test)]
    fn check(&self) {
        let count = |flag| self.sent.iter().filter(|s| s.is(flag)).count() as u32;
        assert_eq!((self.sacked, self.lost, self.resent_count), (count(SACKED), count(LOST), count(RESENT)));
        assert!(self.sent.iter().all(|s| !s.is(SACKED) || !s.is(LOST | RESENT)));
        assert_eq!(self.waiting, self.sent.iter().filter(|s| s.waits()).count() as u32);
        assert!(self.sent.iter().filter(|s| s.waits()).all(|s| s.seq >= self.next_lost));
        assert!(self.sent.iter().zip(self.sent.iter().skip(1)).all(|(a, b)| a.end() == b.seq));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MSS: u64 = 1000;

    fn us(n: u64) -> Time {
        Time::from_micros(n)
    }

    /// Segments `0..n`, one sent each microsecond.
    fn board(n: u64) -> Scoreboard {
        let mut b = Scoreboard::default();
        for i in 0..n {
            b.push(i * MSS, MSS as u32, us(i));
        }
        b
    }

    /// Blocks of whole segments `from..to`, beyond segment `ack`.
    fn blocks(ack: u64, ranges: &[(u64, u64)]) -> Vec<SackBlock> {
        ranges.iter().map(|(a, b)| SackBlock { from: ((a - ack) * MSS) as u32, to: ((b - ack) * MSS) as u32 }).collect()
    }

    #[test]
    fn a_gap_is_lost_once_three_segments_have_arrived_beyond_it() {
        let mut b = board(10);
        assert_eq!(b.in_flight(), 10);
        for (n, lost) in [(1, 0), (2, 0), (3, 1)] {
            let told = b.acknowledge(us(50 + n), 2 * MSS, &blocks(2, &[(3, 3 + n)]), us(50));
            assert_eq!(told.sacked, 1);
            assert_eq!(b.judge(us(50 + n), false, us(50)).0, lost, "{n} segments");
            b.check();
        }
        assert_eq!(b.in_flight(), 8 - 3 - 1);
        assert_eq!(b.resend(us(60)), Some((2 * MSS, 1000)));
        assert_eq!(b.resend(us(60)), None);
        assert_eq!(b.in_flight(), 8 - 3);
        let told = b.acknowledge(us(120), 10 * MSS, &[], us(50));
        assert_eq!((told.segments, b.in_flight()), (5, 0));
        b.check();
    }

    #[test]
    fn fewer_segments_beyond_a_gap_make_it_a_loss_after_a_quarter_of_a_round_trip() {
        let mut b = board(3);
        b.acknowledge(us(102), 0, &blocks(0, &[(1, 2)]), us(100));
        let (lost, again) = b.judge(us(102), false, us(100));
        assert_eq!((lost, again), (0, Some(us(101 + 25))), "sent at 0, round trip 101, patience 25");
        assert_eq!(b.judge(us(126), false, us(100)), (1, None));
        assert_eq!(b.resend(us(126)), Some((0, 1000)));
    }

    #[test]
    fn reordering_makes_patient() {
        let mut b = board(10);
        b.acknowledge(us(50), 0, &blocks(0, &[(1, 2)]), us(40));
        b.acknowledge(us(51), 2 * MSS, &[], us(40));
        b.acknowledge(us(60), 2 * MSS, &blocks(2, &[(3, 8)]), us(40));
        assert_eq!(b.judge(us(60), false, us(40)).0, 0, "the first gap was no loss, this one needn't be");
        assert_eq!(b.judge(us(71), false, us(40)).0, 1);
    }

    #[test]
    fn a_lost_retransmission_is_noticed() {
        let mut b = board(6);
        b.acknowledge(us(50), 0, &blocks(0, &[(2, 6)]), us(45));
        assert_eq!(b.judge(us(50), false, us(45)).0, 2);
        assert_eq!(b.resend(us(51)), Some((0, 1000)));
        assert_eq!(b.resend(us(52)), Some((MSS, 1000)));
        b.acknowledge(us(110), 0, &blocks(0, &[(1, 6)]), us(45));
        assert_eq!(b.judge(us(110), true, us(45)).0, 1, "the second retransmission has arrived, the first has not");
        assert_eq!(b.resend(us(110)), Some((0, 1000)));
        b.check();
    }

    #[test]
    fn round_trips_are_measured_by_segments_that_were_sent_once() {
        let mut b = board(4);
        assert_eq!(b.acknowledge(us(30), 2 * MSS, &[], Time::NEVER).rtt, Some((us(30), us(29))));
        b.lose_all();
        assert_eq!(b.resend(us(100)), Some((2 * MSS, 1000)));
        assert_eq!(b.acknowledge(us(150), 3 * MSS, &[], us(29)).rtt, None);
        b.check();
    }

    #[test]
    fn a_timeout_loses_all_that_has_not_arrived() {
        let mut b = board(5);
        b.acknowledge(us(50), MSS, &blocks(1, &[(2, 3)]), us(50));
        b.lose_all();
        assert_eq!(b.in_flight(), 0);
        let again: Vec<_> = std::iter::from_fn(|| b.resend(us(60))).map(|(seq, _)| seq / MSS).collect();
        assert_eq!(again, [1, 3, 4]);
        b.check();
    }

    proptest! {
        /// Whatever arrives in whatever order, the counters are those of the flags, no byte is forgotten, and in the
        /// end everything is acknowledged.
        #[test]
        fn the_counters_are_right(seed in any::<u64>(), loss in 0.0f64..0.5) {
            let mut rng = cp_node::rng::Rng::streams(seed, None, 1).remove(0);
            let (mut b, mut arrived, mut ack, mut now) = (board(60), vec![false; 60], 0u64, us(60));
            let mut network: Vec<(Time, u64)> = (0..60).map(|i| (us(i), i)).collect();
            let mut steps = 0;
            while ack < 60 {
                steps += 1;
                prop_assert!(steps < 10_000, "stuck at {}", ack);
                now += us(1);
                if network.is_empty() {
                    b.lose_all();
                }
                if !network.is_empty() {
                    let i = rng.below(network.len().min(4));
                    let (_, segment) = network.remove(i);
                    if rng.fraction() >= loss {
                        arrived[segment as usize] = true;
                        while ack < 60 && arrived[ack as usize] {
                            ack += 1;
                        }
                        let end = (segment..60).find(|s| !arrived[*s as usize]).unwrap_or(60);
                        let start = (0..=segment).rev().find(|s| !arrived[*s as usize]).map_or(0, |s| s + 1);
                        let blocks = if segment >= ack { blocks(ack, &[(start, end)]) } else { vec![] };
                        if rng.fraction() >= loss {
                            b.acknowledge(now, ack * MSS, &blocks, us(1));
                            b.judge(now, true, us(1));
                            b.check();
                        }
                    }
                }
                while let Some((seq, len)) = b.resend(now) {
                    prop_assert_eq!((seq % MSS, u64::from(len)), (0, MSS));
                    network.push((now, seq / MSS));
                    b.check();
                }
            }
        }
    }
}
