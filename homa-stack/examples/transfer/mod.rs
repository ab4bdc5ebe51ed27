//! Files in messages: many under way at once, in any order, checked by SHA-256 at the end.
//!
//! Three requests, numbers in little-endian order, each answered by a zero byte and what is said below, or by the text
//! of an error:
//!
//! | request | bytes | answer |
//! | --- | --- | --- |
//! | begin | 1, length u64, name | transfer u64, first byte that is missing u64 |
//! | data | 2, transfer u64, offset u64, bytes | |
//! | end | 3, transfer u64, SHA-256 | |
//!
//! A transfer that broke off goes on where the data has a first gap, as long as the receiver runs.
#![allow(dead_code, unreachable_pub, reason = "each program uses its part")]

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, Read};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use homa_stack::Body;
use homa_stack::api::{Batch, Client, ReplyError, Server};
use sha2::{Digest, Sha256};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Bytes of data in a message; with its head it fits the longest message, 1,000,000 bytes.
const CHUNK: usize = 999_000;

/// Messages under way.
const WINDOW: usize = 8;

const BEGIN: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;
const OK: u8 = 0;

/// Sends the file at `path`; returns how many of its bytes the receiver lacked. `progress` is told of each chunk.
///
/// # Errors
///
/// If the file can't be read, the receiver refuses it, or the network fails; another try then goes on where this ended.
pub fn send(client: &Client, to: SocketAddr, path: &Path, mut progress: impl FnMut(u64)) -> Result<u64> {
    let say = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut file = File::open(path).map_err(say)?;
    let len = file.metadata().map_err(say)?.len();
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("the file's name is not UTF-8")?;
    let begin = [&[BEGIN], &len.to_le_bytes()[..], name.as_bytes()].concat();
    let answer = accepted(&client.call(to, begin)?)?;
    let (transfer, start) = (number(&answer, 0)?, number(&answer, 8)?);

    let mut hash = Sha256::new();
    let mut batch = client.batch(WINDOW);
    let mut offset = 0;
    while offset < len {
        let mut chunk = Vec::with_capacity(CHUNK);
        (&mut file).take(CHUNK as u64).read_to_end(&mut chunk).map_err(say)?;
        if chunk.is_empty() {
            return Err(format!("{}: it has become shorter than {len} bytes", path.display()).into());
        }
        hash.update(&chunk);
        let end = offset + chunk.len() as u64;
        if end > start {
            if batch.open() == WINDOW {
                one_done(&mut batch)?;
            }
            let mut head = [0; 17];
            head[0] = DATA;
            head[1..9].copy_from_slice(&transfer.to_le_bytes());
            head[9..].copy_from_slice(&offset.to_le_bytes());
            batch.submit(to, homa_stack::Payload::with_head(&head, Bytes::from(chunk)), end)?;
            progress(end);
        }
        offset = end;
    }
    while batch.open() > 0 {
        one_done(&mut batch)?;
    }
    let end = [&[END], &transfer.to_le_bytes()[..], &hash.finalize()[..]].concat();
    accepted(&client.call(to, end)?)?;
    Ok(len - start.min(len))
}

/// Takes the end of one message under way.
fn one_done(batch: &mut Batch) -> Result<()> {
    let end = batch.next().ok_or("no message is under way")?;
    accepted(&end.result?).map(drop)
}

/// What an answer holds, if it is no error.
fn accepted(answer: &Body) -> Result<Vec<u8>> {
    let bytes = answer.to_vec();
    match bytes.split_first() {
        Some((&OK, rest)) => Ok(rest.to_vec()),
        _ => Err(format!("the receiver says: {}", String::from_utf8_lossy(&bytes)).into()),
    }
}

fn number(bytes: &[u8], at: usize) -> Result<u64> {
    let field = bytes.get(at..at + 8).ok_or("a message is too short: expected a number of 8 bytes")?;
    Ok(u64::from_le_bytes(field.try_into()?))
}

/// A file that is being received.
struct Transfer {
    part: PathBuf,
    path: PathBuf,
    file: File,
    len: u64,
    /// What has come: begin to end, neither touching nor overlapping.
    ranges: BTreeMap<u64, u64>,
}

impl Transfer {
    /// The first byte that is missing.
    fn missing(&self) -> u64 {
        self.ranges.get(&0).copied().unwrap_or(0)
    }

    fn add(&mut self, mut start: u64, mut end: u64) {
        while let Some((&from, &to)) = self.ranges.range(..=end).next_back().filter(|&(_, &to)| to >= start) {
            (start, end) = (start.min(from), end.max(to));
            self.ranges.remove(&from);
        }
        self.ranges.insert(start, end);
    }
}

/// Receives files into a directory.
pub struct Receiver {
    directory: PathBuf,
    transfers: HashMap<u64, Transfer>,
    next: u64,
}

impl Receiver {
    /// Receives into `directory`, which must exist.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), transfers: HashMap::new(), next: 1 }
    }

    /// Serves until the host stops; `done` is told the path of each file that is whole.
    pub fn serve(&mut self, server: &Server, mut done: impl FnMut(&Path)) -> Result<()> {
        while let Ok(request) = server.recv() {
            let answer = match self.answer(&request.body, &mut done) {
                Ok(answer) => [&[OK], &answer[..]].concat(),
                Err(error) => error.to_string().into_bytes(),
            };
            drop(request.body);
            match request.reply.send(answer) {
                // A sender that gave up does not wait for its last answers: the host may stop before they are sent.
                Ok(()) | Err(ReplyError::Stopped(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn answer(&mut self, body: &Body, done: &mut impl FnMut(&Path)) -> Result<Vec<u8>> {
        let mut head = [0; 41];
        let n = body.copy_to(0, &mut head);
        let (kind, rest) = head[..n].split_first().ok_or("an empty message")?;
        let first = number(rest, 0)?;
        match *kind {
            BEGIN => self.begin(first, &String::from_utf8(body.to_vec().split_off(9))?),
            DATA => self.data(first, number(rest, 8)?, body),
            END => {
                let path = self.end(first, rest.get(8..40).ok_or("expected 32 bytes of SHA-256")?)?;
                done(&path);
                Ok(Vec::new())
            }
            other => Err(format!("expected request 1, 2 or 3, found {other}").into()),
        }
    }

    fn begin(&mut self, len: u64, name: &str) -> Result<Vec<u8>> {
        if name.is_empty() || name.contains('/') || name.contains('\0') || [".", ".."].contains(&name) {
            return Err(format!("`{name}` is no plain file name").into());
        }
        let path = self.directory.join(name);
        let known = self.transfers.iter().find(|(_, transfer)| transfer.path == path && transfer.len == len);
        let number = match known {
            Some((&number, _)) => number,
            None => {
                self.transfers.retain(|_, transfer| transfer.path != path);
                let part = self.directory.join(format!("{name}.part"));
                let say = |e: std::io::Error| format!("{}: {e}", part.display());
                let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&part);
                let file = file.map_err(say)?;
                file.set_len(len).map_err(say)?;
                let number = self.next;
                self.next += 1;
                self.transfers.insert(number, Transfer { part, path, file, len, ranges: BTreeMap::new() });
                number
            }
        };
        Ok([number.to_le_bytes(), self.transfers[&number].missing().to_le_bytes()].concat())
    }

    fn data(&mut self, number: u64, offset: u64, body: &Body) -> Result<Vec<u8>> {
        let transfer = self.transfers.get_mut(&number).ok_or("no such transfer: begin it again")?;
        let end = offset.saturating_add(body.len() as u64 - 17);
        if end > transfer.len {
            return Err(format!("bytes up to {end} of a file of {}", transfer.len).into());
        }
        let mut reader = body.reader();
        reader.consume(17);
        let mut at = offset;
        while at < end {
            // From the pool's pages straight to the file.
            let piece = reader.fill_buf()?;
            transfer.file.write_all_at(piece, at).map_err(|e| format!("{}: {e}", transfer.part.display()))?;
            let n = piece.len();
            at += n as u64;
            reader.consume(n);
        }
        transfer.add(offset, end);
        Ok(Vec::new())
    }

    fn end(&mut self, number: u64, right: &[u8]) -> Result<PathBuf> {
        let transfer = self.transfers.get(&number).ok_or("no such transfer: begin it again")?;
        if transfer.missing() < transfer.len {
            return Err(format!("bytes from {} on are missing", transfer.missing()).into());
        }
        let transfer = self.transfers.remove(&number).ok_or("no such transfer")?;
        let mut hash = Sha256::new();
        let mut block = vec![0; 1 << 16];
        let mut at = 0;
        while at < transfer.len {
            let n = transfer.file.read_at(&mut block, at)?;
            hash.update(&block[..n]);
            at += n as u64;
        }
        if hash.finalize()[..] != *right {
            fs::remove_file(&transfer.part)?;
            return Err("the SHA-256 differs: the file has changed while it was sent; send it again".into());
        }
        fs::rename(&transfer.part, &transfer.path)?;
        Ok(transfer.path)
    }
}
