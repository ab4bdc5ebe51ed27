//! `rx`: what is on its way to each node, over time? Source: timetrace.md 5.33.

use super::intervals::{self, Field, Series};
use super::samples::us;
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::Model;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Rx;

impl Analyzer for Rx {
    fn about(&self) -> &'static About {
        &About {
            name: "rx",
            question: "What is on its way to each node, over time?",
            source: "timetrace.md 5.33",
            needs: Needs::All(&[Kind::GroData]),
            uses: &[Kind::IpXmit, Kind::NicData, Kind::SoftirqData, Kind::SendGrant],
            options: &["interval", "late"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let fields = if options.data.is_some() { FIELDS } else { &[Field::RxBytes] };
        let all = intervals::collect(model, options, None, fields);
        let mut summary = Table::new("rx", "Received message bytes, mean over the trace:")
            .column("Node", Unit::None, "")
            .column("Gbps", Unit::Gbps, "")
            .decimals(2);
        for s in &all {
            let time = (s.steps.count as i64 * s.steps.length) as f64;
            summary.row([model.name(s.node).into(), s.sum(Field::RxBytes).map(|b| b * 8.0 / time).into()]);
        }
        let mut report = Report::of([summary]);
        if options.data.is_some() {
            report.tables.extend(all.iter().map(|s| series(model, s)));
        } else {
            report.notes.push("The time series are written with --data DIR.".into());
        }
        report
    }
}

/// What the time series needs.
const FIELDS: &[Field] = &[
    Field::RxBytes,
    Field::RxLive,
    Field::RxPkts,
    Field::RxGrantable,
    Field::RxNewGrants,
    Field::RxGranted,
    Field::RxDataQdisc,
    Field::RxDataNet,
    Field::RxOverdue,
    Field::RxDataGro,
];

fn series(model: &Model, s: &Series) -> Table {
    let mut table =
        Table::series("rx", &model.name(s.node), "What is received in each step, and on its way at its end")
            .column("Time", Unit::Us, "end of the step")
            .column("Gbps", Unit::Gbps, "message bytes at GRO")
            .column("Live", Unit::None, "live incoming messages")
            .column("Pkts", Unit::None, "data packets at GRO")
            .column("Grantable", Unit::None, "incoming messages that need grants")
            .column("TxGrant", Unit::Kb, "newly granted")
            .column("Granted", Unit::Kb, "granted and not sent")
            .column("IP", Unit::Kb, "between the sender's IP and NIC")
            .column("Net", Unit::Kb, "between the sender's NIC (IP, if no NIC is logged) and GRO")
            .column("Late", Unit::Kb, "of these, overdue (--late)")
            .column("GRO", Unit::Kb, "between GRO and SoftIRQ");
    for k in 0..s.steps.count {
        let kb = |field| s.cell(field, k, 1e3);
        table.row([
            us(Some(s.steps.end(k))),
            s.cell(Field::RxBytes, k, s.steps.length as f64 / 8.0),
            s.cell(Field::RxLive, k, 1.0),
            s.cell(Field::RxPkts, k, 1.0),
            s.cell(Field::RxGrantable, k, 1.0),
            kb(Field::RxNewGrants),
            kb(Field::RxGranted),
            kb(Field::RxDataQdisc),
            kb(Field::RxDataNet),
            kb(Field::RxOverdue),
            kb(Field::RxDataGro),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn series_show_where_the_bytes_are() {
        let mut traffic = Traffic::new(2);
        traffic.event(1, 0, 1.0, "homa_softirq starting").event(1, 0, 200.0, "homa_softirq starting");
        let d = Delays { nic: 10.0, net: 100.0, softirq: 45.0, ..Delays::USUAL };
        traffic.packet((0, 1), 10, (0, 1400, 1400), 45.0, d);
        let options = Options { data: Some("x".into()), late: 90.0, ..Options::default() };
        let report = Rx.run(&traffic.model(), &options);
        let table = report.table("rx_node2").unwrap();
        let column = |key: &str| (0..table.rows.len()).map(|r| table.get(r, key).number()).collect::<Vec<_>>();
        // At IP at 45, at the NIC at 55, at GRO at 155, in SoftIRQ at 200.
        assert_eq!(column("ip_kb"), [1.4, 0.0, 0.0, 0.0].map(Some));
        assert_eq!(column("net_kb"), [0.0, 1.4, 1.4, 0.0].map(Some));
        assert_eq!(column("late_kb"), [0.0, 0.0, 1.4, 0.0].map(Some));
        assert_eq!(column("gro_kb"), [0.0, 0.0, 0.0, 1.4].map(Some));
        assert_eq!(column("granted_kb"), [None; 4]);
        assert_eq!(report.table("rx").unwrap().get(1, "gbps"), &(1400.0 * 8.0 / 200_000.0).into());
    }
}
