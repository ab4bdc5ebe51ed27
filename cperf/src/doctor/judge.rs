//! What is odd about a machine, from what is known about it. No input and output: all of it is tested here.

use cp_node::agent::facts::Facts;

use super::{Finding, Level};
use crate::ssh::Greeting;
use crate::ssh::cluster::Machine;

/// A clock that is off by more, seconds.
const CLOCK_S: f64 = 1.0;
/// Less free space makes runs fail, and less is little: bytes.
const DISK: (u64, u64) = (64 << 20, 1 << 30);
/// Less available memory is little, bytes.
const MEMORY: u64 = 1 << 30;
/// An idle state that takes longer to leave shows in round trips, us.
const IDLE_US: u64 = 50;
/// Fewer open files do not do for many connections.
const FILES: u64 = 4096;
/// A core that is so many times slower than the median of all, and at least by so much, us.
const SLOW: (f64, f64) = (10.0, 20.0);
/// Names and bits of capabilities, whether a run fails without, and what for.
const CAPABILITIES: [(&str, u64, Level, &str); 2] = [
    ("CAP_NET_RAW", 13, Level::Bad, "Homa's sockets need it"),
    (
        "CAP_NET_ADMIN",
        12,
        Level::Odd,
        "the kernel's own look at Homa's packets can't be switched off, which costs time",
    ),
];

/// A round trip, us, or why there was none.
type Path = Result<f64, String>;

/// Whom a judgement is about.
pub(super) struct About<'a> {
    pub(super) number: usize,
    pub(super) machine: &'a Machine,
    /// Rate of its link, as the cluster file has it.
    pub(super) link_gbps: Option<f64>,
}

impl About<'_> {
    fn finding(&self, level: Level, check: &'static str, found: String, to_do: impl Into<String>) -> Finding {
        Finding { node: self.number, level, check, found, to_do: to_do.into() }
    }

    /// Its clock.
    pub(super) fn clock(&self, greeting: &Greeting) -> Option<Finding> {
        let Greeting { clock_offset_s: offset, clock_error_s: error, .. } = *greeting;
        (offset.abs() > CLOCK_S + error).then(|| {
            let found = format!("{offset:+.1} s off this machine's: times in logs cannot be compared");
            self.finding(Level::Odd, "clock", found, "`chronyc makestep` there, and see that chronyd runs")
        })
    }

    /// Everything that the machine says about itself.
    pub(super) fn facts(&self, facts: &Facts) -> Vec<Finding> {
        let mut findings = self.network(facts);
        findings.extend(self.power(facts));
        findings.extend(self.room(facts));
        for (name, bit, level, why) in CAPABILITIES {
            if facts.capabilities.is_some_and(|set| set >> bit & 1 == 0) {
                let to_do = "`prefix = [\"sudo\", \"-n\"]` in the cluster file";
                findings.push(self.finding(level, "privileges", format!("{name} is missing: {why}"), to_do));
            }
        }
        if !facts.strays.is_empty() {
            let ids: Vec<_> = facts.strays.iter().map(|(id, _)| id.to_string()).collect();
            let found = format!("nodes or agents of other runs: {}", shorter(&facts.strays[0].1, facts.strays.len()));
            let to_do = format!("if nobody else measures there: `kill {}`", ids.join(" "));
            findings.push(self.finding(Level::Odd, "processes", found, to_do));
        }
        if facts.homa_module {
            let found = "the Linux kernel's Homa module is loaded: it answers the same packets".to_owned();
            findings.push(self.finding(Level::Odd, "kernel", found, "`rmmod homa` there, to measure this stack alone"));
        }
        findings
    }

    fn network(&self, facts: &Facts) -> Vec<Finding> {
        let (interface, address) = (&self.machine.interface, self.machine.address);
        let mut findings = Vec::new();
        let mut bad =
            |found: String, to_do: String| findings.push(self.finding(Level::Bad, "data plane", found, to_do));
        match facts.carrier {
            None => {
                bad(format!("there is no interface {interface}"), format!("one of {}", facts.interfaces.join(", ")))
            }
            Some(false) => {
                bad(
                    format!("{interface} has no link"),
                    format!("`ip link set {interface} up` there; the cable; its switch port"),
                );
            }
            Some(true) => {}
        }
        if facts.has_address == Some(false) {
            bad(
                format!("{address} is not one of its addresses"),
                format!("`ip address add {address}/24 dev {interface}`, or correct the cluster file"),
            );
        }
        if let (Some(mbps), Some(gbps)) = (facts.link_mbps, self.link_gbps)
            && (mbps as f64 - gbps * 1e3).abs() > 0.01 * gbps * 1e3
        {
            let found = format!("the link of {interface} runs at {mbps} Mbit/s, the cluster file says {gbps} Gbps");
            findings.push(self.finding(Level::Odd, "link", found, "correct `link_gbps`, or the port's speed"));
        }
        findings
    }

    fn power(&self, facts: &Facts) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut odd = |found: String, to_do: &str| findings.push(self.finding(Level::Odd, "power", found, to_do));
        if facts.governors.iter().any(|name| name != "performance") {
            let found =
                format!("cores run by the governor {}: clocks rise only under load", facts.governors.join(", "));
            odd(found, "`cpupower frequency-set -g performance` there");
        }
        if let Some((name, latency)) =
            facts.idle_states.iter().max_by_key(|(_, us)| *us).filter(|(_, us)| *us > IDLE_US)
        {
            let found = format!("idle cores may sleep as deep as {name}, {latency} us to wake up from");
            odd(found, "`cpupower idle-set -D 50` there (turbo clocks may suffer)");
        }
        if facts.irqbalance {
            odd("irqbalance moves interrupts between cores".to_owned(), "`systemctl stop irqbalance` there");
        }
        if facts.clock_source.as_deref().is_some_and(|name| !["tsc", "kvm-clock", "arch_sys_counter"].contains(&name)) {
            let name = facts.clock_source.as_deref().unwrap_or_default();
            let found = format!("the kernel's clock is {name}: each reading of it takes a microsecond or so");
            odd(found, "boot with `clocksource=tsc`, if the processor's counter is constant");
        }
        findings
    }

    fn room(&self, facts: &Facts) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
        if let Some(free) = facts.free_bytes.filter(|free| *free < DISK.1) {
            let level = if free < DISK.0 { Level::Bad } else { Level::Odd };
            let to_do = format!("make room in {}, or name another `directory`", self.machine.directory);
            findings.push(self.finding(level, "disk", format!("{} are free", mib(free)), to_do));
        }
        if let Some(free) = facts.memory_bytes.filter(|free| *free < MEMORY) {
            findings.push(self.finding(
                Level::Odd,
                "memory",
                format!("{} are available", mib(free)),
                "end what needs it",
            ));
        }
        if let Some(files) = facts.open_files.filter(|files| *files < FILES) {
            let found = format!("a process may have {files} open files: too few for TCP between many nodes");
            findings.push(self.finding(Level::Odd, "limits", found, "raise `nofile` in /etc/security/limits.conf"));
        }
        findings
    }
}

/// The first of several, and how many more.
fn shorter(first: &str, count: usize) -> String {
    let start: String = first.chars().take(60).collect();
    if count > 1 { format!("{start} and {} more", count - 1) } else { start }
}

/// What should be the same on all machines and is not: told of those that differ from most.
pub(super) fn differences(all: &[(usize, &Facts)]) -> Vec<Finding> {
    type Part = fn(&Facts) -> Option<String>;
    let parts: [(&'static str, Part, &str); 4] = [
        (
            "mtu",
            |facts| facts.mtu.map(|mtu| format!("{mtu} bytes")),
            "long messages stall between them; `ip link set IF mtu N`",
        ),
        ("kernel", |facts| Some(facts.kernel.clone()), "the same kernel on all"),
        ("cpu", |facts| facts.cpu.clone(), "machines of one kind"),
        ("link", |facts| facts.link_mbps.map(|mbps| format!("{mbps} Mbit/s")), "the same speed on all ports"),
    ];
    let mut findings = Vec::new();
    for (check, part, to_do) in parts {
        let values: Vec<_> = all.iter().map(|(_, facts)| part(facts)).collect();
        let count = |value: &Option<String>| values.iter().filter(|other| *other == value).count();
        let Some(usual) = values.iter().max_by_key(|value| count(value)) else { continue };
        for ((node, _), value) in all.iter().zip(&values).filter(|(_, value)| *value != usual) {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
            let found = format!("{}, on most machines {}", shown(value), shown(usual));
            findings.push(Finding { node: *node, level: Level::Odd, check, found, to_do: to_do.to_owned() });
        }
    }
    findings
}

/// Paths from one machine to others: round trips with short and with long packets.
pub(super) fn reached(node: usize, others: &[usize], short: &[Path], long: &[Path], long_bytes: usize) -> Vec<Finding> {
    let bad = |check, found, to_do: &str| Finding { node, level: Level::Bad, check, found, to_do: to_do.to_owned() };
    let paths = others.iter().zip(short.iter().zip(long));
    let judge = |(other, (short, long)): (&usize, (&Path, &Path))| match (short, long) {
        (Err(why), _) => Some(bad(
            "path",
            format!("node {other} cannot be reached on the data plane: {why}"),
            "addresses, prefixes and VLANs of both; firewalls (`nft list ruleset`); the switch",
        )),
        (Ok(_), Err(why)) => Some(bad(
            "path",
            format!("short packets reach node {other}, those of {long_bytes} bytes do not: {why}"),
            "the same MTU on both and at least that on all switch ports between; long messages would stall",
        )),
        (Ok(_), Ok(_)) => None,
    };
    paths.filter_map(judge).collect()
}

/// Cores that take much longer to send than the others of their machine.
pub(super) fn latency(node: usize, medians: &[(usize, Result<f64, String>)]) -> Vec<Finding> {
    let mut known: Vec<f64> = medians.iter().filter_map(|(_, us)| us.as_ref().ok().copied()).collect();
    known.sort_unstable_by(f64::total_cmp);
    let Some(&usual) = known.get(known.len() / 2) else { return Vec::new() };
    let odd = |core: &usize, found: String| {
        let to_do = format!("keep load off core {core}; power-cycle the machine (a reboot has not helped others)");
        Finding { node, level: Level::Odd, check: "latency", found, to_do }
    };
    let judge = |(core, us): &(usize, Result<f64, String>)| match us {
        Ok(us) if *us > SLOW.0 * usual && us - usual > SLOW.1 => {
            Some(odd(core, format!("core {core} takes {us:.1} us to send and receive a packet, others {usual:.1}")))
        }
        Ok(_) => None,
        Err(why) => Some(odd(core, format!("core {core} could not send: {why}"))),
    };
    medians.iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::cluster::Cluster;

    fn machine() -> Machine {
        let text = "user='me'\ninterface='eth1'\n[[nodes]]\nhost='a'\naddress='10.0.0.1'\n[[nodes]]\nhost='b'\naddress='10.0.0.2'";
        Cluster::parse(text).unwrap().machines.remove(0)
    }

    fn well() -> Facts {
        Facts {
            capabilities: Some(u64::MAX),
            has_address: Some(true),
            interfaces: vec!["eth0".into(), "eth1".into()],
            mtu: Some(1500),
            carrier: Some(true),
            link_mbps: Some(25_000),
            governors: vec!["performance".into()],
            idle_states: vec![("C1".into(), 2)],
            free_bytes: Some(1 << 40),
            memory_bytes: Some(1 << 40),
            open_files: Some(1 << 20),
            clock_source: Some("tsc".into()),
            kernel: "6.1".into(),
            ..Facts::default()
        }
    }

    fn found(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
        let (machine, mut facts) = (machine(), well());
        change(&mut facts);
        About { number: 4, machine: &machine, link_gbps: Some(25.0) }.facts(&facts)
    }

    #[test]
    fn a_machine_that_is_well_has_no_findings() {
        assert_eq!(found(|_| {}), []);
        assert_eq!(
            found(
                |facts| *facts = Facts { idle_states: vec![], governors: vec![], clock_source: None, ..facts.clone() }
            ),
            []
        );
    }

    #[test]
    fn each_fault_is_found_alone_and_says_what_to_do() {
        use Level::{Bad, Odd};
        type Case = (Level, &'static str, &'static str, fn(&mut Facts));
        let cases: [Case; 16] = [
            (Bad, "data plane", "no interface eth1", |f| f.carrier = None),
            (Bad, "data plane", "no link", |f| f.carrier = Some(false)),
            (Bad, "data plane", "10.0.0.1 is not", |f| f.has_address = Some(false)),
            (Bad, "privileges", "CAP_NET_RAW", |f| f.capabilities = Some(!(1 << 13))),
            (Odd, "privileges", "CAP_NET_ADMIN", |f| f.capabilities = Some(!(1 << 12))),
            (Odd, "link", "10000 Mbit/s", |f| f.link_mbps = Some(10_000)),
            (Odd, "power", "powersave", |f| f.governors.push("powersave".into())),
            (Odd, "power", "C6, 133 us", |f| f.idle_states.push(("C6".into(), 133))),
            (Odd, "power", "irqbalance", |f| f.irqbalance = true),
            (Odd, "power", "hpet", |f| f.clock_source = Some("hpet".into())),
            (Bad, "disk", "1 MiB", |f| f.free_bytes = Some(1 << 20)),
            (Odd, "disk", "512 MiB", |f| f.free_bytes = Some(512 << 20)),
            (Odd, "memory", "100 MiB", |f| f.memory_bytes = Some(100 << 20)),
            (Odd, "limits", "1024 open files", |f| f.open_files = Some(1024)),
            (Odd, "processes", "cp-node x and 1 more", |f| f.strays = vec![(7, "cp-node x".into()), (8, "y".into())]),
            (Odd, "kernel", "Homa module", |f| f.homa_module = true),
        ];
        for (level, check, part, change) in cases {
            let findings = found(change);
            assert_eq!(findings.len(), 1, "{part}: {findings:?}");
            let finding = &findings[0];
            assert!((finding.node, finding.level, finding.check) == (4, level, check), "{finding:?}");
            assert!(finding.found.contains(part) && !finding.to_do.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn a_clock_is_odd_beyond_what_the_network_explains() {
        let machine = machine();
        let about = About { number: 0, machine: &machine, link_gbps: None };
        let greeting = |offset, error| Greeting {
            host: String::new(),
            kernel: String::new(),
            pid: 1,
            clock_offset_s: offset,
            clock_error_s: error,
        };
        assert_eq!(about.clock(&greeting(1.5, 0.6)), None);
        assert!(about.clock(&greeting(-3600.0, 0.1)).unwrap().found.starts_with("-3600.0 s"));
    }

    #[test]
    fn machines_that_differ_from_most_are_told() {
        let (usual, mut odd) = (well(), well());
        odd.mtu = Some(9000);
        let findings = differences(&[(0, &usual), (1, &odd), (2, &usual)]);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].node, findings[0].check), (1, "mtu"));
        assert_eq!(findings[0].found, "9000 bytes, on most machines 1500 bytes");
    }

    #[test]
    fn paths_that_carry_nothing_and_those_that_carry_short_packets_are_told_apart() {
        let lost = || Err("no answer".to_owned());
        let findings = reached(0, &[1, 2, 3], &[Ok(9.0), lost(), Ok(9.0)], &[Ok(9.0), lost(), lost()], 9000);
        let found: Vec<_> = findings.iter().map(|finding| finding.found.as_str()).collect();
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("node 2 cannot be reached"), "{found:?}");
        assert!(found[1].starts_with("short packets reach node 3, those of 9000 bytes do not"), "{found:?}");
    }

    #[test]
    fn a_core_that_is_ten_times_slower_is_told() {
        let mut cores: Vec<_> = (0..8).map(|core| (core, Ok(4.0 + core as f64 / 10.0))).collect();
        assert_eq!(latency(0, &cores), []);
        cores[5].1 = Ok(1500.0);
        cores[6].1 = Err("no such core".to_owned());
        let findings = latency(3, &cores);
        assert!(findings[0].found.contains("core 5 takes 1500.0 us"), "{findings:?}");
        assert!(findings.len() == 2 && findings[1].found.contains("core 6 could not send"));
        assert_eq!(latency(0, &[]), []);
    }
}
