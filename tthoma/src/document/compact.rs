//! Pictures of plots in few bytes: what the eye can't see is left out, and what repeats is said once.
//!
//! The library that draws places everything on whole pixels, so that thousands of points of a curve lie on each other. A
//! curve becomes a path whose every move can be seen; dots of one colour become one path; attributes that are what they are
//! without being said are dropped.

use std::collections::HashSet;
use std::fmt::Write as _;

/// The same picture, smaller. What is not known here stays as it is.
pub(super) fn compact(svg: &str) -> String {
    let mut out = String::with_capacity(svg.len() / 2);
    let mut dots = Dots::default();
    for line in svg.lines() {
        if let Some((at, look)) = circle(line) {
            if dots.look != look {
                dots.draw(&mut out);
                dots.look = look;
            }
            dots.at.push(at);
            continue;
        }
        dots.draw(&mut out);
        match polyline(line) {
            Some((points, stroke)) => draw(&mut out, &visible(&points), &stroke),
            None => plain(&mut out, line),
        }
    }
    dots.draw(&mut out);
    out
}

/// Attributes that say what holds without them, here or by the document's style.
const NEEDLESS: [&str; 4] =
    [" opacity=\"1\"", " stroke-width=\"1\"", " font-family=\"sans-serif\"", " fill=\"#000000\""];

fn plain(out: &mut String, line: &str) {
    let mut line = line.trim().to_string();
    // What follows a tag is text, which stays.
    if line.starts_with('<') && line.ends_with('>') {
        NEEDLESS.iter().for_each(|needless| line = line.replace(needless, ""));
    }
    *out += &line;
    *out += "\n";
}

type Point = (i32, i32);

fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!(" {name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// Dots of one look.
#[derive(Default)]
struct Dots {
    at: Vec<Point>,
    /// Radius and colour, with how much is seen of it.
    look: (i32, String),
}

/// A filled circle: centre, radius and attributes of the colour.
fn circle(line: &str) -> Option<(Point, (i32, String))> {
    let line = line.trim();
    if !line.starts_with("<circle ") || attribute(line, "stroke")? != "none" {
        return None;
    }
    let number = |name| attribute(line, name)?.parse::<i32>().ok();
    let colour = match attribute(line, "opacity")? {
        "1" => format!("stroke=\"{}\"", attribute(line, "fill")?),
        some => format!("stroke=\"{}\" opacity=\"{some}\"", attribute(line, "fill")?),
    };
    Some(((number("cx")?, number("cy")?), (number("r")?, colour)))
}

impl Dots {
    fn draw(&mut self, out: &mut String) {
        let mut seen = HashSet::new();
        let mut at: Vec<Point> = self.at.drain(..).filter(|point| seen.insert(*point)).collect();
        at.sort_unstable();
        let Some(first) = at.first() else { return };
        let _ = write!(out, "<path d=\"M{},{}h0", first.0, first.1);
        for pair in at.windows(2) {
            out.push('m');
            by(out, pair[1].0 - pair[0].0, pair[1].1 - pair[0].1);
            *out += "h0";
        }
        let (radius, colour) = &self.look;
        let _ = writeln!(out, "\" {colour} stroke-width=\"{}\" stroke-linecap=\"round\"/>", 2 * radius);
    }
}

/// A line through points: these, and attributes of how it is drawn.
fn polyline(line: &str) -> Option<(Vec<Point>, String)> {
    let line = line.trim();
    if !line.starts_with("<polyline fill=\"none\" ") {
        return None;
    }
    let point = |pair: &str| {
        let (x, y) = pair.split_once(',')?;
        Some((x.parse().ok()?, y.parse().ok()?))
    };
    let points: Option<Vec<Point>> = attribute(line, "points")?.split_whitespace().map(point).collect();
    let mut look = format!("stroke=\"{}\"", attribute(line, "stroke")?);
    for (name, usual) in [("opacity", "1"), ("stroke-width", "1")] {
        let value = attribute(line, name)?;
        if value != usual {
            let _ = write!(look, " {name}=\"{value}\"");
        }
    }
    Some((points?, look))
}

/// The points without which the line would look different: of those above each other the first, the ends and the last, and
/// no point on the straight way from one to the next.
fn visible(points: &[Point]) -> Vec<Point> {
    let mut out: Vec<Point> = Vec::new();
    for column in points.chunk_by(|a, b| a.0 == b.0) {
        let ys = || column.iter().map(|p| p.1).enumerate();
        let low = ys().min_by_key(|(_, y)| *y).map_or(0, |(place, _)| place);
        let high = ys().max_by_key(|(_, y)| *y).map_or(0, |(place, _)| place);
        let mut kept = [0, low.min(high), low.max(high), column.len() - 1].to_vec();
        kept.dedup();
        for place in kept {
            push(&mut out, column[place]);
        }
    }
    out
}

/// Adds a point; the one before goes if it lies between its neighbours on a horizontal or vertical line.
fn push(out: &mut Vec<Point>, next: Point) {
    if out.last() == Some(&next) {
        return;
    }
    if let [.., a, b] = out.as_slice() {
        let between = |a: i32, b: i32, c: i32| a <= b && b <= c || a >= b && b >= c;
        let flat = a.1 == b.1 && b.1 == next.1 && between(a.0, b.0, next.0);
        let upright = a.0 == b.0 && b.0 == next.0 && between(a.1, b.1, next.1);
        if flat || upright {
            out.pop();
        }
    }
    out.push(next);
}

fn draw(out: &mut String, points: &[Point], look: &str) {
    let Some(first) = points.first() else { return };
    let _ = write!(out, "<path d=\"M{},{}", first.0, first.1);
    for pair in points.windows(2) {
        let (x, y) = (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1);
        match (x, y) {
            (x, 0) => _ = write!(out, "h{x}"),
            (0, y) => _ = write!(out, "v{y}"),
            (x, y) => {
                out.push('l');
                by(out, x, y);
            }
        }
    }
    let _ = writeln!(out, "\" fill=\"none\" {look}/>");
}

/// Two numbers, apart by a sign or a comma.
fn by(out: &mut String, x: i32, y: i32) {
    let _ = if y < 0 { write!(out, "{x}{y}") } else { write!(out, "{x},{y}") };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::{Mark, Plot};

    #[test]
    fn only_what_is_seen_of_a_curve_stays() {
        let points: Vec<Point> = vec![(0, 9), (0, 9), (1, 9), (2, 9), (2, 5), (2, 7), (2, 1), (2, 3), (3, 4), (5, 4)];
        assert_eq!(visible(&points), [(0, 9), (2, 9), (2, 1), (2, 3), (3, 4), (5, 4)]);
        let line = "<polyline fill=\"none\" opacity=\"1\" stroke=\"#103F91\" stroke-width=\"1\" \
                    points=\"0,9 0,9 1,9 2,9 2,5 2,7 2,1 2,3 3,4 5,4 \"/>\n";
        assert_eq!(compact(line), "<path d=\"M0,9h2v-8v2l1,1h2\" fill=\"none\" stroke=\"#103F91\"/>\n");
    }

    #[test]
    fn dots_of_a_colour_are_one_path_and_none_twice() {
        let dot = |x: i32, y: i32, colour: &str| {
            format!(
                "<circle cx=\"{x}\" cy=\"{y}\" r=\"2\" opacity=\"1\" fill=\"{colour}\" stroke=\"none\" stroke-width=\"1\"/>\n"
            )
        };
        let text = "<text x=\"1\" y=\"2\" opacity=\"1\" fill=\"#000000\">\na fill=\"#000000\"\n</text>\n";
        let svg = dot(5, 9, "#111111") + &dot(4, 4, "#111111") + &dot(5, 9, "#111111") + &dot(1, 1, "#222222") + text;
        let expected = "<path d=\"M4,4h0m1,5h0\" stroke=\"#111111\" stroke-width=\"4\" stroke-linecap=\"round\"/>\n\
                        <path d=\"M1,1h0\" stroke=\"#222222\" stroke-width=\"4\" stroke-linecap=\"round\"/>\n\
                        <text x=\"1\" y=\"2\">\na fill=\"#000000\"\n</text>\n";
        assert_eq!(compact(&svg), expected);
    }

    /// Whatever the library draws is understood: nothing long is left as it was.
    #[test]
    fn plots_of_many_points_become_small() {
        for (mark, count, most) in
            [(Mark::Points, 3000, 40_000), (Mark::Lines, 20_000, 50_000), (Mark::Steps, 20_000, 50_000)]
        {
            let points = (0..count).map(|i| (f64::from(i), f64::from(i * i % 997))).collect();
            let curves = vec![("a".to_string(), points)];
            let plot = Plot { name: "p".into(), title: "t".into(), x: "x", y: "y", log: false, mark, curves };
            let (svg, small) = (plot.to_svg().unwrap(), compact(&plot.to_svg().unwrap()));
            assert!(svg.len() > 150_000 && small.len() < most, "{mark:?}: {} to {}", svg.len(), small.len());
            assert!(!small.contains("<circle") && small.ends_with("</svg>\n"));
        }
    }
}
