//! Whole runs over TCP on network namespaces, good and bad. They need what the testbed needs (root, or user
//! namespaces) and fail without it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// One run at a time: they would compete for cores, and see each other's processes.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory for one run, removed at the end of a test that went well.
fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("cperf-netns-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    dir
}

/// A small TCP run with its results as JSON.
fn start(out: &Path, seconds: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cperf"));
    command.args([
        "run",
        "w2",
        "--testbed",
        "netns",
        "--nodes",
        "2",
        "--protocols",
        "tcp",
        "--slowdown",
        "fixed",
        "--warmup",
        "0.2",
    ]);
    command.args(["--seconds", seconds, "--gbps", "0.01", "--format", "json", "--out"]).arg(out);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
}

/// Processes that work in `dir`: the nodes of the run there.
fn nodes_in(dir: &Path) -> Vec<u32> {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|cwd| cwd == dir)).collect()
}

/// The network namespaces that those processes are in.
fn namespaces(ids: &[u32]) -> Vec<PathBuf> {
    ids.iter().filter_map(|id| fs::read_link(format!("/proc/{id}/ns/net")).ok()).collect()
}

/// Waits until the measured interval has begun.
fn await_measuring(out: &Path) {
    let start = Instant::now();
    while !fs::read_to_string(out.join("cperf.log")).is_ok_and(|log| log.contains("tcp: measuring")) {
        assert!(start.elapsed() < Duration::from_secs(30), "the run never began to measure");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The output of a run that has to end soon: exit code, results, standard error.
fn finish(child: Child) -> (Option<i32>, Option<Value>, String) {
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).ok(), stderr)
}

/// No process of the run, none in its namespaces, no half-written file.
#[track_caller]
fn assert_nothing_left(out: &Path, namespaces: &[PathBuf]) {
    assert_eq!(nodes_in(out), [0u32; 0], "processes of the run still live");
    // Numbers of namespaces are used again, so only our own program's processes count.
    let program = fs::canonicalize(env!("CARGO_BIN_EXE_cperf")).unwrap();
    let all = fs::read_dir("/proc").unwrap().flatten();
    let ours = all.filter(|entry| fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == program));
    let used = ours.filter_map(|entry| fs::read_link(entry.path().join("ns/net")).ok());
    assert_eq!(used.filter(|used| namespaces.contains(used)).count(), 0, "a namespace is still in use");
    let names = files(out);
    assert!(!names.iter().any(|name| name.ends_with(".part") || name.ends_with(".cperf-probe")), "{names:?}");
}

fn files(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            names.extend(files(&entry.path()));
        } else {
            names.push(entry.path().display().to_string());
        }
    }
    names
}

#[test]
fn a_tcp_run_leaves_results_and_nothing_else() {
    let _alone = alone();
    let out = scratch("good");
    let child = start(&out, "1");
    await_measuring(&out);
    let ids = nodes_in(&out);
    assert_eq!(ids.len(), 2);
    let spaces = namespaces(&ids);
    assert_ne!(spaces[0], spaces[1], "each node has a network of its own");
    assert!(!spaces.contains(&fs::read_link("/proc/self/ns/net").unwrap()));
    let (code, json, stderr) = finish(child);
    assert_eq!(code, Some(0), "{stderr}");
    assert_nothing_left(&out, &spaces);

    let json = json.expect("JSON on standard output");
    assert_eq!((&json["version"], &json["status"]), (&1.into(), &"complete".into()));
    assert_eq!(json["options"]["nodes"], 2);
    let tcp = &json["results"][0];
    assert_eq!(tcp["protocol"], "tcp");
    assert_eq!(tcp["offered_gbps"], 0.01);
    for key in ["achieved_gbps", "rpcs", "short_rtt_p50_ns", "short_rtt_p99_ns", "short_rtt_p999_ns", "slowdown_mean"] {
        assert!(tcp[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {}", tcp[key]);
    }
    assert_eq!(tcp["errors"], 0);
    assert!(tcp["samples"].as_u64() >= tcp["rpcs"].as_u64().map(|rpcs| rpcs * 9 / 10), "samples were lost: {tcp}");
    let rows = tcp["by_length"].as_array().unwrap();
    let counted: u64 = rows.iter().filter_map(|row| row["rpcs"].as_u64()).sum();
    assert_eq!(Some(counted), tcp["samples"].as_u64(), "every sample is in one row");

    for name in ["manifest.json", "results.json", "cperf.log", "node0.log", "node1.log", "tcp_w2-0.rtts"] {
        assert!(out.join(name).is_file(), "no {name}");
    }
    for name in ["slowdown_w2.svg", "slowdown_w2.png", "short_cdf_w2.svg", "tcp_w2.data", "tcp_w2_cdf.data"] {
        assert!(out.join("reports").join(name).is_file(), "no reports/{name}");
    }
    let manifest: Value = serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["status"], "complete");
    let listed = manifest["files"].as_array().unwrap();
    assert_eq!(listed.len() + 1, files(&out).len(), "the manifest lists every file but itself");
    for file in listed {
        let size = fs::metadata(out.join(file["name"].as_str().unwrap())).unwrap().len();
        assert_eq!(file["size_bytes"], size, "{file}");
    }
    fs::remove_dir_all(out).unwrap();
}

#[test]
fn a_killed_node_ends_the_run_with_code_1_and_the_rest_is_kept() {
    let _alone = alone();
    let out = scratch("killed");
    let child = start(&out, "60");
    await_measuring(&out);
    std::thread::sleep(Duration::from_millis(500));
    let ids = nodes_in(&out);
    let spaces = namespaces(&ids);
    assert_eq!(ids.len(), 2);
    kill("KILL", *ids.iter().max().unwrap()); // the node started last
    let (code, json, stderr) = finish(child);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("node 1 died") && stderr.contains("SIGKILL"), "{stderr}");
    assert_nothing_left(&out, &spaces);
    let json = json.expect("JSON on standard output");
    assert_eq!(json["status"], "failed");
    assert!(json["reason"].as_str().unwrap().contains("node 1 died"));
    let tcp = &json["results"][0];
    assert_eq!(tcp["missing_nodes"], serde_json::json!([1]));
    assert!(tcp["samples"].as_u64().unwrap() > 0, "what node 0 measured is kept");
    assert!(out.join("tcp_w2-0.rtts").is_file());
    fs::remove_dir_all(out).unwrap();
}

#[test]
fn an_interrupt_ends_the_run_with_code_130_and_keeps_everything() {
    let _alone = alone();
    for signal in ["INT", "TERM"] {
        let out = scratch(signal);
        let child = start(&out, "60");
        await_measuring(&out);
        std::thread::sleep(Duration::from_millis(300));
        let spaces = namespaces(&nodes_in(&out));
        kill(signal, child.id());
        let (code, json, stderr) = finish(child);
        assert_eq!(code, Some(130), "{stderr}");
        assert_nothing_left(&out, &spaces);
        let json = json.expect("JSON on standard output");
        assert_eq!(json["status"], "interrupted");
        assert_eq!(json["results"][0]["missing_nodes"], serde_json::json!([]));
        assert!(json["results"][0]["samples"].as_u64().unwrap() > 0);
        fs::remove_dir_all(out).unwrap();
    }
}

/// Whoever cannot wait for the end of a run asks twice.
#[test]
fn a_second_interrupt_ends_the_run_at_once() {
    let _alone = alone();
    let out = scratch("twice");
    let child = start(&out, "60");
    await_measuring(&out);
    let ids = nodes_in(&out);
    let spaces = namespaces(&ids);
    // A node that hangs: the first interrupt waits for its samples.
    ids.iter().for_each(|id| kill("STOP", *id));
    kill("INT", child.id());
    std::thread::sleep(Duration::from_secs(1));
    kill("INT", child.id());
    let start = Instant::now();
    let (code, json, _) = finish(child);
    assert_eq!((code, json), (Some(130), None));
    assert!(start.elapsed() < Duration::from_secs(2), "it waited for its nodes: {:?}", start.elapsed());
    while !nodes_in(&out).is_empty() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_nothing_left(&out, &spaces);
    fs::remove_dir_all(out).unwrap();
}

/// Even when nobody is left to clean up.
#[test]
fn nodes_die_with_a_killed_cperf() {
    let _alone = alone();
    let out = scratch("orphans");
    let child = start(&out, "60");
    await_measuring(&out);
    let spaces = namespaces(&nodes_in(&out));
    assert_eq!(spaces.len(), 2);
    kill("KILL", child.id());
    finish(child);
    let start = Instant::now();
    while !nodes_in(&out).is_empty() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_nothing_left(&out, &spaces);
    fs::remove_dir_all(out).unwrap();
}

fn kill(signal: &str, id: u32) {
    let status = Command::new("sh").args(["-c", &format!("kill -{signal} {id}")]).status().unwrap();
    assert!(status.success());
}

/// Nodes on one machine share its counter, and each trace's first line has the reading: how far clocks are apart is known.
#[test]
fn clocks_of_traces_are_set_as_the_machines_counter_says() {
    let _alone = alone();
    let out = scratch("clocks");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cperf"));
    command.args(["run", "w4", "--testbed", "netns", "--nodes", "3", "--protocols", "homa", "--slowdown", "fixed"]);
    command.args(["--warmup", "0.2", "--seconds", "0.5", "--out"]).arg(&out);
    let run = command.output().expect("the binary starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let (names, first): (Vec<PathBuf>, Vec<(f64, f64)>) = (0..3)
        .map(|node| {
            let path = out.join(format!("traces/node{node}.tt"));
            let text = fs::read_to_string(&path).unwrap();
            let words: Vec<&str> = text.lines().next().unwrap().split([' ', ')']).collect();
            let after = |word: &str| words[words.iter().position(|w| *w == word).unwrap() + 1].parse::<f64>().unwrap();
            (path, (after("timestamp"), after("(cpu_ghz")))
        })
        .unzip();
    let delay = tthoma::analyze::run(&["delay"], &names, &tthoma::analyze::Options::default()).unwrap();
    assert_eq!(delay.clock.nodes.len(), 3);
    for (node, (ticks, _)) in delay.clock.nodes.iter().zip(&first) {
        let truth = (ticks - first[0].0) / first[0].1 / 1000.0;
        let (offset, error) = (node.offset_us.unwrap(), node.error_us.unwrap());
        // Stamps of packets are compared with the counter to within a microsecond or so.
        assert!((offset - truth).abs() <= error + 3.0, "{node:?}: {truth} us by the counter");
    }
    let negatives = delay.report("delay").unwrap().table("negatives");
    let unexplained = negatives
        .into_iter()
        .flat_map(|t| &t.rows)
        .filter(|row| row.cells.last() == Some(&"NOT explained by clocks".into()));
    assert_eq!(unexplained.count(), 0, "{}", delay.to_text());
    fs::remove_dir_all(&out).unwrap();
}
