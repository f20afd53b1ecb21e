//! One thing that a program said, whatever it came through.

use serde::{Deserialize, Serialize};

/// Bytes of a record's text, all its lines together.
pub const LONGEST_TEXT: usize = 16 * 1024;

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
    /// Bytes of memory that it holds on to, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let fields =
            self.fields.iter().map(|(name, value)| name.len() + value.len() + 2 * size_of::<String>());
        size_of::<Self>() + self.program.len() + self.text.len() + fields.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_are_numbered_as_in_syslog() {
        assert_eq!(Severity::from_syslog(0), Some(Severity::Emergency));
        assert_eq!(Severity::from_syslog(3), Some(Severity::Error));
        assert_eq!(Severity::from_syslog(7), Some(Severity::Debug));
        assert_eq!(Severity::from_syslog(8), None);
        assert!(Severity::ALL.is_sorted());
    }
}
