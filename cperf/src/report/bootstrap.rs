//! Confidence intervals by resampling, for figures whose distribution nobody knows. The same numbers each time.

use cp_node::rng::Rng;

/// The random numbers of all resampling.
pub(crate) fn numbers() -> Rng {
    Rng::streams(0x5eed, None, 1).remove(0)
}

/// Draws one of `count` things as many times as there are things: how often each was drawn, into `times`.
pub(crate) fn draw(rng: &mut Rng, times: &mut [u32]) {
    times.fill(0);
    for _ in 0..times.len() {
        times[rng.below(times.len())] += 1;
    }
}

/// Ends of the 95 % interval of a figure, from its values in `resamples` resamples: the middle 95 % of them. `None` if the
/// figure was defined in less than half of them.
pub(crate) fn interval(mut found: Vec<f64>, resamples: usize) -> Option<(f64, f64)> {
    if found.is_empty() || found.len() * 2 < resamples {
        return None;
    }
    found.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| found[((found.len() - 1) as f64 * share).round() as usize];
    Some((at(0.025), at(0.975)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_the_middle_of_what_was_found() {
        let found: Vec<f64> = (0..=1000).rev().map(f64::from).collect();
        assert_eq!(interval(found.clone(), 1000), Some((25.0, 975.0)));
        assert_eq!(interval(found, 2003), None, "defined in less than half");
        assert_eq!(interval(Vec::new(), 0), None);
    }

    #[test]
    fn as_many_are_drawn_as_there_are() {
        let (mut rng, mut times) = (numbers(), [0; 20]);
        let mut never = 0;
        for _ in 0..1000 {
            draw(&mut rng, &mut times);
            assert_eq!(times.iter().sum::<u32>(), 20);
            never += times.iter().filter(|times| **times == 0).count();
        }
        // (1 - 1/20)^20 of all.
        assert!((never as f64 / 20_000.0 - 0.3585).abs() < 0.01, "{never}");
    }
}
