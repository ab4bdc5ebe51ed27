//! A run on simulated nodes: the same steps and files as on others, several protocols at once.

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use homa_sim::cluster::TraceSpec;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::nodefiles;
use super::{Part, SUBDIRECTORIES, conclude, make_out, options};
use crate::cli::{Protocol, RunArgs};
use crate::error::Stop;
use crate::journal::Journal;
use crate::manifest::{About, Manifest};
use crate::outdir::OutDir;
use crate::rates;
use crate::report::results::Status;
use crate::signals::Interrupt;
use crate::sim::cluster::{self, SimError};
use crate::sim::model;
use crate::sim::spec::SimSpec;
use crate::sim::switch::Switch;

/// Events of a node's time trace, at most.
const TRACE_EVENTS: usize = 1 << 16;
/// Virtual time that all nodes' traces together cover, and the most that one covers, seconds: what a reader and a disk
/// can take.
const TRACES_S: f64 = 0.02;
const TRACE_S: f64 = 0.002;

/// What one thread does at a time.
enum Task {
    /// Round-trip times without load.
    Unloaded,
    /// A protocol under load, by its place in the options.
    Protocol(usize, Protocol),
}

/// What all threads share.
struct Setting<'a> {
    options: &'a RunArgs,
    specs: Vec<SimSpec>,
    out: &'a OutDir,
    interrupt: &'a Interrupt,
    bars: MultiProgress,
    journal: Mutex<&'a mut Journal>,
    switches: Mutex<Vec<Option<Switch>>>,
}

/// Runs what the options say on simulated nodes.
///
/// # Errors
/// As [`super::run`].
pub(super) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let (mut options, specs) = options::simulated(args)?;
    let out = make_out(&mut options, &SUBDIRECTORIES)?;
    let interrupt = Interrupt::install()?;
    interrupt.watch();
    let begun = Instant::now();
    let mut manifest = Manifest::simulated(settings(&options, &specs)?, options.seed, facts(&specs), specs[0].nodes);
    let mut about = About::now(std::env::args().collect());
    out.write("manifest.json", &manifest.text())?;
    let mut journal = Journal::create(&out.path().join("cperf.log"))?;
    journal.say(&announce(&options, &specs[0]));
    let mut tasks: Vec<_> =
        options.protocols.iter().copied().enumerate().map(|(at, p)| Task::Protocol(at, p)).collect();
    if options.slowdown.needs_unloaded() {
        tasks.insert(0, Task::Unloaded);
    }
    let threads = options.threads.unwrap_or_else(rates::cores).clamp(1, tasks.len());
    let setting = Setting {
        options: &options,
        switches: Mutex::new(vec![None; specs.len()]),
        specs,
        out: &out,
        interrupt: &interrupt,
        bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
        journal: Mutex::new(&mut journal),
    };
    let outcome = side_by_side(threads, &tasks, |task| setting.perform(task));
    let switches = setting.switches.into_inner().expect("no thread has panicked: its panic would have been passed on");
    let part = |(protocol, switch): (&Protocol, Option<Switch>)| {
        Some(Part { protocol: *protocol, status: Status::Complete, ports: Vec::new(), switch: Some(switch?) })
    };
    let parts: Vec<_> = options.protocols.iter().zip(switches).filter_map(part).collect();
    about.close(threads, begun.elapsed());
    journal.note(&format!("simulated in {:.1} s, {} threads", begun.elapsed().as_secs_f64(), threads));
    out.write("about.json", &about.text())?;
    conclude::conclude(&options, &mut manifest, &out, &mut journal, &parts, outcome)
}

/// Performs all tasks, `threads` at a time, in order. After one has failed no more are begun; of several errors that of
/// the earliest task is returned, so that it does not depend on the number of threads.
pub(crate) fn side_by_side<T: Sync>(
    threads: usize,
    tasks: &[T],
    perform: impl Fn(&T) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let work = || loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(task) = tasks.get(index) else { break };
        if let Err(err) = perform(task) {
            next.store(tasks.len(), Ordering::Relaxed);
            failures.lock().expect("pushing does not panic").push((index, err));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let failures = failures.into_inner().expect("pushing does not panic");
    failures.into_iter().min_by_key(|(index, _)| *index).map_or(Ok(()), |(_, err)| Err(err))
}

impl Setting<'_> {
    fn perform(&self, task: &Task) -> anyhow::Result<()> {
        match *task {
            Task::Unloaded => self.unloaded(),
            Task::Protocol(at, protocol) => self.protocol(at, protocol),
        }
    }

    fn unloaded(&self) -> anyhow::Result<()> {
        let bar = self.bar("unloaded");
        let samples = self.options.unloaded_samples;
        let times = cluster::unloaded(&self.specs[0], samples, &mut |share| self.watch(&bar, share));
        bar.finish_and_clear();
        nodefiles::unloaded(self.out, self.options, &times.map_err(stop)?)
    }

    fn protocol(&self, at: usize, protocol: Protocol) -> anyhow::Result<()> {
        let (name, spec) = (protocol.name(), &self.specs[at]);
        let bar = self.bar(name);
        let window = TRACE_S.min(TRACES_S / f64::from(spec.nodes)).min(spec.measure_s);
        let trace = TraceSpec { window: cluster::time(window), events: TRACE_EVENTS };
        let begun = Instant::now();
        let run = cluster::measure(spec, Some(trace), &mut |share| self.watch(&bar, share));
        bar.finish_and_clear();
        let run = run.map_err(stop)?;
        let (packets, seconds) = (run.packets, begun.elapsed().as_secs_f64());
        let rate = packets as f64 / seconds / 1e6;
        let text = format!(
            "{name}: {:.0} ms of virtual time, {packets} packets delivered in {seconds:.1} s, {rate:.2} million a second",
            run.measured.as_secs_f64() * 1e3
        );
        self.bars.suspend(|| self.journal.lock().expect("logging does not panic").say(&text));
        nodefiles::write(self.out, self.options, protocol, spec, &run)?;
        let mut switches = self.switches.lock().expect("storing does not panic");
        switches[at] = Some(Switch::new(&run, spec));
        Ok(())
    }

    fn watch(&self, bar: &ProgressBar, share: f64) -> ControlFlow<()> {
        bar.set_position((share * 1000.0) as u64);
        if self.interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn bar(&self, name: &str) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new(1000));
        let style =
            ProgressStyle::with_template("{prefix:>8} [{bar:40}] {percent} %").expect("a template without errors");
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(name.to_owned());
        bar
    }
}

/// Why a simulation has no result, as an exit code.
pub(crate) fn stop(err: SimError) -> anyhow::Error {
    match err {
        SimError::Stopped => Stop::Interrupted.into(),
        SimError::Spec(text) => Stop::Usage(text).into(),
    }
}

/// Options for the manifest, without those that do not change the results.
fn settings(options: &RunArgs, specs: &[SimSpec]) -> anyhow::Result<Value> {
    let mut settings = serde_json::to_value(options)?;
    for key in ["out", "threads"] {
        settings[key] = Value::Null;
    }
    settings["format"] = json!("table");
    settings["simulated"] = serde_json::to_value(specs)?;
    Ok(settings)
}

fn facts(specs: &[SimSpec]) -> Value {
    model::facts(&specs[0])
}

/// What is about to happen, in one line.
fn announce(options: &RunArgs, spec: &SimSpec) -> String {
    let protocols: Vec<_> = options.protocols.iter().map(|protocol| protocol.name()).collect();
    let out = options.out.as_deref().unwrap_or_else(|| std::path::Path::new("."));
    format!(
        "{} on {} simulated nodes, {}: {} Gbps per node and direction on links of {} Gbps, {} s each, MTU {}; files in {}",
        options.workload,
        options.nodes,
        protocols.join(", "),
        spec.gbps.unwrap_or(0.0),
        spec.link_gbps,
        options.seconds,
        spec.mtu_bytes,
        out.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once_and_the_first_failure_is_told() {
        let done = Mutex::new(Vec::new());
        let tasks: Vec<usize> = (0..50).collect();
        let all = side_by_side(4, &tasks, |task| {
            done.lock().unwrap().push(*task);
            Ok(())
        });
        assert!(all.is_ok());
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, tasks);
        let failed = side_by_side(1, &tasks, |task| if *task < 3 { Ok(()) } else { Err(anyhow::anyhow!("{task}")) });
        assert_eq!(failed.unwrap_err().to_string(), "3", "none was begun after it");
    }
}
