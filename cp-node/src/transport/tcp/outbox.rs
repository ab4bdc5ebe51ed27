//! Messages on their way into a socket that takes only part of them at a time.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use crate::message::{HEADER_LEN, Header};

/// What messages consist of after their header.
static FILLER: [u8; 64 << 10] = [0x63; 64 << 10];
/// Most pieces given to the kernel in one call: a header and 1 MB of filler fit.
const PIECES: usize = 18;

/// The unsent messages of one connection, in order; only their headers take memory.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    messages: VecDeque<Header>,
    /// Bytes of the first message that are sent.
    sent: usize,
}

impl Outbox {
    /// Appends a message; [`Outbox::flush`] sends it.
    pub(super) fn push(&mut self, header: Header) {
        self.messages.push_back(header);
    }

    /// True if nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Forgets everything, for a connection that is gone.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.sent = 0;
    }

    /// Writes as much as the socket takes; true if nothing is left.
    ///
    /// # Errors
    /// If the connection is broken.
    pub(super) fn flush(&mut self, mut to: impl Write) -> io::Result<bool> {
        while let Some(first) = self.messages.front() {
            let head = first.encode();
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let count = gather(&mut pieces, &head, self.sent, first.len as usize);
            match to.write_vectored(&pieces[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, n: usize) {
        self.sent += n;
        if self.messages.front().is_some_and(|m| m.len as usize == self.sent) {
            self.messages.pop_front();
            self.sent = 0;
        }
    }
}

/// The bytes from `sent` to `len` of a message, as far as `pieces` holds them; returns how many pieces are used.
fn gather<'a>(pieces: &mut [IoSlice<'a>; PIECES], head: &'a [u8; HEADER_LEN], sent: usize, len: usize) -> usize {
    let mut count = 0;
    if sent < HEADER_LEN {
        pieces[0] = IoSlice::new(&head[sent..]);
        count = 1;
    }
    let mut rest = len - sent.max(HEADER_LEN);
    while rest > 0 && count < PIECES {
        let take = rest.min(FILLER.len());
        pieces[count] = IoSlice::new(&FILLER[..take]);
        rest -= take;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::{ConnectionId, MessageReader};

    /// A socket that takes a given number of bytes in each call, and blocks when there is no number left.
    struct Narrow<'a> {
        takes: &'a mut Vec<usize>,
        got: &'a mut Vec<u8>,
    }

    impl Write for Narrow<'_> {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let take = self.takes.pop().ok_or(io::ErrorKind::WouldBlock)?.min(buf.len());
            self.got.extend(&buf[..take]);
            Ok(take)
        }

        fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
            let all: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
            self.write(&all)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn header(len: u32, slot: u16) -> Header {
        let connection = ConnectionId::default();
        Header { len, connection, slot, freeze: false, short_response: false, is_response: true }
    }

    proptest! {
        /// However little the socket takes at a time, the reader at the other end finds every message.
        #[test]
        fn partial_writes_lose_nothing(
            lens in proptest::collection::vec(12u32..150_000, 1..4),
            mut takes in proptest::collection::vec(1usize..200_000, 1..30),
        ) {
            let sent: Vec<_> = lens.iter().enumerate().map(|(i, l)| header(*l, i as u16)).collect();
            let mut outbox = Outbox::default();
            let mut bytes = Vec::new();
            sent.iter().for_each(|h| outbox.push(*h));
            while !outbox.flush(Narrow { takes: &mut takes, got: &mut bytes }).unwrap() {
                prop_assert!(!outbox.is_empty());
                takes.push(70_001);
            }
            prop_assert!(outbox.is_empty());
            prop_assert_eq!(bytes.len(), lens.iter().sum::<u32>() as usize);
            let mut got = Vec::new();
            MessageReader::default().feed(&bytes, |h| got.push(h)).unwrap();
            prop_assert_eq!(got, sent);
        }
    }

    #[test]
    fn a_socket_that_takes_nothing_is_broken() {
        let mut outbox = Outbox::default();
        outbox.push(header(100, 0));
        let error = outbox.flush(Narrow { takes: &mut vec![0], got: &mut Vec::new() }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}
