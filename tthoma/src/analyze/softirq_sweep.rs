//! The length of a queue over time: packets, bytes, age of the oldest packet; time-weighted statistics, episodes, series.

use std::collections::{BTreeMap, VecDeque};

use crate::stats::micros;

/// A stay in the queue; times in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stay {
    /// From when.
    pub(super) from: i64,
    /// Until when.
    pub(super) to: i64,
    /// Bytes.
    pub(super) bytes: u32,
    /// Any number by which the caller knows it.
    pub(super) tag: u32,
}

/// When an episode of backlog begins; it ends at half of that, or when the queue is empty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Limits {
    /// Age of the oldest packet, ns.
    pub(super) age: i64,
    /// Packets.
    pub(super) packets: Option<u64>,
    /// Bytes.
    pub(super) bytes: Option<u64>,
}

impl Limits {
    fn many(&self, packets: u64, bytes: u64) -> bool {
        self.packets.is_some_and(|most| packets >= most) || self.bytes.is_some_and(|most| bytes >= most)
    }

    fn over(&self, age: i64, packets: u64, bytes: u64) -> bool {
        packets == 0
            || (age < self.age / 2
                && self.packets.is_none_or(|most| 2 * packets < most)
                && self.bytes.is_none_or(|most| 2 * bytes < most))
    }
}

/// A time of backlog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Episode {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) max_packets: u64,
    pub(super) max_bytes: u64,
    pub(super) max_age: i64,
    /// Tags of packets that came.
    pub(super) came: Vec<u32>,
    /// Packets that left, and their bytes.
    pub(super) left: u64,
    pub(super) left_bytes: u64,
    /// It had begun before the trace, or goes on after it.
    pub(super) cut: (bool, bool),
}

/// A maximum, and when it was first reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Most<T> {
    pub(super) value: T,
    pub(super) at: i64,
}

impl<T: PartialOrd> Most<T> {
    fn see(&mut self, value: T, at: i64) {
        if value > self.value {
            *self = Self { value, at };
        }
    }
}

/// What a queue was over a window.
#[derive(Clone, Debug, Default)]
pub(super) struct Summary {
    /// The window, ns.
    pub(super) window: i64,
    /// Packets times ns, bytes times ns: exact.
    pub(super) packet_ns: i128,
    pub(super) byte_ns: i128,
    pub(super) max_packets: Most<u64>,
    pub(super) max_bytes: Most<u64>,
    pub(super) max_age: Most<i64>,
    /// Time with each number of packets.
    lengths: BTreeMap<u64, i64>,
    /// Ages that the oldest packet had, from and to; it grows by 1 ns a ns.
    ages: Vec<(i64, i64)>,
    pub(super) episodes: Vec<Episode>,
}

impl Summary {
    /// Smallest number of packets that the queue had at most for the share `q` of the time.
    pub(super) fn packets_at(&self, q: f64) -> u64 {
        let mut time = 0;
        for (packets, ns) in &self.lengths {
            time += ns;
            if time as f64 >= q * self.window as f64 {
                return *packets;
            }
        }
        self.lengths.keys().next_back().copied().unwrap_or(0)
    }

    /// Age that the oldest packet had at most for the share `q` of the time, ns; 0 while the queue was empty.
    pub(super) fn age_at(&self, q: f64) -> i64 {
        let aged: i64 = self.ages.iter().map(|(from, to)| to - from).sum();
        let mut needed = (q * self.window as f64).ceil() as i64 - (self.window - aged);
        if needed <= 0 {
            return 0;
        }
        // How many of the intervals hold each age: time spent there per ns of age.
        let mut edges: Vec<(i64, i64)> = self.ages.iter().flat_map(|(from, to)| [(*from, 1), (*to, -1)]).collect();
        edges.sort_unstable();
        let (mut depth, mut before) = (0, 0);
        for (age, step) in edges {
            let spent = depth * (age - before);
            if depth > 0 && spent >= needed {
                return before + needed.div_euclid(depth) + i64::from(needed % depth != 0);
            }
            needed -= spent;
            (depth, before) = (depth + step, age);
        }
        before
    }

    /// Share of the time with packets.
    pub(super) fn busy(&self) -> Option<f64> {
        let empty = self.lengths.get(&0).copied().unwrap_or(0);
        (self.window > 0).then(|| (self.window - empty) as f64 / self.window as f64)
    }

    /// Share of the time inside of episodes.
    pub(super) fn over(&self) -> Option<f64> {
        let time: i64 = self.episodes.iter().map(|e| e.end - e.start).sum();
        (self.window > 0).then(|| time as f64 / self.window as f64)
    }
}

/// State of a queue at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) age: i64,
}

/// The queue while time passes.
struct Queue<'a> {
    stays: &'a [Stay],
    /// Those inside in the order of their arrival; some of the later ones may have left.
    inside: VecDeque<u32>,
    gone: Vec<bool>,
    packets: u64,
    bytes: u64,
}

impl Queue<'_> {
    fn oldest(&self) -> Option<i64> {
        self.inside.front().map(|place| self.stays[*place as usize].from)
    }

    fn age(&self, at: i64) -> i64 {
        self.oldest().map_or(0, |from| at - from)
    }

    fn enter(&mut self, place: u32) {
        self.inside.push_back(place);
        self.packets += 1;
        self.bytes += u64::from(self.stays[place as usize].bytes);
    }

    fn leave(&mut self, place: u32) {
        self.gone[place as usize] = true;
        self.packets -= 1;
        self.bytes -= u64::from(self.stays[place as usize].bytes);
        while self.inside.front().is_some_and(|first| self.gone[*first as usize]) {
            self.inside.pop_front();
        }
    }
}

/// Begins and ends of stays in the order of time, ends first: (time, is a begin, stay).
fn steps(stays: &[Stay]) -> Vec<(i64, bool, u32)> {
    let mut steps: Vec<(i64, bool, u32)> = Vec::with_capacity(2 * stays.len());
    for (place, stay) in stays.iter().enumerate() {
        // What leaves at the moment when it comes was never there.
        if stay.to > stay.from {
            steps.push((stay.from, true, place as u32));
            steps.push((stay.to, false, place as u32));
        }
    }
    steps.sort_unstable();
    steps
}

/// Episodes closer than this are one, ns.
const MERGE: i64 = 10_000;

/// Follows a queue through the window from `first` to `last`, where all `stays` are.
pub(super) fn sweep(stays: &[Stay], (first, last): (i64, i64), limits: Limits) -> Summary {
    let mut queue = Queue { stays, inside: VecDeque::new(), gone: vec![false; stays.len()], packets: 0, bytes: 0 };
    let mut out = Summary { window: last - first, ..Summary::default() };
    let mut episode: Option<Episode> = None;
    let mut now = first;
    for (at, enters, place) in steps(stays) {
        pass(&mut out, &queue, &mut episode, (now, at), (first, limits));
        now = at;
        if enters {
            queue.enter(place);
            out.max_packets.see(queue.packets, at);
            out.max_bytes.see(queue.bytes, at);
            if episode.is_none() && limits.many(queue.packets, queue.bytes) {
                episode = Some(Episode { start: at, cut: (at == first, false), ..Episode::default() });
            }
            if let Some(e) = &mut episode {
                e.came.push(stays[place as usize].tag);
                e.max_packets = e.max_packets.max(queue.packets);
                e.max_bytes = e.max_bytes.max(queue.bytes);
            }
            continue;
        }
        let age = queue.age(at);
        out.max_age.see(age, at);
        queue.leave(place);
        if let Some(e) = &mut episode {
            e.max_age = e.max_age.max(age);
            e.left += 1;
            e.left_bytes += u64::from(stays[place as usize].bytes);
            if limits.over(queue.age(at), queue.packets, queue.bytes) {
                end(&mut out, episode.take(), at, at == last);
            }
        }
    }
    pass(&mut out, &queue, &mut episode, (now, last), (first, limits));
    end(&mut out, episode, last, true);
    out
}

/// Time passes from `from` to `to`, and nothing comes or goes.
fn pass(
    out: &mut Summary,
    queue: &Queue<'_>,
    episode: &mut Option<Episode>,
    (from, to): (i64, i64),
    (first, limits): (i64, Limits),
) {
    let ns = to - from;
    if ns <= 0 {
        return;
    }
    out.packet_ns += i128::from(queue.packets) * i128::from(ns);
    out.byte_ns += i128::from(queue.bytes) * i128::from(ns);
    *out.lengths.entry(queue.packets).or_default() += ns;
    let Some(oldest) = queue.oldest() else { return };
    out.ages.push((from - oldest, to - oldest));
    out.max_age.see(to - oldest, to);
    let begin = from.max(oldest + limits.age);
    if episode.is_none() && begin < to {
        *episode = Some(Episode {
            start: begin,
            max_packets: queue.packets,
            max_bytes: queue.bytes,
            cut: (begin == first, false),
            ..Episode::default()
        });
    }
    if let Some(e) = episode {
        e.max_age = e.max_age.max(to - oldest);
    }
}

fn end(out: &mut Summary, episode: Option<Episode>, at: i64, cut: bool) {
    let Some(mut episode) = episode else { return };
    (episode.end, episode.cut.1) = (at, cut);
    match out.episodes.last_mut() {
        Some(last) if episode.start - last.end < MERGE => {
            last.end = episode.end;
            last.max_packets = last.max_packets.max(episode.max_packets);
            last.max_bytes = last.max_bytes.max(episode.max_bytes);
            last.max_age = last.max_age.max(episode.max_age);
            last.came.append(&mut episode.came);
            last.left += episode.left;
            last.left_bytes += episode.left_bytes;
            last.cut.1 = episode.cut.1;
        }
        _ => out.episodes.push(episode),
    }
}

/// The queue at each of the times `step`, 2 * `step`, ... after `first`: packets and bytes then, largest age since the
/// time before.
pub(super) fn series(stays: &[Stay], (first, last): (i64, i64), step: i64) -> Vec<State> {
    let mut queue = Queue { stays, inside: VecDeque::new(), gone: vec![false; stays.len()], packets: 0, bytes: 0 };
    let (mut out, mut steps, mut max_age) = (Vec::new(), steps(stays).into_iter().peekable(), 0);
    let mut tick = first + step;
    while tick - step < last {
        while let Some((at, enters, place)) = steps.next_if(|(at, ..)| *at <= tick) {
            if enters {
                queue.enter(place);
            } else {
                max_age = max_age.max(queue.age(at));
                queue.leave(place);
            }
        }
        max_age = max_age.max(queue.age(tick.min(last)));
        out.push(State { packets: queue.packets, bytes: queue.bytes, age: max_age });
        (tick, max_age) = (tick + step, 0);
    }
    out
}

/// Time of a [`Most`] that was ever reached, in us.
pub(super) fn when<T: Default + PartialEq>(most: &Most<T>) -> Option<f64> {
    (most.value != T::default()).then(|| micros(most.at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AGE: Limits = Limits { age: 100, packets: None, bytes: None };

    fn stays(list: &[(i64, i64)]) -> Vec<Stay> {
        list.iter().enumerate().map(|(i, (from, to))| Stay { from: *from, to: *to, bytes: 10, tag: i as u32 }).collect()
    }

    #[test]
    fn lengths_and_ages_are_weighted_by_time() {
        // 0-10: 1 packet, 10-20: 2, 20-30: 1 (arrived at 10), 30-100: none.
        let s = sweep(&stays(&[(0, 20), (10, 30)]), (0, 100), AGE);
        assert_eq!((s.packet_ns, s.byte_ns), (40, 400));
        assert_eq!((s.max_packets, s.max_bytes), (Most { value: 2, at: 10 }, Most { value: 20, at: 10 }));
        assert_eq!((s.max_age, s.busy()), (Most { value: 20, at: 20 }, Some(0.3)));
        assert_eq!([0.7, 0.71, 0.9, 0.91].map(|q| s.packets_at(q)), [0, 1, 1, 2]);
        // Ages 0-20 once and 10-20 once more: 30 ns in all, after 70 at 0.
        assert_eq!([0.7, 0.75, 0.8, 0.9, 1.0].map(|q| s.age_at(q)), [0, 5, 10, 15, 20]);
        assert!(s.episodes.is_empty());
    }

    #[test]
    fn an_episode_begins_when_the_oldest_is_old_and_ends_at_half_of_that() {
        // The oldest is 100 old at 100; at 150 the next is 90 old, at 160 the next is 40 old.
        let s = sweep(&stays(&[(0, 150), (60, 160), (120, 170), (130, 180)]), (0, 200_000), AGE);
        let [episode] = &s.episodes[..] else { panic!("{:?}", s.episodes) };
        assert_eq!((episode.start, episode.end), (100, 160));
        assert_eq!((episode.max_packets, episode.max_age, episode.left), (4, 150, 2));
        assert_eq!((&episode.came[..], episode.cut), (&[2, 3][..], (false, false)));
    }

    #[test]
    fn near_episodes_are_one_and_the_traces_ends_are_said() {
        let s = sweep(&stays(&[(0, 500), (600, 900), (20_000, 20_500), (20_550, 20_600)]), (0, 20_600), AGE);
        let spans: Vec<(i64, i64, (bool, bool))> = s.episodes.iter().map(|e| (e.start, e.end, e.cut)).collect();
        assert_eq!(spans, [(100, 900, (false, false)), (20_100, 20_500, (false, false))]);
        let by_length = Limits { age: i64::MAX / 4, packets: Some(2), bytes: None };
        let s = sweep(&stays(&[(0, 50), (0, 60)]), (0, 60), by_length);
        assert_eq!((s.episodes[0].start, s.episodes[0].end, s.episodes[0].cut), (0, 60, (true, true)));
    }

    #[test]
    fn the_series_has_the_state_at_each_step() {
        let list = stays(&[(0, 20), (10, 30)]);
        let state = |packets, age| State { packets, bytes: packets * 10, age };
        assert_eq!(series(&list, (0, 50), 15), [state(2, 15), state(0, 20), state(0, 0), state(0, 0)]);
    }

    proptest! {
        /// Little's law: the mean length times the window is the sum of all stays.
        #[test]
        fn mean_length_times_window_is_the_sum_of_stays(list in prop::collection::vec((0i64..1000, 0i64..500), 0..60)) {
            let list: Vec<(i64, i64)> = list.into_iter().map(|(from, ns)| (from, from + ns)).collect();
            let s = sweep(&stays(&list), (0, 2000), AGE);
            let sum: i128 = list.iter().map(|(from, to)| i128::from(to - from)).sum();
            prop_assert_eq!(s.packet_ns, sum);
            prop_assert_eq!(s.lengths.values().sum::<i64>(), 2000);
            prop_assert!(s.age_at(1.0) == s.max_age.value && s.packets_at(1.0) == s.max_packets.value);
            for e in &s.episodes {
                prop_assert!(e.start < e.end && e.max_age >= 100, "{:?}", e);
            }
        }
    }
}
