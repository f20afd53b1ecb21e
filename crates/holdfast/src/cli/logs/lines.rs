//! Lines of a file that a stranger wrote: of each only so much is kept, however long it is.

use std::io::{BufRead, ErrorKind, Result};

/// Lines one after the other.
pub struct Lines<R> {
    input: R,
    /// Bytes of a line that are looked at.
    longest: usize,
    /// What is kept of a line: enough to show that it was longer.
    kept: usize,
    /// A line that does not lie whole in the buffer of the input.
    pieces: Vec<u8>,
}

/// What was done about one line.
pub struct Line {
    /// Bytes it takes in the file, with its end.
    pub bytes: u64,
    /// It was longer than what is looked at.
    pub cut: bool,
}

impl<R: BufRead> Lines<R> {
    /// Of each line so many bytes are looked at.
    pub fn new(input: R, longest: usize) -> Self {
        Self { input, longest, kept: longest + 2, pieces: Vec::new() }
    }

    /// Hands the next line over; none at the end.
    pub fn next(&mut self, mut take: impl FnMut(&[u8])) -> Result<Option<Line>> {
        self.pieces.clear();
        let mut bytes = 0;
        loop {
            let buffer = match self.input.fill_buf() {
                Ok(buffer) => buffer,
                Err(cause) if cause.kind() == ErrorKind::Interrupted => continue,
                Err(cause) => return Err(cause),
            };
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(buffer.len(), |end| end + 1);
            bytes += length as u64;
            let is_whole = end.is_some() && bytes == length as u64;
            if is_whole {
                take(&buffer[..length.min(self.kept)]);
            } else {
                let room = self.kept - self.pieces.len();
                self.pieces.extend_from_slice(&buffer[..length.min(room)]);
            }
            self.input.consume(length);
            if end.is_some() || length == 0 {
                if bytes == 0 {
                    return Ok(None);
                }
                if !is_whole {
                    take(&self.pieces);
                }
                let ending = u64::from(end.is_some());
                return Ok(Some(Line { bytes, cut: bytes - ending > self.longest as u64 + 1 }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_logs::LONGEST_LINE;
    use std::io::BufReader;

    fn lines(text: &[u8], buffer: usize) -> (Vec<Vec<u8>>, u64, usize) {
        let mut lines = Lines::new(BufReader::with_capacity(buffer, text), LONGEST_LINE);
        let (mut found, mut bytes, mut cut) = (Vec::new(), 0, 0);
        while let Some(line) = lines.next(|line| found.push(line.to_vec())).expect("memory does not fail") {
            bytes += line.bytes;
            cut += usize::from(line.cut);
        }
        (found, bytes, cut)
    }

    #[test]
    fn lines_are_the_same_whatever_the_buffer() {
        let text = b"one\n\ntwo\r\nthe last one has no end";
        let expected: Vec<&[u8]> = vec![b"one\n", b"\n", b"two\r\n", b"the last one has no end"];
        for buffer in [1, 2, 3, 7, 100] {
            let (found, bytes, cut) = lines(text, buffer);
            assert_eq!(found, expected);
            assert_eq!((bytes, cut), (text.len() as u64, 0));
        }
        assert_eq!(lines(b"", 10), (Vec::new(), 0, 0));
    }

    #[test]
    fn of_a_line_without_end_only_so_much_is_kept() {
        let mut text = vec![b'x'; 1 << 20];
        text.extend_from_slice(b"\nshort\n");
        for buffer in [100, 1 << 21] {
            let (found, bytes, cut) = lines(&text, buffer);
            assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [LONGEST_LINE + 2, 6]);
            assert_eq!((bytes, cut), (text.len() as u64, 1));
        }
    }
}
