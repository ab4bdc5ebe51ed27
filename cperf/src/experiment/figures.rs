//! The figures of one measurement. Names are those of columns; what each means and its unit is in `columns`.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use cp_node::samples::Sample;
use homa_sim::cluster::ClusterRun;
use scan_metrics::read::total;

use super::statistics::p99_average;
use crate::report::digest::{Collector, Digest};
use crate::report::rtts;
use crate::report::slowdown::{self, Definition, Optimal};
use crate::sim::cluster::{Unloaded, samples};
use crate::sim::spec::SimSpec;
use crate::sim::switch::Switch;

/// Round-trip time of an empty message for the definition `fixed`, us: that of the published cluster.
const BASE_US: f64 = 15.0;

/// See the module. Unknown is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "`columns` has a description of each, which a test checks")]
pub struct Figures {
    pub buffer_limit_bytes: u64,
    pub buffer_limit_percent: Option<f64>,
    pub offered_gbps: f64,
    pub achieved_gbps: f64,
    pub rpcs: u64,
    pub failed_rpcs: u64,
    pub outstanding_rpcs: u64,
    pub measured_s: f64,
    pub converged: bool,
    pub slowdown_mean: Option<f64>,
    pub slowdown_p50: Option<f64>,
    pub slowdown_p99: Option<f64>,
    pub slowdown_atc21_mean: Option<f64>,
    pub slowdown_alt_mean: Option<f64>,
    pub slowdown_fixed_mean: Option<f64>,
    pub p99_average_10: Option<f64>,
    pub p99_average_100: Option<f64>,
    pub due_slowdown_mean: Option<f64>,
    pub due_slowdown_p99: Option<f64>,
    pub short_longest_bytes: Option<u32>,
    pub short_rtt_p50_us: Option<f64>,
    pub short_rtt_p99_us: Option<f64>,
    pub short_rtt_p999_us: Option<f64>,
    pub short_due_p99_us: Option<f64>,
    pub rtt_max_us: Option<f64>,
    pub buffer_max_bytes: u64,
    pub buffer_max_us: f64,
    pub buffer_max_per_node_bytes: f64,
    pub port_max_bytes: u64,
    pub port_max_us: f64,
    pub packets: u64,
    pub dropped_packets: u64,
    pub marked_packets: u64,
    pub resent_percent: Option<f64>,
    pub samples_hash: String,
}

/// Slowdowns of the messages around the length that closes a tenth of the workload's messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tenth {
    /// Percent of the workload's messages that are not longer.
    pub cum_percent: f64,
    /// That length.
    pub length_bytes: u32,
    /// Messages of that length and of the lengths of the hundredth of all messages below it.
    pub rpcs: u64,
    /// Their mean slowdown.
    pub slowdown_mean: f64,
    /// P50.
    pub slowdown_p50: f64,
    /// P99.
    pub slowdown_p99: f64,
}

/// What slowdowns are relative to, by all definitions.
#[derive(Clone, Debug)]
pub struct Baseline {
    chosen: Optimal,
    atc21: Optimal,
    alt: Optimal,
    fixed: Optimal,
}

impl Baseline {
    /// From times without load; `None` if there are none.
    pub fn new(definition: Definition, times: &Unloaded, link_gbps: f64) -> Option<Self> {
        let mut collector = Collector::default();
        for (length, rtts) in times {
            rtts.iter().for_each(|&rtt_ns| collector.add(rtts::Sample { length: *length, rtt_ns }));
        }
        let (digest, mbps) = (collector.finish(), link_gbps * 1e3);
        let atc21 = Optimal::unloaded(Definition::Atc21, &digest, mbps)?;
        let alt = Optimal::unloaded(Definition::Alt, &digest, mbps)?;
        let fixed = Optimal::fixed(BASE_US, mbps);
        let chosen = match definition {
            Definition::Atc21 => &atc21,
            Definition::Alt => &alt,
            Definition::Fixed => &fixed,
        };
        Some(Self { chosen: chosen.clone(), atc21, alt, fixed })
    }

    /// The definition in use, for outputs.
    pub fn text(&self) -> String {
        self.chosen.text()
    }
}

impl Figures {
    /// Of a measurement of `spec`.
    pub fn new(spec: &SimSpec, run: &ClusterRun, baseline: &Baseline) -> Self {
        let service = digest(run, |sample| sample.service_ns);
        let due = digest(run, |sample| sample.due_ns);
        let all = slowdown::summary(&service, &baseline.chosen);
        let all_due = slowdown::summary(&due, &baseline.chosen);
        let mean = |optimal: &Optimal| slowdown::summary(&service, optimal).map(|all| all.mean);
        let (short, short_due) = (service.short(), due.short());
        let us = |ns: u64| ns as f64 / 1e3;
        let messages: Vec<_> = samples(run)
            .map(|sample| (sample.len, (sample.service_ns as f64 / baseline.chosen.ns(sample.len)) as f32))
            .collect();
        let switch = Switch::new(run, spec);
        Self {
            buffer_limit_bytes: spec.switch_buffer_bytes,
            buffer_limit_percent: None,
            offered_gbps: spec.gbps.unwrap_or(0.0),
            achieved_gbps: achieved_gbps(spec, run),
            rpcs: service.samples as u64,
            failed_rpcs: run.nodes.iter().map(|node| node.failed).sum(),
            outstanding_rpcs: run.nodes.iter().map(|node| node.outstanding).sum(),
            measured_s: run.measured.as_secs_f64(),
            converged: run.converged,
            slowdown_mean: all.map(|all| all.mean),
            slowdown_p50: median(&messages),
            slowdown_p99: all.map(|all| all.p99),
            slowdown_atc21_mean: mean(&baseline.atc21),
            slowdown_alt_mean: mean(&baseline.alt),
            slowdown_fixed_mean: mean(&baseline.fixed),
            p99_average_10: p99_average(&messages, 10),
            p99_average_100: p99_average(&messages, 100),
            due_slowdown_mean: all_due.map(|all| all.mean),
            due_slowdown_p99: all_due.map(|all| all.p99),
            short_longest_bytes: short.as_ref().map(|short| short.longest),
            short_rtt_p50_us: short.as_ref().map(|short| us(short.percentile_ns(1, 2))),
            short_rtt_p99_us: short.as_ref().map(|short| us(short.percentile_ns(99, 100))),
            short_rtt_p999_us: short.as_ref().map(|short| us(short.percentile_ns(999, 1000))),
            short_due_p99_us: short_due.as_ref().map(|short| us(short.percentile_ns(99, 100))),
            rtt_max_us: samples(run).map(|sample| sample.service_ns).max().map(us),
            buffer_max_bytes: switch.buffer_max_bytes,
            buffer_max_us: switch.buffer_max_us,
            buffer_max_per_node_bytes: switch.buffer_max_bytes as f64 / f64::from(spec.nodes),
            port_max_bytes: switch.port_max_bytes,
            port_max_us: switch.port_max_us,
            packets: run.packets,
            dropped_packets: switch.drops(),
            marked_packets: switch.marked_packets,
            resent_percent: resent_percent(run),
            samples_hash: samples_hash(run),
        }
    }

    /// A figure by its name; `None` if it is unknown or no number.
    pub fn number(&self, name: &str) -> Option<f64> {
        serde_json::to_value(self).ok()?.get(name)?.as_f64()
    }
}

/// Slowdowns at each tenth of the workload's messages.
pub fn tenths(spec: &SimSpec, run: &ClusterRun, baseline: &Baseline) -> Vec<Tenth> {
    let Ok(lengths) = spec.lengths() else { return Vec::new() };
    let digest = digest(run, |sample| sample.service_ns);
    let points = lengths.points();
    let mut rows: Vec<Tenth> = Vec::new();
    for tenth in 1..=10 {
        let share = f64::from(tenth) / 10.0;
        let closes = points.partition_point(|point| point.fraction < share - 1e-9).min(points.len() - 1);
        // From the hundredth before it, but at least itself.
        let from = points.partition_point(|point| point.fraction <= share - 0.01).min(closes);
        let (least, most) = (points[from].len, points[closes].len.max(cp_node::message::HEADER_LEN as u32));
        let buckets = || digest.buckets.iter().filter(|bucket| (least..=most).contains(&bucket.length));
        let mut slowdowns: Vec<f64> = buckets()
            .flat_map(|bucket| bucket.times_ns().map(|ns| ns as f64 / baseline.chosen.ns(bucket.length)))
            .collect();
        if slowdowns.is_empty() {
            continue;
        }
        slowdowns.sort_unstable_by(f64::total_cmp);
        let at = |num: usize, den: usize| slowdowns[(slowdowns.len() * num / den).min(slowdowns.len() - 1)];
        rows.push(Tenth {
            cum_percent: share * 100.0,
            length_bytes: points[closes].len,
            rpcs: slowdowns.len() as u64,
            slowdown_mean: slowdowns.iter().sum::<f64>() / slowdowns.len() as f64,
            slowdown_p50: at(1, 2),
            slowdown_p99: at(99, 100),
        });
    }
    rows
}

fn digest(run: &ClusterRun, time: impl Fn(&Sample) -> u64) -> Digest {
    let mut collector = Collector::default();
    samples(run).for_each(|sample| collector.add(rtts::Sample { length: sample.len, rtt_ns: time(sample) }));
    collector.finish()
}

/// Payload of completed messages per node and direction.
fn achieved_gbps(spec: &SimSpec, run: &ClusterRun) -> f64 {
    let bytes: f64 = samples(run).map(|sample| f64::from(sample.len)).sum();
    let directions = if spec.one_way { 1.0 } else { 2.0 };
    directions * bytes * 8e-9 / f64::from(spec.nodes) / run.measured.as_secs_f64().max(1e-12)
}

fn median(messages: &[(u32, f32)]) -> Option<f64> {
    let mut all: Vec<_> = messages.iter().map(|(_, slowdown)| *slowdown).collect();
    let middle = all.len() / 2;
    (!all.is_empty()).then(|| f64::from(*all.select_nth_unstable_by(middle, f32::total_cmp).1))
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

/// Tells whether two measurements are equal in every sample.
fn samples_hash(run: &ClusterRun) -> String {
    let mut hash = Sha256::new();
    for sample in samples(run) {
        hash.update(sample.len.to_le_bytes());
        hash.update(sample.service_ns.to_le_bytes());
        hash.update(sample.due_ns.to_le_bytes());
    }
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use homa_sim::cluster::NodeRun;
    use homa_sim::fabric::{PortStats, SwitchStats};
    use homa_sim::time::Time;

    /// A hundred messages of 10, 20 … 1000 bytes that took 1, 2 … 100 us, in 1 ms on two nodes.
    pub(in super::super) fn hundred() -> (SimSpec, ClusterRun, Baseline) {
        let sample = |i: u32| Sample { len: 10 * i, service_ns: u64::from(i) * 1000, due_ns: u64::from(i) * 2000 };
        let node =
            NodeRun { samples: (1..=100).map(sample).collect(), failed: 1, outstanding: 2, ..NodeRun::default() };
        let switch = SwitchStats {
            high_water_bytes: 62_500,
            drops: [3, 4, 0],
            ports: vec![PortStats::default(); 2],
            ..SwitchStats::default()
        };
        let run = ClusterRun {
            nodes: vec![node, NodeRun::default()],
            switches: vec![switch],
            measured: Time::from_millis(1),
            ..ClusterRun::default()
        };
        let spec = SimSpec { nodes: 2, gbps: Some(1.0), ..SimSpec::default() };
        // 1 us at any length.
        let baseline = Baseline::new(Definition::Atc21, &vec![(10, vec![1000]), (1000, vec![1000])], 1e9).unwrap();
        (spec, run, baseline)
    }

    #[test]
    fn figures_are_those_worked_out_by_hand() {
        let (spec, run, baseline) = hundred();
        let figures = Figures::new(&spec, &run, &baseline);
        assert_eq!((figures.rpcs, figures.failed_rpcs, figures.outstanding_rpcs), (100, 1, 2));
        assert_eq!((figures.slowdown_mean, figures.due_slowdown_mean), (Some(50.5), Some(101.0)));
        assert_eq!((figures.slowdown_p50, figures.slowdown_p99), (Some(51.0), Some(100.0)));
        assert_eq!(figures.p99_average_10, Some(55.0), "the largest of each ten");
        assert_eq!((figures.short_rtt_p50_us, figures.short_longest_bytes), (Some(6.0), Some(100)));
        // 50,500 bytes there and back in 1 ms, over two nodes.
        assert!((figures.achieved_gbps - 0.404).abs() < 1e-9);
        assert_eq!((figures.buffer_max_us, figures.dropped_packets), (10.0, 7));
        assert_eq!((figures.buffer_max_per_node_bytes, figures.resent_percent), (31_250.0, None));
        assert_eq!(figures.number("slowdown_mean"), Some(50.5));
        assert_eq!(figures.number("samples_hash"), None);
    }

    #[test]
    fn equal_samples_have_equal_hashes_and_others_not() {
        let (_, run, _) = hundred();
        let mut other = run.clone();
        other.nodes[0].samples[5].due_ns += 1;
        assert_eq!(samples_hash(&run), samples_hash(&run.clone()));
        assert_ne!(samples_hash(&run), samples_hash(&other));
    }

    #[test]
    fn all_three_definitions_of_slowdown_are_given() {
        let (spec, run, _) = hundred();
        let times = vec![(10, vec![1000]), (1000, vec![2000])];
        let figures = Figures::new(&spec, &run, &Baseline::new(Definition::Alt, &times, 1e9).unwrap());
        assert_eq!(figures.slowdown_mean, figures.slowdown_alt_mean);
        assert!((figures.slowdown_fixed_mean.unwrap() - 50.5 / 15.0).abs() < 1e-6);
        assert!(figures.slowdown_atc21_mean.unwrap() < figures.slowdown_alt_mean.unwrap());
        assert!(Baseline::new(Definition::Alt, &Vec::new(), 25.0).is_none());
    }

    #[test]
    fn tenths_are_of_the_workloads_messages() {
        let (_, mut run, baseline) = hundred();
        let spec = SimSpec { workload: "starve".into(), ..SimSpec::default() };
        let lengths = spec.lengths().unwrap();
        for (index, point) in lengths.points().iter().enumerate() {
            let time = (index as u64 + 1) * 1000;
            run.nodes[0].samples.push(Sample { len: point.len, service_ns: time, due_ns: time });
        }
        let rows = tenths(&spec, &run, &baseline);
        assert_eq!(rows.len(), 10);
        assert_eq!((rows[9].length_bytes, rows[9].rpcs, rows[9].slowdown_p50), (1_000_000, 1, 10.0));
        assert_eq!(rows[0].length_bytes, 100_000);
    }
}
