//! Points on nodes that are not simulated: each measurement is a `cperf run` of its own, whose directory stays, and its
//! figures are worked out from the files there as those of simulated nodes are.

use std::fs::{self, File};
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use cp_node::samples::Sample;
use serde_json::Value;

use super::outcome::Outcome;
use super::plan::PointSpec;
use crate::cli::{Protocol, TestbedKind};
use crate::error::Stop;
use crate::report::rtts;
use crate::sim::cluster::{Unloaded, Watch};
use crate::sim::spec::SimSpec;

/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// The rate by which slowdowns are judged where links have none, 10^9 bit/s.
const ANY_LINK_GBPS: f64 = 25.0;

/// What came of a run, and the times without load that it began with.
#[derive(Debug)]
pub struct Real {
    /// Its samples.
    pub outcome: Outcome,
    /// Times without load.
    pub unloaded: Unloaded,
    /// How many nodes there were.
    pub nodes: u32,
    /// Rate of its links, 10^9 bit/s, for slowdowns.
    pub link_gbps: f64,
}

/// The words of `cperf` that measure `spec` once.
pub fn words(spec: &PointSpec, cluster: Option<&Path>) -> Vec<String> {
    let sim = &spec.sim;
    let mut words: Vec<String> = vec!["run".into(), sim.workload.clone()];
    let mut add = |option: &str, value: String| words.extend([format!("--{option}"), value]);
    add("testbed", spec.testbed.name().to_owned());
    if let Some(cluster) = cluster {
        add("cluster", cluster.display().to_string());
    }
    match sim.beside {
        Some(other) => add("protocols", format!("{},{}", sim.protocol.name(), other.name())),
        None => add("protocols", sim.protocol.name().to_owned()),
    }
    // Machines are as many as there are, unless the experiment says so.
    if spec.testbed == TestbedKind::Netns || sim.nodes != SimSpec::default().nodes {
        add("nodes", sim.nodes.to_string());
    }
    for (option, value) in [("client-nodes", sim.client_nodes), ("server-nodes", sim.server_nodes)] {
        if value != 0 {
            add(option, value.to_string());
        }
    }
    add("gbps", sim.gbps.unwrap_or(0.0).to_string());
    add("seconds", sim.measure_s.to_string());
    add("warmup", sim.warmup_s.to_string());
    add("seed", sim.seed.to_string());
    add("client-max", sim.client_max.to_string());
    add("slowdown", super::plan::text(&serde_json::json!(spec.slowdown)));
    if spec.testbed == TestbedKind::Netns {
        add("mtu", sim.mtu_bytes.to_string());
        add("loss", sim.loss.to_string());
        if sim.shaped {
            add("link-gbps", sim.link_gbps.to_string());
        }
        if sim.shaped && sim.switch_buffer_bytes != SimSpec::default().switch_buffer_bytes {
            add("switch-buffer", sim.switch_buffer_bytes.to_string());
        }
    }
    let tcp = if sim.protocol == Protocol::Homa { "" } else { "tcp-" };
    for (option, value) in [("client-ports", sim.client_ports), ("server-ports", sim.server_ports)] {
        add(&format!("{tcp}{option}"), value.unwrap_or(1).to_string());
    }
    if sim.beside.is_some() {
        words.push("--together".to_owned());
    }
    let mut add = |option: &str, value: String| words.extend([format!("--{option}"), value]);
    for (name, value) in &sim.homa {
        add("homa", format!("{name}={value}"));
    }
    for (name, value) in &sim.node {
        add(&name.replace('_', "-"), super::plan::text(value));
    }
    words
}

/// Measures `spec` once, in the directory `dir`, which does not exist.
///
/// # Errors
/// [`Stop`] of the run, or that it failed: with what it said last.
pub fn measure(spec: &PointSpec, cluster: Option<&Path>, dir: &Path, watch: &mut Watch<'_>) -> anyhow::Result<Real> {
    let program = std::env::current_exe().context("finding this program")?;
    let (printed, said) = (dir.with_extension("txt"), dir.with_extension("log"));
    let create = |path: &PathBuf| File::create(path).with_context(|| format!("creating {}", path.display()));
    let mut command = Command::new(program);
    command.args(words(spec, cluster)).arg("--out").arg(dir);
    command.stdin(Stdio::null()).stdout(create(&printed)?).stderr(create(&said)?);
    // Ctrl-C at the terminal reaches this process, which tells its run.
    crate::sys::ends_with_parent(&mut command);
    let mut child = command.spawn().context("starting a run")?;
    let mut told = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if !told && watch(0.0).is_break() {
            told = true;
            // It keeps what it has and ends by itself.
            crate::sys::interrupt(child.id())?;
        }
        std::thread::sleep(LOOK);
    };
    judge(status, &said)?;
    read(spec, dir)
}

/// How a run ended, as an error if it was not well.
fn judge(status: ExitStatus, said: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    let _ = File::open(said).and_then(|mut file| file.read_to_string(&mut text));
    // What it said last may have several lines: those of a node's log, say.
    let last = text.rfind("\ncperf: ").map_or(text.as_str(), |at| &text[at..]).trim().trim_start_matches("cperf: ");
    let last = if last.is_empty() { "it said nothing".to_owned() } else { last.to_owned() };
    match status.code() {
        Some(0) => Ok(()),
        Some(2) => Err(Stop::Usage(last).into()),
        Some(3) => Err(Stop::Missing(text.trim().trim_start_matches("cperf: ").to_owned()).into()),
        Some(130) => Err(Stop::Interrupted.into()),
        _ => bail!("{last} ({status}; all that it said is in {})", said.display()),
    }
}

/// What a run left.
fn read(spec: &PointSpec, dir: &Path) -> anyhow::Result<Real> {
    let sim = &spec.sim;
    let json: Value = serde_json::from_slice(&fs::read(dir.join("results.json"))?).context("reading results.json")?;
    let result = &json["results"][0];
    let stem = format!("{}_{}", sim.protocol.name(), sim.workload);
    let mut samples = Vec::new();
    let nodes = json["options"]["nodes"].as_u64().and_then(|nodes| u32::try_from(nodes).ok()).unwrap_or(sim.nodes);
    for node in 0..nodes {
        let path = dir.join(format!("{stem}-{node}.rtts"));
        let (service, due) = (times(&path)?, times(&path.with_extension("rtts.due"))?);
        let both = service.into_iter().zip(due);
        samples.extend(both.map(|((len, service_ns), (_, due_ns))| Sample { len, service_ns, due_ns }));
    }
    let mut unloaded: std::collections::BTreeMap<u32, Vec<u64>> = Default::default();
    if dir.join("unloaded.rtts").exists() {
        for (length, rtt_ns) in times(&dir.join("unloaded.rtts"))? {
            unloaded.entry(length).or_default().push(rtt_ns);
        }
    }
    let ports = result["ports"].as_array().filter(|ports| !ports.is_empty());
    let sum = |port: &Value, name: &str| match &port[name] {
        Value::Array(levels) => levels.iter().filter_map(Value::as_u64).sum(),
        one => one.as_u64().unwrap_or(0),
    };
    let all = |names: &[&str]| {
        ports.map(|ports| ports.iter().flat_map(|port| names.iter().map(move |name| sum(port, name))).sum::<u64>())
    };
    let outcome = Outcome {
        samples,
        measured_s: result["elapsed_s"].as_f64().unwrap_or(sim.measure_s),
        failed: result["errors"].as_u64().unwrap_or(0),
        outstanding: result["outstanding"].as_u64().unwrap_or(0),
        converged: true,
        packets: all(&["sent_packets"]),
        dropped: all(&["dropped_packets", "uplink_dropped_packets"]),
        resent_percent: result["resent_percent"].as_f64(),
        switch: None,
    };
    let link_gbps = json["options"]["link_gbps"].as_f64();
    let link_gbps = link_gbps.or_else(|| json["options"]["link_mbps"].as_f64().map(|mbps| mbps / 1e3));
    let (unloaded, link_gbps) = (unloaded.into_iter().collect(), link_gbps.unwrap_or(ANY_LINK_GBPS));
    Ok(Real { outcome, unloaded, nodes, link_gbps })
}

/// Lengths and times of a file of samples; none if there is no such file: a node that is no client has none.
fn times(path: &Path) -> anyhow::Result<Vec<(u32, u64)>> {
    let mut all = Vec::new();
    let Ok(file) = File::open(path) else { return Ok(all) };
    rtts::read(BufReader::new(file), |sample| all.push((sample.length, sample.rtt_ns)))
        .with_context(|| format!("reading {}", path.display()))?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::super::bundled;
    use super::super::file;
    use super::super::plan::Plan;
    use super::*;
    use crate::cli::{Cli, Command as Sub};

    /// What is measured is a command line that exists, on every testbed that an experiment names.
    #[test]
    fn every_points_words_are_understood() {
        for name in bundled::names() {
            let file = file::File::parse(&bundled::find(&name).unwrap()).unwrap();
            let Ok(plan) = Plan::on(TestbedKind::Netns, file, &[]) else { continue };
            for point in plan.points {
                let words = words(&point.spec, None);
                let line = std::iter::once("cperf").chain(words.iter().map(String::as_str));
                let cli = Cli::read(line).unwrap_or_else(|err| panic!("{name}: {err}"));
                let Sub::Run(args) = cli.command else { unreachable!("it is a run") };
                args.refuse_others(false).unwrap_or_else(|err| panic!("{name}: {err}"));
                crate::run::check(&args).unwrap_or_else(|err| panic!("{name}: {err}"));
            }
        }
    }

    #[test]
    fn a_failed_run_is_told_by_its_last_line() {
        use std::os::unix::process::ExitStatusExt as _;
        let said = std::env::temp_dir().join(format!("cperf-real-{}.log", std::process::id()));
        fs::write(&said, "cperf: warming up\ncperf: node 2 has ended: signal 9\n  node2.log: x\n\n").unwrap();
        let error = |code: i32| judge(ExitStatus::from_raw(code << 8), &said).unwrap_err();
        assert!(error(1).to_string().starts_with("node 2 has ended: signal 9\n  node2.log: x (exit status: 1; all"));
        assert_eq!([2, 3, 130, 1].map(|code| crate::error::code(&error(code))), [2, 3, 130, 1]);
        assert!(judge(ExitStatus::from_raw(0), &said).is_ok());
        fs::remove_file(said).unwrap();
    }
}
