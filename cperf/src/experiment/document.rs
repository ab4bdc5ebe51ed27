//! The report of an experiment, as Markdown and as HTML: what was measured, what was published, curves, tables.

use std::fmt::Write as _;

use tthoma::document::escaped;

use super::chart;
use super::columns;
use super::file::Measure;
use super::lengths;
use super::plan::{Plan, describe};
use super::published::{self, Comparison};
use super::statistics::Summary;
use super::tables::{self, Measured};

/// A part of a document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Heading(String),
    Text(String),
    Table(Vec<String>, Vec<Vec<String>>),
    /// Name of its file without extension, and its SVG.
    Figure(String, String),
}

/// A document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub(super) title: String,
    pub(super) parts: Vec<Part>,
}

/// The report on what was measured of a plan.
///
/// # Errors
/// A plot cannot be drawn.
pub fn report(plan: &Plan, measured: &[Measured<'_>]) -> anyhow::Result<Document> {
    let compared = published::compare(plan, measured);
    let file = &plan.file;
    let mut parts = head(plan, measured);
    warnings(&mut parts, measured);
    comparisons(&mut parts, &compared);
    figures(&mut parts, plan, measured, &compared)?;
    main_table(&mut parts, plan, measured);
    by_length(&mut parts, plan, measured)?;
    tenths(&mut parts, measured);
    Ok(Document { title: format!("{}: {}", file.name, file.title), parts })
}

/// What was measured, and how it is measured again.
pub(super) fn head(plan: &Plan, measured: &[Measured<'_>]) -> Vec<Part> {
    let file = &plan.file;
    let mut parts = vec![Part::Text(file.about.trim().to_owned())];
    let have = measured.iter().filter(|(_, result)| result.is_some()).count();
    let slowdown = measured.iter().find_map(|(_, result)| Some(result.as_ref()?.slowdown.clone())).unwrap_or_default();
    let seeds: Vec<_> = file.seeds.iter().map(u64::to_string).collect();
    parts.push(Part::Text(format!(
        "{have} of {} points were measured. Seeds {}; intervals are 95 % confidence intervals of the mean over them. \
         Slowdown {slowdown}. Simulator {}. Again with `cperf run experiment.toml`, from these files with `cperf report`.",
        measured.len(),
        seeds.join(", "),
        plan.points.first().map_or("", |point| point.spec.simulator.as_str()),
    )));
    if have < measured.len() {
        parts.push(Part::Text(format!("Incomplete: {} points have no result.", measured.len() - have)));
    }
    parts
}

/// What a reader must know before believing the figures.
fn warnings(parts: &mut Vec<Part>, measured: &[Measured<'_>]) {
    for (point, result) in measured {
        let Some(base) = result.as_ref().and_then(|result| result.measurements.first()) else { continue };
        let figures = &base.figures;
        // A link cannot carry more than it is asked for here; what it is asked for beyond its rate, it need not carry.
        let possible = figures.offered_gbps.min(point.spec.sim.link_gbps * 0.8);
        if figures.achieved_gbps < 0.8 * possible {
            parts.push(Part::Text(format!(
                "WARNING: {}, seed {}: {:.2} of {:.2} Gbps were carried.",
                describe(&point.varied),
                point.spec.sim.seed,
                figures.achieved_gbps,
                figures.offered_gbps
            )));
        }
    }
}

fn comparisons(parts: &mut Vec<Part>, compared: &[Comparison]) {
    if compared.is_empty() {
        return;
    }
    parts.push(Part::Heading("Published, and here".to_owned()));
    let rows = compared.iter().map(|one| {
        let statement = &one.statement;
        let about = if one.about.is_empty() { String::new() } else { format!(" ({})", one.about) };
        let ours = match one.ours {
            Some(ours) => with_interval(&ours),
            None if one.series.is_empty() => "-".to_owned(),
            None => {
                one.series.iter().map(|(x, y)| format!("{}: {}", number(*x), number(*y))).collect::<Vec<_>>().join("; ")
            }
        };
        let deviation = one.deviation_percent().map_or_else(String::new, |percent| format!("{percent:+.0} %"));
        let agrees = one.agrees.map_or("", |agrees| if agrees { "yes" } else { "NO" });
        let published = statement.figure.map_or_else(|| "a trend".to_owned(), number);
        vec![
            format!("{}{about}", statement.text),
            statement.metric.to_owned(),
            published,
            ours,
            deviation,
            agrees.to_owned(),
            statement.source.to_owned(),
        ]
    });
    let names = ["statement", "figure", "published", "here", "deviation", "agrees", "source"];
    parts.push(Part::Table(names.map(str::to_owned).to_vec(), rows.collect()));
}

fn figures(
    parts: &mut Vec<Part>,
    plan: &Plan,
    measured: &[Measured<'_>],
    compared: &[Comparison],
) -> anyhow::Result<()> {
    let Some(x) = chart::x(plan) else { return Ok(()) };
    parts.push(Part::Heading("Curves".to_owned()));
    if compared.iter().any(|one| one.statement.kind == published::Kind::Value) {
        parts.push(Part::Text("Crosses are published figures.".to_owned()));
    }
    for metric in shown(plan) {
        let curves = chart::curves(plan, measured, compared, &x, metric);
        if let Some(svg) = chart::svg(&x, metric, &curves)? {
            parts.push(Part::Figure(metric.to_owned(), svg));
        }
    }
    Ok(())
}

/// Figures worth a plot and a column.
fn shown(plan: &Plan) -> Vec<&str> {
    let mut all = vec![plan.file.metric.as_str()];
    all.extend(plan.file.figures.iter().map(String::as_str));
    if plan.file.measure == Measure::BufferSearch {
        all.extend(["buffer_min_bytes", "buffer_min_us"]);
    }
    all.extend(["buffer_max_bytes", "slowdown_mean", "p99_average_10", "short_rtt_p50_us", "short_rtt_p99_us"]);
    let mut kept: Vec<&str> = Vec::new();
    for name in all {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

fn main_table(parts: &mut Vec<Part>, plan: &Plan, measured: &[Measured<'_>]) {
    parts.push(Part::Heading("Figures".to_owned()));
    let mut names = vec!["point".to_owned()];
    let mut metrics = shown(plan);
    metrics.extend(["achieved_gbps", "dropped_packets", "resent_percent"]);
    names.extend(metrics.iter().map(|name| match columns::unit(name) {
        "" => (*name).to_owned(),
        unit => format!("{name}, {unit}"),
    }));
    let mut rows = Vec::new();
    for group in tables::groups(measured) {
        for step in 0..tables::steps(plan, group) {
            let percent = tables::figure(group, step, "buffer_limit_percent");
            let limited = percent.map_or_else(String::new, |all| format!(", {:.0} % of the memory", all.mean));
            let mut row = vec![describe(&group[0].0.varied) + &limited];
            row.extend(metrics.iter().map(|name| {
                tables::figure(group, step, name).map_or_else(|| "-".to_owned(), |all| with_interval(&all))
            }));
            rows.push(row);
        }
    }
    parts.push(Part::Table(names, rows));
}

/// The originals' plots.
fn by_length(parts: &mut Vec<Part>, plan: &Plan, measured: &[Measured<'_>]) -> anyhow::Result<()> {
    let plots = lengths::plots(plan, measured)?;
    if plots.is_empty() {
        return Ok(());
    }
    parts.push(Part::Heading("By message length".to_owned()));
    let text =
        "Of the first seed. The longest message of each tenth is in the table below; column files are in `reports/`.";
    parts.push(Part::Text(text.to_owned()));
    for (name, title, svg) in plots {
        parts.push(Part::Text(title));
        parts.push(Part::Figure(name, svg));
    }
    Ok(())
}

/// Slowdowns at each tenth of the messages, means over seeds.
fn tenths(parts: &mut Vec<Part>, measured: &[Measured<'_>]) {
    parts.push(Part::Heading("Slowdown by message length (P50 / P99, means over seeds)".to_owned()));
    let names = ["point", "length, bytes", "percent of messages", "P50", "P99", "messages"].map(str::to_owned).to_vec();
    let mut rows = Vec::new();
    for group in tables::groups(measured) {
        let results: Vec<_> = group.iter().filter_map(|(_, result)| result.as_ref()).collect();
        for tenth in results.first().iter().flat_map(|result| &result.tenths) {
            let same = || {
                let all = results.iter().flat_map(|result| &result.tenths);
                all.filter(|other| other.cum_percent.to_bits() == tenth.cum_percent.to_bits())
            };
            let count = same().count() as f64;
            rows.push(vec![
                describe(&group[0].0.varied),
                tenth.length_bytes.to_string(),
                format!("{:.0}", tenth.cum_percent),
                format!("{:.2}", same().map(|tenth| tenth.slowdown_p50).sum::<f64>() / count),
                format!("{:.2}", same().map(|tenth| tenth.slowdown_p99).sum::<f64>() / count),
                same().map(|tenth| tenth.rpcs).sum::<u64>().to_string(),
            ]);
        }
    }
    parts.push(Part::Table(names, rows));
}

pub(super) fn with_interval(all: &Summary) -> String {
    match all.interval {
        Some((low, high)) if high > low => format!("{} ± {}", number(all.mean), number((high - low) / 2.0)),
        _ => number(all.mean),
    }
}

/// Three significant digits.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let decimals = (2.0 - size.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

impl Document {
    /// Puts `parts` before the first heading.
    pub(super) fn insert(&mut self, parts: Vec<Part>) {
        let place = self.parts.iter().position(|part| matches!(part, Part::Heading(_))).unwrap_or(self.parts.len());
        self.parts.splice(place..place, parts);
    }

    /// Names and contents of the SVG files that the Markdown form refers to.
    pub fn plots(&self) -> impl Iterator<Item = (String, &str)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Figure(name, svg) => Some((format!("{name}.svg"), svg.as_str())),
            _ => None,
        })
    }

    /// As Markdown; plots are in `plots/`.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n", self.title);
        for part in &self.parts {
            text.push('\n');
            match part {
                Part::Heading(title) => text += &format!("## {title}\n"),
                Part::Text(line) => text += &format!("{line}\n"),
                Part::Figure(name, _) => text += &format!("![{name}](plots/{name}.svg)\n"),
                Part::Table(names, rows) => {
                    let row = |cells: &[String]| {
                        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
                        format!("| {} |\n", cells.join(" | "))
                    };
                    text += &row(names);
                    text += &row(&vec!["---".to_owned(); names.len()]);
                    rows.iter().for_each(|cells| text += &row(cells));
                }
            }
        }
        text
    }

    /// As one HTML file that needs no other.
    pub fn html(&self) -> String {
        let title = escaped(&self.title);
        let mut text = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
             <style>{STYLE}</style></head>\n<body><main><h1>{title}</h1>\n"
        );
        for part in &self.parts {
            let _ = match part {
                Part::Heading(title) => writeln!(text, "<h2>{}</h2>", escaped(title)),
                Part::Text(line) => writeln!(text, "<p>{}</p>", escaped(line)),
                Part::Figure(name, svg) => {
                    writeln!(text, "<figure role=\"img\" aria-label=\"{}\">{svg}</figure>", escaped(name))
                }
                Part::Table(names, rows) => {
                    let cells = |kind: &str, cells: &[String]| {
                        let all = cells.iter().map(|cell| format!("<{kind}>{}</{kind}>", escaped(cell)));
                        format!("<tr>{}</tr>\n", all.collect::<String>())
                    };
                    let body: String = rows.iter().map(|row| cells("td", row)).collect();
                    let head = cells("th scope=\"col\"", names).replace("</th scope=\"col\">", "</th>");
                    writeln!(
                        text,
                        "<div class=\"wide\" tabindex=\"0\"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>"
                    )
                }
            };
        }
        text + "</main></body></html>\n"
    }
}

const STYLE: &str = "\
:root{color-scheme:light dark}body{margin:0;font:16px/1.5 system-ui,sans-serif}main{max-width:72rem;margin:auto;padding:1rem}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}th,td{padding:.25rem .6rem;text-align:left;\
border-bottom:1px solid #8886;vertical-align:top}figure{margin:1rem 0}svg{max-width:100%;height:auto;background:#fff}\
@media print{:root{color-scheme:light}body{font-size:11px}.wide{overflow:visible}.wide table{font-size:7px}\
th,td{padding:.1rem .2rem;overflow-wrap:anywhere}}";

#[cfg(test)]
mod tests {
    use super::super::tables::tests::{measured, plan};
    use super::*;

    #[test]
    fn a_report_shows_published_figures_beside_ours() {
        let plan = plan();
        let document = report(&plan, &measured(&plan)).unwrap();
        let text = document.markdown();
        for part in [
            "# link_util: Memory, and load",
            "5 of 6 points were measured",
            "Incomplete: 1 points",
            "memory that homa needs at 50 % load over that at 80 % | buffer_min_bytes | 0.250 | 0.600 | +140 %",
            "![slowdown_mean](plots/slowdown_mean.svg)",
            "| gbps = 12 | 5.00 ± 2.48 |",
        ] {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
        assert!(document.plots().any(|(name, svg)| name == "buffer_min_bytes.svg" && svg.starts_with("<svg")));
    }

    #[test]
    fn html_is_whole_and_escaped() {
        let mut plan = plan();
        plan.file.title = "a < b & c".to_owned();
        let html = report(&plan, &measured(&plan)).unwrap().html();
        assert!(html.contains("<h1>link_util: a &lt; b &amp; c</h1>") && html.ends_with("</html>\n"), "{html}");
        for tag in ["table", "figure", "th", "td", "tr"] {
            let open = html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
            assert_eq!(open, html.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([number(3_812_345.0), number(0.6), number(12.345), number(0.0)], ["3812345", "0.600", "12.3", "0"]);
    }
}
