//! Why a talk ended, or a request was refused.

use std::fmt;
use std::io;

/// The most of a text of the other side that is kept (characters).
const TEXT_MOST: usize = 200;

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum NbdError {
    /// The stream failed, ended, or nothing came in time.
    #[error("the NBD connection failed while {doing}")]
    Stream {
        /// What was under way.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The other side is something else.
    #[error("the other side does not speak NBD (fixed newstyle)")]
    NotNbd,
    /// The server would not.
    #[error("the NBD server refuses {what}: {refusal}")]
    Refused {
        /// What it was asked for.
        what: &'static str,
        /// How.
        refusal: Refusal,
    },
    /// The other side broke the protocol, or one of our limits.
    #[error("the other side breaks the NBD protocol: {0}")]
    Broken(&'static str),
}

impl NbdError {
    pub(crate) fn stream(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Stream { doing, source }
    }
}

/// An error that the other side told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its number: of an option with the highest bit set, otherwise as of Linux.
    pub code: u32,
    /// Its own words, tamed; may be empty.
    pub text: String,
}

impl Refusal {
    pub(crate) fn new(code: u32, text: &[u8]) -> Self {
        let plain = |c: char| if c.is_control() || is_mark(c) { '\u{fffd}' } else { c };
        Self { code, text: String::from_utf8_lossy(text).chars().take(TEXT_MOST).map(plain).collect() }
    }
}

/// Characters that are not seen, or turn the text around.
const fn is_mark(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = match self.code {
            0x8000_0001 => "not supported",
            0x8000_0002 => "forbidden",
            0x8000_0003 | 22 => "invalid",
            0x8000_0005 => "TLS is required",
            0x8000_0006 => "there is no such export",
            0x8000_0007 | 108 => "it is shutting down",
            0x8000_0009 | 75 => "too big",
            1 => "not permitted",
            5 => "input/output error",
            12 => "no memory",
            28 => "no space left",
            95 => "not supported",
            _ => "error",
        };
        write!(f, "{known} ({:#x})", self.code)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_other_side_are_shown_tamed_and_short() {
        let shown = Refusal::new(0x8000_0006, b"\x1b[2Jno\xe2\x80\xae\n").to_string();
        assert_eq!(shown, "there is no such export (0x80000006): \u{fffd}[2Jno\u{fffd}\u{fffd}");
        assert!(Refusal::new(5, &[b'x'; 9_000]).to_string().len() < 250);
        assert_eq!(Refusal::new(5, b"").to_string(), "input/output error (0x5)");
    }
}
