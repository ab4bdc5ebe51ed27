//! `coregaps` and `smis`: when was a core, or a whole node, silent for long? Source: timetrace.md 5.5, 5.36, 7.10.
//!
//! A node on which no core logs anything for tens of microseconds was probably in system management mode, or not scheduled
//! by its hypervisor.

use rustc_hash::FxHashMap;

use super::samples::{ns, us};
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::Kind;
use crate::model::Model;

/// `coregaps`; see [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct CoreGaps;

/// `smis`; see [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Smis;

/// Shortest gap of a core that is worth a line, us.
const CORE_GAP: f64 = 5000.0;
/// Longest gaps of a node.
const LONGEST: usize = 5;

impl Analyzer for CoreGaps {
    fn about(&self) -> &'static About {
        &About {
            name: "coregaps",
            question: "Was a core silent for more than 5 ms?",
            source: "timetrace.md 5.5",
            needs: Needs::Any(Kind::ALL),
            uses: &[],
            options: &[],
            requires: &[],
        }
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut table = Table::new("gaps", format!("The {LONGEST} longest gaps above 5 ms between events of a core:"))
            .column("Node", Unit::None, "")
            .column("Core", Unit::None, "")
            .column("Start", Unit::Us, "")
            .column("Length", Unit::Ms, "");
        for (node, first, last) in model.spans() {
            let trace = &model.traces[usize::from(node)];
            let offset = trace.span.map_or(0, |(own, _)| first - own);
            let mut seen: FxHashMap<u16, i64> = FxHashMap::default();
            let mut gaps: Vec<(i64, i64, u16)> = Vec::new();
            for record in &trace.records {
                let time = record.time + offset;
                if let Some(before) = seen.insert(record.core, time) {
                    gaps.extend((time - before > ns(CORE_GAP)).then_some((time - before, before, record.core)));
                }
            }
            gaps.extend(
                seen.into_iter().map(|(core, at)| (last - at, at, core)).filter(|(gap, ..)| *gap > ns(CORE_GAP)),
            );
            gaps.sort_unstable_by_key(|(gap, at, core)| (std::cmp::Reverse(*gap), *at, *core));
            for (gap, at, core) in gaps.into_iter().take(if options.verbose { usize::MAX } else { LONGEST }) {
                table.row([model.name(node).into(), core.into(), us(Some(at)), (gap as f64 / 1e6).into()]);
            }
        }
        Report::of([table])
    }
}

impl Analyzer for Smis {
    fn about(&self) -> &'static About {
        &About {
            name: "smis",
            question: "When did no core of a node log anything for longer than --threshold?",
            source: "timetrace.md 5.36, 7.10",
            needs: Needs::Any(Kind::ALL),
            uses: &[],
            options: &["threshold"],
            requires: &[],
        }
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut gaps: Vec<(i64, i64, u16)> = Vec::new();
        for (node, first, _) in model.spans() {
            let trace = &model.traces[usize::from(node)];
            let offset = trace.span.map_or(0, |(own, _)| first - own);
            let mut before = first;
            for record in &trace.records {
                let time = record.time + offset;
                if time - before > ns(options.threshold) {
                    gaps.push((before, time, node));
                }
                before = before.max(time);
            }
        }
        gaps.sort_unstable();
        let mut table = Table::new("gaps", format!("Gaps above {} us of whole nodes:", options.threshold))
            .column("Start", Unit::Us, "")
            .decimals(3)
            .column("End", Unit::Us, "")
            .decimals(3)
            .column("Gap", Unit::Us, "")
            .column("Node", Unit::None, "");
        for (start, end, node) in gaps {
            table.row([us(Some(start)), us(Some(end)), us(Some(end - start)), model.name(node).into()]);
        }
        Report::of([table])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::Traffic;

    fn model() -> Model {
        let mut traffic = Traffic::new(2);
        for at in [0.0, 10.0, 100.0, 8000.0, 8010.0, 20_000.0] {
            traffic.event(0, 0, at, "homa_softirq starting");
        }
        for i in 0..10_000 {
            traffic.event(0, 1, 30.0 * f64::from(i), "homa_softirq starting");
        }
        traffic.event(1, 0, 50.0, "homa_softirq starting").event(1, 0, 150.0, "homa_softirq starting");
        traffic.model()
    }

    #[test]
    fn gaps_of_cores_are_found_with_the_one_at_the_end() {
        let report = CoreGaps.run(&model(), &Options::default());
        let table = report.table("gaps").unwrap();
        let rows: Vec<_> = (0..table.rows.len())
            .map(|r| (table.get(r, "core").number(), table.get(r, "length_ms").number()))
            .collect();
        assert_eq!(rows, [(Some(0.0), Some(279.97)), (Some(0.0), Some(11.99)), (Some(0.0), Some(7.9))]);
    }

    #[test]
    fn gaps_of_nodes_need_all_cores_and_no_state_of_other_nodes() {
        let report = Smis.run(&model(), &Options::default());
        let table = report.table("gaps").unwrap();
        assert_eq!(
            (table.rows.len(), table.get(0, "start_us"), table.get(0, "gap_us")),
            (1, &50.0.into(), &100.0.into())
        );
    }
}
