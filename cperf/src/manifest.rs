//! What a run was: enough to repeat it, and to judge whether two runs may be compared.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::outdir::OutDir;
use crate::sys;
use crate::testbed::Testbed;

/// Format version of manifest.json and results.json.
pub const VERSION: u32 = 1;

/// Facts about a run; written when it starts, and again, with the files, when it ends.
#[derive(Clone, Debug, Serialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// Program and version.
    pub tool: String,
    /// Commit that the program was built from, if it was built in a checkout.
    pub git_revision: Option<&'static str>,
    /// Words of the command line.
    pub command: Vec<String>,
    /// All effective options.
    pub options: serde_json::Value,
    /// Seed of the load.
    pub seed: Option<u64>,
    /// `running`, `complete`, `failed`, `interrupted`.
    pub status: String,
    /// Local time.
    pub started: String,
    /// Local time; null while it runs.
    pub ended: Option<String>,
    /// The machine that ran it.
    pub host: Host,
    /// Facts of the testbed.
    pub testbed: serde_json::Value,
    /// Nodes in order.
    pub nodes: Vec<NodeFacts>,
    /// What the run left, except this manifest.
    pub files: Vec<FileFacts>,
}

/// The machine on which cperf runs.
#[derive(Clone, Debug, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
pub struct NodeFacts {
    /// Number.
    pub node: usize,
    /// Data-plane address.
    pub address: String,
    /// Data-plane interface.
    pub interface: String,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
            git_revision: option_env!("CPERF_GIT_REVISION"),
            command,
            options,
            seed,
            status: "running".to_owned(),
            started: now(),
            ended: None,
            host: Host::here(),
            testbed: testbed.facts(),
            nodes: nodes.collect(),
            files: Vec::new(),
        }
    }

    /// Notes how the run ended and which files there are.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn close(&mut self, status: &str, out: &OutDir) -> io::Result<()> {
        status.clone_into(&mut self.status);
        self.ended = Some(now());
        let files = out.files()?.into_iter().filter(|name| name != Path::new("manifest.json"));
        self.files = files.map(|name| file_facts(out.path(), &name)).collect::<io::Result<_>>()?;
        Ok(())
    }

    /// As JSON text.
    pub fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("strings and numbers only");
        text.push(b'\n');
        text
    }
}

impl Host {
    fn here() -> Self {
        let word = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let kernel = word("/proc/sys/kernel/osrelease").map(|release| format!("Linux {release}"));
        let field = |path: &str, name: &str| {
            let text = fs::read_to_string(path).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field("/proc/meminfo", "MemTotal");
        Self {
            kernel,
            cpu: field("/proc/cpuinfo", "model name"),
            cores: crate::rates::cores(),
            memory_kib: memory.and_then(|text| text.split_whitespace().next()?.parse().ok()),
            clock_source: word("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        }
    }
}

/// Local time as text.
fn now() -> String {
    sys::local_time(SystemTime::now()).text()
}

/// Length and checksum of a file.
fn file_facts(dir: &Path, name: &Path) -> io::Result<FileFacts> {
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
