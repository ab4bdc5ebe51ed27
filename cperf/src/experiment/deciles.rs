//! The SIGCOMM 2018 study's results at the lengths that close each tenth of the messages, and its tables.

use serde_json::Value;

use super::columns::{self, Column, column};
use super::plan::Plan;
use super::statistics::{self, Summary};
use super::study::{Bin, StudyResult};
use super::tables::{self, Measured, Table};

/// A cell further than this from what was published is marked, percent.
pub const TOLERANCE: f64 = 15.0;
/// With fewer messages than this in a cell, all seeds together, its P99 is that of a few messages.
pub const FEW: u64 = 1000;

/// A bin of the published curve over all seeds of a workload and load.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Percent of the messages that are not longer.
    pub cum_percent: f64,
    /// Longest message.
    pub length_bytes: u32,
    /// Messages of ours, all seeds together; those of bins below, too, where a bin has few.
    pub messages: u64,
    /// Median.
    pub p50: Cell,
    /// 99th percentile.
    pub p99: Cell,
}

/// A slowdown beside the published one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Over seeds; `None` without messages.
    pub ours: Option<Summary>,
    /// Published.
    pub published: f64,
}

impl Cell {
    fn new(bins: &[&Bin], ours: impl Fn(&Bin) -> Option<f64>, published: f64) -> Self {
        let all: Vec<f64> = bins.iter().filter_map(|bin| ours(bin)).collect();
        Self { ours: statistics::summary(&all), published }
    }

    /// How far ours is from the published one, percent.
    pub fn deviation_percent(&self) -> Option<f64> {
        Some(100.0 * (self.ours?.mean / self.published - 1.0))
    }

    /// Whether that is more than [`TOLERANCE`].
    pub fn is_outside(&self) -> Option<bool> {
        Some(self.deviation_percent()?.abs() > TOLERANCE)
    }
}

/// Results of a group's points.
pub fn results<'a>(group: &'a [Measured<'_>]) -> Vec<&'a StudyResult> {
    group.iter().filter_map(|(_, result)| result.as_ref()?.study.as_ref()).collect()
}

/// All bins of a group, by length.
pub fn rows(group: &[Measured<'_>]) -> Vec<Row> {
    let results = results(group);
    let Some(first) = results.first() else { return Vec::new() };
    let mut cum_percent = 0.0;
    let row = |(index, bin): (usize, &Bin)| {
        cum_percent += bin.percent;
        let bins: Vec<&Bin> = results.iter().filter_map(|result| result.bins.get(index)).collect();
        Row {
            cum_percent,
            length_bytes: bin.length_bytes,
            messages: bins.iter().map(|bin| bin.pooled).sum(),
            p50: Cell::new(&bins, |bin| bin.slowdown_p50, bin.published_p50),
            p99: Cell::new(&bins, |bin| bin.slowdown_p99, bin.published_p99),
        }
    };
    first.bins.iter().enumerate().map(row).collect()
}

/// The bins that close each tenth of the messages, ten, with the tenth in percent.
pub fn deciles(group: &[Measured<'_>]) -> Vec<(u32, Row)> {
    let rows = rows(group);
    let closes = |tenth: u32| {
        // A hundredth of a percent is next to nothing: in w1 ten thousand times as many messages are shorter as longer.
        let row = rows.iter().find(|row| row.cum_percent >= f64::from(tenth * 10) - 1e-2);
        Some((tenth * 10, row.or(rows.last())?.clone()))
    };
    (1..=10).filter_map(closes).collect()
}

/// Columns of `results.csv` besides those that say which measurement it is.
const RESULTS: [Column; 6] = [
    column("warmup_s", "s", "time under load before messages counted, virtual"),
    column("measure_s", "s", "messages that began in this interval counted, virtual"),
    column("messages", "messages", "messages that counted and arrived"),
    column("unfinished", "messages", "messages that counted and had not arrived when the run ended: in no percentile"),
    column("packets", "packets", "packets delivered to hosts, warm-up included"),
    column("busy_percent", "percent", "share of the measured interval that links to hosts were busy"),
];
/// Columns of `by_length.csv`.
const BY_LENGTH: [Column; 9] = [
    column("cum_percent", "percent", "messages of the workload that are not longer"),
    column("length_bytes", "bytes", "longest message of the bin"),
    column(
        "messages",
        "messages",
        "messages that counted in the bin, and where that has few in those below; in deciles.csv of all seeds",
    ),
    column("slowdown_p50", "", "median slowdown"),
    column("slowdown_p99", "", "P99 of the slowdowns"),
    column("published_p50", "", "published median slowdown"),
    column("published_p99", "", "published P99"),
    column("deviation_p50_percent", "percent", "how far our median is from the published one"),
    column("deviation_p99_percent", "percent", "how far our P99 is from the published one"),
];
/// Columns of `deciles.csv`.
const DECILES: [Column; 19] = [
    column("experiment", "", "name of the experiment"),
    column("workload", "", "w1 to w5"),
    column("load", "", "share of the host links' rate"),
    column("decile_percent", "percent", "the tenth of the messages that the bin closes"),
    BY_LENGTH[1],
    BY_LENGTH[2],
    column("seeds", "", "measurements that have messages in the bin"),
    column("p50_mean", "", "median slowdown, mean over seeds"),
    column("p50_ci95_low", "", "lower end of its 95 % confidence interval; empty for one seed"),
    column("p50_ci95_high", "", "its upper end"),
    BY_LENGTH[5],
    BY_LENGTH[7],
    column("p50_outside", "", "whether that is more than 15 %"),
    column("p99_mean", "", "P99 of the slowdowns, mean over seeds"),
    column("p99_ci95_low", "", "lower end of its 95 % confidence interval; empty for one seed"),
    column("p99_ci95_high", "", "its upper end"),
    BY_LENGTH[6],
    BY_LENGTH[8],
    column("p99_outside", "", "whether that is more than 15 %"),
];

/// All tables with the names of their files.
pub fn tables(plan: &Plan, measured: &[Measured<'_>]) -> Vec<(&'static str, Table)> {
    vec![
        ("results", results_table(plan, measured)),
        ("by_length", by_length(plan, measured)),
        ("deciles", deciles_table(plan, measured)),
        ("summary", summary(plan, measured)),
        ("columns", meanings()),
    ]
}

/// Columns that say which measurement a row is about.
fn keys() -> impl Iterator<Item = &'static str> {
    columns::KEYS.iter().map(|column| column.name).filter(|name| *name != "role").chain(["load"])
}

fn names(columns: &[Column]) -> impl Iterator<Item = &'static str> {
    columns.iter().map(|column| column.name)
}

/// Figures of a run, as [`RESULTS`] has them after the times.
fn figures(result: &StudyResult) -> [Value; 4] {
    [result.messages.into(), result.unfinished.into(), result.packets.into(), result.busy_percent.into()]
}

fn results_table(plan: &Plan, measured: &[Measured<'_>]) -> Table {
    let mut table = Table::new(keys().chain(names(&RESULTS)));
    for (point, result) in measured {
        let Some(study) = result.as_ref().and_then(|result| result.study.as_ref()) else { continue };
        let mut row = tables::keys(plan, point, &["load".to_owned()]);
        row.extend([point.spec.sim.warmup_s.into(), point.spec.sim.measure_s.into()]);
        row.extend(figures(study));
        table.rows.push(row);
    }
    table
}

fn by_length(plan: &Plan, measured: &[Measured<'_>]) -> Table {
    let mut table = Table::new(keys().chain(names(&BY_LENGTH)));
    for one in measured {
        for Row { cum_percent, length_bytes, messages, p50, p99 } in rows(std::slice::from_ref(one)) {
            let mut row = tables::keys(plan, one.0, &["load".to_owned()]);
            row.extend([cum_percent.into(), length_bytes.into(), messages.into()]);
            row.extend([&p50, &p99].map(|cell| cell.ours.map(|ours| ours.mean).into()));
            row.extend([p50.published.into(), p99.published.into()]);
            row.extend([p50.deviation_percent().into(), p99.deviation_percent().into()]);
            table.rows.push(row);
        }
    }
    table
}

fn deciles_table(plan: &Plan, measured: &[Measured<'_>]) -> Table {
    let mut table = Table::new(names(&DECILES));
    for group in tables::groups(measured) {
        let sim = &group[0].0.spec.sim;
        for (decile, Row { length_bytes, messages, p50, p99, .. }) in deciles(group) {
            let mut row: Vec<Value> = vec![plan.file.name.clone().into(), sim.workload.clone().into(), sim.load.into()];
            row.extend([decile.into(), length_bytes.into(), messages.into()]);
            row.push(p50.ours.map_or(0, |ours| ours.count).into());
            for cell in [p50, p99] {
                let interval = cell.ours.and_then(|ours| ours.interval);
                row.extend([cell.ours.map(|ours| ours.mean), interval.map(|ends| ends.0)].map(Value::from));
                row.extend([interval.map(|ends| ends.1).into(), cell.published.into()]);
                row.extend([cell.deviation_percent().into(), cell.is_outside().into()]);
            }
            table.rows.push(row);
        }
    }
    table
}

fn summary(plan: &Plan, measured: &[Measured<'_>]) -> Table {
    let mut table = Table::new(["experiment", "workload", "load"].into_iter().chain(names(&columns::SUMMARY)));
    for group in tables::groups(measured) {
        let sim = &group[0].0.spec.sim;
        for (index, Column { name, unit, .. }) in RESULTS[2..].iter().enumerate() {
            let all: Vec<f64> = results(group).into_iter().filter_map(|one| figures(one)[index].as_f64()).collect();
            let Some(all) = statistics::summary(&all) else { continue };
            let mut row: Vec<Value> = vec![plan.file.name.clone().into(), sim.workload.clone().into(), sim.load.into()];
            row.extend([(*name).into(), (*unit).into(), all.count.into(), all.mean.into()]);
            row.extend([all.interval.map(|ends| ends.0).into(), all.interval.map(|ends| ends.1).into()]);
            row.extend([Value::from(all.min), all.max.into(), all.variation.into()]);
            table.rows.push(row);
        }
    }
    table
}

fn meanings() -> Table {
    let mut table = Table::new(["file", "column", "unit", "meaning"]);
    for (file, columns) in [
        ("all", &columns::KEYS[..]),
        ("results", &RESULTS),
        ("by_length", &BY_LENGTH),
        ("deciles", &DECILES),
        ("summary", &columns::SUMMARY),
    ] {
        let cells = |column: &Column| [file, column.name, column.unit, column.meaning].map(Value::from).to_vec();
        table.rows.extend(columns.iter().filter(|column| column.name != "role").map(cells));
    }
    table
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::file::File;
    use super::super::plan::VERSION;
    use super::super::point::PointResult;
    use super::*;
    use homa_sim::sigcomm18::published;

    /// w1 at both loads with two seeds: medians as published, P99 20 % and 24 % above; the last point has no result.
    pub(in super::super) fn plan() -> Plan {
        let text = "name = 'x'\ntitle = 'Slowdowns'\nmeasure = 'sigcomm18'\nseeds = [1, 2]\n[fixed]\nworkload = 'w1'\n\
                    [[vary]]\nparameter = 'load'\nvalues = [0.8, 0.5]";
        Plan::new(File::parse(text).unwrap(), &[]).unwrap()
    }

    pub(in super::super) fn measured(plan: &Plan) -> Vec<Measured<'_>> {
        let result = |index: usize| {
            let point = &plan.points[index];
            let sim = &point.spec.sim;
            let bins = published(sim.load.unwrap(), "w1").into_iter().map(|bin| Bin {
                length_bytes: bin.len,
                percent: 100.0 * bin.fraction,
                messages: 500,
                pooled: if bin.len == 2 { 0 } else { 600 },
                slowdown_p50: (bin.len != 2).then_some(bin.p50),
                slowdown_p99: (bin.len != 2).then_some(bin.p99 * (1.16 + 0.04 * sim.seed as f64)),
                published_p50: bin.p50,
                published_p99: bin.p99,
            });
            let study = StudyResult { messages: 49_200, unfinished: 3, bins: bins.collect(), ..StudyResult::default() };
            PointResult {
                version: VERSION,
                id: point.id.clone(),
                slowdown: super::super::study::SLOWDOWN.into(),
                study: Some(study),
                ..PointResult::default()
            }
        };
        plan.points.iter().enumerate().map(|(index, point)| (point, (index < 3).then(|| result(index)))).collect()
    }

    #[test]
    fn deciles_are_those_of_the_published_messages() {
        let plan = plan();
        let all = measured(&plan);
        let group = tables::groups(&all).next().unwrap();
        let deciles = deciles(group);
        let lengths: Vec<u32> = deciles.iter().map(|(_, row)| row.length_bytes).collect();
        assert_eq!(lengths, [2, 3, 5, 11, 28, 85, 167, 291, 508, 12_904]);
        let (percent, row) = &deciles[1];
        assert_eq!((*percent, row.messages), (20, 1200));
        assert!((row.p50.deviation_percent().unwrap()).abs() < 1e-9 && row.p50.is_outside() == Some(false));
        assert!((row.p99.deviation_percent().unwrap() - 22.0).abs() < 1e-9 && row.p99.is_outside() == Some(true));
        assert_eq!((deciles[0].1.p50.ours, deciles[0].1.p99.is_outside()), (None, None), "no messages");
    }

    #[test]
    fn every_column_of_every_table_is_explained_and_filled() {
        let plan = plan();
        let all = tables(&plan, &measured(&plan));
        let known: Vec<_> = all[4].1.rows.iter().map(|row| row[1].clone()).collect();
        let rows: Vec<_> = all[..4].iter().map(|(_, table)| table.rows.len()).collect();
        assert_eq!(rows, [3, 3 * 83, 2 * 10, 2 * 4]);
        for (name, table) in &all[..4] {
            assert!(table.rows.iter().all(|row| row.len() == table.names.len()), "{name}");
            for column in &table.names {
                assert!(known.contains(&column.clone().into()), "{name}: {column} is not explained");
            }
        }
    }
}
