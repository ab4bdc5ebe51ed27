//! The pages of the kernel's trace ring buffer: entries with the time between them.
//!
//! A page begins with the time of its first entry (8 bytes) and a word with the bytes of data in it and two flags: entries
//! before this page were lost (bit 31), and their number follows the data (bit 30). Each entry begins with 32 bits, the
//! low 5 a type or length, the others the time since the entry before. Source: `kernel/trace/ring_buffer.c` and
//! `include/linux/ring_buffer.h` of Linux; `events/header_event` of each kernel says the widths.

use super::format::PageFormat;

const PADDING: u32 = 29;
const TIME_EXTEND: u32 = 30;
const TIME_STAMP: u32 = 31;
/// Bits of the time in an entry's first word.
const DELTA_BITS: u32 = 27;
const LOST: u64 = 1 << 31;
const LOST_COUNTED: u64 = 1 << 30;

/// An entry of a page, or what is known of entries that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// An entry and its time.
    Entry(u64, &'a [u8]),
    /// Entries before this time were overwritten before they were read; their number, if the kernel tells.
    Lost(u64, Option<u64>),
}

/// Walks through the entries of a page. Whatever does not fit ends the page: nothing after it has a known time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entries<'a> {
    data: &'a [u8],
    at: usize,
    time: u64,
    lost: Option<Option<u64>>,
}

impl<'a> Entries<'a> {
    /// The entries of `page`; none if it is too short.
    pub(crate) fn new(page: &'a [u8], format: PageFormat) -> Self {
        let none = Self { data: &[], at: 0, time: 0, lost: None };
        let (Some(time), Some(commit)) = (number(page, 0, 8), number(page, format.commit, format.commit_bytes)) else {
            return none;
        };
        let Some(rest) = page.get(format.data..) else { return none };
        let length = ((commit & (LOST_COUNTED - 1)) as usize).min(rest.len());
        let (data, after) = rest.split_at(length);
        let lost = (commit & LOST != 0)
            .then(|| if commit & LOST_COUNTED != 0 { number(after, 0, format.commit_bytes) } else { None });
        Self { data, at: 0, time, lost }
    }

    fn word(&self, at: usize) -> Option<u32> {
        number(self.data, at, 4).map(|w| w as u32)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        if let Some(count) = self.lost.take() {
            return Some(Item::Lost(self.time, count));
        }
        loop {
            let head = self.word(self.at)?;
            let (kind, delta) = (head & 31, u64::from(head >> 5));
            let body = self.at + 4;
            match kind {
                PADDING if delta == 0 => return None,
                PADDING => {
                    self.time = self.time.wrapping_add(delta);
                    self.at = body.checked_add(self.word(body)? as usize)?;
                }
                TIME_EXTEND => {
                    let high = u64::from(self.word(body)?) << DELTA_BITS;
                    self.time = self.time.wrapping_add(high + delta);
                    self.at = body + 4;
                }
                TIME_STAMP => {
                    self.time = absolute(self.time, (u64::from(self.word(body)?) << DELTA_BITS) + delta);
                    self.at = body + 4;
                }
                // The length of longer entries has a word of its own, which it counts.
                0 => {
                    let length = self.word(body)? as usize;
                    let end = body.checked_add(length)?;
                    self.time = self.time.wrapping_add(delta);
                    self.at = end.checked_next_multiple_of(4)?;
                    return Some(Item::Entry(self.time, self.data.get(body + 4..end)?));
                }
                words => {
                    let end = body + 4 * words as usize;
                    self.time = self.time.wrapping_add(delta);
                    self.at = end;
                    return Some(Item::Entry(self.time, self.data.get(body..end)?));
                }
            }
        }
    }
}

/// A time of which only the low 59 bits were kept, after `before`.
fn absolute(before: u64, low: u64) -> u64 {
    const BITS: u32 = 59;
    let time = before >> BITS << BITS | low;
    if time < before { time.wrapping_add(1 << BITS) } else { time }
}

fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    let mut word = [0; 8];
    word.get_mut(..size)?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(word))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const FORMAT: PageFormat = PageFormat { commit_bytes: 8, commit: 8, data: 16, page_bytes: 4096 };

    fn head(kind: u32, delta: u32) -> [u8; 4] {
        (delta << 5 | kind).to_le_bytes()
    }

    /// A page as the kernel lays it out.
    pub(crate) fn page(time: u64, flags: u64, data: &[u8], after: &[u8]) -> Vec<u8> {
        let mut page = time.to_le_bytes().to_vec();
        page.extend((data.len() as u64 | flags).to_le_bytes());
        page.extend_from_slice(data);
        page.extend_from_slice(after);
        page
    }

    /// An entry of at most 112 bytes, `delta` after the one before.
    pub(crate) fn entry(delta: u32, body: &[u8]) -> Vec<u8> {
        let words = body.len().div_ceil(4);
        let mut all = head(words as u32, delta).to_vec();
        all.extend_from_slice(body);
        all.resize(4 + 4 * words, 0);
        all
    }

    fn items(page: &[u8]) -> Vec<Item<'_>> {
        Entries::new(page, FORMAT).collect()
    }

    #[test]
    fn times_add_up_over_entries_of_all_kinds() {
        let mut data = entry(5, b"abcd");
        data.extend(head(TIME_EXTEND, 3));
        data.extend(2_u32.to_le_bytes());
        // A discarded entry of 8 bytes after its head.
        data.extend(head(PADDING, 10));
        data.extend([8, 0, 0, 0, 1, 2, 3, 4]);
        // A long entry: its length word says 4 + 6.
        data.extend(head(0, 7));
        data.extend(10_u32.to_le_bytes());
        data.extend(b"longer\0\0");
        data.extend(entry(1, b"efghijkl"));
        data.extend(head(PADDING, 0));
        data.extend(entry(1, b"never"));
        let after = 1005 + (2 << 27) + 3 + 10;
        assert_eq!(
            items(&page(1000, 0, &data, &[])),
            [Item::Entry(1005, b"abcd"), Item::Entry(after + 7, b"longer"), Item::Entry(after + 8, b"efghijkl"),]
        );
    }

    #[test]
    fn an_absolute_time_keeps_the_bits_that_it_lacks() {
        let high = 3 << 59;
        assert_eq!(absolute(high | 100, 200), high | 200);
        assert_eq!(absolute(high | 200, 100), (4 << 59) | 100, "its low bits have gone round");
        let mut data = head(TIME_STAMP, 5).to_vec();
        data.extend(1_u32.to_le_bytes());
        data.extend(entry(0, b"abcd"));
        assert_eq!(items(&page(high | 7, 0, &data, &[])), [Item::Entry(high | (1 << 27) | 5, b"abcd")]);
    }

    #[test]
    fn lost_entries_are_told_before_the_page() {
        let data = entry(5, b"abcd");
        let entry = Item::Entry(1005, b"abcd");
        assert_eq!(
            items(&page(1000, LOST | LOST_COUNTED, &data, &77_u64.to_le_bytes())),
            [Item::Lost(1000, Some(77)), entry]
        );
        assert_eq!(items(&page(1000, LOST, &data, &[])), [Item::Lost(1000, None), entry]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_page(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            // Every entry has a head of 4 bytes or more.
            prop_assert!(items(&bytes).len() <= 1 + bytes.len() / 4);
        }

        #[test]
        fn entries_come_back(bodies in prop::collection::vec((0u32..1 << 27, prop::collection::vec(any::<u8>(), 1..28)), 0..40)) {
            let data: Vec<u8> = bodies.iter().flat_map(|(delta, words)| entry(*delta, &words.repeat(4))).collect();
            let page = page(1 << 40, 0, &data, &[]);
            let mut time = 1 << 40;
            let mut items = Entries::new(&page, FORMAT);
            for (delta, words) in &bodies {
                time += u64::from(*delta);
                prop_assert_eq!(items.next(), Some(Item::Entry(time, &words.repeat(4)[..])));
            }
            prop_assert_eq!(items.next(), None);
        }
    }
}
