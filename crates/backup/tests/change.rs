//! What differs from the point before is counted, however it was found.

#![expect(clippy::unwrap_used, reason = "tests")]

mod disks;

use disks::Image;
use holdfast_backup::block::{BLOCK, PIECE};
use holdfast_backup::kept::Kept;
use holdfast_backup::key::Cost;
use holdfast_backup::point::{Disk, Point};
use holdfast_backup::repository::Repository;
use holdfast_backup::save::{self, Before, Progress};
use holdfast_backup::session::{Session, Writer};
use holdfast_backup::store::Folder;
use std::ops::Range;
use std::sync::atomic::Ordering;

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

/// What was counted: changed, new, packed, dense, grown.
fn save(repository: &mut Repository, image: &Image, before: Before<'_>) -> (Disk, [i64; 5]) {
    let session = Session::begin(repository, "orders", &Writer::default()).unwrap();
    let progress = Progress::default();
    let disk = save::disk(repository, "disk0", image, before, 2, &progress).unwrap();
    let note = String::new();
    let point = Point { vm: "orders".into(), sequence: 0, taken: 7, disks: vec![disk.clone()], note };
    session.commit(repository, point).unwrap();
    let change = &progress.change;
    let count = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed) as i64;
    let [changed, new, packed, dense] =
        [&change.changed, &change.new, &change.packed, &change.dense].map(count);
    (disk, [changed, new, packed, dense, change.grown.load(Ordering::Relaxed)])
}

#[test]
fn what_changed_is_counted_the_same_by_kept_hashes_told_ranges_and_a_look_at_the_base() {
    let (block, piece) = (BLOCK as i64, PIECE as i64);
    let mut first = vec![0; 300 * BLOCK];
    first[..2 * BLOCK].copy_from_slice(&noise(1, 2 * BLOCK));
    let lines: Vec<u8> = (0..40_000).flat_map(|at| format!("order {at} was paid\n").into_bytes()).collect();
    first[280 * BLOCK..282 * BLOCK].copy_from_slice(&lines[..2 * BLOCK]);
    let mut second = first.clone();
    second[PIECE..2 * PIECE].fill(7); // one piece that compresses
    second[281 * BLOCK + PIECE..281 * BLOCK + 4 * PIECE].copy_from_slice(&noise(2, 3 * PIECE)); // three that do not
    second[BLOCK..2 * BLOCK].fill(0); // gone
    second.copy_within(280 * BLOCK..281 * BLOCK, 290 * BLOCK); // known already
    let changed: Vec<Range<u64>> =
        [PIECE..2 * PIECE, BLOCK..2 * BLOCK, 281 * BLOCK..282 * BLOCK, 290 * BLOCK..291 * BLOCK]
            .map(|range| range.start as u64..range.end as u64)
            .to_vec();
    for (is_kept, is_told) in [(true, true), (true, false), (false, true), (false, false)] {
        let folder = tempfile::tempdir().unwrap();
        let store = || Box::new(Folder::open(folder.path()).unwrap());
        let cheap = Cost { memory: 8, rounds: 1, lanes: 1 };
        let mut repository = Repository::create(store(), b"secret", cheap).unwrap();
        let hashes = tempfile::tempdir().unwrap();
        let kept = is_kept.then(|| Kept::open(&hashes.path().join("kept"), repository.id()).unwrap());
        let before = Before { kept: kept.as_ref(), ..Before::default() };
        let (parent, full) = save(&mut repository, &Image(first.clone()), before);
        assert_eq!([full[0], full[1], full[3], full[4]], [4 * block, 4 * block, 2 * block, 4 * block]);
        assert!(full[2] < 3 * block, "lines are compressed: {full:?}");
        let mut repository = Repository::open(store(), b"secret").unwrap();
        assert_eq!(repository.used(&parent), 4 * BLOCK as u64);
        let told = is_told.then_some(&changed[..]);
        let before =
            Before { parent: Some(&parent), changed: told, kept: kept.as_ref(), ..Before::default() };
        let (_, counted) = save(&mut repository, &Image(second.clone()), before);
        let expected = [4 * piece + 2 * block, 4 * piece, 3 * piece, 0];
        assert_eq!([counted[0], counted[1], counted[3], counted[4]], expected, "{is_kept} {is_told}");
        assert!((3 * piece..3 * piece + 300).contains(&counted[2]), "{counted:?}");
        // An attempt that failed, or a point without it as its parent, brought what is new: it is no less dense for that.
        let (_, again) = save(&mut repository, &Image(second.clone()), before);
        assert_eq!(again[1..], [0, 0, 3 * piece, 0], "{is_kept} {is_told}");
        // Nothing changed since.
        let (_, none) = save(&mut repository, &Image(first.clone()), Before { changed: Some(&[]), ..before });
        assert_eq!(none, [0; 5]);
    }
}
