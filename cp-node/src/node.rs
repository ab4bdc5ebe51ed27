//! The state of a node, and what each command does to it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::arrivals::{Arrivals, rate_per_port};
use crate::cli::{ClientOptions, Command, Common, Level, Protocol, ServerOptions, Stop, Trace};
use crate::client::{ClientPort, MAX_SLOTS, Target};
use crate::clock::now_ns;
use crate::errors::Usage;
use crate::latency;
use crate::log::Log;
use crate::message::MAX_LEN;
use crate::rng::{self, Rng};
use crate::rtts::{self, Facts};
use crate::stats::Seconds;
use crate::totals::Totals;
use crate::transport::{ClientHandle, ServerCounters, ServerHandle, homa, kernel, tcp};
use crate::workload::{Distribution, Reduction, Workload};

/// Longest wait for outstanding RPCs when clients are stopped.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// The clients of one `client` command.
pub(crate) struct ClientGroup {
    pub(crate) experiment: String,
    pub(crate) options: ClientOptions,
    pub(crate) ports: Vec<Arc<ClientPort>>,
    pub(crate) handle: Box<dyn ClientHandle>,
}

/// The servers of one `server` command.
pub(crate) struct ServerGroup {
    pub(crate) experiment: String,
    pub(crate) protocol: String,
    /// Of each port.
    pub(crate) counters: Vec<Arc<ServerCounters>>,
    pub(crate) handle: Box<dyn ServerHandle>,
}

/// Everything that runs on this node. One lock around it serialises commands and statistics.
pub(crate) struct Node {
    log: Log,
    addresses: BTreeMap<u8, IpAddr>,
    clients: Vec<ClientGroup>,
    servers: Vec<ServerGroup>,
    seconds: Seconds,
    totals: Totals,
    homa: Option<homa::Engine>,
    debug: [i64; 5],
    latency: Option<latency::Held>,
    /// Of the last `client` command: part of the default name of a server's experiment.
    workload: Workload,
}

impl Node {
    /// A node with nothing on it.
    pub(crate) fn new(log: Log) -> Self {
        Self {
            log,
            addresses: BTreeMap::new(),
            clients: Vec::new(),
            servers: Vec::new(),
            seconds: Seconds::default(),
            totals: Totals::default(),
            homa: None,
            debug: [0; 5],
            latency: None,
            workload: Workload::Fixed(100),
        }
    }

    /// Runs one command; the result is what it prints to stdout.
    ///
    /// # Errors
    /// If the command could not be carried out; it has no effect then.
    pub(crate) fn run(&mut self, command: Command) -> Result<String> {
        match command {
            Command::Client(options) => self.start_clients(*options)?,
            Command::Server(options) => self.start_servers(*options)?,
            Command::DumpTimes { file, experiment } => self.dump_times(&file, experiment.as_deref())?,
            Command::Stop { what } => what.into_iter().for_each(|w| self.stop(w)),
            Command::Log { file, level, text } => self.control_log(file.as_deref(), level, &text)?,
            Command::Tt { action } => self.control_trace(action)?,
            Command::Debug { values } => self.set_debug(&values)?,
            Command::Info { workload, mtu } => return Ok(info(workload, mtu)),
            Command::Hosts { pairs } => self.addresses.extend(pairs.iter().map(|p| (p.node, p.addr))),
            Command::Metrics { file } => self.homa()?.metrics(&file)?,
            Command::Stats { file } if file == Path::new("reset") => {
                self.totals.reset(&self.clients, &self.servers, now_ns());
            }
            Command::Stats { file } => self.totals.write(&file, &self.clients, &self.servers, now_ns())?,
            Command::Probe { .. } => bail!(Usage("probe runs only as a command of its own: cp-node probe".into())),
            Command::Agent { .. } => bail!(Usage("agent runs only as a command of its own: cp-node agent".into())),
            Command::CpuLatency { us } => self.latency = Some(latency::hold(Path::new(latency::DEVICE), us)?),
            Command::Exit => {}
        }
        Ok(String::new())
    }

    /// The Homa metrics, if there is a Homa stack.
    pub(crate) fn homa_metrics(&self) -> Option<String> {
        self.homa.as_ref()?.metrics_text().ok()
    }

    /// Logs the statistics since the previous call.
    pub(crate) fn log_second(&mut self) {
        for line in self.seconds.lines(now_ns(), &self.clients, &self.servers) {
            self.log.line(line);
        }
    }

    /// True if there is a client or server.
    pub(crate) fn is_busy(&self) -> bool {
        !self.clients.is_empty() || !self.servers.is_empty()
    }

    fn start_clients(&mut self, options: ClientOptions) -> Result<()> {
        self.addresses.extend(options.hosts.iter().map(|p| (p.node, p.addr)));
        let protocol = options.common.protocol();
        if options.unloaded > 0 && protocol == Protocol::Tcp {
            bail!(Usage("--unloaded works with --protocol homa and homa-kernel only".into()));
        }
        if options.port_max() > MAX_SLOTS {
            bail!(Usage(format!(
                "--client-max gives each port more than {MAX_SLOTS} requests; lower it or raise --ports"
            )));
        }
        let targets = self.targets(&options)?;
        let max_len =
            if options.no_trunc && protocol == Protocol::Tcp { MAX_LEN } else { Reduction::default().max_len };
        let lengths = Arc::new(Distribution::new(options.workload, Reduction { max_len, ..Reduction::default() }));
        if lengths.points().iter().any(|p| p.len > max_len) {
            bail!(Usage(format!(
                "messages of {protocol:?} have at most {max_len} bytes here; --no-trunc lifts this for TCP"
            )));
        }
        let rate = rate_per_port(options.gbps, lengths.mean(), options.ports.into());
        let loads = self.loads(&options, &lengths, targets.len(), rate)?;
        let samples_per_port = options.max_samples / usize::from(options.ports);
        let ports: Vec<_> = (0..options.ports)
            .map(|i| {
                let node = options.node().unwrap_or(0);
                let mut port = ClientPort::new(i as u8, node, targets.clone(), options.port_max(), samples_per_port);
                port.one_way = options.one_way;
                Arc::new(port)
            })
            .collect();
        let handle = match protocol {
            Protocol::Tcp => tcp::open_client(&options, &ports, loads, &self.log)?,
            Protocol::HomaKernel => kernel::open_client(&options, &ports, loads, &lengths, &self.log)?,
            Protocol::Homa => {
                let debug = self.debug;
                let engine = self.open_homa(&options.common)?;
                let client = engine.open_client(&options, &ports, loads, &lengths)?;
                engine.set_debug(debug)?;
                client
            }
        };
        self.log.line(format_args!(
            "Average message length {:.1} KB, rate {:.2} K/sec, expected BW {:.1} Gbps",
            lengths.mean() / 1e3,
            rate / 1e3,
            rate * lengths.mean() * 8.0 / 1e9
        ));
        let group = ClientGroup { experiment: options.experiment(), ports, handle, options };
        self.workload = group.options.workload;
        self.totals.opened_client(&group, now_ns());
        self.clients.push(group);
        self.seconds.restart();
        Ok(())
    }

    /// One load for each port; their random numbers follow from the seed, the node and the port.
    fn loads(
        &self,
        options: &ClientOptions,
        lengths: &Arc<Distribution>,
        servers: usize,
        rate: f64,
    ) -> Result<Vec<Arrivals>> {
        let seed = match options.seed {
            Some(seed) => seed,
            None => rng::seed_from_os().context("can't get a random seed from the system; give --seed")?,
        };
        self.log.line(format_args!("Load of {} repeats with --seed {seed}", options.experiment()));
        let streams = Rng::streams(seed, options.node(), options.ports.into());
        Ok(streams.into_iter().map(|rng| Arrivals::new(Arc::clone(lengths), servers, rate, rng)).collect())
    }

    /// All server ports that the clients send to.
    fn targets(&self, options: &ClientOptions) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        for node in options.server_numbers() {
            let ip = self.address(node, options.common.ipv6)?;
            for index in 0..options.server_ports {
                let port = options.common.first_port().checked_add(index);
                let port =
                    port.ok_or_else(|| Usage("the last server port is above 65535; lower --first-port".into()))?;
                targets.push(Target { node, index: index as u8, addr: SocketAddr::new(ip, port) });
            }
        }
        if targets.is_empty() {
            bail!(Usage(
                "no server is left: --servers (or --first-server and --server-nodes) name only this node, --id".into()
            ));
        }
        Ok(targets)
    }

    fn address(&self, node: u8, ipv6: bool) -> Result<IpAddr> {
        if let Some(addr) = self.addresses.get(&node) {
            if addr.is_ipv6() != ipv6 {
                bail!(Usage(format!(
                    "node {node} has the address {addr}: {} --ipv6",
                    if ipv6 { "leave out" } else { "give" }
                )));
            }
            return Ok(*addr);
        }
        let name = format!("node{node}");
        let found = (name.as_str(), 0).to_socket_addrs();
        found
            .map_err(anyhow::Error::from)
            .and_then(|mut all| {
                all.find(|a| a.is_ipv6() == ipv6).ok_or_else(|| anyhow!("no address of the wanted family"))
            })
            .map(|a| a.ip())
            .with_context(|| format!("can't find host {name}; give its address with `hosts {node}=ADDRESS`"))
    }

    fn start_servers(&mut self, options: ServerOptions) -> Result<()> {
        let protocol = options.common.protocol();
        // Homa's workers count for themselves.
        let parts = if protocol == Protocol::Homa { self.open_homa(&options.common)?.workers() } else { 1 };
        let counters: Vec<_> =
            (0..usize::from(options.ports) * parts).map(|_| Arc::new(ServerCounters::default())).collect();
        let handle = match options.common.protocol() {
            Protocol::Tcp => tcp::open_server(&options, &counters, &self.log)?,
            Protocol::HomaKernel => kernel::open_server(&options, &counters, &self.log)?,
            Protocol::Homa => self.open_homa(&options.common)?.open_server(&options, &counters)?,
        };
        let protocol = options.common.protocol;
        let experiment = options.common.exp.unwrap_or_else(|| format!("{protocol}_{}", self.workload));
        let group = ServerGroup { experiment, protocol, counters, handle };
        self.totals.opened_server(&group, now_ns());
        self.servers.push(group);
        self.seconds.restart();
        Ok(())
    }

    fn stop(&mut self, what: Stop) {
        match what {
            Stop::Senders => self.clients.iter_mut().for_each(|g| g.handle.stop_senders()),
            Stop::Clients => self.stop_clients(),
            Stop::Servers => {
                self.servers.iter_mut().for_each(|g| g.handle.close());
                self.totals.closed(&[], &self.servers, now_ns());
                self.servers.clear();
            }
        }
    }

    fn stop_clients(&mut self) {
        self.clients.iter_mut().for_each(|g| g.handle.stop_senders());
        let limit = Instant::now() + DRAIN_LIMIT;
        let ports = || self.clients.iter().flat_map(|g| &g.ports);
        while ports().any(|p| p.outstanding() > 0) && Instant::now() < limit {
            thread::sleep(Duration::from_millis(2));
        }
        for group in &mut self.clients {
            if let Some(line) = incomplete(group) {
                self.log.line(line);
            }
            group.handle.close();
            let undumped: usize = group.ports.iter().map(|p| p.samples.take().len()).sum();
            if undumped > 0 {
                self.log.detail(format_args!("{undumped} samples of {} were not dumped", group.experiment));
            }
        }
        self.totals.closed(&self.clients, &[], now_ns());
        self.clients.clear();
    }

    fn dump_times(&mut self, file: &Path, experiment: Option<&str>) -> Result<()> {
        let groups: Vec<_> = self.clients.iter().filter(|g| experiment.is_none_or(|e| e == g.experiment)).collect();
        let Some(last) = groups.last() else {
            bail!(
                "no client{} is running: nothing to dump",
                experiment.map(|e| format!(" of experiment {e}")).unwrap_or_default()
            );
        };
        let facts = Facts {
            experiment: experiment.map(str::to_owned),
            protocol: last.options.common.protocol.clone(),
            workload: last.options.workload.to_string(),
            gbps: last.options.gbps,
            ports: groups.iter().map(|g| g.ports.len()).sum(),
            server_nodes: last.options.server_numbers().len(),
            server_ports: last.options.server_ports.into(),
            client_max: last.options.client_max as usize,
        };
        let ports = || groups.iter().flat_map(|g| &g.ports);
        let taken: Vec<_> = ports().map(|p| p.samples.take()).collect();
        let lost: u64 = taken.iter().map(|t| t.lost).sum();
        if lost > 0 {
            self.log.line(format_args!("ERROR: {lost} samples are lost: dump more often or raise --max-samples"));
        }
        if let Err(error) = rtts::write(file, &facts, &taken) {
            // They may be written elsewhere.
            ports().zip(taken).for_each(|(port, taken)| port.samples.restore(taken));
            return Err(error);
        }
        Ok(())
    }

    fn control_log(&self, file: Option<&str>, level: Option<Level>, text: &[String]) -> Result<()> {
        if let Some(file) = file {
            self.log.redirect(file)?;
        }
        if let Some(level) = level {
            self.log.set_verbose(level == Level::Verbose);
            self.log.line(format_args!("Log level is now {}", format!("{level:?}").to_lowercase()));
        }
        if !text.is_empty() {
            self.log.line(text.join(" "));
        }
        Ok(())
    }

    fn control_trace(&mut self, action: Trace) -> Result<()> {
        match action {
            Trace::Freeze => self.homa()?.freeze(),
            Trace::Unfreeze { until_full } => self.homa()?.unfreeze(until_full),
            Trace::Print { file } => self.homa()?.print_trace(&file),
        }
    }

    fn set_debug(&mut self, values: &[i64]) -> Result<()> {
        self.debug = [0; 5];
        self.debug[..values.len()].copy_from_slice(values);
        self.homa.as_ref().map_or(Ok(()), |engine| engine.set_debug(self.debug))
    }

    fn homa(&self) -> Result<&homa::Engine> {
        self.homa.as_ref().context("this node has no Homa stack yet: start a homa client or server first")
    }

    /// The node's Homa stack, started if this is its first use.
    fn open_homa(&mut self, common: &Common) -> Result<&homa::Engine> {
        if let Some(engine) = self.homa.take_if(|e| e.has_ended()) {
            bail!("the Homa stack of this node has stopped: {}", engine.why_ended());
        }
        if self.homa.is_none() {
            self.homa = Some(homa::Engine::start(common, self.log.clone())?);
        }
        let engine = self.homa.as_ref().expect("started above");
        engine.check_compatible(common)?;
        Ok(engine)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.clients.iter_mut().for_each(|g| g.handle.close());
        self.servers.iter_mut().for_each(|g| g.handle.close());
    }
}

/// The line that tells of RPCs without an end; `None` if there are none.
fn incomplete(group: &ClientGroup) -> Option<String> {
    let targets = &group.ports.first()?.targets;
    let mut counts = vec![0; targets.len()];
    for port in &group.ports {
        counts.iter_mut().zip(port.outstanding_by_target()).for_each(|(sum, n)| *sum += n);
    }
    let total: usize = counts.iter().sum();
    let each = targets.iter().zip(&counts).filter(|(_, n)| **n > 0);
    let each: Vec<_> = each.map(|(t, n)| format!("node{}.{}: {n}", t.node, t.addr.port())).collect();
    let protocol = &group.options.common.protocol;
    (total > 0).then(|| format!("ERROR: {total} incomplete {protocol} requests ({})", each.join(", ")))
}

fn info(workload: Workload, mtu: u32) -> String {
    let lengths = Distribution::new(workload, Reduction::default());
    format!("Workload {workload}: mean {:.1} bytes, overhead {:.3}\n", lengths.mean(), lengths.overhead(mtu))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(node: &mut Node, line: &str) -> Result<String> {
        node.run(Command::parse_line(line).unwrap().unwrap())
    }

    #[test]
    fn info_prints_mean_and_overhead() {
        let mut node = Node::new(Log::stdout());
        assert_eq!(run(&mut node, "info w4 1500").unwrap(), "Workload w4: mean 61008.1 bytes, overhead 0.085\n");
    }

    #[test]
    fn impossible_options_are_usage_errors_that_name_the_option() {
        let mut node = Node::new(Log::stdout());
        for (line, word) in [
            ("client --protocol tcp --servers 3 --id 3", "--servers"),
            ("client --protocol tcp --unloaded 5", "--unloaded"),
            ("client --protocol tcp --client-max 70000", "--client-max"),
            ("client --protocol tcp --hosts 1=127.0.0.1 --ipv6", "--ipv6"),
            ("client --protocol tcp --hosts 1=127.0.0.1 --port-receivers 0", "--port-receivers"),
            ("client --protocol homa --hosts 1=127.0.0.1 --workload 1000001", "--no-trunc"),
        ] {
            let error = run(&mut node, line).unwrap_err();
            assert_eq!(crate::errors::exit_code(&error), 2, "{line}: {error:#}");
            assert!(format!("{error:#}").contains(word), "{line}: {error:#}");
        }
        assert!(!node.is_busy());
    }

    #[test]
    fn a_server_that_does_not_answer_is_named() {
        let mut node = Node::new(Log::stdout());
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let line = format!("client --protocol tcp --hosts 1=127.0.0.1 --first-port {free}");
        let error = format!("{:#}", run(&mut node, &line).unwrap_err());
        assert!(error.contains("node 1 at 127.0.0.1"), "{error}");
    }

    #[test]
    fn commands_without_their_object_say_what_is_missing() {
        let mut node = Node::new(Log::stdout());
        assert!(run(&mut node, "dump_times /dev/null").is_err());
        for line in ["tt freeze", "metrics /dev/null"] {
            assert!(format!("{:#}", run(&mut node, line).unwrap_err()).contains("homa client or server"), "{line}");
        }
    }
}
