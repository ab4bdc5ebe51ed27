//! The tables of `delay`.

use super::delay::{Delays, Row, Slow};
use super::delay_negatives::{self, unexplained};
use super::{Cell, Distribution, Options, Report, Table, Unit};
use crate::model::Phase;

const GROUPS: [(&str, &str); 3] = [
    ("short", "Data packets from messages <= 1000 bytes"),
    ("long", "Data packets from messages > 1000 bytes"),
    ("grants", "Grants"),
];

/// What a group of packets is called.
pub(super) fn title(key: &str) -> &'static str {
    GROUPS.iter().find(|(known, _)| *known == key).map_or("packets", |(_, title)| title)
}

const HANDOFFS: [(&str, &str); 5] = [
    ("gro_to_softirq", "GRO to SoftIRQ"),
    ("softirq_to_polling", "SoftIRQ to polling app"),
    ("softirq_to_sleeping", "SoftIRQ to sleeping app"),
    ("softirq_to_server_queue", "SoftIRQ to server via queue"),
    ("softirq_to_client_queue", "SoftIRQ to client via queue"),
];

const QDISC: [(&str, &str); 2] =
    [("deferred", "Time deferred in homa_qdisc"), ("pacer_to_nic", "homa_qdisc pacer to NIC")];

const LEGEND: &str = "Delays of data and grant packets:
Xmit:     from the call of IP until the driver gave the packet to the NIC
          (grants: from the decision to grant)
Net:      from the NIC until GRO on the other node
Ring:     part of Net: from the kernel's receive time stamp until the stack saw the
          packet in its receive ring (only traces of stacks that log it)
SoftIRQ:  from GRO until SoftIRQ
Free:     from the NIC until the NIC gave the packet back
Total:    from the call of IP until SoftIRQ
(all in us)";

impl Delays {
    pub(super) fn report(&self, options: &Options) -> Report {
        let mut report = Report::of([self.phases(), self.breakdown(), self.handoffs(), self.qdisc()]);
        if !self.negatives.is_empty() && !options.negative_ok {
            report.tables.push(delay_negatives::table(&self.negatives));
            report.warnings.extend(self.negatives.iter().filter(|n| !n.within_error).map(unexplained));
        }
        let excluded = self.excluded();
        if !excluded.rows.is_empty() {
            report.tables.push(excluded);
        }
        if options.verbose {
            report.tables.push(slowest(&self.slowest));
        }
        report
    }

    fn phases(&self) -> Table {
        let table = Table::new("phases", LEGEND).column("Group", Unit::None, "").column("Phase", Unit::None, "");
        let mut table = table.distribution().grouped();
        for (key, title) in GROUPS {
            for (phase, row) in self.groups.get(key).iter().flat_map(|g| &g.0) {
                let name = Phase::ALL.into_iter().find(|p| p.key() == *phase).map_or(*phase, Phase::title);
                add(&mut table, [title, name], row);
            }
        }
        table
    }

    fn breakdown(&self) -> Table {
        let has_ring = self.groups.get("short").is_some_and(|g| g.get("ring").is_some());
        let phases: Vec<Phase> =
            (Phase::ALL.into_iter()).filter(|p| *p != Phase::Total && (*p != Phase::Ring || has_ring)).collect();
        let mut table = Table::new("breakdown", "Phases of packets whose total is between P98 and P99 (us):")
            .column("Group", Unit::None, "")
            .column("Packets", Unit::None, "");
        for phase in &phases {
            let key = phase.key();
            table = table.column(format!("{} P50", phase.title()), Unit::Us, "").key(&format!("{key}_p50"));
            table = table.column("Avg", Unit::Us, "").key(&format!("{key}_avg"));
        }
        for (key, title) in GROUPS {
            let Some(breakdown) = self.breakdown.get(key) else { continue };
            let centers = phases.iter().flat_map(|phase| match breakdown.phases.get(phase.key()) {
                Some(center) => [center.p50_us.into(), center.avg_us.into()],
                None => [Cell::None, Cell::None],
            });
            let row = table.row([title.into(), breakdown.packets.into()].into_iter().chain(centers));
            if breakdown.packets == 0 {
                row.note("none with both ends");
            }
        }
        table
    }

    fn handoffs(&self) -> Table {
        let title = "Delays in handing off from one core or thread to another (us):";
        let mut table = Table::new("handoffs", title).column("Handoff", Unit::None, "").distribution();
        for (key, title) in HANDOFFS {
            self.handoffs.get(key).iter().for_each(|row| add(&mut table, [title], row));
        }
        table
    }

    fn qdisc(&self) -> Table {
        let mut table =
            Table::new("qdisc", "Delays in homa_qdisc (us):").column("Delay", Unit::None, "").distribution();
        for (key, title) in QDISC {
            self.qdisc.get(key).iter().for_each(|row| add(&mut table, [title], row));
        }
        table
    }

    /// Everything left out that occurs.
    fn excluded(&self) -> Table {
        let (e, h) = (&self.excluded, &self.handoffs_excluded);
        let counts = [
            (
                e.ambiguous_retransmissions,
                "packets that came once of several sendings or several times: not in Net and Total",
            ),
            (e.unsynchronised, "packets between nodes without a common clock: not in Net and Total"),
            (e.unknown_length, "packets of messages of unknown length: in no group"),
            (e.softirq_without_gro, "packets in SoftIRQ whose GRO is before the trace: not in SoftIRQ"),
            (
                e.gro_without_softirq,
                "packets at GRO whose SoftIRQ is after the trace or never: not in SoftIRQ and Total",
            ),
            (e.discarded, "packets that SoftIRQ discarded, as their RPC did not exist: not in SoftIRQ and Total"),
            (e.ambiguous_records, "events of ids that several clients used with one server at a time"),
            (e.unresolved_records, "events of RPCs of unknown clients: not in Net and Total"),
            (e.lone_ring_waits, "ring waits that follow no packet"),
            (h.batches_open, "GRO batches whose first packet or its processing is not in the trace"),
            (h.replaced, "hand-offs replaced by another of the same RPC"),
            (h.open, "hand-offs not over at the end of the trace"),
        ];
        let mut table =
            Table::new("excluded", "Left out:").column("Count", Unit::None, "").column("What", Unit::None, "");
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            table.row([count.into(), what.into()]);
        }
        table
    }
}

/// A row of a distribution; if it has no samples, with the reason.
fn add<const N: usize>(table: &mut Table, names: [&'static str; N], row: &Row) {
    let mut cells = Distribution::cells(row.count, row.distribution);
    // What was never logged was not counted either.
    if !row.missing_events.is_empty() {
        cells[0] = Cell::None;
    }
    let line = table.row(names.into_iter().map(Cell::from).chain(cells));
    match row.missing_events.as_slice() {
        _ if row.distribution.is_some() => {}
        [] => line.note("none in these traces"),
        missing => line.note(format!("the traces have no {}", missing.join(", "))),
    }
}

fn slowest(slowest: &[Slow]) -> Table {
    let title =
        "Slowest (of more than 1000 samples spread over the slowest 2 %; Packet: client, id on its sender, offset):";
    let mut table = Table::new("slowest", title)
        .column("Group", Unit::None, "")
        .column("Phase", Unit::None, "")
        .column("Delay", Unit::Us, "")
        .column("Packet", Unit::None, "")
        .column("Node", Unit::None, "")
        .column("Core", Unit::None, "")
        .column("EndTime", Unit::Us, "")
        .decimals(3)
        .column("Pctl", Unit::Percent, "");
    for s in slowest {
        table.row([
            s.group.into(),
            s.phase.into(),
            s.delay_us.into(),
            s.packet.as_deref().into(),
            (&s.node).into(),
            s.core.into(),
            s.end_us.into(),
            s.percentile.into(),
        ]);
    }
    table
}
