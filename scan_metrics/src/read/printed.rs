//! What the originals' `metrics.py` prints: growth over an interval, all cores together; counters that did not grow are
//! left out. Source: cperf.md 4.3.

use super::line::parse;
use super::{Clock, is_clock};

/// A printed file.
#[derive(Clone, Debug, PartialEq)]
pub struct Printed {
    /// Whose clock.
    pub clock: Clock,
    /// Length of the interval, clock ticks.
    pub ticks: u64,
    /// The same in seconds, as printed: with one decimal.
    pub seconds: f64,
    /// Counters that grew, in the order of the file; figures that metrics.py derives have a point and are left out.
    pub counters: Vec<(String, u64)>,
    /// Share of each core's time, row by row (`napi`, `send`, ... `Total`), cores in the order of their numbers.
    pub cores: Vec<(String, Vec<f64>)>,
}

impl Printed {
    /// Whether the text looks like one: its clock is followed by seconds in parentheses.
    pub fn is(text: &str) -> bool {
        text.lines().find(|line| !line.trim().is_empty()).is_some_and(|line| clock(line).is_some())
    }

    /// Reads it; `None` if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().skip_while(|line| line.trim().is_empty());
        let (clock, ticks, seconds) = clock(lines.next()?)?;
        let mut all = Self { clock, ticks, seconds, counters: Vec::new(), cores: Vec::new() };
        for line in lines.by_ref().take_while(|line| !line.trim().is_empty()) {
            // Added up by metrics.py from others.
            if let Ok(line) = parse(line).map(|line| (line.name, line.value)).and_then(|(name, value)| {
                if name == "received_msg_bytes" { Err(super::BadLine::Twice) } else { Ok((name, value)) }
            }) {
                all.counters.push((line.0.to_owned(), line.1));
            }
        }
        for line in lines.skip_while(|line| !line.starts_with("Per-Core")).skip(2) {
            if line.starts_with("Busiest") {
                break;
            }
            all.row(line);
        }
        Some(all)
    }

    /// A row of the table of cores; further blocks of cores have the same rows again.
    fn row(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { return };
        let Ok(values) = words.map(str::parse::<f64>).collect::<Result<Vec<_>, _>>() else { return };
        if values.is_empty() {
            return;
        }
        match self.cores.iter_mut().find(|(row, _)| row == name) {
            Some((_, row)) => row.extend(values),
            None => self.cores.push((name.to_owned(), values)),
        }
    }

    /// What `name` grew by; 0 if it is not printed.
    pub fn value(&self, name: &str) -> u64 {
        self.counters.iter().find(|(counter, _)| counter == name).map_or(0, |(_, value)| *value)
    }

    /// Rate of the clock, kHz, as exactly as the printed seconds give it.
    pub fn khz(&self) -> f64 {
        self.ticks as f64 / self.seconds.max(0.05) / 1000.0
    }
}

/// The clock's line: `time_cycles TICKS (SECONDS s) ...`.
fn clock(line: &str) -> Option<(Clock, u64, f64)> {
    let line = parse(line).ok().filter(|line| is_clock(line.name))?;
    let seconds = line.text.strip_prefix('(')?.split_once(" s)")?.0.trim().parse().ok()?;
    let clock = if line.name == "rdtsc_cycles" { Clock::V24 } else { Clock::V26 };
    Some((clock, line.value, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shaped as the tool prints, with figures of our own.
    const TEXT: &str = "\
time_cycles                         4000000000 (2.0 s)      clock\n\
received_msg_bytes                      600000 (300.0 K/s)  Total bytes in all incoming messages\n\
packets_sent_DATA                          400 (200.0  /s)  DATA packets sent\n\
poll_cycles                          400000000 (10.0%)      Time spent polling\n\
avg_dead_skbs                              1.6              Avg.\n\
\n\
Per-Core CPU Usage:\n-------------------\n               Core0   Core1 \n\
napi            0.00    0.25\nTotal           0.50    0.75\n\n               Core2 \nnapi            0.10\nTotal           0.20\n\n\
Busiest core: 1 (0.75)\n\nCanaries (possible problem indicators):\n---\nresent_packets 9 (4.5 /s) again\n";

    #[test]
    fn counters_and_cores_of_a_printed_file_are_read() {
        assert!(Printed::is(TEXT));
        let all = Printed::parse(TEXT).unwrap();
        assert_eq!((all.ticks, all.seconds, all.khz()), (4_000_000_000, 2.0, 2_000_000.0));
        let want = [("packets_sent_DATA".to_owned(), 400), ("poll_cycles".to_owned(), 400_000_000)];
        assert_eq!(all.counters, want, "sums and quotients of the tool, and what follows the table, are no counters");
        assert_eq!((all.value("packets_sent_DATA"), all.value("resent_packets")), (400, 0));
        let row = |name: &str| all.cores.iter().find(|(row, _)| row == name).unwrap().1.clone();
        assert_eq!((row("napi"), row("Total")), (vec![0.0, 0.25, 0.1], vec![0.5, 0.75, 0.2]));
    }

    #[test]
    fn raw_files_are_not_taken_for_printed_ones() {
        assert!(!Printed::is("time_cycles 5 homa_clock() time\ncpu_khz 7 rate\n"));
        assert_eq!(Printed::parse("nothing"), None);
    }
}
