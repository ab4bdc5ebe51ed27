//! What a run was: enough to repeat it, and to judge whether two runs may be compared.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::outdir::OutDir;
use crate::policy::{Policy, Round};
use crate::sys;
use crate::testbed::Testbed;

/// Format version of manifest.json and results.json.
pub const VERSION: u32 = 1;

/// Facts about a run; written when it starts, and again, with the files, when it ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// Program and version.
    pub tool: String,
    /// Commit that the program was built from, if it was built in a checkout.
    pub git_revision: Option<String>,
    /// All effective options.
    pub options: serde_json::Value,
    /// Seed of the load.
    pub seed: Option<u64>,
    /// `running`, `complete`, `failed`, `interrupted`.
    pub status: String,
    /// When, where and how it was run. Not here but in about.json if that changes nothing: of simulations.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
    /// Facts of the testbed.
    pub testbed: serde_json::Value,
    /// Nodes in order.
    pub nodes: Vec<NodeFacts>,
    /// What was done about what failed, where nodes can fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// What became of each thing that was measured, in order, where nodes can fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<Round>,
    /// What was odd about nodes and ended nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// What the run left, except this manifest.
    pub files: Vec<FileFacts>,
}

/// When, where and how something was run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Words of the command line.
    pub command: Vec<String>,
    /// Local time.
    pub started: String,
    /// Local time; null while it runs.
    pub ended: Option<String>,
    /// The machine that ran it.
    pub host: Host,
    /// Simulations at once, where they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// How long simulating took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_s: Option<f64>,
    /// Most memory that the process had, if the system tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_max_kib: Option<u64>,
}

/// The machine on which cperf runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    /// `Linux 6.1.0 …`
    pub kernel: Option<String>,
    /// Model name.
    pub cpu: Option<String>,
    /// Cores that may be used.
    pub cores: usize,
    /// Main memory.
    pub memory_kib: Option<u64>,
    /// What the kernel's clock counts with.
    pub clock_source: Option<String>,
}

/// One node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Number.
    pub node: usize,
    /// Data-plane address.
    pub address: String,
    /// Data-plane interface.
    pub interface: String,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Path below the directory of the run.
    pub name: String,
    /// Length.
    pub size_bytes: u64,
    /// Checksum, hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// Facts at the start of a run.
    pub fn new(command: Vec<String>, options: serde_json::Value, seed: Option<u64>, testbed: &dyn Testbed) -> Self {
        let nodes = (0..testbed.nodes()).map(|node| NodeFacts {
            node,
            address: testbed.address(node).to_string(),
            interface: testbed.interface(node).to_owned(),
        });
        Self {
            version: VERSION,
            tool: concat!("cperf ", env!("CARGO_PKG_VERSION")).to_owned(),
            git_revision: option_env!("CPERF_GIT_REVISION").map(str::to_owned),
            options,
            seed,
            status: "running".to_owned(),
            about: Some(About::now(command)),
            testbed: testbed.facts(),
            nodes: nodes.collect(),
            policy: None,
            rounds: Vec::new(),
            remarks: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Facts at the start of a run on simulated nodes: those that its results depend on.
    pub fn simulated(options: serde_json::Value, seed: u64, testbed: serde_json::Value, nodes: u32) -> Self {
        let facts = |node| NodeFacts { node, address: format!("node{node}"), interface: "simulated".to_owned() };
        Self {
            version: VERSION,
            tool: concat!("cperf ", env!("CARGO_PKG_VERSION")).to_owned(),
            git_revision: option_env!("CPERF_GIT_REVISION").map(str::to_owned),
            options,
            seed: Some(seed),
            status: "running".to_owned(),
            about: None,
            testbed,
            nodes: (0..nodes as usize).map(facts).collect(),
            policy: None,
            rounds: Vec::new(),
            remarks: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Notes how the run ended and which files there are.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn close(&mut self, status: &str, out: &OutDir) -> io::Result<()> {
        status.clone_into(&mut self.status);
        if let Some(about) = &mut self.about {
            about.ended.get_or_insert_with(now);
        }
        // Of a simulation, what differs between equal runs is left out.
        let unlisted = ["manifest.json", "about.json", "cperf.log"];
        let unlisted = if self.about.is_some() { &unlisted[..1] } else { &unlisted[..] };
        let listed = |name: &std::path::PathBuf| unlisted.iter().all(|other| name != Path::new(other));
        let files = out.files()?.into_iter().filter(listed);
        self.files = files.map(|name| file_facts(out.path(), &name)).collect::<io::Result<_>>()?;
        Ok(())
    }

    /// What failed, and what was done about it: nothing if nothing did.
    pub fn failures(&self) -> Vec<String> {
        self.rounds.iter().filter(|round| !round.attempts.is_empty()).map(Round::text).collect()
    }

    /// Lists one more file, which was written after all others.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn add(&mut self, name: &str, out: &OutDir) -> io::Result<()> {
        self.files.retain(|file| file.name != name);
        let facts = file_facts(out.path(), Path::new(name))?;
        let place = self.files.partition_point(|file| file.name.as_str() < name);
        self.files.insert(place, facts);
        Ok(())
    }

    /// As JSON text.
    pub fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("strings and numbers only");
        text.push(b'\n');
        text
    }
}

impl About {
    /// That it begins now.
    pub fn now(command: Vec<String>) -> Self {
        let host = Host::here();
        Self { command, started: now(), ended: None, host, threads: None, elapsed_s: None, memory_max_kib: None }
    }

    /// That it ends now.
    pub fn end(&mut self) {
        self.ended = Some(now());
    }

    /// That simulating, on so many threads, has ended now.
    pub fn close(&mut self, threads: usize, elapsed: Duration) {
        self.ended = Some(now());
        self.threads = Some(threads);
        self.elapsed_s = Some(elapsed.as_secs_f64());
        self.memory_max_kib = field("/proc/self/status", "VmHWM").and_then(|text| kib(&text));
    }

    /// As JSON text.
    pub fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("strings and numbers only");
        text.push(b'\n');
        text
    }
}

/// What follows `name` and a colon in a file of the system.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The number of `1234 kB`.
fn kib(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

impl Host {
    fn here() -> Self {
        let word = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let kernel = word("/proc/sys/kernel/osrelease").map(|release| format!("Linux {release}"));
        let memory = field("/proc/meminfo", "MemTotal");
        Self {
            kernel,
            cpu: field("/proc/cpuinfo", "model name"),
            cores: crate::rates::cores(),
            memory_kib: memory.and_then(|text| kib(&text)),
            clock_source: word("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        }
    }
}

/// Local time as text.
pub(crate) fn now() -> String {
    sys::local_time(SystemTime::now()).text()
}

/// Length and checksum of a file.
pub(crate) fn file_facts(dir: &Path, name: &Path) -> io::Result<FileFacts> {
    let mut file = fs::File::open(dir.join(name))?;
    let mut hash = Sha256::new();
    let mut size_bytes = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let len = file.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        hash.update(&buffer[..len]);
        size_bytes += len as u64;
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(FileFacts { name: name.display().to_string(), size_bytes, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_their_length_and_known_checksum() {
        let dir = std::env::temp_dir().join(format!("cperf-manifest-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("abc"), "abc").unwrap();
        let facts = file_facts(&dir, Path::new("abc")).unwrap();
        assert_eq!(facts.size_bytes, 3);
        // FIPS 180-2, appendix B.1.
        assert_eq!(facts.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn this_machine_is_described() {
        let host = Host::here();
        assert!(host.kernel.unwrap().starts_with("Linux "));
        assert!(host.cores >= 1 && host.memory_kib.unwrap() > 0);
    }
}
