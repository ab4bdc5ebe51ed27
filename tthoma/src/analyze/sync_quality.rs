//! `sync-quality`: can times between these nodes be believed?

use super::{About, Analyzer, ClockReport, Needs, Options, Report, Table, Unit};
use crate::event::{Kind, Kinds};
use crate::model::Model;
use crate::packets::{Flow, UNSEEN};
use crate::stats::{average, micros, percentile};

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct SyncQuality;

impl Analyzer for SyncQuality {
    fn about(&self) -> &'static About {
        &About {
            name: "sync-quality",
            question: "Can times between these nodes be believed?",
            source: "timetrace.md 10.6",
            needs: Needs::All(&[Kind::IpXmit, Kind::GroData]),
            uses: &[Kind::SendGrant, Kind::GroGrant],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, _: &Options) -> Report {
        let nodes = model.traces.len();
        let mut delays: Vec<Vec<(i64, i64)>> = vec![Vec::new(); nodes * nodes];
        collect(model, &model.packets.data, &mut delays);
        collect(model, &model.packets.grants, &mut delays);
        let mut table = pairs();
        let mut warnings = Vec::new();
        let names = &model.hosts.nodes;
        for (place, delays) in delays.into_iter().enumerate().filter(|(_, d)| !d.is_empty()) {
            let (from, to) = (place / nodes, place % nodes);
            let error = model.clock.error(from as u16, to as u16).map(micros);
            let negative = delays.iter().filter(|(_, delay)| *delay < 0).count();
            let drift = drift(&delays);
            let mut sorted: Vec<i64> = delays.iter().map(|(_, delay)| *delay).collect();
            sorted.sort_unstable();
            let least = micros(sorted[0]);
            if error.is_none_or(|error| -least > error) && least < 0.0 {
                let pair = format!("{} to {}", names[from], names[to]);
                warnings.push(format!(
                    "packets from {pair} arrive up to {:.3} us before they are sent, more than the clocks' error allows: \
                     one of these clocks was set or drifts",
                    -least
                ));
            }
            table.row([
                (&names[from]).into(),
                (&names[to]).into(),
                sorted.len().into(),
                least.into(),
                percentile(&sorted, 50).map(micros).into(),
                average(&sorted).into(),
                negative.into(),
                error.into(),
                drift.map(|d| d.0).into(),
                drift.map(|d| d.1).into(),
            ]);
        }
        let clock = ClockReport::new(model);
        let notes = clock
            .unplaced
            .iter()
            .map(|node| format!("{node} can't be placed: times between it and others are left out"));
        Report { notes: notes.collect(), warnings, ..Report::of([table]) }
    }
}

fn pairs() -> Table {
    Table::new("pairs", "One-way delays with the offsets applied, of packets that were sent once and received once:")
        .column("From", Unit::None, "")
        .column("To", Unit::None, "")
        .column("Packets", Unit::None, "")
        .column("Min", Unit::Us, "smallest one-way delay: the room that the offset has left")
        .decimals(3)
        .column("P50", Unit::Us, "")
        .column("Avg", Unit::Us, "")
        .column("Negative", Unit::None, "packets that seem to arrive before they are sent")
        .column("Error", Unit::Us, "how wrong times between the two can be")
        .decimals(3)
        .column("Drift", Unit::None, "slope of the smallest delays over the trace, in 10^-6 (us per s): half of the difference to the other direction is the clocks'")
        .key("drift_ppm")
        .decimals(2)
        .column("Over", Unit::Ms, "time that the slope was taken over")
}

/// (when sent, delay) of each pair of nodes, on the common clock.
fn collect(model: &Model, flow: &Flow, out: &mut [Vec<(i64, i64)>]) {
    let nodes = model.traces.len();
    for packet in &flow.packets {
        let (Some(sent), Some(received)) = (flow.sent_of(packet).next(), flow.received_of(packet).next()) else {
            continue;
        };
        let single = packet.sent_count() == 1 && packet.received_count() == 1 && !sent.again;
        if !single || sent.xmit == UNSEEN || received.gro == UNSEEN {
            continue;
        }
        if let Some(delay) = model.clock.between(sent.node, sent.xmit, received.node, received.time()) {
            let at = sent.xmit + model.clock.offset(usize::from(sent.node)).unwrap_or(0);
            out[usize::from(sent.node) * nodes + usize::from(received.node)].push((at, delay));
        }
    }
}

/// Parts of a trace whose smallest delays the slope is taken from.
const PARTS: usize = 8;
/// Shorter traces say nothing about drift.
const LEAST_SPAN: i64 = 20_000_000;

/// Slope of the smallest delays, in us per s, and the time that it was taken over in ms: by least squares over the minima of
/// equal parts of the trace. `None` if the trace is shorter than 20 ms or has packets in less than four parts.
fn drift(delays: &[(i64, i64)]) -> Option<(f64, f64)> {
    let first = delays.iter().map(|(at, _)| *at).min()?;
    let last = delays.iter().map(|(at, _)| *at).max()?;
    if last - first < LEAST_SPAN {
        return None;
    }
    let mut least: [Option<(i64, i64)>; PARTS] = [None; PARTS];
    for (at, delay) in delays {
        let part = ((at - first) as i128 * PARTS as i128 / (last - first + 1) as i128) as usize;
        let known = &mut least[part];
        if known.is_none_or(|(_, d)| *delay < d) {
            *known = Some((*at, *delay));
        }
    }
    let points: Vec<(f64, f64)> =
        least.iter().flatten().map(|(at, d)| ((at - first) as f64 / 1e9, micros(*d))).collect();
    if points.len() < PARTS / 2 {
        return None;
    }
    let n = points.len() as f64;
    let (mean_x, mean_y) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let (xy, xx) = points
        .iter()
        .fold((0.0, 0.0), |(xy, xx), (x, y)| (xy + (x - mean_x) * (y - mean_y), xx + (x - mean_x) * (x - mean_x)));
    (xx > 0.0).then(|| (xy / xx, (last - first) as f64 / 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scenario, Steps};

    #[test]
    fn known_delays_have_their_room_and_no_drift() {
        let mut scenario = Scenario::new(2);
        scenario.clock_ahead(1, 123.0);
        for i in 0..100 {
            scenario.rpc(f64::from(i) * 1000.0, (0, 1), 10 + 2 * i, (100, 100), &Steps::default());
        }
        let report = SyncQuality.run(&scenario.model(&Options::default()), &Options::default());
        let table = report.table("pairs").unwrap();
        let row = table.find(&["node1", "node2"]).unwrap();
        let cell = |key| table.get(row, key).number().unwrap();
        assert_eq!((cell("packets"), cell("min_us"), cell("p50_us"), cell("negative")), (100.0, 5.5, 5.5, 0.0));
        assert_eq!((cell("error_us"), cell("drift_ppm")), (5.5, 0.0));
        assert!(report.warnings.is_empty());
    }

    #[test]
    fn a_drifting_clock_is_seen() {
        // 50 us per s over 100 ms, among delays that jitter.
        let delays: Vec<(i64, i64)> = (0..1000i64).map(|i| (i * 100_000, 5000 + i * 5 + (i % 7) * 300)).collect();
        let (ppm, over) = drift(&delays).unwrap();
        assert!((ppm - 50.0).abs() < 1.0, "{ppm}");
        assert!((over - 99.9).abs() < 0.1);
        assert_eq!(drift(&delays[..100]), None, "10 ms are too short");
    }

    #[test]
    fn impossible_delays_are_a_warning() {
        let mut scenario = Scenario::new(2);
        for i in 0..20 {
            let at = f64::from(i) * 1000.0;
            scenario.rpc(at, (0, 1), 10 + 2 * i, (100, 100), &Steps::default());
        }
        let options = Options { no_sync: true, ..Options::default() };
        scenario.clock_ahead(1, -400.0);
        let report = SyncQuality.run(&scenario.model(&options), &options);
        // The error of unsynchronised clocks is their offset: nothing is unexplained.
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        let table = report.table("pairs").unwrap();
        let row = table.find(&["node1", "node2"]).unwrap();
        assert_eq!(table.get(row, "negative"), &20u32.into());
        assert_eq!(table.get(row, "min_us"), &(-394.5).into());
    }
}
