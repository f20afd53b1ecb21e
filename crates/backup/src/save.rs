//! A restore point is made: what changed is read, hashed, compared with what is there, and written.
//!
//! The disk is cut into pages of 64 MiB; each is the work of one thread at a time. Full packs go to the disk behind them, in a
//! thread of its own. Nothing of a point is seen before all its blocks, and the index of them, are durable (I14).

use crate::id::{BlockId, PackId};
use crate::index::{Listed, PACKS_MOST, Pack};
use crate::kept::Kept;
use crate::object::{self, Kind};
use crate::pack::Packer;
use crate::parts::on_threads;
use crate::point::Disk;
use crate::repository::{Repository, Trouble, pack_object, trouble};
use crate::worker::Worker;
use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

/// So many threads work at most: each fills a pack of its own, and memory is bounded.
const THREADS_MOST: usize = 4;

/// Something that holds a disk still while it is read.
pub trait Source: Sync {
    /// Bytes.
    fn size(&self) -> u64;

    /// Fills `bytes` from `offset` on; what is asked for lies within the size.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Whether all of these bytes are known to be zeros, so that they need not be read.
    fn is_hole(&self, _span: &Range<u64>) -> bool {
        false
    }
}

/// What is known beforehand of a disk.
#[derive(Clone, Copy, Default)]
pub struct Before<'a> {
    /// The disk as it was at an earlier point.
    pub parent: Option<&'a Disk>,
    /// The parent is no point, but how far an attempt came ([`crate::attempt`]): what it names may be missing.
    pub is_attempt: bool,
    /// What may have changed since then, in order; `None`: anything.
    pub changed: Option<&'a [Range<u64>]>,
    /// Hashes of its pieces as they were then, and where those of now are kept.
    pub kept: Option<&'a Kept>,
}

/// How far it is; others may look on, and stop it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the disk that were read.
    pub read: AtomicU64,
    /// Bytes that were not read, because they did not change or are known to be zeros.
    pub skipped: AtomicU64,
    /// Bytes that were written to the repository.
    pub written: AtomicU64,
    /// Somebody wants it to end.
    pub stop: AtomicBool,
    /// Somebody wants what was written to be known to others: it is with the next pack, and this is false again.
    pub tell: AtomicBool,
    /// What each page is called that was read to its end.
    pages: Mutex<Vec<Option<BlockId>>>,
    /// What is other than at the earlier point.
    pub change: Change,
}

impl Progress {
    /// What each page of the disk is called; nothing if it was not read to its end yet.
    #[must_use]
    pub fn pages(&self) -> Vec<Option<BlockId>> {
        lock(&self.pages).clone()
    }

    /// How many there are.
    #[must_use]
    pub fn come(&self) -> usize {
        lock(&self.pages).iter().flatten().count()
    }
}

/// What of a disk is other than at the earlier point, or new if there is none; counted where it is found anyway.
#[derive(Debug, Default)]
pub struct Change {
    /// Bytes that differ: of pieces, or of whole blocks where it is not known which pieces do.
    pub changed: AtomicU64,
    /// Bytes of these that the repository did not have.
    pub new: AtomicU64,
    /// What these were compressed to.
    pub packed: AtomicU64,
    /// Bytes of the new ones that could not be compressed by a sixteenth: what is compressed or encrypted already. And of those
    /// that the repository has, where they replace something else: an attempt that failed may have brought them.
    pub dense: AtomicU64,
    /// By how many bytes the blocks that hold something became more.
    pub grown: AtomicI64,
}

/// Why a point could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The disk cannot be read.
    #[error("the disk cannot be read at byte {at}")]
    Source {
        /// Where.
        at: u64,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The repository fails.
    #[error(transparent)]
    Repository(#[from] Trouble),
    /// The compressor cannot be had.
    #[error("no memory to compress in")]
    NoMemory(#[source] io::Error),
    /// Somebody wanted it to end.
    #[error("it was stopped")]
    Stopped,
}

/// What several threads write together.
pub(crate) struct Shared<'a> {
    pub repository: &'a Repository,
    pub progress: &'a Progress,
    /// Blocks that are being written by anybody, and are not in the index yet.
    new: Mutex<HashSet<BlockId>>,
    /// Packs that no object of the index tells of yet.
    packs: Mutex<Vec<Pack>>,
    next: AtomicU64,
}

/// Writes what the repository does not have of this disk, with so many threads, while a session is open that began on this
/// repository ([`crate::session::Session::begin`]). Nobody can see it before it is part of a point
/// ([`crate::session::Session::commit`]); what was written before an error is found again by the next who tries.
///
/// # Errors
/// If the disk or the repository fails, or somebody wants it to end.
pub fn disk(
    repository: &Repository,
    name: &str,
    source: &dyn Source,
    before: Before<'_>,
    threads: usize,
    progress: &Progress,
) -> Result<Disk, SaveError> {
    if !repository.is_writing {
        return Err(Trouble::NoSession.into());
    }
    let (new, packs, next) = Default::default();
    let shared = Shared { repository, progress, new, packs, next };
    let count = Disk::pages(source.size());
    *lock(&progress.pages) = vec![None; count as usize];
    let threads = threads.clamp(1, THREADS_MOST);
    let packs = Packs::new(threads + 1);
    let (packs, shared, (full, filled)) = (&packs, &shared, channel());
    // The last of them takes `full` with it, and so ends the writer.
    let work = move || -> Result<(), SaveError> {
        let mut worker = Worker::new(shared, source, before, (packs, full.clone()));
        loop {
            let number = shared.next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return worker.hand_over();
            }
            match worker.page(number) {
                Ok(page) => lock(&progress.pages)[number as usize] = Some(page),
                Err(error) => {
                    shared.next.store(count, Ordering::Relaxed);
                    let _ = worker.hand_over(); // what it has is of use to the next who tries
                    return Err(error);
                }
            }
        }
    };
    let (ended, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| shared.write(filled, packs));
        let ended = on_threads(threads, work);
        (ended, writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    // What is whole is told of, whoever failed: it need not be written again.
    shared.tell(1)?;
    written?;
    ended.into_iter().collect::<Result<(), _>>()?;
    let pages = progress.pages().into_iter().map(|page| page.unwrap_or(BlockId::HOLE)).collect();
    Ok(Disk { name: name.to_owned(), size: source.size(), pages })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared<'_> {
    /// Whether the caller is to write this block.
    pub fn claims(&self, id: BlockId) -> bool {
        self.repository.index.find(id).is_none() && lock(&self.new).insert(id)
    }

    /// Stores packs as they are filled, until nobody is left who fills one or the first cannot be stored.
    fn write(&self, filled: Receiver<Full<'_>>, packs: &Packs) -> Result<(), SaveError> {
        let written = filled.iter().try_for_each(|full| {
            let (id, bytes) = full.packer.close();
            self.put(id, &bytes, full.blocks)?;
            packs.give(bytes);
            Ok(())
        });
        packs.close(); // nobody waits for one that does not come
        written
    }

    /// Stores a pack; from now on its blocks may be told of.
    fn put(&self, id: PackId, bytes: &[u8], blocks: Vec<Listed>) -> Result<(), SaveError> {
        let name = pack_object(id);
        self.repository.store.put(&name, bytes).map_err(trouble(&name, "written"))?;
        self.progress.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        lock(&self.packs).push(Pack { id, blocks });
        let is_wanted = self.progress.tell.swap(false, Ordering::Relaxed);
        self.tell(if is_wanted { 1 } else { PACKS_MOST })
    }

    /// Writes an object of the index, if there are so many packs to tell of.
    fn tell(&self, least: usize) -> Result<(), SaveError> {
        let packs = {
            let mut packs = lock(&self.packs);
            if packs.len() < least { Vec::new() } else { std::mem::take(&mut *packs) }
        };
        if packs.is_empty() {
            return Ok(());
        }
        let bytes = object::write(&self.repository.keys, Kind::Index, &crate::index::write(&packs))
            .map_err(Trouble::from)?;
        let name = format!("index/{}", packs[0].id);
        self.repository.store.put(&name, &bytes).map_err(trouble(&name, "written"))?;
        self.progress.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// The memory of packs, of which there are so many: whoever fills them faster than they are stored waits.
pub(crate) struct Packs {
    free: Mutex<Receiver<Vec<u8>>>,
    back: Mutex<Option<Sender<Vec<u8>>>>,
}

impl Packs {
    fn new(count: usize) -> Self {
        let (back, free) = channel();
        (0..count).for_each(|_| drop(back.send(Vec::new())));
        Self { free: Mutex::new(free), back: Mutex::new(Some(back)) }
    }

    /// Waits for one. None comes any more once a pack could not be stored: who stored it says why.
    pub fn take(&self) -> Result<Vec<u8>, SaveError> {
        lock(&self.free).recv().map_err(|_| SaveError::Stopped)
    }

    fn give(&self, bytes: Vec<u8>) {
        if let Some(back) = &*lock(&self.back) {
            let _ = back.send(bytes); // nobody wants it any more
        }
    }

    fn close(&self) {
        *lock(&self.back) = None;
    }
}

/// A pack that nothing more is added to, and its blocks.
pub(crate) struct Full<'a> {
    pub packer: Packer<'a>,
    pub blocks: Vec<Listed>,
}
