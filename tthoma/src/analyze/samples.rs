//! Samples of times on their way into cells of tables.

use super::table::{Cell, Table, Unit};
use crate::stats::{Distribution, average, micros, percentile};

/// Times in ns, ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<i64>);

impl FromIterator<i64> for Samples {
    fn from_iter<I: IntoIterator<Item = i64>>(samples: I) -> Self {
        let mut all: Vec<i64> = samples.into_iter().collect();
        all.sort_unstable();
        Self(all)
    }
}

impl Samples {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Percentile `q`, us.
    pub(super) fn p(&self, q: usize) -> Cell {
        percentile(&self.0, q).map(micros).into()
    }

    /// Smallest, us.
    pub(super) fn min(&self) -> Cell {
        self.0.first().map(|t| micros(*t)).into()
    }

    /// Largest, us.
    pub(super) fn max(&self) -> Cell {
        self.0.last().map(|t| micros(*t)).into()
    }

    /// Mean, us.
    pub(super) fn avg(&self) -> Cell {
        average(&self.0).into()
    }

    /// Fields for the columns of [`Table::distribution`].
    pub(super) fn cells(&self) -> [Cell; 8] {
        Distribution::cells(self.0.len() as u64, Distribution::of(&self.0))
    }
}

/// Adds columns of one unit: titles and meanings.
pub(super) fn columns(table: Table, unit: Unit, columns: &[(&'static str, &'static str)]) -> Table {
    columns.iter().fold(table, |table, (title, meaning)| table.column(*title, unit, *meaning))
}

/// `part` of `whole`; unknown if there is no whole.
pub(super) fn share(part: f64, whole: f64) -> Cell {
    if whole > 0.0 { (part / whole).into() } else { Cell::None }
}

/// 10^9 bits a second from bytes in ns; unknown if there is no time.
pub(super) fn gbps(bytes: f64, ns: i64) -> Cell {
    if ns > 0 { (bytes * 8.0 / ns as f64).into() } else { Cell::None }
}

/// Bytes as KB.
pub(super) fn kb(bytes: f64) -> f64 {
    bytes / 1000.0
}

/// Time in ns as a cell in us; unknown if unseen.
pub(super) fn us(time: Option<i64>) -> Cell {
    time.map(micros).into()
}

/// Microseconds of an option as ns.
pub(super) fn ns(us: f64) -> i64 {
    (us * 1000.0).round() as i64
}
