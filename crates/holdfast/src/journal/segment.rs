//! Reading one segment file, a frame at a time, in bounded memory. It believes no byte and writes none.

use super::frame::{self, Decoded, HEAD, Header, Kind, PREAMBLE};
use super::trouble::Trouble;
use crate::disk::Disk;
use holdfast_core::time::Timestamp;
use std::io;
use std::sync::Arc;

/// How much is read at once.
const CHUNK: usize = 128 << 10;
/// How many bytes are checksummed in the search for a good frame after a bad one, before giving up.
const SEARCH_MOST: usize = 64 << 20;

/// A segment that is being read.
pub struct Segment {
    window: Window,
    header: Header,
    salt: u32,
    first: bool,
}

/// The state before the first record of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The number of the last record that it covers.
    pub after: u64,
    /// When it was made.
    pub at: Timestamp,
    /// What the caller gave.
    pub bytes: Vec<u8>,
}

/// One record as it is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// Its number.
    pub n: u64,
    /// Its time.
    pub at: Timestamp,
    /// So many bytes of the file were known to be on the disk when it was written.
    pub synced: u64,
    /// What it says.
    pub json: Vec<u8>,
}

/// The next thing in a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Its checkpoint.
    Checkpoint(Checkpoint),
    /// A record.
    Record(RawRecord),
    /// It ends here, at the end of a frame.
    End,
    /// From this byte on there is no good frame.
    Bad(u64),
}

/// What was found behind the first bad byte of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aftermath {
    /// The highest number of a record there.
    pub last: Option<u64>,
    /// The latest time of a record there.
    pub at: Timestamp,
    /// The bad bytes had been reported as safe on the disk.
    pub was_durable: bool,
}

/// Why a segment cannot be read at all.
#[derive(Debug)]
pub enum NoSegment {
    /// A newer Holdfast wrote it, in this version of the format.
    Newer(u32),
    /// It has no good header, or is no segment at all.
    NoHeader,
    /// The disk refused.
    Disk(io::Error),
}

impl NoSegment {
    /// The same, for people, about this file.
    pub fn about(self, file: String) -> Trouble {
        match self {
            Self::Newer(version) => Trouble::Newer { file, version },
            Self::NoHeader => Trouble::NoHeader { file },
            Self::Disk(error) => Trouble::Unreadable { file, cause: error.to_string() },
        }
    }
}

impl Segment {
    /// Opens a segment and reads its header.
    ///
    /// # Errors
    /// [`NoSegment`].
    pub fn open(disk: Arc<dyn Disk>, file: &str) -> Result<Self, NoSegment> {
        let mut window = Window { disk, file: file.to_owned(), bytes: Vec::new(), start: 0, offset: 0 };
        window.fill(PREAMBLE).map_err(NoSegment::Disk)?;
        match frame::version(window.rest()) {
            None => return Err(NoSegment::NoHeader),
            Some(version) if version > frame::VERSION => return Err(NoSegment::Newer(version)),
            Some(_) => window.skip(PREAMBLE),
        }
        window.fill(HEAD + frame::HEADER_MOST).map_err(NoSegment::Disk)?;
        let Decoded::Frame { kind: Kind::Header, crc, payload } = frame::decode(0, window.rest()) else {
            return Err(NoSegment::NoHeader);
        };
        let header = serde_json::from_slice(payload).map_err(|_| NoSegment::NoHeader)?;
        let size = HEAD + payload.len();
        window.skip(size);
        Ok(Self { window, header, salt: crc, first: true })
    }

    /// Who wrote it, when.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The name of the file.
    pub fn file(&self) -> &str {
        &self.window.file
    }

    /// The next thing in it. After `End` or `Bad` it gives the same again, until [`Segment::resync`].
    ///
    /// # Errors
    /// The disk refused.
    pub fn step(&mut self) -> io::Result<Step> {
        let found = self.frame()?;
        self.first = self.first && matches!(found, Step::Bad(_) | Step::End);
        Ok(found)
    }

    /// Whether its checkpoint has not been passed yet.
    pub const fn before_checkpoint(&self) -> bool {
        self.first
    }

    /// As [`Segment::step`], but a damaged checkpoint is passed over.
    ///
    /// # Errors
    /// The disk refused.
    pub fn advance(&mut self) -> io::Result<Step> {
        let step = self.step()?;
        if self.first && matches!(step, Step::Bad(_)) && self.resync()? { self.step() } else { Ok(step) }
    }

    /// Searches for the next good record behind a bad byte; `false` if there is none.
    ///
    /// # Errors
    /// The disk refused.
    pub fn resync(&mut self) -> io::Result<bool> {
        let mut searched = 0;
        loop {
            self.window.fill(HEAD)?;
            if self.window.rest().len() <= HEAD || searched > SEARCH_MOST {
                return Ok(false);
            }
            self.window.skip(1);
            let rest = self.window.rest();
            if rest.get(8) != Some(&3) {
                continue; // records only: a stray checkpoint is of no use
            }
            if let Decoded::Short(need) = frame::decode(self.salt, rest) {
                self.window.fill(need)?;
            }
            let rest = self.window.rest();
            searched += rest.len().min(frame::RECORD_MOST);
            if let Decoded::Frame { .. } = frame::decode(self.salt, rest) {
                self.first = false;
                return Ok(true);
            }
        }
    }

    /// Reads on behind the bad byte at `from`, to judge what it means: an unfinished end, as every crash
    /// leaves it, or damage to what had been safe.
    ///
    /// # Errors
    /// The disk refused.
    pub fn aftermath(&mut self, from: u64) -> io::Result<Aftermath> {
        let mut seen = Aftermath::default();
        while self.resync()? {
            while let Step::Record(record) = self.step()? {
                seen.last = seen.last.max(Some(record.n));
                seen.at = seen.at.max(record.at);
                seen.was_durable |= record.synced > from;
            }
        }
        Ok(seen)
    }

    fn frame(&mut self) -> io::Result<Step> {
        self.window.fill(HEAD)?;
        if let Decoded::Short(need) = frame::decode(self.salt, self.window.rest()) {
            self.window.fill(need)?;
        }
        let here = self.window.here();
        let rest = self.window.rest();
        let (step, size) = match frame::decode(self.salt, rest) {
            Decoded::Short(_) if rest.is_empty() => return Ok(Step::End),
            Decoded::Frame { kind: Kind::Checkpoint, payload, .. } if self.first => {
                (checkpoint(payload), HEAD + payload.len())
            }
            Decoded::Frame { kind: Kind::Record, payload, .. } if !self.first => {
                (record(payload), HEAD + payload.len())
            }
            Decoded::Frame { .. } | Decoded::Short(_) | Decoded::Bad => (None, 0),
        };
        let Some(step) = step else { return Ok(Step::Bad(here)) };
        self.window.skip(size);
        Ok(step)
    }
}

fn checkpoint(payload: &[u8]) -> Option<Step> {
    let after = frame::u64_at(payload, 0)?;
    let at = Timestamp::from_micros(frame::u64_at(payload, 8)?);
    let bytes = payload.get(frame::CHECKPOINT_FIXED..)?.to_vec();
    Some(Step::Checkpoint(Checkpoint { after, at, bytes }))
}

fn record(payload: &[u8]) -> Option<Step> {
    let n = frame::u64_at(payload, 0)?;
    let at = Timestamp::from_micros(frame::u64_at(payload, 8)?);
    let synced = frame::u64_at(payload, 16)?;
    let json = payload.get(frame::RECORD_FIXED..)?.to_vec();
    Some(Step::Record(RawRecord { n, at, synced, json }))
}

/// A part of a file in memory.
struct Window {
    disk: Arc<dyn Disk>,
    file: String,
    bytes: Vec<u8>,
    start: usize,
    /// Where `bytes` is in the file.
    offset: u64,
}

impl Window {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn here(&self) -> u64 {
        self.offset + self.start as u64
    }

    fn skip(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.bytes.len());
    }

    /// Has at least so many bytes ready, if the file has them.
    fn fill(&mut self, need: usize) -> io::Result<()> {
        let have = self.bytes.len() - self.start;
        if have >= need {
            return Ok(());
        }
        self.offset = self.here();
        self.bytes.drain(..self.start);
        self.start = 0;
        let more = self.disk.read(&self.file, self.offset + have as u64, (need - have).max(CHUNK))?;
        self.bytes.extend_from_slice(&more);
        Ok(())
    }
}
