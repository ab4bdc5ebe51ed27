//! An outgoing message: what was sent, what may be sent, what must be sent again.

use super::boxes::Recycle;
#[cfg(feature = "check")]
use super::check::hold;
use super::payload::Payload;
use super::ranges::Ranges;
use super::send_log::SendLog;
use crate::units::{Instant, Nanos};

/// An outgoing message.
#[derive(Debug)]
pub(crate) struct TxMessage {
    pub(crate) payload: Payload,
    pub(crate) len: usize,
    /// First byte that was never sent.
    pub(crate) next: usize,
    /// Bytes below this may be sent; never above `len`.
    pub(crate) granted: usize,
    /// Bytes that need no grant; a packet ends exactly there.
    pub(crate) unscheduled: usize,
    /// Level of scheduled packets, from the latest GRANT.
    pub(crate) priority: u8,
    /// Data bytes in a full packet.
    segment: usize,
    /// Most full packets that the device may be given as one.
    batch: usize,
    /// True once `segment` has changed: packets sent before had other bounds.
    uneven: bool,
    /// Data bytes in a full packet before any change.
    first_segment: usize,
    /// Ranges to send again, in order, apart.
    resend: Ranges,
    /// Level of retransmissions, from the latest RESEND.
    pub(crate) resend_priority: u8,
    /// Ticks that it has waited for grants, and what was sent by then.
    stalled: (u32, usize),
    /// What was sent a moment ago.
    pub(crate) log: SendLog,
    /// When the latest packet with new data was sent.
    pub(crate) sent_at: Instant,
}

/// An empty one, to be begun.
impl Default for TxMessage {
    fn default() -> Self {
        Self {
            payload: Payload::none(),
            len: 0,
            next: 0,
            granted: 0,
            unscheduled: 0,
            priority: 0,
            segment: 1,
            batch: 1,
            uneven: false,
            first_segment: 1,
            resend: Ranges::new(),
            resend_priority: 0,
            stalled: (0, 0),
            log: SendLog::default(),
            sent_at: Instant::default(),
        }
    }
}

impl Recycle for TxMessage {
    #[inline]
    fn clear(&mut self) {
        self.payload.clear();
    }
}

impl TxMessage {
    /// Begins a message of which nothing was sent, in packets of `segment` data bytes, up to `batch` of which are given
    /// to the device as one. `ranges` is memory for those to send again. In place: as a value it would be moved about.
    #[inline]
    pub(crate) fn begin(
        &mut self,
        payload: Payload,
        unsched_bytes: usize,
        segment: usize,
        batch: usize,
        ranges: Ranges,
    ) {
        debug_assert!(ranges.is_empty(), "ranges that were put back have no content");
        let len = payload.len();
        let unscheduled = unsched_bytes.min(len);
        // All fields are named, so that none can be forgotten: what was here before must not shine through.
        let Self {
            payload: bytes,
            len: length,
            next,
            granted,
            unscheduled: unasked,
            priority,
            segment: packet,
            batch: packets,
            uneven,
            first_segment,
            resend,
            resend_priority,
            stalled,
            log,
            sent_at,
        } = self;
        (*bytes, *length, *next, *granted, *unasked) = (payload, len, 0, unscheduled, unscheduled);
        (*packet, *first_segment, *packets, *uneven) = (segment, segment, batch.max(1), false);
        (*priority, *resend_priority, *resend, *stalled) = (0, 0, ranges, (0, 0));
        (*log, *sent_at) = (SendLog::default(), Instant::default());
    }

    /// Has all packets from now on hold at most `segment` data bytes, also those sent again.
    pub(crate) fn cut_smaller(&mut self, segment: usize, batch: usize) {
        if segment < self.segment {
            self.segment = segment.max(1);
            self.batch = batch.max(1);
            self.uneven = true;
        }
    }

    /// Data bytes in a full packet before any change.
    pub(crate) fn first_segment(&self) -> usize {
        self.first_segment
    }

    /// Data bytes in a full packet.
    pub(crate) fn segment(&self) -> usize {
        self.segment
    }

    /// True if it does not fit a packet.
    pub(crate) fn is_long(&self) -> bool {
        self.len > self.segment
    }

    /// Bytes never sent: the SRPT key.
    pub(crate) fn left(&self) -> usize {
        self.len - self.next
    }

    /// True if a packet with new data may go out. A packet goes out whole once its first byte is granted.
    pub(crate) fn can_send(&self) -> bool {
        self.next < self.granted
    }

    /// End of the packet that byte `start` begins.
    fn segment_end(&self, start: usize) -> usize {
        let limit = if start < self.unscheduled { self.unscheduled } else { self.len };
        (start + self.segment).min(limit)
    }

    /// End of the packets, given to the device as one, that byte `start` begins; none begins at `limit` or later.
    fn batch_end(&self, start: usize, limit: usize) -> usize {
        // A division takes longer than all the rest.
        let packets = if self.batch > 1 { self.batch.min((limit - start).div_ceil(self.segment)) } else { 1 };
        let whole = self.segment * packets;
        let most = if start < self.unscheduled { self.unscheduled } else { self.len };
        (start + whole).min(most)
    }

    /// First byte of the packet that carried byte `offset`. If packets were cut otherwise then, that is not known; the
    /// byte itself will do, since receivers ask for all that they miss and nothing else.
    fn segment_start(&self, offset: usize) -> usize {
        if self.uneven {
            return offset;
        }
        let base = if offset < self.unscheduled { 0 } else { self.unscheduled };
        offset - (offset - base) % self.segment
    }

    /// The next packet with new data, or several that the device cuts; the bytes then count as sent.
    pub(crate) fn take_new(&mut self) -> Option<(usize, usize)> {
        if !self.can_send() {
            return None;
        }
        let start = self.next;
        self.next = self.batch_end(start, self.granted);
        Some((start, self.next))
    }

    /// The next packet to send again, or several that the device cuts.
    pub(crate) fn take_resend(&mut self) -> Option<(usize, usize)> {
        let &(start, end) = self.resend.first()?;
        let cut = self.batch_end(start, end).min(end);
        if cut >= end {
            self.resend.remove(0);
        } else {
            self.resend[0].0 = cut;
        }
        Some((start, cut))
    }

    /// Asks for the packets that carried `start..end` to be sent again, as they were. Bytes never sent, or already
    /// asked for, are not asked for again. True if there is something to send.
    pub(crate) fn ask_again(&mut self, start: usize, end: usize) -> bool {
        let end = end.min(self.next);
        if start < end {
            let last = if self.uneven { end } else { self.segment_end(self.segment_start(end - 1)) };
            let (mut a, mut b) = (self.segment_start(start), last);
            self.resend.retain(|&(x, y)| {
                let apart = y < a || b < x;
                if !apart {
                    (a, b) = (a.min(x), b.max(y));
                }
                apart
            });
            let at = self.resend.partition_point(|&(x, _)| x < a);
            self.resend.insert(at, (a, b));
        }
        !self.resend.is_empty()
    }

    /// As [`Self::ask_again`], but for what was sent within the last `hold_off`: the request and those packets have
    /// met on their way. Returns how many bytes are left out.
    pub(crate) fn ask_older_again(&mut self, now: Instant, start: usize, end: usize, hold_off: Nanos) -> usize {
        let end = end.min(self.next);
        let log = std::mem::take(&mut self.log);
        let mut held = end.saturating_sub(start);
        log.older(now, start, end, hold_off, |a, b| {
            held -= b - a;
            self.ask_again(a, b);
        });
        self.log = log;
        held
    }

    /// The memory of the ranges, which are no longer of interest.
    pub(crate) fn take_ranges(&mut self) -> Ranges {
        std::mem::take(&mut self.resend)
    }

    /// Counts a tick; returns for how many the message has waited for grants without getting any.
    pub(crate) fn tick(&mut self) -> u32 {
        let waits = self.left() > 0 && !self.can_send() && self.stalled.1 == self.next;
        self.stalled = if waits { (self.stalled.0 + 1, self.next) } else { (0, self.next) };
        self.stalled.0
    }

    /// True if packets wait to be sent again.
    pub(crate) fn has_resend(&self) -> bool {
        !self.resend.is_empty()
    }

    /// Checks the limits and ranges against each other.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { len, next, granted, .. } = *self;
        hold!(len == self.payload.len() && next <= len && granted <= len, "sent {next}, granted {granted} of {len}");
        let mut last = 0;
        for &(start, end) in &self.resend {
            hold!(start < end && end <= next, "{start}..{end} to send again, {next} sent");
            hold!(start > last || last == 0, "{start}..{end} to send again after ..{last}");
            last = end;
        }
        Ok(())
    }

    /// Raises the limit to `offset`; returns by how much (0 or less: a stale grant).
    pub(crate) fn grant(&mut self, offset: usize) -> i64 {
        let offset = offset.min(self.len);
        let increment = offset as i64 - self.granted as i64;
        self.granted = self.granted.max(offset);
        increment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(len: usize, unscheduled: usize, batch: usize) -> TxMessage {
        let mut m = TxMessage::default();
        m.begin(Payload::from(vec![7; len]), unscheduled, 1000, batch, Ranges::new());
        m
    }

    fn message(len: usize, unscheduled: usize) -> TxMessage {
        batches(len, unscheduled, 1)
    }

    #[test]
    fn a_packet_ends_at_the_unscheduled_limit_and_later_ones_need_only_their_first_byte_granted() {
        let mut m = message(10_000, 2_500);
        let sent: Vec<_> = std::iter::from_fn(|| m.take_new()).collect();
        assert_eq!(sent, [(0, 1000), (1000, 2000), (2000, 2500)]);
        assert_eq!(m.grant(2_501), 1);
        assert_eq!(m.take_new(), Some((2500, 3500)), "overshoots the grant by less than a packet");
        assert_eq!(m.take_new(), None);
        assert_eq!(m.grant(2_000), -501, "a stale grant lowers nothing");
        assert_eq!(m.grant(u32::MAX as usize), 10_000 - 2_501);
        assert_eq!(m.left(), 6_500);
    }

    #[test]
    fn what_is_sent_again_has_the_packets_of_the_first_time() {
        let mut m = message(10_000, 2_500);
        m.grant(10_000);
        let sent: Vec<_> = std::iter::from_fn(|| m.take_new()).collect();
        assert!(m.ask_again(1_500, 2_600));
        assert!(m.ask_again(4_000, 4_001));
        assert!(m.ask_again(1_999, 2_000), "inside what is asked for already");
        let again: Vec<_> = std::iter::from_fn(|| m.take_resend()).collect();
        assert_eq!(again, [(1000, 2000), (2000, 2500), (2500, 3500), (3500, 4500)]);
        assert!(again.iter().all(|packet| sent.contains(packet)));
        assert!(!m.has_resend());
    }

    #[test]
    fn bytes_that_were_never_sent_are_not_sent_again() {
        let mut m = message(10_000, 2_500);
        assert!(!m.ask_again(0, 10_000));
        m.take_new();
        assert!(m.ask_again(0, usize::MAX));
        assert_eq!(m.take_resend(), Some((0, 1000)));
        assert_eq!(m.take_resend(), None);
    }

    #[test]
    fn a_device_that_cuts_gets_several_packets_at_once_but_none_that_is_not_granted() {
        let mut m = batches(10_000, 2_500, 4);
        assert_eq!(m.take_new(), Some((0, 2500)), "the unscheduled limit ends it");
        m.grant(4_501);
        assert_eq!(m.take_new(), Some((2500, 5500)), "three packets begin below the limit");
        m.grant(10_000);
        assert_eq!(m.take_new(), Some((5500, 9500)));
        assert_eq!(m.take_new(), Some((9500, 10_000)));
        assert!(m.ask_again(0, 1) && m.ask_again(3_000, 9_999));
        let again: Vec<_> = std::iter::from_fn(|| m.take_resend()).collect();
        assert_eq!(again, [(0, 1000), (2500, 6500), (6500, 10_000)]);
    }

    #[test]
    fn after_a_change_of_the_path_just_what_is_missing_is_sent_again_in_smaller_packets() {
        let mut m = message(10_000, 2_500);
        m.take_new();
        m.take_new();
        m.cut_smaller(600, 1);
        m.cut_smaller(800, 1);
        assert_eq!(m.take_new(), Some((2000, 2500)), "packets still end at the unscheduled limit");
        assert!(m.ask_again(1_000, 2_000));
        assert_eq!([m.take_resend(), m.take_resend(), m.take_resend()], [Some((1000, 1600)), Some((1600, 2000)), None]);
        m.grant(10_000);
        assert_eq!(m.take_new(), Some((2500, 3100)));
    }
}
