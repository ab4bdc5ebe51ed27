//! Reads numbers and fixed texts at the front of a byte slice.
//!
//! Numbers are read eight digits at a time, without a step for each digit: how many there are is different from line to line,
//! and a loop that ends where the processor did not expect it costs as much as the rest.

/// What is left of a line, eaten from the front. Other lines may follow it: a number or a fixed text ends with the line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan<'a>(pub &'a [u8]);

impl<'a> Scan<'a> {
    /// Eats `text`.
    #[inline]
    pub(crate) fn lit(&mut self, text: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    /// Eats a decimal number; the result is modulo 2^32, so that `-1` is `u32::MAX` and of a 64-bit id the low half
    /// remains, which is what the kernel's trace keeps of it.
    #[inline]
    pub(crate) fn decimal(&mut self) -> Option<u32> {
        if let Some(sixteen) = self.0.first_chunk::<16>() {
            let (first, count) = digits(u64_of(sixteen, 0));
            if let 1..8 = count {
                self.0 = &self.0[count..];
                return Some(first);
            }
            // Ids have nine or ten.
            if count == 8 {
                let (second, more @ 0..8) = digits(u64_of(sixteen, 8)) else { return self.long_decimal() };
                self.0 = &self.0[8 + more..];
                return Some(first.wrapping_mul(POWERS[more]).wrapping_add(second));
            }
        }
        self.long_decimal()
    }

    /// Any decimal number, digit by digit.
    fn long_decimal(&mut self) -> Option<u32> {
        let (negative, digits) = match self.0 {
            [b'-', rest @ ..] => (true, rest),
            all => (false, all),
        };
        let mut value = 0u32;
        let mut used = 0;
        while let Some(digit) = digits.get(used).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
            value = value.wrapping_mul(10).wrapping_add(u32::from(digit));
            used += 1;
        }
        if used == 0 {
            return None;
        }
        self.0 = &digits[used..];
        Some(if negative { value.wrapping_neg() } else { value })
    }

    /// Eats a hexadecimal number with or without `0x`; the result is modulo 2^32.
    #[inline]
    pub(crate) fn hex(&mut self) -> Option<u32> {
        let digits = self.0.strip_prefix(b"0x").unwrap_or(self.0);
        if let Some(nine) = digits.first_chunk::<9>()
            && let (value, count @ 1..=8) = hex_digits(u64_of(nine, 0))
            && (count < 8 || HEX[usize::from(nine[8])] > 15)
        {
            self.0 = &digits[count..];
            return Some(value);
        }
        self.long_hex()
    }

    /// Any hexadecimal number, digit by digit.
    fn long_hex(&mut self) -> Option<u32> {
        let digits = self.0.strip_prefix(b"0x").unwrap_or(self.0);
        let mut value = 0u32;
        let mut used = 0;
        while let Some(digit) = digits.get(used).and_then(|b| HEX.get(usize::from(*b))).filter(|d| **d < 16) {
            value = value << 4 | u32::from(*digit);
            used += 1;
        }
        if used == 0 {
            return None;
        }
        self.0 = &digits[used..];
        Some(value)
    }

    /// Eats everything up to the next space or the line's end; at least one byte.
    #[inline]
    pub(crate) fn word(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|b| matches!(b, b' ' | b'\n')).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    /// Eats spaces, if any.
    #[inline]
    pub(crate) fn spaces(&mut self) {
        while let [b' ', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }
}

/// The same byte eight times.
pub(super) const fn eight_times(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The high bit of each byte that is no decimal digit, in bytes of which those that are have had `'0'` taken away.
#[inline]
pub(super) fn no_digits(less_zeros: u64) -> u64 {
    let high = eight_times(0x80);
    (((less_zeros & !high) + eight_times(0x80 - 10)) | less_zeros) & high
}

/// The number that eight digits make, of which the first is in the lowest byte.
#[inline]
pub(super) fn number(digits: u64) -> u32 {
    // Neighbours are added up: to pairs, then to all eight.
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let (even, odd) = (pairs & 0x0000_00ff_0000_00ff, pairs >> 16 & 0x0000_00ff_0000_00ff);
    let weights = (1_000_000 << 32 | 100, 10_000 << 32 | 1);
    (even.wrapping_mul(weights.0).wrapping_add(odd.wrapping_mul(weights.1)) >> 32) as u32
}

/// Eight of some bytes, from `at` on.
#[inline]
fn u64_of(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |eight| u64::from_le_bytes(*eight))
}

/// Powers of ten.
const POWERS: [u32; 8] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000];

/// The decimal digits at the front of eight bytes: their number, and how many they are.
#[inline]
fn digits(eight: u64) -> (u32, usize) {
    let less_zeros = eight ^ eight_times(b'0');
    let count = (no_digits(less_zeros).trailing_zeros() / 8) as usize;
    // As if zeros stood before them; twice, as no shift is by all 64 bits.
    (number(less_zeros << (4 * (8 - count)) << (4 * (8 - count))), count)
}

/// The number that the first `count` of eight bytes make, 1 to 8 of them; `None` if one of them is no digit.
#[inline]
pub(super) fn first_digits(eight: u64, count: usize) -> Option<u32> {
    let less_zeros = (eight ^ eight_times(b'0')) << (8 * (8 - count));
    (no_digits(less_zeros) == 0).then(|| number(less_zeros))
}

/// The high bit of each byte that is `byte`.
#[inline]
pub(super) fn equal(eight: u64, byte: u8) -> u64 {
    let (differs, low) = (eight ^ eight_times(byte), eight_times(0x7f));
    !(((differs & low) + low) | differs | low)
}

/// The place of the first of eight bytes that is `byte`.
#[inline]
pub(super) fn first_equal(eight: u64, byte: u8) -> Option<usize> {
    let found = equal(eight, byte);
    (found != 0).then(|| (found.trailing_zeros() / 8) as usize)
}

/// The hexadecimal digits at the front of eight bytes: their number, and how many they are.
#[inline]
fn hex_digits(text: u64) -> (u32, usize) {
    let high = eight_times(0x80);
    let decimal = !no_digits(text ^ eight_times(b'0')) & high;
    // Small letters without their place: 1 to 6.
    let letters = text & eight_times(0xdf) ^ eight_times(0x40);
    let from_one = (letters & !high) + eight_times(0x80 - 1);
    let to_six = (letters & !high) + eight_times(0x80 - 7);
    let letter = from_one & !to_six & !letters & high;
    let count = ((high & !(decimal | letter)).trailing_zeros() / 8) as usize;
    if count == 0 {
        return (0, 0);
    }
    let values = (text & eight_times(0x0f)) + (letter >> 7) * 9;
    // As if zeros stood before them; then neighbours are put together.
    let values = (values << (64 - 8 * count)).swap_bytes();
    let pairs = (values | values >> 4) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    ((fours | fours >> 16) as u32, count)
}

/// Value of each hexadecimal digit, 255 for other bytes.
const HEX: [u8; 256] = {
    let mut table = [255; 256];
    let mut i = 0;
    while i < 16 {
        table[b"0123456789abcdef"[i] as usize] = i as u8;
        table[b"0123456789ABCDEF"[i] as usize] = i as u8;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_modulo_two_to_the_32() {
        let cases: &[(&str, Option<u32>, &str)] = &[
            ("0", Some(0), ""),
            ("1234,", Some(1234), ","),
            ("-1 x", Some(u32::MAX), " x"),
            ("-2147483648", Some(1 << 31), ""),
            ("4294967296", Some(0), ""),
            ("8589934594x", Some(2), "x"),
            ("-", None, "-"),
            ("", None, ""),
            ("x1", None, "x1"),
            ("100-200", Some(100), "-200"),
        ];
        for (text, value, rest) in cases {
            let mut scan = Scan(text.as_bytes());
            assert_eq!(scan.decimal(), *value, "{text}");
            assert_eq!(scan.0, rest.as_bytes(), "{text}");
        }
    }

    /// Whatever follows, and however much of it.
    #[test]
    fn numbers_are_the_same_by_eights_and_one_by_one() {
        for after in ["", "\n", " x", ":9", "/", "g", "@`", "\u{7f}0", "\u{80}\u{ff}", "-1", "        ", "G1234567"] {
            for number in
                ["", "0", "7", "42", "007", "12345", "9999999", "12345678", "123456789", "4294967295", "-5", "-"]
            {
                let text = format!("{number}{after}");
                let (mut fast, mut slow) = (Scan(text.as_bytes()), Scan(text.as_bytes()));
                assert_eq!((fast.decimal(), fast.0), (slow.long_decimal(), slow.0), "{text:?}");
            }
            for number in ["", "0", "f", "A", "a4d0001", "0xa4d0001", "0xfFfFfFf", "0x12345678", "123456789ab", "0x"] {
                let text = format!("{number}{after}");
                let (mut fast, mut slow) = (Scan(text.as_bytes()), Scan(text.as_bytes()));
                assert_eq!((fast.hex(), fast.0), (slow.long_hex(), slow.0), "{text:?}");
            }
        }
    }

    #[test]
    fn hexadecimal_numbers_need_no_prefix() {
        for (text, value, rest) in [
            ("0xa4d0001:40", Some(0x0a4d_0001), ":40"),
            ("a000103", Some(0x0a00_0103), ""),
            ("0xABg", Some(0xab), "g"),
            ("0xffffffff12345678,", Some(0x1234_5678), ","),
            ("0x,", None, "0x,"),
        ] {
            let mut scan = Scan(text.as_bytes());
            assert_eq!(scan.hex(), value, "{text}");
            assert_eq!(scan.0, rest.as_bytes(), "{text}");
        }
    }
}
