//! Opening the file: made for its owner only, set aside if it is damaged, left alone if it is newer (I22).

use super::room::usage;
use super::{Counts, Room, Store};
use holdfast_core::time::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::warn;

/// The file, in the state folder.
pub const FILE: &str = "logs.sqlite";
/// The form of the file that this program writes.
const VERSION: i64 = 1;
/// "HFLG": says whose file it is (`PRAGMA application_id`).
const OURS: i64 = 0x4846_4c47;
/// Damaged files that are set aside at most; after that nothing is kept until a person looks.
const MOST_ASIDE: u32 = 8;

/// Why nothing can be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A newer program wrote it.
    #[error("`{}` is of version {found}, this program writes version {VERSION}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
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

impl StoreError {
    /// The way out.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Newer { .. } => "start the newer version again, or move the file away to begin anew",
            Self::NotAFile(_) => "move away what stands in its place, then restart",
            Self::TooOften(_) => "look at the disk, remove the files `logs.sqlite.damaged-*`, then restart",
            Self::Io { .. } | Self::Database { .. } => "see that the disk has room and can be written",
        }
    }
}

impl Store {
    /// Opens the file in a folder, or makes it. It always comes up: with what is wrong told, and nothing kept.
    pub fn open(folder: &Path, room: Room) -> Self {
        let path = folder.join(FILE);
        let mut store = Self {
            path,
            room,
            db: None,
            next: 1,
            owners: BTreeMap::new(),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            noted: Vec::new(),
            places: BTreeMap::new(),
            counts: Arc::new(Counts::default()),
            newest: tokio::sync::watch::channel(0).0,
            told: None,
            again: Timestamp::ZERO,
            failures: 0,
            swept: None,
        };
        store.reopen();
        store
    }

    /// Opens the file anew, where that can be done; what cannot is told once.
    pub(super) fn reopen(&mut self) {
        self.db = None;
        let opened = open(&self.path).and_then(|db| {
            let known = usage(&db).map_err(|source| database(&self.path, source))?;
            Ok((db, known))
        });
        match opened {
            Ok((db, (next, owners))) => {
                self.next = self.next.max(next);
                self.owners = owners;
                self.db = Some(db);
                self.told = None;
                self.newest.send_replace(self.next - 1);
                self.count_on_disk();
            }
            Err(error) => self.tell(&error, error.hint()),
        }
    }

    /// Warns of a trouble, unless it is the one that was told last.
    pub(super) fn tell(&mut self, error: &dyn std::error::Error, hint: &str) {
        let cause = crate::act::chain(error);
        if self.told.as_ref() != Some(&cause) {
            warn!(cause, hint, "logs are not kept");
            self.told = Some(cause);
        }
    }
}

fn database(path: &Path, source: rusqlite::Error) -> StoreError {
    StoreError::Database { path: path.to_owned(), source }
}

/// Opens it; one that is damaged is set aside, and a new one made.
fn open(path: &Path) -> Result<Connection, StoreError> {
    make(path)?;
    match connect(path) {
        Err(StoreError::Database { source, .. }) if is_damage(&source) => {
            let aside = set_aside(path)?;
            warn!(file = %path.display(), aside = %aside.display(), cause = %source, "kept logs were damaged, and are set aside");
            make(path)?;
            connect(path)
        }
        opened => opened,
    }
}

/// Whether an error says that the file is not what was written.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(
            error,
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..)
        )
}

/// Makes it, for its owner only; what it makes beside it takes after it.
fn make(path: &Path) -> Result<(), StoreError> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => return Ok(()),
        Ok(_) => return Err(StoreError::NotAFile(path.to_owned())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(StoreError::Io { path: path.to_owned(), source }),
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(|source| StoreError::Io { path: path.to_owned(), source })
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| database(path, source);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let db = Connection::open_with_flags(real(path), flags).map_err(failed)?;
    let ask = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    let (found, whose, tables) = (ask("user_version")?, ask("application_id")?, ask("schema_version")?);
    if found > VERSION {
        return Err(StoreError::Newer { path: path.to_owned(), found });
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
            "BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; PRAGMA application_id = {OURS}; COMMIT;"
        );
        db.execute_batch(&begin).map_err(failed)?;
    } else if whose != OURS {
        return Err(failed(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB),
            None,
        )));
    }
    Ok(db)
}

/// The path without links in it, as SQLite refuses those: the folder was checked when the state was opened.
pub(super) fn real(path: &Path) -> PathBuf {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    folder.zip(path.file_name()).map_or_else(|| path.to_owned(), |(folder, name)| folder.join(name))
}

const SCHEMA: &str = "
CREATE TABLE owner (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, pattern INTEGER NOT NULL DEFAULT 0);
CREATE TABLE block (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, owner INTEGER NOT NULL,
    since INTEGER NOT NULL, until INTEGER NOT NULL, at INTEGER NOT NULL,
    records INTEGER NOT NULL, severities INTEGER NOT NULL, bytes INTEGER NOT NULL, size INTEGER NOT NULL,
    loose INTEGER NOT NULL, crc INTEGER NOT NULL, patterns BLOB NOT NULL, content BLOB NOT NULL);
CREATE INDEX block_of ON block (owner, first, size);
CREATE INDEX block_loose ON block (owner, first) WHERE loose = 1;
CREATE TABLE place (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, source TEXT NOT NULL, place TEXT NOT NULL, UNIQUE (owner, source));
CREATE INDEX place_of ON place (owner, id);
CREATE TABLE noted (
    id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, number INTEGER NOT NULL, subject TEXT NOT NULL, source TEXT NOT NULL,
    at INTEGER NOT NULL, received INTEGER NOT NULL, sort TEXT NOT NULL, name TEXT NOT NULL, severity INTEGER,
    decibans REAL NOT NULL, text TEXT NOT NULL);
CREATE INDEX noted_of ON noted (owner, id);
CREATE TABLE mind (owner INTEGER PRIMARY KEY, saved INTEGER NOT NULL, size INTEGER NOT NULL, crc INTEGER NOT NULL, content BLOB NOT NULL);
";

/// Gives a damaged file and what belongs to it another name; nothing is deleted.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let failed = |source| StoreError::Io { path: path.to_owned(), source };
    let named =
        |ending: &str, number: u32| PathBuf::from(format!("{}.damaged-{number}{ending}", path.display()));
    let free = (1..=MOST_ASIDE).find(|number| std::fs::symlink_metadata(named("", *number)).is_err());
    let number = free.ok_or_else(|| StoreError::TooOften(path.to_owned()))?;
    for ending in ["-wal", "-shm"] {
        let from = PathBuf::from(format!("{}{ending}", path.display()));
        match std::fs::rename(from, named(ending, number)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed(cause)),
            Ok(()) | Err(_) => {}
        }
    }
    std::fs::rename(path, named("", number)).map_err(failed)?;
    Ok(named("", number))
}
