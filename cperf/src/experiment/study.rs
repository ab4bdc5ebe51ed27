//! Points of the SIGCOMM 2018 study: what can be chosen, measuring one, and its result, length by length.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use homa_sim::sigcomm18::{LOADS, Study, WORKLOADS, run_watched};
use homa_sim::time::Time;

use crate::cli::Protocol;
use crate::error::Stop;
use crate::sim::cluster::Watch;
use crate::sim::spec::{HostKind, SimSpec, TopologyKind};

/// What slowdowns are relative to, for outputs.
pub const SLOWDOWN: &str = "sigcomm18: time from a message's begin to its last byte at the receiver's application, relative \
                            to what an empty network takes by the study's formula";
/// Parameters that can be chosen; the study fixes the others.
const FREE: [&str; 5] = ["workload", "load", "seed", "warmup_s", "measure_s"];
/// Longest warm-up and measured interval, seconds of virtual time.
const LONGEST_S: f64 = 100.0;

/// What came of a point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StudyResult {
    /// Messages that counted and arrived.
    pub messages: u64,
    /// Messages that counted and had not arrived when the run ended, four measured intervals after the last began.
    pub unfinished: u64,
    /// Packets delivered to hosts, warm-up included.
    pub packets: u64,
    /// Share of the time that links to hosts were busy in the measured interval.
    pub busy_percent: f64,
    /// The published curve's bins, by length.
    pub bins: Vec<Bin>,
}

/// Messages of up to one length, and longer than those of the bin before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// The longest.
    pub length_bytes: u32,
    /// Share of the published messages.
    pub percent: f64,
    /// Ours that counted.
    pub messages: u64,
    /// Messages that the figures are of: bins of few are taken together with those below.
    #[serde(default)]
    pub pooled: u64,
    /// Median slowdown of ours, if there were any.
    pub slowdown_p50: Option<f64>,
    /// 99th percentile.
    pub slowdown_p99: Option<f64>,
    /// Published median.
    pub published_p50: f64,
    /// Published 99th percentile.
    pub published_p99: f64,
}

/// `sim` with everything that the study fixes.
///
/// # Errors
/// A parameter that it fixes has another value, or one that can be chosen is none of the study's.
pub fn resolved(sim: &SimSpec) -> Result<SimSpec, String> {
    let fixed = SimSpec {
        protocol: Protocol::Homa,
        workload: sim.workload.clone(),
        max_message_bytes: 32 << 20,
        min_fraction: 0.0,
        nodes: 144,
        load: Some(sim.load.unwrap_or(LOADS[0])),
        one_way: true,
        seed: sim.seed,
        warmup_s: sim.warmup_s,
        measure_s: sim.measure_s,
        topology: TopologyKind::LeafSpine,
        racks: 9,
        spines: 4,
        spine_gbps: 40.0,
        link_gbps: 10.0,
        mtu_bytes: 1500,
        host_model: HostKind::Ideal,
        ..SimSpec::default()
    };
    let object = |sim: &SimSpec| serde_json::to_value(sim).unwrap_or_default();
    let (given, default, want) = (object(sim), object(&SimSpec::default()), object(&fixed));
    for (name, value) in given.as_object().into_iter().flatten() {
        let differs = |other: &Value| *value != other[name.as_str()];
        if !FREE.contains(&name.as_str()) && differs(&default) && differs(&want) {
            let (value, free) = (super::plan::text(value), FREE.join(", "));
            return Err(format!("{name} is {value}: the study fixes it; {free} can be chosen"));
        }
    }
    if !WORKLOADS.contains(&sim.workload.as_str()) {
        return Err(format!("workload is {}: the study has {}", sim.workload, WORKLOADS.join(", ")));
    }
    if let Some(load) = sim.load.filter(|load| !LOADS.contains(load)) {
        return Err(format!(
            "load is {load}: the study was published for {}",
            LOADS.map(|load| load.to_string()).join(", ")
        ));
    }
    for (name, value, least) in [("warmup_s", sim.warmup_s, 0.0), ("measure_s", sim.measure_s, 1e-6)] {
        if !(least..=LONGEST_S).contains(&value) {
            return Err(format!("{name} is {value}: from {least} to {LONGEST_S} is possible"));
        }
    }
    Ok(fixed)
}

/// Runs the study as `sim` says.
///
/// # Errors
/// [`Stop::Usage`] for what it cannot be, [`Stop::Interrupted`] if `watch` ends it.
pub fn measure(sim: &SimSpec, watch: &mut Watch<'_>) -> Result<StudyResult, Stop> {
    let sim = resolved(sim).map_err(Stop::Usage)?;
    let workload = WORKLOADS.into_iter().find(|name| *name == sim.workload).unwrap_or(WORKLOADS[0]);
    let time = |seconds: f64| Time::from_picos((seconds * 1e12).round() as u64);
    let study = Study {
        load: sim.load.unwrap_or(LOADS[0]),
        workload,
        urgent_tails: false,
        seed: sim.seed,
        warmup: time(sim.warmup_s),
        measure: time(sim.measure_s),
    };
    let outcomes = run_watched(&study, watch).ok_or(Stop::Interrupted)?;
    let number = |value: f64| value.is_finite().then_some(value);
    let bins = outcomes.bins.iter().map(|bin| Bin {
        length_bytes: bin.published.len,
        percent: 100.0 * bin.published.fraction,
        messages: bin.count as u64,
        pooled: bin.pooled as u64,
        slowdown_p50: number(bin.p50),
        slowdown_p99: number(bin.p99),
        published_p50: bin.published.p50,
        published_p99: bin.published.p99,
    });
    Ok(StudyResult {
        messages: outcomes.bins.iter().map(|bin| bin.count as u64).sum(),
        unfinished: outcomes.unfinished as u64,
        packets: outcomes.packets,
        busy_percent: 100.0 * outcomes.busy,
        bins: bins.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;

    fn tiny() -> SimSpec {
        let default = SimSpec::default();
        SimSpec { workload: "w1".into(), load: Some(0.5), warmup_s: 2e-6, measure_s: 1e-5, ..default }
    }

    #[test]
    fn a_point_has_a_bin_for_each_published_one() {
        let result = measure(&tiny(), &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((result.bins.len(), result.unfinished), (83, 0));
        assert!(result.messages > 100 && result.busy_percent > 10.0, "{result:?}");
        assert!(result.bins[1].slowdown_p99 >= result.bins[1].slowdown_p50, "{:?}", result.bins[1]);
        assert!((result.bins.iter().map(|bin| bin.percent).sum::<f64>() - 100.0).abs() < 0.01);
        let back: StudyResult = serde_json::from_str(&serde_json::to_string(&result).unwrap()).unwrap();
        assert_eq!(back, result, "bins without messages too");
        let stopped = measure(&tiny(), &mut |_| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(Stop::Interrupted)));
    }

    #[test]
    fn what_the_study_fixes_cannot_be_set() {
        let sim = resolved(&tiny()).unwrap();
        assert_eq!((sim.nodes, sim.link_gbps, sim.load), (144, 10.0, Some(0.5)));
        assert_eq!(resolved(&sim).unwrap(), sim, "nothing more to fill in");
        for (name, value, part) in [
            ("nodes", Value::from(40), "nodes is 40: the study fixes it; workload, load"),
            ("homa.window", 0.into(), "the study fixes it"),
            ("workload", "starve".into(), "the study has w1, w2"),
            ("load", 0.6.into(), "load is 0.6: the study was published for 0.8, 0.5"),
            ("measure_s", 0.into(), "measure_s is 0"),
        ] {
            let error = resolved(&tiny().with(name, &value).unwrap()).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
