//! Frames as polars' data frames, and these as Parquet files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use polars_core::prelude::{Column, DataFrame, PlSmallStr, PolarsError};
use polars_io::parquet::write::{BatchedWriter, ParquetCompression, ParquetWriter};

use super::{Frame, Values};
use crate::packets::{NO_PRIORITY, UNSEEN};

/// Rows of a row group: enough to compress well, and so few that engines read several side by side.
const ROW_GROUP: usize = 1 << 19;

/// A frame as a data frame.
pub(super) fn data_frame(frame: &Frame) -> Result<DataFrame, PolarsError> {
    let columns = frame.columns.iter().map(|(name, values)| column(name, values)).collect();
    DataFrame::new(frame.rows(), columns)
}

fn column(name: &str, values: &Values) -> Column {
    let name = PlSmallStr::from_str(name);
    match values {
        Values::I64(v) if v.contains(&UNSEEN) => {
            let v: Vec<Option<i64>> = v.iter().map(|v| (*v != UNSEEN).then_some(*v)).collect();
            Column::new(name, v)
        }
        Values::I64(v) => Column::new(name, v.as_slice()),
        Values::U64(v) => Column::new(name, v.as_slice()),
        Values::U32(v) => Column::new(name, v.as_slice()),
        Values::MaybeU32(v, known) => {
            let v: Vec<Option<u32>> = v.iter().zip(known).map(|(v, known)| known.then_some(*v)).collect();
            Column::new(name, v)
        }
        Values::U16(v) => Column::new(name, v.as_slice()),
        Values::U8(v) => Column::new(name, v.as_slice()),
        Values::Level(v) => {
            let v: Vec<Option<u8>> = v.iter().map(|v| (*v != NO_PRIORITY).then_some(*v)).collect();
            Column::new(name, v)
        }
        Values::F64(v) => Column::new(name, v.as_slice()),
        Values::Bool(v) => Column::new(name, v.as_slice()),
        Values::Text(places, texts) => {
            let v: Vec<Option<&str>> =
                places.iter().map(|place| texts.get(usize::from(*place)).map(String::as_str)).collect();
            Column::new(name, v)
        }
    }
}

/// A file that frames of one table are added to, as row groups.
pub(super) struct Writer(BatchedWriter<BufWriter<File>>, File);

impl Writer {
    /// A file for frames like this.
    pub(super) fn create(frame: &Frame, path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let same = file.try_clone()?;
        let data = data_frame(frame).map_err(io::Error::other)?;
        // What analyses read is not compressed: undoing that takes longer than reading. Intervals, which none reads, are by far
        // the largest table of a long run, and much of it is 0.
        let compression =
            if frame.table == "intervals" { ParquetCompression::Lz4Raw } else { ParquetCompression::Uncompressed };
        writer(BufWriter::new(file), compression)
            .batched(data.schema())
            .map(|w| Self(w, same))
            .map_err(io::Error::other)
    }

    /// Adds a frame's rows.
    pub(super) fn add(&mut self, frame: &Frame) -> io::Result<()> {
        let data = data_frame(frame).map_err(io::Error::other)?;
        let mut from = 0;
        while from < data.height() {
            self.0.write_batch(&data.slice(from as i64, ROW_GROUP)).map_err(io::Error::other)?;
            from += ROW_GROUP;
        }
        Ok(())
    }

    /// Completes the file; returns its size in bytes.
    pub(super) fn finish(self) -> io::Result<u64> {
        let bytes = self.0.finish().map_err(io::Error::other)?;
        // What was buffered is written when the writer goes, which tells no errors.
        drop(self.0);
        if self.1.metadata()?.len() == bytes {
            Ok(bytes)
        } else {
            Err(io::Error::other("could not be written to its end"))
        }
    }
}

fn writer<W: Write>(out: W, compression: ParquetCompression) -> ParquetWriter<W> {
    ParquetWriter::new(out).with_compression(compression).with_row_group_size(Some(ROW_GROUP))
}

/// Writes a data frame; returns the size of the file in bytes.
pub(super) fn write_frame(data: &mut DataFrame, path: &Path) -> io::Result<u64> {
    let mut file = BufWriter::new(File::create(path)?);
    writer(&mut file, ParquetCompression::Lz4Raw).finish(data).map_err(io::Error::other)?;
    file.flush()?;
    Ok(file.get_ref().metadata()?.len())
}

/// Reads a file, as other programs do.
#[cfg(test)]
pub(super) fn read(path: &Path) -> DataFrame {
    use polars_io::SerReader as _;

    polars_io::parquet::read::ParquetReader::new(File::open(path).unwrap()).set_rechunk(true).finish().unwrap()
}
