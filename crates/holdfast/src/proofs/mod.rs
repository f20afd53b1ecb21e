//! Proof that restore points work: each is booted in a sandbox, and its application is asked. One at a time.
//!
//! A trial harms nothing (see [`holdfast_drivers::qemu::sandbox`]), and takes what nobody else wants: it waits while
//! anything is wrong on this host, and gives way where something goes wrong meanwhile.

mod due;
mod inside;
mod run;
mod watch;

pub use due::ProofError;

use crate::asked;
use crate::clock;
use crate::config::Config;
use crate::decide::Inbox;
use crate::protect::Protector;
use holdfast_core::diagnosis::{Level, level};
use holdfast_core::incident::Incident;
use holdfast_core::point::Grade;
use holdfast_core::subject::VmName;
use holdfast_drivers::qemu::Qemu;
use run::{End, Job};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch as watched};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Questions that may wait.
const QUEUE: usize = 16;
/// How often it is looked whether one is due, and whether one has to give way.
const LOOK: Duration = Duration::from_secs(10);

/// How a proof goes, or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProofState {
    /// The point boots, or is checked.
    Runs,
    /// It is known what the point is worth: not always more than before.
    Done,
    /// There was no trial.
    Failed,
    /// Somebody wanted it to end, or something went wrong on this host.
    Cancelled,
}

/// The last proof of a point of a VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProofDoc {
    /// The version of this shape.
    pub v: u32,
    /// Of this VM.
    pub vm: String,
    /// Of this point, as `points` names it.
    pub point: String,
    /// Who asked.
    pub by: String,
    /// How it stands.
    pub state: ProofState,
    /// When it began, in seconds since 1970.
    pub since: f64,
    /// How long it took (seconds), once it is over.
    pub seconds: Option<f64>,
    /// What was proved: `taken` (it did not boot), `booted`, `app-checked`.
    pub grade: Option<Grade>,
    /// How long its users would have waited (seconds).
    pub boot_s: Option<f64>,
    /// What was seen, or why there was no trial, for people.
    pub words: Option<String>,
}

enum Asked {
    Begin {
        vm: VmName,
        point: Option<String>,
        by: String,
        reply: oneshot::Sender<Result<ProofDoc, ProofError>>,
    },
    Look {
        vm: VmName,
        reply: oneshot::Sender<Option<ProofDoc>>,
    },
    Cancel {
        vm: VmName,
        by: String,
        reply: oneshot::Sender<bool>,
    },
}

/// Where proofs are asked for.
#[derive(Clone)]
pub struct Proofs(mpsc::Sender<Asked>);

impl Proofs {
    /// Begins one, of this point or the newest. It is not over when this returns.
    pub async fn begin(&self, vm: VmName, point: Option<String>, by: String) -> Result<ProofDoc, ProofError> {
        let begun = asked::ask(&self.0, |reply| Asked::Begin { vm, point, by, reply }).await;
        begun.ok_or(ProofError::Stopping)?
    }

    /// The last one of a VM, or the one that runs.
    pub async fn look(&self, vm: VmName) -> Option<ProofDoc> {
        asked::ask(&self.0, |reply| Asked::Look { vm, reply }).await.flatten()
    }

    /// Ends the one that runs. Whether there is one.
    pub async fn cancel(&self, vm: VmName, by: String) -> bool {
        asked::ask(&self.0, |reply| Asked::Cancel { vm, by, reply }).await.unwrap_or(false)
    }
}

/// The one that knows of all proofs.
struct Keeper {
    driver: Arc<Qemu>,
    protector: Protector,
    inbox: Inbox,
    config: watched::Receiver<Arc<Config>>,
    docs: BTreeMap<VmName, ProofDoc>,
    running: Option<Running>,
    due: due::Due,
}

struct Running {
    vm: VmName,
    began: Instant,
    /// Nobody asked for it: it gives way.
    is_ours: bool,
    cancel: CancellationToken,
    task: JoinHandle<End>,
}

/// Begins to look after proofs, until it is told to stop; then the one that runs is ended.
pub fn start(
    driver: Arc<Qemu>,
    protector: Protector,
    inbox: Inbox,
    config: watched::Receiver<Arc<Config>>,
    stop: CancellationToken,
) -> (Proofs, JoinHandle<()>) {
    let (sender, asked) = mpsc::channel(QUEUE);
    let (docs, due) = (BTreeMap::new(), due::Due::default());
    let keeper = Keeper { driver, protector, inbox, config, docs, running: None, due };
    (Proofs(sender), tokio::spawn(keeper.keep(asked, stop)))
}

impl Keeper {
    async fn keep(mut self, mut asked: mpsc::Receiver<Asked>, stop: CancellationToken) {
        let left = run::folder(&self.config.borrow().state);
        if let Err(error) = run::remove(&left) {
            warn!(%error, folder = %left.display(), "what earlier trials left is still there");
        }
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                end = over(&mut self.running) => self.note(end),
                Some(asked) = asked.recv() => self.take(asked).await,
                _ = look.tick() => self.look().await,
            }
        }
        if let Some(running) = self.running.take() {
            running.cancel.cancel();
            let _ended = running.task.await;
        }
    }

    async fn take(&mut self, asked: Asked) {
        match asked {
            Asked::Begin { vm, point, by, reply } => {
                let begun = self.begin(&vm, point.as_deref(), &by, false).await;
                drop(reply.send(begun));
            }
            Asked::Look { vm, reply } => drop(reply.send(self.docs.get(&vm).cloned())),
            Asked::Cancel { vm, by, reply } => {
                let running = self.running.as_ref().filter(|running| running.vm == vm);
                if let Some(running) = running {
                    info!(%vm, by, "a proof is cancelled");
                    running.cancel.cancel();
                }
                let _ = reply.send(running.is_some()); // whoever asked may have gone
            }
        }
    }

    async fn begin(
        &mut self,
        vm: &VmName,
        point: Option<&str>,
        by: &str,
        is_ours: bool,
    ) -> Result<ProofDoc, ProofError> {
        let config = Arc::clone(&self.config.borrow());
        if !config.vms.contains_key(vm) {
            return Err(ProofError::NoVm);
        }
        if let Some(running) = &self.running {
            return Err(ProofError::Busy(running.vm.clone()));
        }
        let (which, rows) = due::find(&self.protector, &config, vm, point).await?;
        self.due.tried(vm, &which);
        let doc = ProofDoc {
            v: 1,
            vm: vm.to_string(),
            point: which.to_string(),
            by: by.to_owned(),
            state: ProofState::Runs,
            since: clock::wall_seconds(),
            seconds: None,
            grade: None,
            boot_s: None,
            words: None,
        };
        info!(%vm, by, point = doc.point, "a restore point is tried");
        let cancel = CancellationToken::new();
        let budget = config.vms.get(vm).map_or(due::WITHIN, |vm| vm.protect.proof.within);
        let (driver, protector) = (Arc::clone(&self.driver), self.protector.clone());
        let job =
            Job { vm: vm.clone(), which, rows, config, driver, protector, budget, cancel: cancel.clone() };
        let task = tokio::spawn(async move { job.run().await });
        self.running = Some(Running { vm: vm.clone(), began: Instant::now(), is_ours, cancel, task });
        self.docs.insert(vm.clone(), doc.clone());
        Ok(doc)
    }

    /// Writes down how the one that ran ended.
    fn note(&mut self, end: End) {
        let Some(Running { vm, began, is_ours, .. }) = self.running.take() else { return };
        let Some(doc) = self.docs.get_mut(&vm) else { return };
        doc.seconds = Some(began.elapsed().as_secs_f64());
        match end {
            End::Known(told) => {
                (doc.state, doc.grade, doc.words) =
                    (ProofState::Done, Some(told.grade()), Some(told.words()));
                doc.boot_s = told.up().map(|up| up.as_secs_f64());
            }
            End::Failed(why) => (doc.state, doc.words) = (ProofState::Failed, Some(why)),
            End::Cancelled => {
                doc.state = ProofState::Cancelled;
                if is_ours {
                    self.due.not_tried(&vm, &doc.point); // it gave way, and nothing is known of it
                }
            }
        }
        let (point, grade, words) = (&doc.point, doc.grade, doc.words.as_deref());
        match doc.state {
            ProofState::Done if grade > Some(Grade::Taken) => {
                info!(%vm, point, ?grade, words, "a restore point is proved");
            }
            ProofState::Done => warn!(%vm, point, words, "a restore point is not proved"),
            ProofState::Failed => warn!(%vm, point, words, "a restore point could not be tried"),
            ProofState::Runs | ProofState::Cancelled => info!(%vm, point, "a trial was ended before its end"),
        }
    }

    /// Begins one that is due, or ends ours where something is wrong on this host.
    async fn look(&mut self) {
        // That a probe is broken, or a point too old, says nothing of this host: a trial harms nobody then.
        let troubles =
            |incident: &Incident| !incident.is_closed() && level(incident.fault()) != Level::Observer;
        let is_calm = self.inbox.look(move |desk| !desk.engine.incidents().any(troubles)).await;
        let is_calm = is_calm.unwrap_or(false);
        match &self.running {
            Some(running) if running.is_ours && !is_calm => {
                info!(vm = %running.vm, "a trial gives way: something is wrong on this host");
                running.cancel.cancel();
            }
            None if is_calm => self.begin_what_is_due().await,
            Some(_) | None => {}
        }
    }

    async fn begin_what_is_due(&mut self) {
        let config = Arc::clone(&self.config.borrow());
        for (vm, wanted) in &config.vms {
            let Some(every) = wanted.protect.proof.every else { continue };
            if self.protector.merging(vm).is_some() {
                continue; // what its snapshots stand on is written to
            }
            if let Some(point) = self.due.of(&self.protector, &config, vm, every).await {
                if let Err(cause) = self.begin(vm, Some(&point), "schedule", true).await {
                    warn!(%vm, point, %cause, "a proof that is due did not begin");
                }
                return;
            }
        }
    }
}

/// Waits for the end of the one that runs; for ever if there is none.
async fn over(running: &mut Option<Running>) -> End {
    match running {
        Some(running) => (&mut running.task).await.unwrap_or_else(|e| End::Failed(e.to_string())),
        None => std::future::pending().await,
    }
}
