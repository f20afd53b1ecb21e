//! What a VM was started as, and what it is configured to be from its next start on.

use super::live::Life;
use super::machine::Machine;
use super::spec::{Network, QemuVm};
use holdfast_core::subject::VmName;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio::sync::SemaphorePermit;

/// The disks of all VMs, each with its owner.
pub type Disks = Arc<[(VmName, PathBuf)]>;

/// What it is.
#[derive(Debug)]
pub struct Specs {
    /// As configured last: the next start takes this.
    wanted: Arc<QemuVm>,
    /// As it was started last, as far as we know.
    started: Arc<QemuVm>,
    /// The disk whose snapshots are being changed.
    changing: Option<PathBuf>,
    /// The disks of all VMs; it may stand on no other's.
    disks: Disks,
}

impl Specs {
    /// As it is configured first.
    pub fn of(spec: QemuVm) -> Self {
        let wanted = Arc::new(spec);
        Self { started: Arc::clone(&wanted), wanted, changing: None, disks: Arc::from([]) }
    }

    /// Its own disk is not among them, though a VM that was let go had it before, as after it was renamed: whether that one
    /// still writes to it is asked by every start.
    fn others(&self, than: &VmName) -> Vec<PathBuf> {
        let others = self.disks.iter().filter(|(owner, disk)| owner != than && *disk != self.wanted.disk);
        others.map(|(_, disk)| disk.clone()).collect()
    }
}

/// The turn to change snapshots. Until it is over they are those of the disk that it began with.
#[must_use]
#[derive(Debug)]
pub struct SnapshotTurn<'a> {
    machine: &'a Machine,
    _one: SemaphorePermit<'a>,
}

impl Drop for SnapshotTurn<'_> {
    fn drop(&mut self) {
        self.machine.specs().changing = None;
    }
}

impl Machine {
    /// What it is to be from its next start on.
    pub fn spec(&self) -> Arc<QemuVm> {
        Arc::clone(&self.specs().wanted)
    }

    /// What it was started as last, as far as we know.
    pub fn spec_started(&self) -> Arc<QemuVm> {
        Arc::clone(&self.specs().started)
    }

    /// As [`Machine::spec`], for a start: from now on it is what was started. With the disks of the others.
    pub fn spec_to_start(&self) -> (Arc<QemuVm>, Vec<PathBuf>) {
        let mut specs = self.specs();
        specs.started = Arc::clone(&specs.wanted);
        (Arc::clone(&specs.wanted), specs.others(&self.name))
    }

    /// The disk that it has: that of the QEMU that runs, and where none does that of its next start. While its snapshots are
    /// changed it is the one that they are of, whatever is configured meanwhile, and whoever ends.
    pub fn disk(&self) -> PathBuf {
        let is_down = matches!(&*self.life.borrow(), Life::Dead(_));
        let specs = self.specs();
        let own = if is_down { &specs.wanted } else { &specs.started };
        specs.changing.as_ref().unwrap_or(&own.disk).clone()
    }

    /// What it is with that disk.
    pub(super) fn spec_of_disk(&self) -> Arc<QemuVm> {
        let (started, disk) = (self.spec_started(), self.disk());
        if started.disk == disk { started } else { self.spec() }
    }

    /// The turn to change snapshots, of the disk that it has now.
    pub(super) fn snapshots_from_now<'a>(&'a self, one: SemaphorePermit<'a>) -> SnapshotTurn<'a> {
        let disk = self.disk();
        self.specs().changing = Some(disk);
        SnapshotTurn { machine: self, _one: one }
    }

    /// Its next start takes the disk that it was started with last. What was decided of that disk is done to no other.
    ///
    /// # Errors
    /// A sentence, if it takes another.
    pub(super) fn must_keep_its_disk(&self) -> Result<(), String> {
        let (started, wanted) = (self.spec_started(), self.spec());
        if started.disk == wanted.disk {
            return Ok(());
        }
        Err(format!(
            "it was started with {}, and is configured to start with another disk, {}: start it with that one first, or \
             configure the one that it had",
            started.disk.display(),
            wanted.disk.display()
        ))
    }

    /// A person decides what becomes of the disk of one that does not run: that is the one of its next start.
    pub(super) fn take_wanted_disk_if_down(&self) {
        if self.running().is_err_and(|error| matches!(error, crate::DriverError::NotRunning(_)))
            && !self.has_order()
        {
            let mut specs = self.specs();
            specs.started = Arc::clone(&specs.wanted);
        }
    }

    /// The disks of the other VMs.
    pub fn disks_of_others(&self) -> Vec<PathBuf> {
        self.specs().others(&self.name)
    }

    /// It is to be this from its next start on. Whether it runs, or may, as something else until then.
    pub fn configure(&self, spec: QemuVm) -> bool {
        let mut specs = self.specs(); // a start has its turn before it takes the spec
        let idle = !self.has_order();
        let down = idle && matches!(&*self.life.borrow(), Life::Dead(_));
        specs.wanted = Arc::new(spec);
        if down {
            specs.started = Arc::clone(&specs.wanted);
        }
        specs.started != specs.wanted
    }

    /// The disks it has: the one it was started with, and the one it is to have.
    pub fn disks(&self) -> Vec<PathBuf> {
        let specs = self.specs();
        let mut disks = vec![specs.started.disk.clone(), specs.wanted.disk.clone()];
        disks.dedup();
        disks
    }

    /// It may stand on no disk of another VM.
    pub fn respect(&self, disks: Disks) {
        self.specs().disks = disks;
    }

    /// Whether it has a network card, and will have one.
    pub fn is_wired(&self) -> bool {
        let specs = self.specs();
        specs.started.network != Network::None && specs.wanted.network != Network::None
    }

    fn specs(&self) -> MutexGuard<'_, Specs> {
        self.specs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
