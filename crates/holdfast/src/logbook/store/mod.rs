//! Where records are kept: one SQLite file of compressed blocks, `logs.sqlite` in the state folder.
//!
//! One thread writes, once a second and in one transaction: new blocks, findings, and where each source goes on. What
//! was not written yet is lost with the daemon, and read again by sources that can (their place is as old). Readers
//! have connections of their own ([`Shelf`]). It is bounded: the oldest blocks leave, but a VM that says more than
//! its fair share only drives out its own (I18). Nothing that is wrong with it stops the daemon (I7): a full disk is
//! waited out and counted, a damaged block skipped, a damaged file set aside, one of a newer version left alone (I22).

mod around;
mod block;
mod mind;
mod open;
mod room;
mod search;
#[cfg(test)]
mod tests;
mod write;

pub use around::{Around, Quoted};
pub use search::{Ended, Found, Query, SearchError, Shelf};

use super::SourceName;
use holdfast_core::lease::Incarnation;
use holdfast_core::subject::{Subject, VmName};
use holdfast_core::time::{Duration, Timestamp};
use holdfast_logs::{Record, Severity};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whose records are kept together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// This host.
    Host,
    /// A VM, with its guest and all applications in it.
    Vm(VmName),
}

impl Owner {
    /// Whose a record about this subject is.
    pub fn of(subject: &Subject) -> Self {
        subject.vm().cloned().map_or(Self::Host, Self::Vm)
    }

    fn read(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            None if text == "host" => Some(Self::Host),
            Some(("vm", name)) => name.parse().ok().map(Self::Vm),
            None | Some(_) => None,
        }
    }
}

/// As it stands in the file: `host`, `vm orders`.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => write!(f, "host"),
            Self::Vm(vm) => write!(f, "vm {vm}"),
        }
    }
}

/// A record that is kept, with what was understood of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its number among all that were ever kept here; it rises.
    pub number: u64,
    /// Whose it is.
    pub subject: Subject,
    /// Which start of the VM said it.
    pub incarnation: Option<Incarnation>,
    /// Where it came from.
    pub source: SourceName,
    /// When it was received, since boot.
    pub at: Timestamp,
    /// When it was received, in microseconds since 1970.
    pub received: i64,
    /// How bad it is: as its writer says or as its rule says, whichever is worse.
    pub severity: Option<Severity>,
    /// Its pattern, by the owner's miner; 0 is none.
    pub pattern: u64,
    /// The rule that knows its line.
    pub rule: Option<Arc<str>>,
    /// What was said.
    pub record: Record,
}

impl Stored {
    /// Bytes of memory that it holds on to, about.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.record.bytes()
    }
}

/// Something that was found in the records, to be shown with the lines around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Noted {
    /// The record it was found in, or after.
    pub number: u64,
    /// Whose it is.
    pub subject: Subject,
    /// Where it was found.
    pub source: SourceName,
    /// When, since boot.
    pub at: Timestamp,
    /// When, in microseconds since 1970.
    pub received: i64,
    /// What sort: `known new burst rate silence window`.
    pub sort: String,
    /// The rule of a known line, else the pattern's number.
    pub name: String,
    /// How bad it is.
    pub severity: Option<Severity>,
    /// How surprising, in decibans; 0 of a known line.
    pub decibans: f64,
    /// The line, or a sentence.
    pub text: String,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes of blocks on disk.
    pub keep: u64,
    /// Blocks older than this leave, by the clock that only goes forward (I20).
    pub keep_for: Duration,
}

impl Default for Room {
    fn default() -> Self {
        Self { keep: 256 << 20, keep_for: Duration::from_secs(14 * 86_400) }
    }
}

/// What was counted, for all to see.
#[derive(Debug, Default)]
pub struct Counts {
    /// Records that came in.
    pub records: AtomicU64,
    /// Bytes of their texts.
    pub bytes: AtomicU64,
    /// Records that were written to disk.
    pub kept: AtomicU64,
    /// Records that could not be kept: no room on the disk, or no file to keep them in.
    pub unkept: AtomicU64,
    /// Records that left, to make room or by age.
    pub left: AtomicU64,
    /// Blocks that could not be read.
    pub damaged: AtomicU64,
    /// Known lines.
    pub findings: AtomicU64,
    /// Statements that something is unusual.
    pub unusual: AtomicU64,
    /// Bytes of blocks on disk.
    pub on_disk: AtomicU64,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// Records of one owner that were not written yet.
#[derive(Debug, Default)]
struct Pending {
    records: Vec<Stored>,
    bytes: usize,
}

/// What is on disk of one owner.
#[derive(Clone, Copy, Debug, Default)]
struct OnDisk {
    id: i64,
    /// Bytes of its blocks.
    size: u64,
    /// Blocks that are small, as they were written in haste, and the text in them.
    loose: u64,
    loose_text: u64,
    /// The highest number of a pattern in them.
    pattern: u64,
}

/// The one who writes.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    room: Room,
    /// None while there is no file to write to; then all is counted and let go.
    db: Option<Connection>,
    next: u64,
    owners: BTreeMap<Owner, OnDisk>,
    pending: BTreeMap<Owner, Pending>,
    pending_bytes: usize,
    noted: Vec<Noted>,
    places: BTreeMap<(Owner, SourceName), Arc<str>>,
    counts: Arc<Counts>,
    newest: tokio::sync::watch::Sender<u64>,
    /// The trouble that was told last, so that each is told once.
    told: Option<String>,
    /// After a failure it is tried again at this time, later and later.
    again: Timestamp,
    failures: u32,
    /// When old blocks were last looked for.
    swept: Option<Timestamp>,
}

impl Store {
    /// What was counted so far.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// For those who read.
    pub fn shelf(&self) -> Shelf {
        Shelf::new(self.path.clone(), self.counts(), self.newest.subscribe())
    }

    /// The highest number of a pattern that any record of an owner ever had here.
    pub fn pattern(&self, owner: &Owner) -> u64 {
        self.owners.get(owner).map_or(0, |on_disk| on_disk.pattern)
    }

    /// Whether there is a file to write to.
    #[cfg(test)]
    pub fn is_open(&self) -> bool {
        self.db.is_some()
    }

    /// Bytes of memory that wait to be written.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.pending_bytes
    }

    /// How much may be kept from now on.
    pub fn set_room(&mut self, room: Room) {
        self.room = room;
    }
}
