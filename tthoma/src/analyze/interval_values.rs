//! All numbers of all steps, for the table of intervals.

use super::Options;
use super::intervals::{Field, collect};
use crate::model::Model;

/// A node, the ends of its steps in ns, and each field by name with a value for each step.
pub(crate) type Intervals = (u16, Vec<i64>, Vec<(String, Vec<Option<f64>>)>);

/// The time series of all nodes, in steps of [`Options::interval`].
pub(crate) fn interval_values(model: &Model, options: &Options) -> Vec<Intervals> {
    let node = |series: super::intervals::Series| {
        let steps = 0..series.steps.count;
        let ends = steps.clone().map(|k| series.steps.end(k)).collect();
        let field = |field: &Field| {
            let known = series.get(*field, 0).is_some();
            known.then(|| (name(*field), steps.clone().map(|k| series.get(*field, k)).collect()))
        };
        (series.node, ends, Field::ALL.iter().filter_map(field).collect())
    };
    collect(model, options, None, Field::ALL).into_iter().filter(|s| s.steps.count > 0).map(node).collect()
}

/// `TxNicBytes` as `tx_nic_bytes`.
fn name(field: Field) -> String {
    let mut out = String::new();
    for c in format!("{field:?}").chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
