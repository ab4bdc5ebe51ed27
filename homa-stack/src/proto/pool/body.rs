//! Messages that leave the endpoint: readable by any thread, given back when they are dropped.
//!
//! Without any `unsafe`: a whole page has one message, so its memory *moves* into the [`Body`] and back. The last part
//! of a message, less than a page, may share its page with messages that are still arriving; it is copied. So what is
//! copied is less than 64 KiB of any message, and all of a short one. The pages count as used until the body is
//! dropped: bodies that are kept hold senders back, as they should.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use slab::Slab;

use super::{Lease, PAGE_LEN, Pool};

/// Most empty bodies kept to be filled again.
const MAX_SPARE: usize = 1024;

/// A received message that can be read, kept and dropped by any thread. Its pages go back to the receive pool when it
/// is dropped; until then other messages do without them.
///
/// ```
/// # use homa_stack::{Body, device::memory, api::{Runner, RunnerConfig}};
/// # use std::io::{BufRead, Read};
/// # let (a, b) = memory::pair();
/// # let (client, server) = (Runner::spawn(a, RunnerConfig::default())?, Runner::spawn(b, RunnerConfig::default())?);
/// # let port = server.bind(7)?;
/// # let call = client.client()?.start((memory::ADDRS[1], 7).into(), "3 words here\nand there")?;
/// # let body: Body = port.recv()?.body;
/// assert_eq!(body.len(), 22);
/// let first: Vec<u8> = body.pieces().flatten().copied().take(7).collect(); // slices of the pool's pages
/// assert_eq!(first, b"3 words");
/// let mut part = [0; 4];
/// assert_eq!(body.copy_to(8, &mut part), 4); // any part of it
/// assert_eq!(&part, b"here");
/// let lines = body.reader().lines().collect::<Result<Vec<_>, _>>()?; // `Read` and `BufRead`
/// assert_eq!(lines[1], "and there");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Body {
    parts: Parts,
    home: Arc<Home>,
}

/// The bytes of a body, in containers that are used again.
#[derive(Debug, Default)]
struct Parts {
    /// Memory of whole pages, all full.
    pages: Vec<Box<[u8]>>,
    /// What did not fill a page.
    tail: Vec<u8>,
    /// The pool's name for the lease.
    key: usize,
}

impl Parts {
    fn len(&self) -> usize {
        self.pages.len() * PAGE_LEN + self.tail.len()
    }
}

/// Where bodies go when they are dropped.
#[derive(Debug, Default)]
struct Home {
    returned: Mutex<Vec<Parts>>,
    /// True if something was returned since the pool last looked: the look costs a load.
    any: AtomicBool,
}

impl Home {
    fn returned(&self) -> MutexGuard<'_, Vec<Parts>> {
        // A list is whole whatever happened to a thread that held it.
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a pool knows of the messages it has lent.
#[derive(Debug, Default)]
pub(super) struct Lending {
    leases: Slab<Lease>,
    home: Arc<Home>,
    spare: Vec<Parts>,
    /// Memory for taking bodies back.
    taken: Vec<Parts>,
}

impl Lending {
    /// Leases of messages that are out.
    #[cfg(feature = "check")]
    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.iter().map(|(_, lease)| lease)
    }
}

impl Pool {
    /// Makes a body of the message of `len` bytes in `lease`.
    pub(crate) fn lend(&mut self, lease: Lease, len: usize) -> Body {
        let mut parts = self.lending.spare.pop().unwrap_or_default();
        let (whole, rest) = (len / PAGE_LEN, len % PAGE_LEN);
        for index in 0..whole {
            let page = self.pages[lease.page(index)].bytes.take();
            parts.pages.push(page.expect("leased pages have memory"));
        }
        if rest > 0 {
            let page = self.pages[lease.page(whole)].bytes.as_deref().expect("leased pages have memory");
            let start = lease.fragment as usize;
            parts.tail.extend_from_slice(&page[start..start + rest]);
        }
        parts.key = self.lending.leases.insert(lease);
        Body { parts, home: Arc::clone(&self.lending.home) }
    }

    /// Takes bodies back that were dropped; true if there were any.
    #[inline]
    pub(crate) fn take_back(&mut self) -> bool {
        self.lending.home.any.load(Ordering::Relaxed) && self.take_back_some()
    }

    #[cold]
    fn take_back_some(&mut self) -> bool {
        let mut taken = mem::take(&mut self.lending.taken);
        self.lending.home.any.store(false, Ordering::Relaxed);
        mem::swap(&mut *self.lending.home.returned(), &mut taken);
        let any = !taken.is_empty();
        for mut parts in taken.drain(..) {
            let lease = self.lending.leases.remove(parts.key);
            for (index, page) in parts.pages.drain(..).enumerate() {
                self.pages[lease.page(index)].bytes = Some(page);
            }
            parts.tail.clear();
            self.free(&lease);
            if self.lending.spare.len() < MAX_SPARE {
                self.lending.spare.push(parts);
            }
        }
        self.lending.taken = taken;
        any
    }
}

impl Body {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Never true: messages have at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in order, piece by piece: all pieces but the last have 64 KiB.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let parts = &self.parts;
        let tail = (!parts.tail.is_empty()).then_some(&parts.tail[..]);
        parts.pages.iter().map(|page| &page[..]).chain(tail)
    }

    /// The bytes, if they lie in one piece: true of all messages up to 64 KiB.
    pub fn as_slice(&self) -> Option<&[u8]> {
        let mut pieces = self.pieces();
        let first = pieces.next()?;
        pieces.next().is_none().then_some(first)
    }

    /// Copies bytes from `offset` on into `out`; returns how many there were to copy.
    pub fn copy_to(&self, offset: usize, out: &mut [u8]) -> usize {
        let mut reader = self.reader();
        reader.at = offset;
        let mut filled = 0;
        while filled < out.len() {
            let n = reader.fill(&mut out[filled..]);
            if n == 0 {
                break;
            }
            filled += n;
        }
        filled
    }

    /// A copy of the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        self.pieces().for_each(|piece| bytes.extend_from_slice(piece));
        bytes
    }

    /// Reads the bytes from the first on.
    pub fn reader(&self) -> BodyReader<'_> {
        BodyReader { body: self, at: 0 }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.home.returned().push(mem::take(&mut self.parts));
        // The lock has ordered the push; a pool that misses the flag once sees it the next time.
        self.home.any.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.len())
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Body {
    fn eq(&self, other: &T) -> bool {
        let mut rest = other.as_ref();
        rest.len() == self.len()
            && self.pieces().all(|piece| {
                let (begin, end) = rest.split_at(piece.len());
                rest = end;
                begin == piece
            })
    }
}

/// To send what was received: without a copy if the body lies in one piece, which then holds its page until the peer
/// has the message.
impl From<Body> for Bytes {
    fn from(body: Body) -> Self {
        struct Piece(Body);
        impl AsRef<[u8]> for Piece {
            fn as_ref(&self) -> &[u8] {
                self.0.as_slice().unwrap_or_default()
            }
        }
        if body.as_slice().is_some() { Self::from_owner(Piece(body)) } else { Self::from(body.to_vec()) }
    }
}

/// Reads a [`Body`].
#[derive(Debug)]
pub struct BodyReader<'a> {
    body: &'a Body,
    at: usize,
}

impl BodyReader<'_> {
    /// The rest of the piece that is read now; empty at the end.
    fn rest(&self) -> &[u8] {
        let parts = &self.body.parts;
        let whole = parts.pages.len();
        match self.at / PAGE_LEN {
            index if index < whole => &parts.pages[index][self.at % PAGE_LEN..],
            _ => parts.tail.get(self.at - whole * PAGE_LEN..).unwrap_or_default(),
        }
    }

    fn fill(&mut self, out: &mut [u8]) -> usize {
        let rest = self.rest();
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        self.at += n;
        n
    }
}

impl Read for BodyReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        Ok(self.fill(out))
    }
}

impl BufRead for BodyReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.rest())
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lent(pool: &mut Pool, bytes: &[u8]) -> Body {
        let lease = pool.alloc(bytes.len()).unwrap();
        pool.write(&lease, 0, bytes);
        pool.lend(lease, bytes.len())
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 + (i >> 8)) as u8).collect()
    }

    #[test]
    fn bodies_of_all_sizes_read_as_they_came_in_every_way() {
        let mut pool = Pool::new(32);
        for len in [1, 100, 65_535, 65_536, 65_537, 131_072, 1_000_000] {
            let right = bytes(len);
            let body = lent(&mut pool, &right);
            assert_eq!((body.len(), body.to_vec() == right, body == right), (len, true, true));
            assert_eq!(body.as_slice().is_some(), len <= PAGE_LEN);
            let mut read = Vec::new();
            body.reader().read_to_end(&mut read).unwrap();
            assert!(read == right);
            for offset in [0, 1, len / 2, len - 1, len, len + 1, len + PAGE_LEN] {
                let mut out = vec![0; 70_000];
                let n = body.copy_to(offset, &mut out);
                assert!(out[..n] == right[offset.min(len)..(offset + 70_000).min(len)], "{len} from {offset}");
            }
            let sent_on = Bytes::from(body);
            assert!(sent_on == right);
            drop(sent_on);
            assert!(pool.take_back(), "one came back");
            pool.check(std::iter::empty()).unwrap();
            assert_eq!(pool.free_pages(), 32);
        }
    }

    #[test]
    fn pages_are_in_use_until_the_body_is_dropped_even_on_another_thread() {
        let mut pool = Pool::new(2);
        let body = lent(&mut pool, &bytes(2 * PAGE_LEN));
        assert!(pool.alloc(1).is_none() && !pool.take_back());
        pool.check(std::iter::empty()).unwrap();
        std::thread::spawn(move || drop(body)).join().unwrap();
        assert!(pool.take_back() && !pool.take_back());
        assert!(pool.alloc(2 * PAGE_LEN).is_some());
    }

    #[test]
    fn a_fragment_is_not_touched_by_messages_that_share_its_page() {
        let mut pool = Pool::new(1);
        let arriving = pool.alloc(100).unwrap();
        let body = lent(&mut pool, &[7; 100]);
        pool.write(&arriving, 0, &[8; 100]);
        assert!(body == [7; 100]);
        drop(body);
        pool.take_back();
        assert!(pool.pieces(&arriving, 100).all(|piece| piece == [8; 100]));
    }

    #[test]
    fn a_body_outlives_its_pool() {
        let mut pool = Pool::new(2);
        let body = lent(&mut pool, &bytes(70_000));
        drop(pool);
        assert!(body == bytes(70_000));
    }
}
