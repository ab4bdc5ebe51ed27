//! What changed on one node: the kernel module's `metrics.py` and `diff_metrics`, for any number of cores.
//!
//! | module | prints |
//! | --- | --- |
//! | `changes` | each counter that grew, with its rate or share of time |
//! | `cores` | where each core's time went |
//! | `sections` | derived figures: cores in all, locks, receiving, pacer, grants, canaries |
//! | `diff` | differences of two files, core by core |
//! | `live` | from where counters of a running node are read |
//!
//! A counter that the file lacks is absent, not 0; nothing is divided by zero. Source: cperf.md 4.3.

pub mod diff;
pub mod live;

mod changes;
mod cores;
mod grown;
mod sections;

pub use grown::Grown;

/// All that the metrics tool prints about an interval.
pub fn print(grown: &Grown) -> String {
    let mut out = changes::print(grown);
    out += &cores::print(grown);
    out += &sections::print(grown);
    out
}

/// A number with K, M or G, five characters wide, and its letter.
pub(crate) fn scaled(value: f64) -> String {
    let (value, letter) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, 'G'),
        v if v >= 1e6 => (value / 1e6, 'M'),
        v if v >= 1e3 => (value / 1e3, 'K'),
        _ => (value, ' '),
    };
    format!("{value:5.1} {letter}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_scaled_by_thousands() {
        for (value, text) in
            [(0.0, "  0.0  "), (999.9, "999.9  "), (1000.0, "  1.0 K"), (16.3e6, " 16.3 M"), (2e9, "  2.0 G")]
        {
            assert_eq!(super::scaled(value), text);
        }
    }
}
