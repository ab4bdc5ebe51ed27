//! Reads Parquet files as this program writes them, many times as fast as a library for all of Parquet: flat columns, pages of
//! version 1, plain or by dictionary, not compressed or by LZ4. Whatever else is in a file is an error, as is damage. Of a file
//! its end is read, then the columns that are asked for.
//!
//! Source: the Parquet format (`parquet.thrift`, `Encodings.md`, `Compression.md` of apache/parquet-format).

mod lz4;
mod runs;
mod thrift;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use runs::Runs;
use thrift::Reader;

/// A file, of which columns are read when they are asked for.
pub(super) struct Table {
    source: Source,
    rows: usize,
    columns: Vec<Column>,
}

/// Where bytes come from.
enum Source {
    File(File),
    #[cfg(all(test, feature = "tables"))]
    Memory(Vec<u8>),
}

impl Source {
    fn length(&self) -> io::Result<usize> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len() as usize),
            #[cfg(all(test, feature = "tables"))]
            Self::Memory(bytes) => Ok(bytes.len()),
        }
    }

    /// Fills `out` with the bytes from `start` on.
    fn read(&self, start: usize, out: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(out, start as u64),
            #[cfg(all(test, feature = "tables"))]
            Self::Memory(bytes) => {
                let some = bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                out.copy_from_slice(some);
                Ok(())
            }
        }
    }
}

/// A column: its chunks, one a group of rows.
struct Column {
    name: String,
    physical: Physical,
    optional: bool,
    chunks: Vec<Chunk>,
}

/// Where a chunk's pages are.
struct Chunk {
    start: usize,
    bytes: usize,
    values: usize,
    codec: i64,
    /// How many are null, if the file says so.
    nulls: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Physical {
    Boolean,
    Int32,
    Int64,
    Double,
    /// Texts, which no analysis reads.
    Other,
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: damaged, or not a table that tthoma wrote"))
}

/// What a file begins and ends with.
const MAGIC: [u8; 4] = *b"PAR1";

impl Table {
    /// Opens a file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::of(Source::File(File::open(path)?))
    }

    fn of(source: Source) -> io::Result<Self> {
        let length = source.length()?;
        let end = length.checked_sub(8).ok_or_else(|| damaged("no Parquet file"))?;
        let (mut first, mut last) = ([0; 4], [0; 8]);
        source.read(0, &mut first)?;
        source.read(end, &mut last)?;
        if first != MAGIC || last[4..] != MAGIC {
            return Err(damaged("no Parquet file"));
        }
        let footer_length = u32::from_le_bytes([last[0], last[1], last[2], last[3]]) as usize;
        let start = end.checked_sub(footer_length).ok_or_else(|| damaged("its footer is longer than the file"))?;
        let mut bytes = vec![0; footer_length];
        source.read(start, &mut bytes)?;
        let (rows, columns) = footer(&bytes).ok_or_else(|| damaged("its footer can't be read"))?;
        let inside = |c: &Chunk| c.start.checked_add(c.bytes).is_some_and(|end| end <= start);
        let whole =
            |c: &Column| c.chunks.iter().map(|c| c.values).sum::<usize>() == rows && c.chunks.iter().all(inside);
        if !columns.iter().all(whole) {
            return Err(damaged("columns of different length"));
        }
        Ok(Self { source, rows, columns })
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    fn column(&self, name: &str) -> io::Result<&Column> {
        let found = self.columns.iter().find(|c| c.name == name);
        found.ok_or_else(|| damaged(&format!("no column `{name}`")))
    }

    fn numbers<T: Copy>(&self, name: &str, null: T, from: impl Fn(u64) -> T + Copy) -> io::Result<Vec<T>> {
        let column = self.column(name)?;
        let mut out = Vec::with_capacity(self.rows);
        let mut bytes = Vec::new();
        for chunk in &column.chunks {
            let expected = out.len() + chunk.values;
            bytes.resize(chunk.bytes, 0);
            self.source.read(chunk.start, &mut bytes)?;
            pages(&bytes, column, chunk, &mut out, null, from)
                .filter(|()| out.len() == expected)
                .ok_or_else(|| damaged(&format!("column `{name}`")))?;
        }
        Ok(out)
    }

    /// What `read` makes of a column; nothing if all of it is null.
    pub(super) fn sparse<T>(&self, name: &str, read: impl Fn(&Self, &str) -> io::Result<Vec<T>>) -> io::Result<Vec<T>> {
        let column = self.column(name)?;
        let empty = column.chunks.iter().all(|chunk| chunk.nulls == Some(chunk.values));
        if empty { Ok(Vec::new()) } else { read(self, name) }
    }

    /// A column of times; what is null becomes `null`.
    pub(super) fn i64s(&self, name: &str, null: i64) -> io::Result<Vec<i64>> {
        self.numbers(name, null, |v| v as i64)
    }

    /// A column of numbers; what is null becomes `null`.
    pub(super) fn u32s(&self, name: &str, null: u32) -> io::Result<Vec<u32>> {
        self.numbers(name, null, |v| v as u32)
    }

    /// A column of numbers with nulls.
    pub(super) fn maybe_u32s(&self, name: &str) -> io::Result<Vec<Option<u32>>> {
        self.numbers(name, None, |v| Some(v as u32))
    }

    /// A column of numbers; what is null becomes `null`.
    pub(super) fn u16s(&self, name: &str, null: u16) -> io::Result<Vec<u16>> {
        self.numbers(name, null, |v| v as u16)
    }

    /// A column of numbers; what is null becomes `null`.
    pub(super) fn u8s(&self, name: &str, null: u8) -> io::Result<Vec<u8>> {
        self.numbers(name, null, |v| v as u8)
    }

    /// A column of flags; null is false.
    pub(super) fn bools(&self, name: &str) -> io::Result<Vec<bool>> {
        self.numbers(name, false, |v| v != 0)
    }

    /// A column of numbers with nulls.
    #[cfg(all(test, feature = "tables"))]
    pub(super) fn f64s(&self, name: &str) -> io::Result<Vec<Option<f64>>> {
        self.numbers(name, None, |v| Some(f64::from_bits(v)))
    }
}

/// Rows and columns, as the end of a file has them.
fn footer(bytes: &[u8]) -> Option<(usize, Vec<Column>)> {
    let mut schema: Vec<(String, Physical, bool)> = Vec::new();
    let mut groups: Vec<Vec<Chunk>> = Vec::new();
    let mut rows = 0;
    Reader::new(bytes).fields(|field, reader| {
        match field {
            2 => reader.list(|reader| {
                let element = element(reader)?;
                schema.push(element);
                Some(())
            })?,
            3 => rows = usize::try_from(reader.integer()?).ok()?,
            4 => reader.list(|reader| {
                let mut chunks = Vec::new();
                reader.fields(|field, reader| match field {
                    1 => reader.list(|reader| {
                        chunks.push(chunk(reader)?);
                        Some(())
                    }),
                    _ => reader.skip(),
                })?;
                groups.push(chunks);
                Some(())
            })?,
            _ => reader.skip()?,
        }
        Some(())
    })?;
    // The first element is the root.
    let about = schema.into_iter().skip(1);
    let mut columns: Vec<Column> =
        about.map(|(name, physical, optional)| Column { name, physical, optional, chunks: Vec::new() }).collect();
    for group in groups {
        if group.len() != columns.len() {
            return None;
        }
        columns.iter_mut().zip(group).for_each(|(column, chunk)| column.chunks.push(chunk));
    }
    Some((rows, columns))
}

fn element(reader: &mut Reader<'_>) -> Option<(String, Physical, bool)> {
    let (mut name, mut physical, mut optional) = (String::new(), Physical::Other, false);
    reader.fields(|field, reader| {
        match field {
            1 => {
                physical = match reader.integer()? {
                    0 => Physical::Boolean,
                    1 => Physical::Int32,
                    2 => Physical::Int64,
                    5 => Physical::Double,
                    _ => Physical::Other,
                }
            }
            3 => optional = reader.integer()? == 1,
            4 => name = String::from_utf8_lossy(reader.bytes()?).into_owned(),
            _ => reader.skip()?,
        }
        Some(())
    })?;
    Some((name, physical, optional))
}

fn chunk(reader: &mut Reader<'_>) -> Option<Chunk> {
    let (mut data, mut dictionary, mut values, mut codec, mut nulls) = (None, None, 0, 0, None);
    let mut bytes = 0;
    reader.fields(|field, reader| match field {
        3 => reader.fields(|field, reader| {
            match field {
                4 => codec = reader.integer()?,
                5 => values = usize::try_from(reader.integer()?).ok()?,
                7 => bytes = usize::try_from(reader.integer()?).ok()?,
                9 => data = usize::try_from(reader.integer()?).ok(),
                11 => dictionary = usize::try_from(reader.integer()?).ok(),
                12 => reader.fields(|field, reader| match field {
                    3 => {
                        nulls = usize::try_from(reader.integer()?).ok();
                        Some(())
                    }
                    _ => reader.skip(),
                })?,
                _ => reader.skip()?,
            }
            Some(())
        }),
        _ => reader.skip(),
    })?;
    let start = dictionary.filter(|d| Some(*d) < data).or(data)?;
    Some(Chunk { start, bytes, values, codec, nulls })
}

/// What stands before a page.
#[derive(Default)]
struct Page {
    /// 0 data, 2 dictionary.
    kind: i64,
    uncompressed: usize,
    compressed: usize,
    values: usize,
    /// 0 plain, 2 and 8 dictionary, 3 runs.
    encoding: i64,
}

fn page(reader: &mut Reader<'_>) -> Option<Page> {
    let mut page = Page::default();
    let size = |reader: &mut Reader<'_>| usize::try_from(reader.integer()?).ok();
    reader.fields(|field, reader| {
        match field {
            1 => page.kind = reader.integer()?,
            2 => page.uncompressed = size(reader)?,
            3 => page.compressed = size(reader)?,
            // Of data and of dictionaries.
            5 | 7 => reader.fields(|field, reader| {
                match field {
                    1 => page.values = size(reader)?,
                    2 => page.encoding = reader.integer()?,
                    _ => reader.skip()?,
                }
                Some(())
            })?,
            _ => reader.skip()?,
        }
        Some(())
    })?;
    Some(page)
}

/// Adds the values of a chunk's pages, `bytes`, to `out`; `None` if they are damaged or of a kind that is not known here.
fn pages<T: Copy>(
    bytes: &[u8],
    column: &Column,
    chunk: &Chunk,
    out: &mut Vec<T>,
    null: T,
    from: impl Fn(u64) -> T + Copy,
) -> Option<()> {
    let mut reader = Reader::new(bytes);
    let (mut dictionary, mut buffer, mut present) = (Vec::new(), Vec::new(), Vec::new());
    let end = out.len() + chunk.values;
    while out.len() < end {
        let page = page(&mut reader)?;
        let stored = reader.take(page.compressed)?;
        let bytes = match chunk.codec {
            0 => stored,
            7 => {
                buffer.clear();
                lz4::decompress(stored, &mut buffer, page.uncompressed)?;
                &buffer
            }
            _ => return None,
        };
        match page.kind {
            2 => {
                dictionary.clear();
                plain(bytes, column.physical, page.values, from, &mut dictionary)?;
            }
            0 if page.values <= end - out.len() => {
                let Some((levels, there, bytes)) = levels(column, &page, bytes)? else {
                    let before = out.len();
                    let bytes = if column.optional { without_levels(bytes)?.1 } else { bytes };
                    values(column, &page, bytes, page.values, &dictionary, out, from)?;
                    (out.len() == before + page.values).then_some(())?;
                    continue;
                };
                present.clear();
                values(column, &page, bytes, there, &dictionary, &mut present, from)?;
                spread(levels, page.values, &present, null, out)?;
            }
            _ => return None,
        }
    }
    Some(())
}

/// Which values of a page are there (runs of ones), how many, and what follows; nothing if all are.
fn levels<'a>(column: &Column, page: &Page, bytes: &'a [u8]) -> Option<Option<(Runs<'a>, usize, &'a [u8])>> {
    if !column.optional {
        return Some(None);
    }
    let (levels, rest) = without_levels(bytes)?;
    let runs = Runs::new(levels, 1);
    let there = runs.clone().count(page.values)?;
    Some((there < page.values).then_some((runs, there, rest)))
}

/// What tells which values are there, and what follows.
fn without_levels(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    bytes[4..].split_at_checked(length)
}

/// Adds `present` values to `out`, and `null` where `levels` say that there is none; `count` in all.
fn spread<T: Copy>(levels: Runs<'_>, count: usize, present: &[T], null: T, out: &mut Vec<T>) -> Option<()> {
    let (mut next, mut enough) = (0, true);
    out.reserve(count);
    levels.each(count, |level, times| match (level, present.get(next..next + times)) {
        (1, Some([one])) => {
            out.push(*one);
            next += 1;
        }
        (1, Some(some)) => {
            out.extend_from_slice(some);
            next += times;
        }
        (1, None) => enough = false,
        _ => out.extend(std::iter::repeat_n(null, times)),
    })?;
    (enough && next == present.len()).then_some(())
}

/// Adds the `there` values of a page of data that are not null.
fn values<T: Copy>(
    column: &Column,
    page: &Page,
    bytes: &[u8],
    there: usize,
    dictionary: &[T],
    out: &mut Vec<T>,
    from: impl Fn(u64) -> T + Copy,
) -> Option<()> {
    match page.encoding {
        0 => plain(bytes, column.physical, there, from, out),
        2 | 8 => {
            let (width, bytes) = bytes.split_first()?;
            let mut known = true;
            Runs::new(bytes, (*width).into()).each(there, |place, times| match dictionary.get(place as usize) {
                Some(value) if times == 1 => out.push(*value),
                Some(value) => out.extend(std::iter::repeat_n(*value, times)),
                None => known = false,
            })?;
            known.then_some(())
        }
        3 if column.physical == Physical::Boolean => Runs::new(bytes.get(4..)?, 1)
            .each(there, |value, times| out.extend(std::iter::repeat_n(from(value.into()), times))),
        _ => None,
    }
}

/// Adds `count` values that are stored one after the other.
#[inline]
fn plain<T>(bytes: &[u8], physical: Physical, count: usize, from: impl Fn(u64) -> T, out: &mut Vec<T>) -> Option<()> {
    match physical {
        Physical::Boolean => {
            let bytes = bytes.get(..count.div_ceil(8))?;
            out.extend((0..count).map(|i| from(u64::from(bytes[i / 8] >> (i % 8) & 1))));
        }
        Physical::Int32 => {
            let bytes = bytes.get(..count.checked_mul(4)?)?;
            out.extend(bytes.chunks_exact(4).map(|b| from(u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])))));
        }
        Physical::Int64 | Physical::Double => {
            let bytes = bytes.get(..count.checked_mul(8)?)?;
            let value = |b: &[u8]| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
            out.extend(bytes.chunks_exact(8).map(|b| from(value(b))));
        }
        Physical::Other => return None,
    }
    Some(())
}

#[cfg(all(test, feature = "tables"))]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::Arc;

    use crate::packets::UNSEEN;
    use crate::tables::{Frame, Values, polars};

    fn written(columns: Vec<(&'static str, Values)>, name: &str, table: &'static str) -> Vec<u8> {
        let path = std::env::temp_dir().join(format!("tthoma-parquet-{name}-{}", std::process::id()));
        let frame = Frame { table, node: "n".into(), columns };
        let mut writer = polars::Writer::create(&frame, &path).unwrap();
        writer.add(&frame).unwrap();
        writer.add(&frame).unwrap();
        assert_eq!(writer.finish().unwrap(), fs::metadata(&path).unwrap().len());
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        bytes
    }

    /// Columns that are stored in all ways: plain, by dictionary, with nulls and without, in one page and in several.
    fn columns(rows: u32) -> Vec<(&'static str, Values)> {
        let mix = |i: u32| i.wrapping_mul(2_654_435_761);
        let all = || 0..rows;
        vec![
            ("time", Values::I64(all().map(|i| i64::from(mix(i)) * 1000 - 9).collect())),
            (
                "some_time",
                Values::I64(all().map(|i| if i % 7 == 3 { UNSEEN } else { i64::from(mix(i)) << 20 }).collect()),
            ),
            ("small", Values::U32(all().map(|i| mix(i) % 50).collect())),
            ("large", Values::U32(all().map(mix).collect())),
            ("maybe", Values::MaybeU32(all().map(mix).collect(), all().map(|i| i % 3 > 0).collect())),
            ("never", Values::MaybeU32(all().collect(), vec![false; rows as usize])),
            ("core", Values::U16(all().map(|i| (i / 100) as u16).collect())),
            ("kind", Values::U8(all().map(|i| (i % 200) as u8).collect())),
            ("flag", Values::Bool(all().map(|i| mix(i) % 2 == 0).collect())),
            ("number", Values::F64(all().map(|i| (i % 2 == 0).then_some(f64::from(i) / 3.0)).collect())),
            ("text", Values::Text(vec![0; rows as usize], Arc::from(["x".to_string()]))),
        ]
    }

    #[test]
    fn what_polars_writes_is_read() {
        // Not compressed, and compressed.
        let tables = ["events", "intervals"];
        for (rows, table) in [0, 1, 9, 1000, 300_000].into_iter().flat_map(|rows| tables.map(|table| (rows, table))) {
            let columns = columns(rows);
            let table = Table::of(Source::Memory(written(columns.clone(), "all", table))).unwrap();
            assert_eq!(table.rows(), 2 * rows as usize);
            for (name, values) in columns {
                let twice = |read: Vec<_>, v: &[_]| assert!(read == [v, v].concat(), "{name} of {rows}");
                match values {
                    Values::I64(v) => {
                        assert!(table.i64s(name, UNSEEN).unwrap() == [v.as_slice(), &v].concat(), "{name}")
                    }
                    Values::U32(v) => assert!(table.u32s(name, 7).unwrap() == [v.as_slice(), &v].concat(), "{name}"),
                    Values::MaybeU32(v, known) => {
                        let v: Vec<_> = v.iter().zip(known).map(|(v, known)| known.then_some(*v)).collect();
                        assert!(table.maybe_u32s(name).unwrap() == [v.as_slice(), &v].concat(), "{name}");
                    }
                    Values::U16(v) => assert!(table.u16s(name, 7).unwrap() == [v.as_slice(), &v].concat(), "{name}"),
                    Values::U8(v) => assert!(table.u8s(name, 7).unwrap() == [v.as_slice(), &v].concat(), "{name}"),
                    Values::Bool(v) => twice(table.bools(name).unwrap(), &v),
                    Values::F64(v) => assert!(table.f64s(name).unwrap() == [v.as_slice(), &v].concat(), "{name}"),
                    _ => assert!(rows == 0 || table.u32s(name, 0).is_err()),
                }
            }
        }
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let whole = written(columns(40), "damage", "events");
        let names = ["time", "some_time", "small", "maybe", "core", "flag"];
        let read = |bytes: Vec<u8>| {
            let table = Table::of(Source::Memory(bytes))?;
            names.iter().try_for_each(|name| table.i64s(name, 0).map(drop))
        };
        read(whole.clone()).unwrap();
        let mut errors = 0;
        for at in 0..whole.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                errors += u32::from(read(bytes).is_err());
            }
            assert!(read(whole[..at].to_vec()).is_err());
        }
        assert!(errors > 100, "{errors}");
    }
}
