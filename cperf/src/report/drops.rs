//! Packets that hosts received and did not use, by reason, from the metrics of all nodes.

use std::collections::BTreeMap;

use homa_stack::metrics::DropReason;
use scan_metrics::read::total;

/// Counts of all nodes together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostDrops {
    /// Data packets received.
    pub received: u64,
    /// Packets not used, by reason; reasons that did not occur are left out.
    pub reasons: BTreeMap<&'static str, u64>,
}

/// What comes twice if something was sent again, or after its RPC has ended: no fault of the host.
const REPEATS: [DropReason; 3] = [DropReason::Duplicate, DropReason::UnknownRpc, DropReason::Executed];

impl HostDrops {
    /// Sums the counters of nodes' metrics, a text each; `None` if there are none.
    pub fn sum(texts: impl Iterator<Item = String>) -> Option<Self> {
        let mut all: Option<Self> = None;
        for text in texts {
            let sum = all.get_or_insert_default();
            sum.received += total(&text, "packets_rcvd_DATA").unwrap_or(0);
            for reason in DropReason::ALL {
                sum.add(reason.name(), total(&text, &format!("drop_{}", reason.name())));
            }
            sum.add("ring_full", total(&text, "ring_drops"));
        }
        all
    }

    fn add(&mut self, reason: &'static str, count: Option<u64>) {
        if let Some(count) = count.filter(|count| *count > 0) {
            *self.reasons.entry(reason).or_default() += count;
        }
    }

    /// Repeats, and all others.
    pub fn split(&self) -> (u64, u64) {
        let repeats = REPEATS.iter().filter_map(|reason| self.reasons.get(reason.name())).sum();
        (repeats, self.reasons.values().sum::<u64>() - repeats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_nodes_are_added_by_reason() {
        let node = "core 0\npackets_rcvd_DATA 100 x\ndrop_duplicate 2 x\ndrop_short 0 x\nring_drops 1 x\ncore 1\ndrop_duplicate 3 x\n";
        let drops = HostDrops::sum([node.to_owned(), node.to_owned()].into_iter()).unwrap();
        assert_eq!(drops, HostDrops { received: 200, reasons: [("duplicate", 10), ("ring_full", 2)].into() });
        assert_eq!(drops.split(), (10, 2));
        assert_eq!(HostDrops::sum([].into_iter()), None);
    }
}
