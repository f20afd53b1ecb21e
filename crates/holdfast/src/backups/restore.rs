//! A backup takes the place of the disk of a dead VM, which starts from it at once while its blocks come in.
//!
//! A process of its own reads the repository, offers the backup beside the disk and has QEMU copy it ([`crate::cli`]:
//! `backup supply`). It outlives the daemon, as the VM does; whoever of them is killed, the disk says by its own head whether
//! it needs the backup still, and then another one is started.

use super::offer::{self, UNREAD};
use super::run::{self, Said};
use crate::act::chain;
use crate::config::{Config, Limits, RepositoryConfig};
use holdfast_core::action::{Ended, Fact};
use holdfast_core::lease::DeathProof;
use holdfast_core::point::{BackupId, SnapshotId};
use holdfast_core::subject::VmName;
use holdfast_drivers::Driver;
use holdfast_drivers::qemu::Qemu;
use holdfast_drivers::qemu::snapshot::{Incoming, Origin};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
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
/// Before a start it is not waited for longer; the start needs time, too.
const BEFORE_START: Duration = Duration::from_secs(18);
/// There is no repository to ask.
const NO_BACKUP: &str = "no backup is configured for it";
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

/// What it says where the repository may be in reach later.
#[derive(Debug, Serialize, Deserialize)]
pub struct OutOfReach {
    /// The version of this shape.
    pub v: u32,
    /// It is.
    pub out_of_reach: bool,
}

/// Why a backup is not to be had.
enum NotHad {
    /// It may be later.
    OutOfReach(String),
    /// It will not.
    Other(String),
}

impl NotHad {
    fn why(self) -> String {
        match self {
            Self::OutOfReach(why) | Self::Other(why) => why,
        }
    }

    fn late(limit: Duration) -> String {
        format!("its repository was not opened within {} s", limit.as_secs())
    }

    /// As the engine hears it: whether the same is worth another try.
    fn ended(self, what: &str) -> Ended {
        match self {
            Self::OutOfReach(why) => Ended::Blocked { why: format!("{what}: {why}") },
            Self::Other(why) => Ended::Failed { why: format!("{what}: {why}") },
        }
    }
}

impl<T: Into<String>> From<T> for NotHad {
    fn from(why: T) -> Self {
        Self::Other(why.into())
    }
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
    lacking: Arc<std::sync::Mutex<BTreeMap<VmName, String>>>,
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
        let (driver, config) = (Arc::clone(driver), config.clone());
        let (turns, lacking) = Default::default();
        let restorer = Self { driver, config, turns, lacking };
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
                    tokio::spawn(async move { drop(restorer.supply(&vm).await) }); // it is logged
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

    /// What VMs lack that their disks need of a backup still, for people, as it was looked at last.
    pub fn lacking(&self) -> BTreeMap<VmName, String> {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_lacking(&self, vm: &VmName, what: Option<(&str, String)>) {
        let mut lacking = self.lacking.lock().unwrap_or_else(PoisonError::into_inner);
        match what {
            Some((point, why)) => {
                drop(lacking.insert(vm.clone(), lacks(point, why)));
            }
            None => drop(lacking.remove(vm)),
        }
    }

    fn turn(&self, vm: &VmName) -> Turn {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(vm.clone()).or_default())
    }

    /// Sees to it that a backup is offered that the disk of a VM needs, if it needs one.
    ///
    /// # Errors
    /// Why it is not.
    async fn supply(&self, vm: &VmName) -> Result<(), String> {
        let turn = self.turn(vm);
        let mut tried = turn.lock().await;
        let incoming = self.driver.incoming(vm).await;
        if let Ok(incoming) = &incoming {
            self.clear_dead(vm, incoming.as_ref()).await;
        }
        let needed = match incoming {
            Ok(Some(incoming)) if !incoming.is_offered => incoming,
            Ok(incoming) => {
                let unread =
                    incoming.as_ref().and_then(|incoming| Some((&*incoming.origin.point, unread(incoming)?)));
                self.note_lacking(vm, unread);
                return Ok(());
            }
            Err(error) => {
                tracing::debug!(%vm, error = chain(&error), "what its disk needs cannot be read");
                return Ok(()); // a start tells more
            }
        };
        let supplied = self.supply_again(vm, &needed).await;
        let point = &needed.origin.point;
        self.note_lacking(vm, supplied.as_ref().err().map(|why| (&**point, why.clone())));
        match supplied {
            Ok(()) => {
                *tried = None;
                info!(%vm, point, "the backup that its disk comes from is offered again");
                Ok(())
            }
            Err(why) => {
                *tried = Some(Instant::now());
                warn!(%vm, point, why, "what its disk needs still is not offered: a VM that reads it waits");
                Err(why)
            }
        }
    }

    /// Sockets of processes that were killed go, but for the one that is to be offered on again.
    async fn clear_dead(&self, vm: &VmName, needed: Option<&Incoming>) {
        let Ok(folder) = self.driver.snapshot_folder(vm) else { return };
        let needed = needed.map(|needed| needed.socket.clone());
        let cleared =
            tokio::task::spawn_blocking(move || offer::clear_dead(&folder, needed.as_deref())).await;
        for socket in cleared.into_iter().flatten().flatten() {
            info!(%vm, socket = %socket.display(), "nobody offers anything there any more: its socket is removed");
        }
    }

    /// The same before a start, for not longer than a part of its time; what was begun goes on.
    ///
    /// # Errors
    /// Why it is not offered: then it is not started, and tried again soon.
    pub async fn supply_start(&self, vm: &VmName) -> Result<(), Ended> {
        let (restorer, name) = (self.clone(), vm.clone());
        let supplied = tokio::spawn(async move { restorer.supply(&name).await });
        let why = match tokio::time::timeout(BEFORE_START, supplied).await {
            Ok(Ok(Ok(()))) => return Ok(()),
            Ok(Ok(Err(why))) => why,
            Ok(Err(panic)) => panic.to_string(),
            Err(_) => NotHad::late(BEFORE_START),
        };
        Err(Ended::Blocked { why: format!("the backup that its disk comes from is not offered: {why}") })
    }

    /// Looks whether a VM that runs could be started again from its disk, or from a snapshot, as far as that needs a backup
    /// still: before it is ended for that.
    ///
    /// # Errors
    /// Why not.
    pub async fn may_start(&self, vm: &VmName, from: Option<SnapshotId>) -> Result<(), String> {
        let needed = match from {
            Some(id) => self.driver.incoming_of(vm, id).await,
            None => self.driver.incoming(vm).await,
        };
        let Ok(Some(needed)) = needed else { return Ok(()) }; // what of it cannot be read others tell
        let lacks = |why| Err(lacks(&needed.origin.point, why));
        if let Some(why) = unread(&needed).filter(|_| needed.is_offered) {
            return lacks(why);
        }
        match tokio::time::timeout(BEFORE_START, self.reach_again(vm, &needed)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => lacks(why),
            Err(_) if needed.is_offered => Ok(()), // its start waits for nothing
            Err(_) => lacks(NotHad::late(BEFORE_START)),
        }
    }

    async fn reach_again(&self, vm: &VmName, needed: &Incoming) -> Result<(), String> {
        let config = Arc::clone(&self.config.borrow());
        let origin = &needed.origin;
        if needed.is_offered && !config.repositories.contains_key(&origin.to) {
            return Ok(()); // it is read on from where it was
        }
        self.begin_again(vm, &config, origin, None).await.map(drop)
    }

    /// Has the backup offered, or only looked for, that a disk was made from.
    async fn begin_again(
        &self,
        vm: &VmName,
        config: &Config,
        origin: &Origin,
        socket: Option<&Path>,
    ) -> Result<Supply, String> {
        let unknown = || format!("no repository `{}` is configured any more", origin.to);
        let repository = config.repositories.get(&origin.to).ok_or_else(unknown)?;
        let backup = config.vms.get(vm).and_then(|vm| vm.protect.backup.as_ref());
        let limits = backup.map(|backup| backup.limits).unwrap_or_default();
        let wanted = Wanted { repository, limits, state: &config.state, point: &origin.point };
        let supply = self.begin(vm, &wanted, socket).await.map_err(NotHad::why)?;
        if supply.ready.repository != origin.repository {
            return Err(format!("`{}` is another repository than the disk came from", origin.to));
        }
        Ok(supply)
    }

    async fn supply_again(&self, vm: &VmName, needed: &Incoming) -> Result<(), String> {
        let config = Arc::clone(&self.config.borrow());
        let supply = self.begin_again(vm, &config, &needed.origin, Some(&needed.socket)).await?;
        supply.fill(&needed.file).await
    }

    /// Makes a backup the disk of a VM whose death is proven.
    pub async fn restore(&self, vm: &VmName, dead: &DeathProof, id: BackupId, limit: Duration) -> Ended {
        let turn = self.turn(vm);
        let _one = turn.lock().await;
        match self.try_restore(vm, dead, id, limit).await {
            Ok(ended) => ended,
            Err(why) => why.ended(&format!("backup {} cannot take the place of its disk", id.0)),
        }
    }

    /// Looks whether a backup can be had, before anything is ended for it.
    pub async fn reach(&self, vm: &VmName, id: BackupId) -> Ended {
        let config = Arc::clone(&self.config.borrow());
        let point = format!("{vm}/{}", id.0);
        let reached = match config.backup_of(vm) {
            Some((_, repository)) => {
                let wanted =
                    Wanted { repository, limits: Limits::default(), state: &config.state, point: &point };
                self.begin(vm, &wanted, None).await.map(drop)
            }
            None => Err(NO_BACKUP.into()),
        };
        match reached {
            Ok(()) => Ended::Done(Fact::Nothing),
            Err(why) => why.ended(&format!("backup {} cannot be had", id.0)),
        }
    }

    async fn try_restore(
        &self,
        vm: &VmName,
        dead: &DeathProof,
        id: BackupId,
        limit: Duration,
    ) -> Result<Ended, NotHad> {
        let config = Arc::clone(&self.config.borrow());
        let (backup, repository) = config.backup_of(vm).ok_or(NO_BACKUP)?;
        let (to, point) = (backup.to.clone(), format!("{vm}/{}", id.0));
        let mut origin = Origin { to, repository: String::new(), point };
        let place = self.driver.offer_place(vm).await.map_err(|error| chain(&error))?;
        let (state, point) = (&*config.state, &*origin.point);
        let wanted = Wanted { repository, limits: backup.limits, state, point };
        let supply = self.begin(vm, &wanted, Some(&place.socket)).await?;
        origin.repository.clone_from(&supply.ready.repository);
        let restored = self.driver.restore(vm, dead, (origin, supply.ready.size), &place, limit).await;
        let incoming = match restored {
            Ok(incoming) => incoming,
            Err(error) if error.is_unknown() => return Ok(Ended::Unknown { why: chain(&error) }),
            Err(error) => return Err(chain(&error).into()),
        };
        supply.fill(&incoming.file).await?;
        info!(%vm, backup = id.0, file = %incoming.file.display(), "a backup takes the place of its disk");
        Ok(Ended::Done(Fact::Nothing))
    }

    /// Starts the process that offers a backup, and waits until it does; without a socket, until it could.
    async fn begin(&self, vm: &VmName, wanted: &Wanted<'_>, socket: Option<&Path>) -> Result<Supply, NotHad> {
        let Wanted { repository, point, limits, state } = *wanted;
        let mut words: Vec<String> = ["backup", "supply", "--point", point].map(ToOwned::to_owned).into();
        if let Some(socket) = socket {
            let qmp = self.driver.places(vm).qmp.ok_or("it has no control socket")?;
            let places = [("--socket", socket), ("--qmp", &*qmp)];
            words.extend(
                places.into_iter().flat_map(|(word, at)| [word.to_owned(), at.display().to_string()]),
            );
        }
        words.extend(Limits { iops: None, ..limits }.words()); // QEMU bounds what it copies by bytes alone
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
            (Err(_), _) => Err(NotHad::OutOfReach(NotHad::late(OPEN))),
            (Ok(_), _) if serde_json::from_slice::<OutOfReach>(&line).is_ok() => {
                Err(NotHad::OutOfReach(why_not(child).await))
            }
            (Ok(_), _) => Err(NotHad::Other(why_not(child).await)),
        }
    }
}

/// What is to be brought.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    repository: &'a RepositoryConfig,
    point: &'a str,
    /// How fast at most.
    limits: Limits,
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

fn lacks(point: &str, why: String) -> String {
    format!("its disk comes in from {point}, which cannot be read: {why}")
}

/// Why what is offered cannot be read now, by the last word of whoever offers it.
fn unread(incoming: &Incoming) -> Option<String> {
    let mut log = File::open(incoming.socket.with_extension("log")).ok()?;
    let length = log.metadata().ok()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(LINE_MOST))).ok()?;
    let mut said = Vec::new();
    log.take(LINE_MOST).read_to_end(&mut said).ok()?;
    let said = String::from_utf8_lossy(&said);
    said.lines().last()?.strip_prefix(UNREAD).map(crate::config::tame)
}

async fn why_not(mut child: Child) -> String {
    let Some(errors) = child.stderr.take() else { return "the program that offers it says nothing".into() };
    Said::of(&run::last_words(errors).await).to_string()
}
