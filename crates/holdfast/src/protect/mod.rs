//! Restore points: taken, listed, gone back to, given up.
//!
//! What is done to the VM is announced to the engine first, so that what it explains is taken for no fault.

mod held;
mod schedule;
mod snapshots;
mod told;

pub use held::Held;
pub use snapshots::Request;
pub use told::Saved;

use crate::config::Config;
use crate::decide::Inbox;
use holdfast_core::action::{Wish, Work};
use holdfast_core::subject::VmName;
use holdfast_core::time::Duration;
use holdfast_core::written::Marks;
use holdfast_drivers::snapshots::Merged;
use holdfast_drivers::{Driver, DriverError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Looks after restore points. Clones share what is under way.
#[derive(Clone)]
pub struct Protector {
    driver: Arc<dyn Driver>,
    inbox: Inbox,
    config: watch::Receiver<Arc<Config>>,
    merging: Arc<Mutex<BTreeMap<VmName, Merged>>>,
    told: Arc<Mutex<told::Told>>,
    saved: Arc<Mutex<told::AllSaved>>,
    watched: Arc<Mutex<schedule::Watched>>,
    holds: held::Holds,
}

/// Why something about restore points was not done.
#[derive(Debug, thiserror::Error)]
pub enum ProtectError {
    /// There is no such VM.
    #[error("there is no vm `{0}`")]
    NoSuchVm(VmName),
    /// Its hypervisor has no snapshots.
    #[error("its hypervisor takes no snapshots")]
    Unable,
    /// The driver did not.
    #[error(transparent)]
    Driver(#[from] holdfast_drivers::DriverError),
    /// The engine did not.
    #[error("{0}")]
    Refused(String),
    /// The daemon ends.
    #[error(transparent)]
    Stopping(#[from] crate::decide::Stopping),
}

impl ProtectError {
    /// The way out, where it is another than to look how it stands.
    pub fn way_out(&self) -> Option<String> {
        let Self::Driver(DriverError::CutOff { vm, .. }) = self else { return None };
        Some(format!(
            "`holdfast vm restart {vm}` gives it a new one; that cuts its power where its guest agent cannot be asked either"
        ))
    }
}

impl Protector {
    /// One for the VMs of this configuration. It tells the engine of their snapshots, and takes those that are due,
    /// until the daemon stops.
    pub fn start(
        driver: &Arc<dyn Driver>,
        inbox: &Inbox,
        config: &watch::Receiver<Arc<Config>>,
        stop: &CancellationToken,
    ) -> Self {
        let (driver, inbox, config) = (Arc::clone(driver), inbox.clone(), config.clone());
        let (merging, told, saved, watched, holds) = Default::default();
        let protector = Self { driver, inbox, config, merging, told, saved, watched, holds };
        tokio::spawn(protector.clone().keep_telling(stop.clone()));
        tokio::spawn(protector.clone().keep_schedule(stop.clone()));
        protector
    }

    /// A backup reads a moment of this VM's disk, until what is returned is dropped. Its driver takes no snapshot of it meanwhile.
    pub fn hold(&self, vm: &VmName) -> Held {
        self.holds.hold(vm)
    }

    /// How far the merge of a VM's deleted snapshots is, if one is under way.
    pub fn merging(&self, vm: &VmName) -> Option<Merged> {
        self.merging.lock().unwrap_or_else(PoisonError::into_inner).get(vm).copied()
    }

    fn note_merge(&self, vm: &VmName, merged: Option<Merged>) {
        let mut merging = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        match merged {
            Some(merged) => drop(merging.insert(vm.clone(), merged)),
            None => drop(merging.remove(vm)),
        }
    }

    /// Tells the engine that the VM is about to be disturbed for so long at most.
    pub async fn announce(
        &self,
        by: &str,
        vm: &VmName,
        work: Work,
        lasts: Duration,
    ) -> Result<(), ProtectError> {
        let now = self.inbox.look(|desk| desk.clock.now()).await?;
        self.command(by, vm, Wish::Announce { work, until: now + lasts }).await
    }

    /// Tells it that this is over.
    pub async fn work_done(&self, by: &str, vm: &VmName, work: Work) {
        if let Err(error) = self.command(by, vm, Wish::WorkDone(work)).await {
            tracing::debug!(%vm, %error, "the announced work was over before");
        }
    }

    /// What the applications of a VM have written by now, of those that tell.
    pub async fn written(&self, vm: &VmName) -> Marks {
        let vm = vm.clone();
        self.inbox.look(move |desk| desk.engine.written(&vm)).await.unwrap_or_default()
    }

    async fn command(&self, by: &str, vm: &VmName, wish: Wish) -> Result<(), ProtectError> {
        match self.inbox.command(by, vm.clone(), wish).await?.refused {
            None => Ok(()),
            Some(why) => Err(ProtectError::Refused(why)),
        }
    }
}
