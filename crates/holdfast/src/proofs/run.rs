//! One proof: where the point comes from, its sandbox, and what is written down of it, whatever happens.

use super::inside;
use super::watch::{self, Told};
use crate::act::chain;
use crate::backups::{LIST, ask, child, points};
use crate::clock;
use crate::config::{Config, RepositoryConfig, VmConfig};
use crate::protect::{Protector, Saved};
use holdfast_core::point::{SnapshotId, Trial};
use holdfast_core::subject::VmName;
use holdfast_drivers::qemu::sandbox::{Disk, Plan, Sandbox, SandboxError};
use holdfast_drivers::qemu::{Qemu, QemuVm};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// What must be free where the sandbox writes: a boot writes less.
const ROOM: u64 = 512 << 20;

/// A restore point of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Beside its disk.
    Snapshot(SnapshotId),
    /// In its repository, by its whole name (`orders/7`), of so many bytes.
    Backup(String, u64),
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Snapshot(id) => write!(f, "snapshot/{id}"),
            Self::Backup(name, _) => f.write_str(name),
        }
    }
}

/// What is to be done.
pub struct Job {
    pub vm: VmName,
    pub which: Which,
    /// How many rows were counted when another point was tried last.
    pub rows: Option<u64>,
    pub config: Arc<Config>,
    pub driver: Arc<Qemu>,
    pub protector: Protector,
    /// How long it may take.
    pub budget: Duration,
    pub cancel: CancellationToken,
}

/// How it ended.
pub enum End {
    /// It is known what the point is worth.
    Known(Told),
    /// There was no trial, or nothing could be written down of it.
    Failed(String),
    /// Somebody, or something, wanted it to end.
    Cancelled,
}

impl Job {
    /// Tries the point, and writes down what that proved.
    pub async fn run(&self) -> End {
        let told = match self.attempt().await {
            Ok(Some(told)) => told,
            Ok(None) => return End::Cancelled,
            Err(why) => return End::Failed(why),
        };
        match self.note(&told).await {
            Ok(()) => End::Known(told),
            Err(why) => End::Failed(format!("{}; but that cannot be written down: {why}", told.words())),
        }
    }

    /// What was seen; nothing if it was cancelled.
    async fn attempt(&self) -> Result<Option<Told>, String> {
        let vm = self.config.vms.get(&self.vm).ok_or("there is no such vm")?;
        let apps = inside::apps(vm);
        let (disk, offers) = self.disk().await?;
        let folder = folder(&self.config.state).join(self.vm.as_str());
        remove(&folder).map_err(|e| format!("cannot remove what an earlier trial left: {e}"))?;
        std::fs::create_dir_all(&folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
        has_room(&folder)?;
        let plan = Plan {
            vm: machine(vm),
            disk,
            folder,
            run_folder: self.config.state.join("run"),
            ports: inside::ports(&apps),
            nice: vm.protect.proof.nice,
            address: inside::address(vm),
        };
        let started = tokio::task::spawn_blocking(move || Sandbox::start(plan)).await;
        let sandbox = started.map_err(|e| e.to_string())?.map_err(|error| not_started(&error))?;
        let mut told = Told::default();
        let watched = watch::watch(&sandbox, &apps, self.budget, &mut told);
        let watched = self.cancel.run_until_cancelled(watched).await;
        told.compare(self.rows);
        if let Err(error) = sandbox.end().await {
            warn!(vm = %self.vm, %error, "what a trial wrote is removed by the next one");
        }
        drop(offers); // it ends with its client, and is killed otherwise
        Ok(watched.transpose()?.map(|()| told))
    }

    /// What it boots from, and the process that offers it.
    async fn disk(&self) -> Result<(Disk, Option<Child>), String> {
        match &self.which {
            Which::Snapshot(id) => {
                let files = self.driver.files_of(&self.vm, *id).await.map_err(|error| chain(&error))?;
                Ok((Disk::Files(files), None))
            }
            Which::Backup(name, size) => {
                let (ours, theirs) = UnixStream::pair().map_err(|e| format!("no connection: {e}"))?;
                let words = ["backup", "offer", "--point", name].map(ToOwned::to_owned);
                let mut command = child(&words, self.repository()?, &self.config.state);
                command.stdin(OwnedFd::from(theirs)).kill_on_drop(true);
                let child = command.spawn().map_err(|e| format!("what offers it did not start: {e}"))?;
                Ok((Disk::Offered(ours.into(), *size), Some(child)))
            }
        }
    }

    /// Where its backups are.
    fn repository(&self) -> Result<&RepositoryConfig, String> {
        let (_, repository) = self.config.backup_of(&self.vm).ok_or("it has no repository any more")?;
        Ok(repository)
    }

    /// What was proved of a backup counts from now on, and not only once its repository is looked at again.
    async fn tell_engine(&self) {
        match points(&self.config, &self.vm, LIST).await {
            Ok(points) => self.protector.tell_saved(&self.vm, Saved::all(&points)).await,
            Err(why) => warn!(vm = %self.vm, why, "what was proved counts once its repository can be listed"),
        }
    }

    async fn note(&self, told: &Told) -> Result<(), String> {
        let words: String = told.words().chars().take(300).collect();
        let grade = told.grade();
        let boot_ms = told.up().map(|up| up.as_millis() as u64);
        match &self.which {
            Which::Snapshot(id) => {
                let trial = Trial { grade, when: clock::wall_micros(), boot_ms, words };
                self.protector.note_trial(&self.vm, *id, trial).await.map_err(|error| chain(&error))
            }
            Which::Backup(name, _) => {
                let boot = boot_ms.unwrap_or_default().to_string();
                let words =
                    ["backup", "grade", "--point", name, "--grade", grade.name(), "--boot-ms", &boot, &words];
                let words: Vec<String> = words.into_iter().map(ToOwned::to_owned).collect();
                let said = ask(&words, self.repository()?, &self.config.state).await;
                said.map_err(|said| said.to_string())?;
                self.tell_engine().await;
                Ok(())
            }
        }
    }
}

/// The machine of its sandbox.
fn machine(vm: &VmConfig) -> QemuVm {
    let (proof, spec) = (vm.protect.proof, vm.spec.clone());
    QemuVm { memory: proof.memory.unwrap_or(spec.memory), cpus: proof.cpus.unwrap_or(spec.cpus), ..spec }
}

/// Why there is no sandbox, and what can be done where it is too large.
fn not_started(error: &SandboxError) -> String {
    let way = match error {
        SandboxError::Memory { .. } => "; a sandbox may be smaller: `memory` of `protect.prove`",
        SandboxError::NotReady(_) => "",
    };
    chain(error) + way
}

/// Where sandboxes write.
pub fn folder(state: &Path) -> PathBuf {
    state.join("trials")
}

/// Removes what trials left that were ended with their daemon.
pub fn remove(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn has_room(folder: &Path) -> Result<(), String> {
    let disk = rustix::fs::statvfs(folder).map_err(|e| format!("cannot tell how full its disk is: {e}"))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= ROOM {
        return Ok(());
    }
    Err(format!("{} MiB are free where it would write, and it needs {}", free >> 20, ROOM >> 20))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_as_large_as_it_is_configured_and_a_host_that_is_too_full_says_how_to_make_it_smaller() {
        let text = "[vm.a]\ndisk = \"a.img\"\nmemory = \"8GiB\"\ncpus = 4\nprotect.prove = { memory = \"1GiB\", cpus = 2 }\n";
        let config = Config::parsed(text);
        let vm = config.vms.values().next().unwrap();
        let small = machine(vm);
        assert_eq!((small.memory, small.cpus, &small.disk), (1 << 30, 2, &vm.spec.disk));
        let said = not_started(&SandboxError::Memory { free: 3, needed: 8_448 });
        assert!(said.contains("it needs 8448") && said.contains("`memory` of `protect.prove`"), "{said}");
    }
}
