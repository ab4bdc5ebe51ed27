//! `tcpdelay`: how long do TCP packets take? Source: timetrace.md 5.39. Kernels must be patched to log TCP.

use super::samples::Samples;
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::flights::since;
use crate::model::{Flight, Model};
use crate::stats::percentile;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct TcpDelay;

impl Analyzer for TcpDelay {
    fn about(&self) -> &'static About {
        &About {
            name: "tcpdelay",
            question: "How long do TCP packets take, by size?",
            source: "timetrace.md 5.39",
            needs: Needs::All(&[Kind::TcpXmit, Kind::TcpGro]),
            uses: &[Kind::TcpNic, Kind::TcpFree, Kind::TcpQdisc],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, _: &Options) -> Report {
        let heads: Vec<&Flight> = model.flights().tcp.iter().filter(|f| f.head).collect();
        let mut all = empty("delays", "Delays of TCP packets by bytes of their frame:");
        let mut slow = empty("slow", "The same for those of each group whose total is between its P98 and P99:");
        for (name, low, high) in
            [("<= 1500", 1, 1500), ("1501-10000", 1501, 10_000), ("> 10000", 10_001, u32::MAX), ("acks", 0, 0)]
        {
            let group: Vec<&Flight> = heads.iter().copied().filter(|f| (low..=high).contains(&f.frame)).collect();
            fill(&mut all, name, &group);
            let mut totals: Vec<i64> = group.iter().filter_map(|f| total(f)).collect();
            totals.sort_unstable();
            let bounds = percentile(&totals, 98).zip(percentile(&totals, 99));
            let is_slow = |f: &&Flight| total(f).zip(bounds).is_some_and(|(t, (a, b))| (a..=b).contains(&t));
            fill(&mut slow, name, &group.into_iter().filter(is_slow).collect::<Vec<_>>());
        }
        let negative = heads.iter().filter_map(|f| total(f)).filter(|t| *t < 0).count();
        let mut report = Report::of([all, slow]);
        if negative > 0 {
            report.notes.push(format!("{negative} packets arrived before they were sent: clocks disagree."));
        }
        report
    }
}

fn total(f: &Flight) -> Option<i64> {
    since(f.xmit, f.gro)
}

fn empty(name: &str, title: &str) -> Table {
    let title = format!(
        "{title} Xmit from IP to the NIC, Qdisc until homa_qdisc lets go, Gro from the NIC to GRO, Free from the NIC back, Net \
         from there to GRO, Total from IP to GRO"
    );
    Table::new(name, title).column("Size", Unit::None, "").column("Phase", Unit::None, "").distribution().grouped()
}

fn fill(table: &mut Table, name: &str, packets: &[&Flight]) {
    type Phase = (&'static str, fn(&Flight) -> Option<i64>);
    let phases: [Phase; 6] = [
        ("Xmit", |f| since(f.xmit, f.nic)),
        ("Qdisc", |f| since(f.xmit, f.undeferred)),
        ("Gro", |f| since(f.nic, f.gro)),
        ("Free", |f| since(f.nic, f.free)),
        ("Net", |f| since(f.free, f.gro)),
        ("Total", total),
    ];
    for (phase, of) in phases {
        let samples: Samples = packets.iter().filter_map(|f| of(f)).collect();
        table.row([name.into(), phase.into()].into_iter().chain(samples.cells()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::Traffic;

    #[test]
    fn delays_are_those_of_the_events() {
        let mut traffic = Traffic::new(2);
        for i in 0..100u32 {
            let (at, seq) = (100.0 * f64::from(i), 1000 * i);
            let about = |bytes: u32| format!("from 0x1000a to 0x20014, data bytes {bytes}, seq/ack {seq}");
            traffic.event(0, 0, at, format!("Transmitting TCP packet {}", about(1000)));
            traffic.event(0, 0, at + 2.0, format!("sent TCP packet via mlx {}", about(1000)));
            traffic.event(0, 0, at + 9.0, "freeing TCP skb for qid 3");
            traffic.event(0, 0, at + 9.0, format!("freeing TCP skb {}", about(1000)));
            traffic.event(1, 0, at + 12.0 + f64::from(i) / 10.0, format!("tcp_gro_receive got packet {}", about(1000)));
        }
        let report = TcpDelay.run(&traffic.model(), &Options::default());
        let table = report.table("delays").unwrap();
        let p50 = |phase: &str| table.get(table.find(&["<= 1500", phase]).unwrap(), "p50_us").number().unwrap();
        assert_eq!(["Xmit", "Gro", "Free", "Net", "Total"].map(p50), [2.0, 15.0, 7.0, 8.0, 17.0]);
        assert_eq!(table.get(table.find(&["acks", "Total"]).unwrap(), "count"), &0u32.into());
        let slow = report.table("slow").unwrap();
        assert_eq!(slow.get(slow.find(&["<= 1500", "Total"]).unwrap(), "count"), &2u32.into());
        assert_eq!(
            slow.get(slow.find(&["acks", "Total"]).unwrap(), "count"),
            &0u32.into(),
            "acks are not among the small"
        );
    }
}
