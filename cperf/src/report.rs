//! From the files of a run to tables, JSON and plots. Nothing here knows on what testbed the files were made.

pub mod agreement;
pub(crate) mod bootstrap;
pub mod cdf;
pub mod data;
pub mod digest;
pub mod drops;
pub mod page;
pub mod plot;
pub mod results;
pub mod rtts;
pub mod slowdown;
pub mod statistics;
pub mod table;
