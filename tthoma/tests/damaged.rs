//! Traces that are damaged in every way that files get damaged: each is accounted for, and analysed as far as it goes.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use tthoma::analyze::{ALL, Analyzer, Finding, Options, Run};
use tthoma::model::Model;
use tthoma::testing::Folder;

fn sample(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces").join(path);
    let bytes = fs::read(&path).unwrap();
    if path.extension().is_some_and(|e| e == "gz") {
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text).unwrap();
        return text;
    }
    bytes
}

/// Every analysis that needs no further options, in all forms; and how many of them have results.
fn analyse(paths: &[PathBuf]) -> (Run, usize) {
    let options = Options { rpc: Some("slow".into()), top: 2, ..Options::default() };
    let model = Model::read(paths, &options).unwrap_or_else(|error| panic!("{error}"));
    let ready = |a: &&'static dyn Analyzer| a.about().requires.iter().all(|r| *r == "rpc");
    let all: Vec<&'static dyn Analyzer> = ALL.iter().copied().filter(ready).collect();
    let run = Run::new(&model, paths, &all, &options);
    assert!(!run.to_text().is_empty() && serde_json::to_string(&run).is_ok());
    let answers = run.findings.iter().filter(|f| f.report.as_ref().is_some_and(|r| r.has_results())).count();
    (run, answers)
}

fn says(run: &Run, what: &str) -> bool {
    run.warnings_of_traces().iter().any(|w| w.contains(what))
}

/// The traces of RPCs of 100 bytes.
fn both() -> (Vec<u8>, Vec<u8>) {
    (sample("kernel_100/node0.tt"), sample("kernel_100/node1.tt.gz"))
}

#[test]
fn whole_traces_have_no_problems_and_ends_of_lines_make_no_difference() {
    let dir = Folder::new("crlf");
    let (node0, node1) = both();
    let whole = analyse(&[dir.file("node0.tt", &node0), dir.file("node1.tt", &node1)]);
    assert!(whole.0.warnings_of_traces().is_empty() && whole.1 > 20, "{:?}", whole.0.warnings_of_traces());
    let crlf = |text: &[u8]| String::from_utf8(text.to_vec()).unwrap().replace('\n', "\r\n").into_bytes();
    let other = analyse(&[dir.file("node0.tt", &crlf(&node0)), dir.file("node1.tt", &crlf(&node1))]);
    assert!(other.0.warnings_of_traces().is_empty());
    // But for the bytes of the files, which `inventory` counts.
    let same = |(one, _): &(&Finding, &Finding)| one.about.name != "inventory";
    for (one, other) in whole.0.findings.iter().zip(&other.0.findings).filter(same) {
        assert_eq!(one.report, other.report, "{}", one.about.name);
    }
}

#[test]
fn a_truncated_trace_says_where_it_ends() {
    let dir = Folder::new("truncated");
    let (node0, node1) = both();
    let second = dir.file("node1.tt", &node1);
    let (run, answers) = analyse(&[dir.file("node0.tt", &node0[..node0.len() / 2 - 7]), second.clone()]);
    assert!(answers > 20 && run.import.bad_lines <= 1, "{:?}", run.warnings_of_traces());
    let packed = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/kernel_500k/node0.tt.gz")).unwrap();
    let (run, _) = analyse(&[dir.file("node0.tt.gz", &packed[..packed.len() / 2]), second]);
    let problems = run.warnings_of_traces();
    assert!(problems.iter().any(|p| p.contains("node0.tt.gz")), "{problems:?}");
    assert!(run.import.lines > 700, "what was read before the cut is used");
}

#[test]
fn traces_appended_to_each_other_are_noticed() {
    let dir = Folder::new("appended");
    let (node0, node1) = both();
    let twice = [&node0[..], &node0[..]].concat();
    let (run, _) = analyse(&[dir.file("node0.tt", &twice), dir.file("node1.tt", &node1)]);
    assert!(says(&run, "traces appended to each other"), "{:?}", run.warnings_of_traces());
    assert!(says(&run, "time goes backwards"), "{:?}", run.warnings_of_traces());
}

#[test]
fn binary_garbage_is_counted_and_the_rest_used() {
    let dir = Folder::new("garbage");
    let (node0, node1) = both();
    let mut seed = 88_172_645_463_325_252u64;
    let garbage: Vec<u8> = (0..20_000)
        .map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        })
        .collect();
    let middle = node0.len() / 2;
    let mixed = [&node0[..middle], &garbage, &node0[middle..]].concat();
    let (run, answers) = analyse(&[dir.file("node0.tt", &mixed), dir.file("node1.tt", &node1)]);
    assert!(run.import.bad_lines > 10 && answers > 20, "{} {answers}", run.import.bad_lines);
    assert!(says(&run, "node0.tt:"), "{:?}", run.warnings_of_traces());
    let (run, answers) = analyse(&[dir.file("node0.tt", &garbage), dir.file("node1.tt", &node1)]);
    assert!(run.import.bad_lines > 10 && answers > 5, "the other node is analysed: {answers}");
}

#[test]
fn a_clock_that_jumps_is_noticed() {
    let dir = Folder::new("jump");
    let (node0, node1) = both();
    let text = String::from_utf8(node0).unwrap();
    // From the middle on, 3 s later; and for ten lines, 50 s earlier.
    let count = text.lines().count();
    let shifted = |(i, line): (usize, &str)| {
        let (time, rest) = line.trim_start().split_once(' ').unwrap();
        let jump = if i >= count / 2 { 3e6 } else { 0.0 } - if (100..110).contains(&i) { 5e7 } else { 0.0 };
        format!("{:9.3} {rest}\n", time.parse::<f64>().unwrap() + jump)
    };
    let jumps: String = text.lines().enumerate().map(shifted).collect();
    let (run, _) = analyse(&[dir.file("node0.tt", jumps.as_bytes()), dir.file("node1.tt", &node1)]);
    assert!(says(&run, "time goes backwards (1 times, by 49999999.9"), "{:?}", run.warnings_of_traces());
    assert!(says(&run, "clocks of node0, node1") || says(&run, "no clock offset"), "{:?}", run.warnings_of_traces());
}

#[test]
fn one_node_alone_and_beside_an_empty_file_has_the_same_answers() {
    let dir = Folder::new("single");
    let (node0, _) = both();
    let path = dir.file("node5.tt", &node0);
    let (alone, answers) = analyse(std::slice::from_ref(&path));
    assert!(answers > 10 && alone.warnings_of_traces().is_empty(), "{answers} {:?}", alone.warnings_of_traces());
    // The empty file comes first.
    let (beside, _) = analyse(&[dir.file("node1.tt", b""), path]);
    assert!(says(&beside, "node1.tt: "), "{:?}", beside.warnings_of_traces());
    // What goes through nodes one by one.
    for name in ["coregaps", "smis", "cores", "copy", "activity"] {
        let rows = |run: &Run| {
            let tables = run.report(name).into_iter().flat_map(|r| &r.tables);
            let rows = tables.flat_map(|t| &t.rows).filter(|r| r.cells.first().is_some_and(|c| c.plain() == "node5"));
            rows.map(|r| r.cells.clone()).collect::<Vec<_>>()
        };
        assert_eq!(rows(&alone), rows(&beside), "{name}");
    }
    let none = Model::read(&[dir.file("none.tt", b"")], &Options::default());
    assert!(none.is_err_and(|error| error.to_string().contains("none.tt")), "nothing at all is an error that says so");
}
