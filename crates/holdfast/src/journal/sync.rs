//! Records are made safe beside the loop that writes them: it goes on deciding while the disk works, and
//! one sync makes safe all that was written before it began.
//!
//! Never tells a record safe that was written after the sync began, and never on behalf of a segment that
//! has ended: what an ended segment may have lost is in the checkpoint of the next one.

use super::{Journal, JournalError, Writer};
use crate::disk::NewFile;
use holdfast_core::time::Timestamp;
use std::io;

/// A sync that was begun. It may take as long as the disk does.
pub struct Sync {
    file: Box<dyn NewFile>,
    mark: Mark,
}

/// A sync that has ended.
pub struct Synced {
    mark: Mark,
    result: io::Result<()>,
}

/// What had been written when it began.
#[derive(Clone, Copy)]
struct Mark {
    segment: u64,
    length: u64,
    /// The number of the last record.
    last: u64,
}

impl Sync {
    /// Carries it out; on a thread that may wait.
    #[must_use]
    pub fn carry_out(mut self) -> Synced {
        Synced { mark: self.mark, result: self.file.sync() }
    }
}

impl Journal {
    /// Begins to make safe all that is written by now; `None` if it is.
    ///
    /// # Errors
    /// As for [`Journal::append`].
    pub fn begin_sync(&mut self, now: Timestamp) -> Result<Option<Sync>, JournalError> {
        let Writer::Open(open) = &mut self.writer else { return Err(JournalError::Stopped) };
        if open.synced == open.length {
            return Ok(None);
        }
        let mark = Mark { segment: self.segment, length: open.length, last: self.next - 1 };
        match open.file.another() {
            Ok(file) => {
                open.unsynced = None; // of what is written from now on
                Ok(Some(Sync { file, mark }))
            }
            Err(source) => {
                let failed = JournalError::Disk { doing: "sync", file: open.name.clone(), source };
                self.fail(now);
                Err(failed)
            }
        }
    }

    /// A sync has ended: the number of the last record that is safe now.
    ///
    /// # Errors
    /// As for [`Journal::append`]; everything since the sync before it may be lost.
    pub fn end_sync(&mut self, now: Timestamp, synced: Synced) -> Result<u64, JournalError> {
        let Synced { mark, result } = synced;
        let Writer::Open(open) = &mut self.writer else { return Err(JournalError::Stopped) };
        if mark.segment != self.segment {
            return Ok(mark.last); // the checkpoint of the segment that followed covers it
        }
        match result {
            Ok(()) => {
                open.synced = open.synced.max(mark.length);
                Ok(mark.last)
            }
            Err(source) => {
                let failed = JournalError::Disk { doing: "sync", file: open.name.clone(), source };
                self.fail(now);
                Err(failed)
            }
        }
    }
}
