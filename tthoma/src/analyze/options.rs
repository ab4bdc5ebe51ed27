//! Options of all analyses, on the command line and in the library.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

/// What analyses can be told. Each says in [`About::options`](super::About::options) which of the ones below
/// [`Options::COMMON`] it looks at; one that is given and that nobody looks at is a warning.
///
/// The field's name with `-` for `_` is the option on the command line. Times are in microseconds on the common clock.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
pub struct Options {
    /// More detail: slowest packets, messages that no analysis knows
    #[arg(short, long)]
    pub verbose: bool,

    /// Use the times in the traces as they are, without synchronising the nodes' clocks
    #[arg(long)]
    pub no_sync: bool,

    /// The nodes have one clock (simulated nodes, or one machine's): set times by the counters in the traces' first lines
    #[arg(long, conflicts_with = "no_sync")]
    pub one_clock: bool,

    /// Do not list negative delays; they stay in the tables
    #[arg(long)]
    pub negative_ok: bool,

    /// Events of your own, by regular expressions in a TOML file
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,

    /// Read the text anew, even if `tthoma convert` has been run on these traces
    #[arg(long)]
    pub no_cache: bool,

    /// Write the data files of analyses (time series, lists) to this directory
    #[arg(short, long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Write plots to this directory
    #[arg(short, long, value_name = "DIR")]
    pub plot: Option<PathBuf>,

    /// Speed of the links, for models of queues
    #[arg(long, value_name = "GBPS", default_value_t = 100.0)]
    pub gbps: f64,

    /// Step of time series, in us
    #[arg(long, value_name = "US", default_value_t = 50.0)]
    pub interval: f64,

    /// Only this node (its name)
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,

    /// Only this core
    #[arg(long, value_name = "CORE")]
    pub core: Option<u16>,

    /// Only this process, by its number
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,

    /// Moment of interest, in us [default: 0]
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    pub time: Option<f64>,

    /// Packet of interest: its RPC's id on the sender, and the offset
    #[arg(long, value_name = "ID:OFFSET")]
    pub pkt: Option<Pkt>,

    /// Transmit queue of interest, by its number [default: all]
    #[arg(long, value_name = "QID")]
    pub tx_qid: Option<u32>,

    /// Ignore RPCs that took longer than this, in us [default: none is ignored]
    #[arg(long, value_name = "US")]
    pub max_rtt: Option<f64>,

    /// Only packets received by GRO of this core
    #[arg(long, value_name = "CORE")]
    pub rx_core: Option<u16>,

    /// Only packets received by this node
    #[arg(long, value_name = "NODE")]
    pub rx_node: Option<String>,

    /// Only packets sent from this core
    #[arg(long, value_name = "CORE")]
    pub tx_core: Option<u16>,

    /// Only packets sent by this node
    #[arg(long, value_name = "NODE")]
    pub tx_node: Option<String>,

    /// Only packets received (GRO) at this time or later, in us
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    pub rx_start: Option<f64>,

    /// Only packets received (GRO) at this time or before, in us
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    pub rx_end: Option<f64>,

    /// Only packets sent at this time or later, in us
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    pub tx_start: Option<f64>,

    /// Only packets sent at this time or before, in us
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    pub tx_end: Option<f64>,

    /// Only packets that a named test lets through
    #[arg(long, value_name = "TEST")]
    pub filter: Option<String>,

    /// Only packets with this time from IP to GRO, in us: a maximum, or minimum and maximum
    #[arg(long, value_name = "RANGE")]
    pub grolat: Option<Range>,

    /// Only messages of this length, in bytes: a maximum, or minimum and maximum
    #[arg(long, value_name = "RANGE")]
    pub msglen: Option<Range>,

    /// Only packets of this type
    #[arg(long, value_enum, default_value_t = PktTypes::Data)]
    pub pkt_types: PktTypes,

    /// Each segment of a frame, not only the first
    #[arg(long)]
    pub segs: bool,

    /// Only RPCs that start in this range, in us: a maximum, or minimum and maximum
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    pub rpc_start: Option<Range>,

    /// Only RPCs that take this long, in us: a maximum, or minimum and maximum
    #[arg(long, value_name = "RANGE")]
    pub rtt: Option<Range>,

    /// Smallest message, in bytes [default: 0]
    #[arg(long, value_name = "BYTES")]
    pub min: Option<u64>,

    /// Largest message, in bytes [default: any]
    #[arg(long, value_name = "BYTES")]
    pub max: Option<u64>,

    /// A packet that takes longer from NIC to GRO is overdue, in us
    #[arg(long, value_name = "US", default_value_t = 100.0)]
    pub late: f64,

    /// What is above is worth a line, in us
    #[arg(long, value_name = "US", default_value_t = 50.0)]
    pub threshold: f64,

    /// Only overtaking among packets of the same GRO core
    #[arg(long)]
    pub same_gro_core: bool,

    /// Keys to sort by, the first being the most significant
    #[arg(long, value_name = "KEY,...", value_delimiter = ',')]
    pub sort: Vec<String>,

    /// The RPC of interest: its id on either side, or CLIENT:ID
    #[arg(long, value_name = "RPC")]
    pub rpc: Option<String>,

    /// How many items a list holds at most, unless --verbose
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub top: usize,

    /// Where waiting for SoftIRQ begins: when GRO sees a packet, hands its batch off, or the receive ring gets it
    #[arg(long, value_enum, default_value_t = From::Gro)]
    pub from: From,

    /// An episode of backlog begins when the oldest packet has waited this long, in us
    #[arg(long, value_name = "US", default_value_t = 100.0)]
    pub backlog_age: f64,

    /// An episode of backlog begins when this many packets wait [default: by --backlog-age]
    #[arg(long, value_name = "N")]
    pub backlog_pkts: Option<u64>,

    /// An episode of backlog begins when this many kilobytes wait [default: by --backlog-age]
    #[arg(long, value_name = "KB")]
    pub backlog_kb: Option<f64>,

    /// A packet that takes longer is late, in us; without it: 10 times P99.9 of its pair of nodes, at least 200
    #[arg(long, value_name = "US")]
    pub late_loss: Option<f64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            verbose: false,
            no_sync: false,
            one_clock: false,
            negative_ok: false,
            events: None,
            no_cache: false,
            data: None,
            plot: None,
            gbps: 100.0,
            interval: 50.0,
            node: None,
            core: None,
            pid: None,
            time: None,
            pkt: None,
            tx_qid: None,
            max_rtt: None,
            rx_core: None,
            rx_node: None,
            tx_core: None,
            tx_node: None,
            rx_start: None,
            rx_end: None,
            tx_start: None,
            tx_end: None,
            filter: None,
            grolat: None,
            msglen: None,
            pkt_types: PktTypes::Data,
            segs: false,
            rpc_start: None,
            rtt: None,
            min: None,
            max: None,
            late: 100.0,
            threshold: 50.0,
            same_gro_core: false,
            sort: Vec::new(),
            rpc: None,
            top: 20,
            from: From::Gro,
            backlog_age: 100.0,
            backlog_pkts: None,
            backlog_kb: None,
            late_loss: None,
        }
    }
}

impl Options {
    /// Options that mean something to every analysis.
    pub const COMMON: &[&str] =
        &["verbose", "no_sync", "one_clock", "negative_ok", "events", "no_cache", "data", "plot"];

    /// Names of the options that differ from their default.
    pub fn given(&self) -> Vec<String> {
        let fields = |options: &Self| serde_json::to_value(options).ok().and_then(|v| v.as_object().cloned());
        let (Some(ours), Some(defaults)) = (fields(self), fields(&Self::default())) else { return Vec::new() };
        ours.into_iter().filter(|(name, value)| defaults.get(name) != Some(value)).map(|(name, _)| name).collect()
    }

    /// True if time series are written, or drawn.
    pub(crate) fn wants_series(&self) -> bool {
        self.data.is_some() || self.plot.is_some()
    }

    /// True if `name` is an option.
    pub fn exists(name: &str) -> bool {
        serde_json::to_value(Self::default()).is_ok_and(|v| v.get(name).is_some())
    }
}

/// A packet: the id of its RPC on the sender, and the offset of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pkt {
    /// Id of the RPC on the sender.
    pub id: u32,
    /// First byte.
    pub offset: u32,
}

impl std::str::FromStr for Pkt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(id, offset)| Some((id.parse().ok()?, offset.parse().ok()?)));
        let (id, offset) = parts.ok_or_else(|| format!("expected ID:OFFSET, such as 1000:2848, found `{text}`"))?;
        Ok(Self { id, offset })
    }
}

/// A range of numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Range {
    /// Smallest; without it, there is no limit below.
    pub min: Option<f64>,
    /// Largest.
    pub max: f64,
}

impl Range {
    /// True if `value` is inside.
    pub fn contains(&self, value: f64) -> bool {
        self.min.is_none_or(|min| value >= min) && value <= self.max
    }
}

impl std::str::FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Option<Vec<f64>> =
            text.split([' ', ',']).filter(|w| !w.is_empty()).map(|w| w.parse().ok()).collect();
        match numbers.as_deref() {
            Some([max]) => Ok(Self { min: None, max: *max }),
            Some([min, max]) if min <= max => Ok(Self { min: Some(*min), max: *max }),
            _ => Err(format!("expected a maximum, or minimum and maximum as `10 20` or `10,20`, found `{text}`")),
        }
    }
}

/// Types of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PktTypes {
    /// Homa data
    Data,
    /// Homa grants
    Grant,
    /// TCP
    Tcp,
    /// All of these
    All,
}

/// Begin of a wait for SoftIRQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// GRO sees the packet
    Gro,
    /// GRO hands its batch off
    Handoff,
    /// The packet reaches the receive ring, where the stack logs that
    Ring,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(words: &[&str]) -> Result<Options, clap::Error> {
        Ok(Line::try_parse_from([&["t"], words].concat())?.options)
    }

    #[test]
    fn the_defaults_of_library_and_command_line_are_the_same() {
        assert_eq!(parse(&[]).unwrap(), Options::default());
    }

    #[test]
    fn what_was_given_is_known() {
        assert_eq!(Options::default().given(), [""; 0]);
        let options = parse(&["--pkt", "10:2848", "--grolat", "5 10", "--late", "100", "-v"]).unwrap();
        assert_eq!(options.given(), ["grolat", "pkt", "verbose"], "a default that is spelt out is no difference");
        assert_eq!(options.pkt, Some(Pkt { id: 10, offset: 2848 }));
        assert!(Options::exists("tx_qid") && !Options::exists("tx-qid"));
        assert!(Options::COMMON.iter().all(|name| Options::exists(name)));
    }

    #[test]
    fn ranges_have_one_number_or_two() {
        let range = |text: &str| text.parse::<Range>();
        assert_eq!(range("20"), Ok(Range { min: None, max: 20.0 }));
        assert_eq!(range("1.5,20"), Ok(Range { min: Some(1.5), max: 20.0 }));
        assert!(range("1 20").unwrap().contains(20.0) && !range("1 20").unwrap().contains(0.9));
        for text in ["", "x", "20 10", "1 2 3"] {
            assert!(range(text).unwrap_err().starts_with("expected a maximum"), "{text}");
        }
        assert!(parse(&["--pkt", "10"]).unwrap_err().to_string().contains("expected ID:OFFSET"));
    }
}
