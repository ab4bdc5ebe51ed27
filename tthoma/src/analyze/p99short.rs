//! `p99short`: what makes the slowest short RPCs slow? Source: timetrace.md 5.24.
//!
//! Of the RPCs whose request was one frame and whose response one packet, the slowest hundredth, slowest first, and their
//! packets.

use super::calls::Call;
use super::packet_list;
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::Model;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct P99Short;

impl Analyzer for P99Short {
    fn about(&self) -> &'static About {
        &About {
            name: "p99short",
            question: "What makes the slowest hundredth of single-packet RPCs slow?",
            source: "timetrace.md 5.24",
            needs: Needs::All(&[Kind::SendmsgRequest, Kind::RecvmsgDone, Kind::IpXmit, Kind::GroData]),
            uses: &[Kind::NicData, Kind::SoftirqData, Kind::SendmsgResponse, Kind::FreeTxSkb],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, _: &Options) -> Report {
        let mut calls: Vec<Call<'_>> = Call::all(model).into_iter().filter(|c| is_short(model, c)).collect();
        calls.sort_by_key(Call::rtt);
        let slow = &calls[99 * calls.len() / 100..];
        let mut list = Call::table(format!("The slowest {} of {} single-packet RPCs:", slow.len(), calls.len()));
        let mut packets = packet_list::table("packets", "Their packets:");
        for call in slow.iter().rev() {
            list.row(call.row(model));
            packet_list::fill(&mut packets, model, call.request.iter().chain(call.response), usize::MAX);
        }
        Report::of([list, packets])
    }
}

/// One frame there, one packet back, and both ends of the round trip within the server's trace.
fn is_short(model: &Model, call: &Call<'_>) -> bool {
    let Some(server) = call.server.and_then(|s| model.span(s.node)) else { return false };
    let inside = |time: i64| (server.0..=server.1).contains(&time);
    call.rtt().is_some()
        && inside(call.client.sendmsg)
        && inside(call.client.recvmsg_done)
        && call.request.iter().filter(|f| f.head && !f.again).count() == 1
        && call.response.iter().filter(|f| f.arrived()).count() == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn the_slowest_hundredth_is_listed() {
        let mut traffic = Traffic::new(2);
        // Events of the server before and after, so that all RPCs are inside its trace.
        traffic.event(1, 0, 0.0, "homa_softirq starting").event(1, 0, 900_000.0, "homa_softirq starting");
        for i in 0..200u32 {
            let net = if i == 33 || i == 70 { 50.0 + f64::from(i) } else { 5.0 };
            let d = Delays { net, ..Delays::USUAL };
            traffic.rpc((0, 1), 100 + 2 * i, (100, 200), 1000.0 * f64::from(i), d);
        }
        traffic.rpc((0, 1), 900, (5000, 200), 500_000.0, Delays { net: 5000.0, ..Delays::USUAL });
        let report = P99Short.run(&traffic.model(), &Options::default());
        let list = report.table("rpcs").unwrap();
        let ids: Vec<_> = (0..list.rows.len()).map(|r| list.get(r, "id").number()).collect();
        assert_eq!(ids, [Some(240.0), Some(166.0)]);
        assert_eq!(report.table("packets").unwrap().rows.len(), 4);
    }
}
