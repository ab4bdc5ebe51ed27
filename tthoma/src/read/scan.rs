//! Reads numbers and fixed texts at the front of a byte slice.

/// What is left of a line, eaten from the front.
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

    /// Eats everything up to the next space; at least one byte.
    #[inline]
    pub(crate) fn word(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|b| *b == b' ').unwrap_or(self.0.len());
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
