//! How long it takes from the command until all nodes are ready, by the number of nodes: no test, as it depends on the
//! machine, but the same cluster. `CPERF_SSH_STARTS=5,10,20,40 cargo test -p cperf --test ssh`; the program is that of
//! the tests, or the one that CPERF names.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use super::{Lab, Result, SHORT, start};

/// Runs of each size; the median counts.
const RUNS: usize = 5;

pub(super) fn measure(sizes: &str) -> Result<()> {
    let sizes: std::result::Result<Vec<usize>, _> = sizes.split(',').map(str::parse).collect();
    let sizes = sizes.map_err(|err| format!("CPERF_SSH_STARTS={}: {err}", "sizes like 5,10,20,40"))?;
    let most = sizes.iter().copied().max().unwrap_or(2);
    let mut lab = Lab::build(most)?;
    once(&mut lab, 2)?; // copies the program
    println!("nodes  median_s  all_s");
    let mut medians = Vec::new();
    for &nodes in &sizes {
        let mut times = (0..RUNS).map(|_| once(&mut lab, nodes)).collect::<Result<Vec<_>>>()?;
        times.sort_by(f64::total_cmp);
        let all: Vec<_> = times.iter().map(|time| format!("{time:.2}")).collect();
        println!("{nodes:5}  {:8.2}  {}", times[RUNS / 2], all.join(" "));
        medians.push((nodes as f64, times[RUNS / 2]));
    }
    if let [(few, short), .., (many, long)] = medians[..] {
        println!("slope {:.0} ms a node", (long - short) / (many - few) * 1e3);
    }
    Ok(())
}

/// From starting the program until it says that all nodes are ready, s.
fn once(lab: &mut Lab, nodes: usize) -> Result<f64> {
    let cluster = lab.cluster(nodes, "", |_| String::new())?;
    let out = lab.fresh("out");
    let begun = Instant::now();
    let child = start(lab, &cluster, &SHORT, &out).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|err| err.to_string())?;
    let (mut ready, mut said) = (None, String::new());
    for line in BufReader::new(child.stderr.take().ok_or("no standard error")?).lines() {
        let line = line.map_err(|err| err.to_string())?;
        if line.contains("nodes are ready") {
            ready = Some(begun.elapsed().as_secs_f64());
            // What comes now is not measured.
            super::lab::kill("INT", child.id());
        }
        said += &(line + "\n");
    }
    let _ = child.wait();
    ready.ok_or(said)
}
