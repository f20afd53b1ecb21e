//! A folder of this computer as the place of a repository.

use super::files::{Entry, Files, Real};
use super::{Store, is_name};
use crate::id::PackId;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// The folder of what is not whole yet.
const UNFINISHED: &str = "tmp";
/// What is there for so long was left.
const LEFT_AFTER: Duration = Duration::from_secs(86_400);

/// A folder of this computer. It stays the same one whatever becomes of its name: where a disk was unmounted, or the folder
/// moved, nothing is written into what has its name now.
pub struct Folder {
    root: PathBuf,
    /// Open as long as it is used.
    _held: Option<File>,
    files: Box<dyn Files>,
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
        let folder = Self { _held: Some(held), ..Self::on(root, Box::new(Real)) };
        folder.clear(SystemTime::now());
        Ok(folder)
    }

    /// This folder of a file system.
    pub(super) fn on(root: PathBuf, files: Box<dyn Files>) -> Self {
        Self { root, _held: None, files, known: Mutex::default() }
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
        above.into_iter().try_for_each(|above| self.files.sync(above))?;
        known().insert(folder.to_owned());
        Ok(())
    }

    /// Writes a file that nobody looks for yet, to the disk. Its name is random: what another process left there may be a second
    /// name of an object, and what one of another computer writes has a name of its own (I14).
    fn prepare(&self, bytes: &[u8]) -> io::Result<PathBuf> {
        let folder = self.root.join(UNFINISHED);
        self.files.make_folder(&folder)?;
        let path = folder.join(PackId::random().map_err(io::Error::other)?.to_string());
        let written = self.files.write(&path, bytes);
        let is_another = |why: &io::Error| why.kind() == io::ErrorKind::AlreadyExists;
        if written.as_ref().is_err_and(|why| !is_another(why)) {
            let _ = self.files.remove(&path);
        }
        written.map(|()| path)
    }

    fn list_into(&self, path: &Path, name: &str, found: &mut Vec<(String, u64)>) -> io::Result<()> {
        for Entry { name: part, length } in self.files.list(path)? {
            let name = format!("{name}/{part}");
            match length {
                None => self.list_into(&path.join(part), &name, found)?,
                Some(length) if is_name(&name) => found.push((name, length)),
                Some(_) => {}
            }
        }
        Ok(())
    }
}

impl Store for Folder {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(name)?;
        let folder = path.parent().unwrap_or(&self.root);
        self.files.make_folder(folder)?;
        let prepared = self.prepare(bytes)?;
        // A link, and not a new name: it never replaces what is there.
        let linked = self.files.link(&prepared, &path);
        let _cleared_later = self.files.remove(&prepared);
        linked?;
        self.files.sync(folder)?;
        self.keep(folder)
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.files.read(&self.path(name)?, offset, length)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        self.list_into(&self.path(folder)?, folder, &mut found)?;
        found.sort();
        Ok(found)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name)?;
        self.files.remove(&path)?;
        self.files.sync(path.parent().unwrap_or(&self.root))
    }
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
    fn an_object_that_somebody_killed_left_a_second_name_of_outlives_all_who_come_later_i14() {
        let folder = tempfile::tempdir().unwrap();
        let store = Folder::open(folder.path()).unwrap();
        // As if it was killed between the link and the end of the other name.
        let left = store.prepare(b"hello").unwrap();
        fs::create_dir_all(folder.path().join("packs/ab")).unwrap();
        fs::hard_link(&left, folder.path().join("packs/ab/1")).unwrap();
        // Processes may have the number of that one: after a reboot, in another container, on another computer.
        for number in 2..5 {
            let next = Folder::open(folder.path()).unwrap();
            next.put(&format!("packs/ab/{number}"), b"other").unwrap();
            assert_eq!(next.read("packs/ab/1", 0, 99).unwrap(), b"hello");
        }
        assert_eq!(Real.write(&left, b"").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        store.clear(SystemTime::now() + 2 * LEFT_AFTER);
        assert!(!left.exists());
        assert_eq!(store.read("packs/ab/1", 0, 99).unwrap(), b"hello");
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
}
