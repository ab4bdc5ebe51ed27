//! `core`: which packets does one core work on, over time? Source: timetrace.md 5.4.

use super::samples::us;
use super::steps::{Steps, flow};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::Kind;
use crate::model::Model;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Core;

const WORK: [(&str, &str, &[Kind]); 7] = [
    ("GroD", "data packets at GRO", &[Kind::GroData]),
    ("GroG", "grants at GRO", &[Kind::GroGrant]),
    ("SoftD", "data packets in SoftIRQ", &[Kind::SoftirqData]),
    ("SoftG", "grants in SoftIRQ", &[Kind::SoftirqGrant]),
    ("SoftR", "RESENDs in SoftIRQ", &[Kind::ResendRx, Kind::ResendUnknown]),
    ("TxBusy", "BUSY sent", &[Kind::BusyTx]),
    ("TxGrant", "grants sent", &[Kind::SendGrant]),
];

impl Analyzer for Core {
    fn about(&self) -> &'static About {
        &About {
            name: "core",
            question: "Which packets does one core work on, over time?",
            source: "timetrace.md 5.4",
            needs: Needs::Any(&[
                Kind::GroData,
                Kind::GroGrant,
                Kind::SoftirqData,
                Kind::SoftirqGrant,
                Kind::ResendRx,
                Kind::BusyTx,
                Kind::SendGrant,
            ]),
            uses: &[],
            options: &["node", "core", "interval"],
            requires: &["node", "core"],
        }
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let name = options.node.as_deref().unwrap_or_default();
        let Some((node, span)) = model.node(name).and_then(|node| Some((node, model.span(node)?))) else {
            return Report { warnings: vec![format!("core: no trace of a node `{name}`")], ..Report::default() };
        };
        let core = options.core.unwrap_or(0);
        let steps = Steps::of(span, options.interval, Steps::most(model, node, WORK.len()));
        let mut counts = vec![vec![0.0; steps.count]; WORK.len()];
        let trace = &model.traces[usize::from(node)];
        let offset = trace.span.map_or(0, |(own, _)| span.0 - own);
        for record in trace.records.iter().filter(|r| r.core == core) {
            if let Some(kind) = WORK.iter().position(|(.., kinds)| kinds.contains(&record.kind)) {
                flow(&mut counts[kind], &steps, record.time + offset, 1.0);
            }
        }
        let mut summary = Table::new("work", format!("Work of core {core} of {name}:"))
            .column("Work", Unit::None, "")
            .column("Total", Unit::None, "")
            .column("PerStep", Unit::None, "mean of a step")
            .decimals(2);
        for ((_, meaning, _), counts) in WORK.iter().zip(&counts) {
            let total: f64 = counts.iter().sum();
            summary.row([(*meaning).into(), (total as u64).into(), (total / steps.count as f64).into()]);
        }
        let mut report = Report::of([summary]);
        if options.data.is_some() {
            let mut table = Table::series("core", name, format!("Work of core {core} in each step"));
            table.name = format!("core_{name}-{core}");
            table = table.column("Time", Unit::Us, "end of the step");
            for (title, meaning, _) in WORK {
                table = table.column(title, Unit::None, meaning);
            }
            for k in 0..steps.count {
                let cells = counts.iter().map(|c| Cell::from(c[k] as u64));
                table.row(std::iter::once(us(Some(steps.end(k)))).chain(cells));
            }
            report.tables.push(table);
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn the_work_of_one_core_is_counted() {
        let mut traffic = Traffic::new(2);
        traffic.message((0, 1), 10, 14_000, 0.0, Delays::USUAL);
        traffic.grant((1, 0), 11, 14_000, 100, 30.0, Delays::USUAL);
        let options = |core, node: &str| Options {
            core: Some(core),
            node: Some(node.into()),
            data: Some("x".into()),
            interval: 10.0,
            ..Options::default()
        };
        let model = traffic.model();
        let report = Core.run(&model, &options(2, "node2"));
        let total = |report: &Report| {
            (0..7).map(|r| report.table("work").unwrap().get(r, "total").number().unwrap()).collect::<Vec<f64>>()
        };
        assert_eq!(total(&report), [0.0, 0.0, 10.0, 0.0, 0.0, 0.0, 1.0]);
        let series = report.table("core_node2-2").unwrap();
        // In SoftIRQ at 7.5 to 16.5.
        assert_eq!((series.get(0, "soft_d"), series.get(1, "soft_d")), (&3u32.into(), &7u32.into()));
        assert_eq!(total(&Core.run(&model, &options(1, "node2"))), [10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(Core.run(&model, &options(1, "node9")).warnings.len(), 1);
    }
}
