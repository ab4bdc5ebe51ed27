//! DCTCP's estimate of congestion (RFC 8257, 3.3).

/// The share of marked bytes, smoothed; taken anew each round trip.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dctcp {
    alpha: f64,
    acked: u64,
    marked: u64,
    /// The present window of observation ends when this offset is acknowledged.
    end: u64,
}

impl Default for Dctcp {
    fn default() -> Self {
        // 1 as the RFC recommends: the first mark halves the window, before there is an estimate.
        Self { alpha: 1.0, acked: 0, marked: 0, end: 0 }
    }
}

impl Dctcp {
    /// `bytes` more are acknowledged, up to `una` of the `nxt` that were sent; `marked` is the acknowledgement's ECE.
    pub(crate) fn acked(&mut self, bytes: u64, marked: bool, una: u64, nxt: u64, gain: f64) {
        self.acked += bytes;
        self.marked += if marked { bytes } else { 0 };
        if una > self.end && self.acked > 0 {
            let share = self.marked as f64 / self.acked as f64;
            self.alpha += gain * (share - self.alpha);
            (self.acked, self.marked, self.end) = (0, 0, nxt);
        }
    }

    /// Segments that are left of a window of `cwnd` after marks.
    pub(crate) fn reduce(&self, cwnd: f64) -> f64 {
        (cwnd * (1.0 - self.alpha / 2.0)).max(2.0)
    }

    /// The smoothed share of marked bytes, 0..=1.
    pub(crate) fn alpha(&self) -> f64 {
        self.alpha
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the share F of the bytes marked, alpha after n round trips is F + (1 - F) (1 - g)^n.
    #[test]
    fn alpha_approaches_the_share_of_marked_bytes() {
        let (g, share) = (1.0 / 16.0, 0.25);
        let mut d = Dctcp::default();
        let mut una = 0;
        for round in 0..40 {
            let nxt = una + 4000;
            for i in 0..4 {
                una += 1000;
                d.acked(1000, i == 3, una, nxt + 4000, g);
            }
            if round > 0 {
                // The first window ends at once, with the first acknowledgement, of which none is marked.
                assert!(d.alpha() < 1.0);
            }
        }
        let left = d.alpha() - share;
        let expected = (1.0 - share) * (1.0 - g).powi(20);
        assert!(left > 0.0 && (left / expected - 1.0).abs() < 0.25, "{left} instead of about {expected}");
        assert_eq!(Dctcp { alpha: 0.5, ..d }.reduce(100.0), 75.0);
        assert_eq!(Dctcp { alpha: 1.0, ..d }.reduce(3.0), 2.0);
    }
}
