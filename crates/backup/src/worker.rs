//! One thread of those that save a disk: it reads pages, finds what is new in them, and fills a pack with that.

use crate::block::{self, BLOCK, DEEPEST, Form, Mask, PIECE, Record};
use crate::id::{BlockId, LENGTH};
use crate::index::Listed;
use crate::key::TAG;
use crate::pack::Packer;
use crate::parts::{is_zero, overlaps};
use crate::point::PAGE;
use crate::repository::Trouble;
use crate::save::{Before, Full, Packs, SaveError, Shared, Source};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;

/// What came of a block that was to be written.
#[derive(Default)]
struct Written {
    /// The pieces in which it differs from what stood in its place, if that is known.
    differs: Option<Mask>,
    /// Bytes that were compressed, and what to; 0 if it was there already.
    new: usize,
    packed: usize,
    /// Bytes that were there already, and could not be compressed.
    raw: usize,
}

/// One thread's own.
pub struct Worker<'a> {
    shared: &'a Shared<'a>,
    source: &'a dyn Source,
    before: Before<'a>,
    packs: &'a Packs,
    full: Sender<Full<'a>>,
    packer: Option<Packer<'a>>,
    listed: Vec<Listed>,
    /// What a block of zeros would be called.
    zeros: BlockId,
    block: Vec<u8>,
    base: Vec<u8>,
    record: Vec<u8>,
}

impl<'a> Worker<'a> {
    pub fn new(
        shared: &'a Shared<'a>,
        source: &'a dyn Source,
        before: Before<'a>,
        (packs, full): (&'a Packs, Sender<Full<'a>>),
    ) -> Self {
        let keys = &shared.repository.keys;
        Self {
            shared,
            source,
            before,
            packs,
            full,
            packer: None,
            listed: Vec::new(),
            zeros: keys.name(&vec![0; BLOCK]),
            block: Vec::new(),
            base: Vec::new(),
            record: Vec::new(),
        }
    }

    /// Reads what may have changed of a page, and writes what is new. What the page is called.
    pub fn page(&mut self, number: u64) -> Result<BlockId, SaveError> {
        let size = self.source.size();
        let whole = page_of(number, size);
        let parent = self.before.parent.filter(|parent| parent.size == size); // another size: everything is read
        let old = parent.and_then(|parent| parent.pages.get(number as usize).copied());
        let changed = self.before.changed.filter(|_| old.is_some());
        let touched = |span: &Range<u64>| changed.is_none_or(|changed| overlaps(changed, span));
        // Where packs are to go, what the parent relies on may lie in them (I13); and what no point names may be gone.
        let is_kept = || {
            let repository = self.shared.repository;
            repository.doomed.is_empty() && !self.before.is_attempt
                || parent.is_some_and(|disk| repository.has_page(disk, number as usize))
        };
        if let Some(old) = old.filter(|_| !touched(&whole) && is_kept()) {
            self.skipped(whole.end - whole.start);
            return Ok(old);
        }
        // A page that cannot be read is as good as none: all that it was of is read.
        let known = parent.and_then(|parent| self.shared.repository.page(parent, number as usize).ok());
        let mut names = known.clone().unwrap_or_else(|| vec![BlockId::HOLE; PAGE]);
        let starts = (whole.start..whole.end).step_by(BLOCK);
        for (name, start) in names.iter_mut().zip(starts) {
            let span = start..(start + BLOCK as u64).min(whole.end);
            // Untouched, and where it can be relied on: a block in a pack that is to go, or is gone, is read again (I13).
            let is_there = *name == BlockId::HOLE || self.shared.repository.index.find(*name).is_some();
            if known.is_some() && is_there && !touched(&span) {
                self.skipped(span.end - span.start);
                continue;
            }
            if self.shared.progress.stop.load(Ordering::Relaxed) {
                return Err(SaveError::Stopped);
            }
            let told = changed.filter(|_| known.is_some()).map(|changed| self.told(changed, &span, *name));
            *name = match told.transpose()?.flatten() {
                Some(name) => name,
                None => self.whole(&span, *name)?,
            };
        }
        self.names(&names, known.as_deref(), old)
    }

    /// Writes the names of the blocks of a page. What the page is called.
    fn names(
        &mut self,
        names: &[BlockId],
        known: Option<&[BlockId]>,
        was: Option<BlockId>,
    ) -> Result<BlockId, SaveError> {
        if let Some(was) = was.filter(|_| known == Some(names)) {
            return Ok(was);
        }
        let used = |names: &[BlockId]| names.iter().filter(|name| **name != BlockId::HOLE).count() as i64;
        let grown = (used(names) - known.map_or(0, used)) * BLOCK as i64;
        self.shared.progress.change.grown.fetch_add(grown, Ordering::Relaxed);
        if names.iter().all(|name| *name == BlockId::HOLE) {
            return Ok(BlockId::HOLE);
        }
        self.block.clear();
        names.iter().for_each(|name| self.block.extend_from_slice(&name.0));
        let id = self.shared.repository.keys.name(&self.block);
        self.keep(id, was.unwrap_or(BlockId::HOLE), None)?;
        Ok(id)
    }

    /// Reads only the pieces of a block of which somebody said that they may have changed, and writes those that did.
    /// What the block is called; nothing if it must be read whole: what its other pieces are is not known, or there
    /// is nothing that a delta could be of.
    fn told(
        &mut self,
        changed: &[Range<u64>],
        span: &Range<u64>,
        was: BlockId,
    ) -> Result<Option<BlockId>, SaveError> {
        let (repository, touched) = (self.shared.repository, touched_pieces(changed, span.start));
        let number = span.start / BLOCK as u64;
        if span.end - span.start != BLOCK as u64 {
            return Ok(None);
        }
        if was == BlockId::HOLE {
            if self.source.is_hole(span) {
                self.skipped(span.end - span.start);
                return Ok(Some(was));
            }
            self.block.clear();
            self.read_pieces(span.start, touched)?;
            return self.content(span, was).map(Some);
        }
        let Some(kept) = self.before.kept else { return Ok(None) };
        let Some(depth) = repository.index.find(was).map(|found| found.depth + 1) else { return Ok(None) };
        let Some(mut pieces) =
            kept.pieces(&repository.keys, number, was).filter(|_| block::is_delta(touched, depth))
        else {
            return Ok(None);
        };
        self.read_pieces(span.start, touched)?;
        let mut mask = 0;
        for at in (0..pieces.len()).filter(|at| touched >> at & 1 == 1) {
            let piece = repository.keys.piece(at, &self.block[at * PIECE..(at + 1) * PIECE]);
            if std::mem::replace(&mut pieces[at], piece) != piece {
                mask |= 1 << at;
            }
        }
        if mask == 0 {
            return Ok(Some(was));
        }
        let id = repository.keys.name_of(&pieces);
        let mut written = Written { differs: Some(mask), ..Written::default() };
        if id == self.zeros {
            self.count(&written, BLOCK);
            return Ok(Some(BlockId::HOLE));
        }
        kept.keep(number, &pieces);
        if self.shared.claims(id) {
            (written.new, written.packed) = self.write_delta(id, (was, depth), mask)?;
        } else {
            written.raw = self.raw(id, was);
        }
        self.count(&written, BLOCK);
        Ok(Some(id))
    }

    /// Reads a block, and writes it unless it is there already. What it is called.
    fn whole(&mut self, span: &Range<u64>, was: BlockId) -> Result<BlockId, SaveError> {
        let length = (span.end - span.start) as usize;
        if self.source.is_hole(span) {
            self.skipped(length as u64);
            self.emptied(was, length);
            return Ok(BlockId::HOLE);
        }
        self.block.resize(length, 0);
        self.read(span.start, 0..length)?;
        self.content(span, was)
    }

    /// Writes the block that was read, unless it is there already. What it is called.
    fn content(&mut self, span: &Range<u64>, was: BlockId) -> Result<BlockId, SaveError> {
        let length = self.block.len();
        if is_zero(&self.block) {
            self.emptied(was, length);
            return Ok(BlockId::HOLE);
        }
        let keys = &self.shared.repository.keys;
        let number = span.start / BLOCK as u64;
        let kept = self.before.kept.filter(|_| length == BLOCK);
        let old = kept.filter(|_| was != BlockId::HOLE).and_then(|kept| kept.pieces(keys, number, was));
        let is_known = was != BlockId::HOLE && (kept.is_none() || old.is_some());
        // Where it most likely is what it was, its name is enough, and that is soon made of all of it.
        if is_known && keys.name(&self.block) == was {
            self.keep(was, was, None)?; // it may lie in a pack that is gone
            return Ok(was);
        }
        let Some(kept) = kept else {
            let id = keys.name(&self.block);
            let kept = self.keep(id, was, None)?;
            if id != was {
                self.count(&kept, length);
            }
            return Ok(id);
        };
        let pieces = keys.pieces(&self.block);
        let id = keys.name_of(&pieces);
        kept.keep(number, &pieces);
        let differs = |old: [_; block::PIECES]| {
            let both = pieces.iter().zip(&old).enumerate();
            both.filter(|(_, (new, old))| new != old).fold(0, |mask, (at, _)| mask | 1 << at)
        };
        let kept = self.keep(id, was, old.map(differs))?;
        if id != was {
            self.count(&kept, length);
        }
        Ok(id)
    }

    /// Counts what differs of a block of this length.
    fn count(&self, kept: &Written, length: usize) {
        let change = &self.shared.progress.change;
        let add = |to: &AtomicU64, bytes: usize| to.fetch_add(bytes as u64, Ordering::Relaxed);
        let changed = kept.differs.map_or(length, |mask| length.min(mask.count_ones() as usize * PIECE));
        add(&change.changed, changed);
        add(&change.new, kept.new);
        add(&change.packed, kept.packed);
        let new = if kept.packed == kept.new { kept.new } else { 0 };
        add(&change.dense, new + kept.raw.min(changed));
    }

    /// Bytes of a block that is there already and could not be compressed, if it replaces something.
    fn raw(&self, id: BlockId, was: BlockId) -> usize {
        let found = self.shared.repository.index.find(id).filter(|_| was != BlockId::HOLE);
        found.map_or(0, |found| block::raw((found.spot.length as usize).saturating_sub(TAG), found.depth))
    }

    /// The block holds nothing any more.
    fn emptied(&self, was: BlockId, length: usize) {
        if was != BlockId::HOLE {
            self.count(&Written::default(), length);
        }
    }

    /// Reads these pieces of the block that begins at `start`, those that are neighbours at once. What stands between them is
    /// what stood there before, or zeros.
    fn read_pieces(&mut self, start: u64, touched: Mask) -> Result<(), SaveError> {
        self.block.resize(BLOCK, 0);
        self.skipped((BLOCK - touched.count_ones() as usize * PIECE) as u64);
        let mut at = 0;
        while at < block::PIECES {
            let run = (touched >> at).trailing_ones() as usize;
            if run > 0 {
                self.read(start + (at * PIECE) as u64, at * PIECE..(at + run) * PIECE)?;
            }
            at += run.max(1);
        }
        Ok(())
    }

    /// Reads from the source into the block.
    fn read(&mut self, from: u64, place: Range<usize>) -> Result<(), SaveError> {
        let length = place.len() as u64;
        let read = self.source.read_at(from, &mut self.block[place]);
        read.map_err(|source| SaveError::Source { at: from, source })?;
        self.shared.progress.read.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    fn skipped(&self, bytes: u64) {
        self.shared.progress.skipped.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Writes the block that was read, of this name, unless it is there already. `was` stood in its place, and differs
    /// in these pieces, if that is known.
    fn keep(&mut self, id: BlockId, was: BlockId, mask: Option<Mask>) -> Result<Written, SaveError> {
        if !self.shared.claims(id) {
            return Ok(Written { differs: mask, raw: self.raw(id, was), ..Written::default() });
        }
        let base = self.base(was, mask);
        let differs = mask.or_else(|| base.filter(|(base, ..)| *base == was).map(|(.., mask)| mask));
        let delta = base.filter(|(_, depth, mask)| block::is_delta(*mask, *depth));
        let (new, packed) = match delta {
            Some((base, depth, mask)) => self.write_delta(id, (base, depth), mask)?,
            None => {
                self.record.clear();
                block::write(id, &self.block, &mut self.record).map_err(SaveError::NoMemory)?;
                (self.block.len(), self.add(id, Form::Whole)?)
            }
        };
        Ok(Written { differs, new, packed, raw: 0 })
    }

    /// Writes these pieces of the block. How many bytes they have, and what they were compressed to.
    fn write_delta(
        &mut self,
        id: BlockId,
        base: (BlockId, u8),
        mask: Mask,
    ) -> Result<(usize, usize), SaveError> {
        self.record.clear();
        let pieces = block::pieces_of(&self.block, mask);
        block::write_delta(id, &pieces, base, mask, &mut self.record).map_err(SaveError::NoMemory)?;
        Ok((pieces.len(), self.add(id, Form::Delta { base: base.0, depth: base.1 })?))
    }

    /// Appends the record to the pack. What its content was compressed to.
    fn add(&mut self, id: BlockId, form: Form) -> Result<usize, SaveError> {
        let keys = &self.shared.repository.keys;
        let packer = match &mut self.packer {
            Some(packer) => packer,
            none @ None => none.insert(Packer::within(keys, self.packs.take()?).map_err(Trouble::from)?),
        };
        let spot = packer.add(&self.record);
        self.listed.push(Listed { id, spot, form });
        let stored = Record::read(&self.record).map_or(0, |record| record.stored());
        if packer.is_full() {
            self.hand_over()?;
        }
        Ok(stored)
    }

    /// What the block could be a delta of, how deep, and in which pieces it differs: of what stood in its place; or, were
    /// that too deep, of the whole block that this leads to. Nothing if that cannot be read: then it is no base.
    fn base(&mut self, was: BlockId, mask: Option<Mask>) -> Option<(BlockId, u8, Mask)> {
        let repository = self.shared.repository;
        let depth = repository.index.find(was).filter(|_| was != BlockId::HOLE)?.depth + 1;
        if depth > DEEPEST {
            let root = repository.root(was).ok()?;
            repository.block(root, &mut self.base).ok()?;
            return Some((root, 1, self.differs()?));
        }
        if let Some(mask) = mask {
            return Some((was, depth, mask));
        }
        repository.block(was, &mut self.base).ok()?;
        Some((was, depth, self.differs()?))
    }

    /// In which pieces the block differs from the base that was read; nothing if that is longer or shorter.
    fn differs(&self) -> Option<Mask> {
        let pieces = self.block.chunks(PIECE).zip(self.base.chunks(PIECE)).enumerate();
        let differing = pieces.filter(|(_, (new, old))| new != old);
        (self.base.len() == self.block.len()).then(|| differing.fold(0, |mask, (at, _)| mask | 1 << at))
    }

    /// Nothing more is added to the pack.
    pub fn hand_over(&mut self) -> Result<(), SaveError> {
        let Some(packer) = self.packer.take() else { return Ok(()) };
        let blocks = std::mem::take(&mut self.listed);
        self.full.send(Full { packer, blocks }).map_err(|_| SaveError::Stopped)
    }
}

/// The bytes of a disk of this size that a page is of.
pub fn page_of(number: u64, size: u64) -> Range<u64> {
    let bytes = (PAGE * BLOCK) as u64;
    number * bytes..((number + 1) * bytes).min(size)
}

/// The pieces of the block from `start` on of which any of these ranges has a byte.
fn touched_pieces(ranges: &[Range<u64>], start: u64) -> Mask {
    let piece = |at: usize| start + (at * PIECE) as u64..start + ((at + 1) * PIECE) as u64;
    (0..block::PIECES).filter(|at| overlaps(ranges, &piece(*at))).fold(0, |mask, at| mask | 1 << at)
}

const _: () = assert!(PAGE * LENGTH <= BLOCK);
