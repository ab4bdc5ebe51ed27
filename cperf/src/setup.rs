//! `cperf setup`: machines and their switch as a benchmark wants them, and back. Source: cperf.md section 5.
//!
//! Machines write down what each setting was before they change it, in a file of their own, and put it back from there; of a
//! switch nobody knows what it was, so it is set to what its kind has by default.

pub mod switch;

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cp_node::agent::settings::{Change, Wish};
use cp_node::agent::wire::{News, Order};

use self::switch::Wanted;
use crate::cli::setup::SetupArgs;
use crate::error::Stop;
use crate::ssh::Fleet;
use crate::ssh::cluster::{Cluster, Machine, Switch};

/// How long a machine may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Socket buffers: TCP's windows for the fastest links, and packets that wait for a busy core. Name and value.
const SYSCTLS: [(&str, &str); 6] = [
    ("net.core.rmem_max", "67108864"),
    ("net.core.wmem_max", "67108864"),
    ("net.ipv4.tcp_rmem", "4096 131072 67108864"),
    ("net.ipv4.tcp_wmem", "4096 65536 67108864"),
    ("net.core.netdev_max_backlog", "250000"),
    ("net.core.somaxconn", "4096"),
];
/// When an interface interrupts: at once. Name and value as of `ethtool -C`.
const COALESCE: [(&str, &str); 5] =
    [("adaptive-rx", "off"), ("adaptive-tx", "off"), ("rx-usecs", "0"), ("rx-frames", "1"), ("tx-usecs", "5")];
/// Flows that each receive queue tells apart.
const FLOWS: u32 = 2048;

/// Sets everything up, or back.
///
/// # Errors
/// [`Stop::Usage`] for options and the cluster file, [`Stop::Missing`] for machines; others if something could not be set.
pub fn run(args: &SetupArgs) -> anyhow::Result<()> {
    let cluster = Cluster::read(&args.cluster)?;
    let wishes = if args.restore { Vec::new() } else { wishes(args, cluster.link_gbps)? };
    let wanted = Wanted {
        ports: args.switch_ports,
        buffer_mb: args.switch_buffer,
        ecn_kb: args.ecn_threshold,
        reset: args.restore,
    };
    let at_switch = commands(&wanted, cluster.switch.as_ref())?;
    let fleet = Fleet::new(cluster)?;
    let mut failed = machines(&fleet, args, &wishes)?;
    if !at_switch.is_empty() {
        failed += of_switch(&fleet, args, &at_switch)?;
    }
    if failed > 0 {
        bail!("{failed} settings could not be changed (see above); `cperf setup --restore` puts back those that were");
    }
    Ok(())
}

/// What is wished of every machine.
fn wishes(args: &SetupArgs, link_gbps: Option<f64>) -> Result<Vec<Wish>, Stop> {
    let sysctl = |name: &str, value: &str, optional| {
        let (name, value) = (name.to_owned(), value.to_owned());
        Wish::Sysctl { name, value, optional }
    };
    let mut all = Vec::new();
    if !args.only_given {
        all.extend(SYSCTLS.iter().map(|(name, value)| sysctl(name, value, true)));
        all.push(Wish::Rps { flows: FLOWS });
        all.push(Wish::Power);
        all.extend(COALESCE.iter().map(|(name, value)| {
            let (name, value) = ((*name).to_owned(), (*value).to_owned());
            Wish::Coalesce { name, value }
        }));
        all.extend(
            module(link_gbps).into_iter().map(|(name, value)| sysctl(&format!("net.homa.{name}"), &value, true)),
        );
    }
    all.extend(args.mtu.map(|bytes| Wish::Mtu { bytes }));
    all.extend(args.qdisc.clone().map(|kind| Wish::Qdisc { kind }));
    if args.interrupts {
        all.push(Wish::Interrupts);
    }
    for pair in &args.sysctl {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Stop::Usage(format!("--sysctl {pair}: expected NAME=VALUE, like net.core.rmem_max=33554432")));
        };
        all.push(sysctl(name, value, false));
    }
    Ok(all)
}

/// Parameters of the kernel's Homa module for links of a rate. Source: cperf.md 5.2.
fn module(link_gbps: Option<f64>) -> Vec<(&'static str, String)> {
    let gbps = link_gbps.unwrap_or(25.0);
    let [unsched, incoming, gso] = match gbps {
        slow if slow <= 10.0 => [30_000, 400_000, 10_000],
        fast if fast >= 100.0 => [60_000, 1_600_000, 100_000],
        _ => [60_000, 480_000, 10_000],
    };
    let number = |number: u64| number.to_string();
    vec![
        ("num_priorities", number(8)),
        ("unsched_bytes", number(unsched)),
        ("max_incoming", number(incoming)),
        ("max_gso_size", number(gso)),
        ("link_mbps", format!("{:.0}", gbps * 1e3)),
        ("max_nic_est_backlog_usecs", number(5)),
    ]
}

/// Sets up all machines at once, and tells what was done on each. Returns how much failed.
fn machines(fleet: &Fleet, args: &SetupArgs, wishes: &[Wish]) -> anyhow::Result<usize> {
    if wishes.is_empty() && !args.restore {
        return Ok(0);
    }
    let all = &fleet.cluster().machines;
    let one = |node: usize| -> anyhow::Result<Vec<Change>> {
        let (agent, _) = fleet.agent(node)?;
        let (record, dry_run) = (record(&all[node]), args.dry_run);
        let interface = all[node].interface.clone();
        let order = if args.restore {
            Order::Restore { record, dry_run }
        } else {
            Order::Change { record, interface, wishes: wishes.to_vec(), dry_run }
        };
        match agent.ask(&order, LIMIT).with_context(|| format!("node {node}"))? {
            News::Changed { changes } => Ok(changes),
            _ => bail!("node {node}: an answer to something else"),
        }
    };
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..all.len()).map(|node| scope.spawn(move || one(node))).collect();
        let joined = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("its thread has panicked")))
        };
        threads.into_iter().map(joined).collect()
    });
    let mut stdout = std::io::stdout().lock();
    let (mut failed, mut lost) = (0, Vec::new());
    for (node, result) in results.into_iter().enumerate() {
        match result {
            Ok(changes) => {
                let verdict = if changes.is_empty() { ": nothing to do" } else { "" };
                writeln!(stdout, "node {node} ({}){verdict}", all[node].access.host)?;
                for change in &changes {
                    let was = change.before.as_ref().map(|was| format!("    # was {was}")).unwrap_or_default();
                    writeln!(stdout, "  {}{was}", change.command)?;
                    if let Some(error) = &change.error {
                        failed += 1;
                        writeln!(stdout, "      FAILED: {error}")?;
                    }
                }
            }
            Err(err) => lost.push(format!("{err:#}")),
        }
    }
    stdout.flush()?;
    if lost.is_empty() { Ok(failed) } else { Err(Stop::Missing(lost.join("\n")).into()) }
}

/// The file on a machine that says what its settings were. Directories may be shared by machines.
fn record(machine: &Machine) -> String {
    format!("{}/setup-{}.json", machine.directory, machine.address.to_string().replace(':', "_"))
}

/// The commands for the switch; none if nothing is wanted of it, or there is none.
fn commands(wanted: &Wanted, switch: Option<&Switch>) -> Result<Vec<String>, Stop> {
    if *wanted == Wanted::default() {
        return Ok(Vec::new());
    }
    let Some(switch) = switch else {
        // Without a switch there is nothing to put back.
        return if wanted.reset {
            Ok(Vec::new())
        } else {
            Err(Stop::Usage("the cluster file has no section [switch]; docs/ssh.md has one".to_owned()))
        };
    };
    let driver = switch::driver(&switch.kind)?;
    driver.commands(wanted, &switch.ports).map_err(|text| Stop::Usage(format!("switch: {text}")))
}

/// Gives the commands to the switch, and tells its complaints. Returns how many there are.
fn of_switch(fleet: &Fleet, args: &SetupArgs, commands: &[String]) -> anyhow::Result<usize> {
    let switch = fleet.cluster().switch.as_ref().context("commands are made for a switch")?;
    let mut complaints = Vec::new();
    if !args.dry_run {
        let driver = switch::driver(&switch.kind)?;
        let mut console = fleet.switch_console(&switch.access)?;
        complaints = switch::apply(driver.as_ref(), &mut console, commands)?;
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "switch ({}, {})", switch.access.host, switch.kind)?;
    for command in commands {
        writeln!(stdout, "  {command}")?;
        for (_, said) in complaints.iter().filter(|(about, _)| about == command) {
            writeln!(stdout, "      FAILED: {said}")?;
        }
    }
    stdout.flush()?;
    Ok(complaints.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    fn args(words: &str) -> SetupArgs {
        let cli = Cli::read(format!("cperf setup --cluster x {words}").split_whitespace()).unwrap();
        let Command::Setup(args) = cli.command else { unreachable!("it is a set-up") };
        args
    }

    #[test]
    fn what_is_given_comes_over_what_is_done_by_default() {
        let all = wishes(&args("--mtu 9000 --qdisc mq --interrupts --sysctl a.b=1=2"), Some(100.0)).unwrap();
        let found = |wish: &Wish| all.contains(wish);
        assert!(found(&Wish::Mtu { bytes: 9000 }) && found(&Wish::Interrupts) && found(&Wish::Rps { flows: 2048 }));
        assert!(found(&Wish::Sysctl { name: "a.b".into(), value: "1=2".into(), optional: false }));
        let incoming = Wish::Sysctl { name: "net.homa.max_incoming".into(), value: "1600000".into(), optional: true };
        assert!(found(&incoming), "{all:?}");
        assert_eq!(wishes(&args("--only-given --mtu 1500"), None).unwrap(), [Wish::Mtu { bytes: 1500 }]);
        assert!(wishes(&args("--sysctl a.b"), None).unwrap_err().to_string().contains("NAME=VALUE"));
    }

    #[test]
    fn a_switch_is_needed_to_be_set_and_not_to_be_put_back() {
        let ports = Wanted { ports: true, ..Wanted::default() };
        assert!(commands(&ports, None).unwrap_err().to_string().contains("no section [switch]"));
        assert!(commands(&Wanted { reset: true, ..Wanted::default() }, None).unwrap().is_empty());
        assert!(commands(&Wanted::default(), None).unwrap().is_empty());
    }
}
