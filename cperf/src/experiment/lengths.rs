//! Times and slowdowns of each message length, and of short messages: the originals' column files and plots.
//! Source: cperf.md 3.7 to 3.9.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::chart::{self, Curve, Mark};
use super::outcome::Outcome;
use super::plan::{Plan, Point, describe};
use super::tables::{self, Measured};
use crate::report::cdf;
use crate::report::slowdown::Optimal;

/// What a measurement's plots are made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// In order of length.
    pub lengths: Vec<Length>,
    /// Longest of the short messages, bytes.
    pub short_longest_bytes: Option<u32>,
    /// Complementary distribution of their times: us, and the share of them that took longer.
    pub short: Vec<(f64, f64)>,
}

/// All messages of one length. Names are those of the columns of `.data` files.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Length {
    /// Bytes.
    pub length: u32,
    /// Share of all messages that are not longer.
    pub cum_frac: f64,
    /// Messages.
    pub samples: usize,
    /// P50, P99 and P99.9 of their times, us.
    pub times_us: [f64; 3],
    /// The same of their slowdowns.
    pub slowdowns: [f64; 3],
}

impl Curves {
    /// Of a measurement.
    pub fn new(outcome: &Outcome, optimal: &Optimal) -> Self {
        let digest = outcome.digest(|sample| sample.service_ns);
        let mut seen = 0;
        let lengths = digest.buckets.iter().map(|bucket| {
            seen += bucket.len();
            let least = optimal.ns(bucket.length);
            let times = [(1, 2), (99, 100), (999, 1000)].map(|(num, den)| bucket.percentile_ns(num, den) as f64);
            Length {
                length: bucket.length,
                cum_frac: seen as f64 / digest.samples as f64,
                samples: bucket.len(),
                times_us: times.map(|time| time / 1e3),
                slowdowns: times.map(|time| time / least),
            }
        });
        let lengths = lengths.collect();
        let short = digest.short();
        let points = short.as_ref().map(|short| cdf::complementary(short.times_ns())).unwrap_or_default();
        Self {
            lengths,
            short_longest_bytes: short.map(|short| short.longest),
            short: points.into_iter().map(|point| (point.usecs, point.fraction)).collect(),
        }
    }
}

/// Names and texts of the column files of all points that have a result, as the originals have them.
pub fn data_files(measured: &[Measured<'_>]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for (point, result) in measured {
        let Some(result) = result.as_ref().filter(|result| !result.curves.lengths.is_empty()) else { continue };
        let (name, curves) = (file_name(point), &result.curves);
        let mut text = format!("# {name}: {}; slowdown {}\n", describe(&point.varied), result.slowdown);
        text += "# length  cum_frac  samples     p50      p99     p999     s50      s99     s999\n";
        for row in &curves.lengths {
            let ([p50, p99, p999], [s50, s99, s999]) = (row.times_us, row.slowdowns);
            let _ = writeln!(
                text,
                " {:7}  {:8.6} {:8} {p50:8.1} {p99:8.1} {p999:8.1} {s50:7.1} {s99:8.1} {s999:8.1}",
                row.length, row.cum_frac, row.samples
            );
        }
        files.push((format!("{name}.data"), text));
        let longest = curves.short_longest_bytes.unwrap_or(0);
        let mut text = format!("# {name}: messages of up to {longest} bytes\n");
        text += "# frac: fraction of messages with a longer round-trip time\n#      usec        frac\n";
        for (usec, frac) in &curves.short {
            let _ = writeln!(text, "{usec:11.3} {frac:11.8}");
        }
        files.push((format!("{name}_cdf.data"), text));
    }
    files
}

/// `homa_w4` with what else varies, and the seed.
fn file_name(point: &Point) -> String {
    let sim = &point.spec.sim;
    let mut name = format!("{}_{}", sim.protocol.name(), sim.workload);
    for (other, value) in point.varied.iter().filter(|(name, _)| name != "protocol" && name != "workload") {
        name += &format!("-{other}_{}", super::plan::text(value));
    }
    name += &format!("-seed_{}", sim.seed);
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}

/// A plot: name of its file without extension, what it shows, its SVG.
pub type Plot = (String, String, String);
/// The least and the most points of a curve worth a plot by length.
const LEAST: usize = 2;
/// More curves than this in one plot cannot be told apart.
const MOST_CURVES: usize = 8;

/// The plots by length and of short messages: one of each kind and workload.
///
/// # Errors
/// A plot cannot be drawn.
pub fn plots(plan: &Plan, measured: &[Measured<'_>]) -> anyhow::Result<Vec<Plot>> {
    let mut workloads: Vec<&str> = plan.points.iter().map(|point| point.spec.sim.workload.as_str()).collect();
    workloads.sort_unstable();
    workloads.dedup();
    let mut all = Vec::new();
    for workload in workloads {
        // One curve a group; of several seeds the first that has a result.
        let of_workload = tables::groups(measured).filter(|group| group[0].0.spec.sim.workload == workload);
        let with_result = of_workload.filter_map(|group| {
            let (point, result) = group.iter().find(|(_, result)| result.is_some())?;
            Some((*point, &result.as_ref()?.curves))
        });
        let curves: Vec<_> = with_result.filter(|(_, curves)| curves.lengths.len() >= LEAST).collect();
        let name = |point: &Point| chart::name(plan, point, "workload");
        for (index, part) in curves.chunks(MOST_CURVES).enumerate() {
            let part_of = if curves.len() > MOST_CURVES { format!("_{}", index + 1) } else { String::new() };
            let mut add = |kind: &str, title: &str, x: &str, y: &str, curves: Vec<Curve>| -> anyhow::Result<()> {
                if let Some(svg) = chart::svg(x, y, &curves)? {
                    all.push((format!("{kind}_{workload}{part_of}"), format!("{title}, {workload}"), svg));
                }
                Ok(())
            };
            let by_length = |of: fn(&Length) -> f64| {
                let curve = |(point, curves): &(&Point, &Curves)| Curve {
                    name: name(point),
                    marks: steps(&curves.lengths, of),
                    published: Vec::new(),
                };
                part.iter().map(curve).collect::<Vec<_>>()
            };
            let x = "messages that are not longer (percent)";
            add("slowdown", "Slowdown by message length, P99", x, "slowdown, P99", by_length(|row| row.slowdowns[1]))?;
            add(
                "slowdown_p50",
                "Slowdown by message length, P50",
                x,
                "slowdown, P50",
                by_length(|row| row.slowdowns[0]),
            )?;
            add("rtt", "Time by message length, P99", x, "P99 (us)", by_length(|row| row.times_us[1]))?;
            let short = part.iter().map(|(point, curves)| Curve {
                name: name(point),
                marks: curves.short.iter().map(|&(x, y)| Mark { x, y, interval: None }).collect(),
                published: Vec::new(),
            });
            let title = "Short messages: share that took longer";
            add("short_cdf", title, "time (us)", "share that took longer", short.collect())?;
        }
    }
    Ok(all)
}

/// A step for each length, as wide as its share of the messages.
fn steps(lengths: &[Length], of: fn(&Length) -> f64) -> Vec<Mark> {
    let mut from = 0.0;
    let mut marks = Vec::new();
    for row in lengths {
        let (y, to) = (of(row), row.cum_frac * 100.0);
        marks.extend([from, to].map(|x| Mark { x, y, interval: None }));
        from = to;
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::super::tables::tests::{measured, plan};
    use super::*;
    use cp_node::samples::Sample;

    fn outcome() -> Outcome {
        let sample = |i: u32| Sample { len: 10 * i, service_ns: u64::from(i) * 1000, due_ns: 0 };
        Outcome { samples: (1..=100).map(sample).collect(), ..Outcome::default() }
    }

    #[test]
    fn rows_are_those_worked_out_by_hand() {
        let curves = Curves::new(&outcome(), &Optimal::fixed(1.0, f64::INFINITY));
        assert_eq!((curves.lengths.len(), curves.short.len(), curves.short_longest_bytes), (100, 10, Some(100)));
        let row = curves.lengths[49];
        assert_eq!((row.length, row.cum_frac, row.samples), (500, 0.5, 1));
        assert_eq!((row.times_us, row.slowdowns), ([50.0; 3], [50.0; 3]));
        assert_eq!(curves.short[4], (5.0, 0.5));
    }

    #[test]
    fn every_result_has_column_files_and_every_workload_plots() {
        let plan = plan();
        let mut all = measured(&plan);
        let curves = Curves::new(&outcome(), &Optimal::fixed(1.0, f64::INFINITY));
        for result in all.iter_mut().filter_map(|(_, result)| result.as_mut()) {
            result.curves = curves.clone();
        }
        let files = data_files(&all);
        assert_eq!(files.len(), 10, "two for each of five results");
        assert_eq!(files[0].0, "homa_w5-gbps_12-seed_1.data");
        assert_eq!(files[0].1.lines().count(), 102);
        assert!(files[1].1.lines().nth(7).unwrap().ends_with("0.50000000"), "{}", files[1].1);
        let plots = plots(&plan, &all).unwrap();
        let names: Vec<_> = plots.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["slowdown_w5", "slowdown_p50_w5", "rtt_w5", "short_cdf_w5"]);
    }
}
