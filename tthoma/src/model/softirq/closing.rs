//! What became of packets that were never processed.

use rustc_hash::FxHashMap;

use super::{Ending, NO_CORE, Queues};
use crate::packets::UNSEEN;

/// Patience with a packet after others that came later were done, ns.
const GRACE: i64 = 100_000;

/// Presumes packets dropped if one that came later, by the same GRO core to the same SoftIRQ core, was processed and the
/// next invocation has begun. Without this, a packet that was dropped would make the backlog grow for ever.
pub(super) fn close(queues: &mut Queues) {
    let open = |w: &super::Wait| w.ending == Ending::Open && w.gro != UNSEEN;
    if !queues.waits.iter().any(open) {
        return;
    }
    // Begins of invocations by core, in the order of time.
    let mut begins: FxHashMap<u16, Vec<i64>> = FxHashMap::default();
    for invocation in &queues.invocations {
        begins.entry(invocation.core).or_default().push(invocation.start);
    }
    let mut streams: FxHashMap<(u16, u16), Vec<u32>> = FxHashMap::default();
    for (place, wait) in queues.waits.iter().enumerate() {
        if wait.gro != UNSEEN && wait.core != NO_CORE && wait.ending != Ending::Bypassed {
            streams.entry((wait.gro_core, wait.core)).or_default().push(place as u32);
        }
    }
    for ((_, core), stream) in streams {
        let begins = begins.get(&core).map_or(&[][..], Vec::as_slice);
        // Earliest time when a packet after this one was done and the next invocation had begun.
        let mut overtaken = i64::MAX;
        for place in stream.into_iter().rev() {
            let wait = &mut queues.waits[place as usize];
            if wait.softirq != UNSEEN {
                let next = begins.partition_point(|start| *start <= wait.softirq);
                overtaken = overtaken.min(begins.get(next).copied().unwrap_or(i64::MAX));
            } else if open(wait) && overtaken != i64::MAX {
                wait.ending = Ending::Dropped(overtaken.max(wait.gro).saturating_add(GRACE));
            }
        }
    }
}
