//! Messages on a control socket: one JSON text a line, from a peer that may be hostile.
//!
//! Bytes, depth and number of values are counted as they come in, before anything is parsed or kept,
//! so a message can never cost more memory than its limit (A11, A12, A18).

use tokio::io::{AsyncRead, AsyncReadExt};

/// How much one message may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, without the end of line.
    pub bytes: usize,
    /// Lists and objects inside each other.
    pub depth: u32,
    /// Values, roughly: commas, colons and opening brackets outside strings.
    pub values: u32,
}

impl Limits {
    /// For a hypervisor: the answer to `query-qmp-schema` has more than 120 KiB.
    pub const HYPERVISOR: Self = Self { bytes: 4 << 20, depth: 64, values: 200_000 };
    /// For a guest agent.
    pub const AGENT: Self = Self { bytes: 1 << 20, depth: 64, values: 50_000 };
}

/// Why the other side's words were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// More bytes than allowed and still no end of line.
    #[error("a message of more than {0} bytes")]
    TooLong(usize),
    /// Brackets nested too deep.
    #[error("a message nested deeper than {0}")]
    TooDeep(u32),
    /// Too many values.
    #[error("a message of more than {0} values")]
    TooMany(u32),
    /// Not UTF-8.
    #[error("a message that is not UTF-8")]
    NotText,
}

/// Cuts a stream of bytes into messages.
#[derive(Debug)]
pub struct Wire {
    limits: Limits,
    message: Vec<u8>,
    in_string: bool,
    escaped: bool,
    depth: u32,
    values: u32,
}

impl Wire {
    /// For a stream that begins at the start of a message.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, message: Vec::new(), in_string: false, escaped: false, depth: 0, values: 0 }
    }

    /// Takes bytes off `input` until one message is whole; `None` once they are used up. Blank lines
    /// are skipped.
    ///
    /// # Errors
    /// What is wrong with the message; the rest of its line is not skipped, so the stream is of no use
    /// any more.
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<String>, WireError> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            if byte == b'\n' {
                let message = std::mem::take(&mut self.message);
                self.restart();
                if message.iter().any(|b| !b.is_ascii_whitespace()) {
                    return String::from_utf8(message).map(Some).map_err(|_| WireError::NotText);
                }
                continue;
            }
            if self.message.len() == self.limits.bytes {
                return Err(WireError::TooLong(self.limits.bytes));
            }
            self.message.push(byte);
            self.measure(byte)?;
        }
        Ok(None)
    }

    /// Forgets what has come of the current message.
    pub fn restart(&mut self) {
        *self = Self::new(self.limits);
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        self.message.iter().any(|b| !b.is_ascii_whitespace())
    }

    fn measure(&mut self, byte: u8) -> Result<(), WireError> {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return Ok(());
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => {
                self.depth += 1;
                self.values += 1;
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' | b':' => self.values += 1,
            _ => {}
        }
        if self.depth > self.limits.depth {
            return Err(WireError::TooDeep(self.limits.depth));
        }
        if self.values > self.limits.values {
            return Err(WireError::TooMany(self.limits.values));
        }
        Ok(())
    }
}

/// Why no further message came.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The other side closed between two messages.
    #[error("the other side closed the connection")]
    Closed,
    /// The other side closed in the middle of a message.
    #[error("the other side closed the connection in the middle of a message")]
    Broken,
    /// The socket failed.
    #[error("the connection failed")]
    Failed(#[source] std::io::Error),
    /// The words were refused.
    #[error(transparent)]
    Refused(#[from] WireError),
}

/// Reads messages from a stream.
#[derive(Debug)]
pub struct Reader<R> {
    stream: R,
    wire: Wire,
    chunk: Box<[u8]>,
    unread: std::ops::Range<usize>,
    total: u64,
}

const CHUNK: usize = 16 * 1024;

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads messages from `stream`.
    pub fn new(stream: R, limits: Limits) -> Self {
        Self { stream, wire: Wire::new(limits), chunk: vec![0; CHUNK].into(), unread: 0..0, total: 0 }
    }

    /// Bytes read so far.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The next message. May be dropped while it waits without losing a byte.
    ///
    /// # Errors
    /// The stream is of no use after any of them.
    pub async fn next(&mut self) -> Result<String, ReadError> {
        loop {
            let mut input = &self.chunk[self.unread.clone()];
            let taken = self.wire.take(&mut input);
            self.unread.start = self.unread.end - input.len();
            if let Some(message) = taken? {
                return Ok(message);
            }
            self.refill().await?;
        }
    }

    /// Drops everything up to and with the next byte `mark`, also what has come of a message.
    ///
    /// # Errors
    /// As for [`Reader::next`]; [`WireError::TooLong`] after about `most` bytes without the mark.
    pub async fn skip_past(&mut self, mark: u8, most: usize) -> Result<(), ReadError> {
        self.wire.restart();
        let mut skipped = 0;
        loop {
            let unread = &self.chunk[self.unread.clone()];
            if let Some(at) = unread.iter().position(|&b| b == mark) {
                self.unread.start += at + 1;
                return Ok(());
            }
            skipped += unread.len();
            self.unread.start = self.unread.end;
            if skipped > most {
                return Err(WireError::TooLong(most).into());
            }
            self.refill().await?;
        }
    }

    async fn refill(&mut self) -> Result<(), ReadError> {
        let count = self.stream.read(&mut self.chunk).await.map_err(ReadError::Failed)?;
        if count == 0 {
            return Err(if self.wire.is_mid_message() { ReadError::Broken } else { ReadError::Closed });
        }
        self.unread = 0..count;
        self.total += count as u64;
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: Limits = Limits { bytes: 64, depth: 4, values: 16 };

    fn all(limits: Limits, chunks: &[&[u8]]) -> Result<Vec<String>, WireError> {
        let mut wire = Wire::new(limits);
        let mut messages = Vec::new();
        for mut chunk in chunks.iter().copied() {
            while let Some(message) = wire.take(&mut chunk)? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn a_message_may_come_in_pieces() {
        let messages = all(SMALL, &[b"{\"a\"", b":1}\r", b"\n\r\n{}", b"\n{"]).unwrap();
        assert_eq!(messages, ["{\"a\":1}\r", "{}"]);
    }

    #[test]
    fn a_gibibyte_without_an_end_of_line_costs_no_more_than_its_limit() {
        let mut wire = Wire::new(Limits::AGENT); // A11
        let chunk = vec![b'x'; 1 << 20];
        assert_eq!(wire.take(&mut chunk.as_slice()), Ok(None));
        assert_eq!(wire.take(&mut chunk.as_slice()), Err(WireError::TooLong(1 << 20)));
        assert!(wire.message.capacity() <= 2 << 20);
    }

    #[test]
    fn a_hundred_thousand_levels_are_refused_at_the_first_too_many() {
        let deep = "[".repeat(100_000); // A12
        assert_eq!(all(Limits::AGENT, &[deep.as_bytes()]), Err(WireError::TooDeep(64)));
        let objects = "{\"a\":".repeat(100_000);
        assert_eq!(all(Limits::AGENT, &[objects.as_bytes()]), Err(WireError::TooDeep(64)));
    }

    #[test]
    fn brackets_inside_strings_do_not_count() {
        let message = br#"{"a":"[[[[[[[[[[[[[[[[[[\"[[[[[[[[[\\"}"#;
        assert_eq!(all(SMALL, &[message, b"\n"]).unwrap().len(), 1);
    }

    #[test]
    fn a_message_of_many_small_values_is_refused() {
        assert_eq!(all(SMALL, &[b"[1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8]\n"]), Err(WireError::TooMany(16)));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert_eq!(all(SMALL, &[b"{\"a\":\"\xff\xfe\"}\n"]), Err(WireError::NotText));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_stay_within_the_limits(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20)
        ) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            if let Ok(messages) = all(SMALL, &chunks) {
                prop_assert!(messages.iter().all(|m| m.len() <= SMALL.bytes && !m.contains('\n')));
            }
        }

        #[test]
        fn the_pieces_make_no_difference(text in "[\\[{}\\]a,:\"\n ]{0,200}", cut in 0_usize..200) {
            let cut = cut.min(text.len());
            let (head, tail) = text.as_bytes().split_at(cut);
            prop_assert_eq!(all(SMALL, &[text.as_bytes()]), all(SMALL, &[head, tail]));
        }
    }
}
