//! The experiments that come with the program.

/// Name and text of each.
const ALL: [(&str, &str); 17] = [
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
];

/// Names of all.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// The text of one.
pub fn find(name: &str) -> Option<&'static str> {
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
            let file = File::parse(find(name).unwrap()).unwrap_or_else(|err| panic!("{name}: {err}"));
            assert_eq!(file.name, name);
            assert!(file.seeds.len() >= 3, "{name}: intervals need several seeds");
            let plan = Plan::new(file, &[]).unwrap_or_else(|err| panic!("{name}: {err}"));
            assert!(plan.points.len() >= 9, "{name}");
        }
    }

    /// A file is where people learn what there is.
    #[test]
    fn every_parameter_stands_in_the_files_heads() {
        for name in names() {
            let text = find(name).unwrap();
            for parameter in crate::sim::spec::SimSpec::names() {
                assert!(text.contains(&parameter), "{name} does not mention {parameter}");
            }
        }
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
            Plan::new(File::parse(find(name).unwrap()).unwrap(), &set).unwrap()
        };
        let set = [("nodes", 20.into()), ("gbps", 20.into()), ("workload", "w5".into()), ("protocol", "homa".into())];
        let (nodes, load) = (plan("nodes", &set), plan("link_util", &set));
        assert_eq!(nodes.points[0].id, load.points[0].id);
        assert_ne!(nodes.points[0].id, nodes.points[1].id, "another seed");
    }
}
