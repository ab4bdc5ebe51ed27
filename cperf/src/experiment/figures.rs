//! The figures of one measurement. Names are those of columns; what each means and its unit is in `columns`.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use cp_node::samples::Sample;

use super::outcome::Outcome;
use super::statistics::p99_average;
use crate::report::digest::Collector;
use crate::report::rtts;
use crate::report::slowdown::{self, Definition, Optimal};
use crate::sim::cluster::Unloaded;
use crate::sim::spec::SimSpec;

/// Round-trip time of an empty message for the definition `fixed`, us: that of the published cluster.
const BASE_US: f64 = 15.0;

/// See the module. Unknown is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "`columns` has a description of each, which a test checks")]
pub struct Figures {
    pub buffer_limit_bytes: Option<u64>,
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
    pub rtt_min_us: Option<f64>,
    pub rtt_p50_us: Option<f64>,
    pub rtt_p99_us: Option<f64>,
    pub rtt_max_us: Option<f64>,
    pub client_krps: f64,
    pub client_gbps: f64,
    pub server_krps: f64,
    pub server_gbps: f64,
    pub buffer_max_bytes: Option<u64>,
    pub buffer_max_us: Option<f64>,
    pub buffer_max_per_node_bytes: Option<f64>,
    pub port_max_bytes: Option<u64>,
    pub port_max_us: Option<f64>,
    pub packets: Option<u64>,
    pub dropped_packets: Option<u64>,
    pub marked_packets: Option<u64>,
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

    /// By the formula alone, where nothing was measured without load.
    pub fn without_times(link_gbps: f64) -> Self {
        let fixed = Optimal::fixed(BASE_US, link_gbps * 1e3);
        Self { chosen: fixed.clone(), atc21: fixed.clone(), alt: fixed.clone(), fixed }
    }

    /// What slowdowns are relative to by the definition in use.
    pub fn optimal(&self) -> &Optimal {
        &self.chosen
    }

    /// The definition in use, for outputs.
    pub fn text(&self) -> String {
        self.chosen.text()
    }
}

impl Figures {
    /// Of a measurement of `spec`.
    pub fn new(spec: &SimSpec, outcome: &Outcome, baseline: &Baseline) -> Self {
        let service = outcome.digest(|sample| sample.service_ns);
        let due = outcome.digest(|sample| sample.due_ns);
        let all = slowdown::summary(&service, &baseline.chosen);
        let all_due = slowdown::summary(&due, &baseline.chosen);
        let mean = |optimal: &Optimal| slowdown::summary(&service, optimal).map(|all| all.mean);
        let (short, short_due) = (service.short(), due.short());
        let us = |ns: u64| ns as f64 / 1e3;
        let messages: Vec<_> = outcome
            .samples
            .iter()
            .map(|sample| (sample.len, (sample.service_ns as f64 / baseline.chosen.ns(sample.len)) as f32))
            .collect();
        let mut times: Vec<_> = outcome.samples.iter().map(|sample| sample.service_ns).collect();
        times.sort_unstable();
        let time = |num: usize, den: usize| times.get(times.len() * num / den).copied().map(us);
        let switch = outcome.switch.as_ref();
        let (clients, servers) = spec.roles();
        let rates = Rates::new(outcome);
        Self {
            buffer_limit_bytes: switch.map(|_| spec.switch_buffer_bytes),
            buffer_limit_percent: None,
            offered_gbps: spec.gbps.unwrap_or(0.0),
            achieved_gbps: spec.payload_gbps(rates.gbps),
            rpcs: service.samples as u64,
            failed_rpcs: outcome.failed,
            outstanding_rpcs: outcome.outstanding,
            measured_s: outcome.measured_s,
            converged: outcome.converged,
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
            rtt_min_us: time(0, 1),
            rtt_p50_us: time(1, 2),
            rtt_p99_us: time(99, 100),
            rtt_max_us: times.last().copied().map(us),
            client_krps: rates.krps / f64::from(clients),
            client_gbps: rates.gbps / f64::from(clients),
            server_krps: rates.krps / f64::from(servers),
            server_gbps: rates.gbps / f64::from(servers),
            buffer_max_bytes: switch.map(|switch| switch.buffer_max_bytes),
            buffer_max_us: switch.map(|switch| switch.buffer_max_us),
            buffer_max_per_node_bytes: switch.map(|switch| switch.buffer_max_bytes as f64 / f64::from(spec.nodes)),
            port_max_bytes: switch.map(|switch| switch.port_max_bytes),
            port_max_us: switch.map(|switch| switch.port_max_us),
            packets: outcome.packets,
            dropped_packets: outcome.dropped,
            marked_packets: switch.map(|switch| switch.marked_packets),
            resent_percent: outcome.resent_percent,
            samples_hash: samples_hash(&outcome.samples),
        }
    }

    /// A figure by its name; `None` if it is unknown or no number.
    pub fn number(&self, name: &str) -> Option<f64> {
        serde_json::to_value(self).ok()?.get(name)?.as_f64()
    }
}

/// Slowdowns at each tenth of the workload's messages.
pub fn tenths(spec: &SimSpec, outcome: &Outcome, baseline: &Baseline) -> Vec<Tenth> {
    let Ok(lengths) = spec.lengths() else { return Vec::new() };
    let digest = outcome.digest(|sample| sample.service_ns);
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

/// What was completed a second, of all nodes together.
#[derive(Clone, Copy, Debug)]
struct Rates {
    /// Thousands of messages.
    krps: f64,
    /// Bytes of requests, 10^9 bit/s.
    gbps: f64,
}

impl Rates {
    fn new(outcome: &Outcome) -> Self {
        let bytes: f64 = outcome.samples.iter().map(|sample| f64::from(sample.len)).sum();
        let time_s = outcome.measured_s.max(1e-12);
        Self { krps: outcome.samples.len() as f64 / time_s / 1e3, gbps: bytes * 8e-9 / time_s }
    }
}

fn median(messages: &[(u32, f32)]) -> Option<f64> {
    let mut all: Vec<_> = messages.iter().map(|(_, slowdown)| *slowdown).collect();
    let middle = all.len() / 2;
    (!all.is_empty()).then(|| f64::from(*all.select_nth_unstable_by(middle, f32::total_cmp).1))
}

/// Tells whether two measurements are equal in every sample.
fn samples_hash(samples: &[Sample]) -> String {
    let mut hash = Sha256::new();
    for sample in samples {
        hash.update(sample.len.to_le_bytes());
        hash.update(sample.service_ns.to_le_bytes());
        hash.update(sample.due_ns.to_le_bytes());
    }
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use homa_sim::cluster::{ClusterRun, NodeRun};
    use homa_sim::fabric::{PortStats, SwitchStats};
    use homa_sim::time::Time;

    /// A hundred messages of 10, 20 … 1000 bytes that took 1, 2 … 100 us, in 1 ms on two nodes.
    pub(in super::super) fn hundred() -> (SimSpec, Outcome, Baseline) {
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
        (spec.clone(), Outcome::simulated(&spec, run), baseline)
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
        assert_eq!((figures.buffer_max_us, figures.dropped_packets), (Some(10.0), Some(7)));
        assert_eq!((figures.buffer_max_per_node_bytes, figures.resent_percent), (Some(31_250.0), None));
        // 100 messages in 1 ms, of all and of each of two clients.
        assert!((figures.client_krps - 50.0).abs() < 1e-9 && (figures.server_gbps - 0.202).abs() < 1e-9);
        assert_eq!((figures.rtt_min_us, figures.rtt_p99_us, figures.rtt_max_us), (Some(1.0), Some(100.0), Some(100.0)));
        assert_eq!(figures.number("slowdown_mean"), Some(50.5));
        assert_eq!(figures.number("samples_hash"), None);
    }

    #[test]
    fn equal_samples_have_equal_hashes_and_others_not() {
        let (_, run, _) = hundred();
        let mut other = run.clone();
        other.samples[5].due_ns += 1;
        assert_eq!(samples_hash(&run.samples), samples_hash(&run.samples.clone()));
        assert_ne!(samples_hash(&run.samples), samples_hash(&other.samples));
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
            run.samples.push(Sample { len: point.len, service_ns: time, due_ns: time });
        }
        let rows = tenths(&spec, &run, &baseline);
        assert_eq!(rows.len(), 10);
        assert_eq!((rows[9].length_bytes, rows[9].rpcs, rows[9].slowdown_p50), (1_000_000, 1, 10.0));
        assert_eq!(rows[0].length_bytes, 100_000);
    }
}
