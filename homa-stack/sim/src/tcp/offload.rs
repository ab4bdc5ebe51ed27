//! What offloading to the network card does to a connection: long segments that leave at once, and segments that the
//! receiver gets as one.
//!
//! Sending (TSO), as Linux 5.4 does it: `tcp_tso_autosize` takes what the connection sends in 1/1024 s by its window and
//! round-trip time, two segments at least, [`TcpConfig::offload`] bytes at most; `tcp_cwnd_test` half a window at most;
//! `tcp_tso_should_defer` waits for a third of the window (`tcp_tso_win_divisor`). So senders that are clocked by
//! acknowledgements send some three bursts a round trip instead of a segment at a time.
//!
//! Receiving (GRO), as `tcp_gro_receive` and `inet_gro_receive` do it: segments of one batch that follow each other are
//! one up to 64 KB, if they have the same acknowledgement, flags, options and marks; one that is shorter than the first
//! is the last. Acknowledgements are decided on for all of it. So a sender hears of up to 64 KB at once.

use super::config::TcpConfig;
use super::segment::{Segment, flag};
use crate::packet::Ecn;
use crate::time::Time;

/// After so long without sending, nothing is put off.
pub(crate) const PAUSE: Time = Time::from_millis(1);

/// Segments in the longest offloaded one of a connection that sends `rate` segments in a round-trip time.
pub(crate) fn most_segments(rate: f64, smoothed: Option<Time>, config: &TcpConfig) -> u32 {
    let most = (config.offload / config.mss()).max(1);
    let Some(rtt) = smoothed else { return most };
    let in_time = rate / (rtt.as_secs_f64() * 1024.0);
    // Rounded down; what is more than 4 billion is more than `most` too.
    most.min((in_time as u32).max(2))
}

/// What a sender may send and has to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) mss: u32,
    /// The congestion window and what is free of it, in segments.
    pub(crate) window: u32,
    pub(crate) free: u32,
    /// What is free of the receiver's, in bytes.
    pub(crate) receiver: u64,
    /// Bytes to send.
    pub(crate) waiting: u64,
}

impl Share {
    /// Bytes that may be sent.
    fn limit(&self) -> u64 {
        self.receiver.min(self.congestion())
    }

    fn congestion(&self) -> u64 {
        u64::from(self.free) * u64::from(self.mss)
    }

    /// True if there is more than one segment to send, but little room for it: neither for an offloaded segment of
    /// `most` segments nor for a third of the window.
    pub(crate) fn is_small(&self, most: u32, receive_window: u32) -> bool {
        let mss = u64::from(self.mss);
        let window = u64::from(receive_window).min(u64::from(self.window) * mss);
        self.waiting > mss && self.limit() < u64::from(most) * mss && self.limit() < window / 3
    }

    /// True if it is the congestion window that is full.
    pub(crate) fn is_full(&self) -> bool {
        self.congestion() < self.receiver && self.congestion() <= self.waiting
    }

    /// Bytes of the next offloaded segment.
    pub(crate) fn take(&self, most: u32) -> u64 {
        let segments = self.free.min((self.window / 2).max(1)).min(most);
        self.waiting.min(u64::from(segments) * u64::from(self.mss))
    }
}

/// A segment of the receiver's that may still grow by merging.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Merged {
    /// Length of its first segment and of all; no length: there is none.
    first: u32,
    len: u32,
    /// The offset behind it.
    end: u64,
    ack: u64,
    flags: u8,
    marked: bool,
}

impl Merged {
    /// Takes a segment with data: true if it becomes a part of what there is, false if it is the first of a new one.
    pub(crate) fn take(&mut self, segment: &Segment, ecn: Ecn, most: u32) -> bool {
        let (len, marked) = (u32::from(segment.len), ecn == Ecn::Experienced);
        let like = self.end == segment.seq && self.ack == segment.ack && self.marked == marked;
        // A CWR ends what was before it.
        let flags = self.flags == segment.flags | self.flags & flag::CWR && !segment.has(flag::CWR);
        if self.first >= len && like && flags && segment.blocks == 0 && self.len + len <= most {
            self.len += len;
            self.end += u64::from(len);
            if len < self.first {
                self.close();
            }
            return true;
        }
        let first = if segment.blocks == 0 { len } else { 0 };
        let (ack, flags) = (segment.ack, segment.flags);
        *self = Self { first, len, end: segment.seq + u64::from(len), ack, flags, marked };
        false
    }

    /// Nothing more becomes a part of it.
    pub(crate) fn close(&mut self) {
        self.first = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offloaded_segments_last_a_millisecond_two_segments_and_64_kb_at_most() {
        let config = TcpConfig { mtu: 3000, ..TcpConfig::default() };
        let most = |rate, micros| most_segments(rate, Some(Time::from_micros(micros)), &config);
        assert_eq!(most_segments(12.0, None, &config), 22, "65,215 / 2948");
        // 12 segments in 100 us are 117 in 1/1024 s; in 2 ms they are 5.
        assert_eq!([most(12.0, 100), most(12.0, 2000), most(12.0, 100_000)], [22, 5, 2]);
        assert_eq!(most_segments(1e3, Some(Time::from_micros(9)), &TcpConfig { offload: 10, ..config }), 1);
    }

    #[test]
    fn a_sender_waits_for_a_third_of_its_window() {
        let share = |free, waiting| Share { mss: 1000, window: 30, free, receiver: 1 << 20, waiting };
        let small = |free, waiting, most| share(free, waiting).is_small(most, 1 << 20);
        assert!(small(9, 5000, 40) && small(1, 1001, 40));
        assert!(!small(10, 5000, 40), "a third");
        assert!(!small(9, 5000, 9), "an offloaded segment");
        assert!(!small(1, 1000, 40), "a single segment");
        assert!(Share { receiver: 5000, ..share(30, 9000) }.is_small(40, 18_000), "a third of the receiver's is 6000");
        assert!(share(9, 9000).is_full() && !share(9, 8999).is_full());
        let take = |free, waiting, most| share(free, waiting).take(most);
        assert_eq!([take(30, 99_000, 40), take(9, 99_000, 40), take(9, 99_000, 5)], [15_000, 9000, 5000]);
        assert_eq!(take(9, 1234, 40), 1234);
    }

    #[test]
    fn segments_that_follow_each_other_are_one() {
        let segment = |seq, len| Segment { seq, len, ack: 7, ..Segment::default() };
        let mut merged = Merged::default();
        let mut take = |s: Segment, ecn| merged.take(&s, ecn, 5000);
        let ok = Ecn::Capable;
        assert!(!take(segment(0, 1000), ok) && take(segment(1000, 1000), ok) && take(segment(2000, 1000), ok));
        assert!(!take(segment(4000, 1000), ok), "a gap");
        assert!(take(segment(5000, 400), ok) && !take(segment(5400, 400), ok), "a short one is the last");
        assert!(!take(segment(5800, 1000), ok), "longer than the first");
        assert!(!take(Segment { ack: 8, ..segment(6800, 1000) }, ok), "another acknowledgement");
        assert!(!take(segment(7800, 1000), ok) && !take(segment(8800, 1000), Ecn::Experienced), "a mark");
        assert!(take(segment(9800, 1000), Ecn::Experienced));
        assert!((0..3).all(|n| take(segment(10_800 + 1000 * n, 1000), Ecn::Experienced)));
        assert!(!take(segment(13_800, 1000), Ecn::Experienced), "5000 bytes are the most");
        let cwr = Segment { flags: flag::CWR, ..segment(14_800, 1000) };
        assert!(!take(cwr, Ecn::Experienced) && take(segment(15_800, 1000), Ecn::Experienced));
        assert!(!take(Segment { flags: flag::ECE, ..segment(16_800, 1000) }, Ecn::Experienced), "other flags");
    }
}
