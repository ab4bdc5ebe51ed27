//! Whose RPC is it: clients and servers by node and address, so that equal ids of two clients never meet.
//!
//! An RPC's id is a counter of its client. On the client it is even; its server sees it with the lowest bit set. An even
//! id therefore belongs to the node that logs it, an odd one to the node whose address the peer has. Traces give no
//! node its address, so addresses are learnt by joining: node A logs even id `i` with peer `p`, node B logs `i + 1` with
//! peer `q`; then `p` is B's address and `q` is A's. Ids that several clients use are left out of that join.

use std::thread;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::event::{AMBIGUOUS, Kind, NO_HOST};
use crate::incarnations;
use crate::read::NodeTrace;

/// Nodes with traces, then addresses of hosts without; the index is the host in
/// [`Record::client`](crate::event::Record::client).
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// Names of the nodes that have traces, in order.
    pub nodes: Vec<String>,
    /// Addresses that belong to no trace.
    pub outside: Vec<u32>,
    /// Host of each address that was logged.
    pub by_address: FxHashMap<u32, u16>,
    /// Odd ids that several clients used with one server, in records that do not say which: left out of analyses.
    pub ambiguous_records: u64,
    /// Records with an odd id of which no record tells the client. They get a client of their own for each node, so that
    /// what happened on one node is still put together.
    pub unresolved_records: u64,
    /// Clients that used ids again, once for each incarnation beyond the first: hosts that come after
    /// all others.
    pub again: Vec<u16>,
    /// What was assumed, one sentence each.
    pub notes: Vec<String>,
}

/// Peers logged with an id on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peers {
    None,
    One(u32),
    Several,
}

type Known = FxHashMap<u32, Peers>;

/// What a trace tells of peers.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// By id.
    known: Known,
    /// Peers of ids that have several.
    more: FxHashSet<u32>,
    /// Even ids that the application sent a request with after they had been seen.
    pub(crate) again: Vec<u32>,
    /// Odd ids whose RPC began several times, sorted.
    pub(crate) created_again: Vec<u32>,
}

impl Peers {
    fn add(&mut self, peer: u32) {
        *self = match *self {
            Self::None => Self::One(peer),
            Self::One(known) if known == peer => return,
            _ => Self::Several,
        };
    }

    fn one(self) -> Option<u32> {
        if let Self::One(peer) = self { Some(peer) } else { None }
    }
}

/// Finds the client of each record's RPC and stores it in the record.
pub fn resolve(traces: &mut [NodeTrace]) -> Hosts {
    let told = told(traces);
    let mut votes = Votes::default();
    votes.add(&told);
    let mut hosts = Hosts::elected(traces.iter().map(|t| t.node.clone()).collect(), votes);
    hosts.assign(&told, traces);
    incarnations::keep_apart(traces, &told, &mut hosts);
    hosts
}

/// What each trace tells of the peers of its ids.
pub(crate) fn told(traces: &[NodeTrace]) -> Vec<Told> {
    thread::scope(|scope| {
        let threads: Vec<_> = traces.iter().map(|t| scope.spawn(|| peers(t))).collect();
        threads.into_iter().map(|t| t.join().expect("collecting peers does not panic")).collect()
    })
}

/// Which node each address belongs to, as RPCs tell.
#[derive(Debug, Default)]
pub(crate) struct Votes {
    of_address: FxHashMap<u32, FxHashMap<u16, u32>>,
    /// Nodes and the addresses that are some id's only peer there.
    talks: FxHashSet<(u16, u32)>,
}

impl Votes {
    /// Adds those of some RPCs, of which everything must be in `told`.
    pub(crate) fn add(&mut self, told: &[Told]) {
        for (node, told) in told.iter().enumerate() {
            self.talks
                .extend(told.known.values().filter_map(|peers| peers.one()).map(|address| (node as u16, address)));
            told.more.iter().for_each(|address| _ = self.of_address.entry(*address).or_default());
        }
        for (address, node) in joined(told) {
            *self.of_address.entry(address).or_default().entry(node).or_default() += 1;
        }
    }
}

fn peers(trace: &NodeTrace) -> Told {
    let Told { mut known, mut more, mut again, created_again: mut created } = Told::default();
    // Neighbouring records mostly concern one RPC: its peers are kept at hand.
    let mut current: Option<(u32, Peers)> = None;
    for record in &trace.records {
        let Some(id) = record.rpc() else { continue };
        let mut seen = true;
        if current.is_none_or(|(last, _)| last != id) {
            if let Some((last, peers)) = current {
                known.insert(last, peers);
            }
            let before = known.get(&id).copied();
            seen = before.is_some();
            current = Some((id, before.unwrap_or(Peers::None)));
        }
        match record.kind {
            Kind::SendmsgRequest if seen => again.push(id),
            Kind::Unsched if id % 2 == 1 => created.push(id),
            _ => {}
        }
        if let (Some((_, peers)), Some(peer)) = (&mut current, record.peer()) {
            let before = peers.one();
            peers.add(peer);
            if *peers == Peers::Several {
                more.extend(before.into_iter().chain([peer]));
            }
        }
    }
    known.extend(current);
    Told { known, more, again, created_again: repeated(created) }
}

/// Numbers that are there several times, sorted.
fn repeated(mut all: Vec<u32>) -> Vec<u32> {
    all.sort_unstable();
    let mut twice: Vec<u32> = all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    twice.dedup();
    twice
}

/// Stores the clients of one node's records; returns the numbers of ambiguous and of unresolved records.
fn assign(hosts: &Hosts, told: &[Told], node: usize, trace: &mut NodeTrace) -> (u64, u64) {
    let (mut ambiguous, mut unresolved) = (0, 0);
    let mut last = (0, NO_HOST);
    for record in &mut trace.records {
        let Some(id) = record.rpc() else { continue };
        record.client = if id % 2 == 0 {
            node as u16
        } else if let Some(peer) = record.peer() {
            hosts.by_address.get(&peer).copied().unwrap_or(NO_HOST)
        } else {
            if last.0 != id {
                last = (id, hosts.client_of(told, node, id));
            }
            ambiguous += u64::from(last.1 == AMBIGUOUS);
            unresolved += u64::from(last.1 == NO_HOST);
            last.1
        };
        if record.client == NO_HOST {
            record.client = hosts.unknown(node);
        }
    }
    (ambiguous, unresolved)
}

impl Hosts {
    /// Name of a host: of its node, or its address; with `#2` for the second incarnation of a client, and so on.
    pub fn name(&self, host: u16) -> String {
        if let Some(again) = self.again_of(host) {
            let client = self.again[again];
            let which = self.again[..=again].iter().filter(|c| **c == client).count() + 1;
            return format!("{}#{which}", self.name(client));
        }
        let host = usize::from(host);
        match self.nodes.get(host) {
            Some(name) => name.clone(),
            None => self.outside.get(host - self.nodes.len()).map_or_else(|| "?".into(), |a| format!("0x{a:x}")),
        }
    }

    /// Number of hosts: nodes, addresses without traces, a stand-in for each node's unknown clients, incarnations.
    pub fn count(&self) -> u16 {
        (self.first_again() + self.again.len()) as u16
    }

    /// The host itself of what may be an incarnation of it.
    #[inline]
    pub fn base(&self, host: u16) -> u16 {
        self.again_of(host).map_or(host, |again| self.again[again])
    }

    /// The client of that name, which may be that of an incarnation.
    pub fn incarnation_of(&self, name: &str) -> Option<u16> {
        let node = self.nodes.iter().position(|n| n == name);
        let again = || (0..self.again.len()).map(|a| self.first_again() + a).find(|a| self.name(*a as u16) == name);
        node.or_else(again).map(|host| host as u16)
    }

    /// Clients that have several incarnations.
    pub(crate) fn restarted(&self) -> Vec<u16> {
        let mut all = self.again.clone();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// True if it is a known host without trace.
    pub(crate) fn is_outside(&self, host: u16) -> bool {
        (self.nodes.len()..self.nodes.len() + self.outside.len()).contains(&usize::from(host))
    }

    /// Incarnation `which` of a client, from 0, which is itself. [`AMBIGUOUS`] if there are too many.
    pub(crate) fn incarnation(&mut self, client: u16, which: usize) -> u16 {
        let mut left = which;
        for (place, base) in self.again.iter().enumerate() {
            left -= usize::from(left > 0 && *base == client);
            if left == 0 && which > 0 && *base == client {
                return (self.first_again() + place) as u16;
            }
        }
        while left > 0 {
            if self.first_again() + self.again.len() >= usize::from(AMBIGUOUS) {
                return AMBIGUOUS;
            }
            self.again.push(client);
            left -= 1;
        }
        if which == 0 { client } else { self.count() - 1 }
    }

    fn first_again(&self) -> usize {
        2 * self.nodes.len() + self.outside.len()
    }

    /// Place in [`Hosts::again`].
    #[inline]
    fn again_of(&self, host: u16) -> Option<usize> {
        usize::from(host).checked_sub(self.first_again()).filter(|again| *again < self.again.len())
    }

    /// Stand-in for the clients of `node` that nothing is known of.
    fn unknown(&self, node: usize) -> u16 {
        (self.nodes.len() + self.outside.len() + node) as u16
    }

    /// Client of the odd `id` on `node`, from all that is known of the id.
    fn client_of(&self, told: &[Told], node: usize, id: u32) -> u16 {
        match told[node].known.get(&id) {
            Some(Peers::One(peer)) => self.by_address.get(peer).copied().unwrap_or(NO_HOST),
            Some(Peers::Several) => AMBIGUOUS,
            _ => {
                // No record of the server names the peer; a client that names this server with the same id will do.
                let calls = |client: &usize| {
                    let server = told[*client].known.get(&(id ^ 1)).and_then(|p| p.one());
                    server.and_then(|s| self.by_address.get(&s)) == Some(&(node as u16))
                };
                let mut clients = (0..told.len()).filter(calls);
                match (clients.next(), clients.next()) {
                    (Some(client), None) => client as u16,
                    _ => NO_HOST,
                }
            }
        }
    }

    /// Hosts as RPCs have told.
    pub(crate) fn elected(nodes: Vec<String>, votes: Votes) -> Self {
        let mut hosts = Self { nodes, ..Self::default() };
        hosts.learn_addresses(votes);
        hosts
    }

    /// Stores the client of each record's RPC in the records, and counts those that can't be told.
    pub(crate) fn assign(&mut self, told: &[Told], traces: &mut [NodeTrace]) {
        let hosts = &*self;
        let counts: Vec<(u64, u64)> = thread::scope(|scope| {
            let assign = |(node, trace)| scope.spawn(move || assign(hosts, told, node, trace));
            let threads: Vec<_> = traces.iter_mut().enumerate().map(assign).collect();
            threads.into_iter().map(|t| t.join().expect("assigning clients does not panic")).collect()
        });
        self.ambiguous_records += counts.iter().map(|c| c.0).sum::<u64>();
        self.unresolved_records += counts.iter().map(|c| c.1).sum::<u64>();
    }

    fn learn_addresses(&mut self, votes: Votes) {
        let Votes { of_address: mut votes, talks } = votes;
        for (_, address) in &talks {
            votes.entry(*address).or_default();
        }
        let mut addresses: Vec<(u32, FxHashMap<u16, u32>)> = votes.into_iter().collect();
        addresses.sort_unstable_by_key(|(address, _)| *address);
        let mut open = Vec::new();
        for (address, votes) in addresses {
            let total: u32 = votes.values().sum();
            match votes.iter().max_by_key(|(node, votes)| (**votes, std::cmp::Reverse(**node))) {
                Some((node, votes)) if votes * 2 > total => {
                    self.by_address.insert(address, *node);
                }
                _ => open.push(address),
            }
        }
        if !open.is_empty() {
            self.learn_from_names(&talks, &mut open);
        }
        for address in open {
            self.by_address.insert(address, (self.nodes.len() + self.outside.len()) as u16);
            self.outside.push(address);
        }
    }

    /// Gives the `open` addresses to nodes by the habit that node N's address ends in N or N + 1, if exactly one of the
    /// two fits all of them. Needed only if all ids of two nodes are used by several clients.
    fn learn_from_names(&mut self, talks: &FxHashSet<(u16, u32)>, open: &mut Vec<u32>) {
        let number = |name: &String| {
            let digits: String =
                name.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
            digits.parse::<u32>().ok()
        };
        let numbers: Vec<Option<u32>> = self.nodes.iter().map(number).collect();
        let talks_to = |node: usize, address: u32| talks.contains(&(node as u16, address));
        let placed: Vec<u16> = self.by_address.values().copied().collect();
        let place = |delta: u32| -> Option<Vec<(u32, u16)>> {
            let node_of = |address: &u32| {
                let node =
                    numbers.iter().position(|n| n.is_some_and(|n| n.wrapping_add(delta) & 0xff == address & 0xff))?;
                let free = !placed.contains(&(node as u16)) && !talks_to(node, *address);
                free.then_some((*address, node as u16))
            };
            open.iter().map(node_of).collect()
        };
        let found = match (place(0), place(1)) {
            (Some(found), None) | (None, Some(found)) => found,
            _ => return,
        };
        for (address, node) in &found {
            self.by_address.insert(*address, *node);
            let name = &self.nodes[usize::from(*node)];
            self.notes.push(format!("address 0x{address:x} is taken for {name} by its name: no RPC id told"));
        }
        open.clear();
    }
}

/// Addresses and their nodes, once for each id that exactly one node logs as client and exactly one as server.
fn joined(told: &[Told]) -> Vec<(u32, u16)> {
    #[derive(Clone, Copy)]
    struct Side {
        count: u32,
        node: u16,
        peer: Option<u32>,
    }
    const NONE: Side = Side { count: 0, node: 0, peer: None };
    let mut rpcs: FxHashMap<u32, [Side; 2]> = FxHashMap::default();
    for (node, told) in told.iter().enumerate() {
        for (id, peers) in &told.known {
            let side = &mut rpcs.entry(id & !1).or_insert([NONE; 2])[(id & 1) as usize];
            let count = side.count + if *peers == Peers::Several { 2 } else { 1 };
            *side = Side { count, node: node as u16, peer: peers.one() };
        }
    }
    let both = rpcs.into_values().filter(|[client, server]| client.count == 1 && server.count == 1);
    both.flat_map(|[client, server]| {
        [client.peer.map(|p| (p, server.node)), server.peer.map(|p| (p, client.node))].into_iter().flatten()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::traces;

    fn clients(traces: &[NodeTrace]) -> Vec<Vec<u16>> {
        traces.iter().map(|t| t.records.iter().map(|r| r.client).collect()).collect()
    }

    #[test]
    fn addresses_are_learnt_from_ids() {
        let mut traces = traces(&[
            ("client", "0 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 10, offset 0"),
            (
                "server",
                "5 homa_gro_receive got packet from 0xa id 11, offset 0, priority 1\n6 sending grant for id 11, offset 9, \
                 priority 0, increment 9",
            ),
        ]);
        let hosts = resolve(&mut traces);
        assert_eq!((hosts.by_address[&0xb], hosts.by_address[&0xa]), (1, 0));
        assert_eq!(clients(&traces), [vec![0], vec![0, 0]]);
        assert!(hosts.outside.is_empty() && hosts.unresolved_records == 0);
    }

    #[test]
    fn a_host_without_trace_is_a_client_of_its_own() {
        let mut traces = traces(&[(
            "n1",
            "5 homa_gro_receive got packet from 0xa id 11, offset 0, priority 1\n6 homa_rpc_acked freeing id 13",
        )]);
        let hosts = resolve(&mut traces);
        assert_eq!(clients(&traces), [vec![1, 2]]);
        assert_eq!([hosts.name(0), hosts.name(1), hosts.name(2)], ["n1", "0xa", "?"]);
        assert_eq!(hosts.unresolved_records, 1);
    }

    /// Clients 0 and 1 both use id 10 with server 2; ids 20 and 30 tell the addresses.
    #[test]
    fn equal_ids_of_two_clients_stay_apart() {
        let send = |id| format!("1 calling ip_queue_xmit: wire_bytes 218, peer 0x3, id {id}, offset 0\n");
        let receive = |peer, id| format!("2 homa_gro_receive got packet from {peer} id {id}, offset 0, priority 1\n");
        let mut traces = traces(&[
            ("node1", &(send(10) + &send(20))),
            ("node2", &(send(10) + &send(30))),
            (
                "node3",
                &(receive("0x1", 11)
                    + &receive("0x2", 11)
                    + &receive("0x1", 21)
                    + &receive("0x2", 31)
                    + "3 homa_rpc_acked freeing id 11\n"
                    + "3 homa_rpc_acked freeing id 31\n"),
            ),
        ]);
        let hosts = resolve(&mut traces);
        assert_eq!(clients(&traces)[2], [0, 1, 0, 1, AMBIGUOUS, 1]);
        assert_eq!((hosts.ambiguous_records, hosts.unresolved_records), (1, 0));
    }

    #[test]
    fn names_help_if_no_id_is_unique() {
        let send = |peer| format!("1 calling ip_queue_xmit: wire_bytes 218, peer {peer}, id 10, offset 0\n");
        let receive = |peer| format!("2 homa_gro_receive got packet from {peer} id 11, offset 0, priority 1\n");
        let mut traces = traces(&[
            ("node1", &send("0x0a000104")),
            ("node2", &send("0x0a000105")),
            ("node3", &receive("0x0a000102")),
            ("node4", &receive("0x0a000103")),
        ]);
        let hosts = resolve(&mut traces);
        assert_eq!(clients(&traces), [[0], [1], [0], [1]]);
        assert_eq!(hosts.notes.len(), 4);
    }

    /// All ids are used by both clients.
    #[test]
    fn names_help_if_no_id_of_two_clients_is_unique() {
        let send = "1 calling ip_queue_xmit: wire_bytes 218, peer 0x0a000103, id 10, offset 0\n";
        let receive = |peer| format!("2 homa_gro_receive got packet from {peer} id 11, offset 0, priority 1\n");
        let both = receive("0x0a000102") + &receive("0x0a000104");
        let mut traces = traces(&[("node1", send), ("node2", &both), ("node3", send)]);
        let hosts = resolve(&mut traces);
        assert_eq!(clients(&traces), [vec![0], vec![0, 2], vec![2]], "{:?}", hosts.notes);
    }

    #[test]
    fn a_server_record_without_peer_is_found_through_the_client() {
        let mut traces = traces(&[
            (
                "a",
                "0 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 10, offset 0\n\
                 1 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 12, offset 0",
            ),
            ("b", "5 homa_gro_receive got packet from 0xa id 11, offset 0, priority 1\n6 homa_rpc_acked freeing id 13"),
        ]);
        resolve(&mut traces);
        assert_eq!(clients(&traces)[1], [0, 0]);
    }
}
