//! Complementary distribution of round-trip times on two logarithmic axes: the tail is what matters.

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::super::cdf::{Point, complementary};
use super::{FONT, ShortCurve, decade_above, decade_label, key, label, legend, shades};

/// Draws one chart, everything `scale` times as large as usual.
pub(super) fn draw<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    scale: u32,
    title: &str,
    curves: &[ShortCurve<'_>],
) -> anyhow::Result<()>
where
    DB::ErrorType: 'static,
{
    root.fill(&WHITE)?;
    let points: Vec<_> = curves.iter().map(|curve| (curve.protocol, complementary(curve.short.times_ns()))).collect();
    let (left, right, bottom) = ranges(&points);
    let mut chart = ChartBuilder::on(root)
        .caption(title, (FONT, 20 * scale))
        .margin(12 * scale)
        .margin_right(28 * scale)
        .x_label_area_size(50 * scale)
        .y_label_area_size(80 * scale)
        .build_cartesian_2d((left..right).log_scale(), (bottom..1f64).log_scale())?;
    chart
        .configure_mesh()
        .x_label_formatter(&|x| decade_label(*x))
        .y_label_formatter(&|y| decade_label(*y))
        .x_desc("round-trip time, us")
        .y_desc("fraction of messages that took longer")
        .label_style((FONT, 14 * scale))
        .axis_desc_style((FONT, 15 * scale))
        .light_line_style(RGBColor(0xee, 0xee, 0xee))
        .bold_line_style(RGBColor(0xcc, 0xcc, 0xcc))
        .draw()?;
    let red = RGBColor(0xc6, 0x28, 0x28);
    for (fraction, name) in [(0.5, "P50"), (0.01, "P99")].into_iter().filter(|(fraction, _)| *fraction > bottom) {
        let ends = [(left, fraction), (right, fraction)];
        chart.draw_series([DashedPathElement::new(ends, 5 * scale, 4 * scale, red.stroke_width(scale))])?;
        let style =
            TextStyle::from((FONT, 14 * scale).into_font()).color(&red).pos(Pos::new(HPos::Right, VPos::Bottom));
        chart.draw_series([Text::new(name, (right, fraction), style)])?;
    }
    for (protocol, points) in points {
        let (dark, _) = shades(protocol);
        chart
            .draw_series(LineSeries::new(steps(&points), dark.stroke_width(2 * scale)))?
            .label(label(protocol))
            .legend(move |at| key(at, dark, scale));
    }
    legend(&mut chart, SeriesLabelPosition::LowerLeft, scale)
}

/// Whole decades around all points: left, right (µs) and lowest fraction.
fn ranges(points: &[(&str, Vec<Point>)]) -> (f64, f64, f64) {
    let all = || points.iter().flat_map(|(_, points)| points);
    let least = all().map(|point| point.usecs).fold(f64::INFINITY, f64::min).clamp(0.01, 1e6);
    let most = all().map(|point| point.usecs).fold(least * 1.01, f64::max);
    let bottom = all().map(|point| point.fraction).fold(0.1, f64::min);
    (decade_above(least) / 10.0, decade_above(most), decade_above(bottom) / 10.0)
}

/// The distribution falls from 1 at its first time, and holds its value until the next.
fn steps(points: &[Point]) -> Vec<(f64, f64)> {
    let mut line = Vec::with_capacity(points.len() * 2);
    let mut fraction = 1.0;
    for point in points {
        line.extend([(point.usecs, fraction), (point.usecs, point.fraction)]);
        fraction = point.fraction;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_whole_decades_and_never_empty() {
        let point = |usecs, fraction| Point { usecs, fraction };
        let wide = vec![("tcp", vec![point(35.0, 0.9), point(2300.0, 0.004)])];
        let (left, right, bottom) = ranges(&wide);
        assert!((left - 10.0).abs() < 1e-9 && (right - 10_000.0).abs() < 1e-6 && (bottom - 0.001).abs() < 1e-12);
        let (left, right, bottom) = ranges(&[("tcp", vec![point(10.0, 0.5)])]);
        assert!(left < right && bottom < 0.5, "{left} {right} {bottom}");
    }

    #[test]
    fn steps_hold_until_the_next_time() {
        let line = steps(&[Point { usecs: 1.0, fraction: 0.5 }, Point { usecs: 4.0, fraction: 0.25 }]);
        assert_eq!(line, [(1.0, 1.0), (1.0, 0.5), (4.0, 0.5), (4.0, 0.25)]);
    }
}
