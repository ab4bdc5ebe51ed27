//! Grants by other policies than the core's own, in a rack under load: what each needs of the switch and what short
//! messages get.
//!
//! ```text
//! cargo run --release -p homa-sim --example grant_policies -- [WORKLOAD [GBPS [NODES [MILLISECONDS [SEED]]]]]
//! ```
//!
//! Echoed messages as on the published clusters (w4 at 20 Gbit/s of 25 each way, 20 nodes), xl170 hosts. The policies:
//!
//! - the core's own, SRPT with overcommitment, with 8 and with 4 messages granted to at once;
//! - [`Informed`](homa_stack::policy::Informed): little credit in total, and less for senders that are late with what they were
//!   granted;
//! - one that is written here, as anybody's would be: a packet to each message in turn.
//!
//! Printed for each: most bytes in the switch; mean slowdown (to an idle network); P50 and P99 round trip of the shortest
//! messages, of as many lengths as make a tenth of the messages; P99 slowdown of the longest tenth; what was carried.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use cp_node::workload::Workload;
use homa_sim::cluster::{ClusterSpec, Protocol, StopRule, run};
use homa_sim::{HostModel, Time};
use homa_stack::Config;
use homa_stack::policy::{Choice, GrantPolicy, Incoming, InformedConfig, Moment, Policy};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A packet's data.
const PACKET: usize = 1_440;

/// Grants a packet to each message in turn, up to `window` bytes ahead of what has come of it.
#[derive(Debug)]
struct InTurn {
    window: usize,
    /// The next in turn first.
    messages: VecDeque<Incoming>,
}

impl GrantPolicy for InTurn {
    fn begin(&mut self, _: Moment, message: Incoming) {
        self.messages.push_back(message);
    }

    fn progress(&mut self, _: Moment, message: Incoming) {
        if let Some(known) = self.messages.iter_mut().find(|known| known.key == message.key) {
            *known = message;
        }
    }

    fn end(&mut self, _: Moment, key: usize) {
        self.messages.retain(|known| known.key != key);
    }

    fn choose(&mut self, _: Moment, room: usize) -> Option<Choice> {
        let wants = |message: &Incoming| message.ungranted() > 0 && message.to_come() + PACKET <= self.window;
        let at = self.messages.iter().position(wants).filter(|_| room >= PACKET)?;
        let next = self.messages.remove(at)?;
        self.messages.push_back(next);
        Some(Choice { key: next.key, offset: next.granted + PACKET, priority: 0 })
    }
}

/// What is wrong with the arguments.
fn usage(what: &str) -> ! {
    eprintln!("{what}; usage: grant_policies [WORKLOAD [GBPS [NODES [MILLISECONDS [SEED]]]]], w1 to w5");
    std::process::exit(2)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let given = |i: usize, default: &'static str| args.get(i).map_or(default, String::as_str).to_string();
    let number = |i: usize, default: &'static str| {
        let text = given(i, default);
        text.parse::<f64>().unwrap_or_else(|_| usage(&format!("`{text}` is no number")))
    };
    let name = given(0, "w4");
    let workload = ["w1", "w2", "w3", "w4", "w5"].into_iter().find(|known| *known == name);
    let workload = workload.unwrap_or_else(|| usage(&format!("`{name}` is no workload")));
    let (gbps, nodes, ms, seed) = (number(1, "20"), number(2, "20") as u32, number(3, "40"), number(4, "1") as u64);
    let rtt_bytes = 60_000;
    let base = Config { auto_cutoffs: true, unsched_bytes: rtt_bytes, window: rtt_bytes, ..Config::default() };
    let base = Config { max_incoming: 8 * rtt_bytes, ..base };
    let informed =
        |most: usize| Config { grant_policy: Some(InformedConfig::for_round_trip(most).policy()), ..base.clone() };
    let in_turn = Policy::new("in turn", move |_| Box::new(InTurn { window: rtt_bytes, messages: VecDeque::new() }));
    let policies = [
        ("srpt, 8 messages", base.clone()),
        ("srpt, 4 messages", Config { max_overcommit: 4, ..base.clone() }),
        ("informed, 60 KB", informed(rtt_bytes)),
        ("informed, 120 KB", informed(2 * rtt_bytes)),
        ("in turn", Config { grant_policy: Some(in_turn), ..base.clone() }),
    ];
    println!("{workload}, {gbps} Gbit/s, {nodes} nodes, {ms} ms after 20, seed {seed}");
    println!("policy             switch_mb  slowdown  short_p50_us  short_p99_us  long_p99  in_gbps");
    for (name, config) in policies {
        let spec = ClusterSpec {
            protocol: Protocol::Homa(Box::new(config)),
            workload: Workload::Named(workload),
            // Requests; the responses are as many bytes.
            gbps: gbps / 2.0,
            client_max: 400,
            mtu: 3000,
            seed,
            warmup: Time::from_millis(20),
            stop: StopRule::After(Time::from_micros_f64(ms * 1e3)),
            host: HostModel::xl170(),
            ..ClusterSpec::rack(nodes)
        };
        let out = run(&spec, &mut |_| ControlFlow::Continue(())).unwrap_or_else(|error| usage(&error.to_string()));
        let mut samples: Vec<(u32, u64)> =
            out.nodes.iter().flat_map(|node| &node.samples).map(|sample| (sample.len, sample.service_ns)).collect();
        samples.sort_unstable();
        let at = |values: &[f64], share: usize| values.get(values.len() * share / 100).copied().unwrap_or(f64::NAN);
        let slowdown = |&(len, ns): &(u32, u64)| ns as f64 / (15_000.0 + 16.0 * f64::from(len) / 25.0);
        let sorted = |mut values: Vec<f64>| {
            values.sort_unstable_by(f64::total_cmp);
            values
        };
        let limit = samples.get(samples.len() / 10).map_or(0, |sample| sample.0);
        let short = sorted(samples.iter().filter(|s| s.0 <= limit).map(|s| s.1 as f64 / 1e3).collect());
        let long = sorted(samples[samples.len() * 9 / 10..].iter().map(slowdown).collect());
        println!(
            "{name:18} {:9.2} {:9.2} {:13.1} {:13.1} {:9.1} {:8.2}",
            out.switches[0].high_water_bytes as f64 / 1e6,
            samples.iter().map(slowdown).sum::<f64>() / samples.len().max(1) as f64,
            at(&short, 50),
            at(&short, 99),
            at(&long, 99),
            out.in_gbps,
        );
    }
}
