//! What can break.

use std::fs;
use std::path::Path;

use super::super::lab::{self, Lab, kill};
use super::{Result, Run, VICTIM};

/// Ids of the victim's agent and node, if they run.
pub(crate) fn processes(run: &Run) -> (Option<u32>, Option<u32>) {
    let (disk, mut agent, mut node) = (&run.disks[VICTIM], None, None);
    for id in lab::processes() {
        // An agent is called by its path, a node works in its directory.
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let called = String::from_utf8_lossy(line.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
        if Path::new(&called).starts_with(disk) {
            agent = Some(id);
        } else if called == "/proc/self/exe"
            && fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|dir| dir.starts_with(disk))
        {
            node = Some(id);
        }
    }
    (agent, node)
}

pub(crate) fn kill_node(run: &mut Run, _: &mut Lab) -> Result<()> {
    run.wait("a node", |run| processes(run).1.is_some())?;
    kill("KILL", processes(run).1.ok_or("no node")?);
    Ok(())
}

/// The sshd process that has the victim's connection: the one above its agent.
pub(crate) fn kill_session(run: &mut Run, _: &mut Lab) -> Result<()> {
    run.wait("an agent", |run| processes(run).0.is_some())?;
    let agent = processes(run).0.ok_or("no agent")?;
    let mut id = agent;
    loop {
        let status = fs::read_to_string(format!("/proc/{id}/status")).map_err(|err| err.to_string())?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).unwrap_or_default().to_owned()
        };
        if field("Name:").starts_with("sshd") {
            kill("KILL", id);
            return Ok(());
        }
        id = field("PPid:").parse().map_err(|_| "no sshd above the agent")?;
    }
}

pub(crate) fn stop_sshd(_: &mut Run, lab: &mut Lab) -> Result<()> {
    lab.stop_sshd(VICTIM);
    Ok(())
}

pub(crate) fn cut_link(run: &mut Run, lab: &mut Lab) -> Result<()> {
    run.cut = true;
    lab.set_data_link(VICTIM, false)
}

pub(crate) fn fill_disk(run: &mut Run, _: &mut Lab) -> Result<()> {
    let file = run.disks[VICTIM].join("filler");
    // Until nothing fits any more.
    let mut file = fs::File::create(file).map_err(|err| err.to_string())?;
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    Ok(())
}

pub(crate) fn set_clock(run: &mut Run, _: &mut Lab) -> Result<()> {
    fs::write(&run.clock, "3600").map_err(|err| err.to_string())
}
