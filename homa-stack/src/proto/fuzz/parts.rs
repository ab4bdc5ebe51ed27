//! The data structures, each against a model that is too simple to be wrong.

use super::super::payload::Payload;
use super::super::pool::{Lease, PAGE_LEN, Pool};
use super::super::ranges::{Gaps, Ranges};
use super::super::rx_message::RxMessage;
use super::super::tx_message::TxMessage;
use super::Input;
use crate::units::{Instant, Nanos};
use crate::wire::MAX_MESSAGE_LEN;

/// Leases, writes and releases: messages keep their bytes, and pages are found if there are any.
pub fn pool(bytes: &[u8]) {
    let mut input = Input(bytes);
    let pages = 1 + input.below(20);
    let mut pool = Pool::new(pages);
    let mut held: Vec<(Lease, Vec<u8>)> = Vec::new();
    while !input.is_empty() {
        match input.u8() % 4 {
            0 | 1 => {
                let len = input.length(MAX_MESSAGE_LEN).max(1);
                let free = pool.free_pages();
                match pool.alloc(len) {
                    Some(lease) => {
                        assert!(len / PAGE_LEN <= free, "{len} bytes from {free} free pages");
                        pool.write(&lease, 0, &vec![0; len]);
                        held.push((lease, vec![0; len]));
                    }
                    None => assert!(len.div_ceil(PAGE_LEN) > free, "no room for {len} bytes in {free} free pages"),
                }
            }
            2 if !held.is_empty() => {
                let (lease, model) = held.swap_remove(input.below(held.len()));
                assert!(pool.pieces(&lease, model.len()).eq(model.chunks(PAGE_LEN)), "bytes are not as written");
                pool.free(&lease);
            }
            3 if !held.is_empty() => {
                let at = input.below(held.len());
                let (lease, model) = &mut held[at];
                let start = input.length(model.len() - 1);
                let n = input.below(9_000).min(model.len() - start);
                let fill = vec![input.u8(); n];
                pool.write(lease, start, &fill);
                model[start..start + n].copy_from_slice(&fill);
            }
            _ => {}
        }
        pool.check(held.iter().map(|(lease, _)| lease)).unwrap();
    }
    for (lease, model) in &held {
        assert!(pool.pieces(lease, model.len()).eq(model.chunks(PAGE_LEN)), "bytes are not as written");
        pool.free(lease);
    }
    assert_eq!(pool.free_pages(), pages);
}

/// Packets of a message in any order and overlap, against a flag for each byte.
pub fn received(bytes: &[u8]) {
    let mut input = Input(bytes);
    let len = 1 + input.below(600);
    let mut rx = RxMessage::new(len, input.below(600), Instant::default(), Gaps::new());
    let mut model = vec![false; len];
    while !input.is_empty() {
        let start = input.below(len);
        let end = (start + input.below(100)).min(len);
        let fresh = model[start..end].iter().filter(|come| !**come).count();
        model[start..end].fill(true);
        assert_eq!(rx.add(Instant::default(), 0, start, end, Nanos::default).fresh, fresh);
        rx.check().unwrap();
        let mut missing = vec![false; rx.granted.max(rx.recv_end)];
        rx.missing().for_each(|(start, end)| missing[start..end].fill(true));
        assert!(missing.iter().zip(&model).all(|(missing, come)| missing != come), "{rx:?}");
        assert_eq!(rx.all_granted_came(), !missing.contains(&true), "{rx:?}");
        assert_eq!(rx.is_complete(), !model.contains(&false));
    }
}

/// Grants, packets and requests to send again, in any order.
pub fn sent(bytes: &[u8]) {
    let mut input = Input(bytes);
    let len = 1 + input.below(2_000);
    let segment = 1 + input.below(200);
    let unscheduled = input.below(2_100);
    let mut tx = TxMessage::default();
    tx.begin(Payload::from(vec![0; len]), unscheduled, segment, 1, Ranges::new());
    let mut packets = Vec::new();
    let mut asked = vec![false; len];
    while !input.is_empty() {
        match input.u8() % 4 {
            0 => _ = tx.grant(input.below(2_200)),
            1 => {
                if let Some((start, end)) = tx.take_new() {
                    assert_eq!(start, packets.last().map_or(0, |packet: &(usize, usize)| packet.1), "in order");
                    assert!(start < end && end - start <= segment && start < tx.granted);
                    packets.push((start, end));
                }
            }
            2 => {
                let start = input.below(2_000);
                let end = start + input.below(600);
                tx.ask_again(start, end);
                let overlaps = packets.iter().filter(|packet| packet.0 < end && start < packet.1 && start < end);
                overlaps.for_each(|packet| asked[packet.0..packet.1].fill(true));
            }
            _ => {
                let first = asked.iter().position(|asked| *asked);
                let packet = tx.take_resend();
                assert_eq!(packet.map(|packet| packet.0), first, "the first that was asked for");
                if let Some(packet) = packet {
                    assert!(packets.contains(&packet), "{packet:?} was no packet");
                    asked[packet.0..packet.1].fill(false);
                }
            }
        }
        tx.check().unwrap();
        assert_eq!(tx.has_resend(), asked.contains(&true));
        assert_eq!(tx.left(), len - packets.last().map_or(0, |packet| packet.1));
    }
}
