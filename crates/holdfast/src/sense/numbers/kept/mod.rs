//! Where series are kept: one SQLite file of compressed blocks, `numbers.sqlite` in the state folder.
//!
//! One thread writes, once a minute and in one transaction; what was not written yet is lost with the daemon. What was read
//! more often than once in ten seconds is kept for an hour, second by second, each value of ten seconds for two days, and
//! what five minutes were (least, mean, greatest) for thirty. It is bounded:
//! the oldest blocks leave. Nothing that is wrong with it stops the daemon (I7): a full disk is waited out and counted, a
//! damaged block skipped, a damaged file set aside, one of a newer version left alone (I22).

mod block;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use block::Row;
pub use read::{Listed, Past, Shelf, ShelfError};

use super::measure::Name;
use crate::config::Config;
use holdfast_core::time::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use write::Ledger;

/// Lots of rows, of ten seconds each, that may wait for the thread that writes.
const QUEUE: usize = 64;
/// How often it writes.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// What a row stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One second, kept for an hour: of what is read so often.
    Second,
    /// Ten seconds, kept for two days.
    Fine,
    /// Five minutes, kept for thirty days.
    Coarse,
}

impl Step {
    /// How long that is.
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Fine => 10,
            Self::Coarse => 300,
        }
    }

    /// How long its rows are kept, in seconds.
    const fn kept(self) -> u64 {
        match self {
            Self::Second => 3_600,
            Self::Fine => 2 * 86_400,
            Self::Coarse => 30 * 86_400,
        }
    }

    /// Rows of a full block.
    const fn full(self) -> usize {
        match self {
            Self::Second => 120, // so that little of it is in memory
            Self::Fine | Self::Coarse => 360,
        }
    }
}

/// A value of a series.
#[derive(Clone, Debug)]
pub struct Value {
    /// Of which.
    pub name: Name,
    /// The value.
    pub value: f64,
    /// It tells what is usual.
    pub teaches: bool,
    /// What was read when, if it was read more than once.
    pub moments: Vec<(Timestamp, f64)>,
}

/// What was counted, for all to see.
#[derive(Debug, Default)]
pub struct Counts {
    /// Values that came in.
    pub values: AtomicU64,
    /// Values that could not be kept: no room on the disk, or no file to keep them in.
    pub unkept: AtomicU64,
    /// Times that nothing could be written.
    pub failed: AtomicU64,
    /// Blocks that left, to make room or by age.
    pub left: AtomicU64,
    /// Blocks that could not be read.
    pub damaged: AtomicU64,
    /// Bytes of blocks on disk.
    pub on_disk: AtomicU64,
}

impl Counts {
    fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

enum Told {
    Values(Moment, Vec<Value>),
    Keep(u64),
}

/// A time, and what people call it.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the clock that only goes forward.
    pub at: Timestamp,
    /// The wall clock minus that, in microseconds: to show, never to decide (I20).
    pub wall_offset: i64,
}

/// Where values are brought.
#[derive(Clone)]
pub struct Keeper {
    sender: SyncSender<Told>,
    counts: Arc<Counts>,
}

impl Keeper {
    /// Brings the values of a moment, without waiting: those for which there is no room are counted.
    pub fn keep(&self, moment: Moment, values: Vec<Value>) {
        let count = values.len() as u64;
        if self.sender.try_send(Told::Values(moment, values)).is_err() {
            Counts::add(&self.counts.unkept, count);
        }
    }

    /// Follows the configuration: how much is kept.
    pub async fn follow(self, mut config: watch::Receiver<Arc<Config>>, stop: CancellationToken) {
        while let Some(Ok(())) = stop.run_until_cancelled(config.changed()).await {
            let keep = config.borrow_and_update().numbers.keep;
            let _ = self.sender.try_send(Told::Keep(keep)); // a full queue: the next change tells it
        }
    }
}

/// Kept series at work.
pub struct Kept {
    /// Where values are brought.
    pub keeper: Keeper,
    /// Where they are read.
    pub shelf: Shelf,
    thread: std::thread::JoinHandle<()>,
}

impl Kept {
    /// Opens the file in a folder, and starts the thread that writes.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn open(folder: &Path, keep: u64) -> std::io::Result<Self> {
        let ledger = Ledger::open(folder, keep);
        let (sender, told) = sync_channel(QUEUE);
        let (shelf, counts) = (ledger.shelf(), ledger.counts());
        let thread =
            std::thread::Builder::new().name("numbers".into()).spawn(move || write(ledger, &told))?;
        Ok(Self { keeper: Keeper { sender, counts }, shelf, thread })
    }

    /// Waits until everything is written, once all who bring values have ended.
    pub async fn ended(self) {
        drop(self.keeper);
        let _ = tokio::task::spawn_blocking(|| self.thread.join()).await;
    }
}

/// Writes once a minute, and once more when nobody brings anything any longer.
fn write(mut ledger: Ledger, told: &Receiver<Told>) {
    let mut written: Option<Timestamp> = None;
    let mut last = None;
    while let Ok(told) = told.recv() {
        match told {
            Told::Keep(keep) => ledger.set_keep(keep),
            Told::Values(moment, values) => {
                ledger.put(moment, &values);
                last = Some(moment.at);
                if moment.at.since(*written.get_or_insert(moment.at)) >= WRITE_EVERY {
                    written = Some(moment.at);
                    ledger.flush(moment.at);
                }
            }
        }
    }
    if let Some(at) = last {
        ledger.flush(at);
    }
}
