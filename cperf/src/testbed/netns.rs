//! Nodes as network namespaces of this machine, joined by a bridge (or, for two, by one pair of interfaces). Real
//! packets through the kernel's network stack, no external program, no root needed.
//!
//! Nothing has a name outside: the namespaces live as long as this process and its children have them open, so even
//! `kill -9` leaves nothing behind.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::links::{Links, PortCounts, port_name};
use super::{NodeProcess, ProcessHandle, Testbed, privilege};
use crate::error::Stop;
use crate::netlink::{End, Netlink};
use crate::sys::{self, Namespace};

/// The interface inside each node.
const INTERFACE: &str = "veth0";
/// The switch.
const BRIDGE: &str = "br0";
/// Most nodes: cp-node's message header has one byte for the node (cperf.md 1.5).
pub const MAX_NODES: usize = 256;
/// Shortest MTU that IPv4 allows and longest that veth carries.
pub const MTU_RANGE: std::ops::RangeInclusive<u32> = 576..=65_535;

/// Longest wait for a link's both ends to be in use.
const RUNNING_LIMIT: Duration = Duration::from_secs(10);

/// How the nodes are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Each node has a link to one switch, a kernel bridge.
    Bridge,
    /// Two nodes, one link, nothing between them.
    Pair,
}

/// What to build.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    /// Number of nodes.
    pub nodes: usize,
    /// How they are joined.
    pub topology: Topology,
    /// MTU of all links, bytes.
    pub mtu: u32,
    /// Nodes have addresses of IPv6 as well, and are known by those.
    pub ipv6: bool,
    /// Rate, buffers, priorities and loss; only with [`Topology::Bridge`], whose ports make them.
    pub links: Links,
}

impl Layout {
    /// IPv4, links as fast as the machine.
    pub fn new(nodes: usize, topology: Topology, mtu: u32) -> Self {
        Self { nodes, topology, mtu, ipv6: false, links: Links::default() }
    }
}

/// A set of nodes on this machine.
#[derive(Debug)]
pub struct Netns {
    nodes: Vec<Namespace>,
    layout: Layout,
    /// To the kernel's tables of the switch's namespace.
    switch: Netlink,
    user_namespace: bool,
    offloads: Vec<(&'static str, bool)>,
}

impl Netns {
    /// Moves this process into a private network namespace (the switch) and builds `nodes` nodes around it.
    ///
    /// Must be called while the process has one thread: user_namespaces(7).
    ///
    /// # Errors
    /// [`Stop::Usage`] for impossible numbers, [`Stop::Missing`] if the system forbids namespaces, else what the
    /// kernel refused.
    pub fn build(nodes: usize, topology: Topology, mtu: u32) -> anyhow::Result<Self> {
        Self::build_as(Layout::new(nodes, topology, mtu))
    }

    /// As [`Netns::build`], with all that can be chosen.
    ///
    /// # Errors
    /// As [`Netns::build`].
    pub fn build_as(layout: Layout) -> anyhow::Result<Self> {
        check_shape(&layout)?;
        let user_namespace = privilege::enter_private_network()?;
        let home = Namespace::current().context("opening /proc/thread-self/ns/net (is /proc mounted?)")?;
        silence_ipv6();
        let spaces = (0..layout.nodes).map(|_| new_namespace(&home)).collect::<io::Result<Vec<_>>>();
        let mut made = Self {
            nodes: spaces.context("creating the nodes' network namespaces")?,
            layout,
            switch: Netlink::open().context("opening a netlink socket")?,
            user_namespace,
            offloads: Vec::new(),
        };
        made.wire().map_err(missing_support)?;
        for node in 0..layout.nodes {
            made.configure(node, &home).with_context(|| format!("configuring {INTERFACE} of node {node}"))?;
        }
        if layout.topology == Topology::Bridge {
            let mut names: Vec<_> = (0..layout.nodes).map(port_name).collect();
            names.push(BRIDGE.to_owned());
            await_running(&mut made.switch, &names).context("waiting for the switch's ports")?;
        }
        for node in 0..layout.nodes {
            let running = || await_running(&mut Netlink::open()?, &[INTERFACE.to_owned()]);
            inside(&made.nodes[node], &home, running)
                .with_context(|| format!("waiting for the link of node {node}"))?;
        }
        Ok(made)
    }

    /// The network namespace of a node, for threads of this process that play the node.
    pub fn namespace(&self, node: usize) -> &Namespace {
        &self.nodes[node]
    }

    /// Creates the links.
    fn wire(&mut self) -> anyhow::Result<()> {
        let Layout { topology, mtu, links, .. } = self.layout;
        if topology == Topology::Pair {
            let ends = [0, 1].map(|node| end(&self.nodes, node, None));
            return self.switch.add_veth(&ends[0], &ends[1], mtu).context("creating a veth pair");
        }
        let switch = &mut self.switch;
        switch.add_bridge(BRIDGE, mtu).context("creating a bridge")?;
        let bridge = switch.index(BRIDGE).context("looking up the bridge")?;
        // On a shaped link each frame crosses by itself.
        let gso_max_frames = links.shape.map(|_| 1);
        for node in 0..self.nodes.len() {
            let name = port_name(node);
            let near = End { name: &name, mac: mac(0x50, node), namespace: None, bridge: Some(bridge), gso_max_frames };
            let linked = switch.add_veth(&near, &end(&self.nodes, node, gso_max_frames), mtu);
            linked.with_context(|| format!("creating the veth pair of node {node}"))?;
            links.make_port(switch, node, mtu).with_context(|| format!("making the link of node {node}"))?;
        }
        Ok(())
    }

    /// Addresses and state of a node's interfaces, from inside.
    fn configure(&mut self, node: usize, home: &Namespace) -> anyhow::Result<()> {
        let Layout { ipv6, links, mtu, .. } = self.layout;
        let prefix = prefix(self.nodes.len());
        let offloads = inside(&self.nodes[node], home, || {
            let mut netlink = Netlink::open()?;
            let loopback = netlink.index("lo")?;
            netlink.set_up(loopback)?;
            let index = netlink.index(INTERFACE)?;
            netlink.add_address(index, address(node).into(), prefix)?;
            if ipv6 {
                allow_ipv6()?;
                netlink.add_address(index, address6(node).into(), PREFIX6)?;
            }
            netlink.set_up(index)?;
            if let Some(shape) = &links.shape {
                shape.limit_node(&mut netlink, index, mtu)?;
            }
            // For the record only: a kernel without ethtool's answers is as good.
            Ok(sys::offloads(INTERFACE).unwrap_or_default())
        })?;
        self.offloads = offloads;
        Ok(())
    }

    /// Address of IPv4 of a node, whatever [`Layout::ipv6`] says.
    pub fn address_v4(&self, node: usize) -> IpAddr {
        address(node).into()
    }
}

/// A node's end of its link.
fn end(nodes: &[Namespace], node: usize, gso_max_frames: Option<u32>) -> End<'_> {
    End { name: INTERFACE, mac: mac(0x4d, node), namespace: Some(nodes[node].fd()), bridge: None, gso_max_frames }
}

impl Testbed for Netns {
    fn name(&self) -> &'static str {
        "netns"
    }

    fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn address(&self, node: usize) -> IpAddr {
        if self.layout.ipv6 { address6(node).into() } else { address(node).into() }
    }

    fn interface(&self, _node: usize) -> &str {
        INTERFACE
    }

    fn start(
        &mut self,
        node: usize,
        args: &[OsString],
        dir: &Path,
        stderr: &str,
        core: Option<usize>,
    ) -> anyhow::Result<NodeProcess> {
        let program = std::env::current_exe().context("finding this program's own file")?;
        let errors = dir.join(stderr);
        let errors = File::options().append(true).create(true).open(&errors);
        let errors = errors.with_context(|| format!("opening {stderr} for node {node}"))?;
        let mut command = Command::new(program);
        command.arg("cp-node").args(args).current_dir(dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        sys::prepare(&mut command, sys::Launch { namespace: &self.nodes[node], core });
        let mut child = command.spawn().with_context(|| format!("starting cp-node on node {node}"))?;
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        Ok(NodeProcess { stdin: Box::new(stdin), stdout: Box::new(stdout), handle: Box::new(Local(child)) })
    }

    fn facts(&self) -> serde_json::Value {
        let offloads: serde_json::Map<_, _> =
            self.offloads.iter().map(|&(name, on)| (name.to_owned(), on.into())).collect();
        serde_json::json!({
            "kind": self.name(),
            "topology": match self.layout.topology { Topology::Bridge => "bridge", Topology::Pair => "pair" },
            "mtu_bytes": self.layout.mtu,
            "links": self.layout.links.facts(self.layout.mtu),
            "user_namespace": self.user_namespace,
            "interface": INTERFACE,
            "prefix": prefix(self.nodes.len()),
            "scheduler_slice_asked_ns": sys::SLICE_NS,
            "offloads": offloads,
        })
    }

    fn ports(&mut self) -> anyhow::Result<Vec<PortCounts>> {
        let nodes = self.nodes.len();
        self.layout.links.counts(&mut self.switch, nodes).context("reading the counters of the switch's ports")
    }
}

/// A child of this process, killed when forgotten.
struct Local(Child);

impl ProcessHandle for Local {
    fn ended(&mut self) -> Option<String> {
        match self.0.try_wait() {
            Ok(status) => status.map(describe),
            Err(err) => Some(format!("unknown end ({err})")),
        }
    }

    fn kill(&mut self) {
        // Both fail only if the process was waited for already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    fn id(&self) -> Option<u32> {
        Some(self.0.id())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An exit status in words.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(libc::SIGKILL)) => "signal 9 (SIGKILL: killed, perhaps for lack of memory)".to_owned(),
        (None, Some(libc::SIGSEGV)) => "signal 11 (SIGSEGV)".to_owned(),
        (None, Some(libc::SIGABRT)) => "signal 6 (SIGABRT)".to_owned(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown end".to_owned(),
    }
}

/// Refuses numbers that cannot work, before anything is made.
fn check_shape(layout: &Layout) -> Result<(), Stop> {
    let Layout { nodes, topology, mtu, links, .. } = *layout;
    if topology == Topology::Pair && links != Links::default() {
        return Err(Stop::Usage("a pair has no switch whose ports could shape its link or lose packets".to_owned()));
    }
    if topology == Topology::Pair && nodes != 2 {
        return Err(Stop::Usage(format!("a pair has 2 nodes, not {nodes}")));
    }
    if !(2..=MAX_NODES).contains(&nodes) {
        let text = format!("--nodes {nodes}: a node talks to the others, so from 2 to {MAX_NODES} are needed");
        return Err(Stop::Usage(text));
    }
    if !MTU_RANGE.contains(&mtu) {
        let (least, most) = MTU_RANGE.into_inner();
        return Err(Stop::Usage(format!("--mtu {mtu}: an interface here takes {least} to {most} bytes")));
    }
    links.shape.map_or(Ok(()), |shape| shape.check(mtu))
}

/// Data-plane address of a node: 10.77.0.1 onwards; 250 to a third byte, so that none ends in 0 or 255.
fn address(node: usize) -> Ipv4Addr {
    let part = |value: usize| u8::try_from(value).expect("at most MAX_NODES nodes");
    Ipv4Addr::new(10, 77, part(node / 250), part(node % 250 + 1))
}

/// Data-plane address of IPv6 of a node: fd77::1 onwards.
fn address6(node: usize) -> Ipv6Addr {
    let last = u16::try_from(node + 1).expect("at most MAX_NODES nodes");
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last)
}

/// Length of the network part of addresses of IPv6.
const PREFIX6: u8 = 64;

/// Length of the network part of the addresses.
fn prefix(nodes: usize) -> u8 {
    if nodes <= 250 { 24 } else { 16 }
}

/// A locally administered hardware address that shows the node's number.
fn mac(role: u8, node: usize) -> [u8; 6] {
    let [high, low] = u16::try_from(node).unwrap_or(u16::MAX).to_be_bytes();
    [0x02, 0x00, 0x0a, role, high, low]
}

/// Creates a namespace and returns to `home`.
fn new_namespace(home: &Namespace) -> io::Result<Namespace> {
    sys::unshare_network()?;
    let made = Namespace::current();
    silence_ipv6();
    sys::enter(home)?;
    made
}

/// Runs `work` with the calling thread in `namespace`.
fn inside<T>(namespace: &Namespace, home: &Namespace, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    sys::enter(namespace)?;
    let result = work();
    sys::enter(home)?;
    result
}

/// Waits until these interfaces carry packets, which the kernel arranges some time after they are up.
fn await_running(netlink: &mut Netlink, names: &[String]) -> io::Result<()> {
    let start = Instant::now();
    for name in names {
        while !netlink.is_running(name)? {
            if start.elapsed() > RUNNING_LIMIT {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{name} has no carrier")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// No router solicitations and neighbour discovery in measurements. A kernel without IPv6 has no such file, and no
/// such packets.
fn silence_ipv6() {
    for scope in ["all", "default"] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
    }
}

/// Switches IPv6 on for the node's interface, still without router solicitations and searches for double addresses.
fn allow_ipv6() -> io::Result<()> {
    for (name, value) in [("accept_dad", "0"), ("router_solicitations", "0"), ("disable_ipv6", "0")] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{INTERFACE}/{name}"), value)?;
    }
    Ok(())
}

/// A kernel without bridge or veth answers "not supported": then no node can exist, which has its own exit code.
fn missing_support(err: anyhow::Error) -> anyhow::Error {
    let code = err.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    match code {
        // Queueing disciplines and filters that are missing answer ENOENT.
        Some(libc::EOPNOTSUPP | libc::ENOENT) => Stop::Missing(format!(
            "{err:#}: this kernel lacks that; load it as root (`modprobe -a bridge veth`, for shaped links also \
             `ifb sch_htb sch_tbf sch_ingress cls_bpf act_mirred`) or use a kernel that has it"
        ))
        .into(),
        Some(libc::EPERM) => Stop::Missing(format!(
            "{err:#}: CAP_NET_ADMIN is missing even inside the new namespace, so a security module takes it away; \
             on Ubuntu: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` as root, or run as root"
        ))
        .into(),
        _ => err,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn shapes_that_cannot_work_are_usage_errors() {
        for (nodes, topology, mtu) in
            [(0, Topology::Bridge, 1500), (1, Topology::Bridge, 1500), (257, Topology::Bridge, 1500)]
                .into_iter()
                .chain([(3, Topology::Pair, 1500), (2, Topology::Bridge, 500), (2, Topology::Bridge, 70_000)])
        {
            let stop = check_shape(&Layout::new(nodes, topology, mtu)).unwrap_err();
            assert_eq!(stop.code(), 2, "{nodes} {topology:?} {mtu}: {stop}");
        }
        check_shape(&Layout::new(2, Topology::Bridge, 1500)).unwrap();
        check_shape(&Layout::new(256, Topology::Bridge, 9000)).unwrap();
        let lossy = Layout { links: Links { shape: None, loss: 0.1 }, ..Layout::new(2, Topology::Pair, 1500) };
        assert_eq!(check_shape(&lossy).unwrap_err().code(), 2, "a pair has no switch");
    }

    #[test]
    fn every_node_has_its_own_address_in_one_network() {
        assert_eq!(address(0), Ipv4Addr::new(10, 77, 0, 1));
        assert_eq!(address(249), Ipv4Addr::new(10, 77, 0, 250));
        assert_eq!(address(250), Ipv4Addr::new(10, 77, 1, 1));
        let all: HashSet<_> = (0..MAX_NODES).map(address).collect();
        assert_eq!(all.len(), MAX_NODES);
        assert_eq!((prefix(250), prefix(251)), (24, 16));
        let macs: HashSet<_> = (0..MAX_NODES).flat_map(|node| [mac(0x4d, node), mac(0x50, node)]).collect();
        assert_eq!(macs.len(), 2 * MAX_NODES);
    }
}
