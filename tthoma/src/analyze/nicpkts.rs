//! `nicpkts` and `nicsnapshot`: which frames does the NIC own when one of them is given back, and at one moment? Source:
//! timetrace.md 5.19, 5.21.

use std::collections::BTreeMap;

use super::owned::{self, Owned};
use super::packet_list;
use super::samples::{kb, ns, us};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::{Flight, Model};
use crate::packets::UNSEEN;

/// `nicpkts`; see [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct NicPkts;

/// `nicsnapshot`; see [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct NicSnapshot;

/// Frames that a line of `nicpkts` names at most.
const NAMED: usize = 64;

impl Analyzer for NicPkts {
    fn about(&self) -> &'static About {
        &About {
            name: "nicpkts",
            question: "Which frames does the NIC own whenever it gives one back, and in which order does it serve them?",
            source: "timetrace.md 5.19",
            needs: Needs::All(&[Kind::NicData, Kind::FreeTxSkb]),
            uses: &[Kind::SendData, Kind::TcpNic, Kind::TcpFree],
            options: &["node"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut summary = Table::new("order", "Place of a frame among all that the NIC owns when it is given back:")
            .column("Node", Unit::None, "")
            .column("Freed", Unit::None, "frames given back")
            .column("InOrder", Unit::Share, "share of them that were the oldest")
            .column("MaxSlot", Unit::None, "most older ones");
        let mut report = Report::default();
        let mut all_owned = owned::collect(model);
        for (node, ..) in model.spans() {
            let owned = std::mem::take(&mut all_owned[usize::from(node)]);
            if options.node.as_ref().is_some_and(|name| model.node(name) != Some(node)) {
                continue;
            }
            let mut table = Table::series("nicpkts", &model.name(node), "Frames of the NIC when one is given back")
                .column("Freed", Unit::Us, "")
                .column("Qid", Unit::None, "")
                .column("Slot", Unit::None, "older frames that the NIC owned")
                .column("Bytes", Unit::Bytes, "")
                .column("Queued", Unit::Us, "when the NIC got it")
                .column("Owned", Unit::None, "frames that the NIC owned")
                .column("Frames", Unit::None, "the oldest of them, as time:queue:bytes; * is the freed one");
            let (mut freed, mut first, mut deepest) = (0u64, 0u64, 0usize);
            for (o, open, slot) in history(&owned) {
                freed += 1;
                first += u64::from(slot == 0);
                deepest = deepest.max(slot);
                if options.data.is_some() {
                    let show = |other: &Owned| {
                        format!("{:.3}:{}:{}", other.from as f64 / 1000.0, other.queue as i32, other.bytes)
                    };
                    let names: Vec<String> = open
                        .iter()
                        .enumerate()
                        .map(|(i, other)| if i == slot { "*".into() } else { show(other) })
                        .collect();
                    table.row([
                        us(Some(o.to)),
                        (o.queue as i32).into(),
                        slot.into(),
                        o.bytes.into(),
                        us(Some(o.from)),
                        open.len().into(),
                        names.join(",").into(),
                    ]);
                }
            }
            summary.row([
                model.name(node).into(),
                freed.into(),
                super::samples::share(first as f64, freed as f64),
                deepest.into(),
            ]);
            if options.data.is_some() {
                report.tables.push(table);
            }
        }
        report.tables.insert(0, summary);
        report
    }
}

/// Each frame that is given back, with the oldest that the NIC owns then, and how many are older. A frame's place is found
/// by counting in a tree, so that long queues cost little.
fn history(owned: &[Owned]) -> impl Iterator<Item = (&Owned, Vec<&Owned>, usize)> {
    let mut freed: Vec<usize> = (0..owned.len()).filter(|i| owned[*i].free).collect();
    freed.sort_by_key(|i| owned[*i].to);
    let mut open: std::collections::BTreeSet<usize> = std::collections::BTreeSet::new();
    let mut counts = Counts(vec![0; owned.len() + 1]);
    let mut next = 0;
    freed.into_iter().map(move |i| {
        while next < owned.len() && owned[next].from <= owned[i].to {
            open.insert(next);
            counts.add(next, 1);
            next += 1;
        }
        let slot = counts.before(i);
        let oldest = open.iter().take(NAMED).map(|j| &owned[*j]).collect();
        open.remove(&i);
        counts.add(i, -1);
        (&owned[i], oldest, slot)
    })
}

/// A Fenwick tree: numbers by place, and their sums.
struct Counts(Vec<i64>);

impl Counts {
    fn add(&mut self, place: usize, amount: i64) {
        let mut i = place + 1;
        while i < self.0.len() {
            self.0[i] += amount;
            i += i & i.wrapping_neg();
        }
    }

    /// Sum of all numbers before a place.
    fn before(&self, place: usize) -> usize {
        let (mut i, mut sum) = (place, 0);
        while i > 0 {
            sum += self.0[i];
            i &= i - 1;
        }
        sum.max(0) as usize
    }
}

const WINDOWS: [f64; 4] = [10.0, 20.0, 50.0, 100.0];

impl Analyzer for NicSnapshot {
    fn about(&self) -> &'static About {
        &About {
            name: "nicsnapshot",
            question: "What is in each transmit queue of a node's NIC at one moment?",
            source: "timetrace.md 5.21",
            needs: Needs::All(&[Kind::NicData, Kind::FreeTxSkb]),
            uses: &[Kind::SendData, Kind::TcpNic, Kind::TcpFree],
            options: &["node", "time", "sort"],
            requires: &["node", "time"],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let name = options.node.as_deref().unwrap_or_default();
        let Some(node) = model.node(name) else {
            return Report { warnings: vec![format!("nicsnapshot: no trace of a node `{name}`")], ..Report::default() };
        };
        let time = ns(options.time.unwrap_or(0.0));
        let owned = owned::collect(model).swap_remove(usize::from(node));
        let mut queues: BTreeMap<Option<u32>, Vec<&Owned>> = BTreeMap::new();
        owned.iter().for_each(|o| queues.entry(Some(o.queue)).or_default().push(o));
        let mut table = Table::new(
            "queues",
            format!("Transmit queues of {name} at {} us, bytes with headers:", options.time.unwrap_or(0.0)),
        )
        .column("Qid", Unit::None, "")
        .column("Pkts", Unit::None, "frames that the NIC owns")
        .column("KB", Unit::Kb, "")
        .column("Oldest", Unit::Us, "when the NIC got the oldest of them")
        .decimals(3)
        .column("ODiff", Unit::Us, "its age")
        .column("RecFree", Unit::Us, "when a frame was last given back")
        .decimals(3)
        .column("RFDiff", Unit::Us, "how long ago that is");
        for prefix in ["Q", "F"] {
            for window in WINDOWS {
                let meaning = if prefix == "Q" { "given to the NIC in the last so many us" } else { "given back" };
                table = table.column(format!("{prefix}{window}"), Unit::Kb, meaning);
            }
        }
        for (queue, frames) in &queues {
            let id = queue.filter(|q| *q != u32::MAX).map_or(Cell::Text("?".into()), Cell::from);
            table.row(std::iter::once(id).chain(cells(frames, time)));
        }
        let all: Vec<&Owned> = owned.iter().collect();
        table.row(std::iter::once("Total".into()).chain(cells(&all, time)));
        let mut inside: Vec<Flight> = (model.flights().data.iter().chain(&model.flights().tcp))
            .filter(|f| {
                f.from == node && f.head && f.nic != UNSEEN && f.nic < time && (f.free == UNSEEN || f.free > time)
            })
            .copied()
            .collect();
        let unknown = packet_list::sort(&mut inside, &options.sort, &["Qid", "Xmit"]);
        let mut list = packet_list::table("packets", "Frames that the NIC owns then:");
        packet_list::fill(&mut list, model, &inside, usize::MAX);
        let mut report = Report::of([table, list]);
        report.warnings.extend(packet_list::unknown_keys("nicsnapshot", &unknown, packet_list::KEYS));
        report
    }
}

fn cells(frames: &[&Owned], time: i64) -> Vec<Cell> {
    let inside = || frames.iter().filter(|o| o.from < time && o.to > time);
    let oldest = inside().filter(|o| o.nic).map(|o| o.from).min();
    let recent = frames.iter().filter(|o| o.free && o.to < time).map(|o| o.to).max();
    let bytes: f64 = inside().map(|o| o.wire).sum();
    let mut cells: Vec<Cell> = vec![inside().count().into(), kb(bytes).into()];
    cells.extend([us(oldest), us(oldest.map(|t| time - t)), us(recent), us(recent.map(|t| time - t))]);
    for back in [false, true] {
        for window in WINDOWS {
            let recent = |at: i64| at <= time && at > time - ns(window);
            let in_window =
                frames.iter().filter(|o| if back { o.free && recent(o.to) } else { o.nic && recent(o.from) });
            cells.push(kb(in_window.map(|o| o.wire).sum::<f64>()).into());
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    fn traffic() -> Traffic {
        let mut traffic = Traffic::new(2);
        traffic.event(0, 0, 0.0, "homa_softirq starting").event(0, 0, 500.0, "homa_softirq starting");
        // Given to the NIC at 10.5, 20.5 and 30.5; back at 80.5, 50.5 and 90.5.
        for (i, free) in [70.0, 30.0, 60.0].into_iter().enumerate() {
            let at = 10.0 * (i + 1) as f64;
            traffic.packet((0, 1), 10 + 2 * i as u32, (0, 1000, 1000), at, Delays { free, ..Delays::USUAL });
        }
        traffic
    }

    #[test]
    fn slots_show_the_order_of_service() {
        let options = Options { data: Some("x".into()), ..Options::default() };
        let report = NicPkts.run(&traffic().model(), &options);
        let order = report.table("order").unwrap();
        assert_eq!((order.get(0, "freed"), order.get(0, "max_slot")), (&3u32.into(), &1u32.into()));
        let table = report.table("nicpkts_node1").unwrap();
        assert_eq!(
            (table.get(0, "slot"), table.get(0, "owned"), table.get(1, "slot")),
            (&1u32.into(), &3u32.into(), &0u32.into())
        );
        assert_eq!(table.get(0, "frames"), &"10.500:4:1000,*,30.500:4:1000".into());
    }

    #[test]
    fn a_snapshot_has_what_is_inside_at_the_moment() {
        let options = |time| Options { node: Some("node1".into()), time: Some(time), ..Options::default() };
        let report = NicSnapshot.run(&traffic().model(), &options(60.0));
        let table = report.table("queues").unwrap();
        let number = |key: &str| table.get(0, key).number().unwrap();
        assert_eq!(
            [number("qid"), number("pkts"), number("kb"), number("oldest_us"), number("odiff_us")],
            [4.0, 2.0, 2.16, 10.5, 49.5]
        );
        assert_eq!([number("rfdiff_us"), number("q20_kb"), number("q50_kb"), number("f10_kb")], [9.5, 0.0, 3.24, 1.08]);
        assert_eq!(report.table("packets").unwrap().rows.len(), 2);
        let empty = NicSnapshot.run(&traffic().model(), &options(5.0));
        assert_eq!(empty.table("queues").unwrap().get(0, "oldest_us"), &Cell::None, "nothing instead of 1e20");
    }
}
