//! `txpkts`: how long do frames wait for the NIC, in it, and until they are received, by transmit queue? Source:
//! timetrace.md 5.42.

use std::collections::BTreeMap;

use super::packet_list;
use super::samples::{Samples, gbps, kb, ns, share};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::flights::since;
use crate::model::{Flight, Model};
use crate::packets::UNSEEN;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct TxPkts;

impl Analyzer for TxPkts {
    fn about(&self) -> &'static About {
        &About {
            name: "txpkts",
            question: "How long do frames wait for the NIC, in it, and until they are received, by transmit queue?",
            source: "timetrace.md 5.42",
            needs: Needs::Any(&[Kind::IpXmit, Kind::TcpXmit]),
            uses: &[Kind::SendData, Kind::NicData, Kind::FreeTxSkb, Kind::GroData, Kind::PacerXmit, Kind::QdiscDefer],
            options: &["node", "tx_qid", "threshold", "sort"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let chosen = |f: &&Flight| {
            f.head
                && f.xmit != UNSEEN
                && f.gro != UNSEEN
                && options.tx_qid.is_none_or(|q| f.queue == q)
                && options.node.as_ref().is_none_or(|name| model.node(name) == Some(f.from))
        };
        let flights = model.flights();
        let mut nodes: BTreeMap<u16, Vec<Flight>> = BTreeMap::new();
        for f in flights.data.iter().chain(&flights.tcp).filter(chosen) {
            nodes.entry(f.from).or_default().push(*f);
        }
        // Segments of each node's queues.
        let mut segments: BTreeMap<(u16, u32), u64> = BTreeMap::new();
        flights.data.iter().chain(&flights.tcp).filter(|f| f.gro != UNSEEN).for_each(|f| {
            *segments.entry((f.from, f.queue)).or_default() += 1;
        });
        let mut totals = columns(Table::new("nodes", "Frames of each node:").column("Node", Unit::None, ""), false);
        let mut queues = columns(
            Table::new("queues", "Frames of each transmit queue:")
                .column("Node", Unit::None, "")
                .column("Qid", Unit::None, "")
                .column("TxQueue", Unit::None, "the driver's name of the queue"),
            true,
        );
        let mut series = Vec::new();
        let mut unknown = Vec::new();
        for (node, mut frames) in nodes {
            let span = model.span(node).unwrap_or((0, 0));
            let all: Vec<&Flight> = frames.iter().collect();
            totals.row(std::iter::once(model.name(node).into()).chain(cells(&all, span, options, None)));
            let mut by_queue: BTreeMap<u32, Vec<&Flight>> = BTreeMap::new();
            frames.iter().for_each(|f| by_queue.entry(f.queue).or_default().push(f));
            for (queue, frames) in by_queue {
                let address = frames.iter().map(|f| f.queue_address).find(|a| *a != 0);
                let id: Cell = frames[0].queue().into();
                let start = [model.name(node).into(), id, address.map(|a| format!("0x{a:x}")).into()];
                let count = segments.get(&(node, queue)).copied();
                queues.row(start.into_iter().chain(cells(&frames, span, options, count.or(Some(0)))));
            }
            if options.data.is_some() {
                unknown = packet_list::sort(&mut frames, &options.sort, &["Xmit"]);
                let table = Table::series("txpkts", &model.name(node), "Frames");
                let mut table = packet_list::columns(table);
                packet_list::fill(&mut table, model, &frames, usize::MAX);
                series.push(table);
            }
        }
        let mut report = Report::of([totals, queues]);
        report.tables.extend(series);
        report.warnings.extend(packet_list::unknown_keys("txpkts", &unknown, packet_list::KEYS));
        report
    }
}

fn columns(table: Table, queues: bool) -> Table {
    let mut table = table.column("Tsos", Unit::None, "frames");
    if queues {
        table =
            table.column("Segs", Unit::None, "packets that were received").column("Gbps", Unit::Gbps, "").decimals(2);
        table = table.column("PTsos", Unit::None, "frames sent by the pacer").column(
            "QTsos",
            Unit::None,
            "frames held back by homa_qdisc",
        );
    }
    table = table.column("Backlog", Unit::Kb, "in the NIC for longer than --threshold, mean").column(
        "BFrac",
        Unit::Share,
        "share of bytes that are in the NIC for longer",
    );
    for (title, meaning) in [
        ("NicP10", "from IP to the NIC"),
        ("NicP50", ""),
        ("NicP90", ""),
        ("GroP10", "from the NIC to GRO"),
        ("GroP50", ""),
        ("GroP90", ""),
        ("FreP10", "from the NIC back to the driver"),
        ("FreP50", ""),
        ("FreP90", ""),
    ] {
        table = table.column(title, Unit::Us, meaning);
    }
    table
}

fn cells(frames: &[&Flight], (first, last): (i64, i64), options: &Options, segments: Option<u64>) -> Vec<Cell> {
    let mut cells: Vec<Cell> = vec![frames.len().into()];
    let bytes: f64 = frames.iter().map(|f| f64::from(f.frame)).sum();
    if let Some(segments) = segments {
        let paced = frames.iter().filter(|f| f.paced).count();
        let deferred = frames.iter().filter(|f| f.deferred != UNSEEN || f.undeferred != UNSEEN).count();
        cells.extend([segments.into(), gbps(bytes, last - first), paced.into(), deferred.into()]);
    }
    let (mut waits, mut waiting, mut known) = (0.0, 0.0, false);
    for f in frames.iter().filter(|f| f.nic != UNSEEN) {
        known = true;
        let free = if f.free == UNSEEN { last } else { f.free };
        let excess = free - f.nic - ns(options.threshold);
        if excess > 0 {
            waits += excess as f64 * f64::from(f.frame);
            waiting += f64::from(f.frame);
        }
    }
    if known && frames.iter().any(|f| f.free != UNSEEN) {
        let time = (last - first) as f64;
        cells.extend([if time > 0.0 { kb(waits / time).into() } else { Cell::None }, share(waiting, bytes)]);
    } else {
        cells.extend([Cell::None, Cell::None]);
    }
    let once = || frames.iter().filter(|f| !f.again);
    let phases: [fn(&Flight) -> Option<i64>; 3] =
        [|f| since(f.xmit, f.nic), |f| since(f.nic, f.gro), |f| since(f.nic, f.free)];
    for phase in phases {
        let samples: Samples = once().filter_map(|f| phase(f)).collect();
        cells.extend([10, 50, 90].map(|q| samples.p(q)));
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn delays_and_backlog_of_queues() {
        let mut traffic = Traffic::new(2);
        traffic.event(0, 0, 0.0, "homa_softirq starting").event(0, 0, 1000.0, "homa_softirq starting");
        for i in 0..10u32 {
            let free = if i == 0 { 150.0 } else { 7.0 };
            traffic.packet((0, 1), 10 + 2 * i, (0, 1000, 1000), 50.0 * f64::from(i), Delays { free, ..Delays::USUAL });
        }
        traffic.event(0, 3, 99.9, "pacer calling homa_xmit_data for rpc id 14, port 4000, offset 0, bytes_left 1000");
        let options = Options { data: Some("x".into()), ..Options::default() };
        let report = TxPkts.run(&traffic.model(), &options);
        let queues = report.table("queues").unwrap();
        let number = |key: &str| queues.get(0, key).number().unwrap();
        assert_eq!(
            [number("qid"), number("tsos"), number("segs"), number("ptsos"), number("gbps")],
            [4.0, 10.0, 10.0, 1.0, 0.08]
        );
        // One of 10 KB is 100 us longer in the NIC than 50 us, of 1000 us.
        assert_eq!([number("backlog_kb"), number("bfrac_share")], [0.1, 0.1]);
        assert_eq!([number("nic_p50_us"), number("gro_p90_us"), number("fre_p90_us")], [0.5, 5.0, 150.0]);
        assert_eq!(queues.get(0, "tx_queue"), &"0xff04".into());
        assert_eq!(report.table("txpkts_node1").unwrap().rows.len(), 10);
        let other = Options { node: Some("node2".into()), ..Options::default() };
        assert!(TxPkts.run(&traffic.model(), &other).table("nodes").unwrap().rows.is_empty());
    }
}
