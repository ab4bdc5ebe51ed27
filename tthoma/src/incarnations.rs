//! Incarnations of clients: ids that a client uses again name other RPCs than before.
//!
//! A client that is started anew counts its ids from the beginning. Its trace shows it: the application sends a request with
//! an id that has been seen before. From there on the id's records are those of another incarnation of the client, which is
//! a host of its own ([`Hosts::incarnation`]), so that whatever is keyed by client and id is kept apart. On the server they
//! are told by the time of that call, or, where clocks can't be compared, by where the server begins the RPC again. Of a
//! client without trace only a request of another length shows that an id is used again: an equal one may be the same RPC,
//! executed twice (`dup-exec`).

use rustc_hash::{FxHashMap, FxHashSet};

use crate::clock::Clock;
use crate::event::{AMBIGUOUS, Kind, Record};
use crate::hosts::{Hosts, Told};
use crate::packets::Packets;
use crate::read::NodeTrace;

/// RPCs by client and id on the client.
type Ids = FxHashSet<(u16, u32)>;

/// Ids that were used again.
#[derive(Debug, Default)]
pub(crate) struct Reused(Ids);

impl Reused {
    /// Ids of `traces`, whose clients are known, that were used again or may have been.
    pub(crate) fn of(traces: &[NodeTrace], told: &[Told], hosts: &Hosts) -> Self {
        let mut all = Ids::default();
        for (node, told) in told.iter().enumerate() {
            all.extend(told.again.iter().map(|id| (node as u16, *id)));
            if told.created_again.is_empty() {
                continue;
            }
            let candidate = |r: &&Record| {
                r.kind == Kind::Unsched && hosts.is_outside(r.client) && told.created_again.binary_search(&r.id).is_ok()
            };
            all.extend(traces[node].records.iter().filter(candidate).map(|r| (r.client, r.id ^ 1)));
        }
        Self(all)
    }

    /// True if no id was.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if the record is of such an id.
    pub(crate) fn has(&self, record: &Record) -> bool {
        !self.0.is_empty() && record.rpc().is_some_and(|id| self.0.contains(&(record.client, id & !1)))
    }
}

/// Keeps incarnations apart in all records. Clocks are of the packets of other ids.
pub(crate) fn keep_apart(traces: &mut [NodeTrace], told: &[Told], hosts: &mut Hosts) {
    let reused = Reused::of(traces, told, hosts);
    if reused.is_empty() {
        return;
    }
    let packets = Packets::collect_where(traces, |record| !reused.has(record));
    let clock = Clock::estimate(traces.len(), &packets);
    drop(packets);
    separate(traces, &reused, &clock, hosts);
}

/// Gives the records of `reused` ids to the incarnations that they are of.
pub(crate) fn separate(traces: &mut [NodeTrace], reused: &Reused, clock: &Clock, hosts: &mut Hosts) {
    let mut calls: FxHashMap<(u16, u32), Calls> = FxHashMap::default();
    for (node, trace) in traces.iter_mut().enumerate() {
        let ordered = trace.stats.backwards.count == 0;
        for record in trace.records.iter_mut().filter(|r| r.id.is_multiple_of(2)) {
            if record.client != node as u16 || !reused.has(record) {
                continue;
            }
            let calls =
                calls.entry((record.client, record.id)).or_insert(Calls { starts: Vec::new(), any: false, ordered });
            if record.kind == Kind::SendmsgRequest && calls.any {
                calls.starts.push(record.time);
            }
            calls.any = true;
            record.client = hosts.incarnation(record.client, calls.starts.len());
        }
    }
    for (node, trace) in traces.iter_mut().enumerate() {
        let begins = Begins::of(&trace.records, reused);
        let ordered = trace.stats.backwards.count == 0;
        for place in 0..trace.records.len() {
            let record = &trace.records[place];
            if record.id.is_multiple_of(2) || record.client == AMBIGUOUS || !reused.has(record) {
                continue;
            }
            let key = (record.client, record.id ^ 1);
            let which = match calls.get(&key) {
                None => begins.by_length(key, place),
                Some(calls) => {
                    let comparable = ordered && calls.ordered;
                    let since = |start: &i64| clock.between(key.0, *start, node as u16, record.time);
                    let slack = clock.error(key.0, node as u16).unwrap_or(0);
                    let started: Option<usize> =
                        calls.starts.iter().map(|start| Some(usize::from(since(start)? >= -slack))).sum();
                    let by_order = || begins.by_order(key, place, calls.starts.len());
                    started.filter(|_| comparable).unwrap_or_else(by_order)
                }
            };
            trace.records[place].client = hosts.incarnation(key.0, which);
        }
    }
    note(hosts);
}

/// Says what was found.
fn note(hosts: &mut Hosts) {
    for client in hosts.restarted() {
        let name = hosts.name(client);
        let note = format!("{name} used ids again for other RPCs: these are those of {name}#2 and so on");
        if !hosts.notes.contains(&note) {
            hosts.notes.push(note);
        }
    }
}

/// What a client's trace shows of one of its ids.
struct Calls {
    /// Times of the calls that began each incarnation but the first, on the client's clock.
    starts: Vec<i64>,
    /// Something of the id was seen.
    any: bool,
    /// The client's times never go back.
    ordered: bool,
}

/// Where a server begins RPCs: for each client and id the place of the first record and the length of the request.
struct Begins(FxHashMap<(u16, u32), Vec<Begin>>);

#[derive(Clone, Copy)]
struct Begin {
    place: usize,
    length: u32,
}

impl Begins {
    fn of(records: &[Record], reused: &Reused) -> Self {
        let mut all: FxHashMap<(u16, u32), Vec<Begin>> = FxHashMap::default();
        // The first packet of a request at GRO, since the RPC was begun last.
        let mut arrived: FxHashMap<(u16, u32), usize> = FxHashMap::default();
        for (place, record) in records.iter().enumerate() {
            if record.id.is_multiple_of(2) || !reused.has(record) {
                continue;
            }
            let key = (record.client, record.id ^ 1);
            match record.kind {
                Kind::GroData if record.offset == 0 => _ = arrived.insert(key, place),
                Kind::Unsched => {
                    let place = arrived.remove(&key).unwrap_or(place);
                    all.entry(key).or_default().push(Begin { place, length: 0 });
                }
                Kind::SoftirqData => {
                    if let Some(begin) = all.get_mut(&key).and_then(|b| b.last_mut()).filter(|b| b.length == 0) {
                        begin.length = record.a;
                    }
                }
                _ => {}
            }
        }
        Self(all)
    }

    /// Incarnation of the record at `place`, of a client whose trace has `starts` incarnations after the first: the last
    /// begins are theirs.
    fn by_order(&self, key: (u16, u32), place: usize, starts: usize) -> usize {
        let begins = self.0.get(&key).map_or(&[][..], Vec::as_slice);
        let later = begins.iter().skip(1).filter(|b| b.place > place).count();
        starts.saturating_sub(later)
    }

    /// Incarnation of the record at `place`, of a client without trace.
    fn by_length(&self, key: (u16, u32), place: usize) -> usize {
        let begins = self.0.get(&key).map_or(&[][..], Vec::as_slice);
        let other = |pair: &&[Begin]| {
            pair[1].place <= place && pair[0].length > 0 && pair[1].length > 0 && pair[0].length != pair[1].length
        };
        begins.windows(2).filter(other).count()
    }
}

#[cfg(test)]
mod tests {
    use crate::analyze::Options;
    use crate::model::Model;
    use crate::packets::UNSEEN;
    use crate::testing::{Scenario, Steps, traces};

    /// A client that begins anew after 1 ms: ids 10 to 18, then 10 to 14 again with other lengths; a second client has
    /// the same ids all the time, with this one as its server, and the first server's clock is ahead.
    fn restarted() -> Scenario {
        let mut scenario = Scenario::new(3);
        scenario.clock_ahead(1, 700.0);
        for i in 0..5 {
            let at = f64::from(i) * 100.0;
            scenario.rpc(at, (0, 1), 10 + 2 * i, (20_000, 100), &Steps::default());
            scenario.rpc(at + 50.0, (2, 0), 10 + 2 * i, (100, 100), &Steps::default());
            if i < 3 {
                scenario.rpc(at + 1000.0, (0, 1), 10 + 2 * i, (3000, 5000), &Steps::default());
            }
        }
        scenario
    }

    #[test]
    fn rpcs_of_a_client_that_begins_anew_are_rows_of_their_own() {
        let model = restarted().model(&Options::default());
        let rpcs = model.rpcs();
        let of_node0: Vec<_> = rpcs.sides.iter().filter(|s| model.hosts.base(s.client) == 0).collect();
        assert_eq!((rpcs.sides.len(), of_node0.len()), (26, 16), "two sides of 5 + 3 and of 5 RPCs");
        let again = model.hosts.incarnation_of("node1#2").unwrap();
        for id in [10, 12, 14] {
            let (old, new) = (rpcs.side(0, id).unwrap(), rpcs.side(again, id).unwrap());
            assert_eq!((old.out_length, old.in_length), (Some(20_000), Some(100)));
            assert_eq!((new.out_length, new.in_length), (Some(3000), Some(5000)));
            assert_eq!(new.sendmsg - old.sendmsg, 1_000_000);
            let (served, anew) = (rpcs.other(old).unwrap(), rpcs.other(new).unwrap());
            assert_eq!((served.in_length, anew.in_length), (Some(20_000), Some(3000)));
            assert!(
                served.recvmsg_done != UNSEEN && served.recvmsg_done < new.sendmsg && anew.recvmsg_done > new.sendmsg
            );
        }
        assert!(rpcs.side(again, 16).is_none());
        assert_eq!(model.hosts.notes.iter().filter(|note| note.contains("node1#2")).count(), 1);
    }

    #[test]
    fn packets_and_journeys_of_incarnations_are_apart() {
        let model = restarted().model(&Options::default());
        let sent_twice = model.packets.data.packets.iter().filter(|p| p.sent_count() > 1 || p.received_count() > 1);
        assert_eq!(sent_twice.count(), 0);
        let messages = &model.packets.messages;
        assert_eq!(messages.len(), 26);
        assert_eq!(messages.iter().filter(|m| m.length == Some(3000)).count(), 3);
        assert_eq!(model.journeys().excluded, Default::default());
        // 15 packets and 1, 1 and 1, 3 and 4.
        assert_eq!(model.data().filter(|j| j.received.is_some()).count(), 5 * 16 + 5 * 2 + 3 * 7);
    }

    /// All ids are used twice, so that nothing tells the clocks.
    #[test]
    fn where_clocks_are_unknown_the_order_tells() {
        let mut scenario = Scenario::new(2);
        scenario.clock_ahead(1, 1_000_000.0);
        for round in 0..3 {
            let length = 100 + round * 100;
            scenario.rpc(f64::from(round) * 400.0, (0, 1), 10, (length, 100), &Steps::default());
        }
        let model = scenario.model(&Options::default());
        let rpcs = model.rpcs();
        let lengths: Vec<_> =
            rpcs.sides.iter().filter(|s| !s.is_client()).map(|s| (model.hosts.name(s.client), s.in_length)).collect();
        let expected = [("node1", 100), ("node1#2", 200), ("node1#3", 300)];
        assert_eq!(lengths, expected.map(|(name, length)| (name.to_string(), Some(length))));
        assert_eq!(model.clock.offset(1), Some(-1_000_000_000));
    }

    /// A trace that follows itself: times begin again.
    #[test]
    fn concatenated_traces_are_incarnations() {
        let mut scenario = Scenario::new(2);
        scenario.rpc(0.0, (0, 1), 10, (100, 100), &Steps::default());
        let double = |(name, text): (String, String)| (name, text.repeat(2));
        let texts: Vec<(String, String)> = scenario.texts().into_iter().map(double).collect();
        let parse = |(name, text): &(String, String)| {
            crate::read::parse_text(std::path::Path::new(name), name, crate::read::Format::Plain, &mut text.as_bytes())
        };
        let model = Model::new(texts.iter().map(parse).collect(), &Options::default());
        assert_eq!(model.rpcs().sides.len(), 4);
        assert!(model.packets.data.packets.iter().all(|p| (p.sent_count(), p.received_count()) == (1, 1)));
    }

    #[test]
    fn of_a_client_without_trace_another_length_tells() {
        let served = |at: u32, length: u32| {
            format!(
                "{at} homa_gro_receive got packet from 0xa id 11, offset 0, priority 1\n\
                 {} Incoming message for id 11 has 100 unscheduled bytes\n\
                 {} incoming data packet, id 11, peer 0xa, offset 0/{length}\n\
                 {} homa_rpc_end invoked for id 11, port 4000\n",
                at + 1,
                at + 2,
                at + 3
            )
        };
        let model = |last| {
            let text = served(10, 100) + &served(20, 100) + &served(30, last);
            Model::new(traces(&[("server", &text)]), &Options::default())
        };
        let (same, other) = (model(100), model(200));
        assert_eq!((same.rpcs().sides.len(), other.rpcs().sides.len()), (1, 2));
        let sides = &other.rpcs().sides;
        assert_eq!((sides[0].end, sides[1].end, sides[1].in_length), (23_000, 33_000, Some(200)));
        assert_eq!(other.hosts.name(sides[1].client), "0xa#2");
    }
}
