//! `rtt`: why do short RPCs take long? Source: timetrace.md 5.32.
//!
//! A short RPC has a request and a response of at most 1500 bytes each. Each phase begins where the one before ended. What
//! is not known is empty: the time of a missing event is then in the phase after it.

use super::calls::{Call, earliest};
use super::samples::{Samples, us};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::flights::{first_seen, seen, since};
use crate::model::{Flight, Model, Side};
use crate::packets::UNSEEN;
use crate::stats::{average, micros};

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Rtt;

/// Longest message of a short RPC, bytes.
const SHORT: u32 = 1500;
/// RPCs whose mean is the fast one.
const FASTEST: usize = 10;

pub(super) const PHASES: [(&str, &str); 14] = [
    ("Prep", "from the client's call until its request is passed to IP"),
    ("Net", "until the server's GRO has it"),
    ("GRO", "until SoftIRQ has it"),
    ("SIRQ", "until SoftIRQ hands the RPC off or queues it"),
    ("Handoff", "until a thread has it that was waiting"),
    ("Queue", "until a thread comes for it, if none was waiting"),
    ("App", "until the server's application answers"),
    ("Prep2", "the same for the response"),
    ("Net2", ""),
    ("GRO2", ""),
    ("SIRQ2", ""),
    ("Hand2", ""),
    ("Queue2", ""),
    ("Done", "until recvmsg returns on the client"),
];

impl Analyzer for Rtt {
    fn about(&self) -> &'static About {
        &About {
            name: "rtt",
            question: "Why do short RPCs take long, compared with the fastest?",
            source: "timetrace.md 5.32",
            needs: Needs::All(&[Kind::SendmsgRequest, Kind::RecvmsgDone]),
            uses: &[
                Kind::IpXmit,
                Kind::GroData,
                Kind::SoftirqData,
                Kind::RpcHandoff,
                Kind::RpcQueued,
                Kind::WaitFoundRpc,
                Kind::SendmsgResponse,
            ],
            options: &["max_rtt", "top"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut calls: Vec<(i64, Call<'_>)> = Call::all(model).into_iter().filter_map(short).collect();
        calls.sort_by_key(|(rtt, call)| (std::cmp::Reverse(*rtt), call.client.sendmsg));
        let mut summary =
            Table::new("rtts", format!("Round trips of short RPCs (at most {SHORT} bytes each way):")).distribution();
        let all: Samples = calls.iter().map(|(rtt, _)| *rtt).collect();
        if all.is_empty() {
            summary.row(all.cells()).note("no RPC is short and whole in the traces");
            return Report::of([summary]);
        }
        summary.row(all.cells());
        let below = |rtt: i64| options.max_rtt.is_none_or(|max| micros(rtt) <= max);
        // Without a trace of the server there are no phases to compare.
        calls.retain(|(_, call)| call.server.is_some());
        let slow: Vec<&Call<'_>> =
            calls.iter().filter(|(rtt, _)| below(*rtt)).take(options.top).map(|(_, call)| call).collect();
        let fast: Vec<&Call<'_>> = calls.iter().rev().take(FASTEST).map(|(_, call)| call).collect();
        Report::of([summary, slowest(model, &slow), means(&slow, &fast)])
    }
}

/// An RPC with its round-trip time, if both its messages are short.
fn short(call: Call<'_>) -> Option<(i64, Call<'_>)> {
    let is_short = |length: Option<u32>| length.is_some_and(|l| l <= SHORT);
    let both = is_short(call.client.out_length) && is_short(call.client.in_length);
    call.rtt().filter(|_| both).map(|rtt| (rtt, call))
}

/// How long each phase took, ns.
pub(super) fn phases(call: &Call<'_>) -> [Option<i64>; 14] {
    let mut out = [None; 14];
    // If the server has no trace, the response's times begin with the client's GRO.
    let server = call.server;
    let taken = half(&mut out[..6], call.client.sendmsg, call.request, server);
    let answered = server.map_or(UNSEEN, |s| s.sendmsg);
    out[6] = since(taken, answered);
    let found = half(&mut out[7..13], answered, call.response, Some(call.client));
    out[13] = since(found, call.client.recvmsg_done);
    out
}

/// Phases of one direction from `start` until `side` has the message; returns when that is.
fn half(out: &mut [Option<i64>], start: i64, packets: &[Flight], side: Option<&Side>) -> i64 {
    let xmit = earliest(packets.iter().map(|f| f.xmit));
    let gro = earliest(packets.iter().map(|f| f.gro));
    let softirq = earliest(packets.iter().map(|f| f.softirq));
    out[0] = since(start, xmit);
    let Some(side) = side else { return UNSEEN };
    out[1] = since(xmit, gro);
    out[2] = since(gro, softirq);
    let ready = first_seen(&[side.handoff, side.queued]);
    // The hand-off of a message may be logged before its packet is.
    out[3] = since(softirq, ready).map(|t| t.max(0));
    out[4] = since(side.handoff, side.found);
    out[5] = since(side.queued, side.found);
    side.found
}

fn columns(table: Table) -> Table {
    PHASES.iter().fold(table, |table, (title, meaning)| table.column(*title, Unit::Us, *meaning))
}

fn slowest(model: &Model, slow: &[&Call<'_>]) -> Table {
    let table = Table::new("slowest", "Slowest short RPCs:")
        .column("RTT", Unit::Us, "round-trip time")
        .column("Client", Unit::None, "")
        .column("Id", Unit::None, "on the client")
        .column("Server", Unit::None, "")
        .column("Start", Unit::Us, "the client's call")
        .decimals(3);
    let mut table = columns(table);
    for call in slow {
        let mut cells: Vec<Cell> = vec![
            us(call.rtt()),
            model.name(call.client.node).into(),
            call.client.id.into(),
            call.server_name(model),
            us(seen(call.client.sendmsg)),
        ];
        cells.extend(phases(call).map(us));
        table.row(cells);
    }
    table
}

/// Means of each phase, and how much longer slow RPCs take.
fn means(slow: &[&Call<'_>], fast: &[&Call<'_>]) -> Table {
    let title = "Means of each phase over the RPCs that have it:";
    let table = Table::new("means", title).column("RPCs", Unit::None, "").column("RTT", Unit::Us, "");
    let mut table = columns(table).key_of_first("which");
    let mean = |calls: &[&Call<'_>]| -> Vec<Option<f64>> {
        let rtts: Vec<i64> = calls.iter().filter_map(|c| c.rtt()).collect();
        let phases: Vec<[Option<i64>; 14]> = calls.iter().map(|c| phases(c)).collect();
        let phase = |i: usize| average(&phases.iter().filter_map(|p| p[i]).collect::<Vec<i64>>());
        std::iter::once(average(&rtts)).chain((0..14).map(phase)).collect()
    };
    let (slow_mean, fast_mean) = (mean(slow), mean(fast));
    let extra: Vec<Option<f64>> = slow_mean.iter().zip(&fast_mean).map(|(s, f)| Some((*s)? - (*f)?)).collect();
    let rows = [
        (format!("{} fastest", fast.len()), fast_mean),
        (format!("{} slowest", slow.len()), slow_mean),
        ("slow - fast".into(), extra),
    ];
    for (name, means) in rows {
        table.row(std::iter::once(name.into()).chain(means.into_iter().map(Into::into)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn phases_are_those_of_the_traffic_and_add_up() {
        let mut traffic = Traffic::new(2);
        for i in 0..20 {
            let net = if i == 7 { 105.0 } else { 5.0 };
            let d = Delays { net, ..Delays::USUAL };
            traffic.rpc((0, 1), 100 + 2 * i, (100, 200), f64::from(i) * 1000.0, d);
        }
        traffic.rpc((0, 1), 500, (100, 2000), 30_000.0, Delays::USUAL);
        let report = Rtt.run(&traffic.model(), &Options::default());
        // 1 until IP, 0.5 until the NIC, 5, 2, 0.5, 3: found after 12; answered 7 later, found on the client after 12 more.
        let rtts = report.table("rtts").unwrap();
        assert_eq!((rtts.get(0, "count"), rtts.get(0, "p50_us")), (&20u32.into(), &32.0.into()), "not the long one");
        let slow = report.table("slowest").unwrap();
        assert_eq!(
            (slow.get(0, "id"), slow.get(0, "rtt_us"), slow.get(0, "net_us")),
            (&114u32.into(), &232.0.into(), &105.5.into())
        );
        let cells: Vec<f64> = slow.rows[1].cells[5..].iter().filter_map(Cell::number).collect();
        assert_eq!(cells, [1.0, 5.5, 2.0, 0.5, 3.0, 7.0, 1.0, 5.5, 2.0, 0.5, 3.0, 1.0]);
        assert_eq!(cells.iter().sum::<f64>(), 32.0);
        let means = report.table("means").unwrap();
        assert_eq!((means.get(0, "which"), means.get(0, "rtt_us")), (&"10 fastest".into(), &32.0.into()));
        assert_eq!((means.get(2, "net_us"), means.get(2, "queue_us")), (&5.0.into(), &Cell::None));
    }

    #[test]
    fn slow_rpcs_beyond_the_limit_are_left_out() {
        let mut traffic = Traffic::new(2);
        traffic.rpc((0, 1), 100, (100, 200), 0.0, Delays { net: 500.0, ..Delays::USUAL });
        traffic.rpc((0, 1), 102, (100, 200), 5000.0, Delays::USUAL);
        let options = Options { max_rtt: Some(40.0), ..Options::default() };
        let report = Rtt.run(&traffic.model(), &options);
        assert_eq!(report.table("slowest").unwrap().rows.len(), 1);
        assert_eq!(report.table("rtts").unwrap().get(0, "count"), &2u32.into());
    }
}
