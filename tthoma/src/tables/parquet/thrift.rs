//! The compact protocol of Thrift, as far as Parquet's structures need it.

/// Structures nest this deep at most; Parquet's five or six.
const DEPTH: u32 = 16;

/// Reads values one after the other; `None` means damage.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Type of the value that is next, as its field's or list's head says.
    next: u8,
    depth: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: STRUCT, depth: 0 }
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    /// The next bytes.
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(..count)?;
        self.bytes = &self.bytes[count..];
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        varint(&mut self.bytes)
    }

    /// An integer, enumerations included.
    pub(super) fn integer(&mut self) -> Option<i64> {
        if !(I16..=I64).contains(&self.next) {
            return None;
        }
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A text or bytes.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        if self.next != BINARY {
            return None;
        }
        let length = usize::try_from(self.varint()?).ok()?;
        self.take(length)
    }

    /// Calls `each` with the number of every field of a structure; it reads or skips the value.
    pub(super) fn fields(&mut self, mut each: impl FnMut(i64, &mut Self) -> Option<()>) -> Option<()> {
        if self.next != STRUCT || self.depth == DEPTH {
            return None;
        }
        self.depth += 1;
        let mut field = 0;
        loop {
            let head = self.byte()?;
            if head == 0 {
                break;
            }
            field = match head >> 4 {
                0 => {
                    self.next = I16;
                    self.integer()?
                }
                delta => field + i64::from(delta),
            };
            self.next = head & 15;
            each(field, self)?;
        }
        self.depth -= 1;
        // Structures may follow each other outside of all lists.
        self.next = STRUCT;
        Some(())
    }

    /// Calls `each` for every element of a list; it reads or skips the value.
    pub(super) fn list(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if self.next != LIST && self.next != SET {
            return None;
        }
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        // Each element takes a byte at least, but for empty structures, which there are none of.
        if count > self.bytes.len() as u64 {
            return None;
        }
        for _ in 0..count {
            self.next = head & 15;
            each(self)?;
        }
        Some(())
    }

    /// Passes over the next value.
    pub(super) fn skip(&mut self) -> Option<()> {
        match self.next {
            1 | 2 => {}
            BYTE => drop(self.byte()?),
            I16..=I64 => drop(self.varint()?),
            DOUBLE => drop(self.take(8)?),
            BINARY => drop(self.bytes()?),
            LIST | SET => {
                // Flags in lists take a byte each.
                return self.list(|reader| if reader.next <= 2 { reader.byte().map(drop) } else { reader.skip() });
            }
            STRUCT => return self.fields(|_, reader| reader.skip()),
            _ => return None,
        }
        Some(())
    }
}

/// A number of as many bytes as it needs, seven bits in each.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

const BYTE: u8 = 3;
const I16: u8 = 4;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const STRUCT: u8 = 12;
