//! The run record: what a restarted daemon must know to adopt a VM that runs, and the highest incarnation
//! and token ever seen (I3). Small, checksummed, versioned, written whole or not at all.

use super::kept::{KeptError, Kind};
use super::process::ProcessId;
use super::spec::Forward;
use holdfast_core::lease::{Incarnation, Token};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const KIND: Kind = Kind { word: "run", version: 1, most: 64 * 1024 };
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
    /// Where its disk was when it was started last.
    #[serde(default)]
    pub disk: Option<Place>,
}

/// Where a disk was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The disk that is configured.
    pub path: PathBuf,
    /// The number of the file system that it lies on.
    pub device: u64,
}

impl Place {
    /// Where this disk is, or would be: the file system of what is there of its path.
    #[must_use]
    pub fn of(disk: &Path) -> Option<Self> {
        let there = disk.ancestors().find_map(|path| path.metadata().ok())?;
        Some(Self { path: disk.to_owned(), device: there.dev() })
    }
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
    /// See [`KeptError`]; a damaged file is renamed first.
    pub fn read(path: &Path) -> Result<Self, KeptError> {
        KIND.read(path).map(Option::unwrap_or_default)
    }

    /// Writes it durably, or leaves the old one whole.
    ///
    /// # Errors
    /// [`KeptError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), KeptError> {
        KIND.write(path, self)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::fs;

    fn record() -> Record {
        let process = Some(ProcessId { pid: 7, start: 99, boot: "b".into() });
        let ports = vec![Port { listen: "127.0.0.1:5".parse().unwrap(), guest: 5432 }];
        let (cgroup, raw) = (Some("/sys/fs/cgroup/x".into()), vec!["/disk".into()]);
        Record { incarnation: Incarnation(3), token: Token(9), process, cgroup, ports, raw, disk: None }
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
        assert!(matches!(Record::read(&path), Err(KeptError::Newer { .. })));
        assert!(path.exists());
    }
}
