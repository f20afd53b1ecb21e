//! What a writer had found out before it ended without a point: it is killed, its repository is full, its network gone. Whoever
//! tries again reads only what the first one did not come to, and what was written meanwhile.
//!
//! It is kept on the computer of the writer, and sealed: nobody without the key can make one. What it names may be missing in the
//! repository, as no point needs it: packs that had not arrived, or were collected. So it is looked for, page by page, and read
//! again where it is not found ([`crate::save::Before::is_attempt`]).

use crate::id::{BlockId, LENGTH};
use crate::object::{self, Kind};
use crate::parts::{take, word};
use crate::point::{DISK_MOST, Disk, is_name};
use crate::repository::{Repository, Trouble};
use crate::save::{Change, Progress};
use crate::worker::page_of;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

const VERSION: u8 = 1;
/// The longest name of a moment in bytes.
pub const MOMENT_MOST: usize = 255;

/// How far somebody came with a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The VM whose point it was to be.
    pub vm: String,
    /// Which moment of the disk was read: whoever goes on must know what was written since. Compared, never understood.
    pub moment: String,
    /// Bytes of the disk.
    pub size: u64,
    /// What was seen to be other than at the point before, as [`Change::counts`] gives it.
    pub change: [u64; 5],
    /// What each page is called; nothing if it was not read to its end.
    pub pages: Vec<Option<BlockId>>,
}

impl Attempt {
    /// What is known by now of a disk that is being saved.
    #[must_use]
    pub fn of(vm: &str, moment: &str, size: u64, progress: &Progress) -> Self {
        let change = progress.change.counts();
        Self { vm: vm.to_owned(), moment: moment.to_owned(), size, change, pages: progress.pages() }
    }

    /// How many pages were read to their end.
    #[must_use]
    pub fn come(&self) -> usize {
        self.pages.iter().flatten().count()
    }

    /// Bytes of the disk that were read to their end.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let come = self.pages.iter().zip(0..).filter(|(page, _)| page.is_some());
        come.map(|(_, number)| page_of(number, self.size)).map(|span| span.end - span.start).sum()
    }

    /// Its bytes, sealed for this repository.
    ///
    /// # Errors
    /// If a name is too long or none, or the system has no random numbers.
    pub fn seal(&self, repository: &Repository) -> Result<Vec<u8>, Trouble> {
        let content = self.write().ok_or(Trouble::Damaged { name: "attempt".into() })?;
        Ok(object::write(&repository.keys, Kind::Attempt, &content)?)
    }

    /// Reads it again; nothing if it is of another repository, was changed, or is not of this format.
    #[must_use]
    pub fn open(repository: &Repository, sealed: &mut [u8]) -> Option<Self> {
        let content = object::read(&repository.keys, Kind::Attempt, sealed).ok()?;
        Self::read(content)
    }

    fn write(&self) -> Option<Vec<u8>> {
        if self.moment.len() > MOMENT_MOST || !is_name(&self.vm) || !self.fits() {
            return None;
        }
        let mut out = vec![VERSION];
        for word in [&self.vm, &self.moment] {
            out.push(word.len() as u8);
            out.extend_from_slice(word.as_bytes());
        }
        out.extend_from_slice(&self.size.to_le_bytes());
        self.change.iter().for_each(|count| out.extend_from_slice(&count.to_le_bytes()));
        for page in &self.pages {
            out.push(page.is_some().into());
            out.extend_from_slice(page.as_ref().map_or(&[], |page| &page.0[..]));
        }
        Some(out)
    }

    fn read(content: &[u8]) -> Option<Self> {
        let mut rest = content;
        let [VERSION] = take::<1>(&mut rest)? else { return None };
        let vm = word(&mut rest).filter(|vm| is_name(vm))?;
        let moment = word(&mut rest)?;
        let size = u64::from_le_bytes(*take(&mut rest)?);
        let mut change = [0; 5];
        for count in &mut change {
            *count = u64::from_le_bytes(*take(&mut rest)?);
        }
        let mut pages = Vec::new();
        while !rest.is_empty() {
            pages.push(match take::<1>(&mut rest)? {
                [0] => None,
                [1] => Some(BlockId(*take::<LENGTH>(&mut rest)?)),
                _ => return None,
            });
        }
        let read = Self { vm, moment, size, change, pages };
        read.fits().then_some(read)
    }

    fn fits(&self) -> bool {
        self.size <= DISK_MOST && self.pages.len() as u64 == Disk::pages(self.size)
    }

    /// The disk as far as it is known: where the attempt came, as it found it, elsewhere as the parent has it; and what of it may be
    /// other now. `since_parent` is what was written since the parent, if that is known, and `since` what was written since the
    /// moment of the attempt; both in order.
    #[must_use]
    pub fn join(
        &self,
        parent: Option<&Disk>,
        since_parent: Option<&[Range<u64>]>,
        since: &[Range<u64>],
    ) -> (Disk, Vec<Range<u64>>) {
        let parent = parent.filter(|parent| parent.size == self.size);
        let since_parent = since_parent.filter(|_| parent.is_some());
        let (mut pages, mut changed) = (Vec::with_capacity(self.pages.len()), Vec::new());
        for (page, number) in self.pages.iter().zip(0..) {
            let span = page_of(number, self.size);
            match (page, since_parent) {
                (Some(_), _) => within(since, &span, &mut changed),
                (None, Some(since_parent)) => within(since_parent, &span, &mut changed),
                (None, None) => changed.push(span),
            }
            let old = parent.and_then(|parent| parent.pages.get(number as usize).copied());
            pages.push(page.or(old).unwrap_or(BlockId::HOLE));
        }
        let name = parent.map_or_else(String::new, |parent| parent.name.clone());
        (Disk { name, size: self.size, pages }, changed)
    }
}

impl Change {
    /// What was counted: changed, new, packed, dense, and by how many bytes it grew (two's complement).
    #[must_use]
    pub fn counts(&self) -> [u64; 5] {
        let [changed, new, packed, dense] = self.counters().map(|counter| counter.load(Relaxed));
        [changed, new, packed, dense, self.grown.load(Relaxed).cast_unsigned()]
    }

    /// Adds what somebody else had counted.
    pub fn add(&self, counts: [u64; 5]) {
        for (counter, count) in self.counters().into_iter().zip(counts) {
            counter.fetch_add(count, Relaxed);
        }
        self.grown.fetch_add(counts[4].cast_signed(), Relaxed);
    }

    const fn counters(&self) -> [&AtomicU64; 4] {
        [&self.changed, &self.new, &self.packed, &self.dense]
    }
}

/// The parts of these ranges, which are in order, that lie in the span.
fn within(ranges: &[Range<u64>], span: &Range<u64>, found: &mut Vec<Range<u64>>) {
    let first = ranges.partition_point(|range| range.end <= span.start);
    let near = ranges[first..].iter().take_while(|range| range.start < span.end);
    found.extend(near.map(|range| range.start.max(span.start)..range.end.min(span.end)));
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::block::BLOCK;
    use crate::point::PAGE;

    const PAGE_BYTES: u64 = (PAGE * BLOCK) as u64;

    fn attempt() -> Attempt {
        let pages = vec![Some(BlockId([7; LENGTH])), None, Some(BlockId::HOLE)];
        let size = 2 * PAGE_BYTES + 5;
        Attempt {
            vm: "orders".into(),
            moment: "holdfast-main-1".into(),
            size,
            change: [1, 2, 3, 4, u64::MAX],
            pages,
        }
    }

    #[test]
    fn an_attempt_is_read_as_it_was_written_and_not_if_it_was_cut() {
        let attempt = attempt();
        assert_eq!((attempt.come(), attempt.bytes()), (2, PAGE_BYTES + 5));
        let content = attempt.write().unwrap();
        assert_eq!(Attempt::read(&content).unwrap(), attempt);
        for length in 0..content.len() {
            assert_eq!(Attempt::read(&content[..length]), None, "{length}");
        }
        let more = [&content[..], &[0]].concat();
        assert_eq!(Attempt::read(&more), None);
        assert_eq!(Attempt { vm: "..".into(), ..attempt.clone() }.write(), None);
        assert_eq!(Attempt { size: 5, ..attempt.clone() }.write(), None);
        assert_eq!(Attempt { moment: "m".repeat(256), ..attempt }.write(), None);
    }

    #[test]
    fn what_was_counted_goes_on_from_there() {
        let change = Change::default();
        change.add([10, 20, 30, 40, (-5_i64).cast_unsigned()]);
        change.add([1, 2, 3, 4, 1]);
        assert_eq!(change.counts(), [11, 22, 33, 44, (-4_i64).cast_unsigned()]);
    }

    #[test]
    fn where_the_attempt_came_only_what_was_written_since_is_other_and_elsewhere_what_was_since_the_parent() {
        let attempt = attempt();
        let old = BlockId([3; LENGTH]);
        let parent = Disk { name: "disk0".into(), size: attempt.size, pages: vec![old; 3] };
        let (far, end) = (PAGE_BYTES, 2 * PAGE_BYTES);
        let since_parent = [0..9, far - 4..far + 4, end - 1..end + 3];
        let since = [5..6, far - 1..far + 2];
        let (disk, changed) = attempt.join(Some(&parent), Some(&since_parent), &since);
        assert_eq!(disk.pages, [BlockId([7; LENGTH]), old, BlockId::HOLE]);
        assert_eq!(changed, [5..6, far - 1..far, far..far + 4, end - 1..end]);
        let (disk, changed) = attempt.join(None, Some(&since_parent), &since);
        assert_eq!(disk.pages, [BlockId([7; LENGTH]), BlockId::HOLE, BlockId::HOLE]);
        assert_eq!(
            changed,
            [5..6, far - 1..far, far..end],
            "nothing is known of what is missing: it is read"
        );
        let other = Disk { size: 5, pages: vec![old], ..parent };
        assert_eq!(attempt.join(Some(&other), Some(&since_parent), &since), attempt.join(None, None, &since));
    }
}
