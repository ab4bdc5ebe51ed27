//! What reading and analysing cost a line, for traces of ten thousand lines and a thousand times as many.
//!
//! `cargo bench -p tthoma --bench scale` makes traces by repeating those in `traces/kernel_500k`, shifted in time with ids kept
//! apart, reads them from the page cache and prints for each size lines, bytes, seconds, seconds of all cores' time, MB for each
//! of these, ns and bytes of memory a line (the process's peak less what it was before, so sizes go up). `-- LINES COPIES
//! PATH...` (default 10000000 1, the sample) sets the largest size, which may be 100000000 where 12 GB of disk and 10 GB of memory are free, how many copies of
//! the nodes there are side by side, and the traces to repeat.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tthoma::analyze::{self, Options};
use tthoma::model::Model;
use tthoma::testing::Repeat;

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let number = |at: usize| arguments.get(at).and_then(|a| a.parse::<u64>().ok());
    let (most, copies) = (number(0).unwrap_or(10_000_000), number(1).unwrap_or(1) as u32);
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/kernel_500k");
    let mut paths: Vec<PathBuf> = arguments.iter().skip(2).map(PathBuf::from).collect();
    if paths.is_empty() {
        paths.push(sample);
    }
    let sources = tthoma::read::files(&paths).expect("the traces to repeat are there");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{} nodes, {cores} cores; read: events to packets; delay: the same and the analysis of that name",
        sources.len() * copies as usize
    );
    println!("     lines        bytes   read s  core s  MB/core s  ns/line  B/line  delay s  core s  ns/line");
    println!("                                               (core)                          (core)");
    let dir = std::env::temp_dir().join(format!("tthoma-scale-{}", std::process::id()));
    let mut lines = 10_000;
    while lines <= most {
        let files = Repeat { lines, copies }.write(&sources, &dir).expect("the temporary directory is writable");
        let bytes: u64 = files.iter().map(|f| fs::metadata(f).expect("was just written").len()).sum();
        let rounds = if lines <= 1_000_000 { 5 } else { 2 };
        let before = resident("VmRSS:");
        let (read, core, count) = best(rounds, || {
            let model = Model::read(&files, &Options::default()).expect("the traces are good");
            model.stats().map(|s| s.lines).sum()
        });
        let memory = resident("VmHWM:").saturating_sub(before);
        let (delay, delay_core, _) = best(rounds, || {
            let run = analyze::run(&["delay"], &files, &Options::default()).expect("the traces are good");
            u64::from(run.has_results())
        });
        let each = |seconds: f64| seconds * 1e9 / count as f64;
        println!(
            "{count:>10} {bytes:>12} {read:>8.3} {core:>7.3} {:>10.0} {:>8.1} {:>7.1} {delay:>8.3} {delay_core:>7.3} {:>8.1}",
            bytes as f64 / core / 1e6,
            each(core),
            memory as f64 / count as f64,
            each(delay_core)
        );
        fs::remove_dir_all(&dir).expect("was just created");
        lines *= 10;
    }
}

/// The least seconds of `rounds` runs, those of all cores' time, and what the last one returned.
fn best(rounds: usize, mut work: impl FnMut() -> u64) -> (f64, f64, u64) {
    let (mut least, mut least_core) = (f64::INFINITY, f64::INFINITY);
    let mut result = 0;
    for _ in 0..rounds {
        let (start, core) = (Instant::now(), core_seconds());
        result = std::hint::black_box(work());
        least = least.min(start.elapsed().as_secs_f64());
        least_core = least_core.min(core_seconds() - core);
    }
    (least, least_core, result)
}

/// Seconds that this process has had of all cores: what others run beside it does not change them much.
fn core_seconds() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// A figure of this process's memory, bytes.
fn resident(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().map_or(0, |kb| kb * 1024)
}
