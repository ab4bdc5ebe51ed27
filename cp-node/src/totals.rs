//! Cumulative counters of each experiment, as JSON: what a benchmark's achieved load is computed from.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::node::{ClientGroup, ServerGroup};

/// Role, experiment and protocol.
type Key = (Role, String, String);

/// What a node is in an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    Client,
    Server,
}

/// Sums over the ports of an experiment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    issued: u64,
    completed: u64,
    errors: u64,
    timeouts: u64,
    request_bytes: u64,
    response_bytes: u64,
    looks: u64,
    lost_samples: u64,
    backed_up: u64,
    outstanding: u64,
    lag_ns: u64,
    ports: u64,
}

/// When an experiment's counting began and ended, in ns.
#[derive(Clone, Copy, Debug)]
struct Span {
    begin: u64,
    /// `None` while it has ports.
    end: Option<u64>,
}

/// Counters since the last reset, also of ports that are closed.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Of ports that are closed.
    closed: BTreeMap<Key, Sums>,
    /// At the last reset.
    base: BTreeMap<Key, Sums>,
    spans: BTreeMap<Key, Span>,
}

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    experiments: Vec<Entry<'a>>,
}

/// One experiment in one role. For a server, issued and completed are the requests answered.
#[derive(Debug, PartialEq, Serialize)]
struct Entry<'a> {
    name: &'a str,
    role: Role,
    protocol: &'a str,
    issued: u64,
    completed: u64,
    /// Failed RPCs, timed-out ones included.
    errors: u64,
    timeouts: u64,
    /// Now.
    outstanding: u64,
    /// Of completed RPCs.
    request_bytes: u64,
    /// Of completed RPCs.
    response_bytes: u64,
    /// Times that a server looked at the network and found requests, several at once perhaps; 0 for clients.
    looks: u64,
    /// Since the reset or the start, whichever is later, until now or the end.
    elapsed_s: f64,
    lost_samples: u64,
    /// How late the most recent request was sent, mean over the ports.
    lag_s: f64,
    backed_up: u64,
}

impl Totals {
    /// Notes that an experiment has new ports.
    pub(crate) fn opened_client(&mut self, group: &ClientGroup, now_ns: u64) {
        self.open(client_key(group), now_ns);
    }

    /// Notes that an experiment has new ports.
    pub(crate) fn opened_server(&mut self, group: &ServerGroup, now_ns: u64) {
        self.open(server_key(group), now_ns);
    }

    /// Keeps the counters of ports that are about to be dropped.
    pub(crate) fn closed(&mut self, clients: &[ClientGroup], servers: &[ServerGroup], now_ns: u64) {
        for (key, sums) in live(clients, servers) {
            self.spans.entry(key.clone()).or_insert(Span { begin: now_ns, end: None }).end = Some(now_ns);
            let closed = self.closed.entry(key).or_default();
            let ports = sums.ports;
            *closed = closed.plus(&Sums { outstanding: 0, ..sums });
            closed.ports = ports;
        }
    }

    /// Counts from now on; experiments without ports are forgotten.
    pub(crate) fn reset(&mut self, clients: &[ClientGroup], servers: &[ServerGroup], now_ns: u64) {
        let live = live(clients, servers);
        self.closed.retain(|key, _| live.contains_key(key));
        self.spans = live.keys().map(|key| (key.clone(), Span { begin: now_ns, end: None })).collect();
        self.base = self.all(&live);
    }

    /// Writes all counters since the last reset to `path` as one line of JSON.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(crate) fn write(
        &self,
        path: &Path,
        clients: &[ClientGroup],
        servers: &[ServerGroup],
        now_ns: u64,
    ) -> Result<()> {
        let all = self.all(&live(clients, servers));
        let experiments = all.iter().map(|(key, sums)| self.entry(key, sums, now_ns)).collect();
        let mut text = serde_json::to_string(&Report { version: 1, experiments })?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("can't write statistics to {}", path.display()))
    }

    fn open(&mut self, key: Key, now_ns: u64) {
        self.spans.entry(key).or_insert(Span { begin: now_ns, end: None }).end = None;
    }

    fn all(&self, live: &BTreeMap<Key, Sums>) -> BTreeMap<Key, Sums> {
        let mut all = self.closed.clone();
        for (key, sums) in live {
            let sum = all.entry(key.clone()).or_default();
            *sum = sum.plus(sums);
        }
        all
    }

    fn entry<'a>(&self, key: &'a Key, sums: &Sums, now_ns: u64) -> Entry<'a> {
        let base = self.base.get(key).copied().unwrap_or_default();
        let elapsed_ns = self.spans.get(key).map_or(0, |s| s.end.unwrap_or(now_ns).saturating_sub(s.begin));
        Entry {
            name: &key.1,
            role: key.0,
            protocol: &key.2,
            issued: sums.issued - base.issued,
            completed: sums.completed - base.completed,
            errors: sums.errors - base.errors,
            timeouts: sums.timeouts - base.timeouts,
            outstanding: sums.outstanding,
            request_bytes: sums.request_bytes - base.request_bytes,
            response_bytes: sums.response_bytes - base.response_bytes,
            looks: sums.looks - base.looks,
            elapsed_s: elapsed_ns as f64 / 1e9,
            lost_samples: sums.lost_samples - base.lost_samples,
            lag_s: sums.lag_ns as f64 / sums.ports.max(1) as f64 / 1e9,
            backed_up: sums.backed_up - base.backed_up,
        }
    }
}

impl Sums {
    /// Sums of both; the lag is that of `newer`.
    fn plus(&self, newer: &Self) -> Self {
        Self {
            issued: self.issued + newer.issued,
            completed: self.completed + newer.completed,
            errors: self.errors + newer.errors,
            timeouts: self.timeouts + newer.timeouts,
            request_bytes: self.request_bytes + newer.request_bytes,
            response_bytes: self.response_bytes + newer.response_bytes,
            looks: self.looks + newer.looks,
            lost_samples: self.lost_samples + newer.lost_samples,
            backed_up: self.backed_up + newer.backed_up,
            outstanding: self.outstanding + newer.outstanding,
            lag_ns: newer.lag_ns,
            ports: newer.ports,
        }
    }
}

fn client_key(group: &ClientGroup) -> Key {
    (Role::Client, group.experiment.clone(), group.options.common.protocol.clone())
}

fn server_key(group: &ServerGroup) -> Key {
    (Role::Server, group.experiment.clone(), group.protocol.clone())
}

fn live(clients: &[ClientGroup], servers: &[ServerGroup]) -> BTreeMap<Key, Sums> {
    let mut all = BTreeMap::<Key, Sums>::new();
    let get = |a: &std::sync::atomic::AtomicU64| a.load(Ordering::Acquire);
    for group in clients {
        let sums = all.entry(client_key(group)).or_default();
        for port in &group.ports {
            let c = &port.counters;
            // Ends before issues, so that no RPC seems to have ended without being issued.
            sums.completed += get(&c.completed);
            sums.errors += get(&c.errors);
            sums.timeouts += get(&c.timeouts);
            sums.issued += get(&c.issued);
            sums.request_bytes += get(&c.request_bytes);
            sums.response_bytes += get(&c.response_bytes);
            sums.lost_samples += port.samples.lost();
            sums.backed_up += get(&c.backed_up);
            sums.outstanding += port.outstanding();
            sums.lag_ns += get(&c.lag_ns);
            sums.ports += 1;
        }
    }
    for group in servers {
        let sums = all.entry(server_key(group)).or_default();
        for c in &group.counters {
            sums.completed += get(&c.requests);
            sums.issued = sums.completed;
            sums.request_bytes += get(&c.request_bytes);
            sums.response_bytes += get(&c.response_bytes);
            sums.looks += get(&c.looks);
            sums.ports += 1;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::transport::{ServerCounters, ServerHandle};

    struct Nothing;

    impl ServerHandle for Nothing {
        fn close(&mut self) {}
    }

    fn server(requests: u64) -> ServerGroup {
        let counters = Arc::new(ServerCounters::default());
        counters.requests.store(requests, Ordering::Relaxed);
        counters.request_bytes.store(requests * 100, Ordering::Relaxed);
        counters.looks.store(requests / 5, Ordering::Relaxed);
        ServerGroup {
            experiment: "e".into(),
            protocol: "tcp".into(),
            counters: vec![counters],
            handle: Box::new(Nothing),
        }
    }

    fn report(totals: &Totals, servers: &[ServerGroup], now_ns: u64) -> serde_json::Value {
        let path = std::env::temp_dir().join(format!("cp-node-totals-{}-{now_ns}", std::process::id()));
        totals.write(&path, &[], servers, now_ns).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn counters_are_since_the_reset_and_survive_the_close() {
        let servers = [server(10)];
        let mut totals = Totals::default();
        totals.opened_server(&servers[0], 1_000_000_000);
        assert_eq!(report(&totals, &servers, 3_000_000_000)["experiments"][0]["elapsed_s"], 2.0);
        totals.reset(&[], &servers, 4_000_000_000);
        servers[0].counters[0].requests.store(15, Ordering::Relaxed);
        servers[0].counters[0].request_bytes.store(1_500, Ordering::Relaxed);
        servers[0].counters[0].looks.store(3, Ordering::Relaxed);
        totals.closed(&[], &servers, 4_500_000_000);
        let json = report(&totals, &[], 9_000_000_001);
        let e = &json["experiments"][0];
        assert_eq!(json["version"], 1);
        assert_eq!(
            (e["name"].as_str(), e["role"].as_str(), e["protocol"].as_str()),
            (Some("e"), Some("server"), Some("tcp"))
        );
        assert_eq!((e["completed"].as_u64(), e["request_bytes"].as_u64()), (Some(5), Some(500)));
        assert_eq!(e["looks"].as_u64(), Some(1));
        assert_eq!(e["elapsed_s"], 0.5);
        totals.reset(&[], &[], 9_500_000_000);
        assert_eq!(report(&totals, &[], 9_600_000_000)["experiments"].as_array().map(Vec::len), Some(0));
    }
}
