//! Where the fields of a trace event lie, by the kernel's own `format` files: they differ from kernel to kernel.

use std::fmt;

/// A field of an event: where it lies in the entry of the ring buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    name: String,
    offset: usize,
    size: usize,
    signed: bool,
    /// `__data_loc`: 4 bytes say where the data lie, the low half the offset, the high half the length.
    elsewhere: bool,
}

/// An event's number and fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventFormat {
    /// Number that entries of this event begin with.
    pub(crate) id: u16,
    fields: Vec<Field>,
}

/// Why a `format` file can't be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FormatError {
    /// A line that must be there is not.
    #[error("expected a line `{0}`")]
    Missing(&'static str),
    /// A field that is needed is not there.
    #[error("no field `{0}`")]
    NoField(&'static str),
    /// A line has another shape.
    #[error("expected `field:TYPE NAME; offset:N; size:N; signed:N;`, found `{0}`")]
    Line(String),
}

impl EventFormat {
    /// Reads a `format` file.
    pub(crate) fn parse(text: &str) -> Result<Self, FormatError> {
        let id = text.lines().find_map(|line| line.strip_prefix("ID:")?.trim().parse().ok());
        Ok(Self { id: id.ok_or(FormatError::Missing("ID: N"))?, fields: fields(text)? })
    }

    /// All fields.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The field of that name.
    pub(crate) fn field(&self, name: &'static str) -> Result<Field, FormatError> {
        self.fields.iter().find(|f| f.name == name).cloned().ok_or(FormatError::NoField(name))
    }
}

/// The lines `field:TYPE NAME; offset:N; size:N; signed:N;` of a file.
fn fields(text: &str) -> Result<Vec<Field>, FormatError> {
    text.lines().map(str::trim).filter(|l| l.starts_with("field:")).map(field).collect()
}

fn field(line: &str) -> Result<Field, FormatError> {
    let bad = || FormatError::Line(line.to_string());
    let mut parts = line.split(';').map(str::trim);
    let declared = parts.next().and_then(|p| p.strip_prefix("field:")).ok_or_else(bad)?.trim();
    let mut number = |key: &str| -> Option<usize> {
        let part = parts.next()?;
        part.strip_prefix(key)?.trim().parse().ok()
    };
    let (offset, size) = (number("offset:").ok_or_else(bad)?, number("size:").ok_or_else(bad)?);
    // Older kernels say nothing about the sign of some.
    let signed = number("signed:").unwrap_or(0) != 0;
    let name = declared.rsplit(' ').next().unwrap_or_default();
    let name = name.split('[').next().unwrap_or_default().to_string();
    Ok(Field { name, offset, size, signed, elsewhere: declared.starts_with("__data_loc") })
}

impl Field {
    /// The number in this field of `entry`; `None` if the entry is too short.
    #[inline]
    pub(crate) fn number(&self, entry: &[u8]) -> Option<i64> {
        let bytes = entry.get(self.offset..self.offset.checked_add(self.size)?)?;
        let mut word = [0; 8];
        word.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let value = u64::from_le_bytes(word);
        let spare = 64 - 8 * u32::try_from(self.size.min(8)).ok()?;
        Some(if spare == 64 {
            0
        } else if self.signed {
            ((value << spare) as i64) >> spare
        } else {
            value as i64
        })
    }

    /// The text in this field of `entry`, up to its end or a zero.
    #[inline]
    pub(crate) fn text<'a>(&self, entry: &'a [u8]) -> Option<&'a [u8]> {
        let (offset, size) = if self.elsewhere {
            let place = self.number(entry)? as u32;
            ((place & 0xffff) as usize, (place >> 16) as usize)
        } else {
            (self.offset, self.size)
        };
        let bytes = entry.get(offset..offset.checked_add(size)?)?;
        Some(bytes.split(|b| *b == 0).next().unwrap_or_default())
    }
}

/// How the pages of the ring buffer begin, from `events/header_page`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageFormat {
    /// Bytes of the word that holds the length of the data and flags.
    pub(crate) commit_bytes: usize,
    /// Where that word is.
    pub(crate) commit: usize,
    /// Where the data begin.
    pub(crate) data: usize,
    /// Bytes of a page with its head.
    pub(crate) page_bytes: usize,
}

impl PageFormat {
    /// Reads `events/header_page`.
    pub(crate) fn parse(text: &str) -> Result<Self, FormatError> {
        let fields = fields(text)?;
        let find = |name| fields.iter().find(|f| f.name == name).ok_or(FormatError::NoField(name));
        let (commit, data) = (find("commit")?, find("data")?);
        if commit.size > 8 || commit.offset != 8 || find("timestamp")?.size != 8 {
            return Err(FormatError::Line(text.lines().next().unwrap_or_default().to_string()));
        }
        let page_bytes = data.offset.saturating_add(data.size);
        Ok(Self { commit_bytes: commit.size, commit: commit.offset, data: data.offset, page_bytes })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}..{}", self.name, self.offset, self.offset.saturating_add(self.size))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// As Linux 6.18 prints it for `net/netif_receive_skb`.
    pub(crate) const RECEIVE: &str = "name: netif_receive_skb\nID: 2303\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
        \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;\n\
        \tfield:unsigned int len;\toffset:16;\tsize:4;\tsigned:0;\n\
        \tfield:__data_loc char[] name;\toffset:20;\tsize:4;\tsigned:0;\n\n\
        print fmt: \"dev=%s skbaddr=%p len=%u\", __get_str(name), REC->skbaddr, REC->len\n";

    pub(crate) const PAGE: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\
        \tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\
        \tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\
        \tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n";

    #[test]
    fn fields_are_found_where_the_kernel_says() {
        let format = EventFormat::parse(RECEIVE).unwrap();
        assert_eq!(format.id, 2303);
        let mut entry = vec![0xff, 0x08, 0, 0, 7, 0, 0, 0];
        entry.extend(0xffff_8880_1234_5600_u64.to_le_bytes());
        entry.extend(1500_u32.to_le_bytes());
        entry.extend((5 << 16 | 24_u32).to_le_bytes());
        entry.extend(b"eth0\0\0\0\0");
        let field = |name| format.field(name).unwrap();
        assert_eq!(field("skbaddr").number(&entry), Some(0xffff_8880_1234_5600_u64 as i64));
        assert_eq!(field("len").number(&entry), Some(1500));
        assert_eq!(field("name").text(&entry), Some(&b"eth0"[..]));
        assert_eq!(field("common_pid").number(&entry), Some(7));
        // A cut entry says nothing, and does not panic.
        for cut in 0..entry.len() {
            let _ = (field("skbaddr").number(&entry[..cut]), field("name").text(&entry[..cut]));
        }
        assert_eq!(field("name").text(&entry[..26]), None);
        assert_eq!(format.field("mark"), Err(FormatError::NoField("mark")));
    }

    #[test]
    fn numbers_have_their_sign_and_width() {
        let field = |size, signed| Field { name: "n".into(), offset: 1, size, signed, elsewhere: false };
        let entry = [9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 9];
        assert_eq!(field(1, true).number(&entry), Some(-1));
        assert_eq!(field(4, true).number(&entry), Some(-1));
        assert_eq!(field(4, false).number(&entry), Some(0xffff_ffff));
        assert_eq!(field(8, true).number(&entry), Some(-1));
        assert_eq!(field(9, true).number(&entry), None, "no number has 9 bytes");
        assert_eq!(field(0, true).number(&entry), Some(0));
    }

    #[test]
    fn pages_begin_as_the_kernel_says() {
        let page = PageFormat::parse(PAGE).unwrap();
        assert_eq!(page, PageFormat { commit_bytes: 8, commit: 8, data: 16, page_bytes: 4096 });
        assert_eq!(PageFormat::parse(""), Err(FormatError::NoField("commit")));
    }

    #[test]
    fn what_is_not_a_format_is_told() {
        assert_eq!(EventFormat::parse("name: x\n"), Err(FormatError::Missing("ID: N")));
        let error = EventFormat::parse("ID: 1\n\tfield:int x; size:4;\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected `field:TYPE NAME; offset:N; size:N; signed:N;`, found `field:int x; size:4;`"
        );
    }
}
