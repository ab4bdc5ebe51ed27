//! The steps of a run, in order. Source: cperf.md 3.5.
//!
//! Two steps differ in order from the original, so that collecting does not disturb what is collected: counters are
//! read first, which takes microseconds, then senders stop, and only then are samples written, which keeps a core busy
//! for a while; RPCs that were under way then still count.

use std::ops::Range;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::{Device, Protocol, RunArgs};
use crate::journal::Journal;
use crate::node::{NodeError, Nodes};
use crate::outdir::OutDir;
use crate::rates;
use crate::report::results::Status;
use crate::sim::spec::SimSpec;
use crate::sim::switch::Switch;
use crate::testbed::Testbed;
use crate::testbed::links::PortCounts;

/// Commands that only note something.
const QUICK: Duration = Duration::from_secs(10);
/// Connections to every server, buffers.
const CLIENT: Duration = Duration::from_secs(40);
/// Writing samples and traces: at the pace of a slow disk.
const WRITE: Duration = Duration::from_secs(120);
/// A round of every length of a workload.
const UNLOADED: Duration = Duration::from_secs(180);
/// What is left of a failed run is not waited for as long.
const SALVAGE: Duration = Duration::from_secs(5);

/// Phases of a run, and how long a node may take for one command in them before it counts as hanging.
pub(crate) const LIMITS: [(&str, Duration); 7] = [
    ("start", QUICK),
    ("times without load", UNLOADED),
    ("servers", QUICK),
    ("clients", CLIENT),
    ("counters", QUICK),
    ("samples and traces", WRITE),
    ("what is left after a failure", SALVAGE),
];

/// A protocol whose measured interval began.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Which.
    pub(crate) protocol: Protocol,
    /// Whether the interval was whole.
    pub(crate) status: Status,
    /// What happened at the switch's ports meanwhile, if the testbed counts that.
    pub(crate) ports: Vec<PortCounts>,
    /// What happened at the switches, of simulated nodes.
    pub(crate) switch: Option<Switch>,
}

/// File name stem of a protocol's files: `homa_w4`.
pub(super) fn experiment(protocol: Protocol, workload: &str) -> String {
    format!("{}_{workload}", protocol.name())
}

/// Starts `cp-node` on every node, tells each its log and everybody's address.
pub(super) fn start(
    options: &RunArgs,
    nodes: &mut Nodes,
    testbed: &mut dyn Testbed,
    out: &OutDir,
) -> anyhow::Result<()> {
    for number in 0..testbed.nodes() {
        let stderr = format!("node{number}.stderr");
        nodes.add(testbed.start(number, &[], out.path(), &stderr, None)?);
    }
    nodes.settle(QUICK)?;
    nodes.tell(QUICK, |number| Some(format!("log --file node{number}.log --level normal")))?;
    let hosts: String = (0..testbed.nodes()).map(|number| format!(" {number}={}", testbed.address(number))).collect();
    nodes.tell(QUICK, |_| Some(format!("hosts{hosts}")))?;
    match options.cpu_latency_us {
        Some(us) => nodes.tell(QUICK, |_| Some(format!("cpu_latency {us}"))),
        None => Ok(()),
    }
}

/// These protocols together, or without any the unloaded run.
pub(super) fn round(
    options: &RunArgs,
    nodes: &mut Nodes,
    testbed: &mut dyn Testbed,
    journal: &mut Journal,
    parts: &mut Vec<Part>,
    out: &OutDir,
    protocols: &[Protocol],
) -> anyhow::Result<()> {
    let interfaces: Vec<_> =
        (0..testbed.nodes()).map(|node| testbed.named_interface(node).map(str::to_owned)).collect();
    if protocols.is_empty() {
        journal.say("homa: round-trip times without load, the baseline of slowdowns");
        nodes.enter("measuring without load", true);
        return unloaded(options, nodes, &interfaces).context("in the unloaded run");
    }
    let name = names(protocols);
    let before = testbed.ports()?;
    let (interfaces, out) = (&interfaces[..], out.path());
    let mut phase = Phase { options, protocols, nodes, journal, interfaces, measuring: false, written: false };
    let result = phase.run();
    let (measuring, written) = (phase.measuring, phase.written);
    let stage = phase.nodes.stage();
    let status = super::status(&result);
    if measuring {
        let ports: Vec<_> = testbed.ports()?.iter().zip(&before).map(|(now, then)| now.since(then)).collect();
        parts.extend(protocols.iter().map(|protocol| Part {
            protocol: *protocol,
            status,
            ports: ports.clone(),
            switch: None,
        }));
    }
    if result.is_err() && measuring && !written {
        phase.salvage();
    }
    result.with_context(|| format!("in the {name} run, while {stage}"))?;
    // What has been measured is safe before the next protocol begins.
    if let Some((node, err)) = testbed.collect(out).into_iter().next() {
        return Err(err.context(format!("in the {name} run: collecting files of node {node}")));
    }
    Ok(())
}

/// One Homa RPC at a time from node 1 to node 0, every length of the workload.
fn unloaded(options: &RunArgs, nodes: &mut Nodes, interfaces: &[Option<String>]) -> anyhow::Result<()> {
    let only = |which: usize, line: String| move |number: usize| (number == which).then(|| line.clone());
    let (samples, workload, seed) = (options.unloaded_samples, &options.workload, options.seed);
    // Only two nodes are busy here, so they may spin: the baseline is the best that this machine does.
    let poll = if rates::cores() >= 2 { String::new() } else { poll(options) };
    // What is to be measured is in the way of another stack on the same interface.
    let kernel = options.protocols.contains(&Protocol::HomaKernel);
    let protocol = if kernel { Protocol::HomaKernel } else { Protocol::Homa }.name();
    let common = |node: usize| match kernel {
        true => format!("{poll}{}", version(options)),
        false => format!("{poll}{}{}{}", version(options), homa(options), interface(interfaces, node)),
    };
    nodes.tell(QUICK, only(0, format!("server --ports 1 --protocol {protocol} --exp unloaded{}", common(0))))?;
    let client = format!(
        "client --protocol {protocol} --ports 1 --server-ports 1 --client-max 1 --servers 0 --id 1 --workload {workload} \
         --unloaded {samples} --seed {seed} --exp unloaded{}",
        common(1)
    );
    nodes.tell(UNLOADED, only(1, client))?;
    nodes.tell(WRITE, only(1, "dump_times unloaded.rtts unloaded".to_owned()))?;
    nodes.tell(QUICK, only(1, "stop clients".to_owned()))?;
    nodes.tell(QUICK, only(0, "stop servers".to_owned()))
}

/// A command for each node.
type Line = Box<dyn Fn(usize) -> String>;

/// Names of protocols that run at the same time, or what is measured without any.
pub(super) fn names(protocols: &[Protocol]) -> String {
    if protocols.is_empty() {
        return "times without load".to_owned();
    }
    protocols.iter().map(|protocol| protocol.name()).collect::<Vec<_>>().join(" and ")
}

/// One protocol's run, or that of several at once.
struct Phase<'a> {
    options: &'a RunArgs,
    protocols: &'a [Protocol],
    nodes: &'a mut Nodes,
    journal: &'a mut Journal,
    /// Names of the nodes' interfaces, where they have to be told.
    interfaces: &'a [Option<String>],
    /// The measured interval has begun, so there is something to keep.
    measuring: bool,
    /// The nodes have been told to write it.
    written: bool,
}

impl Phase<'_> {
    fn run(&mut self) -> anyhow::Result<()> {
        let (name, everybody) = (names(self.protocols), 0..self.options.nodes);
        self.journal.say(&format!("{name}: starting servers and clients, {} s of warm-up", self.options.warmup));
        let (options, interfaces) = (self.options, self.interfaces);
        // The kernel finds its way by routes.
        let place = |protocol, node| match protocol {
            Protocol::Homa => interface(interfaces, node),
            Protocol::HomaKernel | Protocol::Tcp | Protocol::Dctcp => String::new(),
        };
        let (_, servers) = roles(options);
        self.nodes.enter("starting", true);
        for &protocol in self.protocols {
            let server = server(options, protocol);
            let line = |number| servers.contains(&number).then(|| server.clone() + &place(protocol, number));
            self.nodes.tell(QUICK, line)?;
        }
        for &protocol in self.protocols {
            let line =
                |number| asks(options, number).then(|| client(options, protocol, number) + &place(protocol, number));
            self.nodes.tell(CLIENT, line)?;
        }
        self.nodes.enter("warming up", true);
        self.nodes.pass(Duration::from_secs_f64(options.warmup), |_| {})?;
        self.begin()?;
        self.measuring = true;
        self.nodes.enter("measuring", true);
        self.measure()?;
        self.nodes.enter("collecting", false);
        self.finish(everybody.collect())?;
        self.nodes.tell(QUICK, |_| Some("stop clients".to_owned()))?;
        self.nodes.tell(QUICK, |_| Some("stop servers".to_owned()))
    }

    /// Forgets the warm-up.
    fn begin(&mut self) -> anyhow::Result<()> {
        let options = self.options;
        for stem in self.stems() {
            self.nodes.tell(WRITE, |number| asks(options, number).then(|| format!("dump_times /dev/null {stem}")))?;
        }
        if self.protocols.contains(&Protocol::Homa) {
            let stem = experiment(Protocol::Homa, &options.workload);
            let busy = |number: usize, line: String| takes_part(options, number).then_some(line);
            self.nodes.tell(QUICK, |number| busy(number, format!("metrics {stem}-{number}.metrics.before")))?;
            self.nodes.tell(QUICK, |number| busy(number, "tt unfreeze --until-full".to_owned()))?;
        }
        self.nodes.tell(QUICK, |_| Some("stats reset".to_owned()))?;
        for stem in self.stems() {
            self.nodes.tell(QUICK, |_| Some(format!("log Starting measurements for {stem} experiment")))?;
        }
        Ok(())
    }

    /// Lets the time pass.
    fn measure(&mut self) -> anyhow::Result<()> {
        let time = Duration::from_secs_f64(self.options.seconds);
        let name = names(self.protocols);
        self.journal.say(&format!("{name}: measuring for {} s", self.options.seconds));
        let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix:>6} [{bar:40}] {msg}").expect("a template without errors");
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(name.clone());
        let passed = self.nodes.pass(time, |passed| {
            let share = passed.as_secs_f64() / time.as_secs_f64();
            bar.set_position((share * 1000.0) as u64);
            bar.set_message(format!("{:.1} of {:.1} s", passed.as_secs_f64(), time.as_secs_f64()));
        });
        bar.finish_and_clear();
        passed
    }

    /// Has `which` nodes write what they measured. A node that fails is told, and the others go on: what they have
    /// measured is no worse for it. Returns the first failure.
    fn finish(&mut self, mut which: Vec<usize>) -> anyhow::Result<()> {
        self.written = true;
        let homa = self.protocols.contains(&Protocol::Homa).then(|| experiment(Protocol::Homa, &self.options.workload));
        let stems: Vec<_> = self.stems().collect();
        let mut steps = Vec::new();
        let mut step = |limit, line: Line| steps.push((limit, line));
        let name = |stem: &String, what: fn(&str, usize) -> String| {
            let stem = stem.clone();
            Box::new(move |number| what(&stem, number))
        };
        if let Some(stem) = &homa {
            step(QUICK, name(stem, |_, _| "tt freeze".to_owned()));
        }
        for stem in &stems {
            step(QUICK, name(stem, |stem, number| format!("stats {stem}-{number}.stats")));
        }
        if let Some(stem) = &homa {
            step(QUICK, name(stem, |stem, number| format!("metrics {stem}-{number}.metrics.after")));
        }
        for stem in &stems {
            step(QUICK, name(stem, |stem, _| format!("log Ending measurements for {stem} experiment")));
        }
        step(QUICK, name(&stems[0], |_, _| "stop senders".to_owned()));
        for stem in &stems {
            step(WRITE, name(stem, |stem, number| format!("dump_times {stem}-{number}.rtts {stem}")));
        }
        if let Some(stem) = &homa {
            step(WRITE, name(stem, |_, number| format!("tt print traces/node{number}.tt")));
        }
        let (mut result, options) = (Ok(()), self.options);
        for (limit, line) in steps {
            let told = self.nodes.tell(limit, |number| {
                let line = which.contains(&number).then(|| line(number))?;
                // Samples are the clients', metrics and traces of those that take part.
                let has =
                    if line.starts_with("dump_times") { asks(options, number) } else { takes_part(options, number) };
                has.then_some(line)
            });
            let Err(err) = told else { continue };
            // It has failed, or is gone: the others still have their prompts to come.
            let failed = err.downcast_ref::<NodeError>().map(NodeError::node);
            let left = self.nodes.salvage(limit);
            which.retain(|number| left.contains(number) && Some(*number) != failed);
            if result.is_ok() {
                result = Err(err);
            } else {
                self.journal.say(&format!("{err:#}"));
            }
        }
        result
    }

    /// After a failure or an interrupt: the nodes that still answer write what they have. Best effort: the reason why
    /// the run ended is known already.
    fn salvage(&mut self) {
        self.nodes.enter("collecting", false);
        let left = self.nodes.salvage(SALVAGE);
        self.journal.say(&format!("keeping what {} of {} nodes have measured", left.len(), self.options.nodes));
        if let Err(err) = self.finish(left.clone()) {
            self.journal.say(&format!("while keeping it: {err:#}"));
        }
    }

    fn stems(&self) -> impl Iterator<Item = String> + use<> {
        let of = |protocol: &Protocol| experiment(*protocol, &self.options.workload);
        self.protocols.iter().map(of).collect::<Vec<_>>().into_iter()
    }
}

/// The server command of a node.
fn server(options: &RunArgs, protocol: Protocol) -> String {
    let (stem, common) = (experiment(protocol, &options.workload), common(options, protocol));
    match protocol {
        Protocol::Homa => format!("server --ports {} --exp {stem}{common}", options.server_ports),
        Protocol::HomaKernel => format!(
            "server --ports {} --port-threads {} --exp {stem}{common}",
            options.server_ports, options.tcp_port_threads
        ),
        Protocol::Tcp | Protocol::Dctcp => format!(
            "server --ports {} --port-threads {} --exp {stem}{common}",
            options.tcp_server_ports, options.tcp_port_threads
        ),
    }
}

/// The client command of node `number`: load to all others.
fn client(options: &RunArgs, protocol: Protocol, number: usize) -> String {
    let RunArgs { workload, client_max, seed, .. } = options;
    let (_, servers) = roles(options);
    let servers: Vec<_> = servers.filter(|&other| other != number).map(|other| other.to_string()).collect();
    let servers = servers.join(",");
    let gbps = client_gbps(options);
    let stem = experiment(protocol, workload);
    let common = common(options, protocol);
    let shape = match protocol {
        Protocol::Homa => format!("--ports {} --server-ports {}", options.client_ports, options.server_ports),
        Protocol::HomaKernel => format!(
            "--ports {} --server-ports {} --port-receivers {}",
            options.client_ports, options.server_ports, options.tcp_port_receivers
        ),
        Protocol::Tcp | Protocol::Dctcp => format!(
            "--ports {} --server-ports {} --port-receivers {}",
            options.tcp_client_ports, options.tcp_server_ports, options.tcp_port_receivers
        ),
    };
    format!(
        "client {shape} --workload {workload} --servers {servers} --gbps {gbps:.6} --client-max {client_max} \
         --id {number} --seed {seed} --exp {stem}{common}"
    )
}

/// Numbers of the nodes that are clients, and of those that are servers.
pub(super) fn roles(options: &RunArgs) -> (Range<usize>, Range<usize>) {
    let of = |some: usize| if some == 0 { options.nodes } else { some };
    (options.nodes - of(options.client_nodes)..options.nodes, 0..of(options.server_nodes))
}

/// Whether a node sends requests.
pub(super) fn asks(options: &RunArgs, number: usize) -> bool {
    let (clients, mut servers) = roles(options);
    clients.contains(&number) && servers.any(|server| server != number)
}

/// Whether a node is client or server.
fn takes_part(options: &RunArgs, number: usize) -> bool {
    asks(options, number) || roles(options).1.contains(&number)
}

/// Requests of each client, 10^9 bit/s. A node that is both sends requests and the responses to others' requests, so the
/// former are half of its load: cperf.md 2.6.
fn client_gbps(options: &RunArgs) -> f64 {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let spec = SimSpec {
        nodes: number(options.nodes),
        client_nodes: number(options.client_nodes),
        server_nodes: number(options.server_nodes),
        gbps: options.gbps,
        ..SimSpec::default()
    };
    spec.client_gbps()
}

/// Options that clients and servers of a protocol share.
fn common(options: &RunArgs, protocol: Protocol) -> String {
    let mut text = format!(" --protocol {}{}{}", protocol.name(), poll(options), version(options));
    if protocol == Protocol::Homa {
        text += &homa(options);
    }
    let control = match protocol {
        Protocol::Tcp => Some(options.tcp_cc.as_str()),
        Protocol::Dctcp => Some("dctcp"),
        Protocol::Homa | Protocol::HomaKernel => None,
    };
    if let Some(control) = control {
        text += &format!(" --tcp-wait {} --tcp-cc {control}", options.tcp_wait.name());
    }
    text
}

/// Device, guise, workers and parameters of Homa, where they are not the defaults.
fn homa(options: &RunArgs) -> String {
    let mut text = String::new();
    if options.device != Device::AfPacket {
        text += &format!(" --device {}", options.device.name());
    }
    if options.hijack {
        text += " --hijack";
    }
    if options.homa_workers > 1 {
        text += &format!(" --homa-workers {}", options.homa_workers);
    }
    if options.protocols.iter().any(|protocol| matches!(protocol, Protocol::Tcp | Protocol::Dctcp)) {
        // The choice of a congestion control may need them.
        text += " --keep-privileges";
    }
    if !options.homa.is_empty() {
        text += &format!(" --homa {}", options.homa.join(","));
    }
    text
}

/// The interface of a node, where it has to be told.
fn interface(interfaces: &[Option<String>], node: usize) -> String {
    let name = interfaces.get(node).and_then(Option::as_deref);
    name.map(|name| format!(" --interface {name}")).unwrap_or_default()
}

/// Version of IP.
fn version(options: &RunArgs) -> &'static str {
    if options.ipv6 { " --ipv6" } else { "" }
}

fn poll(options: &RunArgs) -> String {
    options.poll_usecs.map(|usecs| format!(" --poll-usecs {usecs}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    fn options(words: &str) -> RunArgs {
        let cli =
            Cli::read(format!("cperf run {words} --protocols homa,tcp --testbed netns").split_whitespace()).unwrap();
        let Command::Run(args) = cli.command else { unreachable!("it is a run") };
        *args
    }

    #[test]
    fn a_client_sends_half_of_the_load_to_all_others() {
        let line = client(&options("w4 --nodes 3 --gbps 0.5 --seed 9"), Protocol::Homa, 1);
        let want = "client --ports 1 --server-ports 1 --workload w4 --servers 0,2 --gbps 0.250000 --client-max 200 \
                    --id 1 --seed 9 --exp homa_w4 --protocol homa --keep-privileges";
        assert_eq!(line, want);
    }

    #[test]
    fn homas_parameters_go_to_homa_only_and_the_ip_version_to_both() {
        let options = options("w4 --nodes 2 --gbps 1 --ipv6 --homa window=1,tick_us=2");
        let homa = client(&options, Protocol::Homa, 0);
        assert!(homa.ends_with(" --protocol homa --ipv6 --keep-privileges --homa window=1,tick_us=2"), "{homa}");
        assert!(client(&options, Protocol::Tcp, 0).contains("--protocol tcp --ipv6 --tcp-wait"));
    }

    #[test]
    fn device_guise_and_workers_go_to_homa_only() {
        let options = options("w4 --nodes 2 --gbps 1 --device af-xdp --hijack --homa-workers 2");
        assert!(
            client(&options, Protocol::Homa, 0).contains(" --protocol homa --device af-xdp --hijack --homa-workers 2")
        );
        assert!(!client(&options, Protocol::Tcp, 0).contains("--device"));
    }

    #[test]
    fn tcp_options_go_to_tcp_only() {
        let options =
            options("w4 --nodes 2 --gbps 1 --tcp-wait spin --tcp-cc reno --poll-usecs 7 --tcp-port-receivers 2");
        let tcp = client(&options, Protocol::Tcp, 0);
        assert!(tcp.ends_with("--exp tcp_w4 --protocol tcp --poll-usecs 7 --tcp-wait spin --tcp-cc reno"), "{tcp}");
        assert!(tcp.contains("--port-receivers 2"));
        assert!(!client(&options, Protocol::Homa, 0).contains("tcp"));
    }
}
