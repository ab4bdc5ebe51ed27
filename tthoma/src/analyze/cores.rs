//! `cores`: what does each core spend its time with? Source: timetrace.md 10.6.
//!
//! The time from one event of a core to the next belongs to the work that the first of them is part of, if the next comes
//! within `--threshold`; copies last from their start to their end. The rest, and what no event tells, is `quiet`: idle, or
//! work that logs nothing.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::samples::{ns, share};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::Kind;
use crate::model::Model;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Cores;

const WORK: [(&str, &str); 7] = [
    ("Irq", "interrupts, receive SoftIRQ before GRO"),
    ("GRO", "receiving packets from the driver"),
    ("SoftIRQ", "the protocol's work on received packets"),
    ("Xmit", "passing frames to IP, queues and the NIC, and freeing them"),
    ("Pacer", "sending what was held back"),
    ("Copy", "copying from and to applications"),
    ("App", "calls of applications, apart from copies and transmission"),
];

impl Analyzer for Cores {
    fn about(&self) -> &'static About {
        &About {
            name: "cores",
            question: "What does each core spend its time with?",
            source: "timetrace.md 10.6",
            needs: Needs::Any(&[
                Kind::GroData,
                Kind::SoftirqStart,
                Kind::IpXmit,
                Kind::CopyInStart,
                Kind::CopyOutStart,
                Kind::SendmsgRequest,
            ]),
            uses: &[Kind::NetRx, Kind::PollRx, Kind::Irq, Kind::Ipi],
            options: &["node", "threshold"],
            requires: &[],
        }
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut table = Table::new("cores", "Share of each core's time:")
            .column("Node", Unit::None, "")
            .column("Core", Unit::None, "")
            .column("Events", Unit::None, "");
        for (title, meaning) in WORK {
            table = table.column(title, Unit::Share, meaning);
        }
        table = table.column("Quiet", Unit::Share, "idle, or work that logs nothing");
        for (node, first, last) in model.spans() {
            let trace = &model.traces[usize::from(node)];
            if options.node.as_ref().is_some_and(|name| *name != trace.node) {
                continue;
            }
            let mut cores: BTreeMap<u16, Time> = BTreeMap::new();
            let mut open: FxHashMap<u16, (i64, usize)> = FxHashMap::default();
            for record in &trace.records {
                let time = cores.entry(record.core).or_default();
                time.events += 1;
                let work = work(record.kind);
                if let Some((since, work)) = open.remove(&record.core) {
                    let lasts = record.time - since;
                    let copied = matches!(record.kind, Kind::CopyInDone | Kind::CopyOutDone) && work == COPY;
                    if copied || (0..=ns(options.threshold)).contains(&lasts) {
                        time.by_work[work] += lasts.max(0);
                    }
                }
                if let Some(work) = work {
                    open.insert(record.core, (record.time, work));
                }
            }
            for (core, time) in cores {
                let elapsed = (last - first) as f64;
                let busy: i64 = time.by_work.iter().sum();
                let mut cells: Vec<Cell> = vec![model.name(node).into(), core.into(), time.events.into()];
                cells.extend(time.by_work.map(|t| share(t as f64, elapsed)));
                cells.push(share(elapsed - busy as f64, elapsed));
                table.row(cells);
            }
        }
        Report::of([table])
    }
}

#[derive(Default)]
struct Time {
    events: u64,
    by_work: [i64; WORK.len()],
}

const COPY: usize = 5;

/// The work that goes on after an event, as an index of [`WORK`]; `None` if it ends something.
fn work(kind: Kind) -> Option<usize> {
    use Kind::*;
    Some(match kind {
        Irq | Ipi | NetRx | EnqueueBacklog => 0,
        GroData | GroGrant | GroControl | RingWait | PollRx | TcpGro => 1,
        SoftirqStart | SoftirqData | SoftirqGrant | Unsched | RpcHandoff | RpcQueued | SendGrant | ResendRx
        | BusyRx | UnknownRx | NeedAckRx | AckRx | GrantCheckStart | GrantCheckRecalc | GrantCheckNeedy
        | GrantRecalc | GapCreated | GapChanged | RejectData | Retransmit | TcpSoftirq | RpcAcked | DiscardUnknown => 2,
        IpXmit | SendData | NicData | NicGrant | FreeTxSkb | FreeGrant | TcpXmit | TcpNic | TcpFree | TcpFree2
        | QdiscDefer | QdiscQueueData => 3,
        PacerXmit | QdiscXmit | TcpQdisc => 4,
        CopyInStart | CopyOutStart => COPY,
        SendmsgRequest | SendmsgResponse | WaitFoundRpc | CopyInDone | CopyOutDone | FreeSkbs | PollSuccess
        | TcpSendmsg | TcpSendmsg2 | TcpRecvmsg => 6,
        // The batch is closed, the call is over, the thread may sleep.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::Traffic;

    #[test]
    fn shares_are_those_of_the_events_and_sum_to_one() {
        let mut traffic = Traffic::new(1);
        traffic.event(0, 9, 0.0, "homa_softirq starting").event(0, 9, 1000.0, "timetrace frozen");
        for i in 0..10u32 {
            let at = 100.0 * f64::from(i);
            traffic.event(0, 1, at, "homa_gro_receive got packet from 0xa id 11, offset 0, priority 5");
            traffic.event(0, 1, at + 2.0, "homa_softirq starting");
            traffic.event(0, 1, at + 5.0, "homa_rpc_handoff handing off id 11 for port 4000");
            // Nothing more for 95 us: quiet.
            traffic.event(0, 3, at, "homa_wait_shared found rpc id 11, pid 7, port 4000 via handoff, blocked 1");
            traffic.event(0, 3, at + 1.0, "starting copy to user space for id 11");
            traffic.event(0, 3, at + 91.0, "copied out bytes 0-100000 for id 11");
            traffic.event(0, 3, at + 92.0, "homa_recvmsg returning status 0, id 11");
        }
        let report = Cores.run(&traffic.model(), &Options::default());
        let table = report.table("cores").unwrap();
        let number = |row: usize, key: &str| table.get(row, key).number().unwrap();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(number(0, "gro_share"), 0.02);
        near(number(0, "soft_irq_share"), 0.03);
        near(number(0, "quiet_share"), 0.95);
        near(number(1, "copy_share"), 0.9);
        near(number(1, "app_share"), 0.02);
        for row in 0..table.rows.len() {
            let sum: f64 = table.rows[row].cells[3..].iter().filter_map(Cell::number).sum();
            near(sum, 1.0);
        }
    }
}
