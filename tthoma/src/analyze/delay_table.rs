//! The forms of [`Report`] for people and for spreadsheets.

use std::fmt::Write as _;

use super::delay::{Negative, Report, Row, Slow};
use super::journeys::Phase;

const GROUPS: [(&str, &str, &str); 3] = [
    ("short", "Data packets from messages <= 1000 bytes:", "Short msgs"),
    ("long", "Data packets from messages > 1000 bytes:", "Long msgs"),
    ("grants", "Grants:", "Grants"),
];

const HANDOFFS: [(&str, &str); 5] = [
    ("gro_to_softirq", "GRO to SoftIRQ:"),
    ("softirq_to_polling", "SoftIRQ to polling app:"),
    ("softirq_to_sleeping", "SoftIRQ to sleeping app:"),
    ("softirq_to_server_queue", "SoftIRQ to server via queue:"),
    ("softirq_to_client_queue", "SoftIRQ to client via queue:"),
];

const QDISC: [(&str, &str); 2] =
    [("deferred", "Time deferred in homa_qdisc:"), ("pacer_to_nic", "homa_qdisc pacer to NIC:")];

const LEGEND: &str = "\
Delays of data and grant packets, in microseconds:
Xmit:     from the call of IP until the driver gave the packet to the NIC
          (grants: from the decision to grant)
Net:      from the NIC until GRO on the other node
Ring:     part of Net: from the kernel's receive time stamp until the stack saw the
          packet in its receive ring (only traces of stacks that log it)
SoftIRQ:  from GRO until SoftIRQ
Free:     from the NIC until the NIC gave the packet back
Total:    from the call of IP until SoftIRQ
";

impl Report {
    /// True if any delay has samples.
    pub fn has_results(&self) -> bool {
        let mut rows = self.groups.0.iter().flat_map(|(_, g)| &g.0).chain(&self.handoffs.0).chain(&self.qdisc.0);
        rows.any(|(_, row)| row.count > 0)
    }

    /// What a reader must know before believing the figures, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut all = self.import.problems.clone();
        all.extend(self.clock.problems());
        if !self.options.negative_ok {
            all.extend(self.negatives.iter().filter(|n| !n.within_error).map(unexplained));
        }
        all
    }

    /// Tables for people.
    pub fn to_table(&self) -> String {
        let mut out = format!("{}\n{}\n{LEGEND}\n", self.import.line(), self.clock.table());
        heading(&mut out, "Phase", 8);
        for (key, title, _) in GROUPS {
            let _ = writeln!(out, "{title}");
            for (phase, row) in self.groups.get(key).iter().flat_map(|g| &g.0) {
                let name = Phase::ALL.into_iter().find(|p| p.key() == *phase).map_or(*phase, Phase::title);
                line(&mut out, name, 8, row);
            }
            out.push('\n');
        }
        self.breakdown_table(&mut out);
        let _ = writeln!(out, "Delays in handing off from one core or thread to another:");
        heading(&mut out, "", 28);
        HANDOFFS
            .iter()
            .for_each(|(key, title)| self.handoffs.get(key).iter().for_each(|r| line(&mut out, title, 28, r)));
        let _ = writeln!(out, "\nDelays in homa_qdisc:");
        heading(&mut out, "", 28);
        QDISC.iter().for_each(|(key, title)| self.qdisc.get(key).iter().for_each(|r| line(&mut out, title, 28, r)));
        self.notes(&mut out);
        if self.options.verbose {
            slowest(&mut out, &self.slowest);
            let _ = write!(out, "\n{}", self.import.shapes());
        }
        out
    }

    fn breakdown_table(&self, out: &mut String) {
        let phases: Vec<Phase> = Phase::ALL
            .into_iter()
            .filter(|p| *p != Phase::Total)
            .filter(|p| *p != Phase::Ring || self.groups.get("short").is_some_and(|g| g.get("ring").is_some()))
            .collect();
        let _ = writeln!(out, "Phases of packets whose total is between P98 and P99:");
        let _ = write!(out, "{:<12} {:>6}", "", "");
        phases.iter().for_each(|p| *out += &format!(" {:>15}", p.title()));
        let _ = write!(out, "\n{:<12} {:>6}", "", "Pkts");
        phases.iter().for_each(|_| *out += &format!(" {:>7} {:>7}", "P50", "Avg"));
        out.push('\n');
        for (key, _, title) in GROUPS {
            let Some(breakdown) = self.breakdown.get(key) else { continue };
            let _ = write!(out, "{title:<12} {:>6}", breakdown.packets);
            for phase in &phases {
                let _ = match breakdown.phases.get(phase.key()) {
                    Some(center) => write!(out, " {:>7.1} {:>7.1}", center.p50_us, center.avg_us),
                    None => write!(out, " {:>7} {:>7}", "-", "-"),
                };
            }
            out.push('\n');
        }
        out.push('\n');
    }

    /// Negative delays and everything left out.
    fn notes(&self, out: &mut String) {
        if !self.negatives.is_empty() && !self.options.negative_ok {
            let _ = writeln!(out, "\nNegative delays (they are in the tables; Error: what the clocks allow, us):");
            let _ =
                writeln!(out, "{:<8} {:<12} {:<12} {:>8} {:>9} {:>9}", "Phase", "From", "To", "Count", "Min", "Error");
            for n in &self.negatives {
                let error = n.clock_error_us.map_or_else(|| "-".into(), |e| format!("{e:.3}"));
                let verdict = if n.within_error { "within the clocks' error" } else { "NOT explained by clocks" };
                let _ = writeln!(
                    out,
                    "{:<8} {:<12} {:<12} {:>8} {:>9.3} {:>9} {verdict}",
                    n.phase, n.from, n.to, n.count, n.min_us, error
                );
            }
        }
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
        if counts.iter().any(|(count, _)| *count > 0) {
            let _ = writeln!(out, "\nLeft out:");
            for (count, what) in counts.iter().filter(|(count, _)| *count > 0) {
                let _ = writeln!(out, "{count:>9} {what}");
            }
        }
    }

    /// A line for each delay, with a heading; empty fields where there are no samples.
    pub fn to_csv(&self) -> String {
        let mut out = String::from("group,delay,count,min_us,p10_us,p50_us,p90_us,p99_us,max_us,avg_us\n");
        let tables = self.groups.0.iter().map(|(name, rows)| (*name, rows));
        for (group, rows) in tables.chain([("handoffs", &self.handoffs), ("qdisc", &self.qdisc)]) {
            for (name, row) in &rows.0 {
                let numbers = match &row.distribution {
                    Some(d) => [d.min_us, d.p10_us, d.p50_us, d.p90_us, d.p99_us, d.max_us, d.avg_us]
                        .map(|v| format!("{v:.3}"))
                        .join(","),
                    None => ",".repeat(6),
                };
                let _ = writeln!(out, "{group},{name},{},{numbers}", row.count);
            }
        }
        out
    }
}

/// Says what is wrong with negative delays that the clocks' error does not explain.
fn unexplained(n: &Negative) -> String {
    let Negative { phase, from, to, count, min_us, .. } = n;
    if from == to {
        return format!(
            "{count} negative {phase} delays on {from}, down to {min_us:.3} us: its events are out of order"
        );
    }
    let error = n.clock_error_us.map_or_else(|| "is unknown".into(), |e| format!("is at most {e:.3} us"));
    format!(
        "{count} negative {phase} delays from {from} to {to}, down to {min_us:.3} us, and the clocks' error {error}: \
         these clocks can't be compared (see `tthoma analyze sync`)"
    )
}

fn heading(out: &mut String, title: &str, width: usize) {
    let _ = writeln!(
        out,
        "{title:<width$} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
        "Count", "Min", "P10", "P50", "P90", "P99", "Max", "Avg"
    );
    let _ = writeln!(out, "{}", "-".repeat(width + 64));
}

fn line(out: &mut String, title: &str, width: usize, row: &Row) {
    let _ = match &row.distribution {
        Some(d) => writeln!(
            out,
            "{title:<width$} {:>7} {:>7.1} {:>7.1} {:>7.1} {:>7.1} {:>7.1} {:>7.1} {:>7.1}",
            row.count, d.min_us, d.p10_us, d.p50_us, d.p90_us, d.p99_us, d.max_us, d.avg_us
        ),
        None if row.missing_events.is_empty() => writeln!(out, "{title:<width$}       -  none in these traces"),
        None => writeln!(out, "{title:<width$}       -  the traces have no {}", row.missing_events.join(", ")),
    };
}

fn slowest(out: &mut String, slowest: &[Slow]) {
    let _ = writeln!(
        out,
        "\nSlowest (of more than 1000 samples spread over the slowest 2 %; Packet: client, id on its sender, offset):"
    );
    let _ = writeln!(
        out,
        "{:<23} {:<8} {:>9}  {:<28} {:<12} {:>4} {:>13} {:>6}",
        "Group", "Phase", "Delay", "Packet", "Node", "Core", "EndTime", "Pctl"
    );
    for s in slowest {
        let _ = writeln!(
            out,
            "{:<23} {:<8} {:>9.1}  {:<28} {:<12} {:>4} {:>13.3} {:>6.1}",
            s.group,
            s.phase.unwrap_or("-"),
            s.delay_us,
            s.packet.as_deref().unwrap_or("-"),
            s.node,
            s.core.map_or_else(|| "-".to_string(), |c| c.to_string()),
            s.end_us,
            s.percentile
        );
    }
}
