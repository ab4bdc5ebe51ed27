//! Time in steps of one length, for time series (timetrace.md 4.6).
//!
//! A step ends at a multiple of its length `L` on the common clock, so that steps of all nodes end together. What happens
//! at time t belongs to the step that ends at T if T - L < t <= T; what lasts from a to b is there at T if a < T <= b.

use super::samples::ns;
use crate::model::Model;

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

/// As many steps as a trace has events, but at least so many: 0.8 s in steps of 50 us.
const FEW: i64 = 1 << 14;
/// And at most so many.
const MANY: i64 = 1 << 20;
/// Numbers of all series together, where an analysis has one for each queue or core.
const NUMBERS: i64 = 1 << 22;

impl Steps {
    /// Steps of `us` that cover a node's trace, on the common clock. There are not many more of them than events: where a
    /// clock jumps, or hardly anything happens, they are longer, by a power of ten ([`Self::longer`] says so). `series` is
    /// how many numbers the caller keeps for each step.
    pub(super) fn new(model: &Model, node: u16, us: f64, series: usize) -> Option<Self> {
        Some(Self::of(model.span(node)?, us, Self::most(model, node, series)))
    }

    /// How many steps a node's trace is worth.
    pub(super) fn most(model: &Model, node: u16, series: usize) -> i64 {
        let events = model.traces.get(usize::from(node)).map_or(0, |t| t.stats.records);
        (events as i64).clamp(FEW, MANY).min(NUMBERS / (series as i64).max(1)).max(1)
    }

    /// Steps of `us` that cover `span`, ns; longer ones, if there would be more than `most`.
    pub(super) fn of(span: (i64, i64), us: f64, most: i64) -> Self {
        let mut length = ns(us).max(1);
        let lasts = span.1.saturating_sub(span.0);
        while lasts / length > most {
            length = length.saturating_mul(10);
        }
        let first = span.0.saturating_add(length - 1).div_euclid(length) * length;
        let last = span.1.saturating_add(length - 1).div_euclid(length) * length;
        Self { length, first, count: ((last - first) / length + 1).max(0) as usize }
    }

    /// Which nodes' time series have longer steps than asked for, a sentence each.
    pub(super) fn longer(model: &Model, us: f64) -> Vec<String> {
        let longer = |(node, first, last): (u16, i64, i64)| {
            let steps = Self::new(model, node, us, 1)?;
            (steps.length > ns(us).max(1)).then(|| {
                format!(
                    "{}: {} events in {:.1} s: its time series have steps of {} us; give --interval, or cut the trace",
                    model.name(node),
                    model.traces[usize::from(node)].stats.records,
                    last.saturating_sub(first) as f64 / 1e9,
                    steps.length as f64 / 1000.0
                )
            })
        };
        model.spans().filter_map(longer).collect()
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

/// A sum over what is there at the end of each step; the default one is not kept.
#[derive(Clone, Debug, Default)]
pub(super) struct State(Vec<f64>);

impl State {
    pub(super) fn new(steps: &Steps) -> Self {
        Self(vec![0.0; steps.count + 1])
    }

    /// Something lasts from `a` to `b`.
    pub(super) fn add(&mut self, steps: &Steps, a: i64, b: i64, amount: f64) {
        if let Some((from, to)) = steps.present(a, b)
            && !self.0.is_empty()
        {
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

/// Adds `amount` to the step of `time`; does nothing if there are no sums.
pub(super) fn flow(sums: &mut [f64], steps: &Steps, time: i64, amount: f64) {
    if let Some(sum) = steps.at(time).and_then(|k| sums.get_mut(k)) {
        *sum += amount;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Options;
    use crate::testing::traces;

    #[test]
    fn steps_end_at_multiples_and_cover_the_span() {
        let steps = Steps::of((-120_000, 101_000), 50.0, FEW);
        assert_eq!((steps.end(0), steps.end(steps.count - 1)), (-100_000, 150_000));
        assert_eq!(
            [-120_000, -100_000, -99_999, 101_000, 150_001].map(|t| steps.at(t)),
            [Some(0), Some(0), Some(1), Some(5), None]
        );
        assert_eq!(Steps::of((100_000, 100_000), 50.0, FEW).count, 1);
        let jumps = Steps::of((0, i64::MAX), 50.0, 1000);
        assert!(jumps.count <= 1002 && jumps.at(i64::MAX / 2).is_some(), "a clock that jumps: {jumps:?}");
    }

    #[test]
    fn few_events_in_a_long_time_make_few_steps_and_that_is_said() {
        let text = "0 homa_softirq starting\n9000000000000 homa_softirq starting";
        let model = Model::new(traces(&[("n1", text)]), &Options::default());
        let steps = Steps::new(&model, 0, 50.0, 1).unwrap();
        assert!(steps.count as i64 <= FEW + 2 && steps.end(steps.count - 1) >= 9_000_000_000_000_000);
        assert!(Steps::new(&model, 0, 50.0, 1 << 20).unwrap().count <= 6, "a million queues");
        let said = Steps::longer(&model, 50.0);
        assert!(said.len() == 1 && said[0].starts_with("n1: 2 events in 9000000.0 s: "), "{said:?}");
        let short =
            Model::new(traces(&[("n1", "0 homa_softirq starting\n700000 homa_softirq starting")]), &Options::default());
        assert_eq!((Steps::longer(&short, 50.0), Steps::new(&short, 0, 50.0, 1).unwrap().count), (vec![], 14_001));
    }

    #[test]
    fn what_lasts_is_there_at_the_ends_that_it_spans() {
        let steps = Steps::of((0, 250_000), 50.0, FEW);
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
