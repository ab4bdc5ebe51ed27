//! What an agent and its orchestrator say to each other: frames over one byte stream in each direction.
//!
//! The agent writes [`GREETING`] first, so that what a login shell prints before it can be told apart, then frames. A
//! frame is `length: u32, kind: u8, id: u32` (big-endian; the length counts what follows it), then its body: JSON for
//! orders and news, bytes for everything else. An order has an id, which its answer repeats; news that nobody asked for
//! have 0.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::settings::{Change, Wish};

/// Version of this protocol; both ends must have the same.
pub const VERSION: u32 = 2;
/// What an agent writes first.
pub const GREETING: &[u8] = b"\ncp-node agent\n";
/// Longest body, bytes.
pub const MAX_BODY: usize = 1 << 20;
/// Bytes of a frame before its body, without the length itself.
const HEAD: usize = 5;

/// What a frame's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JSON: an [`Order`] or a [`News`].
    Message = 0,
    /// To the node's standard input, or from its standard output.
    Stdio = 1,
    /// From the node's standard error.
    Stderr = 2,
    /// A piece of the file that the order with this id asked for.
    File = 3,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: Kind,
    /// Of the order that this belongs to, or 0.
    pub id: u32,
    /// Its content.
    pub body: Vec<u8>,
}

/// What an agent is told to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// First of all: who is speaking. Answer: [`News::Hello`].
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The agent ends, and its node with it, when it has heard nothing for so long.
        silence_s: f64,
    },
    /// Says that the orchestrator is there. No answer; see [`News::Beat`].
    Ping,
    /// What heartbeats report from now on. Answer: [`News::Done`].
    Watch {
        /// Data-plane interface, whose carrier is looked at.
        interface: String,
        /// Directory whose file system's free space is looked at.
        dir: String,
    },
    /// Starts the node: this program with these arguments. Answer: [`News::Started`].
    Start {
        /// Words after the program's name.
        args: Vec<String>,
        /// Its working directory, which must exist.
        dir: String,
        /// Keep it on this core.
        core: Option<usize>,
    },
    /// Kills the node, if there is one. Answer: [`News::Done`], once it is gone.
    Kill,
    /// Makes a directory and what is missing above it, for its owner alone. Answer: [`News::Done`].
    MakeDir {
        /// Path.
        path: String,
    },
    /// Removes a directory with all that is in it. Answer: [`News::Done`].
    RemoveDir {
        /// Path.
        path: String,
    },
    /// All files below a directory. Answer: [`News::Files`].
    List {
        /// Path.
        path: String,
    },
    /// Sends a file. Answer: [`Kind::File`] frames, then [`News::Sent`].
    Get {
        /// Path.
        path: String,
    },
    /// Checksum of a file; an empty path is the running program. Answer: [`News::Sent`], without the bytes.
    Hash {
        /// Path.
        path: String,
    },
    /// What a doctor looks at. Answer: [`News::Facts`].
    Facts {
        /// Data-plane interface.
        interface: String,
        /// Data-plane address.
        address: String,
        /// Directory whose file system's free space is looked at.
        dir: String,
    },
    /// Opens a socket on the data plane that sends datagrams back. Answer: [`News::Echo`].
    Echo {
        /// Data-plane address.
        address: String,
    },
    /// Sends datagrams to others' [`Order::Echo`] sockets. Answer: [`News::Reached`].
    Reach {
        /// Data-plane address of this node.
        from: String,
        /// Addresses with ports.
        to: Vec<String>,
        /// Length of the IP packets, bytes.
        packet_bytes: usize,
    },
    /// Times sends from each core to one's own loopback. Answer: [`News::Latency`].
    Latency {
        /// Sends on each core.
        count: u32,
    },
    /// Changes settings of the machine, and writes down what they were. Answer: [`News::Changed`].
    Change {
        /// File that what they were is written to, before anything is changed.
        record: String,
        /// Data-plane interface.
        interface: String,
        /// What is wanted.
        wishes: Vec<Wish>,
        /// Only says what would be changed.
        dry_run: bool,
    },
    /// Puts settings back. Answer: [`News::Changed`].
    Restore {
        /// The file that says what they were.
        record: String,
        /// Only says what would be put back.
        dry_run: bool,
    },
    /// Kills the node and ends. No answer.
    End,
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub enum News {
    /// Who is speaking.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// Version of the program.
        tool: String,
        /// The machine's name for itself.
        host: String,
        /// Release of its kernel.
        kernel: String,
        /// Process id of the agent.
        pid: u32,
        /// Its wall clock, seconds since 1970.
        clock_s: f64,
    },
    /// Each second: that it lives, and how things are.
    Beat {
        /// Its wall clock, seconds since 1970.
        clock_s: f64,
        /// Free space where the node works.
        free_bytes: Option<u64>,
        /// Whether the data-plane interface has a link.
        carrier: Option<bool>,
    },
    /// The node runs.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// The node has ended; nobody asked.
    Ended {
        /// Exit status or signal, in words.
        how: String,
    },
    /// What was ordered is done.
    Done,
    /// What was ordered could not be done.
    Failed {
        /// Why.
        text: String,
    },
    /// Files below a directory.
    Files {
        /// Sorted by name.
        files: Vec<FileAbout>,
    },
    /// A file was sent, or read.
    Sent {
        /// Its length.
        size_bytes: u64,
        /// Its checksum, hexadecimal.
        sha256: String,
    },
    /// What a doctor looks at.
    Facts(Box<super::facts::Facts>),
    /// The socket that sends datagrams back.
    Echo {
        /// Its port.
        port: u16,
    },
    /// Whether datagrams came back.
    Reached {
        /// Of each address, in order: the round trip, us, or why there was none.
        round_trips: Vec<Result<f64, String>>,
    },
    /// Settings that were changed, or would be.
    Changed {
        /// In order.
        changes: Vec<Change>,
    },
    /// How long sends take.
    Latency {
        /// Of each core: the median, us, or why there is none.
        medians: Vec<(usize, Result<f64, String>)>,
    },
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAbout {
    /// Path below the directory that was listed.
    pub name: String,
    /// Length.
    pub size_bytes: u64,
    /// When it was changed, ns since 1970.
    pub modified_ns: u64,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Message, Self::Stdio, Self::Stderr, Self::File].into_iter().find(|kind| *kind as u8 == byte)
    }
}

impl Frame {
    /// The message in it.
    ///
    /// # Errors
    /// `InvalidData` if it is none.
    pub fn message<'a, T: Deserialize<'a>>(&'a self) -> io::Result<T> {
        serde_json::from_slice(&self.body).map_err(|err| {
            let start = String::from_utf8_lossy(&self.body[..self.body.len().min(80)]);
            invalid(format!("expected a message of protocol version {VERSION}, found `{start}`: {err}"))
        })
    }
}

/// Writes a frame and flushes.
///
/// # Errors
/// As writing; `InvalidInput` for a body beyond [`MAX_BODY`].
pub fn write(to: &mut impl Write, kind: Kind, id: u32, body: &[u8]) -> io::Result<()> {
    if body.len() > MAX_BODY {
        let text = format!("a frame takes {MAX_BODY} bytes, not {}", body.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let len = u32::try_from(HEAD + body.len()).expect("at most MAX_BODY and a head");
    let mut frame = Vec::with_capacity(4 + HEAD + body.len());
    frame.extend_from_slice(&len.to_be_bytes());
    frame.push(kind as u8);
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(body);
    to.write_all(&frame)?;
    to.flush()
}

/// Writes a message.
///
/// # Errors
/// As [`write()`].
pub fn say<T: Serialize>(to: &mut impl Write, id: u32, message: &T) -> io::Result<()> {
    write(to, Kind::Message, id, &serde_json::to_vec(message).expect("strings and numbers only"))
}

/// Reads a frame; `None` at the end of the stream.
///
/// # Errors
/// As reading; `UnexpectedEof` inside of a frame, `InvalidData` if it is none.
pub fn read(from: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut len = [0; 4];
    if !fill(from, &mut len)? {
        return Ok(None);
    }
    let len = u32::from_be_bytes(len) as usize;
    if !(HEAD..=HEAD + MAX_BODY).contains(&len) {
        return Err(invalid(format!("a frame has {HEAD} to {} bytes, not {len}", HEAD + MAX_BODY)));
    }
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes)?;
    let kind = Kind::of(bytes[0]).ok_or_else(|| invalid(format!("there is no frame of kind {}", bytes[0])))?;
    let id = u32::from_be_bytes(bytes[1..HEAD].try_into().expect("four bytes"));
    Ok(Some(Frame { kind, id, body: bytes.split_off(HEAD) }))
}

/// Skips what comes before the greeting.
///
/// # Errors
/// As reading; `InvalidData`, with what came instead, if the stream ends or `most` bytes pass without a greeting.
pub fn await_greeting(from: &mut impl Read, most: usize) -> io::Result<()> {
    let (mut heard, mut byte) = (Vec::new(), [0]);
    while !heard.ends_with(GREETING) {
        if heard.len() >= most || !fill(from, &mut byte)? {
            let start = String::from_utf8_lossy(&heard[..heard.len().min(400)]).trim().to_owned();
            return Err(invalid(format!("expected an agent's greeting, found `{start}`")));
        }
        heard.push(byte[0]);
    }
    Ok(())
}

/// Fills `bytes`; false if the stream ended before the first.
fn fill(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    let mut done = 0;
    while done < bytes.len() {
        match from.read(&mut bytes[done..]) {
            Ok(0) if done == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => done += len,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(true)
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_come_back_as_they_were_written() {
        let mut bytes = Vec::new();
        write(&mut bytes, Kind::Stdio, 0, b"client --id 3\n").unwrap();
        say(&mut bytes, 7, &Order::Get { path: "a".into() }).unwrap();
        assert_eq!(bytes[..9], [0, 0, 0, 19, 1, 0, 0, 0, 0]);
        let mut from = &bytes[..];
        let first = read(&mut from).unwrap().unwrap();
        assert_eq!((first.kind, first.body.as_slice()), (Kind::Stdio, &b"client --id 3\n"[..]));
        let second = read(&mut from).unwrap().unwrap();
        assert_eq!((second.id, second.message::<Order>().unwrap()), (7, Order::Get { path: "a".into() }));
        assert_eq!(read(&mut from).unwrap(), None);
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for (bytes, part) in [
            (&[0, 0, 0, 4, 0, 0, 0, 0][..], "not 4"),
            (&[0xff, 0, 0, 4, 0, 0, 0, 0], "bytes, not"),
            (&[0, 0, 0, 5, 9, 0, 0, 0, 0], "kind 9"),
        ] {
            let err = read(&mut &bytes[..]).unwrap_err().to_string();
            assert!(err.contains(part), "{err}");
        }
        assert_eq!(read(&mut &[0, 0, 0, 6, 0][..]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(write(&mut Vec::new(), Kind::File, 1, &vec![0; MAX_BODY + 1]).is_err());
        let frame = Frame { kind: Kind::Message, id: 0, body: b"{\"order\":\"fly\"}".to_vec() };
        assert!(frame.message::<Order>().unwrap_err().to_string().contains("fly"));
    }

    #[test]
    fn a_talkative_shell_is_skipped_and_shown_if_nothing_follows() {
        let mut from = &b"Welcome!\nLast login\n\ncp-node agent\nrest"[..];
        await_greeting(&mut from, 1000).unwrap();
        assert_eq!(from, b"rest");
        let err = await_greeting(&mut &b"sh: not found\n"[..], 1000).unwrap_err();
        assert!(err.to_string().contains("sh: not found"), "{err}");
        assert!(await_greeting(&mut io::repeat(b'x'), 1000).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut from = &bytes[..];
            while let Ok(Some(frame)) = read(&mut from) {
                let _ = frame.message::<Order>();
            }
        }
    }
}
