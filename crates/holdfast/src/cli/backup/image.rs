//! `holdfast backup image FILE`: a disk image becomes a restore point.

use super::{Note, RepositoryArgs, bar, bytes, failed, shown, threads, troubled, watched, writer};
use crate::act::chain;
use crate::cli::{CliError, Exit, print_json};
use clap::Args;
use holdfast_backup::point::{Disk, Point, is_name};
use holdfast_backup::repository::{PointName, Repository};
use holdfast_backup::save::{self, Before, Progress, SaveError, Source};
use holdfast_backup::session::Session;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

/// The longest line of a file of changes.
const LINE_MOST: u64 = 256;

/// What to save.
#[derive(Args)]
pub struct ImageArgs {
    /// The image, or a block device. Its bytes are saved as they are, whatever its format; nothing may write to it
    /// meanwhile.
    file: PathBuf,
    #[command(flatten)]
    repository: RepositoryArgs,
    /// What its restore points are called; its file name without the ending, if that is not said.
    #[arg(long, value_name = "NAME")]
    of: Option<String>,
    /// What may have changed since the last point: a file of lines `OFFSET LENGTH`, in bytes. Nothing else is read.
    #[arg(long, value_name = "RANGES")]
    changed: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

struct Image {
    file: File,
    size: u64,
}

impl Source for Image {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }
}

/// Saves it.
pub fn image(args: &ImageArgs) -> Result<Exit, CliError> {
    let name = name(args)?;
    let image = open(&args.file)?;
    let changed = args.changed.as_deref().map(|file| ranges(file, image.size)).transpose()?;
    let mut repository = args.repository.open_to_write()?;
    let (begun, taken) = (Instant::now(), writer::now());
    let session = Session::begin(&mut repository, &name, &writer::here(taken))
        .map_err(troubled(&args.repository.repo))?;
    args.repository.warn(&repository);
    let progress = Progress::default();
    let saved = save(args, &repository, &image, (&name, changed.as_deref()), &progress);
    let (disk, parent) = match saved {
        Ok(saved) => saved,
        Err(error) => {
            drop(session.end(&repository)); // left behind, it would be seen to be over
            return Err(error);
        }
    };
    let note =
        Note { added: progress.written.load(Ordering::Relaxed), parent: parent.map(|name| shown(&name)) };
    let point = Point { vm: name, sequence: 0, taken, disks: vec![disk], note: note.write() };
    let point = session.commit(&repository, point).map_err(troubled(&args.repository.repo))?;
    let (read, skipped) = (progress.read.into_inner(), progress.skipped.into_inner());
    let (added, took) = (progress.written.into_inner(), begun.elapsed().as_secs_f64());
    if args.json {
        print_json(&serde_json::json!({
            "v": 1, "id": shown(&point), "vm": point.vm, "sequence": point.sequence, "taken": taken as f64 / 1e6,
            "size": image.size, "read": read, "skipped": skipped, "added": added, "seconds": took,
        }))?;
    } else {
        let what =
            if skipped > 0 { format!("{} of {}", bytes(read), bytes(image.size)) } else { bytes(read) };
        say!("restore point {}: {what} read, {} added, {took:.1} s", shown(&point), bytes(added));
    }
    Ok(Exit::Fine)
}

/// Writes what is new of the image, compared with the newest point. The disk, and that point.
fn save(
    args: &ImageArgs,
    repository: &Repository,
    image: &Image,
    (name, changed): (&str, Option<&[Range<u64>]>),
    progress: &Progress,
) -> Result<(Disk, Option<PointName>), CliError> {
    let (parent, stamp) = (parent(repository, name, &args.repository.repo)?, stamp(image)?);
    let bar = bar(image.size, args.json);
    let done = || progress.read.load(Ordering::Relaxed) + progress.skipped.load(Ordering::Relaxed);
    let before = Before { parent: parent.as_ref().map(|(_, disk)| disk), changed };
    let saved = watched(&bar, done, || save::disk(repository, "disk0", image, before, threads(), progress));
    bar.finish_and_clear();
    let disk = saved.map_err(|error| not_saved(error, args))?;
    if self::stamp(image)? != stamp {
        return Err(CliError::Said {
            error: format!("`{}` was written to while it was read", args.file.display()),
            cause: "a restore point of it would be of no one moment".into(),
            hint: "no point was made; stop the VM first, and try again: what was saved is not saved twice"
                .into(),
        });
    }
    Ok((disk, parent.map(|(name, _)| name)))
}

fn name(args: &ImageArgs) -> Result<String, CliError> {
    let stem = || args.file.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase());
    let name = args.of.clone().or_else(stem).unwrap_or_default();
    if is_name(&name) {
        return Ok(name);
    }
    Err(CliError::Said {
        error: format!("`{}` is no name for restore points", name),
        cause: "names have up to 63 lower-case letters, digits, `-`, `_` and `.`, which is not the first"
            .into(),
        hint: "name one with `--of`".into(),
    })
}

fn open(path: &Path) -> Result<Image, CliError> {
    let what = || format!("read the image `{}`", path.display());
    let kind = std::fs::metadata(path).map_err(failed(what()))?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it is neither a file nor a block device");
        return Err(CliError::Io { what: what(), source });
    }
    let mut file = File::open(path).map_err(failed(what()))?;
    let size = file.seek(SeekFrom::End(0)).map_err(failed(what()))?;
    Ok(Image { file, size })
}

/// When it was last written to; a device does not say.
fn stamp(image: &Image) -> Result<(u64, Option<SystemTime>), CliError> {
    let known = image.file.metadata().map_err(failed("look at the image".into()))?;
    Ok((known.len(), known.modified().ok().filter(|_| known.is_file())))
}

/// The newest point that can be read, and the disk as it was then.
fn parent(repository: &Repository, name: &str, folder: &Path) -> Result<Option<(PointName, Disk)>, CliError> {
    let mut own = repository.points().map_err(troubled(folder))?;
    own.retain(|point| point.vm == name);
    let disk =
        |name: PointName| Some((name.clone(), repository.point(&name).ok()?.disks.into_iter().next()?));
    Ok(own.into_iter().rev().find_map(disk))
}

fn not_saved(error: SaveError, args: &ImageArgs) -> CliError {
    match error {
        SaveError::Repository(trouble) => troubled(&args.repository.repo)(trouble),
        SaveError::Source { .. } | SaveError::NoMemory(_) | SaveError::Stopped => CliError::Said {
            error: format!("cannot save `{}`", args.file.display()),
            cause: chain(&error),
            hint: "no point was made, and none was harmed; what was saved is not saved twice".into(),
        },
    }
}

/// The ranges of a file of lines `OFFSET LENGTH`, in order and apart.
fn ranges(file: &Path, size: u64) -> Result<Vec<Range<u64>>, CliError> {
    let what = || format!("read the ranges `{}`", file.display());
    let mut reader = BufReader::new(File::open(file).map_err(failed(what()))?);
    let (mut found, mut line, mut number) = (Vec::<Range<u64>>::new(), String::new(), 0_u64);
    loop {
        line.clear();
        let mut bounded = io::Read::take(&mut reader, LINE_MOST);
        if bounded.read_line(&mut line).map_err(failed(what()))? == 0 {
            break;
        }
        number += 1;
        match range(&line, size) {
            Ok(range) => found.extend(range.filter(|range| !range.is_empty())),
            Err(cause) => {
                return Err(CliError::Said {
                    error: format!("line {number} of `{}` is no range", file.display()),
                    cause,
                    hint: "write `OFFSET LENGTH`, in bytes, one a line".into(),
                });
            }
        }
    }
    found.sort_by_key(|range| (range.start, range.end));
    let mut apart: Vec<Range<u64>> = Vec::with_capacity(found.len());
    for range in found {
        match apart.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => apart.push(range),
        }
    }
    Ok(apart)
}

fn range(line: &str, size: u64) -> Result<Option<Range<u64>>, String> {
    let line = line.split('#').next().unwrap_or_default().trim();
    if line.is_empty() {
        return Ok(None);
    }
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
    let mut words = line.split_ascii_whitespace();
    let (Some(offset), Some(length), None) = (number(words.next()), number(words.next()), words.next())
    else {
        return Err("these are not two numbers".into());
    };
    match offset.checked_add(length).filter(|end| *end <= size) {
        Some(end) => Ok(Some(offset..end)),
        None => Err(format!("it ends behind the image, which has {size} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_range_within_the_image_or_is_refused() {
        assert_eq!(range("4096 8192\n", 1 << 20), Ok(Some(4_096..12_288)));
        assert_eq!(range("  # nothing\n", 10), Ok(None));
        assert_eq!(range("0 10 # all of it", 10), Ok(Some(0..10)));
        for line in ["1", "1 2 3", "a b", "-1 2", "5 6", "18446744073709551615 1"] {
            assert!(range(line, 10).is_err(), "{line}");
        }
    }
}
