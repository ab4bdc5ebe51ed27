//! `nictx`: how does the NIC's throughput depend on what it holds? Source: timetrace.md 5.22.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;

use super::intervals::{self, Field};
use super::owned;
use super::plot::{Mark, Plot};
use super::samples::kb;
use super::steps::{State, Steps, flow};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::Model;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct NicTx;

impl Analyzer for NicTx {
    fn about(&self) -> &'static About {
        &About {
            name: "nictx",
            question: "How does a NIC's throughput depend on the queues, bytes and frames that it holds?",
            source: "timetrace.md 5.22",
            needs: Needs::All(&[Kind::NicData, Kind::FreeTxSkb]),
            uses: &[Kind::SendData, Kind::IpXmit, Kind::TcpNic, Kind::TcpFree],
            options: &["interval"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut steps: Vec<Step> = Vec::new();
        let mut trends = Vec::new();
        let series = intervals::collect(model, options, None, &[Field::TxQdisc]);
        let mut all_owned = owned::collect(model);
        for (node, first, last) in model.spans() {
            let owned = std::mem::take(&mut all_owned[usize::from(node)]);
            let queues: FxHashSet<u32> = owned.iter().map(|o| o.queue).collect();
            let grid = Steps::of((first, last), options.interval, Steps::most(model, node, 4 + queues.len()));
            let (mut bytes, mut packets) = (State::new(&grid), State::new(&grid));
            let mut queues: BTreeMap<u32, State> = BTreeMap::new();
            let (mut freed, mut queued) = (vec![0.0; grid.count], vec![0.0; grid.count]);
            for o in &owned {
                bytes.add(&grid, o.from, o.to, o.wire);
                packets.add(&grid, o.from, o.to, 1.0);
                queues.entry(o.queue).or_insert_with(|| State::new(&grid)).add(&grid, o.from, o.to, o.wire);
                if o.free {
                    flow(&mut freed, &grid, o.to, o.wire);
                }
                if o.nic {
                    flow(&mut queued, &grid, o.from, o.wire);
                }
            }
            let (bytes, packets) = (bytes.finish(), packets.finish());
            let queues: Vec<Vec<f64>> = queues.into_values().map(State::finish).collect();
            let qdisc = series.iter().find(|s| s.node == node);
            for k in 1..grid.count {
                // What is there at the begin of the step, and what happens in it.
                let rate = |bytes: f64| bytes * 8.0 / grid.length as f64;
                steps.push(Step {
                    queues: queues.iter().filter(|q| q[k - 1] > 0.0).count() as f64,
                    kb: kb(bytes[k - 1]),
                    packets: packets[k - 1],
                    qdisc_kb: qdisc.and_then(|s| s.get(Field::TxQdisc, s.steps.at(grid.end(k - 1))?)).map(kb),
                    out: rate(freed[k]),
                    input: rate(queued[k]),
                });
            }
            if options.plot.is_some() {
                let time = |k: usize| grid.end(k) as f64 / 1000.0;
                let most = |k: usize| queues.iter().map(|q| q[k]).fold(0.0, f64::max);
                let name = model.name(node);
                let total = (0..grid.count).map(|k| (time(k), kb(bytes[k]))).collect();
                let fullest = (0..grid.count).map(|k| (time(k), kb(most(k)))).collect();
                trends.push((name, total, fullest));
            }
        }
        let mut report = Report::of([table(&steps)]);
        if options.plot.is_some() {
            report.plots = plots(&steps, trends);
        }
        report
    }
}

/// A step of a node.
struct Step {
    queues: f64,
    kb: f64,
    packets: f64,
    qdisc_kb: Option<f64>,
    out: f64,
    input: f64,
}

/// Mean and spread of the rate for each number.
fn curve(steps: &[Step], of: impl Fn(&Step) -> f64, width: f64) -> Vec<(f64, usize, f64, f64)> {
    let mut groups: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    for step in steps.iter().filter(|s| s.packets > 0.0) {
        groups.entry((of(step) / width).floor() as i64).or_default().push(step.out);
    }
    let stats = |(group, rates): (i64, Vec<f64>)| {
        let n = rates.len() as f64;
        let mean = rates.iter().sum::<f64>() / n;
        let variance = rates.iter().map(|r| (r - mean) * (r - mean)).sum::<f64>() / n;
        (group as f64 * width, rates.len(), mean, variance.sqrt())
    };
    groups.into_iter().map(stats).collect()
}

fn table(steps: &[Step]) -> Table {
    let mut table =
        Table::new("rates", "Bytes given back in a step, by the transmit queues that hold frames at its begin:")
            .column("Queues", Unit::None, "")
            .column("Steps", Unit::None, "")
            .column("Gbps", Unit::Gbps, "mean")
            .column("Stdev", Unit::Gbps, "");
    for (queues, count, mean, stdev) in curve(steps, |s| s.queues, 1.0) {
        table.row([(queues as u64).into(), count.into(), mean.into(), Cell::from(stdev)]);
    }
    table
}

type Points = Vec<(f64, f64)>;

fn plots(steps: &[Step], trends: Vec<(String, Points, Points)>) -> Vec<Plot> {
    let new = |name: &str, title: &str, x, y, mark, curves| Plot {
        name: name.into(),
        title: title.into(),
        x,
        y,
        log: false,
        mark,
        curves,
    };
    let mut out = Vec::new();
    type Of = fn(&Step) -> f64;
    let versus: [(&str, &str, &'static str, Of, f64); 3] = [
        ("nictx_vs_queues", "Rate by queues in use", "queues", |s| s.queues, 1.0),
        ("nictx_vs_kb", "Rate by KB in the NIC", "KB", |s| s.kb, 20.0),
        ("nictx_vs_pkts", "Rate by frames in the NIC", "frames", |s| s.packets, 5.0),
    ];
    for (name, title, x, of, width) in versus {
        let stats = curve(steps, of, width);
        let line = |f: fn(f64, f64) -> f64| stats.iter().map(|(x, _, mean, dev)| (*x, f(*mean, *dev))).collect();
        let curves = vec![
            ("mean".into(), line(|m, _| m)),
            ("mean + stdev".into(), line(|m, d| m + d)),
            ("mean - stdev".into(), line(|m, d| (m - d).max(0.0))),
        ];
        out.push(new(name, title, x, "Gbps given back", Mark::Lines, curves));
    }
    type Maybe = fn(&Step) -> Option<f64>;
    let cdfs: [(&str, &str, &'static str, Maybe); 6] = [
        ("nictx_tput_cdf", "Rate given back", "Gbps", |s| Some(s.out)),
        ("nictx_queues_cdf", "Queues in use", "queues", |s| Some(s.queues)),
        ("nictx_kb_cdf", "Bytes in the NIC", "KB", |s| Some(s.kb)),
        ("nictx_qdisc_cdf", "Bytes between IP and NIC", "KB", |s| s.qdisc_kb),
        ("nictx_pkts_cdf", "Frames in the NIC", "frames", |s| Some(s.packets)),
        ("nictx_input_cdf", "Rate to the NIC", "Gbps", |s| Some(s.input)),
    ];
    for (name, title, x, of) in cdfs {
        let mut values: Vec<f64> = steps.iter().filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        let n = values.len() as f64;
        let step = values.len().div_ceil(2000).max(1);
        let points = values.iter().enumerate().step_by(step).map(|(i, v)| (*v, (i + 1) as f64 / n)).collect();
        out.push(new(name, title, x, "share of steps", Mark::Steps, vec![("all nodes".into(), points)]));
    }
    for (name, title, second) in [
        ("nictx_qtrend", "Bytes in each NIC", false),
        ("nictx_maxqtrend", "Bytes in the fullest queue of each NIC", true),
    ] {
        let curves =
            trends.iter().map(|(node, all, most)| (node.clone(), if second { most.clone() } else { all.clone() }));
        out.push(new(name, title, "time (us)", "KB", Mark::Steps, curves.collect()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn rates_by_queues_in_use() {
        let mut traffic = Traffic::new(2);
        traffic.event(0, 0, 0.0, "homa_softirq starting").event(0, 0, 1000.0, "homa_softirq starting");
        // In the NIC at the ends of steps at 50, 150, 250, ...; given back in the step after.
        for i in 0..5u32 {
            let at = 100.0 * f64::from(i) + 40.0;
            traffic.packet((0, 1), 10 + 2 * i, (0, 1170, 1170), at, Delays { free: 20.0, ..Delays::USUAL });
        }
        let options = Options { plot: Some("x".into()), ..Options::default() };
        let report = NicTx.run(&traffic.model(), &options);
        let table = report.table("rates").unwrap();
        let row: Vec<f64> = table.rows[0].cells.iter().filter_map(Cell::number).collect();
        assert_eq!(row, [1.0, 5.0, 1250.0 * 8.0 / 50_000.0, 0.0]);
        assert_eq!((table.rows.len(), report.plots.len()), (1, 11));
    }
}
