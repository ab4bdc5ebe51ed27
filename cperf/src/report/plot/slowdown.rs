//! Slowdown against message length. The x axis is linear in the number of messages, not in their length, so that each
//! length gets the width of its share.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::super::digest::cuts;
use super::super::slowdown::of_group;
use super::{Curve, FONT, decade_above, decade_label, key, label, legend, length_label, shades};

/// Points of a curve: share of the messages, slowdown.
pub(in super::super) type Line = Vec<(f64, f64)>;

/// Messages that a step should have: the P99 of fewer is their slowest.
const STEP: usize = 100;
/// More steps than this are too narrow to see.
const MOST_STEPS: usize = 100;

/// Draws one chart, everything `scale` times as large as usual. P99 in the dark shade, P50 in the light one.
pub(super) fn draw<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    scale: u32,
    title: &str,
    definition: &str,
    curves: &[Curve<'_>],
) -> anyhow::Result<()>
where
    DB::ErrorType: 'static,
{
    root.fill(&WHITE)?;
    let ends = step_ends(curves);
    let steps: Vec<_> = curves.iter().map(|curve| (curve.protocol, steps(curve, &ends))).collect();
    let values = || steps.iter().flat_map(|(_, (p50, p99))| p50.iter().chain(p99)).map(|&(_, y)| y);
    let top = decade_above(values().fold(1000.0, f64::max));
    let bottom = values().fold(1.0, f64::min).max(0.01); // a time below the unloaded median is possible
    let bottom = if bottom < 1.0 { 10f64.powf(bottom.log10().floor()) } else { 1.0 };
    let mut chart = ChartBuilder::on(root)
        .margin(12 * scale)
        .margin_top(78 * scale)
        .margin_right(28 * scale)
        .x_label_area_size(58 * scale)
        .y_label_area_size(62 * scale)
        .build_cartesian_2d(0f64..1f64, (bottom..top).log_scale())?;
    let lengths = lengths_at_tenths(curves);
    chart
        .configure_mesh()
        .x_labels(11)
        .x_label_formatter(&|x| tenth_label(&lengths, *x))
        .y_label_formatter(&|y| decade_label(*y))
        .x_desc("message length, bytes (linear in the number of messages, percent above)")
        .y_desc("slowdown")
        .label_style((FONT, 14 * scale))
        .axis_desc_style((FONT, 15 * scale))
        .light_line_style(RGBColor(0xee, 0xee, 0xee))
        .bold_line_style(RGBColor(0xcc, 0xcc, 0xcc))
        .draw()?;
    for (protocol, (p50, p99)) in steps {
        let (dark, light) = shades(protocol);
        for (name, points, colour) in [("P99", p99, dark), ("P50", p50, light)] {
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2 * scale)))?
                .label(format!("{} {name}", label(protocol)))
                .legend(move |at| key(at, colour, scale));
        }
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight, scale)?;
    above(root, scale, chart.plotting_area().get_pixel_range(), title, definition)
}

/// Heading, and shares of the messages along the upper edge of the plot, whose pixels are `plot`.
fn above<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    scale: u32,
    plot: (Range<i32>, Range<i32>),
    title: &str,
    definition: &str,
) -> anyhow::Result<()>
where
    DB::ErrorType: 'static,
{
    let step = scale.cast_signed();
    let (x, y) = plot;
    let middle = (x.start + x.end) / 2;
    let heading = TextStyle::from((FONT, 20 * scale).into_font()).pos(Pos::new(HPos::Center, VPos::Top));
    root.draw(&Text::new(title.to_owned(), (middle, 10 * step), heading))?;
    let style = TextStyle::from((FONT, 13 * scale).into_font()).color(&RGBColor(0x55, 0x55, 0x55));
    let style = style.pos(Pos::new(HPos::Center, VPos::Bottom));
    // Pixel ranges are those of the whole picture, `draw` wants them relative to `root`: the same here.
    root.draw(&Text::new(
        format!("slowdown {definition}; steps of about {STEP} messages or more"),
        (middle, y.start - 24 * step),
        style.clone(),
    ))?;
    for tenth in 0..=10 {
        let at = x.start + (x.end - x.start) * tenth / 10;
        root.draw(&Text::new(format!("{} %", tenth * 10), (at, y.start - 4 * step), style.clone()))?;
    }
    Ok(())
}

/// Lengths at which the steps of all curves end: neighbouring lengths share a step until it has about [`STEP`] messages.
pub(in super::super) fn step_ends(curves: &[Curve<'_>]) -> Vec<u32> {
    let digests: Vec<_> = curves.iter().map(|curve| curve.digest).collect();
    let fewest = digests.iter().map(|digest| digest.samples).min().unwrap_or(0);
    cuts(&digests, (fewest / STEP).clamp(1, MOST_STEPS))
}

/// The P50 and P99 slowdowns as steps, which are as wide as their share of the messages.
pub(in super::super) fn steps(curve: &Curve<'_>, ends: &[u32]) -> (Line, Line) {
    let (mut p50, mut p99) = (Line::new(), Line::new());
    let mut from = 0.0;
    for group in curve.digest.groups(ends) {
        let (median, tail) = of_group(&group, curve.optimal);
        for (points, slowdown) in [(&mut p50, median), (&mut p99, tail)] {
            points.extend([(from, slowdown), (group.cum_fraction, slowdown)]);
        }
        from = group.cum_fraction;
    }
    (p50, p99)
}

/// Message length at 0 %, 10 % … 100 % of the messages of the first curve; all curves have the same workload.
pub(in super::super) fn lengths_at_tenths(curves: &[Curve<'_>]) -> Vec<u32> {
    let Some(digest) = curves.iter().map(|curve| curve.digest).max_by_key(|digest| digest.samples) else {
        return Vec::new();
    };
    let tenths = (0..=10).filter_map(|tenth| {
        let mut seen = 0;
        digest.buckets.iter().find_map(|bucket| {
            seen += bucket.len();
            (seen * 10 > tenth * digest.samples || seen == digest.samples).then_some(bucket.length)
        })
    });
    tenths.collect()
}

/// Label of a mark on the x axis.
fn tenth_label(lengths: &[u32], x: f64) -> String {
    lengths.get((x * 10.0).round() as usize).map(|&length| length_label(length)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::super::digest::Collector;
    use super::super::super::rtts::Sample;
    use super::super::super::slowdown::Optimal;
    use super::*;

    #[test]
    fn steps_are_as_wide_as_the_share_of_their_length() {
        let mut collector = Collector::default();
        for (length, rtt_ns) in [(100, 1000), (200, 2000), (200, 2000), (200, 4000)] {
            collector.add(Sample { length, rtt_ns });
        }
        let (digest, optimal) = (collector.finish(), Optimal::fixed(1.0, f64::INFINITY));
        let curve = Curve { protocol: "homa", digest: &digest, optimal: &optimal };
        let (p50, p99) = steps(&curve, &[100, 200]);
        assert_eq!(p50, [(0.0, 1.0), (0.25, 1.0), (0.25, 2.0), (1.0, 2.0)]);
        assert_eq!(p99[3], (1.0, 4.0));
        assert_eq!(step_ends(&[curve]), [200], "four messages are one step");
        let lengths = lengths_at_tenths(&[curve]);
        assert_eq!(lengths, [100, 100, 100, 200, 200, 200, 200, 200, 200, 200, 200]);
        assert_eq!(tenth_label(&lengths, 0.2999), "200");
        assert_eq!(tenth_label(&[], 0.5), "");
    }
}
