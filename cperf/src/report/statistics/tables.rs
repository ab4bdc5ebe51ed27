//! The statistics of a run as CSV, for programs, and as Markdown, for people.

use std::fmt::Write as _;

use super::{Estimate, FIGURES, Measure, Statistics, method};

/// A line a protocol, measure and class (empty: all messages); each figure with the ends of its interval. P99 averages
/// are lines of their own.
pub fn csv(all: &[Statistics]) -> String {
    let mut text = "protocol,measure,class,classes,min_length_bytes,max_length_bytes,rpcs".to_owned();
    for name in FIGURES.iter().chain(&["p99_average"]) {
        let _ = write!(text, ",{name},{name}_low,{name}_high");
    }
    text.push('\n');
    for one in all {
        for row in &one.rows {
            let class = row.class.map(|class| class.to_string()).unwrap_or_default();
            let (name, measure) = (&one.protocol, row.measure.name());
            let (least, most, rpcs) = (row.min_length_bytes, row.max_length_bytes, row.rpcs);
            let _ = write!(text, "{name},{measure},{class},,{least},{most},{rpcs}");
            row.figures.iter().for_each(|estimate| cells(&mut text, estimate));
            text += ",,,\n";
        }
        for average in &one.p99_averages {
            let _ = write!(text, "{},{},,{},,,", one.protocol, average.measure.name(), average.classes);
            text += &",".repeat(3 * FIGURES.len());
            cells(&mut text, &average.estimate);
            text.push('\n');
        }
    }
    text
}

fn cells(text: &mut String, estimate: &Estimate) {
    let show = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let (value, low, high) = (show(estimate.value), estimate.interval.map(|at| at.0), estimate.interval.map(|at| at.1));
    let _ = write!(text, ",{value},{},{}", show(low), show(high));
}

/// Tables: P99 averages, then each measure with its classes, protocols one below the other.
pub fn markdown(title: &str, slowdown: &str, all: &[Statistics]) -> String {
    let mut text = format!("# {title}\n\nSlowdown {slowdown}.\n\n{}\n", method());
    text += "\n## P99 average\n\nMessages by length in classes of equally many; the mean over classes of the mean of the worst \
             1 % of the slowdowns of each.\n\n";
    text += "| protocol | slowdown | classes | P99 average |\n| --- | --- | --- | --- |\n";
    for one in all {
        for average in &one.p99_averages {
            let from = if average.measure == Measure::Slowdown { "from sending" } else { "from the due time" };
            let _ = writeln!(text, "| {} | {from} | {} | {} |", one.protocol, average.classes, cell(&average.estimate));
        }
    }
    for (measure, title) in [
        (Measure::RttUs, "Round-trip time from sending, us"),
        (Measure::Slowdown, "Slowdown from sending"),
        (Measure::DueRttUs, "Round-trip time from the due time, us"),
        (Measure::DueSlowdown, "Slowdown from the due time"),
    ] {
        let _ = write!(text, "\n## {title}\n\n| protocol | length, bytes | RPCs | mean | P50 | P90 | P99 | P99.9 |");
        text += " worst 1 % | max |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
        for one in all {
            for row in one.rows.iter().filter(|row| row.measure == measure) {
                let lengths = match row.class {
                    None => "all".to_owned(),
                    Some(_) => format!("{}-{}", row.min_length_bytes, row.max_length_bytes),
                };
                let cells: Vec<_> = row.figures.iter().map(cell).collect();
                let _ = writeln!(text, "| {} | {lengths} | {} | {} |", one.protocol, row.rpcs, cells.join(" | "));
            }
        }
    }
    text
}

/// `12.3 (11.9-12.8)`.
fn cell(estimate: &Estimate) -> String {
    match (estimate.value, estimate.interval) {
        (Some(value), Some((low, high))) => format!("{} ({}-{})", short(value), short(low), short(high)),
        (Some(value), None) => short(value),
        (None, _) => "-".to_owned(),
    }
}

/// Three digits, more before the point.
fn short(value: f64) -> String {
    let digits = if value.abs() < 10.0 { 2 } else { usize::from(value.abs() < 1000.0) };
    format!("{value:.digits$}")
}
