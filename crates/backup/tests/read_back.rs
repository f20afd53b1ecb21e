//! What a restore wrote is read again: a disk that took the bytes and gives others, or none, is found out (I15).

#![expect(clippy::unwrap_used, reason = "tests")]

mod disks;

use disks::{Image, Restored};
use holdfast_backup::block::BLOCK;
use holdfast_backup::export::{Layout, Placed, Qcow2};
use holdfast_backup::key::Cost;
use holdfast_backup::point::Disk;
use holdfast_backup::read_back::{self, Again};
use holdfast_backup::repository::Repository;
use holdfast_backup::restore::{self, Onto, RestoreError, Target};
use holdfast_backup::save::{self, Before, Progress};
use holdfast_backup::session::{Session, Writer};
use holdfast_backup::store::Folder;
use std::io;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

/// What was written, and the byte of it that is given back as another. It knows its holes.
struct Lying<'a> {
    disk: &'a Restored,
    lie: Option<u64>,
    holes: &'a [Range<u64>],
    read: Mutex<Vec<u64>>,
}

impl<'a> Lying<'a> {
    fn new(disk: &'a Restored, lie: Option<u64>, holes: &'a [Range<u64>]) -> Self {
        Self { disk, lie, holes, read: Mutex::default() }
    }

    fn read(self) -> Vec<u64> {
        let mut read = self.read.into_inner().unwrap();
        read.sort_unstable();
        read
    }
}

impl Again for Lying<'_> {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read.lock().unwrap().push(offset / BLOCK as u64);
        self.disk.read_at(offset, bytes)?;
        let inside = self.lie.and_then(|at| at.checked_sub(offset)).filter(|at| *at < bytes.len() as u64);
        if let Some(at) = inside {
            bytes[at as usize] ^= 0x40;
        }
        Ok(())
    }

    fn next_data(&self, from: u64) -> u64 {
        self.holes.iter().find(|hole| hole.contains(&from)).map_or(from, |hole| hole.end)
    }
}

struct Broken;

impl Again for Broken {
    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::Error::other("an unreadable sector"))
    }
}

const END: u64 = 300 * BLOCK as u64 + 9_001;

/// A disk of two pages with holes, and its repository.
fn saved() -> (tempfile::TempDir, Repository, Disk, Image) {
    let folder = tempfile::tempdir().unwrap();
    let store = || Box::new(Folder::open(folder.path()).unwrap());
    let cheap = Cost { memory: 8, rounds: 1, lanes: 1 };
    let mut repository = Repository::create(store(), b"secret", cheap).unwrap();
    let mut bytes = vec![0; END as usize];
    for part in [0..6, 254..259, 299..301] {
        let end = bytes.len().min(part.end * BLOCK);
        let part = &mut bytes[part.start * BLOCK..end];
        part.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at % 251) as u8 | 1);
    }
    let image = Image(bytes);
    Session::begin(&mut repository, "orders", &Writer::default()).unwrap();
    let disk = save::disk(&repository, "disk0", &image, Before::default(), 1, &Progress::default()).unwrap();
    let repository = Repository::open(store(), b"secret").unwrap();
    (folder, repository, disk, image)
}

fn compare(repository: &Repository, disk: &Disk, again: &dyn Again) -> Result<u64, RestoreError> {
    let done = AtomicU64::new(0);
    read_back::compare(repository, disk, again, None, 3, &done).map(|()| done.into_inner())
}

#[test]
fn a_byte_that_comes_back_as_another_is_told_wherever_it_is_also_where_nothing_was_written_i15() {
    let (_folder, repository, disk, image) = saved();
    let restored = Restored(Mutex::new(vec![0; image.0.len()]));
    restore::disk(&repository, &disk, &restored, 2, &AtomicU64::new(0)).unwrap();
    let holes = [6 * BLOCK as u64..254 * BLOCK as u64, 259 * BLOCK as u64..299 * BLOCK as u64];
    let well = Lying::new(&restored, None, &holes);
    assert_eq!(compare(&repository, &disk, &well).unwrap(), END);
    assert_eq!(well.read().len(), 6 + 5 + 2, "holes are not read");
    for lie in [0, 5 * BLOCK as u64 + 77, 255 * BLOCK as u64, END - 1] {
        let wrong = compare(&repository, &disk, &Lying::new(&restored, Some(lie), &holes)).unwrap_err();
        assert!(matches!(wrong, RestoreError::Differs { at } if at == lie), "{wrong}");
    }
    // A file system that does not tell its holes is read, and so is what is in a place of none.
    let lie = 100 * BLOCK as u64 + 3;
    assert!(compare(&repository, &disk, &Lying::new(&restored, None, &[])).is_ok());
    let wrong = compare(&repository, &disk, &Lying::new(&restored, Some(lie), &[])).unwrap_err();
    assert!(matches!(wrong, RestoreError::Differs { at } if at == lie), "{wrong}");
    let wrong = compare(&repository, &disk, &Broken).unwrap_err();
    assert!(matches!(wrong, RestoreError::Again { .. }), "{wrong}");
}

#[test]
fn of_what_is_restored_onto_a_disk_that_is_there_what_was_written_is_read_back() {
    let (_folder, repository, disk, image) = saved();
    let mut old = image.0.clone();
    for block in [3, 100, 300] {
        old[block * BLOCK + 5] ^= 1; // 100 was a hole
    }
    let restored = Restored(Mutex::new(old));
    let written = restore::onto(&repository, &disk, &restored, None, 2, &AtomicU64::new(0)).unwrap();
    assert_eq!(*restored.0.lock().unwrap(), image.0);
    let again = |lie| {
        let (again, done) = (Lying::new(&restored, lie, &[]), AtomicU64::new(0));
        let compared = read_back::compare(&repository, &disk, &again, Some(&written.blocks), 2, &done);
        (compared, again.read(), done.into_inner())
    };
    let (compared, read, done) = again(None);
    assert!(compared.is_ok() && read == [3, 100, 300] && done == END, "{read:?}");
    for lie in [3 * BLOCK as u64, 100 * BLOCK as u64 + 9, END - 1] {
        assert!(matches!(again(Some(lie)).0, Err(RestoreError::Differs { at }) if at == lie));
    }
}

#[test]
fn an_exported_image_is_read_back_with_its_tables() {
    let (_folder, repository, disk, _) = saved();
    let layout = Layout::of(&repository, &disk).unwrap();
    let restored = Restored(Mutex::new(vec![0; layout.length() as usize]));
    layout.write_tables(&restored).unwrap();
    let image = Qcow2::new(&layout, &restored);
    restore::disk(&repository, &disk, &image, 2, &AtomicU64::new(0)).unwrap();
    let compared = |lie| {
        let again = Lying::new(&restored, lie, &[]);
        layout.compare_tables(&again)?;
        let compared = compare(&repository, &disk, &Placed::new(&layout, &again));
        compared.map_err(|why| layout.in_image(why))
    };
    assert_eq!(compared(None).unwrap(), END);
    // The header, the first table, the second one, a block, and the counts.
    for lie in
        [5, BLOCK as u64 + 1, 2 * BLOCK as u64 + 8, 5 * BLOCK as u64 + 99, layout.length() - BLOCK as u64]
    {
        assert!(matches!(compared(Some(lie)), Err(RestoreError::Differs { at }) if at == lie), "{lie}");
    }
}

#[test]
fn what_is_restored_never_answers_for_what_was_taken_and_lost() {
    /// It takes all, and keeps nothing of this block.
    struct Losing(Restored);
    impl Target for Losing {
        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            if offset == 254 * BLOCK as u64 { Ok(()) } else { self.0.write_at(offset, bytes) }
        }
    }
    let (_folder, repository, disk, image) = saved();
    let losing = Losing(Restored(Mutex::new(vec![0; image.0.len()])));
    restore::disk(&repository, &disk, &losing, 2, &AtomicU64::new(0)).unwrap();
    let wrong = compare(&repository, &disk, &Lying::new(&losing.0, None, &[])).unwrap_err();
    assert!(matches!(wrong, RestoreError::Differs { at } if at == 254 * BLOCK as u64), "{wrong}");
}
