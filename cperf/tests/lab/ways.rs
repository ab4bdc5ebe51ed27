//! Other ways to machines, and other wants: IPv6 on both planes, an ordinary user who starts nodes by `sudo`, a
//! congestion control that the kernels lack.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;

use super::lab::control_v6;
use super::{Lab, Result, SHORT, both_measured, ended, holds, run, says, stderr};

/// Short, with both protocols.
const BOTH: [&str; 10] =
    ["w2", "--protocols", "homa,tcp", "--slowdown", "fixed", "--seconds", "0.5", "--warmup", "0.2", "--gbps=0.005"];

pub(super) fn ipv6(lab: &mut Lab) -> Result<()> {
    let data = |node: usize| format!("fd77::{:x}", node + 1);
    let each = |node: usize| format!("host = \"{}\"\naddress = \"{}\"", control_v6(node), data(node));
    let cluster = lab.cluster(3, "", each)?;
    let (output, out) = run(lab, &cluster, &BOTH)?;
    ended(&output, 0)?;
    let json: Value = serde_json::from_slice(&output.stdout).map_err(|err| err.to_string())?;
    both_measured(&json, &out, "w2", 3)?;
    let manifest = &json["manifest"];
    for node in 0..3 {
        let address = &manifest["nodes"][node]["address"];
        holds(*address == data(node), || format!("node {node} talks by {address}"))?;
        let host = &manifest["testbed"]["machines"][node]["host"];
        holds(*host == control_v6(node).to_string(), || format!("node {node} is controlled by {host}"))?;
    }
    // Doctors look at the same planes.
    let doctor = lab.cperf().args(["doctor", "--sends", "20", "--cluster"]).arg(&cluster).output();
    let doctor = doctor.map_err(|err| err.to_string())?;
    ended(&doctor, 0)?;
    // One data plane for all.
    let mixed = lab.cluster(2, "", |node| if node == 0 { each(0) } else { String::new() })?;
    let (output, _) = run(lab, &mixed, &SHORT)?;
    ended(&output, 2)?;
    lab.await_silence(Duration::from_secs(5))
}

/// There is no sudo that could make anybody root in the lab's user namespace. What stands in for it takes its words, may
/// want a password, and writes down whom it starts; without it the user has no privileges, as elsewhere.
pub(super) fn sudo(lab: &mut Lab) -> Result<()> {
    let plain = "prefix = [\"setpriv\", \"--ambient-caps\", \"-all\", \"--inh-caps\", \"-all\"]";
    let cluster = lab.cluster(2, plain, |_| String::new())?;
    let (output, out) = run(lab, &cluster, &BOTH)?;
    ended(&output, 3)?;
    says(&output, "2 of 2 nodes cannot be used")?;
    says(&output, "it lacks CAP_NET_RAW, which Homa's sockets need: set `prefix = [\"sudo\", \"-n\"]`")?;
    holds(!out.exists(), || "a run that never was has left a directory".to_owned())?;

    // A path that no shell may take apart.
    let place = lab.fresh("su do's");
    let said = |err: std::io::Error| err.to_string();
    fs::create_dir_all(&place).map_err(said)?;
    let (script, closed, log) = (place.join("sudo"), place.join("closed"), place.join("log"));
    let text = "#!/bin/sh\nhere=$(dirname \"$0\")\n[ \"$1\" = -n ] || exit 9\nshift\n[ ! -e \"$here/closed\" ] || { echo \
                'sudo: a password is required' >&2; exit 1; }\necho \"$@\" >> \"$here/log\"\nexec \"$@\"\n";
    fs::write(&script, text)
        .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
        .map_err(said)?;
    let prefix = format!("prefix = [\"{}\", \"-n\"]", script.display());
    let cluster = lab.cluster(2, &prefix, |_| String::new())?;
    fs::write(&closed, "").map_err(said)?;
    let (output, _) = run(lab, &cluster, &BOTH)?;
    ended(&output, 3)?;
    says(&output, "its agent does not start")?;
    says(&output, "sudo: a password is required")?;
    fs::remove_file(&closed).map_err(said)?;
    let (output, out) = run(lab, &cluster, &BOTH)?;
    ended(&output, 0)?;
    let started = fs::read_to_string(&log).map_err(said)?;
    let agents = started.lines().filter(|line| line.ends_with(" cp-node agent")).count();
    holds(agents == 2 && started.lines().count() == 2, || format!("started: {started}"))?;
    for node in 0..2 {
        let path = out.join(format!("homa_w2-{node}.rtts"));
        holds(fs::metadata(&path).is_ok_and(|about| about.len() > 0), || format!("nothing in {}", path.display()))?;
    }
    lab.await_silence(Duration::from_secs(5))
}

/// Whether this kernel, which is that of all machines here, takes DCTCP.
fn has_dctcp() -> bool {
    use rustix::net::{AddressFamily, SocketType, socket, sockopt};
    socket(AddressFamily::INET, SocketType::STREAM, None)
        .is_ok_and(|socket| sockopt::set_tcp_congestion(&socket, "dctcp").is_ok())
}

/// An experiment in which DCTCP comes first.
const EXPERIMENT: &str = "
name = 'controls'
title = 'Two congestion controls'
seeds = [1]
slowdown = 'fixed'
[fixed]
workload = 'w2'
gbps = 0.005
warmup_s = 0.1
measure_s = 0.3
[[vary]]
parameter = 'protocol'
values = ['dctcp', 'tcp']
";

pub(super) fn congestion_control(lab: &mut Lab) -> Result<()> {
    let cluster = lab.cluster(2, "", |_| String::new())?;
    let (output, out) = run(lab, &cluster, &[&SHORT[..], &["--tcp-cc", "no-such-cc"]].concat())?;
    ended(&output, 2)?;
    says(&output, "2 of 2 nodes cannot be used")?;
    says(&output, "its kernel has no TCP congestion control no-such-cc, only ")?;
    holds(!out.exists(), || "a run that never was has left a directory".to_owned())?;

    let words = ["w2", "--protocols", "tcp,dctcp", "--slowdown", "fixed", "--seconds", "0.3", "--gbps=0.005"];
    let (output, out) = run(lab, &cluster, &words)?;
    let has = has_dctcp();
    if has {
        ended(&output, 0)?;
        holds(out.join("dctcp_w2-1.rtts").is_file(), || "no samples of DCTCP".to_owned())?;
    } else {
        ended(&output, 2)?;
        for part in ["node 0: ", "node 1: ", "has no TCP congestion control dctcp", "`modprobe tcp_dctcp` as root"] {
            says(&output, part)?;
        }
        holds(!out.exists(), || "TCP alone was measured".to_owned())?;
    }

    // Of an experiment only its points are left out, without waiting for machines.
    let file = lab.fresh("controls.toml");
    fs::write(&file, EXPERIMENT).map_err(|err| err.to_string())?;
    let out = lab.fresh("out");
    let mut command = lab.cperf();
    command.arg("run").arg(&file).args(["--testbed", "ssh", "--cluster"]).arg(&cluster).arg("--out").arg(&out);
    let output = command.output().map_err(|err| err.to_string())?;
    let results = || -> usize {
        let points = fs::read_dir(out.join("points")).into_iter().flatten().flatten();
        points.filter(|point| point.path().join("result.json").is_file()).count()
    };
    if has {
        ended(&output, 0)?;
        holds(results() == 2, || stderr(&output))?;
    } else {
        ended(&output, 4)?;
        says(&output, "has no TCP congestion control dctcp")?;
        says(&output, "1 of 2 points were left out")?;
        holds(results() == 1, || format!("{} points: {}", results(), stderr(&output)))?;
    }
    lab.await_silence(Duration::from_secs(5))
}
