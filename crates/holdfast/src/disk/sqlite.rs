//! SQLite files in the state folder: made for their owner only, set aside if damaged, left alone if newer (I22).
//!
//! What is wrong with one never stops the daemon (I7): whoever keeps something there goes on without it.

use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tracing::warn;

/// Damaged files that are set aside at most; after that nothing is kept until a person looks.
const MOST_ASIDE: u32 = 8;
/// Disk that is left to others, the journal above all: so much, and no more than one part in [`RESERVE_PART`].
const RESERVE: u64 = 64 << 20;
const RESERVE_PART: u64 = 10;
/// Pages that are given back to the disk at one look.
const GIVEN_BACK: u32 = 1_024;

/// What a file is.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// What is kept in it, as in `logs`.
    pub what: &'static str,
    /// The form that this program writes (`PRAGMA user_version`).
    pub version: i64,
    /// Says whose file it is (`PRAGMA application_id`).
    pub ours: i64,
    /// Its tables.
    pub schema: &'static str,
}

/// Why nothing can be kept.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A newer program wrote it.
    #[error("`{}` is of version {found}, this program writes version {written}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        written: i64,
    },
    /// It is no plain file.
    #[error("`{}` is not a plain file", .0.display())]
    NotAFile(PathBuf),
    /// It was set aside too often.
    #[error("`{}` was damaged {MOST_ASIDE} times", .0.display())]
    TooOften(PathBuf),
    /// The system refused.
    #[error("cannot use `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database refused.
    #[error("cannot use `{}`", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl FileError {
    /// The way out.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Newer { .. } => "start the newer version again, or move the file away to begin anew",
            Self::NotAFile(_) => "move away what stands in its place, then restart",
            Self::TooOften(_) => "look at the disk, remove the files `*.sqlite.damaged-*`, then restart",
            Self::Io { .. } | Self::Database { .. } => "see that the disk has room and can be written",
        }
    }
}

/// What the database said of a file.
pub fn refused(path: &Path, source: rusqlite::Error) -> FileError {
    FileError::Database { path: path.to_owned(), source }
}

/// Opens it; one that is damaged is set aside, and a new one made.
pub fn open(path: &Path, form: &Form) -> Result<Connection, FileError> {
    make(path)?;
    match connect(path, form) {
        Err(FileError::Database { source, .. }) if is_damage(&source) => {
            set_aside(path, form, &source)?;
            make(path)?;
            connect(path, form)
        }
        opened => opened,
    }
}

/// Whether an error says that the file is not what was written.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(
            error,
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..)
        )
}

/// Makes it, for its owner only; what it makes beside it takes after it.
fn make(path: &Path) -> Result<(), FileError> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => return Ok(()),
        Ok(_) => return Err(FileError::NotAFile(path.to_owned())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(FileError::Io { path: path.to_owned(), source }),
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(|source| FileError::Io { path: path.to_owned(), source })
}

fn connect(path: &Path, form: &Form) -> Result<Connection, FileError> {
    let failed = |source| refused(path, source);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let db = Connection::open_with_flags(real(path), flags).map_err(failed)?;
    let ask = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    let (found, whose, tables) = (ask("user_version")?, ask("application_id")?, ask("schema_version")?);
    if found > form.version {
        return Err(FileError::Newer { path: path.to_owned(), found, written: form.version });
    }
    let settings = "PRAGMA cache_size = -1024; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; \
                    PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 256; PRAGMA journal_size_limit = 4194304;";
    if tables == 0 {
        db.execute_batch("PRAGMA auto_vacuum = INCREMENTAL;").map_err(failed)?;
    }
    db.execute_batch("PRAGMA journal_mode = WAL;").map_err(failed)?;
    db.execute_batch(settings).map_err(failed)?;
    if tables == 0 {
        let begin = format!(
            "BEGIN; {} PRAGMA user_version = {}; PRAGMA application_id = {}; COMMIT;",
            form.schema, form.version, form.ours
        );
        db.execute_batch(&begin).map_err(failed)?;
    } else if whose != form.ours {
        return Err(failed(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB),
            None,
        )));
    }
    Ok(db)
}

/// The path without links in it, as SQLite refuses those: the folder was checked when the state was opened.
pub fn real(path: &Path) -> PathBuf {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    folder.zip(path.file_name()).map_or_else(|| path.to_owned(), |(folder, name)| folder.join(name))
}

/// Gives a damaged file and what belongs to it another name; nothing is deleted.
pub fn set_aside(path: &Path, form: &Form, cause: &rusqlite::Error) -> Result<PathBuf, FileError> {
    let failed = |source| FileError::Io { path: path.to_owned(), source };
    let named =
        |ending: &str, number: u32| PathBuf::from(format!("{}.damaged-{number}{ending}", path.display()));
    let free = (1..=MOST_ASIDE).find(|number| std::fs::symlink_metadata(named("", *number)).is_err());
    let number = free.ok_or_else(|| FileError::TooOften(path.to_owned()))?;
    for ending in ["-wal", "-shm"] {
        let from = PathBuf::from(format!("{}{ending}", path.display()));
        match std::fs::rename(from, named(ending, number)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed(cause)),
            Ok(()) | Err(_) => {}
        }
    }
    std::fs::rename(path, named("", number)).map_err(failed)?;
    let aside = named("", number);
    warn!(file = %path.display(), aside = %aside.display(), %cause, "kept {} were damaged, and are set aside", form.what);
    Ok(aside)
}

/// Whether the disk of a folder is so full that nothing may grow there.
pub fn is_short(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).is_ok_and(|disk| {
        let reserve = RESERVE.min(disk.f_blocks.saturating_mul(disk.f_frsize) / RESERVE_PART);
        disk.f_bavail.saturating_mul(disk.f_frsize) < reserve
    })
}

/// Gives room that is free for long back to the disk.
pub fn shrink(db: &Connection) -> rusqlite::Result<()> {
    let ask = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if ask("freelist_count")? > ask("page_count")? / 4 {
        db.execute_batch(&format!("PRAGMA incremental_vacuum({GIVEN_BACK});"))?;
    }
    Ok(())
}
