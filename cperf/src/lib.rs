//! Runs benchmarks of Homa and TCP over many nodes: makes the nodes, loads them, measures, reports, removes everything.
//!
//! | layer | module | what it does |
//! | --- | --- | --- |
//! | command line | [`cli`] | subcommands, options, exit codes |
//! | a run | [`run`] | steps in order, time-outs, signals, what is kept after a failure |
//! | nodes | [`testbed`], [`node`] | where `cp-node` runs, and talking to it |
//! | machines | [`ssh`] | cluster file, host keys, agents on the machines |
//! | simulated nodes | [`sim`] | a measurement in virtual time, as data |
//! | experiments | [`experiment`] | many measurements: what varies, points, searches, engines |
//! | files | [`outdir`], [`manifest`] | the directory of a run and what is in it |
//! | comparison | [`compare`] | whether two sets of runs differ |
//! | reports | [`report`] | from files to tables, JSON and plots; knows no testbed |
//!
//! Data flow: options → [`testbed::Testbed`] → `cp-node` processes → `.rtts`, `.metrics`, `.tt`, logs in the run's
//! directory → [`report`] → standard output, `results.json`, `reports/`.
//!
//! Not here: load generation and transports (`cp-node`), analysis of traces (`tthoma`, of which a run prints one).

pub mod basic;
pub mod cli;
pub mod compare;
#[cfg(feature = "ssh")]
pub mod doctor;
pub mod error;
pub mod experiment;
pub mod journal;
pub mod manifest;
pub mod netlink;
pub mod node;
pub mod outdir;
pub mod policy;
pub mod rates;
pub mod report;
pub mod run;
#[cfg(feature = "ssh")]
pub mod setup;
pub mod signals;
pub mod sim;
#[cfg(feature = "ssh")]
pub mod ssh;
pub mod testbed;

pub mod sys;
