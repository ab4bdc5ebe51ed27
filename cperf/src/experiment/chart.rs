//! Plots of an experiment as SVG: a figure along a parameter, a curve for each combination of the other parameters, with
//! intervals over seeds, and published figures as crosses.

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use tthoma::analyze::plot::{FONT, use_own_font};

use super::columns;
use super::plan::{CASE, Plan, text};
use super::published::{Comparison, Kind};
use super::tables::{self, Measured, parameter};

const SIZE: (u32, u32) = (820, 460);
/// Values that differ by more than this factor are shown on a logarithmic axis.
const LOG: f64 = 30.0;
/// Above so many points a curve is a line without marks, and a published one a dashed line.
const MANY: usize = 25;
/// Colours that people with most kinds of colour blindness tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(100, 100, 100),
    RGBColor(0, 0, 0),
];

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// Along the x axis.
    pub x: f64,
    /// Mean over seeds.
    pub y: f64,
    /// Its interval, if there are several seeds.
    pub interval: Option<(f64, f64)>,
}

/// A curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Values of the other parameters.
    pub name: String,
    /// In order of x.
    pub marks: Vec<Mark>,
    /// Published figures: x, y.
    pub published: Vec<(f64, f64)>,
}

/// The parameter along the x axis; `None` if no number varies.
pub fn x(plan: &Plan) -> Option<String> {
    if let Some(x) = &plan.file.x {
        return Some(x.clone());
    }
    let names = plan.points.first()?.varied.iter().map(|(name, _)| name.clone());
    let varies = |name: &String| {
        let mut all = plan.points.iter().map(|point| parameter(&point.spec.sim, name));
        let first = all.next();
        first.as_ref().is_some_and(serde_json::Value::is_number) && all.any(|other| Some(&other) != first.as_ref())
    };
    names.rev().find(varies)
}

/// Curves of `metric` along `x`.
pub fn curves(plan: &Plan, measured: &[Measured<'_>], compared: &[Comparison], x: &str, metric: &str) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for group in tables::groups(measured) {
        let point = group[0].0;
        let name = name(plan, point, x);
        for step in 0..tables::steps(plan, group) {
            let Some(all) = tables::figure(group, step, metric) else { continue };
            let at = match x {
                "buffer_limit_percent" if step == 0 => Some(100.0),
                "buffer_limit_percent" => tables::figure(group, step, x).map(|percent| percent.mean),
                _ => parameter(&point.spec.sim, x).as_f64(),
            };
            let Some(at) = at else { continue };
            let index = curves.iter().position(|curve| curve.name == name).unwrap_or_else(|| {
                curves.push(Curve { name: name.clone(), marks: Vec::new(), published: Vec::new() });
                curves.len() - 1
            });
            curves[index].marks.push(Mark { x: at, y: all.mean, interval: all.interval });
            if step == 0 {
                let said = compared.iter().filter(|one| {
                    one.statement.kind == Kind::Value && one.statement.metric == metric && one.statement.is_about(point)
                });
                curves[index].published.extend(said.filter_map(|one| Some((at, one.statement.figure?))));
            }
        }
    }
    for curve in &mut curves {
        curve.marks.sort_by(|a, b| a.x.total_cmp(&b.x));
    }
    curves
}

/// What tells a curve from the others.
pub(super) fn name(plan: &Plan, point: &super::plan::Point, x: &str) -> String {
    let several = |name: &str| {
        let first = plan.points.first().map(|point| tables::value(point, name));
        plan.points.iter().any(|point| Some(tables::value(point, name)) != first)
    };
    let named = |(name, value): &(String, serde_json::Value)| match name.as_str() {
        "protocol" | "workload" | CASE => text(value),
        _ => format!("{name} {}", text(value)),
    };
    // A window that follows the unscheduled bytes tells nothing.
    let tells = |name: &str| name != x && !(x == "homa.unsched_bytes" && name == "homa.window") && several(name);
    let words: Vec<_> = point.varied.iter().filter(|(name, _)| tells(name)).map(named).collect();
    if words.is_empty() { point.spec.sim.protocol.name().to_owned() } else { words.join(", ") }
}

/// Draws the curves; `None` if none has two points.
///
/// # Errors
/// Nothing can be drawn.
pub fn svg(x: &str, metric: &str, curves: &[Curve]) -> anyhow::Result<Option<String>> {
    if curves.iter().all(|curve| curve.marks.len() < 2) {
        return Ok(None);
    }
    use_own_font();
    let (xs, ys) = (range(xs(curves)), range(ys(curves)));
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let labels = [label(x), label(metric)];
        match (is_log(&xs), is_log(&ys)) {
            (false, false) => draw(&root, 0f64..xs.1 * 1.05, 0f64..ys.1 * 1.08, &labels, curves)?,
            (false, true) => draw(&root, 0f64..xs.1 * 1.05, (ys.0 / 1.5..ys.1 * 1.5).log_scale(), &labels, curves)?,
            (true, false) => draw(&root, (xs.0 / 1.2..xs.1 * 1.2).log_scale(), 0f64..ys.1 * 1.08, &labels, curves)?,
            (true, true) => {
                let (x, y) = ((xs.0 / 1.2..xs.1 * 1.2).log_scale(), (ys.0 / 1.5..ys.1 * 1.5).log_scale());
                draw(&root, x, y, &labels, curves)?;
            }
        }
        root.present()?;
    }
    Ok(Some(svg))
}

fn draw<'a, X, Y>(
    root: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    x: X,
    y: Y,
    labels: &[String; 2],
    curves: &[Curve],
) -> anyhow::Result<()>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(root)
        .margin(12)
        .margin_right(24)
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(&labels[0])
        .y_desc(&labels[1])
        .x_label_formatter(&|x| short(*x))
        .y_label_formatter(&|y| short(*y))
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .light_line_style(RGBColor(0xf2, 0xf2, 0xf2))
        .bold_line_style(RGBColor(0xdd, 0xdd, 0xdd))
        .draw()?;
    for (index, curve) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let line: Vec<_> = curve.marks.iter().map(|mark| (mark.x, mark.y)).collect();
        chart
            .draw_series(LineSeries::new(line.clone(), colour.stroke_width(2)))?
            .label(curve.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        if line.len() <= MANY {
            chart.draw_series(line.iter().map(|at| Circle::new(*at, 3, colour.filled())))?;
        }
        let intervals = curve.marks.iter().filter_map(|mark| Some((mark.x, mark.interval?)));
        chart.draw_series(intervals.map(|(x, (low, high))| {
            PathElement::new([(x, low.max(f64::MIN_POSITIVE)), (x, high)], colour.stroke_width(1))
        }))?;
        if curve.published.len() <= MANY {
            chart.draw_series(curve.published.iter().map(|at| Cross::new(*at, 6, colour.stroke_width(2))))?;
        } else {
            chart.draw_series(DashedLineSeries::new(curve.published.clone(), 2, 3, colour.stroke_width(1)))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .margin(8)
        .label_font((FONT, 13))
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(0xbb, 0xbb, 0xbb))
        .draw()?;
    Ok(())
}

fn xs(curves: &[Curve]) -> Vec<f64> {
    curves.iter().flat_map(|curve| curve.marks.iter().map(|mark| mark.x)).collect()
}

fn ys(curves: &[Curve]) -> Vec<f64> {
    let marks = curves.iter().flat_map(|curve| curve.marks.iter().map(|mark| mark.y));
    marks.chain(curves.iter().flat_map(|curve| curve.published.iter().map(|(_, y)| *y))).collect()
}

/// The least and the largest.
fn range(values: Vec<f64>) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (least, if most > 0.0 { most } else { 1.0 })
}

fn is_log((least, most): &(f64, f64)) -> bool {
    *least > 0.0 && most / least > LOG
}

fn label(name: &str) -> String {
    match columns::unit(name) {
        "" => name.to_owned(),
        unit => format!("{name} ({unit})"),
    }
}

/// A number as short as an axis needs it.
fn short(value: f64) -> String {
    let digits = |value: f64| format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned();
    match value.abs() {
        size if size >= 1e9 => digits(value / 1e9) + "G",
        size if size >= 1e6 => digits(value / 1e6) + "M",
        size if size >= 1e4 => digits(value / 1e3) + "K",
        _ => digits(value),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::tests::{measured, plan};
    use super::*;

    #[test]
    fn a_curve_has_a_point_for_each_value_with_its_interval() {
        let plan = plan();
        assert_eq!(x(&plan).as_deref(), Some("gbps"));
        let curves = curves(&plan, &measured(&plan), &[], "gbps", "slowdown_mean");
        assert_eq!(curves.len(), 1);
        let marks: Vec<_> = curves[0].marks.iter().map(|mark| (mark.x, mark.y)).collect();
        assert_eq!(marks, [(12.0, 5.0), (20.0, 6.5)]);
        assert!(curves[0].marks[0].interval.is_some());
        let svg = svg("gbps", "slowdown_mean", &curves).unwrap().unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("slowdown_mean"), "{svg}");
    }

    #[test]
    fn one_point_is_no_curve() {
        let mark = Mark { x: 1.0, y: 1.0, interval: None };
        let curve = Curve { name: "homa".into(), marks: vec![mark], published: Vec::new() };
        assert_eq!(svg("nodes", "rpcs", &[curve]).unwrap(), None);
    }

    #[test]
    fn numbers_on_axes_are_short() {
        assert_eq!([short(13_200_000.0), short(50_000.0), short(0.25), short(200.0)], ["13.2M", "50K", "0.25", "200"]);
    }
}
