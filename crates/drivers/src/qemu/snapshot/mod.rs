//! Snapshots: the disk of a VM as it was, with or without its memory, kept beside the disk.
//!
//! A snapshot is taken in the moment in which an empty overlay is put on top of the disk; from then on the file below
//! is frozen. What was begun is on record before QEMU hears of it, so whoever dies when, one of two things is true: the
//! overlay is not on top and empty, or it is and holds all that was written since. An empty overlay shows what it stands
//! on, so a start may always take it.

mod files;
pub mod freeze;
mod guard;
mod live;
mod merge;
mod moment;
pub mod qcow2;
mod record;
mod restore;
mod rewind;
mod still;
mod sweep;
mod take;
pub mod tree;

pub use files::Files;
pub use live::{is_disk_node, node_of};
pub use merge::merges;
pub use record::Turn;
pub use restore::{Incoming, Place, is_in_use};
pub use rewind::Opened;
pub use take::now;
pub use tree::Origin;

use super::Qemu;
use super::configured::SnapshotTurn;
use super::image::{self, Layer};
use super::machine::{Machine, error_chain};
use super::start::on_top;
use crate::DriverError;
use crate::snapshots::{Listed, Merged, Snapshots, Taken, Wanted, Watcher};
use async_trait::async_trait;
use holdfast_core::action::Rewind;
use holdfast_core::point::{SnapshotId, Trial};
use holdfast_core::subject::VmName;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use take::TAKE;
use tokio::time::Instant;
use tree::Tree;

/// So many files may stand on each other. Each costs a look at every read of what was never written since.
pub const CHAIN_MOST: usize = 16;
const LIST: &str = "list the snapshots of";
const NOTE: &str = "note what was proved of a snapshot of";
const READ: &str = "read a snapshot of";

impl Machine {
    /// The files of its disk.
    #[must_use]
    pub fn files(&self) -> Files {
        self.files_at(&self.disk())
    }

    /// The files of a disk that it has, or will have.
    fn files_at(&self, disk: &Path) -> Files {
        Files::in_turn(disk, Arc::clone(&self.record_turn))
    }

    /// Its snapshots, oldest first.
    ///
    /// # Errors
    /// The record of them cannot be read.
    pub async fn list_snapshots(&self) -> Result<Vec<Listed>, DriverError> {
        let files = self.files();
        let listed = tokio::task::spawn_blocking(move || {
            let Some(tree) = files.read()? else { return Ok(Vec::new()) };
            let chain = tree.chain();
            let listed = tree.snapshots().map(|snapshot| {
                let file = tree.file_of(snapshot.id).unwrap_or_default();
                let (disk_bytes, is_below) = (files.bytes(file), chain.contains(&file));
                Listed { snapshot: snapshot.clone(), disk_bytes, is_below }
            });
            Ok(listed.collect())
        });
        let listed = listed.await.map_err(|e| self.refused(LIST, e.to_string()))?;
        listed.map_err(|why: String| self.refused(LIST, why))
    }

    /// What a snapshot is made of, the top first. Nobody writes to any of it while the snapshot is there.
    ///
    /// # Errors
    /// There is no such snapshot, or what it stands on may not be read.
    pub async fn files_of_snapshot(&self, id: SnapshotId) -> Result<Vec<Layer>, DriverError> {
        let (spec, others) = (self.spec_of_disk(), self.disks_of_others());
        self.on_disk(READ, move |files| {
            let tree = files.read_or_new()?;
            let file = tree.file_of(id).ok_or_else(|| format!("it has no snapshot {id}"))?;
            let (spec, known) = on_top(&spec, &files.path(file));
            image::check(&spec, known, &others).map_err(|error| error_chain(&error))
        })
        .await
    }

    /// Notes what a trial of a snapshot showed.
    ///
    /// # Errors
    /// There is no such snapshot, or it cannot be written down.
    pub async fn note_trial(&self, id: SnapshotId, trial: Trial, limit: Duration) -> Result<(), DriverError> {
        let _one = self.snapshot_turn(NOTE, Instant::now() + limit).await?;
        let mut tree = self.settled_tree(NOTE).await?;
        let unknown = || self.refused(NOTE, format!("it has no snapshot {id}"));
        tree.snapshot_mut(id).ok_or_else(unknown)?.trial = Some(trial);
        self.note_tree(NOTE, &tree).await
    }

    /// Waits for the turn to change snapshots.
    pub(super) async fn snapshot_turn(
        &self,
        what: &'static str,
        deadline: Instant,
    ) -> Result<SnapshotTurn<'_>, DriverError> {
        let turn = tokio::time::timeout_at(deadline, self.snapshots.acquire()).await;
        let busy = || self.refused(what, "another snapshot is being taken or merged");
        turn.ok().and_then(Result::ok).map(|one| self.snapshots_from_now(one)).ok_or_else(busy)
    }

    /// Does something with files, where it may wait for the disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Files) -> Result<T, String> + Send + 'static,
    ) -> Result<T, DriverError> {
        self.with_files(what, self.files(), work).await
    }

    async fn with_files<T: Send + 'static>(
        &self,
        what: &'static str,
        files: Files,
        work: impl FnOnce(&Files) -> Result<T, String> + Send + 'static,
    ) -> Result<T, DriverError> {
        let done = tokio::task::spawn_blocking(move || work(&files)).await;
        done.map_err(|e| self.refused(what, e.to_string()))?.map_err(|why| self.refused(what, why))
    }

    /// Writes down what the disk is made of now.
    async fn note_tree(&self, what: &'static str, tree: &Tree) -> Result<(), DriverError> {
        let tree = tree.clone();
        self.on_disk(what, move |files| files.write(&tree)).await
    }

    /// What was under way when a daemon before us ended is brought to its end: a VM that only waits for us runs on.
    pub async fn recover_snapshots(self: Arc<Self>) {
        freeze::thaw_left(&self).await;
        if !self.files().folder().exists() {
            return;
        }
        if let Err(error) = self.settle_running().await {
            let error = error_chain(&error);
            tracing::warn!(vm = %self.name, error, "a snapshot that was under way is not settled");
        }
        self.tell_if_astray().await;
        self.settle_later();
    }
}

#[async_trait]
impl Snapshots for Qemu {
    async fn list(&self, vm: &VmName) -> Result<Vec<Listed>, DriverError> {
        self.machine(vm)?.list_snapshots().await
    }

    async fn take(&self, vm: &VmName, wanted: Wanted, limit: Duration) -> Result<Taken, DriverError> {
        let (name, machine) = (vm.clone(), self.machine(vm)?);
        // Done to its end, whoever stops waiting for it: the guest may stand still meanwhile.
        let taking = tokio::spawn(async move {
            let taken = Arc::clone(&machine).take_snapshot(wanted, limit).await;
            machine.settle_later();
            taken
        });
        let lost =
            |e: tokio::task::JoinError| DriverError::Unknown { what: TAKE, vm: name, why: e.to_string() };
        taking.await.map_err(lost)?
    }

    async fn forget(&self, vm: &VmName, id: SnapshotId, limit: Duration) -> Result<(), DriverError> {
        self.machine(vm)?.forget_snapshot(id, limit).await
    }

    async fn note_trial(
        &self,
        vm: &VmName,
        id: SnapshotId,
        trial: Trial,
        limit: Duration,
    ) -> Result<(), DriverError> {
        self.machine(vm)?.note_trial(id, trial, limit).await
    }

    async fn tidy(&self, vm: &VmName, rate: u64, told: &Watcher<'_>) -> Result<bool, DriverError> {
        let tell = |merge: &merge::Merge| told(Merged { done: merge.done, total: merge.total });
        let machine = self.machine(vm)?;
        let tidied = Arc::clone(&machine).tidy(rate, tell).await;
        machine.settle_later();
        tidied
    }

    async fn is_untidy(&self, vm: &VmName) -> Result<bool, DriverError> {
        self.machine(vm)?.is_untidy().await
    }

    async fn may_rewind(&self, vm: &VmName, to: Rewind) -> Result<(), DriverError> {
        self.machine(vm)?.may_rewind(to).await
    }
}
