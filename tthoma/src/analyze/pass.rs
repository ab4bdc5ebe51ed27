//! `pass`: do packets of higher levels overtake others on the way to a node? Source: timetrace.md 5.27.
//!
//! A packet passes another if it went to the NIC later and arrived at the same node earlier. Its gain is the time between
//! their passing to NICs; the largest counts.

use std::collections::BTreeMap;

use super::samples::{Samples, share};
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::{Flight, Model};
use crate::packets::UNSEEN;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Pass;

/// Levels of packets.
const LEVELS: usize = 256;

impl Analyzer for Pass {
    fn about(&self) -> &'static About {
        &About {
            name: "pass",
            question: "Do packets of higher levels overtake those of lower levels, and by how much?",
            source: "timetrace.md 5.27",
            needs: Needs::All(&[Kind::NicData, Kind::GroData]),
            uses: &[],
            options: &["same_gro_core"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        // By node, or by node and core: packets that can pass each other.
        let mut groups: BTreeMap<(u16, u16), Vec<&Flight>> = BTreeMap::new();
        for f in model.flights().data.iter().filter(|f| f.nic != UNSEEN && f.gro != UNSEEN && f.level().is_some()) {
            groups.entry((f.to, if options.same_gro_core { f.gro_core } else { 0 })).or_default().push(f);
        }
        let mut nodes: BTreeMap<u16, Passes> = BTreeMap::new();
        for ((node, _), packets) in groups {
            nodes.entry(node).or_default().add(packets);
        }
        let mut table = Table::new("pass", "Packets that arrived before others that had left earlier:")
            .column("Node", Unit::None, "receiver")
            .column("Packets", Unit::None, "")
            .column("PassFrac", Unit::Share, "share that passed one of a lower level")
            .column("GainP50", Unit::Us, "how much later they had left")
            .column("GainP90", Unit::Us, "")
            .column("GainMax", Unit::Us, "")
            .column("RFrac", Unit::Share, "share that passed one of a higher level")
            .column("RP50", Unit::Us, "how much later they had left")
            .column("RP90", Unit::Us, "")
            .column("RMax", Unit::Us, "");
        for (node, p) in nodes {
            let (up, down): (Samples, Samples) = (p.gains.into_iter().collect(), p.reverse.into_iter().collect());
            let frac = |s: &Samples| share(s.len() as f64, p.packets as f64);
            table.row([
                model.name(node).into(),
                p.packets.into(),
                frac(&up),
                up.p(50),
                up.p(90),
                up.max(),
                frac(&down),
                down.p(50),
                down.p(90),
                down.max(),
            ]);
        }
        Report::of([table])
    }
}

#[derive(Default)]
struct Passes {
    packets: u64,
    gains: Vec<i64>,
    reverse: Vec<i64>,
}

impl Passes {
    /// Packets that were passed are those with an earlier `nic` and a later `gro`. In the order of departure, each level
    /// keeps the departures of packets that may still be passed: one that leaves later and arrives later than another
    /// can't be passed earlier than that other was, so that only growing arrivals are kept.
    fn add(&mut self, mut packets: Vec<&Flight>) {
        packets.sort_by_key(|f| (f.nic, f.gro));
        self.packets += packets.len() as u64;
        // For each level: (arrival, departure); both ascend.
        let mut levels: Vec<Vec<(i64, i64)>> = vec![Vec::new(); LEVELS];
        let mut used: Vec<usize> = Vec::new();
        for f in packets {
            let level = usize::from(f.priority);
            // The earliest departure among those that arrive after this one and left before it.
            let earliest = |levels: &[Vec<(i64, i64)>], which: &mut dyn Iterator<Item = usize>| {
                which
                    .filter_map(|l| {
                        let list = &levels[l];
                        list.get(list.partition_point(|(gro, _)| *gro <= f.gro)).map(|(_, nic)| *nic)
                    })
                    .filter(|nic| *nic < f.nic)
                    .min()
            };
            self.gains
                .extend(earliest(&levels, &mut used.iter().copied().filter(|l| *l < level)).map(|nic| f.nic - nic));
            self.reverse
                .extend(earliest(&levels, &mut used.iter().copied().filter(|l| *l > level)).map(|nic| f.nic - nic));
            let list = &mut levels[level];
            if list.is_empty() {
                used.push(level);
            }
            // A packet whose arrival is not the latest so far never is the earliest departure among later arrivals.
            if list.last().is_none_or(|(gro, _)| *gro < f.gro) {
                list.push((f.gro, f.nic));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Cell;
    use crate::analyze::testing::Traffic;

    /// A packet of a level that leaves at `nic` and arrives at `gro`.
    fn packet(traffic: &mut Traffic, id: u32, level: u32, nic: f64, gro: f64) {
        traffic.event(
            0,
            3,
            nic - 0.5,
            format!("calling ip_queue_xmit: wire_bytes 218, peer 0xa000103, id {id}, offset 0"),
        );
        traffic.event(0, 3, nic, format!("sent homa data packet via mlx to 0xa000103, id {id}, offset 0, queue 0xff"));
        let text = format!("homa_gro_receive got packet from 0xa000102 id {}, offset 0, priority {level}", id + 1);
        traffic.event(1, 1 + (id as u16 / 100), gro, text);
    }

    #[test]
    fn gains_are_those_of_brute_force() {
        let mut traffic = Traffic::new(2);
        let mut list = Vec::new();
        for i in 0..80u32 {
            // Numbers without order, always the same.
            let noise = f64::from((i * 7919) % 83);
            let (level, nic) = ((i * 31) % 5, 10.0 * f64::from(i) + 100.0);
            let gro = nic + 5.0 + noise * 2.0;
            packet(&mut traffic, 10 + 2 * i, level, nic, gro);
            list.push((level, nic, gro));
        }
        let gain = |up: bool| {
            let mut gains: Vec<f64> = Vec::new();
            for a in &list {
                let passed = list.iter().filter(|b| b.1 < a.1 && b.2 > a.2 && if up { b.0 < a.0 } else { b.0 > a.0 });
                gains.extend(passed.map(|b| a.1 - b.1).reduce(f64::max));
            }
            gains.sort_by(f64::total_cmp);
            gains
        };
        let (up, down) = (gain(true), gain(false));
        let report = Pass.run(&traffic.model(), &Options::default());
        let table = report.table("pass").unwrap();
        let number = |key: &str| table.get(0, key).number().unwrap();
        assert_eq!(
            (number("pass_frac_share") * 80.0, number("rfrac_share") * 80.0),
            (up.len() as f64, down.len() as f64)
        );
        assert_eq!((number("gain_p50_us"), number("gain_max_us")), (up[50 * up.len() / 100], up[up.len() - 1]));
        assert_eq!(number("rp90_us"), down[90 * down.len() / 100]);
    }

    #[test]
    fn packets_of_other_cores_may_be_left_out_and_nothing_may_pass() {
        let mut traffic = Traffic::new(2);
        packet(&mut traffic, 10, 1, 10.0, 100.0);
        packet(&mut traffic, 210, 5, 20.0, 30.0);
        let run = |same_gro_core| {
            Pass.run(&traffic.model(), &Options { same_gro_core, ..Options::default() }).tables.remove(0)
        };
        assert_eq!(run(false).get(0, "gain_max_us"), &10.0.into());
        assert_eq!(run(true).get(0, "gain_max_us"), &Cell::None);
    }
}
