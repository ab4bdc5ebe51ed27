//! `txqstop`: how often does the byte limit stop transmit queues? Source: timetrace.md 5.43.
//!
//! A queue that goes on without having been stopped in the trace was stopped since its begin.

use rustc_hash::FxHashMap;

use super::samples::columns;
use super::sweep::Sweep;
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::Model;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct TxQStop;

impl Analyzer for TxQStop {
    fn about(&self) -> &'static About {
        &About {
            name: "txqstop",
            question: "How often, and how many at once, are transmit queues stopped by the byte limit?",
            source: "timetrace.md 5.43",
            needs: Needs::Any(&[Kind::TxqStop, Kind::TxqRestart]),
            uses: &[],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        self.about().kinds()
    }

    fn run(&self, model: &Model, _: &Options) -> Report {
        let mut table = Table::new(
            "stopped",
            "Stopped transmit queues, from the trace's begin to the last such event:",
        )
        .column("Node", Unit::None, "");
        table = columns(table, Unit::Share, &[("Stopped", "share of time with at least one")]);
        table = table.column("Avg", Unit::None, "stopped queues, mean").decimals(3);
        table = columns(
            table,
            Unit::Share,
            &[("Stop1", "share of time with exactly one"), ("Stop2", ""), ("Stop3", ""), ("StopMany", "more")],
        );
        table =
            columns(table, Unit::Bytes, &[("LimitMin", "smallest limit that stopped one"), ("LimitMax", "largest")]);
        for trace in &model.traces {
            let Some((first, _)) = trace.span else { continue };
            let mut since: FxHashMap<u32, i64> = FxHashMap::default();
            let (mut sweep, mut limits, mut last) = (Sweep::default(), None::<(u32, u32)>, None);
            for record in &trace.records {
                match record.kind {
                    Kind::TxqStop => {
                        since.entry(record.a).or_insert(record.time);
                        let (low, high) = limits.unwrap_or((record.b, record.b));
                        limits = Some((low.min(record.b), high.max(record.b)));
                    }
                    Kind::TxqRestart => sweep.lasts(since.remove(&record.a).unwrap_or(first), record.time, 1.0),
                    _ => continue,
                }
                last = Some(record.time);
            }
            let Some(last) = last else {
                table.row([(&trace.node).into()]).note("no txq_stop in this trace");
                continue;
            };
            since.into_values().for_each(|since| sweep.lasts(since, last, 1.0));
            let swept = sweep.run(first, last);
            let mut cells: Vec<Cell> = vec![(&trace.node).into(), swept.any().into(), swept.mean().into()];
            cells.extend((1..5).map(|n| Cell::from(swept.share(n))));
            cells.extend([limits.map(|l| l.0).into(), limits.map(|l| l.1).into()]);
            table.row(cells);
        }
        Report::of([table])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::Traffic;

    #[test]
    fn times_are_those_of_the_events() {
        let mut traffic = Traffic::new(1);
        traffic.event(0, 0, 0.0, "homa_softirq starting").event(0, 0, 900.0, "homa_softirq starting");
        let stop = |q: u32, limit: u32| format!("netdev_tx_sent_queue stopped queue 0x{q:x}: limit {limit}, queued 5");
        let go = |q: u32| format!("netdev_tx_completed_queue restarted queue 0x{q:x}");
        traffic.event(0, 0, 10.0, go(9));
        traffic.event(0, 0, 20.0, stop(1, 500)).event(0, 0, 30.0, stop(2, 700));
        traffic.event(0, 0, 50.0, go(1)).event(0, 0, 100.0, go(2));
        let report = TxQStop.run(&traffic.model(), &Options::default());
        let table = report.table("stopped").unwrap();
        let number = |key: &str| table.get(0, key).number().unwrap();
        assert_eq!([number("stopped_share"), number("stop1_share"), number("stop2_share")], [0.9, 0.7, 0.2]);
        assert_eq!([number("avg"), number("limit_min_bytes"), number("limit_max_bytes")], [1.1, 500.0, 700.0]);
    }
}
