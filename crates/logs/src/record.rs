//! One thing that a program said, whatever it came through.

use crate::clean::{clean_text, within};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Bytes of a record's text, all its lines together.
pub const LONGEST_TEXT: usize = 16 * 1024;

/// Bytes of a program's name.
pub const LONGEST_PROGRAM: usize = 128;

/// Fields of a record that are kept.
pub const MOST_FIELDS: usize = 32;

/// Bytes of a field's name.
pub const LONGEST_FIELD_NAME: usize = 64;

/// Bytes of a field's value.
pub const LONGEST_FIELD: usize = 256;

/// How bad a line is: as its writer says (RFC 5424, section 6.2.1), or, of a known line, as its rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For those who mend the program.
    Debug,
    /// What happens all day.
    Info,
    /// Good to know; nothing is wrong.
    Notice,
    /// Something is not as it should be, and goes on.
    Warning,
    /// Something failed.
    Error,
    /// Something stopped, or data are in danger.
    Critical,
    /// Somebody must act at once.
    Alert,
    /// Nothing can be used any more.
    Emergency,
}

impl Severity {
    /// All, the mildest first.
    pub const ALL: [Self; 8] = [
        Self::Debug,
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Alert,
        Self::Emergency,
    ];

    /// By its number in syslog, where 0 is an emergency and 7 is for debugging.
    #[must_use]
    pub fn from_syslog(number: u8) -> Option<Self> {
        Self::ALL.get(7_usize.checked_sub(usize::from(number))?).copied()
    }

    /// The name on screen and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }
}

/// One thing that a program said, in one line or in several.
///
/// All of it was written by a stranger: it is cleaned and bounded, and only ever shown, searched or matched (I17, I18).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, as its source says, in microseconds since 1970 (UTC). Only shown and searched by; never decided by (I20).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
    /// The source's distance from UTC in minutes, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<i16>,
    /// How bad, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// Which program said it, and empty where that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program: String,
    /// What was said, clean, without what stood before it; lines are divided by `\n`. At most [`LONGEST_TEXT`] bytes.
    pub text: String,
    /// What else was told with it, by name, in the order of the source: at most [`MOST_FIELDS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<(String, String)>,
}

impl Record {
    /// Takes what was said, cleaned and cut.
    pub fn set_text(&mut self, raw: &[u8]) {
        self.text = clean_text(raw).into_owned();
    }

    /// Takes who said it, cleaned and cut.
    pub fn set_program(&mut self, raw: &[u8]) {
        self.program = one_line(raw, LONGEST_PROGRAM);
    }

    /// Adds what else was told, cleaned and cut: unless it has no name or no value, or there are
    /// [`MOST_FIELDS`] already.
    pub fn add_field(&mut self, name: &str, raw: &[u8]) {
        if self.fields.len() >= MOST_FIELDS || name.is_empty() || raw.is_empty() {
            return;
        }
        let name = one_line(name.as_bytes(), LONGEST_FIELD_NAME);
        if !name.is_empty() {
            self.fields.push((name, one_line(raw, LONGEST_FIELD)));
        }
    }

    /// A field by its name: the first, if there are several.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The text with its program before it, as a file of syslog has it (`systemd[1]: Started`): what the rules
    /// look at, so that a line counts as the kernel's only if the kernel said it.
    #[must_use]
    pub fn line(&self) -> Cow<'_, str> {
        match self.lead() {
            lead if lead.is_empty() => Cow::Borrowed(&self.text),
            lead => Cow::Owned(lead + &self.text),
        }
    }

    /// `systemd[1]: `; nothing, if it is not known who said it.
    #[must_use]
    pub fn lead(&self) -> String {
        match self.field("pid") {
            _ if self.program.is_empty() => String::new(),
            Some(pid) => format!("{}[{pid}]: ", self.program),
            None => format!("{}: ", self.program),
        }
    }

    /// Bytes of memory that it holds on to, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let fields =
            self.fields.iter().map(|(name, value)| name.len() + value.len() + 2 * size_of::<String>());
        size_of::<Self>() + self.program.len() + self.text.len() + fields.sum::<usize>()
    }
}

/// A short text: the ends of its lines become blanks.
fn one_line(raw: &[u8], most: usize) -> String {
    let raw = &raw[..raw.len().min(2 * most)]; // what is taken out takes no room
    let text = clean_text(raw);
    let text = if text.contains('\n') { Cow::Owned(text.replace('\n', " ")) } else { text };
    within(text, most).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_put_in_is_clean_and_within_its_limits() {
        let mut record = Record::default();
        record.set_text("\u{feff}\x1b[1mé\0\nzwei\n".repeat(9_000).as_bytes());
        record.set_program(&[b'p'; 1_000]);
        for number in 0..40 {
            record.add_field(&format!("name{number}{}", "é".repeat(40)), b"a\nb\x1b]0;x");
        }
        record.add_field("", b"x");
        assert!(record.text.len() <= LONGEST_TEXT && record.text.starts_with("\u{feff}é\nzwei\n"));
        assert_eq!((record.program.len(), record.fields.len()), (LONGEST_PROGRAM, MOST_FIELDS));
        assert!(record.fields.iter().all(|(name, value)| name.len() <= LONGEST_FIELD_NAME && value == "a b"));
        assert_eq!((record.field("x"), record.field(&record.fields[0].0)), (None, Some("a b")));
    }

    #[test]
    fn severities_are_numbered_as_in_syslog() {
        assert_eq!(Severity::from_syslog(0), Some(Severity::Emergency));
        assert_eq!(Severity::from_syslog(3), Some(Severity::Error));
        assert_eq!(Severity::from_syslog(7), Some(Severity::Debug));
        assert_eq!(Severity::from_syslog(8), None);
        assert!(Severity::ALL.is_sorted());
    }
}
