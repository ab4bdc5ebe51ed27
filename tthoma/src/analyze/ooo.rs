//! `ooo`: do data packets and grants overtake each other, where, and does it hurt? Source: timetrace.md 10.3, after RFC 4737.
//!
//! **Data.** A packet is out of order if a packet of the same message with a higher offset came before it. Only first
//! receptions count: an offset that was sent again, or received more than once, is left out (`loss` has those). `net` is the
//! order at GRO; `host` is what was in order there, and is not in SoftIRQ.
//!
//! **Grants.** A grant is stale if a higher one was processed before it, a duplicate if an equal one was. Where the order was
//! lost: `issued` out of order by the receiver of the data, `network`, or `host`, there by the `fastpath` (the overtaking
//! grant was processed on the core of its GRO) or between `cores`.

use std::collections::BTreeMap;

use super::grant_order;
use super::samples::{Samples, kb, share, us};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::flights::since;
use crate::model::{Flight, Model, NOWHERE};
use crate::packets::{UNSEEN, is_retransmitted};

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Ooo;

impl Analyzer for Ooo {
    fn about(&self) -> &'static About {
        &About {
            name: "ooo",
            question: "Do data packets and grants overtake each other, where, and does it hurt?",
            source: "timetrace.md 10.3, 5.23",
            needs: Needs::Any(&[Kind::GroData, Kind::SoftirqGrant]),
            uses: &[Kind::SoftirqData, Kind::IpXmit, Kind::NicData, Kind::SendGrant, Kind::GroGrant, Kind::Retransmit],
            options: &["top"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut nodes: BTreeMap<u16, Disorder> = BTreeMap::new();
        let mut worst: Vec<Late<'_>> = Vec::new();
        for message in 0..model.packets.messages.len() as u32 {
            let packets = considered(model, message);
            if let Some(first) = packets.first() {
                let node = nodes.entry(first.to).or_default();
                node.message(&packets, &mut worst);
            }
        }
        worst.sort_by_key(|late| (std::cmp::Reverse(late.delay), late.packet.gro));
        let mut report = Report::of([data(model, &nodes), classes(model, &nodes), list(model, &worst, options)]);
        report.tables.extend(grant_order::tables(model));
        let all = worst.len();
        if all > options.top && !options.verbose {
            report.notes.push(format!("{} more packets are not listed (--top N, --verbose)", all - options.top));
        }
        report
    }
}

/// First receptions at GRO of a message's packets that were sent and received once, in the order of arrival.
fn considered(model: &Model, message: u32) -> Vec<&Flight> {
    let about = &model.packets.messages[message as usize];
    let mut out: Vec<&Flight> = Vec::new();
    for same in model.flights().data_of(message).chunk_by(|a, b| a.offset == b.offset) {
        let received: Vec<&Flight> = same.iter().filter(|f| f.arrived()).collect();
        let sent = same.iter().filter(|f| f.xmit != UNSEEN).count();
        if let [one] = received.as_slice()
            && one.gro != UNSEEN
            && !one.again
            && sent < 2
            && !is_retransmitted(about, one.offset)
        {
            out.push(one);
        }
    }
    out.sort_by_key(|f| f.gro);
    out
}

/// A packet that came late.
#[derive(Clone, Copy)]
struct Late<'a> {
    packet: &'a Flight,
    /// The first packet of a higher offset that came before.
    before: &'a Flight,
    /// Since that one, ns.
    delay: i64,
    /// Packets that came from that one on.
    extent: usize,
    /// Below the highest offset before it, bytes.
    gap: u32,
    /// Level of the packet with the highest offset before it.
    prev: Option<u8>,
}

/// The packets that are out of order in a list sorted by `time`.
fn late_ones<'a>(packets: &[&'a Flight], time: fn(&Flight) -> i64) -> Vec<Late<'a>> {
    // Highest offset up to each packet: never falls, so that the first above an offset is found by bisection.
    let mut highest: Vec<(u32, usize)> = Vec::with_capacity(packets.len());
    let mut out = Vec::new();
    for (i, packet) in packets.iter().enumerate() {
        let top = highest.last().copied().filter(|(offset, _)| *offset > packet.offset);
        if let Some((offset, at)) = top {
            let first = highest.partition_point(|(o, _)| *o <= packet.offset);
            out.push(Late {
                packet,
                before: packets[first],
                delay: time(packet) - time(packets[first]),
                extent: i - first,
                gap: offset - packet.offset,
                prev: packets[at].level(),
            });
            highest.push((offset, at));
        } else {
            highest.push((packet.offset, i));
        }
    }
    out
}

/// What is known of one receiver.
#[derive(Default)]
struct Disorder {
    packets: u64,
    messages: u64,
    disordered: u64,
    delays: Vec<i64>,
    extents: Vec<i64>,
    /// Most bytes that lie above a missing one.
    buffer: u64,
    completions: Vec<i64>,
    /// Origin: sent, queue, network, unknown. Levels: same, down, up. Same frame. Host: one core, several.
    origin: [u64; 4],
    levels: [u64; 3],
    same_frame: u64,
    host: [u64; 2],
}

impl Disorder {
    fn message<'a>(&mut self, packets: &[&'a Flight], worst: &mut Vec<Late<'a>>) {
        self.packets += packets.len() as u64;
        self.messages += u64::from(packets.len() > 1);
        let late = late_ones(packets, |f| f.gro);
        self.disordered += u64::from(!late.is_empty());
        for one in &late {
            let (packet, before) = (one.packet, one.before);
            self.delays.push(one.delay);
            self.extents.push(one.extent as i64);
            self.origin[origin(packet, before)] += 1;
            self.same_frame += u64::from(packet.xmit != UNSEEN && packet.xmit == before.xmit);
            if let (Some(level), Some(other)) = (packet.level(), before.level()) {
                self.levels[match level.cmp(&other) {
                    std::cmp::Ordering::Equal => 0,
                    std::cmp::Ordering::Less => 1,
                    std::cmp::Ordering::Greater => 2,
                }] += 1;
            }
        }
        if !late.is_empty() {
            self.buffer = self.buffer.max(buffered(packets));
            self.completions.extend(completion(packets));
        }
        self.in_host(packets, &late);
        worst.extend(late);
    }

    /// Counts what was in order at GRO and is not in SoftIRQ.
    fn in_host(&mut self, packets: &[&Flight], late: &[Late<'_>]) {
        let mut processed: Vec<&Flight> = packets.iter().copied().filter(|f| f.softirq != UNSEEN).collect();
        if processed.is_sorted_by_key(|f| f.softirq) {
            return;
        }
        processed.sort_by_key(|f| f.softirq);
        for one in late_ones(&processed, |f| f.softirq) {
            if !late.iter().any(|l| l.packet.offset == one.packet.offset) {
                self.host[usize::from(one.packet.softirq_core != one.before.softirq_core)] += 1;
            }
        }
    }
}

/// Where the order was lost: 0 at the sender, 1 between queues of the NIC, 2 in the network, 3 unknown.
fn origin(packet: &Flight, before: &Flight) -> usize {
    match since(before.nic_or_xmit(), packet.nic_or_xmit()) {
        Some(later) if later > 0 => 0,
        Some(_) if packet.queue != before.queue => 1,
        Some(_) => 2,
        None => 3,
    }
}

/// Most bytes received above the lowest missing one.
fn buffered(packets: &[&Flight]) -> u64 {
    let start = packets.iter().map(|f| f.offset).min().unwrap_or(0);
    let mut waiting: BTreeMap<u32, u32> = BTreeMap::new();
    let (mut end, mut held, mut most) = (start, 0u64, 0u64);
    for f in packets {
        waiting.insert(f.offset, f.length);
        held += u64::from(f.length);
        while let Some((_, length)) = waiting.first_key_value().filter(|(offset, _)| **offset <= end) {
            (end, held) = (end.saturating_add(*length), held - u64::from(*length));
            waiting.pop_first();
        }
        most = most.max(held);
    }
    most
}

/// How long after the message's last byte its last packet came, if it did, ns.
fn completion(packets: &[&Flight]) -> Option<i64> {
    let last = packets.iter().find(|f| f.message_length > 0 && f.data_end() >= f.message_length)?;
    let time = packets.last()?.gro - last.gro;
    (time > 0).then_some(time)
}

fn data(model: &Model, nodes: &BTreeMap<u16, Disorder>) -> Table {
    let mut table = Table::new("data", "Out-of-order data packets at GRO:")
        .column("Node", Unit::None, "receiver")
        .column("Packets", Unit::None, "first receptions of what was sent once")
        .column("OOO", Unit::None, "of these, out of order")
        .column("Frac", Unit::Share, "")
        .decimals(4)
        .column("Msgs", Unit::None, "messages with two or more packets")
        .column("OOOMsgs", Unit::None, "of these, with a packet out of order");
    for (title, meaning) in
        [("LateP50", "since the first packet that overtook it"), ("LateP90", ""), ("LateP99", ""), ("LateMax", "")]
    {
        table = table.column(title, Unit::Us, meaning);
    }
    table = table
        .column("ExtP50", Unit::None, "packets that came between")
        .column("ExtP99", Unit::None, "")
        .column("ExtMax", Unit::None, "")
        .column("Buffer", Unit::Kb, "most bytes of a message above a missing one")
        .column("Compl", Unit::None, "messages that were complete later")
        .column("ComplP50", Unit::Us, "how much later")
        .column("ComplMax", Unit::Us, "");
    for (node, d) in nodes {
        let (late, extents, completions): (Samples, Samples, Samples) = (
            d.delays.iter().copied().collect(),
            d.extents.iter().map(|e| e * 1000).collect(),
            d.completions.iter().copied().collect(),
        );
        // Numbers of packets, kept as thousandths.
        let count = |cell: Cell| cell.number().map(|n| n as i64).into();
        table.row([
            name(model, *node),
            d.packets.into(),
            late.len().into(),
            share(late.len() as f64, d.packets as f64),
            d.messages.into(),
            d.disordered.into(),
            late.p(50),
            late.p(90),
            late.p(99),
            late.max(),
            count(extents.p(50)),
            count(extents.p(99)),
            count(extents.max()),
            if d.disordered > 0 { kb(d.buffer as f64).into() } else { Cell::None },
            completions.len().into(),
            completions.p(50),
            completions.max(),
        ]);
    }
    table
}

fn name(model: &Model, node: u16) -> Cell {
    if node == NOWHERE { Cell::None } else { model.name(node).into() }
}

fn classes(model: &Model, nodes: &BTreeMap<u16, Disorder>) -> Table {
    let mut table = Table::new(
        "classes",
        "Where the order of data was lost, and levels of the packet and the one that overtook it:",
    )
    .column("Node", Unit::None, "receiver");
    for (title, meaning) in [
        ("Sent", "sent in that order"),
        ("Queue", "by different queues of the NIC"),
        ("Network", "between NIC and GRO"),
        ("Unknown", "the transmission was not seen"),
        ("Same", "of one level"),
        ("CrossDown", "overtaken by a higher level, as levels are meant to"),
        ("CrossUp", "overtaken by a lower level"),
        ("SameTso", "both of one frame, which no queue reorders"),
        ("HostCore", "in order at GRO, reordered by SoftIRQ of one core"),
        ("HostCores", "in order at GRO, processed by different cores"),
    ] {
        table = table.column(title, Unit::None, meaning);
    }
    for (node, d) in nodes {
        let counts = d.origin.into_iter().chain(d.levels).chain([d.same_frame]).chain(d.host);
        table.row(std::iter::once(name(model, *node)).chain(counts.map(Cell::from)));
    }
    table
}

fn list(model: &Model, worst: &[Late<'_>], options: &Options) -> Table {
    let mut table = Table::new("worst", "Packets that came latest:")
        .column("RPC", Unit::None, "on the sender")
        .column("Offset", Unit::None, "")
        .column("Node", Unit::None, "receiver")
        .column("Time", Unit::Us, "at GRO")
        .decimals(3)
        .column("Delay", Unit::Us, "since the first packet that overtook it")
        .column("Gap", Unit::Bytes, "below the highest offset before it")
        .column("Prio", Unit::None, "")
        .column("Prev", Unit::None, "level of the packet with the highest offset")
        .column("Origin", Unit::None, "");
    let top = if options.verbose { usize::MAX } else { options.top };
    for late in worst.iter().take(top) {
        let f = late.packet;
        table.row([
            f.id.into(),
            f.offset.into(),
            name(model, f.to),
            us(Some(f.gro)),
            us(Some(late.delay)),
            late.gap.into(),
            f.level().map(u32::from).into(),
            late.prev.map(u32::from).into(),
            ["sent", "queue", "network", "unknown"][origin(f, late.before)].into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn disorder_is_that_of_the_traffic() {
        let mut traffic = Traffic::new(2);
        let d = |net| Delays { net, ..Delays::USUAL };
        // Arrivals: 0 at 5.5, 2800 at 7.5, 4200 at 8.5, 1400 at 17.5: late by 10, extent 2, gap 2800.
        for (i, net) in [5.0, 16.0, 5.0, 5.0].into_iter().enumerate() {
            traffic.packet((0, 1), 10, (1400 * i as u32, 1400, 5600), i as f64, d(net));
        }
        // In order, and sent out of order.
        traffic.message((0, 1), 12, 4200, 100.0, Delays::USUAL);
        traffic.packet((0, 1), 14, (1400, 1400, 2800), 200.0, Delays::USUAL);
        traffic.packet((0, 1), 14, (0, 1400, 2800), 203.0, Delays::USUAL);
        let report = Ooo.run(&traffic.model(), &Options::default());
        let data = report.table("data").unwrap();
        let number = |key: &str| data.get(0, key).number().unwrap();
        assert_eq!([number("packets"), number("ooo"), number("msgs"), number("ooomsgs")], [9.0, 2.0, 3.0, 2.0]);
        assert_eq!(
            [number("late_max_us"), number("late_p50_us"), number("ext_max"), number("buffer_kb")],
            [10.0, 10.0, 2.0, 2.8]
        );
        assert_eq!([number("compl"), number("compl_max_us")], [2.0, 9.0]);
        let classes = report.table("classes").unwrap();
        let classes = |key: &str| classes.get(0, key).number().unwrap();
        assert_eq!([classes("sent"), classes("network"), classes("same"), classes("host_core")], [1.0, 1.0, 2.0, 0.0]);
        let worst = report.table("worst").unwrap();
        assert_eq!(
            (worst.get(0, "offset"), worst.get(0, "gap_bytes"), worst.get(1, "origin")),
            (&1400u32.into(), &2800u32.into(), &"sent".into())
        );
    }

    #[test]
    fn retransmissions_and_duplicates_are_not_out_of_order() {
        let mut traffic = Traffic::new(2);
        traffic.message((0, 1), 10, 4200, 0.0, Delays::USUAL);
        traffic.remove(1, |text| text.contains("offset 1400"));
        traffic.event(0, 3, 500.0, "retransmitting offset 1400, length 1400, id 10");
        traffic.packet((0, 1), 10, (1400, 1400, 4200), 501.0, Delays::USUAL);
        traffic.event(1, 1, 600.0, "homa_gro_receive got packet from 0xa000102 id 11, offset 0, priority 5");
        let report = Ooo.run(&traffic.model(), &Options::default());
        let data = report.table("data").unwrap();
        assert_eq!((data.get(0, "ooo"), data.get(0, "packets")), (&0u32.into(), &1u32.into()));
        assert_eq!(data.get(0, "late_p50_us"), &Cell::None);
    }

    #[test]
    fn the_host_is_blamed_for_what_it_reorders() {
        let mut traffic = Traffic::new(2);
        for (i, softirq) in [2.0, 20.0, 2.0].into_iter().enumerate() {
            let d = Delays { softirq, ..Delays::USUAL };
            traffic.packet((0, 1), 10, (1400 * i as u32, 1400, 4200), i as f64, d);
        }
        let report = Ooo.run(&traffic.model(), &Options::default());
        let classes = report.table("classes").unwrap();
        assert_eq!((classes.get(0, "host_core"), classes.get(0, "network")), (&1u32.into(), &0u32.into()));
    }
}
