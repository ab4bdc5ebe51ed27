//! Statistics of few values with heavy tails: medians, spreads, tails of distributions, control of false alarms.

use statrs::function::beta::beta_reg;

/// Middle value, or mean of the middle two; NaN if there are none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    let half = sorted.len() / 2;
    if sorted.is_empty() {
        return f64::NAN;
    }
    let (below, middle, _) = sorted.select_nth_unstable_by(half, f64::total_cmp);
    let upper = *middle;
    if values.len() % 2 == 1 {
        return upper;
    }
    let lower = below.iter().copied().max_by(f64::total_cmp).expect("half of an even count");
    (lower + upper) / 2.0
}

/// Median of the distances from `center`.
pub fn mad(values: &[f64], center: f64) -> f64 {
    median(&values.iter().map(|value| (value - center).abs()).collect::<Vec<_>>())
}

/// Standard deviation of a normal distribution with the same [`mad`]; where that is 0, by the mean distance. (1.4826,
/// 1.2533: the ratios for a normal distribution; cperf.md 4.4, test Z.)
pub fn spread(values: &[f64], center: f64) -> f64 {
    let mad = mad(values, center);
    if mad > 0.0 {
        return 1.4826 * mad;
    }
    1.2533 * values.iter().map(|value| (value - center).abs()).sum::<f64>() / values.len().max(1) as f64
}

/// Gini coefficient of values that are not negative: 0 all equal, toward 1 all in one.
pub fn gini(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (n, sum) = (sorted.len() as f64, sorted.iter().sum::<f64>());
    if sum <= 0.0 {
        return 0.0;
    }
    let weighted: f64 = sorted.iter().zip(1..).map(|(value, rank)| f64::from(rank) * value).sum();
    2.0 * weighted / (n * sum) - (n + 1.0) / n
}

/// Theil-Sen line through points: (slope, intercept), medians of all slopes and of what they leave. `None` with fewer
/// than two different x.
pub fn theil_sen(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    // Over some hundreds of points each with its neighbours at a few distances: enough, and not quadratic.
    let steps: Vec<usize> = if points.len() <= 300 { (1..points.len()).collect() } else { vec![1, 7, 31, 127, 251] };
    let pairs = steps.into_iter().flat_map(|step| points.iter().zip(&points[step..]));
    let slopes: Vec<_> = pairs.filter(|(a, b)| a.0 != b.0).map(|(a, b)| (b.1 - a.1) / (b.0 - a.0)).collect();
    if slopes.is_empty() {
        return None;
    }
    let slope = median(&slopes);
    Some((slope, median(&points.iter().map(|(x, y)| y - slope * x).collect::<Vec<_>>())))
}

/// Probability that Student's t with `df` degrees of freedom (any positive number) is further from 0 than `t`.
pub fn t_tail(t: f64, df: f64) -> f64 {
    if !t.is_finite() {
        return if t.is_nan() { 1.0 } else { 0.0 };
    }
    beta_reg(df / 2.0, 0.5, df / (df + t * t))
}

/// Adjusted p-values by Benjamini and Hochberg: of all comparisons whose adjusted value is at most q, a share of at
/// most q is expected to be false alarms; if nothing is odd at all, the chance of any is at most q. Holds for
/// independent comparisons and for positively dependent ones, as counters of one node are.
pub fn adjusted(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    let (mut result, mut least, count) = (vec![1.0; p.len()], 1.0_f64, p.len() as f64);
    for (above, index) in order.into_iter().enumerate() {
        let rank = count - above as f64;
        least = least.min(p[index] * count / rank);
        result[index] = least;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads_are_those_computed_by_hand() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
        assert!(median(&[]).is_nan());
        assert_eq!(mad(&[1.0, 2.0, 3.0, 4.0, 100.0], 3.0), 1.0);
        assert!((spread(&[1.0, 2.0, 3.0, 4.0, 100.0], 3.0) - 1.4826).abs() < 1e-12);
        assert!((spread(&[5.0, 5.0, 5.0, 9.0], 5.0) - 1.2533).abs() < 1e-12, "more than half are equal");
        assert_eq!(gini(&[1.0, 1.0, 1.0]), 0.0);
        assert!((gini(&[0.0, 0.0, 0.0, 1.0]) - 0.75).abs() < 1e-12);
    }

    #[test]
    fn a_line_is_found_in_spite_of_outliers() {
        let mut points: Vec<_> = (0..11).map(|x| (f64::from(x), 2.0 * f64::from(x) + 1.0)).collect();
        points[4].1 = 500.0;
        points[7].1 = -90.0;
        assert_eq!(theil_sen(&points), Some((2.0, 1.0)));
        assert_eq!(theil_sen(&[(1.0, 2.0), (1.0, 3.0)]), None);
    }

    #[test]
    fn tails_of_students_t_are_those_of_tables() {
        // Two-sided, from printed tables.
        for (t, df, p) in
            [(12.706, 1.0, 0.05), (2.571, 5.0, 0.05), (4.032, 5.0, 0.01), (2.228, 10.0, 0.05), (1.96, 1e6, 0.05)]
        {
            assert!((t_tail(t, df) - p).abs() < 2e-4 * p.max(0.5), "t {t}, {df} degrees: {}", t_tail(t, df));
        }
        // One degree is the Cauchy distribution: 2/pi atan(1/t).
        assert!((t_tail(1e4, 1.0) / (2.0 / std::f64::consts::PI * 1e-4) - 1.0).abs() < 1e-6);
        assert_eq!((t_tail(f64::INFINITY, 3.0), t_tail(f64::NAN, 3.0), t_tail(0.0, 3.0)), (0.0, 1.0, 1.0));
    }

    #[test]
    fn adjusted_p_values_are_those_computed_by_hand() {
        // 0.01 * 4/1, 0.02 * 4/2, 0.03 * 4/3, 0.5 * 4/4; each at most that of the next.
        let got = adjusted(&[0.5, 0.01, 0.03, 0.02]);
        for (got, want) in got.iter().zip([0.5, 0.04, 0.04, 0.04]) {
            assert!((got - want).abs() < 1e-12, "{got} is not {want}");
        }
        assert!(adjusted(&[]).is_empty());
    }
}
