//! `nicqueues`: how long would the NIC's queue be if the link always sent at `--gbps`? Source: timetrace.md 5.20.
//!
//! Each transmission adds its bytes with 62 bytes of headers to the queue, which drains at the link's rate.

use super::samples::{Samples, us};
use super::steps::Steps;
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::{Carries, Flight, Model};
use crate::packets::UNSEEN;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct NicQueues;

impl Analyzer for NicQueues {
    fn about(&self) -> &'static About {
        &About {
            name: "nicqueues",
            question: "How long would the NIC's queue be if the link always sent at --gbps?",
            source: "timetrace.md 5.20",
            needs: Needs::Any(&[Kind::NicData, Kind::IpXmit, Kind::TcpXmit]),
            uses: &[Kind::SendGrant],
            options: &["gbps", "interval"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut nodes: Vec<Vec<(i64, f64, bool)>> = vec![Vec::new(); model.traces.len()];
        for f in model.flights().all().filter(|f| f.head) {
            let (at, bytes) = added(f);
            if let (Some(list), true) = (nodes.get_mut(usize::from(f.from)), at != UNSEEN) {
                list.push((at, bytes, f.carries == Carries::Data));
            }
        }
        let mut table =
            Table::new("queues", format!("Queues of NICs whose links always send at {} Gbps:", options.gbps))
                .column("Node", Unit::None, "")
                .column("MaxLength", Unit::Bytes, "longest")
                .column("Time", Unit::Us, "when that was")
                .decimals(3)
                .column("Delay", Unit::Us, "until the link has sent it");
        for title in ["P50", "P90", "P99"] {
            table = table.column(title, Unit::Us, if title == "P50" { "delays of frames with data" } else { "" });
        }
        let delay = |bytes: f64| (bytes * 8.0 / options.gbps).round() as i64;
        let mut longest: Vec<(u16, Vec<(i64, f64)>)> = Vec::new();
        for (node, mut sent) in nodes.into_iter().enumerate() {
            sent.sort_by_key(|(at, ..)| *at);
            let (mut length, mut before) = (0.0f64, i64::MIN / 4);
            let mut lengths = Vec::with_capacity(sent.len());
            let mut delays = Vec::new();
            for (at, bytes, is_data) in sent {
                length = (length - (at - before) as f64 * options.gbps / 8.0).max(0.0) + bytes;
                before = at;
                lengths.push((at, length));
                delays.extend(is_data.then(|| delay(length)));
            }
            let samples: Samples = delays.into_iter().collect();
            let most = lengths.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
            table.row([
                model.name(node as u16).into(),
                most.map(|m| m.1).into(),
                us(most.map(|m| m.0)),
                us(most.map(|m| delay(m.1))),
                samples.p(50),
                samples.p(90),
                samples.p(99),
            ]);
            longest.push((node as u16, lengths));
        }
        let mut report = Report::of([table]);
        if options.data.is_some() {
            report.tables.extend(series(model, &longest, options));
        }
        report
    }
}

/// When a transmission joins the queue, and its bytes.
fn added(f: &Flight) -> (i64, f64) {
    match f.carries {
        Carries::Data => (f.nic_or_xmit(), f64::from(f.frame) + 122.0),
        Carries::Grant => (f.xmit, 96.0),
        Carries::Tcp => (f.xmit, f64::from(f.frame) + 62.0),
    }
}

/// The longest queue of each node in each step; unknown if nothing was sent.
fn series(model: &Model, nodes: &[(u16, Vec<(i64, f64)>)], options: &Options) -> Option<Table> {
    let span = model.spans().map(|(_, first, last)| (first, last)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
    let most = model.spans().map(|(node, ..)| Steps::most(model, node, nodes.len())).max()?;
    let steps = Steps::of(span, options.interval, most);
    let mut table =
        Table::new("nicqueues", "Longest queue in each step, bytes").column("Interval", Unit::Us, "end of the step");
    table.series = true;
    let mut most = vec![vec![None::<f64>; steps.count]; nodes.len()];
    for ((node, lengths), most) in nodes.iter().zip(&mut most) {
        table = table.column(model.name(*node), Unit::Bytes, "");
        for (at, length) in lengths {
            if let Some(k) = steps.at(*at) {
                most[k] = Some(most[k].map_or(*length, |m| m.max(*length)));
            }
        }
    }
    for k in 0..steps.count {
        table.row(std::iter::once(us(Some(steps.end(k)))).chain(most.iter().map(|m| Cell::from(m[k]))));
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn the_queue_grows_and_drains_at_the_rate() {
        let mut traffic = Traffic::new(2);
        // 878 + 122 bytes each: 1 us at 8 Gbps. Three at once, one a while later.
        for (i, at) in [10.0, 10.0, 10.0, 11.5, 50.0].into_iter().enumerate() {
            traffic.packet((0, 1), 10 + 2 * i as u32, (0, 878, 878), at, Delays::USUAL);
        }
        let options = Options { gbps: 8.0, data: Some("x".into()), interval: 10.0, ..Options::default() };
        let report = NicQueues.run(&traffic.model(), &options);
        let table = report.table("queues").unwrap();
        let number = |key: &str| table.get(0, key).number().unwrap();
        assert_eq!([number("max_length_bytes"), number("time_us"), number("delay_us")], [3000.0, 10.5, 3.0]);
        // Delays of 1, 2, 3, 2.5 and 1 us.
        assert_eq!([number("p50_us"), number("p90_us")], [2.0, 3.0]);
        let series = report.table("nicqueues").unwrap();
        let row = (0..series.rows.len()).find(|r| series.get(*r, "interval_us") == &20.0.into()).unwrap();
        assert_eq!((series.get(row, "node1_bytes"), series.get(row, "node2_bytes")), (&3000.0.into(), &Cell::None));
    }
}
