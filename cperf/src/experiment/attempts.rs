//! Measuring points on nodes that can fail: one after the other, each as often as the policy says, with an account of it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::account::{Account, set_aside};
use super::engine::dir;
use super::plan::{Point, describe};
use crate::error::{self, Stop};
use crate::policy::{Attempt, Next, Patience, State, now, pause};
use crate::signals::Interrupt;

/// Measures `points`, which are those of the experiment in `out` without a result, by `attempt`; notes in `account`, and on
/// disk, what came of each.
///
/// # Errors
/// [`Stop::Incomplete`] if points were left out, [`Stop::Interrupted`], [`Stop::Missing`] if the nodes cannot be used to
/// begin with, or why the point failed that ended all.
pub fn measure(
    points: &[&Point],
    out: &Path,
    account: &mut Account,
    interrupt: &Interrupt,
    attempt: impl FnMut(&Point, &Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let patience = Patience::new(account.policy);
    let mut call = Call { out: out.to_owned(), account, interrupt, patience, attempt };
    let outcome = points.iter().enumerate().try_for_each(|(at, point)| {
        eprintln!("cperf: point {} of {}: {}, seed {}", at + 1, points.len(), describe(&point.varied), seed(point));
        call.point(point)
    });
    let account = call.account;
    let outcome = outcome.and_then(|()| match account.left_out() {
        0 => Ok(()),
        some => {
            let all = account.points.len();
            let text = format!(
                "{some} of {all} points were left out (above, and in the report: why); the same command tries them again"
            );
            Err(Stop::Incomplete(text).into())
        }
    });
    account.end(&outcome);
    account.write(out)?;
    outcome
}

/// One call of the program.
struct Call<'a, A> {
    out: PathBuf,
    account: &'a mut Account,
    interrupt: &'a Interrupt,
    patience: Patience,
    attempt: A,
}

impl<A: FnMut(&Point, &Path) -> anyhow::Result<()>> Call<'_, A> {
    /// Until it is measured or left out.
    fn point(&mut self, point: &Point) -> anyhow::Result<()> {
        let dir = dir(&self.out, &point.id);
        if let Some(files) = set_aside(&self.out, &dir)? {
            self.account.failed(&point.id, &Attempt::killed(files));
        }
        self.patience.renew();
        loop {
            let (started, begun) = (now(), Instant::now());
            let Err(err) = (self.attempt)(point, &dir) else {
                self.patience.worked();
                self.account.set(&point.id, State::Measured);
                return self.account.write(&self.out);
            };
            let (code, elapsed) = (error::code(&err), begun.elapsed());
            let next = self.patience.after(code, elapsed);
            let files = set_aside(&self.out, &dir)?;
            let mut attempt = Attempt::failed(started, elapsed, &err, files);
            if let Some(files) = &attempt.files {
                let (from, to) = (dir.join("runs"), self.out.join(files));
                attempt.reason = attempt.reason.replace(&from.display().to_string(), &to.display().to_string());
            }
            self.account.failed(&point.id, &attempt);
            if next == Next::LeaveOut {
                self.account.set(&point.id, State::LeftOut);
            }
            self.account.write(&self.out)?;
            let what = match next {
                Next::Again => "it is measured again",
                Next::Wait => "its nodes are waited for",
                Next::LeaveOut => "it is left out",
                Next::End => return Err(err),
            };
            eprintln!("cperf: {}, seed {}: {}: {what}", describe(&point.varied), seed(point), attempt.reason);
            match next {
                Next::LeaveOut => return Ok(()),
                Next::Wait => pause(self.interrupt)?,
                Next::Again | Next::End => {}
            }
        }
    }
}

fn seed(point: &Point) -> u64 {
    point.spec.sim.seed
}
