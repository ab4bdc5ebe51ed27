//! Summary statistics of each protocol with their intervals.

use std::fmt::Write as _;

use tthoma::document::escaped;

use super::{label, table};
use crate::report::statistics::{Estimate, Measure, Row, Statistics, method};

/// Measures that have a table, with its caption, as in [`Measure`]. Those from the due time are folded.
const MEASURES: [(Measure, &str, bool); 4] = [
    (Measure::RttUs, "Round-trip time from sending, us", false),
    (Measure::Slowdown, "Slowdown from sending", false),
    (Measure::DueRttUs, "Round-trip time from the due time, us", true),
    (Measure::DueSlowdown, "Slowdown from the due time", true),
];
/// Names of the figures, as [`crate::report::statistics::FIGURES`].
const NAMES: [&str; 7] = ["mean", "P50", "P90", "P99", "P99.9", "worst 1 %, mean", "max"];

/// Tables of all messages, and folded those of classes of lengths, as HTML.
pub fn html(all: &[Statistics]) -> String {
    let mut out = String::new();
    for (measure, title, folded) in MEASURES {
        let rows = || {
            all.iter()
                .flat_map(|one| one.rows.iter().map(move |row| (one, row)))
                .filter(|(_, row)| row.measure == measure)
        };
        if rows().next().is_none() {
            continue;
        }
        let averages = matches!(measure, Measure::Slowdown | Measure::DueSlowdown);
        let mut names = vec!["protocol", "RPCs"];
        names.extend(NAMES);
        if averages {
            names.extend(["P99 average: 10 classes", "100"]);
        }
        let whole = rows().filter(|(_, row)| row.class.is_none()).map(|(one, row)| {
            let mut cells = vec![label(&one.protocol), row.rpcs.to_string()];
            cells.extend(figures(row));
            if averages {
                for classes in [10, 100] {
                    let found = one
                        .p99_averages
                        .iter()
                        .find(|average| average.measure == measure && average.classes == classes);
                    cells.push(found.map_or_else(|| "-".to_owned(), |average| shown(&average.estimate)));
                }
            }
            cells
        });
        if folded {
            let _ = write!(out, "<details><summary>{title}</summary>");
        } else {
            let _ = write!(out, "<h3>{title}</h3>");
        }
        out += &table(title, &names, whole);
        out += if folded { "</details>\n" } else { "" };
        let mut names = vec!["protocol", "length, bytes", "RPCs"];
        names.extend(NAMES);
        let classes = rows().filter(|(_, row)| row.class.is_some()).map(|(one, row)| {
            let mut cells = vec![
                label(&one.protocol),
                format!("{} to {}", row.min_length_bytes, row.max_length_bytes),
                row.rpcs.to_string(),
            ];
            cells.extend(figures(row));
            cells
        });
        let title = format!("{title}, by message length");
        let _ = writeln!(out, "<details><summary>{title}</summary>{}</details>", table(&title, &names, classes));
    }
    if !out.is_empty() {
        let _ = writeln!(
            out,
            "<p class=\"note\">P99 average: messages by length in classes of equally many; the mean over classes of the mean of the \
             slowest 1 % of each. {}</p>",
            escaped(&method())
        );
    }
    out
}

fn figures(row: &Row) -> impl Iterator<Item = String> + '_ {
    row.figures.iter().map(shown)
}

/// The figure, and its interval on a line below.
fn shown(estimate: &Estimate) -> String {
    match (estimate.value, estimate.interval) {
        (Some(value), Some((low, high))) => format!("{}\n{} to {}", number(value), number(low), number(high)),
        (Some(value), None) => number(value),
        (None, _) => "-".to_owned(),
    }
}

/// Three significant digits, or all before the point.
fn number(value: f64) -> String {
    let decimals = if value.abs() > 0.0 { (2.0 - value.abs().log10().floor()).clamp(0.0, 3.0) as usize } else { 0 };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::super::tests::source;
    use super::*;

    #[test]
    fn every_measure_has_a_row_for_each_protocol_and_figures_have_three_digits() {
        source(|run| {
            let html = html(run.statistics);
            // All messages and ten classes of two protocols, from sending and from the due time.
            assert_eq!(html.matches("<th scope=\"row\">").count(), 4 * 2 * 11, "{html}");
            assert!(html.contains("P99 average: 10 classes") && html.contains("bootstrap"));
            // The mean of 1 to 100 us.
            assert!(html.contains(">50.5\n"), "{html}");
        });
        assert_eq!([number(0.0), number(0.1234), number(12.34), number(8125.6)], ["0", "0.123", "12.3", "8126"]);
        assert_eq!(shown(&Estimate { value: None, interval: None }), "-");
    }
}
