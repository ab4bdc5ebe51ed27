//! Ctrl-C: once ends a run cleanly and keeps what was measured, twice ends it at once, whatever hangs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::lab::{Lab, kill};
use super::harm::processes;
use super::{Ended, Result, Run, VICTIM, harmed, holds};

/// What a run is doing when it is interrupted.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Starting,
    Measuring,
    Collecting,
}
use Stage::{Collecting, Measuring, Starting};

pub(crate) fn once(lab: &mut Lab) -> Result<()> {
    for (stage, phase) in
        [(Starting, "while warming up"), (Measuring, "while measuring"), (Collecting, "while collecting")]
    {
        let ended = at(lab, stage, |run, node| {
            kill("INT", run.child.as_ref().ok_or("no run")?.id());
            if stage == Collecting {
                // Who was slow has not been given up.
                std::thread::sleep(Duration::from_secs(1));
                kill("CONT", node);
            }
            Ok(())
        })?;
        ended.told(130, &[phase, "interrupted by a signal"])?;
        holds(ended.json["status"] == "interrupted", || ended.json["status"].to_string())?;
        match stage {
            Starting => holds(ended.json["results"] == json!([]), || ended.json["results"].to_string())?,
            Measuring | Collecting => ended.kept(&[0, 1, 2])?,
        }
        ended.nothing_left(lab)?;
    }
    Ok(())
}

/// A node hangs, for which the first interrupt would wait.
pub(crate) fn twice(lab: &mut Lab) -> Result<()> {
    for stage in [Starting, Measuring, Collecting] {
        let mut second = Instant::now();
        let ended = at(lab, stage, |run, node| {
            let id = run.child.as_ref().ok_or("no run")?.id();
            if stage != Collecting {
                kill("STOP", node);
            }
            kill("INT", id);
            std::thread::sleep(Duration::from_secs(1));
            kill("INT", id);
            second = Instant::now();
            Ok(())
        })?;
        holds(ended.code == Some(130) && ended.json == Value::Null, || format!("{:?}: {}", ended.code, ended.text))?;
        holds(second.elapsed() < Duration::from_secs(2), || format!("it waited for {:?}", second.elapsed()))?;
        ended.machines_as_before(lab)?;
    }
    Ok(())
}

/// A run that `interrupt` is done to at that stage; its second argument is the victim's node, which is halted while others
/// collect.
fn at(lab: &mut Lab, stage: Stage, interrupt: impl FnOnce(&mut Run, u32) -> Result<()>) -> Result<Ended> {
    let mut run = Run::prepare(lab, "")?;
    let (warmup, seconds) = match stage {
        Starting => ("30", "1"),
        Measuring => ("0.2", "30"),
        Collecting => ("0.2", "1"),
    };
    run.launch(lab, warmup, seconds)?;
    harmed(run, lab, |run, _| {
        run.await_text(if stage == Starting { "tcp: starting servers" } else { "tcp: measuring" })?;
        // Until clients have begun.
        std::thread::sleep(Duration::from_millis(700));
        let node = processes(run).1.ok_or("no node")?;
        if stage == Collecting {
            run.halt_until_counters(node)?;
        }
        interrupt(run, node)
    })
}

impl Run {
    /// Halts the victim's node, and waits until the others have begun to write what they measured.
    pub(crate) fn halt_until_counters(&mut self, node: u32) -> Result<()> {
        kill("STOP", node);
        holds(processes(self).1 == Some(node), || format!("{node} is not the node of machine {VICTIM}"))?;
        self.wait("counters", |run| run.place(0).is_some_and(|dir| dir.join("tcp_w2-0.stats").exists()))
    }
}
