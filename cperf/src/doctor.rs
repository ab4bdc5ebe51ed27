//! `cperf doctor`: what is wrong with the machines of a cluster, as far as a benchmark would suffer from it, and what to
//! do about it. Each case is one that people have met: a peer that cannot be reached on the data network, large messages
//! that stall because a switch drops long packets, tails of tens of milliseconds from power settings or one bad core.

mod judge;

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use cp_node::agent::facts::Facts;
use cp_node::agent::wire::{News, Order};
use serde::Serialize;

use crate::cli::Format;
use crate::cli::doctor::DoctorArgs;
use crate::error::Stop;
use crate::ssh::agent::{Agent, Ticket};
use crate::ssh::cluster::{Cluster, Machine};
use crate::ssh::{Fleet, Greeting, QUICK};
use crate::sys;

/// How long looking around, and sending to all others, may take.
const LOOK: Duration = Duration::from_secs(60);
/// A packet that every path carries, bytes.
const SHORT_PACKET: usize = 128;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A run would not work.
    Bad,
    /// Results may suffer.
    Odd,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Number of the node.
    pub node: usize,
    /// How bad it is.
    pub level: Level,
    /// What was looked at.
    pub check: &'static str,
    /// What was found.
    pub found: String,
    /// What to do.
    pub to_do: String,
}

/// A machine with an agent, and what is known about it.
struct Patient {
    number: usize,
    machine: Machine,
    agent: Arc<Agent>,
    greeting: Greeting,
    facts: Facts,
}

/// Checks all machines and prints what was found.
///
/// # Errors
/// [`Stop::Usage`] for a cluster file that is wrong, [`Stop::Missing`] if a run would not work.
pub fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let cluster = Cluster::read(&args.cluster)?;
    let machines = cluster.machines.clone();
    let link_gbps = cluster.link_gbps;
    let fleet = Fleet::new(cluster)?;
    let (patients, mut findings) = admit(&fleet, &machines);
    for patient in &patients {
        let about = judge::About { number: patient.number, machine: &patient.machine, link_gbps };
        findings.extend(about.facts(&patient.facts));
        findings.extend(about.clock(&patient.greeting));
    }
    let all: Vec<_> = patients.iter().map(|patient| (patient.number, &patient.facts)).collect();
    findings.extend(judge::differences(&all));
    findings.extend(paths(&patients, args.packet_bytes));
    findings.extend(latencies(&patients, args.sends));
    findings.sort_by_key(|finding| (finding.node, finding.level));
    print(args, &machines, &findings)?;
    let bad = findings.iter().filter(|finding| finding.level == Level::Bad).count();
    if bad > 0 {
        return Err(Stop::Missing(format!("{bad} findings are in the way of a run")).into());
    }
    Ok(())
}

/// Agents on all machines that let us in, and what is known of the others.
fn admit(fleet: &Fleet, machines: &[Machine]) -> (Vec<Patient>, Vec<Finding>) {
    let stamp = format!("doctor-{}-{}", sys::local_time(SystemTime::now()).stamp(), std::process::id());
    let (mut asked, mut patients, mut findings) = (Vec::new(), Vec::new(), Vec::new());
    for (number, agent) in fleet.agents(machines.len()).into_iter().enumerate() {
        let machine = machines[number].clone();
        match agent {
            Ok((agent, greeting)) => {
                let dir = format!("{}/runs/{stamp}-node{number}", machine.directory);
                let made = agent.send(&Order::MakeDir { path: dir.clone() });
                let (interface, address) = (machine.interface.clone(), machine.address.to_string());
                let facts = agent.send(&Order::Facts { interface, address, dir: dir.clone() });
                let removed = agent.send(&Order::RemoveDir { path: dir });
                asked.push((number, machine, agent, greeting, [made, facts, removed]));
            }
            Err(err) => findings.push(lost(number, "ssh", &err)),
        }
    }
    for (number, machine, agent, greeting, [made, facts, removed]) in asked {
        let answers = || -> anyhow::Result<Facts> {
            agent.answer(made, QUICK).context("making a directory")?;
            let News::Facts(facts) = agent.answer(facts, LOOK)? else { anyhow::bail!("an answer to something else") };
            agent.answer(removed, QUICK).context("removing a directory")?;
            Ok(*facts)
        };
        match answers() {
            Ok(facts) => patients.push(Patient { number, machine, agent, greeting, facts }),
            Err(err) => findings.push(lost(number, "agent", &err)),
        }
    }
    (patients, findings)
}

fn lost(node: usize, check: &'static str, err: &anyhow::Error) -> Finding {
    let to_do = "what the message says, then again".to_owned();
    Finding { node, level: Level::Bad, check, found: format!("{err:#}"), to_do }
}

/// Whether each machine reaches each other one on the data plane, with short packets and with the longest.
fn paths(patients: &[Patient], packet_bytes: Option<usize>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let echo = |patient: &Patient| patient.agent.send(&Order::Echo { address: patient.machine.address.to_string() });
    let tickets: Vec<_> = patients.iter().map(echo).collect();
    let mut sockets = Vec::new();
    for (patient, ticket) in patients.iter().zip(tickets) {
        match patient.agent.answer(ticket, QUICK) {
            Ok(News::Echo { port }) => {
                sockets.push((patient, std::net::SocketAddr::new(patient.machine.address, port)))
            }
            Ok(_) => {}
            // That the address is not there is told already, with what to do.
            Err(_) if patient.facts.has_address == Some(false) => {}
            Err(err) => findings.push(lost(patient.number, "data plane", &err)),
        }
    }
    let send = |(patient, own): &(&Patient, std::net::SocketAddr), packet_bytes: usize| -> Ticket {
        let to = sockets.iter().filter(|(_, other)| other != own).map(|(_, other)| other.to_string()).collect();
        patient.agent.send(&Order::Reach { from: own.ip().to_string(), to, packet_bytes })
    };
    for from in &sockets {
        let patient = from.0;
        let longest = packet_bytes.or(patient.facts.mtu.map(|mtu| mtu as usize)).unwrap_or(1500);
        // One machine after another: many at once would fill queues, and look like a bad path.
        let lengths = [SHORT_PACKET, longest].map(|length| patient.agent.answer(send(from, length), LOOK));
        let [Ok(News::Reached { round_trips: short }), Ok(News::Reached { round_trips: long })] = &lengths else {
            let err = lengths.into_iter().find_map(Result::err);
            findings.extend(err.map(|err| lost(patient.number, "data plane", &err)));
            continue;
        };
        let others: Vec<_> = sockets.iter().filter(|(_, other)| *other != from.1).map(|(p, _)| p.number).collect();
        findings.extend(judge::reached(patient.number, &others, short, long, longest));
    }
    findings
}

/// How long each core takes to send, compared with the others.
fn latencies(patients: &[Patient], sends: u32) -> Vec<Finding> {
    let tickets: Vec<_> = patients.iter().map(|p| p.agent.send(&Order::Latency { count: sends })).collect();
    let answers = patients.iter().zip(tickets).map(|(patient, ticket)| match patient.agent.answer(ticket, LOOK) {
        Ok(News::Latency { medians }) => judge::latency(patient.number, &medians),
        Ok(_) => Vec::new(),
        Err(err) => vec![lost(patient.number, "latency", &err)],
    });
    answers.flatten().collect()
}

fn print(args: &DoctorArgs, machines: &[Machine], findings: &[Finding]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if args.format == Format::Json {
        serde_json::to_writer_pretty(&mut stdout, &serde_json::json!({ "version": 1, "findings": findings }))?;
        writeln!(stdout)?;
        return Ok(());
    }
    for (number, machine) in machines.iter().enumerate() {
        let own: Vec<_> = findings.iter().filter(|finding| finding.node == number).collect();
        let verdict = if own.is_empty() { "well" } else { "" };
        writeln!(stdout, "node {number} ({}): {verdict}", machine.access.host)?;
        for Finding { level, check, found, to_do, .. } in own {
            let level = if *level == Level::Bad { "bad" } else { "odd" };
            writeln!(stdout, "  {level}  {check}: {found}\n       to do: {to_do}")?;
        }
    }
    Ok(stdout.flush()?)
}
