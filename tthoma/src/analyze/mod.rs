//! The analyses: each reads traces and answers one question.

pub mod delay;
mod delay_table;
mod handoffs;
mod journeys;
mod pairing;
mod report;
mod stats;
pub mod sync;

use std::path::PathBuf;

use serde::Serialize;
use strsim::osa_distance as edits;

use crate::clock::Clock;
use crate::event::Kind;
use crate::hosts::{self, Hosts};
use crate::packets::Packets;
use crate::read::{self, FileStats, NodeTrace, ReadError};

pub use report::{ClockReport, ImportReport, NodeReport, PairReport};
pub use stats::Distribution;

/// What all analyses can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Options {
    /// More detail: the slowest packets, the most frequent unrecognised lines.
    pub verbose: bool,
    /// Use the traces' times as they are.
    pub no_sync: bool,
    /// Do not list negative delays.
    pub negative_ok: bool,
}

/// An analysis, for `tthoma list`.
#[derive(Clone, Copy, Debug)]
pub struct Analysis {
    /// Its name on the command line.
    pub name: &'static str,
    /// The question that it answers.
    pub question: &'static str,
    /// Events without which it has nothing to say.
    pub needs: &'static [Kind],
    /// Events that add to it.
    pub uses: &'static [Kind],
}

/// All analyses.
pub const ALL: &[Analysis] = &[delay::ANALYSIS, sync::ANALYSIS];

/// Traces read, with everything that is common to analyses.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) traces: Vec<NodeTrace>,
    pub(crate) hosts: Hosts,
    pub(crate) packets: Packets,
    pub(crate) clock: Clock,
}

impl Input {
    pub(crate) fn read(paths: &[PathBuf], options: &Options) -> Result<Self, ReadError> {
        Ok(Self::new(read::read(paths)?, options))
    }

    pub(crate) fn new(mut traces: Vec<NodeTrace>, options: &Options) -> Self {
        let hosts = hosts::resolve(&mut traces);
        let packets = Packets::collect(&traces);
        let clock = Clock::estimate(traces.len(), &packets);
        let clock = if options.no_sync { clock.unapplied() } else { clock };
        Self { traces, hosts, packets, clock }
    }

    pub(crate) fn stats(&self) -> impl Iterator<Item = &FileStats> {
        self.traces.iter().map(|t| &t.stats)
    }

    /// Lines of `kind` in all traces.
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.stats().map(|s| s.count(kind)).sum()
    }

    /// Names of those of `kinds` that occur nowhere.
    pub(crate) fn missing(&self, kinds: &[Kind]) -> Vec<&'static str> {
        kinds.iter().filter(|k| self.count(**k) == 0).map(|k| k.name()).collect()
    }
}

/// The name of an analysis that `name` is most probably meant for: at most a third of its letters wrong.
pub fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let distance = |analysis: &&Analysis| edits(&name, analysis.name);
    let best = ALL.iter().min_by_key(distance)?;
    (edits(&name, best.name) <= best.name.len().div_ceil(3)).then_some(best.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_suggests_the_nearest() {
        for (typed, meant) in
            [("dealy", Some("delay")), ("DELAYX", Some("delay")), ("snyc", Some("sync")), ("grants", None)]
        {
            assert_eq!(nearest(typed), meant, "{typed}");
        }
        assert_eq!(edits("", "abc"), 3);
    }
}
