//! Slowdowns and distributions of each protocol, with what was published of them.

use homa_sim::sigcomm18;

use super::Source;
use super::axis::Axis;
use super::chart::{Chart, Point, Series, Style, of_protocol};
use super::label;
use crate::cli::TestbedKind;
use crate::experiment::published;
use crate::report::cdf::complementary;
use crate::report::digest::Digest;
use crate::report::plot::slowdown::{lengths_at_tenths, step_ends, steps};
use crate::report::plot::{Curve, length_label};
use crate::report::slowdown::Optimal;

/// All charts, empty if nothing was measured.
pub fn charts(run: &Source<'_>) -> Vec<Chart> {
    let curves = curves(run);
    if curves.is_empty() {
        return Vec::new();
    }
    let mut all = by_length(run, &curves);
    all.push(slowdowns(&curves));
    all.push(short(run));
    all
}

fn curves<'a>(run: &'a Source<'_>) -> Vec<Curve<'a>> {
    let measured = run.measured.iter().filter(|(_, measured)| measured.service.samples > 0);
    measured.map(|(protocol, measured)| Curve { protocol, digest: &measured.service, optimal: run.optimal }).collect()
}

/// P99 and median by message length; the axis is linear in the number of messages.
fn by_length(run: &Source<'_>, curves: &[Curve<'_>]) -> Vec<Chart> {
    let ends = step_ends(curves);
    let lengths = lengths_at_tenths(curves);
    let tenths =
        lengths.iter().enumerate().map(|(tenth, length)| (tenth as f64 / 10.0, length_label(*length))).collect();
    let x = Axis::shares("message length, bytes", tenths);
    let published = sigcomm(run, curves);
    let one = |name: &str, tail: bool| {
        let mut series: Vec<_> = curves
            .iter()
            .map(|curve| {
                let (p50, p99) = steps(curve, &ends);
                let points = if tail { p99 } else { p50 };
                Series { name: label(curve.protocol), style: of_protocol(curve.protocol), points }
            })
            .collect();
        let mut note = "Each tenth of the messages has the same width.".to_owned();
        if let Some((load, bins)) = &published {
            let points = bins.iter().map(|bin| (bin.at, if tail { bin.p99 } else { bin.p50 })).collect();
            series.push(Series { name: "Homa, SIGCOMM 2018".to_owned(), style: Style::Published, points });
            note += &format!(
                " Published: simulations of the SIGCOMM 2018 paper, {} at {:.0} % load: one-way messages between 144 ideal hosts, links \
                 of 10 Gbps, relative to an empty network. The shape may be compared, not the values.",
                run.options.workload,
                100.0 * load
            );
        }
        let y = Axis::log("slowdown", series.iter().flat_map(|series| &series.points).map(|point| point.1));
        Chart { title: format!("{name} by message length"), note, x: x.clone(), y, series, points: Vec::new() }
    };
    vec![one("P99 slowdown", true), one("Median slowdown", false)]
}

/// A published bin at the place of its length among our messages.
struct Bin {
    at: f64,
    p50: f64,
    p99: f64,
}

/// The published curve at the load that is nearest to this run's, if one is near; the load with it.
fn sigcomm(run: &Source<'_>, curves: &[Curve<'_>]) -> Option<(f64, Vec<Bin>)> {
    let load = sigcomm18::LOADS.into_iter().min_by(|a, b| {
        let far = |load: &f64| (load - share(run).unwrap_or(0.0)).abs();
        far(a).total_cmp(&far(b))
    })?;
    if (share(run)? - load).abs() > 0.2 {
        return None;
    }
    let digest = curves.iter().find(|curve| curve.protocol == "homa")?.digest;
    let longest = digest.buckets.last()?.length;
    let bins = sigcomm18::published(load, &run.options.workload);
    let bins: Vec<_> = bins
        .iter()
        .filter(|bin| bin.len <= longest)
        .map(|bin| Bin { at: fraction(digest, bin.len), p50: bin.p50, p99: bin.p99 })
        .collect();
    (!bins.is_empty()).then_some((load, bins))
}

/// Load as a share of the links' rate, if they have one.
fn share(run: &Source<'_>) -> Option<f64> {
    let options = run.options;
    let link = options.link_gbps.or((options.testbed == TestbedKind::Sim).then_some(25.0))?;
    options.load.or(options.gbps.map(|gbps| gbps / link))
}

/// Share of the messages that are not longer.
fn fraction(digest: &Digest, length: u32) -> f64 {
    let buckets = digest.buckets.iter().take_while(|bucket| bucket.length <= length);
    buckets.map(|bucket| bucket.len()).sum::<usize>() as f64 / digest.samples as f64
}

/// Distribution of all slowdowns.
fn slowdowns(curves: &[Curve<'_>]) -> Chart {
    let series = curves.iter().map(|curve| Series {
        name: label(curve.protocol),
        style: of_protocol(curve.protocol),
        points: of_all(curve.digest, curve.optimal),
    });
    distribution(
        "Slowdown of all messages",
        ("slowdown", "share with a larger one"),
        series.collect(),
        Vec::new(),
        String::new(),
    )
}

/// Slowdowns of all messages with the share of them that are larger.
fn of_all(digest: &Digest, optimal: &Optimal) -> Vec<(f64, f64)> {
    let mut all: Vec<u64> = Vec::with_capacity(digest.samples);
    for bucket in &digest.buckets {
        let least = optimal.ns(bucket.length);
        // In thousandths of thousandths, as the distribution takes whole numbers, and gives thousandths.
        all.extend(bucket.times_ns().map(|time| (time as f64 / least * 1e6) as u64));
    }
    all.sort_unstable();
    complementary(all.into_iter()).iter().map(|point| (point.usecs / 1e3, point.fraction)).collect()
}

/// Distribution of the short messages' round-trip times.
fn short(run: &Source<'_>) -> Chart {
    let mut series = Vec::new();
    let mut longest = 0;
    for (protocol, measured) in run.measured {
        let Some(short) = measured.service.short() else { continue };
        longest = longest.max(short.longest);
        let points = complementary(short.times_ns()).iter().map(|point| (point.usecs, point.fraction)).collect();
        series.push(Series { name: label(protocol), style: of_protocol(protocol), points });
    }
    let points = atc21(run);
    let note = if points.is_empty() { String::new() } else { conditions(run) };
    let title = format!("Round-trip time of short messages (the shortest tenth, up to {longest} bytes)");
    distribution(&title, ("round-trip time, us", "share that took longer"), series, points, note)
}

/// Two logarithmic axes: the tail is what matters.
pub fn distribution(title: &str, (x, y): (&str, &str), series: Vec<Series>, points: Vec<Point>, note: String) -> Chart {
    let all = || series.iter().flat_map(|series| &series.points).copied();
    let crosses = || points.iter().map(|point| point.x);
    Chart {
        title: title.to_owned(),
        note,
        x: Axis::log(x, all().map(|point| point.0).chain(crosses())),
        y: Axis::log(y, all().map(|point| point.1).chain([1.0])),
        series,
        points,
    }
}

/// P50 and P99 of short messages that were published for this workload.
fn atc21(run: &Source<'_>) -> Vec<Point> {
    let mut all = Vec::new();
    for (protocol, _) in run.measured {
        for (metric, name, share) in [("short_rtt_p50_us", "P50", 0.5), ("short_rtt_p99_us", "P99", 0.01)] {
            let about = [("protocol", *protocol), ("workload", run.options.workload.as_str())];
            let Some(us) = published::value_of("atc21", metric, &about) else { continue };
            let text = format!("{} {name}, ATC 2021: {us} us", label(protocol));
            all.push(Point { style: of_protocol(protocol), x: us, y: share, text });
        }
    }
    all
}

/// Under which conditions the crosses were measured, and where this run differs.
fn conditions(run: &Source<'_>) -> String {
    let options = run.options;
    let mut differs = Vec::new();
    let mut against = |what: &str, here: String, there: &str| {
        if here != there {
            differs.push(format!("{what} {here} instead of {there}"));
        }
    };
    let machines = if options.testbed == TestbedKind::Sim { "simulated nodes" } else { "nodes" };
    against(machines, options.nodes.to_string(), "40");
    let link = options.link_gbps.or((options.testbed == TestbedKind::Sim).then_some(25.0));
    against("links of", link.map_or_else(|| "no set rate".to_owned(), |gbps| format!("{gbps} Gbps")), "25 Gbps");
    let mtu = options.mtu.or((options.testbed == TestbedKind::Sim).then_some(3000));
    against("MTU", mtu.unwrap_or_else(|| options.mtu()).to_string(), "3000");
    let load = match options.workload.as_str() {
        "w2" => "3.2 Gbps",
        "w3" => "14 Gbps",
        _ => "20 Gbps",
    };
    against("load", format!("{} Gbps", options.gbps.unwrap_or(0.0)), load);
    let differs =
        if differs.is_empty() { "This run has the same".to_owned() } else { format!("Here: {}", differs.join(", ")) };
    format!(
        "Crosses: P50 and P99 of the ATC 2021 paper, 40 machines with links of 25 Gbps, MTU 3000, {load} per node. {differs}."
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::source;
    use super::*;

    #[test]
    fn each_protocol_has_a_curve_in_each_chart() {
        source(|run| {
            let all = charts(run);
            let titles: Vec<_> = all.iter().map(|chart| chart.title.as_str()).collect();
            assert_eq!(titles.len(), 4, "{titles:?}");
            for chart in &all {
                let names: Vec<_> = chart.series.iter().map(|series| series.name.as_str()).collect();
                assert_eq!(names[..2], ["Homa", "TCP"], "{}", chart.title);
                assert!(chart.series.iter().all(|series| series.points.len() > 1));
            }
        });
    }

    #[test]
    fn published_figures_stand_beside_ours_and_say_what_differs() {
        source(|run| {
            let all = charts(run);
            let published: Vec<_> = all[0].series.iter().filter(|series| series.style == Style::Published).collect();
            assert_eq!(published.len(), 1, "w4 at 80 % load was published");
            assert!(
                all[0].note.contains("80 % load") && published[0].points.iter().all(|(x, _)| (0.0..=1.0).contains(x))
            );
            // Homa's and TCP's P50 and P99 of w4.
            let crosses: Vec<_> = all[3].points.iter().map(|point| point.x).collect();
            assert_eq!(crosses, [46.8, 109.3, 353.1, 2113.1]);
            assert!(all[3].note.contains("Here: simulated nodes 3 instead of 40"), "{}", all[3].note);
        });
    }

    #[test]
    fn slowdowns_are_those_of_all_messages() {
        source(|run| {
            let digest = &run.measured[0].1.service;
            let points = of_all(digest, &Optimal::fixed(1.0, f64::INFINITY));
            assert_eq!((points[0], points.last().unwrap().0), ((1.0, 0.99), 100.0));
        });
    }
}
