//! The lines that are logged each second (cperf.md 1.9).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;

use crate::cli::Protocol;
use crate::node::{ClientGroup, ServerGroup};

/// Most samples that one percentile line looks back on, all clients of the experiment together.
const RECENT: usize = 100_000;

/// The previous readings of all counters.
#[derive(Debug, Default)]
pub(crate) struct Seconds {
    last: Option<Reading>,
}

/// All counters at one time, by experiment.
#[derive(Debug)]
struct Reading {
    at_ns: u64,
    servers: BTreeMap<String, ServerReading>,
    clients: BTreeMap<String, ClientReading>,
}

/// Sums over the server ports of an experiment.
#[derive(Clone, Debug, Default, PartialEq)]
struct ServerReading {
    /// Of each server thread (Homa) or port (TCP).
    requests: Vec<u64>,
    bytes_in: u64,
    bytes_out: u64,
}

/// Sums over the client ports of an experiment.
#[derive(Clone, Debug, Default, PartialEq)]
struct ClientReading {
    ports: u64,
    completed: u64,
    bytes_out: u64,
    bytes_in: u64,
    lag_ns: u64,
    backed_up: u64,
    outstanding: u64,
    tcp: bool,
    /// Recent service times in ns.
    recent: Vec<u64>,
}

impl Seconds {
    /// Forgets the previous readings: the next call of [`Seconds::lines`] gives none, as after a change of the clients.
    pub(crate) fn restart(&mut self) {
        self.last = None;
    }

    /// The lines for the time since the previous call.
    pub(crate) fn lines(&mut self, now_ns: u64, clients: &[ClientGroup], servers: &[ServerGroup]) -> Vec<String> {
        let reading = Reading { at_ns: now_ns, servers: read_servers(servers), clients: read_clients(clients) };
        let lines = self.last.as_ref().map(|last| compare(last, &reading)).unwrap_or_default();
        self.last = Some(reading);
        lines
    }
}

fn read_servers(groups: &[ServerGroup]) -> BTreeMap<String, ServerReading> {
    let mut all = BTreeMap::<String, ServerReading>::new();
    for group in groups {
        let reading = all.entry(group.experiment.clone()).or_default();
        for counters in &group.counters {
            reading.requests.push(counters.requests.load(Ordering::Relaxed));
            reading.bytes_in += counters.request_bytes.load(Ordering::Relaxed);
            reading.bytes_out += counters.response_bytes.load(Ordering::Relaxed);
        }
    }
    all
}

fn read_clients(groups: &[ClientGroup]) -> BTreeMap<String, ClientReading> {
    let mut all = BTreeMap::<String, ClientReading>::new();
    for group in groups {
        let reading = all.entry(group.experiment.clone()).or_default();
        reading.tcp |= group.options.common.protocol() == Protocol::Tcp;
        reading.ports += group.ports.len() as u64;
        for port in &group.ports {
            let c = &port.counters;
            reading.completed += c.completed.load(Ordering::Relaxed);
            reading.bytes_out += c.request_bytes.load(Ordering::Relaxed);
            reading.bytes_in += c.response_bytes.load(Ordering::Relaxed);
            reading.lag_ns += c.lag_ns.load(Ordering::Relaxed);
            reading.backed_up += c.backed_up.load(Ordering::Relaxed);
            reading.outstanding += port.outstanding();
        }
    }
    for group in groups {
        let reading = all.get_mut(&group.experiment).expect("entered above");
        let from_each = RECENT / reading.ports.max(1) as usize;
        group.ports.iter().for_each(|p| p.samples.recent(from_each, &mut reading.recent));
    }
    all
}

fn compare(last: &Reading, now: &Reading) -> Vec<String> {
    let elapsed = now.at_ns.saturating_sub(last.at_ns).max(1) as f64 / 1e9;
    let (no_server, no_client) = Default::default();
    let mut lines = Vec::new();
    for (name, reading) in &now.servers {
        server_lines(name, last.servers.get(name).unwrap_or(&no_server), reading, elapsed, &mut lines);
    }
    for (name, reading) in &now.clients {
        client_lines(name, last.clients.get(name).unwrap_or(&no_client), reading, elapsed, &mut lines);
    }
    lines
}

fn server_lines(exp: &str, last: &ServerReading, now: &ServerReading, elapsed: f64, lines: &mut Vec<String>) {
    if now.bytes_in == last.bytes_in {
        return;
    }
    let before = last.requests.iter().copied().chain(std::iter::repeat(0));
    let each: Vec<u64> = now.requests.iter().zip(before).map(|(n, l)| n.saturating_sub(l)).collect();
    let rpcs: u64 = each.iter().sum();
    let bytes_in = now.bytes_in.saturating_sub(last.bytes_in);
    lines.push(format!(
        "{exp} servers: {:.2} Kops/sec, {:.2} Gbps in, {:.2} Gbps out, avg. req. length {:.1} bytes",
        rpcs as f64 / elapsed / 1e3,
        gbps(bytes_in, elapsed),
        gbps(now.bytes_out.saturating_sub(last.bytes_out), elapsed),
        ratio(bytes_in, rpcs)
    ));
    let mut line = format!("RPCs per {exp} server thread:");
    for n in each {
        write!(line, " {n}").expect("a string takes everything");
    }
    lines.push(line);
}

fn client_lines(exp: &str, last: &ClientReading, now: &ClientReading, elapsed: f64, lines: &mut Vec<String>) {
    let rpcs = now.completed.saturating_sub(last.completed);
    let bytes_out = now.bytes_out.saturating_sub(last.bytes_out);
    if now.bytes_out != last.bytes_out || now.outstanding > 0 {
        let [p50, p99, p999] = percentiles(&now.recent);
        lines.push(format!(
            "{exp} clients: {:.2} Kops/sec, {:.2} Gbps out, {:.2} Gbps in, \
             RTT (us) P50 {p50:.2} P99 {p99:.2} P99.9 {p999:.2}, avg. req. length {:.1} bytes",
            rpcs as f64 / elapsed / 1e3,
            gbps(bytes_out, elapsed),
            gbps(now.bytes_in.saturating_sub(last.bytes_in), elapsed),
            ratio(bytes_out, rpcs)
        ));
    }
    let lag = (now.lag_ns as f64 - last.lag_ns as f64) / 1e9 / now.ports.max(1) as f64 / elapsed;
    if lag >= 0.01 {
        lines.push(format!("Lag due to overload for {exp} experiment: {:.1}%", lag * 100.0));
    }
    if now.tcp && now.backed_up > 0 {
        let sends = now.backed_up.saturating_sub(last.backed_up);
        lines.push(format!("Backed-up {exp} sends: {sends}/{rpcs} ({:.1}%)", ratio(sends, rpcs) * 100.0));
    }
    if now.outstanding > 0 {
        lines.push(format!("Outstanding client RPCs for {exp} experiment: {}", now.outstanding));
    }
}

/// P50, P99 and P99.9 in us, at indices n/2, 99n/100 and 999n/1000 of the sorted times; zeros if there are none.
fn percentiles(recent_ns: &[u64]) -> [f64; 3] {
    let n = recent_ns.len();
    if n == 0 {
        return [0.0; 3];
    }
    let mut times = recent_ns.to_vec();
    [n / 2, 99 * n / 100, 999 * n / 1000].map(|index| *times.select_nth_unstable(index).1 as f64 / 1e3)
}

fn gbps(bytes: u64, elapsed: f64) -> f64 {
    bytes as f64 * 8.0 / elapsed / 1e9
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_lines_are_worded_as_specified() {
        let last = ServerReading { requests: vec![100, 7], bytes_in: 1_000, bytes_out: 500 };
        let now = ServerReading { requests: vec![960, 7], bytes_in: 306_000, bytes_out: 125_000_500 };
        let mut lines = Vec::new();
        server_lines("homa_w2", &last, &now, 1.0, &mut lines);
        assert_eq!(
            lines,
            [
                "homa_w2 servers: 0.86 Kops/sec, 0.00 Gbps in, 1.00 Gbps out, avg. req. length 354.7 bytes",
                "RPCs per homa_w2 server thread: 860 0"
            ]
        );
        lines.clear();
        server_lines("homa_w2", &now, &now, 1.0, &mut lines);
        assert!(lines.is_empty(), "nothing changed");
    }

    #[test]
    fn client_lines_are_worded_as_specified() {
        let last = ClientReading { ports: 2, tcp: true, ..ClientReading::default() };
        let now = ClientReading {
            completed: 5_241,
            bytes_out: 524_100,
            bytes_in: 250_000_000,
            lag_ns: 500_000_000,
            backed_up: 17,
            outstanding: 3,
            recent: (1..=1000).map(|us| us * 1000).collect(),
            ..last.clone()
        };
        let mut lines = Vec::new();
        client_lines("tcp_100", &last, &now, 2.0, &mut lines);
        assert_eq!(
            lines,
            [
                "tcp_100 clients: 2.62 Kops/sec, 0.00 Gbps out, 1.00 Gbps in, \
                 RTT (us) P50 501.00 P99 991.00 P99.9 1000.00, avg. req. length 100.0 bytes",
                "Lag due to overload for tcp_100 experiment: 12.5%",
                "Backed-up tcp_100 sends: 17/5241 (0.3%)",
                "Outstanding client RPCs for tcp_100 experiment: 3"
            ]
        );
    }

    #[test]
    fn idle_clients_log_nothing_and_stalled_ones_do() {
        let idle = ClientReading { ports: 1, ..ClientReading::default() };
        let mut lines = Vec::new();
        client_lines("x", &idle, &idle, 1.0, &mut lines);
        assert!(lines.is_empty());
        client_lines("x", &idle, &ClientReading { outstanding: 1, ..idle.clone() }, 1.0, &mut lines);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("0.00 Kops/sec") && lines[0].contains("P50 0.00"));
    }

    #[test]
    fn a_falling_lag_is_not_reported() {
        let late = ClientReading { ports: 1, lag_ns: 1_000_000_000, ..ClientReading::default() };
        let mut lines = Vec::new();
        client_lines("x", &late, &ClientReading { lag_ns: 0, ..late.clone() }, 1.0, &mut lines);
        assert!(lines.is_empty());
    }
}
