//! z-scores of a group as a picture: nodes by counters.

use serde::Serialize;

use super::catalogue::Kind;
use super::group::Group;
use super::peers::shown;
use super::record::Record;

/// Columns and rows of a picture, at most.
const COLUMNS: usize = 28;
const ROWS: usize = 160;

/// See the module. Only the counters with the largest scores are kept.
#[derive(Clone, Debug, Serialize)]
pub struct Heat {
    /// Directory of the run.
    pub run: String,
    /// Experiment.
    pub experiment: String,
    /// Role of the nodes.
    pub role: &'static str,
    /// Nodes.
    pub nodes: Vec<u64>,
    /// Counters.
    pub columns: Vec<Scores>,
    /// Counters that were compared; those with small scores are not in `columns`.
    pub compared: usize,
}

/// A counter's scores, one a node.
#[derive(Clone, Debug, Serialize)]
pub struct Scores {
    /// The counter.
    pub metric: String,
    /// z-scores.
    pub z: Vec<f32>,
    /// Values in words.
    #[serde(skip)]
    pub shown: Vec<String>,
}

impl Heat {
    /// Without columns.
    pub fn new(run: &str, group: &Group, records: &[Record]) -> Self {
        let nodes = group.members.iter().take(ROWS).map(|&member| records[member].node).collect();
        let (run, experiment, role) = (run.to_owned(), group.experiment.clone(), group.role.name());
        Self { run, experiment, role, nodes, columns: Vec::new(), compared: 0 }
    }

    /// Adds a counter: z and rate of each node.
    pub fn add(&mut self, metric: &str, kind: Kind, scores: Vec<(f64, f64)>) {
        self.compared += 1;
        let rows = &scores[..scores.len().min(ROWS)];
        let most = rows.iter().map(|(z, _)| z.abs() as f32).fold(0.0, f32::max);
        if self.columns.len() >= COLUMNS && most <= self.columns.iter().map(Scores::most).fold(f32::MAX, f32::min) {
            return;
        }
        let z = rows.iter().map(|(z, _)| *z as f32).collect();
        let shown = rows.iter().map(|(_, rate)| shown(*rate, kind)).collect();
        self.columns.push(Scores { metric: metric.to_owned(), z, shown });
        if self.columns.len() > COLUMNS {
            self.columns.sort_by(|a, b| b.most().total_cmp(&a.most()));
            self.columns.truncate(COLUMNS);
        }
    }

    /// In order: the largest scores first.
    pub fn finish(mut self) -> Self {
        self.columns.sort_by(|a, b| b.most().total_cmp(&a.most()));
        self
    }
}

impl Scores {
    /// The largest score, up or down.
    pub fn most(&self) -> f32 {
        self.z.iter().map(|z| z.abs()).fold(0.0, f32::max)
    }
}
