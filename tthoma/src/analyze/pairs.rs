//! `pairs`: how long do packets take between each two nodes, and how many are on their way at the end? Source:
//! timetrace.md 5.26.

use std::collections::BTreeMap;

use super::samples::Samples;
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::{Model, NOWHERE};
use crate::packets::UNSEEN;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Pairs;

impl Analyzer for Pairs {
    fn about(&self) -> &'static About {
        &About {
            name: "pairs",
            question: "How long do data packets take between each two nodes, and how many are on their way at the end?",
            source: "timetrace.md 5.26",
            needs: Needs::All(&[Kind::NicData, Kind::GroData]),
            uses: &[],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, _: &Options) -> Report {
        let first_end = model.spans().map(|(.., last)| last).min().unwrap_or(0);
        let mut pairs: BTreeMap<(u16, u16), (u64, u64, Vec<i64>)> = BTreeMap::new();
        for f in model.flights().data.iter().filter(|f| f.nic != UNSEEN && f.from != NOWHERE && f.to != NOWHERE) {
            let Some((first, last)) = model.span(f.to) else { continue };
            if (first..=last).contains(&f.nic) {
                let (sent, backlog, delays) = pairs.entry((f.from, f.to)).or_default();
                *sent += 1;
                *backlog += u64::from(f.gro == UNSEEN || f.gro > first_end);
                delays.extend((f.gro != UNSEEN).then(|| f.gro - f.nic));
            }
        }
        let mut table = Table::new("pairs", "Data packets, from the NIC of one node to GRO of the other:")
            .column("Source", Unit::None, "")
            .column("Dest", Unit::None, "")
            .column("Xmits", Unit::None, "packets given to the NIC while the receiver's trace runs")
            .column("Backlog", Unit::None, "of these, not received when the first trace ends");
        for p in ["DelayP10", "DelayP50", "DelayP90", "DelayP99"] {
            table = table.column(p, Unit::Us, "");
        }
        for ((from, to), (sent, backlog, delays)) in pairs {
            let delays: Samples = delays.into_iter().collect();
            let p = [10, 50, 90, 99].map(|q| delays.p(q));
            table.row(
                [model.name(from).into(), model.name(to).into(), sent.into(), backlog.into()].into_iter().chain(p),
            );
        }
        Report::of([table])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn pairs_have_their_delays_and_what_is_on_its_way() {
        let mut traffic = Traffic::new(2);
        traffic.event(1, 0, 0.0, "homa_softirq starting").event(1, 0, 2000.0, "homa_softirq starting");
        for i in 0..100u32 {
            let d = Delays { net: 5.0 + f64::from(i), ..Delays::USUAL };
            traffic.packet((0, 1), 10 + 2 * i, (0, 100, 100), 10.0 * f64::from(i), d);
        }
        // The last packets are received after node1's trace has ended.
        traffic.packet((1, 0), 11, (0, 100, 100), 900.0, Delays::USUAL);
        let model = traffic.model();
        let end = model.span(0).unwrap().1;
        let report = Pairs.run(&model, &Options::default());
        let table = report.table("pairs").unwrap();
        let row = table.find(&["node1", "node2"]).unwrap();
        assert_eq!(
            (table.get(row, "xmits"), table.get(row, "delay_p50_us"), table.get(row, "delay_p99_us")),
            (&100u32.into(), &55.0.into(), &104.0.into())
        );
        let late = (0..100).filter(|i| (f64::from(*i) * 11.0 + 5.5) * 1000.0 > end as f64).count();
        assert_eq!(table.get(row, "backlog"), &late.into());
        assert!(late > 0);
    }
}
