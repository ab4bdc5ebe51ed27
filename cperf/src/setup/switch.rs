//! The switch between the machines: what a benchmark wants of it, as commands of its kind, and a console that takes them.
//! Source: cperf.md 5.4.

use std::fmt::Write as _;

use crate::error::{Stop, nearest};

/// What is wanted of a switch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Ports trust the packets' priorities, serve them strictly, carry long packets and mark.
    pub ports: bool,
    /// Memory for packets of all ports together, 10^6 bytes.
    pub buffer_mb: Option<f64>,
    /// Marks from this queue length on, 10^3 bytes.
    pub ecn_kb: Option<u32>,
    /// As ports are by default.
    pub reset: bool,
}

/// Length at which ports mark if nothing else is said, 10^3 bytes.
const ECN_KB: u32 = 70;
/// Memory of the published cluster's switch, 10^6 bytes.
const BUFFER_MB: f64 = 13.2;

/// A kind of switch.
pub trait Driver {
    /// Its name in the cluster file.
    fn kind(&self) -> &'static str;

    /// Commands for `ports`, in order.
    ///
    /// # Errors
    /// What this kind cannot do.
    fn commands(&self, wanted: &Wanted, ports: &[u16]) -> Result<Vec<String>, String>;

    /// Whether `answer` to a command is a complaint.
    fn complains(&self, answer: &str) -> bool {
        answer.lines().any(|line| line.trim_start().starts_with('%'))
    }
}

/// All kinds.
pub fn drivers() -> [Box<dyn Driver>; 2] {
    [Box::new(Mellanox), Box::new(DellOs10)]
}

/// The driver of a kind.
///
/// # Errors
/// [`Stop::Usage`] with the nearest.
pub fn driver(kind: &str) -> Result<Box<dyn Driver>, Stop> {
    let names = drivers().map(|driver| driver.kind());
    drivers().into_iter().find(|driver| driver.kind() == kind).ok_or_else(|| {
        let (near, all) = (nearest(kind, names), names.join(", "));
        Stop::Usage(format!("switch: kind `{kind}` is unknown; did you mean `{near}`? there are {all}"))
    })
}

/// Mellanox switches with Onyx (MLNX-OS).
#[derive(Debug)]
pub struct Mellanox;

impl Driver for Mellanox {
    fn kind(&self) -> &'static str {
        "mellanox"
    }

    fn commands(&self, wanted: &Wanted, ports: &[u16]) -> Result<Vec<String>, String> {
        let mut all = vec!["enable".to_owned(), "configure terminal".to_owned()];
        let ecn_kb = wanted.ecn_kb.or(wanted.ports.then_some(ECN_KB));
        for port in ports {
            let port = format!("interface ethernet 1/{port}");
            if wanted.reset {
                all.push(format!("{port} no qos trust"));
                all.extend((0..8).map(|class| format!("{port} no traffic-class {class} dcb ets")));
                all.push(format!("{port} mtu 1500 force"));
                all.extend((0..2).map(|class| format!("{port} no traffic-class {class} congestion-control")));
                continue;
            }
            if wanted.ports {
                all.push(format!("{port} qos trust both"));
                all.extend((0..8).map(|class| format!("{port} traffic-class {class} dcb ets strict")));
                all.push(format!("{port} mtu 9216 force"));
            }
            if let Some(kb) = ecn_kb {
                all.extend((0..2).map(|class| {
                    format!("{port} traffic-class {class} congestion-control ecn minimum-absolute {kb} maximum-absolute {kb}")
                }));
            }
        }
        let buffer_mb = if wanted.reset { Some(BUFFER_MB) } else { wanted.buffer_mb };
        if let Some(mb) = buffer_mb {
            all.push("advanced buffer management force".to_owned());
            all.push(format!("pool ePool0 size {mb}M type dynamic"));
            all.push("clear buffers pool ePool0 max-usage".to_owned());
        }
        Ok(all)
    }
}

/// Dell switches with OS10.
#[derive(Debug)]
pub struct DellOs10;

impl Driver for DellOs10 {
    fn kind(&self) -> &'static str {
        "dell-os10"
    }

    fn commands(&self, wanted: &Wanted, ports: &[u16]) -> Result<Vec<String>, String> {
        if wanted.buffer_mb.is_some() || wanted.ecn_kb.is_some() {
            return Err(
                "kind dell-os10 sets priorities alone: its memory and its marks are not known how to".to_owned()
            );
        }
        let mut all = vec!["configure terminal".to_owned()];
        if wanted.ports {
            all.push("trust dscp-map homa".to_owned());
            // The upper three bits of DSCP are the level.
            for level in 0..8 {
                all.push(format!("qos-group {level} dscp {}-{}", level * 8, level * 8 + 7));
            }
            all.push("exit".to_owned());
            all.push("policy-map type queuing homa".to_owned());
            for level in 0..8 {
                let mut one = String::new();
                let _ = write!(one, "class homa-{level}");
                all.extend([one, "priority".to_owned(), "exit".to_owned()]);
            }
            all.push("exit".to_owned());
            all.extend(
                ["system qos", "trust-map dscp homa", "service-policy output type queuing homa", "exit"]
                    .map(str::to_owned),
            );
        }
        for port in ports {
            all.push(format!("interface ethernet 1/1/{port}"));
            if wanted.reset {
                all.extend(["no trust-map dscp", "mtu 1532"].map(str::to_owned));
            } else if wanted.ports {
                all.push("mtu 9216".to_owned());
            }
            all.push("exit".to_owned());
        }
        if wanted.reset {
            all.extend(["system qos", "no trust-map dscp", "no service-policy output", "exit"].map(str::to_owned));
        }
        all.push("end".to_owned());
        Ok(all)
    }

    fn complains(&self, answer: &str) -> bool {
        answer.lines().any(|line| line.trim_start().starts_with("% Error"))
    }
}

/// Something that takes a line and says what came of it.
pub trait Console {
    /// The answer to a command, without the command itself.
    ///
    /// # Errors
    /// It is gone, or says nothing for too long.
    fn say(&mut self, line: &str) -> anyhow::Result<String>;
}

/// Gives all commands to a switch. It goes on after a complaint: what can be set is set.
///
/// # Errors
/// The console is gone.
pub fn apply(
    driver: &dyn Driver,
    console: &mut dyn Console,
    commands: &[String],
) -> anyhow::Result<Vec<(String, String)>> {
    let mut complaints = Vec::new();
    for command in commands {
        let answer = console.say(command)?;
        if driver.complains(&answer) {
            complaints.push((command.clone(), answer.trim().to_owned()));
        }
    }
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A switch that knows no port above 40, as that of the published cluster.
    struct Fake {
        heard: Vec<String>,
    }

    impl Console for Fake {
        fn say(&mut self, line: &str) -> anyhow::Result<String> {
            self.heard.push(line.to_owned());
            let port = line.split("1/").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u16>().ok());
            Ok(if port.is_some_and(|port| port > 40) { "% Unknown interface\n".to_owned() } else { String::new() })
        }
    }

    #[test]
    fn ports_serve_eight_levels_strictly_and_mark() {
        let wanted = Wanted { ports: true, buffer_mb: Some(2.5), ..Wanted::default() };
        let commands = Mellanox.commands(&wanted, &[3, 41]).unwrap();
        let of = |part: &str| commands.iter().filter(|command| command.contains(part)).count();
        assert_eq!((of("1/3 traffic-class"), of("dcb ets strict"), of("qos trust both")), (10, 16, 2));
        assert_eq!(
            (of("ecn minimum-absolute 70 maximum-absolute 70"), of("pool ePool0 size 2.5M type dynamic")),
            (4, 1)
        );
        let mut fake = Fake { heard: Vec::new() };
        let complaints = apply(&Mellanox, &mut fake, &commands).unwrap();
        assert_eq!(fake.heard, commands, "all of them, in order");
        assert_eq!(complaints.len(), 12, "those of the port that is not there: {complaints:?}");
        assert!(complaints[0].1.contains("Unknown interface"));
    }

    #[test]
    fn a_reset_takes_back_every_kind_of_command() {
        let set = Mellanox.commands(&Wanted { ports: true, ..Wanted::default() }, &[1]).unwrap();
        let reset = Mellanox.commands(&Wanted { reset: true, ..Wanted::default() }, &[1]).unwrap();
        for part in ["qos trust", "traffic-class 7 dcb ets", "mtu", "traffic-class 1 congestion-control"] {
            assert!(set.iter().any(|command| command.contains(part)), "{part} is not set");
            assert!(reset.iter().any(|command| command.contains(part)), "{part} is not taken back");
        }
        assert!(reset.iter().any(|command| command == "pool ePool0 size 13.2M type dynamic"));
    }

    #[test]
    fn a_dell_maps_the_levels_of_dscp_to_its_queues() {
        let commands = DellOs10.commands(&Wanted { ports: true, ..Wanted::default() }, &[5]).unwrap();
        assert!(commands.contains(&"qos-group 7 dscp 56-63".to_owned()), "{commands:?}");
        assert!(commands.contains(&"interface ethernet 1/1/5".to_owned()));
        let error = DellOs10.commands(&Wanted { ecn_kb: Some(78), ..Wanted::default() }, &[5]).unwrap_err();
        assert!(error.contains("sets priorities alone"), "{error}");
        assert!(DellOs10.complains("% Error: Illegal parameter.") && !DellOs10.complains("OS10(config)#"));
    }

    #[test]
    fn a_kind_that_is_unknown_is_told_with_the_nearest() {
        let error = driver("melanox").err().unwrap().to_string();
        assert!(error.contains("did you mean `mellanox`") && error.contains("dell-os10"), "{error}");
        assert_eq!(driver("mellanox").unwrap().kind(), "mellanox");
    }
}
