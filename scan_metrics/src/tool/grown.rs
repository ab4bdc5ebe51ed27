//! What counters grew by over an interval, and the quotients that the sections are made of.

use crate::read::{Clock, Snapshot};

/// Growth over an interval.
#[derive(Clone, Debug)]
pub struct Grown {
    /// Growth of each core's counters; `ticks` is the length of the interval.
    pub cores: Snapshot,
    /// Counters that shrank: the node was restarted meanwhile.
    pub shrunk: Vec<(Option<u64>, String)>,
}

impl Grown {
    /// Between two snapshots.
    pub fn between(before: &Snapshot, after: &Snapshot) -> Self {
        let (cores, shrunk) = after.since(before);
        Self { cores, shrunk }
    }

    /// Of a file that holds growth already, as `cperf` keeps of each node.
    pub fn of_interval(grown: Snapshot) -> Self {
        Self { cores: grown, shrunk: Vec::new() }
    }

    /// Length of the interval, clock ticks; `None` if unknown or nothing passed.
    pub fn ticks(&self) -> Option<f64> {
        self.cores.ticks.filter(|&ticks| ticks > 0).map(|ticks| ticks as f64)
    }

    /// Ticks per microsecond.
    pub fn ticks_per_us(&self) -> Option<f64> {
        self.cores.khz.filter(|&khz| khz > 0).map(|khz| khz as f64 / 1000.0)
    }

    /// Length of the interval, seconds.
    pub fn seconds(&self) -> Option<f64> {
        Some(self.ticks()? / self.ticks_per_us()? / 1e6)
    }

    /// The older generation's file.
    pub fn is_v24(&self) -> bool {
        self.cores.clock == Clock::V24
    }

    /// Growth of `name` over all cores; `None` if the file lacks it.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.cores.total(name).map(|value| value as f64)
    }

    /// The same, 0 if the file lacks it: for sums of counters that differ between versions.
    pub fn or_zero(&self, name: &str) -> f64 {
        self.get(name).unwrap_or(0.0)
    }

    /// Sum over the counters whose name `which` wants.
    pub fn sum(&self, which: impl Fn(&str) -> bool) -> f64 {
        let counters = self.cores.cores.iter().flat_map(|core| &core.counters);
        counters.filter(|counter| which(&counter.name)).map(|counter| counter.value as f64).sum()
    }

    /// Bytes of all incoming messages.
    pub fn received_bytes(&self) -> f64 {
        self.sum(|name| name.contains("msg_bytes") && name != "sent_msg_bytes")
    }

    /// Packets received, of all types.
    pub fn packets_received(&self) -> f64 {
        self.sum(|name| name.starts_with("packets_rcvd_"))
    }

    /// Packets sent, of all types.
    pub fn packets_sent(&self) -> f64 {
        self.sum(|name| name.starts_with("packets_sent_"))
    }

    /// Complete messages received.
    pub fn messages(&self) -> f64 {
        self.or_zero("requests_received") + self.or_zero("responses_received")
    }

    /// Cores' worth of time of a `*_cycles` counter; 0 if it or the clock is missing.
    pub fn cores_of(&self, name: &str) -> f64 {
        self.ticks().map_or(0.0, |ticks| self.or_zero(name) / ticks)
    }

    /// Microseconds that `ticks` of the clock are.
    pub fn us(&self, ticks: f64) -> Option<f64> {
        Some(ticks / self.ticks_per_us()?)
    }

    /// What the whole of Homa used, in cores, busy waiting left out: send, receive, reply, NAPI (or, where the kernel
    /// does not measure that, the bypass), SoftIRQ (of Linux or, likewise, Homa's part), pacer and timer.
    pub fn total_cores(&self) -> f64 {
        let first = |names: [&str; 2]| {
            let [one, other] = names.map(|name| self.cores_of(name));
            if one > 0.0 { one } else { other }
        };
        self.cores_of("send_cycles")
            + self.receiving_cores()
            + self.cores_of("reply_cycles")
            + first(["napi_cycles", "bypass_softirq_cycles"])
            + first(["linux_softirq_cycles", "softirq_cycles"])
            + self.cores_of("pacer_cycles")
            + self.cores_of("timer_cycles")
    }

    /// Receiving without polling, in cores. This stack polls outside of receiving, whose time it does not take.
    pub fn receiving_cores(&self) -> f64 {
        (self.cores_of("recv_cycles") - self.cores_of("poll_cycles")).max(0.0)
    }
}

/// `a / b`; `None` if `b` is 0.
pub(crate) fn ratio(a: f64, b: f64) -> Option<f64> {
    (b != 0.0).then(|| a / b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_an_interval_are_sums_over_cores_and_quotients_of_time() {
        let text = "time_cycles 2000000 c\ncpu_khz 1000 r\ncore 0 c\nmsg_bytes_64 10 x\nsend_cycles 500000 x\n\
                    recv_cycles 800000 x\npoll_cycles 600000 x\nbypass_softirq_cycles 100000 x\n\
                    core 1 c\nlarge_msg_bytes 90 x\nsent_msg_bytes 7 x\nsend_cycles 500000 x\nlinux_softirq_cycles 200000 x\n\
                    softirq_cycles 900000 x\npackets_rcvd_ACK 3 x\npackets_sent_ACK 4 x\n";
        let grown = Grown::of_interval(Snapshot::parse(text));
        assert_eq!((grown.seconds(), grown.ticks_per_us()), (Some(2.0), Some(1.0)));
        assert_eq!((grown.received_bytes(), grown.packets_received(), grown.packets_sent()), (100.0, 3.0, 4.0));
        // 0.5 send, 0.1 receive, 0.05 bypass for want of NAPI, 0.1 of Linux rather than 0.45 of Homa.
        assert!((grown.total_cores() - 0.75).abs() < 1e-9, "{}", grown.total_cores());
        assert_eq!(grown.get("missing"), None);
    }
}
