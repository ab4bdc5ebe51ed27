//! `grantlock`: how long do cores wait for the lock of the grant state? Source: timetrace.md 5.8.
//!
//! How long the lock was held is known only while cores wait for it: from the end of one core's wait, while others still
//! wait, to the end of the next core's wait.

use std::collections::BTreeMap;

use super::samples::{share, us};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::Model;
use crate::stats::micros;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct GrantLock;

/// Lines of the lists of longest waits and holds.
const LONGEST: usize = 10;
/// Numbers of the grant lock in records: since 2025, and before.
const GRANT: [u32; 2] = [1, 2];

impl Analyzer for GrantLock {
    fn about(&self) -> &'static About {
        &About {
            name: "grantlock",
            question: "How long do cores wait for the lock of the grant state, and hold it?",
            source: "timetrace.md 5.8",
            needs: Needs::All(&[Kind::LockWait]),
            uses: &[],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        self.about().kinds()
    }

    fn run(&self, model: &Model, _: &Options) -> Report {
        let mut rows: Vec<(f64, Vec<Cell>)> = Vec::new();
        let (mut waits, mut holds): (Vec<Span>, Vec<Span>) = (Vec::new(), Vec::new());
        for (node, first, last) in model.spans() {
            let trace = &model.traces[usize::from(node)];
            let offset = trace.span.map_or(0, |(own, _)| first - own);
            let mut waiting: BTreeMap<u16, i64> = BTreeMap::new();
            let mut by_core: BTreeMap<u16, i64> = BTreeMap::new();
            let mut holder: Option<(u16, i64)> = None;
            let mut held: Vec<Span> = Vec::new();
            for record in trace.records.iter().filter(|r| r.kind == Kind::LockWait && GRANT.contains(&r.b)) {
                let (core, time) = (record.core, record.time + offset);
                if record.a == 0 {
                    waiting.insert(core, time);
                    continue;
                }
                if let Some(since) = waiting.remove(&core) {
                    *by_core.entry(core).or_default() += time - since;
                    waits.push(Span { start: since, end: time, node, core });
                }
                if let Some((core, since)) = holder.take() {
                    held.push(Span { start: since, end: time, node, core });
                }
                holder = (!waiting.is_empty()).then_some((core, time));
            }
            let elapsed = (last - first) as f64;
            let sum: i64 = by_core.values().sum();
            let most = by_core.iter().max_by_key(|(_, wait)| **wait);
            let hold: i64 = held.iter().map(Span::time).sum();
            let longest = held.iter().max_by_key(|h| h.time());
            let average = (!held.is_empty()).then(|| micros(hold) / held.len() as f64);
            rows.push((
                sum as f64 / elapsed.max(1.0),
                vec![
                    model.name(node).into(),
                    share(sum as f64, elapsed),
                    most.map(|(core, _)| *core).into(),
                    most.map_or(Cell::None, |(_, wait)| share(*wait as f64, elapsed)),
                    share(hold as f64, elapsed),
                    average.into(),
                    us(longest.map(Span::time)),
                    us(longest.map(|h| h.end)),
                ],
            ));
            holds.extend(held);
        }
        let mut table = Table::new("lock", "The grant lock:")
            .column("Node", Unit::None, "")
            .column("Blocked", Unit::None, "cores that wait for it, mean")
            .decimals(3)
            .column("MaxCore", Unit::None, "the core that waits most")
            .column("MaxBlk", Unit::Share, "share of time that it waits")
            .column("HoldFrac", Unit::Share, "share of time that it is known to be held while others wait")
            .column("AvgHold", Unit::Us, "")
            .column("MaxHold", Unit::Us, "")
            .column("MaxTime", Unit::Us, "end of the longest");
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
        rows.into_iter().for_each(|(_, cells)| {
            table.row(cells);
        });
        Report::of([
            table,
            list(model, "waits", "Longest waits:", waits),
            list(model, "holds", "Longest times that it was held:", holds),
        ])
    }
}

/// A wait, or a time that the lock was held.
#[derive(Clone, Copy)]
struct Span {
    start: i64,
    end: i64,
    node: u16,
    core: u16,
}

impl Span {
    fn time(&self) -> i64 {
        self.end - self.start
    }
}

fn list(model: &Model, name: &str, title: &str, mut spans: Vec<Span>) -> Table {
    let mut table = Table::new(name, title)
        .column("Start", Unit::Us, "")
        .decimals(3)
        .column("Time", Unit::Us, "")
        .column("Node", Unit::None, "")
        .column("Core", Unit::None, "");
    spans.sort_by_key(|s| (std::cmp::Reverse(s.time()), s.start));
    for s in spans.into_iter().take(LONGEST) {
        table.row([us(Some(s.start)), us(Some(s.time())), model.name(s.node).into(), s.core.into()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::Traffic;

    #[test]
    fn waits_and_holds_are_those_of_the_events() {
        let mut traffic = Traffic::new(1);
        traffic.event(0, 0, 0.0, "homa_softirq starting").event(0, 0, 100.0, "homa_softirq starting");
        let mut lock = |core, at, what: &str, name: &str| {
            traffic.event(0, core, at, format!("{what} wait for {name} lock"));
        };
        lock(1, 10.0, "beginning", "grant");
        lock(2, 12.0, "beginning", "grant");
        lock(1, 20.0, "ending", "grant");
        // Core 1 holds it from 20 to 25, while core 2 waits.
        lock(2, 25.0, "ending", "grant");
        lock(3, 30.0, "beginning", "peer");
        lock(3, 90.0, "ending", "peer");
        let report = GrantLock.run(&traffic.model(), &Options::default());
        let table = report.table("lock").unwrap();
        let number = |key: &str| table.get(0, key).number().unwrap();
        assert_eq!([number("blocked"), number("max_core"), number("max_blk_share")], [0.23, 2.0, 0.13]);
        assert_eq!([number("hold_frac_share"), number("avg_hold_us"), number("max_time_us")], [0.05, 5.0, 25.0]);
        assert_eq!(report.table("waits").unwrap().rows.len(), 2, "another lock is not counted");
    }
}
