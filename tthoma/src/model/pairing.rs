//! Which transmission of a packet is it that arrived?
//!
//! A packet that was sent once and arrived once is no question. If it was sent again, a pair is formed only if the trace
//! leaves no doubt; the receptions left over are counted, not guessed.

/// What is known of the first transmission in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// There was none before.
    Certain,
    /// There may have been another before the trace's start.
    Probable,
    /// There was another before the trace's start.
    Repetition,
}

/// Pairs of (transmission, reception), as indexes of `sent` and `received`, both times in ns on one clock that may be
/// wrong by `error`. `first` tells what is known of the first transmission in the trace.
pub(crate) fn pair(sent: &[i64], received: &[i64], first: First, error: i64, out: &mut Vec<(usize, usize)>) {
    out.clear();
    let (Some(earliest), Some(_)) = (sent.first(), received.first()) else { return };
    let possible = |s: &i64, r: &i64| *r >= s.saturating_sub(error);
    if sent.len() == received.len() && first != First::Repetition {
        // As many arrivals as departures. A single negative delay is kept, as it says something about the clocks, unless
        // an earlier transmission may explain it.
        if sent.len() == 1 && first == First::Certain || sent.iter().zip(received).all(|(s, r)| possible(s, r)) {
            out.extend((0..sent.len()).map(|i| (i, i)));
        }
        return;
    }
    // What arrived before the second transmission is the first one. Another arrival then may be a copy made on the way.
    if first == First::Repetition || sent.len() < 2 {
        return;
    }
    let early = received.iter().take_while(|r| !possible(&sent[1], r)).count();
    if early == 1 && possible(earliest, &received[0]) {
        out.push((0, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(sent: &[i64], received: &[i64], first: First) -> Vec<(usize, usize)> {
        let mut out = vec![(9, 9)];
        pair(sent, received, first, 10, &mut out);
        out
    }

    #[test]
    fn only_certain_pairs_are_formed() {
        assert_eq!(pairs(&[0], &[50], First::Certain), [(0, 0)]);
        assert_eq!(pairs(&[100], &[50], First::Certain), [(0, 0)], "a negative delay is shown");
        assert_eq!(pairs(&[100], &[50], First::Probable), [], "an earlier transmission arrived");
        assert_eq!(pairs(&[100], &[95], First::Probable), [(0, 0)]);
        assert_eq!(pairs(&[0, 100], &[50, 150], First::Certain), [(0, 0), (1, 1)]);
        assert_eq!(pairs(&[0, 100], &[50, 80], First::Certain), [], "the second arrived before it was sent");
        assert_eq!(pairs(&[0, 100], &[50], First::Certain), [(0, 0)]);
        assert_eq!(pairs(&[0, 100], &[95], First::Certain), [], "within the clock error of the second");
        assert_eq!(pairs(&[0, 100], &[150], First::Certain), [], "either of them");
        assert_eq!(pairs(&[0], &[50, 60], First::Certain), [], "a copy was made");
        assert_eq!(pairs(&[0], &[50], First::Repetition), [], "the original may have arrived late");
        assert_eq!(pairs(&[], &[50], First::Certain), []);
        assert_eq!(pairs(&[0], &[], First::Certain), []);
    }
}
