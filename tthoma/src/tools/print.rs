//! The raw form of a trace, from `/proc/timetrace` or in a kernel log, as `.tt`.

use std::io::{self, Write};

use super::write_line;
use crate::read::Dialect;
use crate::read::dialect::{Core, Head};

/// What [`print()`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    /// Records printed.
    pub records: u64,
    /// Lines that are no records: of a kernel's log, or garbage.
    pub others: u64,
}

/// Prints a raw trace as `.tt`; lines that are no records go to `others`, if there is one.
///
/// # Errors
///
/// If `text` has no line `cpu_khz: N` ([`io::ErrorKind::InvalidData`]), or writing fails.
pub fn print(text: &[u8], out: &mut dyn Write, mut others: Option<&mut dyn Write>) -> io::Result<Printed> {
    let head = Head::of(text);
    let Some(counter) = head.counter.filter(|_| head.dialect != Dialect::Tt) else {
        let what = "no line `cpu_khz: N` before the trace: expected the text of /proc/timetrace or a kernel log";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    };
    let mut printed = Printed::default();
    let mut records = Vec::new();
    let mut begun = head.dialect == Dialect::Raw;
    for line in text.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let clock = memchr::memmem::find(line, b"cpu_khz: ").is_some();
        begun |= clock;
        match head.parse(line) {
            Ok((time, Core::Number(core), message)) if begun && !clock => records.push((time, core, message)),
            _ if clock || line.is_empty() => {}
            _ => {
                printed.others += 1;
                if let Some(others) = &mut others {
                    others.write_all(line)?;
                    others.write_all(b"\n")?;
                }
            }
        }
    }
    // The log of a crash has the newest first.
    if head.dialect == Dialect::Syslog && records.first().zip(records.last()).is_some_and(|(x, y)| x.0 > y.0) {
        records.reverse();
    }
    let base = records.first().map_or(0, |r| r.0);
    let first = format!("[C00] First event has timestamp {} (cpu_ghz {:.15})", counter.at(base), counter.ghz);
    write_line(out, 0, 0, first.as_bytes())?;
    let mut last = base;
    for (time, core, message) in records {
        let mut rest = format!("[C{core:02}] ").into_bytes();
        rest.extend(message);
        write_line(out, time - base, time - last, &rest)?;
        last = time;
        printed.records += 1;
    }
    Ok(printed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> (String, Printed, String) {
        let (mut out, mut others) = (Vec::new(), Vec::new());
        let printed = print(text.as_bytes(), &mut out, Some(&mut others)).unwrap();
        (String::from_utf8(out).unwrap(), printed, String::from_utf8(others).unwrap())
    }

    const EXPECTED: &str =
        "    0.000 us (+   0.000 us) [C00] First event has timestamp 8213442210111 (cpu_ghz 2.400000000000000)
    0.000 us (+   0.000 us) [C05] a
    0.954 us (+   0.954 us) [C105] b
";

    #[test]
    fn raw_text_gets_microseconds() {
        let (out, printed, _) = run("cpu_khz: 2400000\n8213442210111 [C05] a\n8213442212400 [C105] b\n");
        assert_eq!((out.as_str(), printed), (EXPECTED, Printed { records: 2, others: 0 }));
    }

    #[test]
    fn a_log_is_turned_round_and_the_rest_of_it_kept() {
        let text = "boot 5 [C01] early\nx cpu_khz: 2400000\nx 8213442212400 [C105] b\r\nusb\nx 8213442210111 [C05] a\n";
        let (out, printed, others) = run(text);
        assert_eq!((out.as_str(), printed.records), (EXPECTED, 2));
        assert_eq!(others, "boot 5 [C01] early\nusb\n");
    }

    #[test]
    fn what_is_no_raw_trace_is_an_error() {
        let error = print(b"hello", &mut Vec::new(), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
