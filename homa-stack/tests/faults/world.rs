//! Hosts and a network that misbehaves as its plan says.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use homa_stack::proto::{Forward, Planted};
use homa_stack::{Config, Endpoint, Instant, Message, Nanos, RpcError, RpcId, ServerRpc};

use crate::net::{PORT, Rng, addr};
use crate::plan::{Plan, first_id};
use crate::tally::Tally;

/// First host that is none of ours, by number.
pub const STRANGER: usize = 100;
pub const STRANGERS: usize = 2;

/// Steps after which a run is taken never to end. Seed 229931 took 1,700,000, of packets sent again and again to a
/// server that had no room for them. Seed 82711, where a policy grants 313 bytes at a time and a quarter of the packets is
/// lost, takes more than 300,000.
const MAX_STEPS: usize = 1_000_000;

/// More control packets of its own than a host ever has waiting for each RPC: some for each of the first gaps.
const OWN_CONTROL: usize = 64;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Pending,
    Answered,
    Failed(RpcError),
    Aborted,
    /// Its host began anew.
    Gone,
}

pub struct Host {
    pub core: Endpoint,
    pub life: usize,
    pub port: u16,
    /// Nothing is done before this time.
    stalled: Instant,
    pub held: Vec<Option<Message>>,
    /// Calls that wait for room.
    pub refused: Vec<usize>,
    /// Private calls under way.
    pub private: Vec<RpcId>,
}

pub struct Sent {
    pub id: Option<RpcId>,
    pub outcome: Outcome,
    pub runs: u32,
}

#[derive(Debug)]
pub enum What {
    Call(usize),
    Abort(usize),
    Arrive { from: usize, to: usize, bytes: Vec<u8> },
    Reply { host: usize, life: usize, rpc: ServerRpc, call: Option<usize> },
    Release { host: usize, life: usize, slot: usize },
    Restart(usize),
    Stall(usize, Nanos),
    Work(usize),
    Forward { host: usize, life: usize, forward: Forward },
}

struct Due {
    at: Instant,
    serial: u64,
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

pub struct World {
    pub plan: Plan,
    pub rng: Rng,
    pub now: Instant,
    pub start: Instant,
    pub hosts: Vec<Host>,
    pub calls: Vec<Sent>,
    pub by_id: HashMap<u64, usize>,
    pub ran: HashMap<(usize, usize, u64), u32>,
    due: BinaryHeap<Reverse<Due>>,
    serial: u64,
    /// Packets that have arrived, for their memory.
    pub spare: Vec<Vec<u8>>,
    /// Room for a packet being sent.
    pub out: Vec<u8>,
    pub tally: Tally,
    /// True if each step is printed.
    pub verbose: bool,
}

/// Runs `seed`; what happened, or what was violated.
pub fn run(seed: u64, planted: Option<Planted>, verbose: bool) -> Result<Tally, String> {
    World::new(Plan::new(seed, planted), verbose).run()
}

/// Fails with a text unless `$cond` holds.
macro_rules! hold {
    ($cond:expr, $($text:tt)+) => {
        if !$cond {
            return Err(format!($($text)+));
        }
    };
}

/// Prints a step, with its time in milliseconds, if steps are printed.
macro_rules! say {
    ($world:expr, $($text:tt)+) => {
        if $world.verbose {
            println!("{:12.6} {}", $world.now.since($world.start).as_micros_f64() / 1e3, format_args!($($text)+));
        }
    };
}

pub(crate) use {hold, say};

impl World {
    fn new(plan: Plan, verbose: bool) -> Self {
        let start = Instant::from_nanos(1_000_000);
        let workers = (0..plan.configs.len() * plan.workers).map(|host| plan.config(host));
        let hosts = workers.map(|config| Host::new(config, 0, &plan)).collect();
        let mut world = Self {
            rng: Rng::new(plan.seed ^ 0x5eed_0000_0000),
            now: start,
            start,
            hosts,
            calls: plan.calls.iter().map(|_| Sent { id: None, outcome: Outcome::Pending, runs: 0 }).collect(),
            by_id: HashMap::new(),
            ran: HashMap::new(),
            due: BinaryHeap::new(),
            serial: 0,
            spare: Vec::new(),
            out: Vec::new(),
            tally: Tally::default(),
            verbose,
            plan,
        };
        if verbose {
            for (host, config) in world.plan.configs.iter().enumerate() {
                println!("host {host}: {config:?}");
            }
            let p = &world.plan;
            println!(
                "loss {}, duplicates {}, reordered {}, late {} by {:?}",
                p.loss, p.duplicate, p.reorder, p.late, p.late_most
            );
            println!("cut {}, forged {}, messages held {:?}, bursts of {}", p.cut, p.forged, p.hold, p.burst);
            println!("packets of up to {} bytes", p.narrow);
        }
        for call in 0..world.plan.calls.len() {
            world.after(world.plan.calls[call].at, What::Call(call));
        }
        for i in 0..world.plan.restarts.len() {
            let (at, host) = world.plan.restarts[i];
            world.after(at, What::Restart(host));
        }
        for i in 0..world.plan.stalls.len() {
            let (at, host, span) = world.plan.stalls[i];
            let worker = host * world.plan.workers + i % world.plan.workers;
            world.after(at, What::Stall(worker, span));
        }
        world
    }

    fn run(mut self) -> Result<Tally, String> {
        for _ in 0..MAX_STEPS {
            let timer = (0..self.hosts.len()).filter_map(|h| Some((self.hosts[h].wakes()?, h))).min();
            let first = self.due.peek().map(|Reverse(due)| due.at);
            let host = match (timer, first) {
                (None, None) => return self.finish(),
                (Some((at, host)), first) if first.is_none_or(|first| at < first) => {
                    self.now = self.now.max(at);
                    host
                }
                _ => {
                    let Reverse(due) = self.due.pop().expect("it was peeked at");
                    self.now = self.now.max(due.at);
                    match self.act(due.what)? {
                        Some(host) => host,
                        None => continue,
                    }
                }
            };
            self.tally.steps += 1;
            self.work(host)?;
            if self.settle(host)? {
                self.check(host)?;
            }
        }
        {
            let left: Vec<_> = self.hosts.iter().map(|host| host.core.sizes()).collect();
            Err(format!("still busy at {:?} after {MAX_STEPS} steps: {left:?}", self.now.since(self.start)))
        }
    }

    /// Does what is due; returns the host that has something to work on then.
    fn act(&mut self, what: What) -> Result<Option<usize>, String> {
        let host = match &what {
            What::Call(call) | What::Abort(call) => self.plan.caller(*call),
            What::Arrive { to: host, .. } | What::Reply { host, .. } | What::Release { host, .. } => *host,
            What::Restart(host) | What::Stall(host, _) | What::Work(host) | What::Forward { host, .. } => *host,
        };
        if self.hosts[host].stalled > self.now && !matches!(what, What::Restart(_) | What::Stall(..)) {
            self.at(self.hosts[host].stalled, what);
            return Ok(None);
        }
        match what {
            What::Call(call) => self.call(call),
            What::Abort(call) => self.abort(call),
            What::Arrive { from, bytes, .. } => {
                self.hosts[host].core.handle_packet(self.now, addr(from), &bytes);
                self.spare.push(bytes);
            }
            What::Reply { life, rpc, call, .. } => {
                if life == self.hosts[host].life {
                    self.reply(host, rpc, call);
                }
            }
            What::Release { life, slot, .. } => {
                if life == self.hosts[host].life {
                    let msg = self.hosts[host].held[slot].take().expect("each message is released once");
                    self.hosts[host].core.release(msg);
                }
            }
            What::Restart(node) => {
                self.restart(node);
                return Ok(None);
            }
            What::Stall(_, span) => {
                say!(self, "{host}: stalls for {span:?}");
                self.hosts[host].stalled = self.now + span;
                return Ok(None);
            }
            What::Work(_) => {}
            What::Forward { life, forward, .. } => {
                if life == self.hosts[host].life {
                    say!(self, "{host}: is handed {forward:?}");
                    self.hosts[host].core.handle_forward(self.now, &forward);
                }
            }
        }
        Ok(Some(host))
    }

    /// A host begins anew, without any memory, under ids that it has not had before.
    fn restart(&mut self, node: usize) {
        say!(self, "node {node}: begins anew");
        let workers = self.plan.workers;
        for host in node * workers..(node + 1) * workers {
            let life = self.hosts[host].life + 1;
            self.tally.count(&self.hosts[host].core);
            for call in std::mem::take(&mut self.hosts[host].refused) {
                self.after(Nanos::ZERO, What::Call(call));
            }
            let config = Config { first_id: first_id(node, life), ..self.plan.config(host) };
            self.hosts[host] = Host::new(config, life, &self.plan);
        }
        for (sent, plan) in self.calls.iter_mut().zip(&self.plan.calls) {
            if plan.from == node && sent.id.is_some() && sent.outcome == Outcome::Pending {
                sent.outcome = Outcome::Gone;
            }
        }
    }

    /// Lets a host do what is due: timers, news, packets.
    fn work(&mut self, host: usize) -> Result<(), String> {
        if self.hosts[host].stalled > self.now {
            return Ok(());
        }
        if self.hosts[host].core.next_deadline().is_some_and(|at| at <= self.now) {
            self.hosts[host].core.handle_timeout(self.now);
        }
        while let Some(progress) = self.hosts[host].core.poll_progress() {
            self.progress(host, progress)?;
        }
        while let Some(event) = self.hosts[host].core.poll_event() {
            self.event(host, event)?;
        }
        self.take_private(host)?;
        self.transmit(host);
        self.hand_on(host);
        Ok(())
    }

    /// Does what a host has put off, often but not always; true if nothing of that waits.
    fn settle(&mut self, host: usize) -> Result<bool, String> {
        let late = self.hosts[host].core.sizes().late > 0;
        self.tally.put_off += u64::from(late);
        // Steps that follow must not mind.
        if late && self.tally.steps.is_multiple_of(3) {
            return Ok(false);
        }
        self.hosts[host].core.settle();
        // An error that came back at once, of a packet just sent, has settled, too: room is news in either case.
        if self.plan.puts_off() && self.hosts[host].core.sizes().events > 0 {
            self.work(host)?;
        }
        Ok(true)
    }

    /// What must hold of a host at any time.
    fn check(&self, host: usize) -> Result<(), String> {
        let Host { core, held, .. } = &self.hosts[host];
        core.check_invariants(held.iter().flatten()).map_err(|e| format!("host {host}: {e}"))?;
        let sizes = core.sizes();
        let calls = self.plan.calls.len() + self.tally.forged as usize;
        hold!(sizes.rpcs <= calls, "host {host}: {} RPCs of {calls} calls", sizes.rpcs);
        hold!(sizes.starved <= sizes.rpcs, "host {host}: {} of {} RPCs wait for room", sizes.starved, sizes.rpcs);
        hold!(
            sizes.peers <= self.hosts.len() + 2 && sizes.peers <= core.config().max_peers + self.hosts.len(),
            "host {host}: {} peers",
            sizes.peers
        );
        let most = core.config().max_control + OWN_CONTROL * (1 + sizes.rpcs);
        hold!(sizes.control <= most, "host {host}: {} control packets wait", sizes.control);
        if self.hosts[host].stalled <= self.now {
            hold!(sizes.events == 0, "host {host}: {} events left", sizes.events);
        }
        Ok(())
    }

    /// What must hold once nothing is due any more.
    fn finish(mut self) -> Result<Tally, String> {
        for (call, sent) in self.calls.iter().enumerate() {
            let count = match sent.outcome {
                Outcome::Pending => return Err(format!("call {call} has never ended")),
                Outcome::Answered => &mut self.tally.answered,
                Outcome::Failed(_) => &mut self.tally.failed,
                Outcome::Aborted => &mut self.tally.aborted,
                Outcome::Gone => &mut self.tally.gone,
            };
            *count += 1;
            let plan = &self.plan.calls[call];
            if self.plan.is_benign() && !plan.discard && plan.abort.is_none() {
                hold!(sent.outcome == Outcome::Answered, "call {call}: {:?} although nothing went wrong", sent.outcome);
            }
        }
        for (i, host) in self.hosts.iter_mut().enumerate() {
            hold!(!host.core.settle(), "host {i} has news when nothing is due");
            hold!(host.core.is_quiet(), "host {i} is not quiet: {:?}", host.core.sizes());
            hold!(host.core.sizes().tombstones == 0, "host {i} remembers: {:?}", host.core.sizes());
            self.tally.count(&host.core);
            let left = host.core.config().memory.taken();
            hold!(left == 0, "host {i} has {left} bytes of memory left");
        }
        Ok(self.tally)
    }

    pub fn after(&mut self, span: Nanos, what: What) {
        self.at(self.now + span, what);
    }

    fn at(&mut self, at: Instant, what: What) {
        self.serial += 1;
        self.due.push(Reverse(Due { at, serial: self.serial, what }));
    }
}

impl Host {
    fn new(config: Config, life: usize, plan: &Plan) -> Self {
        let (mut core, early) = (Endpoint::new(config), plan.reads_early());
        if plan.puts_off() {
            core.put_off();
        }
        core.bind(PORT).expect("a free port");
        let port = core.client_port().expect("a free port");
        core.read_early(PORT, early);
        core.read_early(port, early);
        Self {
            core,
            life,
            port,
            stalled: Instant::default(),
            held: Vec::new(),
            refused: Vec::new(),
            private: Vec::new(),
        }
    }

    /// When the host wants to be told of time.
    fn wakes(&self) -> Option<Instant> {
        self.core.next_deadline().map(|at| at.max(self.stalled))
    }
}
