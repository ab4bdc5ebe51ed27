//! `rpc`: what happened to one RPC, on both sides, in order? Source: timetrace.md 10.6.

use super::calls::Call;
use super::rtt::{PHASES, phases};
use super::samples::us;
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{AMBIGUOUS, Have, Kind, Record};
use crate::model::Model;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Rpc;

impl Analyzer for Rpc {
    fn about(&self) -> &'static About {
        &About {
            name: "rpc",
            question: "What happened to one RPC, on both sides, in order?",
            source: "timetrace.md 10.6",
            needs: Needs::Any(&[Kind::SendmsgRequest, Kind::IpXmit, Kind::GroData]),
            uses: &[],
            options: &["rpc"],
            requires: &["rpc"],
        }
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let text = options.rpc.as_deref().unwrap_or_default();
        let (client, id) = match text.rsplit_once(':') {
            Some((client, id)) => (Some(client), id.parse::<u32>()),
            None => (None, text.parse::<u32>()),
        };
        let Ok(id) = id else {
            let warning = format!("rpc: expected an id, or CLIENT:ID, found `{text}`");
            return Report { warnings: vec![warning], ..Report::default() };
        };
        let mine = |host: u16| client.is_none_or(|name| model.hosts.name(host) == name);
        let mut clients: Vec<u16> =
            model.rpcs().sides.iter().filter(|s| s.id | 1 == id | 1 && mine(s.client)).map(|s| s.client).collect();
        clients.sort_unstable();
        clients.dedup();
        let [client] = clients.as_slice() else {
            let names: Vec<String> = clients.iter().map(|c| format!("{}:{}", model.hosts.name(*c), id & !1)).collect();
            let warning = if names.is_empty() {
                format!("rpc: no RPC {text} in the traces")
            } else {
                format!("rpc: several clients used the id: choose one with --rpc {}", names.join(" or --rpc "))
            };
            return Report { warnings: vec![warning], ..Report::default() };
        };
        let mut report = Report::of([events(model, *client, id & !1)]);
        if let Some(call) = Call::all(model).into_iter().find(|c| (c.client.client, c.client.id) == (*client, id & !1))
        {
            let mut list = Call::table("In short:");
            list.row(call.row(model));
            let mut table =
                Table::new("phases", "Each phase from the end of the one before, until the first packet is ready:")
                    .column("Phase", Unit::None, "")
                    .column("Time", Unit::Us, "")
                    .column("Meaning", Unit::None, "");
            for ((name, meaning), time) in PHASES.iter().zip(phases(&call)).filter(|(_, time)| time.is_some()) {
                table.row([(*name).into(), us(time), (*meaning).into()]);
            }
            report.tables.extend([list, table]);
        }
        report
    }
}

/// All events of an RPC in the order of the common clock.
fn events(model: &Model, client: u16, id: u32) -> Table {
    let mut all: Vec<(i64, u16, &Record)> = Vec::new();
    for (node, trace) in model.traces.iter().enumerate() {
        let offset = model.clock.offset(node).unwrap_or(0);
        let ours =
            |r: &&Record| r.client == client && r.client != AMBIGUOUS && r.rpc().is_some_and(|rpc| rpc & !1 == id);
        all.extend(trace.records.iter().filter(ours).map(|r| (r.time + offset, node as u16, r)));
    }
    all.sort_by_key(|(time, ..)| *time);
    let mut table = Table::new("events", format!("RPC {id} of {}:", model.hosts.name(client)))
        .column("Time", Unit::Us, "")
        .decimals(3)
        .column("Since", Unit::Us, "since the first line")
        .decimals(3)
        .column("Delta", Unit::Us, "since the line above")
        .decimals(3)
        .column("Node", Unit::None, "")
        .column("Core", Unit::None, "")
        .column("Event", Unit::None, "")
        .column("Id", Unit::None, "")
        .column("Offset", Unit::None, "")
        .column("A", Unit::None, "the event's first number: length, level, core, ...")
        .column("B", Unit::None, "its second");
    let first = all.first().map_or(0, |(time, ..)| *time);
    let mut before = first;
    for (time, node, record) in all {
        let field = |field: Have, value: u32| record.have.has(field).then_some(value as i32);
        table.row([
            us(Some(time)),
            us(Some(time - first)),
            us(Some(time - before)),
            model.name(node).into(),
            record.core.into(),
            record.kind.name().into(),
            record.id.into(),
            record.have.has(Have::OFFSET).then_some(record.offset).into(),
            field(Have::A, record.a).into(),
            field(Have::B, record.b).into(),
        ]);
        before = time;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn all_events_of_both_sides_are_merged_in_order() {
        let mut traffic = Traffic::new(2);
        traffic.rpc((0, 1), 10, (100, 100), 100.0, Delays::USUAL);
        traffic.rpc((0, 1), 12, (100, 100), 110.0, Delays::USUAL);
        traffic.rpc((1, 0), 12, (100, 100), 500.0, Delays::USUAL);
        let model = traffic.model();
        let run = |rpc: &str| Rpc.run(&model, &Options { rpc: Some(rpc.into()), ..Options::default() });
        let report = run("11");
        let table = report.table("events").unwrap();
        let times: Vec<f64> = (0..table.rows.len()).filter_map(|r| table.get(r, "time_us").number()).collect();
        assert!(times.is_sorted() && times.len() == 20, "{}", times.len());
        assert_eq!((table.get(0, "event"), table.get(19, "since_us")), (&"sendmsg_request".into(), &32.0.into()));
        let phases = report.table("phases").unwrap();
        let sum: f64 = (0..phases.rows.len()).filter_map(|r| phases.get(r, "time_us").number()).sum();
        assert_eq!(sum, 32.0);
        assert!(run("12").warnings[0].contains("--rpc node1:12 or --rpc node2:12"));
        assert_eq!(run("node2:12").table("events").unwrap().rows.len(), 20);
        assert_eq!((run("99").warnings.len(), run("x").warnings.len()), (1, 1));
    }
}
