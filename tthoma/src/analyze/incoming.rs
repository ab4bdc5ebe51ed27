//! `incoming`: how fast do packets arrive at each GRO core? Source: timetrace.md 5.11.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;

use super::samples::us;
use super::steps::{Steps, flow};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::{Carries, Flight, Model};
use crate::packets::UNSEEN;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Incoming;

impl Analyzer for Incoming {
    fn about(&self) -> &'static About {
        &About {
            name: "incoming",
            question: "How fast do packets arrive at each node and GRO core, in the busiest moments?",
            source: "timetrace.md 5.11",
            needs: Needs::Any(&[Kind::GroData, Kind::GroGrant]),
            uses: &[],
            options: &["interval"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut nodes: Vec<Option<Node>> =
            (0..model.traces.len() as u16).map(|n| Node::new(model, n, options)).collect();
        for f in model.flights().data.iter().chain(&model.flights().grants).filter(|f| f.gro != UNSEEN) {
            if let Some(Some(node)) = nodes.get_mut(usize::from(f.to)) {
                node.add(f);
            }
        }
        let nodes: Vec<Node> = nodes.into_iter().flatten().collect();
        let mut report = Report::of([peaks(model, &nodes)]);
        if options.data.is_some() {
            report.tables.extend(nodes.iter().map(|n| series(model, n)));
        }
        report
    }
}

/// Packets and bytes in each step.
struct Arrivals {
    packets: Vec<f64>,
    bytes: Vec<f64>,
}

struct Node {
    node: u16,
    steps: Steps,
    all: Arrivals,
    cores: BTreeMap<u16, Arrivals>,
    lowest: Vec<Option<u8>>,
}

impl Node {
    fn new(model: &Model, node: u16, options: &Options) -> Option<Self> {
        let cores: FxHashSet<u16> = model.flights().all().filter(|f| f.to == node).map(|f| f.gro_core).collect();
        let steps = Steps::new(model, node, options.interval, 2 * (cores.len() + 1))?;
        let none = Arrivals { packets: vec![0.0; steps.count], bytes: vec![0.0; steps.count] };
        Some(Self { node, steps, all: none, cores: BTreeMap::new(), lowest: vec![None; steps.count] })
    }

    fn add(&mut self, f: &Flight) {
        let is_data = f.carries == Carries::Data;
        let count = self.steps.count;
        let none = || Arrivals { packets: vec![0.0; count], bytes: vec![0.0; count] };
        let core = self.cores.entry(f.gro_core).or_insert_with(none);
        for arrivals in [&mut self.all, core] {
            flow(&mut arrivals.packets, &self.steps, f.gro, 1.0);
            flow(&mut arrivals.bytes, &self.steps, f.gro, if is_data { f64::from(f.length) } else { 0.0 });
        }
        if let (Some(level), Some(k)) = (f.level().filter(|_| is_data), self.steps.at(f.gro)) {
            self.lowest[k] = Some(self.lowest[k].map_or(level, |low| low.min(level)));
        }
    }

    /// Bytes of a step as Gbps.
    fn gbps(&self, bytes: f64) -> f64 {
        bytes * 8.0 / self.steps.length as f64
    }
}

fn peaks(model: &Model, nodes: &[Node]) -> Table {
    let step = nodes.first().map_or(0.0, |n| n.steps.length as f64 / 1000.0);
    let mut table = Table::new("peaks", format!("Most packets and bytes within a step of {step} us:"))
        .column("What", Unit::None, "")
        .column("Pkts", Unit::None, "")
        .column("Gbps", Unit::Gbps, "")
        .column("Node", Unit::None, "")
        .column("Core", Unit::None, "")
        .column("Time", Unit::Us, "end of the step");
    type Peak = (f64, u16, Option<u16>, i64);
    let best = |pick: fn(&Arrivals) -> &Vec<f64>, by_core: bool| -> Option<Peak> {
        let of = |n: &Node, core: Option<u16>, values: &[f64]| -> Option<Peak> {
            let (k, most) = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)))?;
            Some((*most, n.node, core, n.steps.end(k)))
        };
        let all = nodes.iter().flat_map(|n| {
            let cores = n.cores.iter().filter(move |_| by_core).filter_map(move |(c, a)| of(n, Some(*c), pick(a)));
            let node = (!by_core).then(|| of(n, None, pick(&n.all))).flatten();
            cores.chain(node).collect::<Vec<Peak>>()
        });
        all.max_by(|a, b| a.0.total_cmp(&b.0))
    };
    for (name, by_core) in [("core", true), ("node", false)] {
        for bytes in [false, true] {
            let Some((most, node, core, at)) = best(if bytes { |a| &a.bytes } else { |a| &a.packets }, by_core) else {
                continue;
            };
            let gbps = nodes.iter().find(|n| n.node == node).map_or(0.0, |n| n.gbps(most));
            let (packets, rate): (Cell, Cell) =
                if bytes { (Cell::None, gbps.into()) } else { ((most as u64).into(), Cell::None) };
            let what = format!("{} of a {name}", if bytes { "bytes" } else { "packets" });
            table.row([what.into(), packets, rate, model.name(node).into(), core.into(), us(Some(at))]);
        }
    }
    table
}

fn series(model: &Model, node: &Node) -> Table {
    let mut table = Table::series("incoming", &model.name(node.node), "Arrivals at each GRO core").column(
        "Interval",
        Unit::Us,
        "end of the step",
    );
    for core in node.cores.keys() {
        table = table.column(format!("Gps{core}"), Unit::Gbps, "").column(format!("Pkts{core}"), Unit::None, "");
    }
    table = table.column("Gbps", Unit::Gbps, "message bytes").column("Pkts", Unit::None, "data and grants");
    table = table.column("MinP", Unit::None, "lowest level of a data packet");
    for k in 0..node.steps.count {
        let mut cells = vec![us(Some(node.steps.end(k)))];
        for arrivals in node.cores.values().chain([&node.all]) {
            cells.extend([node.gbps(arrivals.bytes[k]).into(), (arrivals.packets[k] as u64).into()]);
        }
        cells.push(node.lowest[k].map(u32::from).into());
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn peaks_and_series_use_the_same_step() {
        let mut traffic = Traffic::new(2);
        traffic.message((0, 1), 10, 14_000, 94.6, Delays::USUAL);
        traffic.grant((0, 1), 13, 2000, 100, 106.0, Delays::USUAL);
        traffic.event(1, 7, 130.0, "homa_gro_receive got packet from 0xa000102 id 15, offset 0, priority 2");
        let options = Options { interval: 10.0, data: Some("x".into()), ..Options::default() };
        let report = Incoming.run(&traffic.model(), &options);
        let peaks = report.table("peaks").unwrap();
        // 10 packets arrive from 100.1 to 109.1, and the grant at 111.5.
        assert_eq!(
            (peaks.get(0, "pkts"), peaks.get(0, "core"), peaks.get(0, "time_us")),
            (&10u32.into(), &1u16.into(), &110.0.into())
        );
        assert_eq!(peaks.get(1, "gbps"), &(14_000.0 * 8.0 / 10_000.0).into());
        let series = report.table("incoming_node2").unwrap();
        let row = (0..series.rows.len()).find(|r| series.get(*r, "interval_us") == &130.0.into()).unwrap();
        assert_eq!(
            (series.get(row, "pkts7"), series.get(row, "pkts1"), series.get(row, "min_p")),
            (&1u32.into(), &0u32.into(), &2u32.into())
        );
        let grant = (0..series.rows.len()).find(|r| series.get(*r, "interval_us") == &120.0.into()).unwrap();
        assert_eq!((series.get(grant, "pkts"), series.get(grant, "gbps")), (&1u32.into(), &0.0.into()));
    }
}
