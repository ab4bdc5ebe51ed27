//! The program as a user meets it: exit status, what goes where, damaged files.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tthoma::testing::Folder;

fn samples(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../traces").join(folder)
}

fn tthoma(args: &[&str], paths: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tthoma")).args(args).args(paths).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit status, standard output and standard error.
fn parts(output: &Output) -> (i32, String, String) {
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

const TRACE: &str = "    0.000 us (+   0.000 us) [C00] First event has timestamp 8 (cpu_ghz 2.400000000000000)\n    \
    1.000 us (+   1.000 us) [C05] homa_gro_receive got packet from 0xa000103 id 1001, offset 0, priority 5\n    \
    3.000 us (+   2.000 us) [C05] incoming data packet, id 1001, peer 0xa000103, offset 0/100\n";

#[test]
fn results_go_to_standard_output_and_nothing_else() {
    let (code, out, err) = parts(&tthoma(&["analyze", "delay"], &[&samples("kernel_100")]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("SoftIRQ    76  0.1  0.2  0.4  0.7  1.2  1.2  0.4\n"), "{out}");
    assert!(out.contains("node1                  7279.935   +-11.202\n"), "{out}");
}

#[test]
fn json_has_its_version_and_all_options() {
    let (code, out, _) =
        parts(&tthoma(&["analyze", "delay", "--format", "json", "--negative-ok"], &[&samples("kernel_500k")]));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, json["version"].as_i64(), json["command"].as_str()), (0, Some(2), Some("analyze")));
    let options = &json["options"];
    assert_eq!((&options["negative_ok"], &options["interval"]), (&true.into(), &50.0.into()));
    let phases = json["analyses"]["delay"]["tables"]["phases"]["rows"].as_array().unwrap();
    let long = |row: &&serde_json::Value| row["group"].as_str().unwrap().contains('>') && row["phase"] == "Total";
    assert_eq!(phases.iter().find(long).unwrap()["count"], 706);
    assert_eq!(json["nodes"][1]["clock_error_us"], 3.826);
    assert_eq!(json["import"]["lines"], 4621);
}

#[test]
fn wrong_usage_is_status_2_and_says_what_to_do() {
    let missing = Path::new("/nonexistent/node1.tt");
    let (code, _, err) = parts(&tthoma(&["analyze", "delay"], &[missing]));
    assert_eq!(code, 2);
    assert!(err.starts_with("tthoma: /nonexistent/node1.tt: cannot read: "), "{err}");
    let (code, _, err) = parts(&tthoma(&["analyze", "DELAYX"], &[missing]));
    assert_eq!(
        (code, err.as_str()),
        (2, "tthoma: no analysis named `DELAYX`; did you mean `delay`? (`tthoma list` says what there is)\n")
    );
    assert_eq!(tthoma(&["analyze", "delay"], &[]).status.code(), Some(2));
    assert_eq!(tthoma(&["analyze", "delay", "--format", "xml"], &[missing]).status.code(), Some(2));
    let (code, out, _) = parts(&tthoma(&["--help"], &[]));
    assert!(code == 0 && out.contains("Exit status: 0 done; 1 the analysis has no results; 2 wrong usage"), "{out}");
}

#[test]
fn a_node_with_two_traces_says_which_to_give() {
    let dir = Folder::new("twice");
    dir.file("node1.tt", TRACE.as_bytes());
    dir.file("node1.synced.tt", TRACE.as_bytes());
    let (code, _, err) = parts(&tthoma(&["analyze", "delay"], &[&dir.0]));
    assert_eq!(code, 2);
    assert!(err.contains("are both traces of `node1`: give only one of them, by naming files"), "{err}");
    assert!(err.contains("node1.synced.tt has its times shifted"), "{err}");
    let (code, _, err) = parts(&tthoma(&["analyze", "delay"], &[&dir.0.join("node1.tt")]));
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn a_folder_without_traces_is_an_error() {
    let dir = Folder::new("none");
    dir.file("notes.txt", b"hello");
    let (code, _, err) = parts(&tthoma(&["analyze", "sync"], &[&dir.0]));
    assert!(code == 2 && err.contains("no traces in this directory: expected *.tt, *.tt.gz or *.tt.zst"), "{err}");
}

#[test]
fn gzip_and_zstd_are_read_whatever_the_name() {
    let dir = Folder::new("packed");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(TRACE.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let zstd = ruzstd::encoding::compress_to_vec(TRACE.as_bytes(), level);
    // Two members or frames hold the trace twice; the second is a trace of its own appended.
    let files = [
        ("a1.tt.gz", gzip.clone(), 2),
        ("a2.tt.zst", zstd.clone(), 2),
        ("a3.tt", gzip.repeat(2), 4),
        ("a4.tt", zstd.repeat(2), 4),
    ];
    for (name, bytes, samples) in files {
        let file = dir.file(name, &bytes);
        let (code, out, _) = parts(&tthoma(&["analyze", "delay", "--format", "json"], &[&file]));
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        let softirq = json["nodes"][0]["packets_softirq"].as_i64();
        assert_eq!((code, softirq), (0, Some(samples / 2)), "{name}");
    }
}

#[test]
fn damaged_files_are_read_as_far_as_they_go() {
    let dir = Folder::new("damaged");
    let long = TRACE.repeat(2000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(long.as_bytes()).unwrap();
    let mut cut = gzip.finish().unwrap();
    cut.truncate(cut.len() * 2 / 3);
    dir.file("n1.tt.gz", &cut);
    dir.file("n2.tt", b"\x00\x01\x02\xff\xfe binary\n\x7f\n");
    dir.file("n3.tt", b"");
    dir.file("n4.tt", &TRACE.as_bytes()[..TRACE.len() - 10]);
    dir.file("n5.tt.gz", TRACE.as_bytes());
    dir.file("n6.tt", b"cpu_khz: 2400000\n8213442210111 [C05] homa_softirq starting\n");
    dir.file("n7.tt", TRACE.replace('\n', "\r\n").as_bytes());
    let (code, _, err) = parts(&tthoma(&["analyze", "delay"], &[&dir.0]));
    assert_eq!(code, 0, "{err}");
    for expected in [
        "n1.tt.gz: its gzip data are cut off or damaged after ",
        "n2.tt:1: binary data",
        "n3.tt: is empty",
        "n4.tt:3: last line without an end: the file was cut",
        "n5.tt.gz: is not compressed, whatever its name says",
        "no clock offset for ",
    ] {
        assert!(err.contains(expected), "{expected} not in\n{err}");
    }
    assert!(!err.contains("n6.tt:"), "the raw form is fine\n{err}");
    assert!(!err.contains("n7.tt:"), "line ends of other systems are fine\n{err}");
}

#[test]
fn traces_without_any_record_are_an_error_and_without_results_a_failure() {
    let dir = Folder::new("useless");
    let garbage = dir.file("n1.tt", b"hello\nworld\n");
    let (code, out, err) = parts(&tthoma(&["analyze", "delay"], &[&garbage]));
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.starts_with("tthoma: no trace records found\n") && err.contains("n1.tt:1: no time: expected"), "{err}");
    let empty = dir.file("n2.tt", b"    1.000 us (+   1.000 us) [C05] homa_softirq starting\n");
    let (code, out, err) = parts(&tthoma(&["analyze", "delay"], &[&empty]));
    assert_eq!(code, 1);
    let why = "delay: the traces have no ip_xmit, gro_data, softirq_data, send_grant, gro_grant, wait_found_rpc";
    assert!(out.contains(why) && err.contains(why), "{out}{err}");
    assert!(err.contains("delay: no results"), "{err}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tthoma"))
        .args(["analyze", "delay", "-v", "--format", "json"])
        .arg(samples("kernel_500k"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(parts(&output), (0, String::new(), String::new()));
}

#[test]
fn the_list_says_what_each_analysis_needs() {
    let (code, out, _) = parts(&tthoma(&["list"], &[]));
    assert_eq!(code, 0);
    assert!(out.contains(
        "delay\n    Where do packets and hand-offs between cores and threads spend time?\n    needs any of: ip_xmit, "
    ));
    assert!(out.lines().all(|l| l.len() <= 100), "{out}");
}

#[test]
fn the_small_tools_take_files_and_standard_input() {
    let dir = Folder::new("tools");
    let raw =
        dir.file("raw", b"cpu_khz: 2400000\n8213442210111 [C05] homa_softirq starting\n8213442212400 [C07] other\n");
    let (code, tt, err) = parts(&tthoma(&["print"], &[&raw]));
    assert_eq!((code, err.as_str(), tt.lines().count()), (0, "", 3));
    let file = dir.file("node1.tt", tt.as_bytes());
    let (code, out, _) = parts(&tthoma(&["grep", "--rebase", "other"], &[&file]));
    assert_eq!((code, out.as_str()), (0, "    0.000 us (+   0.000 us) [C07] other\n"));
    assert_eq!(tthoma(&["grep", "nothing"], &[&file]).status.code(), Some(1));
    assert_eq!(tthoma(&["grep", "("], &[&file]).status.code(), Some(2));
    let (_, out, _) = parts(&tthoma(&["offset", "0", "-1.5"], &[&file]));
    assert!(out.ends_with("   -0.546 us (+   0.954 us) [C07] other\n"), "{out}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_tthoma"))
        .args(["range", "-2", "-1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(out.as_bytes()).unwrap();
    let (code, cut, _) = parts(&child.wait_with_output().unwrap());
    assert_eq!((code, cut.lines().count()), (0, 2));
    let (code, out, _) = parts(&tthoma(&["sum"], &[&file]));
    assert!(code == 0 && out.contains("other      954      954"), "{out}");
    let (code, out, err) = parts(&tthoma(&["merge"], &[&file, &raw]));
    assert_eq!((code, out.lines().count()), (0, 2));
    assert!(err.contains("raw: left out: its first line does not tell its clock"), "{err}");
    let (code, _, err) = parts(&tthoma(&["print"], &[&file]));
    assert!(code == 2 && err.contains("no line `cpu_khz: N`"), "{err}");
}

#[test]
fn the_inventory_tells_what_is_unknown_and_events_of_the_user_are_known() {
    let dir = Folder::new("inventory");
    let file =
        dir.file("node1.tt", (TRACE.to_string() + "    4.000 us (+   1.000 us) [C05] my driver did 7\n").as_bytes());
    let (code, out, err) = parts(&tthoma(&["inventory"], &[&file]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("my driver did N"), "{out}");
    let events = dir.file("mine.toml", b"[[event]]\nname = 'mine'\npattern = 'my driver did (?<a>[0-9]+)'\n");
    let given = format!("--events={}", events.display());
    let (code, out, _) = parts(&tthoma(&["inventory", &given], &[&file]));
    assert!(code == 0 && !out.contains("my driver did N") && out.contains("mine "), "{out}");
    let bad = dir.file("bad.toml", b"[[event]]\nname = 'mine'\n");
    let (code, _, err) = parts(&tthoma(&["inventory", &format!("--events={}", bad.display())], &[&file]));
    assert!(code == 2 && err.contains("missing field `pattern`"), "{err}");
}

#[test]
fn a_report_is_one_file_with_the_answers() {
    let dir = Folder::new("report");
    let file = dir.file("node1.tt", TRACE.as_bytes());
    let report = dir.file("old.html", b"old");
    let (code, out, err) = parts(&tthoma(&["report", &format!("--output={}", report.display())], &[&file]));
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.ends_with(" analyses have an answer\n"), "{err}");
    let html = fs::read_to_string(&report).unwrap();
    assert!(html.contains("Time traces of node1") && html.contains("<section id=\"inventory\">"), "{html}");
    let (code, _, err) = parts(&tthoma(&["report", "--output=/nowhere/report.html"], &[&file]));
    assert!(code == 1 && err.contains("cannot write /nowhere/report.html"), "{err}");
}
