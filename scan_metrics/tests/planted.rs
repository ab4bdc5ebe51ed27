//! Runs as they were collected, each with one thing made odd: it must be found, stand first, and be explained.
//!
//! Data: `lossy`, 12 simulated nodes that lose one packet in 1000; `clean`, 8 without loss; `cores`, 6 nodes on real
//! packets between network namespaces, two workers each, with their logs; `repeats`, ten short runs of one experiment
//! with other seeds, of which the seventh has another MTU. All by `cperf run`; options in each `manifest.json`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use scan_metrics::read::{load, total};
use scan_metrics::scan::finding::{Finding, Level, Test};
use scan_metrics::scan::{Options, Scan, scan};

/// A copy of a data directory, unpacked, to be changed; removed when dropped.
struct Run(PathBuf);

impl Run {
    fn of(data: &str, test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("scan-metrics-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        copy(&source(data), &dir);
        Self(dir)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn scan(&self) -> Scan {
        scan(&Options { roots: vec![self.0.clone()], ..Options::default() }).unwrap()
    }

    /// Changes the values of a counter in a file, of one core or of all.
    fn change(&self, name: &str, counter: &str, core: Option<u64>, to: impl Fn(u64) -> u64) {
        let text = fs::read_to_string(self.file(name)).unwrap();
        let (mut out, mut at, mut changed) = (String::new(), None, 0);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (word, value) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
            if word == "core" {
                at = Some(value);
            }
            if word == counter && (core.is_none() || core == at) {
                changed += 1;
                writeln!(out, "{word:<30} {:>20} {}", to(value), &line[52..]).unwrap();
            } else {
                writeln!(out, "{line}").unwrap();
            }
        }
        assert!(changed > 0, "{name} has no {counter}");
        fs::write(self.file(name), out).unwrap();
    }

    fn total(&self, name: &str, counter: &str) -> u64 {
        total(&fs::read_to_string(self.file(name)).unwrap(), counter).unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn source(data: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(data)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            let mut buffer = Vec::new();
            fs::write(to.join(name.trim_end_matches(".gz")), load(&path, &mut buffer).unwrap()).unwrap();
        }
    }
}

/// Findings from `level` on.
fn from(scan: &Scan, level: Level) -> Vec<&Finding> {
    scan.findings.iter().filter(|finding| finding.level >= level).collect()
}

#[test]
fn nothing_is_odd_where_nothing_was_planted() {
    for data in ["lossy", "clean", "cores"] {
        let scan = Run::of(data, &format!("nothing-{data}")).scan();
        assert!(from(&scan, Level::Warn).is_empty(), "{data}: {:#?}", from(&scan, Level::Warn));
        assert!(scan.comparisons > 200 && scan.suspects.is_empty(), "{data}");
    }
}

/// One node's peers asked it for three times as much again as they ask others.
#[test]
fn a_node_with_three_times_the_retransmissions_is_found() {
    let run = Run::of("lossy", "retransmissions");
    let odd = "homa_w4-3.metrics";
    let more = 2 * run.total(odd, "packets_rcvd_RESEND");
    run.change(odd, "resent_packets", None, |count| 3 * count);
    run.change(odd, "packets_rcvd_RESEND", None, |count| 3 * count);
    for node in (0..12).filter(|&node| node != 3) {
        run.change(&format!("homa_w4-{node}.metrics"), "packets_sent_RESEND", None, |count| count + more / 11);
    }
    let scan = run.scan();
    let found = from(&scan, Level::Warn);
    assert_eq!(found[0].node, Some(3), "{found:#?}");
    assert!(
        found.iter().all(|finding| finding.node == Some(3) && finding.class.name() == "retransmission"),
        "{found:#?}"
    );
    assert!(found.iter().any(|finding| finding.metric == "resent_packets" && finding.tests.contains(&Test::Z)));
    for test in [Test::Z, Test::R, Test::L] {
        assert!(found[0].tests.contains(&test), "{found:#?}");
    }
    assert!((2.0..5.0).contains(&found[0].ratio.unwrap()), "{found:#?}");
    assert!(found[0].cause.contains("lost or late") && found[0].next.contains("tthoma analyze loss"), "{found:#?}");
    assert!(found[0].false_alarms.unwrap() <= 0.01 && found[0].whom.contains("other 11"));
}

#[test]
fn a_core_with_ten_times_the_softirq_time_is_found() {
    let run = Run::of("cores", "softirq");
    run.change("homa_1000-4.metrics", "softirq_cycles", Some(1), |ticks| 10 * ticks);
    let scan = run.scan();
    let found = from(&scan, Level::Warn);
    let first = found[0];
    assert_eq!((first.node, first.core, first.metric.as_str()), (Some(4), Some(1), "softirq_cycles"), "{found:#?}");
    assert!(first.tests.contains(&Test::C) && (5.0..20.0).contains(&first.ratio.unwrap()), "{found:#?}");
    assert!(first.cause.contains("more interrupts than its fellows") && first.next.contains("tthoma analyze cores"));
    assert!(found.iter().all(|finding| finding.node == Some(4)), "{found:#?}");
}

#[test]
fn a_node_that_is_silent_for_a_second_is_found() {
    let run = Run::of("cores", "silent");
    let log = fs::read_to_string(run.file("node2.log")).unwrap();
    let (before, after) = log.split_once("Starting measurements").unwrap();
    // The fourth second of the interval.
    let (at, _) = after.match_indices(" clients: ").nth(3).unwrap();
    let end = at + after[at..].find(" Kops/sec").unwrap();
    fs::write(
        run.file("node2.log"),
        format!("{before}Starting measurements{} clients: 0.00{}", &after[..at], &after[end..]),
    )
    .unwrap();
    let scan = run.scan();
    let found = from(&scan, Level::Warn);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].node, found[0].letters().as_str()), (Some(2), "T"));
    assert!(found[0].what.contains("second 4: 0 RPCs/s"), "{}", found[0].what);
    assert!(found[0].cause.contains("not scheduled") && found[0].next.contains("coregaps"));
}

#[test]
fn a_missing_file_is_found_with_a_manifest_and_without() {
    let run = Run::of("clean", "missing");
    fs::remove_file(run.file("homa_w4-5.metrics")).unwrap();
    for by in ["manifest", "numbers"] {
        let scan = run.scan();
        let found = from(&scan, Level::Warn);
        assert_eq!((found.len(), found[0].node, found[0].level), (1, Some(5), Level::Fatal), "{found:#?}");
        assert!(
            found[0].what.contains("homa_w4-5.metrics is missing") && found[0].what.contains(by),
            "{}",
            found[0].what
        );
        assert!(found[0].cause.contains("failed before") && scan.suspects.len() == 1);
        let _ = fs::remove_file(run.file("manifest.json"));
    }
}

#[test]
fn one_packet_in_a_thousand_that_does_not_arrive_is_found() {
    let run = Run::of("clean", "mismatch");
    for node in 0..8 {
        run.change(&format!("homa_w4-{node}.metrics"), "packets_rcvd_DATA", None, |count| count - count / 1000);
    }
    let scan = run.scan();
    let found = from(&scan, Level::Warn);
    assert_eq!(
        (found.len(), found[0].metric.as_str(), found[0].letters().as_str()),
        (1, "packets_DATA", "I"),
        "{found:#?}"
    );
    assert!(found[0].what.contains("DATA packets sent did not arrive"), "{}", found[0].what);
    assert!(found[0].cause.contains("lost on the way") && found[0].next.contains("tthoma analyze loss"));
}

/// Without manifests, thus from the counters alone.
#[test]
fn one_run_of_ten_with_another_mtu_is_found() {
    let run = Run::of("repeats", "mtu");
    let scan = run.scan();
    assert_eq!(scan.runs.len(), 10);
    let found = from(&scan, Level::Warn);
    assert!(found[0].run.ends_with("seed7") && found[0].metric == "bytes_per_data_packet", "{found:#?}");
    assert!(found[0].letters() == "X" && (0.45..0.55).contains(&found[0].ratio.unwrap()), "{found:#?}");
    assert!(found[0].cause.contains("another MTU") && found[0].next.contains("mtu"), "{found:#?}");
    assert!(found.iter().all(|finding| finding.run.ends_with("seed7")), "{found:#?}");
    let rest = Run::of("repeats", "same-mtu");
    fs::remove_dir_all(rest.file("seed7")).unwrap();
    assert!(from(&rest.scan(), Level::Warn).is_empty(), "{:#?}", rest.scan().findings);
}

/// With manifests the option itself is named, before what comes of it.
#[test]
fn a_run_with_another_option_is_named_by_it() {
    let run = Run::of("repeats", "options");
    for seed in 1..=10 {
        let mtu = if seed == 7 { 1500 } else { 3000 };
        let manifest = format!(
            "{{\"options\": {{\"nodes\": 4, \"seconds\": 0.1, \"mtu\": {mtu}, \"seed\": {seed}, \"testbed\": \"sim\"}}}}"
        );
        fs::write(run.file(&format!("seed{seed}/manifest.json")), manifest).unwrap();
    }
    let scan = run.scan();
    let first = &scan.findings[0];
    assert!(first.run.ends_with("seed7") && first.what == "mtu is 1500, 3000 in the other 9 runs", "{first:#?}");
}

#[test]
fn files_that_can_not_be_used_are_findings_and_lines_are_counted() {
    let run = Run::of("clean", "broken");
    let text = fs::read_to_string(run.file("homa_w4-2.metrics")).unwrap();
    fs::write(run.file("homa_w4-2.metrics"), text.lines().take(2).collect::<Vec<_>>().join("\n")).unwrap();
    let other = fs::read_to_string(run.file("homa_w4-3.metrics")).unwrap();
    fs::write(run.file("homa_w4-3.metrics"), other + "garbage\n").unwrap();
    let scan = run.scan();
    assert_eq!(scan.unused["no counter in it"].0, 1, "{:?}", scan.unused);
    assert_eq!(scan.bad_lines.values().sum::<u64>(), 1, "{:?}", scan.bad_lines);
    let first = &scan.findings[0];
    assert_eq!((first.level, first.node), (Level::Fatal, Some(2)));
    assert!(first.what.contains("homa_w4-2.metrics: no counter"), "{}", first.what);
}

#[test]
fn a_baseline_tells_what_has_changed_since() {
    let (old, new) = (Run::of("clean", "baseline-old"), Run::of("clean", "baseline-new"));
    let path = old.file("usual.json");
    scan_metrics::scan::save_baseline(&old.scan(), &path).unwrap();
    for node in 0..8 {
        new.change(&format!("homa_w4-{node}.metrics"), "softirq_calls", None, |count| 2 * count);
    }
    let options =
        |run: &Run| Options { roots: vec![run.0.clone()], baseline: Some(path.clone()), ..Options::default() };
    assert!(from(&scan(&options(&old)).unwrap(), Level::Warn).is_empty());
    let scan = scan(&options(&new)).unwrap();
    let found = from(&scan, Level::Warn);
    assert!(found.iter().all(|finding| finding.letters() == "B"), "{found:#?}");
    assert!(
        found.iter().any(|finding| finding.metric == "softirq_calls" && (finding.ratio.unwrap() - 2.0).abs() < 0.01),
        "{found:#?}"
    );
}

#[test]
fn results_come_in_all_forms_and_exit_codes_say_whether_to_go_on() {
    let run = Run::of("clean", "forms");
    let tool = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_scan_metrics")).arg(&run.0).args(more).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text, _) = tool(&["--fail-on", "warn"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("nothing odd at level warn"), "{text}");
    fs::remove_file(run.file("homa_w4-5.metrics")).unwrap();
    let (page, csv) = (run.file("odd.html"), run.file("odd.csv"));
    let (code, text, _) =
        tool(&["--fail-on", "fatal", "--html", page.to_str().unwrap(), "--csv", csv.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(text.contains("   1  fatal  I ") && text.contains("cause: ") && text.contains("next: "), "{text}");
    let page = fs::read_to_string(page).unwrap();
    assert!(
        page.starts_with("<!doctype html>") && page.contains("<table class=\"heat\">") && page.ends_with("</html>\n")
    );
    for outside in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "the page fetches: {outside}");
    }
    let csv = fs::read_to_string(csv).unwrap();
    assert!(csv.starts_with("rank,level,tests,") && csv.contains("1,fatal,I,files,file,"), "{csv}");
    let (_, json, _) = tool(&["--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["version"].as_u64(), json["findings"][0]["level"].as_str()), (Some(1), Some("fatal")));
    let nowhere = Command::new(env!("CARGO_BIN_EXE_scan_metrics")).arg("/nowhere").output().unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("/nowhere"));
}
