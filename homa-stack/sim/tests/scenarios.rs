//! Situations that have gone wrong in Homa before, each with the figure that says whether they do here.

use std::ops::ControlFlow;

use cp_node::workload::Workload;
use homa_sim::cluster::{ClusterRun, ClusterSpec, Protocol, StopRule, run};
use homa_sim::fabric::{SwitchConfig, Topology};
use homa_sim::homa::Homa;
use homa_sim::{App, Call, Cx, Event, HostId, HostModel, Sim, Time};
use homa_stack::{Config, Nanos};

fn done(spec: &ClusterSpec) -> ClusterRun {
    run(spec, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn sum(run: &ClusterRun, name: &str) -> u64 {
    let of =
        |node: &homa_sim::cluster::NodeRun| node.counters.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
    run.nodes.iter().map(|node| of(node).unwrap_or_else(|| panic!("no counter {name}"))).sum()
}

fn config_of(spec: &ClusterSpec) -> Config {
    let Protocol::Homa(config) = &spec.protocol else { panic!("Homa is the default") };
    (**config).clone()
}

/// Nothing is lost, so nothing need be sent again: at 80 % load long messages wait for milliseconds, which is no reason
/// to ask for them. Quicker retries once cost two thirds of the throughput.
///
/// With losses repaired by ticks, as the kernel module does, nothing is; the fine timers must see that what is missing
/// may wait behind more urgent packets.
#[test]
fn without_losses_hardly_anything_is_sent_again_and_the_load_is_carried() {
    let spec = ClusterSpec {
        warmup: Time::from_millis(3),
        stop: StopRule::After(Time::from_millis(20)),
        ..ClusterSpec::rack(10)
    };
    let with = |config: Config| done(&ClusterSpec { protocol: Protocol::Homa(Box::new(config)), ..spec.clone() });
    let by_ticks = Config { reorder_window: Nanos::ZERO, early_resend: false, ..config_of(&spec) };
    let never = with(Config { resend_ticks: 100_000, timeout_ticks: 1_000_000, ..by_ticks.clone() });
    assert_eq!(sum(&never, "resent_packets"), 0);
    for (config, permille) in [(by_ticks, 1), (config_of(&spec), 1)] {
        let run = with(config);
        let sent: u64 = run.nodes.iter().map(|node| node.sent.1).sum();
        let resent = sum(&run, "resent_packets") * 1424;
        assert!(resent * 1000 < sent * permille, "{resent} of {sent} bytes were sent again");
        let ratio = run.in_gbps / never.in_gbps;
        assert!((ratio - 1.0).abs() < 0.02, "{} and {} Gbit/s", run.in_gbps, never.in_gbps);
    }
}

/// Many calls at once from one host to another.
#[derive(Debug, Default)]
struct Burst {
    calls: u64,
    len: u32,
    /// What servers wait before they answer.
    service: Time,
    ended: Vec<Time>,
    executed: u64,
    waiting: Vec<Option<(HostId, homa_sim::Request, u32)>>,
}

impl App for Burst {
    fn start(&mut self, cx: &mut Cx<'_>) {
        for cookie in 0..self.calls {
            cx.call(HostId(0), Call { cookie, to: HostId(1), client_port: 0, server_port: 0, len: self.len });
        }
    }

    fn event(&mut self, cx: &mut Cx<'_>, host: HostId, event: Event) {
        match event {
            Event::Request { request, len, .. } => {
                self.executed += 1;
                cx.after(self.service, host, self.waiting.len() as u64);
                self.waiting.push(Some((host, request, len)));
            }
            Event::Response { .. } => self.ended.push(cx.now()),
            Event::Failed { why, .. } => panic!("{why}"),
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_>, _: HostId, tag: u64) {
        let (host, request, len) = self.waiting[tag as usize].take().expect("each timer comes once");
        cx.reply(host, request, len);
    }
}

fn burst(config: &Config, switch: SwitchConfig, app: Burst, until: Time) -> Sim<Homa, Burst> {
    let transports = (0..2).map(|n| Homa::new(HostId(n), config, 1, 1)).collect();
    let mut sim = Sim::new(&Topology::rack(2), switch, HostModel::default(), transports, app, 1);
    sim.run_until(until);
    sim
}

/// With many losses retries go on for all RPCs at once: once they took turns, one every 11 ms for a peer.
#[test]
fn many_losses_with_one_peer_are_repaired_side_by_side() {
    let config = Config::default();
    let switch = SwitchConfig { loss: 0.05, ..SwitchConfig::default() };
    let app = Burst { calls: 1000, len: 5_000, ..Burst::default() };
    let sim = burst(&config, switch, app, Time::from_secs(2));
    assert_eq!((sim.app().ended.len(), sim.app().executed), (1000, 1000));
    // Without losses it takes 3.4 ms. One of 8000 packets is lost three or four times over: 3 intervals of RESENDs.
    let last = *sim.app().ended.last().unwrap();
    assert!(last < Time::from_millis(3 * 5 + 5), "{last}; one at a time would be seconds");
}

/// A request runs once, however late its answer is and whatever is lost: also when the service takes as long as a
/// client's patience does.
#[test]
fn no_request_runs_twice() {
    for (service_us, loss) in [(0, 0.2), (4_900, 0.1), (5_000, 0.1), (5_100, 0.1), (20_000, 0.05)] {
        let switch = SwitchConfig { loss, ..SwitchConfig::default() };
        let app = Burst { calls: 300, len: 300, service: Time::from_micros(service_us), ..Burst::default() };
        let sim = burst(&Config::default(), switch, app, Time::from_secs(5));
        let Burst { executed, ended, .. } = sim.app();
        assert_eq!((*executed, ended.len()), (300, 300), "service of {service_us} us, loss {loss}");
    }
}

/// A service time near the interval of RESENDs sends no data twice if nothing is lost.
#[test]
fn a_service_as_long_as_the_resend_interval_sends_nothing_twice() {
    for service_us in [4_500, 4_900, 5_000, 5_100, 5_500] {
        let app = Burst { calls: 20, len: 4_000, service: Time::from_micros(service_us), ..Burst::default() };
        let sim = burst(&Config::default(), SwitchConfig::default(), app, Time::from_secs(1));
        assert_eq!(sim.app().ended.len(), 20);
        let resent: u64 = sim.transports().iter().map(|homa| homa.counters().resent_packets).sum();
        assert_eq!(resent, 0, "service of {service_us} us");
    }
}

/// More is offered than the links carry, without priorities. By SRPT alone the longest messages starve; a share of 5 %
/// for the oldest is enough to end that, and the shortest hardly notice.
#[test]
fn grants_by_age_keep_the_longest_messages_from_starving() {
    let base = ClusterSpec {
        workload: Workload::Named("starve"),
        // 40 Gbit/s of messages are offered to each link of 25.
        gbps: 20.0,
        warmup: Time::from_millis(100),
        stop: StopRule::After(Time::from_millis(500)),
        // Fewer packets, the same order of messages.
        mtu: 9000,
        ..ClusterSpec::rack(4)
    };
    // Number and P99 in milliseconds of the messages of a length that end.
    let ended = |run: &ClusterRun, len: u32| {
        let samples = run.nodes.iter().flat_map(|node| &node.samples).filter(|sample| sample.len == len);
        let mut times: Vec<_> = samples.map(|sample| sample.service_ns).collect();
        times.sort_unstable();
        (times.len(), times.get(times.len() * 99 / 100).map_or(0.0, |time| *time as f64 / 1e6))
    };
    let [without, with] = [0, 50].map(|share| {
        let config = Config { num_priorities: 1, grant_fifo_fraction: share, ..config_of(&base) };
        done(&ClusterSpec { protocol: Protocol::Homa(Box::new(config)), ..base.clone() })
    });
    let (longest, shortest) =
        ([&without, &with].map(|run| ended(run, 1_000_000)), [&without, &with].map(|run| ended(run, 100_000)));
    assert!(longest[1].0 > 2 * longest[0].0 + 20, "messages of 1 MB that end: {longest:?}, shortest: {shortest:?}");
    assert!(shortest[1].1 < 1.5 * shortest[0].1, "P99 of 100 KB: {shortest:?}");
}
