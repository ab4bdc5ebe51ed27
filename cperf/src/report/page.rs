//! A run as one HTML file that needs no other and no network: what was run, whether it can be believed, slowdowns and
//! distributions beside published ones, where packets spent their time, what is odd, and every file's checksum.
//!
//! | module | part |
//! | --- | --- |
//! | `about` | what was run, the command that repeats it, files |
//! | `trust` | checks with verdicts and their rules |
//! | `summary` | statistics with intervals |
//! | `curves`, `chart`, `axis` | charts as SVG in the page's colours |
//! | `delays`, `bars` | what the time traces tell |
//!
//! The same files make the same page, byte by byte. Colours, light and dark, narrow pages and paper: `page.css`, after the
//! style sheet that it shares with the page of scan_metrics.

pub mod about;
pub mod axis;
pub mod bars;
pub mod chart;
pub mod curves;
pub mod delays;
pub mod summary;
pub mod trust;

use std::fmt::Write as _;

use scan_metrics::scan::Scan;
use tthoma::document::escaped;

use super::agreement::NodeAgreement;
use super::drops::HostDrops;
use super::results::{Measured, ProtocolResult, Status};
use super::slowdown::Optimal;
use super::statistics::Statistics;
use crate::cli::RunArgs;
use crate::manifest::Manifest;
pub use about::again;
pub use delays::ANALYSES;
use trust::Verdict;

const STYLE: &str = include_str!("page/page.css");

/// What the page is made of.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Facts, with the files that it lists.
    pub manifest: &'a Manifest,
    /// Options in effect.
    pub options: &'a RunArgs,
    /// Words of the command line.
    pub command: &'a str,
    /// How it ended.
    pub status: Status,
    /// Why, if not well.
    pub reason: Option<&'a str>,
    /// What slowdowns are relative to.
    pub optimal: &'a Optimal,
    /// Samples of each protocol.
    pub measured: &'a [(&'a str, &'a Measured)],
    /// Figures of each, in the same order.
    pub results: &'a [ProtocolResult],
    /// Statistics of each, with intervals.
    pub statistics: &'a [Statistics],
    /// [`ANALYSES`] of the time traces, if there are any, with plots.
    pub traces: Option<&'a tthoma::analyze::Run>,
    /// Packets that Homa's hosts did not use, if they keep metrics.
    pub drops: Option<&'a HostDrops>,
    /// Traces against metrics.
    pub agreement: &'a [NodeAgreement],
    /// What is odd among the metrics, if there are any.
    pub scan: Option<&'a Scan>,
}

/// The page.
pub fn html(run: &Source<'_>) -> String {
    let title = format!("{} on {} nodes", run.options.workload, run.options.nodes);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>cperf: {0}</title>\n<style>\n{1}{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{0}</h1>\n",
        escaped(&title),
        scan_metrics::out::STYLE
    );
    let checks = trust::checks(run);
    out += &summary(run, &checks);
    out += &contents(run);
    out += &about::html(run);
    out += &trust_html(&checks);
    out += &figures(run);
    if let Some(traces) = run.traces {
        out += &delays::html(traces);
    }
    if let Some(scan) = run.scan {
        out += "<section id=\"odd\">\n<h2>What is odd in the metrics</h2>\n";
        out += &scan_metrics::out::findings(scan);
        scan.heat.iter().for_each(|heat| out += &scan_metrics::out::heat_map(heat));
        out += "</section>\n";
    }
    out += &about::files(run);
    out + "</main>\n</body>\n</html>\n"
}

/// A protocol's name as people write it.
fn label(protocol: &str) -> String {
    super::plot::label(protocol)
}

/// What was measured, and the verdicts about it and about the time traces, a sentence each.
fn summary(run: &Source<'_>, checks: &[trust::Check]) -> String {
    let protocols: Vec<_> = run.results.iter().map(|result| label(&result.protocol)).collect();
    let mut out = format!(
        "<p class=\"lead\">{}: {} RPCs measured.</p>\n",
        escaped(&protocols.join(", ")),
        run.results.iter().map(|result| result.samples).sum::<u64>()
    );
    for (name, of_traces) in [("Figures", false), ("Time traces", true)] {
        let all: Vec<_> = checks.iter().filter(|check| check.of_traces() == of_traces).collect();
        let worst = trust::worst(all.iter().copied());
        if worst == Verdict::Unchecked {
            continue;
        }
        let (class, sign) = worst.sign();
        let ok = all.iter().filter(|check| check.verdict == Verdict::Ok).count();
        let mut named = Vec::new();
        for verdict in [Verdict::Unusable, Verdict::Doubtful] {
            let mut of: Vec<_> = all.iter().filter(|check| check.verdict == verdict).map(|check| check.about).collect();
            of.dedup();
            if !of.is_empty() {
                named.push(format!("; {}: {}", verdict.text(), of.join(", ").to_lowercase()));
            }
        }
        let _ = writeln!(
            out,
            "<p class=\"verdict {class}\"><span class=\"sign\" aria-hidden=\"true\">{sign}</span> <b>{name}: {}</b>. \
             {ok} of {} checks are ok{}.</p>",
            worst.text(),
            all.len(),
            named.concat()
        );
    }
    out + "<p class=\"note\">Each check with its rule is under <a href=\"#trust\">Can it be believed?</a></p>\n"
}

/// Links to the parts.
fn contents(run: &Source<'_>) -> String {
    let mut links =
        vec![("run", "What was run"), ("trust", "Can it be believed?"), ("figures", "Figures"), ("curves", "Curves")];
    if run.traces.is_some() {
        links.extend([("delays", "Delays"), ("backlog", "SoftIRQ backlog"), ("clocks", "Clocks")]);
    }
    if run.scan.is_some() {
        links.push(("odd", "What is odd"));
    }
    links.push(("files", "Files"));
    let items: String = links.iter().map(|(id, text)| format!("<li><a href=\"#{id}\">{text}</a></li>")).collect();
    format!("<nav aria-label=\"Contents\"><ul>{items}</ul></nav>\n")
}

/// Checks as a table.
fn trust_html(checks: &[trust::Check]) -> String {
    let mut out = String::from(
        "<section id=\"trust\">\n<h2>Can it be believed?</h2>\n<table class=\"trust\"><thead><tr><th scope=\"col\">Check and its \
         rule</th><th scope=\"col\">Verdict</th><th scope=\"col\">Found</th></tr></thead>\n",
    );
    let mut rest = checks;
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|check| check.about == first.about).count();
        let (group, others) = rest.split_at(same);
        rest = others;
        let _ = write!(
            out,
            "<tbody><tr><th scope=\"rowgroup\" rowspan=\"{same}\">{}<br><small>{}</small></th>",
            escaped(first.about),
            escaped(first.rule)
        );
        for (at, check) in group.iter().enumerate() {
            let (class, sign) = check.verdict.sign();
            let protocol =
                check.protocol.as_ref().map_or_else(String::new, |name| format!("<b>{}</b>: ", escaped(name)));
            let _ = writeln!(
                out,
                "{}<td class=\"verdict {class}\"><span class=\"sign\" aria-hidden=\"true\">{sign}</span> {}</td><td>{protocol}{}</td></tr>",
                if at > 0 { "<tr>" } else { "" },
                check.verdict.text(),
                escaped(&check.found)
            );
        }
        out += "</tbody>\n";
    }
    out + "</table>\n</section>\n"
}

/// Tables of figures, and charts.
fn figures(run: &Source<'_>) -> String {
    let mut out = String::from("<section id=\"figures\">\n<h2>Figures</h2>\n");
    out += "<h3>Short messages: the shortest tenth, round-trip time in us</h3>\n";
    out += &table(
        "Short messages",
        &["protocol", "RPCs", "up to, bytes", "P50", "P99", "P99.9", "from due time P50", "P99", "P99.9"],
        run.results.iter().map(|result| {
            let us = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), |ns| format!("{:.1}", ns as f64 / 1e3));
            vec![
                label(&result.protocol),
                result.short_rpcs.to_string(),
                result.short_longest_bytes.map_or_else(|| "-".to_owned(), |longest| longest.to_string()),
                us(result.short_rtt_p50_ns),
                us(result.short_rtt_p99_ns),
                us(result.short_rtt_p999_ns),
                us(result.short_due_p50_ns),
                us(result.short_due_p99_ns),
                us(result.short_due_p999_ns),
            ]
        }),
    );
    out += &summary::html(run.statistics);
    out += &switches(run);
    out += "</section>\n";
    let charts = curves::charts(run);
    if !charts.is_empty() {
        out += "<section id=\"curves\">\n<h2>Curves</h2>\n<div class=\"charts\">\n";
        charts.iter().for_each(|chart| out += &chart.html());
        out += "</div>\n</section>\n";
    }
    out
}

/// Memory of simulated switches.
fn switches(run: &Source<'_>) -> String {
    let known: Vec<_> = run.results.iter().filter_map(|result| Some((result, result.switch.as_ref()?))).collect();
    if known.is_empty() {
        return String::new();
    }
    let rows = known.iter().map(|(result, switch)| {
        vec![
            label(&result.protocol),
            format!("{:.1}", switch.buffer_max_bytes as f64 / 1e3),
            format!("{:.1}", switch.buffer_max_us),
            format!("{:.1}", switch.port_max_bytes as f64 / 1e3),
            format!("{:.1}", switch.port_max_us),
            switch.drops().to_string(),
            switch.marked_packets.to_string(),
        ]
    });
    let names = ["protocol", "most waiting, KB", "us", "at one port, KB", "us", "dropped packets", "marked packets"];
    format!("<h3>Switch memory</h3>\n{}", table("Switch memory", &names, rows))
}

/// A table whose first column is text, the others numbers.
fn table(name: &str, columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head: String = columns.iter().map(|column| format!("<th scope=\"col\">{}</th>", escaped(column))).collect();
    let mut out = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\"><table class=\"numbers\"><thead><tr>{head}</tr></thead><tbody>\n",
        escaped(name)
    );
    for row in rows {
        let cells = row.iter().enumerate().map(|(at, cell)| match at {
            0 => format!("<th scope=\"row\">{}</th>", escaped(cell)),
            _ => format!("<td class=\"n\">{}</td>", escaped(cell)),
        });
        let _ = writeln!(out, "<tr>{}</tr>", cells.collect::<String>());
    }
    out + "</tbody></table></div>\n"
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser as _;

    use super::super::results::tests::hundred;
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::manifest::FileFacts;

    /// A run of Homa and TCP with a hundred RPCs each, without traces and metrics.
    pub(in super::super) fn source(test: impl FnOnce(&Source<'_>)) {
        let cli = Cli::parse_from(["cperf", "run", "w4", "--nodes", "3", "--gbps", "20", "--protocols", "homa,tcp"]);
        let Command::Run(options) = cli.command else { panic!("it is a run") };
        let mut manifest =
            Manifest::simulated(serde_json::json!({"workload": "w4"}), 7, serde_json::json!({"kind": "sim"}), 3);
        manifest.files =
            vec![FileFacts { name: "homa_w4-0.rtts".to_owned(), size_bytes: 1234, sha256: "00ff".to_owned() }];
        let measured = Measured { missing_nodes: Vec::new(), ..hundred() };
        let optimal = Optimal::fixed(1.0, f64::INFINITY);
        let cuts = super::super::digest::cuts(&[&measured.service], 10);
        let result = |name: &str| ProtocolResult::new(name, Status::Complete, 20.0, &measured, &optimal, &cuts);
        test(&Source {
            manifest: &manifest,
            options: &options,
            command: "cperf run w4 --nodes 3 --homa \"a b\"",
            status: Status::Complete,
            reason: None,
            optimal: &optimal,
            measured: &[("homa", &measured), ("tcp", &measured)],
            results: &[result("homa"), result("tcp")],
            statistics: &["homa", "tcp"].map(|name| statistics(name, &optimal)),
            traces: None,
            drops: None,
            agreement: &[],
            scan: None,
        });
    }

    /// Of a hundred messages of 10, 20 ... 1000 bytes that took 1, 2 ... 100 us.
    fn statistics(name: &str, optimal: &Optimal) -> Statistics {
        let sample = |i: u32| super::super::rtts::Sample { length: i * 10, rtt_ns: u64::from(i) * 1000 };
        let mut order = super::super::statistics::Ordered::default();
        order.add(&(1..=100).map(sample).collect::<Vec<_>>(), 1);
        Statistics::new(name, &order, &order, optimal)
    }

    #[test]
    fn a_page_is_whole_and_needs_no_other_file() {
        source(|run| {
            let html = html(run);
            for tag in [
                "table", "tr", "td", "th", "section", "figure", "details", "summary", "svg", "dl", "ul", "li", "div",
                "p", "pre",
            ] {
                let open = html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
                assert_eq!(open, html.matches(&format!("</{tag}>")).count(), "{tag}");
            }
            assert!(html.ends_with("</html>\n"));
            for other in ["http", "<script", " src=", "@import", "url("] {
                assert!(!html.contains(other), "{other}");
            }
            // Each link leads somewhere.
            for link in html.split("href=\"#").skip(1) {
                let id = link.split('"').next().unwrap();
                assert!(html.contains(&format!("id=\"{id}\"")), "{id}");
            }
            assert_eq!(html, super::html(run), "the same page again");
        });
    }

    #[test]
    fn what_is_named_by_others_is_escaped() {
        source(|run| {
            let mut options = run.options.clone();
            options.workload = "<b>".to_owned();
            let html = html(&Source { options: &options, ..*run });
            assert!(html.contains("<h1>&lt;b&gt; on 3 nodes</h1>") && !html.contains("<b> on"), "{}", &html[..900]);
        });
    }
}
