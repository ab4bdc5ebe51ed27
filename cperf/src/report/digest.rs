//! Round-trip times of one protocol, by message length. Source: cperf.md 3.7, 3.8.

use std::collections::BTreeMap;

use super::rtts::Sample;

/// Times are kept in units of 10 ns, the resolution of the files, in four bytes each: up to 42.9 s.
const UNIT_NS: u64 = 10;
/// Short messages are at least this share of all messages, as far as they are short at all.
const SHORT_SHARE: f64 = 0.1;
/// A message of this length, bytes, or more is not short (unless there are no shorter ones).
const SHORT_BELOW: u32 = 1500;

/// Samples as they come in.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    buckets: BTreeMap<u32, Vec<u32>>,
}

impl Collector {
    /// Takes one sample. Times beyond 42.9 s count as that.
    pub fn add(&mut self, sample: Sample) {
        let time = u32::try_from(sample.rtt_ns / UNIT_NS).unwrap_or(u32::MAX);
        self.buckets.entry(sample.length).or_default().push(time);
    }

    /// Sorts.
    pub fn finish(self) -> Digest {
        let buckets = self.buckets.into_iter().map(|(length, mut times)| {
            times.sort_unstable();
            Bucket { length, times }
        });
        let buckets: Vec<_> = buckets.collect();
        Digest { samples: buckets.iter().map(Bucket::len).sum(), buckets }
    }
}

/// All messages of one length.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Message length, bytes.
    pub length: u32,
    /// Sorted, units of 10 ns; never empty.
    times: Vec<u32>,
}

impl Bucket {
    /// Number of samples.
    #[expect(clippy::len_without_is_empty, reason = "a bucket exists because it has a sample")]
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// The sample of index ⌊n·num/den⌋ in sorted order, ns.
    pub fn percentile_ns(&self, num: usize, den: usize) -> u64 {
        at(&self.times, num, den)
    }

    /// All times in order, ns.
    pub fn times_ns(&self) -> impl ExactSizeIterator<Item = u64> {
        self.times.iter().map(|&time| u64::from(time) * UNIT_NS)
    }
}

/// Sorted samples, by length.
#[derive(Clone, Debug, Default)]
pub struct Digest {
    /// In order of length.
    pub buckets: Vec<Bucket>,
    /// Number of all samples.
    pub samples: usize,
}

/// The shortest messages: whole lengths in increasing order until they are 10 % of all messages; a length of 1500
/// bytes or more only if there is nothing shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Short {
    /// Longest message among them, bytes.
    pub longest: u32,
    /// Sorted, units of 10 ns.
    times: Vec<u32>,
}

impl Short {
    /// Number of messages.
    pub fn count(&self) -> usize {
        self.times.len()
    }

    /// As [`Bucket::percentile_ns`].
    pub fn percentile_ns(&self, num: usize, den: usize) -> u64 {
        at(&self.times, num, den)
    }

    /// Sorted times, ns.
    pub fn times_ns(&self) -> impl ExactSizeIterator<Item = u64> {
        self.times.iter().map(|&time| u64::from(time) * UNIT_NS)
    }
}

/// A group of neighbouring lengths, about a tenth of all messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group<'a> {
    /// The lengths; never empty.
    pub buckets: &'a [Bucket],
    /// Share of all messages that are as long as the longest of these, or shorter.
    pub cum_fraction: f64,
}

impl PartialEq for Bucket {
    fn eq(&self, other: &Self) -> bool {
        self.length == other.length
    }
}

impl Digest {
    /// See [`Short`]; `None` if there are no samples.
    pub fn short(&self) -> Option<Short> {
        let mut times = Vec::new();
        let mut longest = None;
        for bucket in &self.buckets {
            let enough = times.len() as f64 >= SHORT_SHARE * self.samples as f64;
            if longest.is_some() && (enough || bucket.length >= SHORT_BELOW) {
                break;
            }
            times.extend_from_slice(&bucket.times);
            longest = Some(bucket.length);
        }
        times.sort_unstable();
        longest.map(|longest| Short { longest, times })
    }

    /// The messages in groups that end with the lengths `cuts` (ascending, see [`cuts`]); messages longer than the
    /// last cut join the last group, and empty groups are left out.
    pub fn groups(&self, cuts: &[u32]) -> Vec<Group<'_>> {
        let mut groups = Vec::new();
        let (mut start, mut seen) = (0, 0);
        for (index, cut) in cuts.iter().enumerate() {
            let last = index + 1 == cuts.len();
            let end =
                if last { self.buckets.len() } else { self.buckets.partition_point(|bucket| bucket.length <= *cut) };
            let buckets = &self.buckets[start..end];
            start = end;
            if buckets.is_empty() {
                continue;
            }
            seen += buckets.iter().map(Bucket::len).sum::<usize>();
            groups.push(Group { buckets, cum_fraction: seen as f64 / self.samples as f64 });
        }
        groups
    }
}

/// Lengths at which `parts` groups of about equally many messages end, the same for every protocol: for ten parts, the
/// lengths where 10 %, 20 % … of all messages of all `digests` are reached. A length that has more messages than a
/// group swallows the groups that it covers, so there may be fewer.
pub fn cuts(digests: &[&Digest], parts: usize) -> Vec<u32> {
    let mut counts = BTreeMap::<u32, usize>::new();
    for bucket in digests.iter().flat_map(|digest| &digest.buckets) {
        *counts.entry(bucket.length).or_default() += bucket.len();
    }
    let all: usize = counts.values().sum();
    let mut seen = 0;
    let mut cuts = Vec::new();
    for (length, count) in counts {
        let before = seen;
        seen += count;
        // Parts completed, in whole numbers: 0.3 x 10 in floating point is not 3.
        if seen * parts / all > before * parts / all {
            cuts.push(length);
        }
    }
    cuts
}

impl Group<'_> {
    /// Number of messages.
    pub fn count(&self) -> usize {
        self.buckets.iter().map(Bucket::len).sum()
    }

    /// Every round-trip time with its length, shortest length first: (bytes, ns).
    pub fn samples(&self) -> impl Iterator<Item = (u32, u64)> {
        self.buckets.iter().flat_map(|bucket| bucket.times_ns().map(|time| (bucket.length, time)))
    }
}

/// Index ⌊n·num/den⌋ of n sorted times, ns; with few samples that is the largest.
fn at(times: &[u32], num: usize, den: usize) -> u64 {
    let index = (times.len() * num / den).min(times.len() - 1);
    u64::from(times[index]) * UNIT_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(samples: &[(u32, u64)]) -> Digest {
        let mut collector = Collector::default();
        for &(length, rtt_ns) in samples {
            collector.add(Sample { length, rtt_ns });
        }
        collector.finish()
    }

    #[test]
    fn percentiles_are_the_sample_at_the_rounded_down_index() {
        let thousand: Vec<_> = (0..1000).rev().map(|i| (100, i * 1000)).collect();
        let bucket = &digest(&thousand).buckets[0];
        assert_eq!(bucket.percentile_ns(1, 2), 500_000);
        assert_eq!(bucket.percentile_ns(99, 100), 990_000);
        assert_eq!(bucket.percentile_ns(999, 1000), 999_000);
        // Below 100 samples the P99 is the maximum.
        let few: Vec<_> = (0..50).map(|i| (100, i * 1000)).collect();
        assert_eq!(digest(&few).buckets[0].percentile_ns(99, 100), 49_000);
        assert_eq!(digest(&[(100, 70)]).buckets[0].percentile_ns(1, 2), 70);
    }

    #[test]
    fn short_messages_are_whole_lengths_up_to_a_tenth() {
        let mut samples = vec![(10, 100); 6];
        samples.extend(vec![(20, 200); 7]);
        samples.extend(vec![(30, 300); 87]);
        let short = digest(&samples).short().unwrap();
        assert_eq!((short.longest, short.count()), (20, 13), "the length that crosses the mark is included whole");
    }

    #[test]
    fn a_tenth_reached_exactly_is_enough() {
        let mut samples = vec![(10, 100); 10];
        samples.extend(vec![(20, 200); 90]);
        assert_eq!(digest(&samples).short().unwrap().longest, 10);
    }

    #[test]
    fn long_messages_are_not_short_unless_nothing_is_shorter() {
        let mut samples = vec![(100, 100); 2];
        samples.extend(vec![(1500, 200); 98]);
        let short = digest(&samples).short().unwrap();
        assert_eq!((short.longest, short.count()), (100, 2));
        let long: Vec<_> = (0..10).map(|i| (5000 + i, 100)).collect();
        let short = digest(&long).short().unwrap();
        assert_eq!((short.longest, short.count()), (5000, 1));
        assert_eq!(digest(&[]).short(), None);
    }

    #[test]
    fn groups_cover_everything_once() {
        let even: Vec<_> = (0..100).map(|i| (i + 1, 100)).collect();
        let even = digest(&even);
        let groups = even.groups(&cuts(&[&even], 10));
        assert_eq!(groups.len(), 10);
        assert_eq!(groups.iter().map(Group::count).collect::<Vec<_>>(), [10; 10]);
        assert_eq!(groups[0].buckets.last().unwrap().length, 10);
        assert_eq!(groups[9].cum_fraction, 1.0);
    }

    #[test]
    fn a_frequent_length_swallows_groups() {
        let mut samples = vec![(8, 100); 35];
        samples.extend((0..65).map(|i| (100 + i, 100)));
        let digest = digest(&samples);
        let groups = digest.groups(&cuts(&[&digest], 10));
        assert_eq!(groups.iter().map(Group::count).sum::<usize>(), 100);
        assert_eq!(groups[0].count(), 35);
        assert_eq!(groups[1].buckets.last().unwrap().length, 104, "up to 40 %");
        assert_eq!(groups.len(), 8);
    }

    #[test]
    fn cuts_are_common_and_lengths_beyond_them_are_not_lost() {
        let (a, b) = (digest(&[(10, 1), (20, 1), (90, 1)]), digest(&[(20, 1), (30, 1)]));
        assert_eq!(cuts(&[&a, &b], 10), [10, 20, 30, 90]);
        let groups = b.groups(&[10, 20, 25]);
        assert_eq!(groups.iter().map(Group::count).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(groups[1].buckets[0].length, 30);
        assert!(cuts(&[], 10).is_empty() && b.groups(&[]).is_empty());
    }

    #[test]
    fn times_beyond_the_range_saturate() {
        assert_eq!(digest(&[(1, u64::MAX)]).buckets[0].percentile_ns(1, 2), u64::from(u32::MAX) * 10);
    }
}
