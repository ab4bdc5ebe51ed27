//! Pages in a real browser: of a run, of scan_metrics and of tthoma, on wide and narrow screens, light and dark, by keyboard
//! and on paper.
//!
//! `scripts/browser-check` drives a headless Chromium with node. `scripts/test` gets both; without it the variable `CHROMIUM`
//! names the program, or it is in the path. Pictures of the pages are left beside them in the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tthoma::analyze::{self, Options};

/// A directory of the target directory, empty.
fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// The browser: where the variable says, or in the path.
fn chromium() -> PathBuf {
    let in_path = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
        let all = names.iter().flat_map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name)));
        all.into_iter().find(|file| file.exists())
    };
    std::env::var_os("CHROMIUM").map(PathBuf::from).or_else(in_path).unwrap_or_else(|| {
        panic!("no Chromium in the path: run scripts/test, or set CHROMIUM to the program");
    })
}

/// What `scripts/browser-check` says of pages; pictures go to `shots`.
fn check(shots: &Path, pages: &[PathBuf]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/browser-check");
    let out = Command::new("node").arg(script).arg("--shots").arg(shots).arg(chromium()).args(pages).output();
    out.unwrap_or_else(|error| panic!("node: {error}: run scripts/test, or install nodejs"))
}

#[track_caller]
fn cperf(words: &str, dir: &Path) {
    let words = words.replace("DIR", &dir.display().to_string());
    let out = Command::new(env!("CARGO_BIN_EXE_cperf")).args(words.split_whitespace()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// The pages of a small simulated run: report, outliers, time traces; and that of an experiment.
fn pages(dir: &Path) -> [PathBuf; 4] {
    cperf("run w4 --nodes 4 --protocols homa,tcp --seconds 0.02 --out DIR/run", dir);
    cperf("scan-metrics DIR/run --html DIR/odd.html", dir);
    cperf("run w4 --nodes 4 --seeds 1,2 --seconds 0.002 --warmup 0.001 --out DIR/experiment", dir);
    // Pictures are named by the file.
    fs::copy(dir.join("experiment/report.html"), dir.join("experiment.html")).unwrap();
    let traces = [dir.join("run/traces")];
    let options = Options { plot: Some(dir.to_owned()), rpc: Some("slow".to_owned()), top: 2, ..Options::default() };
    let names = ["activity", "delay", "explain", "grants", "rtt", "softirq-backlog", "sync-quality", "tcpdelay"];
    let run = analyze::run(&names, &traces, &options).unwrap();
    fs::write(dir.join("traces.html"), tthoma::document::html(&run, "Time traces")).unwrap();
    [dir.join("run/report.html"), dir.join("odd.html"), dir.join("traces.html"), dir.join("experiment.html")]
}

#[test]
fn pages_can_be_read_on_any_screen_by_keyboard_and_on_paper() {
    let dir = scratch("pages");
    let pages = pages(&dir);
    let out = check(&dir.join("shots"), &pages);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let found: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), pages.len());
    for page in &found {
        assert!(page["bytes"].as_u64().unwrap() < 5_000_000, "{page}");
        assert!(page["tab_stops"].as_u64().unwrap() > 0 && page["paper_pages"].as_u64().unwrap() > 0, "{page}");
    }
    let report = fs::read_to_string(&pages[0]).unwrap();
    for id in ["run", "trust", "figures", "curves", "delays", "backlog", "clocks", "odd", "files"] {
        assert!(report.contains(&format!("<section id=\"{id}\">")), "no part {id}");
    }
    assert!(fs::read_dir(dir.join("shots")).unwrap().count() >= 5 * pages.len());
    fs::remove_dir_all(dir).unwrap();
}

/// A page with one fault each, and what is said of it.
const FAULTS: [(&str, &str); 11] = [
    ("<div style=\"width:1500px\">wide</div>", "the page is "),
    ("<p style=\"color:#999;background:#fff\">pale</p>", "has a contrast of 2.85"),
    ("<p style=\"width:4rem;overflow:hidden;white-space:nowrap\">longer than there is room</p>", "is cut off"),
    ("<svg width=\"90\" height=\"20\"><text x=\"60\" y=\"15\">too long</text></svg>", "text \"too long\" is cut off"),
    (
        "<svg width=\"90\" height=\"20\"><text y=\"15\">one</text><text x=\"9\" y=\"15\">two</text></svg>",
        "lie upon each other",
    ),
    ("<a href=\"#x\" style=\"outline:none\">here</a>", "focus cannot be seen: a"),
    ("<a href=\"#x\" tabindex=\"-1\">here</a>", "Tab reaches 0 of 1"),
    ("<img src=\"other.png\" alt=\"\">", "request: file:"),
    ("<script>console.error('oh')</script>", "console: error oh"),
    ("<script>nothing()</script>", "exception: Uncaught"),
    (
        "<style>@media (prefers-color-scheme: dark) { body { background: #000; color: #fff } }</style>",
        "paper, dark: the ground is",
    ),
];

#[test]
fn each_fault_of_a_page_is_told() {
    let dir = scratch("faults");
    let page = |name: &str, body: &str| {
        let path = dir.join(name);
        // What is about the ground brings its own.
        let ground = if body.contains("@media") { "" } else { " style=\"background:#fff\"" };
        let head = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>t</title></head>";
        fs::write(&path, format!("{head}<body{ground}><p>text</p>{body}</body></html>")).unwrap();
        path
    };
    let good = check(&dir.join("shots"), &[page("good.html", "")]);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let pages: Vec<_> = FAULTS.iter().enumerate().map(|(at, (body, _))| page(&format!("{at}.html"), body)).collect();
    let out = check(&dir.join("shots"), &pages);
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8(out.stderr).unwrap();
    for ((body, text), page) in FAULTS.iter().zip(&pages) {
        let page = format!("{}: ", page.display());
        assert!(
            said.lines().any(|line| line.starts_with(&page) && line.contains(text)),
            "{body}: no `{text}` in\n{said}"
        );
    }
    fs::remove_dir_all(dir).unwrap();
}
