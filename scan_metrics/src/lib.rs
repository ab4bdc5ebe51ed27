//! Metrics of the Homa transport: what changed on a node, and which node, core or run is odd among many.
//!
//! | layer | module | what it does |
//! | --- | --- | --- |
//! | files | [`read`] | counters of both generations of the kernel module, of this stack, and of printed files |
//! | many nodes | [`scan`] | what is odd: nine tests, false alarms controlled |
//! | one node | [`tool`] | what `metrics.py` and `diff_metrics` print |
//! | watching | [`prometheus`] | counters for Prometheus |
//! | results | [`out`] | table, JSON, CSV, a page with heat maps |
//! | commands | [`cli`] | `scan_metrics` on its own; `cperf metrics` and so on |
//!
//! Not here: collecting the files (`cperf`), counting (`homa-stack`), time traces (`tthoma`).

pub mod cli;
pub mod out;
pub mod prometheus;
pub mod read;
pub mod scan;
pub mod tool;
