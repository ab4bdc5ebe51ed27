//! What must agree within and between files, on small files of every layout.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use scan_metrics::scan::finding::{Finding, Level};
use scan_metrics::scan::{Options, Scan, scan};

/// A directory that is removed when dropped.
struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("scan-metrics-agree-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn scan(&self) -> Scan {
        scan(&Options { roots: vec![self.0.clone()], ..Options::default() }).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A raw file of one core: clock, kHz and counters.
fn raw(ticks: u64, khz: u64, counters: &[(&str, u64)]) -> String {
    let mut text = format!("time_cycles {ticks} now\ncpu_khz {khz} rate\ncore 0 core\n");
    for (name, value) in counters {
        writeln!(text, "{name:<30} {value:>20} text").unwrap();
    }
    text
}

/// The same as the module of 2024 wrote it: another clock, narrow columns.
fn narrow(text: &str) -> String {
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let lines = words.map(|words| match words[0] {
        "time_cycles" => format!("rdtsc_cycles {:>20}  now\n", words[1]),
        name => format!("{name:<22}{:>15}  text\n", words[1]),
    });
    lines.collect()
}

/// Counters of a node that is client and server.
const NODE: [(&str, u64); 6] = [
    ("client_requests_started", 1000),
    ("client_requests_done", 1000),
    ("packets_sent_DATA", 5000),
    ("packets_rcvd_DATA", 5000),
    ("requests_received", 1000),
    ("responses_received", 1000),
];

fn with(name: &str, value: u64) -> Vec<(&'static str, u64)> {
    NODE.into_iter().map(|(other, usual)| (other, if other == name { value } else { usual })).collect()
}

fn fatal(scan: &Scan) -> Vec<&Finding> {
    scan.findings.iter().filter(|finding| finding.level == Level::Fatal).collect()
}

/// Both ends of an interval of 10 s at 1 GHz.
fn pair(dir: &Dir, node: u32, ticks: u64, khz: u64, end: &[(&str, u64)], layout: fn(&str) -> String) {
    let half: Vec<_> = NODE.into_iter().map(|(name, value)| (name, value / 2)).collect();
    dir.write(&format!("homa_w4-{node}.metrics.before"), &layout(&raw(1_000_000_000, khz, &half)));
    dir.write(&format!("homa_w4-{node}.metrics.after"), &layout(&raw(1_000_000_000 + ticks, khz, end)));
}

const TICKS: u64 = 10_000_000_000;

#[test]
fn files_that_agree_have_no_findings_in_either_layout() {
    for (name, layout) in [("v26", str::to_owned as fn(&str) -> String), ("v24", narrow)] {
        let dir = Dir::new(name);
        (0..4).for_each(|node| pair(&dir, node, TICKS, 1_000_000, &NODE, layout));
        let scan = dir.scan();
        assert_eq!((scan.nodes, scan.findings.len(), scan.unused.len()), (4, 0, 0), "{name}: {:#?}", scan.findings);
        assert!(scan.comparisons > 0);
    }
}

#[test]
fn what_contradicts_itself_is_fatal_and_named() {
    type Change = fn(&Dir);
    let cases: [(&str, Change, &str); 5] = [
        (
            "decrease",
            |dir| pair(dir, 2, TICKS, 1_000_000, &with("packets_sent_DATA", 100), str::to_owned),
            "packets_sent_DATA decreased",
        ),
        (
            "done",
            |dir| pair(dir, 2, TICKS, 1_000_000, &with("client_requests_done", 1001), str::to_owned),
            "more than client_requests_started",
        ),
        ("khz", |dir| pair(dir, 2, TICKS, 1_002_000, &NODE, str::to_owned), "clock runs at 1002000 kHz"),
        (
            "interval",
            |dir| pair(dir, 2, TICKS * 103 / 100, 1_000_000, &NODE, str::to_owned),
            "its interval is 10.300 s",
        ),
        (
            "half",
            |dir| fs::remove_file(dir.0.join("homa_w4-2.metrics.before")).unwrap(),
            "before the interval, is missing",
        ),
    ];
    for (name, change, part) in cases {
        let dir = Dir::new(name);
        (0..4).for_each(|node| pair(&dir, node, TICKS, 1_000_000, &NODE, str::to_owned));
        change(&dir);
        let scan = dir.scan();
        let found = fatal(&scan);
        let one = found.iter().find(|finding| finding.what.contains(part));
        let one = one.unwrap_or_else(|| panic!("{name}: no `{part}` in {:#?}", scan.findings));
        assert_eq!(one.node, Some(2), "{name}");
        assert!(!one.cause.is_empty() && !one.next.is_empty() && one.letters() == "I", "{name}: {one:#?}");
        assert_eq!(scan.suspects.iter().map(|(_, node, _)| *node).collect::<Vec<_>>(), [2], "{name}");
    }
}

#[test]
fn errors_of_sending_are_fatal_and_rare_retries_only_worth_knowing() {
    let dir = Dir::new("zero");
    let packets = [
        ("packets_sent_DATA", 5_000_000),
        ("packets_rcvd_DATA", 5_000_000),
        ("packets_rcvd_RESEND", 2),
        ("requests_received", 9),
        ("responses_received", 9),
    ];
    for node in 0..4 {
        let own = [
            ("data_xmit_errors", u64::from(node == 1)),
            ("resent_packets", 3),
            ("rpc_timeouts", if node == 3 { 5000 } else { 0 }),
        ];
        dir.write(&format!("homa_w4-{node}.metrics"), &raw(TICKS, 1_000_000, &[&packets[..], &own].concat()));
    }
    let scan = dir.scan();
    let find = |metric: &str| scan.findings.iter().find(|finding| finding.metric == metric).unwrap();
    assert_eq!((find("data_xmit_errors").level, find("data_xmit_errors").node), (Level::Fatal, Some(1)));
    assert_eq!((find("rpc_timeouts").level, find("rpc_timeouts").node), (Level::Warn, Some(3)));
    let retries = find("resent_packets");
    assert_eq!((retries.level, retries.node, retries.value), (Level::Info, None, Some(12.0)));
}

/// A file as metrics.py prints it: what did not grow is not in it.
#[test]
fn printed_files_are_compared_too() {
    let dir = Dir::new("printed");
    for node in 0..6 {
        let resent = if node == 4 {
            "resent_packets                            90000 (  9.0 K/s)  again\npackets_rcvd_RESEND 90000 (  9.0 K/s)  asked\n"
        } else {
            ""
        };
        let text = format!(
            "time_cycles                        10000000000 (10.0 s)     clock\n\
             sent_msg_bytes                     {} (  1.0 G/s)  bytes\n\
             packets_sent_DATA                      1000000 (100.0 K/s)  sent\n\
             packets_rcvd_DATA                      1000000 (100.0 K/s)  received\n\
             packets_sent_RESEND                      15000 (  1.5 K/s)  asked\n\
             requests_received                        10000 (  1.0 K/s)  requests\n\
             responses_received                       10000 (  1.0 K/s)  responses\n{resent}\nPer-Core CPU Usage:\n",
            1_000_000_000 + node * 1_000_000
        );
        dir.write(&format!("homa_w4-{node}.metrics"), &text);
    }
    let scan = dir.scan();
    let first = scan.findings.iter().find(|finding| finding.level >= Level::Warn).unwrap();
    assert_eq!((scan.nodes, first.node), (6, Some(4)), "{:#?}", scan.findings);
    assert!(first.class.name() == "retransmission", "{first:#?}");
}

#[test]
fn a_busy_core_is_named_whatever_others_do() {
    let dir = Dir::new("busy");
    for node in 0..3 {
        let mut text = raw(TICKS, 1_000_000, &NODE);
        let busy = if node == 1 { TICKS * 97 / 100 } else { TICKS / 10 };
        writeln!(text, "core 1 core").unwrap();
        NODE.into_iter().for_each(|(name, _)| writeln!(text, "{name} 0 text").unwrap());
        writeln!(text, "send_cycles {busy} text").unwrap();
        dir.write(&format!("homa_w4-{node}.metrics"), &text);
    }
    let scan = dir.scan();
    let first = &scan.findings[0];
    assert_eq!(
        (first.level, first.node, first.core, first.letters().as_str()),
        (Level::Fatal, Some(1), Some(1), "C"),
        "{first:#?}"
    );
    assert!(first.what.contains("97 %"), "{}", first.what);
}

#[test]
fn a_directory_without_metrics_is_an_error_that_says_what_was_expected() {
    let dir = Dir::new("none");
    dir.write("readme.txt", "nothing");
    let err = scan(&Options { roots: vec![dir.0.clone()], ..Options::default() }).unwrap_err();
    assert!(err.to_string().contains("expected files EXPERIMENT-NODE.metrics"), "{err}");
    assert!(Path::new(&dir.0).exists());
}
