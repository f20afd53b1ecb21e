//! Snapshots, for hypervisors that can take them.

use crate::DriverError;
use async_trait::async_trait;
use holdfast_core::action::Rewind;
use holdfast_core::point::{Snapshot, SnapshotId, Trial};
use holdfast_core::subject::VmName;
use holdfast_core::written::Marks;
use std::time::Duration;

/// What a hypervisor can do with snapshots. Going back to one is an order like any other
/// ([`holdfast_core::action::Order::Rewind`]), as it needs a death.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// The snapshots of a VM, oldest first.
    ///
    /// # Errors
    /// The record of them cannot be read.
    async fn list(&self, vm: &VmName) -> Result<Vec<Listed>, DriverError>;

    /// Takes one.
    ///
    /// # Errors
    /// As for [`crate::Driver::perform`]. The VM runs on as before in every case that is known.
    async fn take(&self, vm: &VmName, wanted: Wanted, limit: Duration) -> Result<Taken, DriverError>;

    /// Forgets one: from now on nobody can go back to it. Its room is given back by [`Snapshots::tidy`].
    ///
    /// # Errors
    /// There is none of that number, or it cannot be written down; then it is still there.
    async fn forget(&self, vm: &VmName, id: SnapshotId, limit: Duration) -> Result<(), DriverError>;

    /// Notes what a trial of one showed.
    ///
    /// # Errors
    /// There is none of that number, or it cannot be written down; then what was known before still is.
    async fn note_trial(
        &self,
        vm: &VmName,
        id: SnapshotId,
        trial: Trial,
        limit: Duration,
    ) -> Result<(), DriverError>;

    /// Gives back the room that no snapshot needs any more, at most `rate` bytes a second (0: as fast as it goes).
    /// `told` hears how far it is. Whether something is left that has to wait until the VM runs.
    ///
    /// # Errors
    /// As for [`crate::Driver::perform`]. Whatever was broken off is gone on with the next time.
    async fn tidy(&self, vm: &VmName, rate: u64, told: &Watcher<'_>) -> Result<bool, DriverError>;

    /// Whether [`Snapshots::tidy`] has something to do now: snapshots were deleted, or a merge was broken off.
    ///
    /// # Errors
    /// The record of its snapshots cannot be read.
    async fn is_untidy(&self, vm: &VmName) -> Result<bool, DriverError>;

    /// Whether it can be gone back to this, asked before anything is ended. Whether there is such a backup is for others to see.
    ///
    /// # Errors
    /// [`DriverError::Refused`] with the reason.
    async fn may_rewind(&self, vm: &VmName, to: Rewind) -> Result<(), DriverError>;
}

/// Hears how far a merge is.
pub type Watcher<'a> = dyn Fn(Merged) + Send + Sync + 'a;

/// How far a merge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Bytes that are merged.
    pub done: u64,
    /// Bytes in all; it may grow while the VM writes.
    pub total: u64,
}

/// What is wanted of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Save the memory, too. The VM stands still meanwhile, and needs no freeze.
    pub memory: bool,
    /// Freeze the guest's file systems through its agent for the moment in which it is taken.
    pub freeze: bool,
    /// Commands in the guest before that, as a checkpoint of a database. One that fails is told, and the snapshot is
    /// taken all the same.
    pub hooks: Vec<Vec<String>>,
    /// It is taken by schedule, and may go by schedule.
    pub scheduled: bool,
    /// What it is, for people.
    pub note: String,
    /// What the applications had written by now.
    pub written: Marks,
}

/// A snapshot that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// It.
    pub snapshot: Snapshot,
    /// For so long the guest's writes had to wait: it was frozen, or stood still.
    pub stall: Duration,
    /// What did not go as it should, for people.
    pub warnings: Vec<String>,
}

/// A snapshot with what it costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Bytes that its frozen file takes. For the first one that is the configured disk.
    pub disk_bytes: u64,
    /// The VM's disk stands on it now.
    pub is_below: bool,
}
