//! Backups by schedule: those that are due begin, what need not be kept is pruned afterwards, and the engine hears how old
//! the newest are. What is due follows from the points that are there.

use super::prune::{Prune, PruneDoc};
use super::run::{self, News};
use super::{Asked, Keeper, SCHEDULE, due};
use crate::config::{Config, Limits};
use crate::protect::Saved;
use holdfast_core::protect::Means;
use holdfast_core::subject::VmName;
use holdfast_drivers::Driver;
use holdfast_drivers::qemu::Qemu;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// So often, where nothing is known to have changed.
const LIST_AGAIN: Duration = Duration::from_secs(300);

impl Keeper {
    /// Looks whether anything is to be done.
    pub(super) async fn look(&mut self) {
        let config = Arc::clone(&self.config.borrow());
        self.clear_left();
        self.list_for_engine(&config);
        for (vm, wanted) in &config.vms {
            let Some(backup) = &wanted.protect.backup else { continue };
            let Some(schedule) = backup.schedule else { continue };
            if let Some((taken, trouble)) = self.due.newest(vm) {
                self.protector.tell_newest(vm, Means::Backup, taken, trouble).await;
            }
            self.begin_if_due(&config, vm, schedule.every).await;
        }
        self.begin_prunes(&config);
    }

    /// The engine knows what there is to go back to: the points are listed when they have changed, and now and then, as others
    /// may change them, too.
    fn list_for_engine(&mut self, config: &Arc<Config>) {
        let due = |vm: &VmName| self.listed.get(vm).is_none_or(|at| at.elapsed() >= LIST_AGAIN);
        let with = config.vms.iter().filter(|(vm, known)| known.protect.backup.is_some() && due(vm));
        let vms: Vec<VmName> = with.map(|(vm, _)| vm.clone()).collect();
        for vm in vms {
            self.listed.insert(vm.clone(), Instant::now());
            let (config, inbox) = (Arc::clone(config), self.inbox.clone());
            self.tasks.spawn(async move {
                let listed = super::points(&config, &vm, super::LIST).await;
                let _stopping = inbox.send(Asked::Listed { vm, listed }).await;
            });
        }
    }

    /// What cannot be listed now may still be there: what was known stays.
    pub(super) fn hear_list(&mut self, vm: VmName, listed: Result<Vec<serde_json::Value>, String>) {
        let is_news = self.unlisted.is_news(vm.as_str(), listed.as_ref().err().map(String::as_str));
        match listed {
            Ok(points) => {
                if is_news {
                    info!(%vm, "its backups can be listed again");
                }
                let (protector, saved) = (self.protector.clone(), Saved::all(&points));
                self.tasks.spawn(async move { protector.tell_saved(&vm, saved).await });
            }
            Err(why) if is_news => {
                warn!(%vm, why, "its backups cannot be listed: newer ones are not gone back to, nor tried");
            }
            Err(why) => debug!(%vm, why, "its backups cannot be listed, as before"),
        }
    }

    /// Begins a backup that is due; for that it must first be known how old the newest point is.
    async fn begin_if_due(&mut self, config: &Config, vm: &VmName, every: Duration) {
        let is_idle = self.runs.get(vm).is_none_or(|run| run.doc.state.is_over());
        if !is_idle || self.driver.places(vm).pid.is_none() {
            return;
        }
        match self.due.is_due(vm, every) {
            due::Answer::No => {}
            due::Answer::Yes => {
                if let Some(why) = self.protector.holds_off(vm, Means::Backup).await {
                    debug!(%vm, why, "a backup that is due waits");
                } else if let Err(cause) = self.begin(vm, SCHEDULE, Limits::default()) {
                    warn!(%vm, %cause, "a backup that is due did not begin");
                }
            }
            due::Answer::Ask => self.ask_for_newest(config, vm),
        }
    }

    fn ask_for_newest(&mut self, config: &Config, vm: &VmName) {
        let Some((_, repository)) = config.backup_of(vm) else { return };
        let repository = repository.clone();
        let (vm, inbox, state) = (vm.clone(), self.inbox.clone(), config.state.clone());
        self.tasks.spawn(async move {
            let taken = run::newest(&repository, &vm, &state).await;
            let _stopping = inbox.send(Asked::Told { vm, news: News::Newest(taken) }).await;
        });
    }

    /// Prunes those repositories that want it, each for one VM after another.
    fn begin_prunes(&mut self, config: &Config) {
        for batch in self.pruner.begin(Instant::now()) {
            let prunes: Vec<(VmName, Prune)> = batch
                .vms
                .into_iter()
                .filter_map(|vm| Prune::of(config, &vm).map(|prune| (vm, prune)))
                .collect();
            let (inbox, stop, to) = (self.inbox.clone(), self.stop.clone(), batch.to);
            let driver = Arc::clone(&self.driver);
            self.tasks.spawn(async move {
                for (vm, prune) in prunes {
                    let Some(pruned) = prune.run(&stop, || may_prune(&driver, &vm)).await else { continue };
                    let told = Asked::Told { vm, news: News::Pruned(pruned) };
                    if inbox.send(told).await.is_err() {
                        break;
                    }
                }
                let _stopping = inbox.send(Asked::Pruned { to }).await;
            });
        }
    }

    /// Tells what came of a prune. Why nothing went is told once, as it is so each time.
    pub(super) fn tell_pruned(&mut self, vm: &VmName, to: &str, pruned: &PruneDoc) {
        let PruneDoc { points, bytes, verified, error, .. } = pruned;
        if !self.pruner.is_news(to, error.as_deref()) {
            debug!(%vm, to, error, "nothing was pruned, as before");
            return;
        }
        match error {
            None => {
                info!(%vm, to, points, bytes, verified, "restore points that need not be kept were removed");
            }
            Some(error) => {
                warn!(%vm, to, points, error, "restore points that need not be kept were not removed");
            }
        }
    }
}

/// The point that the disk of a VM is coming from must stay (I12), and so must one of a disk that was left half and is kept as a
/// snapshot; after the next backup it is looked again.
async fn may_prune(driver: &Qemu, vm: &VmName) -> bool {
    match (driver.incoming(vm).await, driver.needs_backup(vm).await) {
        (Ok(None), Ok(false)) => true,
        (Ok(None), Ok(true)) => {
            warn!(%vm, "nothing is pruned: a snapshot stands on a backup that had not come in; delete it, or go back to it");
            false
        }
        (_, _) => {
            debug!(%vm, "nothing is pruned while its disk comes in from a backup");
            false
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use holdfast_core::point::Snapshot;
    use holdfast_core::written::Marks;
    use holdfast_drivers::qemu::launch::Format;
    use holdfast_drivers::qemu::snapshot::tree::{FileNumber, Tree};
    use holdfast_drivers::qemu::snapshot::{Files, Origin};
    use holdfast_drivers::qemu::{Accel, Network, QemuVm};
    use std::collections::BTreeMap;
    use std::path::Path;

    async fn driver(place: &Path) -> Qemu {
        let vm = QemuVm {
            name: "a".parse().unwrap(),
            disk: place.join("disk"),
            images: Vec::new(),
            memory: 64 << 20,
            cpus: 1,
            accel: Accel::Tcg,
            kernel: None,
            network: Network::None,
            user: None,
            program: None,
            memory_state: None,
        };
        Qemu::open(vec![vm], BTreeMap::new(), place.join("run"), place.join("evidence")).await.unwrap()
    }

    fn set_aside(tree: &Tree) -> Snapshot {
        Snapshot {
            id: tree.next(),
            taken: 0,
            memory: None,
            frozen: false,
            set_aside: true,
            scheduled: false,
            note: String::new(),
            trial: None,
            written: Marks::new(),
        }
    }

    #[tokio::test]
    async fn no_point_goes_while_a_disk_or_a_snapshot_of_its_vm_needs_one_i12() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("disk"), vec![0; 1 << 20]).unwrap();
        let (driver, vm) = (driver(place.path()).await, "a".parse().unwrap());
        assert!(may_prune(&driver, &vm).await, "nothing comes in");
        let files = Files::of(&place.path().join("disk"));
        files.make_folder().unwrap();
        let mut tree = Tree::of(Format::Raw);
        let aside = set_aside(&tree);
        let to = aside.id;
        let number = tree.begin();
        files.make_root(&tree, number, 1 << 20).unwrap();
        tree.restore(Origin { to: "main".into(), repository: "7".into(), point: "a/3".into() }, aside);
        files.write(&tree).unwrap();
        assert!(!may_prune(&driver, &vm).await, "its disk comes in");
        let aside = set_aside(&tree);
        tree.begin();
        tree.rewind(to, aside, false);
        files.write(&tree).unwrap();
        assert!(!may_prune(&driver, &vm).await, "a disk that was left half is kept as a snapshot");
        tree.removed(FileNumber(1));
        files.write(&tree).unwrap();
        assert!(may_prune(&driver, &vm).await, "that is gone");
        for record in ["record", "record-copy"] {
            std::fs::write(files.folder().join(record), "torn").unwrap();
        }
        assert!(!may_prune(&driver, &vm).await, "nobody can tell");
    }
}
