//! `handoffs`: how fast do messages reach threads, and how long are the queues of ports? Source: timetrace.md 5.10.
//!
//! A hand-off is fast if a thread was waiting for it, queued if the RPC was put on its port's queue. A sample is an event of
//! SoftIRQ and the thread's that follows it on the same RPC. An RPC that a thread takes from the queue without having been
//! queued in the trace was queued since its begin.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::samples::{Samples, share};
use super::sweep::Sweep;
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{AMBIGUOUS, Have, Kind, Kinds, Record};
use crate::model::Model;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Handoffs;

/// Whether responses come there, node and port.
type Key = (bool, u16, Option<u32>);

impl Analyzer for Handoffs {
    fn about(&self) -> &'static About {
        &About {
            name: "handoffs",
            question: "How fast do messages reach threads, and how long are the queues of ports?",
            source: "timetrace.md 5.10",
            needs: Needs::All(&[Kind::WaitFoundRpc]),
            uses: &[Kind::RpcHandoff, Kind::RpcQueued],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        self.about().kinds()
    }

    fn run(&self, model: &Model, _: &Options) -> Report {
        let mut ports: BTreeMap<Key, Port> = BTreeMap::new();
        for (node, trace) in model.traces.iter().enumerate() {
            let Some((first, _)) = trace.span else { continue };
            let mut pending: FxHashMap<(u16, u32), (i64, bool)> = FxHashMap::default();
            for record in trace.records.iter().filter(|r| r.client != AMBIGUOUS) {
                if !matches!(record.kind, Kind::RpcHandoff | Kind::RpcQueued | Kind::WaitFoundRpc) {
                    continue;
                }
                let (client, id) = (record.client, record.id);
                let port = model.rpcs().side(client, id).and_then(|s| s.port);
                // Odd ids are those of servers, which get requests.
                let port = ports.entry((id.is_multiple_of(2), node as u16, port)).or_default();
                port.add(record, first, &mut pending);
            }
            // What is still queued at the end was queued until then.
            for ((client, id), (since, queued)) in pending {
                let port = model.rpcs().side(client, id).and_then(|s| s.port);
                if let (true, Some(port)) = (queued, ports.get_mut(&(id.is_multiple_of(2), node as u16, port))) {
                    port.queue.lasts(since, i64::MAX / 4, 1.0);
                }
            }
        }
        let all: Vec<(&Key, &Port)> = ports.iter().collect();
        Report::of([("requests", "Requests:", false), ("responses", "Responses:", true)].map(
            |(name, title, responses)| {
                let mut table = empty(name, title);
                for (node, trace) in model.traces.iter().enumerate() {
                    let Some(span) = trace.span else { continue };
                    let of_node = || all.iter().filter(|((r, n, _), _)| (*r, usize::from(*n)) == (responses, node));
                    let mut total = Port::default();
                    for ((.., port), found) in of_node() {
                        table.row(found.cells(
                            &model.name(node as u16),
                            port.map_or("?".into(), |p| p.to_string()),
                            span,
                        ));
                        total.merge(found);
                    }
                    if of_node().count() > 1 {
                        table.row(total.cells(&model.name(node as u16), "Total".into(), span));
                    }
                }
                table
            },
        ))
    }
}

fn empty(name: &str, title: &str) -> Table {
    let mut table = Table::new(name, title)
        .column("Node", Unit::None, "")
        .column("Port", Unit::None, "")
        .column("Handoffs", Unit::None, "fast and queued")
        .column("RPCs", Unit::None, "")
        .column("Fast", Unit::Share, "share of hand-offs to a waiting thread");
    for title in ["FAvg", "FP50", "FP90", "FP99"] {
        table = table.column(title, Unit::Us, if title == "FAvg" { "time of a fast one" } else { "" });
    }
    for title in ["QAvg", "QP50", "QP90", "QP99"] {
        table = table.column(title, Unit::Us, if title == "QAvg" { "time in the queue" } else { "" });
    }
    table
        .column("Any", Unit::Share, "share of time that RPCs are queued")
        .column("Avg", Unit::None, "queued RPCs, mean")
        .decimals(3)
        .column("Max", Unit::None, "")
}

#[derive(Clone, Default)]
struct Port {
    fast: Vec<i64>,
    queued: Vec<i64>,
    rpcs: std::collections::BTreeSet<(u16, u32)>,
    queue: Sweep,
}

impl Port {
    fn add(&mut self, record: &Record, first: i64, pending: &mut FxHashMap<(u16, u32), (i64, bool)>) {
        let (rpc, time) = ((record.client, record.id), record.time);
        self.rpcs.insert(rpc);
        let is_queued = match record.kind {
            Kind::RpcHandoff => false,
            Kind::RpcQueued => true,
            _ => {
                match pending.remove(&rpc) {
                    Some((since, false)) => self.fast.push(time - since),
                    Some((since, true)) => {
                        self.queued.push(time - since);
                        self.queue.lasts(since, time, 1.0);
                    }
                    // Via the queue, and it was put there before the trace began.
                    None if record.have.has(Have::B) && record.b == 2 => self.queue.lasts(first, time, 1.0),
                    None => {}
                }
                return;
            }
        };
        match pending.insert(rpc, (time, is_queued)) {
            // It stays in the queue.
            Some((since, true)) if is_queued => drop(pending.insert(rpc, (since, true))),
            Some((since, true)) => self.queue.lasts(since, time, 1.0),
            _ => {}
        }
    }

    fn merge(&mut self, other: &Self) {
        self.fast.extend(&other.fast);
        self.queued.extend(&other.queued);
        self.rpcs.extend(&other.rpcs);
        self.queue.merge(&other.queue);
    }

    fn cells(&self, node: &str, port: String, (first, last): (i64, i64)) -> Vec<Cell> {
        let (fast, queued): (Samples, Samples) =
            (self.fast.iter().copied().collect(), self.queued.iter().copied().collect());
        let all = fast.len() + queued.len();
        let mut cells: Vec<Cell> = vec![node.into(), port.into(), all.into(), self.rpcs.len().into()];
        cells.push(share(fast.len() as f64, all as f64));
        for samples in [fast, queued] {
            cells.extend([samples.avg(), samples.p(50), samples.p(90), samples.p(99)]);
        }
        let swept = self.queue.clone().run(first, last);
        cells.extend([swept.any().into(), swept.mean().into(), swept.max.map_or(0, |(most, _)| most as i64).into()]);
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::Traffic;

    fn found(id: u32, via: &str, blocked: u32) -> String {
        format!("homa_wait_shared found rpc id {id}, pid 7, port 4000 via {via}, blocked {blocked}")
    }

    #[test]
    fn delays_and_queues_are_those_of_the_events() {
        let mut traffic = Traffic::new(1);
        traffic.event(0, 0, 0.0, "homa_softirq starting").event(0, 0, 1000.0, "homa_softirq starting");
        let mut waits = 0.0;
        for i in 0..10u32 {
            let (id, at) = (11 + 2 * i, 50.0 * f64::from(i));
            traffic.event(0, 1, at, format!("homa_rpc_handoff handing off id {id} for port 4000"));
            traffic.event(0, 3, at + 2.0, found(id, "handoff", 1));
            // The rest of the message is queued.
            traffic.event(0, 1, at + 10.0, format!("homa_rpc_handoff queued id {id} for port 4000"));
            traffic.event(0, 3, at + 80.0 + f64::from(i), found(id, "ready_rpcs", 0));
            waits += 70.0 + f64::from(i);
        }
        let report = Handoffs.run(&traffic.model(), &Options::default());
        let table = report.table("requests").unwrap();
        let number = |key: &str| table.get(0, key).number().unwrap();
        assert_eq!(
            [number("handoffs"), number("rpcs"), number("fast_share"), number("favg_us")],
            [20.0, 10.0, 0.5, 2.0]
        );
        assert_eq!((number("qp50_us"), number("max")), (75.0, 2.0));
        assert!((number("avg") * 1000.0 - waits).abs() < 1e-6, "Little's law");
        assert!(report.table("responses").unwrap().rows.is_empty());
    }

    #[test]
    fn what_was_queued_before_the_trace_counts_from_its_begin() {
        let mut traffic = Traffic::new(1);
        traffic.event(0, 0, 100.0, "homa_softirq starting").event(0, 0, 200.0, "homa_softirq starting");
        traffic.event(0, 3, 150.0, found(12, "ready_rpcs", 0));
        let report = Handoffs.run(&traffic.model(), &Options::default());
        let table = report.table("responses").unwrap();
        assert_eq!(
            (table.get(0, "any_share"), table.get(0, "handoffs"), table.get(0, "fast_share")),
            (&0.5.into(), &0u32.into(), &Cell::None)
        );
    }
}
