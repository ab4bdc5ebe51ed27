//! `activity`: how many messages are live on each node, and what throughput do they get? Source: timetrace.md 5.1.

use super::intervals::{self, Field};
use super::live;
use super::samples::{columns, gbps, share, us};
use super::sweep::Sweep;
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Kinds};
use crate::model::{Carries, Flight, Model};
use crate::packets::UNSEEN;

use rustc_hash::FxHashMap;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Activity;

impl Analyzer for Activity {
    fn about(&self) -> &'static About {
        &About {
            name: "activity",
            question: "How many messages are live on each node, and what throughput do they get?",
            source: "timetrace.md 5.1",
            needs: Needs::Any(&[Kind::IpXmit, Kind::GroData, Kind::TcpXmit]),
            uses: &[
                Kind::SendmsgRequest,
                Kind::SendmsgResponse,
                Kind::RecvmsgDone,
                Kind::SendGrant,
                Kind::RpcIncoming3,
            ],
            options: &["interval"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut nodes: Vec<Node> = model.spans().map(|(node, first, last)| Node::new(node, first, last)).collect();
        let mut place = vec![usize::MAX; model.traces.len()];
        nodes.iter().enumerate().for_each(|(i, n)| place[usize::from(n.node)] = i);
        for (i, side) in model.rpcs().sides.iter().enumerate() {
            let Some(node) = nodes.get_mut(place[usize::from(side.node)]) else { continue };
            node.outgoing.started += u64::from(side.sendmsg != UNSEEN);
            if let Some(range) = live::outgoing(model, i) {
                node.outgoing.live(range);
            }
            if let Some(range) = live::incoming(model, i) {
                node.incoming.live(range);
            }
            if let Some(core) = side.gro_core {
                *node.rpcs_by_core.entry(core).or_default() += 1;
                if side.remaining.is_some_and(|r| r > 0) {
                    *node.partial_by_core.entry(core).or_default() += 1;
                }
            }
        }
        let at = |node: u16| place.get(usize::from(node)).copied().unwrap_or(usize::MAX);
        for f in model.flights().all() {
            if let Some(node) = nodes.get_mut(at(f.to)) {
                node.received(f);
            }
            if let Some(node) = nodes.get_mut(at(f.from)) {
                node.sent(f);
            }
        }
        let mut report = Report::of([incoming(model, &nodes), outgoing(model, &nodes), rates(model, &nodes)]);
        if options.wants_series() {
            report.tables.extend(series(model, options));
        }
        report
    }
}

/// Messages in one direction.
#[derive(Default)]
struct Direction {
    messages: u64,
    started: u64,
    bytes: f64,
    live: Sweep,
}

impl Direction {
    fn live(&mut self, (a, b): live::Range) {
        self.messages += 1;
        self.live.lasts(a, b, 1.0);
    }

    /// Messages, starts, share of time with any, mean, rate, rate while there are any.
    fn cells(&self, elapsed: i64) -> Vec<Cell> {
        let swept = self.live.span().map(|(first, last)| self.live.clone().run(first, last));
        let any = swept.as_ref().and_then(|s| s.any());
        let rate = gbps(self.bytes, elapsed);
        let live_rate = rate.number().zip(any.filter(|any| *any > 0.0)).map(|(rate, any)| rate / any);
        vec![
            self.messages.into(),
            share(self.started as f64 * 1e6, elapsed as f64),
            any.into(),
            swept.and_then(|s| s.mean()).into(),
            rate,
            live_rate.into(),
        ]
    }
}

struct Node {
    node: u16,
    elapsed: i64,
    incoming: Direction,
    outgoing: Direction,
    bytes_by_core: FxHashMap<u16, f64>,
    rpcs_by_core: FxHashMap<u16, u64>,
    partial_by_core: FxHashMap<u16, u64>,
    /// Homa frames and grants; TCP packets with data, and without; bytes of TCP.
    frames: u64,
    grants: u64,
    tcp: [u64; 2],
    tcp_bytes: f64,
}

impl Node {
    fn new(node: u16, first: i64, last: i64) -> Self {
        Self {
            node,
            elapsed: last - first,
            incoming: Direction::default(),
            outgoing: Direction::default(),
            bytes_by_core: FxHashMap::default(),
            rpcs_by_core: FxHashMap::default(),
            partial_by_core: FxHashMap::default(),
            frames: 0,
            grants: 0,
            tcp: [0; 2],
            tcp_bytes: 0.0,
        }
    }

    fn received(&mut self, f: &Flight) {
        if f.carries == Carries::Data && f.gro != UNSEEN {
            let bytes = f64::from(f.length);
            self.incoming.bytes += bytes;
            *self.bytes_by_core.entry(f.gro_core).or_default() += bytes;
            self.incoming.started += u64::from(f.offset == 0);
        }
    }

    fn sent(&mut self, f: &Flight) {
        if !f.head || f.nic_or_xmit() == UNSEEN {
            return;
        }
        match f.carries {
            Carries::Data => {
                self.frames += 1;
                self.outgoing.bytes += f64::from(f.frame);
            }
            Carries::Grant => self.grants += 1,
            Carries::Tcp => {
                self.tcp[usize::from(f.frame == 0)] += 1;
                self.tcp_bytes += f64::from(f.frame);
            }
        }
    }
}

fn messages(name: &str, title: &str) -> Table {
    let table = Table::new(name, title)
        .column("Node", Unit::None, "")
        .column("Msgs", Unit::None, "messages that are live at some time")
        .column("MsgRate", Unit::None, "messages that start, thousands a second")
        .decimals(2)
        .key("msg_rate_k_per_s");
    let table = columns(table, Unit::Share, &[("LiveFrac", "share of time with at least one live message")]);
    let table = table.column("AvgLive", Unit::None, "live messages, mean").decimals(2);
    columns(table, Unit::Gbps, &[("Gbps", "message bytes"), ("LiveGbps", "while a message is live")])
}

/// The core with the most, and its share of all.
fn most<T: Copy + Into<f64>>(by_core: &FxHashMap<u16, T>) -> Option<(f64, f64, u16)> {
    let sum: f64 = by_core.values().map(|v| (*v).into()).sum();
    let best =
        by_core.iter().map(|(core, v)| ((*v).into(), *core)).max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))?;
    Some((best.0, best.0 / sum, best.1))
}

fn incoming(model: &Model, nodes: &[Node]) -> Table {
    let mut table = messages("incoming", "Incoming messages:")
        .column("MaxCore", Unit::Gbps, "highest rate of one GRO core")
        .decimals(2)
        .column("Core", Unit::None, "that core")
        .column("MaxFrac", Unit::Share, "highest share of RPCs of one GRO core")
        .column("FracCore", Unit::None, "that core")
        .column("MaxPFrac", Unit::Share, "the same among RPCs that are incomplete at the trace's end")
        .column("PFracCore", Unit::None, "that core");
    for node in nodes {
        let counts = |map: &FxHashMap<u16, u64>| most(&map.iter().map(|(c, n)| (*c, *n as f64)).collect());
        let (bytes, rpcs, partial) =
            (most(&node.bytes_by_core), counts(&node.rpcs_by_core), counts(&node.partial_by_core));
        let mut cells = vec![model.name(node.node).into()];
        cells.extend(node.incoming.cells(node.elapsed));
        cells.push(bytes.map_or(Cell::None, |(bytes, ..)| gbps(bytes, node.elapsed)));
        cells.push(bytes.map(|b| b.2).into());
        cells.extend([rpcs.map(|r| r.1).into(), rpcs.map(|r| r.2).into()]);
        cells.extend([partial.map(|r| r.1).into(), partial.map(|r| r.2).into()]);
        table.row(cells);
    }
    table
}

fn outgoing(model: &Model, nodes: &[Node]) -> Table {
    let mut table = messages("outgoing", "Outgoing messages:");
    for node in nodes {
        let mut cells = vec![model.name(node.node).into()];
        cells.extend(node.outgoing.cells(node.elapsed));
        table.row(cells);
    }
    table
}

/// What each node sends; rates of packets in thousands a second.
fn rates(model: &Model, nodes: &[Node]) -> Table {
    let mut table = Table::new("rates", "What each node sends:").column("Node", Unit::None, "");
    table = table.column("HomaGbps", Unit::Gbps, "message bytes").decimals(2).key("homa");
    for (title, meaning) in [("HomaPkts", "frames, thousands a second"), ("HomaGrants", "grants, thousands a second")] {
        table = table.column(title, Unit::None, meaning).decimals(1);
    }
    table = table.column("TcpGbps", Unit::Gbps, "").decimals(2).key("tcp");
    for (title, meaning) in [("TcpPkts", "packets with data, thousands a second"), ("TcpAcks", "packets without")] {
        table = table.column(title, Unit::None, meaning).decimals(1);
    }
    let has_tcp = model.count(Kind::TcpXmit) > 0;
    for node in nodes {
        let rate = |count: u64| share(count as f64 * 1e6, node.elapsed as f64);
        let tcp = |cell: Cell| if has_tcp { cell } else { Cell::None };
        let row = table.row([
            model.name(node.node).into(),
            gbps(node.outgoing.bytes, node.elapsed),
            rate(node.frames),
            rate(node.grants),
            tcp(gbps(node.tcp_bytes, node.elapsed)),
            tcp(rate(node.tcp[0])),
            tcp(rate(node.tcp[1])),
        ]);
        if !has_tcp {
            row.note("no tcp_xmit in the traces");
        }
    }
    table
}

/// What the time series needs.
const FIELDS: &[Field] = &[
    Field::RxStarts,
    Field::RxLive,
    Field::RxGrants,
    Field::RxGrantBytes,
    Field::RxPkts,
    Field::RxBytes,
    Field::RxDataQdisc,
    Field::RxDataNet,
    Field::TxStarts,
    Field::TxLiveReq,
    Field::TxLiveResp,
];

fn series(model: &Model, options: &Options) -> Vec<Table> {
    let one = |s: &intervals::Series| {
        let mut table = Table::series("activity", &model.name(s.node), "Messages and packets in each step")
            .column("Time", Unit::Us, "end of the step")
            .column("NewRx", Unit::None, "incoming messages whose first packet came")
            .column("NumRx", Unit::None, "live incoming messages at the end")
            .column("RxGts", Unit::None, "incoming messages with granted bytes that have not come")
            .column("RxGtKB", Unit::Kb, "these bytes")
            .key("rx_gt")
            .column("RxPkts", Unit::None, "data packets at GRO")
            .column("RxGbps", Unit::Gbps, "their bytes")
            .key("rx")
            .column("Incoming", Unit::Kb, "bytes sent to this node that GRO has not had")
            .column("NewTx", Unit::None, "outgoing messages that started")
            .column("NumTx", Unit::None, "live outgoing messages at the end");
        let to_gbps = s.steps.length as f64 / 8.0;
        for k in 0..s.steps.count {
            let sum = |a: Field, b: Field| match (s.get(a, k), s.get(b, k)) {
                (Some(a), Some(b)) => Some(a + b),
                (a, b) => a.or(b),
            };
            table.row([
                us(Some(s.steps.end(k))),
                s.cell(Field::RxStarts, k, 1.0),
                s.cell(Field::RxLive, k, 1.0),
                s.cell(Field::RxGrants, k, 1.0),
                s.cell(Field::RxGrantBytes, k, 1e3),
                s.cell(Field::RxPkts, k, 1.0),
                s.cell(Field::RxBytes, k, to_gbps),
                sum(Field::RxDataQdisc, Field::RxDataNet).map(|b| b / 1000.0).into(),
                s.cell(Field::TxStarts, k, 1.0),
                sum(Field::TxLiveReq, Field::TxLiveResp).into(),
            ]);
        }
        table
    };
    intervals::collect(model, options, None, FIELDS).iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn live_messages_obey_little_s_law() {
        let mut traffic = Traffic::new(2);
        let mut stay = 0.0;
        for i in 0..10u32 {
            // A request is live on the server from the call until it is delivered, 13 us, a packet of 1 us more for each
            // further packet.
            traffic.rpc((0, 1), 100 + 2 * i, (1400 * (1 + i), 100), 40.0 * f64::from(i), Delays::USUAL);
            stay += 13.0 + f64::from(i);
        }
        let model = traffic.model();
        let report = Activity.run(&model, &Options::default());
        let table = report.table("incoming").unwrap();
        let server = table.find(&["node2"]).unwrap();
        let lasts = 9.0 * 40.0 + 13.0 + 9.0;
        let mean = table.get(server, "avg_live").number().unwrap();
        assert!((mean * lasts - stay).abs() < 1e-9, "{mean}");
        assert_eq!(table.get(server, "msgs"), &10u32.into());
        let (first, last) = model.span(1).unwrap();
        let bytes = 1400.0 * 55.0;
        assert_eq!(table.get(server, "gbps"), &(bytes * 8.0 / (last - first) as f64).into());
        assert_eq!((table.get(server, "core"), table.get(server, "max_frac_share")), (&1u16.into(), &1.0.into()));
        let rates = report.table("rates").unwrap();
        assert_eq!((rates.get(0, "tcp_gbps"), rates.rows[0].note.is_some()), (&Cell::None, true), "unknown, not 0");
    }

    #[test]
    fn tcp_is_counted_in_its_own_columns() {
        let mut traffic = Traffic::new(1);
        for i in 0..3u32 {
            let data = if i == 2 { 0 } else { 1000 };
            let text = format!("Transmitting TCP packet from 0x1000a to 0x20014, data bytes {data}, seq/ack {i}");
            traffic.event(0, 0, f64::from(i) * 500.0, text);
        }
        let report = Activity.run(&traffic.model(), &Options::default());
        let rates = report.table("rates").unwrap();
        assert_eq!(
            (rates.get(0, "tcp_gbps"), rates.get(0, "tcp_pkts"), rates.get(0, "tcp_acks")),
            (&0.016.into(), &2.0.into(), &1.0.into())
        );
    }

    #[test]
    fn the_data_file_has_a_line_for_each_step() {
        let mut traffic = Traffic::new(2);
        traffic.rpc((0, 1), 100, (2800, 100), 10.0, Delays::USUAL);
        let options = Options { data: Some("x".into()), ..Options::default() };
        let report = Activity.run(&traffic.model(), &options);
        let table = report.table("activity_node2").unwrap();
        assert_eq!(
            (table.get(0, "time_us"), table.get(0, "new_rx"), table.get(0, "rx_pkts")),
            (&50.0.into(), &1.0.into(), &2.0.into())
        );
        assert_eq!(table.get(0, "rx_gt_kb"), &Cell::None);
        assert_eq!(table.get(0, "rx_gbps"), &(2800.0 * 8.0 / 50_000.0).into());
    }
}
