//! Backups of VMs: a moment of the disk is held still by its driver, or the disk of one that is off is offered, and a process of
//! its own reads it and makes a restore point. One of a VM at a time, a few of all.
//!
//! The daemon itself never opens a repository: one that is huge, slow, damaged or hostile is that process's trouble.

mod doc;
mod due;
mod left;
mod off;
pub mod offer;
mod once;
mod prune;
mod restore;
mod run;
mod schedule;

pub use prune::PruneDoc;
pub use restore::{Coming, OutOfReach, Ready, Restorer};

use crate::asked;
use crate::config::{Config, Limits, RepositoryConfig};
use crate::protect::Protector;
use holdfast_core::subject::VmName;
use holdfast_drivers::qemu::Qemu;
use once::Once;
use run::{End, Job, News};
pub use run::{ask, child};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Questions that may wait.
const QUEUE: usize = 64;
/// So many read at once; the others wait for their turn.
const AT_ONCE: usize = 4;
/// How often it is looked whether one is due.
const LOOK: Duration = Duration::from_secs(10);
/// Who asks for what is due, for the record (I19).
const SCHEDULE: &str = "schedule";

/// How a backup goes, or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupState {
    /// Others are before it.
    Waits,
    /// It is being made.
    Runs,
    /// There is a new restore point.
    Done,
    /// There is none.
    Failed,
    /// Somebody wanted it to end.
    Cancelled,
}

impl BackupState {
    /// Whether nothing more will come.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// The last backup of a VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupDoc {
    /// The version of this shape.
    pub v: u32,
    /// Of this VM.
    pub vm: String,
    /// Into this repository.
    pub to: String,
    /// How it stands.
    pub state: BackupState,
    /// What is read in a second at most.
    #[serde(flatten)]
    pub limits: Limits,
    /// When it began, in seconds since 1970.
    pub since: f64,
    /// Bytes of the disk; 0 until it is known.
    pub size: u64,
    /// Bytes that were read.
    pub read: u64,
    /// Bytes that were not read, as they did not change or are holes.
    pub skipped: u64,
    /// Bytes that were added to the repository.
    pub added: u64,
    /// Bytes of the disk that an attempt before it had read: of these, only what was written since was read again.
    #[serde(default)]
    pub resumed: u64,
    /// How long it took (seconds), once it is over.
    pub seconds: Option<f64>,
    /// The new restore point.
    pub id: Option<String>,
    /// Why everything was read, where only the change was to be.
    pub why_all: Option<String>,
    /// Whether the VM was off.
    #[serde(default)]
    pub off: bool,
    /// Whether the guest's file systems were frozen for the instant of it.
    pub frozen: bool,
    /// For how long the guest's writes had to wait at most (seconds).
    pub stall_s: f64,
    /// What did not go as it should, and did no harm.
    pub warnings: Vec<String>,
    /// What failed.
    pub error: Option<String>,
    /// Why.
    pub cause: Option<String>,
    /// The way out.
    pub hint: Option<String>,
    /// What came of it that its points were pruned afterwards, if they were.
    #[serde(default)]
    pub pruned: Option<PruneDoc>,
}

/// Why no backup began.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoBackup {
    /// There is no such VM.
    #[error("there is no such vm")]
    NoVm,
    /// It has none.
    #[error("no backup is configured for it")]
    NotConfigured,
    /// It has one that runs.
    #[error("one runs already")]
    Busy,
    /// The daemon ends.
    #[error("the daemon is stopping")]
    Stopping,
}

impl NoBackup {
    /// The way out.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoVm => "`holdfast vm list` lists them",
            Self::NotConfigured => {
                "write `backup = { to = \"NAME\" }` below its `[vm.NAME.protect]`, then `holdfast reload`"
            }
            Self::Busy => "wait for it, or end it with `holdfast backup cancel VM`",
            Self::Stopping => "wait for it to start again",
        }
    }
}

enum Asked {
    Begin {
        vm: VmName,
        by: String,
        limits: Limits,
        reply: oneshot::Sender<Result<BackupDoc, NoBackup>>,
    },
    Look {
        vm: VmName,
        reply: oneshot::Sender<Option<BackupDoc>>,
    },
    Cancel {
        vm: VmName,
        by: String,
        reply: oneshot::Sender<bool>,
    },
    Told {
        vm: VmName,
        news: News,
    },
    /// When the newest point in that repository was taken, or why that cannot be told.
    Newest {
        vm: VmName,
        from: RepositoryConfig,
        taken: Result<Option<f64>, String>,
    },
    Listed {
        vm: VmName,
        from: RepositoryConfig,
        listed: Result<Vec<serde_json::Value>, String>,
    },
    Pruned {
        to: String,
    },
    Cleared {
        vm: VmName,
        cleared: Result<(), String>,
    },
}

/// How long a repository may take to be listed where nobody waits for it.
pub const LIST: Duration = Duration::from_secs(120);
/// The same where somebody does.
pub const LIST_SOON: Duration = Duration::from_secs(20);

/// The restore points of a VM in its repository, oldest first, as `backup list --json` tells them: nothing if no backup is
/// configured for it.
///
/// # Errors
/// Why they cannot be told, in this time.
pub async fn points(
    config: &Config,
    vm: &VmName,
    within: Duration,
) -> Result<Vec<serde_json::Value>, String> {
    let Some((_, repository)) = config.backup_of(vm) else { return Ok(Vec::new()) };
    let listed = tokio::time::timeout(within, run::list(repository, vm, &config.state)).await;
    listed.map_err(|_| format!("it was not listed within {} s", within.as_secs()))?
}

/// Where backups are asked for.
#[derive(Clone)]
pub struct Backups(mpsc::Sender<Asked>);

impl Backups {
    /// Begins one, which reads so many bytes in a second at most; otherwise as many as are configured. It is not over when this
    /// returns.
    pub async fn begin(&self, vm: VmName, by: String, limits: Limits) -> Result<BackupDoc, NoBackup> {
        let begun = asked::ask(&self.0, |reply| Asked::Begin { vm, by, limits, reply }).await;
        begun.ok_or(NoBackup::Stopping)?
    }

    /// The last one of a VM, or the one that runs.
    pub async fn look(&self, vm: VmName) -> Option<BackupDoc> {
        asked::ask(&self.0, |reply| Asked::Look { vm, reply }).await.flatten()
    }

    /// Ends the one that runs. Whether there is one.
    pub async fn cancel(&self, vm: VmName, by: String) -> bool {
        asked::ask(&self.0, |reply| Asked::Cancel { vm, by, reply }).await.unwrap_or(false)
    }
}

/// The one that knows of all backups.
struct Keeper {
    driver: Arc<Qemu>,
    protector: Protector,
    config: watch::Receiver<Arc<Config>>,
    runs: BTreeMap<VmName, Run>,
    due: due::Due,
    pruner: prune::Pruner,
    left: left::Left,
    /// Where the backups of each go: what is known of them is of that repository.
    sources: BTreeMap<VmName, RepositoryConfig>,
    /// When the points of each were listed last for the engine.
    listed: BTreeMap<VmName, Instant>,
    /// Why they could not be.
    unlisted: Once,
    /// Ends what is no backup when the daemon ends.
    stop: CancellationToken,
    tasks: JoinSet<()>,
    inbox: mpsc::Sender<Asked>,
    turns: Arc<Semaphore>,
}

struct Run {
    doc: BackupDoc,
    to: RepositoryConfig,
    is_scheduled: bool,
    cancel: CancellationToken,
}

/// Begins to look after backups, until it is told to stop; then those that run are ended in good order.
pub fn start(
    driver: Arc<Qemu>,
    protector: Protector,
    config: watch::Receiver<Arc<Config>>,
    stop: CancellationToken,
) -> (Backups, tokio::task::JoinHandle<()>) {
    let (inbox, asked) = mpsc::channel(QUEUE);
    let handle = Backups(inbox.clone());
    let keeper = Keeper::new(driver, protector, config, inbox, stop.clone());
    (handle, tokio::spawn(keeper.keep(asked, stop)))
}

impl Keeper {
    fn new(
        driver: Arc<Qemu>,
        protector: Protector,
        config: watch::Receiver<Arc<Config>>,
        inbox: mpsc::Sender<Asked>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            driver,
            protector,
            config,
            runs: BTreeMap::new(),
            due: due::Due::default(),
            pruner: prune::Pruner::default(),
            left: left::Left::default(),
            sources: BTreeMap::new(),
            listed: BTreeMap::new(),
            unlisted: Once::default(),
            stop,
            tasks: JoinSet::new(),
            inbox,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    async fn keep(mut self, mut asked: mpsc::Receiver<Asked>, stop: CancellationToken) {
        self.left.note(self.config.borrow().vms.keys().cloned());
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(asked) = asked.recv() => self.take(asked),
                _ = look.tick() => self.look().await,
                Some(_) = self.tasks.join_next() => {}
            }
        }
        self.runs.values().for_each(|run| run.cancel.cancel());
        // What they tell is heard, so that none of them waits for us.
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => if ended.is_none() { return },
                Some(asked) = asked.recv() => self.take_last(asked),
            }
        }
    }

    fn take(&mut self, asked: Asked) {
        match asked {
            Asked::Begin { vm, by, limits, reply } => drop(reply.send(self.begin(&vm, &by, limits))),
            Asked::Look { vm, reply } => drop(reply.send(self.runs.get(&vm).map(|run| run.doc.clone()))),
            Asked::Cancel { vm, by, reply } => drop(reply.send(self.cancel(&vm, &by))),
            Asked::Told { vm, news } => self.hear(&vm, news),
            Asked::Newest { vm, from, taken } => self.hear_newest(&vm, &from, taken),
            Asked::Listed { vm, from, listed } => self.hear_list(vm, &from, listed),
            Asked::Pruned { to } => self.pruner.end(&to),
            Asked::Cleared { vm, cleared } => self.hear_cleared(&vm, cleared),
        }
    }

    fn take_last(&mut self, asked: Asked) {
        match asked {
            Asked::Begin { reply, .. } => drop(reply.send(Err(NoBackup::Stopping))),
            Asked::Look { .. }
            | Asked::Cancel { .. }
            | Asked::Told { .. }
            | Asked::Newest { .. }
            | Asked::Listed { .. }
            | Asked::Pruned { .. }
            | Asked::Cleared { .. } => self.take(asked),
        }
    }

    fn begin(&mut self, vm: &VmName, by: &str, limits: Limits) -> Result<BackupDoc, NoBackup> {
        let config = Arc::clone(&self.config.borrow());
        let known = config.vms.get(vm).ok_or(NoBackup::NoVm)?;
        let (backup, repository) = config.backup_of(vm).ok_or(NoBackup::NotConfigured)?;
        let (to, limits) = (backup.to.clone(), limits.or(backup.limits));
        let hooks = known.hooks();
        let repository = repository.clone();
        if self.runs.get(vm).is_some_and(|run| !run.doc.state.is_over()) {
            return Err(NoBackup::Busy);
        }
        let (doc, cancel) = (BackupDoc::new(vm, &to, limits), CancellationToken::new());
        let job = Job {
            vm: vm.clone(),
            to,
            repository: repository.clone(),
            driver: Arc::clone(&self.driver),
            protector: self.protector.clone(),
            state: config.state.clone(),
            by: by.to_owned(),
            hooks,
            limits,
            cancel: cancel.clone(),
        };
        let (inbox, of) = (self.inbox.clone(), vm.clone());
        let tell = move |news| {
            let told = Asked::Told { vm: of.clone(), news };
            let inbox = inbox.clone();
            async move { inbox.send(told).await.is_ok() }
        };
        let turns = Arc::clone(&self.turns);
        self.tasks.spawn(async move {
            let turn = tokio::select! {
                turn = turns.acquire_owned() => turn.ok(),
                () = job.cancel.cancelled() => None,
            };
            let end = match turn {
                Some(_turn) => job.run(&tell).await,
                None => End::Cancelled,
            };
            tell(News::Ended(end)).await;
        });
        info!(%vm, by, to = doc.to, limit = limits.limit, iops = limits.iops, "a backup begins");
        self.due.tried(vm);
        self.runs.insert(
            vm.clone(),
            Run { doc: doc.clone(), to: repository, is_scheduled: by == SCHEDULE, cancel },
        );
        Ok(doc)
    }

    fn cancel(&mut self, vm: &VmName, by: &str) -> bool {
        let running = self.runs.get(vm).filter(|run| !run.doc.state.is_over());
        let Some(run) = running else { return false };
        info!(%vm, by, "a backup is cancelled");
        run.cancel.cancel();
        true
    }

    fn hear(&mut self, vm: &VmName, news: News) {
        match &news {
            News::Left => return self.left.note([vm.clone()]),
            News::Pruned(_) | News::Begun(_) | News::Off { .. } | News::Progress(_) | News::Ended(_) => {}
        }
        let known = Arc::clone(&self.config.borrow());
        let Some(Run { doc, to, is_scheduled, .. }) = self.runs.get_mut(vm) else { return };
        let is_current = known.backup_of(vm).is_some_and(|(_, now)| now == to);
        match news {
            News::Begun(moment) => {
                (doc.state, doc.size, doc.why_all) = (BackupState::Runs, moment.size, moment.why_all);
                (doc.frozen, doc.stall_s) = (moment.frozen, moment.stall.as_secs_f64());
                doc.warnings = moment.warnings;
            }
            News::Off { size, warning } => {
                (doc.state, doc.size, doc.off) = (BackupState::Runs, size, true);
                doc.warnings.extend(warning);
            }
            News::Progress(progress) => progress.note(doc),
            News::Ended(end) => {
                if let End::Done { id, warning: Some(warning), .. } = &end {
                    warn!(%vm, id, warning, "a restore point is suspicious");
                }
                doc.end(end);
                match doc.state {
                    BackupState::Done => {
                        self.listed.remove(vm); // the engine hears of it with the next look
                        if is_current {
                            self.due.learn(vm, Some(doc.since));
                        }
                        if *is_scheduled {
                            self.pruner.want(&doc.to, vm);
                        }
                        let (id, read, added) = (doc.id.as_deref(), doc.read, doc.added);
                        info!(%vm, id, read, added, seconds = doc.seconds, "a restore point was made");
                    }
                    BackupState::Cancelled => info!(%vm, "a backup was cancelled: no restore point was made"),
                    BackupState::Waits | BackupState::Runs | BackupState::Failed => {
                        let (error, cause) = (doc.error.as_deref(), doc.cause.as_deref());
                        warn!(%vm, error, cause, hint = doc.hint, "no restore point was made");
                        if is_current {
                            self.due.failed(vm, doc.why_failed());
                        }
                    }
                }
            }
            News::Pruned(pruned) => {
                self.listed.remove(vm);
                let to = doc.to.clone();
                doc.pruned = Some(pruned.clone());
                self.tell_pruned(vm, &to, &pruned);
            }
            News::Left => {}
        }
    }
}
