//! Bytes become records: one file a format. No decoder panics, waits, or takes more memory than a small
//! multiple of what it is given; what a source tells about itself (its host, its service) is a field, and never
//! decides whose record it is.

mod auto;
mod frames;
mod journal;
mod json;
mod otlp;
mod plain;
mod syslog;
pub(crate) mod time;
mod windows;
pub(crate) mod words;

pub use auto::{auto, may_be_json, object};
pub use frames::Frames;
pub use journal::{JournalError, JournalRecord, LONGEST_ENTRY, journal};
pub use json::{LONGEST_OBJECT, json, json_of};
pub use otlp::{LONGEST_REQUEST, MOST_BYTES, MOST_RECORDS, OtlpError, Wire, otlp_json, otlp_proto};
pub use plain::{Glance, glance, plain};
pub use syslog::syslog;
pub use windows::{
    EVTX_CHUNK, EVTX_HEADER, Events, EvtxError, LONGEST_EVENT, event_xml, evtx_chunk, evtx_header,
};
