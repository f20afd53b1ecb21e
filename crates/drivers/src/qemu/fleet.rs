//! Which VMs this driver looks after: a set that a new configuration may change while they run.
//!
//! A VM that is let go stays known, and nothing is done to it: if it is taken on again while an order from
//! before is still under way, that order and the new ones take turns as before.

use super::configured::Disks;
use super::launch::RunFolder;
use super::machine::{Machine, Starts};
use super::make_folder;
use super::spec::QemuVm;
use crate::{DriverError, Glimpse};
use holdfast_core::subject::{AppName, VmName};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use tokio::sync::mpsc;

/// A Unix socket's path has so many bytes at most (`man 7 unix`).
const SOCKET_PATH: usize = 107;

/// The VMs.
#[derive(Debug)]
pub struct Fleet {
    run_folder: PathBuf,
    out: mpsc::Sender<Glimpse>,
    members: RwLock<Members>,
}

/// The commands that restart applications inside their guests.
type Restarts = BTreeMap<(VmName, AppName), Vec<String>>;

#[derive(Debug, Default)]
struct Members {
    machines: BTreeMap<VmName, Arc<Machine>>,
    let_go: BTreeMap<VmName, Arc<Machine>>,
    restarts: Restarts,
}

impl Fleet {
    /// None yet.
    pub fn new(run_folder: PathBuf, out: mpsc::Sender<Glimpse>) -> Self {
        Self { run_folder, out, members: RwLock::default() }
    }

    /// One of them.
    pub fn machine(&self, vm: &VmName) -> Option<Arc<Machine>> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).machines.get(vm).cloned()
    }

    /// How an application is restarted inside its guest.
    pub fn restart(&self, vm: &VmName, app: &AppName) -> Option<Vec<String>> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.restarts.get(&(vm.clone(), app.clone())).cloned()
    }

    /// Takes these on, or knows them as described now; the answer names those that are something else until
    /// their next start.
    ///
    /// # Errors
    /// A path is too long, or a folder cannot be made: then nothing has changed.
    pub fn take_on(&self, vms: Vec<QemuVm>, restarts: Restarts) -> Result<BTreeSet<VmName>, DriverError> {
        let mut fresh = BTreeMap::new();
        let starts = Starts::now();
        make_folder(&self.run_folder, 0o711)?;
        for vm in vms.iter().filter(|vm| self.known(&vm.name).is_none()) {
            let folder = RunFolder::of(&self.run_folder, &vm.name);
            if folder.control().as_os_str().len() > SOCKET_PATH {
                let why = format!("its sockets would have too long a path: {}", folder.control().display());
                return Err(DriverError::Refused { what: "watch over", vm: vm.name.clone(), why });
            }
            make_folder(folder.path(), 0o711)?;
            let machine = Machine::open(vm.clone(), folder, self.out.clone(), &starts);
            fresh.insert(vm.name.clone(), Arc::new(machine));
        }
        let mut later = BTreeSet::new();
        let mut members = self.members();
        members.restarts = restarts;
        for vm in vms {
            let name = vm.name.clone();
            let known = members.let_go.remove(&name).or_else(|| members.machines.get(&name).cloned());
            let Some(machine) = known.or_else(|| fresh.remove(&name)) else { continue };
            if machine.configure(vm) {
                later.insert(name.clone());
            }
            members.machines.insert(name, machine);
        }
        members.tell_the_disks();
        Ok(later)
    }

    /// Leaves these alone from now on.
    pub fn let_go(&self, vms: &[VmName]) {
        let mut members = self.members();
        for vm in vms {
            if let Some(machine) = members.machines.remove(vm) {
                members.let_go.insert(vm.clone(), machine);
            }
        }
    }

    fn known(&self, vm: &VmName) -> Option<Arc<Machine>> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.machines.get(vm).or_else(|| members.let_go.get(vm)).cloned()
    }

    fn members(&self) -> RwLockWriteGuard<'_, Members> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    /// Tells each VM whose disks it may not stand on; those that were let go may still run.
    fn tell_the_disks(&self) {
        let all = self.machines.values().chain(self.let_go.values());
        let disks = all.clone().flat_map(|vm| vm.disks().into_iter().map(|disk| (vm.name.clone(), disk)));
        let disks: Disks = disks.collect();
        all.for_each(|vm| vm.respect(Arc::clone(&disks)));
    }
}
