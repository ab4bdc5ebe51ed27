//! `rxbufs`: how much memory do receive buffers need, if a core's are freed in order? Source: timetrace.md 5.34.
//!
//! The page cache of a NIC's channel is a queue: a page can be used again only if all older ones are free. So the memory in
//! use when a packet is freed is all that its core received from that packet on.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::samples::us;
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{AMBIGUOUS, Have, Kind, Kinds};
use crate::model::{Flight, Model};
use crate::packets::UNSEEN;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct RxBufs;

impl Analyzer for RxBufs {
    fn about(&self) -> &'static About {
        &About {
            name: "rxbufs",
            question: "How much memory do receive buffers of each GRO core need, if they are freed in order?",
            source: "timetrace.md 5.34",
            needs: Needs::All(&[Kind::GroData, Kind::CopyOutDone, Kind::FreeSkbs]),
            uses: &[],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::of(&[Kind::CopyOutDone, Kind::FreeSkbs])
    }

    fn run(&self, model: &Model, _: &Options) -> Report {
        let mut table = Table::new("buffers", "Most bytes received by a core from a packet on until it was freed:")
            .column("Active", Unit::Bytes, "")
            .column("PktId", Unit::None, "that packet, as on the receiver")
            .column("Node", Unit::None, "")
            .column("Core", Unit::None, "")
            .column("GRO", Unit::Us, "")
            .decimals(3)
            .column("Free", Unit::Us, "")
            .decimals(3)
            .column("Life", Unit::Us, "");
        let freed = freed(model);
        let mut cores: BTreeMap<(u16, u16), Vec<usize>> = BTreeMap::new();
        for (i, f) in model.flights().data.iter().enumerate().filter(|(_, f)| f.gro != UNSEEN) {
            cores.entry((f.to, f.gro_core)).or_default().push(i);
        }
        let mut rows: Vec<(u64, &Flight, i64)> = Vec::new();
        for packets in cores.values_mut() {
            packets.sort_by_key(|i| model.flights().data[*i].gro);
            let flights: Vec<(&Flight, i64)> = packets.iter().map(|i| (&model.flights().data[*i], freed[*i])).collect();
            rows.extend(worst(&flights));
        }
        rows.sort_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
        for (bytes, f, free) in rows {
            table.row([
                bytes.into(),
                format!("{}:{}", f.id ^ 1, f.offset).into(),
                model.name(f.to).into(),
                f.gro_core.into(),
                us(Some(f.gro)),
                us(Some(free)),
                us(Some(free - f.gro)),
            ]);
        }
        Report::of([table])
    }
}

/// The packet with the most bytes received from it on until it was freed, of one core in the order of arrival.
fn worst<'a>(packets: &[(&'a Flight, i64)]) -> Option<(u64, &'a Flight, i64)> {
    let mut sums = vec![0u64];
    packets.iter().for_each(|(f, _)| sums.push(sums[sums.len() - 1] + u64::from(f.length)));
    let active = |(i, (f, free)): (usize, &(&'a Flight, i64))| {
        let until = packets.partition_point(|(other, _)| other.gro <= *free);
        // A buffer that is freed before its packet is received is none.
        (*free != UNSEEN && until > i).then(|| (sums[until] - sums[i], *f, *free))
    };
    // The first of equals.
    packets.iter().enumerate().filter_map(active).reduce(|a, b| if b.0 > a.0 { b } else { a })
}

/// When the buffer of each data flight was freed.
fn freed(model: &Model) -> Vec<i64> {
    let (rpcs, flights) = (model.rpcs(), model.flights());
    let mut out = vec![UNSEEN; flights.data.len()];
    // Flights of each message by offset.
    let mut order: Vec<u32> = (0..flights.data.len() as u32).filter(|i| flights.data[*i as usize].arrived()).collect();
    order.sort_by_key(|i| (flights.data[*i as usize].message, flights.data[*i as usize].offset));
    let key = |i: u32| (flights.data[i as usize].message, flights.data[i as usize].offset);
    for (node, trace) in model.traces.iter().enumerate() {
        let offset = model.clock.offset(node).unwrap_or(0);
        let mut copied: FxHashMap<u16, Vec<u32>> = FxHashMap::default();
        for record in trace.records.iter().filter(|r| r.client != AMBIGUOUS) {
            match record.kind {
                Kind::CopyOutDone => {
                    let place = rpcs.place(record.client, record.id);
                    if let Some(message) = place.and_then(|place| rpcs.incoming(place)) {
                        let start =
                            if record.have.has(Have::B) { record.a.saturating_sub(record.b) } else { record.offset };
                        let from = order.partition_point(|i| key(*i) < (message, start));
                        let to = order.partition_point(|i| key(*i) < (message, record.a.max(start)));
                        copied.entry(record.core).or_default().extend(&order[from..to]);
                    }
                }
                Kind::FreeSkbs => {
                    for i in copied.remove(&record.core).into_iter().flatten() {
                        out[i as usize] = record.time + offset;
                    }
                }
                _ => {}
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn what_a_core_received_meanwhile_counts() {
        let mut traffic = Traffic::new(2);
        traffic.message((0, 1), 10, 2800, 0.0, Delays::USUAL);
        traffic.message((0, 1), 12, 7000, 20.0, Delays::USUAL);
        traffic.message((0, 1), 14, 7000, 500.0, Delays::USUAL);
        traffic.event(1, 3, 50.0, "copied out bytes 0-7000 for id 13").event(
            1,
            3,
            51.0,
            "finished freeing 5 skbs for id 13",
        );
        traffic.event(1, 3, 100.0, "copied out bytes 0-2800 for id 11").event(
            1,
            3,
            101.0,
            "finished freeing 2 skbs for id 11",
        );
        let report = RxBufs.run(&traffic.model(), &Options::default());
        let table = report.table("buffers").unwrap();
        assert_eq!((table.get(0, "active_bytes"), table.get(0, "pkt_id")), (&9800u32.into(), &"11:0".into()));
        assert_eq!((table.get(0, "life_us"), table.rows.len()), (&95.5.into(), 1));
    }
}
