//! Measuring a point, and what is kept of it: its result, and of searches each measurement, so that nothing is measured
//! twice, not after an interruption either.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::figures::{Baseline, Figures, Tenth, tenths};
use super::file::Measure;
use super::lengths::Curves;
use super::outcome::Outcome;
use super::plan::{PointSpec, VERSION, hash};
use super::real::{self, Real};
use super::search::{self, Least, Measurement, Role};
use super::study::{self, StudyResult};
use super::{testbeds, write};
use crate::cli::TestbedKind;
use crate::error::Stop;
use crate::run::stop;
use crate::sim::cluster::{self, Unloaded, Watch};
use crate::sim::spec::SimSpec;

/// Round-trip times without load of each length.
const UNLOADED_SAMPLES: u32 = 25;

/// What came of a point: `result.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PointResult {
    /// [`VERSION`].
    pub version: u32,
    /// Identity of the point.
    pub id: String,
    /// Slowdown, in words.
    pub slowdown: String,
    /// In the order in which they were made; the first is that of the point itself.
    pub measurements: Vec<Measurement>,
    /// Of a search.
    pub least: Option<Least>,
    /// Of the first measurement.
    pub tenths: Vec<Tenth>,
    /// Of the first measurement: what plots by length are made of.
    #[serde(default)]
    pub curves: Curves,
    /// Of a point of the SIGCOMM 2018 study, which has no other measurements.
    #[serde(default)]
    pub study: Option<StudyResult>,
}

/// One measurement on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    sim: SimSpec,
    figures: Figures,
    tenths: Vec<Tenth>,
    curves: Curves,
}

/// Times without load that were measured in this process, by what they depend on.
#[derive(Debug, Default)]
pub struct Baselines {
    all: Mutex<HashMap<String, Slot>>,
}

type Slot = Arc<Mutex<Option<Arc<Unloaded>>>>;

impl Baselines {
    /// Those for `sim`: measured now, unless they are known or another thread is about to know them.
    fn get(&self, sim: &SimSpec, watch: &mut Watch<'_>) -> anyhow::Result<Arc<Unloaded>> {
        let key = cluster::baseline(sim).canonical();
        let slot = Arc::clone(self.all.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = slot.as_ref() {
            return Ok(Arc::clone(known));
        }
        let times = Arc::new(cluster::unloaded(sim, UNLOADED_SAMPLES, watch).map_err(stop)?);
        *slot = Some(Arc::clone(&times));
        Ok(times)
    }
}

/// The result of point `id` in `dir`, if it was measured; a damaged file counts as none.
pub fn load(dir: &Path, id: &str) -> Option<PointResult> {
    let result: PointResult = serde_json::from_slice(&fs::read(dir.join("result.json")).ok()?).ok()?;
    (result.version == VERSION && result.id == id).then_some(result)
}

/// Measures a point, unless its directory `dir` has the result. `watch` is told how far the measurement under way is.
/// `cluster`: the machines, for points on them.
///
/// # Errors
/// [`Stop::Usage`] for what cannot be measured, [`Stop::Interrupted`], or files that cannot be written.
pub fn measure(
    spec: &PointSpec,
    dir: &Path,
    cluster: Option<&Path>,
    baselines: &Baselines,
    watch: &mut Watch<'_>,
) -> anyhow::Result<()> {
    let version = testbeds::version(spec.testbed);
    if spec.version != VERSION || spec.simulator != version {
        let text = format!(
            "this point is for simulator {} (format {}), this is {version} (format {VERSION}): plan anew with `cperf run`",
            spec.simulator, spec.version
        );
        return Err(Stop::Usage(text).into());
    }
    let id = spec.id();
    if load(dir, &id).is_some() {
        return Ok(());
    }
    if spec.measure == Measure::Sigcomm18 {
        let study = Some(study::measure(&spec.sim, watch)?);
        let (slowdown, version) = (study::SLOWDOWN.to_owned(), VERSION);
        let result = PointResult { version, id, slowdown, study, ..PointResult::default() };
        return write(&dir.join("result.json"), &serde_json::to_vec_pretty(&result)?);
    }
    fs::create_dir_all(dir.join("runs")).with_context(|| format!("creating {}", dir.display()))?;
    if spec.testbed != TestbedKind::Sim {
        let real = real::measure(spec, cluster, &dir.join("runs").join("run"), watch)?;
        return keep_real(spec, id, dir, &real);
    }
    let times = baselines.get(&spec.sim, watch)?;
    let baseline = Baseline::new(spec.slowdown, &times, spec.sim.link_gbps).context("no time without load")?;
    let mut first = None;
    let mut one = |sim: &SimSpec| {
        let kept = measurement(sim, spec, dir, &baseline, watch)?;
        first.get_or_insert((kept.tenths, kept.curves));
        Ok(kept.figures)
    };
    let (measurements, least) = search::perform(spec, &mut one)?;
    let slowdown = baseline.text();
    let (tenths, curves) = first.unwrap_or_default();
    let result = PointResult { version: VERSION, id, slowdown, measurements, least, tenths, curves, study: None };
    write(&dir.join("result.json"), &serde_json::to_vec_pretty(&result)?)
}

/// The result of a point whose nodes are not simulated.
fn keep_real(spec: &PointSpec, id: String, dir: &Path, real: &Real) -> anyhow::Result<()> {
    let fixed = || Baseline::without_times(real.link_gbps);
    let baseline = Baseline::new(spec.slowdown, &real.unloaded, real.link_gbps).unwrap_or_else(fixed);
    // Machines are as many as the cluster has.
    let sim = SimSpec { nodes: real.nodes, ..spec.sim.clone() };
    let figures = Figures::new(&sim, &real.outcome, &baseline);
    let result = PointResult {
        version: VERSION,
        id,
        slowdown: baseline.text(),
        measurements: vec![Measurement { role: Role::Base, figures }],
        tenths: tenths(&sim, &real.outcome, &baseline),
        curves: Curves::new(&real.outcome, baseline.optimal()),
        ..PointResult::default()
    };
    write(&dir.join("result.json"), &serde_json::to_vec_pretty(&result)?)
}

/// One measurement, from disk if it is there.
fn measurement(
    sim: &SimSpec,
    spec: &PointSpec,
    dir: &Path,
    baseline: &Baseline,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Kept> {
    let file = dir.join("runs").join(hash(&format!("{} {:?}", sim.canonical(), spec.slowdown)) + ".json");
    let known = fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
    if let Some(known) = known.filter(|known| known.sim == *sim) {
        return Ok(known);
    }
    let outcome = Outcome::simulated(sim, cluster::measure(sim, None, watch).map_err(stop)?);
    let kept = Kept {
        sim: sim.clone(),
        figures: Figures::new(sim, &outcome, baseline),
        tenths: tenths(sim, &outcome, baseline),
        curves: Curves::new(&outcome, baseline.optimal()),
    };
    write(&file, &serde_json::to_vec_pretty(&kept)?)?;
    Ok(kept)
}
