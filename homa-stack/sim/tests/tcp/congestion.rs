//! Congestion windows against their response functions, DCTCP's queue against its paper.

use homa_sim::Time;
use homa_sim::tcp::{Congestion, TcpConfig};

use crate::net::{Net, Path};

/// Segments delivered per round trip on a path with random losses.
fn window(congestion: Congestion, loss: f64, rtt: Time, run: Time) -> f64 {
    let delay = Time::from_picos(rtt.as_picos() / 2);
    let config = TcpConfig { congestion, receive_window: 1 << 30, ..TcpConfig::default() };
    let mut net = Net::new(2, &config, Path { gbps: 100.0, delay, loss, ..Path::default() }, 1);
    (0..4).for_each(|i| net.call(1, 0, i, u32::MAX));
    net.run(Time::from_picos(run.as_picos() / 8));
    let before = net.total();
    net.run(run);
    let after = net.total();
    assert_eq!(after.timeouts, before.timeouts, "a window of this size needs none");
    assert_eq!(after.duplicates, 0, "no retransmission is needless");
    let rounds = (run.as_secs_f64() * 7.0 / 8.0) / rtt.as_secs_f64();
    (after.data_segments - before.data_segments) as f64 / rounds
}

/// The mean window is the square root of 1.5 / p where a window grows by one a round trip (RFC 9438 5.1 with
/// alpha = 1, beta = 0.5; Mathis et al. 1997). Acknowledging every second segment does not slow it, as each counts.
#[test]
fn reno_under_random_loss_has_the_window_of_its_response_function() {
    for (loss, seconds) in [(1e-2, 4), (1e-3, 10), (1e-4, 40)] {
        let got = window(Congestion::Reno, loss, Time::from_millis(1), Time::from_secs(seconds));
        let expected = (1.5f64 / loss).sqrt();
        assert!((got / expected - 1.0).abs() < 0.2, "loss {loss}: {got} instead of {expected}");
    }
}

/// 1.054 (RTT / p)^(3/4) where that is more than a Reno flow's (RFC 9438, 5.1), and at least about a Reno flow's.
#[test]
fn cubic_under_random_loss_has_the_window_of_its_response_function() {
    for (loss, rtt_ms, seconds) in [(1e-3, 1, 10), (1e-3, 100, 400), (1e-4, 100, 400), (3e-4, 10, 100)] {
        let rtt = Time::from_millis(rtt_ms);
        let got = window(Congestion::Cubic, loss, rtt, Time::from_secs(seconds));
        let curve = 1.054 * (rtt.as_secs_f64() / loss).powf(0.75);
        let expected = curve.max((1.5f64 / loss).sqrt());
        assert!((got / expected - 1.0).abs() < 0.25, "loss {loss}, {rtt_ms} ms: {got} instead of {expected}");
    }
}

/// DCTCP paper, 3.3: with N flows the queue has its greatest length at K + N segments, and falls by
/// A = sqrt(2 N (C RTT + K)) / 2 segments below.
#[test]
fn the_queue_of_dctcp_stays_around_the_threshold() {
    for flows in [2, 10] {
        let k = 65.0 * 1518.0;
        let path = Path { delay: Time::from_micros(50), mark: k as u64, ..Path::default() };
        // The model of the paper has no bursts.
        let config = TcpConfig { defer: false, ..TcpConfig::dctcp() };
        let mut net = Net::new(flows + 1, &config, path, 1);
        for i in 1..=flows as usize {
            net.call(i, 0, i as u64, 1 << 31);
        }
        net.run(Time::from_millis(100));
        net.watch();
        net.run(Time::from_millis(300));
        let q = net.queue();
        let n = f64::from(flows);
        let segment = 1518.0;
        let bdp = 10e9 / 8.0 * 100e-6 / segment;
        let most = k / segment + n;
        let amplitude = 0.5 * (2.0 * n * (bdp + k / segment)).sqrt();
        let got = [q.least, q.mean, q.most].map(|bytes| bytes / segment);
        assert!((got[2] / most - 1.0).abs() < 0.25, "{flows}: at most {} instead of {most}", got[2]);
        assert!(got[1] < most && got[1] > most - 1.3 * amplitude, "{flows}: mean {} of {most}, {amplitude}", got[1]);
        let fell = got[2] - got[0];
        assert!(fell < 2.0 * amplitude && fell > 0.5 * amplitude, "{flows}: fell by {fell} instead of {amplitude}");
        assert_eq!(net.total().resent, 0);
    }
}

/// Jain's index of the bytes of flows that share a link.
#[test]
fn flows_share_a_link_fairly() {
    for (congestion, mark, buffer, least) in
        [(Congestion::Dctcp, 100_000, u64::MAX, 0.99), (Congestion::Cubic, u64::MAX, 300_000, 0.9)]
    {
        let path = Path { mark, buffer, delay: Time::from_micros(50), ..Path::default() };
        let mut net = Net::new(9, &TcpConfig { congestion, ..TcpConfig::default() }, path, 1);
        // One after the other, so that the first has the link to itself.
        for i in 1..=8 {
            net.call(i, 0, i as u64, u32::MAX);
            net.run(Time::from_millis(20 * i as u64));
        }
        net.run(Time::from_millis(400));
        let before: Vec<_> = net.hosts.iter().map(|h| h.counters().data_bytes).collect();
        net.run(Time::from_millis(1400));
        let rates: Vec<_> = (1..=8).map(|i| (net.hosts[i].counters().data_bytes - before[i]) as f64).collect();
        let (sum, squares) = rates.iter().fold((0.0, 0.0), |(s, q), r| (s + r, q + r * r));
        let index = sum * sum / (8.0 * squares);
        assert!(index > least, "{congestion:?}: {index} from {rates:?}");
        let used = sum * 8.0 / 10e9 * 1538.0 / 1448.0;
        assert!(used > 0.95, "{congestion:?}: {used} of the link");
    }
}

/// Marks do for cubic what losses do (RFC 3168): no packet is dropped, and the link stays used.
#[test]
fn cubic_obeys_marks() {
    let config = TcpConfig { ecn: true, ..TcpConfig::default() };
    let path = Path { mark: 100_000, buffer: 500_000, delay: Time::from_micros(20), ..Path::default() };
    let mut net = Net::new(3, &config, path, 1);
    net.call(1, 0, 1, 1 << 31);
    net.call(2, 0, 2, 1 << 31);
    net.run(Time::from_millis(50));
    let before = net.total();
    net.run(Time::from_millis(250));
    let after = net.total();
    assert_eq!((net.dropped, after.resent), (0, 0));
    assert!(after.reductions_by_mark > before.reductions_by_mark + 10);
    let used = (after.data_bytes - before.data_bytes) as f64 * 8.0 / 0.2 / 10e9 * 1538.0 / 1448.0;
    assert!(used > 0.95, "{used} of the link");
}
