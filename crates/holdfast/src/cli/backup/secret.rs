//! The key of a repository: a file of this user, or one that is named.

use super::failed;
use super::fresh::sync_folder;
use crate::cli::CliError;
use holdfast_backup::id::RepositoryId;
use holdfast_backup::key::Cost;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A key file is no longer than this.
const LONGEST: u64 = 4_096;
/// A passphrase is no shorter than this.
const SHORTEST: usize = 8;
/// What a random key costs to try: it cannot be guessed, so nothing is gained by making that slow.
const CHEAP: Cost = Cost { memory: 64, rounds: 1, lanes: 1 };

/// The secret of a repository that is being made.
pub enum Secret {
    /// A random key, to be kept in the configuration folder.
    Made(String),
    /// What a person put into a file.
    Given(Vec<u8>),
}

/// The secret for a new repository.
pub fn for_new(file: Option<&Path>) -> Result<Secret, CliError> {
    if let Some(file) = file {
        return if file.exists() { read(file).map(Secret::Given) } else { Err(no_passphrase(file)) };
    }
    folder()?; // before anything is made
    made().map(Secret::Made)
}

fn no_passphrase(file: &Path) -> CliError {
    CliError::Said {
        error: format!("cannot read the key `{}`", file.display()),
        cause: "there is no such file".into(),
        hint: "write a passphrase into it first; or leave `--key-file` and HOLDFAST_KEY_FILE away, and `init` makes a key".into(),
    }
}

/// The secret of a new key in a file: what is in it, or a random one that is put there.
pub fn for_another(file: &Path) -> Result<Secret, CliError> {
    if file.exists() {
        return read(file).map(Secret::Given);
    }
    let text = made()?;
    write_new(file, &text).map_err(failed(format!("write the key `{}`", file.display())))?;
    Ok(Secret::Made(text))
}

fn made() -> Result<String, CliError> {
    let mut random = [0; 32];
    holdfast_backup::key::random(&mut random).map_err(|error| CliError::Said {
        error: "cannot make a key".into(),
        cause: error.to_string(),
        hint: "nothing was changed; name a passphrase with `--key-file`".into(),
    })?;
    let mut text = String::new();
    text.extend(random.iter().map(|byte| format!("{byte:02x}")));
    Ok(text)
}

/// For this user alone, and never in place of a file. It has its name only once it is whole, and then on the disk, too.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.unfinished", std::process::id()));
    let _left = fs::remove_file(&unfinished); // by somebody killed, who had our number
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let written = writeln!(file, "{text}").and_then(|()| file.sync_all());
    let renamed = || renameat_with(CWD, &unfinished, CWD, path, RenameFlags::NOREPLACE);
    // Of the two ways that replace no file each file system has one at least.
    let named = written.and_then(|()| renamed().or_else(|_| fs::hard_link(&unfinished, path)));
    let _cleared = fs::remove_file(&unfinished);
    named.and_then(|()| sync_folder(path))
}

impl Secret {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Made(text) => text.as_bytes(),
            Self::Given(bytes) => bytes,
        }
    }

    pub const fn cost(&self) -> Cost {
        match self {
            Self::Made(_) => CHEAP,
            Self::Given(_) => Cost::USUAL,
        }
    }

    /// Takes the file away that [`for_another`] put there, as nothing came of it.
    pub fn forget(&self, file: &Path) {
        if let Self::Made(text) = self
            && read(file).is_ok_and(|bytes| bytes == text.as_bytes())
            && let Err(error) = fs::remove_file(file)
        {
            super::say_aside(&format!("`{}` is left, and opens nothing: {error}", file.display()));
        }
    }

    /// Keeps what was made, for this user alone. Where.
    pub fn keep(&self, of: RepositoryId) -> Result<Option<PathBuf>, CliError> {
        let Self::Made(text) = self else { return Ok(None) };
        let path = place(of)?;
        let what =
            || format!("write the key `{}`: without it the new repository cannot be opened", path.display());
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        let written = made.and_then(|()| write_new(&path, text));
        written.map_err(|source| CliError::Io { what: what(), source })?;
        Ok(Some(path))
    }
}

/// The secret of a repository that is there.
pub fn of(file: Option<&Path>, repository: RepositoryId) -> Result<Vec<u8>, CliError> {
    let place = match file {
        Some(file) => return read(file),
        None => place(repository)?,
    };
    if place.exists() {
        return read(&place);
    }
    Err(CliError::Said {
        error: format!("there is no key for repository {repository}"),
        cause: format!("`{}` is not there", place.display()),
        hint: "name its key with `--key-file`".into(),
    })
}

fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    // It may be a pipe, of a program that gives the secret: whoever writes to it is waited for.
    let read = fs::File::open(file).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
    read.map_err(failed(format!("read the key `{}`", file.display())))?;
    while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    if bytes.len() < SHORTEST || bytes.len() as u64 > LONGEST {
        return Err(CliError::Said {
            error: format!("`{}` holds no key", file.display()),
            cause: format!("it has {} bytes", bytes.len()),
            hint: format!("a key or passphrase has {SHORTEST} to {LONGEST} bytes"),
        });
    }
    Ok(bytes)
}

fn place(of: RepositoryId) -> Result<PathBuf, CliError> {
    Ok(folder()?.join(format!("{of}.key")))
}

/// Where keys of this user are.
fn folder() -> Result<PathBuf, CliError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    config.map(|folder| folder.join("holdfast/keys")).ok_or_else(|| CliError::Said {
        error: "there is no place for keys".into(),
        cause: "neither XDG_CONFIG_HOME nor HOME is set".into(),
        hint: "name a file with `--key-file`".into(),
    })
}
