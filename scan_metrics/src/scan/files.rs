//! Which files there are: directories walked, names taken apart, each node's counters found once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the counters of one node over one interval stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// Raw files of both ends.
    Pair(PathBuf, PathBuf),
    /// One file of what grew: raw or printed.
    Grown(PathBuf),
    /// Only one of both ends: the file that is there, and which is missing.
    Half(PathBuf, &'static str),
}

/// A node's file or files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Index of the run.
    pub run: usize,
    /// Experiment: `homa_w4`; empty if the name has none.
    pub experiment: String,
    /// Number of the node.
    pub node: u64,
    /// Files.
    pub files: Where,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Directories with metrics, in order.
    pub runs: Vec<PathBuf>,
    /// Nodes' files, by run, experiment and node.
    pub sources: Vec<Source>,
    /// Files that hold metrics but are not compared: with the reason.
    pub passed_over: Vec<(PathBuf, &'static str)>,
}

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Before,
    After,
    Grown,
}

/// Takes a file's name apart: experiment, node, part of the interval; `None` if it is no metrics file, an error if it is
/// one that says not of which node.
fn apart(name: &str) -> Option<Result<(&str, u64, Part), &'static str>> {
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    let (stem, part) = [
        (".homa_metrics.before", Part::Before),
        (".homa_metrics.after", Part::After),
        (".metrics.before", Part::Before),
        (".metrics.after", Part::After),
        (".metrics", Part::Grown),
    ]
    .into_iter()
    .find_map(|(end, part)| Some((plain.strip_suffix(end)?, part)))?;
    if stem.ends_with(".tt") {
        return Some(Err("of the span of a time trace"));
    }
    let digits = stem.len() - stem.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (head, number) = stem.split_at(digits);
    let experiment = head.strip_suffix('-').or_else(|| head.strip_suffix("node").filter(|rest| rest.is_empty()));
    match (experiment, number.parse()) {
        (Some(experiment), Ok(node)) => Some(Ok((experiment, node, part))),
        _ => Some(Err("its name is not EXPERIMENT-NODE.metrics")),
    }
}

/// Directories below a run that hold no metrics of nodes: copies, traces, pictures.
const SKIPPED: [&str; 4] = ["reports", "traces", "plots", ".git"];

/// Looks through files and directories.
///
/// # Errors
///
/// If one of them does not exist or can't be listed.
pub fn find(roots: &[PathBuf]) -> std::io::Result<Found> {
    let mut all: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    let named = |root: &Path, err: std::io::Error| {
        std::io::Error::new(
            err.kind(),
            format!("{}: {err}; expected a directory with NAME.metrics files", root.display()),
        )
    };
    for root in roots {
        walk(root, true, &mut all).map_err(|err| named(root, err))?;
    }
    let mut found = Found::default();
    for (dir, mut files) in all {
        files.sort();
        files.dedup();
        add(&mut found, dir, files);
    }
    Ok(found)
}

fn walk(path: &Path, named: bool, all: &mut BTreeMap<PathBuf, Vec<PathBuf>>) -> std::io::Result<()> {
    if !std::fs::metadata(path)?.is_dir() {
        all.entry(path.parent().unwrap_or(Path::new("")).to_owned()).or_default().push(path.to_owned());
        return Ok(());
    }
    let skipped = path.file_name().is_some_and(|name| SKIPPED.iter().any(|skip| name == *skip));
    if skipped && !named {
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        // Links to directories are not followed: they can lead round in a circle.
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), false, all)?;
        } else {
            all.entry(path.to_owned()).or_default().push(entry.path());
        }
    }
    Ok(())
}

/// One directory's files. Of a node that has several, both ends are preferred: only they show whether a counter shrank.
fn add(found: &mut Found, dir: PathBuf, files: Vec<PathBuf>) {
    let mut nodes: BTreeMap<(String, u64), [Option<PathBuf>; 3]> = BTreeMap::new();
    for file in files {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match apart(name) {
            None => {}
            Some(Err(reason)) => found.passed_over.push((file, reason)),
            Some(Ok((experiment, node, part))) => {
                let place = &mut nodes.entry((experiment.to_owned(), node)).or_default()[part as usize];
                match place {
                    Some(_) => found.passed_over.push((file, "the same twice, compressed and not")),
                    None => *place = Some(file),
                }
            }
        }
    }
    if nodes.is_empty() {
        return;
    }
    let run = found.runs.len();
    found.runs.push(dir);
    for ((experiment, node), [before, after, grown]) in nodes {
        let files = match (before, after, grown) {
            (Some(before), Some(after), _) => Where::Pair(before, after),
            (_, _, Some(grown)) => Where::Grown(grown),
            (Some(before), None, None) => Where::Half(before, "after"),
            (None, Some(after), None) => Where::Half(after, "before"),
            (None, None, None) => unreachable!("an entry has a file"),
        };
        found.sources.push(Source { run, experiment, node, files });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_which_node_of_which_experiment() {
        for (name, want) in [
            ("homa_w4-12.metrics", Some(Ok(("homa_w4", 12, Part::Grown)))),
            ("homa_w4-0.metrics.before", Some(Ok(("homa_w4", 0, Part::Before)))),
            ("homa_w4-0.metrics.after.gz", Some(Ok(("homa_w4", 0, Part::After)))),
            ("node3.metrics", Some(Ok(("", 3, Part::Grown)))),
            ("node3.homa_metrics.before.gz", Some(Ok(("", 3, Part::Before)))),
            ("node3.tt.metrics", Some(Err("of the span of a time trace"))),
            ("summary.metrics", Some(Err("its name is not EXPERIMENT-NODE.metrics"))),
            ("xnode3.metrics", Some(Err("its name is not EXPERIMENT-NODE.metrics"))),
            ("homa_w4-0.rtts", None),
        ] {
            assert_eq!(apart(name), want, "{name}");
        }
    }

    #[test]
    fn both_ends_are_preferred_and_copies_are_left_alone() {
        let dir = std::env::temp_dir().join(format!("scan-metrics-files-{}", std::process::id()));
        let one = dir.join("runs/one");
        std::fs::create_dir_all(one.join("reports")).unwrap();
        for name in [
            "a-0.metrics",
            "a-0.metrics.before",
            "a-0.metrics.after",
            "a-1.metrics",
            "a-2.metrics.after",
            "x.metrics",
            "reports/a-0.metrics",
        ] {
            std::fs::write(one.join(name), "").unwrap();
        }
        let found = find(std::slice::from_ref(&dir)).unwrap();
        assert_eq!(found.runs, std::slice::from_ref(&one));
        let files: Vec<_> = found.sources.iter().map(|source| (source.node, source.files.clone())).collect();
        let want = [
            (0, Where::Pair(one.join("a-0.metrics.before"), one.join("a-0.metrics.after"))),
            (1, Where::Grown(one.join("a-1.metrics"))),
            (2, Where::Half(one.join("a-2.metrics.after"), "before")),
        ];
        assert_eq!(files, want);
        assert_eq!(found.passed_over.len(), 1);
        let err = find(&[dir.join("none")]).unwrap_err();
        assert!(err.to_string().contains("none"), "{err}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
