//! A disk of a restore point is written again, each block compared with its name before it counts.

use crate::block::{BLOCK, PIECE};
use crate::id::BlockId;
use crate::parts::{is_zero, on_threads, overlaps};
use crate::point::{Disk, PAGE};
use crate::read_back::Blocks;
use crate::repository::{Repository, Trouble};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many threads work at most: each has a run and the records of a block in memory, 4 MiB at most.
const THREADS_MOST: usize = 16;
/// So many bytes are written at once where blocks are neighbours: a disk takes them faster than one block after the other.
const RUN: usize = 4 * BLOCK;
/// What [`disk`] hands to a target begins at a multiple of this in memory, too: so a file can be written past the page cache.
pub const ALIGN: usize = 4096;

/// Something that takes the bytes of a disk.
pub trait Target: Sync {
    /// Writes these bytes at `offset`.
    ///
    /// # Errors
    /// If it cannot be written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// All of these bytes will be written: there may be room made for them at once. Who cannot says so when they are written.
    fn expect(&self, span: &Range<u64>) {
        let _it_makes_no_room = span;
    }
}

/// Something that holds another state of a disk, and takes what differs.
pub trait Onto: Target {
    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
}

/// What is known of what is held. It is believed: what it leaves out is neither read nor written.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// The disk that is held, but for what changed since.
    pub disk: &'a Disk,
    /// What may have changed since then, in order.
    pub changed: &'a [Range<u64>],
}

/// What was written where something was held already.
#[derive(Debug)]
pub struct Written {
    /// How many bytes.
    pub bytes: u64,
    /// The blocks in which they lie.
    pub blocks: Blocks,
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
    /// What the target holds cannot be read.
    #[error("what is there cannot be read at byte {at}")]
    Held {
        /// Where.
        at: u64,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was written cannot be read again.
    #[error("what was written cannot be read back at byte {at}")]
    Again {
        /// Where.
        at: u64,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was written is not what is there.
    #[error("what is read back from byte {at} on is not what was written there")]
    Differs {
        /// The first byte that is another one.
        at: u64,
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
    let own = || (Vec::new(), Run::new(target, done));
    pages(disk, threads, own, |number, (block, run)| page(repository, disk, number, block, run))
}

/// Makes what a target of the size of this disk holds into the disk, with so many threads: of blocks that are not the same
/// the pieces that differ are written. Without `held` all are read and compared by their names. `done` counts the bytes of the
/// disk that are in place. What was written.
///
/// # Errors
/// If a block is missing or damaged, or the target fails: then it is neither what it was nor the disk.
pub fn onto(
    repository: &Repository,
    disk: &Disk,
    target: &dyn Onto,
    held: Option<Held<'_>>,
    threads: usize,
    done: &AtomicU64,
) -> Result<Written, RestoreError> {
    let held = held.filter(|held| held.disk.size == disk.size);
    let (bytes, blocks) = (AtomicU64::new(0), Blocks::none_of(disk.size));
    let differing = Differing { repository, disk, target, held, done, bytes: &bytes, blocks: &blocks };
    pages(disk, threads, Vec::new, |number, block| differing.page(number, block))?;
    Ok(Written { bytes: bytes.into_inner(), blocks })
}

/// Does the same for all pages of a disk, until one fails. Each thread has something of its own.
pub(crate) fn pages<T>(
    disk: &Disk,
    threads: usize,
    own: impl Fn() -> T + Sync,
    page: impl Fn(usize, &mut T) -> Result<(), RestoreError> + Sync,
) -> Result<(), RestoreError> {
    let next = AtomicU64::new(0);
    let work = || -> Result<(), RestoreError> {
        let mut own = own();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed) as usize;
            if number >= disk.pages.len() {
                return Ok(());
            }
            page(number, &mut own).inspect_err(|_| next.store(u64::MAX >> 1, Ordering::Relaxed))?;
        }
    };
    on_threads(threads.min(THREADS_MOST), work).into_iter().collect()
}

fn page(
    repository: &Repository,
    disk: &Disk,
    number: usize,
    block: &mut Vec<u8>,
    run: &mut Run<'_>,
) -> Result<(), RestoreError> {
    let named: Vec<_> = named(repository, disk, number)?.collect();
    let is_same =
        |one: &(BlockId, _), next: &(BlockId, _)| (one.0 == BlockId::HOLE) == (next.0 == BlockId::HOLE);
    for part in named.chunk_by(is_same).filter(|part| part[0].0 != BlockId::HOLE) {
        run.target.expect(&(part[0].1.start..part[part.len() - 1].1.end));
    }
    for (name, span) in named {
        if name == BlockId::HOLE {
            run.done.fetch_add(span.end - span.start, Ordering::Relaxed);
        } else {
            read(repository, name, &span, block)?;
            run.take(span.start, block)?;
        }
    }
    run.write()
}

/// Blocks that are neighbours and not yet written.
struct Run<'a> {
    target: &'a dyn Target,
    done: &'a AtomicU64,
    bytes: Vec<u8>,
    /// Where in these bytes they begin, and how long they are.
    from: usize,
    length: usize,
    /// Where in the disk.
    at: u64,
}

impl<'a> Run<'a> {
    fn new(target: &'a dyn Target, done: &'a AtomicU64) -> Self {
        let bytes = vec![0; RUN + ALIGN];
        let from = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        Self { target, done, bytes, from, length: 0, at: 0 }
    }

    /// Takes a block, after those are written that it does not follow.
    fn take(&mut self, at: u64, block: &[u8]) -> Result<(), RestoreError> {
        if self.at + self.length as u64 != at || self.length + block.len() > RUN {
            self.write()?;
            self.at = at;
        }
        let free = self.from + self.length;
        self.bytes[free..free + block.len()].copy_from_slice(block);
        self.length += block.len();
        Ok(())
    }

    /// Writes those that were taken.
    fn write(&mut self) -> Result<(), RestoreError> {
        let (at, length) = (self.at, std::mem::take(&mut self.length));
        if length > 0 {
            let written = self.target.write_at(at, &self.bytes[self.from..self.from + length]);
            written.map_err(|source| RestoreError::Target { at, source })?;
            self.done.fetch_add(length as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The blocks of a page, and where in the disk each stands.
pub(crate) fn named(
    repository: &Repository,
    disk: &Disk,
    number: usize,
) -> Result<impl Iterator<Item = (BlockId, Range<u64>)>, RestoreError> {
    let (start, size) = ((number * PAGE * BLOCK) as u64, disk.size);
    let names =
        repository.page(disk, number).map_err(|trouble| RestoreError::Repository { at: start, trouble })?;
    let starts = (start..size.min(start + (PAGE * BLOCK) as u64)).step_by(BLOCK);
    let spans = starts.map(move |at| at..size.min(at + BLOCK as u64));
    Ok(names.into_iter().zip(spans))
}

/// The content of a block of the disk, which is as long as its place.
fn read(
    repository: &Repository,
    name: BlockId,
    span: &Range<u64>,
    block: &mut Vec<u8>,
) -> Result<(), RestoreError> {
    let wrong = |trouble| RestoreError::Repository { at: span.start, trouble };
    repository.block(name, block).map_err(wrong)?;
    if block.len() as u64 == span.end - span.start {
        return Ok(());
    }
    Err(wrong(Trouble::Damaged { name: format!("block {name}") }))
}

/// A disk, and something that becomes it.
struct Differing<'a> {
    repository: &'a Repository,
    disk: &'a Disk,
    target: &'a dyn Onto,
    held: Option<Held<'a>>,
    done: &'a AtomicU64,
    bytes: &'a AtomicU64,
    blocks: &'a Blocks,
}

impl Differing<'_> {
    fn page(&self, number: usize, block: &mut Vec<u8>) -> Result<(), RestoreError> {
        let start = (number * PAGE * BLOCK) as u64;
        let whole = start..self.disk.size.min(start + (PAGE * BLOCK) as u64);
        let is_same = |held: &Held<'_>| {
            held.disk.pages.get(number) == self.disk.pages.get(number) && !overlaps(held.changed, &whole)
        };
        if self.held.as_ref().is_some_and(is_same) {
            self.done.fetch_add(whole.end - whole.start, Ordering::Relaxed);
            return Ok(());
        }
        // What was held is only a help: where it cannot be read, what is there is.
        let old = self.held.and_then(|held| Some((held, self.repository.page(held.disk, number).ok()?)));
        for (at, (name, span)) in named(self.repository, self.disk, number)?.enumerate() {
            let length = span.end - span.start;
            let known =
                old.as_ref().filter(|(held, _)| !overlaps(held.changed, &span)).map(|(_, old)| old[at]);
            let is_there = match known {
                Some(old) => old == name,
                None => self.is_there(name, &span, block)?,
            };
            if !is_there {
                self.blocks.add(span.start / BLOCK as u64);
                self.bytes.fetch_add(self.write(name, &span, block)?, Ordering::Relaxed);
            }
            self.done.fetch_add(length, Ordering::Relaxed);
        }
        Ok(())
    }

    fn is_there(&self, name: BlockId, span: &Range<u64>, block: &mut Vec<u8>) -> Result<bool, RestoreError> {
        block.resize((span.end - span.start) as usize, 0);
        let read = self.target.read_at(span.start, block);
        read.map_err(|source| RestoreError::Held { at: span.start, source })?;
        let is_hole = is_zero(block);
        Ok(if name == BlockId::HOLE { is_hole } else { !is_hole && self.repository.keys.name(block) == name })
    }

    /// Writes what differs of a block, pieces that are neighbours at once. How many bytes.
    fn write(&self, name: BlockId, span: &Range<u64>, block: &mut Vec<u8>) -> Result<u64, RestoreError> {
        if name == BlockId::HOLE {
            block.clear();
            block.resize((span.end - span.start) as usize, 0);
        } else {
            read(self.repository, name, span, block)?;
        }
        let mut there = vec![0; block.len()];
        let read = self.target.read_at(span.start, &mut there);
        read.map_err(|source| RestoreError::Held { at: span.start, source })?;
        let (mut from, mut written) = (0, 0);
        while from < block.len() {
            let pieces = block[from..].chunks(PIECE).zip(there[from..].chunks(PIECE));
            let run: usize = pieces.take_while(|(new, old)| new != old).map(|(new, _)| new.len()).sum();
            if run > 0 {
                let at = span.start + from as u64;
                let done = self.target.write_at(at, &block[from..from + run]);
                done.map_err(|source| RestoreError::Target { at, source })?;
            }
            written += run as u64;
            from += run.max(PIECE);
        }
        Ok(written)
    }
}
