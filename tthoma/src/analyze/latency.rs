//! Smallest latency of each pair of nodes, and the analysis `minlatency` that prints it. Source: timetrace.md 5.14.

use rustc_hash::FxHashMap;

use super::samples::us;
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::flights::since;
use crate::model::{Carries, Model, NOWHERE};

/// Smallest time from the NIC to GRO of data and grants between two nodes, ns.
pub(super) fn smallest(model: &Model) -> FxHashMap<(u16, u16), i64> {
    let mut out: FxHashMap<(u16, u16), i64> = FxHashMap::default();
    for f in model.flights().all().filter(|f| f.carries != Carries::Tcp && f.from != NOWHERE && f.to != NOWHERE) {
        if let Some(time) = since(f.nic, f.gro) {
            let least = out.entry((f.from, f.to)).or_insert(time);
            *least = (*least).min(time);
        }
    }
    out
}

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct MinLatency;

impl Analyzer for MinLatency {
    fn about(&self) -> &'static About {
        &About {
            name: "minlatency",
            question: "How fast is the fastest packet between each two nodes, from NIC to GRO?",
            source: "timetrace.md 5.14",
            needs: Needs::All(&[Kind::NicData, Kind::GroData]),
            uses: &[Kind::NicGrant, Kind::GroGrant],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, _: &Options) -> Report {
        let least = smallest(model);
        let mut table =
            Table::new("minlatency", "Smallest time from the NIC of a node (row) to GRO of another (column), us:")
                .column("From", Unit::None, "");
        let nodes = 0..model.traces.len() as u16;
        for to in nodes.clone() {
            table = table.column(model.name(to), Unit::Us, "");
        }
        for from in nodes.clone() {
            let cells = nodes.clone().map(|to| us(least.get(&(from, to)).copied()));
            table.row(std::iter::once(model.name(from).into()).chain(cells));
        }
        Report::of([table])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Cell;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn the_matrix_has_the_fastest_packet_of_each_direction() {
        let mut traffic = Traffic::new(2);
        for (i, net) in [9.0, 4.5, 7.0].into_iter().enumerate() {
            let at = 100.0 * i as f64;
            traffic.packet((0, 1), 10 + 2 * i as u32, (0, 100, 100), at, Delays { net, ..Delays::USUAL });
        }
        traffic.grant((1, 0), 11, 1000, 900, 50.0, Delays { net: 3.5, ..Delays::USUAL });
        let report = MinLatency.run(&traffic.model(), &Options::default());
        let table = report.table("minlatency").unwrap();
        assert_eq!((table.get(0, "node2_us"), table.get(1, "node1_us")), (&4.5.into(), &3.5.into()));
        assert_eq!(table.get(0, "node1_us"), &Cell::None);
    }
}
