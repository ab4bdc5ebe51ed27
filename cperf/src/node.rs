//! Talks to the interactive `cp-node` of every node: a command goes to all of them first, then all prompts are awaited.
//! The prompt is the only acknowledgement; text before it is why the command failed. Source: cperf.md 1.1, 3.4.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::error::Stop;
use crate::signals::Interrupt;
use crate::testbed::{NodeProcess, ProcessHandle};

/// What `cp-node` writes when it is ready for a command.
const PROMPT: &[u8] = b"% ";
/// How often waiting code looks at the interrupt flag.
const SLICE: Duration = Duration::from_millis(50);
/// How long the cause of a node's failure is looked for among the others.
const CAUSE: Duration = Duration::from_millis(500);
/// More output than any error has; a node that babbles is cut off here.
const MOST_OUTPUT: usize = 64 * 1024;

/// Why the nodes did not do what they were told.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The command failed on that node.
    #[error("node {node}: `{command}` failed: {text}")]
    Command {
        /// Number of the node.
        node: usize,
        /// The line that it was sent.
        command: String,
        /// What it answered instead of a bare prompt.
        text: String,
    },
    /// The process on that node is gone.
    #[error("node {node} died in `{command}`: {how}{last_words}")]
    Died {
        /// Number of the node.
        node: usize,
        /// What it was doing, as far as we know.
        command: String,
        /// Exit status or signal.
        how: String,
        /// End of its log and of its standard error, or nothing.
        last_words: String,
    },
    /// Something is wrong with its machine.
    #[error("node {node}: {what}")]
    Trouble {
        /// Number of the node.
        node: usize,
        /// What.
        what: String,
    },
    /// No prompt in time.
    #[error("node {node}: no answer to `{command}` within {seconds:.0} s; its log may tell why: {log}")]
    Timeout {
        /// Number of the node.
        node: usize,
        /// The line that it was sent.
        command: String,
        /// How long it was waited for.
        seconds: f64,
        /// File name of its log.
        log: PathBuf,
    },
}

impl NodeError {
    /// The node that did not.
    pub fn node(&self) -> usize {
        match self {
            Self::Command { node, .. }
            | Self::Died { node, .. }
            | Self::Trouble { node, .. }
            | Self::Timeout { node, .. } => *node,
        }
    }
}

/// What a node's reader thread tells: bytes, or the end of its output.
type Heard = (usize, Option<Vec<u8>>);

/// One interactive `cp-node`.
struct Node {
    process: Box<dyn ProcessHandle>,
    stdin: Box<dyn Write + Send>,
    /// Output since the last command.
    heard: Vec<u8>,
    /// The command that it works on; `None`: it is at its prompt.
    busy: Option<String>,
    closed: bool,
    /// Found dead or hanging by [`Nodes::salvage`]: killed, and not listened to any more.
    given_up: bool,
    log: PathBuf,
    stderr: PathBuf,
}

/// All nodes of a run.
pub struct Nodes {
    nodes: Vec<Node>,
    receive: Receiver<Heard>,
    send: Sender<Heard>,
    interrupt: Interrupt,
    dir: PathBuf,
    /// What the run does.
    stage: &'static str,
    /// Trouble of a machine ends the run.
    strict: bool,
    /// What was odd and ended nothing.
    remarks: Vec<String>,
}

impl Nodes {
    /// No nodes yet; their files are in `dir`.
    pub fn new(dir: &Path, interrupt: Interrupt) -> Self {
        let (send, receive) = mpsc::channel();
        let (stage, strict, remarks) = ("starting", true, Vec::new());
        Self { nodes: Vec::new(), receive, send, interrupt, dir: dir.to_owned(), stage, strict, remarks }
    }

    /// Says what the run does from now on. `strict`: trouble of a machine ends it; else that is noted, as what was measured
    /// before is none the worse for it.
    pub fn enter(&mut self, stage: &'static str, strict: bool) {
        (self.stage, self.strict) = (stage, strict);
    }

    /// What the run does.
    pub fn stage(&self) -> &'static str {
        self.stage
    }

    /// What was odd so far and ended nothing.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Looks at all machines and notes what is odd: also nodes that have ended although nobody asked them to.
    pub fn observe(&mut self) {
        let mut found = Vec::new();
        for (number, node) in self.nodes.iter_mut().enumerate().filter(|(_, node)| !node.given_up && !node.closed) {
            let ended = node.process.ended().map(|how| format!("it died: {how}"));
            let odd = [ended.or_else(|| node.process.trouble()), node.process.oddity()];
            found.extend(odd.into_iter().flatten().map(|what| (number, what)));
        }
        found.into_iter().for_each(|(number, what)| self.remark(number, &what));
    }

    fn remark(&mut self, number: usize, what: &str) {
        // Each once, whatever figures are in it.
        let known = |one: &String| one.starts_with(&format!("node {number},")) && kind(one).ends_with(&kind(what));
        if !self.remarks.iter().any(known) {
            self.remarks.push(format!("node {number}, while {}: {what}", self.stage));
        }
    }

    /// Takes over the process of the next node; it counts as busy until its first prompt.
    pub fn add(&mut self, process: NodeProcess) {
        let NodeProcess { stdin, stdout, handle } = process;
        let number = self.nodes.len();
        let send = self.send.clone();
        std::thread::spawn(move || listen(number, stdout, &send));
        self.nodes.push(Node {
            process: handle,
            stdin,
            heard: Vec::new(),
            busy: Some("start".to_owned()),
            closed: false,
            given_up: false,
            log: self.dir.join(format!("node{number}.log")),
            stderr: self.dir.join(format!("node{number}.stderr")),
        });
    }

    /// Sends a command to each node that `command` has one for, then waits until all are done.
    ///
    /// # Errors
    /// The first [`NodeError`], or [`Stop::Interrupted`].
    pub fn tell(&mut self, limit: Duration, command: impl Fn(usize) -> Option<String>) -> anyhow::Result<()> {
        for number in 0..self.nodes.len() {
            if let Some(line) = command(number) {
                self.send(number, line)?;
            }
        }
        self.settle(limit)
    }

    /// Waits until every node is at its prompt.
    ///
    /// # Errors
    /// As [`Nodes::tell`].
    pub fn settle(&mut self, limit: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            self.check_prompts()?;
            let Some(number) = self.nodes.iter().position(|node| node.busy.is_some()) else { return Ok(()) };
            if start.elapsed() >= limit {
                let node = &self.nodes[number];
                let command = node.busy.clone().unwrap_or_default();
                let seconds = limit.as_secs_f64();
                return Err(NodeError::Timeout { node: number, command, seconds, log: node.log.clone() }.into());
            }
            self.hear(SLICE.min(limit))?;
            self.look()?;
        }
    }

    /// Lets time pass while the nodes work; `tick` is told how much has passed.
    ///
    /// # Errors
    /// A node that dies or speaks unasked ends the wait, as does an interrupt.
    pub fn pass(&mut self, time: Duration, mut tick: impl FnMut(Duration)) -> anyhow::Result<()> {
        let start = Instant::now();
        while let Some(left) = time.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            tick(start.elapsed());
            self.hear(SLICE.min(left))?;
            if let Some(number) = self.nodes.iter().position(|node| !node.heard.is_empty()) {
                return Err(self.failed(number).into());
            }
            self.look()?;
        }
        tick(time);
        Ok(())
    }

    /// Forgets the nodes that are dead or hang, so that the others can still be asked for what they measured, and
    /// ignores the interrupt from here on. Returns the numbers of the nodes that are left.
    pub fn salvage(&mut self, limit: Duration) -> Vec<usize> {
        self.interrupt = Interrupt::default();
        let start = Instant::now();
        while self.nodes.iter().any(|node| node.busy.is_some() && !node.closed) && start.elapsed() < limit {
            let _ = self.hear(SLICE); // a death is what we are looking for here, not a reason to stop
            for node in &mut self.nodes {
                if prompt_at_end(&node.heard).is_some() {
                    node.heard.clear();
                    node.busy = None;
                }
            }
        }
        for node in &mut self.nodes {
            let hangs = node.busy.take().is_some();
            if node.closed || hangs {
                node.given_up = true;
                node.heard.clear();
                node.process.kill(); // it must not disturb the others
            }
        }
        (0..self.nodes.len()).filter(|&number| !self.nodes[number].given_up).collect()
    }

    /// Ends all nodes: asks them to exit, gives them `limit`, then kills what is left.
    pub fn end(mut self, limit: Duration) {
        let start = Instant::now();
        for node in &mut self.nodes {
            let _ = node.stdin.write_all(b"exit\n").and_then(|()| node.stdin.flush()); // it may be dead already
        }
        while start.elapsed() < limit && self.nodes.iter_mut().any(|node| node.process.ended().is_none()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        for node in &mut self.nodes {
            node.process.kill();
            if node.stderr.metadata().is_ok_and(|about| about.len() == 0) {
                let _ = std::fs::remove_file(&node.stderr); // an empty file tells nothing
            }
        }
    }

    /// Process id of each node.
    pub fn ids(&self) -> Vec<Option<u32>> {
        self.nodes.iter().map(|node| node.process.id()).collect()
    }

    fn send(&mut self, number: usize, line: String) -> anyhow::Result<()> {
        let node = &mut self.nodes[number];
        node.heard.clear();
        let sent = writeln!(node.stdin, "{line}").and_then(|()| node.stdin.flush());
        node.busy = Some(line);
        match sent {
            Ok(()) => Ok(()),
            Err(_) => Err(self.died(number).into()), // a pipe breaks only when the reader has gone
        }
    }

    /// Whether all machines are well, as far as their testbed knows.
    fn look(&mut self) -> Result<(), NodeError> {
        let odd = |(number, node): (usize, &mut Node)| Some((number, node.process.oddity()?));
        let odd: Vec<_> = self.nodes.iter_mut().enumerate().filter_map(odd).collect();
        odd.into_iter().for_each(|(number, what)| self.remark(number, &what));
        if !self.strict {
            self.observe();
            return Ok(());
        }
        for (number, node) in self.nodes.iter_mut().enumerate() {
            if let Some(what) = node.process.trouble() {
                return Err(NodeError::Trouble { node: number, what });
            }
        }
        Ok(())
    }

    /// Takes what the nodes say within `limit`.
    fn hear(&mut self, limit: Duration) -> anyhow::Result<()> {
        if self.interrupt.is_set() {
            return Err(Stop::Interrupted.into());
        }
        match self.receive.recv_timeout(limit) {
            Ok((number, said)) if self.took(number, said.as_deref()) => Ok(()),
            Ok((number, _)) => Err(self.died(number).into()),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender ourselves"),
        }
    }

    /// Takes what a node said; false if that is its end.
    fn took(&mut self, number: usize, said: Option<&[u8]>) -> bool {
        let node = &mut self.nodes[number];
        if node.given_up {
            return true;
        }
        node.closed |= said.is_none();
        node.heard.extend_from_slice(said.unwrap_or_default());
        node.heard.truncate(MOST_OUTPUT);
        said.is_some()
    }

    /// Nodes that show a bare prompt are done; text before it is a failure.
    fn check_prompts(&mut self) -> Result<(), NodeError> {
        for number in 0..self.nodes.len() {
            let node = &mut self.nodes[number];
            match prompt_at_end(&node.heard) {
                Some(0) => {
                    node.heard.clear();
                    node.busy = None;
                }
                Some(_) => return Err(self.failed(number)),
                None => {}
            }
        }
        Ok(())
    }

    /// What a node says went wrong; or that another one has died or cannot be used, which those that talk to it notice
    /// first.
    fn failed(&mut self, number: usize) -> NodeError {
        let start = Instant::now();
        while start.elapsed() < CAUSE {
            match self.receive.recv_timeout(SLICE) {
                Ok((other, said)) if !self.took(other, said.as_deref()) && other != number => return self.died(other),
                _ => {}
            }
            if let Err(trouble) = self.look() {
                return trouble;
            }
        }
        let node = &mut self.nodes[number];
        let end = prompt_at_end(&node.heard).unwrap_or(node.heard.len());
        let text = String::from_utf8_lossy(&node.heard[..end]).trim().to_owned();
        node.heard.clear();
        NodeError::Command { node: number, command: node.busy.take().unwrap_or_else(|| "nothing".into()), text }
    }

    fn died(&mut self, number: usize) -> NodeError {
        let node = &mut self.nodes[number];
        node.closed = true;
        // Its output has ended; its exit is a matter of moments.
        let start = Instant::now();
        let how = loop {
            match node.process.ended() {
                Some(how) => break how,
                None if start.elapsed() > Duration::from_secs(1) => {
                    break "closed its output but still runs".to_owned();
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let last_words = last_lines(&node.stderr, 5) + &last_lines(&node.log, 3);
        let command = node.busy.clone().unwrap_or_else(|| self.stage.to_owned());
        NodeError::Died { node: number, command, how, last_words }
    }
}

/// A remark without its figures.
fn kind(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Passes a node's output on until it ends.
fn listen(number: usize, mut from: Box<dyn Read + Send>, to: &Sender<Heard>) {
    let mut buffer = vec![0; 4096];
    loop {
        let heard = match from.read(&mut buffer) {
            Ok(len) if len > 0 => Some(buffer[..len].to_vec()),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Ok(_) | Err(_) => None,
        };
        let last = heard.is_none();
        if to.send((number, heard)).is_err() || last {
            return;
        }
    }
}

/// Where the prompt starts, if `heard` ends with one at the start of a line; so "took 40 % " is no prompt.
fn prompt_at_end(heard: &[u8]) -> Option<usize> {
    let text = heard.strip_suffix(PROMPT)?;
    (text.is_empty() || text.ends_with(b"\n")).then_some(text.len())
}

/// The last `count` lines of a file, each on a line of its own after its name; empty if there is nothing.
fn last_lines(path: &Path, count: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| format!("\n  {name}: {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    struct Plain(Child);

    impl ProcessHandle for Plain {
        fn ended(&mut self) -> Option<String> {
            self.0.try_wait().unwrap().map(|status| status.to_string())
        }

        fn kill(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }

        fn id(&self) -> Option<u32> {
            Some(self.0.id())
        }
    }

    /// Nodes played by shell scripts.
    fn nodes(scripts: &[&str]) -> Nodes {
        let mut nodes = Nodes::new(Path::new("/nonexistent"), Interrupt::default());
        for script in scripts {
            let mut child =
                Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            nodes.add(NodeProcess { stdin: Box::new(stdin), stdout: Box::new(stdout), handle: Box::new(Plain(child)) });
        }
        nodes
    }

    const LONG: Duration = Duration::from_secs(20);
    /// Answers every command with a bare prompt.
    const GOOD: &str = "printf '%% '; while read line; do [ \"$line\" = exit ] && exit; printf '%% '; done";

    #[test]
    fn a_prompt_counts_only_at_the_start_of_a_line() {
        assert_eq!(prompt_at_end(b"% "), Some(0));
        assert_eq!(prompt_at_end(b"no such file\n% "), Some(13));
        assert_eq!(prompt_at_end(b"took 40 % "), None);
        assert_eq!(prompt_at_end(b"%"), None);
    }

    #[test]
    fn commands_are_acknowledged_by_prompts() {
        let mut nodes = nodes(&[GOOD, GOOD]);
        nodes.settle(LONG).unwrap();
        nodes.tell(LONG, |node| Some(format!("client --id {node}"))).unwrap();
        nodes.tell(LONG, |node| (node == 1).then(|| "stop clients".to_owned())).unwrap();
        nodes.end(LONG);
    }

    #[test]
    fn text_before_the_prompt_names_node_command_and_reason() {
        let bad = "printf '%% '; read line; printf 'no port left\\n%% '; sleep 60";
        let mut nodes = nodes(&[GOOD, bad]);
        nodes.settle(LONG).unwrap();
        let err = nodes.tell(LONG, |_| Some("server --ports 9".to_owned())).unwrap_err();
        assert_eq!(err.to_string(), "node 1: `server --ports 9` failed: no port left");
        nodes.end(Duration::from_millis(10));
    }

    #[test]
    fn a_dead_node_is_named_with_its_status_and_the_others_remain() {
        let mut nodes = nodes(&[GOOD, "printf '%% '; read line; exit 7"]);
        nodes.settle(LONG).unwrap();
        let err = nodes.tell(LONG, |_| Some("client".to_owned())).unwrap_err().to_string();
        assert!(err.starts_with("node 1 died in `client`: exit status: 7"), "{err}");
        assert_eq!(nodes.salvage(LONG), [0]);
        nodes.tell(LONG, |node| (node == 0).then(|| "dump_times x".to_owned())).unwrap();
        nodes.end(LONG);
    }

    #[test]
    fn a_silent_node_times_out() {
        let mut nodes = nodes(&["printf '%% '; read line; sleep 60"]);
        nodes.settle(LONG).unwrap();
        let err = nodes.tell(Duration::from_millis(100), |_| Some("client".to_owned())).unwrap_err().to_string();
        assert!(err.contains("node 0: no answer to `client`"), "{err}");
        assert!(nodes.salvage(Duration::from_millis(10)).is_empty());
        nodes.end(Duration::from_millis(10));
    }

    #[test]
    fn a_death_ends_a_measured_interval() {
        let mut nodes = nodes(&[GOOD, "printf '%% '; sleep 0.1"]);
        nodes.settle(LONG).unwrap();
        nodes.enter("measuring", true);
        let err = nodes.pass(LONG, |_| {}).unwrap_err().to_string();
        assert!(err.starts_with("node 1 died in `measuring`"), "{err}");
        nodes.end(LONG);
    }

    /// A machine that is in trouble.
    struct Ill(Plain);

    impl ProcessHandle for Ill {
        fn ended(&mut self) -> Option<String> {
            self.0.ended()
        }

        fn kill(&mut self) {
            self.0.kill();
        }

        fn id(&self) -> Option<u32> {
            None
        }

        fn trouble(&mut self) -> Option<String> {
            Some("its disk is full: 0 bytes are left".to_owned())
        }

        fn oddity(&mut self) -> Option<String> {
            Some("its clock was set".to_owned())
        }
    }

    #[test]
    fn trouble_ends_a_stage_that_is_strict_and_is_noted_once_in_others() {
        let mut nodes = nodes(&[GOOD]);
        nodes.settle(LONG).unwrap();
        let process =
            std::mem::replace(&mut nodes.nodes[0].process, Box::new(Plain(Command::new("true").spawn().unwrap())));
        drop(process);
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        nodes.nodes[0].process = Box::new(Ill(Plain(child)));
        nodes.enter("collecting", false);
        nodes.pass(SLICE * 3, |_| {}).unwrap();
        let want = [
            "node 0, while collecting: its clock was set",
            "node 0, while collecting: its disk is full: 0 bytes are left",
        ];
        assert_eq!(nodes.remarks(), want);
        nodes.enter("measuring", true);
        let err = nodes.pass(LONG, |_| {}).unwrap_err().to_string();
        assert!(err.starts_with("node 0: its disk is full"), "{err}");
        assert_eq!(nodes.remarks().len(), 2);
        nodes.end(Duration::from_millis(10));
    }
}
