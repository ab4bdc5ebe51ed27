//! Comparing two samples without knowing their distributions: ranks and resampling.

use scan_metrics::scan::stats::median;
use statrs::function::erf::erfc;

use crate::report::bootstrap;

/// Two-sided probability that samples of one distribution have ranks that lie as far apart (Mann and Whitney 1947):
/// exact up to 20 values a side without ties, else by the normal approximation, corrected for ties and continuity.
pub(super) fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    let (n, m) = (a.len(), b.len());
    let mut all: Vec<(f64, bool)> = a.iter().map(|v| (*v, true)).chain(b.iter().map(|v| (*v, false))).collect();
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (mut rank_sum, mut ties, mut at) = (0.0, 0.0, 0);
    while at < all.len() {
        let equal = all[at..].iter().take_while(|(value, _)| *value == all[at].0).count();
        let rank = at as f64 + (equal as f64 + 1.0) / 2.0;
        rank_sum += rank * all[at..at + equal].iter().filter(|(_, of_a)| *of_a).count() as f64;
        ties += (equal as f64).powi(3) - equal as f64;
        at += equal;
    }
    let (nf, mf) = (n as f64, m as f64);
    let u = rank_sum - nf * (nf + 1.0) / 2.0;
    let least = u.min(nf * mf - u);
    if ties == 0.0 && n <= 20 && m <= 20 {
        let counts = distribution(n, m);
        let total: f64 = counts.iter().sum();
        let tail: f64 = counts.iter().take(least.round() as usize + 1).sum();
        return (2.0 * tail / total).min(1.0);
    }
    let all = nf + mf;
    let variance = nf * mf / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)).max(1.0));
    if variance <= 0.0 {
        return 1.0;
    }
    let z = ((least - nf * mf / 2.0).abs() - 0.5).max(0.0) / variance.sqrt();
    (2.0 * normal_tail(z)).min(1.0)
}

/// The least that [`mann_whitney`] can be with so many values.
pub(super) fn least_p(n: usize, m: usize) -> f64 {
    let ways: f64 = (0..n).map(|k| (m + n - k) as f64 / (n - k) as f64).product();
    (2.0 / ways).min(1.0)
}

/// How many of the orders of `n` and `m` values have each value of U: U(n, m) = U(n - 1, m) shifted by m + U(n, m - 1).
fn distribution(n: usize, m: usize) -> Vec<f64> {
    let mut rows: Vec<Vec<f64>> = vec![vec![1.0]; m + 1]; // no values of the first kind
    for i in 1..=n {
        let mut next: Vec<Vec<f64>> = vec![vec![1.0]];
        for j in 1..=m {
            let mut counts = vec![0.0; i * j + 1];
            for (u, count) in rows[j].iter().enumerate() {
                counts[u + j] += count;
            }
            for (u, count) in next[j - 1].iter().enumerate() {
                counts[u] += count;
            }
            next.push(counts);
        }
        rows = next;
    }
    rows.swap_remove(m)
}

/// Probability beyond `z` standard deviations.
fn normal_tail(z: f64) -> f64 {
    erfc(z / std::f64::consts::SQRT_2) / 2.0
}

/// Ends of the 95 % interval of `figure` of both medians, by resampling each side; the same numbers each time. `None` if
/// the figure is not defined for most resamples.
pub(super) fn change_interval(
    a: &[f64],
    b: &[f64],
    resamples: usize,
    figure: impl Fn([f64; 2]) -> Option<f64>,
) -> Option<(f64, f64)> {
    let mut rng = bootstrap::numbers();
    let mut pick = |values: &[f64]| {
        let picked: Vec<f64> = (0..values.len()).map(|_| values[rng.below(values.len())]).collect();
        median(&picked)
    };
    bootstrap::interval((0..resamples).filter_map(|_| figure([pick(a), pick(b)])).collect(), resamples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
        assert!(median(&[]).is_nan());
    }

    /// Five against five without overlap: 2 of 252 orders; four against four: 2 of 70.
    #[test]
    fn small_samples_are_judged_exactly() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]);
        assert!((mann_whitney(&a, &b) - 2.0 / 252.0).abs() < 1e-12);
        assert!((mann_whitney(&a[..4], &b[..4]) - 2.0 / 70.0).abs() < 1e-12);
        assert!((least_p(5, 5) - 2.0 / 252.0).abs() < 1e-12);
        assert_eq!((mann_whitney(&[1.0], &[2.0]), least_p(1, 1)), (1.0, 1.0));
        // All 20 orders of 3 and 3 are counted: 1 1 2 3 3 3 3 2 1 1.
        assert_eq!(distribution(3, 3), [1.0, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 2.0, 1.0, 1.0]);
    }

    #[test]
    fn the_approximation_agrees_with_the_exact_value() {
        assert!((normal_tail(1.959_964) - 0.025).abs() < 1e-6);
        let a: Vec<f64> = (0..20).map(f64::from).collect();
        let b: Vec<f64> = (0..20).map(|k| f64::from(k) * 1.1 + 3.3).collect();
        let exact = mann_whitney(&a, &b);
        let mut tied = (a.clone(), b.clone());
        tied.0.push(100.0);
        tied.1.push(100.0); // a tie, so that it is approximated
        assert!((mann_whitney(&tied.0, &tied.1) - exact).abs() < 0.02, "{exact}");
        assert_eq!(mann_whitney(&[5.0; 8], &[5.0; 8]), 1.0, "all tied");
    }

    #[test]
    fn the_interval_holds_the_change_and_repeats() {
        let a: Vec<f64> = (0..10).map(|k| 100.0 + f64::from(k % 3)).collect();
        let b: Vec<f64> = a.iter().map(|value| value * 1.05).collect();
        let change = |[a, b]: [f64; 2]| Some(b / a - 1.0);
        let (low, high) = change_interval(&a, &b, 2000, change).unwrap();
        assert!(low < 0.05 && high > 0.05 && high - low < 0.05, "{low} {high}");
        assert_eq!(change_interval(&a, &b, 2000, change), Some((low, high)));
        assert_eq!(change_interval(&a, &b, 10, |_| None), None);
    }
}
