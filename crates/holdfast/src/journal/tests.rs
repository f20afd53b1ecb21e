//! The journal on a disk that breaks at every operation. The recorded "engine" is a list of values; its
//! checkpoint is the list, a record appends one value. After each disaster the list read back must be a
//! beginning of the true one, and hold all that had been reported as safe.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::reader::{Item, Reader, check};
use super::sync::Sync;
use super::*;
use crate::disk::Folder;
use crate::disk::faulty::{Dice, FaultyDisk, Plan};
use std::collections::BTreeSet;

/// What is recorded: a value and some bytes to make it longer.
type Body = (u64, String);

const LIMITS: Limits =
    Limits { segment_bytes: 700, total_bytes: 1 << 30, sync_after: Duration::from_millis(500) };

/// A program that records: what it truly did, and how much of that it believes safe.
struct Life {
    journal: Journal,
    now: Timestamp,
    list: Vec<u64>,
    safe: usize,
    /// How long the list was with each record.
    lengths: Vec<(u64, usize)>,
    /// A sync that goes on while the next record is written.
    syncing: Option<Sync>,
}

fn who(at: Timestamp) -> Beginning {
    Beginning { host: "atlas".into(), boot: "b".into(), wall_offset: 5, at }
}

impl Life {
    /// Starts on a disk; all that the disk holds counts as true.
    fn start(disk: Arc<dyn Disk>, limits: Limits) -> (Self, Recovery) {
        let (journal, recovery) = Journal::open(disk, "j", limits).unwrap();
        let mut list: Vec<u64> = match &recovery.checkpoint {
            Some(checkpoint) => serde_json::from_slice(&checkpoint.bytes).unwrap(),
            None => Vec::new(),
        };
        list.extend(recovery.records::<Body>().map(|record| record.unwrap().body.0));
        let safe = list.len();
        let now = recovery.newest + Duration::from_secs(1);
        (Self { journal, now, list, safe, lengths: Vec::new(), syncing: None }, recovery)
    }

    /// Records so many values, and makes every third of them safe: at once, or while the next one is written.
    fn work(&mut self, count: usize) {
        for step in 0..count {
            if self.journal.wants_checkpoint(self.now) {
                let checkpoint = serde_json::to_vec(&self.list).unwrap();
                let begun = self.journal.begin(&who(self.now), &checkpoint);
                self.safe = if begun.is_ok() { self.list.len() } else { self.safe };
            }
            self.now = self.now + Duration::from_millis(110);
            let value = self.list.last().map_or(1, |last| last + 1);
            self.list.push(value);
            let body: Body = (value, "x".repeat(step % 7 * 20));
            let recorded = self.journal.append(self.now, &body);
            self.lengths.extend(recorded.iter().map(|n| (*n, self.list.len())));
            self.end_sync();
            let due = self.journal.flush_due().is_some_and(|due| due <= self.now) || step % 6 == 2;
            if due && recorded.is_ok() && self.journal.flush(self.now).is_ok() {
                self.safe = self.list.len();
            }
            if step % 6 == 5 {
                self.syncing = self.journal.begin_sync(self.now).ok().flatten();
            }
        }
        self.end_sync();
    }

    /// What had been written when it began is safe; what was written since may not be.
    fn end_sync(&mut self) {
        let Some(sync) = self.syncing.take() else { return };
        if let Ok(last) = self.journal.end_sync(self.now, sync.carry_out()) {
            let safe = self.lengths.iter().filter(|(n, _)| *n <= last).map(|(_, length)| *length);
            self.safe = self.safe.max(safe.max().unwrap_or(0));
        }
    }
}

/// What a program finds after a disaster is true, holds all that was safe, and can be built upon.
fn survives(life: &Life, disk: &FaultyDisk, what: &str) {
    let (mut next, recovery) = Life::start(Arc::new(disk.clone()), LIMITS);
    assert!(life.list.starts_with(&next.list), "{what}: invented {:?} for {:?}", next.list, life.list);
    assert!(next.list.len() >= life.safe, "{what}: {} safe, {} found", life.safe, next.list.len());
    let serious: Vec<_> = recovery.troubles.iter().filter(|trouble| trouble.is_serious()).collect();
    assert!(serious.is_empty(), "{what}: {serious:?}");
    next.work(5);
    let (after, _) = Life::start(Arc::new(disk.after_power_cut(1)), LIMITS);
    assert!(next.list.starts_with(&after.list) && after.list.len() >= next.safe, "{what}: second start");
    assert!(disk.removed().is_empty(), "{what}: removed {:?}", disk.removed());
}

/// A disk with a history: some segments, ended by a power cut.
fn history() -> FaultyDisk {
    let disk = FaultyDisk::default();
    Life::start(Arc::new(disk.clone()), LIMITS).0.work(20);
    disk.after_power_cut(7)
}

/// How many operations forty records take.
fn operations() -> usize {
    let disk = history();
    Life::start(Arc::new(disk.clone()), LIMITS).0.work(40);
    disk.operations()
}

#[test]
fn what_was_safe_survives_a_power_cut_at_each_operation_s65() {
    for at in 0..=operations() {
        let disk = history();
        disk.plan(Plan::Cut { at });
        let (mut life, _) = Life::start(Arc::new(disk.clone()), LIMITS);
        life.work(40);
        for seed in 0..25 {
            survives(&life, &disk.after_power_cut(seed), &format!("cut at {at}, seed {seed}"));
        }
    }
}

#[test]
fn everything_recorded_survives_the_end_of_the_program_at_each_operation() {
    for at in 0..=operations() {
        let disk = history();
        disk.plan(Plan::Cut { at });
        let (mut life, _) = Life::start(Arc::new(disk.clone()), LIMITS);
        life.work(40);
        survives(&life, &disk.after_kill(), &format!("killed at {at}"));
    }
}

#[test]
fn a_failure_at_each_operation_loses_nothing_safe_and_writing_goes_on() {
    for at in 0..operations() {
        let disk = history();
        disk.plan(Plan::Fails { at });
        let (mut life, _) = Life::start(Arc::new(disk.clone()), LIMITS);
        life.work(80);
        assert!(life.journal.is_writing(), "failed at {at}");
        assert!(life.safe + 3 > life.list.len(), "failed at {at}: {} of {}", life.safe, life.list.len());
        for seed in 0..25 {
            survives(&life, &disk.after_power_cut(seed), &format!("failed at {at}, seed {seed}"));
        }
    }
}

#[test]
fn a_full_disk_at_each_write_loses_nothing_safe_and_writing_goes_on_with_room_s64_r25() {
    for (at, share) in (0..operations()).flat_map(|at| [0, 60, 200, 255].map(|share| (at, share))) {
        let disk = history();
        disk.plan(Plan::Full { from: at, count: 12, share });
        let (mut life, _) = Life::start(Arc::new(disk.clone()), LIMITS);
        life.work(20);
        let what = format!("full at {at}, share {share}");
        for seed in 0..3 {
            survives(&life, &disk.after_power_cut(seed), &what);
        }
        life.work(230); // a try a second
        assert!(life.journal.is_writing() && life.safe + 3 > life.list.len(), "{what}");
        survives(&life, &disk.after_power_cut(3), &what);
    }
}

#[test]
fn what_was_not_recorded_is_told_as_missing() {
    let disk = FaultyDisk::default();
    let (mut life, _) = Life::start(Arc::new(disk.clone()), LIMITS);
    life.work(3);
    disk.plan(Plan::Full { from: 0, count: 1, share: 90 });
    life.work(2); // the first fails, then a new segment begins
    let troubles = check(Arc::new(disk), "j").unwrap();
    assert!(matches!(troubles[0], Trouble::Tail { .. }), "{troubles:?}");
    assert_eq!(troubles[1..], [Trouble::Missing { first: 4, last: 4 }]);
}

/// All files of a disk.
fn files_of(disk: &FaultyDisk) -> Vec<String> {
    disk.list("j").unwrap().into_iter().map(|file| format!("j/{}", file.name)).collect()
}

/// What a reader finds: the values, and whether anything was wrong.
fn read_all(disk: &FaultyDisk) -> (Vec<u64>, bool) {
    let (mut values, mut wrong) = (Vec::new(), false);
    for item in Reader::<Body>::folder(Arc::new(disk.clone()), "j").unwrap() {
        match item {
            Item::Record(record) => values.push(record.body.0),
            Item::Trouble(_) => wrong = true,
            Item::Segment(_) | Item::Checkpoint(_) => {}
        }
    }
    (values, wrong)
}

/// A whole journal of some segments, the true list, and what is on the disk.
fn whole() -> (FaultyDisk, Vec<u64>) {
    let disk = FaultyDisk::default();
    let (mut life, _) = Life::start(Arc::new(disk.clone()), LIMITS);
    life.work(60);
    life.journal.flush(life.now).unwrap();
    assert!(files_of(&disk).len() >= 5);
    assert_eq!(read_all(&disk), (life.list.clone(), false));
    (disk, life.list)
}

/// A spoilt journal is read without panic or invention, found out, and nothing of it is deleted.
fn spoilt(
    good: &FaultyDisk,
    list: &[u64],
    file: &str,
    what: &str,
    change: impl FnOnce(&mut Vec<u8>),
) -> bool {
    let disk = good.after_kill();
    disk.spoil(file, change);
    let (values, wrong) = read_all(&disk);
    let known: BTreeSet<_> = list.iter().collect();
    assert!(values.is_sorted() && values.iter().all(|value| known.contains(value)), "{what}: invented");
    let bytes: u64 = disk.list("j").unwrap().iter().map(|file| file.bytes).sum();
    let newest = files_of(good).pop().unwrap() == file;
    let (mut life, recovery) = Life::start(Arc::new(disk.clone()), LIMITS);
    assert!(list.starts_with(&life.list), "{what}: invented");
    assert!(newest || life.list == list, "{what}: a good newer segment was not used");
    assert!(
        disk.list("j").unwrap().iter().map(|file| file.bytes).sum::<u64>() == bytes,
        "{what}: lost bytes"
    );
    life.work(4);
    let (again, _) = Life::start(Arc::new(disk.after_power_cut(0)), LIMITS);
    assert!(again.list.len() >= life.safe && life.list.starts_with(&again.list), "{what}: no new start");
    assert!(disk.removed().is_empty());
    wrong || !recovery.troubles.is_empty()
}

#[test]
fn each_of_2000_flipped_bits_is_found_and_nothing_invented_s66_r28() {
    let (good, list) = whole();
    let files = files_of(&good);
    let mut dice = Dice::new(28);
    for turn in 0..2_000 {
        let file = &files[dice.below(files.len())];
        let length = good.read(file, 0, 1 << 20).unwrap().len();
        let (byte, bit) = (dice.below(length), dice.below(8));
        let what = format!("flip {turn}: {file} byte {byte} bit {bit}");
        assert!(spoilt(&good, &list, file, &what, |bytes| bytes[byte] ^= 1 << bit), "{what}: not found");
    }
}

#[test]
fn a_file_cut_to_each_length_is_found_unless_it_looks_like_an_earlier_end_r29() {
    let (good, list) = whole();
    let files = files_of(&good);
    let newest = files.last().unwrap();
    let mut ends = 0;
    for file in [&files[0], &files[files.len() - 2], newest] {
        let length = good.read(file, 0, 1 << 20).unwrap().len();
        for cut in 0..length {
            let what = format!("{file} cut to {cut}");
            let found = spoilt(&good, &list, file, &what, |bytes| bytes.truncate(cut));
            assert!(found || file == newest, "{what}: not found");
            ends += usize::from(!found);
        }
    }
    assert!(ends < 10, "only whole records may be missing unseen, at the very end: {ends}");
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_the_state_built_from_the_one_before() {
    let (good, list) = whole();
    let newest = files_of(&good).pop().unwrap();
    let bytes = good.read(&newest, 0, 1 << 20).unwrap();
    let at = bytes.windows(6).position(|six| six == b"[1,2,3").unwrap();
    good.spoil(&newest, |bytes| bytes[at] ^= 1);
    let (life, recovery) = Life::start(Arc::new(good.clone()), LIMITS);
    assert_eq!(recovery.troubles, [Trouble::NoCheckpoint { file: newest.clone() }]);
    assert_eq!(life.list, list, "the numbers go on without a gap, so no record is lost");
    assert!(files_of(&good).contains(&newest.replace(".hfj", ".damaged.hfj")));
}

#[test]
fn past_a_gap_in_the_numbers_nothing_is_replayed() {
    let disk = FaultyDisk::default();
    let (mut life, _) = Life::start(Arc::new(disk.clone()), LIMITS);
    life.work(3);
    disk.plan(Plan::Full { from: 0, count: 1, share: 0 });
    life.work(4); // the first is not recorded; the checkpoint of the next segment covers it
    let newest = files_of(&disk).pop().unwrap();
    disk.spoil(&newest, |bytes| {
        let at = bytes.windows(9).position(|nine| nine == b"[1,2,3,4]").unwrap();
        bytes[at] ^= 1;
    });
    let (life, recovery) = Life::start(Arc::new(disk), LIMITS);
    assert_eq!(life.list, [1, 2, 3]);
    assert_eq!(recovery.troubles[1..], [Trouble::Missing { first: 4, last: 4 }], "{:?}", recovery.troubles);
    assert_eq!(recovery.next, 8);
}

#[test]
fn damage_to_what_was_safe_is_serious_and_its_numbers_are_not_used_again() {
    let disk = FaultyDisk::default();
    let (mut life, _) = Life::start(Arc::new(disk.clone()), LIMITS);
    life.work(6);
    let file = files_of(&disk).pop().unwrap();
    disk.spoil(&file, |bytes| {
        let at = bytes.windows(3).position(|three| three == b"[2,").unwrap();
        bytes[at] ^= 1;
    });
    let (life, recovery) = Life::start(Arc::new(disk), LIMITS);
    assert_eq!(life.list, [1]);
    assert!(matches!(recovery.troubles[..], [Trouble::Damaged { .. }]), "{:?}", recovery.troubles);
    assert_eq!(recovery.next, 7);
}

#[test]
fn a_newer_journal_is_left_untouched_i22() {
    let (disk, _) = whole();
    let newest = files_of(&disk).pop().unwrap();
    disk.spoil(&newest, |bytes| {
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..12]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    });
    disk.spoil(&files_of(&disk)[0], |bytes| bytes[100] ^= 1); // and this would be set aside
    let before: Vec<_> = files_of(&disk).iter().map(|file| disk.read(file, 0, 1 << 20).unwrap()).collect();
    let names = files_of(&disk);
    let Err(error) = Journal::open(Arc::new(disk.clone()), "j", LIMITS) else { panic!("refused") };
    assert!(matches!(error, OpenError::Newer { version: 2, .. }), "{error}");
    assert_eq!(files_of(&disk), names);
    let after: Vec<_> = names.iter().map(|file| disk.read(file, 0, 1 << 20).unwrap()).collect();
    assert!(before == after);
}

#[test]
fn the_oldest_segments_go_but_none_that_is_needed_before_twice_the_bound() {
    let disk = FaultyDisk::default();
    let limits = Limits { total_bytes: 6_000, ..LIMITS };
    let (mut life, _) = Life::start(Arc::new(disk.clone()), limits);
    let total = || disk.list("j").unwrap().iter().map(|file| file.bytes).sum::<u64>();
    life.work(60);
    assert!(!disk.removed().is_empty());
    assert!(total() < 8_000, "{}", total());
    let (first, _) = read_all(&disk);
    life.journal.keep_from(Some(first[0]));
    life.work(20);
    assert_eq!(read_all(&disk).0[0], first[0], "still there");
    life.work(200);
    assert!(read_all(&disk).0[0] > first[0], "gone at twice the bound");
    assert!(total() < 16_000, "{}", total());
    let (again, recovery) = Life::start(Arc::new(disk), limits);
    assert_eq!(again.list, life.list);
    assert!(recovery.troubles.is_empty());
}

#[test]
fn a_record_that_is_too_long_stops_the_journal_and_a_checkpoint_covers_it() {
    let disk = FaultyDisk::default();
    let (mut life, _) = Life::start(Arc::new(disk.clone()), LIMITS);
    life.work(1);
    life.list.push(2);
    let long: Body = (2, "x".repeat(frame::RECORD_MOST));
    let refused = life.journal.append(life.now, &long).unwrap_err();
    assert!(matches!(refused, JournalError::TooLong { what: "record", .. }));
    let stopped = life.journal.append(life.now, &long).unwrap_err();
    assert!(matches!(stopped, JournalError::Stopped));
    life.work(1);
    assert_eq!(Life::start(Arc::new(disk), LIMITS).0.list, [1, 2, 3]);
}

#[test]
fn foreign_files_are_neither_read_as_a_journal_nor_removed() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("j");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("00000003.hfj"), vec![0xA5; 300_000]).unwrap();
    std::fs::write(folder.join("00000004.hfj"), "").unwrap();
    std::fs::write(folder.join("notes.txt"), "mine").unwrap();
    std::os::unix::fs::symlink("notes.txt", folder.join("00000005.hfj")).unwrap();
    std::fs::create_dir(folder.join("00000006.hfj")).unwrap();
    let (mut life, recovery) = Life::start(Arc::new(Folder::new(place.path())), LIMITS);
    assert_eq!(recovery.troubles.len(), 4, "{:?}", recovery.troubles);
    life.work(5);
    assert!(folder.join("00000005.damaged.hfj").is_symlink());
    assert!(folder.join("00000006.damaged.hfj").is_dir());
    assert_eq!(std::fs::read(folder.join("notes.txt")).unwrap(), b"mine");
    assert_eq!(std::fs::read(folder.join("00000003.damaged.hfj")).unwrap(), vec![0xA5; 300_000]);
    let (again, recovery) = Life::start(Arc::new(Folder::new(place.path())), LIMITS);
    assert_eq!((again.list, recovery.troubles), (life.list, Vec::new()), "told once");
}

#[test]
fn one_file_is_read_from_anywhere() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("j")).unwrap();
    let (mut life, _) = Life::start(Arc::new(Folder::new(place.path())), Limits::default());
    life.work(9);
    let copy = place.path().join("copy of it");
    std::fs::copy(place.path().join("j/00000001.hfj"), &copy).unwrap();
    let items: Vec<Item<Body>> = Reader::file(&copy).unwrap().collect();
    assert!(matches!(&items[0], Item::Segment(header) if header.host == "atlas" && header.wall_offset == 5));
    assert!(matches!(&items[1], Item::Checkpoint(checkpoint) if checkpoint.bytes == b"[]"));
    assert_eq!(items.len(), 11);
    assert!(Reader::<Body>::file(&place.path().join("none")).is_err());
}
