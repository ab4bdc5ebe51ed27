//! From the options given to the options in effect: checked, and with nothing left to default.

use cp_node::workload::{Distribution, Reduction};

use super::homa;
use crate::cli::{Device, Protocol, RunArgs, TestbedKind};
use crate::error::Stop;
use crate::experiment::overrides;
use crate::rates::{self, Workload};
use crate::sim::cluster::NO_KERNEL;
use crate::sim::spec::SimSpec;
use crate::testbed::netns::{MAX_NODES, MTU_RANGE};

/// MTU by which the overhead of packets is judged where it is not known yet, bytes.
#[cfg(feature = "ssh")]
const MACHINES_MTU: u32 = 1500;
/// Longest interval, seconds: a day.
const LONGEST: f64 = 86_400.0;

/// Checks every option, and fills in the load.
///
/// # Errors
/// [`Stop::Usage`], naming the option and what it takes.
pub(super) fn effective(args: &RunArgs) -> Result<RunArgs, Stop> {
    let workload = Workload::parse(&args.workload)?;
    let mut options = args.clone();
    options.workload = workload.name;
    if !args.has("nodes") {
        options.nodes = 4;
    }
    if !args.has("seconds") {
        options.seconds = 5.0;
    }
    if !args.has("warmup") {
        options.warmup = 1.0;
    }
    if !args.has("protocols") {
        options.protocols = vec![Protocol::Homa, Protocol::Tcp];
    }
    let nodes = options.nodes;
    require((2..=MAX_NODES).contains(&nodes), || {
        format!("--nodes {nodes}: a node talks to the others, so from 2 to {MAX_NODES} are needed")
    })?;
    for (name, value) in [("--client-nodes", args.client_nodes), ("--server-nodes", args.server_nodes)] {
        require(value <= nodes, || format!("{name} {value}: there are {nodes} nodes"))?;
    }
    let has = |protocol| options.protocols.contains(&protocol);
    require(!(has(Protocol::Homa) && has(Protocol::HomaKernel)), || {
        "--protocols homa,homa-kernel: both would answer packets of the other on the same interface; run one, then the other"
            .to_owned()
    })?;
    require(!has(Protocol::Dctcp) || args.testbed == TestbedKind::Ssh, || {
        "--protocols dctcp: on --testbed netns there are homa and tcp (--tcp-cc dctcp where the kernel has it)"
            .to_owned()
    })?;
    let mtu = args.mtu();
    options.mtu = Some(mtu);
    require(MTU_RANGE.contains(&mtu), || {
        format!("--mtu {mtu}: an interface takes {} to {} bytes", MTU_RANGE.start(), MTU_RANGE.end())
    })?;
    require(args.load.is_none() || args.link_gbps.is_some(), || {
        "--load: on --testbed netns it is a share of --link-gbps, which is missing".to_owned()
    })?;
    let links = args.links();
    options.switch_buffer = links.shape.map(|shape| shape.switch_buffer_bytes.into());
    require((0.0..1.0).contains(&args.loss), || format!("--loss {}: a share from 0 to below 1", args.loss))?;
    if let Some(shape) = &links.shape {
        shape.check(mtu)?;
        options.homa = homa::parameters(shape, mtu, &args.homa);
    }
    once_each(&mut options.protocols)?;
    require(!(options.hijack && options.device == Device::AfXdp), || {
        "--hijack: packets in the guise of TCP's need --device af-packet".to_owned()
    })?;
    require(options.homa_workers == 1 || options.device == Device::AfPacket, || {
        "--homa-workers: more than one need --device af-packet".to_owned()
    })?;
    positive("--seconds", options.seconds, LONGEST)?;
    if options.warmup != 0.0 {
        positive("--warmup", options.warmup, LONGEST)?;
    }
    positive("--base-usecs", args.base_usecs, 1e9)?;
    positive("--link-mbps", args.link_mbps, 1e9)?;
    for (name, value) in [
        ("--homa-workers", args.homa_workers.into()),
        ("--client-max", args.client_max),
        ("--unloaded-samples", args.unloaded_samples),
        ("--client-ports", args.client_ports.into()),
        ("--server-ports", args.server_ports.into()),
        ("--tcp-client-ports", args.tcp_client_ports.into()),
        ("--tcp-server-ports", args.tcp_server_ports.into()),
        ("--tcp-port-receivers", args.tcp_port_receivers.into()),
        ("--tcp-port-threads", args.tcp_port_threads.into()),
    ] {
        require(value >= 1, || format!("{name} 0: at least 1 is needed"))?;
    }
    let by_load = match (args.load, &links.shape) {
        (Some(load), Some(shape)) => Some(of_link(load, shape.link_gbps, &options.workload, mtu)?),
        _ => None,
    };
    let gbps = args.gbps.or(by_load).unwrap_or_else(|| rates::default_gbps(rates::cores(), nodes, workload.mean_bytes));
    require(gbps.is_finite() && gbps >= 0.0, || format!("--gbps {gbps}: a load is 0 (no limit) or positive"))?;
    options.gbps = Some(gbps);
    options.poll_usecs = args.poll_usecs.or_else(|| Some(default_poll(rates::cores(), nodes)));
    Ok(options)
}

/// Options of a run on `machines` machines with links of `link_gbps`, with nothing left to default.
///
/// # Errors
/// As [`effective`].
#[cfg(feature = "ssh")]
pub(super) fn on_machines(args: &RunArgs, machines: usize, link_gbps: Option<f64>) -> Result<RunArgs, Stop> {
    let mut options = args.clone();
    if !args.has("nodes") {
        options.nodes = machines;
        options.given.push("nodes".to_owned());
    }
    require(options.nodes <= machines, || format!("--nodes {}: the cluster has {machines}", options.nodes))?;
    options.load = None;
    if args.gbps.is_none() {
        let workload = Workload::parse(&args.workload)?.name;
        let gbps = match (args.load, link_gbps) {
            (_, None) => {
                let text = "--gbps is needed: the cluster file has no link_gbps from which it would follow";
                return Err(Stop::Usage(text.to_owned()));
            }
            (Some(load), Some(link)) => of_link(load, link, &workload, MACHINES_MTU)?,
            (None, Some(link_gbps)) => {
                let spec = SimSpec { workload, link_gbps, ..SimSpec::default() }.resolved().map_err(Stop::Usage)?;
                spec.gbps.unwrap_or(0.0)
            }
        };
        options.gbps = Some(gbps);
    }
    if let Some(gbps) = link_gbps {
        if !args.homa.iter().any(|pair| pair.starts_with("link_mbps=")) {
            options.homa.insert(0, format!("link_mbps={:.0}", gbps * 1e3));
        }
        if !args.has("link-mbps") {
            options.link_mbps = gbps * 1e3;
        }
    }
    // Each node has a machine to itself.
    options.poll_usecs = args.poll_usecs.or(Some(50));
    let mut options = effective(&options)?;
    (options.mtu, options.load) = (None, args.load);
    Ok(options)
}

/// Options of a run on simulated nodes with nothing left to default, and what is measured of each protocol.
///
/// # Errors
/// [`Stop::Usage`], naming the option or the parameter and what it takes.
pub(super) fn simulated(args: &RunArgs) -> Result<(RunArgs, Vec<SimSpec>), Stop> {
    let workload = Workload::parse(&args.workload)?;
    let mut options = args.clone();
    options.workload.clone_from(&workload.name);
    if !args.has("protocols") {
        options.protocols = vec![Protocol::Homa, Protocol::Tcp, Protocol::Dctcp];
    }
    once_each(&mut options.protocols)?;
    require(!options.protocols.contains(&Protocol::HomaKernel), || format!("--protocols: {NO_KERNEL}"))?;
    require(args.threads != Some(0), || "--threads 0: at least 1 is needed".to_owned())?;
    require(args.unloaded_samples >= 1, || "--unloaded-samples 0: at least 1 is needed".to_owned())?;
    positive("--base-usecs", args.base_usecs, 1e9)?;
    let mut base = SimSpec { workload: workload.name, ..SimSpec::default() };
    for (name, value) in overrides::of(args)? {
        base = base.with(&name, &value).map_err(Stop::Usage)?;
    }
    let spec = |protocol: &Protocol| {
        let (client, server) = match protocol {
            Protocol::Homa | Protocol::HomaKernel => {
                (("client-ports", args.client_ports), ("server-ports", args.server_ports))
            }
            _ => (("tcp-client-ports", args.tcp_client_ports), ("tcp-server-ports", args.tcp_server_ports)),
        };
        let ports = |(option, value): (&str, u16)| args.has(option).then_some(value);
        let (client_ports, server_ports) = (ports(client), ports(server));
        let spec = SimSpec { protocol: *protocol, client_ports, server_ports, ..base.clone() };
        spec.resolved().map_err(|text| Stop::Usage(overrides::as_options(&text)))
    };
    let specs: Vec<_> = options.protocols.iter().map(spec).collect::<Result<_, _>>()?;
    let first = &specs[0];
    options.nodes = first.nodes as usize;
    options.seconds = first.measure_s;
    options.warmup = first.warmup_s;
    options.gbps = first.gbps;
    options.mtu = Some(first.mtu_bytes);
    options.link_gbps = Some(first.link_gbps);
    options.switch_buffer = Some(first.switch_buffer_bytes);
    if !args.has("link-mbps") {
        options.link_mbps = first.link_gbps * 1e3;
    }
    Ok((options, specs))
}

/// Protocols to compare: some, and each once.
fn once_each(protocols: &mut Vec<Protocol>) -> Result<(), Stop> {
    require(!protocols.is_empty(), || "--protocols: name at least one".to_owned())?;
    protocols.dedup();
    let repeated = protocols.iter().enumerate().find(|(at, protocol)| protocols[..*at].contains(protocol));
    require(repeated.is_none(), || "--protocols: each can be named once".to_owned())
}

/// Payload that makes the share `load` of a link, with its headers and framing: 10^9 bit/s.
fn of_link(load: f64, link_gbps: f64, workload: &str, mtu: u32) -> Result<f64, Stop> {
    require(load > 0.0 && load <= 1.0, || format!("--load {load}: a share of the link above 0, up to 1"))?;
    let lengths = workload.parse().expect("the name of a workload was checked");
    let overhead = Distribution::new(lengths, Reduction::default()).overhead(mtu);
    Ok(load * link_gbps / (1.0 + overhead))
}

/// Default of `--poll-usecs`. Four nodes on two busy cores (EPYC, w1, 16,000 RPC/s): short messages took 540 us at P50
/// with 50, 140 us with 10.
fn default_poll(cores: usize, nodes: usize) -> u32 {
    if cores > nodes { 50 } else { 5 }
}

fn positive(name: &str, value: f64, most: f64) -> Result<(), Stop> {
    require(value > 0.0 && value <= most, || format!("{name} {value}: a number above 0, up to {most}, is needed"))
}

fn require(holds: bool, text: impl FnOnce() -> String) -> Result<(), Stop> {
    if holds { Ok(()) } else { Err(Stop::Usage(text())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    fn given(words: &str) -> RunArgs {
        let cli = Cli::read(format!("cperf run {words}").split_whitespace()).unwrap();
        let Command::Run(args) = cli.command else { unreachable!("it is a run") };
        *args
    }

    fn parse(words: &str) -> Result<RunArgs, Stop> {
        effective(&given(&format!("{words} --testbed netns")))
    }

    #[test]
    #[cfg(feature = "ssh")]
    fn machines_get_the_load_of_their_links_or_what_is_said() {
        let args = |words: &str| given(&format!("{words} --testbed ssh --cluster x"));
        let options = on_machines(&args("w4"), 8, Some(10.0)).unwrap();
        assert_eq!((options.nodes, options.gbps, options.poll_usecs), (8, Some(8.0), Some(50)));
        assert_eq!((options.homa[0].as_str(), options.mtu, options.link_mbps), ("link_mbps=10000", None, 10_000.0));
        let options = on_machines(&args("w4 -n 3 --gbps 0.5"), 8, None).unwrap();
        assert_eq!((options.nodes, options.gbps), (3, Some(0.5)));
        assert!(options.homa.is_empty());
        for (words, part) in [("w4 -n 9 --gbps 1", "the cluster has 8"), ("w4", "--gbps is needed")] {
            let stop = on_machines(&args(words), 8, None).unwrap_err();
            assert!(stop.code() == 2 && stop.to_string().contains(part), "{stop}");
        }
    }

    #[test]
    fn simulated_nodes_get_the_published_clusters_values_and_what_is_given() {
        let (options, specs) = simulated(&given("w4")).unwrap();
        assert_eq!(specs.iter().map(|spec| spec.protocol.name()).collect::<Vec<_>>(), ["homa", "tcp", "dctcp"]);
        assert_eq!((options.nodes, options.gbps, options.link_mbps), (10, Some(20.0), 25_000.0));
        assert_eq!((specs[1].client_ports, specs[1].server_ports), (Some(4), Some(8)));
        let words = "w2 -n 40 --protocols tcp,homa --link-gbps 100 --load 0.5 --mtu 9000 --seconds 0.2 --warmup 0 \
                     --switch-buffer 1000000 --tcp-client-ports 2 --priorities 4 --homa window=0 --host-model ideal";
        let (options, specs) = simulated(&given(words)).unwrap();
        assert_eq!((specs[0].protocol, specs[0].client_ports), (Protocol::Tcp, Some(2)));
        assert_eq!((specs[0].nodes, specs[0].mtu_bytes, specs[0].measure_s, specs[0].warmup_s), (40, 9000, 0.2, 0.0));
        assert_eq!((specs[1].homa["num_priorities"], specs[1].homa["window"]), (4, 0));
        assert_eq!(specs[0].switch_buffer_bytes, 1_000_000);
        assert_eq!(options.link_mbps, 100_000.0);
        assert!((options.gbps.unwrap() - 50.0 / 1.254).abs() < 0.05, "{:?}", options.gbps);
    }

    #[test]
    fn hosts_are_spread_over_racks_evenly() {
        for (nodes, racks) in [(16, 1), (40, 4), (144, 9), (160, 10), (17, 17), (34, 17)] {
            let (_, specs) = simulated(&given(&format!("w4 --topology leaf-spine --nodes {nodes}"))).unwrap();
            assert_eq!((specs[0].racks, specs[0].spine_gbps), (racks, 100.0), "{nodes} nodes");
        }
    }

    #[test]
    fn wrong_values_of_simulated_nodes_are_named_as_options() {
        for (words, part) in [
            ("w4 --nodes 1", "--nodes 1: from 2 to 256"),
            ("w4 --seconds 0", "--seconds 0"),
            ("w4 --load 1.5", "--load 1.5"),
            ("w4 --mtu 10", "--mtu 10"),
            ("w4 --threads 0", "--threads 0"),
            ("w4 --homa windw=3", "did you mean `window`"),
            ("w4 --homa window", "NAME=VALUE"),
            ("w4 --priorities 9", "from 1 to 8"),
            ("w4 --protocols homa,tcp,homa", "each can be named once"),
            ("w4 --protocols homa-kernel", "those on --testbed netns and ssh have"),
        ] {
            let stop = simulated(&given(words)).unwrap_err();
            assert_eq!(stop.code(), 2, "{words}");
            assert!(stop.to_string().contains(part), "{words}: {stop}");
        }
    }

    #[test]
    fn the_load_is_filled_in_and_the_rest_has_defaults() {
        let options = parse("w4").unwrap();
        assert!(options.gbps.unwrap() > 0.0);
        assert_eq!((options.nodes, options.seconds, options.mtu), (4, 5.0, Some(9000)));
        assert_eq!(parse("w4 --gbps 0.5").unwrap().gbps, Some(0.5));
        assert_eq!(parse("w4 --gbps 0").unwrap().gbps, Some(0.0), "no limit");
    }

    #[test]
    fn a_shaped_link_scales_load_packets_and_parameters() {
        let options = parse("w4 --link-gbps 0.2 --load 0.8 --homa window=7000").unwrap();
        // Headers and framing add 8.5 % at MTU 1500.
        assert!((options.gbps.unwrap() - 0.16 / 1.085).abs() < 1e-4, "{:?}", options.gbps);
        assert_eq!(options.mtu, Some(1500));
        assert!(options.homa.contains(&"unsched_bytes=5776".to_owned()), "{:?}", options.homa);
        assert_eq!(options.homa.last().unwrap(), "window=7000");
        assert!(parse("w4").unwrap().homa.is_empty(), "a link as fast as the machine keeps the defaults");
    }

    #[test]
    fn nodes_spin_only_with_cores_to_spare() {
        assert_eq!((default_poll(8, 4), default_poll(4, 4), default_poll(2, 4)), (50, 5, 5));
        assert_eq!(parse("w4 --poll-usecs 7").unwrap().poll_usecs, Some(7));
        assert!(parse("w4").unwrap().poll_usecs.is_some());
    }

    #[test]
    fn wrong_options_are_named() {
        for (words, part) in [
            ("w9", "did you mean"),
            ("w4 --nodes 1", "--nodes 1"),
            ("w4 --nodes 0", "--nodes 0"),
            ("w4 --nodes 257", "2 to 256"),
            ("w4 --nodes 3 --client-nodes 4", "--client-nodes 4: there are 3 nodes"),
            ("w4 --seconds 0", "--seconds 0"),
            ("w4 --seconds nan", "--seconds"),
            ("w4 --warmup=-1", "--warmup -1"),
            ("w4 --gbps inf", "--gbps inf"),
            ("w4 --gbps=-1", "--gbps -1"),
            ("w4 --client-max 0", "--client-max 0"),
            ("w4 --mtu 100", "--mtu 100"),
            ("w4 --link-gbps 0", "--link-gbps 0"),
            ("w4 --link-gbps 1 --load 1.5", "--load 1.5"),
            ("w4 --link-gbps 1 --priorities 9", "--priorities 9"),
            ("w4 --link-gbps 1 --switch-buffer 100", "--switch-buffer 100"),
            ("w4 --loss 1", "--loss 1"),
            ("w4 --device af-xdp --hijack", "--device af-packet"),
            ("w4 --device af-xdp --homa-workers 2", "--device af-packet"),
            ("w4 --homa-workers 0", "--homa-workers 0"),
            ("w4 --protocols homa,tcp,homa", "each can be named once"),
            ("w4 --protocols dctcp", "on --testbed netns there are homa and tcp"),
            ("w4 --load 0.5", "--link-gbps, which is missing"),
            ("w4 --protocols homa-kernel,homa", "run one, then the other"),
        ] {
            let stop = parse(words).unwrap_err();
            assert_eq!(stop.code(), 2, "{words}");
            assert!(stop.to_string().contains(part), "{words}: {stop}");
        }
    }
}
