//! The congestion window: grows by acknowledgements, shrinks by losses, marks and time-outs.

use super::config::{Congestion, TcpConfig};
use super::cubic::Cubic;
use super::dctcp::Dctcp;
use crate::time::Time;

/// What congestion control does with the window.
#[derive(Clone, Copy, Debug)]
enum Control {
    Reno,
    Cubic(Cubic),
    Dctcp(Dctcp),
}

/// An acknowledgement of new data, as the window sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acked {
    pub(crate) now: Time,
    /// Segments that left the network.
    pub(crate) segments: u32,
    /// The newest round-trip time that this acknowledgement measures.
    pub(crate) rtt: Option<Time>,
    /// Smoothed round-trip time.
    pub(crate) smoothed: Time,
    /// Least round-trip time.
    pub(crate) least: Time,
    pub(crate) una: u64,
    pub(crate) nxt: u64,
}

/// A congestion window in segments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    cwnd: f64,
    ssthresh: f64,
    control: Control,
}

impl Window {
    pub(crate) fn new(config: &TcpConfig) -> Self {
        let control = match config.congestion {
            Congestion::Reno => Control::Reno,
            Congestion::Cubic => Control::Cubic(Cubic::default()),
            Congestion::Dctcp => Control::Dctcp(Dctcp::default()),
        };
        Self { cwnd: f64::from(config.initial_window), ssthresh: f64::INFINITY, control }
    }

    /// Grows by the segments that were acknowledged.
    pub(crate) fn grow(&mut self, acked: &Acked, hystart: bool) {
        let mut segments = f64::from(acked.segments);
        if self.cwnd < self.ssthresh {
            if let (Control::Cubic(cubic), Some(rtt), true) = (&mut self.control, acked.rtt, hystart)
                && cubic.hystart.ends(acked.now, self.cwnd, rtt, acked.least, acked.una, acked.nxt)
            {
                self.ssthresh = self.cwnd;
            }
            let cwnd = (self.cwnd + segments).min(self.ssthresh.max(self.cwnd));
            segments -= cwnd - self.cwnd;
            self.cwnd = cwnd;
            if segments <= 0.0 {
                return;
            }
        }
        match &mut self.control {
            Control::Cubic(cubic) => self.cwnd = cubic.grow(acked.now, self.cwnd, segments, acked.smoothed),
            Control::Reno | Control::Dctcp(_) => self.cwnd += segments / self.cwnd,
        }
    }

    /// Reacts to lost segments once; the window itself is brought down to [`Self::ssthresh`] bit by bit.
    pub(crate) fn lost(&mut self) {
        self.ssthresh = match &mut self.control {
            Control::Cubic(cubic) => cubic.reduce(self.cwnd),
            Control::Reno | Control::Dctcp(_) => (self.cwnd / 2.0).max(2.0),
        };
    }

    /// Reacts to marks of congestion once.
    pub(crate) fn marked(&mut self) {
        match &self.control {
            Control::Dctcp(dctcp) => self.ssthresh = dctcp.reduce(self.cwnd),
            Control::Reno | Control::Cubic(_) => self.lost(),
        }
    }

    /// A time-out: one segment. `first` is false if the previous time-out's data are still unacknowledged.
    pub(crate) fn timeout(&mut self, first: bool) {
        if first {
            self.lost();
        }
        if let Control::Cubic(cubic) = &mut self.control {
            cubic.timeout();
        }
        self.cwnd = 1.0;
    }

    /// Data go out again after `since`, when the last ones went out; after each time-out's length of idleness the
    /// window halves, down to the initial one (RFC 2861 as in Linux's `tcp_cwnd_restart`).
    pub(crate) fn restart(&mut self, config: &TcpConfig, since: Time, now: Time, rto: Time) {
        if let Control::Cubic(cubic) = &mut self.control {
            cubic.idle(since, now);
        }
        let idle = now - since;
        if !config.restart_after_idle || idle <= rto || self.cwnd <= f64::from(config.initial_window) {
            return;
        }
        if self.ssthresh.is_finite() {
            self.ssthresh = self.ssthresh.max(0.75 * self.cwnd);
        }
        let halvings = (idle.as_picos() / rto.as_picos().max(1)).min(32) as i32;
        self.cwnd = (self.cwnd / 2f64.powi(halvings)).max(f64::from(config.initial_window));
    }

    /// DCTCP's count of marked bytes.
    pub(crate) fn observe(&mut self, bytes: u64, marked: bool, una: u64, nxt: u64, gain: f64) {
        if let Control::Dctcp(dctcp) = &mut self.control {
            dctcp.acked(bytes, marked, una, nxt, gain);
        }
    }

    /// While a reduction is under way the window is what the reduction says.
    pub(crate) fn set(&mut self, cwnd: f64) {
        self.cwnd = cwnd.max(1.0);
    }

    /// Segments that may be under way.
    pub(crate) fn segments(&self) -> u32 {
        self.cwnd as u32
    }

    /// Where slow start ends, in segments.
    pub(crate) fn ssthresh(&self) -> f64 {
        self.ssthresh
    }

    /// The window with its fraction.
    pub(crate) fn exact(&self) -> f64 {
        self.cwnd
    }

    /// DCTCP's alpha.
    pub(crate) fn alpha(&self) -> Option<f64> {
        match &self.control {
            Control::Dctcp(dctcp) => Some(dctcp.alpha()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acked(segments: u32) -> Acked {
        let rtt = Time::from_micros(100);
        Acked { now: Time::ZERO, segments, rtt: Some(rtt), smoothed: rtt, least: rtt, una: 0, nxt: 0 }
    }

    #[test]
    fn slow_start_doubles_and_congestion_avoidance_adds_one_a_round_trip() {
        let config = TcpConfig { congestion: Congestion::Reno, ..TcpConfig::default() };
        let mut w = Window::new(&config);
        for expected in [20, 40, 80] {
            w.grow(&acked(w.segments()), false);
            assert_eq!(w.segments(), expected);
        }
        w.lost();
        assert_eq!(w.ssthresh(), 40.0);
        w.set(39.0);
        w.grow(&acked(3), false);
        assert!((w.exact() - (40.0 + 2.0 / 40.0)).abs() < 1e-9, "one to the threshold, two beyond");
        for _ in 0..40 {
            w.grow(&acked(1), false);
        }
        assert!((w.exact() - 41.05).abs() < 0.05, "{}", w.exact());
    }

    #[test]
    fn a_timeout_leaves_one_segment_and_half_the_window_as_threshold() {
        let mut w =
            Window::new(&TcpConfig { congestion: Congestion::Reno, initial_window: 64, ..TcpConfig::default() });
        w.timeout(true);
        assert_eq!((w.segments(), w.ssthresh()), (1, 32.0));
        w.timeout(false);
        assert_eq!((w.segments(), w.ssthresh()), (1, 32.0), "the same data time out again");
    }

    #[test]
    fn an_idle_connection_starts_small_again() {
        let config = TcpConfig { congestion: Congestion::Reno, ..TcpConfig::default() };
        let rto = Time::from_millis(200);
        for (idle_ms, expected) in [(100, 160), (250, 80), (450, 40), (5000, 10)] {
            let mut w = Window::new(&config);
            w.grow(&acked(150), false);
            w.restart(&config, Time::ZERO, Time::from_millis(idle_ms), rto);
            assert_eq!(w.segments(), expected, "{idle_ms} ms");
        }
    }
}
