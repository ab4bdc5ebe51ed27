//! The list of packets that several analyses print (timetrace.md 5.46).

use super::samples::us;
use super::table::{Cell, Table, Unit};
use crate::model::flights::{seen, since};
use crate::model::{Carries, Flight, Model, NOWHERE};
use crate::packets::UNSEEN;

/// An empty list.
pub(super) fn table(name: &str, title: impl Into<String>) -> Table {
    columns(Table::new(name, title))
}

/// Adds the columns of the list.
pub(super) fn columns(table: Table) -> Table {
    table
        .column("Source", Unit::None, "")
        .column("Dest", Unit::None, "")
        .column("Xmit", Unit::Us, "passed to IP")
        .decimals(3)
        .column("Qdisc", Unit::Us, "let go by homa_qdisc, if it was held back")
        .decimals(3)
        .column("Id/Seq", Unit::None, "RPC on the sender; of TCP, the sequence number")
        .column("Offset", Unit::None, "in the message; TCP, or grant with its limit")
        .column("Length", Unit::Bytes, "of the frame, for its first packet; else of the packet")
        .column("Qid", Unit::None, "transmit queue")
        .column("Nic", Unit::Us, "given to the NIC")
        .decimals(3)
        .column("NDelay", Unit::Us, "from IP to the NIC")
        .column("Gro", Unit::Us, "received")
        .decimals(3)
        .column("GDelay", Unit::Us, "from the NIC to GRO")
        .column("Free", Unit::Us, "given back by the NIC")
        .decimals(3)
        .column("FDelay", Unit::Us, "from the NIC back")
        .column("Rx", Unit::None, "yes if its bytes were sent before")
}

/// A packet's fields.
pub(super) fn row(model: &Model, f: &Flight) -> Vec<Cell> {
    let name = |node: u16| if node == NOWHERE { Cell::None } else { model.name(node).into() };
    let offset: Cell = match f.carries {
        Carries::Data => f.offset.into(),
        Carries::Grant => format!("grant:{}", f.offset).into(),
        Carries::Tcp => "TCP".into(),
    };
    vec![
        name(f.from),
        name(f.to),
        us(seen(f.xmit)),
        us(seen(f.undeferred)),
        f.id.into(),
        offset,
        f.bytes().into(),
        f.queue().into(),
        us(seen(f.nic)),
        us(since(f.xmit, f.nic)),
        us(seen(f.gro)),
        us(since(f.nic, f.gro)),
        us(seen(f.free)),
        us(since(f.nic, f.free)),
        f.again.into(),
    ]
}

/// Sorts by `keys`, the first being the most significant; `or` if there are none. Unknown times come last. Returns the
/// keys that mean nothing.
pub(super) fn sort(flights: &mut [Flight], keys: &[String], or: &[&str]) -> Vec<String> {
    let keys: Vec<String> = if keys.is_empty() { or.iter().map(|k| (*k).into()).collect() } else { keys.to_vec() };
    let mut unknown = Vec::new();
    let last = |time: i64| if time == UNSEEN { i64::MAX } else { time };
    for key in keys.iter().rev() {
        match key.to_lowercase().as_str() {
            "qid" => flights.sort_by_key(|f| f.queue),
            "xmit" => flights.sort_by_key(|f| last(f.xmit)),
            "qdisc" => flights.sort_by_key(|f| last(f.undeferred)),
            "nic" => flights.sort_by_key(|f| last(f.nic)),
            "gro" => flights.sort_by_key(|f| last(f.gro)),
            "softirq" => flights.sort_by_key(|f| last(f.softirq)),
            "free" => flights.sort_by_key(|f| last(f.free)),
            _ => unknown.push(key.clone()),
        }
    }
    unknown
}

/// What to say of keys that mean nothing.
pub(super) fn unknown_keys(name: &str, keys: &[String], known: &str) -> Option<String> {
    (!keys.is_empty()).then(|| format!("{name}: --sort {} means nothing; known are {known}", keys.join(",")))
}

/// Keys of [`sort`].
pub(super) const KEYS: &str = "Qid, Xmit, Qdisc, Nic, Gro, SoftIRQ, Free";

/// Adds the packets to a list, at most `top`.
pub(super) fn fill<'a>(table: &mut Table, model: &Model, flights: impl IntoIterator<Item = &'a Flight>, top: usize) {
    for flight in flights.into_iter().take(top) {
        table.row(row(model, flight));
    }
}
