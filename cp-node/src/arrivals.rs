//! When requests are due, where they go and how long they are: the load of one client port.

use std::sync::Arc;

use crate::rng::Rng;
use crate::workload::Distribution;

/// One request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When it was due, in ns of the clock that the load started at; `None` in a closed loop, where it is due when sent.
    pub due_ns: Option<u64>,
    /// Index of the server port it goes to.
    pub server: usize,
    /// Its length in bytes.
    pub len: u32,
}

/// The open-loop Poisson load of one client port, or a closed loop.
///
/// In an open loop the due times are a schedule, not gaps: a sender that falls behind sends back to back until it has
/// caught up, and the due times tell how late it was. In a closed loop a request is due whenever one may be sent.
#[derive(Clone, Debug)]
pub struct Arrivals {
    lengths: Arc<Distribution>,
    servers: usize,
    rng: Rng,
    /// Mean gap in ns; `None` is a closed loop.
    mean_gap_ns: Option<f64>,
    start_ns: u64,
    /// Due time of the next request after `start_ns`, in ns; fractions are kept so that the rate has no rounding error.
    next: f64,
}

impl Arrivals {
    /// Load for one port with `servers` destinations; `rate` in RPC/s, 0 for a closed loop; the first request is due at 0.
    pub fn new(lengths: Arc<Distribution>, servers: usize, rate: f64, rng: Rng) -> Self {
        let mean_gap_ns = (rate > 0.0).then(|| 1e9 / rate);
        Self { lengths, servers, rng, mean_gap_ns, start_ns: 0, next: 0.0 }
    }

    /// The same load with its beginning at `now_ns`: called when all is ready to send.
    pub fn starting_at(mut self, now_ns: u64) -> Self {
        self.start_ns = now_ns;
        self
    }

    /// The next request; the one after it becomes due later by an exponentially distributed gap.
    pub fn take(&mut self) -> Planned {
        let due_ns = self.due_ns();
        let server = self.rng.below(self.servers);
        let len = self.lengths.draw(&mut self.rng);
        if let Some(gap) = self.mean_gap_ns {
            self.next += gap * self.rng.exponential();
        }
        Planned { due_ns, server, len }
    }

    /// When the next request is due, in ns; `None` in a closed loop.
    pub fn due_ns(&self) -> Option<u64> {
        self.mean_gap_ns.map(|_| self.start_ns.saturating_add(self.next as u64))
    }

    /// True if a request may be sent at `now_ns`.
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.due_ns().is_none_or(|due| due <= now_ns)
    }
}

/// Rate in RPC/s of each of `ports` ports when all together shall send `gbps` (10^9 bit/s) of messages.
pub fn rate_per_port(gbps: f64, mean_len: f64, ports: usize) -> f64 {
    gbps * 1e9 / 8.0 / (mean_len * ports as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Reduction, Workload};

    fn arrivals(rate: f64) -> Arrivals {
        let lengths = Arc::new(Distribution::new(Workload::Named("w3"), Reduction::default()));
        Arrivals::new(lengths, 5, rate, Rng::streams(3, Some(0), 1).remove(0)).starting_at(1_000)
    }

    #[test]
    fn the_rate_is_kept_over_many_requests() {
        let mut load = arrivals(50_000.0);
        let mut to_each = [0; 5];
        for _ in 0..200_000 {
            to_each[load.take().server] += 1;
        }
        let seconds = (load.due_ns().unwrap() - 1_000) as f64 / 1e9;
        assert!((seconds / 4.0 - 1.0).abs() < 0.02, "200,000 requests at 50,000 a second took {seconds} s");
        assert!(to_each.iter().all(|n| (38_500..41_500).contains(n)), "{to_each:?}");
    }

    #[test]
    fn the_first_request_is_due_at_the_start_and_due_times_rise() {
        let mut load = arrivals(1e6);
        assert!(!load.is_due(999));
        assert!(load.is_due(1_000));
        let due: Vec<_> = (0..1000).map(|_| load.take().due_ns.unwrap()).collect();
        assert_eq!(due[0], 1_000);
        assert!(due.is_sorted());
    }

    #[test]
    fn rate_zero_is_a_closed_loop() {
        let mut load = arrivals(0.0);
        assert!(load.is_due(0));
        assert_eq!(load.take().due_ns, None);
        assert!(load.is_due(0), "the next may be sent at once, too");
    }

    #[test]
    fn the_rate_follows_from_the_drawn_mean() {
        // 14 Gbps of w3 in both directions, so 7 for requests: 340.8 K RPC/s.
        assert_eq!((rate_per_port(7.0, 2567.7, 1) / 100.0).round() / 10.0, 340.8);
        assert_eq!(rate_per_port(0.0, 100.0, 3), 0.0);
    }
}
