//! Message bytes of received data packets, which traces do not say.
//!
//! A packet reaches to the next offset that was received of its message, or to the end of that. Where a packet is missing,
//! and at the end of messages of unknown length, it has as many bytes as most packets have that others follow.

use rustc_hash::FxHashMap;

use super::{Class, Wait};

pub(super) fn fill(waits: &mut [Wait]) {
    let mut order: Vec<u32> = (0..waits.len() as u32).filter(|i| waits[*i as usize].class == Class::Data).collect();
    let key = |wait: &Wait| (wait.client, wait.id, wait.offset);
    order.sort_unstable_by_key(|i| key(&waits[*i as usize]));
    let mut lengths: FxHashMap<(u16, u32), u32> = FxHashMap::default();
    for wait in waits.iter().filter(|w| w.class == Class::Data && w.message_length > 0) {
        lengths.insert((wait.client, wait.id), wait.message_length);
    }
    // To the next offset of the same message; `None` for the last.
    let gaps: Vec<Option<u32>> = order
        .iter()
        .enumerate()
        .map(|(at, place)| {
            let wait = &waits[*place as usize];
            let later = order[at + 1..].iter().map(|p| &waits[*p as usize]);
            let mut same = later.take_while(|w| (w.client, w.id) == (wait.client, wait.id));
            same.find(|w| w.offset > wait.offset).map(|w| w.offset - wait.offset)
        })
        .collect();
    let usual = most_frequent(gaps.iter().flatten().copied());
    for (place, gap) in order.iter().zip(gaps) {
        let wait = &mut waits[*place as usize];
        let length = lengths.get(&(wait.client, wait.id)).copied();
        wait.message_length = length.unwrap_or(0);
        let rest = length.map(|l| l.saturating_sub(wait.offset));
        let bytes = match (gap, usual) {
            (Some(gap), Some(usual)) => gap.min(usual.max(1)),
            (None, Some(usual)) => usual,
            (_, None) => rest.unwrap_or(0),
        };
        wait.bytes = rest.map_or(bytes, |rest| bytes.min(rest));
    }
}

/// The value that occurs most often, the largest of several.
fn most_frequent(values: impl Iterator<Item = u32>) -> Option<u32> {
    let mut counts: FxHashMap<u32, u32> = FxHashMap::default();
    values.for_each(|v| *counts.entry(v).or_default() += 1);
    counts.into_iter().max_by_key(|(value, count)| (*count, *value)).map(|(value, _)| value)
}
