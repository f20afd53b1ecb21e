//! Going back to a backup, while the VM is dead: an overlay that stands on the backup takes the place of the disk, and the
//! VM starts from it while its blocks come in. Whoever offers the backup, and has QEMU copy it, is not here.

use super::super::{Qemu, offered};
use super::files::Files;
use super::rewind::{REWIND, set_aside};
use super::tree::{FileNumber, Origin, Tree};
use crate::DriverError;
use crate::qemu::launch::Format;
use crate::qemu::machine::Machine;
use holdfast_core::lease::DeathProof;
use holdfast_core::point::SnapshotId;
use holdfast_core::subject::VmName;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

const LOOK: &str = "look at the disk of";

/// A disk that needs the backup that it was restored from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Which backup.
    pub origin: Origin,
    /// The file that its blocks come into.
    pub file: PathBuf,
    /// Where it has to be offered.
    pub socket: PathBuf,
    /// Somebody offers it there.
    pub is_offered: bool,
}

/// Where a backup is offered before the overlay is there that is to stand on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The overlay will have this number.
    overlay: FileNumber,
    /// The socket.
    pub socket: PathBuf,
}

/// Whether the disk that this overlay is of stands on it now; nothing if that cannot be told. For another process than the
/// one that changes that.
#[must_use]
pub fn is_in_use(overlay: &Path) -> Option<bool> {
    let number = overlay.file_name()?.to_str()?.strip_suffix(".qcow2")?.parse().ok()?;
    let disk = overlay.parent()?.to_str()?.strip_suffix(".snapshots")?;
    let tree = Files::of(Path::new(disk)).look().ok()??;
    Some(tree.chain().contains(&FileNumber(number)))
}

impl Machine {
    /// Makes a backup, whose disk has `size` bytes, what the next start finds. What was there is kept as a snapshot, so
    /// nothing is lost (I15), and where the disk is not there any more, nothing is in the way.
    async fn restore(
        &self,
        dead: &DeathProof,
        (origin, size): (Origin, u64),
        place: &Place,
        limit: Duration,
    ) -> Result<Incoming, DriverError> {
        let deadline = Instant::now() + limit;
        let _one = self.snapshot_turn(REWIND, deadline).await?;
        let _turn = self.turn(deadline).await?;
        self.must_be_dead(dead)?;
        self.must_keep_its_disk().map_err(|why| self.refused(REWIND, why))?;
        let unknown = self.on_disk(REWIND, is_gone).await?;
        let mut tree = if unknown { Tree::of(Format::Qcow2) } else { self.own_tree(REWIND).await? };
        self.files().skip_left(&mut tree);
        if tree.next().0 != place.overlay.0 || self.files().socket(place.overlay) != place.socket {
            let why = "its snapshots changed while its backup was looked for: try it again";
            return Err(self.refused(REWIND, why));
        }
        let aside = set_aside(&tree, format!("what it was before backup {} took its place", origin.point));
        let number = tree.begin();
        let begun = tree.clone();
        tree.restore(origin.clone(), aside);
        self.on_disk(REWIND, move |files| {
            let told = |e: std::io::Error| format!("cannot make its overlay: {e}");
            files.make_folder().map_err(told)?;
            files.make_root(&begun, number, size).map_err(told)?;
            files.write(&tree)?; // only this changes what a start finds
            Ok(Incoming { file: files.path(number), socket: files.socket(number), origin, is_offered: true })
        })
        .await
    }

    /// What its disk needs of a backup still, if anything; or what a snapshot does.
    async fn incoming(&self, of: Option<SnapshotId>) -> Result<Option<Incoming>, DriverError> {
        self.on_disk(LOOK, move |files| {
            let Some(tree) = files.read()? else { return Ok(None) };
            let Some(file) = of.map_or(Some(tree.top()), |id| tree.file_of(id)) else { return Ok(None) };
            let Some((file, origin)) = tree.restored_below(file) else { return Ok(None) };
            if !files.needs_backup(file)? {
                return Ok(None);
            }
            let socket = files.socket_of(file, origin)?;
            let is_offered = offered::is_there(&socket);
            Ok(Some(Incoming { origin: origin.clone(), file: files.path(file), socket, is_offered }))
        })
        .await
    }

    /// Whether its disk, or a disk that is kept as a snapshot, needs a backup still.
    async fn needs_backup(&self) -> Result<bool, DriverError> {
        self.on_disk(LOOK, needs_any).await
    }

    /// What needs a backup is not whole: nothing is made of it as if it were.
    pub(in super::super) async fn must_be_whole(
        &self,
        what: &'static str,
        tree: &Tree,
    ) -> Result<(), DriverError> {
        let Some((file, origin)) = tree.restored() else { return Ok(()) };
        let origin = origin.clone();
        self.on_disk(what, move |files| match files.needs_backup(file) {
            Ok(true) => {
                Err(format!("its disk is still coming in from backup {}: wait for that", origin.point))
            }
            Ok(false) | Err(_) => Ok(()), // one that cannot be read is for the snapshot to say
        })
        .await
    }
}

impl Qemu {
    /// Makes a backup, whose disk has `size` bytes, what the next start of a dead VM finds.
    ///
    /// # Errors
    /// As for [`crate::Driver::perform`]; then nothing has changed.
    pub async fn restore(
        &self,
        vm: &VmName,
        dead: &DeathProof,
        what: (Origin, u64),
        place: &Place,
        limit: Duration,
    ) -> Result<Incoming, DriverError> {
        self.machine(vm)?.restore(dead, what, place, limit).await
    }

    /// Where a backup has to be offered for the next disk of a VM to stand on it. Its folder is made.
    ///
    /// # Errors
    /// The VM is not known, its record cannot be read, or the folder cannot be made.
    pub async fn offer_place(&self, vm: &VmName) -> Result<Place, DriverError> {
        let machine = self.machine(vm)?;
        let place = machine.on_disk(REWIND, |files| {
            files.make_folder().map_err(|e| format!("cannot make {}: {e}", files.folder().display()))?;
            let mut tree = if is_gone(files)? { Tree::of(Format::Qcow2) } else { files.read_or_new()? };
            files.skip_left(&mut tree);
            let overlay = FileNumber(tree.next().0);
            Ok(Place { overlay, socket: files.socket(overlay) })
        });
        place.await
    }

    /// Where the overlays of a VM's disk are, and the sockets of the backups that they stand on.
    ///
    /// # Errors
    /// The VM is not known.
    pub fn snapshot_folder(&self, vm: &VmName) -> Result<PathBuf, DriverError> {
        Ok(self.machine(vm)?.files().folder().to_owned())
    }

    /// What the disk of a VM needs of a backup still, if anything.
    ///
    /// # Errors
    /// The record of its files cannot be read.
    pub async fn incoming(&self, vm: &VmName) -> Result<Option<Incoming>, DriverError> {
        self.machine(vm)?.incoming(None).await
    }

    /// What a snapshot of a VM, as a disk that was left half, needs of a backup still, if anything.
    ///
    /// # Errors
    /// The record of its files cannot be read.
    pub async fn incoming_of(&self, vm: &VmName, id: SnapshotId) -> Result<Option<Incoming>, DriverError> {
        self.machine(vm)?.incoming(Some(id)).await
    }

    /// Whether the disk of a VM, or one that was left half and is kept as a snapshot, needs a backup still.
    ///
    /// # Errors
    /// The record of its files, or one of them, cannot be read.
    pub async fn needs_backup(&self, vm: &VmName) -> Result<bool, DriverError> {
        self.machine(vm)?.needs_backup().await
    }
}

/// The disk is not there, and nothing is on record of it.
pub(super) fn is_gone(files: &Files) -> Result<bool, String> {
    Ok(!files.path(FileNumber::BASE).exists() && files.read()?.is_none())
}

fn needs_any(files: &Files) -> Result<bool, String> {
    let Some(tree) = files.read()? else { return Ok(false) };
    for file in tree.from_backups() {
        if files.needs_backup(file)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::qcow2::write_overlay;
    use super::*;
    use std::fs::File;

    fn origin() -> Origin {
        Origin { to: "main".into(), repository: "7".into(), point: "db/3".into() }
    }

    /// A disk that was restored from a backup, and gone back from to what it was before: 1 was left, 2 is written to.
    fn left() -> (tempfile::TempDir, Files) {
        let place = tempfile::tempdir().unwrap();
        let files = Files::of(&place.path().join("disk"));
        files.make_folder().unwrap();
        let mut tree = Tree::of(Format::Raw);
        let aside = set_aside(&tree, String::new());
        let to = aside.id;
        let number = tree.begin();
        files.make_root(&tree, number, 1 << 20).unwrap();
        tree.restore(origin(), aside);
        files.write(&tree).unwrap();
        assert_eq!(is_in_use(&files.path(FileNumber(1))), Some(true));
        let aside = set_aside(&tree, String::new());
        tree.begin();
        tree.rewind(to, aside, false);
        files.write(&tree).unwrap();
        (place, files)
    }

    #[test]
    fn an_overlay_is_in_use_while_the_disk_stands_on_it_and_what_cannot_be_told_is_not_said() {
        let (place, files) = left();
        assert_eq!(is_in_use(&files.path(FileNumber(1))), Some(false));
        assert_eq!(is_in_use(&files.path(FileNumber(2))), Some(true));
        assert_eq!(is_in_use(&place.path().join("1.qcow2")), None);
        for record in ["record", "record-copy"] {
            std::fs::write(files.folder().join(record), "torn").unwrap();
        }
        assert_eq!(is_in_use(&files.path(FileNumber(1))), None);
    }

    #[test]
    fn what_was_left_half_needs_its_backup_for_as_long_as_it_is_kept() {
        let (_place, files) = left(); // I12
        assert_eq!(needs_any(&files), Ok(true));
        let empty = |number: u64| {
            let mut file = File::create(files.path(FileNumber(number))).unwrap();
            super::super::qcow2::write_empty(&mut file, 1 << 20).unwrap();
        };
        empty(1); // all has come in
        assert_eq!(needs_any(&files), Ok(false));
        std::fs::write(files.path(FileNumber(1)), "no image").unwrap();
        assert!(needs_any(&files).is_err(), "what cannot be told is not said");
        let mut tree = files.read().unwrap().unwrap();
        tree.removed(FileNumber(1));
        files.write(&tree).unwrap();
        assert_eq!(needs_any(&files), Ok(false));
    }

    #[test]
    fn each_overlay_has_a_socket_of_its_own_and_one_of_before_that_of_its_point() {
        let (_place, files) = left();
        let one = FileNumber(1);
        assert_eq!(files.socket_of(one, &origin()), Ok(files.folder().join("1.offered")));
        let old = files.folder().join("db-3.offered");
        let head = |name: &Path| {
            let name = format!("{}{}", offered::NAME, name.display());
            write_overlay(&mut File::create(files.path(one)).unwrap(), 1 << 20, &name, Format::Raw).unwrap();
        };
        head(&old);
        assert_eq!(files.socket_of(one, &origin()), Ok(old));
        head(Path::new("/elsewhere/db-3.offered")); // A31
        assert_eq!(files.socket_of(one, &origin()), Ok(files.folder().join("1.offered")));
    }
}
