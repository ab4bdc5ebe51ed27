//! `filter`: how long do chosen packets take? Source: timetrace.md 5.7.
//!
//! Packets must have been passed to IP and received. Conditions that are given must all hold; times are inclusive at the
//! start and exclusive at the end.

use super::packet_list;
use super::samples::{Samples, ns};
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, PktTypes, Report};
use crate::event::{Kind, Kinds};
use crate::model::flights::since;
use crate::model::{Carries, Flight, Model};
use crate::packets::UNSEEN;
use crate::stats::micros;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Filter;

impl Analyzer for Filter {
    fn about(&self) -> &'static About {
        &About {
            name: "filter",
            question: "How long do chosen packets take, and which are they?",
            source: "timetrace.md 5.7",
            needs: Needs::Any(&[Kind::IpXmit, Kind::SendGrant, Kind::TcpXmit]),
            uses: &[Kind::NicData, Kind::GroData, Kind::SoftirqData, Kind::FreeTxSkb, Kind::GroGrant, Kind::TcpGro],
            options: &[
                "tx_node",
                "rx_node",
                "tx_core",
                "rx_core",
                "tx_qid",
                "tx_start",
                "tx_end",
                "rx_start",
                "rx_end",
                "msglen",
                "grolat",
                "pkt_types",
                "segs",
                "filter",
                "sort",
                "top",
            ],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let flights = model.flights();
        let mut chosen: Vec<Flight> = flights.all().filter(|f| passes(model, f, options)).copied().collect();
        let given: Vec<String> =
            options.given().into_iter().filter(|o| self.about().options.contains(&o.as_str())).collect();
        let by = if given.is_empty() { "none".into() } else { given.join(", ") };
        let title = format!("{} packets are chosen (conditions: {by}):", chosen.len());
        let mut table = Table::new("phases", title).column("Phase", Unit::None, "").distribution();
        let total = |f: &Flight| since(f.xmit, if f.softirq == UNSEEN { f.gro } else { f.softirq });
        type Phase<'a> = (&'static str, &'a dyn Fn(&Flight) -> Option<i64>, &'static [Kind]);
        let phases: [Phase<'_>; 5] = [
            ("Xmit", &|f| since(f.xmit, f.nic), &[Kind::NicData]),
            ("Net", &|f| since(f.nic, f.gro), &[Kind::NicData]),
            ("SoftIRQ", &|f| since(f.gro, f.softirq), &[Kind::SoftirqData]),
            ("Free", &|f| since(f.nic, f.free), &[Kind::NicData, Kind::FreeTxSkb]),
            ("Total", &total, &[]),
        ];
        for (name, phase, needs) in phases {
            let samples: Samples = chosen.iter().filter_map(phase).collect();
            let empty = samples.is_empty();
            let row = table.row(std::iter::once(name.into()).chain(samples.cells()));
            let missing = model.missing(needs);
            if empty && !missing.is_empty() {
                row.note(format!("no {} in the traces", missing.join(", ")));
            }
        }
        let mut report = Report::of([table]);
        let unknown = packet_list::sort(&mut chosen, &options.sort, &["Xmit"]);
        if options.verbose {
            let mut list = packet_list::table("packets", "They are:");
            packet_list::fill(&mut list, model, &chosen, usize::MAX);
            report.tables.push(list);
        }
        report.warnings.extend(packet_list::unknown_keys("filter", &unknown, packet_list::KEYS));
        if let Some(name) = options.filter.as_ref().filter(|name| *name != "short_tcp") {
            report.warnings.push(format!("filter: there is no test `{name}`; known is short_tcp"));
        }
        report
    }
}

fn passes(model: &Model, f: &Flight, o: &Options) -> bool {
    let is = |name: &Option<String>, node: u16| name.as_ref().is_none_or(|name| model.node(name) == Some(node));
    let within = |time: i64, start: Option<f64>, end: Option<f64>| {
        start.is_none_or(|start| time >= ns(start)) && end.is_none_or(|end| time < ns(end))
    };
    let kind = match o.pkt_types {
        PktTypes::Data => f.carries == Carries::Data,
        PktTypes::Grant => f.carries == Carries::Grant,
        PktTypes::Tcp => f.carries == Carries::Tcp,
        PktTypes::All => true,
    };
    // One number is the least, as the original has it.
    let latency = |range: super::Range| {
        since(f.xmit, f.gro).map(micros).is_some_and(|t| match range.min {
            Some(_) => range.contains(t),
            None => t >= range.max,
        })
    };
    kind && f.xmit != UNSEEN
        && f.gro != UNSEEN
        && (f.head || o.segs)
        && is(&o.tx_node, f.from)
        && is(&o.rx_node, f.to)
        && o.tx_core.is_none_or(|core| core == f.tx_core)
        && o.rx_core.is_none_or(|core| core == f.gro_core)
        && o.tx_qid.is_none_or(|queue| queue == f.queue)
        && within(f.xmit, o.tx_start, o.tx_end)
        && within(f.gro, o.rx_start, o.rx_end)
        && o.msglen.is_none_or(|range| f.message_length > 0 && range.contains(f64::from(f.message_length)))
        && o.grolat.is_none_or(latency)
        && o.filter
            .as_ref()
            .is_none_or(|name| name == "short_tcp" && f.carries == Carries::Tcp && (11..=1500).contains(&f.frame))
}

#[cfg(test)]
mod tests {
    use super::super::Range;
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    fn count(change: impl Fn(&mut Options)) -> f64 {
        let mut traffic = Traffic::new(2);
        for i in 0..10u32 {
            let net = 5.0 + f64::from(i);
            traffic.packet((0, 1), 10 + 2 * i, (0, 1000, 1000), 100.0 * f64::from(i), Delays { net, ..Delays::USUAL });
        }
        traffic.message((1, 0), 51, 5000, 2000.0, Delays::USUAL);
        traffic.grant((1, 0), 11, 5000, 1000, 2100.0, Delays::USUAL);
        let mut options = Options::default();
        change(&mut options);
        let report = Filter.run(&traffic.model(), &options);
        let table = report.table("phases").unwrap();
        table.get(table.find(&["Total"]).unwrap(), "count").number().unwrap()
    }

    #[test]
    fn each_condition_chooses() {
        assert_eq!(count(|_| ()), 14.0);
        assert_eq!(count(|o| o.tx_node = Some("node1".into())), 10.0);
        assert_eq!(count(|o| o.rx_node = Some("node1".into())), 4.0);
        assert_eq!(count(|o| (o.tx_start, o.tx_end) = (Some(100.0), Some(500.0))), 4.0, "from 100 to before 500");
        assert_eq!(count(|o| (o.rx_start, o.rx_end) = (Some(205.0), Some(310.0))), 2.0);
        assert_eq!(count(|o| o.msglen = Some(Range { min: Some(2000.0), max: 9000.0 })), 4.0);
        assert_eq!(count(|o| o.grolat = Some(Range { min: None, max: 10.5 })), 5.0, "at least");
        assert_eq!(count(|o| o.grolat = Some(Range { min: Some(5.5), max: 7.5 })), 7.0);
        assert_eq!(count(|o| o.pkt_types = PktTypes::Grant), 1.0);
        assert_eq!(count(|o| o.pkt_types = PktTypes::All), 15.0);
        assert_eq!(count(|o| o.tx_core = Some(9)), 0.0);
        assert_eq!(count(|o| o.tx_qid = Some(4)), 14.0);
        assert_eq!(count(|o| o.filter = Some("short_tcp".into())), 0.0);
    }

    #[test]
    fn chosen_packets_are_listed_in_any_order() {
        let mut traffic = Traffic::new(2);
        traffic.packet((0, 1), 10, (0, 1000, 1000), 0.0, Delays { net: 500.0, ..Delays::USUAL });
        traffic.packet((0, 1), 12, (0, 1000, 1000), 100.0, Delays::USUAL);
        let options = |sort: &[&str]| Options {
            verbose: true,
            sort: sort.iter().map(|s| (*s).into()).collect(),
            ..Options::default()
        };
        let first = |sort: &[&str]| {
            Filter.run(&traffic.model(), &options(sort)).table("packets").unwrap().get(0, "id_seq").clone()
        };
        assert_eq!((first(&[]), first(&["Gro"])), (10u32.into(), 12u32.into()));
    }
}
