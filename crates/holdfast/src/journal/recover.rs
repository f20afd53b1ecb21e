//! Finding the last state that a journal holds, whatever happened to its files.
//!
//! It starts from the newest good checkpoint and follows the numbers of the records, over all later
//! segments, to the first one that is not there. It never deletes and never changes a file; a segment in
//! which something that was safe is damaged gets another name, so that it is kept for ever.

use super::frame::Header;
use super::segment::{Checkpoint, NoSegment, RawRecord, Segment, Step};
use super::trouble::Trouble;
use super::{OpenError, Record, files};
use crate::disk::Disk;
use holdfast_core::time::Timestamp;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

/// What a journal held when it was opened.
pub struct Recovery {
    /// The state to start from; `None` if there is none, as in a new journal.
    pub checkpoint: Option<Checkpoint>,
    /// What is wrong. Anything [serious](Trouble::is_serious) means that acknowledged records may be lost:
    /// look at the world, and at it with a person.
    pub troubles: Vec<Trouble>,
    /// The latest time found anywhere in it; time must go on from there.
    pub newest: Timestamp,
    /// The number of the next record.
    pub next: u64,
    disk: Arc<dyn Disk>,
    chain: Vec<String>,
    last: u64,
}

impl Recovery {
    /// The records after the checkpoint, in order. One that is not understood ends them.
    pub fn records<T: DeserializeOwned>(&self) -> Records<T> {
        let after = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.after);
        let walk = Walk::new(self.disk.clone(), self.chain.clone(), after + 1);
        Records { walk, last: self.last, body: PhantomData }
    }
}

/// An iterator over the records that a recovery found.
pub struct Records<T> {
    walk: Walk,
    last: u64,
    body: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Iterator for Records<T> {
    type Item = Result<Record<T>, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.walk.expected > self.last {
            return None;
        }
        match self.walk.next() {
            Some(raw) => {
                let record = Record::read(&raw);
                if record.is_err() {
                    self.last = 0;
                }
                Some(record)
            }
            None => self.walk.troubles.pop().map(Err), // the disk read well a moment ago
        }
    }
}

/// A segment file and what is known of it.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its number.
    pub number: u64,
    /// Its name.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// The number of the last record before it; `None` if its header is damaged.
    pub after: Option<u64>,
    /// It is kept for ever, because something in it is damaged.
    pub kept: bool,
}

/// Looks at all segments of a folder and at the records of those that matter.
///
/// # Errors
/// [`OpenError::Newer`] before anything is touched, [`OpenError::Disk`] if the folder cannot be listed.
pub fn recover(disk: &Arc<dyn Disk>, folder: &str) -> Result<(Vec<Known>, Recovery), OpenError> {
    let listed = files::segments(disk.as_ref(), folder);
    let mut segments = listed.map_err(|source| OpenError::Disk { folder: folder.to_owned(), source })?;
    let mut troubles = Vec::new();
    let mut newest = Timestamp::ZERO;
    for segment in &mut segments {
        match look(disk, segment)? {
            Ok(header) => {
                segment.after = Some(header.after);
                newest = newest.max(header.created);
            }
            Err(_) if segment.kept => {} // it was reported when it was found
            Err(trouble) => troubles.push(trouble),
        }
    }
    let (checkpoint, chain) = newest_checkpoint(disk, &segments, &mut troubles);
    let after = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.after);
    let names = chain.iter().map(|at| segments[*at].file.clone()).collect();
    let mut walk = Walk::new(disk.clone(), names, after + 1);
    walk.by_ref().for_each(drop);
    let last = walk.expected - 1;
    walk.drain();
    troubles.append(&mut walk.troubles);
    keep_damaged(disk.as_ref(), folder, &mut segments, &troubles);
    let known = segments.iter().filter_map(|segment| segment.after).max().unwrap_or(0);
    let recovery = Recovery {
        newest: newest.max(walk.newest).max(checkpoint.as_ref().map_or(newest, |checkpoint| checkpoint.at)),
        next: last.max(walk.highest).max(known) + 1,
        checkpoint,
        troubles,
        disk: disk.clone(),
        chain: chain.into_iter().map(|at| segments[at].file.clone()).collect(),
        last,
    };
    Ok((segments, recovery))
}

/// The header of a segment, or what is wrong with it. A newer one ends everything.
fn look(disk: &Arc<dyn Disk>, segment: &Known) -> Result<Result<Header, Trouble>, OpenError> {
    let file = segment.file.clone();
    match Segment::open(disk.clone(), &file) {
        Ok(read) if read.header().segment == segment.number => Ok(Ok(read.header().clone())),
        Ok(_) | Err(NoSegment::NoHeader) => Ok(Err(Trouble::NoHeader { file })),
        Err(NoSegment::Newer(version)) => Err(OpenError::Newer { file, version }),
        Err(NoSegment::Disk(error)) => Ok(Err(NoSegment::Disk(error).about(file))),
    }
}

/// The newest good checkpoint, and the places of its segment and all later readable ones.
fn newest_checkpoint(
    disk: &Arc<dyn Disk>,
    segments: &[Known],
    troubles: &mut Vec<Trouble>,
) -> (Option<Checkpoint>, Vec<usize>) {
    let mut chain = VecDeque::new();
    for (place, segment) in segments.iter().enumerate().rev() {
        let Some(after) = segment.after else { continue };
        chain.push_front(place);
        let Ok(mut read) = Segment::open(disk.clone(), &segment.file) else { continue };
        match read.step() {
            Ok(Step::Checkpoint(checkpoint)) if checkpoint.after == after => {
                return (Some(checkpoint), chain.into());
            }
            _ if segment.kept => {}
            _ => troubles.push(Trouble::NoCheckpoint { file: segment.file.clone() }),
        }
    }
    (None, chain.into())
}

/// Gives segments with damage a name under which they are never removed.
fn keep_damaged(disk: &dyn Disk, folder: &str, segments: &mut [Known], troubles: &[Trouble]) {
    let mut renamed = false;
    for segment in segments.iter_mut().filter(|segment| !segment.kept) {
        let damaged = troubles.iter().any(|trouble| match trouble {
            Trouble::Damaged { file, .. }
            | Trouble::NoCheckpoint { file }
            | Trouble::NoHeader { file }
            | Trouble::Unreadable { file, .. } => *file == segment.file,
            Trouble::Tail { .. }
            | Trouble::Newer { .. }
            | Trouble::NotUnderstood { .. }
            | Trouble::Missing { .. } => false,
        });
        let name = files::name(folder, segment.number, true);
        if damaged && disk.rename(&segment.file, &name).is_ok() {
            segment.file = name;
            segment.kept = true;
            renamed = true;
        }
    }
    if renamed {
        drop(disk.sync_folder(folder)); // else they are found damaged once more
    }
}

/// Records with consecutive numbers, over several segments, to the first that is not there.
struct Walk {
    disk: Arc<dyn Disk>,
    files: VecDeque<String>,
    open: Option<Segment>,
    /// The number of the next record.
    expected: u64,
    /// Why it ended, if not at the end.
    troubles: Vec<Trouble>,
    highest: u64,
    newest: Timestamp,
}

impl Walk {
    /// Walks over these files, oldest first, from this number on.
    fn new(disk: Arc<dyn Disk>, files: Vec<String>, expected: u64) -> Self {
        let files = files.into();
        let (troubles, newest) = (Vec::new(), Timestamp::ZERO);
        Self { disk, files, open: None, expected, troubles, highest: 0, newest }
    }

    /// Whether a bad byte is the end of the walk.
    fn judge(&mut self, mut segment: Segment, from: u64) -> Option<()> {
        let file = segment.file().to_owned();
        match segment.aftermath(from) {
            Ok(seen) => {
                if !seen.was_durable {
                    self.saw(0, seen.at); // nobody relies on those numbers
                    self.troubles.push(Trouble::Tail { file, from });
                    return Some(());
                }
                self.saw(seen.last.unwrap_or(0), seen.at);
                self.troubles.push(Trouble::Damaged { file, from });
            }
            Err(error) => self.troubles.push(Trouble::Unreadable { file, cause: error.to_string() }),
        }
        None
    }

    fn open_next(&mut self) -> Option<Segment> {
        let file = self.files.pop_front()?;
        match Segment::open(self.disk.clone(), &file) {
            Ok(segment) => Some(segment),
            Err(why) => {
                self.troubles.push(why.about(file));
                None
            }
        }
    }

    /// Looks through what is left, only for the highest number and the latest time.
    fn drain(&mut self) {
        loop {
            let next = self.open.take().or_else(|| self.open_next());
            let Some(mut segment) = next else {
                if self.files.is_empty() {
                    return;
                }
                continue;
            };
            loop {
                match segment.advance() {
                    Ok(Step::Checkpoint(_)) => {}
                    Ok(Step::Record(record)) => self.saw(record.n, record.at),
                    Ok(Step::Bad(from)) => {
                        let seen = segment.aftermath(from).unwrap_or_default();
                        self.saw(seen.last.unwrap_or(0), seen.at);
                        break;
                    }
                    Ok(Step::End) | Err(_) => break,
                }
            }
        }
    }

    fn saw(&mut self, n: u64, at: Timestamp) {
        self.highest = self.highest.max(n);
        self.newest = self.newest.max(at);
    }
}

impl Iterator for Walk {
    type Item = RawRecord;

    fn next(&mut self) -> Option<RawRecord> {
        loop {
            let mut segment = match self.open.take() {
                Some(segment) => segment,
                None => self.open_next()?,
            };
            match segment.advance() {
                Ok(Step::Checkpoint(_)) => self.open = Some(segment),
                Ok(Step::Record(record)) => {
                    self.open = Some(segment);
                    self.saw(record.n, record.at);
                    if record.n == self.expected {
                        self.expected += 1;
                        return Some(record);
                    }
                    self.troubles.push(Trouble::between(self.expected, record.n));
                    return None;
                }
                Ok(Step::End) => {}
                Ok(Step::Bad(from)) => self.judge(segment, from)?,
                Err(error) => {
                    let (file, cause) = (segment.file().to_owned(), error.to_string());
                    self.troubles.push(Trouble::Unreadable { file, cause });
                    return None;
                }
            }
        }
    }
}
