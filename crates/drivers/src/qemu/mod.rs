//! QEMU, launched and adopted by ourselves.
//!
//! VMs outlive the daemon (I7): a process in its own session is started under a lease, written down, and
//! found again by its id, start time and boot. It is dead when the kernel says so, never because it is
//! silent. Orders older than what was durably seen are refused (I3). This driver sees and does; it never
//! decides.

pub mod accel;
mod account;
pub mod agent;
mod ask;
mod backup;
mod bound;
mod capture;
pub mod cgroup;
mod configured;
mod cut;
pub mod event;
mod fleet;
#[cfg(test)]
mod fuzz;
pub mod image;
mod inject;
pub mod job;
mod kept;
pub mod launch;
mod live;
mod look;
mod machine;
mod mapped;
mod memory;
mod needs;
pub mod offered;
mod operate;
pub mod process;
mod program;
pub mod qmp;
mod read;
pub mod reader;
pub mod record;
pub mod sandbox;
mod sign;
pub mod snapshot;
mod spawn;
mod spec;
mod start;
pub mod untrusted;
pub mod wire;

pub use account::{Barrier, why_root};
pub use backup::{Moment, Off, OffEnd, Still};
pub use spec::{Accel, Forward, Kernel, Network, QemuVm};

use crate::snapshots::Snapshots;
use crate::{Driver, DriverError, Glimpse, GuestRead, Injection, Piece, Places, Question};
use async_trait::async_trait;
use fleet::Fleet;
use holdfast_core::action::{Fact, Found, Operation, Order};
use holdfast_core::lease::Lease;
use holdfast_core::point::SnapshotId;
use holdfast_core::policy::Ability;
use holdfast_core::subject::{AppName, VmName};
use machine::Machine;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

/// So many things seen wait to be taken; more wait in the connections they came through.
const SEEN: usize = 256;
/// How long a look at one VM takes at most.
const INSPECT: Duration = Duration::from_secs(3);

/// The driver for VMs under QEMU on this host.
#[derive(Debug)]
pub struct Qemu {
    fleet: Fleet,
    evidence: PathBuf,
    /// One reader; a second one waits for it.
    seen: Mutex<mpsc::Receiver<Glimpse>>,
}

impl Qemu {
    /// Takes these VMs under its wing and adopts those that run. `restarts` are the commands that restart
    /// applications inside their guests; `run_folder` holds records and sockets, `evidence_folder` what
    /// captures keep.
    ///
    /// # Errors
    /// A path is too long for a socket, or a folder cannot be made.
    pub async fn open(
        vms: Vec<QemuVm>,
        restarts: BTreeMap<(VmName, AppName), Vec<String>>,
        run_folder: PathBuf,
        evidence_folder: PathBuf,
    ) -> Result<Self, DriverError> {
        let (out, seen) = mpsc::channel(SEEN);
        let fleet = Fleet::new(run_folder, out);
        let qemu = Self { fleet, evidence: evidence_folder, seen: Mutex::new(seen) };
        qemu.take_on(vms, restarts)?;
        make_folder(&qemu.evidence, 0o700)?;
        Ok(qemu)
    }

    /// Takes these VMs under its wing too, or as they are described now: all of them or, with an error, none.
    /// One that runs goes on as it was started; the answer names those that are something else until their
    /// next start.
    ///
    /// # Errors
    /// As for [`Qemu::open`].
    pub fn take_on(
        &self,
        vms: Vec<QemuVm>,
        restarts: BTreeMap<(VmName, AppName), Vec<String>>,
    ) -> Result<BTreeSet<VmName>, DriverError> {
        let names: Vec<VmName> = vms.iter().map(|vm| vm.name.clone()).collect();
        let later = self.fleet.take_on(vms, restarts)?;
        for machine in names.iter().filter_map(|vm| self.fleet.machine(vm)) {
            tokio::spawn(machine.recover_snapshots());
        }
        Ok(later)
    }

    /// Leaves these VMs alone from now on: they run or rest as they do (I7).
    pub fn let_go(&self, vms: &[VmName]) {
        self.fleet.let_go(vms);
    }

    /// Pauses a VM and saves its memory to a file, for [`QemuVm::memory_state`]. The VM stays paused;
    /// power it off and keep its disk with the file, for they only belong together (I23).
    ///
    /// # Errors
    /// As for [`Driver::perform`].
    pub async fn save_memory(&self, vm: &VmName, to: &Path, limit: Duration) -> Result<(), DriverError> {
        let machine = self.machine(vm)?;
        let deadline = Instant::now() + limit;
        let _turn = machine.turn(deadline).await?;
        let live = machine.running()?;
        let saved = memory::save(&machine, &live, to, deadline).await;
        saved.map_err(|why| machine.unknown("save the memory of", why))
    }

    /// Holds a moment of a running VM's disk still and offers it over NBD.
    ///
    /// # Errors
    /// As for [`Driver::perform`]. Nothing of it is left then, unless QEMU was silent; the next call clears that.
    pub async fn begin_backup(
        &self,
        vm: &VmName,
        still: &Still,
        limit: Duration,
    ) -> Result<Moment, DriverError> {
        self.machine(vm)?.begin_backup(still, limit).await
    }

    /// Offers a moment no more; `made` says whether a point was made of it.
    ///
    /// # Errors
    /// As for [`Driver::perform`]. What is left is cleared by the next call, and no write of the guest is forgotten.
    pub async fn end_backup(
        &self,
        vm: &VmName,
        moment: &Moment,
        made: bool,
        limit: Duration,
    ) -> Result<(), DriverError> {
        self.machine(vm)?.end_backup(moment, made, limit).await
    }

    /// Takes down what an earlier backup left in a running VM's QEMU, as that of a daemon that was killed; harmless if there is
    /// nothing, and while one is under way.
    ///
    /// # Errors
    /// As for [`Driver::perform`].
    pub async fn clear_backup(&self, vm: &VmName, limit: Duration) -> Result<(), DriverError> {
        self.machine(vm)?.clear_backup(limit).await
    }

    /// The images that a snapshot is made of, the top first: to be read, and nothing else.
    ///
    /// # Errors
    /// There is no such snapshot, or what it stands on may not be read.
    pub async fn files_of(&self, vm: &VmName, id: SnapshotId) -> Result<Vec<image::Layer>, DriverError> {
        self.machine(vm)?.files_of_snapshot(id).await
    }

    fn machine(&self, vm: &VmName) -> Result<Arc<Machine>, DriverError> {
        self.fleet.machine(vm).ok_or_else(|| DriverError::NoSuchVm(vm.clone()))
    }
}

/// Makes a folder that only we may look into, and with `0o711` others pass through. One that is there gets that mode.
fn make_folder(folder: &Path, mode: u32) -> Result<(), DriverError> {
    let told = |source| DriverError::Io { what: format!("make the folder {}", folder.display()), source };
    std::fs::create_dir_all(folder).map_err(told)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).map_err(told)
}

#[async_trait]
impl Driver for Qemu {
    fn abilities(&self, vm: &VmName) -> BTreeSet<Ability> {
        let Ok(machine) = self.machine(vm) else { return BTreeSet::new() };
        let wired = machine.is_wired();
        Ability::ALL.into_iter().filter(|&ability| wired || ability != Ability::Link).collect()
    }

    fn places(&self, vm: &VmName) -> Places {
        let Ok(machine) = self.machine(vm) else { return Places::default() };
        let (folder, live) = (&machine.folder, machine.running().ok());
        Places {
            qmp: Some(folder.qmp()),
            console: Some(folder.console()),
            agent: Some(folder.agent()),
            log: Some(folder.log()),
            pid: live.as_ref().map(|live| live.process.pid()),
            incarnation: live.as_ref().map(|live| live.incarnation),
            ports: machine.ports(),
            cut_off: machine.cut_off().map(|socket| cut::why_cut(&socket)),
        }
    }

    async fn inspect(&self, vm: &VmName) -> Result<Found, DriverError> {
        Ok(self.machine(vm)?.inspect(Instant::now() + INSPECT).await)
    }

    async fn perform(&self, vm: &VmName, order: &Order, limit: Duration) -> Result<Fact, DriverError> {
        let machine = self.machine(vm)?;
        match order {
            Order::Rewind { proof, to } => machine.rewind(proof, *to, limit).await.map(|()| Fact::Nothing),
            Order::Start { lease } if lease.vm() == vm => machine.start(lease, limit).await,
            Order::Start { lease } => {
                Err(machine.refused("start", format!("the lease is for `{}`", lease.vm())))
            }
            Order::PowerOff { incarnation, token } => machine.power_off(*incarnation, *token, limit).await,
            Order::Perform { incarnation, token, operation } => {
                let restart = if let Operation::RestartApp(app) = operation {
                    self.fleet.restart(vm, app)
                } else {
                    None
                };
                machine.operate(*incarnation, *token, operation, restart.as_deref(), limit).await
            }
            Order::Capture { incarnation, incident } => {
                machine.capture(*incarnation, *incident, &self.evidence, limit).await
            }
            Order::Reach { .. } => {
                Err(DriverError::Unable("look into a repository of backups, which a start may need"))
            }
            Order::Inspect | Order::TakeLease { .. } | Order::Adopt { .. } | Order::ReleaseLease { .. } => {
                Err(DriverError::Unable("take orders about leases and inspections"))
            }
        }
    }

    async fn poll(&self, vm: &VmName, limit: Duration) -> Vec<Glimpse> {
        match self.machine(vm) {
            Ok(machine) => machine.poll(limit).await,
            Err(_) => Vec::new(),
        }
    }

    async fn ask(&self, vm: &VmName, question: &Question, limit: Duration) -> Vec<Glimpse> {
        match self.machine(vm) {
            Ok(machine) => machine.ask(question, limit).await,
            Err(_) => Vec::new(),
        }
    }

    async fn read(&self, vm: &VmName, what: &GuestRead, limit: Duration) -> Result<Piece, DriverError> {
        self.machine(vm)?.read(what, limit).await
    }

    async fn next_event(&self) -> Glimpse {
        match self.seen.lock().await.recv().await {
            Some(glimpse) => glimpse,
            // The fleet holds a sender, so this is never.
            None => std::future::pending().await,
        }
    }

    async fn refuse_start(&self, vm: &VmName, lease: &Lease, limit: Duration) -> Result<(), DriverError> {
        self.machine(vm)?.refuse_start(lease, limit).await
    }

    async fn may_restart(&self, vm: &VmName) -> Result<(), DriverError> {
        self.machine(vm)?.may_restart().await
    }

    async fn may_start(&self, vm: &VmName) -> Result<(), DriverError> {
        let machine = self.machine(vm)?;
        machine.has_the_rest().await.map_err(|why| machine.refused(start::START, why))
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    async fn inject(&self, vm: &VmName, fault: &Injection) -> Result<(), DriverError> {
        self.machine(vm)?.inject(fault).await
    }
}
