//! The load of a benchmark: what cp-node does on real nodes, from the same schedules and the same seeds.
//!
//! Each client port has a Poisson schedule of requests with lengths from a distribution, to server ports of all other
//! nodes. A request that is due while too many are outstanding waits; it is timed from when it was due, too. Servers
//! echo; one-way messages end when the server has them.

use std::sync::Arc;

use cp_node::arrivals::{Arrivals, rate_per_port};
use cp_node::rng::Rng;
use cp_node::samples::Sample;
use cp_node::workload::Distribution;

use crate::app::{App, Cx};
use crate::packet::HostId;
use crate::time::Time;
use crate::transport::{Call, Event};

/// What the nodes do.
#[derive(Clone, Debug)]
pub struct LoadSpec {
    /// Nodes.
    pub nodes: u32,
    /// Who of them asks and who answers.
    pub roles: Roles,
    /// Lengths of requests.
    pub lengths: Arc<Distribution>,
    /// Bytes of requests that each node sends, in Gbit/s; 0: as fast as `client_max` allows.
    pub gbps: f64,
    /// Client ports of a node.
    pub client_ports: u16,
    /// Server ports of a node.
    pub server_ports: u16,
    /// Most requests that a node has outstanding, shared out evenly to its client ports.
    pub client_max: u32,
    /// True if messages have no responses.
    pub one_way: bool,
    /// All random numbers come from it.
    pub seed: u64,
}

/// Which nodes are clients and which are servers: the last and the first of all, so that few of one kind leave all others to
/// the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Nodes that are clients.
    pub clients: u32,
    /// Nodes that are servers.
    pub servers: u32,
}

impl Roles {
    /// Each of `nodes` nodes is both.
    pub const fn all(nodes: u32) -> Self {
        Self { clients: nodes, servers: nodes }
    }

    /// How many servers `host`, one of `nodes`, sends to; 0 if it is no client.
    fn targets(self, nodes: u32, host: u32) -> u32 {
        if host < nodes.saturating_sub(self.clients) { 0 } else { self.servers - u32::from(host < self.servers) }
    }
}

/// What one node has done since counting began.
#[derive(Clone, Debug, Default)]
pub struct NodeLoad {
    /// RPCs that ended well, in the order of their ends.
    pub samples: Vec<Sample>,
    /// Messages begun: requests and responses, and their bytes.
    pub sent: (u64, u64),
    /// Whole messages received, requests and responses, and their bytes.
    pub received: (u64, u64),
    /// Calls that failed.
    pub failed: u64,
}

/// The application that makes the load.
#[derive(Debug)]
pub struct Load {
    spec: LoadSpec,
    ports: Vec<ClientPort>,
    nodes: Vec<NodeLoad>,
    outstanding: Vec<u64>,
    measuring: bool,
}

#[derive(Debug)]
struct ClientPort {
    arrivals: Arrivals,
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// True while a timer for the next request is set.
    timed: bool,
}

/// An outstanding RPC.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    begun: Time,
    due: Time,
    len: u32,
}

impl Load {
    /// The load `spec`; nothing is counted before [`Self::measure`].
    pub fn new(spec: LoadSpec) -> Self {
        let ports = usize::from(spec.client_ports);
        let rate = rate_per_port(spec.gbps, spec.lengths.mean(), ports);
        let slots = (spec.client_max as usize / ports.max(1)).clamp(1, 1 << 16);
        let port = |node: u32, rng| ClientPort {
            arrivals: Arrivals::new(
                Arc::clone(&spec.lengths),
                // Who is no client sends nothing, to nobody.
                spec.roles.targets(spec.nodes, node).max(1) as usize * usize::from(spec.server_ports),
                rate,
                rng,
            ),
            slots: vec![Slot::default(); slots],
            free: (0..slots).rev().map(|slot| slot as u16).collect(),
            timed: false,
        };
        let streams = |node: u32| {
            // Real nodes have numbers of a byte; beyond them the seed differs.
            let seed = spec.seed.wrapping_add(u64::from(node >> 8) << 32);
            Rng::streams(seed, Some(node as u8), ports)
        };
        let of_node = |node| streams(node).into_iter().map(move |rng| (node, rng));
        let ports = (0..spec.nodes).flat_map(of_node).map(|(node, rng)| port(node, rng)).collect();
        let nodes = vec![NodeLoad::default(); spec.nodes as usize];
        let outstanding = vec![0; spec.nodes as usize];
        Self { spec, ports, nodes, outstanding, measuring: false }
    }

    /// Begins to count, from nothing.
    pub fn measure(&mut self) {
        self.measuring = true;
        self.nodes.iter_mut().for_each(|node| *node = NodeLoad::default());
    }

    /// What the nodes have done since [`Self::measure`].
    pub fn nodes(&self) -> &[NodeLoad] {
        &self.nodes
    }

    /// As [`Self::nodes`], taken out.
    pub fn take_nodes(&mut self) -> Vec<NodeLoad> {
        std::mem::take(&mut self.nodes)
    }

    /// Calls of `node` that have not ended.
    pub fn outstanding(&self, node: HostId) -> u64 {
        self.outstanding[node.index()]
    }

    /// Sends what is due at a port of `host`, and sets a timer for what comes next.
    fn send_due(&mut self, cx: &mut Cx<'_>, host: HostId, port_index: u16) {
        let index = host.index() * usize::from(self.spec.client_ports) + usize::from(port_index);
        let (now, port) = (cx.now(), &mut self.ports[index]);
        while port.arrivals.is_due(now.as_nanos()) {
            // Whatever ends makes room, and looks again.
            let Some(slot) = port.free.pop() else { return };
            let plan = port.arrivals.take();
            let due = plan.due_ns.map_or(now, Time::from_nanos).min(now);
            port.slots[usize::from(slot)] = Slot { begun: now, due, len: plan.len };
            let (ports, target) = (usize::from(self.spec.server_ports), plan.server);
            let other = (target / ports) as u32;
            let to = HostId(other + u32::from(other >= host.0));
            let cookie = u64::from(port_index) << 16 | u64::from(slot);
            let server_port = (target % ports) as u16;
            cx.call(host, Call { cookie, to, client_port: port_index, server_port, len: plan.len });
            self.outstanding[host.index()] += 1;
            if self.measuring {
                add(&mut self.nodes[host.index()].sent, plan.len);
            }
        }
        if let Some(due) = port.arrivals.due_ns()
            && !port.timed
        {
            port.timed = true;
            cx.after(Time::from_nanos(due) - now, host, port_index.into());
        }
    }

    /// The end of a call.
    fn ended(&mut self, cx: &mut Cx<'_>, host: HostId, cookie: u64, response: Option<u32>) {
        let (port_index, slot) = ((cookie >> 16) as u16, cookie as u16);
        let index = host.index() * usize::from(self.spec.client_ports) + usize::from(port_index);
        let port = &mut self.ports[index];
        let Slot { begun, due, len } = port.slots[usize::from(slot)];
        port.free.push(slot);
        self.outstanding[host.index()] -= 1;
        if self.measuring {
            let node = &mut self.nodes[host.index()];
            match response {
                Some(bytes) => {
                    let len = if bytes > 0 { bytes } else { len };
                    let (service, from_due) = (cx.now() - begun, cx.now() - due);
                    node.samples.push(Sample { len, service_ns: service.as_nanos(), due_ns: from_due.as_nanos() });
                    if bytes > 0 {
                        add(&mut node.received, bytes);
                    }
                }
                None => node.failed += 1,
            }
        }
        self.send_due(cx, host, port_index);
    }
}

fn add(sum: &mut (u64, u64), len: u32) {
    sum.0 += 1;
    sum.1 += u64::from(len);
}

impl App for Load {
    fn start(&mut self, cx: &mut Cx<'_>) {
        let is_client = |host: &u32| self.spec.roles.targets(self.spec.nodes, *host) > 0;
        for host in (0..self.spec.nodes).filter(is_client).collect::<Vec<_>>() {
            for port in 0..self.spec.client_ports {
                self.send_due(cx, HostId(host), port);
            }
        }
    }

    fn event(&mut self, cx: &mut Cx<'_>, host: HostId, event: Event) {
        match event {
            Event::Request { request, from, call, len, .. } => {
                if self.measuring {
                    add(&mut self.nodes[host.index()].received, len);
                }
                if self.spec.one_way {
                    cx.discard(host, request);
                    cx.forget(from, call);
                    return;
                }
                if self.measuring {
                    add(&mut self.nodes[host.index()].sent, len);
                }
                cx.reply(host, request, len);
            }
            Event::Response { cookie, len } => self.ended(cx, host, cookie, Some(len)),
            Event::Failed { cookie, .. } => self.ended(cx, host, cookie, None),
        }
    }

    fn client_port(&self, cookie: u64) -> u16 {
        (cookie >> 16) as u16
    }

    fn timer(&mut self, cx: &mut Cx<'_>, host: HostId, tag: u64) {
        let index = host.index() * usize::from(self.spec.client_ports) + tag as usize;
        self.ports[index].timed = false;
        self.send_due(cx, host, tag as u16);
    }
}
