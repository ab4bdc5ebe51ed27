//! Curves as SVG that takes its colours from the page's style sheet: dark or light as the page is, and apart without
//! colours, too, by dashes and by marks of different shapes.

use std::fmt::Write as _;

use tthoma::document::escaped;

use super::axis::Axis;

/// A chart. It is drawn twice, for wide pages and for narrow ones, so that letters have the same size on both.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Line above it.
    pub title: String,
    /// What must be known to read it; may be empty.
    pub note: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// Curves.
    pub series: Vec<Series>,
    /// Single points.
    pub points: Vec<Point>,
}

/// A curve.
#[derive(Clone, Debug)]
pub struct Series {
    /// As in the legend.
    pub name: String,
    /// Colour and shape of marks.
    pub style: Style,
    /// In the order in which they are joined.
    pub points: Vec<(f64, f64)>,
}

/// A point of another's, drawn as a cross.
#[derive(Clone, Debug)]
pub struct Point {
    /// Of this curve's style.
    pub style: Style,
    /// To the right.
    pub x: f64,
    /// Upwards.
    pub y: f64,
    /// What it is, for readers of screens and the mouse.
    pub text: String,
}

/// How a curve looks: one of six colours of the style sheet, each with dashes and a mark of its own; or what is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Ours; 0 to 5.
    Own(u8),
    /// Published.
    Published,
}

/// Styles of protocols.
pub fn of_protocol(protocol: &str) -> Style {
    Style::Own(match protocol {
        "homa" => 0,
        "tcp" => 1,
        "dctcp" => 2,
        _ => 3,
    })
}

impl Style {
    fn class(self) -> String {
        match self {
            Self::Own(number) => format!("s{}", number % 6),
            Self::Published => "ref".to_owned(),
        }
    }

    /// The mark's outline around a point.
    fn mark(self, x: f64, y: f64) -> String {
        match self {
            Self::Own(number) => match number % 6 {
                0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"),
                1 => format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"6.6\" height=\"6.6\"/>", x - 3.3, y - 3.3),
                2 => format!("<path d=\"M{x:.1} {:.1}l4.2 7.4h-8.4z\"/>", y - 4.7),
                3 => format!("<path d=\"M{x:.1} {:.1}l4.5 4.5l-4.5 4.5l-4.5 -4.5z\"/>", y - 4.5),
                4 => format!("<path d=\"M{x:.1} {:.1}l4.2 -7.4h-8.4z\"/>", y + 4.7),
                _ => format!("<path class=\"open\" d=\"M{x:.1} {:.1}v8m-4 -4h8\"/>", y - 4.0),
            },
            Self::Published => String::new(),
        }
    }
}

/// Width and height in pixels, and how many labels the axis to the right has room for.
struct Size {
    class: &'static str,
    width: f64,
    height: f64,
    labels: usize,
}

const SIZES: [Size; 2] = [
    Size { class: "chart on-wide", width: 580.0, height: 380.0, labels: 11 },
    Size { class: "chart on-narrow", width: 350.0, height: 320.0, labels: 6 },
];
/// Room around the plot: left, right, top, bottom.
const ROOM: [f64; 4] = [58.0, 14.0, 8.0, 46.0];
/// Marks a curve.
const MARKS: usize = 7;

impl Chart {
    /// A figure with a legend, if there is more than one curve.
    pub fn html(&self) -> String {
        let mut out = format!("<figure>\n<figcaption>{}</figcaption>\n", escaped(&self.title));
        if self.series.len() > 1 || !self.points.is_empty() {
            out += "<ul class=\"legend\">";
            for series in &self.series {
                let _ = write!(out, "<li>{}{}</li>", swatch(series.style), escaped(&series.name));
            }
            if !self.points.is_empty() {
                out += "<li><svg class=\"swatch\" viewBox=\"0 0 34 12\" aria-hidden=\"true\"><path class=\"cross\" d=\"M12 1l10 10m0 -10l-10 10\"/></svg>published</li>";
            }
            out += "</ul>\n";
        }
        SIZES.iter().for_each(|size| self.svg(&mut out, size));
        if !self.note.is_empty() {
            let _ = writeln!(out, "<p class=\"note\">{}</p>", escaped(&self.note));
        }
        out + "</figure>\n"
    }

    fn svg(&self, out: &mut String, size: &Size) {
        let [left, right, top, bottom] = ROOM;
        let (width, height) = (size.width - left - right, size.height - top - bottom);
        let place = |(x, y): (f64, f64)| {
            Some((left + self.x.place(x)? * width, top + (1.0 - self.y.place(y)?.clamp(-0.01, 1.01)) * height))
        };
        let names: Vec<_> = self.series.iter().map(|series| series.name.as_str()).collect();
        let label = format!("{}: {} against {}; {}", self.title, self.y.title, self.x.title, names.join(", "));
        let _ = writeln!(
            out,
            "<svg class=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
            size.class,
            size.width,
            size.height,
            escaped(&label)
        );
        let (end, floor) = (left + width, top + height);
        // Grid and labels.
        let mut grid = String::new();
        let vertical = |x: f64| format!("M{x:.1} {top}V{floor}");
        let horizontal = |y: f64| format!("M{left} {y:.1}H{end}");
        let x_at = |value| self.x.place(value).map(|x| left + x * width);
        let y_at = |value| self.y.place(value).map(|y| top + (1.0 - y) * height);
        self.x.minor.iter().filter_map(|&x| x_at(x)).for_each(|x| grid += &vertical(x));
        self.y.minor.iter().filter_map(|&y| y_at(y)).for_each(|y| grid += &horizontal(y));
        let _ = writeln!(out, "<path class=\"minor\" d=\"{grid}\"/>");
        let every = self.x.labels.len().div_ceil(size.labels).max(1);
        // With the last one if all do not fit: the first of a scale is its least interesting.
        let skipped = (self.x.labels.len().max(1) - 1) % every;
        let shown = self.x.labels.iter().enumerate().filter(|(at, _)| at % every == skipped);
        let x_labels: Vec<_> = shown.filter_map(|(_, (x, label))| Some((x_at(*x)?, label))).collect();
        let y_labels: Vec<_> = self.y.labels.iter().filter_map(|(y, label)| Some((y_at(*y)?, label))).collect();
        let grid: String = x_labels.iter().map(|(x, _)| vertical(*x)).collect();
        let grid: String = grid + &y_labels.iter().map(|(y, _)| horizontal(*y)).collect::<String>();
        let _ = writeln!(out, "<path class=\"grid\" d=\"{grid}\"/>");
        for (x, label) in x_labels {
            let anchor = if x > end - 12.0 { " style=\"text-anchor:end\"" } else { "" };
            let x = if anchor.is_empty() { x } else { end + right - 1.0 };
            let _ =
                write!(out, "<text class=\"x\" x=\"{x:.1}\" y=\"{}\"{anchor}>{}</text>", floor + 17.0, escaped(label));
        }
        for (y, label) in y_labels {
            let _ =
                write!(out, "<text class=\"y\" x=\"{}\" y=\"{:.1}\">{}</text>", left - 6.0, y + 4.0, escaped(label));
        }
        let _ = writeln!(
            out,
            "<text class=\"x title\" x=\"{:.1}\" y=\"{}\">{}</text><text class=\"x title\" transform=\"translate(13 {:.1}) rotate(-90)\">{}</text>",
            left + width / 2.0,
            size.height - 6.0,
            escaped(&self.x.title),
            top + height / 2.0,
            escaped(&self.y.title)
        );
        // Curves; those of others first, so that ours are on top.
        let published = self.series.iter().filter(|series| series.style == Style::Published);
        for series in published.chain(self.series.iter().filter(|series| series.style != Style::Published)) {
            let points: Vec<_> = series.points.iter().filter_map(|&point| place(point)).collect();
            curve(out, series.style, &points, (left, width));
        }
        for point in &self.points {
            let Some((x, y)) = place((point.x, point.y)) else { continue };
            let _ = writeln!(
                out,
                "<path class=\"cross {}\" d=\"M{:.1} {:.1}l10 10m0 -10l-10 10\"><title>{}</title></path>",
                point.style.class(),
                x - 5.0,
                y - 5.0,
                escaped(&point.text)
            );
        }
        *out += "</svg>\n";
    }
}

/// A curve's line, of points that an eye can tell apart, and its marks.
fn curve(out: &mut String, style: Style, points: &[(f64, f64)], (left, width): (f64, f64)) {
    let Some(&first) = points.first() else { return };
    let mut path = format!("M{:.1} {:.1}", first.0, first.1);
    let mut last = first;
    for (at, &point) in points.iter().enumerate().skip(1) {
        let far = (point.0 - last.0).abs() >= 0.5 || (point.1 - last.1).abs() >= 0.5;
        if far || at + 1 == points.len() {
            let _ = write!(path, "L{:.1} {:.1}", point.0, point.1);
            last = point;
        }
    }
    let class = style.class();
    let _ = writeln!(out, "<path class=\"line {class}\" d=\"{path}\"/>");
    // Marks at other places for each style, so that curves that lie upon each other are both seen.
    let shift = match style {
        Style::Own(number) => f64::from(number % 6) / 6.0,
        Style::Published => return,
    };
    let mut marks = String::new();
    for mark in 0..MARKS {
        let x = left + width * (mark as f64 + 0.15 + 0.8 * shift) / MARKS as f64;
        let after = points.partition_point(|point| point.0 < x);
        let (Some(&(x0, y0)), Some(&(x1, y1))) =
            (after.checked_sub(1).and_then(|at| points.get(at)), points.get(after))
        else {
            continue;
        };
        let share = if x1 > x0 { (x - x0) / (x1 - x0) } else { 0.0 };
        marks += &style.mark(x, y0 + (y1 - y0) * share);
    }
    let _ = writeln!(out, "<g class=\"mark {class}\">{marks}</g>");
}

/// The line of a curve in the legend.
fn swatch(style: Style) -> String {
    let class = style.class();
    format!(
        "<svg class=\"swatch\" viewBox=\"0 0 34 12\" aria-hidden=\"true\"><path class=\"line {class}\" d=\"M0 6H34\"/><g class=\"mark {class}\">{}</g></svg>",
        style.mark(17.0, 6.0)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let line = |style, name: &str| Series {
            name: name.to_owned(),
            style,
            points: (0..1000).map(|at| (f64::from(at) / 1000.0, 1.0 + f64::from(at))).collect(),
        };
        Chart {
            title: "a < b".to_owned(),
            note: String::new(),
            x: Axis::linear("share", [0.0, 1.0].into_iter(), false),
            y: Axis::log("us", [1.0, 1000.0].into_iter()),
            series: vec![line(Style::Own(0), "Homa"), line(Style::Published, "SIGCOMM"), line(Style::Own(1), "TCP")],
            points: vec![Point { style: Style::Own(0), x: 0.5, y: 10.0, text: "P50".to_owned() }],
        }
    }

    #[test]
    fn curves_are_apart_without_colours_too() {
        let html = chart().html();
        assert_eq!(html.matches("<svg class=\"chart").count(), 2, "one for wide pages, one for narrow");
        assert!(html.contains("a &lt; b") && !html.contains("a < b"));
        // On both and in the legend: circles for one, squares for the other, none for what is published.
        assert_eq!((html.matches("<circle").count(), html.matches("<rect").count()), (2 * MARKS + 1, 2 * MARKS + 1));
        assert!(html.contains("class=\"line ref\"") && html.contains("<title>P50</title>"));
        assert_eq!(
            html.matches("style=\"fill").count() + html.matches("stroke=\"").count(),
            0,
            "colours are the page's"
        );
    }

    #[test]
    fn what_a_logarithm_has_no_place_for_is_left_out() {
        let mut chart = chart();
        chart.series = vec![Series { name: String::new(), style: Style::Own(0), points: vec![(0.0, 0.0), (1.0, 0.0)] }];
        chart.points.clear();
        let html = chart.html();
        assert!(!html.contains("class=\"line") && !html.contains("NaN") && !html.contains("inf"), "{html}");
    }
}
