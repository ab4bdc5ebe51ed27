//! Runs as Parquet tables: analyses of them say the same as of the text, and conversions are used again.

#![cfg(feature = "tables")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tthoma::analyze::{self, Finding, Options, Run};
use tthoma::event::Kinds;
use tthoma::model::Model;
use tthoma::tables::store::{self, StoreError};
use tthoma::tables::stream;
use tthoma::testing::{Folder, Scenario, Steps};

fn samples(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../traces").join(folder)
}

/// Everything that a run says, but for the paths it was given.
fn said(run: &Run) -> serde_json::Value {
    let mut json = serde_json::to_value(run).unwrap();
    json["paths"].take();
    json
}

fn options() -> Options {
    Options { verbose: true, no_cache: true, ..Options::default() }
}

/// Runs every analysis on the text in `paths` and on its tables.
fn both(paths: &[PathBuf], dir: &Path, options: &Options) -> (Run, Run) {
    let text = analyze::run(&["all"], paths, options).unwrap();
    store::write(&Model::read(paths, options).unwrap(), options, dir, "r1").unwrap();
    (text, analyze::run(&["all"], &[dir.to_path_buf()], options).unwrap())
}

#[test]
fn analyses_of_tables_say_what_those_of_the_text_say() {
    for folder in ["kernel_100", "kernel_500k"] {
        let dir = Folder::new(folder);
        let (text, tables) = both(&[samples(folder)], &dir.0, &options());
        assert!(text.findings.len() > 3);
        for (text, tables) in text.findings.iter().zip(&tables.findings) {
            assert_eq!(text.report, tables.report, "{folder}: {}", text.about.name);
        }
        assert_eq!(said(&text), said(&tables), "{folder}");
        // What reads no events is not loaded with them, and says the same.
        let paths = [dir.0.clone()];
        for name in analyze::ALL.iter().filter(|a| a.reads() != Kinds::ALL).map(|a| a.about().name) {
            let part = analyze::run(&[name], &paths, &options()).unwrap();
            assert_eq!(part.report(name), text.report(name), "{folder}: {name}");
            assert_eq!(said(&part)["nodes"], said(&text)["nodes"], "{folder}: {name}");
        }
        // Times are as they were logged, if asked for.
        let raw = Options { no_sync: true, ..options() };
        let unsynced = analyze::run(&["delay", "activity"], &[samples(folder)], &raw).unwrap();
        assert_eq!(said(&analyze::run(&["delay", "activity"], &paths, &raw).unwrap()), said(&unsynced));
    }
}

/// Every analysis says of tables that were made in parts what it says of the text.
#[test]
fn runs_larger_than_memory_are_converted_in_parts_that_make_the_whole() {
    for folder in ["kernel_100", "kernel_500k"] {
        let (dir, whole) = (Folder::new(&format!("parts-{folder}")), Folder::new(&format!("whole-{folder}")));
        let paths = [samples(folder)];
        let needed = stream::needs(&tthoma::read::files(&paths).unwrap());
        let text = analyze::run(&["all"], &paths, &options()).unwrap();
        // In one part all is as it was; then in several, each of several buckets.
        stream::write(&paths, &options(), &dir.0, "one", needed).unwrap();
        let manifest = stream::write(&paths, &options(), &dir.0, "r1", needed / 40).unwrap();
        let of = |run: &str| {
            let path = dir.0.join(format!("manifest-{run}.json"));
            analyze::run(&["all"], std::slice::from_ref(&path), &options()).unwrap()
        };
        let (one, parts) = (of("one"), of("r1"));
        assert_eq!(said(&text), said(&one), "{folder}");
        for ((text, one), parts) in text.findings.iter().zip(&one.findings).zip(&parts.findings) {
            assert_eq!(text.report, one.report, "{folder}: {}", text.about.name);
            // Which of equally slow packets are shown depends on their order.
            let tables = |run: &Finding| {
                let tables = run.report.iter().flat_map(|r| r.tables.clone());
                tables.filter(|t| t.name != "slowest").collect::<Vec<_>>()
            };
            assert_eq!(tables(text), tables(parts), "{folder}: {}", text.about.name);
        }
        assert!(manifest.files.iter().all(|f| f.table != "intervals"));
        let hidden = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes()[0] == b'.';
        assert!(!fs::read_dir(&dir.0).unwrap().any(|e| hidden(&e.unwrap())), "nothing is left behind");
        // The tables have the rows that are made at once, but for their order and the numbers of messages.
        let at_once = store::write(&Model::read(&paths, &options()).unwrap(), &options(), &whole.0, "r1").unwrap();
        let rows = |m: &store::Manifest| {
            let files = m.files.iter().filter(|f| f.table != "intervals");
            let mut rows: Vec<_> = files.map(|f| (f.path.clone(), f.rows)).collect();
            rows.sort();
            rows
        };
        assert_eq!(rows(&manifest), rows(&at_once), "{folder}");
    }
}

/// Files of packets and events may be missing then.
#[test]
fn what_looks_at_counts_and_clocks_only_reads_the_manifest_alone() {
    let dir = Folder::new("alone");
    let paths = [samples("kernel_500k")];
    store::write(&Model::read(&paths, &options()).unwrap(), &options(), &dir.0, "r1").unwrap();
    for entry in fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        fs::remove_dir_all(entry).unwrap();
    }
    let names = ["sync", "inventory"];
    let (text, alone) =
        (analyze::run(&names, &paths, &options()), analyze::run(&names, std::slice::from_ref(&dir.0), &options()));
    assert_eq!(said(&text.unwrap()), said(&alone.unwrap()));
    assert!(analyze::run(&["delay"], std::slice::from_ref(&dir.0), &options()).is_err());
}

#[test]
fn retransmissions_strange_clocks_and_events_of_the_user_survive() {
    let (traces, dir) = (Folder::new("odd-traces"), Folder::new("odd"));
    let mut scenario = Scenario::new(3);
    scenario.clock_ahead(1, -12_345_678.0);
    for i in 0..20 {
        let steps = Steps { unscheduled: 10_000, ..Steps::default() };
        scenario.rpc(f64::from(i) * 400.0, (0, 1), 10 + 2 * i, (30_000, 100), &steps);
        // node3 only receives: its clock can't be placed.
        scenario.message(f64::from(i) * 400.0 + 7.0, (0, 2), 5000 + 2 * i, 100, &Steps::default());
    }
    scenario.event(0, 90.0, 1, "retransmitting offset 0, length 100, id 10");
    scenario.event(0, 90.0, 1, "calling ip_queue_xmit: wire_bytes 218, peer 0xa000103, id 10, offset 0");
    scenario.event(1, 95.0, 1, "mine saw 7 things");
    let files = scenario.write(&traces.0).unwrap();
    let definitions = traces.0.join("mine.toml");
    fs::write(&definitions, "[[event]]\nname = 'mine'\npattern = 'mine saw (?<a>[0-9]+)'\n").unwrap();
    let options = Options { events: Some(definitions), ..options() };
    let (text, tables) = both(&files, &dir.0, &options);
    assert_eq!(said(&text), said(&tables));
    let events = tables.report("inventory").unwrap().table("events").unwrap();
    assert!(events.find(&["mine", "", "1"]).is_some() || events.find(&["mine", "0", "1"]).is_some());
    assert_eq!(tables.clock.unplaced, ["node3"]);
}

/// Two clients, of which one begins its ids anew, converted at once and in parts.
#[test]
fn incarnations_of_a_client_are_apart_in_tables() {
    let (traces, dir) = (Folder::new("again-traces"), Folder::new("again"));
    let mut scenario = Scenario::new(2);
    scenario.clock_ahead(1, 777.0);
    for i in 0..40 {
        scenario.rpc(f64::from(i) * 300.0, (0, 1), 10 + 2 * (i % 30), (100 + 500 * (i / 30), 100), &Steps::default());
    }
    let files = scenario.write(&traces.0).unwrap();
    let (text, tables) = both(&files, &dir.0, &options());
    assert_eq!(said(&text), said(&tables));
    let manifest = stream::write(&files, &options(), &dir.0, "parts", stream::needs(&files) / 20).unwrap();
    assert_eq!(manifest.hosts.last().map(String::as_str), Some("node1#2"));
    let rows = |table: &str| manifest.files.iter().filter(|f| f.table == table).map(|f| f.rows).sum::<usize>();
    assert_eq!((rows("rpcs"), rows("messages")), (80, 80));
    let path = dir.0.join("manifest-parts.json");
    let parts = analyze::run(&["rpcs", "delay"], std::slice::from_ref(&path), &options()).unwrap();
    assert_eq!(parts.report("rpcs"), text.report("rpcs"));
}

#[test]
fn runs_lie_side_by_side_and_damage_is_told() {
    let dir = Folder::new("two");
    let model = Model::read(&[samples("kernel_100")], &options()).unwrap();
    for run in ["a", "b"] {
        let manifest = store::write(&model, &options(), &dir.0, run).unwrap();
        assert!(manifest.files.iter().all(|f| dir.0.join(&f.path).is_file()));
        assert!(dir.0.join(format!("events/run={run}/node=node1/part.parquet")).is_file());
    }
    assert!(matches!(store::write(&model, &options(), &dir.0, "a"), Err(StoreError::Exists { .. })));
    let error = analyze::run(&["delay"], std::slice::from_ref(&dir.0), &options()).unwrap_err().to_string();
    assert!(error.ends_with("tables of several runs: name the manifest of one, manifest-RUN.json"), "{error}");
    let manifest = dir.0.join("manifest-b.json");
    analyze::run(&["delay"], std::slice::from_ref(&manifest), &options()).unwrap();
    let file = dir.0.join("receptions/run=b/node=node1/part.parquet");
    let bytes = fs::read(&file).unwrap();
    for damaged in [&bytes[..bytes.len() / 2], &b"no parquet"[..], &[]] {
        fs::write(&file, damaged).unwrap();
        let error = analyze::run(&["delay"], std::slice::from_ref(&manifest), &options()).unwrap_err().to_string();
        assert!(error.contains("receptions/run=b/node=node1/part.parquet: "), "{error}");
    }
    fs::copy(dir.0.join("receptions/run=b/node=node0/part.parquet"), &file).unwrap();
    fs::write(&manifest, fs::read_to_string(&manifest).unwrap().replace("\"version\": 4", "\"version\": 9")).unwrap();
    let error = analyze::run(&["delay"], &[manifest], &options()).unwrap_err().to_string();
    assert!(error.contains("version 4, found `tthoma tables` 9: convert the traces again"), "{error}");
}

#[test]
fn a_conversion_is_used_until_the_trace_changes_and_nothing_is_written_beside_it() {
    let (traces, cache) = (Folder::new("tables-cached-traces"), Folder::new("cache"));
    for name in ["node0.tt", "node1.tt.gz"] {
        fs::copy(samples("kernel_100").join(name), traces.0.join(name)).unwrap();
    }
    let tthoma = |args: &[&str]| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tthoma"));
        command.args(args).arg(&traces.0).env("XDG_CACHE_HOME", &cache.0).output().unwrap()
    };
    let text = |output: Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let analysed = text(tthoma(&["analyze", "delay"]));
    assert!(fs::read_dir(&cache.0).unwrap().next().is_none(), "an analysis writes nothing");
    assert!(text(tthoma(&["convert"])).contains("\nconverted: run `tthoma-tables-cached-traces-"));
    assert!(text(tthoma(&["convert"])).contains("\nunchanged since they were converted: "));
    assert_eq!(text(tthoma(&["analyze", "delay"])), analysed);
    // That it is the tables that are read is seen when they are damaged.
    let tables = fs::read_dir(cache.0.join("tthoma")).unwrap().next().unwrap().unwrap().path();
    let run = fs::read_dir(tables.join("receptions")).unwrap().next().unwrap().unwrap().path();
    fs::write(run.join("node=node0/part.parquet"), "damaged").unwrap();
    assert_eq!(tthoma(&["analyze", "delay"]).status.code(), Some(2));
    assert_eq!(text(tthoma(&["analyze", "delay", "--no-cache"])), analysed);
    let mut changed = fs::read_to_string(traces.0.join("node0.tt")).unwrap();
    changed += "999999.000 us (+   0.000 us) [C00] homa_softirq starting\n";
    fs::write(traces.0.join("node0.tt"), changed).unwrap();
    assert_ne!(text(tthoma(&["analyze", "delay"])), analysed);
    assert!(text(tthoma(&["convert"])).contains("\nconverted: "));
    let mut names: Vec<_> = fs::read_dir(&traces.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["node0.tt", "node1.tt.gz"]);
}
