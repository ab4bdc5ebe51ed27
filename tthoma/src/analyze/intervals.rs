//! Time series of each node: what `activity`, `rx`, `txintervals`, `qbytes` and `nictx` write. Source: timetrace.md 4.6.

use super::live;
use super::samples::ns;
use super::steps::{State, Steps, flow};
use super::{Cell, Options};
use crate::event::Kind;
use crate::model::flights::{first_seen, since};
use crate::model::{Carries, Flight, Model};
use crate::packets::UNSEEN;

macro_rules! fields {
    ($($(#[$doc:meta])* $field:ident: $kind:ident [$($need:ident),*],)*) => {
        /// A number of each step.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub(super) enum Field { $($(#[$doc])* $field,)* }

        impl Field {
            pub(super) const ALL: &[Self] = &[$(Self::$field,)*];

            /// Events without which it is unknown.
            const fn needs(self) -> &'static [Kind] {
                match self { $(Self::$field => &[$(Kind::$need),*],)* }
            }

            /// True if it is what is there at the end of the step, not what happens in it.
            const fn is_state(self) -> bool {
                match self { $(Self::$field => matches!(What::$kind, What::State),)* }
            }

            /// True if it is the sum of what lasts. The modelled queue is a state, but computed as a whole.
            fn is_added(self) -> bool {
                self.is_state() && self != Self::TxQueue
            }
        }
    };
}

enum What {
    State,
    Flow,
}

fields! {
    /// The node's client RPCs.
    RpcsLive: State [SendmsgRequest],
    /// Outgoing requests.
    TxLiveReq: State [IpXmit],
    /// Outgoing responses.
    TxLiveResp: State [IpXmit],
    /// Calls that start a message.
    TxStarts: Flow [SendmsgRequest],
    /// Frames passed to IP.
    TxPkts: Flow [IpXmit],
    /// Their bytes.
    TxBytes: Flow [IpXmit],
    /// Bytes passed to the NIC.
    TxNicBytes: Flow [NicData],
    /// Frames passed to the NIC.
    TxNicPkts: Flow [NicData],
    /// Bytes between IP and NIC.
    TxQdisc: State [IpXmit, NicData],
    /// Bytes that the NIC has not given back.
    TxInNic: State [NicData, FreeTxSkb],
    /// The same, but not after the receiver's GRO has them.
    TxInNic2: State [NicData, FreeTxSkb],
    /// Packets of that kind.
    PktsInNic2: State [NicData, FreeTxSkb],
    /// Bytes that the receiver has, but the NIC has not given back.
    TxNicRx: State [NicData, FreeTxSkb, GroData],
    /// Bytes that would wait in the NIC if the link were always busy.
    TxQueue: State [IpXmit],
    /// Bytes given back.
    TxFreeBytes: Flow [FreeTxSkb],
    /// Bytes granted by receivers, not yet here.
    TxGrantXmit: State [SendGrant, GroGrant],
    /// Bytes granted in grants between GRO and SoftIRQ.
    TxGrantGro: State [GroGrant, SoftirqGrant],
    /// Bytes that may be sent and are not.
    TxGrantAvail: State [SoftirqGrant, IpXmit],
    /// Bytes newly granted here.
    TxNewGrants: Flow [SoftirqGrant],
    /// Messages whose first packet arrives.
    RxStarts: Flow [GroData],
    /// Incoming messages.
    RxLive: State [GroData],
    /// Data packets at GRO.
    RxPkts: Flow [GroData],
    /// Their bytes.
    RxBytes: Flow [GroData],
    /// Incoming messages that need grants.
    RxGrantable: State [SoftirqData],
    /// Bytes granted to senders and not sent.
    RxGranted: State [SendGrant, IpXmit],
    /// Bytes newly granted to senders.
    RxNewGrants: Flow [SendGrant],
    /// Bytes for this node between their sender's IP and NIC.
    RxDataQdisc: State [IpXmit, NicData, GroData],
    /// Bytes between the sender's NIC (IP, if no NIC is logged) and GRO.
    RxDataNet: State [IpXmit, GroData],
    /// Of these, those that take too long.
    RxOverdue: State [NicData, GroData],
    /// Bytes between GRO and SoftIRQ.
    RxDataGro: State [GroData, SoftirqData],
    /// Incoming messages with granted bytes that have not come.
    RxGrants: State [SendGrant, SoftirqData],
    /// These bytes.
    RxGrantBytes: State [SendGrant, SoftirqData],
}

/// Smallest and largest of some times in each step, ns; empty if nobody wants them.
#[derive(Clone, Debug)]
pub(super) struct Extremes(pub(super) Vec<Option<(i64, i64)>>);

impl Extremes {
    fn add(&mut self, steps: &Steps, at: i64, value: i64) {
        if let Some(known) = steps.at(at).and_then(|k| self.0.get_mut(k)) {
            let (low, high) = known.unwrap_or((value, value));
            *known = Some((low.min(value), high.max(value)));
        }
    }
}

/// One node's series.
pub(super) struct Series {
    pub(super) node: u16,
    pub(super) steps: Steps,
    /// Of each field; none for those that were not asked for.
    values: Vec<Vec<f64>>,
    known: Vec<bool>,
    /// With [`Field::TxFreeBytes`]: time from the NIC and back, of frames by the step in which the NIC got them.
    pub(super) free: Extremes,
    /// With it, too: time from the NIC giving a frame back to the receiver's GRO.
    pub(super) gro_free: Extremes,
}

impl Series {
    /// A field at the end of step `k`, divided by `unit`; unknown if its events are not in the traces.
    pub(super) fn cell(&self, field: Field, k: usize, unit: f64) -> Cell {
        self.get(field, k).map(|v| v / unit).into()
    }

    /// A field's number; `None` if unknown, or not asked for.
    pub(super) fn get(&self, field: Field, k: usize) -> Option<f64> {
        self.values[field as usize].get(k).copied().filter(|_| self.known[field as usize])
    }

    /// Sum over all steps; `None` if unknown.
    pub(super) fn sum(&self, field: Field) -> Option<f64> {
        self.known[field as usize].then(|| self.values[field as usize].iter().sum())
    }
}

/// Work in progress on all nodes.
struct Builder {
    steps: Vec<Option<Steps>>,
    /// By node and field; empty if it was not asked for.
    states: Vec<Vec<State>>,
    flows: Vec<Vec<Vec<f64>>>,
    free: Vec<Extremes>,
    gro_free: Vec<Extremes>,
}

/// The series of all nodes, of `fields` only. `queue` restricts what is sent to one transmit queue.
pub(super) fn collect(model: &Model, options: &Options, queue: Option<u32>, fields: &[Field]) -> Vec<Series> {
    let nodes = model.traces.len() as u16;
    let steps: Vec<Option<Steps>> = (0..nodes).map(|n| Steps::new(model, n, options.interval, 1)).collect();
    let count = |s: &Option<Steps>| s.map_or(0, |s| s.count);
    let state = |field: &Field, steps: &Steps| {
        if field.is_added() && fields.contains(field) { State::new(steps) } else { State::default() }
    };
    let states = |steps: &Steps| Field::ALL.iter().map(|f| state(f, steps)).collect();
    let flow = |field: &Field, count: usize| {
        if !field.is_added() && fields.contains(field) { vec![0.0; count] } else { Vec::new() }
    };
    let times = |s: &Option<Steps>| {
        Extremes(if fields.contains(&Field::TxFreeBytes) { vec![None; count(s)] } else { Vec::new() })
    };
    let mut builder = Builder {
        states: steps.iter().map(|s| s.as_ref().map_or_else(Vec::new, states)).collect(),
        flows: steps.iter().map(|s| Field::ALL.iter().map(|f| flow(f, count(s))).collect()).collect(),
        free: steps.iter().map(times).collect(),
        gro_free: steps.iter().map(times).collect(),
        steps,
    };
    builder.messages(model);
    builder.packets(model, options, queue);
    builder.nic_queues(model, options, queue);
    builder.finish(model)
}

/// Before and after everything.
const EVER: (i64, i64) = (i64::MIN / 4, i64::MAX / 4);

impl Builder {
    fn state(&mut self, node: u16, field: Field, a: i64, b: i64, amount: f64) {
        if let Some(Some(steps)) = self.steps.get(usize::from(node)) {
            self.states[usize::from(node)][field as usize].add(steps, a, b, amount);
        }
    }

    fn flow(&mut self, node: u16, field: Field, at: i64, amount: f64) {
        if let Some(Some(steps)) = self.steps.get(usize::from(node))
            && at != UNSEEN
        {
            flow(&mut self.flows[usize::from(node)][field as usize], steps, at, amount);
        }
    }

    fn messages(&mut self, model: &Model) {
        let (rpcs, flights) = (model.rpcs(), model.flights());
        for (place, side) in rpcs.sides.iter().enumerate() {
            let node = side.node;
            if side.is_client() && (side.sendmsg != UNSEEN || side.recvmsg_done != UNSEEN) {
                let end = if side.recvmsg_done == UNSEEN { EVER.1 } else { side.recvmsg_done };
                self.state(node, Field::RpcsLive, if side.sendmsg == UNSEEN { EVER.0 } else { side.sendmsg }, end, 1.0);
            }
            self.flow(node, Field::TxStarts, side.sendmsg, 1.0);
            if let Some((a, b)) = live::outgoing(model, place) {
                let field = if side.is_client() { Field::TxLiveReq } else { Field::TxLiveResp };
                self.state(node, field, a, b, 1.0);
            }
            if let Some((a, b)) = live::incoming(model, place) {
                self.state(node, Field::RxLive, a, b, 1.0);
            }
            let Some(message) = rpcs.incoming(place) else { continue };
            let packets = flights.data_of(message);
            let first = packets.iter().filter(|f| f.offset == 0 && f.gro != UNSEEN).map(|f| f.gro).min();
            self.flow(node, Field::RxStarts, first.unwrap_or(UNSEEN), 1.0);
            let needs_grants = side.in_length.zip(side.unscheduled).is_some_and(|(all, some)| all > some);
            if needs_grants || !flights.grants_for(rpcs, message).is_empty() {
                let processed = || packets.iter().map(|f| f.softirq).filter(|t| *t != UNSEEN);
                let begins = if processed().count() > 0 && packets.iter().any(|f| f.offset == 0 && f.arrived()) {
                    processed().min().unwrap_or(EVER.0)
                } else {
                    EVER.0
                };
                let whole = packets
                    .iter()
                    .any(|f| f.softirq != UNSEEN && f.message_length > 0 && f.data_end() >= f.message_length);
                let last = if whole { processed().max().unwrap_or(UNSEEN) } else { UNSEEN };
                let end = first_seen(&[last, side.recvmsg_done, EVER.1]);
                self.state(node, Field::RxGrantable, begins, end, 1.0);
            }
        }
        for message in 0..model.packets.messages.len() as u32 {
            let credit = super::credit::Credit::of(model, message);
            for (a, b, bytes) in &credit.outstanding {
                self.state(credit.receiver, Field::RxGrants, *a, *b, 1.0);
                self.state(credit.receiver, Field::RxGrantBytes, *a, *b, *bytes);
            }
            for (a, b, bytes) in &credit.available {
                self.state(credit.sender, Field::TxGrantAvail, *a, *b, *bytes);
            }
            for (a, b, bytes) in &credit.unsent {
                self.state(credit.receiver, Field::RxGranted, *a, *b, *bytes);
            }
        }
    }

    fn packets(&mut self, model: &Model, options: &Options, queue: Option<u32>) {
        let has_nic = model.count(Kind::NicData) > 0;
        let late = ns(options.late);
        for f in &model.flights().data {
            if queue.is_none_or(|q| f.queue == q) {
                self.sent(f);
            }
            self.received(f, has_nic, late);
        }
        for f in &model.flights().grants {
            let bytes = f64::from(f.length);
            if f.length > 0 {
                if f.gro != UNSEEN && f.xmit != UNSEEN {
                    self.state(f.to, Field::TxGrantXmit, f.xmit, f.gro, bytes);
                }
                if f.gro != UNSEEN {
                    self.state(f.to, Field::TxGrantGro, f.gro, first_seen(&[f.softirq, EVER.1]), bytes);
                }
                self.flow(f.to, Field::TxNewGrants, f.softirq, bytes);
                self.flow(f.from, Field::RxNewGrants, f.xmit, bytes);
            }
        }
    }

    /// What the sender sees.
    fn sent(&mut self, f: &Flight) {
        let (node, bytes) = (f.from, f64::from(f.frame));
        if f.head {
            self.flow(node, Field::TxPkts, f.xmit, 1.0);
            self.flow(node, Field::TxBytes, f.xmit, bytes);
            self.flow(node, Field::TxNicPkts, f.nic, 1.0);
            self.flow(node, Field::TxNicBytes, f.nic, bytes);
            self.flow(node, Field::TxFreeBytes, f.free, bytes);
            if f.xmit != UNSEEN {
                self.state(node, Field::TxQdisc, f.xmit, first_seen(&[f.nic, f.free, f.gro, EVER.1]), bytes);
            }
            if f.nic != UNSEEN || f.free != UNSEEN {
                let from = if f.nic == UNSEEN { EVER.0 } else { f.nic };
                let to = first_seen(&[f.free, EVER.1]);
                let gone = if f.gro == UNSEEN { to } else { to.min(f.gro) };
                self.state(node, Field::TxInNic, from, to, bytes);
                self.state(node, Field::TxInNic2, from, gone, bytes);
                self.state(node, Field::PktsInNic2, from, gone, 1.0);
            }
            if let (Some(time), Some(Some(steps))) = (since(f.nic, f.free), self.steps.get(usize::from(node))) {
                self.free[usize::from(node)].add(steps, f.nic, time);
            }
            if f.gro != UNSEEN && f.free != UNSEEN {
                self.state(node, Field::TxNicRx, f.gro, f.free, bytes);
            }
        }
        if let (Some(time), Some(Some(steps))) = (since(f.free, f.gro), self.steps.get(usize::from(node)))
            && f.nic != UNSEEN
        {
            self.gro_free[usize::from(node)].add(steps, f.nic, time);
        }
    }

    /// What the receiver sees.
    fn received(&mut self, f: &Flight, has_nic: bool, late: i64) {
        let (node, bytes) = (f.to, f64::from(f.length));
        self.flow(node, Field::RxPkts, f.gro, 1.0);
        self.flow(node, Field::RxBytes, f.gro, bytes);
        if f.gro == UNSEEN {
            return;
        }
        if f.xmit != UNSEEN && f.nic != UNSEEN {
            self.state(node, Field::RxDataQdisc, f.xmit, f.nic, bytes);
        }
        let sent = if has_nic { f.nic } else { f.xmit };
        if sent != UNSEEN {
            self.state(node, Field::RxDataNet, sent, f.gro, bytes);
        }
        if f.nic != UNSEEN && f.gro - f.nic > late {
            self.state(node, Field::RxOverdue, f.nic + late, f.gro, bytes);
        }
        if !f.discarded {
            self.state(node, Field::RxDataGro, f.gro, first_seen(&[f.softirq, EVER.1]), bytes);
        }
    }

    /// Queues of NICs whose links always send at the given rate.
    fn nic_queues(&mut self, model: &Model, options: &Options, queue: Option<u32>) {
        let mut sent: Vec<Vec<(i64, f64)>> = vec![Vec::new(); self.steps.len()];
        for f in model.flights().all().filter(|f| f.head && queue.is_none_or(|q| f.queue == q)) {
            let bytes = match f.carries {
                Carries::Data => f64::from(f.frame) + 122.0,
                Carries::Grant => 96.0,
                Carries::Tcp => f64::from(f.frame),
            };
            if let Some(list) = sent.get_mut(usize::from(f.from))
                && f.nic_or_xmit() != UNSEEN
            {
                list.push((f.nic_or_xmit(), bytes));
            }
        }
        for (node, mut sent) in sent.into_iter().enumerate() {
            let Some(steps) = self.steps[node] else { continue };
            sent.sort_by_key(|(at, _)| *at);
            let (mut next, mut bytes, mut at) = (0, 0.0f64, EVER.0);
            let mut until = |time: i64, bytes: f64| {
                let left = bytes - (time - at) as f64 * options.gbps / 8.0;
                at = time;
                left.max(0.0)
            };
            let out = &mut self.flows[node][Field::TxQueue as usize];
            for (k, value) in out.iter_mut().enumerate() {
                while let Some((time, more)) = sent.get(next).filter(|(time, _)| *time <= steps.end(k)) {
                    bytes = until(*time, bytes) + more;
                    next += 1;
                }
                bytes = until(steps.end(k), bytes);
                *value = bytes;
            }
        }
    }

    fn finish(self, model: &Model) -> Vec<Series> {
        let known: Vec<bool> = Field::ALL.iter().map(|f| model.missing(f.needs()).is_empty()).collect();
        let nodes = self.steps.into_iter().zip(self.states).zip(self.flows).zip(self.free).zip(self.gro_free);
        let series = nodes.enumerate().filter_map(|(node, ((((steps, states), flows), free), gro_free))| {
            let values = (Field::ALL.iter().zip(states).zip(flows))
                .map(|((field, state), flow)| if field.is_added() { state.finish() } else { flow })
                .collect();
            Some(Series { node: node as u16, steps: steps?, values, known: known.clone(), free, gro_free })
        });
        series.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn series_sum_to_the_traffic_and_states_are_sampled_at_ends() {
        let mut traffic = Traffic::new(2);
        traffic.event(0, 0, 0.0, "homa_softirq starting").event(0, 0, 200.0, "homa_softirq starting");
        traffic.event(1, 0, 0.0, "homa_softirq starting").event(1, 0, 200.0, "homa_softirq starting");
        // Passed to IP at 49, to the NIC at 49.5, received at 64.5, processed at 104.5, given back at 56.5.
        traffic.packet((0, 1), 10, (0, 1400, 1400), 49.0, Delays { net: 15.0, softirq: 40.0, ..Delays::USUAL });
        let model = traffic.model();
        let all = collect(&model, &Options { late: 0.0, ..Options::default() }, None, Field::ALL);
        let (tx, rx) = (&all[0], &all[1]);
        let values = |s: &Series, field| (0..s.steps.count).map(|k| s.get(field, k).unwrap()).collect::<Vec<f64>>();
        // Steps end at 0, 50, 100, 150 and 200.
        assert_eq!(values(tx, Field::TxInNic), [0.0, 1400.0, 0.0, 0.0, 0.0]);
        assert_eq!(values(tx, Field::TxBytes), [0.0, 1400.0, 0.0, 0.0, 0.0]);
        assert_eq!(values(tx, Field::TxFreeBytes), [0.0, 0.0, 1400.0, 0.0, 0.0]);
        assert_eq!(values(rx, Field::RxDataNet), [0.0, 1400.0, 0.0, 0.0, 0.0]);
        assert_eq!(values(rx, Field::RxOverdue), [0.0, 1400.0, 0.0, 0.0, 0.0]);
        assert_eq!(values(rx, Field::RxDataGro), [0.0, 0.0, 1400.0, 0.0, 0.0]);
        assert_eq!(rx.sum(Field::RxBytes), Some(1400.0));
        assert_eq!(tx.free.0[1], Some((7000, 7000)));
        assert_eq!(tx.get(Field::TxNewGrants, 0), None, "there are no grants: not 0, but unknown");
        // 1522 bytes at 100 Gbps are gone after 0.12 us: 0.5 us before the end of the step.
        assert_eq!(values(tx, Field::TxQueue), [0.0; 5]);
        let slow = collect(&model, &Options { gbps: 0.08, ..Options::default() }, None, &[Field::TxQueue]);
        assert_eq!(values(&slow[0], Field::TxQueue), [0.0, 1517.0, 1017.0, 517.0, 17.0]);
        let others = slow[0].values.iter().map(Vec::len).sum::<usize>() - slow[0].steps.count;
        assert_eq!((others, slow[0].get(Field::TxBytes, 1)), (0, None), "what is not asked for takes no memory");
    }
}
