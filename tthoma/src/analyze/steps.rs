//! Time in steps of one length, for time series (timetrace.md 4.6).
//!
//! A step ends at a multiple of its length `L` on the common clock, so that steps of all nodes end together. What happens
//! at time t belongs to the step that ends at T if T - L < t <= T; what lasts from a to b is there at T if a < T <= b.

use super::samples::ns;

/// Steps of a node's trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Steps {
    /// Length, ns.
    pub(super) length: i64,
    /// End of the first step, ns.
    first: i64,
    /// Number of steps.
    pub(super) count: usize,
}

/// More steps than that are not made: a clock that jumps must not fill the memory.
const MOST: i64 = 1 << 24;

impl Steps {
    /// Steps of `us` that cover `span`, ns; longer ones, if there would be too many.
    pub(super) fn of(span: (i64, i64), us: f64) -> Self {
        let mut length = ns(us).max(1);
        let lasts = span.1.saturating_sub(span.0);
        while lasts / length > MOST {
            length = length.saturating_mul(10);
        }
        let first = span.0.saturating_add(length - 1).div_euclid(length) * length;
        let last = span.1.saturating_add(length - 1).div_euclid(length) * length;
        Self { length, first, count: ((last - first) / length + 1).max(0) as usize }
    }

    /// End of step `k`, ns.
    pub(super) fn end(&self, k: usize) -> i64 {
        self.first + self.length * k as i64
    }

    /// The step that `time` belongs to.
    pub(super) fn at(&self, time: i64) -> Option<usize> {
        let k = (time - self.first + self.length - 1).div_euclid(self.length);
        usize::try_from(k).ok().filter(|k| *k < self.count)
    }

    /// First and last step at whose end something is there that lasts from `a` to `b`.
    fn present(&self, a: i64, b: i64) -> Option<(usize, usize)> {
        let from = (a.saturating_sub(self.first).div_euclid(self.length) + 1).max(0);
        let to = b.saturating_sub(self.first).div_euclid(self.length).min(self.count as i64 - 1);
        (from <= to).then_some((from as usize, to as usize))
    }
}

/// A sum over what is there at the end of each step.
#[derive(Clone, Debug)]
pub(super) struct State(Vec<f64>);

impl State {
    pub(super) fn new(steps: &Steps) -> Self {
        Self(vec![0.0; steps.count + 1])
    }

    /// Something lasts from `a` to `b`.
    pub(super) fn add(&mut self, steps: &Steps, a: i64, b: i64, amount: f64) {
        if let Some((from, to)) = steps.present(a, b) {
            self.0[from] += amount;
            self.0[to + 1] -= amount;
        }
    }

    /// The sums.
    pub(super) fn finish(self) -> Vec<f64> {
        let mut sum = 0.0;
        let mut out = self.0;
        out.pop();
        for value in &mut out {
            sum += *value;
            // What is added and taken away leaves no dust behind.
            *value = if sum.abs() < 1e-6 { 0.0 } else { sum };
        }
        out
    }
}

/// Adds `amount` to the step of `time`.
pub(super) fn flow(sums: &mut [f64], steps: &Steps, time: i64, amount: f64) {
    if let Some(k) = steps.at(time) {
        sums[k] += amount;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_end_at_multiples_and_cover_the_span() {
        let steps = Steps::of((-120_000, 101_000), 50.0);
        assert_eq!((steps.end(0), steps.end(steps.count - 1)), (-100_000, 150_000));
        assert_eq!(
            [-120_000, -100_000, -99_999, 101_000, 150_001].map(|t| steps.at(t)),
            [Some(0), Some(0), Some(1), Some(5), None]
        );
        assert_eq!(Steps::of((100_000, 100_000), 50.0).count, 1);
        assert!(Steps::of((0, i64::MAX), 50.0).count <= MOST as usize + 2, "a clock that jumps");
    }

    #[test]
    fn what_lasts_is_there_at_the_ends_that_it_spans() {
        let steps = Steps::of((0, 250_000), 50.0);
        let mut state = State::new(&steps);
        state.add(&steps, 50_000, 150_000, 2.0);
        state.add(&steps, i64::MIN, 0, 5.0);
        state.add(&steps, 210_000, i64::MAX, 3.0);
        state.add(&steps, 110_000, 120_000, 100.0);
        assert_eq!(state.finish(), [5.0, 0.0, 2.0, 2.0, 0.0, 3.0]);
        let mut sums = vec![0.0; steps.count];
        flow(&mut sums, &steps, 50_000, 1.0);
        flow(&mut sums, &steps, 50_001, 10.0);
        assert_eq!(sums, [0.0, 1.0, 10.0, 0.0, 0.0, 0.0]);
    }
}
