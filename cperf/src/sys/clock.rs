//! Local calendar time, for names of directories and for reports.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment in local calendar time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// Year, month 1..=12, day 1..=31.
    pub date: (i32, u32, u32),
    /// Hour, minute, second (60 in a leap second).
    pub time: (u32, u32, u32),
}

impl LocalTime {
    /// `YYYYmmdd-HHMMSS`: sorts by time, needs no quoting in a shell.
    pub fn stamp(&self) -> String {
        let ((year, month, day), (hour, minute, second)) = (self.date, self.time);
        format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
    }

    /// `YYYY-mm-dd HH:MM:SS`.
    pub fn text(&self) -> String {
        let ((year, month, day), (hour, minute, second)) = (self.date, self.time);
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

/// `at` in the time zone of this machine; the epoch for times that the C library cannot convert.
pub fn local_time(at: SystemTime) -> LocalTime {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = libc::time_t::try_from(seconds).unwrap_or(0);
    // SAFETY: `tm` consists of integers and a pointer, for all of which zero is valid.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live, properly aligned locals; localtime_r keeps neither.
    let _ = unsafe { libc::localtime_r(&raw const seconds, &raw mut tm) };
    let positive = |value: libc::c_int| u32::try_from(value).unwrap_or(0);
    LocalTime {
        date: (tm.tm_year + 1900, positive(tm.tm_mon) + 1, positive(tm.tm_mday)),
        time: (positive(tm.tm_hour), positive(tm.tm_min), positive(tm.tm_sec)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_padded_and_sort_by_time() {
        let early = LocalTime { date: (2026, 3, 4), time: (5, 6, 7) };
        let late = LocalTime { date: (2026, 11, 4), time: (5, 6, 7) };
        assert_eq!(early.stamp(), "20260304-050607");
        assert_eq!(early.text(), "2026-03-04 05:06:07");
        assert!(early.stamp() < late.stamp());
    }

    #[test]
    fn a_day_later_has_another_date() {
        let day = std::time::Duration::from_secs(86_400);
        let now = UNIX_EPOCH + day * 10_000;
        assert_ne!(local_time(now).date, local_time(now + day).date);
        assert_eq!(local_time(now).date.0, 1997);
    }
}
