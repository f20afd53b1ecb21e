//! Where a repository of backups lies: a folder, or a part of a bucket in an S3 store. Wherever one is named, it is named the
//! same way, and opened here.

use holdfast_backup::id::PackId;
use holdfast_backup::store::{Folder, Store};
use holdfast_s3::{Access, AccessError, Bucket, Failure, S3};
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A place for a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepositoryPlace {
    /// A folder of this computer.
    Folder(PathBuf),
    /// In an S3 store.
    S3(Bucket),
}

/// Why a place cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder.
    #[error(transparent)]
    Folder(io::Error),
    /// What opens the store is not known.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The store.
    #[error(transparent)]
    Store(io::Error),
    /// Something else is there.
    #[error("it is not empty, and no repository")]
    Occupied,
}

impl OpenError {
    /// What can be done.
    pub fn hint(&self, place: &RepositoryPlace) -> String {
        match self {
            Self::Folder(_) => {
                format!("is that the folder? `holdfast backup init --repo {place}` makes a new one")
            }
            Self::Access(error) => error.hint().to_owned(),
            Self::Store(error) => hint(error).unwrap_or("try again once it answers").to_owned(),
            Self::Occupied => {
                format!(
                    "a repository has a place of its own: name one that is empty, or is not there yet; if it was one whose object `repository` is gone, `holdfast backup repair --repo {place}` puts that back"
                )
            }
        }
    }
}

/// What can be done about an error, if it came from an S3 store.
pub fn hint(error: &io::Error) -> Option<&'static str> {
    Failure::in_error(error).map(Failure::hint)
}

impl RepositoryPlace {
    /// The place of this name.
    ///
    /// # Errors
    /// A sentence, if it names a kind of place that is not known, or no bucket.
    pub fn parse(name: &OsStr) -> Result<Self, String> {
        let text = name.to_string_lossy();
        if let Some(bucket) = Bucket::parse(&text) {
            return bucket.map(Self::S3).map_err(|error| error.to_string());
        }
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        let word = |scheme: &&str| {
            let is_word = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
            !scheme.is_empty() && scheme.chars().all(is_word)
        };
        if let Some(scheme) = scheme.filter(word).or(text.starts_with("s3:").then_some("s3:")) {
            return Err(format!(
                "`{}` is no kind of place: a repository lies in a folder, or at `s3://BUCKET/PREFIX`",
                scheme.chars().take(32).collect::<String>()
            ));
        }
        Ok(Self::Folder(name.into()))
    }

    /// Opens it. A store is told who asks by `s3_file` or, without it, by the environment.
    pub fn open(&self, s3_file: Option<&Path>) -> Result<Box<dyn Store>, OpenError> {
        match self {
            Self::Folder(path) => Ok(Box::new(Folder::open(path).map_err(OpenError::Folder)?)),
            Self::S3(bucket) => Ok(Box::new(s3(bucket, s3_file)?)),
        }
    }

    /// Opens it for a new repository: there is none yet, or it is for the repository to say that there is one.
    pub fn open_new(&self, s3_file: Option<&Path>) -> Result<Box<dyn Store>, OpenError> {
        match self {
            Self::Folder(path) => {
                std::fs::create_dir_all(path).map_err(OpenError::Folder)?;
                let inside = std::fs::read_dir(path).map_err(OpenError::Folder)?;
                let is_named = |entry: std::fs::DirEntry| {
                    let name = entry.file_name();
                    name.to_str().is_some_and(|name| PackId::parse(name.trim_end_matches(".copy")).is_some())
                };
                // One that could not be made, or whose maker was killed, has left these.
                let is_left = |entry: std::fs::DirEntry| {
                    let is_ours = entry.file_name() == "keys" || entry.file_name() == "tmp";
                    is_ours
                        && std::fs::read_dir(entry.path()).is_ok_and(|inside| inside.flatten().all(is_named))
                };
                let is_free = path.join("repository").exists() || inside.into_iter().flatten().all(is_left);
                if is_free { self.open(s3_file) } else { Err(OpenError::Occupied) }
            }
            Self::S3(bucket) => {
                let store = s3(bucket, s3_file)?;
                let is_there = store.read("repository", 0, 1).is_ok();
                let is_free = is_there || store.is_empty().map_err(OpenError::Store)?;
                if is_free { Ok(Box::new(store)) } else { Err(OpenError::Occupied) }
            }
        }
    }

    /// The same place, named so that it means the same in any folder.
    pub fn absolute(&self) -> io::Result<PathBuf> {
        match self {
            Self::Folder(path) => path.canonicalize(),
            Self::S3(bucket) => Ok(bucket.to_string().into()),
        }
    }

    /// What it is, in a word.
    pub const fn noun(&self) -> &'static str {
        match self {
            Self::Folder(_) => "folder",
            Self::S3(_) => "place",
        }
    }

    /// The folder, if it is one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) => Some(path),
            Self::S3(_) => None,
        }
    }
}

fn s3(bucket: &Bucket, file: Option<&Path>) -> Result<S3, OpenError> {
    let access = file.map_or_else(Access::of_environment, Access::of_file)?;
    S3::open(bucket, &access).map_err(OpenError::Store)
}

impl fmt::Display for RepositoryPlace {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(to),
            Self::S3(bucket) => bucket.fmt(to),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    fn parse(name: &str) -> Result<RepositoryPlace, String> {
        RepositoryPlace::parse(OsStr::new(name))
    }

    #[test]
    fn a_folder_is_a_folder_whatever_it_is_called() {
        for name in ["/mnt/backup", "repo", "./s3://x", "a:b", "/mnt/s3://bucket", "://", "a b://c"] {
            let place = parse(name).unwrap();
            assert_eq!((place.folder(), &place.to_string()[..]), (Some(Path::new(name)), name));
        }
        let odd = OsStr::from_bytes(b"/mnt/\xff");
        assert_eq!(RepositoryPlace::parse(odd).unwrap().folder(), Some(Path::new(odd)));
    }

    #[test]
    fn a_bucket_is_told_from_what_is_nothing_known() {
        let place = parse("s3://backups/atlas").unwrap();
        assert_eq!((place.folder(), &place.to_string()[..]), (None, "s3://backups/atlas"));
        for (name, why) in [
            ("gs://backups", "`gs` is no kind of place"),
            ("https://s3.x/backups", "`https` is no kind of place"),
            ("s3:/backups", "`s3:` is no kind of place"),
            ("s3://", "is no name of a bucket"),
            ("s3://backups/../x", "is no prefix"),
        ] {
            let refused = parse(name).unwrap_err();
            assert!(refused.contains(why), "{name}: {refused}");
        }
    }
}
