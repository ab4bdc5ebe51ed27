//! The receive pool: 64 KiB pages into which packets are copied at their place in the message.

mod body;
mod cuts;

pub use body::{Body, BodyReader};

use body::Lending;
use cuts::Cuts;

#[cfg(feature = "check")]
use super::check::hold;
use crate::wire::MAX_MESSAGE_LEN;

/// Bytes in a page.
pub const PAGE_LEN: usize = 65_536;

/// Most pages of a pool, 4 GiB: leases are moved with each message and should be small.
pub(super) const MOST_PAGES: usize = u16::MAX as usize;

/// Pages that the longest message can span.
const MAX_PAGES: usize = MAX_MESSAGE_LEN.div_ceil(PAGE_LEN);

/// Pages looked at for room between messages.
const LOOKS: usize = 64;

/// Fragments of pages start at multiples of a cache line.
const FRAGMENT_ALIGN: usize = 64;

/// Pages leased to one message: whole ones, and a fragment for the rest. Source: homa-protocol.md 6.1.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    pages: [u16; MAX_PAGES],
    /// Pages used, the last of which may be shared with other messages.
    count: u8,
    /// Where the message's last part begins in its last page; 0 if that page is whole.
    fragment: u16,
    /// Cache lines of that part; 0 if the last page is whole.
    units: u16,
}

impl Lease {
    fn page(&self, index: usize) -> usize {
        self.pages[index] as usize
    }

    fn pages(&self) -> usize {
        usize::from(self.count)
    }
}

#[derive(Debug, Default)]
struct Page {
    /// Made when first used.
    bytes: Option<Box<[u8]>>,
    /// Messages on it, plus one while it is the page that fragments are cut from.
    refs: u32,
    /// What parts of messages hold of it.
    cuts: Cuts,
}

/// A pool of pages. Allocation is all or nothing.
#[derive(Debug)]
pub(crate) struct Pool {
    pages: Vec<Page>,
    /// Pages without references; the last freed is used first, while it is warm in the cache.
    free: Vec<u16>,
    /// The page that fragments are cut from, and how much of it is cut.
    open: Option<(u16, usize)>,
    /// Pages that have memory, or whose memory is out with a body; and most that may have.
    resident: usize,
    limit: usize,
    /// The page where room between messages was looked for last.
    hand: usize,
    /// Times that the open page was begun anew because all messages had left it.
    pub(crate) reuses: u64,
    /// Messages that have left the endpoint.
    lending: Lending,
    /// False if leases have no pages and bytes go nowhere.
    kept: bool,
}

impl Pool {
    /// A pool of `pages` pages; memory is taken as pages are first used.
    pub(crate) fn new(pages: usize) -> Self {
        let pages = pages.min(MOST_PAGES);
        Self {
            pages: (0..pages).map(|_| Page::default()).collect(),
            free: (0..pages as u16).rev().collect(),
            open: None,
            resident: 0,
            limit: usize::MAX,
            hand: 0,
            reuses: 0,
            lending: Lending::default(),
            kept: true,
        }
    }

    /// A pool that has room for everything and keeps nothing.
    pub(crate) fn without_bodies(pages: usize) -> Self {
        Self { kept: false, ..Self::new(pages) }
    }

    /// Room for a message of `len` bytes, or nothing if there is none now.
    pub(crate) fn alloc(&mut self, len: usize) -> Option<Lease> {
        if !self.kept {
            return Some(Lease::default());
        }
        debug_assert!((1..=MAX_MESSAGE_LEN).contains(&len), "lengths are checked when packets are parsed");
        let (whole, rest) = (len / PAGE_LEN, len % PAGE_LEN);
        if self.free.len() < whole {
            self.close_idle();
        }
        if self.free.len() < whole {
            return None;
        }
        let mut lease = Lease::default();
        for index in 0..whole {
            let Some(page) = self.take() else {
                self.free(&lease);
                return None;
            };
            lease.pages[index] = page;
            lease.count += 1;
        }
        if rest > 0 {
            let Some((page, start)) = self.fragment(rest) else {
                self.free(&lease);
                return None;
            };
            lease.pages[whole] = page;
            lease.count += 1;
            lease.fragment = start as u16;
            lease.units = rest.div_ceil(FRAGMENT_ALIGN) as u16;
            self.pages[page as usize].cuts.take(start / FRAGMENT_ALIGN, lease.units.into());
        }
        Some(lease)
    }

    /// Lets at most `pages` have memory; those that have it keep it.
    pub(crate) fn set_limit(&mut self, pages: usize) {
        self.limit = pages;
    }

    /// Pages that have memory, or whose memory is out with a body.
    pub(crate) fn resident(&self) -> usize {
        self.resident
    }

    /// True if pages without messages have memory.
    pub(crate) fn has_spare(&self) -> bool {
        self.resident > self.pages.len() - self.free_pages()
    }

    /// Gives the memory of pages without messages back to the system; returns how many had any.
    #[cold]
    pub(crate) fn trim(&mut self) -> usize {
        self.close_idle();
        let pages = &mut self.pages;
        let trimmed = self.free.iter().filter(|page| pages[**page as usize].bytes.take().is_some()).count();
        self.resident -= trimmed;
        trimmed
    }

    /// False if a message of `len` bytes would not fit even if no other were there.
    pub(crate) fn can_hold(&self, len: usize) -> bool {
        !self.kept || len.div_ceil(PAGE_LEN) <= self.pages.len()
    }

    /// Returns the pages of `lease` that no other message is on.
    pub(crate) fn free(&mut self, lease: &Lease) {
        if lease.units > 0 {
            let last = lease.page(lease.pages() - 1);
            self.pages[last].cuts.give(usize::from(lease.fragment) / FRAGMENT_ALIGN, lease.units.into());
        }
        for index in 0..lease.pages() {
            self.unref(lease.pages[index]);
        }
    }

    /// Pages without any message.
    pub(crate) fn free_pages(&self) -> usize {
        self.free.len() + usize::from(self.open.is_some_and(|(page, _)| self.pages[page as usize].refs == 1))
    }

    /// Copies `bytes` to offset `offset` of the message that has `lease`.
    pub(crate) fn write(&mut self, lease: &Lease, mut offset: usize, mut bytes: &[u8]) {
        if lease.count == 0 {
            return;
        }
        while !bytes.is_empty() {
            let (index, start) = Self::place(lease, offset);
            let page = self.pages[lease.page(index)].bytes.as_deref_mut().expect("leased pages have memory");
            let n = bytes.len().min(PAGE_LEN - offset % PAGE_LEN);
            page[start..start + n].copy_from_slice(&bytes[..n]);
            offset += n;
            bytes = &bytes[n..];
        }
    }

    /// The message of `len` bytes in `lease`, piece by piece.
    pub(crate) fn pieces<'a>(&'a self, lease: &'a Lease, len: usize) -> impl Iterator<Item = &'a [u8]> {
        (0..lease.pages()).map(move |index| {
            let begin = index * PAGE_LEN;
            let (_, start) = Self::place(lease, begin);
            let n = (len - begin).min(PAGE_LEN);
            let page = self.pages[lease.page(index)].bytes.as_deref().expect("leased pages have memory");
            &page[start..start + n]
        })
    }

    /// Copies bytes from `offset` on of the message of `len` bytes in `lease` into `out`; returns how many there were to
    /// copy.
    pub(crate) fn copy(&self, lease: &Lease, len: usize, offset: usize, out: &mut [u8]) -> usize {
        let (mut skip, mut filled) = (offset, 0);
        for piece in self.pieces(lease, len) {
            let part = &piece[skip.min(piece.len())..];
            skip = skip.saturating_sub(piece.len());
            let n = part.len().min(out.len() - filled);
            out[filled..filled + n].copy_from_slice(&part[..n]);
            filled += n;
        }
        filled
    }

    /// Which page of `lease` holds byte `offset` of the message, and where in that page.
    fn place(lease: &Lease, offset: usize) -> (usize, usize) {
        let (index, within) = (offset / PAGE_LEN, offset % PAGE_LEN);
        let base = if index + 1 == lease.pages() { lease.fragment as usize } else { 0 };
        (index, base + within)
    }

    /// Cuts `len` bytes, less than a page, from the open page or a new one.
    fn fragment(&mut self, len: usize) -> Option<(u16, usize)> {
        let cut = len.next_multiple_of(FRAGMENT_ALIGN);
        if let Some((page, used)) = self.open {
            if self.pages[page as usize].refs == 1 && used > 0 {
                self.open = Some((page, 0));
                self.reuses += 1;
            }
            let (_, used) = self.open.expect("it was open above");
            if used + cut <= PAGE_LEN {
                self.open = Some((page, used + cut));
                self.pages[page as usize].refs += 1;
                return Some((page, used));
            }
        }
        let Some(page) = self.take() else { return self.hole(cut / FRAGMENT_ALIGN) };
        // The reference that it has is the open page's own.
        if let Some((full, _)) = self.open.take() {
            self.unref(full);
        }
        self.pages[page as usize].refs += 1;
        self.open = Some((page, cut));
        Some((page, 0))
    }

    /// Finds `units` cache lines that messages have left on a page which others are on still. Looks at some pages, from
    /// where it looked last.
    #[cold]
    fn hole(&mut self, units: usize) -> Option<(u16, usize)> {
        for _ in 0..LOOKS.min(self.pages.len()) {
            self.hand = (self.hand + 1) % self.pages.len();
            let is_open = self.open.is_some_and(|(open, _)| usize::from(open) == self.hand);
            let page = &mut self.pages[self.hand];
            // Whole pages, and those lent whole, have a message but no cuts.
            if !is_open
                && page.refs > 0
                && !page.cuts.is_empty()
                && let Some(start) = page.cuts.hole(units)
            {
                page.refs += 1;
                return Some((self.hand as u16, start * FRAGMENT_ALIGN));
            }
        }
        None
    }

    /// Checks that the pages that have memory are as many as were counted.
    #[cfg(feature = "check")]
    pub(crate) fn check_memory(&self) -> Result<(), String> {
        let inside = self.pages.iter().filter(|page| page.bytes.is_some()).count();
        let lent = self.lending.leases().flat_map(|lease| &lease.pages[..lease.pages()]);
        let outside = lent.filter(|page| self.pages[**page as usize].bytes.is_none()).count();
        let counted = self.resident;
        hold!(counted == inside + outside, "{inside} pages have memory, that of {outside} is lent, counted {counted}");
        Ok(())
    }

    /// Checks that references equal the leases, and that just the pages without any are free.
    #[cfg(feature = "check")]
    pub(crate) fn check<'a>(&'a self, leases: impl Iterator<Item = &'a Lease>) -> Result<(), String> {
        let mut refs = vec![0; self.pages.len()];
        let mut cuts = vec![Cuts::default(); self.pages.len()];
        for lease in leases.chain(self.lending.leases()) {
            if lease.units > 0 {
                let start = usize::from(lease.fragment) / FRAGMENT_ALIGN;
                cuts[lease.page(lease.pages() - 1)].take(start, lease.units.into());
            }
            lease.pages[..lease.pages()].iter().for_each(|&page| refs[page as usize] += 1);
        }
        if let Some((page, used)) = self.open {
            refs[page as usize] += 1;
            hold!(used <= PAGE_LEN, "{used} bytes cut from a page");
        }
        for (page, (slot, right)) in self.pages.iter().zip(&refs).enumerate() {
            hold!(slot.refs == *right, "page {page} counts {} references, there are {right}", slot.refs);
        }
        let wrong = self.pages.iter().zip(&cuts).position(|(page, cuts)| page.cuts != *cuts);
        hold!(wrong.is_none(), "page {wrong:?} has other parts in use than messages");
        for &page in &self.free {
            hold!(refs[page as usize] == 0, "page {page} is free, and in use or free twice");
            refs[page as usize] = 1;
        }
        hold!(refs.iter().all(|refs| *refs > 0), "a page is neither in use nor free");
        Ok(())
    }

    /// Frees the open page if no message is on it.
    fn close_idle(&mut self) {
        if let Some((page, _)) = self.open.take_if(|(page, _)| self.pages[*page as usize].refs == 1) {
            self.unref(page);
        }
    }

    /// A free page with memory; nothing if there is none, or no memory for it.
    fn take(&mut self) -> Option<u16> {
        let page = *self.free.last()?;
        let slot = &mut self.pages[page as usize];
        if slot.bytes.is_none() {
            if self.resident >= self.limit {
                return None;
            }
            slot.bytes = Some(new_page()?);
            self.resident += 1;
        }
        slot.refs = 1;
        self.free.pop();
        Some(page)
    }

    fn unref(&mut self, page: u16) {
        let slot = &mut self.pages[page as usize];
        slot.refs -= 1;
        if slot.refs == 0 {
            self.free.push(page);
        }
    }
}

/// Memory for a page, unless the system has none.
#[cold]
fn new_page() -> Option<Box<[u8]>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(PAGE_LEN).ok()?;
    bytes.resize(PAGE_LEN, 0);
    Some(bytes.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 + seed * 7 + (i >> 8)) as u8).collect()
    }

    #[test]
    fn messages_of_all_sizes_keep_their_bytes_whatever_the_order_of_writes() {
        let mut pool = Pool::new(64);
        let mut held = Vec::new();
        for (seed, len) in [1, 63, 64, 1424, 40_001, 65_535, 65_536, 65_537, 131_072, 1_000_000].into_iter().enumerate()
        {
            let lease = pool.alloc(len).unwrap();
            let message = bytes(len, seed);
            let starts: Vec<_> = (0..len).step_by(1424).collect();
            for start in starts.into_iter().rev() {
                pool.write(&lease, start, &message[start..len.min(start + 1424)]);
            }
            held.push((lease, message));
        }
        for (lease, message) in &held {
            assert_eq!(pool.pieces(lease, message.len()).collect::<Vec<_>>().concat(), *message);
        }
        for (lease, _) in &held {
            pool.free(lease);
        }
        assert_eq!(pool.free_pages(), 64);
    }

    #[test]
    fn allocation_is_all_or_nothing() {
        let mut pool = Pool::new(3);
        let two = pool.alloc(2 * PAGE_LEN).unwrap();
        assert!(pool.alloc(PAGE_LEN + 1).is_none(), "one page is free, two are needed");
        assert_eq!(pool.free_pages(), 1);
        let small = pool.alloc(1).unwrap();
        assert!(pool.alloc(PAGE_LEN).is_none());
        pool.free(&two);
        pool.free(&small);
        assert_eq!(pool.free_pages(), 3);
    }

    #[test]
    fn a_message_as_long_as_the_pool_fits_after_short_ones() {
        let mut pool = Pool::new(2);
        let small = pool.alloc(1).unwrap();
        assert!(pool.alloc(2 * PAGE_LEN).is_none(), "a page is in use");
        pool.free(&small);
        let whole = pool.alloc(2 * PAGE_LEN).expect("the page that fragments are cut from is idle");
        pool.free(&whole);
        assert_eq!(pool.free_pages(), 2);
        assert!(pool.can_hold(2 * PAGE_LEN) && !pool.can_hold(2 * PAGE_LEN + 1));
    }

    /// How full the pool is when it refuses, on the average, in percent: messages of random lengths up to `most`, held for
    /// random times.
    fn fill_at_refusal(most: usize) -> u64 {
        let mut pool = Pool::new(200);
        let (mut held, mut bytes) = (Vec::new(), 0);
        let (mut random, mut sum, mut refusals) = (88_172_645_463_325_252_u64, 0, 0);
        let mut below = |n: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % n as u64) as usize
        };
        while refusals < 20_000 {
            let len = 1 + below(most);
            match pool.alloc(len) {
                Some(lease) => {
                    held.push((lease, len));
                    bytes += len;
                }
                None => {
                    refusals += 1;
                    sum += bytes * 100 / (200 * PAGE_LEN);
                    for _ in 0..2 {
                        let (lease, len) = held.swap_remove(below(held.len()));
                        pool.free(&lease);
                        bytes -= len;
                    }
                }
            }
        }
        held.iter().for_each(|(lease, _)| pool.free(lease));
        assert_eq!(pool.free_pages(), 200, "nothing is lost");
        sum as u64 / refusals
    }

    #[test]
    fn how_full_the_pool_is_when_it_refuses() {
        let fill = [1_000, 10_000, 65_536, 200_000, 1_000_000].map(fill_at_refusal);
        println!("{fill:?}");
        assert!(fill.iter().all(|percent| *percent >= 70), "{fill:?}");
    }

    #[test]
    fn fragments_start_at_cache_lines_and_an_empty_open_page_is_begun_anew() {
        let mut pool = Pool::new(1);
        let (a, b) = (pool.alloc(1).unwrap(), pool.alloc(100).unwrap());
        assert_eq!((a.fragment, b.fragment), (0, 64));
        pool.free(&a);
        pool.free(&b);
        for _ in 0..10_000 {
            let lease = pool.alloc(1000).unwrap();
            pool.free(&lease);
        }
        assert!(pool.reuses >= 9_999);
        assert_eq!(pool.free_pages(), 1);
    }
}
