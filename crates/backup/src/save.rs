//! A restore point is made: what changed is read, hashed, compared with what is there, and written.
//!
//! The disk is cut into pages of 64 MiB; each is the work of one thread at a time. Nothing of a point is seen before
//! all its blocks, and the index of them, are durable (I14).

use crate::block::{self, BLOCK, DEEPEST, Form, PIECE};
use crate::id::{BlockId, LENGTH};
use crate::index::{Listed, PACKS_MOST, Pack};
use crate::object::{self, Kind};
use crate::pack::Packer;
use crate::parts::on_threads;
use crate::point::{Disk, PAGE};
use crate::repository::{Repository, Trouble, pack_object, trouble};
use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Something that holds a disk still while it is read.
pub trait Source: Sync {
    /// Bytes.
    fn size(&self) -> u64;

    /// Fills `bytes` from `offset` on; what is asked for lies within the size.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
}

/// What is known beforehand of a disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before<'a> {
    /// The disk as it was at an earlier point.
    pub parent: Option<&'a Disk>,
    /// What may have changed since then, in order; `None`: anything.
    pub changed: Option<&'a [Range<u64>]>,
}

/// How far it is; others may look on, and stop it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the disk that were read.
    pub read: AtomicU64,
    /// Bytes that were not read, because they did not change.
    pub skipped: AtomicU64,
    /// Bytes that were written to the repository.
    pub written: AtomicU64,
    /// Somebody wants it to end.
    pub stop: AtomicBool,
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
struct Shared<'a> {
    repository: &'a Repository,
    progress: &'a Progress,
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
    let pages = Mutex::new(vec![BlockId::HOLE; count as usize]);
    let work = || -> Result<(), SaveError> {
        let mut worker = Worker::new(&shared)?;
        loop {
            let number = shared.next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return worker.close();
            }
            let page = worker.page(number, source, before)?;
            lock(&pages)[number as usize] = page;
        }
    };
    let ended = on_threads(threads, work);
    // What is whole is told of, whoever failed: it need not be written again.
    shared.tell(1)?;
    ended.into_iter().collect::<Result<(), _>>()?;
    let pages = pages.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Disk { name: name.to_owned(), size: source.size(), pages })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared<'_> {
    /// Whether the caller is to write this block.
    fn claims(&self, id: BlockId) -> bool {
        self.repository.index.find(id).is_none() && lock(&self.new).insert(id)
    }

    /// Stores a pack; from now on its blocks may be told of.
    fn put(&self, packer: Packer<'_>, blocks: Vec<Listed>) -> Result<(), SaveError> {
        let (id, bytes) = packer.close();
        let name = pack_object(id);
        self.repository.store.put(&name, &bytes).map_err(trouble(&name, "written"))?;
        self.progress.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        lock(&self.packs).push(Pack { id, blocks });
        self.tell(PACKS_MOST)
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

/// One thread's own.
struct Worker<'a> {
    shared: &'a Shared<'a>,
    packer: Packer<'a>,
    listed: Vec<Listed>,
    block: Vec<u8>,
    base: Vec<u8>,
    record: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared<'a>) -> Result<Self, SaveError> {
        let packer = Packer::new(&shared.repository.keys).map_err(Trouble::from)?;
        Ok(Self {
            shared,
            packer,
            listed: Vec::new(),
            block: Vec::new(),
            base: Vec::new(),
            record: Vec::new(),
        })
    }

    /// Reads what may have changed of a page, and writes what is new. What the page is called.
    fn page(&mut self, number: u64, source: &dyn Source, before: Before<'_>) -> Result<BlockId, SaveError> {
        let size = source.size();
        let whole = page_of(number, size);
        let parent = before.parent.filter(|parent| parent.size == size); // another size: everything is read
        let old = parent.and_then(|parent| parent.pages.get(number as usize).copied());
        let changed = before.changed.filter(|_| old.is_some());
        let touched = |span: &Range<u64>| changed.is_none_or(|changed| overlaps(changed, span));
        // Where packs are to go, what the parent relies on may lie in them (I13).
        let is_kept = || {
            let repository = self.shared.repository;
            repository.doomed.is_empty()
                || parent.is_some_and(|disk| repository.has_page(disk, number as usize))
        };
        if let Some(old) = old.filter(|_| !touched(&whole) && is_kept()) {
            self.shared.progress.skipped.fetch_add(whole.end - whole.start, Ordering::Relaxed);
            return Ok(old);
        }
        // A page that cannot be read is as good as none: all that it was of is read.
        let before = parent.and_then(|parent| self.shared.repository.page(parent, number as usize).ok());
        let is_known = before.is_some();
        let mut names = before.unwrap_or_else(|| vec![BlockId::HOLE; PAGE]);
        let starts = (whole.start..whole.end).step_by(BLOCK);
        for (name, start) in names.iter_mut().zip(starts) {
            let span = start..(start + BLOCK as u64).min(whole.end);
            let length = span.end - span.start;
            // Untouched, and where it can be relied on: a block in a pack that is to go, or is gone, is read again (I13).
            let is_there = *name == BlockId::HOLE || self.shared.repository.index.find(*name).is_some();
            if is_known && is_there && !touched(&span) {
                self.shared.progress.skipped.fetch_add(length, Ordering::Relaxed);
                continue;
            }
            self.block.resize(length as usize, 0);
            source
                .read_at(start, &mut self.block)
                .map_err(|source| SaveError::Source { at: start, source })?;
            self.shared.progress.read.fetch_add(length, Ordering::Relaxed);
            if self.shared.progress.stop.load(Ordering::Relaxed) {
                return Err(SaveError::Stopped);
            }
            *name = self.keep(*name)?;
        }
        self.block.clear();
        names.iter().for_each(|name| self.block.extend_from_slice(&name.0));
        self.keep(old.unwrap_or(BlockId::HOLE))
    }

    /// Writes the block that was read, unless it is there already. What it is called. `was` stood in its place.
    fn keep(&mut self, was: BlockId) -> Result<BlockId, SaveError> {
        if self.block.iter().all(|byte| *byte == 0) {
            return Ok(BlockId::HOLE);
        }
        let repository = self.shared.repository;
        let id = repository.keys.name(&self.block);
        if !self.shared.claims(id) {
            return Ok(id);
        }
        self.record.clear();
        let form = match self.differs(was) {
            Some((mask, depth)) => self.write_delta(id, was, mask, depth)?,
            None => None,
        };
        if form.is_none() {
            block::write(id, &self.block, &mut self.record).map_err(SaveError::NoMemory)?;
        }
        let spot = self.packer.add(&self.record);
        self.listed.push(Listed { id, spot, form: form.unwrap_or(Form::Whole) });
        if self.packer.is_full() {
            self.put()?;
        }
        Ok(id)
    }

    fn write_delta(
        &mut self,
        id: BlockId,
        base: BlockId,
        mask: u16,
        depth: u8,
    ) -> Result<Option<Form>, SaveError> {
        let written = block::write_delta(id, &self.block, (base, depth), mask, &mut self.record);
        let form = Form::Delta { base, depth };
        Ok(written.map_err(SaveError::NoMemory)?.then_some(form))
    }

    /// In which pieces the block differs from what stood in its place, and how deep a delta of that would be. Nothing
    /// if that cannot be read: then it is no base.
    fn differs(&mut self, was: BlockId) -> Option<(u16, u8)> {
        let repository = self.shared.repository;
        let depth = repository.index.find(was).filter(|_| was != BlockId::HOLE)?.depth + 1;
        if depth > DEEPEST {
            return None;
        }
        repository.block(was, &mut self.base).ok()?;
        if self.base.len() != self.block.len() {
            return None;
        }
        let pieces = self.block.chunks(PIECE).zip(self.base.chunks(PIECE)).enumerate();
        let mask = pieces.filter(|(_, (new, old))| new != old).fold(0, |mask, (at, _)| mask | 1 << at);
        Some((mask, depth))
    }

    fn put(&mut self) -> Result<(), SaveError> {
        let fresh = Packer::new(&self.shared.repository.keys).map_err(Trouble::from)?;
        let full = std::mem::replace(&mut self.packer, fresh);
        self.shared.put(full, std::mem::take(&mut self.listed))
    }

    fn close(mut self) -> Result<(), SaveError> {
        if self.packer.is_empty() { Ok(()) } else { self.put() }
    }
}

/// The bytes of a disk of this size that a page is of.
fn page_of(number: u64, size: u64) -> Range<u64> {
    let bytes = (PAGE * BLOCK) as u64;
    number * bytes..((number + 1) * bytes).min(size)
}

/// Whether any of these ranges, which are in order, has a byte of the span.
fn overlaps(ranges: &[Range<u64>], span: &Range<u64>) -> bool {
    let first = ranges.partition_point(|range| range.end <= span.start);
    ranges.get(first).is_some_and(|range| range.start < span.end)
}

const _: () = assert!(PAGE * LENGTH <= BLOCK);
