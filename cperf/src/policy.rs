//! What is done about a point that failed on nodes that can fail, as it is stated before a run and told after it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cli::{OnFailure, RunArgs};
use crate::error::{self, Stop};
use crate::manifest;
use crate::signals::Interrupt;

/// How often nodes that cannot be used are tried again.
const PAUSE: Duration = Duration::from_secs(2);
/// How often waiting code looks at the interrupt flag.
const SLICE: Duration = Duration::from_millis(50);
/// How often a point of an experiment is measured again, unless the command line says otherwise.
const RETRY: u32 = 1;
/// How long nodes are waited for, seconds, unless the command line says otherwise.
const WAIT_S: f64 = 300.0;

/// What is done about a point that failed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// How often it is measured again.
    pub retry: u32,
    /// What is done when it has failed as often as that.
    pub on_failure: OnFailure,
    /// How long nodes that cannot be used are waited for before that, seconds.
    pub wait_nodes_s: f64,
}

/// What became of a point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It was not tried, or not to its end.
    #[default]
    Open,
    /// It has a result.
    Measured,
    /// It failed, and the others went on.
    LeftOut,
}

/// A measurement that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Local time.
    pub started: String,
    /// How long it took.
    pub elapsed_s: f64,
    /// Of the same attempt one after the other: while nodes were waited for.
    pub times: u32,
    /// As a run of its own would have; null: it was killed.
    pub exit_code: Option<u8>,
    /// Why it failed: the node, what happened to it, and in which phase.
    pub reason: String,
    /// Directory with what it had measured, below that of all.
    pub files: Option<String>,
}

/// What became of one of the things that a run measures one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Protocols, or times without load.
    pub what: String,
    /// What became of it.
    pub state: State,
    /// Attempts that failed.
    pub attempts: Vec<Attempt>,
}

impl Round {
    /// In words: what happened, and what was done about it.
    pub fn text(&self) -> String {
        let state = match self.state {
            State::Open => "was not measured",
            State::Measured => "was measured all the same",
            State::LeftOut => "was left out",
        };
        let why = |one: &Attempt| match &one.files {
            Some(files) => format!("{} (files: {files})", one.reason),
            None => one.reason.clone(),
        };
        let why: Vec<_> = self.attempts.iter().map(why).collect();
        format!("{} {state} after {} failed: {}", self.what, attempts(self.attempts.len()), why.join("; "))
    }
}

fn attempts(count: usize) -> String {
    if count == 1 { "an attempt".to_owned() } else { format!("{count} attempts") }
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The same once more.
    Again,
    /// The same, when some time has passed.
    Wait,
    /// Without it.
    LeaveOut,
    /// Nothing.
    End,
}

/// Where a call is with its policy.
#[derive(Debug)]
pub struct Patience {
    policy: Policy,
    /// Of the point under way.
    retries: u32,
    waited: Duration,
    /// Nodes were usable at some time.
    begun: bool,
    /// Nodes were waited for in vain, and were not usable since.
    spent: bool,
}

impl Policy {
    /// That of the command line; what it does not say is that of experiments, or that of a run.
    ///
    /// # Errors
    /// [`Stop::Usage`] for a time that is none.
    pub fn of(args: &RunArgs, experiment: bool) -> Result<Self, Stop> {
        let (retry, on_failure) = if experiment { (RETRY, OnFailure::LeaveOut) } else { (0, OnFailure::Stop) };
        let wait_nodes_s = args.wait_nodes.unwrap_or(WAIT_S);
        if !(0.0..=1e6).contains(&wait_nodes_s) {
            let text = format!("--wait-nodes {wait_nodes_s}: expected seconds, from 0 to 1000000");
            return Err(Stop::Usage(text));
        }
        let on_failure = args.on_failure.unwrap_or(on_failure);
        Ok(Self { retry: args.retry.unwrap_or(retry), on_failure, wait_nodes_s })
    }

    /// In words.
    pub fn text(&self) -> String {
        let again = match self.retry {
            0 => "is not measured again".to_owned(),
            1 => "is measured once more".to_owned(),
            often => format!("is measured up to {often} times more"),
        };
        let then = match self.on_failure {
            OnFailure::LeaveOut => "is left out and the others go on",
            OnFailure::Stop => "ends all",
        };
        let wait = self.wait_nodes_s;
        // Of a run, a point is a protocol.
        format!("a point that fails {again}, nodes that cannot be used are waited for up to {wait} s, then it {then}")
    }
}

impl Attempt {
    /// That it failed now, after `elapsed`.
    pub fn failed(started: String, elapsed: Duration, err: &anyhow::Error, files: Option<String>) -> Self {
        let (exit_code, reason) = (Some(error::code(err)), format!("{err:#}"));
        Self { started, elapsed_s: elapsed.as_secs_f64(), times: 1, exit_code, reason, files }
    }

    /// What a run left that was killed.
    pub fn killed(files: String) -> Self {
        let reason = "it was killed, or this machine was switched off".to_owned();
        Self { started: String::new(), elapsed_s: 0.0, times: 1, exit_code: None, reason, files: Some(files) }
    }

    /// Takes `other`, the next one, in if it is the same again.
    fn absorbs(&mut self, other: &Self) -> bool {
        let same = self.exit_code == other.exit_code && self.reason == other.reason && other.files.is_none();
        if same {
            self.times += other.times;
            self.elapsed_s += other.elapsed_s;
        }
        same
    }
}

/// Notes one more attempt.
pub fn note(attempts: &mut Vec<Attempt>, attempt: Attempt) {
    if !attempts.last_mut().is_some_and(|last| last.absorbs(&attempt)) {
        attempts.push(attempt);
    }
}

/// Waits until nodes that could not be used are to be tried again.
///
/// # Errors
/// [`Stop::Interrupted`].
pub fn pause(interrupt: &Interrupt) -> Result<(), Stop> {
    let begun = Instant::now();
    while begun.elapsed() < PAUSE {
        if interrupt.is_set() {
            return Err(Stop::Interrupted);
        }
        std::thread::sleep(SLICE);
    }
    Ok(())
}

/// The local time.
pub fn now() -> String {
    manifest::now()
}

impl Patience {
    /// At the begin of a call.
    pub fn new(policy: Policy) -> Self {
        Self { policy, retries: policy.retry, waited: Duration::ZERO, begun: false, spent: false }
    }

    /// Before the first attempt at a point.
    pub fn renew(&mut self) {
        (self.retries, self.waited) = (self.policy.retry, Duration::ZERO);
    }

    /// Nodes could be used.
    pub fn worked(&mut self) {
        (self.begun, self.spent) = (true, false);
    }

    /// What comes after a failure that took `elapsed`, by its exit code.
    pub fn after(&mut self, code: u8, elapsed: Duration) -> Next {
        match code {
            130 => return Next::End,
            // It is no node's fault, and would be refused again.
            2 => {}
            // Nothing has ever worked: it is the same for all points.
            3 if !self.begun => return Next::End,
            3 if !self.spent && self.waited.as_secs_f64() < self.policy.wait_nodes_s => {
                self.waited += elapsed + PAUSE;
                return Next::Wait;
            }
            3 => self.spent = true,
            _ => {
                self.worked();
                if self.retries > 0 {
                    self.retries -= 1;
                    return Next::Again;
                }
            }
        }
        match self.policy.on_failure {
            OnFailure::LeaveOut => Next::LeaveOut,
            OnFailure::Stop => Next::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { retry: 1, on_failure: OnFailure::LeaveOut, wait_nodes_s: 5.0 };
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_point_is_retried_as_often_as_said_then_left_out() {
        let mut patience = Patience::new(POLICY);
        let all = [1, 1].map(|code| patience.after(code, SECOND));
        assert_eq!(all, [Next::Again, Next::LeaveOut]);
        patience.renew();
        assert_eq!(patience.after(1, SECOND), Next::Again, "the next point has its own");
        let stop = Policy { retry: 0, on_failure: OnFailure::Stop, ..POLICY };
        assert_eq!(Patience::new(stop).after(1, SECOND), Next::End);
    }

    #[test]
    fn nodes_are_waited_for_only_if_they_were_there_and_only_once_in_vain() {
        assert_eq!(Patience::new(POLICY).after(3, SECOND), Next::End, "the cluster file is wrong, say");
        let mut patience = Patience::new(POLICY);
        patience.worked();
        // 3 s each with the pause.
        let all = [3, 3, 3].map(|code| patience.after(code, SECOND));
        assert_eq!(all, [Next::Wait, Next::Wait, Next::LeaveOut]);
        patience.renew();
        assert_eq!(patience.after(3, SECOND), Next::LeaveOut, "the next point is tried, but nobody waits again");
        patience.renew();
        patience.worked();
        assert_eq!(patience.after(3, SECOND), Next::Wait);
        assert_eq!(patience.after(1, SECOND), Next::Again, "waiting is no retry");
    }

    #[test]
    fn wrong_usage_is_not_tried_again_and_an_interrupt_ends_all() {
        let mut patience = Patience::new(POLICY);
        assert_eq!([2, 130].map(|code| patience.after(code, SECOND)), [Next::LeaveOut, Next::End]);
    }

    #[test]
    fn the_same_again_is_one_line_of_the_account() {
        let attempt = |files: Option<&str>| {
            let err = Stop::Missing("node 1: no link".into()).into();
            Attempt::failed("now".into(), SECOND, &err, files.map(str::to_owned))
        };
        let mut all = Vec::new();
        [attempt(None), attempt(None), attempt(Some("failed/1"))].into_iter().for_each(|one| note(&mut all, one));
        assert_eq!(all.iter().map(|one| one.times).collect::<Vec<_>>(), [2, 1]);
        assert_eq!((all[0].elapsed_s, all[0].exit_code), (2.0, Some(3)));
    }

    #[test]
    fn the_policy_is_stated_in_words() {
        let text = POLICY.text();
        assert!(
            text.contains("measured once more") && text.contains("up to 5 s") && text.contains("left out"),
            "{text}"
        );
    }
}
