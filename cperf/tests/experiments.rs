//! Every experiment that comes along, on simulated nodes in a very short form, and some on real packets.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cperf::cli::TestbedKind;
use cperf::experiment::file::{File, Measure};
use cperf::experiment::plan::Plan;
use cperf::experiment::point::{self, Baselines};
use cperf::experiment::{bundled, columns, document, lengths, tables};
use serde_json::{Value, json};

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("cperf-experiments-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    dir
}

fn file(name: &str) -> File {
    File::parse(&bundled::find(name).unwrap()).unwrap_or_else(|err| panic!("{name}: {err}"))
}

/// The same for a millisecond, with four nodes and one length of messages, where nothing else is what it is about.
fn short(name: &str) -> Plan {
    let file = file(name);
    if file.measure == Measure::Sigcomm18 {
        let set = [("workload", json!("w1")), ("warmup_s", json!(2e-6)), ("measure_s", json!(1e-5))];
        return planned(name, file, &set);
    }
    let text = bundled::find(name).unwrap();
    let mut set = vec![("workload", json!("5000")), ("measure_s", json!(0.0005)), ("warmup_s", json!(0.0001))];
    if !text.contains("client_nodes = 9") && !text.contains("server_nodes = 9") {
        set.push(("nodes", json!(4)));
    }
    planned(name, file, &set)
}

fn planned(name: &str, mut file: File, set: &[(&str, Value)]) -> Plan {
    file.seeds = vec![1];
    let set: Vec<_> = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Plan::new(file, &set).unwrap_or_else(|err| panic!("{name}: {err}"))
}

/// The first and the last point of each are measured, and the report shows what it is about: its figures, and the curves by
/// message length and of short messages that the originals' reports have.
#[test]
fn every_experiment_runs_on_simulated_nodes_and_reports_what_it_is_about() {
    let (out, baselines) = (scratch("sim"), Baselines::default());
    for name in bundled::names() {
        if !file(&name).testbeds.contains(&TestbedKind::Sim) {
            continue;
        }
        let plan = short(&name);
        let chosen = [0, plan.points.len() - 1];
        let mut measured: Vec<tables::Measured<'_>> = plan.points.iter().map(|point| (point, None)).collect();
        for at in chosen {
            let (point, dir) = (&plan.points[at], out.join(&name).join(at.to_string()));
            let mut watch = |_| ControlFlow::Continue(());
            point::measure(&point.spec, &dir, None, &baselines, &mut watch)
                .unwrap_or_else(|err| panic!("{name}, point {at}: {err:#}"));
            measured[at].1 = point::load(&dir, &point.id);
            assert!(measured[at].1.is_some(), "{name}: point {at} has no result");
        }
        if plan.file.measure == Measure::Sigcomm18 {
            continue; // its tables and report have a test of their own
        }
        let metric = plan.file.metric.as_str();
        for (point, result) in measured.iter().filter(|(_, result)| result.is_some()) {
            let figures = &result.as_ref().unwrap().measurements[0].figures;
            assert!(figures.rpcs > 0, "{name}: nothing was completed at {:?}", point.varied);
            for metric in plan.file.figures.iter().map(String::as_str).chain([metric]) {
                assert!(figures.number(metric).is_some_and(|value| value > 0.0), "{name}: {metric} is unknown");
            }
        }
        let text = document::report(&plan, &measured).unwrap().markdown();
        for figure in plan.file.figures.iter().map(String::as_str).chain([metric]) {
            let unit = columns::unit(figure);
            let head = if unit.is_empty() { format!("| {figure} |") } else { format!("| {figure}, {unit} |") };
            assert!(text.contains(&head), "{name}: no column `{head}`");
        }
        let files = lengths::data_files(&measured);
        assert!(files.iter().any(|(name, text)| name.ends_with("_cdf.data") && text.lines().count() > 4), "{name}");
    }
    fs::remove_dir_all(out).unwrap();
}

fn cperf(words: &str, out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cperf"));
    command.args(words.split_whitespace()).arg("--out").arg(out).output().expect("the binary starts")
}

/// Points on real packets are runs whose files stay; their figures are in the same tables.
#[test]
fn experiments_run_on_network_namespaces() {
    let out = scratch("netns");
    for (words, metric) in [
        ("run server_ports --set server_ports=2 --set protocol=homa --set workload=1000", "server_krps"),
        (
            "run both --set workload=2000 --set nodes=2 --set beside=tcp --set beside_gbps=0.01 --set gbps=0.01 --protocols homa",
            "slowdown_mean",
        ),
        ("run vs_tcp --protocols homa,tcp --set workload=2000 --set gbps=0.02 --nodes 2", "slowdown_mean"),
    ] {
        let dir = out.join(metric);
        let run = format!("{words} --testbed netns --seeds 1 --seconds 0.3 --warmup 0.1");
        let plan = cperf(&format!("{run} --dry-run"), &dir);
        let text = String::from_utf8_lossy(&plan.stdout).into_owned();
        assert_eq!(plan.status.code(), Some(0), "{}", String::from_utf8_lossy(&plan.stderr));
        let points = text.lines().last().unwrap().split(' ').next().unwrap().to_owned();
        let output = cperf(&run, &dir);
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(3) {
            eprintln!("skipped: no network namespaces here: {said}");
            return;
        }
        assert_eq!(output.status.code(), Some(0), "{said}");
        let summary = fs::read_to_string(dir.join("summary.csv")).unwrap();
        let rows: Vec<_> = summary.lines().filter(|line| line.contains(&format!(",{metric},"))).collect();
        assert_eq!(rows.len().to_string(), points, "{summary}");
        let csv = fs::read_to_string(dir.join("results.csv")).unwrap();
        let (names, row) = (csv.lines().next().unwrap(), csv.lines().nth(1).unwrap());
        let at = names.split(',').position(|name| name == "rpcs").unwrap();
        assert!(row.split(',').nth(at).unwrap().parse::<u64>().unwrap() > 50, "{csv}");
        // What was measured is there to be looked at, and is not measured again.
        let point = fs::read_dir(dir.join("points")).unwrap().flatten().next().unwrap().path();
        assert!(point.join("runs/run/results.json").is_file() && point.join("runs/run.log").is_file());
        let again = cperf(&format!("{run} --dry-run"), &dir);
        assert!(String::from_utf8_lossy(&again.stdout).contains(&format!("{points} points, 0 to measure")));
    }
    fs::remove_dir_all(out).unwrap();
}

#[test]
fn what_a_testbed_cannot_do_is_refused_and_names_are_suggested() {
    let out = scratch("refused");
    for (words, part) in [
        ("run overcommit --testbed netns", "limit the memory of the switch"),
        ("run cstates", "it can on --testbed netns, --testbed ssh"),
        ("run config_mtuu", "did you mean `config_mtu`"),
        ("run vs_tpc", "did you mean `vs_tcp`"),
        ("run dctcp_node", "did you mean `dctcp_nodes`"),
        ("run config_gen2", "there is nothing like it here"),
        ("run vs_tcp --testbed netns --protocols dctcp", "those on --testbed sim do"),
        ("run vs_tcp --testbed ssh", "--cluster FILE.toml is needed"),
        ("run vs_tcp --testbed netns --engine slurm", "a scheduler's jobs simulate nodes"),
        ("run vs_tcp --client-ports 3", "--set client_ports=N"),
    ] {
        let output = cperf(words, &out);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}: {said}");
        assert!(said.contains(part), "{words}: {said}");
    }
    assert!(!out.exists(), "nothing was begun");
}
