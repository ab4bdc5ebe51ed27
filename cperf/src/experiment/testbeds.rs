//! The same experiment on simulated nodes, on network namespaces and on machines: what its file says for each, and what
//! each cannot do.

use serde_json::{Map, Value, json};

use super::SIMULATOR;
use super::file::{File, Measure, Vary};
use crate::cli::{Protocol, TestbedKind};
use crate::sim::cluster::NO_KERNEL;
use crate::sim::spec::SimSpec;

/// Parameters that describe a cluster: on another one they are what `[netns]` says, or the default there.
const CLUSTER: [&str; 8] = [
    "nodes",
    "link_gbps",
    "link_delay_ns",
    "switch_buffer_bytes",
    "dctcp_threshold_bytes",
    "host_model",
    "warmup_s",
    "measure_s",
];
/// Parameters that only simulated nodes have.
const SIMULATED: [&str; 11] = [
    "max_message_bytes",
    "min_fraction",
    "one_way",
    "converge_within",
    "topology",
    "racks",
    "spines",
    "spine_gbps",
    "routing",
    "switch_alpha",
    "host_model",
];
/// Those that nodes have which are made, but machines have as they are.
const MADE: [&str; 4] = ["mtu_bytes", "loss", "switch_buffer_bytes", "shaped"];

/// Version of what measures, for the identity of points.
pub fn version(testbed: TestbedKind) -> String {
    match testbed {
        TestbedKind::Sim => SIMULATOR.to_owned(),
        real => format!("cperf {} {}", env!("CARGO_PKG_VERSION"), real.name()),
    }
}

/// The experiment as it is on `testbed`.
///
/// # Errors
/// It is not for this testbed: says for which it is.
pub fn adapted(mut file: File, testbed: TestbedKind) -> Result<File, String> {
    let can: Vec<_> = file.testbeds.iter().map(|testbed| format!("--testbed {}", testbed.name())).collect();
    if !file.testbeds.contains(&testbed) {
        return Err(format!("it cannot be run on --testbed {}: it can on {}", testbed.name(), can.join(", ")));
    }
    if testbed == TestbedKind::Sim {
        return Ok(file);
    }
    if file.measure != Measure::Run {
        let text = "it cannot be run on --testbed {}: its measurements limit the memory of the switch and read how much was \
                    used, which --testbed sim can";
        return Err(text.replace("{}", testbed.name()));
    }
    let table = std::mem::take(&mut file.netns);
    if !table.is_empty() {
        let netns = testbed == TestbedKind::Netns;
        if netns {
            rescale(&mut file, &table);
        }
        for name in CLUSTER {
            file.fixed.remove(name);
        }
        // Machines have links, and a number, of their own; what they are told is how long.
        let said = table.iter().filter(|(name, _)| netns || ["warmup_s", "measure_s"].contains(&name.as_str()));
        said.for_each(|(name, value)| replace(&mut file, name, value));
    }
    for (name, ports) in [("client_ports", 1), ("server_ports", 1)] {
        let varies = |vary: &Vary| {
            vary.parameter.as_deref() == Some(name) || vary.cases.iter().any(|case| case.contains_key(name))
        };
        if !file.fixed.contains_key(name) && !file.vary.iter().any(varies) {
            file.fixed.insert(name.to_owned(), json!(ports));
        }
    }
    Ok(file)
}

/// Loads in proportion to the links' rates, where `table` has another one.
fn rescale(file: &mut File, table: &Map<String, Value>) {
    let rate = |table: &Map<String, Value>| table.get("link_gbps").and_then(Value::as_f64);
    let (Some(here), false) = (rate(table), table.contains_key("gbps")) else { return };
    let scale = here / rate(&file.fixed).unwrap_or(SimSpec::default().link_gbps);
    let scaled = |value: &mut Value| {
        if let Some(gbps) = value.as_f64() {
            // Digits that nobody asked for would be in every name and plot.
            *value = json!((gbps * scale * 1e6).round() / 1e6);
        }
    };
    for name in ["gbps", "beside_gbps"] {
        file.fixed.get_mut(name).into_iter().for_each(scaled);
    }
    for vary in &mut file.vary {
        if vary.parameter.as_deref() == Some("gbps") {
            vary.values.iter_mut().for_each(scaled);
        }
        for name in ["gbps", "beside_gbps"] {
            vary.cases.iter_mut().filter_map(|case| case.get_mut(name)).for_each(scaled);
        }
    }
}

/// Sets `name` for all points, or, with a list, lets it vary so.
fn replace(file: &mut File, name: &str, value: &Value) {
    let found = file.vary.iter().position(|vary| vary.parameter.as_deref() == Some(name));
    match (value, found) {
        (Value::Array(values), Some(at)) => file.vary[at].values.clone_from(values),
        (Value::Array(values), None) => {
            file.fixed.remove(name);
            let parameter = Some(name.to_owned());
            file.vary.push(Vary { parameter, values: values.clone(), cases: Vec::new() });
        }
        (_, at) => {
            at.map(|at| file.vary.remove(at));
            file.vary.iter_mut().flat_map(|vary| &mut vary.cases).for_each(|case| drop(case.remove(name)));
            file.fixed.insert(name.to_owned(), value.clone());
        }
    }
}

/// Refuses what `testbed` has no way to do.
///
/// # Errors
/// Names the parameter, and the testbeds that can.
pub fn check(sim: &SimSpec, testbed: TestbedKind) -> Result<(), String> {
    let here = testbed.name();
    if testbed == TestbedKind::Sim {
        if let Some(option) = sim.node.keys().next() {
            return Err(format!("node.{option}: nodes on --testbed sim have no such; those on netns and ssh have"));
        }
        if [Some(sim.protocol), sim.beside].contains(&Some(Protocol::HomaKernel)) {
            return Err(NO_KERNEL.to_owned());
        }
        return if sim.shaped {
            Ok(())
        } else {
            Err("shaped is false: links on --testbed sim have a rate; on netns they need none".to_owned())
        };
    }
    let object = |sim: &SimSpec| serde_json::to_value(sim).unwrap_or_default();
    let (given, default) = (object(sim), object(&SimSpec::default()));
    let refused = SIMULATED.iter().map(|name| (name, "--testbed sim"));
    let made = MADE.iter().filter(|_| testbed == TestbedKind::Ssh).map(|name| (name, "--testbed sim and netns"));
    for (name, who) in refused.chain(made) {
        if given[name] != default[name] {
            let value = super::plan::text(&given[name]);
            return Err(format!(
                "{name} is {value}: nodes on --testbed {here} cannot have that set; those on {who} can"
            ));
        }
    }
    if sim.beside.is_some() && sim.gbps != Some(sim.beside_gbps) {
        let text = "nodes on --testbed {} have the same load by both protocols; those on --testbed sim can have others";
        return Err(format!("beside_gbps is {}: {}", sim.beside_gbps, text.replace("{}", here)));
    }
    if testbed == TestbedKind::Netns && [Some(sim.protocol), sim.beside].contains(&Some(Protocol::Dctcp)) {
        return Err(
            "protocol is dctcp: switches on --testbed netns mark no packets; those on --testbed sim do".to_owned()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::bundled;
    use super::super::plan::Plan;
    use super::*;

    fn plan(name: &str, testbed: TestbedKind, set: &[(&str, Value)]) -> Result<Plan, String> {
        let set: Vec<_> = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Plan::on(testbed, File::parse(&bundled::find(name).unwrap()).unwrap(), &set)
    }

    #[test]
    fn on_namespaces_links_are_slower_and_loads_in_proportion() {
        let points = plan("vs_tcp", TestbedKind::Netns, &[]).unwrap().points;
        let first = &points[0].spec.sim;
        assert_eq!((first.nodes, first.link_gbps, first.gbps, first.measure_s), (4, 0.1, Some(0.0128), 5.0));
        assert!(points.iter().all(|point| point.spec.sim.protocol != Protocol::Dctcp));
        assert_ne!(points[0].id, plan("vs_tcp", TestbedKind::Sim, &[]).unwrap().points[0].id);
        let set = [("nodes", json!(3)), ("link_gbps", json!(0.2)), ("gbps", json!(0.1))];
        let other = plan("vs_tcp", TestbedKind::Netns, &set).unwrap().points[0].spec.sim.clone();
        assert_eq!((other.nodes, other.link_gbps, other.gbps), (3, 0.2, Some(0.1)), "the command line goes before");
        let ports = plan("server_ports", TestbedKind::Netns, &[]).unwrap();
        assert!(ports.points.iter().all(|point| !point.spec.sim.shaped && point.spec.sim.server_nodes == 1));
    }

    #[test]
    fn what_a_testbed_cannot_do_is_refused_with_those_that_can() {
        use TestbedKind::{Netns, Sim, Ssh};
        for (name, testbed, set, part) in [
            ("overcommit", Netns, ("nodes", json!(4)), "its measurements limit the memory of the switch"),
            ("cstates", Sim, ("nodes", json!(4)), "it can on --testbed netns, --testbed ssh"),
            ("config_window", Netns, ("nodes", json!(4)), "it can on --testbed sim"),
            ("vs_tcp", Sim, ("node.poll_usecs", json!(4)), "those on netns and ssh have"),
            ("vs_tcp", Sim, ("protocol", json!("homa-kernel")), "those on --testbed netns and ssh have"),
            ("vs_tcp", Netns, ("one_way", json!(true)), "one_way is true"),
            ("vs_tcp", Netns, ("protocol", json!("dctcp")), "those on --testbed sim do"),
            ("vs_tcp", Ssh, ("loss", json!(0.1)), "those on --testbed sim and netns can"),
            ("both", Netns, ("beside_gbps", json!(0.3)), "the same load by both"),
            ("vs_tcp", Sim, ("shaped", json!(false)), "on netns they need none"),
        ] {
            let error = plan(name, testbed, &[set]).unwrap_err();
            assert!(error.contains(part), "{name}: {error}");
        }
    }

    /// Every experiment can be planned wherever it says that it can be run.
    #[test]
    fn every_experiment_can_be_planned_on_its_testbeds() {
        for name in bundled::names() {
            let file = File::parse(&bundled::find(&name).unwrap()).unwrap();
            for testbed in file.testbeds.clone() {
                let planned = Plan::on(testbed, file.clone(), &[]);
                // Those that need switch memory say so.
                match planned {
                    Ok(plan) => assert!(plan.points.len() >= 2, "{name}"),
                    Err(err) => assert!(testbed != TestbedKind::Sim && err.contains("--testbed sim"), "{name}: {err}"),
                }
            }
        }
    }
}
