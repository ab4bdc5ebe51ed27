//! What the columns of tables mean, and their units: `columns.csv` of an experiment.

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Unit; empty for text and ratios.
    pub unit: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

pub(super) const fn column(name: &'static str, unit: &'static str, meaning: &'static str) -> Column {
    Column { name, unit, meaning }
}

/// Columns that say which measurement a row is about; parameters that vary have a column of their own name beside them.
pub const KEYS: [Column; 7] = [
    column("experiment", "", "name of the experiment"),
    column("point", "", "identity of the point: its directory below points/"),
    column("protocol", "", "homa, tcp or dctcp"),
    column("workload", "", "lengths of messages: a named workload, or bytes"),
    column("nodes", "nodes", "hosts, each client and server"),
    column("seed", "", "seed of all random numbers"),
    column("role", "", "base: with all switch memory that the point has; step, probe: with the memory limited"),
];

/// Figures of a measurement.
pub const FIGURES: [Column; 44] = [
    column("buffer_limit_bytes", "bytes", "memory of each switch"),
    column("buffer_limit_percent", "percent", "the same of what the base measurement used; empty for base"),
    column("offered_gbps", "10^9 bit/s", "message payload per node and direction that was asked for"),
    column("achieved_gbps", "10^9 bit/s", "message payload per node and direction of messages that were completed"),
    column("rpcs", "messages", "messages completed in the measured interval: RPCs, or one-way messages"),
    column("failed_rpcs", "messages", "messages that failed"),
    column("outstanding_rpcs", "messages", "messages without an end when the interval ended"),
    column("measured_s", "s", "length of the measured interval in virtual time"),
    column("converged", "", "false if a test of convergence was asked for and not met in the longest interval"),
    column("slowdown_mean", "", "mean slowdown over all messages, by the experiment's definition"),
    column("slowdown_p50", "", "median of the slowdowns of all messages"),
    column("slowdown_p99", "", "P99 of the slowdowns of all messages"),
    column("slowdown_atc21_mean", "", "mean slowdown relative to the median without load, of the same length"),
    column("slowdown_alt_mean", "", "mean slowdown relative to the least time without load + 8 x length / link rate"),
    column("slowdown_fixed_mean", "", "mean slowdown relative to 15 us + 8 x length / link rate"),
    column("p99_average_10", "", "mean over 10 classes of length of the mean slowdown of the worst 1 % of each"),
    column("p99_average_100", "", "the same over 100 classes"),
    column("due_slowdown_mean", "", "as slowdown_mean, from when messages were due"),
    column("due_slowdown_p99", "", "as slowdown_p99, from when messages were due"),
    column("short_longest_bytes", "bytes", "longest message among the shortest tenth"),
    column("short_rtt_p50_us", "us", "P50 of the times of the shortest tenth of the messages"),
    column("short_rtt_p99_us", "us", "P99 of them"),
    column("short_rtt_p999_us", "us", "P99.9 of them"),
    column("short_due_p99_us", "us", "P99 of them, from when they were due"),
    column("rtt_min_us", "us", "shortest time of any message"),
    column("rtt_p50_us", "us", "P50 of the times of all messages"),
    column("rtt_p99_us", "us", "P99 of the times of all messages"),
    column("rtt_max_us", "us", "longest time of any message"),
    column("client_krps", "10^3/s", "messages completed a second and client node"),
    column("client_gbps", "10^9 bit/s", "bytes of their requests a client node"),
    column("server_krps", "10^3/s", "messages completed a second and server node"),
    column("server_gbps", "10^9 bit/s", "bytes of their requests a server node"),
    column("buffer_max_bytes", "bytes", "most that waited at all ports of one switch at once"),
    column("buffer_max_us", "us", "the same as time on all links to its hosts together"),
    column("buffer_max_per_node_bytes", "bytes", "the same divided by the number of nodes"),
    column("port_max_bytes", "bytes", "most that waited at one port"),
    column("port_max_us", "us", "most that waited at one port as time on its link"),
    column("packets", "packets", "packets delivered to hosts, warm-up included"),
    column("dropped_packets", "packets", "packets that switches dropped"),
    column("marked_packets", "packets", "packets that switches marked"),
    column("resent_percent", "percent", "Homa's data packets that were sent again"),
    column("samples_hash", "", "equal for measurements that are equal in every sample"),
    column("buffer_min_bytes", "bytes", "least switch memory with which the metric is hardly worse; 0: none is needed"),
    column("buffer_min_us", "us", "the same as time on all links to hosts together"),
];

/// Figures at a tenth of the workload's messages: `by_length.csv`.
pub const TENTHS: [Column; 6] = [
    column("cum_percent", "percent", "messages of the workload that are not longer"),
    column("length_bytes", "bytes", "the length that closes this tenth of the messages"),
    column("rpcs", "messages", "messages of that length and of the hundredth of all messages below it"),
    column("slowdown_mean", "", "their mean slowdown"),
    column("slowdown_p50", "", "median of their slowdowns"),
    column("slowdown_p99", "", "P99 of their slowdowns"),
];

/// Columns of `summary.csv` besides those of parameters.
pub const SUMMARY: [Column; 9] = [
    column("metric", "", "name of the figure, as in results.csv"),
    column("unit", "", "its unit"),
    column("seeds", "", "measurements, one a seed"),
    column("mean", "", "mean over seeds"),
    column("ci95_low", "", "lower end of the 95 % confidence interval of the mean (Student's t); empty for one seed"),
    column("ci95_high", "", "its upper end"),
    column("min", "", "least over seeds"),
    column("max", "", "largest over seeds"),
    column("variation", "", "standard deviation over seeds, divided by the mean; empty for one seed"),
];

/// The figure `name`.
///
/// # Errors
/// There is none; says which is near.
pub fn metric(name: &str) -> Result<Column, String> {
    FIGURES.iter().find(|column| column.name == name).copied().ok_or_else(|| {
        let near = crate::error::nearest(name, FIGURES.iter().map(|column| column.name));
        format!("metric `{name}`: there is no such figure; did you mean `{near}`?")
    })
}

/// Unit of a figure; empty if it has none.
pub fn unit(name: &str) -> &'static str {
    FIGURES.iter().find(|column| column.name == name).map_or("", |column| column.unit)
}

#[cfg(test)]
mod tests {
    use super::super::figures::Figures;
    use super::*;

    #[test]
    fn every_figure_is_described_and_nothing_else() {
        let figures = serde_json::to_value(Figures::default()).unwrap();
        let mut have: Vec<_> = figures.as_object().unwrap().keys().map(String::as_str).collect();
        have.extend(["buffer_min_bytes", "buffer_min_us"]);
        have.sort_unstable();
        let mut described: Vec<_> = FIGURES.iter().map(|column| column.name).collect();
        described.sort_unstable();
        assert_eq!(have, described);
    }

    #[test]
    fn units_are_those_in_the_names() {
        for column in FIGURES {
            for (suffix, unit) in [("_bytes", "bytes"), ("_us", "us"), ("_gbps", "10^9 bit/s"), ("_percent", "percent")]
            {
                assert!(!column.name.ends_with(suffix) || column.unit == unit, "{}", column.name);
            }
        }
        assert!(metric("slowdown_men").unwrap_err().contains("did you mean `slowdown_mean`"));
        assert_eq!((metric("rpcs").unwrap().unit, unit("slowdown_mean")), ("messages", ""));
    }
}
