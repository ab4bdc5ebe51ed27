//! Parameters of the protocol by name, as `--homa` takes them.

use std::str::FromStr;

use homa_stack::{Config, Nanos};

/// One parameter with its value; applied in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    index: usize,
    value: u64,
}

/// Name, least and most, and how to set it.
type Entry = (&'static str, u64, u64, fn(&mut Config, u64));

/// Longest time in ticks: a day of milliseconds.
const TICKS: u64 = 86_400_000;
/// Most bytes of a limit.
const BYTES: u64 = 1 << 40;

/// The parameters; units are in the names, otherwise bytes or a number.
const ALL: [Entry; 25] = [
    ("unsched_bytes", 0, BYTES, |c, v| c.unsched_bytes = v as usize),
    ("max_incoming", 1, BYTES, |c, v| c.max_incoming = v as usize),
    ("max_overcommit", 1, 8, |c, v| c.max_overcommit = v as usize),
    ("window", 0, BYTES, |c, v| c.window = v as usize),
    ("fifo_grant_increment", 0, BYTES, |c, v| c.fifo_grant_increment = v as usize),
    ("grant_fifo_fraction", 0, 500, |c, v| c.grant_fifo_fraction = v as u32),
    ("fifo_grant_interval_us", 0, 1_000_000, |c, v| c.fifo_grant_interval = Nanos::from_micros(v)),
    ("link_mbps", 1, 1_000_000, |c, v| c.link_mbps = v),
    ("pacing", 0, 1, |c, v| c.pacing = v == 1),
    ("max_link_usage", 1, 100, |c, v| c.max_link_usage = v as u32),
    ("max_nic_backlog_us", 0, 1_000_000, |c, v| c.max_nic_backlog = Nanos::from_micros(v)),
    ("defer_min_bytes", 0, BYTES, |c, v| c.defer_min_bytes = v as usize),
    ("pacer_fifo_fraction", 0, 1000, |c, v| c.pacer_fifo_fraction = v as u32),
    ("num_priorities", 1, 8, |c, v| c.num_priorities = v as u8),
    ("max_sched_priority", 0, 7, |c, v| c.max_sched_priority = v as u8),
    ("tick_us", 10, 1_000_000, |c, v| c.tick = Nanos::from_micros(v)),
    ("resend_ticks", 1, TICKS, |c, v| c.resend_ticks = v as u32),
    ("resend_interval", 1, TICKS, |c, v| c.resend_interval = v as u32),
    ("timeout_ticks", 1, TICKS, |c, v| c.timeout_ticks = v as u32),
    ("reorder_window_us", 0, 10_000_000, |c, v| c.reorder_window = Nanos::from_micros(v)),
    ("reorder_window_max_us", 0, 10_000_000, |c, v| c.reorder_window_max = Nanos::from_micros(v)),
    ("early_resend", 0, 1, |c, v| c.early_resend = v == 1),
    ("resend_hold_off_us", 0, 10_000_000, |c, v| c.resend_hold_off = Nanos::from_micros(v)),
    ("request_ack_ticks", 1, TICKS, |c, v| c.request_ack_ticks = v as u32),
    ("max_server_rpcs", 1, 1 << 30, |c, v| c.max_server_rpcs = v as usize),
];

impl Parameter {
    /// Names of all parameters.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ALL.iter().map(|entry| entry.0)
    }

    /// Sets it in `config`.
    pub fn apply(self, config: &mut Config) {
        ALL[self.index].3(config, self.value);
    }
}

impl FromStr for Parameter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) =
            text.split_once('=').ok_or_else(|| format!("expected NAME=VALUE, like window=10000, found `{text}`"))?;
        let index = ALL.iter().position(|entry| entry.0 == name).ok_or_else(|| {
            let names: Vec<_> = Self::names().collect();
            format!("no parameter `{name}`: there are {}", names.join(", "))
        })?;
        let (_, least, most, _) = ALL[index];
        match value.parse() {
            Ok(value) if (least..=most).contains(&value) => Ok(Self { index, value }),
            _ => Err(format!("{name}: expected a whole number from {least} to {most}, found `{value}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_set_by_name() {
        let mut config = Config::default();
        for text in [
            "unsched_bytes=5000",
            "tick_us=250",
            "link_mbps=200",
            "window=0",
            "max_sched_priority=2",
            "reorder_window_us=900",
        ] {
            text.parse::<Parameter>().unwrap().apply(&mut config);
        }
        assert_eq!((config.unsched_bytes, config.tick), (5000, Nanos::from_micros(250)));
        assert_eq!(config.reorder_window, Nanos::from_micros(900));
        assert_eq!((config.link_mbps, config.window, config.max_sched_priority), (200, 0, 2));
    }

    #[test]
    fn wrong_ones_say_what_is_expected() {
        for (text, part) in [
            ("window", "NAME=VALUE"),
            ("windw=1", "no parameter `windw`: there are unsched_bytes"),
            ("max_incoming=0", "from 1 to"),
            ("max_overcommit=9", "from 1 to 8"),
            ("tick_us=x", "found `x`"),
            ("tick_us=-1", "found `-1`"),
        ] {
            let error = text.parse::<Parameter>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
