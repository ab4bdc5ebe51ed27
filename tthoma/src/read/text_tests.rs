//! Tests of reading text: every line is accounted for, whatever it holds.

use super::*;

pub(crate) fn parse(text: &[u8]) -> NodeTrace {
    crate::read::parse_text(Path::new("n.tt"), "n", Format::Plain, &mut &*text)
}

const GOOD: &str = "    0.000 us (+   0.000 us) [C00] First event has timestamp 8 (cpu_ghz 2.400000000000000)\n    \
                    0.500 us (+   0.500 us) [C05] homa_softirq starting\n    \
                    1.000 us (+   0.500 us) [C05] took 9 skbs\n";

fn adds_up(stats: &FileStats) {
    assert_eq!(stats.lines, stats.records + stats.unrecognised + stats.comments + stats.bad_lines(), "{stats:?}");
}

#[test]
fn a_good_trace_is_read_without_complaint() {
    let trace = parse(GOOD.as_bytes());
    adds_up(&trace.stats);
    assert_eq!(trace.span, Some((0, 1000)));
    assert_eq!((trace.stats.lines, trace.stats.records, trace.stats.unrecognised), (3, 2, 1));
    assert_eq!(trace.stats.problems(), [""; 0]);
    assert_eq!(trace.stats.shapes[0].text, "took N skbs");
    assert_eq!((trace.records[1].time, trace.records[1].core, trace.records[1].kind), (500, 5, Kind::SoftirqStart));
}

#[test]
fn line_ends_of_other_systems_change_nothing() {
    let (unix, dos) = (parse(GOOD.as_bytes()), parse(GOOD.replace('\n', "\r\n").as_bytes()));
    assert_eq!(dos.records, unix.records);
    assert_eq!(dos.stats.problems(), [""; 0]);
    assert_eq!(dos.stats.shapes[0].text, unix.stats.shapes[0].text);
}

#[test]
fn a_cut_last_line_is_not_used() {
    for cut in 1..50 {
        let text = &GOOD[..GOOD.len() - cut];
        let stats = parse(text.as_bytes()).stats;
        adds_up(&stats);
        if cut < 45 {
            assert_eq!(stats.bad[0].reason, BadLine::CutLastLine);
            assert_eq!(stats.bad[0].first[0].line, 3);
        }
    }
}

#[test]
fn an_empty_file_is_said_to_be_empty() {
    let trace = parse(b"");
    assert_eq!(trace.span, None);
    assert_eq!(trace.stats.problems(), ["n.tt: is empty"]);
}

#[test]
fn garbage_is_counted_and_located() {
    let mut text = GOOD.as_bytes().to_vec();
    text.extend(b"\x00\xff\x80garbage\n\n# a comment\nhello\n1.5 us (+ 0.5 us) [C70000] user thread\n");
    let stats = parse(&text).stats;
    adds_up(&stats);
    assert_eq!(stats.comments, 2);
    let found: Vec<(BadLine, u64)> = stats.bad.iter().map(|b| (b.reason, b.first[0].line)).collect();
    assert_eq!(found, [(BadLine::Binary, 4), (BadLine::NoTime, 7), (BadLine::CoreNotANumber, 8)]);
}

#[test]
fn a_line_without_end_is_skipped_and_the_next_is_read() {
    let mut text = vec![b'x'; 3 * BLOCK];
    text.extend(b"\n");
    text.extend(GOOD.as_bytes());
    let trace = parse(&text);
    adds_up(&trace.stats);
    assert_eq!(trace.stats.bad.len(), 1);
    assert_eq!((trace.stats.bad[0].reason, trace.stats.bad[0].count), (BadLine::TooLong, 1));
    assert_eq!(trace.stats.records, 2);
}

#[test]
fn time_that_goes_backwards_is_reported() {
    let text = "5.000 us (+ 0 us) [C00] homa_softirq starting\n\
                3.000 us (+ 0 us) [C00] homa_softirq starting\n\
                4.000 us (+ 0 us) [C00] homa_softirq starting\n\
                1.500 us (+ 0 us) [C00] homa_softirq starting\n";
    let trace = parse(text.as_bytes());
    let back = trace.stats.backwards;
    assert_eq!((back.count, back.first_line, back.largest_us), (2, 2, 2.5));
    assert_eq!(trace.records.len(), 4);
    assert!(trace.stats.problems()[0].starts_with("n.tt:2: time goes backwards (2 times, by 2.500 us at most)"));
}

#[test]
fn raw_traces_have_the_times_of_their_counter() {
    let text =
        "cpu_khz: 2400000\n8213442210111 [C05] homa_softirq starting\n8213442212400 [C07] homa_softirq starting\n";
    let trace = parse(text.as_bytes());
    adds_up(&trace.stats);
    assert_eq!(trace.records.iter().map(|r| (r.time, r.core)).collect::<Vec<_>>(), [(0, 5), (954, 7)]);
    assert_eq!((trace.stats.dialect, trace.stats.comments), (Dialect::Raw, 1));
    assert_eq!(trace.stats.problems(), [""; 0]);
}

#[test]
fn kernel_logs_are_read_from_their_end() {
    let text = "boot\n[1.0] cpu_khz: 1000000, start: 500\n[1.1] x 4500 [C05] homa_softirq starting\n\
                [1.1] x 2500 [C06] took 9 skbs\n[1.1] x 500 [C07] homa_timer found x\nother\n";
    let trace = parse(text.as_bytes());
    adds_up(&trace.stats);
    assert_eq!(trace.records.iter().map(|r| (r.time, r.core)).collect::<Vec<_>>(), [(0, 7), (4000, 5)]);
    assert_eq!((trace.span, trace.stats.unrecognised, trace.stats.comments), (Some((0, 4000)), 1, 3));
    assert_eq!(trace.stats.problems(), [""; 0]);
}

#[test]
fn threads_of_user_level_programs_are_cores_with_names() {
    let text = "0.000 us (+ 0.000 us) [C0]  First event has timestamp 5 (cpu_ghz 2.4)\n\
                1.000 us (+ 1.000 us) [R3.1] homa_softirq starting\n2.000 us (+ 1.000 us) [R4.1] homa_softirq starting\n\
                3.000 us (+ 1.000 us) [R3.1] homa_softirq starting\n";
    let trace = parse(text.as_bytes());
    let names: Vec<String> = trace.records.iter().map(|r| trace.core_name(r.core)).collect();
    assert_eq!(names, ["0", "R3.1", "R4.1", "R3.1"]);
    assert_eq!((trace.stats.headers, trace.stats.problems().len()), (1, 0));
}

#[test]
fn chunks_make_the_whole() {
    let text: String =
        (0..40).map(|i| format!("{i}.000 us (+ 1 us) [T{}] homa_softirq starting\n{i}.5 us x\n", i % 3)).collect();
    let text = text + "30.000 us (+ 1 us) [C00] what is it 7\n";
    let about = About {
        path: Path::new("n.tt"),
        node: "n",
        format: Format::Plain,
        head: Head::default(),
        user: Arc::default(),
    };
    let whole = read(&about, None, &mut text.as_bytes());
    adds_up(&whole.stats);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for cut in [1, 2, 7, 40, 79] {
        let parts = [lines[..cut].concat(), lines[cut..].concat()];
        let chunks = parts.iter().map(|part| chunk(&about, None, &mut part.as_bytes())).collect();
        let joined = finish(&about, chunks);
        assert_eq!(
            (&joined.records, &joined.threads, joined.span),
            (&whole.records, &whole.threads, whole.span),
            "{cut}"
        );
        assert_eq!(format!("{:?}", joined.stats), format!("{:?}", whole.stats), "{cut}");
    }
}

#[test]
fn events_of_the_user_join_the_others() {
    let user = UserEvents::parse("[[event]]\nname = 'reap'\npattern = 'took (?<a>\\d+) skbs'").unwrap();
    let text = GOOD.as_bytes();
    let trace = crate::read::parse_text_with(Path::new("n.tt"), "n", Format::Plain, &mut &*text, &Arc::new(user));
    adds_up(&trace.stats);
    assert_eq!((trace.records[2].kind, trace.records[2].a, trace.records[2].time), (Kind::User, 9, 1000));
    assert_eq!((trace.stats.user_events[0].event.as_ref(), trace.stats.user_events[0].count), ("reap", 1));
    assert_eq!(trace.stats.unrecognised, 0);
}

/// A reader that delivers `step` bytes a time, to cut blocks everywhere.
struct Dribble<'a>(&'a [u8], usize);

impl Read for Dribble<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.1.min(self.0.len()).min(buf.len());
        buf[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

#[test]
fn the_size_of_blocks_changes_nothing() {
    let text = GOOD.repeat(20);
    let whole = parse(text.as_bytes());
    for step in [1, 7, 64, 1000] {
        let about = About {
            path: Path::new("n.tt"),
            node: "n",
            format: Format::Plain,
            head: Head::default(),
            user: Arc::default(),
        };
        let trace = read(&about, None, &mut Dribble(text.as_bytes(), step));
        assert_eq!(trace.records, whole.records);
        assert_eq!(trace.stats.lines, whole.stats.lines);
    }
    assert_eq!(whole.stats.headers, 20);
    assert!(whole.stats.problems().last().unwrap().contains("20 lines `First event has timestamp`"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(text in proptest::collection::vec(proptest::num::u8::ANY, 0..2000)) {
        adds_up(&parse(&text).stats);
    }

    #[test]
    fn no_change_of_a_good_trace_makes_it_panic(
        changes in proptest::collection::vec((0..GOOD.len(), proptest::num::u8::ANY), 1..10),
        cut in 0..GOOD.len(),
    ) {
        let mut text = GOOD.as_bytes().to_vec();
        for (at, byte) in changes {
            text[at] = byte;
        }
        text.truncate(cut);
        adds_up(&parse(&text).stats);
    }
}
