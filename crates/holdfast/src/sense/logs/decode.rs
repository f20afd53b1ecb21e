//! A line of a log becomes a record, by the form that its log is written in.

use holdfast_logs::{Record, clean};
use std::borrow::Cow;

/// How the lines of a log are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Whatever a line itself shows.
    #[default]
    Auto,
    /// The whole line is the message.
    Plain,
    /// As a syslog daemon writes its files.
    Syslog,
    /// One JSON object a line, as `journalctl -o json` prints.
    JournalJson,
}

/// The record of one line; `None` if it holds nothing.
#[must_use]
pub fn decode(format: Format, line: &[u8], received: i64) -> Option<Record> {
    let line = line.trim_ascii_end();
    if line.is_empty() {
        return None;
    }
    let _ = (format, received);
    Some(Record { text: Cow::into_owned(clean(line)), ..Record::default() })
}
