//! Rows of tables as plain vectors, made of a model.

use std::sync::Arc;

use super::invocations::Invocation;
use super::schema::Type;
use crate::analyze::{Intervals, Options, interval_values};
use crate::event::{Have, Kind, NO_HOST, Record};
use crate::model::{Handoffs, Model};
use crate::packets::{Flow, Packet, Sent, UNSEEN};

/// A column's values.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Times in ns; [`UNSEEN`] is null.
    I64(Vec<i64>),
    /// Counts.
    U64(Vec<u64>),
    /// Numbers without nulls.
    U32(Vec<u32>),
    /// Numbers, null where the second list (as long as the first) says so.
    MaybeU32(Vec<u32>, Vec<bool>),
    /// Numbers without nulls.
    U16(Vec<u16>),
    /// Numbers without nulls.
    U8(Vec<u8>),
    /// Numbers; [`NO_PRIORITY`](crate::packets::NO_PRIORITY) is null.
    Level(Vec<u8>),
    /// Numbers or null.
    F64(Vec<Option<f64>>),
    /// Yes or no.
    Bool(Vec<bool>),
    /// Texts of a list, by their place in it.
    Text(Vec<u16>, Arc<[String]>),
}

impl Values {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::I64(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::U32(v) | Self::MaybeU32(v, _) => v.len(),
            Self::U16(v) | Self::Text(v, _) => v.len(),
            Self::U8(v) | Self::Level(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::Bool(v) => v.len(),
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their type.
    pub fn r#type(&self) -> Type {
        match self {
            Self::I64(_) => Type::I64,
            Self::U64(_) => Type::U64,
            Self::U32(_) | Self::MaybeU32(..) => Type::U32,
            Self::U16(_) => Type::U16,
            Self::U8(_) | Self::Level(_) => Type::U8,
            Self::F64(_) => Type::F64,
            Self::Bool(_) => Type::Bool,
            Self::Text(..) => Type::Text,
        }
    }
}

/// Rows of a table that are filed under one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Name of the table.
    pub table: &'static str,
    /// Node that they are filed under: its name, or the address of a host without trace.
    pub node: String,
    /// Columns in the order of [`TABLES`](super::TABLES).
    pub columns: Vec<(&'static str, Values)>,
}

impl Frame {
    fn new(table: &'static str, node: String, columns: Vec<(&'static str, Values)>) -> Self {
        Self { table, node, columns }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |(_, values)| values.len())
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Values> {
        self.columns.iter().find(|(n, _)| *n == name).map(|(_, values)| values)
    }

    /// Every frame of a model, one after the other, so that only one need be in memory.
    pub fn all<'a>(model: &'a Model, options: &'a Options) -> impl Iterator<Item = Self> + 'a {
        let makers: [fn(&Model, u16) -> Self; 3] = [all_events, all_handoffs, all_invocations];
        std::iter::once(nodes_frame(model))
            .chain(each_node(model, makers))
            .chain(Self::of_rpcs(model))
            .chain(interval_frames(model, options))
    }

    /// The frames whose rows belong to one RPC each.
    pub(super) fn of_rpcs(model: &Model) -> impl Iterator<Item = Self> {
        let hosts = (0..hosts(model)).flat_map(move |host| {
            let makers: [fn(&Model, u16) -> Self; 3] = [messages, packets, retransmits];
            makers.into_iter().map(move |make| make(model, host)).filter(|frame| frame.rows() > 0)
        });
        let owners = Owners::of(model);
        let nodes = (0..model.traces.len() as u16).flat_map(move |node| {
            let frames = [transmissions(model, node, &owners), receptions(model, node, &owners)];
            frames.into_iter().chain([rpcs(model, node), grants(model, node)])
        });
        nodes.chain(hosts)
    }

    /// Adds to the numbers of messages and packets, so that those of several models are apart.
    #[cfg(feature = "tables")]
    pub(super) fn renumber(&mut self, base: &Numbers) {
        let grant = self.columns.iter().find_map(|(name, values)| match values {
            Values::Bool(grant) if *name == "is_grant" => Some(grant.clone()),
            _ => None,
        });
        let packet = |row: usize| if grant.as_ref().is_some_and(|g| g[row]) { base.grants } else { base.data };
        for (name, values) in &mut self.columns {
            let (Values::U32(numbers) | Values::MaybeU32(numbers, _)) = values else { continue };
            match *name {
                "message" => numbers.iter_mut().for_each(|n| *n += base.messages),
                "packet" => numbers.iter_mut().enumerate().for_each(|(row, n)| *n += packet(row)),
                "frame" => numbers.iter_mut().for_each(|n| *n += base.data),
                _ => {}
            }
        }
    }
}

/// How many messages and packets there are.
#[cfg(feature = "tables")]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    pub(super) messages: u32,
    pub(super) data: u32,
    pub(super) grants: u32,
}

/// The frames that `makers` make of each node.
fn each_node<const N: usize>(model: &Model, makers: [fn(&Model, u16) -> Frame; N]) -> impl Iterator<Item = Frame> {
    (0..model.traces.len() as u16).flat_map(move |node| makers.into_iter().map(move |make| make(model, node)))
}

/// Hosts that rows are filed under: nodes, addresses without traces, and stand-ins for unknown clients.
pub(super) fn hosts(model: &Model) -> u16 {
    (2 * model.traces.len() + model.hosts.outside.len()) as u16
}

fn maybe<T>(items: impl Iterator<Item = T>, value: impl Fn(T) -> Option<u32>) -> Values {
    let (values, known): (Vec<u32>, Vec<bool>) =
        items.map(value).map(|value| (value.unwrap_or(0), value.is_some())).unzip();
    if known.iter().all(|known| *known) { Values::U32(values) } else { Values::MaybeU32(values, known) }
}

fn texts(list: impl IntoIterator<Item = impl Into<String>>) -> Arc<[String]> {
    list.into_iter().map(Into::into).collect()
}

/// A node's times on the common clock.
struct Times(i64);

impl Times {
    fn of(model: &Model, node: u16) -> Self {
        Self(model.clock.offset(usize::from(node)).unwrap_or(0))
    }

    fn all(&self, times: impl Iterator<Item = i64>) -> Values {
        Values::I64(times.map(|t| if t == UNSEEN { UNSEEN } else { t + self.0 }).collect())
    }
}

pub(super) fn nodes_frame(model: &Model) -> Frame {
    let nodes = 0..model.traces.len() as u16;
    let names = || texts(model.hosts.nodes.iter().cloned());
    let paths = texts(model.traces.iter().map(|t| t.stats.path.display().to_string()));
    let span =
        |pick: fn((i64, i64)) -> i64| Values::I64(nodes.clone().map(|n| model.span(n).map_or(UNSEEN, pick)).collect());
    let places: Vec<u16> = nodes.clone().collect();
    let reference = model.clock.reference as u16;
    Frame::new(
        "nodes",
        "all".into(),
        vec![
            ("name", Values::Text(places.clone(), names())),
            ("path", Values::Text(places, paths)),
            ("first_ns", span(|s| s.0)),
            ("last_ns", span(|s| s.1)),
            (
                "offset_ns",
                Values::I64(nodes.clone().map(|n| model.clock.offset(usize::from(n)).unwrap_or(UNSEEN)).collect()),
            ),
            ("error_ns", Values::I64(nodes.map(|n| model.clock.error(reference, n).unwrap_or(UNSEEN)).collect())),
            ("lines", Values::U64(model.traces.iter().map(|t| t.stats.lines).collect())),
            ("events", Values::U64(model.traces.iter().map(|t| t.stats.records).collect())),
        ],
    )
}

fn all_events(model: &Model, node: u16) -> Frame {
    events(model, node, &model.traces[usize::from(node)].records)
}

/// Some of a node's events.
pub(super) fn events(model: &Model, node: u16, records: &[Record]) -> Frame {
    let number = |field: Have, value: fn(&Record) -> u32| {
        maybe(records.iter(), move |r: &Record| r.have.has(field).then(|| value(r)))
    };
    // The user's events come after the kinds.
    let kinds = Kind::ALL.iter().map(|kind| kind.name().to_string());
    let names = texts(kinds.chain(model.user.names().map(str::to_string)));
    let name = |r: &Record| match r.kind {
        Kind::User => (Kind::COUNT as u32 + r.c) as u16,
        kind => kind as u16,
    };
    let columns = vec![
        ("time_ns", Times::of(model, node).all(records.iter().map(|r| r.time))),
        ("core", Values::U16(records.iter().map(|r| r.core).collect())),
        ("event", Values::Text(records.iter().map(name).collect(), names)),
        ("kind", Values::U8(records.iter().map(|r| r.kind as u8).collect())),
        ("client", Values::U16(records.iter().map(|r| if r.rpc().is_some() { r.client } else { NO_HOST }).collect())),
        ("id", number(Have::ID, |r| r.id)),
        ("offset_bytes", number(Have::OFFSET, |r| r.offset)),
        ("a", number(Have::A, |r| r.a)),
        ("b", number(Have::B, |r| r.b)),
        ("c", maybe(records.iter(), |r| (r.have.has(Have::C) || r.kind == Kind::User).then_some(r.c))),
        ("peer", number(Have::PEER, |r| r.peer)),
    ];
    Frame::new("events", model.hosts.name(node), columns)
}

fn rpcs(model: &Model, node: u16) -> Frame {
    let sides: Vec<_> = model.rpcs().sides.iter().filter(|s| s.node == node).collect();
    // These are on the common clock already.
    let times = |time: fn(&crate::model::Side) -> i64| Values::I64(sides.iter().map(|s| time(s)).collect());
    let numbers = |number: fn(&crate::model::Side) -> Option<u32>| maybe(sides.iter(), |s| number(s));
    let columns = vec![
        ("client", Values::U16(sides.iter().map(|s| s.client).collect())),
        ("id", Values::U32(sides.iter().map(|s| s.id).collect())),
        ("is_client", Values::Bool(sides.iter().map(|s| s.is_client()).collect())),
        ("peer", numbers(|s| s.peer)),
        ("port", numbers(|s| s.port)),
        ("sendmsg_ns", times(|s| s.sendmsg)),
        ("copied_in_ns", times(|s| s.copied_in)),
        ("handoff_ns", times(|s| s.handoff)),
        ("queued_ns", times(|s| s.queued)),
        ("found_ns", times(|s| s.found)),
        ("copy_out_ns", times(|s| s.copy_out)),
        ("copied_out_ns", times(|s| s.copied_out)),
        ("recvmsg_done_ns", times(|s| s.recvmsg_done)),
        ("end_ns", times(|s| s.end)),
        ("out_length_bytes", numbers(|s| s.out_length)),
        ("in_length_bytes", numbers(|s| s.in_length)),
        ("unscheduled_bytes", numbers(|s| s.unscheduled)),
        ("gro_core", numbers(|s| s.gro_core.map(u32::from))),
        ("remaining_bytes", numbers(|s| s.remaining)),
        ("granted_bytes", numbers(|s| s.granted)),
        ("sent_bytes", numbers(|s| s.dumped_sent)),
        ("retransmits", Values::U32(sides.iter().map(|s| s.retransmits).collect())),
    ];
    Frame::new("rpcs", model.hosts.name(node), columns)
}

fn messages(model: &Model, host: u16) -> Frame {
    let all = model.packets.messages.iter().enumerate();
    let rows: Vec<_> = all.filter(|(_, m)| model.hosts.base(m.client) == host).collect();
    let columns = vec![
        ("message", Values::U32(rows.iter().map(|(place, _)| *place as u32).collect())),
        ("client", Values::U16(rows.iter().map(|(_, m)| m.client).collect())),
        ("id", Values::U32(rows.iter().map(|(_, m)| m.id).collect())),
        ("length_bytes", maybe(rows.iter(), |(_, m)| m.length)),
        ("started", Values::Bool(rows.iter().map(|(_, m)| m.started).collect())),
    ];
    Frame::new("messages", file_name(model, host), columns)
}

/// A host's name for files: unknown clients of a node are told apart.
fn file_name(model: &Model, host: u16) -> String {
    let known = model.traces.len() + model.hosts.outside.len();
    match usize::from(host).checked_sub(known) {
        Some(node) => format!("unknown-{}", model.hosts.name(node as u16)),
        None => model.hosts.name(host),
    }
}

/// Rows of data and grants that `mine` picks: (is a grant, place, row).
fn both<'a, T>(model: &'a Model, list: fn(&Flow) -> &[T], mine: impl Fn(&T) -> bool) -> Vec<(bool, u32, &'a T)> {
    let of = |flow: &'a Flow, grant: bool| {
        list(flow).iter().enumerate().map(move |(place, item)| (grant, place as u32, item))
    };
    let flows = &model.packets;
    of(&flows.data, false).chain(of(&flows.grants, true)).filter(|(_, _, item)| mine(item)).collect()
}

fn packets(model: &Model, host: u16) -> Frame {
    let client = |p: &Packet| model.hosts.base(model.packets.messages[p.message as usize].client);
    let rows = both(model, |flow| &flow.packets, |p| client(p) == host);
    let columns = vec![
        ("packet", Values::U32(rows.iter().map(|r| r.1).collect())),
        ("is_grant", Values::Bool(rows.iter().map(|r| r.0).collect())),
        ("message", Values::U32(rows.iter().map(|r| r.2.message).collect())),
        ("offset_bytes", Values::U32(rows.iter().map(|r| r.2.offset).collect())),
        ("frame", maybe(rows.iter(), |r| r.2.frame())),
    ];
    Frame::new("packets", file_name(model, host), columns)
}

/// Which packet each transmission and reception belongs to; of data, then of grants.
struct Owners {
    sent: [Vec<u32>; 2],
    received: [Vec<u32>; 2],
}

impl Owners {
    fn of(model: &Model) -> Self {
        let flows = [&model.packets.data, &model.packets.grants];
        let sent =
            flows.map(|flow| owners(flow, flow.sent.len(), |packet, own| flow.sent_places(packet).for_each(own)));
        let received = flows
            .map(|flow| owners(flow, flow.received.len(), |packet, own| flow.received_places(packet).for_each(own)));
        Self { sent, received }
    }
}

/// For each entry of a list, the packet that it belongs to.
fn owners(flow: &Flow, entries: usize, places: impl Fn(&Packet, &mut dyn FnMut(u32))) -> Vec<u32> {
    let mut owners = vec![0; entries];
    for (packet, about) in flow.packets.iter().enumerate() {
        places(about, &mut |place| owners[place as usize] = packet as u32);
    }
    owners
}

fn transmissions(model: &Model, node: u16, owners: &Owners) -> Frame {
    let rows = both(model, |flow| &flow.sent, |s| s.node == node);
    let held = |row: &(bool, u32, &Sent)| {
        let flow = if row.0 { &model.packets.grants } else { &model.packets.data };
        flow.held_of(row.2)
    };
    let times = Times::of(model, node);
    let columns = vec![
        ("packet", Values::U32(rows.iter().map(|r| owners.sent[usize::from(r.0)][r.1 as usize]).collect())),
        ("is_grant", Values::Bool(rows.iter().map(|r| r.0).collect())),
        ("core", Values::U16(rows.iter().map(|r| r.2.core).collect())),
        ("xmit_ns", times.all(rows.iter().map(|r| r.2.xmit))),
        ("deferred_ns", times.all(rows.iter().map(|r| held(r).deferred))),
        ("undeferred_ns", times.all(rows.iter().map(|r| held(r).undeferred))),
        ("nic_ns", times.all(rows.iter().map(|r| r.2.nic))),
        ("free_ns", times.all(rows.iter().map(|r| r.2.free))),
        ("length_bytes", Values::U32(rows.iter().map(|r| r.2.length).collect())),
        ("queue", maybe(rows.iter(), |r| r.2.queue())),
        ("queue_address", Values::U32(rows.iter().map(|r| r.2.queue_address).collect())),
        ("priority", Values::Level(rows.iter().map(|r| r.2.priority).collect())),
        ("paced", Values::Bool(rows.iter().map(|r| held(r).paced).collect())),
        ("again", Values::Bool(rows.iter().map(|r| r.2.again).collect())),
    ];
    Frame::new("transmissions", model.hosts.name(node), columns)
}

fn receptions(model: &Model, node: u16, owners: &Owners) -> Frame {
    let rows = both(model, |flow| &flow.received, |r| r.node == node);
    let times = Times::of(model, node);
    let columns = vec![
        ("packet", Values::U32(rows.iter().map(|r| owners.received[usize::from(r.0)][r.1 as usize]).collect())),
        ("is_grant", Values::Bool(rows.iter().map(|r| r.0).collect())),
        ("gro_ns", times.all(rows.iter().map(|r| r.2.gro))),
        ("gro_core", Values::U16(rows.iter().map(|r| r.2.gro_core).collect())),
        ("softirq_ns", times.all(rows.iter().map(|r| r.2.softirq))),
        ("softirq_core", Values::U16(rows.iter().map(|r| r.2.softirq_core).collect())),
        ("ring_ns", maybe(rows.iter(), |r| r.2.ring())),
        ("priority", Values::Level(rows.iter().map(|r| r.2.priority).collect())),
        ("discarded", Values::Bool(rows.iter().map(|r| r.2.discarded).collect())),
    ];
    Frame::new("receptions", model.hosts.name(node), columns)
}

fn grants(model: &Model, node: u16) -> Frame {
    let all = &model.flights().grants;
    let rows: Vec<_> = all.iter().filter(|f| if f.sent() { f.from == node } else { f.to == node }).collect();
    let client = |message: u32| model.packets.messages[message as usize].client;
    let columns = vec![
        ("client", Values::U16(rows.iter().map(|f| client(f.message)).collect())),
        ("id", Values::U32(rows.iter().map(|f| f.id).collect())),
        ("limit_bytes", Values::U32(rows.iter().map(|f| f.offset).collect())),
        ("increment_bytes", maybe(rows.iter(), |f| (f.length > 0).then_some(f.length))),
        ("priority", Values::Level(rows.iter().map(|f| f.priority).collect())),
        ("xmit_ns", Values::I64(rows.iter().map(|f| f.xmit).collect())),
        ("nic_ns", Values::I64(rows.iter().map(|f| f.nic).collect())),
        ("gro_ns", Values::I64(rows.iter().map(|f| f.gro).collect())),
        ("softirq_ns", Values::I64(rows.iter().map(|f| f.softirq).collect())),
    ];
    Frame::new("grants", model.hosts.name(node), columns)
}

fn retransmits(model: &Model, host: u16) -> Frame {
    let all = model.packets.messages.iter().enumerate().filter(|(_, m)| m.client == host);
    let rows: Vec<(u32, u32, u32)> = all
        .flat_map(|(place, m)| m.retransmitted.iter().map(move |(start, end)| (place as u32, *start, *end)))
        .collect();
    let columns = vec![
        ("message", Values::U32(rows.iter().map(|r| r.0).collect())),
        ("start_bytes", Values::U32(rows.iter().map(|r| r.1).collect())),
        ("end_bytes", Values::U32(rows.iter().map(|r| r.2).collect())),
    ];
    Frame::new("retransmits", file_name(model, host), columns)
}

fn all_handoffs(model: &Model, node: u16) -> Frame {
    handoffs(model, node, model.handoffs())
}

/// Those of `all` that are a node's.
pub(super) fn handoffs(model: &Model, node: u16, all: &Handoffs) -> Frame {
    let lists = all.lists();
    let rows: Vec<_> = (lists.iter().enumerate())
        .flat_map(|(kind, (_, list))| list.iter().filter(|h| h.node == node).map(move |h| (kind as u16, h)))
        .collect();
    let columns = vec![
        ("kind", Values::Text(rows.iter().map(|r| r.0).collect(), texts(lists.iter().map(|(name, _)| *name)))),
        ("list", Values::U8(rows.iter().map(|r| r.0 as u8).collect())),
        ("end_ns", Times::of(model, node).all(rows.iter().map(|r| r.1.end))),
        ("delay_ns", Values::I64(rows.iter().map(|r| r.1.delay).collect())),
    ];
    Frame::new("handoffs", model.hosts.name(node), columns)
}

fn all_invocations(model: &Model, node: u16) -> Frame {
    invocations(model, node, &super::invocations::invocations(&model.traces[usize::from(node)]))
}

/// Some of a node's invocations.
pub(super) fn invocations(model: &Model, node: u16, rows: &[Invocation]) -> Frame {
    let times = Times::of(model, node);
    let columns = vec![
        ("core", Values::U16(rows.iter().map(|i| i.core).collect())),
        ("start_ns", times.all(rows.iter().map(|i| i.start))),
        ("end_ns", times.all(rows.iter().map(|i| i.end))),
        ("data", Values::U32(rows.iter().map(|i| i.data).collect())),
        ("grants", Values::U32(rows.iter().map(|i| i.grants).collect())),
    ];
    Frame::new("invocations", model.hosts.name(node), columns)
}

fn interval_frames(model: &Model, options: &Options) -> Vec<Frame> {
    let one = |(node, ends, fields): Intervals| {
        let names = texts(fields.iter().map(|f| f.0.clone()));
        let places = (0..fields.len() as u16).flat_map(|field| std::iter::repeat_n(field, ends.len())).collect();
        let columns = vec![
            ("end_ns", Values::I64(ends.repeat(fields.len()))),
            ("field", Values::Text(places, names)),
            ("value", Values::F64(fields.into_iter().flat_map(|f| f.1).collect())),
        ];
        Frame::new("intervals", model.hosts.name(node), columns)
    };
    interval_values(model, options).into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::TABLES;
    use super::*;
    use crate::testing::{Scenario, Steps};

    #[test]
    fn every_frame_is_as_its_table_says() {
        let mut scenario = Scenario::new(2);
        for i in 0..5 {
            let steps = Steps { unscheduled: 10_000, ..Steps::default() };
            scenario.rpc(f64::from(i) * 300.0, (0, 1), 10 + 2 * i, (40_000, 100), &steps);
        }
        scenario.event(0, 2000.0, 1, "retransmitting offset 0, length 100, id 10");
        let options = Options::default();
        let model = scenario.model(&options);
        let mut seen = Vec::new();
        for frame in Frame::all(&model, &options) {
            let table = TABLES.iter().find(|t| t.name == frame.table).unwrap();
            let columns: Vec<(&str, Type)> = frame.columns.iter().map(|(name, v)| (*name, v.r#type())).collect();
            let about: Vec<(&str, Type)> = table.columns.iter().map(|c| (c.name, c.r#type)).collect();
            assert_eq!(columns, about, "{}", frame.table);
            assert!(frame.columns.iter().all(|(_, v)| v.len() == frame.rows()), "{}", frame.table);
            if frame.rows() > 0 {
                seen.push(frame.table);
            }
        }
        assert!(TABLES.iter().all(|t| seen.contains(&t.name)), "{seen:?}");
    }

    #[test]
    fn times_are_on_the_common_clock() {
        let mut scenario = Scenario::new(2);
        scenario.clock_ahead(1, 5000.0);
        scenario.rpc(0.0, (0, 1), 10, (100, 100), &Steps::default());
        let options = Options::default();
        let model = scenario.model(&options);
        let frame = receptions(&model, 1, &Owners::of(&model));
        assert_eq!(frame.column("gro_ns"), Some(&Values::I64(vec![5500])));
        let frame = rpcs(&model, 0);
        assert_eq!(frame.column("sendmsg_ns"), Some(&Values::I64(vec![0])));
        assert_eq!(frame.column("out_length_bytes"), Some(&Values::U32(vec![100])));
    }
}
