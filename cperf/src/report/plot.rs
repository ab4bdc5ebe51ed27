//! Plots, each as SVG and PNG. Source: cperf.md 3.9.

mod cdf;
pub(super) mod slowdown;

use std::path::Path;

use plotters::coord::CoordTranslate;
use plotters::prelude::*;
use tthoma::analyze::plot::{FONT, use_own_font};

use super::digest::{Digest, Short};

/// Width and height, pixels of the SVG.
const SIZE: (u32, u32) = (900, 560);
/// Pixels of the PNG for one of the SVG: letters are placed at whole pixels, so small ones would look uneven.
const PNG_SCALE: u32 = 2;

/// One protocol's curve or curves.
#[derive(Clone, Copy, Debug)]
pub struct Curve<'a> {
    /// `homa`, `tcp`.
    pub protocol: &'a str,
    /// Its samples.
    pub digest: &'a Digest,
    /// What slowdowns are relative to, ns by length.
    pub optimal: &'a super::slowdown::Optimal,
}

/// One protocol's short messages.
#[derive(Clone, Copy, Debug)]
pub struct ShortCurve<'a> {
    /// `homa`, `tcp`.
    pub protocol: &'a str,
    /// Its samples.
    pub short: &'a Short,
}

/// Slowdown against message length: `NAME.svg` and `NAME.png` for `stem` = `DIR/NAME`.
///
/// # Errors
/// The files cannot be written.
pub fn slowdown(stem: &Path, title: &str, definition: &str, curves: &[Curve<'_>]) -> anyhow::Result<()> {
    both(
        stem,
        |root| slowdown::draw(root, 1, title, definition, curves),
        |root| slowdown::draw(root, PNG_SCALE, title, definition, curves),
    )
}

/// Complementary distribution of the short messages' times, files as [`slowdown()`].
///
/// # Errors
/// The files cannot be written.
pub fn short_cdf(stem: &Path, title: &str, curves: &[ShortCurve<'_>]) -> anyhow::Result<()> {
    both(stem, |root| cdf::draw(root, 1, title, curves), |root| cdf::draw(root, PNG_SCALE, title, curves))
}

type Svg<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Png<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

/// Draws into both kinds of file.
fn both(
    stem: &Path,
    svg: impl FnOnce(&Svg<'_>) -> anyhow::Result<()>,
    png: impl FnOnce(&Png<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    use_own_font();
    let root = stem.with_extension("svg");
    let root = SVGBackend::new(&root, SIZE).into_drawing_area();
    svg(&root)?;
    root.present()?;
    drop(root);
    let root = stem.with_extension("png");
    let size = (SIZE.0 * PNG_SCALE, SIZE.1 * PNG_SCALE);
    let root = BitMapBackend::new(&root, size).into_drawing_area();
    png(&root)?;
    Ok(root.present()?)
}

/// Draws the legend of a chart's series at `position`, `scale` times as large as usual.
fn legend<'a, DB: DrawingBackend + 'a, CT: CoordTranslate>(
    chart: &mut ChartContext<'a, DB, CT>,
    position: SeriesLabelPosition,
    scale: u32,
) -> anyhow::Result<()>
where
    DB::ErrorType: 'static,
{
    chart
        .configure_series_labels()
        .position(position)
        .margin(10 * scale)
        .legend_area_size(24 * scale)
        .label_font((FONT, 15 * scale))
        .background_style(WHITE.mix(0.9))
        .border_style(RGBColor(0xbb, 0xbb, 0xbb))
        .draw()?;
    Ok(())
}

/// The line of a series in the legend.
fn key((x, y): (i32, i32), colour: RGBColor, scale: u32) -> PathElement<(i32, i32)> {
    PathElement::new([(x, y), (x + 18 * scale.cast_signed(), y)], colour.stroke_width(3 * scale))
}

/// Dark and light shade of a protocol's colour.
fn shades(protocol: &str) -> (RGBColor, RGBColor) {
    match protocol {
        "homa" => (RGBColor(0x10, 0x3f, 0x91), RGBColor(0x6d, 0xa2, 0xe8)),
        "tcp" => (RGBColor(0x1b, 0x6e, 0x2f), RGBColor(0x7d, 0xc4, 0x82)),
        "dctcp" => (RGBColor(0x7a, 0x4a, 0x12), RGBColor(0xcf, 0xa0, 0x68)),
        _ => (RGBColor(0x50, 0x50, 0x50), RGBColor(0xa0, 0xa0, 0xa0)),
    }
}

/// A protocol's name as people write it.
pub(super) fn label(protocol: &str) -> String {
    match protocol {
        "homa" => "Homa".to_owned(),
        other => other.to_uppercase(),
    }
}

/// A message length as short as it fits under an axis: 512, 1.5K, 150K, 1.0M.
pub(super) fn length_label(bytes: u32) -> String {
    match bytes {
        0..1_000 => bytes.to_string(),
        1_000..99_950 => format!("{:.1}K", f64::from(bytes) / 1e3),
        99_950..999_500 => format!("{:.0}K", f64::from(bytes) / 1e3),
        _ => format!("{:.1}M", f64::from(bytes) / 1e6),
    }
}

/// A value of a logarithmic axis without needless digits.
fn decade_label(value: f64) -> String {
    let places = (-value.log10().floor()).clamp(0.0, 9.0) as usize;
    if value < 1.0 { format!("{value:.places$}") } else { format!("{value:.0}") }
}

/// The next power of ten at or above `value`.
fn decade_above(value: f64) -> f64 {
    10f64.powf(value.max(1e-12).log10().ceil())
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::hundred;
    use super::super::slowdown::Optimal;
    use super::*;

    #[test]
    fn lengths_fit_under_an_axis() {
        let labels = [999, 1000, 1500, 99_949, 99_950, 150_000, 999_499, 999_500, 1_000_000].map(length_label);
        assert_eq!(labels, ["999", "1.0K", "1.5K", "99.9K", "100K", "150K", "999K", "1.0M", "1.0M"]);
    }

    #[test]
    fn decades_have_no_needless_digits() {
        assert_eq!([0.001, 0.1, 1.0, 1000.0].map(decade_label), ["0.001", "0.1", "1", "1000"]);
        assert_eq!((decade_above(999.0), decade_above(1000.0), decade_above(1001.0)), (1000.0, 1000.0, 10_000.0));
    }

    #[test]
    fn both_files_of_both_plots_are_drawn() {
        let dir = std::env::temp_dir().join(format!("cperf-plot-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let measured = hundred();
        let optimal = Optimal::fixed(1.0, 1000.0);
        let curve = |protocol| Curve { protocol, digest: &measured.service, optimal: &optimal };
        slowdown(&dir.join("slowdown"), "w4", "test", &[curve("homa"), curve("tcp")]).unwrap();
        let short = measured.service.short().unwrap();
        short_cdf(&dir.join("cdf"), "w4", &[ShortCurve { protocol: "tcp", short: &short }]).unwrap();
        for name in ["slowdown", "cdf"] {
            let svg = std::fs::read_to_string(dir.join(name).with_extension("svg")).unwrap();
            assert!(svg.contains("TCP P99") || svg.contains(">\nTCP\n<"), "{svg}");
            let png = std::fs::read(dir.join(name).with_extension("png")).unwrap();
            assert!(png.starts_with(b"\x89PNG"));
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
