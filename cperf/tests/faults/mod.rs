//! Runs on machines of which one breaks, and what must be so when they have ended.

pub(crate) mod harm;
pub(crate) mod interrupts;
pub(crate) mod points;
mod settings;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use self::settings::{Settings, settings};
use super::lab::Lab;

pub(crate) type Result<T> = std::result::Result<T, String>;

/// The machine that breaks.
pub(crate) const VICTIM: usize = 1;
pub(crate) const NODES: usize = 3;
/// The victim's disk, bytes.
pub(crate) const DISK: u64 = 16 << 20;

/// A run that lasts until something happens to it, on machines with disks of their own.
pub(crate) struct Run {
    /// The victim's link is down.
    pub(crate) cut: bool,
    pub(crate) child: Option<Child>,
    pub(crate) out: PathBuf,
    /// Directories of the machines.
    pub(crate) disks: Vec<PathBuf>,
    /// What the victim's clock is set by from when it exists.
    pub(crate) clock: PathBuf,
    /// Settings of the machines.
    pub(crate) before: Vec<Settings>,
    pub(crate) cluster: PathBuf,
}

/// How long a link that comes back may seem to be down: the kernel tells of carriers once a second.
const CARRIER: Duration = Duration::from_millis(1200);

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) json: Value,
    pub(crate) text: String,
    pub(crate) run: Run,
}

impl Run {
    /// Machines with a disk each; the victim has a small one. `odd`: more keys of the victim.
    pub(crate) fn prepare(lab: &mut Lab, odd: &str) -> Result<Self> {
        let root = lab.fresh("disks");
        let disks: Vec<_> = (0..NODES).map(|node| root.join(node.to_string())).collect();
        let said = |err: std::io::Error| err.to_string();
        for (node, disk) in disks.iter().enumerate() {
            fs::create_dir_all(disk).map_err(said)?;
            if node == VICTIM {
                lab.mount_small(disk, DISK).map_err(said)?;
            }
            // The program is there already, in one place.
            let bin = lab.directory().join("bin");
            fs::create_dir_all(&bin).and_then(|()| std::os::unix::fs::symlink(bin, disk.join("bin"))).map_err(said)?;
        }
        let clock = lab.fresh("clock");
        let odd = format!("{odd}\nprefix = [\"env\", \"CP_NODE_CLOCK_STEP={}\"]", clock.display());
        let each = |node: usize| {
            let odd = if node == VICTIM { &odd } else { "" };
            format!("directory = \"{}\"\n{odd}", disks[node].display())
        };
        let cluster = lab.cluster(NODES, "silence_s = 3\ntimeout_s = 2", each)?;
        let before = settings(lab)?;
        Ok(Self { child: None, cut: false, out: lab.fresh("out"), disks, clock, before, cluster })
    }

    /// `warmup` and `seconds` of TCP.
    pub(crate) fn launch(&mut self, lab: &Lab, warmup: &str, seconds: &str) -> Result<()> {
        self.launch_with(lab, &["--protocols", "tcp", "--warmup", warmup, "--seconds", seconds])
    }

    /// With these options.
    pub(crate) fn launch_with(&mut self, lab: &Lab, words: &[&str]) -> Result<()> {
        let mut command = lab.cperf();
        command.args(["run", "w2", "--testbed", "ssh", "--format", "json", "--slowdown", "fixed", "--gbps", "0.005"]);
        command.args(words).arg("--cluster").arg(&self.cluster);
        command.arg("--out").arg(&self.out);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|err| err.to_string())?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until the journal has `text`.
    pub(crate) fn await_text(&mut self, text: &str) -> Result<()> {
        self.wait(text, |run| fs::read_to_string(run.out.join("cperf.log")).is_ok_and(|log| log.contains(text)))
    }

    pub(crate) fn wait(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let start = Instant::now();
        while !done(self) {
            let over = self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some()));
            if start.elapsed() > Duration::from_secs(40) || over {
                let log = fs::read_to_string(self.out.join("cperf.log")).unwrap_or_default();
                return Err(format!("the run never came to `{what}`: {log}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Its exit code, results and standard error.
    pub(crate) fn finish(mut self) -> Result<Ended> {
        let child = self.child.take().ok_or("it was not started")?;
        let output = child.wait_with_output().map_err(|err| err.to_string())?;
        let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(Ended { code: output.status.code(), json, text, run: self })
    }

    /// Where the machine's files of this run are.
    pub(crate) fn place(&self, node: usize) -> Option<PathBuf> {
        let mut entries = fs::read_dir(self.disks[node].join("runs")).into_iter().flatten().flatten();
        entries.next().map(|entry| entry.path())
    }
}

impl Ended {
    /// Its exit code, and that it told all `parts`.
    pub(crate) fn told(&self, code: i32, parts: &[&str]) -> Result<()> {
        holds(self.code == Some(code), || format!("exit code {:?}, not {code}: {}", self.code, self.text))?;
        parts.iter().try_for_each(|part| {
            holds(self.text.contains(part), || format!("no `{part}` in: {}", self.text))?;
            // What a program reads tells the same.
            let record = format!("{} {}", self.json["reason"], self.json["manifest"]["remarks"]);
            holds(code == 3 || record.contains(&part.replace('"', "\\\"")), || format!("no `{part}` in {record}"))
        })
    }

    /// Samples of these nodes are there, and every file that is listed is as listed.
    pub(crate) fn kept(&self, nodes: &[usize]) -> Result<()> {
        for node in nodes {
            let file = self.run.out.join(format!("tcp_w2-{node}.rtts"));
            let text = fs::read_to_string(&file).unwrap_or_default();
            let lines = text.lines().filter(|line| !line.starts_with('#')).count();
            holds(lines > 0, || format!("{} has no samples", file.display()))?;
        }
        let missing: Vec<_> = (0..NODES).filter(|node| !nodes.contains(node)).collect();
        let result = &self.json["results"][0];
        holds(result["missing_nodes"] == json!(missing), || result.to_string())?;
        holds(result["samples"].as_u64() > Some(0), || result.to_string())?;
        let files = self.json["manifest"]["files"].as_array().ok_or("the manifest lists no files")?;
        for file in files {
            let path = self.run.out.join(file["name"].as_str().unwrap_or_default());
            let content = fs::read(&path).map_err(|err| format!("{}: {err}", path.display()))?;
            let sum: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
            holds(file["sha256"] == sum, || format!("{file} has {sum}"))?;
        }
        let listed = |name: &str| files.iter().any(|file| file["name"] == name);
        holds(nodes.iter().all(|node| listed(&format!("tcp_w2-{node}.rtts"))), || format!("{files:?}"))
    }

    /// Nothing is left but results: no process, no half of a file, no file on the machines, no other setting.
    pub(crate) fn nothing_left(&self, lab: &Lab) -> Result<()> {
        let out = fs::read_dir(&self.run.out).into_iter().flatten().flatten();
        let half: Vec<_> = out.filter(|entry| entry.path().extension().is_some_and(|e| e == "part")).collect();
        holds(half.is_empty(), || format!("half a file: {half:?}"))?;
        let left: Vec<_> = (0..NODES).filter_map(|node| self.run.place(node)).collect();
        holds(left.is_empty(), || format!("on the machines are left: {left:?}"))?;
        self.machines_as_before(lab)
    }

    /// No process is left there, and no setting is another one.
    pub(crate) fn machines_as_before(&self, lab: &Lab) -> Result<()> {
        lab.await_silence(Duration::from_secs(8))?;
        let after = settings(lab)?;
        let other = |node: usize| {
            let (before, after) = (&self.run.before[node], &after[node]);
            after.iter().filter(move |(name, value)| before.get(*name) != Some(value)).map(move |pair| (node, pair))
        };
        let changed: Vec<_> = (0..NODES).flat_map(other).collect();
        holds(changed.is_empty(), || format!("settings have changed: {changed:?}"))
    }
}

/// Does harm, lets the run end, and repairs what was harmed.
pub(crate) fn harmed(
    mut run: Run,
    lab: &mut Lab,
    harm: impl FnOnce(&mut Run, &mut Lab) -> Result<()>,
) -> Result<Ended> {
    let harmed = harm(&mut run, lab);
    if let (Err(_), Some(child)) = (&harmed, &mut run.child) {
        let _ = child.kill();
    }
    let was_cut = run.cut;
    let ended = run.finish();
    lab.set_data_link(VICTIM, true)?;
    if was_cut {
        std::thread::sleep(CARRIER);
    }
    harmed.and(ended)
}

pub(crate) fn holds(what: bool, text: impl FnOnce() -> String) -> Result<()> {
    if what { Ok(()) } else { Err(text()) }
}
