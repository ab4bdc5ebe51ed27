//! `copy`: how fast are bytes copied between applications and the kernel? Source: timetrace.md 5.3.
//!
//! A copy to the application is timed from its start, or from the end of the copy before it on the same core. Where
//! transmission is pipelined with copying, the time of a copy from the application includes that of the transmission.

use rustc_hash::FxHashMap;

use super::samples::{Samples, gbps, share};
use super::table::{Cell, Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Have, Kind, Kinds, Record};
use crate::model::Model;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Copy;

/// Largest short and smallest long copy, bytes.
const SHORT: u32 = 1000;
const LONG: u32 = 5000;

impl Analyzer for Copy {
    fn about(&self) -> &'static About {
        &About {
            name: "copy",
            question: "How fast are bytes copied between applications and the kernel, and buffers freed?",
            source: "timetrace.md 5.3",
            needs: Needs::Any(&[Kind::CopyInDone, Kind::CopyOutDone]),
            uses: &[Kind::CopyInStart, Kind::CopyOutStart, Kind::FreeSkbs],
            options: &[],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        self.about().kinds()
    }

    fn run(&self, model: &Model, _: &Options) -> Report {
        let mut tables = [
            copies("in", "From applications to the kernel:"),
            copies("out", "From the kernel to applications:"),
            frees(),
        ];
        for (node, first, last) in model.spans() {
            let trace = &model.traces[usize::from(node)];
            let mut copies = Copies::default();
            trace.records.iter().for_each(|r| copies.add(r));
            let elapsed = last - first;
            for (table, direction) in tables.iter_mut().zip([&copies.to_kernel, &copies.to_user]) {
                table.row(std::iter::once(model.name(node).into()).chain(direction.cells(elapsed)));
            }
            let Copies { freed, freeing, to_user, freeing_long, .. } = copies;
            let each = if freed > 0 { (freeing as f64 / freed as f64 / 1000.0).into() } else { Cell::None };
            let rate = if to_user.long_bytes > 0 {
                gbps(to_user.long_bytes as f64, to_user.long_time + freeing_long)
            } else {
                Cell::None
            };
            tables[2].row([model.name(node).into(), freed.into(), each, rate]);
        }
        Report::of(tables)
    }
}

fn copies(name: &str, title: &str) -> Table {
    let mut table = Table::new(name, title).column("Node", Unit::None, "").column(
        "#Short",
        Unit::None,
        "copies of at most 1000 bytes, and their times",
    );
    for title in ["Min", "P50", "P90", "P99", "Max", "Avg"] {
        table = table.column(title, Unit::Us, "");
    }
    table
        .column("#Long", Unit::None, "copies of at least 5000 bytes")
        .column("TputC", Unit::Gbps, "their rate while one core copies")
        .column("TputN", Unit::Gbps, "their rate over the trace")
        .column("Cores", Unit::None, "cores that copy (all copies), mean")
        .decimals(2)
}

fn frees() -> Table {
    Table::new("free", "Freeing receive buffers:")
        .column("Node", Unit::None, "")
        .column("#Freed", Unit::None, "")
        .column("Time", Unit::Us, "each")
        .decimals(2)
        .column("Tput", Unit::Gbps, "rate of long copies to applications, with the freeing of their buffers")
}

#[derive(Default)]
struct Direction {
    short: Vec<i64>,
    long: u64,
    long_bytes: u64,
    long_time: i64,
    all_time: i64,
}

impl Direction {
    fn add(&mut self, bytes: u32, time: i64) {
        self.all_time += time;
        if bytes <= SHORT {
            self.short.push(time);
        } else if bytes >= LONG {
            self.long += 1;
            self.long_bytes += u64::from(bytes);
            self.long_time += time;
        }
    }

    fn cells(&self, elapsed: i64) -> Vec<Cell> {
        let short: Samples = self.short.iter().copied().collect();
        let mut cells: Vec<Cell> = vec![short.len().into()];
        cells.extend([short.min(), short.p(50), short.p(90), short.p(99), short.max(), short.avg()]);
        cells.push(self.long.into());
        let rate = |time: i64| if self.long > 0 { gbps(self.long_bytes as f64, time) } else { Cell::None };
        cells.extend([rate(self.long_time), rate(elapsed), share(self.all_time as f64, elapsed as f64)]);
        cells
    }
}

/// Copies of one node.
#[derive(Default)]
struct Copies {
    to_kernel: Direction,
    to_user: Direction,
    freed: u64,
    freeing: i64,
    freeing_long: i64,
    /// Begin of each core's copy from and to an application.
    starts: FxHashMap<(u16, bool), i64>,
    /// End of each core's last copy to an application, and whether it was long.
    copied: FxHashMap<u16, (i64, bool)>,
}

impl Copies {
    fn add(&mut self, record: &Record) {
        let Record { time, core, .. } = *record;
        match record.kind {
            Kind::CopyInStart => drop(self.starts.insert((core, false), time)),
            Kind::CopyInDone => {
                if let Some(start) = self.starts.remove(&(core, false)) {
                    self.to_kernel.add(record.a, time - start);
                }
            }
            Kind::CopyOutStart => drop(self.starts.insert((core, true), time)),
            Kind::CopyOutDone => {
                // Of old traces, which say the bytes instead of the range.
                let bytes = if record.have.has(Have::B) { record.b } else { record.a.saturating_sub(record.offset) };
                if let Some(start) = self.starts.insert((core, true), time) {
                    self.to_user.add(bytes, time - start);
                }
                self.copied.insert(core, (time, bytes >= LONG));
            }
            Kind::FreeSkbs => {
                if let Some((end, long)) = self.copied.remove(&core) {
                    self.freed += u64::from(record.a);
                    self.freeing += time - end;
                    self.freeing_long += if long { time - end } else { 0 };
                    // What is copied next began after the freeing.
                    self.starts.insert((core, true), time);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::testing::Traffic;

    #[test]
    fn rates_are_bytes_by_time() {
        let mut traffic = Traffic::new(1);
        traffic.event(0, 0, 0.0, "homa_softirq starting").event(0, 0, 1000.0, "homa_softirq starting");
        for i in 0..10u32 {
            let at = 50.0 * f64::from(i);
            traffic.event(0, 3, at, "starting copy from user space for id 10, length 10000, unscheduled 10000");
            traffic.event(0, 3, at + 4.0, "finished copy from user space for id 10, length 10000");
            traffic.event(0, 4, at, "starting copy to user space for id 10");
            traffic.event(0, 4, at + 2.0, "copied out bytes 0-10000 for id 10");
            traffic.event(0, 4, at + 3.0, "copied out bytes 10000-10500 for id 10");
            traffic.event(0, 4, at + 7.0, "finished freeing 8 skbs for id 10");
        }
        let report = Copy.run(&traffic.model(), &Options::default());
        let number = |table: &str, key: &str| report.table(table).unwrap().get(0, key).number().unwrap();
        assert_eq!((number("in", "long"), number("in", "tput_c_gbps"), number("in", "tput_n_gbps")), (10.0, 20.0, 0.8));
        assert_eq!((number("out", "short"), number("out", "p50_us"), number("out", "tput_c_gbps")), (10.0, 1.0, 40.0));
        assert!((number("out", "cores") - 0.03).abs() < 1e-12, "3 us in 10 of 1000");
        assert_eq!((number("free", "freed"), number("free", "time_us")), (80.0, 0.5));
        assert_eq!(report.table("in").unwrap().get(0, "p50_us"), &Cell::None);
    }
}
