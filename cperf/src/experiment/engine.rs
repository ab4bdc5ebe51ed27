//! Measuring the points of a plan that have no result yet, with the threads of this process.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plan::{Plan, Point, describe};
use super::point::{self, Baselines};
use super::write;
use crate::error::Stop;
use crate::run::side_by_side;
use crate::signals::Interrupt;

/// Directory of a point.
pub fn dir(out: &Path, id: &str) -> PathBuf {
    out.join("points").join(id)
}

/// Points of `plan` without a result in `out`, each once.
pub fn missing<'a>(plan: &'a Plan, out: &Path) -> Vec<&'a Point> {
    let mut seen = std::collections::BTreeSet::new();
    let open = |point: &&'a Point| seen.insert(&point.id) && point::load(&dir(out, &point.id), &point.id).is_none();
    plan.points.iter().filter(open).collect()
}

/// Writes each point's specification to its directory.
///
/// # Errors
/// It cannot be written.
pub fn prepare(points: &[&Point], out: &Path) -> anyhow::Result<()> {
    points
        .iter()
        .try_for_each(|point| write(&dir(out, &point.id).join("spec.json"), &serde_json::to_vec_pretty(&point.spec)?))
}

/// Measures `points`, `threads` at a time. A point that fails does not keep others from being measured.
///
/// # Errors
/// [`Stop::Interrupted`], or that of the first point that failed, with the number of all.
pub fn local(points: &[&Point], out: &Path, threads: usize, interrupt: &Interrupt) -> anyhow::Result<()> {
    let (bar, baselines, begun) = (bar(points.len()), Baselines::default(), Instant::now());
    let failed = AtomicBool::new(false);
    let measured = side_by_side(threads, points, |point| {
        let mut watch = |_| if interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let result = point::measure(&point.spec, &dir(out, &point.id), None, &baselines, &mut watch);
        bar.inc(1);
        match result {
            // So would all others.
            Err(err) if matches!(err.downcast_ref::<Stop>(), Some(Stop::Interrupted | Stop::Missing(_))) => Err(err),
            Err(err) => {
                failed.store(true, Ordering::Relaxed);
                bar.suspend(|| eprintln!("cperf: {}, seed {}: {err:#}", describe(&point.varied), point.spec.sim.seed));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    });
    bar.finish_and_clear();
    measured?;
    if failed.load(Ordering::Relaxed) {
        anyhow::bail!(
            "points failed (see above); those that did not are kept, `cperf run` again tries the others again"
        );
    }
    eprintln!("cperf: {} points in {:.1} s", points.len(), begun.elapsed().as_secs_f64());
    Ok(())
}

fn bar(points: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(points as u64), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("points [{bar:40}] {pos} of {len}, {eta} left")
        .expect("a template without errors");
    bar.set_style(style.progress_chars("=> "));
    bar
}
