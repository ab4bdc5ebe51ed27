//! What is checked before anything starts: exit codes and messages of the binary.

mod sys;

use std::path::PathBuf;
use std::process::{Command, Output};

fn cperf(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cperf")).args(words).output().expect("the binary starts")
}

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("cperf-cli-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

#[track_caller]
fn assert_refused(output: &Output, code: i32, part: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(part), "no `{part}` in: {text}");
    assert!(output.stdout.is_empty(), "results of a run that never was");
}

#[test]
fn wrong_usage_is_refused_with_code_2_and_a_reason() {
    for (words, part) in [
        (&["run", "w44"][..], "did you mean `w4`"),
        (&["run", "basik"], "did you mean `basic`"),
        (&["run", "w4", "--nodes", "1"], "from 2 to 256"),
        (&["run", "w4", "--nodes", "0"], "from 2 to 256"),
        (&["run", "bufers"], "did you mean `buffers`"),
        (&["run", "no/such.toml"], "no/such.toml"),
        (&["run", "buffers", "--testbed", "netns"], "limit the memory of the switch"),
        (&["run", "w4", "--ipv6"], "--ipv6 is for network namespaces"),
        (&["run", "w4", "--loss", "1"], "--loss 1"),
        (&["run", "w4", "--testbed", "netns", "--host-model", "ideal"], "--host-model is for simulated nodes"),
        (&["run", "w4", "--testbed", "netns", "--protocols", "dctcp"], "on --testbed netns there are homa and tcp"),
        (&["run", "w4", "--homa", "windw=1"], "did you mean `window`"),
        (&["run", "nodes", "--set", "node=3"], "did you mean `nodes`"),
        (&["run", "nodes", "--seeds", "x"], "like 1,2,3 or 1-5"),
        (&["experiments", "show", "overcomit"], "did you mean `overcommit`"),
        (&["report", "/no/such/directory"], "no such directory"),
        (&["report", "/"], "neither a run"),
        (&["point", "/no/such.json", "/tmp"], "/no/such.json"),
        (&["run", "w4", "--testbed", "ssh"], "--testbed ssh"),
        (&["run", "w4", "--protocols", "udp"], "possible values: homa, homa-kernel, tcp, dctcp"),
        (&["run", "w4", "--seconds", "0"], "--seconds 0"),
        (&["run", "basic", "--count", "0"], "--count"),
        (&["run"], "WORKLOAD"),
        (&["rum"], "run"),
        (&[], "Usage"),
    ] {
        let out = scratch("usage");
        let mut words = words.to_vec();
        if words.len() > 1 && words[0] == "run" {
            words.extend(["--out", out.to_str().unwrap()]);
        }
        assert_refused(&cperf(&words), 2, part);
        assert!(!out.exists(), "{words:?} left a directory behind");
    }
}

#[test]
fn a_place_for_results_must_be_new_and_writable() {
    let out = scratch("full");
    std::fs::create_dir_all(&out).unwrap();
    std::fs::write(out.join("precious"), "data").unwrap();
    assert_refused(&cperf(&["run", "w4", "--out", out.to_str().unwrap()]), 2, "never overwritten");
    assert_eq!(std::fs::read_to_string(out.join("precious")).unwrap(), "data");
    let below = out.join("precious/below");
    assert_refused(&cperf(&["run", "w4", "--out", below.to_str().unwrap()]), 2, "--out");
    assert_refused(&cperf(&["run", "w4", "--out", "/proc/cperf"]), 2, "cannot write there");
    std::fs::remove_dir_all(out).unwrap();
}

#[test]
fn help_lists_exit_codes() {
    for words in [&["--help"][..], &["run", "--help"]] {
        let output = cperf(words);
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8_lossy(&output.stdout);
        for part in ["Exit codes: 0 done", "130 interrupted"] {
            assert!(text.contains(part), "no `{part}` in: {text}");
        }
    }
}

/// Without capabilities and where no further user namespace may be made, there is nothing to run on.
#[test]
fn a_missing_privilege_is_named_with_code_3_and_nothing_is_left() {
    let out = scratch("privilege");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cperf"));
    command.args(["run", "w4", "--testbed", "netns", "--out", out.to_str().unwrap()]);
    sys::forbid_namespaces(&mut command);
    let output = command.output().expect("the binary starts");
    assert_refused(&output, 3, "lacks CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("user.max_user_namespaces is 0 here"), "{text}");
    assert!(!out.exists(), "an empty directory was left behind");
}
