//! Experiments on nodes that die: points are measured again or left out as it was said, and all of it is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Two points on namespaces, of a second each.
const EXPERIMENT: &str = "
    name = 'two'
    title = 'Two points'
    slowdown = 'fixed'
    seeds = [1]
    [fixed]
    nodes = 2
    workload = 'w2'
    protocol = 'tcp'
    gbps = 0.01
    warmup_s = 0.1
    measure_s = 1
    [[vary]]
    parameter = 'client_max'
    values = [20, 30]
";

/// A run in a directory of its own.
struct Run {
    dir: PathBuf,
    out: PathBuf,
}

impl Run {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cperf-policy-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("two.toml"), EXPERIMENT).unwrap();
        Self { out: dir.join("out"), dir }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cperf"));
        command.args(["run", "two.toml", "--testbed", "netns", "--out"]).arg(&self.out).args(words);
        command.current_dir(&self.dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Kills a node of each of the next `often` attempts while it measures, then lets the rest go on.
    fn harmed(&self, words: &[&str], often: usize) -> Output {
        let child = self.command(words).spawn().expect("the binary starts");
        let mut killed = Vec::new();
        let begun = Instant::now();
        while killed.len() < often && begun.elapsed() < Duration::from_secs(60) {
            if let Some(id) = nodes_that_measure(&self.out).into_iter().find(|id| !killed.contains(id)) {
                let status = Command::new("sh").args(["-c", &format!("kill -KILL {id}")]).status().unwrap();
                assert!(status.success());
                killed.push(id);
                // The other node of that attempt ends by itself.
                await_end(&self.out, id);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        finish(child)
    }

    fn account(&self) -> Value {
        serde_json::from_slice(&fs::read(self.out.join("manifest.json")).unwrap()).unwrap()
    }

    fn has(&self, name: &str, parts: &[&str]) {
        let text = fs::read_to_string(self.out.join(name)).unwrap();
        parts.iter().for_each(|part| assert!(text.contains(part), "no `{part}` in {name}: {text}"));
    }
}

fn finish(child: Child) -> Output {
    child.wait_with_output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Processes that work in a run below `out` whose measured interval has begun.
fn nodes_that_measure(out: &Path) -> Vec<u32> {
    let points = fs::read_dir(out.join("points")).into_iter().flatten().flatten();
    let runs = points.map(|point| point.path().join("runs/run"));
    let measuring =
        |run: &PathBuf| fs::read_to_string(run.join("cperf.log")).is_ok_and(|log| log.contains("tcp: measuring"));
    let runs: Vec<_> = runs.filter(measuring).filter_map(|run| fs::canonicalize(run).ok()).collect();
    working_in(&runs)
}

/// Processes that work in one of these directories.
fn working_in(dirs: &[PathBuf]) -> Vec<u32> {
    let ids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|cwd| dirs.contains(&cwd))).collect()
}

/// Until the attempt that had the node is over.
fn await_end(out: &Path, id: u32) {
    let begun = Instant::now();
    while !nodes_that_measure(out).is_empty() && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(nodes_that_measure(out).is_empty(), "the run of {id} does not end");
}

#[test]
fn a_point_whose_node_died_is_measured_again_and_the_rest_goes_on() {
    let run = Run::new("again");
    let output = run.harmed(&[], 1);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("signal 9") && said.contains("it is measured again"), "{said}");
    let account = run.account();
    assert_eq!((&account["status"], &account["policy"]["retry"]), (&"complete".into(), &1.into()));
    let points = account["points"].as_array().unwrap();
    assert!(points.iter().all(|point| point["state"] == "measured"), "{account}");
    let attempt = &points[0]["attempts"][0];
    assert_eq!(attempt["exit_code"], 1);
    let reason = attempt["reason"].as_str().unwrap();
    assert!(reason.contains("in the tcp run, while measuring: node") && reason.contains("signal 9"), "{reason}");
    // What the other node had measured is kept, with its manifest.
    let kept = run.out.join(attempt["files"].as_str().unwrap()).join("run");
    let samples = ["tcp_w2-0.rtts", "tcp_w2-1.rtts"].iter().filter(|name| kept.join(name).is_file()).count();
    assert_eq!(samples, 1);
    assert!(kept.join("manifest.json").is_file());
    let parts = ["Points that failed", "measured once more", "1 of these were measured all the same", "signal 9"];
    run.has("report.md", &parts);
    run.has("report.html", &parts);
    assert!(String::from_utf8_lossy(&output.stdout).contains("Points that failed"));
    fs::remove_dir_all(run.dir).unwrap();
}

#[test]
fn a_point_that_fails_too_often_is_left_out_and_the_same_command_tries_it_again() {
    let run = Run::new("left-out");
    let output = run.harmed(&["--retry", "1"], 2);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("1 of 2 points were left out"), "{}", stderr(&output));
    let account = run.account();
    assert_eq!(account["status"], "incomplete");
    let points = account["points"].as_array().unwrap();
    assert_eq!((&points[0]["state"], &points[1]["state"]), (&"left-out".into(), &"measured".into()));
    assert_eq!(points[0]["attempts"].as_array().unwrap().len(), 2);
    run.has("report.md", &["1 were left out", "Incomplete: 1 points have no result"]);
    let result = run.out.join("points").join(points[1]["id"].as_str().unwrap()).join("result.json");
    let before = fs::metadata(&result).unwrap().modified().unwrap();

    let output = finish(run.command(&[]).spawn().unwrap());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("2 points, 1 measured already"), "{}", stderr(&output));
    assert_eq!(fs::metadata(&result).unwrap().modified().unwrap(), before, "what was measured is not measured again");
    let account = run.account();
    assert_eq!(account["status"], "complete");
    assert_eq!(account["points"][0]["attempts"].as_array().unwrap().len(), 2, "what happened is not forgotten");
    fs::remove_dir_all(run.dir).unwrap();
}

#[test]
fn a_failed_point_ends_all_if_that_is_wanted() {
    let run = Run::new("stop");
    let output = run.harmed(&["--retry", "0", "--on-failure", "stop"], 1);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let account = run.account();
    assert_eq!(account["status"], "failed");
    let states = [0, 1].map(|at| account["points"][at]["state"].as_str().unwrap());
    assert_eq!(states, ["open", "open"]);
    fs::remove_dir_all(run.dir).unwrap();
}

#[test]
fn a_dry_run_states_policy_and_limits() {
    let run = Run::new("dry");
    let output = finish(run.command(&["--dry-run", "--retry", "2", "--wait-nodes", "60"]).spawn().unwrap());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["measured up to 2 times more", "waited for up to 60 s", "clients 40 s", "samples and traces 120 s"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert!(!run.out.exists());
    fs::remove_dir_all(run.dir).unwrap();
}

/// Of a run, protocols are what is measured again or left out.
#[test]
fn a_protocol_that_fails_is_measured_again_or_left_out_and_the_next_one_goes_on() {
    let run = Run::new("protocols");
    let start = |out: &Path, words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cperf"));
        command.args([
            "run",
            "w2",
            "--testbed",
            "netns",
            "--nodes",
            "2",
            "--protocols",
            "tcp,homa",
            "--slowdown",
            "fixed",
        ]);
        command.args(["--warmup", "0.1", "--seconds", "1", "--gbps", "0.01", "--format", "json", "--out"]).arg(out);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the binary starts")
    };
    for (words, code, state) in
        [(&["--retry", "1"][..], 0, "measured"), (&["--retry", "0", "--on-failure", "leave-out"][..], 4, "left-out")]
    {
        let out = run.dir.join(state);
        let child = start(&out, words);
        let begun = Instant::now();
        let ids = loop {
            let log = fs::read_to_string(out.join("cperf.log")).unwrap_or_default();
            let ids = working_in(&[fs::canonicalize(&out).unwrap_or_default()]);
            if log.contains("tcp: measuring") && !ids.is_empty() {
                break ids;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "it never measures");
            std::thread::sleep(Duration::from_millis(5));
        };
        let status = Command::new("sh").args(["-c", &format!("kill -KILL {}", ids[0])]).status().unwrap();
        assert!(status.success());
        let output = finish(child);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let rounds = &json["manifest"]["rounds"];
        assert_eq!((&rounds[0]["what"], &rounds[0]["state"]), (&"tcp".into(), &state.into()), "{rounds}");
        assert_eq!((&rounds[1]["what"], &rounds[1]["state"]), (&"homa".into(), &"measured".into()), "{rounds}");
        assert!(rounds[0]["attempts"][0]["reason"].as_str().unwrap().contains("signal 9"), "{rounds}");
        assert!(json["manifest"]["policy"]["retry"].is_u64());
        let statuses: Vec<_> = json["results"].as_array().unwrap().iter().map(|one| one["status"].clone()).collect();
        assert_eq!(statuses, [if code == 0 { "complete" } else { "failed" }, "complete"]);
        assert!(out.join("homa_w2-1.rtts").is_file());
        // The other node's samples: beside those of the attempt that went well, or where they belong.
        let aside = fs::read_dir(out.join("failed/1")).into_iter().flatten().flatten();
        let aside = aside.filter(|entry| entry.file_name().to_string_lossy().ends_with(".rtts")).count();
        assert_eq!(aside, usize::from(code == 0), "{out:?}");
        let page = fs::read_to_string(out.join("report.html")).unwrap();
        assert!(page.contains("<dt>Failures</dt>") && page.contains("<dt>Policy</dt>"));
        assert!(working_in(&[fs::canonicalize(&out).unwrap()]).is_empty(), "nodes are left");
    }
    fs::remove_dir_all(run.dir).unwrap();
}
