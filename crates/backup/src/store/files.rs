//! What a folder asks of the file system: little, so that a model of a disk whose power is cut can take its place (S65).

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// A file system. Nothing but `write` and `sync` promises that something outlives a power cut.
pub trait Files: Send + Sync {
    /// Makes a folder, and those that it lies in, if they are not there.
    ///
    /// # Errors
    /// As the system says.
    fn make_folder(&self, path: &Path) -> io::Result<()>;

    /// Makes a file that is not there yet: one that is may be another name of an object. Its bytes, not its name, are on the
    /// disk when this returns.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`]; or as the system says: then it may be there, with some of the bytes.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Gives a file another name, which nothing else has.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`]; or as the system says.
    fn link(&self, file: &Path, name: &Path) -> io::Result<()>;

    /// Takes a name away.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`]; or as the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Which names a folder has, is on the disk when this returns.
    ///
    /// # Errors
    /// As the system says.
    fn sync(&self, folder: &Path) -> io::Result<()>;

    /// Reads so many bytes of a file from `offset` on; fewer at its end.
    ///
    /// # Errors
    /// As the system says.
    fn read(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// The names in a folder; nothing if it is not there.
    ///
    /// # Errors
    /// As the system says.
    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>>;
}

/// A name in a folder.
pub struct Entry {
    /// The name; those that are no UTF-8 are none of ours.
    pub name: String,
    /// Its bytes, if it is a file; a folder has none, and nothing else is listed.
    pub length: Option<u64>,
}

/// The file system of this computer.
pub struct Real;

impl Files for Real {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn link(&self, file: &Path, name: &Path) -> io::Result<()> {
        fs::hard_link(file, name)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn read(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let rest = file.metadata()?.len().saturating_sub(offset);
        let mut bytes = Vec::with_capacity(length.min(usize::try_from(rest).unwrap_or(usize::MAX)));
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(ToOwned::to_owned) else { continue };
            let kind = entry.file_type()?;
            let length = if kind.is_file() { Some(entry.metadata()?.len()) } else { None };
            if kind.is_file() || kind.is_dir() {
                found.push(Entry { name, length });
            }
        }
        Ok(found)
    }
}
