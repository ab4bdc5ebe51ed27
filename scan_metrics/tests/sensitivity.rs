//! How small a difference is found, and how often: one thing made odd at a time, at each node in turn, of runs of 20 nodes.
//! Source: cperf.md 4.4, sensitivity target: found in at least 95 of 100.
//!
//! Data: `even`, 20 simulated nodes that lose one packet in 50, messages of 2000 bytes. Cores: 20 nodes of four cores each, made of
//! one of those of `cores` (real packets) and scattered as these are.
//!
//! Long form, over runs of one's own: `SENSITIVITY_RUNS=DIR cargo test --release -p scan_metrics --test sensitivity -- --nocapture`,
//! with a directory of runs for each seed in DIR (README says how they are made).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use scan_metrics::read::load;
use scan_metrics::scan::finding::{Finding, Level};
use scan_metrics::scan::{Options, scan};

/// Share of trials in which what is odd must be found.
const FOUND: f64 = 0.95;

/// A run in memory: files by name, each a list of lines (core, counter, value, text).
#[derive(Clone)]
struct Run {
    files: BTreeMap<String, Vec<Line>>,
    others: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone)]
struct Line {
    core: u64,
    name: String,
    value: u64,
    text: String,
}

impl Run {
    fn read(dir: &Path) -> Self {
        let (mut files, mut others) = (BTreeMap::new(), BTreeMap::new());
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let plain = name.trim_end_matches(".gz").to_owned();
            let mut buffer = Vec::new();
            if plain.ends_with(".metrics") {
                files.insert(plain, lines(load(&entry.path(), &mut buffer).unwrap()));
            } else if plain == "manifest.json" {
                others.insert(plain, fs::read(entry.path()).unwrap());
            }
        }
        Self { files, others }
    }

    fn nodes(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }

    fn sum(&self, file: &str, counter: &str) -> u64 {
        self.files[file].iter().filter(|line| line.name == counter).map(|line| line.value).sum()
    }

    /// Changes a counter of a file, on all cores.
    fn change(&mut self, file: &str, counter: &str, to: impl Fn(u64) -> u64) {
        for line in self.files.get_mut(file).unwrap().iter_mut().filter(|line| line.name == counter) {
            line.value = to(line.value);
        }
    }

    /// Adds to a counter of all files but one, the same to each, up to one.
    fn spread(&mut self, not: &str, counter: &str, amount: i64) {
        let others: Vec<_> = self.nodes().into_iter().filter(|name| name != not).collect();
        let count = others.len() as i64;
        for (at, name) in others.iter().enumerate() {
            let part = (amount * (at as i64 + 1)) / count - (amount * at as i64) / count;
            self.change(name, counter, |value| value.saturating_add_signed(part));
        }
    }

    fn findings(&self, test: &str) -> Vec<Finding> {
        let dir = std::env::temp_dir().join(format!("scan-sensitivity-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        for (name, all) in &self.files {
            let mut text = String::new();
            for Line { name, value, text: about, .. } in all {
                writeln!(text, "{name:<30} {value:>20} {about}").unwrap();
            }
            fs::write(dir.join(name), text).unwrap();
        }
        for (name, bytes) in &self.others {
            fs::write(dir.join(name), bytes).unwrap();
        }
        let found = scan(&Options { roots: vec![dir.clone()], ..Options::default() }).unwrap();
        fs::remove_dir_all(dir).unwrap();
        found.findings.into_iter().filter(|finding| finding.level > Level::Info).collect()
    }
}

fn lines(text: &str) -> Vec<Line> {
    let mut core = 0;
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, value) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        if name == "core" {
            core = value;
        }
        Some(Line { core, name, value, text: words.collect::<Vec<_>>().join(" ") })
    };
    text.lines().filter_map(parse).collect()
}

fn number(file: &str) -> u64 {
    file.trim_end_matches(".metrics").rsplit('-').next().unwrap().parse().unwrap()
}

/// Runs to plant in: of the long form if there are, else the one that comes along.
fn runs() -> Vec<Run> {
    let Some(dir) = std::env::var_os("SENSITIVITY_RUNS") else {
        return vec![Run::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/even"))];
    };
    let mut dirs: Vec<PathBuf> = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).collect();
    dirs.sort();
    dirs.iter().map(|dir| Run::read(dir)).filter(|run| !run.files.is_empty()).collect()
}

/// Trials of one thing: at each node of each run.
fn trials(plant: impl Fn(&mut Run, &str)) -> Vec<(Run, u64)> {
    let planted = |run: &Run, file: &str| {
        let mut run = run.clone();
        plant(&mut run, file);
        (run, number(file))
    };
    runs().iter().flat_map(|run| run.nodes().into_iter().map(|file| planted(run, &file)).collect::<Vec<_>>()).collect()
}

/// In how many the node stands before all others among nodes' findings.
fn first(name: &str, trials: &[(Run, u64)], is: impl Fn(&Finding) -> bool) -> f64 {
    let found = trials.iter().filter(|(run, node)| {
        let findings = run.findings(name);
        let first = findings.iter().find(|finding| finding.node.is_some());
        let right = first.is_some_and(|finding| finding.node == Some(*node) && is(finding));
        if !right {
            println!("{name}, node {node}: {:?}", first.map(|finding| (&finding.what, finding.node)));
        }
        right
    });
    let (found, all) = (found.count(), trials.len());
    println!("{name}: found first in {found} of {all}");
    found as f64 / all as f64
}

#[test]
fn clean_runs_have_no_odd_node() {
    let runs = runs();
    let odd = runs.iter().filter(|run| run.findings("clean").iter().any(|finding| finding.node.is_some())).count();
    println!("clean: {odd} of {} with a node that is odd", runs.len());
    assert!(odd as f64 <= 0.05 * runs.len() as f64, "{odd} of {}", runs.len());
}

/// Packets of one node are lost twice as often as others': its peers ask it for twice as much again.
#[test]
fn a_node_that_is_asked_twice_as_often_is_found() {
    let trials = trials(|run, file| {
        let more = run.sum(file, "packets_rcvd_RESEND") as i64;
        run.change(file, "packets_rcvd_RESEND", |count| 2 * count);
        run.change(file, "resent_packets", |count| 2 * count);
        run.spread(file, "packets_sent_RESEND", more);
    });
    let share = first("asked twice as often", &trials, |finding| finding.class.name() == "retransmission");
    assert!(share >= FOUND);
}

/// Packets toward one node are lost twice as often: it asks for twice as much again.
#[test]
fn a_node_that_asks_twice_as_often_is_found() {
    let trials = trials(|run, file| {
        let more = run.sum(file, "packets_sent_RESEND") as i64;
        run.change(file, "packets_sent_RESEND", |count| 2 * count);
        run.change(file, "resent_packets_used", |count| 2 * count);
        run.change(file, "early_resends", |count| 2 * count);
        run.spread(file, "packets_rcvd_RESEND", more);
        run.spread(file, "resent_packets", more);
    });
    let share = first("asks twice as often", &trials, |finding| finding.class.name() == "retransmission");
    assert!(share >= FOUND);
}

/// A node carries a tenth less, as client and as server; its peers miss what it does not send or take.
#[test]
fn a_tenth_less_throughput_is_found() {
    let trials = trials(|run, file| {
        let names: Vec<_> = run.files[file].iter().map(|line| line.name.clone()).collect();
        let mirrored = |name: &str| {
            let swap = |a: &str, b: &str| name.strip_prefix(a).map(|rest| format!("{b}{rest}"));
            swap("packets_sent_", "packets_rcvd_")
                .or_else(|| swap("packets_rcvd_", "packets_sent_"))
                .or_else(|| swap("client_request", "server_request"))
                .or_else(|| swap("server_request", "client_request"))
                .or_else(|| swap("client_response", "server_response"))
                .or_else(|| swap("server_response", "client_response"))
        };
        for name in names.iter().filter(|name| !matches!(name.as_str(), "time_cycles" | "cpu_khz" | "core")) {
            let less = run.sum(file, name) / 10;
            run.change(file, name, |value| value - value / 10);
            if let Some(mirrored) = mirrored(name) {
                run.spread(file, &mirrored, -(less as i64));
            }
        }
    });
    let share = first("a tenth less", &trials, |finding| finding.class.name() == "traffic");
    assert!(share >= FOUND);
}

/// 20 nodes of four cores, made of a collected one: counters scattered by 1 %, times by 10 %, as they are between the collected.
fn many_cores(seed: u64) -> Run {
    let collected = Run::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cores"));
    let model = collected.files.values().next().unwrap();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut normal = || {
        let mut uniform = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            ((state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()
    };
    let mut run = Run { files: BTreeMap::new(), others: BTreeMap::new() };
    for node in 0..20 {
        let head = model.iter().take_while(|line| line.name != "core");
        let mut all: Vec<Line> = head.cloned().collect();
        for core in 0..4 {
            for line in model.iter().filter(|line| line.core == core % 2).skip_while(|line| line.name != "core") {
                let spread = if line.name.ends_with("_cycles") { 0.1 } else { 0.01 };
                let value =
                    if line.name == "core" { core } else { (line.value as f64 * (spread * normal()).exp()) as u64 };
                all.push(Line { core, value, ..line.clone() });
            }
        }
        run.files.insert(format!("homa_1000-{node}.metrics"), all);
    }
    run
}

/// Moves load to a core of a node, until it has 1.5 times what each of its fellows has.
fn overload(run: &mut Run, file: &str, core: u64) {
    let cores = 1 + run.files[file].iter().map(|line| line.core).max().unwrap();
    let rest = cores as f64 / (cores as f64 + 0.5);
    for line in run.files.get_mut(file).unwrap() {
        let waits = matches!(line.name.as_str(), "poll_cycles" | "blocked_cycles" | "timer_cycles");
        if !waits && !matches!(line.name.as_str(), "core" | "cpu_khz" | "time_cycles") {
            line.value = (line.value as f64 * rest * if line.core == core { 1.5 } else { 1.0 }).round() as u64;
        }
    }
}

#[test]
fn a_core_with_half_as_much_again_as_its_fellows_is_found() {
    let count = if std::env::var_os("SENSITIVITY_RUNS").is_some() { 100 } else { 20 };
    let clean: Vec<_> = (0..count).map(|seed| (many_cores(seed), 99)).collect();
    let odd = clean
        .iter()
        .filter(|(run, _)| run.findings("clean cores").iter().any(|finding| finding.node.is_some()))
        .count();
    println!("clean cores: {odd} of {count} with a node that is odd");
    assert!(odd as f64 <= 0.05 * count as f64, "{odd} of {count}");
    let planted = |(at, (mut run, _)): (usize, (Run, u64))| {
        let (node, core) = (at as u64 * 7 % 20, at as u64 % 4);
        overload(&mut run, &format!("homa_1000-{node}.metrics"), core);
        (run, node)
    };
    let trials: Vec<_> = clean.into_iter().enumerate().map(planted).collect();
    assert!(first("a core of four", &trials, |finding| finding.letters().contains('C')) >= FOUND);
}
