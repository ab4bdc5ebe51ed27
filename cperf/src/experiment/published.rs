//! Published figures beside ours: values, ratios and trends, each with its source. They stand in `data/published.csv`.

use serde_json::Value;

use super::plan::{Plan, Point};
use super::point::PointResult;
use super::statistics::{self, Summary};
use super::tables::{self, Measured, parameter};

/// What was published.
const DATA: &str = include_str!("../../data/published.csv");
/// A step of a trend that is smaller, relative to what it starts from, is none.
const FLAT: f64 = 0.05;

/// What kind of statement it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A figure of some points.
    Value,
    /// A figure of some points over that of others.
    Ratio,
    /// A figure grows with a parameter.
    Rises,
    /// It falls.
    Falls,
    /// It hardly changes.
    Flat,
}

/// A published statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// Where it was published.
    pub source: &'static str,
    /// Parameters of the points that it is about.
    select: Vec<(&'static str, &'static str)>,
    /// Of a ratio: parameters in which the points below the line differ.
    over: Vec<(&'static str, &'static str)>,
    /// Of a trend: the parameter that changes.
    along: &'static str,
    /// The figure; `NAME@LENGTH` is that of messages of a length.
    pub metric: &'static str,
    /// What was published, if it is a number.
    pub figure: Option<f64>,
    /// What counts as reproduced, if that is stated.
    pub range: Option<(f64, f64)>,
    /// Value, ratio or trend.
    pub kind: Kind,
    /// In words.
    pub text: &'static str,
}

/// A statement and what we have measured about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The statement.
    pub statement: Statement,
    /// Which points of ours, if the statement is about several.
    pub about: String,
    /// Our value or ratio, over seeds.
    pub ours: Option<Summary>,
    /// Our values along the parameter of a trend.
    pub series: Vec<(f64, f64)>,
    /// Whether ours agrees, where the statement says what agrees.
    pub agrees: Option<bool>,
}

/// Statements about the experiment of this name.
///
/// # Panics
/// If the embedded file is damaged; a test reads it.
pub fn statements(experiment: &str) -> Vec<Statement> {
    let rows = DATA.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
    rows.filter(|row| row[0] == experiment).map(|row| statement(&row)).collect()
}

/// What was published of a figure of the points with just these parameters, in that experiment.
pub fn value_of(experiment: &str, metric: &str, about: &[(&str, &str)]) -> Option<f64> {
    let mut all = statements(experiment).into_iter();
    let found = all.find(|one| one.kind == Kind::Value && one.metric == metric && one.select == about)?;
    found.figure
}

fn statement(row: &[&'static str]) -> Statement {
    let number = |text: &str| (!text.is_empty()).then(|| text.parse().expect("embedded data: a number"));
    let pairs = |text: &'static str| {
        let pairs = text.split(';').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').expect("embedded data: NAME=VALUE")).collect()
    };
    Statement {
        source: row[1],
        select: pairs(row[2]),
        over: pairs(row[3]),
        along: row[4],
        metric: row[5],
        figure: number(row[6]),
        range: number(row[7]).zip(number(row[8])),
        kind: match row[9] {
            "value" => Kind::Value,
            "ratio" => Kind::Ratio,
            "rises" => Kind::Rises,
            "falls" => Kind::Falls,
            "flat" => Kind::Flat,
            other => unreachable!("embedded data: kind {other}"),
        },
        text: row[10],
    }
}

/// Each statement about the plan with what was measured.
pub fn compare(plan: &Plan, measured: &[Measured<'_>]) -> Vec<Comparison> {
    let statements = statements(plan.file.published());
    statements.into_iter().flat_map(|statement| of_statement(plan, measured, &statement)).collect()
}

type Group<'a, 'b> = &'b [Measured<'a>];

fn of_statement(plan: &Plan, measured: &[Measured<'_>], statement: &Statement) -> Vec<Comparison> {
    let all: Vec<_> = tables::groups(measured).collect();
    let chosen: Vec<_> = all.iter().copied().filter(|group| matches(group, &statement.select)).collect();
    let compared = |about: String, ours: Option<Summary>, series: Vec<(f64, f64)>| Comparison {
        statement: statement.clone(),
        about,
        agrees: agrees(statement, ours.as_ref(), &series),
        ours,
        series,
    };
    match statement.kind {
        Kind::Value => chosen
            .iter()
            .map(|group| {
                compared(others(plan, group, statement), statistics::summary(&values(group, statement.metric)), vec![])
            })
            .collect(),
        Kind::Ratio => chosen
            .iter()
            .filter_map(|group| {
                let below = all.iter().copied().find(|other| partner(group, other, &statement.over))?;
                // Seed by seed: both had the same messages.
                let ratios = group.iter().filter_map(|above| {
                    let seed = above.0.spec.sim.seed;
                    let below = below.iter().find(|below| below.0.spec.sim.seed == seed)?;
                    let ratio =
                        value(above.1.as_ref()?, statement.metric)? / value(below.1.as_ref()?, statement.metric)?;
                    ratio.is_finite().then_some(ratio)
                });
                let ratios: Vec<_> = ratios.collect();
                Some(compared(others(plan, group, statement), statistics::summary(&ratios), vec![]))
            })
            .collect(),
        Kind::Rises | Kind::Falls | Kind::Flat => {
            let mut kinds: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
            for group in chosen {
                let at = parameter(&group[0].0.spec.sim, statement.along).as_f64();
                let mean = statistics::summary(&values(group, statement.metric)).map(|all| all.mean);
                let Some(point) = at.zip(mean) else { continue };
                let about = others(plan, group, statement);
                match kinds.iter_mut().find(|(name, _)| *name == about) {
                    Some((_, series)) => series.push(point),
                    None => kinds.push((about, vec![point])),
                }
            }
            kinds.into_iter().map(|(about, series)| compared(about, None, series)).collect()
        }
    }
}

/// Whether all points of a group have these parameters.
fn matches(group: Group<'_, '_>, select: &[(&str, &str)]) -> bool {
    select.iter().all(|(name, want)| equal(&parameter(&group[0].0.spec.sim, name), want))
}

fn equal(value: &Value, text: &str) -> bool {
    match (value.as_f64(), text.parse::<f64>()) {
        (Some(a), Ok(b)) => (a - b).abs() <= 1e-9 * b.abs(),
        _ => super::plan::text(value) == text,
    }
}

/// Whether `other` differs from `group` in the parameters `over`, has these, and is else the same.
fn partner(group: Group<'_, '_>, other: Group<'_, '_>, over: &[(&str, &str)]) -> bool {
    let varied = &group[0].0.varied;
    let same = |(name, value): &(String, Value)| {
        over.iter().any(|(differs, _)| differs == name)
            // Windows that follow the unscheduled bytes change with them.
            || (name == "homa.window" && over.iter().any(|(differs, _)| *differs == "homa.unsched_bytes"))
            || parameter(&other[0].0.spec.sim, name) == parameter(&group[0].0.spec.sim, name)
            || value.is_null()
    };
    matches(other, over) && varied.iter().all(same)
}

/// What varies besides what the statement says.
fn others(plan: &Plan, group: Group<'_, '_>, statement: &Statement) -> String {
    let said = |name: &str| {
        statement.along == name || statement.select.iter().chain(&statement.over).any(|(known, _)| *known == name)
    };
    let several = |name: &str| {
        let first = plan.points.first().map(|point| parameter(&point.spec.sim, name));
        plan.points.iter().any(|point| Some(parameter(&point.spec.sim, name)) != first)
    };
    let varied = group[0].0.varied.iter().filter(|(name, _)| !said(name) && several(name));
    varied.map(|(name, value)| format!("{name} {}", super::plan::text(value))).collect::<Vec<_>>().join(", ")
}

/// A figure of each seed of a group.
fn values(group: Group<'_, '_>, metric: &str) -> Vec<f64> {
    group.iter().filter_map(|(_, result)| value(result.as_ref()?, metric)).collect()
}

/// A figure of a point: of its base, of a search, of a length, or the knee of its steps.
fn value(result: &PointResult, metric: &str) -> Option<f64> {
    if let Some((name, length)) = metric.split_once('@') {
        let length: u32 = length.parse().ok()?;
        let tenth = result.tenths.iter().find(|tenth| tenth.length_bytes == length)?;
        return serde_json::to_value(tenth).ok()?.get(name)?.as_f64();
    }
    let base = &result.measurements.first()?.figures;
    match metric {
        "buffer_min_bytes" => result.least.map(|least| least.bytes),
        "buffer_min_us" => result.least.map(|least| least.us),
        "knee_percent" => knee(result),
        "knee_bytes" => Some(knee(result)? / 100.0 * base.buffer_max_bytes? as f64),
        name => base.number(name),
    }
}

/// Percent of what was used without a limit, down to which the mean slowdown was at most 10 % worse.
fn knee(result: &PointResult) -> Option<f64> {
    let base = result.measurements.first()?.figures.slowdown_mean?;
    let good = |figures: &super::figures::Figures| figures.slowdown_mean.is_some_and(|mean| mean <= 1.1 * base);
    let steps = result.measurements[1..].iter().map(|step| &step.figures).take_while(|figures| good(figures));
    Some(steps.filter_map(|figures| figures.buffer_limit_percent).last().unwrap_or(100.0))
}

fn agrees(statement: &Statement, ours: Option<&Summary>, series: &[(f64, f64)]) -> Option<bool> {
    if let Some((least, most)) = statement.range {
        return ours.map(|ours| (least..=most).contains(&ours.mean));
    }
    let mut series = series.to_vec();
    series.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (first, last) = (series.first()?.1, series.last()?.1);
    let steps = || series.windows(2).map(|pair| (pair[1].1 - pair[0].1) / pair[0].1.abs().max(1e-12));
    let most = series.iter().map(|(_, y)| *y).fold(f64::MIN, f64::max);
    let least = series.iter().map(|(_, y)| *y).fold(f64::MAX, f64::min);
    match statement.kind {
        _ if series.len() < 2 => None,
        Kind::Rises => Some(last > first * (1.0 + FLAT) && steps().all(|step| step > -FLAT)),
        Kind::Falls => Some(last < first * (1.0 - FLAT) && steps().all(|step| step < FLAT)),
        Kind::Flat => Some(most <= least * 1.2),
        Kind::Value | Kind::Ratio => None,
    }
}

impl Statement {
    /// Whether it is about the point.
    pub fn is_about(&self, point: &Point) -> bool {
        self.select.iter().all(|(name, want)| equal(&parameter(&point.spec.sim, name), want))
    }
}

impl Comparison {
    /// How far ours is from what was published, percent.
    pub fn deviation_percent(&self) -> Option<f64> {
        Some(100.0 * (self.ours?.mean / self.statement.figure? - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::tables::tests::{measured, plan};
    use crate::experiment::{bundled, columns, file::File};

    #[test]
    fn every_statement_is_about_an_experiment_and_a_figure_that_exist() {
        let mut count = 0;
        for name in bundled::names() {
            let file = File::parse(&bundled::find(&name).unwrap()).unwrap();
            let plan = Plan::on(file.testbeds[0], file, &[]).unwrap();
            for statement in statements(&name) {
                count += 1;
                let metric = statement.metric.split('@').next().unwrap();
                let known = columns::TENTHS.iter().any(|column| column.name == metric) || metric.starts_with("knee_");
                assert!(known || columns::metric(metric).is_ok(), "{metric}");
                let none: Vec<_> = plan.points.iter().map(|point| (point, None)).collect();
                let chosen = tables::groups(&none).filter(|group| matches(group, &statement.select)).count();
                assert!(chosen > 0, "{name}: no point for `{}`", statement.text);
                if statement.kind == Kind::Ratio {
                    assert!(!compare(&plan, &none).is_empty(), "{name}: nothing to divide by for `{}`", statement.text);
                }
            }
        }
        assert_eq!(count, DATA.lines().count() - 1, "statements about experiments that there are not");
    }

    #[test]
    fn ratios_are_seed_by_seed_of_points_that_are_else_the_same() {
        let plan = plan();
        let all = measured(&plan);
        let compared = compare(&plan, &all);
        let homa = compared.iter().find(|one| one.statement.text.contains("that homa needs")).unwrap();
        let ours = homa.ours.unwrap();
        // 12 over 20 Gbps: 1.2 MB over 2 MB, two seeds of the latter.
        assert_eq!((ours.count, ours.mean), (2, 0.6));
        assert!((homa.deviation_percent().unwrap() - 140.0).abs() < 1e-9);
        assert!(compared.iter().all(|one| !one.statement.text.contains("dctcp needs")), "not measured, not shown");
    }

    #[test]
    fn trends_are_judged_by_every_step() {
        let mut statement = statements("nodes").remove(0);
        let judge = |statement: &Statement, ys: &[f64]| {
            let series: Vec<_> = ys.iter().enumerate().map(|(x, y)| (x as f64, *y)).collect();
            agrees(statement, None, &series)
        };
        assert_eq!(judge(&statement, &[1.0, 1.2, 1.19, 1.5]), Some(true), "a small step down is none");
        assert_eq!(judge(&statement, &[1.0, 1.5, 1.2, 1.6]), Some(false));
        assert_eq!(judge(&statement, &[1.0]), None);
        statement.kind = Kind::Falls;
        assert_eq!(judge(&statement, &[2.0, 1.5, 1.2]), Some(true));
        statement.kind = Kind::Flat;
        assert_eq!((judge(&statement, &[2.0, 2.1]), judge(&statement, &[2.0, 3.0])), (Some(true), Some(false)));
    }
}
