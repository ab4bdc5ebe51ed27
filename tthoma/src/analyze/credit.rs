//! Granted bytes of a message over time (timetrace.md 5.9).

use super::calls::{earliest, latest};
use crate::model::flights::first_seen;
use crate::model::{Model, NOWHERE};
use crate::packets::UNSEEN;

/// From when to when how many bytes, ns on the common clock.
pub(super) type Stretch = (i64, i64, f64);

/// Granted bytes of one message.
#[derive(Clone, Debug)]
pub(super) struct Credit {
    pub(super) sender: u16,
    pub(super) receiver: u16,
    /// Granted by the receiver and not received by its SoftIRQ.
    pub(super) outstanding: Vec<Stretch>,
    /// Granted by the receiver and not passed to IP by the sender.
    pub(super) unsent: Vec<Stretch>,
    /// Known to the sender as granted (or unscheduled) and not passed to IP.
    pub(super) available: Vec<Stretch>,
}

/// After everything.
const NEVER: i64 = i64::MAX / 4;

impl Credit {
    /// Of a message, by its index.
    pub(super) fn of(model: &Model, message: u32) -> Self {
        let (rpcs, flights) = (model.rpcs(), model.flights());
        let (sender, receiver) = (rpcs.sender(message), rpcs.receiver(message));
        let data = flights.data_of(message);
        let grants = flights.grants_for(rpcs, message);
        let mut this = Self {
            sender: sender.map_or(NOWHERE, |s| s.node),
            receiver: receiver.map_or(NOWHERE, |s| s.node),
            outstanding: Vec::new(),
            unsent: Vec::new(),
            available: Vec::new(),
        };
        if grants.is_empty() && sender.is_none_or(|s| s.sendmsg == UNSEEN) {
            return this;
        }
        // Once the receiver has all or the RPC is over, nothing is open, whatever was not seen.
        let over = receiver.map_or(NEVER, |r| first_seen(&[earliest([r.recvmsg_done, r.end].into_iter()), NEVER]));
        let done = sender.map_or(NEVER, |s| first_seen(&[s.end, NEVER]));
        let received = data.iter().filter(|f| f.softirq != UNSEEN).map(|f| (f.softirq, f.offset, f.data_end()));
        let sent = || {
            let heads = data.iter().filter(|f| f.head && !f.again && f.left() != UNSEEN);
            heads.map(|f| (f.left(), f.offset, f.offset.saturating_add(f.frame)))
        };
        let granted = || grants.iter().filter(|f| f.xmit != UNSEEN).map(|f| (f.xmit, f.offset));
        this.outstanding = difference(granted(), received, over.max(latest(granted().map(|g| g.0))));
        if sent().next().is_some() {
            this.unsent = difference(granted(), sent(), over);
            let known = grants.iter().filter(|f| f.softirq != UNSEEN).map(|f| (f.softirq, f.offset));
            let unscheduled = sender.filter(|s| s.sendmsg != UNSEEN).map(|s| {
                // Where its receiver does not tell, a message has as many unscheduled bytes as any.
                let most = Some(rpcs.most_unscheduled).filter(|most| *most > 0);
                let guess = || s.out_length.map(|length| most.map_or(length, |most| length.min(most)));
                let bytes = receiver.and_then(|r| r.unscheduled).or_else(guess);
                (s.sendmsg, bytes.unwrap_or(0))
            });
            this.available = difference(known.chain(unscheduled), sent(), done);
        }
        this
    }
}

/// When the highest `granted` is above the highest end of `taken`, and by how much; never after `over`. What was taken
/// before the trace ends where the first piece in it begins.
fn difference(
    granted: impl Iterator<Item = (i64, u32)>,
    taken: impl Iterator<Item = (i64, u32, u32)>,
    over: i64,
) -> Vec<Stretch> {
    let mut events: Vec<(i64, bool, u32)> = granted.map(|(at, limit)| (at, true, limit)).collect();
    if events.is_empty() {
        return Vec::new();
    }
    let mut start = u32::MAX;
    events.extend(taken.map(|(at, begin, end)| {
        start = start.min(begin);
        (at, false, end)
    }));
    events.sort_unstable_by_key(|(at, grant, _)| (*at, !*grant));
    let (mut limit, mut reached) = (0u32, if start == u32::MAX { 0 } else { start });
    let mut out: Vec<Stretch> = Vec::new();
    for (i, (at, grant, value)) in events.iter().enumerate() {
        let highest = if *grant { &mut limit } else { &mut reached };
        *highest = (*highest).max(*value);
        let until = events.get(i + 1).map_or(over, |next| next.0).min(over);
        if limit > reached && *at < until {
            out.push((*at, until, f64::from(limit - reached)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_what_is_granted_and_not_taken() {
        let taken = [(10, 0, 1000), (30, 1000, 2000), (50, 3000, 4000), (60, 2000, 3000)];
        let granted = [(5, 1000), (20, 3000), (40, 4000), (45, 4000)];
        assert_eq!(
            difference(granted.into_iter(), taken.into_iter(), 1000),
            [(5, 10, 1000.0), (20, 30, 2000.0), (30, 40, 1000.0), (40, 45, 2000.0), (45, 50, 2000.0)],
            "what comes late changes nothing"
        );
        assert_eq!(
            difference([(5, 3000)].into_iter(), [(10, 1000, 2000)].into_iter(), 100),
            [(5, 10, 2000.0), (10, 100, 1000.0)]
        );
        assert_eq!(difference([].into_iter(), taken.into_iter(), 100), []);
    }
}
