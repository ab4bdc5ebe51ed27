//! What options choose between.

use clap::ValueEnum;

/// Kinds of testbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TestbedKind {
    /// Simulated nodes, in virtual time
    Sim,
    /// Network namespaces of this machine
    Netns,
    /// Machines reached by SSH
    Ssh,
}

impl TestbedKind {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sim => "sim",
            Self::Netns => "netns",
            Self::Ssh => "ssh",
        }
    }
}

/// What measures the points of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Threads of this process
    Local,
    /// A job array of the Slurm scheduler
    Slurm,
}

/// What is done about a point that has failed as often as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The others go on; exit code 4
    LeaveOut,
    /// All ends; exit code 1
    Stop,
}

/// Transports under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// This project's Homa
    Homa,
    /// Homa by the kernel's module, where it is loaded; on netns and ssh
    #[serde(rename = "homa-kernel")]
    HomaKernel,
    /// TCP (cubic): the kernel's, or on sim a model of it
    Tcp,
    /// DCTCP, on sim, and on ssh the kernel's
    Dctcp,
}

impl Protocol {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Homa => "homa",
            Self::HomaKernel => "homa-kernel",
            Self::Tcp => "tcp",
            Self::Dctcp => "dctcp",
        }
    }
}

/// How TCP threads wait for data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TcpWait {
    /// Asleep
    Epoll,
    /// Busy
    Spin,
}

impl TcpWait {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::Spin => "spin",
        }
    }
}

/// What carries Homa's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// A packet socket
    AfPacket,
    /// AF_XDP sockets, with an XDP program on the interface
    AfXdp,
}

impl Device {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AfPacket => "af-packet",
            Self::AfXdp => "af-xdp",
        }
    }
}

/// Form of the results on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people
    Table,
    /// As in results.json
    Json,
}
