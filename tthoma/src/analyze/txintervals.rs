//! `txintervals`: what does each node send, and where does it wait, over time? Source: timetrace.md 5.41.

use super::intervals::{self, Extremes, Field, Series};
use super::samples::us;
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::Model;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct TxIntervals;

impl Analyzer for TxIntervals {
    fn about(&self) -> &'static About {
        &About {
            name: "txintervals",
            question: "What does each node send, and where does it wait, over time?",
            source: "timetrace.md 5.41",
            needs: Needs::All(&[Kind::IpXmit]),
            uses: &[
                Kind::NicData,
                Kind::FreeTxSkb,
                Kind::SendmsgRequest,
                Kind::SoftirqGrant,
                Kind::GroGrant,
                Kind::GroData,
            ],
            options: &["interval", "gbps", "tx_qid"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let fields = if options.data.is_some() { FIELDS } else { &[Field::TxNicBytes] };
        let all = intervals::collect(model, options, options.tx_qid, fields);
        let mut summary = Table::new("tx", "Message bytes passed to the NIC, mean over the trace:")
            .column("Node", Unit::None, "")
            .column("Gbps", Unit::Gbps, "")
            .decimals(2);
        for s in &all {
            let time = (s.steps.count as i64 * s.steps.length) as f64;
            let sum = s.sum(Field::TxNicBytes);
            let row = summary.row([model.name(s.node).into(), sum.map(|b| b * 8.0 / time).into()]);
            if sum.is_none() {
                row.note("no nic_data in the traces");
            }
        }
        let mut report = Report::of([summary]);
        if options.data.is_some() {
            report.tables.extend(all.iter().map(|s| series(model, options, s)));
        } else {
            report.notes.push("The time series are written with --data DIR.".into());
        }
        report
    }
}

/// What the time series needs.
const FIELDS: &[Field] = &[
    Field::TxNicBytes,
    Field::TxBytes,
    Field::RpcsLive,
    Field::TxLiveReq,
    Field::TxLiveResp,
    Field::TxPkts,
    Field::TxQdisc,
    Field::TxQueue,
    Field::TxInNic,
    Field::TxNicRx,
    Field::TxFreeBytes,
    Field::TxGrantXmit,
    Field::TxGrantGro,
    Field::TxGrantAvail,
    Field::TxNewGrants,
];

fn series(model: &Model, options: &Options, s: &Series) -> Table {
    let kb = |table: Table, title: &'static str, meaning: &'static str| table.column(title, Unit::Kb, meaning);
    let mut table =
        Table::series("txintervals", &model.name(s.node), "What is sent in each step, and waits at its end")
            .column("Time", Unit::Us, "end of the step")
            .column("Gbps", Unit::Gbps, "passed to the NIC");
    table = kb(table, "TxKB", "passed to IP").key("tx");
    for (title, meaning) in [
        ("RPCs", "live RPCs of clients"),
        ("Reqs", "live outgoing requests"),
        ("Resps", "live outgoing responses"),
        ("Pkts", "frames passed to IP"),
    ] {
        table = table.column(title, Unit::None, meaning);
    }
    table = kb(table, "Qdisc", "between IP and NIC");
    table = kb(table, "NicKB", "passed to the NIC").key("nic");
    table = table.column("NQEst", Unit::Us, "time that a link of --gbps would take for what it can't have sent yet");
    table = kb(table, "InNic", "not given back by the NIC");
    table = kb(table, "NicRx", "received by the peer, but not given back");
    table = kb(table, "FreeKB", "given back").key("free");
    for (title, meaning) in [
        ("MinFr", "from the NIC back, of frames passed to it in the step"),
        ("MaxFr", ""),
        ("MinGF", "from the NIC giving back until the peer's GRO"),
        ("MaxGF", ""),
    ] {
        table = table.column(title, Unit::Us, meaning);
    }
    table = kb(table, "GXmit", "granted, but the grant is not at GRO");
    table = kb(table, "GGro", "in grants between GRO and SoftIRQ");
    table = kb(table, "GAvail", "granted and not sent");
    table = kb(table, "GNew", "newly granted");
    let known = |e: &Extremes, k: usize, high: bool| us(e.0[k].map(|(low, max)| if high { max } else { low }));
    for k in 0..s.steps.count {
        let kb = |field| s.cell(field, k, 1e3);
        let cells: [Cell; 21] = [
            us(Some(s.steps.end(k))),
            s.cell(Field::TxNicBytes, k, s.steps.length as f64 / 8.0),
            kb(Field::TxBytes),
            s.cell(Field::RpcsLive, k, 1.0),
            s.cell(Field::TxLiveReq, k, 1.0),
            s.cell(Field::TxLiveResp, k, 1.0),
            s.cell(Field::TxPkts, k, 1.0),
            kb(Field::TxQdisc),
            kb(Field::TxNicBytes),
            s.cell(Field::TxQueue, k, options.gbps * 1000.0 / 8.0),
            kb(Field::TxInNic),
            kb(Field::TxNicRx),
            kb(Field::TxFreeBytes),
            known(&s.free, k, false),
            known(&s.free, k, true),
            known(&s.gro_free, k, false),
            known(&s.gro_free, k, true),
            kb(Field::TxGrantXmit),
            kb(Field::TxGrantGro),
            kb(Field::TxGrantAvail),
            kb(Field::TxNewGrants),
        ];
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn series_show_where_the_bytes_wait() {
        let mut traffic = Traffic::new(2);
        traffic.event(0, 0, 1.0, "homa_softirq starting").event(0, 0, 200.0, "homa_softirq starting");
        // At IP at 45, at the NIC at 55, received at 155, given back at 165.
        let d = Delays { nic: 10.0, net: 100.0, softirq: 1.0, free: 110.0, gap: 1.0 };
        traffic.packet((0, 1), 10, (0, 1400, 1400), 45.0, d);
        let run = |tx_qid| {
            let options = Options { data: Some("x".into()), tx_qid, interval: 10.0, ..Options::default() };
            TxIntervals.run(&traffic.model(), &options)
        };
        let report = run(None);
        let table = report.table("txintervals_node1").unwrap();
        let at = |time: f64, key: &str| {
            let row = (0..table.rows.len()).find(|r| table.get(*r, "time_us") == &time.into()).unwrap();
            table.get(row, key).number()
        };
        assert_eq!(
            (at(50.0, "qdisc_kb"), at(60.0, "qdisc_kb"), at(60.0, "in_nic_kb")),
            (Some(1.4), Some(0.0), Some(1.4))
        );
        assert_eq!(
            (at(160.0, "nic_rx_kb"), at(150.0, "nic_rx_kb"), at(170.0, "in_nic_kb")),
            (Some(1.4), Some(0.0), Some(0.0))
        );
        assert_eq!(
            (at(60.0, "max_fr_us"), at(60.0, "min_gf_us"), at(70.0, "max_fr_us")),
            (Some(110.0), Some(-10.0), None)
        );
        assert_eq!(at(60.0, "gbps"), Some(1400.0 * 8.0 / 10_000.0));
        let other = run(Some(99));
        let table = other.table("tx").unwrap();
        assert_eq!(table.get(0, "gbps"), &0.0.into(), "another queue sends nothing");
    }
}
