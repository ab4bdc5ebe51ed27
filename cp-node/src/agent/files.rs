//! Files of a node, for who collects them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use super::wire::{FileAbout, News};

/// Bytes of a file in one frame.
const PIECE: usize = 64 * 1024;

/// Makes a directory and what is missing above it; nobody else may look into what is made.
///
/// # Errors
/// As mkdir(2), with the path.
pub(super) fn make_dir(path: &str) -> io::Result<()> {
    named(path, DirBuilder::new().recursive(true).mode(0o700).create(path))
}

/// Removes a directory with all that is in it; one that is not there is as good.
///
/// # Errors
/// As unlink(2), with the path.
pub(super) fn remove_dir(path: &str) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        other => named(path, other),
    }
}

/// All files below a directory, sorted by name.
///
/// # Errors
/// As reading directories, with the path.
pub(super) fn list(path: &str) -> io::Result<Vec<FileAbout>> {
    let root = Path::new(path);
    let (mut todo, mut found) = (vec![root.to_owned()], Vec::new());
    while let Some(dir) = todo.pop() {
        for entry in named(path, fs::read_dir(&dir))? {
            let entry = named(path, entry)?;
            let about = named(path, entry.metadata())?;
            if about.is_dir() {
                todo.push(entry.path());
                continue;
            }
            let modified = about.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let whole = entry.path();
            found.push(FileAbout {
                name: whole.strip_prefix(root).unwrap_or(&whole).to_string_lossy().into_owned(),
                size_bytes: about.len(),
                modified_ns: modified.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)),
            });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Reads a file to its end, giving each piece to `take`. An empty path is the running program.
///
/// # Errors
/// As reading, with the path, and what `take` returns.
pub(super) fn read(path: &str, mut take: impl FnMut(&[u8])) -> io::Result<News> {
    let mut file = named(path, File::open(if path.is_empty() { "/proc/self/exe" } else { path }))?;
    let (mut hash, mut size_bytes, mut buffer) = (Sha256::new(), 0, vec![0; PIECE]);
    loop {
        let len = match file.read(&mut buffer) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            other => named(path, other)?,
        };
        if len == 0 {
            break;
        }
        hash.update(&buffer[..len]);
        take(&buffer[..len]);
        size_bytes += len as u64;
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(News::Sent { size_bytes, sha256 })
}

/// The error with the path.
fn named<T>(path: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|err| io::Error::new(err.kind(), format!("{path}: {err}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_listed_read_and_removed() {
        let dir = std::env::temp_dir().join(format!("cp-node-agent-{}", std::process::id()));
        let path = dir.to_str().unwrap();
        make_dir(&format!("{path}/traces")).unwrap();
        fs::write(dir.join("traces/node1.tt"), "abc").unwrap();
        fs::write(dir.join("b.rtts"), vec![7; 100_000]).unwrap();
        let files = list(path).unwrap();
        let names: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.size_bytes)).collect();
        assert_eq!(names, [("b.rtts", 100_000), ("traces/node1.tt", 3)]);
        let mut bytes = Vec::new();
        let sent = read(&format!("{path}/traces/node1.tt"), |piece| bytes.extend_from_slice(piece)).unwrap();
        assert_eq!(bytes, b"abc");
        // FIPS 180-2, appendix B.1.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
        assert_eq!(sent, News::Sent { size_bytes: 3, sha256 });
        remove_dir(path).unwrap();
        remove_dir(path).unwrap();
        assert!(list(path).unwrap_err().to_string().contains(path));
    }
}
