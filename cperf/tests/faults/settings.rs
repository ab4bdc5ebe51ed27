//! What machines are set to: nothing of it may change.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::super::lab::Lab;
use super::{NODES, Result};

/// Kernel parameters, MTU and queueing discipline.
pub(crate) type Settings = BTreeMap<String, String>;

/// Settings of all machines.
pub(super) fn settings(lab: &Lab) -> Result<Vec<Settings>> {
    let here = cperf::sys::Namespace::current().map_err(|err| err.to_string())?;
    let read = |node: usize| -> std::io::Result<Settings> {
        cperf::sys::enter(lab.net.namespace(node))?;
        let mut all = Settings::new();
        kernel_parameters(Path::new("/proc/sys/net"), &mut all);
        for words in [["ip", "-o", "link"], ["tc", "qdisc", "show"]] {
            let text = Command::new(words[0]).args(&words[1..]).output()?.stdout;
            let text = String::from_utf8_lossy(&text).into_owned();
            for line in text.lines() {
                let after = |name: &str| line.split_whitespace().skip_while(|word| *word != name).nth(1).unwrap_or("");
                let device = if words[0] == "tc" { after("dev") } else { line.split_whitespace().nth(1).unwrap_or("") };
                all.insert(format!("{} {device}", words[0]), format!("{} {}", after("mtu"), after("qdisc")));
            }
        }
        Ok(all)
    };
    let all: std::io::Result<Vec<_>> = (0..NODES).map(read).collect();
    cperf::sys::enter(&here).map_err(|err| err.to_string())?;
    all.map_err(|err| err.to_string())
}

/// Every parameter below a directory, but those that count something.
fn kernel_parameters(dir: &Path, all: &mut Settings) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.display().to_string();
        if path.is_dir() {
            kernel_parameters(&path, all);
        } else if !name.ends_with("count") {
            all.insert(name, fs::read_to_string(&path).unwrap_or_default());
        }
    }
}
