//! Blocks of LZ4 (`lz4_Block_format.md` of lz4/lz4).

/// Adds the `length` bytes that `block` stands for to `out`; `None` if it is damaged.
pub(super) fn decompress(mut block: &[u8], out: &mut Vec<u8>, length: usize) -> Option<()> {
    // One byte stands for 255 at most.
    if length / 256 > block.len() {
        return None;
    }
    out.reserve(length);
    let end = out.len() + length;
    loop {
        let (token, rest) = block.split_first()?;
        block = rest;
        let literals = count(usize::from(token >> 4), &mut block)?;
        let text = block.get(..literals)?;
        if text.len() > end - out.len() {
            return None;
        }
        out.extend_from_slice(text);
        block = &block[literals..];
        if block.is_empty() {
            return (out.len() == end).then_some(());
        }
        let distance = usize::from(u16::from_le_bytes([*block.first()?, *block.get(1)?]));
        block = &block[2..];
        let matched = count(usize::from(token & 15), &mut block)? + 4;
        let start = out.len().checked_sub(distance).filter(|_| distance > 0)?;
        if matched > end - out.len() {
            return None;
        }
        if matched <= distance {
            out.extend_from_within(start..start + matched);
        } else {
            // What is copied is part of what it makes: it doubles with each step.
            let mut left = matched;
            while left > 0 {
                let some = left.min(out.len() - start);
                out.extend_from_within(start..start + some);
                left -= some;
            }
        }
    }
}

/// A length whose first part, of four bits, is `start`.
fn count(start: usize, block: &mut &[u8]) -> Option<usize> {
    let mut count = start;
    if start == 15 {
        loop {
            let (byte, rest) = block.split_first()?;
            *block = rest;
            count += usize::from(*byte);
            if *byte < 255 {
                break;
            }
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(block: &[u8], length: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decompress(block, &mut out, length).map(|()| out)
    }

    #[test]
    fn literals_and_matches_that_overlap() {
        // "ab", then 9 bytes from 2 back, then "!".
        let block = [0x25, b'a', b'b', 2, 0, 0x10, b'!'];
        assert_eq!(text(&block, 12).as_deref(), Some(&b"abababababa!"[..]));
        assert_eq!(text(&block, 11), None);
        assert_eq!(text(&block, 13), None);
        assert_eq!(text(&[0x25, b'a', b'b', 3, 0, 0x10, b'!'], 12), None);
        assert_eq!(text(&[0x25, b'a', b'b', 0, 0, 0x10, b'!'], 12), None);
        let mut long = vec![0xf0, 255, 30];
        long.extend([7; 300]);
        assert_eq!(text(&long, 300), Some(vec![7; 300]));
        for cut in 0..block.len() {
            assert_eq!(text(&block[..cut], 12), None);
        }
    }
}
