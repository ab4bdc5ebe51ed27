//! Results as tables: columns with units and meanings, rows of cells; printed, or written as JSON, CSV or data files.

use std::borrow::Cow;

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeStruct, Serializer};

use crate::stats::Distribution;

/// What a column's numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Text, numbers without unit, counts.
    None,
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
    /// Bytes.
    Bytes,
    /// Kilobytes, 1000 bytes.
    Kb,
    /// 10^9 bits a second.
    Gbps,
    /// Hundredths.
    Percent,
    /// Events a second.
    PerSec,
    /// A share of 1.
    Share,
}

impl Unit {
    /// End of a column's key; empty for [`Unit::None`].
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Us => "_us",
            Self::Ms => "_ms",
            Self::S => "_s",
            Self::Bytes => "_bytes",
            Self::Kb => "_kb",
            Self::Gbps => "_gbps",
            Self::Percent => "_percent",
            Self::PerSec => "_per_s",
            Self::Share => "_share",
        }
    }

    /// The unit in legends; empty for [`Unit::None`].
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Us => "us",
            Self::Ms => "ms",
            Self::S => "s",
            Self::Bytes => "bytes",
            Self::Kb => "KB",
            Self::Gbps => "Gbps",
            Self::Percent => "%",
            Self::PerSec => "1/s",
            Self::Share => "share",
        }
    }

    /// Decimals that people see.
    const fn decimals(self) -> usize {
        match self {
            Self::Bytes => 0,
            Self::S | Self::Share => 3,
            _ => 1,
        }
    }
}

/// A column of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading for people.
    pub title: Cow<'static, str>,
    /// Name in JSON, CSV and Parquet, ends in its unit.
    pub key: String,
    /// What its numbers count.
    pub unit: Unit,
    /// What it says, for the legend; empty if the heading says all.
    pub meaning: Cow<'static, str>,
    /// Decimals that people see.
    pub decimals: usize,
}

/// A field of a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Cell {
    /// Unknown, or there is none: `-`, null, an empty field.
    #[default]
    None,
    /// A count or another integer.
    Int(i64),
    /// A number.
    Num(f64),
    /// Text.
    Text(String),
    /// Yes or no.
    Flag(bool),
}

macro_rules! cell_from {
    ($($from:ty => |$value:ident| $cell:expr;)*) => {
        $(impl From<$from> for Cell {
            fn from($value: $from) -> Self { $cell }
        })*
    };
}

cell_from! {
    i64 => |v| Self::Int(v);
    i32 => |v| Self::Int(v.into());
    u16 => |v| Self::Int(v.into());
    u32 => |v| Self::Int(v.into());
    u64 => |v| Self::Int(v as i64);
    usize => |v| Self::Int(v as i64);
    // A sum of nothing is -0.
    f64 => |v| if v.is_finite() { Self::Num(v + 0.0) } else { Self::None };
    &str => |v| Self::Text(v.into());
    &String => |v| Self::Text(v.clone());
    String => |v| Self::Text(v);
    bool => |v| Self::Flag(v);
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::None, Into::into)
    }
}

/// A row of a [`Table`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// A field for each column.
    pub cells: Vec<Cell>,
    /// Why fields are empty, for people; `note` in JSON.
    pub note: Option<String>,
}

/// A table of results. Built column by column, then row by row:
///
/// ```
/// use tthoma::analyze::{Table, Unit};
///
/// let mut table = Table::new("cores", "Work on each core")
///     .column("Node", Unit::None, "")
///     .column("Core", Unit::None, "")
///     .column("Softirq", Unit::Us, "time in SoftIRQ");
/// table.row(["node1".into(), 3u32.into(), 41.5.into()]);
/// assert_eq!(table.columns[2].key, "softirq_us");
/// assert_eq!(table.get(0, "softirq_us"), &41.5.into());
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Name in JSON and of files.
    pub name: String,
    /// A line above it, for people.
    pub title: String,
    /// Columns.
    pub columns: Vec<Column>,
    /// Rows.
    pub rows: Vec<Row>,
    /// A time series or a long list: not printed for people; written with `--data` as `NAME.dat`, and in the other forms.
    pub series: bool,
    /// Node whose series it is.
    pub node: Option<String>,
    /// The first column is printed as a heading above the rows that share it.
    pub grouped: bool,
}

impl Table {
    /// An empty table.
    pub fn new(name: impl Into<String>, title: impl Into<String>) -> Self {
        Self { name: name.into(), title: title.into(), ..Self::default() }
    }

    /// A time series or long list of one node, in the data file `NAME_NODE.dat`.
    pub fn series(name: &str, node: &str, title: impl Into<String>) -> Self {
        Self { series: true, node: Some(node.into()), ..Self::new(format!("{name}_{node}"), title) }
    }

    /// Adds a column; its key is the title in lower case with the unit as last suffix.
    pub fn column(
        mut self,
        title: impl Into<Cow<'static, str>>,
        unit: Unit,
        meaning: impl Into<Cow<'static, str>>,
    ) -> Self {
        let title = title.into();
        let key = with_suffix(key(&title), unit);
        self.columns.push(Column { title, key, unit, meaning: meaning.into(), decimals: unit.decimals() });
        self
    }

    /// Gives the column added last another key (the unit's suffix is added) .
    pub fn key(mut self, name: &str) -> Self {
        if let Some(last) = self.columns.last_mut() {
            last.key = format!("{name}{}", last.unit.suffix());
        }
        self
    }

    /// Gives the first column another key.
    pub fn key_of_first(mut self, name: &str) -> Self {
        if let Some(first) = self.columns.first_mut() {
            first.key = format!("{name}{}", first.unit.suffix());
        }
        self
    }

    /// Gives the column added last this many decimals when people read it.
    pub fn decimals(mut self, decimals: usize) -> Self {
        if let Some(last) = self.columns.last_mut() {
            last.decimals = decimals;
        }
        self
    }

    /// Adds columns for a distribution of times: `Count Min P10 P50 P90 P99 Max Avg`; rows by [`Distribution::cells`].
    pub fn distribution(self) -> Self {
        let times = ["Min", "P10", "P50", "P90", "P99", "Max", "Avg"];
        times.into_iter().fold(self.column("Count", Unit::None, ""), |table, title| table.column(title, Unit::Us, ""))
    }

    /// Prints the first column as a heading above the rows that share it.
    pub fn grouped(mut self) -> Self {
        self.grouped = true;
        self
    }

    /// Adds a row; missing fields at its end are unknown.
    ///
    /// # Panics
    ///
    /// In debug builds, if there are more fields than columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) -> &mut Row {
        let mut cells: Vec<Cell> = cells.into_iter().collect();
        debug_assert!(cells.len() <= self.columns.len(), "{}: {} fields", self.name, cells.len());
        cells.resize(self.columns.len(), Cell::None);
        self.rows.push(Row { cells, note: None });
        self.rows.last_mut().expect("was just pushed")
    }

    /// The field of a row; [`Cell::None`] if there is no such row or column.
    pub fn get(&self, row: usize, key: &str) -> &Cell {
        let place = self.columns.iter().position(|c| c.key == key);
        place.and_then(|place| self.rows.get(row)?.cells.get(place)).unwrap_or(&Cell::None)
    }

    /// Place of the first row whose leading fields are `start`.
    pub fn find(&self, start: &[&str]) -> Option<usize> {
        let fits = |row: &Row| start.iter().zip(&row.cells).all(|(text, cell)| cell.plain() == *text);
        self.rows.iter().position(fits)
    }
}

/// A key with its unit as last suffix, once.
fn with_suffix(key: String, unit: Unit) -> String {
    let suffix = unit.suffix();
    if key.ends_with(suffix) || suffix.strip_prefix('_') == Some(&key) { key } else { key + suffix }
}

/// `MaxPk` as `max_pk`, `Min RTT` as `min_rtt`, `InK/s` as `in_k_s`.
fn key(title: &str) -> String {
    let mut out = String::new();
    let mut lower = false;
    for c in title.chars() {
        if !c.is_ascii_alphanumeric() {
            lower = false;
            if !out.ends_with('_') && !out.is_empty() {
                out.push('_');
            }
            continue;
        }
        if c.is_ascii_uppercase() && lower {
            out.push('_');
        }
        lower = !c.is_ascii_uppercase();
        out.push(c.to_ascii_lowercase());
    }
    out.trim_end_matches('_').to_string()
}

impl Row {
    /// Says why fields are empty.
    pub fn note(&mut self, note: impl Into<String>) {
        self.note = Some(note.into());
    }
}

impl Cell {
    /// The number, if it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Num(value) => Some(*value),
            _ => None,
        }
    }

    /// As in CSV: numbers to the third decimal, nothing for the unknown.
    pub fn plain(&self) -> Cow<'_, str> {
        match self {
            Self::None => "".into(),
            Self::Int(value) => value.to_string().into(),
            Self::Num(value) => format!("{value:.3}").into(),
            Self::Text(text) => text.into(),
            Self::Flag(flag) => if *flag { "true" } else { "false" }.into(),
        }
    }

    /// For people.
    pub(crate) fn shown(&self, decimals: usize) -> Cow<'_, str> {
        match self {
            Self::None => "-".into(),
            Self::Num(value) => format!("{value:.decimals$}").into(),
            Self::Flag(flag) => if *flag { "yes" } else { "no" }.into(),
            other => other.plain(),
        }
    }
}

impl Distribution {
    /// Fields for the columns of [`Table::distribution`]; only a count of 0 if there are no samples.
    pub fn cells(count: u64, distribution: Option<Self>) -> [Cell; 8] {
        let mut cells = [const { Cell::None }; 8];
        cells[0] = count.into();
        if let Some(d) = distribution {
            let times = [d.min_us, d.p10_us, d.p50_us, d.p90_us, d.p99_us, d.max_us, d.avg_us];
            cells.iter_mut().skip(1).zip(times).for_each(|(cell, time)| *cell = time.into());
        }
        cells
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_none(),
            Self::Int(value) => serializer.serialize_i64(*value),
            // To the third decimal, as everywhere: more digits than a trace has say nothing.
            Self::Num(value) => serializer.serialize_f64((value * 1000.0).round() / 1000.0),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
        }
    }
}

/// A table in JSON: `title`, `columns` (`key`, `unit`, `meaning`), and `rows` as objects.
impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Rows<'a>(&'a Table);
        struct One<'a>(&'a [Column], &'a Row);
        impl Serialize for Rows<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.rows.iter().map(|row| One(&self.0.columns, row)))
            }
        }
        impl Serialize for One<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                for (column, cell) in self.0.iter().zip(&self.1.cells) {
                    map.serialize_entry(&column.key, cell)?;
                }
                if let Some(note) = &self.1.note {
                    map.serialize_entry("note", note)?;
                }
                map.end()
            }
        }
        let mut out = serializer.serialize_struct("Table", 3)?;
        out.serialize_field("title", &self.title)?;
        out.serialize_field("columns", &self.columns)?;
        out.serialize_field("rows", &Rows(self))?;
        out.end()
    }
}

impl Serialize for Column {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Column", 3)?;
        out.serialize_field("key", &self.key)?;
        out.serialize_field("unit", self.unit.symbol())?;
        out.serialize_field("meaning", &self.meaning)?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_of_titles() {
        for (title, expected) in [("Node", "node"), ("MaxPk", "max_pk"), ("Min RTT", "min_rtt"), ("Drop?", "drop")] {
            assert_eq!(key(title), expected, "{title}");
        }
        let table = Table::new("t", "").column("P50", Unit::Us, "").column("Total", Unit::Kb, "").key("sum");
        assert_eq!((table.columns[0].key.as_str(), table.columns[1].key.as_str()), ("p50_us", "sum_kb"));
    }

    #[test]
    fn unknown_is_never_zero() {
        let mut table = Table::new("t", "").column("A", Unit::Us, "").column("B", Unit::None, "");
        table.row([f64::NAN.into()]).note("nothing was logged");
        table.row([Some(1.23456).into(), None::<u32>.into()]);
        assert_eq!((table.get(0, "a_us"), table.get(1, "b")), (&Cell::None, &Cell::None));
        let json = serde_json::to_value(&table).unwrap();
        assert_eq!(
            json["rows"],
            serde_json::json!([{"a_us": null, "b": null, "note": "nothing was logged"}, {"a_us": 1.235, "b": null}])
        );
    }

    #[test]
    fn rows_are_found_by_their_first_fields() {
        let mut table = Table::new("t", "").column("Group", Unit::None, "").column("Core", Unit::None, "");
        table.row(["a".into(), 1u32.into()]);
        table.row(["a".into(), 2u32.into()]);
        assert_eq!((table.find(&["a", "2"]), table.find(&["a"]), table.find(&["b"])), (Some(1), Some(0), None));
    }
}
