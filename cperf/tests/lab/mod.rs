//! A cluster in namespaces of this machine, for tests: machines with an sshd each, a network for data and another one
//! for control, known hosts, keys. No root needed: the sshds run as an ordinary user of a user namespace.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod sys;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cperf::netlink::{End, Netlink};
use cperf::sys::{Launch, Namespace, enter, prepare};
use cperf::testbed::netns::{Layout, Netns, Topology};

/// Number and name of the user that everything runs as.
const USER: u32 = 1000;
/// The control-plane interface of a machine.
pub(crate) const CONTROL: &str = "ctl0";
/// The data-plane interface of a machine.
pub(crate) const DATA: &str = "veth0";

type Result<T> = std::result::Result<T, String>;

/// A cluster.
pub(crate) struct Lab {
    pub(crate) dir: PathBuf,
    pub(crate) net: Netns,
    home: Namespace,
    sshds: Vec<Child>,
    /// Directories with a file system of their own.
    mounted: Vec<PathBuf>,
    count: u32,
}

impl Lab {
    /// Builds `nodes` machines. Must be called while the process has one thread.
    pub(crate) fn build(nodes: usize) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("cperf-lab-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let said = |what: &str| {
            let what = what.to_owned();
            move |err: std::io::Error| format!("{what}: {err}")
        };
        for sub in ["home/.ssh", "node"] {
            fs::create_dir_all(dir.join(sub)).map_err(said("making a directory"))?;
        }
        sys::become_user(USER).map_err(said("entering a user namespace (are they forbidden here?)"))?;
        let users = format!("tester:x:{USER}:{USER}::{}:/bin/sh\n", dir.join("home").display());
        fs::write(dir.join("passwd"), users).map_err(said("writing passwd"))?;
        sys::use_passwd(&dir.join("passwd")).map_err(said("mounting a passwd of our own"))?;
        let layout = Layout { ipv6: true, ..Layout::new(nodes, Topology::Bridge, 1500) };
        let net = Netns::build_as(layout).map_err(|err| format!("{err:#}"))?;
        let home = Namespace::current().map_err(said("opening our network namespace"))?;
        let mut lab = Self { dir, net, home, sshds: Vec::new(), mounted: Vec::new(), count: 0 };
        lab.wire(nodes).map_err(said("making the control plane"))?;
        lab.keys()?;
        for node in 0..nodes {
            let sshd = lab.start_sshd(node)?;
            lab.sshds.push(sshd);
        }
        lab.await_sshds(nodes)?;
        Ok(lab)
    }

    /// The control plane: a bridge, to which this process is joined too.
    fn wire(&mut self, nodes: usize) -> std::io::Result<()> {
        let mut here = Netlink::open()?;
        let loopback = here.index("lo")?;
        here.set_up(loopback)?;
        here.add_bridge("ctl", 1500)?;
        let bridge = here.index("ctl")?;
        here.add_address(bridge, Ipv4Addr::new(10, 78, 0, 254).into(), 24)?;
        allow_ipv6("ctl")?;
        here.add_address(bridge, Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 0xfe).into(), 64)?;
        here.set_up(bridge)?;
        for node in 0..nodes {
            let port = format!("ctl{}", 1000 + node);
            let mac = |role| [2, 0, 0, 0xc7, role, node as u8];
            let near = End { name: &port, mac: mac(1), namespace: None, bridge: Some(bridge), gso_max_frames: None };
            let space = Some(self.net.namespace(node).fd());
            let far = End { name: CONTROL, mac: mac(2), namespace: space, bridge: None, gso_max_frames: None };
            here.add_veth(&near, &far, 1500)?;
            enter(self.net.namespace(node))?;
            let made = Netlink::open().and_then(|mut there| {
                let index = there.index(CONTROL)?;
                there.add_address(index, control(node), 24)?;
                allow_ipv6(CONTROL)?;
                there.add_address(index, control_v6(node), 64)?;
                there.set_up(index)
            });
            enter(&self.home)?;
            made?;
            assert_ne!(self.net.address_v4(node), control(node), "two planes");
        }
        Ok(())
    }

    /// A key for the user, which the machines accept; host keys, which the user knows.
    fn keys(&self) -> Result<()> {
        let ssh = self.dir.join("home/.ssh");
        self.keygen(&ssh.join("id_ed25519"), "")?;
        let public = fs::read_to_string(ssh.join("id_ed25519.pub")).map_err(|err| err.to_string())?;
        fs::write(ssh.join("authorized_keys"), public).map_err(|err| err.to_string())?;
        self.keygen(&self.dir.join("host"), "")?;
        fs::write(self.known_hosts(), self.host_lines()?).map_err(|err| err.to_string())
    }

    /// Lines for known_hosts: machines by their control-plane addresses, and by those of the data plane.
    pub(crate) fn host_lines(&self) -> Result<String> {
        use cperf::testbed::Testbed as _;
        let key = fs::read_to_string(self.dir.join("host.pub")).map_err(|err| err.to_string())?;
        let names = (0..self.net.nodes()).map(|node| {
            let all = [control(node), self.net.address_v4(node), control_v6(node)];
            all.map(|address| format!("[{address}]:2222")).join(",")
        });
        Ok(names.map(|names| format!("{names} {key}")).collect())
    }

    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.dir.join("home/.ssh/known_hosts")
    }

    /// Makes a pair of keys.
    pub(crate) fn keygen(&self, path: &Path, passphrase: &str) -> Result<()> {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", passphrase, "-f"]).arg(path);
        let output = command.output().map_err(|err| format!("ssh-keygen (package openssh-client): {err}"))?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// Starts the sshd of a machine.
    pub(crate) fn start_sshd(&self, node: usize) -> Result<Child> {
        let sshd = sshd()?;
        let at = |name: &str| self.dir.join(name).display().to_string();
        let mut config = format!(
            "Port 2222\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication \
             no\nKbdInteractiveAuthentication no\nMaxStartups 100\nMaxSessions 100\n",
            at("host"),
            at("home/.ssh/authorized_keys")
        );
        // Newer ones run a program of their own for each connection, which may have been unpacked with them.
        for (option, name) in [("SshdSessionPath", "sshd-session"), ("SshdAuthPath", "sshd-auth")] {
            let path = sshd.parent().and_then(Path::parent).map(|root| root.join("lib/openssh").join(name));
            if let Some(path) = path.filter(|path| path.exists()) {
                config += &format!("{option} {}\n", path.display());
            }
        }
        let file = self.dir.join(format!("sshd{node}.conf"));
        fs::write(&file, config).map_err(|err| err.to_string())?;
        let log = fs::File::create(self.dir.join(format!("sshd{node}.log"))).map_err(|err| err.to_string())?;
        let mut command = Command::new(&sshd);
        command.args(["-D", "-e", "-f"]).arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        prepare(&mut command, Launch { namespace: self.net.namespace(node), core: None });
        command.spawn().map_err(|err| format!("starting {}: {err}", sshd.display()))
    }

    fn await_sshds(&self, nodes: usize) -> Result<()> {
        let start = Instant::now();
        for node in 0..nodes {
            while std::net::TcpStream::connect((control(node), 2222)).is_err() {
                if start.elapsed() > Duration::from_secs(20) {
                    let log = fs::read_to_string(self.dir.join(format!("sshd{node}.log"))).unwrap_or_default();
                    return Err(format!("the sshd of node {node} does not answer: {log}"));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Ends a machine's sshd; connections that are open stay.
    pub(crate) fn stop_sshd(&mut self, node: usize) {
        let _ = self.sshds[node].kill();
        let _ = self.sshds[node].wait();
    }

    /// Starts it again if it was ended, and waits until it answers.
    pub(crate) fn restart_sshd(&mut self, node: usize) -> Result<()> {
        if self.sshds[node].try_wait().is_ok_and(|status| status.is_some()) {
            self.sshds[node] = self.start_sshd(node)?;
            self.await_sshds(node + 1)?;
        }
        Ok(())
    }

    /// Process id of a machine's sshd.
    pub(crate) fn sshd_of(&self, node: usize) -> u32 {
        self.sshds[node].id()
    }

    /// Takes a machine's data-plane link away at the switch, or gives it back.
    pub(crate) fn set_data_link(&self, node: usize, up: bool) -> Result<()> {
        let set = || -> std::io::Result<()> {
            let mut switch = Netlink::open()?;
            let port = switch.index(&format!("port{node}"))?;
            if up { switch.set_up(port) } else { switch.set_down(port) }
        };
        set().map_err(|err| format!("setting the link of node {node}: {err}"))
    }

    /// Gives `dir` a small file system of its own, as long as the cluster lasts.
    pub(crate) fn mount_small(&mut self, dir: &Path, bytes: u64) -> std::io::Result<()> {
        sys::mount_small(dir, bytes)?;
        self.mounted.push(dir.to_owned());
        Ok(())
    }

    /// A directory of its own.
    pub(crate) fn fresh(&mut self, name: &str) -> PathBuf {
        self.count += 1;
        self.dir.join(format!("{name}-{}", self.count))
    }

    /// Where the program and the runs of all machines are: one directory, as on a cluster with shared homes.
    pub(crate) fn directory(&self) -> PathBuf {
        self.dir.join("node")
    }

    /// A cluster file for the first `nodes` machines: `top` before the nodes, `each` in every node.
    pub(crate) fn cluster(&mut self, nodes: usize, top: &str, each: impl Fn(usize) -> String) -> Result<PathBuf> {
        let path = self.fresh("cluster.toml");
        fs::write(&path, self.cluster_text(nodes, top, each)).map_err(|err| err.to_string())?;
        Ok(path)
    }

    fn cluster_text(&self, nodes: usize, top: &str, each: impl Fn(usize) -> String) -> String {
        let known = self.known_hosts();
        let mut text = format!(
            "user = \"tester\"\nport = 2222\ninterface = \"{DATA}\"\nknown_hosts = \"{}\"\n{top}\n",
            known.display()
        );
        for key in ["directory", "key"].into_iter().filter(|key| !top.contains(&format!("{key} ="))) {
            let value = if key == "key" { self.dir.join("home/.ssh/id_ed25519") } else { self.directory() };
            // Keys of the top come before its sections.
            let line = format!("{key} = \"{}\"\n", value.display());
            if !(key == "key" && top.contains("agent = true")) {
                text.insert_str(0, &line);
            }
        }
        for node in 0..nodes {
            let own = each(node);
            let host = if own.contains("host =") { String::new() } else { format!("host = \"{}\"\n", control(node)) };
            let address = match own.contains("address =") {
                true => String::new(),
                false => format!("address = \"{}\"\n", self.net.address_v4(node)),
            };
            text += &format!("[[nodes]]\n{host}{address}{own}\n");
        }
        text
    }

    /// The program, as the lab's user has it: with the lab's home and without an agent.
    pub(crate) fn cperf(&self) -> Command {
        let mut command = Command::new(self.program());
        command.env("HOME", self.dir.join("home")).env_remove("SSH_AUTH_SOCK").env_remove("CPERF_KEY_PASSPHRASE");
        command.current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    /// The program without what debuggers want of it, which is nine tenths of what would be copied.
    pub(crate) fn program(&self) -> PathBuf {
        let small = self.dir.join("cperf");
        if !small.exists() {
            let whole = std::env::var_os("CPERF").unwrap_or_else(|| env!("CARGO_BIN_EXE_cperf").into());
            let stripped = Command::new("strip").arg("-o").arg(&small).arg(&whole).status();
            if !stripped.is_ok_and(|status| status.success()) {
                let _ = fs::copy(whole, &small);
            }
        }
        small
    }

    /// Processes of this lab's nodes and agents: those that run the program from its directory on the machines.
    pub(crate) fn node_processes(&self) -> Vec<u32> {
        let bin = self.directory().join("bin");
        processes()
            .filter(|id| fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|exe| exe.starts_with(&bin)))
            .collect()
    }

    /// Waits until none of those processes is left.
    pub(crate) fn await_silence(&self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let left = self.node_processes();
            if left.is_empty() {
                return Ok(());
            }
            if start.elapsed() > limit {
                return Err(format!("processes are left on the machines: {left:?}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for sshd in &mut self.sshds {
            let _ = sshd.kill();
            let _ = sshd.wait();
        }
        for dir in &self.mounted {
            let _ = sys::unmount(dir);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Ids of all processes.
pub(crate) fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Control-plane address of a machine.
pub(crate) fn control(node: usize) -> IpAddr {
    Ipv4Addr::new(10, 78, 0, node as u8 + 1).into()
}

/// The same of IPv6.
pub(crate) fn control_v6(node: usize) -> IpAddr {
    Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, node as u16 + 1).into()
}

/// Lets an interface of this namespace have addresses of IPv6, at once.
fn allow_ipv6(interface: &str) -> std::io::Result<()> {
    for (name, value) in [("accept_dad", "0"), ("router_solicitations", "0"), ("disable_ipv6", "0")] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/{name}"), value)?;
    }
    Ok(())
}

/// Where sshd is; it wants to be called by its absolute path.
fn sshd() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<_> = std::env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = dirs.into_iter().map(|dir| dir.join("sshd")).find(|path| path.is_file());
    found.ok_or_else(|| "there is no sshd: scripts/test fetches it, or install the package openssh-server".to_owned())
}

/// What a command says on standard error.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Sends a signal.
pub(crate) fn kill(signal: &str, id: u32) {
    let status = Command::new("sh").args(["-c", &format!("kill -{signal} {id}")]).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{signal} {id}");
}
