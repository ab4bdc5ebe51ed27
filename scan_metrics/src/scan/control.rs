//! From a difference to a probability, and which of thousands of differences to believe.
//!
//! **What is assumed.** Counters of nodes under equal load scatter by a factor, not by a fixed amount, so logarithms
//! are compared. They are overdispersed (a lost burst is many retransmissions), so a Poisson distribution is only the
//! least scatter that a counter may have, for events in small clusters. A median absolute deviation of few
//! peers is a poor estimate that is often far too small by chance, which makes z-scores with heavy tails: it is
//! joined with what other counters of the same class show in the same group (four observations' worth), never
//! below it, and the distance is judged by Student's t with as many degrees of freedom as both are worth; besides, it
//! must be more than the least scatter explains. A node is compared with its peers only, its own value being left out
//! of their median and spread.
//!
//! **False alarms** are then controlled over all comparisons of a scan by Benjamini and Hochberg
//! ([`super::stats::adjusted`]), at [`RATE`]; what is rarer than that must still be of interest: a least size of the
//! effect by class. Source: cperf.md 4.4.

use super::stats::{median, spread, t_tail};

/// Expected share of false alarms; and chance of any if nothing is odd.
pub const RATE: f64 = 0.01;
/// Least |z|.
pub const LEAST_Z: f64 = 3.5;
/// Least ratio, up or down, of test R.
pub const LEAST_RATIO: f64 = 1.5;
/// Events that come together.
const CLUSTER: f64 = 4.0;
/// Least relative scatter that is believed of nodes under equal load.
const LEAST_SPREAD: f64 = 0.01;
/// Weight of the class's spread, in observations.
const PRIOR: f64 = 4.0;
/// Degrees of freedom of the least scatter.
const KNOWN: f64 = 100.0;
/// Events from where on their logarithm is nearly normal.
pub(super) const NORMAL: f64 = 20.0;
/// Times the common spread from where on peers scatter more than others.
const MORE: f64 = 1.5;
/// Share of an observation that each peer is worth to a median absolute deviation (its efficiency).
const WORTH: f64 = 0.37;

/// One value beside those of its peers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// Median of the peers, on the scale of the logarithm.
    pub median: f64,
    /// Distance from it in spreads.
    pub z: f64,
    /// Chance of one as far if nothing is odd, before other comparisons are thought of.
    pub p: f64,
}

/// Judges `value` against `peers` (both logarithms of events by load): `events` is how many are usual at this node,
/// `class` the class's spread. `None` with fewer than two peers.
pub fn judge(value: f64, peers: &[f64], events: f64, class: Option<f64>) -> Option<Judged> {
    (peers.len() >= 2).then(|| Peers::of(peers).judge(value, events, class))
}

/// Peers that many values are judged against.
#[derive(Clone, Copy, Debug)]
pub struct Peers {
    median: f64,
    spread: f64,
    count: f64,
}

impl Peers {
    /// Their median and spread.
    pub fn of(values: &[f64]) -> Self {
        let center = median(values);
        Self { median: center, spread: spread(values, center), count: values.len() as f64 }
    }

    /// Judges a value, see [`judge`].
    pub fn judge(&self, value: f64, events: f64, class: Option<f64>) -> Judged {
        let worth = self.worth();
        let squares = |class: f64| PRIOR * class * class + worth * self.spread * self.spread;
        let joined = class.map_or(self.spread, |class| (squares(class) / (PRIOR + worth)).sqrt());
        self.against(value, events, self.spread.max(joined), PRIOR + worth)
    }

    /// The same where other groups of peers (other cores of the same nodes) scatter alike, so that the scatter is known
    /// better. Peers that clearly scatter more than the others are judged by themselves.
    pub fn judge_alike(&self, value: f64, events: f64, alike: Alike) -> Judged {
        if self.spread > MORE * alike.spread {
            return self.judge(value, events, None);
        }
        self.against(value, events, self.spread.max(alike.spread), alike.freedom)
    }

    /// The same for events of a class that come less clustered than must be assumed otherwise: how much they scatter is then
    /// known from all counters of the class. Peers that clearly scatter more are judged by themselves.
    pub fn judge_clustered(&self, value: f64, events: f64, clusters: Clusters, class: Option<f64>) -> Judged {
        let scatter = (clusters.factor.max(1.0) / (events + 1.0)).sqrt().max(LEAST_SPREAD);
        if events < NORMAL || clusters.factor > CLUSTER || self.spread > MORE * scatter {
            return self.judge(value, events, class);
        }
        let seen = scatter.max(self.spread) * self.uncertain();
        let distance = value - self.median;
        Judged { median: self.median, z: distance / seen, p: t_tail(distance / seen, clusters.freedom) }
    }

    /// What the uncertainty of their median adds to a distance from it; pi/2 is its variance's ratio to that of a mean.
    fn uncertain(&self) -> f64 {
        (1.0 + std::f64::consts::FRAC_PI_2 / self.count).sqrt()
    }

    /// Observations that the spread is worth.
    fn worth(&self) -> f64 {
        WORTH * (self.count - 1.0).max(0.0)
    }

    /// The chance of a value if `scatter` is known with so many degrees of freedom.
    fn against(&self, value: f64, events: f64, scatter: f64, freedom: f64) -> Judged {
        let seen = scatter * self.uncertain();
        let least = (CLUSTER / (events + 1.0)).sqrt().max(LEAST_SPREAD) * self.uncertain();
        let distance = value - self.median;
        // Neither what peers show, known badly, nor the least scatter, known well, may explain it.
        let chance = |scatter: f64, df: f64| if scatter > 0.0 { t_tail(distance / scatter, df) } else { 0.0 };
        let p = chance(seen, freedom).max(chance(least, KNOWN));
        Judged { median: self.median, z: distance / seen.max(least), p }
    }
}

/// How events of a class come: variance over mean, 1 where each comes alone.
#[derive(Clone, Copy, Debug)]
pub struct Clusters {
    factor: f64,
    freedom: f64,
}

impl Clusters {
    /// From counters of a class: spread of each, and events that are usual at one of `nodes` nodes. `None` with fewer than
    /// three. Counters of a class share events, so that many are not worth more than four.
    pub fn of(counters: &[(f64, f64)], nodes: usize) -> Option<Self> {
        let factors: Vec<f64> = counters.iter().map(|(spread, events)| spread * spread * (events + 1.0)).collect();
        let worth = WORTH * (nodes as f64 - 2.0).max(0.0);
        (factors.len() >= 3)
            .then(|| Self { factor: median(&factors), freedom: PRIOR + worth * factors.len().min(4) as f64 })
    }
}

/// What groups of peers that scatter alike show together.
#[derive(Clone, Copy, Debug)]
pub struct Alike {
    spread: f64,
    freedom: f64,
}

impl Alike {
    /// The common spread of groups, at least one.
    pub fn of(groups: &[Peers]) -> Self {
        let squares = groups.iter().map(|peers| peers.spread * peers.spread).sum::<f64>();
        let freedom = PRIOR + groups.iter().map(Peers::worth).sum::<f64>();
        Self { spread: (squares / groups.len() as f64).sqrt(), freedom }
    }
}

/// The usual spread of a class: the median over its counters.
pub fn class_spread(spreads: &[f64]) -> Option<f64> {
    (spreads.len() >= 3).then(|| median(spreads))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::stats::adjusted;

    /// xorshift64*, uniform in (0, 1).
    fn uniform(state: &mut u64) -> f64 {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        ((state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(state: &mut u64) -> f64 {
        (-2.0 * uniform(state).ln()).sqrt() * (std::f64::consts::TAU * uniform(state)).cos()
    }

    /// Student's t with 8 degrees of freedom: tails heavier than normal ones.
    fn heavy(state: &mut u64) -> f64 {
        let squares: f64 = (0..8).map(|_| normal(state).powi(2)).sum();
        normal(state) / (squares / 8.0).sqrt()
    }

    /// Of 200 groups of 8 nodes with 60 counters whose spreads differ fivefold, few have any finding.
    #[test]
    fn chance_alone_is_hardly_ever_believed() {
        let (mut state, mut alarms) = (0x9E37_79B9_7F4A_7C15, 0);
        for _ in 0..200 {
            let table: Vec<Vec<f64>> = (0..60)
                .map(|metric| (0..8).map(|_| heavy(&mut state) * 0.05 * f64::from(1 + metric % 5)).collect())
                .collect();
            let spreads: Vec<_> = table.iter().map(|row: &Vec<f64>| spread(row, median(row))).collect();
            let class = class_spread(&spreads);
            let p: Vec<_> = table
                .iter()
                .flat_map(|row| (0..8).map(move |node| (row, node)))
                .map(|(row, node)| {
                    let peers: Vec<_> = (0..8).filter(|&other| other != node).map(|other| row[other]).collect();
                    judge(row[node], &peers, 1e6, class).unwrap().p
                })
                .collect();
            alarms += usize::from(adjusted(&p).iter().any(|&p| p <= RATE));
        }
        assert!(alarms <= 10, "{alarms} of 200 groups without anything odd");
    }

    #[test]
    fn what_is_far_from_its_peers_is_believed() {
        let peers = [0.0, 0.02, -0.03, 0.01, 0.04, -0.01, 0.02];
        let far = judge(1.0, &peers, 1e4, Some(0.03)).unwrap();
        assert!(far.z > 20.0 && far.p < 1e-6, "{far:?}");
        let near = judge(0.05, &peers, 1e4, Some(0.03)).unwrap();
        assert!(near.z < 2.0 && near.p > 0.05, "{near:?}");
        assert!(judge(1.0, &[0.5], 1e4, None).is_none());
    }

    /// A fifth more, where peers scatter by 2 %: five peers alone do not tell, with three other groups like them they do.
    #[test]
    fn groups_that_scatter_alike_are_known_better_together() {
        let few = Peers::of(&[0.0, 0.02, -0.03, 0.01, 0.04]);
        let alike = Alike::of(&[few; 4]);
        let (alone, together) = (few.judge(0.2, 1e6, None), few.judge_alike(0.2, 1e6, alike));
        assert!(together.p < alone.p / 10.0 && alone.z == together.z, "{alone:?} {together:?}");
        let wild = Peers::of(&[0.0, 0.3, -0.3, 0.1, 0.2]);
        assert_eq!(wild.judge_alike(0.2, 1e6, alike), wild.judge(0.2, 1e6, None), "its own scatter counts");
    }

    /// 130 events a node, as a Poisson distribution scatters them; twice as many at one.
    #[test]
    fn events_that_come_alone_need_not_be_many() {
        let peers = Peers::of(&[0.0, 0.08, -0.1, 0.03, 0.12, -0.05, 0.02, -0.09, 0.06, -0.02]);
        let clusters = Clusters::of(&[(0.09, 130.0), (0.1, 128.0), (0.08, 125.0), (0.1, 140.0)], 11).unwrap();
        let (known, assumed) =
            (peers.judge_clustered(2f64.ln(), 130.0, clusters, None), peers.judge(2f64.ln(), 130.0, None));
        assert!(known.p < 1e-5 && assumed.p > 1e-4, "{known:?} {assumed:?}");
        let bursts = Clusters::of(&[(0.3, 130.0), (0.25, 128.0), (0.35, 125.0)], 11).unwrap();
        assert_eq!(peers.judge_clustered(2f64.ln(), 130.0, bursts, None), assumed, "they come in bursts");
        assert!(Clusters::of(&[(0.1, 130.0), (0.1, 130.0)], 11).is_none());
    }

    #[test]
    fn rare_events_need_more_than_a_small_spread() {
        // Peers that happen to agree exactly: 3 against 1 is nothing, 300 against 100 is.
        let few = judge(3f64.ln(), &[0.0; 7], 1.0, None).unwrap();
        assert!(few.z < 1.0, "{few:?}");
        let many = judge(3f64.ln(), &[0.0; 7], 100.0, None).unwrap();
        assert!(many.z > 4.0, "{many:?}");
    }
}
