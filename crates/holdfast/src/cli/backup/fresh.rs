//! A new file that is made of a restore point. It has its name only once it is whole, on the disk, and read back from there, and
//! never that of another file (I15). Until then it has none, where the file system can do that: whatever ends the command, nothing is left.
//!
//! It is written past the page cache where that can be done, into room that is made before: that takes half the time, as it has to
//! be on the disk in the end, and it does not push out what the VMs of this host have read.

use super::again::Again;
use super::failed;
use crate::act::chain;
use crate::cli::CliError;
use crate::place::RepositoryPlace;
use holdfast_backup::restore::{ALIGN, RestoreError, Target};
use rustix::fs::{AtFlags, CWD, FallocateFlags, OFlags, fallocate, linkat};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is written is no part of the repository that it comes from.
///
/// # Errors
/// It lies in there, by whatever way it is named.
pub fn must_be_elsewhere(out: &Path, place: &RepositoryPlace) -> Result<(), CliError> {
    let RepositoryPlace::Folder(repository) = place else { return Ok(()) };
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let lies_in = |at: &Path| Some(at.canonicalize().ok()?.starts_with(repository.canonicalize().ok()?));
    if !lies_in(out).or_else(|| lies_in(parent)).unwrap_or(false) {
        return Ok(());
    }
    Err(CliError::Said {
        error: format!("`{}` lies in the repository", out.display()),
        cause:
            "what is written there is lost with it, or in its way, and might take the place of a part of it"
                .into(),
        hint: "name a file elsewhere".into(),
    })
}

/// A file that is being written, under a name of its own.
pub struct Fresh {
    file: File,
    /// The same file, past the page cache.
    direct: Option<File>,
}

impl Fresh {
    fn new(file: File) -> Self {
        let direct = past_the_cache(&file, OpenOptions::new().write(true));
        Self { file, direct }
    }
}

/// The same file, opened once more so that what is read or written goes past the page cache, where its file system can do that.
pub(super) fn past_the_cache(file: &File, how: &mut OpenOptions) -> Option<File> {
    // Not by its name: somebody might have put another file there.
    let same = format!("/proc/self/fd/{}", file.as_raw_fd());
    how.custom_flags(OFlags::DIRECT.bits().cast_signed()).open(same).ok()
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

/// What to do where a disk gives back other bytes than it took.
pub const LYING: &str = "what lies between here and the disk lost or changed what it took: look at the log of the host (`dmesg`), and restore to another disk";

/// Why there is none.
pub enum Failure {
    Restore(RestoreError),
    File(io::Error),
}

impl Failure {
    const fn is_difference(&self) -> bool {
        matches!(self, Self::Restore(RestoreError::Differs { .. }))
    }

    /// `what` was to be done with the point: restore, export.
    pub fn for_people(self, what: &str, out: &Path, point: &str) -> CliError {
        match self {
            Self::File(source) => failed(format!("write `{}`; nothing is left of it", out.display()))(source),
            Self::Restore(error @ RestoreError::Differs { .. }) => CliError::Said {
                error: format!("cannot {what} point {point}"),
                cause: format!("`{}`: {error}", out.display()),
                hint: format!("what there is of it is `{}`, if that was not there before; {LYING}", differing(out).display()),
            },
            Self::Restore(error) => CliError::Said {
                error: format!("cannot {what} point {point}"),
                cause: chain(&error),
                hint: "nothing is left of the new file; `holdfast backup verify` names the points that are whole".into(),
            },
        }
    }
}

/// Makes a file of this length, which `fill` writes; once it is on the disk, `compare` reads it again. If that fails, nothing is left
/// of it; only what is other than was written stays, under another name, to be looked at.
pub fn make(
    out: &Path,
    length: u64,
    fill: impl FnOnce(&Fresh) -> Result<(), Failure>,
    compare: impl FnOnce(&Again<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let unfinished = unfinished(out);
    let (file, place) = match nameless(out) {
        Some(file) => (file, None),
        None => (named(&unfinished).map_err(Failure::File)?, Some(&unfinished)),
    };
    let fresh = Fresh::new(file);
    let made = write(&fresh, length, fill, compare);
    let made = match made {
        Ok(()) => link(&fresh.file, out),
        Err(why) => {
            if why.is_difference() {
                let _evidence = link(&fresh.file, &differing(out));
            }
            Err(why)
        }
    };
    place.inspect(|place| drop(fs::remove_file(place))); // ours, and of no use to anybody
    made?;
    sync_folder(out).map_err(Failure::File)
}

/// All of it is written, is on the disk, and is there.
fn write(
    fresh: &Fresh,
    length: u64,
    fill: impl FnOnce(&Fresh) -> Result<(), Failure>,
    compare: impl FnOnce(&Again<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    fresh.file.set_len(length).map_err(Failure::File)?;
    fill(fresh)?;
    fresh.file.sync_all().map_err(Failure::File)?;
    compare(&Again::of(&fresh.file))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// A file that has no name yet: it is gone with us, whatever ends us. Nothing where the file system has none such.
fn nameless(out: &Path) -> Option<File> {
    options().custom_flags(OFlags::TMPFILE.bits().cast_signed()).open(folder_of(out)).ok()
}

fn named(unfinished: &Path) -> io::Result<File> {
    options().create_new(true).open(unfinished)
}

/// Gives the file a name: a link never replaces a file that somebody made meanwhile.
fn link(file: &File, name: &Path) -> Result<(), Failure> {
    let place = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, place, CWD, name, AtFlags::SYMLINK_FOLLOW).map_err(|why| Failure::File(why.into()))
}

/// The name of a file reaches the disk.
pub fn sync_folder(file: &Path) -> io::Result<()> {
    File::open(folder_of(file))?.sync_all()
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The name of what is other than was written.
fn differing(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".differs");
    name.into()
}

/// The name of a file that is not whole yet, beside the one it becomes.
fn unfinished(out: &Path) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!(".{name}.{}.unfinished", std::process::id()))
}
