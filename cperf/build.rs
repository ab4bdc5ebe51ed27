//! Hands the commit that is being built to the program, if this is a checkout. Runs again only when the commit changes.

use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let Some(git) = git_dir() else { return };
    if let Some(revision) = revision(&git) {
        println!("cargo::rustc-env=CPERF_GIT_REVISION={revision}");
    }
}

/// The checkout's `.git`, if it is a directory.
fn git_dir() -> Option<PathBuf> {
    let git = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR")?).parent()?.join(".git");
    git.is_dir().then_some(git)
}

/// The commit of HEAD, directly or by way of a branch. A file that does not exist must not be watched: that would run
/// this again in every build.
fn revision(git: &Path) -> Option<String> {
    let watch = |path: PathBuf| {
        let text = fs::read_to_string(&path).ok()?;
        println!("cargo::rerun-if-changed={}", path.display());
        Some(text)
    };
    let head = watch(git.join("HEAD"))?;
    let Some(branch) = head.trim().strip_prefix("ref: ") else { return Some(head.trim().to_owned()) };
    if let Some(text) = watch(git.join(branch)) {
        return Some(text.trim().to_owned());
    }
    let packed = watch(git.join("packed-refs"))?;
    packed.lines().find_map(|line| line.strip_suffix(branch)).map(|hash| hash.trim().to_owned())
}
