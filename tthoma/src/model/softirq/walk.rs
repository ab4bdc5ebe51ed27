//! Follows a node's records in the order of time.

use rustc_hash::FxHashMap;

use super::{Batch, Class, Ending, Invocation, KernelRun, NO_BATCH, NO_CORE, Queues, Wait};
use crate::event::{AMBIGUOUS, Have, Kind, Record};
use crate::packets::UNSEEN;
use crate::read::NodeTrace;

/// End of a list.
const END: u32 = u32::MAX;
/// Most packets that GRO is taken to hold for one batch.
const MOST_HELD: usize = 512;
/// Type of data packets.
const DATA: u32 = 0x10;
/// Receive SoftIRQ.
const NET_RX: u32 = 3;

type Name = (Class, u16, u32, u32);

/// What is under way on a core.
#[derive(Clone, Debug)]
struct Core {
    /// Packets that its GRO has and that are in no batch, as indexes of waits.
    held: Vec<u32>,
    /// The packet that its GRO got last: a wait in the ring is said after it.
    latest: u32,
    /// Begin of the invocation that runs, or [`UNSEEN`].
    started: i64,
    /// End of the invocation before that, or [`UNSEEN`].
    idle: i64,
    /// Last event of the invocation that runs.
    last: i64,
    /// The invocation has processed no packet yet.
    fresh: bool,
    /// No event of another context was seen since it began.
    running: bool,
    /// Hand-offs to this core that no invocation was seen for, for [`Queues::legacy`].
    pending: std::collections::VecDeque<i64>,
    /// SoftIRQs that were raised and have not begun, by vector.
    raised: [i64; 4],
    /// Kernel's SoftIRQ that runs, as an index of runs.
    run: u32,
}

impl Default for Core {
    fn default() -> Self {
        Self {
            held: Vec::new(),
            latest: END,
            started: UNSEEN,
            idle: UNSEEN,
            last: UNSEEN,
            fresh: false,
            running: false,
            pending: std::collections::VecDeque::new(),
            raised: [UNSEEN; 4],
            run: END,
        }
    }
}

#[derive(Default)]
struct Walk {
    out: Queues,
    cores: FxHashMap<u16, Core>,
    /// Packets that wait, first and last of each name.
    waiting: FxHashMap<Name, (u32, u32)>,
    /// Packets of each RPC, for those that SoftIRQ discards without saying which; empty if it does not.
    by_rpc: FxHashMap<(u16, u32), Vec<u32>>,
    discards: bool,
}

pub(super) fn walk(trace: &NodeTrace) -> Queues {
    let count = |kind| trace.stats.count(kind);
    let mut walk = Walk { discards: count(Kind::DiscardUnknown) > 0, ..Walk::default() };
    walk.out.hands_off = count(Kind::GroHandoff) > 0;
    let packets = [Kind::GroData, Kind::GroGrant, Kind::GroControl, Kind::KernelBacklog, Kind::KernelGro];
    walk.out.waits.reserve(packets.into_iter().map(count).sum::<u64>() as usize);
    for record in trace.records.iter().filter(|r| r.client != AMBIGUOUS) {
        walk.record(record);
    }
    walk.finish()
}

impl Walk {
    fn record(&mut self, record: &Record) {
        use Kind::*;
        match record.kind {
            GroData => self.gro(record, Class::Data),
            GroGrant => self.gro(record, Class::Grant),
            GroControl => self.gro(record, Class::Control),
            RingWait => self.ring(record),
            GroHandoff => self.hand_off(record),
            SoftirqStart => self.start(record),
            SoftirqData => self.process(record, Class::Data),
            SoftirqGrant => self.process(record, Class::Grant),
            ResendRx | ResendUnknown | BusyRx | UnknownRx | NeedAckRx | AckRx => self.process(record, Class::Control),
            DiscardUnknown => self.discard(record),
            RpcHandoff | RpcQueued | SendGrant | BusyTx | Retransmit | IpXmit | SendData | Unsched | RpcAcked
            | GapCreated | RejectData => self.softirq_goes_on(record),
            SendmsgRequest | SendmsgResponse | RecvmsgStart | RecvmsgDone | CopyInStart | CopyOutStart
            | CopyOutDone | WaitFoundRpc | PacerXmit | TaskSwitch => self.other_context(record),
            KernelBacklog | KernelGro => self.kernel_arrival(record),
            KernelGroDone => self.kernel_gro_done(record),
            KernelReceive => self.kernel_receive(record),
            KernelRaise => self.kernel_raise(record),
            KernelBegin => self.kernel_begin(record),
            KernelEnd => self.kernel_end(record),
            KernelLost => self.kernel_lost(record),
            _ => {}
        }
    }

    fn core(&mut self, core: u16) -> &mut Core {
        self.cores.entry(core).or_default()
    }

    /// A packet that arrived.
    fn arrive(&mut self, record: &Record, class: Class, name: Name) -> u32 {
        let place = self.out.waits.len() as u32;
        self.out.waits.push(Wait {
            class,
            client: record.client,
            id: name.2,
            offset: name.3,
            message_length: 0,
            bytes: 0,
            ring: UNSEEN,
            gro: record.time,
            handoff: UNSEEN,
            started: UNSEEN,
            idle: UNSEEN,
            softirq: UNSEEN,
            gro_core: record.core,
            core: NO_CORE,
            batch: NO_BATCH,
            ending: Ending::Open,
            next: END,
        });
        match self.waiting.get_mut(&name) {
            Some((_, last)) => {
                self.out.waits[*last as usize].next = place;
                *last = place;
            }
            None => drop(self.waiting.insert(name, (place, place))),
        }
        if self.discards && class != Class::Kernel {
            self.by_rpc.entry((record.client, record.id)).or_default().push(place);
        }
        place
    }

    /// The packet of this name that waits longest waits no more.
    fn leave(&mut self, name: Name) -> Option<u32> {
        let (first, last) = self.waiting.get_mut(&name)?;
        let place = *first;
        if place == *last {
            self.waiting.remove(&name);
        } else {
            *first = self.out.waits[place as usize].next;
        }
        Some(place)
    }

    fn gro(&mut self, record: &Record, class: Class) {
        self.other_context(record);
        let place = self.arrive(record, class, name(class, record));
        let core = self.core(record.core);
        if core.held.len() >= MOST_HELD {
            core.held.clear();
        }
        core.held.push(place);
        core.latest = place;
    }

    fn ring(&mut self, record: &Record) {
        let latest = self.core(record.core).latest;
        if let Some(wait) = self.out.waits.get_mut(latest as usize)
            && (wait.id, wait.gro_core) == (record.id, record.core)
            && wait.ring == UNSEEN
        {
            wait.ring = wait.gro - i64::from(record.a);
        }
    }

    fn hand_off(&mut self, record: &Record) {
        self.other_context(record);
        let target = record.a as u16;
        let held = std::mem::take(&mut self.core(record.core).held);
        let of = |place: &u32| &self.out.waits[*place as usize];
        let head = |offset: bool| {
            held.iter().position(|p| of(p).id == record.id && (!offset || of(p).offset == record.offset))
        };
        // Of packets without data the kernel logs an offset that means nothing.
        let exact = if record.have.has(Have::OFFSET) { head(true) } else { None };
        let first = exact.or_else(|| if record.have.has(Have::ID) { head(false) } else { None });
        // If the first is not there it came before the trace's start, and all others after it.
        let members = &held[first.unwrap_or(0)..];
        let batch = self.out.batches.len() as u32;
        for place in members {
            let wait = &mut self.out.waits[*place as usize];
            (wait.handoff, wait.core, wait.batch) = (record.time, target, batch);
        }
        let packets = members.len() as u32;
        self.out.batches.push(Batch {
            gro_core: record.core,
            core: target,
            handoff: record.time,
            started: UNSEEN,
            packets,
        });
        self.core(target).pending.push_back(record.time);
    }

    fn start(&mut self, record: &Record) {
        self.end_invocation(record.core);
        let core = self.cores.entry(record.core).or_default();
        (core.started, core.last, core.fresh, core.running) = (record.time, record.time, true, true);
        if let Some(handoff) = core.pending.pop_front() {
            self.out.legacy.push(record.time - handoff);
        }
    }

    fn end_invocation(&mut self, core_number: u16) {
        let core = self.cores.entry(core_number).or_default();
        if core.started != UNSEEN {
            core.idle = core.last;
            self.out.invocations.push(Invocation { core: core_number, start: core.started, end: core.last });
            core.started = UNSEEN;
        }
    }

    /// An event of the invocation that runs.
    fn softirq_goes_on(&mut self, record: &Record) {
        let core = self.core(record.core);
        if core.running {
            core.last = record.time;
        }
    }

    /// An event of something else: the invocation is over, though packets that were collected may still be processed.
    fn other_context(&mut self, record: &Record) {
        self.core(record.core).running = false;
    }

    fn process(&mut self, record: &Record, class: Class) {
        let name = name(class, record);
        let place = self.leave(name).unwrap_or_else(|| self.left_open(record, class, name));
        self.done(record, place);
        if class == Class::Data {
            self.out.waits[place as usize].message_length = record.a;
        }
    }

    /// A packet that came before the trace's start.
    fn left_open(&mut self, record: &Record, class: Class, name: Name) -> u32 {
        let place = self.arrive(record, class, name);
        self.leave(name);
        let wait = &mut self.out.waits[place as usize];
        (wait.gro, wait.gro_core) = (UNSEEN, NO_CORE);
        place
    }

    fn done(&mut self, record: &Record, place: u32) {
        let hands_off = self.out.hands_off;
        let core = self.cores.entry(record.core).or_default();
        // Another context may have run in between, on cores that do everything.
        if core.started != UNSEEN {
            (core.last, core.running) = (record.time, true);
        }
        let fresh = std::mem::replace(&mut core.fresh, false);
        let wait = &mut self.out.waits[place as usize];
        wait.softirq = record.time;
        wait.core = record.core;
        // An invocation that began before the packet was handed off can't be its own.
        let own = core.started != UNSEEN && (wait.handoff == UNSEEN || core.started >= wait.handoff);
        if own {
            (wait.started, wait.idle) = (core.started, core.idle);
        }
        let unbatched = wait.handoff == UNSEEN && wait.gro != UNSEEN;
        let bypassed = hands_off && fresh && unbatched && wait.gro_core == record.core;
        wait.ending = if bypassed { Ending::Bypassed } else { Ending::Processed };
        if unbatched && let Some(at) = core.held.iter().rposition(|held| *held == place) {
            core.held.remove(at);
        }
        if let Some(batch) = self.out.batches.get_mut(wait.batch as usize)
            && batch.started == UNSEEN
        {
            batch.started = wait.started;
        }
    }

    /// SoftIRQ threw away a packet of this RPC: that of its type which waits longest.
    fn discard(&mut self, record: &Record) {
        let class = if record.a == DATA { Class::Data } else { Class::Control };
        let Some(places) = self.by_rpc.get(&(record.client, record.id)) else { return };
        let waits = |p: &&u32| {
            let wait = &self.out.waits[**p as usize];
            wait.softirq == UNSEEN && (wait.class == Class::Data) == (class == Class::Data)
        };
        let Some(wait) = places.iter().find(waits).map(|p| self.out.waits[*p as usize]) else { return };
        if let Some(place) = self.leave((wait.class, wait.client, wait.id, wait.offset)) {
            self.done(record, place);
        }
    }

    fn kernel_arrival(&mut self, record: &Record) {
        let place = self.arrive(record, Class::Kernel, (Class::Kernel, 0, record.a, 0));
        let wait = &mut self.out.waits[place as usize];
        (wait.bytes, wait.handoff) = (record.b, record.time);
    }

    fn kernel_gro_done(&mut self, record: &Record) {
        if matches!(record.b, 0 | 1 | 4)
            && let Some(place) = self.leave((Class::Kernel, 0, record.a, 0))
        {
            self.out.waits[place as usize].ending = Ending::Unknown;
        }
    }

    fn kernel_receive(&mut self, record: &Record) {
        // What never queued can't have waited.
        let Some(place) = self.leave((Class::Kernel, 0, record.a, 0)) else { return };
        let core = self.cores.entry(record.core).or_default();
        let wait = &mut self.out.waits[place as usize];
        (wait.softirq, wait.core, wait.ending) = (record.time, record.core, Ending::Processed);
        if core.started != UNSEEN {
            (wait.started, wait.idle) = (core.started, core.idle);
        }
    }

    fn kernel_raise(&mut self, record: &Record) {
        if let Some(raised) = self.core(record.core).raised.get_mut(record.a as usize)
            && *raised == UNSEEN
        {
            *raised = record.time;
        }
    }

    fn kernel_begin(&mut self, record: &Record) {
        let run = self.out.kernel_runs.len() as u32;
        let core = self.core(record.core);
        let raised = core.raised.get_mut(record.a as usize).map_or(UNSEEN, |at| std::mem::replace(at, UNSEEN));
        core.run = run;
        if record.a == NET_RX {
            (core.started, core.last) = (record.time, record.time);
        }
        self.out.kernel_runs.push(KernelRun {
            core: record.core,
            vector: record.a,
            raised,
            start: record.time,
            end: UNSEEN,
        });
    }

    fn kernel_end(&mut self, record: &Record) {
        let core = self.core(record.core);
        let run = std::mem::replace(&mut core.run, END);
        if record.a == NET_RX {
            core.last = record.time;
            self.end_invocation(record.core);
        }
        if let Some(run) = self.out.kernel_runs.get_mut(run as usize)
            && run.vector == record.a
        {
            run.end = record.time;
        }
    }

    /// What waits may have been done in the meantime: nothing is known of it any more.
    fn kernel_lost(&mut self, record: &Record) {
        self.out.lost += u64::from(record.a.max(1));
        let core = self.core(record.core);
        (core.raised, core.started, core.idle, core.run) = ([UNSEEN; 4], UNSEEN, UNSEEN, END);
        let waits = &mut self.out.waits;
        self.waiting.retain(|name, (first, _)| {
            if name.0 == Class::Kernel {
                waits[*first as usize].ending = Ending::Unknown;
            }
            name.0 != Class::Kernel
        });
    }

    fn finish(mut self) -> Queues {
        let cores: Vec<u16> = self.cores.keys().copied().collect();
        cores.into_iter().for_each(|core| self.end_invocation(core));
        self.out.invocations.sort_by_key(|i| (i.core, i.start));
        for wait in &mut self.out.waits {
            if wait.ending == Ending::Open && wait.class == Class::Control {
                wait.ending = Ending::Unknown;
            }
        }
        self.out
    }
}

fn name(class: Class, record: &Record) -> Name {
    (class, record.client, record.id, if class == Class::Control { 0 } else { record.offset })
}
