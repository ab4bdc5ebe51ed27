//! Where packets spent their time and what waited for SoftIRQ, from the time traces.

use std::fmt::Write as _;

use tthoma::analyze::{Cell, Finding, Plot, Report, Run, Table};
use tthoma::clock::Basis;
use tthoma::document::escaped;

use super::axis::Axis;
use super::bars;
use super::chart::{Chart, Series, Style};
use super::curves::distribution;

/// Analyses that the page shows.
pub const ANALYSES: [&str; 3] = ["delay", "softirq-backlog", "sync-quality"];
/// Nodes in a chart over time: those with the most.
const NODES: usize = 3;
/// Rows of a table at most.
const ROWS: usize = 60;

/// The sections, as HTML; none if there are no traces.
pub fn html(traces: &Run) -> String {
    let mut out = String::new();
    let option = if traces.clock.basis == Basis::Counters { " --one-clock" } else { "" };
    if let Some(finding) = find(traces, "delay") {
        out += "<section id=\"delays\">\n<h2>Where packets spent their time</h2>\n";
        let _ = writeln!(
            out,
            "<p class=\"note\">From the time traces of Homa's nodes, by <code>tthoma analyze delay{option} traces</code>: Xmit, from IP \
             to the network card; Net, to the receiver; Ring, waiting in its receive ring; SoftIRQ, until the protocol has the packet.</p>"
        );
        out += &finding.report.as_ref().map(bars::html).unwrap_or_default();
        section(&mut out, finding, |report| {
            report.plots.iter().filter(|plot| plot.name.starts_with("delay_")).map(delay).collect()
        });
        out += "</section>\n";
    }
    if let Some(finding) = find(traces, "softirq-backlog") {
        let _ = writeln!(
            out,
            "<section id=\"backlog\">\n<h2>What waited for SoftIRQ</h2>\n<p class=\"note\">By <code>tthoma analyze softirq-backlog{option} \
             traces</code>: packets that were received and not yet processed.</p>"
        );
        section(&mut out, finding, |report| report.plots.iter().map(backlog).collect());
        out += "</section>\n";
    }
    if let Some(finding) = find(traces, "sync-quality") {
        out += "<section id=\"clocks\">\n<h2>Clocks</h2>\n";
        section(&mut out, finding, |_| Vec::new());
        out += "</section>\n";
    }
    out
}

fn find<'a>(traces: &'a Run, name: &str) -> Option<&'a Finding> {
    traces.findings.iter().find(|finding| finding.about.name == name)
}

/// Charts and tables of an analysis, or why it has none.
fn section(out: &mut String, finding: &Finding, charts: impl Fn(&Report) -> Vec<Chart>) {
    let Some(report) = &finding.report else {
        let why = finding.not_run.as_deref().unwrap_or("nothing was found");
        let _ = writeln!(out, "<p>{}</p>", escaped(why));
        return;
    };
    for warning in &report.warnings {
        let _ = writeln!(out, "<p class=\"warning\">{}</p>", escaped(warning));
    }
    let charts = charts(report);
    if !charts.is_empty() {
        *out += "<div class=\"charts\">\n";
        charts.iter().for_each(|chart| *out += &chart.html());
        *out += "</div>\n";
    }
    report.tables.iter().filter(|table| !table.series && !table.rows.is_empty()).for_each(|one| table(out, one));
    let notes: String = report.notes.iter().map(|note| format!("<p class=\"note\">{}</p>\n", escaped(note))).collect();
    // A note for each of many nodes is for who looks for it.
    if report.notes.len() > NODES {
        let _ = writeln!(out, "<details><summary>{} notes</summary>\n{notes}</details>", report.notes.len());
    } else {
        *out += &notes;
    }
}

/// Delays of a kind of packets: the share that took longer, a curve for each step.
fn delay(plot: &Plot) -> Chart {
    let curve = |(at, name, points): (u8, &String, &Vec<(f64, f64)>)| Series {
        name: name.clone(),
        style: Style::Own(at),
        points: points.clone(),
    };
    // What took no time at all has no place on a logarithmic axis.
    let seen = |series: &Series| series.points.iter().any(|point| point.0 > 0.0);
    let (series, unseen): (Vec<_>, Vec<_>) =
        (0..).zip(&plot.curves).map(|(at, (name, points))| curve((at, name, points))).partition(seen);
    let unseen: Vec<_> = unseen.iter().map(|series| series.name.as_str()).collect();
    let note = if unseen.is_empty() { String::new() } else { format!("{}: 0 for all packets.", unseen.join(", ")) };
    let title = plot.title.replace("Share of packets that took longer: ", "");
    let mut title = title.trim_end_matches(':').to_owned();
    if let Some(first) = title.get(..1).map(str::to_uppercase) {
        title.replace_range(..1, &first);
    }
    distribution(&title, ("time, us", "share that took longer"), series, Vec::new(), note)
}

/// Packets that wait, over time, at the nodes where most did.
fn backlog(plot: &Plot) -> Chart {
    let most = |points: &[(f64, f64)]| points.iter().map(|point| point.1).fold(0.0, f64::max);
    let mut curves: Vec<_> = plot.curves.iter().collect();
    curves.sort_by(|a, b| most(&b.1).total_cmp(&most(&a.1)));
    let (all, begin) = (curves.len(), curves.iter().flat_map(|(_, points)| points.first()).map(|point| point.0));
    let begin = begin.fold(f64::INFINITY, f64::min);
    curves.truncate(NODES);
    let series: Vec<_> = (0..)
        .zip(curves)
        .map(|(at, (name, points))| {
            let mut stairs = Vec::with_capacity(2 * points.len());
            let mut last = 0.0;
            for &(time, value) in points {
                stairs.extend([(time - begin, last), (time - begin, value)]);
                last = value;
            }
            Series { name: name.clone(), style: Style::Own(at), points: stairs }
        })
        .collect();
    let points = || series.iter().flat_map(|series| &series.points);
    let note = if all > NODES { format!("The {NODES} of {all} nodes with the longest queues.") } else { String::new() };
    Chart {
        title: plot.title.clone(),
        note,
        x: Axis::linear("time from the first trace's begin, us", points().map(|point| point.0), true),
        y: Axis::linear(plot.y, points().map(|point| point.1), false),
        series,
        points: Vec::new(),
    }
}

/// A table of an analysis, folded.
fn table(out: &mut String, table: &Table) {
    // Further lines of a title explain it.
    let (title, more) = table.title.split_once('\n').unwrap_or((&table.title, ""));
    let title = escaped(title.trim_end_matches(':'));
    let _ = write!(
        out,
        "<details><summary>{title}</summary>\n{}<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{title}\"><table><thead><tr>",
        if more.is_empty() {
            String::new()
        } else {
            format!("<pre tabindex=\"0\" aria-label=\"{title}\">{}</pre>\n", escaped(more))
        }
    );
    for column in &table.columns {
        let unit = match column.unit.symbol() {
            "" => String::new(),
            symbol => format!(" <small>{symbol}</small>"),
        };
        let _ = write!(
            out,
            "<th scope=\"col\" title=\"{}\">{}{unit}</th>",
            escaped(&column.meaning),
            escaped(&column.title)
        );
    }
    *out += "</tr></thead>\n<tbody>\n";
    for row in table.rows.iter().take(ROWS) {
        let cell = |(cell, column): (&Cell, &tthoma::analyze::Column)| {
            let class = if cell.number().is_some() { " class=\"n\"" } else { "" };
            let text = match cell {
                Cell::None => "-".into(),
                Cell::Num(value) => format!("{value:.0$}", column.decimals).into(),
                other => other.plain(),
            };
            format!("<td{class}>{}</td>", escaped(&text))
        };
        let cells: String = row.cells.iter().zip(&table.columns).map(cell).collect();
        let note =
            row.note.as_ref().map_or_else(String::new, |note| format!("<td class=\"note\">{}</td>", escaped(note)));
        let _ = writeln!(out, "<tr>{cells}{note}</tr>");
    }
    *out += "</tbody></table></div>\n";
    if let Some(more) = table.rows.len().checked_sub(ROWS).filter(|more| *more > 0) {
        let _ = writeln!(out, "<p class=\"note\">{more} rows more are in the traces: tthoma prints them.</p>");
    }
    let meanings: Vec<_> = table.columns.iter().filter(|column| !column.meaning.is_empty()).collect();
    if !meanings.is_empty() {
        let item = |column: &&tthoma::analyze::Column| {
            format!("<dt>{}</dt><dd>{}</dd>", escaped(&column.title), escaped(&column.meaning))
        };
        let _ = writeln!(out, "<dl>{}</dl>", meanings.iter().map(item).collect::<String>());
    }
    *out += "</details>\n";
}

#[cfg(test)]
mod tests {
    use super::*;
    use tthoma::analyze::Mark;

    #[test]
    fn charts_over_time_show_the_nodes_with_the_most() {
        let curves = [1.0, 5.0, 3.0, 4.0].iter().enumerate();
        let plot = Plot {
            name: "softirq_backlog_tot_pk".to_owned(),
            title: "Packets that wait".to_owned(),
            x: "time (us)",
            y: "packets",
            log: false,
            mark: Mark::Steps,
            curves: curves.map(|(at, most)| (format!("node{at}"), vec![(1000.0, 0.0), (1010.0, *most)])).collect(),
        };
        let chart = backlog(&plot);
        let names: Vec<_> = chart.series.iter().map(|series| series.name.as_str()).collect();
        assert_eq!(names, ["node1", "node3", "node2"]);
        assert_eq!(chart.note, "The 3 of 4 nodes with the longest queues.");
        assert_eq!(chart.series[0].points[2..], [(10.0, 0.0), (10.0, 5.0)], "a step, from the begin of the traces on");
    }
}
