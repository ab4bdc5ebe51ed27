//! A run as one HTML file that needs no other: what was read, how well the clocks agree, every table and plot.

mod compact;

use std::fmt::Write as _;

use crate::analyze::{Cell, Finding, Run, Table};

/// Rows of a table at most; what is left out is counted.
const ROWS: usize = 200;

/// Points of a curve at most: as many as a screen shows.
const POINTS: usize = 1000;

/// Points of all curves of a plot together at most, as long as each has [`FEWEST`]: where there are many, one hides the other.
const ALL_POINTS: usize = 5000;

/// Points that a curve may have in any case.
const FEWEST: usize = 100;

/// The whole document.
pub fn html(run: &Run, title: &str) -> String {
    let title = escaped(title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}{READABLE}</style></head>\n<body><main><h1>{title}</h1>\n"
    );
    let paths: Vec<String> = run.paths.iter().map(|p| p.display().to_string()).collect();
    let _ = writeln!(out, "<p>{} ({})</p>", escaped(&run.import.line()), escaped(&paths.join(" ")));
    let warnings = run.warnings_of_traces();
    if !warnings.is_empty() {
        let items: String = warnings.iter().map(|w| format!("<li>{}</li>", escaped(w))).collect();
        let _ = writeln!(out, "<h2>To know before believing it</h2><ul class=\"warn\">{items}</ul>");
    }
    nodes(&mut out, run);
    let (with, without): (Vec<&Finding>, Vec<&Finding>) =
        run.findings.iter().partition(|f| f.report.as_ref().is_some_and(|r| r.has_results()));
    let link =
        |f: &&Finding| format!("<li><a href=\"#{0}\">{0}</a>: {1}</li>", f.about.name, escaped(f.about.question));
    let _ = writeln!(out, "<h2>Questions</h2><ul class=\"toc\">{}</ul>", with.iter().map(link).collect::<String>());
    with.iter().for_each(|finding| section(&mut out, finding));
    if !without.is_empty() {
        out += "<h2>No answer</h2><table><thead><tr><th>Analysis</th><th>Why</th></tr></thead><tbody>";
        for finding in without {
            let why = finding.not_run.as_deref().unwrap_or("found nothing");
            let _ = writeln!(out, "<tr><td>{}</td><td>{}</td></tr>", finding.about.name, escaped(why));
        }
        out += "</tbody></table>";
    }
    out + "</main></body></html>\n"
}

/// Nodes, and how wrong their clocks can be.
fn nodes(out: &mut String, run: &Run) {
    let _ = write!(
        out,
        "<h2>Nodes</h2><p>Times are those of {}.</p><div class=\"wide\"><table><thead><tr><th>Node</th><th>Span ms</th>\
         <th>Offset us</th><th>Error us</th><th>Data sent</th><th>again</th><th>Data at GRO</th><th>Grants sent</th>\
         <th>RESENDs sent</th></tr></thead><tbody>",
        escaped(&run.clock.reference)
    );
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_string(), |v| format!("{v:.3}"));
    for n in &run.nodes {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td class=\"n\">{:.3}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            escaped(&n.node),
            n.span_ms,
            number(n.clock.offset_us),
            number(n.clock.clock_error_us),
            n.data_sent,
            n.data_sent_again,
            n.data_gro,
            n.grants_sent,
            n.resends_sent
        );
    }
    *out += "</tbody></table></div>\n";
}

/// An analysis: its question, plots, tables and notes.
fn section(out: &mut String, finding: &Finding) {
    let Some(report) = &finding.report else { return };
    let _ = writeln!(
        out,
        "<section id=\"{0}\"><h2>{0}</h2><p class=\"q\">{1}</p>",
        finding.about.name,
        escaped(finding.about.question)
    );
    for warning in &report.warnings {
        let _ = writeln!(out, "<p class=\"warn\">{}</p>", escaped(warning));
    }
    for plot in &report.plots {
        let points = POINTS.min((ALL_POINTS / plot.curves.len().max(1)).max(FEWEST));
        if let Ok(svg) = plot.thinned(points).to_svg() {
            let (svg, title) = (compact::compact(&svg), escaped(&plot.title));
            let _ = writeln!(out, "<figure role=\"img\" aria-label=\"{title}\">{svg}</figure>");
        }
    }
    report.tables.iter().filter(|t| !t.series).for_each(|t| table(out, t));
    for note in &report.notes {
        let _ = writeln!(out, "<p>{}</p>", escaped(note));
    }
    *out += "</section>\n";
}

fn table(out: &mut String, table: &Table) {
    let unit = |symbol: &str| if symbol.is_empty() { String::new() } else { format!(" <small>{symbol}</small>") };
    let head = |c: &crate::analyze::Column| {
        format!("<th title=\"{}\">{}{}</th>", escaped(&c.meaning), escaped(&c.title), unit(c.unit.symbol()))
    };
    let _ = writeln!(
        out,
        "<h3>{}</h3><div class=\"wide\" tabindex=\"0\"><table><thead><tr>{}</tr></thead><tbody>",
        escaped(table.title.trim_end_matches(':')),
        table.columns.iter().map(head).collect::<String>()
    );
    for row in table.rows.iter().take(ROWS) {
        let cell = |(cell, column): (&Cell, &crate::analyze::Column)| {
            let class = if cell.number().is_some() { " class=\"n\"" } else { "" };
            format!("<td{class}>{}</td>", escaped(&cell.shown(column.decimals)))
        };
        let cells: String = row.cells.iter().zip(&table.columns).map(cell).collect();
        let note = row.note.as_ref().map_or_else(String::new, |note| format!("<td class=\"q\">{}</td>", escaped(note)));
        let _ = writeln!(out, "<tr>{cells}{note}</tr>");
    }
    *out += "</tbody></table></div>\n";
    let more = table.rows.len().saturating_sub(ROWS);
    if more > 0 {
        let _ = writeln!(out, "<p class=\"q\">{more} more rows</p>");
    }
    let legend = |c: &&crate::analyze::Column| !c.meaning.is_empty();
    if table.columns.iter().any(|c| legend(&c)) {
        let item =
            |c: &crate::analyze::Column| format!("<dt>{}</dt><dd>{}</dd>", escaped(&c.title), escaped(&c.meaning));
        let items: String = table.columns.iter().filter(legend).map(item).collect();
        let _ = writeln!(out, "<details><summary>columns</summary><dl>{items}</dl></details>");
    }
}

const STYLE: &str = "\
:root{color-scheme:light dark}body{margin:0;font:15px/1.5 system-ui,sans-serif}main{max-width:76rem;margin:auto;padding:1rem}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}th,td{padding:.2rem .55rem;text-align:left;\
border-bottom:1px solid #8886;vertical-align:top;white-space:nowrap}td.n{text-align:right;font-variant-numeric:tabular-nums}\
small,.q{color:#777}.warn{border-left:3px solid #c24f1d;padding-left:.6rem}ul.warn{padding-left:1.6rem}\
.toc{columns:2 28rem}section{border-top:2px solid #8886;margin-top:2rem}figure{margin:1rem 0}\
svg{max-width:100%;height:auto;background:#fff;font-family:sans-serif}dl{display:grid;grid-template-columns:max-content auto;gap:0 1rem}dd{margin:0}\
@media print{.wide{overflow:visible}}";

/// Small print that can be read on light and dark ground, text that need not stand in one line on narrow screens, and paper:
/// black on white, and no wider.
const READABLE: &str = "\
:root{--q:#5a6066}@media screen and (prefers-color-scheme:dark){:root{--q:#a3abb2}}small,.q{color:var(--q)}\
h1,h2,h3,p,li,dd{overflow-wrap:anywhere}th,td{white-space:normal;overflow-wrap:anywhere}.wide th,.wide td{white-space:nowrap}\
:focus-visible{outline:3px solid #4c8dd6;outline-offset:2px}@media(max-width:500px){.toc{columns:1}dl{grid-template-columns:1fr}dt{font-weight:600}}\
@media print{:root{color-scheme:light}body{font-size:10px}.wide th,.wide td{white-space:normal;padding:.05rem .15rem;font-size:7px}}";

/// Text as HTML shows it, in attributes too.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::{ALL, Analyzer, Options};
    use crate::testing::{Scenario, Steps};

    #[test]
    fn a_report_has_every_answer_and_needs_no_other_file() {
        let mut scenario = Scenario::new(2);
        let steps = Steps { unscheduled: 10_000, ..Steps::default() };
        for i in 0..250u32 {
            scenario.rpc(f64::from(i) * 150.0, (0, 1), 100 + 2 * i, (if i < 20 { 40_000 } else { 100 }, 100), &steps);
        }
        let options = Options { rpc: Some("slow".into()), top: 2, plot: Some("unused".into()), ..Options::default() };
        let model = scenario.model(&options);
        let given = |a: &&'static dyn Analyzer| a.about().requires.iter().all(|option| *option == "rpc");
        let all: Vec<&'static dyn Analyzer> = ALL.iter().copied().filter(given).collect();
        let run = Run::new(&model, &[], &all, &options);
        let html = html(&run, "a < b & c");
        assert!(html.contains("<h1>a &lt; b &amp; c</h1>") && html.ends_with("</html>\n"));
        for tag in
            ["table", "tr", "td", "th", "thead", "tbody", "section", "figure", "details", "dl", "ul", "li", "p", "div"]
        {
            let open = html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
            assert_eq!(open, html.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        for name in ["delay", "activity", "softirq-delay", "rtt", "explain"] {
            assert!(html.contains(&format!("<section id=\"{name}\">")), "{name}");
        }
        assert!(html.contains("<tr><td>tcpdelay</td><td>tcpdelay: the traces have no "), "what has no answer says why");
        assert!(html.matches("<svg").count() >= 7 && html.contains(" more rows</p>"));
        let others = html.matches("http").count() - html.matches("http://www.w3.org/2000/svg").count();
        assert_eq!((others, html.matches("<script").count(), html.matches(" src=").count()), (0, 0, 0));
    }
}
