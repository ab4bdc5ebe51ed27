//! Frames as polars' data frames, and these as Parquet files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use polars_core::prelude::{Column, DataFrame, PlSmallStr, PolarsError};
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use polars_io::parquet::write::{ParquetCompression, ParquetWriter};

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

/// Writes a frame; returns the size of the file in bytes.
pub(super) fn write(frame: &Frame, path: &Path) -> io::Result<u64> {
    write_frame(&mut data_frame(frame).map_err(io::Error::other)?, path)
}

/// Writes a data frame; returns the size of the file in bytes.
pub(super) fn write_frame(data: &mut DataFrame, path: &Path) -> io::Result<u64> {
    let mut file = BufWriter::new(File::create(path)?);
    let writer =
        ParquetWriter::new(&mut file).with_compression(ParquetCompression::Lz4Raw).with_row_group_size(Some(ROW_GROUP));
    writer.finish(data).map_err(io::Error::other)?;
    file.flush()?;
    Ok(file.get_ref().metadata()?.len())
}

/// Reads columns of a file.
pub(super) fn read(path: &Path, columns: &[&str]) -> io::Result<Table> {
    let columns = columns.iter().map(|c| (*c).to_string()).collect();
    let reader = ParquetReader::new(File::open(path)?).with_columns(Some(columns)).set_rechunk(true);
    reader.finish().map(Table).map_err(io::Error::other)
}

/// Columns that were read.
pub(super) struct Table(DataFrame);

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident, $maybe:ident, $get:ident: $type:ty;)*) => {
        $(
            $(#[$doc])*
            pub(super) fn $name(&self, column: &str, null: $type) -> io::Result<Vec<$type>> {
                let found = self.0.column(column).and_then(|c| c.$get()).map_err(io::Error::other)?;
                if let Ok(values) = found.cont_slice() {
                    return Ok(values.to_vec());
                }
                Ok(found.iter().map(|v| v.unwrap_or(null)).collect())
            }

            /// The same with nulls.
            #[allow(dead_code, reason = "made for every type")]
            pub(super) fn $maybe(&self, column: &str) -> io::Result<Vec<Option<$type>>> {
                let found = self.0.column(column).and_then(|c| c.$get()).map_err(io::Error::other)?;
                Ok(found.iter().collect())
            }
        )*
    };
}

impl Table {
    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.0.height()
    }

    numbers! {
        /// A column of times; what is null becomes `null`.
        i64s, maybe_i64s, i64: i64;
        /// A column of numbers; what is null becomes `null`.
        u32s, maybe_u32s, u32: u32;
        /// A column of numbers; what is null becomes `null`.
        u16s, maybe_u16s, u16: u16;
        /// A column of numbers; what is null becomes `null`.
        u8s, maybe_u8s, u8: u8;
    }

    /// A column of numbers with nulls.
    #[cfg(test)]
    pub(super) fn f64s(&self, column: &str) -> io::Result<Vec<Option<f64>>> {
        let found = self.0.column(column).and_then(|c| c.f64()).map_err(io::Error::other)?;
        Ok(found.iter().collect())
    }

    /// A column of flags; null is false.
    pub(super) fn bools(&self, column: &str) -> io::Result<Vec<bool>> {
        let found = self.0.column(column).and_then(|c| c.bool()).map_err(io::Error::other)?;
        Ok(found.iter().map(|v| v.unwrap_or(false)).collect())
    }

    /// A column of texts; null is empty.
    pub(super) fn texts(&self, column: &str) -> io::Result<Vec<String>> {
        let found = self.0.column(column).and_then(|c| c.str()).map_err(io::Error::other)?;
        Ok(found.iter().map(|v| v.unwrap_or("").to_string()).collect())
    }
}
