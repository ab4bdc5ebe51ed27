//! Experiments on machines of which one breaks: its points are measured again or left out, the others go on.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::lab::{self, Lab};
use super::harm::kill_session;
use super::{NODES, Result, Run, harmed, holds};

/// An experiment on the machines whose points are on the first two of them and on all.
fn experiment(lab: &mut Lab, out: &Path, words: &[&str]) -> Result<Child> {
    let text = "name = 'two'\ntitle = 'Two points'\nslowdown = 'fixed'\nseeds = [1]\n[fixed]\nworkload = 'w2'\n\
                protocol = 'tcp'\ngbps = 0.005\nwarmup_s = 0.1\nmeasure_s = 1\n\
                [[vary]]\nparameter = 'nodes'\nvalues = [3, 2]\n";
    let file = lab.fresh("two.toml");
    fs::write(&file, text).map_err(|err| err.to_string())?;
    let cluster = lab.cluster(NODES, "silence_s = 3\ntimeout_s = 1", |_| String::new())?;
    let mut command = lab.cperf();
    command.arg("run").arg(file).args(["--testbed", "ssh", "--cluster"]).arg(cluster).arg("--out").arg(out).args(words);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(|err| err.to_string())
}

/// The machine that only one of the points needs.
const LAST: usize = NODES - 1;

fn await_experiment(child: &mut Child, what: &str, done: impl Fn() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !done() {
        if begun.elapsed() > Duration::from_secs(40) || child.try_wait().is_ok_and(|status| status.is_some()) {
            return Err(format!("the experiment never came to {what}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn account(out: &Path) -> Value {
    fs::read(out.join("manifest.json")).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Whether a point of the experiment measures.
fn measures(out: &Path) -> bool {
    let points = fs::read_dir(out.join("points")).into_iter().flatten().flatten();
    let logs = points.map(|point| point.path().join("runs/run/cperf.log"));
    logs.into_iter().any(|log| fs::read_to_string(log).is_ok_and(|log| log.contains("tcp: measuring")))
}

pub(crate) fn point_is_measured_again(lab: &mut Lab) -> Result<()> {
    let out = lab.fresh("out");
    let mut child = experiment(lab, &out, &[])?;
    let done = await_experiment(&mut child, "measuring", || measures(&out))
        .and_then(|()| lab.set_data_link(LAST, false))
        // It has failed, and could not begin again.
        .and_then(|()| {
            let attempts = || account(&out)["points"][0]["attempts"].as_array().map_or(0, Vec::len);
            await_experiment(&mut child, "waiting", || attempts() >= 2)
        });
    lab.set_data_link(LAST, true)?;
    let output = child.wait_with_output().map_err(|err| err.to_string())?;
    let text = lab::stderr(&output);
    done.map_err(|why| format!("{why}: {text}"))?;
    holds(output.status.code() == Some(0), || text.clone())?;
    let account = account(&out);
    let codes: Vec<_> = (0..2).map(|at| account["points"][0]["attempts"][at]["exit_code"].clone()).collect();
    holds(codes == [json!(1), json!(3)], || account.to_string())?;
    holds(account["points"].as_array().is_some_and(|all| all.iter().all(|one| one["state"] == "measured")), || {
        account.to_string()
    })?;
    holds(text.contains("its nodes are waited for"), || text.clone())?;
    lab.await_silence(Duration::from_secs(8))
}

pub(crate) fn machine_stays_away(lab: &mut Lab) -> Result<()> {
    let out = lab.fresh("out");
    let mut child = experiment(lab, &out, &["--retry", "3", "--wait-nodes", "3"])?;
    let done = await_experiment(&mut child, "measuring", || measures(&out)).and_then(|()| {
        lab.stop_sshd(LAST);
        lab.set_data_link(LAST, false)
    });
    let output = child.wait_with_output().map_err(|err| err.to_string())?;
    lab.set_data_link(LAST, true)?;
    lab.restart_sshd(LAST)?;
    let text = lab::stderr(&output);
    done.map_err(|why| format!("{why}: {text}"))?;
    holds(output.status.code() == Some(4), || format!("{:?}: {text}", output.status.code()))?;
    let states = |account: &Value| [0, 1].map(|at| account["points"][at]["state"].clone());
    holds(states(&account(&out)) == [json!("left-out"), json!("measured")], || account(&out).to_string())?;
    let report = fs::read_to_string(out.join("report.html")).unwrap_or_default();
    holds(report.contains("its port 2222 cannot be reached") && report.contains("left out"), || report.clone())?;

    // The same once more, on machines that are well: what was left out alone.
    let plan = fs::read_to_string(out.join("experiment.toml")).unwrap_or_default();
    holds(plan.contains("Two points"), || plan.clone())?;
    let output = experiment(lab, &out, &[])?.wait_with_output().map_err(|err| err.to_string())?;
    let text = lab::stderr(&output);
    holds(output.status.code() == Some(0) && text.contains("2 points, 1 measured already"), || text.clone())?;
    holds(states(&account(&out)) == [json!("measured"), json!("measured")], || account(&out).to_string())?;
    lab.await_silence(Duration::from_secs(8))
}

/// Of a run with two protocols the first is measured again, by another connection, when the session's end has ended it.
pub(crate) fn protocol_is_measured_again(lab: &mut Lab) -> Result<()> {
    let mut run = Run::prepare(lab, "")?;
    run.launch_with(lab, &["--protocols", "tcp,homa", "--retry", "1", "--warmup", "0.1", "--seconds", "1"])?;
    let ended = harmed(run, lab, |run, lab| {
        run.await_text("tcp: measuring")?;
        std::thread::sleep(Duration::from_millis(300));
        kill_session(run, lab)
    })?;
    ended.told(0, &["the SSH connection to its agent has ended", "opened again"])?;
    holds(ended.text.contains("it is measured again"), || ended.text.clone())?;
    let manifest = &ended.json["manifest"];
    let states = [0, 1].map(|at| manifest["rounds"][at]["state"].clone());
    holds(states == [json!("measured"), json!("measured")], || manifest["rounds"].to_string())?;
    holds(manifest["rounds"][0]["attempts"][0]["files"] == "failed/1", || manifest["rounds"].to_string())?;
    ended.kept(&[0, 1, 2])?;
    let aside = [0, 2].iter().all(|node| ended.run.out.join(format!("failed/1/tcp_w2-{node}.rtts")).is_file());
    holds(aside, || "what the others had measured is gone".to_owned())?;
    ended.nothing_left(lab)
}
