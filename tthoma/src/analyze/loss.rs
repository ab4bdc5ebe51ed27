//! `loss`: what became of each transmission, and of each request to send again? Source: timetrace.md 10.4.
//!
//! A transmission is `lost` if no reception belongs to it although the receiver's trace covers the time in which it should
//! have come; `late` if it took longer than 10 times the 99.9th percentile between the two nodes, at least 200 us
//! (`--late-loss`). A retransmission was `needed` if nothing before it arrived and was kept, else it was `spurious`. A
//! packet that is received more often than it was sent was duplicated by the network.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::attempts::{self, Attempt, Fate, Tried};
use super::samples::{Samples, kb, us};
use super::steps::{Steps, flow};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds, Record};
use crate::model::{Carries, Model, NOWHERE};
use crate::packets::UNSEEN;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Loss;

/// Losses of one pair of nodes that are not farther apart are one burst, ns.
const BURST: i64 = 100_000;

impl Analyzer for Loss {
    fn about(&self) -> &'static About {
        &About {
            name: "loss",
            question: "What became of each transmission: lost, late, repeated in vain? How fast were losses repaired?",
            source: "timetrace.md 10.4",
            needs: Needs::All(&[Kind::IpXmit, Kind::GroData]),
            uses: &[
                Kind::NicData,
                Kind::FreeTxSkb,
                Kind::SoftirqData,
                Kind::Retransmit,
                Kind::ResendTx,
                Kind::ResendRx,
                Kind::BusyTx,
                Kind::RejectData,
            ],
            options: &["late_loss", "top", "interval"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::of(&[Kind::ResendTx, Kind::ResendRx, Kind::Retransmit, Kind::BusyTx, Kind::RejectData])
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let all = attempts::collect(model, options);
        let mut nodes: BTreeMap<u16, Account> = model.spans().map(|(n, ..)| (n, Account::default())).collect();
        let mut pairs: BTreeMap<(u16, u16), Account> = BTreeMap::new();
        for tried in &all {
            nodes.entry(tried.from).or_default().add(tried);
            pairs.entry((tried.from, tried.to)).or_default().add(tried);
        }
        let resends = resends(model);
        let mut report = Report::of([
            accounts("nodes", "By sender:", &nodes, |n| vec![model.name(*n).into()], &["Node"]),
            repair(model, &resends),
            bursts(model, &all, options),
            list(model, &all, options),
        ]);
        if options.verbose {
            let names = |(a, b): &(u16, u16)| vec![model.name(*a).into(), model.name(*b).into()];
            report.tables.insert(1, accounts("pairs", "By sender and receiver:", &pairs, names, &["From", "To"]));
        }
        if options.data.is_some() {
            report.tables.extend(model.spans().map(|(n, first, last)| series(model, n, (first, last), &all, options)));
        }
        report
    }
}

/// What became of transmissions.
#[derive(Default)]
struct Account {
    packets: u64,
    sent: u64,
    fates: [u64; 5],
    driver: u64,
    dropped: u64,
    again: u64,
    needed: u64,
    spurious: u64,
    duplicates: u64,
    network: u64,
    repair: Vec<i64>,
}

impl Account {
    fn add(&mut self, tried: &Tried) {
        self.packets += 1;
        self.duplicates += u64::from(tried.duplicates);
        self.network += u64::from(tried.network_duplicates);
        let kept = |a: &Attempt| a.received.is_some() && !a.dropped;
        for (i, attempt) in tried.attempts.iter().enumerate() {
            self.sent += 1;
            self.fates[attempt.fate as usize] += 1;
            self.dropped += u64::from(attempt.dropped);
            self.driver += u64::from(attempt.fate == Fate::Lost && attempt.free == UNSEEN);
            if attempt.again {
                self.again += 1;
                let arrived = tried.attempts[..i].iter().any(kept);
                self.spurious += u64::from(arrived);
                self.needed += u64::from(!arrived && i > 0);
            }
        }
        let first = &tried.attempts[0];
        if matches!(first.fate, Fate::Lost) || first.dropped {
            let repaired = tried.attempts.iter().filter(|a| kept(a)).filter_map(|a| a.received).min();
            self.repair.extend(repaired.map(|at| at - first.at));
        }
    }
}

fn accounts<K: Ord>(
    name: &str,
    title: &str,
    accounts: &BTreeMap<K, Account>,
    key: impl Fn(&K) -> Vec<Cell>,
    columns: &[&'static str],
) -> Table {
    let mut table = Table::new(name, title);
    for column in columns {
        table = table.column(*column, Unit::None, "");
    }
    table = table.column("TxPkts", Unit::None, "transmissions of packets").column("Lost", Unit::None, "never received");
    table = table.column("LostPct", Unit::Percent, "").decimals(3).key("lost");
    for (title, meaning) in [
        ("Late", "received, but late"),
        ("Driver?", "lost, and the NIC never gave them back"),
        ("RxDrop", "received by GRO, and dropped by or before SoftIRQ"),
        ("InFlight", "on their way when the receiver's trace ends"),
        ("Unseen", "not covered by the receiver's trace"),
        ("Rtx", "retransmissions"),
        ("Needed", "nothing before them had arrived"),
        ("Spurious", "the data had arrived"),
        ("Dups", "receptions beyond the first"),
        ("NetDup", "of these, copies that the network made"),
    ] {
        table = table.column(title, Unit::None, meaning);
    }
    table = table
        .column("RepairP50", Unit::Us, "from the first transmission of a lost packet until it is received")
        .column("RepairP99", Unit::Us, "");
    for (k, a) in accounts {
        let fate = |f: Fate| a.fates[f as usize];
        let repair: Samples = a.repair.iter().copied().collect();
        let known = a.sent - fate(Fate::InFlight) - fate(Fate::Unobservable);
        let percent = if known > 0 { (100.0 * fate(Fate::Lost) as f64 / known as f64).into() } else { Cell::None };
        let mut cells = key(k);
        cells.extend([a.sent.into(), fate(Fate::Lost).into(), percent, fate(Fate::Late).into(), a.driver.into()]);
        cells.extend([a.dropped, fate(Fate::InFlight), fate(Fate::Unobservable), a.again].map(Cell::from));
        cells.extend([a.needed, a.spurious, a.duplicates, a.network].map(Cell::from));
        cells.extend([repair.p(50), repair.p(99)]);
        table.row(cells);
    }
    table
}

/// Requests to send again, of one node.
#[derive(Default)]
struct Resends {
    sent: u64,
    received: u64,
    busy: u64,
    rejected: u64,
    untriggered: u64,
    response: Vec<i64>,
    lost_grants: u64,
}

/// Accounts of RESENDs, rejected duplicates and lost grants, by node.
fn resends(model: &Model) -> BTreeMap<u16, Resends> {
    let mut out: BTreeMap<u16, Resends> = BTreeMap::new();
    for (node, ..) in model.spans() {
        let mut this = Resends::default();
        // Ranges that a peer asked for.
        let mut asked: FxHashMap<(u16, u32), Vec<(u32, u32)>> = FxHashMap::default();
        for record in &model.traces[usize::from(node)].records {
            let rpc = (record.client, record.id);
            match record.kind {
                Kind::ResendTx => {
                    this.sent += 1;
                    this.response.extend(answered(model, node, record));
                }
                Kind::ResendRx => {
                    this.received += 1;
                    asked.entry(rpc).or_default().push((record.offset, end(record)));
                }
                Kind::Retransmit => {
                    let range = |(start, end): &(u32, u32)| *start <= record.offset && record.offset < *end;
                    this.untriggered += u64::from(!asked.get(&rpc).is_some_and(|ranges| ranges.iter().any(range)));
                }
                Kind::BusyTx => this.busy += 1,
                Kind::RejectData => this.rejected += 1,
                _ => {}
            }
        }
        out.insert(node, this);
    }
    for f in model.flights().grants.iter().filter(|f| f.carries == Carries::Grant && f.xmit != UNSEEN && !f.arrived()) {
        let covered = f.to != NOWHERE
            && model.comparable(f.from, f.to)
            && model.span(f.to).is_some_and(|(first, last)| f.xmit >= first && f.xmit + 200_000 <= last);
        if let Some(node) = out.get_mut(&f.from) {
            node.lost_grants += u64::from(covered);
        }
    }
    out
}

/// End of the range that a RESEND asks for.
fn end(record: &Record) -> u32 {
    if (record.a as i32) < 0 { u32::MAX } else { record.offset.saturating_add(record.a) }
}

/// From a RESEND until a packet of the range comes, ns.
fn answered(model: &Model, node: u16, record: &Record) -> Option<i64> {
    let rpcs = model.rpcs();
    let at = record.time + model.clock.offset(usize::from(node)).unwrap_or(0);
    let message = rpcs.incoming(rpcs.place(record.client, record.id)?)?;
    let range = record.offset..end(record);
    let packets = model.flights().data_of(message).iter();
    let come = packets.filter(|f| range.contains(&f.offset) && f.gro != UNSEEN && f.gro > at).map(|f| f.gro);
    come.min().map(|come| come - at)
}

fn repair(model: &Model, nodes: &BTreeMap<u16, Resends>) -> Table {
    let mut table = Table::new("resends", "Requests to send again:").column("Node", Unit::None, "");
    for (title, meaning) in [
        ("Resend", "RESENDs that it sent"),
        ("Received", "RESENDs that it received"),
        ("Busy", "BUSY that it sent"),
        ("Untrig", "ranges that it sent again though nobody had asked in the trace"),
        ("Rejected", "packets that its messages had already, as it says itself"),
        ("LostGrants", "grants that it sent and that never arrived"),
    ] {
        table = table.column(title, Unit::None, meaning);
    }
    table = table.column("RespP50", Unit::Us, "from its RESEND until a packet of the range comes").column(
        "RespP99",
        Unit::Us,
        "",
    );
    for (node, r) in nodes {
        let response: Samples = r.response.iter().copied().collect();
        let counts = [r.sent, r.received, r.busy, r.untriggered, r.rejected, r.lost_grants].map(Cell::from);
        table.row(std::iter::once(model.name(*node).into()).chain(counts).chain([response.p(50), response.p(99)]));
    }
    table
}

/// Lost transmissions: packet and time.
fn lost(all: &[Tried]) -> Vec<(&Tried, &Attempt)> {
    let mut out: Vec<(&Tried, &Attempt)> =
        all.iter().flat_map(|t| t.attempts.iter().filter(|a| a.fate == Fate::Lost).map(move |a| (t, a))).collect();
    out.sort_by_key(|(t, a)| (t.from, t.to, a.at));
    out
}

fn bursts(model: &Model, all: &[Tried], options: &Options) -> Table {
    let mut table = Table::new("bursts", "Losses between two nodes that are at most 100 us apart, largest first:")
        .column("Start", Unit::Us, "")
        .decimals(3)
        .column("Dur", Unit::Us, "")
        .column("From", Unit::None, "")
        .column("To", Unit::None, "")
        .column("Packets", Unit::None, "")
        .column("KB", Unit::Kb, "");
    let lost = lost(all);
    let near = |a: &(&Tried, &Attempt), b: &(&Tried, &Attempt)| {
        (a.0.from, a.0.to) == (b.0.from, b.0.to) && b.1.at - a.1.at <= BURST
    };
    let mut bursts: Vec<&[(&Tried, &Attempt)]> = lost.chunk_by(near).collect();
    bursts.sort_by_key(|b| std::cmp::Reverse(b.len()));
    let top = if options.verbose { usize::MAX } else { options.top };
    for burst in bursts.into_iter().take(top) {
        let (tried, first) = burst[0];
        let bytes: f64 = burst.iter().map(|(t, _)| f64::from(t.bytes)).sum();
        table.row([
            us(Some(first.at)),
            us(burst.last().map(|(_, a)| a.at - first.at)),
            model.name(tried.from).into(),
            model.name(tried.to).into(),
            burst.len().into(),
            kb(bytes).into(),
        ]);
    }
    table
}

fn list(model: &Model, all: &[Tried], options: &Options) -> Table {
    let mut table = Table::new("lost", "Lost transmissions:")
        .column("Sent", Unit::Us, "to the NIC, or IP")
        .decimals(3)
        .column("From", Unit::None, "")
        .column("To", Unit::None, "")
        .column("RpcId", Unit::None, "on the sender")
        .column("Offset", Unit::None, "")
        .column("Attempt", Unit::None, "")
        .column("Repaired", Unit::Us, "after the first transmission");
    let mut lost = lost(all);
    lost.sort_by_key(|(_, a)| a.at);
    let top = if options.verbose { usize::MAX } else { options.top };
    for (tried, attempt) in lost.into_iter().take(top) {
        let number = tried.attempts.iter().position(|a| std::ptr::eq(a, attempt)).map_or(0, |i| i + 1);
        let repaired = tried.attempts.iter().filter_map(|a| a.received).min();
        table.row([
            us(Some(attempt.at)),
            model.name(tried.from).into(),
            model.name(tried.to).into(),
            tried.id.into(),
            tried.offset.into(),
            number.into(),
            us(repaired.map(|at| at - tried.attempts[0].at)),
        ]);
    }
    table
}

fn series(model: &Model, node: u16, span: (i64, i64), all: &[Tried], options: &Options) -> Table {
    let steps = Steps::of(span, options.interval, Steps::most(model, node, 4));
    let mut sums = vec![vec![0.0; steps.count]; 4];
    for attempt in all.iter().filter(|t| t.from == node).flat_map(|t| &t.attempts) {
        let counts = [true, attempt.fate == Fate::Lost, attempt.fate == Fate::Late, attempt.again];
        for (sums, _) in sums.iter_mut().zip(counts).filter(|(_, counts)| *counts) {
            flow(sums, &steps, attempt.at, 1.0);
        }
    }
    let mut table = Table::series("loss", &model.name(node), "Packets sent in each step, and what became of them")
        .column("Time", Unit::Us, "end of the step");
    for title in ["Sent", "Lost", "Late", "Rtx"] {
        table = table.column(title, Unit::None, "");
    }
    for k in 0..steps.count {
        let counts = sums.iter().map(|s| Cell::from(s[k] as u64));
        table.row(std::iter::once(us(Some(steps.end(k)))).chain(counts));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    fn traffic() -> Traffic {
        let mut traffic = Traffic::new(2);
        for node in 0..2 {
            traffic.event(node, 0, 0.0, "homa_softirq starting").event(node, 0, 20_000.0, "homa_softirq starting");
        }
        for i in 0..100u32 {
            traffic.message((0, 1), 100 + 2 * i, 2800, 100.0 * f64::from(i), Delays::USUAL);
        }
        traffic
    }

    fn drop(traffic: &mut Traffic, id: u32, offset: u32) {
        let (id, offset) = (format!(" id {id},"), format!("offset {offset}"));
        traffic.remove(1, |text| text.contains(&id) && text.contains(&offset));
    }

    fn again(traffic: &mut Traffic, id: u32, at: f64) {
        traffic.event(0, 3, at - 2.0, format!("resend request for id {id}, offset 1400, length 1400, prio 5"));
        traffic.event(0, 3, at - 1.0, format!("retransmitting offset 1400, length 1400, id {id}"));
        traffic.packet((0, 1), id, (1400, 1400, 2800), at, Delays::USUAL);
    }

    #[test]
    fn losses_and_retransmissions_are_counted_exactly() {
        let mut traffic = traffic();
        // Every tenth packet at offset 1400 is lost; half of these are sent again.
        for i in (0..100).step_by(10) {
            drop(&mut traffic, 101 + 2 * i, 1400);
            if i % 20 == 0 {
                again(&mut traffic, 100 + 2 * i, 12_000.0 + 10.0 * f64::from(i));
            }
        }
        // Three are sent again though they had arrived, one without being asked.
        for i in 1..4 {
            again(&mut traffic, 100 + 2 * i, 14_000.0 + 10.0 * f64::from(i));
        }
        traffic.event(0, 3, 15_000.0, "retransmitting offset 0, length 1400, id 110");
        traffic.packet((0, 1), 110, (0, 1400, 2800), 15_001.0, Delays::USUAL);
        // One arrives twice.
        traffic.event(1, 1, 700.0, "homa_gro_receive got packet from 0xa000102 id 113, offset 0, priority 5");
        let report = Loss.run(&traffic.model(), &Options::default());
        let nodes = report.table("nodes").unwrap();
        let number = |key: &str| nodes.get(0, key).number().unwrap();
        assert_eq!([number("tx_pkts"), number("lost"), number("late")], [209.0, 10.0, 0.0]);
        assert_eq!([number("rtx"), number("needed"), number("spurious")], [9.0, 5.0, 4.0]);
        assert_eq!([number("dups"), number("net_dup")], [5.0, 1.0]);
        // Packet 1400 of message i is sent at 100 i + 1 and received again 12000 + 10 i + 5.5: the median is i = 40.
        assert_eq!(number("repair_p50_us"), 12_400.0 + 5.5 - 4001.5);
        let resends = report.table("resends").unwrap();
        assert_eq!((resends.get(0, "received"), resends.get(0, "untrig")), (&8u32.into(), &1u32.into()));
        assert_eq!(report.table("bursts").unwrap().rows.len(), 10);
        assert_eq!(report.table("lost").unwrap().get(0, "repaired_us"), &(12_005.5 - 1.5).into());
    }

    #[test]
    fn what_is_late_or_cut_off_is_not_lost() {
        let mut traffic = traffic();
        traffic.packet((0, 1), 400, (0, 100, 100), 15_000.0, Delays { net: 900.0, ..Delays::USUAL });
        traffic.packet((0, 1), 402, (0, 100, 100), 19_990.0, Delays { net: 900.0, ..Delays::USUAL });
        traffic.remove(1, |text| text.contains(" id 403,"));
        let options =
            Options { late_loss: Some(300.0), data: Some("x".into()), interval: 1000.0, ..Options::default() };
        let report = Loss.run(&traffic.model(), &options);
        let nodes = report.table("nodes").unwrap();
        let number = |key: &str| nodes.get(0, key).number().unwrap();
        assert_eq!([number("lost"), number("late"), number("in_flight")], [0.0, 1.0, 1.0]);
        let series = report.table("loss_node1").unwrap();
        assert_eq!((series.get(16, "late"), series.get(16, "sent")), (&1u32.into(), &1u32.into()));
    }
}
