//! `holdfast reload`, SIGHUP: the configuration is read again, and comes into force whole or not at all.
//!
//! Whatever is wrong with the new one, the old one stays. No VM is started, stopped or changed by it (I7):
//! one that runs is what it was started as until its next start, and one that is no longer named is left
//! alone. What is watched and stays as it is goes on undisturbed.

use crate::api::shape::{ReloadDoc, ReloadedVmDoc, V};
use crate::asked;
use crate::config::{Config, ConfigErrors, Loaded, Origin, VmChange};
use crate::daemon::{policies, restarts, specs};
use crate::decide::{Inbox, Stopping};
use crate::sense::Watching;
use crate::sense::logs::Sources;
use holdfast_core::subject::VmName;
use holdfast_drivers::DriverError;
use holdfast_drivers::qemu::Qemu;
use sd_notify::NotifyState;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Reloads that may wait for the one under way.
const QUEUE: usize = 8;

/// Why the old configuration stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The new one is wrong.
    #[error("the configuration is refused, the one before stays in force")]
    Config(#[from] ConfigErrors),
    /// The driver cannot look after a VM of it.
    #[error("the configuration is right but cannot be put into force, the one before stays")]
    Driver(#[from] DriverError),
    /// The daemon is stopping.
    #[error(transparent)]
    Stopping(#[from] Stopping),
}

/// Who asks, and where the answer goes.
struct Request {
    by: String,
    reply: oneshot::Sender<Result<ReloadDoc, ReloadError>>,
}

/// Where a reload is asked for.
#[derive(Clone)]
pub struct Reloads(mpsc::Sender<Request>);

impl Reloads {
    /// Reads the configuration again; what came of it.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub async fn ask(&self, by: &str) -> Result<ReloadDoc, ReloadError> {
        let answer = asked::ask(&self.0, |reply| Request { by: by.to_owned(), reply }).await;
        answer.ok_or(Stopping)?
    }
}

/// The one that puts configurations into force.
pub struct Reloader {
    /// Where they come from.
    pub origin: Origin,
    /// The hypervisor.
    pub driver: Arc<Qemu>,
    /// The loop.
    pub inbox: Inbox,
    /// What is watched.
    pub watching: Watching,
    /// Where logs come from.
    pub sources: Sources,
    /// The configuration in force.
    pub config: watch::Sender<Arc<Config>>,
    /// The state is of a newer version: whatever is configured, nothing is done (I22).
    pub newer: bool,
}

impl Reloader {
    /// Serves those who ask, one after the other, until it is told to stop; then all watching ends.
    pub fn start(mut self, stop: CancellationToken) -> (Reloads, tokio::task::JoinHandle<()>) {
        let (asked, mut requests) = mpsc::channel::<Request>(QUEUE);
        let task = tokio::spawn(async move {
            loop {
                let request = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    request = requests.recv() => request,
                };
                let Some(Request { by, reply }) = request else { return stop.cancelled().await };
                let answer = self.reload(&by).await;
                let _ = reply.send(answer); // whoever asked may have gone
            }
        });
        (Reloads(asked), task)
    }

    async fn reload(&mut self, by: &str) -> Result<ReloadDoc, ReloadError> {
        let mut begins = vec![NotifyState::Reloading];
        begins.extend(NotifyState::monotonic_usec_now().ok()); // systemd asks for both (Type=notify-reload)
        let _ = sd_notify::notify(&begins); // nobody listens outside systemd
        let answer = self.put_into_force().await;
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        match &answer {
            Ok(doc) => {
                info!(by, added = ?doc.added, removed = ?doc.removed, changed = doc.changed.len(), "configuration read again")
            }
            Err(ReloadError::Config(errors)) => {
                for problem in errors.0.told() {
                    let (error, cause, hint) = (&problem.error, &problem.cause, &problem.hint);
                    warn!(by, error, cause, hint, "the new configuration is refused, the old one stays");
                }
            }
            Err(error) => {
                let why = crate::act::chain(error);
                warn!(by, why, "the new configuration is refused, the old one stays");
            }
        }
        answer
    }

    async fn put_into_force(&mut self) -> Result<ReloadDoc, ReloadError> {
        let running = Arc::clone(&self.config.borrow());
        let (origin, before) = (self.origin.clone(), Arc::clone(&running));
        let loaded = tokio::task::spawn_blocking(move || Config::load_again(&origin, &before)).await;
        let Loaded { config, path, warnings } = loaded.map_err(|_| Stopping)??;
        let changes = running.changes(&config);
        let notes = self.coming_from_elsewhere(&running, &config).await;
        // The driver knows a VM before the engine asks for it, and until it asks no more.
        let later = self.driver.take_on(specs(&config), restarts(&config))?;
        self.inbox.configure(policies(&config, self.driver.as_ref(), self.newer)).await?;
        self.watching.configure(&config);
        self.sources.configure(&config);
        self.driver.let_go(&changes.removed);
        self.config.send_replace(Arc::new(config));
        let names = |vms: &[VmName]| vms.iter().map(ToString::to_string).collect();
        Ok(ReloadDoc {
            v: V,
            file: path.display().to_string(),
            settings: changes.settings,
            added: names(&changes.added),
            removed: names(&changes.removed),
            changed: changes.changed.into_iter().map(|change| reloaded(change, &later)).collect(),
            warnings: warnings.to_json(),
            notes,
        })
    }

    /// What a person is told of VMs whose disk still comes in from a repository that the new configuration has no more, or otherwise.
    /// Whoever brings it was told where it lies, and goes on.
    async fn coming_from_elsewhere(&self, before: &Config, new: &Config) -> Vec<String> {
        let mut notes = Vec::new();
        for vm in before.vms.keys() {
            let Ok(Some(incoming)) = self.driver.incoming(vm).await else { continue };
            let (point, to) = (&incoming.origin.point, &incoming.origin.to);
            let now = new.repositories.get(to);
            if now == before.repositories.get(to) {
                continue;
            }
            let what = if now.is_some() { "is described otherwise" } else { "is not named any more" };
            warn!(%vm, point, repository = to, what, "the disk of a vm still comes in from a repository that changes");
            notes.push(format!(
                "vm {vm}: its disk still comes in from {point}, and [repository.{to}] {what}: it is read on from where it was; \
                 should that be cut off, the vm waits until [repository.{to}] leads there again"
            ));
        }
        notes
    }
}

/// What changed for a VM, and when it counts: at once if it does not run.
fn reloaded(change: VmChange, later: &BTreeSet<VmName>) -> ReloadedVmDoc {
    let VmChange { vm, mut at_once, mut of_machine } = change;
    if !later.contains(&vm) {
        at_once.append(&mut of_machine);
    }
    ReloadedVmDoc { vm: vm.to_string(), at_once, at_next_start: of_machine }
}
