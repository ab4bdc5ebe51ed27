//! Sweeps of one setting each: what the scripts cp_config and cp_tcp_config vary, and cp_config_buf for one protocol.
//! They differ in what varies alone, so their files are made from a common text. Source: cperf.md 3.11, 3.12.

/// One setting.
struct Aspect {
    /// After `config_` or `tcp_config_`.
    name: &'static str,
    title: &'static str,
    /// TOML of what varies besides the workload.
    vary: &'static str,
    /// TOML of `[netns]` beyond what all have; `None`: on simulated nodes only.
    netns: Option<&'static str>,
}

const fn aspect(name: &'static str, title: &'static str, vary: &'static str, netns: Option<&'static str>) -> Aspect {
    Aspect { name, title, vary, netns }
}

/// Settings of Homa and of the cluster.
const CONFIG: [Aspect; 22] = [
    aspect(
        "buffers",
        "memory of the switch",
        "parameter = \"switch_buffer_bytes\"\nvalues = [10_000_000, 2_000_000, 1_000_000]",
        None,
    ),
    aspect(
        "dctcp_buffers",
        "memory of the switch, DCTCP",
        "parameter = \"switch_buffer_bytes\"\nvalues = [10_000_000, 1_200_000, 700_000]",
        None,
    ),
    aspect(
        "tcp_buffers",
        "memory of the switch, TCP",
        "parameter = \"switch_buffer_bytes\"\nvalues = [13_200_000, 8_000_000, 3_000_000]",
        None,
    ),
    aspect(
        "client_threads",
        "client ports and server ports (threads that receive are none of theirs here)",
        "cases = [{ client_ports = 3 }, { client_ports = 2 }, { client_ports = 1 }]",
        Some(""),
    ),
    aspect(
        "defer_min_bytes",
        "shorter packets are sent at once",
        "parameter = \"homa.defer_min_bytes\"\nvalues = [1000, 3000, 10_000]",
        Some(""),
    ),
    aspect(
        "fifo",
        "share of the link granted to the oldest message, in 1/1000",
        "parameter = \"homa.grant_fifo_fraction\"\nvalues = [0, 50, 100, 200]",
        Some(""),
    ),
    aspect(
        "gbps",
        "share of the link that Homa paces itself to, percent",
        "parameter = \"homa.max_link_usage\"\nvalues = [100, 99, 96, 92]",
        Some(""),
    ),
    aspect(
        "grant_policy",
        "grants by default, and without a window",
        "cases = [{ case = \"default\" }, { case = \"no window\", homa.max_incoming = 500_000, homa.window = 0 }]",
        None,
    ),
    aspect("homa_vs_tcp", "TCP and Homa", "parameter = \"protocol\"\nvalues = [\"tcp\", \"homa\"]", Some("")),
    aspect(
        "load",
        "load, on links of 100 Gbps",
        "cases = [{ link_gbps = 100, gbps = 30 }, { link_gbps = 100, gbps = 40 }, { link_gbps = 100, gbps = 50 }, \
         { link_gbps = 100, gbps = 60 }, { link_gbps = 100, gbps = 70 }]",
        None,
    ),
    aspect(
        "max_incoming",
        "bytes granted at once",
        "parameter = \"homa.max_incoming\"\nvalues = [200_000, 400_000, 800_000, 1_600_000]",
        None,
    ),
    aspect(
        "mtu",
        "longest packet",
        "parameter = \"mtu_bytes\"\nvalues = [1500, 3000, 5000, 7000, 9000]",
        Some("mtu_bytes = [1500, 3000, 9000]\n"),
    ),
    aspect(
        "nic_queue",
        "backlog with which the NIC gets no more packets, us",
        "parameter = \"homa.max_nic_backlog_us\"\nvalues = [1, 2, 5, 10, 20, 200]",
        None,
    ),
    aspect(
        "pacing",
        "packets of long messages sent by credit, or as the NIC takes them",
        "parameter = \"homa.pacing\"\nvalues = [0, 1]",
        Some(""),
    ),
    aspect(
        "poll",
        "how long a node polls before it sleeps, us",
        "parameter = \"node.poll_usecs\"\nvalues = [0, 20, 30, 40, 50]",
        Some(""),
    ),
    aspect(
        "ports",
        "client and server ports",
        "cases = [{ client_ports = 2, server_ports = 2 }, { client_ports = 2, server_ports = 3 }, \
         { client_ports = 2, server_ports = 4 }, { client_ports = 3, server_ports = 3 }, \
         { client_ports = 3, server_ports = 2 }, { client_ports = 4, server_ports = 2 }]",
        Some(""),
    ),
    aspect("prios", "priority levels", "parameter = \"homa.num_priorities\"\nvalues = [1, 2, 3, 4, 8]", Some("")),
    aspect(
        "repeat",
        "the same again: how much results vary from load to load",
        "cases = [{ homa.num_priorities = 8 }]",
        Some(""),
    ),
    aspect(
        "time",
        "length of the measured interval",
        "parameter = \"measure_s\"\nvalues = [0.05, 0.1, 0.2, 0.3, 0.5]",
        Some("measure_s = [1, 2, 5, 10]\n"),
    ),
    aspect(
        "unsched_bytes",
        "bytes sent unasked",
        "parameter = \"homa.unsched_bytes\"\nvalues = [40_000, 60_000, 80_000, 100_000, 120_000]",
        None,
    ),
    aspect(
        "window",
        "bytes granted to one message; 0: by how many there are",
        "parameter = \"homa.window\"\nvalues = [0, 200_000]",
        None,
    ),
    aspect(
        "overcommit",
        "messages granted to at once",
        "parameter = \"homa.max_overcommit\"\nvalues = [2, 3, 4, 5, 6, 7, 8]",
        Some(""),
    ),
];

/// Settings of TCP.
const TCP: [Aspect; 3] = [
    aspect("cports", "client ports", "parameter = \"client_ports\"\nvalues = [2, 3, 4, 6, 8]", Some("")),
    aspect("sports", "server ports", "parameter = \"server_ports\"\nvalues = [6, 8, 10, 12, 14, 16, 18]", Some("")),
    aspect(
        "threads",
        "client and server ports",
        "cases = [{ client_ports = 3, server_ports = 6 }, { client_ports = 4, server_ports = 8 }, \
         { client_ports = 5, server_ports = 10 }, { client_ports = 6, server_ports = 12 }, \
         { client_ports = 7, server_ports = 14 }]",
        Some(""),
    ),
];

/// What cp_config and cp_tcp_config vary that there is nothing like here, and why.
pub const ABSENT: [(&str, &str); 12] = [
    (
        "config_balance",
        "steering of the kernel module's SoftIRQ between cores; here RPCs belong to workers: node.homa_workers",
    ),
    ("config_gen2", "a variant of that steering"),
    ("config_gen3", "a variant of that steering"),
    ("config_busy_usecs", "how long that steering avoids a busy core"),
    ("config_gro_busy_usecs", "the same; the original offers it and does nothing"),
    ("config_max_gro", "packets merged by the kernel; this stack reads them from the ring one by one"),
    ("config_max_gso", "packets cut by the kernel; here only with --hijack, always 64 KB"),
    ("config_receivers", "threads that receive at a port; here one thread runs a node, or node.homa_workers"),
    (
        "config_throttle",
        "messages shorter than throttle_min_bytes skip the kernel's pacer; here config_defer_min_bytes",
    ),
    ("config_nic_backlog", "the same limit by another name: config_nic_queue"),
    ("tcp_config_max_nic_queue", "a limit of the kernel module's queueing discipline for TCP"),
    ("tcp_config_nic_backlog", "a limit of the kernel module's queueing discipline for TCP"),
];

/// One protocol of an experiment that has several: name, of which, protocol.
const ALONE: [(&str, &str, &str); 4] = [
    ("dctcp_nodes", "nodes", "dctcp"),
    ("tcp_nodes", "nodes", "tcp"),
    ("dctcp_link_util", "link_util", "dctcp"),
    ("tcp_link_util", "link_util", "tcp"),
];

/// Names of all experiments made here.
pub fn names() -> impl Iterator<Item = String> {
    let config = CONFIG.iter().map(|aspect| format!("config_{}", aspect.name));
    let tcp = TCP.iter().map(|aspect| format!("tcp_config_{}", aspect.name));
    ALONE.iter().map(|(name, ..)| (*name).to_owned()).chain(config).chain(tcp)
}

/// The text of one; `bundled` has the files that come along.
pub fn find(name: &str, bundled: impl Fn(&str) -> Option<&'static str>) -> Option<String> {
    if let Some((_, of, protocol)) = ALONE.iter().find(|(known, ..)| *known == name) {
        return Some(alone(name, protocol, bundled(of)?));
    }
    let of = |aspects: &'static [Aspect], name: &str| aspects.iter().find(|aspect| aspect.name == name);
    if let Some(aspect) = name.strip_prefix("tcp_config_").and_then(|name| of(&TCP, name)) {
        return Some(file(name, "cp_tcp_config", aspect, Some("tcp")));
    }
    let aspect = name.strip_prefix("config_").and_then(|name| of(&CONFIG, name))?;
    let protocol = match aspect.name {
        "dctcp_buffers" => Some("dctcp"),
        "tcp_buffers" => Some("tcp"),
        "homa_vs_tcp" => None,
        _ => Some("homa"),
    };
    Some(file(name, "cp_config", aspect, protocol))
}

/// The file of a sweep.
fn file(name: &str, script: &str, aspect: &Aspect, protocol: Option<&str>) -> String {
    let Aspect { title, vary, netns, .. } = aspect;
    let fixed = protocol.map(|protocol| format!("protocol = \"{protocol}\"\n")).unwrap_or_default();
    // A load that is part of what varies is not the workloads' own.
    let loads = if vary.contains("gbps = ") && vary.contains("link_gbps") {
        "[[vary]]\nparameter = \"workload\"\nvalues = [\"w4\", \"w5\"]\n"
    } else {
        "# Payload per node and direction that the published cluster carried of each workload.\n[[vary]]\ncases = [{ workload \
         = \"w2\", gbps = 3.2 }, { workload = \"w3\", gbps = 14 }, { workload = \"w4\", gbps = 20 }, { workload = \"w5\", \
         gbps = 20 }]\n"
    };
    let testbeds = match (netns, vary.contains("node.")) {
        (_, true) => "testbeds = [\"netns\", \"ssh\"]\n",
        (None, false) => "testbeds = [\"sim\"]\n",
        (Some(_), false) => "",
    };
    let netns = netns.map(|more| {
        let time = if more.contains("measure_s") { "" } else { "measure_s = 5\n" };
        format!(
            "\n# Instead of it where nodes are network namespaces of one machine: slower links; loads are in proportion.\n\
             [netns]\nnodes = 4\nlink_gbps = 0.1\nwarmup_s = 1\n{time}{more}"
        )
    });
    let measure = if vary.contains("measure_s") { "" } else { "measure_s = 0.1\n" };
    let mtu = if vary.contains("mtu_bytes") { "" } else { "mtu_bytes = 3000\n" };
    let link = if vary.contains("link_gbps") { "" } else { "link_gbps = 25\n" };
    let seeds = if aspect.name == "repeat" { "[1, 2, 3, 4, 5]" } else { "[1, 2, 3]" };
    format!(
        "name = \"{name}\"\ntitle = \"A sweep: {title}\"\nabout = \"\"\"\nThe script {script}: slowdown by length and times of \
         short messages.\n\"\"\"\nmetric = \"short_rtt_p99_us\"\nseeds = {seeds}\n{testbeds}\n[fixed]\n{fixed}nodes = 10\n\
         {link}{mtu}client_max = 200\nhost_model = \"xl170\"\nwarmup_s = 0.02\n{measure}\n{loads}[[vary]]\n{vary}\n{}",
        netns.unwrap_or_default()
    )
}

/// The experiment in `text` with one of its protocols.
fn alone(name: &str, protocol: &str, text: &str) -> String {
    let all = "[[vary]]\nparameter = \"protocol\"\nvalues = [\"homa\", \"dctcp\", \"tcp\"]\n\n";
    let of = name.split_once('_').map_or(name, |(_, of)| of);
    let renamed =
        text.replacen(&format!("name = \"{of}\"\n"), &format!("name = \"{name}\"\npublished = \"{of}\"\n"), 1);
    let one = renamed.replacen(all, "", 1).replacen("[fixed]\n", &format!("[fixed]\nprotocol = \"{protocol}\"\n"), 1);
    // Homa's parameters have no part in it.
    one.lines().filter(|line| !line.starts_with("homa.")).fold(String::new(), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::super::bundled;
    use super::super::file::File;
    use super::super::plan::Plan;
    use super::*;

    #[test]
    fn an_experiment_of_one_protocol_has_the_points_of_all_with_this_protocol() {
        for (name, of, protocol) in ALONE {
            let plan = |name: &str| Plan::new(File::parse(&bundled::find(name).unwrap()).unwrap(), &[]).unwrap().points;
            let ids = |name: &str| -> Vec<String> {
                let of_protocol = plan(name).into_iter().filter(|point| point.spec.sim.protocol.name() == protocol);
                of_protocol.map(|point| point.id).collect()
            };
            assert_eq!(ids(name), ids(of), "{name}");
            assert_eq!(plan(name).len(), ids(name).len(), "{name} has others too");
        }
    }

    #[test]
    fn what_is_absent_has_no_file_and_a_reason() {
        for (name, why) in ABSENT {
            assert!(bundled::find(name).is_none(), "{name} is there");
            assert!(why.len() > 20, "{name}");
        }
    }
}
