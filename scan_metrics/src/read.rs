//! From bytes to counters: one parser for all that writes metrics. Source: cperf.md 4.1.
//!
//! | text | written by | what it holds |
//! | --- | --- | --- |
//! | raw | both generations of the kernel module, this stack | counters since the start, core by core |
//! | raw, of an interval | `cperf` | what they grew by |
//! | printed | the originals' `metrics.py` | what grew, all cores together, and figures derived from it |
//!
//! Nothing is guessed: a line that is no counter, and a file that is none or not whole, is counted under a reason.

mod difference;
mod file;
mod line;
mod printed;
mod snapshot;

pub use difference::{difference, total};
pub use file::{FileError, load};
pub use line::{BadLine, Line, Problems, walk};
pub use printed::Printed;
pub use snapshot::{Clock, Core, Counter, Snapshot};

/// Names that describe the machine or the place in the file: they don't grow.
pub fn is_label(name: &str) -> bool {
    matches!(name, "core" | "cpu_khz")
}

/// Names of the clock's reading: V26 and this stack, V24.
pub fn is_clock(name: &str) -> bool {
    matches!(name, "time_cycles" | "rdtsc_cycles")
}
