//! The few file operations that durable state is made of, so that a test can cut the power at each.
//!
//! It never follows a symbolic link, never reads anything but a regular file, and never writes to a
//! file that was there before: a file is made new, filled, and given its name.

pub mod bytes;
#[cfg(test)]
pub mod faulty;
pub mod small;
pub mod sqlite;

use rustix::fs::OFlags;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A place for durable files. Names are relative to it, as in `leases/orders.lease`.
pub trait Disk: Send + Sync {
    /// What is in a folder, at most [`LIST_MOST`], in no order; `""` is the place itself.
    ///
    /// # Errors
    /// The kernel's, and `FileTooLarge` if there are more.
    fn list(&self, folder: &str) -> io::Result<Vec<Listed>>;

    /// At most `most` bytes of a file, from there on; fewer mean that it ends there.
    ///
    /// # Errors
    /// The kernel's, and `InvalidInput` if it is not a regular file.
    fn read(&self, file: &str, from: u64, most: usize) -> io::Result<Vec<u8>>;

    /// Makes a new, empty file. One of that name is unlinked first, so only temporary names may be used.
    ///
    /// # Errors
    /// The kernel's.
    fn create(&self, file: &str) -> io::Result<Box<dyn NewFile>>;

    /// Gives a file another name; one of that name is replaced in the same instant.
    ///
    /// # Errors
    /// The kernel's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The kernel's.
    fn remove(&self, file: &str) -> io::Result<()>;

    /// Makes earlier `create`, `rename` and `remove` in this folder survive a power cut.
    ///
    /// # Errors
    /// The kernel's; then nobody knows what survives.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;
}

/// A file made by [`Disk::create`].
pub trait NewFile: Send {
    /// Writes all bytes there.
    ///
    /// # Errors
    /// The kernel's; then any part of them may have been written.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written survive a power cut.
    ///
    /// # Errors
    /// The kernel's; then the file must not be trusted again: the kernel forgets what it could not
    /// write, and a second call would succeed.
    fn sync(&mut self) -> io::Result<()>;

    /// The same file once more, so that it can be synced while it is being written.
    ///
    /// # Errors
    /// The kernel's.
    fn another(&self) -> io::Result<Box<dyn NewFile>>;
}

/// A file in a folder, or a folder, a link or a device, which no other operation accepts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its name. One that is not UTF-8 is not ours and is left out.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The most files a folder may have.
pub const LIST_MOST: usize = 100_000;

/// A real folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder with this path; it must be there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn at(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.0.clone() } else { self.0.join(name) }
    }
}

impl Disk for Folder {
    fn list(&self, folder: &str) -> io::Result<Vec<Listed>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.at(folder))? {
            let entry = entry?;
            let about = match entry.metadata() {
                Ok(about) => about,
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
                Err(other) => return Err(other),
            };
            let Ok(name) = entry.file_name().into_string() else { continue };
            if found.len() >= LIST_MOST {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too many files in one folder"));
            }
            found.push(Listed { name, bytes: about.len() });
        }
        Ok(found)
    }

    fn read(&self, file: &str, from: u64, most: usize) -> io::Result<Vec<u8>> {
        let file = OpenOptions::new().read(true).custom_flags(flags()).open(self.at(file))?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let there = usize::try_from(about.len().saturating_sub(from)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; most.min(there)];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], from + filled as u64) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn create(&self, file: &str) -> io::Result<Box<dyn NewFile>> {
        let path = self.at(file);
        let new = || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).custom_flags(flags()).open(&path)
        };
        let made = match new() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                std::fs::remove_file(&path)?;
                new()?
            }
            other => other?,
        };
        Ok(Box::new(made))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        std::fs::remove_file(self.at(file))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        File::open(self.at(folder))?.sync_all()
    }
}

impl NewFile for File {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn another(&self) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(self.try_clone()?))
    }
}

/// No link is followed, and no pipe or device can make an open wait.
fn flags() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

/// Makes a folder that only its owner may enter, and makes it survive a power cut. One that is there is
/// left as it is.
///
/// # Errors
/// The kernel's.
pub fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    }
    match path.parent() {
        Some(parent) if parent != Path::new("") => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_listed() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path());
        make_folder(&folder.path().join("sub")).unwrap();
        make_folder(&folder.path().join("sub")).unwrap();
        let mut file = folder.create("sub/a.new").unwrap();
        file.write_at(0, b"hello").unwrap();
        file.write_at(5, b" world").unwrap();
        file.sync().unwrap();
        folder.rename("sub/a.new", "sub/a").unwrap();
        folder.sync_folder("sub").unwrap();
        assert_eq!(folder.read("sub/a", 0, 100).unwrap(), b"hello world");
        assert_eq!(folder.read("sub/a", 6, 3).unwrap(), b"wor");
        assert_eq!(folder.read("sub/a", 60, 3).unwrap(), b"");
        assert_eq!(folder.list("sub").unwrap(), [Listed { name: "a".into(), bytes: 11 }]);
        assert_eq!(folder.list("").unwrap()[0].name, "sub");
        assert!(folder.read("sub", 0, 1).is_err());
        folder.remove("sub/a").unwrap();
        assert_eq!(folder.read("sub/a", 0, 1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_link_or_a_pipe_in_the_place_of_a_file_is_neither_followed_nor_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path());
        std::fs::write(place.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink("secret", place.path().join("link")).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let pipe = place.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(folder.read("link", 0, 9).is_err());
        assert_eq!(folder.read("pipe", 0, 9).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        folder.create("link").unwrap().write_at(0, b"new").unwrap();
        assert_eq!(std::fs::read_to_string(place.path().join("secret")).unwrap(), "secret");
        assert_eq!(folder.read("link", 0, 9).unwrap(), b"new");
    }
}
