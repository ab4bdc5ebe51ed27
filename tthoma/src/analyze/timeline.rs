//! `timeline`: what is the average life of an RPC in a benchmark whose RPCs are alike? Source: timetrace.md 5.40.
//!
//! RPCs of which both sides are known, whole on the client, and whose first response packet is that at offset 0. Times are
//! relative to the client's call. In parentheses in the originals, here the columns `Step`: since the stage before it
//! that the same RPC has.

use super::calls::{Call, earliest, latest};
use super::samples::Samples;
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::flights::since;
use crate::model::{Flight, Model};
use crate::packets::UNSEEN;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Timeline;

impl Analyzer for Timeline {
    fn about(&self) -> &'static About {
        &About {
            name: "timeline",
            question: "When, on average, does each stage of an RPC happen?",
            source: "timetrace.md 5.40",
            needs: Needs::All(&[Kind::SendmsgRequest, Kind::RecvmsgDone, Kind::IpXmit, Kind::GroData]),
            uses: &[
                Kind::NicData,
                Kind::SoftirqData,
                Kind::SendGrant,
                Kind::NicGrant,
                Kind::GroGrant,
                Kind::SoftirqGrant,
                Kind::SendmsgResponse,
                Kind::CopyInDone,
                Kind::CopyOutStart,
                Kind::CopyOutDone,
            ],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, _: &Options) -> Report {
        let lives: Vec<Life<'_>> = Call::all(model).into_iter().filter_map(|call| Life::of(model, call)).collect();
        let count = lives.len();
        let table = |name: &str, who: &str, stages: &[Stage]| {
            let mut table = Table::new(name, format!("{who} ({count} RPCs), since the client's call:"))
                .column("Stage", Unit::None, "")
                .column("Count", Unit::None, "")
                .column("Avg", Unit::Us, "")
                .column("AvgStep", Unit::Us, "since the stage before that the same RPC has")
                .column("P90", Unit::Us, "")
                .column("P90Step", Unit::Us, "");
            fill(&mut table, &lives, stages);
            table
        };
        Report::of([
            table("clients", "Clients", CLIENT),
            table("client_copies", "Clients, copying", CLIENT_COPIES),
            table("servers", "Servers", SERVER),
            table("server_copies", "Servers, copying", SERVER_COPIES),
        ])
    }
}

/// An RPC and the grants for its messages.
struct Life<'a> {
    call: Call<'a>,
    request_grants: &'a [Flight],
    response_grants: &'a [Flight],
}

impl<'a> Life<'a> {
    fn of(model: &'a Model, call: Call<'a>) -> Option<Self> {
        let (flights, rpcs) = (model.flights(), model.rpcs());
        call.rtt()?;
        call.server?;
        let sent = call.request.iter().any(|f| f.xmit != UNSEEN);
        let first = call.response.iter().filter(|f| f.gro != UNSEEN).min_by_key(|f| f.gro)?;
        let grants = |packets: &[Flight]| packets.first().map_or(&[][..], |f| flights.grants_for(rpcs, f.message));
        (sent && first.offset == 0).then(|| Self {
            request_grants: grants(call.request),
            response_grants: grants(call.response),
            call,
        })
    }
}

type Stage = (&'static str, fn(&Life<'_>) -> i64, &'static [Kind]);

fn first(packets: &[Flight], time: fn(&Flight) -> i64) -> i64 {
    earliest(packets.iter().map(time))
}

fn last(packets: &[Flight], time: fn(&Flight) -> i64) -> i64 {
    latest(packets.iter().map(time))
}

const CLIENT: &[Stage] = &[
    ("first request packet to IP", |l| first(l.call.request, |f| f.xmit), &[Kind::IpXmit]),
    ("first request packet to NIC", |l| first(l.call.request, |f| f.nic), &[Kind::NicData]),
    ("gro gets first grant", |l| first(l.request_grants, |f| f.gro), &[Kind::GroGrant]),
    ("softirq gets first grant", |l| first(l.request_grants, |f| f.softirq), &[Kind::SoftirqGrant]),
    ("last request packet to NIC", |l| last(l.call.request, |f| f.nic), &[Kind::NicData]),
    ("gro gets first response packet", |l| first(l.call.response, |f| f.gro), &[Kind::GroData]),
    ("softirq gets first response pkt", |l| first(l.call.response, |f| f.softirq), &[Kind::SoftirqData]),
    ("first grant to IP", |l| first(l.response_grants, |f| f.xmit), &[Kind::SendGrant]),
    ("first grant to NIC", |l| first(l.response_grants, |f| f.nic), &[Kind::NicGrant]),
    ("gro gets last response packet", |l| last(l.call.response, |f| f.gro), &[Kind::GroData]),
    ("homa_recvmsg returning", |l| l.call.client.recvmsg_done, &[Kind::RecvmsgDone]),
];

const CLIENT_COPIES: &[Stage] = &[
    ("finished copying req into pkts", |l| l.call.client.copied_in, &[Kind::CopyInDone]),
    ("started copying to user space", |l| l.call.client.copy_out, &[Kind::CopyOutStart]),
    ("finished copying to user space", |l| l.call.client.copied_out, &[Kind::CopyOutDone]),
];

const SERVER: &[Stage] = &[
    ("gro gets first request packet", |l| first(l.call.request, |f| f.gro), &[Kind::GroData]),
    ("softirq gets first request pkt", |l| first(l.call.request, |f| f.softirq), &[Kind::SoftirqData]),
    ("first grant to IP", |l| first(l.request_grants, |f| f.xmit), &[Kind::SendGrant]),
    ("first grant to NIC", |l| first(l.request_grants, |f| f.nic), &[Kind::NicGrant]),
    ("gro gets last request packet", |l| last(l.call.request, |f| f.gro), &[Kind::GroData]),
    ("homa_recvmsg returning", |l| l.call.server.map_or(UNSEEN, |s| s.recvmsg_done), &[Kind::RecvmsgDone]),
    ("homa_sendmsg response", |l| l.call.server.map_or(UNSEEN, |s| s.sendmsg), &[Kind::SendmsgResponse]),
    ("first response packet to IP", |l| first(l.call.response, |f| f.xmit), &[Kind::IpXmit]),
    ("first response packet to NIC", |l| first(l.call.response, |f| f.nic), &[Kind::NicData]),
    ("gro gets first grant", |l| first(l.response_grants, |f| f.gro), &[Kind::GroGrant]),
    ("softirq gets first grant", |l| first(l.response_grants, |f| f.softirq), &[Kind::SoftirqGrant]),
    ("last response packet to NIC", |l| last(l.call.response, |f| f.nic), &[Kind::NicData]),
];

const SERVER_COPIES: &[Stage] = &[
    ("started copying to user space", |l| l.call.server.map_or(UNSEEN, |s| s.copy_out), &[Kind::CopyOutStart]),
    ("finished copying to user space", |l| l.call.server.map_or(UNSEEN, |s| s.copied_out), &[Kind::CopyOutDone]),
    ("finished copying resp into pkts", |l| l.call.server.map_or(UNSEEN, |s| s.copied_in), &[Kind::CopyInDone]),
];

fn fill(table: &mut Table, lives: &[Life<'_>], stages: &[Stage]) {
    let mut before: Vec<i64> = lives.iter().map(|l| l.call.client.sendmsg).collect();
    for (name, time, needs) in stages {
        let mut times = Vec::new();
        let mut steps = Vec::new();
        for (life, before) in lives.iter().zip(&mut before) {
            let time = time(life);
            if let Some(since_start) = since(life.call.client.sendmsg, time) {
                times.push(since_start);
                steps.extend(since(*before, time));
                *before = time;
            }
        }
        let (times, steps): (Samples, Samples) = (times.into_iter().collect(), steps.into_iter().collect());
        let empty = times.is_empty();
        let row = table.row([(*name).into(), times.len().into(), times.avg(), steps.avg(), times.p(90), steps.p(90)]);
        if empty {
            row.note(format!("no {} for these RPCs", needs.iter().map(|k| k.name()).collect::<Vec<_>>().join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn stages_are_those_of_the_traffic() {
        let mut traffic = Traffic::new(2);
        for i in 0..10u32 {
            let at = 1000.0 * f64::from(i);
            traffic.rpc((0, 1), 100 + 2 * i, (2000, 200), at, Delays::USUAL);
            traffic.grant((1, 0), 101 + 2 * i, 2000, 600, at + 9.0, Delays::USUAL);
        }
        let report = Timeline.run(&traffic.model(), &Options::default());
        let clients = report.table("clients").unwrap();
        let at = |stage: &str, column: &str| clients.get(clients.find(&[stage]).unwrap(), column).number();
        assert_eq!(at("first request packet to IP", "avg_us"), Some(1.0));
        assert_eq!(at("gro gets first grant", "avg_us"), Some(14.5));
        assert_eq!(at("gro gets first grant", "avg_step_us"), Some(13.0), "since the first packet at the NIC");
        assert_eq!(at("last request packet to NIC", "avg_step_us"), Some(-14.0), "stages need not be in order");
        assert_eq!(at("homa_recvmsg returning", "p90_us"), Some(33.0));
        let servers = report.table("servers").unwrap();
        let row = servers.find(&["first grant to IP"]).unwrap();
        assert_eq!((servers.get(row, "avg_us"), servers.get(row, "count")), (&9.0.into(), &10u32.into()));
        let copies = report.table("server_copies").unwrap();
        assert!(copies.rows.iter().all(|r| r.note.is_some()), "what is not logged is said");
    }
}
