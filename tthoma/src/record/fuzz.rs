//! What fuzzing needs of the recorder: pages and formats that it makes up.

use super::events::{Decoder, SOURCES};
use super::format::{EventFormat, PageFormat};
use super::text::{self, CorePages, Reading};

/// Form of a page on 64-bit kernels.
const PAGE: PageFormat = PageFormat { commit_bytes: 8, commit: 8, data: 16, page_bytes: 4096 };

/// A `format` file with all fields that an event may need, 8 bytes each.
fn format_file(id: usize, fields: &[&str]) -> String {
    let line =
        |(i, field): (usize, &&str)| format!("\tfield:u64 {field};\toffset:{};\tsize:8;\tsigned:1;\n", 8 + 8 * i);
    format!("ID: {id}\n{}", fields.iter().enumerate().map(line).collect::<String>())
}

/// Takes `bytes` for pages of two cores; returns the trace that is written of them.
pub(crate) fn pages(bytes: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::default();
    for (id, source) in SOURCES.iter().enumerate() {
        decoder.add(source, &format_file(id, source.fields)).expect("all fields are there");
    }
    let half = bytes.len() / 2;
    let core = |core, bytes: &[u8]| CorePages { core, pages: bytes.chunks(512).map(Into::into).collect() };
    let cores = [core(0, &bytes[..half]), core(1, &bytes[half..])];
    let mut out = Vec::new();
    let reading = Reading { decoder: &decoder, page: PAGE, ticks_per_ns: 2.5 };
    let written = text::write(&cores, reading, &mut out).expect("vectors grow");
    // Made-up times reach over thousands of years, more than a trace's lines can say.
    if written.span.is_some_and(|(first, last)| last.saturating_sub(first) > 1 << 50) { Vec::new() } else { out }
}

/// Takes `bytes` for a `format` file up to a zero, and for an entry after it.
pub(crate) fn format(bytes: &[u8]) {
    let (text, entry) = bytes.split_at(bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len()));
    let text = String::from_utf8_lossy(text);
    let _ = PageFormat::parse(&text);
    let Ok(format) = EventFormat::parse(&text) else { return };
    for field in format.fields() {
        let _ = (field.number(entry), field.text(entry));
    }
}
