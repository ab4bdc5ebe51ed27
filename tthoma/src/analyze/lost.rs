//! `lost`: which packets vanished for good? Source: timetrace.md 5.13.
//!
//! A packet is lost if it was sent and nothing shows that any of its transmissions arrived, although the receiver's trace
//! covers the 200 us after it was sent. [`loss`](super::loss) accounts for each transmission.

use rustc_hash::FxHashMap;

use super::samples::{share, us};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::{Flight, Model, NOWHERE};
use crate::packets::UNSEEN;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Lost;

/// What arrives later than that is lost, ns.
const LIMIT: i64 = 200_000;

impl Analyzer for Lost {
    fn about(&self) -> &'static About {
        &About {
            name: "lost",
            question: "Which packets were sent and never arrived, and how many were sent again?",
            source: "timetrace.md 5.13",
            needs: Needs::All(&[Kind::IpXmit, Kind::GroData]),
            uses: &[Kind::Retransmit],
            options: &["top"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut core_of: FxHashMap<(u16, u16), (i64, u16)> = FxHashMap::default();
        let mut vanished: Vec<&Flight> = Vec::new();
        let mut packets = 0u64;
        for one in model.flights().data.chunk_by(|a, b| (a.message, a.offset) == (b.message, b.offset)) {
            packets += 1;
            match one.iter().find(|f| f.arrived()) {
                Some(f) if f.gro != UNSEEN => {
                    let latest = core_of.entry((f.from, f.to)).or_insert((f.gro, f.gro_core));
                    *latest = (*latest).max((f.gro, f.gro_core));
                }
                Some(_) => {}
                None => vanished.extend(one.iter().find(|f| f.xmit != UNSEEN && covered(model, f))),
            }
        }
        vanished.sort_by_key(|f| f.xmit);
        let again: u64 = model.rpcs().sides.iter().map(|s| u64::from(s.retransmits)).sum();
        let mut summary = Table::new("summary", "Data packets of all nodes:")
            .column("Packets", Unit::None, "")
            .column("Lost", Unit::None, "never received, whatever was done about it")
            .column("LostFrac", Unit::Share, "")
            .decimals(5)
            .column("Retransmitted", Unit::None, "ranges sent again")
            .column("RtxFrac", Unit::Share, "")
            .decimals(5);
        let frac = |n: u64| share(n as f64, packets as f64);
        let lost = vanished.len() as u64;
        summary.row([packets.into(), lost.into(), frac(lost), again.into(), frac(again)]);
        let core = |f: &Flight| core_of.get(&(f.from, f.to)).map(|(_, core)| *core);
        let mut report = Report::of([summary, nodes(model, &vanished), list(model, &vanished, options, core)]);
        if vanished.len() > options.top && !options.verbose {
            report.notes.push(format!(
                "{} more lost packets are not listed (--top N, --verbose)",
                vanished.len() - options.top
            ));
        }
        report
    }
}

/// True if the receiver's trace would show the packet.
fn covered(model: &Model, f: &Flight) -> bool {
    f.from != NOWHERE
        && f.to != NOWHERE
        && model.comparable(f.from, f.to)
        && model.span(f.to).is_some_and(|(first, last)| f.xmit >= first && f.xmit + LIMIT <= last)
}

fn nodes(model: &Model, vanished: &[&Flight]) -> Table {
    let mut table = Table::new("nodes", "By node:")
        .column("Node", Unit::None, "")
        .column("TxLost", Unit::None, "lost packets that it sent")
        .column("RxLost", Unit::None, "lost packets that were for it")
        .column("Retrans", Unit::None, "ranges that it sent again");
    for (node, ..) in model.spans() {
        let count = |of: fn(&Flight) -> u16| vanished.iter().filter(|f| of(f) == node).count();
        let again: u64 = model.rpcs().sides.iter().filter(|s| s.node == node).map(|s| u64::from(s.retransmits)).sum();
        table.row([model.name(node).into(), count(|f| f.from).into(), count(|f| f.to).into(), again.into()]);
    }
    table
}

fn list(model: &Model, vanished: &[&Flight], options: &Options, core: impl Fn(&Flight) -> Option<u16>) -> Table {
    let mut table = Table::new("packets", "Lost packets:")
        .column("Xmit", Unit::Us, "")
        .decimals(3)
        .column("TxNode", Unit::None, "")
        .column("RxNode", Unit::None, "")
        .column("RxCore", Unit::None, "GRO core of the last packet that arrived between the two nodes")
        .column("RpcId", Unit::None, "on the sender")
        .column("Offset", Unit::None, "");
    let top = if options.verbose { usize::MAX } else { options.top };
    for f in vanished.iter().take(top) {
        let core: Cell = core(f).into();
        table.row([
            us(Some(f.xmit)),
            model.name(f.from).into(),
            model.name(f.to).into(),
            core,
            f.id.into(),
            f.offset.into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn every_packet_that_was_dropped_is_found() {
        let mut traffic = Traffic::new(2);
        traffic.event(1, 0, 0.0, "homa_softirq starting").event(1, 0, 3000.0, "homa_softirq starting");
        for i in 0..50u32 {
            traffic.message((0, 1), 10 + 2 * i, 2800, 50.0 * f64::from(i), Delays::USUAL);
        }
        // Every tenth message loses its second packet; one of these is sent again and arrives.
        for i in (0..50u32).step_by(10) {
            let id = 11 + 2 * i;
            traffic.remove(1, |text| text.contains(&format!(" id {id},")) && text.contains("offset 1400"));
        }
        traffic.event(0, 3, 2600.0, "retransmitting offset 1400, length 1400, id 10");
        traffic.packet((0, 1), 10, (1400, 1400, 2800), 2601.0, Delays::USUAL);
        let report = Lost.run(&traffic.model(), &Options::default());
        let summary = report.table("summary").unwrap();
        assert_eq!(
            (summary.get(0, "packets"), summary.get(0, "lost"), summary.get(0, "retransmitted")),
            (&100u32.into(), &4u32.into(), &1u32.into())
        );
        let nodes = report.table("nodes").unwrap();
        assert_eq!(
            (nodes.get(0, "tx_lost"), nodes.get(1, "rx_lost"), nodes.get(0, "retrans")),
            (&4u32.into(), &4u32.into(), &1u32.into())
        );
        let list = report.table("packets").unwrap();
        assert_eq!(
            (list.get(0, "rpc_id"), list.get(0, "offset"), list.get(0, "rx_core")),
            (&30u32.into(), &1400u32.into(), &1u16.into())
        );
    }

    #[test]
    fn what_the_trace_s_end_may_hide_is_not_lost() {
        let mut traffic = Traffic::new(2);
        traffic.message((0, 1), 10, 2800, 0.0, Delays::USUAL);
        traffic.remove(1, |text| text.contains("offset 1400"));
        let report = Lost.run(&traffic.model(), &Options::default());
        assert_eq!(report.table("summary").unwrap().get(0, "lost"), &0u32.into());
    }
}
