//! Small numbers as Parquet stores them: runs of equal ones, and groups of eight that are packed by bits.

use super::thrift::varint;

/// Numbers of `width` bits.
#[derive(Clone)]
pub(super) struct Runs<'a> {
    bytes: &'a [u8],
    width: usize,
}

impl<'a> Runs<'a> {
    pub(super) fn new(bytes: &'a [u8], width: usize) -> Self {
        Self { bytes, width }
    }

    /// Calls `each` with every number and how many times it comes, until `count` numbers are there; `None` if there are fewer.
    #[inline]
    pub(super) fn each(mut self, count: usize, mut each: impl FnMut(u32, usize)) -> Option<()> {
        if self.width > 32 {
            return None;
        }
        let mut left = count;
        while left > 0 {
            let head = varint(&mut self.bytes)?;
            let length = usize::try_from(head >> 1).ok()?;
            if head & 1 == 0 {
                let size = self.width.div_ceil(8);
                let value = self.bytes.get(..size)?.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
                self.bytes = &self.bytes[size..];
                each(value, length.min(left));
                left -= length.min(left);
                // A run of nothing would go on for ever.
                (length > 0).then_some(())?;
                continue;
            }
            // Groups of eight numbers take as many bytes as each has bits; the last may be cut off.
            let size = length.checked_mul(self.width)?;
            let packed = &self.bytes[..size.min(self.bytes.len())];
            self.bytes = &self.bytes[packed.len()..];
            let numbers = left.min(length.checked_mul(8)?);
            if numbers == 0 || packed.len() * 8 < numbers * self.width {
                return None;
            }
            unpack(packed, self.width, numbers, &mut each);
            left -= numbers;
        }
        Some(())
    }

    /// How many of the first `count` numbers, of one bit, are 1.
    pub(super) fn count(self, count: usize) -> Option<usize> {
        let mut ones = 0;
        self.each(count, |value, times| ones += value as usize * times)?;
        Some(ones)
    }
}

#[inline]
fn unpack(packed: &[u8], width: usize, numbers: usize, each: &mut impl FnMut(u32, usize)) {
    let mask = ((1u64 << width) - 1) as u32;
    for number in 0..numbers {
        let bit = number * width;
        let at = bit / 8;
        let word = match packed.get(at..at + 8) {
            Some(eight) => {
                u64::from_le_bytes([eight[0], eight[1], eight[2], eight[3], eight[4], eight[5], eight[6], eight[7]])
            }
            None => packed[at.min(packed.len())..].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        each((word >> (bit % 8)) as u32 & mask, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], width: usize, count: usize) -> Option<Vec<u32>> {
        let mut out = Vec::new();
        Runs::new(bytes, width).each(count, |value, times| out.extend(std::iter::repeat_n(value, times)))?;
        Some(out)
    }

    /// The example of the format's description: 0 to 7 in three bits.
    #[test]
    fn runs_and_packed_numbers_follow_each_other() {
        let packed = [0b1000_1000, 0b1100_0110, 0b1111_1010];
        let mut bytes = vec![3];
        bytes.extend(packed);
        bytes.extend([6, 5]);
        assert_eq!(all(&bytes, 3, 11), Some(vec![0, 1, 2, 3, 4, 5, 6, 7, 5, 5, 5]));
        assert_eq!(all(&bytes, 3, 4), Some(vec![0, 1, 2, 3]));
        assert_eq!(all(&bytes, 3, 12), None);
        assert_eq!(all(&[8], 0, 4), Some(vec![0; 4]));
        assert_eq!(all(&[0, 1], 1, 1), None);
        assert_eq!(all(&[3, 0xff], 9, 8), None);
        assert_eq!(Runs::new(&[3, 0b101], 1).count(3), Some(2));
    }
}
