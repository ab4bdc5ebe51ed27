//! Delays below 0: wrong clocks, or events out of order.

use rustc_hash::FxHashMap;

use super::table::{Table, Unit};
use crate::model::{Group, Model, Phase};
use crate::stats::micros;

/// Negative delays of one phase between two nodes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Negative {
    /// The phase.
    pub(super) phase: &'static str,
    /// Sender, or the node where the phase begins and ends.
    pub(super) from: String,
    /// Receiver.
    pub(super) to: String,
    /// Samples below 0.
    pub(super) count: u64,
    /// Smallest of them.
    pub(super) min_us: f64,
    /// What the clocks' error allows; null if nothing bounds it.
    pub(super) clock_error_us: Option<f64>,
    /// True if the clocks' error explains it.
    pub(super) within_error: bool,
}

/// All negative samples, once for each phase and pair of nodes.
pub(super) fn negatives(model: &Model) -> Vec<Negative> {
    type Found = FxHashMap<(usize, u16, u16), (u64, i64)>;
    let parts = model.in_parts(|journeys| {
        let mut found = Found::default();
        for journey in journeys.filter(|j| j.group() != Group::Unknown) {
            for phase in Phase::ALL {
                let Some(value) = journey.sample(&model.clock, phase).filter(|v| *v < 0) else { continue };
                let (from, to) = (journey.from(), journey.to());
                let nodes = match phase {
                    Phase::Xmit | Phase::Free => (from, from),
                    Phase::Ring | Phase::SoftIrq => (to, to),
                    Phase::Net | Phase::Total => (from, to),
                };
                let entry = found.entry((phase as usize, nodes.0, nodes.1)).or_insert((0, 0));
                *entry = (entry.0 + 1, entry.1.min(value));
            }
        }
        found
    });
    let mut found = Found::default();
    for (key, (count, min)) in parts.into_iter().flatten() {
        let entry = found.entry(key).or_insert((0, 0));
        *entry = (entry.0 + count, entry.1.min(min));
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_unstable();
    let negative = |((phase, from, to), (count, min)): ((usize, u16, u16), (u64, i64))| {
        let error = model.clock.error(from, to);
        Negative {
            phase: Phase::ALL[phase].key(),
            from: model.hosts.name(from),
            to: model.hosts.name(to),
            count,
            min_us: micros(min),
            clock_error_us: error.map(micros),
            within_error: error.is_some_and(|e| -min <= e),
        }
    };
    found.into_iter().map(negative).collect()
}

/// Negative delays as a table.
pub(super) fn table(negatives: &[Negative]) -> Table {
    let mut table = Table::new("negatives", "Negative delays (they are in the tables; Error: what the clocks allow):")
        .column("Phase", Unit::None, "")
        .column("From", Unit::None, "")
        .column("To", Unit::None, "")
        .column("Count", Unit::None, "")
        .column("Min", Unit::Us, "")
        .decimals(3)
        .column("Error", Unit::Us, "")
        .decimals(3)
        .column("Verdict", Unit::None, "");
    for n in negatives {
        let verdict = if n.within_error { "within the clocks' error" } else { "NOT explained by clocks" };
        table.row([
            n.phase.into(),
            (&n.from).into(),
            (&n.to).into(),
            n.count.into(),
            n.min_us.into(),
            n.clock_error_us.into(),
            verdict.into(),
        ]);
    }
    table
}

/// Says what is wrong with negative delays that the clocks' error does not explain.
pub(super) fn unexplained(n: &Negative) -> String {
    let Negative { phase, from, to, count, min_us, .. } = n;
    if from == to {
        return format!(
            "{count} negative {phase} delays on {from}, down to {min_us:.3} us: its events are out of order"
        );
    }
    let error = n.clock_error_us.map_or_else(|| "is unknown".into(), |e| format!("is at most {e:.3} us"));
    format!(
        "{count} negative {phase} delays from {from} to {to}, down to {min_us:.3} us, and the clocks' error {error}: \
         these clocks can't be compared (see `tthoma analyze sync`)"
    )
}
