//! `rpcs`: which RPCs were there, and how long did their phases take? Source: timetrace.md 5.31.

use super::calls::{Call, latest};
use super::packet_list;
use super::samples::Samples;
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::flights::since;
use crate::model::{Flight, Model, Side};
use crate::packets::UNSEEN;
use crate::stats::micros;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Rpcs;

impl Analyzer for Rpcs {
    fn about(&self) -> &'static About {
        &About {
            name: "rpcs",
            question: "Which RPCs were there, and how long did their phases take?",
            source: "timetrace.md 5.31",
            needs: Needs::All(&[Kind::SendmsgRequest]),
            uses: &[
                Kind::NicData,
                Kind::GroData,
                Kind::SoftirqData,
                Kind::FreeTxSkb,
                Kind::RecvmsgDone,
                Kind::SendmsgResponse,
            ],
            options: &["msglen", "rpc_start", "rtt", "sort", "top"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut calls: Vec<Call<'_>> =
            Call::all(model).into_iter().filter(|c| c.client.sendmsg != UNSEEN && chosen(c, options)).collect();
        let unknown = sort(&mut calls, &options.sort);
        let top = if options.verbose { usize::MAX } else { options.top };
        let mut list = Call::table("Each of them:");
        calls.iter().take(top).for_each(|call| {
            list.row(call.row(model));
        });
        let mut report = Report::of([phases(model, &calls), list]);
        if calls.len() > top {
            report.notes.push(format!("{} more RPCs are not listed (--top N, --verbose)", calls.len() - top));
        }
        if options.verbose {
            let mut packets = packet_list::table("packets", "Their packets:");
            calls
                .iter()
                .for_each(|c| packet_list::fill(&mut packets, model, c.request.iter().chain(c.response), usize::MAX));
            report.tables.push(packets);
        }
        report.warnings.extend(packet_list::unknown_keys("rpcs", &unknown, "Start, End, Rtt"));
        report
    }
}

fn chosen(call: &Call<'_>, options: &Options) -> bool {
    let in_range = |range: Option<super::Range>, value: Option<f64>| match range {
        Some(range) => value.is_some_and(|v| range.contains(v)),
        None => true,
    };
    in_range(options.msglen, call.client.out_length.map(f64::from))
        && in_range(options.rpc_start, Some(micros(call.client.sendmsg)))
        && in_range(options.rtt, call.rtt().map(micros))
}

/// Sorts by the keys, the first being the most significant; returns those that mean nothing.
fn sort(calls: &mut [Call<'_>], keys: &[String]) -> Vec<String> {
    let mut unknown = Vec::new();
    calls.sort_by_key(|c| c.client.sendmsg);
    for key in keys.iter().rev() {
        match key.to_lowercase().as_str() {
            "start" => calls.sort_by_key(|c| c.client.sendmsg),
            "end" => {
                calls.sort_by_key(|c| if c.client.recvmsg_done == UNSEEN { i64::MAX } else { c.client.recvmsg_done })
            }
            "rtt" => calls.sort_by_key(|c| std::cmp::Reverse(c.rtt())),
            _ => unknown.push(key.clone()),
        }
    }
    unknown
}

/// Distributions of phases over requests and responses together.
fn phases(model: &Model, calls: &[Call<'_>]) -> Table {
    let halves =
        || calls.iter().flat_map(|c| [(Some(c.client), c.request, c.server), (c.server, c.response, Some(c.client))]);
    let packets = |from: fn(&Flight) -> i64, to: fn(&Flight) -> i64| -> Samples {
        halves().flat_map(|(_, packets, _)| packets).filter_map(|f| since(from(f), to(f))).collect()
    };
    let heads = |from: fn(&Flight) -> i64, to: fn(&Flight) -> i64| -> Samples {
        let heads = halves().flat_map(|(_, packets, _)| packets).filter(|f| f.head);
        heads.filter_map(|f| since(from(f), to(f))).collect()
    };
    let xmit = halves().filter_map(|(side, packets, _)| {
        let first = packets.iter().filter(|f| f.head && !f.again).min_by_key(|f| f.xmit)?;
        since(side?.sendmsg, first.nic)
    });
    let recv = halves().filter_map(|(_, packets, side): (_, _, Option<&Side>)| {
        since(latest(packets.iter().map(|f| f.softirq)), side?.recvmsg_done)
    });
    let service = calls.iter().filter_map(|c| since(c.server?.recvmsg_done, c.server?.sendmsg));
    let rows = [
        ("Xmit", xmit.collect::<Samples>(), &[Kind::SendmsgRequest, Kind::NicData][..]),
        ("Net", packets(|f| f.nic, |f| f.gro), &[Kind::NicData, Kind::GroData]),
        ("Free", heads(|f| f.nic, |f| f.free), &[Kind::NicData, Kind::FreeTxSkb]),
        ("SoftIrq", packets(|f| f.gro, |f| f.softirq), &[Kind::GroData, Kind::SoftirqData]),
        ("Recv", recv.collect(), &[Kind::SoftirqData, Kind::RecvmsgDone]),
        ("Srvc", service.collect(), &[Kind::RecvmsgDone, Kind::SendmsgResponse]),
        ("Rtt", calls.iter().filter_map(Call::rtt).collect(), &[Kind::RecvmsgDone]),
    ];
    let title = format!(
        "Phases of {} RPCs, requests and responses together: Xmit from the application's call until the NIC has the first \
         frame, Net from NIC to GRO, Free from the NIC back, SoftIrq from GRO to SoftIRQ, Recv from SoftIRQ for the last \
         packet until the application has the message, Srvc from there until the server answers",
        calls.len()
    );
    let mut table = Table::new("phases", title).column("Phase", Unit::None, "").distribution();
    for (name, samples, needs) in rows {
        let empty = samples.is_empty();
        let row = table.row(std::iter::once(name.into()).chain(samples.cells()));
        let missing = model.missing(needs);
        if empty && !missing.is_empty() {
            row.note(format!("no {} in the traces", missing.join(", ")));
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::Range;
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    fn traffic() -> Traffic {
        let mut traffic = Traffic::new(2);
        traffic.rpc((0, 1), 100, (100, 200), 0.0, Delays::USUAL);
        traffic.rpc((0, 1), 102, (5000, 200), 1000.0, Delays::USUAL);
        traffic.rpc((1, 0), 100, (300, 200), 2000.0, Delays { net: 50.0, ..Delays::USUAL });
        traffic
    }

    #[test]
    fn phases_are_those_of_the_traffic() {
        let report = Rpcs.run(&traffic().model(), &Options::default());
        let phases = report.table("phases").unwrap();
        let p50 = |name: &str| phases.get(phases.find(&[name]).unwrap(), "p50_us").number().unwrap();
        assert_eq!(["Xmit", "SoftIrq", "Recv", "Srvc", "Free"].map(p50), [1.5, 2.0, 4.5, 6.0, 7.0]);
        let net = phases.find(&["Net"]).unwrap();
        assert_eq!((phases.get(net, "count"), phases.get(net, "max_us")), (&9u32.into(), &50.0.into()));
        assert_eq!(phases.get(phases.find(&["Recv"]).unwrap(), "count"), &6u32.into(), "requests, too");
        let list = report.table("rpcs").unwrap();
        assert_eq!(list.rows.len(), 3, "equal ids of two clients stay apart");
        assert_eq!(
            (list.get(2, "client"), list.get(2, "rq_gro_us"), list.get(2, "rtt_us")),
            (&"node2".into(), &50.0.into(), &122.0.into())
        );
    }

    #[test]
    fn rpcs_are_chosen_and_sorted() {
        let options = |msglen: Option<Range>, rtt: Option<Range>| Options {
            msglen,
            rtt,
            sort: vec!["Rtt".into()],
            ..Options::default()
        };
        let ids = |options: &Options| {
            let report = Rpcs.run(&traffic().model(), options);
            let list = report.table("rpcs").unwrap();
            (0..list.rows.len()).map(|r| list.get(r, "length_bytes").number().unwrap()).collect::<Vec<f64>>()
        };
        assert_eq!(ids(&options(None, None)), [300.0, 5000.0, 100.0], "longest round trip first");
        assert_eq!(ids(&options(Some(Range { min: None, max: 300.0 }), None)), [300.0, 100.0]);
        assert_eq!(ids(&options(None, Some(Range { min: None, max: 100.0 }))), [5000.0, 100.0]);
        let wrong = Options { sort: vec!["Qid".into()], ..Options::default() };
        assert_eq!(Rpcs.run(&traffic().model(), &wrong).warnings.len(), 1);
    }
}
