//! One page without a network: findings, and a heat map of nodes by counters for each group. Light and dark, wide and
//! narrow, in print.

use std::fmt::Write as _;

use crate::scan::Scan;
use crate::scan::control::RATE;
use crate::scan::finding::{Finding, Test};
use crate::scan::heat::Heat;

/// The style sheet of the page, and of others that have its parts.
pub const STYLE: &str = include_str!("page.css");

/// Findings on the page, at most; the table and the CSV have all.
const MOST: usize = 500;

/// The page.
pub fn html(scan: &Scan) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>scan_metrics</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    let mut add = |text: String| out += &text;
    add("<h1>What is odd in the metrics</h1>\n".to_owned());
    add(findings(scan));
    if !scan.heat.is_empty() {
        add("<h2>Nodes by counters</h2>\n".to_owned());
    }
    for picture in &scan.heat {
        add(heat_map(picture));
    }
    add("<h2>Tests</h2>\n<dl class=\"tests\">\n".to_owned());
    for test in Test::ALL {
        let (letter, text) = test.text();
        let not = scan.not_run.iter().find(|(other, _)| *other == test);
        let not = not.map(|(_, why)| format!(" <em>Not run: {}.</em>", escaped(why))).unwrap_or_default();
        add(format!("<dt>{letter}</dt><dd>{}{not}</dd>\n", escaped(text)));
    }
    add("</dl>\n</main>\n</body>\n</html>\n".to_owned());
    out
}

/// What was compared, and what was found: a part of a page.
pub fn findings(scan: &Scan) -> String {
    let mut out = String::new();
    let mut add = |text: String| out += &text;
    let odd = scan.findings.iter().filter(|finding| finding.z.is_some()).count();
    add(format!(
        "<p>{} nodes' metrics of {} {}; {} comparisons, false alarms held at {:.0} % over all of them; {odd} findings by comparison, \
         {} in all; {} suspects.</p>\n",
        scan.nodes,
        scan.runs.len(),
        if scan.runs.len() == 1 { "run" } else { "runs" },
        scan.comparisons,
        100.0 * RATE,
        scan.findings.len(),
        scan.suspects.len()
    ));
    for (reason, (count, first)) in &scan.unused {
        add(format!(
            "<p class=\"note\">Not used: {count} files ({}), the first: {}</p>\n",
            escaped(reason),
            escaped(first)
        ));
    }
    for (reason, count) in &scan.bad_lines {
        add(format!("<p class=\"note\">Lines left out: {count} ({})</p>\n", escaped(reason)));
    }
    if scan.findings.is_empty() {
        add("<p>None.</p>\n".to_owned());
    } else {
        add("<ol class=\"findings\">\n".to_owned());
        scan.findings.iter().take(MOST).for_each(|finding| add(item(finding, scan.runs.len() > 1)));
        add("</ol>\n".to_owned());
    }
    if scan.findings.len() > MOST {
        add(format!("<p class=\"note\">{} more are in the table and the CSV.</p>\n", scan.findings.len() - MOST));
    }
    out
}

/// A finding.
fn item(finding: &Finding, runs: bool) -> String {
    let mut out = format!(
        "<li class=\"{0}\"><p><span class=\"level\">{0}</span> <b>{1}</b> <span class=\"tests\">test {2}</span>",
        finding.level.name(),
        escaped(&finding.who()),
        finding.letters()
    );
    let mut add = |text: String| out += &text;
    if let Some(z) = finding.z {
        add(format!(" <span class=\"z\">z {z:+.1}</span>"));
    }
    add(format!("<br>{}</p>", escaped(&finding.what)));
    let run = if runs && !finding.run.is_empty() { finding.run.as_str() } else { "" };
    let place = [run, finding.experiment.as_str()]
        .iter()
        .filter(|part| !part.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    let alarms = finding.false_alarms.map(|rate| format!("; false alarm: {rate:.0e}")).unwrap_or_default();
    let whom = if finding.whom.is_empty() { String::new() } else { format!("{}{alarms}", finding.whom) };
    add("<dl>".to_owned());
    for (label, text) in
        [("in", place.as_str()), ("against", &whom), ("usual cause", &finding.cause), ("next", &finding.next)]
    {
        if !text.is_empty() {
            add(format!("<dt>{label}</dt><dd>{}</dd>", escaped(text)));
        }
    }
    add("</dl></li>\n".to_owned());
    out
}

/// Nodes by counters; each cell says its node, counter, value and z to readers of screens and to the mouse.
pub fn heat_map(heat: &Heat) -> String {
    let place = [heat.run.as_str(), heat.experiment.as_str()]
        .iter()
        .filter(|part| !part.is_empty())
        .copied()
        .collect::<Vec<_>>();
    let mut out = format!(
        "<h3>{}</h3>\n<p class=\"note\">{} {}; the {} of {} counters with the largest z-scores. Blue: less than usual, red: more; a number where z is 3.5 or beyond.</p>\n\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"heat map\">\n<table class=\"heat\">\n<thead><tr><th scope=\"col\">node</th>",
        escaped(&place.join(", ")),
        heat.nodes.len(),
        heat.role,
        heat.columns.len(),
        heat.compared
    );
    for column in &heat.columns {
        write!(out, "<th scope=\"col\"><span>{}</span></th>", escaped(&column.metric)).expect("a String takes all");
    }
    out += "</tr></thead>\n<tbody>\n";
    for (row, node) in heat.nodes.iter().enumerate() {
        write!(out, "<tr><th scope=\"row\">{node}</th>").expect("a String takes all");
        for column in &heat.columns {
            let (z, value) = (column.z[row], &column.shown[row]);
            // Steps of half a deviation up to 6; below 1 the ground shows.
            let step = (z.abs().min(6.0) * 2.0).round() as u32;
            let side = if z < 0.0 { "down" } else { "up" };
            let strong = if step >= 7 { " strong" } else { "" };
            let text = if z.abs() >= 3.5 { format!("{z:+.0}") } else { String::new() };
            write!(
                out,
                "<td class=\"{side}{strong}\" style=\"--s:{step}\" title=\"node {node}, {}: {}, z {z:+.1}\">{text}</td>",
                escaped(&column.metric),
                escaped(value)
            )
            .expect("a String takes all");
        }
        out += "</tr>\n";
    }
    out += "</tbody>\n</table>\n</div>\n";
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn names_of_directories_can_not_become_markup() {
        assert_eq!(escaped("<b onclick=\"x\">&"), "&lt;b onclick=&quot;x&quot;&gt;&amp;");
    }
}
