//! What happens to a run on machines reached by SSH when something breaks: a node, an sshd, a link, a disk, a clock, in
//! start-up, while measuring and while collecting. Always: the right exit code, an account that names the machine, what
//! was measured kept, no process left.

mod lab;
mod veth;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

use lab::{Lab, kill};
use serde_json::Value;

type Result<T> = std::result::Result<T, String>;
type Check = fn(&mut Lab) -> Result<()>;

/// The machine that breaks.
const VICTIM: usize = 1;
const NODES: usize = 3;

const CHECKS: [(&str, Check); 9] = [
    ("a_clock_that_is_an_hour_off_is_told_and_changes_nothing", clock_off),
    ("a_node_killed_while_measuring", |lab| while_measuring(lab, kill_node, "node 1 died in `measuring`: signal 9")),
    ("an_sshd_killed_while_measuring", |lab| while_measuring(lab, kill_session, "node 1")),
    ("a_link_lost_while_measuring", |lab| {
        while_measuring(lab, cut_link, "data-plane interface veth0 has lost its link")
    }),
    ("a_disk_full_while_measuring", |lab| while_measuring(lab, fill_disk, "its disk is full")),
    ("a_node_killed_at_the_start", |lab| at_the_start(lab, kill_node, "node 1 died")),
    ("an_sshd_killed_at_the_start", |lab| at_the_start(lab, kill_session, "node 1")),
    ("a_node_killed_while_collecting", |lab| while_collecting(lab, kill_node)),
    ("an_sshd_killed_while_collecting", |lab| while_collecting(lab, kill_session)),
];

fn main() -> ExitCode {
    let lab = match Lab::build(NODES) {
        Ok(lab) => RefCell::new(lab),
        Err(why) => {
            eprintln!("cannot build a cluster: {why}");
            return ExitCode::FAILURE;
        }
    };
    veth::run_each(&CHECKS, |(name, _)| name, |(_, check)| check(&mut lab.borrow_mut()))
}

/// A run that lasts until something happens to it, on machines with small disks.
struct Run {
    child: Child,
    out: PathBuf,
    /// Directories of the machines.
    disks: Vec<PathBuf>,
}

impl Run {
    /// `odd`: more keys of the victim. `seconds`: of measuring.
    fn start(lab: &mut Lab, odd: &str, seconds: &str) -> Result<Self> {
        let root = lab.fresh("disks");
        let disks: Vec<_> = (0..NODES).map(|node| root.join(node.to_string())).collect();
        let said = |err: std::io::Error| err.to_string();
        for (node, disk) in disks.iter().enumerate() {
            fs::create_dir_all(disk).map_err(said)?;
            if node == VICTIM {
                lab::sys::mount_small(disk, 4 << 20).map_err(said)?;
            }
            // The program is there already, in one place.
            let bin = lab.directory().join("bin");
            fs::create_dir_all(&bin).and_then(|()| std::os::unix::fs::symlink(bin, disk.join("bin"))).map_err(said)?;
        }
        let each = |node: usize| {
            let odd = if node == VICTIM { odd } else { "" };
            format!("directory = \"{}\"\n{odd}", disks[node].display())
        };
        let cluster = lab.cluster(NODES, "silence_s = 3", each)?;
        let out = lab.fresh("out");
        let mut command = lab.cperf();
        command.args(["run", "w2", "--testbed", "ssh", "--format", "json", "--slowdown", "fixed", "--gbps", "0.005"]);
        command.args(["--protocols", "tcp", "--warmup", "0.2", "--seconds", seconds, "--cluster"]).arg(cluster);
        command.arg("--out").arg(&out);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|err| err.to_string())?;
        Ok(Self { child, out, disks })
    }

    /// Waits until the journal has `text`.
    fn await_text(&mut self, text: &str) -> Result<()> {
        self.wait(text, |run| fs::read_to_string(run.out.join("cperf.log")).is_ok_and(|log| log.contains(text)))
    }

    fn wait(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let start = Instant::now();
        while !done(self) {
            if start.elapsed() > Duration::from_secs(40) || self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return Err(format!("the run never came to `{what}`"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Its exit code, results and standard error.
    fn finish(self) -> Result<(Option<i32>, Value, String, PathBuf)> {
        let output = self.child.wait_with_output().map_err(|err| err.to_string())?;
        let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        Ok((output.status.code(), json, String::from_utf8_lossy(&output.stderr).into_owned(), self.out))
    }
}

/// Ids of the victim's agent and node, if they run.
fn processes(run: &Run) -> (Option<u32>, Option<u32>) {
    let (disk, mut agent, mut node) = (&run.disks[VICTIM], None, None);
    for id in lab::processes() {
        // An agent is called by its path, a node works in its directory.
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let called = String::from_utf8_lossy(line.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
        if Path::new(&called).starts_with(disk) {
            agent = Some(id);
        } else if called == "/proc/self/exe"
            && fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|dir| dir.starts_with(disk))
        {
            node = Some(id);
        }
    }
    (agent, node)
}

fn kill_node(run: &mut Run, _: &mut Lab) -> Result<()> {
    run.wait("a node", |run| processes(run).1.is_some())?;
    kill("KILL", processes(run).1.ok_or("no node")?);
    Ok(())
}

/// The sshd process that has the victim's connection: the one above its agent.
fn kill_session(run: &mut Run, _: &mut Lab) -> Result<()> {
    run.wait("an agent", |run| processes(run).0.is_some())?;
    let agent = processes(run).0.ok_or("no agent")?;
    let mut id = agent;
    loop {
        let status = fs::read_to_string(format!("/proc/{id}/status")).map_err(|err| err.to_string())?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).unwrap_or_default().to_owned()
        };
        if field("Name:").starts_with("sshd") {
            kill("KILL", id);
            return Ok(());
        }
        id = field("PPid:").parse().map_err(|_| "no sshd above the agent")?;
    }
}

fn cut_link(_: &mut Run, lab: &mut Lab) -> Result<()> {
    lab.set_data_link(VICTIM, false)
}

fn fill_disk(run: &mut Run, _: &mut Lab) -> Result<()> {
    let file = run.disks[VICTIM].join("filler");
    // Until nothing fits any more.
    let mut file = fs::File::create(file).map_err(|err| err.to_string())?;
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    Ok(())
}

fn holds(what: bool, text: impl FnOnce() -> String) -> Result<()> {
    if what { Ok(()) } else { Err(text()) }
}

fn clock_off(lab: &mut Lab) -> Result<()> {
    let run = Run::start(lab, "clock_offset_s = 3600", "0.5")?;
    let (code, json, text, _) = run.finish()?;
    holds(code == Some(0), || text.clone())?;
    holds(text.contains("node 1 (10.78.0.2): its clock is +3600.0 s off ours"), || text.clone())?;
    let offset = json["manifest"]["testbed"]["machines"][VICTIM]["clock_offset_s"].as_f64();
    holds(offset.is_some_and(|s| (s - 3600.0).abs() < 5.0), || format!("{offset:?}"))?;
    holds(json["results"][0]["missing_nodes"] == serde_json::json!([]), || json["results"].to_string())
}

fn while_measuring(lab: &mut Lab, harm: fn(&mut Run, &mut Lab) -> Result<()>, says: &str) -> Result<()> {
    let mut run = Run::start(lab, "", "30")?;
    run.await_text("tcp: measuring")?;
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    let harmed = harm(&mut run, lab);
    let ended = harmed.and_then(|()| run.finish());
    lab.set_data_link(VICTIM, true)?;
    let (code, json, text, out) = ended?;
    holds(code == Some(1), || format!("exit code {code:?}: {text}"))?;
    holds(text.contains(says), || format!("no `{says}` in: {text}"))?;
    holds(begun.elapsed() < Duration::from_secs(25), || format!("it took {:?}", begun.elapsed()))?;
    holds(json["status"] == "failed", || json["status"].to_string())?;
    holds(json["reason"].as_str().is_some_and(|reason| reason.contains("node 1")), || json["reason"].to_string())?;
    kept(&out, &json)?;
    lab.await_silence(Duration::from_secs(8))
}

/// What the others measured is there.
fn kept(out: &Path, json: &Value) -> Result<()> {
    for node in [0, 2] {
        let file = out.join(format!("tcp_w2-{node}.rtts"));
        let lines = fs::read_to_string(&file).unwrap_or_default().lines().filter(|line| !line.starts_with('#')).count();
        holds(lines > 0, || format!("{} has no samples", file.display()))?;
    }
    holds(json["results"][0]["samples"].as_u64() > Some(0), || json["results"].to_string())?;
    let odd = fs::read_dir(out)
        .into_iter()
        .flatten()
        .flatten()
        .find(|entry| entry.path().extension().is_some_and(|e| e == "part"));
    holds(odd.is_none(), || format!("half a file: {odd:?}"))
}

fn at_the_start(lab: &mut Lab, harm: fn(&mut Run, &mut Lab) -> Result<()>, says: &str) -> Result<()> {
    let mut run = Run::start(lab, "", "30")?;
    harm(&mut run, lab)?;
    let (code, _, text, _) = run.finish()?;
    holds(matches!(code, Some(1 | 3)), || format!("exit code {code:?}: {text}"))?;
    holds(text.contains(says), || format!("no `{says}` in: {text}"))?;
    lab.await_silence(Duration::from_secs(8))
}

/// As soon as samples are being written.
fn while_collecting(lab: &mut Lab, harm: fn(&mut Run, &mut Lab) -> Result<()>) -> Result<()> {
    let mut run = Run::start(lab, "", "0.5")?;
    let wanted = run.disks[0].join("runs");
    run.wait("samples", |_| {
        let dirs = fs::read_dir(&wanted).into_iter().flatten().flatten();
        dirs.into_iter().any(|dir| dir.path().join("tcp_w2-0.stats").exists())
    })?;
    harm(&mut run, lab)?;
    let (code, json, text, out) = run.finish()?;
    // It may have been too late to matter, or its files could be had by another connection.
    holds(matches!(code, Some(0 | 1)), || format!("exit code {code:?}: {text}"))?;
    holds(code == Some(0) || text.contains("node 1"), || text.clone())?;
    kept(&out, &json)?;
    lab.await_silence(Duration::from_secs(8))
}
