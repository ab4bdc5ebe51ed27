//! Plots of analyses: what is drawn, and how.

use std::path::Path;
use std::sync::Once;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::FontStyle;

/// How points are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A dot each.
    Points,
    /// Joined by lines.
    Lines,
    /// A value holds until the next.
    Steps,
}

/// A plot, written to `NAME.svg`.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// Name of the file without `.svg`.
    pub name: String,
    /// Line above it.
    pub title: String,
    /// What is to the right, with its unit.
    pub x: &'static str,
    /// What is upwards, with its unit.
    pub y: &'static str,
    /// The upward axis is logarithmic; points that are not above 0 are left out.
    pub log: bool,
    /// How points are drawn.
    pub mark: Mark,
    /// Curves: name and points.
    pub curves: Vec<(String, Vec<(f64, f64)>)>,
}

/// Name of the built-in font, once [`use_own_font`] was called.
pub const FONT: &str = "sans-serif";
const SIZE: (u32, u32) = (900, 560);
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x10, 0x3f, 0x91),
    RGBColor(0xc2, 0x4f, 0x1d),
    RGBColor(0x1b, 0x6e, 0x2f),
    RGBColor(0x8a, 0x2c, 0x7d),
    RGBColor(0x7a, 0x6a, 0x12),
    RGBColor(0x50, 0x50, 0x50),
];

impl Plot {
    /// Draws it to `NAME.svg` in `dir`.
    ///
    /// # Errors
    ///
    /// If the file can't be written.
    pub fn draw(&self, dir: &Path) -> std::io::Result<()> {
        let path = dir.join(format!("{}.svg", self.name));
        let svg = self.to_svg().map_err(|error| std::io::Error::other(format!("{}: {error}", path.display())))?;
        std::fs::write(path, svg)
    }

    /// It as the text of an SVG file.
    ///
    /// # Errors
    ///
    /// What can't be drawn, in words.
    pub fn to_svg(&self) -> Result<String, String> {
        use_own_font();
        let mut svg = String::new();
        self.svg(&mut svg).map_err(|error| error.to_string())?;
        Ok(svg)
    }

    /// It with at most `most` points a curve: of neighbours the highest, so that no peak is lost; of dots, some.
    pub fn thinned(&self, most: usize) -> Self {
        let thin = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
            let step = points.len().div_ceil(most.max(1)).max(1);
            match self.mark {
                Mark::Points => points.iter().copied().step_by(step).collect(),
                Mark::Lines | Mark::Steps => points
                    .chunks(step)
                    .filter_map(|some| some.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a }))
                    .collect(),
            }
        };
        let curves = self.curves.iter().map(|(name, points)| (name.clone(), thin(points))).collect();
        Self { curves, ..self.clone() }
    }

    fn svg(&self, out: &mut String) -> Result<(), Box<dyn std::error::Error + '_>> {
        let root = SVGBackend::with_string(out, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|e| e.to_string())?;
        let shown = |(_, y): &&(f64, f64)| !self.log || *y > 0.0;
        let points = || self.curves.iter().flat_map(|(_, points)| points.iter().filter(shown));
        let range = |values: &mut dyn Iterator<Item = f64>| {
            values.filter(|v| v.is_finite()).fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)))
        };
        let (left, right) = widened(range(&mut points().map(|p| p.0)));
        let (low, high) = range(&mut points().map(|p| p.1));
        if self.log {
            let (low, high) =
                if low < high { (low, high) } else { (low.clamp(1e-3, 1.0), high.clamp(1.0, 1e9) * 10.0) };
            self.chart(&root, left..right, (low..high * 1.1).log_scale())?;
        } else {
            let (low, high) = widened((low.min(0.0), high));
            self.chart(&root, left..right, low..high)?;
        }
        root.present().map_err(|e| e.to_string())?;
        Ok(())
    }

    fn chart<Y>(
        &self,
        root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
        x: std::ops::Range<f64>,
        y: Y,
    ) -> Result<(), String>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let text = |e: DrawingAreaErrorKind<std::io::Error>| e.to_string();
        let mut chart = ChartBuilder::on(root)
            .caption(&self.title, (FONT, 20))
            .margin(12)
            // Half of the last number below the axis.
            .margin_right(32)
            .x_label_area_size(44)
            .y_label_area_size(70)
            .build_cartesian_2d(x, y)
            .map_err(text)?;
        let mesh = chart.configure_mesh().x_desc(self.x).y_desc(self.y).label_style((FONT, 14)).draw();
        mesh.map_err(text)?;
        for ((name, points), colour) in self.curves.iter().zip(COLOURS.iter().cycle()) {
            let points =
                points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite() && (!self.log || *y > 0.0));
            let drawn = match self.mark {
                Mark::Points => chart.draw_series(points.map(|p| Circle::new(p, 2, colour.filled()))),
                Mark::Lines => chart.draw_series(LineSeries::new(points, colour)),
                Mark::Steps => {
                    let mut before = None;
                    let corners = points.flat_map(|(x, y)| {
                        let corner = before.replace(y).map(|b| (x, b));
                        corner.into_iter().chain([(x, y)])
                    });
                    chart.draw_series(LineSeries::new(corners, colour))
                }
            };
            let colour = *colour;
            let key = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3));
            drawn.map_err(text)?.label(name).legend(key);
        }
        let legend = chart
            .configure_series_labels()
            .label_font((FONT, 14))
            .background_style(WHITE.mix(0.9))
            .border_style(BLACK.mix(0.3))
            .draw();
        legend.map_err(text)
    }
}

/// A range that is not empty.
fn widened((low, high): (f64, f64)) -> (f64, f64) {
    match low < high {
        true => (low, high + (high - low) * 0.02),
        false if low > 1e300 => (0.0, 1.0),
        false => (low - 0.5, low + 0.5),
    }
}

/// Registers the built-in font once per process.
pub fn use_own_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for style in [FontStyle::Normal, FontStyle::Bold] {
            if plotters::style::register_font(FONT, style, epaint_default_fonts::UBUNTU_LIGHT).is_err() {
                unreachable!("the built-in font is a valid TrueType font; a test draws with it");
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_neighbours_the_highest_is_drawn() {
        let points = (0..10_000).map(|i| (f64::from(i), f64::from(u8::from(i == 777)))).collect();
        let curves = vec![("curve".to_string(), points)];
        let (x, y) = ("", "");
        let plot = Plot { name: String::new(), title: String::new(), x, y, log: false, mark: Mark::Steps, curves };
        let thin = &plot.thinned(1000).curves[0].1;
        assert!(thin.len() == 1000 && thin.contains(&(777.0, 1.0)));
        assert_eq!(Plot { mark: Mark::Points, ..plot }.thinned(1000).curves[0].1.len(), 1000);
    }

    #[test]
    fn plots_are_drawn_also_of_nothing() {
        for (log, mark) in [(false, Mark::Points), (true, Mark::Lines), (false, Mark::Steps)] {
            for points in [vec![], vec![(1.0, 1.0)], vec![(1.0, 0.0), (2.0, 5.0), (3.0, f64::NAN)]] {
                let plot = Plot {
                    name: "p".into(),
                    title: "A plot".into(),
                    x: "time (us)",
                    y: "KB",
                    log,
                    mark,
                    curves: vec![("curve one".into(), points)],
                };
                let mut svg = String::new();
                use_own_font();
                plot.svg(&mut svg).unwrap();
                assert!(svg.contains("</svg>") && svg.contains("A plot") && svg.contains("curve one"));
            }
        }
    }
}
