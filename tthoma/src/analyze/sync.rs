//! `sync`: how far apart are the nodes' clocks, and how sure is that? Nothing is written to the traces; every analysis
//! synchronises clocks for itself.

use super::{About, Analyzer, ClockReport, Needs, NodeReport, Options, Report, Table, Unit};
use crate::event::{Kind, Kinds};
use crate::model::Model;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Sync;

impl Analyzer for Sync {
    fn about(&self) -> &'static About {
        &About {
            name: "sync",
            question: "How far apart are the nodes' clocks, and how wrong can times between nodes be?",
            source: "timetrace.md 2",
            needs: Needs::All(&[Kind::IpXmit, Kind::GroData]),
            uses: &[Kind::SendGrant, Kind::GroGrant, Kind::Retransmit],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn packets(&self) -> bool {
        false
    }

    fn run(&self, model: &Model, _: &Options) -> Report {
        let clock = ClockReport::new(model);
        let placed = clock.nodes.iter().filter(|n| n.offset_us.is_some()).count();
        let mut report = Report::of([packets(&NodeReport::all(model)), offsets(&clock), pairs(&clock)]);
        if placed < 2 {
            report.warnings.push("sync: no two nodes have a common clock".into());
        }
        report
    }
}

fn packets(nodes: &[NodeReport]) -> Table {
    let mut table = Table::new("packets", "Events that clocks are synchronised by:")
        .column("Node", Unit::None, "")
        .column("Span", Unit::Ms, "")
        .column("DataSent", Unit::None, "")
        .column("DataGRO", Unit::None, "")
        .column("GrantSent", Unit::None, "")
        .column("GrantGRO", Unit::None, "");
    for n in nodes {
        let counts = [n.data_sent, n.data_gro, n.grants_sent, n.grants_gro].map(Into::into);
        table.row([(&n.node).into(), n.span_ms.into()].into_iter().chain(counts));
    }
    table
}

fn offsets(clock: &ClockReport) -> Table {
    let title = format!("Offsets, to be added to the node's times (reference {}):", clock.reference);
    let column = |table: Table, title, meaning| table.column(title, Unit::Us, meaning).decimals(3);
    let mut table = Table::new("offsets", title).column("Node", Unit::None, "");
    table = column(table, "Min", "no packet arrives before it is sent: the offset is surely no less");
    table = column(table, "Max", "and surely no more");
    table = column(table, "Range", "");
    table = column(table, "Offset", "the middle");
    table = column(table, "Error", "how wrong that can be");
    for n in &clock.nodes {
        let range = n.max_us.zip(n.min_us).map(|(max, min)| max - min);
        let row = table.row([
            (&n.node).into(),
            n.min_us.into(),
            n.max_us.into(),
            range.into(),
            n.offset_us.into(),
            n.error_us.into(),
        ]);
        if n.offset_us.is_none() {
            row.note("no usable packets in both directions");
        }
    }
    table
}

fn pairs(clock: &ClockReport) -> Table {
    let mut table = Table::new("pairs", "Pairs of nodes:")
        .column("From", Unit::None, "")
        .column("To", Unit::None, "")
        .column("Packets", Unit::None, "packets that were sent once and received once")
        .column("MinDelay", Unit::Us, "smallest one-way delay with these offsets")
        .decimals(3)
        .column("Error", Unit::Us, "how wrong times between the two nodes can be")
        .decimals(3);
    for p in &clock.pairs {
        table.row([(&p.from).into(), (&p.to).into(), p.packets.into(), p.min_delay_us.into(), p.clock_error_us.into()]);
    }
    table
}
