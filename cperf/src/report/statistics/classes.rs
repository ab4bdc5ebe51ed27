//! A class of messages, so that its figures are quickly known for any weights of nodes and slices of time.

use super::{Estimate, GROUPS, SLICES};
use crate::report::bootstrap;

/// Figures that resampling is done for: all but the largest.
pub(super) const WHOLE: usize = 6;
/// Percentiles among them, and their place.
const PERCENTILES: [(usize, usize, usize); 4] = [(1, 1, 2), (2, 9, 10), (3, 99, 100), (4, 999, 1000)];
/// Messages that must lie beyond a percentile for an interval, and in the worst 1 %.
const LEAST_BEYOND: usize = 10;
pub(super) const LEAST_WORST: usize = 5;

/// Cells: nodes by slices of time.
pub(super) const CELLS: usize = GROUPS * SLICES;

/// A length in bytes, a value, the cell that it is of.
pub(super) type Valued = (u32, f32, u8);

/// See the module.
pub(super) struct Class {
    /// Shortest and longest.
    pub(super) lengths: (u32, u32),
    /// All values, sorted.
    values: Vec<f32>,
    /// Values of about equal size, least first. Only intervals are made of them.
    bins: Vec<Bin>,
    /// Of each bin, how many are of which cell: only cells that have any, as most bins have few.
    cells: Vec<(u8, u32)>,
    sums: [f64; CELLS],
    counts: [u32; CELLS],
}

/// Values that differ by less than 0.8 %.
struct Bin {
    mean: f64,
    /// Where its cells begin and end.
    cells: (usize, usize),
}

/// Cuts messages, sorted by length, into up to `classes` classes of equally many.
pub(super) fn cut(sorted: &[Valued], classes: usize) -> Vec<Class> {
    let classes = classes.min(sorted.len());
    let from = |class: usize| class * sorted.len() / classes;
    (0..classes).map(|class| Class::new(&sorted[from(class)..from(class + 1)])).collect()
}

impl Class {
    /// Of messages sorted by length, at least one.
    pub(super) fn new(messages: &[Valued]) -> Self {
        let (mut sums, mut counts) = ([0.0; CELLS], [0; CELLS]);
        for (_, value, cell) in messages {
            sums[usize::from(*cell)] += f64::from(*value);
            counts[usize::from(*cell)] += 1;
        }
        let mut by_value: Vec<_> = messages.iter().map(|(_, value, cell)| (*value, *cell)).collect();
        by_value.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        // The upper 16 bits of a positive float: exponent and 7 bits of the fraction.
        let mut cells = Vec::new();
        let bins = by_value.chunk_by(|a, b| a.0.to_bits() >> 16 == b.0.to_bits() >> 16).map(|bin| {
            let mut counts = [0; CELLS];
            bin.iter().for_each(|(_, cell)| counts[usize::from(*cell)] += 1);
            let first = cells.len();
            cells.extend((0u8..).zip(counts).filter(|(_, count)| *count > 0));
            let mean = bin.iter().map(|(value, _)| f64::from(*value)).sum::<f64>() / bin.len() as f64;
            Bin { mean, cells: (first, cells.len()) }
        });
        let length = |message: Option<&Valued>| message.map_or(0, |(length, ..)| *length);
        Self {
            lengths: (length(messages.first()), length(messages.last())),
            bins: bins.collect(),
            cells,
            values: by_value.into_iter().map(|(value, _)| value).collect(),
            sums,
            counts,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.values.len()
    }

    /// How many are the worst 1 %.
    pub(super) fn worst_count(&self) -> usize {
        (self.count() / 100).max(1)
    }

    /// Their mean.
    pub(super) fn worst(&self) -> f64 {
        let worst = &self.values[self.count() - self.worst_count()..];
        worst.iter().map(|value| f64::from(*value)).sum::<f64>() / worst.len() as f64
    }

    /// Adds the figures that this class has if each cell is there so many times.
    pub(super) fn resample(&self, times: &[u32; CELLS], found: &mut [Vec<f64>; WHOLE]) {
        let count = weighted(&self.counts, times);
        if count == 0 {
            return;
        }
        let sum: f64 = self.sums.iter().zip(times).map(|(sum, times)| sum * f64::from(*times)).sum();
        found[0].push(sum / count as f64);
        let mut wanted = PERCENTILES.iter().map(|&(place, num, den)| (place, (count * num / den).min(count - 1)));
        let (mut next, mut seen) = (wanted.next(), 0);
        for bin in &self.bins {
            seen += self.weight(bin, times);
            while let Some((place, _)) = next.filter(|(_, index)| *index < seen) {
                found[place].push(bin.mean);
                next = wanted.next();
            }
        }
        found[5].extend(self.worst_of(times));
    }

    /// The mean of the worst 1 % then; `None` if there are no messages.
    pub(super) fn worst_of(&self, times: &[u32; CELLS]) -> Option<f64> {
        let count = weighted(&self.counts, times);
        let most = (count / 100).max(1);
        let (mut left, mut sum) = (most, 0.0);
        for bin in self.bins.iter().rev() {
            let here = self.weight(bin, times).min(left);
            sum += bin.mean * here as f64;
            left -= here;
            if left == 0 {
                break;
            }
        }
        (count > 0).then_some(sum / most as f64)
    }

    /// How many messages of a bin there are if each cell is there so many times.
    fn weight(&self, bin: &Bin, times: &[u32; CELLS]) -> usize {
        let cells = &self.cells[bin.cells.0..bin.cells.1];
        cells.iter().map(|(cell, count)| *count as usize * times[usize::from(*cell)] as usize).sum()
    }

    /// The figures, with their intervals from what was found in resamples.
    pub(super) fn estimates(&self, found: [Vec<f64>; WHOLE]) -> [Estimate; 7] {
        let count = self.count();
        let at = |num: usize, den: usize| f64::from(self.values[(count * num / den).min(count - 1)]);
        let mean = self.values.iter().map(|value| f64::from(*value)).sum::<f64>() / count as f64;
        let percentiles = PERCENTILES.map(|(_, num, den)| at(num, den));
        let beyond = PERCENTILES.map(|(_, num, den)| count - count * num / den >= LEAST_BEYOND);
        let values = [mean, percentiles[0], percentiles[1], percentiles[2], percentiles[3], self.worst(), at(1, 1)];
        let worst = self.worst_count() >= LEAST_WORST;
        let enough = [count >= LEAST_BEYOND, beyond[0], beyond[1], beyond[2], beyond[3], worst, false];
        let mut found = found.into_iter();
        std::array::from_fn(|place| {
            let found = found.next().filter(|_| enough[place]);
            let interval = found.and_then(|found| bootstrap::interval(found, super::RESAMPLES));
            Estimate { value: Some(values[place]), interval }
        })
    }
}

/// How many messages of a class there are then.
fn weighted(counts: &[u32; CELLS], times: &[u32; CELLS]) -> usize {
    counts.iter().zip(times).map(|(count, times)| u64::from(*count) * u64::from(*times)).sum::<u64>() as usize
}
