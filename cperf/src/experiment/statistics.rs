//! Summary statistics: intervals over repetitions, and the mean of the worst of each class of lengths.

use serde::{Deserialize, Serialize};

/// Several values of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Ends of the 95 % confidence interval of the mean, by Student's t; `None` for a single value.
    pub interval: Option<(f64, f64)>,
    /// The least.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Coefficient of variation, their standard deviation over their mean; `None` for a single value or a mean of 0.
    #[serde(default)]
    pub variation: Option<f64>,
}

/// Quantiles 0.975 of Student's t for 1 to 30 degrees of freedom.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// Quantile 0.975 of Student's t; beyond the table by its expansion around the normal quantile.
fn t(freedom: usize) -> f64 {
    match freedom {
        0 => f64::INFINITY,
        1..=30 => T[freedom - 1],
        _ => 1.959_964 + 2.372_271 / freedom as f64,
    }
}

/// Summarises `values`; `None` without any.
pub fn summary(values: &[f64]) -> Option<Summary> {
    let count = values.len();
    let mean = values.iter().sum::<f64>() / count as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count as f64 - 1.0);
    let half = t(count.saturating_sub(1)) * (variance / count as f64).sqrt();
    (count > 0).then(|| Summary {
        count,
        mean,
        interval: (count > 1).then_some((mean - half, mean + half)),
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        variation: (count > 1 && mean != 0.0).then(|| variance.sqrt() / mean.abs()),
    })
}

/// "P99 average" (N051): messages by length in `classes` classes of equally many, the mean of the worst 1 % (at least one)
/// of the slowdowns of each, and the mean of these. A tail that no length dominates.
///
/// `messages`: length and slowdown, in order of arrival: those of a length that two classes share are dealt out in it.
/// Fewer messages than classes make as many classes as there are messages. `None` without messages.
pub fn p99_average(messages: &[(u32, f32)], classes: usize) -> Option<f64> {
    let mut sorted = messages.to_vec();
    sorted.sort_by_key(|(length, _)| *length); // stable
    let classes = classes.min(sorted.len());
    let worst = |class: usize| {
        let (from, to) = (class * sorted.len() / classes, (class + 1) * sorted.len() / classes);
        let mut slowdowns: Vec<_> = sorted[from..to].iter().map(|(_, slowdown)| *slowdown).collect();
        let count = (slowdowns.len() / 100).max(1);
        slowdowns.sort_unstable_by(|a, b| b.total_cmp(a));
        slowdowns[..count].iter().map(|slowdown| f64::from(*slowdown)).sum::<f64>() / count as f64
    };
    (classes > 0).then(|| (0..classes).map(worst).sum::<f64>() / classes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_as_tables_of_students_t_have_it() {
        let five = summary(&[4.0, 5.0, 6.0, 5.0, 5.0]).unwrap();
        let (low, high) = five.interval.unwrap();
        // Standard deviation 0.7071, over the root of 5 times 2.776.
        assert!((five.mean - 5.0).abs() < 1e-12 && (high - 5.8779).abs() < 1e-3 && (low - 4.1221).abs() < 1e-3);
        assert_eq!((five.min, five.max, five.count), (4.0, 6.0, 5));
        assert!((five.variation.unwrap() - 0.5_f64.sqrt() / 5.0).abs() < 1e-9);
        let one = summary(&[3.0]).unwrap();
        assert_eq!((one.mean, one.interval, one.variation), (3.0, None, None));
        assert_eq!(summary(&[-1.0, 1.0]).unwrap().variation, None);
        assert_eq!(summary(&[]), None);
        assert!((t(31) - 2.0395).abs() < 0.005 && (t(1000) - 1.9623).abs() < 0.001);
    }

    /// Worked by hand: 400 messages in two classes; the worst 2 of 200 in each.
    #[test]
    fn the_p99_average_weighs_each_class_of_lengths_alike() {
        let mut messages = vec![(100, 1.0); 198];
        messages.extend([(100, 11.0), (100, 13.0)]);
        messages.extend(vec![(9000, 2.0); 198]);
        messages.extend([(9000, 30.0), (9000, 50.0)]);
        assert_eq!(p99_average(&messages, 2), Some((12.0 + 40.0) / 2.0));
        assert_eq!(p99_average(&messages, 1), Some((50.0 + 30.0 + 13.0 + 11.0) / 4.0));
    }

    #[test]
    fn a_length_that_straddles_a_cut_is_dealt_out_in_order_of_arrival() {
        let messages = [(10, 1.0), (10, 2.0), (10, 3.0), (10, 4.0)];
        assert_eq!(p99_average(&messages, 2), Some((2.0 + 4.0) / 2.0));
        assert_eq!(p99_average(&messages, 10), Some(2.5), "four messages are four classes");
        assert_eq!(p99_average(&[], 10), None);
    }
}
