//! `grants`: how many messages hold grants that were not used, and how many bytes? Source: timetrace.md 5.9.
//!
//! A receiver's grant is outstanding until SoftIRQ has the data; a sender's is available until the data are passed to IP.
//! Unscheduled bytes are available from the application's call on. Means are from the trace's begin to the node's
//! last change.

use super::credit::Credit;
use super::samples::{columns, kb, us};
use super::steps::Steps;
use super::sweep::{Sweep, Swept};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::Model;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Grants;

/// Messages in a line of a data file.
const MESSAGES: usize = 8;

impl Analyzer for Grants {
    fn about(&self) -> &'static About {
        &About {
            name: "grants",
            question: "How many messages hold grants that are not used, and how many bytes?",
            source: "timetrace.md 5.9",
            needs: Needs::All(&[Kind::SendGrant]),
            uses: &[Kind::SoftirqGrant, Kind::SoftirqData, Kind::IpXmit, Kind::SendmsgRequest, Kind::Unsched],
            options: &["interval"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let credits: Vec<Credit> =
            (0..model.packets.messages.len() as u32).map(|message| Credit::of(model, message)).collect();
        let mut report = Report::of([summary(model, &credits)]);
        if options.data.is_some() {
            report.tables.extend(series(model, &credits, options, "grants_rx", true));
            report.tables.extend(series(model, &credits, options, "grants_tx", false));
        }
        report
    }
}

/// Numbers of messages and of bytes over time.
#[derive(Clone, Default)]
struct Both {
    messages: Sweep,
    bytes: Sweep,
}

impl Both {
    fn add(&mut self, stretches: &[(i64, i64, f64)]) {
        // A message whose bytes change has grants all the time.
        let mut merged: Option<(i64, i64)> = None;
        for (a, b, bytes) in stretches {
            self.bytes.lasts(*a, *b, *bytes);
            match &mut merged {
                Some((_, end)) if *end == *a => *end = *b,
                _ => {
                    if let Some((a, b)) = merged.replace((*a, *b)) {
                        self.messages.lasts(a, b, 1.0);
                    }
                }
            }
        }
        if let Some((a, b)) = merged {
            self.messages.lasts(a, b, 1.0);
        }
    }

    fn cells(self, span: (i64, i64), means: &mut Vec<f64>) -> Vec<Cell> {
        let (messages, bytes): (Swept, Swept) = (self.messages.run(span.0, span.1), self.bytes.run(span.0, span.1));
        means.extend([messages.mean().unwrap_or(0.0), bytes.mean().map_or(0.0, kb)]);
        let mut cells: Vec<Cell> = vec![messages.mean().into()];
        cells.extend((0..4).map(|n| Cell::from(messages.share(n))));
        cells.push(bytes.mean().map(kb).into());
        cells
    }
}

fn summary(model: &Model, credits: &[Credit]) -> Table {
    let mut incoming = vec![Both::default(); model.traces.len()];
    let mut outgoing = incoming.clone();
    for credit in credits {
        if let Some(both) = incoming.get_mut(usize::from(credit.receiver)) {
            both.add(&credit.outstanding);
        }
        if let Some(both) = outgoing.get_mut(usize::from(credit.sender)) {
            both.add(&credit.available);
        }
    }
    let mut table = Table::new("grants", "Messages with grants that are not used:").column("Node", Unit::None, "");
    table = table.column("InMsgs", Unit::None, "incoming messages with outstanding grants, mean").decimals(2);
    table = columns(
        table,
        Unit::Share,
        &[("In0", "share of time that there are none"), ("In1", ""), ("In2", ""), ("In3", "")],
    );
    table = table.column("InKB", Unit::Kb, "outstanding bytes, mean").key("in");
    table = table.column("OutMsgs", Unit::None, "outgoing messages with available grants, mean").decimals(2);
    table = columns(table, Unit::Share, &[("Out0", ""), ("Out1", ""), ("Out2", ""), ("Out3", "")]);
    table = table.column("OutKB", Unit::Kb, "available bytes, mean").key("out");
    let mut means: Vec<Vec<f64>> = Vec::new();
    for (node, first, last) in model.spans() {
        let take = |all: &mut Vec<Both>| std::mem::take(&mut all[usize::from(node)]);
        let (inc, out) = (take(&mut incoming), take(&mut outgoing));
        // Up to the last change on the node, as the original: traces may end long after the traffic.
        let sweeps = [&inc.messages, &inc.bytes, &out.messages, &out.bytes];
        let last = sweeps.into_iter().filter_map(|s| s.span()).map(|(_, to)| to).max().map_or(last, |to| to.min(last));
        let mut mean = Vec::new();
        let mut cells = vec![model.name(node).into()];
        cells.extend(inc.cells((first, last), &mut mean));
        cells.extend(out.cells((first, last), &mut mean));
        table.row(cells);
        means.push(mean);
    }
    if means.len() > 1 {
        let mean = |i: usize| Cell::from(means.iter().map(|m| m[i]).sum::<f64>() / means.len() as f64);
        let no = || (0..4).map(|_| Cell::None);
        let mut cells = vec!["Average".into(), mean(0)];
        cells.extend(no().chain([mean(1), mean(2)]).chain(no()).chain([mean(3)]));
        table.row(cells);
    }
    table
}

/// For each node and step, the messages with grants, those with the most bytes to come first.
fn series(model: &Model, credits: &[Credit], options: &Options, name: &str, receiving: bool) -> Vec<Table> {
    let mut nodes: Vec<Vec<(i64, i64, f64, usize)>> = vec![Vec::new(); model.traces.len()];
    for (message, credit) in credits.iter().enumerate() {
        let (node, stretches) =
            if receiving { (credit.receiver, &credit.outstanding) } else { (credit.sender, &credit.available) };
        if let Some(list) = nodes.get_mut(usize::from(node)) {
            list.extend(stretches.iter().map(|(a, b, bytes)| (*a, *b, *bytes, message)));
        }
    }
    let table = |(node, mut list): (usize, Vec<(i64, i64, f64, usize)>)| {
        let steps = Steps::new(model, node as u16, options.interval, 1)?;
        list.sort_by_key(|(a, ..)| *a);
        let title = if receiving {
            "Incoming messages with outstanding grants"
        } else {
            "Outgoing messages with available grants"
        };
        let mut table = Table::series(
            name,
            &model.name(node as u16),
            format!("{title}, at most {MESSAGES}, most bytes to come first"),
        )
        .column("Time", Unit::Us, "end of the step");
        for i in 1..=MESSAGES {
            table = table.column(format!("Id{i}"), Unit::None, "").column(format!("Rem{i}"), Unit::Bytes, "");
            table = table.column(format!("Grant{i}"), Unit::Bytes, "");
        }
        let mut next = 0;
        let mut open: Vec<(i64, f64, usize)> = Vec::new();
        for k in 0..steps.count {
            let end = steps.end(k);
            while let Some((_, b, bytes, message)) = list.get(next).filter(|(a, ..)| *a < end) {
                open.push((*b, *bytes, *message));
                next += 1;
            }
            open.retain(|(b, ..)| *b >= end);
            let mut rows: Vec<(Option<i64>, f64, usize)> =
                open.iter().map(|(_, bytes, message)| (remaining(model, *message, end), *bytes, *message)).collect();
            rows.sort_by_key(|(remaining, ..)| std::cmp::Reverse(*remaining));
            let mut cells = vec![us(Some(end))];
            for (remaining, bytes, message) in rows.into_iter().take(MESSAGES) {
                let id = model.packets.messages[message].id ^ u32::from(receiving);
                cells.extend([id.into(), remaining.into(), bytes.into()]);
            }
            table.row(cells);
        }
        Some(table)
    };
    nodes.into_iter().enumerate().filter_map(table).collect()
}

/// Bytes of a message that SoftIRQ has not had at `time`.
fn remaining(model: &Model, message: usize, time: i64) -> Option<i64> {
    let length = i64::from(model.packets.messages[message].length?);
    let had = model.flights().data_of(message as u32).iter();
    let had = had.filter(|f| f.softirq != crate::packets::UNSEEN && f.softirq <= time);
    Some(length - i64::from(had.map(|f| f.data_end()).max().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    fn traffic() -> Traffic {
        let mut traffic = Traffic::new(2);
        for node in 0..2 {
            traffic.event(node, 0, 0.0, "homa_softirq starting").event(node, 0, 5000.0, "homa_softirq starting");
        }
        traffic
    }

    #[test]
    fn means_are_those_of_the_bytes_granted() {
        let mut traffic = traffic();
        // Grants of 2800 bytes at 100, whose two packets are sent at 300 and 400 and processed 7.5 us later.
        traffic.grant((1, 0), 11, 2800, 2800, 100.0, Delays::USUAL);
        traffic.packet((0, 1), 10, (0, 1400, 2800), 300.0, Delays::USUAL);
        traffic.packet((0, 1), 10, (1400, 1400, 2800), 400.0, Delays::USUAL);
        let report = Grants.run(&traffic.model(), &Options::default());
        let table = report.table("grants").unwrap();
        let receiver = table.find(&["node2"]).unwrap();
        // 2800 bytes for 207.5 us, 1400 for 100 us, of the 407.5 us until the last change.
        let number = |row: usize, key: &str| table.get(row, key).number().unwrap();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(number(receiver, "in_kb") * 407.5, 207.5 * 2.8 + 100.0 * 1.4);
        near(number(receiver, "in_msgs") * 407.5, 307.5);
        near(number(receiver, "in0_share") * 407.5, 100.0);
        // The sender knows at 107.5 and has sent all at 400.
        let sender = table.find(&["node1"]).unwrap();
        near(number(sender, "out_kb") * 400.0, 192.5 * 2.8 + 100.0 * 1.4);
        near(number(table.find(&["Average"]).unwrap(), "in_msgs") * 407.5 * 2.0, 307.5);
    }

    #[test]
    fn the_data_file_has_the_messages_with_the_most_to_come_first() {
        let mut traffic = traffic();
        traffic.grant((1, 0), 11, 1400, 1400, 100.0, Delays::USUAL);
        traffic.grant((1, 0), 13, 2800, 2800, 120.0, Delays::USUAL);
        traffic.packet((0, 1), 10, (0, 1400, 1400), 300.0, Delays::USUAL);
        traffic.packet((0, 1), 12, (0, 1400, 2800), 300.0, Delays::USUAL);
        let options = Options { data: Some("x".into()), ..Options::default() };
        let report = Grants.run(&traffic.model(), &options);
        let table = report.table("grants_rx_node2").unwrap();
        let row = (0..table.rows.len()).find(|r| table.get(*r, "time_us") == &150.0.into()).unwrap();
        assert_eq!(
            (table.get(row, "id1"), table.get(row, "rem1_bytes"), table.get(row, "grant1_bytes")),
            (&13u32.into(), &2800i64.into(), &2800.0.into())
        );
        assert_eq!((table.get(row, "id2"), table.get(row, "id3")), (&11u32.into(), &Cell::None));
    }
}
