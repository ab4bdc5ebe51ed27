//! Whole runs and experiments on simulated nodes: files, equal bytes for equal seeds, resuming, a scheduler.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn cperf(words: &str, out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cperf"));
    command.args(words.split_whitespace()).arg("--out").arg(out).output().expect("the binary starts")
}

#[track_caller]
fn assert_done(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("cperf-simulated-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    dir
}

/// Every file below a directory with its bytes, without those that tell when and where.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        for entry in fs::read_dir(at).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                todo.push(path);
            } else if name != "about.json" && name != "cperf.log" {
                let name = path.strip_prefix(dir).unwrap().display().to_string();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[track_caller]
fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (files(a), files(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, content) in &a {
        assert!(*content == b[name], "{name} differs");
    }
}

const SMALL: &str = "run w4 --nodes 4 --seconds 0.002 --warmup 0.001 --unloaded-samples 3";

#[test]
fn a_run_leaves_the_files_of_a_run_on_real_nodes() {
    let out = scratch("files");
    let output = cperf(SMALL, &out);
    assert_done(&output);
    let text = String::from_utf8_lossy(&output.stdout);
    for part in ["Short messages", "Slowdown by message length, w4 (slowdown atc21", "Switch buffers", "Time traces"] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    for protocol in ["homa", "tcp", "dctcp"] {
        for node in 0..4 {
            for kind in ["rtts", "rtts.due", "stats"] {
                assert!(out.join(format!("{protocol}_w4-{node}.{kind}")).is_file(), "{protocol} {node} {kind}");
            }
        }
        assert!(out.join(format!("reports/{protocol}_w4.data")).is_file());
    }
    for name in [
        "homa_w4-3.metrics",
        "traces/node0.tt",
        "unloaded.rtts",
        "about.json",
        "reports/slowdown_w4.svg",
        "reports/short_cdf_w4.png",
        "reports/statistics.md",
        "reports/scan_metrics.data",
        "reports/delay.txt",
    ] {
        assert!(out.join(name).is_file(), "no {name}");
    }
    let json: Value = serde_json::from_slice(&fs::read(out.join("results.json")).unwrap()).unwrap();
    assert_eq!(json["status"], "complete");
    for result in json["results"].as_array().unwrap() {
        for key in ["achieved_gbps", "rpcs", "short_rtt_p99_ns", "slowdown_mean", "samples"] {
            assert!(result[key].as_f64().is_some_and(|value| value > 0.0), "{}: {key}", result["protocol"]);
        }
        // 80 % of 25 Gbps for 2 ms is a few hundred messages: the load that came differs from the mean.
        assert!(result["achieved_gbps"].as_f64().unwrap() > 5.0, "{result}");
        assert!(result["switch"]["buffer_max_bytes"].as_u64().unwrap() > 10_000);
    }
    // Statistics say what the results say, with intervals where there are enough messages.
    let statistics = json["statistics"]["protocols"].as_array().unwrap();
    assert_eq!(statistics.len(), 3);
    for (result, statistics) in json["results"].as_array().unwrap().iter().zip(statistics) {
        let rows = statistics["rows"].as_array().unwrap();
        let whole = |row: &&Value| row["measure"] == "slowdown" && row["class"].is_null();
        let row = rows.iter().find(whole).unwrap();
        assert_eq!((&row["rpcs"], &row["figures"][3]["value"]), (&result["samples"], &result["slowdown_p99"]));
        assert!(row["figures"][0]["interval"][0].as_f64() < row["figures"][0]["value"].as_f64(), "{row}");
        assert_eq!(statistics["p99_averages"].as_array().unwrap().len(), 4);
    }
    let manifest: Value = serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
    assert!(manifest["testbed"]["not_modelled"].as_array().unwrap().len() > 2);
    assert_eq!(manifest["options"]["simulated"].as_array().unwrap().len(), 3);
    let listed: Vec<_> =
        manifest["files"].as_array().unwrap().iter().filter_map(|file| file["name"].as_str()).collect();
    assert!(!listed.contains(&"about.json") && listed.contains(&"results.json"), "{listed:?}");

    // The metrics of just the traces' time count the packets that the traces have.
    let counts: Value = serde_json::from_slice(&fs::read(out.join("reports/trace_metrics.json")).unwrap()).unwrap();
    let counts = counts["nodes"].as_array().unwrap();
    assert_eq!(counts.len(), 4);
    for node in counts {
        assert!(node["agrees"] == true && node["counts"][0]["trace"].as_u64() > Some(100), "{node}");
    }

    // Metrics and stats: one file for each node and protocol that has them, and no more.
    let metrics = files(&out).keys().filter(|name| name.starts_with("homa") && name.ends_with(".metrics")).count();
    assert_eq!(metrics, 4, "TCP has no such metrics");
    fs::remove_dir_all(out).unwrap();
}

#[test]
fn equal_seeds_leave_equal_bytes_whatever_the_number_of_threads_and_other_seeds_do_not() {
    let (one, two, other) = (scratch("one"), scratch("two"), scratch("other"));
    assert_done(&cperf(&format!("{SMALL} --threads 1"), &one));
    assert_done(&cperf(&format!("{SMALL} --threads 4 --format json"), &two));
    assert_done(&cperf(&format!("{SMALL} --seed 2"), &other));
    assert_same(&one, &two);
    let samples = |dir: &Path| fs::read(dir.join("homa_w4-0.rtts")).unwrap();
    assert_ne!(samples(&one), samples(&other));

    // Reports made again are the same bytes too.
    let before = files(&one);
    fs::remove_dir_all(one.join("reports")).unwrap();
    fs::create_dir(one.join("reports")).unwrap();
    let again = Command::new(env!("CARGO_BIN_EXE_cperf")).arg("report").arg(&one).output().unwrap();
    assert_done(&again);
    for (name, content) in &files(&one) {
        assert!(*content == before[name], "{name} differs when it is made again");
    }
    assert_eq!(before.len(), files(&one).len());
    for dir in [one, two, other] {
        fs::remove_dir_all(dir).unwrap();
    }
}

const TINY: &str = "
name = 'tiny'
title = 'A tiny search'
measure = 'buffer-search'
seeds = [1, 2]
[fixed]
workload = 'w4'
gbps = 20
nodes = 3
warmup_s = 0.0005
measure_s = 0.001
host_model = 'ideal'
[[vary]]
parameter = 'homa.max_overcommit'
values = [2, 8]
";

/// The experiment, written to a file.
fn tiny(name: &str) -> PathBuf {
    let file = std::env::temp_dir().join(format!("cperf-simulated-{}-{name}.toml", std::process::id()));
    fs::write(&file, TINY).unwrap();
    file
}

#[test]
fn an_experiment_measures_what_is_missing_and_nothing_twice() {
    let (file, out) = (tiny("resume"), scratch("resume"));
    let run = format!("run {}", file.display());
    let plan = cperf(&format!("{run} --dry-run"), &out);
    assert!(String::from_utf8_lossy(&plan.stdout).contains("4 points, 4 to measure"));
    assert!(!out.exists(), "a plan measures nothing");
    assert_done(&cperf(&run, &out));
    let before = files(&out);
    let results: Vec<_> = before.keys().filter(|name| name.ends_with("result.json")).cloned().collect();
    assert_eq!(results.len(), 4, "{results:?}");
    let again = cperf(&format!("{run} --dry-run"), &out);
    assert!(String::from_utf8_lossy(&again.stdout).contains("4 points, 0 to measure"));

    // One result is lost; of its measurements one is kept. Only the others are made again, with the same bytes.
    let lost = out.join(&results[0]);
    let written = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let runs = lost.with_file_name("runs");
    let kept = fs::read_dir(&runs).unwrap().flatten().next().unwrap().path();
    let (kept_at, other_at) = (written(&kept), written(&out.join(&results[1])));
    fs::remove_file(&lost).unwrap();
    assert_done(&cperf(&run, &out));
    assert_eq!((written(&kept), written(&out.join(&results[1]))), (kept_at, other_at));
    assert!(files(&out) == before, "the same bytes");

    // Another parameter is another point; the others stay.
    assert_done(&cperf(&format!("{run} --set homa.max_overcommit=4 --seeds 1"), &out));
    assert_eq!(files(&out).keys().filter(|name| name.ends_with("result.json")).count(), 5);
    fs::remove_dir_all(out).unwrap();
    fs::remove_file(file).unwrap();
}

/// The bundled study with tiny times: points, tables, report; nothing is measured twice, and neither is what the study
/// fixes set.
#[test]
fn the_sigcomm_2018_study_is_an_experiment() {
    let out = scratch("sigcomm18");
    let run = "run sigcomm18 --warmup 0.000002 --seconds 0.00001 --seeds 1,2 --load 0.8 --set workload=w1";
    assert_done(&cperf(run, &out));
    let text = fs::read_to_string(out.join("report.md")).unwrap();
    for part in ["2 of 2 points were measured", "## w1, 80 % load", "of 20 cells.", "plots/slowdown_w1.svg"] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    let csv = fs::read_to_string(out.join("deciles.csv")).unwrap();
    assert_eq!(csv.lines().count(), 11, "{csv}");
    assert!(csv.lines().nth(1).unwrap().starts_with("sigcomm18,w1,0.8,10,2,"), "{csv}");
    for name in ["deciles.parquet", "by_length.parquet", "results.csv", "report.html", "plots/slowdown_w1.svg"] {
        assert!(out.join(name).is_file(), "no {name}");
    }
    let before = files(&out);
    let again = cperf(&format!("{run} --dry-run"), &out);
    assert!(String::from_utf8_lossy(&again.stdout).contains("2 points, 0 to measure"));
    let mut report = Command::new(env!("CARGO_BIN_EXE_cperf"));
    assert_done(&report.arg("report").arg(&out).output().unwrap());
    assert!(files(&out) == before, "the same bytes");
    let refused = cperf("run sigcomm18 --nodes 40", &out);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the study fixes it"));
    fs::remove_dir_all(out).unwrap();
}

/// Two files that have nothing in common but their parameters: one varies what the other fixes, and says what the other
/// leaves to the defaults.
const ALIKE: [&str; 2] = [
    "
name = 'brief'
title = 'Two protocols'
seeds = [3, 4]
[fixed]
workload = 'w4'
gbps = 20
nodes = 4
warmup_s = 0.0005
measure_s = 0.002
[[vary]]
parameter = 'protocol'
values = ['homa', 'tcp']
",
    "
name = 'explicit'
title = 'Two loads, one of them that of the other file'
metric = 'short_rtt_p99_us'
seeds = [4]
[fixed]
measure_s = 2e-3
warmup_s = 5e-4
link_gbps = 25
mtu_bytes = 3000
loss = 0
homa.max_overcommit = 8
homa.num_priorities = 8
[[vary]]
parameter = 'gbps'
values = [12, 20.0]
[[vary]]
cases = [{ protocol = 'homa', workload = 'w4', nodes = 4 }]
",
];

/// The result of the only Homa point with this seed and load in an experiment's directory.
fn homa_point(out: &Path, seed: u64, gbps: f64) -> (String, Value) {
    let json = |path: PathBuf| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let points = fs::read_dir(out.join("points")).unwrap().flatten().map(|entry| entry.path());
    let mut found: Vec<_> = points
        .filter(|point| {
            let sim = &json(point.join("spec.json"))["sim"];
            sim["protocol"] == "homa" && sim["seed"] == seed && sim["gbps"] == gbps
        })
        .map(|point| (point.file_name().unwrap().to_string_lossy().into_owned(), json(point.join("result.json"))))
        .collect();
    assert_eq!(found.len(), 1, "{}", out.display());
    found.remove(0)
}

#[test]
fn two_files_with_equal_parameters_give_exactly_the_same_slowdown_curve() {
    let results = ["brief", "explicit"].map(|name| (name, scratch(name)));
    for ((name, out), text) in results.iter().zip(ALIKE) {
        let file = std::env::temp_dir().join(format!("cperf-simulated-{}-{name}.toml", std::process::id()));
        fs::write(&file, text).unwrap();
        assert_done(&cperf(&format!("run {}", file.display()), out));
        fs::remove_file(file).unwrap();
    }
    let [brief, explicit] = results.map(|(_, out)| out);
    let ((one, a), (two, b)) = (homa_point(&brief, 4, 20.0), homa_point(&explicit, 4, 20.0));
    assert_ne!(one, two, "what is said counts, so the second was measured, not found");
    let curve = a["tenths"].as_array().unwrap();
    assert!(
        curve.len() > 5 && curve.iter().all(|tenth| tenth["slowdown_p99"].as_f64().is_some_and(|s| s > 0.5)),
        "{a}"
    );
    assert_eq!(a["tenths"], b["tenths"], "the slowdowns of each tenth of the messages, to the last digit");
    assert_eq!(a["measurements"][0]["figures"], b["measurements"][0]["figures"], "and all other figures");
    let (_, other) = homa_point(&brief, 3, 20.0);
    assert_ne!(a["tenths"], other["tenths"], "another seed has another curve");
    let (_, other) = homa_point(&explicit, 4, 12.0);
    assert_ne!(a["tenths"], other["tenths"], "so has another load");
    for dir in [brief, explicit] {
        fs::remove_dir_all(dir).unwrap();
    }
}

/// A scheduler of two shell scripts: jobs run when they are submitted, and are over then.
#[test]
fn points_are_measured_by_a_schedulers_jobs() {
    let (file, out, bin) = (tiny("slurm"), scratch("slurm"), scratch("slurm-bin"));
    fs::create_dir_all(&bin).unwrap();
    let script = |name: &str, text: &str| {
        let path = bin.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    script(
        "sbatch",
        "#!/bin/sh\nfor i in 0 1 2; do SLURM_ARRAY_TASK_ID=$i sh \"$4\"; done\necho \"$2 $3\" > \"$0.args\"\necho 17\n",
    );
    script("squeue", "#!/bin/sh\nexit 0\n");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = |words: &str, path: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cperf"));
        command.arg("run").arg(&file).args(["--engine", "slurm"]).args(words.split_whitespace());
        command.arg("--out").arg(&out).env("PATH", path).output().unwrap()
    };
    let none = run("", "/no/such/path");
    assert_eq!(none.status.code(), Some(3), "{}", String::from_utf8_lossy(&none.stderr));
    assert!(String::from_utf8_lossy(&none.stderr).contains("needs the commands of Slurm"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_cperf"));
    command.arg("run").arg(&file).args(["--engine", "slurm", "--slurm-tasks", "3", "--slurm-args", "--partition day"]);
    assert_done(&command.arg("--out").arg(&out).env("PATH", path).output().unwrap());
    assert_eq!(fs::read_to_string(bin.join("sbatch.args")).unwrap(), "--partition day\n");
    let local = scratch("slurm-local");
    assert_done(&cperf(&format!("run {}", file.display()), &local));
    let results = |dir: &Path| {
        let mut all = files(dir);
        all.retain(|name, _| name.ends_with("result.json"));
        all
    };
    assert_eq!(results(&out).len(), 4);
    assert!(results(&out) == results(&local), "the same results as here");
    for dir in [out, bin, local] {
        fs::remove_dir_all(dir).unwrap();
    }
    fs::remove_file(file).unwrap();
}

/// The same with Slurm itself, on this machine.
#[test]
#[ignore = "needs root and Debian's packages munge, slurmctld, slurmd and slurm-client"]
fn points_are_measured_by_a_slurm_of_this_machine() {
    let (file, out, local) = (tiny("real-slurm"), scratch("real-slurm"), scratch("real-slurm-local"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/slurm");
    let mut command = Command::new(script);
    command.args([env!("CARGO_BIN_EXE_cperf"), "run"]).arg(&file).args(["--engine", "slurm", "--slurm-tasks", "3"]);
    let output = command.args(["--slurm-args", "--partition day"]).arg("--out").arg(&out).output().unwrap();
    assert_done(&output);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("4 points are job 1, 3 tasks"), "{text}");
    assert_done(&cperf(&format!("run {}", file.display()), &local));
    let results = |dir: &Path| {
        let mut all = files(dir);
        all.retain(|name, _| name.ends_with("result.json"));
        all
    };
    assert_eq!(results(&out).len(), 4);
    assert!(results(&out) == results(&local), "the same results as here");
    for dir in [out, local] {
        fs::remove_dir_all(dir).unwrap();
    }
    fs::remove_file(file).unwrap();
}

#[test]
fn a_point_of_another_simulator_is_refused() {
    let (file, out) = (tiny("version"), scratch("version"));
    assert_done(&cperf(&format!("run {} --set homa.max_overcommit=4 --seeds 1", file.display()), &out));
    let point = fs::read_dir(out.join("points")).unwrap().flatten().next().unwrap().path();
    let spec = fs::read_to_string(point.join("spec.json")).unwrap();
    let mut json: Value = serde_json::from_str(&spec).unwrap();
    json["simulator"] = "0000000000000000".into();
    fs::write(point.join("spec.json"), json.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cperf"));
    let output = command.arg("point").arg(point.join("spec.json")).arg(&point).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("plan anew"));
    fs::remove_dir_all(out).unwrap();
    fs::remove_file(file).unwrap();
}
