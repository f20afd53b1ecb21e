//! Follows one log file of this host through rotation: rename, copy and truncate, swap of a link, gone and back.
//!
//! A look reads a bounded piece and never waits (A30). A file that was replaced is read to its end first, and as
//! long as its writer has not let go of it.

use super::super::tail::{Lines, Links, Open, TailError, id};
use super::place::{Marker, Place, is_packed};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes read at one look.
pub const MOST_A_LOOK: u64 = 64 * 1024;
/// Bytes that may be left unread; beyond it, old ones are skipped: no log is so long that nobody read it.
const MOST_BEHIND: u64 = 256 << 20;
/// A replaced file may still be written to, until its writer opens the new one: it is given up when it was quiet for
/// so long ...
const QUIET: Duration = Duration::from_secs(2);
/// ... or when its replacement has waited so long.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Where to begin in a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At its end: what is in it is of long ago.
    End,
    /// With so many bytes behind us; a file that is shorter is read from its start.
    Behind(u64),
    /// Where we stopped, in it or in what it was rotated to.
    At(Place),
}

/// One line, and the place behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its bytes, with its end.
    pub text: Vec<u8>,
    /// Where to go on behind it.
    pub place: Place,
}

/// What a look has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Lines, in order.
    pub lines: Vec<Line>,
    /// There is more to read at once.
    pub more: bool,
    /// Nothing is at the path.
    pub missing: bool,
    /// Bytes that were skipped.
    pub skipped: u64,
    /// The place where we stopped was not found again, so lines may be missing.
    pub gap: bool,
}

/// One file.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    longest: usize,
    begin: Begin,
    open: Option<Reading>,
    /// Since when something else is at the path.
    replaced: Option<Instant>,
}

/// A file that is being read.
#[derive(Debug)]
struct Reading {
    open: Open,
    lines: Lines,
    /// When something was read from it last.
    read_at: Instant,
    /// Where we are: kept, for after a truncation the file does not tell any more.
    place: Place,
    whence: Whence,
}

/// What a file is to the path that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whence {
    /// It is there, or was when it was opened.
    There,
    /// It was moved away from there while we were away; its writer may still have it.
    Moved,
    /// It is a copy of what was there, and nobody writes to it.
    Copied,
}

impl Follower {
    /// Lines longer than `longest` are cut.
    #[must_use]
    pub fn new(path: &Path, begin: Begin, longest: usize) -> Self {
        Self { path: path.to_owned(), longest, begin, open: None, replaced: None }
    }

    /// The file that is being read, and how far.
    #[must_use]
    pub fn reads(&self) -> Option<((u64, u64), u64)> {
        self.open.as_ref().map(|reading| (reading.open.id, reading.open.offset))
    }

    /// Reads what is new, at most 64 KiB. A file that is not there is no error.
    ///
    /// # Errors
    /// [`TailError`]; the next look tries again.
    pub fn look(&mut self, now: Instant) -> Result<Look, TailError> {
        let path = self.path.clone();
        let failed = |source| TailError::Io { path: path.clone(), source };
        let mut look = Look::default();
        let there = match std::fs::metadata(&self.path) {
            Ok(meta) if !meta.is_file() => {
                self.open = None;
                self.begin = Begin::Behind(0);
                return Err(TailError::NotAFile(path));
            }
            Ok(meta) => Some(id(&meta)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        look.missing = there.is_none();
        match (&self.open, self.begin) {
            (Some(_), _) => {}
            (None, Begin::At(place)) if there.is_none() => self.reopen_moved(now, place).map_err(failed)?,
            (None, _) if there.is_none() => {}
            (None, _) => self.reopen(now, &mut look)?,
        }
        let Some(reading) = &mut self.open else { return Ok(look) };
        if reading.whence == Whence::There && there == Some(reading.open.id) {
            self.replaced = None;
            self.look_for_truncation(now).map_err(failed)?;
            self.take(now, &mut look).map_err(failed)?;
        } else {
            self.take(now, &mut look).map_err(failed)?;
            self.leave(now, there.is_some(), &mut look);
        }
        Ok(look)
    }

    /// The file was cut. If what was in it was copied first, the copy is read to its end.
    fn look_for_truncation(&mut self, now: Instant) -> io::Result<()> {
        let Some(reading) = &mut self.open else { return Ok(()) };
        if reading.open.size()? >= reading.open.offset && reading.open.is_known()? {
            return Ok(());
        }
        let place = reading.place;
        let half = std::mem::replace(&mut reading.lines, Lines::new(self.longest));
        reading.open.go_to(0);
        if let Some(mut copy) = place.find_beside(&self.path) {
            copy.remember(place.offset)?;
            let whence = Whence::Copied;
            self.open = Some(Reading { open: copy, lines: half, read_at: now, place, whence });
        }
        Ok(())
    }

    /// A replaced file is left when it is silent, or when it has had its time.
    fn leave(&mut self, now: Instant, is_replaced: bool, look: &mut Look) {
        let Some(reading) = &mut self.open else { return };
        let silent = now.saturating_duration_since(reading.read_at) >= QUIET && !look.more;
        let is_there = reading.whence == Whence::There;
        if is_there && !is_replaced {
            self.replaced = None; // it was moved away, and nothing has come in its place
            if silent && reading.open.is_deleted() {
                self.open = None; // else its disk space would never be free
            }
            return;
        }
        let waited = now.saturating_duration_since(*self.replaced.get_or_insert(now));
        let done = match reading.whence {
            Whence::There => silent && waited >= QUIET,
            Whence::Moved => silent,
            Whence::Copied => !look.more,
        };
        if done || waited >= LONGEST_WAIT {
            if let (Some(text), Ok(marker)) = (reading.lines.finish(), Marker::new(&reading.open)) {
                look.lines.push(Line { text, place: marker.place(reading.open.offset) });
            }
            self.open = None;
            self.replaced = None;
            self.begin = Begin::Behind(0);
            look.more = true;
        }
    }

    fn reopen(&mut self, now: Instant, look: &mut Look) -> Result<(), TailError> {
        let mut open = Open::new(&self.path, Links::Safe)?;
        let failed = |source| TailError::Io { path: self.path.clone(), source };
        if is_packed(&open.file) {
            return Err(failed(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is packed, and holds no lines",
            )));
        }
        let size = open.size().map_err(failed)?;
        let mut whence = Whence::There;
        let offset = match self.begin {
            Begin::End => size,
            Begin::Behind(offset) if offset <= size => offset,
            Begin::Behind(_) => 0,
            Begin::At(place) if place.is_in(&open).map_err(failed)? => place.offset,
            Begin::At(place) => match place.find_beside(&self.path) {
                Some(rotated) => {
                    open = rotated;
                    whence = if open.id.1 == place.inode { Whence::Moved } else { Whence::Copied };
                    place.offset
                }
                None => {
                    look.gap = true;
                    0
                }
            },
        };
        open.remember(offset).map_err(failed)?;
        self.begin = Begin::Behind(0);
        let place = Marker::new(&open).map_err(failed)?.place(offset);
        let lines = Lines::new(self.longest);
        self.open = Some(Reading { open, lines, read_at: now, place, whence });
        Ok(())
    }

    /// Nothing is at the path, but what was there may have been moved away since.
    fn reopen_moved(&mut self, now: Instant, place: Place) -> io::Result<()> {
        if let Some(mut open) = place.find_beside(&self.path) {
            open.remember(place.offset)?;
            let (lines, whence) = (Lines::new(self.longest), Whence::Moved);
            self.begin = Begin::Behind(0);
            self.open = Some(Reading { open, lines, read_at: now, place, whence });
        }
        Ok(())
    }

    fn take(&mut self, now: Instant, look: &mut Look) -> io::Result<()> {
        let Some(reading) = &mut self.open else { return Ok(()) };
        let size = reading.open.size()?;
        if size.saturating_sub(reading.open.offset) > MOST_BEHIND {
            let to = size - MOST_A_LOOK;
            look.skipped += to - reading.open.offset;
            reading.open.remember(to)?;
            reading.lines = Lines::new(self.longest);
        }
        let mut marker = Marker::new(&reading.open)?;
        let lines = &mut reading.lines;
        let read = reading.open.read_on(MOST_A_LOOK, |piece, begin| {
            marker.read(piece);
            lines.feed(piece, now, |line, used| {
                look.lines.push(Line { text: line.to_vec(), place: marker.place(begin + used as u64) });
            });
        })?;
        if read > 0 {
            reading.read_at = now;
            reading.place = marker.place(reading.open.offset);
        }
        look.more |= read == MOST_A_LOOK;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
