//! Plots that are made of what analyses found, for `--plot` and `tthoma report`: delays as distributions, and what waits over
//! time.

use super::plot::{Mark, Plot};
use super::run::Finding;
use super::table::Table;
use crate::model::{Group, Journey, Model, Phase};
use crate::stats::micros;

/// Points of a curve at most.
const POINTS: usize = 1500;

/// Adds the plots of what was found.
pub(super) fn add(findings: &mut [Finding], model: &Model) {
    for finding in findings {
        let name = finding.about.name;
        let Some(report) = &mut finding.report else { continue };
        let plots = match name {
            "delay" => delays(model),
            "softirq-backlog" => {
                let title = "Packets that wait for SoftIRQ, most in each step";
                over_time(&report.tables, "softirq_backlog_", "tot_pk", title, "packets")
            }
            "net" => over_time(&report.tables, "net_backlog_", "total_kb", "Bytes on their way to each node", "KB"),
            "activity" => [
                over_time(
                    &report.tables,
                    "activity_",
                    "rx_gt_kb",
                    "Granted bytes that have not come, by receiver",
                    "KB",
                ),
                over_time(&report.tables, "activity_", "rx_gbps", "Message bytes received", "Gbps"),
            ]
            .concat(),
            _ => Vec::new(),
        };
        report.plots.extend(plots);
    }
}

/// How many packets took longer than each time, by group; a curve for each phase.
fn delays(model: &Model) -> Vec<Plot> {
    let phases = [Phase::Xmit, Phase::Net, Phase::Ring, Phase::SoftIrq, Phase::Total];
    let plot = |group: Group| {
        let journeys = || model.data().chain(model.grants()).filter(|j: &Journey<'_>| j.group() == group);
        let curve = |phase: Phase| {
            let mut samples: Vec<i64> = journeys().filter_map(|j| j.sample(&model.clock, phase)).collect();
            samples.sort_unstable();
            (phase.title().to_string(), longer(&samples))
        };
        let curves: Vec<_> = phases.into_iter().map(curve).filter(|(_, points)| !points.is_empty()).collect();
        (!curves.is_empty()).then(|| Plot {
            name: format!("delay_{}", group.key()),
            title: format!("Share of packets that took longer: {}", super::delay_tables::title(group.key())),
            x: "us",
            y: "share",
            log: true,
            mark: Mark::Steps,
            curves,
        })
    };
    Group::ALL.into_iter().filter_map(plot).collect()
}

/// The share of ascending samples that are longer than each of them; all of the longest, some of the others.
fn longer(samples: &[i64]) -> Vec<(f64, f64)> {
    let n = samples.len();
    let share = |i: usize| (n - 1 - i) as f64 / n as f64;
    let step = (n / POINTS).max(1);
    let shown = |i: &usize| i.is_multiple_of(step) || n - i < 200;
    let mut points: Vec<(f64, f64)> = (0..n).filter(shown).map(|i| (micros(samples[i]), share(i))).collect();
    if let Some(last) = points.last_mut() {
        // Of the longest nothing is left to see on a logarithmic axis.
        last.1 = 0.5 / n as f64;
    }
    points
}

/// A column of the time series of all nodes; none if nobody knows it or it is always 0.
fn over_time(tables: &[Table], prefix: &str, key: &str, title: &'static str, y: &'static str) -> Vec<Plot> {
    let curve = |table: &Table| {
        let place = |key: &str| table.columns.iter().position(|c| c.key == key);
        let (time, value) = (place("time_us")?, place(key)?);
        let points: Vec<(f64, f64)> = (table.rows.iter())
            .filter_map(|row| Some((row.cells[time].number()?, row.cells[value].number()?)))
            .collect();
        Some((table.node.clone()?, points))
    };
    let series = tables.iter().filter(|t| t.series && t.name.starts_with(prefix));
    let curves: Vec<(String, Vec<(f64, f64)>)> = series.filter_map(curve).collect();
    if curves.iter().flat_map(|(_, points)| points).all(|(_, y)| *y == 0.0) {
        return Vec::new();
    }
    let name = format!("{prefix}{key}");
    vec![Plot { name, title: title.into(), x: "time (us)", y, log: false, mark: Mark::Steps, curves }]
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Options, Run, find};
    use super::*;
    use crate::testing::{Scenario, Steps};

    #[test]
    fn delays_and_backlogs_are_drawn_if_plots_are_wanted() {
        let mut scenario = Scenario::new(2);
        let steps = Steps { unscheduled: 10_000, ..Steps::default() };
        for i in 0..20u32 {
            scenario.rpc(f64::from(i) * 200.0, (0, 1), 100 + 2 * i, (60_000, 100), &steps);
        }
        let run = |plot: Option<PathBuf>| {
            let options = Options { plot, ..Options::default() };
            let model = scenario.model(&options);
            let all = ["delay", "softirq-backlog", "activity", "net"].map(|name| find(name).unwrap());
            let run = Run::new(&model, &[], &all, &options);
            run.findings.into_iter().filter_map(|f| f.report).flat_map(|r| r.plots).collect::<Vec<Plot>>()
        };
        let plots = run(Some("unused".into()));
        let names: Vec<&str> = plots.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "delay_short",
                "delay_long",
                "delay_grants",
                "softirq_backlog_tot_pk",
                "activity_rx_gt_kb",
                "activity_rx_gbps",
                "net_backlog_total_kb"
            ]
        );
        // The net takes 5 us for the first packet of a frame: all but one packet took no less.
        let net = &plots[0].curves.iter().find(|(name, _)| name == "Net").unwrap().1;
        assert_eq!((net[0], net.len()), ((5.0, 19.0 / 20.0), 20));
        assert!(run(None).is_empty());
    }

    #[test]
    fn tails_are_whole() {
        let tail = longer(&(0..10_000).collect::<Vec<i64>>());
        assert!(tail.len() < 2 * POINTS);
        assert_eq!(tail[tail.len() - 2..], [(9.998, 1e-4), (9.999, 0.5e-4)]);
    }
}
