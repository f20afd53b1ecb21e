//! Where a repository lies: objects of bytes under names, each written once and whole.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// The longest name of an object.
pub const NAME_MOST: usize = 160;
/// The folder of what is not whole yet.
const UNFINISHED: &str = "tmp";
/// What is there for so long was left.
const LEFT_AFTER: Duration = Duration::from_secs(86_400);

/// A place for objects. Everything a repository asks of a disk or a server.
pub trait Store: Send + Sync {
    /// Writes an object that is not there yet. It is durable and whole when this returns, or not there at all.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if something else is there; anything that a disk or a network can say. Where a network
    /// fails, the object may be there yet, or come later.
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Reads so many bytes of an object from `offset` on; fewer at its end.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it is not there; anything that a disk or a network can say.
    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Names and lengths of all objects of a folder and those below it, in the order of their names.
    ///
    /// # Errors
    /// Anything that a disk or a network can say. A folder that is not there is empty.
    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>>;

    /// Removes an object.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it is not there (of two who remove it at once, both may hear that it was); anything that a disk or a network can say.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A folder of this computer. It stays the same one whatever becomes of its name: where a disk was unmounted, or the folder
/// moved, nothing is written into what has its name now.
pub struct Folder {
    root: PathBuf,
    /// Open as long as it is used.
    _held: File,
    next: AtomicU64,
    /// Folders whose own names are on the disk.
    known: Mutex<HashSet<PathBuf>>,
}

impl Folder {
    /// This folder, which must be there.
    ///
    /// # Errors
    /// If it is none, or cannot be entered.
    pub fn open(root: &Path) -> io::Result<Self> {
        let held = File::open(root)?;
        if !held.metadata()?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no folder"));
        }
        let itself = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let root = if itself.is_dir() { itself } else { root.to_owned() };
        let folder = Self { root, _held: held, next: AtomicU64::new(0), known: Mutex::default() };
        folder.clear(SystemTime::now());
        Ok(folder)
    }

    /// Removes what somebody left who was killed long ago. What cannot be removed is in nobody's way.
    fn clear(&self, now: SystemTime) {
        let Ok(entries) = fs::read_dir(self.root.join(UNFINISHED)) else { return };
        for entry in entries.filter_map(Result::ok) {
            let written = entry.metadata().and_then(|known| known.modified()).ok();
            if written.and_then(|at| now.duration_since(at).ok()).is_some_and(|age| age > LEFT_AFTER) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        let wrong =
            || io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` is no name of an object"));
        is_name(name).then(|| self.root.join(name)).ok_or_else(wrong)
    }

    /// Makes the name of a folder durable, and those of the folders that it lies in: whoever made them may have been killed
    /// before that (I14).
    fn keep(&self, folder: &Path) -> io::Result<()> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(folder) {
            return Ok(());
        }
        let above = folder.ancestors().skip(1).take_while(|above| above.starts_with(&self.root));
        above.into_iter().try_for_each(sync)?;
        known().insert(folder.to_owned());
        Ok(())
    }

    /// Writes a file that nobody looks for yet, to the disk.
    fn prepare(&self, bytes: &[u8]) -> io::Result<PathBuf> {
        let folder = self.root.join(UNFINISHED);
        fs::create_dir_all(&folder)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}-{number}", std::process::id()));
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.inspect_err(|_| drop(fs::remove_file(&path))).map(|()| path)
    }
}

/// Lower-case words, numbers, `-` and `.` between slashes: nothing that leads elsewhere (A33, A36).
#[must_use]
pub fn is_name(name: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_');
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    name.len() <= NAME_MOST && name.split('/').all(is_part)
}

impl Store for Folder {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(name)?;
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder)?;
        let prepared = self.prepare(bytes)?;
        // A link, and not a new name: it never replaces what is there.
        let linked = fs::hard_link(&prepared, &path);
        fs::remove_file(&prepared)?;
        linked?;
        sync(folder)?;
        self.keep(folder)
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path(name)?)?;
        file.seek(SeekFrom::Start(offset))?;
        let rest = file.metadata()?.len().saturating_sub(offset);
        let mut bytes = Vec::with_capacity(length.min(usize::try_from(rest).unwrap_or(usize::MAX)));
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        list_into(&self.path(folder)?, folder, &mut found)?;
        found.sort();
        Ok(found)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name)?;
        fs::remove_file(&path)?;
        sync(path.parent().unwrap_or(&self.root))
    }
}

fn list_into(path: &Path, name: &str, found: &mut Vec<(String, u64)>) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let Some(part) = entry.file_name().to_str().map(|part| format!("{name}/{part}")) else { continue };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list_into(&entry.path(), &part, found)?;
        } else if kind.is_file() && is_name(&part) {
            found.push((part, entry.metadata()?.len()));
        }
    }
    Ok(())
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_whose_name_went_elsewhere_is_written_to_and_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (named, moved) = (folder.path().join("repo"), folder.path().join("moved"));
        fs::create_dir(&named).unwrap();
        let store = Folder::open(&named).unwrap();
        fs::rename(&named, &moved).unwrap();
        store.put("packs/ab/1", b"hello").unwrap();
        assert_eq!(fs::read(moved.join("packs/ab/1")).unwrap(), b"hello");
        fs::remove_dir_all(&moved).unwrap();
        assert_eq!(store.put("packs/ab/2", b"hello").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!named.exists() && !moved.exists());
    }

    #[test]
    fn what_was_left_by_somebody_killed_is_removed_a_day_later() {
        let folder = tempfile::tempdir().unwrap();
        let store = Folder::open(folder.path()).unwrap();
        let left = store.prepare(b"half").unwrap();
        store.clear(SystemTime::now());
        assert!(left.exists());
        store.clear(SystemTime::now() + 2 * LEFT_AFTER);
        assert!(!left.exists());
    }

    #[test]
    fn names_of_objects_are_plain() {
        assert!(is_name("points/orders/00000001-3f") && is_name("key.1") && !is_name("a/../b"));
    }
}
