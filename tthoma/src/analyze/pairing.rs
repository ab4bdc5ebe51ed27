//! Which transmission of a packet is it that arrived?
//!
//! A packet that was sent once and arrived once is no question. If it was sent again, a pair is formed only if the trace
//! leaves no doubt; the receptions left over are counted, not guessed.

/// Pairs of (transmission, reception), as indexes of `sent` and `received`, both times in ns on one clock that may be
/// wrong by `error`. `again` tells that the first transmission in the trace is itself known to be a repetition.
pub(crate) fn pair(sent: &[i64], received: &[i64], again: bool, error: i64, out: &mut Vec<(usize, usize)>) {
    out.clear();
    let (Some(first), Some(_)) = (sent.first(), received.first()) else { return };
    let possible = |s: &i64, r: &i64| *r >= s.saturating_sub(error);
    if sent.len() == received.len() && !again {
        // As many arrivals as departures. A single negative delay is kept: it says something about the clocks.
        if sent.len() == 1 || sent.iter().zip(received).all(|(s, r)| possible(s, r)) {
            out.extend((0..sent.len()).map(|i| (i, i)));
        }
        return;
    }
    // What arrived before the second transmission is the first one. Another arrival then may be a copy made on the way.
    if again || sent.len() < 2 {
        return;
    }
    let early = received.iter().take_while(|r| !possible(&sent[1], r)).count();
    if early == 1 && possible(first, &received[0]) {
        out.push((0, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(sent: &[i64], received: &[i64], again: bool) -> Vec<(usize, usize)> {
        let mut out = vec![(9, 9)];
        pair(sent, received, again, 10, &mut out);
        out
    }

    #[test]
    fn only_certain_pairs_are_formed() {
        assert_eq!(pairs(&[0], &[50], false), [(0, 0)]);
        assert_eq!(pairs(&[100], &[50], false), [(0, 0)], "a negative delay is shown");
        assert_eq!(pairs(&[0, 100], &[50, 150], false), [(0, 0), (1, 1)]);
        assert_eq!(pairs(&[0, 100], &[50, 80], false), [], "the second arrived before it was sent");
        assert_eq!(pairs(&[0, 100], &[50], false), [(0, 0)]);
        assert_eq!(pairs(&[0, 100], &[95], false), [], "within the clock error of the second");
        assert_eq!(pairs(&[0, 100], &[150], false), [], "either of them");
        assert_eq!(pairs(&[0], &[50, 60], false), [], "a copy was made");
        assert_eq!(pairs(&[0], &[50], true), [], "the original may have arrived late");
        assert_eq!(pairs(&[], &[50], false), []);
        assert_eq!(pairs(&[0], &[], false), []);
    }
}
