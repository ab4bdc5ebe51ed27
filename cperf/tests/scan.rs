//! Metrics of simulated runs: nothing is odd in clean ones, and the commands about metrics work on what runs leave.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn cperf(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cperf")).args(words).output().expect("the binary starts")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn run(dir: &Path, seed: u32) -> PathBuf {
    let out = dir.join(format!("seed{seed}"));
    let words = format!("run w4 --nodes 8 --protocols homa --seconds 0.03 --warmup 0.005 --seed {seed} --out");
    let mut words: Vec<_> = words.split(' ').collect();
    words.push(out.to_str().unwrap());
    let output = cperf(&words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    out
}

/// The short form of: of 100 clean runs at most 5 have any finding. The long form is a loop over `--seed` in a shell.
#[test]
fn clean_runs_have_no_findings_and_the_tools_read_what_they_leave() {
    let dir = std::env::temp_dir().join(format!("cperf-scan-{}", std::process::id()));
    let runs: Vec<_> = (1..=4).map(|seed| run(&dir, seed)).collect();
    let odd: Vec<_> = runs
        .iter()
        .map(|run| cperf(&["scan-metrics", run.to_str().unwrap(), "--fail-on", "warn"]))
        .filter(|output| output.status.code() != Some(0))
        .map(|output| text(&output))
        .collect();
    assert!(odd.is_empty(), "{odd:#?}");
    // Runs are compared with each other, too.
    let all = cperf(&["scan-metrics", dir.to_str().unwrap(), "--fail-on", "fatal"]);
    assert_eq!(all.status.code(), Some(0), "{}", text(&all));
    assert!(text(&all).contains("32 nodes' metrics of 4 runs"), "{}", text(&all));
    let file = |name: &str| runs[0].join(name).to_str().unwrap().to_owned();
    let printed = text(&cperf(&["metrics", &file("homa_w4-0.metrics")]));
    for part in [
        "time_cycles                           30000000 (0.0 s)",
        "packets_sent_DATA",
        "Receiving Messages:",
        "Canaries",
    ] {
        assert!(printed.contains(part), "no `{part}` in {printed}");
    }
    let ends = [file("homa_w4-0.metrics.before"), file("homa_w4-0.metrics.after")];
    assert_eq!(text(&cperf(&["metrics", &ends[0], &ends[1]])), printed, "both ends say what their difference says");
    assert!(text(&cperf(&["diff-metrics", &ends[0], &ends[1]])).contains("packets_sent_DATA"));
    std::fs::remove_dir_all(&dir).unwrap();
}
