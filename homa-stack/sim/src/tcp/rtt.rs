//! Round-trip times and the retransmission time-out (RFC 6298).

use super::config::TcpConfig;
use crate::time::Time;

/// The smoothed round-trip time of a connection and what follows from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rtt {
    /// Both in ps; zero before the first sample.
    srtt: u64,
    var: u64,
    /// The least sample.
    least: Time,
}

impl Default for Rtt {
    fn default() -> Self {
        Self { srtt: 0, var: 0, least: Time::NEVER }
    }
}

impl Rtt {
    /// Takes a sample; those of retransmitted segments are no samples (Karn).
    pub(crate) fn sample(&mut self, rtt: Time) {
        let rtt = rtt.as_picos().max(1);
        self.least = self.least.min(Time::from_picos(rtt));
        if self.srtt == 0 {
            (self.srtt, self.var) = (rtt, rtt / 2);
        } else {
            self.var = (3 * self.var + self.srtt.abs_diff(rtt)) / 4;
            self.srtt = (7 * self.srtt + rtt) / 8;
        }
    }

    /// The smoothed round-trip time, once there is one.
    pub(crate) fn smoothed(&self) -> Option<Time> {
        (self.srtt != 0).then_some(Time::from_picos(self.srtt))
    }

    /// The least round-trip time, once there is one.
    pub(crate) fn least(&self) -> Option<Time> {
        (self.least != Time::NEVER).then_some(self.least)
    }

    /// The retransmission time-out after `backoff` time-outs in a row.
    ///
    /// RFC 6298 has `SRTT + max(G, 4 RTTVAR)`, at least a second; Linux puts its minimum in the place of the clock's
    /// granularity G, and so do we.
    pub(crate) fn timeout(&self, config: &TcpConfig, backoff: u32) -> Time {
        let base = match self.smoothed() {
            None => config.initial_rto,
            Some(srtt) => srtt + config.min_rto.max(Time::from_picos(4 * self.var)),
        };
        Time::from_picos(base.as_picos().saturating_mul(1 << backoff.min(16))).min(config.max_rto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sums of RFC 6298, section 2, by hand.
    #[test]
    fn the_timeout_follows_rfc_6298() {
        let config = TcpConfig { min_rto: Time::from_micros(1), ..TcpConfig::default() };
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(&config, 0), Time::from_secs(1), "2.1");
        rtt.sample(Time::from_millis(100));
        assert_eq!(rtt.timeout(&config, 0), Time::from_millis(300), "2.2: R + 4 R / 2");
        rtt.sample(Time::from_millis(180));
        // RTTVAR = 3/4 50 + 1/4 80 = 57.5; SRTT = 7/8 100 + 1/8 180 = 110
        assert_eq!(rtt.timeout(&config, 0), Time::from_millis(340), "2.3");
        assert_eq!(rtt.timeout(&config, 2), Time::from_millis(1360), "5.5: doubled for each time-out");
        assert_eq!(rtt.timeout(&config, 40), config.max_rto);
        assert_eq!(rtt.least(), Some(Time::from_millis(100)));
    }

    #[test]
    fn constant_round_trips_leave_the_minimum() {
        let config = TcpConfig::default();
        let mut rtt = Rtt::default();
        for _ in 0..100 {
            rtt.sample(Time::from_micros(20));
        }
        assert_eq!(rtt.smoothed(), Some(Time::from_micros(20)));
        assert_eq!(rtt.timeout(&config, 0), Time::from_micros(200_020));
    }
}
