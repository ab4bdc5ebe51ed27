//! What else a run's directory tells: which nodes took part, for how long, with which options; throughput in time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Facts about a run; empty where nothing tells them.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Nodes of the run by the manifest or the orchestrator's log.
    pub nodes: Vec<u64>,
    /// Length of the measured interval as planned, seconds.
    pub seconds: Option<f64>,
    /// Packets lost on purpose, a share.
    pub loss: f64,
    /// Nodes are simulated: their intervals begin and end at the same moment.
    pub simulated: bool,
    /// Options by name.
    pub options: BTreeMap<String, String>,
    /// Completed RPCs a second, second by second, as each node's log has them: by experiment and node.
    pub series: BTreeMap<(String, u64), Vec<f64>>,
}

/// Options that differ from run to run without making them different measurements.
const INDIFFERENT: [&str; 8] = ["seed", "seeds", "out", "threads", "format", "simulated", "dry_run", "given"];

impl Facts {
    /// Reads what the directory has; what is missing or broken tells nothing.
    pub fn read(dir: &Path) -> Self {
        let mut facts = Self::default();
        if let Some(manifest) = json(&dir.join("manifest.json")) {
            facts.manifest(&manifest);
        } else if let Some(log) =
            ["reports/cperf.log", "cperf.log"].iter().find_map(|name| fs::read_to_string(dir.join(name)).ok())
        {
            facts.original(&log);
        }
        let Ok(entries) = fs::read_dir(dir) else { return facts };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let node = name.to_str().and_then(|name| name.strip_prefix("node")?.strip_suffix(".log")?.parse().ok());
            if let (Some(node), Ok(text)) = (node, fs::read_to_string(entry.path())) {
                facts.log(node, &text);
            }
        }
        facts
    }

    fn manifest(&mut self, manifest: &Value) {
        let options = &manifest["options"];
        self.nodes = (0..options["nodes"].as_u64().unwrap_or(0)).collect();
        self.seconds = options["seconds"].as_f64().filter(|&seconds| seconds > 0.0);
        self.loss = options["loss"].as_f64().unwrap_or(0.0);
        self.simulated = options["testbed"] == "sim";
        for (name, value) in options.as_object().into_iter().flatten() {
            if !INDIFFERENT.contains(&name.as_str()) {
                self.options.insert(name.clone(), value.to_string().trim_matches('"').to_owned());
            }
        }
    }

    /// The originals' log: `Options: --clients: [0, 1], --mtu: 0, ...`.
    fn original(&mut self, log: &str) {
        let Some((_, line)) = log.lines().find_map(|line| line.split_once(" Options: ")) else { return };
        for part in line.split(", --") {
            let Some((name, value)) = part.trim_start_matches("--").split_once(": ") else { continue };
            if !["cperf_log", "log_dir", "plot_only", "verbose", "debug"].contains(&name) {
                self.options.insert(name.to_owned(), value.to_owned());
            }
            match name {
                "nodes" => {
                    self.nodes =
                        value.trim_matches(['[', ']']).split(", ").filter_map(|node| node.parse().ok()).collect()
                }
                "seconds" => self.seconds = value.parse().ok(),
                _ => {}
            }
        }
    }

    /// A node's log: `TIME homa_w4 clients: 0.20 Kops/sec, ...` each second; only those between the marks that measuring
    /// begins and ends, if there are such.
    fn log(&mut self, node: u64, text: &str) {
        for line in text.lines() {
            let Some((_, rest)) = line.split_once(' ') else { continue };
            if let Some(name) =
                rest.strip_prefix("Starting measurements for ").and_then(|rest| rest.strip_suffix(" experiment"))
            {
                self.series.insert((name.to_owned(), node), Vec::new());
            } else if let Some(name) =
                rest.strip_prefix("Ending measurements for ").and_then(|rest| rest.strip_suffix(" experiment"))
            {
                // Samples after the end, while senders stop, are not of the interval.
                if let Some(series) = self.series.remove(&(name.to_owned(), node)) {
                    self.series.insert((format!("{name}\0"), node), series);
                }
            } else if let Some((name, rates)) = rest.split_once(" clients: ") {
                let rate = rates.split_once(" Kops/sec").and_then(|(rate, _)| rate.trim().parse::<f64>().ok());
                if let (Some(rate), Some(series)) = (rate, self.series.get_mut(&(name.to_owned(), node))) {
                    series.push(1000.0 * rate);
                }
            }
        }
        self.series = std::mem::take(&mut self.series)
            .into_iter()
            .map(|((name, node), series)| ((name.trim_end_matches('\0').to_owned(), node), series))
            .collect();
    }
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_and_the_originals_logs_tell_nodes_time_and_options() {
        let mut facts = Facts::default();
        facts.manifest(&serde_json::json!({"options": {"nodes": 3, "seconds": 0.5, "loss": 0.01, "mtu": 1500, "testbed": "sim", "seed": 7}}));
        assert_eq!(
            (facts.nodes.as_slice(), facts.seconds, facts.loss, facts.simulated),
            (&[0, 1, 2][..], Some(0.5), 0.01, true)
        );
        assert_eq!((facts.options["mtu"].as_str(), facts.options.get("seed")), ("1500", None));
        let mut facts = Facts::default();
        facts.original("1.5 cperf starting\n1.6 Options: --client_max: 10, --clients: [0, 1], --mtu: 0, --nodes: [0, 1], --seconds: 6, --workload: w4\n");
        assert_eq!(
            (facts.nodes.as_slice(), facts.seconds, facts.options["mtu"].as_str()),
            (&[0, 1][..], Some(6.0), "0")
        );
    }

    #[test]
    fn throughput_is_that_of_the_measured_interval() {
        let mut facts = Facts::default();
        facts.log(
            2,
            "1.0 homa_w4 clients: 9.99 Kops/sec, x\n2.0 Starting measurements for homa_w4 experiment\n\
             3.0 homa_w4 servers: 7.00 Kops/sec, x\n3.0 homa_w4 clients: 0.20 Kops/sec, x\n4.0 homa_w4 clients: 0.25 Kops/sec, x\n\
             4.5 Ending measurements for homa_w4 experiment\n5.0 homa_w4 clients: 0.01 Kops/sec, x\n",
        );
        assert_eq!(facts.series[&("homa_w4".to_owned(), 2)], [200.0, 250.0]);
    }
}
