//! Settings of a machine that a benchmark wants otherwise: what they were is written down before anything is changed, and
//! put back from there, whatever happened in between. Source: cperf.md 5.2.
//!
//! What is wanted ([`Wish`]) is worked out here into single settings ([`Setting`]), since only the machine knows its queues
//! and interrupts.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

/// Something to be set on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
pub enum Wish {
    /// A kernel parameter.
    Sysctl {
        /// As sysctl(8) names it: `net.core.rmem_max`.
        name: String,
        /// Its value.
        value: String,
        /// No complaint where there is no such parameter.
        optional: bool,
    },
    /// Longest packet of the interface, bytes.
    Mtu {
        /// Bytes.
        bytes: u32,
    },
    /// Queueing discipline at the root of the interface.
    Qdisc {
        /// Its kind: `mq`, `fq_codel`, `pfifo_fast`.
        kind: String,
    },
    /// Packets of each receive queue are spread over all cores, by flow.
    Rps {
        /// Flows that each queue tells apart.
        flows: u32,
    },
    /// Each interrupt of the interface has a core of its own, in order.
    Interrupts,
    /// Cores run at full speed.
    Power,
    /// A value of `ethtool -C`: when the interface interrupts.
    Coalesce {
        /// As ethtool(8) names it: `rx-usecs`.
        name: String,
        /// Its value.
        value: String,
    },
}

/// One thing that can be read, set and put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "setting", rename_all = "snake_case")]
pub enum Setting {
    /// A file of /proc or /sys.
    File {
        /// Its path.
        path: PathBuf,
    },
    /// Of an interface.
    Mtu {
        /// Its name.
        interface: String,
    },
    /// Of an interface.
    Qdisc {
        /// Its name.
        interface: String,
    },
    /// Of an interface.
    Coalesce {
        /// Its name.
        interface: String,
        /// Of the value.
        name: String,
    },
}

/// What was done, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// As a command, for people.
    pub command: String,
    /// What it was.
    pub before: Option<String>,
    /// What is wanted.
    pub wanted: String,
    /// What went wrong.
    pub error: Option<String>,
}

/// A setting as it was before it was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    what: Setting,
    value: String,
}

/// Where settings are looked for: the machine's own root, or a test's.
#[derive(Clone, Debug)]
pub(super) struct Places {
    root: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

/// Changes everything that is wished, after writing down what it was to the file `record`; with `dry` only says what would
/// be changed. What fails is told and keeps nothing else from being changed; what is as wished already is left out.
///
/// # Errors
/// The record cannot be written: nothing was changed then that is not in it.
pub(super) fn change(
    places: &Places,
    record: &Path,
    interface: &str,
    wishes: &[Wish],
    dry: bool,
) -> io::Result<Vec<Change>> {
    let mut all = read(record)?;
    let mut changes = Vec::new();
    for wish in wishes {
        let settings = match places.expand(wish, interface) {
            Ok(settings) => settings,
            Err(error) => {
                let (command, wanted) = (format!("{wish:?}"), String::new());
                changes.push(Change { command, before: None, wanted, error: Some(error) });
                continue;
            }
        };
        for (what, wanted) in settings {
            let mut change = Change { command: what.command(&wanted), before: None, wanted, error: None };
            match what.get() {
                Ok(before) if same(&before, &change.wanted) => continue,
                Ok(before) => {
                    if !dry {
                        // Of what is changed twice, the first value is that of the machine.
                        if !all.iter().any(|known| known.what == what) {
                            all.push(Before { what: what.clone(), value: before.clone() });
                            write(record, &all)?;
                        }
                        change.error = what.set(&change.wanted).err().map(|err| err.to_string());
                    }
                    change.before = Some(before);
                }
                Err(err) => change.error = Some(err.to_string()),
            }
            changes.push(change);
        }
    }
    Ok(changes)
}

/// Puts back what the file `record` says, the last change first, and removes from it what is as it was.
///
/// # Errors
/// The record cannot be read or written.
pub(super) fn restore(record: &Path, dry: bool) -> io::Result<Vec<Change>> {
    let mut all = read(record)?;
    let (mut changes, mut left) = (Vec::new(), Vec::new());
    while let Some(before) = all.pop() {
        let mut change = Change {
            command: before.what.command(&before.value),
            before: before.what.get().ok(),
            wanted: before.value.clone(),
            error: None,
        };
        if !dry {
            change.error = before.what.set(&before.value).err().map(|err| err.to_string());
            if change.error.is_some() {
                left.insert(0, before);
            }
            let rest: Vec<_> = all.iter().chain(&left).cloned().collect();
            write(record, &rest)?;
        }
        changes.push(change);
    }
    if !dry && left.is_empty() && record.exists() {
        fs::remove_file(record)?;
    }
    Ok(changes)
}

/// What was written down; nothing if there is no file.
fn read(record: &Path) -> io::Result<Vec<Before>> {
    let named = |err: &dyn std::fmt::Display| io::Error::other(format!("{}: {err}", record.display()));
    match fs::read(record) {
        Ok(text) => serde_json::from_slice(&text).map_err(|err| named(&err)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(err) => Err(named(&err)),
    }
}

/// Whole or not at all, and on the disk before anything is changed.
fn write(record: &Path, all: &[Before]) -> io::Result<()> {
    let named = |err: io::Error| io::Error::new(err.kind(), format!("{}: {err}", record.display()));
    let part = record.with_extension("part");
    let done = || {
        record.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut file = File::create(&part)?;
        file.write_all(&serde_json::to_vec_pretty(all).map_err(io::Error::other)?)?;
        file.sync_all()?;
        fs::rename(&part, record)
    };
    done().map_err(named)
}

/// Numbers are the same however they are spaced.
fn same(a: &str, b: &str) -> bool {
    a.split_ascii_whitespace().eq(b.split_ascii_whitespace())
}

impl Places {
    /// The single settings that a wish is about here, each with the value that is wanted.
    ///
    /// # Errors
    /// There is nothing that could be set; says what to do.
    fn expand(&self, wish: &Wish, interface: &str) -> Result<Vec<(Setting, String)>, String> {
        let interface_of = || interface.to_owned();
        match wish {
            Wish::Sysctl { name, value, optional } => {
                let plain = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
                if name.is_empty() || !name.chars().all(plain) || name.contains("..") {
                    return Err(format!("`{name}` is no name of a kernel parameter, like net.core.rmem_max"));
                }
                let path = self.root.join("proc/sys").join(name.replace('.', "/"));
                match (path.exists(), optional) {
                    (true, _) => Ok(vec![(Setting::File { path }, value.clone())]),
                    (false, true) => Ok(Vec::new()),
                    (false, false) => Err(format!("this kernel has no parameter {name}")),
                }
            }
            Wish::Mtu { bytes } => Ok(vec![(Setting::Mtu { interface: interface_of() }, bytes.to_string())]),
            Wish::Qdisc { kind } => Ok(vec![(Setting::Qdisc { interface: interface_of() }, kind.clone())]),
            Wish::Coalesce { name, value } => {
                let setting = Setting::Coalesce { interface: interface_of(), name: name.clone() };
                Ok(vec![(setting, value.clone())])
            }
            Wish::Rps { flows } => self.rps(interface, *flows),
            Wish::Interrupts => self.interrupts(interface),
            Wish::Power => Ok(self.power()),
        }
    }

    fn rps(&self, interface: &str, flows: u32) -> Result<Vec<(Setting, String)>, String> {
        let queues = self.root.join("sys/class/net").join(interface).join("queues");
        let names: Vec<_> = entries(&queues).into_iter().filter(|name| name.starts_with("rx-")).collect();
        if names.is_empty() {
            return Err(format!("{}: there are no receive queues", queues.display()));
        }
        let mut all = Vec::new();
        for name in &names {
            let file = |file: &str| Setting::File { path: queues.join(name).join(file) };
            all.push((file("rps_flow_cnt"), flows.to_string()));
            all.push((file("rps_cpus"), mask(self.cores())));
        }
        let total = flows.saturating_mul(names.len() as u32).max(32_768).next_power_of_two();
        let path = self.root.join("proc/sys/net/core/rps_sock_flow_entries");
        all.push((Setting::File { path }, total.to_string()));
        Ok(all)
    }

    fn interrupts(&self, interface: &str) -> Result<Vec<(Setting, String)>, String> {
        let numbers = self.root.join("sys/class/net").join(interface).join("device/msi_irqs");
        let mut all: Vec<u32> = entries(&numbers).iter().filter_map(|name| name.parse().ok()).collect();
        all.sort_unstable();
        if all.is_empty() {
            return Err(format!("{}: the interface has no interrupts of its own", numbers.display()));
        }
        let cores = self.cores();
        let path = |number: u32| self.root.join(format!("proc/irq/{number}/smp_affinity_list"));
        Ok(all
            .into_iter()
            .enumerate()
            .map(|(index, number)| (Setting::File { path: path(number) }, (index % cores).to_string()))
            .collect())
    }

    fn power(&self) -> Vec<(Setting, String)> {
        let cpus = self.root.join("sys/devices/system/cpu");
        let governors = entries(&cpus).into_iter().map(|name| cpus.join(name).join("cpufreq/scaling_governor"));
        // A virtual machine has none, and no say in it.
        let there = governors.filter(|path| path.exists());
        there.map(|path| (Setting::File { path }, "performance".to_owned())).collect()
    }

    /// Cores of the machine.
    fn cores(&self) -> usize {
        let cpus = entries(&self.root.join("sys/devices/system/cpu"));
        let number = |name: &String| name.strip_prefix("cpu")?.parse::<usize>().ok();
        cpus.iter().filter_map(number).count().max(1)
    }
}

/// Names in a directory, in order; none if there is no such directory.
fn entries(dir: &Path) -> Vec<String> {
    let found = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = found.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// All of so many cores, as the kernel writes a set: words of 32 bits, the highest first.
fn mask(cores: usize) -> String {
    let full = cores / 32;
    let mut words = vec!["ffffffff".to_owned(); full];
    if !cores.is_multiple_of(32) {
        words.insert(0, format!("{:x}", (1u64 << (cores % 32)) - 1));
    }
    words.join(",")
}

impl Setting {
    /// As a command that a person could type.
    fn command(&self, value: &str) -> String {
        match self {
            Self::File { path } => match path.strip_prefix("/proc/sys") {
                Ok(name) => format!("sysctl -w {}='{value}'", name.display().to_string().replace('/', ".")),
                Err(_) => format!("echo '{value}' > {}", path.display()),
            },
            _ => self.words(value).join(" "),
        }
    }

    /// The words of the command that sets it.
    fn words(&self, value: &str) -> Vec<String> {
        let words = match self {
            Self::File { .. } => Vec::new(),
            Self::Mtu { interface } => vec!["ip", "link", "set", "dev", interface, "mtu", value],
            // Without a discipline of its own an interface has what the kernel gives it.
            Self::Qdisc { interface } if value == "noqueue" => vec!["tc", "qdisc", "del", "dev", interface, "root"],
            Self::Qdisc { interface } => vec!["tc", "qdisc", "replace", "dev", interface, "root", value],
            Self::Coalesce { interface, name } => vec!["ethtool", "-C", interface, name, value],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    fn get(&self) -> io::Result<String> {
        let missing = |what: &str, text: &str| io::Error::other(format!("no {what} in `{}`", text.trim()));
        match self {
            Self::File { path } => {
                let text = fs::read_to_string(path);
                let named = |err: io::Error| io::Error::new(err.kind(), format!("{}: {err}", path.display()));
                Ok(text.map_err(named)?.trim().to_owned())
            }
            Self::Mtu { interface } => {
                let text = run(&["ip", "-o", "link", "show", "dev", interface])?;
                after(&text, "mtu").ok_or_else(|| missing("mtu", &text))
            }
            Self::Qdisc { interface } => {
                let text = run(&["tc", "qdisc", "show", "dev", interface])?;
                let root = text.lines().find(|line| line.split(' ').any(|word| word == "root"));
                // No line: nothing was ever set.
                Ok(root.and_then(|line| after(line, "qdisc")).unwrap_or_else(|| "noqueue".to_owned()))
            }
            Self::Coalesce { interface, name } => {
                let text = run(&["ethtool", "-c", interface])?;
                coalesce(&text, name).ok_or_else(|| missing(name, &text))
            }
        }
    }

    fn set(&self, value: &str) -> io::Result<()> {
        match self {
            Self::File { path } => fs::write(path, value).map_err(|err| {
                let hint = if err.kind() == io::ErrorKind::PermissionDenied { " (it takes root)" } else { "" };
                io::Error::new(err.kind(), format!("{}: {err}{hint}", path.display()))
            }),
            _ => {
                let words = self.words(value);
                run(&words.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
            }
        }
    }
}

/// The word after another one.
fn after(text: &str, word: &str) -> Option<String> {
    let mut words = text.split_ascii_whitespace();
    words.find(|found| *found == word)?;
    words.next().map(str::to_owned)
}

/// A value in what `ethtool -c` prints. `adaptive-rx` and `adaptive-tx` stand in one line.
fn coalesce(text: &str, name: &str) -> Option<String> {
    if let Some(direction) = name.strip_prefix("adaptive-") {
        let line = text.lines().find_map(|line| line.strip_prefix("Adaptive "))?;
        let word = format!("{}:", direction.to_ascii_uppercase());
        return after(line, &word);
    }
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
}

/// Runs a program and returns what it prints.
fn run(words: &[&str]) -> io::Result<String> {
    let failed = |text: String| io::Error::other(format!("`{}`: {text}", words.join(" ")));
    // Administrators' programs are not in everybody's path.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(words[0]).args(&words[1..]).env("PATH", path).env("LC_ALL", "C").output();
    let output = output.map_err(|err| {
        let missing = err.kind() == io::ErrorKind::NotFound;
        failed(if missing { format!("there is no {} on this machine: install it", words[0]) } else { err.to_string() })
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{} ({})", said.trim(), output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of files: four cores, two receive queues, three interrupts.
    fn machine(name: &str) -> (Places, PathBuf) {
        let root = std::env::temp_dir().join(format!("cp-node-settings-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("proc/sys/net/core/rmem_max", "212992\n");
        put("proc/sys/net/core/rps_sock_flow_entries", "0\n");
        for core in 0..4 {
            put(&format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"), "powersave\n");
        }
        for queue in 0..2 {
            put(&format!("sys/class/net/eth0/queues/rx-{queue}/rps_cpus"), "0\n");
            put(&format!("sys/class/net/eth0/queues/rx-{queue}/rps_flow_cnt"), "0\n");
        }
        for irq in [40, 41, 9] {
            put(&format!("sys/class/net/eth0/device/msi_irqs/{irq}"), "msix");
            put(&format!("proc/irq/{irq}/smp_affinity_list"), "0-3\n");
        }
        (Places { root: root.clone() }, root)
    }

    fn contents(root: &Path) -> Vec<(PathBuf, String)> {
        let (mut all, mut todo) = (Vec::new(), vec![root.to_owned()]);
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                if entry.path().is_dir() {
                    todo.push(entry.path());
                } else {
                    all.push((entry.path(), fs::read_to_string(entry.path()).unwrap().trim().to_owned()));
                }
            }
        }
        all.sort();
        all
    }

    fn wishes() -> Vec<Wish> {
        let sysctl = |name: &str, value: &str, optional| Wish::Sysctl {
            name: name.to_owned(),
            value: value.to_owned(),
            optional,
        };
        vec![
            sysctl("net.core.rmem_max", "16777216", false),
            sysctl("net.homa.num_priorities", "8", true),
            Wish::Rps { flows: 2048 },
            Wish::Interrupts,
            Wish::Power,
        ]
    }

    #[test]
    fn everything_is_set_written_down_first_and_put_back() {
        let (places, root) = machine("all");
        let record = std::env::temp_dir().join(format!("cp-node-settings-{}-record/setup.json", std::process::id()));
        let before = contents(&root);
        let dry = change(&places, &record, "eth0", &wishes(), true).unwrap();
        assert_eq!((contents(&root), record.exists()), (before.clone(), false), "nothing is changed");
        let done = change(&places, &record, "eth0", &wishes(), false).unwrap();
        assert_eq!(
            dry.iter().map(|one| &one.command).collect::<Vec<_>>(),
            done.iter().map(|one| &one.command).collect::<Vec<_>>()
        );
        assert_eq!(done.len(), 1 + 4 + 1 + 3 + 4);
        assert!(done.iter().all(|one| one.error.is_none() && one.before.is_some()), "{done:?}");
        let at = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(at("sys/class/net/eth0/queues/rx-1/rps_cpus"), "f");
        assert_eq!((at("proc/irq/9/smp_affinity_list"), at("proc/irq/41/smp_affinity_list")), ("0".into(), "2".into()));
        assert_eq!(at("proc/sys/net/core/rps_sock_flow_entries"), "32768");
        // The same again changes nothing, and does not forget what was.
        assert_eq!(change(&places, &record, "eth0", &wishes(), false).unwrap(), []);
        let more = [Wish::Sysctl { name: "net.core.rmem_max".into(), value: "1".into(), optional: false }];
        assert_eq!(change(&places, &record, "eth0", &more, false).unwrap().len(), 1);
        let put_back = restore(&record, false).unwrap();
        assert!(put_back.len() == 13 && put_back.iter().all(|one| one.error.is_none()), "{put_back:?}");
        assert_eq!((contents(&root), record.exists()), (before, false));
        assert_eq!(restore(&record, false).unwrap(), [], "nothing is left to do");
        fs::remove_dir_all(root).unwrap();
        fs::remove_dir_all(record.parent().unwrap()).unwrap();
    }

    /// What cannot be put back now stays written down, the rest is put back.
    #[test]
    fn a_setting_that_fails_keeps_no_other_from_being_restored() {
        let (places, root) = machine("fails");
        let record = root.join("setup.json");
        let changed = change(&places, &record, "eth0", &wishes()[..3], false).unwrap();
        assert_eq!(changed.len(), 6);
        let gone = root.join("sys/class/net/eth0/queues/rx-0");
        fs::remove_dir_all(&gone).unwrap();
        let put_back = restore(&record, false).unwrap();
        let failed: Vec<_> = put_back.iter().filter(|one| one.error.is_some()).collect();
        assert_eq!(failed.len(), 2, "{put_back:?}");
        assert_eq!(fs::read_to_string(root.join("proc/sys/net/core/rmem_max")).unwrap(), "212992");
        assert!(record.exists());
        fs::create_dir_all(&gone).unwrap();
        assert!(restore(&record, false).unwrap().iter().all(|one| one.error.is_none()));
        assert!(!record.exists());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn wishes_that_mean_nothing_here_are_told() {
        let (places, root) = machine("wrong");
        let record = root.join("setup.json");
        for (wish, part) in [
            (Wish::Sysctl { name: "net.core.nothing".into(), value: "1".into(), optional: false }, "no parameter"),
            (
                Wish::Sysctl { name: "../../etc/passwd".into(), value: "1".into(), optional: false },
                "no name of a kernel",
            ),
            (Wish::Rps { flows: 1 }, "no receive queues"),
            (Wish::Interrupts, "no interrupts of its own"),
        ] {
            let changes = change(&places, &record, "eth9", &[wish], false).unwrap();
            let error = changes[0].error.clone().unwrap();
            assert!(error.contains(part), "{error}");
        }
        assert!(!record.exists());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_programs_print_is_understood() {
        let text = "Coalesce parameters for eth0:\nAdaptive RX: off  TX: on\nrx-usecs:\t5\nrx-frames: 1\n";
        let found =
            ["rx-usecs", "rx-frames", "adaptive-rx", "adaptive-tx", "tx-usecs"].map(|name| coalesce(text, name));
        assert_eq!(found.map(Option::unwrap_or_default), ["5", "1", "off", "on", ""]);
        assert_eq!(after("2: eth0: <UP> mtu 1500 qdisc mq state UP", "mtu").as_deref(), Some("1500"));
        assert_eq!([mask(1), mask(4), mask(32), mask(40)], ["1", "f", "ffffffff", "ff,ffffffff"]);
    }

    #[test]
    fn commands_are_those_that_a_person_would_type() {
        let interface = || "eth0".to_owned();
        let file = |path: &str| Setting::File { path: path.into() };
        for (setting, value, command) in [
            (file("/proc/sys/net/core/rmem_max"), "5", "sysctl -w net.core.rmem_max='5'"),
            (
                file("/sys/class/net/eth0/queues/rx-0/rps_cpus"),
                "f",
                "echo 'f' > /sys/class/net/eth0/queues/rx-0/rps_cpus",
            ),
            (Setting::Mtu { interface: interface() }, "9000", "ip link set dev eth0 mtu 9000"),
            (Setting::Qdisc { interface: interface() }, "mq", "tc qdisc replace dev eth0 root mq"),
            (Setting::Qdisc { interface: interface() }, "noqueue", "tc qdisc del dev eth0 root"),
        ] {
            assert_eq!(setting.command(value), command);
        }
    }
}
