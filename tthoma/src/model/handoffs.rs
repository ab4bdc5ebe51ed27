//! Delays in handing work from one core or thread to another, on one node.

use rustc_hash::FxHashMap;

use crate::event::{AMBIGUOUS, Have, Kind, Record};
use crate::read::{FileStats, NodeTrace};

/// One hand-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handoff {
    /// How long it took, ns.
    pub delay: i64,
    /// When it was over, on the node's own clock.
    pub end: i64,
    /// Node.
    pub node: u16,
}

/// All hand-offs of the nodes that were looked at.
#[derive(Clone, Debug, Default)]
pub struct Handoffs {
    /// From the end of a GRO batch to the SoftIRQ invocation that processes the batch's first packet.
    pub to_softirq: Vec<Handoff>,
    /// From SoftIRQ to a thread that polls.
    pub to_polling: Vec<Handoff>,
    /// From SoftIRQ to a thread that sleeps.
    pub to_sleeping: Vec<Handoff>,
    /// From SoftIRQ to a server's thread, through the queue of its socket.
    pub to_server: Vec<Handoff>,
    /// From SoftIRQ to a client's thread, through the queue of its socket.
    pub to_client: Vec<Handoff>,
    /// Batches whose first packet or invocation was not found.
    pub batches_open: u64,
    /// Hand-offs to a thread that another hand-off of the same RPC replaced.
    pub replaced: u64,
    /// Hand-offs to a thread that the trace's end cut off.
    pub open: u64,
}

impl Handoffs {
    /// Those of all nodes.
    pub(crate) fn collect(traces: &[NodeTrace]) -> Self {
        let mut all = Self::default();
        for (node, trace) in traces.iter().enumerate() {
            all.add(node as u16, trace);
        }
        all
    }

    /// The lists with their names.
    pub fn lists(&self) -> [(&'static str, &Vec<Handoff>); 5] {
        [
            ("gro_to_softirq", &self.to_softirq),
            ("softirq_to_polling", &self.to_polling),
            ("softirq_to_sleeping", &self.to_sleeping),
            ("softirq_to_server_queue", &self.to_server),
            ("softirq_to_client_queue", &self.to_client),
        ]
    }

    /// The list of that place in [`Handoffs::lists`].
    pub(crate) fn list_mut(&mut self, place: u8) -> Option<&mut Vec<Handoff>> {
        self.lists_mut().into_iter().nth(place.into())
    }

    fn lists_mut(&mut self) -> [&mut Vec<Handoff>; 5] {
        let Self { to_softirq, to_polling, to_sleeping, to_server, to_client, .. } = self;
        [to_softirq, to_polling, to_sleeping, to_server, to_client]
    }

    /// Forgets the hand-offs, but not the counts.
    #[cfg(feature = "tables")]
    pub(crate) fn clear(&mut self) {
        self.lists_mut().into_iter().for_each(Vec::clear);
    }

    /// Adds those of a node.
    pub(crate) fn add(&mut self, node: u16, trace: &NodeTrace) {
        let mut follow = Following::new(node, &trace.stats);
        trace.records.iter().for_each(|record| follow.add(self, record));
        follow.finish(self);
    }
}

/// What one node hands off, record by record.
pub(crate) struct Following {
    node: u16,
    /// Most nodes log no hand-offs of batches: nothing to follow then.
    batches: Option<Batches>,
    wakeups: Wakeups,
}

impl Following {
    /// At the begin of a node's trace.
    pub(crate) fn new(node: u16, stats: &FileStats) -> Self {
        let batches = (stats.count(Kind::GroHandoff) > 0).then(Batches::default);
        Self { node, batches, wakeups: Wakeups::default() }
    }

    /// Takes the next record; what it ends goes to `out`.
    #[inline]
    pub(crate) fn add(&mut self, out: &mut Handoffs, record: &Record) {
        if let Some(batches) = &mut self.batches {
            batches.add(out, self.node, record);
        }
        self.wakeups.add(out, self.node, record);
    }

    /// The trace is over: counts what is open.
    pub(crate) fn finish(self, out: &mut Handoffs) {
        let waiting = self.batches.iter().flat_map(|b| b.waiting.values()).map(|w| w.len() as u64);
        out.batches_open += waiting.sum::<u64>();
        out.open += self.wakeups.pending.len() as u64;
    }
}

/// A packet as GRO and SoftIRQ name it on one node: type, id, offset (0 for control packets).
type Name = (Type, u32, u32);

/// Types of packets as far as both GRO and SoftIRQ tell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Type {
    Data,
    Grant,
    Control,
}

/// Matches batches with invocations by the identity of the batch's first packet (timetrace.md 10.2). A queue of hand-offs
/// for each core would be thrown off by a batch before the trace's start, by packets that bypass the hand-off, and by
/// batches that are dropped.
#[derive(Default)]
struct Batches {
    /// Packets that each core's GRO holds.
    held: FxHashMap<u16, Vec<Name>>,
    /// Hand-off times of batches that wait, by target core and first packet.
    waiting: FxHashMap<(u16, Name), Vec<i64>>,
    /// Begin of each core's latest invocation.
    started: FxHashMap<u16, i64>,
}

impl Batches {
    fn add(&mut self, out: &mut Handoffs, node: u16, record: &Record) {
        match record.kind {
            Kind::GroData => self.hold(record, Type::Data),
            Kind::GroGrant => self.hold(record, Type::Grant),
            Kind::GroControl => self.hold(record, Type::Control),
            Kind::GroHandoff => self.hand_off(out, record),
            Kind::SoftirqStart => drop(self.started.insert(record.core, record.time)),
            Kind::SoftirqData => self.process(out, node, record, Type::Data),
            Kind::SoftirqGrant => self.process(out, node, record, Type::Grant),
            // What a control packet makes SoftIRQ log first.
            Kind::ResendRx | Kind::ResendUnknown | Kind::BusyRx | Kind::UnknownRx | Kind::NeedAckRx | Kind::AckRx => {
                self.process(out, node, record, Type::Control)
            }
            _ => {}
        }
    }

    fn hold(&mut self, record: &Record, kind: Type) {
        let held = self.held.entry(record.core).or_default();
        // On cores that never hand off, held packets were processed at once: only the latest can be in a batch.
        if held.len() >= 512 {
            held.clear();
        }
        held.push(name(kind, record));
    }

    fn hand_off(&mut self, out: &mut Handoffs, record: &Record) {
        let held = self.held.entry(record.core).or_default();
        let named =
            |offset: bool| held.iter().find(|(_, id, o)| *id == record.id && (!offset || *o == record.offset)).copied();
        let exact = if record.have.has(Have::OFFSET) { named(true) } else { None };
        // Of packets without data the kernel logs an offset that means nothing.
        let first = exact.or_else(|| if record.have.has(Have::ID) { named(false) } else { None });
        held.clear();
        match first {
            Some(first) => self.waiting.entry((record.a as u16, first)).or_default().push(record.time),
            // Its packets are before the trace's start.
            None if record.have.has(Have::ID | Have::OFFSET) => {
                self.waiting.entry((record.a as u16, name(Type::Data, record))).or_default().push(record.time);
            }
            None => out.batches_open += 1,
        }
    }

    fn process(&mut self, out: &mut Handoffs, node: u16, record: &Record, kind: Type) {
        let name = name(kind, record);
        if let Some(waiting) = self.waiting.get_mut(&(record.core, name))
            && let Some(start) = self.started.get(&record.core)
            && waiting.first().is_some_and(|handed_off| start >= handed_off)
        {
            let handed_off = waiting.remove(0);
            out.to_softirq.push(Handoff { delay: start - handed_off, end: *start, node });
            if waiting.is_empty() {
                self.waiting.remove(&(record.core, name));
            }
        }
        // Processed on the core that holds it: it was not in a batch for another core.
        if let Some(held) = self.held.get_mut(&record.core) {
            held.retain(|h| *h != name);
        }
    }
}

fn name(kind: Type, record: &Record) -> Name {
    (kind, record.id, if kind == Type::Control { 0 } else { record.offset })
}

/// An RPC that waits for a thread.
#[derive(Clone, Copy)]
struct Pending {
    since: i64,
    queued: bool,
}

/// Follows RPCs from SoftIRQ to threads.
#[derive(Default)]
struct Wakeups {
    pending: FxHashMap<(u16, u32), Pending>,
    /// 2024: RPCs whose thread said that it was awake.
    awake: FxHashMap<(u16, u32), ()>,
}

impl Wakeups {
    #[inline]
    fn add(&mut self, out: &mut Handoffs, node: u16, record: &Record) {
        if record.client == AMBIGUOUS {
            return;
        }
        let rpc = (record.client, record.id);
        match record.kind {
            Kind::RpcHandoff | Kind::RpcQueued => {
                let pending = Pending { since: record.time, queued: record.kind == Kind::RpcQueued };
                out.replaced += u64::from(self.pending.insert(rpc, pending).is_some());
            }
            Kind::PollSuccess | Kind::ReapSuccess => drop(self.awake.insert(rpc, ())),
            Kind::WaitFoundRpc => {
                if let Some(pending) = self.pending.remove(&rpc) {
                    let awake = self.awake.remove(&rpc).is_some();
                    self.found(out, node, record, pending, awake);
                }
            }
            _ => {}
        }
    }

    fn found(&self, out: &mut Handoffs, node: u16, record: &Record, pending: Pending, awake: bool) {
        let sample = Handoff { delay: record.time - pending.since, end: record.time, node };
        // Since 2025 the line itself says whether the thread slept.
        let slept = if record.have.has(Have::A) { record.a != 0 } else { !awake };
        let row = match (pending.queued, slept) {
            (false, false) => &mut out.to_polling,
            (false, true) => &mut out.to_sleeping,
            (true, _) if record.id % 2 == 1 => &mut out.to_server,
            (true, _) => &mut out.to_client,
        };
        row.push(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::traces;

    fn handoffs(short: &str) -> Handoffs {
        let mut out = Handoffs::default();
        out.add(0, &traces(&[("n", short)])[0]);
        out
    }

    fn delays(samples: &[Handoff]) -> Vec<i64> {
        samples.iter().map(|s| s.delay).collect()
    }

    /// True wake-up time 1000 us, a backlog from before the trace's start: a queue of anonymous hand-offs would say 0.
    #[test]
    fn a_backlog_at_the_start_does_not_shift_the_pairs() {
        let mut events = Vec::new();
        for i in 0..300 {
            let (at, offset) = (i * 10, i * 1400);
            events.push((at, format!("C1 homa_gro_receive got packet from 0xa id 10, offset {offset}, priority 0")));
            events.push((at, format!("C1 homa_gro_gen3 chose core 2 for id 10, offset {offset}, delta 1")));
            let (done, offset) = (i * 10 + 5, (i - 100) * 1400);
            events.push((done, "C2 homa_softirq starting".into()));
            if i >= 100 {
                events.push((done, format!("C2 incoming data packet, id 10, peer 0xa, offset {offset}/1000000")));
            }
        }
        let text: String = events.into_iter().map(|(at, e)| format!("{at} {e}\n")).collect();
        let out = handoffs(&text);
        assert_eq!(out.to_softirq.len(), 200);
        assert!(out.to_softirq.iter().all(|s| s.delay == 1_005_000), "{:?}", out.to_softirq[0]);
        assert_eq!(out.batches_open, 100);
    }

    /// True wake-up time 20 us; packets that bypass the hand-off start invocations of their own in between.
    #[test]
    fn bypassing_packets_do_not_take_the_place_of_batches() {
        let mut text = String::new();
        for i in 0..100 {
            let (at, offset) = (i * 100, i * 1400);
            text += &format!(
                "{at} C1 homa_gro_receive got packet from 0xa id 10, offset {offset}, priority 0
                {at} C1 homa_gro_gen2 chose core 2 for id 10 offset {offset}
                {0} C2 homa_gro_receive got packet from 0xa id 12, offset {offset}, priority 0
                {0} C2 homa_softirq starting
                {0} C2 incoming data packet, id 12, peer 0xa, offset {offset}/1000000
                {1} C2 homa_softirq starting
                {1} C2 incoming data packet, id 10, peer 0xa, offset {offset}/1000000\n",
                at + 5,
                at + 20
            );
        }
        assert_eq!(delays(&handoffs(&text).to_softirq), [20_000; 100]);
    }

    #[test]
    fn a_batch_that_begins_with_a_grant_is_found_by_its_id() {
        let out = handoffs(
            "1 C1 homa_gro_receive got grant from 0xa id 10, offset 5000, priority 0
             2 C1 homa_gro_receive got packet from 0xa id 12, offset 0, priority 0
             3 C1 homa_gro_gen2 chose core 2 for id 10 offset 77
             7 C2 homa_softirq starting
             8 C2 processing grant for id 10, offset 5000, priority 0, increment 9
             9 C2 incoming data packet, id 12, peer 0xa, offset 0/100",
        );
        assert_eq!(delays(&out.to_softirq), [4000]);
        assert_eq!(out.batches_open, 0);
    }

    #[test]
    fn a_batch_may_begin_with_a_control_packet() {
        let out = handoffs(
            "1 C1 homa_gro_receive got packet from 0xa id 10, type 0x17, priority 7
             2 C1 homa_gro_receive got packet from 0xa id 12, offset 0, priority 0
             3 C1 homa_gro_gen2 chose core 2 for id 10 offset 99
             7 C2 homa_softirq starting
             8 C2 Received NEED_ACK for id 10
             9 C2 incoming data packet, id 12, peer 0xa, offset 0/100",
        );
        assert_eq!((delays(&out.to_softirq), out.batches_open), (vec![4000], 0));
    }

    #[test]
    fn threads_are_told_apart_by_what_they_did() {
        let out = handoffs(
            "1 homa_rpc_handoff handing off id 10 for port 7
             2 homa_wait_shared found rpc id 10, pid 1, port 7 via handoff, blocked 0
             3 homa_rpc_handoff handing off id 10 for port 7
             5 homa_wait_shared found rpc id 10, pid 1, port 7 via handoff, blocked 1
             6 homa_rpc_handoff queued id 11 for port 7
             7 homa_rpc_handoff queued id 12 for port 7
             10 homa_wait_shared found rpc id 11, pid 1, port 7 via ready_rpcs, blocked 0
             12 homa_wait_shared found rpc id 12, pid 1, port 7 via ready_rpcs, blocked 0
             13 homa_rpc_handoff handing off id 14 for port 7
             14 homa_rpc_handoff handing off id 14 for port 7",
        );
        assert_eq!((delays(&out.to_polling), delays(&out.to_sleeping)), (vec![1000], vec![2000]));
        assert_eq!((delays(&out.to_server), delays(&out.to_client)), (vec![4000], vec![5000]));
        assert_eq!((out.replaced, out.open), (1, 1));
    }

    #[test]
    fn traces_of_2024_say_it_in_two_lines() {
        let out = handoffs(
            "1 homa_rpc_handoff handing off id 10 to pid 5 on core 6
             2 received RPC handoff while polling, id 10, socket 3, pid 5
             3 homa_wait_for_message found rpc id 10, pid 5
             4 homa_rpc_handoff handing off id 12 to pid 5 on core 6
             9 homa_wait_for_message found rpc id 12, pid 5",
        );
        assert_eq!((delays(&out.to_polling), delays(&out.to_sleeping)), (vec![2000], vec![5000]));
    }
}
