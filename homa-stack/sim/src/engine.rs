//! The loop: takes events in the order of time and has hosts, switches and the application act on them.

use std::collections::VecDeque;

use cp_node::rng::Rng;
use slab::Slab;

use crate::app::{Action, App, Cx};
use crate::fabric::mix;
use crate::fabric::{Fabric, Hop, Link, SwitchConfig, SwitchStats, Topology};
use crate::host::{Core, Gaps, HostModel};
use crate::packet::HostId;
use crate::port::{Nic, Port};
use crate::queue::Queue;
use crate::threads::Desks;
use crate::time::Time;
use crate::transport::{Event, Transport};

/// Something that happens at a point of time.
#[derive(Clone, Copy, Debug)]
enum What {
    Hop(Hop),
    /// The NIC of a host has room again.
    Room(u32),
    /// A host's transport wanted a turn.
    Deadline(u32),
    /// A timer of the application, by its place among all.
    Timer(u32),
    /// A receiving core of a host begins with a batch.
    Batch {
        host: u32,
        core: u32,
    },
    /// The protocol of a host gets a batch from a core.
    HandOver {
        host: u32,
        core: u32,
    },
    /// The application of a host is awake.
    Wake(u32),
    /// A thread of a host is done with a message at a desk.
    Done {
        host: u32,
        desk: u32,
    },
}

/// What the engine knows of a host.
#[derive(Clone, Copy, Debug)]
struct Host {
    nic: Nic,
    /// True while an event is to come that tells of room.
    awaits_room: bool,
    /// When its next deadline event comes.
    armed: Time,
    /// True while it is in the list of those that get a turn.
    listed: bool,
    /// True while the application is being woken.
    waking: bool,
}

/// What hosts that are not ideal have beyond it.
#[derive(Debug)]
struct Machines {
    /// Of all hosts, one after the other.
    cores: Vec<Core>,
    gaps: Vec<Gaps>,
    desks: Desks,
    rng: Rng,
}

/// Why [`Sim::run_until`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The time had come.
    Time,
    /// The application stopped the run.
    Stopped,
    /// Nothing will ever happen again.
    Idle,
}

/// A network of hosts that run `T`, with the application `A`.
///
/// ```
/// use homa_sim::fabric::{SwitchConfig, Topology};
/// use homa_sim::homa::Homa;
/// use homa_sim::{App, Call, Cx, Event, HostId, HostModel, Sim, Time};
///
/// /// One echoed message, timed.
/// #[derive(Default)]
/// struct Once {
///     rtt: Option<Time>,
/// }
///
/// impl App for Once {
///     fn start(&mut self, cx: &mut Cx<'_>) {
///         cx.call(HostId(0), Call { cookie: 1, to: HostId(1), client_port: 0, server_port: 0, len: 100 });
///     }
///
///     fn event(&mut self, cx: &mut Cx<'_>, host: HostId, event: Event) {
///         match event {
///             Event::Request { request, len, .. } => cx.reply(host, request, len),
///             Event::Response { .. } => self.rtt = Some(cx.now()),
///             Event::Failed { why, .. } => panic!("{why}"),
///         }
///     }
///
///     fn timer(&mut self, _: &mut Cx<'_>, _: HostId, _: u64) {}
/// }
///
/// let transports = (0..2).map(|n| Homa::new(HostId(n), &homa_stack::Config::default(), 1, 1)).collect();
/// let (topology, switch) = (Topology::rack(2), SwitchConfig::default());
/// let mut sim = Sim::new(&topology, switch, HostModel::default(), transports, Once::default(), 1);
/// sim.run_until(Time::from_millis(1));
/// // Each way 194 + 20 bytes on two links of 25 Gbit/s and 250 ns; the first answer goes behind CUTOFFS, 100 + 20 bytes.
/// assert_eq!(sim.app().rtt, Some(Time::from_picos(4 * (214 * 320 + 250_000) + 120 * 320)));
/// ```
#[derive(Debug)]
pub struct Sim<T: Transport, A> {
    now: Time,
    queue: Queue<What>,
    fabric: Fabric,
    /// From a host to its switch: the delay of the link, and the time within the switch.
    to_leaf: Time,
    model: HostModel,
    /// True if packets go to the protocol as they come.
    at_once: bool,
    machines: Machines,
    transports: Vec<T>,
    hosts: Vec<Host>,
    port: Port<T::Segment>,
    /// Hosts that get a turn at this point of time.
    turns: VecDeque<u32>,
    /// Timers of the application: host and tag.
    timers: Slab<(HostId, u64)>,
    app: A,
    rng: Rng,
    actions: Vec<Action>,
    delivered: u64,
    started: bool,
    stopped: bool,
}

impl<T: Transport, A: App> Sim<T, A> {
    /// The hosts of `topology`, each with one of `transports`, all switches and hosts alike. All random numbers come
    /// from `seed`.
    ///
    /// # Panics
    ///
    /// If there are not as many transports as hosts.
    pub fn new(
        topology: &Topology,
        switch: SwitchConfig,
        model: HostModel,
        transports: Vec<T>,
        app: A,
        seed: u64,
    ) -> Self {
        assert_eq!(transports.len(), topology.hosts() as usize, "each host has a transport");
        let mut streams = Rng::streams(seed, None, 3).into_iter();
        let mut stream = || streams.next().expect("as many streams as were asked for");
        let (link, latency) = (Link::new(topology.host_gbps(), topology.link_delay()), switch.latency);
        let hosts =
            vec![
                Host { nic: Nic::default(), awaits_room: false, armed: Time::NEVER, listed: false, waking: false };
                transports.len()
            ];
        let (fabric_rng, app_rng, mut machine_rng) = (stream(), stream(), stream());
        let mut gaps_rng = || Rng::streams(machine_rng.below(usize::MAX) as u64, None, 1).remove(0);
        let gaps = transports.iter().map(|_| Gaps::new(&model, gaps_rng())).collect();
        let cores = (0..transports.len() * model.cores() as usize).map(|_| Core::default()).collect();
        let desks = Desks::new(model.threads, transports.len());
        let machines = Machines { cores, gaps, desks, rng: machine_rng };
        Self {
            now: Time::ZERO,
            queue: Queue::new(transports.len()),
            fabric: Fabric::new(topology, switch, fabric_rng),
            to_leaf: topology.link_delay() + latency,
            port: Port::on(link, model.nic_limit),
            at_once: model.receives_at_once(),
            machines,
            model,
            transports,
            hosts,
            turns: VecDeque::new(),
            timers: Slab::new(),
            app,
            rng: app_rng,
            actions: Vec::new(),
            delivered: 0,
            started: false,
            stopped: false,
        }
    }

    /// Has everything happen that is due until `end`, that included; afterwards it is `end`, unless the application
    /// stopped the run.
    pub fn run_until(&mut self, end: Time) -> Ended {
        if !std::mem::replace(&mut self.started, true) {
            self.tell(|app, cx| app.start(cx));
            self.take_turns();
        }
        while !self.stopped {
            let Some((at, what)) = self.queue.pop(end) else {
                self.now = self.now.max(end);
                return if self.queue.is_empty() { Ended::Idle } else { Ended::Time };
            };
            self.now = at;
            self.happen(what);
        }
        Ended::Stopped
    }

    /// Now.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The application.
    pub fn app(&self) -> &A {
        &self.app
    }

    /// The application, to change it between runs.
    pub fn app_mut(&mut self) -> &mut A {
        &mut self.app
    }

    /// The transports, by host.
    pub fn transports(&self) -> &[T] {
        &self.transports
    }

    /// The transports, by host, to change them between runs.
    pub fn transports_mut(&mut self) -> &mut [T] {
        &mut self.transports
    }

    /// Packets that came to hosts.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Packets that are under way: sent, neither delivered nor dropped.
    pub fn under_way(&self) -> usize {
        self.port.under_way()
    }

    /// Events that have been, or are to come.
    pub fn events(&self) -> u64 {
        self.queue.added()
    }

    /// Counts of each switch since the start or the last [`Self::reset_switch_stats`].
    pub fn switch_stats(&self) -> Vec<SwitchStats> {
        self.fabric.stats()
    }

    /// Bytes that wait now at each port of each switch, in the order of [`Self::switch_stats`].
    pub fn waiting(&self) -> impl Iterator<Item = u64> + '_ {
        self.fabric.waiting()
    }

    /// Begins the switches' counts anew.
    pub fn reset_switch_stats(&mut self) {
        self.fabric.reset_stats(self.now);
    }

    #[inline]
    fn happen(&mut self, what: What) {
        match what {
            What::Hop(Hop::Switch { switch, packet }) => {
                let then = |at, hop| self.queue.push(at, What::Hop(hop));
                self.fabric.arrive(self.now, switch, packet, self.port.packets(), then);
                return;
            }
            What::Hop(Hop::Port { port }) => {
                let then = |at, hop| self.queue.push(at, What::Hop(hop));
                self.fabric.port_free(self.now, port, self.port.packets(), then);
                return;
            }
            What::Hop(Hop::Host { packet }) => {
                self.delivered += 1;
                let found = self.port.packets().get(packet);
                found.arrived = self.now;
                let (host, flow) = (found.to.0, found.flow);
                if !self.at_once {
                    return self.receive(host, packet, flow);
                }
                self.port.hand(packet, self.now, 0);
                self.turn(host);
            }
            What::Batch { host, core } => return self.batch(host, core),
            What::HandOver { host, core } => self.hand_over(host, core),
            What::Wake(host) => self.wake(host),
            What::Done { host, desk } => self.done(host, desk),
            What::Room(host) => {
                let Host { nic, awaits_room, .. } = &mut self.hosts[host as usize];
                let at = nic.busy_until - self.model.nic_wake;
                if at > self.now {
                    // Other turns have filled it meanwhile.
                    return self.queue.push(at, What::Room(host));
                }
                *awaits_room = false;
                self.turn(host);
            }
            What::Deadline(host) => self.deadline(host),
            What::Timer(index) => {
                let (host, tag) = self.timers.remove(index as usize);
                self.tell(|app, cx| app.timer(cx, host, tag));
            }
        }
        self.take_turns();
    }

    /// A packet has come to the ring of one of `host`'s receiving cores.
    fn receive(&mut self, host: u32, packet: u32, flow: u64) {
        let cores = self.model.cores();
        let core = if cores == 1 { 0 } else { mix(flow) % cores };
        let Machines { cores: all, rng, .. } = &mut self.machines;
        let begin = all[(host * cores + core) as usize].arrive(self.now, (packet, flow), &self.model, rng);
        if let Some(begin) = begin {
            self.queue.push(begin, What::Batch { host, core });
        }
    }

    /// A receiving core works through what has come.
    fn batch(&mut self, host: u32, core: u32) {
        if let Some(over) = self.gap(host) {
            return self.queue.push(over, What::Batch { host, core });
        }
        let Machines { cores, rng, .. } = &mut self.machines;
        let (handed, again) = cores[(host * self.model.cores() + core) as usize].work(self.now, &self.model, rng);
        self.queue.push(handed, What::HandOver { host, core });
        if let Some(again) = again {
            self.queue.push(again, What::Batch { host, core });
        }
    }

    /// The protocol gets a batch.
    fn hand_over(&mut self, host: u32, core: u32) {
        if let Some(over) = self.gap(host) {
            return self.queue.push(over, What::HandOver { host, core });
        }
        let batch = self.machines.cores[(host * self.model.cores() + core) as usize].hand_over();
        batch.for_each(|(packet, seen)| self.port.hand(packet, seen, core as u16));
        self.turn(host);
    }

    /// The application takes what there is.
    fn wake(&mut self, host: u32) {
        if let Some(over) = self.gap(host) {
            return self.queue.push(over, What::Wake(host));
        }
        self.hosts[host as usize].waking = false;
        self.tell_news(host);
    }

    /// When the gap ends that `host` is in, if it is.
    fn gap(&mut self, host: u32) -> Option<Time> {
        if self.model.noise.is_empty() {
            return None;
        }
        self.machines.gaps[host as usize].end(self.now, &self.model)
    }

    /// A deadline event of `host`: a turn, if it is still wanted.
    fn deadline(&mut self, host: u32) {
        if self.hosts[host as usize].armed != self.now {
            // An earlier one has taken its place.
            return;
        }
        self.hosts[host as usize].armed = Time::NEVER;
        match self.transports[host as usize].next_deadline() {
            Some(at) if at <= self.now => self.turn(host),
            Some(at) => self.arm(host, at),
            None => {}
        }
    }

    /// Gives turns to all hosts that the application has asked something of.
    fn take_turns(&mut self) {
        while let Some(host) = self.turns.pop_front() {
            self.hosts[host as usize].listed = false;
            self.turn(host);
        }
    }

    /// A turn of `host`'s transport, and its news to the application.
    #[inline]
    fn turn(&mut self, host: u32) {
        let index = host as usize;
        let delay = self.model.send_delay.draw(&mut self.machines.rng);
        self.port.enter(HostId(host), self.now, self.hosts[index].nic, delay);
        self.transports[index].turn(self.now, &mut self.port);
        let leaf = self.fabric.leaf_of(HostId(host));
        while let Some((left, packet)) = self.port.take_sent() {
            self.queue.push(left + self.to_leaf, What::Hop(Hop::Switch { switch: leaf, packet }));
        }
        let nic = self.port.leave();
        self.hosts[index].nic = nic;
        if nic.refused && !std::mem::replace(&mut self.hosts[index].awaits_room, true) {
            self.queue.push(nic.busy_until - self.model.nic_wake, What::Room(host));
        }
        if self.model.wakeup_delay.points.is_empty() {
            self.tell_news(host);
        } else if !std::mem::replace(&mut self.hosts[index].waking, true) {
            // Whether there is news is not known before it is asked for; if not, nobody notices.
            let delay = self.model.wakeup_delay.draw(&mut self.machines.rng);
            self.queue.push(self.now + delay, What::Wake(host));
        }
        if let Some(at) = self.transports[index].next_deadline() {
            self.arm(host, at);
        }
    }

    /// Hands what the transport of `host` has to tell to the application.
    #[inline]
    fn tell_news(&mut self, host: u32) {
        if !self.machines.desks.are_none() {
            return self.queue_news(host);
        }
        while let Some(event) = self.transports[host as usize].poll_event() {
            self.tell(|app, cx| app.event(cx, HostId(host), event));
        }
    }

    /// Puts what the transport of `host` has to tell in front of the threads that it is for.
    fn queue_news(&mut self, host: u32) {
        while let Some(event) = self.transports[host as usize].poll_event() {
            let port = match &event {
                Event::Request { server_port, .. } => *server_port,
                Event::Response { cookie, .. } | Event::Failed { cookie, .. } => self.app.client_port(*cookie),
            };
            if let Some((desk, time)) = self.machines.desks.put(host, port, event) {
                self.queue.push(self.now + time, What::Done { host, desk });
            }
        }
    }

    /// A thread of `host` is done with a message, and goes on with the next.
    fn done(&mut self, host: u32, desk: u32) {
        if let Some(over) = self.gap(host) {
            return self.queue.push(over, What::Done { host, desk });
        }
        if let Some(event) = self.machines.desks.done(desk) {
            self.tell(|app, cx| app.event(cx, HostId(host), event));
        }
        if let Some((desk, time)) = self.machines.desks.begin(desk) {
            self.queue.push(self.now + time, What::Done { host, desk });
        }
    }

    /// Sees to it that a deadline event of `host` comes at `at` or before.
    #[inline]
    fn arm(&mut self, host: u32, at: Time) {
        let at = at.max(self.now);
        if at < self.hosts[host as usize].armed {
            self.hosts[host as usize].armed = at;
            self.queue.push(at, What::Deadline(host));
        }
    }

    /// Has the application act, and does what it asks for; hosts that are asked are listed for a turn.
    fn tell(&mut self, say: impl FnOnce(&mut A, &mut Cx<'_>)) {
        say(&mut self.app, &mut Cx { now: self.now, rng: &mut self.rng, actions: &mut self.actions });
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            let now = self.now;
            let host = match action {
                Action::Call(host, call) => {
                    self.transports[host.index()].call(now, call);
                    host
                }
                Action::Reply(host, request, len) => {
                    self.transports[host.index()].reply(now, request, len);
                    host
                }
                Action::Discard(host, request) => {
                    self.transports[host.index()].discard(now, request);
                    host
                }
                Action::Forget(host, call) => {
                    self.transports[host.index()].forget(now, call);
                    host
                }
                Action::Timer(at, host, tag) => {
                    let index = self.timers.insert((host, tag)) as u32;
                    self.queue.push(at, What::Timer(index));
                    continue;
                }
                Action::Stop => {
                    self.stopped = true;
                    continue;
                }
            };
            if !std::mem::replace(&mut self.hosts[host.index()].listed, true) {
                self.turns.push_back(host.0);
            }
        }
        self.actions = actions;
    }
}
