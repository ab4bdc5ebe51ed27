//! `nicbacklog` and `nicbacklog2`: how much does the NIC hold, and how fast does it drain, also by queue? Source:
//! timetrace.md 5.17, 5.18.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;

use super::owned::{self, Owned, Window};
use super::samples::{gbps, kb, us};
use super::steps::{State, Steps, flow};
use super::sweep::Sweep;
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::Model;

/// `nicbacklog`; see [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct NicBacklog;

/// `nicbacklog2`; see [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct NicBacklog2;

const NEEDS: Needs = Needs::All(&[Kind::NicData, Kind::FreeTxSkb]);
/// Step of the samples, us.
const STEP: f64 = 50.0;
/// Steps with at least so many bytes in the NIC are looked at apart.
const FULL: f64 = 200_000.0;
/// Windows of rates, us.
const WINDOWS: [f64; 3] = [50.0, 100.0, 200.0];

impl Analyzer for NicBacklog {
    fn about(&self) -> &'static About {
        &About {
            name: "nicbacklog",
            question: "How much does the NIC hold, and how fast does it drain?",
            source: "timetrace.md 5.17",
            needs: NEEDS,
            uses: &[Kind::SendData, Kind::TcpNic, Kind::TcpFree],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut summary = Table::new("nics", "Frames that the NIC has not given back, bytes with headers:")
            .column("Node", Unit::None, "")
            .column("AvgPkts", Unit::None, "mean")
            .decimals(1)
            .column("AvgKB", Unit::Kb, "")
            .column("MaxPkts", Unit::None, "most at the end of a step of 50 us")
            .column("MaxKB", Unit::Kb, "")
            .column("MaxInP", Unit::None, "most frames given to the NIC within 200 us")
            .column("MaxInD", Unit::Gbps, "highest rate of that")
            .column("MaxFrP", Unit::None, "most frames given back within 200 us")
            .column("MaxFrD", Unit::Gbps, "highest rate of that")
            .column("AvgIn", Unit::Gbps, "rate to the NIC, over the trace")
            .column("AvgFr", Unit::Gbps, "rate back, over the trace");
        let mut busy: Vec<Full> = Vec::new();
        let mut report = Report::default();
        let mut all_owned = owned::collect(model);
        for (node, first, last) in model.spans() {
            let owned = std::mem::take(&mut all_owned[usize::from(node)]);
            let (mut packets, mut bytes) = (Sweep::default(), Sweep::default());
            for o in &owned {
                packets.lasts(o.from, o.to, 1.0);
                bytes.lasts(o.from, o.to, o.wire);
            }
            let steps = Steps::of((first, last), STEP, Steps::most(model, node, 4));
            let states = states(&owned, &steps);
            let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
            let ins: Vec<(i64, f64)> = owned.iter().filter(|o| o.nic).map(|o| (o.from, o.wire)).collect();
            let outs: Vec<(i64, f64)> = owned.iter().filter(|o| o.free).map(|o| (o.to, o.wire)).collect();
            let sum = |events: &[(i64, f64)]| events.iter().map(|e| e.1).sum::<f64>();
            let (max_in, max_out) = (Window::new(ins.clone(), 200.0).most(), Window::new(outs.clone(), 200.0).most());
            summary.row([
                model.name(node).into(),
                packets.run(first, last).mean().into(),
                bytes.run(first, last).mean().map(kb).into(),
                most(&states[0]).into(),
                kb(most(&states[1])).into(),
                max_in.0.into(),
                (max_in.1 * 8.0 / 200_000.0).into(),
                max_out.0.into(),
                (max_out.1 * 8.0 / 200_000.0).into(),
                gbps(sum(&ins), last - first),
                gbps(sum(&outs), last - first),
            ]);
            let mut windows: Vec<(Window, Window)> =
                WINDOWS.iter().map(|w| (Window::new(ins.clone(), *w), Window::new(outs.clone(), *w))).collect();
            let mut series = empty_series(&model.name(node));
            for (k, (packets, bytes)) in states[0].iter().zip(&states[1]).enumerate() {
                let mut cells = vec![us(Some(steps.end(k))), (*packets).into(), kb(*bytes).into()];
                for (i, (into, back)) in windows.iter_mut().enumerate() {
                    let (into, back) = (into.at(steps.end(k)), back.at(steps.end(k)));
                    let rate = |bytes: f64| Cell::from(bytes * 8.0 / (WINDOWS[i] * 1000.0));
                    cells.extend([into.0.into(), rate(into.1), back.0.into(), rate(back.1)]);
                    if i == 0 && *bytes >= FULL {
                        busy.push(Full {
                            bytes: *bytes,
                            packets: *packets,
                            freed: back.1,
                            freed_packets: back.0 as f64,
                        });
                    }
                }
                if options.data.is_some() {
                    series.row(cells);
                }
            }
            if options.data.is_some() {
                report.tables.push(series);
            }
        }
        report.tables.insert(0, summary);
        report.tables.insert(1, full(busy, &mut report.notes));
        report
    }
}

/// Frames, and bytes with headers, that the NIC owns at the end of each step.
fn states(owned: &[Owned], steps: &Steps) -> [Vec<f64>; 2] {
    let (mut packets, mut bytes) = (State::new(steps), State::new(steps));
    for o in owned {
        packets.add(steps, o.from, o.to, 1.0);
        bytes.add(steps, o.from, o.to, o.wire);
    }
    [packets.finish(), bytes.finish()]
}

fn empty_series(node: &str) -> Table {
    let mut table = Table::series("nicbacklog", node, "Frames that the NIC owns, and rates to it and back")
        .column("Time", Unit::Us, "end of the step")
        .column("NicPkts", Unit::None, "frames that the NIC owns")
        .column("NicKB", Unit::Kb, "their bytes");
    for window in WINDOWS {
        table = table.column(format!("InP{window}"), Unit::None, "").column(format!("InB{window}"), Unit::Gbps, "");
        table = table.column(format!("FrP{window}"), Unit::None, "").column(format!("FrB{window}"), Unit::Gbps, "");
    }
    table
}

/// A step with a full NIC.
struct Full {
    bytes: f64,
    packets: f64,
    freed: f64,
    freed_packets: f64,
}

/// Steps with a full NIC: the tenth with the least and the tenth with the most bytes given back.
fn full(mut busy: Vec<Full>, notes: &mut Vec<String>) -> Table {
    let mut table = Table::new(
        "full",
        "Steps of 50 us with at least 200 KB in the NIC: means of those that drain slowest and fastest:",
    )
    .column("Tenth", Unit::None, "")
    .column("Steps", Unit::None, "")
    .column("NicP", Unit::None, "frames in the NIC")
    .decimals(1)
    .column("NicKB", Unit::Kb, "")
    .column("FreeP", Unit::None, "frames given back in the step")
    .decimals(1)
    .column("FreeKB", Unit::Kb, "");
    if busy.len() < 10 {
        notes.push(format!(
            "Only {} steps have at least 200 KB in the NIC: too few to compare fast and slow ones.",
            busy.len()
        ));
        return table;
    }
    busy.sort_by(|a, b| a.freed.total_cmp(&b.freed));
    let n = busy.len() / 10;
    for (name, part) in [("slowest", &busy[..n]), ("fastest", &busy[busy.len() - n..])] {
        let mean = |of: fn(&Full) -> f64| part.iter().map(of).sum::<f64>() / n as f64;
        table.row([
            name.into(),
            n.into(),
            mean(|b| b.packets).into(),
            kb(mean(|b| b.bytes)).into(),
            mean(|b| b.freed_packets).into(),
            kb(mean(|b| b.freed)).into(),
        ]);
    }
    table
}

impl Analyzer for NicBacklog2 {
    fn about(&self) -> &'static About {
        &About {
            name: "nicbacklog2",
            question: "Which transmit queues hold how much in the NIC, over time?",
            source: "timetrace.md 5.18",
            needs: NEEDS,
            uses: &[Kind::SendData, Kind::TcpNic, Kind::TcpFree],
            options: &["interval"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut summary =
            Table::new("queues", "Transmit queues, message bytes that the NIC owns at the ends of steps:")
                .column("Node", Unit::None, "")
                .column("Qid", Unit::None, "")
                .column("AvgKB", Unit::Kb, "mean")
                .column("MaxKB", Unit::Kb, "most")
                .column("Used", Unit::Share, "share of steps with data in the queue");
        let mut report = Report::default();
        let mut all_owned = owned::collect(model);
        for (node, first, last) in model.spans() {
            let owned = std::mem::take(&mut all_owned[usize::from(node)]);
            let queues: FxHashSet<u32> = owned.iter().map(|o| o.queue).collect();
            let steps = Steps::of((first, last), options.interval, Steps::most(model, node, 4 * queues.len()));
            let mut queues: BTreeMap<u32, Queue> = BTreeMap::new();
            for o in &owned {
                let queue = queues.entry(o.queue).or_insert_with(|| Queue::new(&steps));
                queue.packets.add(&steps, o.from, o.to, 1.0);
                queue.bytes.add(&steps, o.from, o.to, o.bytes);
                queue.tcp.add(&steps, o.from, o.to, if o.tcp { o.bytes } else { 0.0 });
                if o.free {
                    flow(&mut queue.freed, &steps, o.to, 1.0);
                }
            }
            let queues: Vec<(u32, [Vec<f64>; 4])> = queues.into_iter().map(|(id, q)| (id, q.finish())).collect();
            for (id, [_, bytes, ..]) in &queues {
                let used = bytes.iter().filter(|b| **b > 0.0).count() as f64 / steps.count as f64;
                let most = bytes.iter().copied().fold(0.0, f64::max);
                let id = Cell::from((*id != u32::MAX).then_some(*id));
                let mean = bytes.iter().sum::<f64>() / steps.count as f64;
                summary.row([model.name(node).into(), id, kb(mean).into(), kb(most).into(), used.into()]);
            }
            if options.data.is_some() {
                report.tables.push(by_queue(&model.name(node), &steps, &queues));
            }
        }
        report.tables.insert(0, summary);
        report
    }
}

struct Queue {
    packets: State,
    bytes: State,
    tcp: State,
    freed: Vec<f64>,
}

impl Queue {
    fn new(steps: &Steps) -> Self {
        Self {
            packets: State::new(steps),
            bytes: State::new(steps),
            tcp: State::new(steps),
            freed: vec![0.0; steps.count],
        }
    }

    fn finish(self) -> [Vec<f64>; 4] {
        [self.packets.finish(), self.bytes.finish(), self.tcp.finish(), self.freed]
    }
}

fn by_queue(node: &str, steps: &Steps, queues: &[(u32, [Vec<f64>; 4])]) -> Table {
    let mut table = Table::series("nicbacklog2", node, "What the NIC owns, and the three fullest queues")
        .column("Time", Unit::Us, "end of the step")
        .column("Pkts", Unit::None, "")
        .column("KB", Unit::Kb, "")
        .column("TcpKB", Unit::Kb, "of TCP")
        .column("PktQs", Unit::None, "queues with data")
        .column("FreeQs", Unit::None, "queues of which something was given back in the step");
    for i in 1..=3 {
        table = table.column(format!("Qid{i}"), Unit::None, "").column(format!("Pkts{i}"), Unit::None, "");
        table = table.column(format!("KB{i}"), Unit::Kb, "").column(format!("TcpKB{i}"), Unit::Kb, "");
    }
    for k in 0..steps.count {
        let sum = |i: usize| queues.iter().map(|(_, q)| q[i][k]).sum::<f64>();
        let count = |i: usize| queues.iter().filter(|(_, q)| q[i][k] > 0.0).count();
        let mut cells: Vec<Cell> = vec![
            us(Some(steps.end(k))),
            sum(0).into(),
            kb(sum(1)).into(),
            kb(sum(2)).into(),
            count(1).into(),
            count(3).into(),
        ];
        let mut fullest: Vec<&(u32, [Vec<f64>; 4])> = queues.iter().filter(|(_, q)| q[1][k] > 0.0).collect();
        fullest.sort_by(|a, b| b.1[1][k].total_cmp(&a.1[1][k]));
        for (id, q) in fullest.into_iter().take(3) {
            cells.extend([(*id).into(), q[0][k].into(), kb(q[1][k]).into(), kb(q[2][k]).into()]);
        }
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn the_nic_s_frames_obey_little_s_law() {
        let mut traffic = Traffic::new(2);
        traffic.event(0, 0, 0.0, "homa_softirq starting").event(0, 0, 1000.0, "homa_softirq starting");
        for i in 0..10u32 {
            let free = 20.0 + f64::from(i);
            traffic.packet((0, 1), 10 + 2 * i, (0, 1000, 1000), 50.0 * f64::from(i), Delays { free, ..Delays::USUAL });
        }
        let options = Options { data: Some("x".into()), ..Options::default() };
        let report = NicBacklog.run(&traffic.model(), &options);
        let table = report.table("nics").unwrap();
        let number = |key: &str| table.get(0, key).number().unwrap();
        let stays: f64 = (0..10).map(|i| 20.0 + f64::from(i)).sum();
        assert!((number("avg_pkts") * 1000.0 - stays).abs() < 1e-9);
        assert!((number("avg_kb") * 1000.0 - stays * 1.08).abs() < 1e-9, "with headers");
        assert_eq!((number("max_in_p"), number("max_in_d_gbps")), (4.0, 4320.0 * 8.0 / 200_000.0));
        assert_eq!(report.notes.len(), 1, "the NIC was never full");
        assert_eq!(report.table("nicbacklog_node1").unwrap().rows.len(), 21);
    }

    #[test]
    fn queues_are_told_apart() {
        let mut traffic = Traffic::new(2);
        traffic.event(0, 0, 0.0, "homa_softirq starting").event(0, 0, 1000.0, "homa_softirq starting");
        traffic.packet((0, 1), 10, (0, 1000, 1000), 40.0, Delays { free: 30.0, ..Delays::USUAL });
        traffic.event(0, 3, 45.0, "Finished queueing packet: rpc id 12, offset 0, len 3000, qid 9");
        traffic.event(0, 3, 46.0, "sent homa data packet via mlx to 0xa000103, id 12, offset 0, queue 0xff09");
        traffic.event(0, 3, 146.0, "freeing tx skb for homa data, id 12, offset 0, qid 9, msg_length 3000");
        let options = Options { data: Some("x".into()), ..Options::default() };
        let report = NicBacklog2.run(&traffic.model(), &options);
        let series = report.table("nicbacklog2_node1").unwrap();
        let row = |time: f64| (0..series.rows.len()).find(|r| series.get(*r, "time_us") == &time.into()).unwrap();
        assert_eq!(
            (series.get(row(50.0), "qid1"), series.get(row(50.0), "kb1_kb"), series.get(row(50.0), "kb2_kb")),
            (&9u32.into(), &3.0.into(), &1.0.into())
        );
        assert_eq!(
            (series.get(row(100.0), "pkt_qs"), series.get(row(100.0), "free_qs"), series.get(row(100.0), "kb")),
            (&1u32.into(), &1u32.into(), &3.0.into())
        );
        assert_eq!(report.table("queues").unwrap().get(1, "max_kb"), &3.0.into());
    }
}
