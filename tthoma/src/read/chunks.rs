//! Files in chunks that begin and end with lines, so that several threads read one file.
//!
//! Chunks are read by position into a buffer that stays in a core's cache. A file that is cut meanwhile just ends; mapped, it
//! would be a fault of memory.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use memchr::memchr;

/// The lines of a file that begin in a range of bytes.
pub(super) struct Lines<'a> {
    file: &'a File,
    /// Next byte to read.
    at: u64,
    /// Lines that begin here or later are not ours.
    end: u64,
    /// In the last line, which goes on beyond `end`.
    last: bool,
    done: bool,
}

impl<'a> Lines<'a> {
    /// Lines that begin in `start..end` of a file.
    pub(super) fn new(file: &'a File, start: u64, end: u64) -> io::Result<Self> {
        let mut this = Self { file, at: start, end, last: false, done: start >= end };
        if start > 0 {
            // Up to the end of the line before, which may be right before `start`.
            this.at = start - 1;
            let mut buffer = [0; 4096];
            loop {
                let read = this.file.read_at(&mut buffer, this.at)?;
                if read == 0 {
                    break;
                }
                if let Some(found) = memchr(b'\n', &buffer[..read]) {
                    this.at += found as u64 + 1;
                    break;
                }
                this.at += read as u64;
            }
            this.done = this.at >= end;
        }
        Ok(this)
    }
}

impl Read for Lines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.done {
            return Ok(0);
        }
        if !self.last {
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
            let most = buffer.len().min(left);
            let read = self.file.read_at(&mut buffer[..most], self.at)?;
            self.at += read as u64;
            self.last = self.at >= self.end;
            self.done = read == 0 || self.last && buffer[read - 1] == b'\n';
            return Ok(read);
        }
        let most = buffer.len().min(4096);
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        let end = memchr(b'\n', &buffer[..read]);
        self.done = read == 0 || end.is_some();
        let used = end.map_or(read, |end| end + 1);
        self.at += used as u64;
        Ok(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_in_one_chunk() {
        let text = "one\ntwo two\n\nthree\nno end";
        let path = std::env::temp_dir().join(format!("tthoma-chunks-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let file = File::open(&path).unwrap();
        let length = text.len() as u64;
        for cut in 0..=length {
            for second in cut..=length {
                let mut all = String::new();
                for (start, end) in [(0, cut), (cut, second), (second, length)] {
                    let mut part = String::new();
                    Lines::new(&file, start, end).unwrap().read_to_string(&mut part).unwrap();
                    assert!(
                        part.is_empty() || part.ends_with('\n') || part.ends_with("no end"),
                        "{cut} {second} {part:?}"
                    );
                    all += &part;
                }
                assert_eq!(all, text, "{cut} {second}");
            }
        }
        std::fs::remove_file(path).unwrap();
    }
}
