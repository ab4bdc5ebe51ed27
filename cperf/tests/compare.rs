//! `cperf compare` on real runs: a run with itself, runs whose links are 5 % slower, and runs that differ by chance only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

/// Runs a side.
const SIDE: u64 = 10;
/// Rate of the links, and what is planted: 5 % less of it, so that bytes take 5 % longer. 10^9 bit/s.
const LINK: &str = "25";
const SLOWER: &str = "23.75";
/// A load whose times are those of the links, for the most part: long messages on links that are a tenth full.
const LONG: &str = "run 100000 --nodes 4 --gbps 2.5 --seconds 0.05 --warmup 0.002";
/// A mixed load: the published cluster, half full.
const MIXED: &str = "run w4 --nodes 10 --gbps 10 --seconds 0.1 --warmup 0.02";

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("cperf-compare-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    dir
}

/// Makes set number `set` of [`SIDE`] runs in `dir`, with seeds of their own. Slowdowns are of links of 25 Gbps whatever
/// the links are: what users of a slower network see.
fn make(dir: &Path, set: u64, load: &str, link: &str) {
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= SIDE {
                return;
            }
            let out = dir.join(at.to_string());
            let mut command = Command::new(env!("CARGO_BIN_EXE_cperf"));
            command.args(load.split_whitespace()).args(["--protocols", "homa", "--threads", "1"]);
            command.args(["--slowdown", "fixed", "--link-mbps", "25000", "--link-gbps", link]);
            let output =
                command.args(["--seed", &(1 + set * SIDE + at).to_string(), "--out"]).arg(&out).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            // Only the results are compared; the rest is much more.
            let results = fs::read(out.join("results.json")).unwrap();
            fs::remove_dir_all(&out).unwrap();
            fs::create_dir(&out).unwrap();
            fs::write(out.join("results.json"), results).unwrap();
        }
    };
    fs::create_dir_all(dir).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
}

/// What the program says of two directories, as JSON and for people.
fn compare(a: &Path, b: &Path) -> (Vec<Value>, String) {
    let run = |format: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cperf"));
        let output = command.arg("compare").args([a, b]).args(["--format", format]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let json: Value = serde_json::from_str(&run("json")).unwrap();
    (json["figures"].as_array().unwrap().clone(), run("table"))
}

/// Names of figures with this verdict.
fn with_verdict(figures: &[Value], verdict: &str) -> Vec<String> {
    let found = figures.iter().filter(|row| row["verdict"] == verdict);
    found.map(|row| row["figure"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn links_five_percent_slower_are_reported_at_ten_runs_a_side_and_chance_is_not() {
    let dir = scratch("planted");
    let side = |name: &str, set: u64, link: &str| {
        let at = dir.join(name);
        make(&at, set, LONG, link);
        at
    };
    let (a, slower, other) = (side("a", 0, LINK), side("slower", 1, SLOWER), side("other", 2, LINK));

    let (figures, text) = compare(&a, &slower);
    let row = figures.iter().find(|row| row["figure"] == "slowdown_mean").unwrap();
    assert_eq!((&row["verdict"], &row["runs"]), (&"worse".into(), &serde_json::json!([SIDE, SIDE])), "{text}");
    let ends = [0, 1].map(|end| row["interval"][end].as_f64().unwrap());
    assert!(0.02 < ends[0] && ends[0] < 0.05 && 0.045 < ends[1] && ends[1] < 0.08, "{text}");
    assert_eq!(with_verdict(&figures, "better"), [""; 0], "{text}");
    assert!(text.contains("\nB is worse: homa slowdown_mean, +"), "{text}");

    let (figures, text) = compare(&slower, &a);
    assert!(with_verdict(&figures, "better").contains(&"slowdown_mean".to_owned()), "{text}");

    // Other seeds are other messages at other times: no more than chance.
    let (figures, text) = compare(&a, &other);
    assert!(figures.iter().any(|row| row["change"].as_f64().is_some_and(|change| change != 0.0)), "{text}");
    assert_eq!(with_verdict(&figures, "worse"), [""; 0], "{text}");
    assert_eq!(with_verdict(&figures, "better"), [""; 0], "{text}");
    assert!(text.contains("No figure differs beyond chance."), "{text}");

    // A set with itself, and one run with itself.
    for place in [a.clone(), a.join("0")] {
        let (figures, text) = compare(&place, &place);
        assert!(figures.len() > 8, "{text}");
        for row in &figures {
            assert!(row["change"].as_f64().is_none_or(|change| change == 0.0), "{row}");
            assert!(!matches!(row["verdict"].as_str(), Some("better" | "worse")), "{row}");
        }
        assert!(text.contains("No figure differs beyond chance."), "{text}");
    }
    fs::remove_dir_all(dir).unwrap();
}

/// How often chance is taken for a difference, and how often 5 % are found, over many comparisons of sets that have no
/// run in common. Prints both; fails if false alarms are more than they may be but once in a thousand times.
#[test]
#[ignore = "a thousand runs: some minutes in a release build"]
fn false_alarms_are_as_rare_as_they_are_said_to_be() {
    let comparisons: u64 = std::env::var("CPERF_COMPARISONS").map_or(20, |text| text.parse().unwrap());
    for (name, load) in [("long", LONG), ("mixed", MIXED)] {
        let (mut alarms, mut found, mut changes) = (0, 0, Vec::new());
        for n in 0..comparisons {
            let dir = scratch(name);
            let side = |which: u64, link: &str| {
                let at = dir.join(which.to_string());
                make(&at, 3 * n + which, load, link);
                at
            };
            let (a, other, slower) = (side(0, LINK), side(1, LINK), side(2, SLOWER));
            let (figures, text) = compare(&a, &other);
            if figures.iter().any(|row| matches!(row["verdict"].as_str(), Some("better" | "worse"))) {
                alarms += 1;
                println!("a false alarm:\n{text}");
            }
            let (figures, _) = compare(&a, &slower);
            found += u64::from(with_verdict(&figures, "worse").contains(&"slowdown_mean".to_owned()));
            let row = figures.iter().find(|row| row["figure"] == "slowdown_mean").unwrap();
            changes.push(row["change"].as_f64().unwrap());
            fs::remove_dir_all(dir).unwrap();
        }
        changes.sort_by(f64::total_cmp);
        let (least, median, most) = (changes[0], changes[changes.len() / 2], changes[changes.len() - 1]);
        println!(
            "{name}: {alarms} false alarms in {comparisons} comparisons; slower links found in {found} of {comparisons}, mean \
             slowdown {:+.1} % ({:+.1} to {:+.1})",
            median * 100.0,
            least * 100.0,
            most * 100.0
        );
        // 5 in 100 are allowed; beyond mean and 3.1 deviations chance gets once in a thousand times.
        let allowed = 0.05 * comparisons as f64;
        assert!(f64::from(alarms) <= allowed + 3.1 * (allowed * 0.95).sqrt() + 1.0, "{alarms} of {comparisons}");
    }
}
