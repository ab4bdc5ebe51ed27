//! Column files for scripts: `reports/EXP.data` and `reports/EXP_cdf.data`. Source: cperf.md 3.7, 3.8.

use std::fmt::Write as _;

use super::cdf;
use super::digest::{Digest, Short};
use super::slowdown::Optimal;

/// One line per message length: times in µs, slowdowns beside them. `heading` goes into the first line.
pub fn by_length(heading: &str, digest: &Digest, optimal: &Optimal) -> String {
    let mut text = format!("# {heading}; slowdown {}\n", optimal.text());
    text += "# length  cum_frac  samples     p50      p99     p999     s50      s99     s999\n";
    let mut seen = 0;
    for bucket in &digest.buckets {
        seen += bucket.len();
        let fraction = seen as f64 / digest.samples as f64;
        let least = optimal.ns(bucket.length);
        let times = [(1, 2), (99, 100), (999, 1000)].map(|(num, den)| bucket.percentile_ns(num, den) as f64);
        let [p50, p99, p999] = times.map(|time| time / 1000.0);
        let [s50, s99, s999] = times.map(|time| time / least);
        let (length, samples) = (bucket.length, bucket.len());
        let _ = writeln!(
            text,
            " {length:7}  {fraction:8.6} {samples:8} {p50:8.1} {p99:8.1} {p999:8.1} {s50:7.1} {s99:8.1} {s999:8.1}"
        );
    }
    text
}

/// Complementary distribution of the short messages: µs and the fraction of messages that took longer.
pub fn short_cdf(heading: &str, short: &Short) -> String {
    let (count, longest) = (short.count(), short.longest);
    let mut text = format!("# {heading}: {count} messages of up to {longest} bytes\n");
    text += "# frac: fraction of messages with a longer round-trip time\n#      usec        frac\n";
    for point in cdf::complementary(short.times_ns()) {
        let _ = writeln!(text, "{:11.3} {:11.8}", point.usecs, point.fraction);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::hundred;
    use super::*;

    #[test]
    fn columns_are_as_their_names_say() {
        let digest = hundred().service;
        let text = by_length("homa_w4", &digest, &Optimal::fixed(1.0, f64::INFINITY));
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("# homa_w4; slowdown fixed"));
        let names: Vec<_> = lines[1].split_whitespace().skip(1).collect();
        let last: Vec<_> = lines[101].split_whitespace().collect();
        assert_eq!(names.len(), last.len());
        assert_eq!(last, ["1000", "1.000000", "1", "100.0", "100.0", "100.0", "100.0", "100.0", "100.0"]);
        assert_eq!(lines.len(), 102);
    }

    #[test]
    fn the_distribution_ends_above_zero() {
        let text = short_cdf("homa_w4", &hundred().service.short().unwrap());
        let rows: Vec<Vec<f64>> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
            .collect();
        assert_eq!(rows.len(), 10);
        assert_eq!(rows[0], [1.0, 0.9]);
        assert!(rows[9][1] > 0.0);
    }
}
