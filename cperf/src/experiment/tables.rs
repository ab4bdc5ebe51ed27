//! The results of an experiment as tidy tables: a row a measurement, a column a parameter or figure.

use serde_json::Value;

use super::columns::{self, Column};
use super::file::Measure;
use super::plan::{CASE, Plan, Point};
use super::point::PointResult;
use super::statistics::{self, Summary};
use crate::sim::spec::SimSpec;

/// A table; all rows are as long as the names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Names of the columns.
    pub names: Vec<String>,
    /// Cells: text, numbers, true or false; null where there is no value.
    pub rows: Vec<Vec<Value>>,
}

/// A point with its result, if it has one.
pub type Measured<'a> = (&'a Point, Option<PointResult>);

impl Table {
    pub(super) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self { names: names.into_iter().map(str::to_owned).collect(), rows: Vec::new() }
    }

    /// As CSV (RFC 4180, lines end with a line feed), names first.
    pub fn csv(&self) -> String {
        let mut text = self.names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(",") + "\n";
        for row in &self.rows {
            text += &row.iter().map(cell).collect::<Vec<_>>().join(",");
            text.push('\n');
        }
        text
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// Names of the parameters that vary, besides those that every table has.
pub fn varied(plan: &Plan) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in plan.points.iter().flat_map(|point| &point.varied) {
        if !names.contains(name) && !columns::KEYS.iter().any(|column| column.name == name) {
            names.push(name.clone());
        }
    }
    names
}

/// Cells of the columns that say which measurement a row is about.
pub(super) fn keys(plan: &Plan, point: &Point, varied: &[String]) -> Vec<Value> {
    let sim = &point.spec.sim;
    let mut cells = vec![
        plan.file.name.clone().into(),
        point.id.clone().into(),
        sim.protocol.name().into(),
        sim.workload.clone().into(),
        sim.nodes.into(),
        sim.seed.into(),
    ];
    cells.extend(varied.iter().map(|name| value(point, name)));
    cells
}

/// The value of what varies at a point, by its name.
pub fn value(point: &Point, name: &str) -> Value {
    if name == CASE {
        return point.varied.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).into();
    }
    parameter(&point.spec.sim, name)
}

/// The value of a parameter by its name.
pub fn parameter(sim: &SimSpec, name: &str) -> Value {
    let all = serde_json::to_value(sim).unwrap_or_default();
    match name.split_once('.') {
        Some((table, parameter)) => all[table][parameter].clone(),
        None => all[name].clone(),
    }
}

/// `results.csv`: a row a measurement.
pub fn results(plan: &Plan, measured: &[Measured<'_>]) -> Table {
    let varied = varied(plan);
    let keys_of = || columns::KEYS.iter().map(|column| column.name).filter(|name| *name != "role");
    let figures: Vec<_> = columns::FIGURES.iter().map(|column| column.name).collect();
    let names = keys_of().chain(varied.iter().map(String::as_str)).chain(["role"]).chain(figures.iter().copied());
    let mut table = Table::new(names);
    for (point, result) in measured {
        let Some(result) = result else { continue };
        for (index, measurement) in result.measurements.iter().enumerate() {
            let mut row = keys(plan, point, &varied);
            row.push(measurement.role.name().into());
            let values = serde_json::to_value(&measurement.figures).unwrap_or_default();
            let least = result.least.filter(|_| index == 0);
            row.extend(figures.iter().map(|name| match *name {
                "buffer_min_bytes" => least.map(|least| least.bytes).into(),
                "buffer_min_us" => least.map(|least| least.us).into(),
                name => values[name].clone(),
            }));
            table.rows.push(row);
        }
    }
    table
}

/// `by_length.csv`: a row a measurement and tenth of the messages.
pub fn by_length(plan: &Plan, measured: &[Measured<'_>]) -> Table {
    let varied = varied(plan);
    let keys_of = columns::KEYS.iter().map(|column| column.name).filter(|name| *name != "role");
    let tenths = columns::TENTHS.iter().map(|column| column.name);
    let mut table = Table::new(keys_of.chain(varied.iter().map(String::as_str)).chain(tenths));
    for (point, result) in measured {
        for tenth in result.iter().flat_map(|result| &result.tenths) {
            let mut row = keys(plan, point, &varied);
            let values = serde_json::to_value(tenth).unwrap_or_default();
            row.extend(columns::TENTHS.iter().map(|column| values[column.name].clone()));
            table.rows.push(row);
        }
    }
    table
}

/// One figure of a group of points that differ only in their seeds; `None` if none has it. In steps of switch memory, each
/// step is a group of its own: `step` counts them from 0, the base.
pub fn figure(group: &[Measured<'_>], step: usize, name: &str) -> Option<Summary> {
    let value = |(_, result): &Measured<'_>| -> Option<f64> {
        let result = result.as_ref()?;
        match name {
            "buffer_min_bytes" => result.least.map(|least| least.bytes).filter(|_| step == 0),
            "buffer_min_us" => result.least.map(|least| least.us).filter(|_| step == 0),
            _ => result.measurements.get(step)?.figures.number(name),
        }
    };
    statistics::summary(&group.iter().filter_map(value).collect::<Vec<_>>())
}

/// Points that differ only in their seeds, with their results.
pub fn groups<'a, 'b>(measured: &'b [Measured<'a>]) -> impl Iterator<Item = &'b [Measured<'a>]> {
    measured.chunk_by(|(a, _), (b, _)| a.varied == b.varied)
}

/// How many measurements a group's figures are told of: the base, or all steps that any seed has.
pub fn steps(plan: &Plan, group: &[Measured<'_>]) -> usize {
    let most = group.iter().filter_map(|(_, result)| Some(result.as_ref()?.measurements.len())).max().unwrap_or(0);
    if plan.file.measure == Measure::BufferSteps { most } else { most.min(1) }
}

/// `summary.csv`: a row a group and figure, with its interval over seeds.
pub fn summary(plan: &Plan, measured: &[Measured<'_>]) -> Table {
    let varied = varied(plan);
    let keys_of = ["experiment", "protocol", "workload", "nodes"];
    let names = keys_of.into_iter().chain(varied.iter().map(String::as_str)).chain(["buffer_limit_percent"]);
    let mut table = Table::new(names.chain(columns::SUMMARY.iter().map(|column| column.name)));
    for group in groups(measured) {
        let sim = &group[0].0.spec.sim;
        for step in 0..steps(plan, group) {
            for Column { name, unit, .. } in columns::FIGURES {
                let Some(all) = figure(group, step, name) else { continue };
                let mut row = vec![plan.file.name.clone().into(), sim.protocol.name().into()];
                row.extend([sim.workload.clone().into(), sim.nodes.into()]);
                row.extend(varied.iter().map(|name| value(group[0].0, name)));
                row.push(figure(group, step, "buffer_limit_percent").map(|percent| percent.mean).into());
                row.extend([name.into(), unit.into(), all.count.into(), all.mean.into()]);
                row.extend([all.interval.map(|(low, _)| low).into(), all.interval.map(|(_, high)| high).into()]);
                row.extend([all.min.into(), all.max.into(), all.variation.into()]);
                table.rows.push(row);
            }
        }
    }
    table
}

/// `columns.csv`: what the columns of the other tables mean.
pub fn meanings(plan: &Plan) -> Table {
    let mut table = Table::new(["file", "column", "unit", "meaning"]);
    let mut add = |file: &str, name: &str, unit: &str, meaning: &str| {
        table.rows.push([file, name, unit, meaning].map(Value::from).to_vec());
    };
    for (file, columns) in [
        ("all", &columns::KEYS[..]),
        ("results", &columns::FIGURES),
        ("by_length", &columns::TENTHS),
        ("summary", &columns::SUMMARY),
    ] {
        columns.iter().for_each(|column| add(file, column.name, column.unit, column.meaning));
    }
    for name in varied(plan) {
        let parts: Vec<_> = name.rsplit('_').take(1).collect();
        let unit = match parts[0] {
            "bytes" | "us" | "ns" | "s" => parts[0],
            "gbps" => "10^9 bit/s",
            _ => "",
        };
        add("all", &name, unit, "parameter of the measurement");
    }
    table
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::figures::Figures;
    use super::super::file::File;
    use super::super::plan::VERSION;
    use super::super::search::{Least, Measurement, Role};
    use super::*;

    /// A search at 12 and at 20 Gbps with three seeds; the last point has no result.
    pub(in super::super) fn plan() -> Plan {
        let text = "
            name = 'link_util'
            title = 'Memory, and load'
            measure = 'buffer-search'
            seeds = [1, 2, 3]
            [fixed]
            workload = 'w5'
            [[vary]]
            parameter = 'gbps'
            values = [12, 20]
        ";
        Plan::new(File::parse(text).unwrap(), &[]).unwrap()
    }

    pub(in super::super) fn measured(plan: &Plan) -> Vec<Measured<'_>> {
        let result = |(index, point): (usize, &'_ Point)| {
            let slowdown = point.spec.sim.gbps.unwrap() / 4.0 + point.spec.sim.seed as f64;
            let figures = Figures { slowdown_mean: Some(slowdown), rpcs: 100, ..Figures::default() };
            let all = [Role::Base, Role::Probe].map(|role| Measurement { role, figures: figures.clone() });
            let least = Some(Least { bytes: 1e5 * point.spec.sim.gbps.unwrap(), us: 8.0 });
            let result = PointResult {
                version: VERSION,
                id: point.id.clone(),
                slowdown: "as a test".into(),
                measurements: all.to_vec(),
                least,
                ..PointResult::default()
            };
            (index < 5).then_some(result)
        };
        plan.points.iter().enumerate().map(|(index, point)| (point, result((index, point)))).collect()
    }

    #[test]
    fn results_have_a_row_a_measurement_with_its_parameters() {
        let plan = plan();
        let table = results(&plan, &measured(&plan));
        assert_eq!(table.rows.len(), 10, "two for each of five points");
        let at = |row: usize, name: &str| table.rows[row][table.names.iter().position(|n| n == name).unwrap()].clone();
        assert_eq!((at(0, "gbps"), at(0, "seed"), at(9, "gbps")), (12.0.into(), 1.into(), 20.0.into()));
        assert_eq!((at(0, "role"), at(1, "role")), ("base".into(), "probe".into()));
        assert_eq!((at(0, "buffer_min_bytes"), at(1, "buffer_min_bytes")), (1.2e6.into(), Value::Null));
        let csv = table.csv();
        assert!(
            csv.starts_with("experiment,point,protocol,workload,nodes,seed,gbps,role,buffer_limit_bytes,"),
            "{csv}"
        );
        assert!(table.rows.iter().all(|row| row.len() == table.names.len()));
    }

    #[test]
    fn summaries_have_intervals_over_seeds() {
        let plan = plan();
        let table = summary(&plan, &measured(&plan));
        assert!(table.rows.iter().all(|row| row.len() == table.names.len()));
        let metric = table.names.iter().position(|name| name == "metric").unwrap();
        let row = table.rows.iter().find(|row| row[metric] == "slowdown_mean").unwrap();
        // 4, 5 and 6: mean 5, half an interval 4.303 / sqrt(3).
        assert_eq!((row[metric + 2].clone(), row[metric + 3].clone()), (3.into(), 5.0.into()));
        assert!((row[metric + 5].as_f64().unwrap() - 7.484).abs() < 1e-3);
        let all = measured(&plan);
        let two = groups(&all).nth(1).unwrap();
        assert_eq!(figure(two, 0, "slowdown_mean").unwrap().count, 2, "of those that were measured");
        assert_eq!(figure(two, 0, "resent_percent"), None);
    }

    #[test]
    fn cells_with_commas_are_quoted() {
        let table = Table { names: vec!["a,b".into()], rows: vec![vec!["x \"y\"".into()], vec![Value::Null]] };
        assert_eq!(table.csv(), "\"a,b\"\n\"x \"\"y\"\"\"\n\n");
    }

    #[test]
    fn every_column_of_every_table_is_explained() {
        let plan = plan();
        let all = measured(&plan);
        let known: Vec<_> = meanings(&plan).rows.iter().map(|row| row[1].clone()).collect();
        for table in [results(&plan, &all), by_length(&plan, &all), summary(&plan, &all)] {
            for name in table.names {
                assert!(known.contains(&name.clone().into()), "{name} is not explained");
            }
        }
    }
}
