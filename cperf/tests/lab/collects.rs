//! How fast files of nodes come, beside scp with the same files of the same machines: no test, as it depends on the
//! machine, but the same cluster. `CPERF_SSH_COLLECT=4,100 cargo test -p cperf --test ssh` has 4 nodes with 100 MB each;
//! the program is that of the tests, or the one that CPERF names.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::lab::{control, kill};
use super::{Lab, Result, start};

/// Rounds, in which both take turns; medians count.
const ROUNDS: usize = 5;
/// A run that lasts until the files are there.
const LONG: [&str; 10] =
    ["w2", "--protocols", "tcp", "--slowdown", "fixed", "--seconds", "60", "--warmup", "0.1", "--gbps=0.005"];

pub(super) fn measure(sizes: &str) -> Result<()> {
    let numbers: std::result::Result<Vec<usize>, _> = sizes.split(',').map(str::parse).collect();
    let Ok([nodes, megabytes]) = numbers.as_deref() else {
        return Err(format!("CPERF_SSH_COLLECT={sizes}: nodes and MB of each are needed, like 4,100"));
    };
    let (nodes, megabytes) = (*nodes, *megabytes);
    let mut lab = Lab::build(nodes)?;
    let payload = noise(megabytes * 1_000_000);
    let mut times = [Vec::new(), Vec::new()];
    println!("{nodes} nodes with {megabytes} MB each");
    for _ in 0..ROUNDS {
        times[0].push(by_cperf(&mut lab, nodes, &payload)?);
        times[1].push(by_scp(&mut lab, nodes, &payload)?);
    }
    let bytes = (nodes * payload.len()) as f64;
    for (name, times) in ["cperf", "scp"].into_iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let all: Vec<_> = times.iter().map(|time| format!("{time:.2}")).collect();
        println!("{name:5}  {:7.0} MB/s  median of {} s", bytes / times[ROUNDS / 2] / 1e6, all.join(" "));
    }
    println!("ratio {:.2}", times[1][ROUNDS / 2] / times[0][ROUNDS / 2]);
    Ok(())
}

/// Bytes that nothing can make smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

/// Name of a node's file.
fn name(node: usize) -> String {
    format!("payload{node}")
}

/// From the first byte that comes to the last whole file, s, after Ctrl-C, which has a run collect what there is.
fn by_cperf(lab: &mut Lab, nodes: usize, payload: &[u8]) -> Result<f64> {
    let cluster = lab.cluster(nodes, "", |_| String::new())?;
    let out = lab.fresh("out");
    let child = start(lab, &cluster, &LONG, &out).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|err| err.to_string())?;
    let (mut seconds, mut said) = (None, String::new());
    for line in BufReader::new(child.stderr.take().ok_or("no standard error")?).lines() {
        let line = line.map_err(|err| err.to_string())?;
        if line.contains("measuring") && seconds.is_none() {
            for node in 0..nodes {
                write(&directory(lab, node)?.join(name(node)), payload)?;
            }
            kill("INT", child.id());
            seconds = Some(await_files(&out, nodes)?);
        }
        said += &(line + "\n");
    }
    let _ = child.wait();
    whole(&out, nodes, payload)?;
    fs::remove_dir_all(&out).map_err(|err| err.to_string())?;
    seconds.ok_or(said)
}

/// How long it takes from the beginning of the first of the files until all are whole, s.
fn await_files(out: &Path, nodes: usize) -> Result<f64> {
    let (started, mut first) = (Instant::now(), None);
    while started.elapsed() < Duration::from_secs(120) {
        let there = |node: usize| out.join(name(node)).exists();
        let coming = |node: usize| there(node) || out.join(format!("{}.part", name(node))).exists();
        if (0..nodes).any(coming) {
            first.get_or_insert_with(Instant::now);
        }
        if let Some(first) = first.filter(|_| (0..nodes).all(there)) {
            return Ok(first.elapsed().as_secs_f64());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err("the files never came".to_owned())
}

/// Where a node's files of the present run are on its machine.
fn directory(lab: &Lab, node: usize) -> Result<PathBuf> {
    let runs = fs::read_dir(lab.directory().join("runs")).map_err(|err| err.to_string())?.flatten();
    let end = format!("-node{node}");
    let found = runs.map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with(&end));
    found.ok_or_else(|| format!("node {node} has no directory"))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = fs::File::create(path).map_err(|err| err.to_string())?;
    file.write_all(bytes).map_err(|err| err.to_string())
}

fn whole(dir: &Path, nodes: usize, payload: &[u8]) -> Result<()> {
    for node in 0..nodes {
        let come = fs::read(dir.join(name(node))).map_err(|err| err.to_string())?;
        if come != payload {
            return Err(format!("the file of node {node} is another one"));
        }
    }
    Ok(())
}

/// From starting an scp for each machine to the end of the last, s.
fn by_scp(lab: &mut Lab, nodes: usize, payload: &[u8]) -> Result<f64> {
    let (from, to) = (lab.fresh("scp-from"), lab.fresh("scp-to"));
    fs::create_dir_all(&from).and_then(|()| fs::create_dir_all(&to)).map_err(|err| err.to_string())?;
    for node in 0..nodes {
        write(&from.join(name(node)), payload)?;
    }
    let begun = Instant::now();
    let scp = |node: usize| {
        let mut command = Command::new("scp");
        // Its own protocol: these sshds have no sftp.
        command
            .args(["-O", "-q", "-P", "2222", "-o"])
            .arg(format!("UserKnownHostsFile={}", lab.known_hosts().display()));
        command.arg("-i").arg(lab.dir.join("home/.ssh/id_ed25519"));
        command.arg(format!("tester@{}:{}", control(node), from.join(name(node)).display())).arg(&to);
        command.stdin(Stdio::null()).spawn().map_err(|err| format!("scp: {err}"))
    };
    let running = (0..nodes).map(scp).collect::<Result<Vec<_>>>()?;
    for mut scp in running {
        let status = scp.wait().map_err(|err| err.to_string())?;
        if !status.success() {
            return Err(format!("scp: {status}"));
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    whole(&to, nodes, payload)?;
    fs::remove_dir_all(from).and_then(|()| fs::remove_dir_all(to)).map_err(|err| err.to_string())?;
    Ok(seconds)
}
