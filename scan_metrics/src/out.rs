//! A scan as a ranked table, JSON, CSV and an HTML page; three numbers a node as the originals have them.

mod csv;
mod data;
mod html;
mod table;

pub use csv::csv;
pub use data::data;
pub use html::{STYLE, findings, heat_map, html};
pub use table::table;

use serde::Serialize;

use crate::scan::Scan;
use crate::scan::control::RATE;

/// A scan with what is needed to read it on its own.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    tool: &'static str,
    false_alarm_rate: f64,
    #[serde(flatten)]
    scan: &'a Scan,
}

/// All of it, `"version"` 1.
pub fn json(scan: &Scan) -> String {
    let tool = concat!("scan_metrics ", env!("CARGO_PKG_VERSION"));
    let document = Document { version: 1, tool, false_alarm_rate: RATE, scan };
    serde_json::to_string_pretty(&document).expect("numbers and texts have a form in JSON") + "\n"
}
