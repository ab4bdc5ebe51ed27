//! Distributions of message lengths: the data, its reduction, drawing, and the wire overhead.

use std::fmt;
use std::str::FromStr;

use crate::message::HEADER_LEN;
use crate::rng::Rng;

/// Longest message of the benchmark in bytes: Homa's limit, applied to TCP too so that protocols are comparable.
pub const MAX_MESSAGE: u32 = 1_000_000;

/// Cumulative distributions, one row a point: workload, length in bytes, fraction of messages not longer.
const DATA: &str = include_str!("../data/workloads.csv");
/// The named workloads, in the order of the data.
const NAMES: [&str; 6] = ["w1", "w2", "w3", "w4", "w5", "starve"];

/// What `--workload` names: a distribution of the embedded data, or one fixed length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// One of the distributions; the value is its index in the list of names.
    Named(&'static str),
    /// Every message has this length in bytes.
    Fixed(u32),
}

/// `--workload` is neither a known name nor a length.
#[derive(Debug, thiserror::Error)]
#[error("unknown workload `{0}`: expected one of {names}, or a message length in bytes (1 to 268435456)", names = NAMES.join(", "))]
pub struct UnknownWorkload(String);

impl FromStr for Workload {
    type Err = UnknownWorkload;

    fn from_str(text: &str) -> Result<Self, UnknownWorkload> {
        if let Some(name) = NAMES.iter().find(|n| **n == text) {
            return Ok(Self::Named(name));
        }
        match text.parse::<u32>() {
            Ok(len) if len > 0 && len <= crate::message::MAX_LEN => Ok(Self::Fixed(len)),
            _ => Err(UnknownWorkload(text.to_owned())),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Fixed(len) => write!(f, "{len}"),
        }
    }
}

/// How a distribution is thinned before use, and cut.
#[derive(Clone, Copy, Debug)]
pub struct Reduction {
    /// A point is kept if it adds at least this fraction of messages; 0 keeps all points.
    pub min_fraction: f64,
    /// A point is kept, too, if the next one is longer than the last kept one by more than this factor.
    pub max_ratio: f64,
    /// Longer messages are cut to this length in bytes.
    pub max_len: u32,
}

impl Default for Reduction {
    /// The values of the original benchmark; with them the published means and rates hold.
    fn default() -> Self {
        Self { min_fraction: 0.0025, max_ratio: 1.2, max_len: MAX_MESSAGE }
    }
}

/// One step of a distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Message length in bytes.
    pub len: u32,
    /// Fraction of all messages that are not longer, 0 to 1.
    pub fraction: f64,
}

/// A discrete distribution of message lengths: points with rising length and fraction, the last fraction is 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    points: Vec<Point>,
}

impl Distribution {
    /// The lengths that `workload` draws after `reduction`; a fixed length is taken as it is.
    pub fn new(workload: Workload, reduction: Reduction) -> Self {
        match workload {
            Workload::Fixed(len) => Self { points: vec![Point { len, fraction: 1.0 }] },
            Workload::Named(name) => Self { points: reduce(&raw_points(name), reduction) },
        }
    }

    /// The distribution with these points: rising lengths and fractions, of which the last is taken as 1.
    ///
    /// # Panics
    /// If there are no points.
    pub fn from_points(mut points: Vec<Point>) -> Self {
        points.last_mut().expect("a distribution has points").fraction = 1.0;
        Self { points }
    }

    /// A length by inverse CDF: the first point whose fraction is at least `u` (in [0, 1)).
    pub fn at(&self, u: f64) -> u32 {
        let index = self.points.partition_point(|p| p.fraction < u);
        self.points[index.min(self.points.len() - 1)].len
    }

    /// A random message length in bytes, at least that of the message header.
    pub fn draw(&self, rng: &mut Rng) -> u32 {
        self.at(rng.fraction()).max(HEADER_LEN as u32)
    }

    /// The points, by rising length.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Mean length in bytes of the messages as drawn.
    pub fn mean(&self) -> f64 {
        self.expect(f64::from)
    }

    /// Bytes on the wire beyond the messages' own, as a share of the message bytes, at this MTU in bytes.
    ///
    /// The model counts packet framing and headers and Homa's grants, no acknowledgements and no losses.
    pub fn overhead(&self, mtu: u32) -> f64 {
        self.expect(|len| wire_overhead(len, mtu) as f64) / self.mean()
    }

    fn expect(&self, value: impl Fn(u32) -> f64) -> f64 {
        let mut below = 0.0;
        let mut sum = 0.0;
        for p in &self.points {
            sum += (p.fraction - below) * value(p.len);
            below = p.fraction;
        }
        sum
    }
}

/// Least MTU in bytes for which the overhead model is defined: room for headers and one byte of message.
pub const MIN_MTU: u32 = IP_AND_HOMA + 1;

/// IP and Homa data header in each packet, in bytes.
const IP_AND_HOMA: u32 = 20 + 48;
/// Preamble, Ethernet header, IP header, checksum and gap around each packet, in bytes.
const FRAMING: u64 = 8 + 18 + 20 + 16;
/// Bytes that a sender may transmit before the first grant, in the model.
const UNSCHEDULED: u64 = 70_000;
/// Bytes that one grant allows, in the model.
const GRANT_STEP: u64 = 10_000;

/// Bytes on the wire, beyond its own, that a message of `len` bytes costs; `mtu` is at least [`MIN_MTU`].
fn wire_overhead(len: u32, mtu: u32) -> u64 {
    let per_packet = u64::from(mtu.max(MIN_MTU) - IP_AND_HOMA);
    let packets = u64::from(len).div_ceil(per_packet);
    let grants = u64::from(len).saturating_sub(UNSCHEDULED).div_ceil(GRANT_STEP);
    packets * (FRAMING + 48) + grants * (FRAMING + 33)
}

fn raw_points(name: &str) -> Vec<Point> {
    DATA.lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split(',');
            (fields.next() == Some(name)).then(|| Point {
                len: fields.next().and_then(|f| f.parse().ok()).expect("embedded data: a length"),
                fraction: fields.next().and_then(|f| f.parse().ok()).expect("embedded data: a fraction"),
            })
        })
        .collect()
}

/// Thins the points; the weight of a skipped point goes to the next kept one. The last point always stays.
fn reduce(raw: &[Point], by: Reduction) -> Vec<Point> {
    let mut kept: Vec<Point> = Vec::new();
    for (i, point) in raw.iter().enumerate() {
        if point.len >= by.max_len {
            kept.push(Point { len: by.max_len, fraction: 1.0 });
            break;
        }
        let Some(next) = raw.get(i + 1).filter(|_| point.fraction < 1.0) else {
            kept.push(Point { len: point.len, fraction: 1.0 });
            break;
        };
        let keep = kept.last().is_none_or(|last| {
            point.fraction - last.fraction >= by.min_fraction
                || by.max_ratio * f64::from(last.len) < f64::from(next.len)
        });
        if keep {
            kept.push(*point);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Distribution {
        Distribution::new(name.parse().unwrap(), Reduction::default())
    }

    /// Means as drawn and points kept, as published for the original's tables.
    #[test]
    fn reduced_distributions_have_the_published_means_and_sizes() {
        for (name, mean, points) in [
            ("w1", 192.8, 157),
            ("w2", 440.8, 95),
            ("w3", 2567.7, 113),
            ("w4", 61008.1, 225),
            ("w5", 386161.4, 109),
            ("starve", 526315.8, 10),
        ] {
            let d = named(name);
            assert_eq!(format!("{:.1}", d.mean()), format!("{mean:.1}"), "{name}");
            assert_eq!(d.points().len(), points, "{name}");
        }
    }

    #[test]
    fn wire_overhead_matches_the_published_ratios() {
        for (name, at_1500, at_3000, at_9000) in [
            ("w1", 0.587, 0.574, 0.571),
            ("w2", 0.282, 0.262, 0.254),
            ("w3", 0.114, 0.078, 0.056),
            ("w4", 0.085, 0.046, 0.021),
            ("w5", 0.085, 0.046, 0.021),
        ] {
            let d = named(name);
            for (mtu, expected) in [(1500, at_1500), (3000, at_3000), (9000, at_9000)] {
                assert_eq!(format!("{:.3}", d.overhead(mtu)), format!("{expected:.3}"), "{name} at MTU {mtu}");
            }
        }
    }

    #[test]
    fn points_rise_and_end_at_one() {
        for name in NAMES {
            let d = named(name);
            assert!(d.points().windows(2).all(|w| w[0].len < w[1].len && w[0].fraction <= w[1].fraction), "{name}");
            let last = d.points().last().unwrap();
            assert_eq!(last.fraction, 1.0, "{name}");
            assert!(last.len <= MAX_MESSAGE, "{name}");
            assert!(d.points()[0].len > 0, "{name}");
        }
        assert_eq!(named("w1").points().last().unwrap().len, 100_000, "the longest of w1 is kept");
    }

    #[test]
    fn zero_fraction_keeps_every_point_up_to_the_cut() {
        let all = Reduction { min_fraction: 0.0, ..Reduction::default() };
        assert_eq!(Distribution::new(Workload::Named("w1"), all).points().len(), 300);
    }

    #[test]
    fn drawing_is_the_inverse_of_the_distribution() {
        let d = named("starve");
        assert_eq!(d.at(0.0), 100_000);
        assert_eq!(d.at(d.points()[2].fraction), d.points()[2].len);
        assert_eq!(d.at(d.points()[2].fraction + 1e-9), d.points()[3].len);
        assert_eq!(d.at(0.999_999_9), 1_000_000);
    }

    #[test]
    fn drawn_lengths_have_the_mean_of_the_distribution() {
        let d = named("w4");
        let mut rng = Rng::streams(1, None, 1).remove(0);
        let n = 400_000;
        let mean = (0..n).map(|_| f64::from(d.draw(&mut rng))).sum::<f64>() / f64::from(n);
        assert!((mean / d.mean() - 1.0).abs() < 0.02, "{mean}");
    }

    #[test]
    fn draws_are_never_shorter_than_the_header() {
        let d = Distribution::new(Workload::Fixed(3), Reduction::default());
        assert_eq!(d.draw(&mut Rng::streams(1, None, 1).remove(0)), HEADER_LEN as u32);
    }

    #[test]
    fn names_parse_and_others_are_refused() {
        assert_eq!("w3".parse::<Workload>().unwrap(), Workload::Named("w3"));
        assert_eq!("500000".parse::<Workload>().unwrap(), Workload::Fixed(500_000));
        for bad in ["w6", "", "0", "-1", "12x", "W1", "4294967295"] {
            let error = bad.parse::<Workload>().unwrap_err().to_string();
            assert!(error.contains("w1, w2"), "{error}");
        }
    }
}
