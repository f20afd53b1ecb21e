//! A disk of a restore point is written again, each block compared with its name before it counts.

use crate::block::BLOCK;
use crate::id::BlockId;
use crate::parts::on_threads;
use crate::point::{Disk, PAGE};
use crate::repository::{Repository, Trouble};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that takes the bytes of a disk.
pub trait Target: Sync {
    /// Writes these bytes at `offset`.
    ///
    /// # Errors
    /// If it cannot be written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

/// Why a disk could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The target takes no bytes.
    #[error("the new disk cannot be written at byte {at}")]
    Target {
        /// Where.
        at: u64,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The repository fails, or a block is damaged or missing.
    #[error("the disk cannot be read at byte {at}: {trouble}")]
    Repository {
        /// The byte of the disk.
        at: u64,
        /// What is wrong.
        trouble: Trouble,
    },
}

/// Writes a disk to a target that reads as zeros everywhere, with so many threads: holes are not written. `done` counts
/// the bytes of the disk that are in place.
///
/// # Errors
/// If a block is missing or damaged, or the target cannot be written: what was written until then is of no use.
pub fn disk(
    repository: &Repository,
    disk: &Disk,
    target: &dyn Target,
    threads: usize,
    done: &AtomicU64,
) -> Result<(), RestoreError> {
    let next = AtomicU64::new(0);
    let work = || -> Result<(), RestoreError> {
        let mut block = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed) as usize;
            if number >= disk.pages.len() {
                return Ok(());
            }
            page(repository, disk, number, target, &mut block, done)
                .inspect_err(|_| next.store(u64::MAX >> 1, Ordering::Relaxed))?;
        }
    };
    on_threads(threads, work).into_iter().collect()
}

fn page(
    repository: &Repository,
    disk: &Disk,
    number: usize,
    target: &dyn Target,
    block: &mut Vec<u8>,
    done: &AtomicU64,
) -> Result<(), RestoreError> {
    let start = (number * PAGE * BLOCK) as u64;
    let wrong = |at| move |trouble| RestoreError::Repository { at, trouble };
    let names = repository.page(disk, number).map_err(wrong(start))?;
    let starts = (start..disk.size.min(start + (PAGE * BLOCK) as u64)).step_by(BLOCK);
    for (name, at) in names.iter().zip(starts) {
        let length = (disk.size - at).min(BLOCK as u64);
        if *name != BlockId::HOLE {
            repository.block(*name, block).map_err(wrong(at))?;
            if block.len() as u64 != length {
                let trouble = Trouble::Damaged { name: format!("block {name}") };
                return Err(RestoreError::Repository { at, trouble });
            }
            target.write_at(at, block).map_err(|source| RestoreError::Target { at, source })?;
        }
        done.fetch_add(length, Ordering::Relaxed);
    }
    Ok(())
}
