//! `msgrange`: where does the time of messages of a class of lengths go? Source: timetrace.md 5.15.
//!
//! Requests and responses of `--min` to below `--max` bytes whose start and delivery are both inside both nodes' traces,
//! in classes by how long they took.

use super::calls::{Call, latest};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::flights::since;
use crate::model::{Flight, Model};
use crate::stats::average;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct MsgRange;

impl Analyzer for MsgRange {
    fn about(&self) -> &'static About {
        &About {
            name: "msgrange",
            question: "Where does the time of messages of a class of lengths go, for fast and slow ones?",
            source: "timetrace.md 5.15",
            needs: Needs::All(&[Kind::SendmsgRequest, Kind::RecvmsgDone]),
            uses: &[Kind::NicData, Kind::GroData, Kind::SoftirqData, Kind::FreeTxSkb],
            options: &["min", "max"],
            requires: &["min", "max"],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let (min, max) = (options.min.unwrap_or(0), options.max.unwrap_or(u64::MAX));
        let mut messages = Vec::new();
        for call in Call::all(model) {
            let Some(server) = call.server else { continue };
            for (from, packets, to) in [(call.client, call.request, server), (server, call.response, call.client)] {
                let length = u64::from(from.out_length.unwrap_or(0));
                let inside = |node: u16| {
                    let span = model.span(node).unwrap_or((1, 0));
                    from.sendmsg >= span.0 && to.recvmsg_done <= span.1
                };
                if let Some(elapsed) = since(from.sendmsg, to.recvmsg_done)
                    && (min..max).contains(&length)
                    && inside(from.node)
                    && inside(to.node)
                {
                    messages.push(Message { elapsed, start: from.sendmsg, done: to.recvmsg_done, packets });
                }
            }
        }
        messages.sort_by_key(|m| m.elapsed);
        let title = format!("{} messages of {min} to below {max} bytes, by how long they took; means:", messages.len());
        let mut table = Table::new("classes", title).column("Class", Unit::None, "").column("Count", Unit::None, "");
        for (title, meaning) in [
            ("Elapsed", "from sendmsg until recvmsg is done on the receiver"),
            ("Xmit", "from sendmsg until the first frame is passed to IP"),
            ("Nic", "from IP to the NIC, frames"),
            ("Gro", "from the NIC to GRO, frames' first packets"),
            ("Free", "from the NIC back to the driver, frames"),
            ("Softirq", "from GRO to SoftIRQ, frames' first packets"),
            ("Notify", "from the last packet in SoftIRQ until recvmsg is done"),
        ] {
            table = table.column(title, Unit::Us, meaning);
        }
        let n = messages.len();
        for (name, low, high) in
            [("All", 0, 100), ("P0-10", 0, 10), ("P40-60", 40, 60), ("P90-95", 90, 95), ("P99-100", 99, 100)]
        {
            row(&mut table, name, &messages[low * n / 100..high * n / 100]);
        }
        Report::of([table])
    }
}

struct Message<'a> {
    elapsed: i64,
    start: i64,
    done: i64,
    packets: &'a [Flight],
}

fn row(table: &mut Table, name: &str, messages: &[Message<'_>]) {
    let mean = |samples: Vec<i64>| -> Cell { average(&samples).into() };
    let heads = |from: fn(&Flight) -> i64, to: fn(&Flight) -> i64| {
        let heads = messages.iter().flat_map(|m| m.packets).filter(|f| f.head && !f.again);
        mean(heads.filter_map(|f| since(from(f), to(f))).collect())
    };
    let first = |m: &Message<'_>| since(m.start, super::calls::earliest(m.packets.iter().map(|f| f.xmit)));
    let notify = |m: &Message<'_>| since(latest(m.packets.iter().map(|f| f.softirq)), m.done);
    table.row([
        name.into(),
        messages.len().into(),
        mean(messages.iter().map(|m| m.elapsed).collect()),
        mean(messages.iter().filter_map(first).collect()),
        heads(|f| f.xmit, |f| f.nic),
        heads(|f| f.nic, |f| f.gro),
        heads(|f| f.nic, |f| f.free),
        heads(|f| f.gro, |f| f.softirq),
        mean(messages.iter().filter_map(notify).collect()),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn classes_have_the_means_of_their_messages() {
        let mut traffic = Traffic::new(2);
        traffic.event(0, 0, 0.0, "homa_softirq starting").event(0, 0, 500_000.0, "homa_softirq starting");
        traffic.event(1, 0, 0.0, "homa_softirq starting").event(1, 0, 500_000.0, "homa_softirq starting");
        for i in 0..50u32 {
            let d = Delays { net: 5.0 + f64::from(i), ..Delays::USUAL };
            traffic.rpc((0, 1), 100 + 2 * i, (300, 2000), 1000.0 * f64::from(i + 1), d);
        }
        let model = traffic.model();
        let run = |min, max| MsgRange.run(&model, &Options { min: Some(min), max: Some(max), ..Options::default() });
        let report = run(0, 1000);
        let table = report.table("classes").unwrap();
        let cells: Vec<f64> = table.rows[1].cells[1..].iter().filter_map(Cell::number).collect();
        // The 5 fastest requests: Net is 5 to 9.
        assert_eq!(cells, [5.0, 15.0, 1.0, 0.5, 7.0, 7.0, 2.0, 4.5]);
        assert_eq!(table.get(0, "count"), &50u32.into());
        assert_eq!(table.get(4, "count"), &1u32.into());
        let none = run(5000, 6000);
        assert_eq!(none.table("classes").unwrap().get(0, "elapsed_us"), &Cell::None, "no crash on empty classes");
    }
}
