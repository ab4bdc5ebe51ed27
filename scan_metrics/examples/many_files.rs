//! How long a scan of many files takes: makes N files (40 nodes a run) in DIR from one that was collected, each counter
//! scattered by some percent, scans them, and prints time and memory.
//!
//! `cargo run --release -p scan_metrics --example many_files -- DIR 10000`

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs};

use scan_metrics::read::{load, walk};
use scan_metrics::scan::{Options, scan};

const NODES: u64 = 40;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = env::args().collect();
    let [_, dir, count] = words.as_slice() else { anyhow::bail!("expected DIR and the number of files") };
    let (dir, count): (PathBuf, u64) = (dir.into(), count.parse()?);
    if !dir.exists() {
        let bytes = make(&dir, count)?;
        println!("made {count} files, {:.0} MB, in {}", bytes as f64 / 1e6, dir.display());
    }
    let start = Instant::now();
    let found = scan(&Options { roots: vec![dir], ..Options::default() })?;
    println!(
        "scanned {} files of {} runs in {:.2} s: {} comparisons, {} findings; at most {} MiB of memory",
        found.nodes,
        found.runs.len(),
        start.elapsed().as_secs_f64(),
        found.comparisons,
        found.findings.len(),
        most_memory_kib() / 1024
    );
    Ok(())
}

/// Writes the files; their bytes.
fn make(dir: &Path, count: u64) -> anyhow::Result<u64> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/clean/homa_w4-0.metrics.gz");
    let mut buffer = Vec::new();
    let text = load(&model, &mut buffer)?.to_owned();
    let (mut state, mut bytes) = (1u64, 0);
    for file in 0..count {
        let run = dir.join(format!("run{}", file / NODES));
        fs::create_dir_all(&run)?;
        let mut out = String::with_capacity(text.len());
        walk(&text, &mut Default::default(), |_, line| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let scatter = 0.95 + 0.1 * ((state >> 40) as f64 / (1u64 << 24) as f64);
            let kept = matches!(line.name, "time_cycles" | "cpu_khz" | "core");
            let value = if kept { line.value } else { (line.value as f64 * scatter) as u64 };
            writeln!(out, "{:<30} {value:>20} {}", line.name, line.text).expect("a String takes all");
        });
        bytes += out.len() as u64;
        fs::write(run.join(format!("homa_w4-{}.metrics", file % NODES)), out)?;
    }
    Ok(bytes)
}

/// Highest mark of this process's memory, KiB.
fn most_memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
