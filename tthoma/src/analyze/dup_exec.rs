//! `dup-exec`: did a server execute an RPC more than once, and why? Source: timetrace.md 10.5.
//!
//! A server's RPC begins with the first packet of its request and ends when it is acknowledged, given up or freed. If it
//! begins again, that is another incarnation: of a client's id that is used for another request, or because a packet of the
//! request came after the end.

use rustc_hash::FxHashMap;

use super::samples::{Samples, share, us};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{AMBIGUOUS, Kind, Kinds, Record};
use crate::model::flights::{seen, since};
use crate::model::{Flight, Model};
use crate::packets::UNSEEN;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct DupExec;

/// A packet and the begin of its RPC are logged within this time, ns.
const TOGETHER: i64 = 50_000;

impl Analyzer for DupExec {
    fn about(&self) -> &'static About {
        &About {
            name: "dup-exec",
            question: "Did a server execute an RPC more than once, and why?",
            source: "timetrace.md 10.5",
            needs: Needs::All(&[Kind::Unsched, Kind::SoftirqData]),
            uses: &[
                Kind::GroData,
                Kind::RpcEnd,
                Kind::RpcAcked,
                Kind::RecvmsgDone,
                Kind::SendmsgResponse,
                Kind::SendmsgRequest,
                Kind::Restart,
                Kind::DiscardUnknown,
            ],
            options: &["top"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        self.about().kinds().and(Kinds::of(&[Kind::Abort]))
    }

    fn run(&self, model: &Model, _: &Options) -> Report {
        let mut rpcs: Vec<Served> = Vec::new();
        let (mut zombies, mut zombie_delays) = (0u64, Vec::new());
        for node in 0..model.traces.len() as u16 {
            let mut work = Work::new(model, node);
            model.traces[usize::from(node)].records.iter().for_each(|record| work.add(record));
            zombies += work.zombies;
            zombie_delays.extend(work.zombie_delays);
            rpcs.extend(work.served.into_values());
        }
        rpcs.sort_by_key(|s| (s.client, s.id));
        let again: Vec<&Served> = rpcs.iter().filter(|s| s.lives.len() > 1).collect();
        let mut counts: [u64; 4] = [0; 4];
        let (mut wasted, mut gaps) = (0i64, Vec::new());
        for served in &again {
            counts[served.verdict(model) as usize] += 1;
            let executed = served.lives.iter().filter(|l| l.delivered != UNSEEN).skip(1);
            wasted += executed.filter_map(|l| since(l.delivered, l.replied)).sum::<i64>();
            gaps.extend(served.lives.windows(2).filter_map(|pair| since(pair[0].ended, pair[1].created)));
        }
        let mut summary = Table::new("summary", "RPCs of servers:");
        for (title, meaning) in [
            ("Served", "RPCs seen"),
            ("Recreated", "that began again after their end"),
            ("Duplicate", "executed twice or more"),
            ("Partial", "began again, but did not reach the application again in the trace"),
            ("Reused", "another request with the same id: no fault"),
        ] {
            summary = summary.column(title, Unit::None, meaning);
        }
        summary = summary
            .column("DupFrac", Unit::Share, "")
            .decimals(5)
            .column("Wasted", Unit::Us, "time of servers for executions beyond the first")
            .column("GapP50", Unit::Us, "from an end to the next begin")
            .column("GapMax", Unit::Us, "")
            .column("Zombies", Unit::None, "packets that SoftIRQ had for RPCs that were over")
            .column("ZombieP50", Unit::Us, "their time from GRO to SoftIRQ");
        let (gaps, zombie_delays): (Samples, Samples) =
            (gaps.into_iter().collect(), zombie_delays.into_iter().collect());
        summary.row([
            rpcs.len().into(),
            again.len().into(),
            counts[Verdict::Duplicate as usize].into(),
            counts[Verdict::Partial as usize].into(),
            counts[Verdict::Reused as usize].into(),
            share(counts[Verdict::Duplicate as usize] as f64, rpcs.len() as f64),
            crate::stats::micros(wasted).into(),
            gaps.p(50),
            gaps.max(),
            zombies.into(),
            zombie_delays.p(50),
        ]);
        Report::of([summary, list(model, &again)])
    }
}

/// What incarnations mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Duplicate,
    Partial,
    Reused,
    /// One execution at most, and nothing open.
    Harmless,
}

impl Verdict {
    fn text(self) -> &'static str {
        ["DUPLICATE", "PARTIAL", "REUSED", "harmless"][self as usize]
    }
}

/// One incarnation. Times are ns on the common clock.
#[derive(Clone, Debug)]
struct Life {
    created: i64,
    /// The packet that began it: at GRO and in SoftIRQ, and whether it was a retransmission or a copy.
    gro: i64,
    softirq: i64,
    again: bool,
    copy: bool,
    length: u32,
    delivered: i64,
    replied: i64,
    ended: i64,
    /// No event tells the end: the next begin does.
    inferred: bool,
}

impl Life {
    fn new(created: i64) -> Self {
        Self {
            created,
            gro: UNSEEN,
            softirq: UNSEEN,
            again: false,
            copy: false,
            length: 0,
            delivered: UNSEEN,
            replied: UNSEEN,
            ended: UNSEEN,
            inferred: false,
        }
    }
}

/// An RPC on its server.
struct Served {
    client: u16,
    id: u32,
    node: u16,
    lives: Vec<Life>,
    /// The incarnation is open.
    open: bool,
    /// A packet that has just been in SoftIRQ: time and bytes of its message.
    packet: Option<(i64, u32)>,
}

impl Served {
    fn verdict(&self, model: &Model) -> Verdict {
        let lengths: Vec<u32> = self.lives.iter().map(|l| l.length).filter(|l| *l > 0).collect();
        let other_length = lengths.windows(2).any(|pair| pair[0] != pair[1]);
        if other_length && calls(model, self.client, self.id ^ 1) > 1 {
            return Verdict::Reused;
        }
        let delivered = self.lives.iter().filter(|l| l.delivered != UNSEEN).count();
        match delivered {
            2.. => Verdict::Duplicate,
            _ if self.lives[1..].iter().any(|l| l.delivered == UNSEEN && l.ended == UNSEEN) => Verdict::Partial,
            _ => Verdict::Harmless,
        }
    }
}

/// How often the client's application started a request with this id.
fn calls(model: &Model, client: u16, id: u32) -> usize {
    let Some(trace) = model.traces.get(usize::from(client)) else { return 0 };
    trace
        .records
        .iter()
        .filter(|r| r.kind == Kind::SendmsgRequest && r.id == id && model.hosts.base(r.client) == client)
        .count()
}

/// Follows the RPCs of one server.
struct Work<'a> {
    model: &'a Model,
    node: u16,
    offset: i64,
    served: FxHashMap<(u16, u32), Served>,
    zombies: u64,
    zombie_delays: Vec<i64>,
}

impl<'a> Work<'a> {
    fn new(model: &'a Model, node: u16) -> Self {
        let offset = model.clock.offset(usize::from(node)).unwrap_or(0);
        Self { model, node, offset, served: FxHashMap::default(), zombies: 0, zombie_delays: Vec::new() }
    }

    fn add(&mut self, record: &Record) {
        let Some(id) = record.rpc().filter(|id| id % 2 == 1 && record.client != AMBIGUOUS) else { return };
        let time = record.time + self.offset;
        // Of an id that is used again all incarnations are looked at together; their packets are apart.
        let (node, own, client) = (self.node, record.client, self.model.hosts.base(record.client));
        let concerns = matches!(
            record.kind,
            Kind::Unsched
                | Kind::SoftirqData
                | Kind::RecvmsgDone
                | Kind::SendmsgResponse
                | Kind::RpcEnd
                | Kind::RpcAcked
                | Kind::Abort
                | Kind::DiscardUnknown
        );
        if !concerns {
            return;
        }
        let new = || Served { client, id, node, lives: Vec::new(), open: false, packet: None };
        let served = self.served.entry((client, id)).or_insert_with(new);
        match record.kind {
            Kind::Unsched => {
                if served.open
                    && let Some(last) = served.lives.last_mut()
                {
                    (last.ended, last.inferred) = (time, true);
                }
                served.lives.push(Life::new(time));
                served.open = true;
                // The packet is logged just before or just after.
                if let Some((at, length)) = served.packet.take().filter(|(at, _)| time - at < TOGETHER) {
                    self.begins((client, own), id, at, length);
                }
            }
            Kind::SoftirqData => {
                let waits = served.open
                    && served
                        .lives
                        .last()
                        .is_some_and(|l| l.softirq == UNSEEN && l.created != UNSEEN && time - l.created < TOGETHER);
                if waits {
                    self.begins((client, own), id, time, record.a);
                } else if !served.open {
                    served.packet = Some((time, record.a));
                }
            }
            Kind::RecvmsgDone => {
                if let Some(life) = served.lives.last_mut() {
                    life.delivered = if life.delivered == UNSEEN { time } else { life.delivered };
                } else {
                    served.lives.push(Life { delivered: time, ..Life::new(UNSEEN) });
                    served.open = true;
                }
            }
            Kind::SendmsgResponse => {
                if let Some(life) = served.lives.last_mut() {
                    life.replied = time;
                }
            }
            Kind::DiscardUnknown => {
                self.zombies += 1;
                let delay = self.dropped(own, id, time);
                self.zombie_delays.extend(delay);
            }
            _ => {
                if served.lives.is_empty() {
                    // It began before the trace.
                    served.lives.push(Life::new(UNSEEN));
                    served.open = true;
                }
                if served.open
                    && let Some(life) = served.lives.last_mut()
                {
                    life.ended = time;
                    served.open = false;
                }
            }
        }
    }

    fn packets(&self, client: u16, id: u32) -> &'a [Flight] {
        let rpcs = self.model.rpcs();
        let message = rpcs.place(client, id).and_then(|place| rpcs.incoming(place));
        message.map_or(&[], |m| self.model.flights().data_of(m))
    }

    /// The packet in SoftIRQ at `at` begins the incarnation that was opened last.
    fn begins(&mut self, (client, own): (u16, u16), id: u32, at: i64, length: u32) {
        let packets = self.packets(own, id);
        let found = packets.iter().find(|f| f.softirq == at);
        let earlier =
            |f: &Flight| packets.iter().any(|o| o.offset == f.offset && o.softirq != UNSEEN && o.softirq < at);
        if let Some(life) = self.served.get_mut(&(client, id)).and_then(|s| s.lives.last_mut()) {
            (life.softirq, life.length) = (at, length);
            if let Some(f) = found {
                life.gro = f.gro;
                life.again = f.again && f.xmit != UNSEEN;
                life.copy = !f.again && earlier(f);
            }
        }
    }

    /// Time from GRO until a packet of the RPC is thrown away at `at`.
    fn dropped(&self, client: u16, id: u32, at: i64) -> Option<i64> {
        let waiting = self.packets(client, id).iter().filter(|f| f.discarded && f.gro != UNSEEN && f.gro <= at);
        waiting.map(|f| f.gro).max().map(|gro| at - gro)
    }
}

/// Why an incarnation began after another.
fn cause(model: &Model, served: &Served, before: &Life, life: &Life) -> &'static str {
    let restarted = || {
        let records = model.traces.get(usize::from(served.client)).map_or(&[][..], |t| &t.records);
        records.iter().any(|r| r.kind == Kind::Restart && r.id == served.id ^ 1)
    };
    if life.gro != UNSEEN && before.ended != UNSEEN && life.gro < before.ended && before.ended < life.softirq {
        "softirq-stall"
    } else if restarted() {
        "restart"
    } else if life.again && before.ended != UNSEEN && life.gro > before.ended {
        "late-rtx"
    } else if life.copy {
        "net-dup"
    } else {
        "unknown"
    }
}

fn list(model: &Model, again: &[&Served]) -> Table {
    let mut table = Table::new("incarnations", "RPCs that began more than once:")
        .column("Server", Unit::None, "")
        .column("Client", Unit::None, "")
        .column("Id", Unit::None, "on the server")
        .column("Inc", Unit::None, "")
        .column("Verdict", Unit::None, "");
    for (title, meaning) in [
        ("Created", ""),
        ("Delivered", "the application has the request"),
        ("Replied", "the application answers"),
        ("Ended", ""),
        ("Gro", "the packet that began it"),
        ("Softirq", ""),
    ] {
        table = table.column(title, Unit::Us, meaning).decimals(3);
    }
    table = table.column("Delay", Unit::Us, "of that packet, from GRO to SoftIRQ").column("Cause", Unit::None, "");
    for served in again {
        let verdict = served.verdict(model);
        for (i, life) in served.lives.iter().enumerate() {
            let before = i.checked_sub(1).map(|i| &served.lives[i]);
            let why = before.filter(|_| verdict != Verdict::Reused).map(|before| cause(model, served, before, life));
            let ended: Cell = us(seen(life.ended));
            let row = table.row([
                model.name(served.node).into(),
                model.hosts.name(served.client).into(),
                served.id.into(),
                (i + 1).into(),
                if i == 0 { verdict.text().into() } else { Cell::None },
                us(seen(life.created)),
                us(seen(life.delivered)),
                us(seen(life.replied)),
                ended,
                us(seen(life.gro)),
                us(seen(life.softirq)),
                us(since(life.gro, life.softirq)),
                why.into(),
            ]);
            if life.inferred {
                row.note("no event tells its end");
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    const BEGIN: &str = "Incoming message for id 11 has 100 unscheduled bytes";

    /// An RPC of 100 bytes that is served, and ends at 300.
    fn traffic() -> Traffic {
        let mut traffic = Traffic::new(2);
        traffic.rpc((0, 1), 10, (100, 100), 100.0, Delays::USUAL);
        traffic.event(1, 2, 108.6, BEGIN);
        traffic.event(1, 2, 300.0, "homa_rpc_acked freeing id 11");
        traffic
    }

    fn done(traffic: &mut Traffic, at: f64) {
        traffic.event(1, 3, at, "homa_recvmsg returning status 0, id 11");
        traffic.event(1, 3, at + 5.0, "homa_sendmsg response, id 11, port 4000, pid 7, length 100");
    }

    fn run(traffic: &Traffic) -> (Table, Table) {
        let mut report = DupExec.run(&traffic.model(), &Options::default());
        let list = report.tables.remove(1);
        (report.tables.remove(0), list)
    }

    #[test]
    fn a_packet_that_was_stuck_in_softirq_executes_the_rpc_again() {
        let mut traffic = traffic();
        // A copy of the request that was at GRO at 200 and in SoftIRQ at 1500.
        traffic.event(0, 3, 190.0, "retransmitting offset 0, length 100, id 10");
        traffic.packet((0, 1), 10, (0, 100, 100), 194.5, Delays { softirq: 1300.0, ..Delays::USUAL });
        traffic.event(1, 2, 1500.1, BEGIN);
        done(&mut traffic, 1520.0);
        let (summary, list) = run(&traffic);
        let number = |key: &str| summary.get(0, key).number().unwrap();
        assert_eq!(
            [number("served"), number("recreated"), number("duplicate"), number("wasted_us")],
            [1.0, 1.0, 1.0, 5.0]
        );
        assert_eq!((list.get(0, "verdict"), list.get(1, "cause")), (&"DUPLICATE".into(), &"softirq-stall".into()));
        assert_eq!(
            (list.get(1, "delay_us"), list.get(1, "gro_us"), list.get(0, "ended_us")),
            (&1300.0.into(), &200.0.into(), &300.0.into())
        );
        assert_eq!(number("gap_p50_us"), 1200.1);
    }

    #[test]
    fn a_late_retransmission_is_told_from_a_reused_id() {
        let mut late = traffic();
        late.event(0, 3, 390.0, "retransmitting offset 0, length 100, id 10");
        late.packet((0, 1), 10, (0, 100, 100), 400.0, Delays::USUAL);
        late.event(1, 2, 407.6, BEGIN);
        let (summary, list) = run(&late);
        assert_eq!((summary.get(0, "partial"), summary.get(0, "duplicate")), (&1u32.into(), &0u32.into()));
        assert_eq!((list.get(0, "verdict"), list.get(1, "cause")), (&"PARTIAL".into(), &"late-rtx".into()));
        let mut reused = traffic();
        reused.rpc((0, 1), 10, (700, 100), 1000.0, Delays::USUAL);
        reused.event(1, 2, 1008.6, BEGIN);
        let (summary, _) = run(&reused);
        assert_eq!((summary.get(0, "reused"), summary.get(0, "duplicate")), (&1u32.into(), &0u32.into()));
    }

    #[test]
    fn ordinary_rpcs_are_no_cases_and_zombies_are_counted() {
        let mut traffic = traffic();
        traffic.event(1, 1, 400.0, "homa_gro_receive got packet from 0xa000102 id 11, offset 0, priority 5");
        traffic.event(1, 2, 450.0, "Discarding packet for unknown RPC, id 11, type 16, peer 0xa000102:5");
        let (summary, list) = run(&traffic);
        let number = |key: &str| summary.get(0, key).number().unwrap();
        assert_eq!(
            [number("served"), number("recreated"), number("zombies"), number("zombie_p50_us")],
            [1.0, 0.0, 1.0, 50.0]
        );
        assert!(list.rows.is_empty());
    }
}
