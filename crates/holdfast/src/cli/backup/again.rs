//! A file that was written and flushed is read again, as what keeps it has it.
//!
//! The page cache would tell what it was told: what it holds of the file is dropped, and the file is read past it where the file
//! system can do that. A disk may still answer from a memory of its own, and a file system of another computer from that of its server:
//! this shows what they give, and not what is left once their power is gone.

use super::fresh::{Failure, past_the_cache};
use holdfast_backup::point::Disk;
use holdfast_backup::read_back::{self, Blocks};
use holdfast_backup::repository::Repository;
use holdfast_backup::restore::ALIGN;
use indicatif::ProgressBar;
use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file that is read again.
pub struct Again<'a> {
    file: &'a File,
    /// The same file, past the page cache.
    direct: Option<File>,
}

impl<'a> Again<'a> {
    /// This file, which can be read, and of which everything is on the disk.
    pub fn of(file: &'a File) -> Self {
        let _help = fadvise(file, 0, None, Advice::DontNeed);
        Self { file, direct: past_the_cache(file, OpenOptions::new().read(true)) }
    }
}

impl read_back::Again for Again<'_> {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let fits = offset.is_multiple_of(ALIGN as u64) && bytes.as_ptr().align_offset(ALIGN) == 0;
        let whole = bytes.len() / ALIGN * ALIGN;
        let Some(direct) = self.direct.as_ref().filter(|_| fits && whole > 0) else {
            return self.file.read_exact_at(bytes, offset);
        };
        match direct.read_exact_at(&mut bytes[..whole], offset) {
            Ok(()) => self.file.read_exact_at(&mut bytes[whole..], offset + whole as u64),
            Err(why) if why.kind() == io::ErrorKind::InvalidInput => self.file.read_exact_at(bytes, offset), // this file system cannot
            Err(why) => Err(why),
        }
    }

    fn next_data(&self, from: u64) -> u64 {
        match seek(self.file, SeekFrom::Data(from)) {
            Ok(at) => at,
            Err(Errno::NXIO) => u64::MAX, // nothing but holes
            Err(_) => from,
        }
    }
}

/// So many blocks are on their way from the disk at a time, as it is not read ahead.
const AT_ONCE: usize = 8;

/// Compares what was written of a disk, which `bar` shows; of what `done` counted before, the bar begins anew.
pub fn compare(
    (repository, disk): (&Repository, &Disk),
    again: &dyn read_back::Again,
    which: Option<&Blocks>,
    done: &AtomicU64,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    done.store(0, Ordering::Relaxed);
    bar.set_message(", read back");
    read_back::compare(repository, disk, again, which, super::fresh::threads().max(AT_ONCE), done)
        .map_err(Failure::Restore)
}
