//! The cluster file: which machines, how to reach them, and where on them the data plane is. Checked before anything
//! starts, and all mistakes are told at once. What each key means: docs/ssh.md.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use crate::error::{Stop, nearest};
use crate::testbed::netns::MAX_NODES;

/// How one host is reached by SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Name or address on the control plane.
    pub host: String,
    /// Port of its sshd.
    pub port: u16,
    /// Who to be there.
    pub user: String,
    /// File with the private key; `None`: whatever is there.
    pub key: Option<PathBuf>,
    /// Use keys of the agent only.
    pub agent: bool,
    /// Environment variable with the key's passphrase.
    pub passphrase_env: String,
    /// File with the keys of known hosts.
    pub known_hosts: PathBuf,
    /// How long connecting and logging in may take.
    pub timeout: Duration,
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// How it is reached.
    pub access: Access,
    /// Its address on the data plane.
    pub address: IpAddr,
    /// Its interface there.
    pub interface: String,
    /// Core that the node is kept on.
    pub core: Option<usize>,
    /// Directory there for the program and the files of runs.
    pub directory: String,
    /// Words before the agent's command: sudo, say.
    pub prefix: Vec<String>,
    /// Added to its clock's reading, seconds.
    pub clock_offset_s: f64,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// The nodes in order.
    pub machines: Vec<Machine>,
    /// The host that all others are reached through.
    pub jump: Option<Access>,
    /// A node that was not heard for so long is lost.
    pub silence: Duration,
    /// Rate of each node's link, 10^9 bit/s.
    pub link_gbps: Option<f64>,
    /// The switch, for `cperf setup`.
    pub switch: Option<Switch>,
}

/// The switch between the nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Switch {
    /// What it is: `mellanox`, `dell-os10`.
    pub kind: String,
    /// How its command line is reached.
    pub access: Access,
    /// Numbers of the ports that nodes are on.
    pub ports: Vec<u16>,
}

/// Keys at the top, all of which but the last row are defaults of the nodes.
const TOP: [&str; 17] = [
    "user",
    "port",
    "key",
    "agent",
    "passphrase_env",
    "known_hosts",
    "timeout_s",
    "interface",
    "core",
    "directory",
    "prefix",
    "clock_offset_s",
    "silence_s",
    "link_gbps",
    "jump",
    "switch",
    "nodes",
];
/// Keys of a node.
const NODE: [&str; 14] = [
    "user",
    "port",
    "key",
    "agent",
    "passphrase_env",
    "known_hosts",
    "timeout_s",
    "interface",
    "core",
    "directory",
    "prefix",
    "clock_offset_s",
    "host",
    "address",
];
/// Keys of the jump host.
const JUMP: [&str; 8] = ["user", "port", "key", "agent", "passphrase_env", "known_hosts", "timeout_s", "host"];
/// Keys of the switch.
const SWITCH: [&str; 10] =
    ["user", "port", "key", "agent", "passphrase_env", "known_hosts", "timeout_s", "host", "kind", "ports"];

impl Cluster {
    /// Reads and checks a cluster file.
    ///
    /// # Errors
    /// [`Stop::Usage`] with every mistake in it.
    pub fn read(path: &Path) -> Result<Self, Stop> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|err| Stop::Usage(format!("--cluster {shown}: {err}; docs/ssh.md has an example")))?;
        Self::parse(&text).map_err(|mistakes| {
            let mistakes: String = mistakes.iter().map(|mistake| format!("\n  - {mistake}")).collect();
            Stop::Usage(format!("--cluster {shown}: to be corrected (docs/ssh.md has an example):{mistakes}"))
        })
    }

    /// Checks the text of a cluster file.
    ///
    /// # Errors
    /// Every mistake.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let table: Table = text.parse().map_err(|err: toml::de::Error| vec![err.to_string().trim().to_owned()])?;
        let mut reader = Reader { mistakes: Vec::new() };
        let top = Place { table: &table, defaults: None, name: String::new() };
        reader.known(&top, &TOP);
        let silence = reader.seconds(&top, "silence_s", 15.0);
        let link_gbps = reader.number(&top, "link_gbps");
        if link_gbps.is_some_and(|gbps| !(gbps > 0.0 && gbps <= 10_000.0)) {
            reader.say(&top, "link_gbps", "a rate above 0, 10^9 bit/s, is needed");
        }
        let jump = reader.table(&top, "jump").map(|table| {
            let place = Place { table, defaults: Some(&top), name: "jump: ".to_owned() };
            reader.known(&place, &JUMP);
            reader.access(&place)
        });
        let switch = reader.table(&top, "switch").map(|table| {
            let place = Place { table, defaults: Some(&top), name: "switch: ".to_owned() };
            reader.known(&place, &SWITCH);
            reader.switch(&place)
        });
        let machines = reader.machines(&top);
        if reader.mistakes.is_empty() {
            Ok(Self { machines, jump, silence, link_gbps, switch })
        } else {
            Err(reader.mistakes)
        }
    }
}

/// A table with its name for messages, and what holds where it says nothing.
struct Place<'a> {
    table: &'a Table,
    defaults: Option<&'a Place<'a>>,
    name: String,
}

impl<'a> Place<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.table.get(key).or_else(|| self.defaults?.get(key))
    }
}

/// Reads values and notes every mistake.
struct Reader {
    mistakes: Vec<String>,
}

impl Reader {
    fn say(&mut self, place: &Place<'_>, key: &str, text: impl std::fmt::Display) {
        let mistake = format!("{}{key}: {text}", place.name);
        // A wrong default would be told for every node.
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    fn known(&mut self, place: &Place<'_>, keys: &[&str]) {
        for key in place.table.keys().filter(|key| !keys.contains(&key.as_str())) {
            let near = nearest(key, keys.iter().copied());
            self.say(place, key, format!("there is no such key; did you mean `{near}`?"));
        }
    }

    fn machines(&mut self, top: &Place<'_>) -> Vec<Machine> {
        let Some(Value::Array(nodes)) = top.table.get("nodes") else {
            self.say(top, "nodes", "there are none; each has a section [[nodes]] with host and address");
            return Vec::new();
        };
        if !(2..=MAX_NODES).contains(&nodes.len()) {
            self.say(top, "nodes", format!("from 2 to {MAX_NODES} are needed, not {}", nodes.len()));
        }
        let (mut machines, mut addresses, mut hosts) = (Vec::new(), HashSet::new(), HashSet::new());
        for (number, node) in nodes.iter().enumerate() {
            let Value::Table(table) = node else {
                self.say(top, "nodes", format!("number {number} is no section [[nodes]]"));
                continue;
            };
            let place = Place { table, defaults: Some(top), name: format!("node {number}: ") };
            self.known(&place, &NODE);
            let machine = self.machine(&place);
            if !addresses.insert(machine.address) && !machine.address.is_unspecified() {
                self.say(&place, "address", format!("{} is another node's too", machine.address));
            }
            if !hosts.insert((machine.access.host.clone(), machine.access.port)) && !machine.access.host.is_empty() {
                self.say(&place, "host", format!("{} is another node's too", machine.access.host));
            }
            machines.push(machine);
        }
        if machines.windows(2).any(|pair| pair[0].address.is_ipv6() != pair[1].address.is_ipv6()) {
            self.say(top, "nodes", "addresses are of one version of IP, all of them");
        }
        machines
    }

    fn machine(&mut self, place: &Place<'_>) -> Machine {
        let access = self.access(place);
        let address = match self.text(place, "address") {
            None => None,
            Some(text) => match text.parse::<IpAddr>() {
                Ok(address) if !address.is_unspecified() && !address.is_loopback() => Some(address),
                _ => {
                    self.say(place, "address", format!("`{text}` is not the address of an interface, like 10.10.1.1"));
                    Some(UNKNOWN)
                }
            },
        };
        if address.is_none() {
            self.say(place, "address", "is missing: the node's IP address on the data plane");
        }
        let interface = self.text(place, "interface").unwrap_or_default();
        let fits = |name: &str| name.len() <= 15 && !name.contains(['/', ' ']);
        if interface.is_empty() || !fits(&interface) {
            self.say(place, "interface", "is missing or no name of an interface: that of the data plane, like ens1f1");
        }
        let directory = self.text(place, "directory").unwrap_or_else(|| format!("/tmp/cperf-{}", access.user));
        if !directory.starts_with('/')
            || directory.chars().any(char::is_control)
            || directory.trim_matches('/').is_empty()
        {
            self.say(
                place,
                "directory",
                format!("`{directory}`: an absolute path on the node, not its root, is needed"),
            );
        }
        let core = self.integer(place, "core", 0..=4095).map(|core| core as usize);
        let clock_offset_s = self.number(place, "clock_offset_s").unwrap_or(0.0);
        let prefix = self.words(place, "prefix");
        Machine { access, address: address.unwrap_or(UNKNOWN), interface, core, directory, prefix, clock_offset_s }
    }

    fn switch(&mut self, place: &Place<'_>) -> Switch {
        let kind = self.text(place, "kind").unwrap_or_default();
        if let Err(stop) = crate::setup::switch::driver(&kind) {
            self.say(place, "kind", stop);
        }
        let numbers: Vec<Option<u16>> = match place.table.get("ports") {
            Some(Value::Array(ports)) => {
                let number = |port: &Value| port.as_integer().and_then(|port| u16::try_from(port).ok());
                ports.iter().map(|port| number(port).filter(|port| (1..=512).contains(port))).collect()
            }
            _ => Vec::new(),
        };
        if numbers.is_empty() || numbers.contains(&None) {
            self.say(place, "ports", "numbers from 1 to 512 of the ports that nodes are on are needed, like [1, 2, 3]");
        }
        Switch { kind, access: self.access(place), ports: numbers.into_iter().flatten().collect() }
    }

    fn access(&mut self, place: &Place<'_>) -> Access {
        let host = self.text(place, "host").unwrap_or_default();
        if host.is_empty() || host.starts_with('-') || host.contains([' ', '@', '/']) {
            self.say(place, "host", "is missing or no name: a name or address, without user and port");
        }
        let user = self.text(place, "user").or_else(|| std::env::var("USER").ok()).unwrap_or_default();
        if user.is_empty() || user.contains([' ', '@', '/']) {
            self.say(place, "user", "is missing or no name, and the environment has no USER");
        }
        let key = self.text(place, "key").map(|text| home(&text));
        let agent = self.truth(place, "agent");
        if key.is_some() && agent {
            self.say(place, "key", "a key or `agent = true`, not both");
        }
        if let Some(key) = key.as_ref().filter(|key| !key.is_file()) {
            self.say(place, "key", format!("there is no file {}", key.display()));
        }
        Access {
            host,
            port: self.integer(place, "port", 1..=65_535).map_or(22, |port| port as u16),
            user,
            key,
            agent,
            passphrase_env: self.text(place, "passphrase_env").unwrap_or_else(|| PASSPHRASE.to_owned()),
            known_hosts: home(&self.text(place, "known_hosts").unwrap_or_else(|| "~/.ssh/known_hosts".to_owned())),
            timeout: self.seconds(place, "timeout_s", 10.0),
        }
    }

    fn text(&mut self, place: &Place<'_>, key: &str) -> Option<String> {
        match place.get(key)? {
            Value::String(text) => Some(text.clone()),
            other => {
                self.say(place, key, format!("a text in quotes is needed, not {}", other.type_str()));
                None
            }
        }
    }

    fn truth(&mut self, place: &Place<'_>, key: &str) -> bool {
        match place.get(key) {
            None => false,
            Some(Value::Boolean(value)) => *value,
            Some(other) => {
                self.say(place, key, format!("true or false is needed, not {}", other.type_str()));
                false
            }
        }
    }

    fn number(&mut self, place: &Place<'_>, key: &str) -> Option<f64> {
        match place.get(key)? {
            Value::Float(value) => Some(*value),
            Value::Integer(value) => Some(*value as f64),
            other => {
                self.say(place, key, format!("a number is needed, not {}", other.type_str()));
                None
            }
        }
    }

    fn integer(&mut self, place: &Place<'_>, key: &str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        match place.get(key)? {
            Value::Integer(value) if range.contains(value) => Some(*value),
            other => {
                let (least, most) = range.into_inner();
                self.say(place, key, format!("a whole number from {least} to {most} is needed, not {}", shown(other)));
                None
            }
        }
    }

    fn seconds(&mut self, place: &Place<'_>, key: &str, default: f64) -> Duration {
        let value = self.number(place, key).unwrap_or(default);
        if !(1.0..=3600.0).contains(&value) {
            self.say(place, key, format!("{value}: from 1 to 3600 seconds"));
            return Duration::from_secs_f64(default);
        }
        Duration::from_secs_f64(value)
    }

    fn words(&mut self, place: &Place<'_>, key: &str) -> Vec<String> {
        let Some(value) = place.get(key) else { return Vec::new() };
        let words = value.as_array().map(|words| words.iter().map(|word| word.as_str().map(str::to_owned)).collect());
        words.flatten().unwrap_or_else(|| {
            self.say(place, key, "a list of words is needed, like [\"sudo\", \"-n\"]");
            Vec::new()
        })
    }

    fn table<'a>(&mut self, place: &Place<'a>, key: &str) -> Option<&'a Table> {
        match place.table.get(key)? {
            Value::Table(table) => Some(table),
            _ => {
                self.say(place, key, format!("a section [{key}] is needed"));
                None
            }
        }
    }
}

/// Environment variable with the passphrase of keys.
const PASSPHRASE: &str = "CPERF_KEY_PASSPHRASE";
/// In place of an address that is wrong, and told.
const UNKNOWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// A value for a message.
fn shown(value: &Value) -> String {
    value.as_integer().map_or_else(|| value.type_str().to_owned(), |number| number.to_string())
}

/// `~/` is the user's own directory.
fn home(text: &str) -> PathBuf {
    let own = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    text.strip_prefix("~/").map_or_else(|| PathBuf::from(text), |rest| own.join(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        user = "me"
        interface = "ens1f1"
        prefix = ["sudo", "-n"]
        link_gbps = 25
        [jump]
        host = "gate.example.org"
        port = 2222
        [[nodes]]
        host = "a"
        address = "10.10.1.1"
        [[nodes]]
        host = "b"
        address = "10.10.1.2"
        interface = "eth1"
        user = "root"
        core = 3
    "#;

    #[test]
    fn nodes_have_what_the_top_says_unless_they_say_otherwise() {
        let cluster = Cluster::parse(GOOD).unwrap();
        let [a, b] = &cluster.machines[..] else { panic!("two nodes") };
        assert_eq!((a.access.user.as_str(), a.interface.as_str(), a.core), ("me", "ens1f1", None));
        assert_eq!((b.access.user.as_str(), b.interface.as_str(), b.core), ("root", "eth1", Some(3)));
        assert_eq!(
            (a.access.port, a.directory.as_str(), &a.prefix[..]),
            (22, "/tmp/cperf-me", &["sudo", "-n"].map(str::to_owned)[..])
        );
        assert_eq!(cluster.jump.unwrap().port, 2222);
        assert_eq!(cluster.link_gbps, Some(25.0));
    }

    #[test]
    fn every_mistake_is_told_at_once_and_once() {
        let text = r#"
            user = "me"
            usr = "x"
            port = 70000
            silence_s = 0
            key = "/no/such/key"
            [[nodes]]
            host = "a"
            address = "10.10.1"
            [[nodes]]
            address = "10.10.1.2"
            interface = "eth1"
            core = -1
            [[nodes]]
            host = "a"
            address = "10.10.1.2"
            interface = "a-name-that-is-too-long"
            directory = "tmp"
            prefix = "sudo"
        "#;
        let mistakes = Cluster::parse(text).unwrap_err();
        for part in [
            "usr: there is no such key; did you mean `user`?",
            "node 0: port: a whole number from 1 to 65535 is needed, not 70000",
            "silence_s: 0: from 1 to 3600 seconds",
            "node 0: key: there is no file /no/such/key",
            "node 0: address: `10.10.1` is not the address",
            "node 0: interface: is missing",
            "node 1: host: is missing",
            "node 1: core: a whole number from 0",
            "node 2: address: 10.10.1.2 is another node's too",
            "node 2: host: a is another node's too",
            "node 2: interface: is missing or no name",
            "node 2: directory: `tmp`",
            "node 2: prefix: a list of words",
        ] {
            assert_eq!(mistakes.iter().filter(|mistake| mistake.starts_with(part)).count(), 1, "{part}: {mistakes:#?}");
        }
    }

    #[test]
    fn a_file_that_is_no_toml_says_where_and_one_without_nodes_what_is_missing() {
        assert!(Cluster::parse("user = ").unwrap_err()[0].contains("line 1"));
        assert!(Cluster::parse("user = 'x'").unwrap_err()[0].contains("[[nodes]]"));
        let mixed = GOOD.replace("10.10.1.2", "fd00::2");
        assert!(Cluster::parse(&mixed).unwrap_err()[0].contains("one version of IP"));
        let err = Cluster::read(Path::new("/no/such/cluster.toml")).unwrap_err();
        assert!(err.code() == 2 && err.to_string().contains("/no/such/cluster.toml"), "{err}");
    }
}
