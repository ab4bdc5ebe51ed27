//! Distributions of delays, as all reports print them.

use serde::Serialize;

/// A distribution of times. Percentile q of n ascending samples is the one at index `q * n / 100`, rounded down; there is
/// no interpolation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distribution {
    /// Smallest sample.
    pub min_us: f64,
    /// Tenth percentile.
    pub p10_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Largest sample.
    pub max_us: f64,
    /// Mean.
    pub avg_us: f64,
}

/// Nanoseconds as microseconds.
pub fn micros(ns: i64) -> f64 {
    ns as f64 / 1000.0
}

/// Percentile `q` (below 100) of an ascending list; `None` if it is empty.
pub fn percentile(sorted: &[i64], q: usize) -> Option<i64> {
    sorted.get(q * sorted.len() / 100).copied()
}

impl Distribution {
    /// The distribution of an ascending list of ns; `None` if it is empty.
    pub fn of(sorted: &[i64]) -> Option<Self> {
        let at = |q| percentile(sorted, q).map(micros);
        Some(Self {
            min_us: micros(*sorted.first()?),
            p10_us: at(10)?,
            p50_us: at(50)?,
            p90_us: at(90)?,
            p99_us: at(99)?,
            max_us: micros(*sorted.last()?),
            avg_us: average(sorted)?,
        })
    }
}

/// Mean of a list of ns, in us.
pub fn average(samples: &[i64]) -> Option<f64> {
    let sum: i128 = samples.iter().map(|s| i128::from(*s)).sum();
    // To the ns, so that the same samples print the same in any order.
    (!samples.is_empty()).then(|| (sum as f64 / samples.len() as f64).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_do_not_interpolate() {
        let samples: Vec<i64> = (0..200).map(|i| i * 1000).collect();
        let d = Distribution::of(&samples).unwrap();
        assert_eq!(
            (d.min_us, d.p10_us, d.p50_us, d.p90_us, d.p99_us, d.max_us),
            (0.0, 20.0, 100.0, 180.0, 198.0, 199.0)
        );
        assert_eq!(d.avg_us, 99.5);
        let one = Distribution::of(&[-7]).unwrap();
        assert_eq!((one.min_us, one.p99_us, one.avg_us), (-0.007, -0.007, -0.007));
        assert_eq!(Distribution::of(&[]), None);
    }
}
