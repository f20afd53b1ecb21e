//! A new file that is made of a restore point. It has its name only once it is whole and on the disk, and never that of
//! another file (I15). Until then it has none, where the file system can do that: whatever ends the command, nothing is left.
//!
//! It is written past the page cache where that can be done, into room that is made before: that takes half the time, as it has to
//! be on the disk in the end, and it does not push out what the VMs of this host have read.

use super::failed;
use crate::act::chain;
use crate::cli::CliError;
use holdfast_backup::restore::{ALIGN, RestoreError, Target};
use rustix::fs::{AtFlags, CWD, FallocateFlags, OFlags, fallocate, linkat};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file that is being written, under a name of its own.
pub struct Fresh {
    file: File,
    /// The same file, past the page cache.
    direct: Option<File>,
}

impl Fresh {
    fn new(file: File) -> Self {
        // Not by its name: somebody might have put another file there.
        let same = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = OFlags::DIRECT.bits().cast_signed();
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(same).ok();
        Self { file, direct }
    }
}

impl Target for Fresh {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut offset, mut rest) = (offset, bytes);
        let fits = offset.is_multiple_of(ALIGN as u64) && bytes.as_ptr().align_offset(ALIGN) == 0;
        if let Some(direct) = self.direct.as_ref().filter(|_| fits) {
            let (aligned, end) = bytes.split_at(bytes.len() / ALIGN * ALIGN);
            match direct.write_all_at(aligned, offset) {
                Ok(()) => (offset, rest) = (offset + aligned.len() as u64, end),
                Err(why) if why.kind() == io::ErrorKind::InvalidInput => {} // this file system cannot
                Err(why) => return Err(why),
            }
        }
        self.file.write_all_at(rest, offset)
    }

    /// Each write into a hole would take much of the time of a processor, and keep other threads from writing.
    fn expect(&self, span: &Range<u64>) {
        let _help = fallocate(&self.file, FallocateFlags::KEEP_SIZE, span.start, span.end - span.start);
    }
}

/// So many write into one: each waits for the disk about half of the time.
pub fn threads() -> usize {
    2 * super::threads()
}

/// Why there is none.
pub enum Failure {
    Restore(RestoreError),
    File(io::Error),
}

impl Failure {
    /// `what` was to be done with the point: restore, export.
    pub fn for_people(self, what: &str, out: &Path, point: &str) -> CliError {
        match self {
            Self::File(source) => failed(format!("write `{}`; nothing is left of it", out.display()))(source),
            Self::Restore(error) => CliError::Said {
                error: format!("cannot {what} point {point}"),
                cause: chain(&error),
                hint: "nothing is left of the new file; `holdfast backup verify` names the points that are whole".into(),
            },
        }
    }
}

/// Makes a file of this length, which `fill` writes. If that fails, nothing is left of it.
pub fn make(
    out: &Path,
    length: u64,
    fill: impl FnOnce(&Fresh) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if let Some(file) = nameless(out) {
        return write_nameless(file, out, length, fill);
    }
    let unfinished = unfinished(out);
    let made = write(&unfinished, out, length, fill);
    made.inspect_err(|_| drop(fs::remove_file(&unfinished))) // ours, and of no use to anybody
}

/// All of it is written, and is on the disk.
fn written(
    file: File,
    length: u64,
    fill: impl FnOnce(&Fresh) -> Result<(), Failure>,
) -> Result<File, Failure> {
    let fresh = Fresh::new(file);
    fresh.file.set_len(length).map_err(Failure::File)?;
    fill(&fresh)?;
    fresh.file.sync_all().map_err(Failure::File)?;
    Ok(fresh.file)
}

/// A file that has no name yet: it is gone with us, whatever ends us. Nothing where the file system has none such.
fn nameless(out: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE.bits().cast_signed();
    OpenOptions::new().write(true).mode(0o600).custom_flags(flags).open(folder_of(out)).ok()
}

fn write_nameless(
    file: File,
    out: &Path,
    length: u64,
    fill: impl FnOnce(&Fresh) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let whole = written(file, length, fill)?;
    // A link never replaces a file that somebody made meanwhile.
    let place = format!("/proc/self/fd/{}", whole.as_raw_fd());
    let named = linkat(CWD, place, CWD, out, AtFlags::SYMLINK_FOLLOW);
    named.map_err(|why| Failure::File(why.into()))?;
    sync_folder(out).map_err(Failure::File)
}

fn write(
    unfinished: &Path,
    out: &Path,
    length: u64,
    fill: impl FnOnce(&Fresh) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished);
    written(file.map_err(Failure::File)?, length, fill)?;
    // A link never replaces a file that somebody made meanwhile.
    fs::hard_link(unfinished, out).and_then(|()| fs::remove_file(unfinished)).map_err(Failure::File)?;
    sync_folder(out).map_err(Failure::File)
}

/// The name of a file reaches the disk.
pub fn sync_folder(file: &Path) -> io::Result<()> {
    File::open(folder_of(file))?.sync_all()
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The name of a file that is not whole yet, beside the one it becomes.
fn unfinished(out: &Path) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!(".{name}.{}.unfinished", std::process::id()))
}
