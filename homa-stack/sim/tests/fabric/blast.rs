//! Packets of one length at given times: a transport and an application without any protocol.

use std::collections::VecDeque;

use homa_sim::fabric::{SwitchConfig, SwitchStats, Topology};
use homa_sim::{App, Call, Cx, Ecn, Ended, Event, HostId, HostModel, Packet, Port, Request, Sim, Time, Transport};

/// Bytes of each frame.
pub(crate) const FRAME: u32 = 1518;

/// Packets from one host to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) count: usize,
    pub(crate) start: Time,
    /// Between two packets.
    pub(crate) gap: Time,
    pub(crate) priority: u8,
    pub(crate) ecn: bool,
}

impl Flow {
    pub(crate) fn new(from: u32, to: u32) -> Self {
        Self { from, to, count: 1, start: Time::ZERO, gap: Time::ZERO, priority: 0, ecn: false }
    }
}

/// A packet that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) to: HostId,
    pub(crate) sent: Time,
    pub(crate) at: Time,
    pub(crate) priority: u8,
    pub(crate) marked: bool,
}

/// When it was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp(Time);

#[derive(Debug, Default)]
struct Blast {
    ready: VecDeque<(Time, Call)>,
    got: VecDeque<Event>,
}

impl Transport for Blast {
    type Segment = Stamp;

    fn call(&mut self, now: Time, call: Call) {
        self.ready.push_back((now, call));
    }

    fn reply(&mut self, _: Time, _: Request, _: u32) {}

    fn discard(&mut self, _: Time, _: Request) {}

    fn forget(&mut self, _: Time, _: u64) {}

    fn turn(&mut self, _: Time, port: &mut Port<Stamp>) {
        while let Some(packet) = port.receive() {
            let priority = packet.priority.into();
            let marked = u64::from(packet.ecn == Ecn::Experienced);
            let (from, request) = (packet.from, Request::new(0));
            // The fields of the event carry what the test wants to know.
            let sent = packet.segment.0.as_picos() << 1 | marked;
            self.got.push_back(Event::Request { request, from, call: sent, server_port: priority, len: 1 });
        }
        while port.room() {
            let Some((sent, call)) = self.ready.pop_front() else { break };
            port.send(Packet {
                from: port.host(),
                to: call.to,
                frame: FRAME,
                priority: call.server_port as u8,
                ecn: if call.client_port == 1 { Ecn::Capable } else { Ecn::NotCapable },
                flow: u64::from(port.host().0),
                arrived: Time::ZERO,
                segment: Stamp(sent),
            });
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        None
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.got.pop_front()
    }
}

#[derive(Debug)]
struct Flows {
    flows: Vec<Flow>,
    got: Vec<Got>,
}

impl App for Flows {
    fn start(&mut self, cx: &mut Cx<'_>) {
        for (index, flow) in self.flows.iter().enumerate() {
            for n in 0..flow.count {
                let at = flow.start + Time::from_picos(flow.gap.as_picos() * n as u64);
                cx.after(at, HostId(flow.from), index as u64);
            }
        }
    }

    fn event(&mut self, cx: &mut Cx<'_>, to: HostId, event: Event) {
        let Event::Request { call, server_port, .. } = event else { panic!("only packets come: {event:?}") };
        let (sent, priority) = (Time::from_picos(call >> 1), server_port as u8);
        self.got.push(Got { to, sent, at: cx.now(), priority, marked: call & 1 == 1 });
    }

    fn timer(&mut self, cx: &mut Cx<'_>, host: HostId, tag: u64) {
        let Flow { to, priority, ecn, .. } = self.flows[tag as usize];
        let (client_port, server_port) = (ecn.into(), priority.into());
        cx.call(host, Call { cookie: 0, to: HostId(to), client_port, server_port, len: 1 });
    }
}

/// Sends `flows` through one switch until nothing moves any more: the packets that came, in order, the switches' counts
/// and the packets that are left.
pub(crate) fn run(hosts: u32, switch: SwitchConfig, flows: &[Flow]) -> (Vec<Got>, Vec<SwitchStats>, usize) {
    run_on(&Topology::rack(hosts), switch, HostModel::default(), flows)
}

pub(crate) fn run_on(
    topology: &Topology,
    switch: SwitchConfig,
    host: HostModel,
    flows: &[Flow],
) -> (Vec<Got>, Vec<SwitchStats>, usize) {
    let transports = (0..topology.hosts()).map(|_| Blast::default()).collect();
    let app = Flows { flows: flows.to_vec(), got: Vec::new() };
    let mut sim = Sim::new(topology, switch, host, transports, app, 1);
    assert_eq!(sim.run_until(Time::from_secs(10)), Ended::Idle);
    assert_eq!(sim.delivered() as usize, sim.app().got.len());
    (sim.app().got.clone(), sim.switch_stats(), sim.under_way())
}
