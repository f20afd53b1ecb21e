//! The state folder: the one place where the daemon keeps what must outlive it.
//!
//! It belongs to one user and to one daemon at a time (R07). It must never be written by a program that
//! does not understand it (I22), and nothing in it is ever deleted because it looks wrong.

use crate::disk::small::{SmallFile, SmallFileError};
use crate::disk::{Disk, Folder, make_folder};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder of the journal, in the state folder.
pub const JOURNAL: &str = "journal";
/// The folder of the journal while the one in [`JOURNAL`] is of a newer version (I22).
pub const JOURNAL_OBSERVE: &str = "journal-observe";
/// The folder of the leases.
pub const LEASES: &str = "leases";
/// Where a daemon writes that finds a state folder of a newer version: it observes only.
pub const OBSERVE: &str = "observe";

const LOCK: &str = "lock";
const VERSION: &str = "version";
const LAYOUT: u32 = 1;

/// The state folder, locked for this program.
pub struct StateFolder {
    disk: Arc<Folder>,
    boot: String,
    newer: Option<u32>,
    damage: Option<SmallFileError>,
    /// Held open: the lock lasts as long.
    _lock: File,
}

/// The content of the version file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Layout {
    layout: u32,
}

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another daemon uses it.
    #[error("the state folder `{}` is in use by another daemon, {}", path.display(), holder(*pid))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Its process, if it could write that down.
        pid: Option<u32>,
    },
    /// It is a link or no folder.
    #[error("`{}` is not a folder, or a link to one", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// Another user owns it.
    #[error("the state folder `{}` belongs to user {owner}, not to user {user}", path.display())]
    ForeignOwner {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user of this program.
        user: u32,
    },
    /// Others may look into it.
    #[error("the state folder `{}` is open to other users (mode {mode:03o})", path.display())]
    Exposed {
        /// The folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds other things.
    #[error("`{}` is not a state folder: it holds `{found}` and no version file", path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// One of those things.
        found: String,
    },
    /// The version file cannot be read or written.
    #[error("cannot use the state folder `{}`", path.display())]
    Version {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: SmallFileError,
    },
    /// The kernel refused.
    #[error("cannot {doing} `{}`", path.display())]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "which did not write down its process".into(), |pid| format!("process {pid}"))
}

impl StateError {
    /// The way out, for people.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::InUse { pid, .. } => {
                let pid = pid.map_or_else(|| "it".to_owned(), |pid| format!("process {pid}"));
                format!("stop {pid}, or choose another folder with `--state DIR`")
            }
            Self::NotAFolder { .. } | Self::NotOurs { .. } => {
                "choose an empty or new folder with `--state DIR`".into()
            }
            Self::ForeignOwner { owner, .. } => format!("run as user {owner}, or choose `--state DIR`"),
            Self::Exposed { path, .. } => {
                format!("look who changed it, then `chmod go-rw {}`", path.display())
            }
            Self::Version { .. } | Self::Disk { .. } => {
                "see that the disk has room and can be written, then start again".into()
            }
        }
    }
}

impl StateFolder {
    /// Opens a state folder and locks it; it is made if it is not there. Its parent must be there.
    ///
    /// # Errors
    /// [`StateError`]. A damaged version file is none: see [`StateFolder::damage`].
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let disk_error = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Disk { doing, path, source }
        };
        make_folder(path).map_err(disk_error("make the state folder", path))?;
        examine(path)?;
        let lock = lock(path)?;
        let boot_file = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = std::fs::read_to_string(boot_file).map_err(disk_error("read", boot_file))?;
        let boot = boot.trim().to_owned();
        let disk = Arc::new(Folder::new(path));
        let (newer, damage) = version(path, &disk)?;
        let path = if newer.is_some() { path.join(OBSERVE) } else { path.to_owned() };
        let state = Self { disk: Arc::new(Folder::new(&path)), boot, newer, damage, _lock: lock };
        make_folder(&path).map_err(disk_error("make the folder", &path))?;
        for name in [JOURNAL, LEASES] {
            state.folder(name).map_err(disk_error("make the folder", &path.join(name)))?;
        }
        Ok(state)
    }

    /// Where this program may write: the state folder, or [`OBSERVE`] in one of a newer version.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.disk.path()
    }

    /// The same, as a disk.
    #[must_use]
    pub fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    /// A folder in it, made if it is not there; its path. `name` is one of ours, never made from input.
    ///
    /// # Errors
    /// The kernel's.
    pub fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path().join(name);
        make_folder(&path).map(|()| path)
    }

    /// The boot of this host, from the kernel; another one means that all processes are gone.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// The version of the folder, if it is newer than this program: then it only observes (I22).
    #[must_use]
    pub const fn newer(&self) -> Option<u32> {
        self.newer
    }

    /// What was wrong with the version file. It was set aside and written anew; a person must know.
    #[must_use]
    pub const fn damage(&self) -> Option<&SmallFileError> {
        self.damage.as_ref()
    }
}

/// Whether it is a folder of ours that no other user may look into. As root, others may pass through: QEMU runs
/// as a user of its own, in a folder of its own further down. All else in it is closed to others by itself.
fn examine(path: &Path) -> Result<(), StateError> {
    let path = path.to_owned();
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match open(&path, flags, Mode::empty()) {
        Ok(folder) => File::from(folder),
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(StateError::NotAFolder { path }),
        Err(error) => {
            return Err(StateError::Disk { doing: "open the state folder", path, source: error.into() });
        }
    };
    let about = match folder.metadata() {
        Ok(about) => about,
        Err(source) => return Err(StateError::Disk { doing: "look at", path, source }),
    };
    let (owner, user, mode) = (about.uid(), rustix::process::geteuid().as_raw(), about.mode() & 0o777);
    if owner != user {
        return Err(StateError::ForeignOwner { path, owner, user });
    }
    if mode & 0o066 != 0 {
        return Err(StateError::Exposed { path, mode });
    }
    if rustix::process::geteuid().is_root() && mode & 0o011 != 0o011 {
        let through = std::fs::Permissions::from_mode(mode | 0o011);
        let told = |source| StateError::Disk { doing: "let QEMU's user pass through", path, source };
        return folder.set_permissions(through).map_err(told);
    }
    Ok(())
}

/// Locks the folder until the file is closed, also by the end of the program.
fn lock(folder: &Path) -> Result<File, StateError> {
    let path = folder.join(LOCK);
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let disk_error = |source| StateError::Disk { doing: "lock", path: path.clone(), source };
    let file = options.open(&path).map_err(disk_error)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(StateError::InUse { path: folder.to_owned(), pid: pid_in(&file) });
        }
        Err(error) => return Err(disk_error(error.into())),
    }
    // Best effort, without changing the length: on a full disk the lock counts, not the number in it.
    drop(file.write_all_at(format!("{:<10}\n", std::process::id()).as_bytes(), 0));
    Ok(file)
}

fn pid_in(file: &File) -> Option<u32> {
    let mut bytes = [0; 10];
    file.read_exact_at(&mut bytes, 0).ok()?;
    std::str::from_utf8(&bytes).ok()?.trim_end().parse().ok()
}

/// The version of the folder if it is newer than ours, and what is wrong with the version file.
fn version(path: &Path, disk: &Arc<Folder>) -> Result<(Option<u32>, Option<SmallFileError>), StateError> {
    let file = SmallFile::<Layout>::new(disk.clone(), VERSION, "state", LAYOUT);
    let version_error = |source| StateError::Version { path: path.to_owned(), source };
    let damage = match file.load() {
        Ok(Some(_)) => return Ok((None, None)),
        Err(SmallFileError::Newer { version, .. }) => return Ok((Some(version), None)),
        Err(error @ (SmallFileError::Damaged { .. } | SmallFileError::Waiting { .. })) => Some(error),
        Err(error) => return Err(version_error(error)),
        Ok(None) => {
            if let Some(found) = foreign(disk.as_ref()).map_err(|source| StateError::Disk {
                doing: "list",
                path: path.to_owned(),
                source,
            })? {
                return Err(StateError::NotOurs { path: path.to_owned(), found });
            }
            None
        }
    };
    file.store(&Layout { layout: LAYOUT }).map_err(version_error)?;
    Ok((None, damage))
}

/// Something in the folder that no first start leaves behind.
fn foreign(disk: &Folder) -> io::Result<Option<String>> {
    let ours = [LOCK, "version.new", JOURNAL, LEASES];
    Ok(disk.list("")?.into_iter().map(|found| found.name).find(|name| !ours.contains(&name.as_str())))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::journal::{Beginning, Journal, Limits, OpenError};
    use holdfast_core::time::Timestamp;
    use std::os::unix::fs::symlink;

    fn refused(path: &Path) -> StateError {
        let Err(error) = StateFolder::open(path) else { panic!("it should be refused") };
        assert!(!error.hint().is_empty());
        error
    }

    #[test]
    fn a_new_folder_is_made_for_its_owner_only_and_opens_again() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        for _ in 0..2 {
            let state = StateFolder::open(&path).unwrap();
            assert_eq!(state.boot().len(), 36);
            assert_eq!((state.newer(), state.path()), (None, path.as_path()));
            assert!(state.damage().is_none());
            for folder in [path.join(JOURNAL), path.join(LEASES)] {
                assert_eq!(std::fs::metadata(folder).unwrap().mode() & 0o777, 0o700);
            }
            let root = rustix::process::geteuid().is_root();
            let mode = std::fs::metadata(&path).unwrap().mode() & 0o777;
            assert_eq!(mode, if root { 0o711 } else { 0o700 }, "nobody else looks into it");
        }
    }

    #[test]
    fn a_second_daemon_is_refused_and_told_the_process_of_the_first_r07() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        let first = StateFolder::open(&path).unwrap();
        let error = refused(&path);
        let pid = std::process::id();
        assert!(matches!(error, StateError::InUse { pid: Some(found), .. } if found == pid), "{error}");
        assert!(error.to_string().ends_with(&format!("in use by another daemon, process {pid}")));
        drop(first);
        StateFolder::open(&path).unwrap();
    }

    #[test]
    fn a_folder_that_others_may_enter_a_link_and_a_file_are_refused_a07() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        drop(StateFolder::open(&path).unwrap());
        symlink(&path, place.path().join("link")).unwrap();
        std::fs::write(place.path().join("file"), "").unwrap();
        assert!(matches!(refused(&place.path().join("link")), StateError::NotAFolder { .. }));
        assert!(matches!(refused(&place.path().join("file")), StateError::NotAFolder { .. }));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o750)).unwrap();
        assert!(matches!(refused(&path), StateError::Exposed { mode: 0o750, .. }));
    }

    #[test]
    fn a_folder_with_other_things_in_it_is_refused_and_left_alone() {
        let place = tempfile::tempdir().unwrap();
        std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::write(place.path().join("thesis.txt"), "mine").unwrap();
        assert!(matches!(refused(place.path()), StateError::NotOurs { found, .. } if found == "thesis.txt"));
        assert!(!place.path().join(JOURNAL).exists());
    }

    #[test]
    fn in_a_newer_folder_only_the_observing_part_is_written_i22() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        drop(StateFolder::open(&path).unwrap());
        let newer = SmallFile::new(Arc::new(Folder::new(&path)), VERSION, "state", LAYOUT + 1);
        newer.store(&Layout { layout: LAYOUT + 1 }).unwrap();
        let before = std::fs::read(path.join(VERSION)).unwrap();
        let state = StateFolder::open(&path).unwrap();
        assert_eq!((state.newer(), state.path()), (Some(2), path.join(OBSERVE).as_path()));
        assert!(path.join(OBSERVE).join(JOURNAL).is_dir());
        assert_eq!(std::fs::read(path.join(VERSION)).unwrap(), before);
    }

    #[test]
    fn beside_a_newer_journal_another_one_is_written_i22() {
        let place = tempfile::tempdir().unwrap();
        let state = StateFolder::open(&place.path().join("state")).unwrap();
        let mut start = [&b"HFJRNL\r\n"[..], &2_u32.to_le_bytes()].concat();
        start.extend_from_slice(&crc32fast::hash(&start).to_le_bytes());
        std::fs::write(state.path().join(JOURNAL).join("00000001.hfj"), start).unwrap();
        let open = |folder| Journal::open(state.disk(), folder, Limits::default());
        assert!(matches!(open(JOURNAL), Err(OpenError::Newer { version: 2, .. })));
        state.folder(JOURNAL_OBSERVE).unwrap();
        let (mut journal, _) = open(JOURNAL_OBSERVE).unwrap();
        let (host, boot) = ("atlas".into(), state.boot().into());
        let who = Beginning { host, boot, wall_offset: 0, at: Timestamp::ZERO };
        journal.begin(&who, b"").unwrap();
        assert!(journal.is_writing());
    }

    #[test]
    fn a_damaged_version_file_is_set_aside_and_told() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        drop(StateFolder::open(&path).unwrap());
        std::fs::write(path.join(VERSION), "holdfast state v1").unwrap();
        let state = StateFolder::open(&path).unwrap();
        assert!(matches!(state.damage(), Some(SmallFileError::Damaged { aside: Some(_), .. })));
        assert_eq!(std::fs::read(path.join("version.damaged-1")).unwrap(), b"holdfast state v1");
        drop(state);
        assert!(StateFolder::open(&path).unwrap().damage().is_none());
    }
}
