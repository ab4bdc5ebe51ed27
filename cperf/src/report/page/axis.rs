//! Axes of the page's charts: ranges that end at round numbers, and their labels.

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it shows, with its unit.
    pub title: String,
    /// Logarithmic.
    log: bool,
    /// Ends.
    range: (f64, f64),
    /// Places that have a line and a label, ascending.
    pub labels: Vec<(f64, String)>,
    /// Places that have a faint line only.
    pub minor: Vec<f64>,
}

impl Axis {
    /// A logarithmic axis around `values`, those above 0; its ends are 1, 2 or 5 times a power of ten.
    pub fn log(title: impl Into<String>, values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = extent(values.filter(|value| *value > 0.0)).unwrap_or((1.0, 10.0));
        let (low, mut high) = (round(low, false), round(high, true));
        if high < 2.0 * low {
            high = 10.0 * low;
        }
        let decades = (high / low).log10();
        let mut axis =
            Self { title: title.into(), log: true, range: (low, high), labels: Vec::new(), minor: Vec::new() };
        for exponent in low.log10().floor() as i32..=high.log10().ceil() as i32 {
            for digit in 1..10 {
                let value = f64::from(digit) * 10f64.powi(exponent);
                if value < low * 0.999 || value > high * 1.001 {
                    continue;
                }
                let labelled = digit == 1 || decades < 2.5 && (digit == 2 || digit == 5);
                if labelled {
                    axis.labels.push((value, decade(value)));
                } else {
                    axis.minor.push(value);
                }
            }
        }
        axis
    }

    /// A linear axis from 0, or the least of `values` if that is less or `from_least`, to the greatest.
    pub fn linear(title: impl Into<String>, values: impl Iterator<Item = f64>, from_least: bool) -> Self {
        let (low, high) = extent(values).unwrap_or((0.0, 1.0));
        let low = if from_least { low } else { low.min(0.0) };
        let step = round(((high - low) / 6.0).max(1e-9), true);
        let first = (low / step).ceil() as i64;
        let end = if from_least { high.max(low + step) } else { (high / step).ceil().max(1.0) * step };
        let last = (end / step * 1.000_001).floor() as i64;
        let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        let labels =
            (first..=last).map(|count| count as f64 * step).map(|value| (value, format!("{value:.decimals$}")));
        Self { title: title.into(), log: false, range: (low, end), labels: labels.collect(), minor: Vec::new() }
    }

    /// A linear axis from 0 to 1 with these labels.
    pub fn shares(title: impl Into<String>, labels: Vec<(f64, String)>) -> Self {
        Self { title: title.into(), log: false, range: (0.0, 1.0), labels, minor: Vec::new() }
    }

    /// Where a value is, 0 to 1 within the ends; `None` if a logarithmic axis has no such place.
    pub fn place(&self, value: f64) -> Option<f64> {
        let (low, high) = self.range;
        match self.log {
            true if value <= 0.0 => None,
            true => Some((value / low).ln() / (high / low).ln()),
            false => Some((value - low) / (high - low)),
        }
    }
}

/// Least and greatest; `None` without finite values.
fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let one = |value: f64| (value, value);
    values.filter(|value| value.is_finite()).map(one).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// The next 1, 2 or 5 times a power of ten, up or down; `value` is above 0.
fn round(value: f64, up: bool) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    // What is off by rounding only is at the place already.
    let digit = value / power;
    let steps = [1.0, 2.0, 5.0, 10.0];
    let found = if up {
        steps.into_iter().find(|step| *step >= digit * 0.999_999)
    } else {
        steps.into_iter().rev().find(|step| *step <= digit * 1.000_001)
    };
    found.unwrap_or(1.0) * power
}

/// A value of a logarithmic axis without needless digits.
fn decade(value: f64) -> String {
    match value {
        // Only powers of ten have labels down there: an axis of few decades has no room for long ones either.
        ..0.0099 => {
            let digit = value / 10f64.powf(value.log10().floor());
            let factor = if digit.round() == 1.0 { String::new() } else { format!("{digit:.0}·") };
            format!("{factor}10⁻{}", superscript(-value.log10().floor() as u32))
        }
        ..0.099 => format!("{value:.2}"),
        ..0.99 => format!("{value:.1}"),
        1e6.. => format!("{:.0} M", value / 1e6),
        1e4.. => format!("{:.0} k", value / 1e3),
        _ => format!("{value:.0}"),
    }
}

/// A number as it stands above the line.
fn superscript(number: u32) -> String {
    number
        .to_string()
        .chars()
        .map(|digit| ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][digit as usize - '0' as usize])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.labels.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn logarithmic_axes_end_at_round_numbers() {
        let axis = Axis::log("us", [3.0, 0.0, 1400.0].into_iter());
        assert_eq!((axis.range, labels(&axis)), ((2.0, 2000.0), vec!["10", "100", "1000"]));
        assert_eq!(axis.minor.len(), 8 + 8 + 8 + 1, "2 to 9, 20 to 90, 200 to 900, 2000");
        let axis = Axis::log("us", [1.0, 30.0].into_iter());
        assert_eq!(labels(&axis), ["1", "2", "5", "10", "20", "50"], "few decades have more labels");
        assert_eq!(axis.place(0.0), None);
        assert!((axis.place(50.0).unwrap() - 1.0).abs() < 1e-9 && axis.place(1.0).unwrap().abs() < 1e-9);
        assert_eq!(labels(&Axis::log("", [1e5, 9e7].into_iter()))[..2], ["100 k", "1 M"]);
        assert_eq!(labels(&Axis::log("", [1e-5, 1.0].into_iter())), ["10⁻⁵", "10⁻⁴", "10⁻³", "0.01", "0.1", "1"]);
        assert_eq!(labels(&Axis::log("", [2e-3, 0.02].into_iter()))[..2], ["2·10⁻³", "5·10⁻³"]);
    }

    #[test]
    fn an_axis_of_nothing_or_of_one_value_has_a_length() {
        for axis in
            [Axis::log("", [].into_iter()), Axis::log("", [7.0].into_iter()), Axis::linear("", [].into_iter(), true)]
        {
            assert!(axis.range.0 < axis.range.1 && !axis.labels.is_empty(), "{axis:?}");
        }
    }

    #[test]
    fn linear_axes_begin_at_0_unless_they_need_not() {
        assert_eq!(labels(&Axis::linear("", [3.0, 11.0].into_iter(), false)), ["0", "2", "4", "6", "8", "10", "12"]);
        let axis = Axis::linear("", [100.0, 130.0].into_iter(), true);
        assert_eq!((axis.range, labels(&axis)[0]), ((100.0, 130.0), "100"));
    }
}
