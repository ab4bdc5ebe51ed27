//! The report on the SIGCOMM 2018 study: each tenth of the messages beside what was published, curves, and what the
//! published model has that ours has not.

use homa_sim::sigcomm18::{WORKLOADS, unscheduled_levels};

use super::chart::{self, Curve, Mark};
use super::deciles::{self, Cell, FEW, Row, TOLERANCE};
use super::document::{Document, Part, head, number, with_interval};
use super::plan::Plan;
use super::statistics;
use super::tables::{self, Measured};

/// Fewer messages than these are no part of a curve of medians, and of P99.
const DRAWN: [u64; 2] = [10, 100];

type Group<'a, 'b> = &'b [Measured<'a>];

/// The report on what was measured of a plan.
///
/// # Errors
/// A plot cannot be drawn.
pub fn report(plan: &Plan, measured: &[Measured<'_>]) -> anyhow::Result<Document> {
    let mut parts = head(plan, measured);
    let groups: Vec<Group<'_, '_>> =
        tables::groups(measured).filter(|group| !deciles::results(group).is_empty()).collect();
    warnings(&mut parts, &groups);
    overview(&mut parts, &groups);
    for group in &groups {
        cells(&mut parts, group);
    }
    curves(&mut parts, &groups)?;
    differences(&mut parts);
    runs(&mut parts, &groups);
    Ok(Document { title: format!("{}: {}", plan.file.name, plan.file.title), parts })
}

/// `w1, 80 % load`.
fn about(group: Group<'_, '_>) -> String {
    let sim = &group[0].0.spec.sim;
    format!("{}, {:.0} % load", sim.workload, 100.0 * sim.load.unwrap_or(0.0))
}

/// What a reader must know before believing the figures.
fn warnings(parts: &mut Vec<Part>, groups: &[Group<'_, '_>]) {
    for group in groups {
        let results = deciles::results(group);
        let (unfinished, all) =
            results.iter().fold((0, 0), |sum, one| (sum.0 + one.unfinished, sum.1 + one.unfinished + one.messages));
        if unfinished > 0 {
            let share = 100.0 * unfinished as f64 / all as f64;
            parts.push(Part::Text(format!(
                "WARNING: {}: {unfinished} messages of {all} ({share:.3} %) had not arrived when the runs ended, long ones \
                 most likely; they are in no percentile.",
                about(group)
            )));
        }
    }
}

/// How many cells are within the tolerance.
fn overview(parts: &mut Vec<Part>, groups: &[Group<'_, '_>]) {
    parts.push(Part::Heading(format!("Cells within ±{TOLERANCE} % of what was published")));
    let mut rows = Vec::new();
    let (mut within, mut of) = (0, 0);
    for group in groups {
        let all = deciles::deciles(group);
        let mut row = vec![about(group)];
        for cell in [|row: &Row| row.p50, |row: &Row| row.p99] {
            let cells = || all.iter().map(|(_, row)| cell(row));
            let inside = cells().filter(|cell| cell.is_outside() == Some(false)).count();
            let worst = cells().filter_map(|cell| cell.deviation_percent()).max_by(|a, b| a.abs().total_cmp(&b.abs()));
            row.extend([format!("{inside} of {}", all.len()), percent(worst)]);
            (within, of) = (within + inside, of + all.len());
        }
        rows.push(row);
    }
    parts.push(Part::Text(format!("{within} of {of} cells.")));
    let names = ["point", "P50 within", "P50, largest deviation", "P99 within", "P99, largest deviation"];
    parts.push(Part::Table(names.map(str::to_owned).to_vec(), rows));
}

fn percent(deviation: Option<f64>) -> String {
    deviation.map_or_else(|| "-".to_owned(), |percent| format!("{percent:+.1} %"))
}

/// The table of a workload and load.
fn cells(parts: &mut Vec<Part>, group: Group<'_, '_>) {
    parts.push(Part::Heading(about(group)));
    let names = [
        "percent of messages",
        "length, bytes",
        "messages",
        "P50 here",
        "published",
        "deviation",
        "outside",
        "P99 here",
        "published",
        "deviation",
        "outside",
    ];
    let rows = deciles::deciles(group).into_iter().map(|(decile, row)| {
        let few = if row.messages < FEW { " (few)" } else { "" };
        let mut cells = vec![decile.to_string(), row.length_bytes.to_string(), format!("{}{few}", row.messages)];
        cells.extend(shown(&row.p50));
        cells.extend(shown(&row.p99));
        cells
    });
    parts.push(Part::Table(names.map(str::to_owned).to_vec(), rows.collect()));
}

fn shown(cell: &Cell) -> [String; 4] {
    let ours = cell.ours.map_or_else(|| "-".to_owned(), |ours| with_interval(&ours));
    let outside = if cell.is_outside() == Some(true) { "OUTSIDE" } else { "" };
    [ours, number(cell.published), percent(cell.deviation_percent()), outside.to_owned()]
}

/// A plot for each workload: slowdown against length, both loads.
fn curves(parts: &mut Vec<Part>, groups: &[Group<'_, '_>]) -> anyhow::Result<()> {
    parts.push(Part::Heading("Slowdown against message length".to_owned()));
    parts.push(Part::Text("Lines are means over seeds; dashed lines of the same colour are published.".to_owned()));
    let mut workloads: Vec<&str> = Vec::new();
    for group in groups {
        let workload = group[0].0.spec.sim.workload.as_str();
        if !workloads.contains(&workload) {
            workloads.push(workload);
        }
    }
    for workload in workloads {
        let mut curves = Vec::new();
        for group in groups.iter().filter(|group| group[0].0.spec.sim.workload == workload) {
            let rows = deciles::rows(group);
            let about = about(group);
            curves.push(curve(&rows, format!("{about}, P50"), DRAWN[0], |row| row.p50));
            curves.push(curve(&rows, format!("{about}, P99"), DRAWN[1], |row| row.p99));
        }
        if let Some(svg) = chart::svg("message length, bytes", "slowdown", &curves)? {
            parts.push(Part::Figure(format!("slowdown_{workload}"), svg));
        }
    }
    Ok(())
}

fn curve(rows: &[Row], name: String, least: u64, cell: impl Fn(&Row) -> Cell) -> Curve {
    let drawn = rows.iter().filter(|row| row.messages >= least);
    let mark = |row: &Row| Some(Mark { x: row.length_bytes.into(), y: cell(row).ours?.mean, interval: None });
    let published = rows.iter().map(|row| (row.length_bytes.into(), cell(row).published)).collect();
    Curve { name, marks: drawn.filter_map(mark).collect(), published }
}

/// Where deviations may come from.
fn differences(parts: &mut Vec<Part>) {
    parts.push(Part::Heading("The study's model, and the one here".to_owned()));
    parts.push(Part::Text(
        "Network, lengths, load, delays of hosts, headers, unscheduled bytes (9,328), bytes granted ahead (10,000) and the \
         definition of slowdown are those of the study, the same for all workloads. These differ:"
            .to_owned(),
    ));
    let levels = WORKLOADS.map(|workload| format!("{workload} {}", unscheduled_levels(workload))).join(", ");
    let levels = format!(
        "8, unscheduled packets have as many as their share of the bytes is, rounded, at least 1 and at most 7: {levels}"
    );
    let rows = [
        [
            "level of a packet",
            "by what is left of its message when it is sent: the end of a long message is as urgent as a short message",
            "by the length of its message, as Homa's kernel module has it; the core as it is shipped",
            "tails of messages of some packets: P50 and P99 of lengths of up to some unscheduled windows",
        ],
        [
            "last packets of a long message",
            "go first, since little is left of it",
            "scheduled packets stay at the level of their grant until the end",
            "P50 and P99 of the longest messages, most of all at 80 % load",
        ],
        [
            "number of levels",
            "8, divided by the share of unscheduled bytes",
            &levels,
            "lengths near a cutoff between levels",
        ],
        [
            "grants",
            "one for each packet that came, 10,000 bytes ahead; as many messages at once as there are scheduled levels",
            "the same window and number of messages; when a grant goes out is up to the core as it is shipped",
            "scheduled messages",
        ],
        [
            "slowdown within a rack",
            "leaves out the switch's 250 ns when it works out the time of an empty network",
            "the same formula, so that both are above 1 without load",
            "none: both have it",
        ],
    ];
    let names = ["", "the study", "here", "seen in"].map(str::to_owned).to_vec();
    parts.push(Part::Table(names, rows.map(|row| row.map(str::to_owned).to_vec()).to_vec()));
}

/// Figures of the runs themselves.
fn runs(parts: &mut Vec<Part>, groups: &[Group<'_, '_>]) {
    parts.push(Part::Heading("Runs (means over seeds)".to_owned()));
    let names = [
        "point",
        "seeds",
        "warm-up, ms",
        "measured, ms",
        "links to hosts busy, %",
        "messages",
        "unfinished",
        "packets",
    ];
    let row = |group: &Group<'_, '_>| {
        let (results, sim) = (deciles::results(group), &group[0].0.spec.sim);
        let mean = |figure: &dyn Fn(&super::study::StudyResult) -> f64| {
            let all: Vec<f64> = results.iter().map(|one| figure(one)).collect();
            statistics::summary(&all).map_or(0.0, |all| all.mean)
        };
        vec![
            about(group),
            results.len().to_string(),
            number(1e3 * sim.warmup_s),
            number(1e3 * sim.measure_s),
            format!("{:.1}", mean(&|one| one.busy_percent)),
            format!("{:.0}", mean(&|one| one.messages as f64)),
            format!("{:.1}", mean(&|one| one.unfinished as f64)),
            format!("{:.0}", mean(&|one| one.packets as f64)),
        ]
    };
    parts.push(Part::Table(names.map(str::to_owned).to_vec(), groups.iter().map(row).collect()));
}

#[cfg(test)]
mod tests {
    use super::super::deciles::tests::{measured, plan};
    use super::*;

    #[test]
    fn the_report_has_every_tenth_marks_and_curves() {
        let plan = plan();
        let document = report(&plan, &measured(&plan)).unwrap();
        let text = document.markdown();
        for part in [
            "3 of 4 points were measured",
            "WARNING: w1, 80 % load: 6 messages of 98406 (0.006 %) had not arrived",
            "18 of 40 cells.",
            "| w1, 80 % load | 9 of 10 | +0.0 % | 0 of 10 | +22.0 % |",
            "| 20 | 3 | 1200 | 1.20 | 1.20 | +0.0 % |  | 2.27 ± 0.473 | 1.86 | +22.0 % | OUTSIDE |",
            "| 10 | 2 | 0 (few) | - | 1.20 | - |  | - | 1.84 | - |  |",
            "## w1, 50 % load",
            "![slowdown_w1](plots/slowdown_w1.svg)",
            "| level of a packet | by what is left",
        ] {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
        let (name, svg) = document.plots().next().unwrap();
        assert!(name == "slowdown_w1.svg" && svg.contains("message length, bytes") && svg.contains("80 % load, P99"));
    }
}
