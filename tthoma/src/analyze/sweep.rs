//! A number that changes over time: its mean, maximum, and how long it has each value.

/// Steps of a number that begins at 0: (time in ns, change).
#[derive(Clone, Debug, Default)]
pub(super) struct Sweep(Vec<(i64, f64)>);

/// What a [`Sweep`] was like over a span.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Swept {
    /// Integral over time: number x ns.
    pub(super) integral: f64,
    /// Length of the span, ns.
    pub(super) span: i64,
    /// Largest value and when it was reached first, `None` if it was never above 0.
    pub(super) max: Option<(f64, i64)>,
    /// Time with the values 0, 1, 2, 3 (rounded), and above, ns.
    pub(super) time_at: [i64; 5],
}

impl Sweep {
    /// The number is higher by `amount` from `a` to `b`.
    pub(super) fn lasts(&mut self, a: i64, b: i64, amount: f64) {
        if a < b {
            self.0.push((a, amount));
            self.0.push((b, -amount));
        }
    }

    /// Adds what changes another number.
    pub(super) fn merge(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// First and last change.
    pub(super) fn span(&self) -> Option<(i64, i64)> {
        let times = || self.0.iter().map(|(at, _)| *at);
        Some((times().min()?, times().max()?))
    }

    /// Changes in time order; of equal times, those downwards first.
    pub(super) fn sorted(mut self) -> Vec<(i64, f64)> {
        self.0.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        self.0
    }

    /// Follows the number from `from` to `to`; changes outside have happened before or never do.
    pub(super) fn run(self, from: i64, to: i64) -> Swept {
        let mut out = Swept { integral: 0.0, span: (to - from).max(0), max: None, time_at: [0; 5] };
        let (mut value, mut at) = (0.0f64, from);
        let changes = self.sorted();
        let mut i = 0;
        while i < changes.len() {
            let time = changes[i].0.clamp(from, to.max(from));
            out.hold(value, time - at);
            at = time;
            while i < changes.len() && changes[i].0.clamp(from, to.max(from)) == time {
                value += changes[i].1;
                i += 1;
            }
            if value > 1e-6 && time < to && out.max.is_none_or(|(max, _)| value > max) {
                out.max = Some((value, time));
            }
        }
        out.hold(value, to - at);
        out
    }
}

impl Swept {
    fn hold(&mut self, value: f64, time: i64) {
        let time = time.max(0);
        self.integral += value * time as f64;
        self.time_at[(value.round().max(0.0) as usize).min(4)] += time;
    }

    /// Mean over the span, `None` if it is empty.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.span > 0).then(|| self.integral / self.span as f64)
    }

    /// Share of the span that the (rounded) value is `n`; 4: above 3.
    pub(super) fn share(&self, n: usize) -> Option<f64> {
        (self.span > 0).then(|| self.time_at[n] as f64 / self.span as f64)
    }

    /// Share of the span that the value is not 0.
    pub(super) fn any(&self) -> Option<f64> {
        self.share(0).map(|zero| 1.0 - zero)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_s_law_holds_exactly() {
        let mut sweep = Sweep::default();
        let stays = [(10, 40), (20, 90), (20, 25), (95, 100)];
        stays.iter().for_each(|(a, b)| sweep.lasts(*a, *b, 1.0));
        let swept = sweep.run(0, 100);
        assert_eq!(swept.integral, stays.iter().map(|(a, b)| b - a).sum::<i64>() as f64);
        assert_eq!(swept.max, Some((3.0, 20)));
        assert_eq!(swept.time_at, [15, 65, 15, 5, 0]);
        assert_eq!((swept.mean(), swept.any()), (Some(1.1), Some(0.85)));
    }

    #[test]
    fn what_is_outside_counts_as_before_or_never() {
        let mut sweep = Sweep::default();
        sweep.lasts(i64::MIN / 4, 30, 1.0);
        sweep.lasts(80, i64::MAX / 4, 2.0);
        sweep.lasts(200, 300, 50.0);
        let swept = sweep.run(10, 100);
        assert_eq!((swept.integral, swept.max), (60.0, Some((2.0, 80))));
        assert_eq!(Sweep::default().run(5, 5).mean(), None);
    }
}
