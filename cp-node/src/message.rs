//! The benchmark's own message format: a 12-byte header in front of filler, the same for both protocols and directions.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | signed total length in bytes, header included |
//! | 4 | 4 | connection id: client port index, client node, server port index, server node, a byte each |
//! | 8 | 2 | message id: the client's slot, echoed by the server |
//! | 10 | 2 | bits: 0 freeze, 1 short response wanted, 2 is a response |
//!
//! All fields are little-endian (cperf.md 1.5). The original of 2026 has this layout. That of 2024 has the first two bits at
//! the top of the length and 32 bits for the message id: without bits and with an id below 65,536 the same bytes. Its
//! servers, which do not mark responses, are understood; its clients do not understand that mark.

/// Length of the header, and so of the shortest message, in bytes.
pub const HEADER_LEN: usize = 12;
/// Longest message that a receiver accepts, in bytes; anything above can only be a peer that speaks another protocol.
pub const MAX_LEN: u32 = 1 << 28;
/// Longest response to a one-way request, in bytes.
pub const SHORT_RESPONSE: u32 = 100;

const FREEZE: u16 = 1;
const SHORT: u16 = 2;
const RESPONSE: u16 = 4;

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Total length in bytes, header included: [`HEADER_LEN`] to [`MAX_LEN`].
    pub len: u32,
    /// Which client port talks to which server port.
    pub connection: ConnectionId,
    /// Index of the client's bookkeeping slot.
    pub slot: u16,
    /// The receiver shall freeze its time trace.
    pub freeze: bool,
    /// The response shall have at most [`SHORT_RESPONSE`] bytes.
    pub short_response: bool,
    /// This is a response.
    pub is_response: bool,
}

/// Both ends of a message, as numbers of the benchmark (not addresses).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionId {
    /// Index of the client port on its node.
    pub client_port: u8,
    /// Number of the client's node.
    pub client_node: u8,
    /// Index of the server port on its node.
    pub server_port: u8,
    /// Number of the server's node.
    pub server_node: u8,
}

/// Bytes that are no message of this benchmark.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A web client or port scanner.
    #[error("the data begins like an HTTP request")]
    Http,
    /// The length field is out of range.
    #[error("message length {0} is not in {HEADER_LEN}..={MAX_LEN}")]
    Length(i32),
    /// A message of a transport that keeps message borders has another length than its header says.
    #[error("a message of {got} bytes says that it has {said}")]
    Mismatch {
        /// Bytes received.
        got: usize,
        /// Bytes announced by the header.
        said: u32,
    },
}

impl Header {
    /// The header of the response to this request: as long as the request unless a short one is wanted.
    pub fn response(self) -> Self {
        let len = if self.short_response { self.len.min(SHORT_RESPONSE) } else { self.len };
        Self { len, is_response: true, ..self }
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let c = self.connection;
        let bits = if self.freeze { FREEZE } else { 0 }
            | if self.short_response { SHORT } else { 0 }
            | if self.is_response { RESPONSE } else { 0 };
        let mut bytes = [0; HEADER_LEN];
        bytes[0..4].copy_from_slice(&(self.len as i32).to_le_bytes());
        bytes[4..8].copy_from_slice(&[c.client_port, c.client_node, c.server_port, c.server_node]);
        bytes[8..10].copy_from_slice(&self.slot.to_le_bytes());
        bytes[10..12].copy_from_slice(&bits.to_le_bytes());
        bytes
    }

    /// Reads a header; unknown bits are ignored.
    ///
    /// # Errors
    /// If the length is out of range or the bytes begin an HTTP request.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, MessageError> {
        if bytes.starts_with(b"GET ") {
            return Err(MessageError::Http);
        }
        let len = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if len < HEADER_LEN as i32 || len > MAX_LEN as i32 {
            return Err(MessageError::Length(len));
        }
        let bits = u16::from_le_bytes([bytes[10], bytes[11]]);
        Ok(Self {
            len: len as u32,
            connection: ConnectionId {
                client_port: bytes[4],
                client_node: bytes[5],
                server_port: bytes[6],
                server_node: bytes[7],
            },
            slot: u16::from_le_bytes([bytes[8], bytes[9]]),
            freeze: bits & FREEZE != 0,
            short_response: bits & SHORT != 0,
            is_response: bits & RESPONSE != 0,
        })
    }

    /// Reads the header of a whole message of `got` bytes.
    ///
    /// # Errors
    /// As [`Header::decode`], and if the header states another length than `got`.
    pub fn decode_whole(bytes: &[u8; HEADER_LEN], got: usize) -> Result<Self, MessageError> {
        let header = Self::decode(bytes)?;
        if header.len as usize == got { Ok(header) } else { Err(MessageError::Mismatch { got, said: header.len }) }
    }
}

/// Finds the messages in a byte stream that arrives in pieces of any size; keeps headers only, not the filler.
#[derive(Debug, Default)]
pub struct MessageReader {
    head: [u8; HEADER_LEN],
    /// Bytes of `head` that are filled.
    have: usize,
    /// Filler bytes still to come of the message whose header is complete.
    rest: usize,
}

impl MessageReader {
    /// Takes the next bytes of the stream and hands each message that they complete to `done`.
    ///
    /// # Errors
    /// If a header is invalid; the stream can't be read on then.
    pub fn feed(&mut self, mut bytes: &[u8], mut done: impl FnMut(Header)) -> Result<(), MessageError> {
        while !bytes.is_empty() {
            if self.have < HEADER_LEN {
                let take = bytes.len().min(HEADER_LEN - self.have);
                self.head[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                self.have += take;
                bytes = &bytes[take..];
                if self.have >= 4 && self.head.starts_with(b"GET ") {
                    return Err(MessageError::Http);
                }
                if self.have < HEADER_LEN {
                    return Ok(());
                }
                self.rest = Header::decode(&self.head)?.len as usize - HEADER_LEN;
            }
            let take = bytes.len().min(self.rest);
            self.rest -= take;
            bytes = &bytes[take..];
            if self.rest == 0 {
                done(Header::decode(&self.head)?);
                self.have = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(len: u32, slot: u16) -> Header {
        let connection = ConnectionId { client_port: 1, client_node: 2, server_port: 3, server_node: 4 };
        Header { len, connection, slot, freeze: false, short_response: false, is_response: false }
    }

    #[test]
    fn the_bytes_are_as_specified() {
        let h = Header { freeze: true, is_response: true, ..header(0x0102_0304, 0x0506) };
        assert_eq!(h.encode(), [4, 3, 2, 1, 1, 2, 3, 4, 6, 5, 5, 0]);
        let short = Header { short_response: true, ..header(12, 0) };
        assert_eq!(short.encode()[10..], [2, 0]);
        assert_eq!(Header::decode(&h.encode()), Ok(h));
        assert_eq!(Header::decode(&short.encode()), Ok(short));
    }

    #[test]
    fn a_response_is_as_long_as_its_request_unless_a_short_one_is_wanted() {
        assert_eq!(header(5000, 1).response().len, 5000);
        assert!(header(5000, 1).response().is_response);
        assert_eq!(Header { short_response: true, ..header(5000, 1) }.response().len, 100);
        assert_eq!(Header { short_response: true, ..header(50, 1) }.response().len, 50);
    }

    #[test]
    fn foreign_data_is_refused() {
        for (bytes, error) in [
            (*b"GET / HTTP/1", MessageError::Http),
            ([11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], MessageError::Length(11)),
            ([0xff; 12], MessageError::Length(-1)),
            (*b"POST / HTTP/", MessageError::Length(0x5453_4f50)),
        ] {
            assert_eq!(Header::decode(&bytes), Err(error));
        }
        assert_eq!(
            MessageReader::default().feed(b"GET ", |_| ()),
            Err(MessageError::Http),
            "before the header is whole"
        );
        let wrong = Header::decode_whole(&header(100, 0).encode(), 99);
        assert_eq!(wrong, Err(MessageError::Mismatch { got: 99, said: 100 }));
    }

    proptest! {
        /// Whatever the sizes of the pieces in which the stream arrives, the same messages come out.
        #[test]
        fn messages_are_found_at_any_split(
            lens in proptest::collection::vec(12u32..400, 1..20),
            pieces in proptest::collection::vec(1usize..150, 1..40),
        ) {
            let sent: Vec<_> = lens.iter().enumerate().map(|(i, len)| header(*len, i as u16)).collect();
            let mut stream = Vec::new();
            for h in &sent {
                stream.extend(h.encode());
                stream.resize(stream.len() + h.len as usize - HEADER_LEN, 0x47);
            }
            let mut reader = MessageReader::default();
            let mut got = Vec::new();
            let mut rest = &stream[..];
            for size in pieces.iter().cycle() {
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                reader.feed(piece, |h| got.push(h)).unwrap();
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, sent);
        }

        /// Any bytes give messages or an error, never a panic.
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = MessageReader::default().feed(&bytes, |_| ());
        }
    }
}
