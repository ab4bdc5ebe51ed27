//! How much load a machine can be asked to carry by default, and which workloads there are.

use strsim::levenshtein as distance;

use crate::error::Stop;

/// Payload that one core is asked to carry: all requests and responses of all nodes, counted once. A third of the most
/// that it carried (4 nodes on 2 EPYC cores, w4, MTU 1500: 1.2 Gbps per core with Homa, at 1.8 it broke down), so that
/// slower and busier machines carry it too.
const GBPS_PER_CORE: f64 = 0.4;
/// RPCs that one core is asked to carry, client and server side together, however short they are.
const RPCS_PER_CORE: f64 = 8_000.0;
/// The rule, for `--help` and reports.
pub const RULE: &str = "all nodes together get 0.4 Gbps of message payload (requests and responses) per core in use, \
                        but at most 8,000 RPCs/s per core; each node gets an equal share. In use are as many cores as \
                        the machine has, but no more than there are nodes";

/// Message lengths that a client draws from. Means are those of the lengths actually drawn (cperf.md 2.3).
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// As on the command line.
    pub name: String,
    /// Mean message length, bytes.
    pub mean_bytes: f64,
}

/// Named workloads and their means.
const NAMED: [(&str, f64); 6] =
    [("w1", 192.8), ("w2", 440.8), ("w3", 2_567.7), ("w4", 61_008.1), ("w5", 386_161.4), ("starve", 526_315.8)];
/// Longest message, bytes; cp-node cuts longer draws to it.
pub const LONGEST: u32 = 1_000_000;
/// Shortest message, bytes: its own header.
const SHORTEST: u32 = 12;

impl Workload {
    /// A name or a length in bytes.
    ///
    /// # Errors
    /// [`Stop::Usage`] with the nearest name.
    pub fn parse(text: &str) -> Result<Self, Stop> {
        if let Some(&(name, mean_bytes)) = NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(Self { name: name.to_owned(), mean_bytes });
        }
        let all = "w1, w2, w3, w4, w5, starve, or a message length in bytes";
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            return match text.parse::<u32>() {
                Ok(length @ 1..=LONGEST) => {
                    Ok(Self { name: length.to_string(), mean_bytes: length.max(SHORTEST).into() })
                }
                _ => Err(Stop::Usage(format!("workload {text}: a message length is from 1 to {LONGEST} bytes"))),
            };
        }
        let names = NAMED.iter().map(|(name, _)| *name).chain(["basic"]);
        let near = names.min_by_key(|name| distance(name, text)).unwrap_or_default();
        Err(Stop::Usage(format!("unknown workload `{text}`; did you mean `{near}`? there are {all}")))
    }
}

/// Default load per node and direction, 10^9 bit/s: what each node sends, requests and responses together.
///
/// By [`RULE`]: the machine has `cores`, the run `nodes`, messages are `mean_bytes` long and are answered by as many.
pub fn default_gbps(cores: usize, nodes: usize, mean_bytes: f64) -> f64 {
    let rpcs_per_core = RPCS_PER_CORE.min(GBPS_PER_CORE * 1e9 / 8.0 / (2.0 * mean_bytes));
    let total = rpcs_per_core * cores.clamp(1, nodes.max(1)) as f64 * 2.0 * mean_bytes * 8.0 / 1e9;
    // Three significant digits: the figure is printed, and whoever repeats the run types it.
    let share = total / nodes.max(1) as f64;
    let digits = 10f64.powf(2.0 - share.log10().floor());
    (share * digits).round() / digits
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lengths_are_workloads() {
        assert_eq!(Workload::parse("w4").unwrap().mean_bytes, 61_008.1);
        assert_eq!(Workload::parse("5000").unwrap(), Workload { name: "5000".into(), mean_bytes: 5000.0 });
        assert_eq!(Workload::parse("1").unwrap().mean_bytes, 12.0, "shorter ones are raised to the header");
        for bad in ["0", "1000001", "99999999999999999999", "", "w6", "12x", "-5"] {
            assert_eq!(Workload::parse(bad).unwrap_err().code(), 2, "{bad}");
        }
    }

    #[test]
    fn means_are_those_of_the_lengths_that_nodes_draw() {
        use cp_node::workload::{Distribution, Reduction};
        for (name, mean) in NAMED {
            let drawn = Distribution::new(name.parse().unwrap(), Reduction::default()).mean();
            assert!((drawn - mean).abs() < 0.06, "{name}: {drawn}, not {mean}");
        }
    }

    #[test]
    fn a_typo_is_answered_with_the_nearest_name() {
        for (typo, near) in [("w44", "w4"), ("W5", "w5"), ("strave", "starve"), ("basci", "basic"), ("ww1", "w1")] {
            let text = Workload::parse(typo).unwrap_err().to_string();
            assert!(text.contains(&format!("did you mean `{near}`")), "{typo}: {text}");
        }
    }

    #[test]
    fn distances() {
        assert_eq!((distance("w4", "w4"), distance("", "abc"), distance("kitten", "sitting")), (0, 3, 3));
    }

    #[test]
    fn long_messages_are_bound_by_bytes_and_short_ones_by_rpcs() {
        let long = default_gbps(2, 4, 61_008.1);
        assert!((long - GBPS_PER_CORE * 2.0 / 4.0).abs() < 0.01, "{long}");
        let short = default_gbps(2, 4, 192.8);
        let rpcs = short * 1e9 / 8.0 / (2.0 * 192.8) * 4.0;
        assert!((rpcs / (2.0 * RPCS_PER_CORE) - 1.0).abs() < 0.01, "{rpcs}");
    }

    #[test]
    fn nodes_share_and_cores_add() {
        assert_eq!(default_gbps(2, 4, 1e5), default_gbps(4, 8, 1e5));
        assert_eq!(default_gbps(4, 4, 1e5), 2.0 * default_gbps(2, 4, 1e5));
        assert_eq!(default_gbps(64, 4, 1e5), default_gbps(4, 4, 1e5), "a node uses one core");
        assert!(default_gbps(0, 0, 1e5).is_finite());
    }
}
