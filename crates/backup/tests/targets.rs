//! What a restore hands to its target.

#![expect(clippy::unwrap_used, reason = "tests")]

mod disks;

use disks::{Image, Restored};
use holdfast_backup::block::BLOCK;
use holdfast_backup::key::Cost;
use holdfast_backup::repository::Repository;
use holdfast_backup::restore::{self, ALIGN, Target};
use holdfast_backup::save::{self, Before, Progress};
use holdfast_backup::session::{Session, Writer};
use holdfast_backup::store::Folder;
use std::io;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

/// A disk that is restored, and what was announced and written of it.
struct Noting {
    disk: Restored,
    expected: Mutex<Vec<Range<u64>>>,
    written: Mutex<Vec<Range<u64>>>,
}

impl Target for Noting {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(bytes.as_ptr().align_offset(ALIGN), 0, "its memory is not aligned");
        assert!(offset.is_multiple_of(BLOCK as u64));
        let span = offset..offset + bytes.len() as u64;
        let is_expected = |range: &Range<u64>| range.start <= span.start && span.end <= range.end;
        assert!(self.expected.lock().unwrap().iter().any(is_expected), "{span:?} was not expected");
        self.written.lock().unwrap().push(span);
        self.disk.write_at(offset, bytes)
    }

    fn expect(&self, span: &Range<u64>) {
        self.expected.lock().unwrap().push(span.clone());
    }
}

#[test]
fn neighbours_are_announced_and_written_at_once_and_holes_never() {
    let folder = tempfile::tempdir().unwrap();
    let store = || Box::new(Folder::open(folder.path()).unwrap());
    let cheap = Cost { memory: 8, rounds: 1, lanes: 1 };
    let mut repository = Repository::create(store(), b"secret", cheap).unwrap();
    let mut bytes = vec![0; 300 * BLOCK + 9_001];
    for part in [0..6, 8..9, 254..259, 300..301] {
        let end = bytes.len().min(part.end * BLOCK);
        bytes[part.start * BLOCK..end]
            .iter_mut()
            .enumerate()
            .for_each(|(at, byte)| *byte = (at % 251) as u8 | 1);
    }
    let image = Image(bytes);
    Session::begin(&mut repository, "orders", &Writer::default()).unwrap();
    let disk = save::disk(&repository, "disk0", &image, Before::default(), 1, &Progress::default()).unwrap();
    let repository = Repository::open(store(), b"secret").unwrap();
    for threads in [1, 3] {
        let (expected, written) = Default::default();
        let target = Noting { disk: Restored(Mutex::new(vec![0; image.0.len()])), expected, written };
        let done = AtomicU64::new(0);
        restore::disk(&repository, &disk, &target, threads, &done).unwrap();
        assert_eq!(done.into_inner(), image.0.len() as u64);
        assert!(target.disk.0.into_inner().unwrap() == image.0);
        let in_blocks = |ranges: Mutex<Vec<Range<u64>>>| {
            let block = BLOCK as u64;
            let ranges = ranges.into_inner().unwrap();
            let mut all: Vec<[u64; 2]> =
                ranges.iter().map(|range| [range.start / block, range.end.div_ceil(block)]).collect();
            all.sort_unstable();
            all
        };
        // A page ends at 256, and a run has four blocks at most.
        assert_eq!(in_blocks(target.expected), [[0, 6], [8, 9], [254, 256], [256, 259], [300, 301]]);
        assert_eq!(in_blocks(target.written), [[0, 4], [4, 6], [8, 9], [254, 256], [256, 259], [300, 301]]);
    }
}
