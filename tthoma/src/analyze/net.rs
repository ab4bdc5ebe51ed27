//! `net`: how long do packets take from IP to the receiver's GRO, and how many bytes are on their way to each GRO core?
//! Source: timetrace.md 5.16.
//!
//! A packet is part of a core's backlog from the time its frame was passed to IP until that core's GRO has it. Packets that
//! were sent again are left out, and so are those that never arrived.

use std::collections::BTreeMap;

use super::samples::{Samples, kb, us};
use super::steps::{State, Steps};
use super::sweep::Sweep;
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::Model;
use crate::packets::UNSEEN;
use crate::stats::micros;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Net;

/// Packets to one core: time passed to IP, time at GRO, bytes.
type Packets = Vec<(i64, i64, f64)>;

impl Analyzer for Net {
    fn about(&self) -> &'static About {
        &About {
            name: "net",
            question: "How long do packets take from IP to GRO, and how many bytes are on their way to each core?",
            source: "timetrace.md 5.16",
            needs: Needs::All(&[Kind::IpXmit, Kind::GroData]),
            uses: &[],
            options: &["interval"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut cores: BTreeMap<(u16, u16), Packets> = BTreeMap::new();
        for f in model.flights().data.iter().filter(|f| !f.again && f.xmit != UNSEEN && f.gro != UNSEEN) {
            cores.entry((f.to, f.gro_core)).or_default().push((f.xmit, f.gro, f64::from(f.length)));
        }
        let mut report = Report::of([summary(model, &cores)]);
        let negative = cores.values().flatten().filter(|(xmit, gro, _)| gro < xmit).count();
        if negative > 0 && !options.negative_ok {
            report
                .warnings
                .push(format!("net: {negative} packets arrived before they were sent: see `tthoma analyze sync`"));
        }
        if options.wants_series() {
            for node in 0..model.traces.len() as u16 {
                let of_node: BTreeMap<u16, &Packets> =
                    cores.range((node, 0)..=(node, u16::MAX)).map(|((_, core), packets)| (*core, packets)).collect();
                if !of_node.is_empty() {
                    report.tables.push(delays(model, node, &of_node));
                    report.tables.extend(backlog(model, node, &of_node, options));
                }
            }
        }
        report
    }
}

fn summary(model: &Model, cores: &BTreeMap<(u16, u16), Packets>) -> Table {
    let mut table = Table::new("net", "Packets by the core of GRO that gets them:")
        .column("Node", Unit::None, "")
        .column("Core", Unit::None, "")
        .column("Pkts", Unit::None, "")
        .column("AvgDelay", Unit::Us, "from IP to GRO, mean")
        .column("MaxDelay", Unit::Us, "longest")
        .column("DelayTime", Unit::Us, "when that packet arrived")
        .decimals(3)
        .column("AvgBack", Unit::Kb, "bytes on their way, mean over the trace")
        .column("MaxBack", Unit::Kb, "most")
        .column("BackTime", Unit::Us, "when that was")
        .decimals(3);
    for ((node, core), packets) in cores {
        let span = model.span(*node).unwrap_or((0, 0));
        let delays: Samples = packets.iter().map(|(xmit, gro, _)| gro - xmit).collect();
        let longest = packets.iter().max_by_key(|(xmit, gro, _)| gro - xmit).map(|p| p.1);
        let mut sweep = Sweep::default();
        packets.iter().for_each(|(xmit, gro, bytes)| sweep.lasts(*xmit, *gro, *bytes));
        let swept = sweep.run(span.0, span.1);
        table.row([
            model.name(*node).into(),
            (*core).into(),
            packets.len().into(),
            delays.avg(),
            delays.max(),
            us(longest),
            swept.mean().map(kb).into(),
            swept.max.map(|(most, _)| kb(most)).into(),
            us(swept.max.map(|(_, at)| at)),
        ]);
    }
    table
}

/// Time and delay of each packet, two columns for each core.
fn delays(model: &Model, node: u16, cores: &BTreeMap<u16, &Packets>) -> Table {
    let mut table =
        Table::series("net_delay", &model.name(node), "Packets to each core: when they arrive, how long they took");
    let mut lists: Vec<Packets> = Vec::new();
    for (core, packets) in cores {
        table = table.column(format!("Time{core}"), Unit::Us, "").column(format!("Delay{core}"), Unit::Us, "");
        let mut sorted = (*packets).clone();
        sorted.sort_by_key(|(_, gro, _)| *gro);
        lists.push(sorted);
    }
    for i in 0..lists.iter().map(Vec::len).max().unwrap_or(0) {
        let cells = lists.iter().flat_map(|list| {
            let packet = list.get(i);
            [us(packet.map(|p| p.1)), us(packet.map(|p| p.1 - p.0))]
        });
        table.row(cells);
    }
    table
}

/// Bytes on their way to each core at the end of each step.
fn backlog(model: &Model, node: u16, cores: &BTreeMap<u16, &Packets>, options: &Options) -> Option<Table> {
    let steps = Steps::new(model, node, options.interval, cores.len())?;
    let mut table = Table::series("net_backlog", &model.name(node), "Bytes on their way to each core")
        .column("Time", Unit::Us, "end of the step")
        .column("Total", Unit::Kb, "");
    let mut states = Vec::new();
    for (core, packets) in cores {
        table = table.column(format!("Back{core}"), Unit::Kb, "");
        let mut state = State::new(&steps);
        packets.iter().for_each(|(xmit, gro, bytes)| state.add(&steps, *xmit, *gro, *bytes));
        states.push(state.finish());
    }
    for k in 0..steps.count {
        let total: f64 = states.iter().map(|s| s[k]).sum();
        let cells = states.iter().map(|s| kb(s[k]).into());
        table.row([micros(steps.end(k)).into(), kb(total).into()].into_iter().chain(cells));
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn backlog_obeys_little_s_law() {
        let mut traffic = Traffic::new(2);
        traffic.event(1, 0, 0.0, "homa_softirq starting").event(1, 0, 1000.0, "homa_softirq starting");
        let mut waits = 0.0;
        for i in 0..50u32 {
            let net = 5.0 + f64::from(i % 7) * 10.0;
            traffic.packet((0, 1), 10 + 2 * i, (0, 1000, 1000), 10.0 * f64::from(i), Delays { net, ..Delays::USUAL });
            waits += net + 0.5;
        }
        let options = Options { data: Some("x".into()), ..Options::default() };
        let report = Net.run(&traffic.model(), &options);
        let table = report.table("net").unwrap();
        let number = |key: &str| table.get(0, key).number().unwrap();
        assert!((number("avg_back_kb") * 1000.0 - waits).abs() < 1e-6, "1 KB each");
        assert_eq!((number("core"), number("pkts"), number("max_delay_us")), (1.0, 50.0, 65.5));
        assert_eq!(report.table("net_delay_node2").unwrap().rows.len(), 50);
        let series = report.table("net_backlog_node2").unwrap();
        assert_eq!(series.get(1, "time_us"), &50.0.into());
        // Sent at 0 to 40; of those, what has net + 0.5 > 50 - at.
        let open = (0..5).filter(|i| 5.5 + f64::from(i % 7) * 10.0 >= 50.0 - 10.0 * f64::from(*i)).count();
        assert_eq!(series.get(1, "total_kb"), &(open as f64).into());
        assert!(report.warnings.is_empty());
    }

    #[test]
    fn negative_delays_are_kept_and_said() {
        let mut traffic = Traffic::new(2);
        traffic.packet((0, 1), 10, (0, 1000, 1000), 100.0, Delays { net: -20.0, ..Delays::USUAL });
        traffic.event(0, 0, 90.0, "homa_sendmsg request, target 0xa000103:4000, id 10, length 1000");
        let report = Net.run(&traffic.model(), &Options::default());
        assert_eq!(report.table("net").unwrap().get(0, "avg_delay_us"), &(-19.5).into());
        assert_eq!(report.warnings.len(), 1);
    }
}
