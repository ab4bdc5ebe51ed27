//! What the machine of a node is like, as far as it matters to a benchmark. Unknown is `None`, never a guess.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::link;

/// What a doctor looks at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Version of cp-node.
    pub tool: String,
    /// The machine's name for itself.
    pub host: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Its command line.
    pub kernel_options: String,
    /// Model of the processor.
    pub cpu: Option<String>,
    /// Cores that may be used.
    pub cores: usize,
    /// Wall clock, seconds since 1970.
    pub clock_s: f64,
    /// What the kernel's clock counts with.
    pub clock_source: Option<String>,
    /// Effective capabilities, bit n for capability number n.
    pub capabilities: Option<u64>,
    /// Whether the data-plane address is one of this machine's.
    pub has_address: Option<bool>,
    /// Names of all interfaces.
    pub interfaces: Vec<String>,
    /// MTU of the data-plane interface, bytes.
    pub mtu: Option<u32>,
    /// Whether it has a link.
    pub carrier: Option<bool>,
    /// Its speed, Mbit/s.
    pub link_mbps: Option<u64>,
    /// Its driver.
    pub driver: Option<String>,
    /// Frequency governors of the cores, each once.
    pub governors: Vec<String>,
    /// Idle states of core 0 that are not disabled: name and exit latency, us.
    pub idle_states: Vec<(String, u64)>,
    /// Cores that handle the interface's interrupts, each interrupt's list.
    pub interrupts: Vec<String>,
    /// irqbalance runs.
    pub irqbalance: bool,
    /// Free space, bytes.
    pub free_bytes: Option<u64>,
    /// Memory that is available, bytes.
    pub memory_bytes: Option<u64>,
    /// Processes of earlier runs: id and command line.
    pub strays: Vec<(u32, String)>,
    /// The Linux kernel's Homa module is loaded.
    pub homa_module: bool,
    /// Open files that a process may have.
    pub open_files: Option<u64>,
    /// TCP congestion controls that the kernel has; none: unknown.
    pub congestion_controls: Vec<String>,
}

/// Gathers all of it.
pub(super) fn gather(interface: &str, address: &str, dir: &str, clock_s: f64) -> Facts {
    let about = |name: &str| word(&format!("/sys/class/net/{interface}/{name}"));
    Facts {
        tool: concat!("cp-node ", env!("CARGO_PKG_VERSION")).to_owned(),
        host: word("/proc/sys/kernel/hostname").unwrap_or_default(),
        kernel: word("/proc/sys/kernel/osrelease").unwrap_or_default(),
        kernel_options: word("/proc/cmdline").unwrap_or_default(),
        cpu: field("/proc/cpuinfo", "model name"),
        cores: std::thread::available_parallelism().map_or(1, Into::into),
        clock_s,
        clock_source: word("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        capabilities: field("/proc/self/status", "CapEff").and_then(|hex| u64::from_str_radix(&hex, 16).ok()),
        has_address: address.parse::<IpAddr>().ok().map(|ip| UdpSocket::bind((ip, 0)).is_ok()),
        interfaces: link::names(),
        mtu: link::ask(interface).ok().and_then(|link| link.mtu),
        carrier: carrier(interface),
        link_mbps: about("speed").and_then(|text| text.parse().ok()),
        driver: fs::read_link(format!("/sys/class/net/{interface}/device/driver")).ok().and_then(|path| last(&path)),
        governors: governors(),
        idle_states: idle_states(),
        interrupts: interrupts(interface),
        irqbalance: processes().iter().any(|process| process.command == "irqbalance"),
        free_bytes: free_bytes(dir),
        memory_bytes: field("/proc/meminfo", "MemAvailable").and_then(|text| kib(&text)),
        strays: strays(&processes(), std::process::id()),
        homa_module: Path::new("/sys/module/homa").exists(),
        open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum,
        congestion_controls: congestion_controls(),
    }
}

/// What `tcp_available_congestion_control` lists. It knows modules only once they are loaded: DCTCP's is asked for first.
fn congestion_controls() -> Vec<String> {
    use rustix::net::{AddressFamily, SocketType, socket, sockopt};
    if let Ok(socket) = socket(AddressFamily::INET, SocketType::STREAM, None) {
        // A refusal shows in the list.
        let _ = sockopt::set_tcp_congestion(&socket, "dctcp");
    }
    let list = word("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
    list.split_whitespace().map(str::to_owned).collect()
}

/// Free space for this user where `dir` is, bytes.
pub(super) fn free_bytes(dir: &str) -> Option<u64> {
    let about = rustix::fs::statvfs(dir).ok()?;
    about.f_bavail.checked_mul(about.f_frsize)
}

/// Whether an interface has a link. One that is not up does not tell, so it has none.
pub(super) fn carrier(interface: &str) -> Option<bool> {
    link::ask(interface).ok().map(|link| link.carrier)
}

/// The text of a small file without blanks around it.
pub(super) fn word(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// What follows `name` and a colon in a file of the system.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Bytes of `1234 kB`.
fn kib(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

fn last(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

fn names(dir: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|e| last(&e.path())).collect();
    names.sort();
    names
}

fn governors() -> Vec<String> {
    let cores = names("/sys/devices/system/cpu");
    let mut all: Vec<_> = cores
        .iter()
        .filter_map(|core| word(&format!("/sys/devices/system/cpu/{core}/cpufreq/scaling_governor")))
        .collect();
    all.sort();
    all.dedup();
    all
}

fn idle_states() -> Vec<(String, u64)> {
    let root = "/sys/devices/system/cpu/cpu0/cpuidle";
    let state = |dir: &String| {
        let read = |name: &str| word(&format!("{root}/{dir}/{name}"));
        let on = read("disable").is_none_or(|text| text == "0");
        on.then_some((read("name")?, read("latency")?.parse().ok()?))
    };
    names(root).iter().filter_map(state).collect()
}

/// Where the interrupts of an interface are handled: the lists of cores, in order of the interrupts' numbers.
fn interrupts(interface: &str) -> Vec<String> {
    names(&format!("/sys/class/net/{interface}/device/msi_irqs"))
        .iter()
        .filter_map(|number| word(&format!("/proc/irq/{number}/smp_affinity_list")))
        .collect()
}

/// A process of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    id: u32,
    /// Name of the program's file.
    command: String,
    /// All words.
    line: String,
}

fn processes() -> Vec<Process> {
    let ids = names("/proc").into_iter().filter_map(|name| name.parse::<u32>().ok());
    let process = |id: u32| {
        let bytes = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let words: Vec<_> = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let command = last(Path::new(words.first()?.as_ref()))?;
        Some(Process { id, command, line: words.join(" ").trim().to_owned() })
    };
    ids.filter_map(process).collect()
}

/// Nodes and agents other than this process.
fn strays(processes: &[Process], own: u32) -> Vec<(u32, String)> {
    let is_ours = |process: &&Process| {
        let named = process.command.starts_with("cp-node") || process.command.starts_with("cp_node");
        let mut words = process.line.split(' ').skip(1);
        let inside = process.command.starts_with("cperf") || process.command == "exe";
        process.id != own && (named || inside && words.next() == Some("cp-node"))
    };
    processes.iter().filter(is_ours).map(|process| (process.id, process.line.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_what_every_machine_has() {
        let facts = gather("lo", "127.0.0.1", "/tmp", 1.5);
        assert_eq!((facts.has_address, facts.clock_s), (Some(true), 1.5));
        assert!(facts.cores >= 1 && facts.free_bytes.is_some() && facts.memory_bytes.unwrap() > 0);
        assert!(!facts.kernel.is_empty() && facts.interfaces.contains(&"lo".to_owned()));
        assert!(facts.congestion_controls.contains(&"reno".to_owned()), "every kernel has it: {facts:?}");
        assert_eq!(gather("no-such-if", "192.0.2.1", "/no/such/dir", 0.0).carrier, None);
        assert_eq!(gather("lo", "192.0.2.1", "/no/such/dir", 0.0).has_address, Some(false));
    }

    #[test]
    fn nodes_and_agents_of_others_are_strays_and_oneself_is_not() {
        let process =
            |id, command: &str, line: &str| Process { id, command: command.to_owned(), line: line.to_owned() };
        let all = [
            process(1, "cperf-1234abcd", "/tmp/x/cperf-1234abcd cp-node agent"),
            process(2, "cp-node", "cp-node server"),
            process(3, "cperf", "cperf run w4"),
            process(4, "vi", "vi cp-node"),
            process(5, "exe", "/proc/self/exe cp-node --end-with 1"),
        ];
        let ids: Vec<_> = strays(&all, 1).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [2, 5]);
    }
}
