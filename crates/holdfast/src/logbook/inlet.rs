//! One bounded queue between all sources and the one that takes records in.

use holdfast_core::lease::Incarnation;
use holdfast_core::subject::Subject;
use holdfast_core::time::Timestamp;
use holdfast_logs::Record;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Records that wait at most.
const MOST_WAITING: usize = 16 * 1024;
/// Bytes that wait at most, in KiB: less than this, however long the lines are.
const MOST_KIB: usize = 8 * 1024;

/// Where a record came from, as shown: `console`, `journal`, `syslog`, `file /var/log/orders.log`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName(Arc<str>);

impl SourceName {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One record on its way.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whose it is: a VM, its guest, an application in it, or the host. The source decides, never the text (I17).
    pub subject: Subject,
    /// Which start of the VM said it, where that is known; records of an old one are no evidence (I10).
    pub incarnation: Option<Incarnation>,
    /// Where it came from.
    pub source: SourceName,
    /// When it was received, since boot.
    pub at: Timestamp,
    /// When it was received, in microseconds since 1970: for people.
    pub received: i64,
    /// What was said.
    pub record: Record,
    /// Where the source goes on behind this record; kept with it, and given back after a restart.
    pub place: Option<Arc<str>>,
}

/// Where sources bring their records.
#[derive(Clone, Debug)]
pub struct Inlet {
    sender: mpsc::Sender<(Entry, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
    dropped: Arc<AtomicU64>,
}

/// Where they are taken from.
#[derive(Debug)]
pub struct Outlet(mpsc::Receiver<(Entry, OwnedSemaphorePermit)>);

impl Inlet {
    pub fn new() -> (Self, Outlet) {
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        let room = Arc::new(Semaphore::new(MOST_KIB));
        (Self { sender, room, dropped: Arc::default() }, Outlet(receiver))
    }

    /// Waits for room: for a source that can be kept waiting, as a file or a connection can. `false` when nobody
    /// takes records any more.
    pub async fn bring(&self, entry: Entry) -> bool {
        match Arc::clone(&self.room).acquire_many_owned(kib(&entry)).await {
            Ok(permit) => self.sender.send((entry, permit)).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Never waits: for a source that cannot be kept waiting. `false` if there was no room; that is counted here.
    pub fn offer(&self, entry: Entry) -> bool {
        let room = Arc::clone(&self.room).try_acquire_many_owned(kib(&entry));
        let taken = room.is_ok_and(|permit| self.sender.try_send((entry, permit)).is_ok());
        if !taken {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Records that found no room, so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Outlet {
    /// The next record; `None` when all sources are gone.
    pub async fn next(&mut self) -> Option<Entry> {
        self.0.recv().await.map(|(entry, _room)| entry)
    }

    /// The next record, if one waits.
    pub fn waiting(&mut self) -> Option<Entry> {
        self.0.try_recv().ok().map(|(entry, _room)| entry)
    }
}

/// The room that an entry takes up, in KiB.
fn kib(entry: &Entry) -> u32 {
    u32::try_from(entry.record.bytes().div_ceil(1024)).unwrap_or(u32::MAX).min(MOST_KIB as u32)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn entry(bytes: usize) -> Entry {
        Entry {
            subject: Subject::Guest("orders".parse().unwrap()),
            incarnation: None,
            source: SourceName::new("console"),
            at: Timestamp::ZERO,
            received: 0,
            record: Record { text: "x".repeat(bytes), ..Record::default() },
            place: None,
        }
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let (inlet, mut outlet) = Inlet::new();
        let taken = (0..1_000).filter(|_| inlet.offer(entry(16 * 1024))).count();
        assert_eq!(taken, MOST_KIB / 17);
        assert_eq!(inlet.dropped(), 1_000 - taken as u64);
        assert!(outlet.waiting().is_some());
        assert!(inlet.offer(entry(16 * 1024)), "room is given back");
    }

    #[tokio::test]
    async fn who_can_wait_waits_for_room() {
        let (inlet, mut outlet) = Inlet::new();
        while inlet.offer(entry(100)) {}
        let bringing = tokio::spawn({
            let inlet = inlet.clone();
            async move { inlet.bring(entry(100)).await }
        });
        tokio::task::yield_now().await;
        assert!(!bringing.is_finished());
        assert!(outlet.next().await.is_some());
        assert!(bringing.await.unwrap());
        drop(outlet);
        assert!(!inlet.bring(entry(1)).await);
    }
}
