//! Links, switches and topologies against what can be worked out by hand.

mod blast;
mod hosts;

use homa_sim::fabric::{DropReason, Routing, SwitchConfig, SwitchStats, Topology};
use homa_sim::{HostModel, Time};

use blast::{FRAME, Flow, Got, run, run_on};

/// What a full frame takes on a link of 25 Gbit/s: 320 ps a byte, 20 bytes around it.
const FRAME_TIME: u64 = (FRAME as u64 + 20) * 320;

fn drops(stats: &SwitchStats, reason: DropReason) -> u64 {
    stats.drops[reason as usize]
}

#[test]
fn a_packet_takes_its_bytes_and_the_delays_of_its_links() {
    let one = |topology: &Topology, flow| run_on(topology, SwitchConfig::default(), HostModel::default(), &[flow]).0;
    let latency = SwitchConfig { latency: Time::from_nanos(300), ..SwitchConfig::default() };
    let rack = one(&Topology::rack(4), Flow { count: 1, ..Flow::new(0, 1) });
    assert_eq!(rack[0].at, Time::from_picos(2 * FRAME_TIME + 2 * 250_000));
    let (slow, _, _) =
        run_on(&Topology::rack(4), latency.clone(), HostModel::default(), &[Flow { count: 1, ..Flow::new(0, 1) }]);
    assert_eq!(slow[0].at, rack[0].at + Time::from_nanos(300));
    // 10 Gbit/s to and from the hosts, 40 between leaf and spine.
    let wire = FRAME as u64 + 20;
    let far = one(&Topology::sigcomm18(), Flow { count: 1, ..Flow::new(0, 143) });
    assert_eq!(far[0].at, Time::from_picos(2 * wire * 800 + 2 * wire * 200 + 4 * 250_000));
    let near = one(&Topology::sigcomm18(), Flow { count: 1, ..Flow::new(0, 15) });
    assert_eq!(near[0].at, Time::from_picos(2 * wire * 800 + 2 * 250_000), "within a rack");
    let (slow, ..) =
        run_on(&Topology::sigcomm18(), latency, HostModel::default(), &[Flow { count: 1, ..Flow::new(0, 143) }]);
    assert_eq!(slow[0].at, far[0].at + Time::from_nanos(900), "three switches");
}

#[test]
fn packets_of_many_senders_come_at_the_rate_of_the_receivers_link() {
    let flows: Vec<_> = (1..8).map(|from| Flow { count: 300, ..Flow::new(from, 0) }).collect();
    let (got, stats, under_way) = run(8, SwitchConfig::default(), &flows);
    assert_eq!((got.len(), under_way), (7 * 300, 0));
    let span = got[got.len() - 1].at - got[0].at;
    assert_eq!(span, Time::from_picos((got.len() as u64 - 1) * FRAME_TIME), "without a gap");
    // Seven come in the time of one: six of seven wait, less those that left meanwhile.
    let waiting = stats[0].high_water_bytes / u64::from(FRAME);
    assert!((1800..=1801).contains(&waiting), "{waiting}");
    assert_eq!(stats[0].ports[0].high_water_bytes, stats[0].high_water_bytes, "all at one port");
    let bytes_us = Time::from_picos(stats[0].high_water_bytes * 320);
    assert_eq!(stats[0].ports[0].high_water, bytes_us);
}

#[test]
fn every_packet_is_delivered_or_counted_as_dropped() {
    for (seed, config) in [
        SwitchConfig { pool: 100_000, ..SwitchConfig::default() },
        SwitchConfig { pool: 300_000, alpha: 0.5, ..SwitchConfig::default() },
        SwitchConfig { loss: 0.2, ..SwitchConfig::default() },
        SwitchConfig { pool: 0, ..SwitchConfig::default() },
    ]
    .into_iter()
    .enumerate()
    {
        for topology in [Topology::rack(12), small_leaf_spine(Routing::Spray), small_leaf_spine(Routing::Ecmp)] {
            let flow = |n: u32| Flow {
                count: 200,
                priority: (n % 8) as u8,
                gap: Time::from_nanos(u64::from(n) * 7),
                ..Flow::new(n % 12, (n * 5 + 1 + seed as u32) % 4)
            };
            let flows: Vec<_> = (0..40).map(flow).filter(|flow| flow.from != flow.to).collect();
            let sent: usize = flows.iter().map(|flow| flow.count).sum();
            let (got, stats, under_way) = run_on(&topology, config.clone(), HostModel::default(), &flows);
            let dropped: u64 = stats.iter().flat_map(|switch| switch.drops).sum();
            let at_ports: u64 = stats.iter().flat_map(|switch| &switch.ports).map(|port| port.drops).sum();
            assert_eq!((got.len() + dropped as usize, under_way), (sent, 0), "{config:?}, {topology:?}");
            assert_eq!(at_ports, dropped);
            assert!(dropped > 0, "{config:?}, {topology:?}");
            let most = stats.iter().map(|switch| switch.high_water_bytes).max().unwrap();
            assert!(most <= config.pool, "{most} bytes in a pool of {}", config.pool);
        }
    }
}

fn small_leaf_spine(routing: Routing) -> Topology {
    Topology::LeafSpine {
        racks: 3,
        hosts_per_rack: 4,
        spines: 2,
        host_gbps: 10.0,
        spine_gbps: 10.0,
        link_delay: Time::from_nanos(250),
        spine_delay: Time::from_nanos(250),
        routing,
    }
}

#[test]
fn urgent_packets_wait_for_one_packet_at_most() {
    let urgent =
        Flow { count: 50, priority: 7, gap: Time::from_micros(3), start: Time::from_micros(5), ..Flow::new(2, 0) };
    let flows = [Flow { count: 2000, ..Flow::new(1, 0) }, Flow { count: 2000, priority: 6, ..Flow::new(3, 0) }, urgent];
    let (got, ..) = run(4, SwitchConfig::default(), &flows);
    let alone = Time::from_picos(2 * FRAME_TIME + 500_000);
    let late: Vec<_> = got.iter().filter(|got| got.priority == 7).map(|got| got.at - got.sent - alone).collect();
    assert_eq!(late.len(), 50);
    assert!(late.iter().all(|late| *late <= Time::from_picos(FRAME_TIME)), "{late:?}");
    assert!(late.iter().any(|late| *late > Time::ZERO), "the link was busy");
    // The level below goes before the lowest, which gets only what is left.
    let last = |priority| got.iter().rposition(|got| got.priority == priority).unwrap();
    let before = got[..last(6)].iter().filter(|got| got.priority == 0).count();
    assert!(before <= 5, "{before} of the lowest level went while there were more urgent ones");
}

#[test]
fn queues_grow_to_their_share_of_the_memory_that_is_free() {
    // With alpha = 1, n full queues leave as much free as each of them has: 1/2, 1/3, ... of the pool each.
    let pool = 1_200_000;
    for congested in 1..=3 {
        let flows: Vec<_> = (0..congested)
            .flat_map(|to| (1..6).map(move |n| Flow { count: 1500, ..Flow::new(3 + congested * n + to, to) }))
            .collect();
        let config = SwitchConfig { pool, alpha: 1.0, ..SwitchConfig::default() };
        let (_, stats, _) = run(32, config, &flows);
        let expected = pool / (u64::from(congested) + 1);
        for port in &stats[0].ports[..congested as usize] {
            let most = port.high_water_bytes;
            let (low, high) = (expected - 4000, expected + 4000 + u64::from(congested > 1) * expected / 2);
            assert!((low..high).contains(&most), "{congested} queues: {most} instead of {expected}");
            assert!(port.drops > 0);
        }
        let all = stats[0].high_water_bytes;
        assert!(all.abs_diff(expected * u64::from(congested)) < 20_000, "{congested} queues: {all} in all");
        assert!(drops(&stats[0], DropReason::Threshold) > 0);
        assert_eq!(drops(&stats[0], DropReason::PoolFull), 0);
    }
}

#[test]
fn packets_are_marked_from_the_threshold_on_if_they_can_be() {
    let threshold = 20 * u64::from(FRAME);
    let config = SwitchConfig { ecn_threshold: Some(threshold), ..SwitchConfig::default() };
    for (ecn, share) in [(true, 1), (false, 0)] {
        let flows: Vec<_> = (1..4).map(|from| Flow { count: 40, ecn, ..Flow::new(from, 0) }).collect();
        let (got, stats, _) = run(4, config.clone(), &flows);
        let marked = got.iter().filter(|got| got.marked).count() as u64;
        assert_eq!(stats[0].marks, marked);
        // Three come in the time of one: the queue has 20 after ten such times, and falls below it only at the end.
        assert!((share * 85..=share * 92).contains(&marked), "{marked} marked");
        let first = got.iter().position(|got| got.marked).unwrap_or(20);
        assert!((20..35).contains(&first), "the first packet with a mark is the {first}th");
    }
}

#[test]
fn the_spray_uses_all_spines_alike_and_a_flow_by_ecmp_keeps_its_order() {
    for routing in [Routing::Spray, Routing::Ecmp] {
        let flows = [Flow { count: 1000, ..Flow::new(0, 5) }];
        let (got, stats, _) = run_on(&small_leaf_spine(routing), SwitchConfig::default(), HostModel::default(), &flows);
        let by_spine: Vec<_> =
            stats[3..].iter().map(|spine| spine.ports.iter().map(|p| p.packets).sum::<u64>()).collect();
        match routing {
            Routing::Spray => assert!(by_spine.iter().all(|n| (420..580).contains(n)), "{by_spine:?}"),
            Routing::Ecmp => assert!(by_spine.contains(&0) && by_spine.contains(&1000), "{by_spine:?}"),
        }
        if routing == Routing::Ecmp {
            assert!(got.is_sorted_by_key(|got: &Got| got.sent));
        }
    }
}
