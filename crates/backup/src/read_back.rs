//! What a restore wrote is read again and compared by the names of its blocks (I15). That a write was answered for says that it
//! was taken, not that it is there.

use crate::block::BLOCK;
use crate::id::BlockId;
use crate::parts::is_zero;
use crate::point::{Disk, PAGE};
use crate::repository::Repository;
use crate::restore::{ALIGN, RestoreError, named, pages};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that was written, and is read again: by way of what keeps it, if that can be, and not of what remembers it.
pub trait Again: Sync {
    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Where the next byte may be, from here on, that is not zero. Who cannot tell says: here.
    fn next_data(&self, from: u64) -> u64 {
        from
    }
}

/// Some blocks of a disk.
#[derive(Debug, Default)]
pub struct Blocks(Vec<AtomicU64>);

impl Blocks {
    /// None of a disk of this size.
    #[must_use]
    pub fn none_of(size: u64) -> Self {
        Self((0..Disk::blocks(size).div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    pub(crate) fn add(&self, number: u64) {
        self.0[(number / 64) as usize].fetch_or(1 << (number % 64), Ordering::Relaxed);
    }

    fn has(&self, number: u64) -> bool {
        self.0
            .get((number / 64) as usize)
            .is_some_and(|part| part.load(Ordering::Relaxed) >> (number % 64) & 1 == 1)
    }
}

/// Reads these blocks of what was restored again, all where none are named, with so many threads. `done` counts the bytes of the
/// disk that are as they should be.
///
/// # Errors
/// [`RestoreError::Differs`] at the first byte, of those that one thread found, that is another than was written.
pub fn compare(
    repository: &Repository,
    disk: &Disk,
    again: &dyn Again,
    which: Option<&Blocks>,
    threads: usize,
    done: &AtomicU64,
) -> Result<(), RestoreError> {
    let comparing = Comparing { repository, disk, again, which, done };
    pages(disk, threads, Aligned::new, |number, bytes| comparing.page(number, bytes))
}

/// Memory of a block, so that it can be read past the page cache.
struct Aligned {
    bytes: Vec<u8>,
    from: usize,
}

impl Aligned {
    fn new() -> Self {
        let bytes = vec![0; BLOCK + ALIGN];
        let from = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        Self { bytes, from }
    }

    fn first(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + length]
    }
}

struct Comparing<'a> {
    repository: &'a Repository,
    disk: &'a Disk,
    again: &'a dyn Again,
    which: Option<&'a Blocks>,
    done: &'a AtomicU64,
}

impl Comparing<'_> {
    fn page(&self, number: usize, bytes: &mut Aligned) -> Result<(), RestoreError> {
        let first = (number * PAGE) as u64;
        let mut data = 0; // nothing but zeros from where this was asked to there
        for (at, (name, span)) in (first..).zip(named(self.repository, self.disk, number)?) {
            let length = span.end - span.start;
            if self.which.is_none_or(|which| which.has(at)) {
                if name == BlockId::HOLE && data < span.end {
                    data = self.again.next_data(span.start);
                }
                if name != BlockId::HOLE || data < span.end {
                    self.block(name, &span, bytes.first(length as usize))?;
                }
            }
            self.done.fetch_add(length, Ordering::Relaxed);
        }
        Ok(())
    }

    fn block(&self, name: BlockId, span: &Range<u64>, bytes: &mut [u8]) -> Result<(), RestoreError> {
        let read = self.again.read_at(span.start, bytes);
        read.map_err(|source| RestoreError::Again { at: span.start, source })?;
        let is_it =
            if name == BlockId::HOLE { is_zero(bytes) } else { self.repository.keys.name(bytes) == name };
        if is_it { Ok(()) } else { Err(RestoreError::Differs { at: self.first_other(name, span, bytes) }) }
    }

    /// The first byte that is another one; that of the block, if it cannot be told any more.
    fn first_other(&self, name: BlockId, span: &Range<u64>, bytes: &[u8]) -> u64 {
        let mut block = vec![0; bytes.len()];
        if name != BlockId::HOLE && self.repository.block(name, &mut block).is_err() {
            return span.start;
        }
        let at = bytes.iter().zip(&block).position(|(there, written)| there != written);
        span.start + at.unwrap_or(0) as u64
    }
}
