//! When calls returned, and which RPCs a trace's begin or end cuts off.
//!
//! A long response is copied to the application in parts, between which the thread may wait again: that bytes were copied
//! tells that the call returned only where a trace has no better event.

use crate::event::Kind;
use crate::model::{Flight, Model, Side};
use crate::packets::UNSEEN;

/// What traces tell of the ends of RPCs, node by node.
#[derive(Debug)]
pub(crate) struct Ends(Vec<Told>);

/// Which events a trace has.
#[derive(Clone, Copy, Debug)]
struct Told {
    recvmsg_done: bool,
    rpc_end: bool,
}

impl Ends {
    pub(crate) fn of(model: &Model) -> Self {
        let told = |kind| move |trace: &crate::read::NodeTrace| trace.stats.count(kind) > 0;
        let (recvmsg_done, rpc_end) = (told(Kind::RecvmsgDone), told(Kind::RpcEnd));
        let one = |trace| Told { recvmsg_done: recvmsg_done(trace), rpc_end: rpc_end(trace) };
        Self(model.traces.iter().map(one).collect())
    }

    /// When the application had the response, ns on the common clock; `None` if that is not in the trace.
    ///
    /// Without any returns in the client's trace it is the last copy, or the last time that a thread got the RPC; of those
    /// that did not end the last copy may be missing, and so they have no such time if the trace has ends of others.
    pub(crate) fn returned(&self, client: &Side) -> Option<i64> {
        let told = self.0.get(usize::from(client.node))?;
        let after = |time: &i64| *time != UNSEEN && *time >= client.sendmsg;
        if told.recvmsg_done {
            return Some(client.recvmsg_done).filter(after);
        }
        if told.rpc_end && client.end == UNSEEN {
            return None;
        }
        [client.copied_out, client.found].into_iter().find(after)
    }

    /// True if the traces have all of an RPC: the call and its return, and, if there is a trace of the server, that part.
    pub(crate) fn whole(&self, model: &Model, client: &Side) -> bool {
        let Some(returned) = self.returned(client).filter(|_| client.sendmsg != UNSEEN) else { return false };
        let rpcs = model.rpcs();
        let server = rpcs.other(client);
        let host = || {
            let host = model.hosts.base(*model.hosts.by_address.get(&client.peer?)?);
            (usize::from(host) < model.traces.len()).then_some(host)
        };
        let Some((first, last)) = server.map(|side| side.node).or_else(host).and_then(|node| model.span(node)) else {
            return true;
        };
        // Nodes record from different times on. It does no harm if the events of this RPC are there.
        let place = rpcs.place(client.client, client.id);
        let of = |message: Option<u32>| message.map_or(&[][..], |message| model.flights().data_of(message));
        let began = || {
            let request = of(place.and_then(|place| rpcs.outgoing(place)));
            request.iter().any(|packet| packet.offset == 0 && packet.gro != UNSEEN)
        };
        let ended = || {
            let response = of(place.and_then(|place| rpcs.incoming(place)));
            response.iter().max_by_key(|packet| packet.offset).is_some_and(|packet: &Flight| packet.xmit != UNSEEN)
        };
        (first <= client.sendmsg || began()) && (last >= returned || ended())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Options;
    use crate::testing::{Scenario, Steps};

    /// Ids of clients' RPCs that are whole.
    fn whole(scenario: &Scenario) -> Vec<u32> {
        let model = scenario.model(&Options::default());
        let ends = Ends::of(&model);
        let whole = |side: &&Side| side.is_client() && ends.whole(&model, side);
        model.rpcs().sides.iter().filter(whole).map(|side| side.id).collect()
    }

    /// Three RPCs one after the other, the last with a long response that is copied in parts.
    fn three() -> Scenario {
        let mut scenario = Scenario::new(2);
        for i in 0..3 {
            let lengths = if i == 2 { (100, 60_000) } else { (100, 100) };
            scenario.rpc(f64::from(i) * 1000.0, (0, 1), 100 + 2 * i, lengths, &Steps::default());
        }
        scenario.event(0, 2020.0, 1, "copied out bytes 0-28480 for id 104");
        scenario
    }

    #[test]
    fn a_part_of_a_response_is_no_return() {
        assert_eq!(whole(&three()), [100, 102, 104]);
        let mut cut = three();
        cut.remove(0, |m| m.contains("id 104") && (m.contains("recvmsg returning") || m.contains("homa_rpc_end")));
        assert_eq!(whole(&cut), [100, 102]);
        // A trace without any returns: those that ended have been copied.
        cut.remove(0, |m| m.contains("recvmsg returning"));
        assert_eq!(whole(&cut), [100, 102]);
        cut.remove(0, |m| m.contains("homa_rpc_end"));
        assert_eq!(whole(&cut), [100, 102, 104]);
    }

    #[test]
    fn what_the_servers_trace_cuts_off_is_not_whole() {
        let of = |id: u32| move |m: &str| [id, id + 1].iter().any(|id| m.contains(&format!("id {id}")));
        // It begins in the middle of the first RPC.
        let mut late = three();
        assert!(late.remove(1, |m| of(100)(m) && !m.contains("homa_sendmsg") && !m.contains("ip_queue_xmit")) > 0);
        assert_eq!(whole(&late), [102, 104]);
        // It ends in the middle of the last one.
        let mut early = three();
        assert!(early.remove(1, |m| of(104)(m) && !m.contains("incoming data") && !m.contains("gro_receive")) > 0);
        assert_eq!(whole(&early), [100, 102]);
        // It has nothing of the last one, but ended before.
        let mut none = three();
        assert!(none.remove(1, |m| of(104)(m)) > 0);
        assert_eq!(whole(&none), [100, 102]);
    }
}
