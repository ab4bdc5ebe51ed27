//! Tables as Parquet: one row group, plain encoding, no compression, every column optional. Readers of all kinds take it,
//! and it needs no library here. Source: the format's documents (parquet-format 2.x: FileMetaData in Thrift's compact
//! protocol, definition levels as RLE/bit-packed hybrid).

use serde_json::Value;

use super::tables::Table;

/// How the cells of a column are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Boolean,
    Integer,
    Double,
    Text,
}

impl Kind {
    /// The format's number of the physical type: BOOLEAN 0, INT64 2, DOUBLE 5, BYTE_ARRAY 6.
    fn number(self) -> i64 {
        match self {
            Self::Boolean => 0,
            Self::Integer => 2,
            Self::Double => 5,
            Self::Text => 6,
        }
    }

    /// The narrowest kind that holds all cells; a column without values is one of numbers.
    fn of(cells: &[&Value]) -> Self {
        let all = |test: fn(&Value) -> bool| cells.iter().all(|cell| cell.is_null() || test(cell));
        if cells.iter().all(|cell| cell.is_null()) {
            Self::Double
        } else if all(Value::is_boolean) {
            Self::Boolean
        } else if all(Value::is_i64) {
            Self::Integer
        } else if all(Value::is_number) {
            Self::Double
        } else {
            Self::Text
        }
    }
}

const MAGIC: &[u8] = b"PAR1";

/// The file for a table.
pub fn file(table: &Table) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let mut chunks = Vec::new();
    for (index, name) in table.names.iter().enumerate() {
        let cells: Vec<_> = table.rows.iter().map(|row| &row[index]).collect();
        let kind = Kind::of(&cells);
        let page = page(kind, &cells);
        let header = page_header(page.len(), cells.len());
        let offset = bytes.len();
        bytes.extend(header);
        bytes.extend(page);
        chunks.push(Chunk { name, kind, offset, len: bytes.len() - offset });
    }
    let footer = metadata(&chunks, table.rows.len());
    bytes.extend(&footer);
    bytes.extend((footer.len() as u32).to_le_bytes());
    bytes.extend(MAGIC);
    bytes
}

/// Where a column is.
struct Chunk<'a> {
    name: &'a str,
    kind: Kind,
    offset: usize,
    len: usize,
}

/// Definition levels (1: there is a value), then the values.
fn page(kind: Kind, cells: &[&Value]) -> Vec<u8> {
    let present: Vec<_> = cells.iter().map(|cell| !cell.is_null()).collect();
    // One bit-packed run: its header counts groups of eight.
    let mut levels = Vec::new();
    varint(&mut levels, (present.len().div_ceil(8) as u64) << 1 | 1);
    levels.extend(bits(&present));
    let mut page = (levels.len() as u32).to_le_bytes().to_vec();
    page.extend(levels);
    let values = || cells.iter().filter(|cell| !cell.is_null());
    match kind {
        Kind::Boolean => page.extend(bits(&values().map(|cell| **cell == true).collect::<Vec<_>>())),
        Kind::Integer => values().for_each(|cell| page.extend(cell.as_i64().unwrap_or(0).to_le_bytes())),
        Kind::Double => values().for_each(|cell| page.extend(cell.as_f64().unwrap_or(f64::NAN).to_le_bytes())),
        Kind::Text => values().for_each(|cell| {
            let text = cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
            page.extend((text.len() as u32).to_le_bytes());
            page.extend(text.as_bytes());
        }),
    }
    page
}

/// Eight to a byte, the first in the lowest bit.
fn bits(all: &[bool]) -> Vec<u8> {
    all.chunks(8).map(|byte| byte.iter().rev().fold(0, |sum, bit| sum << 1 | u8::from(*bit))).collect()
}

fn page_header(len: usize, values: usize) -> Vec<u8> {
    let mut header = Struct::default();
    header.integer(1, 0); // a data page
    header.integer(2, len as i64); // uncompressed
    header.integer(3, len as i64); // compressed
    let mut data = Struct::default();
    data.integer(1, values as i64);
    data.integer(2, 0); // PLAIN
    data.integer(3, 3); // definition levels: RLE
    data.integer(4, 3); // repetition levels: none are there
    header.inner(5, data);
    header.end()
}

fn metadata(chunks: &[Chunk<'_>], rows: usize) -> Vec<u8> {
    let mut root = Struct::default();
    root.text(4, "schema");
    root.integer(5, chunks.len() as i64);
    let mut schema = vec![root.end()];
    schema.extend(chunks.iter().map(|chunk| {
        let mut element = Struct::default();
        element.integer(1, chunk.kind.number());
        element.integer(3, 1); // OPTIONAL
        element.text(4, chunk.name);
        if chunk.kind == Kind::Text {
            element.integer(6, 0); // UTF8
        }
        element.end()
    }));
    let columns = chunks.iter().map(|chunk| {
        let mut data = Struct::default();
        data.integer(1, chunk.kind.number());
        data.integers(2, &[0, 3]); // encodings: PLAIN, RLE
        data.texts(3, &[chunk.name]);
        data.integer(4, 0); // uncompressed
        data.long(5, rows as i64);
        data.long(6, chunk.len as i64);
        data.long(7, chunk.len as i64);
        data.long(9, chunk.offset as i64);
        let mut column = Struct::default();
        column.long(2, chunk.offset as i64);
        column.inner(3, data);
        column.end()
    });
    let mut group = Struct::default();
    group.structs(1, columns.collect());
    group.long(2, chunks.iter().map(|chunk| chunk.len as i64).sum());
    group.long(3, rows as i64);
    let mut file = Struct::default();
    file.integer(1, 1); // version
    file.structs(2, schema);
    file.long(3, rows as i64);
    file.structs(4, vec![group.end()]);
    file.text(6, concat!("cperf ", env!("CARGO_PKG_VERSION")));
    file.end()
}

/// A structure in Thrift's compact protocol.
#[derive(Default)]
struct Struct {
    bytes: Vec<u8>,
    last: i16,
}

impl Struct {
    /// Fields must be added in the order of their numbers, with steps of at most 15.
    fn field(&mut self, id: i16, kind: u8) {
        self.bytes.push(((id - self.last) as u8) << 4 | kind);
        self.last = id;
    }

    fn integer(&mut self, id: i16, value: i64) {
        self.field(id, 5);
        varint(&mut self.bytes, zigzag(value));
    }

    fn long(&mut self, id: i16, value: i64) {
        self.field(id, 6);
        varint(&mut self.bytes, zigzag(value));
    }

    fn text(&mut self, id: i16, value: &str) {
        self.field(id, 8);
        string(&mut self.bytes, value);
    }

    fn inner(&mut self, id: i16, value: Self) {
        self.field(id, 12);
        self.bytes.extend(value.end());
    }

    fn integers(&mut self, id: i16, values: &[i64]) {
        self.list(id, values.len(), 5);
        values.iter().for_each(|value| varint(&mut self.bytes, zigzag(*value)));
    }

    fn texts(&mut self, id: i16, values: &[&str]) {
        self.list(id, values.len(), 8);
        values.iter().for_each(|value| string(&mut self.bytes, value));
    }

    fn structs(&mut self, id: i16, values: Vec<Vec<u8>>) {
        self.list(id, values.len(), 12);
        values.iter().for_each(|value| self.bytes.extend(value));
    }

    fn list(&mut self, id: i16, len: usize, kind: u8) {
        self.field(id, 9);
        if len < 15 {
            self.bytes.push((len as u8) << 4 | kind);
        } else {
            self.bytes.push(0xf0 | kind);
            varint(&mut self.bytes, len as u64);
        }
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    varint(bytes, text.len() as u64);
    bytes.extend(text.as_bytes());
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn integers_are_as_thrift_writes_them() {
        let mut bytes = Vec::new();
        varint(&mut bytes, 300);
        assert_eq!(bytes, [0xac, 0x02]);
        assert_eq!((zigzag(0), zigzag(-1), zigzag(1), zigzag(i64::MIN)), (0, 1, 2, u64::MAX));
        let mut one = Struct::default();
        one.integer(1, -1);
        one.text(4, "ab");
        assert_eq!(one.end(), [0x15, 0x01, 0x38, 0x02, b'a', b'b', 0x00]);
    }

    #[test]
    fn columns_have_the_narrowest_kind_that_holds_them() {
        let kind = |cells: &[Value]| Kind::of(&cells.iter().collect::<Vec<_>>());
        assert_eq!(kind(&[json!(1), Value::Null]), Kind::Integer);
        assert_eq!(kind(&[json!(1), json!(1.5)]), Kind::Double);
        assert_eq!(kind(&[json!(true)]), Kind::Boolean);
        assert_eq!(kind(&[json!(1), json!("x")]), Kind::Text);
        assert_eq!(kind(&[Value::Null]), Kind::Double);
    }

    /// Levels and values of nine rows, by hand.
    #[test]
    fn a_page_has_levels_and_only_the_values_that_there_are() {
        let mut cells = vec![json!(true); 9];
        cells[1] = Value::Null;
        cells[2] = json!(false);
        let page = page(Kind::Boolean, &cells.iter().collect::<Vec<_>>());
        // Four bytes of length, a run of two groups, nine bits; then eight values.
        assert_eq!(page, [3, 0, 0, 0, 0b101, 0b1111_1101, 0b1, 0b1111_1101]);
    }

    #[test]
    fn a_file_is_framed_and_its_footer_is_where_it_says() {
        let table = Table { names: vec!["a".into(), "b".into()], rows: vec![vec![json!(1), json!("x")]; 20] };
        let bytes = file(&table);
        assert!(bytes.starts_with(MAGIC) && bytes.ends_with(MAGIC));
        let at = bytes.len() - 8;
        let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(bytes[at - len], 0x15, "the first field of the metadata is an integer");
        assert_eq!(bytes[at - 1], 0);
    }
}
