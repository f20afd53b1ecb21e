//! The lines of a CSV file that a stranger wrote, one at a time: each bounded, and text.

use std::io::{self, BufRead, Read};

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The disk or pipe behind it.
    #[error("reading failed after line {line}")]
    Io {
        /// The last line that was read.
        line: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A line without end.
    #[error("line {line} is longer than {longest} bytes")]
    Long {
        /// Which.
        line: u64,
        /// How long one may be.
        longest: usize,
    },
    /// Not text.
    #[error("line {line} is not UTF-8 text")]
    NotText {
        /// Which.
        line: u64,
    },
}

/// Lines that are not empty, one after the other.
pub struct Rows<R> {
    from: R,
    longest: usize,
    raw: Vec<u8>,
    /// The last line that was read, counted from 1.
    pub line: u64,
    /// Bytes that were read.
    pub bytes: u64,
}

impl<R: BufRead> Rows<R> {
    /// Of this text, none longer than so many bytes.
    pub fn new(from: R, longest: usize) -> Self {
        Self { from, longest, raw: Vec::new(), line: 0, bytes: 0 }
    }

    /// The next one with its number, without its end and without the mark that some programs put before a text.
    pub fn next(&mut self) -> Result<Option<(u64, &str)>, RowError> {
        loop {
            self.raw.clear();
            let read = (&mut self.from).take(self.longest as u64 + 1).read_until(b'\n', &mut self.raw);
            let read = read.map_err(|source| RowError::Io { line: self.line, source })?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            self.bytes += read as u64;
            if self.raw.len() > self.longest {
                return Err(RowError::Long { line: self.line, longest: self.longest });
            }
            let text = self.raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.raw);
            if !text.trim_ascii().is_empty() {
                break;
            }
        }
        let text = std::str::from_utf8(&self.raw).map_err(|_| RowError::NotText { line: self.line })?;
        Ok(Some((self.line, text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']))))
    }
}
