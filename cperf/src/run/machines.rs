//! A run on machines that are reached by SSH.

use crate::cli::RunArgs;
#[cfg(feature = "ssh")]
use crate::error::Stop;

/// Runs what the options say on machines of a cluster.
///
/// # Errors
/// As [`super::run`].
#[cfg(not(feature = "ssh"))]
pub(super) fn run(_: &RunArgs) -> anyhow::Result<()> {
    Err(crate::error::without_ssh("--testbed ssh").into())
}

#[cfg(feature = "ssh")]
pub(super) use with_ssh::run;

#[cfg(feature = "ssh")]
mod with_ssh {
    use std::time::{Instant, SystemTime};

    use super::super::{SUBDIRECTORIES, begin, conclude, make_out, options, perform};
    use super::{RunArgs, Stop};
    use crate::cli::Protocol;
    use crate::policy::Policy;
    use crate::signals::Interrupt;
    use crate::ssh::cluster::Cluster;
    use crate::sys;
    use crate::testbed::Testbed as _;
    use crate::testbed::ssh::{Needs, Ssh};

    /// Runs what the options say on machines of a cluster.
    ///
    /// # Errors
    /// As [`super::super::run`].
    pub(in crate::run) fn run(args: &RunArgs) -> anyhow::Result<()> {
        let Some(path) = &args.cluster else {
            let text = "--testbed ssh needs --cluster FILE.toml, which says what machines there are (docs/ssh.md)";
            return Err(Stop::Usage(text.to_owned()).into());
        };
        let cluster = Cluster::read(path)?;
        let mut options = options::on_machines(args, cluster.machines.len(), cluster.link_gbps)?;
        let policy = Policy::of(args, false)?;
        options.ipv6 = cluster.machines[0].address.is_ipv6();
        let out = make_out(&mut options, &SUBDIRECTORIES)?;
        let interrupt = Interrupt::install()?;
        interrupt.watch();
        let begun = Instant::now();
        let mut testbed = match Ssh::build(cluster, options.nodes, &run_name(), needs(&options)) {
            Ok(testbed) => testbed,
            Err(err) => {
                out.abandon();
                return Err(err);
            }
        };
        let (mut manifest, mut journal) = begin(&options, &testbed, &out)?;
        journal.say(&format!("{} nodes are ready after {:.2} s", options.nodes, begun.elapsed().as_secs_f64()));
        testbed.remarks().iter().for_each(|remark| journal.say(remark));
        let (parts, outcome) = perform(&options, policy, &mut testbed, interrupt, &mut manifest, &mut journal, &out);
        drop(testbed);
        conclude::conclude(&options, &mut manifest, &out, &mut journal, &parts, outcome)
    }

    /// What the options want of every machine.
    fn needs(options: &RunArgs) -> Needs {
        let homa = options.protocols.contains(&Protocol::Homa)
            || options.slowdown.needs_unloaded() && !options.protocols.contains(&Protocol::HomaKernel);
        let control = |protocol: &Protocol| match protocol {
            Protocol::Tcp => Some(options.tcp_cc.clone()),
            Protocol::Dctcp => Some("dctcp".to_owned()),
            Protocol::Homa | Protocol::HomaKernel => None,
        };
        Needs { homa, congestion: options.protocols.iter().filter_map(control).collect() }
    }

    /// Names this run on the machines: no two runs share a directory there.
    fn run_name() -> String {
        format!("{}-{}", sys::local_time(SystemTime::now()).stamp(), std::process::id())
    }
}
