//! Order of grants, the second half of `ooo`. Source: timetrace.md 10.3.

use std::collections::BTreeMap;

use super::samples::{Samples, kb, share};
use super::table::{Table, Unit};
use crate::model::{Flight, Model};
use crate::packets::{NO_PRIORITY, UNSEEN};

/// Tables of stale and repeated grants by the node that processes them.
pub(super) fn tables(model: &Model) -> [Table; 1] {
    let mut nodes: BTreeMap<u16, Grants> = BTreeMap::new();
    for message in 0..model.packets.messages.len() as u32 {
        let grants = model.flights().grants_for(model.rpcs(), message);
        let mut processed: Vec<&Flight> = grants.iter().filter(|f| f.softirq != UNSEEN).collect();
        if let Some(first) = processed.first() {
            let node = nodes.entry(first.to).or_default();
            processed.sort_by_key(|f| f.softirq);
            node.message(&processed, model.flights().data_of(message));
        }
    }
    let mut table = Table::new("grants", "Out-of-order grants, as the sender of the data processes them:").column(
        "Node",
        Unit::None,
        "sender of the data",
    );
    for (title, meaning) in [
        ("Grants", "processed"),
        ("Stale", "a higher one was processed before"),
        ("Dup", "an equal one was the highest before"),
        ("Msgs", "messages with grants"),
        ("StaleMsgs", "of these, with a stale one"),
        ("Issued", "stale: sent in that order"),
        ("Network", "stale: overtaken between the nodes"),
        ("Fastpath", "stale: overtaken in the host, by one that GRO's core processed itself"),
        ("Cores", "stale: overtaken in the host otherwise"),
        ("Unknown", "stale: not seen at its sender or at GRO"),
    ] {
        table = table.column(title, Unit::None, meaning);
    }
    table = table
        .column("StaleFrac", Unit::Share, "")
        .column("LateP50", Unit::Us, "since the one that overtook it")
        .column("LateP99", Unit::Us, "");
    table = table
        .column(
            "Clobbers",
            Unit::None,
            "stale grants with another level than the newest: the sender uses it until the next grant",
        )
        .column("ClobberP50", Unit::Us, "how long")
        .column("ClobberKB", Unit::Kb, "sent meanwhile")
        .key("clobber");
    for (node, g) in nodes {
        let late: Samples = g.late.iter().copied().collect();
        let clobbered: Samples = g.clobbered.iter().copied().collect();
        let counts = [g.grants, late.len() as u64, g.dups, g.messages, g.stale_messages].into_iter().chain(g.causes);
        let mut cells = vec![model.name(node).into()];
        cells.extend(counts.map(super::Cell::from));
        cells.extend([share(late.len() as f64, g.grants as f64), late.p(50), late.p(99)]);
        cells.extend([g.clobbers.into(), clobbered.p(50), kb(g.clobbered_bytes as f64).into()]);
        table.row(cells);
    }
    [table]
}

#[derive(Default)]
struct Grants {
    grants: u64,
    dups: u64,
    messages: u64,
    stale_messages: u64,
    late: Vec<i64>,
    /// Issued, network, fast path, cores, unknown.
    causes: [u64; 5],
    clobbers: u64,
    clobbered: Vec<i64>,
    clobbered_bytes: u64,
}

impl Grants {
    /// Grants of a message in the order of processing.
    fn message(&mut self, grants: &[&Flight], data: &[Flight]) {
        self.messages += 1;
        self.grants += grants.len() as u64;
        let mut highest: Option<&Flight> = None;
        let mut stale = false;
        for (i, grant) in grants.iter().enumerate() {
            match highest {
                Some(top) if top.offset > grant.offset => {
                    stale = true;
                    self.late.push(grant.softirq - top.softirq);
                    self.causes[cause(grant, top)] += 1;
                    self.clobber(grant, top, grants.get(i + 1).map(|g| g.softirq), data);
                }
                Some(top) if top.offset == grant.offset => self.dups += 1,
                _ => highest = Some(grant),
            }
        }
        self.stale_messages += u64::from(stale);
    }

    /// The sender takes the level of the stale grant until the next.
    fn clobber(&mut self, grant: &Flight, top: &Flight, next: Option<i64>, data: &[Flight]) {
        if grant.priority == NO_PRIORITY || top.priority == NO_PRIORITY || grant.priority == top.priority {
            return;
        }
        self.clobbers += 1;
        self.clobbered.extend(next.map(|next| next - grant.softirq));
        let meanwhile = |f: &&Flight| f.head && f.xmit > grant.softirq && next.is_none_or(|next| f.xmit <= next);
        self.clobbered_bytes += data.iter().filter(meanwhile).map(|f| u64::from(f.frame)).sum::<u64>();
    }
}

/// Why `grant` was processed after `top`.
fn cause(grant: &Flight, top: &Flight) -> usize {
    if grant.xmit == UNSEEN || top.xmit == UNSEEN || grant.gro == UNSEEN || top.gro == UNSEEN {
        4
    } else if grant.xmit > top.xmit {
        0
    } else if grant.gro > top.gro {
        1
    } else if top.softirq_core == top.gro_core {
        2
    } else {
        3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn stale_grants_are_found_and_attributed() {
        let mut traffic = Traffic::new(2);
        let d = |net, softirq| Delays { net, softirq, ..Delays::USUAL };
        let grant = |traffic: &mut Traffic, limit, at, d| traffic.grant((1, 0), 11, limit, 1000, at, d);
        grant(&mut traffic, 1000, 0.0, Delays::USUAL);
        // Overtaken in the network: processed at 22.5, 7 us after the higher one.
        grant(&mut traffic, 2000, 5.0, d(15.0, 2.0));
        grant(&mut traffic, 3000, 8.0, d(5.0, 2.0));
        // Overtaken in the host: at GRO before, in SoftIRQ 6 us after.
        grant(&mut traffic, 4000, 40.0, d(5.0, 10.0));
        grant(&mut traffic, 5000, 42.0, d(5.0, 2.0));
        // Sent in the wrong order, and a repetition.
        grant(&mut traffic, 4500, 60.0, Delays::USUAL);
        grant(&mut traffic, 5000, 70.0, Delays::USUAL);
        traffic.packet((0, 1), 10, (0, 1000, 9000), 100.0, Delays::USUAL);
        let [table] = tables(&traffic.model());
        let number = |key: &str| table.get(0, key).number().unwrap();
        assert_eq!(
            [number("grants"), number("stale"), number("dup"), number("msgs"), number("stale_msgs")],
            [7.0, 3.0, 1.0, 1.0, 1.0]
        );
        assert_eq!([number("issued"), number("network"), number("cores"), number("fastpath")], [1.0, 1.0, 1.0, 0.0]);
        assert_eq!(number("late_p50_us"), 7.0);
        assert_eq!(number("clobbers"), 0.0, "all have one level");
    }

    #[test]
    fn a_stale_grant_changes_the_level_until_the_next() {
        let mut traffic = Traffic::new(2);
        for (time, limit, level) in [(10.0, 2000, 6), (20.0, 1000, 2), (50.0, 3000, 6)] {
            traffic.event(
                1,
                2,
                time - 5.0,
                format!("sending grant for id 11, offset {limit}, priority {level}, increment 100"),
            );
            traffic.event(
                0,
                1,
                time - 1.0,
                format!("homa_gro_receive got grant from 0xa000103 id 10, offset {limit}, priority 7"),
            );
            traffic.event(
                0,
                1,
                time,
                format!("processing grant for id 10, offset {limit}, priority {level}, increment 100"),
            );
        }
        traffic.packet((0, 1), 10, (0, 1400, 9000), 30.0, Delays::USUAL);
        traffic.packet((0, 1), 10, (1400, 1400, 9000), 60.0, Delays::USUAL);
        let [table] = tables(&traffic.model());
        assert_eq!(
            (table.get(0, "clobbers"), table.get(0, "clobber_p50_us"), table.get(0, "clobber_kb")),
            (&1u32.into(), &30.0.into(), &1.4.into())
        );
    }
}
