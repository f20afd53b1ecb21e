//! The run record: what a restarted daemon must know to adopt a VM that runs, and the highest incarnation
//! and token ever seen (I3). Small, checksummed, versioned, written whole or not at all.

use super::process::ProcessId;
use super::spec::Forward;
use holdfast_core::lease::{Incarnation, Token};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The version of the shape; a newer one is left untouched (I22).
const VERSION: u32 = 1;
/// A record larger than this is not ours.
const MOST: u64 = 64 * 1024;
/// So many raw disks are remembered: a VM has one, and few VMs ever get another.
const DISKS_MOST: usize = 8;

/// What is kept of one VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The highest incarnation seen.
    pub incarnation: Incarnation,
    /// The highest token seen.
    pub token: Token,
    /// The process of that incarnation; `None`: it was about to be started, and nobody wrote down whether
    /// it was.
    pub process: Option<ProcessId>,
    /// The control group of that process.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// The ports that were chosen for it, kept from start to start.
    pub ports: Vec<Port>,
    /// The disks that were raw when they were started, the newest last. A guest that writes a qcow2 head into a
    /// raw disk changes nothing (A31).
    #[serde(default)]
    pub raw: Vec<PathBuf>,
}

/// A port of the host that leads to a port of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Where the host listens.
    pub listen: SocketAddr,
    /// The guest's port.
    pub guest: u16,
}

impl From<Port> for Forward {
    fn from(port: Port) -> Self {
        Self { listen: port.listen, guest: port.guest }
    }
}

/// Why a record could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system said no.
    #[error("cannot {what} the run record {path}")]
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
    #[error("the run record {path} is damaged and was set aside as {aside}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it is now.
        aside: PathBuf,
    },
    /// It was written by a newer version.
    #[error("the run record {path} was written by a newer version of Holdfast")]
    Newer {
        /// The file.
        path: PathBuf,
    },
}

impl Record {
    /// Remembers that this disk was raw when it was started.
    pub fn remember_raw(&mut self, disk: &Path) {
        self.raw.retain(|known| known != disk);
        self.raw.push(disk.to_owned());
        self.raw.drain(..self.raw.len().saturating_sub(DISKS_MOST));
    }

    /// Reads a record; an empty one if there is none.
    ///
    /// # Errors
    /// See [`RecordError`]; a damaged file is renamed first.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let io = |what, source| RecordError::Io { what, path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(cause) => return Err(io("open", cause)),
        };
        let mut text = String::new();
        match file.take(MOST).read_to_string(&mut text) {
            Ok(_) => {}
            Err(cause) if cause.kind() == io::ErrorKind::InvalidData => return Err(set_aside(path)),
            Err(cause) => return Err(io("read", cause)),
        }
        match parse(&text) {
            Parsed::Good(record) => Ok(record),
            Parsed::Newer => Err(RecordError::Newer { path: path.to_owned() }),
            Parsed::Damaged => Err(set_aside(path)),
        }
    }

    /// Writes it durably: a new file, flushed, renamed over the old one, the folder flushed.
    ///
    /// # Errors
    /// [`RecordError::Io`]; the old record is then still whole.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        let io = |what| move |source| RecordError::Io { what, path: path.to_owned(), source };
        let body = serde_json::to_string(self).map_err(io::Error::from).map_err(io("write"))?;
        let text = format!("holdfast run {VERSION} {:08x}\n{body}\n", crc32fast::hash(body.as_bytes()));
        let fresh = path.with_extension("new");
        let mut options = File::options();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&fresh).map_err(io("make"))?;
        file.write_all(text.as_bytes()).map_err(io("write"))?;
        file.sync_all().map_err(io("flush"))?;
        fs::rename(&fresh, path).map_err(io("rename"))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("flush the folder of"))
    }
}

enum Parsed {
    Good(Record),
    Newer,
    Damaged,
}

fn parse(text: &str) -> Parsed {
    let Some((head, body)) = text.split_once('\n') else { return Parsed::Damaged };
    let words: Vec<&str> = head.split(' ').collect();
    let ["holdfast", "run", version, sum] = words[..] else { return Parsed::Damaged };
    if version.parse::<u32>().is_ok_and(|version| version > VERSION) {
        return Parsed::Newer;
    }
    let body = body.trim_end();
    let whole = u32::from_str_radix(sum, 16) == Ok(crc32fast::hash(body.as_bytes()));
    match serde_json::from_str(body) {
        Ok(record) if whole => Parsed::Good(record),
        Ok(_) | Err(_) => Parsed::Damaged,
    }
}

fn set_aside(path: &Path) -> RecordError {
    let mut aside = path.with_extension("damaged");
    for n in 1..1_000 {
        if !aside.exists() {
            break;
        }
        aside = path.with_extension(format!("damaged.{n}"));
    }
    match fs::rename(path, &aside) {
        Ok(()) => RecordError::Damaged { path: path.to_owned(), aside },
        Err(source) => RecordError::Io { what: "set aside", path: path.to_owned(), source },
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn record() -> Record {
        let process = Some(ProcessId { pid: 7, start: 99, boot: "b".into() });
        let ports = vec![Port { listen: "127.0.0.1:5".parse().unwrap(), guest: 5432 }];
        let (cgroup, raw) = (Some("/sys/fs/cgroup/x".into()), vec!["/disk".into()]);
        Record { incarnation: Incarnation(3), token: Token(9), process, cgroup, ports, raw }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        assert_eq!(Record::read(&path).unwrap(), Record::default());
        record().write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record());
    }

    #[test]
    fn the_newest_raw_disks_are_remembered_once_each() {
        let mut record = Record::default();
        for n in [0, 1, 2, 1, 3, 4, 5, 6, 7, 8, 9] {
            record.remember_raw(Path::new(&format!("/{n}")));
        }
        let newest = ["/2", "/1", "/3", "/4", "/5", "/6", "/7", "/8", "/9"];
        assert_eq!(record.raw, newest[1..].iter().map(PathBuf::from).collect::<Vec<_>>());
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed_and_nothing_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        record().write(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() - 1 {
            let mut bad = whole.clone();
            bad[at] ^= 0x04;
            fs::write(&path, &bad).unwrap();
            if let Ok(read) = Record::read(&path) {
                assert_eq!(read, record(), "byte {at}"); // only white space and letter case may pass
            }
            fs::write(&path, &whole[..at]).unwrap();
            assert!(Record::read(&path).is_err(), "cut at {at}");
        }
        let kept = fs::read_dir(folder.path()).unwrap().count();
        assert!(kept > whole.len(), "{kept} files");
    }

    #[test]
    fn a_newer_version_is_left_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        fs::write(&path, "holdfast run 2 00000000\n{}\n").unwrap();
        assert!(matches!(Record::read(&path), Err(RecordError::Newer { .. })));
        assert!(path.exists());
    }
}
