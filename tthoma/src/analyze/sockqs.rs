//! `sockqs`: how did each thread get each RPC, and where in the port's queue was it? Source: timetrace.md 5.37.

use rustc_hash::FxHashMap;

use super::samples::{Samples, us};
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{AMBIGUOUS, Have, Kind, Kinds, Record};
use crate::model::Model;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct SockQs;

impl Analyzer for SockQs {
    fn about(&self) -> &'static About {
        &About {
            name: "sockqs",
            question: "How did each thread get each RPC, and how many were in its port's queue?",
            source: "timetrace.md 5.37",
            needs: Needs::All(&[Kind::WaitFoundRpc]),
            uses: &[Kind::RpcHandoff, Kind::RpcQueued],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        self.about().kinds()
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut summary = Table::new("ways", "How threads got RPCs, and how long after they were ready:")
            .column("Node", Unit::None, "")
            .column("Type", Unit::None, "the thread polled, slept, or came to the queue")
            .distribution();
        let mut report = Report::default();
        for (node, trace) in model.traces.iter().enumerate() {
            let mut table = Table::series("sockqs", &trace.node, "Each time that a thread got an RPC")
                .column("Time", Unit::Us, "")
                .column("Id", Unit::None, "")
                .column("Length", Unit::Bytes, "of the message")
                .column("Port", Unit::None, "")
                .column("Pid", Unit::None, "")
                .column("Type", Unit::None, "poll, block or queue")
                .column("Delay", Unit::Us, "since the RPC was handed off or queued")
                .column("QLen", Unit::None, "RPCs in the port's queue at that time")
                .column("Ahead", Unit::None, "RPCs that were taken from the port since then")
                .column("Final", Unit::None, "X: the last time for this RPC");
            let mut ways: [Vec<i64>; 3] = Default::default();
            let mut queues = Queues::default();
            let mut last: FxHashMap<(u16, u32), usize> = FxHashMap::default();
            for record in trace.records.iter().filter(|r| r.client != AMBIGUOUS) {
                let side = || model.rpcs().side(record.client, record.id);
                let rpc = (record.client, record.id);
                match record.kind {
                    Kind::RpcHandoff => queues.ready(side().and_then(|s| s.port), rpc, record.time, false),
                    Kind::RpcQueued => queues.ready(side().and_then(|s| s.port), rpc, record.time, true),
                    Kind::WaitFoundRpc => {
                        let port = side().and_then(|s| s.port);
                        let found = queues.found(port, rpc);
                        let way = way(record, found.is_some_and(|w| w.queued));
                        let delay = found.map(|w| record.time - w.since);
                        ways[way].extend(delay);
                        last.insert(rpc, table.rows.len());
                        table.row([
                            us(Some(record.time + model.clock.offset(node).unwrap_or(0))),
                            record.id.into(),
                            side().and_then(|s| s.in_length).into(),
                            port.into(),
                            record.have.has(Have::C).then_some(record.c).into(),
                            WAYS[way].into(),
                            us(delay),
                            found.map(|w| w.length).into(),
                            found.map(|w| w.ahead).into(),
                        ]);
                    }
                    _ => {}
                }
            }
            for row in last.into_values() {
                if let Some(cell) = table.rows[row].cells.last_mut() {
                    *cell = "X".into();
                }
            }
            for (way, samples) in WAYS.iter().zip(ways) {
                let samples: Samples = samples.into_iter().collect();
                summary.row([(&trace.node).into(), (*way).into()].into_iter().chain(samples.cells()));
            }
            if options.data.is_some() {
                report.tables.push(table);
            }
        }
        report.tables.insert(0, summary);
        report
    }
}

const WAYS: [&str; 3] = ["poll", "block", "queue"];

/// How the thread got it, as an index of [`WAYS`].
fn way(record: &Record, queued: bool) -> usize {
    let via_queue = if record.have.has(Have::B) { record.b == 2 } else { queued };
    if via_queue { 2 } else { usize::from(record.a != 0) }
}

/// An RPC that is ready for a thread.
#[derive(Clone, Copy)]
struct Ready {
    since: i64,
    queued: bool,
    /// RPCs in the queue when it was put there.
    length: u64,
    /// RPCs taken from the port since.
    ahead: u64,
}

/// Queues of a node's ports.
#[derive(Default)]
struct Queues {
    ready: FxHashMap<(u16, u32), Ready>,
    /// Of each port: RPCs in the queue, and RPCs that were ever taken.
    ports: FxHashMap<Option<u32>, (u64, u64)>,
}

impl Queues {
    fn ready(&mut self, port: Option<u32>, rpc: (u16, u32), at: i64, queued: bool) {
        let (length, taken) = self.ports.entry(port).or_default();
        let before = self.ready.insert(rpc, Ready { since: at, queued, length: *length, ahead: *taken });
        let was_queued = before.is_some_and(|w| w.queued);
        match (was_queued, queued) {
            (false, true) => *length += 1,
            (true, false) => *length -= 1,
            // It was in the queue already, and stays where it is.
            (true, true) => drop(before.and_then(|w| self.ready.insert(rpc, w))),
            (false, false) => {}
        }
    }

    fn found(&mut self, port: Option<u32>, rpc: (u16, u32)) -> Option<Ready> {
        let (length, taken) = self.ports.entry(port).or_default();
        *taken += 1;
        let ready = self.ready.remove(&rpc)?;
        *length -= u64::from(ready.queued);
        Some(Ready { ahead: *taken - 1 - ready.ahead, ..ready })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::Traffic;

    #[test]
    fn places_in_the_queue_are_those_of_the_events() {
        let mut traffic = Traffic::new(1);
        let found = |id: u32, via: &str, blocked: u32| {
            format!("homa_wait_shared found rpc id {id}, pid 7, port 4000 via {via}, blocked {blocked}")
        };
        for (i, id) in [11, 13, 15].into_iter().enumerate() {
            traffic.event(0, 1, i as f64, format!("homa_rpc_handoff queued id {id} for port 4000"));
        }
        traffic.event(0, 3, 10.0, found(13, "ready_rpcs", 0));
        traffic.event(0, 3, 20.0, found(11, "ready_rpcs", 0));
        traffic.event(0, 1, 25.0, "homa_rpc_handoff handing off id 11 for port 4000");
        traffic.event(0, 3, 27.0, found(11, "handoff", 1));
        traffic.event(0, 3, 30.0, found(15, "ready_rpcs", 0));
        let options = Options { data: Some("x".into()), ..Options::default() };
        let report = SockQs.run(&traffic.model(), &options);
        let table = report.table("sockqs_node1").unwrap();
        let row = |r: usize| {
            ["id", "type", "delay_us", "qlen", "ahead", "final"].map(|key| table.get(r, key).plain().into_owned())
        };
        assert_eq!(row(0), ["13", "queue", "9.000", "1", "0", "X"]);
        assert_eq!(row(1), ["11", "queue", "20.000", "0", "1", ""]);
        assert_eq!(row(2), ["11", "block", "2.000", "1", "0", "X"]);
        assert_eq!(row(3), ["15", "queue", "28.000", "2", "3", "X"]);
        let ways = report.table("ways").unwrap();
        assert_eq!(
            (ways.get(2, "count"), ways.get(1, "max_us"), ways.get(0, "count")),
            (&3u32.into(), &2.0.into(), &0u32.into())
        );
    }
}
