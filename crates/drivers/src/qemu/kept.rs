//! Small files that outlive us: checksummed, versioned, written whole or not at all.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// One kind of such files.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The word in its first line.
    pub word: &'static str,
    /// The version of its shape; a newer one is left untouched (I22).
    pub version: u32,
    /// A file of more bytes is not ours.
    pub most: u64,
}

/// Why such a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The file system said no.
    #[error("cannot {what} the record {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is damaged. It was set aside, not deleted.
    #[error("the record {path} is damaged and was set aside as {aside}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it is now.
        aside: PathBuf,
    },
    /// It was written by a newer version.
    #[error("the record {path} was written by a newer version of Holdfast")]
    Newer {
        /// The file.
        path: PathBuf,
    },
}

impl Kind {
    /// Reads one; `None` if there is none.
    ///
    /// # Errors
    /// See [`KeptError`]; a damaged file is renamed first.
    pub fn read<T: DeserializeOwned>(self, path: &Path) -> Result<Option<T>, KeptError> {
        match self.look(path)? {
            Look::Nothing => Ok(None),
            Look::Whole(value) => Ok(Some(value)),
            Look::Damaged => Err(set_aside(path)),
        }
    }

    /// The same, and nothing is changed.
    ///
    /// # Errors
    /// It cannot be read, or was written by a newer version.
    pub fn look<T: DeserializeOwned>(self, path: &Path) -> Result<Look<T>, KeptError> {
        let io = |what, source| KeptError::Io { what, path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Look::Nothing),
            Err(cause) => return Err(io("open", cause)),
        };
        let mut text = String::new();
        match file.take(self.most).read_to_string(&mut text) {
            Ok(_) => {}
            Err(cause) if cause.kind() == io::ErrorKind::InvalidData => return Ok(Look::Damaged),
            Err(cause) => return Err(io("read", cause)),
        }
        match self.parse(&text) {
            Parsed::Good(value) => Ok(Look::Whole(value)),
            Parsed::Newer => Err(KeptError::Newer { path: path.to_owned() }),
            Parsed::Damaged => Ok(Look::Damaged),
        }
    }

    /// Writes one durably: a new file, flushed, renamed over the old one, the folder flushed.
    ///
    /// # Errors
    /// [`KeptError::Io`]; the old file is then still whole.
    pub fn write<T: Serialize>(self, path: &Path, value: &T) -> Result<(), KeptError> {
        self.prepare(path, value)?.put()
    }

    /// The first half of [`Kind::write`]: all that needs room, and nothing that anybody reads yet.
    ///
    /// # Errors
    /// [`KeptError::Io`]; the old file is then still whole.
    pub fn prepare<'a, T: Serialize>(self, path: &'a Path, value: &T) -> Result<Prepared<'a>, KeptError> {
        let io = |what| move |source| KeptError::Io { what, path: path.to_owned(), source };
        let body = serde_json::to_string(value).map_err(io::Error::from).map_err(io("write"))?;
        let sum = crc32fast::hash(body.as_bytes());
        let text = format!("holdfast {} {} {sum:08x}\n{body}\n", self.word, self.version);
        let fresh = path.with_extension("new");
        let mut options = File::options();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&fresh).map_err(io("make"))?;
        file.write_all(text.as_bytes()).map_err(io("write"))?;
        file.sync_all().map_err(io("flush"))?;
        Ok(Prepared { path, fresh })
    }

    fn parse<T: DeserializeOwned>(self, text: &str) -> Parsed<T> {
        let Some((head, body)) = text.split_once('\n') else { return Parsed::Damaged };
        let words: Vec<&str> = head.split(' ').collect();
        let ["holdfast", word, version, sum] = words[..] else { return Parsed::Damaged };
        if word != self.word {
            return Parsed::Damaged;
        }
        if version.parse::<u32>().is_ok_and(|version| version > self.version) {
            return Parsed::Newer;
        }
        let body = body.trim_end();
        let whole = u32::from_str_radix(sum, 16) == Ok(crc32fast::hash(body.as_bytes()));
        match serde_json::from_str(body) {
            Ok(value) if whole => Parsed::Good(value),
            Ok(_) | Err(_) => Parsed::Damaged,
        }
    }
}

/// What is found of such a file.
pub enum Look<T> {
    /// There is none.
    Nothing,
    /// All of it.
    Whole(T),
    /// Something that nobody can use.
    Damaged,
}

/// One that is flushed beside its place, where it is not yet.
#[must_use]
pub struct Prepared<'a> {
    path: &'a Path,
    fresh: PathBuf,
}

impl Prepared<'_> {
    /// The second half of [`Kind::write`].
    ///
    /// # Errors
    /// [`KeptError::Io`]
    pub fn put(self) -> Result<(), KeptError> {
        let io = |what| move |source| KeptError::Io { what, path: self.path.to_owned(), source };
        fs::rename(&self.fresh, self.path).map_err(io("rename"))?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("flush the folder of"))
    }
}

enum Parsed<T> {
    Good(T),
    Newer,
    Damaged,
}

fn set_aside(path: &Path) -> KeptError {
    let mut aside = path.with_extension("damaged");
    for n in 1..1_000 {
        if !aside.exists() {
            break;
        }
        aside = path.with_extension(format!("damaged.{n}"));
    }
    match fs::rename(path, &aside) {
        Ok(()) => KeptError::Damaged { path: path.to_owned(), aside },
        Err(source) => KeptError::Io { what: "set aside", path: path.to_owned(), source },
    }
}
