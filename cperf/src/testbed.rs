//! Where nodes live. A testbed makes nodes, starts `cp-node` on them and removes everything again; what is run on it
//! and what is reported about it does not depend on its kind.

pub mod links;
pub mod netns;
mod privilege;
#[cfg(feature = "ssh")]
pub(crate) mod ssh;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::Path;

/// A process on a node, with its ends of the pipes.
pub struct NodeProcess {
    /// To the process's standard input.
    pub stdin: Box<dyn Write + Send>,
    /// From its standard output.
    pub stdout: Box<dyn Read + Send>,
    /// To watch and end it.
    pub handle: Box<dyn ProcessHandle>,
}

/// Control over a process on a node.
pub trait ProcessHandle: Send {
    /// How it ended, in words ("exit status 1", "signal 9 (SIGKILL)"); `None` while it runs.
    fn ended(&mut self) -> Option<String>;
    /// Ends it at once and waits until it is gone. Does nothing if it has ended already.
    fn kill(&mut self);
    /// Its process id where that means something to a reader of the log.
    fn id(&self) -> Option<u32>;
    /// What is wrong with its machine, in words, although it may still run; `None` if nothing is known.
    fn trouble(&mut self) -> Option<String> {
        None
    }
    /// What is odd about its machine and in nobody's way, in words.
    fn oddity(&mut self) -> Option<String> {
        None
    }
}

/// Nodes on which a benchmark runs. Dropping it removes everything that it made.
pub trait Testbed {
    /// As in `--testbed`.
    fn name(&self) -> &'static str;
    /// Number of nodes; they are numbered from 0.
    fn nodes(&self) -> usize;
    /// Data-plane address of a node.
    fn address(&self, node: usize) -> IpAddr;
    /// Name of the data-plane interface on a node.
    fn interface(&self, node: usize) -> &str;
    /// The same if `cp-node` has to be told, as there are several.
    fn named_interface(&self, _node: usize) -> Option<&str> {
        None
    }
    /// Starts `cp-node` with `args` on a node, in the directory `dir` there; standard error goes to the file
    /// `stderr` in it.
    ///
    /// `core`: keep the process on this core of its host.
    ///
    /// # Errors
    /// The process cannot be started; the message names the node.
    fn start(
        &mut self,
        node: usize,
        args: &[OsString],
        dir: &Path,
        stderr: &str,
        core: Option<usize>,
    ) -> anyhow::Result<NodeProcess>;
    /// What a reader of the results needs to know about this testbed; goes into the manifest.
    fn facts(&self) -> serde_json::Value;
    /// What happened at the switch's ports since the testbed was built; none if it does not count that.
    ///
    /// # Errors
    /// The counters cannot be read.
    fn ports(&mut self) -> anyhow::Result<Vec<links::PortCounts>> {
        Ok(Vec::new())
    }
    /// Has what nodes have written so far in `dir`, if their directory is another one. Returns the nodes of which
    /// something is missing, and why.
    fn collect(&mut self, _dir: &Path) -> Vec<(usize, anyhow::Error)> {
        Vec::new()
    }
    /// What is odd about machines and in nobody's way: their clocks, connections that had to be opened again.
    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }
    /// Makes all nodes ready to be started anew, after some of them have failed; what they have written, but that of `kept`, has
    /// been collected and goes.
    ///
    /// # Errors
    /// [`crate::error::Stop::Missing`] with everything that is in the way.
    fn renew(&mut self, _kept: &[usize]) -> anyhow::Result<()> {
        Ok(())
    }
    /// Removes what nodes but those of `kept` have written from their machines, if that is elsewhere; it has been
    /// collected. Returns the nodes where that failed, and why.
    fn remove(&mut self, _kept: &[usize]) -> Vec<(usize, anyhow::Error)> {
        Vec::new()
    }
}
