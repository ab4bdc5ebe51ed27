//! Analyses time traces of the Homa transport: what happened to which packet and RPC, when, and how long each step took.
//!
//! A time trace is a text file of one node, `NAME.tt`, with a line for each event:
//!
//! ```text
//!     0.954 us (+   0.954 us) [C05] homa_gro_receive got packet from 0xa000103 id 1001, offset 0, priority 5
//! ```
//!
//! The Homa Linux kernel module writes such traces, patched kernels add events of NIC drivers and TCP, and the `homa-stack`
//! crate writes them in the same words. Traces of all nodes of a run are read together.
//!
//! # How data flow
//!
//! | step | module | result |
//! | --- | --- | --- |
//! | files to records | [`read`], [`vocabulary`] | a [`Record`](event::Record) of 40 bytes for each known line, and an account of all others |
//! | whose RPC is it | [`hosts`] | addresses of nodes; the client of each record's RPC |
//! | records to packets | [`packets`] | each transmission and each reception of every packet |
//! | one time base | [`clock`] | an offset for each node, and how wrong it can be |
//! | a run | [`model`] | all of this together, and what is derived of it |
//! | answers | [`analyze`] | tables with units: for people, JSON, CSV, data files |
//!
//! ```no_run
//! use tthoma::analyze::{self, Options};
//!
//! let run = analyze::run(&["delay"], &["run/traces".into()], &Options::default())?;
//! println!("{}", run.to_text());
//! # Ok::<(), tthoma::read::ReadError>(())
//! ```
//!
//! # What to know
//!
//! * Only the low 32 bits of RPC ids are in traces, and two clients can use the same id. Packets are kept apart by client;
//!   where a line does not say which client, it is left out and counted.
//! * Damaged and foreign lines never stop an analysis; they are counted and located.
//! * Clocks are synchronised by the smallest one-way delays, for each analysis anew; nothing is written to traces. Drift
//!   within a trace is not estimated: 10 ppm are 1 us in 100 ms.
//!
//! How the figures differ from those of the original programs is in `docs/tthoma-differences.md`.

pub mod analyze;
pub mod clock;
pub mod document;
pub mod event;
pub mod export;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod hosts;
mod incarnations;
pub mod model;
mod out;
pub mod packets;
pub mod read;
pub mod record;
pub mod stats;
pub mod tables;
pub mod testing;
pub mod tools;
pub mod vocabulary;
