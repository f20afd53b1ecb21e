//! A disk of a restore point that is read at any place, without being restored. Each block is compared with its name before
//! a byte of it counts; those that were read of late are kept in memory, within a bound.

use crate::block::BLOCK;
use crate::id::{BlockId, LENGTH};
use crate::point::{Disk, PAGE};
use crate::recent::Recent;
use crate::repository::{Repository, Trouble};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Bytes of names of blocks that are kept: those of 64 GiB of the disk.
const NAMES_MOST: usize = 4 << 20;
/// An extent ends here, so that a hole of many terabytes costs no long look.
const EXTENT_MOST: u64 = 4 << 30;
const BLOCK_BYTES: u64 = BLOCK as u64;
const PAGE_BYTES: u64 = (PAGE * BLOCK) as u64;

/// Why a part of a disk could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OfferedError {
    /// It is not all within the disk.
    #[error("{length} bytes at byte {at} are beyond the end of the disk, which has {size}")]
    Beyond {
        /// From here.
        at: u64,
        /// So many.
        length: usize,
        /// Bytes of the disk.
        size: u64,
    },
    /// The repository fails, or a block is damaged or missing.
    #[error("the disk cannot be read at byte {at}")]
    Repository {
        /// Where the block begins that cannot be read.
        at: u64,
        /// What is wrong.
        #[source]
        trouble: Trouble,
    },
}

/// A disk of a point. Several threads may read it at once.
///
/// Others may write to the repository and remove from it meanwhile. What they rewrote is found again; what no point needs any
/// more, because this one was removed, is gone once their grace time is over.
pub struct Offered {
    repository: Arc<RwLock<Repository>>,
    disk: Disk,
    blocks: Arc<Mutex<Recent<BlockId>>>,
    /// Pages, by their number.
    names: Mutex<Recent<u64>>,
}

impl Offered {
    /// This disk of the repository, with at most so many bytes of its blocks in memory (and 4 MiB of their names).
    #[must_use]
    pub fn new(repository: Repository, disk: Disk, most: usize) -> Self {
        let blocks = Arc::new(Mutex::new(Recent::new(most)));
        Self::of(Arc::new(RwLock::new(repository)), disk, blocks)
    }

    /// Another disk of the same repository: both together have no more blocks in memory than this one may have.
    #[must_use]
    pub fn beside(&self, disk: Disk) -> Self {
        Self::of(Arc::clone(&self.repository), disk, Arc::clone(&self.blocks))
    }

    fn of(repository: Arc<RwLock<Repository>>, disk: Disk, blocks: Arc<Mutex<Recent<BlockId>>>) -> Self {
        Self { repository, disk, blocks, names: Mutex::new(Recent::new(NAMES_MOST)) }
    }

    /// Bytes of the disk.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.disk.size
    }

    /// Bytes of blocks that are in memory now.
    #[must_use]
    pub fn held(&self) -> usize {
        locked(&self.blocks).held()
    }

    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// If that is beyond the end, or a block of it is missing or damaged: then `bytes` are of no use.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), OfferedError> {
        let (length, size) = (bytes.len(), self.disk.size);
        if offset.checked_add(length as u64).is_none_or(|end| end > size) {
            return Err(OfferedError::Beyond { at: offset, length, size });
        }
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let within = (at % BLOCK_BYTES) as usize;
            let (part, left) = rest.split_at_mut(rest.len().min(BLOCK - within));
            let start = at - within as u64;
            let filled = self.fill(start, within, part);
            filled.map_err(|trouble| OfferedError::Repository { at: start, trouble })?;
            at += part.len() as u64;
            rest = left;
        }
        Ok(())
    }

    /// How many bytes from `offset` on are alike, at least one, and whether they are a hole: nothing is stored there, and it
    /// reads as zeros. Where the names of the blocks cannot be read it is none, and reading it tells why. Beyond the end there is
    /// nothing.
    #[must_use]
    pub fn extent(&self, offset: u64) -> (u64, bool) {
        let size = self.disk.size;
        if offset >= size {
            return (0, true);
        }
        let most = size.min(offset.saturating_add(EXTENT_MOST));
        let (mut at, mut kind) = (offset, None);
        while at < most {
            let (end, is_hole) = self.alike(at);
            if *kind.get_or_insert(is_hole) != is_hole {
                break;
            }
            at = end.min(size);
        }
        (at - offset, kind.unwrap_or_default())
    }

    /// Where the blocks of this page end that are like the one at this byte, and whether they are holes.
    fn alike(&self, at: u64) -> (u64, bool) {
        let number = at / PAGE_BYTES;
        let end = (number + 1) * PAGE_BYTES;
        if self.is_empty(number) {
            return (end, true);
        }
        let Ok(names) = self.names(number) else { return (end, false) };
        let first = (at % PAGE_BYTES / BLOCK_BYTES) as usize;
        let is_hole = name(&names, first) == BlockId::HOLE;
        let count = (first..PAGE).take_while(|at| (name(&names, *at) == BlockId::HOLE) == is_hole).count();
        (number * PAGE_BYTES + (first + count) as u64 * BLOCK_BYTES, is_hole)
    }

    fn is_empty(&self, page: u64) -> bool {
        self.disk.pages.get(page as usize).is_none_or(|name| *name == BlockId::HOLE)
    }

    /// Fills this part from a byte of the block on that begins at `start` of the disk.
    fn fill(&self, start: u64, within: usize, part: &mut [u8]) -> Result<(), Trouble> {
        let number = start / PAGE_BYTES;
        if self.is_empty(number) {
            part.fill(0);
            return Ok(());
        }
        let id = name(&self.names(number)?, (start % PAGE_BYTES / BLOCK_BYTES) as usize);
        if id == BlockId::HOLE {
            part.fill(0);
            return Ok(());
        }
        let block = self.block(id)?;
        // Its name says what it holds, and not where it belongs: one of another length belongs elsewhere.
        if block.len() as u64 != BLOCK_BYTES.min(self.disk.size - start) {
            return Err(Trouble::Damaged { name: format!("block {id}") });
        }
        part.copy_from_slice(&block[within..within + part.len()]);
        Ok(())
    }

    fn block(&self, id: BlockId) -> Result<Arc<[u8]>, Trouble> {
        kept(&self.blocks, id, || {
            let mut block = Vec::new();
            self.ask(|repository| repository.block(id, &mut block))?;
            Ok(block)
        })
    }

    /// The names of the blocks of a page, one after the other.
    fn names(&self, page: u64) -> Result<Arc<[u8]>, Trouble> {
        kept(&self.names, page, || {
            let names = self.ask(|repository| repository.page(&self.disk, page as usize))?;
            Ok(names.iter().flat_map(|name| name.0).collect())
        })
    }

    /// Asks the repository. Where a pack went since it was opened, what it held lies in another, and is asked for once more.
    fn ask<T>(&self, mut ask: impl FnMut(&Repository) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let first = ask(&self.repository.read().unwrap_or_else(PoisonError::into_inner));
        if !first.as_ref().is_err_and(Trouble::is_gone) {
            return first;
        }
        let mut repository = self.repository.write().unwrap_or_else(PoisonError::into_inner);
        repository.reload_all()?; // knows only packs that are there, so this cannot happen again without end
        ask(&repository)
    }
}

/// What is in memory under this name, or is read now. It is read without the lock: others go on meanwhile.
fn kept<K: Copy + Eq + Hash>(
    recent: &Mutex<Recent<K>>,
    name: K,
    read: impl FnOnce() -> Result<Vec<u8>, Trouble>,
) -> Result<Arc<[u8]>, Trouble> {
    if let Some(content) = locked(recent).get(name) {
        return Ok(content);
    }
    let content: Arc<[u8]> = read()?.into();
    locked(recent).put(name, Arc::clone(&content));
    Ok(content)
}

fn locked<K>(recent: &Mutex<Recent<K>>) -> MutexGuard<'_, Recent<K>> {
    recent.lock().unwrap_or_else(PoisonError::into_inner) // whole again after each use
}

fn name(names: &[u8], at: usize) -> BlockId {
    let name = names.get(at * LENGTH..).and_then(|rest| rest.first_chunk());
    name.map_or(BlockId::HOLE, |name| BlockId(*name))
}
