//! The directory of a run: made before anything starts, never an old one reused, files in it whole or not at all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::error::Stop;

/// Directory of one run.
#[derive(Debug)]
pub struct OutDir {
    path: PathBuf,
    /// Directories that were made for it, outermost first.
    made: Vec<PathBuf>,
}

impl OutDir {
    /// Makes `path` with `subdirectories` in it. An empty directory is taken as it is.
    ///
    /// # Errors
    /// [`Stop::Usage`] if it holds something or cannot be written to; then nothing was changed.
    pub fn create(path: &Path, subdirectories: &[&str]) -> Result<Self, Stop> {
        let text = path.display();
        match fs::read_dir(path).map(|mut entries| entries.next().is_some()) {
            Ok(true) => {
                let text = format!(
                    "--out {text}: there are files in it already; results are never overwritten, so \
                                    name a directory that is empty or does not exist"
                );
                return Err(Stop::Usage(text));
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(Stop::Usage(format!("--out {text}: {err}; name a directory"))),
            Ok(false) => {}
        }
        let mut dir = Self { path: path.to_owned(), made: Vec::new() };
        dir.make(subdirectories).map_err(|(at, err)| {
            dir.abandon();
            Stop::Usage(format!(
                "--out {text}: cannot write there ({}: {err}); name a writable directory",
                at.display()
            ))
        })?;
        // Children work inside it whatever their own directory is.
        dir.path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        Ok(dir)
    }

    /// A directory that is there already, to read it and to make reports in it.
    ///
    /// # Errors
    /// [`Stop::Usage`] if there is none.
    pub fn open(path: &Path) -> Result<Self, Stop> {
        if !path.is_dir() {
            return Err(Stop::Usage(format!("{}: there is no such directory", path.display())));
        }
        Ok(Self { path: fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()), made: Vec::new() })
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that other programs see whole or not at all.
    ///
    /// # Errors
    /// As writing a file, with its name.
    pub fn write(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let to = self.path.join(name);
        let part = self.path.join(format!("{name}.part"));
        let written = fs::write(&part, content).and_then(|()| fs::rename(&part, &to));
        if written.is_err() {
            let _ = fs::remove_file(&part);
        }
        written.with_context(|| format!("writing {}", to.display()))
    }

    /// Removes the directories that were made, as far as they are empty: the run never began.
    pub fn abandon(&self) {
        for dir in self.made.iter().rev() {
            let _ = fs::remove_dir(dir);
        }
    }

    /// Every file in it, as path below it, sorted.
    ///
    /// # Errors
    /// As reading a directory.
    pub fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut todo = vec![self.path.clone()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    todo.push(entry.path());
                } else {
                    found.push(entry.path().strip_prefix(&self.path).unwrap_or(&entry.path()).to_owned());
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn make(&mut self, subdirectories: &[&str]) -> Result<(), (PathBuf, io::Error)> {
        let mut missing: Vec<_> = self
            .path
            .ancestors()
            .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists())
            .map(Path::to_owned)
            .collect();
        missing.reverse();
        missing.extend(subdirectories.iter().map(|sub| self.path.join(sub)));
        for dir in missing {
            fs::create_dir(&dir).map_err(|err| (dir.clone(), err))?;
            self.made.push(dir);
        }
        let probe = self.path.join(".cperf-probe");
        fs::write(&probe, "x").and_then(|()| fs::remove_file(&probe)).map_err(|err| (self.path.clone(), err))
    }
}

/// `out/WORKLOAD-YYYYmmdd-HHMMSS`, or with `-2`, `-3` … behind it if two runs start in one second.
pub fn default_path(name: &str, stamp: &str) -> PathBuf {
    let base = format!("out/{name}-{stamp}");
    let names = std::iter::once(base.clone()).chain((2..).map(|n| format!("{base}-{n}")));
    names.map(PathBuf::from).find(|path| !path.exists()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("cperf-outdir-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn a_new_directory_is_made_with_its_parents_and_abandoned_with_them() {
        let root = scratch("new");
        let dir = OutDir::create(&root.join("a/b"), &["reports"]).unwrap();
        assert!(root.join("a/b/reports").is_dir());
        dir.abandon();
        assert!(!root.exists());
    }

    #[test]
    fn what_was_written_is_listed_and_never_abandoned() {
        let root = scratch("kept");
        let dir = OutDir::create(&root, &["reports"]).unwrap();
        dir.write("reports/x.data", b"1").unwrap();
        dir.write("a.log", b"2").unwrap();
        assert_eq!(dir.files().unwrap(), [PathBuf::from("a.log"), PathBuf::from("reports/x.data")]);
        dir.abandon();
        assert!(root.join("reports/x.data").exists());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn results_are_never_overwritten() {
        let root = scratch("full");
        fs::create_dir_all(&root).unwrap();
        OutDir::create(&root, &[]).expect("empty is fine");
        fs::write(root.join("results.json"), "{}").unwrap();
        let stop = OutDir::create(&root, &["reports"]).unwrap_err();
        assert_eq!(stop.code(), 2);
        assert!(stop.to_string().contains("never overwritten"));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_place_that_cannot_be_written_is_a_usage_error() {
        let root = scratch("file");
        fs::write(&root, "a file").unwrap();
        for path in [root.clone(), root.join("below")] {
            assert_eq!(OutDir::create(&path, &[]).unwrap_err().code(), 2, "{}", path.display());
        }
        fs::remove_file(root).unwrap();
        let stop = OutDir::create(Path::new("/proc/cperf-test"), &[]).unwrap_err();
        assert!(stop.to_string().contains("cannot write there"), "{stop}");
    }
}
