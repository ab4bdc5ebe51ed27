//! CUBIC (RFC 9438), with HyStart as Linux does it.

use crate::time::Time;

/// How steeply the window grows away from its plateau, in segments per s^3 (RFC 9438, 4.1).
const C: f64 = 0.4;
/// What is left of the window after a loss (4.6).
pub(crate) const BETA: f64 = 0.7;
/// Segments a round trip by which a flow grows that gets as much as a Reno flow (4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// The state of RFC 9438, in segments and seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cubic {
    /// Where the plateau of the curve lies.
    w_max: f64,
    /// The window before the latest reduction.
    cwnd_prior: f64,
    /// When the present stage of congestion avoidance began.
    epoch: Option<Time>,
    /// Seconds from the epoch to the plateau.
    k: f64,
    /// The window that a Reno flow would have by now.
    w_est: f64,
    pub(crate) hystart: HyStart,
}

impl Cubic {
    /// Segments that are left of a window of `cwnd` after congestion (4.6, 4.7).
    pub(crate) fn reduce(&mut self, cwnd: f64) -> f64 {
        // Fast convergence: a flow that did not get back to its former plateau makes room.
        self.w_max = if cwnd < self.w_max { cwnd * (1.0 + BETA) / 2.0 } else { cwnd };
        self.cwnd_prior = cwnd;
        self.epoch = None;
        (cwnd * BETA).max(2.0)
    }

    /// A time-out: the next stage begins at its own plateau (4.8).
    pub(crate) fn timeout(&mut self) {
        self.w_max = 0.0;
        self.epoch = None;
        self.hystart = HyStart::default();
    }

    /// The flow was idle from `since` to `now`: the curve waits (4.2, 5.8).
    pub(crate) fn idle(&mut self, since: Time, now: Time) {
        if let Some(epoch) = &mut self.epoch {
            *epoch = (*epoch + (now - since)).min(now);
        }
    }

    /// The window after `acked` segments were acknowledged in congestion avoidance (4.2-4.5).
    pub(crate) fn grow(&mut self, now: Time, cwnd: f64, acked: f64, rtt: Time) -> f64 {
        let epoch = *self.epoch.get_or_insert_with(|| {
            if cwnd < self.w_max {
                self.k = ((self.w_max - cwnd) / C).cbrt();
            } else {
                self.k = 0.0;
                self.w_max = cwnd;
            }
            self.w_est = cwnd;
            now
        });
        let t = (now - epoch).as_secs_f64();
        let alpha = if self.w_est < self.cwnd_prior { ALPHA } else { 1.0 };
        self.w_est += alpha * acked / cwnd;
        if self.curve(t) < self.w_est {
            return self.w_est.max(cwnd);
        }
        let target = self.curve(t + rtt.as_secs_f64()).clamp(cwnd, 1.5 * cwnd);
        cwnd + (target - cwnd) / cwnd * acked
    }

    /// W_cubic, `t` seconds after the epoch.
    fn curve(&self, t: f64) -> f64 {
        let d = t - self.k;
        C * d * d * d + self.w_max
    }
}

/// The window from which on HyStart looks, in segments.
const LOW_WINDOW: f64 = 16.0;
/// Acknowledgements at most so far apart form a train.
const TRAIN_GAP: Time = Time::from_millis(2);
/// Samples of a round before its delay counts.
const SAMPLES: u32 = 8;

/// Ends slow start before it fills the queue: when the acknowledgements of a round span half a round trip, or the
/// least delay of a round has grown. As in Linux (`tcp_cubic.c`, from 5.5 on, where its clock has microseconds).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HyStart {
    round_start: Time,
    last_ack: Time,
    /// The round ends when this offset is acknowledged.
    round_end: u64,
    least: Option<Time>,
    samples: u32,
    started: bool,
}

impl HyStart {
    /// Whether slow start ends with this acknowledgement up to `una`. `nxt` is what was sent, `base` the least
    /// round-trip time of all.
    pub(crate) fn ends(&mut self, now: Time, cwnd: f64, rtt: Time, base: Time, una: u64, nxt: u64) -> bool {
        if !self.started || una > self.round_end {
            *self = Self { round_start: now, last_ack: now, round_end: nxt, least: None, samples: 0, started: true };
        }
        if cwnd < LOW_WINDOW {
            return false;
        }
        if now - self.last_ack <= TRAIN_GAP {
            self.last_ack = now;
            if now - self.round_start > Time::from_picos(base.as_picos() / 2) {
                return true;
            }
        }
        let least = self.least.map_or(rtt, |least| least.min(rtt));
        self.least = Some(least);
        if self.samples < SAMPLES {
            self.samples += 1;
            return false;
        }
        let step = Time::from_picos(base.as_picos() / 8).clamp(Time::from_millis(4), Time::from_millis(16));
        least > base + step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean window, in segments, of a flow that loses exactly one segment in `1 / p`.
    fn mean_window(p: f64, rtt: Time) -> f64 {
        let (mut cubic, mut cwnd, mut now) = (Cubic::default(), 100.0, Time::ZERO);
        let (mut to_loss, mut sum, mut rounds) = (1.0 / p, 0.0, 0u32);
        let mut losses = 0;
        while losses < 60 {
            if to_loss <= 0.0 {
                losses += 1;
                to_loss += 1.0 / p;
                cwnd = cubic.reduce(cwnd);
            }
            // A round: each acknowledgement is one of cwnd in a round-trip time.
            let acks = cwnd.floor();
            for i in 0..acks as u64 {
                cwnd = cubic.grow(now + Time::from_picos(rtt.as_picos() * i / acks as u64), cwnd, 1.0, rtt);
            }
            now += rtt;
            to_loss -= acks;
            if losses >= 20 {
                sum += acks;
                rounds += 1;
            }
        }
        sum / f64::from(rounds)
    }

    /// RFC 9438, 5.1 and 5.2: 1.054 (RTT / p)^(3/4) where the curve rules, sqrt(1.5 / p) where Reno would be faster.
    #[test]
    fn the_mean_window_is_that_of_the_response_function() {
        for (p, rtt_ms) in [(1e-5, 100), (1e-6, 100), (1e-5, 200), (3e-4, 1), (1e-4, 1), (1e-3, 10)] {
            let rtt = Time::from_millis(rtt_ms);
            let curve = 1.054 * (rtt.as_secs_f64() / p).powf(0.75);
            let reno = (1.5f64 / p).sqrt();
            let expected = curve.max(reno);
            let got = mean_window(p, rtt);
            assert!((got / expected - 1.0).abs() < 0.1, "p {p}, {rtt_ms} ms: {got} instead of {curve} or {reno}");
        }
    }

    /// The plateau is reached K seconds after a loss and is where the loss was (figure 1 of the RFC).
    #[test]
    fn the_window_returns_to_its_plateau_after_k_seconds() {
        let (mut cubic, rtt) = (Cubic::default(), Time::from_millis(100));
        let mut cwnd = cubic.reduce(1000.0);
        assert_eq!(cwnd, 700.0);
        let k = (300.0f64 / 0.4).cbrt();
        let mut now = Time::ZERO;
        while now.as_secs_f64() < k {
            for _ in 0..cwnd as u32 {
                cwnd = cubic.grow(now, cwnd, 1.0, rtt);
            }
            now += rtt;
        }
        assert!((cwnd - 1000.0).abs() < 5.0, "{cwnd} after {k} s");
        assert_eq!(cubic.reduce(900.0), 630.0);
        assert_eq!(cubic.w_max, 765.0, "fast convergence: (1 + 0.7) / 2 of the window");
    }

    #[test]
    fn hystart_ends_slow_start_by_a_train_or_by_delay() {
        let base = Time::from_millis(100);
        let mut h = HyStart::default();
        assert!(!h.ends(Time::ZERO, 20.0, base, base, 0, 1000));
        assert!(!h.ends(Time::from_millis(2), 10.0, base, base, 100, 1000), "the window is small");
        for ms in (2..=50).step_by(2) {
            assert!(!h.ends(Time::from_millis(ms), 20.0, base, base, 100, 1000));
        }
        assert!(h.ends(Time::from_millis(52), 20.0, base, base, 100, 1000), "a train of half a round trip");

        let (mut h, slow) = (HyStart::default(), base + Time::from_millis(13));
        let ended: Vec<_> = (0..12).map(|i| h.ends(Time::from_millis(3 * i), 20.0, slow, base, 100, 1000)).collect();
        assert_eq!(ended.iter().position(|e| *e), Some(8), "eight samples, all 13 ms slower");
    }
}
