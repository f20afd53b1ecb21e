//! `holdfast backup restore --onto FILE`: an image that is there becomes a restore point again, and only what differs is
//! written.
//!
//! What the file held is given up: that is what `--onto` says (I15). While it is neither what it was nor the point, it
//! has another name, `FILE.unfinished`, so nobody takes it for whole, nor starts a VM from it; a crash leaves it so. The
//! same command then looks at all of it and finishes it.

use super::again::{self, Again};
use super::fresh::{Failure, sync_folder};
use super::pace::{Pace, Paced};
use super::restore::{RestoreArgs, disk_of};
use super::{bar, bytes, failed, ranges, shown, threads, troubled, watched};
use crate::cli::{CliError, Exit, print_json};
use holdfast_backup::point::Disk;
use holdfast_backup::repository::{PointName, Repository};
use holdfast_backup::restore::{self, Held, Onto, RestoreError, Target};
use indicatif::ProgressBar;
use rustix::fs::{CWD, FlockOperation, RenameFlags, fcntl_lock, renameat_with};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What is known of the file beforehand.
struct Known {
    disk: Disk,
    changed: Vec<Range<u64>>,
}

/// The file, and whether somebody was at it before.
struct Place {
    file: File,
    path: PathBuf,
    unfinished: PathBuf,
    is_left: bool,
}

struct There(File);

impl Target for There {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
}

impl Onto for There {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }
}

/// Restores onto what is there.
pub fn restore(args: &RestoreArgs, onto: &Path) -> Result<Exit, CliError> {
    let place = find(onto)?;
    let repository = args.repository.open()?;
    let name = args.point.find(&repository, &args.repository.repo)?;
    let disk = disk_of(&repository, &args.repository.repo, &name)?;
    let known = if place.is_left { None } else { known(args, &repository, &name, &disk)? };
    if place.is_left {
        super::say_aside(&format!(
            "`{}` was left half-written: all of it is looked at",
            place.unfinished.display()
        ));
    }
    let (begun, done, bar) = (Instant::now(), AtomicU64::new(0), bar(disk.size, args.json));
    let pace = args.limits.pace();
    let work = || write((&repository, &disk), place, known.as_ref(), pace.as_ref(), (&done, &bar));
    let ended = watched(&bar, || done.load(Ordering::Relaxed), work);
    bar.finish_and_clear();
    let written = ended.map_err(|error| for_people(error, onto, &shown(&name)))?;
    let took = begun.elapsed().as_secs_f64();
    if args.json {
        print_json(&serde_json::json!({
            "v": 1, "id": shown(&name), "out": onto.to_string_lossy(), "size": disk.size, "written": written,
            "seconds": took,
        }))?;
    } else {
        let (point, written) = (shown(&name), bytes(written));
        say!(
            "{} is point {point} again: {written} of {} written, {took:.1} s",
            onto.display(),
            bytes(disk.size)
        );
    }
    Ok(Exit::Fine)
}

/// Opens the file under the name that it has now. Nothing is changed.
fn find(onto: &Path) -> Result<Place, CliError> {
    let mut unfinished = onto.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let is_left = unfinished.symlink_metadata().is_ok();
    if is_left && onto.symlink_metadata().is_ok() {
        return Err(CliError::Said {
            error: format!("cannot restore onto `{}`", onto.display()),
            cause: format!(
                "`{}` is there, too: a restore onto another file of that name was not finished",
                unfinished.display()
            ),
            hint: "move one of them away".into(),
        });
    }
    let at = if is_left { &unfinished } else { onto };
    let what = || format!("restore onto `{}`", onto.display());
    if !at.symlink_metadata().map_err(failed(what()))?.is_file() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no file, or leads to another one");
        return Err(CliError::Io { what: what(), source });
    }
    let file = OpenOptions::new().read(true).write(true).open(at).map_err(failed(what()))?;
    // QEMU locks bytes of an image that it uses.
    fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|why| CliError::Said {
        error: format!("cannot restore onto `{}`", onto.display()),
        cause: format!("somebody uses it: {}", io::Error::from(why)),
        hint: "stop the VM first; nothing was changed".into(),
    })?;
    Ok(Place { file, path: onto.to_owned(), unfinished, is_left })
}

/// What the command says of the file.
fn known(
    args: &RestoreArgs,
    repository: &Repository,
    point: &PointName,
    disk: &Disk,
) -> Result<Option<Known>, CliError> {
    let changed = args.changed.as_deref().map(|file| ranges::read(file, disk.size)).transpose()?;
    let held = match &args.holds {
        None if changed.is_none() => return Ok(None),
        None => disk.clone(),
        Some(number) => {
            let is_it = |name: &PointName| {
                name.vm == point.vm && (name.sequence.to_string() == *number || shown(name) == *number)
            };
            let all = repository.points().map_err(troubled(&args.repository.repo))?;
            let name = all.into_iter().find(is_it).ok_or_else(|| CliError::Said {
                error: format!("there is no restore point `{number}` of {}", point.vm),
                cause: "so it is not known what the file holds".into(),
                hint: "leave out `--holds`: then the file is read".into(),
            })?;
            disk_of(repository, &args.repository.repo, &name)?
        }
    };
    Ok(Some(Known { disk: held, changed: changed.unwrap_or_default() }))
}

/// Writes what differs, and reads that back before it has its name again. How many bytes were written.
fn write(
    (repository, disk): (&Repository, &Disk),
    place: Place,
    known: Option<&Known>,
    pace: Option<&Pace>,
    (done, bar): (&AtomicU64, &ProgressBar),
) -> Result<u64, Failure> {
    let Place { file, path, unfinished, is_left } = place;
    if !is_left {
        rename(&path, &unfinished)?;
    }
    if file.metadata().map_err(Failure::File)?.len() != disk.size {
        file.set_len(disk.size).map_err(Failure::File)?;
    }
    let target = There(file);
    let held = known.map(|known| Held { disk: &known.disk, changed: &known.changed });
    let written = restore::onto(repository, disk, &Paced(&target, pace), held, threads(), done);
    let written = written.map_err(Failure::Restore)?;
    target.0.sync_all().map_err(Failure::File)?;
    let again = Again::of(&target.0); // as long as the lock is to hold: it goes with the first that is closed
    again::compare((repository, disk), &Paced(&again, pace), Some(&written.blocks), done, bar)?;
    rename(&unfinished, &path)?;
    Ok(written.bytes)
}

/// Gives a file another name, on the disk, and never that of another file.
fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    let renamed = renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE);
    renamed.map_err(|why| Failure::File(why.into()))?;
    sync_folder(to).map_err(Failure::File)
}

fn for_people(error: Failure, onto: &Path, point: &str) -> CliError {
    let unfinished = format!("{}.unfinished", onto.display());
    let (cause, hint) = match error {
        Failure::File(why) => (why.to_string(), None),
        Failure::Restore(why @ RestoreError::Differs { .. }) => (
            format!("`{unfinished}`: {why}"),
            Some(format!("it stays under that name, so no VM starts from it; {}", super::fresh::LYING)),
        ),
        Failure::Restore(why) => (crate::act::chain(&why), None),
    };
    let left = format!(
        "if `{unfinished}` is there, it is neither what it was nor the point: the same command finishes it, one for another point, too"
    );
    CliError::Said {
        error: format!("cannot restore point {point} onto `{}`", onto.display()),
        cause,
        hint: hint.unwrap_or(left),
    }
}
