//! From the options given to the options in effect: checked, and with nothing left to default.

use crate::cli::RunArgs;
use crate::error::Stop;
use crate::rates::{self, Workload};
use crate::testbed::netns::{MAX_NODES, MTU_RANGE};

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
    let nodes = args.nodes;
    require((2..=MAX_NODES).contains(&nodes), || {
        format!("--nodes {nodes}: a node talks to the others, so from 2 to {MAX_NODES} are needed")
    })?;
    let mtu = args.mtu;
    require(MTU_RANGE.contains(&mtu), || {
        format!("--mtu {mtu}: an interface takes {} to {} bytes", MTU_RANGE.start(), MTU_RANGE.end())
    })?;
    require(!args.protocols.is_empty(), || "--protocols: name at least one".to_owned())?;
    options.protocols.dedup();
    let repeated =
        options.protocols.iter().enumerate().find(|(at, protocol)| options.protocols[..*at].contains(protocol));
    require(repeated.is_none(), || "--protocols: each can be named once".to_owned())?;
    positive("--seconds", args.seconds, LONGEST)?;
    if args.warmup != 0.0 {
        positive("--warmup", args.warmup, LONGEST)?;
    }
    positive("--base-usecs", args.base_usecs, 1e9)?;
    positive("--link-mbps", args.link_mbps, 1e9)?;
    for (name, value) in [
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
    let gbps = args.gbps.unwrap_or_else(|| rates::default_gbps(rates::cores(), nodes, workload.mean_bytes));
    require(gbps.is_finite() && gbps >= 0.0, || format!("--gbps {gbps}: a load is 0 (no limit) or positive"))?;
    options.gbps = Some(gbps);
    options.poll_usecs = args.poll_usecs.or_else(|| Some(default_poll(rates::cores(), nodes)));
    Ok(options)
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
    use clap::Parser as _;

    fn parse(words: &str) -> Result<RunArgs, Stop> {
        let Command::Run(args) = Cli::parse_from(format!("cperf run {words}").split_whitespace()).command;
        effective(&args)
    }

    #[test]
    fn the_load_is_filled_in_and_the_rest_has_defaults() {
        let options = parse("w4").unwrap();
        assert!(options.gbps.unwrap() > 0.0);
        assert_eq!((options.nodes, options.seconds, options.mtu), (4, 5.0, 9000));
        assert_eq!(parse("w4 --gbps 0.5").unwrap().gbps, Some(0.5));
        assert_eq!(parse("w4 --gbps 0").unwrap().gbps, Some(0.0), "no limit");
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
            ("w4 --seconds 0", "--seconds 0"),
            ("w4 --seconds nan", "--seconds"),
            ("w4 --warmup=-1", "--warmup -1"),
            ("w4 --gbps inf", "--gbps inf"),
            ("w4 --gbps=-1", "--gbps -1"),
            ("w4 --client-max 0", "--client-max 0"),
            ("w4 --mtu 100", "--mtu 100"),
            ("w4 --protocols homa,tcp,homa", "each can be named once"),
        ] {
            let stop = parse(words).unwrap_err();
            assert_eq!(stop.code(), 2, "{words}");
            assert!(stop.to_string().contains(part), "{words}: {stop}");
        }
    }
}
