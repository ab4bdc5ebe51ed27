//! Slowdown: how much longer an RPC took than it had to. Three definitions of "had to" are in use; every output names
//! the one that it was made with. Source: cperf.md 3.7.

use std::collections::BTreeMap;

use super::digest::{Digest, Group};

/// What the round-trip time is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Definition {
    /// Median RTT of an unloaded Homa run for exactly that length.
    Atc21,
    /// --base-usecs + 8 x length / --link-mbps.
    Fixed,
    /// Smallest RTT of the unloaded run, any length, + 8 x length / --link-mbps.
    Alt,
}

impl Definition {
    /// Whether an unloaded run has to be made first.
    pub fn needs_unloaded(self) -> bool {
        self != Self::Fixed
    }
}

/// The divisor, by message length.
#[derive(Clone, Debug)]
pub struct Optimal {
    definition: Definition,
    base_ns: f64,
    link_mbps: f64,
    /// Medians of the unloaded run: (length, ns), by length.
    medians: Vec<(u32, f64)>,
}

impl Optimal {
    /// `base_usecs` + time on a link of `link_mbps`.
    pub fn fixed(base_usecs: f64, link_mbps: f64) -> Self {
        Self { definition: Definition::Fixed, base_ns: base_usecs * 1000.0, link_mbps, medians: Vec::new() }
    }

    /// From an unloaded run; `None` if it has no samples.
    pub fn unloaded(definition: Definition, run: &Digest, link_mbps: f64) -> Option<Self> {
        let least = run.buckets.iter().filter_map(|bucket| bucket.times_ns().next()).min()?;
        let medians = run.buckets.iter().map(|bucket| (bucket.length, bucket.percentile_ns(1, 2).max(1) as f64));
        Some(Self { definition, base_ns: least as f64, link_mbps, medians: medians.collect() })
    }

    /// The least time, ns, that an RPC with messages of `length` bytes takes. Between two lengths of the unloaded run
    /// (a workload drawn with another reduction) it is interpolated; beyond them the nearest counts.
    pub fn ns(&self, length: u32) -> f64 {
        if self.definition != Definition::Atc21 {
            return self.base_ns + f64::from(length) * 8000.0 / self.link_mbps;
        }
        let above = self.medians.partition_point(|&(at, _)| at < length);
        match (above.checked_sub(1).and_then(|below| self.medians.get(below)), self.medians.get(above)) {
            (_, Some(&(at, ns))) if at == length => ns,
            (Some(&(low, low_ns)), Some(&(high, high_ns))) => {
                low_ns + (high_ns - low_ns) * f64::from(length - low) / f64::from(high - low)
            }
            (Some(&(_, ns)), None) | (None, Some(&(_, ns))) => ns,
            (None, None) => f64::NAN,
        }
    }

    /// For outputs: what slowdown means here.
    pub fn text(&self) -> String {
        let (base, mbps) = (self.base_ns / 1000.0, self.link_mbps);
        match self.definition {
            Definition::Atc21 => {
                "atc21: RTT / median RTT of an unloaded Homa run for the same message length".to_owned()
            }
            Definition::Fixed => format!("fixed: RTT / ({base:.2} us + 8 x length / {mbps} Mbit/s)"),
            Definition::Alt => format!(
                "alt: RTT / ({base:.2} us, the smallest RTT of an unloaded Homa run, + 8 x length / {mbps} Mbit/s)"
            ),
        }
    }
}

/// Over all RPCs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Mean of all slowdowns.
    pub mean: f64,
    /// Index ⌊99n/100⌋ of all sorted slowdowns.
    pub p99: f64,
}

/// Mean and P99 over every RPC; `None` without samples.
pub fn summary(digest: &Digest, optimal: &Optimal) -> Option<Summary> {
    let mut sum = 0.0;
    let mut all = Vec::with_capacity(digest.samples);
    for bucket in &digest.buckets {
        let least = optimal.ns(bucket.length);
        all.extend(bucket.times_ns().map(|time| (time as f64 / least) as f32));
        sum += bucket.times_ns().map(|time| time as f64).sum::<f64>() / least;
    }
    let mean = sum / all.len() as f64;
    (!all.is_empty()).then(|| Summary { mean, p99: at(&mut all, 99, 100) })
}

/// P50 and P99 of the slowdowns in a group of lengths.
pub fn of_group(group: &Group<'_>, optimal: &Optimal) -> (f64, f64) {
    let least: BTreeMap<u32, f64> =
        group.buckets.iter().map(|bucket| (bucket.length, optimal.ns(bucket.length))).collect();
    let mut all: Vec<_> = group.samples().map(|(length, time)| (time as f64 / least[&length]) as f32).collect();
    (at(&mut all, 1, 2), at(&mut all, 99, 100))
}

/// Index ⌊n·num/den⌋ in sorted order; `all` is not empty.
fn at(all: &mut [f32], num: usize, den: usize) -> f64 {
    let index = (all.len() * num / den).min(all.len() - 1);
    f64::from(*all.select_nth_unstable_by(index, f32::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::super::digest::Collector;
    use super::super::rtts::Sample;
    use super::*;

    fn digest(samples: &[(u32, u64)]) -> Digest {
        let mut collector = Collector::default();
        samples.iter().for_each(|&(length, rtt_ns)| collector.add(Sample { length, rtt_ns }));
        collector.finish()
    }

    #[test]
    fn fixed_is_base_plus_time_on_the_link() {
        let optimal = Optimal::fixed(15.0, 25_000.0);
        assert_eq!(optimal.ns(0), 15_000.0);
        assert_eq!(optimal.ns(1_000_000), 15_000.0 + 320_000.0);
        assert!(optimal.text().contains("15.00 us"));
    }

    #[test]
    fn atc21_is_the_median_for_that_length_and_interpolates_between() {
        let run = digest(&[(100, 10_000), (100, 30_000), (100, 20_000), (300, 60_000)]);
        let optimal = Optimal::unloaded(Definition::Atc21, &run, 1.0).unwrap();
        assert_eq!((optimal.ns(100), optimal.ns(200), optimal.ns(300)), (20_000.0, 40_000.0, 60_000.0));
        assert_eq!((optimal.ns(1), optimal.ns(1000)), (20_000.0, 60_000.0), "beyond the ends the nearest counts");
    }

    #[test]
    fn alt_starts_from_the_smallest_of_any_length() {
        let run = digest(&[(100, 20_000), (300, 12_000)]);
        let optimal = Optimal::unloaded(Definition::Alt, &run, 8000.0).unwrap();
        assert_eq!(optimal.ns(1000), 13_000.0);
        assert!(Optimal::unloaded(Definition::Alt, &digest(&[]), 1.0).is_none());
    }

    #[test]
    fn the_mean_weighs_every_rpc_alike() {
        let optimal = Optimal::fixed(1.0, f64::INFINITY); // 1 us at any length
        let all = digest(&[(100, 1000), (100, 1000), (100, 1000), (900, 5000)]);
        assert_eq!(summary(&all, &optimal), Some(Summary { mean: 2.0, p99: 5.0 }));
        assert_eq!(summary(&digest(&[]), &optimal), None);
        assert_eq!(of_group(&all.groups(&[100, 900])[0], &optimal), (1.0, 1.0));
    }
}
