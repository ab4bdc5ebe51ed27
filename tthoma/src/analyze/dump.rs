//! `bpages` and `longterm`: what the state dump and the snapshots at the end of a trace say. Source: timetrace.md 5.2, 5.12.

use std::collections::BTreeMap;

use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds, Record};
use crate::model::Model;

/// `bpages`; see [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct BPages;

/// `longterm`; see [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct LongTerm;

impl Analyzer for BPages {
    fn about(&self) -> &'static About {
        &About {
            name: "bpages",
            question: "How many pages of the receive pool do messages hold at the end?",
            source: "timetrace.md 5.2",
            needs: Needs::All(&[Kind::BpagesAlloced]),
            uses: &[],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        self.about().kinds()
    }

    fn run(&self, model: &Model, _: &Options) -> Report {
        let mut table = Table::new("bpages", "Receive pool at the end of the trace:")
            .column("Node", Unit::None, "")
            .column("RPCs", Unit::None, "")
            .column("Bpages", Unit::None, "");
        for trace in &model.traces {
            let pages = || trace.records.iter().filter(|r| r.kind == Kind::BpagesAlloced).map(|r| u64::from(r.a));
            let row = table.row([(&trace.node).into(), pages().count().into(), pages().sum::<u64>().into()]);
            if pages().next().is_none() {
                row.note("no bpages_alloced in this trace");
            }
        }
        Report::of([table])
    }
}

const KINDS: [(Kind, &str, &str); 4] = [
    (Kind::SnapshotClientRequest, "client_requests", "Requests of clients"),
    (Kind::SnapshotClientResponse, "client_responses", "Responses to clients"),
    (Kind::SnapshotServerRequest, "server_requests", "Requests to servers"),
    (Kind::SnapshotServerResponse, "server_responses", "Responses of servers"),
];
/// The tables are about the last of the snapshots, us.
const WINDOW: f64 = 2e6;

impl Analyzer for LongTerm {
    fn about(&self) -> &'static About {
        &About {
            name: "longterm",
            question: "How did the backlog of messages develop over seconds?",
            source: "timetrace.md 5.12",
            needs: Needs::All(&[Kind::SnapshotClock]),
            uses: &[],
            options: &[],
            requires: &[],
        }
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let all: Vec<(String, Vec<Snapshot>)> =
            model.traces.iter().map(|t| (t.node.clone(), snapshots(&t.records))).collect();
        let mut report = Report::of(KINDS.iter().enumerate().map(|(i, (_, name, title))| {
            let mut table = Table::new(*name, format!("{title}, over the last 2 s of the snapshots:"))
                .column("Node", Unit::None, "")
                .column("Active", Unit::None, "started and not done, at the end")
                .column("PendMB", Unit::None, "their megabytes that are not done")
                .decimals(2)
                .column("MStart", Unit::None, "messages started, thousands a second")
                .decimals(2)
                .column("DStart", Unit::Gbps, "their bytes")
                .decimals(2)
                .column("DDone", Unit::Gbps, "bytes done")
                .decimals(2)
                .column("MDone", Unit::None, "messages done, thousands a second")
                .decimals(2);
            for (node, snapshots) in &all {
                let cells = summary(snapshots, i);
                let empty = cells.is_empty();
                let row = table.row(std::iter::once(node.into()).chain(cells));
                if empty {
                    row.note("fewer than two whole snapshots in this trace");
                }
            }
            table
        }));
        let spacings: Vec<f64> = all.iter().filter_map(|(_, s)| spacing(s)).collect();
        if spacings.windows(2).any(|pair| pair[0] != pair[1]) {
            report.warnings.push("longterm: the nodes took snapshots at different intervals".into());
        }
        if options.data.is_some() {
            for (node, snapshots) in all.iter().filter(|(_, s)| !s.is_empty()) {
                report.tables.extend([
                    series("longterm_client", node, snapshots, 0),
                    series("longterm_server", node, snapshots, 2),
                ]);
            }
        }
        report
    }
}

/// Counters at a time: started, bytes started, bytes done, done, for each of [`KINDS`].
struct Snapshot {
    /// Relative to the dump, us.
    at: f64,
    counters: [[f64; 4]; 4],
}

/// Whole groups of snapshot lines.
fn snapshots(records: &[Record]) -> Vec<Snapshot> {
    let mut out = Vec::new();
    let mut open: Option<(f64, BTreeMap<usize, [f64; 4]>)> = None;
    for record in records {
        if record.kind == Kind::SnapshotClock {
            open = Some((f64::from(record.a as i32), BTreeMap::new()));
        } else if let Some(kind) = KINDS.iter().position(|(k, ..)| *k == record.kind)
            && let Some((at, found)) = &mut open
        {
            // KiB in the trace.
            let bytes = |kib: u32| f64::from(kib) * 1024.0;
            found.insert(kind, [f64::from(record.offset), bytes(record.a), bytes(record.b), f64::from(record.c)]);
            if found.len() == KINDS.len() {
                let counters = std::array::from_fn(|i| found[&i]);
                out.push(Snapshot { at: *at, counters });
                open = None;
            }
        }
    }
    out
}

/// Distance of snapshots to one significant digit, us.
fn spacing(snapshots: &[Snapshot]) -> Option<f64> {
    let (first, last) = (snapshots.first()?, snapshots.last()?);
    let step = (last.at - first.at) / snapshots.len().checked_sub(1).filter(|n| *n > 0)? as f64;
    let digit = 10f64.powf(step.abs().log10().floor());
    Some((step / digit).round() * digit)
}

fn summary(snapshots: &[Snapshot], kind: usize) -> Vec<Cell> {
    let Some(last) = snapshots.last() else { return Vec::new() };
    let Some(first) = snapshots.iter().find(|s| s.at >= last.at - WINDOW).filter(|s| s.at < last.at) else {
        return Vec::new();
    };
    let mut cells: Vec<Cell> = pending(&last.counters[kind]).into();
    cells.extend(rates(&first.counters[kind], &last.counters[kind], last.at - first.at));
    cells
}

/// Messages and MB that are started and not done.
fn pending(counters: &[f64; 4]) -> [Cell; 2] {
    [(counters[0] - counters[3]).into(), ((counters[1] - counters[2]) / 1e6).into()]
}

/// Messages started (K/s), bytes started, bytes done (Gbps), messages done (K/s), in `us`.
fn rates(from: &[f64; 4], to: &[f64; 4], us: f64) -> [Cell; 4] {
    let rate = |i: usize, unit: f64| Cell::from((to[i] - from[i]) / us * unit);
    [rate(0, 1e3), rate(1, 8e-3), rate(2, 8e-3), rate(3, 1e3)]
}

fn series(name: &str, node: &str, snapshots: &[Snapshot], kind: usize) -> Table {
    let mut table = Table::series(name, node, "Messages between snapshots").column("Time", Unit::S, "before the end");
    for half in ["Req", "Rsp"] {
        table = table.column(format!("Actv{half}"), Unit::None, "").column(format!("{half}MB"), Unit::None, "");
        table = table.column(format!("{half}Start"), Unit::None, "thousands a second");
        table = table.column(format!("{half}DStart"), Unit::Gbps, "").column(format!("{half}DDone"), Unit::Gbps, "");
        table = table.column(format!("{half}Done"), Unit::None, "thousands a second");
    }
    for pair in snapshots.windows(2) {
        let mut cells: Vec<Cell> = vec![(pair[1].at / 1e6).into()];
        for k in [kind, kind + 1] {
            cells.extend(pending(&pair[1].counters[k]));
            cells.extend(rates(&pair[0].counters[k], &pair[1].counters[k], pair[1].at - pair[0].at));
        }
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::Traffic;

    #[test]
    fn pages_are_summed() {
        let mut traffic = Traffic::new(2);
        traffic.event(0, 0, 1.0, "RPC id 10 has 3 bpages allocated").event(
            0,
            0,
            1.0,
            "RPC id 13 has 4 bpages allocated",
        );
        traffic.event(1, 0, 1.0, "homa_softirq starting");
        let report = BPages.run(&traffic.model(), &Options::default());
        let table = report.table("bpages").unwrap();
        assert_eq!(
            (table.get(0, "rpcs"), table.get(0, "bpages"), table.rows[1].note.is_some()),
            (&2u32.into(), &7u32.into(), true)
        );
    }

    #[test]
    fn rates_are_differences_of_counters() {
        let mut traffic = Traffic::new(1);
        for i in 0..5i32 {
            let at = f64::from(i);
            traffic.event(0, 0, at, format!("rpc snapshot usecs {}", (i - 4) * 1_000_000));
            for kind in ["client requests", "client responses", "server requests", "server responses"] {
                let text = format!(
                    "rpc snapshot {kind} started {}, kbytes_started {}, kbytes_done {}, done {}",
                    1000 * i,
                    500_000 * i,
                    400_000 * i,
                    900 * i
                );
                traffic.event(0, 0, at + 0.1, text);
            }
        }
        let options = Options { data: Some("x".into()), ..Options::default() };
        let report = LongTerm.run(&traffic.model(), &options);
        let table = report.table("client_requests").unwrap();
        let number = |key: &str| table.get(0, key).number().unwrap();
        assert_eq!([number("active"), number("mstart"), number("mdone")], [400.0, 1.0, 0.9]);
        assert_eq!((number("pend_mb"), number("dstart_gbps")), (400_000.0 * 1024.0 / 1e6, 500_000.0 * 1024.0 * 8e-9));
        assert_eq!(report.table("longterm_server_node1").unwrap().rows.len(), 4);
        assert!(report.warnings.is_empty());
    }
}
