//! `packet`: which traffic competed with one packet? Source: timetrace.md 5.25.

use super::samples::{kb, us};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::flights::{seen, since};
use crate::model::{Flight, Model};
use crate::packets::UNSEEN;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Packet;

impl Analyzer for Packet {
    fn about(&self) -> &'static About {
        &About {
            name: "packet",
            question: "Which traffic competed with one packet on its way?",
            source: "timetrace.md 5.25",
            needs: Needs::All(&[Kind::IpXmit, Kind::GroData]),
            uses: &[Kind::NicData, Kind::FreeTxSkb],
            options: &["pkt", "gbps", "top"],
            requires: &["pkt"],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let flights = &model.flights().data;
        let found = options.pkt.and_then(|pkt| flights.iter().find(|f| (f.id, f.offset) == (pkt.id, pkt.offset)));
        let Some(one) = found else {
            return Report { warnings: vec!["packet: no such packet in the traces".into()], ..Report::default() };
        };
        let mut report = Report::of([milestones(model, one)]);
        if one.xmit == UNSEEN || one.gro == UNSEEN {
            report.notes.push("It was not seen at both ends, so that nothing can be said of others.".into());
            return report;
        }
        let mut groups: [Vec<&Flight>; 6] = Default::default();
        for f in flights.iter().filter(|f| f.to == one.to && f.gro != UNSEEN && !std::ptr::eq(*f, one)) {
            if let Some(group) = group(one, f) {
                groups[group].push(f);
            }
        }
        report.tables.push(competition(&groups, options));
        for (name, group) in GROUPS.iter().zip(&mut groups) {
            if !group.is_empty() {
                group.sort_by_key(|f| f.gro);
                report.tables.push(list(model, name, group, options));
            }
        }
        report
    }
}

const GROUPS: [(&str, &str); 6] = [
    ("before_before", "Sent before it, received before it, and after it was sent"),
    ("before_after", "Sent before it, received after it"),
    ("after_before", "Sent after it, received before it on the same core"),
    ("after_before_other", "Sent after it, received before it on other cores"),
    ("after_after", "Sent after it and before it was received, received after it"),
    ("unknown", "Received while it was on its way, sent at an unknown time"),
];

/// Which of [`GROUPS`] a packet is in; `None` if the two did not meet.
fn group(one: &Flight, f: &Flight) -> Option<usize> {
    if f.xmit == UNSEEN {
        return (one.xmit..=one.gro).contains(&f.gro).then_some(5);
    }
    let (before, first) = (f.xmit <= one.xmit, f.gro <= one.gro);
    match (before, first) {
        (true, true) if f.gro >= one.xmit => Some(0),
        (true, false) => Some(1),
        (false, true) => Some(if f.gro_core == one.gro_core { 2 } else { 3 }),
        (false, false) if f.xmit <= one.gro => Some(4),
        _ => None,
    }
}

fn milestones(model: &Model, f: &Flight) -> Table {
    let mut table = Table::new("packet", format!("Packet {}:{}:", f.id, f.offset))
        .column("Time", Unit::Us, "")
        .decimals(3)
        .column("Since", Unit::Us, "it was passed to IP")
        .column("What", Unit::None, "");
    let (from, to) = (model.name(f.from), model.name(f.to));
    let mut steps = vec![
        (f.xmit, format!("passed to IP on {from}, core {}", f.tx_core)),
        (f.deferred, "held back by homa_qdisc".into()),
        (f.undeferred, "let go by homa_qdisc".into()),
        (f.nic, "given to the NIC".into()),
        (
            f.gro,
            format!(
                "received by GRO of {to}, core {}, level {}",
                f.gro_core,
                f.level().map_or("?".into(), |l| l.to_string())
            ),
        ),
        (f.softirq, format!("processed by SoftIRQ of {to}, core {}", f.softirq_core)),
        (f.free, "given back by the NIC".into()),
    ];
    steps.retain(|(time, _)| *time != UNSEEN);
    steps.sort_by_key(|(time, _)| *time);
    for (time, what) in steps {
        table.row([us(seen(time)), us(since(f.xmit, time)), what.into()]);
    }
    table
}

fn competition(groups: &[Vec<&Flight>; 6], options: &Options) -> Table {
    let mut table = Table::new("competition", format!("What came in its way; time at {} Gbps:", options.gbps))
        .column("What", Unit::None, "")
        .column("Packets", Unit::None, "")
        .column("KB", Unit::Kb, "")
        .column("Time", Unit::Us, "");
    let rows: [(&str, &[usize]); 3] = [
        ("on its way when the packet was sent", &[0, 1]),
        ("sent later, received earlier on the same core", &[2]),
        ("sent later, received earlier on other cores", &[3]),
    ];
    for (name, which) in rows {
        let all = || which.iter().flat_map(|g| &groups[*g]);
        let bytes: f64 = all().map(|f| f64::from(f.length)).sum();
        table.row([name.into(), all().count().into(), kb(bytes).into(), (bytes * 8.0 / options.gbps / 1000.0).into()]);
    }
    table
}

fn list(model: &Model, (name, title): &(&str, &str), flights: &[&Flight], options: &Options) -> Table {
    let mut table = Table::new(*name, format!("{title} ({} packets):", flights.len()))
        .column("Xmit", Unit::Us, "")
        .decimals(3)
        .column("Recv", Unit::Us, "")
        .decimals(3)
        .column("Delay", Unit::Us, "")
        .column("Rpc", Unit::None, "")
        .column("Offset", Unit::None, "")
        .column("Sender", Unit::None, "")
        .column("TxCore", Unit::None, "")
        .column("Length", Unit::Bytes, "")
        .column("Prio", Unit::None, "")
        .column("Core", Unit::None, "of GRO");
    let top = if options.verbose { usize::MAX } else { options.top };
    for f in flights.iter().take(top) {
        let known = f.xmit != UNSEEN;
        let core: Cell = known.then_some(f.tx_core).into();
        table.row([
            us(seen(f.xmit)),
            us(seen(f.gro)),
            us(since(f.xmit, f.gro)),
            f.id.into(),
            f.offset.into(),
            if known { model.name(f.from).into() } else { Cell::None },
            core,
            f.length.into(),
            f.level().map(u32::from).into(),
            f.gro_core.into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::Pkt;
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn others_are_grouped_by_when_they_met_the_packet() {
        let mut traffic = Traffic::new(2);
        let d = |net| Delays { net, ..Delays::USUAL };
        // The packet is on its way from 100 to 150.5.
        traffic.packet((0, 1), 10, (0, 1000, 1000), 100.0, d(50.0));
        let others = [(50.0, 10.0), (80.0, 30.0), (90.0, 90.0), (110.0, 20.0), (140.0, 30.0), (160.0, 5.0)];
        for (i, (at, net)) in others.into_iter().enumerate() {
            traffic.packet((0, 1), 12 + 2 * i as u32, (0, 1000, 1000), at, d(net));
        }
        traffic.event(1, 7, 120.0, "homa_gro_receive got packet from 0xa000102 id 101, offset 0, priority 2");
        let options = Options { pkt: Some(Pkt { id: 10, offset: 0 }), gbps: 8.0, ..Options::default() };
        let report = Packet.run(&traffic.model(), &options);
        let count = |name: &str| report.table(name).map_or(0, |t| t.rows.len());
        assert_eq!(GROUPS.map(|(name, _)| count(name)), [1, 1, 1, 0, 1, 1], "the first and the last never met it");
        let table = report.table("competition").unwrap();
        assert_eq!(
            (table.get(0, "packets"), table.get(0, "time_us"), table.get(1, "kb")),
            (&2u32.into(), &2.0.into(), &1.0.into())
        );
        assert_eq!(report.table("packet").unwrap().rows.len(), 5);
        let none = Options { pkt: Some(Pkt { id: 999, offset: 0 }), ..Options::default() };
        assert_eq!(Packet.run(&traffic.model(), &none).warnings.len(), 1);
    }
}
