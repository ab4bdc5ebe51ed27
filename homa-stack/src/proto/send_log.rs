//! When the bytes of a message were sent last, so that they are not sent again at once.

use crate::units::{Instant, Nanos};

/// Spans that a log holds.
const SPANS: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    end: u32,
    /// When its first packet went out.
    at: Instant,
}

/// The bytes of a message sent most recently: 72 bytes, whatever the message's length.
///
/// Packets that follow each other share a span as long as that is short against the hold-off. What has fallen out
/// counts as sent long ago: it may be sent again too early, never too late.
#[derive(Debug, Default)]
pub(crate) struct SendLog {
    spans: [Span; SPANS],
    /// The span that was begun last.
    head: u8,
}

impl SendLog {
    /// Notes that the packet `start..end` goes out; `hold_off` is the time for which that will be of interest.
    #[inline]
    pub(crate) fn note(&mut self, now: Instant, start: usize, end: usize, hold_off: Nanos) {
        let span = &mut self.spans[usize::from(self.head)];
        if span.end == start as u32 && now.since(span.at).as_nanos() <= hold_off.as_nanos() / 4 {
            span.end = end as u32;
            return;
        }
        self.head = (self.head + 1) % SPANS as u8;
        self.spans[usize::from(self.head)] = Span { start: start as u32, end: end as u32, at: now };
    }

    /// The parts of `start..end` that were not sent within the last `hold_off`, in order, by `part`.
    pub(crate) fn older(
        &self,
        now: Instant,
        start: usize,
        end: usize,
        hold_off: Nanos,
        mut part: impl FnMut(usize, usize),
    ) {
        let recent = |span: &&Span| span.start < span.end && now.since(span.at) < hold_off;
        let mut at = start as u32;
        let end = end as u32;
        while at < end {
            if let Some(span) = self.spans.iter().filter(recent).find(|span| (span.start..span.end).contains(&at)) {
                at = span.end;
                continue;
            }
            let next = self.spans.iter().filter(recent).map(|span| span.start).filter(|start| *start > at).min();
            let to = next.unwrap_or(end).min(end);
            part(at as usize, to as usize);
            at = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD_OFF: Nanos = Nanos::from_micros(200);

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(10_000_000 + micros * 1_000)
    }

    fn older(log: &SendLog, micros: u64, start: usize, end: usize) -> Vec<(usize, usize)> {
        let mut parts = Vec::new();
        log.older(at(micros), start, end, HOLD_OFF, |a, b| parts.push((a, b)));
        parts
    }

    #[test]
    fn what_was_just_sent_is_left_out_until_the_hold_off_is_over() {
        let mut log = SendLog::default();
        assert_eq!(older(&log, 0, 0, 3000), [(0, 3000)]);
        for packet in 0..3 {
            log.note(at(packet as u64), packet * 1000, (packet + 1) * 1000, HOLD_OFF);
        }
        assert_eq!(older(&log, 10, 0, 3000), []);
        assert_eq!(older(&log, 10, 500, 5000), [(3000, 5000)]);
        assert_eq!(older(&log, 300, 0, 3000), [(0, 3000)]);
        log.note(at(310), 1000, 2000, HOLD_OFF);
        assert_eq!(older(&log, 320, 0, 3000), [(0, 1000), (2000, 3000)]);
    }

    #[test]
    fn a_long_message_is_recent_at_its_end_only() {
        let mut log = SendLog::default();
        for packet in 0..1000 {
            log.note(at(packet as u64), packet * 1000, (packet + 1) * 1000, HOLD_OFF);
        }
        let parts = older(&log, 1000, 0, 1_000_000);
        assert_eq!(parts.len(), 1);
        assert!((800_000..=860_000).contains(&parts[0].1), "sent 140 to 200 us ago: {parts:?}");
    }
}
