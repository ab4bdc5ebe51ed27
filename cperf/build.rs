//! Tells the program which simulator it has: a hash of the sources that a simulated result depends on, so that results
//! of another simulator are never taken for those of this one.

use std::fs;
use std::path::{Path, PathBuf};

/// Directories and files, from this crate's own; tests and benches in them are no part of a result.
const SOURCES: [&str; 8] = [
    "../homa-stack/src",
    "../homa-stack/sim/data",
    "../homa-stack/sim/src",
    "../cp-node/data",
    "../cp-node/src/arrivals.rs",
    "../cp-node/src/rng.rs",
    "../cp-node/src/workload.rs",
    "src/sim",
];

fn main() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let mut files = Vec::new();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
        collect(&root.join(source), &mut files);
    }
    files.sort();
    let mut hash = Fnv::new();
    for file in &files {
        // Where the checkout is must not matter.
        hash.add(file.strip_prefix(&root).unwrap_or(file).as_os_str().as_encoded_bytes());
        hash.add(&fs::read(file).unwrap_or_default());
    }
    println!("cargo::rustc-env=CPERF_SIMULATOR={:016x}", hash.0);
}

/// All files below `path`, or itself. The driver talks to real cards only.
fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() {
        files.push(path.to_owned());
    }
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name() != "driver") {
        collect(&entry.path(), files);
    }
}

/// FNV-1a, 64 bits: enough to tell versions apart, and no dependency of a build script.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&(bytes.len() as u64).to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
