//! Somebody goes on where another was cut off: little is read twice, and whatever became of what was written, the point is the
//! disk as it is now.

#![expect(clippy::unwrap_used, reason = "tests")]

mod disks;
mod memory;

use disks::Restored;
use holdfast_backup::attempt::Attempt;
use holdfast_backup::block::BLOCK;
use holdfast_backup::key::Cost;
use holdfast_backup::point::{Disk, PAGE};
use holdfast_backup::repository::Repository;
use holdfast_backup::restore;
use holdfast_backup::save::{self, Before, Progress, SaveError, Source};
use holdfast_backup::session::{Session, Writer};
use memory::Memory;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

const CHEAP: Cost = Cost { memory: 8, rounds: 1, lanes: 1 };
const PAGES: u64 = 3;
const SIZE: u64 = PAGES * (PAGE * BLOCK) as u64;

/// A large disk of which only some blocks hold something, each a number; it cannot be read from `broken` on.
#[derive(Clone, Debug, Default)]
struct Sparse {
    blocks: BTreeMap<u64, u8>,
    broken: Option<u64>,
}

impl Sparse {
    fn of(blocks: &[(u64, u64, u8)]) -> Self {
        let at = |(page, block, with): &(u64, u64, u8)| (page * PAGE as u64 + block, *with);
        Self { blocks: blocks.iter().map(at).filter(|(_, with)| *with > 0).collect(), broken: None }
    }

    fn with(&self, blocks: &[(u64, u64, u8)]) -> Self {
        let mut changed = self.clone();
        changed.blocks.extend(Self::of(blocks).blocks);
        changed
    }

    fn block(&self, number: u64) -> Vec<u8> {
        let mut state = self.blocks.get(&number).copied().map_or(0, u64::from);
        let step = u64::from(state != 0);
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step);
            (state >> 56) as u8
        };
        (0..BLOCK).map(|_| byte()).collect()
    }
}

impl Source for Sparse {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let (number, from) = (offset / BLOCK as u64, (offset % BLOCK as u64) as usize);
        if self.broken.is_some_and(|broken| number >= broken) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        bytes.copy_from_slice(&self.block(number)[from..from + bytes.len()]);
        Ok(())
    }

    fn is_hole(&self, span: &Range<u64>) -> bool {
        !self.blocks.contains_key(&(span.start / BLOCK as u64))
    }
}

fn ranges(blocks: &[(u64, u64, u8)]) -> Vec<Range<u64>> {
    let mut ranges: Vec<_> = blocks
        .iter()
        .map(|(page, block, _)| {
            let start = (page * PAGE as u64 + block) * BLOCK as u64;
            start..start + BLOCK as u64
        })
        .collect();
    ranges.sort_by_key(|range| range.start);
    ranges.dedup();
    ranges
}

fn saved(store: &Memory, disk: &Sparse, before: Before<'_>) -> (Result<Disk, SaveError>, Progress) {
    let mut repository = open(store);
    let session = Session::begin(&mut repository, "orders", &Writer::default()).unwrap();
    let progress = Progress::default();
    let disk = save::disk(&repository, "disk0", disk, before, 1, &progress);
    session.end(&repository).unwrap();
    (disk, progress)
}

fn open(store: &Memory) -> Repository {
    Repository::open(Box::new(store.seen_by(None)), b"secret").unwrap()
}

fn fresh() -> Memory {
    let store = Memory::default();
    Repository::create(Box::new(store.seen_by(None)), b"secret", CHEAP).unwrap();
    store
}

/// As one computer keeps it, and reads it again.
fn kept(store: &Memory, attempt: &Attempt) -> Attempt {
    let mut sealed = attempt.seal(&open(store)).unwrap();
    let other = open(&fresh());
    assert_eq!(Attempt::open(&other, &mut sealed.clone()), None, "of another repository");
    let mut changed = sealed.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(Attempt::open(&open(store), &mut changed), None);
    Attempt::open(&open(store), &mut sealed).unwrap()
}

/// The disk of a point is this one, in all blocks that hold something and in those beside them.
fn is_same(store: &Memory, disk: &Disk, expected: &Sparse) {
    let repository = open(store);
    let target = Restored(Mutex::new(vec![0; SIZE as usize]));
    restore::disk(&repository, disk, &target, 1, &AtomicU64::new(0)).unwrap();
    let restored = target.0.into_inner().unwrap();
    for (bytes, number) in restored.chunks(BLOCK).zip(0..) {
        let is_right = match expected.blocks.contains_key(&number) {
            true => bytes == expected.block(number),
            false => bytes.iter().all(|byte| *byte == 0),
        };
        assert!(is_right, "block {number}");
    }
}

#[test]
fn whoever_goes_on_reads_what_was_not_come_to_and_what_was_written_since() {
    let first = Sparse::of(&[(0, 0, 1), (0, 9, 2), (1, 3, 3), (2, 7, 4), (2, 8, 5)]);
    let (store, broken) = (fresh(), Sparse { broken: Some(2 * PAGE as u64), ..first.clone() });
    let (failed, progress) = saved(&store, &broken, Before::default());
    assert!(matches!(failed, Err(SaveError::Source { .. })));
    let attempt = kept(&store, &Attempt::of("orders", "m1", SIZE, &progress));
    assert_eq!((attempt.come(), attempt.bytes()), (2, 2 * SIZE / 3));

    let written = [(0, 9, 8), (0, 10, 9)];
    let now = first.with(&written);
    let (parent, changed) = attempt.join(None, None, &ranges(&written));
    let before =
        Before { parent: Some(&parent), changed: Some(&changed), is_attempt: true, ..Before::default() };
    let (disk, progress) = saved(&store, &now, before);
    let blocks = progress.read.into_inner() / BLOCK as u64;
    assert_eq!(blocks, 4, "two of the last page, and what was written to the first one");
    is_same(&store, &disk.unwrap(), &now);

    // What was written is gone: collected, say, or it had never arrived.
    store.take("packs/");
    store.take("index/");
    let (disk, progress) = saved(&store, &now, before);
    assert_eq!(progress.read.into_inner() / BLOCK as u64, 6, "all that holds something");
    is_same(&store, &disk.unwrap(), &now);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// A point, then an attempt that comes to some page, then another one; some packs are lost between.
    #[test]
    fn whatever_was_come_to_and_whatever_was_lost_the_point_is_the_disk_as_it_is_now(
        blocks in prop::collection::vec((0..PAGES, 0..6_u64, 1..255_u8), 1..9),
        one in prop::collection::vec((0..PAGES, 0..6_u64, 1..255_u8), 0..5),
        two in prop::collection::vec((0..PAGES, 0..6_u64, 1..255_u8), 0..5),
        broken in 0..=PAGES, lost in any::<u64>(), has_point in any::<bool>(),
    ) {
        let store = fresh();
        let first = Sparse::of(&blocks);
        let parent = has_point.then(|| saved(&store, &first, Before::default()).0.unwrap());
        let before_attempt: Vec<String> = store.names("packs/");
        let then = Sparse { broken: Some(broken * PAGE as u64), ..first.with(&one) };
        let since_parent = ranges(&one);
        let before = Before { parent: parent.as_ref(), changed: parent.is_some().then_some(&since_parent), ..Before::default() };
        let (_, progress) = saved(&store, &then, before);
        let attempt = kept(&store, &Attempt::of("orders", "m1", SIZE, &progress));
        for (at, pack) in store.names("packs/").iter().filter(|pack| !before_attempt.contains(pack)).enumerate() {
            if lost >> (at % 64) & 1 == 1 {
                store.take(pack);
            }
        }
        let now = first.with(&one).with(&two);
        let both = ranges(&[one, two.clone()].concat());
        let (joined, changed) = attempt.join(parent.as_ref(), Some(&both), &ranges(&two));
        let before = Before { parent: Some(&joined), changed: Some(&changed), is_attempt: true, ..Before::default() };
        let (disk, _) = saved(&store, &now, before);
        is_same(&store, &disk.unwrap(), &now);
    }
}
