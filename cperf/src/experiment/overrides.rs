//! Options of the command line as parameters of a measurement.

use serde_json::{Value, json};

use crate::cli::RunArgs;
use crate::error::Stop;
use crate::sim::check;
use crate::sim::spec::TopologyKind;

/// Most hosts in a rack, where only the number of nodes is said.
const RACK: u32 = 16;
/// Options whose value is that of a parameter: option, parameter.
const NAMES: [(&str, &str); 15] = [
    ("nodes", "nodes"),
    ("client-nodes", "client_nodes"),
    ("server-nodes", "server_nodes"),
    ("gbps", "gbps"),
    ("load", "load"),
    ("seconds", "measure_s"),
    ("warmup", "warmup_s"),
    ("seed", "seed"),
    ("client-max", "client_max"),
    ("mtu", "mtu_bytes"),
    ("link-gbps", "link_gbps"),
    ("switch-buffer", "switch_buffer_bytes"),
    ("dctcp-threshold", "dctcp_threshold_bytes"),
    ("host-model", "host_model"),
    ("loss", "loss"),
];

/// Parameters that options on the command line set, in the order in which they are to be set.
///
/// # Errors
/// [`Stop::Usage`] if one is not of the form NAME=VALUE.
pub fn of(args: &RunArgs) -> Result<Vec<(String, Value)>, Stop> {
    let value = |option: &str| match option {
        "nodes" => json!(args.nodes),
        "client-nodes" => json!(args.client_nodes),
        "server-nodes" => json!(args.server_nodes),
        "gbps" => json!(args.gbps),
        "load" => json!(args.load),
        "seconds" => json!(args.seconds),
        "warmup" => json!(args.warmup),
        "seed" => json!(args.seed),
        "client-max" => json!(args.client_max),
        "mtu" => json!(args.mtu),
        "link-gbps" => json!(args.link_gbps),
        "switch-buffer" => json!(args.switch_buffer),
        "dctcp-threshold" => json!(args.dctcp_threshold),
        "loss" => json!(args.loss),
        _ => json!(args.host_model),
    };
    let given = NAMES.iter().filter(|(option, _)| args.has(option));
    let mut all: Vec<_> = given.map(|(option, name)| ((*name).to_owned(), value(option))).collect();
    if args.has("topology") {
        all.push(("topology".to_owned(), json!(args.topology)));
        if args.topology == TopologyKind::LeafSpine && args.has("nodes") {
            all.push(("racks".to_owned(), json!(racks(args.nodes as u32))));
            all.push(("spine_gbps".to_owned(), json!(4.0 * args.link_gbps.unwrap_or(25.0))));
        }
    }
    if args.has("priorities") {
        all.push(("homa.num_priorities".to_owned(), json!(args.priorities)));
    }
    for (name, _) in check::NODE {
        if args.has(&name.replace('_', "-")) {
            all.push((format!("node.{name}"), node(args, name)));
        }
    }
    for pair in &args.homa {
        let (name, value) = pair_of("--homa", pair)?;
        all.push((format!("homa.{name}"), value));
    }
    for pair in &args.set {
        let (name, value) = pair_of("--set", pair)?;
        all.push((name.to_owned(), value));
    }
    Ok(all)
}

/// The value of the option of real nodes that is the parameter `name`.
fn node(args: &RunArgs, name: &str) -> Value {
    match name {
        "poll_usecs" => json!(args.poll_usecs),
        "homa_workers" => json!(args.homa_workers),
        "device" => json!(args.device),
        "tcp_port_receivers" => json!(args.tcp_port_receivers),
        "tcp_port_threads" => json!(args.tcp_port_threads),
        "tcp_wait" => json!(args.tcp_wait),
        "tcp_cc" => json!(args.tcp_cc),
        _ => json!(args.cpu_latency_us),
    }
}

/// The message of a wrong parameter with the option's name where one sets it: `nodes is 1: …` as `--nodes 1: …`.
pub fn as_options(text: &str) -> String {
    let option =
        |(option, name): &(&str, &str)| Some(format!("--{option} {}", text.strip_prefix(&format!("{name} is "))?));
    NAMES.iter().find_map(option).unwrap_or_else(|| text.to_owned())
}

/// `NAME=VALUE`: a number, true or false, or else text.
fn pair_of<'a>(option: &str, pair: &'a str) -> Result<(&'a str, Value), Stop> {
    let Some((name, value)) = pair.split_once('=') else {
        return Err(Stop::Usage(format!("{option} {pair}: expected NAME=VALUE")));
    };
    Ok((name, serde_json::from_str(value).unwrap_or_else(|_| json!(value))))
}

/// The fewest racks, of up to 16 hosts, over which `nodes` can be spread evenly.
fn racks(nodes: u32) -> u32 {
    let fewest = nodes.div_ceil(RACK).max(1);
    (fewest..=nodes.max(1)).find(|racks| nodes.is_multiple_of(*racks)).unwrap_or(1)
}
