//! UTF-16, as some programs of Windows write logs, read as UTF-8.

use std::io::{Read, Result};

/// Bytes that are read at once.
const PIECE: usize = 1 << 15;

/// Text in UTF-16, the low byte first, as UTF-8. What is no text becomes U+FFFD.
pub struct Wide<R> {
    input: R,
    /// Bytes that were read, and how many of them wait for what completes them.
    piece: Vec<u8>,
    waiting: usize,
    text: String,
    given: usize,
}

impl<R: Read> Wide<R> {
    pub fn new(input: R) -> Self {
        Self { input, piece: vec![0; PIECE], waiting: 0, text: String::new(), given: 0 }
    }

    /// Reads more; false at the end.
    fn more(&mut self) -> Result<bool> {
        let read = self.input.read(&mut self.piece[self.waiting..])?;
        let filled = self.waiting + read;
        let mut whole = filled - filled % 2;
        let is_high = |pair: &[u8]| (0xd8..0xdc).contains(&pair[1]);
        if read > 0 && whole >= 2 && is_high(&self.piece[whole - 2..whole]) {
            whole -= 2; // its other half comes next
        }
        let units = self.piece[..whole].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        self.text.clear();
        self.given = 0;
        let letters = char::decode_utf16(units).map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER));
        self.text.extend(letters.filter(|letter| *letter != '\u{feff}'));
        self.piece.copy_within(whole..filled, 0);
        self.waiting = if read > 0 { filled - whole } else { 0 };
        Ok(read > 0)
    }
}

impl<R: Read> Read for Wide<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        while self.given == self.text.len() {
            if !self.more()? && self.text.is_empty() {
                return Ok(0);
            }
        }
        let rest = &self.text.as_bytes()[self.given..];
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        self.given += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Cursor};

    fn read(bytes: &[u8], step: usize) -> String {
        let mut text = String::new();
        let stuttering = BufReader::with_capacity(step, Cursor::new(bytes.to_vec()));
        Wide::new(stuttering).read_to_string(&mut text).expect("memory does not fail");
        text
    }

    #[test]
    fn text_is_the_same_however_it_comes() {
        let text = "\u{feff}<Event>数据 🦀</Event>\r\n".repeat(5_000);
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for step in [1, 2, 3, 7, 1 << 20] {
            assert_eq!(read(&bytes, step), text.replace('\u{feff}', ""), "{step}");
        }
        assert_eq!(
            (read(b"", 9), read(b"a", 9), read(b"\x00\xd8", 9)),
            (String::new(), String::new(), "\u{fffd}".into())
        );
        assert_eq!(read(b"\x00\xd8\x41\x00\x00\xdc", 1), "\u{fffd}A\u{fffd}");
    }
}
