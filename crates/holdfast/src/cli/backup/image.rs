//! `holdfast backup image FILE`: a disk image becomes a restore point.

use super::attempt::{self, Trail};
use super::basis::Basis;
use super::pace::{self, Pace, Paced};
use super::remote::{self, Place, Remote};
use super::{Note, RepositoryArgs, bar, bytes, failed, shown, suspicion, threads, troubled, watched, writer};
use crate::act::chain;
use crate::cli::{CliError, Exit, print_json};
use crate::clock;
use clap::Args;
use holdfast_backup::kept::Kept;
use holdfast_backup::point::{DISK_MOST, Disk, Point, is_name};
use holdfast_backup::proof;
use holdfast_backup::repository::{PointName, Repository};
use holdfast_backup::save::{self, Before, Progress, SaveError, Source};
use holdfast_backup::session::Session;
use holdfast_core::written::Marks;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What the disk of a point is called here.
const DISK: &str = "disk0";
/// Over a network more readers only wait for each other, and each has some pieces in memory.
const READERS_MOST: usize = 8;
/// How often progress is printed.
const TELL: Duration = Duration::from_millis(250);

/// What to save.
#[derive(Args)]
pub struct ImageArgs {
    /// The image, or a block device. Its bytes are saved as they are, whatever its format; nothing may write to it
    /// meanwhile. Or a disk that a QEMU or `qemu-nbd` holds still, as `nbd+unix:///EXPORT?socket=PATH` or
    /// `nbd://HOST:PORT/EXPORT`.
    file: PathBuf,
    #[command(flatten)]
    pub repository: RepositoryArgs,
    /// What its restore points are called; its file name without the ending, if that is not said.
    #[arg(long, value_name = "NAME")]
    of: Option<String>,
    /// What may have changed since the last point: a file of lines `OFFSET LENGTH`, in bytes. Nothing else is read.
    #[arg(long, value_name = "RANGES")]
    pub changed: Option<PathBuf>,
    /// What may have changed since the last point, as this bitmap of the NBD export says. If it is not there, or no
    /// point is, all is read, and still only the change is stored. Several may be named: of the last point, and of attempts
    /// after it that made none.
    #[arg(long, value_name = "NAME", conflicts_with = "changed")]
    pub bitmap: Vec<String>,
    /// Another export there: the same disk as it is now, which may know more of its holes. It is asked first.
    #[arg(long, value_name = "EXPORT")]
    holes: Option<String>,
    /// The bitmap that records what is written from this point on. Later `--bitmap NAME` is compared with this point.
    #[arg(long, value_name = "NAME")]
    pub begins: Option<String>,
    /// Its file systems were frozen, or its VM was off: the grade of the point is `consistent`, and not only `taken`.
    #[arg(long)]
    consistent: bool,
    /// What its applications had written by then, in JSON, as `backup list --json` tells it.
    #[arg(long, value_name = "JSON", value_parser = written)]
    written: Option<Marks>,
    /// Read no more than this in a second, such as `50MiB/s`.
    #[arg(long, value_name = "RATE", value_parser = pace::rate)]
    limit: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print JSON of how far it is, too, a line each.
    #[arg(long, requires = "json")]
    progress: bool,
}

pub struct Image {
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

    fn is_hole(&self, span: &Range<u64>) -> bool {
        use rustix::fs::{SeekFrom, seek};
        // What the file system cannot tell is read.
        match seek(&self.file, SeekFrom::Data(span.start)) {
            Ok(start) => start >= span.end,
            Err(why) => why == rustix::io::Errno::NXIO, // none up to the end
        }
    }
}

/// What is read.
pub enum Opened {
    File(Image),
    Remote(Box<Remote>),
}

impl Opened {
    pub fn source(&self) -> &dyn Source {
        match self {
            Self::File(image) => image,
            Self::Remote(remote) => &**remote,
        }
    }

    /// What this moment of it is called, if it is known what will have been written since.
    fn moment(&self, args: &ImageArgs) -> Option<String> {
        match self {
            Self::File(image) => attempt::moment_of(&image.file),
            Self::Remote(_) => args.begins.clone(),
        }
    }

    /// What was written since another moment, if that is known.
    pub fn written_since(&self, then: &str, now: &str) -> Option<Vec<Range<u64>>> {
        match self {
            Self::File(_) => (then == now).then(Vec::new),
            Self::Remote(remote) => remote.changed(then).map(<[_]>::to_vec),
        }
    }

    /// How long it is and when it was last written to, and changed otherwise: the first can be set to anything. A device does not
    /// say, and who offers a disk over NBD holds it still.
    fn stamp(&self) -> Result<Option<(u64, [i64; 4])>, CliError> {
        let Self::File(image) = self else { return Ok(None) };
        let known = image.file.metadata().map_err(failed("look at the image".into()))?;
        let times = [known.mtime(), known.mtime_nsec(), known.ctime(), known.ctime_nsec()];
        Ok(known.is_file().then_some((known.len(), times)))
    }
}

fn written(text: &str) -> Result<Marks, serde_json::Error> {
    serde_json::from_str(text)
}

/// Saves it.
pub fn image(args: &ImageArgs) -> Result<Exit, CliError> {
    let place = place(args)?;
    let name = name(args, place.as_ref())?;
    let mut opened = match &place {
        Some(place) => Opened::Remote(Box::new(connect(args, place)?)),
        None => Opened::File(open(&args.file)?),
    };
    fits(args, opened.source().size())?;
    let mut repository = args.repository.open_unread()?;
    let (begun, taken) = (Instant::now(), clock::wall_micros());
    let session = Session::begin(&mut repository, &name, &writer::here(taken))
        .map_err(troubled(&args.repository.repo))?;
    args.repository.warn(&repository);
    let progress = Progress::default();
    let (folder, size) = (kept_in(&repository, &name), opened.source().size());
    let file = folder.as_ref().map(|folder| folder.join(DISK).with_extension("attempt"));
    let trail = Trail::of(&repository, file, &name, opened.moment(args), size);
    let watched = Watched { progress: &progress, trail: trail.as_ref() };
    let saved = save(args, &repository, &mut opened, (&name, folder.as_deref()), &watched);
    let Saved { disk, basis } = match saved {
        Ok(saved) => saved,
        Err(error) => {
            drop(session.end(&repository)); // left behind, it would be seen to be over
            return Err(error);
        }
    };
    let added = progress.written.load(Ordering::Relaxed);
    let (bitmap, written) = (args.begins.clone(), args.written.clone().unwrap_or_default());
    let mut note = Note { added, bitmap, written, ..Note::default() };
    suspicion::note(&mut note, &repository, &disk, basis.parent.as_ref(), &progress.change);
    let point = Point { vm: name, sequence: 0, taken, disks: vec![disk], note: note.write() };
    let point = session.commit(&repository, point).map_err(troubled(&args.repository.repo))?;
    trail.iter().for_each(Trail::end);
    if args.consistent {
        let what = proof::What::Grade(proof::Grade::Consistent);
        let proof = proof::Proof { what, when: taken, boot: 0, words: "it was taken in order".into() };
        proof::prove(&repository, &point, &proof).map_err(troubled(&args.repository.repo))?;
    }
    if let Opened::Remote(remote) = opened {
        remote.close();
    }
    let took = begun.elapsed().as_secs_f64();
    tell(args, &Made { point, taken, size, added, took, basis, warning: note.warning }, &progress)?;
    Ok(Exit::Fine)
}

/// A point that is there.
struct Made {
    point: PointName,
    taken: i64,
    size: u64,
    added: u64,
    took: f64,
    basis: Basis,
    warning: Option<String>,
}

/// Says that it is there, and what it cost.
fn tell(args: &ImageArgs, made: &Made, progress: &Progress) -> Result<(), CliError> {
    let Made { point, taken, size, added, took, basis, warning } = made;
    let (read, skipped) = (progress.read.load(Ordering::Relaxed), progress.skipped.load(Ordering::Relaxed));
    let resumed = basis.attempt.as_ref().map_or(0, |attempt| attempt.bytes);
    if !args.json {
        let what = if skipped > 0 { format!("{} of {}", bytes(read), bytes(*size)) } else { bytes(read) };
        let known = if resumed > 0 { super::known_before(resumed) } else { String::new() };
        say!("restore point {}: {what} read{known}, {} added, {took:.1} s", shown(point), bytes(*added));
        if let Some(warning) = warning {
            super::say_aside(&format!("{}: {warning}", shown(point)));
        }
        return Ok(());
    }
    let doc = serde_json::json!({
        "v": 1, "id": shown(point), "vm": point.vm, "sequence": point.sequence, "taken": *taken as f64 / 1e6,
        "size": size, "read": read, "skipped": skipped, "added": added, "seconds": took,
        "all": basis.is_all, "why_all": basis.why_all, "resumed": resumed, "warning": warning,
    });
    if args.progress {
        say!("{doc}");
        return Ok(());
    }
    print_json(&doc)
}

/// A disk that is written, and what it was compared with.
struct Saved {
    disk: Disk,
    basis: Basis,
}

/// How far it is, for those who look on and for those who come after.
struct Watched<'a> {
    progress: &'a Progress,
    trail: Option<&'a Trail<'a>>,
}

/// Writes what is new of the disk.
fn save(
    args: &ImageArgs,
    repository: &Repository,
    opened: &mut Opened,
    (name, folder): (&str, Option<&Path>),
    watched: &Watched<'_>,
) -> Result<Saved, CliError> {
    let basis = Basis::of(args, opened, repository, name, watched.trail)?;
    if let Some(why) = basis.why_all.as_ref().filter(|_| !args.json) {
        super::say_aside(&format!("{why}: all is read, and only the change is stored"));
    }
    if let Some(attempt) = &basis.attempt {
        watched.progress.change.add(attempt.change);
    }
    let stamp = opened.stamp()?;
    let kept = folder.and_then(|folder| kept(repository, &folder.join(DISK)));
    let disk = save_disk(args, repository, opened, (&basis, kept.as_ref()), watched)?;
    if opened.stamp()? != stamp {
        return Err(CliError::Said {
            error: format!("`{}` was written to while it was read", args.file.display()),
            cause: "a restore point of it would be of no one moment".into(),
            hint: "no point was made; stop the VM first, and try again: what was saved is not saved twice"
                .into(),
        });
    }
    Ok(Saved { disk, basis })
}

/// Reads what is to be read, and tells how far it is.
fn save_disk(
    args: &ImageArgs,
    repository: &Repository,
    opened: &Opened,
    (basis, kept): (&Basis, Option<&Kept>),
    Watched { progress, trail }: &Watched<'_>,
) -> Result<Disk, CliError> {
    let pace = args.limit.map(Pace::new);
    let source = &Paced(opened.source(), pace.as_ref());
    let attempt = basis.attempt.as_ref().map(|attempt| &attempt.disk);
    let parent = attempt.or(basis.parent.as_ref().map(|(_, disk)| disk));
    let before = Before { parent, is_attempt: attempt.is_some(), changed: basis.changed.as_deref(), kept };
    let most = if matches!(opened, Opened::Remote(_)) { READERS_MOST } else { usize::MAX };
    let bar = bar(source.size(), args.json);
    let told = std::sync::Mutex::new(Instant::now());
    let done = || {
        let count = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
        let (read, skipped) = (count(&progress.read), count(&progress.skipped));
        let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if args.progress && told.elapsed() >= TELL {
            *told = Instant::now();
            let doc = serde_json::json!({
                "v": 1, "size": source.size(), "read": read, "skipped": skipped, "added": count(&progress.written),
            });
            // Whoever wanted to know it went away: then nobody wants the point, either.
            let is_heard = writeln!(io::stdout(), "{doc}").and_then(|()| io::stdout().flush()).is_ok();
            progress.stop.fetch_or(!is_heard, Ordering::Relaxed);
        }
        trail.iter().for_each(|trail| trail.note(progress));
        read + skipped
    };
    let work = || save::disk(repository, DISK, source, before, threads().min(most), progress);
    let saved = watched(&bar, done, work);
    bar.finish_and_clear();
    saved.map_err(|error| {
        trail.iter().for_each(|trail| trail.write(progress));
        not_saved(error, args)
    })
}

/// Where it is offered over NBD, if it is no file.
fn place(args: &ImageArgs) -> Result<Option<Place>, CliError> {
    let place = args.file.to_str().and_then(remote::place).transpose();
    let place = place.map_err(|cause| CliError::Said {
        error: format!("`{}` is no place of a disk", args.file.display()),
        cause: cause.into(),
        hint: "write `nbd+unix:///EXPORT?socket=PATH` or `nbd://HOST:PORT/EXPORT`".into(),
    })?;
    if place.is_none() && !args.bitmap.is_empty() {
        return Err(CliError::Said {
            error: format!("`--bitmap` says nothing of the file `{}`", args.file.display()),
            cause: "bitmaps are read over NBD: a file is saved as it is, and nothing in it is understood"
                .into(),
            hint: "offer it with `qemu-nbd --read-only --bitmap NAME`, or say what changed with `--changed`"
                .into(),
        });
    }
    Ok(place)
}

fn name(args: &ImageArgs, place: Option<&Place>) -> Result<String, CliError> {
    let stem = || match place {
        Some(place) => Some(place.export().to_ascii_lowercase()),
        None => args.file.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase()),
    };
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

/// A disk that no point can hold is not read to its end first.
fn fits(args: &ImageArgs, size: u64) -> Result<(), CliError> {
    if size <= DISK_MOST {
        return Ok(());
    }
    Err(CliError::Said {
        error: format!("`{}` is too large to be saved", args.file.display()),
        cause: format!(
            "it has {}, and a restore point holds disks of {} at most",
            bytes(size),
            bytes(DISK_MOST)
        ),
        hint: "nothing was read; is it the file that you mean?".into(),
    })
}

fn connect(args: &ImageArgs, place: &Place) -> Result<Remote, CliError> {
    Remote::open(place, &args.bitmap, args.holes.as_deref()).map_err(|error| CliError::Said {
        error: format!("cannot read the disk `{}`", args.file.display()),
        cause: chain(&error),
        hint: "no point was made; does a QEMU or `qemu-nbd --read-only --persistent` offer it there?".into(),
    })
}

/// Where this user keeps what makes the next point of a VM quicker; nothing if there is no such place.
fn kept_in(repository: &Repository, name: &str) -> Option<PathBuf> {
    Some(super::cache_folder()?.join(repository.id().to_string()).join(name))
}

/// The hashes of the pieces of this disk; nothing if that cannot be.
fn kept(repository: &Repository, path: &Path) -> Option<Kept> {
    let failed = |error: &io::Error| {
        super::say_aside(&format!(
            "the hashes of this disk cannot be kept in `{}`: {error}; the next point will take longer",
            path.display()
        ));
    };
    Kept::open(path, repository.id()).inspect_err(failed).ok()
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
