//! What a run measures, one after the other: times without load, then each protocol (or all together). What fails is
//! measured again or left out as the policy says, with nodes that are started anew.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

use super::phase::{self, Part};
use super::{EXIT_LIMIT, Protocol, RunArgs};
use crate::error::{self, Stop};
use crate::journal::Journal;
use crate::node::Nodes;
use crate::outdir::OutDir;
use crate::policy::{Attempt, Next, Patience, Policy, Round, State, note, now, pause};
use crate::signals::Interrupt;
use crate::testbed::Testbed;

/// A run on nodes that can fail.
pub(super) struct Rounds<'a> {
    pub(super) options: &'a RunArgs,
    pub(super) testbed: &'a mut dyn Testbed,
    pub(super) interrupt: Interrupt,
    pub(super) journal: &'a mut Journal,
    pub(super) out: &'a OutDir,
    patience: Patience,
    nodes: Option<Nodes>,
    /// Nodes that something of is missing here since they have failed; `None`: none has failed since they were made ready.
    failed: Option<Vec<usize>>,
    /// What was measured.
    pub(super) parts: Vec<Part>,
    /// What was odd and ended nothing.
    pub(super) remarks: Vec<String>,
    /// What became of each.
    pub(super) account: Vec<Round>,
}

impl<'a> Rounds<'a> {
    /// Nothing yet. The nodes of `testbed` can be used.
    pub(super) fn new(
        options: &'a RunArgs,
        policy: Policy,
        testbed: &'a mut dyn Testbed,
        interrupt: Interrupt,
        journal: &'a mut Journal,
        out: &'a OutDir,
    ) -> Self {
        let mut patience = Patience::new(policy);
        patience.worked();
        let (parts, remarks, account) = Default::default();
        let (nodes, failed) = (None, None);
        Self { options, testbed, interrupt, journal, out, patience, nodes, failed, parts, remarks, account }
    }

    /// Measures all of it. Nodes still run, or what is left of them does.
    ///
    /// # Errors
    /// [`Stop::Incomplete`] if something was left out, or what ended the run.
    pub(super) fn all(&mut self) -> anyhow::Result<()> {
        let options = self.options;
        if options.slowdown.needs_unloaded() {
            self.round(&[])?;
        }
        let at_once = if options.together { options.protocols.len() } else { 1 };
        options.protocols.chunks(at_once).try_for_each(|protocols| self.round(protocols))?;
        let left_out = self.account.iter().filter(|round| round.state == State::LeftOut);
        let left_out: Vec<_> = left_out.map(Round::text).collect();
        if left_out.is_empty() { Ok(()) } else { Err(Stop::Incomplete(left_out.join("; ")).into()) }
    }

    /// Ends the nodes, having looked at them once more.
    pub(super) fn end(&mut self) {
        if let Some(mut nodes) = self.nodes.take() {
            nodes.observe();
            self.remarks.extend_from_slice(nodes.remarks());
            nodes.end(EXIT_LIMIT);
        }
    }

    /// These protocols, or without any the times without load, until they are measured or left out.
    fn round(&mut self, protocols: &[Protocol]) -> anyhow::Result<()> {
        self.patience.renew();
        self.account.push(Round { what: phase::names(protocols), state: State::Open, attempts: Vec::new() });
        loop {
            let (started, begun, before) = (now(), Instant::now(), self.parts.len());
            let Err(err) = self.attempt(protocols) else {
                self.patience.worked();
                self.now(State::Measured);
                return Ok(());
            };
            let elapsed = begun.elapsed();
            let next = self.patience.after(error::code(&err), elapsed);
            if next == Next::End {
                self.failed(Attempt::failed(started, elapsed, &err, None));
                return Err(err);
            }
            self.end();
            let missing = self.testbed.collect(self.out.path());
            missing.iter().for_each(|(node, err)| self.journal.say(&format!("node {node}: {err:#}")));
            let kept = missing.into_iter().map(|(node, _)| node);
            self.failed.get_or_insert_default().extend(kept);
            // What was measured by an attempt that was the last is shown as such.
            let files = if next == Next::LeaveOut { None } else { set_aside(self.out, self.options, protocols)? };
            self.failed(Attempt::failed(started, elapsed, &err, files));
            let what = match next {
                Next::Again | Next::End => "it is measured again",
                Next::Wait => "its nodes are waited for",
                Next::LeaveOut => "it is left out",
            };
            self.journal.say(&format!("{err:#}: {what}"));
            match next {
                Next::LeaveOut => {
                    self.now(State::LeftOut);
                    return Ok(());
                }
                Next::Wait => pause(&self.interrupt)?,
                Next::Again | Next::End => {}
            }
            self.parts.truncate(before);
        }
    }

    /// Once, on nodes that are made ready and started if they are not.
    fn attempt(&mut self, protocols: &[Protocol]) -> anyhow::Result<()> {
        if let Some(missing) = &self.failed {
            self.testbed.renew(missing).context("making the nodes ready again")?;
            self.failed = None;
        }
        let begun = self.nodes.is_some();
        let nodes = self.nodes.get_or_insert_with(|| Nodes::new(self.out.path(), self.interrupt.clone()));
        if !begun {
            phase::start(self.options, nodes, self.testbed, self.out).context("while starting the nodes")?;
        }
        phase::round(self.options, nodes, self.testbed, self.journal, &mut self.parts, self.out, protocols)
    }

    fn now(&mut self, state: State) {
        self.account.iter_mut().last().into_iter().for_each(|round| round.state = state);
    }

    fn failed(&mut self, attempt: Attempt) {
        self.account.iter_mut().last().into_iter().for_each(|round| note(&mut round.attempts, attempt.clone()));
    }
}

/// Puts the files of an attempt where the next one does not write. Returns the place, if there were any.
fn set_aside(out: &OutDir, options: &RunArgs, protocols: &[Protocol]) -> anyhow::Result<Option<String>> {
    let stems: Vec<_> = protocols.iter().map(|one| phase::experiment(*one, &options.workload) + "-").collect();
    let traces = protocols.contains(&Protocol::Homa);
    let belongs = |path: &Path| {
        let name = path.to_string_lossy();
        stems.iter().any(|stem| name.starts_with(stem.as_str()))
            || traces && name.starts_with("traces/")
            || protocols.is_empty() && name.starts_with("unloaded.")
            || name.starts_with("node") && (name.ends_with(".log") || name.ends_with(".stderr"))
    };
    let all = out.files().context("listing the files of an attempt")?;
    let files: Vec<_> = all.into_iter().filter(|path| belongs(path)).collect();
    if files.is_empty() {
        return Ok(None);
    }
    let mut places = (1..).map(|number: u32| format!("failed/{number}"));
    let place = places.find(|place| !out.path().join(place).exists()).expect("numbers do not end");
    for file in files {
        let to = out.path().join(&place).join(&file);
        let moved = to.parent().map_or(Ok(()), fs::create_dir_all);
        let moved = moved.and_then(|()| fs::rename(out.path().join(&file), &to));
        moved.with_context(|| format!("moving {} to {place}", file.display()))?;
    }
    Ok(Some(place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn files_of_an_attempt_go_aside_and_those_of_others_stay() {
        let dir = std::env::temp_dir().join(format!("cperf-rounds-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let out = OutDir::create(&dir, &["traces"]).unwrap();
        let cli = Cli::read("cperf run w2 --testbed netns".split_whitespace()).unwrap();
        let Command::Run(options) = cli.command else { unreachable!("it is a run") };
        let names = ["homa_w2-0.rtts", "tcp_w2-0.rtts", "traces/node0.tt", "node0.log", "cperf.log", "unloaded.rtts"];
        names.iter().for_each(|name| out.write(name, b"x").unwrap());
        assert_eq!(set_aside(&out, &options, &[Protocol::Tcp]).unwrap().as_deref(), Some("failed/1"));
        assert_eq!(set_aside(&out, &options, &[Protocol::Tcp]).unwrap(), None);
        assert_eq!(set_aside(&out, &options, &[Protocol::Homa]).unwrap().as_deref(), Some("failed/2"));
        let left: Vec<_> = out.files().unwrap().iter().map(|path| path.display().to_string()).collect();
        let want = [
            "cperf.log",
            "failed/1/node0.log",
            "failed/1/tcp_w2-0.rtts",
            "failed/2/homa_w2-0.rtts",
            "failed/2/traces/node0.tt",
            "unloaded.rtts",
        ];
        assert_eq!(left, want);
        fs::remove_dir_all(dir).unwrap();
    }
}
