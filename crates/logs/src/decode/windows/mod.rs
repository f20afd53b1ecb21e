//! Events of Windows: as XML, as `wevtutil` prints them, and as they lie in EVTX files.

mod binxml;
mod event;
mod evtx;
mod texts;
mod xml;

pub use evtx::{EVTX_CHUNK, EVTX_HEADER, EvtxError, evtx_chunk, evtx_header};
pub use xml::{LONGEST_EVENT, event_xml};

use crate::record::Record;

/// Events that were read, and how many could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// In their order. Fields: `host`, `channel`, `event` (its number), `record`, `pid`, then the data of the event.
    pub records: Vec<Record>,
    /// Events that are damaged, or made to hurt.
    pub skipped: u64,
}
