//! Options of `cperf compare`.

use std::path::PathBuf;

use clap::Args;

use super::Format;

/// Text below the options.
pub(super) const HELP: &str = "\
Examples:
  for n in 1 2 3 4 5 6 7 8 9 10; do cperf run w4 --seed $n --out before/$n; done
  for n in 1 2 3 4 5 6 7 8 9 10; do cperf run w4 --seed $n --homa window=20000 --out after/$n; done
  cperf compare before after

One run a side shows a change but not whether it is more than chance; 10 a side show 5 % where runs differ by 2 %.";

/// Options of `cperf compare`.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// Directory of a run, or one that holds directories of runs
    pub a: PathBuf,
    /// The same, of what is compared with it
    pub b: PathBuf,
    /// Compare runs of different workloads too
    #[arg(long)]
    pub anyway: bool,
    /// Form of the comparison on standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}
