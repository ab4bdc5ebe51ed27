//! Homa's parameters on a shaped link: those of a fast link, scaled to the bytes that this one carries in a round trip.

use crate::testbed::links::Shape;

/// Part of a round trip that the link's rate has no share in: hosts that are woken, cores that are shared.
const SOFTWARE_US: f64 = 100.0;
/// Time of the link that a sender which was late may make up for at once. Four nodes on two cores, w3 at 80 % load: with
/// 100, which a thread that sleeps exceeds often, they carry 4 % less; with 400 short messages wait half as long again.
const LATE_US: f64 = 200.0;
/// A short packet on the wire: a grant in its frame.
const GRANT_BYTES: f64 = 100.0;
/// Header, preamble, checksum and gap of a frame.
const FRAMING_BYTES: f64 = 38.0;

/// Bytes that a link carries from when a full packet is sent until the grant that it causes has come back: each crosses
/// two links, after one another, and hosts take [`SOFTWARE_US`].
pub(super) fn rtt_bytes(shape: &Shape, mtu: u32) -> u64 {
    let bytes_per_us = shape.link_gbps * 1e3 / 8.0;
    let frame = f64::from(mtu) + FRAMING_BYTES;
    (2.0 * (frame + GRANT_BYTES) + bytes_per_us * SOFTWARE_US).round() as u64
}

/// `NAME=VALUE` of each parameter that depends on the link, in the proportions that the defaults have on theirs (25
/// Gbps, 40,000 bytes a round trip), then what `given` says. Senders are paced to the link: what they send at once, as
/// they were late, is bounded by [`LATE_US`].
pub(super) fn parameters(shape: &Shape, mtu: u32, given: &[String]) -> Vec<String> {
    let rtt = rtt_bytes(shape, mtu);
    // With half of this a grant goes with every packet, which alone is 4 % of a link.
    let max_incoming = 20 * rtt;
    // Silence must not look like loss while a port sends what its buffer holds of more urgent levels, a few times over:
    // with a quarter of this, 1.5 % of the data packets of w4 at 80 % load were sent again though none was lost.
    let most_waiting = max_incoming.max(shape.switch_buffer_bytes.into());
    let drain_ms = most_waiting as f64 * 8.0 / (shape.link_gbps * 1e6);
    let resend = (4.0 * drain_ms).ceil().max(5.0) as u64;
    // Packets of one message travel at several levels, so that they overtake each other by as much as waits at a port.
    // A copy of a packet that waits, and is not counted as incoming any more, lets yet more come to wait.
    // With one level, grants and short answers wait as well, at two ports.
    let ports = if shape.priorities == 1 { 2.0 } else { 1.0 };
    let drain_us = max_incoming as f64 * 8e-3 / shape.link_gbps;
    let reorder_us = (ports * drain_us).ceil().max(200.0) as u64;
    let scaled = [
        ("unsched_bytes", rtt),
        ("max_incoming", max_incoming),
        ("fifo_grant_increment", rtt * 5 / 4),
        ("link_mbps", (shape.link_gbps * 1e3).round().max(1.0) as u64),
        ("pacing", 1),
        ("max_nic_backlog_us", LATE_US as u64),
        ("reorder_window_us", reorder_us),
        ("reorder_window_max_us", 4 * reorder_us),
        ("resend_hold_off_us", (drain_us / 2.0).ceil().max(200.0) as u64),
        ("resend_ticks", resend),
        ("resend_interval", resend),
        ("timeout_ticks", 20 * resend),
    ];
    let is_given = |name: &str| given.iter().any(|pair| pair.split('=').next() == Some(name));
    let kept = scaled.iter().filter(|(name, _)| !is_given(name)).map(|(name, value)| format!("{name}={value}"));
    kept.chain(given.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { link_gbps: 0.2, switch_buffer_bytes: 200_000, priorities: 8 };

    #[test]
    fn a_round_trip_is_two_frames_each_way_and_the_hosts_time() {
        // 2 x (1538 + 100) and 25 bytes/us for 100 us.
        assert_eq!(rtt_bytes(&SHAPE, 1500), 5776);
        let fast = Shape { link_gbps: 25.0, ..SHAPE };
        assert_eq!(rtt_bytes(&fast, 1500), 315_776, "the hosts' time weighs more on a fast link");
    }

    #[test]
    fn what_is_given_goes_before_what_is_scaled() {
        let all = parameters(&SHAPE, 1500, &["window=9000".to_owned(), "unsched_bytes=1".to_owned()]);
        assert!(all.contains(&"max_incoming=115520".to_owned()), "{all:?}");
        assert!(all.contains(&"link_mbps=200".to_owned()) && all.contains(&"resend_ticks=32".to_owned()), "{all:?}");
        // 115,520 bytes at 25 bytes/us.
        assert!(all.contains(&"reorder_window_us=4621".to_owned()), "{all:?}");
        assert_eq!(all.iter().filter(|pair| pair.starts_with("unsched_bytes=")).count(), 1);
        assert_eq!(all[all.len() - 2..], ["window=9000", "unsched_bytes=1"]);
    }
}
