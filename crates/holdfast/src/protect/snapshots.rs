//! Snapshots: near, fast, and lost with the disk.

use super::{ProtectError, Protector};
use crate::config::VmConfig;
use holdfast_core::action::{Rewind, Wish, Work};
use holdfast_core::incident::IncidentId;
use holdfast_core::point::{PointId, SnapshotId, Trial};
use holdfast_core::subject::VmName;
use holdfast_core::time::Duration;
use holdfast_drivers::snapshots::{Listed, Snapshots, Taken, Wanted};
use holdfast_drivers::{DriverError, FREEZE};

/// A snapshot may take so long: a memory of many GiB is written meanwhile.
const TAKE: Duration = Duration::from_secs(600);
/// To forget one may take so long.
pub(super) const FORGET: Duration = Duration::from_secs(30);
/// A merge is announced for so long, and again.
const MERGE: Duration = Duration::from_secs(6 * 3_600);
/// Bytes a second that a merge writes at most, so that the VM has its share of the disk.
const MERGE_RATE: u64 = 100 << 20;

/// What a person asks for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// With its memory.
    pub memory: bool,
    /// Whether its file systems are frozen meanwhile. `None`: if its agent can, and no memory is saved.
    pub freeze: Option<bool>,
    /// What it is, for people.
    pub note: String,
    /// It is taken by schedule, and may go by schedule.
    pub scheduled: bool,
}

impl Protector {
    fn snapshots(&self) -> Result<&dyn Snapshots, ProtectError> {
        self.driver.snapshots().ok_or(ProtectError::Unable)
    }

    fn must_know(&self, vm: &VmName) -> Result<(), ProtectError> {
        let known = self.config.borrow().vms.contains_key(vm);
        known.then_some(()).ok_or_else(|| ProtectError::NoSuchVm(vm.clone()))
    }

    /// The snapshots of a VM, oldest first.
    pub async fn list(&self, vm: &VmName) -> Result<Vec<Listed>, ProtectError> {
        self.must_know(vm)?;
        Ok(self.snapshots()?.list(vm).await?)
    }

    /// Takes one. It is brought to its end, whoever stops waiting for it.
    pub async fn take(&self, by: &str, vm: &VmName, request: Request) -> Result<Taken, ProtectError> {
        self.must_know(vm)?;
        let (protector, by, vm) = (self.clone(), by.to_owned(), vm.clone());
        let taking = tokio::spawn(async move {
            protector.announce(&by, &vm, Work::Snapshot, TAKE).await?;
            let taken = protector.take_announced(&vm, request).await;
            protector.work_done(&by, &vm, Work::Snapshot).await;
            protector.tell(&vm).await;
            taken
        });
        taking.await.map_err(|error| ProtectError::Refused(format!("it broke off: {error}")))?
    }

    async fn take_announced(&self, vm: &VmName, request: Request) -> Result<Taken, ProtectError> {
        let Request { memory, freeze, note, scheduled } = request;
        let hooks = self.config.borrow().vms.get(vm).map(VmConfig::hooks).unwrap_or_default();
        let wish = freeze.unwrap_or(!memory);
        let written = self.written(vm).await;
        let wanted = Wanted { memory, freeze: wish, hooks, scheduled, note, written };
        let taken = self.snapshots()?.take(vm, wanted.clone(), TAKE).await;
        match taken {
            // A guest without an agent, or one that is off: the disk is as after a power cut, and that is said.
            Err(DriverError::Refused { what: FREEZE, why, .. }) if wish && freeze.is_none() => {
                let plain = Wanted { freeze: false, ..wanted };
                let mut taken = self.snapshots()?.take(vm, plain, TAKE).await?;
                taken.warnings.push(format!("its file systems were not frozen: {why}"));
                Ok(taken)
            }
            taken => Ok(taken?),
        }
    }

    /// Forgets one. Its room is given back in the background.
    pub async fn forget(&self, by: &str, vm: &VmName, id: SnapshotId) -> Result<(), ProtectError> {
        self.must_know(vm)?;
        self.snapshots()?.forget(vm, id, FORGET).await?;
        self.tell(vm).await;
        self.begin_tidy(by, vm);
        Ok(())
    }

    /// Notes what a trial of one showed. The engine is told.
    pub async fn note_trial(&self, vm: &VmName, id: SnapshotId, trial: Trial) -> Result<(), ProtectError> {
        self.snapshots()?.note_trial(vm, id, trial, FORGET).await?;
        self.tell(vm).await;
        Ok(())
    }

    /// Begins to give the room of forgotten snapshots back. While other work of its snapshots is under way, that does it, or the
    /// next look of the schedule.
    pub(super) fn begin_tidy(&self, by: &str, vm: &VmName) {
        let Some(busy) = self.take_up(vm) else { return };
        let (protector, by, vm) = (self.clone(), by.to_owned(), vm.clone());
        tokio::spawn(async move {
            protector.tidy(&by, &vm).await;
            drop(busy);
        });
    }

    /// Gives the room of forgotten snapshots back.
    pub(super) async fn tidy(&self, by: &str, vm: &VmName) {
        let Ok(snapshots) = self.snapshots() else { return };
        self.note_tidied(vm);
        if let Err(error) = self.announce(by, vm, Work::Snapshot, MERGE).await {
            tracing::warn!(%vm, %error, "the room of deleted snapshots is given back later");
            return;
        }
        let told = |merged| self.note_merge(vm, Some(merged));
        let tidied = snapshots.tidy(vm, MERGE_RATE, &told).await;
        self.note_merge(vm, None);
        self.work_done(by, vm, Work::Snapshot).await;
        match tidied {
            Ok(false) => tracing::info!(%vm, "the room of deleted snapshots is free"),
            Ok(true) => tracing::info!(%vm, "the room of deleted snapshots is given back once the vm runs"),
            Err(error) => {
                let error = crate::act::chain(&error);
                tracing::warn!(%vm, error, "the room of deleted snapshots is given back later");
            }
        }
    }

    /// Has the engine end the VM, go back, and start it. What can be refused is refused before anything is ended; whether there
    /// is such a backup is for the caller to see.
    pub async fn revert(&self, by: &str, vm: &VmName, to: Rewind) -> Result<(), ProtectError> {
        self.must_know(vm)?;
        self.snapshots()?.may_rewind(vm, to).await?;
        self.command(by, vm, Wish::Rewind(to)).await
    }
}

impl Protector {
    /// A person agrees that an incident is ended by going back to a snapshot, whatever that loses: to this one, or to the
    /// best.
    pub async fn approve(
        &self,
        by: &str,
        vm: &VmName,
        incident: IncidentId,
        to: Option<PointId>,
    ) -> Result<(), ProtectError> {
        self.tell(vm).await;
        self.command(by, vm, Wish::Approve { incident, to }).await
    }
}
