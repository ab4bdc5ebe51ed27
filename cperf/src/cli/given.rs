//! Which options stood on the command line, and which of them have no meaning where a run takes place.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _};

use super::{Cli, Command, RunArgs, TestbedKind};
use crate::error::Stop;

/// Options of network namespaces only.
const NETNS: [&str; 11] = [
    "ipv6",
    "device",
    "hijack",
    "homa-workers",
    "tcp-port-receivers",
    "tcp-port-threads",
    "tcp-wait",
    "tcp-cc",
    "poll-usecs",
    "cpu-latency-us",
    "together",
];
/// Options of network namespaces and simulated nodes: what they say is made there, but found on machines.
const MADE: [&str; 5] = ["mtu", "link-gbps", "switch-buffer", "priorities", "loss"];
/// Options of nodes that can fail.
const REAL: [&str; 3] = ["retry", "on-failure", "wait-nodes"];
/// Options of machines reached by SSH only.
const SSH: [&str; 1] = ["cluster"];
/// Options of `basic` only.
const BASIC: [&str; 4] = ["count", "rounds", "sections", "length"];
/// Options of simulated nodes only.
const SIM: [&str; 5] = ["dctcp-threshold", "host-model", "topology", "threads", "seeds"];
/// Options of experiments only.
const EXPERIMENTS: [&str; 5] = ["dry-run", "engine", "slurm-args", "slurm-tasks", "set"];
/// Options without a meaning for an experiment, whose points leave no files of nodes.
const RUNS: [&str; 9] = [
    "format",
    "unloaded-samples",
    "ipv6",
    "hijack",
    "together",
    "client-ports",
    "server-ports",
    "tcp-client-ports",
    "tcp-server-ports",
];

impl Cli {
    /// Reads a command line, program name first.
    ///
    /// # Errors
    /// Wrong usage, or that help was asked for; clap prints either.
    pub fn read<W: Into<OsString> + Clone>(words: impl IntoIterator<Item = W>) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(words)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        if let (Command::Run(args), Some((_, run))) = (&mut cli.command, matches.subcommand()) {
            let given = run.ids().filter(|id| run.value_source(id.as_str()) == Some(ValueSource::CommandLine));
            args.given = given.map(|id| id.as_str().replace('_', "-")).collect();
        }
        Ok(cli)
    }
}

impl RunArgs {
    /// Whether `option` (without dashes) stood on the command line.
    pub fn has(&self, option: &str) -> bool {
        self.given.iter().any(|given| given == option)
    }

    /// Refuses options that mean nothing here: an experiment (if so said), `basic`, or a run on the testbed.
    ///
    /// # Errors
    /// [`Stop::Usage`], naming the option and where it belongs.
    pub fn refuse_others(&self, experiment: bool) -> Result<(), Stop> {
        let basic = self.workload == "basic" && !experiment;
        let sim = self.testbed == TestbedKind::Sim && !basic;
        let refuse = |options: &[&str], whose: &str| match options.iter().find(|option| self.has(option)) {
            Some(option) => Err(Stop::Usage(format!("--{option} is for {whose}: leave it out here"))),
            None => Ok(()),
        };
        let ssh = self.testbed == TestbedKind::Ssh && !basic;
        if ssh {
            refuse(&MADE, "nodes that cperf makes (--testbed sim or netns)")?;
        } else {
            refuse(&SSH, "machines reached by SSH (--testbed ssh)")?;
        }
        if sim {
            refuse(&NETNS, "network namespaces (--testbed netns)")?;
            refuse(&REAL, "nodes that can fail (--testbed netns or ssh)")?;
        } else {
            let sim: Vec<_> = SIM.into_iter().filter(|option| !experiment || *option != "seeds").collect();
            refuse(&sim, "simulated nodes (--testbed sim)")?;
        }
        if !basic {
            refuse(&BASIC, "cperf run basic")?;
        }
        if experiment {
            refuse(&RUNS, "runs of a workload, not for experiments (ports: --set client_ports=N)")
        } else {
            refuse(&EXPERIMENTS, "experiments (cperf experiments lists them; a workload with --seeds is one)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &str) -> RunArgs {
        let cli = Cli::read(format!("cperf run {words}").split_whitespace()).unwrap();
        let Command::Run(args) = cli.command else { unreachable!("it is a run") };
        *args
    }

    #[test]
    fn options_are_known_to_be_given_even_with_their_default_value() {
        let args = run("w4 --client-max 200 -n 3");
        assert!(args.has("client-max") && args.has("nodes") && !args.has("seconds"));
    }

    #[test]
    fn every_listed_option_exists() {
        let command = Cli::command();
        let run = command.find_subcommand("run").expect("it is there");
        let known: Vec<_> = run.get_arguments().filter_map(|argument| argument.get_long()).collect();
        for option in NETNS
            .iter()
            .chain(&MADE)
            .chain(&REAL)
            .chain(&SSH)
            .chain(&BASIC)
            .chain(&SIM)
            .chain(&EXPERIMENTS)
            .chain(&RUNS)
        {
            assert!(known.contains(option), "there is no --{option}");
        }
    }

    #[test]
    fn options_that_mean_nothing_here_are_refused_by_name() {
        for (words, experiment, part) in [
            ("w4 --ipv6", false, "--ipv6 is for network namespaces"),
            ("w4 --tcp-cc reno", false, "--tcp-cc is for network namespaces"),
            ("w4 --count 5", false, "--count is for cperf run basic"),
            ("w4 --testbed netns --host-model ideal", false, "--host-model is for simulated nodes"),
            ("basic --threads 2", false, "--threads is for simulated nodes"),
            ("w4 --testbed ssh --cluster x --mtu 1500", false, "--mtu is for nodes that cperf makes"),
            ("w4 --testbed netns --cluster x", false, "--cluster is for machines"),
            ("w4 --dry-run", false, "--dry-run is for experiments"),
            ("nodes --retry 2", true, "--retry is for nodes that can fail"),
            ("nodes --format json", true, "--format is for runs"),
        ] {
            let stop = run(words).refuse_others(experiment).unwrap_err();
            assert_eq!(stop.code(), 2);
            assert!(stop.to_string().contains(part), "{words}: {stop}");
        }
        run("w4 --testbed netns --loss 0.1 --poll-usecs 7").refuse_others(false).unwrap();
        run("basic --count 5").refuse_others(false).unwrap();
        run("w4 --host-model ideal --threads 1").refuse_others(false).unwrap();
        run("nodes --dry-run --seeds 1,2").refuse_others(true).unwrap();
    }
}
