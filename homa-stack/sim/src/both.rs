//! Two transports on the same hosts at the same time, each with a load of its own: they share NICs, links and switches.
//!
//! Hosts give the NIC's room to the two in turns. All names of calls, requests and timers of the second one have their
//! highest bit set.

use std::ops::ControlFlow;
use std::sync::Arc;

use cp_node::workload::Distribution;

use crate::app::{Action, App, Cx};
use crate::cluster::{self, ClusterRun, ClusterSpec, NodeRun, Progress, Protocol, SpecError, StopRule};
use crate::engine::Sim;
use crate::homa::Homa;
use crate::load::{Load, NodeLoad};
use crate::packet::{HostId, Packet};
use crate::port::Port;
use crate::tcp::Tcp;
use crate::time::Time;
use crate::transport::{Call, Event, Request, Transport};

/// Marks what is the second one's.
const SECOND: u64 = 1 << 63;

/// A packet of one of two transports.
#[derive(Clone, Debug)]
pub enum Either<A, B> {
    /// Of the first.
    First(A),
    /// Of the second.
    Second(B),
}

/// Two transports of one host. See the module.
#[derive(Debug)]
pub struct Both<A: Transport, B: Transport> {
    first: A,
    second: B,
    /// What each sees of the host's port.
    ports: (Port<A::Segment>, Port<B::Segment>),
    /// Which is first to send in the next turn.
    second_leads: bool,
}

impl<A: Transport, B: Transport> Both<A, B> {
    /// Both on `host`.
    pub fn new(host: HostId, first: A, second: B) -> Self {
        Self { first, second, ports: (Port::new(host), Port::new(host)), second_leads: false }
    }
}

/// The packet with another content.
fn with<S, T>(packet: Packet<S>, content: impl FnOnce(S) -> T) -> Packet<T> {
    let Packet { from, to, frame, priority, ecn, flow, arrived, segment } = packet;
    Packet { from, to, frame, priority, ecn, flow, arrived, segment: content(segment) }
}

/// Gives a transport its turn, and the host's port what it has sent.
fn turn<T: Transport, S>(
    transport: &mut T,
    now: Time,
    inner: &mut Port<T::Segment>,
    outer: &mut Port<S>,
    wrap: impl Fn(T::Segment) -> S,
) {
    inner.follow(outer);
    transport.turn(now, inner);
    for packet in inner.sent() {
        outer.send(with(packet, &wrap));
    }
    outer.refuse(inner.leave().refused);
}

impl<A: Transport, B: Transport> Transport for Both<A, B> {
    type Segment = Either<A::Segment, B::Segment>;

    fn call(&mut self, now: Time, call: Call) {
        if call.cookie & SECOND == 0 { self.first.call(now, call) } else { self.second.call(now, call) }
    }

    fn reply(&mut self, now: Time, request: Request, len: u32) {
        let key = request.key();
        let own = Request::new(key & !SECOND);
        if key & SECOND == 0 { self.first.reply(now, own, len) } else { self.second.reply(now, own, len) }
    }

    fn discard(&mut self, now: Time, request: Request) {
        let key = request.key();
        let own = Request::new(key & !SECOND);
        if key & SECOND == 0 { self.first.discard(now, own) } else { self.second.discard(now, own) }
    }

    fn forget(&mut self, now: Time, call: u64) {
        if call & SECOND == 0 { self.first.forget(now, call) } else { self.second.forget(now, call & !SECOND) }
    }

    fn turn(&mut self, now: Time, port: &mut Port<Self::Segment>) {
        while let Some(packet) = port.receive() {
            let (seen, core) = port.seen();
            let Packet { from, to, frame, priority, ecn, flow, arrived, segment } = packet;
            match segment {
                Either::First(segment) => {
                    let packet = Packet { from, to, frame, priority, ecn, flow, arrived, segment };
                    self.ports.0.pass(packet, seen, core);
                }
                Either::Second(segment) => {
                    let packet = Packet { from, to, frame, priority, ecn, flow, arrived, segment };
                    self.ports.1.pass(packet, seen, core);
                }
            }
        }
        self.second_leads = !self.second_leads;
        for second in [self.second_leads, !self.second_leads] {
            if second {
                turn(&mut self.second, now, &mut self.ports.1, port, Either::Second);
            } else {
                turn(&mut self.first, now, &mut self.ports.0, port, Either::First);
            }
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        self.first.next_deadline().into_iter().chain(self.second.next_deadline()).min()
    }

    fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.first.poll_event() {
            return Some(event);
        }
        Some(match self.second.poll_event()? {
            Event::Request { request, from, call, server_port, len } => {
                let request = Request::new(request.key() | SECOND);
                Event::Request { request, from, call: call | SECOND, server_port, len }
            }
            // Cookies come back as they were given.
            other => other,
        })
    }

    fn metrics(&self) -> Vec<(&'static str, u64)> {
        self.first.metrics()
    }

    fn metrics_text(&self, now: Time) -> Option<String> {
        self.first.metrics_text(now)
    }
}

/// Two loads, one over each transport.
#[derive(Debug)]
struct Loads {
    first: Load,
    second: Load,
}

impl Loads {
    /// Lets the second load act, and marks what it asks for.
    fn second(&mut self, cx: &mut Cx<'_>, act: impl FnOnce(&mut Load, &mut Cx<'_>)) {
        let before = cx.actions.len();
        act(&mut self.second, cx);
        for action in &mut cx.actions[before..] {
            match action {
                Action::Call(_, call) => call.cookie |= SECOND,
                Action::Timer(_, _, tag) => *tag |= SECOND,
                // They name what events named.
                Action::Reply(..) | Action::Discard(..) | Action::Forget(..) | Action::Stop => {}
            }
        }
    }
}

impl App for Loads {
    fn start(&mut self, cx: &mut Cx<'_>) {
        self.first.start(cx);
        self.second(cx, |load, cx| load.start(cx));
    }

    fn event(&mut self, cx: &mut Cx<'_>, host: HostId, event: Event) {
        let (name, event) = match event {
            Event::Request { ref request, .. } => (request.key(), event),
            Event::Response { cookie, len } => (cookie, Event::Response { cookie: cookie & !SECOND, len }),
            Event::Failed { cookie, why } => (cookie, Event::Failed { cookie: cookie & !SECOND, why }),
        };
        if name & SECOND == 0 {
            self.first.event(cx, host, event);
        } else {
            self.second(cx, |load, cx| load.event(cx, host, event));
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_>, host: HostId, tag: u64) {
        if tag & SECOND == 0 {
            self.first.timer(cx, host, tag);
        } else {
            self.second(cx, |load, cx| load.timer(cx, host, tag & !SECOND));
        }
    }
}

/// Runs Homa as `homa` says and TCP or DCTCP as `tcp` says at the same time, on the network, for the time and from the seed
/// of `homa`; what came of each, with the switches' counts of both together. No time traces, no test of convergence.
///
/// # Errors
///
/// As [`cluster::run`], or the protocols are not these.
pub fn run(
    homa: &ClusterSpec,
    tcp: &ClusterSpec,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<[ClusterRun; 2], SpecError> {
    cluster::check(homa)?;
    cluster::check(tcp)?;
    let (Protocol::Homa(_), Some(config), StopRule::After(time)) =
        (&homa.protocol, cluster::tcp_config(tcp), &homa.stop)
    else {
        let found = "others".to_owned();
        return Err(SpecError::Value {
            what: "the protocols",
            found,
            expected: "homa, then tcp or dctcp, for some time",
        });
    };
    let nodes = homa.topology.hosts();
    let lengths = |spec: &ClusterSpec| Arc::new(Distribution::new(spec.workload, spec.reduction));
    let (first, second) = (lengths(homa), lengths(tcp));
    let of_homa = cluster::homa_config(homa, &first);
    let of_tcp = Tcp::maker(&config);
    let transports = (0..nodes).map(HostId).map(|host| {
        let first = Homa::new(host, &of_homa, homa.client_ports, homa.server_ports).acquainted(nodes);
        Both::new(host, first, of_tcp(host))
    });
    // The second load is another one, not the same messages at the same times.
    let other = ClusterSpec { seed: homa.seed ^ 0x7c1f_95a3_0000_0000, ..tcp.clone() };
    let loads = Loads { first: cluster::load(homa, first), second: cluster::load(&other, second) };
    let (switch, host) = (homa.switch.clone(), homa.host.clone());
    let mut sim = Sim::new(&homa.topology, switch, host, transports.collect(), loads, homa.seed);
    let end = homa.warmup + *time;
    cluster::advance(&mut sim, homa.warmup, end, progress)?;
    sim.app_mut().first.measure();
    sim.app_mut().second.measure();
    sim.reset_switch_stats();
    let before: Vec<_> = sim.transports().iter().map(|transport| transport.metrics_text(homa.warmup)).collect();
    cluster::advance(&mut sim, end, end, progress)?;
    let after: Vec<_> = sim.transports().iter().map(|transport| transport.metrics_text(end)).collect();
    let metrics: Vec<_> = before.into_iter().zip(after).map(|(before, after)| Some([before?, after?])).collect();
    let app = sim.app_mut();
    let of = |load: &mut Load, metrics: Vec<Option<[String; 2]>>| -> Vec<NodeRun> {
        let all = load.take_nodes().into_iter().zip(metrics).enumerate();
        let node = |(index, (NodeLoad { samples, sent, received, failed }, metrics))| {
            let outstanding = load.outstanding(HostId(index as u32));
            NodeRun { samples, sent, received, failed, metrics, outstanding, ..NodeRun::default() }
        };
        all.map(node).collect()
    };
    let none = vec![None; metrics.len()];
    let runs = [of(&mut app.first, metrics), of(&mut app.second, none)];
    Ok(runs.map(|nodes| {
        let gbps = |sum: fn(&NodeRun) -> u64| {
            nodes.iter().map(sum).sum::<u64>() as f64 * 8.0 / (time.as_picos() as f64 / 1e3) / nodes.len() as f64
        };
        let (in_gbps, out_gbps) = (gbps(|node| node.received.1), gbps(|node| node.sent.1));
        ClusterRun {
            nodes,
            switches: sim.switch_stats(),
            packets: sim.delivered(),
            events: sim.events(),
            measured: *time,
            end,
            in_gbps,
            out_gbps,
            converged: true,
        }
    }))
}
