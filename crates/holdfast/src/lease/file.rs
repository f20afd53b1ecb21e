//! Leases on one host: a small file per VM, and one that counts tokens. It must never forget a number.
//!
//! A lease is returned only after its record is durable. Whatever happens between two file operations,
//! the next call with the same proof finds the record as it was (and writes it anew, for it may not be
//! durable yet) or not at all; then no caller has seen it, and a new token is given.

use super::{LeaseError, LeaseStore};
use crate::disk::Disk;
use crate::disk::small::{SmallFile, SmallFileError};
use async_trait::async_trait;
use holdfast_core::lease::{DeathProof, Incarnation, Lease, Sighting, Token};
use holdfast_core::subject::{HostName, VmName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The leases of one host. Those of different VMs do not wait for each other's disk writes.
#[derive(Clone)]
pub struct FileLeases(Arc<Records>);

/// What is on record for a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OnRecord {
    lease: Lease,
    /// Not given back.
    held: bool,
}

/// No token above this was ever given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Reserved {
    reserved: u64,
}

struct Records {
    disk: Arc<dyn Disk>,
    folder: String,
    /// The last token given, and the last that may be given without writing; `None` before the first.
    tokens: Mutex<Option<(u64, u64)>>,
    /// One lock per VM: between looking at its record and storing it nobody else does either (I2).
    turns: Mutex<BTreeMap<VmName, Arc<Mutex<()>>>>,
}

/// So many tokens are reserved in one write. Those not used when the program ends are never used.
const BATCH: u64 = 64;
/// Higher numbers are not ours: it would take a million starts a second for three centuries.
const NUMBER_MOST: u64 = 1 << 53;

impl FileLeases {
    /// The leases in a folder of a disk. No file is touched yet.
    pub fn new(disk: Arc<dyn Disk>, folder: impl Into<String>) -> Self {
        let (tokens, turns) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Records { disk, folder: folder.into(), tokens, turns }))
    }

    /// Runs `work` on the record of a VM where waiting for a disk holds nobody up, one at a time for each VM.
    async fn run<T: Send + 'static>(
        &self,
        vm: VmName,
        work: impl FnOnce(&Records) -> Result<T, LeaseError> + Send + 'static,
    ) -> Result<T, LeaseError> {
        let records = self.0.clone();
        let work = move || {
            let turn = Arc::clone(lock(&records.turns).entry(vm).or_default());
            let _turn = lock(&turn);
            work(&records)
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(LeaseError::Ended))
    }
}

#[async_trait]
impl LeaseStore for FileLeases {
    async fn read(&self, vm: &VmName) -> Result<Option<Lease>, LeaseError> {
        let vm = vm.clone();
        self.run(vm.clone(), move |records| {
            Ok(records.load(&vm)?.filter(|record| record.held).map(|record| record.lease))
        })
        .await
    }

    async fn newest(&self, vm: &VmName) -> Result<Option<Lease>, LeaseError> {
        let vm = vm.clone();
        self.run(vm.clone(), move |records| Ok(records.load(&vm)?.map(|record| record.lease))).await
    }

    async fn take(&self, proof: &DeathProof, holder: &HostName) -> Result<Lease, LeaseError> {
        let (proof, holder) = (proof.clone(), holder.clone());
        self.run(proof.vm().clone(), move |records| records.take(&proof, &holder)).await
    }

    async fn adopt(&self, vm: &VmName, running: Sighting, holder: &HostName) -> Result<Lease, LeaseError> {
        let (vm, holder) = (vm.clone(), holder.clone());
        self.run(vm.clone(), move |records| records.adopt(&vm, running, &holder)).await
    }

    async fn release(&self, proof: &DeathProof) -> Result<(), LeaseError> {
        let proof = proof.clone();
        self.run(proof.vm().clone(), move |records| records.release(&proof)).await
    }
}

impl Records {
    fn take(&self, proof: &DeathProof, holder: &HostName) -> Result<Lease, LeaseError> {
        let (vm, dead) = (proof.vm(), proof.incarnation());
        if dead.0 >= NUMBER_MOST {
            return Err(LeaseError::Absurd { vm: vm.clone(), incarnation: dead });
        }
        let next = dead.next();
        let give = || self.give(vm, |token| Lease::after(proof, token, holder.clone()));
        match self.load(vm)? {
            None => give(),
            Some(record) if record.lease.incarnation() == dead => give(),
            Some(record) if record.held && record.lease.incarnation() == next => self.again(record, holder),
            Some(record) => Err(mismatch(&record, dead)),
        }
    }

    fn adopt(&self, vm: &VmName, seen: Sighting, holder: &HostName) -> Result<Lease, LeaseError> {
        let running = seen.incarnation();
        if running.0 >= NUMBER_MOST || running == Incarnation::NONE {
            return Err(LeaseError::Absurd { vm: vm.clone(), incarnation: running });
        }
        match self.load(vm)? {
            None => self.give(vm, |token| Lease::adopting(vm.clone(), seen, token, holder.clone())),
            Some(record) if record.lease.incarnation() != running => Err(mismatch(&record, running)),
            Some(record) if record.held => self.again(record, holder),
            Some(_) => Err(LeaseError::Dead { vm: vm.clone(), incarnation: running }),
        }
    }

    fn release(&self, proof: &DeathProof) -> Result<(), LeaseError> {
        match self.load(proof.vm())? {
            None => Ok(()),
            Some(record) if record.lease.incarnation() != proof.incarnation() => {
                Err(mismatch(&record, proof.incarnation()))
            }
            Some(record) => self.store(&OnRecord { held: false, ..record }),
        }
    }

    /// A new lease. Its token is higher than any before (I3).
    fn give(&self, vm: &VmName, lease: impl FnOnce(Token) -> Lease) -> Result<Lease, LeaseError> {
        let lease = lease(self.token(vm)?);
        self.store(&OnRecord { lease: lease.clone(), held: true })?;
        Ok(lease)
    }

    /// The lease on record, once more, to who has it (I9). It is written anew: it may be only in memory.
    fn again(&self, record: OnRecord, holder: &HostName) -> Result<Lease, LeaseError> {
        if record.lease.holder() != holder {
            let (vm, holder) = (record.lease.vm().clone(), record.lease.holder().clone());
            return Err(LeaseError::HeldBy { vm, holder });
        }
        self.store(&record)?;
        Ok(record.lease)
    }

    fn load(&self, vm: &VmName) -> Result<Option<OnRecord>, LeaseError> {
        self.look(vm).map_err(|source| LeaseError::File { vm: vm.clone(), source })
    }

    fn look(&self, vm: &VmName) -> Result<Option<OnRecord>, SmallFileError> {
        let file = self.file(vm);
        let record = file.load()?;
        let wrong = record.as_ref().and_then(|OnRecord { lease, .. }| {
            let possible = lease.incarnation().0 <= NUMBER_MOST && lease.token().0 <= NUMBER_MOST;
            if lease.vm() != vm {
                Some(format!("it is the lease of vm `{}`", lease.vm()))
            } else {
                (!possible).then(|| "its numbers are impossible".to_owned())
            }
        });
        wrong.map_or(Ok(record), |why| Err(file.set_aside(why)))
    }

    fn store(&self, record: &OnRecord) -> Result<(), LeaseError> {
        let vm = record.lease.vm();
        self.file(vm).store(record).map_err(|source| LeaseError::File { vm: vm.clone(), source })
    }

    /// The next token. A batch is reserved durably before the first of it is given.
    fn token(&self, vm: &VmName) -> Result<Token, LeaseError> {
        let failed = |source| LeaseError::Tokens { vm: vm.clone(), source };
        let mut tokens = lock(&self.tokens);
        let (last, reserved) = match *tokens {
            Some(tokens) => tokens,
            None => self.count().map(|last| (last, last)).map_err(failed)?,
        };
        let next = last + 1;
        let reserved = if next > reserved {
            let more = Reserved { reserved: last + BATCH };
            self.counter().store(&more).map_err(failed)?;
            more.reserved
        } else {
            reserved
        };
        *tokens = Some((next, reserved));
        Ok(Token(next))
    }

    /// The highest token that may ever have been given. If the counter is lost, it is the highest on
    /// record: each lease ever given is on record or was replaced by one with a higher token. That needs
    /// all records to be good.
    fn count(&self) -> Result<u64, SmallFileError> {
        match self.counter().load() {
            Ok(Some(Reserved { reserved })) if reserved <= NUMBER_MOST => return Ok(reserved),
            Ok(Some(_)) => drop(self.counter().set_aside("its number is impossible".into())),
            Ok(None) | Err(SmallFileError::Damaged { .. } | SmallFileError::Waiting { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut highest = 0;
        for vm in self.vms()? {
            let token = self.look(&vm)?.map_or(0, |record| record.lease.token().0);
            highest = highest.max(token);
        }
        Ok(highest)
    }

    /// All VMs that have, or had, a record.
    fn vms(&self) -> Result<BTreeSet<VmName>, SmallFileError> {
        let listed = self.disk.list(&self.folder);
        let file = self.folder.clone();
        let listed = listed.map_err(|source| SmallFileError::Disk { doing: "list", file, source })?;
        let vm = |name: &str| {
            let damaged = || name.rsplit_once(".lease.damaged-").map(|(vm, _)| vm);
            name.strip_suffix(".lease").or_else(damaged)?.parse().ok()
        };
        Ok(listed.iter().filter_map(|file| vm(&file.name)).collect())
    }

    fn file(&self, vm: &VmName) -> SmallFile<OnRecord> {
        SmallFile::new(self.disk.clone(), format!("{}/{vm}.lease", self.folder), "lease", 1)
    }

    fn counter(&self) -> SmallFile<Reserved> {
        SmallFile::new(self.disk.clone(), format!("{}/tokens", self.folder), "tokens", 1)
    }
}

/// A panic in between leaves nothing half done in memory that the files do not know.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn mismatch(record: &OnRecord, asked: Incarnation) -> LeaseError {
    LeaseError::Mismatch { vm: record.lease.vm().clone(), on_record: record.lease.incarnation(), asked }
}

#[cfg(test)]
mod tests;
