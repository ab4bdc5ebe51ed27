//! Hosts and a network that misbehaves as its plan says.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use bytes::Bytes;
use homa_stack::proto::{MAX_HEAD, Planted};
use homa_stack::wire::MAX_MESSAGE_LEN;
use homa_stack::{Config, Endpoint, Event, Instant, Message, Nanos, Payload, RpcError, RpcId, ServerRpc};

use crate::net::{PORT, Rng, addr};
use crate::plan::{Plan, first_id};
use crate::tally::Tally;

/// First host that is none of ours, by number.
pub const STRANGER: usize = 100;
pub const STRANGERS: usize = 2;

/// Places in the pattern at which messages begin.
const SHIFTS: usize = 65_521;

/// Steps after which a run is taken never to end.
const MAX_STEPS: usize = 300_000;

/// More control packets than a host ever has waiting: some for each gap of each message.
const MAX_CONTROL: usize = 500;

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
    life: usize,
    port: u16,
    /// Nothing is done before this time.
    stalled: Instant,
    held: Vec<Option<Message>>,
}

struct Sent {
    id: Option<RpcId>,
    outcome: Outcome,
    runs: u32,
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
    calls: Vec<Sent>,
    by_id: HashMap<u64, usize>,
    ran: HashMap<(usize, usize, u64), u32>,
    due: BinaryHeap<Reverse<Due>>,
    serial: u64,
    /// Packets that have arrived, for their memory.
    pub spare: Vec<Vec<u8>>,
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

pub(crate) use say;

impl World {
    fn new(plan: Plan, verbose: bool) -> Self {
        let start = Instant::from_nanos(1_000_000);
        let hosts = plan.configs.iter().map(|config| Host::new(config.clone(), 0)).collect();
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
            world.after(at, What::Stall(host, span));
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
            self.check(host)?;
        }
        {
            let left: Vec<_> = self.hosts.iter().map(|host| host.core.sizes()).collect();
            Err(format!("still busy at {:?} after {MAX_STEPS} steps: {left:?}", self.now.since(self.start)))
        }
    }

    /// Does what is due; returns the host that has something to work on then.
    fn act(&mut self, what: What) -> Result<Option<usize>, String> {
        let host = match &what {
            What::Call(call) | What::Abort(call) => self.plan.calls[*call].from,
            What::Arrive { to: host, .. } | What::Reply { host, .. } | What::Release { host, .. } => *host,
            What::Restart(host) | What::Stall(host, _) | What::Work(host) => *host,
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
            What::Restart(_) => self.restart(host),
            What::Stall(_, span) => {
                say!(self, "{host}: stalls for {span:?}");
                self.hosts[host].stalled = self.now + span;
                return Ok(None);
            }
            What::Work(_) => {}
        }
        Ok(Some(host))
    }

    fn call(&mut self, call: usize) {
        let plan = &self.plan.calls[call];
        let (from, to, len, abort) = (plan.from, plan.to, plan.len, plan.abort);
        let host = &mut self.hosts[from];
        let server = SocketAddr::new(addr(to), PORT);
        let id = host.core.call(self.now, host.port, server, content(call, false, len), call as u64).expect("a call");
        say!(self, "{from}: {id} is call {call} to {to}, {len} bytes");
        self.by_id.insert(id.get(), call);
        self.calls[call].id = Some(id);
        if let Some(span) = abort {
            self.after(span, What::Abort(call));
        }
    }

    fn abort(&mut self, call: usize) {
        let Sent { id: Some(id), outcome: Outcome::Pending, .. } = self.calls[call] else { return };
        let from = self.plan.calls[call].from;
        say!(self, "{from}: aborts {id}");
        self.calls[call].outcome = Outcome::Aborted;
        self.hosts[from].core.abort(id);
    }

    /// Answers a request; those of strangers with what an RPC needs least.
    fn reply(&mut self, host: usize, rpc: ServerRpc, call: Option<usize>) {
        let (id, plan) = (rpc.id(), call.map(|call| &self.plan.calls[call]));
        if plan.is_some_and(|plan| plan.discard) {
            say!(self, "{host}: gives up {id}");
            return self.hosts[host].core.discard(rpc);
        }
        let payload = match (call, plan) {
            (Some(call), Some(plan)) => content(call, true, plan.response_len),
            _ => Payload::from(vec![0]),
        };
        say!(self, "{host}: answers {id} with {} bytes", payload.len());
        self.hosts[host].core.reply(self.now, rpc, payload).expect("the length is right");
    }

    /// A host begins anew, without any memory, under ids that it has not had before.
    fn restart(&mut self, host: usize) {
        say!(self, "{host}: begins anew");
        let life = self.hosts[host].life + 1;
        self.tally.count(&self.hosts[host].core);
        self.hosts[host] =
            Host::new(Config { first_id: first_id(host, life), ..self.plan.configs[host].clone() }, life);
        for (sent, plan) in self.calls.iter_mut().zip(&self.plan.calls) {
            if plan.from == host && sent.id.is_some() && sent.outcome == Outcome::Pending {
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
        while let Some(event) = self.hosts[host].core.poll_event() {
            self.event(host, event)?;
        }
        self.transmit(host);
        Ok(())
    }

    fn event(&mut self, host: usize, event: Event) -> Result<(), String> {
        match event {
            Event::Request { rpc, port, peer, msg } => {
                let (client, life) = (rpc.id().get() ^ 1, self.hosts[host].life);
                let call = self.by_id.get(&client).copied().filter(|_| !is_stranger(peer.ip()));
                say!(self, "{host}: request {client} from {peer}, {} bytes", msg.len());
                let mut service = Nanos::ZERO;
                if let Some(call) = call {
                    let plan = &self.plan.calls[call];
                    service = plan.service;
                    hold!(peer.ip() == addr(plan.from) && plan.to == host && port == PORT, "call {call} went astray");
                    self.intact(host, &msg, call, false, plan.len)?;
                    let runs = self.ran.entry((host, life, client)).or_default();
                    *runs += 1;
                    hold!(*runs == 1, "call {call} runs a second time on {host}");
                    self.calls[call].runs += 1;
                } else {
                    hold!(is_stranger(peer.ip()), "a request from {peer} that nobody sent");
                    self.tally.foreign_requests += 1;
                }
                self.keep(host, msg);
                self.after(service, What::Reply { host, life, rpc, call });
            }
            Event::Response { id, cookie, msg, .. } => {
                say!(self, "{host}: response to {id}, {} bytes", msg.len());
                let call = cookie as usize;
                self.outcome(host, id, call, Outcome::Answered)?;
                self.intact(host, &msg, call, true, self.plan.calls[call].response_len)?;
                hold!(self.calls[call].runs > 0, "call {call} was answered without being run");
                self.keep(host, msg);
            }
            Event::Failed { id, cookie, error, .. } => {
                say!(self, "{host}: {id} failed: {error}");
                self.outcome(host, id, cookie as usize, Outcome::Failed(error))?;
            }
        }
        Ok(())
    }

    fn outcome(&mut self, host: usize, id: RpcId, call: usize, outcome: Outcome) -> Result<(), String> {
        let sent = &mut self.calls[call];
        let right = sent.id == Some(id) && self.plan.calls[call].from == host;
        hold!(right, "{host} hears of {id} as call {call}, which it did not make");
        hold!(sent.outcome == Outcome::Pending, "call {call} is {outcome:?} after {:?}", sent.outcome);
        sent.outcome = outcome;
        Ok(())
    }

    /// Compares a message with what was sent.
    fn intact(&self, host: usize, msg: &Message, call: usize, response: bool, len: usize) -> Result<(), String> {
        hold!(msg.len() == len, "call {call}: {} bytes arrived of {len}", msg.len());
        let (pattern, mut at) = (pattern(), start(call, response));
        for piece in self.hosts[host].core.pieces(msg) {
            hold!(piece == &pattern[at..at + piece.len()], "call {call}: its bytes are damaged");
            at += piece.len();
        }
        hold!(at == start(call, response) + len, "call {call}: pieces of the wrong length");
        Ok(())
    }

    /// The application has a message for some time.
    fn keep(&mut self, host: usize, msg: Message) {
        let most = self.plan.hold.as_nanos();
        if most == 0 {
            return self.hosts[host].core.release(msg);
        }
        let span = Nanos::from_nanos(self.rng.below(most));
        let at = &mut self.hosts[host];
        at.held.push(Some(msg));
        let (life, slot) = (at.life, at.held.len() - 1);
        self.after(span, What::Release { host, life, slot });
    }

    /// What must hold of a host at any time.
    fn check(&self, host: usize) -> Result<(), String> {
        let Host { core, held, .. } = &self.hosts[host];
        core.check_invariants(held.iter().flatten()).map_err(|e| format!("host {host}: {e}"))?;
        let sizes = core.sizes();
        let calls = self.plan.calls.len() + self.tally.forged as usize;
        hold!(sizes.rpcs <= calls, "host {host}: {} RPCs of {calls} calls", sizes.rpcs);
        hold!(sizes.starved <= sizes.rpcs, "host {host}: {} of {} RPCs wait for room", sizes.starved, sizes.rpcs);
        hold!(sizes.peers <= self.hosts.len() + 2, "host {host}: {} peers", sizes.peers);
        hold!(sizes.control <= MAX_CONTROL, "host {host}: {} control packets wait", sizes.control);
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
        for (i, host) in self.hosts.iter().enumerate() {
            hold!(host.core.is_quiet(), "host {i} is not quiet: {:?}", host.core.sizes());
            hold!(host.core.sizes().tombstones == 0, "host {i} remembers: {:?}", host.core.sizes());
            self.tally.count(&host.core);
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
    fn new(config: Config, life: usize) -> Self {
        let mut core = Endpoint::new(config);
        core.bind(PORT).expect("a free port");
        let port = core.client_port();
        Self { core, life, port, stalled: Instant::default(), held: Vec::new() }
    }

    /// When the host wants to be told of time.
    fn wakes(&self) -> Option<Instant> {
        self.core.next_deadline().map(|at| at.max(self.stalled))
    }
}

fn is_stranger(peer: IpAddr) -> bool {
    (STRANGER..STRANGER + STRANGERS).any(|host| addr(host) == peer)
}

/// Bytes that messages are cut from, no two parts alike.
fn pattern() -> &'static Bytes {
    static PATTERN: OnceLock<Bytes> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut rng = Rng::new(1);
        (0..(MAX_MESSAGE_LEN + SHIFTS) / 8 + 1).flat_map(|_| rng.next().to_le_bytes()).collect()
    })
}

/// Where in the pattern a message begins.
fn start(call: usize, response: bool) -> usize {
    (call * 2 + usize::from(response)) * 8191 % SHIFTS
}

/// A message of a call; its head is inline or not.
fn content(call: usize, response: bool, len: usize) -> Payload {
    let start = start(call, response);
    let whole = pattern().slice(start..start + len);
    let head = (call * 7 % 60).min(MAX_HEAD).min(len);
    Payload::with_head(&whole[..head], whole.slice(head..))
}
