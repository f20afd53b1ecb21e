//! Inputs and intents in order, durable first (I8), so that any incident can be explained and replayed.
//!
//! A journal is a folder of segments. Each starts with a checkpoint, the whole state of the engine, and
//! goes on with records; the format is in `docs/journal.md`. It must never report as safe what a power cut
//! can take away, never take as good what was not written whole, and never destroy evidence: a file is
//! written by one run of the program, from its beginning, once; what is damaged is renamed and kept.
//!
//! Whatever goes wrong while writing ends the segment. Nothing is recorded until [`Journal::begin`] has
//! made a new one, with a checkpoint that covers what was not recorded (R25).

pub mod files;
pub mod frame;
pub mod reader;
#[cfg(test)]
mod real_tests;
pub mod recover;
pub mod segment;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod trouble;

use crate::disk::{Disk, NewFile};
use frame::{Header, Kind, TooLong};
use holdfast_core::action::{Action, Answer};
use holdfast_core::input::Input;
use holdfast_core::time::{Duration, Timestamp};
use recover::{Known, Recovery};
use segment::RawRecord;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io;
use std::sync::Arc;
use trouble::Trouble;

/// What the daemon records: an input and all that the engine made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What the engine was told.
    pub input: Input,
    /// What it asked for: the intents (I8).
    pub actions: Vec<Action>,
    /// What it answered to people.
    pub answers: Vec<Answer>,
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<T> {
    /// Its number; it only rises. Numbers left out were not recorded.
    pub n: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub body: T,
}

impl<T: DeserializeOwned> Record<T> {
    fn read(raw: &RawRecord) -> Result<Self, Trouble> {
        match serde_json::from_slice(&raw.json) {
            Ok(body) => Ok(Self { n: raw.n, at: raw.at, body }),
            Err(error) => Err(Trouble::NotUnderstood { n: raw.n, cause: error.to_string() }),
        }
    }
}

/// How large a journal may become.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A segment with so many bytes of records is full.
    pub segment_bytes: u64,
    /// With more than this in all, the oldest segments are removed: never the newest two, never one that
    /// is damaged, and one that is [still needed](Journal::keep_from) only at twice this.
    pub total_bytes: u64,
    /// The longest that a record stays unsafe, as long as a sync is begun when it is due.
    pub sync_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, total_bytes: 256 << 20, sync_after: Duration::from_secs(1) }
    }
}

/// Who begins a segment, when.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// The host.
    pub host: String,
    /// The boot of the host.
    pub boot: String,
    /// Wall clock minus [`Timestamp`], in microseconds, for display.
    pub wall_offset: i64,
    /// Now.
    pub at: Timestamp,
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A newer Holdfast wrote it; nothing was touched (I22).
    #[error("`{file}` was written by a newer Holdfast (journal version {version})")]
    Newer {
        /// The file.
        file: String,
        /// Its version of the format.
        version: u32,
    },
    /// The folder cannot be read.
    #[error("cannot list the journal folder `{folder}`")]
    Disk {
        /// The folder.
        folder: String,
        /// Why not.
        source: io::Error,
    },
}

/// Why something was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// An earlier error ended the segment, or none was begun; a new one must begin first.
    #[error("the journal is not being written since an earlier error")]
    Stopped,
    /// The disk refused.
    #[error("cannot {doing} `{file}`")]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// It is too long.
    #[error("the {what} is too long for the journal: {bytes} bytes")]
    TooLong {
        /// What.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// It cannot be put into words.
    #[error("a record cannot be written down")]
    Unwritable(#[from] serde_json::Error),
}

/// A journal that is being written.
pub struct Journal {
    disk: Arc<dyn Disk>,
    folder: String,
    limits: Limits,
    /// All segments, oldest first, with the one being written.
    segments: Vec<Known>,
    /// The number of the next segment.
    segment: u64,
    /// The number of the next record.
    next: u64,
    keep_from: Option<u64>,
    writer: Writer,
    buffer: Vec<u8>,
}

enum Writer {
    Open(Open),
    /// A new segment is worth a try from then on.
    Stopped {
        again: Timestamp,
    },
}

struct Open {
    file: Box<dyn NewFile>,
    name: String,
    salt: u32,
    /// Where the records begin.
    start: u64,
    /// Its length.
    length: u64,
    /// So much of it is safe on the disk.
    synced: u64,
    /// The time of the oldest record that is not.
    unsynced: Option<Timestamp>,
}

/// How long to wait before the next try to begin a segment.
const TRY_AGAIN: Duration = Duration::from_secs(1);

impl Journal {
    /// Opens the journal in a folder of a disk and finds the last state that it holds. Nothing is
    /// recorded before [`Journal::begin`].
    ///
    /// # Errors
    /// [`OpenError`]. Damage is no error; it is told in the recovery.
    pub fn open(disk: Arc<dyn Disk>, folder: &str, limits: Limits) -> Result<(Self, Recovery), OpenError> {
        let (segments, recovery) = recover::recover(&disk, folder)?;
        let journal = Self {
            disk,
            folder: folder.to_owned(),
            limits,
            segment: segments.iter().map(|segment| segment.number).max().unwrap_or(0) + 1,
            segments,
            next: recovery.next,
            keep_from: None,
            writer: Writer::Stopped { again: Timestamp::ZERO },
            buffer: Vec::new(),
        };
        Ok((journal, recovery))
    }

    /// Records something; its number. It is in the hands of the kernel then: it survives the end of the
    /// program, and a power cut once it was made safe ([`Journal::begin_sync`], [`Journal::flush`]). The
    /// caller's state has already changed by it: after an error the number is used up, nothing is recorded
    /// any more, and no action may be taken (I8).
    ///
    /// # Errors
    /// [`JournalError`]. The record may or may not be found after a crash, whole in either case.
    pub fn append<T: Serialize>(&mut self, at: Timestamp, body: &T) -> Result<u64, JournalError> {
        let n = self.next;
        self.next += 1;
        match self.try_append(n, at, body) {
            Ok(()) => Ok(n),
            Err(error) => {
                self.fail(at);
                Err(error)
            }
        }
    }

    fn try_append<T: Serialize>(&mut self, n: u64, at: Timestamp, body: &T) -> Result<(), JournalError> {
        let Writer::Open(open) = &mut self.writer else { return Err(JournalError::Stopped) };
        let json = serde_json::to_vec(body)?;
        let times = at.as_micros().to_le_bytes();
        let parts = [&n.to_le_bytes()[..], &times, &open.synced.to_le_bytes(), &json];
        self.buffer.clear();
        let framed = frame::encode(open.salt, Kind::Record, &parts, &mut self.buffer);
        framed.map_err(|TooLong| JournalError::TooLong { what: "record", bytes: json.len() })?;
        open.write(at, &self.buffer)
    }

    /// When everything written must be made safe at the latest.
    #[must_use]
    pub fn flush_due(&self) -> Option<Timestamp> {
        match &self.writer {
            Writer::Open(open) => open.unsynced.map(|since| since + self.limits.sync_after),
            Writer::Stopped { .. } => None,
        }
    }

    /// Makes all records safe, and waits until they are.
    ///
    /// # Errors
    /// [`JournalError`]; as for [`Journal::append`].
    pub fn flush(&mut self, now: Timestamp) -> Result<(), JournalError> {
        let Writer::Open(open) = &mut self.writer else { return Err(JournalError::Stopped) };
        let synced = open.sync();
        if synced.is_err() {
            self.fail(now);
        }
        synced
    }

    /// Whether [`Journal::begin`] should be called now: the segment is full, or was ended by an error and
    /// it is time for another try.
    #[must_use]
    pub fn wants_checkpoint(&self, now: Timestamp) -> bool {
        match &self.writer {
            Writer::Open(open) => open.length - open.start >= self.limits.segment_bytes,
            Writer::Stopped { again } => now >= *again,
        }
    }

    /// Whether records are being written.
    #[must_use]
    pub const fn is_writing(&self) -> bool {
        matches!(self.writer, Writer::Open(_))
    }

    /// Records from this number on are still needed, as the first one of an open incident is; `None`: none.
    pub fn keep_from(&mut self, n: Option<u64>) {
        self.keep_from = n;
    }

    /// Begins a new segment. `checkpoint` is the caller's whole state, with everything that was ever given
    /// to [`Journal::append`], recorded or not. Then the oldest segments go, to keep the bound.
    ///
    /// # Errors
    /// [`JournalError`]; then nothing is recorded until it succeeds.
    pub fn begin(&mut self, who: &Beginning, checkpoint: &[u8]) -> Result<(), JournalError> {
        self.finish(who.at + TRY_AGAIN);
        let number = self.segment;
        let name = files::name(&self.folder, number, false);
        let (bytes, salt) = self.opening(who, checkpoint)?;
        let failed = |doing, source| JournalError::Disk { doing, file: name.clone(), source };
        let new = format!("{name}.new");
        let written = self.disk.create(&new).and_then(|mut file| {
            file.write_at(0, &bytes)?;
            file.sync()?;
            Ok(file)
        });
        let file = written.map_err(|source| {
            drop(self.disk.remove(&new)); // room may be short; what stays is replaced next time
            failed("write", source)
        })?;
        self.segment += 1; // from here on the name may survive a crash
        let named = self.disk.rename(&new, &name).and_then(|()| self.disk.sync_folder(&self.folder));
        let length = bytes.len() as u64;
        let after = Some(self.next - 1);
        self.segments.push(Known { number, file: name.clone(), bytes: length, after, kept: false });
        named.map_err(|source| failed("name", source))?;
        let unsynced = None;
        self.writer =
            Writer::Open(Open { file, name, salt, start: length, length, synced: length, unsynced });
        self.prune();
        Ok(())
    }

    /// Ends the segment that is being written.
    fn finish(&mut self, again: Timestamp) {
        let Writer::Open(mut old) = std::mem::replace(&mut self.writer, Writer::Stopped { again }) else {
            return;
        };
        drop(old.sync()); // for history's sake; the next checkpoint covers what may be lost
        if let Some(known) = self.segments.last_mut() {
            known.bytes = old.length;
        }
    }

    /// The first bytes of a segment, and the salt of its frames.
    fn opening(&self, who: &Beginning, checkpoint: &[u8]) -> Result<(Vec<u8>, u32), JournalError> {
        let after = self.next - 1;
        let header = Header {
            segment: self.segment,
            after,
            host: who.host.clone(),
            boot: who.boot.clone(),
            wall_offset: who.wall_offset,
            created: who.at,
        };
        let header = serde_json::to_vec(&header)?;
        let mut bytes = Vec::with_capacity(checkpoint.len() + 1024);
        bytes.extend_from_slice(&frame::preamble());
        let too_long = |what, bytes| move |TooLong| JournalError::TooLong { what, bytes };
        let framed = frame::encode(0, Kind::Header, &[&header], &mut bytes);
        let salt = framed.map_err(too_long("header", header.len()))?;
        let parts = [&after.to_le_bytes()[..], &who.at.as_micros().to_le_bytes(), checkpoint];
        let framed = frame::encode(salt, Kind::Checkpoint, &parts, &mut bytes);
        framed.map_err(too_long("checkpoint", checkpoint.len()))?;
        Ok((bytes, salt))
    }

    /// Removes the oldest segments while there are too many bytes.
    fn prune(&mut self) {
        while let Some(oldest) = self.removable() {
            let segment = &self.segments[oldest];
            match self.disk.remove(&segment.file) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(file = segment.file, %error, "an old journal segment cannot be removed");
                    return; // the next segment tries again
                }
            }
            self.segments.remove(oldest);
        }
    }

    /// The place of the oldest segment, if it must go.
    fn removable(&self) -> Option<usize> {
        let ours = || self.segments.iter().enumerate().filter(|(_, segment)| !segment.kept);
        let total: u64 = ours().map(|(_, segment)| segment.bytes).sum();
        let count = ours().count();
        if total <= self.limits.total_bytes && count <= SEGMENTS_MOST {
            return None;
        }
        let (oldest, _) = ours().take(count.saturating_sub(2)).next()?;
        let last = self.segments.get(oldest + 1).and_then(|following| following.after);
        let needed = self.keep_from.is_some_and(|from| last.is_none_or(|last| from <= last));
        let at_twice = total > self.limits.total_bytes.saturating_mul(2) || count > SEGMENTS_MOST * 2;
        (!needed || at_twice).then_some(oldest)
    }

    /// An error ends the segment; a new one is worth a try at once.
    fn fail(&mut self, now: Timestamp) {
        if let Writer::Open(open) = &self.writer {
            if let Some(known) = self.segments.last_mut() {
                known.bytes = open.length;
            }
            self.writer = Writer::Stopped { again: now };
        }
    }
}

/// The most segments, however small: a program that is started again and again makes many.
pub const SEGMENTS_MOST: usize = 1_000;

impl Open {
    fn write(&mut self, at: Timestamp, frame: &[u8]) -> Result<(), JournalError> {
        let written = self.file.write_at(self.length, frame);
        written.map_err(|source| JournalError::Disk { doing: "write", file: self.name.clone(), source })?;
        self.length += frame.len() as u64;
        self.unsynced.get_or_insert(at);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        if self.synced < self.length {
            let synced = self.file.sync();
            synced.map_err(|source| JournalError::Disk { doing: "sync", file: self.name.clone(), source })?;
        }
        self.synced = self.length;
        self.unsynced = None;
        Ok(())
    }
}
