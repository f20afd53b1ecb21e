//! Reading what happened: all segments of a folder, or one file, in order, a record at a time.
//!
//! It changes nothing and may run while the journal is being written.

use super::Record;
use super::files;
use super::frame::Header;
use super::segment::{Checkpoint, Segment, Step};
use super::trouble::Trouble;
use crate::disk::{Disk, Folder};
use serde::de::{DeserializeOwned, IgnoredAny};
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

/// The next thing in a journal.
#[derive(Clone, Debug, PartialEq)]
pub enum Item<T> {
    /// A segment begins.
    Segment(Header),
    /// The state at its beginning.
    Checkpoint(Checkpoint),
    /// A record.
    Record(Record<T>),
    /// Something is wrong here; the next item is the next that is good.
    Trouble(Trouble),
}

/// An iterator over a journal.
pub struct Reader<T> {
    disk: Arc<dyn Disk>,
    files: VecDeque<String>,
    open: Option<Segment>,
    last: Option<u64>,
    ready: VecDeque<Item<T>>,
    body: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Reader<T> {
    /// Over all segments of a folder, oldest first.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn folder(disk: Arc<dyn Disk>, folder: &str) -> io::Result<Self> {
        let files = files::segments(disk.as_ref(), folder)?.into_iter().map(|segment| segment.file);
        Ok(Self::new(disk, files.collect()))
    }

    /// Over one segment file, wherever it is.
    ///
    /// # Errors
    /// The path names no file. What is wrong with its content comes as an item.
    pub fn file(path: &Path) -> io::Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name =
            name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file"))?;
        let folder = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        let disk = Folder::new(folder);
        disk.read(name, 0, 1)?;
        Ok(Self::new(Arc::new(disk), [name.to_owned()].into()))
    }

    fn new(disk: Arc<dyn Disk>, files: VecDeque<String>) -> Self {
        Self { disk, files, open: None, last: None, ready: VecDeque::new(), body: PhantomData }
    }

    fn begin(&mut self, file: String) {
        match Segment::open(self.disk.clone(), &file) {
            Ok(segment) => {
                let header = segment.header().clone();
                if let Some(last) = self.last.filter(|last| header.after > *last) {
                    self.trouble(Trouble::Missing { first: last + 1, last: header.after });
                }
                self.last = Some(header.after);
                self.ready.push_back(Item::Segment(header));
                self.open = Some(segment);
            }
            Err(why) => self.trouble(why.about(file)),
        }
    }

    fn advance(&mut self, mut segment: Segment) {
        let file = segment.file().to_owned();
        match segment.step() {
            Ok(Step::Checkpoint(checkpoint)) => {
                self.ready.push_back(Item::Checkpoint(checkpoint));
                self.open = Some(segment);
            }
            Ok(Step::Record(raw)) => {
                let expected = self.last.map_or(raw.n, |last| last + 1);
                if raw.n != expected {
                    self.trouble(Trouble::between(expected, raw.n));
                }
                self.last = Some(raw.n);
                match Record::read(&raw) {
                    Ok(record) => self.ready.push_back(Item::Record(record)),
                    Err(trouble) => self.trouble(trouble),
                }
                self.open = Some(segment);
            }
            Ok(Step::Bad(_)) if segment.before_checkpoint() => {
                self.trouble(Trouble::NoCheckpoint { file });
                if segment.resync().unwrap_or(false) {
                    self.open = Some(segment);
                }
            }
            Ok(Step::Bad(from)) => {
                let durable = segment.aftermath(from).map(|seen| seen.was_durable);
                self.trouble(match durable {
                    Ok(false) => Trouble::Tail { file, from },
                    Ok(true) => Trouble::Damaged { file, from },
                    Err(error) => Trouble::Unreadable { file, cause: error.to_string() },
                });
            }
            Ok(Step::End) if segment.before_checkpoint() => self.trouble(Trouble::NoCheckpoint { file }),
            Ok(Step::End) => {}
            Err(error) => self.trouble(Trouble::Unreadable { file, cause: error.to_string() }),
        }
    }

    fn trouble(&mut self, trouble: Trouble) {
        self.ready.push_back(Item::Trouble(trouble));
    }
}

impl<T: DeserializeOwned> Iterator for Reader<T> {
    type Item = Item<T>;

    fn next(&mut self) -> Option<Item<T>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            match self.open.take() {
                Some(segment) => self.advance(segment),
                None => {
                    let file = self.files.pop_front()?;
                    self.begin(file);
                }
            }
        }
    }
}

/// Reads every byte of a folder's journal and tells all that is wrong with it.
///
/// # Errors
/// The folder cannot be listed.
pub fn check(disk: Arc<dyn Disk>, folder: &str) -> io::Result<Vec<Trouble>> {
    let troubles = Reader::<IgnoredAny>::folder(disk, folder)?.filter_map(|item| match item {
        Item::Trouble(trouble) => Some(trouble),
        Item::Segment(_) | Item::Checkpoint(_) | Item::Record(_) => None,
    });
    Ok(troubles.collect())
}
