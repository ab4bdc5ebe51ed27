//! `qbytes`: how many bytes of each kind are queued in the network? Source: timetrace.md 5.29.
//!
//! A packet is taken to be in a queue during the last part of its flight: from the time when it would have arrived if it
//! had been as fast as the fastest between the two nodes, until GRO has it. Bytes are those on the wire, in the window that
//! all traces cover.

use super::latency::smallest;
use super::plot::{Mark, Plot};
use super::samples::kb;
use super::sweep::Sweep;
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::{Carries, Flight, Model};
use crate::packets::UNSEEN;
use crate::stats::micros;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct QBytes;

const KINDS: [&str; 4] = ["Grants", "Unsched", "Sched", "Tcp"];
/// Changes of a curve at most.
const POINTS: usize = 20_000;

impl Analyzer for QBytes {
    fn about(&self) -> &'static About {
        &About {
            name: "qbytes",
            question: "How many bytes of each kind are queued in the network, at most and over time?",
            source: "timetrace.md 5.29",
            needs: Needs::Any(&[Kind::NicData, Kind::TcpNic]),
            uses: &[Kind::GroData, Kind::NicGrant, Kind::GroGrant, Kind::TcpGro, Kind::Unsched],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let window = (
            model.spans().map(|(_, first, _)| first).max().unwrap_or(0),
            model.spans().map(|(.., last)| last).min().unwrap_or(0),
        );
        let least = smallest(model);
        let mut nodes: Vec<[Sweep; 4]> = vec![Default::default(); model.traces.len()];
        for f in model.flights().all().filter(|f| f.nic != UNSEEN && f.gro != UNSEEN) {
            let fastest = least.get(&(f.from, f.to)).copied().unwrap_or(0);
            if let Some(node) = nodes.get_mut(usize::from(f.to)) {
                let (kind, bytes) = wire(model, f);
                node[kind].lasts(f.nic + fastest, f.gro, bytes);
            }
        }
        let mut table =
            Table::new("queued", "Most bytes that are queued for each node; in the last line, for all together:")
                .column("Node", Unit::None, "")
                .column("Total", Unit::Kb, "")
                .column("Grants", Unit::Kb, "")
                .column("Unsched", Unit::Kb, "unscheduled data")
                .column("Sched", Unit::Kb, "other data")
                .column("Tcp", Unit::Kb, "");
        let mut all: [Sweep; 4] = Default::default();
        let mut plots = Vec::new();
        for (i, sweeps) in nodes.iter().enumerate() {
            let name = model.name(i as u16);
            table.row(row(&name, sweeps, window));
            all.iter_mut().zip(sweeps).for_each(|(all, one)| all.merge(one));
            if options.plot.is_some() {
                plots.push(plot(&format!("qbytes_{name}"), &format!("Bytes queued for {name}"), sweeps));
            }
        }
        table.row(row("Total", &all, window));
        if options.plot.is_some() {
            plots.insert(0, plot("qbytes", "Bytes queued for all nodes", &all));
        }
        Report { plots, ..Report::of([table]) }
    }
}

/// Kind of a packet, and its bytes on the wire.
fn wire(model: &Model, f: &Flight) -> (usize, f64) {
    let length = f64::from(f.length);
    match f.carries {
        Carries::Grant => (0, 53.0),
        Carries::Tcp => (3, length + 40.0),
        Carries::Data => {
            let unscheduled = model.rpcs().receiver(f.message).and_then(|s| s.unscheduled);
            (if unscheduled.is_some_and(|u| f.offset >= u) { 2 } else { 1 }, length + 80.0)
        }
    }
}

fn row(name: &str, sweeps: &[Sweep; 4], (from, to): (i64, i64)) -> Vec<Cell> {
    let most = |sweep: Sweep| Cell::from(kb(sweep.run(from, to).max.map_or(0.0, |(most, _)| most)));
    let mut total = Sweep::default();
    sweeps.iter().for_each(|s| total.merge(s));
    let mut cells = vec![name.into(), most(total)];
    cells.extend(sweeps.iter().cloned().map(most));
    cells
}

/// Kinds on top of each other.
fn plot(name: &str, title: &str, sweeps: &[Sweep; 4]) -> Plot {
    let mut sum = Sweep::default();
    let mut curves = Vec::new();
    for (kind, sweep) in KINDS.iter().zip(sweeps) {
        sum.merge(sweep);
        let changes = sum.clone().sorted();
        let step = changes.len().div_ceil(POINTS).max(1);
        let mut value = 0.0;
        let mut points = Vec::new();
        for (i, (at, change)) in changes.iter().enumerate() {
            value += change;
            if i % step == 0 {
                points.push((micros(*at), kb(value)));
            }
        }
        let label = if curves.is_empty() { (*kind).to_string() } else { format!("+ {kind}") };
        curves.push((label, points));
    }
    Plot { name: name.into(), title: title.into(), x: "time (us)", y: "KB", log: false, mark: Mark::Steps, curves }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn what_waits_is_counted_with_its_headers() {
        let mut traffic = Traffic::new(2);
        for node in 0..2 {
            traffic.event(node, 0, 0.0, "homa_softirq starting").event(node, 0, 1000.0, "homa_softirq starting");
        }
        traffic.packet((0, 1), 10, (0, 1000, 1000), 10.0, Delays::USUAL);
        traffic.packet((0, 1), 12, (0, 1000, 1000), 100.0, Delays { net: 25.0, ..Delays::USUAL });
        traffic.packet((0, 1), 14, (0, 1000, 1000), 110.0, Delays { net: 25.0, ..Delays::USUAL });
        traffic.event(1, 2, 90.0, "Incoming message for id 15 has 0 unscheduled bytes");
        let options = Options { plot: Some("x".into()), ..Options::default() };
        let report = QBytes.run(&traffic.model(), &options);
        let table = report.table("queued").unwrap();
        let numbers = |row: usize| table.rows[row].cells[1..].iter().filter_map(Cell::number).collect::<Vec<f64>>();
        assert_eq!(numbers(1), [2.16, 0.0, 1.08, 1.08, 0.0]);
        assert_eq!(numbers(0), [0.0; 5]);
        assert_eq!(report.plots.len(), 3);
    }
}
