//! Hashes of the pieces of a disk as it was last saved, kept on this computer: they tell which pieces of a block changed
//! without its content being read from the repository.
//!
//! Nothing depends on them. Those of a block are believed only if together they give the name under which the block stands
//! in the restore point, and without the key nobody can make others that do. So a file that is lost, old, damaged, of
//! another disk or written by two at once costs time, and no point is ever wrong for it.

use crate::block::{BLOCK, PIECES};
use crate::id::{BlockId, RepositoryId};
use crate::key::{KEY, Keys, PieceHash};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const MAGIC: &[u8; 8] = b"HFKEPT\0\x01";
/// Bytes before the first block.
const HEAD: u64 = 4_096;
/// Bytes for a block.
const ENTRY: usize = PIECES * KEY;

/// The hashes of one disk of one VM.
pub struct Kept {
    file: File,
    /// A write failed: no more are tried, for what cannot be kept is only slower.
    is_full: AtomicBool,
}

impl Kept {
    /// The file of this disk, made if it is not there. One of another repository is begun anew.
    ///
    /// # Errors
    /// If it cannot be made or read: then do without.
    pub fn open(path: &Path, repository: RepositoryId) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let head = [&MAGIC[..], &repository.0].concat();
        let mut found = vec![0; head.len()];
        if file.read_exact_at(&mut found, 0).is_err() || found != head {
            file.set_len(0)?;
            file.write_all_at(&head, 0)?;
        }
        Ok(Self { file, is_full: AtomicBool::new(false) })
    }

    /// The pieces of block `number` of the disk, if those that were kept are of the block of this name.
    #[must_use]
    pub fn pieces(&self, keys: &Keys, number: u64, name: BlockId) -> Option<[PieceHash; PIECES]> {
        let mut pieces = [[0; KEY]; PIECES];
        self.file.read_exact_at(pieces.as_flattened_mut(), place(number)).ok()?;
        (keys.name_of(&pieces) == name).then_some(pieces)
    }

    /// Keeps the pieces of a block. They need not reach the disk: what did not is not believed.
    pub fn keep(&self, number: u64, pieces: &[PieceHash; PIECES]) {
        if !self.is_full.load(Ordering::Relaxed)
            && self.file.write_all_at(pieces.as_flattened(), place(number)).is_err()
        {
            self.is_full.store(true, Ordering::Relaxed);
        }
    }
}

const fn place(number: u64) -> u64 {
    HEAD + number * ENTRY as u64
}

const _: () = assert!(BLOCK / ENTRY >= 128, "what is kept is less than a hundredth of the disk");

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::id::LENGTH;
    use crate::key::Master;

    const REPOSITORY: RepositoryId = RepositoryId([7; LENGTH]);

    #[test]
    fn pieces_are_believed_only_if_they_are_those_of_the_block() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders/disk0");
        let keys = Master::random().unwrap().keys(REPOSITORY);
        let contents = [vec![1; BLOCK], vec![2; BLOCK]];
        let [one, two] = contents.each_ref().map(|content| (keys.name(content), keys.pieces(content)));
        let kept = Kept::open(&path, REPOSITORY).unwrap();
        kept.keep(5, &one.1);
        kept.keep(0, &two.1);
        let kept = Kept::open(&path, REPOSITORY).unwrap();
        assert_eq!(kept.pieces(&keys, 5, one.0), Some(one.1));
        assert_eq!(kept.pieces(&keys, 0, two.0), Some(two.1));
        assert_eq!(kept.pieces(&keys, 5, two.0), None, "another block");
        assert_eq!(kept.pieces(&keys, 3, one.0), None, "never kept");
        assert_eq!(kept.pieces(&keys, 99, one.0), None, "behind the end");
        for at in 0..ENTRY as u64 {
            let mut byte = [0];
            kept.file.read_exact_at(&mut byte, place(5) + at).unwrap();
            kept.file.write_all_at(&[byte[0] ^ 1], place(5) + at).unwrap();
            assert_eq!(kept.pieces(&keys, 5, one.0), None, "byte {at}");
            kept.file.write_all_at(&byte, place(5) + at).unwrap();
        }
        let other = Kept::open(&path, RepositoryId([8; LENGTH])).unwrap();
        assert_eq!(other.pieces(&keys, 5, one.0), None, "another repository");
    }
}
