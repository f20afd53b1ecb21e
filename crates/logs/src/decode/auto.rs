//! Lines of a log that may be written in several forms: each line shows its own.

use super::journal::journal;
use super::json::{json, within};
use super::plain::plain;
use crate::record::Record;

/// What only an entry of the journal has.
const JOURNAL: &[u8] = b"\"__REALTIME_TIMESTAMP\"";

/// Whether a line may be a JSON object: its first byte but blanks says so.
#[must_use]
pub fn may_be_json(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    line.trim_ascii_start().starts_with(b"{")
}

/// The record of one line, by the form that it shows: an entry of the journal, a JSON object with a message, or text as
/// [`plain`] reads it, behind whose head a JSON object may stand in place of the message.
#[must_use]
pub fn auto(line: &[u8], received_micros: i64) -> Record {
    if may_be_json(line) {
        return object(line, received_micros).unwrap_or_else(|| plain(line, received_micros));
    }
    within(plain(line, received_micros))
}

/// The record of a line that is an entry of the journal, or a JSON object with a message.
#[must_use]
pub fn object(line: &[u8], received_micros: i64) -> Option<Record> {
    let is_entry = memchr::memmem::find(line, JOURNAL).is_some();
    let entry = if is_entry { journal(line).ok().map(|entry| entry.record) } else { None };
    entry.or_else(|| json(line, received_micros))
}
