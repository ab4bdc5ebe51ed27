//! A trace in pieces of bounded size, for runs that are larger than memory.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use super::source::{self, Format, Input, ReadError};
use super::text::{self, About, Chunk, NodeTrace};
use super::{Broken, Dialect, HEAD, Head, UserEvents, finish, looks_like_tt, read_with};
use crate::event::Record;

/// Bytes of text that are read at once: their records take less than half as much.
const PIECE: u64 = 8 << 20;

/// Reads the trace of `node` in `path` and calls `each` with its records, in order, some ten thousand at a time. What it
/// returns holds everything but the records.
///
/// A kernel's log, which has the newest entry first, is read at once.
///
/// # Errors
///
/// If the file can't be opened, or `each` fails.
pub(crate) fn in_pieces<E: From<ReadError>>(
    path: &Path,
    node: &str,
    user: &Arc<UserEvents>,
    mut each: impl FnMut(&[Record]) -> Result<(), E>,
) -> Result<NodeTrace, E> {
    let failed = |error| ReadError::Open { path: path.to_path_buf(), source: error };
    let (input, format): (Box<dyn Read>, _) = match source::open(path).map_err(failed)? {
        Input::File(mut file, _) => {
            io::Seek::rewind(&mut file).map_err(failed)?;
            (Box::new(file), Format::Plain)
        }
        Input::Stream(input, format) => (input, format),
    };
    let mut input = BufReader::with_capacity(1 << 16, input);
    let mut piece = Vec::new();
    let mut error = input.by_ref().take(HEAD as u64).read_to_end(&mut piece).err();
    let head = Head::of(&piece);
    if head.dialect == Dialect::Syslog || head == Head::default() && !looks_like_tt(&piece) {
        let mut trace = read_with(&[path.to_path_buf()], user)?.remove(0);
        each(&std::mem::take(&mut trace.records))?;
        return Ok(trace);
    }
    let about = About { path, node, format, head, user: user.clone() };
    let mut all = Chunk::new(&about);
    let mut records = 0;
    loop {
        if error.is_none() {
            let more = (&mut input).take(PIECE).read_to_end(&mut piece);
            // The rest of the last line; a file without lines is not taken whole.
            let rest = more.and_then(|_| input.by_ref().take(PIECE).read_until(b'\n', &mut piece));
            error = rest.err();
        }
        let ends = error.is_some() || input.fill_buf().is_ok_and(<[u8]>::is_empty);
        let mut text = piece.as_slice().chain(Broken(error.take()));
        all.append(text::chunk(&about, Some(piece.len() as u64), &mut text));
        let taken = all.take_records();
        records += taken.len() as u64;
        each(&taken)?;
        if ends {
            break;
        }
        piece.clear();
    }
    let mut trace = finish(&about, vec![all]);
    trace.stats.records = records;
    Ok(trace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::read;

    /// As many lines as make several pieces, with damage in between.
    #[test]
    fn pieces_are_the_whole() {
        let path = std::env::temp_dir().join(format!("tthoma-pieces-{}.tt", std::process::id()));
        let mut text = String::new();
        for i in 0..250_000 {
            text +=
                &format!("{i:>9}.000 us (+   1.000 us) [C01] incoming data packet, id {}, offset 0/100\n", 2 * i + 1);
            if i % 50_000 == 7 {
                text += "nothing that is known\n";
            }
        }
        text += "  9.000 us (+";
        assert!(text.len() as u64 > 2 * PIECE);
        std::fs::write(&path, text).unwrap();
        let whole = read(std::slice::from_ref(&path)).unwrap().remove(0);
        let (mut records, mut calls) = (Vec::new(), 0);
        let trace = in_pieces(&path, &whole.node, &Arc::default(), |piece| {
            calls += 1;
            records.extend_from_slice(piece);
            Ok::<_, ReadError>(())
        });
        let trace = trace.unwrap();
        assert!(calls > 2 && records == whole.records);
        let stats = |trace: &NodeTrace| serde_json::to_value(&trace.stats).unwrap();
        assert_eq!((trace.span, stats(&trace)), (whole.span, stats(&whole)));
        std::fs::remove_file(path).unwrap();
    }
}
