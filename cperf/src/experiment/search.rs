//! What is done at a point, with any way to measure: one measurement, steps of less and less switch memory, or a search
//! for the least. Source: cperf.md 3.12.
//!
//! All measurements of a point have the same seed, so the same messages come at the same times and a ratio of two of
//! them does not hold the load's randomness; how far results of other seeds differ is the interval over seeds.

use serde::{Deserialize, Serialize};

use super::figures::Figures;
use super::file::{Measure, Search, Steps};
use super::plan::PointSpec;
use crate::sim::spec::SimSpec;

/// Why a measurement was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// As the point says.
    Base,
    /// A step of less memory.
    Step,
    /// A step of a search.
    Probe,
}

impl Role {
    /// As in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Step => "step",
            Self::Probe => "probe",
        }
    }
}

/// A measurement of a point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Why it was made.
    pub role: Role,
    /// What came of it.
    pub figures: Figures,
}

/// What a search has found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Least {
    /// Middle of the last bracket; 0 if hardly any memory was used.
    pub bytes: f64,
    /// The same as time on all links to hosts together.
    pub us: f64,
}

/// Makes the measurements of a point.
///
/// # Errors
/// Those of `measure`, and a metric that has no value.
pub fn perform(
    spec: &PointSpec,
    measure: &mut dyn FnMut(&SimSpec) -> anyhow::Result<Figures>,
) -> anyhow::Result<(Vec<Measurement>, Option<Least>)> {
    let base = Measurement { role: Role::Base, figures: measure(&spec.sim)? };
    let mut point = Course { spec, measure, all: vec![base] };
    let least = match spec.measure {
        Measure::Run | Measure::Sigcomm18 => None,
        Measure::BufferSteps => {
            point.steps(&spec.steps)?;
            None
        }
        Measure::BufferSearch => Some(point.search(spec.search)?),
    };
    Ok((point.all, least))
}

struct Course<'a> {
    spec: &'a PointSpec,
    measure: &'a mut dyn FnMut(&SimSpec) -> anyhow::Result<Figures>,
    all: Vec<Measurement>,
}

impl Course<'_> {
    /// Less and less memory, until the metric is hopeless.
    fn steps(&mut self, steps: &Steps) -> anyhow::Result<()> {
        let (base, used) = (self.base()?, self.used());
        for percent in &steps.percent {
            let metric = self.limited(Role::Step, used * percent / 100.0)?;
            if metric > steps.stop_at * base {
                break;
            }
        }
        Ok(())
    }

    fn search(&mut self, search: Search) -> anyhow::Result<Least> {
        let (base, used) = (self.base()?, self.used());
        let used_us = self.all[0].figures.buffer_max_us.unwrap_or(0.0);
        if used_us < search.least_us {
            return Ok(Least { bytes: 0.0, us: 0.0 });
        }
        let us_a_byte = used_us / used;
        let (mut low, mut high) = (0.0, used);
        // A frame has to fit; below a tenth of what counts as none there is nothing to tell apart.
        let floor = (search.least_us / us_a_byte / 10.0).max(f64::from(self.spec.sim.mtu_bytes) + 100.0);
        while high - low > search.bracket * high && high > floor {
            let middle = f64::midpoint(low, high);
            if middle <= floor || self.limited(Role::Probe, middle)? > search.limit * base {
                low = middle;
            } else {
                high = middle;
            }
        }
        let bytes = f64::midpoint(low, high);
        Ok(Least { bytes, us: bytes * us_a_byte })
    }

    /// The metric with this much memory.
    fn limited(&mut self, role: Role, bytes: f64) -> anyhow::Result<f64> {
        let sim = SimSpec { switch_buffer_bytes: bytes.round() as u64, ..self.spec.sim.clone() };
        let mut figures = (self.measure)(&sim)?;
        figures.buffer_limit_percent = Some(100.0 * bytes / self.used());
        self.all.push(Measurement { role, figures });
        // Nothing was completed: as bad as can be.
        Ok(self.metric(self.all.len() - 1).unwrap_or(f64::INFINITY))
    }

    fn base(&self) -> anyhow::Result<f64> {
        self.metric(0).ok_or_else(|| {
            anyhow::anyhow!(
                "{} has no value without a limit: no message was completed; measure longer",
                self.spec.metric
            )
        })
    }

    fn metric(&self, index: usize) -> Option<f64> {
        self.all[index].figures.number(&self.spec.metric)
    }

    fn used(&self) -> f64 {
        self.all[0].figures.buffer_max_bytes.unwrap_or(0) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::file::File;
    use crate::experiment::plan::Plan;

    fn point(measure: &str) -> PointSpec {
        let text = format!("name = 'x'\ntitle = 'x'\nseeds = [1]\nmeasure = '{measure}'");
        Plan::new(File::parse(&text).unwrap(), &[]).unwrap().points[0].spec.clone()
    }

    /// A cluster that uses a million bytes, 32 us, and is worse the less of the first `need` it has.
    fn cluster(need: f64) -> impl FnMut(&SimSpec) -> anyhow::Result<Figures> {
        move |sim| {
            let slowdown = (need / sim.switch_buffer_bytes as f64).max(1.0) * 2.0;
            Ok(Figures {
                buffer_limit_bytes: Some(sim.switch_buffer_bytes),
                buffer_max_bytes: Some(1_000_000.min(sim.switch_buffer_bytes)),
                buffer_max_us: Some(32.0),
                slowdown_mean: Some(slowdown),
                ..Figures::default()
            })
        }
    }

    #[test]
    fn a_search_ends_at_the_memory_below_which_the_metric_is_a_tenth_worse() {
        for need in [990_000.0, 330_000.0, 110_000.0] {
            let (all, least) = perform(&point("buffer-search"), &mut cluster(need)).unwrap();
            let (least, want) = (least.unwrap(), need / 1.1);
            assert!((least.bytes / want - 1.0).abs() < 0.06, "{} for {want}", least.bytes);
            assert!((least.us - least.bytes * 32e-6).abs() < 1e-9);
            assert_eq!(all[0].role, Role::Base);
            assert!(all.len() < 12 && all[1..].iter().all(|one| one.role == Role::Probe));
        }
    }

    #[test]
    fn a_cluster_that_needs_nothing_ends_the_search_near_nothing() {
        let (_, least) = perform(&point("buffer-search"), &mut cluster(0.0)).unwrap();
        assert!(least.unwrap().bytes < 20_000.0);
    }

    #[test]
    fn hardly_any_use_needs_no_search() {
        let mut measured = 0;
        let mut little = |_: &SimSpec| {
            measured += 1;
            Ok(Figures { buffer_max_us: Some(4.9), slowdown_mean: Some(1.0), ..Figures::default() })
        };
        let (_, least) = perform(&point("buffer-search"), &mut little).unwrap();
        assert_eq!((least, measured), (Some(Least { bytes: 0.0, us: 0.0 }), 1));
    }

    #[test]
    fn steps_are_of_what_was_used_and_stop_when_it_is_hopeless() {
        let (all, least) = perform(&point("buffer-steps"), &mut cluster(3_000_000.0)).unwrap();
        let percents: Vec<_> = all[1..].iter().filter_map(|one| one.figures.buffer_limit_percent).collect();
        // Base 2.0 with 13.2 MB; 3 MB / x > 5 first at 50 %.
        assert_eq!(percents, [90.0, 80.0, 70.0, 60.0, 50.0]);
        assert_eq!(all[1].figures.buffer_limit_bytes, Some(900_000));
        assert_eq!(least, None);
        let (all, _) = perform(&point("buffer-steps"), &mut cluster(0.0)).unwrap();
        assert_eq!(all.len(), 12, "all steps");
    }

    #[test]
    fn a_base_without_messages_is_an_error_and_a_step_without_is_as_bad_as_can_be() {
        let mut none = |_: &SimSpec| Ok(Figures { buffer_max_us: Some(100.0), ..Figures::default() });
        let error = perform(&point("buffer-search"), &mut none).unwrap_err().to_string();
        assert!(error.contains("slowdown_mean has no value"), "{error}");
        let mut only_base = |sim: &SimSpec| {
            let slowdown_mean = (sim.switch_buffer_bytes > 1_000_000).then_some(1.0);
            Ok(Figures { buffer_max_bytes: Some(1_000_000), slowdown_mean, ..Figures::default() })
        };
        let (all, _) = perform(&point("buffer-steps"), &mut only_base).unwrap();
        assert_eq!(all.len(), 2);
    }
}
