//! Complementary distribution of round-trip times: each time with the fraction of samples that took longer.
//! Source: cperf.md 3.8.

/// A point of the distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Round-trip time, µs.
    pub usecs: f64,
    /// Fraction of the samples that are longer, or 1/n × ½ at the very last: a log axis has no zero.
    pub fraction: f64,
}

/// Both coordinates must differ by less than this from the last point kept for a point to be left out.
const RESOLUTION: f64 = 0.01;

/// The distribution of `sorted` times, ns, thinned to what an eye can tell apart.
pub fn complementary(sorted: impl ExactSizeIterator<Item = u64>) -> Vec<Point> {
    let count = sorted.len();
    let mut points: Vec<Point> = Vec::new();
    for (index, time) in sorted.enumerate() {
        let longer = (count - 1 - index) as f64;
        let point = Point { usecs: time as f64 / 1000.0, fraction: longer.max(0.5) / count as f64 };
        let near = |a: f64, b: f64| (a - b).abs() < RESOLUTION * b.abs();
        let last = index + 1 == count;
        let skip = |kept: &Point| near(point.usecs, kept.usecs) && near(point.fraction, kept.fraction);
        if last || !points.last().is_some_and(skip) {
            points.push(point);
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_of_the_longer_ones() {
        let points = complementary([1000u64, 2000, 4000, 8000].into_iter());
        let got: Vec<_> = points.iter().map(|point| (point.usecs, point.fraction)).collect();
        assert_eq!(got, [(1.0, 0.75), (2.0, 0.5), (4.0, 0.25), (8.0, 0.125)]);
    }

    #[test]
    fn points_that_look_alike_are_dropped_and_the_extremes_stay() {
        let points = complementary((0..100_000u32).map(|i| 1_000_000 + u64::from(i)));
        assert!(points.len() < 2000, "{}", points.len());
        assert_eq!(points[0].usecs, 1000.0);
        assert_eq!(points.last().unwrap().usecs, 1099.999);
        assert!(complementary([].into_iter()).is_empty());
    }
}
