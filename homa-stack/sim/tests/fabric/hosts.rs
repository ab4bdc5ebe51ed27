//! What hosts add.

use homa_sim::fabric::{SwitchConfig, Topology};
use homa_sim::host::{Delay, Noise};
use homa_sim::{HostModel, Time};

use crate::blast::{Flow, Got, run_on};

fn arrivals(host: HostModel, flows: &[Flow]) -> Vec<Got> {
    run_on(&Topology::rack(4), SwitchConfig::default(), host, flows).0
}

#[test]
fn each_delay_shows_where_it_is() {
    let us = |n| Delay::fixed(Time::from_micros(n));
    let one = [Flow { count: 1, ..Flow::new(0, 1) }];
    let ideal = arrivals(HostModel::default(), &one)[0].at;
    let model = HostModel {
        send_delay: us(1),
        interrupt_delay: us(2),
        per_batch: Time::from_micros(4),
        per_packet: Time::from_micros(8),
        softirq_delay: us(16),
        wakeup_delay: us(32),
        ..HostModel::default()
    };
    assert_eq!(arrivals(model, &one)[0].at, ideal + Time::from_micros(63));
    let model = HostModel { wakeup_delay: us(32), ..HostModel::default() };
    assert_eq!(arrivals(model, &one)[0].at, ideal + Time::from_micros(32), "on a host that is ideal otherwise");
}

#[test]
fn a_core_that_is_too_slow_falls_behind_and_more_cores_help() {
    // A packet each 492 ns from each of three hosts, one core needs 1 us for each.
    let flows: Vec<_> = (1..4).map(|from| Flow { count: 100, ..Flow::new(from, 0) }).collect();
    let model = |cores| HostModel { per_packet: Time::from_micros(1), receive_cores: cores, ..HostModel::default() };
    let last = |cores| arrivals(model(cores), &flows).last().map(|got| got.at).unwrap();
    assert!(last(1) >= Time::from_micros(300), "{}", last(1));
    // Three flows on eight cores: some may share one.
    assert!(last(8) < Time::from_micros(220), "{}", last(8));
    let order = arrivals(model(1), &flows);
    assert!(order.is_sorted_by_key(|got| got.at) && order.len() == 300);
}

#[test]
fn nothing_comes_to_the_application_in_a_gap() {
    let noise = Noise { every: Time::from_micros(100), lasts: Time::from_micros(30) };
    let flow = Flow { count: 20_000, gap: Time::from_nanos(600), ..Flow::new(0, 1) };
    let got = arrivals(HostModel { noise: vec![noise], ..HostModel::default() }, &[flow]);
    assert_eq!(got.len(), 20_000);
    let gaps = got.windows(2).filter(|pair| pair[1].at - pair[0].at >= Time::from_micros(29)).count();
    // 12 ms.
    assert!((100..=140).contains(&gaps), "{gaps} gaps, 120 are expected");
    let worst = got.iter().map(|got| got.at - got.sent).max().unwrap();
    assert!(worst >= Time::from_micros(30) && worst < Time::from_micros(33), "{worst}");
}
