//! Whole runs on machines reached by SSH: real sshds, one a network namespace, with a network for data and another one
//! for control. Needs user namespaces and an sshd, and fails without them.
//!
//! Has a `main` of its own: a user namespace must be entered while the process has one thread.

#[path = "lab/collects.rs"]
mod collects;
mod lab;
#[path = "lab/starts.rs"]
mod starts;
mod veth;
#[path = "lab/ways.rs"]
mod ways;

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::time::{Duration, SystemTime};

use lab::{Lab, control, stderr};
use serde_json::Value;

type Result<T> = std::result::Result<T, String>;
type Check = fn(&mut Lab) -> Result<()>;
type Measure = fn(&str) -> Result<()>;

const CHECKS: [(&str, Check); 12] = [
    ("the_program_is_copied_once_and_whole", copied_once),
    ("eight_machines_run_w4_with_homa_and_tcp", eight_machines),
    ("the_doctor_finds_a_cut_link_and_no_more_than_there_is", doctor),
    ("settings_are_changed_written_down_and_put_back", settings),
    ("machines_behind_a_jump_host", jump_host),
    ("an_unknown_host_key_is_refused_and_another_one_too", host_keys),
    ("a_wrong_key_is_told_and_what_to_do", wrong_key),
    ("an_agents_keys_log_in", agent),
    ("a_key_with_a_password_asks_for_it", protected_key),
    ("both_planes_may_be_of_ipv6", ways::ipv6),
    ("an_ordinary_user_starts_nodes_by_sudo", ways::sudo),
    ("a_congestion_control_that_is_missing_is_told_before_anything_runs", ways::congestion_control),
];

fn main() -> ExitCode {
    const MEASURES: [(&str, Measure); 2] =
        [("CPERF_SSH_STARTS", starts::measure), ("CPERF_SSH_COLLECT", collects::measure)];
    for (variable, measure) in MEASURES {
        if let Ok(sizes) = std::env::var(variable) {
            return match measure(&sizes) {
                Ok(()) => ExitCode::SUCCESS,
                Err(why) => {
                    eprintln!("{why}");
                    ExitCode::FAILURE
                }
            };
        }
    }
    let lab = match Lab::build(8) {
        Ok(lab) => RefCell::new(lab),
        Err(why) => {
            eprintln!("cannot build a cluster: {why}");
            return ExitCode::FAILURE;
        }
    };
    veth::run_each(&CHECKS, |(name, _)| name, |(_, check)| check(&mut lab.borrow_mut()))
}

/// The shortest run that there is.
const SHORT: [&str; 10] =
    ["w2", "--protocols", "tcp", "--slowdown", "fixed", "--seconds", "0.3", "--warmup", "0.1", "--gbps=0.005"];

fn run(lab: &mut Lab, cluster: &Path, words: &[&str]) -> Result<(Output, std::path::PathBuf)> {
    let out = lab.fresh("out");
    let output = start(lab, cluster, words, &out).output().map_err(|err| err.to_string())?;
    Ok((output, out))
}

fn start(lab: &Lab, cluster: &Path, words: &[&str], out: &Path) -> Command {
    let mut command = lab.cperf();
    command.args(["run", "--testbed", "ssh", "--format", "json", "--cluster"]).arg(cluster);
    command.args(words).arg("--out").arg(out);
    command
}

fn ended(output: &Output, code: i32) -> Result<()> {
    let found = output.status.code();
    if found == Some(code) { Ok(()) } else { Err(format!("exit code {found:?}, not {code}: {}", stderr(output))) }
}

fn says(output: &Output, part: &str) -> Result<()> {
    let text = stderr(output);
    if text.contains(part) { Ok(()) } else { Err(format!("no `{part}` in: {text}")) }
}

fn holds(what: bool, text: impl FnOnce() -> String) -> Result<()> {
    if what { Ok(()) } else { Err(text()) }
}

/// What a machine's namespace has: a kernel parameter, the MTU and the queueing discipline of the data plane.
fn settings_of(lab: &Lab, node: usize) -> Result<[String; 3]> {
    let here = cperf::sys::Namespace::current().map_err(|err| err.to_string())?;
    let inside = || -> std::io::Result<[String; 3]> {
        let word = |words: &[&str], after: &str| -> std::io::Result<String> {
            let text = Command::new(words[0]).args(&words[1..]).output()?.stdout;
            let text = String::from_utf8_lossy(&text).into_owned();
            let mut all = text.split_whitespace().skip_while(|word| *word != after).skip(1);
            Ok(all.next().unwrap_or_default().to_owned())
        };
        Ok([
            fs::read_to_string("/proc/sys/net/ipv4/tcp_max_syn_backlog")?.trim().to_owned(),
            word(&["ip", "-o", "link", "show", "dev", lab::DATA], "mtu")?,
            word(&["tc", "qdisc", "show", "dev", lab::DATA], "qdisc")?,
        ])
    };
    cperf::sys::enter(lab.net.namespace(node)).map_err(|err| err.to_string())?;
    let found = inside();
    cperf::sys::enter(&here).map_err(|err| err.to_string())?;
    found.map_err(|err| err.to_string())
}

fn settings(lab: &mut Lab) -> Result<()> {
    let cluster = lab.cluster(2, "", |_| String::new())?;
    let setup = |lab: &Lab, words: &[&str]| {
        let mut command = lab.cperf();
        command.args(["setup", "--cluster"]).arg(&cluster).args(words).output().map_err(|err| err.to_string())
    };
    let all = |lab: &Lab| -> Result<Vec<_>> { (0..2).map(|node| settings_of(lab, node)).collect() };
    let before = all(lab)?;
    let wanted = ["--only-given", "--mtu", "1400", "--qdisc", "pfifo", "--sysctl", "net.ipv4.tcp_max_syn_backlog=4321"];
    let dry = setup(lab, &[&wanted[..], &["--dry-run"]].concat())?;
    ended(&dry, 0)?;
    let text = String::from_utf8_lossy(&dry.stdout).into_owned();
    for part in
        ["node 1", "ip link set dev veth0 mtu 1400", "tc qdisc replace dev veth0 root pfifo", "sysctl -w net.ipv4"]
    {
        holds(text.contains(part), || format!("no `{part}` in: {text}"))?;
    }
    holds(all(lab)? == before, || "a dry run changes something".to_owned())?;

    // One of the settings does not exist: the others are made, and it is told.
    let done = setup(lab, &[&wanted[..], &["--sysctl", "net.ipv4.no_such_thing=1"]].concat())?;
    ended(&done, 1)?;
    says(&done, "2 settings could not be changed")?;
    let changed = ["4321", "1400", "pfifo"].map(str::to_owned);
    let found = all(lab)?;
    holds(found.iter().all(|one| *one == changed), || format!("not changed: {found:?}"))?;
    let records = || fs::read_dir(lab.directory()).into_iter().flatten().flatten();
    let records = || records().filter(|entry| entry.file_name().to_string_lossy().starts_with("setup-")).count();
    holds(records() == 2, || "what was is not written down for each machine".to_owned())?;

    let back = setup(lab, &["--restore"])?;
    ended(&back, 0)?;
    let found = all(lab)?;
    holds(found == before, || format!("not put back: {found:?}, it was {before:?}"))?;
    holds(records() == 0, || "what was is still written down".to_owned())
}

fn copied_once(lab: &mut Lab) -> Result<()> {
    let cluster = lab.cluster(2, "", |_| String::new())?;
    let modified = || -> Vec<(String, SystemTime)> {
        let entries = fs::read_dir(lab.directory().join("bin")).into_iter().flatten().flatten();
        entries
            .map(|e| (e.file_name().to_string_lossy().into_owned(), e.metadata().unwrap().modified().unwrap()))
            .collect()
    };
    holds(modified().is_empty(), || "the program is there before the first run".to_owned())?;
    let mut command = start(lab, &cluster, &SHORT, &lab.dir.join("copy1"));
    ended(&command.output().map_err(|e| e.to_string())?, 0)?;
    let first = modified();
    holds(first.len() == 1 && first[0].0.starts_with("cperf-"), || format!("{first:?}"))?;
    let there = fs::read(lab.directory().join("bin").join(&first[0].0)).map_err(|e| e.to_string())?;
    holds(there == fs::read(lab.program()).map_err(|e| e.to_string())?, || "the copy differs".to_owned())?;
    let mut command = start(lab, &cluster, &SHORT, &lab.dir.join("copy2"));
    ended(&command.output().map_err(|e| e.to_string())?, 0)?;
    holds(modified() == first, || format!("it was copied again: {first:?} {:?}", modified()))?;
    holds(lab.dir.join("copy2/tcp_w2-1.rtts").is_file(), || "no samples of node 1".to_owned())?;
    let left: Vec<_> = fs::read_dir(lab.directory().join("runs")).into_iter().flatten().flatten().collect();
    holds(left.is_empty(), || format!("files are left on the machines: {left:?}"))?;
    lab.await_silence(Duration::from_secs(5))
}

/// There are results and samples of Homa and of TCP, of all nodes.
fn both_measured(json: &Value, out: &Path, workload: &str, nodes: usize) -> Result<()> {
    for (at, protocol) in ["homa", "tcp"].into_iter().enumerate() {
        let result = &json["results"][at];
        holds(result["protocol"] == protocol && result["samples"].as_u64() > Some(0), || result.to_string())?;
        holds(result["missing_nodes"] == serde_json::json!([]), || result["missing_nodes"].to_string())?;
        for node in 0..nodes {
            let name = format!("{protocol}_{workload}-{node}.rtts");
            let size = fs::metadata(out.join(&name)).map_err(|err| format!("{name}: {err}"))?.len();
            holds(size > 0, || format!("{name} is empty"))?;
        }
    }
    Ok(())
}

fn eight_machines(lab: &mut Lab) -> Result<()> {
    let cluster = lab.cluster(8, "", |_| String::new())?;
    let words = [
        "w4",
        "--protocols",
        "homa,tcp",
        "--seconds",
        "2",
        "--warmup",
        "0.5",
        "--gbps",
        "0.05",
        "--unloaded-samples",
        "2",
    ];
    let (output, out) = run(lab, &cluster, &words)?;
    ended(&output, 0)?;
    let json: Value = serde_json::from_slice(&output.stdout).map_err(|err| err.to_string())?;
    both_measured(&json, &out, "w4", 8)?;
    let manifest = &json["manifest"];
    for node in 0..8 {
        let address = manifest["nodes"][node]["address"].as_str().unwrap_or_default();
        holds(address == format!("10.77.0.{}", node + 1), || format!("node {node} talks by {address}"))?;
        let host = manifest["testbed"]["machines"][node]["host"].as_str().unwrap_or_default();
        holds(host == control(node).to_string(), || format!("node {node} is controlled by {host}"))?;
        holds(out.join(format!("node{node}.log")).is_file(), || format!("no log of node {node}"))?;
    }
    holds(out.join("traces/node7.tt").is_file(), || "no trace of node 7".to_owned())?;
    let files = manifest["files"].as_array().ok_or("no files in the manifest")?;
    holds(files.iter().any(|file| file["name"] == "homa_w4-7.rtts" && file["sha256"].is_string()), || {
        format!("{files:?}")
    })?;
    lab.await_silence(Duration::from_secs(5))
}

fn doctor(lab: &mut Lab) -> Result<()> {
    let cluster = lab.cluster(3, "", |_| String::new())?;
    let look = |lab: &Lab| {
        let output =
            lab.cperf().args(["doctor", "--format", "json", "--sends", "50", "--cluster"]).arg(&cluster).output();
        output.map_err(|err| err.to_string())
    };
    let bad = |output: &Output| -> Result<Vec<String>> {
        let json: Value = serde_json::from_slice(&output.stdout).map_err(|err| format!("{err}: {}", stderr(output)))?;
        let findings = json["findings"].as_array().cloned().unwrap_or_default();
        let bad = findings.iter().filter(|finding| finding["level"] == "bad");
        Ok(bad.map(|finding| format!("{}: {}", finding["node"], finding["found"])).collect())
    };
    let well = look(lab)?;
    ended(&well, 0)?;
    holds(bad(&well)?.is_empty(), || format!("{:?}", bad(&well)))?;
    lab.set_data_link(1, false)?;
    let cut = look(lab);
    lab.set_data_link(1, true)?;
    let cut = cut?;
    ended(&cut, 3)?;
    let found = bad(&cut)?.join("; ");
    for part in ["1: \"veth0 has no link", "0: \"node 1 cannot be reached", "2: \"node 1 cannot be reached"] {
        holds(found.contains(part), || format!("no `{part}` in {found}"))?;
    }
    holds(!found.contains("0: \"node 2"), || found.clone())?;
    lab.await_silence(Duration::from_secs(5))
}

/// The machines are called by their data-plane addresses, where this process has none: only the jump host gets there.
fn jump_host(lab: &mut Lab) -> Result<()> {
    let data = |node: usize| format!("host = \"10.77.0.{}\"", node + 1);
    let alone = lab.cluster(3, "timeout_s = 1", data)?;
    let (output, _) = run(lab, &alone, &SHORT)?;
    ended(&output, 3)?;
    says(&output, "3 of 3 nodes cannot be used")?;
    says(&output, "10.77.0.2: its port 2222 cannot be reached")?;
    let through = lab.cluster(3, &format!("[jump]\nhost = \"{}\"", control(5)), data)?;
    let (output, out) = run(lab, &through, &SHORT)?;
    ended(&output, 0)?;
    holds(out.join("tcp_w2-2.rtts").is_file(), || "no samples of node 2".to_owned())?;
    let unknown = lab.cluster(3, "[jump]\nhost = \"10.78.0.99\"\ntimeout_s = 1", data)?;
    let (output, _) = run(lab, &unknown, &SHORT)?;
    ended(&output, 3)?;
    says(&output, "the jump host: 10.78.0.99")
}

fn host_keys(lab: &mut Lab) -> Result<()> {
    let lines = lab.host_lines()?;
    let empty = lab.fresh("known");
    // Node 1 is unknown, node 2 has another key.
    let mut known: Vec<String> = lines.lines().map(str::to_owned).collect();
    known.remove(1);
    let other = lab.fresh("other");
    lab.keygen(&other, "")?;
    let public = fs::read_to_string(other.with_extension("pub")).unwrap_or_default();
    known[1] = format!("[{}]:2222 {public}", control(2)).trim().to_owned();
    fs::write(&empty, known.join("\n") + "\n").map_err(|err| err.to_string())?;
    let before = fs::read(&empty).unwrap_or_default();
    let cluster = lab.cluster(3, "", |_| format!("known_hosts = \"{}\"", empty.display()))?;
    let (output, out) = run(lab, &cluster, &SHORT)?;
    ended(&output, 3)?;
    says(&output, "2 of 3 nodes cannot be used")?;
    says(&output, "node 1: 10.78.0.2: its host key SHA256:")?;
    says(&output, "is unknown, and none is accepted unseen")?;
    says(&output, "ssh-keyscan -p 2222 10.78.0.2 >>")?;
    says(&output, "node 2: 10.78.0.3: its key SHA256:")?;
    says(&output, "another machine answers there")?;
    holds(!out.exists(), || "a run that never was has left a directory".to_owned())?;
    holds(fs::read(&empty).unwrap_or_default() == before, || "known_hosts was changed".to_owned())?;
    lab.await_silence(Duration::from_secs(5))
}

fn wrong_key(lab: &mut Lab) -> Result<()> {
    let wrong = lab.fresh("wrong");
    lab.keygen(&wrong, "")?;
    let cluster = lab.cluster(2, &format!("key = \"{}\"", wrong.display()), |_| String::new())?;
    let (output, _) = run(lab, &cluster, &SHORT)?;
    ended(&output, 3)?;
    says(&output, "2 of 2 nodes cannot be used")?;
    says(&output, "cannot log in as tester: key")?;
    says(&output, "is not accepted there: add its public half to ~/.ssh/authorized_keys")
}

fn agent(lab: &mut Lab) -> Result<()> {
    let cluster = lab.cluster(2, "agent = true", |_| String::new())?;
    let (output, _) = run(lab, &cluster, &SHORT)?;
    ended(&output, 3)?;
    says(&output, "no agent: SSH_AUTH_SOCK is not set")?;
    let socket = lab.fresh("agent");
    let mut daemon = Command::new("ssh-agent");
    daemon.arg("-D").arg("-a").arg(&socket).stdout(std::process::Stdio::null());
    let mut daemon = daemon.spawn().map_err(|err| format!("ssh-agent (package openssh-client): {err}"))?;
    let result = with_agent(lab, &cluster, &socket);
    let _ = daemon.kill().and_then(|()| daemon.wait().map(drop));
    result
}

fn with_agent(lab: &mut Lab, cluster: &Path, socket: &Path) -> Result<()> {
    let begun = std::time::Instant::now();
    while !socket.exists() && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut attempt = |words: &str| {
        let out = lab.fresh("out");
        let output = start(lab, cluster, &SHORT, &out).env("SSH_AUTH_SOCK", socket).output();
        output.map_err(|err| format!("{words}: {err}"))
    };
    let output = attempt("without keys")?;
    ended(&output, 3)?;
    says(&output, "the agent has no keys")?;
    let key = lab.dir.join("home/.ssh/id_ed25519");
    let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", socket).status();
    holds(added.is_ok_and(|status| status.success()), || "ssh-add fails".to_owned())?;
    let out = lab.fresh("out");
    let output = start(lab, cluster, &SHORT, &out).env("SSH_AUTH_SOCK", socket).output();
    ended(&output.map_err(|err| err.to_string())?, 0)
}

fn protected_key(lab: &mut Lab) -> Result<()> {
    let key = lab.fresh("protected");
    lab.keygen(&key, "open sesame")?;
    let ssh = lab.dir.join("home/.ssh/authorized_keys");
    let both = fs::read_to_string(&ssh).unwrap_or_default()
        + &fs::read_to_string(key.with_extension("pub")).unwrap_or_default();
    fs::write(&ssh, both).map_err(|err| err.to_string())?;
    let cluster = lab.cluster(2, &format!("key = \"{}\"", key.display()), |_| String::new())?;
    let attempt = |lab: &mut Lab, password: Option<&str>| {
        let out = lab.fresh("out");
        let mut command = start(lab, &cluster, &SHORT, &out);
        if let Some(text) = password {
            command.env("CPERF_KEY_PASSPHRASE", text);
        }
        command.output().map_err(|err| err.to_string())
    };
    let output = attempt(lab, None)?;
    ended(&output, 3)?;
    says(&output, "is protected by a password: `ssh-add")?;
    says(&output, "CPERF_KEY_PASSPHRASE")?;
    let output = attempt(lab, Some("open barley"))?;
    ended(&output, 3)?;
    says(&output, "the password in CPERF_KEY_PASSPHRASE is not the key's")?;
    ended(&attempt(lab, Some("open sesame"))?, 0)
}
