//! Folders of tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A folder that is empty at first and removed at the end of a test.
#[derive(Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// `name`: of the test; no two of a program have the same.
    ///
    /// # Panics
    ///
    /// If it can't be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tthoma-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap_or_else(|err| panic!("can't make {}: {err}", path.display()));
        Self(path)
    }

    /// Writes a file in it; returns its path.
    ///
    /// # Panics
    ///
    /// If it can't be written.
    pub fn file(&self, name: impl AsRef<Path>, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap_or_else(|err| panic!("can't write {}: {err}", path.display()));
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
