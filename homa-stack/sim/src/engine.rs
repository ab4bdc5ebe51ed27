//! The loop: takes events in the order of time and has hosts, switches and the application act on them.

use std::collections::VecDeque;

use cp_node::rng::Rng;
use slab::Slab;

use crate::app::{Action, App, Cx};
use crate::fabric::{Fabric, Hop, Link, SwitchConfig, SwitchStats, Topology};
use crate::host::HostModel;
use crate::packet::HostId;
use crate::port::{Nic, Port};
use crate::queue::Queue;
use crate::time::Time;
use crate::transport::Transport;

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
}

/// What the engine knows of a host.
#[derive(Clone, Copy, Debug)]
struct Host {
    nic: Nic,
    /// When its next deadline event comes.
    armed: Time,
    /// True while it is in the list of those that get a turn.
    listed: bool,
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
        let mut streams = Rng::streams(seed, None, 2).into_iter();
        let mut stream = || streams.next().expect("as many streams as were asked for");
        let (link, latency) = (Link::new(topology.host_gbps(), topology.link_delay()), switch.latency);
        let hosts = vec![Host { nic: Nic::default(), armed: Time::NEVER, listed: false }; transports.len()];
        Self {
            now: Time::ZERO,
            queue: Queue::new(transports.len()),
            fabric: Fabric::new(topology, switch, stream()),
            to_leaf: topology.link_delay() + latency + model.send_delay.points.first().map_or(Time::ZERO, |p| p.1),
            port: Port::on(link, model.nic_limit),
            model,
            transports,
            hosts,
            turns: VecDeque::new(),
            timers: Slab::new(),
            app,
            rng: stream(),
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
                let found = self.port.packets().get(packet);
                found.arrived = self.now;
                let host = found.to.0;
                self.delivered += 1;
                self.port.hand(packet);
                self.turn(host);
            }
            What::Room(host) => {
                // This was the event that the refusal led to: another refusal needs another one.
                self.hosts[host as usize].nic.refused = false;
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
        let waits = self.hosts[index].nic.refused;
        self.port.enter(HostId(host), self.now, self.hosts[index].nic, Time::ZERO);
        self.transports[index].turn(self.now, &mut self.port);
        let leaf = self.fabric.leaf_of(HostId(host));
        while let Some((left, packet)) = self.port.take_sent() {
            self.queue.push(left + self.to_leaf, What::Hop(Hop::Switch { switch: leaf, packet }));
        }
        let nic = self.port.leave();
        self.hosts[index].nic = nic;
        if nic.refused && !waits {
            self.queue.push(nic.busy_until - self.model.nic_wake, What::Room(host));
        }
        while let Some(event) = self.transports[index].poll_event() {
            self.tell(|app, cx| app.event(cx, HostId(host), event));
        }
        if let Some(at) = self.transports[index].next_deadline() {
            self.arm(host, at);
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
