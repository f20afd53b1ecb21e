//! Going back to a backup, while the VM is dead: an overlay that stands on the backup takes the place of the disk, and the
//! VM starts from it while its blocks come in. Whoever offers the backup, and has QEMU copy it, is not here.

use super::super::{Qemu, offered};
use super::rewind::{REWIND, set_aside};
use super::tree::{Origin, Tree};
use crate::DriverError;
use crate::qemu::launch::Format;
use crate::qemu::machine::Machine;
use holdfast_core::lease::DeathProof;
use holdfast_core::subject::VmName;
use std::path::PathBuf;
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

impl Machine {
    /// Makes a backup, whose disk has `size` bytes, what the next start finds. What was there is kept as a snapshot, so
    /// nothing is lost (I15), and where the disk is not there any more, nothing is in the way.
    async fn restore(
        &self,
        dead: &DeathProof,
        origin: Origin,
        size: u64,
        limit: Duration,
    ) -> Result<Incoming, DriverError> {
        let deadline = Instant::now() + limit;
        let _one = self.snapshot_turn(REWIND, deadline).await?;
        let _turn = self.turn(deadline).await?;
        self.must_be_dead(dead)?;
        let gone = !self.spec().disk.exists();
        let unknown = self.on_disk(REWIND, move |files| Ok(gone && files.read()?.is_none())).await?;
        let mut tree = if unknown { Tree::of(Format::Qcow2) } else { self.settled_tree(REWIND).await? };
        self.files().skip_left(&mut tree);
        let aside = set_aside(&tree, format!("what it was before backup {} took its place", origin.point));
        let number = tree.begin();
        let begun = tree.clone();
        tree.restore(origin.clone(), aside);
        self.on_disk(REWIND, move |files| {
            let told = |e: std::io::Error| format!("cannot make its overlay: {e}");
            files.make_folder().map_err(told)?;
            files.make_root(&begun, number, &origin, size).map_err(told)?;
            files.write(&tree)?; // only this changes what a start finds
            Ok(Incoming { file: files.path(number), socket: files.socket(&origin), origin, is_offered: true })
        })
        .await
    }

    /// What its disk needs of a backup still, if anything.
    async fn incoming(&self) -> Result<Option<Incoming>, DriverError> {
        self.on_disk(LOOK, |files| {
            let Some(tree) = files.read()? else { return Ok(None) };
            let Some((file, origin)) = tree.restored() else { return Ok(None) };
            if !files.needs_backup(file)? {
                return Ok(None);
            }
            let socket = files.socket(origin);
            let is_offered = offered::is_there(&socket);
            Ok(Some(Incoming { origin: origin.clone(), file: files.path(file), socket, is_offered }))
        })
        .await
    }

    /// What needs a backup is not whole: nothing is made of it as if it were.
    pub(super) async fn must_be_whole(&self, what: &'static str, tree: &Tree) -> Result<(), DriverError> {
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
        origin: Origin,
        size: u64,
        limit: Duration,
    ) -> Result<Incoming, DriverError> {
        self.machine(vm)?.restore(dead, origin, size, limit).await
    }

    /// Where this backup has to be offered for a VM's disk to stand on it. Its folder is made.
    ///
    /// # Errors
    /// The VM is not known, or the folder cannot be made.
    pub fn offer_place(&self, vm: &VmName, origin: &Origin) -> Result<PathBuf, DriverError> {
        let files = self.machine(vm)?.files();
        let told = |source| DriverError::Io { what: format!("make {}", files.folder().display()), source };
        files.make_folder().map_err(told)?;
        Ok(files.socket(origin))
    }

    /// What the disk of a VM needs of a backup still, if anything.
    ///
    /// # Errors
    /// The record of its files cannot be read.
    pub async fn incoming(&self, vm: &VmName) -> Result<Option<Incoming>, DriverError> {
        self.machine(vm)?.incoming().await
    }
}
