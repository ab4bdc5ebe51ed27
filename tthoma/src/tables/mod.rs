//! A run as tables: columns with units, for Parquet files and whatever reads these.
//!
//! [`TABLES`] says what each table and column is. A [`Frame`] holds the rows of one table that belong to one node, as plain
//! vectors; [`Frame::all`] makes them of a model. With the feature `tables`, [`store`] writes them as Parquet and [`load`]
//! makes a model of these files again, of which every analysis says the same as of the text.

pub mod cache;
mod frames;
mod invocations;
pub mod load;
mod parquet;
#[cfg(feature = "tables")]
mod polars;
#[cfg(feature = "tables")]
pub mod results;
mod schema;
#[cfg(feature = "tables")]
mod spill;
pub mod store;
#[cfg(feature = "tables")]
pub mod stream;
#[cfg(feature = "tables")]
mod write;

pub use frames::{Frame, Values};
pub use schema::{ColumnAbout, TABLES, TableAbout, Type};
