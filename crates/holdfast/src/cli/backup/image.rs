//! `holdfast backup image FILE`: a disk image becomes a restore point.

use super::attempt::Trail;
use super::basis::Basis;
use super::opened::{self, Format, Opened};
use super::pace::{LimitArgs, Paced};
use super::remote::Place;
use super::{Note, RepositoryArgs, bar, bytes, shown, suspicion, threads, troubled, watched, writer};
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
use std::io::{self, Write};
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
    /// The image, or a block device; nothing may write to it meanwhile. Or a disk that a QEMU or `qemu-nbd` holds still, as
    /// `nbd+unix:///EXPORT?socket=PATH` or `nbd://HOST:PORT/EXPORT`.
    pub file: PathBuf,
    /// How the file is laid out. It has to be said of one that begins as a qcow2 does; any other is raw.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
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
    pub holes: Option<String>,
    /// The bitmap that records what is written from this point on. Later `--bitmap NAME` is compared with this point.
    #[arg(long, value_name = "NAME")]
    pub begins: Option<String>,
    /// What is offered is made of this file: if it is written to meanwhile, there is no point.
    #[arg(long, value_name = "FILE", hide = true)]
    pub still: Vec<PathBuf>,
    /// When the moment was that is offered, in microseconds since 1970; now, if it is not said.
    #[arg(long, value_name = "TIME", hide = true, value_parser = clap::value_parser!(i64).range(0..))]
    taken: Option<i64>,
    /// Its file systems were frozen, or its VM was off: the grade of the point is `consistent`, and not only `taken`.
    #[arg(long)]
    consistent: bool,
    /// What its applications had written by then, in JSON, as `backup list --json` tells it.
    #[arg(long, value_name = "JSON", value_parser = written)]
    written: Option<Marks>,
    #[command(flatten)]
    limits: LimitArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print JSON of how far it is, too, a line each.
    #[arg(long, requires = "json")]
    progress: bool,
}

fn written(text: &str) -> Result<Marks, serde_json::Error> {
    serde_json::from_str(text)
}

/// Saves it.
pub fn image(args: &ImageArgs) -> Result<Exit, CliError> {
    let place = opened::place(args)?;
    let name = name(args, place.as_ref())?;
    let mut opened = Opened::of(args, place.as_ref())?;
    fits(args, opened.source().size())?;
    let mut repository = args.repository.open_unread()?;
    let (begun, now) = (Instant::now(), clock::wall_micros());
    let taken = args.taken.map_or(now, |taken| taken.min(now));
    let session = Session::begin(&mut repository, &name, &writer::here(now))
        .map_err(troubled(&args.repository.repo))?;
    args.repository.warn(&repository);
    let progress = Progress::default();
    let (folder, size) = (kept_in(&repository, &name), opened.source().size());
    let file = folder.as_ref().map(|folder| folder.join(DISK).with_extension("attempt"));
    let trail = Trail::of(&repository, file, &name, opened.moment(args.begins.as_ref()), size);
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
    opened.close();
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
    let stamps = opened.stamps()?;
    let kept = folder.and_then(|folder| kept(repository, &folder.join(DISK)));
    let disk = save_disk(args, repository, opened, (&basis, kept.as_ref()), watched)?;
    if opened.stamps()? != stamps {
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
    let pace = args.limits.pace();
    let source = &Paced(opened.source(), pace.as_ref());
    let attempt = basis.attempt.as_ref().map(|attempt| &attempt.disk);
    let parent = attempt.or(basis.parent.as_ref().map(|(_, disk)| disk));
    let before = Before { parent, is_attempt: attempt.is_some(), changed: basis.changed.as_deref(), kept };
    let most = if opened.remote().is_some() { READERS_MOST } else { usize::MAX };
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

fn name(args: &ImageArgs, place: Option<&Place>) -> Result<String, CliError> {
    let stem = || match place {
        Some(place) => Some(place.export().to_ascii_lowercase()),
        None => args.file.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase()),
    };
    let name = args.of.clone().or_else(stem).unwrap_or_default();
    if is_name(&name) {
        return Ok(name);
    }
    Err(CliError::Usage {
        error: format!("`{}` is no name for restore points", name),
        cause: "names have up to 63 lower-case letters, digits, `-`, `_` and `.`, which is not the first"
            .into(),
        hint: "name one with `--of`".into(),
    })
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
