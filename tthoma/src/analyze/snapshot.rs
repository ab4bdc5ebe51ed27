//! `rxsnapshot` and `txsnapshot`: what is the state of a node's incoming, or outgoing, messages at one moment? Source:
//! timetrace.md 5.35, 5.44.
//!
//! For each stage, the end of the bytes that have reached it before the moment. What was seen at a later stage has been at
//! the earlier ones.

use rustc_hash::FxHashMap;

use super::live;
use super::samples::{kb, ns, us};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::flights::{first_seen, seen, since};
use crate::model::{Flight, Model, Side};
use crate::packets::UNSEEN;

/// `rxsnapshot`; see [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct RxSnapshot;

/// `txsnapshot`; see [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct TxSnapshot;

const NEEDS: Needs = Needs::All(&[Kind::IpXmit, Kind::GroData]);
const USES: &[Kind] =
    &[Kind::NicData, Kind::SoftirqData, Kind::SendGrant, Kind::GroGrant, Kind::SoftirqGrant, Kind::CopyOutDone];
/// What has not come after so long is lost, ns.
const LATE: i64 = 200_000;

/// Progress of a message at a moment, bytes from its start.
#[derive(Clone, Debug, Default)]
struct Progress {
    id: u32,
    peer: Option<u16>,
    start: i64,
    length: Option<u32>,
    /// Granted: sent, at GRO, in SoftIRQ of the sender.
    granted: [u32; 3],
    level: Option<u8>,
    /// Data: passed to IP, to the NIC, at GRO, in SoftIRQ of the receiver.
    reached: [u32; 4],
    /// Copied to the application.
    copied: u32,
    lost: u64,
    /// Packets and grants that are on their way.
    underway: Vec<Flight>,
}

impl Progress {
    fn of(model: &Model, message: u32, side: &Side, peer: Option<u16>, start: i64, time: i64) -> Self {
        let flights = model.flights();
        let (data, grants) = (flights.data_of(message), flights.grants_for(model.rpcs(), message));
        let mut this = Self { id: side.id, peer, start, ..Self::default() };
        this.length = model.packets.messages[message as usize].length;
        let before = |t: i64| t != UNSEEN && t < time;
        let ends: [fn(&Flight) -> i64; 4] = [|f| f.xmit, |f| f.nic, |f| f.gro, |f| f.softirq];
        for f in data {
            let end = f.offset + if f.head { f.frame.max(f.length) } else { f.length };
            for (stage, of) in ends.iter().enumerate() {
                let end = if stage < 2 { end } else { f.data_end() };
                if before(of(f)) {
                    this.reached[stage] = this.reached[stage].max(end);
                }
            }
            let left = first_seen(&[f.nic, f.xmit]);
            if before(left) && f.gro == UNSEEN && time - left > LATE {
                this.lost += 1;
            } else if before(f.xmit) && !before(f.softirq) {
                this.underway.push(*f);
            }
        }
        // What reached a later stage has passed the earlier ones.
        (0..3).rev().for_each(|i| this.reached[i] = this.reached[i].max(this.reached[i + 1]));
        for f in grants {
            for (stage, at) in [f.xmit, f.gro, f.softirq].into_iter().enumerate() {
                if before(at) && f.offset >= this.granted[stage] {
                    this.granted[stage] = f.offset;
                    this.level = f.level().or(this.level);
                }
            }
            if before(f.xmit) && !before(f.softirq) {
                this.underway.push(*f);
            }
        }
        (0..2).rev().for_each(|i| this.granted[i] = this.granted[i].max(this.granted[i + 1]));
        this
    }

    fn remaining(&self, stage: usize) -> Option<u32> {
        self.length.map(|length| length.saturating_sub(self.reached[stage]))
    }

    /// Grants that were seen; unknown if there was none.
    fn grant(&self, stage: usize) -> Option<u32> {
        Some(self.granted[stage]).filter(|g| *g > 0)
    }
}

/// Node and moment that the options name.
fn place(name: &str, model: &Model, options: &Options) -> Result<(u16, i64), Report> {
    let node = options.node.as_deref().unwrap_or_default();
    let known = model.node(node).map(|node| (node, ns(options.time.unwrap_or(0.0))));
    known.ok_or_else(|| Report { warnings: vec![format!("{name}: no trace of a node `{node}`")], ..Report::default() })
}

/// Messages that are live at the moment; those with the fewest bytes to come first.
fn all(model: &Model, node: u16, time: i64, incoming: bool) -> Vec<Progress> {
    let rpcs = model.rpcs();
    let copied = copied(model, time);
    let mut out = Vec::new();
    for (i, side) in rpcs.sides.iter().enumerate().filter(|(_, side)| side.node == node) {
        let range = if incoming { live::incoming(model, i) } else { live::outgoing(model, i) };
        let message = if incoming { rpcs.incoming(i) } else { rpcs.outgoing(i) };
        if let (Some((start, end)), Some(message)) = (range, message)
            && (start..end).contains(&time)
        {
            let peer = rpcs.other(side).map(|s| s.node);
            let receiver = if incoming { side.id } else { side.id ^ 1 };
            let copied = copied.get(&(side.client, receiver)).copied().unwrap_or(0);
            out.push(Progress { copied, ..Progress::of(model, message, side, peer, start, time) });
        }
    }
    let stage = if incoming { 3 } else { 0 };
    out.sort_by_key(|p| (incoming && p.reached[2] == 0, p.remaining(stage).unwrap_or(u32::MAX), p.start));
    out
}

/// Bytes that each side's application has at the moment, by client and id.
fn copied(model: &Model, time: i64) -> FxHashMap<(u16, u32), u32> {
    let mut out: FxHashMap<(u16, u32), u32> = FxHashMap::default();
    for (node, trace) in model.traces.iter().enumerate() {
        let offset = model.clock.offset(node).unwrap_or(0);
        let before = trace.records.iter().filter(|r| r.kind == Kind::CopyOutDone && r.time + offset < time);
        for record in before {
            let end = out.entry((record.client, record.id)).or_default();
            *end = (*end).max(record.a);
        }
    }
    out
}

fn name(model: &Model, node: Option<u16>) -> Cell {
    node.map(|n| model.name(n)).into()
}

impl Analyzer for RxSnapshot {
    fn about(&self) -> &'static About {
        &About {
            name: "rxsnapshot",
            question: "What is the state of a node's incoming messages at one moment?",
            source: "timetrace.md 5.35",
            needs: NEEDS,
            uses: USES,
            options: &["node", "time"],
            requires: &["node", "time"],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::of(&[Kind::CopyOutDone])
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let (node, time) = match place("rxsnapshot", model, options) {
            Ok(found) => found,
            Err(report) => return report,
        };
        let messages = all(model, node, time, true);
        let mut table = Table::new(
            "messages",
            format!("{} incoming messages, ends of the bytes that have reached each stage:", messages.len()),
        )
        .column("Id", Unit::None, "on the receiver")
        .column("Peer", Unit::None, "")
        .column("Start", Unit::Us, "")
        .column("Length", Unit::Bytes, "")
        .column("Rem", Unit::Bytes, "not yet in SoftIRQ");
        for (title, meaning) in [
            ("GXmit", "granted"),
            ("GGro", "granted, grant at the sender's GRO"),
            ("GSoft", "granted, grant in the sender's SoftIRQ"),
            ("Xmit", "passed to IP"),
            ("Nic", "passed to the NIC"),
            ("Gro", "at GRO"),
            ("SoftIrq", "in SoftIRQ"),
            ("Copied", "copied to the application"),
            ("Incoming", "granted and not in SoftIRQ"),
        ] {
            table = table.column(title, Unit::Bytes, meaning);
        }
        table = table.column("Lost", Unit::None, "packets sent more than 200 us ago that never came").column(
            "Prio",
            Unit::None,
            "of the newest grant",
        );
        for p in &messages {
            table.row([
                p.id.into(),
                name(model, p.peer),
                us(seen(p.start)),
                p.length.into(),
                p.remaining(3).into(),
                p.grant(0).into(),
                p.grant(1).into(),
                p.grant(2).into(),
                p.reached[0].into(),
                p.reached[1].into(),
                p.reached[2].into(),
                p.reached[3].into(),
                p.copied.into(),
                p.grant(0).map(|g| i64::from(g) - i64::from(p.reached[3])).into(),
                p.lost.into(),
                p.level.map(u32::from).into(),
            ]);
        }
        let mut total = Table::new("totals", "Passed to IP, but not in SoftIRQ:")
            .column("What", Unit::None, "")
            .column("KB", Unit::Kb, "");
        let bytes: f64 = messages.iter().map(|p| f64::from(p.reached[0].saturating_sub(p.reached[3]))).sum();
        total.row(["all messages".into(), kb(bytes).into()]);
        let data = messages.iter().flat_map(|p| &p.underway).filter(|f| f.message_length > 0 || f.length > 0);
        let mut levels: std::collections::BTreeMap<u8, f64> = std::collections::BTreeMap::new();
        data.filter_map(|f| f.level().map(|l| (l, f)))
            .for_each(|(l, f)| *levels.entry(l).or_default() += f64::from(f.length));
        for (level, bytes) in levels.iter().rev() {
            total.row([format!("level {level}").into(), kb(*bytes).into()]);
        }
        Report::of([table, total, underway(&messages, time)])
    }
}

/// Packets and grants of live messages that are on their way.
fn underway(messages: &[Progress], time: i64) -> Table {
    let mut table = Table::new("packets", "Packets and grants on their way:")
        .column("Id", Unit::None, "on the sender")
        .column("Offset", Unit::None, "of grants, the limit")
        .column("What", Unit::None, "");
    for (title, meaning) in [("Xmit", "passed to IP"), ("Nic", ""), ("Gro", ""), ("SoftIrq", "")] {
        table = table.column(title, Unit::Us, meaning).decimals(3);
    }
    table = table.column("Age", Unit::Us, "since it was passed to IP").column("Core", Unit::None, "of GRO").column(
        "Prio",
        Unit::None,
        "",
    );
    for f in messages.iter().flat_map(|p| &p.underway) {
        let what = match (f.carries, f.gro != UNSEEN && f.gro < time) {
            (crate::model::Carries::Grant, _) => "grant",
            (_, true) => "data in GRO",
            (_, false) if f.nic != UNSEEN && f.nic < time => "data in the network",
            _ => "data in the sender",
        };
        table.row([
            f.id.into(),
            f.offset.into(),
            what.into(),
            us(seen(f.xmit)),
            us(seen(f.nic)),
            us(seen(f.gro)),
            us(seen(f.softirq)),
            us(since(f.xmit, time)),
            f.arrived().then_some(f.gro_core).into(),
            f.level().map(u32::from).into(),
        ]);
    }
    table
}

impl Analyzer for TxSnapshot {
    fn about(&self) -> &'static About {
        &About {
            name: "txsnapshot",
            question: "What is the state of a node's outgoing messages at one moment?",
            source: "timetrace.md 5.44",
            needs: NEEDS,
            uses: USES,
            options: &["node", "time"],
            requires: &["node", "time"],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::of(&[Kind::CopyOutDone])
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let (node, time) = match place("txsnapshot", model, options) {
            Ok(found) => found,
            Err(report) => return report,
        };
        let messages = all(model, node, time, false);
        let mut table = Table::new(
            "messages",
            format!("{} outgoing messages, ends of the bytes that have reached each stage:", messages.len()),
        )
        .column("Id", Unit::None, "on the sender")
        .column("Peer", Unit::None, "")
        .column("Length", Unit::Bytes, "");
        for (title, meaning) in [
            ("Window", "known as granted and not sent"),
            ("TxRem", "not passed to IP"),
            ("GXmit", "granted by the receiver"),
            ("GGro", "granted, grant at GRO"),
            ("GSoft", "granted, grant in SoftIRQ"),
            ("Xmit", "passed to IP"),
            ("Nic", "passed to the NIC"),
            ("Gro", "at the receiver's GRO"),
            ("SoftIrq", "in the receiver's SoftIRQ"),
            ("Copied", "copied to the receiver's application"),
            ("Incoming", "granted and not in SoftIRQ"),
        ] {
            table = table.column(title, Unit::Bytes, meaning);
        }
        table = table.column("Lost", Unit::None, "packets sent more than 200 us ago that never came");
        for p in &messages {
            let minus = |grant: Option<u32>, reached: u32| grant.map(|g| i64::from(g) - i64::from(reached));
            table.row([
                p.id.into(),
                name(model, p.peer),
                p.length.into(),
                minus(p.grant(2), p.reached[0]).into(),
                p.remaining(0).into(),
                p.grant(0).into(),
                p.grant(1).into(),
                p.grant(2).into(),
                p.reached[0].into(),
                p.reached[1].into(),
                p.reached[2].into(),
                p.reached[3].into(),
                p.copied.into(),
                minus(p.grant(0), p.reached[3]).into(),
                p.lost.into(),
            ]);
        }
        Report::of([table, underway(&messages, time)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    fn traffic() -> Traffic {
        let mut traffic = Traffic::new(2);
        for node in 0..2 {
            traffic.event(node, 0, 0.0, "homa_softirq starting").event(node, 0, 5000.0, "homa_softirq starting");
        }
        traffic.event(0, 3, 90.0, "homa_sendmsg request, target 0xa000103:4000, id 10, length 9000");
        // To IP at 100, 110, ...; NIC 0.5, GRO 15.5, SoftIRQ 25.5 later.
        let d = Delays { net: 15.0, softirq: 10.0, gap: 10.0, ..Delays::USUAL };
        for i in 0..4u32 {
            traffic.packet((0, 1), 10, (1400 * i, 1400, 9000), 100.0 + 10.0 * f64::from(i), d);
        }
        traffic.grant((1, 0), 11, 5600, 1400, 126.0, Delays::USUAL);
        traffic.event(1, 3, 127.0, "copied out bytes 0-1400 for id 11").event(
            1,
            3,
            140.0,
            "copied out bytes 1400-2800 for id 11",
        );
        traffic
    }

    fn options(node: &str, time: f64) -> Options {
        Options { node: Some(node.into()), time: Some(time), ..Options::default() }
    }

    #[test]
    fn incoming_messages_at_a_moment() {
        let report = RxSnapshot.run(&traffic().model(), &options("node2", 128.0));
        let table = report.table("messages").unwrap();
        let number = |key: &str| table.get(0, key).number().unwrap();
        assert_eq!(
            [number("xmit_bytes"), number("nic_bytes"), number("gro_bytes"), number("soft_irq_bytes")],
            [4200.0, 4200.0, 2800.0, 1400.0]
        );
        assert_eq!(
            [number("rem_bytes"), number("gxmit_bytes"), number("incoming_bytes"), number("copied_bytes")],
            [7600.0, 5600.0, 4200.0, 1400.0]
        );
        assert_eq!(table.get(0, "ggro_bytes"), &Cell::None, "the grant has not come");
        assert_eq!(report.table("totals").unwrap().get(0, "kb"), &2.8.into());
        assert_eq!(report.table("packets").unwrap().rows.len(), 3);
        assert!(RxSnapshot.run(&traffic().model(), &options("node2", 80.0)).table("messages").unwrap().rows.is_empty());
    }

    #[test]
    fn outgoing_messages_at_a_moment() {
        let report = TxSnapshot.run(&traffic().model(), &options("node1", 134.0));
        let table = report.table("messages").unwrap();
        let number = |key: &str| table.get(0, key).number().unwrap();
        assert_eq!(
            [number("length_bytes"), number("tx_rem_bytes"), number("gsoft_bytes"), number("window_bytes")],
            [9000.0, 3400.0, 5600.0, 0.0]
        );
        assert_eq!(TxSnapshot.run(&traffic().model(), &options("node7", 1.0)).warnings.len(), 1);
    }

    #[test]
    fn packets_that_never_come_are_lost_after_a_while() {
        let mut traffic = traffic();
        traffic.remove(1, |text| text.contains("offset 1400"));
        let report = RxSnapshot.run(&traffic.model(), &options("node2", 1000.0));
        assert_eq!(report.table("messages").unwrap().get(0, "lost"), &1u32.into());
    }
}
