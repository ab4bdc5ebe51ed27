//! Nodes as machines that are reached by SSH, with an agent on each. Their files come from there to the directory of
//! the run, each whole or not at all, with its checksum compared.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use cp_node::agent::facts::Facts;
use cp_node::agent::wire::{FileAbout, News, Order};
use serde_json::json;

use super::{NodeProcess, ProcessHandle, Testbed};
use crate::error::Stop;
use crate::ssh::agent::{Agent, Ticket};
use crate::ssh::cluster::{Cluster, Machine};
use crate::ssh::{Fleet, Greeting, QUICK};

/// Longest pause within a file that is coming.
const PAUSE: Duration = Duration::from_secs(20);
/// How long an agent may look around on its machine.
const LOOK: Duration = Duration::from_secs(20);
/// Less free space than this on a node's disk is trouble, bytes.
const LEAST_FREE: u64 = 1 << 20;
/// A clock that is off by more is told, seconds.
const CLOCK_S: f64 = 1.0;
/// A clock that moves against ours by more meanwhile is told, seconds.
const STEP_S: f64 = 60.0;
/// CAP_NET_RAW.
const NET_RAW: u64 = 1 << 13;

/// Machines with agents.
pub(crate) struct Ssh {
    fleet: Fleet,
    nodes: Vec<Remote>,
    /// Says to agents that we are there, and looks whether they are.
    watch: Watch,
    /// What nodes that are made ready again must have.
    needs: Needs,
    /// How often nodes were made ready.
    times: u32,
}

/// What a run wants of every machine.
pub(crate) struct Needs {
    /// Raw sockets, for our own Homa.
    pub(crate) homa: bool,
    /// Congestion controls of TCP.
    pub(crate) congestion: Vec<String>,
}

/// One node.
struct Remote {
    machine: Machine,
    greeting: Greeting,
    facts: Facts,
    /// Directory of this run there, and the one in use.
    home: String,
    dir: String,
    agent: Arc<Agent>,
    /// Files that are here already, as they were there.
    have: HashMap<String, FileAbout>,
    /// Why the connection was opened again.
    again: Vec<String>,
}

impl Ssh {
    /// Connects to the first `nodes` machines of the cluster, all at once, and makes a directory on each, named by
    /// `run`, and looks whether they have what the run `needs`.
    ///
    /// # Errors
    /// [`Stop::Missing`] with everything that is in the way, of every node; [`Stop::Usage`] if that is only what their
    /// kernels do not have.
    pub(crate) fn build(cluster: Cluster, nodes: usize, run: &str, needs: Needs) -> anyhow::Result<Self> {
        let fleet = Fleet::new(cluster)?;
        let agents = fleet.agents(nodes);
        let (mut made, mut dirs, mut troubles) = (Vec::new(), Vec::new(), Vec::new());
        // All nodes are asked before the first answer is waited for.
        let mut asked = Vec::new();
        for (number, agent) in agents.into_iter().enumerate() {
            let machine = fleet.cluster().machines[number].clone();
            match agent {
                Ok((agent, greeting)) => {
                    let dir = format!("{}/runs/{run}-node{number}", machine.directory);
                    let tickets = orders(&machine, &dir).map(|order| agent.send(&order));
                    asked.push((number, machine, greeting, dir, agent, tickets));
                }
                Err(err) => troubles.push((number, format!("{err:#}"))),
            }
        }
        for (number, machine, greeting, dir, agent, tickets) in asked {
            dirs.push((dir.clone(), Arc::clone(&agent)));
            match look(&machine, &agent, tickets, &needs) {
                Ok(facts) => made.push(Remote {
                    machine,
                    greeting,
                    facts,
                    home: dir.clone(),
                    dir,
                    agent,
                    have: HashMap::new(),
                    again: Vec::new(),
                }),
                Err(err) => troubles.push((number, format!("{}: {err:#}", machine.access.host))),
            }
        }
        let refusal = if troubles.is_empty() { lacking(&made, &needs) } else { Some(all(nodes, troubles)) };
        if let Some(refusal) = refusal {
            let remove = |(path, agent): (String, Arc<Agent>)| (agent.send(&Order::RemoveDir { path }), agent);
            let removed: Vec<_> = dirs.into_iter().map(remove).collect();
            // Before this process ends; what is in the way is told in any case.
            removed.iter().for_each(|(ticket, agent)| drop(agent.answer(*ticket, QUICK)));
            return Err(refusal.into());
        }
        let agents = made.iter().map(|node| Arc::clone(&node.agent)).collect();
        let watch = Watch::start(agents, fleet.cluster().silence)?;
        Ok(Self { fleet, nodes: made, watch, needs, times: 1 })
    }
}

impl Remote {
    /// Calls the machine again if its agent is lost, and makes the directory of another attempt there, the `times`th.
    fn renew(&mut self, fleet: &Fleet, watch: &Watch, number: usize, times: u32, needs: &Needs) -> anyhow::Result<()> {
        if let Some(why) = self.agent.lost() {
            self.call_again(fleet, watch, number, why)?;
        }
        let dir = format!("{}-{times}", self.home);
        let tickets = orders(&self.machine, &dir).map(|order| self.agent.send(&order));
        match look(&self.machine, &self.agent, tickets, needs) {
            Ok(facts) => self.facts = facts,
            Err(err) => {
                let _ = self.agent.ask(&Order::RemoveDir { path: dir }, QUICK);
                return Err(err.context(self.machine.access.host.clone()));
            }
        }
        (self.dir, self.have) = (dir, HashMap::new());
        Ok(())
    }

    /// Opens the connection again, which was lost as `why` says.
    fn call_again(&mut self, fleet: &Fleet, watch: &Watch, number: usize, why: String) -> anyhow::Result<()> {
        let (agent, greeting) = fleet.agent(number).with_context(|| format!("{why}; connecting again"))?;
        (self.agent, self.greeting) = (Arc::new(agent), greeting);
        watch.add(number, Arc::clone(&self.agent));
        self.again.push(why);
        Ok(())
    }

    /// Has the files of this node that are new or have changed come to `dir`. A connection that was lost, or is lost
    /// meanwhile, is opened again: it is not the loss of the files.
    fn fetch(&mut self, fleet: &Fleet, watch: &Watch, number: usize, dir: &Path) -> anyhow::Result<()> {
        let lost = |node: &Self| node.agent.lost().is_some();
        let before = lost(self);
        match self.fetch_once(fleet, watch, number, dir) {
            Err(_) if !before && lost(self) => self.fetch_once(fleet, watch, number, dir),
            result => result,
        }
    }

    fn fetch_once(&mut self, fleet: &Fleet, watch: &Watch, number: usize, dir: &Path) -> anyhow::Result<()> {
        if let Some(why) = self.agent.lost() {
            self.call_again(fleet, watch, number, why)?;
        }
        let files = match self.agent.ask(&Order::List { path: self.dir.clone() }, QUICK)? {
            News::Files { files } => files,
            other => return Err(anyhow!("its agent answers something else: {other:?}")),
        };
        let new: Vec<_> = files.into_iter().filter(|file| self.have.get(&file.name) != Some(file)).collect();
        let mut coming = Vec::new();
        for file in new {
            let Some(part) = local(dir, &file.name) else {
                return Err(anyhow!("it has a file with the odd name `{}`", file.name));
            };
            let ticket = self.agent.fetch(&format!("{}/{}", self.dir, file.name), &part)?;
            coming.push((file, part, ticket));
        }
        let mut result = Ok(());
        for (file, part, ticket) in coming {
            let whole = part.with_extension(""); // without .part
            let came = self.agent.fetched(ticket, PAUSE);
            match came.and_then(|()| Ok(fs::rename(&part, &whole)?)) {
                Ok(()) => drop(self.have.insert(file.name.clone(), file)),
                Err(err) => {
                    let _ = fs::remove_file(&part);
                    result = result.and(Err(err.context(format!("collecting {}", file.name))));
                }
            }
        }
        result
    }
}

/// What every agent is told first.
fn orders(machine: &Machine, dir: &str) -> [Order; 3] {
    let (interface, address) = (machine.interface.clone(), machine.address.to_string());
    [
        Order::MakeDir { path: format!("{dir}/traces") },
        Order::Watch { interface: interface.clone(), dir: dir.to_owned() },
        Order::Facts { interface, address, dir: dir.to_owned() },
    ]
}

/// Awaits the answers to those orders, and judges whether the machine can be a node.
fn look(machine: &Machine, agent: &Agent, tickets: [Ticket; 3], needs: &Needs) -> anyhow::Result<Facts> {
    let [made, watched, facts] = tickets;
    agent.answer(made, QUICK)?;
    agent.answer(watched, QUICK)?;
    let News::Facts(facts) = agent.answer(facts, LOOK)? else { return Err(anyhow!("an answer to something else")) };
    let troubles = obstacles(machine, &facts, needs);
    if troubles.is_empty() { Ok(*facts) } else { Err(anyhow!("{}", troubles.join("; "))) }
}

/// Why a machine cannot be a node.
fn obstacles(machine: &Machine, facts: &Facts, needs: &Needs) -> Vec<String> {
    let (interface, address) = (&machine.interface, machine.address);
    let mut troubles = Vec::new();
    if facts.carrier.is_none() {
        troubles.push(format!("there is no interface {interface}; there are {}", facts.interfaces.join(", ")));
    } else if facts.carrier == Some(false) {
        troubles.push(format!("interface {interface} has no link: `ip link set {interface} up`, or look at the cable"));
    }
    if facts.has_address == Some(false) {
        troubles.push(format!("{address} is not one of its addresses: `ip address` there lists them"));
    }
    if let Some(free) = facts.free_bytes.filter(|free| *free < LEAST_FREE) {
        let directory = &machine.directory;
        troubles.push(format!("its disk is full: {free} bytes are left where {directory} is; make room there"));
    }
    if needs.homa && facts.capabilities.is_some_and(|set| set & NET_RAW == 0) {
        troubles.push("it lacks CAP_NET_RAW, which Homa's sockets need: set `prefix = [\"sudo\", \"-n\"]`".to_owned());
    }
    troubles
}

/// The congestion controls that kernels lack, of every node. No waiting helps: what was asked for is not to be had there.
fn lacking(made: &[Remote], needs: &Needs) -> Option<Stop> {
    let of = |(number, node): (usize, &Remote)| {
        let known = &node.facts.congestion_controls;
        let missing = needs.congestion.iter().filter(|name| !known.is_empty() && !known.contains(name));
        let say = |name: &String| {
            let (host, known) = (&node.machine.access.host, known.join(", "));
            format!(
                "{host}: its kernel has no TCP congestion control {name}, only {known}: `modprobe tcp_{name}` as root there, \
                 or --protocols and --tcp-cc without it"
            )
        };
        missing.map(|name| (number, say(name))).collect::<Vec<_>>()
    };
    let troubles: Vec<_> = made.iter().enumerate().flat_map(of).collect();
    (!troubles.is_empty()).then(|| Stop::Usage(all(made.len(), troubles).to_string()))
}

/// Everything that is in the way, of every node.
fn all(nodes: usize, mut troubles: Vec<(usize, String)>) -> Stop {
    troubles.sort();
    let of = format!("{} of {nodes} nodes cannot be used:", troubles.len());
    let lines: String = troubles.iter().map(|(number, text)| format!("\n  node {number}: {text}")).collect();
    Stop::Missing(of + &lines)
}

/// Where a file of a node comes here, until it is whole; `None` for names that lead elsewhere.
fn local(dir: &Path, name: &str) -> Option<std::path::PathBuf> {
    let plain = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
    Path::new(name).components().all(plain).then(|| dir.join(format!("{name}.part")))
}

impl Testbed for Ssh {
    fn name(&self) -> &'static str {
        "ssh"
    }

    fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn address(&self, node: usize) -> IpAddr {
        self.nodes[node].machine.address
    }

    fn interface(&self, node: usize) -> &str {
        &self.nodes[node].machine.interface
    }

    fn named_interface(&self, node: usize) -> Option<&str> {
        Some(self.interface(node))
    }

    fn start(
        &mut self,
        node: usize,
        args: &[OsString],
        dir: &Path,
        stderr: &str,
        core: Option<usize>,
    ) -> anyhow::Result<NodeProcess> {
        let remote = &self.nodes[node];
        let mut words = vec!["cp-node".to_owned()];
        words.extend(args.iter().map(|word| word.to_string_lossy().into_owned()));
        let order = Order::Start { args: words, dir: remote.dir.clone(), core: core.or(remote.machine.core) };
        let output = remote.agent.start(&order, &dir.join(stderr)).with_context(|| format!("starting node {node}"))?;
        let agent = Arc::clone(&remote.agent);
        let interface = remote.machine.interface.clone();
        let clock_offset_s = remote.greeting.clock_offset_s;
        let handle = Handle { agent: Arc::clone(&agent), interface, clock_offset_s };
        Ok(NodeProcess { stdin: Box::new(Input(agent)), stdout: Box::new(output), handle: Box::new(handle) })
    }

    fn facts(&self) -> serde_json::Value {
        let node = |node: &Remote| {
            json!({
                "host": node.machine.access.host,
                "hostname": node.greeting.host,
                "kernel": node.greeting.kernel,
                "clock_offset_s": node.greeting.clock_offset_s,
                "clock_error_s": node.greeting.clock_error_s,
                "core": node.machine.core,
                "facts": node.facts,
            })
        };
        json!({
            "kind": self.name(),
            "jump": self.fleet.cluster().jump.as_ref().map(|jump| jump.host.clone()),
            "link_gbps": self.fleet.cluster().link_gbps,
            "machines": self.nodes.iter().map(node).collect::<Vec<_>>(),
        })
    }

    fn collect(&mut self, dir: &Path) -> Vec<(usize, anyhow::Error)> {
        let (fleet, watch) = (&self.fleet, &self.watch);
        // All at once: what limits is the network, not the waiting for each other.
        thread::scope(|scope| {
            let fetch = |(number, node)| scope.spawn(move || Remote::fetch(node, fleet, watch, number, dir));
            let threads: Vec<_> = self.nodes.iter_mut().enumerate().map(fetch).collect();
            let results = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a panic"))));
            let results: Vec<_> = results.collect();
            let failed = |(number, result): (usize, anyhow::Result<()>)| result.err().map(|err| (number, err));
            results.into_iter().enumerate().filter_map(failed).collect()
        })
    }

    fn remarks(&self) -> Vec<String> {
        let remarks = |(number, node): (usize, &Remote)| {
            let Greeting { clock_offset_s: offset, clock_error_s: error, .. } = node.greeting;
            let clock = (offset.abs() > CLOCK_S + error).then(|| {
                format!(
                    "its clock is {offset:+.1} s off ours: times in its log are wrong, results are not; `chronyc makestep` \
                     there sets it"
                )
            });
            let again = node.again.iter().map(|why| format!("{why}; it was opened again"));
            let host = &node.machine.access.host;
            clock.into_iter().chain(again).map(|what| format!("node {number} ({host}): {what}")).collect::<Vec<_>>()
        };
        self.nodes.iter().enumerate().flat_map(remarks).collect()
    }

    fn renew(&mut self, kept: &[usize]) -> anyhow::Result<()> {
        // Whoever is lost is asked when it is found again.
        let lost = |(number, node): (usize, &Remote)| node.agent.lost().map(|_| number);
        let mut lost: Vec<_> = self.nodes.iter().enumerate().filter_map(lost).collect();
        lost.extend_from_slice(kept);
        drop(self.remove(&lost));
        self.times += 1;
        let (fleet, watch, needs, times) = (&self.fleet, &self.watch, &self.needs, self.times);
        let results: Vec<_> = thread::scope(|scope| {
            let renew = |(number, node)| scope.spawn(move || Remote::renew(node, fleet, watch, number, times, needs));
            let threads: Vec<_> = self.nodes.iter_mut().enumerate().map(renew).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a panic")))).collect()
        });
        let nodes = results.len();
        let trouble = |(number, result): (usize, anyhow::Result<()>)| Some((number, format!("{:#}", result.err()?)));
        let troubles: Vec<_> = results.into_iter().enumerate().filter_map(trouble).collect();
        if troubles.is_empty() { Ok(()) } else { Err(all(nodes, troubles).into()) }
    }

    fn remove(&mut self, kept: &[usize]) -> Vec<(usize, anyhow::Error)> {
        let done = self.nodes.iter().enumerate().filter(|(number, _)| !kept.contains(number));
        let ask =
            |(number, node): (usize, &Remote)| (number, node.agent.send(&Order::RemoveDir { path: node.dir.clone() }));
        let asked: Vec<_> = done.map(ask).collect();
        let failed = |(number, ticket): (usize, Ticket)| {
            let node = &self.nodes[number];
            let err = node.agent.answer(ticket, PAUSE).err()?;
            Some((number, err.context(format!("removing {}:{}", node.machine.access.host, node.dir))))
        };
        asked.into_iter().filter_map(failed).collect()
    }
}

/// To a node's standard input.
struct Input(Arc<Agent>);

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.input(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A node's process, by its agent.
struct Handle {
    agent: Arc<Agent>,
    interface: String,
    /// How far its clock was ahead of ours at first, seconds.
    clock_offset_s: f64,
}

impl ProcessHandle for Handle {
    fn ended(&mut self) -> Option<String> {
        self.agent.ended()
    }

    fn kill(&mut self) {
        if self.agent.lost().is_none() {
            // An agent that is lost ends its node by itself.
            let _ = self.agent.ask(&Order::Kill, QUICK);
        }
    }

    fn id(&self) -> Option<u32> {
        None
    }

    fn trouble(&mut self) -> Option<String> {
        if let Some(why) = self.agent.lost() {
            return Some(why);
        }
        let beat = self.agent.beat()?;
        // Before the agent knows where to look, it says nothing about either.
        if beat.carrier != Some(true) && (beat.carrier.is_some() || beat.free_bytes.is_some()) {
            return Some(format!("its data-plane interface {} has lost its link", self.interface));
        }
        let free = beat.free_bytes.filter(|free| *free < LEAST_FREE)?;
        Some(format!("its disk is full: {free} bytes are left where it works"))
    }

    fn oddity(&mut self) -> Option<String> {
        // Heartbeats may be late, but not by that much without being missed.
        let step = self.agent.beat()?.clock_offset_s - self.clock_offset_s;
        (step.abs() > STEP_S).then(|| {
            format!("its clock was set by about {step:+.0} s: times in its log are wrong from then on, results are not")
        })
    }
}

/// A thread that says to all agents that we are there, and gives up those that have been silent for too long.
struct Watch {
    agents: Arc<Mutex<Vec<Arc<Agent>>>>,
    over: Arc<AtomicBool>,
}

impl Watch {
    fn start(agents: Vec<Arc<Agent>>, limit: Duration) -> io::Result<Self> {
        let made = Self { agents: Arc::new(Mutex::new(agents)), over: Arc::new(AtomicBool::new(false)) };
        let (agents, over) = (Arc::clone(&made.agents), Arc::clone(&made.over));
        thread::Builder::new().name("watch".into()).spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let all = agents.lock().unwrap_or_else(PoisonError::into_inner).clone();
                for agent in all.iter().filter(|agent| agent.lost().is_none()) {
                    if agent.silence() > limit {
                        let seconds = limit.as_secs_f64();
                        agent.give_up(format!(
                            "lost: nothing was heard of it for {seconds:.0} s; its link or host is down"
                        ));
                    } else {
                        agent.ping();
                    }
                }
                drop(all);
                thread::sleep(Duration::from_secs(1));
            }
        })?;
        Ok(made)
    }

    fn add(&self, number: usize, agent: Arc<Agent>) {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)[number] = agent;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_node_stay_in_the_directory_of_the_run() {
        let dir = Path::new("/run");
        assert_eq!(local(dir, "traces/node1.tt").unwrap(), Path::new("/run/traces/node1.tt.part"));
        for name in ["../x", "/etc/passwd", "a/../../b", "./a"] {
            assert!(local(dir, name).is_none_or(|path| path == Path::new("/run/./a.part")), "{name}");
        }
    }

    #[test]
    fn everything_in_the_way_is_told_of_every_node() {
        let text = all(3, vec![(2, "b".into()), (0, "a".into())]).to_string();
        assert_eq!(text, "2 of 3 nodes cannot be used:\n  node 0: a\n  node 2: b");
    }
}
