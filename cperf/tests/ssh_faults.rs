//! What happens to a run on machines reached by SSH when something breaks: {a node, its sshd, its link, its disk, its clock}
//! in {start-up, measurement, collection}; the table is in docs/ssh.md. Always: the right exit code, an account that names
//! the machine, what happened and the phase, what was measured kept with the checksums of the manifest, no process and no
//! file left on the machines, no setting changed.

mod faults;
mod lab;
mod veth;

use std::cell::RefCell;
use std::fs;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use faults::harm::{cut_link, fill_disk, kill_node, kill_session, processes, set_clock, stop_sshd};
use faults::interrupts::{once, twice};
use faults::points::{machine_stays_away, point_is_measured_again, protocol_is_measured_again};
use faults::{Result, Run, VICTIM, harmed, holds};
use lab::Lab;
use serde_json::json;

type Check = fn(&mut Lab) -> Result<()>;
type Harm = fn(&mut Run, &mut Lab) -> Result<()>;

const LINK: &str = "its data-plane interface veth0 has lost its link";
const CLOCK: &str = "its clock was set by about +3600 s";

const CHECKS: [(&str, Check); 24] = [
    ("a_node_killed_at_the_start", |lab| at_the_start(lab, kill_node, "signal 9")),
    ("an_sshd_killed_at_the_start", |lab| at_the_start(lab, kill_session, "the SSH connection to its agent has ended")),
    ("a_link_lost_at_the_start", |lab| at_the_start(lab, cut_link, LINK)),
    ("a_disk_full_at_the_start", |lab| at_the_start(lab, fill_disk, "its disk is full")),
    ("a_clock_that_is_an_hour_off_at_the_start_is_told_and_changes_nothing", clock_off),
    ("an_sshd_that_is_down_before_the_start", |lab| {
        before_the_start(lab, stop_sshd, "its port 2222 cannot be reached")
    }),
    ("a_link_that_is_down_before_the_start", |lab| before_the_start(lab, cut_link, "interface veth0 has no link")),
    ("a_disk_full_before_the_start", |lab| before_the_start(lab, fill_disk, "its disk is full")),
    ("a_node_killed_while_measuring", |lab| while_measuring(lab, kill_node, "node 1 died in `measuring`: signal 9")),
    ("an_sshd_killed_while_measuring", |lab| {
        while_measuring(lab, kill_session, "the SSH connection to its agent has ended")
    }),
    ("a_link_lost_while_measuring", |lab| while_measuring(lab, cut_link, LINK)),
    ("a_disk_full_while_measuring", |lab| while_measuring(lab, fill_disk, "its disk is full")),
    ("a_clock_set_while_measuring_is_told_and_changes_nothing", clock_set_while_measuring),
    ("a_node_killed_while_collecting", |lab| while_collecting(lab, kill_node, 1, "signal 9")),
    ("an_sshd_killed_while_collecting", |lab| {
        while_collecting(lab, kill_session, 1, "the SSH connection to its agent has ended")
    }),
    ("an_sshd_killed_while_files_come", sshd_killed_while_files_come),
    ("a_link_lost_while_collecting", |lab| while_collecting(lab, cut_link, 0, LINK)),
    ("a_disk_full_while_collecting", |lab| while_collecting(lab, fill_disk, 1, "No space left on device")),
    ("a_clock_set_while_collecting_is_told_and_changes_nothing", |lab| while_collecting(lab, set_clock, 0, CLOCK)),
    ("an_interrupt_in_each_phase_keeps_what_was_measured", once),
    ("a_second_interrupt_in_each_phase_ends_all_at_once", twice),
    ("a_protocol_is_measured_again_on_nodes_that_are_called_again", protocol_is_measured_again),
    ("a_point_is_measured_again_when_its_machine_is_back", point_is_measured_again),
    ("a_machine_that_stays_away_costs_its_points_alone", machine_stays_away),
];

fn main() -> ExitCode {
    let lab = match Lab::build(faults::NODES) {
        Ok(lab) => RefCell::new(lab),
        Err(why) => {
            eprintln!("cannot build a cluster: {why}");
            return ExitCode::FAILURE;
        }
    };
    veth::run_each(&CHECKS, |(name, _)| name, |(_, check)| check(&mut lab.borrow_mut()))
}

/// What is in the way is seen before the run begins, and named; nothing is made.
fn before_the_start(lab: &mut Lab, harm: Harm, says: &str) -> Result<()> {
    let mut run = Run::prepare(lab, "")?;
    let done = harm(&mut run, lab).and_then(|()| run.launch(lab, "0.1", "0.2"));
    let ended = run.finish();
    lab.set_data_link(VICTIM, true)?;
    lab.restart_sshd(VICTIM)?;
    let ended = done.and(ended)?;
    ended.told(3, &["1 of 3 nodes cannot be used", "node 1: 10.78.0.2: ", says])?;
    holds(!ended.run.out.exists(), || "a run that never was has left a directory".to_owned())?;
    ended.nothing_left(lab)
}

/// The node runs, and nothing is measured yet for long.
fn at_the_start(lab: &mut Lab, harm: Harm, says: &str) -> Result<()> {
    let mut run = Run::prepare(lab, "")?;
    run.launch(lab, "30", "1")?;
    let begun = Instant::now();
    let ended = harmed(run, lab, |run, lab| {
        run.await_text("tcp: starting servers")?;
        run.wait("a node", |run| processes(run).1.is_some())?;
        harm(run, lab)
    })?;
    ended.told(1, &["node 1", says])?;
    let phases = ["in the tcp run, while starting", "in the tcp run, while warming up"];
    holds(phases.iter().any(|phase| ended.text.contains(phase)), || ended.text.clone())?;
    holds(begun.elapsed() < Duration::from_secs(25), || format!("it took {:?}", begun.elapsed()))?;
    holds(ended.json["status"] == "failed" && ended.json["results"] == json!([]), || ended.json.to_string())?;
    ended.nothing_left(lab)
}

fn clock_off(lab: &mut Lab) -> Result<()> {
    let mut run = Run::prepare(lab, "clock_offset_s = 3600")?;
    run.launch(lab, "0.2", "0.5")?;
    let ended = run.finish()?;
    ended.told(0, &["node 1 (10.78.0.2): its clock is +3600.0 s off ours"])?;
    let offset = ended.json["manifest"]["testbed"]["machines"][VICTIM]["clock_offset_s"].as_f64();
    holds(offset.is_some_and(|s| (s - 3600.0).abs() < 5.0), || format!("{offset:?}"))?;
    ended.kept(&[0, 1, 2])?;
    ended.nothing_left(lab)
}

fn while_measuring(lab: &mut Lab, harm: Harm, says: &str) -> Result<()> {
    let mut run = Run::prepare(lab, "")?;
    run.launch(lab, "0.2", "30")?;
    let begun = Instant::now();
    let ended = harmed(run, lab, |run, lab| {
        run.await_text("tcp: measuring")?;
        std::thread::sleep(Duration::from_millis(500));
        harm(run, lab)
    })?;
    ended.told(1, &["in the tcp run, while measuring: node 1", says])?;
    holds(begun.elapsed() < Duration::from_secs(25), || format!("it took {:?}", begun.elapsed()))?;
    holds(ended.json["status"] == "failed", || ended.json["status"].to_string())?;
    // Who has a link no more, or an agent that still lives, has measured something too.
    let all = ended.run.out.join("tcp_w2-1.rtts").exists();
    ended.kept(if all { &[0, 1, 2] } else { &[0, 2] })?;
    ended.nothing_left(lab)
}

fn clock_set_while_measuring(lab: &mut Lab) -> Result<()> {
    let mut run = Run::prepare(lab, "")?;
    run.launch(lab, "0.2", "3")?;
    let ended = harmed(run, lab, |run, lab| {
        run.await_text("tcp: measuring")?;
        set_clock(run, lab)
    })?;
    ended.told(0, &["node 1, while measuring: ", CLOCK])?;
    ended.kept(&[0, 1, 2])?;
    ended.nothing_left(lab)
}

/// When the others write what they measured, and the victim, which was halted, is about to.
fn while_collecting(lab: &mut Lab, harm: Harm, code: i32, says: &str) -> Result<()> {
    let mut run = Run::prepare(lab, "")?;
    run.launch(lab, "0.2", "1")?;
    let ended = harmed(run, lab, |run, lab| {
        run.await_text("tcp: measuring")?;
        let node = processes(run).1.ok_or("no node")?;
        run.halt_until_counters(node)?;
        harm(run, lab)?;
        // Until it has been told by a heartbeat.
        std::thread::sleep(Duration::from_millis(1500));
        let _ = Command::new("sh").args(["-c", &format!("kill -CONT {node} 2>&1")]).output();
        Ok(())
    })?;
    let place = if code == 0 { "node 1, while collecting: " } else { "in the tcp run, while collecting: node 1" };
    ended.told(code, &[place, says])?;
    ended.kept(if code == 0 { &[0, 1, 2] } else { &[0, 2] })?;
    ended.nothing_left(lab)
}

/// The connection is lost in the middle of a file: it is opened again, and all is there.
fn sshd_killed_while_files_come(lab: &mut Lab) -> Result<()> {
    let mut run = Run::prepare(lab, "")?;
    run.launch(lab, "0.2", "1")?;
    let content: Vec<u8> = (0..8u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let (large, size) = (content.clone(), content.len() as u64);
    let ended = harmed(run, lab, move |run, lab| {
        run.await_text("tcp: measuring")?;
        let place = run.place(VICTIM).ok_or("the victim has no directory")?;
        fs::write(place.join("large"), large).map_err(|err| err.to_string())?;
        let part = run.out.join("large.part");
        run.wait("half a file", |_| part.metadata().is_ok_and(|about| about.len() > size / 8))?;
        kill_session(run, lab)?;
        let come = part.metadata().map_or(size, |about| about.len());
        holds(come < size, || "it had come already".to_owned())
    })?;
    ended.told(0, &["node 1 (10.78.0.2): lost: the SSH connection to its agent has ended", "opened again"])?;
    ended.kept(&[0, 1, 2])?;
    holds(fs::read(ended.run.out.join("large")).is_ok_and(|here| here == content), || "it is another file".to_owned())?;
    ended.nothing_left(lab)
}
