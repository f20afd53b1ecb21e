//! How far `backup image` came with a disk, kept on this computer while it is at work: whoever tries again after it was killed, or
//! failed, goes on there. Nothing depends on it; a file that is lost costs time.

use crate::cli::backup::say_aside;
use holdfast_backup::attempt::Attempt;
use holdfast_backup::point::Disk;
use holdfast_backup::repository::Repository;
use holdfast_backup::save::Progress;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often it is written: at first, and later after such a part of the time that was taken already.
const EVERY: Duration = Duration::from_secs(2);
const SHARE: u32 = 16;
/// Of a disk that has no more pages, 64 GiB, it is written with each.
const EACH_MOST: usize = 1_024;
/// A file that was written to so short a time before may be written to again with the same time ...
const SETTLED: Duration = Duration::from_secs(3);
/// ... and so short, where its file system counts more than seconds.
const SETTLED_FINE: Duration = Duration::from_millis(100);
/// A file that is longer is none of ours: of a disk of 256 TiB it has 140 MB.
const LONGEST: u64 = 256 << 20;

/// Where it is kept, of this moment of a disk.
pub struct Trail<'a> {
    repository: &'a Repository,
    path: PathBuf,
    vm: String,
    moment: String,
    size: u64,
    state: Mutex<State>,
}

struct State {
    begun: Instant,
    written: Instant,
    /// Pages that the file tells of: of another moment it is replaced only by one that came as far.
    come: usize,
}

impl<'a> Trail<'a> {
    /// Of a disk whose moment has a name; otherwise nobody could tell what was written since.
    pub fn of(
        repository: &'a Repository,
        path: Option<PathBuf>,
        vm: &str,
        moment: Option<String>,
        size: u64,
    ) -> Option<Self> {
        let now = Instant::now();
        let state = Mutex::new(State { begun: now, written: now, come: 0 });
        Some(Self { repository, path: path?, vm: vm.to_owned(), moment: moment?, size, state })
    }

    /// How far somebody came before, with this disk of this size.
    pub fn before(&self) -> Option<Attempt> {
        let length = fs::metadata(&self.path).ok()?.len();
        let mut sealed = fs::read(&self.path).ok().filter(|_| length <= LONGEST)?;
        let attempt = Attempt::open(self.repository, &mut sealed)?;
        let is_same = attempt.vm == self.vm && attempt.size == self.size && attempt.come() > 0;
        Some(attempt).filter(|_| is_same).inspect(|attempt| self.state().come = attempt.come())
    }

    /// Writes down how far it is, if that is due.
    pub fn note(&self, progress: &Progress) {
        let is_due = {
            let state = self.state();
            let since = state.written.elapsed();
            let is_small = Disk::pages(self.size) <= EACH_MOST as u64;
            since >= EVERY.max(state.begun.elapsed() / SHARE) || is_small && progress.come() > state.come
        };
        if is_due {
            progress.tell.store(true, Ordering::Relaxed);
            self.write(progress);
        }
    }

    /// Writes down how far it is.
    pub fn write(&self, progress: &Progress) {
        let attempt = Attempt::of(&self.vm, &self.moment, self.size, progress);
        let mut state = self.state();
        state.written = Instant::now();
        if attempt.come() == 0 || attempt.come() < state.come {
            return;
        }
        match self.replace(&attempt) {
            Ok(()) => state.come = attempt.come(),
            Err(error) => {
                state.come = usize::MAX; // nobody needs to hear it twice
                say_aside(&format!(
                    "how far it is cannot be kept in `{}`: {error}; if it is cut off, all is read again",
                    self.path.display()
                ));
            }
        }
    }

    fn replace(&self, attempt: &Attempt) -> io::Result<()> {
        let sealed = attempt.seal(self.repository).map_err(io::Error::other)?;
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let unfinished = self.path.with_extension(format!("{}.unfinished", std::process::id()));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
        let written = file.and_then(|mut file| file.write_all(&sealed));
        let renamed = written.and_then(|()| fs::rename(&unfinished, &self.path));
        renamed.inspect_err(|_| drop(fs::remove_file(&unfinished)))
    }

    /// There is a point: nobody goes on with it.
    pub fn end(&self) {
        let _not_there = fs::remove_file(&self.path);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a file is called as long as nobody writes to it. Nothing if that cannot be told: a device does not say, and a file that was
/// written to just now could be written to once more in the same instant of its clock.
pub fn moment_of(file: &File) -> Option<String> {
    let known = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let (written, changed) = ((known.mtime(), known.mtime_nsec()), (known.ctime(), known.ctime_nsec()));
    let (seconds, nanos) = written.max(changed);
    let is_fine = changed.1 % 1_000_000 != 0; // that one nobody can set
    let (rounding, settled) =
        if is_fine { (Duration::ZERO, SETTLED_FINE) } else { (Duration::from_secs(1), SETTLED) };
    let last = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?) + rounding;
    let last = SystemTime::UNIX_EPOCH.checked_add(last)?;
    SystemTime::now().duration_since(last).ok().filter(|age| *age >= settled)?;
    Some(format!(
        "file {} {} {} {}.{:09} {}.{:09}",
        known.dev(),
        known.ino(),
        known.len(),
        written.0,
        written.1,
        changed.0,
        changed.1
    ))
}
