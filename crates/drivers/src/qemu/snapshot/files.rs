//! Where the files of a disk lie: beside it, in a folder that has its name and ends in `.snapshots`.

use super::super::image;
use super::super::launch::Format;
use super::super::machine::error_chain;
use super::super::offered;
use super::qcow2;
use super::record::Turn;
use super::tree::{FileNumber, Origin, Tree};
use holdfast_core::point::SnapshotId;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of one disk.
#[derive(Clone, Debug)]
pub struct Files {
    disk: PathBuf,
    folder: PathBuf,
    /// Whose turn it is to write their record.
    pub(super) turn: Arc<Turn>,
}

impl Files {
    /// Of this disk, as it is configured, for one who only looks.
    #[must_use]
    pub fn of(disk: &Path) -> Self {
        Self::in_turn(disk, Arc::default())
    }

    /// The same for one who writes: all who do share one turn.
    #[must_use]
    pub fn in_turn(disk: &Path, turn: Arc<Turn>) -> Self {
        let mut folder = disk.as_os_str().to_owned();
        folder.push(".snapshots");
        Self { disk: disk.to_owned(), folder: folder.into(), turn }
    }

    /// The folder of its overlays and memories.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of the disk.
    #[must_use]
    pub fn path(&self, file: FileNumber) -> PathBuf {
        match file {
            FileNumber::BASE => self.disk.clone(),
            FileNumber(number) => self.folder.join(format!("{number}.qcow2")),
        }
    }

    /// The saved memory of a snapshot.
    #[must_use]
    pub fn memory(&self, id: SnapshotId) -> PathBuf {
        self.folder.join(format!("{id}.memory"))
    }

    /// What an overlay calls a file that it stands on.
    pub fn backing_name(&self, file: FileNumber) -> io::Result<String> {
        match file {
            FileNumber::BASE => {
                let name = self.disk.file_name().and_then(|name| name.to_str());
                name.map(|name| format!("../{name}")).ok_or_else(|| io::Error::other("its name is no text"))
            }
            FileNumber(number) => Ok(format!("{number}.qcow2")),
        }
    }

    /// Where a backup is offered that this overlay stands on: no two of them share a place.
    #[must_use]
    pub fn socket(&self, overlay: FileNumber) -> PathBuf {
        self.folder.join(format!("{}.offered", overlay.0))
    }

    /// Where the backup of this overlay is to be offered. Its head says which of two places that we give names to (A31): one that
    /// was made before each had its own has that of its point.
    ///
    /// # Errors
    /// A sentence, if its head cannot be read.
    pub fn socket_of(&self, overlay: FileNumber, origin: &Origin) -> Result<PathBuf, String> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        let of_point = format!("{}.offered", origin.point.chars().map(plain).collect::<String>());
        let of_point = self.folder.join(of_point);
        let named = image::backing(&self.path(overlay)).map_err(|error| error_chain(&error))?;
        let is_old = named.is_some_and(|named| named == format!("{}{}", offered::NAME, of_point.display()));
        Ok(if is_old { of_point } else { self.socket(overlay) })
    }

    /// As [`Files::read`], for one who goes on to change it.
    pub fn read_or_new(&self) -> Result<Tree, String> {
        if let Some(tree) = self.read()? {
            return Ok(tree);
        }
        image::format(&self.disk).map(Tree::of).map_err(|error| error_chain(&error))
    }

    /// A process that says that it is the VM of this disk has a file of it open: the configured one, or an overlay, on record or
    /// not. A disk that was restored stands on none but its overlays.
    ///
    /// # Errors
    /// A sentence, if it has none.
    pub fn must_be_open_in(&self, pid: u32) -> Result<(), String> {
        let overlays = self.overlays().map(|number| self.path(number));
        if std::iter::once(self.disk.clone()).chain(overlays).any(|file| image::has_open(pid, &file)) {
            return Ok(());
        }
        Err(format!(
            "process {pid} says that it is this VM and has no file of its disk {} open: look what it is, and end it to go on",
            self.disk.display()
        ))
    }

    /// Makes the folder.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn make_folder(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        // QEMU's user passes through it to the files that are its own.
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o711))
    }

    /// Sees to it that no file has the next number: one that was left by an attempt that was broken off, or that nobody knows of,
    /// is not taken for what is made now.
    pub fn skip_left(&self, tree: &mut Tree) {
        while self.path(FileNumber(tree.next().0)).exists() {
            tree.skip();
        }
    }

    /// Makes an empty overlay of a file, with the owner and the rights of what was on top before.
    ///
    /// # Errors
    /// If it cannot be written; then there is none.
    pub fn make_overlay(&self, tree: &Tree, number: FileNumber, parent: FileNumber) -> io::Result<()> {
        let format = if parent == FileNumber::BASE { tree.base } else { Format::Qcow2 };
        let size = qcow2::virtual_size(&self.path(parent), format)?;
        let like = fs::metadata(self.path(tree.top()))?;
        let backing = self.backing_name(parent)?;
        self.make(number, |file| {
            file.set_permissions(fs::Permissions::from_mode(like.mode() & 0o777))?;
            fchown(&file, Some(like.uid()), Some(like.gid()))?;
            qcow2::write_overlay(file, size, &backing, format)
        })
    }

    /// Makes an empty overlay of so many bytes that stands on a backup, with the owner and the rights of what was on top
    /// before, where that is there.
    ///
    /// # Errors
    /// If it cannot be written; then there is none.
    pub fn make_root(&self, tree: &Tree, number: FileNumber, size: u64) -> io::Result<()> {
        let backing = format!("{}{}", offered::NAME, self.socket(number).display());
        let like = fs::metadata(self.path(tree.top())).ok();
        self.make(number, |file| {
            if let Some(like) = &like {
                fchown(&file, Some(like.uid()), Some(like.gid()))?;
            }
            qcow2::write_overlay(file, size, &backing, Format::Raw)
        })
    }

    /// Makes a file that is there whole, or not at all: its number is a name for it only once all of it is on the disk.
    fn make(&self, number: FileNumber, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        let path = self.path(number);
        if path.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let unfinished = path.with_extension("unfinished");
        remove(&unfinished)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let made = write(&mut file)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&unfinished, &path))
            .and_then(|()| File::open(&self.folder)?.sync_all());
        made.inspect_err(|_| [unfinished, path].iter().for_each(|file| drop(fs::remove_file(file))))
    }

    /// Whether this overlay needs the backup that it was made from still.
    ///
    /// # Errors
    /// A sentence, if its head cannot be read.
    pub fn needs_backup(&self, file: FileNumber) -> Result<bool, String> {
        let backing = image::backing(&self.path(file)).map_err(|error| error_chain(&error))?;
        Ok(backing.is_some_and(|backing| backing.starts_with(offered::NAME)))
    }

    /// Removes a file of the disk that nothing needs any more. The configured disk is never removed.
    ///
    /// # Errors
    /// If it is there and stays.
    pub fn remove(&self, file: FileNumber) -> io::Result<()> {
        if file == FileNumber::BASE { Ok(()) } else { remove(&self.path(file)) }
    }

    /// Removes the memory of a snapshot.
    ///
    /// # Errors
    /// If it is there and stays.
    pub fn remove_memory(&self, id: SnapshotId) -> io::Result<()> {
        remove(&self.memory(id))
    }

    /// Bytes that a file takes on its disk.
    #[must_use]
    pub fn bytes(&self, file: FileNumber) -> u64 {
        fs::metadata(self.path(file)).map_or(0, |meta| meta.blocks() * 512)
    }

    /// Bytes that can be written where the overlays are.
    ///
    /// # Errors
    /// If nobody can tell.
    pub fn room(&self) -> io::Result<u64> {
        let folder = if self.folder.exists() {
            self.folder.as_path()
        } else {
            self.disk.parent().unwrap_or(&self.disk)
        };
        let disk = rustix::fs::statvfs(folder)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether two paths lead to one file, which is there.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(one).is_some_and(|one| real(other) == Some(one))
}
