//! Conversions that are kept: in the user's cache folder, by the files that they were made of.
//!
//! `tthoma convert` without `--output` puts tables there; analyses of the same files, unchanged, start from them. Nothing is
//! ever written beside the traces.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::store::{Manifest, Stamp, manifest_of, manifests};
use crate::read::{ReadError, files};

/// Where the conversion of these traces belongs; `None` if there is no cache folder, or a trace is no file.
///
/// # Errors
///
/// If there are no traces of these names.
pub fn place(paths: &[PathBuf], events: Option<&Path>) -> Result<Option<PathBuf>, ReadError> {
    let Some(root) = root() else { return Ok(None) };
    let Some(stamps) = stamps(paths)? else { return Ok(None) };
    let mut hasher = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    // Names of nodes are of the files' names, in their order.
    stamps.iter().for_each(|s| s.path.hash(&mut hasher));
    events.map(|path| std::fs::read(path).unwrap_or_default()).hash(&mut hasher);
    Ok(Some(root.join(format!("{:016x}", hasher.finish()))))
}

/// The folder and manifest of the conversion of these traces, if there is one and they have not changed since.
///
/// # Errors
///
/// As [`place`].
pub fn find(paths: &[PathBuf], events: Option<&Path>) -> Result<Option<(PathBuf, Manifest)>, ReadError> {
    let Some(dir) = place(paths, events)? else { return Ok(None) };
    let manifest = manifests(&dir).first().and_then(|path| manifest_of(path).ok());
    let fresh = manifest.filter(|m| stamps(paths).is_ok_and(|now| now.as_ref() == Some(&m.sources)));
    Ok(fresh.map(|manifest| (dir, manifest)))
}

/// The traces as they are now; `None` if one of them is no file.
fn stamps(paths: &[PathBuf]) -> Result<Option<Vec<Stamp>>, ReadError> {
    Ok(files(paths)?.iter().map(|path| Stamp::of(path).ok().filter(|_| path.is_file())).collect())
}

fn root() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("tthoma"))
}
