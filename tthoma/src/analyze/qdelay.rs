//! `qdelay`: how long do packets wait in the network? Source: timetrace.md 5.30.
//!
//! The wait is the time from the NIC to GRO beyond the smallest of the same two nodes.

use super::latency::smallest;
use super::plot::{Mark, Plot};
use super::samples::Samples;
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::flights::since;
use crate::model::{Carries, Flight, Model, SHORT_BYTES};
use crate::stats::micros;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct QDelay;

/// Points of a curve at most; more can't be told apart.
const POINTS: usize = 20_000;

impl Analyzer for QDelay {
    fn about(&self) -> &'static About {
        &About {
            name: "qdelay",
            question: "How long do short data, other data and grants wait in the network?",
            source: "timetrace.md 5.30",
            needs: Needs::All(&[Kind::NicData, Kind::GroData]),
            uses: &[Kind::NicGrant, Kind::GroGrant],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let least = smallest(model);
        let mut kinds: [(&str, Vec<Wait>); 3] =
            [("data of short messages", vec![]), ("other data", vec![]), ("grants", vec![])];
        for f in model.flights().data.iter().chain(&model.flights().grants) {
            if let (Some(time), Some(least)) = (since(f.nic, f.gro), least.get(&(f.from, f.to))) {
                kinds[kind(f)].1.push((f.nic, f.from, f.to, time - least));
            }
        }
        let mut table = Table::new("qdelay", "Time from the NIC to GRO beyond the smallest of the same two nodes:")
            .column("Packets", Unit::None, "")
            .distribution();
        for (name, waits) in &kinds {
            let samples: Samples = waits.iter().map(|w| w.3).collect();
            table.row(std::iter::once((*name).into()).chain(samples.cells()));
        }
        let mut report = Report::of([table]);
        if options.plot.is_some() {
            let plot = |name: String, title: String, mine: &dyn Fn(&Wait) -> bool| {
                let curve = |(name, waits): &(&str, Vec<Wait>)| {
                    let all: Vec<&Wait> = waits.iter().filter(|w| mine(w)).collect();
                    let step = all.len().div_ceil(POINTS).max(1);
                    let points = all.iter().step_by(step).map(|(at, .., wait)| (micros(*at), micros(*wait)));
                    ((*name).to_string(), points.collect())
                };
                let curves = kinds.iter().map(curve).collect();
                Plot { name, title, x: "time at the NIC (us)", y: "wait (us)", log: true, mark: Mark::Points, curves }
            };
            report.plots.push(plot("qdelay".into(), "Waits of all packets".into(), &|_| true));
            for node in 0..model.traces.len() as u16 {
                let name = model.name(node);
                let (from, to) = (format!("Waits of packets from {name}"), format!("Waits of packets to {name}"));
                report.plots.push(plot(format!("qdelay_tx_{name}"), from, &|w| w.1 == node));
                report.plots.push(plot(format!("qdelay_rx_{name}"), to, &|w| w.2 == node));
            }
        }
        report
    }
}

/// When at the NIC, sender, receiver, wait.
type Wait = (i64, u16, u16, i64);

fn kind(f: &Flight) -> usize {
    match f.carries {
        Carries::Grant => 2,
        _ if f.message_length > 0 && f.message_length <= SHORT_BYTES => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn waits_are_relative_to_the_fastest_packet() {
        let mut traffic = Traffic::new(2);
        for i in 0..10u32 {
            let d = Delays { net: 5.0 + f64::from(i), ..Delays::USUAL };
            traffic.packet(
                (0, 1),
                10 + 2 * i,
                (0, if i < 5 { 100 } else { 1400 }, if i < 5 { 100 } else { 1400 }),
                50.0 * f64::from(i),
                d,
            );
        }
        let options = Options { plot: Some("x".into()), ..Options::default() };
        let report = QDelay.run(&traffic.model(), &options);
        let table = report.table("qdelay").unwrap();
        assert_eq!(
            (table.get(0, "count"), table.get(0, "max_us"), table.get(1, "min_us")),
            (&5u32.into(), &4.0.into(), &5.0.into())
        );
        assert_eq!(table.get(2, "count"), &0u32.into());
        assert_eq!(report.plots.len(), 5);
        assert_eq!(report.plots[0].curves[0].1[3], (150.5, 3.0));
    }
}
