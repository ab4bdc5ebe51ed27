//! From when to when messages are live (timetrace.md 4.7).

use super::calls::{earliest, latest};
use crate::model::flights::{first_seen, seen};
use crate::model::{Flight, Model, Side};
use crate::packets::UNSEEN;

/// A live range, ns on the common clock.
pub(super) type Range = (i64, i64);

/// The outgoing message of a side, by its place: from the call until its last byte was passed to IP.
pub(super) fn outgoing(model: &Model, place: usize) -> Option<Range> {
    let (rpcs, flights) = (model.rpcs(), model.flights());
    let side = &rpcs.sides[place];
    let span = model.span(side.node)?;
    let sent = rpcs.outgoing(place).map_or(&[][..], |m| flights.data_of(m));
    let last = latest(sent.iter().map(|f| f.xmit));
    let still_sent = side.dumped_sent.is_some();
    if side.sendmsg == UNSEEN && last == UNSEEN && !still_sent {
        return None;
    }
    let start = if side.sendmsg == UNSEEN { span.0 } else { side.sendmsg };
    let reached = sent.iter().filter(|f| f.head).map(|f| f.offset.saturating_add(f.frame)).max().unwrap_or(0);
    let whole = match side.out_length {
        Some(length) => reached >= length,
        // All packets but the last are full.
        None => sent.iter().max_by_key(|f| f.offset).is_some_and(|f| f.length < flights.mtu),
    };
    let evidence = over(model, side, place);
    let end = if last != UNSEEN && (whole || evidence != UNSEEN) { last } else { first_seen(&[evidence, span.1]) };
    Some((start, end.max(start)))
}

/// When it is certain that all of the outgoing message was sent; [`UNSEEN`] if it is not.
fn over(model: &Model, side: &Side, place: usize) -> i64 {
    let (rpcs, flights) = (model.rpcs(), model.flights());
    if !side.is_client() {
        return side.end;
    }
    // A server that has or answers a request has got all of it.
    let response = rpcs.incoming(place).map_or(&[][..], |m| flights.data_of(m));
    let server = rpcs.other(side).filter(|server| model.comparable(side.node, server.node));
    let first = |get: fn(&Flight) -> i64| earliest(response.iter().map(get));
    let times = [
        side.end,
        server.map_or(UNSEEN, |s| s.recvmsg_done),
        server.map_or(UNSEEN, |s| s.sendmsg),
        first(|f| f.xmit),
        first(|f| f.gro),
        side.recvmsg_done,
    ];
    earliest(times.into_iter())
}

/// The incoming message of a side, by its place: from the peer's call until recvmsg returns it.
pub(super) fn incoming(model: &Model, place: usize) -> Option<Range> {
    let (rpcs, flights) = (model.rpcs(), model.flights());
    let side = &rpcs.sides[place];
    let span = model.span(side.node)?;
    let peer = rpcs.other(side).filter(|peer| model.comparable(side.node, peer.node));
    let packets = rpcs.incoming(place).map_or(&[][..], |m| flights.data_of(m));
    let first = packets.iter().filter(|f| f.arrived()).min_by_key(|f| first_seen(&[f.gro, f.softirq]));
    let known = first.is_some() || side.remaining.is_some() || side.recvmsg_done != UNSEEN;
    let start = match peer.and_then(|p| seen(p.sendmsg)) {
        Some(sent) => sent,
        None if !known => return None,
        None => match peer.filter(|p| p.dumped_sent.is_some()).and_then(|p| model.span(p.node)) {
            Some((peer_start, _)) => peer_start,
            None => first.map_or(span.0, |f| first_seen(&[f.xmit, f.gro, f.softirq])),
        },
    };
    let end = first_seen(&[side.recvmsg_done, span.1]);
    (start <= end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::{Delays, Traffic};

    #[test]
    fn whole_messages_are_live_from_call_to_last_frame_and_delivery() {
        let mut traffic = Traffic::new(2);
        traffic.rpc((0, 1), 10, (2800, 100), 100.0, Delays::USUAL);
        let model = traffic.model();
        let place = |id| model.rpcs().place(0, id).unwrap();
        assert_eq!(outgoing(&model, place(10)), Some((100_000, 102_000)));
        assert_eq!(incoming(&model, place(11)), Some((100_000, 114_000)));
        assert_eq!(outgoing(&model, place(11)), Some((120_000, 121_000)));
        assert_eq!(incoming(&model, place(10)), Some((120_000, 133_000)));
    }

    #[test]
    fn messages_that_the_trace_cuts_off_are_live_to_its_ends() {
        let mut traffic = Traffic::new(2);
        traffic.event(0, 0, 50.0, "homa_softirq starting").event(0, 0, 300.0, "homa_softirq starting");
        traffic.packet((0, 1), 10, (1400, 1400, 9000), 100.0, Delays::USUAL);
        let model = traffic.model();
        let place = |id| model.rpcs().place(0, id).unwrap();
        assert_eq!(outgoing(&model, place(10)), Some((50_000, 300_000)), "neither its call nor its end is there");
        assert_eq!(incoming(&model, place(11)), Some((100_000, 107_500)), "from the first packet to the trace's end");
        assert_eq!(incoming(&model, place(10)), None, "nothing of the response was seen");
    }
}
