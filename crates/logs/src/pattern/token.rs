//! What a line is made of: words and marks that the writer's program wrote, and values that it filled in.

use super::hash;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The type of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Value {
    /// A number, with its sign, fraction, exponent, percent sign or version dots: `-1`, `0.25`, `50%`, `6.1.2`.
    Number,
    /// A hexadecimal number: `0x7fed`, `003a9260`.
    Hex,
    /// Where somebody is on a network: IPv4, IPv6, a hardware address, a host's name, with its port if any.
    Address,
    /// A file, by an absolute or relative path, also of Windows.
    Path,
    /// A UUID.
    Uuid,
    /// How long: `15 ms`, `<1 sec`, `00:53`.
    Duration,
    /// How much: `128 bytes`, `64172MB`, `1522 bytes (1.48 KB)`.
    Size,
    /// A date, a time of day or both.
    Time,
    /// A URL, or the target of an HTTP request.
    Url,
    /// A text of one piece in double quotes.
    Quoted,
    /// `true`, `false` or `null`, however written.
    Truth,
    /// A user's name.
    Name,
    /// A name with numbers in it: `blk_-3228470001178394592`, `Package_for_KB2653956`.
    Id,
    /// A word, where lines have shown that it changes.
    Word,
    /// Several pieces: a list, something optional, or the rest of a line of too many tokens.
    Several,
}

impl Value {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Number,
        Self::Hex,
        Self::Address,
        Self::Path,
        Self::Uuid,
        Self::Duration,
        Self::Size,
        Self::Time,
        Self::Url,
        Self::Quoted,
        Self::Truth,
        Self::Name,
        Self::Id,
        Self::Word,
        Self::Several,
    ];

    /// Its name in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Hex => "hex",
            Self::Address => "address",
            Self::Path => "path",
            Self::Uuid => "uuid",
            Self::Duration => "duration",
            Self::Size => "size",
            Self::Time => "time",
            Self::Url => "url",
            Self::Quoted => "quoted",
            Self::Truth => "truth",
            Self::Name => "name",
            Self::Id => "id",
            Self::Word => "word",
            Self::Several => "several",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Which types a variable has had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values(u16);

impl Values {
    pub(super) fn add(&mut self, value: Value) {
        self.0 |= 1 << value as u16;
    }

    pub(super) fn add_all(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = Value> {
        Value::ALL.into_iter().filter(move |value| self.0 & (1 << *value as u16) != 0)
    }
}

/// What one token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum What {
    /// Letters: part of the template until lines show otherwise.
    Word,
    /// A word that stands where a user's name does: shown as a variable, told apart like a word.
    Name,
    /// A word with a digit or two (`eth0`, `L2`, `SOCKS5`): one of a family, or just so called.
    Numbered,
    /// Punctuation.
    Mark,
    /// A value by its form.
    Value(Value),
}

impl What {
    /// What it is where it has turned out to change.
    pub const fn as_value(self) -> Value {
        match self {
            Self::Word | Self::Mark => Value::Word,
            Self::Name => Value::Name,
            Self::Numbered => Value::Id,
            Self::Value(value) => value,
        }
    }
}

/// One token of one line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    /// Where it is in the line, in bytes.
    pub start: u32,
    /// Behind its last byte.
    pub end: u32,
    /// How many bytes at its end are the unit of a value, with the blank before it.
    pub tail: u32,
    /// Whether a blank stands before it.
    pub gap: bool,
    /// What it is.
    pub what: What,
    /// Of its text; of a value, that of its unit.
    pub hash: u64,
}

impl Token {
    /// Its text.
    pub fn text<'a>(&self, line: &'a str) -> &'a str {
        line.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The unit at its end.
    pub fn tail<'a>(&self, line: &'a str) -> &'a str {
        line.get((self.end - self.tail) as usize..self.end as usize).unwrap_or_default()
    }

    /// Whether it is a word of more than a letter.
    pub fn is_telling(&self) -> bool {
        self.what == What::Word && self.end - self.start > 1
    }

    /// What it counts as when shapes are compared.
    pub fn key(&self) -> u64 {
        key(self.what, self.hash, self.gap)
    }
}

const VALUE: u64 = 0x1d8e_4e27_c47d_124f;
const NUMBERED: u64 = 0xeb44_acca_b455_d165;
const HOLE: u64 = 0x9c6e_6877_736c_46e3;
const GAP: u64 = 0x5851_f42d_4c95_7f2d;

/// What a token counts as when shapes are compared: all values are the same.
pub(super) const fn key(what: What, hash: u64, gap: bool) -> u64 {
    let key = match what {
        What::Word | What::Name | What::Mark => hash,
        What::Numbered => NUMBERED,
        What::Value(_) => VALUE,
    };
    if gap { key ^ GAP } else { key }
}

/// A value in its place.
pub(super) const fn value_key(gap: bool) -> u64 {
    if gap { VALUE ^ GAP } else { VALUE }
}

/// A numbered word in its place.
pub(super) const fn numbered_key(gap: bool) -> u64 {
    if gap { NUMBERED ^ GAP } else { NUMBERED }
}

/// Whatever word in its place.
pub(super) const fn hole_key(gap: bool) -> u64 {
    if gap { HOLE ^ GAP } else { HOLE }
}

/// The sum of these tokens.
pub(super) fn sum(tokens: &[Token]) -> hash::Sum {
    tokens.iter().enumerate().fold(hash::Sum::default(), |sum, (at, token)| sum.with(token.key(), at))
}
