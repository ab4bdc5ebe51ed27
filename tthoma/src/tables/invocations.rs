//! Invocations of SoftIRQ processing (timetrace.md 10.2): from one begin on a core to the last thing that it did.

use rustc_hash::FxHashMap;

use crate::event::{Kind, Record};
use crate::packets::UNSEEN;
use crate::read::NodeTrace;

/// An invocation; times in ns on the node's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invocation {
    pub(super) core: u16,
    /// [`UNSEEN`] if it began before the trace.
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) data: u32,
    pub(super) grants: u32,
}

/// Invocations of a node in the order of their ends.
pub(super) fn invocations(trace: &NodeTrace) -> Vec<Invocation> {
    let mut open = Open::default();
    let mut all: Vec<Invocation> = trace.records.iter().filter_map(|record| open.add(record)).collect();
    all.extend(open.rest());
    all.sort_by_key(|i| (i.end, i.core));
    all
}

/// Invocations that go on, of each core.
#[derive(Default)]
pub(super) struct Open(FxHashMap<u16, Invocation>);

impl Open {
    /// Takes the next record; returns the invocation that it shows to have ended.
    pub(super) fn add(&mut self, record: &Record) -> Option<Invocation> {
        let (core, time) = (record.core, record.time);
        let begin = |start| Invocation { core, start, end: time, data: 0, grants: 0 };
        let (data, grants) = match record.kind {
            Kind::SoftirqStart => return self.0.insert(core, begin(time)),
            Kind::SoftirqData => (1, 0),
            Kind::SoftirqGrant => (0, 1),
            // What packets make SoftIRQ do.
            Kind::RpcHandoff | Kind::RpcQueued | Kind::SendGrant | Kind::ResendRx | Kind::BusyRx | Kind::AckRx => {
                (0, 0)
            }
            _ => return None,
        };
        let seen = self.0.contains_key(&core);
        // Grants and hand-offs alone may be of another context.
        if !seen && data + grants == 0 {
            return None;
        }
        let invocation = self.0.entry(core).or_insert_with(|| begin(UNSEEN));
        invocation.end = time;
        invocation.data += data;
        invocation.grants += grants;
        None
    }

    /// Those that the trace's end cuts off.
    pub(super) fn rest(self) -> impl Iterator<Item = Invocation> {
        self.0.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::traces;

    #[test]
    fn an_invocation_lasts_until_its_last_packet() {
        let trace = &traces(&[(
            "n",
            "1 C3 incoming data packet, id 11, peer 0xa, offset 0/100
             2 C3 homa_softirq starting
             3 C4 homa_softirq starting
             4 C3 incoming data packet, id 13, peer 0xa, offset 0/100
             5 C3 homa_rpc_handoff handing off id 13 for port 7
             6 C3 homa_softirq starting
             7 C4 processing grant for id 10, offset 0, priority 0, increment 9",
        )])[0];
        let all: Vec<_> = invocations(trace).iter().map(|i| (i.core, i.start, i.end, i.data, i.grants)).collect();
        let expected = [(3, UNSEEN, 1000, 1, 0), (3, 2000, 5000, 1, 0), (3, 6000, 6000, 0, 0), (4, 3000, 7000, 0, 1)];
        assert_eq!(all, expected);
    }
}
