//! A link in one direction: rate and delay.

use crate::packet::LINK_OVERHEAD;
use crate::time::Time;

/// Rate and delay of a link. Times are exact to a picosecond a packet at rates that divide 8000 Gbit/s, as all
/// Ethernet rates do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Picoseconds a byte, in parts of 1024.
    parts_per_byte: u64,
    /// From the last bit out to the last bit in.
    pub(crate) delay: Time,
}

impl Link {
    /// `gbps` must be positive.
    pub(crate) fn new(gbps: f64, delay: Time) -> Self {
        Self { parts_per_byte: (8000.0 * 1024.0 / gbps).round().max(1.0) as u64, delay }
    }

    /// How long `bytes` bytes take, whatever they are.
    #[inline]
    pub(crate) fn time(self, bytes: u64) -> Time {
        Time::from_picos((bytes * self.parts_per_byte) >> 10)
    }

    /// How long a frame takes, with what is around it.
    #[inline]
    pub(crate) fn frame_time(self, frame: u32) -> Time {
        self.time(u64::from(frame + LINK_OVERHEAD))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_take_their_bytes_and_the_gap() {
        for (gbps, picos) in [(25.0, 1538 * 320), (10.0, 1538 * 800), (40.0, 1538 * 200), (100.0, 1538 * 80)] {
            let link = Link::new(gbps, Time::ZERO);
            assert_eq!(link.frame_time(1518), Time::from_picos(picos), "{gbps}");
        }
        assert_eq!(Link::new(0.1, Time::ZERO).time(1), Time::from_nanos(80));
    }
}
