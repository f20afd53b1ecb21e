//! A backup takes the place of the disk of a dead VM, which starts from it at once while its blocks come in.
//!
//! A process of its own reads the repository, offers the backup beside the disk and has QEMU copy it ([`crate::cli`]:
//! `backup supply`). It outlives the daemon, as the VM does; whoever of them is killed, the disk says by its own head whether
//! it needs the backup still, and then another one is started.

use super::run::{self, Said};
use crate::act::chain;
use crate::config::{Config, RepositoryConfig};
use holdfast_core::action::{Ended, Fact};
use holdfast_core::lease::DeathProof;
use holdfast_core::point::BackupId;
use holdfast_core::subject::VmName;
use holdfast_drivers::Driver;
use holdfast_drivers::qemu::Qemu;
use holdfast_drivers::qemu::snapshot::{Incoming, Origin};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often it is looked whether a disk needs a backup that nobody offers.
const LOOK: Duration = Duration::from_secs(5);
/// How long a repository may take to be opened.
const OPEN: Duration = Duration::from_secs(90);
/// One that cannot be offered is not tried again before this time is over.
const AGAIN: Duration = Duration::from_secs(20);
/// The longest line that is heard (bytes).
const LINE_MOST: u64 = 4 << 10;

/// What `backup supply` says once it offers a backup.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The version of this shape.
    pub v: u32,
    /// The repository's own number.
    pub repository: String,
    /// Bytes of the disk.
    pub size: u64,
}

/// A disk that a backup is coming into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coming {
    /// The backup.
    pub point: String,
    /// Bytes that the disk takes by now: of the backup, and what the guest wrote.
    pub taken: u64,
    /// Somebody brings it.
    pub is_offered: bool,
}

/// Brings backups back. Clones share what is under way.
#[derive(Clone)]
pub struct Restorer {
    driver: Arc<Qemu>,
    config: watch::Receiver<Arc<Config>>,
    turns: Arc<std::sync::Mutex<BTreeMap<VmName, Turn>>>,
}

/// Whose turn it is to see to the disk of a VM, and when it was tried last in vain.
type Turn = Arc<Mutex<Option<Instant>>>;

impl Restorer {
    /// One for the VMs of this configuration. Until the daemon stops it sees to it that what a disk needs is offered.
    pub fn start(
        driver: &Arc<Qemu>,
        config: &watch::Receiver<Arc<Config>>,
        stop: &CancellationToken,
    ) -> Self {
        let (driver, config, turns) = (Arc::clone(driver), config.clone(), Arc::default());
        let restorer = Self { driver, config, turns };
        tokio::spawn(restorer.clone().keep(stop.clone()));
        restorer
    }

    async fn keep(self, stop: CancellationToken) {
        loop {
            let vms: Vec<VmName> = self.config.borrow().vms.keys().cloned().collect();
            for vm in vms {
                // Who has the turn sees to it; one repository that is slow makes no other wait.
                let is_due = |tried: &Option<Instant>| tried.is_none_or(|at| at.elapsed() >= AGAIN);
                if self.turn(&vm).try_lock().is_ok_and(|tried| is_due(&tried)) {
                    let restorer = self.clone();
                    tokio::spawn(async move { restorer.supply(&vm).await });
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
                return;
            }
        }
    }

    /// The backup that the disk of a VM is still coming in from.
    pub async fn coming(&self, vm: &VmName) -> Option<Coming> {
        let incoming = self.driver.incoming(vm).await.ok()??;
        let taken = incoming.file.metadata().map_or(0, |known| known.blocks() * 512);
        Some(Coming { point: incoming.origin.point, taken, is_offered: incoming.is_offered })
    }

    fn turn(&self, vm: &VmName) -> Turn {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(vm.clone()).or_default())
    }

    /// Sees to it that a backup is offered that the disk of a VM needs, if it needs one. Where it cannot be, that is told,
    /// and the start says so, too.
    pub async fn supply(&self, vm: &VmName) {
        let turn = self.turn(vm);
        let mut tried = turn.lock().await;
        let needed = match self.driver.incoming(vm).await {
            Ok(Some(incoming)) if !incoming.is_offered => incoming,
            Ok(_) => return,
            Err(error) => {
                tracing::debug!(%vm, error = chain(&error), "what its disk needs cannot be read");
                return;
            }
        };
        let supplied = self.supply_again(vm, &needed).await;
        let point = &needed.origin.point;
        match supplied {
            Ok(()) => {
                *tried = None;
                info!(%vm, point, "the backup that its disk comes from is offered again");
            }
            Err(why) => {
                *tried = Some(Instant::now());
                warn!(%vm, point, why, "what its disk needs still is not offered: a VM that reads it waits");
            }
        }
    }

    async fn supply_again(&self, vm: &VmName, needed: &Incoming) -> Result<(), String> {
        let config = Arc::clone(&self.config.borrow());
        let origin = &needed.origin;
        let unknown = || format!("no repository `{}` is configured any more", origin.to);
        let repository = config.repositories.get(&origin.to).ok_or_else(unknown)?;
        let backup = config.vms.get(vm).and_then(|vm| vm.protect.backup.as_ref());
        let wanted = Wanted {
            repository,
            limit: backup.and_then(|backup| backup.limit),
            state: &config.state,
            point: &origin.point,
        };
        let supply = self.begin(vm, &wanted, &needed.socket).await?;
        if supply.ready.repository != origin.repository {
            return Err(format!("`{}` is another repository than the disk came from", origin.to));
        }
        supply.fill(&needed.file).await
    }

    /// Makes a backup the disk of a VM whose death is proven.
    pub async fn restore(&self, vm: &VmName, dead: &DeathProof, id: BackupId, limit: Duration) -> Ended {
        let turn = self.turn(vm);
        let _one = turn.lock().await;
        match self.try_restore(vm, dead, id, limit).await {
            Ok(ended) => ended,
            Err(why) => {
                Ended::Failed { why: format!("backup {} cannot take the place of its disk: {why}", id.0) }
            }
        }
    }

    async fn try_restore(
        &self,
        vm: &VmName,
        dead: &DeathProof,
        id: BackupId,
        limit: Duration,
    ) -> Result<Ended, String> {
        let config = Arc::clone(&self.config.borrow());
        let (backup, repository) = config.backup_of(vm).ok_or("no backup is configured for it")?;
        let (to, point) = (backup.to.clone(), format!("{vm}/{}", id.0));
        let mut origin = Origin { to, repository: String::new(), point };
        let socket = self.driver.offer_place(vm, &origin).map_err(|error| chain(&error))?;
        let (state, point) = (&*config.state, &*origin.point);
        let wanted = Wanted { repository, limit: backup.limit, state, point };
        let supply = self.begin(vm, &wanted, &socket).await?;
        origin.repository.clone_from(&supply.ready.repository);
        let restored = self.driver.restore(vm, dead, origin, supply.ready.size, limit).await;
        let incoming = match restored {
            Ok(incoming) => incoming,
            Err(error) if error.is_unknown() => return Ok(Ended::Unknown { why: chain(&error) }),
            Err(error) => return Err(chain(&error)),
        };
        supply.fill(&incoming.file).await?;
        info!(%vm, backup = id.0, file = %incoming.file.display(), "a backup takes the place of its disk");
        Ok(Ended::Done(Fact::Nothing))
    }

    /// Starts the process that offers a backup, and waits until it does.
    async fn begin(&self, vm: &VmName, wanted: &Wanted<'_>, socket: &Path) -> Result<Supply, String> {
        let Wanted { repository, point, limit, state } = *wanted;
        let qmp = self.driver.places(vm).qmp.ok_or("it has no control socket")?;
        let (socket, qmp) = (socket.display().to_string(), qmp.display().to_string());
        let words = ["backup", "supply", "--point", point, "--socket", &socket, "--qmp", &qmp];
        let mut words: Vec<String> = words.into_iter().map(ToOwned::to_owned).collect();
        words.extend(limit.into_iter().flat_map(|limit| ["--limit".to_owned(), run::rate(limit)]));
        let mut command = run::ourselves(&[], &words, repository, state);
        // It ends when we do, until it was told what to fill; from then on it outlives us.
        command.kill_on_drop(false);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("the program that offers it: {error}"))?;
        let (Some(file), Some(said)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the program that offers it says nothing".into());
        };
        let mut line = Vec::new();
        let mut said = BufReader::new(said).take(LINE_MOST);
        let heard = tokio::time::timeout(OPEN, said.read_until(b'\n', &mut line)).await;
        match (heard, serde_json::from_slice(&line)) {
            (Ok(Ok(_)), Ok(ready)) => Ok(Supply { child, file, ready }),
            (Err(_), _) => Err(format!("its repository was not opened within {} s", OPEN.as_secs())),
            (Ok(_), _) => Err(why_not(child).await),
        }
    }
}

/// What is to be brought.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    repository: &'a RepositoryConfig,
    point: &'a str,
    /// Bytes a second at most.
    limit: Option<u64>,
    /// The state folder.
    state: &'a Path,
}

/// A process that offers a backup. It ends when this is dropped before it was told what to fill.
struct Supply {
    child: Child,
    file: ChildStdin,
    ready: Ready,
}

impl Supply {
    /// Lets it go, with the file that it has to fill.
    async fn fill(mut self, file: &Path) -> Result<(), String> {
        let line = format!("{}\n", file.display());
        let told = self.file.write_all(line.as_bytes()).await;
        told.map_err(|error| format!("the program that offers it was lost: {error}"))?;
        tokio::spawn(async move { self.child.wait().await }); // it ends by itself, and is collected then
        Ok(())
    }
}

async fn why_not(mut child: Child) -> String {
    let Some(errors) = child.stderr.take() else { return "the program that offers it says nothing".into() };
    Said::of(&run::last_words(errors).await).to_string()
}
