//! `tcp_rpcs`: which RPCs went over TCP, and how long did their phases take? Source: timetrace.md 4.5, 5.38.
//!
//! Every `tcp_sendmsg` starts a message, a range of sequence numbers; its packets are those that overlap the range; it is
//! received when `tcp_recvmsg` returns its last byte. A request belongs to the next response of the same client, server
//! and slot that is sent later.

use rustc_hash::FxHashMap;

use super::samples::{Samples, us};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::Kind;
use crate::model::flights::{seen, since};
use crate::model::{Flight, Model};
use crate::packets::UNSEEN;
use crate::stats::micros;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct TcpRpcs;

/// A message over TCP.
#[derive(Clone, Copy, Debug)]
struct Message {
    source: u32,
    dest: u32,
    first: u32,
    length: u32,
    slot: u32,
    response: bool,
    node: u16,
    sent: i64,
    received: i64,
    /// First packet: at the NIC, at GRO. Last: at GRO, in SoftIRQ.
    nic: i64,
    gro: i64,
    last_gro: i64,
    last_softirq: i64,
}

/// What recvmsg returned of each stream: first sequence number, length, time.
type Returned = FxHashMap<(u32, u32), Vec<(u32, u32, i64)>>;

/// A request and its response.
struct Rpc {
    request: Message,
    response: Message,
}

impl Analyzer for TcpRpcs {
    fn about(&self) -> &'static About {
        &About {
            name: "tcp_rpcs",
            question: "Which RPCs went over TCP, and how long did their phases take?",
            source: "timetrace.md 5.38",
            needs: Needs::All(&[Kind::TcpSendmsg, Kind::TcpRecvmsg]),
            uses: &[Kind::TcpSendmsg2, Kind::TcpNic, Kind::TcpGro, Kind::TcpSoftirq],
            options: &["msglen", "rpc_start", "rtt", "sort", "top"],
            requires: &[],
        }
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut rpcs: Vec<Rpc> = pair(messages(model)).into_iter().filter(|r| chosen(r, options)).collect();
        rpcs.sort_by_key(|r| r.request.sent);
        for key in options.sort.iter().rev() {
            match key.to_lowercase().as_str() {
                "end" => rpcs.sort_by_key(|r| r.response.received),
                "rtt" => rpcs.sort_by_key(|r| std::cmp::Reverse(r.rtt())),
                _ => {}
            }
        }
        let top = if options.verbose { usize::MAX } else { options.top };
        Report::of([phases(&rpcs), list(model, &rpcs, top)])
    }
}

impl Rpc {
    fn rtt(&self) -> Option<i64> {
        since(self.request.sent, self.response.received)
    }
}

fn chosen(rpc: &Rpc, options: &Options) -> bool {
    let in_range =
        |range: Option<super::Range>, value: Option<f64>| range.is_none_or(|r| value.is_some_and(|v| r.contains(v)));
    in_range(options.msglen, Some(f64::from(rpc.request.length)))
        && in_range(options.rpc_start, Some(micros(rpc.request.sent)))
        && in_range(options.rtt, rpc.rtt().map(micros))
}

/// Messages of all nodes with their packets' times.
fn messages(model: &Model) -> Vec<Message> {
    let mut out = Vec::new();
    let mut received = Returned::default();
    for (node, trace) in model.traces.iter().enumerate() {
        let offset = model.clock.offset(node).unwrap_or(0);
        let mut next: FxHashMap<u16, (u32, u32)> = FxHashMap::default();
        for record in &trace.records {
            let time = record.time + offset;
            match record.kind {
                Kind::TcpSendmsg2 => drop(next.insert(record.core, (record.a, record.b))),
                Kind::TcpSendmsg => {
                    let (slot, response) = next.remove(&record.core).unwrap_or((0, 0));
                    out.push(Message {
                        source: record.a,
                        dest: record.b,
                        first: record.c,
                        length: record.offset,
                        slot,
                        response: response != 0,
                        node: node as u16,
                        sent: time,
                        received: UNSEEN,
                        nic: UNSEEN,
                        gro: UNSEEN,
                        last_gro: UNSEEN,
                        last_softirq: UNSEEN,
                    });
                }
                Kind::TcpRecvmsg => received.entry((record.a, record.b)).or_default().push((
                    record.c.wrapping_sub(record.offset),
                    record.offset,
                    time,
                )),
                _ => {}
            }
        }
    }
    let mut streams: FxHashMap<(u32, u32), Vec<usize>> = FxHashMap::default();
    for (i, m) in out.iter().enumerate() {
        streams.entry((m.source, m.dest)).or_default().push(i);
    }
    for ((source, dest), places) in &mut streams {
        places.sort_by_key(|i| out[*i].sent);
        // Sequence numbers wrap: they are compared from the stream's first message on.
        let start = out[places[0]].first;
        let returned: &[(u32, u32, i64)] = received.get(&(*source, *dest)).map_or(&[], Vec::as_slice);
        let mut ends: Vec<(u32, i64)> =
            returned.iter().map(|(seq, length, at)| (seq.wrapping_sub(start).wrapping_add(*length), *at)).collect();
        ends.sort_unstable();
        for i in places {
            let m = &mut out[*i];
            let end = m.first.wrapping_sub(start).wrapping_add(m.length);
            let first = ends.partition_point(|(e, _)| *e < end);
            m.received = ends.get(first).map_or(UNSEEN, |(_, at)| *at);
        }
    }
    add_packets(model, &mut out, &streams);
    out
}

/// Adds the times of first and last packets. A packet is matched by its stream, which its first frame's endpoints name.
fn add_packets(model: &Model, messages: &mut [Message], streams: &FxHashMap<(u32, u32), Vec<usize>>) {
    let mut packets: FxHashMap<(u32, u32), Vec<(u32, &Flight)>> = FxHashMap::default();
    for f in model.flights().tcp.iter().filter(|f| f.length > 0) {
        packets.entry((f.offset, f.message_length)).or_default().push((f.id, f));
    }
    for (stream, places) in streams {
        let start = messages[places[0]].first;
        let Some(list) = packets.get_mut(stream) else { continue };
        list.iter_mut().for_each(|(seq, _)| *seq = seq.wrapping_sub(start));
        list.sort_by_key(|(seq, _)| *seq);
        for i in places {
            let m = &mut messages[*i];
            let from = m.first.wrapping_sub(start);
            let to = from.wrapping_add(m.length);
            // Packets that begin before the message may hold its first bytes.
            let first = list.partition_point(|(seq, _)| *seq < from);
            let first =
                (0..first).rev().take(64).take_while(|k| list[*k].0 + list[*k].1.length > from).last().unwrap_or(first);
            let inside = list[first..].iter().take_while(|(seq, _)| *seq < to).map(|(_, f)| *f);
            for f in inside {
                m.nic = if m.nic == UNSEEN { f.nic } else { m.nic };
                m.gro = if m.gro == UNSEEN { f.gro } else { m.gro };
                m.last_gro = m.last_gro.max(f.gro);
                m.last_softirq = m.last_softirq.max(f.softirq);
            }
        }
    }
}

/// Requests with their responses.
fn pair(messages: Vec<Message>) -> Vec<Rpc> {
    let mut by_slot: FxHashMap<(u32, u32, u32), Vec<Message>> = FxHashMap::default();
    for m in messages {
        let (client, server) = if m.response { (m.dest, m.source) } else { (m.source, m.dest) };
        by_slot.entry((client, server, m.slot)).or_default().push(m);
    }
    let mut out = Vec::new();
    for (_, mut all) in by_slot {
        all.sort_by_key(|m| m.sent);
        let mut open: Option<Message> = None;
        for m in all {
            if !m.response {
                open = Some(m);
            } else if let Some(request) = open.take() {
                out.push(Rpc { request, response: m });
            }
        }
    }
    out
}

fn phases(rpcs: &[Rpc]) -> Table {
    let halves = || rpcs.iter().flat_map(|r| [&r.request, &r.response]);
    let rows: [(&str, Samples); 6] = [
        ("Xmit", halves().filter_map(|m| since(m.sent, m.nic)).collect()),
        ("Net", halves().filter_map(|m| since(m.nic, m.gro)).collect()),
        ("SoftIrq", halves().filter_map(|m| since(m.last_gro, m.last_softirq)).collect()),
        ("Recv", halves().filter_map(|m| since(m.last_softirq, m.received)).collect()),
        ("Srvc", rpcs.iter().filter_map(|r| since(r.request.received, r.response.sent)).collect()),
        ("Rtt", rpcs.iter().filter_map(Rpc::rtt).collect()),
    ];
    let title = format!("Phases of {} RPCs over TCP, requests and responses together:", rpcs.len());
    let mut table = Table::new("phases", title).column("Phase", Unit::None, "").distribution();
    for (name, samples) in rows {
        table.row(std::iter::once(name.into()).chain(samples.cells()));
    }
    table
}

fn list(model: &Model, rpcs: &[Rpc], top: usize) -> Table {
    let mut table = Table::new("rpcs", "Each of them:")
        .column("Start", Unit::Us, "sendmsg on the client")
        .decimals(3)
        .column("Client", Unit::None, "")
        .column("Server", Unit::None, "")
        .column("Length", Unit::Bytes, "request")
        .column("ReqSeq", Unit::None, "first sequence number")
        .column("RspSeq", Unit::None, "");
    for (title, meaning) in [
        ("ReqXmit", "from sendmsg until the NIC has the first packet"),
        ("ReqNet", "from the NIC to GRO, first packet"),
        ("ReqSft", "from GRO to SoftIRQ, last packet"),
        ("ReqRecv", "from SoftIRQ until recvmsg returns"),
        ("Srvc", "until the server answers"),
        ("RspXmit", "the same for the response"),
        ("RspNet", ""),
        ("RspSft", ""),
        ("RspRecv", ""),
    ] {
        table = table.column(title, Unit::Us, meaning);
    }
    table = table.column("End", Unit::Us, "").decimals(3).column("Rtt", Unit::Us, "");
    for rpc in rpcs.iter().take(top) {
        let (rq, rs) = (&rpc.request, &rpc.response);
        let half = |m: &Message| {
            [
                since(m.sent, m.nic),
                since(m.nic, m.gro),
                since(m.last_gro, m.last_softirq),
                since(m.last_softirq, m.received),
            ]
            .map(us)
        };
        let mut cells: Vec<Cell> = vec![
            us(seen(rq.sent)),
            model.name(rq.node).into(),
            model.name(rs.node).into(),
            rq.length.into(),
            rq.first.into(),
            rs.first.into(),
        ];
        cells.extend(half(rq));
        cells.push(us(since(rq.received, rs.sent)));
        cells.extend(half(rs));
        cells.extend([us(seen(rs.received)), us(rpc.rtt())]);
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::Traffic;

    /// A message of one packet, sent at `at`; returns when it is received.
    fn message(
        traffic: &mut Traffic,
        (from, to): (usize, usize),
        seq: u32,
        length: u32,
        response: u32,
        at: f64,
    ) -> f64 {
        let ends = if from == 0 { "from 0x1000a to 0x20014" } else { "from 0x20014 to 0x1000a" };
        let packet = format!("{ends}, data bytes {length}, seq/ack {seq}");
        traffic.event(from, 0, at, format!("tcp_sendmsg new message slot is 5, response {response}"));
        traffic.event(
            from,
            0,
            at,
            format!("tcp_sendmsg invoked for message {ends}, length {length}, starting sequence {seq}"),
        );
        traffic.event(from, 0, at + 1.0, format!("Transmitting TCP packet {packet}"));
        traffic.event(from, 0, at + 2.0, format!("sent TCP packet via mlx {packet}"));
        traffic.event(to, 1, at + 7.0, format!("tcp_gro_receive got packet {packet}"));
        traffic.event(to, 1, at + 9.0, format!("softirq got TCP packet {packet}"));
        let end = seq.wrapping_add(length);
        traffic.event(
            to,
            2,
            at + 12.0,
            format!("tcp_recvmsg returning message {ends}, length {length}, ending sequence {end}"),
        );
        at + 12.0
    }

    #[test]
    fn requests_are_joined_with_their_responses_also_where_sequence_numbers_wrap() {
        let mut traffic = Traffic::new(2);
        let first = u32::MAX - 2500;
        for i in 0..5u32 {
            let at = 100.0 * f64::from(i);
            let got = message(&mut traffic, (0, 1), first.wrapping_add(1000 * i), 1000, 0, at);
            message(&mut traffic, (1, 0), 7 + 100 * i, 100, 1, got + 4.0);
        }
        let report = TcpRpcs.run(&traffic.model(), &Options::default());
        let list = report.table("rpcs").unwrap();
        assert_eq!((list.rows.len(), list.get(4, "rtt_us"), list.get(4, "client")), (5, &28.0.into(), &"node1".into()));
        let phases = report.table("phases").unwrap();
        let p50 = |name: &str| phases.get(phases.find(&[name]).unwrap(), "p50_us").number().unwrap();
        assert_eq!(["Xmit", "Net", "SoftIrq", "Recv", "Srvc", "Rtt"].map(p50), [2.0, 5.0, 2.0, 3.0, 4.0, 28.0]);
        assert_eq!(phases.get(0, "count"), &10u32.into());
    }
}
