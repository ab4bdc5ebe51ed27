//! The experiments that come with the program.

use super::aspects;

/// What stands at the top of each: where people learn what there is.
const HEAD: &str = include_str!("../../experiments/head.txt");

/// Name and text of each.
const ALL: [(&str, &str); 28] = [
    ("w1", include_str!("../../experiments/w1.toml")),
    ("w2", include_str!("../../experiments/w2.toml")),
    ("w3", include_str!("../../experiments/w3.toml")),
    ("w4", include_str!("../../experiments/w4.toml")),
    ("w5", include_str!("../../experiments/w5.toml")),
    ("starve", include_str!("../../experiments/starve.toml")),
    ("atc21", include_str!("../../experiments/atc21.toml")),
    ("sigcomm18", include_str!("../../experiments/sigcomm18.toml")),
    ("buffers", include_str!("../../experiments/buffers.toml")),
    ("nodes", include_str!("../../experiments/nodes.toml")),
    ("link_util", include_str!("../../experiments/link_util.toml")),
    ("dctcp_threshold", include_str!("../../experiments/dctcp_threshold.toml")),
    ("dynamic_windows", include_str!("../../experiments/dynamic_windows.toml")),
    ("overcommit", include_str!("../../experiments/overcommit.toml")),
    ("unsched_bytes", include_str!("../../experiments/unsched_bytes.toml")),
    ("fifo", include_str!("../../experiments/fifo.toml")),
    ("incast", include_str!("../../experiments/incast.toml")),
    ("vs_tcp", include_str!("../../experiments/vs_tcp.toml")),
    ("both", include_str!("../../experiments/both.toml")),
    ("load", include_str!("../../experiments/load.toml")),
    ("mtu", include_str!("../../experiments/mtu.toml")),
    ("client_threads", include_str!("../../experiments/client_threads.toml")),
    ("server_ports", include_str!("../../experiments/server_ports.toml")),
    ("tcp", include_str!("../../experiments/tcp.toml")),
    ("basic", include_str!("../../experiments/basic.toml")),
    ("tcp_outstanding", include_str!("../../experiments/tcp_outstanding.toml")),
    ("cstates", include_str!("../../experiments/cstates.toml")),
    ("workers", include_str!("../../experiments/workers.toml")),
];

/// Names of all.
pub fn names() -> impl Iterator<Item = String> {
    ALL.iter().map(|(name, _)| (*name).to_owned()).chain(aspects::names())
}

/// The text of one.
pub fn find(name: &str) -> Option<String> {
    let text = file(name).map(str::to_owned).or_else(|| aspects::find(name, file))?;
    let gap = if text.starts_with('#') { "" } else { "\n" };
    Some(format!("{HEAD}{gap}{text}"))
}

/// One that is a file of its own.
fn file(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// An experiment with messages of one length, like those of the named workloads.
pub fn of_length(bytes: &str) -> String {
    let w4 = find("w4").expect("it is in the list");
    let renamed = w4.replace("\nname = \"w4\"", &format!("\nname = \"length-{bytes}\""));
    let renamed = renamed.replace("W4 (Facebook Hadoop)", &format!("{bytes} bytes"));
    let without_load = renamed.replace("\ngbps = 20\n", "\n");
    without_load.replace("\nworkload = \"w4\"", &format!("\nworkload = \"{bytes}\""))
}

#[cfg(test)]
mod tests {
    use super::super::file::File;
    use super::super::plan::Plan;
    use super::*;

    #[test]
    fn every_bundled_experiment_can_be_planned_and_has_its_own_name() {
        for name in names() {
            let file = File::parse(&find(&name).unwrap()).unwrap_or_else(|err| panic!("{name}: {err}"));
            assert_eq!(file.name, name);
            assert!(file.seeds.len() >= 3, "{name}: intervals need several seeds");
            let plan = Plan::on(file.testbeds[0], file, &[]).unwrap_or_else(|err| panic!("{name}: {err}"));
            assert!(plan.points.len() >= 6, "{name}");
        }
    }

    /// A file is where people learn what there is.
    #[test]
    fn every_parameter_stands_in_the_files_heads() {
        let options = crate::sim::check::NODE.iter().map(|(name, _)| (*name).to_owned());
        for parameter in crate::sim::spec::SimSpec::names().into_iter().chain(options) {
            assert!(HEAD.contains(&parameter), "the head does not mention {parameter}");
        }
        assert!(names().all(|name| find(&name).unwrap().starts_with(HEAD)));
    }

    #[test]
    fn a_length_has_an_experiment_too() {
        let plan = Plan::new(File::parse(&of_length("5000")).unwrap(), &[]).unwrap();
        assert_eq!(plan.file.name, "length-5000");
        assert!(plan.points.iter().all(|point| point.spec.sim.workload == "5000"));
    }

    /// The same measurement from two experiments is one measurement: equal points have equal identities.
    #[test]
    fn equal_parameters_from_two_files_are_the_same_point() {
        let plan = |name: &str, set: &[(&str, serde_json::Value)]| {
            let set: Vec<_> = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            Plan::new(File::parse(&find(name).unwrap()).unwrap(), &set).unwrap()
        };
        let set = [("nodes", 20.into()), ("gbps", 20.into()), ("workload", "w5".into()), ("protocol", "homa".into())];
        let (nodes, load) = (plan("nodes", &set), plan("link_util", &set));
        assert_eq!(nodes.points[0].id, load.points[0].id);
        assert_ne!(nodes.points[0].id, nodes.points[1].id, "another seed");
    }
}
