//! `pid`: what did one process do? Source: timetrace.md 5.28.
//!
//! The events of applications on a core while its process is the wanted one, as far as switches and the process ids in
//! events tell.

use rustc_hash::FxHashMap;

use super::samples::us;
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Have, Kind};
use crate::model::Model;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Pid;

impl Analyzer for Pid {
    fn about(&self) -> &'static About {
        &About {
            name: "pid",
            question: "What did one process do?",
            source: "timetrace.md 5.28",
            needs: Needs::Any(&[Kind::TaskSwitch, Kind::RecvmsgStart, Kind::WaitFoundRpc]),
            uses: &[
                Kind::SendmsgRequest,
                Kind::SendmsgResponse,
                Kind::RecvmsgDone,
                Kind::CopyInStart,
                Kind::CopyOutStart,
            ],
            options: &["pid", "node"],
            requires: &["pid"],
        }
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let wanted = options.pid.unwrap_or(0);
        let mut table = Table::new("events", format!("Events of process {wanted}:"))
            .column("Time", Unit::Us, "")
            .decimals(3)
            .column("Delta", Unit::Us, "since the line above")
            .decimals(3)
            .column("Node", Unit::None, "")
            .column("Core", Unit::None, "")
            .column("Event", Unit::None, "")
            .column("Id", Unit::None, "")
            .column("Bytes", Unit::None, "length, or range");
        for (node, first, _) in model.spans() {
            let trace = &model.traces[usize::from(node)];
            if options.node.as_ref().is_some_and(|name| *name != trace.node) {
                continue;
            }
            let offset = trace.span.map_or(0, |(own, _)| first - own);
            let mut running: FxHashMap<u16, u32> = FxHashMap::default();
            let mut before = None;
            for record in &trace.records {
                match record.kind {
                    Kind::TaskSwitch | Kind::RecvmsgStart if record.have.has(Have::B) => {
                        running.insert(record.core, record.b);
                    }
                    Kind::WaitFoundRpc if record.have.has(Have::C) => drop(running.insert(record.core, record.c)),
                    _ => {}
                }
                if is_applications(record.kind) && running.get(&record.core) == Some(&wanted) {
                    let time = record.time + offset;
                    let bytes = match record.kind {
                        Kind::CopyOutDone => Some(format!("{}-{}", record.offset, record.a)),
                        Kind::SendmsgRequest | Kind::SendmsgResponse | Kind::CopyInStart | Kind::CopyInDone => {
                            Some(record.a.to_string())
                        }
                        _ => None,
                    };
                    table.row([
                        us(Some(time)),
                        us(Some(time - before.unwrap_or(time))),
                        model.name(node).into(),
                        record.core.into(),
                        record.kind.name().into(),
                        record.rpc().into(),
                        bytes.into(),
                    ]);
                    before = Some(time);
                }
            }
        }
        let mut report = Report::of([table]);
        if report.tables[0].rows.is_empty() {
            report.warnings.push(format!("pid: no event shows process {wanted}"));
        }
        report
    }
}

fn is_applications(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::SendmsgRequest
            | Kind::SendmsgResponse
            | Kind::SendmsgDone
            | Kind::RecvmsgStart
            | Kind::RecvmsgDone
            | Kind::CopyInStart
            | Kind::CopyInDone
            | Kind::CopyOutStart
            | Kind::CopyOutDone
            | Kind::FreeSkbs
            | Kind::WaitFoundRpc
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::Traffic;

    #[test]
    fn only_what_the_process_did_on_the_node_is_shown() {
        let mut traffic = Traffic::new(2);
        traffic.event(0, 3, 1.0, "homa_recvmsg starting, port 4000, pid 77");
        traffic.event(0, 3, 2.0, "starting copy to user space for id 10");
        traffic.event(0, 4, 2.5, "starting copy to user space for id 12");
        traffic.event(0, 3, 3.0, "finish_task_switch, old pid 77, new pid 78");
        traffic.event(0, 3, 4.0, "copied out bytes 0-100 for id 14");
        traffic.event(0, 4, 5.0, "finish_task_switch, old pid 1, new pid 77");
        traffic.event(0, 4, 7.0, "copied out bytes 0-100 for id 16");
        traffic.event(1, 3, 1.0, "homa_recvmsg starting, port 4000, pid 77");
        let run = |node: Option<&str>| {
            let options = Options { pid: Some(77), node: node.map(Into::into), ..Options::default() };
            Pid.run(&traffic.model(), &options).tables.remove(0)
        };
        let table = run(Some("node1"));
        let events: Vec<_> = (0..table.rows.len()).map(|r| table.get(r, "event").plain().into_owned()).collect();
        assert_eq!(events, ["recvmsg_start", "copy_out_start", "copy_out_done"]);
        assert_eq!(
            (table.get(2, "delta_us"), table.get(2, "bytes"), run(None).rows.len()),
            (&5.0.into(), &"0-100".into(), 4)
        );
    }
}
