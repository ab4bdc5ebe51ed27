//! What came of one measurement, wherever its nodes were: samples, and what else is known.

use cp_node::samples::Sample;
use homa_sim::cluster::ClusterRun;
use scan_metrics::read::total;

use crate::report::digest::{Collector, Digest};
use crate::report::rtts;
use crate::sim::spec::SimSpec;
use crate::sim::switch::Switch;

/// Samples of all nodes and counts over the measured interval. What a testbed does not know is `None`.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Messages that ended in the measured interval, node after node.
    pub samples: Vec<Sample>,
    /// Length of the interval.
    pub measured_s: f64,
    /// Messages that failed.
    pub failed: u64,
    /// Messages without an end when the interval ended.
    pub outstanding: u64,
    /// False if a test of convergence was asked for and not met.
    pub converged: bool,
    /// Packets delivered to nodes.
    pub packets: Option<u64>,
    /// Packets that switches dropped.
    pub dropped: Option<u64>,
    /// Homa's data packets sent again.
    pub resent_percent: Option<f64>,
    /// What waited at the switches.
    pub switch: Option<Switch>,
}

impl Outcome {
    /// Of simulated nodes.
    pub fn simulated(spec: &SimSpec, run: ClusterRun) -> Self {
        let switch = Switch::new(&run, spec);
        Self {
            measured_s: run.measured.as_secs_f64(),
            failed: run.nodes.iter().map(|node| node.failed).sum(),
            outstanding: run.nodes.iter().map(|node| node.outstanding).sum(),
            converged: run.converged,
            packets: Some(run.packets),
            dropped: Some(switch.drops()),
            resent_percent: resent_percent(&run),
            switch: Some(switch),
            samples: run.nodes.into_iter().flat_map(|node| node.samples).collect(),
        }
    }

    /// Times by length; `time` chooses which.
    pub fn digest(&self, time: impl Fn(&Sample) -> u64) -> Digest {
        let mut collector = Collector::default();
        for sample in &self.samples {
            collector.add(rtts::Sample { length: sample.len, rtt_ns: time(sample) });
        }
        collector.finish()
    }
}

/// Homa's data packets sent again, from its metrics.
fn resent_percent(run: &ClusterRun) -> Option<f64> {
    let grown = |name: &str| -> Option<u64> {
        run.nodes.iter().try_fold(0, |sum, node| {
            let [before, after] = node.metrics.as_ref()?;
            Some(sum + total(after, name)?.saturating_sub(total(before, name)?))
        })
    };
    let (sent, resent) = (grown("packets_sent_DATA")?, grown("resent_packets")?);
    (sent > 0).then(|| 100.0 * resent as f64 / sent as f64)
}
