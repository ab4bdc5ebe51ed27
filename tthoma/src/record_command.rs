//! `tthoma record`: arguments, signals, what is said of the result.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use tthoma::record::events::Group;
use tthoma::record::{End, Kernel, Options, RecordError, Summary};

/// Exit status: a privilege is missing.
const NO_PRIVILEGE: u8 = 3;
const EXAMPLES: &str = "\
Examples:
  tthoma record --output kernel.tt --duration 2 --interface ens1f1
  tthoma record --output kernel.tt -- cp-node probe client --transport homa --peer 10.77.0.1";
/// Exit status: interrupted.
const INTERRUPTED: u8 = 130;

/// Records SoftIRQs, NAPI polls, received packets and thread switches of this machine's kernel, without patches or modules,
/// on the counter that cp-node's traces use. Needs root or CAP_DAC_OVERRIDE, or an instance that root prepared.
///
/// Exit status: 0 done; 1 the trace is incomplete (memory was full, or the kernel's own counters disagree); 2 wrong usage; 3
/// a privilege is missing; 130 interrupted: what was recorded until then is written.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RecordArgs {
    /// File for the trace, `-` for standard output
    #[arg(short, long, value_name = "FILE", required_unless_present = "clean")]
    output: Option<PathBuf>,

    /// How long to record; until COMMAND ends, if there is one
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,

    /// Kinds of events
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Options::default().events)]
    events: Vec<Group>,

    /// Cores, as in 0,2-5; all if not given
    #[arg(long, value_name = "LIST", value_parser = cores)]
    cores: Option<Cores>,

    /// Only packets of this interface; can be given several times
    #[arg(short, long, value_name = "NAME")]
    interface: Vec<String>,

    /// Wake-ups and switches of threads of this name only, * for any letters; can be given several times
    #[arg(long, value_name = "NAME", default_values_t = Options::default().threads)]
    thread: Vec<String>,

    /// Size of each core's ring in the kernel
    #[arg(long, value_name = "KB", default_value_t = Options::default().ring_kb, value_parser = clap::value_parser!(u32).range(8..=1_048_576))]
    ring_kb: u32,

    /// Most that is kept in memory; recording ends when that is full
    #[arg(long, value_name = "MB", default_value_t = Options::default().memory_mb, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    memory_mb: u32,

    /// Use this instance of tracing, which root made and gave to you, instead of one of our own
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,

    /// Only remove what killed recordings have left in the kernel
    #[arg(long)]
    clean: bool,

    /// Print the account as JSON
    #[arg(long)]
    json: bool,

    /// Record while this command runs
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Cores(Vec<u16>);

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected seconds, as in 2.5".to_string())?;
    Duration::try_from_secs_f64(seconds).ok().filter(|d| !d.is_zero()).ok_or("expected more than 0 seconds".into())
}

fn cores(text: &str) -> Result<Cores, String> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| format!("`{part}` is no core, as 3 or 2-5"));
        all.extend(number(first)?..=number(last)?);
    }
    all.sort_unstable();
    all.dedup();
    Ok(Cores(all))
}

pub(crate) fn run(args: &RecordArgs) -> anyhow::Result<ExitCode> {
    match record(args) {
        Err(error) => match error.downcast_ref::<RecordError>() {
            Some(e @ RecordError::Trace(_)) => {
                eprintln!("tthoma: record: {e}");
                Ok(ExitCode::from(NO_PRIVILEGE))
            }
            Some(e) => {
                eprintln!("tthoma: record: {e}");
                Ok(ExitCode::from(2))
            }
            None => Err(error),
        },
        done => done,
    }
}

fn record(args: &RecordArgs) -> anyhow::Result<ExitCode> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("cannot catch signals")?;
    }
    let kernel = Kernel::open()?;
    let Some(output) = args.output.as_deref().filter(|_| !args.clean) else {
        for name in kernel.clean() {
            println!("removed {name}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let options = Options {
        events: args.events.clone(),
        cores: args.cores.clone().map_or_else(Vec::new, |c| c.0),
        interfaces: args.interface.clone(),
        threads: args.thread.clone(),
        ring_kb: args.ring_kb,
        memory_mb: args.memory_mb,
        instance: args.instance.clone(),
    };
    let mut recording = kernel.start(&options)?;
    let mut command = Running::start(&args.command)?;
    let until = match (args.duration, &command) {
        (None, Some(_)) => None,
        (duration, _) => Some(Instant::now() + duration.unwrap_or(Duration::from_secs(1))),
    };
    let end = recording.run(|| {
        interrupted.load(Ordering::Relaxed)
            || until.is_some_and(|at| Instant::now() >= at)
            || command.as_mut().is_some_and(Running::ended)
    })?;
    let summary = recording.finish(end, output)?;
    report(args, output, &summary)?;
    Ok(match () {
        () if interrupted.load(Ordering::Relaxed) => ExitCode::from(INTERRUPTED),
        () if end == End::MemoryFull || !problems(&summary).is_empty() => ExitCode::from(1),
        () => ExitCode::SUCCESS,
    })
}

/// The command under which the recording runs; ended with it.
struct Running(Child);

impl Running {
    fn start(command: &[OsString]) -> anyhow::Result<Option<Self>> {
        let Some((program, arguments)) = command.split_first() else { return Ok(None) };
        let child = Command::new(program).args(arguments).spawn();
        Ok(Some(Self(child.with_context(|| format!("cannot run {}", program.to_string_lossy()))?)))
    }

    fn ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn report(args: &RecordArgs, output: &Path, summary: &Summary) -> anyhow::Result<()> {
    for problem in problems(summary) {
        eprintln!("tthoma: warning: {problem}");
    }
    let text = if args.json { serde_json::to_string_pretty(summary)? + "\n" } else { table(summary) };
    // The trace itself may go to standard output.
    if output == Path::new("-") {
        eprint!("{text}");
        return Ok(());
    }
    crate::print(&text)
}

/// What makes the trace incomplete, one sentence each.
fn problems(summary: &Summary) -> Vec<String> {
    let mut all = Vec::new();
    if summary.end == End::MemoryFull {
        let mb = summary.options.memory_mb;
        all.push(format!(
            "recording ended early, as {mb} MB were full: give --memory-mb more, or record fewer --events"
        ));
    }
    if summary.lost > 0 {
        let kb = summary.options.ring_kb;
        all.push(format!(
            "{} events were overwritten before they could be read, where the trace says so: \
             give --ring-kb more than {kb}, or record fewer --events",
            summary.lost
        ));
    }
    if summary.lost == 0 && summary.end == End::Done {
        for (core, name, bounds, count) in disagreements(summary) {
            let (least, most) = (bounds.least, bounds.most);
            all.push(format!("core {core}: the kernel counted {count} {name}, the trace has {least} to {most}"));
        }
    }
    all
}

type Disagreement = (u16, &'static str, tthoma::record::counters::Bounds, u64);

fn disagreements(summary: &Summary) -> Vec<Disagreement> {
    let softirqs = summary.options.events.contains(&Group::Softirq);
    let packets = summary.options.events.contains(&Group::Rx) && summary.options.interfaces.is_empty();
    let of_core = |c: &tthoma::record::counters::CoreCheck| {
        [
            (c.core, "NET_RX", c.net_rx, c.counted.net_rx, softirqs),
            (c.core, "NET_TX", c.net_tx, c.counted.net_tx, softirqs),
            (c.core, "packets", c.processed, c.counted.processed, packets),
        ]
    };
    let all = summary.cores.iter().flat_map(of_core);
    all.filter(|(.., bounds, count, recorded)| *recorded && !bounds.agrees(*count))
        .map(|(core, name, bounds, count, _)| (core, name, bounds, count))
        .collect()
}

fn table(summary: &Summary) -> String {
    let mut out = format!(
        "{} events in {:.3} ms, {} lost; clock {} at {:.6} ticks/ns +-{:.3} ppm\n",
        summary.events, summary.span_ms, summary.lost, summary.clock, summary.rate.ticks_per_ns, summary.rate.error_ppm
    );
    if !summary.missing_events.is_empty() {
        let _ = writeln!(out, "not in this kernel: {}", summary.missing_events.join(", "));
    }
    for name in &summary.stale_removed {
        let _ = writeln!(out, "removed {name}, which a killed recording had left");
    }
    let _ = writeln!(
        out,
        "\n{:<5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>8}",
        "Core", "NET_RX", "counted", "NET_TX", "counted", "Packets", "counted", "Dropped", "Squeezed"
    );
    for c in &summary.cores {
        let _ = writeln!(
            out,
            "{:<5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>8}",
            c.core,
            c.net_rx.least,
            c.counted.net_rx,
            c.net_tx.least,
            c.counted.net_tx,
            c.processed.least,
            c.counted.processed,
            c.counted.dropped,
            c.counted.squeezed
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_numbers_and_ranges() {
        assert_eq!(cores("0,2-4,3"), Ok(Cores(vec![0, 2, 3, 4])));
        assert_eq!(cores("7").unwrap().0, [7]);
        assert_eq!(cores("a"), Err("`a` is no core, as 3 or 2-5".into()));
        assert_eq!(cores("3-").unwrap_err(), "`3-` is no core, as 3 or 2-5");
    }

    #[test]
    fn durations_are_more_than_nothing() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(["0", "-1", "x", "1e99"].iter().all(|text| seconds(text).is_err()));
    }
}
