//! Machines reached by SSH: from a cluster file to an agent on each.
//!
//! ```text
//! cluster file -> cluster (checked) -> connect (host key, login; through a jump host) -> deploy (this program there,
//! its agent started) -> pump (a thread a session) -> agent (orders, files, heartbeats)
//! ```

pub(crate) mod agent;
mod auth;
pub mod cluster;
mod connect;
mod console;
pub(crate) mod deploy;
mod hostkeys;
mod pump;
mod quote;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use cp_node::agent::wire::{self, News, Order};

use self::agent::Agent;
use self::cluster::{Access, Cluster, Machine};
use self::connect::Connection;
use self::console::SwitchConsole;
use self::deploy::Program;
use self::pump::Pump;
use crate::error::Stop;

/// How long an agent may take for an order that only notes something.
pub(crate) const QUICK: Duration = Duration::from_secs(10);

/// Agents on machines, and how to get them again.
pub(crate) struct Fleet {
    cluster: Cluster,
    program: Program,
    jump: Option<Pump>,
}

impl Fleet {
    /// Connects to the jump host, if there is one.
    ///
    /// # Errors
    /// [`Stop::Missing`], naming the host and what to do.
    pub(crate) fn new(cluster: Cluster) -> anyhow::Result<Self> {
        let program = Program::own()?;
        let jump = cluster.jump.as_ref().map(jump).transpose()?;
        Ok(Self { cluster, program, jump })
    }

    /// The switch's command line.
    ///
    /// # Errors
    /// [`Stop::Missing`], naming the host and what to do.
    pub(crate) fn switch_console(&self, access: &Access) -> anyhow::Result<SwitchConsole> {
        SwitchConsole::open(access, self.jump.as_ref())
    }

    /// The cluster.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// An agent on a node, by a new connection; and what it says about itself.
    ///
    /// # Errors
    /// [`Stop::Missing`], naming the host and what to do.
    pub(crate) fn agent(&self, node: usize) -> anyhow::Result<(Agent, Greeting)> {
        let machine = &self.cluster.machines[node];
        let agent = deploy::agent(machine, &self.program, self.jump.as_ref())?;
        let greeting = greet(&agent, machine, self.cluster.silence)?;
        Ok((agent, greeting))
    }

    /// Agents on the first `nodes` nodes, all at once. Errors are told of every node.
    pub(crate) fn agents(&self, nodes: usize) -> Vec<anyhow::Result<(Arc<Agent>, Greeting)>> {
        let one = |node: usize| self.agent(node).map(|(agent, greeting)| (Arc::new(agent), greeting));
        thread::scope(|scope| {
            let threads: Vec<_> = (0..nodes).map(|node| scope.spawn(move || one(node))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("its thread has panicked"))))
                .collect()
        })
    }
}

/// Who an agent is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Greeting {
    /// The machine's name for itself.
    pub(crate) host: String,
    /// Release of its kernel.
    pub(crate) kernel: String,
    /// Process id of the agent.
    pub(crate) pid: u32,
    /// How far its clock is ahead of ours, seconds.
    pub(crate) clock_offset_s: f64,
    /// How wrong that may be, seconds.
    pub(crate) clock_error_s: f64,
}

fn greet(agent: &Agent, machine: &Machine, silence: Duration) -> anyhow::Result<Greeting> {
    let before = agent::now_s();
    let hello = Order::Hello { version: wire::VERSION, silence_s: silence.as_secs_f64() };
    let host = &machine.access.host;
    let answer = agent.ask(&hello, QUICK).with_context(|| format!("{host}: greeting its agent"))?;
    let after = agent::now_s();
    let News::Hello { host, kernel, pid, clock_s, .. } = answer else {
        return Err(Stop::Missing(format!("{host}: its agent answers something else: {answer:?}")).into());
    };
    let (clock_offset_s, clock_error_s) = (clock_s - (before + after) / 2.0, (after - before) / 2.0);
    Ok(Greeting { host, kernel, pid, clock_offset_s, clock_error_s })
}

/// The jump host's session.
fn jump(access: &Access) -> anyhow::Result<Pump> {
    let Connection { session, socket } = connect::open(access, None).context("the jump host")?;
    Ok(Pump::start(session, socket, None)?.0)
}
