//! Bytes become records: one file a format. No decoder panics, waits, or takes more memory than a small
//! multiple of what it is given; what a source tells about itself (its host, its service) is a field, and never
//! decides whose record it is.

mod frames;
mod journal;
mod plain;
mod syslog;
pub(crate) mod time;
pub(crate) mod words;

pub use frames::Frames;
pub use journal::{JournalError, JournalRecord, LONGEST_ENTRY, journal};
pub use plain::plain;
pub use syslog::syslog;
