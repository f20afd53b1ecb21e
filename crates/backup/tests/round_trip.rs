//! What was saved is restored: every point alone, byte for byte, whatever was changed, and by whatever it was found.

#![expect(clippy::unwrap_used, reason = "tests")]

mod disks;
mod full;

use disks::{Image, Restored};
use full::Full;
use holdfast_backup::block::BLOCK;
use holdfast_backup::kept::Kept;
use holdfast_backup::key::{Cost, KeyError};
use holdfast_backup::point::{Disk, Point};
use holdfast_backup::repository::{PointName, Repository, Trouble};
use holdfast_backup::restore::{self, Held, RestoreError};
use holdfast_backup::save::{self, Before, Progress, SaveError, Source};
use holdfast_backup::session::{Session, Writer};
use holdfast_backup::store::{Folder, Store};
use holdfast_backup::verify;
use proptest::prelude::*;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const CHEAP: Cost = Cost { memory: 64, rounds: 1, lanes: 1 };

fn create(folder: &Path) -> Repository {
    Repository::create(Box::new(Folder::open(folder).unwrap()), b"secret", CHEAP).unwrap()
}

fn open(folder: &Path) -> Repository {
    Repository::open(Box::new(Folder::open(folder).unwrap()), b"secret").unwrap()
}

/// Saves an image as the next point of `orders`. The point, and the bytes that were written.
fn saved(repository: &mut Repository, image: &Image, before: Before<'_>) -> (PointName, u64) {
    let session = Session::begin(repository, "orders", &Writer::default()).unwrap();
    let progress = Progress::default();
    let disk = save::disk(repository, "disk0", image, before, 2, &progress).unwrap();
    let (read, skipped) = (progress.read.into_inner(), progress.skipped.into_inner());
    assert_eq!(read + skipped, image.size());
    let point = Point { vm: "orders".into(), sequence: 0, taken: 7, disks: vec![disk], note: String::new() };
    (session.commit(repository, point).unwrap(), progress.written.load(Ordering::Relaxed))
}

fn disk_of(repository: &Repository, point: &PointName) -> Disk {
    repository.point(point).unwrap().disks.remove(0)
}

fn restored(repository: &Repository, point: &PointName) -> Result<Vec<u8>, RestoreError> {
    let disk = disk_of(repository, point);
    let target = Restored(Mutex::new(vec![0; disk.size as usize]));
    let done = AtomicU64::new(0);
    restore::disk(repository, &disk, &target, 2, &done)?;
    assert_eq!(done.into_inner(), disk.size);
    Ok(target.0.into_inner().unwrap())
}

/// Something like a disk: text, noise, zeros, in stretches.
fn image(size: usize, seed: u64) -> Image {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        let (kind, length) = (next() % 3, (next() % 90_000) as usize);
        let length = length.min(size - bytes.len());
        match kind {
            0 => bytes.extend((0..length).map(|_| next() as u8)),
            1 => bytes.extend((0..length).map(|at| b"orders are rows "[at % 16])),
            _ => bytes.resize(bytes.len() + length, 0),
        }
    }
    Image(bytes)
}

type Change = (prop::sample::Index, usize, u8);

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec((any::<prop::sample::Index>(), 1_usize..20_000, any::<u8>()), 0..12)
}

/// Changes the image. Which bytes were.
fn change(image: &mut Image, changes: &[Change]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = changes
        .iter()
        .map(|(at, length, with)| {
            let from = at.index(image.0.len());
            let to = (from + length).min(image.0.len());
            image.0[from..to].fill(*with);
            from as u64..to as u64
        })
        .collect();
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut apart: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match apart.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => apart.push(range),
        }
    }
    apart
}

/// What is kept of the round before: its hashes, none (then those of the next are old), or hashes with wrong bytes.
#[derive(Clone, Debug)]
enum Hashes {
    Kept,
    None,
    Hurt(prop::sample::Index),
}

fn kept_hashes() -> impl Strategy<Value = Hashes> {
    let hurt = any::<prop::sample::Index>().prop_map(Hashes::Hurt);
    prop_oneof![3 => Just(Hashes::Kept), 1 => Just(Hashes::None), 1 => hurt]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_point_is_restored_as_it_was(
        size in 1_usize..1_500_000,
        seed in any::<u64>(),
        rounds in prop::collection::vec((changes(), any::<bool>(), any::<bool>(), kept_hashes()), 1..12),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (mut repository, hashes) = (create(folder.path()), folder.path().join("hashes"));
        let mut image = image(size, seed);
        let (first, _) = saved(&mut repository, &image, Before::default());
        let mut all = vec![(first, image.0.clone())];
        for (changes, is_told, has_parent, kept) in rounds {
            if let Hashes::Hurt(at) = kept && let Ok(mut bytes) = std::fs::read(&hashes) {
                let at = at.index(bytes.len());
                bytes[at..].iter_mut().step_by(97).for_each(|byte| *byte ^= 1);
                std::fs::write(&hashes, bytes).unwrap();
            }
            let kept = (!matches!(kept, Hashes::None)).then(|| Kept::open(&hashes, repository.id()).unwrap());
            let ranges = change(&mut image, &changes);
            repository.reload().unwrap();
            let parent = disk_of(&repository, &all.last().unwrap().0);
            let before = Before { parent: has_parent.then_some(&parent), changed: is_told.then_some(&ranges), kept: kept.as_ref(), ..Before::default() };
            let (point, _) = saved(&mut repository, &image, before);
            all.push((point, image.0.clone()));
        }
        let repository = open(folder.path());
        prop_assert_eq!(repository.points().unwrap().len(), all.len());
        for (point, bytes) in &all {
            prop_assert!(&restored(&repository, point).unwrap() == bytes, "{point:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_holds_one_point_becomes_another_by_what_differs(
        size in 1_usize..1_500_000, seed in any::<u64>(), first in changes(), since in changes(), back in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut repository = create(folder.path());
        let mut image = image(size, seed);
        let (one, before) = (saved(&mut repository, &image, Before::default()).0, image.0.clone());
        let changed = change(&mut image, &first);
        repository.reload().unwrap();
        let parent = disk_of(&repository, &one);
        let two = saved(&mut repository, &image, Before { parent: Some(&parent), ..Before::default() }).0;
        let after = image.0.clone();
        let repository = open(folder.path());
        let ((wanted, bytes), (held, there)) =
            if back { ((&one, &before), (&two, &after)) } else { ((&two, &after), (&one, &before)) };
        let (wanted, held) = (disk_of(&repository, wanted), disk_of(&repository, held));
        // The file was written to since it held that point.
        let mut written_since = Image(there.clone());
        let since = change(&mut written_since, &since);
        let most: u64 = changed.iter().chain(&since).map(|range| range.end - range.start + 2 * 4_096).sum();
        for held in [Some(Held { disk: &held, changed: &since }), None] {
            let (target, done) = (Restored(Mutex::new(written_since.0.clone())), AtomicU64::new(0));
            let written = restore::onto(&repository, &wanted, &target, held, 2, &done).unwrap();
            prop_assert!(&target.0.into_inner().unwrap() == bytes);
            prop_assert_eq!(done.into_inner(), size as u64);
            prop_assert!(written.bytes <= most, "{} of {}", written.bytes, most);
        }
    }
}

#[test]
fn small_writes_cost_what_changed_and_what_is_known_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut repository = create(folder.path());
    let mut image = image(24 << 20, 3);
    let (first, whole) = saved(&mut repository, &image, Before::default());
    assert!(whole > 4 << 20, "{whole}");
    repository.reload().unwrap();
    let parent = disk_of(&repository, &first);
    let mut noise = 1_u64;
    for block in (0..image.0.len()).step_by(3 * BLOCK) {
        for byte in &mut image.0[block + 9_000..block + 9_600] {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (noise >> 56) as u8;
        }
    }
    let before = Before { parent: Some(&parent), ..Before::default() };
    let (second, added) = saved(&mut repository, &image, before);
    let changed = 24 * 16 / 3; // blocks, a piece of each
    assert!(added < changed * 4_400 + 40_000, "{added}");
    repository.reload().unwrap();
    let parent = disk_of(&repository, &second);
    assert_eq!(saved(&mut repository, &image, Before { parent: Some(&parent), ..Before::default() }).1, 0);
    assert_eq!(saved(&mut repository, &image, Before::default()).1, 0, "without a parent, too");
}

/// Counts what is read of a repository.
struct Watched(Folder, std::sync::Arc<AtomicU64>);

impl Store for Watched {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.put(name, bytes)
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = self.0.read(name, offset, length)?;
        self.1.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        self.0.list(folder)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
}

#[test]
fn of_a_change_that_is_told_only_its_pieces_are_read_and_of_the_repository_no_block() {
    let folder = tempfile::tempdir().unwrap();
    let hashes = folder.path().join("hashes");
    let mut repository = create(folder.path());
    let kept = Kept::open(&hashes, repository.id()).unwrap();
    let mut image = image(32 * BLOCK, 3);
    image.0[5 * BLOCK..7 * BLOCK].fill(0); // holes
    let before = Before { kept: Some(&kept), ..Before::default() };
    let (first, whole) = saved(&mut repository, &image, before);
    assert!(whole > 8 * BLOCK as u64, "{whole}");
    let read = std::sync::Arc::new(AtomicU64::new(0));
    let store = Watched(Folder::open(folder.path()).unwrap(), read.clone());
    let mut repository = Repository::open(Box::new(store), b"secret").unwrap();
    let session = Session::begin(&mut repository, "orders", &Writer::default()).unwrap();
    let parent = disk_of(&repository, &first);
    let mut changed = Vec::new();
    for block in 0..30 {
        let at = block * BLOCK + 9_000;
        image.0[at..at + 100].fill(block as u8 + 1);
        changed.push(at as u64..at as u64 + 100);
    }
    read.store(0, Ordering::Relaxed);
    let before =
        Before { parent: Some(&parent), changed: Some(&changed), kept: Some(&kept), ..Before::default() };
    let progress = Progress::default();
    let disk = save::disk(&repository, "disk0", &image, before, 2, &progress).unwrap();
    assert_eq!(progress.read.into_inner(), 30 * 4_096);
    assert!(read.load(Ordering::Relaxed) < BLOCK as u64, "{read:?}: no more than a page of names");
    let point = Point { vm: "orders".into(), sequence: 0, taken: 7, disks: vec![disk], note: String::new() };
    let second = session.commit(&repository, point).unwrap();
    let repository = open(folder.path());
    assert!(restored(&repository, &second).unwrap() == image.0);
    assert!(restored(&repository, &first).unwrap() != image.0);
}

#[test]
fn a_full_repository_ends_a_save_and_what_was_written_before_is_not_written_again() {
    let folder = tempfile::tempdir().unwrap();
    create(folder.path());
    let mut image = image(1 << 20, 3);
    let noise = |at: u64| (at.wrapping_mul(at).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    image.0.extend((0..130 << 20).map(noise));
    let store = Full(Folder::open(folder.path()).unwrap(), "packs", AtomicU64::new(2));
    let mut repository = Repository::open(Box::new(store), b"secret").unwrap();
    Session::begin(&mut repository, "orders", &Writer::default()).unwrap();
    let before = Before::default();
    let ended = save::disk(&repository, "disk0", &image, before, 4, &Progress::default());
    let Err(save::SaveError::Repository(Trouble::Store { source, .. })) = ended else { panic!("{ended:?}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    let mut repository = open(folder.path());
    assert_eq!(repository.points().unwrap(), []);
    let whole = repository.store().list("packs").unwrap();
    assert_eq!(whole.len(), 2);
    let (point, added) = saved(&mut repository, &image, before);
    let (kept, all) = (whole.iter().map(|(_, size)| size).sum::<u64>(), image.size() + (1 << 20));
    assert!(kept > 16 << 20 && added < all - kept, "{added} of {all} beside {kept}");
    assert!(restored(&open(folder.path()), &point).unwrap() == image.0);
}

#[test]
fn a_save_that_ends_after_any_write_leaves_no_point_or_a_whole_one() {
    let mut image = image(2 << 20, 3);
    image.0.extend((0..70 << 20).map(|at: u64| (at.wrapping_mul(at) >> 9) as u8)); // two pages, two threads
    let mut ends = Vec::new();
    for writes in 0.. {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path());
        let store = Full(Folder::open(folder.path()).unwrap(), "", AtomicU64::new(writes));
        let mut repository = Repository::open(Box::new(store), b"secret").unwrap();
        let session = Session::begin(&mut repository, "orders", &Writer::default());
        let saved = save::disk(&repository, "disk0", &image, Before::default(), 2, &Progress::default());
        let point = |disk| Point {
            vm: "orders".into(),
            sequence: 0,
            taken: 7,
            disks: vec![disk],
            note: String::new(),
        };
        let commit = |disk| session.is_ok_and(|session| session.commit(&repository, point(disk)).is_ok());
        let is_saved = saved.is_ok_and(commit);
        let repository = open(folder.path());
        let points = repository.points().unwrap();
        assert_eq!(points.len(), usize::from(is_saved), "after {writes} writes");
        for point in &points {
            assert!(restored(&repository, point).unwrap() == image.0);
        }
        ends.push(is_saved);
        if is_saved {
            break;
        }
    }
    assert!(ends.len() >= 4, "packs, their index, the point: {ends:?}");
}

#[test]
fn holes_are_not_read() {
    struct Sparse(Image);
    impl Source for Sparse {
        fn size(&self) -> u64 {
            self.0.size()
        }

        fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
            assert!(offset >= 100 * BLOCK as u64, "nothing is there");
            self.0.read_at(offset, bytes)
        }

        fn is_hole(&self, span: &Range<u64>) -> bool {
            span.end <= 100 * BLOCK as u64 + 4_096 || span.start >= 101 * BLOCK as u64 + 4_096
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut repository = create(folder.path());
    Session::begin(&mut repository, "orders", &Writer::default()).unwrap();
    let mut bytes = vec![0; 300 * BLOCK];
    bytes[100 * BLOCK + 4_096..101 * BLOCK + 4_096].fill(7);
    let (source, progress) = (Sparse(Image(bytes)), Progress::default());
    let disk = save::disk(&repository, "disk0", &source, Before::default(), 2, &progress).unwrap();
    assert_eq!(progress.read.into_inner(), 2 * BLOCK as u64);
    assert_eq!(progress.skipped.into_inner(), 298 * BLOCK as u64);
    let repository = open(folder.path());
    let target = Restored(Mutex::new(vec![0; 300 * BLOCK]));
    restore::disk(&repository, &disk, &target, 2, &AtomicU64::new(0)).unwrap();
    assert!(target.0.into_inner().unwrap() == source.0.0);
}

#[test]
fn a_chain_of_deltas_is_never_longer_than_it_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let mut repository = create(folder.path());
    let mut image = image(3 * BLOCK, 5);
    let mut last = saved(&mut repository, &image, Before::default()).0;
    for round in 0..40_u8 {
        image.0[BLOCK + 5_000..BLOCK + 5_040].fill(round + 1);
        repository.reload().unwrap();
        let parent = disk_of(&repository, &last);
        last = saved(&mut repository, &image, Before { parent: Some(&parent), ..Before::default() }).0;
    }
    let repository = open(folder.path());
    for name in repository.points().unwrap() {
        restored(&repository, &name).unwrap();
    }
    assert_eq!(restored(&repository, &last).unwrap(), image.0);
    // One that would be too deep is of the whole block again, and brings the one piece that ever changed.
    let packs = repository.store().list("packs").unwrap();
    let mut sizes: Vec<u64> = packs.iter().map(|(_, size)| *size).collect();
    sizes.sort_unstable();
    assert!(sizes.len() > 40 && sizes[sizes.len() - 2] < 8_192, "{sizes:?}");
}

#[test]
fn what_lay_in_a_pack_that_is_gone_is_written_again_where_it_is_met() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(3 << 20, 4);
    let (first, whole) = saved(&mut create(folder.path()), &image, Before::default());
    for (name, _) in open(folder.path()).store().list("packs").unwrap() {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    let mut repository = open(folder.path());
    assert!(restored(&repository, &first).is_err());
    let parent = disk_of(&repository, &first);
    let before = Before { parent: Some(&parent), ..Before::default() };
    let (second, again) = saved(&mut repository, &image, before);
    assert!(again > whole / 2, "{again} of {whole}");
    let repository = open(folder.path());
    assert!(restored(&repository, &second).unwrap() == image.0);
    assert!(restored(&repository, &first).unwrap() == image.0, "its blocks are there again, too");
}

#[test]
fn nothing_is_written_without_a_session() {
    let folder = tempfile::tempdir().unwrap();
    let repository = create(folder.path());
    let saved =
        save::disk(&repository, "disk0", &image(BLOCK, 1), Before::default(), 1, &Progress::default());
    assert!(matches!(saved, Err(SaveError::Repository(Trouble::NoSession))));
}

#[test]
fn a_wrong_secret_a_second_repository_and_none_at_all_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let store = || -> Box<dyn Store> { Box::new(Folder::open(folder.path()).unwrap()) };
    assert!(matches!(Repository::open(store(), b"secret"), Err(Trouble::None)));
    create(folder.path());
    assert!(matches!(Repository::create(store(), b"other", CHEAP), Err(Trouble::Another)));
    assert!(matches!(Repository::open(store(), b"other"), Err(Trouble::Key(KeyError::Wrong))));
    assert!(Repository::open(store(), b"secret").is_ok());
}

#[test]
fn a_point_under_the_name_of_another_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut repository = create(folder.path());
    let (name, _) = saved(&mut repository, &image(BLOCK, 1), Before::default());
    let points = folder.path().join("points");
    std::fs::create_dir(points.join("billing")).unwrap();
    let other = PointName { vm: "billing".into(), sequence: 1 };
    std::fs::copy(folder.path().join(name.object()), folder.path().join(other.object())).unwrap();
    assert!(matches!(repository.point(&other), Err(Trouble::Damaged { .. })));
    assert!(repository.point(&name).is_ok());
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is_and_what_it_does_not_hurt_is_still_restored() {
    let folder = tempfile::tempdir().unwrap();
    let mut repository = create(folder.path());
    let mut image = image(2 << 20, 9);
    let mut all = Vec::new();
    for round in 0..3_u8 {
        image.0[usize::from(round) * 300_000 + 100..][..5_000].fill(round + 200);
        let parent = all.last().map(|(name, _)| disk_of(&repository, name));
        let (name, _) =
            saved(&mut repository, &image, Before { parent: parent.as_ref(), ..Before::default() });
        repository.reload().unwrap();
        all.push((name, image.0.clone()));
    }
    let verified = |repository: &Repository| verify::all(repository, 2, &AtomicU64::new(0)).unwrap();
    let well = verified(&repository);
    assert!(well.wrong.is_empty() && well.hurt.is_empty() && well.whole.len() == 3, "{well:?}");
    let files: Vec<_> = ["packs", "index", "points", "keys"]
        .iter()
        .flat_map(|part| repository.store().list(part).unwrap())
        .chain([("repository".to_owned(), 24)])
        .collect();
    for (name, length) in &files {
        for step in 0..40 {
            let at = (length * step / 40) as usize;
            let path = folder.path().join(name);
            let bytes = std::fs::read(&path).unwrap();
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (step % 8);
            std::fs::write(&path, &changed).unwrap();
            let store = Box::new(Folder::open(folder.path()).unwrap());
            // A key whose costs were changed may ask for anything: it is refused or does not fit.
            if let Ok(hurt) = Repository::open(store, b"secret") {
                let found = verified(&hurt);
                assert!(!found.wrong.is_empty() || !found.hurt.is_empty(), "{name} byte {at}");
                for point in &found.whole {
                    let bytes = &all.iter().find(|(known, _)| known == point).unwrap().1;
                    assert!(&restored(&hurt, point).unwrap() == bytes, "{name} byte {at}: {point:?}");
                }
                for (point, _) in &found.hurt {
                    assert!(
                        hurt.point(point).is_err() || restored(&hurt, point).is_err(),
                        "{name} byte {at}"
                    );
                }
            } else {
                assert!(name.starts_with("keys/") || name == "repository", "{name} byte {at}");
            }
            std::fs::write(&path, &bytes).unwrap();
        }
    }
}
